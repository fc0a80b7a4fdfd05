//! Simulated evidence has one way in: the verifier's trust file names its root and the policy names the same. These tests
//! try the others.

use starminer_verify::software_tee::DebugMode;
use starminer_verify::{
    Decision, MAX_SIMULATED_ROOTS, Party, Policy, PolicyError, Provenance, SimulatedRootId, Tier, TrustAnchors,
    TrustStatus, X_WING_PUBLIC_KEY_LEN,
};

use crate::fixture::{Key, Node, Random, Verifier, policy};

fn root(seed: u8) -> SimulatedRootId {
    SimulatedRootId::SoftwareTee(Key::new(seed).public())
}

/// Verification does not let it in and says what to do.
#[track_caller]
fn check_unknown(verifier: &Verifier, evidence: &[u8]) {
    let refusal = verifier.verify(evidence).unwrap_err();
    assert_eq!((refusal.check(), refusal.party()), ("evidence.root-unknown", Party::Node));
    assert!(refusal.remedy().contains("simulated_roots"), "{refusal}");
}

/// Appraisal gives it no tier, whatever its report claims.
#[track_caller]
fn check_worthless(verifier: &Verifier, evidence: &[u8]) {
    let result = verifier.appraise(evidence).unwrap();
    assert!(matches!(result.provenance(), Provenance::Simulated { .. }));
    assert_eq!(result.tier(), Tier::None);
    assert_eq!(result.status(), TrustStatus::Contraindicated);
    let Decision::Fails(refusals) = result.decision() else { panic!("met") };
    assert_eq!(refusals[0].check(), "device.root");
    assert!(refusals[0].reason().starts_with("SIMULATED"));
}

#[test]
fn no_trust_file_names_the_root() {
    let node = Node::task();
    let mut verifier = Verifier::of(&node);
    verifier.anchors = TrustAnchors::makers();
    check_unknown(&verifier, &node.evidence());
}

#[test]
fn the_trust_file_names_another_root() {
    let node = Node::task();
    let mut verifier = Verifier::of(&node);
    verifier.anchors = TrustAnchors::makers().with_simulated_roots([root(50), root(51)]).unwrap();
    check_unknown(&verifier, &node.evidence());
}

#[test]
fn the_policy_names_no_root_or_another() {
    let node = Node::task();
    let mut verifier = Verifier::of(&node);
    verifier.policy = Policy::confidential();
    check_worthless(&verifier, &node.evidence());
    verifier.policy = policy(|p| p.accepted_simulated_roots = vec![root(50), root(51)]);
    check_worthless(&verifier, &node.evidence());
    // Trusting two roots and accepting one does not carry over to the other.
    verifier.anchors = TrustAnchors::makers().with_simulated_roots([root(1), root(50)]).unwrap();
    check_worthless(&verifier, &node.evidence());
}

#[test]
fn a_device_claims_the_accepted_root_without_its_signature() {
    let node = Node::task();
    let mut body = node.report_body(node.batch().0);
    let impostor = Key::new(60);
    body.certificate.signature = impostor.sign(&starminer_verify::software_tee::DeviceCertificate::message(
        &body.certificate.chip_id,
        &body.certificate.device_key,
        body.certificate.not_before,
        body.certificate.not_after,
    ));
    let evidence = node.evidence_with(node.sign_report(&body.encode()));
    let refusal = Verifier::of(&node).verify(&evidence).unwrap_err();
    assert_eq!(refusal.check(), "evidence.certificate-signature");
}

#[test]
fn a_root_that_is_a_weak_key_is_no_back_door() {
    // Low-order points verify some signatures over any message; such a root would certify everybody's device.
    for encoded in [[0u8; 32], {
        let mut one = [0u8; 32];
        one[0] = 1;
        one
    }] {
        let node = Node::task();
        let mut body = node.report_body(node.batch().0);
        body.certificate.root = starminer_verify::PublicKey(encoded);
        body.certificate.signature = [0; 64];
        let evidence = node.evidence_with(node.sign_report(&body.encode()));
        check_unknown(&Verifier::of(&node), &evidence);
    }
}

