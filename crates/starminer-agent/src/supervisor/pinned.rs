//! A directory that stays the one that was opened.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// A directory, held open. The posture that a node claims is of the folder that its directories were in when the agent started: whoever moves one of them away, or puts a link
/// in its place, changes nothing about where files go.
#[derive(Debug)]
pub(crate) struct PinnedDir {
    path: PathBuf,
    _dir: File,
}

impl PinnedDir {
    /// Opens a directory, made where there is none.
    ///
    /// # Errors
    /// The disk's; and that it is a link, or no directory.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let dir = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW).open(path)?;
        Ok(Self { path: format!("/proc/self/fd/{}", dir.as_raw_fd()).into(), _dir: dir })
    }

    /// A path that leads to it, as long as this is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn it_stays_the_one_that_was_opened_and_is_no_link() {
        let dir = tempfile::tempdir().unwrap();
        let [path, moved, elsewhere] = ["states", "moved", "elsewhere"].map(|name| dir.path().join(name));
        fs::create_dir(&elsewhere).unwrap();
        let pinned = PinnedDir::open(&path).unwrap();
        fs::rename(&path, &moved).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        fs::write(pinned.path().join("file"), b"ciphertext").unwrap();
        assert!(moved.join("file").exists() && !elsewhere.join("file").exists());
        assert!(PinnedDir::open(&path).is_err(), "a link");
    }
}
