//! Certificates, chains and revocation lists: a test PKI made here, and real makers' certificates.

#![allow(clippy::unwrap_used, missing_docs)]

use std::{cmp::Ordering, path::PathBuf};

use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CustomExtension, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use starminer_hardware::cert::{
    Certificate, CertificateError, ChainOptions, Crl, Curve, Hash, LeafRole, MAX_CERTIFICATES, Place, Provenance,
    PssSalt, PublicKey, Quirk, Roots, SignatureAlgorithm, build_chain,
};

const NOW: u64 = 1_780_000_000;

struct Authority {
    params: CertificateParams,
    key: KeyPair,
    certificate: Certificate,
}

fn day(offset: i64) -> time::OffsetDateTime {
    time::OffsetDateTime::from_unix_timestamp(NOW as i64 + offset * 86_400).unwrap()
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = day(-10);
    params.not_after = day(10);
    params
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn leaf_params() -> CertificateParams {
    let mut params = params("leaf");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params
}

fn root(params: CertificateParams) -> Authority {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let certificate = Certificate::from_der(params.self_signed(&key).unwrap().der()).unwrap();
    Authority { params, key, certificate }
}

impl Authority {
    fn issue(&self, params: CertificateParams) -> Self {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let issuer = Issuer::from_params(&self.params, &self.key);
        let certificate = Certificate::from_der(params.signed_by(&key, &issuer).unwrap().der()).unwrap();
        Self { params, key, certificate }
    }

    fn crl(&self, revoked: &[&[u8]], number: u64, days: std::ops::Range<i64>) -> Vec<u8> {
        let revoked = revoked.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from_slice(serial),
            revocation_time: day(-1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: day(days.start),
            next_update: day(days.end),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&Issuer::from_params(&self.params, &self.key)).unwrap().der().to_vec()
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let base64 = data_encoding::BASE64.encode(der);
    let lines: Vec<&str> = base64.as_bytes().chunks(64).map(|line| str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

fn vectors() -> Option<PathBuf> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/vectors");
    let path = PathBuf::from(std::env::var("STARMINER_VECTORS").unwrap_or_else(|_| default.to_owned()));
    if path.is_dir() {
        return Some(path);
    }
    println!("skipped: no vectors at {}", path.display());
    None
}

#[test]
fn a_good_chain_is_built_from_any_order_and_form() {
    let root = root(ca_params("root"));
    let upper = root.issue(ca_params("upper"));
    let lower = upper.issue(ca_params("lower"));
    let leaf = lower.issue(leaf_params());
    let bundle = [
        pem("CERTIFICATE", upper.certificate.der()),
        "a note\n".to_owned(),
        pem("CERTIFICATE", lower.certificate.der()),
    ]
    .concat();
    let from_pem = Certificate::read(bundle.as_bytes()).unwrap();
    let from_der = Certificate::read(&[lower.certificate.der(), upper.certificate.der()].concat()).unwrap();
    let roots = Roots::none().with(root.certificate.clone());
    for intermediates in [from_pem, from_der] {
        let chain = build_chain(&leaf.certificate, &intermediates, &roots, NOW, &ChainOptions::default()).unwrap();
        assert_eq!(chain.certificates().len(), 4);
        assert_eq!(chain.provenance(), Provenance::Simulated { root: root.certificate.fingerprint() });
        assert_eq!(chain.not_after_s(), day(10).unix_timestamp());
        assert!(chain.tolerated().is_empty());
        assert_eq!(chain.leaf().common_name().as_deref(), Some("leaf"));
    }
}

/// What is altered in a chain of four, and what has to come of it.
struct Case {
    name: &'static str,
    root: fn(&mut CertificateParams),
    upper: fn(&mut CertificateParams),
    leaf: fn(&mut CertificateParams),
    code: &'static str,
    place: Place,
    quirk: Option<Quirk>,
}

#[test]
fn what_does_not_hold_is_refused_and_named() {
    fn no(_: &mut CertificateParams) {}
    fn unknown(params: &mut CertificateParams) {
        let mut extension = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
        extension.set_criticality(true);
        params.custom_extensions.push(extension);
    }
    let case = |name, root, upper, leaf, code, place, quirk| Case { name, root, upper, leaf, code, place, quirk };
    let upper = Place::Intermediate(2);
    let cases = [
        case("expired leaf", no, no, |p| p.not_after = day(-1), "chain.expired", Place::Leaf, None),
        case("early leaf", no, no, |p| p.not_before = day(1), "chain.not-yet-valid", Place::Leaf, None),
        case("expired authority", no, |p| p.not_after = day(-1), no, "chain.expired", upper, None),
        case("early authority", no, |p| p.not_before = day(1), no, "chain.not-yet-valid", upper, None),
        case("expired root", |p| p.not_after = day(-1), no, no, "chain.expired", Place::Root, Some(Quirk::RootDates)),
        case(
            "no authority",
            no,
            |p| p.is_ca = IsCa::ExplicitNoCa,
            no,
            "chain.not-authority",
            upper,
            Some(Quirk::NoBasicConstraints),
        ),
        case(
            "silent authority",
            no,
            |p| p.is_ca = IsCa::NoCa,
            no,
            "chain.not-authority",
            upper,
            Some(Quirk::NoBasicConstraints),
        ),
        case(
            "path length",
            |p| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(1)),
            no,
            no,
            "chain.path-length",
            Place::Root,
            Some(Quirk::PathLength),
        ),
        case(
            "lower path length",
            no,
            |p| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)),
            no,
            "chain.path-length",
            upper,
            Some(Quirk::PathLength),
        ),
        case(
            "key usage",
            no,
            |p| p.key_usages = vec![KeyUsagePurpose::CrlSign],
            no,
            "chain.key-usage",
            upper,
            Some(Quirk::NoCertSign),
        ),
        case(
            "leaf's key usage",
            no,
            no,
            |p| p.key_usages = vec![KeyUsagePurpose::KeyEncipherment],
            "chain.key-usage",
            Place::Leaf,
            Some(Quirk::LeafKeyUsage),
        ),
        case(
            "leaf is an authority",
            no,
            no,
            |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained),
            "chain.leaf-is-ca",
            Place::Leaf,
            Some(Quirk::LeafIsCa),
        ),
        case("critical in the leaf", no, no, unknown, "chain.critical-extension", Place::Leaf, None),
        case(
            "critical in an authority",
            no,
            unknown,
            no,
            "chain.critical-extension",
            upper,
            Some(Quirk::IssuerCriticalExtension),
        ),
    ];
    for Case { name, root: alter_root, upper: alter_upper, leaf: alter_leaf, code, place, quirk } in cases {
        let (mut root_params, mut upper_params, mut leaf_params) =
            (ca_params("root"), ca_params("upper"), leaf_params());
        alter_root(&mut root_params);
        alter_upper(&mut upper_params);
        alter_leaf(&mut leaf_params);
        let root = root(root_params);
        let upper = root.issue(upper_params);
        let lower = upper.issue(ca_params("lower"));
        let leaf = lower.issue(leaf_params);
        let intermediates = [upper.certificate.clone(), lower.certificate.clone()];
        let roots = Roots::none().with(root.certificate.clone());
        let error = build_chain(&leaf.certificate, &intermediates, &roots, NOW, &ChainOptions::default()).unwrap_err();
        assert_eq!((error.code(), error.place), (code, place), "{name}: {error}");
        if let Some(quirk) = quirk {
            let options = ChainOptions { quirks: &[quirk], ..ChainOptions::default() };
            let chain = build_chain(&leaf.certificate, &intermediates, &roots, NOW, &options).unwrap();
            assert_eq!(chain.tolerated(), [(place, quirk)], "{name}");
        }
    }
}

