// expect: E0616
use starminer_verify::*;

fn raise(result: &mut AttestationResult) {
    result.tier = Tier::Hardened;
}

fn main() {
    let _ = raise as usize;
}
