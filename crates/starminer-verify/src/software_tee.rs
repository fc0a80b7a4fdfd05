//! The software TEE: evidence with the shape of a hardware report and a root that anybody can make.
//!
//! It lets a network run and be tested end to end where no silicon is. Everything that a hardware kind does is done here
//! (fixed binary report, chip certificate, device signature, boot and measurement, debug and TCB), but its root is
//! never compiled in, so its provenance is always `simulated`. It deliberately has no path to another provenance: the
//! function that verifies a report returns claims that carry the simulated root. Source: `specs/evidence.md`, section
//! "Software TEE".

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};

use crate::refusal::{Party, Refusal};
use crate::trust::{SimulatedRootId, TrustAnchors};
use crate::types::{BootId, Digest, PublicKey, UnixTime, tagged_hash};

/// First bytes of every report.
pub const MAGIC: [u8; 8] = *b"SMSWTEE\0";
/// Version of the report format.
pub const REPORT_VERSION: u32 = 1;
/// Length of what the device signs.
pub const SIGNED_LEN: usize = 280;
/// Length of a report.
pub const REPORT_LEN: usize = SIGNED_LEN + SIGNATURE_LEN;
/// Length of an Ed25519 signature.
pub const SIGNATURE_LEN: usize = 64;

const FLAG_DEBUG: u32 = 1 << 0;
const FLAG_MEMORY_ENCRYPTION: u32 = 1 << 1;

/// The identity of a simulated chip, 32 bytes, independent of any network. Not for publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChipId(pub [u8; 32]);

/// Whether the operator may look into the simulated enclave by design.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DebugMode {
    /// Closed.
    Off,
    /// Open: nothing inside is secret.
    On,
}

/// Whether memory is claimed to be encrypted. A software TEE encrypts none; the claim exists so that every tier can be
/// exercised, under a provenance that says what it is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryEncryption {
    /// Claimed.
    Claimed,
    /// Not claimed.
    NotClaimed,
}

/// What a root says of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceCertificate {
    /// The chip that the key belongs to.
    pub chip_id: ChipId,
    /// The device's Ed25519 key.
    pub device_key: PublicKey,
    /// Who signed the certificate.
    pub root: PublicKey,
    /// First time at which it is valid.
    pub not_before: UnixTime,
    /// First time at which it is not valid any more.
    pub not_after: UnixTime,
    /// The root's signature over [`DeviceCertificate::message`].
    pub signature: [u8; SIGNATURE_LEN],
}

impl DeviceCertificate {
    /// What the root signs: the tagged hash `"starminer/software-tee-certificate/v1"` over chip id, device key, and the two
    /// dates as `u64` big-endian.
    pub fn message(chip_id: &ChipId, device_key: &PublicKey, not_before: UnixTime, not_after: UnixTime) -> Digest {
        tagged_hash(
            "software-tee-certificate",
            &[&chip_id.0, device_key.as_bytes(), &not_before.0.to_be_bytes(), &not_after.0.to_be_bytes()],
        )
    }
}

/// A report before its signature, on the device's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportBody {
    /// Debug mode of the simulated enclave.
    pub debug: DebugMode,
    /// The claim about memory.
    pub memory_encryption: MemoryEncryption,
    /// Version of the device's trusted base; greater is newer.
    pub tcb_version: u64,
    /// This start of the agent.
    pub boot: BootId,
    /// SHA-256 of the agent's executable.
    pub measurement: Digest,
    /// What the device is asked to sign: [`crate::Batch::report_data`].
    pub report_data: Digest,
    /// The device's certificate; its chip id and key are those of the report.
    pub certificate: DeviceCertificate,
}

impl ReportBody {
    /// The bytes that are signed.
    pub fn encode(&self) -> [u8; SIGNED_LEN] {
        let mut flags = 0;
        if self.debug == DebugMode::On {
            flags |= FLAG_DEBUG;
        }
        if self.memory_encryption == MemoryEncryption::Claimed {
            flags |= FLAG_MEMORY_ENCRYPTION;
        }
        let certificate = &self.certificate;
        let fields: [&[u8]; 13] = [
            &MAGIC,
            &REPORT_VERSION.to_be_bytes(),
            &u32::to_be_bytes(flags),
            &self.tcb_version.to_be_bytes(),
            &certificate.chip_id.0,
            self.boot.as_bytes(),
            self.measurement.as_bytes(),
            self.report_data.as_bytes(),
            certificate.device_key.as_bytes(),
            certificate.root.as_bytes(),
            &certificate.not_before.0.to_be_bytes(),
            &certificate.not_after.0.to_be_bytes(),
            &certificate.signature,
        ];
        let mut bytes = [0u8; SIGNED_LEN];
        let mut rest = bytes.as_mut_slice();
        for field in fields {
            let (head, tail) = rest.split_at_mut(field.len());
            head.copy_from_slice(field);
            rest = tail;
        }
        debug_assert!(rest.is_empty(), "the fields fill the report");
        bytes
    }
}

/// What the device signs: the tagged hash `"starminer/software-tee-report/v1"` over the first [`SIGNED_LEN`] bytes.
pub fn report_message(signed: &[u8; SIGNED_LEN]) -> Digest {
    tagged_hash("software-tee-report", &[signed])
}

/// What a verified report of a software TEE claims; obtained from [`crate::Verified`] alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SoftwareTeeClaims {
    /// The simulated chip.
    pub chip_id: ChipId,
    /// The root that vouches for it.
    pub root: PublicKey,
    /// Debug mode.
    pub debug: DebugMode,
    /// The claim about memory.
    pub memory_encryption: MemoryEncryption,
    /// Version of the device's trusted base.
    pub tcb_version: u64,
    /// This start of the agent.
    pub boot: BootId,
    /// SHA-256 of the agent's executable.
    pub measurement: Digest,
    /// From when the device's certificate is valid.
    pub certificate_not_before: UnixTime,
    /// Until when the device's certificate is valid.
    pub certificate_not_after: UnixTime,
}

