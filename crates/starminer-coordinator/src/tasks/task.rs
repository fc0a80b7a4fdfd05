//! One task with its attempts, as the fold of its events.

use std::sync::Arc;

use starminer_receipt::{
    CHECKPOINT_CODES, ChallengeStatement, CheckpointStatement, DenyStatement, Grant, Lease, LeastCheckpoint,
    ReleaseStatement, Report, Signed, TaskSpec,
};
use starminer_verify::{Attempt, BootId, Digest, NodeId, PublicKey, Refusal, TaskId, UnixTime};
use starminer_wire::{Deposit, TaskState};

use super::event::{Event, EventBody, ReplayError, Settles};
use crate::clock::Now;

/// What goes wrong on a node's disk while a task runs, as its own process says.
pub(super) const STORAGE_CODES: [&str; 2] = ["node.storage-full", "host.scratch-failed"];

/// A statement of a step: its body is dropped when the attempt has ended, its digest stays so that a replay gets its answer.
#[derive(Debug)]
pub struct Kept<T> {
    /// Digest of the statement.
    pub digest: Digest,
    /// The statement, while somebody may need it.
    pub body: Option<Arc<T>>,
}

impl<T> Clone for Kept<T> {
    fn clone(&self) -> Self {
        Self { digest: self.digest, body: self.body.clone() }
    }
}

impl<T> Kept<Signed<T>> {
    fn whole(statement: &Arc<Signed<T>>) -> Self {
        Self { digest: statement.digest(), body: Some(statement.clone()) }
    }
}

fn strip<T>(kept: &mut Option<Kept<T>>) {
    if let Some(kept) = kept {
        kept.body = None;
    }
}

/// One attempt at a task.
#[derive(Debug, Clone)]
pub struct AttemptRecord {
    /// Its number: the fencing token.
    pub attempt: Attempt,
    /// The node that holds the lease.
    pub node: NodeId,
    /// The agent's start that took it.
    pub boot: BootId,
    /// The lease.
    pub lease: Arc<Signed<Lease>>,
    /// The challenge.
    pub challenge: Option<Kept<Signed<ChallengeStatement>>>,
    /// The evidence's bytes.
    pub evidence: Option<Kept<Vec<u8>>>,
    /// What it is verified with; dropped with it.
    pub endorsements: Option<Arc<Vec<u8>>>,
    /// The report key that the evidence names.
    pub report_key: Option<PublicKey>,
    /// How many of its checkpoints the log has.
    pub checkpoints: usize,
    /// The release.
    pub release: Option<Kept<Signed<ReleaseStatement>>>,
    /// Index of the release in the log.
    pub release_index: Option<u64>,
    /// The grant.
    pub grant: Option<Kept<Signed<Grant>>>,
    /// Digest of the denial.
    pub denial: Option<Digest>,
    /// Digest of the report of this attempt.
    pub report: Option<Digest>,
    /// Whether it is over.
    pub ended: bool,
    /// Why it failed, where it did.
    pub refusal: Option<Refusal>,
    /// One more than the log index of its last change.
    pub version: u64,
    /// One more than the log index of its lease.
    pub leased_version: u64,
    /// When the step under way began, on the monotonic clock of this process. Not part of what events give.
    pub since_ms: u64,
}

impl AttemptRecord {
    /// The step that it has reached; meaningless once it ended.
    #[must_use]
    pub fn state(&self) -> TaskState {
        if self.grant.is_some() {
            TaskState::Granted
        } else if self.release.is_some() {
            TaskState::Released
        } else if self.evidence.is_some() {
            TaskState::Attested
        } else if self.challenge.is_some() {
            TaskState::Challenged
        } else {
            TaskState::Leased
        }
    }

    fn end(&mut self) {
        self.ended = true;
        strip(&mut self.challenge);
        strip(&mut self.evidence);
        self.endorsements = None;
        strip(&mut self.release);
        strip(&mut self.grant);
    }
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// With a report that says completed.
    Completed,
    /// With a report that says failed.
    Failed(Refusal),
    /// By the requester's word; digest of it.
    Cancelled(Digest),
}

/// A task.
#[derive(Debug, Clone)]
pub struct Task {
    /// Its id.
    pub id: TaskId,
    /// What was asked for.
    pub spec: Arc<Signed<TaskSpec>>,
    /// What was left for a broker; dropped when the task ends.
    pub deposit: Option<Arc<Deposit>>,
    /// When it was taken.
    pub submitted_at: UnixTime,
    /// Index of its first entry: its age.
    pub submitted_index: u64,
    /// How many events it had.
    pub steps: u32,
    /// When it last changed.
    pub changed_at: UnixTime,
    /// One more than the log index of its last change.
    pub version: u64,
    /// Its attempts, oldest first.
    pub attempts: Vec<AttemptRecord>,
    /// The newest checkpoint of any attempt; dropped when the task ends.
    pub checkpoint: Option<Arc<Signed<CheckpointStatement>>>,
    /// All that the log has; dropped likewise.
    pub checkpoints: Arc<Vec<LeastCheckpoint>>,
    /// How it ended.
    pub ending: Option<Ending>,
    /// When it ended, on the monotonic clock of this process.
    pub ended_ms: u64,
}

