//! Endorsements: what makers publish about their devices. Given by the caller, never fetched.
//!
//! A snapshot is a set of files, each with what it is; its digest is over the files' content, so that a receipt can commit to it. Parsing
//! believes nothing: what a file is worth is found out when evidence is verified with it, and a missing one is a refusal that names it.
//! Certificates that issue themselves count as roots only where the trust anchors name them. Source: `specs/evidence.md`, section "Endorsements".

use std::fmt;
use std::sync::Arc;

use starminer_hardware::cert::{Certificate, Crl};
use starminer_hardware::{dcap, nvidia};
use thiserror::Error;

use crate::refusal::{Party, Refusal};
use crate::types::{Digest, TaggedHasher};

/// Most files in a snapshot.
pub const MAX_ENDORSEMENTS: usize = 256;
/// Most bytes in a snapshot, all files together.
pub const MAX_ENDORSEMENTS_BYTES: usize = 8 * 1024 * 1024;
/// Most certificates of one sort, and most revocation lists of one sort.
const MAX_OF_A_SORT: usize = 64;
/// Most files of Intel's, one for each platform and kind.
const MAX_INTEL: usize = 32;

/// What a file of a snapshot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EndorsementKind {
    /// Certificates of AMD's: VCEKs, and authorities in the place of AMD's own. PEM or DER.
    AmdCertificates,
    /// AMD's revocation lists. PEM or DER.
    AmdCrl,
    /// What Intel publishes about one platform and kind: JSON in `dcap-qvl`'s form.
    Intel,
    /// Certificates between a TPM's and its maker's root. PEM or DER.
    TpmCertificates,
    /// Revocation lists of TPM makers. PEM or DER.
    TpmCrl,
    /// A signed manifest of an NVIDIA driver or VBIOS.
    NvidiaRim,
    /// NVIDIA's revocation lists. PEM or DER.
    NvidiaCrl,
    /// SHA-256 of a certificate that NVIDIA's responder calls revoked, 32 bytes: whoever gives it verified the answer.
    NvidiaRevoked,
}

impl EndorsementKind {
    /// The name in digests and files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AmdCertificates => "amd-certificates",
            Self::AmdCrl => "amd-crl",
            Self::Intel => "intel",
            Self::TpmCertificates => "tpm-certificates",
            Self::TpmCrl => "tpm-crl",
            Self::NvidiaRim => "nvidia-rim",
            Self::NvidiaCrl => "nvidia-crl",
            Self::NvidiaRevoked => "nvidia-revoked",
        }
    }
}

impl fmt::Display for EndorsementKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Files are no snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EndorsementsError {
    /// More than [`MAX_ENDORSEMENTS`] files or [`MAX_ENDORSEMENTS_BYTES`], or too many of one kind.
    #[error("more endorsements than a snapshot holds")]
    TooMany,
    /// A file is not what it is said to be.
    #[error("endorsements, {kind}: {reason}")]
    Malformed {
        /// What it was said to be.
        kind: EndorsementKind,
        /// Why it is not.
        reason: String,
    },
}

impl EndorsementsError {
    /// Stable code, as in a [`Refusal`].
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooMany => "endorsements.too-many",
            Self::Malformed { .. } => "endorsements.malformed",
        }
    }
}

impl From<EndorsementsError> for Refusal {
    fn from(error: EndorsementsError) -> Self {
        Self::new(Party::Verifier, error.code(), error.to_string(), "fetch the endorsements again")
    }
}

/// The files, taken apart.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    digest: Option<Digest>,
    pub(crate) amd_certificates: Vec<Certificate>,
    pub(crate) amd_crls: Vec<Crl>,
    pub(crate) intel: Vec<dcap::Endorsements>,
    pub(crate) tpm_certificates: Vec<Certificate>,
    pub(crate) tpm_crls: Vec<Crl>,
    pub(crate) nvidia_rims: Vec<nvidia::Rim>,
    pub(crate) nvidia_crls: Vec<Crl>,
    pub(crate) nvidia_revoked: Vec<[u8; 32]>,
}

/// A snapshot of what makers published. Cheap to clone; equal where its content is.
#[derive(Clone)]
pub struct Endorsements {
    snapshot: Option<Arc<Snapshot>>,
}

impl Endorsements {
    /// No endorsements: enough for a software TEE, and for nothing else.
    pub const fn none() -> Self {
        Self { snapshot: None }
    }

