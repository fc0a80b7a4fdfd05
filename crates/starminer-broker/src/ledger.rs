//! The ledger: which challenges are out, which attempts were decided, which were granted.
//!
//! Invariants: one challenge an attempt; one release an attempt, for one evidence; one grant an attempt, whose very bytes are
//! given again when asked again. A ledger rebuilt from its records refuses whatever the one before had refused. A ledger that lost
//! records (rolled back) knows no challenge that it did not issue itself, so old evidence finds nothing to answer.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use starminer_log::{Included, InclusionProof, VerifiedCheckpoint};
use starminer_receipt::{
    Base64Bytes, ChallengeStatement, CheckpointStatement, DenyStatement, EndorsementSet, EntryKind, Envelope,
    EnvelopeError, GRANT_INFO, Grant, Lease, LeastCheckpoint, LogEntry, OpenedSet, ReleaseStatement, SealedSecret,
    Signed, Signer, TaskSpec,
};
use starminer_vault::TaskSecret;
use starminer_verify::{
    Attempt, AttestationResult, Challenge, Context, Decision as Appraised, Digest, Evidence, Expect, Expected,
    ExpectedPurpose, NodeId, Party, PublicKey, Refusal, TaskId, TaskKey, UnixTime, appraise, verify,
};
use zeroize::Zeroizing;

use crate::trust::ReleaserTrust;

/// How long a challenge may be answered.
pub const MAX_CHALLENGE_AGE_MS: u64 = 60_000;
/// Check of a ledger that holds as many tasks as it can.
pub const TOO_MANY_TASKS: &str = "release.too-many-tasks";
/// Most tasks that a ledger holds. Those that have ended stay until their specs expire, as nobody but the coordinator says that they have.
const MAX_TASKS: usize = 1 << 20;
/// How far another party's clock may be ahead of ours.
const MAX_CLOCK_SKEW_MS: u64 = 60_000;

/// One attempt, as its two signed statements describe it.
#[derive(Debug, Clone, Copy)]
pub struct ReleaseContext<'a> {
    /// The requester's spec.
    pub spec: &'a Signed<TaskSpec>,
    /// The coordinator's lease.
    pub lease: &'a Signed<Lease>,
}

/// What must be durable before the step it records is shown to anyone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "kebab-case", deny_unknown_fields)]
pub enum LedgerRecord {
    /// A challenge was issued.
    Challenged {
        /// The signed challenge.
        challenge: Envelope,
    },
    /// Evidence was approved; the challenge is consumed.
    Approved {
        /// The signed release.
        release: Envelope,
        /// The attestation result that it names (EAR JSON).
        attestation_result: Base64Bytes,
        /// The report key that the evidence binds: what signs the attempt's checkpoints.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        report_key: Option<PublicKey>,
    },
    /// A checkpoint is durable on its node.
    Checkpointed {
        /// The signed statement.
        checkpoint: Envelope,
    },
    /// A grant was made.
    Granted {
        /// The signed grant.
        grant: Envelope,
    },
    /// An attempt was denied; its challenge is consumed.
    Denied {
        /// The signed denial.
        denial: Envelope,
    },
}

#[derive(Debug, Clone)]
enum Stage {
    Challenged(Box<Signed<ChallengeStatement>>),
    Approved(Box<Signed<ReleaseStatement>>, Vec<u8>),
    Granted(Box<Signed<Grant>>, Vec<u8>),
    Denied(Box<Signed<DenyStatement>>),
    /// Whatever it was, it is over: nothing is given for this attempt any more, not even again.
    Closed,
}

/// What is held of a task.
#[derive(Debug)]
struct Held {
    attempt: Attempt,
    stage: Stage,
    /// The digest of its spec: the same for all that is ever done for it. Unknown after a replay of challenges and denials alone.
    spec: Option<Digest>,
    /// From then on nothing is done for the task anyway. Unknown after a replay.
    expires_at: Option<UnixTime>,
    /// Whether any attempt of it was ever approved.
    was_approved: bool,
}

/// Challenges, decisions and grants of one releaser. Kept per task: only the newest attempt counts, older ones are fenced off; of those that were
/// approved, who may speak of checkpoints, and the newest of these.
#[derive(Debug, Default)]
pub struct Ledger {
    tasks: BTreeMap<TaskId, Held>,
    checkpoints: BTreeMap<TaskId, Checkpoints>,
}

