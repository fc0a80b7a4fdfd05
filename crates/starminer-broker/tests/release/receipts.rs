//! What a receipt proves, and what breaks it.

use starminer_receipt::*;
use starminer_verify::*;

use crate::world::{Log, NOW, World, enroller, key, reference_values};

fn later() -> UnixTime {
    UnixTime(NOW.0 + 60_000)
}

fn verdict(receipt: &Receipt, trust: Option<&NetworkTrust>) -> ReceiptVerdict {
    verify_receipt(receipt, trust, later())
}

fn refuted(verdict: &ReceiptVerdict) -> Vec<&'static str> {
    verdict.claims.iter().filter(|claim| claim.verdict == ClaimVerdict::Refuted).map(|claim| claim.name).collect()
}

#[test]
fn an_honest_receipt_is_proven_and_simulated() {
    let mut world = World::new();
    let receipt = world.receipt(Outcome::Completed);
    let found = verdict(&receipt, Some(&world.trust()));
    assert_eq!(found.overall(), Overall::Proven, "{:#?}", found.claims);
    assert!(found.is_simulated());
    assert_eq!(found.tier, Some(Tier::Confidential));
    assert_eq!(found.valid_then, Some(Validity::Valid));
    assert_eq!(found.valid_now, Some(Validity::Valid));
    assert_eq!(found.outcome, Some(Outcome::Completed));
    let parsed = Receipt::parse(&receipt.encode()).unwrap();
    assert_eq!(parsed, receipt, "the file says the same");
}

#[test]
fn a_failure_has_a_receipt_as_good() {
    let mut world = World::new();
    let refusal = Refusal::new(Party::Requester, "engine.wasm.out-of-fuel", "out of fuel", "raise limits.fuel");
    let receipt = world.receipt(Outcome::Failed { refusal: refusal.clone() });
    let found = verdict(&receipt, Some(&world.trust()));
    assert_eq!(found.overall(), Overall::Proven, "{:#?}", found.claims);
    assert_eq!(found.outcome, Some(Outcome::Failed { refusal }));
}

#[test]
fn without_trust_of_ones_own_nothing_that_needs_a_root_is_proven() {
    let mut world = World::new();
    let receipt = world.receipt(Outcome::Completed);
    let found = verdict(&receipt, None);
    assert_eq!(found.overall(), Overall::Unanchored, "{:#?}", found.claims);
    for name in ["network", "log", "evidence", "report", "agent-statement", "lease"] {
        let claim = found.claims.iter().find(|claim| claim.name == name).unwrap();
        assert_eq!(claim.verdict, ClaimVerdict::Unanchored, "{name}");
    }
}

#[test]
fn trust_that_names_no_root_leaves_the_evidence_unanchored() {
    let mut world = World::new();
    let receipt = world.receipt(Outcome::Completed);
    let mut trust = world.trust();
    trust.simulated_roots.clear();
    let found = verdict(&receipt, Some(&trust));
    assert_eq!(found.overall(), Overall::Unanchored);
    let mut trust = world.trust();
    trust.reference_values = reference_values(Digest([1; 32]));
    let found = verdict(&receipt, Some(&trust));
    let claim = found.claims.iter().find(|claim| claim.name == "reference-values").unwrap();
    assert_eq!(claim.verdict, ClaimVerdict::Unanchored, "an agent that only the requester vouches for");
    let mut trust = world.trust();
    trust.network = NetworkId([200; 32]);
    assert_eq!(verdict(&receipt, Some(&trust)).overall(), Overall::Unanchored, "another network");
}

#[test]
fn every_part_that_is_swapped_is_refuted() {
    type Change = fn(&mut World, &mut Receipt, &mut Receipt);
    // The second receipt is of another life of the same task: same keys, other releases.
    let cases: &[(&str, Change)] = &[
        ("lease", |_, a, b| a.lease = b.lease.take()),
        ("challenge", |_, a, b| a.challenge = b.challenge.take()),
        ("evidence", |_, a, b| a.evidence = b.evidence.take()),
        ("attestation result", |_, a, _| a.attestation_result = Some(b"{}".to_vec().into())),
        ("attestation result gone", |_, a, _| a.attestation_result = None),
        ("release", |_, a, b| a.release = b.release.take()),
        ("grant", |_, a, b| a.grant = b.grant.take()),
        ("report", |_, a, b| a.report = b.report.take()),
        ("agent statement", |_, a, b| a.agent_statement = b.agent_statement.take()),
        ("closing evidence", |_, a, b| a.closing_evidence = b.closing_evidence.take()),
        ("closing evidence is the first", |_, a, _| a.closing_evidence = a.evidence.clone()),
        ("entries", |_, a, b| a.entries = std::mem::take(&mut b.entries)),
        ("checkpoint", |_, a, b| a.checkpoint = std::mem::take(&mut b.checkpoint)),
        ("stamp", |_, a, _| a.stamp = Receipt::GENUINE.into()),
        ("an entry missing", |_, a, _| drop(a.entries.remove(4))),
        ("entries out of order", |_, a, _| a.entries.swap(1, 2)),
    ];
    for (name, change) in cases {
        let mut world = World::new();
        let mut receipt = world.receipt(Outcome::Completed);
        // Another attempt of the same task under a policy that differs, so that every statement differs.
        let mut other_world = World::with_policy(|fields| fields.evidence_max_age_ms = 59_000);
        let mut other = other_world.receipt(Outcome::Completed);
        change(&mut world, &mut receipt, &mut other);
        let found = verdict(&receipt, Some(&world.trust()));
        assert_eq!(found.overall(), Overall::Refuted, "{name}: {:#?}", found.claims);
    }
}

