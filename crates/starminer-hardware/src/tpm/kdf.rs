//! Key derivation of TPM 2.0 (Part 1, 11.4.10): KDFa and KDFe.

use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use super::HashAlg;

/// The HMAC of a hash algorithm.
#[must_use]
pub const fn hmac_algorithm(hash: HashAlg) -> hmac::Algorithm {
    match hash {
        HashAlg::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        HashAlg::Sha256 => hmac::HMAC_SHA256,
        HashAlg::Sha384 => hmac::HMAC_SHA384,
        HashAlg::Sha512 => hmac::HMAC_SHA512,
    }
}

/// KDFa: SP 800-108 in counter mode with HMAC; `label` without its closing zero. Whole bytes only.
#[must_use]
pub fn kdfa(hash: HashAlg, key: &[u8], label: &str, u: &[u8], v: &[u8], bytes: u16) -> Zeroizing<Vec<u8>> {
    let key = hmac::Key::new(hmac_algorithm(hash), key);
    blocks(hash, bytes, |counter| {
        let mut context = hmac::Context::with_key(&key);
        for part in [&counter.to_be_bytes()[..], label.as_bytes(), &[0], u, v, &(u32::from(bytes) * 8).to_be_bytes()] {
            context.update(part);
        }
        context.sign().as_ref().to_vec()
    })
}

/// KDFe: SP 800-56A's concatenation, from the x coordinate of an agreed point and those of both public keys.
#[must_use]
pub fn kdfe(hash: HashAlg, z: &[u8], label: &str, u: &[u8], v: &[u8], bytes: u16) -> Zeroizing<Vec<u8>> {
    blocks(hash, bytes, |counter| {
        hash.digest(&[&counter.to_be_bytes(), z, label.as_bytes(), &[0], u, v]).as_ref().to_vec()
    })
}

fn blocks(hash: HashAlg, bytes: u16, block: impl Fn(u32) -> Vec<u8>) -> Zeroizing<Vec<u8>> {
    let bytes = usize::from(bytes);
    // Sized before it is filled: growing would leave copies behind.
    let mut out = Zeroizing::new(Vec::with_capacity(bytes + hash.len_bytes()));
    for counter in 1.. {
        if out.len() >= bytes {
            break;
        }
        out.extend_from_slice(&Zeroizing::new(block(counter)));
    }
    out.truncate(bytes);
    out
}
