//! A laboratory: a root, authorities and keys with AMD's names and extensions, and reports that they sign.

use std::collections::BTreeMap;

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair},
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CustomExtension, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use starminer_hardware::{
    cert::{Certificate, Crl, Roots},
    snp::{Expect, Hex, Policy, Product, REPORT_BYTES, Verified},
};

pub const NOW: u64 = 1_780_000_000;
pub const REVOKED_SERIAL: [u8; 3] = [2, 0, 2];

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Vek {
    Chip,
    Cloud,
}

struct Authority {
    params: CertificateParams,
    key: KeyPair,
    certificate: Certificate,
}

pub struct Lab {
    pub product: Product,
    pub tcb: [u8; 8],
    pub hardware_id: Vec<u8>,
    ark: Authority,
    ask: Authority,
    asvk: Authority,
    key: KeyPair,
}

pub fn put(report: &mut [u8; REPORT_BYTES], offset: usize, bytes: &[u8]) {
    report[offset..offset + bytes.len()].copy_from_slice(bytes);
}

fn day(offset: i64) -> time::OffsetDateTime {
    time::OffsetDateTime::from_unix_timestamp(NOW as i64 + offset * 86_400).unwrap()
}

fn key() -> KeyPair {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap()
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::OrganizationName, "Laboratory");
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = day(-30);
    params.not_after = day(300);
    params
}

fn authority(name: &str, issuer: Option<&Authority>, path_length: Option<u8>) -> Authority {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(path_length.map_or(BasicConstraints::Unconstrained, BasicConstraints::Constrained));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.serial_number = Some(SerialNumber::from_slice(&REVOKED_SERIAL));
    let key = key();
    let certificate = match issuer {
        None => params.self_signed(&key),
        Some(issuer) => params.signed_by(&key, &Issuer::from_params(&issuer.params, &issuer.key)),
    };
    let certificate = Certificate::from_der(certificate.unwrap().der()).unwrap();
    Authority { params, key, certificate }
}

/// AMD's extensions by what stands after 1.3.6.1.4.1.3704.1.
type Extensions = BTreeMap<Vec<u64>, Vec<u8>>;

impl Lab {
    pub fn new(product: Product) -> Self {
        let (tcb, hardware_id) = match product {
            Product::Milan => ([4, 0, 0, 0, 0, 0, 24, 219], (0..64).map(|n| n ^ 0x5a).collect()),
            Product::Genoa => ([10, 0, 0, 0, 0, 0, 23, 84], (0..64).map(|n| n ^ 0xa5).collect()),
            Product::Turin => ([1, 2, 3, 4, 0, 0, 0, 77], vec![0xab, 0xcd, 0xef, 0x01, 0x23, 0x45, 0x67, 0x89]),
        };
        let ark = authority(&format!("ARK-{}", product.name()), None, None);
        let ask = authority(&format!("SEV-{}", product.name()), Some(&ark), Some(0));
        let asvk = authority(&format!("SEV-VLEK-{}", product.name()), Some(&ark), Some(0));
        Self { product, tcb, hardware_id, ark, ask, asvk, key: key() }
    }

    pub fn milan() -> Self {
        Self::new(Product::Milan)
    }
    pub fn genoa() -> Self {
        Self::new(Product::Genoa)
    }
    pub fn turin() -> Self {
        Self::new(Product::Turin)
    }

    pub fn ark(&self) -> &Certificate {
        &self.ark.certificate
    }

    pub fn roots(&self) -> Roots {
        Roots::none().with(self.ark.certificate.clone())
    }

