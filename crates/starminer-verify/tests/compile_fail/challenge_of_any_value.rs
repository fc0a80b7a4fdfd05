// expect: E0308
use starminer_verify::*;

fn forget(old: Expected) -> Expected {
    Expected { challenge: Expect::Any, ..old }
}

fn main() {
    let _ = forget as usize;
}
