//! The state machine: tables of steps, and properties over random commands with rollbacks and restarts.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use starminer_receipt::{
    AgentStatement, Base64Bytes, CancelStatement, ChallengeStatement, CheckpointId, CheckpointStatement, DenyStatement,
    Determinism, EngineKind, EntryKind, Envelope, ExitStatus, Grant, LeastCheckpoint, Limits, LogEntry,
    MAX_CHECKPOINTS_LOGGED, ObjectRef, Outcome, ReleaseStatement, Report, ReportAuthor, ReportPredicate, SealedSecret,
    Sensitivity, Signed, Signer as _, SigningKey, TaskSpec, WasmGrants,
};
use starminer_verify::{
    Attempt, BootId, Challenge, Digest, NetworkId, NodeId, Party, Policy, PublicKey, ReferenceValues, Refusal, TaskId,
    Tier, UnixTime,
};
use starminer_wire::TaskState;

use super::machine::{Command, Step, Tasks, Waits};
use super::*;
use crate::clock::Now;
use crate::refused::Refused;

const NETWORK: NetworkId = NetworkId([1; 32]);
const START: UnixTime = UnixTime(1_000_000);
const WAITS: Waits = Waits {
    resume_ms: 5_000,
    releaser_ms: 1_000,
    node_ms: 500,
    report_margin_ms: 100,
    open_tasks_per_requester: 3,
    open_tasks: 5,
    nodes: 3,
    unchanged_ms: 60_000,
};

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&zeroize::Zeroizing::new([seed; 32]))
}

fn boot(number: u8) -> BootId {
    BootId([number; 16])
}

fn sealed() -> SealedSecret {
    SealedSecret { encapsulated_key: Base64Bytes(vec![1; 1120]), ciphertext: Base64Bytes(vec![2; 48]) }
}

/// A machine with its parties. Requesters have seeds 1 and 2 and release themselves, nodes 10 to 12.
struct Bench {
    tasks: Tasks,
    now: Now,
    /// What was committed.
    events: Vec<(u64, Event)>,
}

impl Bench {
    fn new() -> Self {
        let tasks = Tasks::new(NETWORK, Arc::new(key(0)), WAITS, 0, UnixTime(0));
        let mut bench = Self { tasks, now: Now { wall: START, mono_ms: 0 }, events: Vec::new() };
        for node in 10..13 {
            bench.ok(Command::Admit {
                node: NodeId(key(node).public_key()),
                evidence: Digest([node; 32]),
                standing: standing(),
            });
        }
        bench
    }

    fn try_run(&mut self, command: Command) -> Result<Option<Arc<Task>>, Refused> {
        let result = self.tasks.execute(command, self.now).map(|answer| answer.task);
        self.tasks.assign(self.now);
        self.tasks.check_indexes();
        result
    }

    fn commit(&mut self) {
        let first = self.tasks.batch_index();
        let touched = self.tasks.take_batch();
        self.events.extend((first..).zip(touched.events));
        self.tasks.commit();
    }

    fn ok(&mut self, command: Command) -> Option<Arc<Task>> {
        let answer = self.try_run(command).unwrap();
        self.commit();
        answer
    }

    #[track_caller]
    fn refused(&mut self, command: Command, code: &str) {
        let before = self.fingerprint();
        assert_eq!(self.try_run(command).unwrap_err().code(), code);
        assert_eq!(self.fingerprint(), before, "a refused command changed something");
        self.commit();
    }

    fn submit(&mut self, task: u8, requester: u8, change: impl FnOnce(&mut TaskSpec)) -> Arc<Task> {
        self.ok(Command::Submit { spec: spec(task, requester, change), deposit: None }).unwrap()
    }

    fn offer(&mut self, node: u8, free_places: u32) {
        let seen = self.tasks.known().map(|task| task.version).max().unwrap_or(0);
        self.ok(Command::Offer {
            node: node_id(node),
            offer: Offer { boot: boot(node), poll: 1, free_places, holds: Arc::from([]), unclean: false },
            seen,
        });
    }

    /// An offer of an agent that has started anew, with checkpoints.
    fn return_with(&mut self, node: u8, start: u8, held: &[u8], unclean: bool) {
        let holds = held.iter().map(|task| TaskId([*task; 16])).collect();
        let offer = Offer { boot: boot(start), poll: 1, free_places: 1, holds, unclean };
        self.ok(Command::Offer { node: node_id(node), offer, seen: u64::MAX });
    }

    fn task(&self, task: u8) -> Arc<Task> {
        self.tasks.task(&TaskId([task; 16])).unwrap().clone()
    }

    fn pass(&mut self, ms: u64) {
        self.now = Now { wall: self.now.wall.saturating_add_millis(ms), mono_ms: self.now.mono_ms + ms };
        self.ok(Command::Tick);
    }

    fn fingerprint(&self) -> BTreeMap<TaskId, String> {
        self.tasks.known().map(|task| (task.id, fingerprint(task))).collect()
    }

    /// Ends the process and starts anew from what was committed.
    fn restart(&mut self) {
        let mut fresh = Tasks::new(
            NETWORK,
            Arc::new(key(0)),
            WAITS,
            self.events.len() as u64,
            self.events.last().map_or(UnixTime(0), |e| e.1.at),
        );
        self.now.mono_ms += 5;
        for events in self.by_task().into_values() {
            // Through rows and back, as the database does it.
            let rows: Vec<_> =
                events.iter().map(|(index, event)| event.to_row(*index, event.entry(&NETWORK).encode())).collect();
            let events: Vec<_> = rows.iter().map(|row| (row.index, Event::from_row(row).unwrap())).collect();
            fresh.restore_task(Tasks::replay(&events, self.now).unwrap().unwrap());
        }
        for node in 10..13 {
            fresh.restore_node(node_id(node), standing());
        }
        fresh.commit();
        fresh.check_indexes();
        self.tasks = fresh;
    }

    fn by_task(&self) -> BTreeMap<TaskId, Vec<(u64, Event)>> {
        let mut by_task: BTreeMap<TaskId, Vec<(u64, Event)>> = BTreeMap::new();
        for (index, event) in &self.events {
            if let Some(task) = event.task {
                by_task.entry(task).or_default().push((*index, event.clone()));
            }
        }
        by_task
    }

