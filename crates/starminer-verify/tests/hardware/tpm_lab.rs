//! A TPM made of keys: a maker's authority, a certificate of an endorsement key, an attestation key, registers, and the logs behind them.

use std::collections::BTreeMap;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CustomExtension, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use starminer_hardware::cert::{Certificate, Crl};
use starminer_hardware::event_log::{Bank, EventLog, Registers, verify};
use starminer_hardware::tpm::{HashAlg, PcrIndex, PcrValues, Public};
use starminer_verify::parts::TpmPart;
use starminer_verify::{AkName, Digest, pcr_measurement};

use super::log_builder::{Builder, machine};
use super::snp_lab::NOW;

/// The agent's executable file, as the kernel measured it.
pub const AGENT_FILE: &[u8] = b"an agent's executable";

pub struct TpmLab {
    params: CertificateParams,
    key: KeyPair,
    pub root: Certificate,
    pub ek: Certificate,
    ak: EcdsaKeyPair,
    pub ak_public: Vec<u8>,
    /// SHA-256 bank, 0 to 11.
    pub pcrs: BTreeMap<u8, [u8; 32]>,
    pub log: Vec<u8>,
    pub ima: Vec<u8>,
}

fn day(offset: i64) -> time::OffsetDateTime {
    time::OffsetDateTime::from_unix_timestamp(NOW as i64 + offset * 86_400).unwrap()
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    (params.not_before, params.not_after) = (day(-10), day(10));
    params
}

fn two(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    Digest::of(&parts.concat()).0
}

/// Maker, model and version of a TPM.
fn alternative_name() -> CustomExtension {
    let element = |tag: u8, content: &[u8]| [&[tag, u8::try_from(content.len()).unwrap()][..], content].concat();
    let sets: Vec<u8> = [(1, "id:53544D20"), (2, "model"), (3, "id:0001")]
        .into_iter()
        .flat_map(|(number, value)| {
            let fields = [element(0x06, &[0x67, 0x81, 5, 2, number]), element(0x0c, value.as_bytes())].concat();
            element(0x31, &element(0x30, &fields))
        })
        .collect();
    let mut extension =
        CustomExtension::from_oid_content(&[2, 5, 29, 17], element(0x30, &element(0xa4, &element(0x30, &sets))));
    extension.set_criticality(true);
    extension
}

/// A line of IMA's text, and what it extends register 10 of the SHA-256 bank with.
fn ima_line(path: &str, file: &[u8; 32]) -> (String, [u8; 32]) {
    let digest = [&b"sha256:\0"[..], file].concat();
    let name = [path.as_bytes(), &[0]].concat();
    let mut data = Vec::new();
    for field in [&digest, &name] {
        data.extend(u32::try_from(field.len()).unwrap().to_le_bytes());
        data.extend(field);
    }
    let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
    let template = Bank::Sha1.hash(&[&data]);
    (format!("10 {} ima-ng sha256:{} {path}\n", template.to_hex(), hex(file)), sha256(&[&data]))
}

impl TpmLab {
    pub fn new() -> Self {
        Self::with_log(machine(&[1]))
    }

    pub fn with_log(log: Builder) -> Self {
        let mut root_params = params("test TPM maker");
        root_params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        root_params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let root = Certificate::from_der(root_params.self_signed(&key).unwrap().der()).unwrap();
        let mut ek = params("");
        ek.distinguished_name = rcgen::DistinguishedName::new();
        ek.key_usages = vec![KeyUsagePurpose::KeyAgreement];
        ek.extended_key_usages = vec![ExtendedKeyUsagePurpose::Other(vec![2, 23, 133, 8, 1])];
        ek.custom_extensions = vec![alternative_name()];
        let ek_key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let ek = ek.signed_by(&ek_key, &Issuer::from_params(&root_params, &key)).unwrap();
        let ek = Certificate::from_der(ek.der()).unwrap();

        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
        let ak = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref()).unwrap();
        let point = ak.public_key().as_ref()[1..].to_vec();
        // ECC, SHA-256; fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, restricted, sign; ECDSA with SHA-256 on P-256.
        let ak_public = [
            &[0x00, 0x23, 0x00, 0x0b, 0x00, 0x05, 0x00, 0x72, 0x00, 0x00][..],
            &[0x00, 0x10, 0x00, 0x18, 0x00, 0x0b, 0x00, 0x03, 0x00, 0x10],
            &two(&point[..32]),
            &two(&point[32..]),
        ]
        .concat();

