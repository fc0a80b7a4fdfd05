//! What evidence of hardware is verified with, as one document: makers' endorsements, and what was found out about the node when it joined.
//!
//! It travels beside the evidence, from the coordinator to releasers and into receipts, and nobody believes it for where it comes from: makers
//! signed their files, enrollers and facilities their statements. Specification: `specs/evidence.md`, section "Endorsements beside evidence".

use serde::{Deserialize, Serialize};
use starminer_verify::{
    AkName, Digest, EndorsementKind, Endorsements, EndorsementsError, Enrolment, Enrolments, FacilityCredential,
    NetworkId, NodeId, Party, Provenance, PublicKey, Refusal, SimulatedRootId, UnixTime,
};

use crate::dsse::{Base64Bytes, Envelope, Statement};

/// Largest document, in bytes. A platform of Intel's has about 40 KiB of endorsements, a GPU's manifests about 200 KiB.
pub const MAX_ENDORSEMENT_SET_BYTES: usize = 2 << 20;
/// Most statements of a sort in it.
const MAX_STATEMENTS: usize = 16;

/// An enroller's word that a TPM holds both an endorsement key and an attestation key: the credential was activated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolmentStatement {
    /// The network.
    pub network: NetworkId,
    /// The node whose agent answered.
    pub node: NodeId,
    /// TPM name of the attestation key.
    pub ak_name: Base64Bytes,
    /// SHA-256 of the endorsement key's certificate in DER.
    pub ek_certificate: Digest,
    /// The simulated root in which that certificate's chain ended; absent where it was a maker's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub simulated_root: Option<SimulatedRootId>,
    /// The chip whose evidence came with the answer ([`starminer_verify::chip_digest`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chip: Option<Digest>,
    /// When.
    pub enrolled_at: UnixTime,
    /// Who enrolled, and signs.
    pub enroller: PublicKey,
}

impl Statement for EnrolmentStatement {
    const PAYLOAD_TYPE: &'static str = "application/vnd.starminer.enrolment.v1+json";
    fn signer(&self) -> PublicKey {
        self.enroller
    }
    fn check(&self) -> Result<(), &'static str> {
        if AkName::from_bytes(&self.ak_name.0).is_some() { Ok(()) } else { Err("ak_name is no name of a TPM's key") }
    }
}

/// A facility's word that a chip stands with it, and that nobody's hands are on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FacilityStatement {
    /// The network that it is given to.
    pub network: NetworkId,
    /// The chip ([`starminer_verify::chip_digest`]).
    pub chip: Digest,
    /// From when it counts.
    pub not_before: UnixTime,
    /// From when it counts no more.
    pub not_after: UnixTime,
    /// Who says so, and signs.
    pub facility: PublicKey,
}

impl Statement for FacilityStatement {
    const PAYLOAD_TYPE: &'static str = "application/vnd.starminer.facility.v1+json";
    fn signer(&self) -> PublicKey {
        self.facility
    }
    fn check(&self) -> Result<(), &'static str> {
        if self.not_before < self.not_after { Ok(()) } else { Err("it ends before it begins") }
    }
}

/// Why a document cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndorsementSetError {
    /// Too large.
    #[error("a set of endorsements has at most {MAX_ENDORSEMENT_SET_BYTES} bytes")]
    TooLarge,
    /// Not of this form.
    #[error("not a set of endorsements")]
    Malformed,
    /// More statements than anyone needs.
    #[error("more than {MAX_STATEMENTS} statements of a sort")]
    TooMany,
    /// A statement does not verify.
    #[error("a statement in it does not verify: {0}")]
    Statement(#[from] crate::dsse::EnvelopeError),
    /// A maker's file is not what it is said to be.
    #[error(transparent)]
    Endorsements(#[from] EndorsementsError),
}

impl EndorsementSetError {
    /// A stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLarge => "endorsements.too-large",
            Self::Malformed => "endorsements.malformed",
            Self::TooMany => "endorsements.too-many",
            Self::Statement(error) => error.code(),
            Self::Endorsements(error) => error.code(),
        }
    }
}

impl From<EndorsementSetError> for Refusal {
    fn from(error: EndorsementSetError) -> Self {
        Self::new(
            Party::Coordinator,
            error.code(),
            error.to_string(),
            "send the endorsements as their makers published them",
        )
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    kind: String,
    content: Base64Bytes,
}

/// The document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndorsementSet {
    version: u32,
    files: Vec<File>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    enrolments: Vec<Envelope>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    facilities: Vec<Envelope>,
}

