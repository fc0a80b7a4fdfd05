//! The right edge of the tree, which is all that appending needs.
//!
//! A tree of size n is a row of complete subtrees, one for each one bit of n; their hashes are its *peaks*. Appending
//! merges peaks and reads nothing, so a writer that keeps the frontier in memory pays about two hashes an entry.
//! [`Frontier::append`] leaves the frontier as it was and returns the next one inside the [`Batch`]: the writer makes the
//! batch durable first and replaces its frontier after, so that a failed write leaves nothing to undo.
//!
//! Not here: storing hashes, and deciding when to sign a checkpoint.

use crate::checkpoint::VerifiedCheckpoint;
use crate::stored::{ReadFailure, read_exactly};
use crate::{
    EMPTY_ROOT, Hash, HashReader, MAX_ENTRY_LEN, MAX_TREE_SIZE, NodePosition, OutOfTree, leaf_hash, node_hash,
    stored_count,
};

/// Size and peaks of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    /// One hash for each one bit of `size`, the largest subtree first.
    peaks: Vec<Hash>,
}

/// Why a batch could not be appended. Nothing was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The writer's fault: an entry longer than [`MAX_ENTRY_LEN`].
    #[error("entry {position} of the batch has {length_bytes} bytes; the most is 65,535")]
    EntryTooLong {
        /// Which entry of the batch, from 0.
        position: usize,
        /// Its length.
        length_bytes: usize,
    },
    /// The tree would pass [`MAX_TREE_SIZE`].
    #[error("the tree is full")]
    TreeFull,
}

impl AppendError {
    /// The stable code of this refusal.
    pub fn code(&self) -> &'static str {
        match self {
            AppendError::EntryTooLong { .. } => "log.entry-too-long",
            AppendError::TreeFull => "log.tree-full",
        }
    }
}

/// Why a frontier could not be restored.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError<E: std::error::Error + 'static> {
    /// The size is beyond [`MAX_TREE_SIZE`].
    #[error("outside the tree")]
    OutOfTree,
    /// Another number of peaks than the size has one bits.
    #[error("{given} peaks for a tree that has {needed}")]
    PeakCount {
        /// How many the size asks for.
        needed: usize,
        /// How many there were.
        given: usize,
    },
    /// The store failed.
    #[error("reading stored hashes")]
    Read(#[source] E),
    /// The store answered with another number of hashes than asked.
    #[error("the store answered with the wrong number of hashes")]
    WrongCount,
    /// What the store holds is not the tree of the checkpoint: the store is damaged, or older than the checkpoint.
    #[error("stored hashes do not give the checkpoint's root")]
    OtherRoot,
}

impl<E: std::error::Error + 'static> RestoreError<E> {
    /// The stable code of this failure.
    pub fn code(&self) -> &'static str {
        match self {
            RestoreError::OutOfTree => "log.out-of-tree",
            RestoreError::PeakCount { .. } => "log.peak-count",
            RestoreError::Read(_) | RestoreError::WrongCount => "log.store",
            RestoreError::OtherRoot => "log.store-root",
        }
    }
}

impl<E: std::error::Error + 'static> From<ReadFailure<E>> for RestoreError<E> {
    fn from(failure: ReadFailure<E>) -> Self {
        match failure {
            ReadFailure::Reader(error) => RestoreError::Read(error),
            ReadFailure::WrongCount => RestoreError::WrongCount,
        }
    }
}

impl Default for Frontier {
    fn default() -> Self {
        Frontier::empty()
    }
}

impl Frontier {
    /// The frontier of the empty tree.
    pub fn empty() -> Self {
        Frontier { size: 0, peaks: Vec::new() }
    }

    /// A frontier from its peaks, largest subtree first: what [`Frontier::peaks`] gave. Whether they are the right ones
    /// shows only in the root.
    pub fn from_peaks(size: u64, peaks: Vec<Hash>) -> Result<Self, RestoreError<std::convert::Infallible>> {
        if size > MAX_TREE_SIZE {
            return Err(RestoreError::OutOfTree);
        }
        let needed = size.count_ones() as usize;
        if peaks.len() != needed {
            return Err(RestoreError::PeakCount { needed, given: peaks.len() });
        }
        Ok(Frontier { size, peaks })
    }

    /// The stored-hash indices of the peaks of a tree of `size`, in the order of [`Frontier::peaks`]: at most 62 reads.
    pub fn reads(size: u64) -> Result<Vec<u64>, OutOfTree> {
        if size > MAX_TREE_SIZE {
            return Err(OutOfTree);
        }
        let levels = (0..=62u8).rev().filter(|level| size >> level & 1 == 1);
        levels.map(|level| Ok(NodePosition::new(level, (size >> level) - 1)?.stored_index())).collect()
    }

