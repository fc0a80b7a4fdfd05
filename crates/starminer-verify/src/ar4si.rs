//! The trustworthiness vector of AR4SI: eight aspects of an attester, each as one small number.
//!
//! Only values that the draft defines are used, and none is claimed that the evidence does not carry: an aspect nobody
//! looked at is 0, "no claim". Source: draft-ietf-rats-ar4si, sections 2.3.2 to 2.3.4.

use std::fmt;

/// How far a relying party should trust, in the four tiers of AR4SI. Ordered from best to worst; [`Self::None`] makes no
/// claim and stands apart from the order of trust, before all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TrustStatus {
    /// No claim.
    None,
    /// Affirmed.
    Affirming,
    /// Something to look at.
    Warning,
    /// Something speaks against it.
    Contraindicated,
}

impl TrustStatus {
    /// The name in the JSON of an EAR.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Affirming => "affirming",
            Self::Warning => "warning",
            Self::Contraindicated => "contraindicated",
        }
    }
}

impl fmt::Display for TrustStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One aspect's value, -128 to 127.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TrustClaim(i8);

impl TrustClaim {
    /// No claim is made.
    pub const NO_CLAIM: Self = Self(0);
    /// Instance identity: recognized, not known to be compromised.
    pub const INSTANCE_RECOGNIZED: Self = Self(2);
    /// Instance identity: not recognized.
    pub const INSTANCE_UNRECOGNIZED: Self = Self(97);
    /// Configuration: known and approved.
    pub const CONFIGURATION_APPROVED: Self = Self(2);
    /// Configuration: known vulnerabilities.
    pub const CONFIGURATION_UNSAFE: Self = Self(32);
    /// Configuration: elements that matter are not visible to the verifier.
    pub const CONFIGURATION_UNAVAILABLE: Self = Self(36);
    /// Configuration: unacceptable.
    pub const CONFIGURATION_UNSUPPORTABLE: Self = Self(96);
    /// Executables: recognized and approved when they were loaded; nothing said of what came later.
    pub const EXECUTABLES_APPROVED_BOOT: Self = Self(3);
    /// Executables: not recognized.
    pub const EXECUTABLES_UNRECOGNIZED: Self = Self(33);
    /// Hardware: genuine.
    pub const HARDWARE_GENUINE: Self = Self(2);
    /// Hardware: genuine with known vulnerabilities.
    pub const HARDWARE_UNSAFE: Self = Self(32);
    /// Hardware: not recognized.
    pub const HARDWARE_UNRECOGNIZED: Self = Self(97);
    /// Runtime memory: encrypted.
    pub const RUNTIME_ENCRYPTED: Self = Self(2);
    /// Runtime memory: visible to the host.
    pub const RUNTIME_VISIBLE: Self = Self(96);

    /// The number.
    pub const fn value(self) -> i8 {
        self.0
    }

    /// The tier that the number falls into (section 2.3.2).
    pub const fn status(self) -> TrustStatus {
        match self.0 {
            -1..=1 => TrustStatus::None,
            -32..=-2 | 2..=31 => TrustStatus::Affirming,
            -96..=-33 | 32..=95 => TrustStatus::Warning,
            i8::MIN..=-97 | 96..=i8::MAX => TrustStatus::Contraindicated,
        }
    }
}

/// The eight aspects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrustVector {
    /// Is this a device that is known?
    pub instance_identity: TrustClaim,
    /// Is it set up as it should be?
    pub configuration: TrustClaim,
    /// Is what runs there known?
    pub executables: TrustClaim,
    /// Are its files known?
    pub file_system: TrustClaim,
    /// Is the silicon genuine?
    pub hardware: TrustClaim,
    /// Is memory hidden from the host?
    pub runtime_opaque: TrustClaim,
    /// Are stored secrets hidden from the host?
    pub storage_opaque: TrustClaim,
    /// Is the data it works on attested?
    pub sourced_data: TrustClaim,
}

impl TrustVector {
    /// The aspects with their names in JSON, in the order of the draft.
    pub const fn aspects(&self) -> [(&'static str, TrustClaim); 8] {
        [
            ("instance-identity", self.instance_identity),
            ("configuration", self.configuration),
            ("executables", self.executables),
            ("file-system", self.file_system),
            ("hardware", self.hardware),
            ("runtime-opaque", self.runtime_opaque),
            ("storage-opaque", self.storage_opaque),
            ("sourced-data", self.sourced_data),
        ]
    }

    /// The worst aspect: what an EAR's status must not exceed.
    pub fn worst(&self) -> TrustStatus {
        self.aspects().into_iter().map(|(_, claim)| claim.status()).max().unwrap_or(TrustStatus::None)
    }
}