/// What is known of a task's checkpoints.
#[derive(Debug, Default)]
struct Checkpoints {
    /// The attempts that were approved: as many as a spec allows.
    authors: Vec<(Attempt, Author)>,
    newest: Option<LeastCheckpoint>,
}

/// Whose word counts on the checkpoints of one attempt.
#[derive(Debug, Clone, Copy)]
struct Author {
    report_key: PublicKey,
    node: NodeId,
    spec: Digest,
    lease: Digest,
}

/// Evidence that met the policy, for one attempt. Only [`Ledger::decide`] makes one.
#[derive(Debug, Clone)]
pub struct Approved {
    release: Signed<ReleaseStatement>,
    attestation_result: Vec<u8>,
    result: AttestationResult,
    task_key: TaskKey,
}

impl Approved {
    /// The statement that must go into the log.
    #[must_use]
    pub fn release(&self) -> &Signed<ReleaseStatement> {
        &self.release
    }

    /// The attestation result as EAR JSON: the bytes whose digest the release names.
    #[must_use]
    pub fn attestation_result(&self) -> &[u8] {
        &self.attestation_result
    }

    /// The attestation result.
    #[must_use]
    pub fn result(&self) -> &AttestationResult {
        &self.result
    }

    /// Takes the log's proof that the release is in it.
    ///
    /// # Errors
    /// The entry is not of this release, or the proof does not hold under the checkpoint: the coordinator is at fault.
    pub fn logged(
        self,
        checkpoint: &VerifiedCheckpoint,
        entry: &[u8],
        proof: &InclusionProof,
    ) -> Result<Logged, Refusal> {
        let fault = |check: &'static str, reason: &str| {
            Refusal::new(
                Party::Coordinator,
                check,
                reason,
                "do not grant; keep the checkpoint and report the coordinator",
            )
        };
        let parsed = LogEntry::parse(entry).map_err(|reason| fault("release.entry-malformed", reason))?;
        if parsed.kind != EntryKind::Released
            || parsed.statement != self.release.digest()
            || parsed.task != Some(self.release.task)
            || parsed.attempt != Some(self.release.attempt)
        {
            return Err(fault("release.entry-mismatch", "the log entry is not the one of this release"));
        }
        let included = checkpoint.verify_inclusion(entry, proof).map_err(|error| {
            fault("release.not-logged", &format!("the release entry is not proven to be in the log: {error}"))
        })?;
        Ok(Logged { approved: self, included })
    }
}

/// Approved, and proven to be in the public log. Only [`Approved::logged`] makes one.
#[derive(Debug, Clone)]
pub struct Logged {
    approved: Approved,
    included: Included,
}

/// What a releaser decided.
#[derive(Debug, Clone)]
pub enum Decision {
    /// Release, once the log has it.
    Release(Box<Approved>),
    /// Deny.
    Deny(Box<Signed<DenyStatement>>),
}

impl Ledger {
    /// Rebuilds the ledger from its records, oldest first.
    ///
    /// # Errors
    /// A record whose signature does not verify: the journal was altered.
    pub fn replay(records: impl IntoIterator<Item = LedgerRecord>) -> Result<Self, EnvelopeError> {
        let mut ledger = Self::default();
        ledger.recall(records)?;
        Ok(ledger)
    }

