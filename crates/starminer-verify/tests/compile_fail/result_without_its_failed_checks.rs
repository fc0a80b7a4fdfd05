// expect: E0596
use starminer_verify::*;

fn drop_failures(result: &mut AttestationResult) {
    result.checks().sort_by_key(|_| 0);
}

fn main() {
    let _ = drop_failures as usize;
}
