//! The language-neutral vectors of `vectors/log/`: for every case, the outcome and its code must be the one it names.

use std::path::Path;

use data_encoding::HEXLOWER;
use serde_json::Value;
use starminer_log::*;

use crate::naive;

/// Runs every case of a file through `outcome` and compares with its `expect`. `least` guards against a file that lost
/// its cases.
fn check(file: &str, least: usize, outcome: impl Fn(&Value) -> String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/log").join(file);
    let vectors: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let cases = vectors["cases"].as_array().unwrap();
    assert!(cases.len() >= least, "{file} has {} cases", cases.len());
    for case in cases {
        let (name, expect) = (text(case, "name"), text(case, "expect"));
        assert_eq!(outcome(case), expect, "{file}: {name}");
    }
}

fn text<'a>(case: &'a Value, field: &str) -> &'a str {
    case[field].as_str().unwrap_or_else(|| panic!("{field} of {case}"))
}

/// Hex in which `5a*65535` between spaces is a run of one byte.
fn unhex(text: &str) -> Vec<u8> {
    let part = |part: &str| match part.split_once('*') {
        Some((byte, count)) => HEXLOWER.decode(byte.as_bytes()).unwrap().repeat(count.parse().unwrap()),
        None => HEXLOWER.decode(part.as_bytes()).unwrap(),
    };
    text.split(' ').flat_map(part).collect()
}

fn numbered(count: &Value) -> Vec<Vec<u8>> {
    (0..count.as_u64().unwrap()).map(|n| format!("entry {n}").into_bytes()).collect()
}

fn hash(case: &Value, field: &str) -> Hash {
    text(case, field).parse().unwrap()
}

fn log_key(case: &Value, field: &str) -> LogKey {
    LogKey::parse(text(case, field)).unwrap()
}

/// A checkpoint that the case is not about: it must verify.
fn verified(case: &Value, note: &str, key: &str) -> VerifiedCheckpoint {
    SignedCheckpoint::parse(text(case, note).as_bytes()).unwrap().verify(&log_key(case, key)).unwrap()
}

fn ok(code: Result<(), &'static str>) -> String {
    code.err().unwrap_or("ok").to_owned()
}

#[test]
fn merkle() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/log/merkle.json");
    let vectors: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let cases = vectors["cases"].as_array().unwrap();
    assert!(cases.len() >= 20);
    for case in cases {
        let entries = match case["entries_hex"].as_array() {
            Some(entries) => entries.iter().map(|entry| unhex(entry.as_str().unwrap())).collect(),
            None => numbered(&case["numbered"]),
        };
        let root = Frontier::empty().append(&entries).unwrap().root();
        assert_eq!(root, hash(case, "root"), "{}", text(case, "name"));
        assert_eq!(root, naive::root(&entries), "{}", text(case, "name"));
    }
}

#[test]
fn inclusion() {
    check("inclusion.json", 40, |case| {
        let checkpoint = verified(case, "checkpoint", "key");
        let Ok(proof) = serde_json::from_value::<InclusionProof>(case["proof"].clone()) else {
            return "malformed".into();
        };
        assert_eq!(serde_json::to_value(&proof).unwrap(), case["proof"]);
        let entry = unhex(text(case, "entry_hex"));
        ok(checkpoint.verify_inclusion(&entry, &proof).map_err(|error| error.code()).map(|included| {
            assert_eq!(included.index(), proof.index());
            assert_eq!(included.leaf_hash(), leaf_hash(&entry));
            assert_eq!(included.checkpoint_size(), checkpoint.size());
            assert_eq!(included.checkpoint_root(), checkpoint.root());
        }))
    });
}

#[test]
fn consistency() {
    check("consistency.json", 30, |case| {
        let (older, newer) = (verified(case, "older", "key"), verified(case, "newer", "key"));
        let Ok(proof) = serde_json::from_value::<ConsistencyProof>(case["proof"].clone()) else {
            return "malformed".into();
        };
        ok(newer.verify_consistency(&older, &proof).map_err(|error| error.code()).map(|consistent| {
            assert_eq!((consistent.older_size(), consistent.newer_size()), (older.size(), newer.size()));
        }))
    });
}

