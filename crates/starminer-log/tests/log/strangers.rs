//! A short seeded run of every parser over damaged input: nothing panics, and what is accepted encodes to the same bytes.
//! The fuzz targets go deeper; this runs everywhere.

use starminer_log::*;

use crate::world::{build, checkpoint_of, entries, log_signer, witness_signer};

/// xorshift64*: the run must be the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    /// One to four of: a byte changed, removed, inserted, a piece repeated, the end cut.
    fn damage(&mut self, bytes: &[u8]) -> Vec<u8> {
        const LIKELY: &[u8] = b"\n\r 0129+-/=x.p\x00\x7f\xc2\xa0\xe2\x80\x94{}[]\",:";
        let mut bytes = bytes.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len() + 1);
            let byte = if self.below(2) == 0 { LIKELY[self.below(LIKELY.len())] } else { self.next() as u8 };
            match self.below(5) {
                0 if at < bytes.len() => bytes[at] = byte,
                1 if at < bytes.len() => drop(bytes.remove(at)),
                2 => bytes.insert(at, byte),
                3 => {
                    let piece = bytes[at..(at + self.below(40)).min(bytes.len())].to_vec();
                    bytes.splice(at..at, piece);
                }
                _ => bytes.truncate(at),
            }
        }
        bytes
    }
}

/// Damages each seed `rounds` times and gives the outcome to `target`.
fn check(seeds: &[Vec<u8>], rounds: usize, mut target: impl FnMut(&[u8])) {
    let mut random = Random(0x5741_524d_494e_4552);
    for seed in seeds {
        target(seed);
        for _ in 0..rounds {
            target(&random.damage(seed));
        }
    }
}

#[test]
fn notes() {
    let key = log_signer().key();
    let witness = witness_signer(1);
    let remembered = Remembered::first(checkpoint_of(&entries(8)));
    let line = witness.cosign(&remembered, 1_700_000_000).unwrap();
    let cosigned = remembered.checkpoint().with_cosignatures(line.as_bytes(), &[witness.key()]).unwrap();
    let seeds = [remembered.as_bytes().to_vec(), cosigned.signed().as_bytes().to_vec()];
    let mut accepted = 0;
    check(&seeds, 20_000, |bytes| {
        let Ok(signed) = SignedCheckpoint::parse(bytes) else { return };
        assert_eq!(signed.as_bytes(), bytes);
        if let Ok(checkpoint) = signed.verify(&key) {
            accepted += 1;
            // Damage may add or spoil lines of strangers, never change what was signed.
            assert_eq!(checkpoint.checkpoint(), cosigned.checkpoint());
            assert_eq!(Remembered::parse(bytes, &key).unwrap().as_bytes(), bytes);
            let _ = checkpoint.verify_witnesses(&[witness.key()], 1);
        }
    });
    assert!(accepted >= 2, "the undamaged seeds at least");
    check(&[line.as_bytes().to_vec()], 20_000, |bytes| {
        if let Ok(checkpoint) = remembered.checkpoint().with_cosignatures(bytes, &[witness.key()]) {
            assert_eq!(checkpoint.verify_witnesses(&[witness.key()], 1).unwrap()[0].time_seconds(), 1_700_000_000);
        }
    });
}

#[test]
fn texts() {
    let texts = |seeds: &[&str]| seeds.iter().map(|seed| seed.as_bytes().to_vec()).collect::<Vec<_>>();
    let (log, witness) = (log_signer().key(), witness_signer(1).key());
    check(&texts(&[&log.encode(), &witness.encode()]), 20_000, |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        if let Ok(key) = LogKey::parse(text) {
            assert_eq!((&key, key.encode()), (&log, text.to_owned()));
        }
        if let Ok(key) = WitnessKey::parse(text) {
            assert_eq!((&key, key.encode()), (&witness, text.to_owned()));
        }
        if let Ok(name) = KeyName::parse(text) {
            assert!(!name.as_str().contains(['+', '\n', ' ', '\0']));
        }
    });
    check(&texts(&["tile/0/x001/x234/067.p/8", "tile/entries/x001/x234/067", "tile/7/000.p/64"]), 50_000, |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        if let Ok(path) = TilePath::parse(text) {
            assert_eq!(path.to_string(), text);
            if let TilePath::Tile(tile) = path {
                assert_eq!(tile.reads().len(), usize::from(tile.width()));
            }
        }
    });
}

#[test]
fn contents() {
    let all = entries(40);
    let id = BundleId::new(0, 40).unwrap();
    check(&[id.encode(&all).unwrap()], 20_000, |bytes| {
        if let Ok(bundle) = id.parse(bytes) {
            assert_eq!(id.encode(bundle.entries()).unwrap(), bytes);
            assert_eq!(Replay::start().push(&bundle), Ok(0..40));
        }
    });
    let tile = Tile::new(0, 0, 40).unwrap();
    check(&[tile.read(&build(&all).0).unwrap()], 5_000, |bytes| {
        if let Ok(hashes) = tile.parse(bytes) {
            assert_eq!(tile.encode(&hashes).unwrap(), bytes);
        }
    });
}

#[test]
fn json() {
    let all = entries(40);
    let (stored, _) = build(&all);
    let checkpoint = checkpoint_of(&all);
    let inclusion = prove_inclusion(40, 11, &stored).unwrap();
    let consistency = prove_consistency(23, 40, &stored).unwrap();
    let fork = ForkProof::new(checkpoint.signed(), checkpoint.signed());
    let seeds = [
        serde_json::to_vec(&inclusion).unwrap(),
        serde_json::to_vec(&consistency).unwrap(),
        serde_json::to_vec(&fork).unwrap(),
    ];
    check(&seeds, 20_000, |bytes| {
        if let Ok(proof) = serde_json::from_slice::<InclusionProof>(bytes) {
            assert!(proof.hashes().len() <= MAX_PROOF_HASHES);
            assert_eq!(checkpoint.verify_inclusion(&all[11], &proof).is_ok(), proof == inclusion);
        }
        if let Ok(proof) = serde_json::from_slice::<ConsistencyProof>(bytes) {
            let holds = checkpoint.verify_consistency(&checkpoint_of(&all[..23]), &proof).is_ok();
            assert_eq!(holds, proof == consistency);
        }
        if let Ok(proof) = serde_json::from_slice::<ForkProof>(bytes) {
            assert!(proof.verify(checkpoint.key()).is_err());
        }
    });
}
