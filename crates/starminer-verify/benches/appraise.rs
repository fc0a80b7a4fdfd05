//! Parse, verify and appraise evidence of a software TEE, as a ratio to the two raw Ed25519 verifications in it, measured in
//! the same run. Prints one line of JSON at the end for whoever keeps the numbers.

#![allow(clippy::unwrap_used)]

#[path = "../tests/spine/fixture.rs"]
#[allow(dead_code)] // the tests use more of it
mod fixture;

use std::hint::black_box;
use std::time::Instant;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use starminer_verify::{Context, Decision, Digest, Endorsements, Enrolments, Evidence, appraise, verify};

use fixture::{Key, NOW, Node, Verifier};

const ROUNDS: usize = 40;
const CALLS_PER_ROUND: usize = 50;

/// Median nanoseconds a call, over rounds that alternate with those of the other measurements.
fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

fn time(mut call: impl FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..CALLS_PER_ROUND {
        call();
    }
    start.elapsed().as_nanos() as f64 / CALLS_PER_ROUND as f64
}

fn main() {
    let node = Node::task();
    let verifier = Verifier::of(&node);
    let bytes = node.evidence();
    let endorsements = Endorsements::none();
    let context = Context {
        expected: verifier.expected.clone(),
        endorsements: &endorsements,
        trust_anchors: &verifier.anchors,
        enrolments: &Enrolments::none(),
        now: NOW,
    };
    let key = Key::new(9);
    let message = Digest([3; 32]);
    let signature = key.sign(&message);
    let public = key.public();

    let raw = || {
        let key = UnparsedPublicKey::new(&ED25519, black_box(public.as_bytes()));
        key.verify(message.as_bytes(), &signature).unwrap();
        key.verify(message.as_bytes(), &signature).unwrap();
    };
    let parse = || {
        black_box(Evidence::parse(black_box(&bytes)).unwrap());
    };
    let whole = || {
        let verified = verify(Evidence::parse(black_box(&bytes)).unwrap(), &context).unwrap();
        let result = appraise(&verified, &verifier.reference_values, &verifier.policy);
        assert_eq!(black_box(result).decision(), Decision::Meets);
    };

    let (mut raws, mut parses, mut wholes) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        raws.push(time(raw));
        parses.push(time(parse));
        wholes.push(time(whole));
    }
    let (raw, parse, whole) = (median(raws), median(parses), median(wholes));
    println!("two raw Ed25519 verifications     {:9.1} µs", raw / 1000.0);
    println!("parse                             {:9.1} µs   {:.2} x", parse / 1000.0, parse / raw);
    println!("parse + verify + appraise         {:9.1} µs   {:.2} x", whole / 1000.0, whole / raw);
    println!(
        r#"{{"bench":"evidence-appraise","evidence_bytes":{},"raw_ns":{raw:.0},"parse_ns":{parse:.0},"whole_ns":{whole:.0},"ratio":{:.3}}}"#,
        bytes.len(),
        whole / raw
    );
}
