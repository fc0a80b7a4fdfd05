//! Reports: what ran, on what, with what result. An in-toto statement (v1) signed with the report key that the evidence binds.
//!
//! The task process signs the [`Report`]; the agent, which alone saw the process from outside, signs an
//! [`AgentStatement`] over it. Where there is no task process to speak (it died, the evidence was denied, the lease
//! expired), whoever ended the attempt signs the report, and `author` says so.

use serde::{Deserialize, Serialize};
use starminer_verify::{Attempt, Digest, NetworkId, NodeId, PublicKey, Refusal, TaskId, UnixTime, tagged_hash};

use crate::dsse::{Base64Bytes, Statement};
use crate::job::{MAX_MANIFEST_BYTES, OutputManifest};
use crate::seal::SealedSecret;
use crate::spec::ObjectRef;
use crate::statements::CheckpointId;

/// `_type` of an in-toto statement, version 1.
pub const IN_TOTO_STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// `predicateType` of a StarMiner report.
pub const PREDICATE_TYPE: &str = "https://starminer.dev/report/v1";
/// Most outputs of one task, logs included.
const MAX_OUTPUTS: usize = 1024;

/// Who signs a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReportAuthor {
    /// The task process, with the report key that the evidence binds.
    Task,
    /// The node's agent, with the agent key that the evidence binds.
    Agent,
    /// The releaser, which refused the evidence.
    Releaser,
    /// The coordinator, because nobody else reported in time.
    Coordinator,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Outcome {
    /// The workload ended by itself with status 0.
    Completed,
    /// It did not; who is at fault, which check, what to do.
    Failed {
        /// The refusal.
        refusal: Refusal,
    },
}

/// An in-toto subject: one output, named by what it is in the vault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportSubject {
    /// `output/N`.
    pub name: String,
    /// Digests of it.
    pub digest: SubjectDigest,
}

/// Digest set of a subject (in-toto `DigestSet`). The plaintext's digest is private; this is its commitment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubjectDigest {
    /// BLAKE3 of the ciphertext.
    pub blake3: Digest,
    /// Keyed commitment to the SHA-256 of the plaintext.
    #[serde(rename = "starminerCommitment")]
    pub commitment: Digest,
}

/// Output object as a report lists it.
pub type OutputObject = ObjectRef;

/// Which engine ran, built how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineRecord {
    /// `wasm` or `onnx`.
    pub kind: String,
    /// Name and version of the engine's build.
    pub build: String,
    /// Instruction set that compiled code is limited to.
    pub cpu_target: String,
    /// Commitments (keyed from the task secret) to digests of what ran: `module`, `component`, `adapter`, `compiled`, `model`.
    pub digests: Vec<(String, Digest)>,
}

/// Everything that a report says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportPredicate {
    /// Who signs.
    pub author: ReportAuthor,
    /// With which key.
    pub signer: PublicKey,
    /// The network.
    pub network: NetworkId,
    /// The task.
    pub task: TaskId,
    /// Digest of its spec.
    pub spec: Digest,
    /// The node; absent when none was found.
    pub node: Option<NodeId>,
    /// The attempt; absent when none was made.
    pub attempt: Option<Attempt>,
    /// Digest of the lease.
    pub lease: Option<Digest>,
    /// Digest of the evidence.
    pub evidence: Option<Digest>,
    /// Digest of the grant.
    pub grant: Option<Digest>,
    /// Engine and its digests.
    pub engine: Option<EngineRecord>,
    /// Commitment to the workload that was opened: the spec's, once checked.
    pub workload: Option<Digest>,
    /// Commitments to the inputs that were opened.
    pub inputs: Vec<Digest>,
    /// How it ended.
    pub outcome: Outcome,
    /// The output secret, sealed to the requester's result key with [`Report::output_aad`].
    pub output_secret: Option<SealedSecret>,
    /// Outputs, as sealed objects.
    pub outputs: Vec<OutputObject>,
    /// [`RunDetails`] as a vault object named `details` under the output secret.
    pub sealed_details: Option<Base64Bytes>,
    /// Names of the isolation that was in force.
    pub sandbox: Vec<String>,
    /// The checkpoint that the attempt went on from; absent where it began anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed: Option<CheckpointId>,
}

