//! The log as it is published: the latest checkpoint, proofs under it, and tiles.
//!
//! A proof needs hashes near the entry, which were appended lately and are in memory, and a few older ones, which are read and kept.
//! All hashes below a checkpoint never change, so nothing here has to be in step with the writer.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use starminer_log::{ConsistencyProof, Hash, InclusionProof, SignedCheckpoint, consistency_reads, inclusion_reads, prove_consistency, prove_inclusion};
use starminer_receipt::Base64Bytes;
use starminer_store::{Database, HASHES_PER_RUN, HashRun};
use starminer_verify::{Party, TaskId};
use starminer_wire::{LogProof, LoggedEntryParts, ProblemStatus};

use crate::ledger::{Prepared, hash_at};
use crate::refused::Refused;

/// Hashes of the latest entries that stay in memory: 2 MiB.
const RECENT_HASHES: usize = 65_536;
/// Rows of older hashes that stay in memory: 1 MiB.
const CACHED_RUNS: usize = 128;

/// The latest checkpoint.
#[derive(Debug, Clone)]
pub struct Head {
    /// Entries in the tree.
    pub size: u64,
    /// The signed note.
    pub note: Arc<str>,
}

/// Reads the published log.
#[derive(Debug)]
pub struct LogReader {
    database: Arc<Database>,
    head: RwLock<Head>,
    recent: RwLock<Recent>,
    runs: Mutex<RunCache>,
}

#[derive(Debug, Default)]
struct Recent {
    first: u64,
    hashes: VecDeque<Hash>,
}

/// Keeps the rows that were used last.
#[derive(Debug, Default)]
struct RunCache {
    rows: HashMap<u64, (u64, Arc<HashRun>)>,
    uses: u64,
}

impl RunCache {
    fn find(&mut self, run: u64) -> Option<Arc<HashRun>> {
        self.uses += 1;
        let (used, row) = self.rows.get_mut(&run)?;
        *used = self.uses;
        Some(row.clone())
    }

    fn keep(&mut self, row: Arc<HashRun>) {
        self.uses += 1;
        if self.rows.len() >= CACHED_RUNS
            && let Some(oldest) = self.rows.iter().min_by_key(|(_, (used, _))| *used).map(|(run, _)| *run)
        {
            self.rows.remove(&oldest);
        }
        self.rows.insert(row.run, (self.uses, row));
    }
}

impl LogReader {
    /// A reader whose latest checkpoint is `head`.
    pub fn new(database: Arc<Database>, head: Head) -> Self {
        Self { database, head: RwLock::new(head), recent: RwLock::default(), runs: Mutex::default() }
    }

