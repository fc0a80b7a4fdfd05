//! The disk's key and the TPM: what it is sealed to, how it comes back, and which check failed if it does not.

use std::collections::BTreeMap;

use aws_lc_rs::digest;
use data_encoding::{BASE64, HEXLOWER};
use starminer_attester::tpm::{Authorization, CounterReaders, PolicyStep, Sealed, Tpm, TpmError};
use starminer_hardware::tpm::approval::{Approvals, DiskPolicy, disk_reference, policy_of_register};
use starminer_hardware::tpm::{HashAlg, PcrSelection};
use zeroize::Zeroizing;

use crate::crypt::Secret;
use crate::error::DiskError;
use crate::token::{Seal, SealedTo, hex_sha256};

/// Counts starts. In the range of owners (Registry of Reserved TPM 2.0 Handles and Localities, 2.2.2).
pub const BOOT_COUNTER: u32 = 0x0180_5354;
/// Counts how often a newer image took a disk over.
pub const EPOCH_COUNTER: u32 = 0x0180_5355;

/// The image.
const IMAGE: PcrSelection = of(1 << 11);
/// Firmware, and Secure Boot with its keys.
const MACHINE: PcrSelection = of(1 | 1 << 7);
const BOTH: PcrSelection = of(MACHINE.bits | IMAGE.bits);

const fn of(bits: u32) -> PcrSelection {
    PcrSelection { bank: HashAlg::Sha256, bits }
}

/// What an image says about disks: its maker's policy, and its approvals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImagePolicy {
    pub(crate) policy: DiskPolicy,
    pub(crate) approvals: Approvals,
}

impl ImagePolicy {
    /// From both files. Without a policy there is nothing to be approved.
    pub(crate) fn parse(policy: Option<&[u8]>, approvals: Option<&[u8]>) -> Result<Option<Self>, DiskError> {
        let Some(policy) = policy else { return Ok(None) };
        let policy = DiskPolicy::parse(policy).ok_or(DiskError::Policy("it is none"))?;
        let approvals = approvals.ok_or(DiskError::Policy("it has no approvals"))?;
        let approvals = Approvals::parse(approvals).ok_or(DiskError::Policy("its approvals are none"))?;
        Ok(Some(Self { policy, approvals }))
    }

    fn key_digest(&self) -> String {
        hex_sha256(&self.policy.key.to_spki())
    }

    /// What a disk of this version is asked with.
    fn steps(&self, security_version: u32, epoch: u64) -> Result<[PolicyStep<'_>; 4], DiskError> {
        let signature = *self.approvals.of(security_version).ok_or(DiskError::NotApproved)?;
        let reference = disk_reference(security_version);
        Ok([
            PolicyStep::Registers(IMAGE),
            PolicyStep::Approved { key: &self.policy.key, reference, signature },
            PolicyStep::Registers(MACHINE),
            PolicyStep::CounterAtMost { index: EPOCH_COUNTER, value: epoch },
        ])
    }
}

/// Seals a key to this machine and to this image, or to its maker's, and takes it back once: what does not open again is not kept.
pub(crate) fn seal(tpm: &mut Tpm, secret: &Secret, image: Option<&ImagePolicy>, epoch: u64) -> Result<Seal, DiskError> {
    let to = match image {
        None => SealedTo::Image {},
        Some(image) => {
            let security_version = image.policy.security_version;
            let approval = image.approvals.of(security_version).ok_or(DiskError::NotApproved)?;
            SealedTo::Maker { key: image.key_digest(), security_version, epoch, approval: BASE64.encode(approval) }
        }
    };
    let (sealed, again) = match image {
        None => seal_and_unseal(tpm, secret, &[PolicyStep::Registers(BOTH)]),
        Some(image) => seal_and_unseal(tpm, secret, &image.steps(image.policy.security_version, epoch)?),
    }
    .map_err(|error| match refusal(&error) {
        Some(Refused::Signature) => DiskError::NotApproved,
        _ => DiskError::Tpm(error),
    })?;
    if again[..] != secret[..] {
        return Err(DiskError::Tpm(TpmError::KeyForm));
    }
    let seal = Seal::new(&sealed, to, registers(tpm)?);
    // All that the next start asks is asked now, while nothing depends on it.
    made_here(tpm, &seal, &sealed, image)?;
    Ok(seal)
}