    /// Takes in the records of further tasks, oldest first.
    ///
    /// # Errors
    /// As [`Self::replay`]; what was taken in before the damaged record stays, which only refuses more.
    pub fn recall(&mut self, records: impl IntoIterator<Item = LedgerRecord>) -> Result<(), EnvelopeError> {
        for record in records {
            match record {
                LedgerRecord::Challenged { challenge } => {
                    let challenge = challenge.open::<ChallengeStatement>()?;
                    self.put(challenge.task, challenge.attempt, None, Stage::Challenged(Box::new(challenge)));
                }
                LedgerRecord::Checkpointed { checkpoint } => {
                    // One that did not count then does not count now, and is none the worse for it.
                    let _ = self.take_checkpoint(&checkpoint.open::<CheckpointStatement>()?);
                }
                LedgerRecord::Approved { release, attestation_result, report_key } => {
                    let release = release.open::<ReleaseStatement>()?;
                    self.may_checkpoint(&release, report_key);
                    let (task, attempt, spec) = (release.task, release.attempt, release.spec);
                    self.put(task, attempt, Some(spec), Stage::Approved(Box::new(release), attestation_result.0));
                }
                LedgerRecord::Granted { grant } => {
                    let grant = grant.open::<Grant>()?;
                    // The attestation result stands in the record before; without that, the grant alone is kept.
                    let attestation_result = match self.tasks.remove(&grant.task) {
                        Some(Held { attempt, stage: Stage::Approved(_, result), .. }) if attempt == grant.attempt => {
                            result
                        }
                        _ => Vec::new(),
                    };
                    // Its own record may have come too late to be written.
                    if let Some(named) = grant.resume {
                        let held = self.checkpoints.entry(grant.task).or_default();
                        if held.newest.is_none_or(|newest| newest.checkpoint.sequence < named.checkpoint.sequence) {
                            held.newest = Some(named);
                        }
                    }
                    let spec = Some(grant.spec);
                    self.put(grant.task, grant.attempt, spec, Stage::Granted(Box::new(grant), attestation_result));
                }
                LedgerRecord::Denied { denial } => {
                    let denial = denial.open::<DenyStatement>()?;
                    self.put(denial.task, denial.attempt, None, Stage::Denied(Box::new(denial)));
                }
            }
        }
        Ok(())
    }

    /// What is known of the task stays; what was not is learnt.
    fn put(&mut self, task: TaskId, attempt: Attempt, spec: Option<Digest>, stage: Stage) {
        let approves = matches!(stage, Stage::Approved(..) | Stage::Granted(..));
        let before = self.tasks.remove(&task);
        let known = before.as_ref();
        let held = Held {
            attempt,
            stage,
            spec: known.and_then(|held| held.spec).or(spec),
            expires_at: known.and_then(|held| held.expires_at),
            was_approved: approves || known.is_some_and(|held| held.was_approved),
        };
        self.tasks.insert(task, held);
    }

    /// The same for an attempt of this spec, the first of its task or not.
    fn put_first(&mut self, context: ReleaseContext<'_>, stage: Stage) {
        let (spec, lease) = (context.spec, context.lease);
        let is_new = !self.tasks.contains_key(&lease.task);
        self.put(lease.task, lease.attempt, Some(spec.digest()), stage);
        if is_new && let Some(held) = self.tasks.get_mut(&lease.task) {
            held.expires_at = Some(spec.expires_at);
        }
    }

    fn has_room(&self, task: &TaskId) -> bool {
        self.tasks.len() < MAX_TASKS || self.tasks.contains_key(task)
    }

    /// How far the attempt is. A task has one spec: what the coordinator shows with another changes nothing.
    fn stage(&self, context: ReleaseContext<'_>) -> Result<Option<&Stage>, Refusal> {
        let lease = context.lease;
        let held = self.tasks.get(&lease.task);
        if held.and_then(|held| held.spec).is_some_and(|spec| spec != context.spec.digest()) {
            return Err(Refusal::new(
                Party::Coordinator,
                "release.other-spec",
                "the coordinator showed this task with another spec before",
                "ignore it; keep both specs and report the coordinator",
            ));
        }
        match held {
            Some(held) if held.attempt > lease.attempt => Err(Refusal::new(
                Party::Coordinator,
                "release.fenced",
                "a later attempt of this task is under way",
                "give this attempt up",
            )),
            Some(held) if held.attempt == lease.attempt => Ok(Some(&held.stage)),
            _ => Ok(None),
        }
    }

    /// Forgets a task for which this releaser will never be asked again, by its own knowledge.
    pub fn forget(&mut self, task: &TaskId) {
        self.tasks.remove(task);
        self.checkpoints.remove(task);
    }

    /// A task has ended, as its coordinator says. If that was a lie, nothing is given twice and no checkpoint is forgotten: what can be dropped are the
    /// statements alone, or all of it where nothing was ever approved.
    pub fn close(&mut self, task: &TaskId) {
        match self.tasks.get_mut(task) {
            Some(held) if held.was_approved => held.stage = Stage::Closed,
            Some(_) => self.forget(task),
            None => {}
        }
    }

    /// Forgets the tasks whose specs have expired: nothing is done for them any more.
    pub fn forget_expired(&mut self, now: UnixTime) {
        self.tasks.retain(|_, held| held.expires_at.is_none_or(|at| now <= at));
        let tasks = &self.tasks;
        self.checkpoints.retain(|task, _| tasks.contains_key(task));
    }