    fn extensions(&self, vek: Vek) -> Extensions {
        let integer = |value: u8| if value < 0x80 { vec![2, 1, value] } else { vec![2, 2, 0, value] };
        let text = |text: &str| [&[0x16, text.len() as u8], text.as_bytes()].concat();
        let mut out = Extensions::new();
        out.insert(vec![1], integer(u8::from(self.product == Product::Turin)));
        out.insert(vec![2], text(self.product.name()));
        let numbers: [u64; 8] = match self.product {
            Product::Milan | Product::Genoa => [1, 2, 4, 5, 6, 7, 3, 8],
            Product::Turin => [9, 1, 2, 3, 5, 6, 7, 8],
        };
        for (number, value) in numbers.into_iter().zip(self.tcb) {
            out.insert(vec![3, number], integer(value));
        }
        match vek {
            Vek::Chip => out.insert(vec![4], self.hardware_id.clone()),
            Vek::Cloud => out.insert(vec![5], text("CN=cloud.example")),
        };
        out
    }

    fn vek(&self, name: &str, extensions: &Extensions, issuer: &Authority, key: &KeyPair) -> Certificate {
        let mut params = params(name);
        params.serial_number = Some(SerialNumber::from_slice(&[0]));
        for (arcs, value) in extensions {
            let oid = [&[1, 3, 6, 1, 4, 1, 3704, 1], arcs.as_slice()].concat();
            params.custom_extensions.push(CustomExtension::from_oid_content(&oid, value.clone()));
        }
        let certificate = params.signed_by(key, &Issuer::from_params(&issuer.params, &issuer.key)).unwrap();
        Certificate::from_der(certificate.der()).unwrap()
    }

    /// The key's certificate and its authority's.
    pub fn certificates(&self, vek: Vek) -> Vec<Certificate> {
        let (name, issuer) = match vek {
            Vek::Chip => ("SEV-VCEK", &self.ask),
            Vek::Cloud => ("SEV-VLEK", &self.asvk),
        };
        vec![self.vek(name, &self.extensions(vek), issuer, &self.key), issuer.certificate.clone()]
    }

    pub fn vek_signed_by_the_other(&self, vek: Vek) -> Certificate {
        let (name, issuer) = match vek {
            Vek::Chip => ("SEV-VCEK", &self.asvk),
            Vek::Cloud => ("SEV-VLEK", &self.ask),
        };
        self.vek(name, &self.extensions(vek), issuer, &self.key)
    }

    /// Certificates that the authority signed and that are no VCEK all the same.
    pub fn malformed_veks(&self) -> Vec<(&'static str, Certificate)> {
        let altered = |name, alter: fn(&mut Extensions)| {
            let mut extensions = self.extensions(Vek::Chip);
            alter(&mut extensions);
            (name, self.vek("SEV-VCEK", &extensions, &self.ask, &self.key))
        };
        let good = self.extensions(Vek::Chip);
        let small = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        vec![
            ("another subject", self.vek("SEV-OTHER", &good, &self.ask, &self.key)),
            ("VLEK with a chip", self.vek("SEV-VLEK", &good, &self.ask, &self.key)),
            ("on P-256", self.vek("SEV-VCEK", &good, &self.ask, &small)),
            altered("no security version", |e| drop(e.remove(&vec![3, 8]))),
            altered("no FMC", |e| drop(e.remove(&vec![3, 9]))),
            altered("large security version", |e| drop(e.insert(vec![3, 8], vec![2, 2, 1, 0]))),
            altered("negative security version", |e| drop(e.insert(vec![3, 8], vec![2, 1, 0x80]))),
            altered("padded security version", |e| drop(e.insert(vec![3, 8], vec![2, 2, 0, 5]))),
            altered("security version of another product", |e| drop(e.insert(vec![3, 4], vec![2, 1, 1]))),
            altered("no product", |e| drop(e.remove(&vec![2]))),
            altered("another product", |e| drop(e.insert(vec![2], b"\x16\x05Naple".to_vec()))),
            altered("product of another type", |e| drop(e.insert(vec![2], b"\x0c\x05Turin".to_vec()))),
            altered("no chip", |e| drop(e.remove(&vec![4]))),
            altered("short chip", |e| drop(e.insert(vec![4], vec![1; 7]))),
            altered("long chip", |e| drop(e.insert(vec![4], vec![1; 64]))),
            altered("chip and cloud", |e| drop(e.insert(vec![5], b"\x16\x01c".to_vec()))),
        ]
    }

