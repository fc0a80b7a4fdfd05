//! Entry bundles: up to 256 consecutive entries, each with its length in front (C2SP tlog-tiles, "Log entries").
//!
//! A bundle holds the entries whose leaf hashes are the level-0 tile of the same index and width. Entries are opaque
//! bytes. A bundle proves nothing by itself; [`crate::Replay`] and inclusion proofs do.

use crate::tile::{TILE_WIDTH, TilePath};
use crate::{MAX_ENTRY_LEN, MAX_TREE_SIZE, OutOfTree};

/// The longest bundle, in bytes: 256 entries of 65,535 bytes with their lengths.
pub const MAX_BUNDLE_LEN: usize = TILE_WIDTH as usize * (2 + MAX_ENTRY_LEN);

/// Why a bundle was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// A width of 0 or over [`TILE_WIDTH`], or another number of entries than the width.
    #[error("the bundle has the wrong number of entries")]
    Width,
    /// No tree of up to [`MAX_TREE_SIZE`] entries has this bundle.
    #[error("no tree has this bundle")]
    OutOfTree,
    /// An entry longer than [`MAX_ENTRY_LEN`].
    #[error("an entry is longer than 65,535 bytes")]
    EntryTooLong,
    /// The content ends inside an entry.
    #[error("the bundle is truncated")]
    Truncated,
    /// The content goes on after the last entry.
    #[error("the bundle has bytes after its last entry")]
    Trailing,
}

impl BundleError {
    /// The stable code of this refusal.
    pub fn code(&self) -> &'static str {
        match self {
            BundleError::Width => "log.bundle-width",
            BundleError::OutOfTree => "log.out-of-tree",
            BundleError::EntryTooLong => "log.entry-too-long",
            BundleError::Truncated => "log.bundle-truncated",
            BundleError::Trailing => "log.bundle-trailing",
        }
    }
}

/// Which bundle: the first `width` entries of those from `256 * index` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BundleId {
    index: u64,
    width: u16,
}

impl BundleId {
    /// A bundle that some tree of up to [`MAX_TREE_SIZE`] entries has.
    pub fn new(index: u64, width: u16) -> Result<Self, BundleError> {
        if !(1..=TILE_WIDTH).contains(&width) {
            return Err(BundleError::Width);
        }
        if u128::from(index) * u128::from(TILE_WIDTH) + u128::from(width) > u128::from(MAX_TREE_SIZE) {
            return Err(BundleError::OutOfTree);
        }
        Ok(BundleId { index, width })
    }

    /// The bundle that holds entry `entry` in a tree of `size`, at the width it has there.
    pub fn holding(entry: u64, size: u64) -> Result<Self, OutOfTree> {
        if entry >= size || size > MAX_TREE_SIZE {
            return Err(OutOfTree);
        }
        Ok(BundleId::in_tree(entry / u64::from(TILE_WIDTH), size))
    }

    /// Bundle `index` of a tree of `size`, which has it.
    fn in_tree(index: u64, size: u64) -> Self {
        let entries = size - index * u64::from(TILE_WIDTH);
        BundleId { index, width: entries.min(u64::from(TILE_WIDTH)) as u16 }
    }

    /// Number of the bundle.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Entries, 1 to 256.
    pub fn width(&self) -> u16 {
        self.width
    }

    /// The indices of its entries.
    pub fn entries(&self) -> std::ops::Range<u64> {
        let first = self.index * u64::from(TILE_WIDTH);
        first..first + u64::from(self.width)
    }

    /// Whether a tree of `size` has all of the bundle's entries.
    pub fn is_within(&self, size: u64) -> bool {
        self.entries().end <= size
    }

    /// The path under the log's prefix: `tile/entries/<N>[.p/<W>]`.
    pub fn path(&self) -> String {
        TilePath::Entries(*self).to_string()
    }

    /// The bundle's content: each entry after its length as a big-endian u16. Exactly `width` entries.
    pub fn encode<E: AsRef<[u8]>>(&self, entries: &[E]) -> Result<Vec<u8>, BundleError> {
        if entries.len() != usize::from(self.width) {
            return Err(BundleError::Width);
        }
        let mut content = Vec::with_capacity(entries.iter().map(|entry| 2 + entry.as_ref().len()).sum());
        for entry in entries {
            let entry = entry.as_ref();
            let length = u16::try_from(entry.len()).map_err(|_| BundleError::EntryTooLong)?;
            content.extend(length.to_be_bytes());
            content.extend(entry);
        }
        Ok(content)
    }

    /// Parses content of exactly `width` entries, without copying them. What is longer than [`MAX_BUNDLE_LEN`] has
    /// trailing bytes.
    pub fn parse(self, content: &[u8]) -> Result<EntryBundle<'_>, BundleError> {
        let mut rest = content;
        let mut entries = Vec::with_capacity(self.width.into());
        for _ in 0..self.width {
            let (length, after) = rest.split_first_chunk::<2>().ok_or(BundleError::Truncated)?;
            let (entry, after) =
                after.split_at_checked(u16::from_be_bytes(*length).into()).ok_or(BundleError::Truncated)?;
            entries.push(entry);
            rest = after;
        }
        if !rest.is_empty() {
            return Err(BundleError::Trailing);
        }
        Ok(EntryBundle { id: self, entries })
    }
}

/// The bundles that a tree of `new_size` has and one of `old_size` has not: full ones, and the partial one of `new_size`.
/// What an auditor fetches, and what a writer stores.
pub fn bundles_between(old_size: u64, new_size: u64) -> Result<impl Iterator<Item = BundleId>, OutOfTree> {
    if new_size > MAX_TREE_SIZE {
        return Err(OutOfTree);
    }
    let width = u64::from(TILE_WIDTH);
    let end = if old_size < new_size { new_size.div_ceil(width) } else { 0 };
    Ok((old_size / width..end).map(move |index| BundleId::in_tree(index, new_size)))
}

/// A parsed bundle, borrowing from its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryBundle<'a> {
    id: BundleId,
    entries: Vec<&'a [u8]>,
}

impl<'a> EntryBundle<'a> {
    /// Which bundle.
    pub fn id(&self) -> BundleId {
        self.id
    }

    /// The entries, in order; the first is entry `id().entries().start` of the log.
    pub fn entries(&self) -> &[&'a [u8]] {
        &self.entries
    }
}
