//! What is asked of a verified report. Every expectation is written out; one that is not set denies.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{
    claims::Names,
    tcb::{Components, FirmwareVersion, Product},
};

/// Bytes of a fixed length, in hex.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hex<const N: usize>(pub [u8; N]);

impl<const N: usize> Serialize for Hex<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl<'de, const N: usize> Deserialize<'de> for Hex<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).map_err(D::Error::custom)?;
        let array = bytes.try_into().map_err(|_| D::Error::custom(format!("{N} bytes of hex are expected")))?;
        Ok(Self(array))
    }
}

/// The values that are accepted: `"any"`, or a list. An empty list is one that nobody set, and accepts nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect<T> {
    /// Whatever it is. It shows as not checked.
    Any,
    /// One of these.
    OneOf(Vec<T>),
}

impl<T: Serialize> Serialize for Expect<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Any => serializer.serialize_str("any"),
            Self::OneOf(values) => values.serialize(serializer),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Expect<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form<T> {
            List(Vec<T>),
            Word(String),
        }
        match Form::deserialize(deserializer)? {
            Form::List(values) => Ok(Self::OneOf(values)),
            Form::Word(word) if word == "any" => Ok(Self::Any),
            Form::Word(_) => Err(D::Error::custom("\"any\" or a list is expected")),
        }
    }
}

impl<T> Expect<T> {
    /// Nothing is set, and nothing accepted.
    #[must_use]
    pub const fn unset() -> Self {
        Self::OneOf(Vec::new())
    }
}

/// What a bit has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Want {
    /// Either. It shows as not checked.
    Any,
    /// Set.
    Yes,
    /// Clear.
    No,
}

/// Whether AMD's revocation list has to have been looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Crls {
    /// It has to.
    Required,
    /// It need not.
    Optional,
}

/// Whether a report may withhold its chip id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MaskedChip {
    /// It may not.
    Refused,
    /// It may; a VCEK's certificate names the chip all the same.
    Accepted,
}

/// Whether firmware may run that the platform can still go back behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provisional {
    /// It may not: what runs is committed.
    Refused,
    /// It may.
    Accepted,
}

/// What the guest policy, which its owner set at launch, has to allow and forbid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GuestRules {
    /// The host may debug, that is read and write memory. `no` by default.
    pub debug: Want,
    /// A migration agent may be associated. `no` by default.
    pub migration_agent: Want,
    /// The host may use SMT. `any` by default.
    pub smt: Want,
    /// Bound to one socket. `any` by default.
    pub single_socket: Want,
    /// CXL may be populated. `no` by default.
    pub cxl: Want,
    /// AES-256-XTS is required. `any` by default: Milan has none.
    pub aes_256_xts: Want,
    /// Power readings have to be off. `any` by default.
    pub rapl_disabled: Want,
    /// Ciphertext hiding has to be on. `any` by default: Milan has none.
    pub ciphertext_hiding: Want,
    /// Page moving and swapping are forbidden. `any` by default: since report version 5.
    pub page_swap_disabled: Want,
    /// The lowest firmware API that the guest policy has to ask for: major, minor. `[0, 0]`, none, by default.
    pub abi_floor: (u8, u8),
}

impl Default for GuestRules {
    fn default() -> Self {
        Self {
            debug: Want::No,
            migration_agent: Want::No,
            smt: Want::Any,
            single_socket: Want::Any,
            cxl: Want::No,
            aes_256_xts: Want::Any,
            rapl_disabled: Want::Any,
            ciphertext_hiding: Want::Any,
            page_swap_disabled: Want::Any,
            abi_floor: (0, 0),
        }
    }
}

/// How the platform has to be set up. All `any` by default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PlatformRules {
    /// SMT is on.
    pub smt: Want,
    /// Transparent encryption of all memory is on.
    pub tsme: Want,
    /// Memory has ECC.
    pub ecc: Want,
    /// Power readings are off.
    pub rapl_disabled: Want,
    /// Ciphertext hiding is on.
    pub ciphertext_hiding: Want,
    /// Memory was searched for aliases since reset, and has none. Since report version 3.
    pub alias_check_complete: Want,
    /// Trusted I/O is on. Since report version 5.
    pub trusted_io: Want,
}