#[test]
fn a_critical_extension_that_the_caller_reads_is_fine() {
    let root = root(ca_params("root"));
    let mut params = leaf_params();
    let mut extension = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
    extension.set_criticality(true);
    params.custom_extensions.push(extension);
    let leaf = root.issue(params);
    let options = ChainOptions { understood: &[&[0x2a, 3, 4]], ..ChainOptions::default() };
    let roots = Roots::none().with(root.certificate);
    assert!(build_chain(&leaf.certificate, &[], &roots, NOW, &options).is_ok());
    assert_eq!(leaf.certificate.extension(&[0x2a, 3, 4]).unwrap().value, [5, 0]);
}

#[test]
fn a_chain_that_hangs_on_nothing_is_refused() {
    let trusted = root(ca_params("root"));
    let imposter = root(ca_params("root"));
    let leaf = imposter.issue(leaf_params());
    let options = ChainOptions::default();
    let refused = |leaf: &Authority, given: &[Certificate], roots: &Roots| {
        build_chain(&leaf.certificate, given, roots, NOW, &options).unwrap_err().code()
    };
    let roots = Roots::none().with(trusted.certificate.clone());
    assert_eq!(refused(&leaf, &[], &roots), "chain.signature", "the root's name is not the root");
    assert_eq!(refused(&leaf, std::slice::from_ref(&imposter.certificate), &roots), "chain.signature");
    assert_eq!(refused(&leaf, std::slice::from_ref(&imposter.certificate), &Roots::none()), "chain.no-issuer");
    assert_eq!(refused(&trusted, &[], &roots), "chain.leaf-is-root");
    let middle = trusted.issue(ca_params("middle"));
    let orphan = middle.issue(leaf_params());
    let error = build_chain(&orphan.certificate, &[], &roots, NOW, &options).unwrap_err();
    assert_eq!((error.code(), error.place), ("chain.no-issuer", Place::Leaf));
    let options = ChainOptions { quirks: &[Quirk::LeafIsRoot], leaf: LeafRole::Issues, ..ChainOptions::default() };
    assert!(build_chain(&trusted.certificate, &[], &roots, NOW, &options).is_ok());
}

