//! `vectors/evidence/`: language-neutral cases, most of which must fail. `specs/evidence.md`, section "Vectors", says how
//! to read them. The reader below uses nothing of the fixture: it is what another implementation would do.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde::Deserialize;
use starminer_verify::{
    Attempt, BootId, Challenge, Context, Decision, Digest, Endorsements, Enrolments, Evidence, Expect, Expected,
    ExpectedPurpose, NetworkId, NodeId, Policy, PublicKey, ReferenceValues, SimulatedRootId, Suite, TaskKey,
    TrustAnchors, UnixTime, appraise, verify,
};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../vectors/evidence")
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vector {
    description: String,
    evidence: String,
    context: VectorContext,
    reference_values: serde_json::Value,
    policy: serde_json::Value,
    expect: VectorExpect,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VectorContext {
    network: NetworkId,
    challenge: Challenge,
    challenge_issued_at: UnixTime,
    purpose: String,
    spec: Option<Digest>,
    attempt: Option<Attempt>,
    subject: Option<Digest>,
    node: NodeId,
    boot: Option<BootId>,
    task_key: Option<String>,
    report_key: Option<PublicKey>,
    agent_key: Option<PublicKey>,
    tls_key: Option<PublicKey>,
    posture: Option<Digest>,
    simulated_roots: Vec<SimulatedRootId>,
    now: UnixTime,
}

#[derive(Deserialize, PartialEq, Debug)]
#[serde(deny_unknown_fields)]
struct VectorExpect {
    stage: String,
    codes: Vec<String>,
    tier: Option<String>,
    status: Option<String>,
    evidence_digest: Option<Digest>,
    binding_digest: Option<Digest>,
    posture_digest: Option<Digest>,
    policy_digest: Option<Digest>,
    reference_values_digest: Option<Digest>,
    vector: Option<BTreeMap<String, i8>>,
    checks: Option<Vec<[String; 3]>>,
}

impl VectorExpect {
    fn refused(stage: &str, codes: Vec<String>) -> Self {
        Self {
            stage: stage.into(),
            codes,
            tier: None,
            status: None,
            evidence_digest: None,
            binding_digest: None,
            posture_digest: None,
            policy_digest: None,
            reference_values_digest: None,
            vector: None,
            checks: None,
        }
    }
}

fn expect<T>(value: Option<T>) -> Expect<T> {
    value.map_or(Expect::Any, Expect::Exactly)
}

fn outcome(vector: &Vector) -> VectorExpect {
    let c = &vector.context;
    let purpose = match (c.purpose.as_str(), c.spec, c.attempt, c.subject) {
        ("task", Some(spec), Some(attempt), None) => ExpectedPurpose::Task { spec, attempt },
        ("closing-task", Some(spec), Some(attempt), Some(subject)) => {
            ExpectedPurpose::ClosingTask { spec, attempt, subject }
        }
        ("broker", None, None, None) => ExpectedPurpose::Broker,
        ("admission", None, None, None) => ExpectedPurpose::Admission,
        _ => panic!("malformed context"),
    };
    let task_key = c.task_key.as_ref().map(|text| {
        let bytes = data_encoding::BASE64.decode(text.as_bytes()).unwrap();
        TaskKey::from_bytes(Suite::XWingSha256Aes256Gcm, &bytes).unwrap()
    });
    let expected = Expected {
        network: c.network,
        challenge: c.challenge,
        challenge_issued_at: c.challenge_issued_at,
        purpose,
        node: c.node,
        boot: expect(c.boot),
        task_key: expect(task_key),
        report_key: expect(c.report_key),
        agent_key: expect(c.agent_key),
        tls_key: expect(c.tls_key),
        posture: expect(c.posture),
    };
    let policy = match Policy::parse(&serde_json::to_vec(&vector.policy).unwrap()) {
        Ok(policy) => policy,
        Err(error) => return VectorExpect::refused("policy", vec![error.code().into()]),
    };
    let reference_values = ReferenceValues::parse(&serde_json::to_vec(&vector.reference_values).unwrap()).unwrap();
    let evidence = match Evidence::parse(vector.evidence.as_bytes()) {
        Ok(evidence) => evidence,
        Err(error) => return VectorExpect::refused("parse", vec![error.code().into()]),
    };
    let anchors = TrustAnchors::makers().with_simulated_roots(c.simulated_roots.iter().copied()).unwrap();
    let endorsements = Endorsements::none();
    let context = Context {
        expected,
        endorsements: &endorsements,
        trust_anchors: &anchors,
        enrolments: &Enrolments::none(),
        now: c.now,
    };
    let verified = match verify(evidence, &context) {
        Ok(verified) => verified,
        Err(refusal) => return VectorExpect::refused("verify", vec![refusal.check().into()]),
    };
    let result = appraise(&verified, &reference_values, &policy);
    match result.decision() {
        Decision::Fails(refusals) => VectorExpect {
            tier: Some(result.tier().name().into()),
            status: Some(result.status().name().into()),
            ..VectorExpect::refused("appraise", refusals.iter().map(|r| r.check().to_owned()).collect())
        },
        Decision::Meets => VectorExpect {
            stage: "accepted".into(),
            codes: Vec::new(),
            tier: Some(result.tier().name().into()),
            status: Some(result.status().name().into()),
            evidence_digest: Some(result.evidence_digest()),
            binding_digest: Some(result.binding().digest()),
            posture_digest: Some(result.posture().digest()),
            policy_digest: Some(policy.digest()),
            reference_values_digest: Some(reference_values.digest()),
            vector: Some(result.vector().aspects().map(|(name, claim)| (name.into(), claim.value())).into()),
            checks: Some(
                result
                    .checks()
                    .iter()
                    .map(|c| [c.name().into(), c.verdict().name().into(), c.weight().name().into()])
                    .collect(),
            ),
        },
    }
}

#[test]
fn every_vector_comes_out_as_it_says() {
    let mut accepted = 0;
    let mut refused = 0;
    let mut paths: Vec<_> = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths.iter().filter(|path| path.extension().is_some_and(|e| e == "json")) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let vector: Vector = serde_json::from_slice(&fs::read(path).unwrap()).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(!vector.description.is_empty(), "{name}");
        assert_eq!(outcome(&vector), vector.expect, "{name}");
        if vector.expect.stage == "accepted" { accepted += 1 } else { refused += 1 }
    }
    assert!(accepted >= 5 && refused >= 5 * accepted, "{accepted} accepted, {refused} refused");
}