    /// What must hold whatever happened.
    fn check(&self) {
        assert_eq!(self.tasks.next_index_for_tests(), self.events.len() as u64);
        for (id, events) in self.by_task() {
            let replayed = Tasks::replay(&events, self.now).unwrap().unwrap();
            let known = self.tasks.task(&id).unwrap();
            assert_eq!(fingerprint(&replayed), fingerprint(known), "replayed events give another state");
            let ends = events.iter().filter(|(_, event)| ends_task(event)).count();
            assert_eq!(ends, usize::from(known.ending.is_some()), "a task ends once");
            assert!(
                !ends_task(&events[0].1) && (ends == 0 || ends_task(&events.last().unwrap().1)),
                "something follows the end"
            );
            let live = known.attempts.iter().filter(|attempt| !attempt.ended).count();
            assert!(live <= usize::from(known.ending.is_none()), "two attempts are live, or one of an ended task");
            assert!(known.attempts.len() <= known.spec.max_attempts as usize);
            let granted: Vec<_> = events.iter().filter_map(|(_, event)| grant_of(event)).collect();
            let mut attempts: Vec<_> = granted.iter().map(|grant| grant.attempt).collect();
            attempts.dedup();
            assert_eq!(attempts.len(), granted.len(), "an attempt was granted twice");
        }
        let times: Vec<_> = self.events.iter().map(|(_, event)| event.at).collect();
        assert!(times.is_sorted(), "time went back");
    }
}

fn grant_of(event: &Event) -> Option<&Signed<Grant>> {
    match &event.body {
        EventBody::Granted { grant, .. } => Some(grant),
        _ => None,
    }
}

fn ends_task(event: &Event) -> bool {
    matches!(&event.body, EventBody::Cancelled(_) | EventBody::Reported { settles: Settles::Task, .. })
}

fn fingerprint(task: &Task) -> String {
    let mut task = task.clone();
    task.ended_ms = 0;
    for attempt in &mut task.attempts {
        attempt.since_ms = 0;
    }
    format!("{task:?}")
}

fn node_id(seed: u8) -> NodeId {
    NodeId(key(seed).public_key())
}

fn standing() -> Standing {
    Standing {
        tier: Tier::Confidential,
        simulated_root: None,
        admitted_at: UnixTime(0),
        valid_until: UnixTime(u64::MAX),
        valid_until_ms: u64::MAX,
        tpm: Vec::new(),
        rollback_said: false,
    }
}

fn spec(task: u8, requester: u8, change: impl FnOnce(&mut TaskSpec)) -> Arc<Signed<TaskSpec>> {
    let requester = key(requester);
    let mut spec = TaskSpec {
        version: 1,
        network: NETWORK,
        task: TaskId([task; 16]),
        requester: requester.public_key(),
        created_at: START,
        expires_at: UnixTime(START.0 + 100_000),
        engine: EngineKind::Wasm,
        determinism: Determinism::Native,
        grants: WasmGrants::default(),
        limits: Limits { wall_limit_ms: 400, ..Limits::default() },
        sensitivity: Sensitivity::Sensitive,
        sealed_manifest: Base64Bytes(vec![1; 64]),
        workload: ObjectRef { content_id: Digest([task; 32]), sealed_bytes: 10, commitment: Digest([0; 32]) },
        inputs: Vec::new(),
        policy: Policy::confidential(),
        reference_values: ReferenceValues::unset(),
        enrollers: Vec::new(),
        facilities: Vec::new(),
        releaser: requester.public_key(),
        result_key: Base64Bytes(vec![1; 1216]),
        max_attempts: 3,
    };
    change(&mut spec);
    Arc::new(Envelope::sign(spec, &requester).unwrap())
}

/// Who signs what for the live attempt of a task. `salt` makes statements that differ.
struct Hand<'t> {
    task: &'t Task,
    salt: u8,
}

