//! The file system's two stores, over the vault: sealed inputs to read, one encrypted scratch to write.
//!
//! All files that a task writes share one descriptor. What goes through it is ciphertext; the plaintext pages that the
//! vault keeps are in this process's memory and nowhere else.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use starminer_runtime::fs::{InputError, InputFile};
use starminer_vault::scratch::{Opening, ScratchContext, ScratchError as VaultScratchError, ScratchOptions};
use starminer_vault::{ObjectReader, PageStore, ReadAt, Scratch, TaskSecret, WriteAt};
use starminer_verify::{Attempt, TaskId};

use super::Broken;
use super::keys::salt;

/// Name of the scratch in the vault's key schedule.
const SCRATCH_NAME: &str = "scratch";

/// A sealed input, each chunk proven authentic before a byte of it is read.
pub(crate) struct VaultInput {
    reader: Arc<ObjectReader<File>>,
}

impl VaultInput {
    pub(crate) fn new(reader: Arc<ObjectReader<File>>) -> Self {
        Self { reader }
    }
}

impl InputFile for VaultInput {
    fn len(&self) -> u64 {
        self.reader.len()
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), InputError> {
        match self.reader.read_at(offset, buffer) {
            Ok(count) if count == buffer.len() => Ok(()),
            Ok(_) | Err(_) => Err(InputError),
        }
    }
}

/// Whether the disk under the scratch was full when it failed: the machine lacks room, which is another fault than one
/// that gives wrong bytes.
#[derive(Debug, Clone, Default)]
pub(crate) struct StorageFull(Arc<AtomicBool>);

impl StorageFull {
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn note(&self, error: &io::Error) {
        if is_storage_full(error) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

/// Whether an error of the file system says that there is no room: on the disk, for this user, or below the file size limit.
pub(crate) fn is_storage_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

/// Remembers why the store failed; the vault and the file system above it only pass on that it did.
pub(super) struct WatchedFile {
    pub(super) file: File,
    pub(super) full: StorageFull,
}

impl WatchedFile {
    fn watch<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.inspect_err(|error| self.full.note(error))
    }
}

impl ReadAt for WatchedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        ReadAt::read_at(&self.file, buf, offset)
    }

    fn byte_len(&self) -> io::Result<u64> {
        self.file.byte_len()
    }
}

impl WriteAt for WatchedFile {
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.watch(WriteAt::write_all_at(&self.file, buf, offset))
    }
}

impl PageStore for WatchedFile {
    fn set_len(&self, len_bytes: u64) -> io::Result<()> {
        self.watch(PageStore::set_len(&self.file, len_bytes))
    }

    fn sync(&self) -> io::Result<()> {
        self.watch(PageStore::sync(&self.file))
    }
}

/// An empty scratch of a task in `file`, under keys of this opening alone.
pub(crate) fn create_scratch(
    file: File,
    secret: &TaskSecret,
    task: TaskId,
    attempt: Attempt,
    limit_bytes: u64,
    full: StorageFull,
) -> Result<Result<Scratch<WatchedFile>, VaultScratchError>, Broken> {
    let context = ScratchContext { task: task.0, name: SCRATCH_NAME };
    let opening = Opening { salt: salt()?, attempt: attempt.0 };
    let options = ScratchOptions { limit_bytes, ..ScratchOptions::default() };
    let store = WatchedFile { file, full };
    Ok(Scratch::create(store, secret, &context, opening, options))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use starminer_runtime::fs::{ScratchError, ScratchFiles};

    use super::*;

    fn scratch(limit_bytes: u64) -> (impl ScratchFiles, File) {
        let file = tempfile::tempfile().unwrap();
        let secret = TaskSecret::from_bytes([7; 32]);
        let copy = file.try_clone().unwrap();
        let made = create_scratch(file, &secret, TaskId([1; 16]), Attempt(1), limit_bytes, StorageFull::default());
        (made.unwrap().unwrap(), copy)
    }

    #[test]
    fn what_is_written_comes_back_and_is_nowhere_in_the_file() {
        let (mut scratch, file) = scratch(64 << 20);
        let id = scratch.create().unwrap();
        let text = b"CANARY-0badc0de ".repeat(64 * 1024);
        scratch.write(id, 5, &text).unwrap();
        // More than the vault's cache, so that pages had to go to the store.
        let other = scratch.create().unwrap();
        scratch.write(other, 0, &vec![1; 8 << 20]).unwrap();
        let mut back = vec![0; text.len()];
        scratch.read(id, 5, &mut back).unwrap();
        assert!(back == text);
        let mut stored = vec![0; usize::try_from(file.byte_len().unwrap()).unwrap()];
        assert!(stored.len() > 1 << 20, "nothing was spilled");
        file.read_full_at(&mut stored, 0).unwrap();
        assert!(!stored.windows(15).any(|window| window == b"CANARY-0badc0de"));
    }

    #[test]
    fn limits_are_no_space_and_a_gap_is_zero() {
        let (mut scratch, _) = scratch(128 * 1024);
        let id = scratch.create().unwrap();
        scratch.set_len(id, 1 << 30).unwrap();
        let mut hole = [9; 16];
        scratch.read(id, 1 << 29, &mut hole).unwrap();
        assert_eq!(hole, [0; 16]);
        assert_eq!(scratch.write(id, 0, &vec![0; 256 * 1024]), Err(ScratchError::NoSpace));
        scratch.remove(id).unwrap();
        assert_eq!(scratch.read(id, 0, &mut hole), Err(ScratchError::Failed));
    }
}
