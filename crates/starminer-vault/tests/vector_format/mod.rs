//! The files under `vectors/vault/` (`specs/vault.md`, section 5): their JSON, and the rules that it refers to.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use data_encoding::{BASE64, HEXLOWER};
use serde::{Deserialize, Serialize};
use starminer_vault::object::{ChunkSize, ContentIdMode, Digests, PlainDigestMode, SealOptions};
use starminer_vault::scratch::{Opening, PAGE_BYTES, ScratchOptions};
use starminer_vault::{FileId, ObjectContext, Purpose, Salt, Scratch, ScratchContext, Sequence, TaskSecret};

/// `keys.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    pub plaintext_commitments: Vec<PlaintextCommitment>,
    pub object_commitments: Vec<ObjectCommitment>,
    pub scratch_commitments: Vec<ScratchCommitment>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlaintextCommitment {
    pub secret: String,
    pub task: String,
    pub label: String,
    pub plain_sha256: String,
    pub commitment: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectCommitment {
    pub context: Context,
    pub salt: String,
    pub chunk_size_log2: u8,
    pub commitment: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScratchCommitment {
    pub secret: String,
    pub task: String,
    pub name: String,
    pub salt: String,
    pub commitment: String,
}

/// What an object is opened as.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    pub secret: String,
    pub task: String,
    pub purpose: String,
    pub name: String,
}

impl Context {
    pub fn secret(&self) -> TaskSecret {
        TaskSecret::from_bytes(array(&self.secret))
    }

    pub fn object(&self) -> ObjectContext<'_> {
        ObjectContext {
            task: array(&self.task),
            name: &self.name,
            purpose: match self.purpose.as_str() {
                "input" => Purpose::Input,
                "output" => Purpose::Output,
                "scratch" => Purpose::Scratch,
                "file" => Purpose::File,
                other => panic!("no purpose is called {other}"),
            },
        }
    }
}

/// `object.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Objects {
    pub objects: Vec<SealedObject>,
    pub refused: Vec<RefusedObject>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedObject {
    pub id: String,
    pub context: Context,
    pub salt: String,
    pub chunk_size_log2: u8,
    pub plain_len: usize,
    pub plain_sha256: String,
    pub content_id: String,
    pub sealed: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefusedObject {
    pub id: String,
    pub context: Context,
    pub pieces: Vec<Piece>,
    pub error: String,
    pub stream_error: String,
    pub stream_gives: usize,
}

/// A part of an altered object or store.
#[derive(Clone, Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum Piece {
    Cut { of: String, from: usize, to: usize },
    Literal { hex: String },
}

/// Joins pieces of the originals that `original` knows.
pub fn join<'a>(pieces: &[Piece], original: impl Fn(&str) -> &'a [u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Cut { of, from, to } => bytes.extend_from_slice(&original(of)[*from..*to]),
            Piece::Literal { hex } => bytes.extend(unhex(hex)),
        }
    }
    bytes
}

/// `scratch.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stores {
    /// How the image came to be, for people.
    pub history: String,
    /// Base64.
    pub image: String,
    pub cases: Vec<StoreCase>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreCase {
    pub id: String,
    pub secret: String,
    pub task: String,
    pub name: String,
    /// Of the opening that reopens.
    pub salt: String,
    pub attempt: u32,
    pub at_least: u64,
    /// Originals are called `image`.
    pub pieces: Vec<Piece>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_error: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reads: Vec<PageRead>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PageRead {
    pub file: u64,
    pub page: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plain: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The history of the store in `scratch.json`; returns the image and the sequences of its two checkpoints.
pub fn store_image() -> (Vec<u8>, [Sequence; 2]) {
    let secret = TaskSecret::from_bytes([0x11; 32]);
    let context = ScratchContext { task: [0x22; 16], name: "work" };
    let store = std::sync::Mutex::new(Vec::new());
    let opening = Opening { salt: Salt::from_random([0x33; 32]), attempt: 1 };
    let options = ScratchOptions::default();
    let mut scratch = Scratch::create(store, &secret, &context, opening, options).unwrap();
    let file = scratch.create_file().unwrap();
    assert_eq!(file, FileId(1));
    scratch.write(file, 0, &[0xa0; PAGE_BYTES]).unwrap();
    scratch.write(file, PAGE_BYTES as u64, &[0xa1; PAGE_BYTES]).unwrap();
    let first = scratch.checkpoint().unwrap();
    scratch.write(file, 0, &[0xb0; PAGE_BYTES]).unwrap();
    let second = scratch.checkpoint().unwrap();
    (scratch.into_store().into_inner().unwrap(), [first, second])
}

/// What `store_image` does, in words.
pub const STORE_HISTORY: &str = "Secret 32 x 11, task 16 x 22, name work, salt 32 x 33, attempt 1. File 1: page 0 all \
     a0, page 1 all a1; checkpoint; page 0 all b0; checkpoint. Slots: 0 and 1 superblocks, 2 page 0 before, 3 page 1, 4 \
     directory before, 5 page 0, 6 directory.";

/// Byte `i` is `(i + i / 256) mod 251`.
pub fn plaintext(len: usize) -> Vec<u8> {
    (0..len).map(|i| ((i + i / 256) % 251) as u8).collect()
}

pub fn options(chunk_size_log2: u8) -> SealOptions {
    SealOptions {
        chunk_size: ChunkSize::from_log2(chunk_size_log2).unwrap(),
        digests: Digests { content_id: ContentIdMode::Compute, plain_sha256: PlainDigestMode::Compute },
    }
}

pub fn hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}

pub fn unhex(text: &str) -> Vec<u8> {
    HEXLOWER.decode(text.as_bytes()).unwrap()
}

pub fn array<const N: usize>(text: &str) -> [u8; N] {
    unhex(text).try_into().unwrap()
}

pub fn base64(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

/// Where the vectors lie.
pub fn path(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../vectors/vault").join(file)
}
