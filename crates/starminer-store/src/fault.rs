//! Writes that fail, for tests: each kind of write fails when it is told to, before it persists or after.
//!
//! What it does not do: lose what was synced. Power loss is simulated by killing processes, not here.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use futures_util::future::BoxFuture;

use crate::commit::{CommitError, Committed, Journal};
use crate::database::ReadError;
use crate::disk::{Disk, LocalDisk};
use crate::rows::{Batch, CheckpointRow};

/// What happens to a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It works.
    None,
    /// The disk is full; nothing is written.
    Full,
    /// It fails; nothing is written.
    Before,
    /// It is written, and then reported as failed.
    After,
}

/// The faults to come, one a write; when they are used up, writes work.
#[derive(Debug, Default)]
pub struct Faults(Mutex<VecDeque<Fault>>);

impl Faults {
    /// Adds what shall happen to the writes after those that are planned already.
    pub fn plan(&self, faults: impl IntoIterator<Item = Fault>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(faults);
    }

    /// Takes every fault back that has not happened.
    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn next(&self) -> Fault {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front().unwrap_or(Fault::None)
    }
}

/// A journal whose commits fail as planned.
#[derive(Debug)]
pub struct FaultyJournal<J> {
    inner: J,
    /// Faults of commits.
    pub commits: Faults,
    /// Faults of reading the checkpoint back; every fault but none is a failure.
    pub reads: Faults,
}

impl<J> FaultyJournal<J> {
    /// Wraps a journal.
    pub fn new(inner: J) -> Self {
        Self { inner, commits: Faults::default(), reads: Faults::default() }
    }
}

impl<J: Journal> Journal for FaultyJournal<J> {
    fn commit<'a>(&'a self, batch: &'a Batch) -> BoxFuture<'a, Result<Committed, CommitError>> {
        Box::pin(async move {
            let failed = || CommitError::Failed(sqlx::Error::Io(io::Error::other("planned fault")));
            match self.commits.next() {
                Fault::None => self.inner.commit(batch).await,
                Fault::Full => Err(CommitError::Full),
                Fault::Before => Err(failed()),
                Fault::After => {
                    self.inner.commit(batch).await?;
                    Err(failed())
                }
            }
        })
    }

    fn durable_checkpoint(&self) -> BoxFuture<'_, Result<Option<CheckpointRow>, ReadError>> {
        Box::pin(async move {
            match self.reads.next() {
                Fault::None => self.inner.durable_checkpoint().await,
                _ => Err(ReadError::Database(sqlx::Error::Io(io::Error::other("planned fault")))),
            }
        })
    }
}

/// A disk whose writes fail as planned, whatever their kind.
#[derive(Debug, Default)]
pub struct FaultyDisk {
    /// Faults of writes, in the order in which they come.
    pub writes: Faults,
}

impl FaultyDisk {
    fn write(&self, write: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        match self.writes.next() {
            Fault::None => write(),
            Fault::Full => Err(io::ErrorKind::StorageFull.into()),
            Fault::Before => Err(io::Error::other("planned fault")),
            Fault::After => {
                write()?;
                Err(io::Error::other("planned fault"))
            }
        }
    }
}

impl Disk for FaultyDisk {
    fn append(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        self.write(|| LocalDisk.append(file, bytes))
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        self.write(|| LocalDisk.sync(file))
    }

    fn publish(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.write(|| LocalDisk.publish(from, to))
    }
}