#[test]
fn no_text_names_a_maker() {
    // There is no way to write "maker" into a trust file or a policy; only roots that say what they are.
    for text in [
        "genuine",
        "maker:amd",
        "sev:0000000000000000000000000000000000000000000000000000000000000000",
        "software-tee",
        "software-tee:",
        "software-tee:*",
        "SOFTWARE-TEE:0000000000000000000000000000000000000000000000000000000000000000",
        " software-tee:0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000000",
    ] {
        assert!(text.parse::<SimulatedRootId>().is_err(), "{text}");
        let json = serde_json::to_string(Policy::confidential().fields()).unwrap();
        let edited =
            json.replace(r#""accepted_simulated_roots":[]"#, &format!(r#""accepted_simulated_roots":["{text}"]"#));
        assert_ne!(json, edited);
        assert_eq!(Policy::parse(edited.as_bytes()).unwrap_err(), PolicyError::Malformed);
    }
    assert_eq!(root(1).to_string().parse::<SimulatedRootId>().unwrap(), root(1));
}

#[test]
fn provenance_cannot_be_stripped_or_written_into_evidence() {
    let node = Node::task();
    let text = String::from_utf8(node.evidence()).unwrap();
    for field in [r#""provenance":"genuine","#, r#""provenance":null,"#, r#""tier":"confidential","#] {
        for at in [r#""binding":"#, r#""kind":"#, r#""network":"#, r#""sandbox":"#] {
            let edited = text.replacen(at, &format!("{field}{at}"), 1);
            assert_ne!(edited, text);
            assert_eq!(Verifier::of(&node).verify(edited.as_bytes()).unwrap_err().check(), "evidence.malformed");
        }
    }
}

#[test]
fn whatever_a_simulated_device_reports_it_stays_simulated() {
    let mut random = Random(1);
    for _ in 0..200 {
        let mut node = Node::task();
        node.tcb_version = random.next();
        node.debug = if random.below(2) == 0 { DebugMode::Off } else { DebugMode::On };
        node.chip_id.0.fill_with(|| random.next().to_be_bytes()[0]);
        let verifier = Verifier::of(&node);
        let result = verifier.appraise(&node.evidence()).unwrap();
        assert_eq!(result.provenance(), Provenance::Simulated { root: node.root_id() });
        assert!(result.tier() <= Tier::Confidential);
        assert!(result.status() >= TrustStatus::Warning);
        assert_eq!(result.vector().hardware.value(), 0);
        assert_eq!(result.vector().runtime_opaque.value(), 0);
    }
}

#[test]
fn debug_does_not_pass_even_under_an_accepted_root() {
    let mut node = Node::task();
    node.debug = DebugMode::On;
    let result = Verifier::of(&node).appraise(&node.evidence()).unwrap();
    assert_eq!(result.tier(), Tier::Identified);
    assert!(matches!(result.decision(), Decision::Fails(_)));
}

#[test]
fn evidence_of_one_use_serves_no_other() {
    // Replays across network, challenge, purpose, spec, node and attempt stand in the table of `refused.rs`; here: the very
    // same report around another task's keys.
    let node = Node::task();
    let report = node.report();
    let mut thief = Node::task();
    thief.binding.task_key = starminer_verify::TaskKey::from_bytes(
        starminer_verify::Suite::XWingSha256Aes256Gcm,
        &[0x66; X_WING_PUBLIC_KEY_LEN],
    );
    let refusal = Verifier::of(&thief).verify(&thief.evidence_with(report)).unwrap_err();
    assert_eq!(refusal.check(), "evidence.report-data");
}

#[test]
fn lists_of_roots_are_bounded_and_without_repetition() {
    let many: Vec<_> = (0..=u8::try_from(MAX_SIMULATED_ROOTS).unwrap()).map(root).collect();
    assert!(TrustAnchors::makers().with_simulated_roots(many.clone()).is_err());
    let mut fields = Policy::confidential().fields().clone();
    fields.accepted_simulated_roots = many;
    assert_eq!(Policy::new(fields.clone()).unwrap_err(), PolicyError::TooManyRoots);
    fields.accepted_simulated_roots = vec![root(1), root(2), root(1)];
    assert!(matches!(Policy::new(fields).unwrap_err(), PolicyError::Twice { .. }));
}
