//! Which checkpoint a grant names, and what a receipt makes of the one that was gone on from.

use starminer_broker::{Ledger, LedgerRecord, ReleaseContext};
use starminer_receipt::*;
use starminer_verify::*;

use crate::world::{Log, NOW, World, key, lease_for};

const NODE: NodeId = NodeId(PublicKey([40; 32]));

fn id(attempt: u32, count: u32) -> CheckpointId {
    CheckpointId { sequence: u64::from(attempt) << 32 | u64::from(count), digest: Digest([count as u8; 32]) }
}

/// A world whose task keeps a state, before its first attempt is challenged.
fn world() -> World {
    let mut world = World::new();
    let mut spec = world.spec.statement().clone();
    spec.limits.state_bytes = 1 << 20;
    world.spec = Envelope::sign(spec, &world.requester).unwrap();
    world.lease = lease_for(&world.spec, Attempt(1), &world.coordinator);
    world.log = Log::new();
    world.log.append(EntryKind::Genesis, None, None, Digest([0; 32]));
    world.log.append(EntryKind::Submitted, Some(world.spec.task), None, world.spec.digest());
    world.log.append(EntryKind::Leased, Some(world.spec.task), Some(Attempt(1)), world.lease.digest());
    world
}

/// Brings the attempt under way to its grant.
fn granted(world: &mut World) -> Signed<Grant> {
    let challenge = world.challenge();
    let evidence = world.evidence(&challenge);
    let approved = world.approve(&evidence);
    let index = world.log_release(&approved);
    let logged = world.logged(approved, index).unwrap();
    let grant = world.grant(&logged).unwrap();
    world.log.append(EntryKind::Granted, Some(world.spec.task), Some(world.lease.attempt), grant.digest());
    grant
}

fn statement(world: &World, checkpoint: CheckpointId) -> CheckpointStatement {
    CheckpointStatement {
        network: world.network,
        task: world.spec.task,
        spec: world.spec.digest(),
        attempt: world.lease.attempt,
        lease: world.lease.digest(),
        node: NODE,
        checkpoint,
        signer: world.report_key.public_key(),
    }
}

fn signed(world: &World, checkpoint: CheckpointId) -> Signed<CheckpointStatement> {
    Envelope::sign(statement(world, checkpoint), &world.report_key).unwrap()
}

/// The attempt under way ends, and the next is leased.
fn next_attempt(world: &mut World, node: NodeId) {
    let (task, attempt) = (world.spec.task, world.lease.attempt);
    world.log.append(EntryKind::Expired, Some(task), Some(attempt), world.lease.digest());
    let next = Attempt(attempt.0 + 1);
    let lease = Lease { node, ..lease_for(&world.spec, next, &world.coordinator).statement().clone() };
    world.lease = Envelope::sign(lease, &world.coordinator).unwrap();
    world.log.append(EntryKind::Leased, Some(task), Some(next), world.lease.digest());
}

