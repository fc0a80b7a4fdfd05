//! The log's writer: entries in, hashes and a signed checkpoint out.
//!
//! It moves in two steps, like the batch that it is part of: [`Ledger::prepare`] leaves it as it was, [`Ledger::advance`] goes on to what was
//! prepared once that is durable. Nothing of it is published before.

use starminer_log::{
    AppendError, Batch as LogBatch, Checkpoint, CheckpointError, Frontier, Hash, LogSigner, SignError,
    SignedCheckpoint, VerifyError,
};
use starminer_store::{CheckpointRow, Database, HASHES_PER_RUN, HashRun, ReadError};

/// Why the log cannot be continued. Always the coordinator's own trouble.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The database cannot be read.
    #[error("log cannot be read")]
    Read(#[from] ReadError),
    /// The stored checkpoint is not a checkpoint.
    #[error("stored checkpoint is damaged")]
    Checkpoint(#[from] CheckpointError),
    /// The stored checkpoint is of another log, or was altered.
    #[error("stored checkpoint does not verify under this coordinator's log key")]
    Verify(#[from] VerifyError),
    /// Stored hashes do not give the checkpoint's root.
    #[error("stored hashes do not give the root of the checkpoint: the database was altered or damaged")]
    OtherRoot,
    /// A row of hashes that the checkpoint covers is missing.
    #[error("stored hashes are missing from row {run}")]
    MissingRun {
        /// The row.
        run: u64,
    },
    /// Entries that the log does not take.
    #[error("entries cannot be appended")]
    Append(#[from] AppendError),
    /// The signer is of another log.
    #[error("checkpoint cannot be signed")]
    Sign(#[from] SignError),
}

/// The right edge of the log in memory.
#[derive(Debug)]
pub struct Ledger {
    signer: LogSigner,
    frontier: Frontier,
    version: u64,
    /// Hashes of the run that is not full yet, which the next ones are appended to.
    open_run: Vec<u8>,
}

/// What one batch adds.
#[derive(Debug)]
pub struct Prepared {
    batch: LogBatch,
    /// The new checkpoint.
    pub checkpoint: CheckpointRow,
    /// The same, parsed.
    pub signed: SignedCheckpoint,
    /// The entries.
    pub entries: Vec<Vec<u8>>,
    /// Runs of hashes that became full.
    pub runs: Vec<HashRun>,
}

impl Prepared {
    /// Index of the first new entry.
    #[must_use]
    pub fn first_entry(&self) -> u64 {
        self.batch.entries().start
    }

    /// Stored-hash index of the first new hash.
    #[must_use]
    pub fn first_stored_index(&self) -> u64 {
        self.batch.first_stored_index()
    }

    /// The new hashes.
    #[must_use]
    pub fn hashes(&self) -> &[Hash] {
        self.batch.hashes()
    }
}

impl Ledger {
    /// Continues the log where the database has it, and refuses one whose hashes do not give the signed root. With the signed note of the
    /// same row; empty before the first entry.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn open(database: &Database, signer: LogSigner) -> Result<(Self, String), LedgerError> {
        let Some(checkpoint) = database.checkpoint().await? else {
            let empty = Self { signer, frontier: Frontier::empty(), version: 0, open_run: Vec::new() };
            return Ok((empty, String::new()));
        };
        let verified = SignedCheckpoint::parse(checkpoint.note.as_bytes())?.verify(&signer.key())?;
        let stored = starminer_log::stored_count(verified.size()).map_err(|_| LedgerError::OtherRoot)?;
        let open = HashRun { run: stored / HASHES_PER_RUN, hashes: checkpoint.open_run };
        let mut peaks = Vec::new();
        for index in Frontier::reads(verified.size()).map_err(|_| LedgerError::OtherRoot)? {
            peaks.push(stored_hash(database, &open, index).await?);
        }
        let frontier = Frontier::from_peaks(verified.size(), peaks).map_err(|_| LedgerError::OtherRoot)?;
        let is_whole = open.hashes.len() as u64 == stored % HASHES_PER_RUN * 32;
        if frontier.root() != verified.root() || verified.size() != checkpoint.size || !is_whole {
            return Err(LedgerError::OtherRoot);
        }
        Ok((Self { signer, frontier, version: checkpoint.version, open_run: open.hashes }, checkpoint.note))
    }

    /// The hashes of the run that is not full yet, and the index of the first.
    #[must_use]
    pub fn open_hashes(&self) -> (u64, Vec<Hash>) {
        // The size was within bounds when the frontier was made.
        let stored = starminer_log::stored_count(self.frontier.size()).unwrap_or(0);
        let hashes = self.open_run.chunks_exact(32).filter_map(|hash| hash.try_into().ok().map(Hash)).collect();
        (stored / HASHES_PER_RUN * HASHES_PER_RUN, hashes)
    }

    /// Entries in the log.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// Version of the last checkpoint.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Hashes and signs what a batch would add.
    ///
    /// # Errors
    /// [`LedgerError::Append`], [`LedgerError::Sign`], [`LedgerError::Checkpoint`].
    pub fn prepare(&self, entries: Vec<Vec<u8>>) -> Result<Prepared, LedgerError> {
        let batch = self.frontier.append(&entries)?;
        let checkpoint = Checkpoint::new(self.signer.name().clone(), batch.size(), batch.root())?;
        let signed = checkpoint.sign(&self.signer)?;
        let (runs, open_run) = self.runs(&batch);
        Ok(Prepared {
            checkpoint: CheckpointRow {
                version: self.version + 1,
                size: batch.size(),
                note: signed.as_str().to_owned(),
                open_run,
            },
            signed,
            entries,
            runs,
            batch,
        })
    }

    /// Full runs with the new hashes, the first of which continues the open one; and what is left.
    fn runs(&self, batch: &LogBatch) -> (Vec<HashRun>, Vec<u8>) {
        let full = usize::try_from(HASHES_PER_RUN * 32).unwrap_or(usize::MAX);
        let mut run = batch.first_stored_index() / HASHES_PER_RUN;
        let mut hashes = self.open_run.clone();
        let mut runs = Vec::new();
        for hash in batch.hashes() {
            hashes.extend_from_slice(&hash.0);
            if hashes.len() == full {
                runs.push(HashRun { run, hashes: std::mem::take(&mut hashes) });
                run += 1;
            }
        }
        (runs, hashes)
    }

    /// What was prepared is durable.
    pub fn advance(&mut self, prepared: Prepared) {
        self.version = prepared.checkpoint.version;
        self.open_run = prepared.checkpoint.open_run;
        self.frontier = prepared.batch.into_frontier();
    }
}

async fn stored_hash(database: &Database, open: &HashRun, index: u64) -> Result<Hash, LedgerError> {
    let run = index / HASHES_PER_RUN;
    let missing = LedgerError::MissingRun { run };
    if run == open.run {
        return hash_at(open, index).ok_or(missing);
    }
    let row = database.hash_run(run).await?.ok_or(LedgerError::MissingRun { run })?;
    hash_at(&row, index).ok_or(missing)
}

/// The hash with this stored-hash index, in the run that has it.
pub(crate) fn hash_at(row: &HashRun, index: u64) -> Option<Hash> {
    let at = usize::try_from(index.checked_sub(row.run * HASHES_PER_RUN)? * 32).ok()?;
    row.hashes.get(at..at + 32)?.try_into().ok().map(Hash)
}