impl SoftwareTeeClaims {
    /// The checks of [`verify_report`] that depend on the time, and no other does.
    pub(crate) fn check_dates(&self, now: UnixTime) -> Result<(), Refusal> {
        check_dates(self.certificate_not_before, self.certificate_not_after, now)
    }
}

fn check_dates(not_before: UnixTime, not_after: UnixTime, now: UnixTime) -> Result<(), Refusal> {
    if now < not_before || now >= not_after {
        let reason = format!("the device certificate is valid from {not_before} to {not_after} ms, not at {now}");
        return Err(refuse(
            "evidence.certificate-dates",
            &reason,
            "have the device certified again, or set the verifier's clock right",
        ));
    }
    Ok(())
}

/// Cuts fixed-size fields off the front of a slice whose length was checked before.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (head, tail) = self.0.split_at(N);
        self.0 = tail;
        head.try_into().expect("split_at gives N bytes")
    }
}

fn refuse(check: &'static str, reason: &str, remedy: &str) -> Refusal {
    Refusal::new(Party::Node, check, reason, remedy)
}

const REMEDY_REPORT: &str = "send the report as the node's software TEE made it";

/// Cheap checks first: form, what was signed, root, dates; the two signatures last.
pub(crate) fn verify_report(
    report: &[u8],
    report_data: &Digest,
    boot: &BootId,
    trust_anchors: &TrustAnchors,
    now: UnixTime,
) -> Result<SoftwareTeeClaims, Refusal> {
    let report: &[u8; REPORT_LEN] = report.try_into().map_err(|_| {
        let reason = format!("a report of {REPORT_LEN} bytes was expected, found {}", report.len());
        refuse("evidence.report-format", &reason, REMEDY_REPORT)
    })?;
    let mut fields = Fields(report);
    let magic: [u8; 8] = fields.take();
    let version = u32::from_be_bytes(fields.take());
    if magic != MAGIC || version != REPORT_VERSION {
        return Err(refuse("evidence.report-format", "not a software TEE report of version 1", REMEDY_REPORT));
    }
    let flags = u32::from_be_bytes(fields.take());
    if flags & !(FLAG_DEBUG | FLAG_MEMORY_ENCRYPTION) != 0 {
        return Err(refuse("evidence.report-format", "reserved flags are set", REMEDY_REPORT));
    }
    let tcb_version = u64::from_be_bytes(fields.take());
    let chip_id = ChipId(fields.take());
    let reported_boot = BootId(fields.take());
    let measurement = Digest(fields.take());
    let reported_data = Digest(fields.take());
    let device_key = PublicKey(fields.take());
    let root = PublicKey(fields.take());
    let not_before = UnixTime(u64::from_be_bytes(fields.take()));
    let not_after = UnixTime(u64::from_be_bytes(fields.take()));
    let certificate_signature: [u8; SIGNATURE_LEN] = fields.take();
    let report_signature: [u8; SIGNATURE_LEN] = fields.take();

    if reported_data != *report_data {
        let reason = "the device signed another batch than the one this binding is in";
        return Err(refuse("evidence.report-data", reason, "have the device sign this very binding"));
    }
    if reported_boot != *boot {
        let reason = "device and binding name different starts of the agent";
        return Err(refuse("evidence.report-boot", reason, "make new evidence after a restart"));
    }
    let root_id = SimulatedRootId::SoftwareTee(root);
    if !trust_anchors.names(&root_id) {
        return Err(unknown_root(&root_id));
    }
    check_dates(not_before, not_after, now)?;
    let message = DeviceCertificate::message(&chip_id, &device_key, not_before, not_after);
    if !signed_by(&root, &message, &certificate_signature) {
        let reason = "the root did not sign this device certificate";
        return Err(refuse(
            "evidence.certificate-signature",
            reason,
            "have the device certified by the network's root",
        ));
    }
    let signed: &[u8; SIGNED_LEN] = report[..SIGNED_LEN].try_into().expect("a prefix of a longer array");
    if !signed_by(&device_key, &report_message(signed), &report_signature) {
        return Err(refuse("evidence.report-signature", "the device did not sign this report", REMEDY_REPORT));
    }
    Ok(SoftwareTeeClaims {
        chip_id,
        root,
        debug: if flags & FLAG_DEBUG != 0 { DebugMode::On } else { DebugMode::Off },
        memory_encryption: if flags & FLAG_MEMORY_ENCRYPTION != 0 {
            MemoryEncryption::Claimed
        } else {
            MemoryEncryption::NotClaimed
        },
        tcb_version,
        boot: reported_boot,
        measurement,
        certificate_not_before: not_before,
        certificate_not_after: not_after,
    })
}

pub(crate) fn unknown_root(root: &SimulatedRootId) -> Refusal {
    Refusal::new(
        Party::Node,
        "evidence.root-unknown",
        format!("the chain ends in {root}, which is no maker's root and is not named by the verifier's trust file"),
        "use a node with hardware evidence; or, to accept a simulation knowingly, name this root under \
         simulated_roots in the trust file and in the policy",
    )
}

fn signed_by(key: &PublicKey, message: &Digest, signature: &[u8; SIGNATURE_LEN]) -> bool {
    UnparsedPublicKey::new(&ED25519, key.as_bytes()).verify(message.as_bytes(), signature).is_ok()
}
