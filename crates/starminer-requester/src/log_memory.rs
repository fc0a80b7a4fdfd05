//! The client's memory of the public log: a fork or a rollback shows.
//!
//! With several releases under way, answers come with checkpoints that are proven consistent with what was remembered when
//! the question was asked, not with each other. Those that could not be joined at once are kept and joined by a later
//! consistency proof; two that cannot be joined are the proof of a fork.

use std::sync::{Mutex, PoisonError};

use starminer_log::{
    Advance, AdvanceError, ConsistencyProof, LogKey, Remembered, SignedCheckpoint, VerifiedCheckpoint,
};
use starminer_verify::{Party, Refusal};
use starminer_wire::LogProof;

/// Most checkpoints that wait to be joined; past that the next release waits for a join.
const MAX_UNJOINED: usize = 256;

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
}

impl LogMemory {
    pub(crate) fn new(key: LogKey, remembered: Option<Remembered>) -> Self {
        Self { key, state: Mutex::new(State { latest: remembered, ..State::default() }) }
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
        proof: &LogProof,
    ) -> Result<VerifiedCheckpoint, Refusal> {
        let checkpoint = SignedCheckpoint::parse(proof.checkpoint.as_bytes())
            .map_err(|error| fault("log.checkpoint-malformed", &error.to_string()))?
            .verify(&self.key)
            .map_err(|error| fault("log.checkpoint-unsigned", &error.to_string()))?;
        let consistency = proof.consistency.clone().unwrap_or_else(ConsistencyProof::empty);
        if let Some(asked_from) = asked_from {
            advance(&mut asked_from.clone(), checkpoint.clone(), &consistency)?;
        }
        let mut state = self.state();
        match &mut state.latest {
            None => {
                state.latest = Some(Remembered::first(checkpoint.clone()));
                state.changed = true;
            }
            Some(latest) => {
                let (size, root) = (latest.checkpoint().size(), latest.checkpoint().root());
                if size == checkpoint.size() {
                    if root != checkpoint.root() {
                        return Err(fault("log.fork", "two checkpoints of one size have different roots"));
                    }
                } else if asked_from.is_some_and(|from| from.checkpoint().size() == size) {
                    advance(latest, checkpoint.clone(), &consistency)?;
                    state.changed = true;
                } else if state.unjoined.iter().all(|kept| kept.size() != checkpoint.size()) {
                    if state.unjoined.len() >= MAX_UNJOINED {
                        return Err(fault(
                            "log.unjoined",
                            "too many checkpoints could not be joined to the remembered one",
                        ));
                    }
                    state.unjoined.push(checkpoint.clone());
                }
            }
        }
        Ok(checkpoint)
    }

    /// A checkpoint that still has to be joined: ask for consistency from its size, then give the answer to [`Self::join`].
    pub(crate) fn unjoined(&self) -> Option<VerifiedCheckpoint> {
        self.state().unjoined.last().cloned()
    }

    /// Joins a kept checkpoint: the log's newest checkpoint continues it, and the remembered one as well.
    pub(crate) fn join(
        &self,
        kept: &VerifiedCheckpoint,
        from_kept: &LogProof,
        asked_from: &Remembered,
        from_latest: &LogProof,
    ) -> Result<(), Refusal> {
        let newest = self.take(Some(asked_from), from_latest)?;
        let again = SignedCheckpoint::parse(from_kept.checkpoint.as_bytes())
            .map_err(|error| fault("log.checkpoint-malformed", &error.to_string()))?
            .verify(&self.key)
            .map_err(|error| fault("log.checkpoint-unsigned", &error.to_string()))?;
        let consistency = from_kept.consistency.clone().unwrap_or_else(ConsistencyProof::empty);
        advance(&mut Remembered::first(kept.clone()), again.clone(), &consistency)?;
        let mut state = self.state();
        // The two answers may be of different moments; what matters is that each kept one is known to be continued by something kept.
        if again.size() != newest.size() {
            state.unjoined.push(again);
        } else if again.root() != newest.root() {
            return Err(fault("log.fork", "two checkpoints of one size have different roots"));
        }
        state.unjoined.retain(|other| other.size() != kept.size());
        Ok(())
    }

    /// The remembered checkpoint, if it changed since it was last taken for keeping.
    pub(crate) fn take_changed(&self) -> Option<Remembered> {
        let mut state = self.state();
        if std::mem::take(&mut state.changed) { state.latest.clone() } else { None }
    }
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