/// A report: an in-toto statement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// [`IN_TOTO_STATEMENT_TYPE`].
    #[serde(rename = "_type")]
    pub statement_type: String,
    /// One for each output.
    pub subject: Vec<ReportSubject>,
    /// [`PREDICATE_TYPE`].
    #[serde(rename = "predicateType")]
    pub predicate_type: String,
    /// What happened.
    pub predicate: ReportPredicate,
}

impl Report {
    /// Makes the statement around a predicate; the subjects follow from its outputs.
    #[must_use]
    pub fn new(predicate: ReportPredicate) -> Self {
        Self {
            statement_type: IN_TOTO_STATEMENT_TYPE.into(),
            subject: Self::subjects(&predicate),
            predicate_type: PREDICATE_TYPE.into(),
            predicate,
        }
    }

    fn subjects(predicate: &ReportPredicate) -> Vec<ReportSubject> {
        let outputs = predicate.outputs.iter().enumerate();
        outputs
            .map(|(index, object)| ReportSubject {
                name: crate::job::output_object_name(index),
                digest: SubjectDigest { blake3: object.content_id, commitment: object.commitment },
            })
            .collect()
    }

    /// Associated data of the sealed output secret.
    #[must_use]
    pub fn output_aad(spec: &Digest, attempt: Attempt, evidence: &Digest) -> Digest {
        tagged_hash("output-aad", &[spec.as_bytes(), &attempt.0.to_be_bytes(), evidence.as_bytes()])
    }
}

impl Statement for Report {
    const PAYLOAD_TYPE: &'static str = "application/vnd.in-toto+json";

    fn signer(&self) -> PublicKey {
        self.predicate.signer
    }

    fn check(&self) -> Result<(), &'static str> {
        let predicate = &self.predicate;
        let rules = [
            (self.statement_type == IN_TOTO_STATEMENT_TYPE, "not an in-toto v1 statement"),
            (self.predicate_type == PREDICATE_TYPE, "not a StarMiner report"),
            (predicate.outputs.len() <= MAX_OUTPUTS, "more than 1024 outputs"),
            (self.subject == Self::subjects(predicate), "subjects are not the outputs"),
            (predicate.sandbox.len() <= 64, "more than 64 sandbox names"),
            (
                predicate.sealed_details.as_ref().is_none_or(|details| details.0.len() <= 64 * MAX_MANIFEST_BYTES),
                "sealed details are too large",
            ),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, reason)| Err(reason))
    }
}

/// Exact figures of a run, sealed to the requester.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunDetails {
    /// Exit code of the workload, where it had one.
    pub exit_code: Option<i32>,
    /// Fuel that was used, by engines that count it.
    pub fuel_used: Option<u64>,
    /// Most guest memory at any time.
    pub peak_memory_bytes: u64,
    /// The outputs by name, in the order of the report.
    pub outputs: Vec<OutputManifest>,
}

/// How the task process ended, as the agent saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum ExitStatus {
    /// It ended by itself.
    Exited {
        /// Its status.
        code: i32,
    },
    /// A signal ended it.
    Signalled {
        /// Its number.
        signal: i32,
    },
    /// It was still running when the report was made, and was ended by the agent.
    Ended,
}

/// Resources of the task process, sealed to the requester.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// User and system time.
    pub cpu_ms: u64,
    /// Most resident memory.
    pub peak_resident_bytes: u64,
    /// From grant to report.
    pub wall_ms: u64,
}

/// What the agent vouches for: it countersigns the report and adds what only it saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentStatement {
    /// The network.
    pub network: NetworkId,
    /// The task.
    pub task: TaskId,
    /// The attempt.
    pub attempt: Attempt,
    /// The node.
    pub node: NodeId,
    /// Digest of the report.
    pub report: Digest,
    /// How the process ended.
    pub exit: ExitStatus,
    /// When the grant was taken, by the node's clock.
    pub started_at: UnixTime,
    /// When the report was made, by the node's clock.
    pub ended_at: UnixTime,
    /// [`Resources`] as JSON, sealed to the requester's result key with the report's digest as associated data.
    pub resources: SealedSecret,
    /// The agent's key, as the evidence binds it; it signs.
    pub agent: PublicKey,
}

impl Statement for AgentStatement {
    const PAYLOAD_TYPE: &'static str = "application/vnd.starminer.agent-statement.v1+json";
    fn signer(&self) -> PublicKey {
        self.agent
    }
}