/// Writes the vectors anew; only for a change of the format, after which the difference has to be read.
mod write {
    use serde_json::{Value, json};
    use starminer_verify::software_tee::{DebugMode, MemoryEncryption};
    use starminer_verify::{
        EvidenceBuilder, EvidenceKind, HostMeasure, Posture, PostureItem, PostureState, Purpose, SandboxMeasure, Tier,
    };

    use super::{Digest, UnixTime, Vector, folder, fs, outcome};
    use crate::fixture::{ISSUED, Key, NOW, Node, Verifier, policy};

    struct Case {
        name: &'static str,
        description: &'static str,
        node: Node,
        evidence: Option<String>,
        change: fn(&mut Value),
    }

    impl Case {
        fn new(name: &'static str, description: &'static str, node: Node) -> Self {
            Self { name, description, node, evidence: None, change: |_| {} }
        }

        /// Changes the vector's context, policy or reference values.
        fn but(mut self, change: fn(&mut Value)) -> Self {
            self.change = change;
            self
        }

        /// Puts other evidence in place of the node's.
        fn sends(mut self, evidence: impl FnOnce(&Node) -> Vec<u8>) -> Self {
            self.evidence = Some(String::from_utf8(evidence(&self.node)).unwrap());
            self
        }

        fn write(self) {
            let node = &self.node;
            let binding = &node.binding;
            let verifier = Verifier::of(node);
            let mut vector = json!({
                "description": self.description,
                "evidence": self.evidence.unwrap_or_else(|| String::from_utf8(node.evidence()).unwrap()),
                "context": {
                    "network": binding.network, "challenge": binding.challenge, "challenge_issued_at": ISSUED,
                    "purpose": binding.purpose.name(), "spec": binding.spec, "attempt": binding.attempt,
                    "subject": binding.subject, "node": binding.node, "boot": null, "task_key": null,
                    "report_key": null, "agent_key": null, "tls_key": null, "posture": null,
                    "simulated_roots": [node.root_id()], "now": NOW,
                },
                "reference_values": verifier.reference_values,
                "policy": policy(|p| p.accepted_simulated_roots = vec![node.root_id()]),
                "expect": { "stage": "", "codes": [] },
            });
            (self.change)(&mut vector);
            let read: Vector = serde_json::from_value(vector.clone()).unwrap();
            let found = outcome(&read);
            let mut expect = json!({ "stage": found.stage, "codes": found.codes });
            for (key, value) in [
                ("tier", json!(found.tier)),
                ("status", json!(found.status)),
                ("evidence_digest", json!(found.evidence_digest)),
                ("binding_digest", json!(found.binding_digest)),
                ("posture_digest", json!(found.posture_digest)),
                ("policy_digest", json!(found.policy_digest)),
                ("reference_values_digest", json!(found.reference_values_digest)),
                ("vector", json!(found.vector)),
                ("checks", json!(found.checks)),
            ] {
                if !value.is_null() {
                    expect[key] = value;
                }
            }
            println!("{:44} {:9} {}", self.name, found.stage, found.codes.join(" "));
            vector["expect"] = expect;
            let mut text = serde_json::to_string_pretty(&vector).unwrap();
            text.push('\n');
            fs::write(folder().join(format!("{}.json", self.name)), text).unwrap();
        }
    }

