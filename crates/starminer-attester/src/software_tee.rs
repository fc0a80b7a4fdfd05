//! The device side of the software TEE: a key and a certificate that stand in for a chip.
//!
//! A network that runs without silicon makes one [`SimulatedRoot`] and certifies each node's device with it. Files hold
//! secrets in the clear with mode 0600; that is as good as the machine, and every result under such a root says
//! `simulated`. Source: `specs/evidence.md`, section "Software TEE".

use std::fmt;
use std::path::Path;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use data_encoding::{BASE64, HEXLOWER};
use serde::{Deserialize, Serialize};
use starminer_verify::software_tee::{
    ChipId, DebugMode, DeviceCertificate, MemoryEncryption, REPORT_LEN, ReportBody, SIGNATURE_LEN, SIGNED_LEN,
    report_message,
};
use starminer_verify::{
    Batch, Binding, BootId, Digest, EvidenceBuilder, EvidenceKind, Posture, PublicKey, SimulatedRootId, UnixTime,
};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::keyfile::{self, KeyFileError};
use crate::{AttestError, Attester, MAX_ATTEST_BATCH};

const ROOT_FILE_FORMAT: &str = "starminer-simulated-root/v1";
const DEVICE_FILE_FORMAT: &str = "starminer-software-tee/v1";

/// An Ed25519 key pair and the seed it came from, which is wiped on drop (the library wipes its own copy).
struct SigningKey {
    seed: Zeroizing<[u8; 32]>,
    pair: Ed25519KeyPair,
}

impl SigningKey {
    fn from_seed(seed: Zeroizing<[u8; 32]>) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.as_slice()).expect("any 32 bytes are an Ed25519 seed");
        Self { seed, pair }
    }

    fn public(&self) -> PublicKey {
        PublicKey::from_slice(self.pair.public_key().as_ref()).expect("an Ed25519 public key has 32 bytes")
    }

    fn sign(&self, message: &Digest) -> Option<[u8; SIGNATURE_LEN]> {
        self.pair.try_sign(message.as_bytes()).ok()?.as_ref().try_into().ok()
    }

    fn seed_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(HEXLOWER.encode(self.seed.as_slice()))
    }
}

fn seed_from_hex(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let mut seed = Zeroizing::new([0u8; 32]);
    // `decode_mut` panics on another length than it announced.
    if text.len() != 64 {
        return None;
    }
    HEXLOWER.decode_mut(text.as_bytes(), seed.as_mut_slice()).ok()?;
    Some(seed)
}

/// The root of a simulation: certifies devices that are none. Never compiled into anything.
pub struct SimulatedRoot {
    key: SigningKey,
}

impl fmt::Debug for SimulatedRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimulatedRoot({})", self.id())
    }
}

/// What a device asks its root to certify.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceRequest {
    /// The chip it stands in for.
    pub chip_id: ChipId,
    /// Its key.
    pub device_key: PublicKey,
}

/// A certificate cannot be made or does not suit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CertifyError {
    /// It would end before it begins.
    #[error("a certificate ends after it begins")]
    Dates,
    /// The root did not sign.
    #[error("the root did not sign")]
    Signature,
    /// The certificate is another device's.
    #[error("the certificate belongs to another device")]
    OtherDevice,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RootFile<'a> {
    format: &'a str,
    #[serde(borrow)]
    seed: &'a str,
}

impl SimulatedRoot {
    /// The root whose Ed25519 seed is `seed`, 32 random bytes that the caller drew.
    pub fn generate(seed: &[u8; 32]) -> Self {
        Self { key: SigningKey::from_seed(Zeroizing::new(*seed)) }
    }

    /// Its name in trust files and policies.
    pub fn id(&self) -> SimulatedRootId {
        SimulatedRootId::SoftwareTee(self.key.public())
    }

