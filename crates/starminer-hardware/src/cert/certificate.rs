//! One certificate, read and kept as it stood.

use std::{ops::Range, sync::Arc};

use x509_parser::{
    certificate::X509CertificateParser,
    nom::Parser as _,
    prelude::{FromDer as _, X509Name, X509Version},
};

use super::{
    der::{self, Malformed, Reader, tag},
    key::{PublicKey, SignatureAlgorithm, SignatureError},
    pem,
};

/// The largest certificate.
pub const MAX_CERTIFICATE_BYTES: usize = 16 * 1024;
/// The most certificates in a bundle.
pub const MAX_CERTIFICATES: usize = 16;
/// The largest bundle, in PEM or DER.
pub const MAX_BUNDLE_BYTES: usize = 128 * 1024;
/// The longest name of a subject or issuer, in DER.
const MAX_NAME_BYTES: usize = 4 * 1024;
/// The most extensions of a certificate.
const MAX_EXTENSIONS: usize = 64;

const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];

/// Why bytes are no certificate or revocation list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// There is nothing that could be one.
    #[error("neither PEM nor DER")]
    Unreadable,
    /// Larger than is read.
    #[error("larger than {most} bytes")]
    TooLarge {
        /// The bound.
        most: usize,
    },
    /// More in one bundle than are read.
    #[error("more than {most} in one bundle")]
    TooMany {
        /// The bound.
        most: usize,
    },
    /// The armour is damaged.
    #[error("PEM: {0}")]
    Pem(&'static str),
    /// The structure is not that of X.509.
    #[error("DER: {0}")]
    Der(&'static str),
    /// Something follows the end.
    #[error("bytes after the end")]
    TrailingBytes,
}

impl CertificateError {
    /// A stable name.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unreadable => "certificate.unreadable",
            Self::TooLarge { .. } => "certificate.too-large",
            Self::TooMany { .. } => "certificate.too-many",
            Self::Pem(_) => "certificate.pem",
            Self::Der(_) => "certificate.der",
            Self::TrailingBytes => "certificate.trailing-bytes",
        }
    }
}

/// The bits of `keyUsage`, the first one (digitalSignature) highest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyUsage(u16);

impl KeyUsage {
    const fn bit(self, index: u32) -> bool {
        self.0 & (0x8000 >> index) != 0
    }
    /// digitalSignature.
    #[must_use]
    pub const fn digital_signature(self) -> bool {
        self.bit(0)
    }
    /// keyEncipherment.
    #[must_use]
    pub const fn key_encipherment(self) -> bool {
        self.bit(2)
    }
    /// keyAgreement.
    #[must_use]
    pub const fn key_agreement(self) -> bool {
        self.bit(4)
    }
    /// keyCertSign.
    #[must_use]
    pub const fn cert_sign(self) -> bool {
        self.bit(5)
    }
    /// cRLSign.
    #[must_use]
    pub const fn crl_sign(self) -> bool {
        self.bit(6)
    }
}

/// An extension as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extension<'a> {
    /// Content octets of its identifier: `x509_parser::asn1_rs::oid!(raw 2.5.29.19)` makes them.
    pub oid: &'a [u8],
    /// Whether one that does not understand it has to refuse the certificate.
    pub critical: bool,
    /// What the octet string holds.
    pub value: &'a [u8],
}

/// A certificate, whose fields nobody vouches for until a chain was built over it. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate(Arc<Fields>);

#[derive(PartialEq, Eq)]
struct Fields {
    der: Vec<u8>,
    fingerprint: [u8; 32],
    tbs: Range<usize>,
    algorithm: Range<usize>,
    signature: Range<usize>,
    serial: Range<usize>,
    issuer: Range<usize>,
    subject: Range<usize>,
    spki: Range<usize>,
    not_before_s: i64,
    not_after_s: i64,
    extensions: Vec<(Range<usize>, bool, Range<usize>)>,
    ca: bool,
    path_length: Option<u32>,
    key_usage: Option<KeyUsage>,
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Certificate({}, issued by {})", self.subject_name(), self.issuer_name())
    }
}

