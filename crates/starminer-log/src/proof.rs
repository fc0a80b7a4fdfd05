//! Inclusion and consistency proofs (RFC 6962 sections 2.1.1 and 2.1.2), made over a [`HashReader`] and verified against
//! checkpoints that were verified first.
//!
//! Verification hangs on [`VerifiedCheckpoint`], so no proof can be checked against a root that nobody signed, and its
//! outcome is a type without a public constructor: [`Included`], [`Consistent`]. In JSON a proof is
//! `{"index": n, "hashes": [hex, …]}` or `{"hashes": [hex, …]}`; an index is a JSON number below 2^62.
//!
//! Not here: fetching, and what an entry means.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::stored::{Bridge, ReadFailure, recorded_reads};
use crate::{Hash, HashReader, MAX_ENTRY_LEN, MAX_TREE_SIZE, OutOfTree, VerifiedCheckpoint, leaf_hash};

/// The most hashes of a proof. A tree of [`MAX_TREE_SIZE`] needs 62 for inclusion and 63 for consistency.
pub const MAX_PROOF_HASHES: usize = 64;

/// Why a proof does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// More hashes than [`MAX_PROOF_HASHES`].
    #[error("more hashes than a proof can have")]
    TooLong,
    /// The entry is longer than [`MAX_ENTRY_LEN`], so no log of this kind has it.
    #[error("longer than an entry may be")]
    EntryTooLong,
    /// The index is not below the checkpoint's size.
    #[error("entry {index} of a log of {size}")]
    Index {
        /// The proof's index.
        index: u64,
        /// The checkpoint's size.
        size: u64,
    },
    /// The hashes do not lead from this entry to the checkpoint's root.
    #[error("the proof does not show that the entry is in the log")]
    Inclusion,
    /// The checkpoints are of two logs, or were verified with two keys.
    #[error("the checkpoints are not of one log")]
    OtherLog,
    /// The older checkpoint is the larger one.
    #[error("from {older} entries to {newer}, a log only grows")]
    Order {
        /// Size of the older checkpoint.
        older: u64,
        /// Size of the newer one.
        newer: u64,
    },
    /// One size, two roots: the two checkpoints themselves are proof of a fork.
    #[error("the log signed two trees of one size")]
    Fork,
    /// The hashes do not show that the newer tree extends the older one.
    #[error("the proof does not show that the log only grew")]
    Consistency,
}

impl ProofError {
    /// The stable code of this refusal.
    pub fn code(&self) -> &'static str {
        match self {
            ProofError::TooLong => "log.proof-too-long",
            ProofError::EntryTooLong => "log.entry-too-long",
            ProofError::Index { .. } => "log.proof-index",
            ProofError::Inclusion => "log.inclusion",
            ProofError::OtherLog => "log.other-log",
            ProofError::Order { .. } => "log.proof-order",
            ProofError::Fork => "log.fork",
            ProofError::Consistency => "log.consistency",
        }
    }
}

/// Why a proof could not be made.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProveError<E: std::error::Error + 'static> {
    /// The index or the older size lies outside the tree, or the tree beyond [`MAX_TREE_SIZE`].
    #[error("outside the tree")]
    OutOfTree,
    /// The store failed.
    #[error("reading stored hashes")]
    Read(#[source] E),
    /// The store answered with another number of hashes than asked.
    #[error("the store answered with the wrong number of hashes")]
    WrongCount,
}

impl<E: std::error::Error + 'static> ProveError<E> {
    /// The stable code of this failure.
    pub fn code(&self) -> &'static str {
        match self {
            ProveError::OutOfTree => "log.out-of-tree",
            ProveError::Read(_) | ProveError::WrongCount => "log.store",
        }
    }
}

impl<E: std::error::Error + 'static> From<ReadFailure<E>> for ProveError<E> {
    fn from(failure: ReadFailure<E>) -> Self {
        match failure {
            ReadFailure::Reader(error) => ProveError::Read(error),
            ReadFailure::WrongCount => ProveError::WrongCount,
        }
    }
}

/// The audit path of one entry, from the leaf's sibling up to the root's child, and the entry's index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InclusionProof {
    index: u64,
    #[serde(deserialize_with = "bounded_hashes")]
    hashes: Vec<Hash>,
}

