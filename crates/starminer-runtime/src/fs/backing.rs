//! What the file system needs from its stores: sealed inputs that can be read anywhere, and scratch files that can be
//! written anywhere. Encryption, quota of pages and authentication are theirs.

/// A sealed input. The length is authenticated, and so is every byte that `read_at` gives out.
pub trait InputFile: Send {
    /// Plaintext bytes in the input.
    fn len(&self) -> u64;

    /// True for an input without bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buffer` from `offset`. The caller stays within `len`. Small reads in sequence are common: the input keeps
    /// what it has decrypted.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), InputError>;
}

/// Stored bytes of an input are missing or do not authenticate. Always the host's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a sealed input could not be read or did not authenticate")]
pub struct InputError;

/// Names one file in a [`ScratchFiles`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ScratchId(pub u64);

/// Files of one task that are open for writing. Nothing of them reaches a disk in clear.
pub trait ScratchFiles: Send {
    /// Makes an empty file.
    fn create(&mut self) -> Result<ScratchId, ScratchError>;

    /// Fills `buffer` from `offset`. The caller stays within the file; bytes never written are zero.
    fn read(&mut self, file: ScratchId, offset: u64, buffer: &mut [u8]) -> Result<(), ScratchError>;

    /// Writes all of `data` at `offset`, growing the file where needed; a gap reads as zeros. After an error the file's
    /// length is what it was.
    fn write(&mut self, file: ScratchId, offset: u64, data: &[u8]) -> Result<(), ScratchError>;

    /// Cuts the file, or grows it with zeros.
    fn set_len(&mut self, file: ScratchId, len: u64) -> Result<(), ScratchError>;

    /// Gives the file's space back.
    fn remove(&mut self, file: ScratchId) -> Result<(), ScratchError>;
}

/// Files that outlive the process, as they were at their last commit. Nothing of them reaches a disk in clear.
pub trait StateFiles: Send {
    /// Their contents.
    fn contents(&mut self) -> &mut dyn ScratchFiles;

    /// Bytes in a file; `None` where there is no such file.
    fn len(&self, file: ScratchId) -> Option<u64>;

    /// All files, in the order they were made in, without the one that keeps the tree.
    fn files(&self) -> Vec<ScratchId>;

    /// The tree that came with the last commit; `None` where nothing was committed.
    fn tree(&mut self) -> Result<Option<Vec<u8>>, ScratchError>;

    /// Makes all files, and `tree` with them, durable at once: whatever the machine dies in, the one before or this one is there. Returns when it is.
    fn commit(&mut self, tree: &[u8]) -> Result<(), ScratchError>;
}

/// Why a scratch file could not be changed or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScratchError {
    /// The task's quota is used up. The guest sees `insufficient-space`.
    #[error("the task's scratch quota is used up")]
    NoSpace,
    /// The store failed or gave back bytes that do not authenticate. The host's fault: the run ends.
    #[error("the scratch store failed")]
    Failed,
}
