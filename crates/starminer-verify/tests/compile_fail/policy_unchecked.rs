// expect: E0423
use starminer_verify::*;

fn skip(fields: PolicyFields) -> Policy {
    Policy(fields)
}

fn main() {
    let _ = skip as usize;
}
