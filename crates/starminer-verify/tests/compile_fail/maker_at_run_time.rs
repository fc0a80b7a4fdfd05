// expect: E0599
use starminer_verify::*;

fn add(anchors: TrustAnchors, key: PublicKey) -> TrustAnchors {
    anchors.with_maker_root(key)
}

fn main() {
    let _ = add as usize;
}
