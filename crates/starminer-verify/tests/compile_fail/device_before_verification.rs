// expect: E0599
use starminer_verify::*;

fn peek(evidence: &Evidence) {
    let _ = evidence.device();
    let _ = evidence.posture();
}

fn main() {
    let _ = peek as usize;
}