    /// Certifies a device from `not_before` until just before `not_after`.
    pub fn certify(
        &self,
        request: &DeviceRequest,
        not_before: UnixTime,
        not_after: UnixTime,
    ) -> Result<DeviceCertificate, CertifyError> {
        if not_before >= not_after {
            return Err(CertifyError::Dates);
        }
        let DeviceRequest { chip_id, device_key } = *request;
        let message = DeviceCertificate::message(&chip_id, &device_key, not_before, not_after);
        let signature = self.key.sign(&message).ok_or(CertifyError::Signature)?;
        Ok(DeviceCertificate { chip_id, device_key, root: self.key.public(), not_before, not_after, signature })
    }

    /// Writes the root to a new file with mode 0600.
    pub fn save(&self, path: &Path) -> Result<(), KeyFileError> {
        save_json(path, &RootFile { format: ROOT_FILE_FORMAT, seed: &self.key.seed_hex() })
    }

    /// Reads the root from a file that only its owner can read.
    pub fn load(path: &Path) -> Result<Self, KeyFileError> {
        let bytes = keyfile::load(path)?;
        let file: RootFile<'_> = serde_json::from_slice(&bytes).map_err(|_| KeyFileError::Malformed)?;
        if file.format != ROOT_FILE_FORMAT {
            return Err(KeyFileError::Malformed);
        }
        let seed = seed_from_hex(file.seed).ok_or(KeyFileError::Malformed)?;
        Ok(Self { key: SigningKey::from_seed(seed) })
    }
}

fn save_json(path: &Path, file: &impl Serialize) -> Result<(), KeyFileError> {
    // Room for all of it, so that the secret is never moved by a growing buffer and left behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(keyfile::MAX_KEY_FILE_BYTES));
    serde_json::to_writer(&mut *bytes, file).map_err(|_| KeyFileError::Malformed)?;
    bytes.push(b'\n');
    keyfile::save(path, &bytes)
}

/// How a software TEE presents itself, fixed at the start of the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SoftwareTeeSettings {
    /// This start of the agent: 16 bytes that it drew.
    pub boot: BootId,
    /// SHA-256 of the agent's executable; see [`crate::measure_executable`].
    pub measurement: Digest,
    /// Debug mode to report.
    pub debug: DebugMode,
    /// The claim about memory to report.
    pub memory_encryption: MemoryEncryption,
    /// Version of the trusted base to report.
    pub tcb_version: u64,
}

/// A software TEE: makes evidence of kind `software-tee`.
pub struct SoftwareTee {
    key: SigningKey,
    certificate: DeviceCertificate,
    settings: SoftwareTeeSettings,
}

impl fmt::Debug for SoftwareTee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SoftwareTee({}, boot {})", self.key.public(), self.settings.boot)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeviceFile<'a> {
    format: &'a str,
    #[serde(borrow)]
    seed: &'a str,
    chip_id: Digest,
    root: PublicKey,
    not_before: UnixTime,
    not_after: UnixTime,
    certificate: String,
}

impl SoftwareTee {
    /// What the device with this seed and chip id asks its root to certify.
    pub fn request(device_seed: &[u8; 32], chip_id: ChipId) -> DeviceRequest {
        let key = SigningKey::from_seed(Zeroizing::new(*device_seed));
        DeviceRequest { chip_id, device_key: key.public() }
    }

    /// A device with its seed (32 random bytes), certificate and settings.
    pub fn new(
        device_seed: &[u8; 32],
        certificate: DeviceCertificate,
        settings: SoftwareTeeSettings,
    ) -> Result<Self, CertifyError> {
        let key = SigningKey::from_seed(Zeroizing::new(*device_seed));
        if key.public() != certificate.device_key {
            return Err(CertifyError::OtherDevice);
        }
        Ok(Self { key, certificate, settings })
    }

    /// The device's certificate.
    pub const fn certificate(&self) -> &DeviceCertificate {
        &self.certificate
    }

    /// What it reports.
    pub const fn settings(&self) -> &SoftwareTeeSettings {
        &self.settings
    }

