//! Sealing short secrets to a key: HPKE (RFC 9180), base mode, one suite and no negotiation.
//!
//! Suite: X-Wing (KEM 0x647a, draft-ietf-hpke-pq-03), HKDF-SHA256 (KDF 0x0001), AES-256-GCM (AEAD 0x0002). The purposes are kept
//! apart by their `info` strings. Bulk data is not sealed here; it goes into vault objects under keys that these secrets yield.

use std::convert::Infallible;
use std::fmt;

use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::XWing;
use hpke::rand_core::{TryCryptoRng, TryRng};
use hpke::{Deserializable as _, Kem, OpModeR, OpModeS, Serializable as _};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::dsse::Base64Bytes;

/// Name of the suite in bindings and specs.
pub const KEM_SUITE: &str = "hpke-xwing-hkdf-sha256-aes-256-gcm";
/// `info` of a grant: the task secret, to the attested task key.
pub const GRANT_INFO: &[u8] = b"starminer/grant/v1";
/// `info` of a deposit: the task secret, to an attested broker.
pub const DEPOSIT_INFO: &[u8] = b"starminer/deposit/v1";
/// `info` of the output secret, to the requester's result key.
pub const OUTPUT_INFO: &[u8] = b"starminer/output/v1";
/// `info` of the agent's resource record, to the requester's result key.
pub const DETAILS_INFO: &[u8] = b"starminer/details/v1";

/// Length of an X-Wing public key in bytes.
pub const KEM_PUBLIC_KEY_BYTES: usize = 1216;
/// Length of an X-Wing encapsulated key in bytes.
pub const ENCAPSULATED_KEY_BYTES: usize = 1120;
/// Longest text that is sealed this way, in bytes.
const MAX_PLAINTEXT_BYTES: usize = 4096;
const TAG_BYTES: usize = 16;

/// Why a sealed secret could not be made or opened. Says nothing about the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The recipient's key is not a public key of the suite.
    #[error("not an X-Wing public key")]
    BadRecipient,
    /// The parts have lengths that the suite does not produce.
    #[error("not a sealed secret of this suite")]
    Malformed,
    /// Sealed to another key, for another purpose or context, or altered.
    #[error("does not open: sealed to another key, for another context, or altered")]
    DoesNotOpen,
}

/// A private key of the suite. Wiped on drop by the HPKE library.
pub struct KemPrivateKey {
    key: <XWing as Kem>::PrivateKey,
    public: Vec<u8>,
}

impl KemPrivateKey {
    /// Expands a 32-byte seed (the X-Wing decapsulation key, draft-connolly-cfrg-xwing-kem section 5.2).
    ///
    /// # Errors
    /// [`SealError::Malformed`] if the library refuses the seed; X-Wing takes every one.
    pub fn from_seed(seed: &Zeroizing<[u8; 32]>) -> Result<Self, SealError> {
        let key = <XWing as Kem>::PrivateKey::from_bytes(seed.as_slice()).map_err(|_| SealError::Malformed)?;
        let public = XWing::sk_to_pk(&key).to_bytes().to_vec();
        Ok(Self { key, public })
    }

    /// The public half, [`KEM_PUBLIC_KEY_BYTES`] long.
    #[must_use]
    pub fn public_key(&self) -> &[u8] {
        &self.public
    }
}

impl fmt::Debug for KemPrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KemPrivateKey(..)")
    }
}

/// A short secret sealed to a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedSecret {
    /// The encapsulated key, [`ENCAPSULATED_KEY_BYTES`] long.
    pub encapsulated_key: Base64Bytes,
    /// Ciphertext and tag.
    pub ciphertext: Base64Bytes,
}

impl SealedSecret {
    /// Seals `plaintext` (at most 4 KiB) to `recipient`. `randomness` must be fresh from a cryptographic source for every call.
    ///
    /// # Errors
    /// [`SealError::BadRecipient`]; [`SealError::Malformed`] for a text that is too long.
    pub fn seal(
        recipient: &[u8],
        info: &[u8],
        aad: &[u8],
        plaintext: &[u8],
        randomness: &Zeroizing<[u8; 64]>,
    ) -> Result<Self, SealError> {
        if plaintext.len() > MAX_PLAINTEXT_BYTES {
            return Err(SealError::Malformed);
        }
        let recipient = <XWing as Kem>::PublicKey::from_bytes(recipient).map_err(|_| SealError::BadRecipient)?;
        let mut source = GivenRandomness { bytes: randomness.clone(), used: 0 };
        let (encapsulated, ciphertext) = hpke::single_shot_seal_with_rng::<AesGcm256, HkdfSha256, XWing>(
            &OpModeS::Base,
            &recipient,
            info,
            plaintext,
            aad,
            &mut source,
        )
        .map_err(|_| SealError::BadRecipient)?;
        Ok(Self {
            encapsulated_key: Base64Bytes(encapsulated.to_bytes().to_vec()),
            ciphertext: Base64Bytes(ciphertext),
        })
    }

