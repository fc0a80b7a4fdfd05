// expect: E0639
use starminer_verify::software_tee::SoftwareTeeClaims;
use starminer_verify::*;

fn forge(old: SoftwareTeeClaims) -> SoftwareTeeClaims {
    SoftwareTeeClaims { measurement: Digest([0; 32]), ..old }
}

fn main() {
    let _ = forge as usize;
}
