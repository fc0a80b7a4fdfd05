//! What is refused, by which code and at whose fault: one table for verification, one for appraisal, one for form.

use starminer_verify::software_tee::{DebugMode, MemoryEncryption, REPORT_LEN, SIGNED_LEN};
use starminer_verify::{
    AkName, Attempt, BootId, Challenge, Decision, Digest, Evidence, EvidenceBuilder, EvidenceKind, Expect,
    ExpectedPurpose, MAX_EVIDENCE_BYTES, MAX_PATH_LEN, NetworkId, NodeId, OperatorMayReadMemory, Party, Policy,
    PolicyError, Posture, PublicKey, Purpose, ReferenceValues, SandboxMeasure, Side, Tier, TrustStatus, UnixTime,
    Verdict, X_WING_PUBLIC_KEY_LEN,
};

use crate::fixture::{ISSUED, Key, NOW, Node, Verifier, policy, posture, task_key};

/// Verification refuses with `code`.
#[track_caller]
fn check_verify(code: &str, verifier: &Verifier, evidence: &[u8]) {
    match verifier.verify(evidence) {
        Ok(_) => panic!("verified; {code} was expected"),
        Err(refusal) => {
            assert_eq!(refusal.check(), code, "{refusal}");
            assert!(!refusal.reason().is_empty() && !refusal.remedy().is_empty(), "{refusal}");
        }
    }
}

#[test]
fn evidence_for_anything_else_than_what_was_asked() {
    type Change = fn(&mut Verifier);
    let other = Digest([9; 32]);
    let cases: &[(&str, Change)] = &[
        ("evidence.network", |v| v.expected.network = NetworkId([9; 32])),
        ("evidence.challenge", |v| v.expected.challenge = Challenge([9; 32])),
        ("evidence.node", |v| v.expected.node = NodeId(PublicKey([9; 32]))),
        ("evidence.spec", |v| {
            v.expected.purpose = ExpectedPurpose::Task { spec: Digest([9; 32]), attempt: Attempt(1) };
        }),
        ("evidence.attempt", |v| {
            v.expected.purpose = ExpectedPurpose::Task { spec: Digest([0x33; 32]), attempt: Attempt(2) };
        }),
        ("evidence.purpose", |v| {
            v.expected.purpose = ExpectedPurpose::ClosingTask {
                spec: Digest([0x33; 32]),
                attempt: Attempt(1),
                subject: Digest([0x55; 32]),
            };
        }),
        ("evidence.purpose", |v| v.expected.purpose = ExpectedPurpose::Broker),
        ("evidence.purpose", |v| v.expected.purpose = ExpectedPurpose::Admission),
        ("evidence.boot", |v| v.expected.boot = Expect::Exactly(BootId([9; 16]))),
        ("evidence.task-key", |v| v.expected.task_key = Expect::Exactly(task_key(9))),
        ("evidence.report-key", |v| v.expected.report_key = Expect::Exactly(PublicKey([9; 32]))),
        ("evidence.agent-key", |v| v.expected.agent_key = Expect::Exactly(PublicKey([9; 32]))),
        ("evidence.tls-key", |v| v.expected.tls_key = Expect::Exactly(PublicKey([9; 32]))),
        ("evidence.posture-digest", |v| v.expected.posture = Expect::Exactly(Digest([9; 32]))),
        ("evidence.certificate-dates", |v| v.now = UnixTime(NOW.0 - 1_000_001)),
        ("evidence.certificate-dates", |v| v.now = UnixTime(NOW.0 + 1_000_000)),
    ];
    let node = Node::task();
    for (code, change) in cases {
        let mut verifier = Verifier::of(&node);
        change(&mut verifier);
        check_verify(code, &verifier, &node.evidence());
    }
    // A key cannot be expected of evidence that carries none.
    let node = Node::admission();
    let mut verifier = Verifier::of(&node);
    verifier.expected.task_key = Expect::Exactly(task_key(0x44));
    check_verify("evidence.task-key", &verifier, &node.evidence());
    // A report closed by other evidence.
    let node = Node::for_purpose(Purpose::ClosingTask);
    let mut verifier = Verifier::of(&node);
    verifier.expected.purpose =
        ExpectedPurpose::ClosingTask { spec: Digest([0x33; 32]), attempt: Attempt(1), subject: other };
    check_verify("evidence.subject", &verifier, &node.evidence());
}

