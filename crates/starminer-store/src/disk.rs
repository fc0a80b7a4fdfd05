//! The writes behind an upload, as a trait, so that tests can fail each of them before and after it persists.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

/// Writes, as few kinds as there are. All of them block.
pub trait Disk: Send + Sync + std::fmt::Debug {
    /// Appends to a file; durable only after [`Self::sync`].
    ///
    /// # Errors
    /// What the operating system says. Part of the bytes may be written.
    fn append(&self, file: &mut File, bytes: &[u8]) -> io::Result<()>;

    /// Makes a file's bytes and length durable.
    ///
    /// # Errors
    /// What the operating system says.
    fn sync(&self, file: &File) -> io::Result<()>;

    /// Gives a durable file its final name, durably; replaces what has that name.
    ///
    /// # Errors
    /// What the operating system says.
    fn publish(&self, from: &Path, to: &Path) -> io::Result<()>;
}

/// The local file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct LocalDisk;

impl Disk for LocalDisk {
    fn append(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn publish(&self, from: &Path, to: &Path) -> io::Result<()> {
        let directory = to.parent().ok_or_else(|| io::Error::other("a blob lies in a directory"))?;
        if !directory.exists() {
            create_directory_durably(directory)?;
        }
        fs::rename(from, to)?;
        sync_directory(directory)
    }
}

/// Creates a directory, and those above it, for this user alone and so that they are there after power loss.
pub(crate) fn create_directory_durably(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    create_directory_durably(parent)?;
    match fs::DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => sync_directory(parent),
    }
}

pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