#[test]
fn deep_and_tangled_chains_are_refused() {
    let roots = Roots::none().with(root(ca_params("trusted")).certificate);
    let top = root(ca_params("top"));
    let mut chain = vec![top.issue(ca_params("0"))];
    for name in 1..MAX_CERTIFICATES {
        chain.push(chain.last().unwrap().issue(ca_params(&name.to_string())));
    }
    let leaf = chain.last().unwrap().issue(leaf_params());
    let given: Vec<Certificate> = chain.iter().map(|link| link.certificate.clone()).collect();
    let error = build_chain(&leaf.certificate, &given, &roots, NOW, &ChainOptions::default()).unwrap_err();
    assert_eq!(error.code(), "chain.too-deep");
    // Two names that issue each other, eight times each.
    let knot: Vec<Certificate> = (0..8)
        .flat_map(|_| {
            let a = root(ca_params("a"));
            let b = a.issue(ca_params("b"));
            let a_again = b.issue(ca_params("a"));
            [b.certificate, a_again.certificate]
        })
        .collect();
    let leaf = root(ca_params("a")).issue(leaf_params());
    let error = build_chain(&leaf.certificate, &knot, &roots, NOW, &ChainOptions::default()).unwrap_err();
    assert!(["chain.no-issuer", "chain.too-deep"].contains(&error.code()));
}