/// Where a part of `whole` stands in it.
fn place(whole: &[u8], part: &[u8]) -> Range<usize> {
    let start = (part.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize);
    start..start.saturating_add(part.len())
}

impl Certificate {
    /// Reads a bundle, PEM or DER one after the other, told apart by content.
    ///
    /// # Errors
    /// Where anything in it is no certificate, or more than is read.
    pub fn read(bytes: &[u8]) -> Result<Vec<Self>, CertificateError> {
        if bytes.len() > MAX_BUNDLE_BYTES {
            return Err(CertificateError::TooLarge { most: MAX_BUNDLE_BYTES });
        }
        if pem::is_pem(bytes) {
            let blocks = pem::blocks(bytes, &["CERTIFICATE", "X509 CERTIFICATE"], MAX_CERTIFICATES)?;
            return blocks.iter().map(|der| Self::from_der(der)).collect();
        }
        let mut certificates = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            if certificates.len() >= MAX_CERTIFICATES {
                return Err(CertificateError::TooMany { most: MAX_CERTIFICATES });
            }
            let (certificate, after) = Self::from_der_prefix(rest)?;
            certificates.push(certificate);
            rest = after;
        }
        Ok(certificates)
    }

    /// Reads one certificate in PEM or DER.
    ///
    /// # Errors
    /// Where it is none, or more than one.
    pub fn read_one(bytes: &[u8]) -> Result<Self, CertificateError> {
        let mut certificates = Self::read(bytes)?;
        match (certificates.pop(), certificates.is_empty()) {
            (Some(certificate), true) => Ok(certificate),
            _ => Err(CertificateError::TooMany { most: 1 }),
        }
    }

    /// Reads DER to its last byte.
    ///
    /// # Errors
    /// Where it is no certificate.
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        match Self::from_der_prefix(der)? {
            (certificate, []) => Ok(certificate),
            _ => Err(CertificateError::TrailingBytes),
        }
    }

    /// Reads DER, and gives what follows: for stores that pad.
    ///
    /// # Errors
    /// Where it is no certificate.
    pub fn from_der_prefix(bytes: &[u8]) -> Result<(Self, &[u8]), CertificateError> {
        const SHAPE: CertificateError = CertificateError::Der("not the shape of a certificate");
        let mut outer = Reader::new(bytes);
        let whole = outer.element(tag::SEQUENCE).map_err(|_| SHAPE)?;
        if whole.raw.len() > MAX_CERTIFICATE_BYTES {
            return Err(CertificateError::TooLarge { most: MAX_CERTIFICATE_BYTES });
        }
        let parts = outer_parts(whole.content).map_err(|_| SHAPE)?;
        let InnerParts { algorithm, serial, names } = inner_parts(parts.tbs.content).map_err(|_| SHAPE)?;
        if algorithm != parts.algorithm {
            return Err(CertificateError::Der("two different signature algorithms"));
        }
        if names.iter().any(|name| name.len() > MAX_NAME_BYTES) {
            return Err(CertificateError::Der("a name is too long"));
        }
        let (rest, parsed) = X509CertificateParser::new()
            .with_deep_parse_extensions(false)
            .parse(whole.raw)
            .map_err(|_| CertificateError::Der("a field is malformed"))?;
        if !rest.is_empty() {
            return Err(CertificateError::TrailingBytes);
        }
        if parsed.extensions().len() > MAX_EXTENSIONS {
            return Err(CertificateError::TooMany { most: MAX_EXTENSIONS });
        }
        if !parsed.extensions().is_empty() && parsed.version() != X509Version::V3 {
            return Err(CertificateError::Der("extensions before version 3"));
        }
        let der = whole.raw;
        let mut extensions: Vec<(Range<usize>, bool, Range<usize>)> = Vec::new();
        for extension in parsed.extensions() {
            let oid = place(der, extension.oid.as_bytes());
            if extensions.iter().any(|(known, ..)| der.get(known.clone()) == Some(extension.oid.as_bytes())) {
                return Err(CertificateError::Der("an extension twice"));
            }
            extensions.push((oid, extension.critical, place(der, extension.value)));
        }
        let find = |oid: &[u8]| {
            let found = parsed.extensions().iter().find(|extension| extension.oid.as_bytes() == oid);
            found.map(|extension| extension.value)
        };
        let (ca, path_length) = match find(BASIC_CONSTRAINTS) {
            Some(value) => basic_constraints(value).map_err(|_| CertificateError::Der("malformed basicConstraints"))?,
            None => (false, None),
        };
        let key_usage = find(KEY_USAGE)
            .map(|value| key_usage(value).map_err(|_| CertificateError::Der("malformed keyUsage")))
            .transpose()?;
        let fields = Fields {
            fingerprint: sha256(der),
            tbs: place(der, parts.tbs.raw),
            algorithm: place(der, parts.algorithm),
            signature: place(der, parts.signature),
            serial: place(der, serial),
            issuer: place(der, parsed.issuer().as_raw()),
            subject: place(der, parsed.subject().as_raw()),
            spki: place(der, parsed.public_key().raw),
            not_before_s: parsed.validity().not_before.timestamp(),
            not_after_s: parsed.validity().not_after.timestamp(),
            extensions,
            ca,
            path_length,
            key_usage,
            der: der.to_vec(),
        };
        Ok((Self(Arc::new(fields)), outer.rest()))
    }

    fn part(&self, range: &Range<usize>) -> &[u8] {
        self.0.der.get(range.clone()).unwrap_or_default()
    }

    /// The certificate as it was read.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.0.der
    }

    /// SHA-256 of the DER.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        self.0.fingerprint
    }

    /// Content octets of the serial number, which may be negative with careless makers.
    #[must_use]
    pub fn serial(&self) -> &[u8] {
        self.part(&self.0.serial)
    }

    /// The issuer's name in DER.
    #[must_use]
    pub fn issuer(&self) -> &[u8] {
        self.part(&self.0.issuer)
    }

    /// The subject's name in DER.
    #[must_use]
    pub fn subject(&self) -> &[u8] {
        self.part(&self.0.subject)
    }

    /// The subject's name, for people.
    #[must_use]
    pub fn subject_name(&self) -> String {
        name(self.subject())
    }

    /// The issuer's name, for people.
    #[must_use]
    pub fn issuer_name(&self) -> String {
        name(self.issuer())
    }

    /// The subject's only common name.
    #[must_use]
    pub fn common_name(&self) -> Option<String> {
        let (_, parsed) = X509Name::from_der(self.subject()).ok()?;
        let mut names = parsed.iter_common_name();
        let name = names.next()?.as_str().ok()?.to_owned();
        names.next().is_none().then_some(name)
    }

    /// Seconds since 1970 from which it is valid.
    #[must_use]
    pub fn not_before_s(&self) -> i64 {
        self.0.not_before_s
    }

    /// Seconds since 1970 until which it is valid, those included.
    #[must_use]
    pub fn not_after_s(&self) -> i64 {
        self.0.not_after_s
    }

    /// `SubjectPublicKeyInfo` in DER.
    #[must_use]
    pub fn spki(&self) -> &[u8] {
        self.part(&self.0.spki)
    }

    /// The subject's key.
    ///
    /// # Errors
    /// Where it is of a kind or size that is not accepted.
    pub fn public_key(&self) -> Result<PublicKey, SignatureError> {
        PublicKey::from_spki(self.spki())
    }

    /// Whether basicConstraints say that it may issue others.
    #[must_use]
    pub fn is_ca(&self) -> bool {
        self.0.ca
    }

    /// How many more authorities may stand between it and a leaf.
    #[must_use]
    pub fn path_length(&self) -> Option<u32> {
        self.0.path_length
    }

    /// What the key may be used for, where it says so.
    #[must_use]
    pub fn key_usage(&self) -> Option<KeyUsage> {
        self.0.key_usage
    }

    /// Whether extKeyUsage, where there is one, names this purpose (content octets of its identifier).
    #[must_use]
    pub fn extended_key_usage(&self, purpose: &[u8]) -> Option<bool> {
        let extension = self.extension(EXTENDED_KEY_USAGE)?;
        let Ok(mut purposes) = der::only(extension.value, tag::SEQUENCE) else { return Some(false) };
        while !purposes.is_empty() {
            match purposes.content(tag::OID) {
                Ok(oid) if oid == purpose => return Some(true),
                Ok(_) => {}
                Err(_) => return Some(false),
            }
        }
        Some(false)
    }

    /// The extension of this identifier (content octets).
    #[must_use]
    pub fn extension(&self, oid: &[u8]) -> Option<Extension<'_>> {
        self.extensions().find(|extension| extension.oid == oid)
    }

    /// All extensions.
    pub fn extensions(&self) -> impl Iterator<Item = Extension<'_>> {
        self.0.extensions.iter().map(|(oid, critical, value)| Extension {
            oid: self.part(oid),
            critical: *critical,
            value: self.part(value),
        })
    }

    /// How it was signed.
    ///
    /// # Errors
    /// Where the algorithm is not accepted.
    pub fn signature_algorithm(&self) -> Result<SignatureAlgorithm, SignatureError> {
        SignatureAlgorithm::from_identifier(self.part(&self.0.algorithm))
    }

    /// Verifies that this key signed it, and nothing else: chains are built by [`super::build_chain`].
    ///
    /// # Errors
    /// Where it did not.
    pub fn verify_signature(&self, issuer: &PublicKey) -> Result<(), SignatureError> {
        issuer.verify(self.signature_algorithm()?, self.part(&self.0.tbs), self.part(&self.0.signature))
    }
}

