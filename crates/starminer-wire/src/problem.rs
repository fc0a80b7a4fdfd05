//! Problem details (RFC 9457): every error of the API.

use serde::{Deserialize, Serialize};
use starminer_verify::{Party, Refusal};

/// The HTTP status that goes with a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProblemStatus {
    /// 400: the message is wrong.
    BadRequest,
    /// 401: the session is not bound.
    Unauthorized,
    /// 403: not this identity's to do.
    Forbidden,
    /// 404: no such thing.
    NotFound,
    /// 409: the state does not allow it (any more).
    Conflict,
    /// 413: over a bound.
    TooLarge,
    /// 422: understood and refused.
    Refused,
    /// 429: too many or too much for this identity.
    TooMany,
    /// 500: a defect or failure of the coordinator.
    Internal,
    /// 503: not now.
    Unavailable,
    /// 507: the coordinator's disk is full.
    StorageFull,
}

impl ProblemStatus {
    /// The number.
    #[must_use]
    pub fn code(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::TooLarge => 413,
            Self::Refused => 422,
            Self::TooMany => 429,
            Self::Internal => 500,
            Self::Unavailable => 503,
            Self::StorageFull => 507,
        }
    }
}

/// Body of every error, `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// `urn:starminer:problem:<code>`.
    #[serde(rename = "type")]
    pub problem_type: String,
    /// HTTP status.
    pub status: u16,
    /// Stable code: which check.
    pub code: String,
    /// Who is at fault.
    pub party: Party,
    /// What is wrong.
    pub detail: String,
    /// What to do.
    pub remedy: String,
    /// Milliseconds after which a retry makes sense, where one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// Bytes that are stored already, for an upload at the wrong offset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored_bytes: Option<u64>,
}

impl Problem {
    /// Makes the body for a refusal.
    #[must_use]
    pub fn new(status: ProblemStatus, refusal: &Refusal) -> Self {
        Self {
            problem_type: format!("urn:starminer:problem:{}", refusal.check()),
            status: status.code(),
            code: refusal.check().to_string(),
            party: refusal.party(),
            detail: refusal.reason().to_string(),
            remedy: refusal.remedy().to_string(),
            retry_after_ms: None,
            stored_bytes: None,
        }
    }
}
