//! Revocation lists, complete ones by the issuer itself. The entries stay in DER and are walked in place, so that a list costs no memory beyond its own size.

use std::{cmp::Ordering, ops::Range};

use x509_parser::prelude::{ASN1Time, FromDer as _, X509Name};

use super::{
    Certificate, CertificateError, SignatureAlgorithm, SignatureError,
    certificate::{name, outer_parts},
    der::{self, Malformed, Reader, tag},
    pem,
};

/// The largest revocation list, in PEM or DER.
pub const MAX_CRL_BYTES: usize = 512 * 1024;
/// The most lists in one PEM bundle.
const MAX_CRLS: usize = 8;
/// A CRL number has at most 20 bytes (RFC 5280, 5.2.3).
const MAX_NUMBER_BYTES: usize = 20;

const CRL_NUMBER: &[u8] = &[0x55, 0x1d, 0x14];
const REASON: &[u8] = &[0x55, 0x1d, 0x15];
const INVALIDITY_DATE: &[u8] = &[0x55, 0x1d, 0x18];
const DELTA: &[u8] = &[0x55, 0x1d, 0x1b];
const ISSUING_DISTRIBUTION_POINT: &[u8] = &[0x55, 0x1d, 0x1c];

/// Why a revocation list does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CrlError {
    /// Another authority's.
    #[error("the list is by {found}, not by {expected}")]
    Issuer {
        /// Whose list was expected.
        expected: String,
        /// Whose it is.
        found: String,
    },
    /// The authority's key did not sign it.
    #[error("the list's signature: {0}")]
    Signature(SignatureError),
    /// The authority may not sign lists.
    #[error("the issuer's key usage does not include revocation lists")]
    KeyUsage,
    /// From the future.
    #[error("the list is issued at {this_update_s}, after now ({now_s})")]
    NotYetValid {
        /// Seconds since 1970.
        this_update_s: i64,
        /// Seconds since 1970.
        now_s: u64,
    },
    /// There ought to be a newer one.
    #[error("the list had to be renewed by {next_update_s}, before now ({now_s}): fetch a newer one")]
    Expired {
        /// Seconds since 1970.
        next_update_s: i64,
        /// Seconds since 1970.
        now_s: u64,
    },
    /// It says not when there will be a newer one.
    #[error("the list does not say until when it counts")]
    NoNextUpdate,
}

impl CrlError {
    /// A stable name.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Issuer { .. } => "crl.issuer",
            Self::Signature(_) => "crl.signature",
            Self::KeyUsage => "crl.key-usage",
            Self::NotYetValid { .. } => "crl.not-yet-valid",
            Self::Expired { .. } => "crl.expired",
            Self::NoNextUpdate => "crl.no-next-update",
        }
    }
}

/// A revocation list that nobody vouches for yet.
#[derive(Clone, PartialEq, Eq)]
pub struct Crl {
    der: Vec<u8>,
    tbs: Range<usize>,
    algorithm: Range<usize>,
    signature: Range<usize>,
    issuer: Range<usize>,
    revoked: Range<usize>,
    this_update_s: i64,
    next_update_s: Option<i64>,
    number: Option<Vec<u8>>,
    entries: usize,
}

impl std::fmt::Debug for Crl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Crl({}, {} entries)", self.issuer_name(), self.entries)
    }
}

impl Crl {
    /// Reads one list in DER, or those of a PEM bundle, told apart by content.
    ///
    /// # Errors
    /// Where anything in it is no complete list, or more than is read.
    pub fn read(bytes: &[u8]) -> Result<Vec<Self>, CertificateError> {
        if bytes.len() > MAX_CRL_BYTES {
            return Err(CertificateError::TooLarge { most: MAX_CRL_BYTES });
        }
        if pem::is_pem(bytes) {
            return pem::blocks(bytes, &["X509 CRL"], MAX_CRLS)?.iter().map(|der| Self::from_der(der)).collect();
        }
        Ok(vec![Self::from_der(bytes)?])
    }

