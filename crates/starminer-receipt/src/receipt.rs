//! The receipt file: everything that a verifier needs, in one bounded JSON document.
//!
//! A receipt brings statements and proofs, never trust: whose keys count is the verifier's own [`crate::NetworkTrust`].
//! Specification: `specs/receipt.md`.

use serde::{Deserialize, Serialize};
use starminer_log::InclusionProof;

use crate::dsse::{Base64Bytes, Envelope};

/// Largest receipt that is read, in bytes.
///
/// Evidence and closing evidence have up to 2 MiB each where logs are in them, endorsements as much, and base64 adds a third.
pub const MAX_RECEIPT_BYTES: usize = 12 << 20;
/// Most checkpoints of one task that the log has: what a program commits beyond is on its node alone.
pub const MAX_CHECKPOINTS_LOGGED: usize = 512;
/// Most log entries in one receipt: twelve kinds over a hundred attempts, and the checkpoints.
const MAX_ENTRIES: usize = 1200 + MAX_CHECKPOINTS_LOGGED;
/// Name and version of the format.
const FORMAT: &str = "starminer-receipt/1";

/// Why a file is not a receipt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// Larger than [`MAX_RECEIPT_BYTES`].
    #[error("a receipt has at most {MAX_RECEIPT_BYTES} bytes, this file has {size_bytes}")]
    TooLarge {
        /// Its length.
        size_bytes: usize,
    },
    /// Not the JSON of a receipt.
    #[error("not a receipt: broken at line {line} column {column}")]
    Malformed {
        /// Line of the first defect, from 1.
        line: usize,
        /// Column of the first defect, from 1.
        column: usize,
    },
    /// Another version of the format.
    #[error("not a {FORMAT} file")]
    WrongFormat,
    /// More entries than a task can have.
    #[error("more than {MAX_ENTRIES} log entries")]
    TooManyEntries,
}

impl ReceiptError {
    /// A stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "receipt.too-large",
            Self::Malformed { .. } => "receipt.malformed",
            Self::WrongFormat => "receipt.wrong-format",
            Self::TooManyEntries => "receipt.too-many-entries",
        }
    }
}

/// A log entry with the proof that it is under the receipt's checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoggedEntry {
    /// The entry's bytes.
    pub entry: Base64Bytes,
    /// That it is in the log.
    pub inclusion: InclusionProof,
}

/// The proof that a requester keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// `starminer-receipt/1`.
    pub format: String,
    /// `SIMULATED` where the evidence does not chain to a maker's root; for people who open the file. Verification derives it anew.
    pub stamp: String,
    /// The spec.
    pub spec: Envelope,
    /// The last lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Envelope>,
    /// Its challenge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenge: Option<Envelope>,
    /// Its evidence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Base64Bytes>,
    /// What that is verified with ([`crate::EndorsementSet`]), where it asks for any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endorsements: Option<Base64Bytes>,
    /// The attestation result that the releaser reached (EAR JSON).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attestation_result: Option<Base64Bytes>,
    /// The release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<Envelope>,
    /// The grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<Envelope>,
    /// A denial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denial: Option<Envelope>,
    /// A cancellation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel: Option<Envelope>,
    /// The report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Envelope>,
    /// The agent's statement over it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_statement: Option<Envelope>,
    /// Evidence over the report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closing_evidence: Option<Base64Bytes>,
    /// The checkpoint: a signed note, with cosignatures where there are any.
    pub checkpoint: String,
    /// The task's entries in the order of the log.
    pub entries: Vec<LoggedEntry>,
}

impl Receipt {
    /// The value of [`Receipt::format`].
    pub const FORMAT: &'static str = FORMAT;
    /// The stamp of everything that does not chain to a maker's root.
    pub const SIMULATED: &'static str = "SIMULATED";
    /// The stamp of what does.
    pub const GENUINE: &'static str = "GENUINE";

    /// Parses a receipt file.
    ///
    /// # Errors
    /// Every variant of [`ReceiptError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ReceiptError> {
        if bytes.len() > MAX_RECEIPT_BYTES {
            return Err(ReceiptError::TooLarge { size_bytes: bytes.len() });
        }
        let receipt: Self = serde_json::from_slice(bytes)
            .map_err(|error| ReceiptError::Malformed { line: error.line(), column: error.column() })?;
        if receipt.format != FORMAT {
            return Err(ReceiptError::WrongFormat);
        }
        if receipt.entries.len() > MAX_ENTRIES {
            return Err(ReceiptError::TooManyEntries);
        }
        Ok(receipt)
    }

    /// The file's bytes: indented JSON, for people.
    ///
    /// # Panics
    /// Never: a receipt is strings, numbers and bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("a receipt is strings, numbers and bytes");
        bytes.push(b'\n');
        bytes
    }
}
