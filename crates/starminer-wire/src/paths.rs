//! Paths of the API. Written once, used by server and client.

use starminer_receipt::Role;
use starminer_verify::{Attempt, Digest, TaskId};

/// `GET`: [`NetworkInfo`](crate::NetworkInfo).
pub const NETWORK: &str = "/v1/network";
/// `POST` [`SubmitRequest`](crate::SubmitRequest) → [`TaskView`](crate::TaskView).
pub const TASKS: &str = "/v1/tasks";
/// `GET ?role=&epoch=&after=&wait_ms=` → [`FeedResponse`](crate::FeedResponse); for requesters and releasers.
pub const FEED: &str = "/v1/feed";
/// `POST` [`NodeFeedRequest`](crate::NodeFeedRequest) → [`FeedResponse`](crate::FeedResponse); for nodes, and takes leases.
pub const NODE_FEED: &str = "/v1/node/feed";
/// `POST` (empty) → [`AdmissionChallenge`](crate::AdmissionChallenge).
pub const NODE_CHALLENGE: &str = "/v1/node/challenge";
/// `POST` [`EnrolmentRequest`](crate::EnrolmentRequest) → [`EnrolmentChallenge`](crate::EnrolmentChallenge).
pub const NODE_ENROLMENT: &str = "/v1/node/enrolment";
/// `POST` [`AdmissionRequest`](crate::AdmissionRequest) → [`AdmissionResponse`](crate::AdmissionResponse).
pub const NODE_ADMISSION: &str = "/v1/node/admission";
/// `GET` → `[NodeSummary]`.
pub const NODES: &str = "/v1/nodes";
/// `GET` → `[PublicKey]`: brokers that answer at present, by signing key.
pub const BROKERS: &str = "/v1/brokers";
/// `POST` [`BrokerEvidenceRequest`](crate::BrokerEvidenceRequest) → [`BrokerEvidenceView`](crate::BrokerEvidenceView): a requester asks
/// a broker to prove itself; waits for the answer.
pub const BROKER_EVIDENCE: &str = "/v1/broker/evidence";
/// `GET ?wait_ms=` → `[BrokerEvidenceRequest]`: what this broker is asked to prove.
pub const BROKER_REQUESTS: &str = "/v1/broker/requests";
/// `POST` [`BrokerEvidenceView`](crate::BrokerEvidenceView): the broker's answer.
pub const BROKER_ANSWERS: &str = "/v1/broker/answers";
/// `GET`: the latest checkpoint, a signed note (C2SP tlog-tiles); below it `tile/…`.
pub const LOG: &str = "/v1/log";
/// `GET ?from=`: consistency proof from a tree size to the latest checkpoint → [`LogProof`](crate::LogProof).
pub const LOG_CONSISTENCY: &str = "/v1/log/consistency";
/// `GET ?sizes=`: consistency proofs from each of several tree sizes to the next, ascending and parted by commas, and to the latest
/// checkpoint → [`LogChain`](crate::LogChain).
pub const LOG_CHAIN: &str = "/v1/log/chain";

/// `POST` a [`ReferenceFile`](starminer_receipt::ReferenceFile) that release keys signed → the newest of its role, logged.
pub const REFERENCES: &str = "/v1/references";

/// `GET` → the newest [`ReferenceFile`](starminer_receipt::ReferenceFile) of a role, logged.
#[must_use]
pub fn references(role: Role) -> String {
    format!("{REFERENCES}/{}", role.name())
}

/// `PUT ?offset=&total=` appends ciphertext, `GET` reads it (with `Range`).
#[must_use]
pub fn blob(content_id: &Digest) -> String {
    format!("/v1/blobs/{content_id}")
}

/// `GET` → [`BlobStatus`](crate::BlobStatus): how much of a blob is there.
#[must_use]
pub fn blob_status(content_id: &Digest) -> String {
    format!("/v1/blobs/{content_id}/status")
}

/// `GET ?after=&wait_ms=` → [`TaskView`](crate::TaskView).
#[must_use]
pub fn task(task: &TaskId) -> String {
    format!("/v1/tasks/{task}")
}

/// `POST` [`CancelRequest`](crate::CancelRequest).
#[must_use]
pub fn task_cancel(task: &TaskId) -> String {
    format!("/v1/tasks/{task}/cancel")
}

/// `GET` → [`ReceiptParts`](crate::ReceiptParts).
#[must_use]
pub fn task_receipt(task: &TaskId) -> String {
    format!("/v1/tasks/{task}/receipt")
}

/// `POST` below an attempt: `challenge`, `evidence`, `release`, `grant`, `deny`, `checkpoint`, `report`.
#[must_use]
pub fn attempt(task: &TaskId, attempt: Attempt, action: &str) -> String {
    format!("/v1/tasks/{task}/attempts/{attempt}/{action}")
}