impl Task {
    /// The task that a submission begins.
    ///
    /// # Errors
    /// [`ReplayError::OutOfOrder`] for any other event.
    pub fn begin(event: &Event, index: u64) -> Result<Self, ReplayError> {
        let (Some(id), Some(0), EventBody::Submitted { spec, deposit }) = (event.task, event.step, &event.body) else {
            return Err(ReplayError::OutOfOrder { index });
        };
        Ok(Self {
            id,
            spec: spec.clone(),
            deposit: deposit.clone(),
            submitted_at: event.at,
            submitted_index: index,
            steps: 1,
            changed_at: event.at,
            version: index + 1,
            attempts: Vec::new(),
            checkpoint: None,
            checkpoints: Arc::default(),
            ending: None,
            ended_ms: 0,
        })
    }

    /// Folds one more event. Takes what [`super::Tasks::execute`] made; anything that could not follow is refused.
    ///
    /// # Errors
    /// [`ReplayError::OutOfOrder`].
    pub fn apply(&mut self, event: &Event, index: u64, now: Now) -> Result<(), ReplayError> {
        let out_of_order = ReplayError::OutOfOrder { index };
        if self.ending.is_some() || event.task != Some(self.id) || event.step != Some(self.steps) {
            return Err(out_of_order);
        }
        match &event.body {
            EventBody::Genesis { .. }
            | EventBody::Admitted { .. }
            | EventBody::Enrolled(_)
            | EventBody::Suspended { .. }
            | EventBody::Rules { .. }
            | EventBody::Published { .. }
            | EventBody::Submitted { .. } => {
                return Err(out_of_order);
            }
            EventBody::Leased { lease, boot } => {
                let next = self.attempts.last().map_or(1, |last| last.attempt.0 + 1);
                if self.live().is_some() || lease.attempt.0 != next {
                    return Err(out_of_order);
                }
                self.attempts.push(AttemptRecord {
                    attempt: lease.attempt,
                    node: lease.node,
                    boot: *boot,
                    lease: lease.clone(),
                    challenge: None,
                    evidence: None,
                    endorsements: None,
                    report_key: None,
                    checkpoints: 0,
                    release: None,
                    release_index: None,
                    grant: None,
                    denial: None,
                    report: None,
                    ended: false,
                    refusal: None,
                    version: index + 1,
                    leased_version: index + 1,
                    since_ms: now.mono_ms,
                });
            }
            // No step: what the attempt waits for, and for how long, stays as it was.
            EventBody::Checkpointed(checkpoint) => {
                let live = self.live_mut().filter(|live| Some(live.attempt) == event.attempt).ok_or(out_of_order)?;
                live.version = index + 1;
                live.checkpoints += 1;
                self.checkpoint = Some(checkpoint.clone());
                Arc::make_mut(&mut self.checkpoints).push(LeastCheckpoint {
                    checkpoint: checkpoint.checkpoint,
                    statement: checkpoint.digest(),
                    node: checkpoint.node,
                });
            }
            EventBody::Cancelled(cancel) => {
                if let Some(live) = self.live_mut() {
                    live.end();
                    live.version = index + 1;
                }
                self.end(Ending::Cancelled(cancel.digest()), now);
            }
            EventBody::Reported { report, settles, .. } if event.attempt.is_none() => {
                if *settles == Settles::Attempt {
                    return Err(out_of_order);
                }
                self.end(ending_of(report), now);
            }
            step => {
                // The coordinator's own final report comes after its attempt has ended already.
                let last =
                    self.attempts.last_mut().filter(|last| Some(last.attempt) == event.attempt).ok_or(out_of_order)?;
                last.step(step, index);
                last.version = index + 1;
                last.since_ms = now.mono_ms;
                if let EventBody::Reported { report, settles: Settles::Task, .. } = step {
                    let ending = ending_of(report);
                    self.end(ending, now);
                }
            }
        }
        self.steps += 1;
        self.version = index + 1;
        self.changed_at = event.at;
        Ok(())
    }

    fn end(&mut self, ending: Ending, now: Now) {
        self.ending = Some(ending);
        self.ended_ms = now.mono_ms;
        self.deposit = None;
        self.checkpoint = None;
        self.checkpoints = Arc::default();
    }

    /// The attempt that is under way.
    #[must_use]
    pub fn live(&self) -> Option<&AttemptRecord> {
        self.attempts.last().filter(|last| !last.ended)
    }