#[test]
fn every_flipped_bit_of_a_chain_refuses() {
    let root = root(ca_params("root"));
    let middle = root.issue(ca_params("middle"));
    let leaf = middle.issue(leaf_params());
    let roots = Roots::none().with(root.certificate.clone());
    let options = ChainOptions::default();
    for (target, other) in [(&leaf, &middle), (&middle, &leaf)] {
        let der = target.certificate.der();
        for bit in 0..der.len() * 8 {
            let mut flipped = der.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let Ok(flipped) = Certificate::from_der(&flipped) else { continue };
            let result = if std::ptr::eq(target, &raw const leaf) {
                build_chain(&flipped, std::slice::from_ref(&other.certificate), &roots, NOW, &options)
            } else {
                build_chain(&other.certificate, &[flipped], &roots, NOW, &options)
            };
            assert!(result.is_err(), "bit {bit}");
        }
        for length in 0..der.len() {
            assert!(Certificate::from_der(&der[..length]).is_err(), "length {length}");
        }
        assert_eq!(Certificate::from_der(&[der, &[0]].concat()), Err(CertificateError::TrailingBytes));
        assert_eq!(Certificate::from_der_prefix(&[der, &[0xff; 9]].concat()).unwrap().1, [0xff; 9]);
    }
}

#[test]
fn pem_is_strict_inside_its_armour() {
    let root = root(ca_params("root"));
    let good = pem("CERTIFICATE", root.certificate.der());
    let read = |text: &str| Certificate::read(text.as_bytes());
    assert_eq!(read(&good).unwrap(), std::slice::from_ref(&root.certificate));
    assert_eq!(read(&good.replace('\n', "\r\n")).unwrap().len(), 1);
    for bad in [
        String::new(),
        "nothing".to_owned(),
        good.replace("BEGIN", "BEGJN"),
        good.replacen("-----", "----,", 1),
        good.replace("END CERT", "END CERU"),
        good.replace("-----END CERTIFICATE-----", ""),
        good.replacen('\n', "\n ", 1),
        good.replacen("\nMII", "\nM=II", 1),
        good.replace("CERTIFICATE", "PRIVATE KEY"),
        good.repeat(MAX_CERTIFICATES + 1),
    ] {
        assert!(read(&bad).is_err(), "{}", bad.get(..80.min(bad.len())).unwrap());
    }
    assert!(Certificate::read_one(good.repeat(2).as_bytes()).is_err());
    // A flipped bit anywhere gives the same certificate, or none.
    for bit in 0..good.len() * 8 {
        let mut flipped = good.clone().into_bytes();
        flipped[bit / 8] ^= 1 << (bit % 8);
        if let Ok(read) = Certificate::read(&flipped) {
            let roots = Roots::none().with(root.certificate.clone());
            let options =
                ChainOptions { quirks: &[Quirk::LeafIsRoot], leaf: LeafRole::Issues, ..ChainOptions::default() };
            let same = read == [root.certificate.clone()];
            assert!(same || build_chain(&read[0], &[], &roots, NOW, &options).is_err(), "bit {bit}");
        }
    }
}

#[test]
fn revocation_lists() {
    let root = root(ca_params("root"));
    let mut numbered = ca_params("taken back");
    numbered.serial_number = Some(SerialNumber::from(0x0102_0304u64));
    let taken_back = root.issue(numbered);
    let other = root.issue(ca_params("other"));
    let der = root.crl(&[&[1, 2, 3, 4]], 7, -1..1);
    let list = Crl::from_der(&der).unwrap();
    assert_eq!(Crl::read(pem("X509 CRL", &der).as_bytes()).unwrap(), std::slice::from_ref(&list));
    assert_eq!(list.number(), Some(&[7][..]));
    assert_eq!(list.compare_number(&[6]), Ordering::Greater);
    assert_eq!(list.compare_number(&[0, 7]), Ordering::Equal);
    assert_eq!(list.compare_number(&[1, 0]), Ordering::Less);
    let verified = list.verify(&root.certificate, NOW).unwrap();
    assert!(verified.revokes(&taken_back.certificate));
    assert!(!verified.revokes(&other.certificate));
    let empty = root.crl(&[], 8, -1..1);
    assert!(!Crl::from_der(&empty).unwrap().verify(&root.certificate, NOW).unwrap().revokes(&taken_back.certificate));

    let code = |issuer: &Certificate, now_s: u64| list.verify(issuer, now_s).unwrap_err().code();
    assert_eq!(code(&root.certificate, NOW + 86_401), "crl.expired");
    assert_eq!(code(&root.certificate, NOW - 86_401), "crl.not-yet-valid");
    assert_eq!(code(&other.certificate, NOW), "crl.issuer");
    assert_eq!(code(&self::root(ca_params("root")).certificate, NOW), "crl.signature");
    let mut params = ca_params("root");
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    assert_eq!(code(&self::root(params).certificate, NOW), "crl.key-usage");

    for bit in 0..der.len() * 8 {
        let mut flipped = der.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let Ok(flipped) = Crl::from_der(&flipped) else { continue };
        assert!(flipped.verify(&root.certificate, NOW).is_err(), "bit {bit}");
    }
    for length in 0..der.len() {
        assert!(Crl::read(&der[..length]).is_err(), "length {length}");
    }
    assert!(Crl::read(&[der, vec![0]].concat()).is_err());
}

