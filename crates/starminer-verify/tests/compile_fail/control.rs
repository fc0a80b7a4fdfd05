// Takes every step; the other programs are this one with a step left out.
use starminer_verify::*;

fn relying_party(bytes: &[u8], expected: Expected, anchors: &TrustAnchors, now: UnixTime) -> Result<Tier, Refusal> {
    let evidence = Evidence::parse(bytes)?;
    let endorsements = Endorsements::none();
    let context = Context { expected, endorsements: &endorsements, trust_anchors: anchors, enrolments: &Enrolments::none(), now };
    let verified = verify(evidence, &context)?;
    let result = appraise(&verified, &ReferenceValues::unset(), &Policy::confidential());
    match result.decision() {
        Decision::Meets => Ok(result.tier()),
        Decision::Fails(mut refusals) => Err(refusals.remove(0)),
    }
}

fn expected(network: NetworkId, challenge: Challenge, node: NodeId, now: UnixTime) -> Expected {
    Expected {
        network,
        challenge,
        challenge_issued_at: now,
        purpose: ExpectedPurpose::Admission,
        node,
        boot: Expect::Any,
        task_key: Expect::Any,
        report_key: Expect::Any,
        agent_key: Expect::Any,
        tls_key: Expect::Any,
        posture: Expect::Any,
    }
}

fn main() {
    let _ = (relying_party as usize, expected as usize);
}
