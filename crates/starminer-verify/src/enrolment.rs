//! Enrolment: what was found out about a node once, when it joined, and what evidence alone cannot show.
//!
//! That an attestation key is in the TPM of an endorsement key's certificate is shown by credential activation, a conversation that no
//! evidence repeats; that a TPM and a chip stand in one machine is shown by nothing at all but the record that they were enrolled together. The
//! caller gives such records as it verified them (signature, log); [`crate::verify`] takes their word and compares. What follows from a pair is
//! that its halves are *co-enrolled*, never that they are one platform. Source: `specs/evidence.md`, section "Enrolment".

use crate::binding::AkName;
use crate::evidence::EvidenceKind;
use crate::trust::Provenance;
use crate::types::{Digest, NetworkId, NodeId, UnixTime, tagged_hash};

/// One key of one TPM, activated: the TPM that holds the endorsement key also holds this attestation key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolment {
    /// The network that enrolled it.
    pub network: NetworkId,
    /// The node whose agent answered.
    pub node: NodeId,
    /// Name of the attestation key.
    pub ak_name: AkName,
    /// SHA-256 of the endorsement key's certificate in DER.
    pub ek_certificate: Digest,
    /// What stood behind that certificate's chain.
    pub provenance: Provenance,
    /// The chip that was enrolled along with it, as [`chip_digest`] names it, where one was.
    pub chip: Option<Digest>,
    /// When.
    pub enrolled_at: UnixTime,
}

/// That a chip stands in a facility whose operator keeps hands off it, as somebody whom the caller trusts said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FacilityCredential {
    /// The network that it was given to.
    pub network: NetworkId,
    /// The chip, as [`chip_digest`] names it.
    pub chip: Digest,
    /// From when it counts.
    pub not_before: UnixTime,
    /// From when it counts no more.
    pub not_after: UnixTime,
}

/// The records that a caller has verified. Each is believed as it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Enrolments {
    /// Activated keys.
    pub keys: Vec<Enrolment>,
    /// Chips in facilities.
    pub facilities: Vec<FacilityCredential>,
}

impl Enrolments {
    /// None: no TPM counts for anything.
    pub const fn none() -> Self {
        Self { keys: Vec::new(), facilities: Vec::new() }
    }
}

/// The name of a chip in records and lists: the tagged hash `"starminer/chip/v1"` over its maker's line and its id. Neither is for publication,
/// because ids are few enough to be tried.
///
/// The id is, of a software TEE, its 32 bytes; of SEV-SNP, the hardware id in the VCEK (64 bytes, of Turin 8); of SGX and TDX, the PPID of the
/// PCK certificate (16 bytes; the same for both); of a GPU, its serial number in ASCII. Other kinds have none.
pub fn chip_digest(kind: EvidenceKind, id: &[u8]) -> Digest {
    let line = match kind {
        EvidenceKind::Tdx | EvidenceKind::Sgx => "intel",
        kind => kind.name(),
    };
    tagged_hash("chip", &[line.as_bytes(), id])
}
