//! Ciphertext on this node: objects on their way in, outputs on their way out, the store of a scratch.
//!
//! All of it lies in files without names, or in memory where it is small, so that nothing is left when the last process that has one open
//! ends, however it ends. Content ids are checked while a download streams to its file; no large object is ever whole in memory.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use starminer_client::{ClientError, UploadSource};
use starminer_receipt::ObjectRef;
use starminer_sandbox::memory_file;
use starminer_verify::{Party, Refusal};

use super::pinned::PinnedDir;
use super::upstream::Upstream;
use crate::error::AgentError;

/// Objects of one task that are fetched at the same time.
const PARALLEL_FETCHES: usize = 4;
/// How often the fetching of one object is begun.
const MAX_FETCHES: u32 = 8;
/// Pause before an object is fetched again, at first and at most.
const FETCH_BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(3));
/// Outputs up to this length are uploaded from memory; longer ones from their file.
const IN_MEMORY_BYTES: u64 = 1 << 20;

/// Objects up to this length are kept in memory, as long as those of one task together stay within its share: making a file on
/// a disk costs more than fetching them.
const SMALL_OBJECT_BYTES: u64 = 64 << 10;
/// Memory for the small objects of one task.
const MEMORY_PER_TASK_BYTES: u64 = 1 << 20;
/// Unused files that are kept for later tasks.
const MAX_SPARES: usize = 64;

/// The directory for ciphertext of running tasks. Owned by one agent at a time.
#[derive(Debug)]
pub(crate) struct JobDir {
    dir: PinnedDir,
    spares: Mutex<Vec<File>>,
    _lock: File,
}

impl JobDir {
    /// Takes the directory `jobs` below `data_dir`, and throws away what an earlier agent may have left there.
    ///
    /// # Errors
    /// [`AgentError::InUse`] while another agent has it, [`AgentError::File`].
    pub(crate) fn take(data_dir: &Path) -> Result<Self, AgentError> {
        let error = |path: &Path| {
            let path = path.to_path_buf();
            move |source| AgentError::File { path, source }
        };
        let path = data_dir.join("jobs");
        let dir = PinnedDir::open(&path).map_err(error(&path))?;
        let lock_path = data_dir.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .map_err(error(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(AgentError::InUse { path: data_dir.into() }),
            Err(TryLockError::Error(source)) => return Err(AgentError::File { path: lock_path, source }),
        }
        for entry in fs::read_dir(dir.path()).map_err(error(&path))? {
            let left = entry.map_err(error(&path))?.path();
            let removed = if left.is_dir() { fs::remove_dir_all(&left) } else { fs::remove_file(&left) };
            removed.map_err(error(&left))?;
        }
        Ok(Self { dir, spares: Mutex::default(), _lock: lock })
    }

    /// An empty file without a name, for whoever may not use it at all and then [gives it back](Self::give_back).
    pub(crate) fn spare(&self) -> io::Result<File> {
        let spare = self.spares().pop();
        match spare {
            Some(file) => Ok(file),
            None => self.file(),
        }
    }

    /// Takes back a file that no process but this one has open any more. One that was written to is let go.
    pub(crate) fn give_back(&self, file: &File) {
        let is_empty = file.metadata().is_ok_and(|meta| meta.len() == 0 && meta.blocks() == 0);
        // Opened anew: position and flags of the old opening were the task's to change.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        if is_empty && let Ok(file) = OpenOptions::new().read(true).write(true).open(path) {
            let mut spares = self.spares();
            if spares.len() < MAX_SPARES {
                spares.push(file);
            }
        }
    }

    fn spares(&self) -> std::sync::MutexGuard<'_, Vec<File>> {
        self.spares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new file without a name.
    pub(crate) fn file(&self) -> io::Result<File> {
        let unnamed =
            OpenOptions::new().read(true).write(true).mode(0o600).custom_flags(libc::O_TMPFILE).open(self.dir.path());
        match unnamed {
            // A file system or kernel without unnamed files: the name lives for two calls. EISDIR is what old kernels say.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR | libc::ENOENT)) => {
                let name = crate::random::bytes::<8>().map_err(io::Error::other)?;
                let path = self.dir.path().join(data_encoding::HEXLOWER.encode(&name));
                let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
                fs::remove_file(&path)?;
                Ok(file)
            }
            result => result,
        }
    }
}

/// Fetches every object of a task, in order of the spec.
///
/// # Errors
/// Why the task cannot start here, and whose fault it is.
pub(crate) async fn fetch_all<U: Upstream>(
    upstream: &U,
    dir: &JobDir,
    objects: &[ObjectRef],
) -> Result<Vec<File>, Refusal> {
    let mut memory = MEMORY_PER_TASK_BYTES;
    let fetches: Vec<_> = objects
        .iter()
        .enumerate()
        .map(|(index, object)| {
            let left = memory.checked_sub(object.sealed_bytes).filter(|_| object.sealed_bytes <= SMALL_OBJECT_BYTES);
            memory = left.unwrap_or(memory);
            fetch(upstream, dir, index, *object, left.is_some())
        })
        .collect();
    futures_util::stream::iter(fetches).buffered(PARALLEL_FETCHES).try_collect().await
}

