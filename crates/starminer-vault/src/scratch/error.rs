//! Why an operation on a scratch failed. Codes are stable; messages never carry key or plaintext.

use std::io;

use thiserror::Error;

use crate::scratch::{FileId, Sequence};

/// Why an operation on a scratch failed.
#[derive(Debug, Error)]
pub enum ScratchError {
    /// The caller's name for the scratch does not fit into a key derivation.
    #[error("the scratch's name is longer than {max} bytes", max = crate::keys::NAME_BYTES_MAX)]
    NameTooLong,
    /// There is no such file.
    #[error("the scratch has no file {}", .0.0)]
    NoSuchFile(FileId),
    /// One file too many.
    #[error("the scratch has its {max} files already", max = crate::scratch::FILES_MAX)]
    TooManyFiles,
    /// A file would end beyond the bound.
    #[error("a file of the scratch cannot be longer than 64 TiB")]
    FileTooLong,
    /// The limit on what all files hold is reached. Nothing was written.
    #[error("the scratch is full: its files may hold {limit_bytes} bytes")]
    Quota {
        /// The limit that was set.
        limit_bytes: u64,
    },
    /// This opening has sealed as many pages as one key may: checkpoint and reopen with a new salt.
    #[error("this opening of the scratch has sealed as many pages as its key may")]
    KeyExhausted,
    /// This opening has made 2^32 checkpoints.
    #[error("this opening of the scratch has made as many checkpoints as it may")]
    SequenceExhausted,
    /// The store has no checkpoint.
    #[error("the store holds no checkpoint of a scratch")]
    NoCheckpoint,
    /// Made by a later version of the format.
    #[error("the scratch has format version {version}, and this program reads version 1")]
    Version {
        /// What the superblock says.
        version: u16,
    },
    /// The superblocks commit to another key: another secret, task or name.
    #[error("the scratch was not made under this secret for this task and name")]
    Key,
    /// No superblock is authentic.
    #[error("the scratch's superblocks were altered")]
    Superblock,
    /// The newest checkpoint in the store is older than the caller knows one to be.
    #[error("the store was rolled back: its newest checkpoint is {found}, and {at_least} was made")]
    RolledBack {
        /// The newest authentic checkpoint found.
        found: Sequence,
        /// The one that the caller remembers.
        at_least: Sequence,
    },
    /// The checkpoint was made by this attempt or a later one.
    #[error("the store has a checkpoint of attempt {found}, and attempt {attempt} may not continue it")]
    Attempt {
        /// The attempt that made it.
        found: u32,
        /// The attempt that wants to open.
        attempt: u32,
    },
    /// The salt is one that an earlier opening used.
    #[error("the salt of this opening was used before")]
    SaltReused,
    /// Pages of too many openings are in the store.
    #[error("the scratch holds pages of {max} openings already", max = crate::scratch::OPENINGS_MAX)]
    TooManyOpenings,
    /// A page is not the one that was written last: altered, moved, or put back from before.
    #[error("page {page} of file {} was altered, moved or put back from before", .file.0)]
    Page {
        /// The file.
        file: FileId,
        /// The page's number within it, from 0.
        page: u64,
    },
    /// A page of the directory is not authentic.
    #[error("the scratch's directory was altered")]
    Directory,
    /// The directory is authentic and makes no sense: a fault of whoever wrote it, not of the store.
    #[error("the scratch's directory contradicts itself: {what}")]
    Malformed {
        /// What is wrong with it.
        what: &'static str,
    },
    /// The store ends before a page that it must hold.
    #[error("the store was cut short")]
    Truncated,
    /// The store failed.
    #[error("the store of the scratch could not be read or written")]
    Store(#[from] io::Error),
}

impl ScratchError {
    /// The stable code of this failure.
    pub fn code(&self) -> &'static str {
        match self {
            ScratchError::NameTooLong => "vault.scratch.name-too-long",
            ScratchError::NoSuchFile(_) => "vault.scratch.no-such-file",
            ScratchError::TooManyFiles => "vault.scratch.too-many-files",
            ScratchError::FileTooLong => "vault.scratch.file-too-long",
            ScratchError::Quota { .. } => "vault.scratch.quota",
            ScratchError::KeyExhausted => "vault.scratch.key-exhausted",
            ScratchError::SequenceExhausted => "vault.scratch.sequence-exhausted",
            ScratchError::NoCheckpoint => "vault.scratch.no-checkpoint",
            ScratchError::Version { .. } => "vault.scratch.version",
            ScratchError::Key => "vault.scratch.key",
            ScratchError::Superblock => "vault.scratch.superblock",
            ScratchError::RolledBack { .. } => "vault.scratch.rolled-back",
            ScratchError::Attempt { .. } => "vault.scratch.attempt",
            ScratchError::SaltReused => "vault.scratch.salt-reused",
            ScratchError::TooManyOpenings => "vault.scratch.too-many-openings",
            ScratchError::Page { .. } => "vault.scratch.page",
            ScratchError::Directory => "vault.scratch.directory",
            ScratchError::Malformed { .. } => "vault.scratch.malformed",
            ScratchError::Truncated => "vault.scratch.truncated",
            ScratchError::Store(_) => "vault.scratch.store",
        }
    }
}