impl InclusionProof {
    /// A proof from its parts; at most [`MAX_PROOF_HASHES`] hashes.
    pub fn new(index: u64, hashes: Vec<Hash>) -> Result<Self, ProofError> {
        if hashes.len() > MAX_PROOF_HASHES {
            return Err(ProofError::TooLong);
        }
        Ok(InclusionProof { index, hashes })
    }

    /// The entry's index that the proof claims.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// The path's hashes.
    pub fn hashes(&self) -> &[Hash] {
        &self.hashes
    }
}

/// The hashes that show that one tree extends another. Empty between equal trees and from the empty tree.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsistencyProof {
    #[serde(deserialize_with = "bounded_hashes")]
    hashes: Vec<Hash>,
}

impl ConsistencyProof {
    /// A proof from its hashes; at most [`MAX_PROOF_HASHES`].
    pub fn new(hashes: Vec<Hash>) -> Result<Self, ProofError> {
        if hashes.len() > MAX_PROOF_HASHES {
            return Err(ProofError::TooLong);
        }
        Ok(ConsistencyProof { hashes })
    }

    /// The proof between equal trees, and from the empty tree to any.
    pub fn empty() -> Self {
        ConsistencyProof::default()
    }

    /// The proof's hashes.
    pub fn hashes(&self) -> &[Hash] {
        &self.hashes
    }
}

/// An entry is in the log. Made by [`VerifiedCheckpoint::verify_inclusion`] alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Included {
    index: u64,
    leaf_hash: Hash,
    checkpoint_size: u64,
    checkpoint_root: Hash,
}

impl Included {
    /// The entry's index.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// The entry's leaf hash.
    pub fn leaf_hash(&self) -> Hash {
        self.leaf_hash
    }

    /// Size of the checkpoint that it was shown against.
    pub fn checkpoint_size(&self) -> u64 {
        self.checkpoint_size
    }

    /// Root of the checkpoint that it was shown against.
    pub fn checkpoint_root(&self) -> Hash {
        self.checkpoint_root
    }
}

/// A newer checkpoint extends an older one. Made by [`VerifiedCheckpoint::verify_consistency`] alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Consistent {
    older_size: u64,
    newer_size: u64,
}

impl Consistent {
    /// Size of the older checkpoint.
    pub fn older_size(&self) -> u64 {
        self.older_size
    }

    /// Size of the newer checkpoint.
    pub fn newer_size(&self) -> u64 {
        self.newer_size
    }
}

impl VerifiedCheckpoint {
    /// Verifies that the log of this checkpoint has exactly these bytes as entry `proof.index()` (RFC 6962 section
    /// 2.1.1; a proof with a hash too many or too few is refused).
    pub fn verify_inclusion(&self, entry: &[u8], proof: &InclusionProof) -> Result<Included, ProofError> {
        if entry.len() > MAX_ENTRY_LEN {
            return Err(ProofError::EntryTooLong);
        }
        let (index, size) = (proof.index, self.size());
        if index >= size {
            return Err(ProofError::Index { index, size });
        }
        let leaf_hash = leaf_hash(entry);
        let hashes = to_tlog(&proof.hashes);
        tlog_tiles::check_record(&hashes, size, self.root().to_tlog(), index, leaf_hash.to_tlog())
            .map_err(|_| ProofError::Inclusion)?;
        Ok(Included { index, leaf_hash, checkpoint_size: size, checkpoint_root: self.root() })
    }

    /// Verifies that the tree of this checkpoint extends that of `older` (RFC 6962 section 2.1.2). The empty tree is a
    /// prefix of every tree, and a tree of itself, with an empty proof each.
    pub fn verify_consistency(
        &self,
        older: &VerifiedCheckpoint,
        proof: &ConsistencyProof,
    ) -> Result<Consistent, ProofError> {
        if self.key() != older.key() {
            return Err(ProofError::OtherLog);
        }
        let (older_size, newer_size) = (older.size(), self.size());
        if older_size > newer_size {
            return Err(ProofError::Order { older: older_size, newer: newer_size });
        }
        if older_size == newer_size && older.root() != self.root() {
            return Err(ProofError::Fork);
        }
        let holds = if older_size == 0 || older_size == newer_size {
            proof.hashes.is_empty()
        } else {
            let hashes = to_tlog(&proof.hashes);
            tlog_tiles::check_tree(&hashes, newer_size, self.root().to_tlog(), older_size, older.root().to_tlog())
                .is_ok()
        };
        if !holds {
            return Err(ProofError::Consistency);
        }
        Ok(Consistent { older_size, newer_size })
    }
}

