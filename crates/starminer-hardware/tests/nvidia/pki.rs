//! A test PKI in the shape of NVIDIA's: devices with reports that are signed, and manifests. Whatever it makes is simulated.

use aws_lc_rs::digest::{SHA384, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair};
use data_encoding::{BASE64, HEXLOWER};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CrlDistributionPoint, CustomExtension,
    DnType, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, OtherNameValue, RevokedCertParams, SanType,
    SerialNumber,
};
use starminer_hardware::cert::{Certificate, Crl};

use super::support::{NOW_S, entry};

pub const FWID: [u8; 48] = [0xf1; 48];
pub const NONCE: [u8; 32] = [0x4e; 32];
const SWID: &str = "http://standards.iso.org/iso/19770/-2/2015/schema.xsd";
const HASH: &str = "http://www.w3.org/2001/04/xmlenc#sha384";
const SHA384_OID: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02];

/// An authority, or whoever has a certificate.
pub struct Party {
    params: CertificateParams,
    key: KeyPair,
    pub certificate: Certificate,
}

fn day(offset: i64) -> time::OffsetDateTime {
    time::OffsetDateTime::from_unix_timestamp(i64::try_from(NOW_S).unwrap() + offset * 86_400).unwrap()
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, name);
    (params.not_before, params.not_after) = (day(-10), day(10));
    params
}

