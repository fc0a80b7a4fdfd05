//! An auditor's replay: folds entry bundles into a tree and compares its root with a signed checkpoint.
//!
//! The state is a [`Frontier`], so a replay can stop anywhere and go on later. A partial bundle is fetched again once it
//! has grown; its known entries must then be the same as before. Not here: fetching, and what entries mean; the caller
//! takes the new ones from the bundle by the range that [`Replay::push`] returns.

use std::ops::Range;

use crate::bundle::EntryBundle;
use crate::tile::TILE_HEIGHT;
use crate::{AppendError, Frontier, VerifiedCheckpoint};

/// Why a bundle was not taken, or the tree is not the log's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// Not the bundle that comes next, or one that ends before what was replayed.
    #[error("the replay stands at entry {at}; this is another bundle")]
    OtherBundle {
        /// Entries replayed so far.
        at: u64,
    },
    /// Entries that were replayed before read differently now.
    #[error("entries before {at} have changed")]
    Changed {
        /// Entries replayed so far.
        at: u64,
    },
    /// The tree would pass its bounds.
    #[error("the bundle cannot be appended")]
    Append(#[source] AppendError),
    /// The replay is at another size than the checkpoint.
    #[error("replayed {replayed} of the {signed} entries that were signed")]
    Size {
        /// Entries replayed.
        replayed: u64,
        /// Size of the checkpoint.
        signed: u64,
    },
    /// The replayed entries give another root than was signed.
    #[error("the entries do not give the signed root")]
    Root,
}

impl ReplayError {
    /// The stable code of this refusal.
    pub fn code(&self) -> &'static str {
        match self {
            ReplayError::OtherBundle { .. } => "log.replay-order",
            ReplayError::Changed { .. } => "log.replay-changed",
            ReplayError::Append(error) => error.code(),
            ReplayError::Size { .. } => "log.replay-size",
            ReplayError::Root => "log.replay-root",
        }
    }
}

/// A checkpoint whose every entry was read. Made by [`Replay::verify`] alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replayed {
    size: u64,
}

impl Replayed {
    /// Number of entries.
    pub fn size(&self) -> u64 {
        self.size
    }
}

/// A replay in progress.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replay {
    frontier: Frontier,
}

impl Replay {
    /// A replay from the first entry.
    pub fn start() -> Self {
        Replay::default()
    }

    /// A replay that goes on from where another one stopped.
    pub fn resume(frontier: Frontier) -> Self {
        Replay { frontier }
    }

    /// Where it stands; [`Frontier::from_peaks`] brings it back.
    pub fn frontier(&self) -> &Frontier {
        &self.frontier
    }

    /// Folds the bundle that holds the next entry, and returns which of `bundle.entries()` are new. A refused bundle
    /// changes nothing.
    pub fn push(&mut self, bundle: &EntryBundle<'_>) -> Result<Range<usize>, ReplayError> {
        let at = self.frontier.size();
        // All entries of earlier, full bundles are in the peaks of height 8 and more.
        let boundary = self.frontier.floor(TILE_HEIGHT);
        let known = (at - boundary.size()) as usize;
        let entries = bundle.entries();
        if bundle.id().entries().start != boundary.size() || entries.len() <= known {
            return Err(ReplayError::OtherBundle { at });
        }
        let again = boundary.append(&entries[..known]).map_err(ReplayError::Append)?;
        if *again.frontier() != self.frontier {
            return Err(ReplayError::Changed { at });
        }
        let batch = self.frontier.append(&entries[known..]).map_err(ReplayError::Append)?;
        self.frontier = batch.into_frontier();
        Ok(known..entries.len())
    }

    /// Compares the replayed tree with a checkpoint of the same size.
    pub fn verify(&self, checkpoint: &VerifiedCheckpoint) -> Result<Replayed, ReplayError> {
        let (replayed, signed) = (self.frontier.size(), checkpoint.size());
        if replayed != signed {
            return Err(ReplayError::Size { replayed, signed });
        }
        if self.frontier.root() != checkpoint.root() {
            return Err(ReplayError::Root);
        }
        Ok(Replayed { size: replayed })
    }
}
