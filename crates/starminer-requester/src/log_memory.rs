//! The client's memory of the public log: a fork or a rollback shows.
//!
//! With several releases under way, answers come with checkpoints that are proven consistent with what was remembered when
//! the question was asked, not with each other. Those that could not be joined at once are kept, and joined by one later answer that
//! shows all of them on one chain; two that cannot be joined are the proof of a fork.

use std::sync::{Mutex, PoisonError};

use starminer_client::ClientError;
use starminer_log::{
    Advance, AdvanceError, ConsistencyProof, LogKey, Remembered, SignedCheckpoint, VerifiedCheckpoint,
};
use starminer_verify::{Party, Refusal};
use starminer_wire::{LogChain, MAX_CHAIN_SIZES};

/// Most checkpoints that wait to be joined: more than releases that can be under way at once, each of which waits for a join first
/// when many are kept.
const MAX_UNJOINED: usize = 1024;

/// What it means that a coordinator cannot go on from a checkpoint that it has signed: its log is smaller.
pub(crate) fn rolled_back(error: &ClientError) -> Option<Refusal> {
    let ClientError::Refused { refusal, .. } = error else { return None };
    (refusal.check() == "log.size-unknown").then(|| {
        Refusal::new(
            Party::Coordinator,
            "log.rolled-back",
            "the coordinator has no log as large as the one that it showed and signed before: it was put back to an older state, or lies",
            "trust nothing of it until its operator has put that right; what this home remembers of the log is the proof",
        )
    })
}

/// What a client remembers of the log.
#[derive(Debug)]
pub(crate) struct LogMemory {
    key: LogKey,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    latest: Option<Remembered>,
    unjoined: Vec<VerifiedCheckpoint>,
    changed: bool,
    /// What was last read from the disk, or handed out to be written there.
    kept: Option<VerifiedCheckpoint>,
}

impl State {
    /// Keeps a checkpoint until it is joined to the others.
    fn keep_unjoined(&mut self, checkpoint: VerifiedCheckpoint) -> Result<(), Refusal> {
        let others = self.latest.iter().map(Remembered::checkpoint).chain(&self.unjoined);
        if let Some(other) = others.into_iter().find(|other| other.size() == checkpoint.size()) {
            return if other.root() == checkpoint.root() { Ok(()) } else { Err(forked()) };
        }
        if self.unjoined.len() >= MAX_UNJOINED {
            return Err(fault("log.unjoined", "too many checkpoints could not be joined to the remembered one"));
        }
        self.unjoined.push(checkpoint);
        Ok(())
    }
}