fn authority(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn signer(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params
}

impl Party {
    pub fn root(name: &str) -> Self {
        let params = authority(name);
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let certificate = Certificate::from_der(params.self_signed(&key).unwrap().der()).unwrap();
        Self { params, key, certificate }
    }

    fn issue_with(&self, mut params: CertificateParams, listed: bool, key: KeyPair) -> Self {
        if listed {
            let uris = vec!["http://crl.test/list".to_owned()];
            params.crl_distribution_points = vec![CrlDistributionPoint { uris }];
        }
        let issuer = Issuer::from_params(&self.params, &self.key);
        let certificate = Certificate::from_der(params.signed_by(&key, &issuer).unwrap().der()).unwrap();
        Self { params, key, certificate }
    }

    fn issue(&self, params: CertificateParams, listed: bool) -> Self {
        self.issue_with(params, listed, KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap())
    }

    /// A revocation list of this authority, to be renewed after so many days.
    pub fn list(&self, revoked: &[&Certificate], days: i64) -> Crl {
        let revoked_certs = revoked.iter().map(|certificate| RevokedCertParams {
            serial_number: SerialNumber::from_slice(certificate.serial()),
            revocation_time: day(-1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: day(-5),
            next_update: day(days),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked_certs.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params.signed_by(&Issuer::from_params(&self.params, &self.key)).unwrap();
        Crl::from_der(list.der()).unwrap()
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &self.key.serialize_der()).unwrap();
        key.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
    }
}

/// DER of less than 64 KiB.
pub fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let len = u16::try_from(content.len()).unwrap().to_be_bytes();
    let header = match len {
        [0, short @ 0..0x80] => vec![tag, short],
        [0, short] => vec![tag, 0x81, short],
        [high, low] => vec![tag, 0x82, high, low],
    };
    [header.as_slice(), content].concat()
}

fn fwid(value: &[u8]) -> Vec<u8> {
    der(0x30, &[der(0x06, SHA384_OID), der(0x04, value)].concat())
}

/// What a device is made with. Everything else follows.
#[derive(Clone)]
pub struct Recipe {
    pub architecture: &'static str,
    /// What the report is asked with.
    pub nonce: [u8; 32],
    pub name: String,
    pub model: String,
    /// `None`: Hopper's form of the firmware extension. Some: Blackwell's, with these operational flags.
    pub flags: Option<u8>,
    pub certified_fwid: [u8; 48],
    pub p256_leaf: bool,
    pub leaf_is_authority: bool,
    /// The key that Hopper's extension names, instead of the issuer's.
    pub other_issuer_key: bool,
    pub measurements: Vec<(u8, Vec<u8>)>,
    pub opaque: Vec<(u16, Vec<u8>)>,
}

impl Recipe {
    pub fn hopper(serial: &str) -> Self {
        Self {
            architecture: "HOPPER",
            nonce: NONCE,
            name: format!("NVIDIA:GH100:{serial}"),
            model: "GH100 A01 GSP BROM".to_owned(),
            flags: None,
            certified_fwid: FWID,
            p256_leaf: false,
            leaf_is_authority: false,
            other_issuer_key: false,
            measurements: (1..=64).map(|index| (index, vec![index; 48])).collect(),
            opaque: vec![
                (6, vec![0x00, 0xa5, 0x00, 0x96, 0x01, 0, 0, 0]),
                (3, b"590.12\0".to_vec()),
                (11, vec![0x55]),
                (20, FWID.to_vec()),
                (36, vec![0, 0]),
            ],
        }
    }

    pub fn blackwell(serial: &str, flags: u8) -> Self {
        let mut recipe = Self {
            architecture: "BLACKWELL",
            name: format!("NVIDIA:GB100:{serial}"),
            model: "GB100 A01 GSP".to_owned(),
            flags: Some(flags),
            ..Self::hopper(serial)
        };
        recipe.opaque.push((35, b"GB100\0\0\0".to_vec()));
        recipe
    }

    pub fn without(mut self, field: u16) -> Self {
        self.opaque.retain(|(kind, _)| *kind != field);
        self
    }

    pub fn with(self, field: u16, value: &[u8]) -> Self {
        let mut recipe = self.without(field);
        recipe.opaque.push((field, value.to_vec()));
        recipe
    }

    fn firmware(&self, issuer_spki: &[u8]) -> Vec<u8> {
        match self.flags {
            None => der(0x30, &[vec![2, 1, 1], issuer_spki.to_vec(), fwid(&self.certified_fwid)].concat()),
            Some(flags) => {
                let list = [fwid(&self.certified_fwid), fwid(&[9; 48])].concat();
                der(0x30, &[der(0x80, b"NVIDIA"), der(0xa6, &list), der(0x87, &[0, flags])].concat())
            }
        }
    }

    /// The request and the response, without a signature.
    fn unsigned(&self) -> Vec<u8> {
        let record: Vec<u8> = self
            .measurements
            .iter()
            .flat_map(|(index, value)| {
                let len = u16::try_from(value.len()).unwrap();
                let head = [&[*index, 1][..], &(len + 3).to_le_bytes(), &[1], &len.to_le_bytes()].concat();
                [head, value.clone()].concat()
            })
            .collect();
        let opaque: Vec<u8> = self
            .opaque
            .iter()
            .flat_map(|(kind, value)| {
                let len = u16::try_from(value.len()).unwrap();
                [&kind.to_le_bytes()[..], &len.to_le_bytes(), value].concat()
            })
            .collect();
        [
            &[0x11, 0xe0, 0x01, 0xff][..],
            &self.nonce,
            &[0, 0x11, 0x60, 0, 0, u8::try_from(self.measurements.len()).unwrap()],
            &u32::try_from(record.len()).unwrap().to_le_bytes()[..3],
            &record,
            &[7; 32],
            &u16::try_from(opaque.len()).unwrap().to_le_bytes(),
            &opaque,
        ]
        .concat()
    }
}

/// The makers of devices and manifests.
pub struct Maker {
    pub device_root: Party,
    pub identity: Party,
    pub provisioner: Party,
    pub rim_root: Party,
    pub rim_signer: Party,
}

impl Maker {
    pub fn new() -> Self {
        let device_root = Party::root("Test Device Identity CA");
        let identity = device_root.issue(authority("Test GH100 Identity"), true);
        let provisioner = identity.issue(authority("Test Provisioner"), true);
        let rim_root = Party::root("Test RIM Root CA");
        let rim_signer = rim_root.issue(signer("Test RIM signer"), false);
        Self { device_root, identity, provisioner, rim_root, rim_signer }
    }

    /// The evidence of one GPU, to stand in an array.
    pub fn device(&self, recipe: &Recipe) -> (serde_json::Value, Certificate) {
        let mut chip = authority(&recipe.model);
        chip.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let chip = self.provisioner.issue(chip, false);
        let named = if recipe.other_issuer_key { &self.identity } else { &chip };
        let mut leaf = signer("Test attestation key");
        if recipe.leaf_is_authority {
            leaf.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        let name = OtherNameValue::Utf8String(recipe.name.clone());
        leaf.subject_alt_names = vec![SanType::OtherName((vec![1, 3, 6, 1, 4, 1, 412, 274, 1], name))];
        let extension = recipe.firmware(named.certificate.spki());
        leaf.custom_extensions = vec![CustomExtension::from_oid_content(&[2, 23, 133, 5, 4, 1], extension)];
        let key = if recipe.p256_leaf { &rcgen::PKCS_ECDSA_P256_SHA256 } else { &rcgen::PKCS_ECDSA_P384_SHA384 };
        let leaf = chip.issue_with(leaf, false, KeyPair::generate_for(key).unwrap());

        let unsigned = recipe.unsigned();
        let signature = if recipe.p256_leaf { vec![1; 96] } else { leaf.sign(&unsigned) };
        let chain = [&leaf, &chip, &self.provisioner, &self.identity, &self.device_root];
        let pem: String = chain
            .iter()
            .map(|party| {
                let base64 = BASE64.encode(party.certificate.der());
                format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n")
            })
            .collect();
        let json = entry(recipe.architecture, pem.as_bytes(), &[unsigned, signature].concat());
        (json, leaf.certificate)
    }

    /// A manifest. It is written in canonical form by hand, so that what is signed does not depend on the code under test.
    pub fn rim(&self, version: &str, product: &str, resources: &[Resource]) -> String {
        let resources: String = resources.iter().map(Resource::xml).collect();
        let open = format!(
            "<SoftwareIdentity xmlns=\"{SWID}\" xmlns:ns2=\"{HASH}\" tagId=\"test\"><Entity></Entity>\
             <Meta colloquialVersion=\"{version}\" edition=\"GPU\" product=\"{product}\"></Meta><Payload>{resources}</Payload>"
        );
        let close = "</SoftwareIdentity>";
        let content = digest(&SHA384, format!("{open}{close}").as_bytes());
        let info = format!(
            "<ds:CanonicalizationMethod Algorithm=\"http://www.w3.org/2006/12/xml-c14n11\"></ds:CanonicalizationMethod>\
             <ds:SignatureMethod Algorithm=\"http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384\"></ds:SignatureMethod>\
             <ds:Reference URI=\"\"><ds:Transforms>\
             <ds:Transform Algorithm=\"http://www.w3.org/2000/09/xmldsig#enveloped-signature\"></ds:Transform>\
             <ds:Transform Algorithm=\"http://www.w3.org/2006/12/xml-c14n11\"></ds:Transform></ds:Transforms>\
             <ds:DigestMethod Algorithm=\"http://www.w3.org/2001/04/xmldsig-more#sha384\"></ds:DigestMethod>\
             <ds:DigestValue>{}</ds:DigestValue></ds:Reference></ds:SignedInfo>",
            BASE64.encode(content.as_ref())
        );
        let dsig = "http://www.w3.org/2000/09/xmldsig#";
        let canonical = format!("<ds:SignedInfo xmlns=\"{SWID}\" xmlns:ds=\"{dsig}\" xmlns:ns2=\"{HASH}\">{info}");
        let signature = BASE64.encode(&self.rim_signer.sign(canonical.as_bytes()));
        let certificates: String = [&self.rim_signer, &self.rim_root]
            .iter()
            .map(|party| format!("<ds:X509Certificate>{}</ds:X509Certificate>", BASE64.encode(party.certificate.der())))
            .collect();
        format!(
            "{open}<ds:Signature xmlns:ds=\"{dsig}\"><ds:SignedInfo>{info}<ds:SignatureValue>{signature}</ds:SignatureValue>\
             <ds:KeyInfo><ds:X509Data>{certificates}</ds:X509Data></ds:KeyInfo></ds:Signature>{close}"
        )
    }
}

/// One measurement of a manifest, by the manifest's index.
#[derive(Clone)]
pub struct Resource {
    pub index: u8,
    pub active: bool,
    pub values: Vec<Vec<u8>>,
}

impl Resource {
    /// What [`Recipe::hopper`] measures there.
    pub fn matching(index: u8) -> Self {
        Self { index, active: true, values: vec![vec![index + 1; 48]] }
    }

    fn xml(&self) -> String {
        let values: String = self
            .values
            .iter()
            .enumerate()
            .map(|(at, value)| format!(" ns2:Hash{at}=\"{}\"", HEXLOWER.encode(value)))
            .collect();
        format!(
            "<Resource active=\"{}\" alternatives=\"{}\" index=\"{}\" size=\"{}\" type=\"Measurement\"{values}></Resource>",
            if self.active { "True" } else { "False" },
            self.values.len(),
            self.index,
            self.values[0].len(),
        )
    }
}
