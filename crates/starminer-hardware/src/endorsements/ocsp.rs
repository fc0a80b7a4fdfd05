//! OCSP (RFC 6960): the request for one certificate, and the answer to it, verified.
//!
//! Requests carry no nonce, since answers are kept: an answer counts for as long as it says. The answer is by the issuer itself, or by a responder
//! whose certificate the issuer signed for that purpose.

use aws_lc_rs::digest::{Algorithm, SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA384, digest};
use x509_parser::prelude::{ASN1Time, FromDer as _};

use crate::cert::{
    Certificate, ChainOptions, Roots, SignatureAlgorithm, build_chain,
    der::{self, Malformed, Reader, encode, tag},
};

/// The largest answer.
pub const MAX_OCSP_BYTES: usize = 16 * 1024;
/// The most answers to one request.
const MAX_ANSWERS: usize = 8;
/// The most certificates with an answer.
const MAX_RESPONDERS: usize = 4;

const ENUMERATED: u8 = 0x0a;
const NULL: u8 = 0x05;
const OCTET_STRING: u8 = 0x04;
const BIT_STRING: u8 = 0x03;
const GOOD: u8 = 0x80;
const UNKNOWN: u8 = 0x82;

const BASIC: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1];
/// id-kp-OCSPSigning.
const OCSP_SIGNING: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 9];
const HASH_SHA1: &[u8] = &[0x2b, 0x0e, 3, 2, 0x1a];
const HASH_SHA256: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1];
const HASH_SHA384: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 2];

/// What an answer says of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It is not revoked.
    Good,
    /// It is.
    Revoked,
}

/// An answer that was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: Status,
    pub(super) this_update_s: u64,
    pub(super) next_update_s: u64,
}

/// The public key of a certificate, as OCSP hashes it: without algorithm and count of unused bits.
fn key_bits(issuer: &Certificate) -> Option<&[u8]> {
    let mut fields = der::only(issuer.spki(), tag::SEQUENCE).ok()?;
    fields.element(tag::SEQUENCE).ok()?;
    fields.bit_string().ok()
}

/// A request for the status of the certificate of this issuer with this serial number, by SHA-384 as NVIDIA's own tools make it.
#[must_use]
pub fn request(issuer: &Certificate, serial: &[u8]) -> Option<Vec<u8>> {
    let hash = |bytes: &[u8]| encode(OCTET_STRING, digest(&SHA384, bytes).as_ref());
    let algorithm = encode(tag::SEQUENCE, &[encode(tag::OID, HASH_SHA384), encode(NULL, &[])].concat());
    let id = [algorithm, hash(issuer.subject()), hash(key_bits(issuer)?), encode(tag::INTEGER, serial)].concat();
    let wrapped = (0..5).fold(id, |inner, _| encode(tag::SEQUENCE, &inner));
    Some(wrapped)
}

fn time(fields: &mut Reader<'_>) -> Result<u64, Malformed> {
    let element = fields.element(tag::GENERALIZED_TIME)?;
    let (_, time) = ASN1Time::from_der(element.raw).map_err(|_| Malformed)?;
    u64::try_from(time.timestamp()).map_err(|_| Malformed)
}

struct Single<'a> {
    hash: &'a [u8],
    name: &'a [u8],
    key: &'a [u8],
    serial: &'a [u8],
    status: Option<Status>,
    this_update_s: u64,
    next_update_s: Option<u64>,
}

impl Single<'_> {
    fn is_about(&self, issuer: &Certificate, serial: &[u8]) -> bool {
        let algorithm: &Algorithm = match self.hash {
            HASH_SHA1 => &SHA1_FOR_LEGACY_USE_ONLY,
            HASH_SHA256 => &SHA256,
            HASH_SHA384 => &SHA384,
            _ => return false,
        };
        let Some(key) = key_bits(issuer) else { return false };
        self.serial == serial
            && digest(algorithm, issuer.subject()).as_ref() == self.name
            && digest(algorithm, key).as_ref() == self.key
    }
}

/// How a response names whoever signed it.
enum Responder<'a> {
    Name(&'a [u8]),
    /// SHA-1 of the key.
    Key(&'a [u8]),
}

impl Responder<'_> {
    fn is(&self, certificate: &Certificate) -> bool {
        match self {
            Self::Name(name) => certificate.subject() == *name,
            Self::Key(hash) => {
                key_bits(certificate).is_some_and(|key| digest(&SHA1_FOR_LEGACY_USE_ONLY, key).as_ref() == *hash)
            }
        }
    }
}

struct Basic<'a> {
    by: Responder<'a>,
    signed: &'a [u8],
    algorithm: &'a [u8],
    signature: &'a [u8],
    answers: Vec<Single<'a>>,
    responders: Vec<Certificate>,
}

fn single<'a>(fields: &mut Reader<'a>) -> Result<Single<'a>, Malformed> {
    let mut fields = fields.inside(tag::SEQUENCE)?;
    let mut id = fields.inside(tag::SEQUENCE)?;
    let mut algorithm = id.inside(tag::SEQUENCE)?;
    let hash = algorithm.content(tag::OID)?;
    let (name, key, serial) = (id.content(OCTET_STRING)?, id.content(OCTET_STRING)?, id.content(tag::INTEGER)?);
    id.finish()?;
    let status = match fields.any()?.tag {
        GOOD => Some(Status::Good),
        tag::CONTEXT_1 => Some(Status::Revoked),
        UNKNOWN => None,
        _ => return Err(Malformed),
    };
    let this_update_s = time(&mut fields)?;
    let next_update_s = fields.optional(tag::CONTEXT_0)?.map(|next| time(&mut Reader::new(next))).transpose()?;
    fields.optional(tag::CONTEXT_1)?;
    fields.finish()?;
    Ok(Single { hash, name, key, serial, status, this_update_s, next_update_s })
}

