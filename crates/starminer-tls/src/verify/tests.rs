//! Chains that must be refused, each differing from a good one in a single respect.

#![allow(clippy::unwrap_used)]

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer};

use super::*;
use crate::certificate::{Leaf, identity_certificate};
use crate::identity::IdentityKey;

const NOW: u64 = 1_800_000_000;
const HOUR: u64 = 3600;
const SKEW: u64 = MAX_CLOCK_SKEW.as_secs();

fn key(seed: u8) -> IdentityKey {
    IdentityKey::from_seed(&[seed; 32]).unwrap()
}

fn judge_at(chain: &[CertificateDer<'_>], now: u64) -> Result<PeerIdentity, PeerRefusal> {
    verify_chain(chain, Side::Client, unix_time(now), |_| Ok(()))
}

fn judge(chain: &[CertificateDer<'_>]) -> Result<PeerIdentity, PeerRefusal> {
    judge_at(chain, NOW)
}

/// A good chain of `identity` as this crate issues it.
fn issued(identity: &IdentityKey, side: Side) -> Vec<CertificateDer<'static>> {
    Leaf::issue(identity, side, NOW, Duration::from_secs(HOUR)).unwrap().certified_key().cert.clone()
}

/// A leaf made by hand, so that it can be wrong.
struct Forged {
    issuer_name: String,
    params: CertificateParams,
}

impl Forged {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.not_before = time::OffsetDateTime::from_unix_timestamp(NOW as i64).unwrap();
        params.not_after = time::OffsetDateTime::from_unix_timestamp((NOW + HOUR) as i64).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        Self { issuer_name: key(1).identity().to_string(), params }
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn lasting(self, from: u64, to: u64) -> Self {
        self.with(|forged| {
            forged.params.not_before = time::OffsetDateTime::from_unix_timestamp(from as i64).unwrap();
            forged.params.not_after = time::OffsetDateTime::from_unix_timestamp(to as i64).unwrap();
        })
    }

    /// Signed by `signer`, beside the identity certificate of `key(1)`.
    fn signed_by(
        self,
        signer: &impl rcgen::SigningKey,
        leaf_key: &impl rcgen::PublicKeyData,
    ) -> Vec<CertificateDer<'static>> {
        let mut issuer = CertificateParams::default();
        issuer.distinguished_name = DistinguishedName::new();
        issuer.distinguished_name.push(DnType::CommonName, self.issuer_name);
        let leaf = self.params.signed_by(leaf_key, &Issuer::new(issuer, signer)).unwrap();
        vec![leaf.into(), identity_certificate(&key(1))]
    }

    fn chain(self) -> Vec<CertificateDer<'static>> {
        self.signed_by(&key(1), &key(9))
    }
}

#[test]
fn the_good_ones_are_accepted() {
    assert_eq!(judge(&issued(&key(1), Side::Client)), Ok(key(1).identity()));
    assert_eq!(judge(&Forged::new().chain()), Ok(key(1).identity()));
    let (identity, tls_key) = read_verified_chain(&Forged::new().chain()).unwrap();
    assert_eq!((identity, tls_key), (key(1).identity(), key(9).public()));
}

#[test]
fn wrong_shapes_are_refused() {
    let good = issued(&key(1), Side::Client);
    let [leaf, identity] = [good[0].clone(), good[1].clone()];
    assert_eq!(judge(&[]), Err(PeerRefusal::ChainLength { certificates: 0 }));
    assert_eq!(judge(&good[..1]), Err(PeerRefusal::ChainLength { certificates: 1 }));
    let three = [leaf.clone(), identity.clone(), identity.clone()];
    assert_eq!(judge(&three), Err(PeerRefusal::ChainLength { certificates: 3 }));
    assert_eq!(judge(&[identity.clone(), leaf.clone()]), Err(PeerRefusal::NotAnIdentity));
    assert_eq!(judge(&[leaf.clone(), leaf.clone()]), Err(PeerRefusal::NotAnIdentity));
    assert_eq!(judge(&[identity.clone(), identity.clone()]), Err(PeerRefusal::LeafReusesIdentity));

    // A self-signed leaf, as every ordinary tool makes it: without an issuer, and beside a true identity.
    let own = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let self_signed: CertificateDer<'static> = Forged::new().params.self_signed(&own).unwrap().into();
    assert_eq!(judge(std::slice::from_ref(&self_signed)), Err(PeerRefusal::ChainLength { certificates: 1 }));
    assert_eq!(judge(&[self_signed.clone(), identity.clone()]), Err(PeerRefusal::LeafIssuer));
    assert_eq!(judge(&[self_signed.clone(), self_signed]), Err(PeerRefusal::NotAnIdentity));

    // An identity certificate whose signature is not its own key's.
    let mut unsigned = identity.to_vec();
    *unsigned.last_mut().unwrap() ^= 1;
    assert_eq!(judge(&[leaf.clone(), unsigned.into()]), Err(PeerRefusal::IdentitySignature));
    for garbage in [&b""[..], b"\x30\x80", b"not a certificate"] {
        assert_eq!(judge(&[garbage.to_vec().into(), identity.clone()]), Err(PeerRefusal::LeafMalformed));
        assert_eq!(judge(&[leaf.clone(), garbage.to_vec().into()]), Err(PeerRefusal::NotAnIdentity));
    }
}

