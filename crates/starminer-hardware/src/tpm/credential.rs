//! Credential activation, the half of whoever enrols a TPM (Part 1, 24): a secret that only the TPM with this endorsement key opens, and only
//! while it holds the key of this name. `TPM2_ActivateCredential` on the other side gives the secret back.
//!
//! The seed beneath it is shared in the same way ([`share_seed`]) as the salt of a session with a TPM.

use aws_lc_rs::{
    agreement, cipher, hmac,
    iv::FixedLength,
    rsa::{
        OAEP_SHA256_MGF1SHA256, OAEP_SHA384_MGF1SHA384, OAEP_SHA512_MGF1SHA512, OaepPublicEncryptingKey,
        PublicEncryptingKey,
    },
};
use zeroize::Zeroizing;

use super::{Algorithm, HashAlg, Public, kdf};
use crate::cert::{Curve, der};

/// Randomness for one credential, from the caller: nothing here draws any. Used once, and wiped.
///
/// One step is an exception: the padding of RSA-OAEP draws from aws-lc-rs' generator, which takes none from outside.
pub struct Randomness {
    /// For an RSA key: the seed that is encrypted to it. As much of it is used as the key's name has bytes of hash.
    pub seed: Zeroizing<[u8; 64]>,
    /// For an elliptic curve: the ephemeral private key. As much of it is used as the curve's order has bytes.
    pub ephemeral: Zeroizing<[u8; 64]>,
}

/// What the TPM gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// The content of `TPM2B_ID_OBJECT`: the secret, encrypted and authenticated.
    pub credential_blob: Vec<u8>,
    /// The content of `TPM2B_ENCRYPTED_SECRET`: the seed, which only the endorsement key opens.
    pub encrypted_secret: Vec<u8>,
}

impl Credential {
    /// The file that `tpm2_activatecredential -i` reads: a magic number, a version, and both parts in a TPM2B.
    ///
    /// Both parts have the sizes that [`make_credential`] gives them.
    #[must_use]
    pub fn to_tpm2_tools(&self) -> Vec<u8> {
        let mut file = vec![0xba, 0xdc, 0xc0, 0xde, 0, 0, 0, 1];
        for part in [&self.credential_blob, &self.encrypted_secret] {
            file.extend_from_slice(&sized(part));
        }
        file
    }
}

/// Why no credential was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// The key is no storage key, as an endorsement key is.
    #[error("the endorsement key is no restricted decryption key with a symmetric algorithm")]
    NotAStorageKey,
    /// The secret does not fit.
    #[error("a secret is 1 byte to the size of the endorsement key's name hash")]
    SecretSize,
    /// The name has no form that a TPM gives.
    #[error("the name is neither that of a SHA-256, a SHA-384 nor of a SHA-512 key")]
    NameSize,
    /// The key cannot be encrypted to, or not with this ephemeral key.
    #[error("the endorsement key does not work, or the ephemeral key is out of range: draw again")]
    Key,
}

impl CredentialError {
    /// A stable name.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotAStorageKey => "tpm.credential.not-a-storage-key",
            Self::SecretSize => "tpm.credential.secret-size",
            Self::NameSize => "tpm.credential.name-size",
            Self::Key => "tpm.credential.key",
        }
    }
}

/// `TPM2_MakeCredential`.
///
/// # Errors
/// Where the key is no endorsement key, or secret or name do not fit.
pub fn make_credential(
    ek: &Public,
    ak_name: &[u8],
    secret: &[u8],
    randomness: Randomness,
) -> Result<Credential, CredentialError> {
    let hash = ek.name_alg;
    let symmetric =
        ek.symmetric.filter(|_| ek.attributes.has(super::Attributes::RESTRICTED.and(super::Attributes::DECRYPT)));
    let symmetric = symmetric.ok_or(CredentialError::NotAStorageKey)?;
    if secret.is_empty() || secret.len() > hash.len_bytes() {
        return Err(CredentialError::SecretSize);
    }
    if ![34, 50, 66].contains(&ak_name.len()) {
        return Err(CredentialError::NameSize);
    }
    let Seed { seed, encrypted: encrypted_secret } = share_seed(ek, "IDENTITY", &randomness)?;
    let key = kdf::kdfa(hash, &seed, "STORAGE", ak_name, &[], symmetric.bits / 8);
    let mut encrypted = sized(secret);
    encrypt(&key, &mut encrypted)?;
    let size = u16::try_from(hash.len_bytes()).expect("a digest has at most 64 bytes");
    let key = kdf::kdfa(hash, &seed, "INTEGRITY", &[], &[], size);
    let mut mac = hmac::Context::with_key(&hmac::Key::new(kdf::hmac_algorithm(hash), &key));
    mac.update(&encrypted);
    mac.update(ak_name);
    let mut credential_blob = sized(mac.sign().as_ref()).to_vec();
    credential_blob.extend_from_slice(&encrypted);
    Ok(Credential { credential_blob, encrypted_secret })
}

/// A TPM2B. Nothing that is put in one here has more than 600 bytes.
fn sized(bytes: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(Vec::with_capacity(2 + bytes.len()));
    out.extend(u16::try_from(bytes.len()).expect("less than 64 KiB").to_be_bytes());
    out.extend(bytes);
    out
}

/// A secret shared with a TPM, of the size of the key's name hash.
pub struct Seed {
    /// The secret.
    pub seed: Zeroizing<Vec<u8>>,
    /// The content of `TPM2B_ENCRYPTED_SECRET`: what its TPM takes it from.
    pub encrypted: Vec<u8>,
}

