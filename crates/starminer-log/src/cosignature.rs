//! Cosignatures of witnesses: `cosignature/v1`, a timestamped Ed25519 signature of a checkpoint (C2SP tlog-cosignature).
//!
//! A witness says: at this time, this was the largest consistent checkpoint of this log that I have seen. So a
//! [`WitnessSigner`] signs only what a [`Remembered`] holds, which moves by consistency proofs alone. A quorum counts
//! distinct public keys, since a v1 cosignature does not commit to the witness's name.
//!
//! Not here: ML-DSA cosignatures (C2SP type 0x06), asking witnesses, and judging whether a time is plausible, which takes
//! a clock.

use std::collections::BTreeSet;
use std::fmt;

use crate::checkpoint::{line, parse_lines};
use crate::{CheckpointError, KeyName, MAX_NOTE_LEN, Remembered, VerifiedCheckpoint, WitnessKey, WitnessSigner};

/// The latest time of a cosignature, in seconds since 1970 (C2SP tlog-cosignature, "Format").
pub const MAX_COSIGNATURE_TIME_SECONDS: u64 = i64::MAX as u64;

/// Length of a `timestamped_signature`: 8 bytes of time and 64 of Ed25519.
const TIMESTAMPED_LEN: usize = 72;

/// The time given to [`WitnessSigner::cosign`] is 0 or beyond [`MAX_COSIGNATURE_TIME_SECONDS`]. Code
/// `log.cosignature-time`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a time to cosign with")]
pub struct CosignError;

impl CosignError {
    /// The stable code of this refusal.
    pub fn code(&self) -> &'static str {
        "log.cosignature-time"
    }
}

/// Why witnesses do not vouch for a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WitnessError {
    /// The trust file's fault: two trusted witnesses have one key, and would count twice.
    #[error("witness {0} has the key of another witness")]
    DuplicateKey(KeyName),
    /// The trust file's fault: a witness has the log's own key, and would vouch for itself.
    #[error("witness {0} has the log's own key")]
    LogKey(KeyName),
    /// The line of a trusted witness is not its signature of this checkpoint.
    #[error("the cosignature of {0} is wrong")]
    BadSignature(KeyName),
    /// More than one line names this witness.
    #[error("the cosignature of {0} stands there twice")]
    DuplicateSignature(KeyName),
    /// The signed time is 0 or beyond [`MAX_COSIGNATURE_TIME_SECONDS`].
    #[error("the cosignature of {0} has no possible time")]
    Time(KeyName),
    /// Fewer trusted witnesses cosigned than the quorum.
    #[error("{have} of the {quorum} cosignatures asked for")]
    Quorum {
        /// How many did.
        have: usize,
        /// How many must.
        quorum: usize,
    },
    /// The lines to add are not signature lines, or too many.
    #[error("not cosignature lines")]
    Lines(#[source] CheckpointError),
}

impl WitnessError {
    /// The stable code of this refusal.
    pub fn code(&self) -> &'static str {
        match self {
            WitnessError::DuplicateKey(_) => "log.witness-duplicate-key",
            WitnessError::LogKey(_) => "log.witness-is-log",
            WitnessError::BadSignature(_) => "log.cosignature",
            WitnessError::DuplicateSignature(_) => "log.cosignature-duplicate",
            WitnessError::Time(_) => "log.cosignature-time",
            WitnessError::Quorum { .. } => "log.quorum",
            WitnessError::Lines(_) => "log.cosignature-lines",
        }
    }
}

/// A verified cosignature: who, and when by its own clock. Made by verification alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cosignature {
    witness: KeyName,
    time_seconds: u64,
}

impl Cosignature {
    /// The witness.
    pub fn witness(&self) -> &KeyName {
        &self.witness
    }

    /// When it signed, in seconds since 1970, by its own clock.
    pub fn time_seconds(&self) -> u64 {
        self.time_seconds
    }
}

/// A new cosignature as a note signature line, newline included: what a witness answers with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CosignatureLine(Vec<u8>);

impl CosignatureLine {
    /// The line's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for CosignatureLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl WitnessSigner {
    /// Cosigns the checkpoint that is remembered, at `time_seconds` since 1970. The same inputs give the same line.
    pub fn cosign(&self, remembered: &Remembered, time_seconds: u64) -> Result<CosignatureLine, CosignError> {
        if !is_possible(time_seconds) {
            return Err(CosignError);
        }
        let message = message(time_seconds, &remembered.checkpoint().checkpoint().body());
        let mut signature = time_seconds.to_be_bytes().to_vec();
        signature.extend(self.sign(message.as_bytes()));
        Ok(CosignatureLine(line(self.name(), self.id(), signature).to_bytes()))
    }
}

