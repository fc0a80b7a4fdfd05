//! The log as it is published: the latest checkpoint, proofs under it, and tiles.
//!
//! A proof needs hashes near the entry, which were appended lately and are in memory, and a few older ones, which are read and kept.
//! All hashes below a checkpoint never change, so nothing here has to be in step with the writer.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use starminer_log::{
    ConsistencyProof, Hash, InclusionProof, SignedCheckpoint, consistency_reads, inclusion_reads, prove_consistency,
    prove_inclusion,
};
use starminer_receipt::Base64Bytes;
use starminer_store::{Database, EventRow, HASHES_PER_RUN, HashRun};
use starminer_verify::Party;
use starminer_wire::{LogChain, LogProof, LoggedEntryParts, ProblemStatus};

use crate::ledger::{Prepared, hash_at};
use crate::refused::Refused;

/// Hashes of the latest entries that stay in memory: 2 MiB.
const RECENT_HASHES: usize = 65_536;
/// Entries that stay in memory: 1 MiB.
const RECENT_ENTRIES: usize = 4_096;
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

/// The latest of something that is numbered without gaps.
#[derive(Debug)]
struct Latest<T> {
    first: u64,
    items: VecDeque<T>,
}

impl<T> Default for Latest<T> {
    fn default() -> Self {
        Self { first: 0, items: VecDeque::new() }
    }
}

impl<T> Latest<T> {
    fn extend(&mut self, first: u64, items: impl IntoIterator<Item = T>, most: usize) {
        if self.first + self.items.len() as u64 != first {
            *self = Self { first, items: VecDeque::new() };
        }
        self.items.extend(items);
        let surplus = self.items.len().saturating_sub(most);
        self.items.drain(..surplus);
        self.first += surplus as u64;
    }

    fn find(&self, index: u64) -> Option<&T> {
        self.items.get(usize::try_from(index.checked_sub(self.first)?).ok()?)
    }
}

#[derive(Debug, Default)]
struct Recent {
    hashes: Latest<Hash>,
    entries: Latest<Vec<u8>>,
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
    /// A reader whose latest checkpoint is `head`. Only full runs of hashes are read from the database: those of the open one, from
    /// index `first` on, are given here, and stay in memory until their run is full.
    pub fn new(database: Arc<Database>, head: Head, (first, hashes): (u64, Vec<Hash>)) -> Self {
        let hashes = Latest { first, items: hashes.into() };
        let recent = RwLock::new(Recent { hashes, entries: Latest::default() });
        Self { database, head: RwLock::new(head), recent, runs: Mutex::default() }
    }

    /// The latest checkpoint.
    #[must_use]
    pub fn head(&self) -> Head {
        self.head.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Publishes what became durable.
    pub fn publish(&self, prepared: &Prepared) {
        let mut recent = self.recent.write().unwrap_or_else(PoisonError::into_inner);
        recent.hashes.extend(prepared.first_stored_index(), prepared.hashes().iter().copied(), RECENT_HASHES);
        recent.entries.extend(prepared.first_entry(), prepared.entries.iter().cloned(), RECENT_ENTRIES);
        drop(recent);
        *self.head.write().unwrap_or_else(PoisonError::into_inner) =
            head_of(&prepared.signed, prepared.checkpoint.size);
    }

    /// The hashes with these stored-hash indices.
    async fn hashes(&self, indices: &[u64]) -> Result<BTreeMap<u64, Hash>, Refused> {
        let mut found = BTreeMap::new();
        let mut missing = Vec::new();
        {
            let recent = self.recent.read().unwrap_or_else(PoisonError::into_inner);
            for &index in indices {
                match recent.hashes.find(index) {
                    Some(hash) => {
                        found.insert(index, *hash);
                    }
                    None => missing.push(index),
                }
            }
        }
        for index in missing {
            let run = self.run(index / HASHES_PER_RUN).await?;
            found.insert(index, hash_at(&run, index).ok_or_else(Refused::internal)?);
        }
        Ok(found)
    }

    async fn run(&self, run: u64) -> Result<Arc<HashRun>, Refused> {
        let cached = self.runs.lock().unwrap_or_else(PoisonError::into_inner).find(run);
        if let Some(row) = cached {
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
        Ok(LogProof {
            checkpoint: head.note.to_string(),
            entry: Some(Base64Bytes(self.entry(index).await?)),
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

    /// That the log only grew from each size to the next, and from the last to the latest checkpoint. `sizes` ascend.
    ///
    /// # Errors
    /// As [`Self::consistency`].
    pub async fn chain(&self, sizes: &[u64]) -> Result<LogChain, Refused> {
        let head = self.head();
        let mut steps = Vec::with_capacity(sizes.len());
        for (older, newer) in sizes.iter().zip(sizes.iter().skip(1).chain([&head.size])) {
            steps.push(self.consistency(*older, *newer).await?);
        }
        Ok(LogChain { checkpoint: head.note.to_string(), steps })
    }

    async fn entry(&self, index: u64) -> Result<Vec<u8>, Refused> {
        let recent = self.recent.read().unwrap_or_else(PoisonError::into_inner).entries.find(index).cloned();
        if let Some(entry) = recent {
            return Ok(entry);
        }
        let row = self.database.entries(index, 1).await.map_err(storage)?.pop().filter(|row| row.index == index);
        Ok(row.ok_or_else(Refused::internal)?.entry)
    }

    /// Entries that were read from the database, each with its proof under the tree of `size`.
    ///
    /// # Errors
    /// Storage failures.
    pub async fn prove_all(&self, size: u64, rows: &[EventRow]) -> Result<Vec<LoggedEntryParts>, Refused> {
        let mut entries = Vec::with_capacity(rows.len());
        for row in rows {
            let inclusion = self.inclusion(size, row.index).await?;
            entries.push(LoggedEntryParts { entry: Base64Bytes(row.entry.clone()), inclusion });
        }
        Ok(entries)
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
