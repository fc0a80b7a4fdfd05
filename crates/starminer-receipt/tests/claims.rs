//! What a receipt must not be taken for: of another network, of a completed run when what shows it is missing, of more than a node that
//! gave up early can know. The receipts are those of `vectors/receipt/`, altered.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use starminer_receipt::{
    Base64Bytes, ClaimVerdict, EngineRecord, Envelope, Lease, NetworkTrust, ObjectRef, Outcome, Overall, Receipt,
    ReceiptVerdict, Report, ReportAuthor, ReportPredicate, Signer as _, SigningKey, TaskSpec, Voucher, verify_receipt,
};
use starminer_verify::{Attempt, Digest, NetworkId, NodeId, Party, PublicKey, Refusal, UnixTime};
use zeroize::Zeroizing;

fn read(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/receipt").join(name)).unwrap()
}

fn trust() -> NetworkTrust {
    NetworkTrust::parse(&String::from_utf8(read("network.toml")).unwrap()).unwrap()
}

fn verified(receipt: &Receipt, trust: Option<&NetworkTrust>) -> ReceiptVerdict {
    let expected: serde_json::Value = serde_json::from_slice(&read("expected.json")).unwrap();
    verify_receipt(receipt, trust, UnixTime(expected["now_ms"].as_u64().unwrap()))
}

#[track_caller]
fn claim(verdict: &ReceiptVerdict, name: &str) -> (ClaimVerdict, Voucher) {
    let claim = verdict.claims.iter().find(|claim| claim.name == name).unwrap();
    (claim.verdict, claim.voucher)
}

#[test]
fn another_networks_trust_file_anchors_nothing_and_refutes_nothing() {
    for name in ["completed.receipt", "failed.receipt"] {
        let receipt = Receipt::parse(&read(name)).unwrap();
        let mut other = trust();
        other.network = NetworkId([9; 32]);
        // Its keys may be the same, or its own.
        for key in [other.coordinator.key, PublicKey([7; 32])] {
            other.coordinator.key = key;
            let verdict = verified(&receipt, Some(&other));
            assert_eq!(verdict.overall(), Overall::Unanchored, "{:#?}", verdict.claims);
            assert_eq!(claim(&verdict, "network").0, ClaimVerdict::Unanchored);
            assert_eq!(claim(&verdict, "lease").0, ClaimVerdict::Unanchored);
            assert!(verdict.claims.iter().all(|claim| claim.voucher != Voucher::Verifier));
        }
        // The network's own file with another coordinator is a contradiction.
        let mut wrong = trust();
        wrong.coordinator.key = PublicKey([7; 32]);
        assert_eq!(verified(&receipt, Some(&wrong)).overall(), Overall::Refuted);
    }
}

#[test]
fn without_a_trust_file_nothing_is_proven_by_it() {
    for name in ["completed.receipt", "failed.receipt"] {
        let verdict = verified(&Receipt::parse(&read(name)).unwrap(), None);
        assert_eq!(claim(&verdict, "appraisal"), (ClaimVerdict::Unanchored, Voucher::Requester));
        assert!(verdict.claims.iter().all(|claim| claim.voucher != Voucher::Verifier));
    }
    let mut rootless = trust();
    rootless.simulated_roots.clear();
    let verdict = verified(&Receipt::parse(&read("completed.receipt")).unwrap(), Some(&rootless));
    assert_eq!(claim(&verdict, "appraisal").0, ClaimVerdict::Unanchored, "of evidence without a root");
    let verdict = verified(&Receipt::parse(&read("completed.receipt")).unwrap(), Some(&trust()));
    assert_eq!(claim(&verdict, "appraisal"), (ClaimVerdict::Proven, Voucher::Verifier));
}

