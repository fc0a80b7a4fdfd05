//! What an endorsement is about, and where makers publish it.

use std::{fmt, str::FromStr};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{
    dcap::Tee,
    snp::{Product, SigningKey, TcbVersion},
};

/// The longest text form of a key, in bytes.
pub const MAX_KEY_BYTES: usize = 512;
/// The longest serial number of a certificate (RFC 5280, 4.1.2.2).
const MAX_SERIAL_BYTES: usize = 20;
/// The longest name of a cloud.
const MAX_CLOUD_BYTES: usize = 128;

/// Which of Intel's authorities issued a PCK certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PckAuthority {
    /// For processors that are provisioned one by one.
    Processor,
    /// For platforms of several packages.
    Platform,
}

impl PckAuthority {
    /// The name in Intel's addresses.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Processor => "processor",
            Self::Platform => "platform",
        }
    }

    /// The common name of its certificate.
    pub(super) const fn common_name(self) -> &'static str {
        match self {
            Self::Processor => "Intel SGX PCK Processor CA",
            Self::Platform => "Intel SGX PCK Platform CA",
        }
    }
}

/// What an endorsement is about. Its text form names it in snapshots, bundles and messages.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Key {
    /// The certificate of a chip's key at a TCB.
    AmdVcek {
        /// The line of processors.
        product: Product,
        /// As in the certificate: 64 bytes, of Turin 8.
        chip_id: Vec<u8>,
        /// What the key was derived from.
        tcb: TcbVersion,
    },
    /// The certificate of a cloud's key at a TCB, which comes from the cloud alone.
    AmdVlek {
        /// The line of processors.
        product: Product,
        /// The cloud.
        cloud_id: String,
        /// What the key was derived from.
        tcb: TcbVersion,
    },
    /// ASK or ASVK with ARK.
    AmdChain {
        /// The line of processors.
        product: Product,
        /// Above which keys.
        signer: SigningKey,
    },
    /// The revocation list of the ARK.
    AmdCrl {
        /// The line of processors.
        product: Product,
        /// As it is published for these keys.
        signer: SigningKey,
    },
    /// TCB levels of a platform.
    IntelTcbInfo {
        /// For enclaves or trust domains.
        tee: Tee,
        /// The platform.
        fmspc: [u8; 6],
    },
    /// The identity of the quoting enclave.
    IntelQeIdentity {
        /// For enclaves or trust domains.
        tee: Tee,
    },
    /// Revoked PCK certificates.
    IntelPckCrl {
        /// Whose.
        ca: PckAuthority,
    },
    /// What Intel's root revoked.
    IntelRootCrl,
    /// An intermediate authority of a TPM maker.
    TpmAuthority {
        /// Where the endorsement key's certificate says that it is.
        url: Address,
    },
    /// A revocation list of a TPM maker.
    TpmCrl {
        /// Where a certificate says that it is.
        url: Address,
    },
    /// A reference integrity manifest of NVIDIA's.
    NvidiaRim {
        /// As NVIDIA's service names it: `NV_GPU_DRIVER_GH100_550.144.03`.
        id: RimId,
    },
    /// The status of one certificate of NVIDIA's.
    NvidiaOcsp {
        /// SHA-256 of the issuer's certificate.
        issuer: [u8; 32],
        /// Content octets of the serial number.
        serial: Vec<u8>,
    },
}

/// Why a text is no key of an endorsement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the name of an endorsement")]
pub struct NoKey;

/// An `http` or `https` address as certificates have it: no user, no blanks, no fragment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address(String);

impl Address {
    /// Takes an address from a certificate.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let (_, rest) = text.split_once("://").filter(|(scheme, _)| matches!(*scheme, "http" | "https"))?;
        let (host, path) = rest.split_once('/')?;
        let host_is_plain =
            host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']'));
        let path_is_plain = path.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'#' | b'"' | b'\\'));
        let fits = !host.is_empty() && text.len() <= MAX_KEY_BYTES - 32;
        (host_is_plain && path_is_plain && fits).then(|| Self(text.to_owned()))
    }

    /// The whole.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Host, with a port where there is one.
    #[must_use]
    pub fn host(&self) -> &str {
        self.split().0
    }

    /// Path and query.
    #[must_use]
    pub fn path(&self) -> &str {
        self.split().1
    }

    fn split(&self) -> (&str, &str) {
        let rest = self.0.split_once("://").map_or("", |(_, rest)| rest);
        rest.split_at(rest.find('/').unwrap_or(rest.len()))
    }
}

