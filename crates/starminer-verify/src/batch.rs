//! One device signature over many bindings: a Merkle tree whose root is what the device signs.
//!
//! A discrete TPM signs a few quotes a second, so an agent collects bindings for a short while and has the root of their
//! tree signed; each binding then carries its path. A batch of one is the ordinary case. How long to wait is the
//! caller's affair. Leaves, nodes and the root are hashed under labels of their own, so none can pass for another. Source:
//! `specs/evidence.md`, section "Batch"; tree shape of RFC 9162, section 2.1.

use thiserror::Error;

use crate::types::{Digest, tagged_hash};

/// Longest path from a leaf to the root.
pub const MAX_PATH_LEN: usize = 16;
/// Most bindings in one batch: what a path of [`MAX_PATH_LEN`] can reach.
pub const MAX_BATCH_LEN: usize = 1 << MAX_PATH_LEN;

/// On which side the sibling stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The sibling is hashed before.
    Left,
    /// The sibling is hashed after.
    Right,
}

/// One step from a leaf towards the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PathStep {
    /// Side of the sibling.
    pub side: Side,
    /// Hash of the sibling.
    pub sibling: Digest,
}

/// A batch cannot be built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BatchError {
    /// There is nothing to sign.
    #[error("a batch needs at least one binding")]
    Empty,
    /// More than [`MAX_BATCH_LEN`] bindings.
    #[error("a batch holds at most {MAX_BATCH_LEN} bindings")]
    TooMany,
}

/// A tree over the digests of bindings.
#[derive(Debug, Clone)]
pub struct Batch {
    report_data: Digest,
    paths: Vec<Vec<PathStep>>,
}

impl Batch {
    /// Builds the tree over `bindings`, each a [`crate::Binding::digest`], in the given order.
    pub fn new(bindings: &[Digest]) -> Result<Self, BatchError> {
        if bindings.is_empty() {
            return Err(BatchError::Empty);
        }
        if bindings.len() > MAX_BATCH_LEN {
            return Err(BatchError::TooMany);
        }
        let leaves: Vec<Digest> = bindings.iter().map(leaf).collect();
        let mut paths = vec![Vec::new(); leaves.len()];
        let root = subtree(&leaves, &mut paths);
        Ok(Self { report_data: report_data(&root), paths })
    }

    /// What the device signs as its report data, qualifying data or nonce: 32 bytes.
    pub const fn report_data(&self) -> Digest {
        self.report_data
    }

    /// The path of each binding, in the order given, from the leaf upwards.
    pub fn paths(&self) -> &[Vec<PathStep>] {
        &self.paths
    }

    /// The paths without the tree.
    pub fn into_paths(self) -> Vec<Vec<PathStep>> {
        self.paths
    }
}

/// What a device must have signed for the binding with digest `binding` and this path to be among its batch. `None` where
/// the path is longer than [`MAX_PATH_LEN`].
pub fn report_data_for(binding: &Digest, path: &[PathStep]) -> Option<Digest> {
    if path.len() > MAX_PATH_LEN {
        return None;
    }
    let root = path.iter().fold(leaf(binding), |below, step| match step.side {
        Side::Left => node(&step.sibling, &below),
        Side::Right => node(&below, &step.sibling),
    });
    Some(report_data(&root))
}

fn leaf(binding: &Digest) -> Digest {
    tagged_hash("batch-leaf", &[binding.as_bytes()])
}

fn node(left: &Digest, right: &Digest) -> Digest {
    tagged_hash("batch-node", &[left.as_bytes(), right.as_bytes()])
}

fn report_data(root: &Digest) -> Digest {
    tagged_hash("batch-root", &[root.as_bytes()])
}

/// Hashes a run of leaves and appends each one's next sibling to its path. Depth is at most [`MAX_PATH_LEN`], because the
/// left part is the largest power of two below the length.
fn subtree(leaves: &[Digest], paths: &mut [Vec<PathStep>]) -> Digest {
    if let [only] = leaves {
        return *only;
    }
    let split = leaves.len().next_power_of_two() / 2;
    let (left_paths, right_paths) = paths.split_at_mut(split);
    let left = subtree(&leaves[..split], left_paths);
    let right = subtree(&leaves[split..], right_paths);
    for path in left_paths {
        path.push(PathStep { side: Side::Right, sibling: right });
    }
    for path in right_paths {
        path.push(PathStep { side: Side::Left, sibling: left });
    }
    node(&left, &right)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn digests(count: usize) -> Vec<Digest> {
        (0..count).map(|i| Digest::of(&i.to_be_bytes())).collect()
    }

    #[test]
    fn every_binding_of_every_small_batch_reaches_its_root_and_no_other_does() {
        for count in (1..40).chain([255, 256, 257]) {
            let bindings = digests(count);
            let batch = Batch::new(&bindings).unwrap();
            for (binding, path) in bindings.iter().zip(batch.paths()) {
                assert_eq!(report_data_for(binding, path), Some(batch.report_data()), "{count}");
                let stranger = Digest::of(b"stranger");
                assert_ne!(report_data_for(&stranger, path), Some(batch.report_data()));
                if !path.is_empty() {
                    assert_ne!(report_data_for(binding, &path[1..]), Some(batch.report_data()));
                }
            }
        }
    }

    #[test]
    fn a_node_does_not_pass_for_a_leaf() {
        let batch = Batch::new(&digests(4)).unwrap();
        let top = batch.paths()[0][1];
        let inner = node(&leaf(&digests(1)[0]), &batch.paths()[0][0].sibling);
        assert_eq!(report_data(&node(&inner, &top.sibling)), batch.report_data());
        assert_ne!(report_data_for(&inner, &[top]), Some(batch.report_data()));
    }

    #[test]
    fn sizes_are_bounded() {
        assert_eq!(Batch::new(&[]).unwrap_err(), BatchError::Empty);
        let full = Batch::new(&vec![Digest([0; 32]); MAX_BATCH_LEN]).unwrap();
        assert!(full.paths().iter().all(|path| path.len() == MAX_PATH_LEN));
        assert_eq!(Batch::new(&vec![Digest([0; 32]); MAX_BATCH_LEN + 1]).unwrap_err(), BatchError::TooMany);
        let step = PathStep { side: Side::Left, sibling: Digest([0; 32]) };
        assert!(report_data_for(&Digest([0; 32]), &[step; MAX_PATH_LEN]).is_some());
        assert!(report_data_for(&Digest([0; 32]), &[step; MAX_PATH_LEN + 1]).is_none());
    }
}
