//! Anything at all, in any place: never a panic, and never verified.

use proptest::prelude::*;
use starminer_hardware::inspect::{
    Authorities, Dcap, Eventlog, File, Ima, Inspection, Nvidia, Options, PolicyFile, Snp, Tpm, TpmEk, Verdict, dcap,
    eventlog, ima, nvidia, parse_nonce, parse_time, snp, tpm, tpm_ek,
};

use crate::{file, policy};

fn all(parts: &[File; 5], options: &Options<'_>) -> Vec<Inspection> {
    let [a, b, c, d, e] = parts;
    let (certificates, roots, crls) = (std::slice::from_ref(b), std::slice::from_ref(c), std::slice::from_ref(d));
    let some = Authorities { certificates, roots: &[], crls };
    let every = Authorities { certificates, roots, crls };
    let endorsements = std::slice::from_ref(e);
    let mut out = Vec::new();
    for authorities in [Authorities::default(), some, every] {
        out.push(snp(&Snp { report: a, authorities }, options));
        out.push(dcap(&Dcap { quote: a, endorsements, authorities, eventlog: None }, options));
        out.push(dcap(&Dcap { quote: a, endorsements: &[], authorities, eventlog: Some(e) }, options));
        out.push(tpm_ek(&TpmEk { certificates: endorsements, authorities }, options));
        let rims = std::slice::from_ref(d);
        out.push(nvidia(&Nvidia { evidence: a, rims, nonce: Some(&[0; 32]), authorities, rim_roots: roots }, options));
    }
    for pcrs in [None, Some(b)] {
        out.push(eventlog(&Eventlog { log: a, pcrs }, options));
        out.push(ima(&Ima { log: a, pcrs }, options));
        let (eventlog, ima) = (Some(d), Some(e));
        out.push(tpm(&Tpm { quote: a, signature: c, ak: e, nonce: &[1], pcrs, eventlog, ima }, options));
    }
    out
}

/// Bytes, some of which begin as something real does.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let begun = |head: &'static [u8]| {
        proptest::collection::vec(any::<u8>(), 0..200).prop_map(move |tail| [head, &tail[..]].concat())
    };
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..2_000),
        begun(&[0x30, 0x82]),
        begun(&[0xff, 0x54, 0x43, 0x47, 0x80, 0x18]),
        begun(&[3, 0, 0, 0]),
        begun(&[4, 0, 2, 0, 0x81, 0, 0, 0]),
        begun(b"{\"tcbInfo\":{}"),
        begun(b"-----BEGIN CERTIFICATE-----\nMII"),
        proptest::collection::vec(any::<u8>(), 1184..=1184),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn random_files_never_panic_and_never_verify(parts in [bytes(), bytes(), bytes(), bytes(), bytes()], now_s: u64) {
        let names = ["a", "b", "c", "d", "e"];
        let mut given = parts.into_iter().zip(names).map(|(bytes, name)| file(name, bytes));
        let parts: [File; 5] = std::array::from_fn(|_| given.next().unwrap());
        let strict = policy("[snp]\n[dcap]\n[tpm]\n[tpm_ek]\n[eventlog]\n[ima]\n[nvidia]\n");
        for options in [Options { now_s, policy: None }, Options { now_s, policy: Some(&strict) }] {
            for inspection in all(&parts, &options) {
                prop_assert_ne!(inspection.verdict(), Verdict::Verified);
                prop_assert_eq!(inspection.claims(), &serde_json::json!({}));
                prop_assert!(inspection.to_json()["verdict"] != "verified");
            }
        }
    }

    #[test]
    fn random_options_never_panic(text in ".{0,80}", bytes in bytes()) {
        let _ = (parse_time(&text), parse_nonce(&text));
        let _ = (PolicyFile::parse(&file("p", text)), PolicyFile::parse(&file("p", bytes)));
    }
}
