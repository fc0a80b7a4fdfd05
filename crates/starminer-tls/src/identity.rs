//! The long-lived key that *is* a party, and its public half.
//!
//! It does not decide what may be signed: callers pass domain-separated bytes. In this crate the key signs two kinds
//! of bytes that cannot be mistaken for each other or for a DSSE envelope: certificates (which begin with the DER tag
//! 0x30) and channel-binding statements (which begin with `starminer/`; DSSE's encoding begins with `DSSEv1`).

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use data_encoding::HEXLOWER;
use zeroize::Zeroizing;

/// Why a key could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes")]
    NoRandomness,
    /// The cryptographic library refused the seed; it takes every 32 bytes, so this is a failure of its own.
    #[error("the cryptographic library made no key pair from the seed")]
    NoKeyPair,
    /// The text is not 64 lowercase hexadecimal digits.
    #[error("an identity is 64 lowercase hexadecimal digits")]
    NotAnIdentity,
}

/// The public Ed25519 key (32 bytes, RFC 8032) that names a party. Shown as 64 lowercase hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerIdentity(pub [u8; 32]);

impl PeerIdentity {
    /// Whether `signature` over `message` was made by this identity.
    pub fn verify(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(message, signature).is_ok()
    }
}

impl fmt::Display for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerIdentity({self})")
    }
}

impl FromStr for PeerIdentity {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| KeyError::NotAnIdentity)?;
        bytes.try_into().map(Self).map_err(|_| KeyError::NotAnIdentity)
    }
}

/// A party's long-lived Ed25519 key. Not `Clone`: share it by `Arc`, so that there is one copy to wipe.
pub struct IdentityKey {
    // Boxed, because moving the struct would otherwise leave unwiped copies of the seed behind.
    seed: Box<Zeroizing<[u8; 32]>>,
    pair: Ed25519KeyPair,
    public: [u8; 32],
}

impl IdentityKey {
    /// The key of a 32-byte seed (the "private key" of RFC 8032). The caller wipes its own copy.
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| KeyError::NoKeyPair)?;
        let public = pair.public_key().as_ref().try_into().map_err(|_| KeyError::NoKeyPair)?;
        Ok(Self { seed: Box::new(Zeroizing::new(*seed)), pair, public })
    }

    /// A new key from the operating system's randomness.
    pub fn generate() -> Result<Self, KeyError> {
        let mut seed = Zeroizing::new([0; 32]);
        SystemRandom::new().fill(seed.as_mut()).map_err(|_| KeyError::NoRandomness)?;
        Self::from_seed(&seed)
    }

    /// The public key, 32 bytes.
    pub fn public(&self) -> [u8; 32] {
        self.public
    }

    /// The public key as the name that peers know this party by.
    pub fn identity(&self) -> PeerIdentity {
        PeerIdentity(self.public)
    }

    /// An Ed25519 signature (RFC 8032, pure) over `message`, which the caller has domain-separated.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let signature = self.pair.sign(message);
        signature.as_ref().try_into().expect("an Ed25519 signature is 64 bytes")
    }

    /// The seed, for the key file and for deriving local keys from it. Handle it like the key.
    pub fn seed(&self) -> &[u8; 32] {
        &self.seed
    }
}

impl fmt::Debug for IdentityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IdentityKey({}, secret)", self.identity())
    }
}

impl rcgen::PublicKeyData for IdentityKey {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ED25519
    }
}

impl rcgen::SigningKey for IdentityKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(IdentityKey::sign(self, message).to_vec())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// RFC 8032 section 7.1, test 2.
    #[test]
    fn signs_as_rfc_8032_says() {
        let seed = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb";
        let public = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";
        let signature = "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
                         085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00";
        let key = IdentityKey::from_seed(&HEXLOWER.decode(seed.as_bytes()).unwrap().try_into().unwrap()).unwrap();
        assert_eq!(key.identity().to_string(), public);
        let signed = key.sign(&[0x72]);
        assert_eq!(HEXLOWER.encode(&signed), signature);
        assert!(key.identity().verify(&[0x72], &signed));
        assert!(!key.identity().verify(&[0x73], &signed));
    }

    #[test]
    fn debug_shows_no_seed() {
        let key = IdentityKey::from_seed(&[0x5a; 32]).unwrap();
        let shown = format!("{key:?} {key:#?}");
        assert!(!shown.contains("5a5a5a") && !shown.contains("90, 90"), "{shown}");
        assert!(shown.contains("secret"));
    }

    #[test]
    fn identities_parse_strictly() {
        let text = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";
        assert_eq!(text.parse::<PeerIdentity>().unwrap().to_string(), text);
        for bad in ["", "3d", &text.to_uppercase(), &format!("{text}00"), &format!(" {text}"), &text.replace('3', "g")]
        {
            assert_eq!(bad.parse::<PeerIdentity>(), Err(KeyError::NotAnIdentity), "{bad:?}");
        }
    }
}
