//! Targets of `starminer-verify`: the crate's own entry points, and evidence under the keys of this world.

use serde::Deserialize;
use starminer_attester::Attester as _;
use starminer_verify::software_tee::{DebugMode, MemoryEncryption};
use starminer_verify::*;

use super::{json_round_trip, taken};
use crate::Outcome;
use crate::world::{self, BOOT, BROKER_CHALLENGE, Ending, NETWORK, NOW, world};

/// What the world's admission evidence is for.
fn expected_admission() -> Expected {
    Expected {
        network: NETWORK,
        challenge: BROKER_CHALLENGE,
        challenge_issued_at: NOW,
        purpose: ExpectedPurpose::Admission,
        node: world().story(Ending::Completed).lease.node,
        boot: Expect::Any,
        task_key: Expect::Any,
        report_key: Expect::Any,
        agent_key: Expect::Any,
        tls_key: Expect::Any,
        posture: Expect::Any,
    }
}

fn check(bytes: &[u8], expected: Expected) -> Result<Verified, Refusal> {
    let trust = world().releaser_trust();
    let context = Context {
        expected,
        endorsements: &trust.endorsements,
        trust_anchors: &trust.anchors,
        enrolments: &trust.enrolments,
        now: NOW,
    };
    verify(Evidence::parse(bytes)?, &context)
}

pub fn evidence(data: &[u8]) -> Outcome {
    fuzz::evidence(data);
    let verified = check(data, expected_admission());
    if let Ok(verified) = &verified {
        assert_eq!(data, world().admission_evidence, "other bytes than the device made");
        assert!(matches!(verified.provenance(), Provenance::Simulated { .. }));
    }
    Outcome::of(&verified, |refusal| refusal.check().to_owned())
}

pub fn report(data: &[u8]) -> Outcome {
    fuzz::software_tee_report(data);
    // The function gives nothing back; the length alone tells whether the report was looked into.
    if data.len() == software_tee::REPORT_LEN { Outcome::accepted(0) } else { Outcome::refused(0) }
}

pub fn parts(data: &[u8]) -> Outcome {
    match fuzz::parts(data) {
        0 => Outcome::refused(0),
        kinds => Outcome::accepted(kinds),
    }
}

/// What a device claims and what is expected of it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Appraisal {
    debug: bool,
    memory_encryption: bool,
    tcb_version: u64,
    posture: Posture,
    age_ms: u64,
    policy: Policy,
    reference_values: ReferenceValues,
}

