//! What happened: the events that state is folded from, their log entries and their rows.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use starminer_receipt::{
    AgentStatement, Base64Bytes, CHECKPOINT_CODES, CancelStatement, ChallengeStatement, CheckpointStatement,
    DenyStatement, EnrolmentStatement, EntryKind, Envelope, EnvelopeError, Grant, Lease, LogEntry, Outcome,
    ReferenceFile, ReleaseStatement, Report, ReportAuthor, Role, Signed, Statement, TaskSpec,
};
use starminer_store::EventRow;
use starminer_verify::{Attempt, BootId, Digest, NetworkId, NodeId, PublicKey, Refusal, TaskId, UnixTime};
use starminer_wire::Deposit;

use super::queue::Standing;

/// What a report or a lost lease ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Settles {
    /// The attempt; the task is queued again.
    Attempt,
    /// The task.
    Task,
}

/// Something that happened, with everything that is needed to rebuild the state from it.
#[derive(Debug, Clone)]
pub struct Event {
    /// When; never less than the event before.
    pub at: UnixTime,
    /// The task, where it is of one.
    pub task: Option<TaskId>,
    /// How many events of the task came before it.
    pub step: Option<u32>,
    /// The attempt, where it is of one.
    pub attempt: Option<Attempt>,
    /// The node, where it is of one.
    pub node: Option<NodeId>,
    /// What.
    pub body: EventBody,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum EventBody {
    /// The network began.
    Genesis {
        /// Digest of its trust file.
        trust: Digest,
    },
    /// A node was admitted.
    Admitted {
        /// Digest of its evidence.
        evidence: Digest,
        /// What the coordinator's appraisal reached.
        standing: Standing,
    },
    /// A node's TPM was enrolled.
    Enrolled(Arc<Signed<EnrolmentStatement>>),
    /// A node was taken out.
    Suspended {
        /// Why.
        refusal: Refusal,
    },
    /// The rules for hardware that count from then on.
    Rules {
        /// Digest of them.
        policy: Digest,
    },
    /// A task was taken.
    Submitted {
        /// The spec.
        spec: Arc<Signed<TaskSpec>>,
        /// What was left for a broker.
        deposit: Option<Arc<Deposit>>,
    },
    /// A task was given to a node.
    Leased {
        /// The lease.
        lease: Arc<Signed<Lease>>,
        /// The agent's start that took it.
        boot: BootId,
    },
    /// A releaser challenged.
    Challenged(Arc<Signed<ChallengeStatement>>),
    /// A node answered.
    Attested {
        /// The evidence's bytes.
        evidence: Arc<Vec<u8>>,
        /// SHA-256 of it.
        digest: Digest,
        /// What it is verified with (`EndorsementSet`).
        endorsements: Option<Arc<Vec<u8>>>,
        /// The report key that it names.
        report_key: Option<PublicKey>,
    },
    /// A releaser decided to release.
    Released(Arc<Signed<ReleaseStatement>>),
    /// A grant was handed over.
    Granted {
        /// The grant.
        grant: Arc<Signed<Grant>>,
        /// The attestation result.
        attestation_result: Arc<Vec<u8>>,
    },
    /// A checkpoint is durable on the node of its attempt.
    Checkpointed(Arc<Signed<CheckpointStatement>>),
    /// A releaser denied.
    Denied(Arc<Signed<DenyStatement>>),
    /// A report came.
    Reported {
        /// The report.
        report: Arc<Signed<Report>>,
        /// The agent's statement over it.
        agent_statement: Option<Arc<Signed<AgentStatement>>>,
        /// Evidence over it.
        closing_evidence: Option<Arc<Vec<u8>>>,
        /// What it ends.
        settles: Settles,
    },
    /// A lease ended without a report.
    Expired {
        /// Digest of the lease.
        lease: Digest,
        /// Why.
        refusal: Refusal,
    },
    /// A requester cancelled.
    Cancelled(Arc<Signed<CancelStatement>>),
    /// Reference values were published.
    Published {
        /// The role that they are for.
        role: Role,
        /// The file as release keys signed it.
        file: Arc<ReferenceFile>,
    },
}

/// Why rows do not give events: the database is damaged or was altered.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The kind has no meaning.
    #[error("event {index} has unknown kind {kind}")]
    Kind {
        /// Index of the event.
        index: u64,
        /// Its kind.
        kind: i16,
    },
    /// A part is missing or does not parse.
    #[error("event {index} is damaged")]
    Damaged {
        /// Index of the event.
        index: u64,
    },
    /// A statement does not verify.
    #[error("event {index} carries a statement that does not verify")]
    Statement {
        /// Index of the event.
        index: u64,
        /// Why.
        #[source]
        source: EnvelopeError,
    },
    /// The event cannot follow on the ones before.
    #[error("event {index} cannot follow on the events before it")]
    OutOfOrder {
        /// Index of the event.
        index: u64,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AdmittedExtra {
    node: NodeId,
    standing: Standing,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SubmittedExtra {
    deposit: Option<Deposit>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LeasedExtra {
    boot: BootId,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AttemptExtra {
    attempt: Attempt,
    node: NodeId,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AttestedExtra {
    attempt: Attempt,
    node: NodeId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    endorsements: Option<Base64Bytes>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    report_key: Option<PublicKey>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GrantedExtra {
    attestation_result: Base64Bytes,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReportedExtra {
    agent_statement: Option<Envelope>,
    closing_evidence: Option<Base64Bytes>,
    settles: Settles,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SuspendedExtra {
    node: NodeId,
    refusal: Refusal,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpiredExtra {
    attempt: Attempt,
    node: NodeId,
    refusal: Refusal,
}

/// Why a task process did not go on from the checkpoint that its node has: the node's fault alone.
pub(crate) fn refused_checkpoint(report: &Report) -> Option<&Refusal> {
    match &report.predicate.outcome {
        Outcome::Failed { refusal }
            if report.predicate.author == ReportAuthor::Task && refusal.check().starts_with(CHECKPOINT_CODES) =>
        {
            Some(refusal)
        }
        _ => None,
    }
}

/// Rows number kinds by their place here: new ones go to the end.
const KINDS: [EntryKind; 17] = [
    EntryKind::Genesis,
    EntryKind::Admitted,
    EntryKind::Submitted,
    EntryKind::Leased,
    EntryKind::Challenged,
    EntryKind::Attested,
    EntryKind::Released,
    EntryKind::Granted,
    EntryKind::Denied,
    EntryKind::Reported,
    EntryKind::Expired,
    EntryKind::Cancelled,
    EntryKind::Enrolled,
    EntryKind::Suspended,
    EntryKind::Rules,
    EntryKind::Published,
    EntryKind::Checkpointed,
];

/// The number of a kind in rows.
#[must_use]
pub fn kind_number(kind: EntryKind) -> i16 {
    let place = KINDS.iter().position(|other| *other == kind).unwrap_or(0);
    i16::try_from(place).unwrap_or(0)
}

impl Event {
    /// The kind of its log entry.
    #[must_use]
    pub fn kind(&self) -> EntryKind {
        match &self.body {
            EventBody::Genesis { .. } => EntryKind::Genesis,
            EventBody::Admitted { .. } => EntryKind::Admitted,
            EventBody::Submitted { .. } => EntryKind::Submitted,
            EventBody::Leased { .. } => EntryKind::Leased,
            EventBody::Challenged(_) => EntryKind::Challenged,
            EventBody::Attested { .. } => EntryKind::Attested,
            EventBody::Released(_) => EntryKind::Released,
            EventBody::Granted { .. } => EntryKind::Granted,
            EventBody::Checkpointed(_) => EntryKind::Checkpointed,
            EventBody::Denied(_) => EntryKind::Denied,
            EventBody::Reported { .. } => EntryKind::Reported,
            EventBody::Expired { .. } => EntryKind::Expired,
            EventBody::Cancelled(_) => EntryKind::Cancelled,
            EventBody::Enrolled(_) => EntryKind::Enrolled,
            EventBody::Suspended { .. } => EntryKind::Suspended,
            EventBody::Rules { .. } => EntryKind::Rules,
            EventBody::Published { .. } => EntryKind::Published,
        }
    }

    /// The digest of what its log entry commits to.
    #[must_use]
    pub fn statement(&self) -> Digest {
        match &self.body {
            EventBody::Genesis { trust } => *trust,
            EventBody::Admitted { evidence, .. } => *evidence,
            EventBody::Submitted { spec, .. } => spec.digest(),
            EventBody::Leased { lease, .. } => lease.digest(),
            EventBody::Challenged(challenge) => challenge.digest(),
            EventBody::Attested { digest, .. } => *digest,
            EventBody::Released(release) => release.digest(),
            EventBody::Granted { grant, .. } => grant.digest(),
            EventBody::Checkpointed(checkpoint) => checkpoint.digest(),
            EventBody::Denied(denial) => denial.digest(),
            EventBody::Reported { report, .. } => report.digest(),
            EventBody::Expired { lease, .. } => *lease,
            EventBody::Cancelled(cancel) => cancel.digest(),
            EventBody::Enrolled(statement) => statement.digest(),
            EventBody::Suspended { refusal } => refusal.digest(),
            EventBody::Rules { policy } => *policy,
            EventBody::Published { file, .. } => file.digest(),
        }
    }

    /// Whether the task ends with it.
    #[must_use]
    pub fn ends(&self) -> bool {
        matches!(self.body, EventBody::Reported { settles: Settles::Task, .. } | EventBody::Cancelled(_))
    }

    /// The digest of what came with a report.
    fn annex(&self) -> Option<Digest> {
        let EventBody::Reported { agent_statement, closing_evidence, .. } = &self.body else { return None };
        LogEntry::annex_of(
            agent_statement.as_ref().map(|statement| statement.digest()),
            closing_evidence.as_ref().map(|evidence| Digest::of(evidence)),
        )
    }

    /// The code by which the coordinator ended something, or by which a task process refused what its node had kept.
    fn why(&self) -> Option<String> {
        match &self.body {
            EventBody::Reported { report, .. } => refused_checkpoint(report).map(|refusal| refusal.check().to_owned()),
            EventBody::Expired { refusal, .. } | EventBody::Suspended { refusal } => Some(refusal.check().to_owned()),
            _ => None,
        }
    }

    /// Its log entry.
    #[must_use]
    pub fn entry(&self, network: &NetworkId) -> LogEntry {
        LogEntry {
            v: 1,
            kind: self.kind(),
            at: self.at,
            task: self.task,
            step: self.step,
            attempt: self.attempt,
            node: self.node.map(|node| LogEntry::node_pseudonym(network, &node)),
            statement: self.statement(),
            annex: self.annex(),
            why: self.why(),
            ends: self.ends(),
        }
    }

    /// Its row, around the bytes of its log entry.
    ///
    /// # Panics
    /// Never: what goes into the extra column is strings, numbers and bytes.
    #[must_use]
    pub fn to_row(&self, index: u64, entry: Vec<u8>) -> EventRow {
        let extra = |value: serde_json::Result<Vec<u8>>| Some(value.expect("an extra is strings, numbers and bytes"));
        let base64 = |bytes: &Arc<Vec<u8>>| Base64Bytes(bytes.to_vec());
        // Attempt and node of the statements that name them are read from there.
        let of_attempt =
            || AttemptExtra { attempt: self.attempt.unwrap_or(Attempt(0)), node: self.node.unwrap_or(NO_NODE) };
        let (statement, extra) = match &self.body {
            EventBody::Genesis { trust } => (Some(trust.as_bytes().to_vec()), None),
            EventBody::Admitted { evidence, standing } => (
                Some(evidence.as_bytes().to_vec()),
                extra(serde_json::to_vec(&AdmittedExtra {
                    node: self.node.unwrap_or(NO_NODE),
                    standing: standing.clone(),
                })),
            ),
            EventBody::Submitted { spec, deposit } => (
                Some(spec.envelope().encode()),
                extra(serde_json::to_vec(&SubmittedExtra { deposit: deposit.as_deref().cloned() })),
            ),
            EventBody::Leased { lease, boot } => {
                (Some(lease.envelope().encode()), extra(serde_json::to_vec(&LeasedExtra { boot: *boot })))
            }
            EventBody::Challenged(challenge) => {
                (Some(challenge.envelope().encode()), extra(serde_json::to_vec(&of_attempt())))
            }
            EventBody::Attested { evidence, endorsements, report_key, .. } => {
                let AttemptExtra { attempt, node } = of_attempt();
                let endorsements = endorsements.as_ref().map(base64);
                let attested = AttestedExtra { attempt, node, endorsements, report_key: *report_key };
                (Some(evidence.to_vec()), extra(serde_json::to_vec(&attested)))
            }
            EventBody::Released(release) => {
                (Some(release.envelope().encode()), extra(serde_json::to_vec(&of_attempt())))
            }
            EventBody::Granted { grant, attestation_result } => (
                Some(grant.envelope().encode()),
                extra(serde_json::to_vec(&GrantedExtra { attestation_result: base64(attestation_result) })),
            ),
            EventBody::Checkpointed(checkpoint) => (Some(checkpoint.envelope().encode()), None),
            EventBody::Denied(denial) => (Some(denial.envelope().encode()), extra(serde_json::to_vec(&of_attempt()))),
            EventBody::Reported { report, agent_statement, closing_evidence, settles } => (
                Some(report.envelope().encode()),
                extra(serde_json::to_vec(&ReportedExtra {
                    agent_statement: agent_statement.as_ref().map(|statement| statement.envelope().clone()),
                    closing_evidence: closing_evidence.as_ref().map(base64),
                    settles: *settles,
                })),
            ),
            EventBody::Expired { lease, refusal } => {
                let AttemptExtra { attempt, node } = of_attempt();
                (
                    Some(lease.as_bytes().to_vec()),
                    extra(serde_json::to_vec(&ExpiredExtra { attempt, node, refusal: refusal.clone() })),
                )
            }
            EventBody::Cancelled(cancel) => (Some(cancel.envelope().encode()), None),
            EventBody::Enrolled(statement) => (Some(statement.envelope().encode()), None),
            EventBody::Suspended { refusal } => {
                let node = self.node.unwrap_or(NO_NODE);
                let statement = refusal.digest().as_bytes().to_vec();
                (Some(statement), extra(serde_json::to_vec(&SuspendedExtra { node, refusal: refusal.clone() })))
            }
            EventBody::Rules { policy } => (Some(policy.as_bytes().to_vec()), None),
            EventBody::Published { file, .. } => (Some(file.encode()), None),
        };
        EventRow {
            index,
            task: self.task.map(|task| task.0),
            kind: kind_number(self.kind()),
            at: self.at.as_millis(),
            entry,
            statement,
            extra,
        }
    }

    /// Reads a row back; signatures are verified again, so that an altered database does not pass for ours.
    ///
    /// # Errors
    /// [`ReplayError`].
    pub fn from_row(row: &EventRow) -> Result<Self, ReplayError> {
        let reader = RowReader(row);
        let kind = reader.kind()?;
        let entry = LogEntry::parse(&row.entry).map_err(|_| reader.damaged())?;
        let mut event = Self {
            at: UnixTime(row.at),
            task: row.task.map(TaskId),
            step: entry.step,
            attempt: None,
            node: None,
            body: EventBody::Genesis { trust: Digest([0; 32]) },
        };
        event.body = match kind {
            EntryKind::Genesis => EventBody::Genesis { trust: reader.digest()? },
            EntryKind::Admitted => {
                let extra: AdmittedExtra = reader.extra()?;
                event.node = Some(extra.node);
                EventBody::Admitted { evidence: reader.digest()?, standing: extra.standing }
            }
            EntryKind::Submitted => {
                let extra: SubmittedExtra = reader.extra()?;
                EventBody::Submitted { spec: reader.signed()?, deposit: extra.deposit.map(Arc::new) }
            }
            EntryKind::Leased => {
                let lease: Arc<Signed<Lease>> = reader.signed()?;
                let extra: LeasedExtra = reader.extra()?;
                (event.attempt, event.node) = (Some(lease.attempt), Some(lease.node));
                EventBody::Leased { lease, boot: extra.boot }
            }
            EntryKind::Challenged => {
                reader.of_attempt(&mut event)?;
                EventBody::Challenged(reader.signed()?)
            }
            EntryKind::Attested => {
                let extra: AttestedExtra = reader.extra()?;
                (event.attempt, event.node) = (Some(extra.attempt), Some(extra.node));
                let evidence = Arc::new(reader.statement()?.to_vec());
                let digest = Digest::of(&evidence);
                EventBody::Attested {
                    evidence,
                    digest,
                    endorsements: extra.endorsements.map(|bytes| Arc::new(bytes.0)),
                    report_key: extra.report_key,
                }
            }
            EntryKind::Released => {
                reader.of_attempt(&mut event)?;
                EventBody::Released(reader.signed()?)
            }
            EntryKind::Granted => {
                let grant: Arc<Signed<Grant>> = reader.signed()?;
                let extra: GrantedExtra = reader.extra()?;
                event.attempt = Some(grant.attempt);
                EventBody::Granted { grant, attestation_result: Arc::new(extra.attestation_result.0) }
            }
            EntryKind::Denied => {
                reader.of_attempt(&mut event)?;
                EventBody::Denied(reader.signed()?)
            }
            EntryKind::Checkpointed => {
                let checkpoint: Arc<Signed<CheckpointStatement>> = reader.signed()?;
                (event.attempt, event.node) = (Some(checkpoint.attempt), Some(checkpoint.node));
                EventBody::Checkpointed(checkpoint)
            }
            EntryKind::Reported => {
                let report: Arc<Signed<Report>> = reader.signed()?;
                let extra: ReportedExtra = reader.extra()?;
                (event.attempt, event.node) = (report.predicate.attempt, report.predicate.node);
                EventBody::Reported {
                    report,
                    agent_statement: extra.agent_statement.map(|envelope| reader.open(envelope)).transpose()?,
                    closing_evidence: extra.closing_evidence.map(|bytes| Arc::new(bytes.0)),
                    settles: extra.settles,
                }
            }
            EntryKind::Expired => {
                let extra: ExpiredExtra = reader.extra()?;
                (event.attempt, event.node) = (Some(extra.attempt), Some(extra.node));
                EventBody::Expired { lease: reader.digest()?, refusal: extra.refusal }
            }
            EntryKind::Cancelled => EventBody::Cancelled(reader.signed()?),
            EntryKind::Enrolled => {
                let statement: Arc<Signed<EnrolmentStatement>> = reader.signed()?;
                event.node = Some(statement.node);
                EventBody::Enrolled(statement)
            }
            EntryKind::Suspended => {
                let extra: SuspendedExtra = reader.extra()?;
                event.node = Some(extra.node);
                EventBody::Suspended { refusal: extra.refusal }
            }
            EntryKind::Rules => EventBody::Rules { policy: reader.digest()? },
            EntryKind::Published => {
                let file = ReferenceFile::parse(reader.statement()?).map_err(|_| reader.damaged())?;
                let statement = file.unverified().map_err(|_| reader.damaged())?;
                // Whose signatures count is the trust file's to say, of which a row knows nothing. That it is what was logged shows here.
                if entry.statement != file.digest() {
                    return Err(reader.damaged());
                }
                EventBody::Published { role: statement.role, file: Arc::new(file) }
            }
        };
        Ok(event)
    }
}

/// A row's parts as they were signed, not verified again: for handing them on to somebody who verifies them.
#[derive(Debug)]
pub struct StoredParts {
    /// What happened.
    pub kind: EntryKind,
    /// The statement's bytes: an envelope, evidence, or a digest.
    pub statement: Vec<u8>,
    /// What evidence is verified with.
    pub endorsements: Option<Base64Bytes>,
    /// The attestation result that goes with a grant.
    pub attestation_result: Option<Base64Bytes>,
    /// The agent's statement that goes with a report.
    pub agent_statement: Option<Envelope>,
    /// The evidence that goes with a report.
    pub closing_evidence: Option<Base64Bytes>,
}

impl StoredParts {
    /// Reads a row.
    ///
    /// # Errors
    /// [`ReplayError::Kind`], [`ReplayError::Damaged`].
    pub fn from_row(row: &EventRow) -> Result<Self, ReplayError> {
        let reader = RowReader(row);
        let kind = reader.kind()?;
        let mut parts = Self {
            kind,
            statement: reader.statement()?.to_vec(),
            endorsements: None,
            attestation_result: None,
            agent_statement: None,
            closing_evidence: None,
        };
        if kind == EntryKind::Attested {
            let extra: AttestedExtra = reader.extra()?;
            parts.endorsements = extra.endorsements;
        }
        if kind == EntryKind::Granted {
            let extra: GrantedExtra = reader.extra()?;
            parts.attestation_result = Some(extra.attestation_result);
        }
        if kind == EntryKind::Reported {
            let extra: ReportedExtra = reader.extra()?;
            (parts.agent_statement, parts.closing_evidence) = (extra.agent_statement, extra.closing_evidence);
        }
        Ok(parts)
    }

    /// The statement as an envelope.
    ///
    /// # Errors
    /// The row has another kind of statement, or is damaged.
    pub fn envelope(&self) -> Result<Envelope, EnvelopeError> {
        Envelope::parse(&self.statement)
    }
}

/// Stands where a row needs a node and the event has none; such events are not made.
const NO_NODE: NodeId = NodeId(starminer_verify::PublicKey([0; 32]));

struct RowReader<'r>(&'r EventRow);

impl RowReader<'_> {
    fn damaged(&self) -> ReplayError {
        ReplayError::Damaged { index: self.0.index }
    }

    fn kind(&self) -> Result<EntryKind, ReplayError> {
        let kind = usize::try_from(self.0.kind).ok().and_then(|kind| KINDS.get(kind).copied());
        kind.ok_or(ReplayError::Kind { index: self.0.index, kind: self.0.kind })
    }

    fn statement(&self) -> Result<&[u8], ReplayError> {
        self.0.statement.as_deref().ok_or_else(|| self.damaged())
    }

    fn digest(&self) -> Result<Digest, ReplayError> {
        Digest::from_slice(self.statement()?).ok_or_else(|| self.damaged())
    }

    fn extra<T: for<'de> Deserialize<'de>>(&self) -> Result<T, ReplayError> {
        let extra = self.0.extra.as_deref().ok_or_else(|| self.damaged())?;
        serde_json::from_slice(extra).map_err(|_| self.damaged())
    }

    fn of_attempt(&self, event: &mut Event) -> Result<(), ReplayError> {
        let extra: AttemptExtra = self.extra()?;
        (event.attempt, event.node) = (Some(extra.attempt), Some(extra.node));
        Ok(())
    }

    fn signed<T: Statement>(&self) -> Result<Arc<Signed<T>>, ReplayError> {
        let source_of = |source| ReplayError::Statement { index: self.0.index, source };
        self.open(Envelope::parse(self.statement()?).map_err(source_of)?)
    }

    fn open<T: Statement>(&self, envelope: Envelope) -> Result<Arc<Signed<T>>, ReplayError> {
        envelope.open().map(Arc::new).map_err(|source| ReplayError::Statement { index: self.0.index, source })
    }
}
