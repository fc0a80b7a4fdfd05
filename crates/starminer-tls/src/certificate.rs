//! The two certificates of a chain: the identity certificate, which is a function of the key, and the leaf.
//!
//! It issues; `verify.rs` judges. No serial numbers are kept and nothing is revoked: a leaf lives for hours, and an
//! identity that is not wanted is not admitted. Spec: `specs/tls.md`, section "Certificates"; RFC 5280, RFC 8410.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use data_encoding::HEXLOWER;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, DnValue, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod,
    KeyUsagePurpose, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{SignatureAlgorithm, SignatureScheme};
use zeroize::Zeroizing;

use crate::identity::{IdentityKey, PeerIdentity};

/// Length of every identity certificate.
pub const IDENTITY_CERTIFICATE_BYTES: usize = 400;
/// Where the signed part (TBSCertificate) of an identity certificate lies.
pub(crate) const IDENTITY_TBS: std::ops::Range<usize> = 4..326;
/// Where the signature of an identity certificate lies.
const IDENTITY_SIGNATURE: std::ops::Range<usize> = 336..400;
/// Where the key of an identity certificate lies.
const IDENTITY_KEY: std::ops::Range<usize> = 223..255;

// The pieces of the identity certificate between its variable parts (DER).
/// Certificate and TBSCertificate headers, version 3, serial number 1, Ed25519.
const HEAD: &[u8] = b"\x30\x82\x01\x8c\x30\x82\x01\x3e\xa0\x03\x02\x01\x02\x02\x01\x01\x30\x05\x06\x03\x2b\x65\x70";
/// Name of one common name of 64 characters, up to the characters.
const NAME: &[u8] = b"\x30\x4b\x31\x49\x30\x47\x06\x03\x55\x04\x03\x0c\x40";
/// Valid from 1970 to the "no well-defined expiration date" of RFC 5280, section 4.1.2.5: a key is its own validity.
const VALIDITY: &[u8] = b"\x30\x20\x17\x0d700101000000Z\x18\x0f99991231235959Z";
/// SubjectPublicKeyInfo of an Ed25519 key up to the key (RFC 8410, section 4).
pub(crate) const ED25519_SPKI: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";
/// Extensions up to the subject key identifier, which is the key's first [`KEY_IDENTIFIER_BYTES`].
const EXTENSIONS: &[u8] = b"\xa3\x45\x30\x43\x30\x1d\x06\x03\x55\x1d\x0e\x04\x16\x04\x14";
/// Critical basicConstraints (a CA, path length 0) and critical keyUsage (keyCertSign only).
const CONSTRAINTS: &[u8] = b"\x30\x12\x06\x03\x55\x1d\x13\x01\x01\xff\x04\x08\x30\x06\x01\x01\xff\x02\x01\x00\
                             \x30\x0e\x06\x03\x55\x1d\x0f\x01\x01\xff\x04\x04\x03\x02\x02\x04";
/// RFC 5280 section 4.2.1.2 leaves the method open; the key's own first bytes need no hash.
const KEY_IDENTIFIER_BYTES: usize = 20;
/// Ed25519 and the header of the signature.
const TAIL: &[u8] = b"\x30\x05\x06\x03\x2b\x65\x70\x03\x41\x00";

/// The end of a connection that a certificate may be used at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The end that dialled.
    Client,
    /// The end that listened.
    Server,
}

