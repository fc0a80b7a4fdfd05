//! Tiles: 256 consecutive hashes of every eighth level, the unit in which the tree is served (C2SP tlog-tiles).
//!
//! [`Tile`] names one tile of one width; [`TilePath`] is the path of a tile or an entry bundle under the log's prefix.
//! Content is the hashes, concatenated. Serving, caching and compressing are the caller's. A tile proves nothing by
//! itself: hashes from one count once a proof made of them holds against a verified checkpoint.

use std::fmt;

use crate::bundle::{BundleError, BundleId};
use crate::stored::{ReadFailure, read_exactly};
use crate::{Hash, HashReader, MAX_TREE_SIZE, NodePosition, OutOfTree};

/// Hashes of a full tile, and entries of a full bundle.
pub const TILE_WIDTH: u16 = 256;

/// Levels of the tree that one tile spans.
pub const TILE_HEIGHT: u8 = 8;

/// The longest path, in bytes: `tile/entries/` and an index of 18 digits with a partial width take 49.
pub const MAX_TILE_PATH_LEN: usize = 64;

/// The highest level that a path may spell (C2SP tlog-tiles, "Merkle Tree").
const MAX_PATH_LEVEL: u8 = 63;

/// Why a tile or a path was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TileError {
    /// Not a path of a tile or bundle in its one spelling.
    #[error("not a tile path")]
    Path,
    /// A width of 0 or over [`TILE_WIDTH`].
    #[error("a tile has 1 to 256 hashes")]
    Width,
    /// No tree of up to [`MAX_TREE_SIZE`] entries has this tile.
    #[error("no tree has this tile")]
    OutOfTree,
    /// The content has another length than the width says.
    #[error("the tile's content has the wrong length")]
    Length,
}

impl TileError {
    /// The stable code of this refusal.
    pub fn code(&self) -> &'static str {
        match self {
            TileError::Path => "log.tile-path",
            TileError::Width => "log.tile-width",
            TileError::OutOfTree => "log.out-of-tree",
            TileError::Length => "log.tile-length",
        }
    }
}

/// Why a tile could not be read from a store.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TileReadError<E: std::error::Error + 'static> {
    /// The store failed.
    #[error("reading stored hashes")]
    Read(#[source] E),
    /// The store answered with another number of hashes than asked.
    #[error("the store answered with the wrong number of hashes")]
    WrongCount,
}

impl<E: std::error::Error + 'static> TileReadError<E> {
    /// The stable code of this failure.
    pub fn code(&self) -> &'static str {
        "log.store"
    }
}

impl<E: std::error::Error + 'static> From<ReadFailure<E>> for TileReadError<E> {
    fn from(failure: ReadFailure<E>) -> Self {
        match failure {
            ReadFailure::Reader(error) => TileReadError::Read(error),
            ReadFailure::WrongCount => TileReadError::WrongCount,
        }
    }
}

/// One tile: the first `width` hashes of tile `index` at tile level `level`, each the root of a subtree of `256^level`
/// entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tile {
    level: u8,
    index: u64,
    width: u16,
}

impl Tile {
    /// A tile that some tree of up to [`MAX_TREE_SIZE`] entries has.
    pub fn new(level: u8, index: u64, width: u16) -> Result<Self, TileError> {
        if !(1..=TILE_WIDTH).contains(&width) {
            return Err(TileError::Width);
        }
        let hashes = u128::from(index) * u128::from(TILE_WIDTH) + u128::from(width);
        if level > MAX_PATH_LEVEL / TILE_HEIGHT || hashes > u128::from(MAX_TREE_SIZE >> (level * TILE_HEIGHT)) {
            return Err(TileError::OutOfTree);
        }
        Ok(Tile { level, index, width })
    }

    /// The tile that holds the hash of `node` in a tree of `size`, at the width it has there. A node between two tile
    /// levels is computed from the tile below it.
    pub fn holding(node: NodePosition, size: u64) -> Result<Self, OutOfTree> {
        if node.leaves_end() > size || size > MAX_TREE_SIZE {
            return Err(OutOfTree);
        }
        let level = node.level() / TILE_HEIGHT;
        let first = node.index() << (node.level() % TILE_HEIGHT);
        let index = first / u64::from(TILE_WIDTH);
        Ok(Tile { level, index, width: width_in(size, level, index) })
    }

    /// Tile level: 0 holds leaf hashes, each next one the roots of full tiles below.
    pub fn level(&self) -> u8 {
        self.level
    }

    /// Number within the level.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Hashes, 1 to 256.
    pub fn width(&self) -> u16 {
        self.width
    }

    /// Whether the tile is not full.
    pub fn is_partial(&self) -> bool {
        self.width < TILE_WIDTH
    }

    /// Whether a tree of `size` has all of the tile's hashes: what a server may serve once a checkpoint of that size is
    /// published.
    pub fn is_within(&self, size: u64) -> bool {
        self.index * u64::from(TILE_WIDTH) + u64::from(self.width) <= size >> (self.level * TILE_HEIGHT)
    }

    /// The stored-hash indices of the tile's hashes, in order.
    pub fn reads(&self) -> Vec<u64> {
        let first = self.index * u64::from(TILE_WIDTH);
        let node = |index| tlog_tiles::stored_hash_index(self.level * TILE_HEIGHT, index);
        (first..first + u64::from(self.width)).map(node).collect()
    }

    /// The tile's content from a store, with one read of `width` hashes.
    pub fn read<R: HashReader + ?Sized>(&self, reader: &R) -> Result<Vec<u8>, TileReadError<R::Error>> {
        Ok(concatenate(&read_exactly(reader, &self.reads())?))
    }