/// The id of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RimId(String);

impl RimId {
    /// Takes an id of letters, digits, dots, dashes and underlines.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        ((1..=128).contains(&text.len()) && text.bytes().all(plain)).then(|| Self(text.to_owned()))
    }

    /// The id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A service of a maker's. Each has a base address of its own, which whoever fetches can set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    /// AMD's key distribution service.
    AmdKds,
    /// Intel's provisioning certification service, or a cache of it.
    IntelPcs,
    /// Where the list of Intel's root is.
    IntelRootCrl,
    /// Whatever host a TPM's certificate names.
    TpmMaker,
    /// NVIDIA's service of manifests.
    NvidiaRim,
    /// NVIDIA's OCSP responder.
    NvidiaOcsp,
}

impl Service {
    /// The name in messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AmdKds => "AMD KDS",
            Self::IntelPcs => "Intel PCS or PCCS",
            Self::IntelRootCrl => "Intel's root revocation list",
            Self::TpmMaker => "the TPM maker's server",
            Self::NvidiaRim => "NVIDIA's RIM service",
            Self::NvidiaOcsp => "NVIDIA's OCSP responder",
        }
    }
}

/// Where an endorsement is fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// Which service.
    pub service: Service,
    /// What follows the service's base address: path and query. Of [`Service::TpmMaker`] the whole address.
    pub path: String,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.path, self.service.name())
    }
}

fn hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}

/// AMD's names of the components in addresses.
fn spl(product: Product, tcb: TcbVersion) -> String {
    let parts = tcb.components(product);
    let fmc = parts.fmc.map(|fmc| format!("fmcSPL={fmc}&")).unwrap_or_default();
    format!("{fmc}blSPL={}&teeSPL={}&snpSPL={}&ucodeSPL={}", parts.bootloader, parts.tee, parts.snp, parts.microcode)
}

impl Key {
    /// Where its maker publishes it. A VLEK's certificate comes from its cloud alone: none.
    #[must_use]
    pub fn location(&self) -> Option<Location> {
        let (service, path) = match self {
            Self::AmdVcek { product, chip_id, tcb } => {
                (Service::AmdKds, format!("/vcek/v1/{}/{}?{}", product.name(), hex(chip_id), spl(*product, *tcb)))
            }
            Self::AmdVlek { .. } => return None,
            Self::AmdChain { product, signer } => {
                (Service::AmdKds, format!("/{}/v1/{}/cert_chain", signer.name(), product.name()))
            }
            Self::AmdCrl { product, signer } => {
                (Service::AmdKds, format!("/{}/v1/{}/crl", signer.name(), product.name()))
            }
            Self::IntelTcbInfo { tee, fmspc } => {
                (Service::IntelPcs, format!("/{}/certification/v4/tcb?fmspc={}", tee.name(), hex(fmspc)))
            }
            Self::IntelQeIdentity { tee } => {
                (Service::IntelPcs, format!("/{}/certification/v4/qe/identity", tee.name()))
            }
            Self::IntelPckCrl { ca } => {
                (Service::IntelPcs, format!("/sgx/certification/v4/pckcrl?ca={}&encoding=der", ca.name()))
            }
            Self::IntelRootCrl => (Service::IntelRootCrl, String::new()),
            Self::TpmAuthority { url } | Self::TpmCrl { url } => (Service::TpmMaker, url.0.clone()),
            Self::NvidiaRim { id } => (Service::NvidiaRim, format!("/v1/rim/{}", id.0)),
            Self::NvidiaOcsp { .. } => (Service::NvidiaOcsp, "/".to_owned()),
        };
        Some(Location { service, path })
    }

