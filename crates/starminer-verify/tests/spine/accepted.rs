//! Good evidence: what is accepted, what the result says, and what it never says.

use std::marker::PhantomData;

use serde::de::DeserializeOwned;
use starminer_verify::software_tee::DebugMode;
use starminer_verify::{
    AttestationResult, Decision, DeviceClaims, Evidence, Expect, Provenance, Purpose, Refusal, Tier, TrustStatus,
    UnixTime, Verdict, Verified, Weight,
};

use crate::fixture::{NOW, Node, Verifier};

#[test]
fn every_purpose_reaches_confidential_under_a_named_simulated_root_and_says_simulated() {
    for purpose in Purpose::ALL {
        let node = Node::for_purpose(purpose);
        let result = Verifier::of(&node).appraise(&node.evidence()).unwrap();
        assert_eq!(result.decision(), Decision::Meets, "{purpose}");
        assert_eq!(result.tier(), Tier::Confidential);
        assert_eq!(result.provenance(), Provenance::Simulated { root: node.root_id() });
        assert_eq!(result.status(), TrustStatus::Warning, "simulated is never affirming");
        assert_eq!(result.binding(), &node.binding);
        assert_eq!(result.appraised_at(), NOW);
    }
}

#[test]
fn any_place_in_a_batch_is_as_good_as_alone() {
    for mates in [0usize, 1, 2, 3, 7, 100] {
        let mut node = Node::task();
        node.batch_mates = (0..mates).map(|i| starminer_verify::Digest::of(&i.to_be_bytes())).collect();
        let result = Verifier::of(&node).appraise(&node.evidence()).unwrap();
        assert_eq!(result.decision(), Decision::Meets, "{mates}");
    }
}

#[test]
fn exact_expectations_pass_and_show_and_any_shows_as_not_checked() {
    let node = Node::task();
    let mut verifier = Verifier::of(&node);
    let keys = [
        "evidence.boot",
        "evidence.task-key",
        "evidence.report-key",
        "evidence.agent-key",
        "evidence.tls-key",
        "evidence.posture-digest",
    ];
    let verdicts = |result: &AttestationResult| -> Vec<Verdict> {
        keys.map(|key| result.checks().iter().find(|c| c.name() == key).unwrap().verdict()).to_vec()
    };
    let any = verifier.appraise(&node.evidence()).unwrap();
    assert_eq!(verdicts(&any), [Verdict::NotChecked; 6]);

    let expected = &mut verifier.expected;
    expected.boot = Expect::Exactly(node.binding.boot);
    expected.task_key = Expect::Exactly(node.binding.task_key.clone().unwrap());
    expected.report_key = Expect::Exactly(node.binding.report_key.unwrap());
    expected.agent_key = Expect::Exactly(node.binding.agent_key);
    expected.tls_key = Expect::Exactly(node.binding.tls_key);
    expected.posture = Expect::Exactly(node.binding.posture);
    let exact = verifier.appraise(&node.evidence()).unwrap();
    assert_eq!(verdicts(&exact), [Verdict::Pass; 6]);
    assert_eq!(exact.decision(), Decision::Meets);
}

#[test]
fn claims_are_those_of_the_device() {
    let node = Node::task();
    let verified = Verifier::of(&node).verify(&node.evidence()).unwrap();
    let DeviceClaims::SoftwareTee(claims) = verified.device() else { panic!("another kind") };
    assert_eq!(claims.chip_id, node.chip_id);
    assert_eq!(claims.measurement, node.measurement);
    assert_eq!(claims.tcb_version, node.tcb_version);
    assert_eq!(claims.debug, DebugMode::Off);
    assert_eq!(claims.boot, node.boot);
    assert_eq!(claims.root, node.root.public());
    assert_eq!((claims.certificate_not_before, claims.certificate_not_after), (node.not_before, node.not_after));
    assert_eq!(verified.posture(), &node.posture);
}

