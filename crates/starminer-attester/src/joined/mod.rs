//! Evidence of everything a node has: at most one CPU TEE and one TPM, one binding through both.
//!
//! Every device signs the same 32 bytes, the root of the batch, once; each binding of the batch then has evidence of its own with the
//! same parts. Parts stand in the order of `specs/evidence.md`, section "Parts", in the encodings of `starminer_verify::parts`.
//! The logs behind a TPM's registers go along ([`logs`]), read after the quote, and only where they lead to it: a verifier refuses the whole for
//! a log that does not. What was left out, and why, is there to be asked for ([`Attester::notes`]).
//!
//! Nothing is judged here: a device without a maker's word behind it makes evidence that somebody else refuses.

mod logs;
mod tee;
mod tpm;

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use starminer_verify::{Batch, Binding, BootId, Digest, EvidenceBuilder, EvidenceKind, Posture};
use thiserror::Error;

pub use tee::CpuTee;
pub use tpm::{NodeTpm, NodeTpmSettings, TpmLog};

use crate::logs::Logs;
use crate::tpm::TpmError;
use crate::{AttestError, Attester, GramineError, MAX_ATTEST_BATCH, SevGuestError, TsmError};
use logs::LogParts;

/// A device of this node cannot take part.
#[derive(Debug, Error)]
pub enum DeviceError {
    /// There is none.
    #[error(
        "no device to make evidence with: this machine is no SEV-SNP or TDX guest and no SGX enclave; name a TPM, or a software TEE for tests"
    )]
    None,
    /// The software TEE reports another start of the agent.
    #[error("the software TEE reports another start of the agent than the others")]
    Boot,
    /// Neither SEV-SNP nor TDX, or not for this process.
    #[error(
        "this confidential VM cannot be attested through configfs-tsm: mount configfs, load sev_guest or tdx_guest, and let the agent write to /sys/kernel/config/tsm/report"
    )]
    Tsm(#[source] TsmError),
    /// No SEV-SNP guest, or not for this process.
    #[error(
        "this SEV-SNP guest cannot be attested: load the driver sev-guest, and let the agent read and write /dev/sev-guest"
    )]
    SevGuest(#[source] SevGuestError),
    /// No enclave, or none that is attested.
    #[error(
        "this enclave cannot be attested: start the agent in Gramine with sgx.remote_attestation = \"dcap\" in its manifest"
    )]
    Gramine(#[source] GramineError),
    /// The TPM.
    #[error("the TPM")]
    Tpm(#[source] TpmError),
    /// No certificate is about the TPM's endorsement key.
    #[error(
        "no certificate is about the TPM's endorsement key ({kind}): use another of its endorsement keys, or name the file of its maker's certificate"
    )]
    Uncertified {
        /// The key that was asked for.
        kind: &'static str,
    },
}

impl DeviceError {
    /// Stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::None => "device.none",
            Self::Boot => "device.boot",
            Self::Tsm(error) => error.code(),
            Self::SevGuest(error) => error.code(),
            Self::Gramine(error) => error.code(),
            Self::Tpm(error) => error.code(),
            Self::Uncertified { .. } => "device.uncertified",
        }
    }
}

/// Something that evidence was made without.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{kind}: {reason}")]
pub struct Note {
    /// The part that is missing, or lacks something.
    pub kind: EvidenceKind,
    /// A stable code.
    pub code: &'static str,
    /// Why, for people.
    pub reason: String,
}

/// The devices of a node, as one attester.
#[derive(Debug)]
pub struct JoinedAttester {
    boot: BootId,
    tee: Option<CpuTee>,
    tpm: Option<NodeTpm>,
    logs: Logs,
    notes: Mutex<Vec<Note>>,
}

impl JoinedAttester {
    /// Joins devices. `boot` is this start of the agent; logs are read below `root`, which is `/` on a machine.
    ///
    /// # Errors
    /// [`DeviceError::None`], [`DeviceError::Boot`].
    pub fn new(
        boot: BootId,
        tee: Option<CpuTee>,
        tpm: Option<NodeTpm>,
        root: impl Into<PathBuf>,
    ) -> Result<Self, DeviceError> {
        if tee.is_none() && tpm.is_none() {
            return Err(DeviceError::None);
        }
        if tee.as_ref().is_some_and(|tee| tee.reported_boot().is_some_and(|reported| reported != boot)) {
            return Err(DeviceError::Boot);
        }
        Ok(Self { boot, tee, tpm, logs: logs::bounded(root), notes: Mutex::default() })
    }

    /// The CPU TEE.
    pub const fn tee(&self) -> Option<&CpuTee> {
        self.tee.as_ref()
    }

    /// All parts over the same report data, in their order.
    fn parts(&self, report_data: &Digest) -> Result<Vec<(EvidenceKind, Vec<u8>)>, AttestError> {
        let mut parts = Vec::new();
        let mut logs = LogParts::default();
        let mut notes = Vec::new();
        if let Some(tee) = &self.tee {
            let report = tee.report(report_data, &mut notes)?;
            if tee.kind() == EvidenceKind::Tdx {
                logs.add(logs::cc(&self.logs, &report), &mut notes);
            }
            parts.push((tee.kind(), report));
        }
        if let Some(tpm) = &self.tpm {
            let (part, values) = tpm.part(report_data).map_err(AttestError::Tpm)?;
            parts.push((EvidenceKind::Tpm, part));
            for log in tpm.logs() {
                logs.add(logs::of_tpm(&self.logs, *log, &values), &mut notes);
            }
        }
        parts.extend(logs.into_parts());
        // Logs of either device stand after both, in an order of their own.
        parts.sort_by_key(|(kind, _)| *kind);
        *self.notes.lock().unwrap_or_else(PoisonError::into_inner) = notes;
        Ok(parts)
    }
}

impl Attester for JoinedAttester {
    fn kind(&self) -> EvidenceKind {
        self.tee.as_ref().map_or(EvidenceKind::Tpm, CpuTee::kind)
    }

    fn boot(&self) -> BootId {
        self.boot
    }

    fn tpm(&self) -> Option<&NodeTpm> {
        self.tpm.as_ref()
    }

    fn attest(&self, bindings: &[Binding], posture: &Posture) -> Result<Vec<Vec<u8>>, AttestError> {
        if bindings.len() > MAX_ATTEST_BATCH {
            return Err(AttestError::BatchTooLarge);
        }
        if bindings.iter().any(|binding| binding.boot != self.boot) {
            return Err(AttestError::Boot);
        }
        let ak_name = self.ak_name();
        if bindings.iter().any(|binding| binding.ak_name != ak_name) {
            return Err(AttestError::AkName);
        }
        let digests: Vec<Digest> = bindings.iter().map(Binding::digest).collect();
        let batch = Batch::new(&digests).map_err(|_| AttestError::EmptyBatch)?;
        let parts = self.parts(&batch.report_data())?;
        bindings
            .iter()
            .zip(batch.into_paths())
            .map(|(binding, path)| {
                let empty = EvidenceBuilder::new(binding.clone(), path, posture.clone());
                let whole =
                    parts.iter().fold(empty, |evidence, (kind, report)| evidence.part(*kind, report.as_slice()));
                whole.encode().map_err(AttestError::from)
            })
            .collect()
    }

    fn notes(&self) -> Vec<Note> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
