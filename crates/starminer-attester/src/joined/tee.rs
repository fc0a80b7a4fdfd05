//! The CPU TEE of a node: which there is, and its report as a part of evidence.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use starminer_hardware::cert::Certificate;
use starminer_hardware::snp::{Report, SigningKey};
use starminer_verify::parts::SevSnpPart;
use starminer_verify::{BootId, Digest, EvidenceKind};

use super::{DeviceError, Note};
use crate::certificate_table::{SnpCertificate, SnpCertificateKind};
use crate::report_data::REPORT_DATA_BYTES;
use crate::{
    AttestError, Attester as _, ConfigFs, Gramine, GramineAttestation, GramineError, HostCertificates, SevGuest,
    SevGuestError, SoftwareTee, Tsm, TsmError, TsmProvider, TsmRequest,
};

/// The privilege level (VMPL) that reports of `/dev/sev-guest` name: the agent's own, without a service module above it.
const VMPL: u32 = 0;

/// What runs the agent in memory of its own.
pub struct CpuTee(Device);

enum Device {
    Software(Box<SoftwareTee>),
    Tsm(Tsm, TsmProvider),
    SevGuest(SevGuest),
    Gramine(Gramine),
}

impl fmt::Debug for CpuTee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CpuTee({})", self.name())
    }
}

impl From<SoftwareTee> for CpuTee {
    fn from(tee: SoftwareTee) -> Self {
        Self(Device::Software(Box::new(tee)))
    }
}

impl From<SevGuest> for CpuTee {
    fn from(device: SevGuest) -> Self {
        Self(Device::SevGuest(device))
    }
}

impl CpuTee {
    /// SEV-SNP or TDX through configfs-tsm.
    ///
    /// # Errors
    /// Where it makes no reports.
    pub fn tsm(tsm: Tsm) -> Result<Self, DeviceError> {
        let provider = tsm.provider().map_err(DeviceError::Tsm)?;
        Ok(Self(Device::Tsm(tsm, provider)))
    }

    /// SEV-SNP through `dev/sev-guest` below `root`.
    ///
    /// # Errors
    /// Where there is none.
    pub fn sev_guest(root: &Path) -> Result<Self, DeviceError> {
        SevGuest::open(root).map(Self::from).map_err(DeviceError::SevGuest)
    }

    /// SGX in Gramine.
    ///
    /// # Errors
    /// Where it makes no quotes.
    pub fn gramine(gramine: Gramine) -> Result<Self, DeviceError> {
        match gramine.attestation().map_err(DeviceError::Gramine)? {
            GramineAttestation::Dcap => Ok(Self(Device::Gramine(gramine))),
            GramineAttestation::Epid | GramineAttestation::None => Err(DeviceError::Gramine(GramineError::NotDcap)),
        }
    }

    /// configfs-tsm below `root`.
    ///
    /// # Errors
    /// Where it makes no reports.
    pub fn tsm_at(root: &Path) -> Result<Self, DeviceError> {
        Self::tsm(Tsm::over(Arc::new(ConfigFs::at(root))))
    }

    /// The hardware that there is below `root`; `None` where there is none. What is there and does not work is an error.
    ///
    /// # Errors
    /// Of the first that is there.
    pub fn find(root: &Path) -> Result<Option<Self>, DeviceError> {
        match Self::tsm_at(root) {
            Err(DeviceError::Tsm(TsmError::Missing)) => {}
            other => return other.map(Some),
        }
        match Self::sev_guest(root) {
            Err(DeviceError::SevGuest(SevGuestError::Missing)) => {}
            other => return other.map(Some),
        }
        match Self::gramine(Gramine::at(root)) {
            Err(DeviceError::Gramine(GramineError::Missing)) => Ok(None),
            other => other.map(Some),
        }
    }

