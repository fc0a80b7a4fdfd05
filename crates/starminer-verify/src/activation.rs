//! Enrolling a TPM, the half of whoever enrols: is this attestation key in the TPM that its maker certified?
//!
//! The node offers the certificate of its endorsement key and both public keys. Where the chain and the keys hold, it gets a credential
//! ([`offer_credential`]); whoever sends back the secret in it has both keys in one TPM ([`is_activated`]). What follows is an
//! [`crate::Enrolment`]. TPM 2.0 Library Part 1, 24; `specs/evidence.md`, section "Enrolment".

use starminer_hardware::tpm::{self, Public, enrolment};

use crate::binding::AkName;
use crate::check::Check;
use crate::endorsements::Endorsements;
use crate::evidence::EvidenceKind;
use crate::parts::{endorsement_key, malformed, refuse};
use crate::refusal::{Party, Refusal};
use crate::trust::{Provenance, SimulatedRootId, TrustAnchors};
use crate::types::{Digest, UnixTime};

pub use starminer_hardware::tpm::credential::{Credential, Randomness as CredentialRandomness};
pub use starminer_hardware::tpm::enrolment::SECRET_BYTES as ACTIVATION_SECRET_BYTES;

/// Most certificates in an offer.
const MAX_CERTIFICATES: usize = 5;

/// What a node offers; unread.
#[derive(Debug, Clone, Copy)]
pub struct TpmOffer<'a> {
    /// Certificates in DER: the endorsement key's, then authorities, 1 to 5.
    pub certificates: &'a [&'a [u8]],
    /// `TPM2B_PUBLIC` of the endorsement key.
    pub ek_public: &'a [u8],
    /// `TPM2B_PUBLIC` of the attestation key.
    pub ak_public: &'a [u8],
}

/// An offer that holds, waiting for its answer.
#[derive(Debug, Clone)]
pub struct OfferedTpm {
    /// Name of the attestation key.
    pub ak_name: AkName,
    /// SHA-256 of the endorsement key's certificate in DER.
    pub ek_certificate: Digest,
    /// The root in which its chain ends, where that is no maker's.
    pub simulated_root: Option<SimulatedRootId>,
    /// What to send to the node.
    pub credential: Credential,
}

/// Checks an offer and makes the credential for it. `secret` and `randomness` are fresh from a cryptographic source and used once.
///
/// # Errors
/// The first check that does not hold, with its name.
pub fn offer_credential(
    offer: TpmOffer<'_>,
    endorsements: &Endorsements,
    anchors: &TrustAnchors,
    secret: &[u8; ACTIVATION_SECRET_BYTES],
    randomness: CredentialRandomness,
    now: UnixTime,
) -> Result<OfferedTpm, Refusal> {
    const KIND: EvidenceKind = EvidenceKind::Tpm;
    if !(1..=MAX_CERTIFICATES).contains(&offer.certificates.len()) {
        return Err(malformed(KIND, "1 to 5 certificates are expected"));
    }
    let mut checks: Vec<Check> = Vec::new();
    let ek_public = Public::parse(offer.ek_public).map_err(|error| malformed(KIND, error))?;
    let ak_public = Public::parse(offer.ak_public).map_err(|error| malformed(KIND, error))?;
    let ek = endorsement_key(offer.certificates, endorsements.snapshot(), anchors, now, &mut checks)?;
    let challenge = enrolment::challenge(&ek, &ek_public, &ak_public, secret, randomness).map_err(|error| {
        Refusal::new(
            Party::Node,
            error.code(),
            error.to_string(),
            "offer the endorsement key that the certificate is of",
        )
    })?;
    let Some(credential) = challenge.credential else { return Err(refuse(KIND, &challenge.checks)) };
    let ak_name = AkName::from_bytes(&ak_public.name()).ok_or_else(|| malformed(KIND, "the key's name is too long"))?;
    let provenance = crate::parts::provenance_of(ek.provenance(), SimulatedRootId::Tpm);
    Ok(OfferedTpm {
        ak_name,
        ek_certificate: Digest(ek.chain().leaf().fingerprint()),
        simulated_root: match provenance {
            Provenance::Genuine => None,
            Provenance::Simulated { root } => Some(root),
        },
        credential,
    })
}

/// Whether an answer is the secret of the credential; compared in constant time.
#[must_use]
pub fn is_activated(secret: &[u8; ACTIVATION_SECRET_BYTES], answer: &[u8]) -> bool {
    tpm::enrolment::confirm(secret, answer).hold()
}