#[test]
fn a_grant_names_the_newest_checkpoint_that_an_approved_process_signed() {
    let mut world = world();
    assert_eq!(granted(&mut world).resume, None);
    let newest = signed(&world, id(1, 3));
    let refused = |world: &mut World, statement: CheckpointStatement, key: &SigningKey| {
        let envelope = Envelope::sign(CheckpointStatement { signer: key.public_key(), ..statement }, key).unwrap();
        let refusal = world.ledger.checkpointed(envelope.into_envelope()).unwrap_err();
        assert_eq!((refusal.check(), refusal.party()), ("release.checkpoint-unknown", Party::Coordinator));
    };
    let sound = statement(&world, id(1, 9));
    let report_key = key(32);
    refused(&mut world, sound.clone(), &key(77));
    refused(&mut world, CheckpointStatement { node: NodeId(PublicKey([41; 32])), ..sound.clone() }, &report_key);
    refused(&mut world, CheckpointStatement { lease: Digest([0; 32]), ..sound.clone() }, &report_key);
    refused(&mut world, CheckpointStatement { spec: Digest([0; 32]), ..sound.clone() }, &report_key);
    refused(&mut world, CheckpointStatement { task: TaskId([8; 16]), ..sound.clone() }, &report_key);
    let later = CheckpointStatement { attempt: Attempt(2), checkpoint: id(2, 1), ..sound.clone() };
    refused(&mut world, later, &report_key);
    // A number of another attempt is no checkpoint of this one.
    let other = Envelope::sign(CheckpointStatement { checkpoint: id(2, 1), ..sound }, &report_key);
    assert!(other.is_err());

    let record = world.ledger.checkpointed(newest.envelope().clone()).unwrap().unwrap();
    world.records.push(record);
    for older in [id(1, 3), id(1, 2), CheckpointId { digest: Digest([0; 32]), ..id(1, 3) }] {
        let older = signed(&world, older).into_envelope();
        assert_eq!(world.ledger.checkpointed(older).unwrap(), None, "it is no news");
    }
    let least = LeastCheckpoint { checkpoint: id(1, 3), statement: newest.digest(), node: NODE };
    assert_eq!(world.ledger.newest_checkpoint(&world.spec.task), Some(least));

    // Through the journal and back.
    let json = serde_json::to_vec(&world.records).unwrap();
    let records: Vec<LedgerRecord> = serde_json::from_slice(&json).unwrap();
    assert_eq!(records, world.records);
    world.ledger = Ledger::replay(records).unwrap();
    next_attempt(&mut world, NODE);
    assert_eq!(granted(&mut world).resume, Some(least));
    // The attempt before is over, and its process may still be heard of late.
    let mut late = statement(&world, id(1, 4));
    late.attempt = Attempt(1);
    late.lease = lease_for(&world.spec, Attempt(1), &world.coordinator).digest();
    let late = Envelope::sign(late, &world.report_key).unwrap();
    assert!(world.ledger.checkpointed(late.into_envelope()).unwrap().is_some());
    world.ledger.forget(&world.spec.task);
    assert_eq!(world.ledger.newest_checkpoint(&world.spec.task), None);
}

/// Its coordinator says that a task has ended which goes on.
#[test]
fn nothing_is_forgotten_on_the_coordinator_s_word() {
    let mut world = world();
    granted(&mut world);
    let newest = signed(&world, id(1, 3));
    let least = LeastCheckpoint { checkpoint: id(1, 3), statement: newest.digest(), node: NODE };
    let record = world.ledger.checkpointed(newest.into_envelope()).unwrap();
    world.records.extend(record);
    world.ledger.close(&world.spec.task);
    // The attempt that was granted is not begun again, under whatever lease.
    let (spec, lease) = (world.spec.clone(), world.lease.clone());
    let other = Lease { node: NodeId(PublicKey([41; 32])), ..lease.statement().clone() };
    let other = Envelope::sign(other, &world.coordinator).unwrap();
    for lease in [&lease, &other] {
        let context = ReleaseContext { spec: &spec, lease };
        let refusal = world.ledger.challenge(context, &world.requester, [1; 32], NOW).unwrap_err();
        assert_eq!(refusal.check(), "release.attempt-consumed");
    }
    assert!(world.ledger.granted(&spec.task, Attempt(1)).is_none());
    // The next one is, and by what was known.
    next_attempt(&mut world, NODE);
    assert_eq!(granted(&mut world).resume, Some(least));
    let context = ReleaseContext { spec: &spec, lease: &lease };
    let reason = Refusal::new(Party::Requester, "test.late", "late", "nothing");
    let refusal = world.ledger.deny(context, None, vec![reason], true, &world.requester, NOW).unwrap_err();
    assert_eq!(refusal.check(), "release.fenced");
    // Until the spec expires, when nothing is done for it any more.
    world.ledger.close(&spec.task);
    world.ledger.forget_expired(spec.expires_at);
    assert_eq!((world.ledger.len(), world.ledger.newest_checkpoint(&spec.task)), (1, Some(least)));
    world.ledger.forget_expired(spec.expires_at.saturating_add_millis(1));
    assert_eq!((world.ledger.len(), world.ledger.newest_checkpoint(&spec.task)), (0, None));
}