    /// Opens with the recipient's key; `info` and `aad` must be those it was sealed with.
    ///
    /// # Errors
    /// [`SealError::Malformed`] and [`SealError::DoesNotOpen`].
    pub fn open(&self, key: &KemPrivateKey, info: &[u8], aad: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        if !self.is_well_formed() {
            return Err(SealError::Malformed);
        }
        let encapsulated =
            <XWing as Kem>::EncappedKey::from_bytes(&self.encapsulated_key.0).map_err(|_| SealError::Malformed)?;
        hpke::single_shot_open::<AesGcm256, HkdfSha256, XWing>(
            &OpModeR::Base,
            &key.key,
            &encapsulated,
            info,
            &self.ciphertext.0,
            aad,
        )
        .map(Zeroizing::new)
        .map_err(|_| SealError::DoesNotOpen)
    }

    /// Whether the lengths are those the suite produces.
    #[must_use]
    pub fn is_well_formed(&self) -> bool {
        self.encapsulated_key.0.len() == ENCAPSULATED_KEY_BYTES
            && (TAG_BYTES..=MAX_PLAINTEXT_BYTES + TAG_BYTES).contains(&self.ciphertext.0.len())
    }
}

/// Hands the caller's randomness to the HPKE library, which draws exactly 64 bytes for an X-Wing encapsulation.
struct GivenRandomness {
    bytes: Zeroizing<[u8; 64]>,
    used: usize,
}

impl TryRng for GivenRandomness {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut out = [0; 4];
        self.try_fill_bytes(&mut out)?;
        Ok(u32::from_le_bytes(out))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut out = [0; 8];
        self.try_fill_bytes(&mut out)?;
        Ok(u64::from_le_bytes(out))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        // A library that drew more than it documents must not be fed predictable bytes: better no key than a weak one.
        let end = self.used + out.len();
        assert!(
            end <= self.bytes.len(),
            "X-Wing encapsulation draws 64 bytes (draft-connolly-cfrg-xwing-kem section 5.4)"
        );
        out.copy_from_slice(&self.bytes[self.used..end]);
        self.used = end;
        Ok(())
    }
}

impl TryCryptoRng for GivenRandomness {}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn opens_only_with_its_key_purpose_and_context() {
        let key = KemPrivateKey::from_seed(&Zeroizing::new([7; 32])).unwrap();
        let other = KemPrivateKey::from_seed(&Zeroizing::new([8; 32])).unwrap();
        let sealed =
            SealedSecret::seal(key.public_key(), GRANT_INFO, b"context", &[9; 32], &Zeroizing::new([1; 64])).unwrap();
        assert_eq!(sealed.open(&key, GRANT_INFO, b"context").unwrap().as_slice(), &[9; 32]);
        for (key, info, aad) in
            [(&other, GRANT_INFO, &b"context"[..]), (&key, DEPOSIT_INFO, b"context"), (&key, GRANT_INFO, b"contexT")]
        {
            assert_eq!(sealed.open(key, info, aad), Err(SealError::DoesNotOpen));
        }
        for index in 0..sealed.ciphertext.0.len() {
            let mut bad = sealed.clone();
            bad.ciphertext.0[index] ^= 1;
            assert_eq!(bad.open(&key, GRANT_INFO, b"context"), Err(SealError::DoesNotOpen));
        }
        let mut short = sealed.clone();
        short.encapsulated_key.0.pop();
        assert_eq!(short.open(&key, GRANT_INFO, b"context"), Err(SealError::Malformed));
        assert_eq!(
            SealedSecret::seal(&[0; 5], GRANT_INFO, b"", b"", &Zeroizing::new([1; 64])),
            Err(SealError::BadRecipient)
        );
    }

    /// The suite is frozen: the same seed, randomness and text give these bytes for ever.
    #[test]
    fn suite_is_frozen() {
        let key = KemPrivateKey::from_seed(&Zeroizing::new([0x42; 32])).unwrap();
        assert_eq!(key.public_key().len(), KEM_PUBLIC_KEY_BYTES);
        let sealed =
            SealedSecret::seal(key.public_key(), GRANT_INFO, b"aad", &[0x11; 32], &Zeroizing::new([0x24; 64])).unwrap();
        assert_eq!(sealed.encapsulated_key.0.len(), ENCAPSULATED_KEY_BYTES);
        let both = [key.public_key(), &sealed.encapsulated_key.0, &sealed.ciphertext.0].concat();
        assert_eq!(starminer_verify::Digest::of(&both).to_hex(), FROZEN);
    }
    const FROZEN: &str = "5ea352b073224946df904097925f11b23895b49a4cc5be2269584c53a92cd9b8";
}