pub(super) struct OuterParts<'a> {
    pub(super) tbs: der::Element<'a>,
    pub(super) algorithm: &'a [u8],
    pub(super) signature: &'a [u8],
}

/// What is signed, how, and the signature, of a certificate or a revocation list.
pub(super) fn outer_parts(content: &[u8]) -> Result<OuterParts<'_>, Malformed> {
    let mut fields = Reader::new(content);
    let tbs = fields.element(tag::SEQUENCE)?;
    let algorithm = fields.element(tag::SEQUENCE)?.raw;
    let signature = fields.bit_string()?;
    fields.finish()?;
    Ok(OuterParts { tbs, algorithm, signature })
}

struct InnerParts<'a> {
    algorithm: &'a [u8],
    serial: &'a [u8],
    /// Issuer and subject.
    names: [&'a [u8]; 2],
}

/// The signature algorithm that is named inside, the serial number, and the names.
fn inner_parts(tbs: &[u8]) -> Result<InnerParts<'_>, Malformed> {
    let mut fields = Reader::new(tbs);
    fields.optional(tag::CONTEXT_0)?;
    let serial = fields.content(tag::INTEGER)?;
    let algorithm = fields.element(tag::SEQUENCE)?.raw;
    let issuer = fields.element(tag::SEQUENCE)?.raw;
    fields.element(tag::SEQUENCE)?;
    Ok(InnerParts { algorithm, serial, names: [issuer, fields.element(tag::SEQUENCE)?.raw] })
}