    fn may_checkpoint(&mut self, release: &ReleaseStatement, report_key: Option<PublicKey>) {
        let Some(report_key) = report_key else { return };
        let author = Author { report_key, node: release.node, spec: release.spec, lease: release.lease };
        let authors = &mut self.checkpoints.entry(release.task).or_default().authors;
        // One release an attempt.
        if !authors.iter().any(|(attempt, _)| *attempt == release.attempt) {
            authors.push((release.attempt, author));
        }
    }

    /// Takes note of a checkpoint: from now on a grant for the task names it as the least, or a newer one. What is as new as what is known changes
    /// nothing, and has no record.
    ///
    /// # Errors
    /// It is not the word of a task process that this ledger approved: the coordinator, which brought it, is at fault.
    pub fn checkpointed(&mut self, checkpoint: Envelope) -> Result<Option<LedgerRecord>, Refusal> {
        let statement = checkpoint
            .open::<CheckpointStatement>()
            .map_err(|error| Refusal::new(Party::Coordinator, error.code(), error.to_string(), "ignore it"))?;
        let news = self.take_checkpoint(&statement)?;
        Ok(news.then(|| LedgerRecord::Checkpointed { checkpoint: statement.into_envelope() }))
    }

    fn take_checkpoint(&mut self, statement: &Signed<CheckpointStatement>) -> Result<bool, Refusal> {
        let held = self.checkpoints.get_mut(&statement.task);
        let authors = held.as_ref().map_or(&[][..], |held| &held.authors);
        let author = authors.iter().find(|(attempt, _)| *attempt == statement.attempt).map(|(_, author)| author);
        let counts = author.is_some_and(|author| {
            author.report_key == statement.signer
                && author.node == statement.node
                && author.spec == statement.spec
                && author.lease == statement.lease
        });
        let (Some(held), true) = (held, counts) else {
            return Err(Refusal::new(
                Party::Coordinator,
                "release.checkpoint-unknown",
                "the checkpoint is not signed by the task process of an attempt that this releaser approved",
                "ignore it",
            ));
        };
        if held.newest.is_some_and(|newest| newest.checkpoint.sequence >= statement.checkpoint.sequence) {
            return Ok(false);
        }
        held.newest = Some(LeastCheckpoint {
            checkpoint: statement.checkpoint,
            statement: statement.digest(),
            node: statement.node,
        });
        Ok(true)
    }

    /// The newest checkpoint of a task that this ledger knows of.
    #[must_use]
    pub fn newest_checkpoint(&self, task: &TaskId) -> Option<LeastCheckpoint> {
        self.checkpoints.get(task).and_then(|held| held.newest)
    }

    /// How many tasks the ledger holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// The challenge for an attempt: a new one, or the one that is out already. Make the record durable before the challenge is sent.
    ///
    /// # Errors
    /// The lease is not for this spec, has ended, or is not this releaser's; or the attempt is past being challenged.
    pub fn challenge(
        &mut self,
        context: ReleaseContext<'_>,
        signer: &impl Signer,
        random: [u8; 32],
        now: UnixTime,
    ) -> Result<(Signed<ChallengeStatement>, Option<LedgerRecord>), Refusal> {
        check_context(context, signer, now)?;
        let lease = context.lease;
        match self.stage(context)? {
            Some(Stage::Challenged(challenge)) if challenge.lease == lease.digest() => {
                return Ok((challenge.as_ref().clone(), None));
            }
            Some(_) => return Err(consumed()),
            None => {}
        }
        if !self.has_room(&lease.task) {
            return Err(Refusal::new(
                Party::Releaser,
                TOO_MANY_TASKS,
                "this releaser keeps as many tasks as it can until their specs expire",
                "try again later, or name another broker",
            ));
        }
        let statement = ChallengeStatement {
            network: lease.network,
            task: lease.task,
            attempt: lease.attempt,
            lease: lease.digest(),
            challenge: Challenge(random),
            issued_at: now,
            expires_at: now.saturating_add_millis(MAX_CHALLENGE_AGE_MS),
            releaser: signer.public_key(),
        };
        let challenge = Envelope::sign(statement, signer).map_err(internal)?;
        self.put_first(context, Stage::Challenged(Box::new(challenge.clone())));
        let record = LedgerRecord::Challenged { challenge: challenge.envelope().clone() };
        Ok((challenge, Some(record)))
    }

