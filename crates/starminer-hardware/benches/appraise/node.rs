//! A node as this bench makes it: a TPM's attestation key, the event log of a boot, a measurement list, and a quote over the registers that both lead to.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use data_encoding::HEXLOWER;
use serde_json::json;
use starminer_hardware::{Verdict, event_log, ima, tpm};

pub const EVENTS: usize = 200;
pub const ENTRIES: usize = 1_000;
/// Entries of `dbx`: as many as a platform of today has.
const REVOKED: u32 = 430;
const NONCE: [u8; 32] = [0x5a; 32];

/// The attestation key, which lives in this process instead of a TPM.
pub struct Key {
    pair: EcdsaKeyPair,
    pub public: Vec<u8>,
}

/// A quote with its signature.
pub struct Quote {
    pub attest: Vec<u8>,
    pub signature: Vec<u8>,
}

pub struct Node {
    pub key: Key,
    pub quote: Quote,
    pub pcrs_json: Vec<u8>,
    pub event_log: Vec<u8>,
    pub ima_list: Vec<u8>,
    pub ima_text: Vec<u8>,
    tpm_policy: tpm::Policy,
    event_log_policy: event_log::Policy,
    ima_policy: ima::Policy,
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().unwrap()
}

fn extend(register: &mut [u8; 32], measured: &[u8]) {
    *register = sha256(&[register.as_slice(), measured].concat());
}

fn counted(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

impl Key {
    pub fn new() -> Self {
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref()).unwrap();
        let point = pair.public_key().as_ref();
        // TPMT_PUBLIC: ECC, named with SHA-256; restricted, sign, userWithAuth, sensitiveDataOrigin, fixedParent, fixedTPM; no policy; no symmetric
        // algorithm, ECDSA with SHA-256, P-256, no key derivation.
        let mut public = vec![0x00, 0x23, 0x00, 0x0b, 0x00, 0x05, 0x00, 0x72, 0, 0];
        public.extend([0x00, 0x10, 0x00, 0x18, 0x00, 0x0b, 0x00, 0x03, 0x00, 0x10]);
        public.extend(counted(&point[1..33]));
        public.extend(counted(&point[33..]));
        Self { pair, public }
    }

    pub fn point(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
    }

    /// A quote of registers 0 to 10 of the SHA-256 bank, by a primary key of the endorsement hierarchy.
    fn quote(&self, registers: &[[u8; 32]]) -> Quote {
        let qualified = |parent: &[u8], name: &[u8]| [&[0x00, 0x0b][..], &sha256(&[parent, name].concat())].concat();
        let name = [&[0x00, 0x0b][..], &sha256(&self.public)].concat();
        let mut attest = vec![0xff, b'T', b'C', b'G', 0x80, 0x18];
        attest.extend(counted(&qualified(&0x4000_000b_u32.to_be_bytes(), &name)));
        attest.extend(counted(&NONCE));
        attest.extend(123_456_789_u64.to_be_bytes());
        attest.extend([0, 0, 0, 7, 0, 0, 0, 0, 1]);
        attest.extend(0x0007_0002_0003_0001_u64.to_be_bytes());
        attest.extend([0, 0, 0, 1, 0x00, 0x0b, 3, 0xff, 0x07, 0]);
        attest.extend(counted(&sha256(&registers.concat())));
        let signed = self.sign(&attest);
        let signature = [&[0x00, 0x18, 0x00, 0x0b][..], &counted(&signed[..32]), &counted(&signed[32..])].concat();
        Quote { attest, signature }
    }
}

/// An event log as it grows, with the registers that it leads to.
struct Log {
    bytes: Vec<u8>,
    registers: [[u8; 32]; 11],
    events: usize,
}

impl Log {
    fn new() -> Self {
        let mut data = b"Spec ID Event03\0\0\0\0\0\0\x02\0\x02".to_vec();
        data.extend([2, 0, 0, 0, 0x04, 0, 20, 0, 0x0b, 0, 32, 0, 0]);
        let mut bytes = vec![0, 0, 0, 0, 3, 0, 0, 0];
        bytes.extend([0; 20]);
        bytes.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
        bytes.extend(data);
        Self { bytes, registers: [[0; 32]; 11], events: 1 }
    }

