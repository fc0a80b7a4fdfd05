//! Where the corpus comes from: honest inputs of this world, one or more for each target.
//!
//! `examples/make_corpus.rs` writes them, with the vectors beside them that lead somewhere else. The corpus is committed, and
//! so need not be made again unless a format changes; that every target still has a seed which it accepts is a test.

use data_encoding::BASE64;
use serde_json::{Value, json, to_vec};
use starminer_log::{ForkProof, Hash, TilePath, leaf_hash};
use starminer_receipt::{Base64Bytes, Resources};
use starminer_verify::{
    Attempt, Digest, HostMeasure, NodeId, Party, Posture, PostureItem, PostureState, Refusal, SandboxMeasure, UnixTime,
    parts,
};
use starminer_wire as wire;

use crate::targets;
use crate::world::{self, Ending, Log, NETWORK, NOW, Story, world};

/// A seed: its target, its file name, its bytes.
pub type Seed = (&'static str, String, Vec<u8>);

/// Every seed that this world has.
#[must_use]
pub fn seeds() -> Vec<Seed> {
    let mut all = Vec::new();
    log(&mut all);
    verify(&mut all);
    receipt(&mut all);
    wire_messages(&mut all);
    files_and_texts(&mut all);
    broker(&mut all);
    all.extend(targets::vault_seeds());
    all.extend(targets::cli_seeds());
    all.extend(targets::disk_seeds());
    all.extend(targets::hardware_seeds());
    all.extend(targets::image_seeds());
    #[cfg(feature = "edges")]
    all.extend(targets::edge_seeds());
    all
}

/// Seeds that are not of this repository, where this machine has them: the shared vectors and the samples of `dcap-qvl`. They are read in place.
#[must_use]
pub fn found(target: &str) -> Vec<Vec<u8>> {
    targets::found_hardware_seeds(target)
}

fn add(all: &mut Vec<Seed>, target: &'static str, name: impl Into<String>, bytes: impl Into<Vec<u8>>) {
    all.push((target, name.into(), bytes.into()));
}

fn json_of(value: &impl serde::Serialize) -> Vec<u8> {
    to_vec(value).expect("statements are JSON")
}

fn log(all: &mut Vec<Seed>) {
    add(all, "log-keys", "log", world::log_signer().key().encode());
    add(all, "log-keys", "witness", world::witness_signer().key().encode());
    add(all, "log-keys", "name", "fuzz.example/log");
    add(all, "log-keys", "hash", leaf_hash(b"").to_string());

    let known = world::checkpoint();
    let note = known.signed().as_str();
    let without_witness: String = note.split_inclusive('\n').take(5).collect();
    add(all, "log-checkpoint", "cosigned", note);
    add(all, "log-checkpoint", "signed", without_witness);
    let lines: Vec<&str> = note.split_inclusive('\n').skip(4).collect();
    add(all, "log-cosignatures", "own-line-first", lines.concat());
    add(all, "log-cosignatures", "witness", lines.last().copied().unwrap_or_default());
    add(all, "log-cosignatures", "twice", lines.last().copied().unwrap_or_default().repeat(2));

    let hashes: Vec<u8> = (0..3_u8).flat_map(|byte| [byte; 32]).collect();
    for path in
        ["tile/0/000.p/3", "tile/1/x001/234.p/3", "tile/entries/000.p/3", "tile/0/x001/x234/067", "tile/7/000.p/64"]
    {
        let content: &[u8] = if path.contains("entries") { b"\0\x03one\0\0\0\x05three" } else { &hashes };
        add(all, "log-tile", path.replace('/', "-"), [path.as_bytes(), b"\n", content].concat());
        assert!(TilePath::parse(path).is_ok());
    }
    add(all, "log-bundle", "three", b"\x02\0\x03one\0\0\0\x05three".as_slice());
    add(all, "log-bundle", "one-empty", b"\0\0\0".as_slice());

    let proof = |newer: u64, older: u64, entry: &[u8], proof: &[u8]| {
        [&newer.to_be_bytes(), &older.to_be_bytes(), entry, b"\n", proof].concat()
    };
    // The entry is taken with its line break, so the first of these is the whole log of one entry.
    add(all, "log-proofs", "only-entry", proof(1, 0, b"entry", br#"{"index":0,"hashes":[]}"#));
    add(all, "log-proofs", "from-empty", proof(9, 0, b"entry", br#"{"hashes":[]}"#));
    add(all, "log-proofs", "equal", proof(9, 9, b"entry", br#"{"hashes":[]}"#));
    let second = world().log.logged(1).expect("there are more");
    add(all, "log-proofs", "of-this-log", proof(1 << 62, 1 << 61, b"entry", &json_of(&second.inclusion)));
    let path: Vec<Hash> = (0..62).map(|byte| Hash([byte; 32])).collect();
    add(
        all,
        "log-proofs",
        "long",
        proof(1 << 62, 1, b"", &json_of(&json!({"index": (1_u64 << 62) - 1, "hashes": path}))),
    );
    add(all, "log-proofs", "long-consistency", proof(1 << 62, (1 << 62) - 1, b"", &json_of(&json!({"hashes": path}))));

    let other = Log::of(vec![b"another history".to_vec(); world().log.entries.len()]).expect("short entries");
    let fork = ForkProof::new(known.signed(), other.checkpoint().signed());
    add(all, "log-fork", "fork", json_of(&fork));
    add(all, "log-fork", "none", json_of(&ForkProof::new(known.signed(), known.signed())));
}

fn verify(all: &mut Vec<Seed>) {
    let evidence = &world().admission_evidence;
    add(all, "verify-evidence", "admission", evidence.clone());
    add(all, "verify-evidence", "broker", world().broker_evidence.clone());
    let value: Value = serde_json::from_slice(evidence).expect("evidence is JSON");
    let report = value["parts"][0]["report"].as_str().and_then(|text| BASE64.decode(text.as_bytes()).ok());
    add(all, "verify-report", "honest", report.expect("one report in base64"));

    let posture = world::posture(PostureState::InForce);
    let appraisal = |posture: &Posture, debug: bool, policy: &starminer_verify::Policy| {
        json_of(&json!({
            "debug": debug, "memory_encryption": true, "tcb_version": 1, "posture": posture, "age_ms": 1000,
            "policy": policy, "reference_values": world::reference_values(),
        }))
    };
    let sandbox: Vec<_> =
        SandboxMeasure::ALL.iter().map(|measure| PostureItem::new(*measure, PostureState::InForce, "")).collect();
    let host: Vec<_> =
        HostMeasure::ALL.iter().map(|measure| PostureItem::new(*measure, PostureState::InForce, "as read")).collect();
    let full = Posture::new(sandbox, host).expect("each once");
    let mut fields = world::policy().fields().clone();
    fields.minimum_posture.host = HostMeasure::ALL.to_vec();
    let strict = starminer_verify::Policy::new(fields).expect("each once");
    add(all, "verify-appraise", "meets", appraisal(&posture, false, &world::policy()));
    add(all, "verify-appraise", "debug", appraisal(&posture, true, &world::policy()));
    add(all, "verify-appraise", "meets-strict", appraisal(&full, false, &strict));
    add(all, "verify-policy", "own-root", world::policy().to_json());
    add(all, "verify-policy", "strict", strict.to_json());
    add(all, "verify-policy", "confidential", starminer_verify::Policy::confidential().to_json());
    add(all, "verify-reference-values", "one", world::reference_values().to_json());
    add(all, "verify-reference-values", "none", starminer_verify::ReferenceValues::unset().to_json());
    let certificate = || vec![0x30, 0x03, 0x02, 0x01, 0x05];
    let sev_snp = parts::SevSnpPart { report: vec![7; 1184], certificates: vec![certificate(); 3] };
    add(all, "verify-parts", "sev-snp", sev_snp.encode());
    let tpm = parts::TpmPart {
        attest: b"\xffTCG\x80\x18".to_vec(),
        signature: vec![0x00, 0x18, 0x00, 0x0b],
        ak_public: vec![0x00, 0x23],
        pcr_values: vec![9; 64],
        ek_certificates: vec![certificate(); 2],
    };
    add(all, "verify-parts", "tpm", tpm.encode());
    let gpu = parts::GpuPart {
        architecture: parts::GpuArchitecture::Hopper,
        report: vec![0x11, 0xe0, 0x01, 0xff],
        certificates: vec![certificate(); 5],
    };
    add(all, "verify-parts", "gpu", gpu.encode());
    add(all, "verify-posture", "sandbox", posture.to_json());
    add(all, "verify-posture", "full", full.to_json());
    add(all, "verify-posture", "unstated", Posture::unstated().to_json());
    let refusal = Refusal::new(Party::Node, "evidence.debug", "debug mode is on", "switch it off");
    add(all, "verify-refusal", "refusal", json_of(&refusal));
    for (name, text) in [
        ("digest", Digest([0xab; 32]).to_string()),
        ("task", starminer_verify::TaskId([0x1c; 16]).to_string()),
        ("attempt", Attempt(7).to_string()),
        ("time", NOW.to_string()),
        ("root", world::root().id().to_string()),
        ("measure", SandboxMeasure::ALL[0].to_string()),
    ] {
        add(all, "verify-ids", name, text);
    }
}

/// The name under which the seeds of a story are kept.
fn name_of(story: &Story) -> String {
    format!("{:?}", story.ending).to_lowercase()
}

fn receipt(all: &mut Vec<Seed>) {
    for story in &world().stories {
        let compact = json_of(&story.receipt);
        add(all, "receipt-file", name_of(story), compact.clone());
        add(all, "receipt-collusion", name_of(story), compact);
        for logged in &story.receipt.entries {
            let kind = starminer_receipt::LogEntry::parse(&logged.entry.0).map(|entry| format!("{:?}", entry.kind));
            add(all, "receipt-entry", kind.unwrap_or_default().to_lowercase(), logged.entry.0.clone());
        }
    }
    let (completed, denied, cancelled) =
        (world().story(Ending::Completed), world().story(Ending::Denied), world().story(Ending::Cancelled));
    let receipt = &completed.receipt;
    for (name, envelope) in [
        ("spec", Some(&receipt.spec)),
        ("lease", receipt.lease.as_ref()),
        ("challenge", receipt.challenge.as_ref()),
        ("release", receipt.release.as_ref()),
        ("grant", receipt.grant.as_ref()),
        ("report", receipt.report.as_ref()),
        ("agent-statement", receipt.agent_statement.as_ref()),
        ("checkpoint", Some(&world::state_checkpoint(&completed.spec, &completed.lease))),
        ("denial", denied.receipt.denial.as_ref()),
        ("cancellation", cancelled.receipt.cancel.as_ref()),
        ("failure", denied.receipt.report.as_ref()),
    ] {
        let bytes = envelope.expect("it is in this receipt").encode();
        if ["lease", "denial", "grant"].contains(&name) {
            add(all, "receipt-envelope", name, bytes.clone());
        }
        add(all, "receipt-statement", name, bytes);
    }
    for (name, trust) in [("witnessed", &world().trust), ("plain", &world::World::trust_without_witness())] {
        add(all, "receipt-network", name, trust.encode().expect("its own parts"));
    }
    add(all, "receipt-references", "signed", world::reference_file().encode());
    add(all, "receipt-endorsements", "statements", world::endorsement_set().encode());
    let grant = receipt.grant.clone().and_then(|grant| grant.open::<starminer_receipt::Grant>().ok());
    add(all, "receipt-sealed", "grant", json_of(&grant.expect("it completed").secret));
    let manifest = br#"{"inputs":["a.csv"],"wasm":{"args":["--fast"],"env":[["LANG","C"]]}}"#;
    add(all, "receipt-manifest", "wasm", manifest.as_slice());
    let manifest =
        br#"{"inputs":["a.csv"],"onnx":{"input":"a.csv","output":"b.csv","id_column":"id","ignore_columns":["x"]}}"#;
    add(all, "receipt-manifest", "onnx", manifest.as_slice());
    add(all, "receipt-manifest", "details", json_of(&world::run_details()));
    add(all, "receipt-manifest", "resources", json_of(&Resources { cpu_ms: 1, peak_resident_bytes: 2, wall_ms: 3 }));
}

/// One of each message that carries more than a number.
fn wire_messages(all: &mut Vec<Seed>) {
    let story = world().story(Ending::Completed);
    let receipt = &story.receipt;
    let envelope = |part: &Option<starminer_receipt::Envelope>| part.clone().expect("it completed");
    let (lease, grant, report) = (envelope(&receipt.lease), envelope(&receipt.grant), envelope(&receipt.report));
    let evidence = receipt.evidence.clone().expect("it completed");
    let deposit = targets::known_deposit();
    let (task, attempt, node) = (story.spec.task, Attempt(1), story.lease.node);
    let refusal = Refusal::new(Party::Requester, "submit.too-large", "too large", "send less");
    let logged = &receipt.entries[0];
    let proof = wire::LogProof {
        checkpoint: receipt.checkpoint.clone(),
        entry: Some(logged.entry.clone()),
        inclusion: Some(logged.inclusion.clone()),
        consistency: Some(starminer_log::ConsistencyProof::empty()),
    };
    let view = wire::AttemptView {
        endorsements: None,
        task,
        attempt,
        state: wire::TaskState::Granted,
        ended: false,
        spec: lease.clone(),
        lease: lease.clone(),
        challenge: receipt.challenge.clone(),
        evidence: None,
        deposit: None,
        release: receipt.release.clone(),
        grant: None,
        checkpoint: Some(world::state_checkpoint(&story.spec, &story.lease)),
    };
    let task_view = wire::TaskView {
        task,
        spec: story.spec.digest(),
        state: wire::TaskState::Failed,
        version: 9,
        attempt: Some(attempt),
        node: Some(node),
        submitted_at: NOW,
        changed_at: UnixTime(NOW.0 + 1),
        refusal: Some(refusal.clone()),
        queue_position: None,
    };
    let summary = wire::NodeSummary {
        pseudonym: Digest([1; 32]),
        tier: "confidential".into(),
        provenance: "simulated".into(),
        running: 1,
        seen_at: NOW,
    };
    let request = wire::BrokerEvidenceRequest { broker: NodeId::from(node.0).0, challenge: world::BROKER_CHALLENGE };
    let feed = wire::NodeFeedRequest {
        epoch: 1,
        after: 2,
        wait_ms: 30_000,
        free_places: 1,
        boot: world::BOOT,
        holds: vec![task],
        unclean: true,
    };
    let checkpoint = world::state_checkpoint(&story.spec, &story.lease);
    let network = wire::NetworkInfo { network: NETWORK, build: "fuzz".into(), now: NOW, brokers: vec![request.broker] };
    let messages: [(&str, Vec<u8>); 17] = [
        (
            "submit",
            json_of(&wire::SubmitRequest {
                spec: lease.clone(),
                deposit: Some(deposit.clone()),
                objects: vec![Base64Bytes(vec![7; 16])],
            }),
        ),
        ("feed", json_of(&wire::FeedResponse { epoch: 1, version: 2, attempts: vec![view], over: vec![task] })),
        ("node-feed", json_of(&feed)),
        ("task-view", json_of(&task_view)),
        ("evidence", json_of(&wire::EvidenceRequest { evidence, enrolments: Vec::new() })),
        ("checkpoint", json_of(&wire::CheckpointRequest { checkpoint })),
        ("release-answer", json_of(&wire::ReleaseResponse { proof })),
        ("grant", json_of(&wire::GrantRequest { grant, attestation_result: Base64Bytes(b"{}".to_vec()) })),
        ("report", json_of(&wire::ReportRequest { report, agent_statement: None, closing_evidence: None })),
        ("deposit", json_of(&deposit)),
        ("problem", json_of(&wire::Problem::new(wire::ProblemStatus::TooLarge, &refusal))),
        ("nodes", json_of(&vec![summary])),
        ("broker-requests", json_of(&vec![request])),
        ("network", json_of(&network)),
        ("blob", json_of(&wire::BlobStatus { stored_bytes: 5, complete: false })),
        ("attempt", json_of(&wire::AttemptRef { task, attempt })),
        ("role", json_of(&wire::FeedRole::Releaser)),
    ];
    for (name, bytes) in messages {
        add(all, "wire-messages", name, bytes);
    }
}

fn files_and_texts(all: &mut Vec<Seed>) {
    let key = format!("{}{}\n", starminer_tls::KEY_FILE_MAGIC, "07".repeat(32));
    add(all, "tls-key-file", "key", key);
    let (statement, proof) = targets::known_proof();
    add(all, "tls-texts", "identity", statement.client.to_string());
    add(all, "tls-texts", "proof", proof.to_string());
    let identity = targets::server_identity_certificate();
    let length = (identity.len() as u16).to_be_bytes();
    // Certificates after their lengths; an empty one stands for the honest one.
    add(all, "tls-chain", "honest", b"\0\0\0\0\0\0\0\0".as_slice());
    add(all, "tls-chain", "honest-spelt-out", [b"\0\0\0\0\0\0".as_slice(), &length, &identity].concat());
    add(all, "tls-chain", "changed-leaf", b"\x01\0\x40\xff\0\0\0\0".as_slice());
    add(all, "tls-chain", "identity-alone", [b"\0\0\0\0".as_slice(), &length, &identity].concat());
    add(all, "tls-chain", "identity-twice", [b"\0\0\0\0".as_slice(), &length, &identity, &length, &identity].concat());

    let directory = tempfile::tempdir().expect("a temporary directory");
    let (root, device) = (directory.path().join("root"), directory.path().join("device"));
    world::root().save(&root).expect("room for a key file");
    let (debug, memory) =
        (starminer_verify::software_tee::DebugMode::Off, starminer_verify::software_tee::MemoryEncryption::Claimed);
    world::tee(debug, memory, 1).save(&device).expect("room for a key file");
    for (name, path) in [("root", root), ("device", device)] {
        add(all, "attester-key-files", name, std::fs::read(path).expect("it was just written"));
    }
}

fn broker(all: &mut Vec<Seed>) {
    let (completed, denied) = (world().story(Ending::Completed), world().story(Ending::Denied));
    let evidence = completed.receipt.evidence.clone().expect("it completed");
    add(all, "broker-evidence", "of-the-node", evidence.0);
    add(all, "broker-evidence", "of-the-broker", world().broker_evidence.clone());
    for logged in &completed.receipt.entries {
        let text = String::from_utf8_lossy(&logged.entry.0).into_owned();
        if text.contains("released") {
            add(all, "broker-logged", "released", json_of(logged));
        } else if text.contains("granted") {
            add(all, "broker-logged", "granted", json_of(logged));
        }
    }
    add(all, "broker-ledger", "granted", json_of(&completed.records));
    add(all, "broker-ledger", "approved", json_of(&completed.records[..2].to_vec()));
    let checkpoint = world::state_checkpoint(&completed.spec, &completed.lease);
    let records =
        [completed.records.clone(), vec![starminer_broker::LedgerRecord::Checkpointed { checkpoint }]].concat();
    add(all, "broker-ledger", "checkpointed", json_of(&records));
    add(all, "broker-ledger", "denied", json_of(&denied.records));
    add(all, "broker-ledger", "empty", b"[]".as_slice());
    add(all, "broker-deposit", "deposit", json_of(&targets::known_deposit()));
}