/// Shares a seed with the TPM that holds a decryption key (Part 1, B.10 and C.6). The label says what for: `IDENTITY` for a credential, `SECRET` for
/// a session's salt; without its closing zero.
///
/// # Errors
/// [`CredentialError::Key`] where the key cannot be encrypted to, or the ephemeral key is out of range.
pub fn share_seed(key: &Public, label: &str, randomness: &Randomness) -> Result<Seed, CredentialError> {
    match &key.algorithm {
        Algorithm::Rsa { .. } => rsa_seed(key, label, randomness),
        Algorithm::Ecc { curve, x, y } => ecc_seed(key.name_alg, *curve, (x, y), label, randomness),
    }
}

/// Part 1, B.10.4: OAEP with the label and its closing zero, over the name's hash.
fn rsa_seed(ek: &Public, label: &str, randomness: &Randomness) -> Result<Seed, CredentialError> {
    let algorithm = match ek.name_alg {
        HashAlg::Sha256 => &OAEP_SHA256_MGF1SHA256,
        HashAlg::Sha384 => &OAEP_SHA384_MGF1SHA384,
        HashAlg::Sha512 => &OAEP_SHA512_MGF1SHA512,
        HashAlg::Sha1 => return Err(CredentialError::Key),
    };
    let seed = randomness.seed.get(..ek.name_alg.len_bytes()).ok_or(CredentialError::Key)?;
    let seed = Zeroizing::new(seed.to_vec());
    let key = PublicEncryptingKey::from_der(&rsa_spki(ek)?).map_err(|_| CredentialError::Key)?;
    let key = OaepPublicEncryptingKey::new(key).map_err(|_| CredentialError::Key)?;
    let mut encrypted = vec![0; key.ciphertext_size()];
    let label = [label.as_bytes(), &[0]].concat();
    let written = key.encrypt(algorithm, &seed, &mut encrypted, Some(&label)).map_err(|_| CredentialError::Key)?.len();
    encrypted.truncate(written);
    Ok(Seed { seed, encrypted })
}

/// The key as a `SubjectPublicKeyInfo`, which is what aws-lc-rs reads.
fn rsa_spki(ek: &Public) -> Result<Vec<u8>, CredentialError> {
    const RSA_ENCRYPTION: [u8; 13] = [0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0];
    let Algorithm::Rsa { modulus, exponent } = &ek.algorithm else { return Err(CredentialError::Key) };
    let numbers = [der::encode_unsigned(modulus), der::encode_unsigned(&exponent.to_be_bytes())].concat();
    let mut bits = vec![0];
    bits.extend(der::encode(der::tag::SEQUENCE, &numbers));
    let fields = [der::encode(der::tag::SEQUENCE, &RSA_ENCRYPTION), der::encode(der::tag::BIT_STRING, &bits)].concat();
    Ok(der::encode(der::tag::SEQUENCE, &fields))
}

/// Part 1, C.6.4: one-pass Diffie-Hellman with an ephemeral key, and KDFe over the label.
fn ecc_seed(
    hash: HashAlg,
    curve: Curve,
    (x, y): (&[u8], &[u8]),
    label: &str,
    randomness: &Randomness,
) -> Result<Seed, CredentialError> {
    let algorithm = match curve {
        Curve::P256 => &agreement::ECDH_P256,
        Curve::P384 => &agreement::ECDH_P384,
        Curve::P521 => return Err(CredentialError::Key),
    };
    let scalar = randomness.ephemeral.get(..curve.coordinate_bytes()).ok_or(CredentialError::Key)?;
    let private = agreement::PrivateKey::from_private_key(algorithm, scalar).map_err(|_| CredentialError::Key)?;
    let public = private.compute_public_key().map_err(|_| CredentialError::Key)?;
    let (ephemeral_x, ephemeral_y) = public
        .as_ref()
        .split_first()
        .filter(|(form, _)| **form == 4)
        .and_then(|(_, both)| both.split_at_checked(curve.coordinate_bytes()))
        .ok_or(CredentialError::Key)?;
    let peer = agreement::UnparsedPublicKey::new(algorithm, [&[4][..], x, y].concat());
    let size = u16::try_from(hash.len_bytes()).expect("a digest has at most 64 bytes");
    let seed = agreement::agree(&private, peer, CredentialError::Key, |z| {
        Ok(kdf::kdfe(hash, z, label, ephemeral_x, x, size))
    })?;
    let mut point = sized(ephemeral_x).to_vec();
    point.extend_from_slice(&sized(ephemeral_y));
    Ok(Seed { seed, encrypted: point })
}

/// AES in CFB mode from a zero IV: the key is derived for this one message.
fn encrypt(key: &[u8], message: &mut [u8]) -> Result<(), CredentialError> {
    let algorithm = match key.len() {
        16 => &cipher::AES_128,
        24 => &cipher::AES_192,
        _ => &cipher::AES_256,
    };
    let key = cipher::UnboundCipherKey::new(algorithm, key).map_err(|_| CredentialError::Key)?;
    let key = cipher::EncryptingKey::cfb128(key).map_err(|_| CredentialError::Key)?;
    let iv = cipher::EncryptionContext::Iv128(FixedLength::from([0; 16]));
    key.less_safe_encrypt(message, iv).map(|_| ()).map_err(|_| CredentialError::Key)
}
