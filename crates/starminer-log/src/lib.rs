//! The public log without its I/O: Merkle tree, tiles, checkpoints, proofs, cosignatures, and the memory of a client.
//!
//! Three parties use it. The *writer* appends with a [`Frontier`] and signs a [`Checkpoint`]. The *verifier* turns a
//! [`SignedCheckpoint`] into a [`VerifiedCheckpoint`], asks it for [`Included`] and [`Consistent`], and keeps what it saw
//! in a [`Remembered`]. The *auditor* folds entry bundles through a [`Replay`]. Types carry the order of the checks: what
//! was only parsed has no claims, and what was verified has no public constructor.
//!
//! Formats: RFC 6962 section 2.1 (hashes and proofs) and C2SP signed-note, tlog-checkpoint, tlog-cosignature and
//! tlog-tiles; `specs/log.md` has the few places where we accept less than they allow. Entries are opaque bytes here.
//!
//! Not here: files, sockets, clocks, randomness, what an entry means, and where hashes are stored. A time or a random
//! seed comes in as an argument, an older hash through a [`HashReader`].
//!
//! ```
//! use starminer_log::*;
//!
//! // The writer: append, store, sign.
//! let signer = LogSigner::from_seed(KeyName::parse("log.example/demo")?, &[7; 32]);
//! let entries: [&[u8]; 2] = [b"lease", b"report"];
//! let batch = Frontier::empty().append(&entries)?;
//! let stored = batch.hashes().to_vec();
//! let note = Checkpoint::new(signer.name().clone(), batch.size(), batch.root())?.sign(&signer)?;
//! let proof = prove_inclusion(batch.size(), 1, &stored)?;
//!
//! // The verifier: from bytes, its own key and its own memory.
//! let checkpoint = SignedCheckpoint::parse(note.as_bytes())?.verify(&signer.key())?;
//! assert_eq!(checkpoint.verify_inclusion(b"report", &proof)?.index(), 1);
//! let mut memory = Remembered::first(checkpoint.clone());
//! assert_eq!(memory.advance(checkpoint, &ConsistencyProof::empty())?, Advance::Unchanged);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! No step can be skipped: a parsed checkpoint has no size and no root,
//! ```compile_fail
//! fn skip(note: &starminer_log::SignedCheckpoint) -> u64 { note.size() }
//! ```
//! proofs are not verified against it,
//! ```compile_fail
//! fn skip(note: &starminer_log::SignedCheckpoint, proof: &starminer_log::InclusionProof) {
//!     let _ = note.verify_inclusion(b"", proof);
//! }
//! ```
//! a witness does not sign what it does not remember,
//! ```compile_fail
//! fn skip(witness: &starminer_log::WitnessSigner, checkpoint: &starminer_log::VerifiedCheckpoint) {
//!     let _ = witness.cosign(checkpoint, 1);
//! }
//! ```
//! and what verification gives out cannot be made up.
//! ```compile_fail
//! fn skip(leaf_hash: starminer_log::Hash) -> starminer_log::Included {
//!     starminer_log::Included { index: 0, leaf_hash, checkpoint_size: 1, checkpoint_root: leaf_hash }
//! }
//! ```
//! ```compile_fail
//! fn skip(signed: starminer_log::SignedCheckpoint, key: starminer_log::LogKey) -> starminer_log::VerifiedCheckpoint {
//!     starminer_log::VerifiedCheckpoint { signed, key }
//! }
//! ```
//!
//! Every function below takes a stranger's bytes, is bounded by a named constant, and never panics; a fuzz target each:
//! [`LogKey::parse`], [`WitnessKey::parse`], [`KeyName::parse`], [`SignedCheckpoint::parse`], [`Remembered::parse`],
//! [`VerifiedCheckpoint::with_cosignatures`], [`TilePath::parse`], [`Tile::parse`], [`BundleId::parse`], and
//! deserialization of [`struct@Hash`], [`InclusionProof`], [`ConsistencyProof`] and [`ForkProof`].

mod bundle;
mod checkpoint;
mod cosignature;
mod fork;
mod frontier;
mod hash;
mod key;
mod proof;
mod remembered;
mod replay;
mod stored;
mod tile;
mod tile_set;

pub use bundle::{BundleError, BundleId, EntryBundle, MAX_BUNDLE_LEN, bundles_between};
pub use checkpoint::{
    Checkpoint, CheckpointError, MAX_NOTE_LEN, MAX_SIGNATURES, SignError, SignedCheckpoint, VerifiedCheckpoint,
    VerifyError,
};
pub use cosignature::{CosignError, Cosignature, CosignatureLine, MAX_COSIGNATURE_TIME_SECONDS, WitnessError};
pub use fork::{Fork, ForkError, ForkProof};
pub use frontier::{AppendError, Batch, Frontier, RestoreError};
pub use hash::{EMPTY_ROOT, Hash, HashError, MAX_ENTRY_LEN, leaf_hash, node_hash};
pub use key::{KeyError, KeyName, LogKey, LogSigner, MAX_KEY_NAME_LEN, MAX_VKEY_LEN, WitnessKey, WitnessSigner};
pub use proof::{
    ConsistencyProof, Consistent, Included, InclusionProof, MAX_PROOF_HASHES, ProofError, ProveError,
    consistency_reads, inclusion_reads, prove_consistency, prove_inclusion,
};
pub use remembered::{Advance, AdvanceError, Remembered, RememberedError};
pub use replay::{Replay, ReplayError, Replayed};
pub use stored::{HashReader, MAX_TREE_SIZE, MissingHash, NodePosition, OutOfTree, stored_count};
pub use tile::{MAX_TILE_PATH_LEN, TILE_HEIGHT, TILE_WIDTH, Tile, TileError, TilePath, TileReadError, tiles_between};
pub use tile_set::{MissingTile, TileSet};
