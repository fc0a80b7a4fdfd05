//! Why an object could not be sealed or opened. Codes are stable; messages are for people and never carry key or
//! plaintext.

use std::io;

use thiserror::Error;

/// Why sealing failed. What was written to the sink so far is not an object and must be thrown away.
#[derive(Debug, Error)]
pub enum SealError {
    /// The caller's name for the object does not fit into a key derivation.
    #[error("the object's name is longer than {max} bytes", max = crate::keys::NAME_BYTES_MAX)]
    NameTooLong,
    /// The plaintext does not fit into one object.
    #[error("the plaintext takes more than 2^32 chunks")]
    TooLong,
    /// The plaintext became shorter while it was read.
    #[error("the plaintext ended before the length that it had at the start")]
    SourceShrank,
    /// Reading the plaintext failed.
    #[error("the plaintext could not be read")]
    Source(#[source] io::Error),
    /// Writing the object failed.
    #[error("the sealed object could not be written")]
    Sink(#[source] io::Error),
}

impl SealError {
    /// The stable code of this failure.
    pub fn code(&self) -> &'static str {
        match self {
            SealError::NameTooLong => "vault.seal.name-too-long",
            SealError::TooLong => "vault.seal.too-long",
            SealError::SourceShrank => "vault.seal.source-shrank",
            SealError::Source(_) => "vault.seal.source",
            SealError::Sink(_) => "vault.seal.sink",
        }
    }
}

/// Why an object was refused, or could not be opened. No byte of a refused chunk was given out; earlier chunks may
/// have been.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The caller's name for the object is one that no object has.
    #[error("the object's name is longer than {max} bytes", max = crate::keys::NAME_BYTES_MAX)]
    NameTooLong,
    /// Shorter than the smallest object, or a length that no object has: it was cut.
    #[error("no object has this length: it was cut or padded")]
    Length,
    /// The first bytes are not those of an object.
    #[error("this is not a sealed object")]
    NotAnObject,
    /// Made by a later version of the format.
    #[error("the object has format version {version}, and this program reads version 1")]
    Version {
        /// What the header says.
        version: u16,
    },
    /// The header names a chunk size outside the bounds.
    #[error("the object's chunk size 2^{log2} is not between 2^12 and 2^20")]
    ChunkSize {
        /// What the header says.
        log2: u8,
    },
    /// Reserved bytes of the header are not zero.
    #[error("reserved bytes of the object's header are set")]
    Reserved,
    /// The header's commitment is not to this key: another secret, task, name or purpose, or the header was altered.
    #[error("the object was not sealed under this secret for this task, name and purpose, or its header was altered")]
    Key,
    /// A chunk is not authentic: altered, moved, or of another object.
    #[error("chunk {index} of the object was altered or does not belong there")]
    Chunk {
        /// The number of the first bad chunk, from 0.
        index: u64,
    },
    /// What stands at the end is not the authentic last chunk: the object was cut, extended or altered there.
    #[error("the object does not end where it was sealed to end: it was cut, extended or altered")]
    End,
    /// The caller's buffer is not as long as the plaintext.
    #[error("the buffer for the plaintext has the wrong length")]
    BufferLength,
    /// The object has more chunks than the format allows.
    #[error("the object has more than 2^32 chunks")]
    TooLong,
    /// Reading the object failed.
    #[error("the sealed object could not be read")]
    Source(#[source] io::Error),
    /// Writing the plaintext failed.
    #[error("the plaintext could not be written")]
    Sink(#[source] io::Error),
}

impl OpenError {
    /// The stable code of this failure.
    pub fn code(&self) -> &'static str {
        match self {
            OpenError::NameTooLong => "vault.object.name-too-long",
            OpenError::Length => "vault.object.length",
            OpenError::NotAnObject => "vault.object.not-an-object",
            OpenError::Version { .. } => "vault.object.version",
            OpenError::ChunkSize { .. } => "vault.object.chunk-size",
            OpenError::Reserved => "vault.object.reserved",
            OpenError::Key => "vault.object.key",
            OpenError::Chunk { .. } => "vault.object.chunk",
            OpenError::End => "vault.object.end",
            OpenError::BufferLength => "vault.object.buffer-length",
            OpenError::TooLong => "vault.object.too-long",
            OpenError::Source(_) => "vault.object.source",
            OpenError::Sink(_) => "vault.object.sink",
        }
    }
}
