//! Why a node does not start, or stopped.

use std::io;
use std::path::PathBuf;

use starminer_attester::{CertifyError, DeviceError, KeyFileError as DeviceFileError, MeasureError};
use starminer_receipt::NetworkTrustError;
use starminer_sandbox::HardenError;
use starminer_tls::{IssueError, KeyFileError};

use crate::random::NoRandomness;

/// Why a node does not start. What happens to single tasks is never one of these.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// There is a node in that directory already.
    #[error("{path} exists: there is a node here already")]
    Exists {
        /// The file that is there.
        path: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("{path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The configuration is not one.
    #[error("{path} is not a node's configuration: {reason}")]
    Config {
        /// Which file.
        path: PathBuf,
        /// Where it breaks.
        reason: String,
    },
    /// The trust file is not one.
    #[error("{path}")]
    Trust {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: NetworkTrustError,
    },
    /// The identity key cannot be read or made.
    #[error("the node's identity key")]
    Identity(#[from] KeyFileError),
    /// The software TEE's file cannot be read or made.
    #[error("the software TEE's file {path}")]
    Device {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: DeviceFileError,
    },
    /// A device that makes evidence cannot take part.
    #[error("the devices of this node")]
    Hardware(#[from] DeviceError),
    /// The file of the enrolment is not one.
    #[error("{path} is not the enrolment of a node's TPM: remove it, and the node is enrolled anew")]
    Enrolment {
        /// Which file.
        path: PathBuf,
    },
    /// The TPM is not the one that was enrolled.
    #[error(
        "the TPM is not the one that {path} is about: if it was replaced or reset on purpose, remove that file, and the node is enrolled anew"
    )]
    OtherTpm {
        /// The file of the enrolment.
        path: PathBuf,
        /// What the TPM showed.
        #[source]
        source: DeviceError,
    },
    /// The software TEE could not be certified.
    #[error("the software TEE")]
    Certify(#[source] CertifyError),
    /// This program cannot be measured.
    #[error("this program could not be measured")]
    Measure(#[from] MeasureError),
    /// The process could not be made safe for keys.
    #[error("this process cannot be hardened")]
    Harden(#[from] HardenError),
    /// The first TLS certificate could not be issued.
    #[error("the TLS certificate")]
    Certificate(#[from] IssueError),
    /// Another agent uses this data directory.
    #[error("{path} is in use by another agent")]
    InUse {
        /// Which directory.
        path: PathBuf,
    },
    /// No random bytes.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
}

impl AgentError {
    /// A stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Exists { .. } => "node.exists",
            Self::File { .. } => "node.file",
            Self::Config { .. } => "node.config",
            Self::Trust { .. } => "node.trust",
            Self::Identity(error) => error.code(),
            Self::Device { .. } => "node.device-file",
            Self::Hardware(error) | Self::OtherTpm { source: error, .. } => error.code(),
            Self::Enrolment { .. } => "node.enrolment-file",
            Self::Certify(_) => "node.certify",
            Self::Measure(_) => "node.measure",
            Self::Harden(error) => error.code(),
            Self::Certificate(_) => "node.certificate",
            Self::InUse { .. } => "node.in-use",
            Self::Randomness(_) => "node.randomness",
        }
    }
}

/// An error and what lies beneath it, in one line.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
