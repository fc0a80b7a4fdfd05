// expect: E0616
use starminer_verify::*;

fn launder(mut verified: Verified) -> Verified {
    verified.provenance = Provenance::Genuine;
    verified
}

fn main() {
    let _ = launder as usize;
}
