// expect: E0308
use starminer_verify::*;

fn excuse(refusal: Refusal, values: &ReferenceValues, policy: &Policy) -> AttestationResult {
    let outcome: Result<Verified, Refusal> = Err(refusal);
    appraise(&outcome, values, policy)
}

fn main() {
    let _ = excuse as usize;
}
