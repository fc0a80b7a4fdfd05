// expect: E0451
use starminer_verify::*;

fn forge(old: Check) -> Check {
    Check { verdict: Verdict::Pass, ..old }
}

fn main() {
    let _ = forge as usize;
}