fn seal_and_unseal(
    tpm: &mut Tpm,
    secret: &Secret,
    steps: &[PolicyStep<'_>],
) -> Result<(Sealed, Zeroizing<Vec<u8>>), TpmError> {
    let sealed = tpm.seal(&secret[..], steps, BOTH)?;
    let again = tpm.unseal(&sealed, steps)?;
    Ok((sealed, again))
}

/// Gives a key back.
pub(crate) fn unseal(tpm: &mut Tpm, seal: &Seal, image: Option<&ImagePolicy>) -> Result<Secret, DiskError> {
    let sealed = seal.sealed().ok_or(DiskError::OtherTpm)?;
    let result = match (&seal.to, image) {
        (SealedTo::Image {}, _) => tpm.unseal(&sealed, &[PolicyStep::Registers(BOTH)]),
        (SealedTo::Maker { .. }, None) => return Err(DiskError::Maker("an image of a maker who approves successors")),
        (SealedTo::Maker { key, security_version, epoch, .. }, Some(image)) => {
            if *key != image.key_digest() {
                return Err(DiskError::Maker("an image of another maker"));
            }
            let own = image.policy.security_version;
            if *security_version > own {
                return Err(DiskError::Version { disk: *security_version, image: own });
            }
            tpm.unseal(&sealed, &image.steps(*security_version, *epoch)?)
        }
    };
    let secret = result.map_err(|error| explain(tpm, seal, error))?;
    // The policy says who opens it. Anybody who may use this TPM could have sealed something of his own under the same one.
    made_here(tpm, seal, &sealed, image)?;
    let mut key = Secret::new([0; 64]);
    if secret.len() != key.len() {
        return Err(DiskError::Tpm(TpmError::KeyForm));
    }
    key.copy_from_slice(&secret);
    Ok(key)
}

/// Whether it was sealed by this very image, or by one that the same maker approved for the version that the seal asks for, on this firmware.
fn made_here(tpm: &mut Tpm, seal: &Seal, sealed: &Sealed, image: Option<&ImagePolicy>) -> Result<(), DiskError> {
    let made = tpm.made_under(sealed).map_err(|error| match refusal(&error) {
        Some(Refused::Ticket) => DiskError::Planted,
        _ => DiskError::Tpm(error),
    })?;
    let mut values = values(tpm)?;
    if let (SealedTo::Maker { security_version, approval, .. }, Some(image)) = (&seal.to, image) {
        // What stands in clear counts by the maker's signature over it, and by the TPM's word that it was so.
        let sealer = seal.registers.get(&11).and_then(|value| HEXLOWER.decode(value.as_bytes()).ok()?.try_into().ok());
        let sealer: [u8; 32] = sealer.ok_or(DiskError::Planted)?;
        let approval = BASE64.decode(approval.as_bytes()).map_err(|_| DiskError::Planted)?;
        let policy = policy_of_register(11, &sealer);
        if !image.policy.key.approves(&policy, &disk_reference(*security_version), &approval) {
            return Err(DiskError::Planted);
        }
        values.insert(11, sealer.to_vec());
    }
    let all: Vec<u8> = values.into_values().flatten().collect();
    let expected = digest::digest(&digest::SHA256, &all);
    if made.registers == BOTH && made.digest == expected.as_ref() { Ok(()) } else { Err(DiskError::Planted) }
}

/// What a TPM says by refusing.
enum Refused {
    Integrity,
    /// The creation data are of something else.
    Ticket,
    Signature,
    Counter,
    Policy,
}

fn refusal(error: &TpmError) -> Option<Refused> {
    use starminer_attester::tpm::TpmRcBase as Code;
    match error.refusal()? {
        Code::Integrity => Some(Refused::Integrity),
        Code::Ticket => Some(Refused::Ticket),
        Code::Signature => Some(Refused::Signature),
        Code::Policy => Some(Refused::Counter),
        Code::PolicyFail => Some(Refused::Policy),
        _ => None,
    }
}

/// Which check failed.
fn explain(tpm: &mut Tpm, seal: &Seal, error: TpmError) -> DiskError {
    match refusal(&error) {
        Some(Refused::Integrity) => DiskError::OtherTpm,
        Some(Refused::Signature) => DiskError::NotApproved,
        Some(Refused::Counter) => DiskError::Closed,
        Some(Refused::Policy) => {
            let counts = |register: &u8| matches!(seal.to, SealedTo::Image {}) || *register != 11;
            let differs = |found: BTreeMap<u8, String>| {
                let differ =
                    found.iter().filter(|(index, value)| counts(index) && seal.registers.get(index) != Some(value));
                differ.map(|(index, _)| index.to_string()).collect::<Vec<_>>().join(", ")
            };
            match registers(tpm).map(differs) {
                Ok(differ) if !differ.is_empty() => DiskError::Registers(differ),
                // What was written down about the seal is not what it was sealed to.
                Ok(_) => DiskError::Registers("0, 7 or 11".into()),
                Err(error) => error,
            }
        }
        None if matches!(error, TpmError::NoCounter(_)) => DiskError::Counter,
        Some(Refused::Ticket) | None => DiskError::Tpm(error),
    }
}

/// What the registers hold, in hexadecimal.
fn registers(tpm: &mut Tpm) -> Result<BTreeMap<u8, String>, DiskError> {
    Ok(values(tpm)?.into_iter().map(|(index, value)| (index, HEXLOWER.encode(&value))).collect())
}

fn values(tpm: &mut Tpm) -> Result<BTreeMap<u8, Vec<u8>>, DiskError> {
    let values = tpm.read_pcrs(&[BOTH]).map_err(DiskError::Tpm)?;
    Ok(values.iter().map(|(_, index, value)| (index, value.to_vec())).collect())
}

/// Makes both counters anew: those of an earlier disk end with it.
pub(crate) fn new_counters(tpm: &mut Tpm, authorization: &Authorization) -> Result<(u64, u64), DiskError> {
    let mut make = |index, readers| {
        match tpm.undefine_counter(index) {
            Ok(()) | Err(TpmError::NoCounter(_)) => {}
            Err(error) => return Err(error),
        }
        tpm.define_counter(index, authorization, readers)?;
        // It has no value before.
        tpm.increment_counter(index, authorization)
    };
    let boots = make(BOOT_COUNTER, CounterReaders::Knowing).map_err(DiskError::Tpm)?;
    let epoch = make(EPOCH_COUNTER, CounterReaders::Owner).map_err(DiskError::Tpm)?;
    Ok((boots, epoch))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
    use starminer_attester::tpm::{TpmAddress, TpmSettings};
    use starminer_hardware::tpm::approval::ApprovalSigner;

    use super::*;

    use crate::emulator::Swtpm;

    fn signer() -> ApprovalSigner {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        ApprovalSigner::from_pkcs8(key.to_pkcs8v1().unwrap().as_ref()).unwrap()
    }

    /// An image that is one measurement of register 11.
    fn image(maker: &ApprovalSigner, measured: u8, security_version: u32) -> ImagePolicy {
        let register = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &[[0; 32], [measured; 32]].concat());
        let approvals = Approvals::make(maker, register.as_ref().try_into().unwrap(), security_version).unwrap();
        let policy = DiskPolicy { key: maker.key(), security_version };
        let parsed = ImagePolicy::parse(Some(&policy.encode()), Some(&approvals.encode())).unwrap().unwrap();
        assert_eq!(parsed, ImagePolicy { policy, approvals });
        parsed
    }

    /// Starts the machine with this in register 11.
    fn start(tpm: &mut Swtpm, measured: u8) -> Tpm {
        tpm.reset();
        tpm.run(&format!("tpm2_pcrextend 11:sha256={}", format!("{measured:02x}").repeat(32)));
        Tpm::open(TpmSettings::new(TpmAddress::Unix(tpm.socket()))).unwrap()
    }

    #[test]
    fn newer_images_take_over_and_older_ones_do_not_come_back() {
        let Some(mut tpm) = Swtpm::start() else { return };
        let (maker, other) = (signer(), signer());
        let (old, new) = (image(&maker, 1, 1), image(&maker, 2, 2));
        let authorization = Authorization::new(&[9; 32]);
        let secret = Secret::new([5; 64]);

        let mut device = start(&mut tpm, 1);
        let (_, epoch) = new_counters(&mut device, &authorization).unwrap();
        let first = seal(&mut device, &secret, Some(&old), epoch).unwrap();
        // An image with the approvals of another one seals nothing.
        let borrowed = ImagePolicy { policy: old.policy.clone(), approvals: new.approvals.clone() };
        assert_eq!(seal(&mut device, &secret, Some(&borrowed), epoch).unwrap_err().code(), "disk.not-approved");
        drop(device);

        // The successor opens it, and seals it to itself and to its successors.
        let mut device = start(&mut tpm, 2);
        assert_eq!(unseal(&mut device, &first, Some(&new)).unwrap(), secret);
        let second = seal(&mut device, &secret, Some(&new), epoch + 1).unwrap();
        assert_eq!(device.increment_counter(EPOCH_COUNTER, &authorization).unwrap(), epoch + 1);
        assert_eq!(unseal(&mut device, &second, Some(&new)).unwrap(), secret);
        let closed = unseal(&mut device, &first, Some(&new)).unwrap_err();
        assert_eq!(closed.code(), "disk.closed", "{closed}");
        for (image, code) in [
            (None, "disk.maker"),
            (Some(image(&other, 2, 2)), "disk.maker"),
            (Some(image(&maker, 3, 2)), "disk.not-approved"),
        ] {
            let refused = unseal(&mut device, &second, image.as_ref()).unwrap_err();
            assert_eq!(refused.code(), code, "{refused}");
        }
        drop(device);

        // The old image with its own seal, with the new one, and with what the header says about that one altered.
        let mut device = start(&mut tpm, 1);
        assert_eq!(unseal(&mut device, &first, Some(&old)).unwrap_err().code(), "disk.closed");
        assert_eq!(unseal(&mut device, &second, Some(&old)).unwrap_err().code(), "disk.version");
        for (security_version, epoch) in [(1, epoch + 1), (0, epoch + 1), (1, epoch), (1, u64::MAX)] {
            let mut altered = second.clone();
            let SealedTo::Maker { key, approval, .. } = &second.to else { panic!("{second:?}") };
            altered.to = SealedTo::Maker { key: key.clone(), security_version, epoch, approval: approval.clone() };
            assert!(unseal(&mut device, &altered, Some(&old)).is_err(), "{security_version} {epoch}");
        }
        let mut altered = first.clone();
        let SealedTo::Maker { key, approval, .. } = &first.to else { panic!("{first:?}") };
        altered.to =
            SealedTo::Maker { key: key.clone(), security_version: 1, epoch: u64::MAX, approval: approval.clone() };
        assert!(unseal(&mut device, &altered, Some(&old)).is_err(), "an epoch of the writer's own");
        drop(device);
        assert_eq!(unseal(&mut start(&mut tpm, 2), &second, Some(&new)).unwrap(), secret);
    }

    #[test]
    fn without_a_maker_one_image_opens_it_and_it_says_what_changed() {
        let (Some(mut tpm), Some(mut elsewhere)) = (Swtpm::start(), Swtpm::start()) else { return };
        let secret = Secret::new([6; 64]);
        let sealed = seal(&mut start(&mut tpm, 1), &secret, None, 0).unwrap();
        let (mut device, maker) = (start(&mut tpm, 1), signer());
        assert_eq!(unseal(&mut device, &sealed, None).unwrap(), secret);
        // A maker's name changes nothing for disks that were sealed before.
        assert_eq!(unseal(&mut device, &sealed, Some(&image(&maker, 1, 0))).unwrap(), secret);
        drop(device);
        let refused = unseal(&mut start(&mut tpm, 2), &sealed, None).unwrap_err();
        assert!(matches!(&refused, DiskError::Registers(which) if which == "11"), "{refused}");
        let device = start(&mut tpm, 1);
        drop(device);
        tpm.run(&format!("tpm2_pcrextend 7:sha256={}", "11".repeat(32)));
        tpm.run(&format!("tpm2_pcrextend 0:sha256={}", "11".repeat(32)));
        let mut device = Tpm::open(TpmSettings::new(TpmAddress::Unix(tpm.socket()))).unwrap();
        let refused = unseal(&mut device, &sealed, None).unwrap_err();
        assert!(matches!(&refused, DiskError::Registers(which) if which == "0, 7"), "{refused}");
        let refused = unseal(&mut start(&mut elsewhere, 1), &sealed, None).unwrap_err();
        assert_eq!(refused.code(), "disk.other-tpm", "{refused}");
    }

    /// Whoever may use the TPM, but with something else in register 11, seals a key of his own under the very policy of the node's.
    #[test]
    fn what_something_else_sealed_is_not_the_node_s() {
        let Some(mut tpm) = Swtpm::start() else { return };
        let (maker, theirs) = (signer(), Secret::new([7; 64]));
        let (alone, approved) = (image(&maker, 1, 0), image(&maker, 1, 1));
        let authorization = Authorization::new(&[9; 32]);
        let mut device = start(&mut tpm, 1);
        let (_, epoch) = new_counters(&mut device, &authorization).unwrap();
        let of_image = seal(&mut device, &Secret::new([5; 64]), None, 0).unwrap();
        let of_maker = seal(&mut device, &Secret::new([5; 64]), Some(&approved), epoch).unwrap();
        drop(device);
        // The policy's digest stands in the public half; an object under it is made without satisfying it.
        let mut planted = Vec::new();
        for (seal, name) in [(&of_image, "image"), (&of_maker, "maker")] {
            // Type, name algorithm, attributes and a length stand before it.
            let policy: [u8; 32] = seal.sealed().unwrap().public[10..42].try_into().unwrap();
            tpm.reset();
            tpm.run(&format!("tpm2_pcrextend 11:sha256={}", "66".repeat(32)));
            let mut device = Tpm::open(TpmSettings::new(TpmAddress::Unix(tpm.socket()))).unwrap();
            let made = device.seal_under(&theirs[..], &policy, BOTH).unwrap();
            planted.push((name, Seal::new(&made, seal.to.clone(), seal.registers.clone())));
        }
        let mut device = start(&mut tpm, 1);
        assert!(
            unseal(&mut device, &of_image, Some(&alone)).is_ok()
                && unseal(&mut device, &of_maker, Some(&approved)).is_ok()
        );
        for (name, planted) in planted {
            let image = (name == "maker").then_some(&approved);
            let refused = unseal(&mut device, &planted, image).unwrap_err();
            assert_eq!(refused.code(), "disk.planted", "{name}: {refused}");
            // With the creation data and the ticket of one that is the node's.
            let own = if name == "maker" { &of_maker } else { &of_image };
            let (mut mixed, own) = (planted.sealed().unwrap(), own.sealed().unwrap());
            (mixed.creation, mixed.ticket) = (own.creation, own.ticket);
            let mixed = Seal::new(&mixed, planted.to.clone(), planted.registers.clone());
            assert_eq!(unseal(&mut device, &mixed, image).unwrap_err().code(), "disk.planted", "{name}, mixed");
        }
    }

    #[test]
    fn an_image_has_a_policy_and_approvals_or_neither() {
        let maker = signer();
        let whole = image(&maker, 1, 3);
        let (policy, approvals) = (whole.policy.encode(), whole.approvals.encode());
        assert_eq!(ImagePolicy::parse(None, Some(&approvals)).unwrap(), None);
        assert_eq!(ImagePolicy::parse(Some(&policy), None).unwrap_err().code(), "disk.policy");
        assert_eq!(ImagePolicy::parse(Some(&approvals), Some(&approvals)).unwrap_err().code(), "disk.policy");
        assert_eq!(ImagePolicy::parse(Some(&policy), Some(&policy)).unwrap_err().code(), "disk.policy");
        // The stub gives the section with the zeroes that fill its last page.
        let padded = [approvals.as_slice(), &[0; 100]].concat();
        assert_eq!(ImagePolicy::parse(Some(&policy), Some(&padded)).unwrap(), Some(whole));
        assert!(Approvals::make(&maker, &[0; 32], 256).is_none());
    }
}
