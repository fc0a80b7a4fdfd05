//! Where trust starts: makers' roots, which are compiled in, and simulated roots, which somebody has to name.
//!
//! Provenance follows from the root that a chain ended in and from nothing else: what evidence says of itself plays no
//! part. Makers' roots are those of `starminer-hardware`; there is no way to add one at run time. Of hardware kinds, a simulated root is
//! named by the SHA-256 of its certificate, which comes with the evidence or the endorsements and counts only if it is named.
//! Source: DESIGN.md "Evidence and appraisal", provenance; `specs/evidence.md`, section "Trust".

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::types::{Digest, ParseIdError, PublicKey};

/// Most simulated roots that a trust file or a policy names.
pub const MAX_SIMULATED_ROOTS: usize = 16;

/// A root that vouches for no silicon. Text form: what it would be the root of, a colon, and the root in hexadecimal. A root of
/// one sort vouches for nothing of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum SimulatedRootId {
    /// `software-tee`: the Ed25519 key by which a network certifies its software TEEs.
    SoftwareTee(PublicKey),
    /// `sev-snp`: SHA-256 of a certificate in the place of AMD's ARK.
    SevSnp(Digest),
    /// `intel`: SHA-256 of a certificate in the place of Intel's SGX root, for SGX and TDX.
    Intel(Digest),
    /// `tpm`: SHA-256 of a certificate in the place of a TPM maker's root; of swtpm's authority, say.
    Tpm(Digest),
    /// `nvidia`: SHA-256 of a certificate in the place of NVIDIA's root of devices.
    Nvidia(Digest),
    /// `nvidia-rim`: SHA-256 of a certificate in the place of NVIDIA's root of manifests.
    NvidiaRim(Digest),
}

impl SimulatedRootId {
    /// What stands before the colon.
    pub const fn sort(&self) -> &'static str {
        match self {
            Self::SoftwareTee(_) => "software-tee",
            Self::SevSnp(_) => "sev-snp",
            Self::Intel(_) => "intel",
            Self::Tpm(_) => "tpm",
            Self::Nvidia(_) => "nvidia",
            Self::NvidiaRim(_) => "nvidia-rim",
        }
    }
}

impl fmt::Display for SimulatedRootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sort = self.sort();
        match self {
            Self::SoftwareTee(key) => write!(f, "{sort}:{key}"),
            Self::SevSnp(root) | Self::Intel(root) | Self::Tpm(root) | Self::Nvidia(root) | Self::NvidiaRim(root) => {
                write!(f, "{sort}:{root}")
            }
        }
    }
}

/// A text does not name a simulated root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ParseRootError {
    /// No known kind before the colon.
    #[error("a simulated root is written as software-tee:<hex>, sev-snp:, intel:, tpm:, nvidia: or nvidia-rim:<hex>")]
    Kind,
    /// What follows the colon is not a root of that kind.
    #[error("the root after the colon: {0}")]
    Root(ParseIdError),
}

impl FromStr for SimulatedRootId {
    type Err = ParseRootError;

    fn from_str(text: &str) -> Result<Self, ParseRootError> {
        let (sort, root) = text.split_once(':').ok_or(ParseRootError::Kind)?;
        let certificate = |of: fn(Digest) -> Self| root.parse().map(of).map_err(ParseRootError::Root);
        match sort {
            "software-tee" => root.parse().map(Self::SoftwareTee).map_err(ParseRootError::Root),
            "sev-snp" => certificate(Self::SevSnp),
            "intel" => certificate(Self::Intel),
            "tpm" => certificate(Self::Tpm),
            "nvidia" => certificate(Self::Nvidia),
            "nvidia-rim" => certificate(Self::NvidiaRim),
            _ => Err(ParseRootError::Kind),
        }
    }
}

impl TryFrom<String> for SimulatedRootId {
    type Error = ParseRootError;

    fn try_from(text: String) -> Result<Self, ParseRootError> {
        text.parse()
    }
}

impl From<SimulatedRootId> for String {
    fn from(root: SimulatedRootId) -> Self {
        root.to_string()
    }
}

/// What stands behind a verified chain. Goes with every tier, into the EAR, the log and the receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Provenance {
    /// A maker's root, compiled in.
    Genuine,
    /// Any other root: proves who runs the simulation, never silicon.
    Simulated {
        /// The root in which the chain ended.
        root: SimulatedRootId,
    },
}

impl Provenance {
    /// One word: `genuine` or `simulated`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Genuine => "genuine",
            Self::Simulated { .. } => "simulated",
        }
    }
}

impl fmt::Display for Provenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Genuine => f.write_str("genuine"),
            Self::Simulated { root } => write!(f, "simulated ({root})"),
        }
    }
}

/// The roots that a verifier starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustAnchors {
    simulated: BTreeSet<SimulatedRootId>,
}

/// More than [`MAX_SIMULATED_ROOTS`] simulated roots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("at most {MAX_SIMULATED_ROOTS} simulated roots can be named")]
pub struct TooManyRoots;

impl TrustAnchors {
    /// The makers' roots that are compiled in, and no simulated one.
    pub const fn makers() -> Self {
        Self { simulated: BTreeSet::new() }
    }

    /// The same and these simulated roots, each named by the caller's own trust file. Evidence under them is
    /// `simulated` whatever it says, and is still refused by any policy that does not name the root as well.
    pub fn with_simulated_roots(
        mut self,
        roots: impl IntoIterator<Item = SimulatedRootId>,
    ) -> Result<Self, TooManyRoots> {
        for root in roots {
            self.simulated.insert(root);
            if self.simulated.len() > MAX_SIMULATED_ROOTS {
                return Err(TooManyRoots);
            }
        }
        Ok(self)
    }

    /// Whether a simulated root was named.
    pub fn names(&self, root: &SimulatedRootId) -> bool {
        self.simulated.contains(root)
    }

    /// The simulated roots that were named.
    pub fn simulated_roots(&self) -> impl Iterator<Item = &SimulatedRootId> {
        self.simulated.iter()
    }
}