    /// The order in which endorsements are looked at: what others rest on comes first.
    pub(super) const fn rank(&self) -> u8 {
        match self {
            Self::IntelRootCrl | Self::AmdChain { .. } => 0,
            Self::AmdCrl { .. } | Self::TpmAuthority { .. } => 1,
            _ => 2,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AmdVcek { product, chip_id, tcb } => {
                write!(f, "amd/vcek/{}/{}/{}", product.claim(), hex(chip_id), hex(&tcb.0))
            }
            Self::AmdVlek { product, cloud_id, tcb } => {
                write!(f, "amd/vlek/{}/{}/{}", product.claim(), hex(cloud_id.as_bytes()), hex(&tcb.0))
            }
            Self::AmdChain { product, signer } => write!(f, "amd/chain/{}/{}", product.claim(), signer.name()),
            Self::AmdCrl { product, signer } => write!(f, "amd/crl/{}/{}", product.claim(), signer.name()),
            Self::IntelTcbInfo { tee, fmspc } => write!(f, "intel/tcb-info/{}/{}", tee.name(), hex(fmspc)),
            Self::IntelQeIdentity { tee } => write!(f, "intel/qe-identity/{}", tee.name()),
            Self::IntelPckCrl { ca } => write!(f, "intel/pck-crl/{}", ca.name()),
            Self::IntelRootCrl => f.write_str("intel/root-crl"),
            Self::TpmAuthority { url } => write!(f, "tpm/authority/{}", url.0),
            Self::TpmCrl { url } => write!(f, "tpm/crl/{}", url.0),
            Self::NvidiaRim { id } => write!(f, "nvidia/rim/{}", id.0),
            Self::NvidiaOcsp { issuer, serial } => write!(f, "nvidia/ocsp/{}/{}", hex(issuer), hex(serial)),
        }
    }
}

fn product(text: &str) -> Result<Product, NoKey> {
    [Product::Milan, Product::Genoa, Product::Turin].into_iter().find(|one| one.claim() == text).ok_or(NoKey)
}

fn signer(text: &str) -> Result<SigningKey, NoKey> {
    [SigningKey::Vcek, SigningKey::Vlek].into_iter().find(|one| one.name() == text).ok_or(NoKey)
}

fn tee(text: &str) -> Result<Tee, NoKey> {
    [Tee::Sgx, Tee::Tdx].into_iter().find(|one| one.name() == text).ok_or(NoKey)
}

fn unhex(text: &str) -> Result<Vec<u8>, NoKey> {
    HEXLOWER.decode(text.as_bytes()).map_err(|_| NoKey)
}

fn exactly<const N: usize>(text: &str) -> Result<[u8; N], NoKey> {
    unhex(text)?.try_into().map_err(|_| NoKey)
}

/// How long the id of a chip is.
pub(super) const fn chip_id_bytes(product: Product) -> usize {
    match product {
        Product::Milan | Product::Genoa => 64,
        Product::Turin => 8,
    }
}

impl FromStr for Key {
    type Err = NoKey;