    fn node(change: impl FnOnce(&mut Node)) -> Node {
        let mut node = Node::admission();
        change(&mut node);
        node
    }

    fn edit(from: &'static str, to: &'static str) -> impl FnOnce(&Node) -> Vec<u8> {
        move |node| {
            let text = String::from_utf8(node.evidence()).unwrap();
            let edited = text.replacen(from, to, 1);
            assert_ne!(text, edited, "{from}");
            edited.into_bytes()
        }
    }

    fn patch_report(at: usize, bit: u8) -> impl FnOnce(&Node) -> Vec<u8> {
        move |node| {
            let mut report = node.report();
            report[at] ^= bit;
            node.evidence_with(report)
        }
    }

    fn accepted() -> Vec<Case> {
        vec![
            Case::new("accepted-task", "Evidence for a task, alone in its batch.", Node::task()),
            Case::new("accepted-task-exact", "Every field is known to the verifier beforehand.", Node::task()).but(
                |v| {
                    let node = Node::task();
                    let c = &mut v["context"];
                    c["boot"] = json!(node.binding.boot);
                    c["task_key"] = json!(data_encoding::BASE64.encode(node.binding.task_key.unwrap().as_bytes()));
                    c["report_key"] = json!(node.binding.report_key);
                    c["agent_key"] = json!(node.binding.agent_key);
                    c["tls_key"] = json!(node.binding.tls_key);
                    c["posture"] = json!(node.binding.posture);
                },
            ),
            Case::new(
                "accepted-closing-task",
                "Closing evidence over a report.",
                Node::for_purpose(Purpose::ClosingTask),
            ),
            Case::new("accepted-broker", "Evidence of a broker.", Node::for_purpose(Purpose::Broker)),
            Case::new("accepted-admission", "Evidence of a node that wants to join.", Node::admission()),
            Case::new(
                "accepted-batch-of-6",
                "The sixth of a batch of six: a path of two steps in an unbalanced tree.",
                node(|n| n.batch_mates = (0u8..5).map(|i| Digest::of(&[i])).collect()),
            ),
            Case::new(
                "accepted-identified-with-consent",
                "Debug is on; the policy asks for no more than identified and says that the operator may read memory.",
                node(|n| n.debug = DebugMode::On),
            )
            .but(|v| {
                v["policy"]["minimum_tier"] = json!("identified");
                v["policy"]["operator_may_read_memory"] = json!("yes");
            }),
        ]
    }

