//! Where node hashes live: the dense stored-hash order, and the trait through which older ones are read.
//!
//! Every complete subtree's hash gets one number, in the order in which appending completes them (Crosby and Wallach,
//! "Efficient Data Structures for Tamper-Evident Logging", section 3.3; the same numbers as Go's `sumdb/tlog`). So a
//! batch of appends produces one contiguous run of numbers, and a store may be a plain array, a table or a tile set.
//! Storing and caching are the caller's.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::Hash;

/// The largest tree, in entries. C2SP sets no bound; this one keeps every size, stored-hash index and level product
/// inside a signed 64-bit integer, which is what SQL columns hold.
pub const MAX_TREE_SIZE: u64 = 1 << 62;

/// A position or size beyond [`MAX_TREE_SIZE`], or outside the tree it is asked of. Code `log.out-of-tree`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("outside the tree")]
pub struct OutOfTree;

impl OutOfTree {
    /// The stable code of this refusal.
    pub fn code(&self) -> &'static str {
        "log.out-of-tree"
    }
}

/// A complete subtree: the `index`-th of those with `2^level` leaves, counted from the left. Level 0 is the leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodePosition {
    level: u8,
    index: u64,
}

impl NodePosition {
    /// The node at `level` and `index`; refused if its last leaf lies beyond [`MAX_TREE_SIZE`].
    pub fn new(level: u8, index: u64) -> Result<Self, OutOfTree> {
        let end = (u128::from(index) + 1).checked_shl(level.into()).ok_or(OutOfTree)?;
        if level > 62 || end > u128::from(MAX_TREE_SIZE) {
            return Err(OutOfTree);
        }
        Ok(NodePosition { level, index })
    }

    /// The position of the hash with this stored-hash index.
    pub fn from_stored_index(stored_index: u64) -> Result<Self, OutOfTree> {
        if stored_index >= stored_count(MAX_TREE_SIZE)? {
            return Err(OutOfTree);
        }
        let (level, index) = tlog_tiles::split_stored_hash_index(stored_index);
        Ok(NodePosition { level, index })
    }

    /// Levels above the leaves, 0 to 62.
    pub fn level(&self) -> u8 {
        self.level
    }

    /// The node's number within its level.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// The number under which this node's hash is stored.
    pub fn stored_index(&self) -> u64 {
        tlog_tiles::stored_hash_index(self.level, self.index)
    }

    /// The number of leaves up to and with this node's last one: the smallest tree that has the node.
    pub fn leaves_end(&self) -> u64 {
        (self.index + 1) << self.level
    }
}

/// How many hashes are stored for a tree of `size` entries; their indices are `0..stored_count(size)`.
pub fn stored_count(size: u64) -> Result<u64, OutOfTree> {
    if size > MAX_TREE_SIZE {
        return Err(OutOfTree);
    }
    // Entry n completes one subtree for itself and one for each trailing one bit of n: in sum, 2 size - ones(size).
    Ok(2 * size - u64::from(size.count_ones()))
}

/// Gives out stored hashes. Implemented by a store, by `Vec<Hash>` (a whole store in memory), by `BTreeMap<u64, Hash>`
/// (hashes fetched beforehand, for callers whose store is asynchronous) and by [`crate::TileSet`].
pub trait HashReader {
    /// Why a hash could not be read.
    type Error: std::error::Error + 'static;

    /// The hashes with these stored-hash indices, in the order asked. Every proof asks once, for at most 128 hashes.
    fn read(&self, indices: &[u64]) -> Result<Vec<Hash>, Self::Error>;
}

impl<R: HashReader + ?Sized> HashReader for &R {
    type Error = R::Error;

    fn read(&self, indices: &[u64]) -> Result<Vec<Hash>, R::Error> {
        (**self).read(indices)
    }
}

/// The stored-hash index that a reader in memory does not have. Code `log.missing-hash`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stored hash {0} is missing")]
pub struct MissingHash(pub u64);

impl MissingHash {
    /// The stable code of this failure.
    pub fn code(&self) -> &'static str {
        "log.missing-hash"
    }
}

impl HashReader for Vec<Hash> {
    type Error = MissingHash;

    fn read(&self, indices: &[u64]) -> Result<Vec<Hash>, MissingHash> {
        let at =
            |&index: &u64| usize::try_from(index).ok().and_then(|i| self.get(i)).copied().ok_or(MissingHash(index));
        indices.iter().map(at).collect()
    }
}

impl HashReader for BTreeMap<u64, Hash> {
    type Error = MissingHash;

    fn read(&self, indices: &[u64]) -> Result<Vec<Hash>, MissingHash> {
        indices.iter().map(|index| self.get(index).copied().ok_or(MissingHash(*index))).collect()
    }
}

/// How a read through a [`HashReader`] failed.
pub(crate) enum ReadFailure<E> {
    /// The reader's own error.
    Reader(E),
    /// It answered with another number of hashes than asked.
    WrongCount,
}

/// Reads, and holds the reader to the number of hashes asked for.
pub(crate) fn read_exactly<R: HashReader + ?Sized>(
    reader: &R,
    indices: &[u64],
) -> Result<Vec<Hash>, ReadFailure<R::Error>> {
    if indices.is_empty() {
        return Ok(Vec::new());
    }
    let hashes = reader.read(indices).map_err(ReadFailure::Reader)?;
    if hashes.len() != indices.len() {
        return Err(ReadFailure::WrongCount);
    }
    Ok(hashes)
}

/// Lets `tlog_tiles` read through our trait. Its error type cannot carry ours, so the failure waits here.
pub(crate) struct Bridge<'a, R: HashReader + ?Sized> {
    reader: &'a R,
    failure: RefCell<Option<ReadFailure<R::Error>>>,
}

impl<'a, R: HashReader + ?Sized> Bridge<'a, R> {
    pub(crate) fn new(reader: &'a R) -> Self {
        Bridge { reader, failure: RefCell::new(None) }
    }

    /// The failure that made `tlog_tiles` stop. It has no other reason to fail on arguments that were checked before.
    pub(crate) fn into_failure(self) -> ReadFailure<R::Error> {
        self.failure.into_inner().unwrap_or(ReadFailure::WrongCount)
    }
}

impl<R: HashReader + ?Sized> tlog_tiles::HashReader for Bridge<'_, R> {
    fn read_hashes(&self, indices: &[u64]) -> Result<Vec<tlog_tiles::Hash>, tlog_tiles::Error> {
        match read_exactly(self.reader, indices) {
            Ok(hashes) => Ok(hashes.into_iter().map(Hash::to_tlog).collect()),
            Err(failure) => {
                *self.failure.borrow_mut() = Some(failure);
                Err(tlog_tiles::Error::IndexesNotInTree)
            }
        }
    }
}

/// Runs a `tlog_tiles` prover only for the one read it makes, and returns what it asked for.
pub(crate) fn recorded_reads<T>(prove: impl FnOnce(&Recorder) -> Result<T, tlog_tiles::Error>) -> Vec<u64> {
    let recorder = Recorder(RefCell::new(Vec::new()));
    // The recorder fails every read, so the prover's own result is an error by construction.
    let _ = prove(&recorder);
    recorder.0.into_inner()
}

/// Notes the indices of a read and fails it.
pub(crate) struct Recorder(RefCell<Vec<u64>>);

impl tlog_tiles::HashReader for Recorder {
    fn read_hashes(&self, indices: &[u64]) -> Result<Vec<tlog_tiles::Hash>, tlog_tiles::Error> {
        self.0.borrow_mut().extend_from_slice(indices);
        Err(tlog_tiles::Error::IndexesNotInTree)
    }
}
