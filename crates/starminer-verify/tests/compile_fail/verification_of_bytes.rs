// expect: E0308
use starminer_verify::*;

fn skip(bytes: &[u8], context: &Context<'_>) -> Result<Verified, Refusal> {
    verify(bytes, context)
}

fn main() {
    let _ = skip as usize;
}