    /// An event whose digest is of `measured`.
    fn event(&mut self, register: u8, kind: event_log::EventKind, measured: &[u8], data: &[u8]) {
        self.bytes.extend([register, 0, 0, 0]);
        self.bytes.extend(kind.0.to_le_bytes());
        self.bytes.extend([2, 0, 0, 0, 0x04, 0]);
        self.bytes.extend(digest(&SHA1_FOR_LEGACY_USE_ONLY, measured).as_ref());
        self.bytes.extend([0x0b, 0]);
        let sha256 = sha256(measured);
        self.bytes.extend(sha256);
        self.bytes.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
        self.bytes.extend(data);
        extend(&mut self.registers[usize::from(register)], &sha256);
        self.events += 1;
    }

    fn variable(&mut self, vendor: event_log::Guid, name: &str, contents: &[u8]) {
        let data = event_log::Variable::encode(vendor, name, contents);
        self.event(7, event_log::EventKind::EFI_VARIABLE_DRIVER_CONFIG, &data, &data);
    }

    /// The log of a boot: firmware, Secure Boot with a `dbx` of today's size, shim, GRUB and what it reads.
    fn boot() -> (Self, Vec<String>) {
        use event_log::{EventKind as Kind, Guid};
        let mut log = Self::new();
        log.event(0, Kind::S_CRTM_VERSION, b"1\0.\x002\0\0\0", b"1\0.\x002\0\0\0");
        log.event(0, Kind::POST_CODE, &[7; 4096], b"volume at 0x0");
        let list = |kind: Guid, size_bytes: u32, entries: &[u8]| {
            let whole = 28 + u32::try_from(entries.len()).unwrap();
            [&kind.0[..], &whole.to_le_bytes(), &[0; 4], &size_bytes.to_le_bytes(), entries].concat()
        };
        let certificate = Guid::new(0xa5c0_59a1, 0x94e4, 0x4aa7, [0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72]);
        let hash = Guid::new(0xc1c4_1626, 0x504c, 0x4092, [0xac, 0xa9, 0x41, 0xf9, 0x36, 0x93, 0x43, 0x28]);
        let one = list(certificate, 1516, &[0x30; 1516]);
        log.variable(Guid::GLOBAL_VARIABLE, "SecureBoot", &[1]);
        log.variable(Guid::GLOBAL_VARIABLE, "PK", &one);
        log.variable(Guid::GLOBAL_VARIABLE, "KEK", &[one.as_slice(), &one].concat());
        log.variable(Guid::IMAGE_SECURITY_DATABASE, "db", &[one.as_slice(), &one, &one].concat());
        let revoked: Vec<u8> =
            (0..REVOKED).flat_map(|n| [[0; 16].as_slice(), &sha256(&n.to_le_bytes())].concat()).collect();
        log.variable(Guid::IMAGE_SECURITY_DATABASE, "dbx", &list(hash, 48, &revoked));
        for register in 0..8 {
            log.event(register, Kind::SEPARATOR, &[0; 4], &[0; 4]);
        }
        let mut applications = Vec::new();
        for image in [b"shim".as_slice(), b"grub", b"linux"] {
            log.event(4, Kind::EFI_BOOT_SERVICES_APPLICATION, image, &[0x11; 130]);
            applications.push(HEXLOWER.encode(&sha256(image)));
        }
        for number in 0.. {
            if log.events == EVENTS {
                break;
            }
            let command = format!("linux /vmlinuz-6.12.0 root=/dev/mapper/root ro quiet option{number}=value");
            let data = format!("grub_cmd: {command}\0");
            log.event(8, Kind::IPL, command.as_bytes(), data.as_bytes());
        }
        assert_eq!(log.events, EVENTS);
        (log, applications)
    }
}

