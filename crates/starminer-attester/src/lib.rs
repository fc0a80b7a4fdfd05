//! Evidence and posture from devices: the attester of RFC 9334.
//!
//! An [`Attester`] signs a batch of bindings with one device signature and returns evidence ready to send. Today there is
//! one, [`SoftwareTee`], for demo and test networks; hardware kinds become further implementations. The crate also
//! measures executables and reads posture from `/proc`, through a root path, so that a test can serve a tree of its
//! own. It does not decide what a binding says and does not judge evidence: that is `starminer-verify`.
//!
//! Collecting from devices will need `unsafe`; nothing of today does, so it is forbidden until then.

#![forbid(unsafe_code)]

mod host;
mod keyfile;
mod measure;
mod software_tee;
pub mod tpm;

use starminer_verify::{Binding, BootId, BuildEvidenceError, EvidenceKind, Posture};
use thiserror::Error;

pub use host::HostTree;
pub use keyfile::{KeyFileError, MAX_KEY_FILE_BYTES};
pub use measure::{MAX_EXECUTABLE_BYTES, MeasureError, SELF_EXECUTABLE, measure_executable};
pub use software_tee::{CertifyError, DeviceRequest, SimulatedRoot, SoftwareTee, SoftwareTeeSettings};

/// Most bindings in one batch: far below what a path can reach, so that signing never takes long.
pub const MAX_ATTEST_BATCH: usize = 4096;

/// A device that makes evidence.
pub trait Attester: Send + Sync {
    /// The kind of evidence it makes.
    fn kind(&self) -> EvidenceKind;

    /// The start of the agent that it reports; bindings have to name the same.
    fn boot(&self) -> BootId;

    /// Signs the batch once and returns one encoded evidence for each binding, in the order given. The caller decides how
    /// long to collect a batch; a batch of one is fine. All bindings have to name this boot and the digest of `posture`.
    fn attest(&self, bindings: &[Binding], posture: &Posture) -> Result<Vec<Vec<u8>>, AttestError>;
}

/// No evidence was made. Always a fault of the asking side or of the device, never of a stranger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AttestError {
    /// No bindings were given.
    #[error("a batch needs at least one binding")]
    EmptyBatch,
    /// More than [`MAX_ATTEST_BATCH`] bindings.
    #[error("a batch holds at most {MAX_ATTEST_BATCH} bindings")]
    BatchTooLarge,
    /// A binding names another start of the agent.
    #[error("a binding names another start of the agent than the device reports")]
    Boot,
    /// A binding cannot be put into evidence.
    #[error(transparent)]
    Build(#[from] BuildEvidenceError),
    /// The device did not sign.
    #[error("the device did not sign")]
    Device,
}

impl AttestError {
    /// Stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::EmptyBatch => "attest.empty-batch",
            Self::BatchTooLarge => "attest.batch-too-large",
            Self::Boot => "attest.boot",
            Self::Build(_) => "attest.build",
            Self::Device => "attest.device",
        }
    }
}
