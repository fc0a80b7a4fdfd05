//! The receipts of `vectors/receipt/`, which a real network made: their claims are as written down, and no damaged byte is proven.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use starminer_receipt::{
    NetworkTrust, Outcome, Overall, Receipt, ReceiptVerdict, VerifiedEnvelopes, verify_receipt,
    verify_receipt_remembering,
};
use starminer_verify::UnixTime;

fn read(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/receipt").join(name)).unwrap()
}

fn trust() -> NetworkTrust {
    NetworkTrust::parse(&String::from_utf8(read("network.toml")).unwrap()).unwrap()
}

fn expected() -> (UnixTime, Vec<Value>) {
    let expected: Value = serde_json::from_slice(&read("expected.json")).unwrap();
    (UnixTime(expected["now_ms"].as_u64().unwrap()), expected["receipts"].as_array().unwrap().clone())
}

fn found(verdict: &ReceiptVerdict) -> Value {
    let claims: Vec<Value> = verdict.claims.iter().map(|claim| json!([claim.name, claim.verdict.name()])).collect();
    json!({ "overall": verdict.overall().name(), "claims": claims })
}

#[test]
fn every_claim_is_as_written_down() {
    let (now, receipts) = expected();
    for case in receipts {
        let bytes = read(case["file"].as_str().unwrap());
        let receipt = Receipt::parse(&bytes).unwrap();
        assert_eq!(receipt.encode(), bytes, "the file is in the form that is written");
        let verdict = verify_receipt(&receipt, Some(&trust()), now);
        assert_eq!(found(&verdict), case["trusted"]);
        assert!(verdict.is_simulated());
        let outcome = match verdict.outcome.as_ref().unwrap() {
            Outcome::Completed => "completed",
            Outcome::Failed { .. } => "failed",
        };
        assert_eq!(outcome, case["outcome"]);
        assert_eq!(verdict.tier.unwrap().to_string(), case["tier"]);
        assert_eq!(verdict.spec.unwrap().to_string(), case["spec"]);
        assert_eq!(verdict.log_time.unwrap().as_millis(), case["log_time_ms"]);
        assert_eq!(found(&verify_receipt(&receipt, None, now)), case["untrusted"]);
    }
}

/// Every byte of the file, one bit of it flipped: no receipt, or not proven.
#[test]
fn no_byte_can_change() {
    let (now, _) = expected();
    let (bytes, trust) = (read("completed.receipt"), trust());
    // Whoever has verified the whole file remembers its signatures, and is fooled no more by an altered one.
    let mut memory = VerifiedEnvelopes::default();
    for _ in 0..2 {
        let receipt = Receipt::parse(&bytes).unwrap();
        let verdict = verify_receipt_remembering(&receipt, Some(&trust), now, &mut memory);
        assert_eq!(verdict.overall(), Overall::Proven);
    }
    let next = AtomicUsize::new(0);
    let parsed = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut flipped = bytes.clone();
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= bytes.len() {
                        break;
                    }
                    // Each bit has its turn, so that letters, digits and separators all become others of their kind somewhere.
                    let bit = 1 << (at % 7);
                    flipped[at] ^= bit;
                    if let Ok(receipt) = Receipt::parse(&flipped) {
                        parsed.fetch_add(1, Ordering::Relaxed);
                        let overall = verify_receipt(&receipt, Some(&trust), now).overall();
                        assert_ne!(overall, Overall::Proven, "byte {at}, bit mask {bit:#x}");
                        let mut memory = memory.clone();
                        let remembering = verify_receipt_remembering(&receipt, Some(&trust), now, &mut memory);
                        assert_eq!(remembering.overall(), overall, "byte {at}, bit mask {bit:#x}, remembering");
                    }
                    flipped[at] ^= bit;
                }
            });
        }
    });
    assert!(parsed.into_inner() > bytes.len() / 2, "most damaged files must get as far as verification");
}