#[test]
fn checkpoints() {
    check("checkpoints.json", 65, |case| {
        let bytes = match case["note_hex"].as_str() {
            Some(hex) => unhex(hex),
            None => text(case, "note").as_bytes().to_vec(),
        };
        let signed = match SignedCheckpoint::parse(&bytes) {
            Ok(signed) => signed,
            Err(error) => return error.code().into(),
        };
        assert_eq!(signed.as_bytes(), bytes);
        ok(signed.verify(&log_key(case, "key")).map_err(|error| error.code()).map(|checkpoint| {
            assert_eq!(checkpoint.size(), case["size"].as_u64().unwrap());
            assert_eq!(checkpoint.root(), hash(case, "root"));
        }))
    });
}

#[test]
fn signing_gives_the_same_bytes_as_the_vectors() {
    let signer =
        LogSigner::from_seed(KeyName::parse("log.example/vectors").unwrap(), &std::array::from_fn(|n| n as u8));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/log/checkpoints.json");
    let vectors: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let case = vectors["cases"].as_array().unwrap().iter().find(|case| text(case, "name") == "good").unwrap();
    let checkpoint = Checkpoint::new(signer.name().clone(), 8, hash(case, "root")).unwrap();
    assert_eq!(checkpoint.sign(&signer).unwrap().as_str(), text(case, "note"));

    let cosignatures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/log/cosignatures.json");
    let vectors: Value = serde_json::from_str(&std::fs::read_to_string(cosignatures).unwrap()).unwrap();
    let case = vectors["cases"].as_array().unwrap().iter().find(|case| text(case, "name") == "one-of-one").unwrap();
    let witness = WitnessSigner::from_seed(KeyName::parse("witness.example/w1").unwrap(), &[0x11; 32]);
    let remembered = Remembered::first(checkpoint.sign(&signer).unwrap().verify(&signer.key()).unwrap());
    let line = witness.cosign(&remembered, 1_700_000_000).unwrap();
    let cosigned = remembered.checkpoint().with_cosignatures(line.as_bytes(), &[witness.key()]).unwrap();
    assert_eq!(cosigned.signed().as_str(), text(case, "note"));
}

#[test]
fn cosignatures() {
    check("cosignatures.json", 30, |case| {
        let checkpoint = verified(case, "note", "key");
        let vkeys = case["witnesses"].as_array().unwrap();
        let witnesses: Vec<WitnessKey> = vkeys.iter().map(|vkey| vkey.as_str().unwrap().parse().unwrap()).collect();
        let quorum = case["quorum"].as_u64().unwrap() as usize;
        ok(checkpoint.verify_witnesses(&witnesses, quorum).map_err(|error| error.code()).map(|cosigned| {
            let found: Vec<Value> = cosigned
                .iter()
                .map(|one| serde_json::json!({"witness": one.witness().as_str(), "time_seconds": one.time_seconds()}))
                .collect();
            assert_eq!(Value::from(found), case["cosigned"], "{}", text(case, "name"));
        }))
    });
}

#[test]
fn keys() {
    check("keys.json", 25, |case| {
        let vkey = text(case, "vkey");
        let (public_key, encoded) = match text(case, "kind") {
            "log" => match LogKey::parse(vkey) {
                Ok(key) => (*key.public_key(), key.encode()),
                Err(error) => return error.code().into(),
            },
            _ => match WitnessKey::parse(vkey) {
                Ok(key) => (*key.public_key(), key.encode()),
                Err(error) => return error.code().into(),
            },
        };
        assert_eq!(encoded, vkey);
        assert_eq!(public_key.to_vec(), unhex(text(case, "public_key_hex")));
        if let Some(seed) = case["seed_hex"].as_str() {
            let seed = unhex(seed).try_into().unwrap();
            let name = KeyName::parse(vkey.split('+').next().unwrap()).unwrap();
            let made = match text(case, "kind") {
                "log" => LogSigner::from_seed(name, &seed).key().encode(),
                _ => WitnessSigner::from_seed(name, &seed).key().encode(),
            };
            assert_eq!(made, vkey);
        }
        "ok".into()
    });
}