impl Side {
    /// The other end.
    pub fn peer(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// Why no leaf was issued: always a failure of this machine, never of a peer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IssueError {
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes")]
    NoRandomness,
    /// The cryptographic library made no key.
    #[error("the cryptographic library made no key pair")]
    NoKeyPair,
    /// The clock shows a time that a certificate cannot hold.
    #[error("the clock shows {unix_seconds} s since 1970, which no certificate can hold")]
    ClockOutOfRange {
        /// What the clock showed.
        unix_seconds: u64,
    },
    /// The certificate could not be written.
    #[error("the leaf certificate could not be written")]
    Certificate(#[source] rcgen::Error),
}

/// The identity certificate of `key`: [`IDENTITY_CERTIFICATE_BYTES`] of DER, always the same for the same key.
pub fn identity_certificate(key: &IdentityKey) -> CertificateDer<'static> {
    let mut der = identity_template(key.identity());
    let signature = key.sign(&der[IDENTITY_TBS]);
    der[IDENTITY_SIGNATURE].copy_from_slice(&signature);
    der.into()
}

/// The identity certificate with zeros for its signature.
fn identity_template(identity: PeerIdentity) -> Vec<u8> {
    let name = common_name(identity);
    let mut der = Vec::with_capacity(IDENTITY_CERTIFICATE_BYTES);
    for piece in [
        HEAD,
        NAME,
        name.as_bytes(),
        VALIDITY,
        NAME,
        name.as_bytes(),
        ED25519_SPKI,
        &identity.0,
        EXTENSIONS,
        &identity.0[..KEY_IDENTIFIER_BYTES],
        CONSTRAINTS,
        TAIL,
        &[0; 64],
    ] {
        der.extend_from_slice(piece);
    }
    debug_assert_eq!(der.len(), IDENTITY_CERTIFICATE_BYTES);
    der
}

/// Whose identity certificate this is, its form compared byte for byte, its signature *not* verified.
pub(crate) fn parse_identity(der: &[u8]) -> Option<PeerIdentity> {
    if der.len() != IDENTITY_CERTIFICATE_BYTES {
        return None;
    }
    let identity = PeerIdentity(der[IDENTITY_KEY].try_into().ok()?);
    let unsigned = ..IDENTITY_SIGNATURE.start;
    (identity_template(identity)[unsigned] == der[unsigned]).then_some(identity)
}

/// Whether the identity certificate, already parsed to `identity`, signs itself.
pub(crate) fn is_self_signed(der: &[u8], identity: PeerIdentity) -> bool {
    match (der.get(IDENTITY_TBS), der.get(IDENTITY_SIGNATURE).and_then(|s| s.try_into().ok())) {
        (Some(signed), Some(signature)) => identity.verify(signed, signature),
        _ => false,
    }
}

/// The contents of the name (without its outer header) that a trust anchor for `identity` has.
pub(crate) fn anchor_subject(identity: PeerIdentity) -> Vec<u8> {
    [&NAME[2..], common_name(identity).as_bytes()].concat()
}

/// The contents of the SubjectPublicKeyInfo (without its outer header) that a trust anchor for `identity` has.
pub(crate) fn anchor_spki(identity: PeerIdentity) -> Vec<u8> {
    [&ED25519_SPKI[2..], &identity.0].concat()
}

fn common_name(identity: PeerIdentity) -> String {
    HEXLOWER.encode(&identity.0)
}

/// An ephemeral TLS key with the chain `[leaf, identity]` that vouches for it.
#[derive(Clone)]
pub struct Leaf {
    certified: Arc<CertifiedKey>,
    tls_key: [u8; 32],
    not_before: u64,
    not_after: u64,
}

impl Leaf {
    /// Makes a TLS key and certifies it for `side`, valid from `now` (seconds since 1970) for `validity`.
    pub fn issue(identity: &IdentityKey, side: Side, now: u64, validity: Duration) -> Result<Self, IssueError> {
        let mut seed = Zeroizing::new([0; 32]);
        SystemRandom::new().fill(seed.as_mut()).map_err(|_| IssueError::NoRandomness)?;
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.as_ref()).map_err(|_| IssueError::NoKeyPair)?;
        let key = TlsKey(Arc::new(pair));
        let tls_key = key.public()?;
        let not_after = now.saturating_add(validity.as_secs());

        let leaf = leaf_params(side, now, not_after)?
            .signed_by(&key, &Issuer::new(issuer_params(identity.identity()), identity))
            .map_err(IssueError::Certificate)?;
        let chain = vec![leaf.into(), identity_certificate(identity)];
        let certified = Arc::new(CertifiedKey::new(chain, Arc::new(key)));
        Ok(Self { certified, tls_key, not_before: now, not_after })
    }

    /// The public half of the TLS key, 32 bytes.
    pub fn tls_key(&self) -> [u8; 32] {
        self.tls_key
    }

    /// First and last second (since 1970) of its validity.
    pub fn validity(&self) -> (u64, u64) {
        (self.not_before, self.not_after)
    }

    /// Leaf and identity certificate with the key, as rustls takes them.
    pub fn certified_key(&self) -> Arc<CertifiedKey> {
        self.certified.clone()
    }
}

impl fmt::Debug for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leaf")
            .field("tls_key", &HEXLOWER.encode(&self.tls_key))
            .field("not_before", &self.not_before)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

fn leaf_params(side: Side, not_before: u64, not_after: u64) -> Result<CertificateParams, IssueError> {
    let date = |unix_seconds: u64| {
        i64::try_from(unix_seconds)
            .ok()
            .and_then(|seconds| time::OffsetDateTime::from_unix_timestamp(seconds).ok())
            .ok_or(IssueError::ClockOutOfRange { unix_seconds })
    };
    let mut serial = [0; 16];
    SystemRandom::new().fill(&mut serial).map_err(|_| IssueError::NoRandomness)?;
    serial[0] = serial[0] & 0x7f | 0x40; // positive and of full length

    let mut params = CertificateParams::default();
    params.not_before = date(not_before)?;
    params.not_after = date(not_after)?;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "starminer tls");
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params.extended_key_usages = vec![match side {
        Side::Client => ExtendedKeyUsagePurpose::ClientAuth,
        Side::Server => ExtendedKeyUsagePurpose::ServerAuth,
    }];
    Ok(params)
}