        let mut lab = Self {
            params: root_params,
            key,
            root,
            ek,
            ak,
            ak_public,
            pcrs: (0..12).map(|index| (index, [0; 32])).collect(),
            log: log.bytes,
            ima: Vec::new(),
        };
        lab.boot();
        lab
    }

    /// Sets the registers as the log has them, and has the kernel measure the agent.
    fn boot(&mut self) {
        let verification = verify(&EventLog::parse(&self.log).unwrap(), Registers::NotGiven);
        let verified = verification.verified.unwrap_or_else(|| panic!("{:#?}", verification.checks));
        for (index, value) in verified.pcrs().of_bank(Bank::Sha256) {
            self.pcrs.insert(u8::try_from(index).unwrap(), value.as_bytes().try_into().unwrap());
        }
        let aggregate: Vec<&[u8]> = (0..10).map(|index| self.pcrs[&index].as_slice()).collect();
        let aggregate = sha256(&aggregate);
        self.measure_digest("boot_aggregate", &aggregate);
        self.measure("/usr/bin/starminer-agent", AGENT_FILE);
    }

    /// Has the kernel measure a file.
    pub fn measure(&mut self, path: &str, file: &[u8]) {
        self.measure_digest(path, &sha256(&[file]));
    }

    fn measure_digest(&mut self, path: &str, file: &[u8; 32]) {
        let (line, extended) = ima_line(path, file);
        self.extend_ima(&line, &extended);
    }

    /// Has the kernel see that a file changed while it was measured.
    pub fn violate(&mut self, path: &str) {
        let line = format!("10 {} ima-ng sha256:{} {path}\n", "0".repeat(40), "0".repeat(64));
        self.extend_ima(&line, &[0xff; 32]);
    }

    fn extend_ima(&mut self, line: &str, measured: &[u8; 32]) {
        self.ima.extend(line.as_bytes());
        let register = self.pcrs.entry(10).or_default();
        *register = sha256(&[&register[..], measured]);
    }

    pub fn ak_name(&self) -> AkName {
        AkName::from_bytes(&Public::parse(&self.ak_public).unwrap().name()).unwrap()
    }

    /// What a reference value would hold, over these PCRs.
    pub fn measurement(&self, pcrs: &[u8]) -> Digest {
        let mut values = PcrValues::default();
        for (index, value) in &self.pcrs {
            values.insert(HashAlg::Sha256, PcrIndex::new(*index).unwrap(), value.to_vec()).unwrap();
        }
        let selected = pcrs.iter().map(|index| PcrIndex::new(*index).unwrap()).collect();
        pcr_measurement(&values, HashAlg::Sha256, &selected).unwrap()
    }

    pub fn crl(&self, revoked: Option<&Certificate>) -> Crl {
        let revoked_certs = revoked.map(|certificate| RevokedCertParams {
            serial_number: SerialNumber::from_slice(certificate.serial()),
            revocation_time: day(-1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: day(-1),
            next_update: day(5),
            crl_number: SerialNumber::from(1u64),
            issuing_distribution_point: None,
            revoked_certs: revoked_certs.into_iter().collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Crl::from_der(params.signed_by(&Issuer::from_params(&self.params, &self.key)).unwrap().der()).unwrap()
    }

    /// A quote over PCR 0 to 11 of the SHA-256 bank, altered before it is signed.
    pub fn quote(&self, qualifying_data: &[u8], alter: impl FnOnce(&mut Vec<u8>)) -> (Vec<u8>, Vec<u8>) {
        let name = Public::parse(&self.ak_public).unwrap().name();
        let signer = [&[0x00, 0x0b][..], &sha256(&[&0x4000_000b_u32.to_be_bytes(), &name])].concat();
        let values: Vec<&[u8]> = self.pcrs.values().map(<[u8; 32]>::as_slice).collect();
        let mut attest = [
            &b"\xffTCG\x80\x18"[..],
            &two(&signer),
            &two(qualifying_data),
            &1_000_000_u64.to_be_bytes(),
            &7_u32.to_be_bytes(),
            &0_u32.to_be_bytes(),
            &[1],
            &0x0001_0002_0003_0004_u64.to_be_bytes(),
            &[0, 0, 0, 1, 0x00, 0x0b, 3, 0xff, 0x0f, 0x00],
            &two(&sha256(&values)),
        ]
        .concat();
        alter(&mut attest);
        let signature = self.ak.sign(&SystemRandom::new(), &attest).unwrap();
        let (r, s) = signature.as_ref().split_at(32);
        let signature = [&[0x00, 0x18, 0x00, 0x0b][..], &two(r), &two(s)].concat();
        (attest, signature)
    }

    pub fn part(&self, report_data: &Digest) -> TpmPart {
        let (attest, signature) = self.quote(report_data.as_bytes(), |_| {});
        TpmPart {
            attest,
            signature,
            ak_public: self.ak_public.clone(),
            pcr_values: self.pcrs.values().flatten().copied().collect(),
            ek_certificates: vec![self.ek.der().to_vec(), self.root.der().to_vec()],
        }
    }
}