impl Hand<'_> {
    fn record(&self) -> &AttemptRecord {
        self.task.attempts.last().unwrap()
    }

    fn requester(&self) -> SigningKey {
        (1..3).map(key).find(|key| key.public_key() == self.task.requester()).unwrap()
    }

    fn node(&self) -> SigningKey {
        (10..13).map(key).find(|key| NodeId(key.public_key()) == self.record().node).unwrap()
    }

    fn step(&self, peer: &SigningKey, step: Step) -> Command {
        Command::Step { peer: peer.public_key(), task: self.task.id, attempt: self.record().attempt, step }
    }

    fn challenge(&self) -> Command {
        let releaser = self.requester();
        let statement = ChallengeStatement {
            network: NETWORK,
            task: self.task.id,
            attempt: self.record().attempt,
            lease: self.record().lease.digest(),
            challenge: Challenge([self.salt; 32]),
            issued_at: START,
            expires_at: UnixTime(START.0 + 1),
            releaser: releaser.public_key(),
        };
        self.step(&releaser, Step::Challenge(Arc::new(Envelope::sign(statement, &releaser).unwrap())))
    }

    fn evidence(&self) -> Command {
        let evidence = Arc::new(vec![self.salt; 20]);
        let digest = Digest::of(&evidence);
        self.step(
            &self.node(),
            Step::Evidence { evidence, digest, endorsements: None, report_key: Some(key(50).public_key()) },
        )
    }

    fn release(&self, change: impl FnOnce(&mut ReleaseStatement)) -> Command {
        let releaser = self.requester();
        let record = self.record();
        let challenge = record.challenge.as_ref().and_then(|kept| kept.body.as_ref());
        let mut statement = ReleaseStatement {
            network: NETWORK,
            task: self.task.id,
            attempt: record.attempt,
            node: record.node,
            spec: self.task.spec.digest(),
            lease: record.lease.digest(),
            challenge: challenge.map_or(Challenge([0; 32]), |challenge| challenge.challenge),
            challenge_issued_at: START,
            evidence: record.evidence.as_ref().map_or(Digest([0; 32]), |kept| kept.digest),
            policy: self.task.spec.policy.digest(),
            attestation_result: Digest::of(b"result"),
            task_key: Digest([self.salt; 32]),
            decided_at: START,
            releaser: releaser.public_key(),
        };
        change(&mut statement);
        self.step(&releaser, Step::Release(Arc::new(Envelope::sign(statement, &releaser).unwrap())))
    }

    fn grant(&self, result: &[u8], change: impl FnOnce(&mut Grant)) -> Command {
        let releaser = self.requester();
        let record = self.record();
        let release = record.release.as_ref().and_then(|kept| kept.body.as_ref());
        let mut statement = Grant {
            network: NETWORK,
            task: self.task.id,
            attempt: record.attempt,
            spec: self.task.spec.digest(),
            lease: record.lease.digest(),
            evidence: release.map_or(Digest([0; 32]), |release| release.evidence),
            policy: self.task.spec.policy.digest(),
            release: release.map_or(Digest([0; 32]), |release| release.digest()),
            release_index: record.release_index.unwrap_or(0),
            secret: sealed(),
            resume: None,
            issued_at: UnixTime(START.0 + u64::from(self.salt)),
            releaser: releaser.public_key(),
        };
        change(&mut statement);
        let step = Step::Grant {
            grant: Arc::new(Envelope::sign(statement, &releaser).unwrap()),
            attestation_result: Arc::new(result.to_vec()),
        };
        self.step(&releaser, step)
    }

    fn deny(&self, retry: bool) -> Command {
        let releaser = self.requester();
        let statement = DenyStatement {
            network: NETWORK,
            task: self.task.id,
            attempt: self.record().attempt,
            evidence: None,
            reasons: vec![refusal(Party::Node, "evidence.bad")],
            retry,
            decided_at: UnixTime(START.0 + u64::from(self.salt)),
            releaser: releaser.public_key(),
        };
        self.step(&releaser, Step::Deny(Arc::new(Envelope::sign(statement, &releaser).unwrap())))
    }

    fn report(&self, author: ReportAuthor, outcome: Outcome, change: impl FnOnce(&mut ReportPredicate)) -> Command {
        let node = self.node();
        let record = self.record();
        let mut predicate = ReportPredicate {
            author,
            signer: node.public_key(),
            network: NETWORK,
            task: self.task.id,
            spec: self.task.spec.digest(),
            node: Some(record.node),
            attempt: Some(record.attempt),
            lease: Some(record.lease.digest()),
            evidence: record.evidence.as_ref().map(|kept| kept.digest),
            grant: record.grant.as_ref().map(|kept| kept.digest),
            engine: None,
            workload: None,
            inputs: vec![Digest([self.salt; 32])],
            outcome,
            output_secret: None,
            outputs: Vec::new(),
            sealed_details: None,
            sandbox: Vec::new(),
            resumed: None,
        };
        change(&mut predicate);
        let report = Envelope::sign(Report::new(predicate), &node).unwrap();
        let statement = AgentStatement {
            network: NETWORK,
            task: self.task.id,
            attempt: record.attempt,
            node: record.node,
            report: report.digest(),
            exit: ExitStatus::Exited { code: 0 },
            started_at: START,
            ended_at: START,
            resources: sealed(),
            agent: node.public_key(),
        };
        let agent_statement =
            (author == ReportAuthor::Task).then(|| Arc::new(Envelope::sign(statement, &node).unwrap()));
        self.step(&node, Step::Report { report: Arc::new(report), agent_statement, closing_evidence: None })
    }

    /// Checkpoint number `count` of the attempt.
    fn checkpoint(&self, count: u32) -> Command {
        let node = self.node();
        let record = self.record();
        let statement = CheckpointStatement {
            network: NETWORK,
            task: self.task.id,
            spec: self.task.spec.digest(),
            attempt: record.attempt,
            lease: record.lease.digest(),
            node: record.node,
            checkpoint: CheckpointId {
                sequence: u64::from(record.attempt.0) << 32 | u64::from(count),
                digest: Digest([self.salt; 32]),
            },
            signer: key(50).public_key(),
        };
        let signed = Envelope::sign(statement, &key(50)).unwrap();
        self.step(&node, Step::Checkpoint(Arc::new(signed)))
    }

    fn refuse_checkpoint(&self, code: &'static str) -> Command {
        self.report(ReportAuthor::Task, Outcome::Failed { refusal: refusal(Party::Node, code) }, |_| {})
    }

    fn complete(&self) -> Command {
        self.report(ReportAuthor::Task, Outcome::Completed, |_| {})
    }

    fn fail(&self, author: ReportAuthor, party: Party) -> Command {
        self.report(author, Outcome::Failed { refusal: refusal(party, "test.failed") }, |_| {})
    }

    fn cancel(&self) -> Command {
        let requester = self.requester();
        let statement = CancelStatement {
            network: NETWORK,
            task: self.task.id,
            spec: self.task.spec.digest(),
            cancelled_at: START,
            requester: requester.public_key(),
        };
        let cancel = Arc::new(Envelope::sign(statement, &requester).unwrap());
        Command::Cancel { peer: requester.public_key(), task: self.task.id, cancel }
    }
}

fn refusal(party: Party, code: &'static str) -> Refusal {
    Refusal::new(party, code, "test", "test")
}

fn hand(task: &Task) -> Hand<'_> {
    Hand { task, salt: 7 }
}

/// A bench whose task 1 has taken the first `steps` of: lease, challenge, evidence, release, grant.
fn until(steps: usize) -> Bench {
    until_with(steps, |_| {})
}