    /// The root that certified it.
    pub const fn root(&self) -> SimulatedRootId {
        SimulatedRootId::SoftwareTee(self.certificate.root)
    }

    /// Writes key and certificate to a new file with mode 0600. Settings belong to one start and are not written.
    pub fn save(&self, path: &Path) -> Result<(), KeyFileError> {
        save_json(
            path,
            &DeviceFile {
                format: DEVICE_FILE_FORMAT,
                seed: &self.key.seed_hex(),
                chip_id: Digest(self.certificate.chip_id.0),
                root: self.certificate.root,
                not_before: self.certificate.not_before,
                not_after: self.certificate.not_after,
                certificate: BASE64.encode(&self.certificate.signature),
            },
        )
    }

    /// Reads key and certificate from a file that only its owner can read. The certificate is not verified here: its
    /// own node would be the only one to fool.
    pub fn load(path: &Path, settings: SoftwareTeeSettings) -> Result<Self, KeyFileError> {
        let bytes = keyfile::load(path)?;
        let file: DeviceFile<'_> = serde_json::from_slice(&bytes).map_err(|_| KeyFileError::Malformed)?;
        if file.format != DEVICE_FILE_FORMAT {
            return Err(KeyFileError::Malformed);
        }
        let seed = seed_from_hex(file.seed).ok_or(KeyFileError::Malformed)?;
        let signature = BASE64.decode(file.certificate.as_bytes()).map_err(|_| KeyFileError::Malformed)?;
        let key = SigningKey::from_seed(seed);
        let certificate = DeviceCertificate {
            chip_id: ChipId(file.chip_id.0),
            device_key: key.public(),
            root: file.root,
            not_before: file.not_before,
            not_after: file.not_after,
            signature: signature.try_into().map_err(|_| KeyFileError::Malformed)?,
        };
        Ok(Self { key, certificate, settings })
    }

    /// One signed report over `report_data`.
    pub(crate) fn report(&self, report_data: Digest) -> Option<[u8; REPORT_LEN]> {
        let settings = &self.settings;
        let signed: [u8; SIGNED_LEN] = ReportBody {
            debug: settings.debug,
            memory_encryption: settings.memory_encryption,
            tcb_version: settings.tcb_version,
            boot: settings.boot,
            measurement: settings.measurement,
            report_data,
            certificate: self.certificate,
        }
        .encode();
        let signature = self.key.sign(&report_message(&signed))?;
        let mut report = [0u8; REPORT_LEN];
        report[..SIGNED_LEN].copy_from_slice(&signed);
        report[SIGNED_LEN..].copy_from_slice(&signature);
        Some(report)
    }
}

impl Attester for SoftwareTee {
    fn kind(&self) -> EvidenceKind {
        EvidenceKind::SoftwareTee
    }

    fn boot(&self) -> BootId {
        self.settings.boot
    }

    fn attest(&self, bindings: &[Binding], posture: &Posture) -> Result<Vec<Vec<u8>>, AttestError> {
        if bindings.len() > MAX_ATTEST_BATCH {
            return Err(AttestError::BatchTooLarge);
        }
        if bindings.iter().any(|binding| binding.boot != self.settings.boot) {
            return Err(AttestError::Boot);
        }
        if bindings.iter().any(|binding| binding.ak_name.is_some()) {
            return Err(AttestError::AkName);
        }
        let digests: Vec<Digest> = bindings.iter().map(Binding::digest).collect();
        let batch = Batch::new(&digests).map_err(|_| AttestError::EmptyBatch)?;
        let report = self.report(batch.report_data()).ok_or(AttestError::SoftwareTee)?;
        bindings
            .iter()
            .zip(batch.into_paths())
            .map(|(binding, path)| {
                EvidenceBuilder::new(binding.clone(), path, posture.clone())
                    .part(self.kind(), report)
                    .encode()
                    .map_err(AttestError::from)
            })
            .collect()
    }
}
