// expect: E0063
use starminer_verify::*;

fn forget<'a>(
    expected: Expected,
    endorsements: &'a Endorsements,
    anchors: &'a TrustAnchors,
    now: UnixTime,
) -> Context<'a> {
    Context { expected, endorsements, trust_anchors: anchors, now }
}

fn main() {
    let _ = forget as for<'a> fn(_, &'a _, &'a _, _) -> Context<'a>;
}
