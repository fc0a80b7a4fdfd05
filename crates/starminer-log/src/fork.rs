//! Proof that a log equivocated: two checkpoints of one size, both with its signature, with different roots.
//!
//! [`ForkProof`] is the portable form, two notes that anyone may pass on; [`Fork`] is what it says once verified. A log
//! can also lie by refusing to show consistency between two sizes; that is suspicious, but no third party can tell it
//! from a missing answer, so it is not proof and has no type here.

use serde::{Deserialize, Serialize};

use crate::{CheckpointError, Hash, KeyName, LogKey, SignedCheckpoint, VerifiedCheckpoint, VerifyError};

/// Two notes that are said to prove a fork: JSON `{"first": note, "second": note}`. Says nothing until verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForkProof {
    first: String,
    second: String,
}

/// Why two notes do not prove a fork.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForkError {
    /// One of them is no signed checkpoint.
    #[error("not a signed checkpoint")]
    Note(#[source] CheckpointError),
    /// One of them is not signed by the log.
    #[error("not the log's checkpoint")]
    Signature(#[source] VerifyError),
    /// Sizes differ: only a consistency proof says anything about these two.
    #[error("the checkpoints have different sizes")]
    OtherSize,
    /// The same size and root: no contradiction.
    #[error("the checkpoints agree")]
    SameRoot,
}

impl ForkError {
    /// The stable code of this refusal.
    pub fn code(&self) -> &'static str {
        match self {
            ForkError::Note(error) => error.code(),
            ForkError::Signature(error) => error.code(),
            ForkError::OtherSize => "log.fork-sizes",
            ForkError::SameRoot => "log.fork-none",
        }
    }
}

/// A proven fork. Made by [`ForkProof::verify`] alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fork {
    origin: KeyName,
    size: u64,
    roots: [Hash; 2],
}

impl Fork {
    /// The log that signed both.
    pub fn origin(&self) -> &KeyName {
        &self.origin
    }

    /// The size at which it signed two trees.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The two roots.
    pub fn roots(&self) -> &[Hash; 2] {
        &self.roots
    }
}

impl ForkProof {
    /// Puts two notes together; whether they prove anything is for [`ForkProof::verify`].
    pub fn new(first: &SignedCheckpoint, second: &SignedCheckpoint) -> Self {
        ForkProof { first: first.as_str().to_owned(), second: second.as_str().to_owned() }
    }

    /// The fork that two verified checkpoints prove, if they do: one key, one size, two roots.
    pub fn between(first: &VerifiedCheckpoint, second: &VerifiedCheckpoint) -> Option<Self> {
        let contradict = first.key() == second.key() && first.size() == second.size() && first.root() != second.root();
        contradict.then(|| ForkProof::new(first.signed(), second.signed()))
    }

    /// The first note.
    pub fn first(&self) -> &str {
        &self.first
    }

    /// The second note.
    pub fn second(&self) -> &str {
        &self.second
    }

    /// Verifies that the log `key` signed both notes, and that they contradict each other.
    pub fn verify(&self, key: &LogKey) -> Result<Fork, ForkError> {
        let verified = |note: &str| {
            SignedCheckpoint::parse(note.as_bytes()).map_err(ForkError::Note)?.verify(key).map_err(ForkError::Signature)
        };
        let (first, second) = (verified(&self.first)?, verified(&self.second)?);
        if first.size() != second.size() {
            return Err(ForkError::OtherSize);
        }
        if first.root() == second.root() {
            return Err(ForkError::SameRoot);
        }
        Ok(Fork { origin: first.origin().clone(), size: first.size(), roots: [first.root(), second.root()] })
    }
}
