//! Real evidence and real manifests with one bit changed, cut off at every length, or longer than they are: all of it is refused.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use data_encoding::BASE64;
use proptest::prelude::*;
use starminer_hardware::Verdict;
use starminer_hardware::cert::Certificate;
use starminer_hardware::nvidia::{Evidence, Rim};

use super::support::{NOW_S, accepted, data, json, rim_refusal, second_hopper, vectors, verify_genuine};

/// Why evidence is refused: the code of the parser, or the first check that failed.
fn refusal(json: &[u8]) -> Option<String> {
    let verification = match verify_genuine(json, &[], NOW_S) {
        Ok(verification) => verification,
        Err(error) => return Some(error.code().to_owned()),
    };
    if verification.verified.is_some() {
        return None;
    }
    let failed = verification.checks.as_slice().iter().find(|check| check.verdict == Verdict::Fail);
    Some(failed.expect("what is refused says why").name.to_string())
}

/// Calls this for every number below the end, on all cores.
fn each(end: usize, call: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= end {
                        break;
                    }
                    call(at);
                }
            });
        }
    });
}

/// Whether this bit is flipped: each one where the compiler optimises, and else one of each byte, since hundreds of thousands of parses take their time.
fn is_flipped(bit: usize) -> bool {
    !cfg!(debug_assertions) || bit % 8 == (bit / 8) % 8
}

fn flipped(bytes: &[u8], bit: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[bit / 8] ^= 1 << (bit % 8);
    bytes
}

/// Where the parts of the report begin, and what refuses a change there.
const REGIONS: [(usize, &str, &[&str]); 7] = [
    (0, "request header", &["evidence-report"]),
    (4, "request nonce", &["nvidia.report-signature"]),
    (36, "slot, response header and lengths", &["evidence-report"]),
    (45, "measurements", &["evidence-report", "nvidia.report-signature"]),
    (45 + 64 * 55, "response nonce", &["nvidia.report-signature"]),
    (
        45 + 64 * 55 + 32,
        "opaque data",
        &[
            "evidence-report",
            "evidence-opaque-data",
            "evidence-too-large",
            "nvidia.architecture",
            "nvidia.fwid",
            "nvidia.report-signature",
        ],
    ),
    (usize::MAX, "signature", &["nvidia.report-signature"]),
];

#[test]
fn every_bit_of_a_report_counts() {
    let (chain, report) = second_hopper();
    assert_eq!(refusal(&serde_json::to_vec(&json("HOPPER", &chain, &report)).unwrap()), None);
    let signature = report.len() - 96;
    each(report.len() * 8, |bit| {
        if !is_flipped(bit) {
            return;
        }
        // The nonce of the JSON goes with the request's, so that only the signature is left to notice.
        let refused = refusal(&serde_json::to_vec(&json("HOPPER", &chain, &flipped(&report, bit))).unwrap());
        let region = REGIONS.iter().rev().find(|(start, ..)| (*start).min(signature) <= bit / 8).unwrap();
        let refused = refused.unwrap_or_else(|| panic!("bit {bit} ({}) is not noticed", region.1));
        assert!(region.2.contains(&refused.as_str()), "bit {bit} ({}): {refused}", region.1);
    });
}

#[test]
fn every_byte_of_a_certificate_counts() {
    let (chain, report) = second_hopper();
    let certificates: Vec<Vec<u8>> =
        Certificate::read(&chain).unwrap().iter().map(|certificate| certificate.der().to_vec()).collect();
    let bits: Vec<(usize, usize)> = certificates
        .iter()
        .enumerate()
        .flat_map(|(at, der)| (0..der.len()).map(move |byte| (at, byte * 8 + byte % 8)))
        .collect();
    each(bits.len(), |index| {
        let (at, bit) = bits[index];
        let pem: String = certificates
            .iter()
            .enumerate()
            .map(|(other, der)| {
                let der = if other == at { flipped(der, bit) } else { der.clone() };
                format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", BASE64.encode(&der))
            })
            .collect();
        let refused = refusal(&serde_json::to_vec(&json("HOPPER", pem.as_bytes(), &report)).unwrap());
        let expected = [
            "evidence-certificates",
            "nvidia.architecture",
            "nvidia.certificate-chain",
            "nvidia.report-signature",
            "nvidia.device-key",
            "nvidia.fwid",
        ];
        let refused = refused.unwrap_or_else(|| panic!("certificate {at}, bit {bit} is not noticed"));
        assert!(expected.contains(&refused.as_str()), "certificate {at}, bit {bit}: {refused}");
    });
}