#[test]
fn leaves_of_others_are_refused() {
    // Another identity's leaf beside ours, a true name with a wrong signature, a wrong name with a true signature.
    let other = issued(&key(2), Side::Client);
    let ours = identity_certificate(&key(1));
    assert_eq!(judge(&[other[0].clone(), ours]), Err(PeerRefusal::LeafIssuer));
    assert_eq!(judge(&Forged::new().signed_by(&key(2), &key(9))), Err(PeerRefusal::LeafIssuer));
    let misnamed = Forged::new().with(|forged| forged.issuer_name = key(2).identity().to_string());
    assert_eq!(judge(&misnamed.chain()), Err(PeerRefusal::LeafIssuer));
    let p256 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    assert_eq!(judge(&Forged::new().signed_by(&p256, &key(9))), Err(PeerRefusal::LeafIssuer));
    assert_eq!(judge(&Forged::new().signed_by(&key(1), &p256)), Err(PeerRefusal::LeafKeyKind));
    assert_eq!(judge(&Forged::new().signed_by(&key(1), &key(1))), Err(PeerRefusal::LeafReusesIdentity));

    // The leaf of a leaf: a client that extends the trust it was given by one more level.
    let extended = Forged::new().signed_by(&key(9), &key(8));
    let issuer = Forged::new().with(|forged| forged.params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)).chain();
    let chain = [extended[0].clone(), issuer[0].clone(), issuer[1].clone()];
    assert_eq!(judge(&chain), Err(PeerRefusal::ChainLength { certificates: 3 }));
    assert_eq!(judge(&chain[..2]), Err(PeerRefusal::NotAnIdentity));
}

#[test]
fn usages_are_required() {
    assert_eq!(judge(&issued(&key(1), Side::Server)), Err(PeerRefusal::LeafUsage));
    let refused = |change: fn(&mut CertificateParams)| {
        let forged = Forged::new().with(|forged| change(&mut forged.params));
        assert_eq!(judge(&forged.chain()), Err(PeerRefusal::LeafUsage));
    };
    refused(|params| params.extended_key_usages = vec![]);
    refused(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any]);
    refused(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning]);
    refused(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    // An extension that nobody here understands but must.
    let critical = Forged::new().with(|forged| {
        let mut extension = rcgen::CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
        extension.set_criticality(true);
        forged.params.custom_extensions = vec![extension];
    });
    assert_eq!(judge(&critical.chain()), Err(PeerRefusal::LeafMalformed));
}

#[test]
fn the_clock_decides_within_bounds() {
    let good = Forged::new().chain();
    let check = |now, expect: Result<(), PeerRefusal>| assert_eq!(judge_at(&good, now).map(|_| ()), expect, "{now}");
    check(NOW, Ok(()));
    check(NOW - SKEW, Ok(()));
    check(NOW - SKEW - 1, Err(PeerRefusal::LeafNotYetValid { ahead_seconds: SKEW + 1 }));
    check(NOW + HOUR, Ok(()));
    check(NOW + HOUR + SKEW, Ok(()));
    check(NOW + HOUR + SKEW + 1, Err(PeerRefusal::LeafExpired { ago_seconds: SKEW + 1 }));
    check(0, Err(PeerRefusal::LeafNotYetValid { ahead_seconds: NOW }));
    check(u64::MAX, Err(PeerRefusal::LeafExpired { ago_seconds: u64::MAX - NOW - HOUR }));
}

#[test]
fn long_lives_are_refused() {
    let day = MAX_LEAF_LIFETIME.as_secs();
    let check = |from, to, expect: Result<(), PeerRefusal>| {
        assert_eq!(judge(&Forged::new().lasting(from, to).chain()).map(|_| ()), expect, "{from}..{to}");
    };
    check(NOW, NOW + day, Ok(()));
    check(NOW, NOW + day + 1, Err(PeerRefusal::LeafTooLong));
    check(0, NOW + HOUR, Err(PeerRefusal::LeafTooLong));
    check(NOW, 253_402_300_799, Err(PeerRefusal::LeafTooLong));
    check(0, 253_402_300_799, Err(PeerRefusal::LeafTooLong));
    check(NOW + HOUR, NOW, Err(PeerRefusal::LeafMalformed));
}

#[test]
fn admission_comes_before_signatures() {
    let mut chain = issued(&key(1), Side::Client);
    let mut unsigned = chain[1].to_vec();
    *unsigned.last_mut().unwrap() ^= 1;
    chain[1] = unsigned.into();
    let refusal = PeerRefusal::NotAdmitted { found: key(1).identity() };
    assert_eq!(verify_chain(&chain, Side::Client, unix_time(NOW), |_| Err(refusal)), Err(refusal));
}

#[test]
fn every_flipped_bit_of_a_leaf_is_noticed() {
    let good = issued(&key(1), Side::Client);
    for at in 0..good[0].len() * 8 {
        let mut leaf = good[0].to_vec();
        leaf[at / 8] ^= 1 << (at % 8);
        assert!(judge(&[leaf.into(), good[1].clone()]).is_err(), "bit {at}");
    }
}
