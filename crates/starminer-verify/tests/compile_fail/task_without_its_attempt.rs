// expect: E0063
use starminer_verify::*;

fn forget(spec: Digest) -> ExpectedPurpose {
    ExpectedPurpose::Task { spec }
}

fn main() {
    let _ = forget as usize;
}
