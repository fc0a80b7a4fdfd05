//! What a file operation can answer instead of a result.

use super::{InputError, ScratchError};
use crate::HostFault;

/// Why a file operation was refused. Names follow POSIX; `wasm/host/filesystem.rs` maps them to WASI's codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum FsError {
    #[error("no such file or directory")]
    NoEntry,
    #[error("file exists")]
    Exists,
    #[error("not a directory")]
    NotDirectory,
    #[error("is a directory")]
    IsDirectory,
    #[error("directory not empty")]
    NotEmpty,
    #[error("path leaves what the task was granted")]
    NotPermitted,
    #[error("read-only")]
    ReadOnly,
    #[error("descriptor is not open for that")]
    BadDescriptor,
    #[error("invalid argument")]
    Invalid,
    #[error("name or path too long, or directories nested too deep")]
    NameTooLong,
    #[error("quota of bytes or of files used up")]
    NoSpace,
    #[error("too many open files")]
    TooManyOpen,
    #[error("file would be too large")]
    FileTooLarge,
    #[error("between /state and another directory")]
    CrossDevice,
    #[error("not supported")]
    Unsupported,
    /// Not an answer to the guest: the run ends.
    #[error(transparent)]
    Host(#[from] HostFault),
}

impl From<ScratchError> for FsError {
    fn from(error: ScratchError) -> Self {
        match error {
            ScratchError::NoSpace => FsError::NoSpace,
            ScratchError::Failed => FsError::Host(HostFault::SCRATCH),
        }
    }
}

impl From<InputError> for FsError {
    fn from(InputError: InputError) -> Self {
        FsError::Host(HostFault::INPUT)
    }
}
