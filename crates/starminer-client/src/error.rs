//! Why a call to the coordinator failed: refused, or not answered.

use starminer_verify::{Party, Refusal};
use starminer_wire::Problem;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The coordinator understood and refused.
    #[error("{}: {}", refusal.check(), refusal.reason())]
    Refused {
        /// HTTP status.
        status: u16,
        /// Whose fault, which check, what to do.
        refusal: Refusal,
        /// When to try again, where that makes sense.
        retry_after_ms: Option<u64>,
        /// Bytes that are stored already, for an upload at the wrong offset.
        stored_bytes: Option<u64>,
    },
    /// The coordinator cannot be reached, or the connection broke: try again.
    #[error("the coordinator at {address} does not answer: {reason}")]
    Unreachable {
        /// Its address.
        address: String,
        /// What happened.
        reason: String,
    },
    /// Somebody answers at the address who is not the coordinator that was dialled. Nothing was sent.
    #[error("whoever answers at {address} is not this network's coordinator: {reason}")]
    WrongPeer {
        /// The address.
        address: String,
        /// Which check of the handshake failed, of `starminer_tls`.
        check: &'static str,
        /// What was found.
        reason: String,
    },
    /// The coordinator ended the handshake: it does not take this identity. Nothing was sent.
    #[error("the coordinator at {address} does not take this identity: {reason}")]
    NotAdmitted {
        /// The address.
        address: String,
        /// Which check of the handshake failed, of `starminer_tls`.
        check: &'static str,
        /// What was found.
        reason: String,
    },
    /// The answer is not what the protocol says.
    #[error("the coordinator's answer is not of this protocol: {reason}")]
    Protocol {
        /// What is wrong with it.
        reason: String,
    },
    /// This side could not read what it was to send, or write what it received.
    #[error("a local file could not be read or written")]
    Local(#[source] std::io::Error),
}

impl ClientError {
    /// The error as a refusal, for people and reports.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Refused { refusal, .. } => refusal.clone(),
            Self::Unreachable { .. } => Refusal::new(
                Party::Coordinator,
                "coordinator.unreachable",
                self.to_string(),
                "check the address in network.toml and whether the coordinator runs; nothing is lost, try again",
            ),
            Self::WrongPeer { check, .. } => Refusal::new(
                Party::Network,
                *check,
                self.to_string(),
                "nothing was sent; compare coordinator.address and coordinator.key of network.toml with what the operator \
                 publishes, and this machine's clock; if all are right, somebody else answers there",
            ),
            Self::NotAdmitted { check, .. } => Refusal::new(
                Party::Coordinator,
                *check,
                self.to_string(),
                "nothing was sent; ask the coordinator's operator why, and check this machine's clock",
            ),
            Self::Protocol { .. } => Refusal::new(
                Party::Coordinator,
                "coordinator.protocol",
                self.to_string(),
                "check that both sides run the same version",
            ),
            Self::Local(source) => Refusal::new(
                Party::Requester,
                "client.local-io",
                format!("{self}: {source}"),
                "check free space and permissions, then try again",
            ),
        }
    }

    /// Whether the same call may succeed later without anything being mended.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { status, .. } => matches!(status, 429 | 503 | 507),
            Self::WrongPeer { .. } | Self::NotAdmitted { .. } | Self::Protocol { .. } | Self::Local(_) => false,
        }
    }

    pub(crate) fn from_problem(status: u16, body: &[u8]) -> Self {
        match serde_json::from_slice::<Problem>(body) {
            Ok(problem) => Self::Refused {
                status,
                refusal: Refusal::new(problem.party, problem.code, &problem.detail, &problem.remedy),
                retry_after_ms: problem.retry_after_ms,
                stored_bytes: problem.stored_bytes,
            },
            Err(_) => Self::Protocol { reason: format!("status {status} without a problem document") },
        }
    }
}