/// The proof that entry `index` is in the tree of `size`, with one read.
pub fn prove_inclusion<R: HashReader + ?Sized>(
    size: u64,
    index: u64,
    reader: &R,
) -> Result<InclusionProof, ProveError<R::Error>> {
    check_entry(size, index).map_err(|OutOfTree| ProveError::OutOfTree)?;
    let bridge = Bridge::new(reader);
    match tlog_tiles::prove_record(size, index, &bridge) {
        Ok(hashes) => Ok(InclusionProof { index, hashes: from_tlog(hashes) }),
        Err(_) => Err(bridge.into_failure().into()),
    }
}

/// The stored-hash indices that [`prove_inclusion`] reads, for callers whose store is asynchronous.
pub fn inclusion_reads(size: u64, index: u64) -> Result<Vec<u64>, OutOfTree> {
    check_entry(size, index)?;
    Ok(recorded_reads(|recorder| tlog_tiles::prove_record(size, index, recorder)))
}

/// The proof that the tree of `newer_size` extends that of `older_size`, with one read.
pub fn prove_consistency<R: HashReader + ?Sized>(
    older_size: u64,
    newer_size: u64,
    reader: &R,
) -> Result<ConsistencyProof, ProveError<R::Error>> {
    check_sizes(older_size, newer_size).map_err(|OutOfTree| ProveError::OutOfTree)?;
    if older_size == 0 {
        return Ok(ConsistencyProof::empty());
    }
    let bridge = Bridge::new(reader);
    match tlog_tiles::prove_tree(newer_size, older_size, &bridge) {
        Ok(hashes) => Ok(ConsistencyProof { hashes: from_tlog(hashes) }),
        Err(_) => Err(bridge.into_failure().into()),
    }
}

/// The stored-hash indices that [`prove_consistency`] reads, for callers whose store is asynchronous.
pub fn consistency_reads(older_size: u64, newer_size: u64) -> Result<Vec<u64>, OutOfTree> {
    check_sizes(older_size, newer_size)?;
    if older_size == 0 {
        return Ok(Vec::new());
    }
    Ok(recorded_reads(|recorder| tlog_tiles::prove_tree(newer_size, older_size, recorder)))
}

fn check_entry(size: u64, index: u64) -> Result<(), OutOfTree> {
    if index < size && size <= MAX_TREE_SIZE { Ok(()) } else { Err(OutOfTree) }
}

fn check_sizes(older_size: u64, newer_size: u64) -> Result<(), OutOfTree> {
    if older_size <= newer_size && newer_size <= MAX_TREE_SIZE { Ok(()) } else { Err(OutOfTree) }
}

fn to_tlog(hashes: &[Hash]) -> Vec<tlog_tiles::Hash> {
    hashes.iter().map(|hash| hash.to_tlog()).collect()
}

fn from_tlog(hashes: Vec<tlog_tiles::Hash>) -> Vec<Hash> {
    hashes.into_iter().map(|hash| Hash(hash.0)).collect()
}

/// Reads hashes up to the bound and no further, whatever length the sender announces.
fn bounded_hashes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Hash>, D::Error> {
    struct Bounded;
    impl<'de> de::Visitor<'de> for Bounded {
        type Value = Vec<Hash>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "at most {MAX_PROOF_HASHES} hashes")
        }
        fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<Hash>, A::Error> {
            let mut hashes = Vec::new();
            while let Some(hash) = seq.next_element()? {
                if hashes.len() == MAX_PROOF_HASHES {
                    return Err(de::Error::custom(ProofError::TooLong));
                }
                hashes.push(hash);
            }
            Ok(hashes)
        }
    }
    deserializer.deserialize_seq(Bounded)
}
