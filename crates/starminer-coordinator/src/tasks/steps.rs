//! What each step of an attempt must be to be taken: checks of one statement against one task.
//!
//! Every function answers one question: which event does this statement mean? `Ok(None)` is a replay of a step that was taken.

use std::sync::Arc;

use starminer_receipt::{
    AgentStatement, CancelStatement, ChallengeStatement, CheckpointStatement, DenyStatement, Grant,
    MAX_CHECKPOINTS_LOGGED, Outcome, ReleaseStatement, Report, ReportAuthor, Signed,
};
use starminer_verify::{Attempt, Digest, NodeId, Party, PublicKey, Refusal, is_about_posture};
use starminer_wire::TaskState;

use super::event::{EventBody, Settles, refused_checkpoint};
use super::task::{AttemptRecord, STORAGE_CODES, Task, cancellation};
use crate::refused::Refused;

/// An attempt may have this part of the room that there still is for its task's checkpoints in the log.
const SHARES: usize = 8;

type Step = Result<Option<EventBody>, Refused>;

/// A report with what comes along.
#[derive(Debug, Clone)]
pub struct ReportParts {
    /// The report.
    pub report: Arc<Signed<Report>>,
    /// The agent's statement over it.
    pub agent_statement: Option<Arc<Signed<AgentStatement>>>,
    /// Evidence over it.
    pub closing_evidence: Option<Arc<Vec<u8>>>,
}

/// Every field that must be equal, with its name.
fn linked(party: Party, fields: &[(&str, bool)]) -> Result<(), Refused> {
    match fields.iter().find(|(_, equal)| !equal) {
        Some((field, _)) => Err(Refused::mismatch(party, field)),
        None => Ok(()),
    }
}

/// The attempt, if it can still take a step. A replay of what it took already is answered before this is asked.
fn live(task: &Task, record: &AttemptRecord, wanted: TaskState) -> Result<(), Refused> {
    if record.ended || task.ending.is_some() {
        return Err(Refused::fenced());
    }
    if record.state() != wanted {
        return Err(Refused::wrong_state(record.state().name(), wanted.name()));
    }
    Ok(())
}

pub(super) fn record_of(task: &Task, attempt: Attempt) -> Result<&AttemptRecord, Refused> {
    task.attempt(attempt).ok_or_else(Refused::attempt_unknown)
}

/// Whether the step was taken: by the same statement (a replay), by another one (a conflict), or not at all.
fn taken(step: &str, found: Option<Digest>, offered: Digest) -> Result<bool, Refused> {
    match found {
        Some(found) if found == offered => Ok(true),
        Some(_) => Err(Refused::step_conflict(step)),
        None => Ok(false),
    }
}

pub(super) fn releaser(task: &Task, peer: PublicKey) -> Result<(), Refused> {
    if peer == task.spec.releaser { Ok(()) } else { Err(Refused::forbidden("the spec names another releaser")) }
}

pub(super) fn node(record: &AttemptRecord, peer: PublicKey) -> Result<(), Refused> {
    if NodeId(peer) == record.node { Ok(()) } else { Err(Refused::forbidden("the lease names another node")) }
}

pub(super) fn challenge(task: &Task, record: &AttemptRecord, challenge: Arc<Signed<ChallengeStatement>>) -> Step {
    linked(
        Party::Releaser,
        &[
            ("task", challenge.task == task.id),
            ("attempt", challenge.attempt == record.attempt),
            ("network", challenge.network == task.spec.network),
            ("releaser", challenge.releaser == task.spec.releaser),
            ("lease", challenge.lease == record.lease.digest()),
        ],
    )?;
    if taken("challenge", record.challenge.as_ref().map(|kept| kept.digest), challenge.digest())? {
        return Ok(None);
    }
    live(task, record, TaskState::Leased)?;
    Ok(Some(EventBody::Challenged(challenge)))
}

pub(super) fn evidence(task: &Task, record: &AttemptRecord, digest: Digest, answer: EventBody) -> Step {
    if taken("evidence", record.evidence.as_ref().map(|kept| kept.digest), digest)? {
        return Ok(None);
    }
    live(task, record, TaskState::Challenged)?;
    Ok(Some(answer))
}

