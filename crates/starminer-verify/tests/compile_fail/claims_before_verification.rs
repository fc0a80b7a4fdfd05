// expect: E0616
use starminer_verify::*;

fn peek(evidence: &Evidence) -> Binding {
    evidence.binding.clone()
}

fn main() {
    let _ = peek as usize;
}