fn basic_constraints(value: &[u8]) -> Result<(bool, Option<u32>), Malformed> {
    let mut fields = der::only(value, tag::SEQUENCE)?;
    let ca = match fields.optional(tag::BOOLEAN)? {
        None | Some([0]) => false,
        Some([0xff]) => true,
        Some(_) => return Err(Malformed),
    };
    let path_length =
        if fields.is_empty() { None } else { Some(u32::try_from(fields.small()?).map_err(|_| Malformed)?) };
    fields.finish()?;
    Ok((ca, path_length))
}

fn key_usage(value: &[u8]) -> Result<KeyUsage, Malformed> {
    let mut outer = Reader::new(value);
    let content = outer.content(tag::BIT_STRING)?;
    outer.finish()?;
    match *content {
        [0..=7] => Ok(KeyUsage(0)),
        [0..=7, first] => Ok(KeyUsage(u16::from_be_bytes([first, 0]))),
        [0..=7, first, second] => Ok(KeyUsage(u16::from_be_bytes([first, second]))),
        _ => Err(Malformed),
    }
}

/// A name in DER, for people.
pub(super) fn name(der: &[u8]) -> String {
    match X509Name::from_der(der) {
        Ok((_, name)) => name.to_string().chars().filter(|character| !character.is_control()).take(200).collect(),
        Err(_) => "unreadable".to_owned(),
    }
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}
