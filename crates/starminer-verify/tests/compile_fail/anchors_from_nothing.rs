// expect: E0451
use starminer_verify::*;

fn main() {
    let _ = TrustAnchors { simulated: Default::default() };
}
