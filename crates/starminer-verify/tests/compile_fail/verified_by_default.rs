// expect: E0599
use starminer_verify::*;

fn main() {
    let _ = Verified::default();
    let _ = AttestationResult::default();
}
