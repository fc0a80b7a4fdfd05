//! Bodies of the API.

use serde::{Deserialize, Serialize};
use starminer_log::{ConsistencyProof, InclusionProof};
use starminer_receipt::{Base64Bytes, Envelope, SealedSecret};
use starminer_verify::{Attempt, Challenge, Digest, NetworkId, NodeId, PublicKey, Refusal, TaskId, UnixTime};

/// What a coordinator says of itself. Not trusted: whoever connects knows the coordinator's key already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkInfo {
    /// The network.
    pub network: NetworkId,
    /// Build of the coordinator.
    pub build: String,
    /// Its clock.
    pub now: UnixTime,
    /// Brokers that answer at present, by signing key.
    pub brokers: Vec<PublicKey>,
}

/// A task secret left with a broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deposit {
    /// Digest of the broker evidence that the requester verified before it sealed.
    pub broker_evidence: Digest,
    /// The task secret, sealed to the broker's key with the spec's digest as associated data.
    pub secret: SealedSecret,
}

/// Submits a task. The spec's digest is the idempotency key: the same spec again changes nothing and yields the same view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubmitRequest {
    /// The signed spec.
    pub spec: Envelope,
    /// For a broker; absent when the requester releases itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deposit: Option<Deposit>,
    /// Small sealed objects of the spec that come along instead of being uploaded before; [`crate::MAX_ATTACHED_BYTES`] together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<Base64Bytes>,
}

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TaskState {
    /// Waits for a node.
    Queued,
    /// A node holds the lease; the releaser has not challenged yet.
    Leased,
    /// Challenged; the node has not answered yet.
    Challenged,
    /// Evidence is there; the releaser has not decided yet.
    Attested,
    /// The release is in the log; the grant is not there yet.
    Released,
    /// Granted: it runs.
    Granted,
    /// Ended with a report that says completed.
    Completed,
    /// Ended with a report that says failed.
    Failed,
    /// Ended by the requester.
    Cancelled,
}

impl TaskState {
    /// Whether nothing more will happen.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }

    /// The name in JSON and on terminals.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Leased => "leased",
            Self::Challenged => "challenged",
            Self::Attested => "attested",
            Self::Released => "released",
            Self::Granted => "granted",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A task as its requester sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskView {
    /// The task.
    pub task: TaskId,
    /// Digest of its spec.
    pub spec: Digest,
    /// Where it stands.
    pub state: TaskState,
    /// Grows with every change; give it as `after` to wait for the next.
    pub version: u64,
    /// The attempt that is under way or was the last.
    pub attempt: Option<Attempt>,
    /// The node of that attempt.
    pub node: Option<NodeId>,
    /// When it was taken.
    pub submitted_at: UnixTime,
    /// When it last changed.
    pub changed_at: UnixTime,
    /// Why it failed.
    pub refusal: Option<Refusal>,
    /// Where it stands in the queue, from 0, while queued.
    pub queue_position: Option<u64>,
}

/// Whose side of the attempts a feed shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FeedRole {
    /// Attempts whose spec names this identity as releaser.
    Releaser,
    /// Attempts leased to this node.
    Node,
}

/// One attempt as a releaser or node needs it. Level-triggered: the whole state each time it changed, so that nothing is lost
/// with a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttemptView {
    /// The task.
    pub task: TaskId,
    /// The attempt.
    pub attempt: Attempt,
    /// Where the task stands; final states end the attempt.
    pub state: TaskState,
    /// Whether a later attempt has fenced this one off, or it was cancelled or expired: the node gives it up.
    pub ended: bool,
    /// The signed spec.
    pub spec: Envelope,
    /// The signed lease.
    pub lease: Envelope,
    /// The signed challenge.
    pub challenge: Option<Envelope>,
    /// The evidence; for the releaser.
    pub evidence: Option<Base64Bytes>,
    /// What it is verified with (`starminer_receipt::EndorsementSet`), where it asks for any; for the releaser.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endorsements: Option<Base64Bytes>,
    /// The deposit; for a broker.
    pub deposit: Option<Deposit>,
    /// The release entry; for the releaser, so that it can go on after a restart.
    pub release: Option<Envelope>,
    /// The signed grant; for the node.
    pub grant: Option<Envelope>,
    /// The newest signed checkpoint of the task, of whichever attempt; for the releaser.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Envelope>,
}

