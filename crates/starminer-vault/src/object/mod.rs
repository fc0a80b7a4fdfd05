//! Objects: write-once sealed byte strings (`specs/vault.md`, section 3).
//!
//! A header of 80 bytes, then chunks of AES-256-GCM in a STREAM construction: the chunk's number and whether it is
//! the last one are its nonce, the header its associated data, and the header commits to the key, which depends on
//! task, name and purpose. What is cut, extended, reordered, spliced or opened under anything else is refused before
//! one byte of the bad chunk is given out.
//!
//! - Whole objects in memory: [`seal_bytes`], [`open_bytes`], and without allocation [`seal_into`], [`open_into`].
//! - Streams of unknown length: [`seal_stream`], [`open_stream`].
//! - Files, on several threads: [`parallel`].
//! - Random access: [`ObjectReader`]. Own schemes of sealing: [`ObjectSealer`].
//!
//! Not here: hiding the length of the plaintext, compression, and updates in place (that is what [`crate::scratch`]
//! is for).

mod cipher;
mod digests;
mod error;
mod header;
mod layout;
mod memory;
pub mod parallel;
mod reader;
mod sealer;
mod stream;

pub use digests::{ContentId, ContentIdMode, Digests, PlainDigestMode, SealedSummary};
pub use error::{OpenError, SealError};
pub use header::{HEADER_LEN, Header, MAGIC, VERSION};
pub use layout::{ChunkSize, Layout, MAX_CHUNKS, sealed_len};
pub use memory::{open_bytes, open_into, seal_bytes, seal_into};
pub use reader::{CACHE_CHUNKS_DEFAULT, ObjectReader};
pub use sealer::{ChunkRange, ObjectSealer};
pub use stream::{open_stream, seal_stream};

use crate::keys::Purpose;

/// What an object is: all of it goes into its keys, so that none opens as another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectContext<'a> {
    /// The task it belongs to.
    pub task: [u8; 16],
    /// Its name within the task, at most [`crate::keys::NAME_BYTES_MAX`] bytes, e.g. `input/data.csv`. Compared as
    /// bytes.
    pub name: &'a str,
    /// What it is for.
    pub purpose: Purpose,
}

/// How an object is sealed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SealOptions {
    /// Plaintext bytes of a chunk.
    pub chunk_size: ChunkSize,
    /// Which digests are computed on the way.
    pub digests: Digests,
}

/// Bytes that one pass reads, seals or opens, and writes at a time: large enough for few system calls, small enough to
/// stay in a core's second-level cache between the steps.
pub(crate) const GROUP_BYTES: usize = 256 * 1024;