    fn list(&self, revoked: &[u8]) -> Crl {
        let revoked = (!revoked.is_empty()).then(|| RevokedCertParams {
            serial_number: SerialNumber::from_slice(revoked),
            revocation_time: day(-1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: day(-1),
            next_update: day(10),
            crl_number: SerialNumber::from(7u64),
            issuing_distribution_point: None,
            revoked_certs: revoked.into_iter().collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params.signed_by(&Issuer::from_params(&self.ark.params, &self.ark.key)).unwrap();
        Crl::from_der(list.der()).unwrap()
    }

    pub fn crl(&self) -> Crl {
        self.list(&[])
    }

    pub fn crl_revoking(&self, serial: &[u8]) -> Crl {
        self.list(serial)
    }

    /// A report of version 5, altered before it is signed.
    pub fn report(&self, alter: impl FnOnce(&mut [u8; REPORT_BYTES])) -> Vec<u8> {
        self.report_by(Vek::Chip, alter)
    }

    pub fn report_by(&self, vek: Vek, alter: impl FnOnce(&mut [u8; REPORT_BYTES])) -> Vec<u8> {
        let mut report = [0; REPORT_BYTES];
        put(&mut report, 0x00, &5u32.to_le_bytes());
        put(&mut report, 0x04, &3u32.to_le_bytes());
        put(&mut report, 0x08, &0x3001fu64.to_le_bytes());
        put(&mut report, 0x10, &[1; 16]);
        put(&mut report, 0x20, &[2; 16]);
        put(&mut report, 0x34, &1u32.to_le_bytes());
        put(&mut report, 0x40, &[0b0010_0101]);
        put(&mut report, 0x48, &[if vek == Vek::Chip { 0 } else { 1 << 2 }]);
        put(&mut report, 0x50, &[3; 64]);
        put(&mut report, 0x90, &[4; 48]);
        put(&mut report, 0xc0, &[5; 32]);
        put(&mut report, 0xe0, &[6; 48]);
        put(&mut report, 0x140, &[7; 32]);
        put(&mut report, 0x160, &[0xff; 32]);
        let cpuid = match self.product {
            Product::Milan => [0x19, 0x01, 1],
            Product::Genoa => [0x19, 0x11, 1],
            Product::Turin => [0x1a, 0x02, 1],
        };
        put(&mut report, 0x188, &cpuid);
        put(&mut report, 0x1a0, &self.hardware_id);
        for offset in [0x38, 0x180, 0x1e0, 0x1f0] {
            put(&mut report, offset, &self.tcb);
        }
        for offset in [0x1e8, 0x1ec] {
            put(&mut report, offset, &[30, 58, 1]);
        }
        put(&mut report, 0x1f8, &3u64.to_le_bytes());
        put(&mut report, 0x200, &7u64.to_le_bytes());
        alter(&mut report);
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, self.key.serialized_der()).unwrap();
        let signature = key.sign(&SystemRandom::new(), &report[..0x2a0]).unwrap();
        for (offset, half) in [(0x2a0, &signature.as_ref()[..48]), (0x2e8, &signature.as_ref()[48..])] {
            let little: Vec<u8> = half.iter().rev().copied().collect();
            put(&mut report, offset, &little);
        }
        report.to_vec()
    }

    /// A policy that accepts this very report and lets nothing open that it can close.
    pub fn policy(&self, verified: &Verified) -> Policy {
        let claims = verified.claims();
        let mut policy = Policy {
            simulated_roots: vec![Hex(self.ark.certificate.fingerprint())],
            measurement: Expect::OneOf(vec![Hex(claims.measurement)]),
            report_data: Expect::OneOf(vec![Hex(claims.report_data)]),
            mitigations: 3,
            ..Policy::default()
        };
        if claims.mitigations.is_none() {
            policy.mitigations = 0;
        }
        policy.tcb_floor.insert(claims.product, claims.reported_tcb.components(claims.product));
        policy
    }
}