/// It signs a spec of its own for the same task, which ends at once or has no end.
#[test]
fn a_task_has_one_spec_whatever_the_coordinator_shows() {
    let mut world = world();
    granted(&mut world);
    let newest = signed(&world, id(1, 3));
    let least = LeastCheckpoint { checkpoint: id(1, 3), statement: newest.digest(), node: NODE };
    world.records.extend(world.ledger.checkpointed(newest.into_envelope()).unwrap());
    let mut own = world.spec.statement().clone();
    (own.created_at, own.expires_at) = (UnixTime(0), UnixTime(1));
    (own.max_attempts, own.requester) = (100, world.coordinator.public_key());
    let own = Envelope::sign(own, &world.coordinator).unwrap();
    let reason = || vec![Refusal::new(Party::Requester, "test.unknown", "not this one", "nothing")];
    let mut replayed = Ledger::replay(world.records.clone()).unwrap();
    for ledger in [&mut world.ledger, &mut replayed] {
        for attempt in [1, 2, 100] {
            let lease = lease_for(&own, Attempt(attempt), &world.coordinator);
            let context = ReleaseContext { spec: &own, lease: &lease };
            let refusal = ledger.deny(context, None, reason(), false, &world.requester, NOW).unwrap_err();
            assert_eq!((refusal.check(), refusal.party()), ("release.other-spec", Party::Coordinator));
        }
        ledger.forget_expired(NOW);
        assert_eq!(ledger.newest_checkpoint(&own.task), Some(least));
    }
    // Nor is a task fenced off by a number that its spec does not allow, or by a lease of another.
    let beyond = lease_for(&world.spec, Attempt(u32::MAX), &world.coordinator);
    let other = lease_for(&own, Attempt(2), &world.coordinator);
    for (lease, check) in [(&beyond, "release.too-many-attempts"), (&other, "release.lease-mismatch")] {
        let context = ReleaseContext { spec: &world.spec, lease };
        let refusal = world.ledger.deny(context, None, reason(), false, &world.requester, NOW).unwrap_err();
        assert_eq!(refusal.check(), check);
    }
    next_attempt(&mut world, NODE);
    assert_eq!(granted(&mut world).resume, Some(least));
}

/// What was never approved takes no room once it is over.
#[test]
fn what_was_only_denied_is_forgotten_when_it_ends() {
    let mut world = world();
    let context = ReleaseContext { spec: &world.spec, lease: &world.lease };
    let reason = Refusal::new(Party::Requester, "test.unknown", "not this one", "nothing");
    world.ledger.deny(context, None, vec![reason], false, &world.requester, NOW).unwrap();
    assert_eq!(world.ledger.len(), 1);
    world.ledger.close(&world.spec.task);
    assert!(world.ledger.is_empty());
}

/// The record of a checkpoint is written with that of the grant that names it, at the latest; the power may go in between.
#[test]
fn a_grant_s_record_alone_brings_the_checkpoint_back_that_it_names() {
    let mut world = world();
    granted(&mut world);
    let newest = signed(&world, id(1, 3));
    let least = LeastCheckpoint { checkpoint: id(1, 3), statement: newest.digest(), node: NODE };
    world.ledger.checkpointed(newest.into_envelope()).unwrap();
    next_attempt(&mut world, NODE);
    assert_eq!(granted(&mut world).resume, Some(least));
    let replayed = Ledger::replay(world.records.clone()).unwrap();
    assert_eq!(replayed.newest_checkpoint(&world.spec.task), Some(least));
}

/// A journal of before there were checkpoints.
#[test]
fn records_without_a_report_key_are_read() {
    let mut world = world();
    granted(&mut world);
    let mut json = serde_json::to_value(&world.records).unwrap();
    for record in json.as_array_mut().unwrap() {
        record.as_object_mut().unwrap().remove("report_key");
    }
    let records: Vec<LedgerRecord> = serde_json::from_value(json).unwrap();
    world.ledger = Ledger::replay(records).unwrap();
    let checkpoint = signed(&world, id(1, 1)).into_envelope();
    assert_eq!(world.ledger.checkpointed(checkpoint).unwrap_err().check(), "release.checkpoint-unknown");
}

/// What happened before the second attempt, and what its report says.
struct Story {
    /// The log has checkpoints of the first attempt up to this one.
    logged: u32,
    /// The releaser was shown those up to this one.
    shown: u32,
    /// The second attempt is on this node.
    node: NodeId,
    resumed: Option<CheckpointId>,
    outcome: Outcome,
}

