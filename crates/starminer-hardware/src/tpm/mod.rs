//! TPM 2.0, the verifier's half: quotes, attestation keys, endorsement keys with their certificates, credential activation.
//!
//! A quote ([`Quote`]) says which PCR values a TPM held, at which of its clock's times, over a challenge. It is worth what its key is worth: a
//! *restricted* key ([`AttestationKey`]) signs nothing of that form that the TPM did not make. That the key is in a genuine TPM is shown by
//! the maker's certificate of the endorsement key ([`ek`]) and by a credential that only this TPM opens, for that very key ([`credential`]).
//!
//! Structures are TCG TPM 2.0 Library, Part 2, read with `tpm2-protocol`: fixed capacities, no allocation, every length checked against the
//! bytes that are there. What it leaves to its users is checked here: trailing bytes, reserved attribute bits, sizes of keys and digests.
//!
//! Not here: what an event log says about PCR values, and the commands to a TPM.

pub mod approval;
mod attest;
pub mod clock;
pub mod credential;
pub mod ek;
pub mod enrolment;
pub mod kdf;
mod makers;
mod pcrs;
mod policy;
mod public;
mod quote;
mod san;
mod signature;
mod template;

pub use attest::{Attest, Clock, PcrSelection};
pub use pcrs::{PcrIndex, PcrValues};
pub use policy::{Demand, Policy, Unset, appraise};
pub use public::{Algorithm, AttestationKey, Attributes, Public, Symmetric};
pub use quote::{AkClaims, Claims, Context, Hierarchy, Parent, Quote, Verification, Verified, verify};
pub use signature::{Scheme, SchemeKind, Signature};
pub use template::Template;

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};
use tpm2_protocol::{TpmError, TpmUnmarshal, data::TpmAlgId};

/// A hash algorithm of names, signatures and PCR banks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HashAlg {
    /// SHA-1: PCR banks only.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl HashAlg {
    /// The name in JSON and policies.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }

    /// Bytes of a digest.
    #[must_use]
    pub const fn len_bytes(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Sha1, Self::Sha256, Self::Sha384, Self::Sha512].into_iter().find(|alg| alg.name() == name)
    }

    /// The algorithm of a `TPM_ALG_ID`; `None` for what is none of these.
    #[must_use]
    pub fn from_id(id: u16) -> Option<Self> {
        [Self::Sha1, Self::Sha256, Self::Sha384, Self::Sha512].into_iter().find(|alg| alg.id() == id)
    }

    const fn from_tpm(alg: TpmAlgId) -> Option<Self> {
        match alg {
            TpmAlgId::Sha1 => Some(Self::Sha1),
            TpmAlgId::Sha256 => Some(Self::Sha256),
            TpmAlgId::Sha384 => Some(Self::Sha384),
            TpmAlgId::Sha512 => Some(Self::Sha512),
            _ => None,
        }
    }

    /// The `TPM_ALG_ID`.
    #[must_use]
    pub const fn id(self) -> u16 {
        match self {
            Self::Sha1 => 0x0004,
            Self::Sha256 => 0x000b,
            Self::Sha384 => 0x000c,
            Self::Sha512 => 0x000d,
        }
    }

    fn digest(self, parts: &[&[u8]]) -> digest::Digest {
        let mut context = digest::Context::new(match self {
            Self::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => &digest::SHA256,
            Self::Sha384 => &digest::SHA384,
            Self::Sha512 => &digest::SHA512,
        });
        for part in parts {
            context.update(part);
        }
        context.finish()
    }
}

/// Why bytes are not what they should be. Nothing of them is believed either way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// More bytes than anything real has.
    #[error("{what} of more than {most} bytes")]
    TooLong {
        /// Of what.
        what: &'static str,
        /// The bound.
        most: usize,
    },
    /// The structure does not have the form that the TPM library specification gives it.
    #[error("{what} is malformed")]
    Structure {
        /// Which one.
        what: &'static str,
        /// Where.
        #[source]
        source: TpmError,
    },
    /// It has a form that nothing reads.
    #[error("{what} is malformed: {why}")]
    Malformed {
        /// Which one.
        what: &'static str,
        /// In which way.
        why: &'static str,
    },
    /// Bytes follow that belong to nothing.
    #[error("bytes follow {0}")]
    Trailing(&'static str),
    /// The attestation is about something else than PCRs.
    #[error("an attestation structure that is not a quote")]
    NotAQuote,
    /// An algorithm or size that is not accepted.
    #[error("{0} is not supported")]
    Unsupported(&'static str),
}

impl ParseError {
    /// A stable name.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "tpm.too-long",
            Self::Structure { .. } | Self::Malformed { .. } => "tpm.malformed",
            Self::Trailing(_) => "tpm.trailing",
            Self::NotAQuote => "tpm.not-a-quote",
            Self::Unsupported(_) => "tpm.unsupported",
        }
    }
}

/// Reads one structure that fills the bytes.
fn unmarshal<T: TpmUnmarshal>(what: &'static str, bytes: &[u8]) -> Result<T, ParseError> {
    let (value, rest) = T::unmarshal(bytes).map_err(|source| ParseError::Structure { what, source })?;
    if rest.is_empty() { Ok(value) } else { Err(ParseError::Trailing(what)) }
}

/// What a TPM2B wraps, if these bytes are one.
fn unwrap_2b(bytes: &[u8]) -> Option<&[u8]> {
    let (size, inner) = bytes.split_first_chunk::<2>()?;
    (usize::from(u16::from_be_bytes(*size)) == inner.len()).then_some(inner)
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}