#[test]
fn keys_verify_their_own_signatures_and_no_other() {
    use aws_lc_rs::{
        encoding::{AsDer as _, PublicKeyX509Der},
        rand::SystemRandom,
        signature::{
            ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING,
            ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING,
            EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256,
            RSA_PSS_SHA384, RSA_PSS_SHA512, RsaKeyPair,
        },
    };
    let random = SystemRandom::new();
    let check = |key: &PublicKey, algorithm, signature: &[u8]| {
        key.verify(algorithm, b"message", signature).unwrap();
        assert!(key.verify(algorithm, b"massage", signature).is_err());
        for index in 0..signature.len() {
            let mut flipped = signature.to_vec();
            flipped[index] ^= 0x10;
            assert!(key.verify(algorithm, b"message", &flipped).is_err(), "{algorithm:?} byte {index}");
            assert!(key.verify(algorithm, b"message", &signature[..index]).is_err());
        }
        assert!(key.verify(algorithm, b"message", &[signature, &[0]].concat()).is_err());
    };
    for (curve, hash, fixed, asn1) in [
        (Curve::P256, Hash::Sha256, &ECDSA_P256_SHA256_FIXED_SIGNING, &ECDSA_P256_SHA256_ASN1_SIGNING),
        (Curve::P384, Hash::Sha384, &ECDSA_P384_SHA384_FIXED_SIGNING, &ECDSA_P384_SHA384_ASN1_SIGNING),
        (Curve::P521, Hash::Sha512, &ECDSA_P521_SHA512_FIXED_SIGNING, &ECDSA_P521_SHA512_ASN1_SIGNING),
    ] {
        for (signing, algorithm) in
            [(fixed, SignatureAlgorithm::EcdsaFixed(hash)), (asn1, SignatureAlgorithm::EcdsaAsn1(hash))]
        {
            let pair = EcdsaKeyPair::generate(signing).unwrap();
            let key = PublicKey::from_ec_point(curve, pair.public_key().as_ref()).unwrap();
            check(&key, algorithm, pair.sign(&random, b"message").unwrap().as_ref());
            assert!(key.verify(SignatureAlgorithm::RsaPkcs1(hash), b"message", &[0; 256]).is_err());
        }
    }
    let pair = RsaKeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
    let spki: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    let key = PublicKey::from_spki(spki.as_ref()).unwrap();
    let (modulus, exponent) = key.rsa().unwrap();
    assert_eq!(PublicKey::from_rsa(modulus, exponent).unwrap(), key);
    assert_eq!(key.name(), "rsa-2048");
    for (encoding, algorithm) in [
        (&RSA_PKCS1_SHA256, SignatureAlgorithm::RsaPkcs1(Hash::Sha256)),
        (&RSA_PKCS1_SHA384, SignatureAlgorithm::RsaPkcs1(Hash::Sha384)),
        (&RSA_PKCS1_SHA512, SignatureAlgorithm::RsaPkcs1(Hash::Sha512)),
        (&RSA_PSS_SHA256, SignatureAlgorithm::RsaPss(Hash::Sha256, PssSalt::Digest)),
        (&RSA_PSS_SHA384, SignatureAlgorithm::RsaPss(Hash::Sha384, PssSalt::Digest)),
        (&RSA_PSS_SHA512, SignatureAlgorithm::RsaPss(Hash::Sha512, PssSalt::Digest)),
    ] {
        let mut signature = vec![0; pair.public_modulus_len()];
        pair.sign(encoding, &random, b"message", &mut signature).unwrap();
        check(&key, algorithm, &signature);
    }
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(&RSA_PSS_SHA256, &random, b"message", &mut signature).unwrap();
    let longest = SignatureAlgorithm::RsaPss(Hash::Sha256, PssSalt::Longest);
    assert!(key.verify(longest, b"message", &signature).is_err(), "the salt's length counts");
    assert!(PublicKey::from_rsa(&[0xff; 128], &[1, 0, 1]).is_err(), "1024 bits");
    assert!(PublicKey::from_ec_point(Curve::P256, &[4; 97]).is_err());
    let nowhere = PublicKey::from_ec_point(Curve::P256, &[4; 65]).unwrap();
    assert!(nowhere.verify(SignatureAlgorithm::EcdsaFixed(Hash::Sha256), b"", &[1; 64]).is_err());
}