/// What rcgen needs to know of the identity certificate: the name and key identifier of the leaf's issuer.
fn issuer_params(identity: PeerIdentity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, DnValue::Utf8String(common_name(identity)));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.key_identifier_method = KeyIdMethod::PreSpecified(identity.0[..KEY_IDENTIFIER_BYTES].to_vec());
    params
}

/// The ephemeral key, shared with the signer of each handshake. Never serialized; the library wipes it when freed.
#[derive(Clone)]
struct TlsKey(Arc<Ed25519KeyPair>);

impl TlsKey {
    fn public(&self) -> Result<[u8; 32], IssueError> {
        self.0.public_key().as_ref().try_into().map_err(|_| IssueError::NoKeyPair)
    }
}

impl fmt::Debug for TlsKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsKey(secret)")
    }
}

impl rcgen::PublicKeyData for TlsKey {
    fn der_bytes(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ED25519
    }
}

impl SigningKey for TlsKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&SignatureScheme::ED25519).then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl Signer for TlsKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        Ok(self.0.sign(message).as_ref().to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn identity_certificate_is_a_function_of_the_key() {
        let key = IdentityKey::from_seed(&[1; 32]).unwrap();
        let der = identity_certificate(&key);
        assert_eq!(der, identity_certificate(&key));
        assert_eq!(parse_identity(&der), Some(key.identity()));
        assert!(is_self_signed(&der, key.identity()));

        let anchor = webpki::anchor_from_trusted_cert(&der).unwrap();
        assert_eq!(anchor.subject.as_ref(), anchor_subject(key.identity()));
        assert_eq!(anchor.subject_public_key_info.as_ref(), anchor_spki(key.identity()));
        assert!(anchor.name_constraints.is_none());
    }

    /// The vector of `specs/tls.md`.
    #[test]
    fn identity_certificate_is_frozen() {
        let key = IdentityKey::from_seed(&[1; 32]).unwrap();
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &identity_certificate(&key));
        assert_eq!(HEXLOWER.encode(digest.as_ref()), VECTOR);
    }

    const VECTOR: &str = "b79663f490f1d5802b7520a61dde68aa7030df2dd26ceb617189335cf4427497";

    /// A second encoder agrees on every byte that it can be told to write.
    #[test]
    fn rcgen_writes_the_same_identity_certificate() {
        let key = IdentityKey::from_seed(&[2; 32]).unwrap();
        let mut params = issuer_params(key.identity());
        params.serial_number = Some(SerialNumber::from_slice(&[1]));
        params.not_before = time::OffsetDateTime::UNIX_EPOCH;
        params.not_after = time::OffsetDateTime::from_unix_timestamp(253_402_300_799).unwrap();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
        let theirs = params.self_signed(&key).unwrap();
        let ours = identity_certificate(&key);
        // rcgen writes the same extensions in another order, so that the comparison is up to the key, and by length.
        assert_eq!(theirs.der()[..IDENTITY_KEY.end], ours[..IDENTITY_KEY.end]);
        assert_eq!(theirs.der().len(), ours.len());
    }

    #[test]
    fn every_flipped_bit_of_an_identity_certificate_is_noticed() {
        let key = IdentityKey::from_seed(&[3; 32]).unwrap();
        let good = identity_certificate(&key);
        for at in 0..good.len() * 8 {
            let mut bad = good.to_vec();
            bad[at / 8] ^= 1 << (at % 8);
            let accepted = parse_identity(&bad).filter(|identity| is_self_signed(&bad, *identity));
            assert_eq!(accepted, None, "bit {at}");
        }
        for length in 0..good.len() {
            assert_eq!(parse_identity(&good[..length]), None);
        }
    }

    #[test]
    fn leaves_are_fresh_and_bounded_by_the_clock() {
        let identity = IdentityKey::from_seed(&[4; 32]).unwrap();
        let issue = |now| Leaf::issue(&identity, Side::Client, now, Duration::from_secs(60));
        let (one, two) = (issue(1_000).unwrap(), issue(1_000).unwrap());
        assert_ne!(one.tls_key(), two.tls_key());
        assert_eq!(one.validity(), (1_000, 1_060));
        assert!(!format!("{one:?}").contains("seed"));
        assert!(matches!(issue(u64::MAX), Err(IssueError::ClockOutOfRange { .. })));
    }
}