fn resume_of(story: Story) -> (ClaimVerdict, String) {
    let mut world = world();
    granted(&mut world);
    for count in 1..=story.logged {
        let checkpoint = signed(&world, id(1, count));
        world.log.append(EntryKind::Checkpointed, Some(world.spec.task), Some(Attempt(1)), checkpoint.digest());
        if count <= story.shown {
            world.ledger.checkpointed(checkpoint.into_envelope()).unwrap();
        }
    }
    next_attempt(&mut world, story.node);
    world.resumed = story.resumed;
    let receipt = world.receipt(story.outcome);
    let verdict = verify_receipt(&receipt, Some(&world.trust()), UnixTime(NOW.0 + 60_000));
    let claim = verdict.claims.iter().find(|claim| claim.name == "resume").unwrap();
    let others = verdict.claims.iter().filter(|claim| claim.name != "resume");
    assert!(others.clone().all(|claim| claim.verdict < ClaimVerdict::Unanchored), "{:#?}", verdict.claims);
    (claim.verdict, claim.statement.clone())
}

#[test]
fn a_receipt_says_from_where_an_attempt_went_on_and_is_held_to_its_grant() {
    use ClaimVerdict::{Proven, Refuted, Unanchored};
    let other_node = NodeId(PublicKey([41; 32]));
    let refused = || Outcome::Failed {
        refusal: Refusal::new(Party::Node, "checkpoint.rolled-back", "an older state was put back", "see to the disk"),
    };
    let check = |logged, shown, node, resumed, outcome, expected, says: &str| {
        let (verdict, statement) = resume_of(Story { logged, shown, node, resumed, outcome });
        assert_eq!(verdict, expected, "{statement}");
        assert!(statement.contains(says), "{statement}");
    };
    let done = || Outcome::Completed;
    check(2, 2, NODE, Some(id(1, 2)), done(), Proven, "went on from checkpoint 1.2");
    check(2, 2, NODE, Some(id(1, 7)), done(), Proven, "asks for checkpoint 1.2 at least");
    check(0, 0, NODE, Some(id(1, 1)), done(), Proven, "knew of none");
    check(0, 0, NODE, None, done(), Proven, "began anew");
    check(2, 2, other_node, None, done(), Proven, "began anew");
    check(2, 2, NODE, None, refused(), Proven, "began anew");
    check(2, 2, NODE, Some(id(1, 1)), done(), Refuted, "asks for checkpoint 1.2");
    let forged = CheckpointId { digest: Digest([0; 32]), ..id(1, 2) };
    check(2, 2, NODE, Some(forged), done(), Refuted, "asks for checkpoint 1.2");
    check(2, 2, NODE, None, done(), Refuted, "began anew on the node");
    check(2, 2, NODE, Some(id(2, 1)), done(), Refuted, "no attempt before it made");
    // The coordinator withheld what it had logged: the node could go back as far as the releaser knew, and the receipt shows it.
    check(3, 1, NODE, Some(id(1, 1)), done(), Unanchored, "a newer checkpoint");
    check(3, 0, NODE, None, done(), Unanchored, "a newer checkpoint");
}

#[test]
fn a_grant_that_names_what_the_log_has_not_is_refuted() {
    let mut world = world();
    granted(&mut world);
    let checkpoint = signed(&world, id(1, 1)).into_envelope();
    world.ledger.checkpointed(checkpoint).unwrap();
    next_attempt(&mut world, NODE);
    world.resumed = Some(id(1, 1));
    let receipt = world.receipt(Outcome::Completed);
    let verdict = verify_receipt(&receipt, Some(&world.trust()), UnixTime(NOW.0 + 60_000));
    let claim = verdict.claims.iter().find(|claim| claim.name == "resume").unwrap();
    assert_eq!(claim.verdict, ClaimVerdict::Refuted, "{}", claim.statement);
}

#[test]
fn a_task_without_a_state_claims_nothing_and_may_not() {
    let mut plain = World::new();
    let receipt = plain.receipt(Outcome::Completed);
    let verdict = verify_receipt(&receipt, Some(&plain.trust()), UnixTime(NOW.0 + 60_000));
    assert!(verdict.claims.iter().all(|claim| claim.name != "resume"));
    let mut lying = World::new();
    lying.resumed = Some(id(1, 1));
    let receipt = lying.receipt(Outcome::Completed);
    let verdict = verify_receipt(&receipt, Some(&lying.trust()), UnixTime(NOW.0 + 60_000));
    let claim = verdict.claims.iter().find(|claim| claim.name == "resume").unwrap();
    assert_eq!(claim.verdict, ClaimVerdict::Refuted);
}
