// expect: E0451
use starminer_verify::parts::SevSnpClaims;
use starminer_verify::*;

fn forge(old: SevSnpClaims) -> DeviceClaims {
    let SevSnpClaims { verified } = old;
    DeviceClaims::SevSnp(SevSnpClaims { verified })
}

fn main() {
    let _ = forge as usize;
}