    /// Reads the frontier of a tree of `size` back from a store, with one read.
    pub fn restore<R: HashReader + ?Sized>(size: u64, reader: &R) -> Result<Self, RestoreError<R::Error>> {
        let indices = Frontier::reads(size).map_err(|OutOfTree| RestoreError::OutOfTree)?;
        Ok(Frontier { size, peaks: read_exactly(reader, &indices)? })
    }

    /// Like [`Frontier::restore`], and refuses a store whose hashes do not give the root that was signed. A writer starts
    /// with this, so that it never builds on a damaged store.
    pub fn restore_at<R: HashReader + ?Sized>(
        checkpoint: &VerifiedCheckpoint,
        reader: &R,
    ) -> Result<Self, RestoreError<R::Error>> {
        let frontier = Frontier::restore(checkpoint.size(), reader)?;
        if frontier.root() != checkpoint.root() {
            return Err(RestoreError::OtherRoot);
        }
        Ok(frontier)
    }

    /// Number of entries.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Hashes of the complete subtrees, largest first.
    pub fn peaks(&self) -> &[Hash] {
        &self.peaks
    }

    /// The root of the tree (RFC 6962 section 2.1): [`EMPTY_ROOT`] for the empty one.
    pub fn root(&self) -> Hash {
        let mut from_right = self.peaks.iter().rev().copied();
        let Some(last) = from_right.next() else { return EMPTY_ROOT };
        from_right.fold(last, |right, left| node_hash(&left, &right))
    }

    /// The frontier of the largest prefix whose size is a multiple of `2^level`.
    pub(crate) fn floor(&self, level: u8) -> Frontier {
        let size = self.size >> level << level;
        Frontier { size, peaks: self.peaks[..size.count_ones() as usize].to_vec() }
    }

    /// Appends entries, in order, to a copy of this frontier. O(entries + log size) hashes, no reads; all or nothing.
    pub fn append<E: AsRef<[u8]>>(&self, entries: &[E]) -> Result<Batch, AppendError> {
        for (position, entry) in entries.iter().enumerate() {
            let length_bytes = entry.as_ref().len();
            if length_bytes > MAX_ENTRY_LEN {
                return Err(AppendError::EntryTooLong { position, length_bytes });
            }
        }
        let end = self
            .size
            .checked_add(entries.len() as u64)
            .filter(|end| *end <= MAX_TREE_SIZE)
            .ok_or(AppendError::TreeFull)?;
        // Both sizes are within bounds by now, so `stored_count` cannot refuse them.
        let first_stored_index = stored_count(self.size).map_err(|OutOfTree| AppendError::TreeFull)?;
        let stored_end = stored_count(end).map_err(|OutOfTree| AppendError::TreeFull)?;

        let mut next = self.clone();
        let mut hashes = Vec::with_capacity((stored_end - first_stored_index) as usize);
        for entry in entries {
            next.push(leaf_hash(entry.as_ref()), &mut hashes);
        }
        Ok(Batch { first_entry: self.size, first_stored_index, hashes, root: next.root(), next })
    }

    /// Adds one leaf and records every subtree hash that it completes, lowest first: the stored-hash order.
    fn push(&mut self, leaf: Hash, completed: &mut Vec<Hash>) {
        completed.push(leaf);
        let mut hash = leaf;
        // Each trailing one bit of the size is a peak of equal height, waiting for its right sibling.
        for _ in 0..self.size.trailing_ones() {
            let left = self.peaks.pop().expect("a tree has one peak for each one bit of its size");
            hash = node_hash(&left, &hash);
            completed.push(hash);
        }
        self.peaks.push(hash);
        self.size += 1;
    }
}

/// The outcome of an append, before it is durable: hashes to store, the root to sign, the frontier to go on with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    first_entry: u64,
    first_stored_index: u64,
    hashes: Vec<Hash>,
    root: Hash,
    next: Frontier,
}

impl Batch {
    /// The indices that the entries got.
    pub fn entries(&self) -> std::ops::Range<u64> {
        self.first_entry..self.next.size
    }

    /// Size of the tree with the batch.
    pub fn size(&self) -> u64 {
        self.next.size
    }

    /// Root of the tree with the batch.
    pub fn root(&self) -> Hash {
        self.root
    }

    /// The stored-hash index of the first new hash. The others follow without a gap.
    pub fn first_stored_index(&self) -> u64 {
        self.first_stored_index
    }

    /// The new hashes in stored-hash order.
    pub fn hashes(&self) -> &[Hash] {
        &self.hashes
    }

    /// The new hashes with their stored-hash indices.
    pub fn stored(&self) -> impl Iterator<Item = (u64, Hash)> + '_ {
        (self.first_stored_index..).zip(self.hashes.iter().copied())
    }

    /// The frontier with the batch.
    pub fn frontier(&self) -> &Frontier {
        &self.next
    }

    /// The frontier with the batch, once the batch is durable.
    pub fn into_frontier(self) -> Frontier {
        self.next
    }
}
