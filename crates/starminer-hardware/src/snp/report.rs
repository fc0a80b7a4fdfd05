//! The attestation report, as bytes and as fields (AMD 56860, "Attestation Report Structure").
//!
//! A parser of our own: the `sev` crate reads reports through `std::io`, accepts version 4 and unknown ones as if it knew them, passes over reserved
//! bytes, and brings device access along. What is signed are the bytes; nothing here is encoded again.

use super::{
    flags::{GuestPolicy, PlatformInfo},
    tcb::{FirmwareVersion, Product, TcbVersion},
};

/// Length of a report.
pub const REPORT_BYTES: usize = 1184;
/// What its signature covers.
const SIGNED_BYTES: usize = 0x2a0;
/// The signature algorithm: ECDSA P-384 with SHA-384.
const ECDSA_P384_SHA384: u32 = 1;
/// What stands for VMPL where the host asked for the report.
pub const VMPL_HOST: u32 = u32::MAX;

/// Why bytes are no report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Another length.
    #[error("a report has {REPORT_BYTES} bytes, not {found}")]
    Length {
        /// What was given.
        found: usize,
    },
    /// A version whose meaning is not known here.
    #[error("report version {found} is none of 2, 3 and 5")]
    Version {
        /// What it says.
        found: u32,
    },
    /// Something that this version leaves zero is not.
    #[error("reserved bits are set: {field}")]
    Reserved {
        /// Where.
        field: &'static str,
    },
    /// Another signature algorithm than ECDSA P-384 with SHA-384.
    #[error("signature algorithm {found} is not ECDSA P-384 with SHA-384 (1)")]
    SignatureAlgorithm {
        /// What it says.
        found: u32,
    },
    /// No key signed it, or an unknown one.
    #[error("the report is not signed by VCEK or VLEK (key {key}, chip key masked: {masked})")]
    Unsigned {
        /// What it says of the key.
        key: u32,
        /// Whether the platform withholds its key.
        masked: bool,
    },
    /// A guest cannot run there.
    #[error("VMPL {found} does not exist")]
    Vmpl {
        /// What it says.
        found: u32,
    },
    /// Another processor than those that are known here.
    #[error("CPUID family {family:#04x} model {model:#04x} is neither Milan, Genoa nor Turin")]
    Processor {
        /// Combined family.
        family: u8,
        /// Combined model.
        model: u8,
    },
}

impl ParseError {
    /// A stable name.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Length { .. } => "snp.report.length",
            Self::Version { .. } => "snp.report.version",
            Self::Reserved { .. } => "snp.report.reserved",
            Self::SignatureAlgorithm { .. } => "snp.report.signature-algorithm",
            Self::Unsigned { .. } => "snp.report.unsigned",
            Self::Vmpl { .. } => "snp.report.vmpl",
            Self::Processor { .. } => "snp.report.processor",
        }
    }
}

/// Which key signed a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SigningKey {
    /// The chip's own, at a TCB version.
    Vcek,
    /// One that AMD gave to a cloud, which loads it into all its chips.
    Vlek,
}

impl SigningKey {
    /// The name in claims.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vcek => "vcek",
            Self::Vlek => "vlek",
        }
    }
}

/// CPUID's combined family, combined model, stepping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CpuId {
    /// Combined family.
    pub family: u8,
    /// Combined model.
    pub model: u8,
    /// Stepping.
    pub stepping: u8,
}

/// Mitigation vectors, since version 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mitigations {
    /// When the guest was launched.
    pub launch: u64,
    /// When the report was made.
    pub current: u64,
}

/// What a report says. Nobody vouches for it until it was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fields {
    pub(super) version: u32,
    pub(super) guest_svn: u32,
    pub(super) policy: GuestPolicy,
    pub(super) family_id: [u8; 16],
    pub(super) image_id: [u8; 16],
    pub(super) vmpl: u32,
    pub(super) current_tcb: TcbVersion,
    pub(super) platform: PlatformInfo,
    pub(super) signing_key: SigningKey,
    pub(super) author_key: bool,
    pub(super) report_data: [u8; 64],
    pub(super) measurement: [u8; 48],
    pub(super) host_data: [u8; 32],
    pub(super) id_key_digest: [u8; 48],
    pub(super) author_key_digest: [u8; 48],
    pub(super) report_id: [u8; 32],
    pub(super) report_id_ma: [u8; 32],
    pub(super) reported_tcb: TcbVersion,
    pub(super) cpuid: Option<CpuId>,
    pub(super) chip_id: [u8; 64],
    pub(super) committed_tcb: TcbVersion,
    pub(super) current_version: FirmwareVersion,
    pub(super) committed_version: FirmwareVersion,
    pub(super) launch_tcb: TcbVersion,
    pub(super) mitigations: Option<Mitigations>,
}