/// What changed for an identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeedResponse {
    /// Start of the coordinator: where it differs from the one before, ask again from 0.
    pub epoch: u64,
    /// Give it as `after` next time.
    pub version: u64,
    /// Attempts that changed, oldest change first.
    pub attempts: Vec<AttemptView>,
    /// Of the tasks of which the node holds checkpoints, those that are over: nobody will go on from them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub over: Vec<TaskId>,
}

/// A node's poll: takes leases up to its free places and waits for what changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeFeedRequest {
    /// The coordinator's start that `after` belongs to.
    pub epoch: u64,
    /// The last version seen in that epoch.
    pub after: u64,
    /// How long to wait for something.
    pub wait_ms: u64,
    /// How many more tasks this node would take now.
    pub free_places: u32,
    /// The agent's boot: attempts leased under another boot are given up.
    pub boot: starminer_verify::BootId,
    /// Tasks of which this node holds checkpoints and runs no attempt, at most [`crate::MAX_HELD`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holds: Vec<TaskId>,
    /// Whether the start of the agent before this one ended without a word: a crash, or the plug.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unclean: bool,
}

/// Names an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttemptRef {
    /// The task.
    pub task: TaskId,
    /// The attempt.
    pub attempt: Attempt,
}

/// A challenge for an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChallengeRequest {
    /// The signed challenge.
    pub challenge: Envelope,
}

/// A checkpoint that is durable on its node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointRequest {
    /// The signed statement ([`starminer_receipt::CheckpointStatement`]).
    pub checkpoint: Envelope,
}

/// Evidence for an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvidenceRequest {
    /// The evidence, as its exact bytes.
    pub evidence: Base64Bytes,
    /// The node's enrolments that it rests on, at most [`crate::MAX_ENROLMENTS`]; each a signed `EnrolmentStatement` or `FacilityStatement`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub enrolments: Vec<Envelope>,
}

/// A release that shall go into the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseRequest {
    /// The signed release.
    pub release: Envelope,
    /// Tree size of the checkpoint that the releaser remembers; the answer proves consistency from there.
    pub remembered_size: u64,
}

/// An entry with its proof under a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogProof {
    /// The checkpoint, a signed note.
    pub checkpoint: String,
    /// The entry's bytes; absent in an answer about consistency alone.
    pub entry: Option<Base64Bytes>,
    /// That the entry is in the log.
    pub inclusion: Option<InclusionProof>,
    /// That the log continues the one of the size that was asked.
    pub consistency: Option<ConsistencyProof>,
}

/// That the log only grew from each of several sizes to the next, and from the last of them to the latest checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogChain {
    /// The latest checkpoint, a signed note.
    pub checkpoint: String,
    /// One proof for each size that was asked for: to the next size, the last to the checkpoint.
    pub steps: Vec<ConsistencyProof>,
}

/// Where a release went in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseResponse {
    /// The proof.
    pub proof: LogProof,
}

/// A grant for an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantRequest {
    /// The signed grant.
    pub grant: Envelope,
    /// The attestation result (EAR JSON) that the release commits to; kept for the receipt.
    pub attestation_result: Base64Bytes,
}

/// A denial of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DenyRequest {
    /// The signed denial.
    pub denial: Envelope,
}

/// A report of an attempt. Outputs are uploaded before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportRequest {
    /// The signed report.
    pub report: Envelope,
    /// The agent's statement over it; absent when the agent itself is the author.
    pub agent_statement: Option<Envelope>,
    /// Evidence over the report; absent when there was no run.
    pub closing_evidence: Option<Base64Bytes>,
}

/// A cancellation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CancelRequest {
    /// The signed cancellation.
    pub cancel: Envelope,
}

/// Taken, durably, and in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accepted {
    /// Where the task stands now.
    pub state: TaskState,
}

/// How much of a blob the coordinator has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlobStatus {
    /// Bytes stored so far; an upload goes on from there.
    pub stored_bytes: u64,
    /// Whether it is complete and its content id was checked.
    pub complete: bool,
}

/// A challenge for admission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdmissionChallenge {
    /// 32 random bytes.
    pub challenge: Challenge,
    /// Until when it is taken.
    pub expires_at: UnixTime,
}

/// A node asks to be admitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdmissionRequest {
    /// Evidence with purpose `admission`.
    pub evidence: Base64Bytes,
    /// As in [`EvidenceRequest`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub enrolments: Vec<Envelope>,
    /// The secret of the credential ([`EnrolmentChallenge`]), where a TPM's key is to be enrolled with this evidence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation: Option<Base64Bytes>,
}

