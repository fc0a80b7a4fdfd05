//! Real quotes and endorsements with bits flipped, bytes missing or added, and random bytes: refused, with the right check, and never a panic.

use proptest::prelude::*;
use starminer_hardware::Verdict;
use starminer_hardware::dcap::{Endorsements, MAX_QUOTE_LEN, Quote, Warm, roots, verify, verify_warm};

use crate::samples::{Sample, find, list};

/// Where the parts of a quote stand, and which checks may fail when a bit of them is flipped. Parsing may fail anywhere.
fn regions(quote: &[u8], len: usize) -> Vec<(usize, &'static [&'static str])> {
    let version = u16::from_le_bytes([quote[0], quote[1]]);
    let body = match (version, quote[4]) {
        (5, _) => 6 + u32::from_le_bytes(quote[50..54].try_into().unwrap()) as usize,
        (_, 0) => 384,
        _ => 584,
    };
    let signature = 48 + body + 4;
    let key = signature + 64;
    let qe_report = key + 64 + if version > 3 { 6 } else { 0 };
    let qe_signature = qe_report + 384;
    let auth_len = qe_signature + 64;
    let auth_end = auth_len + 2 + usize::from(u16::from_le_bytes(quote[auth_len..auth_len + 2].try_into().unwrap()));
    vec![
        (signature - 4, &["dcap.quote-signature"]),
        (signature, &[]),
        (key, &["dcap.quote-signature"]),
        (key + 64, &["dcap.attestation-key"]),
        (qe_report, &[]),
        (qe_signature, &["dcap.qe-report-signature"]),
        (auth_len, &["dcap.qe-report-signature"]),
        (auth_len + 2, &[]),
        (auth_end, &["dcap.attestation-key"]),
        // Certification data's type: of another type there is no chain.
        (auth_end + 2, &["dcap.pck-chain"]),
        (auth_end + 6, &[]),
        (len, &["dcap.pck-chain"]),
    ]
}

/// Without optimisation one bit in seven is flipped, which meets every byte and every place in a byte.
const STEP: usize = if cfg!(debug_assertions) { 7 } else { 1 };

/// How much of the certificates in a quote is altered: they are read and verified alike in quotes of every version.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Certificates {
    EveryBit,
    SomeBits,
}

fn every_bit_counts(name: &str, certificates: Certificates) {
    let Some(sample) = Sample::read(name) else { return };
    let warm = Warm::new(sample.endorsements(), roots(), sample.now_s);
    let len = Quote::parse(&sample.quote).unwrap().len();
    let regions = regions(&sample.quote, len);
    assert_eq!(sample.quote[..len].len(), regions.last().unwrap().0);
    let accepted = verify_warm(&Quote::parse(&sample.quote[..len]).unwrap(), &warm, sample.now_s);
    assert!(accepted.verified.is_some() || name == "tdx_quote_outdated", "{}", list(&accepted.checks));
    let chain = regions[regions.len() - 2].0;
    let check = |bit: usize| {
        if certificates == Certificates::SomeBits && bit / 8 >= chain && !bit.is_multiple_of(7) {
            return;
        }
        let mut quote = sample.quote[..len].to_vec();
        quote[bit / 8] ^= 1 << (bit % 8);
        let Ok(parsed) = Quote::parse(&quote) else { return };
        let verification = verify_warm(&parsed, &warm, sample.now_s);
        assert!(verification.verified.is_none(), "{name}: bit {bit} flipped is accepted");
        let (_, names) = regions.iter().find(|(end, _)| bit / 8 < *end).unwrap();
        assert!(
            names.iter().any(|name| find(&verification.checks, name).0 == Verdict::Fail),
            "{name}, bit {bit}: {names:?} do not fail\n{}",
            list(&verification.checks)
        );
    };
    std::thread::scope(|scope| {
        for half in 0..2 {
            scope.spawn(move || (half * STEP..len * 8).step_by(2 * STEP).for_each(check));
        }
    });
}

#[test]
fn every_bit_of_an_sgx_quote_counts() {
    every_bit_counts("sgx_quote", Certificates::EveryBit);
}

#[test]
fn every_bit_of_a_tdx_quote_of_version_4_counts() {
    every_bit_counts("tdx_quote", Certificates::EveryBit);
}

#[test]
fn every_bit_of_a_tdx_quote_of_version_5_counts() {
    every_bit_counts("tdx_quote_td15ex", Certificates::SomeBits);
}

#[test]
fn every_bit_of_a_quote_with_a_td_15_body_counts() {
    every_bit_counts("tdx_quote_outdated", Certificates::SomeBits);
}

#[test]
fn every_shorter_quote_is_refused() {
    for name in ["sgx_quote", "tdx_quote", "tdx_quote_td15ex", "tdx_quote_outdated"] {
        let Some(sample) = Sample::read(name) else { continue };
        let len = Quote::parse(&sample.quote).unwrap().len();
        for shorter in 0..len {
            let error = Quote::parse(&sample.quote[..shorter]).expect_err("it is not whole");
            assert_eq!(error.code(), "dcap.truncated", "{name} cut to {shorter}");
        }
    }
}