/// A parsed report, of which no claim can be read before it is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub(super) fields: Fields,
    pub(super) cpu_product: Option<Product>,
    signed: Vec<u8>,
    signature: [u8; 96],
}

/// Reads fields at fixed places of bytes whose length was checked.
struct Layout<'a>(&'a [u8; REPORT_BYTES]);

impl Layout<'_> {
    fn at<const N: usize>(&self, offset: usize) -> [u8; N] {
        self.0
            .get(offset..)
            .and_then(|rest| rest.first_chunk())
            .copied()
            .expect("every offset below stands within the report")
    }
    fn u32(&self, offset: usize) -> u32 {
        u32::from_le_bytes(self.at(offset))
    }
    fn u64(&self, offset: usize) -> u64 {
        u64::from_le_bytes(self.at(offset))
    }
    fn tcb(&self, offset: usize) -> TcbVersion {
        TcbVersion(self.at(offset))
    }
    fn version(&self, offset: usize) -> FirmwareVersion {
        let [build, minor, major] = self.at(offset);
        FirmwareVersion { major, minor, build }
    }
    fn zero(&self, range: std::ops::Range<usize>, field: &'static str) -> Result<(), ParseError> {
        let zero = self.0.get(range).is_some_and(|bytes| bytes.iter().all(|&byte| byte == 0));
        if zero { Ok(()) } else { Err(ParseError::Reserved { field }) }
    }
}

impl Report {
    /// Reads a report of version 2, 3 or 5.
    ///
    /// # Errors
    /// Where it is none, or sets what its version reserves.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let raw: &[u8; REPORT_BYTES] = bytes.try_into().map_err(|_| ParseError::Length { found: bytes.len() })?;
        let layout = Layout(raw);
        let version = layout.u32(0);
        if ![2, 3, 5].contains(&version) {
            return Err(ParseError::Version { found: version });
        }
        let algorithm = layout.u32(0x34);
        if algorithm != ECDSA_P384_SHA384 {
            return Err(ParseError::SignatureAlgorithm { found: algorithm });
        }
        let vmpl = layout.u32(0x30);
        if vmpl > 3 && vmpl != VMPL_HOST {
            return Err(ParseError::Vmpl { found: vmpl });
        }
        let (signing_key, author_key) = key_info(layout.u32(0x48))?;
        let policy = GuestPolicy(layout.u64(0x08));
        let platform = PlatformInfo(layout.u64(0x40));
        check_reserved(&layout, version, policy, platform)?;
        let cpuid = (version >= 3).then(|| {
            let [family, model, stepping] = layout.at(0x188);
            CpuId { family, model, stepping }
        });
        let cpu_product = match cpuid {
            None => None,
            Some(CpuId { family, model, .. }) => {
                Some(Product::from_cpuid(family, model).ok_or(ParseError::Processor { family, model })?)
            }
        };
        let fields = Fields {
            version,
            guest_svn: layout.u32(0x04),
            policy,
            family_id: layout.at(0x10),
            image_id: layout.at(0x20),
            vmpl,
            current_tcb: layout.tcb(0x38),
            platform,
            signing_key,
            author_key,
            report_data: layout.at(0x50),
            measurement: layout.at(0x90),
            host_data: layout.at(0xc0),
            id_key_digest: layout.at(0xe0),
            author_key_digest: layout.at(0x110),
            report_id: layout.at(0x140),
            report_id_ma: layout.at(0x160),
            reported_tcb: layout.tcb(0x180),
            cpuid,
            chip_id: layout.at(0x1a0),
            committed_tcb: layout.tcb(0x1e0),
            current_version: layout.version(0x1e8),
            committed_version: layout.version(0x1ec),
            launch_tcb: layout.tcb(0x1f0),
            mitigations: (version >= 5).then(|| Mitigations { launch: layout.u64(0x1f8), current: layout.u64(0x200) }),
        };
        // r and s stand in little-endian, each padded to 72 bytes.
        let (mut r, mut s): ([u8; 48], [u8; 48]) = (layout.at(SIGNED_BYTES), layout.at(SIGNED_BYTES + 72));
        r.reverse();
        s.reverse();
        let mut signature = [0; 96];
        signature[..48].copy_from_slice(&r);
        signature[48..].copy_from_slice(&s);
        Ok(Self { fields, cpu_product, signed: raw[..SIGNED_BYTES].to_vec(), signature })
    }

    /// What the signature covers.
    pub(super) fn signed(&self) -> &[u8] {
        &self.signed
    }

    /// r and s, big-endian.
    pub(super) const fn signature(&self) -> &[u8; 96] {
        &self.signature
    }

    /// Whether the platform withholds its chip id from guests.
    pub(super) fn chip_id_masked(&self) -> bool {
        self.fields.chip_id == [0; 64]
    }

    /// What the guest had signed, as it stands, unverified: cheap to compare before anything is verified.
    #[must_use]
    pub const fn unverified_report_data(&self) -> &[u8; 64] {
        &self.fields.report_data
    }

    /// The product by CPUID and the kind of key that signed, unverified. Versions before 3 do not say the product.
    #[must_use]
    pub const fn unverified_product_and_key(&self) -> (Option<Product>, SigningKey) {
        (self.cpu_product, self.fields.signing_key)
    }

    /// The chip id and reported TCB as they stand, unverified: what to ask AMD's key service for.
    #[must_use]
    pub const fn unverified_chip_and_tcb(&self) -> (&[u8; 64], TcbVersion) {
        (&self.fields.chip_id, self.fields.reported_tcb)
    }
}