    fn live_mut(&mut self) -> Option<&mut AttemptRecord> {
        self.attempts.last_mut().filter(|last| !last.ended)
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> TaskState {
        match (&self.ending, self.live()) {
            (Some(Ending::Completed), _) => TaskState::Completed,
            (Some(Ending::Failed(_)), _) => TaskState::Failed,
            (Some(Ending::Cancelled(_)), _) => TaskState::Cancelled,
            (None, Some(live)) => live.state(),
            (None, None) => TaskState::Queued,
        }
    }

    /// Whether it waits for a node.
    #[must_use]
    pub fn is_queued(&self) -> bool {
        self.ending.is_none() && self.live().is_none()
    }

    /// Who asked.
    #[must_use]
    pub fn requester(&self) -> PublicKey {
        self.spec.requester
    }

    /// The node of the last attempt, where that attempt failed.
    #[must_use]
    pub fn failed_node(&self) -> Option<NodeId> {
        self.attempts.last().filter(|last| last.ended).map(|last| last.node)
    }

    /// The attempts that a node had at this task, the last one first.
    fn attempts_of(&self, node: NodeId) -> impl Iterator<Item = &AttemptRecord> {
        self.attempts.iter().rev().filter(move |attempt| attempt.node == node)
    }

    /// The node that made the newest checkpoint, unless its last attempt failed on what it has.
    #[must_use]
    pub fn holder(&self) -> Option<NodeId> {
        let node = self.checkpoint.as_ref()?.node;
        let refused = |refusal: &Refusal| refusal.check().starts_with(CHECKPOINT_CODES);
        let last = self.attempts_of(node).next()?;
        (!last.refusal.as_ref().is_some_and(refused)).then_some(node)
    }

    /// Whether a node's word counts that it holds a checkpoint of this task, and whether that is worth waiting for: it was granted an attempt, and neither gave its last one up
    /// without having come further, nor for want of storage, nor had two in a row in which it came no further.
    #[must_use]
    pub fn may_be_held_by(&self, node: NodeId) -> bool {
        let granted = self.attempts_of(node).any(|attempt| attempt.grant.is_some());
        let in_vain = |attempt: &AttemptRecord| attempt.ended && attempt.checkpoints == 0;
        let mut own = self.attempts_of(node);
        let Some(last) = own.next() else { return false };
        let lacks_storage = last.refusal.as_ref().is_some_and(|refusal| STORAGE_CODES.contains(&refusal.check()));
        let gave_up = last.report.is_some() && (last.checkpoints == 0 || lacks_storage);
        granted && !gave_up && !(in_vain(last) && own.next().is_some_and(in_vain))
    }

    /// The attempt with this number.
    #[must_use]
    pub fn attempt(&self, attempt: Attempt) -> Option<&AttemptRecord> {
        self.attempts.iter().find(|record| record.attempt == attempt)
    }
}

impl AttemptRecord {
    fn step(&mut self, step: &EventBody, index: u64) {
        match step {
            EventBody::Challenged(challenge) => self.challenge = Some(Kept::whole(challenge)),
            EventBody::Attested { evidence, digest, endorsements, report_key } => {
                self.report_key = *report_key;
                self.evidence = Some(Kept { digest: *digest, body: Some(evidence.clone()) });
                self.endorsements.clone_from(endorsements);
            }
            EventBody::Released(release) => {
                self.release = Some(Kept::whole(release));
                self.release_index = Some(index);
            }
            EventBody::Granted { grant, .. } => self.grant = Some(Kept::whole(grant)),
            EventBody::Denied(denial) => {
                self.denial = Some(denial.digest());
                self.refusal = first_reason(denial);
                self.end();
            }
            EventBody::Reported { report, .. } => {
                self.report = Some(report.digest());
                if let Ending::Failed(refusal) = ending_of(report) {
                    self.refusal = Some(refusal);
                }
                self.end();
            }
            EventBody::Expired { refusal, .. } => {
                self.refusal = Some(refusal.clone());
                self.end();
            }
            // These are not steps of an attempt and were dealt with before.
            EventBody::Genesis { .. }
            | EventBody::Admitted { .. }
            | EventBody::Enrolled(_)
            | EventBody::Suspended { .. }
            | EventBody::Rules { .. }
            | EventBody::Published { .. }
            | EventBody::Submitted { .. }
            | EventBody::Leased { .. }
            | EventBody::Checkpointed(_)
            | EventBody::Cancelled(_) => {}
        }
    }
}

fn ending_of(report: &Signed<Report>) -> Ending {
    match &report.predicate.outcome {
        starminer_receipt::Outcome::Completed => Ending::Completed,
        starminer_receipt::Outcome::Failed { refusal } => Ending::Failed(refusal.clone()),
    }
}

fn first_reason(denial: &Signed<DenyStatement>) -> Option<Refusal> {
    denial.reasons.first().cloned()
}

/// Digest of the cancellation that ended a task.
pub(crate) fn cancellation(task: &Task) -> Option<Digest> {
    match &task.ending {
        Some(Ending::Cancelled(digest)) => Some(*digest),
        _ => None,
    }
}
