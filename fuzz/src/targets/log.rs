//! Targets of `starminer-log`.

use std::sync::OnceLock;

use starminer_log::*;

use super::{json_round_trip, line_and_rest, taken};
use crate::Outcome;
use crate::world::{checkpoint as known, log_signer, signed_checkpoint, witness_signer};

pub fn keys(data: &[u8]) -> Outcome {
    let Ok(text) = std::str::from_utf8(data) else { return Outcome::refused("utf-8") };
    let log = LogKey::parse(text);
    if let Ok(key) = &log {
        assert_eq!(key.encode(), text);
        assert_eq!(*key, LogKey::new(key.name().clone(), *key.public_key()));
    }
    let witness = WitnessKey::parse(text);
    if let Ok(key) = &witness {
        assert_eq!(key.encode(), text);
        assert!(log.is_err(), "a key is of one kind");
    }
    let name = KeyName::parse(text);
    if let Ok(name) = &name {
        assert!((1..=MAX_KEY_NAME_LEN).contains(&name.as_str().len()));
        assert!(!name.as_str().chars().any(|c| c == '+' || c.is_whitespace() || c.is_control()));
    }
    let hash: Result<Hash, _> = text.parse();
    if let Ok(hash) = &hash {
        assert_eq!(hash.to_string(), text);
    }
    let code = |error: &KeyError| error.code();
    Outcome::of(&log, code).and(Outcome::of(&witness, code)).and(taken(&[name.is_ok(), hash.is_ok()]))
}

pub fn checkpoint(data: &[u8]) -> Outcome {
    let signed = match SignedCheckpoint::parse(data) {
        Ok(signed) => signed,
        Err(error) => return Outcome::refused(error.code()),
    };
    assert_eq!(signed.as_bytes(), data, "one encoding");
    assert_eq!(signed.as_str().as_bytes(), data);
    let verified = match signed.verify(&log_signer().key()) {
        Ok(verified) => verified,
        Err(error) => return Outcome::refused(error.code()),
    };
    // The log has signed one statement in all its life; lines of others may come and go.
    assert_eq!(verified.checkpoint(), known().checkpoint());
    let remembered = Remembered::parse(data, &log_signer().key()).expect("it verified a moment ago");
    assert_eq!(remembered.as_bytes(), data);
    assert_eq!(remembered.clone().advance(verified.clone(), &ConsistencyProof::empty()), Ok(Advance::Unchanged));
    assert_eq!(ForkProof::between(&verified, known()), None);
    let witnesses = verified.verify_witnesses(&[witness_signer().key()], 1);
    Outcome::accepted(witnesses.map(|all| all.len()).map_err(|error| error.code()))
}

pub fn cosignatures(data: &[u8]) -> Outcome {
    static BARE: OnceLock<VerifiedCheckpoint> = OnceLock::new();
    let bare = BARE.get_or_init(|| {
        let signed = known().checkpoint().sign(&log_signer()).expect("its own name");
        signed.verify(&log_signer().key()).expect("its own signature")
    });
    let witnesses = [witness_signer().key()];
    let cosigned = bare.with_cosignatures(data, &witnesses);
    if let Ok(cosigned) = &cosigned {
        // Whatever came with it, the note is the known one: the log's line and the one that the witness signed.
        assert_eq!(cosigned.signed().as_bytes(), known().signed().as_bytes());
        assert_eq!(cosigned.verify_witnesses(&witnesses, 1).map(|all| all.len()), Ok(1));
    }
    Outcome::of(&cosigned, WitnessError::code)
}

pub fn tile(data: &[u8]) -> Outcome {
    let (path, content) = line_and_rest(data);
    let Some(path) = path else { return Outcome::refused("utf-8") };
    let parsed = match TilePath::parse(path) {
        Ok(parsed) => parsed,
        Err(error) => return Outcome::refused(error.code()),
    };
    assert_eq!(parsed.to_string(), path, "one spelling");
    match parsed {
        TilePath::Tile(tile) => {
            assert_eq!(tile.path(), path);
            let reads = tile.reads();
            assert_eq!(reads.len(), usize::from(tile.width()));
            assert!(tile.is_within(MAX_TREE_SIZE));
            for stored in reads {
                let node = NodePosition::from_stored_index(stored).expect("a tile is of nodes of some tree");
                assert_eq!(
                    Tile::holding(node, MAX_TREE_SIZE).map(|of| (of.level(), of.index())),
                    Ok((tile.level(), tile.index()))
                );
            }
            let hashes = tile.parse(content);
            if let Ok(hashes) = &hashes {
                assert_eq!(tile.encode(hashes).as_deref(), Ok(content));
            }
            Outcome::accepted((tile.level(), tile.is_partial(), hashes.map_err(|error| error.code()).is_ok()))
        }
        TilePath::Entries(id) => {
            assert_eq!(id.path(), path);
            assert!(id.is_within(MAX_TREE_SIZE));
            assert_eq!(BundleId::holding(id.entries().start, id.entries().end), Ok(id));
            let bundle = id.parse(content);
            if let Ok(bundle) = &bundle {
                assert_eq!(id.encode(bundle.entries()).as_deref(), Ok(content));
            }
            Outcome::accepted(bundle.map(|bundle| bundle.id().width() > 1).map_err(|error| error.code()))
        }
    }
}

