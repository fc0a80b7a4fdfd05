//! Opening files that somebody named.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Opens a regular file for reading and nothing else: a pipe would wait for its writer, a device may have no end. Looked at before it is
/// opened, because opening a device may do something, and again after, in case it was exchanged; that one does not wait either.
///
/// # Errors
/// Whatever opening gives; `InvalidInput` for what is no regular file.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let regular = |meta: fs::Metadata| {
        let what = if meta.is_dir() { "it is a directory" } else { "it is no regular file" };
        if meta.is_file() { Ok(()) } else { Err(io::Error::new(io::ErrorKind::InvalidInput, what)) }
    };
    regular(fs::metadata(path)?)?;
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    regular(file.metadata()?)?;
    Ok(file)
}