impl VerifiedCheckpoint {
    /// Verifies the cosignatures of trusted witnesses and requires `quorum` of them. Lines of unknown keys are ignored; a
    /// wrong one of a trusted witness refuses the whole note (C2SP signed-note, "Signatures"). In the order of
    /// `witnesses`.
    pub fn verify_witnesses(&self, witnesses: &[WitnessKey], quorum: usize) -> Result<Vec<Cosignature>, WitnessError> {
        self.check_independence(witnesses)?;
        let mut cosignatures = Vec::new();
        for witness in witnesses {
            let mut lines = self.signed().signatures_of(witness.name(), witness.id());
            let Some(signature) = lines.next() else { continue };
            if lines.next().is_some() {
                return Err(WitnessError::DuplicateSignature(witness.name().clone()));
            }
            cosignatures.push(self.verify_cosignature(witness, signature)?);
        }
        if cosignatures.len() < quorum {
            return Err(WitnessError::Quorum { have: cosignatures.len(), quorum });
        }
        Ok(cosignatures)
    }

    /// Adds the cosignature lines that a witness answered with: one or more lines, each with its newline. Lines of keys
    /// other than `witnesses` are dropped, a wrong line of one of them is an error, and an older line of the same witness
    /// is replaced. Errors with `log.quorum` if no line remains.
    pub fn with_cosignatures(
        &self,
        lines: &[u8],
        witnesses: &[WitnessKey],
    ) -> Result<VerifiedCheckpoint, WitnessError> {
        self.check_independence(witnesses)?;
        if lines.len() > MAX_NOTE_LEN {
            return Err(WitnessError::Lines(CheckpointError::TooLong));
        }
        let mut known = parse_lines(lines).map_err(WitnessError::Lines)?;
        let witness_of = |line: &signed_note::Signature| {
            witnesses.iter().find(|witness| witness.id() == line.id() && witness.name().as_str() == line.name())
        };
        known.retain(|line| witness_of(line).is_some());
        let mut seen = BTreeSet::new();
        for line in &known {
            let Some(witness) = witness_of(line) else { continue };
            if !seen.insert(witness) {
                return Err(WitnessError::DuplicateSignature(witness.name().clone()));
            }
            self.verify_cosignature(witness, line.signature())?;
        }
        if known.is_empty() {
            return Err(WitnessError::Quorum { have: 0, quorum: 1 });
        }
        self.with_lines(known).map_err(WitnessError::Lines)
    }

    /// No key may count twice, and the log may not be its own witness.
    fn check_independence(&self, witnesses: &[WitnessKey]) -> Result<(), WitnessError> {
        let mut keys = BTreeSet::new();
        for witness in witnesses {
            if witness.public_key() == self.key().public_key() {
                return Err(WitnessError::LogKey(witness.name().clone()));
            }
            if !keys.insert(witness.public_key()) {
                return Err(WitnessError::DuplicateKey(witness.name().clone()));
            }
        }
        Ok(())
    }

    fn verify_cosignature(&self, witness: &WitnessKey, signature: &[u8]) -> Result<Cosignature, WitnessError> {
        let refused = || WitnessError::BadSignature(witness.name().clone());
        let signature: &[u8; TIMESTAMPED_LEN] = signature.try_into().map_err(|_| refused())?;
        let (time, signature) = signature.split_first_chunk::<8>().ok_or_else(refused)?;
        let time_seconds = u64::from_be_bytes(*time);
        if !is_possible(time_seconds) {
            return Err(WitnessError::Time(witness.name().clone()));
        }
        if !witness.verify(message(time_seconds, &self.checkpoint().body()).as_bytes(), signature) {
            return Err(refused());
        }
        Ok(Cosignature { witness: witness.name().clone(), time_seconds })
    }
}

/// A v1 cosignature says "as of this time", so no time is no statement.
fn is_possible(time_seconds: u64) -> bool {
    (1..=MAX_COSIGNATURE_TIME_SECONDS).contains(&time_seconds)
}

/// The signed message: a header line for domain separation, the time, the note text.
fn message(time_seconds: u64, body: &str) -> String {
    format!("cosignature/v1\ntime {time_seconds}\n{body}")
}