fn parse(bytes: &[u8]) -> Result<Basic<'_>, &'static str> {
    const SHAPE: &str = "not the shape of an OCSP response";
    let read = || -> Result<Result<&[u8], u8>, Malformed> {
        let mut response = der::only(bytes, tag::SEQUENCE)?;
        match response.content(ENUMERATED)? {
            [0] => {}
            [status] => return Ok(Err(*status)),
            _ => return Err(Malformed),
        }
        let mut body = der::only(response.content(tag::CONTEXT_0)?, tag::SEQUENCE)?;
        response.finish()?;
        if body.content(tag::OID)? != BASIC {
            return Err(Malformed);
        }
        let basic = body.content(OCTET_STRING)?;
        body.finish()?;
        Ok(Ok(basic))
    };
    let basic = match read() {
        Ok(Ok(basic)) => basic,
        Ok(Err(6)) => return Err("the responder answers: unauthorized"),
        Ok(Err(3)) => return Err("the responder answers: try later"),
        Ok(Err(_)) => return Err("the responder answers with an error"),
        Err(_) => return Err(SHAPE),
    };
    basic_response(basic).map_err(|_| SHAPE)
}

fn basic_response(bytes: &[u8]) -> Result<Basic<'_>, Malformed> {
    let mut fields = der::only(bytes, tag::SEQUENCE)?;
    let data = fields.element(tag::SEQUENCE)?;
    let algorithm = fields.element(tag::SEQUENCE)?.raw;
    let signature = fields.element(BIT_STRING)?.content.split_first();
    let Some((0, signature)) = signature else { return Err(Malformed) };
    let mut responders = Vec::new();
    if let Some(list) = fields.optional(tag::CONTEXT_0)? {
        let mut list = der::only(list, tag::SEQUENCE)?;
        while !list.is_empty() {
            let one = list.element(tag::SEQUENCE)?;
            if responders.len() >= MAX_RESPONDERS {
                return Err(Malformed);
            }
            responders.push(Certificate::from_der(one.raw).map_err(|_| Malformed)?);
        }
    }
    fields.finish()?;
    let mut inner = Reader::new(data.content);
    inner.optional(tag::CONTEXT_0)?;
    let by = inner.any()?;
    let by = match by.tag {
        tag::CONTEXT_1 => Responder::Name(by.content),
        tag::CONTEXT_2 => {
            let mut key = Reader::new(by.content);
            let hash = key.content(OCTET_STRING)?;
            key.finish()?;
            Responder::Key(hash)
        }
        _ => return Err(Malformed),
    };
    time(&mut inner)?;
    let mut list = inner.inside(tag::SEQUENCE)?;
    let mut answers = Vec::new();
    while !list.is_empty() {
        if answers.len() >= MAX_ANSWERS {
            return Err(Malformed);
        }
        answers.push(single(&mut list)?);
    }
    inner.optional(tag::CONTEXT_1)?;
    inner.finish()?;
    Ok(Basic { by, signed: data.raw, algorithm, signature, answers, responders })
}

/// Verifies an answer about one certificate of this issuer, whose own chain the caller has verified.
pub(super) fn verify(bytes: &[u8], issuer: &Certificate, serial: &[u8], now_s: u64) -> Result<Answer, String> {
    if bytes.len() > MAX_OCSP_BYTES {
        return Err(format!("larger than {MAX_OCSP_BYTES} bytes"));
    }
    let basic = parse(bytes).map_err(str::to_owned)?;
    let mut about = basic.answers.iter().filter(|answer| answer.is_about(issuer, serial));
    let (Some(answer), None) = (about.next(), about.next()) else {
        return Err("it has not exactly one answer about the certificate".to_owned());
    };
    let status = answer.status.ok_or("the responder does not know the certificate")?;
    let next_update_s = answer.next_update_s.ok_or("it does not say until when it counts")?;
    if now_s < answer.this_update_s {
        return Err(format!("it counts from {}, and it is {now_s}", answer.this_update_s));
    }
    if now_s > next_update_s {
        return Err(format!("it counted until {next_update_s}, and it is {now_s}"));
    }
    let algorithm = SignatureAlgorithm::from_identifier(basic.algorithm).map_err(|error| error.to_string())?;
    if algorithm == SignatureAlgorithm::RsaPkcs1Sha1 {
        return Err("it is signed over SHA-1".to_owned());
    }
    // One certificate is asked, the one that the answer names, so that garbage costs no more than two signatures.
    let may_sign = |responder: &Certificate| {
        let roots = Roots::none().with(issuer.clone());
        responder.extended_key_usage(OCSP_SIGNING) == Some(true)
            && build_chain(responder, &[], &roots, now_s, &ChainOptions::default()).is_ok()
    };
    let signer = match basic.responders.iter().find(|responder| basic.by.is(responder)) {
        _ if basic.by.is(issuer) => issuer,
        Some(responder) if may_sign(responder) => responder,
        _ => return Err("neither the issuer nor a responder that the issuer named signed it".to_owned()),
    };
    let verified = signer.public_key().and_then(|key| key.verify(algorithm, basic.signed, basic.signature));
    verified.map_err(|error| format!("its signature: {error}"))?;
    Ok(Answer { status, this_update_s: answer.this_update_s, next_update_s })
}
