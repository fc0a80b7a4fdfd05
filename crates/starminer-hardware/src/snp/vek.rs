//! What a VCEK or VLEK certificate says beyond X.509 (AMD 57230 and 58369).

use super::{
    report::SigningKey,
    tcb::{Product, TcbVersion},
};
use crate::cert::{
    Certificate,
    der::{self, Malformed, Reader},
};

/// 1.3.6.1.4.1.3704.1, beneath which AMD's extensions stand.
const ARC: [u8; 8] = [0x2b, 6, 1, 4, 1, 0x9c, 0x78, 1];
const PRODUCT_NAME: &[u8] = &[2];
const SECURITY_VERSIONS: u8 = 3;
const HARDWARE_ID: &[u8] = &[4];
const CLOUD_ID: &[u8] = &[5];
const IA5_STRING: u8 = 0x16;
/// The longest name of a product or cloud.
const MAX_NAME_BYTES: usize = 128;

/// Why a certificate is no VCEK or VLEK.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum VekError {
    #[error("its subject is neither SEV-VCEK nor SEV-VLEK")]
    Subject,
    #[error("extension {0} is missing or malformed")]
    Extension(&'static str),
    #[error("its product is neither Milan, Genoa nor Turin")]
    Product,
    #[error("a VCEK names a chip and no cloud, a VLEK a cloud and no chip")]
    Names,
}

/// The certificate of a key that signs reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Vek {
    pub(super) kind: SigningKey,
    pub(super) product: Product,
    /// As in the certificate, a stepping included.
    pub(super) product_name: String,
    pub(super) tcb: TcbVersion,
    /// 64 bytes, of Turin 8.
    pub(super) hardware_id: Option<Vec<u8>>,
    pub(super) cloud_id: Option<String>,
}

fn extension<'a>(certificate: &'a Certificate, below: &[u8]) -> Option<&'a [u8]> {
    certificate.extension(&[&ARC, below].concat()).map(|extension| extension.value)
}

fn text(value: &[u8]) -> Result<String, Malformed> {
    let mut reader = Reader::new(value);
    let bytes = reader.content(IA5_STRING)?;
    reader.finish()?;
    if bytes.len() > MAX_NAME_BYTES || !bytes.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ') {
        return Err(Malformed);
    }
    Ok(bytes.iter().copied().map(char::from).collect())
}

/// One security version, of 8 bits.
fn security_version(certificate: &Certificate, number: u8) -> Result<Option<u8>, VekError> {
    const FAULT: VekError = VekError::Extension("security version (3704.1.3)");
    let Some(value) = extension(certificate, &[SECURITY_VERSIONS, number]) else { return Ok(None) };
    let mut reader = Reader::new(value);
    let version = reader.small().map_err(|_| FAULT)?;
    reader.finish().map_err(|_| FAULT)?;
    u8::try_from(version).map(Some).map_err(|_| FAULT)
}

/// Whether it has AMD's security versions, by which a key's certificate is told from an authority's.
pub(super) fn looks_like_vek(certificate: &Certificate) -> bool {
    extension(certificate, &[SECURITY_VERSIONS, 1]).is_some()
}

impl Vek {
    pub(super) fn read(certificate: &Certificate) -> Result<Self, VekError> {
        let kind = match certificate.common_name().as_deref() {
            Some("SEV-VCEK") => SigningKey::Vcek,
            Some("SEV-VLEK") => SigningKey::Vlek,
            _ => return Err(VekError::Subject),
        };
        let product_name = extension(certificate, PRODUCT_NAME)
            .and_then(|value| text(value).ok())
            .ok_or(VekError::Extension("product name (3704.1.2)"))?;
        let product = Product::from_certificate(&product_name).ok_or(VekError::Product)?;
        let hardware_id = extension(certificate, HARDWARE_ID).map(|value| hardware_id(value, product)).transpose()?;
        let cloud_id = extension(certificate, CLOUD_ID)
            .map(|value| text(value).map_err(|_| VekError::Extension("cloud id (3704.1.5)")))
            .transpose()?;
        match (kind, &hardware_id, &cloud_id) {
            (SigningKey::Vcek, Some(_), None) | (SigningKey::Vlek, None, Some(_)) => {}
            _ => return Err(VekError::Names),
        }
        let tcb = tcb(certificate, product)?;
        Ok(Self { kind, product, product_name, tcb, hardware_id, cloud_id })
    }
}

/// The chip's id, which some certificates wrap into an octet string and others do not.
fn hardware_id(value: &[u8], product: Product) -> Result<Vec<u8>, VekError> {
    let length = match product {
        Product::Milan | Product::Genoa => 64,
        Product::Turin => 8,
    };
    let bare = if value.len() == length {
        Some(value)
    } else {
        let mut reader = Reader::new(value);
        reader.content(der::tag::OCTET_STRING).ok().filter(|_| reader.is_empty())
    };
    bare.filter(|id| id.len() == length).map(<[u8]>::to_vec).ok_or(VekError::Extension("hardware id (3704.1.4)"))
}

/// The TCB version that the key is derived from, in the layout of reports.
fn tcb(certificate: &Certificate, product: Product) -> Result<TcbVersion, VekError> {
    // For each byte, the number of its extension and whether it has to be there.
    let (layout, unused) = match product {
        Product::Milan | Product::Genoa => {
            ([(1, true), (2, true), (4, false), (5, false), (6, false), (7, false), (3, true), (8, true)], 9)
        }
        Product::Turin => {
            ([(9, true), (1, true), (2, true), (3, true), (5, false), (6, false), (7, false), (8, true)], 4)
        }
    };
    let mut bytes = [0; 8];
    for (byte, (number, required)) in bytes.iter_mut().zip(layout) {
        match security_version(certificate, number)? {
            Some(version) => *byte = version,
            None if required => return Err(VekError::Extension("security version (3704.1.3)")),
            None => {}
        }
    }
    if security_version(certificate, unused)?.is_some_and(|version| version != 0) {
        return Err(VekError::Extension("security version (3704.1.3) of another product"));
    }
    Ok(TcbVersion(bytes))
}