    fn from_str(text: &str) -> Result<Self, NoKey> {
        if text.len() > MAX_KEY_BYTES {
            return Err(NoKey);
        }
        if let Some(url) = text.strip_prefix("tpm/authority/") {
            return Ok(Self::TpmAuthority { url: Address::new(url).ok_or(NoKey)? });
        }
        if let Some(url) = text.strip_prefix("tpm/crl/") {
            return Ok(Self::TpmCrl { url: Address::new(url).ok_or(NoKey)? });
        }
        let parts: Vec<&str> = text.split('/').collect();
        Ok(match parts[..] {
            ["amd", "vcek", line, chip, tcb] => {
                let (product, chip_id) = (product(line)?, unhex(chip)?);
                if chip_id.len() != chip_id_bytes(product) {
                    return Err(NoKey);
                }
                Self::AmdVcek { product, chip_id, tcb: TcbVersion(exactly(tcb)?) }
            }
            ["amd", "vlek", line, cloud, tcb] => {
                let cloud_id = String::from_utf8(unhex(cloud)?).map_err(|_| NoKey)?;
                if cloud_id.is_empty() || cloud_id.len() > MAX_CLOUD_BYTES {
                    return Err(NoKey);
                }
                Self::AmdVlek { product: product(line)?, cloud_id, tcb: TcbVersion(exactly(tcb)?) }
            }
            ["amd", "chain", line, key] => Self::AmdChain { product: product(line)?, signer: signer(key)? },
            ["amd", "crl", line, key] => Self::AmdCrl { product: product(line)?, signer: signer(key)? },
            ["intel", "tcb-info", kind, fmspc] => Self::IntelTcbInfo { tee: tee(kind)?, fmspc: exactly(fmspc)? },
            ["intel", "qe-identity", kind] => Self::IntelQeIdentity { tee: tee(kind)? },
            ["intel", "pck-crl", "processor"] => Self::IntelPckCrl { ca: PckAuthority::Processor },
            ["intel", "pck-crl", "platform"] => Self::IntelPckCrl { ca: PckAuthority::Platform },
            ["intel", "root-crl"] => Self::IntelRootCrl,
            ["nvidia", "rim", id] => Self::NvidiaRim { id: RimId::new(id).ok_or(NoKey)? },
            ["nvidia", "ocsp", issuer, serial] => {
                let serial = unhex(serial)?;
                if !(1..=MAX_SERIAL_BYTES).contains(&serial.len()) {
                    return Err(NoKey);
                }
                Self::NvidiaOcsp { issuer: exactly(issuer)?, serial }
            }
            _ => return Err(NoKey),
        })
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_and_locations_are_the_makers() {
        let chip = "ab".repeat(64);
        for (name, location) in [
            (
                format!("amd/vcek/milan/{chip}/04000000000018db"),
                Some(format!("/vcek/v1/Milan/{chip}?blSPL=4&teeSPL=0&snpSPL=24&ucodeSPL=219")),
            ),
            (
                "amd/vcek/turin/0102030405060708/0102030400000005".to_owned(),
                Some("/vcek/v1/Turin/0102030405060708?fmcSPL=1&blSPL=2&teeSPL=3&snpSPL=4&ucodeSPL=5".to_owned()),
            ),
            ("amd/vlek/genoa/416d617a6f6e/0a00000000001754".to_owned(), None),
            ("amd/chain/genoa/vlek".to_owned(), Some("/vlek/v1/Genoa/cert_chain".to_owned())),
            ("amd/crl/turin/vcek".to_owned(), Some("/vcek/v1/Turin/crl".to_owned())),
            (
                "intel/tcb-info/tdx/00806f050000".to_owned(),
                Some("/tdx/certification/v4/tcb?fmspc=00806f050000".to_owned()),
            ),
            ("intel/qe-identity/sgx".to_owned(), Some("/sgx/certification/v4/qe/identity".to_owned())),
            (
                "intel/pck-crl/platform".to_owned(),
                Some("/sgx/certification/v4/pckcrl?ca=platform&encoding=der".to_owned()),
            ),
            ("intel/root-crl".to_owned(), Some(String::new())),
            (
                "tpm/authority/https://ftpm.amd.com/pki/aia/264D".to_owned(),
                Some("https://ftpm.amd.com/pki/aia/264D".to_owned()),
            ),
            (
                "nvidia/rim/NV_GPU_DRIVER_GH100_550.144.03".to_owned(),
                Some("/v1/rim/NV_GPU_DRIVER_GH100_550.144.03".to_owned()),
            ),
            (format!("nvidia/ocsp/{}/0123", "cd".repeat(32)), Some("/".to_owned())),
        ] {
            let key: Key = name.parse().unwrap_or_else(|_| panic!("{name}"));
            assert_eq!(key.to_string(), name);
            assert_eq!(key.location().map(|found| found.path), location, "{name}");
        }
    }

    #[test]
    fn what_is_no_name() {
        for text in [
            "",
            "amd/vcek/milan/ab/04000000000018db",
            "amd/vcek/rome/ab/04000000000018db",
            "amd/chain/milan/vcek/",
            "intel/tcb-info/sgx/00806F050000",
            "nvidia/rim/../../etc",
            "nvidia/rim/a?b",
            "tpm/crl/ftp://a/b",
            "tpm/crl/https://user@host/b",
            "tpm/crl/https://host/a b",
            "tpm/crl/https://host",
            "nvidia/ocsp/00/01",
        ] {
            assert_eq!(text.parse::<Key>(), Err(NoKey), "{text}");
        }
    }
}
