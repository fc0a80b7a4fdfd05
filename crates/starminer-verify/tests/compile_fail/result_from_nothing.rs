// expect: E0451
use starminer_verify::*;

fn forge(old: AttestationResult) -> AttestationResult {
    AttestationResult { tier: Tier::Hardened, ..old }
}

fn main() {
    let _ = forge as usize;
}