impl Default for PlatformRules {
    fn default() -> Self {
        Self {
            smt: Want::Any,
            tsme: Want::Any,
            ecc: Want::Any,
            rapl_disabled: Want::Any,
            ciphertext_hiding: Want::Any,
            alias_check_complete: Want::Any,
            trusted_io: Want::Any,
        }
    }
}

/// What is asked of a verified report.
///
/// The default is strict: it names no measurement, no report data and no TCB floor, and so accepts nothing before somebody sets them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// SHA-256 of roots other than AMD's that are accepted, in hex. None by default.
    pub simulated_roots: Vec<Hex<32>>,
    /// Whether AMD's revocation list has to have been looked at. `required` by default.
    pub crl: Crls,
    /// Report versions. 2, 3 and 5 by default.
    pub report_versions: Expect<u32>,
    /// Products. All three by default.
    pub products: Expect<Product>,
    /// What the signing key has to name: `chip` refuses VLEKs, `cloud` accepts both. `chip` by default.
    pub names: Names,
    /// Clouds whose VLEKs are accepted. None by default.
    pub cloud_ids: Expect<String>,
    /// Chips, in hex as in their certificates. `any` by default.
    pub chip_ids: Expect<String>,
    /// Chips that are refused, in hex as in their certificates. None by default.
    pub denied_chip_ids: Vec<String>,
    /// Whether a report may withhold its chip id. `refused` by default.
    pub masked_chip_id: MaskedChip,
    /// For each product, the lowest components of the reported, the committed and the launch TCB. A product without a floor is refused.
    pub tcb_floor: BTreeMap<Product, Components>,
    /// Whether firmware may run that is not committed. `refused` by default.
    pub provisional_firmware: Provisional,
    /// The lowest committed firmware version. `0.0.0`, none, by default: the TCB floor says more.
    pub firmware_floor: FirmwareVersion,
    /// What the guest's owner has to have allowed and forbidden.
    pub guest: GuestRules,
    /// How the platform has to be set up.
    pub platform: PlatformRules,
    /// Privilege levels from which the report may have been asked for. 0 by default.
    pub vmpl: Expect<u32>,
    /// Launch digests. Unset by default, which denies.
    pub measurement: Expect<Hex<48>>,
    /// What the guest had signed, its binding. Unset by default, which denies.
    pub report_data: Expect<Hex<64>>,
    /// What the host set at launch. `any` by default: the host set it.
    pub host_data: Expect<Hex<32>>,
    /// Keys that sign ID blocks, by SHA-384. `any` by default.
    pub id_key_digest: Expect<Hex<48>>,
    /// Keys that sign those keys, by SHA-384. `any` by default.
    pub author_key_digest: Expect<Hex<48>>,
    /// Family ids of ID blocks. `any` by default.
    pub family_id: Expect<Hex<16>>,
    /// Image ids of ID blocks. `any` by default.
    pub image_id: Expect<Hex<16>>,
    /// Guests, by report id. `any` by default.
    pub report_id: Expect<Hex<32>>,
    /// The lowest security version of the guest. 0, none, by default.
    pub guest_svn_floor: u32,
    /// Bits that both mitigation vectors have to have. 0, none, by default. Since report version 5.
    pub mitigations: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            simulated_roots: Vec::new(),
            crl: Crls::Required,
            report_versions: Expect::OneOf(vec![2, 3, 5]),
            products: Expect::OneOf(vec![Product::Milan, Product::Genoa, Product::Turin]),
            names: Names::Chip,
            cloud_ids: Expect::unset(),
            chip_ids: Expect::Any,
            denied_chip_ids: Vec::new(),
            masked_chip_id: MaskedChip::Refused,
            tcb_floor: BTreeMap::new(),
            provisional_firmware: Provisional::Refused,
            firmware_floor: FirmwareVersion::default(),
            guest: GuestRules::default(),
            platform: PlatformRules::default(),
            vmpl: Expect::OneOf(vec![0]),
            measurement: Expect::unset(),
            report_data: Expect::unset(),
            host_data: Expect::Any,
            id_key_digest: Expect::Any,
            author_key_digest: Expect::Any,
            family_id: Expect::Any,
            image_id: Expect::Any,
            report_id: Expect::Any,
            guest_svn_floor: 0,
            mitigations: 0,
        }
    }
}