/// The same with another spec.
fn until_with(steps: usize, change: impl FnOnce(&mut TaskSpec)) -> Bench {
    let mut bench = Bench::new();
    bench.submit(1, 1, change);
    if steps > 0 {
        bench.offer(10, 1);
    }
    let commands: [fn(&Hand<'_>) -> Command; 4] = [
        |hand| hand.challenge(),
        |hand| hand.evidence(),
        |hand| hand.release(|_| {}),
        |hand| hand.grant(b"result", |_| {}),
    ];
    for command in commands.iter().take(steps.saturating_sub(1)) {
        let task = bench.task(1);
        bench.ok(command(&hand(&task)));
    }
    bench
}

#[test]
fn each_step_comes_next_once_and_again_without_change() {
    type Make = fn(&Hand<'_>) -> Command;
    let steps: [(usize, Make, TaskState); 5] = [
        (1, |hand| hand.challenge(), TaskState::Challenged),
        (2, |hand| hand.evidence(), TaskState::Attested),
        (3, |hand| hand.release(|_| {}), TaskState::Released),
        (4, |hand| hand.grant(b"result", |_| {}), TaskState::Granted),
        (5, |hand| hand.complete(), TaskState::Completed),
    ];
    for (needs, make, reaches) in steps {
        for reached in 1..=5 {
            let mut bench = until(reached);
            let task = bench.task(1);
            let command = make(&hand(&task));
            if reached == needs {
                assert_eq!(bench.ok(command.clone()).unwrap().state(), reaches);
                let (before, count) = (bench.fingerprint(), bench.events.len());
                assert_eq!(bench.ok(command).unwrap().state(), reaches, "a replay gets the same answer");
                assert_eq!((bench.fingerprint(), bench.events.len()), (before, count), "a replay changes nothing");
                let different = make(&Hand { task: &task, salt: 8 });
                let code = if reaches == TaskState::Completed { "lease.fenced" } else { "attempt.conflict" };
                bench.refused(different, code);
            } else if reached < needs {
                assert!(bench.try_run(command).is_err(), "step {needs} at {reached}");
            }
            bench.check();
        }
    }
}

#[test]
fn statements_that_do_not_belong_are_refused() {
    let mut bench = until(3);
    let task = bench.task(1);
    let hand_ = hand(&task);
    let wrong: [fn(&mut ReleaseStatement); 9] = [
        |s| s.task = TaskId([9; 16]),
        |s| s.attempt = Attempt(2),
        |s| s.network = NetworkId([9; 32]),
        |s| s.node = NodeId(PublicKey([9; 32])),
        |s| s.spec = Digest([9; 32]),
        |s| s.lease = Digest([9; 32]),
        |s| s.challenge = Challenge([9; 32]),
        |s| s.evidence = Digest([9; 32]),
        |s| s.policy = Digest([9; 32]),
    ];
    for change in wrong {
        bench.refused(hand_.release(change), "statement.mismatch");
    }
    let mut bench = until(4);
    let task = bench.task(1);
    let hand_ = hand(&task);
    let wrong: [fn(&mut Grant); 5] = [
        |s| s.release = Digest([9; 32]),
        |s| s.release_index += 1,
        |s| s.evidence = Digest([9; 32]),
        |s| s.lease = Digest([9; 32]),
        |s| s.policy = Digest([9; 32]),
    ];
    for change in wrong {
        bench.refused(hand_.grant(b"result", change), "statement.mismatch");
    }
    bench.refused(hand_.grant(b"other result", |_| {}), "statement.mismatch");
    let mut bench = until(5);
    let task = bench.task(1);
    let hand_ = hand(&task);
    let wrong: [fn(&mut ReportPredicate); 5] = [
        |s| s.grant = None,
        |s| s.evidence = Some(Digest([9; 32])),
        |s| s.spec = Digest([9; 32]),
        |s| s.lease = None,
        |s| s.node = None,
    ];
    for change in wrong {
        bench.refused(hand_.report(ReportAuthor::Task, Outcome::Completed, change), "statement.mismatch");
    }
    for author in [ReportAuthor::Releaser, ReportAuthor::Coordinator] {
        bench.refused(hand_.fail(author, Party::Node), "statement.mismatch");
    }
    bench.refused(hand_.report(ReportAuthor::Agent, Outcome::Completed, |_| {}), "statement.mismatch");
    bench.refused(hand_.deny(true), "attempt.wrong-state");
}

#[test]
fn identities_are_held_to_their_roles() {
    let mut bench = until(5);
    let task = bench.task(1);
    let hand_ = hand(&task);
    for command in
        [hand_.challenge(), hand_.evidence(), hand_.release(|_| {}), hand_.grant(b"result", |_| {}), hand_.complete()]
    {
        let Command::Step { task, attempt, step, .. } = command else { panic!() };
        let stranger = key(99).public_key();
        bench.refused(Command::Step { peer: stranger, task, attempt, step: step.clone() }, "identity.forbidden");
        let unknown = TaskId([77; 16]);
        bench.refused(Command::Step { peer: stranger, task: unknown, attempt, step: step.clone() }, "task.unknown");
        bench.refused(Command::Step { peer: stranger, task, attempt: Attempt(4), step }, "attempt.unknown");
    }
    let Command::Cancel { task, cancel, .. } = hand_.cancel() else { panic!() };
    bench.refused(Command::Cancel { peer: key(2).public_key(), task, cancel }, "task.unknown");
}

#[test]
fn the_queue_is_by_sensitivity_then_age_and_avoids_the_node_that_failed() {
    let mut bench = Bench::new();
    bench.submit(1, 1, |spec| spec.sensitivity = Sensitivity::Public);
    bench.submit(2, 1, |_| {});
    bench.submit(3, 2, |spec| spec.sensitivity = Sensitivity::Confidential);
    bench.submit(4, 2, |_| {});
    let order: Vec<u8> = bench.tasks.queued().map(|id| id.0[0]).collect();
    assert_eq!(order, [3, 2, 4, 1]);
    bench.offer(10, 1);
    assert_eq!(bench.task(3).live().unwrap().node, node_id(10));
    bench.offer(10, 4);
    assert_eq!(bench.tasks.queued().count(), 0);
    let task = bench.task(3);
    bench.offer(10, 1);
    bench.offer(11, 1);
    bench.ok(hand(&task).fail(ReportAuthor::Agent, Party::Node));
    assert_eq!(bench.task(3).live().unwrap().node, node_id(11), "another node is free");
    let task = bench.task(3);
    bench.ok(hand(&task).fail(ReportAuthor::Agent, Party::Node));
    assert_eq!(bench.task(3).live().unwrap().node, node_id(10));
    bench.check();
}

#[test]
fn places_that_leases_have_filled_are_not_given_twice() {
    let mut bench = Bench::new();
    bench.submit(1, 1, |_| {});
    bench.submit(2, 1, |_| {});
    bench.submit(3, 1, |_| {});
    bench.offer(10, 1);
    // The node asks again before it saw its lease: one place is still one place.
    bench.ok(Command::Offer {
        node: node_id(10),
        offer: Offer { boot: boot(10), poll: 2, free_places: 1, holds: Arc::from([]), unclean: false },
        seen: 0,
    });
    assert_eq!(bench.tasks.queued().count(), 2);
    bench.offer(10, 1);
    assert_eq!(bench.tasks.queued().count(), 1);
}

#[test]
fn a_policy_is_met_or_the_task_waits() {
    let mut bench = Bench::new();
    bench.submit(1, 1, |spec| {
        spec.policy = Policy::new(starminer_verify::PolicyFields {
            minimum_tier: Tier::Hardened,
            ..Policy::confidential().fields().clone()
        })
        .unwrap();
    });
    bench.submit(2, 1, |_| {});
    bench.offer(10, 2);
    assert_eq!(bench.task(1).state(), TaskState::Queued);
    assert_eq!(bench.task(2).state(), TaskState::Leased);
    let simulated = Standing {
        simulated_root: Some(starminer_verify::SimulatedRootId::SoftwareTee(PublicKey([5; 32]))),
        ..standing()
    };
    assert!(!simulated.suits(&Policy::confidential(), bench.now), "a simulated root that the policy does not name");
    let (now, later) = (Now { wall: START, mono_ms: 0 }, Now { wall: START, mono_ms: 10 });
    let expires = Standing { valid_until_ms: 10, ..standing() };
    assert!(expires.suits(&Policy::confidential(), now) && !expires.suits(&Policy::confidential(), later));
    let ended = Standing { valid_until: UnixTime(0), ..standing() };
    assert!(!ended.suits(&Policy::confidential(), now));
}

#[test]
fn limits_hold() {
    let mut bench = Bench::new();
    for task in 1..=3 {
        bench.submit(task, 1, |_| {});
    }
    bench.refused(Command::Submit { spec: spec(4, 1, |_| {}), deposit: None }, "task.too-many-open");
    bench.submit(4, 2, |_| {});
    bench.submit(5, 2, |_| {});
    bench.refused(Command::Submit { spec: spec(6, 2, |_| {}), deposit: None }, "queue.full");
    let again = bench.ok(Command::Submit { spec: spec(1, 1, |_| {}), deposit: None }).unwrap();
    assert_eq!(again.version, bench.task(1).version, "a replay is not another task");
    bench.refused(Command::Submit { spec: spec(1, 1, |spec| spec.max_attempts = 2), deposit: None }, "task.conflict");
    bench.refused(
        Command::Admit { node: node_id(20), evidence: Digest([0; 32]), standing: standing() },
        "node.too-many",
    );
}

#[test]
fn waits_end_and_a_clock_that_jumps_ends_nothing_early() {
    for (steps, wait, ends) in [
        (1, WAITS.releaser_ms, Some("releaser.silent")),
        (2, WAITS.node_ms, None),
        (3, WAITS.releaser_ms, Some("releaser.silent")),
        (4, WAITS.releaser_ms, Some("releaser.silent")),
        (5, 400 + WAITS.report_margin_ms, None),
    ] {
        let mut bench = until(steps);
        // The wall clock jumps by half a minute; less than a wait has passed.
        bench.now.wall = bench.now.wall.saturating_add_millis(30_000);
        bench.pass(wait - 1);
        assert!(bench.task(1).live().is_some(), "step {steps}");
        // And back: the log's time does not.
        bench.now.wall = START;
        bench.pass(1);
        let task = bench.task(1);
        assert!(task.live().is_none(), "step {steps}");
        match (ends, &task.ending) {
            (Some(code), Some(Ending::Failed(refusal))) => assert_eq!(refusal.check(), code),
            (None, None) => assert_eq!(task.state(), TaskState::Queued),
            other => panic!("step {steps}: {other:?}"),
        }
        bench.check();
    }
}

#[test]
fn a_spec_expires_until_it_is_granted() {
    for steps in 0..=5 {
        let mut bench = until(steps);
        bench.now.wall = UnixTime(START.0 + 100_000);
        bench.pass(0);
        let failed =
            matches!(&bench.task(1).ending, Some(Ending::Failed(refusal)) if refusal.check() == "spec.expired");
        assert_eq!(failed, steps < 5, "step {steps}");
        bench.check();
    }
    let mut bench = until(3);
    bench.now.wall = UnixTime(START.0 + 100_000);
    let task = bench.task(1);
    bench.refused(hand(&task).release(|_| {}), "spec.expired");
}

#[test]
fn ended_tasks_are_forgotten_and_their_answers_stay() {
    let mut bench = until(5);
    let granted = bench.task(1);
    let report = hand(&granted).complete();
    bench.ok(report.clone());
    let ended = bench.task(1);
    assert!(ended.attempts[0].grant.as_ref().unwrap().body.is_none(), "bodies go with the attempt");
    assert!(bench.tasks.forget(0).is_empty());
    assert_eq!(bench.tasks.forget(1), [TaskId([1; 16])]);
    bench.tasks.check_indexes();
    let Command::Step { peer, attempt, step, .. } = report else { panic!() };
    assert!(Tasks::decide(&ended, peer, attempt, step, bench.now, false).unwrap().is_none());
}

fn keeps_state(spec: &mut TaskSpec) {
    spec.limits.state_bytes = 1 << 20;
}

#[test]
fn a_checkpoint_is_logged_once_in_order_and_gives_nobody_more_time() {
    let mut bench = until_with(5, keeps_state);
    let task = bench.task(1);
    bench.ok(hand(&task).checkpoint(2));
    let events = bench.events.len();
    bench.ok(hand(&task).checkpoint(2));
    assert_eq!(bench.events.len(), events, "the same again is no news");
    bench.refused(Hand { salt: 8, ..hand(&task) }.checkpoint(2), "checkpoint.not-newer");
    bench.refused(hand(&task).checkpoint(1), "checkpoint.not-newer");
    let (_, event) = bench.events.last().unwrap();
    assert_eq!(event.kind(), EntryKind::Checkpointed);
    bench.pass(300);
    bench.ok(hand(&task).checkpoint(3));
    assert_eq!(bench.task(1).checkpoint.as_ref().unwrap().checkpoint.sequence, 1 << 32 | 3);
    // The report was waited for since the grant.
    bench.pass(400 + WAITS.report_margin_ms - 300);
    assert!(bench.task(1).live().is_none());
    bench.refused(hand(&task).checkpoint(4), "lease.fenced");
    bench.check();

    let mut early = until_with(4, keeps_state);
    let task = early.task(1);
    early.refused(hand(&task).checkpoint(1), "attempt.wrong-state");
    let mut without = until(5);
    let task = without.task(1);
    without.refused(hand(&task).checkpoint(1), "checkpoint.too-many");
}

#[test]
fn the_log_takes_so_many_checkpoints_of_a_task() {
    let mut bench = until_with(5, keeps_state);
    let task = bench.task(1);
    let share = u32::try_from(MAX_CHECKPOINTS_LOGGED / 8).unwrap();
    for count in 1..=share {
        bench.ok(hand(&task).checkpoint(count));
    }
    bench.refused(hand(&task).checkpoint(share + 1), "checkpoint.too-many");
    // The next attempt has room of its own.
    bench.ok(Command::NodeLost { node: node_id(10) });
    bench.return_with(10, 100, &[1], true);
    let grant = |bench: &Bench| hand(&bench.task(1)).grant(b"result", |_| {});
    let steps: [fn(&Hand<'_>) -> Command; 3] =
        [|hand| hand.challenge(), |hand| hand.evidence(), |hand| hand.release(|_| {})];
    for step in steps {
        let task = bench.task(1);
        bench.ok(step(&hand(&task)));
    }
    let granting = grant(&bench);
    bench.ok(granting);
    let task = bench.task(1);
    bench.ok(hand(&task).checkpoint(1));
    assert_eq!(bench.task(1).checkpoints.len(), 65);
    bench.restart();
    assert_eq!(bench.task(1).checkpoints.len(), 65);
    bench.check();
}

#[test]
fn a_grant_names_no_checkpoint_that_the_log_does_not_have() {
    let mut bench = until_with(4, keeps_state);
    let task = bench.task(1);
    let least = LeastCheckpoint {
        checkpoint: CheckpointId { sequence: 1 << 32 | 1, digest: Digest([1; 32]) },
        statement: Digest([2; 32]),
        node: node_id(10),
    };
    bench.refused(hand(&task).grant(b"result", |grant| grant.resume = Some(least)), "statement.mismatch");
    bench.ok(hand(&task).grant(b"result", |_| {}));
}

#[test]
fn a_node_s_word_that_it_holds_a_checkpoint_counts_if_it_ever_could() {
    // One that was never granted the task does not take it from the one that was.
    let mut bench = until_with(5, |spec| {
        keeps_state(spec);
        spec.max_attempts = 5;
    });
    let task = bench.task(1);
    bench.ok(hand(&task).checkpoint(1));
    bench.ok(Command::NodeLost { node: node_id(10) });
    bench.return_with(11, 11, &[1], false);
    assert_eq!(bench.task(1).state(), TaskState::Queued, "the holder is waited for");
    bench.return_with(10, 100, &[1], true);
    assert_eq!(bench.task(1).live().unwrap().node, node_id(10));
    // One that gives up without having come further is no better than others.
    bench.offer(11, 1);
    let task = bench.task(1);
    bench.ok(hand(&task).fail(ReportAuthor::Agent, Party::Node));
    bench.return_with(10, 101, &[1], false);
    assert_eq!(bench.task(1).live().unwrap().node, node_id(11));
    // Nor does the refusal of one that never had it speak for the one that has.
    let task = bench.task(1);
    let steps: [fn(&Hand<'_>) -> Command; 3] =
        [|hand| hand.challenge(), |hand| hand.evidence(), |hand| hand.release(|_| {})];
    for step in steps {
        let task = bench.task(1);
        bench.ok(step(&hand(&task)));
    }
    assert_eq!(task.holder(), Some(node_id(10)));
    let task = bench.task(1);
    bench.ok(hand(&task).grant(b"result", |_| {}));
    let task = bench.task(1);
    bench.ok(hand(&task).refuse_checkpoint("checkpoint.missing"));
    assert_eq!(bench.task(1).holder(), Some(node_id(10)));
    bench.check();
}

#[test]
fn a_node_that_comes_no_further_is_not_waited_for() {
    let many = |spec: &mut TaskSpec| {
        keeps_state(spec);
        spec.max_attempts = 6;
    };
    let start = || {
        let mut bench = until_with(5, many);
        let task = bench.task(1);
        bench.ok(hand(&task).checkpoint(1));
        bench
    };
    // Whether it says why it ended or not.
    let mut silent = start();
    for boot in [100, 101] {
        silent.ok(Command::NodeLost { node: node_id(10) });
        silent.return_with(10, boot, &[1], true);
        assert_eq!(silent.task(1).live().unwrap().node, node_id(10));
    }
    silent.ok(Command::NodeLost { node: node_id(10) });
    silent.offer(11, 1);
    assert_eq!(silent.task(1).live().unwrap().node, node_id(11));
    silent.check();
    // One whose disk is full does not get the task back while there is another.
    let mut full = start();
    let task = full.task(1);
    full.offer(11, 1);
    let outcome = Outcome::Failed { refusal: refusal(Party::Storage, "node.storage-full") };
    full.ok(hand(&task).report(ReportAuthor::Task, outcome, |_| {}));
    assert_eq!(full.task(1).live().unwrap().node, node_id(11));
    full.check();
    // What was refused is not asked for again after another node has failed.
    let mut refused = start();
    let task = refused.task(1);
    refused.offer(11, 1);
    refused.ok(hand(&task).refuse_checkpoint("checkpoint.damaged"));
    let task = refused.task(1);
    assert_eq!((task.live().unwrap().node, task.holder()), (node_id(11), None));
    refused.ok(hand(&task).fail(ReportAuthor::Agent, Party::Node));
    assert_eq!(refused.task(1).holder(), None);
    refused.check();
}

#[test]
fn a_disk_that_fills_up_under_a_task_ends_the_attempt_alone() {
    let mut bench = until_with(5, keeps_state);
    let task = bench.task(1);
    bench.ok(hand(&task).checkpoint(1));
    let full = Outcome::Failed { refusal: refusal(Party::Node, "node.storage-full") };
    bench.ok(hand(&task).report(ReportAuthor::Task, full, |_| {}));
    let task = bench.task(1);
    assert!(task.ending.is_none() && task.checkpoint.is_some());
    bench.check();
}

#[test]
fn the_node_that_has_the_checkpoint_is_waited_for_and_gets_the_task() {
    let mut bench = until_with(5, keeps_state);
    let task = bench.task(1);
    bench.ok(hand(&task).checkpoint(1));
    bench.ok(Command::NodeLost { node: node_id(10) });
    bench.offer(11, 4);
    assert_eq!(bench.task(1).state(), TaskState::Queued, "another node does not get it yet");
    bench.restart();
    bench.offer(11, 4);
    bench.return_with(10, 100, &[1], true);
    assert_eq!(bench.task(1).live().unwrap().node, node_id(10));
    bench.check();

    // One that went and came back at once: the restart ends the attempt, and the same poll takes the next.
    let mut bench = until_with(5, keeps_state);
    bench.offer(11, 4);
    bench.return_with(10, 100, &[1], true);
    let task = bench.task(1);
    assert_eq!((task.attempts.len(), task.live().unwrap().node), (2, node_id(10)));
    assert_eq!(task.attempts[0].refusal.as_ref().unwrap().check(), "node.unclean-restart");

    // One that never returns, and one that returns with nothing, leave it to others.
    for returns in [false, true] {
        let mut bench = until_with(5, keeps_state);
        let task = bench.task(1);
        bench.ok(hand(&task).checkpoint(1));
        bench.ok(Command::NodeLost { node: node_id(10) });
        bench.offer(11, 4);
        if returns {
            bench.return_with(10, 100, &[], true);
        } else {
            bench.pass(WAITS.resume_ms - 1);
            assert_eq!(bench.task(1).state(), TaskState::Queued);
            bench.pass(1);
        }
        assert_eq!(bench.task(1).live().unwrap().node, node_id(11), "returns: {returns}");
        bench.check();
    }
}

#[test]
fn a_refused_checkpoint_ends_its_attempt_alone_and_the_log_says_of_whom() {
    let mut bench = until_with(5, keeps_state);
    let task = bench.task(1);
    bench.ok(hand(&task).checkpoint(1));
    bench.ok(hand(&task).refuse_checkpoint("checkpoint.rolled-back"));
    let (_, event) = bench.events.last().unwrap();
    let entry = event.entry(&NETWORK);
    assert_eq!(
        (entry.kind, entry.why.as_deref(), entry.ends),
        (EntryKind::Reported, Some("checkpoint.rolled-back"), false)
    );
    assert_eq!(entry.node, Some(LogEntry::node_pseudonym(&NETWORK, &node_id(10))));
    // What it holds is not asked for again, and nobody is waited for.
    bench.return_with(10, 10, &[1], false);
    bench.check();
    let mut other = until_with(5, keeps_state);
    let task = other.task(1);
    other.ok(hand(&task).checkpoint(1));
    other.offer(11, 1);
    other.ok(hand(&task).refuse_checkpoint("checkpoint.damaged"));
    assert_eq!(other.task(1).live().unwrap().node, node_id(11));

    let mut last = until_with(5, |spec| {
        keeps_state(spec);
        spec.max_attempts = 1;
    });
    let task = last.task(1);
    last.ok(hand(&task).refuse_checkpoint("checkpoint.missing"));
    assert!(matches!(&last.task(1).ending, Some(Ending::Failed(refusal)) if refusal.check() == "checkpoint.missing"));
}

/// What a random party does.
#[derive(Debug, Clone)]
enum Act {
    Submit(u8, u8),
    Offer(u8, u32),
    Withdraw(u8),
    Lost(u8),
    Reboot(u8, u32),
    Step(u8, u8, u8),
    Cancel(u8),
    Pass(u64),
    Jump(u64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => (1u8..6, 1u8..3).prop_map(|(task, requester)| Act::Submit(task, requester)),
        5 => (10u8..13, 0u32..3).prop_map(|(node, places)| Act::Offer(node, places)),
        1 => (10u8..13).prop_map(Act::Withdraw),
        1 => (10u8..13).prop_map(Act::Lost),
        1 => (10u8..13, 0u32..3).prop_map(|(node, places)| Act::Reboot(node, places)),
        20 => (1u8..6, 0u8..10, 0u8..2).prop_map(|(task, step, salt)| Act::Step(task, step, salt)),
        1 => (1u8..6).prop_map(Act::Cancel),
        3 => (0u64..700).prop_map(Act::Pass),
        1 => (0u64..200_000).prop_map(Act::Jump),
    ]
}

/// What becomes of a batch.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Committed,
    RolledBack,
    CommittedThenRestart,
    Restart,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        12 => Just(Fate::Committed),
        2 => Just(Fate::RolledBack),
        1 => Just(Fate::CommittedThenRestart),
        1 => Just(Fate::Restart),
    ]
}

fn command(bench: &Bench, act: &Act) -> Option<Command> {
    let known = |task: u8| bench.tasks.task(&TaskId([task; 16])).cloned();
    let leased = |task: u8| known(task).filter(|task| !task.attempts.is_empty());
    let seen = bench.tasks.known().map(|task| task.version).max().unwrap_or(0);
    Some(match act {
        Act::Submit(task, requester) => {
            let change = |spec: &mut TaskSpec| spec.limits.state_bytes = u64::from(task % 2) << 20;
            Command::Submit { spec: spec(*task, *requester, change), deposit: None }
        }
        Act::Offer(node, free_places) => Command::Offer {
            node: node_id(*node),
            offer: Offer {
                boot: boot(*node),
                poll: 1,
                free_places: *free_places,
                holds: Arc::from([]),
                unclean: false,
            },
            seen,
        },
        Act::Reboot(node, free_places) => Command::Offer {
            node: node_id(*node),
            offer: Offer {
                boot: boot(*node + 100),
                poll: 2,
                free_places: *free_places,
                holds: Arc::from([]),
                unclean: false,
            },
            seen,
        },
        Act::Withdraw(node) => Command::Withdraw { node: node_id(*node), poll: 1 },
        Act::Lost(node) => Command::NodeLost { node: node_id(*node) },
        Act::Cancel(task) => hand(&*leased(*task)?).cancel(),
        Act::Step(task, step, salt) => {
            let task = leased(*task)?;
            let hand = Hand { task: &task, salt: *salt };
            match step {
                0 => hand.challenge(),
                1 => hand.evidence(),
                2 => hand.release(|_| {}),
                3 => hand.grant(b"result", |_| {}),
                4 => hand.deny(*salt == 0),
                5 => hand.fail(ReportAuthor::Agent, Party::Node),
                6 => hand.fail(ReportAuthor::Task, Party::Workload),
                7 => hand.checkpoint(u32::try_from(task.checkpoints.len()).unwrap() + 1),
                8 if *salt == 0 => hand.refuse_checkpoint("checkpoint.missing"),
                _ => hand.complete(),
            }
        }
        Act::Pass(_) | Act::Jump(_) => Command::Tick,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    /// Random commands in batches that are committed, rolled back, or cut off by a restart: state is always the fold of what was
    /// committed, and every task ends exactly once.
    #[test]
    fn random_lives(batches in proptest::collection::vec((proptest::collection::vec(act(), 1..6), fate()), 1..40)) {
        let mut bench = Bench::new();
        for (acts, fate) in &batches {
            let before = bench.fingerprint();
            for act in acts {
                match act {
                    Act::Pass(ms) => {
                        bench.now = Now { wall: bench.now.wall.saturating_add_millis(*ms), mono_ms: bench.now.mono_ms + ms };
                    }
                    Act::Jump(to) => bench.now.wall = UnixTime(START.0 + to),
                    _ => {}
                }
                if let Some(command) = command(&bench, act) {
                    let _ = bench.try_run(command);
                }
            }
            match fate {
                Fate::Committed => bench.commit(),
                Fate::CommittedThenRestart => {
                    bench.commit();
                    bench.restart();
                }
                Fate::RolledBack => {
                    bench.tasks.rollback();
                    prop_assert_eq!(bench.fingerprint(), before);
                }
                Fate::Restart => bench.restart(),
            }
            bench.tasks.check_indexes();
            bench.check();
        }
        // Nobody does anything any more: whatever is open ends.
        bench.now.wall = UnixTime(START.0 + 200_000);
        for _ in 0..4 {
            bench.pass(2_000);
        }
        bench.check();
        prop_assert!(bench.tasks.known().all(|task| task.ending.is_some()));
    }
}

impl Bench {
    fn kinds_after(&self, index: usize) -> Vec<(EntryKind, Option<String>)> {
        let entries = self.events[index..].iter().map(|(_, event)| event.entry(&NETWORK));
        entries.map(|entry| (entry.kind, entry.why)).collect()
    }

    fn admit(&mut self, node: u8, standing: Standing) {
        self.ok(Command::Admit { node: node_id(node), evidence: Digest([node; 32]), standing });
    }
}

#[test]
fn a_node_that_is_suspended_loses_its_leases_and_its_place_and_the_log_says_why() {
    let mut bench = Bench::new();
    bench.submit(1, 1, |_| {});
    bench.offer(10, 3);
    assert_eq!(bench.task(1).live().unwrap().node, node_id(10));
    let from = bench.events.len();
    let refusal = starminer_verify::Refusal::new(Party::Node, "node.pcr-changed", "PCR 7", "start anew");
    bench.ok(Command::Suspend { node: node_id(10), refusal: refusal.clone() });
    assert_eq!(
        bench.kinds_after(from),
        [
            (EntryKind::Suspended, Some("node.pcr-changed".into())),
            (EntryKind::Expired, Some("node.pcr-changed".into()))
        ]
    );
    assert_eq!(bench.events[from].1.statement(), refusal.digest());
    let rows: Vec<_> = bench.events[from..]
        .iter()
        .map(|(index, event)| event.to_row(*index, event.entry(&NETWORK).encode()))
        .collect();
    let back = Event::from_row(&rows[0]).unwrap();
    assert_eq!((back.node, back.statement()), (Some(node_id(10)), refusal.digest()));
    assert_eq!(bench.task(1).state(), TaskState::Queued);

    // Said once; and its offers count for nothing until it is admitted again.
    bench.ok(Command::Suspend { node: node_id(10), refusal });
    bench.offer(10, 3);
    assert_eq!((bench.events.len(), bench.task(1).state()), (from + 2, TaskState::Queued));
    // But for an old state that was put back under it: that is said as well, once.
    let rollback =
        starminer_verify::Refusal::new(Party::Node, super::ROLLED_BACK, "resets 4 and then 3", "go on with the newest");
    bench.ok(Command::Suspend { node: node_id(10), refusal: rollback.clone() });
    bench.ok(Command::Suspend { node: node_id(10), refusal: rollback.clone() });
    bench.ok(Command::Suspend { node: node_id(99), refusal: rollback });
    assert_eq!(bench.kinds_after(from + 2), [(EntryKind::Suspended, Some(super::ROLLED_BACK.into()))]);
    bench.admit(10, standing());
    bench.offer(10, 3);
    assert_eq!(bench.task(1).live().unwrap().node, node_id(10));
    bench.check();
}

#[test]
fn a_node_that_gives_a_task_up_for_its_posture_is_out_before_the_task_is_given_away_again() {
    let mut bench = Bench::new();
    bench.submit(1, 1, |_| {});
    bench.submit(2, 1, |_| {});
    bench.offer(10, 4);
    let (first, second) = (bench.task(1), bench.task(2));
    let from = bench.events.len();
    let code = "node.posture-swap_off";
    let fallen = Outcome::Failed { refusal: refusal(Party::Node, code) };
    bench.ok(hand(&first).report(ReportAuthor::Agent, fallen.clone(), |_| {}));
    let why = || Some(code.to_owned());
    assert_eq!(
        bench.kinds_after(from),
        [(EntryKind::Reported, None), (EntryKind::Suspended, why()), (EntryKind::Expired, why())]
    );
    assert_eq!((bench.task(1).state(), bench.task(2).state()), (TaskState::Queued, TaskState::Queued));
    bench.refused(hand(&second).report(ReportAuthor::Agent, fallen, |_| {}), "lease.fenced");
    bench.admit(10, standing());
    bench.offer(10, 4);
    assert_eq!((bench.task(1).attempts.len(), bench.task(2).attempts.len()), (2, 2));
    bench.check();
}

#[test]
fn a_node_that_is_silent_about_itself_is_taken_out() {
    let mut bench = Bench::new();
    let until = |bench: &Bench, ms| Standing {
        valid_until: bench.now.wall.saturating_add_millis(ms),
        valid_until_ms: bench.now.mono_ms + ms,
        ..standing()
    };
    bench.submit(1, 1, |_| {});
    bench.admit(10, until(&bench, 300));
    bench.offer(10, 1);
    bench.pass(299);
    assert_eq!(bench.task(1).state(), TaskState::Leased);
    // A clock that jumps says nothing of the node.
    for wall in [START.saturating_add_millis(60_000), UnixTime(0)] {
        let right = std::mem::replace(&mut bench.now.wall, wall);
        bench.pass(0);
        bench.now.wall = right;
        assert_eq!(bench.task(1).state(), TaskState::Leased);
    }
    let renewed = until(&bench, 300);
    bench.admit(10, renewed);
    bench.pass(299);
    assert_eq!(bench.task(1).state(), TaskState::Leased);
    let from = bench.events.len();
    bench.pass(1);
    let why = Some("node.attestation-missed".to_owned());
    assert_eq!(bench.kinds_after(from), [(EntryKind::Suspended, why.clone()), (EntryKind::Expired, why)]);
    assert_eq!(bench.task(1).state(), TaskState::Queued);
    bench.pass(1_000);
    assert_eq!(bench.kinds_after(from).iter().filter(|(kind, _)| *kind == EntryKind::Suspended).count(), 1);
    bench.check();
}

#[test]
fn the_log_has_an_admission_when_something_changes_and_once_in_a_while() {
    let mut bench = Bench::new();
    let from = bench.events.len();
    for _ in 0..3 {
        bench.pass(10);
        bench.admit(10, standing());
    }
    assert_eq!(bench.events.len(), from);
    bench.pass(WAITS.unchanged_ms);
    bench.admit(10, standing());
    assert_eq!(bench.events.len(), from + 1);
    bench.admit(10, Standing { tier: Tier::Identified, ..standing() });
    assert_eq!(bench.events.len(), from + 2);
    // Not durable: what was said before it counts again.
    bench.try_run(Command::Suspend { node: node_id(10), refusal: steps_refusal() }).unwrap();
    bench.tasks.rollback();
    bench.admit(10, Standing { tier: Tier::Identified, ..standing() });
    assert_eq!(bench.events.len(), from + 2);
    bench.check();
}

fn steps_refusal() -> starminer_verify::Refusal {
    super::steps::because::attestation_missed()
}

#[test]
fn a_node_whose_tier_falls_loses_what_it_would_not_be_given_any_more() {
    let mut bench = Bench::new();
    bench.submit(1, 1, |_| {});
    bench.submit(2, 2, |spec| {
        let mut fields = spec.policy.fields().clone();
        fields.minimum_tier = Tier::Identified;
        fields.operator_may_read_memory = starminer_verify::OperatorMayReadMemory::Yes;
        spec.policy = Policy::new(fields).unwrap();
    });
    bench.offer(10, 2);
    assert_eq!((bench.task(1).state(), bench.task(2).state()), (TaskState::Leased, TaskState::Leased));
    let from = bench.events.len();
    bench.admit(10, Standing { tier: Tier::Measured, ..standing() });
    assert_eq!(
        bench.kinds_after(from),
        [(EntryKind::Admitted, None), (EntryKind::Expired, Some("node.standing-fell".into()))]
    );
    assert_eq!((bench.task(1).state(), bench.task(2).state()), (TaskState::Queued, TaskState::Leased));
    bench.check();
}