/// The bits about the signing key: author key, masked chip key, which key.
const fn key_info(bits: u32) -> Result<(SigningKey, bool), ParseError> {
    if bits >> 5 != 0 {
        return Err(ParseError::Reserved { field: "key information" });
    }
    let masked = bits & 2 != 0;
    match (bits >> 2 & 7, masked) {
        (0, false) => Ok((SigningKey::Vcek, bits & 1 != 0)),
        (1, false) => Ok((SigningKey::Vlek, bits & 1 != 0)),
        (key, masked) => Err(ParseError::Unsigned { key, masked }),
    }
}

/// What this version leaves zero, or one.
fn check_reserved(
    layout: &Layout<'_>,
    version: u32,
    policy: GuestPolicy,
    platform: PlatformInfo,
) -> Result<(), ParseError> {
    // Bit 17 is always one. Bit 25, page swapping, came with version 5.
    let policy_bits = if version >= 5 { 26 } else { 25 };
    if policy.0 >> policy_bits != 0 || policy.0 >> 17 & 1 != 1 {
        return Err(ParseError::Reserved { field: "guest policy" });
    }
    // Bit 5, the search for aliases, came with version 3; bit 7, trusted I/O, with version 5.
    let platform_bits: u64 = match version {
        2 => 0b0001_1111,
        3 => 0b0011_1111,
        _ => 0b1011_1111,
    };
    if platform.0 & !platform_bits != 0 {
        return Err(ParseError::Reserved { field: "platform information" });
    }
    layout.zero(0x4c..0x50, "0x4c")?;
    layout.zero(if version >= 3 { 0x18b..0x1a0 } else { 0x188..0x1a0 }, "before the chip id")?;
    layout.zero(0x1eb..0x1ec, "0x1eb")?;
    layout.zero(0x1ef..0x1f0, "0x1ef")?;
    layout.zero(if version >= 5 { 0x208..SIGNED_BYTES } else { 0x1f8..SIGNED_BYTES }, "before the signature")?;
    layout.zero(SIGNED_BYTES + 48..SIGNED_BYTES + 72, "signature r")?;
    layout.zero(SIGNED_BYTES + 120..SIGNED_BYTES + 144, "signature s")?;
    layout.zero(SIGNED_BYTES + 144..REPORT_BYTES, "after the signature")
}
