//! The language-neutral vectors of `vectors/vault/`, held against this implementation.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::sync::Mutex;

use serde::de::DeserializeOwned;
use starminer_vault::object::{Digests, Header, ObjectSealer, OpenError, open_bytes, open_stream, seal_bytes};
use starminer_vault::scratch::{Opening, PAGE_BYTES, ScratchOptions, Superblock};
use starminer_vault::{ContentId, FileId, ObjectReader, Salt, Scratch, ScratchContext, Sequence, TaskSecret, commit};

mod vector_format;
use vector_format::{
    Keys, Objects, RefusedObject, STORE_HISTORY, StoreCase, Stores, array, base64, hex, join, options, path, plaintext,
    store_image, unhex,
};

fn read<T: DeserializeOwned>(file: &str) -> T {
    serde_json::from_str(&fs::read_to_string(path(file)).unwrap()).unwrap()
}

#[test]
fn keys() {
    let keys: Keys = read("keys.json");
    for case in &keys.plaintext_commitments {
        let secret = TaskSecret::from_bytes(array(&case.secret));
        let made = commit(&secret, &array(&case.task), &case.label, &array(&case.plain_sha256));
        assert_eq!(hex(&made), case.commitment, "{}", case.label);
    }
    for case in &keys.object_commitments {
        let context = &case.context;
        let salt = Salt::from_random(array(&case.salt));
        let chunk_size = options(case.chunk_size_log2).chunk_size;
        let sealer = ObjectSealer::new(&context.secret(), &context.object(), salt, chunk_size, 0).unwrap();
        let header = Header::parse(sealer.header()).unwrap();
        assert_eq!(hex(&header.commitment), case.commitment, "{}", context.name);
    }
    for case in &keys.scratch_commitments {
        let context = ScratchContext { task: array(&case.task), name: &case.name };
        let secret = TaskSecret::from_bytes(array(&case.secret));
        let opening = Opening { salt: Salt::from_random(array(&case.salt)), attempt: 1 };
        let store = Mutex::new(Vec::new());
        let mut scratch = Scratch::create(store, &secret, &context, opening, ScratchOptions::default()).unwrap();
        scratch.checkpoint().unwrap();
        let image = scratch.into_store().into_inner().unwrap();
        let superblock = Superblock::parse(&image).unwrap();
        assert_eq!(hex(&superblock.commitment), case.commitment, "{}", case.name);
    }
    let all = keys.plaintext_commitments.len() + keys.object_commitments.len() + keys.scratch_commitments.len();
    assert_eq!(all, 21);
}

#[test]
fn objects() {
    let vectors: Objects = read("object.json");
    let mut originals = BTreeMap::new();
    for case in &vectors.objects {
        let (secret, context) = (case.context.secret(), case.context.object());
        let plain = plaintext(case.plain_len);
        let sealed = unhex(&case.sealed);
        let digests = options(case.chunk_size_log2).digests;
        let (opened, summary) = open_bytes(&secret, &context, digests, &sealed).unwrap();
        assert!(opened == plain, "{}", case.id);
        assert_eq!(hex(&summary.plain_sha256.unwrap()), case.plain_sha256, "{}", case.id);
        assert_eq!(summary.content_id.unwrap().to_string(), case.content_id, "{}", case.id);
        assert_eq!(ContentId::of(&sealed).to_string(), case.content_id, "{}", case.id);
        let salt = Salt::from_random(array(&case.salt));
        let again = seal_bytes(&secret, &context, salt, options(case.chunk_size_log2), &plain).unwrap();
        assert!(again.0 == sealed, "{}", case.id);
        originals.insert(case.id.clone(), sealed);
    }
    for case in &vectors.refused {
        let altered = join(&case.pieces, |of| &originals[of]);
        assert!(
            originals.values().all(|original| *original != altered) || case.error == "vault.object.key",
            "{} alters nothing",
            case.id
        );
        check_refused(case, &altered);
    }
    assert_eq!((vectors.objects.len(), vectors.refused.len()), (9, 65));
}

fn check_refused(case: &RefusedObject, altered: &[u8]) {
    let (secret, context) = (case.context.secret(), case.context.object());
    let mut given = Vec::new();
    let refused = open_stream(&secret, &context, Digests::default(), altered, &mut given);
    assert_eq!(refused.unwrap_err().code(), case.stream_error, "{} as a stream", case.id);
    assert_eq!(given, plaintext(case.stream_gives), "{}", case.id);

    let read_all = || -> Result<(), OpenError> {
        let reader = ObjectReader::open(&secret, &context, altered, altered.len() as u64)?;
        let mut buf = [0; 4096];
        let mut offset = 0;
        while offset < reader.len() {
            offset += reader.read_at(offset, &mut buf)? as u64;
        }
        Ok(())
    };
    assert_eq!(read_all().unwrap_err().code(), case.error, "{} at random", case.id);
    assert!(open_bytes(&secret, &context, Digests::default(), altered).is_err());
}

#[test]
fn stores() {
    let vectors: Stores = read("scratch.json");
    let (image, _) = store_image();
    assert_eq!(vectors.history, STORE_HISTORY);
    assert!(vectors.image == base64(&image), "the same history makes the same image");
    for case in &vectors.cases {
        check_store(case, join(&case.pieces, |_| &image));
    }
    assert_eq!(vectors.cases.len(), 61);
}

fn check_store(case: &StoreCase, altered: Vec<u8>) {
    let context = ScratchContext { task: array(&case.task), name: &case.name };
    let opened = Scratch::reopen(
        Mutex::new(altered),
        &TaskSecret::from_bytes(array(&case.secret)),
        &context,
        Opening { salt: Salt::from_random(array(&case.salt)), attempt: case.attempt },
        Sequence(case.at_least),
        ScratchOptions::default(),
    );
    let mut scratch = match opened {
        Ok(scratch) => {
            assert_eq!(case.open_error, None, "{} opened", case.id);
            scratch
        }
        Err(error) => return assert_eq!(Some(error.code()), case.open_error.as_deref(), "{}", case.id),
    };
    assert!(!case.reads.is_empty(), "{}", case.id);
    for read in &case.reads {
        // Whole pages and parts of them take different ways.
        for len in [PAGE_BYTES, 1000] {
            let mut buf = vec![0; len];
            match scratch.read(FileId(read.file), read.page * PAGE_BYTES as u64, &mut buf) {
                Ok(_) => assert!(buf.iter().all(|byte| Some(*byte) == read.plain), "{}", case.id),
                Err(error) => {
                    assert_eq!(Some(error.code()), read.error.as_deref(), "{}", case.id);
                    assert!(buf.iter().all(|byte| *byte == 0), "{} gave bytes out", case.id);
                }
            }
        }
    }
}
