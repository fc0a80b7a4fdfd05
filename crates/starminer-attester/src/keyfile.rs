//! Small secret files: written whole and durable with mode 0600, and read only where nobody else could have.
//!
//! This keeps a key from other users of the machine. It does not keep it from root, and does not encrypt.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use thiserror::Error;
use zeroize::Zeroizing;

/// Longest key file, in bytes.
pub const MAX_KEY_FILE_BYTES: usize = 16 * 1024;

/// A key file was not read or written.
#[derive(Debug, Error)]
pub enum KeyFileError {
    /// The operating system said no.
    #[error("key file")]
    Io(#[from] io::Error),
    /// There is a file already; keys are never overwritten.
    #[error("the key file exists already; keys are never overwritten")]
    Exists,
    /// Something other than a regular file.
    #[error("the key file is not a regular file")]
    NotAFile,
    /// Group or others may read or write it.
    #[error("the key file has mode {mode:04o}; only its owner may have access (chmod 600)")]
    Permissions {
        /// Permission bits that were found.
        mode: u32,
    },
    /// Longer than [`MAX_KEY_FILE_BYTES`].
    #[error("the key file is longer than {MAX_KEY_FILE_BYTES} bytes")]
    TooLong,
    /// Not the documented JSON, or keys and certificate do not belong together.
    #[error("the key file is not in the documented form")]
    Malformed,
}

impl KeyFileError {
    /// Stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Io(_) => "key-file.io",
            Self::Exists => "key-file.exists",
            Self::NotAFile => "key-file.not-a-file",
            Self::Permissions { .. } => "key-file.permissions",
            Self::TooLong => "key-file.too-long",
            Self::Malformed => "key-file.malformed",
        }
    }
}

/// Creates `path` with mode 0600 and these bytes, durable once this returns. Refuses to overwrite or follow a link.
pub(crate) fn save(path: &Path, bytes: &[u8]) -> Result<(), KeyFileError> {
    let opened = OpenOptions::new()
        .write(true)
        .create_new(true) // O_EXCL: neither overwrites nor follows a link
        .mode(0o600)
        .open(path);
    let mut file = match opened {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(KeyFileError::Exists),
        other => other?,
    };
    file.write_all(bytes)?;
    file.sync_all()?;
    // The name lives in the directory, which has to be durable as well.
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()?;
    Ok(())
}

/// Reads a key file of at most [`MAX_KEY_FILE_BYTES`] that only its owner can read or write. Type and mode are those of
/// the opened file, so a change of the path in between has no effect.
pub(crate) fn load(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
    // O_NONBLOCK: opening a pipe that somebody put there must not hang.
    let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(KeyFileError::NotAFile);
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Permissions { mode });
    }
    // Room for the longest file, so that the secret is never moved by a growing buffer and left behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_KEY_FILE_BYTES + 1));
    (&mut file).take(MAX_KEY_FILE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > MAX_KEY_FILE_BYTES {
        return Err(KeyFileError::TooLong);
    }
    Ok(bytes)
}
