//! Evidence and posture from devices: the attester of RFC 9334.
//!
//! An [`Attester`] signs a batch of bindings with one signature of each device and returns evidence ready to send. [`JoinedAttester`] is a node's:
//! at most one CPU TEE ([`CpuTee`]) and one TPM ([`NodeTpm`]), with the logs behind its registers. Beneath it, [`SoftwareTee`] is for demo and test
//! networks; reports of real silicon come from [`Tsm`] (SEV-SNP and TDX through configfs), [`SevGuest`] (SEV-SNP through
//! its driver), [`Gramine`] (SGX) and [`tpm`], and [`Logs`] reads what firmware and kernel measured. [`HostTree`] reads posture, [`PostureWatch`] tells when it changes. The crate also measures executables. Each of them starts from a root path or a
//! narrow trait, so that a test serves a tree or a device of its own. It does not decide what a binding says and does not
//! verify or judge anything: that is `starminer-verify`.
//!
//! Devices can hang, so that each request to one has a deadline. `unsafe` is in two files: the SEV driver's ioctls, and `poll(2)`.

mod certificate_table;
mod gate;
mod gramine;
mod host;
mod joined;
mod keyfile;
mod logs;
mod measure;
mod report_data;
mod sev_guest;
mod software_tee;
pub mod tpm;
mod tree;
mod tsm;

use starminer_verify::{AkName, Binding, BootId, BuildEvidenceError, EvidenceKind, Posture};
use thiserror::Error;

pub use certificate_table::{
    CertificateTableError, MAX_TABLE_BYTES, MAX_TABLE_ENTRIES, SnpCertificate, SnpCertificateKind,
    parse_certificate_table,
};
pub use gramine::{GRAMINE_PATIENCE, Gramine, GramineAttestation, GramineError, GramineQuote, MAX_QUOTE_BYTES};
pub use host::{HostTree, PostureChange, PostureWatch, StopWatch};
pub use joined::{CpuTee, DeviceError, JoinedAttester, NodeTpm, NodeTpmSettings, Note, TpmLog};
pub use keyfile::{KeyFileError, MAX_KEY_FILE_BYTES};
pub use logs::{LogError, Logs, MAX_EVENT_LOG_BYTES, MAX_IMA_BYTES};
pub use measure::{MAX_EXECUTABLE_BYTES, MeasureError, SELF_EXECUTABLE, measure_executable};
pub use report_data::REPORT_DATA_BYTES;
pub use sev_guest::{
    DERIVED_KEY_BYTES, DERIVED_RESPONSE_BYTES, DerivedKeyDevice, GUEST_FIELDS, derived_key, derived_key_device,
};
pub use sev_guest::{
    DeviceAnswer, ExitInfo, HostCertificates, MAX_THROTTLED_ATTEMPTS, RESPONSE_BYTES, SEV_GUEST_PATIENCE, SevGuest,
    SevGuestError, SevGuestFile, SnpDevice, SnpReport, firmware_status,
};
pub use software_tee::{CertifyError, DeviceRequest, SimulatedRoot, SoftwareTee, SoftwareTeeSettings};
pub use tsm::{
    ConfigFs, MAX_PRIVILEGE_LEVEL, MAX_TSM_BLOB_BYTES, ReportTree, SvsmService, TSM_PATIENCE, Tsm, TsmError,
    TsmProvider, TsmReport, TsmRequest, TsmStep,
};

/// Most bindings in one batch: far below what a path can reach, so that signing never takes long.
pub const MAX_ATTEST_BATCH: usize = 4096;

/// What makes evidence: one device, or several that are joined.
pub trait Attester: Send + Sync {
    /// The kind of its main part: of the CPU TEE, or else of the TPM.
    fn kind(&self) -> EvidenceKind;

    /// The start of the agent that it reports; bindings have to name the same.
    fn boot(&self) -> BootId;

    /// The TPM that takes part, where one does: it has to be enrolled.
    fn tpm(&self) -> Option<&NodeTpm> {
        None
    }

    /// The name of the TPM's key that takes part, where one does. It stays the same for as long as the attester lives.
    fn ak_name(&self) -> Option<AkName> {
        self.tpm().map(|tpm| tpm.ak_name().clone())
    }

    /// Signs the batch once and returns one encoded evidence for each binding, in the order given. The caller decides how
    /// long to collect a batch; a batch of one is fine. All bindings have to name this boot, this [`Self::ak_name`] and the digest of
    /// `posture`. Blocks.
    fn attest(&self, bindings: &[Binding], posture: &Posture) -> Result<Vec<Vec<u8>>, AttestError>;

    /// What the last batch was made without although it was asked for, for people. Empty where nothing is missing.
    fn notes(&self) -> Vec<Note> {
        Vec::new()
    }
}

/// No evidence was made. Always a fault of the asking side or of a device, never of a stranger.
#[derive(Debug, Error)]
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
    /// A binding names another TPM key than the one that quotes, or one where no TPM takes part, or none where one does.
    #[error("a binding does not name the TPM key that takes part")]
    AkName,
    /// A binding cannot be put into evidence.
    #[error(transparent)]
    Build(#[from] BuildEvidenceError),
    /// The software TEE did not sign.
    #[error("the software TEE did not sign")]
    SoftwareTee,
    /// configfs-tsm gave no report.
    #[error("no report of this confidential VM: see that the agent may write to /sys/kernel/config/tsm/report")]
    Tsm(#[source] TsmError),
    /// `/dev/sev-guest` gave no report.
    #[error("no report of this SEV-SNP guest: see that the agent may read and write /dev/sev-guest")]
    SevGuest(#[source] SevGuestError),
    /// Gramine gave no quote.
    #[error("no quote of this enclave: see that the quoting service (AESM) of the host runs")]
    Gramine(#[source] GramineError),
    /// The TPM gave no quote.
    #[error("no quote by the TPM")]
    Tpm(#[source] tpm::TpmError),
}

impl AttestError {
    /// Stable code; a device's own where one failed.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::EmptyBatch => "attest.empty-batch",
            Self::BatchTooLarge => "attest.batch-too-large",
            Self::Boot => "attest.boot",
            Self::AkName => "attest.ak-name",
            Self::Build(_) => "attest.build",
            Self::SoftwareTee => "attest.software-tee",
            Self::Tsm(error) => error.code(),
            Self::SevGuest(error) => error.code(),
            Self::Gramine(error) => error.code(),
            Self::Tpm(error) => error.code(),
        }
    }
}
