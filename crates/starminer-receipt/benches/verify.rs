//! Offline verification of a real receipt (`vectors/receipt/completed.receipt`), from the file's bytes to the verdict, as a ratio to
//! the raw Ed25519 verifications that it cannot do without, measured in the same run. Prints one line of JSON at the end for
//! whoever keeps the numbers.

#![allow(clippy::unwrap_used)]

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use starminer_receipt::{
    Envelope, NetworkTrust, Overall, Receipt, Signer as _, SigningKey, verify_ed25519, verify_receipt,
};
use starminer_verify::UnixTime;
use zeroize::Zeroizing;

const ROUNDS: usize = 60;
const CALLS_PER_ROUND: usize = 10;

fn read(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/receipt").join(name)).unwrap()
}

/// Signatures that have to be verified: one an envelope, two a piece of evidence (certificate, report), one of the checkpoint.
fn signatures(receipt: &Receipt) -> usize {
    let envelopes: [&Option<Envelope>; 8] = [
        &receipt.lease,
        &receipt.challenge,
        &receipt.release,
        &receipt.grant,
        &receipt.denial,
        &receipt.cancel,
        &receipt.report,
        &receipt.agent_statement,
    ];
    let envelopes = 1 + envelopes.iter().filter(|envelope| envelope.is_some()).count();
    envelopes + 2 * usize::from(receipt.evidence.is_some()) + 2 * usize::from(receipt.closing_evidence.is_some()) + 1
}

fn time(mut call: impl FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..CALLS_PER_ROUND {
        call();
    }
    start.elapsed().as_nanos() as f64 / CALLS_PER_ROUND as f64
}

fn at(samples: &mut [f64], part: f64) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[((samples.len() - 1) as f64 * part) as usize]
}

fn main() {
    let bytes = read("completed.receipt");
    let trust = NetworkTrust::parse(&String::from_utf8(read("network.toml")).unwrap()).unwrap();
    let expected: serde_json::Value = serde_json::from_slice(&read("expected.json")).unwrap();
    let now = UnixTime(expected["now_ms"].as_u64().unwrap());
    let count = signatures(&Receipt::parse(&bytes).unwrap());
    let signer = SigningKey::from_seed(&Zeroizing::new([7; 32]));
    let (key, message) = (signer.public_key(), [3; 32]);
    let signature = signer.sign(&message);

    let raw = || {
        for _ in 0..count {
            assert!(verify_ed25519(black_box(&key), &message, &signature));
        }
    };
    let parse = || {
        black_box(Receipt::parse(black_box(&bytes)).unwrap());
    };
    let whole = || {
        let receipt = Receipt::parse(black_box(&bytes)).unwrap();
        assert_eq!(verify_receipt(&receipt, Some(&trust), now).overall(), Overall::Proven);
    };
    let (mut raws, mut parses, mut wholes) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        raws.push(time(raw));
        parses.push(time(parse));
        wholes.push(time(whole));
    }
    let (raw, parse, slow) = (at(&mut raws, 0.5), at(&mut parses, 0.5), at(&mut wholes, 0.99));
    let whole = at(&mut wholes, 0.5);
    println!("{count} raw Ed25519 verifications   {:9.1} µs", raw / 1000.0);
    println!("parse                          {:9.1} µs   {:.2} x", parse / 1000.0, parse / raw);
    println!("parse + verify, p50            {:9.1} µs   {:.2} x   (goal: 5000 µs)", whole / 1000.0, whole / raw);
    println!("parse + verify, p99            {:9.1} µs", slow / 1000.0);
    println!(
        r#"{{"bench":"receipt-verify","receipt_bytes":{},"signatures":{count},"raw_ns":{raw:.0},"parse_ns":{parse:.0},"whole_ns":{whole:.0},"p99_ns":{slow:.0},"ratio":{:.3}}}"#,
        bytes.len(),
        whole / raw
    );
}
