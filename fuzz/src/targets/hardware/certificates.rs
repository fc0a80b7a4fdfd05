//! Certificates, chains and revocation lists.

use std::sync::LazyLock;

use starminer_hardware::cert::{Certificate, ChainOptions, Crl, LeafRole, Provenance, Quirk, build_chain};
use starminer_hardware::{dcap, snp, tpm};

use crate::Outcome;
use crate::hardware::{NOW_S, SIGNED, check_reasons, own};

const QUIRKS: [Quirk; 3] = [Quirk::NameEncoding, Quirk::NoBasicConstraints, Quirk::RootDates];

pub fn certificates(data: &[u8]) -> Outcome {
    let read = Certificate::read(data);
    let Ok(certificates) = &read else { return Outcome::of(&read, |error| error.code()) };
    for certificate in certificates {
        let again = Certificate::from_der(certificate.der()).expect("what was read is one");
        assert_eq!(again, *certificate);
        assert!(!certificate.subject_name().chars().any(char::is_control), "safe to show");
        assert!(!certificate.issuer_name().chars().any(char::is_control), "safe to show");
        let _ = (certificate.common_name(), certificate.extended_key_usage(&[0x55]), certificate.signature_algorithm());
        if let Ok(key) = certificate.public_key() {
            assert!(!key.name().is_empty());
            // A key that is no authority's vouches for nothing, least of all for itself.
            let _ = certificate.verify_signature(&key);
        }
    }
    let mut chains = Vec::new();
    for (leaf, roots) in
        certificates.iter().flat_map(|leaf| [(leaf, snp::roots()), (leaf, dcap::roots()), (leaf, tpm::ek::roots())])
    {
        for role in [LeafRole::Signs, LeafRole::Decrypts, LeafRole::Issues] {
            let options = ChainOptions { quirks: &QUIRKS, leaf: role, ..ChainOptions::default() };
            match build_chain(leaf, certificates, &roots, NOW_S, &options) {
                Ok(chain) => {
                    assert_eq!(chain.provenance(), Provenance::Genuine, "no other root was given");
                    assert!(
                        SIGNED.fingerprints.contains(&chain.leaf().fingerprint()),
                        "a certificate that nobody made"
                    );
                    assert!(chain.not_after_s() >= i64::try_from(NOW_S).expect("a time of now"));
                    chains.push("chain");
                }
                Err(error) => chains.push(error.code()),
            }
        }
    }
    Outcome::accepted(chains)
}

pub fn revocation_lists(data: &[u8]) -> Outcome {
    let read = Crl::read(data);
    let Ok(lists) = &read else { return Outcome::of(&read, |error| error.code()) };
    let mut verified = Vec::new();
    for list in lists {
        assert_eq!(Crl::from_der(list.der()).expect("what was read is one"), *list);
        let now_s = u64::try_from(list.this_update_s()).unwrap_or(0);
        for issuer in SIGNED.certificates.iter().filter(|issuer| issuer.subject() == list.issuer()) {
            match list.verify(issuer, now_s) {
                Ok(list) => {
                    assert!(SIGNED.lists.contains(list.list()), "a list that nobody made");
                    let _ = SIGNED.certificates.iter().filter(|certificate| list.revokes(certificate)).count();
                    verified.push("verified");
                }
                Err(error) => verified.push(error.code()),
            }
        }
    }
    Outcome::accepted(verified)
}

/// A software TPM's local authority and its root, as a caller would bring them along.
static AUTHORITIES: LazyLock<Vec<Certificate>> = LazyLock::new(|| {
    let read = |name: &str| Certificate::read_one(&own(&format!("tests/tpm/data/{name}"))).expect("a certificate");
    vec![read("swtpm-ca.pem"), read("swtpm-root.pem")]
});

pub fn endorsement_key(data: &[u8]) -> Outcome {
    let parsed = tpm::ek::EkCertificate::parse(data);
    let Ok(ek) = &parsed else { return Outcome::of(&parsed, |error| error.code()) };
    // What the caller brings along as an authority may be a root of the caller's, which shows.
    let mut reached = Vec::new();
    for authorities in [&[][..], &AUTHORITIES[..]] {
        let context = tpm::ek::Context { authorities, crls: &SIGNED.lists, now_s: 1_720_000_000 };
        let verification = tpm::ek::verify(ek, &context);
        check_reasons(&verification.checks);
        if let Some(verified) = &verification.verified {
            let (certificate, _) = Certificate::from_der_prefix(data)
                .or_else(|_| Ok::<_, ()>((Certificate::read_one(data).map_err(|_| ())?, &[][..])))
                .expect("it was read");
            assert!(SIGNED.fingerprints.contains(&certificate.fingerprint()), "a certificate that nobody made");
            assert!(verified.claims().to_json().is_object());
            check_reasons(&tpm::ek::appraise(verified, &tpm::ek::Policy::default()));
        }
        reached.extend(verification.checks.as_slice().iter().map(|check| (check.name.to_string(), check.verdict)));
    }
    Outcome::accepted(reached)
}
