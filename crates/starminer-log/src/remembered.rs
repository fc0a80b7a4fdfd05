//! A client's memory of a log: the last checkpoint it accepted, and the only way to accept another.
//!
//! A log that shows two clients two histories is found out by whoever remembers. [`Remembered`] moves forward by
//! consistency proofs alone; what contradicts it comes back as an error that says whether it is proof (`log.fork`), a step
//! back (`log.rolled-back`) or a claim without proof (`log.consistency`). It is kept as the signed note itself.
//!
//! Not here: the file it is kept in, and the first contact: [`Remembered::first`] takes the first checkpoint on the
//! word of the log's key and whatever witnesses the caller verified.

use crate::checkpoint::{CheckpointError, SignedCheckpoint, VerifiedCheckpoint, VerifyError};
use crate::{ConsistencyProof, ForkProof, LogKey, ProofError};

/// How a memory moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advance {
    /// The same size and root as before. What was remembered stays, with its cosignatures.
    Unchanged,
    /// The log grew, and is now remembered at the new size.
    Grown {
        /// Size before.
        from: u64,
        /// Size now.
        to: u64,
    },
}

/// Why a memory did not move. It is as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdvanceError {
    /// The checkpoint is of another log, or was verified with another key.
    #[error("not a checkpoint of the log that is remembered")]
    OtherLog,
    /// The log offers a smaller tree than it signed before: an old answer, or entries taken back.
    #[error("the log has {offered} entries where it had {remembered}")]
    RolledBack {
        /// Size that is remembered.
        remembered: u64,
        /// Size that was offered.
        offered: u64,
    },
    /// The log signed two trees of one size. The proof convinces anyone who has the log's key.
    #[error("the log signed two trees of one size")]
    Fork(Box<ForkProof>),
    /// The proof does not connect the two trees: a wrong proof, or a fork that it cannot show.
    #[error("no proof that the log only grew")]
    Inconsistent(#[source] ProofError),
}

impl AdvanceError {
    /// The stable code of this refusal.
    pub fn code(&self) -> &'static str {
        match self {
            AdvanceError::OtherLog => "log.other-log",
            AdvanceError::RolledBack { .. } => "log.rolled-back",
            AdvanceError::Fork(_) => "log.fork",
            AdvanceError::Inconsistent(error) => error.code(),
        }
    }
}

/// Why a stored memory could not be read back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RememberedError {
    /// Not a signed checkpoint.
    #[error("what was remembered is not a signed checkpoint")]
    Note(#[source] CheckpointError),
    /// Not signed by this log key.
    #[error("what was remembered is not this log's checkpoint")]
    Signature(#[source] VerifyError),
}

impl RememberedError {
    /// The stable code of this refusal.
    pub fn code(&self) -> &'static str {
        match self {
            RememberedError::Note(error) => error.code(),
            RememberedError::Signature(error) => error.code(),
        }
    }
}

/// The last checkpoint of one log that this client accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    checkpoint: VerifiedCheckpoint,
}

impl Remembered {
    /// Remembers the first checkpoint of a log. Everything after is held to it.
    pub fn first(checkpoint: VerifiedCheckpoint) -> Self {
        Remembered { checkpoint }
    }

    /// Reads a memory back from the note of [`Remembered::as_bytes`], and verifies it again.
    pub fn parse(bytes: &[u8], key: &LogKey) -> Result<Self, RememberedError> {
        let signed = SignedCheckpoint::parse(bytes).map_err(RememberedError::Note)?;
        Ok(Remembered { checkpoint: signed.verify(key).map_err(RememberedError::Signature)? })
    }

    /// The signed note to keep.
    pub fn as_bytes(&self) -> &[u8] {
        self.checkpoint.signed().as_bytes()
    }

    /// What is remembered.
    pub fn checkpoint(&self) -> &VerifiedCheckpoint {
        &self.checkpoint
    }

    /// Accepts `new` if `proof` shows that it extends what is remembered.
    pub fn advance(&mut self, new: VerifiedCheckpoint, proof: &ConsistencyProof) -> Result<Advance, AdvanceError> {
        let (from, to) = (self.checkpoint.size(), new.size());
        match new.verify_consistency(&self.checkpoint, proof) {
            Ok(_) if from == to => Ok(Advance::Unchanged),
            Ok(_) => {
                self.checkpoint = new;
                Ok(Advance::Grown { from, to })
            }
            Err(ProofError::OtherLog) => Err(AdvanceError::OtherLog),
            Err(ProofError::Order { older, newer }) => {
                Err(AdvanceError::RolledBack { remembered: older, offered: newer })
            }
            Err(ProofError::Fork) => {
                Err(AdvanceError::Fork(Box::new(ForkProof::new(self.checkpoint.signed(), new.signed()))))
            }
            Err(error) => Err(AdvanceError::Inconsistent(error)),
        }
    }
}