    /// Reads DER to its last byte.
    ///
    /// # Errors
    /// Where it is no complete list by its own issuer.
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        if der.len() > MAX_CRL_BYTES {
            return Err(CertificateError::TooLarge { most: MAX_CRL_BYTES });
        }
        parse(der).map_err(|_| CertificateError::Der("not the shape of a complete revocation list"))
    }

    fn part(&self, range: &Range<usize>) -> &[u8] {
        self.der.get(range.clone()).unwrap_or_default()
    }

    /// The list as it was read.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The issuer's name in DER.
    #[must_use]
    pub fn issuer(&self) -> &[u8] {
        self.part(&self.issuer)
    }

    /// The issuer's name, for people.
    #[must_use]
    pub fn issuer_name(&self) -> String {
        name(self.issuer())
    }

    /// Seconds since 1970 at which it was issued.
    #[must_use]
    pub const fn this_update_s(&self) -> i64 {
        self.this_update_s
    }

    /// Seconds since 1970 until which it counts.
    #[must_use]
    pub const fn next_update_s(&self) -> Option<i64> {
        self.next_update_s
    }

    /// The big-endian CRL number, where it has one.
    #[must_use]
    pub fn number(&self) -> Option<&[u8]> {
        self.number.as_deref()
    }

    /// How this list stands to an older number of the same issuer: less is a step back, and so is a list without one.
    #[must_use]
    pub fn compare_number(&self, known: &[u8]) -> Ordering {
        let trim = |number: &[u8]| -> Vec<u8> { number.iter().copied().skip_while(|&byte| byte == 0).collect() };
        let Some(number) = self.number() else { return Ordering::Less };
        let (number, known) = (trim(number), trim(known));
        number.len().cmp(&known.len()).then_with(|| number.cmp(&known))
    }

    /// Whether the list takes this certificate back, for whoever keeps lists that it verified.
    pub(crate) fn names(&self, certificate: &Certificate) -> bool {
        certificate.issuer() == self.issuer()
            && serials(self.part(&self.revoked)).any(|serial| serial == certificate.serial())
    }

    /// Verifies that the issuer signed the list and that it counts at this time.
    ///
    /// # Errors
    /// Where it does not count.
    pub fn verify(&self, issuer: &Certificate, now_s: u64) -> Result<VerifiedCrl<'_>, CrlError> {
        if self.issuer() != issuer.subject() {
            return Err(CrlError::Issuer { expected: issuer.subject_name(), found: self.issuer_name() });
        }
        if issuer.key_usage().is_some_and(|usage| !usage.crl_sign()) {
            return Err(CrlError::KeyUsage);
        }
        let now = i64::try_from(now_s).unwrap_or(i64::MAX);
        if now < self.this_update_s {
            return Err(CrlError::NotYetValid { this_update_s: self.this_update_s, now_s });
        }
        match self.next_update_s {
            None => return Err(CrlError::NoNextUpdate),
            Some(next_update_s) if now > next_update_s => return Err(CrlError::Expired { next_update_s, now_s }),
            Some(_) => {}
        }
        let verify = || -> Result<(), SignatureError> {
            let algorithm = SignatureAlgorithm::from_identifier(self.part(&self.algorithm))?;
            if algorithm == SignatureAlgorithm::RsaPkcs1Sha1 {
                return Err(SignatureError::UnsupportedAlgorithm { oid: "1.2.840.113549.1.1.5".to_owned() });
            }
            issuer.public_key()?.verify(algorithm, self.part(&self.tbs), self.part(&self.signature))
        };
        verify().map_err(CrlError::Signature)?;
        Ok(VerifiedCrl(self))
    }
}

/// A list that its issuer signed and that counts at the time that was given.
#[derive(Debug, Clone, Copy)]
pub struct VerifiedCrl<'a>(&'a Crl);

impl VerifiedCrl<'_> {
    /// Whether the list takes this certificate back. Only its own issuer's certificates are covered: of others it knows nothing.
    #[must_use]
    pub fn revokes(&self, certificate: &Certificate) -> bool {
        self.0.names(certificate)
    }

    /// The list.
    #[must_use]
    pub const fn list(&self) -> &Crl {
        self.0
    }
}

/// Serial numbers of the entries.
fn serials(entries: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut entries = Reader::new(entries);
    std::iter::from_fn(move || entries.inside(tag::SEQUENCE).ok()?.content(tag::INTEGER).ok())
}

fn time(fields: &mut Reader<'_>) -> Result<i64, Malformed> {
    let element = fields.any()?;
    if element.tag != tag::UTC_TIME && element.tag != tag::GENERALIZED_TIME {
        return Err(Malformed);
    }
    ASN1Time::from_der(element.raw).map(|(_, time)| time.timestamp()).map_err(|_| Malformed)
}