#[test]
fn every_byte_of_the_json_counts() {
    let Some(folder) = vectors() else { return };
    let bytes = std::fs::read(folder.join("hopper_evidence.json")).unwrap();
    let claims = accepted(&bytes).expect("it is genuine");
    let tolerated = AtomicUsize::new(0);
    each(bytes.len(), |at| {
        if let Some(changed) = accepted(&flipped(&bytes, at * 8 + at % 8)) {
            // The case of hexadecimal digits in the nonce, and blanks behind PEM's boundaries: nothing that says anything.
            assert_eq!(changed, claims, "byte {at}");
            tolerated.fetch_add(1, Ordering::Relaxed);
        }
    });
    assert!(tolerated.into_inner() < 32);
}

#[test]
fn every_bit_of_a_manifest_counts() {
    let rim = data("vbios_96.00.74.00.1C.swidtag");
    assert_eq!(rim_refusal(&rim, NOW_S), None);
    let codes = std::sync::Mutex::new(BTreeMap::<String, usize>::new());
    each(rim.len() * 8, |bit| {
        // Of the long rows of zeros one bit in each byte is enough.
        if !is_flipped(bit) || (rim[bit / 8] == b'0' && bit % 8 != (bit / 8) % 8) {
            return;
        }
        let changed = flipped(&rim, bit);
        let refused = rim_refusal(&changed, NOW_S);
        let refused = refused.unwrap_or_else(|| panic!("bit {} of byte {} is not noticed", bit % 8, bit / 8));
        *codes.lock().unwrap().entry(refused).or_default() += 1;
    });
    // Parser, digest, chain and signature: each refuses what only it can see.
    let codes = codes.into_inner().unwrap();
    for code in [
        "rim-malformed",
        "rim-outside-subset",
        "rim-shape",
        "rim-certificate",
        "nvidia.rim-digest",
        "nvidia.rim-chain",
        "nvidia.rim-signature",
    ] {
        assert!(codes.contains_key(code), "{code} is not among {codes:?}");
    }
}

#[test]
fn nothing_may_be_missing_or_follow() {
    let (chain, report) = second_hopper();
    each(report.len(), |len| {
        let cut = refusal(&serde_json::to_vec(&json("HOPPER", &chain, &report[..len])).unwrap());
        assert!(cut.is_some_and(|code| code.starts_with("evidence-")), "{len} bytes of the report");
    });
    let longer = [report.as_slice(), &[0]].concat();
    assert_eq!(
        refusal(&serde_json::to_vec(&json("HOPPER", &chain, &longer)).unwrap()).as_deref(),
        Some("evidence-report")
    );

    let text = serde_json::to_vec(&json("HOPPER", &chain, &report)).unwrap();
    each(text.len(), |len| assert!(Evidence::parse(&text[..len]).is_err(), "{len} bytes of the JSON"));
    assert!(Evidence::parse(&[text.as_slice(), b"x"].concat()).is_err());

    let rim = data("vbios_96.00.74.00.1C.swidtag");
    // The line break at the end of the file is no part of it.
    let end = rim.trim_ascii_end().len();
    each(end, |len| assert!(Rim::parse(&rim[..len]).is_err(), "{len} bytes of the manifest"));
    for tail in ["x", "<a/>", "<!-- -->", "&#32;"] {
        assert!(Rim::parse(&[rim.as_slice(), tail.as_bytes()].concat()).is_err(), "{tail}");
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let (chain, report) = second_hopper();
        let _ = Evidence::parse(&bytes);
        let _ = Rim::parse(&bytes);
        let mut changed = report.clone();
        let end = bytes.len().min(changed.len());
        changed[..end].copy_from_slice(&bytes[..end]);
        let _ = refusal(&serde_json::to_vec(&json("HOPPER", &chain, &changed)).unwrap());
        let _ = refusal(&serde_json::to_vec(&json("HOPPER", &bytes, &report)).unwrap());
    }

    #[test]
    fn no_mutation_panics_or_passes(
        places in proptest::collection::vec((any::<prop::sample::Index>(), 1_u8..), 1..6),
        cut in any::<prop::sample::Index>(),
        drop_bytes in 0_usize..8,
    ) {
        let mutate = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            for (at, mask) in &places {
                let at = at.index(bytes.len());
                bytes[at] ^= mask;
            }
            let at = cut.index(bytes.len());
            bytes.drain(at..bytes.len().min(at + drop_bytes));
            bytes
        };
        let (chain, report) = second_hopper();
        let changed = mutate(&report);
        if changed != report {
            prop_assert!(refusal(&serde_json::to_vec(&json("HOPPER", &chain, &changed)).unwrap()).is_some());
        }
        let text = serde_json::to_vec(&json("HOPPER", &chain, &report)).unwrap();
        let claims = accepted(&text);
        if let Some(changed) = accepted(&mutate(&text)) {
            prop_assert_eq!(Some(changed), claims);
        }
        let rim = data("vbios_96.00.74.00.1C.swidtag");
        let changed = mutate(&rim);
        if changed.trim_ascii() != rim.trim_ascii() {
            prop_assert!(rim_refusal(&changed, NOW_S).is_some());
        }
    }
}
