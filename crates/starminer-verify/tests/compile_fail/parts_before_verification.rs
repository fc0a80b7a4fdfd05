// expect: E0616
use starminer_verify::*;

fn peek(evidence: &Evidence) -> usize {
    evidence.parts.len()
}

fn main() {
    let _ = peek as usize;
}