    /// The content of a tile of these hashes: 32 bytes each, in order. Refused unless there are `width` of them.
    pub fn encode(&self, hashes: &[Hash]) -> Result<Vec<u8>, TileError> {
        if hashes.len() != usize::from(self.width) {
            return Err(TileError::Length);
        }
        Ok(concatenate(hashes))
    }

    /// The hashes of a tile's content. Refused unless it has exactly 32 bytes for each of `width`.
    pub fn parse(&self, content: &[u8]) -> Result<Vec<Hash>, TileError> {
        let (hashes, rest) = content.as_chunks::<32>();
        if !rest.is_empty() || hashes.len() != usize::from(self.width) {
            return Err(TileError::Length);
        }
        Ok(hashes.iter().map(|hash| Hash(*hash)).collect())
    }

    /// The path under the log's prefix: `tile/<L>/<N>[.p/<W>]`.
    pub fn path(&self) -> String {
        TilePath::Tile(*self).to_string()
    }
}

fn concatenate(hashes: &[Hash]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| hash.0).collect()
}

/// How many hashes tile `index` of `level` has in a tree of `size`, where it has at least one.
fn width_in(size: u64, level: u8, index: u64) -> u16 {
    let hashes = (size >> (level * TILE_HEIGHT)) - index * u64::from(TILE_WIDTH);
    hashes.min(u64::from(TILE_WIDTH)) as u16
}

/// The tiles that a tree of `new_size` has and one of `old_size` has not: full ones, and of the partial ones only those
/// of `new_size` itself. Lowest level first. About `(new_size - old_size) / 255` tiles; empty if the tree did not grow.
pub fn tiles_between(old_size: u64, new_size: u64) -> Result<impl Iterator<Item = Tile>, OutOfTree> {
    if new_size > MAX_TREE_SIZE {
        return Err(OutOfTree);
    }
    let levels = (0..=MAX_PATH_LEVEL / TILE_HEIGHT)
        .map(move |level| (level, old_size >> (level * TILE_HEIGHT), new_size >> (level * TILE_HEIGHT)));
    Ok(levels.filter(|(_, old, new)| old < new).flat_map(move |(level, old, new)| {
        let width = u64::from(TILE_WIDTH);
        (old / width..new.div_ceil(width)).map(move |index| Tile {
            level,
            index,
            width: width_in(new_size, level, index),
        })
    }))
}

/// A path under the log's prefix: of a tile or of an entry bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TilePath {
    /// `tile/<L>/<N>[.p/<W>]`
    Tile(Tile),
    /// `tile/entries/<N>[.p/<W>]`
    Entries(BundleId),
}

impl TilePath {
    /// Parses a path of at most [`MAX_TILE_PATH_LEN`] bytes, without a leading slash. Each tile and bundle has one path;
    /// every other spelling is refused.
    pub fn parse(path: &str) -> Result<Self, TileError> {
        if path.len() > MAX_TILE_PATH_LEN {
            return Err(TileError::Path);
        }
        let (kind, number) = path.strip_prefix("tile/").and_then(|rest| rest.split_once('/')).ok_or(TileError::Path)?;
        let (number, width) = match number.split_once(".p/") {
            Some((number, width)) => {
                (number, parse_decimal(width, u64::from(TILE_WIDTH) - 1).ok_or(TileError::Path)? as u16)
            }
            None => (number, TILE_WIDTH),
        };
        let index = parse_index(number).ok_or(TileError::Path)?;
        let parsed = if kind == "entries" {
            TilePath::Entries(BundleId::new(index, width).map_err(|error| match error {
                BundleError::Width => TileError::Path,
                _ => TileError::OutOfTree,
            })?)
        } else {
            let level = parse_decimal(kind, u64::from(MAX_PATH_LEVEL)).ok_or(TileError::Path)? as u8;
            TilePath::Tile(Tile::new(level, index, width).map_err(|error| match error {
                TileError::Width => TileError::Path,
                other => other,
            })?)
        };
        // The one check that leaves no second spelling, whatever the parser above lets through.
        if parsed.to_string() == path { Ok(parsed) } else { Err(TileError::Path) }
    }
}

impl fmt::Display for TilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (index, width) = match self {
            TilePath::Tile(tile) => {
                write!(f, "tile/{}/", tile.level)?;
                (tile.index, tile.width)
            }
            TilePath::Entries(bundle) => {
                f.write_str("tile/entries/")?;
                (bundle.index(), bundle.width())
            }
        };
        write_index(f, index)?;
        if width < TILE_WIDTH { write!(f, ".p/{width}") } else { Ok(()) }
    }
}

/// Groups of three digits, the last one bare and each one before with an `x`: 1234067 is `x001/x234/067`.
fn write_index(f: &mut fmt::Formatter<'_>, index: u64) -> fmt::Result {
    let groups = std::iter::successors(Some(index), |rest| (*rest >= 1000).then_some(rest / 1000));
    let groups: Vec<u64> = groups.map(|rest| rest % 1000).collect();
    for group in groups[1..].iter().rev() {
        write!(f, "x{group:03}/")?;
    }
    write!(f, "{:03}", groups[0])
}

fn parse_index(text: &str) -> Option<u64> {
    let mut index: u64 = 0;
    let mut groups = text.split('/').peekable();
    while let Some(group) = groups.next() {
        let digits = if groups.peek().is_some() { group.strip_prefix('x')? } else { group };
        if digits.len() != 3 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
            return None;
        }
        index = index.checked_mul(1000)?.checked_add(digits.parse().ok()?)?;
    }
    Some(index)
}

fn parse_decimal(text: &str, max: u64) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
    if digits { text.parse().ok().filter(|value| *value <= max) } else { None }
}
