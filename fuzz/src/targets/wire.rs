//! The target of `starminer-wire`: every message of the API.

use starminer_wire::*;

use super::{json_round_trip, taken};
use crate::Outcome;

pub fn messages(data: &[u8]) -> Outcome {
    macro_rules! try_each {
        ($($message:ty),* $(,)?) => { taken(&[$(json_round_trip::<$message>(data).is_some()),*]) };
    }
    try_each!(
        Accepted,
        AdmissionChallenge,
        AdmissionRequest,
        AdmissionResponse,
        AttemptRef,
        AttemptView,
        BlobStatus,
        BrokerEvidenceRequest,
        BrokerEvidenceView,
        CancelRequest,
        ChallengeRequest,
        CheckpointRequest,
        DenyRequest,
        Deposit,
        EvidenceRequest,
        FeedResponse,
        FeedRole,
        GrantRequest,
        LogChain,
        LogProof,
        LoggedEntryParts,
        NetworkInfo,
        NodeFeedRequest,
        NodeSummary,
        Problem,
        ReceiptParts,
        ReleaseRequest,
        ReleaseResponse,
        ReportRequest,
        SubmitRequest,
        TaskState,
        TaskView,
        Vec<BrokerEvidenceRequest>,
        Vec<NodeSummary>,
    )
}