#[test]
fn signatures_by_the_wrong_party_are_refuted() {
    let mut world = World::new();
    let receipt = world.receipt(Outcome::Completed);
    let trust = world.trust();
    let evidence = receipt.evidence.clone().unwrap().0;
    let grant = receipt.grant.clone().unwrap().open::<Grant>().unwrap();

    // A node that reports with a key of its own choice, and one that has the agent's key but not the task's.
    for (author, signer) in
        [(ReportAuthor::Task, key(90)), (ReportAuthor::Task, key(33)), (ReportAuthor::Agent, key(32))]
    {
        let mut forged = receipt.clone();
        forged.report = Some(world.report(&evidence, &grant, Outcome::Completed, author, &signer).into_envelope());
        let found = verdict(&forged, Some(&trust));
        assert!(refuted(&found).contains(&"report"), "{author:?}: {:#?}", found.claims);
    }
    let report = receipt.report.clone().unwrap().open::<Report>().unwrap();
    let mut forged = receipt.clone();
    forged.agent_statement = Some(world.agent_statement(&report, &key(32)).into_envelope());
    assert_eq!(refuted(&verdict(&forged, Some(&trust))), ["report-logged", "agent-statement"]);

    let mut lease = world.lease.statement().clone();
    lease.coordinator = key(90).public_key();
    let mut forged = receipt.clone();
    forged.lease = Some(Envelope::sign(lease, &key(90)).unwrap().into_envelope());
    assert!(refuted(&verdict(&forged, Some(&trust))).contains(&"lease"));
}

#[test]
fn other_inputs_than_the_spec_commits_to_are_refuted() {
    let mut world = World::new();
    let receipt = world.receipt(Outcome::Completed);
    let mut report = receipt.report.clone().unwrap().open::<Report>().unwrap().statement().clone();
    report.predicate.inputs.swap(0, 1);
    let forged = Envelope::sign(report, &world.report_key).unwrap();
    let mut receipt = receipt;
    receipt.report = Some(forged.into_envelope());
    assert!(refuted(&verdict(&receipt, Some(&world.trust()))).contains(&"inputs"));
}

#[test]
fn the_log_of_another_origin_is_unanchored_and_a_forged_checkpoint_refuted() {
    let mut world = World::new();
    let receipt = world.receipt(Outcome::Completed);
    let mut forged = receipt.clone();
    forged.checkpoint = forged.checkpoint.replacen("\n8\n", "\n9\n", 1);
    assert_ne!(forged.checkpoint, receipt.checkpoint, "the size was changed");
    assert!(refuted(&verdict(&forged, Some(&world.trust()))).contains(&"log"));
}

/// A receipt file with any one bit flipped is unusable, refuted, or says exactly the same: the file has white space and the stamp is checked.
#[test]
fn no_flipped_bit_goes_unnoticed() {
    let mut world = World::new();
    let receipt = world.receipt(Outcome::Completed);
    let (bytes, trust) = (receipt.encode(), world.trust());
    let honest = verdict(&receipt, Some(&trust));
    // Every byte would take minutes of signature checks; a stride that is prime to the line lengths meets every part of the file.
    for byte in (0..bytes.len()).step_by(37) {
        for bit in [0, 3, 6] {
            let mut flipped = bytes.clone();
            flipped[byte] ^= 1 << bit;
            let Ok(parsed) = Receipt::parse(&flipped) else { continue };
            let found = verdict(&parsed, Some(&trust));
            let same = found.overall() == Overall::Proven && found.claims == honest.claims;
            assert!(
                same && parsed == receipt || found.overall() == Overall::Refuted || {
                    // A key id or origin that changed makes the checkpoint another log's.
                    found.overall() == Overall::Unanchored && parsed.checkpoint != receipt.checkpoint
                },
                "byte {byte} bit {bit}: {:?}",
                found.overall()
            );
        }
    }
}

