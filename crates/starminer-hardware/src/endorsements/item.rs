//! One endorsement: as somebody brought it, and as it was verified.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::{
    age::Ages,
    key::{Key, Location},
    ocsp::Status,
};
use crate::{
    cert::{Certificate, Crl, Provenance, Roots},
    dcap, nvidia, snp, tpm,
};

/// The largest content or chain of an item.
pub const MAX_OBJECT_BYTES: usize = crate::cert::MAX_CRL_BYTES;
/// The longest base address that is noted of an item.
pub const MAX_SOURCE_BYTES: usize = 256;

/// Bytes with their name.
#[derive(Clone, PartialEq, Eq)]
pub struct Object {
    bytes: Arc<[u8]>,
    sha256: [u8; 32],
}

impl std::fmt::Debug for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Object({}, {} bytes)", data_encoding::HEXLOWER.encode(&self.sha256), self.bytes.len())
    }
}

impl Object {
    /// Names bytes.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self { sha256: sha256(bytes), bytes: bytes.into() }
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// SHA-256 of the bytes.
    #[must_use]
    pub const fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

/// An endorsement as somebody brought it. Nothing of it is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// What it is said to be about.
    pub key: Key,
    /// As it came.
    pub content: Vec<u8>,
    /// Certificates of its issuer, where its maker gives them apart: with Intel's JSON and list of PCK certificates, and for OCSP.
    pub chain: Option<Vec<u8>>,
    /// When it was had, in seconds since 1970: the word of whoever brings it.
    pub fetched_s: u64,
    /// From which base address: likewise.
    pub source: String,
}

/// Who is trusted to issue endorsements.
#[derive(Debug, Clone)]
pub struct Trust {
    /// For AMD's.
    pub amd: Roots,
    /// For Intel's.
    pub intel: Roots,
    /// For NVIDIA's.
    pub nvidia: nvidia::Roots,
    /// For those of TPM makers.
    pub tpm: Roots,
}

impl Trust {
    /// The makers, whose roots are compiled in.
    #[must_use]
    pub fn genuine() -> Self {
        Self { amd: snp::roots(), intel: dcap::roots(), nvidia: nvidia::Roots::compiled_in(), tpm: tpm::ek::roots() }
    }
}

/// A number that never goes back: of a revocation list, or of the evaluation behind TCB data. Big-endian without leading zeros, in hex.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Number(Vec<u8>);

impl Number {
    /// From big-endian bytes.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.iter().copied().skip_while(|&byte| byte == 0).collect())
    }
}

impl From<u32> for Number {
    fn from(number: u32) -> Self {
        Self::new(&number.to_be_bytes())
    }
}

impl From<Number> for String {
    fn from(number: Number) -> Self {
        data_encoding::HEXLOWER.encode(&number.0)
    }
}

impl TryFrom<String> for Number {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match data_encoding::HEXLOWER.decode(text.as_bytes()) {
            Ok(bytes) if bytes.len() <= 32 && bytes.first() != Some(&0) => Ok(Self(bytes)),
            _ => Err("a number is at most 32 bytes of hex without leading zeros"),
        }
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.len().cmp(&other.0.len()).then_with(|| self.0.cmp(&other.0))
    }
}

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.len() {
            0..=8 => write!(f, "{}", self.0.iter().fold(0u64, |sum, &byte| (sum << 8) | u64::from(byte))),
            _ => write!(f, "0x{}", data_encoding::HEXLOWER.encode(&self.0)),
        }
    }
}

/// What its maker signed about an endorsement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// When it was issued, where it ages: not of certificates.
    pub issued_s: Option<u64>,
    /// The last second at which its maker lets it count.
    pub until_s: u64,
    /// What must not go back.
    pub number: Option<Number>,
    /// SHA-256 of its issuer's name, of revocation lists.
    pub issuer: Option<[u8; 32]>,
    /// Who stands behind the root.
    pub provenance: Provenance,
}

/// The readable form of what was verified.
#[derive(Debug, Clone)]
pub(super) enum Parsed {
    Certificates(Vec<Certificate>),
    Crl(Box<Crl>),
    Signed { text: String, signature: String },
    Rim,
    Ocsp(Status),
}

/// An endorsement that was verified. Only [`super::Snapshot::verify`] makes one.
#[derive(Debug, Clone)]
pub struct Item {
    pub(super) key: Key,
    pub(super) content: Object,
    pub(super) chain: Option<Object>,
    pub(super) fetched_s: u64,
    pub(super) source: String,
    pub(super) facts: Facts,
    pub(super) parsed: Parsed,
}

impl Item {
    /// What it is about.
    #[must_use]
    pub const fn key(&self) -> &Key {
        &self.key
    }

    /// What its maker published: certificates, lists and chains in DER whatever form they came in, JSON and XML as they came.
    #[must_use]
    pub const fn content(&self) -> &Object {
        &self.content
    }

    /// Certificates of its issuer, where they come apart, in DER one after the other.
    #[must_use]
    pub const fn chain(&self) -> Option<&Object> {
        self.chain.as_ref()
    }

    /// When it was last had, in seconds since 1970.
    #[must_use]
    pub const fn fetched_s(&self) -> u64 {
        self.fetched_s
    }

    /// From which base address.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// What its maker signed about it.
    #[must_use]
    pub const fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The last second at which it may be used.
    #[must_use]
    pub fn usable_until_s(&self, ages: &Ages) -> u64 {
        ages.until_s(&self.key, self.fetched_s, self.facts.issued_s, self.facts.until_s)
    }

    /// When it is to be renewed.
    #[must_use]
    pub fn refresh_at_s(&self, ages: &Ages) -> u64 {
        ages.refresh_s(self.fetched_s, self.usable_until_s(ages))
    }

    /// Whether it may be used at this time.
    pub(super) fn state(&self, ages: &Ages, now_s: u64) -> Result<(), Absence> {
        if now_s > self.facts.until_s {
            return Err(Absence::Ended { at_s: self.facts.until_s });
        }
        let until_s = self.usable_until_s(ages);
        if now_s > until_s {
            return Err(Absence::TooOld { since_s: until_s });
        }
        Ok(())
    }
}

/// Why an endorsement cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Absence {
    /// It was never had.
    #[error("it was not fetched")]
    NotFetched,
    /// Its maker lets it count no more.
    #[error("it ended at {at_s}")]
    Ended {
        /// Seconds since 1970.
        at_s: u64,
    },
    /// Older than the policy lets it get.
    #[error("it is older than the policy allows since {since_s}")]
    TooOld {
        /// Seconds since 1970.
        since_s: u64,
    },
}

/// An endorsement that is needed and cannot be used, and where to get it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Which.
    pub what: Key,
    /// Why.
    pub why: Absence,
}

impl Missing {
    /// Where to fetch it: none for what comes with the evidence alone.
    #[must_use]
    pub fn fetch(&self) -> Option<Location> {
        self.what.location()
    }
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}; ", self.what, self.why)?;
        match (&self.what, self.fetch()) {
            (Key::IntelRootCrl, _) => f.write_str("fetch the revocation list of Intel's root"),
            (_, Some(location)) => write!(f, "fetch {location}"),
            (_, None) => f.write_str("it comes with the evidence"),
        }
    }
}