#[test]
fn a_completed_run_is_not_proven_without_its_end() {
    let whole = Receipt::parse(&read("completed.receipt")).unwrap();
    let without = |strip: &dyn Fn(&mut Receipt)| {
        let mut receipt = whole.clone();
        strip(&mut receipt);
        verified(&receipt, Some(&trust()))
    };
    // The log knows that it was there; without the log it cannot be told from one that never was.
    let closing = without(&|receipt| receipt.closing_evidence = None);
    assert_eq!(claim(&closing, "report-logged").0, ClaimVerdict::Refuted);
    assert_eq!(claim(&closing, "closing-evidence"), (ClaimVerdict::Unanchored, Voucher::Nobody));
    assert_eq!(claim(&closing, "agent-statement").0, ClaimVerdict::Proven);
    let statement = without(&|receipt| receipt.agent_statement = None);
    assert_eq!(claim(&statement, "report-logged").0, ClaimVerdict::Refuted);
    assert_eq!(claim(&statement, "agent-statement"), (ClaimVerdict::Unanchored, Voucher::Nobody));
    assert_eq!(claim(&statement, "closing-evidence").0, ClaimVerdict::Proven);
    // Whatever else is taken out of it leaves something that does not fit, or no word of a completed run.
    let parts: [&dyn Fn(&mut Receipt); 7] = [
        &|receipt| receipt.lease = None,
        &|receipt| receipt.challenge = None,
        &|receipt| receipt.evidence = None,
        &|receipt| receipt.attestation_result = None,
        &|receipt| receipt.release = None,
        &|receipt| receipt.grant = None,
        &|receipt| receipt.report = None,
    ];
    for (index, strip) in parts.into_iter().enumerate() {
        let verdict = without(strip);
        assert!(verdict.overall() == Overall::Refuted || verdict.outcome.is_none(), "{index}: {:#?}", verdict.claims);
    }
}

/// Entries count, and the last one says that it is: no choice of fewer passes for all of them.
#[test]
fn no_entry_can_be_left_out() {
    for file in ["completed.receipt", "failed.receipt"] {
        let whole = Receipt::parse(&read(file)).unwrap();
        assert_eq!(verified(&whole, Some(&trust())).overall(), Overall::Proven);
        let count = whole.entries.len();
        assert!(count > 5);
        for kept in 0..(1_u32 << count) - 1 {
            let mut receipt = whole.clone();
            let mut index = 0;
            receipt.entries.retain(|_| {
                index += 1;
                kept >> (index - 1) & 1 == 1
            });
            for trust in [Some(trust()), None] {
                let verdict = verified(&receipt, trust.as_ref());
                assert_eq!(verdict.overall(), Overall::Refuted, "{file}, entries {kept:b}");
            }
        }
    }
}

