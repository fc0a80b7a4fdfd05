//! Messages between machines: the coordinator's `/v1` API.
//!
//! One place to break compatibility. Everything that matters inside a message is a signed envelope of `starminer-receipt` or the bytes
//! of an evidence; the messages around them are unsigned and only carry. Unknown fields are refused. Specification: `specs/api.md`.
//! No HTTP here: paths and bodies only.

mod messages;
pub mod paths;
mod problem;

pub use messages::{
    Accepted, AdmissionChallenge, AdmissionRequest, AdmissionResponse, AttemptRef, AttemptView, BlobStatus,
    BrokerEvidenceRequest, BrokerEvidenceView, CancelRequest, ChallengeRequest, CheckpointRequest, DenyRequest,
    Deposit, EnrolmentChallenge, EnrolmentRequest, EvidenceRequest, FeedResponse, FeedRole, GrantRequest, LogChain,
    LogProof, LoggedEntryParts, NetworkInfo, NodeFeedRequest, NodeForecast, NodeSummary, ReceiptParts, ReleaseRequest,
    ReleaseResponse, ReportRequest, SubmitRequest, TaskState, TaskView,
};
pub use problem::{Problem, ProblemStatus};

/// Header of every request: the connection's channel-binding proof, 128 lowercase hexadecimal digits (`specs/tls.md`).
pub const CHANNEL_BINDING_HEADER: &str = "starminer-channel-binding";
/// Largest JSON body that an endpoint takes, in bytes, where it takes no evidence.
pub const MAX_JSON_BODY_BYTES: usize = 512 * 1024;
/// The same of one that does: evidence with logs has up to 2 MiB, and a third more as base64.
pub const MAX_EVIDENCE_BODY_BYTES: usize = 4 << 20;
/// Most enrolments that come along with evidence.
pub const MAX_ENROLMENTS: usize = 4;
/// Longest that a long poll may wait.
pub const MAX_POLL_WAIT_MS: u64 = 30_000;
/// Largest blob, in bytes of ciphertext.
pub const MAX_BLOB_BYTES: u64 = 1 << 40;
/// Most views in one feed response; the rest follow at the next poll.
pub const MAX_FEED_VIEWS: usize = 128;
/// Most bytes of sealed objects that may come along with a submission, all together.
pub const MAX_ATTACHED_BYTES: usize = 128 * 1024;
/// Most sizes that one request for a chain of consistency proofs may name.
pub const MAX_CHAIN_SIZES: usize = 128;
/// Most tasks of which a node may say that it holds checkpoints.
pub const MAX_HELD: usize = 1024;