pub(super) fn release(task: &Task, record: &AttemptRecord, release: Arc<Signed<ReleaseStatement>>) -> Step {
    linked(
        Party::Releaser,
        &[
            ("task", release.task == task.id),
            ("attempt", release.attempt == record.attempt),
            ("network", release.network == task.spec.network),
            ("releaser", release.releaser == task.spec.releaser),
            ("node", release.node == record.node),
            ("spec", release.spec == task.spec.digest()),
            ("lease", release.lease == record.lease.digest()),
        ],
    )?;
    if taken("release", record.release.as_ref().map(|kept| kept.digest), release.digest())? {
        return Ok(None);
    }
    live(task, record, TaskState::Attested)?;
    let challenge = record.challenge.as_ref().and_then(|kept| kept.body.as_ref());
    linked(
        Party::Releaser,
        &[
            ("challenge", challenge.is_some_and(|challenge| challenge.challenge == release.challenge)),
            (
                "challenge_issued_at",
                challenge.is_some_and(|challenge| challenge.issued_at == release.challenge_issued_at),
            ),
            ("evidence", record.evidence.as_ref().is_some_and(|kept| kept.digest == release.evidence)),
            ("policy", release.policy == task.spec.policy.digest()),
        ],
    )?;
    Ok(Some(EventBody::Released(release)))
}

pub(super) fn grant(
    task: &Task,
    record: &AttemptRecord,
    grant: Arc<Signed<Grant>>,
    attestation_result: Arc<Vec<u8>>,
) -> Step {
    linked(
        Party::Releaser,
        &[
            ("task", grant.task == task.id),
            ("attempt", grant.attempt == record.attempt),
            ("network", grant.network == task.spec.network),
            ("releaser", grant.releaser == task.spec.releaser),
            ("spec", grant.spec == task.spec.digest()),
            ("lease", grant.lease == record.lease.digest()),
        ],
    )?;
    if taken("grant", record.grant.as_ref().map(|kept| kept.digest), grant.digest())? {
        return Ok(None);
    }
    live(task, record, TaskState::Released)?;
    let release = record.release.as_ref().and_then(|kept| kept.body.as_ref()).ok_or_else(Refused::internal)?;
    linked(
        Party::Releaser,
        &[
            ("release", grant.release == release.digest()),
            ("release_index", Some(grant.release_index) == record.release_index),
            ("evidence", grant.evidence == release.evidence),
            ("policy", grant.policy == release.policy),
            ("attestation_result", Digest::of(&attestation_result) == release.attestation_result),
            // A releaser knows none but those that it was shown: an invented one would have a node accused of a rollback.
            ("resume", grant.resume.is_none_or(|least| task.checkpoints.contains(&least))),
        ],
    )?;
    Ok(Some(EventBody::Granted { grant, attestation_result }))
}

pub(super) fn deny(task: &Task, record: &AttemptRecord, denial: Arc<Signed<DenyStatement>>) -> Step {
    linked(
        Party::Releaser,
        &[
            ("task", denial.task == task.id),
            ("attempt", denial.attempt == record.attempt),
            ("network", denial.network == task.spec.network),
            ("releaser", denial.releaser == task.spec.releaser),
        ],
    )?;
    if taken("denial", record.denial, denial.digest())? {
        return Ok(None);
    }
    if record.ended || task.ending.is_some() {
        return Err(Refused::fenced());
    }
    if record.grant.is_some() {
        return Err(Refused::wrong_state(record.state().name(), "no grant yet"));
    }
    let evidence = record.evidence.as_ref().map(|kept| kept.digest);
    linked(Party::Releaser, &[("evidence", denial.evidence.is_none() || denial.evidence == evidence)])?;
    Ok(Some(EventBody::Denied(denial)))
}

