//! Tiers: how much a node has proven, as one ordered word.
//!
//! A tier says nothing without its provenance; see [`crate::Provenance`]. Source: DESIGN.md, table of tiers.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What is proven, from least to most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    /// Nothing.
    None,
    /// A certified device made the evidence: a genuine TPM, or a TEE whose other conditions do not hold.
    Identified,
    /// Also Secure Boot on, boot chain and agent as referenced, job storage encrypted and locked.
    Measured,
    /// A CPU TEE with memory encryption, debug off, trusted base at or above the floor, agent as referenced.
    Confidential,
    /// `Confidential` on a host enrolled together with a `measured` TPM, side-channel posture and facility credentials
    /// in force.
    Hardened,
}

impl Tier {
    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Identified => "identified",
            Self::Measured => "measured",
            Self::Confidential => "confidential",
            Self::Hardened => "hardened",
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
