// expect: E0308
use starminer_verify::*;

fn skip(evidence: Evidence, values: &ReferenceValues, policy: &Policy) -> AttestationResult {
    appraise(&evidence, values, policy)
}

fn main() {
    let _ = skip as usize;
}