    /// The kind of its part.
    pub const fn kind(&self) -> EvidenceKind {
        match &self.0 {
            Device::Software(_) => EvidenceKind::SoftwareTee,
            Device::Tsm(_, TsmProvider::SevGuest) | Device::SevGuest(_) => EvidenceKind::SevSnp,
            Device::Tsm(_, TsmProvider::TdxGuest) => EvidenceKind::Tdx,
            Device::Gramine(_) => EvidenceKind::Sgx,
        }
    }

    /// What it is and the way to it, for people.
    pub const fn name(&self) -> &'static str {
        match &self.0 {
            Device::Software(_) => "software TEE",
            Device::Tsm(_, TsmProvider::SevGuest) => "SEV-SNP through configfs-tsm",
            Device::Tsm(_, TsmProvider::TdxGuest) => "TDX through configfs-tsm",
            Device::SevGuest(_) => "SEV-SNP through /dev/sev-guest",
            Device::Gramine(_) => "SGX through Gramine",
        }
    }

    /// The start of the agent that it reports of its own; hardware knows none.
    pub(super) fn reported_boot(&self) -> Option<BootId> {
        match &self.0 {
            Device::Software(tee) => Some(tee.boot()),
            Device::Tsm(..) | Device::SevGuest(_) | Device::Gramine(_) => None,
        }
    }

    /// Its part over `report_data`.
    pub(super) fn report(&self, report_data: &Digest, notes: &mut Vec<Note>) -> Result<Vec<u8>, AttestError> {
        let mut padded = [0; REPORT_DATA_BYTES];
        padded[..Digest::LEN].copy_from_slice(report_data.as_bytes());
        match &self.0 {
            Device::Software(tee) => {
                tee.report(*report_data).map(|report| report.to_vec()).ok_or(AttestError::SoftwareTee)
            }
            Device::Tsm(tsm, provider) => {
                let answer = tsm.report(&TsmRequest::new(padded)).map_err(AttestError::Tsm)?;
                match (answer.provider, provider) {
                    (TsmProvider::SevGuest, TsmProvider::SevGuest) => {
                        Ok(sev_snp(answer.report, &answer.certificates, notes))
                    }
                    (TsmProvider::TdxGuest, TsmProvider::TdxGuest) => Ok(answer.report),
                    // Another module was loaded since the start: bindings and policies are about another device.
                    _ => Err(AttestError::Tsm(TsmError::Provider)),
                }
            }
            Device::SevGuest(device) => {
                let answer = device.report(padded, VMPL, HostCertificates::Wanted).map_err(AttestError::SevGuest)?;
                Ok(sev_snp(answer.report, &answer.certificates, notes))
            }
            Device::Gramine(gramine) => gramine.quote(padded).map(|answer| answer.quote).map_err(AttestError::Gramine),
        }
    }
}

/// The part, with what the host gave of the certificates for the key that signed: its own, its authority's, the root. What cannot be read is left out,
/// as the host need not give any; the verifier's endorsements have the rest.
fn sev_snp(report: Vec<u8>, host: &[SnpCertificate], notes: &mut Vec<Note>) -> Vec<u8> {
    let signer = match Report::parse(&report).map(|report| report.unverified_product_and_key().1) {
        Ok(SigningKey::Vlek) => SnpCertificateKind::Vlek,
        // A report that cannot be read here is the verifier's to refuse.
        Ok(SigningKey::Vcek) | Err(_) => SnpCertificateKind::Vcek,
    };
    let mut certificates = Vec::new();
    for kind in [signer, SnpCertificateKind::Ask, SnpCertificateKind::Ark] {
        let Some(given) = host.iter().find(|given| given.kind == kind) else { continue };
        match Certificate::read_one(&given.bytes) {
            Ok(certificate) => certificates.push(certificate.der().to_vec()),
            Err(error) => notes.push(Note {
                kind: EvidenceKind::SevSnp,
                code: error.code(),
                reason: format!("the certificate {kind} that the host gave is left out: {error}"),
            }),
        }
    }
    SevSnpPart { report, certificates }.encode()
}