#[test]
fn makers_certificates_are_read() {
    let Some(vectors) = vectors() else { return };
    let read = |name: &str| Certificate::read_one(&std::fs::read(vectors.join(name)).unwrap()).unwrap();
    for product in ["milan", "genoa"] {
        let (ark, ask, vcek) = (
            read(&format!("snp/{product}_ark.pem")),
            read(&format!("snp/{product}_ask.pem")),
            read(&format!("snp/{product}_vcek.pem")),
        );
        assert_eq!(ark.signature_algorithm().unwrap(), SignatureAlgorithm::RsaPss(Hash::Sha384, PssSalt::Digest));
        let roots = Roots::none().with(ark.clone());
        let chain = build_chain(&vcek, &[ark, ask.clone()], &roots, NOW, &ChainOptions::default()).unwrap();
        assert_eq!(chain.certificates()[1], ask);
        assert_eq!(vcek.public_key().unwrap().name(), "p-384");
    }
    let nuvoton = read("tpm-ek/nuvoton_2110_ca.pem");
    nuvoton.verify_signature(&nuvoton.public_key().unwrap()).unwrap();
    let rim = read("nvidia/rim_root.crt");
    rim.verify_signature(&rim.public_key().unwrap()).unwrap();
    for name in ["dcap/gt_pck.crl", "dcap/gt_root.crl"] {
        let lists = Crl::read(&std::fs::read(vectors.join(name)).unwrap()).unwrap();
        assert!(lists[0].next_update_s().is_some(), "{name}");
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600), at in 0usize..600, splice in any::<[u8; 4]>()) {
        let _ = Certificate::read(&bytes);
        let _ = Crl::read(&bytes);
        let _ = PublicKey::from_spki(&bytes);
        thread_local! {
            static GOOD: (Certificate, Vec<u8>) = {
                let root = root(ca_params("root"));
                let list = root.crl(&[&[9]], 1, -1..1);
                (root.certificate, list)
            };
        }
        GOOD.with(|(certificate, list)| {
            for good in [certificate.der(), list] {
                let mut mutated = good.to_vec();
                let at = at % (mutated.len() - 4);
                mutated[at..at + 4].copy_from_slice(&splice);
                if let Ok(read) = Certificate::from_der(&mutated) {
                    let _ = (read.subject_name(), read.common_name(), read.public_key(), read.extended_key_usage(&[1]));
                }
                if let Ok(read) = Crl::from_der(&mutated) {
                    let _ = read.verify(certificate, NOW);
                }
            }
        });
    }
}