async fn fetch<U: Upstream>(
    upstream: &U,
    dir: &JobDir,
    index: usize,
    object: ObjectRef,
    in_memory: bool,
) -> Result<File, Refusal> {
    let mut file = if in_memory { memory_file() } else { dir.file() }.map_err(|error| storage(&error))?;
    let mut pause = FETCH_BACKOFF.0;
    let mut begun = 1;
    loop {
        let mut sink = file.try_clone().map_err(|error| storage(&error))?;
        let fetched =
            upstream.download(object.content_id, object.sealed_bytes, move |piece: &[u8]| sink.write_all(piece)).await;
        let error = match fetched {
            Ok(()) => return Ok(file),
            Err(error) => error,
        };
        if !error.is_transient() || begun >= MAX_FETCHES {
            return Err(not_fetched(index, &error));
        }
        begun += 1;
        file.set_len(0).and_then(|()| file.seek(SeekFrom::Start(0))).map_err(|error| storage(&error))?;
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(FETCH_BACKOFF.1);
    }
}

/// What a failure of the node's own disk means.
pub(crate) fn storage(error: &io::Error) -> Refusal {
    let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let (check, reason) = if full {
        ("node.storage-full", "the node's disk has no room for the task's ciphertext".to_owned())
    } else {
        ("node.storage", format!("the node's disk failed: {}", error.kind()))
    };
    Refusal::new(Party::Node, check, reason, "mend the node's disk; another node can run the task")
}

fn not_fetched(index: usize, error: &ClientError) -> Refusal {
    let what = match index {
        0 => "the workload".to_owned(),
        input => format!("input {}", input - 1),
    };
    match error {
        ClientError::Local(source) => storage(source),
        ClientError::Refused { status: 404, .. } => Refusal::new(
            Party::Requester,
            "input.missing",
            format!("the coordinator does not have {what}"),
            "upload every object of the task before it is submitted",
        ),
        ClientError::Protocol { .. } => Refusal::new(
            Party::Storage,
            "input.content-id",
            format!("what the coordinator keeps as {what} is not what the spec names"),
            "upload the object again",
        ),
        ClientError::Refused { .. }
        | ClientError::Unreachable { .. }
        | ClientError::WrongPeer { .. }
        | ClientError::NotAdmitted { .. } => Refusal::new(
            Party::Coordinator,
            "input.unavailable",
            format!("the coordinator did not hand out {what}"),
            "try again later",
        ),
    }
}

/// An output in its file, for uploading.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn upload_source(file: &File, sealed_bytes: u64) -> io::Result<UploadSource> {
    if sealed_bytes > IN_MEMORY_BYTES {
        // The file has no name; this one leads to it as long as this process has it open.
        return Ok(UploadSource::File(format!("/proc/self/fd/{}", file.as_raw_fd()).into()));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(sealed_bytes).unwrap_or(0));
    let mut reader = file.try_clone()?;
    reader.seek(SeekFrom::Start(0))?;
    reader.take(sealed_bytes + 1).read_to_end(&mut bytes)?;
    Ok(UploadSource::Bytes(Bytes::from(bytes)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn files_have_no_names_and_leftovers_go() {
        let directory = tempfile::tempdir().unwrap();
        let left = directory.path().join("jobs").join("left");
        fs::create_dir_all(left.join("deeper")).unwrap();
        fs::write(left.join("deeper/ciphertext"), b"x").unwrap();
        fs::write(directory.path().join("jobs/file"), b"x").unwrap();
        let dir = JobDir::take(directory.path()).unwrap();
        let mut file = dir.file().unwrap();
        file.write_all(b"sealed").unwrap();
        assert_eq!(fs::read_dir(directory.path().join("jobs")).unwrap().count(), 0);
        assert!(matches!(JobDir::take(directory.path()), Err(AgentError::InUse { .. })));
        drop(dir);
        JobDir::take(directory.path()).unwrap();
    }

    #[test]
    fn a_file_that_was_not_used_is_used_again() {
        let directory = tempfile::tempdir().unwrap();
        let dir = JobDir::take(directory.path()).unwrap();
        let inode = |file: &File| file.metadata().unwrap().ino();
        let (mut first, second) = (dir.spare().unwrap(), dir.spare().unwrap());
        first.seek(SeekFrom::Start(7)).unwrap();
        let (first_inode, second_inode) = (inode(&first), inode(&second));
        assert_ne!(first_inode, second_inode);
        dir.give_back(&first);
        drop(first);
        let mut again = dir.spare().unwrap();
        assert_eq!((inode(&again), again.stream_position().unwrap()), (first_inode, 0));
        // One that holds something of its task is nobody else's.
        again.write_all(b"sealed").unwrap();
        dir.give_back(&again);
        assert!(dir.spares().is_empty());
    }

    #[test]
    fn outputs_are_read_from_memory_or_from_their_file() {
        let directory = tempfile::tempdir().unwrap();
        let dir = JobDir::take(directory.path()).unwrap();
        let mut file = dir.file().unwrap();
        file.write_all(&vec![7; 3 << 20]).unwrap();
        let UploadSource::File(path) = upload_source(&file, 3 << 20).unwrap() else { panic!("in memory") };
        assert_eq!(fs::read(path).unwrap(), vec![7; 3 << 20]);
        let mut small = dir.file().unwrap();
        small.write_all(b"abc").unwrap();
        let UploadSource::Bytes(bytes) = upload_source(&small, 3).unwrap() else { panic!("not in memory") };
        assert_eq!(&bytes[..], b"abc");
    }
}