    /// Verifies and appraises the evidence of an attempt, and decides. Make the record durable before the decision is sent. `endorsements` is
    /// the [`starminer_receipt::EndorsementSet`] that came along, unread.
    ///
    /// `challenge` is the statement that this ledger issued (a ledger rebuilt after a crash takes it from the coordinator, and believes it
    /// only because its own release names it).
    ///
    /// # Errors
    /// The attempt is not open for a decision. A failed appraisal is no error but a [`Decision::Deny`].
    pub fn decide(
        &mut self,
        context: ReleaseContext<'_>,
        evidence: &[u8],
        endorsements: Option<&[u8]>,
        trust: &ReleaserTrust,
        signer: &impl Signer,
        now: UnixTime,
    ) -> Result<(Decision, Option<LedgerRecord>), Refusal> {
        check_context(context, signer, now)?;
        let (spec, lease) = (context.spec, context.lease);
        let evidence_digest = Digest::of(evidence);
        let (challenge, released) = match self.stage(context)? {
            Some(Stage::Challenged(challenge)) if challenge.lease == lease.digest() => {
                ((challenge.challenge, challenge.issued_at), None)
            }
            Some(Stage::Approved(release, ear))
                if release.evidence == evidence_digest && release.lease == lease.digest() =>
            {
                ((release.challenge, release.challenge_issued_at), Some((release.as_ref().clone(), ear.clone())))
            }
            Some(Stage::Denied(denial)) => return Ok((Decision::Deny(denial.clone()), None)),
            Some(_) => return Err(consumed()),
            None => {
                return Err(Refusal::new(
                    Party::Releaser,
                    "release.no-challenge",
                    "this releaser has no challenge out for the attempt",
                    "wait for a challenge; evidence for an older one does not count",
                ));
            }
        };
        if let Some(Stage::Challenged(challenge)) = self.stage(context)?
            && now > challenge.expires_at
        {
            let reason = Refusal::new(
                Party::Node,
                "release.challenge-expired",
                "the evidence came after the challenge had expired",
                "answer within a minute; the task goes to another attempt",
            );
            return self.deny(context, Some(evidence_digest), vec![reason], true, signer, now);
        }
        let appraised = match appraise_attempt(context, challenge, (evidence, endorsements), trust, now) {
            Ok(appraised) => appraised,
            Err(reasons) => return self.deny(context, Some(evidence_digest), reasons, true, signer, now),
        };
        if let Some((release, attestation_result)) = released {
            // An attestation result carries its time: the release names the first one, so that one is given again.
            let approved =
                Approved { release, attestation_result, result: appraised.result, task_key: appraised.task_key };
            return Ok((Decision::Release(Box::new(approved)), None));
        }
        let attestation_result = appraised.result.to_ear_json();
        let statement = ReleaseStatement {
            network: lease.network,
            task: lease.task,
            attempt: lease.attempt,
            node: lease.node,
            spec: spec.digest(),
            lease: lease.digest(),
            challenge: challenge.0,
            challenge_issued_at: challenge.1,
            evidence: evidence_digest,
            policy: spec.policy.digest(),
            attestation_result: Digest::of(&attestation_result),
            task_key: appraised.task_key.digest(),
            decided_at: now,
            releaser: signer.public_key(),
        };
        let release = Envelope::sign(statement, signer).map_err(internal)?;
        self.put_first(context, Stage::Approved(Box::new(release.clone()), attestation_result.clone()));
        // A task without a state has no checkpoints.
        let report_key = appraised.report_key.filter(|_| spec.limits.state_bytes > 0);
        self.may_checkpoint(&release, report_key);
        let record = LedgerRecord::Approved {
            release: release.envelope().clone(),
            attestation_result: Base64Bytes(attestation_result.clone()),
            report_key,
        };
        let approved = Approved { release, attestation_result, result: appraised.result, task_key: appraised.task_key };
        Ok((Decision::Release(Box::new(approved)), Some(record)))
    }

