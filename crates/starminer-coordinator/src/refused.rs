//! Refusals and failures of the API, before they become problem+json at the HTTP edge.

use std::borrow::Cow;

use starminer_receipt::ReferenceError;
use starminer_verify::{Party, Refusal};
use starminer_wire::{Problem, ProblemStatus};

/// Why a request is not carried out: the refusal that the caller sees, with the status that it travels under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The HTTP status.
    pub status: ProblemStatus,
    /// Party, code, reason and remedy.
    pub refusal: Refusal,
    /// After how many milliseconds a retry makes sense, where one does.
    pub retry_after_ms: Option<u64>,
    /// Bytes that are stored already, for an upload at the wrong offset.
    pub stored_bytes: Option<u64>,
}

impl Refused {
    /// A refusal with its status.
    #[must_use]
    pub fn new(status: ProblemStatus, refusal: Refusal) -> Self {
        Self { status, refusal, retry_after_ms: None, stored_bytes: None }
    }

    /// A refusal from its parts.
    #[must_use]
    pub fn of(
        status: ProblemStatus,
        party: Party,
        check: impl Into<Cow<'static, str>>,
        reason: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(status, Refusal::new(party, check, reason, remedy))
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &str {
        self.refusal.check()
    }

    /// Whether a node's own evidence is at fault, and not what somebody else had to bring, nor perhaps this machine's clock: then its admission ends by itself.
    #[must_use]
    pub fn is_of_the_node(&self) -> bool {
        self.refusal.party() == Party::Node
            && !["admission.challenge", "enrolment.unknown", "enrolment.no-credential", "evidence.certificate-dates"]
                .contains(&self.code())
    }

    /// Says when to come again.
    #[must_use]
    pub fn retry_after(mut self, milliseconds: u64) -> Self {
        self.retry_after_ms = Some(milliseconds);
        self
    }

    /// Says how much of an upload is stored.
    #[must_use]
    pub fn stored(mut self, bytes: u64) -> Self {
        self.stored_bytes = Some(bytes);
        self
    }

    /// The body.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let mut problem = Problem::new(self.status, &self.refusal);
        problem.retry_after_ms = self.retry_after_ms;
        problem.stored_bytes = self.stored_bytes;
        problem
    }

    /// 400: the message is not what the endpoint takes.
    #[must_use]
    pub fn malformed(check: &'static str, reason: impl Into<String>) -> Self {
        Self::of(
            ProblemStatus::BadRequest,
            Party::Network,
            check,
            reason,
            "send what specs/api.md says for this endpoint",
        )
    }

    /// 403: another identity may.
    #[must_use]
    pub fn forbidden(reason: impl Into<String>) -> Self {
        Self::of(
            ProblemStatus::Forbidden,
            Party::Network,
            "identity.forbidden",
            reason,
            "connect with the identity key that the statement names",
        )
    }

    /// 404: no such task, or not of this identity.
    #[must_use]
    pub fn task_unknown() -> Self {
        Self::of(
            ProblemStatus::NotFound,
            Party::Requester,
            "task.unknown",
            "no task of this identity has that id",
            "check the task id and the identity key; a task is visible to its requester alone",
        )
    }

    /// 404: the task has no such attempt.
    #[must_use]
    pub fn attempt_unknown() -> Self {
        Self::of(
            ProblemStatus::NotFound,
            Party::Network,
            "attempt.unknown",
            "the task has no such attempt",
            "read the feed again",
        )
    }

    /// 409: a later attempt, or the end of this one, fenced it off.
    #[must_use]
    pub fn fenced() -> Self {
        Self::of(
            ProblemStatus::Conflict,
            Party::Node,
            "lease.fenced",
            "the attempt has ended: its lease expired, was given up, or a later attempt took its place",
            "give the attempt up; nothing of it counts any more",
        )
    }

    /// 409: the step does not come next.
    #[must_use]
    pub fn wrong_state(found: &str, wanted: &str) -> Self {
        Self::of(
            ProblemStatus::Conflict,
            Party::Network,
            "attempt.wrong-state",
            format!("the attempt is {found}; this step needs {wanted}"),
            "read the feed and take the step that comes next",
        )
    }

    /// 409: the step was taken already, with another statement.
    #[must_use]
    pub fn step_conflict(step: &str) -> Self {
        Self::of(
            ProblemStatus::Conflict,
            Party::Network,
            "attempt.conflict",
            format!("another {step} was taken for this attempt"),
            "one statement counts for each step of an attempt; keep the first",
        )
    }

    /// 422: a statement that does not belong to what it was sent for.
    #[must_use]
    pub fn mismatch(party: Party, field: &str) -> Self {
        Self::of(
            ProblemStatus::Refused,
            party,
            "statement.mismatch",
            format!("{field} is not that of this task and attempt"),
            "sign a statement that names the task, attempt, lease and digests as the feed gave them",
        )
    }

    /// 503: not now.
    #[must_use]
    pub fn unavailable(check: &'static str, reason: &'static str, retry_after_ms: u64) -> Self {
        Self::of(ProblemStatus::Unavailable, Party::Coordinator, check, reason, "try again").retry_after(retry_after_ms)
    }

    /// 500: the coordinator failed; details are in its own log alone.
    #[must_use]
    pub fn internal() -> Self {
        Self::of(
            ProblemStatus::Internal,
            Party::Coordinator,
            "coordinator.failed",
            "the coordinator failed at this request",
            "try again; if it stays, tell the coordinator's operator",
        )
    }

    /// 503: storage could not be read or written; nothing was taken.
    #[must_use]
    pub fn storage_failed() -> Self {
        Self::unavailable("storage.failed", "the coordinator's storage failed; nothing was taken", 1000)
    }

    /// 507: the disk is full; nothing was taken.
    #[must_use]
    pub fn storage_full() -> Self {
        Self::of(
            ProblemStatus::StorageFull,
            Party::Coordinator,
            "storage.full",
            "the coordinator's disk is full; nothing was taken",
            "try again later; the coordinator's operator has to make space",
        )
        .retry_after(5000)
    }
}

impl From<ReferenceError> for Refused {
    fn from(error: ReferenceError) -> Self {
        let status = match error {
            ReferenceError::TooLarge => ProblemStatus::TooLarge,
            ReferenceError::Malformed => ProblemStatus::BadRequest,
            ReferenceError::Older { .. } | ReferenceError::Forked(_) => ProblemStatus::Conflict,
            _ => ProblemStatus::Refused,
        };
        Self::of(status, Party::Network, error.code(), error.to_string(), error.remedy())
    }
}

impl From<starminer_receipt::EnvelopeError> for Refused {
    fn from(error: starminer_receipt::EnvelopeError) -> Self {
        Self::of(
            ProblemStatus::Refused,
            Party::Network,
            error.code(),
            error.to_string(),
            "sign the statement that specs/api.md names for this endpoint, with the key that it names",
        )
    }
}
