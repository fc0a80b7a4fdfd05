//! Notes, keys and memory through the public API: every flipped bit, wrong parties, and what a witness will sign.

use starminer_log::*;

use crate::world::{ORIGIN, build, checkpoint_of, entries, log_signer, name, sign, witness_signer};

#[test]
fn every_flipped_bit_of_a_note_is_refused() {
    let key = log_signer().key();
    let witnesses = [witness_signer(1).key(), witness_signer(2).key()];
    let mut remembered = Remembered::first(checkpoint_of(&entries(8)));
    for number in [1, 2] {
        let line = witness_signer(number).cosign(&remembered, 1_700_000_000).unwrap();
        let cosigned = remembered.checkpoint().with_cosignatures(line.as_bytes(), &witnesses).unwrap();
        remembered = Remembered::first(cosigned);
    }
    let note = remembered.as_bytes().to_vec();
    let accepted = |bytes: &[u8]| {
        let checkpoint = SignedCheckpoint::parse(bytes).ok()?.verify(&key).ok()?;
        checkpoint.verify_witnesses(&witnesses, 2).ok()
    };
    assert_eq!(accepted(&note).unwrap().len(), 2);
    for bit in 0..note.len() * 8 {
        let mut flipped = note.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(accepted(&flipped), None, "bit {bit}");
    }
    for length in 0..note.len() {
        assert_eq!(accepted(&note[..length]), None, "cut at {length}");
    }
}