impl LogMemory {
    pub(crate) fn new(key: LogKey, remembered: Option<Remembered>) -> Self {
        let kept = remembered.as_ref().map(|remembered| remembered.checkpoint().clone());
        Self { key, state: Mutex::new(State { latest: remembered, kept, ..State::default() }) }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What to ask consistency from: the remembered checkpoint, if any.
    pub(crate) fn remembered(&self) -> Option<Remembered> {
        self.state().latest.clone()
    }

    /// Verifies an answer against what was remembered when it was asked for, and takes its checkpoint in.
    pub(crate) fn take(
        &self,
        asked_from: Option<&Remembered>,
        checkpoint: &str,
        consistency: Option<&ConsistencyProof>,
    ) -> Result<VerifiedCheckpoint, Refusal> {
        let checkpoint = self.verify(checkpoint)?;
        let consistency = consistency.cloned().unwrap_or_else(ConsistencyProof::empty);
        if let Some(asked_from) = asked_from {
            advance(&mut asked_from.clone(), checkpoint.clone(), &consistency)?;
        }
        let mut state = self.state();
        match &mut state.latest {
            None => {
                state.latest = Some(Remembered::first(checkpoint.clone()));
                state.changed = true;
            }
            // The answer itself proves that the log grew from what is remembered.
            Some(latest)
                if latest.checkpoint().size() != checkpoint.size()
                    && asked_from.is_some_and(|from| from.checkpoint().size() == latest.checkpoint().size()) =>
            {
                advance(latest, checkpoint.clone(), &consistency)?;
                state.changed = true;
            }
            Some(_) => state.keep_unjoined(checkpoint.clone())?,
        }
        Ok(checkpoint)
    }

    /// Takes in what another process of the same home remembered meanwhile, to be joined like the others.
    pub(crate) fn hear(&self, remembered: &Remembered) -> Result<(), Refusal> {
        let mut state = self.state();
        if state.kept.as_ref() == Some(remembered.checkpoint()) {
            return Ok(());
        }
        match &state.latest {
            None => state.latest = Some(remembered.clone()),
            Some(_) => state.keep_unjoined(remembered.checkpoint().clone())?,
        }
        state.kept = Some(remembered.checkpoint().clone());
        Ok(())
    }

    /// How many checkpoints still have to be joined.
    pub(crate) fn unjoined(&self) -> usize {
        self.state().unjoined.len()
    }

    /// What has to be on one chain: the remembered checkpoint and some kept ones, smallest first, one of each size. Ask for a chain of their
    /// sizes, then give the answer to [`Self::join`].
    pub(crate) fn to_join(&self) -> Vec<VerifiedCheckpoint> {
        let state = self.state();
        let mut wanted: Vec<VerifiedCheckpoint> =
            state.latest.iter().map(|latest| latest.checkpoint().clone()).collect();
        wanted.extend(state.unjoined.iter().take(MAX_CHAIN_SIZES - 1).cloned());
        wanted.sort_unstable_by_key(VerifiedCheckpoint::size);
        wanted
    }

    /// Joins checkpoints: the log only grew from each to the next, and from the last to its newest.
    pub(crate) fn join(&self, wanted: &[VerifiedCheckpoint], chain: &LogChain) -> Result<(), Refusal> {
        let newest = self.verify(&chain.checkpoint)?;
        if chain.steps.len() != wanted.len() {
            return Err(fault("log.chain-length", "the answer has more or fewer proofs than were asked for"));
        }
        for ((older, newer), step) in wanted.iter().zip(wanted.iter().skip(1).chain([&newest])).zip(&chain.steps) {
            advance(&mut Remembered::first(older.clone()), newer.clone(), step)?;
        }
        let mut state = self.state();
        state.unjoined.retain(|kept| wanted.iter().all(|joined| joined.size() != kept.size()));
        match &mut state.latest {
            // Somebody moved it meanwhile, by a proof of its own: how the two stand to each other is not known yet.
            Some(latest) if wanted.iter().all(|joined| joined.size() != latest.checkpoint().size()) => {
                state.keep_unjoined(newest)?;
            }
            latest => {
                *latest = Some(Remembered::first(newest));
                state.changed = true;
            }
        }
        Ok(())
    }

    fn verify(&self, checkpoint: &str) -> Result<VerifiedCheckpoint, Refusal> {
        SignedCheckpoint::parse(checkpoint.as_bytes())
            .map_err(|error| fault("log.checkpoint-malformed", &error.to_string()))?
            .verify(&self.key)
            .map_err(|error| fault("log.checkpoint-unsigned", &error.to_string()))
    }

    /// The remembered checkpoint, if it changed since it was last taken for keeping.
    pub(crate) fn take_changed(&self) -> Option<Remembered> {
        let mut state = self.state();
        if !std::mem::take(&mut state.changed) {
            return None;
        }
        state.kept = state.latest.as_ref().map(|latest| latest.checkpoint().clone());
        state.latest.clone()
    }
}

fn forked() -> Refusal {
    fault("log.fork", "two checkpoints of one size have different roots")
}

fn advance(
    remembered: &mut Remembered,
    checkpoint: VerifiedCheckpoint,
    proof: &ConsistencyProof,
) -> Result<Advance, Refusal> {
    remembered.advance(checkpoint, proof).map_err(|error: AdvanceError| fault(error.code(), &error.to_string()))
}

fn fault(check: &'static str, reason: &str) -> Refusal {
    Refusal::new(
        Party::Coordinator,
        check,
        reason,
        "stop using this coordinator; keep the remembered checkpoint and the new one, together they are the proof",
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use starminer_log::{Checkpoint, Frontier, KeyName, LogSigner};

    use super::*;

    fn signer() -> LogSigner {
        LogSigner::from_seed(KeyName::parse("test/log").unwrap(), &[7; 32])
    }

    /// A checkpoint of a log in which every entry says the same.
    fn checkpoint(size: usize, entry: &str) -> SignedCheckpoint {
        let root = Frontier::empty().append(&vec![entry; size]).unwrap().root();
        Checkpoint::new(signer().name().clone(), size as u64, root).unwrap().sign(&signer()).unwrap()
    }

    fn remembered(size: usize, entry: &str) -> Remembered {
        Remembered::first(checkpoint(size, entry).verify(&signer().key()).unwrap())
    }

    #[test]
    fn what_another_process_remembered_has_to_join() {
        let memory = LogMemory::new(signer().key(), Some(remembered(3, "a")));
        memory.hear(&remembered(3, "a")).unwrap();
        assert_eq!(memory.unjoined(), 0, "the disk has what is known");
        memory.hear(&remembered(5, "a")).unwrap();
        memory.hear(&remembered(5, "a")).unwrap();
        assert_eq!(memory.unjoined(), 1, "one that is larger has to be shown to continue it");
        // Two views of one size show the fork at once, whether joined or not.
        for size in [3, 5] {
            assert_eq!(memory.hear(&remembered(size, "b")).unwrap_err().check(), "log.fork");
        }
        assert_eq!(memory.take(None, checkpoint(5, "b").as_str(), None).unwrap_err().check(), "log.fork");
        let first = LogMemory::new(signer().key(), None);
        first.hear(&remembered(5, "a")).unwrap();
        assert_eq!(first.remembered(), Some(remembered(5, "a")));
        assert!(first.take_changed().is_none(), "it is on the disk already");
    }
}
