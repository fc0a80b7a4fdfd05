//! Authorities of a test, their revocation lists, and answers of OCSP responders.

use aws_lc_rs::{
    digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA384, digest},
    rand::SystemRandom,
    signature::{ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair},
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, SerialNumber,
};
use starminer_hardware::cert::Certificate;

pub const NOW_S: u64 = 1_780_000_000;

pub fn day(offset: i64) -> time::OffsetDateTime {
    time::OffsetDateTime::from_unix_timestamp(i64::try_from(NOW_S).unwrap() + offset * 86_400).unwrap()
}

pub struct Party {
    pub params: CertificateParams,
    pub key: KeyPair,
    pub certificate: Certificate,
}

pub fn params(name: &str, ca: bool) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = day(-100);
    params.not_after = day(100);
    params.serial_number = Some(SerialNumber::from(name.len() as u64 + 1000));
    if ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    } else {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    }
    params
}

impl Party {
    pub fn root(name: &str) -> Self {
        let params = params(name, true);
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let certificate = Certificate::from_der(params.self_signed(&key).unwrap().der()).unwrap();
        Self { params, key, certificate }
    }

    pub fn issue(&self, params: CertificateParams) -> Self {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let issuer = Issuer::from_params(&self.params, &self.key);
        let certificate = Certificate::from_der(params.signed_by(&key, &issuer).unwrap().der()).unwrap();
        Self { params, key, certificate }
    }

    pub fn list(&self, number: u64, issued: i64) -> Vec<u8> {
        let params = CertificateRevocationListParams {
            this_update: day(issued),
            next_update: day(20),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&Issuer::from_params(&self.params, &self.key)).unwrap().der().to_vec()
    }
}

pub fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match content.len() {
        short @ 0..0x80 => out.push(short as u8),
        medium @ 0x80..0x100 => out.extend([0x81, medium as u8]),
        long => {
            out.push(0x82);
            out.extend(u16::try_from(long).unwrap().to_be_bytes());
        }
    }
    out.extend(content);
    out
}

/// What an answer of a responder is made of.
pub struct Answer<'a> {
    pub about: (&'a Certificate, Vec<u8>),
    pub status: Vec<u8>,
    pub days: (i64, Option<i64>),
    pub by: &'a Party,
    pub with: Vec<Certificate>,
}

pub fn key_bits(certificate: &Certificate) -> Vec<u8> {
    // P-384: the last 97 bytes of the key's structure are the point.
    certificate.spki()[certificate.spki().len() - 97..].to_vec()
}

pub fn general_time(offset: i64) -> Vec<u8> {
    let at = day(offset);
    let text = format!(
        "{:04}{:02}{:02}{:02}{:02}{:02}Z",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second()
    );
    der(0x18, text.as_bytes())
}

pub fn certificate_id(issuer: &Certificate, serial: &[u8]) -> Vec<u8> {
    let hash = |bytes: &[u8]| der(4, digest(&SHA384, bytes).as_ref());
    let algorithm = der(0x30, &[der(6, &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 2]), der(5, &[])].concat());
    der(0x30, &[algorithm, hash(issuer.subject()), hash(&key_bits(issuer)), der(2, serial)].concat())
}

impl Answer<'_> {
    pub fn encode(&self) -> Vec<u8> {
        let id = certificate_id(self.about.0, &self.about.1);
        let next = self.days.1.map(|next| der(0xa0, &general_time(next))).unwrap_or_default();
        let single = der(0x30, &[id, self.status.clone(), general_time(self.days.0), next].concat());
        let by = digest(&SHA1_FOR_LEGACY_USE_ONLY, &key_bits(&self.by.certificate));
        let by = der(0xa2, &der(4, by.as_ref()));
        let data = der(0x30, &[by, general_time(self.days.0), der(0x30, &single)].concat());
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_ASN1_SIGNING, &self.by.key.serialize_der()).unwrap();
        let signature = key.sign(&SystemRandom::new(), &data).unwrap();
        let algorithm = der(0x30, &der(6, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3]));
        let with: Vec<u8> = self.with.iter().flat_map(|certificate| certificate.der().to_vec()).collect();
        let with = if with.is_empty() { Vec::new() } else { der(0xa0, &der(0x30, &with)) };
        let signature = der(3, &[&[0], signature.as_ref()].concat());
        let basic = der(0x30, &[data, algorithm, signature, with].concat());
        let body = der(0x30, &[der(6, &[0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1]), der(4, &basic)].concat());
        der(0x30, &[der(10, &[0]), der(0xa0, &body)].concat())
    }
}
