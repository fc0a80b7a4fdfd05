// expect: E0451
use starminer_verify::*;

fn main() {
    let _ = Endorsements { snapshot: None };
}
