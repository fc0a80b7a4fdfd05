//! An authority named like Intel's, with platforms, quoting enclaves and quotes of every form: what it makes is simulated, and whatever cannot be had
//! from real silicon is made with it.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CustomExtension, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use serde_json::{Value, json};
use starminer_hardware::cert::{Certificate, Roots};
use starminer_hardware::dcap::{Endorsements, Quote, Verification, second_opinion, verify};

pub const NOW_S: u64 = 1_780_000_000;
pub const FMSPC: [u8; 6] = [0x10, 0x20, 0x30, 0x40, 0, 0];
const CPU_SVN: [u8; 16] = [5; 16];
const PCE_SVN: u8 = 9;
const VENDOR: [u8; 16] =
    [0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07];

fn day(offset: i64) -> time::OffsetDateTime {
    time::OffsetDateTime::from_unix_timestamp(i64::try_from(NOW_S).unwrap() + offset * 86_400).unwrap()
}

fn date(offset: i64) -> String {
    day(offset).format(&time::format_description::well_known::Rfc3339).unwrap()
}

fn sign(key: &KeyPair, message: &[u8]) -> Vec<u8> {
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &key.serialize_der()).unwrap();
    key.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
}

/// A certificate with its key and what it was made of.
pub struct Identity {
    params: CertificateParams,
    key: KeyPair,
    pub certificate: Certificate,
}

fn params(name: &str, serial: u64) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.distinguished_name.push(DnType::OrganizationName, "Intel Corporation");
    params.not_before = day(-100);
    params.not_after = day(100);
    params.serial_number = Some(SerialNumber::from(serial));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params
}

