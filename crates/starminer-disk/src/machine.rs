//! What a chip derives for this guest and no other, mixed into what opens the disk: whoever has the TPM's secret alone, as a host that emulates it, opens nothing.

use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use zeroize::Zeroizing;

use crate::crypt::Secret;
use crate::error::DiskError;

/// Salt of the derivation.
const SALT: &[u8] = b"starminer/disk-secret/v1";

/// A chip that derives a key for this guest: the same after each of its starts.
pub trait MachineKey: std::fmt::Debug {
    /// Its name in the disk's token: `sev-snp`.
    fn name(&self) -> &'static str;

    /// The key.
    ///
    /// # Errors
    /// In words, where the chip gives none.
    fn derive(&self) -> Result<Zeroizing<[u8; 32]>, String>;
}

/// Bytes that are wanted of the derivation.
struct Wanted;

impl KeyType for Wanted {
    fn len(&self) -> usize {
        Secret::new([0; 64]).len()
    }
}

/// What opens the slot: what the TPM gives, and with a chip both.
pub(crate) fn mix(sealed: &Secret, machine: Option<&dyn MachineKey>) -> Result<Secret, DiskError> {
    let Some(machine) = machine else { return Ok(sealed.clone()) };
    let derived = machine.derive().map_err(DiskError::Chip)?;
    let both = Zeroizing::new([&sealed[..], &derived[..]].concat());
    let mut mixed = Secret::new([0; 64]);
    let filled = Salt::new(HKDF_SHA256, SALT)
        .extract(&both)
        .expand(&[machine.name().as_bytes()], Wanted)
        .and_then(|okm| okm.fill(&mut mixed[..]));
    // Lengths are right by what stands here.
    filled.map(|()| mixed).map_err(|_| DiskError::Randomness)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use super::*;

    /// A chip that derives one key.
    #[derive(Debug)]
    pub(crate) struct Chip(pub [u8; 32]);

    impl MachineKey for Chip {
        fn name(&self) -> &'static str {
            "chip"
        }

        fn derive(&self) -> Result<Zeroizing<[u8; 32]>, String> {
            if self.0 == [0; 32] { Err("the chip is silent".into()) } else { Ok(Zeroizing::new(self.0)) }
        }
    }

    #[test]
    fn both_halves_count() {
        let (first, second) = (Secret::new([1; 64]), Secret::new([2; 64]));
        let mixed = |secret, chip: [u8; 32]| mix(secret, Some(&Chip(chip))).unwrap();
        assert_eq!(mix(&first, None).unwrap(), first);
        assert_eq!(mixed(&first, [7; 32]), mixed(&first, [7; 32]));
        assert_ne!(mixed(&first, [7; 32]), first);
        assert_ne!(mixed(&first, [7; 32]), mixed(&first, [8; 32]));
        assert_ne!(mixed(&first, [7; 32]), mixed(&second, [7; 32]));
        assert_eq!(mix(&first, Some(&Chip([0; 32]))).unwrap_err().code(), "disk.chip");
    }
}