    fn malformed() -> Vec<Case> {
        let n = Node::admission;
        vec![
            Case::new("parse-empty", "No bytes.", n()).sends(|_| Vec::new()),
            Case::new("parse-null", "JSON null.", n()).sends(|_| b"null".to_vec()),
            Case::new("parse-unknown-field", "A field that the format does not have.", n())
                .sends(edit(r#"{"version":1,"#, r#"{"version":1,"tier":"confidential","#)),
            Case::new("parse-repeated-field", "A field twice.", n())
                .sends(edit(r#"{"version":1,"#, r#"{"version":1,"version":1,"#)),
            Case::new("parse-missing-null", "An absent field that is not written out.", n())
                .sends(edit(r#","ak_name":null"#, "")),
            Case::new("parse-version", "Another version of the format.", n())
                .sends(edit(r#"{"version":1,"#, r#"{"version":2,"#)),
            Case::new("parse-binding-version", "Another version of the binding.", n())
                .sends(edit(r#""binding":{"version":1"#, r#""binding":{"version":2"#)),
            Case::new("parse-space", "White space between tokens: a second encoding.", n()).sends(edit(":", ": ")),
            Case::new("parse-newline", "A line feed after the end: a second encoding.", n()).sends(|n| {
                let mut bytes = n.evidence();
                bytes.push(b'\n');
                bytes
            }),
            Case::new("parse-escape", "An escape where none is needed: a second encoding.", n())
                .sends(edit("admission", "\\u0061dmission")),
            Case::new("parse-uppercase-hex", "Hexadecimal in upper case.", n())
                .sends(edit("0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b", "0B0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b")),
            Case::new("parse-short-challenge", "A challenge of 31 bytes.", n()).sends(edit(
                "2222222222222222222222222222222222222222222222222222222222222222",
                "22222222222222222222222222222222222222222222222222222222222222",
            )),
            Case::new("parse-unknown-kind", "A kind of evidence that does not exist.", n())
                .sends(edit(r#""kind":"software-tee""#, r#""kind":"software-tee2""#)),
            Case::new("parse-unknown-posture", "A sandbox measure that does not exist.", n())
                .sends(edit("no_new_privileges", "no_new_privilege")),
            Case::new("parse-posture-order", "Posture out of order.", n()).sends(edit(
                r#"{"name":"no_network","state":"in-force","detail":""},{"name":"no_new_privileges","state":"in-force","detail":""}"#,
                r#"{"name":"no_new_privileges","state":"in-force","detail":""},{"name":"no_network","state":"in-force","detail":""}"#,
            )),
            Case::new("parse-shape-admission-spec", "Evidence for admission that names a spec.", n()).sends(edit(
                r#""spec":null"#,
                r#""spec":"3333333333333333333333333333333333333333333333333333333333333333""#,
            )),
            Case::new("parse-shape-task-attempt", "Evidence for a task without its attempt.", Node::task())
                .sends(edit(r#""attempt":1"#, r#""attempt":null"#)),
            Case::new("parse-no-parts", "No parts.", n()).sends(|n| {
                let text = String::from_utf8(n.evidence()).unwrap();
                let at = text.find(r#""parts""#).unwrap();
                format!(r#"{}"parts":[]}}"#, &text[..at]).into_bytes()
            }),
            Case::new("parse-path-of-17", "A batch path of 17 steps.", n()).sends(|n| {
                let step = format!(r#"{{"side":"left","sibling":"{}"}}"#, "00".repeat(32));
                let steps = vec![step; 17].join(",");
                let text = String::from_utf8(n.evidence()).unwrap();
                text.replacen(r#""batch_path":[]"#, &format!(r#""batch_path":[{steps}]"#), 1).into_bytes()
            }),
            Case::new("parse-truncated", "The last byte is missing.", n()).sends(|n| {
                let mut bytes = n.evidence();
                bytes.pop();
                bytes
            }),
        ]
    }

    fn unverified() -> Vec<Case> {
        let n = Node::admission;
        vec![
            Case::new("verify-network", "Evidence for another network.", n())
                .but(|v| v["context"]["network"] = json!("99".repeat(32))),
            Case::new("verify-challenge", "Evidence for an older challenge.", n())
                .but(|v| v["context"]["challenge"] = json!("99".repeat(32))),
            Case::new("verify-purpose", "Evidence for admission, where a broker's was asked for.", n())
                .but(|v| v["context"]["purpose"] = json!("broker")),
            Case::new(
                "verify-closing-as-opening",
                "Opening evidence, where closing evidence was asked for.",
                Node::task(),
            )
            .but(|v| {
                v["context"]["purpose"] = json!("closing-task");
                v["context"]["subject"] = json!("55".repeat(32));
            }),
            Case::new("verify-spec", "Evidence for another task.", Node::task())
                .but(|v| v["context"]["spec"] = json!("99".repeat(32))),
            Case::new("verify-attempt", "Evidence for an earlier attempt.", Node::task())
                .but(|v| v["context"]["attempt"] = json!(2)),
            Case::new("verify-node", "Evidence of another node.", n())
                .but(|v| v["context"]["node"] = json!("99".repeat(32))),
            Case::new("verify-boot", "Evidence of another start of the agent.", n())
                .but(|v| v["context"]["boot"] = json!("99".repeat(16))),
            Case::new("verify-report-key", "Another report key than expected.", Node::task())
                .but(|v| v["context"]["report_key"] = json!("99".repeat(32))),
            Case::new(
                "verify-subject",
                "Closing evidence over another report.",
                Node::for_purpose(Purpose::ClosingTask),
            )
            .but(|v| v["context"]["subject"] = json!("99".repeat(32))),
            Case::new("verify-posture", "The posture was exchanged after signing.", n())
                .sends(edit(r#""name":"landlock","state":"absent""#, r#""name":"landlock","state":"in-force""#)),
            Case::new("verify-ak-name", "A TPM key is named and no TPM takes part.", n())
                .sends(edit(r#""ak_name":null"#, r#""ak_name":"000b0102""#)),
            Case::new("verify-binding-changed", "The agent's key was exchanged after signing.", n()).sends(|n| {
                let text = String::from_utf8(n.evidence()).unwrap();
                text.replacen(&n.binding.agent_key.to_hex(), &Key::new(99).public().to_hex(), 1).into_bytes()
            }),
            Case::new(
                "verify-path-side",
                "A sibling on the wrong side.",
                node(|n| n.batch_mates = vec![Digest::of(b"mate")]),
            )
            .sends(edit(r#""side":"left""#, r#""side":"right""#)),
            Case::new("verify-node-as-leaf", "The device signed an inner node of a tree as if it were a binding.", n())
                .sends(|n| n.evidence_with(n.sign_report(&n.report_body(n.binding.digest()).encode()))),
            Case::new("verify-two-parts", "The same report twice.", n()).sends(|n| {
                EvidenceBuilder::new(n.binding.clone(), vec![], n.posture.clone())
                    .part(EvidenceKind::SoftwareTee, n.report())
                    .part(EvidenceKind::SoftwareTee, n.report())
                    .encode()
                    .unwrap()
            }),
            Case::new("verify-report-short", "A report of 343 bytes.", n()).sends(|n| {
                let mut report = n.report();
                report.pop();
                n.evidence_with(report)
            }),
            Case::new("verify-magic", "Not a report of a software TEE.", n()).sends(patch_report(0, 1)),
            Case::new("verify-reserved-flag", "A reserved flag is set, and the device signed it.", n()).sends(|n| {
                let mut signed = n.report_body(n.batch().0).encode();
                signed[12] = 0x80;
                n.evidence_with(n.sign_report(&signed))
            }),
            Case::new("verify-report-boot", "The device reports another start of the agent.", n()).sends(|n| {
                let mut body = n.report_body(n.batch().0);
                body.boot.0 = [9; 16];
                n.evidence_with(n.sign_report(&body.encode()))
            }),
            Case::new("verify-root-unknown", "No trust file names the root.", n())
                .but(|v| v["context"]["simulated_roots"] = json!([])),
            Case::new("verify-root-other", "The trust file names another root.", n()).but(|v| {
                v["context"]["simulated_roots"] = json!([format!("software-tee:{}", Key::new(50).public())]);
            }),
            Case::new("verify-certificate-early", "The device certificate is not valid yet.", n())
                .but(|v| v["context"]["now"] = json!(NOW.0 - 1_000_001)),
            Case::new("verify-certificate-late", "The device certificate has just ended.", n())
                .but(|v| v["context"]["now"] = json!(NOW.0 + 1_000_000)),
            Case::new("verify-certificate-chip", "A certificate for another chip.", n()).sends(|n| {
                let mut body = n.report_body(n.batch().0);
                body.certificate.chip_id.0[0] ^= 1;
                n.evidence_with(n.sign_report(&body.encode()))
            }),
            Case::new("verify-certificate-extended", "The node made its certificate last longer.", n()).sends(|n| {
                let mut body = n.report_body(n.batch().0);
                body.certificate.not_after = UnixTime(u64::MAX);
                n.evidence_with(n.sign_report(&body.encode()))
            }),
            Case::new("verify-measurement-changed", "The measurement was changed after signing.", n())
                .sends(patch_report(72, 1)),
            Case::new(
                "verify-debug-cleared",
                "The debug flag was cleared after signing.",
                node(|n| n.debug = DebugMode::On),
            )
            .sends(patch_report(15, 1)),
            Case::new("verify-signature-bit", "One bit of the device's signature.", n()).sends(patch_report(343, 0x10)),
        ]
    }

    fn not_good_enough() -> Vec<Case> {
        let n = Node::admission;
        vec![
            Case::new("appraise-root-unnamed", "The policy names no simulated root.", n())
                .but(|v| v["policy"]["accepted_simulated_roots"] = json!([])),
            Case::new("appraise-root-other", "The policy names another simulated root.", n()).but(|v| {
                v["policy"]["accepted_simulated_roots"] = json!([format!("software-tee:{}", Key::new(50).public())]);
            }),
            Case::new("appraise-debug", "Debug is on.", node(|n| n.debug = DebugMode::On)),
            Case::new(
                "appraise-memory",
                "Memory encryption is not claimed.",
                node(|n| n.memory_encryption = MemoryEncryption::NotClaimed),
            ),
            Case::new("appraise-tcb", "The trusted base is below the floor.", n())
                .but(|v| v["policy"]["minimum_tcb"]["software_tee"] = json!(4)),
            Case::new("appraise-measurement", "An agent that nobody knows.", node(|n| n.measurement = Digest([7; 32]))),
            Case::new("appraise-unset", "No reference value is set: denied, not passed.", n())
                .but(|v| v["reference_values"]["values"] = json!([])),
            Case::new("appraise-age", "The challenge is older than the policy allows.", n())
                .but(|v| v["context"]["challenge_issued_at"] = json!(NOW.0 - 60_001)),
            Case::new("appraise-future", "The challenge was issued in the future.", n())
                .but(|v| v["context"]["challenge_issued_at"] = json!(NOW.0 + 1)),
            Case::new("appraise-posture-absent", "A required measure is not in force.", n())
                .but(|v| v["policy"]["minimum_posture"]["sandbox"] = json!(["landlock"])),
            Case::new("appraise-posture-not-checked", "A required measure was not checked.", n())
                .but(|v| v["policy"]["minimum_posture"]["host"] = json!(["ptrace_restricted"])),
            Case::new(
                "appraise-posture-unstated",
                "The node states nothing of what is required.",
                node(|n| {
                    let host = vec![PostureItem::new(HostMeasure::SwapOff, PostureState::InForce, "")];
                    n.set_posture(Posture::new(vec![], host).unwrap());
                }),
            ),
            Case::new(
                "appraise-posture-all-absent",
                "Everything is absent.",
                node(|n| {
                    let all = SandboxMeasure::ALL.iter().map(|m| PostureItem::new(*m, PostureState::Absent, ""));
                    n.set_posture(Posture::new(all.collect(), vec![]).unwrap());
                }),
            ),
            Case::new("appraise-hardened", "No TPM takes part; hardened is out of reach.", n())
                .but(|v| v["policy"]["minimum_tier"] = json!(Tier::Hardened)),
            Case::new("policy-consent-missing", "A tier below confidential without consent.", n())
                .but(|v| v["policy"]["minimum_tier"] = json!("identified")),
            Case::new("policy-consent-void", "Consent to what the tier excludes.", n())
                .but(|v| v["policy"]["operator_may_read_memory"] = json!("yes")),
            Case::new("policy-unknown-field", "A policy with an unknown field.", n())
                .but(|v| v["policy"]["allow_simulated"] = json!(true)),
            Case::new("policy-age-zero", "A policy that allows no age at all.", n())
                .but(|v| v["policy"]["evidence_max_age_ms"] = json!(0)),
        ]
    }

    #[test]
    #[ignore = "rewrites the frozen vectors"]
    fn write_vectors() {
        fs::create_dir_all(folder()).unwrap();
        for case in [accepted(), malformed(), unverified(), not_good_enough()].into_iter().flatten() {
            case.write();
        }
    }
}
