//! Scratch: the files a task has open for writing, encrypted in one backing store (`specs/vault.md`, section 4).
//!
//! Pages of 64 KiB, each sealed whenever it leaves the cache, under a key of this opening and a generation number
//! that is never used twice; the table of generations stays in memory. A page that was altered, moved or put back
//! from before is refused. [`Scratch::checkpoint`] makes all of it durable at once: whatever write the machine dies
//! in, the store holds the last checkpoint or the new one. [`Scratch::reopen`] refuses one older than the caller
//! remembers.
//!
//! One store holds all files, so that a sandboxed process needs a single descriptor. Names and directories of files
//! are the caller's; a scratch knows them by [`FileId`].
//!
//! Not here: hiding which slots are written when, detecting a rollback nobody remembers the sequence of, and
//! concurrency (a scratch has one user at a time).

mod cache;
mod checkpoint;
mod directory;
mod error;
mod files;
mod slots;
mod superblock;
mod table;

#[cfg(test)]
mod tests;

use std::fmt;

pub use directory::parse_directory;
pub use error::ScratchError;
pub use files::Scratch;
pub use superblock::Superblock;

use crate::keys::Salt;

/// Bytes of a page, of its ciphertext and of a slot of the store.
pub const PAGE_BYTES: usize = 64 * 1024;
/// Binary logarithm of [`PAGE_BYTES`].
pub(crate) const PAGE_LOG2: u8 = 16;
/// Most files at a time.
pub const FILES_MAX: usize = 1 << 16;
/// Longest file in bytes, holes included.
pub const FILE_BYTES_MAX: u64 = 1 << 46;
/// Most pages that all files may hold together (about 244 GiB): what a checkpoint's root can list.
pub const PAGES_MAX: u64 = 4_000_000;
/// Most openings whose pages one store may hold.
pub const OPENINGS_MAX: usize = 1 << 10;
/// Most pages that one opening may seal; with them a key encrypts 2^48 AES blocks.
pub const WRITES_PER_KEY_MAX: u64 = 1 << 36;
/// Pages that the cache holds unless told otherwise: 4 MiB.
pub const CACHE_PAGES_DEFAULT: usize = 64;

/// Which scratch of which task: both go into its keys, so that no store opens as another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScratchContext<'a> {
    /// The task it belongs to.
    pub task: [u8; 16],
    /// Its name within the task, at most [`crate::keys::NAME_BYTES_MAX`] bytes.
    pub name: &'a str,
}

/// One opening of a scratch by one attempt of its task.
#[derive(Debug)]
pub struct Opening {
    /// Fresh random bytes: the key of every page that this opening seals derives from them.
    pub salt: Salt,
    /// The attempt's number, which grows with every opening. It leads the sequence of this opening's checkpoints, so
    /// that none that an earlier attempt left behind, acknowledged or not, can pass for a later one.
    pub attempt: u32,
}

/// Bounds of a scratch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScratchOptions {
    /// Most bytes that all files may hold together, counted in whole pages; holes are free. The store itself can grow
    /// to twice as much between checkpoints, plus the tables (36 bytes a page).
    pub limit_bytes: u64,
    /// Plaintext pages kept in memory, at least one.
    pub cache_pages: usize,
}

impl Default for ScratchOptions {
    fn default() -> Self {
        Self { limit_bytes: PAGES_MAX * PAGE_BYTES as u64, cache_pages: CACHE_PAGES_DEFAULT }
    }
}

/// A file of a scratch. Numbers start at 1, so that the first file created can hold the caller's names, and are never
/// reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(pub u64);

/// What stands for the directory where a page names its file.
pub(crate) const DIRECTORY: FileId = FileId(0);

/// Where a checkpoint stands in the order of all of its scratch's: the attempt in the upper half, its count in the
/// lower.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sequence(pub u64);

impl Sequence {
    pub(crate) fn before_first(attempt: u32) -> Self {
        Self(u64::from(attempt) << 32)
    }

    /// The attempt that made the checkpoint.
    pub fn attempt(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// A checkpoint, as those name it who cannot open it: its place, and the digest that no other has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpointed {
    /// Its place in the order of all of its scratch's.
    pub sequence: Sequence,
    /// SHA-256 of its superblock (`specs/vault.md`, section 4.9).
    pub digest: [u8; 32],
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.attempt(), self.0 as u32)
    }
}