/// What the log has of the end of a task has to be in its receipt.
#[test]
fn no_statement_can_be_left_out() {
    type Strip<'a> = &'a dyn Fn(&mut Receipt);
    let parts: [(&str, Strip<'_>); 9] = [
        ("lease", &|receipt| receipt.lease = None),
        ("challenge", &|receipt| receipt.challenge = None),
        ("evidence", &|receipt| receipt.evidence = None),
        ("attestation result", &|receipt| receipt.attestation_result = None),
        ("release", &|receipt| receipt.release = None),
        ("grant", &|receipt| receipt.grant = None),
        ("report", &|receipt| receipt.report = None),
        ("agent statement", &|receipt| receipt.agent_statement = None),
        ("closing evidence", &|receipt| receipt.closing_evidence = None),
    ];
    for file in ["completed.receipt", "failed.receipt"] {
        let whole = Receipt::parse(&read(file)).unwrap();
        // Any choice of them: what one would be missed for must not be missing with it.
        for taken in 1..1_u32 << parts.len() {
            let mut receipt = whole.clone();
            let chosen = parts.iter().enumerate().filter(|(index, _)| taken >> index & 1 == 1);
            let names: Vec<&str> = chosen
                .map(|(_, (name, strip))| {
                    strip(&mut receipt);
                    *name
                })
                .collect();
            let verdict = verified(&receipt, Some(&trust()));
            assert_ne!(verdict.overall(), Overall::Proven, "{file} without {names:?}");
        }
    }
}

/// What a node reports over the key that its lease names, when nothing else is known of it.
struct EarlyNode {
    key: SigningKey,
    receipt: Receipt,
    honest: ReportPredicate,
}

impl EarlyNode {
    fn new() -> Self {
        let key = SigningKey::from_seed(&Zeroizing::new([3; 32]));
        let coordinator = SigningKey::from_seed(&Zeroizing::new([4; 32]));
        let mut receipt = Receipt::parse(&read("failed.receipt")).unwrap();
        let spec = receipt.spec.clone().open::<TaskSpec>().unwrap();
        let lease = Lease {
            network: spec.network,
            task: spec.task,
            spec: spec.digest(),
            node: NodeId(key.public_key()),
            attempt: Attempt(1),
            issued_at: spec.created_at,
            expires_at: spec.expires_at,
            coordinator: coordinator.public_key(),
        };
        let lease = Envelope::sign(lease, &coordinator).unwrap();
        let refusal = Refusal::new(Party::Node, "node.too-small", "too small", "another node may have more");
        let honest = ReportPredicate {
            author: ReportAuthor::Agent,
            signer: key.public_key(),
            network: spec.network,
            task: spec.task,
            spec: spec.digest(),
            node: Some(lease.node),
            attempt: Some(lease.attempt),
            lease: Some(lease.digest()),
            evidence: None,
            grant: None,
            engine: None,
            workload: None,
            inputs: Vec::new(),
            outcome: Outcome::Failed { refusal },
            output_secret: None,
            outputs: Vec::new(),
            sealed_details: None,
            sandbox: Vec::new(),
            resumed: None,
        };
        receipt.lease = Some(lease.into_envelope());
        let rest = [&mut receipt.challenge, &mut receipt.release, &mut receipt.grant, &mut receipt.agent_statement];
        rest.into_iter().for_each(|part| *part = None);
        (receipt.evidence, receipt.attestation_result, receipt.closing_evidence) = (None, None, None);
        Self { key, receipt, honest }
    }

    /// The verdict on a report that says something else in one place.
    fn reports(&self, change: impl FnOnce(&mut ReportPredicate), signer: &SigningKey) -> (ClaimVerdict, Voucher) {
        let mut said = self.honest.clone();
        change(&mut said);
        let mut receipt = self.receipt.clone();
        receipt.report = Some(Envelope::sign(Report::new(said), signer).unwrap().into_envelope());
        claim(&verified(&receipt, None), "report")
    }
}

#[test]
fn a_node_without_evidence_can_report_a_failure_and_nothing_else() {
    let node = EarlyNode::new();
    assert_eq!(node.reports(|_| {}, &node.key), (ClaimVerdict::Unanchored, Voucher::Node));
    let other = SigningKey::from_seed(&Zeroizing::new([5; 32]));
    let digest = Digest([6; 32]);
    let object = ObjectRef { content_id: digest, sealed_bytes: 1, commitment: digest };
    let engine = EngineRecord { kind: "wasm".into(), build: "b".into(), cpu_target: "c".into(), digests: Vec::new() };
    type Lie<'a> = (&'a str, &'a dyn Fn(&mut ReportPredicate));
    let lies: [Lie<'_>; 10] = [
        ("completed", &|said| said.outcome = Outcome::Completed),
        ("completed, as a task process", &|said| {
            (said.author, said.outcome) = (ReportAuthor::Task, Outcome::Completed);
        }),
        ("failed, as a task process", &|said| said.author = ReportAuthor::Task),
        ("an engine ran", &|said| said.engine = Some(engine.clone())),
        ("it opened the workload", &|said| said.workload = Some(digest)),
        ("it opened inputs", &|said| said.inputs = vec![digest]),
        ("it has outputs", &|said| said.outputs = vec![object]),
        ("it has details", &|said| said.sealed_details = Some(Base64Bytes(vec![1]))),
        ("it had evidence", &|said| said.evidence = Some(digest)),
        ("it had a grant", &|said| said.grant = Some(digest)),
    ];
    for (what, lie) in lies {
        assert_eq!(node.reports(lie, &node.key).0, ClaimVerdict::Refuted, "{what}");
    }
    assert_eq!(node.reports(|said| said.signer = other.public_key(), &other).0, ClaimVerdict::Refuted, "another node");
    // Nor can anybody else say that it completed.
    for author in [ReportAuthor::Coordinator, ReportAuthor::Releaser] {
        let verdict = node.reports(|said| (said.author, said.outcome) = (author, Outcome::Completed), &node.key);
        assert_eq!(verdict.0, ClaimVerdict::Refuted, "{author:?}");
    }
}