#[test]
fn tiles() {
    check("tiles.json", 70, |case| match text(case, "expect") {
        "tree" => {
            let tiles: Vec<String> =
                tiles_between(0, case["size"].as_u64().unwrap()).unwrap().map(|tile| tile.path()).collect();
            assert_eq!(tiles.len() as u64, case["count"].as_u64().unwrap(), "{}", text(case, "name"));
            let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, tiles.join("\n").as_bytes());
            assert_eq!(HEXLOWER.encode(digest.as_ref()), text(case, "digest"), "{}", text(case, "name"));
            "tree".into()
        }
        "content" => {
            let stored = Frontier::empty().append(&numbered(&case["numbered"])).unwrap().hashes().to_vec();
            let TilePath::Tile(tile) = TilePath::parse(text(case, "path")).unwrap() else { panic!("a tile") };
            assert_eq!(tile.read(&stored).unwrap(), unhex(text(case, "content_hex")), "{}", text(case, "name"));
            "content".into()
        }
        _ => match TilePath::parse(text(case, "path")) {
            Err(error) => error.code().into(),
            Ok(path) => {
                let (level, index, width) = match path {
                    TilePath::Tile(tile) => (Value::from(tile.level()), tile.index(), tile.width()),
                    TilePath::Entries(bundle) => (Value::from("entries"), bundle.index(), bundle.width()),
                };
                assert_eq!(level, case["level"]);
                assert_eq!(
                    (index, u64::from(width)),
                    (case["index"].as_u64().unwrap(), case["width"].as_u64().unwrap())
                );
                assert_eq!(path.to_string(), text(case, "path"));
                "ok".into()
            }
        },
    });
}

#[test]
fn bundles() {
    check("bundles.json", 15, |case| {
        let (index, width) = (case["index"].as_u64().unwrap(), case["width"].as_u64().unwrap() as u16);
        let id = match BundleId::new(index, width) {
            Ok(id) => id,
            Err(error) => return error.code().into(),
        };
        let content = unhex(text(case, "content_hex"));
        ok(id.parse(&content).map_err(|error| error.code()).map(|bundle| {
            let entries = case["entries_hex"].as_array().unwrap();
            let entries: Vec<Vec<u8>> = entries.iter().map(|entry| unhex(entry.as_str().unwrap())).collect();
            assert_eq!(bundle.entries(), entries, "{}", text(case, "name"));
            assert_eq!(id.encode(bundle.entries()).unwrap(), content);
        }))
    });
}

#[test]
fn remembered() {
    check("remembered.json", 12, |case| {
        let key = log_key(case, "key");
        let mut memory = Remembered::parse(text(case, "remembered").as_bytes(), &key).unwrap();
        let before = memory.clone();
        let offered = verified(case, "offered", "offered_key");
        let proof = serde_json::from_value(case["proof"].clone()).unwrap();
        match memory.advance(offered.clone(), &proof) {
            Ok(Advance::Grown { from, to }) => {
                assert_eq!((from, to), (before.checkpoint().size(), offered.size()));
                assert_eq!(memory.as_bytes(), text(case, "offered").as_bytes());
                "grown".into()
            }
            Ok(Advance::Unchanged) => {
                assert_eq!(memory, before);
                "unchanged".into()
            }
            Err(error) => {
                assert_eq!(memory, before, "a refusal changes nothing");
                if let AdvanceError::Fork(proof) = &error {
                    let fork = proof.verify(&key).unwrap();
                    assert_eq!(fork.roots(), &[before.checkpoint().root(), offered.root()]);
                    assert_eq!((fork.size(), fork.origin()), (offered.size(), key.name()));
                }
                error.code().into()
            }
        }
    });
}

#[test]
fn forks() {
    check("forks.json", 10, |case| {
        let Ok(proof) = serde_json::from_value::<ForkProof>(case["proof"].clone()) else { return "malformed".into() };
        assert_eq!(serde_json::to_value(&proof).unwrap(), case["proof"]);
        ok(proof.verify(&log_key(case, "key")).map(|_| ()).map_err(|error| error.code()))
    });
}