/// A node has a TPM to enrol. Nothing in it is secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolmentRequest {
    /// Certificates in DER: the endorsement key's, then authorities where the TPM holds any; 1 to 5.
    pub certificates: Vec<Base64Bytes>,
    /// The endorsement key: `TPM2B_PUBLIC`.
    pub ek_public: Base64Bytes,
    /// The attestation key: `TPM2B_PUBLIC`.
    pub ak_public: Base64Bytes,
}

/// A credential that only that endorsement key opens, and only beside that attestation key (TPM 2.0 Library Part 1, 24). Good for one answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolmentChallenge {
    /// The content of `TPM2B_ID_OBJECT`.
    pub credential_blob: Base64Bytes,
    /// The content of `TPM2B_ENCRYPTED_SECRET`.
    pub encrypted_secret: Base64Bytes,
    /// Until when the answer is taken.
    pub expires_at: UnixTime,
}

/// The coordinator's view of the node. Decides routing alone; no key is released for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdmissionResponse {
    /// Tier that the coordinator's appraisal reached, e.g. `confidential`.
    pub tier: String,
    /// `genuine` or `simulated`.
    pub provenance: String,
    /// Until when it counts: without newer evidence by then, the node's leases end.
    pub valid_until: UnixTime,
    /// After how many milliseconds the node is asked to prove itself again.
    pub renew_after_ms: u64,
    /// The enrolment that came of it, to be sent along with evidence from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enrolment: Option<Envelope>,
    /// The first day on which this very evidence will not be enough any more, and why; absent where nothing of it ages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forecast: Option<NodeForecast>,
    /// Why what the node runs is not what the network's reference values name, where it is not: it reaches no higher tier until it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unmatched: Option<String>,
}

/// When today's evidence will stop to meet policy, unless something is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeForecast {
    /// When.
    pub at: UnixTime,
    /// What ends then, and what to do.
    pub reason: String,
}

/// A node, in the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeSummary {
    /// Its pseudonym in the log.
    pub pseudonym: Digest,
    /// Tier.
    pub tier: String,
    /// Provenance.
    pub provenance: String,
    /// Tasks it holds now.
    pub running: u32,
    /// When it was last heard of.
    pub seen_at: UnixTime,
}

/// A requester wants a broker's evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrokerEvidenceRequest {
    /// The broker's signing key.
    pub broker: PublicKey,
    /// 32 random bytes of the requester.
    pub challenge: Challenge,
}

/// A broker's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrokerEvidenceView {
    /// The challenge it answers.
    pub challenge: Challenge,
    /// Evidence with purpose `broker`: the task key is the key to seal deposits to, the report key the broker's signing key.
    pub evidence: Base64Bytes,
}

/// Everything that a receipt is made of, as the coordinator kept it. Whoever takes it verifies it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptParts {
    /// The spec.
    pub spec: Envelope,
    /// The last lease.
    pub lease: Option<Envelope>,
    /// Its challenge.
    pub challenge: Option<Envelope>,
    /// Its evidence.
    pub evidence: Option<Base64Bytes>,
    /// What that was verified with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endorsements: Option<Base64Bytes>,
    /// The attestation result.
    pub attestation_result: Option<Base64Bytes>,
    /// The release.
    pub release: Option<Envelope>,
    /// The grant.
    pub grant: Option<Envelope>,
    /// A denial.
    pub denial: Option<Envelope>,
    /// A cancellation.
    pub cancel: Option<Envelope>,
    /// The report.
    pub report: Option<Envelope>,
    /// The agent's statement.
    pub agent_statement: Option<Envelope>,
    /// Evidence over the report.
    pub closing_evidence: Option<Base64Bytes>,
    /// A checkpoint (signed note, with cosignatures where there are any).
    pub checkpoint: String,
    /// That this checkpoint continues the tree of the size that was asked from, where one was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consistency: Option<ConsistencyProof>,
    /// The task's entries, oldest first, each with its proof under that checkpoint.
    pub entries: Vec<LoggedEntryParts>,
}

/// An entry and its proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoggedEntryParts {
    /// The entry's bytes.
    pub entry: Base64Bytes,
    /// That it is in the log.
    pub inclusion: InclusionProof,
}
