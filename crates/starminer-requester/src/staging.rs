//! Ciphertext on its way up or down, in `staging/` of the home.
//!
//! Whoever stages has a directory there of its own and holds a lock on it (`flock`, which ends with the process). What is staged serves
//! nobody once its process is gone: a directory that nobody holds is removed by whoever opens the home next.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use data_encoding::HEXLOWER;

use crate::home::{HomeError, OWNER};
use crate::secrets::random_bytes;

/// Tries to get a directory: each fails only where somebody sweeps in the moment between making and locking it.
const TRIES: usize = 16;

/// Where one requester stages. Its directory is made when the first file is, and removed when the last user of it is gone.
#[derive(Debug)]
pub(crate) struct StagingArea {
    root: PathBuf,
    own: Mutex<Option<Arc<StagingDir>>>,
}

#[derive(Debug)]
struct StagingDir {
    path: PathBuf,
    files: AtomicU64,
    /// Locked for as long as it is open.
    _lock: File,
}

impl Drop for StagingDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// A staged file. It goes when this does.
#[derive(Debug)]
pub(crate) struct StagedFile {
    path: PathBuf,
    _dir: Arc<StagingDir>,
}

impl StagedFile {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl StagingArea {
    pub(crate) fn below(root: PathBuf) -> Self {
        Self { root, own: Mutex::default() }
    }

    /// A new file, open for writing.
    pub(crate) fn create(&self) -> Result<(StagedFile, File), HomeError> {
        let dir = self.dir().map_err(|source| HomeError::Local { path: self.root.clone(), source })?;
        let path = dir.path.join(dir.files.fetch_add(1, Ordering::Relaxed).to_string());
        let file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(OWNER)
            .open(&path)
            .map_err(|source| HomeError::Local { path: path.clone(), source })?;
        Ok((StagedFile { path, _dir: dir }, file))
    }

    fn dir(&self) -> io::Result<Arc<StagingDir>> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(dir) = &*own {
            return Ok(Arc::clone(dir));
        }
        for _ in 0..TRIES {
            if let Some(dir) = make(&self.root)? {
                return Ok(Arc::clone(own.insert(Arc::new(dir))));
            }
        }
        Err(io::Error::other("every directory made here was removed at once"))
    }
}

/// `None` where a sweep came between making and locking.
fn make(root: &Path) -> io::Result<Option<StagingDir>> {
    let path = root.join(HEXLOWER.encode(&random_bytes::<16>()));
    DirBuilder::new().mode(0o700).create(&path)?;
    let lock = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        lock => lock?,
    };
    lock.lock()?;
    // A sweep removes under the lock: what has its name still, once it is locked, keeps it.
    let held = lock.metadata()?;
    match fs::metadata(&path) {
        Ok(named) if (named.dev(), named.ino()) == (held.dev(), held.ino()) => {
            Ok(Some(StagingDir { path, files: AtomicU64::new(0), _lock: lock }))
        }
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes the directories that nobody holds. What cannot be removed stays: it is in nobody's way.
pub(crate) fn sweep(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let path = entry.path();
        // Not through a link: `file_type` is the entry's own.
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if let Ok(dir) = File::open(&path)
            && dir.try_lock().is_ok()
        {
            let _ = fs::remove_dir_all(&path);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn entries(dir: &Path) -> usize {
        fs::read_dir(dir).unwrap().count()
    }

    #[test]
    fn what_nobody_holds_is_swept_and_what_somebody_holds_is_not() {
        let root = tempfile::tempdir().unwrap();
        let area = StagingArea::below(root.path().into());
        assert_eq!(entries(root.path()), 0, "who stages nothing leaves nothing");
        let (first, _) = area.create().unwrap();
        let (second, _) = area.create().unwrap();
        // As a process that was killed leaves it.
        let left = root.path().join("00".repeat(16));
        fs::create_dir(&left).unwrap();
        fs::write(left.join("0"), b"ciphertext").unwrap();
        sweep(root.path());
        assert!(!left.exists() && first.path().exists() && second.path().exists());
        let gone = first.path().to_path_buf();
        drop(first);
        assert!(!gone.exists() && second.path().exists());
        drop(area);
        assert!(second.path().exists(), "what is staged outlives the area for as long as it is used");
        drop(second);
        assert_eq!(entries(root.path()), 0);
    }

    /// Whoever gets a file has it, however often others sweep meanwhile.
    #[test]
    fn sweeps_and_new_directories_do_not_meet() {
        let root = tempfile::tempdir().unwrap();
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let sweeping = scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    sweep(root.path());
                }
            });
            for _ in 0..500 {
                let area = StagingArea::below(root.path().into());
                let (file, _) = area.create().unwrap();
                assert!(file.path().exists());
            }
            done.store(true, Ordering::Relaxed);
            sweeping.join().unwrap();
        });
        assert_eq!(entries(root.path()), 0);
    }
}