    /// A snapshot of these files. Their order and repetitions do not matter.
    pub fn new<B: AsRef<[u8]>>(
        files: impl IntoIterator<Item = (EndorsementKind, B)>,
    ) -> Result<Self, EndorsementsError> {
        let mut snapshot = Snapshot::default();
        let mut names: Vec<(EndorsementKind, Digest)> = Vec::new();
        let mut bytes_left = MAX_ENDORSEMENTS_BYTES;
        for (kind, bytes) in files {
            let bytes = bytes.as_ref();
            bytes_left = bytes_left.checked_sub(bytes.len()).ok_or(EndorsementsError::TooMany)?;
            let name = (kind, Digest::of(bytes));
            if names.contains(&name) {
                continue;
            }
            if names.len() == MAX_ENDORSEMENTS {
                return Err(EndorsementsError::TooMany);
            }
            names.push(name);
            snapshot.add(kind, bytes)?;
        }
        if names.is_empty() {
            return Ok(Self::none());
        }
        names.sort_unstable();
        let mut hasher = TaggedHasher::new("endorsements");
        for (kind, digest) in names {
            hasher.field(kind.name().as_bytes()).field(digest.as_bytes());
        }
        snapshot.digest = Some(hasher.finish());
        Ok(Self { snapshot: Some(Arc::new(snapshot)) })
    }

    /// The tagged hash `"starminer/endorsements/v1"` over kind and SHA-256 of each file, sorted: what a receipt commits to.
    pub fn digest(&self) -> Digest {
        let given = self.snapshot.as_ref().and_then(|snapshot| snapshot.digest);
        given.unwrap_or_else(|| TaggedHasher::new("endorsements").finish())
    }

    /// What was given; `None` where nothing was.
    pub(crate) fn snapshot(&self) -> &Snapshot {
        static NOTHING: Snapshot = Snapshot {
            digest: None,
            amd_certificates: Vec::new(),
            amd_crls: Vec::new(),
            intel: Vec::new(),
            tpm_certificates: Vec::new(),
            tpm_crls: Vec::new(),
            nvidia_rims: Vec::new(),
            nvidia_crls: Vec::new(),
            nvidia_revoked: Vec::new(),
        };
        self.snapshot.as_deref().unwrap_or(&NOTHING)
    }
}

impl PartialEq for Endorsements {
    fn eq(&self, other: &Self) -> bool {
        self.digest() == other.digest()
    }
}

impl Eq for Endorsements {}

impl fmt::Debug for Endorsements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endorsements({})", self.digest())
    }
}

impl Snapshot {
    fn add(&mut self, kind: EndorsementKind, bytes: &[u8]) -> Result<(), EndorsementsError> {
        match kind {
            EndorsementKind::AmdCertificates => extend(&mut self.amd_certificates, kind, Certificate::read(bytes)),
            EndorsementKind::AmdCrl => extend(&mut self.amd_crls, kind, Crl::read(bytes)),
            EndorsementKind::TpmCertificates => extend(&mut self.tpm_certificates, kind, Certificate::read(bytes)),
            EndorsementKind::TpmCrl => extend(&mut self.tpm_crls, kind, Crl::read(bytes)),
            EndorsementKind::NvidiaCrl => extend(&mut self.nvidia_crls, kind, Crl::read(bytes)),
            EndorsementKind::NvidiaRevoked => {
                let digest = bytes.try_into().map(|digest| vec![digest]).map_err(|_| "32 bytes are expected");
                extend(&mut self.nvidia_revoked, kind, digest)
            }
            EndorsementKind::NvidiaRim => {
                extend(&mut self.nvidia_rims, kind, nvidia::Rim::parse(bytes).map(|rim| vec![rim]))
            }
            EndorsementKind::Intel if self.intel.len() >= MAX_INTEL => Err(EndorsementsError::TooMany),
            EndorsementKind::Intel => {
                extend(&mut self.intel, kind, dcap::Endorsements::parse(bytes).map(|one| vec![one]))
            }
        }
    }
}

fn extend<T, E: fmt::Display>(
    list: &mut Vec<T>,
    kind: EndorsementKind,
    read: Result<Vec<T>, E>,
) -> Result<(), EndorsementsError> {
    let more = read.map_err(|error| EndorsementsError::Malformed { kind, reason: error.to_string() })?;
    if list.len() + more.len() > MAX_OF_A_SORT {
        return Err(EndorsementsError::TooMany);
    }
    list.extend(more);
    Ok(())
}
