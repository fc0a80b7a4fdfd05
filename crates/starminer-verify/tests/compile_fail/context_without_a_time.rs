// expect: E0063
use starminer_verify::*;

fn forget<'a>(
    expected: Expected,
    endorsements: &'a Endorsements,
    anchors: &'a TrustAnchors,
    enrolments: &'a Enrolments,
) -> Context<'a> {
    Context { expected, endorsements, trust_anchors: anchors, enrolments }
}

fn main() {
    let _ = forget as for<'a> fn(_, &'a _, &'a _, &'a _) -> Context<'a>;
}