    /// Denies an attempt for the given reasons. A ledger that holds as many tasks as it can denies without a record.
    ///
    /// # Errors
    /// The lease is not for this spec; a later attempt is under way; or the denial could not be made: a defect of this program.
    pub fn deny(
        &mut self,
        context: ReleaseContext<'_>,
        evidence: Option<Digest>,
        mut reasons: Vec<Refusal>,
        retry: bool,
        signer: &impl Signer,
        now: UnixTime,
    ) -> Result<(Decision, Option<LedgerRecord>), Refusal> {
        check_linked(context)?;
        // The fence stays where it is.
        self.stage(context)?;
        reasons.truncate(DenyStatement::MAX_REASONS);
        let statement = DenyStatement {
            network: context.lease.network,
            task: context.lease.task,
            attempt: context.lease.attempt,
            evidence,
            reasons,
            retry,
            decided_at: now,
            releaser: signer.public_key(),
        };
        let denial = Envelope::sign(statement, signer).map_err(internal)?;
        let has_room = self.has_room(&context.lease.task);
        let record = has_room.then(|| LedgerRecord::Denied { denial: denial.envelope().clone() });
        if has_room {
            self.put_first(context, Stage::Denied(Box::new(denial.clone())));
        }
        Ok((Decision::Deny(Box::new(denial)), record))
    }

    /// Seals the task secret to the attested task key and signs the grant: once an attempt. Asked again for the same attempt, it
    /// gives the very same bytes. Make the record durable before the grant is sent.
    ///
    /// `randomness` must be fresh from a cryptographic source.
    ///
    /// # Errors
    /// The attempt was not approved here, or another release was.
    pub fn grant(
        &mut self,
        context: ReleaseContext<'_>,
        logged: &Logged,
        secret: &TaskSecret,
        signer: &impl Signer,
        randomness: &Zeroizing<[u8; 64]>,
        now: UnixTime,
    ) -> Result<(Signed<Grant>, Option<LedgerRecord>), Refusal> {
        check_context(context, signer, now)?;
        let release = &logged.approved.release;
        match self.stage(context)? {
            Some(Stage::Granted(grant, _)) if grant.release == release.digest() => {
                return Ok((grant.as_ref().clone(), None));
            }
            Some(Stage::Approved(approved, _)) if approved.digest() == release.digest() => {}
            _ => return Err(consumed()),
        }
        let aad = Grant::aad(&release.spec, &release.lease, release.attempt, &release.evidence, &release.policy);
        let sealed = SealedSecret::seal(
            logged.approved.task_key.as_bytes(),
            GRANT_INFO,
            aad.as_bytes(),
            secret.expose().as_slice(),
            randomness,
        )
        .map_err(|error| {
            Refusal::new(
                Party::Node,
                "release.bad-task-key",
                error.to_string(),
                "the agent must make an X-Wing task key",
            )
        })?;
        let statement = Grant {
            network: release.network,
            task: release.task,
            attempt: release.attempt,
            spec: release.spec,
            lease: release.lease,
            evidence: release.evidence,
            policy: release.policy,
            release: release.digest(),
            release_index: logged.included.index(),
            secret: sealed,
            resume: self.newest_checkpoint(&release.task),
            issued_at: now,
            releaser: signer.public_key(),
        };
        let grant = Envelope::sign(statement, signer).map_err(internal)?;
        let kept = logged.approved.attestation_result.clone();
        self.put_first(context, Stage::Granted(Box::new(grant.clone()), kept));
        let record = LedgerRecord::Granted { grant: grant.envelope().clone() };
        Ok((grant, Some(record)))
    }

    /// The grant of an attempt, where one was made: for sending it again.
    #[must_use]
    pub fn granted(&self, task: &TaskId, attempt: Attempt) -> Option<&Signed<Grant>> {
        match self.tasks.get(task) {
            Some(Held { attempt: of, stage: Stage::Granted(grant, _), .. }) if *of == attempt => Some(grant),
            _ => None,
        }
    }

    /// The attestation result (EAR JSON) that the release of an attempt names.
    #[must_use]
    pub fn attestation_result(&self, task: &TaskId, attempt: Attempt) -> Option<&[u8]> {
        match self.tasks.get(task) {
            Some(Held { attempt: of, stage: Stage::Granted(_, result) | Stage::Approved(_, result), .. })
                if *of == attempt && !result.is_empty() =>
            {
                Some(result)
            }
            _ => None,
        }
    }

    /// The denial of an attempt, where one was made: for sending it again.
    #[must_use]
    pub fn denied(&self, task: &TaskId, attempt: Attempt) -> Option<&Signed<DenyStatement>> {
        match self.tasks.get(task) {
            Some(Held { attempt: of, stage: Stage::Denied(denial), .. }) if *of == attempt => Some(denial),
            _ => None,
        }
    }
}