/// A flipped bit of the endorsements refuses, unless it says the same: the case of hexadecimal, or a member that nobody needs.
#[test]
fn endorsements_cannot_be_altered() {
    for name in ["sgx_quote", "tdx_quote_td15ex"] {
        let Some(sample) = Sample::read(name) else { continue };
        let quote = Quote::parse(&sample.quote).unwrap();
        let claims = |endorsements: &Endorsements| {
            verify(&quote, endorsements, &roots(), sample.now_s).verified.map(|verified| {
                let mut claims = verified.claims().to_json();
                claims["endorsements"]["sha256"] = serde_json::Value::Null;
                claims
            })
        };
        let original = claims(&sample.endorsements()).expect("accepted");
        let mut same = 0;
        for at in (0..sample.json.len()).step_by(STEP) {
            let mut json = sample.json.clone();
            json[at] ^= 1 << (at % 8);
            let Ok(endorsements) = Endorsements::parse(&json) else { continue };
            let Some(altered) = claims(&endorsements) else { continue };
            assert_eq!(altered, original, "{name}: byte {at} says something else");
            same += 1;
        }
        println!("{name}: {same} alterations say the same");
    }
}

#[test]
fn absurd_counts_are_refused() {
    let Some(sample) = Sample::read("sgx_quote") else { return };
    let alter = |at: usize, bytes: &[u8]| {
        let mut quote = sample.quote.clone();
        quote[at..at + bytes.len()].copy_from_slice(bytes);
        Quote::parse(&quote).expect_err("absurd").code()
    };
    assert_eq!(alter(432, &[0xff; 4]), "dcap.length");
    assert_eq!(alter(432, &u32::MAX.to_le_bytes()), "dcap.length");
    assert_eq!(alter(436 + 128 + 384 + 64, &[0xff; 2]), "dcap.length");
    assert_eq!(alter(436 + 128 + 384 + 64 + 2 + 32 + 2, &[0xff; 4]), "dcap.length");
    for bytes in [vec![0; MAX_QUOTE_LEN + 1], vec![0; 20_000], vec![0xff; 20_000], Vec::new()] {
        assert!(Quote::parse(&bytes).is_err());
    }
}

/// The longest chain that certification data can hold is refused before any signature is looked at.
#[test]
fn a_chain_of_many_certificates_is_refused() {
    let Some(sample) = Sample::read("sgx_quote") else { return };
    let start = sample.quote.windows(5).position(|window| window == b"-----").unwrap();
    let chain = sample.quote[start..].strip_suffix(&[0]).unwrap().repeat(4);
    let mut quote = sample.quote[..start].to_vec();
    quote[start - 4..].copy_from_slice(&u32::try_from(chain.len()).unwrap().to_le_bytes());
    quote.extend(&chain);
    let len = u32::try_from(quote.len() - 436).unwrap();
    quote[432..436].copy_from_slice(&len.to_le_bytes());
    let verification = sample.verify_quote(&quote);
    let (verdict, reason) = find(&verification.checks, "dcap.pck-chain");
    assert!(verdict == Verdict::Fail && reason.contains("more than three"), "{reason}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..6000), header in any::<bool>()) {
        let mut bytes = bytes;
        if header && bytes.len() > 28 {
            bytes[..8].copy_from_slice(&[4, 0, 2, 0, 0x81, 0, 0, 0]);
            bytes[12..28].copy_from_slice(&[0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07]);
        }
        if let Ok(quote) = Quote::parse(&bytes) {
            prop_assert!(verify(&quote, &Endorsements::none(), &roots(), 1_700_000_000).verified.is_none());
        }
        let _ = Endorsements::parse(&bytes);
    }

    #[test]
    fn mutated_quotes_never_panic(which in 0usize..4, edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let name = ["sgx_quote", "tdx_quote", "tdx_quote_td15ex", "tdx_quote_outdated"][which];
        let Some(sample) = Sample::read(name) else { return Ok(()) };
        let len = Quote::parse(&sample.quote).unwrap().len();
        let mut bytes = sample.quote[..len].to_vec();
        for (at, value) in edits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if bytes != sample.quote[..len] && let Ok(quote) = Quote::parse(&bytes) {
            prop_assert!(verify(&quote, &sample.endorsements(), &roots(), sample.now_s).verified.is_none());
        }
    }

    #[test]
    fn mutated_endorsements_never_panic(edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let Some(sample) = Sample::read("tdx_quote") else { return Ok(()) };
        let mut json = sample.json.clone();
        for (at, value) in edits {
            let at = at.index(json.len());
            json[at] = value;
        }
        if let Ok(endorsements) = Endorsements::parse(&json) {
            let _ = verify(&Quote::parse(&sample.quote).unwrap(), &endorsements, &roots(), sample.now_s);
        }
    }
}