pub fn appraise_claims(data: &[u8]) -> Outcome {
    let Ok(asked) = serde_json::from_slice::<Appraisal>(data) else { return Outcome::refused("form") };
    let debug = if asked.debug { DebugMode::On } else { DebugMode::Off };
    let memory = if asked.memory_encryption { MemoryEncryption::Claimed } else { MemoryEncryption::NotClaimed };
    let lease = world().story(Ending::Completed).lease.statement();
    let mut binding = world::task_binding(Digest([0; 32]), lease, BROKER_CHALLENGE, &asked.posture);
    binding.purpose = Purpose::Admission;
    (binding.spec, binding.attempt, binding.task_key, binding.report_key) = (None, None, None, None);
    let made = world::tee(debug, memory, asked.tcb_version).attest(&[binding.clone()], &asked.posture);
    let bytes = made.expect("a binding of its shape").remove(0);
    let mut expected = expected_admission();
    expected.challenge_issued_at = UnixTime(NOW.0.saturating_sub(asked.age_ms));
    let verified = match check(&bytes, expected) {
        Ok(verified) => verified,
        Err(refusal) => return Outcome::refused(refusal.check().to_owned()),
    };
    assert_eq!(*verified.binding(), binding);
    assert_eq!(*verified.posture(), asked.posture);
    assert_eq!(verified.binding().boot, BOOT);

    let result = appraise(&verified, &asked.reference_values, &asked.policy);
    let ear: serde_json::Value = serde_json::from_slice(&result.to_ear_json()).expect("an EAR is JSON");
    assert!(ear.is_object());
    assert!(matches!(result.provenance(), Provenance::Simulated { .. }), "nothing makes a software TEE genuine");
    for check in result.checks() {
        assert!(!check.reason().chars().any(char::is_control), "safe to show");
    }
    match result.decision() {
        Decision::Meets => {
            let fields = asked.policy.fields();
            assert!(result.tier() >= fields.minimum_tier);
            assert!(asked.policy.accepts_simulated_root(&world::root().id()), "a root that nobody named");
            assert!(asked.age_ms <= fields.evidence_max_age_ms);
            assert!(asked.tcb_version >= fields.minimum_tcb.software_tee);
            assert!(asked.reference_values.find(EvidenceKind::SoftwareTee, world::MEASUREMENT.as_bytes()).is_some());
            for measure in &fields.minimum_posture.sandbox {
                assert_eq!(asked.posture.sandbox_state(*measure), PostureState::InForce);
            }
            for measure in &fields.minimum_posture.host {
                assert_eq!(asked.posture.host_state(*measure), PostureState::InForce);
            }
            if result.tier() >= Tier::Confidential {
                assert!(!asked.debug && asked.memory_encryption, "the operator could have read memory");
            }
            Outcome::accepted(result.tier().name())
        }
        Decision::Fails(reasons) => {
            assert!(!reasons.is_empty(), "a refusal has a reason");
            Outcome::refused(reasons.iter().map(|reason| reason.check().to_owned()).collect::<Vec<_>>())
        }
    }
}

pub fn policy(data: &[u8]) -> Outcome {
    fuzz::policy(data);
    json_round_trip::<Policy>(data);
    Outcome::of(&Policy::parse(data), PolicyError::code)
}

pub fn reference_values(data: &[u8]) -> Outcome {
    fuzz::reference_values(data);
    json_round_trip::<ReferenceValues>(data);
    Outcome::of(&ReferenceValues::parse(data), std::mem::discriminant)
}

pub fn posture(data: &[u8]) -> Outcome {
    fuzz::posture(data);
    match json_round_trip::<Posture>(data) {
        Some(posture) => Outcome::accepted((posture.sandbox().len(), posture.host().len())),
        None => Outcome::refused(0),
    }
}

pub fn refusal(data: &[u8]) -> Outcome {
    fuzz::refusal(data);
    match json_round_trip::<Refusal>(data) {
        Some(refusal) => {
            let texts = [refusal.check(), refusal.reason(), refusal.remedy()];
            assert!(!texts.iter().any(|text| text.chars().any(char::is_control)), "safe to show on a terminal");
            assert!(refusal.reason().len() <= MAX_REASON_BYTES && refusal.remedy().len() <= MAX_REMEDY_BYTES);
            Outcome::accepted(refusal.party().name())
        }
        None => Outcome::refused(0),
    }
}

pub fn ids(data: &[u8]) -> Outcome {
    let Ok(text) = std::str::from_utf8(data) else { return Outcome::refused("utf-8") };
    fn one_spelling<T: std::str::FromStr + std::fmt::Display>(text: &str) -> bool {
        let parsed = text.parse::<T>();
        if let Ok(value) = &parsed {
            assert_eq!(value.to_string(), text, "one spelling");
        }
        parsed.is_ok()
    }
    taken(&[
        one_spelling::<Digest>(text),
        one_spelling::<PublicKey>(text),
        one_spelling::<NodeId>(text),
        one_spelling::<NetworkId>(text),
        one_spelling::<TaskId>(text),
        one_spelling::<BootId>(text),
        one_spelling::<Challenge>(text),
        one_spelling::<Attempt>(text),
        one_spelling::<UnixTime>(text),
        one_spelling::<SimulatedRootId>(text),
        one_spelling::<SandboxMeasure>(text),
        one_spelling::<HostMeasure>(text),
    ])
}
