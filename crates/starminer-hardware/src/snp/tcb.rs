//! Products, and what the eight bytes of a TCB version mean on each.

use serde::{Deserialize, Serialize};

/// A line of processors, which share a root and a layout of the TCB version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Product {
    /// EPYC 7003.
    Milan,
    /// EPYC 9004, with Bergamo and Siena.
    Genoa,
    /// EPYC 9005.
    Turin,
}

impl Product {
    /// The name in certificates, without a stepping.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Milan => "Milan",
            Self::Genoa => "Genoa",
            Self::Turin => "Turin",
        }
    }

    /// The name in claims and policies.
    #[must_use]
    pub const fn claim(self) -> &'static str {
        match self {
            Self::Milan => "milan",
            Self::Genoa => "genoa",
            Self::Turin => "turin",
        }
    }

    /// From a certificate's product name, which may end in a stepping: `Milan-B0`.
    pub(super) fn from_certificate(name: &str) -> Option<Self> {
        match name.split_once('-').map_or(name, |(product, _)| product) {
            "Milan" => Some(Self::Milan),
            "Genoa" | "Bergamo" | "Siena" => Some(Self::Genoa),
            "Turin" => Some(Self::Turin),
            _ => None,
        }
    }

    /// From CPUID's combined family and model.
    pub(super) const fn from_cpuid(family: u8, model: u8) -> Option<Self> {
        match (family, model) {
            (0x19, 0x00..=0x0f) => Some(Self::Milan),
            (0x19, 0x10..=0x1f | 0xa0..=0xaf) => Some(Self::Genoa),
            (0x1a, 0x00..=0x1f) => Some(Self::Turin),
            _ => None,
        }
    }
}

/// The security versions within a TCB version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Components {
    /// FMC. Turin alone has it, and elsewhere it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fmc: Option<u8>,
    /// Boot loader of the security processor.
    pub bootloader: u8,
    /// Its operating system.
    pub tee: u8,
    /// SNP firmware.
    pub snp: u8,
    /// The lowest microcode patch level of all cores.
    pub microcode: u8,
}

impl Components {
    /// Whether no component is below the floor's.
    #[must_use]
    pub fn at_least(&self, floor: &Self) -> bool {
        self.fmc.unwrap_or(0) >= floor.fmc.unwrap_or(0)
            && self.bootloader >= floor.bootloader
            && self.tee >= floor.tee
            && self.snp >= floor.snp
            && self.microcode >= floor.microcode
    }
}

impl std::fmt::Display for Components {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(fmc) = self.fmc {
            write!(f, "fmc {fmc}, ")?;
        }
        write!(f, "bootloader {}, tee {}, snp {}, microcode {}", self.bootloader, self.tee, self.snp, self.microcode)
    }
}

/// A TCB version as it stands in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TcbVersion(pub [u8; 8]);

impl TcbVersion {
    /// What it says on this product.
    #[must_use]
    pub const fn components(self, product: Product) -> Components {
        match (product, self.0) {
            (Product::Milan | Product::Genoa, [bootloader, tee, _, _, _, _, snp, microcode]) => {
                Components { fmc: None, bootloader, tee, snp, microcode }
            }
            (Product::Turin, [fmc, bootloader, tee, snp, _, _, _, microcode]) => {
                Components { fmc: Some(fmc), bootloader, tee, snp, microcode }
            }
        }
    }

    /// Whether the bytes that mean nothing on this product are zero.
    #[must_use]
    pub const fn reserved_are_zero(self, product: Product) -> bool {
        match (product, self.0) {
            (Product::Milan | Product::Genoa, [_, _, a, b, c, d, _, _]) => a | b | c | d == 0,
            (Product::Turin, [_, _, _, _, a, b, c, _]) => a | b | c == 0,
        }
    }
}

/// A version of the SNP firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct FirmwareVersion {
    /// API version, major.
    pub major: u8,
    /// API version, minor.
    pub minor: u8,
    /// Build.
    pub build: u8,
}

impl std::fmt::Display for FirmwareVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.build)
    }
}

impl From<FirmwareVersion> for String {
    fn from(version: FirmwareVersion) -> Self {
        version.to_string()
    }
}

impl TryFrom<String> for FirmwareVersion {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        const SHAPE: &str = "a firmware version is three numbers below 256: 1.55.0";
        let mut parts = text.split('.').map(|part| part.parse::<u8>().map_err(|_| SHAPE));
        let mut next = || parts.next().unwrap_or(Err(SHAPE));
        let version = Self { major: next()?, minor: next()?, build: next()? };
        if parts.next().is_some() { Err(SHAPE) } else { Ok(version) }
    }
}