/// A time of which nothing but the shape matters: what is revoked is revoked. Reading the date of each of thousands of entries would cost more than the
/// list's signature.
fn date(fields: &mut Reader<'_>) -> Result<(), Malformed> {
    let element = fields.any()?;
    let digits = match (element.tag, element.content) {
        (tag::UTC_TIME, [digits @ .., b'Z']) if digits.len() == 12 => digits,
        (tag::GENERALIZED_TIME, [digits @ .., b'Z']) if digits.len() == 14 => digits,
        _ => return Err(Malformed),
    };
    if digits.iter().all(u8::is_ascii_digit) { Ok(()) } else { Err(Malformed) }
}

/// Walks extensions: identifier, critical, value.
fn extensions<'a>(
    list: Reader<'a>,
    mut each: impl FnMut(&'a [u8], bool, &'a [u8]) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    let mut list = list;
    while !list.is_empty() {
        let mut fields = list.inside(tag::SEQUENCE)?;
        let oid = fields.content(tag::OID)?;
        let critical = fields.optional(tag::BOOLEAN)?.is_some_and(|flag| flag != [0]);
        each(oid, critical, fields.content(tag::OCTET_STRING)?)?;
        fields.finish()?;
    }
    Ok(())
}

fn parse(der: &[u8]) -> Result<Crl, Malformed> {
    let whole = Reader::new(der).element(tag::SEQUENCE)?;
    if whole.raw.len() != der.len() {
        return Err(Malformed);
    }
    let parts = outer_parts(whole.content)?;
    let mut fields = Reader::new(parts.tbs.content);
    // Version 2 is 1; version 1 leaves it out.
    let version_2 = match fields.optional(tag::INTEGER)? {
        None => false,
        Some([1]) => true,
        Some(_) => return Err(Malformed),
    };
    if fields.element(tag::SEQUENCE)?.raw != parts.algorithm {
        return Err(Malformed);
    }
    let issuer = fields.element(tag::SEQUENCE)?.raw;
    X509Name::from_der(issuer).map_err(|_| Malformed)?;
    let this_update_s = time(&mut fields)?;
    let next = fields.rest().first().copied();
    let next_update_s = if next == Some(tag::UTC_TIME) || next == Some(tag::GENERALIZED_TIME) {
        Some(time(&mut fields)?)
    } else {
        None
    };
    let revoked = fields.optional(tag::SEQUENCE)?.unwrap_or_default();
    let entries = check_entries(revoked)?;
    let mut number = None;
    if let Some(list) = fields.optional(tag::CONTEXT_0)? {
        if !version_2 {
            return Err(Malformed);
        }
        extensions(der::only(list, tag::SEQUENCE)?, |oid, critical, value| {
            match oid {
                CRL_NUMBER => {
                    let mut reader = Reader::new(value);
                    let digits = reader.unsigned()?;
                    reader.finish()?;
                    if digits.len() > MAX_NUMBER_BYTES || number.replace(digits.to_vec()).is_some() {
                        return Err(Malformed);
                    }
                }
                DELTA => return Err(Malformed),
                ISSUING_DISTRIBUTION_POINT => {
                    // The place it is fetched from may be told; any narrower scope would leave certificates out.
                    let mut point = der::only(value, tag::SEQUENCE)?;
                    point.optional(tag::CONTEXT_0)?;
                    point.finish()?;
                }
                _ if critical => return Err(Malformed),
                _ => {}
            }
            Ok(())
        })?;
    }
    fields.finish()?;
    let place = |part: &[u8]| {
        let start = (part.as_ptr() as usize).saturating_sub(der.as_ptr() as usize);
        start..start.saturating_add(part.len())
    };
    Ok(Crl {
        tbs: place(parts.tbs.raw),
        algorithm: place(parts.algorithm),
        signature: place(parts.signature),
        issuer: place(issuer),
        revoked: if revoked.is_empty() { 0..0 } else { place(revoked) },
        this_update_s,
        next_update_s,
        number,
        entries,
        der: der.to_vec(),
    })
}

/// Every entry is a serial number and a time, without extensions that would give it another meaning.
fn check_entries(revoked: &[u8]) -> Result<usize, Malformed> {
    let mut entries = Reader::new(revoked);
    let mut count = 0;
    while !entries.is_empty() {
        let mut entry = entries.inside(tag::SEQUENCE)?;
        if entry.content(tag::INTEGER)?.is_empty() {
            return Err(Malformed);
        }
        date(&mut entry)?;
        if let Some(list) = entry.optional(tag::SEQUENCE)? {
            extensions(Reader::new(list), |oid, critical, _| {
                if critical && oid != REASON && oid != INVALIDITY_DATE { Err(Malformed) } else { Ok(()) }
            })?;
        }
        entry.finish()?;
        count += 1;
    }
    Ok(count)
}