/// A second judgement at another time says what verification at that time says, to the letter.
#[test]
fn evidence_at_another_time_is_judged_as_verification_would() {
    let node = Node::task();
    let mut verifier = Verifier::of(&node);
    let verified = verifier.verify(&node.evidence()).unwrap();
    let mut refused = 0;
    for edge in [0, node.not_before.0, NOW.0, node.not_after.0, u64::MAX] {
        for now in [edge.saturating_sub(1), edge, edge.saturating_add(1)] {
            verifier.now = UnixTime(now);
            let anew = verifier.verify(&node.evidence()).map(|verified| assert_eq!(verified.verified_at().0, now));
            assert_eq!(verified.check_at(UnixTime(now)), anew, "at {now}");
            refused += usize::from(anew.is_err());
        }
    }
    assert_eq!(refused, 9, "before, at and after both ends");
}

#[test]
fn what_the_policy_does_not_ask_for_is_told_and_refuses_nothing() {
    let node = Node::task();
    let result = Verifier::of(&node).appraise(&node.evidence()).unwrap();
    for (name, verdict) in [
        ("posture.sandbox.landlock", Verdict::Fail),
        ("posture.host.swap_off", Verdict::Fail),
        ("posture.host.ptrace_restricted", Verdict::NotChecked),
        ("tpm.co-enrolled", Verdict::NotChecked),
    ] {
        let check = result.checks().iter().find(|c| c.name() == name).unwrap();
        assert_eq!((check.verdict(), check.weight()), (verdict, Weight::Informative), "{name}");
        assert_eq!(check.refusal(), None);
    }
}

#[test]
fn names_of_checks_are_codes_and_unique() {
    let node = Node::task();
    let result = Verifier::of(&node).appraise(&node.evidence()).unwrap();
    let mut names: Vec<_> = result.checks().iter().map(|c| c.name()).collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
    let is_code = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-_".contains(&b);
    assert!(names.iter().all(|name| name.bytes().all(is_code)));
}

#[test]
fn the_ear_is_deterministic_and_carries_the_provenance() {
    let node = Node::task();
    let result = Verifier::of(&node).appraise(&node.evidence()).unwrap();
    let json = result.to_ear_json();
    assert_eq!(json, Verifier::of(&node).appraise(&node.evidence()).unwrap().to_ear_json());
    let ear: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(ear, result.to_ear());

    assert_eq!(ear["eat_profile"], "tag:ietf.org,2026:rats/ear#04");
    assert_eq!(ear["iat"], NOW.as_seconds());
    assert_eq!(ear["ear_status"], "warning");
    let appraisal = &ear["submods"]["software-tee"];
    assert_eq!(appraisal["ear_status"], "warning");
    assert_eq!(appraisal["eat_nonce"], "IiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiI");
    assert_eq!(appraisal["ear_starminer_tier"], "confidential");
    assert_eq!(appraisal["ear_starminer_provenance"]["name"], "simulated");
    assert_eq!(appraisal["ear_starminer_provenance"]["root"], node.root_id().to_string());
    let vector = &appraisal["ear_trustworthiness_vector"];
    for (aspect, value) in [
        ("instance-identity", 2),
        ("configuration", 2),
        ("executables", 3),
        ("file-system", 0),
        ("hardware", 0),
        ("runtime-opaque", 0),
        ("storage-opaque", 0),
        ("sourced-data", 0),
    ] {
        assert_eq!(vector[aspect], value, "{aspect}");
    }
    let text = String::from_utf8(json).unwrap();
    assert!(!text.contains(&"c1".repeat(32)), "no chip id leaves the verifier in an EAR");
}

/// `IS` is true where `T` can be deserialized: the inherent constant wins over the trait's.
struct Deserializes<T>(PhantomData<T>);

trait No {
    const IS: bool = false;
}

impl<T> No for Deserializes<T> {}

impl<T: DeserializeOwned> Deserializes<T> {
    const IS: bool = true;
}

#[test]
fn no_step_of_the_spine_can_be_read_from_bytes() {
    const { assert!(Deserializes::<Refusal>::IS, "the probe works") };
    const { assert!(!Deserializes::<Evidence>::IS) };
    const { assert!(!Deserializes::<Verified>::IS) };
    const { assert!(!Deserializes::<AttestationResult>::IS) };
    const { assert!(!Deserializes::<Provenance>::IS) };
}

#[test]
fn unverified_evidence_prints_nothing_of_itself() {
    let node = Node::task();
    let text = format!("{:?}", Evidence::parse(&node.evidence()).unwrap());
    assert!(text.contains("unverified"));
    assert!(!text.contains(&node.binding.node.to_hex()) && !text.contains(&node.binding.challenge.to_hex()));
}