#[test]
fn every_flipped_bit_of_a_proof_is_refused() {
    let all = entries(200);
    let (stored, _) = build(&all);
    let (older, newer) = (checkpoint_of(&all[..77]), checkpoint_of(&all));
    let inclusion = prove_inclusion(200, 123, &stored).unwrap();
    let consistency = prove_consistency(77, 200, &stored).unwrap();
    newer.verify_inclusion(&all[123], &inclusion).unwrap();
    newer.verify_consistency(&older, &consistency).unwrap();
    let flips = |hashes: &[Hash]| {
        let hashes = hashes.to_vec();
        (0..hashes.len() * 256).map(move |bit| {
            let mut flipped = hashes.clone();
            flipped[bit / 256].0[bit % 256 / 8] ^= 1 << (bit % 8);
            flipped
        })
    };
    for flipped in flips(inclusion.hashes()) {
        let proof = InclusionProof::new(123, flipped).unwrap();
        assert_eq!(newer.verify_inclusion(&all[123], &proof), Err(ProofError::Inclusion));
    }
    for flipped in flips(consistency.hashes()) {
        let proof = ConsistencyProof::new(flipped).unwrap();
        assert_eq!(newer.verify_consistency(&older, &proof), Err(ProofError::Consistency));
    }
    for bit in 0..64 {
        let proof = InclusionProof::new(123 ^ 1 << bit, inclusion.hashes().to_vec()).unwrap();
        assert!(newer.verify_inclusion(&all[123], &proof).is_err(), "index bit {bit}");
    }
    for bit in 0..all[123].len() * 8 {
        let mut entry = all[123].clone();
        entry[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(newer.verify_inclusion(&entry, &inclusion), Err(ProofError::Inclusion));
    }
}

#[test]
fn a_signer_signs_for_its_own_log_alone() {
    let checkpoint = Checkpoint::new(name("log.example/other"), 1, leaf_hash(b"")).unwrap();
    let refused = checkpoint.sign(&log_signer()).unwrap_err();
    assert_eq!(
        (refused.code(), refused.origin.as_str(), refused.signer.as_str()),
        ("log.origin", "log.example/other", ORIGIN)
    );
    assert_eq!(Checkpoint::new(name(ORIGIN), 0, leaf_hash(b"")), Err(CheckpointError::EmptyRoot));
    assert_eq!(Checkpoint::new(name(ORIGIN), MAX_TREE_SIZE + 1, EMPTY_ROOT), Err(CheckpointError::Size));
}

#[test]
fn generate_is_from_seed_and_secrets_stay_out_of_debug() {
    let (signer, seed) = LogSigner::generate(name(ORIGIN), [9; 32]);
    assert_eq!(*seed, [9; 32]);
    assert_eq!(LogSigner::from_seed(name(ORIGIN), &seed).key(), signer.key());
    assert_eq!(format!("{signer:?}"), "LogSigner(log.example/test, secret)");
    assert_eq!(format!("{:?}", witness_signer(1)), "WitnessSigner(witness.example/w1, secret)");
    // One seed under the two kinds gives two key ids, so that neither signature passes for the other.
    let (log, witness) = (signer.key(), WitnessSigner::from_seed(name(ORIGIN), &seed).key());
    assert_eq!(log.public_key(), witness.public_key());
    assert_ne!(log.id(), witness.id());
}

#[test]
fn keys_are_strings_in_json() {
    let key = log_signer().key();
    let json = serde_json::to_string(&key).unwrap();
    assert_eq!(json, format!("\"{}\"", key.encode()));
    assert_eq!(serde_json::from_str::<LogKey>(&json).unwrap(), key);
    assert!(serde_json::from_str::<WitnessKey>(&json).is_err());
    assert_eq!(LogKey::new(key.name().clone(), *key.public_key()), key);
}

#[test]
fn a_witness_signs_only_what_it_remembers() {
    let all = entries(20);
    let (stored, _) = build(&all);
    let witness = witness_signer(1);
    let mut memory = Remembered::first(checkpoint_of(&all[..10]));
    let before = witness.cosign(&memory, 5).unwrap();
    assert_eq!(witness.cosign(&memory, 5).unwrap(), before, "deterministic");
    assert_eq!(witness.cosign(&memory, 0), Err(CosignError));
    assert_eq!(witness.cosign(&memory, MAX_COSIGNATURE_TIME_SECONDS + 1), Err(CosignError));

    let mut forked = all.clone();
    forked[3].push(0);
    let proof = prove_consistency(10, 20, &build(&forked).0).unwrap();
    assert_eq!(memory.advance(checkpoint_of(&forked), &proof).unwrap_err().code(), "log.consistency");
    assert_eq!(witness.cosign(&memory, 5).unwrap(), before, "a refused checkpoint is not cosigned");

    let proof = prove_consistency(10, 20, &stored).unwrap();
    assert_eq!(memory.advance(checkpoint_of(&all), &proof).unwrap(), Advance::Grown { from: 10, to: 20 });
    let after = witness.cosign(&memory, 6).unwrap();
    assert_ne!(after, before);
    // The line of the older checkpoint does not count for the newer one.
    let stale = memory.checkpoint().with_cosignatures(before.as_bytes(), &[witness.key()]);
    assert_eq!(stale.unwrap_err().code(), "log.cosignature");
}

#[test]
fn cosignatures_are_added_and_replaced() {
    let remembered = Remembered::first(checkpoint_of(&entries(8)));
    let checkpoint = remembered.checkpoint();
    let (first, second) = (witness_signer(1), witness_signer(2));
    let keys = [first.key(), second.key()];
    let early = first.cosign(&remembered, 10).unwrap();
    let late = first.cosign(&remembered, 20).unwrap();
    let other = second.cosign(&remembered, 30).unwrap();
    let both = [early.as_bytes(), other.as_bytes()].concat();
    let times = |checkpoint: &VerifiedCheckpoint| -> Vec<(String, u64)> {
        let found = checkpoint.verify_witnesses(&keys, 0).unwrap();
        found.iter().map(|one| (one.witness().to_string(), one.time_seconds())).collect()
    };

    let cosigned = checkpoint.with_cosignatures(&both, &keys).unwrap();
    assert_eq!(times(&cosigned), [("witness.example/w1".into(), 10), ("witness.example/w2".into(), 30)]);
    let cosigned = cosigned.with_cosignatures(late.as_bytes(), &keys).unwrap();
    assert_eq!(times(&cosigned), [("witness.example/w1".into(), 20), ("witness.example/w2".into(), 30)]);
    // What was built is what would be parsed.
    let again = SignedCheckpoint::parse(cosigned.signed().as_bytes()).unwrap().verify(cosigned.key()).unwrap();
    assert_eq!(again, cosigned);

    let refused = |lines: &[u8], keys: &[WitnessKey]| checkpoint.with_cosignatures(lines, keys).unwrap_err().code();
    assert_eq!(refused(other.as_bytes(), &keys[..1]), "log.quorum", "only a stranger's line");
    assert_eq!(refused(&[early.as_bytes(), late.as_bytes()].concat(), &keys), "log.cosignature-duplicate");
    assert_eq!(refused(b"", &keys), "log.cosignature-lines");
    assert_eq!(refused(&early.as_bytes()[..40], &keys), "log.cosignature-lines");
    assert_eq!(refused(&early.as_bytes().repeat(MAX_SIGNATURES + 1), &keys), "log.cosignature-lines");
    assert_eq!(refused(&vec![b'\n'; MAX_NOTE_LEN + 1], &keys), "log.cosignature-lines");
    assert_eq!(refused(early.as_bytes(), &[keys[0].clone(), keys[0].clone()]), "log.witness-duplicate-key");
}

#[test]
fn a_memory_survives_and_holds_the_log_to_it() {
    let all = entries(50);
    let (stored, _) = build(&all);
    let key = log_signer().key();
    let mut memory = Remembered::first(checkpoint_of(&all[..0]));
    for size in [1, 2, 7, 8, 50] {
        let from = memory.checkpoint().size();
        let proof = prove_consistency(from, size as u64, &stored).unwrap();
        memory.advance(checkpoint_of(&all[..size]), &proof).unwrap();
        memory = Remembered::parse(memory.as_bytes(), &key).unwrap();
        assert_eq!(memory.checkpoint().size(), size as u64);
    }
    let other = LogSigner::from_seed(name(ORIGIN), &[2; 32]).key();
    assert_eq!(Remembered::parse(memory.as_bytes(), &other).unwrap_err().code(), "log.not-signed");
    assert_eq!(Remembered::parse(b"", &key).unwrap_err().code(), "log.note-malformed");

    let rolled_back = memory.advance(checkpoint_of(&all[..49]), &ConsistencyProof::empty()).unwrap_err();
    assert_eq!(rolled_back, AdvanceError::RolledBack { remembered: 50, offered: 49 });
    let mut forked = all.clone();
    forked[49].push(0);
    let fork = memory.advance(checkpoint_of(&forked), &ConsistencyProof::empty()).unwrap_err();
    let AdvanceError::Fork(proof) = fork else { panic!("{fork}") };
    // A third party needs nothing but the proof and the key.
    let portable = serde_json::to_string(&proof).unwrap();
    let proven = serde_json::from_str::<ForkProof>(&portable).unwrap().verify(&key).unwrap();
    assert_eq!(proven.size(), 50);
    assert_eq!(ForkProof::between(memory.checkpoint(), &checkpoint_of(&forked)), Some(*proof));
    assert_eq!(ForkProof::between(memory.checkpoint(), memory.checkpoint()), None);
    assert_eq!(ForkProof::between(memory.checkpoint(), &sign(49, leaf_hash(b""))), None);
}

#[test]
fn hashes_are_lower_case_hex() {
    let text = EMPTY_ROOT.to_string();
    assert_eq!(text, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_eq!(text.parse(), Ok(EMPTY_ROOT));
    for wrong in
        ["", &text[1..], &text.to_uppercase(), &format!("{text}0"), &text.replace('e', "g"), &text.replace("e3", "é")]
    {
        assert_eq!(wrong.parse::<Hash>(), Err(HashError), "{wrong}");
    }
    assert_eq!(leaf_hash(b"").to_string(), "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d");
    assert_eq!(format!("{:?}", EMPTY_ROOT), format!("Hash({text})"));
}
