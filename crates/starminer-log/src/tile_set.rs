//! A [`HashReader`] over tiles: for clients that make their own proofs from what a log serves, and for servers that
//! store tiles instead of single hashes.
//!
//! Ask [`TileSet::needed`] which tiles hold the hashes, fetch them, [`TileSet::insert`] each, then prove. Tiles are not
//! authenticated one by one: a proof from a wrong tile does not hold against the verified checkpoint.

use std::collections::{BTreeMap, BTreeSet};

use crate::tile::{TILE_HEIGHT, TILE_WIDTH, Tile, TileError};
use crate::{Hash, HashReader, NodePosition, OutOfTree, node_hash};

/// The tile that a set lacks for a read. Code `log.missing-tile`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MissingTile {
    /// Fetch this one.
    #[error("missing {}", .0.path())]
    Tile(Tile),
    /// The tree has no hash with this stored-hash index.
    #[error("stored hash {0} is outside the tree")]
    OutOfTree(u64),
}

impl MissingTile {
    /// The stable code of this failure.
    pub fn code(&self) -> &'static str {
        match self {
            MissingTile::Tile(_) => "log.missing-tile",
            MissingTile::OutOfTree(_) => "log.out-of-tree",
        }
    }
}

/// Tiles of one tree.
#[derive(Clone, Debug)]
pub struct TileSet {
    size: u64,
    tiles: BTreeMap<(u8, u64), Vec<Hash>>,
}

impl TileSet {
    /// No tiles yet, of a tree of `size`.
    pub fn new(size: u64) -> Self {
        TileSet { size, tiles: BTreeMap::new() }
    }

    /// The tiles that hold the hashes with these stored-hash indices, without repetition.
    pub fn needed(size: u64, indices: &[u64]) -> Result<BTreeSet<Tile>, OutOfTree> {
        indices.iter().map(|index| Tile::holding(NodePosition::from_stored_index(*index)?, size)).collect()
    }

    /// Adds the content of a tile; a wider one of the same index replaces a narrower one.
    pub fn insert(&mut self, tile: Tile, content: &[u8]) -> Result<(), TileError> {
        let hashes = tile.parse(content)?;
        let held = self.tiles.entry((tile.level(), tile.index())).or_default();
        if held.len() < hashes.len() {
            *held = hashes;
        }
        Ok(())
    }

    fn hash(&self, stored_index: u64) -> Result<Hash, MissingTile> {
        let outside = |OutOfTree| MissingTile::OutOfTree(stored_index);
        let node = NodePosition::from_stored_index(stored_index).map_err(outside)?;
        let tile = Tile::holding(node, self.size).map_err(outside)?;
        let height = node.level() % TILE_HEIGHT;
        let first = ((node.index() << height) % u64::from(TILE_WIDTH)) as usize;
        let leaves =
            self.tiles.get(&(tile.level(), tile.index())).and_then(|hashes| hashes.get(first..first + (1 << height)));
        Ok(subtree_root(leaves.ok_or(MissingTile::Tile(tile))?))
    }
}

impl HashReader for TileSet {
    type Error = MissingTile;

    fn read(&self, indices: &[u64]) -> Result<Vec<Hash>, MissingTile> {
        indices.iter().map(|index| self.hash(*index)).collect()
    }
}

/// The root over a power of two of hashes, at most half a tile.
fn subtree_root(hashes: &[Hash]) -> Hash {
    match hashes {
        [hash] => *hash,
        _ => {
            let (left, right) = hashes.split_at(hashes.len() / 2);
            node_hash(&subtree_root(left), &subtree_root(right))
        }
    }
}