/// Whether its signer's evidence is good is the releaser's to judge: here it is one that the node of the attempt brings, signed by the report key that its evidence names, newer than
/// all before, and one of so many.
pub(super) fn checkpoint(task: &Task, record: &AttemptRecord, checkpoint: Arc<Signed<CheckpointStatement>>) -> Step {
    linked(
        Party::Node,
        &[
            ("task", checkpoint.task == task.id),
            ("attempt", checkpoint.attempt == record.attempt),
            ("network", checkpoint.network == task.spec.network),
            ("node", checkpoint.node == record.node),
            ("spec", checkpoint.spec == task.spec.digest()),
            ("lease", checkpoint.lease == record.lease.digest()),
            ("signer", record.report_key == Some(checkpoint.signer)),
        ],
    )?;
    let newest = task.checkpoint.as_ref();
    if newest.is_some_and(|newest| newest.digest() == checkpoint.digest()) {
        return Ok(None);
    }
    live(task, record, TaskState::Granted)?;
    if newest.is_some_and(|newest| newest.checkpoint.sequence >= checkpoint.checkpoint.sequence) {
        return Err(Refused::of(
            starminer_wire::ProblemStatus::Conflict,
            Party::Node,
            "checkpoint.not-newer",
            "the log has a checkpoint of the task that is as new",
            "send the newest checkpoint alone",
        ));
    }
    // Every attempt leaves most of the room to those after it.
    let before = task.checkpoints.len() - record.checkpoints;
    let share = (MAX_CHECKPOINTS_LOGGED.saturating_sub(before) / SHARES).max(1);
    let is_full = record.checkpoints >= share || task.checkpoints.len() >= MAX_CHECKPOINTS_LOGGED;
    if task.spec.limits.state_bytes == 0 || is_full {
        return Err(Refused::of(
            starminer_wire::ProblemStatus::Conflict,
            Party::Node,
            "checkpoint.too-many",
            "the log has as many checkpoints of the attempt as it takes, or the task has no state",
            "keep them on the node alone",
        ));
    }
    Ok(Some(EventBody::Checkpointed(checkpoint)))
}

pub(super) fn report(task: &Task, record: &AttemptRecord, parts: ReportParts, attempts_left: bool) -> Step {
    let predicate = &parts.report.predicate;
    linked(
        Party::Node,
        &[
            ("task", predicate.task == task.id),
            ("attempt", predicate.attempt == Some(record.attempt)),
            ("network", predicate.network == task.spec.network),
            ("node", predicate.node == Some(record.node)),
            ("spec", predicate.spec == task.spec.digest()),
            ("lease", predicate.lease == Some(record.lease.digest())),
            ("author", matches!(predicate.author, ReportAuthor::Task | ReportAuthor::Agent)),
        ],
    )?;
    if record.report == Some(parts.report.digest()) {
        return Ok(None);
    }
    // A report ends its attempt, so another one after it comes too late.
    if record.ended || task.ending.is_some() {
        return Err(Refused::fenced());
    }
    let by_task = predicate.author == ReportAuthor::Task;
    if by_task && record.grant.is_none() {
        return Err(Refused::wrong_state(record.state().name(), TaskState::Granted.name()));
    }
    let optional = |named: Option<Digest>, found: Option<Digest>| {
        if by_task { named == found } else { named.is_none() || named == found }
    };
    linked(
        Party::Node,
        &[
            ("evidence", optional(predicate.evidence, record.evidence.as_ref().map(|kept| kept.digest))),
            ("grant", optional(predicate.grant, record.grant.as_ref().map(|kept| kept.digest))),
            ("outcome", by_task || predicate.outcome != Outcome::Completed),
            ("agent_statement", parts.agent_statement.is_some() || !by_task),
        ],
    )?;
    if let Some(statement) = &parts.agent_statement {
        linked(
            Party::Node,
            &[
                ("agent_statement.task", statement.task == task.id),
                ("agent_statement.attempt", statement.attempt == record.attempt),
                ("agent_statement.network", statement.network == task.spec.network),
                ("agent_statement.node", statement.node == record.node),
                ("agent_statement.report", statement.report == parts.report.digest()),
            ],
        )?;
    }
    // What went wrong on the machine alone may go right on another one.
    let node_failed = !by_task
        && matches!(&predicate.outcome, Outcome::Failed { refusal } if matches!(refusal.party(), Party::Node | Party::Network | Party::Storage));
    let storage_failed =
        matches!(&predicate.outcome, Outcome::Failed { refusal } if STORAGE_CODES.contains(&refusal.check()));
    // Nothing of the task ran, and what was refused is the node's.
    let checkpoint_refused = refused_checkpoint(&parts.report).is_some();
    let settles = if (node_failed || storage_failed || checkpoint_refused) && attempts_left {
        Settles::Attempt
    } else {
        Settles::Task
    };
    let ReportParts { report, agent_statement, closing_evidence } = parts;
    Ok(Some(EventBody::Reported { report, agent_statement, closing_evidence, settles }))
}