/// Whose statements about nodes count.
#[derive(Debug, Clone, Copy)]
pub struct Enrollers<'a> {
    /// Whose word on activated keys.
    pub enrollers: &'a [PublicKey],
    /// Whose word on facilities.
    pub facilities: &'a [PublicKey],
}

/// A document, opened: what [`starminer_verify::Context`] takes.
#[derive(Debug, Clone)]
pub struct OpenedSet {
    /// The makers' files.
    pub endorsements: Endorsements,
    /// The statements that count.
    pub enrolments: Enrolments,
}

impl OpenedSet {
    /// Of a software TEE, which needs nothing.
    #[must_use]
    pub fn empty() -> Self {
        Self { endorsements: Endorsements::none(), enrolments: Enrolments::none() }
    }
}

impl EndorsementSet {
    /// A document of these files and signed statements; `None` where there are none.
    #[must_use]
    pub fn new(
        files: impl IntoIterator<Item = (EndorsementKind, Vec<u8>)>,
        enrolments: Vec<Envelope>,
        facilities: Vec<Envelope>,
    ) -> Option<Self> {
        let files: Vec<File> = files
            .into_iter()
            .map(|(kind, bytes)| File { kind: kind.name().into(), content: Base64Bytes(bytes) })
            .collect();
        let is_empty = files.is_empty() && enrolments.is_empty() && facilities.is_empty();
        (!is_empty).then_some(Self { version: 1, files, enrolments, facilities })
    }

    /// Reads a document. Believes nothing of it.
    ///
    /// # Errors
    /// [`EndorsementSetError::TooLarge`], [`EndorsementSetError::Malformed`], [`EndorsementSetError::TooMany`].
    pub fn parse(bytes: &[u8]) -> Result<Self, EndorsementSetError> {
        if bytes.len() > MAX_ENDORSEMENT_SET_BYTES {
            return Err(EndorsementSetError::TooLarge);
        }
        let set: Self = serde_json::from_slice(bytes).map_err(|_| EndorsementSetError::Malformed)?;
        if set.version != 1 || set.files.iter().any(|file| EndorsementKind::from_name(&file.kind).is_none()) {
            return Err(EndorsementSetError::Malformed);
        }
        if set.enrolments.len() > MAX_STATEMENTS || set.facilities.len() > MAX_STATEMENTS {
            return Err(EndorsementSetError::TooMany);
        }
        Ok(set)
    }

    /// Who signed the enrolments in it, as far as they say; once each.
    #[must_use]
    pub fn enrollers(&self) -> Vec<PublicKey> {
        let mut keys: Vec<PublicKey> = self
            .enrolments
            .iter()
            .filter_map(|envelope| Some(envelope.clone().open::<EnrolmentStatement>().ok()?.enroller))
            .collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// The document's bytes.
    ///
    /// # Panics
    /// Never: it is strings and bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a set is strings and bytes")
    }

    /// Opens it. Statements by anybody else than `enrollers` are left out, statements of another network too; one whose signature does not
    /// hold spoils the whole.
    ///
    /// # Errors
    /// [`EndorsementSetError::Statement`], [`EndorsementSetError::Endorsements`].
    pub fn open(&self, network: NetworkId, counts: Enrollers<'_>) -> Result<OpenedSet, EndorsementSetError> {
        let files =
            self.files.iter().filter_map(|file| Some((EndorsementKind::from_name(&file.kind)?, &file.content.0)));
        let endorsements = Endorsements::new(files)?;
        let mut enrolments = Enrolments::none();
        for envelope in &self.enrolments {
            let statement = envelope.clone().open::<EnrolmentStatement>()?;
            if statement.network == network && counts.enrollers.contains(&statement.enroller) {
                enrolments.keys.extend(statement.record());
            }
        }
        for envelope in &self.facilities {
            let statement = envelope.clone().open::<FacilityStatement>()?;
            if statement.network == network && counts.facilities.contains(&statement.facility) {
                enrolments.facilities.push(FacilityCredential {
                    network: statement.network,
                    chip: statement.chip,
                    not_before: statement.not_before,
                    not_after: statement.not_after,
                });
            }
        }
        Ok(OpenedSet { endorsements, enrolments })
    }
}

impl EnrolmentStatement {
    /// The record that verification compares.
    fn record(&self) -> Option<Enrolment> {
        Some(Enrolment {
            network: self.network,
            node: self.node,
            ak_name: AkName::from_bytes(&self.ak_name.0)?,
            ek_certificate: self.ek_certificate,
            provenance: self.simulated_root.map_or(Provenance::Genuine, |root| Provenance::Simulated { root }),
            chip: self.chip,
            enrolled_at: self.enrolled_at,
        })
    }
}