/// What an appraisal that met the policy leaves for the release.
struct Appraisal {
    result: AttestationResult,
    task_key: TaskKey,
    report_key: Option<PublicKey>,
}

/// Verifies the evidence for exactly this attempt and appraises it by the spec's own policy and reference values.
fn appraise_attempt(
    context: ReleaseContext<'_>,
    (challenge, challenge_issued_at): (Challenge, UnixTime),
    (evidence, endorsements): (&[u8], Option<&[u8]>),
    trust: &ReleaserTrust,
    now: UnixTime,
) -> Result<Appraisal, Vec<Refusal>> {
    let (spec, lease) = (context.spec, context.lease);
    let evidence = Evidence::parse(evidence).map_err(|error| vec![Refusal::from(error)])?;
    let support = match endorsements {
        None => OpenedSet::empty(),
        Some(bytes) => EndorsementSet::parse(bytes)
            .and_then(|set| set.open(spec.network, spec.counts()))
            .map_err(|error| vec![Refusal::from(error)])?,
    };
    let expected = Expected {
        network: spec.network,
        challenge,
        challenge_issued_at,
        purpose: ExpectedPurpose::Task { spec: spec.digest(), attempt: lease.attempt },
        node: lease.node,
        boot: Expect::Any,
        task_key: Expect::Any,
        report_key: Expect::Any,
        agent_key: Expect::Any,
        tls_key: Expect::Any,
        posture: Expect::Any,
    };
    let verified = verify(
        evidence,
        &Context {
            expected,
            endorsements: &support.endorsements,
            trust_anchors: &trust.anchors,
            enrolments: &support.enrolments,
            now,
        },
    )
    .map_err(|refusal| vec![refusal])?;
    let result = appraise(&verified, &spec.reference_values, &spec.policy);
    match result.decision() {
        Appraised::Meets => {}
        Appraised::Fails(reasons) => return Err(reasons),
    }
    let Some(task_key) = verified.binding().task_key.clone() else {
        return Err(vec![Refusal::new(
            Party::Node,
            "release.no-task-key",
            "the binding has no task key",
            "make a task key",
        )]);
    };
    let report_key = verified.binding().report_key;
    Ok(Appraisal { result, task_key, report_key })
}

/// Whether the lease is one of an attempt at this very task.
fn check_linked(context: ReleaseContext<'_>) -> Result<(), Refusal> {
    let (spec, lease) = (context.spec, context.lease);
    if lease.spec != spec.digest() || lease.task != spec.task || lease.network != spec.network {
        return Err(bad_lease("release.lease-mismatch", "the lease is for another spec"));
    }
    if lease.attempt.0 > spec.max_attempts {
        return Err(bad_lease("release.too-many-attempts", "the spec allows fewer attempts"));
    }
    Ok(())
}

fn bad_lease(check: &'static str, reason: &'static str) -> Refusal {
    Refusal::new(Party::Coordinator, check, reason, "ask the coordinator for a lease of this very task")
}

/// What must hold before anything is done for an attempt.
fn check_context(context: ReleaseContext<'_>, signer: &impl Signer, now: UnixTime) -> Result<(), Refusal> {
    check_linked(context)?;
    let (spec, lease) = (context.spec, context.lease);
    if spec.releaser != signer.public_key() {
        return Err(Refusal::new(
            Party::Requester,
            "release.not-the-releaser",
            "the spec names another releaser",
            "let the releaser that the spec names decide",
        ));
    }
    if now > lease.expires_at {
        return Err(bad_lease("release.lease-expired", "the lease has ended"));
    }
    if lease.issued_at > now.saturating_add_millis(MAX_CLOCK_SKEW_MS) {
        return Err(bad_lease(
            "release.lease-from-the-future",
            "the lease was issued more than a minute ahead of this clock",
        ));
    }
    if now > spec.expires_at {
        return Err(Refusal::new(
            Party::Requester,
            "release.spec-expired",
            "the spec has expired",
            "submit the task again",
        ));
    }
    Ok(())
}

fn consumed() -> Refusal {
    Refusal::new(
        Party::Releaser,
        "release.attempt-consumed",
        "this attempt was decided already; its challenge is consumed",
        "a later attempt gets a challenge of its own",
    )
}

fn internal(error: EnvelopeError) -> Refusal {
    Refusal::new(Party::Releaser, "release.internal", error.to_string(), "report this defect")
}