pub fn bundle(data: &[u8]) -> Outcome {
    let Some((width, content)) = data.split_first() else { return Outcome::refused("empty") };
    let id = BundleId::new(0, u16::from(*width) + 1).expect("1 to 256");
    let bundle = match id.parse(content) {
        Ok(bundle) => bundle,
        Err(error) => return Outcome::refused(error.code()),
    };
    assert_eq!(id.encode(bundle.entries()).as_deref(), Ok(content));
    let count = usize::from(id.width());
    let mut replay = Replay::start();
    assert_eq!(replay.push(&bundle), Ok(0..count));
    assert!(replay.push(&bundle).is_err(), "no entry twice");
    let batch = Frontier::empty().append(bundle.entries()).expect("entries of a bundle are not too long");
    assert_eq!(batch.frontier(), replay.frontier());
    // The same in two steps: half of the entries, then the bundle that has grown.
    let half = BundleId::new(0, id.width().div_ceil(2)).expect("1 to 128");
    let known = usize::from(half.width());
    let early = half.encode(&bundle.entries()[..known]).expect("as many as its width");
    let mut stepwise = Replay::start();
    assert_eq!(stepwise.push(&half.parse(&early).expect("its own encoding")), Ok(0..known));
    if count > known {
        assert_eq!(stepwise.push(&bundle), Ok(known..count));
    }
    assert_eq!(stepwise, replay);
    let restored = Frontier::from_peaks(replay.frontier().size(), replay.frontier().peaks().to_vec());
    assert_eq!(restored.as_ref(), Ok(replay.frontier()));
    Outcome::accepted(id.width() > 1)
}

/// Two sizes of eight bytes each, a line with the entry, and JSON of a proof. The log signs whatever size is asked: a
/// client must bear any.
pub fn proofs(data: &[u8]) -> Outcome {
    let Some((sizes, rest)) = data.split_first_chunk::<16>() else { return Outcome::refused("short") };
    let (newer, older) = sizes.split_at(8);
    let size = |bytes: &[u8]| bytes.iter().fold(0_u64, |size, byte| (size << 8) | u64::from(*byte));
    let (newer, older) = (size(newer) % (MAX_TREE_SIZE + 1), size(older) % (MAX_TREE_SIZE + 1));
    let (_, json) = line_and_rest(rest);
    let entry = &rest[..rest.len() - json.len()];
    let root = leaf_hash(entry);

    let inclusion: Option<InclusionProof> = json_round_trip(json);
    let consistency: Option<ConsistencyProof> = json_round_trip(json);
    if let Some(proof) = &inclusion {
        assert!(proof.hashes().len() <= MAX_PROOF_HASHES);
        let checkpoint = signed_checkpoint(newer, root);
        let verified = checkpoint.verify_inclusion(entry, proof);
        if let Ok(included) = &verified {
            // The root is this entry's leaf hash, so a longer path would be a collision of SHA-256.
            assert_eq!((included.index(), newer, proof.hashes().len()), (0, 1, 0));
        }
        let fixed = known().verify_inclusion(&crate::world::world().log.entries[1], proof);
        if let Ok(included) = &fixed {
            assert_eq!(included.index(), 1);
        }
        return Outcome::of(&verified, ProofError::code).and(Outcome::of(&fixed, ProofError::code));
    }
    if let Some(proof) = &consistency {
        let (new, old) = (signed_checkpoint(newer, root), signed_checkpoint(older, root));
        let verified = new.verify_consistency(&old, proof);
        if let Ok(consistent) = &verified {
            assert!(consistent.older_size() <= consistent.newer_size());
            assert!(older == newer || older == 0, "one root for two sizes would be a collision of SHA-256");
        }
        let mut remembered = Remembered::first(old.clone());
        let advanced = remembered.advance(new, proof);
        assert_eq!(advanced.is_ok(), verified.is_ok());
        if advanced.is_err() {
            assert_eq!(*remembered.checkpoint(), old, "a refusal moves nothing");
        }
        return Outcome::of(&verified, ProofError::code);
    }
    Outcome::refused("no proof")
}

pub fn fork(data: &[u8]) -> Outcome {
    let Some(proof) = json_round_trip::<ForkProof>(data) else { return Outcome::refused("no fork proof") };
    let key = log_signer().key();
    let verified = proof.verify(&key);
    if let Ok(fork) = &verified {
        assert_eq!(fork.origin(), key.name());
        assert_ne!(fork.roots()[0], fork.roots()[1]);
    }
    Outcome::of(&verified, ForkError::code)
}