impl Node {
    pub fn new() -> Self {
        let (log, applications) = Log::boot();
        let mut registers = log.registers;
        let aggregate = sha256(&registers[..10].concat());
        let (mut list, mut text) = (Vec::new(), String::new());
        let mut files = serde_json::Map::new();
        for number in 0..ENTRIES {
            let (path, file) = match number {
                0 => ("boot_aggregate".to_owned(), aggregate),
                _ => (format!("/usr/lib/x86_64-linux-gnu/libsomething-{number}.so.6"), sha256(&number.to_le_bytes())),
            };
            let fields = [[b"sha256:\0", file.as_slice()].concat(), format!("{path}\0").into_bytes()];
            let mut data = Vec::new();
            for field in &fields {
                data.extend(u32::try_from(field.len()).unwrap().to_le_bytes());
                data.extend(field);
            }
            let sha1 = digest(&SHA1_FOR_LEGACY_USE_ONLY, &data);
            list.extend([10, 0, 0, 0]);
            list.extend(sha1.as_ref());
            list.extend([6, 0, 0, 0]);
            list.extend(b"ima-ng");
            list.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
            list.extend(&data);
            let (template, hex) = (HEXLOWER.encode(sha1.as_ref()), HEXLOWER.encode(&file));
            text.push_str(&format!("10 {template} ima-ng sha256:{hex} {path}\n"));
            extend(&mut registers[10], &sha256(&data));
            if number > 0 {
                files.insert(path, json!([format!("sha256:{hex}")]));
            }
        }
        let values: serde_json::Map<_, _> = registers
            .iter()
            .enumerate()
            .map(|(index, value)| (index.to_string(), HEXLOWER.encode(value).into()))
            .collect();
        let good: serde_json::Map<_, _> = values.iter().map(|(index, value)| (index.clone(), json!([value]))).collect();
        let key = Key::new();
        let quote = key.quote(&registers);
        let tpm_policy =
            json!({"pcr_selection": {"sha256": [0, 1, 2, 3, 4, 5, 6, 7, 10]}, "pcr_values": {"sha256": good}});
        let event_log_policy = json!({
            "pcrs": {"sha256": {"7": values["7"]}}, "boot_applications": applications,
            "revoked": [HEXLOWER.encode(&sha256(&7_u32.to_le_bytes()))],
        });
        Self {
            key,
            quote,
            pcrs_json: json!({ "sha256": values }).to_string().into_bytes(),
            event_log: log.bytes,
            ima_list: list,
            ima_text: text.into_bytes(),
            tpm_policy: serde_json::from_value(tpm_policy).unwrap(),
            event_log_policy: serde_json::from_value(event_log_policy).unwrap(),
            ima_policy: serde_json::from_value(json!({ "files": files })).unwrap(),
        }
    }

    /// Parses, verifies and appraises all of it, from bytes.
    pub fn appraise(&self, ima_list: &[u8]) {
        let key = tpm::AttestationKey::parse(&self.key.public).unwrap();
        let quote = tpm::Quote::parse(&self.quote.attest, &self.quote.signature).unwrap();
        let pcrs = tpm::PcrValues::parse(&self.pcrs_json, quote.selections()).unwrap();
        let parent = tpm::Parent::Hierarchy(tpm::Hierarchy::Endorsement);
        let context = tpm::Context { nonce: &NONCE, ak: &key, parent, pcrs: Some(&pcrs), maker: None };
        let verification = tpm::verify(&quote, &context);
        let verified = verification.verified.unwrap_or_else(|| panic!("{:#?}", verification.checks));
        hold("quote", &tpm::appraise(&verified, &self.tpm_policy));
        self.appraise_log();
        self.appraise_list(ima_list);
    }

    /// The event log alone, under registers as if a quote had vouched for them.
    pub fn appraise_log(&self) {
        let registers = event_log::PcrValues::from_json(&self.pcrs_json).unwrap();
        let log = event_log::EventLog::parse(&self.event_log).unwrap();
        let verification = event_log::verify(&log, event_log::Registers::Pcrs(&registers));
        let verified = verification.verified.unwrap_or_else(|| panic!("{:#?}", verification.checks));
        hold("event log", &event_log::appraise(&verified, &self.event_log_policy));
    }

    /// The measurement list alone, in the same way.
    pub fn appraise_list(&self, list: &[u8]) {
        let registers = event_log::PcrValues::from_json(&self.pcrs_json).unwrap();
        let list = ima::MeasurementList::parse(list).unwrap();
        let verification = ima::verify(&list, Some(&registers));
        let verified = verification.verified.unwrap_or_else(|| panic!("{:#?}", verification.checks));
        hold("measurement list", &ima::appraise(&verified, &self.ima_policy));
    }
}

/// That every required check holds.
pub fn hold(what: &str, checks: &starminer_hardware::Checks) {
    let failing: Vec<_> = checks.as_slice().iter().filter(|check| check.verdict == Verdict::Fail).collect();
    assert!(checks.hold(), "{what}: {failing:#?}");
}