/// What an agent gave a task up for, where that is its host's posture.
pub(super) fn fallen_posture(body: &EventBody) -> Option<&Refusal> {
    let EventBody::Reported { report, .. } = body else { return None };
    match &report.predicate.outcome {
        Outcome::Failed { refusal } if report.predicate.author == ReportAuthor::Agent && is_about_posture(refusal) => {
            Some(refusal)
        }
        _ => None,
    }
}

pub(super) fn cancel(task: &Task, cancel: Arc<Signed<CancelStatement>>) -> Step {
    linked(
        Party::Requester,
        &[
            ("task", cancel.task == task.id),
            ("network", cancel.network == task.spec.network),
            ("requester", cancel.requester == task.spec.requester),
            ("spec", cancel.spec == task.spec.digest()),
        ],
    )?;
    if taken("cancellation", cancellation(task), cancel.digest())? {
        return Ok(None);
    }
    if task.ending.is_some() {
        return Err(Refused::of(
            starminer_wire::ProblemStatus::Conflict,
            Party::Requester,
            "task.ended",
            format!("the task is {} already", task.state().name()),
            "nothing is left to cancel",
        ));
    }
    Ok(Some(EventBody::Cancelled(cancel)))
}

/// Why an attempt or task is ended by the coordinator.
pub(super) mod because {
    use super::{Party, Refusal};

    pub fn releaser_silent() -> Refusal {
        Refusal::new(
            Party::Releaser,
            "releaser.silent",
            "whoever may release the task's key did not answer in time",
            "keep the client connected until the result is there, or submit through a broker",
        )
    }

    pub fn node_silent() -> Refusal {
        Refusal::new(
            Party::Node,
            "node.silent",
            "the node did not answer the challenge in time",
            "submit again; the node's operator should look at its log",
        )
    }

    pub fn lease_expired() -> Refusal {
        Refusal::new(
            Party::Node,
            "lease.expired",
            "the lease ended before the node reported",
            "submit again; with a longer wall limit if the task needs more time",
        )
    }

    pub fn node_lost() -> Refusal {
        Refusal::new(
            Party::Node,
            "node.lost",
            "the node went away before it reported",
            "submit again; another node will take it",
        )
    }

    pub fn node_restarted() -> Refusal {
        Refusal::new(
            Party::Node,
            "node.restarted",
            "the node restarted and gave the attempt up",
            "submit again; another node will take it",
        )
    }

    pub fn node_crashed() -> Refusal {
        Refusal::new(
            Party::Node,
            "node.unclean-restart",
            "the node crashed or lost its power, and started anew",
            "submit again; another node will take it, or this one goes on from the task's checkpoint where it keeps a state",
        )
    }

    pub fn attestation_missed() -> Refusal {
        Refusal::new(
            Party::Node,
            "node.attestation-missed",
            "the node did not prove itself again in time",
            "look at the node's log for what its devices or the network said",
        )
    }

    pub fn standing_fell() -> Refusal {
        Refusal::new(
            Party::Node,
            "node.standing-fell",
            "by its newest evidence the node does not suit the task's policy any more",
            "submit again; another node will take it",
        )
    }

    pub fn spec_expired() -> Refusal {
        Refusal::new(
            Party::Requester,
            "spec.expired",
            "the spec expired before the task was done",
            "submit again with a later expiry; see `starminer status` for nodes that meet the policy",
        )
    }
}