fn authority(name: &str, serial: u64) -> CertificateParams {
    let mut params = params(name, serial);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn new_key() -> KeyPair {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap()
}

impl Identity {
    fn root(params: CertificateParams) -> Self {
        let key = new_key();
        let certificate = Certificate::from_der(params.self_signed(&key).unwrap().der()).unwrap();
        Self { params, key, certificate }
    }

    fn issue(&self, params: CertificateParams) -> Self {
        let key = new_key();
        let issuer = Issuer::from_params(&self.params, &self.key);
        let certificate = Certificate::from_der(params.signed_by(&key, &issuer).unwrap().der()).unwrap();
        Self { params, key, certificate }
    }

    fn crl(&self, revoked: &[u64], days: (i64, i64)) -> String {
        let revoked_certs = revoked.iter().map(|&serial| RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: day(-5),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: day(days.0),
            next_update: day(days.1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked_certs.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params.signed_by(&Issuer::from_params(&self.params, &self.key)).unwrap();
        data_encoding::HEXLOWER.encode(list.der())
    }

    fn pem(&self) -> String {
        let base64 = data_encoding::BASE64.encode(self.certificate.der());
        let lines: Vec<&str> = base64.as_bytes().chunks(64).map(|line| str::from_utf8(line).unwrap()).collect();
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
    }
}

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
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

/// An element of the SGX extension, whose identifier begins as Intel's do.
fn entry(arcs: &[u8], value: &[u8]) -> Vec<u8> {
    let oid = [&[0x2a, 0x86, 0x48, 0x86, 0xf8, 0x4d, 1, 13, 1], arcs].concat();
    der(0x30, &[der(6, &oid), value.to_vec()].concat())
}

fn sgx_extension() -> Vec<u8> {
    let tcb = [entry(&[2, 17], &der(2, &[PCE_SVN])), entry(&[2, 18], &der(4, &CPU_SVN))].concat();
    let flags =
        [entry(&[7, 1], &der(1, &[0])), entry(&[7, 2], &der(1, &[0xff])), entry(&[7, 3], &der(1, &[0]))].concat();
    let entries = [
        entry(&[1], &der(4, &[7; 16])),
        entry(&[2], &der(0x30, &tcb)),
        entry(&[3], &der(4, &[0, 0])),
        entry(&[4], &der(4, &FMSPC)),
        entry(&[5], &der(10, &[1])),
        entry(&[6], &der(4, &[8; 16])),
        entry(&[7], &der(0x30, &flags)),
    ]
    .concat();
    der(0x30, &entries)
}

/// A form of quote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Sgx3,
    Sgx4,
    Sgx5,
    Td10v4,
    Td10v5,
    Td15v5,
    Td15Extended,
}

impl Form {
    pub const ALL: [Self; 7] =
        [Self::Sgx3, Self::Sgx4, Self::Sgx5, Self::Td10v4, Self::Td10v5, Self::Td15v5, Self::Td15Extended];

    pub const fn is_sgx(self) -> bool {
        matches!(self, Self::Sgx3 | Self::Sgx4 | Self::Sgx5)
    }

    const fn version(self) -> u8 {
        match self {
            Self::Sgx3 => 3,
            Self::Sgx4 | Self::Td10v4 => 4,
            _ => 5,
        }
    }

    /// Body type and length.
    const fn body(self) -> (u8, usize) {
        match self {
            Self::Sgx3 | Self::Sgx4 | Self::Sgx5 => (1, 384),
            Self::Td10v4 | Self::Td10v5 => (2, 584),
            Self::Td15v5 => (3, 648),
            Self::Td15Extended => (4, 885),
        }
    }
}

/// All that can be turned in what the authority publishes and signs.
pub struct World {
    pub root: Identity,
    pub pck_ca: Identity,
    pub tcb_signer: Identity,
    pub pck: Identity,
    pub tcb_info: Value,
    pub qe_identity: Value,
    pub revoked_by_root: Vec<u64>,
    pub revoked_by_ca: Vec<u64>,
    pub crl_days: (i64, i64),
    pub qe_report: Vec<u8>,
    pub form: Form,
}

pub const PCK_CA_SERIAL: u64 = 0x1002;
pub const TCB_SIGNER_SERIAL: u64 = 0x1003;
pub const PCK_SERIAL: u64 = 0x1004;

impl World {
    pub fn new(form: Form) -> Self {
        Self::with_ca(form, authority("Intel SGX PCK Platform CA", PCK_CA_SERIAL))
    }

    pub fn with_ca(form: Form, pck_ca: CertificateParams) -> Self {
        let root = Identity::root(authority("Intel SGX Root CA", 0x1001));
        let pck_ca = root.issue(pck_ca);
        let tcb_signer = root.issue(params("Intel SGX TCB Signing", TCB_SIGNER_SERIAL));
        let mut pck = params("Intel SGX PCK Certificate", PCK_SERIAL);
        let oid = [1, 2, 840, 113_741, 1, 13, 1];
        pck.custom_extensions = vec![CustomExtension::from_oid_content(&oid, sgx_extension())];
        let pck = pck_ca.issue(pck);
        let sgx = form.is_sgx();
        let components = |svn: u8| json!(vec![json!({ "svn": svn }); 16]);
        let level = |svn: u8, status: &str, offset: i64, advisories: Value| {
            let mut tcb = json!({ "sgxtcbcomponents": components(svn), "pcesvn": PCE_SVN });
            if !sgx {
                tcb["tdxtcbcomponents"] = components(svn);
                // The module's version, which is 0 here: such a module is judged by the levels alone.
                tcb["tdxtcbcomponents"][1]["svn"] = 0.into();
            }
            json!({ "tcb": tcb, "tcbDate": date(offset), "tcbStatus": status, "advisoryIDs": advisories })
        };
        let mut tcb_info = json!({
            "id": if sgx { "SGX" } else { "TDX" }, "version": 3, "issueDate": date(-2), "nextUpdate": date(28),
            "fmspc": data_encoding::HEXUPPER.encode(&FMSPC), "pceId": "0000", "tcbType": 0, "tcbEvaluationDataNumber": 20,
            "tcbLevels": [
                level(6, "UpToDate", -30, json!([])),
                level(5, "UpToDate", -60, json!([])),
                level(3, "OutOfDate", -300, json!(["INTEL-SA-00001"])),
            ],
        });
        if !sgx {
            tcb_info["tdxModule"] = json!({
                "mrsigner": "00".repeat(48), "attributes": "00".repeat(8), "attributesMask": "FF".repeat(8),
            });
        }
        let qe_identity = json!({
            "id": if sgx { "QE" } else { "TD_QE" }, "version": 2, "issueDate": date(-3), "nextUpdate": date(27),
            "tcbEvaluationDataNumber": 20,
            "miscselect": "00000000", "miscselectMask": "FFFFFFFF",
            "attributes": "11000000000000000000000000000000", "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
            "mrsigner": "AB".repeat(32), "isvprodid": 2,
            "tcbLevels": [
                { "tcb": { "isvsvn": 4 }, "tcbDate": date(-60), "tcbStatus": "UpToDate" },
                { "tcb": { "isvsvn": 2 }, "tcbDate": date(-300), "tcbStatus": "OutOfDate", "advisoryIDs": ["INTEL-SA-00002"] },
            ],
        });
        let mut qe_report = vec![0; 384];
        qe_report[48] = 0x11;
        qe_report[128..160].fill(0xab);
        qe_report[256] = 2;
        qe_report[258] = 4;
        Self {
            root,
            pck_ca,
            tcb_signer,
            pck,
            tcb_info,
            qe_identity,
            revoked_by_root: Vec::new(),
            revoked_by_ca: Vec::new(),
            crl_days: (-10, 20),
            qe_report,
            form,
        }
    }

    pub fn json(&self) -> Vec<u8> {
        let signed = |value: &Value| {
            let text = value.to_string();
            let signature = data_encoding::HEXLOWER.encode(&sign(&self.tcb_signer.key, text.as_bytes()));
            (text, signature)
        };
        let (tcb_info, tcb_info_signature) = signed(&self.tcb_info);
        let (qe_identity, qe_identity_signature) = signed(&self.qe_identity);
        let signer = format!("{}{}", self.tcb_signer.pem(), self.root.pem());
        json!({
            "pck_crl_issuer_chain": format!("{}{}", self.pck_ca.pem(), self.root.pem()),
            "root_ca_crl": self.root.crl(&self.revoked_by_root, self.crl_days),
            "pck_crl": self.pck_ca.crl(&self.revoked_by_ca, self.crl_days),
            "tcb_info_issuer_chain": signer.clone(), "tcb_info": tcb_info, "tcb_info_signature": tcb_info_signature,
            "qe_identity_issuer_chain": signer, "qe_identity": qe_identity, "qe_identity_signature": qe_identity_signature,
        })
        .to_string()
        .into_bytes()
    }

    /// A body in which everything is as a policy by default wants it.
    pub fn body(&self) -> Vec<u8> {
        let mut body = vec![0; self.form.body().1];
        if self.form.is_sgx() {
            body[48] = 0x05;
            body[56] = 0x07;
            body[64..96].fill(0x11);
            body[128..160].fill(0x22);
            body[256] = 7;
            body[258] = 3;
            body[320..384].fill(0x33);
        } else {
            body[..16].fill(5);
            body[1] = 0;
            body[120 + 3] = 0x10;
            body[128] = 0xe7;
            for (at, value) in [(136, 0x44), (328, 0x50), (376, 0x51), (424, 0x52)] {
                body[at..at + 48].fill(value);
            }
            body[520..584].fill(0x33);
            if body.len() > 584 {
                body[584..600].fill(5);
                body[585] = 0;
            }
        }
        body
    }

    /// A quote over this body.
    pub fn quote(&self, body: &[u8]) -> Vec<u8> {
        self.quote_certified(body, 5, [self.pck.pem(), self.pck_ca.pem(), self.root.pem()].concat().as_bytes())
    }

    /// The PCK certificate alone, and its chain.
    pub fn pck_pem(&self) -> (String, String) {
        (self.pck.pem(), [self.pck.pem(), self.pck_ca.pem(), self.root.pem()].concat())
    }

    /// What certification data of types 1 to 3 ends with.
    pub fn svns() -> Vec<u8> {
        [&CPU_SVN[..], &[PCE_SVN, 0, 0, 0]].concat()
    }

    /// A quote over this body with this certification data.
    pub fn quote_certified(&self, body: &[u8], certification_kind: u8, chain: &[u8]) -> Vec<u8> {
        let (version, (kind, len)) = (self.form.version(), self.form.body());
        let mut quote = vec![version, 0, 2, 0, if self.form.is_sgx() { 0 } else { 0x81 }, 0, 0, 0, 0, 0, 0, 0];
        quote.extend(VENDOR);
        quote.extend([0; 20]);
        if version == 5 {
            quote.extend([kind, 0]);
            quote.extend(u32::try_from(len).unwrap().to_le_bytes());
        }
        quote.extend(body);
        let key = new_key();
        let public = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &key.serialize_der()).unwrap();
        let public = public.public_key().as_ref()[1..].to_vec();
        let auth_data = [9; 32];
        let mut qe_report = self.qe_report.clone();
        let bound = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &[&public[..], &auth_data].concat());
        qe_report[320..352].copy_from_slice(bound.as_ref());
        let mut certification = qe_report.clone();
        certification.extend(sign(&self.pck.key, &qe_report));
        certification.extend([32, 0]);
        certification.extend(auth_data);
        certification.extend([certification_kind, 0]);
        certification.extend(u32::try_from(chain.len()).unwrap().to_le_bytes());
        certification.extend(chain);
        let mut signature_data = sign(&key, &quote);
        signature_data.extend(public);
        if version > 3 {
            signature_data.extend([6, 0]);
            signature_data.extend(u32::try_from(certification.len()).unwrap().to_le_bytes());
        }
        signature_data.extend(certification);
        quote.extend(u32::try_from(signature_data.len()).unwrap().to_le_bytes());
        quote.extend(signature_data);
        quote
    }

    pub fn roots(&self) -> Roots {
        Roots::none().with(self.root.certificate.clone())
    }

    pub fn verify(&self) -> Verification {
        self.verify_body(&self.body())
    }

    pub fn verify_body(&self, body: &[u8]) -> Verification {
        let endorsements = Endorsements::parse(&self.json()).unwrap();
        verify(&Quote::parse(&self.quote(body)).unwrap(), &endorsements, &self.roots(), NOW_S)
    }

    /// What `dcap-qvl` says of the same quote.
    pub fn second_opinion(&self, body: &[u8]) -> Result<(), String> {
        let (json, quote) = (self.json(), self.quote(body));
        let endorsements = Endorsements::parse(&json).unwrap();
        let verification = verify(&Quote::parse(&quote).unwrap(), &endorsements, &self.roots(), NOW_S);
        let verified = verification.verified.ok_or("refused here")?;
        second_opinion(&quote, &endorsements, &self.root.certificate, NOW_S, &verified)
    }
}

/// The authority for PCK certificates, with something altered.
pub fn altered_ca(alter: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut params = authority("Intel SGX PCK Platform CA", PCK_CA_SERIAL);
    alter(&mut params);
    params
}

pub fn past() -> time::OffsetDateTime {
    day(-1)
}
