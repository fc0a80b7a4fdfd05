// expect: E0599
use starminer_verify::*;

fn main() {
    let _ = TrustAnchors::default();
    let _ = Endorsements::default();
}