    /// The latest checkpoint.
    #[must_use]
    pub fn head(&self) -> Head {
        self.head.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Publishes what became durable.
    pub fn publish(&self, prepared: &Prepared) {
        let mut recent = self.recent.write().unwrap_or_else(PoisonError::into_inner);
        if recent.first + recent.hashes.len() as u64 != prepared.first_stored_index() {
            *recent = Recent { first: prepared.first_stored_index(), hashes: VecDeque::new() };
        }
        recent.hashes.extend(prepared.hashes());
        let surplus = recent.hashes.len().saturating_sub(RECENT_HASHES);
        recent.hashes.drain(..surplus);
        recent.first += surplus as u64;
        drop(recent);
        *self.head.write().unwrap_or_else(PoisonError::into_inner) = head_of(&prepared.signed, prepared.checkpoint.size);
    }

    /// The hashes with these stored-hash indices.
    async fn hashes(&self, indices: &[u64]) -> Result<BTreeMap<u64, Hash>, Refused> {
        let mut found = BTreeMap::new();
        let mut missing = Vec::new();
        {
            let recent = self.recent.read().unwrap_or_else(PoisonError::into_inner);
            for &index in indices {
                let at = index.checked_sub(recent.first).and_then(|at| usize::try_from(at).ok());
                match at.and_then(|at| recent.hashes.get(at)) {
                    Some(hash) => {
                        found.insert(index, *hash);
                    }
                    None => missing.push(index),
                }
            }
        }
        for index in missing {
            let run = self.run(index / HASHES_PER_RUN, index).await?;
            found.insert(index, hash_at(&run, index).ok_or_else(Refused::internal)?);
        }
        Ok(found)
    }

    async fn run(&self, run: u64, index: u64) -> Result<Arc<HashRun>, Refused> {
        let cached = self.runs.lock().unwrap_or_else(PoisonError::into_inner).find(run);
        // A row that was read while it grew lacks its later hashes.
        if let Some(row) = cached.filter(|row| hash_at(row, index).is_some()) {
            return Ok(row);
        }
        let row = self.database.hash_run(run).await.map_err(storage)?.ok_or_else(Refused::internal)?;
        let row = Arc::new(row);
        self.runs.lock().unwrap_or_else(PoisonError::into_inner).keep(row.clone());
        Ok(row)
    }

    /// That entry `index` is in the tree of `size`.
    ///
    /// # Errors
    /// Storage failures.
    pub async fn inclusion(&self, size: u64, index: u64) -> Result<InclusionProof, Refused> {
        let reads = inclusion_reads(size, index).map_err(|_| Refused::internal())?;
        let hashes = self.hashes(&reads).await?;
        prove_inclusion(size, index, &hashes).map_err(|_| Refused::internal())
    }

    /// That the tree of `newer` continues the tree of `older`.
    ///
    /// # Errors
    /// `log.size-unknown` where `older` is larger; storage failures.
    pub async fn consistency(&self, older: u64, newer: u64) -> Result<ConsistencyProof, Refused> {
        if older > newer {
            return Err(Refused::of(
                ProblemStatus::Conflict,
                Party::Log,
                "log.size-unknown",
                "the log is smaller than the checkpoint that is remembered",
                "keep the remembered checkpoint: if the coordinator signed it, this log was rolled back or forked",
            ));
        }
        let reads = consistency_reads(older, newer).map_err(|_| Refused::internal())?;
        let hashes = self.hashes(&reads).await?;
        prove_consistency(older, newer, &hashes).map_err(|_| Refused::internal())
    }

    /// An entry with its proofs under the latest checkpoint.
    ///
    /// # Errors
    /// As [`Self::inclusion`] and [`Self::consistency`].
    pub async fn proof(&self, index: u64, remembered_size: u64) -> Result<LogProof, Refused> {
        let head = self.head();
        let entry = self.database.entries(index, 1).await.map_err(storage)?.pop().filter(|row| row.index == index);
        let entry = entry.ok_or_else(Refused::internal)?;
        Ok(LogProof {
            checkpoint: head.note.to_string(),
            entry: Some(Base64Bytes(entry.entry)),
            inclusion: Some(self.inclusion(head.size, index).await?),
            consistency: Some(self.consistency(remembered_size, head.size).await?),
        })
    }

    /// That the latest checkpoint continues the tree of `from`.
    ///
    /// # Errors
    /// As [`Self::consistency`].
    pub async fn continuation(&self, from: u64) -> Result<LogProof, Refused> {
        let head = self.head();
        let consistency = self.consistency(from, head.size).await?;
        Ok(LogProof { checkpoint: head.note.to_string(), entry: None, inclusion: None, consistency: Some(consistency) })
    }

    /// Every entry of a task, each with its proof under one checkpoint.
    ///
    /// # Errors
    /// Storage failures.
    pub async fn entries_of(&self, task: &TaskId) -> Result<(Head, Vec<LoggedEntryParts>), Refused> {
        let rows = self.database.task_entries(&task.0).await.map_err(storage)?;
        // Taken after the rows: its tree has them all.
        let head = self.head();
        let mut entries = Vec::with_capacity(rows.len());
        for row in rows.into_iter().filter(|row| row.index < head.size) {
            let inclusion = self.inclusion(head.size, row.index).await?;
            entries.push(LoggedEntryParts { entry: Base64Bytes(row.entry), inclusion });
        }
        Ok((head, entries))
    }

    /// Stored hashes for a tile: by stored-hash index, in order.
    ///
    /// # Errors
    /// Storage failures.
    pub async fn stored_hashes(&self, indices: &[u64]) -> Result<BTreeMap<u64, Hash>, Refused> {
        self.hashes(indices).await
    }

    /// Entries `from` to `to`, the latter not included.
    ///
    /// # Errors
    /// Storage failures.
    pub async fn entries(&self, from: u64, to: u64) -> Result<Vec<Vec<u8>>, Refused> {
        let count = u32::try_from(to.saturating_sub(from)).unwrap_or(u32::MAX);
        let rows = self.database.entries(from, count).await.map_err(storage)?;
        Ok(rows.into_iter().map(|row| row.entry).collect())
    }
}

pub(crate) fn head_of(signed: &SignedCheckpoint, size: u64) -> Head {
    Head { size, note: signed.as_str().into() }
}

/// A read that failed: told to the caller without detail, to the operator with it.
pub(crate) fn storage(error: starminer_store::ReadError) -> Refused {
    tracing::error!(%error, source = ?std::error::Error::source(&error), "storage cannot be read");
    Refused::storage_failed()
}
