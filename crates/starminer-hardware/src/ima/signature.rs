//! Signatures of files, as `evmctl` writes them into `security.ima` and the kernel logs them (`include/linux/integrity.h`, `digsig.c`).

use aws_lc_rs::digest::{Algorithm, Digest, SHA256, SHA384, SHA512};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ECDSA_P521_SHA512_ASN1, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, UnparsedPublicKey, VerificationAlgorithm,
};

use super::parse::FileDigest;
use crate::cert::Certificate;

/// `EVM_IMA_XATTR_DIGSIG`: the signature is of the file's digest.
const DIGSIG: u8 = 3;
/// `IMA_VERITY_DIGSIG`: of a `struct ima_file_id` with the `fs-verity` digest.
const VERITY_DIGSIG: u8 = 6;

/// A signature as the kernel logs it: type, version, hash, key id, length, and the signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileSignature<'a> {
    kind: u8,
    version: u8,
    hash: u8,
    key_id: [u8; 4],
    signature: &'a [u8],
}

impl<'a> FileSignature<'a> {
    /// Reads a `signature_v2_hdr`, to the last byte.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (header, signature) = bytes.split_first_chunk::<9>()?;
        let [kind, version, hash, key_id @ .., high, low] = *header;
        let size_bytes = usize::from(u16::from_be_bytes([high, low]));
        let known = matches!((kind, version), (DIGSIG, 2 | 3) | (VERITY_DIGSIG, 3));
        (known && signature.len() == size_bytes).then_some(Self { kind, version, hash, key_id, signature })
    }

    /// The kernel's `enum hash_algo`. SHA-1 is not taken: what it signed can be swapped.
    fn hash(&self) -> Option<(&'static str, &'static Algorithm)> {
        match self.hash {
            4 => Some(("sha256", &SHA256)),
            5 => Some(("sha384", &SHA384)),
            6 => Some(("sha512", &SHA512)),
            _ => None,
        }
    }

    /// Whether one of the keys signed the digest.
    pub fn verify(&self, file: &FileDigest<'_>, keys: &[SigningKey]) -> bool {
        let Some((name, algorithm)) = self.hash() else { return false };
        // A digest of the file's bytes and one of fs-verity are no substitutes for one another.
        if file.algorithm != name || file.verity != (self.kind == VERITY_DIGSIG) {
            return false;
        }
        let digest = if self.version == 3 {
            let identity = [&[self.kind, self.hash], &*file.digest].concat();
            Some(aws_lc_rs::digest::digest(algorithm, &identity))
        } else {
            Digest::import_less_safe(&file.digest, algorithm).ok()
        };
        let Some(digest) = digest else { return false };
        keys.iter().filter(|key| key.ids.contains(&self.key_id)).any(|key| key.verify(name, &digest, self.signature))
    }
}

/// A key that signs files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SigningKey {
    spki: Vec<u8>,
    /// The kernel takes the last four bytes of the subject key identifier, `evmctl` those of the SHA-1 of the key.
    ids: Vec<[u8; 4]>,
}

impl SigningKey {
    pub fn new(certificate: &Certificate) -> Self {
        const SUBJECT_KEY_IDENTIFIER: &[u8] = &[0x55, 0x1d, 0x0e];
        let mut ids = Vec::new();
        if let Some(extension) = certificate.extension(SUBJECT_KEY_IDENTIFIER) {
            ids.extend(extension.value.last_chunk::<4>());
        }
        ids.extend(
            key_bits(certificate.spki())
                .and_then(|bits| crate::event_log::Bank::Sha1.hash(&[bits]).as_bytes().last_chunk::<4>().copied()),
        );
        Self { spki: certificate.spki().to_vec(), ids }
    }

    fn verify(&self, hash: &str, digest: &Digest, signature: &[u8]) -> bool {
        let algorithms: [&'static dyn VerificationAlgorithm; 2] = match hash {
            "sha256" => [&RSA_PKCS1_2048_8192_SHA256, &ECDSA_P256_SHA256_ASN1],
            "sha384" => [&RSA_PKCS1_2048_8192_SHA384, &ECDSA_P384_SHA384_ASN1],
            _ => [&RSA_PKCS1_2048_8192_SHA512, &ECDSA_P521_SHA512_ASN1],
        };
        algorithms
            .into_iter()
            .any(|algorithm| UnparsedPublicKey::new(algorithm, &self.spki).verify_digest(digest, signature).is_ok())
    }
}

/// The contents of the bit string that ends a `SubjectPublicKeyInfo`: what its key identifier is the SHA-1 of.
fn key_bits(spki: &[u8]) -> Option<&[u8]> {
    let (_, spki) = der_element(spki, 0x30)?;
    let (after_algorithm, _) = der_element(spki, 0x30)?;
    let (_, bits) = der_element(after_algorithm, 0x03)?;
    bits.strip_prefix(&[0])
}

/// The rest behind an element of that tag, and its contents.
fn der_element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let rest = bytes.strip_prefix(&[tag])?;
    let (first, rest) = rest.split_first()?;
    let (size_bytes, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x81 => (usize::from(*rest.first()?), rest.get(1..)?),
        0x82 => (usize::from(u16::from_be_bytes(*rest.first_chunk::<2>()?)), rest.get(2..)?),
        _ => return None,
    };
    rest.split_at_checked(size_bytes).map(|(contents, rest)| (rest, contents))
}
