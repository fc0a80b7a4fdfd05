//! No bit and no length of evidence is free: every flip and every truncation is refused, and random damage never panics.
//! The verifier here accepts any key and any posture, so that only signatures and encoding stand in the way.

use proptest::prelude::*;
use starminer_verify::software_tee::REPORT_LEN;
use starminer_verify::{
    Evidence, EvidenceBuilder, EvidenceKind, PathStep, Policy, ReferenceValue, ReferenceValues, Refusal, Side, fuzz,
};

use crate::fixture::{Node, Random, Verifier};

#[test]
fn every_bit_of_a_report_counts() {
    let node = Node::admission();
    let verifier = Verifier::of(&node);
    let report = node.report();
    assert_eq!(report.len(), REPORT_LEN);
    for bit in 0..report.len() * 8 {
        let mut flipped = report.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(verifier.verify(&node.evidence_with(flipped)).is_err(), "bit {bit}");
    }
}

#[test]
fn every_bit_of_evidence_counts() {
    let mut node = Node::admission();
    node.batch_mates = vec![starminer_verify::Digest::of(b"mate")];
    let verifier = Verifier::of(&node);
    let evidence = node.evidence();
    verifier.verify(&evidence).unwrap();
    for bit in 0..evidence.len() * 8 {
        let mut flipped = evidence.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(verifier.verify(&flipped).is_err(), "bit {bit}");
    }
}

#[test]
fn every_truncation_and_extension_is_refused() {
    let node = Node::task();
    let verifier = Verifier::of(&node);
    let evidence = node.evidence();
    for length in 0..evidence.len() {
        assert!(verifier.verify(&evidence[..length]).is_err(), "length {length}");
    }
    for byte in 0..=u8::MAX {
        let longer = [evidence.as_slice(), &[byte]].concat();
        assert!(verifier.verify(&longer).is_err(), "byte {byte}");
    }
    let report = node.report();
    for length in 1..report.len() {
        assert!(verifier.verify(&node.evidence_with(report[..length].to_vec())).is_err());
    }
}

/// Changes a few bytes, cuts, repeats or inserts: the shapes in which parsers go wrong.
fn damage(random: &mut Random, bytes: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(out.len().max(1));
        match random.below(6) {
            0 => out.truncate(at),
            1 if !out.is_empty() => out[at] = random.next().to_be_bytes()[0],
            2 if !out.is_empty() => out[at] ^= 1 << random.below(8),
            3 => {
                let end = (at + random.below(64)).min(out.len());
                let piece = out[at.min(end)..end].to_vec();
                out.splice(at.min(out.len())..at.min(out.len()), piece);
            }
            4 => {
                let end = (at + random.below(64)).min(out.len());
                out.drain(at.min(end)..end);
            }
            _ => {
                let token: &[u8] =
                    [b"null".as_slice(), b"\"", b"{", b"[", b"9999999999999999999999", b"-0", b"\\u0000"]
                        [random.below(7)];
                out.splice(at.min(out.len())..at.min(out.len()), token.iter().copied());
            }
        }
    }
    out
}

#[test]
fn damage_is_refused_without_a_panic() {
    let node = Node::task();
    let verifier = Verifier::of(&node);
    let evidence = node.evidence();
    let policy = verifier.policy.to_json();
    let values = verifier.reference_values.to_json();
    let refusal = serde_json::to_vec(&Refusal::new(starminer_verify::Party::Node, "a.b", "why", "what")).unwrap();
    let mut random = Random(7);
    for _ in 0..20_000 {
        let damaged = damage(&mut random, &evidence);
        if damaged != evidence {
            assert!(verifier.verify(&damaged).is_err());
        }
        fuzz::evidence(&damaged);
        fuzz::software_tee_report(&damage(&mut random, &node.report()));
        fuzz::policy(&damage(&mut random, &policy));
        fuzz::reference_values(&damage(&mut random, &values));
        fuzz::posture(&damage(&mut random, &node.posture.to_json()));
        fuzz::refusal(&damage(&mut random, &refusal));
    }
    // The undamaged ones pass through the same functions.
    fuzz::evidence(&evidence);
    fuzz::software_tee_report(&node.report());
    fuzz::policy(&policy);
    fuzz::reference_values(&values);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    /// What an attester encodes, a verifier reads, and it is the only encoding.
    #[test]
    fn what_is_built_is_read(
        seed in any::<[u8; 32]>(),
        steps in prop::collection::vec((any::<bool>(), any::<[u8; 32]>()), 0..=16),
        report in prop::collection::vec(any::<u8>(), 1..2000),
        purpose in 0..4usize,
    ) {
        let mut node = Node::for_purpose(starminer_verify::Purpose::ALL[purpose]);
        node.binding.challenge = starminer_verify::Challenge(seed);
        let path: Vec<PathStep> = steps
            .into_iter()
            .map(|(left, sibling)| PathStep {
                side: if left { Side::Left } else { Side::Right },
                sibling: starminer_verify::Digest(sibling),
            })
            .collect();
        let bytes = EvidenceBuilder::new(node.binding.clone(), path, node.posture.clone())
            .part(EvidenceKind::SoftwareTee, report)
            .encode()
            .unwrap();
        let evidence = Evidence::parse(&bytes).unwrap();
        prop_assert_eq!(evidence.size_bytes(), bytes.len());
        prop_assert_eq!(evidence.digest(), starminer_verify::Digest::of(&bytes));
    }

    #[test]
    fn reference_values_have_one_form(digests in prop::collection::btree_set(any::<[u8; 32]>(), 0..50)) {
        let mut values: Vec<ReferenceValue> = digests
            .into_iter()
            .map(|d| ReferenceValue {
                kind: EvidenceKind::SoftwareTee,
                measurement: starminer_verify::Digest(d).into(),
                name: "agent".into(),
            })
            .collect();
        let one = ReferenceValues::new(values.clone()).unwrap();
        values.reverse();
        let other = ReferenceValues::new(values.clone()).unwrap();
        prop_assert_eq!(one.digest(), other.digest());
        for value in &values {
            prop_assert_eq!(one.find(value.kind, value.measurement.as_bytes()), Some(value));
        }
        prop_assert_eq!(&ReferenceValues::parse(&one.to_json()).unwrap(), &one);
        prop_assert!(Policy::parse(&one.to_json()).is_err());
    }
}
