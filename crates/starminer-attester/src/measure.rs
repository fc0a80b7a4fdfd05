//! The measurement of an executable: SHA-256 of its file.
//!
//! A hardware TEE measures what it starts; a software TEE has nobody to do so, and measures itself. That is a
//! simulation: whoever changes the executable can change what it reports. Source: `specs/evidence.md`, section "Software
//! TEE".

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256};
use starminer_verify::Digest;
use thiserror::Error;

/// The running executable, even where its file was replaced or deleted meanwhile.
pub const SELF_EXECUTABLE: &str = "/proc/self/exe";
/// Longest executable that is measured, in bytes: 1 GiB.
pub const MAX_EXECUTABLE_BYTES: u64 = 1 << 30;

const BUFFER_BYTES: usize = 64 * 1024;

/// An executable was not measured.
#[derive(Debug, Error)]
pub enum MeasureError {
    /// The operating system said no.
    #[error("executable")]
    Io(#[from] io::Error),
    /// Not a regular file.
    #[error("the executable is not a regular file")]
    NotAFile,
    /// Longer than [`MAX_EXECUTABLE_BYTES`].
    #[error("the executable is longer than {MAX_EXECUTABLE_BYTES} bytes")]
    TooLong,
}

/// SHA-256 of the file at `path`; [`SELF_EXECUTABLE`] for the running one. Reads in pieces, in constant memory.
pub fn measure_executable(path: impl AsRef<Path>) -> Result<Digest, MeasureError> {
    let mut file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(MeasureError::NotAFile);
    }
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0u8; BUFFER_BYTES];
    let mut total: u64 = 0;
    loop {
        let count = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        total += count as u64;
        if total > MAX_EXECUTABLE_BYTES {
            return Err(MeasureError::TooLong);
        }
        context.update(&buffer[..count]);
    }
    let digest = context.finish();
    let mut bytes = [0u8; 32];
    bytes.copy_from_slice(digest.as_ref()); // SHA-256 has 32 bytes
    Ok(Digest(bytes))
}