#[test]
fn a_binding_that_was_changed_after_signing_is_not_in_the_batch() {
    let node = Node::task();
    let mut changed = Node::task();
    changed.binding.task_key = Some(task_key(9));
    check_verify("evidence.report-data", &Verifier::of(&changed), &changed.evidence_with(node.report()));
    // Nor is one with a TPM's name and no TPM.
    let mut named = Node::task();
    named.binding.ak_name = AkName::from_bytes(&[0, 11, 1, 2]);
    check_verify("evidence.ak-name", &Verifier::of(&named), &named.evidence());
}

#[test]
fn a_posture_that_was_exchanged_after_signing() {
    let node = Node::task();
    let text = String::from_utf8(node.evidence()).unwrap();
    let better = text.replacen(r#""name":"landlock","state":"absent""#, r#""name":"landlock","state":"in-force""#, 1);
    assert_ne!(text, better);
    check_verify("evidence.posture", &Verifier::of(&node), better.as_bytes());
}

#[test]
fn batch_paths_that_lead_elsewhere() {
    let mut node = Node::task();
    node.batch_mates = vec![Digest::of(b"a"), Digest::of(b"b"), Digest::of(b"c")];
    let verifier = Verifier::of(&node);
    let (_, path) = node.batch();
    assert_eq!(path.len(), 2);
    let with_path = |path| {
        EvidenceBuilder::new(node.binding.clone(), path, node.posture.clone())
            .part(EvidenceKind::SoftwareTee, node.report())
            .encode()
            .unwrap()
    };
    let flip = |side| if side == Side::Left { Side::Right } else { Side::Left };
    let mut flipped = path.clone();
    flipped[0].side = flip(flipped[0].side);
    let mut longer = path.clone();
    longer.push(path[0]);
    for path in [vec![], path[..1].to_vec(), path[1..].to_vec(), flipped, longer] {
        check_verify("evidence.report-data", &verifier, &with_path(path));
    }

    // Whoever passes an inner node for a binding gets nowhere: leaf, node and root have labels of their own. Here the
    // device signs the bare digest of the binding, then the root without its label.
    let lone = Node::task();
    for report_data in
        [lone.binding.digest(), starminer_verify::tagged_hash("batch-leaf", &[lone.binding.digest().as_bytes()])]
    {
        let report = lone.sign_report(&lone.report_body(report_data).encode());
        check_verify("evidence.report-data", &Verifier::of(&lone), &lone.evidence_with(report));
    }

    // Longer than any batch can be.
    let step = r#"{"side":"left","sibling":""#.to_owned() + &"00".repeat(32) + "\"}";
    let text = String::from_utf8(Node::task().evidence()).unwrap();
    let steps = vec![step; MAX_PATH_LEN + 1].join(",");
    let long = text.replacen(r#""batch_path":[]"#, &format!(r#""batch_path":[{steps}]"#), 1);
    check_verify("evidence.path-too-long", &Verifier::of(&Node::task()), long.as_bytes());
}

#[test]
fn reports_that_no_trusted_device_made() {
    let node = Node::task();
    let verifier = Verifier::of(&node);
    let body = || node.report_body(node.batch().0);

    let mut wrong_boot = body();
    wrong_boot.boot = BootId([9; 16]);
    let mut stale = body();
    stale.certificate.not_after = UnixTime(NOW.0 + 2_000_000); // longer than the root signed
    let mut other_chip = body();
    other_chip.certificate.chip_id.0[0] ^= 1;
    let mut self_certified = body();
    self_certified.certificate.signature = node.device.sign(&Digest([0; 32]));
    for (code, body) in [
        ("evidence.report-boot", wrong_boot),
        ("evidence.certificate-signature", stale),
        ("evidence.certificate-signature", other_chip),
        ("evidence.certificate-signature", self_certified),
    ] {
        check_verify(code, &verifier, &node.evidence_with(node.sign_report(&body.encode())));
    }

    let mut unsigned = node.report();
    unsigned[SIGNED_LEN..].fill(0);
    let foreign = {
        let signed: [u8; SIGNED_LEN] = body().encode();
        let signature = Key::new(99).sign(&starminer_verify::software_tee::report_message(&signed));
        [signed.as_slice(), &signature].concat()
    };
    for report in [unsigned, foreign] {
        check_verify("evidence.report-signature", &verifier, &node.evidence_with(report));
    }

    // The device signs nonsense: form is checked all the same.
    let patched = |at: usize, byte: u8| {
        let mut signed = body().encode();
        signed[at] = byte;
        node.sign_report(&signed)
    };
    for report in [
        patched(0, b'X'),  // magic
        patched(11, 2),    // version
        patched(12, 0x80), // reserved flag
        patched(15, 0x06), // reserved flag beside known ones
        node.report()[..REPORT_LEN - 1].to_vec(),
        [node.report(), vec![0]].concat(),
        vec![0],
    ] {
        check_verify("evidence.report-format", &verifier, &node.evidence_with(report));
    }
}

#[test]
fn parts_that_do_not_belong_together() {
    let node = Node::task();
    let two = EvidenceBuilder::new(node.binding.clone(), vec![], node.posture.clone())
        .part(EvidenceKind::SoftwareTee, node.report())
        .part(EvidenceKind::SoftwareTee, node.report())
        .encode()
        .unwrap();
    check_verify("evidence.part-set", &Verifier::of(&node), &two);
}

/// Evidence verifies, appraisal refuses with exactly these codes, and the status says so.
#[track_caller]
fn check_appraise(codes: &[&str], verifier: &Verifier, node: &Node) -> Tier {
    let result = verifier.appraise(&node.evidence()).unwrap();
    let Decision::Fails(refusals) = result.decision() else { panic!("met; {codes:?} were expected") };
    let found: Vec<&str> = refusals.iter().map(|r| r.check()).collect();
    assert_eq!(found, codes);
    assert!(refusals.iter().all(|r| !r.reason().is_empty() && !r.remedy().is_empty()));
    assert_eq!(result.status(), TrustStatus::Contraindicated);
    result.tier()
}

#[test]
fn evidence_that_is_true_and_not_good_enough() {
    type Case = (&'static [&'static str], Tier, fn(&mut Node, &mut Verifier));
    let cases: &[Case] = &[
        (&["device.root", "policy.minimum-tier"], Tier::None, |_, v| v.policy = policy(|_| {})),
        (&["device.root", "policy.minimum-tier"], Tier::None, |_, v| {
            let other = starminer_verify::SimulatedRootId::SoftwareTee(Key::new(77).public());
            v.policy = policy(|p| p.accepted_simulated_roots = vec![other]);
        }),
        (&["device.debug-off", "policy.minimum-tier"], Tier::Identified, |n, _| n.debug = DebugMode::On),
        (&["device.memory-encrypted", "policy.minimum-tier"], Tier::Identified, |n, _| {
            n.memory_encryption = MemoryEncryption::NotClaimed;
        }),
        (&["device.tcb", "policy.minimum-tier"], Tier::Identified, |n, _| n.tcb_version = 0),
        (&["device.measurement", "policy.minimum-tier"], Tier::Identified, |n, _| {
            n.measurement = Digest::of(b"agent, altered");
        }),
        (&["device.measurement", "policy.minimum-tier"], Tier::Identified, |_, v| {
            v.reference_values = ReferenceValues::unset();
        }),
        (&["evidence.age"], Tier::Confidential, |_, v| v.now = UnixTime(ISSUED.0 + 60_001)),
        (&["evidence.age"], Tier::Confidential, |_, v| v.now = UnixTime(ISSUED.0 - 1)),
        (&["posture.sandbox.landlock"], Tier::Confidential, |n, v| {
            let root = n.root_id();
            v.policy = policy(|p| {
                p.accepted_simulated_roots = vec![root];
                p.minimum_posture.sandbox.push(SandboxMeasure::Landlock);
            });
        }),
        (&["posture.host.ptrace_restricted"], Tier::Confidential, |n, v| {
            let root = n.root_id();
            v.policy = policy(|p| {
                p.accepted_simulated_roots = vec![root];
                p.minimum_posture.host.push(starminer_verify::HostMeasure::PtraceRestricted);
            });
        }),
        (&["tpm.co-enrolled", "policy.minimum-tier"], Tier::Confidential, |n, v| {
            let root = n.root_id();
            v.policy = policy(|p| {
                p.accepted_simulated_roots = vec![root];
                p.minimum_tier = Tier::Hardened;
            });
        }),
    ];
    for (codes, tier, change) in cases {
        let mut node = Node::task();
        let mut verifier = Verifier::of(&node);
        change(&mut node, &mut verifier);
        assert_eq!(check_appraise(codes, &verifier, &node), *tier, "{codes:?}");
    }
}

#[test]
fn closing_evidence_may_come_long_after_its_challenge_but_not_before() {
    let node = Node::for_purpose(Purpose::ClosingTask);
    let mut verifier = Verifier::of(&node);
    verifier.expected.challenge_issued_at = UnixTime(NOW.0 - 3_600_000);
    let result = verifier.appraise(&node.evidence()).unwrap();
    assert_eq!(result.decision(), Decision::Meets);
    let age = result.checks().iter().find(|c| c.name() == "evidence.age").unwrap();
    assert_eq!(age.verdict(), Verdict::NotChecked);
    verifier.expected.challenge_issued_at = UnixTime(NOW.0 + 1);
    check_appraise(&["evidence.age"], &verifier, &node);
}

#[test]
fn a_required_measure_that_nobody_states_is_not_checked_and_refuses() {
    let mut node = Node::task();
    let mut sandbox: Vec<_> = posture().sandbox().to_vec();
    sandbox.retain(|item| item.name() != SandboxMeasure::Seccomp);
    node.set_posture(Posture::new(sandbox, vec![]).unwrap());
    check_appraise(&["posture.sandbox.seccomp"], &Verifier::of(&node), &node);

    node.set_posture(Posture::unstated());
    let result = Verifier::of(&node).appraise(&node.evidence()).unwrap();
    let Decision::Fails(refusals) = result.decision() else { panic!("met") };
    assert_eq!(refusals.len(), Policy::confidential().fields().minimum_posture.sandbox.len());
    assert!(refusals.iter().all(|r| r.party() == Party::Node));
}

#[test]
fn a_lower_tier_is_met_only_with_consent_and_still_needs_a_known_agent() {
    let lower = |tier, consent| {
        let mut fields = Policy::confidential().fields().clone();
        fields.minimum_tier = tier;
        fields.operator_may_read_memory = consent;
        fields.accepted_simulated_roots = vec![Node::task().root_id()];
        Policy::new(fields)
    };
    use OperatorMayReadMemory::{No, Yes};
    for tier in [Tier::None, Tier::Identified, Tier::Measured] {
        assert_eq!(lower(tier, No).unwrap_err(), PolicyError::ConsentMissing);
        assert!(lower(tier, Yes).is_ok());
    }
    for tier in [Tier::Confidential, Tier::Hardened] {
        assert_eq!(lower(tier, Yes).unwrap_err(), PolicyError::ConsentVoid);
    }

    let mut node = Node::task();
    node.debug = DebugMode::On;
    let mut verifier = Verifier::of(&node);
    verifier.policy = lower(Tier::Identified, Yes).unwrap();
    let result = verifier.appraise(&node.evidence()).unwrap();
    assert_eq!((result.decision(), result.tier()), (Decision::Meets, Tier::Identified));
    verifier.reference_values = ReferenceValues::unset();
    check_appraise(&["device.measurement"], &verifier, &node);
}

/// Parsing refuses with `code`.
#[track_caller]
fn check_parse(code: &str, bytes: &[u8]) {
    match Evidence::parse(bytes) {
        Ok(_) => panic!("parsed; {code} was expected"),
        Err(error) => assert_eq!(error.code(), code, "{error}"),
    }
}

#[test]
fn bytes_that_are_not_evidence() {
    let text = String::from_utf8(Node::task().evidence()).unwrap();
    let edit = |from: &str, to: &str| {
        let edited = text.replacen(from, to, 1);
        assert_ne!(edited, text, "{from}");
        edited
    };
    let key = "\"public\":\"".to_owned();
    let long_key = data_encoding::BASE64.encode(&[0x44; X_WING_PUBLIC_KEY_LEN + 1]);
    let good_key = data_encoding::BASE64.encode(&[0x44; X_WING_PUBLIC_KEY_LEN]);
    let cases: Vec<(&str, String)> = vec![
        ("evidence.malformed", String::new()),
        ("evidence.malformed", "null".into()),
        ("evidence.malformed", "[".repeat(10_000)),
        ("evidence.malformed", format!("{text}{text}")),
        ("evidence.malformed", edit(r#"{"version":1,"#, r#"{"version":1,"extra":1,"#)),
        ("evidence.malformed", edit(r#"{"version":1,"#, r#"{"version":1,"version":1,"#)),
        ("evidence.malformed", edit(r#""subject":null"#, r#""subject":null,"tier":"hardened""#)),
        ("evidence.malformed", edit(r#","ak_name":null"#, "")),
        ("evidence.malformed", edit(r#""kind":"software-tee""#, r#""kind":"sev""#)),
        ("evidence.malformed", edit(r#""purpose":"task""#, r#""purpose":"any""#)),
        ("evidence.malformed", edit(r#""attempt":1"#, r#""attempt":4294967296"#)),
        ("evidence.malformed", edit(r#""attempt":1"#, r#""attempt":-1"#)),
        ("evidence.malformed", edit(r#""attempt":1"#, r#""attempt":1.0"#)),
        ("evidence.malformed", edit(r#""attempt":1"#, r#""attempt":"1""#)),
        ("evidence.malformed", edit(&"22".repeat(32), &"22".repeat(31))),
        ("evidence.malformed", edit(&"0b".repeat(16), &"0B".repeat(16))),
        ("evidence.malformed", edit(&(key.clone() + &good_key), &(key + &long_key))),
        ("evidence.malformed", edit("xwing-hkdf-sha256-aes-256-gcm", "x25519")),
        ("evidence.malformed", edit(r#""name":"no_network""#, r#""name":"no_net""#)),
        ("evidence.malformed", edit(r#""state":"in-force""#, r#""state":"maybe""#)),
        ("evidence.version", edit(r#"{"version":1,"#, r#"{"version":2,"#)),
        ("evidence.version", edit(r#""binding":{"version":1"#, r#""binding":{"version":2"#)),
        ("evidence.not-canonical", format!("{text}\n")),
        ("evidence.not-canonical", edit(":", ": ")),
        ("evidence.not-canonical", edit("task", "\\u0074ask")),
        (
            "evidence.not-canonical",
            edit(r#""version":1,"network""#, r#""network""#).replacen(r#","purpose""#, r#","version":1,"purpose""#, 1),
        ),
        ("evidence.binding-shape", edit(r#""attempt":1"#, r#""attempt":null"#)),
        ("evidence.binding-shape", edit(r#""subject":null"#, &format!(r#""subject":"{}""#, "55".repeat(32)))),
        ("evidence.binding-shape", edit(r#""purpose":"task""#, r#""purpose":"admission""#)),
        ("evidence.part-count", edit(&text[text.find(r#""parts":["#).unwrap()..], r#""parts":[]}"#)),
        ("evidence.report-size", edit(&text[text.find(r#""report":"#).unwrap()..], r#""report":""}]}"#)),
        ("evidence.too-long", " ".repeat(MAX_EVIDENCE_BYTES + 1)),
    ];
    for (code, bytes) in &cases {
        check_parse(code, bytes.as_bytes());
    }
    let base64_with_loose_bits = edit(r#"=="}"#, r#"=="}"#.replace("==", "=").as_str());
    check_parse("evidence.malformed", base64_with_loose_bits.as_bytes());
    check_parse("evidence.malformed", &[0xff; 100]);
}