#[test]
fn evidence_is_judged_at_the_time_of_the_log_and_again_now() {
    let mut world = World::new();
    let receipt = world.receipt(Outcome::Completed);
    let years_later = UnixTime(NOW.0 + 10 * 365 * 86_400_000);
    let found = verify_receipt(&receipt, Some(&world.trust()), years_later);
    assert_eq!(found.overall(), Overall::Proven);
    assert_eq!(found.valid_then, Some(Validity::Valid));
    assert!(matches!(found.valid_now, Some(Validity::Invalid(_))), "the device certificate has expired");
}

/// A receipt without evidence, of a report that somebody signed.
fn given_up(world: &mut World, signer: &SigningKey, change: impl FnOnce(&mut ReportPredicate)) -> Receipt {
    let node = NodeId(key(40).public_key());
    let lease = Lease { node, ..world.lease.statement().clone() };
    world.lease = Envelope::sign(lease, &world.coordinator).unwrap();
    let refusal = Refusal::new(Party::Node, "node.storage-full", "no room", "another node can run it");
    let mut predicate = ReportPredicate {
        author: ReportAuthor::Agent,
        signer: signer.public_key(),
        network: world.network,
        task: world.spec.task,
        spec: world.spec.digest(),
        node: Some(node),
        attempt: Some(world.lease.attempt),
        lease: Some(world.lease.digest()),
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
    change(&mut predicate);
    let report = Envelope::sign(Report::new(predicate), signer).unwrap();
    let (task, attempt) = (Some(world.spec.task), Some(world.lease.attempt));
    world.log = Log::new();
    world.log.append(EntryKind::Submitted, task, None, world.spec.digest());
    world.log.append(EntryKind::Leased, task, attempt, world.lease.digest());
    world.log.append(EntryKind::Reported, task, attempt, report.digest());
    Receipt {
        format: Receipt::FORMAT.into(),
        stamp: Receipt::SIMULATED.into(),
        spec: world.spec.envelope().clone(),
        lease: Some(world.lease.envelope().clone()),
        challenge: None,
        evidence: None,
        endorsements: None,
        attestation_result: None,
        release: None,
        grant: None,
        denial: None,
        cancel: None,
        report: Some(report.into_envelope()),
        agent_statement: None,
        closing_evidence: None,
        checkpoint: world.log.note(),
        entries: world.log.of_task(world.spec.task),
    }
}

#[test]
fn a_node_without_evidence_can_report_a_failure_with_the_key_of_its_lease_and_nothing_else() {
    let mut world = World::new();
    let (trust, node) = (world.trust(), key(40));
    let receipt = given_up(&mut world, &node, |_| {});
    let found = verdict(&receipt, Some(&trust));
    assert_eq!(found.overall(), Overall::Proven, "{:#?}", found.claims);
    let report = found.claims.iter().find(|claim| claim.name == "report").unwrap();
    assert_eq!(report.voucher, Voucher::Node);
    assert_eq!(verdict(&receipt, None).overall(), Overall::Unanchored, "nobody vouches for the lease");

    let object = ObjectRef { content_id: Digest([1; 32]), sealed_bytes: 1, commitment: Digest([2; 32]) };
    let mut check = |signer: &SigningKey, change: &dyn Fn(&mut ReportPredicate)| {
        let receipt = given_up(&mut world, signer, change);
        assert!(refuted(&verdict(&receipt, Some(&trust))).contains(&"report"));
    };
    check(&key(33), &|_| {});
    check(&node, &|report| report.outcome = Outcome::Completed);
    check(&node, &|report| report.outputs = vec![object]);
    check(&node, &|report| report.grant = Some(Digest([3; 32])));
    check(&node, &|report| report.evidence = Some(Digest([3; 32])));
    check(&node, &|report| report.author = ReportAuthor::Task);
}

#[test]
fn only_a_release_that_nothing_came_of_needs_no_attestation_result() {
    let granted_in = |receipt: &Receipt| {
        let kind = |entry: &LoggedEntry| LogEntry::parse(&entry.entry.0).unwrap().kind;
        receipt.entries.iter().position(|entry| kind(entry) == EntryKind::Granted).unwrap()
    };
    let mut world = World::new();
    let refusal = Refusal::new(Party::Broker, "broker.restarted", "its keys are gone", "submit again");
    let whole = world.receipt(Outcome::Failed { refusal });
    let without = |change: &dyn Fn(&mut Receipt)| {
        let mut receipt = whole.clone();
        receipt.attestation_result = None;
        receipt.agent_statement = None;
        receipt.closing_evidence = None;
        change(&mut receipt);
        refuted(&verdict(&receipt, Some(&world.trust())))
    };
    assert!(without(&|_| {}).contains(&"release"), "there is a grant");
    assert!(without(&|receipt| receipt.grant = None).contains(&"release"), "the log has a grant");
    let place = granted_in(&whole);
    let found = without(&|receipt| {
        receipt.grant = None;
        drop(receipt.entries.remove(place));
    });
    assert!(!found.contains(&"release"), "{found:?}");
    assert!(found.contains(&"report"), "a report that names the grant still shows it: {found:?}");
}

/// An enrolment of some TPM; no evidence here rests on it.
fn enrolment(world: &World, enroller: &SigningKey) -> Envelope {
    let statement = EnrolmentStatement {
        network: world.network,
        node: world.lease.node,
        ak_name: vec![0, 11, 1].into(),
        ek_certificate: Digest([1; 32]),
        simulated_root: None,
        chip: None,
        enrolled_at: NOW,
        enroller: enroller.public_key(),
    };
    Envelope::sign(statement, enroller).unwrap().into_envelope()
}

fn set(files: &[u8], enrolments: Vec<Envelope>) -> Vec<u8> {
    let files = files.iter().map(|byte| (EndorsementKind::NvidiaRevoked, vec![*byte; 32]));
    EndorsementSet::new(files, enrolments, Vec::new()).unwrap().encode()
}

#[test]
fn endorsements_are_those_that_the_releaser_used() {
    let mut world = World::new();
    world.endorsements = Some(set(&[1, 2], vec![enrolment(&world, &enroller())]));
    let receipt = world.receipt(Outcome::Completed);
    let found = verdict(&receipt, Some(&world.trust()));
    assert_eq!(found.overall(), Overall::Proven, "{:#?}", found.claims);
    let claim = |found: &ReceiptVerdict, name: &str| {
        found.claims.iter().find(|claim| claim.name == name).map(|claim| (claim.verdict, claim.voucher))
    };
    assert_eq!(claim(&found, "endorsements"), Some((ClaimVerdict::Proven, Voucher::Releaser)));
    assert_eq!(claim(&found, "enrolment"), Some((ClaimVerdict::Proven, Voucher::Enroller)));

    // Left out, others, more, and none at all.
    for endorsements in [None, Some(set(&[1], vec![])), Some(set(&[1, 2, 3], vec![])), Some(b"{}".to_vec())] {
        let altered = Receipt { endorsements: endorsements.clone().map(Into::into), ..receipt.clone() };
        let found = verdict(&altered, Some(&world.trust()));
        assert_eq!(found.overall(), Overall::Refuted, "{endorsements:?}");
        assert!(refuted(&found).contains(&"endorsements"), "{:?}", refuted(&found));
    }
    // A statement with another's signature spoils the whole.
    let mut forged: serde_json::Value =
        serde_json::from_slice(&serde_json::to_vec(&enrolment(&world, &enroller())).unwrap()).unwrap();
    forged["signatures"] = serde_json::to_value(enrolment(&world, &key(42))).unwrap()["signatures"].clone();
    let text = String::from_utf8(set(&[1, 2], vec![enrolment(&world, &enroller())])).unwrap();
    let genuine = serde_json::to_string(&enrolment(&world, &enroller())).unwrap();
    let altered = text.replace(&genuine, &serde_json::to_string(&forged).unwrap());
    assert_ne!(altered, text);
    let altered = Receipt { endorsements: Some(altered.into_bytes().into()), ..receipt.clone() };
    assert!(refuted(&verdict(&altered, Some(&world.trust()))).contains(&"endorsements"));
}

#[test]
fn an_enroller_whom_the_verifier_does_not_name_leaves_the_enrolment_unanchored() {
    let mut world = World::new();
    world.endorsements = Some(set(&[], vec![enrolment(&world, &enroller()), enrolment(&world, &key(42))]));
    let receipt = world.receipt(Outcome::Completed);
    let trust = world.trust().with_enrollers(Vec::new(), Vec::new()).unwrap();
    let found = verdict(&receipt, Some(&trust));
    assert_eq!(found.overall(), Overall::Unanchored);
    let unanchored: Vec<_> =
        found.claims.iter().filter(|claim| claim.verdict == ClaimVerdict::Unanchored).map(|claim| claim.name).collect();
    assert_eq!(unanchored, ["enrolment"]);
    // Whom nobody names says nothing, for or against.
    world.endorsements = Some(set(&[], vec![enrolment(&world, &key(42))]));
    let receipt = Receipt { endorsements: world.endorsements.clone().map(Into::into), ..receipt };
    assert_eq!(verdict(&receipt, Some(&trust)).overall(), Overall::Proven);
}
