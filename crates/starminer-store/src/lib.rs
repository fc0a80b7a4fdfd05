//! SQL and blobs: durability in one place.
//!
//! [`Database`] keeps the coordinator's state: the entries and hashes of the log, the statements behind them, and small indexes.
//! Everything that changes it goes through one [`Journal::commit`]: one transaction that also replaces the log's checkpoint by
//! compare-and-swap, so that a batch is durable as a whole or not at all and a second writer is noticed. [`Blobs`] keeps
//! ciphertext under its BLAKE3 name, never in memory, and resumes uploads.
//!
//! Not here: what a row means. The store knows no statement, checks no signature and decides nothing; identifiers are bytes.
//! SQL stays within what SQLite and PostgreSQL both take; `migrations/` holds what differs.

mod blobs;
mod commit;
mod database;
mod disk;
pub mod fault;
mod rows;
mod upload;

pub use blobs::{BLOB_READ_BYTES, BlobReadError, BlobStream, Blobs};
pub use commit::{CommitError, Committed, Journal};
pub use database::{Database, OpenError, ReadError};
pub use disk::{Disk, LocalDisk};
pub use rows::{
    Batch, BlobRow, BlobUseRow, CheckpointRow, EntryRow, EventRow, HASHES_PER_RUN, HashRun, Id16, Id32, NodeRow,
    OpenedTask, UnsweptTask,
};
pub use upload::{PartialLimits, Upload, UploadEnd, UploadError};
