//! Writing: one transaction a batch, guarded by compare-and-swap on the checkpoint's version.
//!
//! A batch that was acknowledged survives power loss at any instant. One that failed may or may not be there when the failure came
//! from the commit itself; [`Database::checkpoint`] tells which, and the caller must ask before it goes on.

use std::io;

use futures_util::future::BoxFuture;
use sqlx::sqlite::{Sqlite, SqliteArguments, SqliteConnection};
use sqlx::{Arguments as _, Connection as _, Executor as _};

use crate::database::{Database, ReadError, signed};
use crate::rows::{Batch, CheckpointRow, Id32};

/// What a commit did that the batch did not say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Committed {
    /// The blobs of [`Batch::dropped`] that no task used: their rows are gone. With owner and length.
    pub dropped: Vec<(Id32, Id32, u64)>,
}

/// Why a batch was not committed.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The disk is full. Nothing was written.
    #[error("no space left for the database")]
    Full,
    /// The checkpoint is not the one that the batch builds on: something else writes to this database.
    #[error("checkpoint is not at version {expected}: another coordinator writes to this database")]
    Conflict {
        /// The version that the batch builds on.
        expected: u64,
    },
    /// Anything else. Whether the batch is there is not known.
    #[error("database cannot be written")]
    Failed(#[source] sqlx::Error),
}

impl CommitError {
    /// A stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Full => "storage.full",
            Self::Conflict { .. } => "storage.conflict",
            Self::Failed(_) => "storage.failed",
        }
    }

    fn from_sqlx(error: sqlx::Error) -> Self {
        if is_full(&error) { Self::Full } else { Self::Failed(error) }
    }
}

/// SQLITE_FULL (13), by primary or extended result code.
fn is_full(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(database) => {
            database.code().and_then(|code| code.parse::<u32>().ok()).is_some_and(|code| code & 0xff == 13)
        }
        sqlx::Error::Io(io) => matches!(io.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded),
        _ => false,
    }
}

/// Where batches become durable. The narrow waist that fault injection wraps.
pub trait Journal: Send + Sync {
    /// Makes a batch durable, all of it or nothing.
    ///
    /// # Errors
    /// [`CommitError`].
    fn commit<'a>(&'a self, batch: &'a Batch) -> BoxFuture<'a, Result<Committed, CommitError>>;

    /// The checkpoint that is durable now.
    ///
    /// # Errors
    /// [`ReadError`].
    fn durable_checkpoint(&self) -> BoxFuture<'_, Result<Option<CheckpointRow>, ReadError>>;
}

impl Journal for Database {
    fn commit<'a>(&'a self, batch: &'a Batch) -> BoxFuture<'a, Result<Committed, CommitError>> {
        Box::pin(async move {
            let mut writer = self.writer.lock().await;
            write(&mut writer, batch).await
        })
    }

    fn durable_checkpoint(&self) -> BoxFuture<'_, Result<Option<CheckpointRow>, ReadError>> {
        Box::pin(self.checkpoint())
    }
}

impl<J: Journal + ?Sized> Journal for std::sync::Arc<J> {
    fn commit<'a>(&'a self, batch: &'a Batch) -> BoxFuture<'a, Result<Committed, CommitError>> {
        (**self).commit(batch)
    }

    fn durable_checkpoint(&self) -> BoxFuture<'_, Result<Option<CheckpointRow>, ReadError>> {
        (**self).durable_checkpoint()
    }
}

async fn write(connection: &mut SqliteConnection, batch: &Batch) -> Result<Committed, CommitError> {
    let mut transaction = connection.begin().await.map_err(CommitError::from_sqlx)?;
    if let Some(checkpoint) = &batch.checkpoint {
        swap_checkpoint(&mut transaction, checkpoint).await?;
    }
    let committed = write_rows(&mut transaction, batch).await.map_err(CommitError::from_sqlx)?;
    transaction.commit().await.map_err(CommitError::from_sqlx)?;
    Ok(committed)
}

/// Exactly one row must change, or the database is not where this writer believes it is.
async fn swap_checkpoint(connection: &mut SqliteConnection, checkpoint: &CheckpointRow) -> Result<(), CommitError> {
    let expected = checkpoint.version.saturating_sub(1);
    let query = if expected == 0 {
        sqlx::query(
            "INSERT INTO checkpoint (id, version, size, note, hashes) VALUES (1, $1, $2, $3, $4) ON CONFLICT (id) DO NOTHING",
        )
        .bind(signed(checkpoint.version))
        .bind(signed(checkpoint.size))
        .bind(&checkpoint.note)
        .bind(&checkpoint.open_run)
    } else {
        sqlx::query(
            "UPDATE checkpoint SET version = $1, size = $2, note = $3, hashes = $4 WHERE id = 1 AND version = $5",
        )
        .bind(signed(checkpoint.version))
        .bind(signed(checkpoint.size))
        .bind(&checkpoint.note)
        .bind(&checkpoint.open_run)
        .bind(signed(expected))
    };
    let done = query.execute(connection).await.map_err(CommitError::from_sqlx)?;
    if done.rows_affected() == 1 { Ok(()) } else { Err(CommitError::Conflict { expected }) }
}

async fn write_rows(connection: &mut SqliteConnection, batch: &Batch) -> Result<Committed, sqlx::Error> {
    let mut insert = Inserter { connection };
    insert
        .rows(
            "INSERT INTO event (idx, task, kind, at, entry, statement, extra) VALUES ",
            7,
            "",
            &batch.events,
            |row, to| {
                to.add(signed(row.index))?;
                to.add(row.task.as_ref().map(|task| task.as_slice()))?;
                to.add(row.kind)?;
                to.add(signed(row.at))?;
                to.add(row.entry.as_slice())?;
                to.add(row.statement.as_deref())?;
                to.add(row.extra.as_deref())
            },
        )
        .await?;
    insert
        .rows("INSERT INTO log_hashes (run, hashes) VALUES ", 2, "", &batch.hashes, |row, to| {
            to.add(signed(row.run))?;
            to.add(row.hashes.as_slice())
        })
        .await?;
    insert
        .rows("INSERT INTO task (task, requester, submitted_idx) VALUES ", 3, "", &batch.opened, |row, to| {
            to.add(row.task.as_slice())?;
            to.add(row.requester.as_slice())?;
            to.add(signed(row.submitted_index))
        })
        .await?;
    insert
        .rows(
            "INSERT INTO blob (id, owner, size_bytes, stored_at, body) VALUES ",
            5,
            " ON CONFLICT (id) DO NOTHING",
            &batch.blobs,
            |row, to| {
                to.add(row.id.as_slice())?;
                to.add(row.owner.as_slice())?;
                to.add(signed(row.size_bytes))?;
                to.add(signed(row.stored_at))?;
                to.add(row.body.as_deref())
            },
        )
        .await?;
    insert
        .rows(
            "INSERT INTO blob_use (blob, task) VALUES ",
            2,
            " ON CONFLICT (blob, task) DO NOTHING",
            &batch.uses,
            |row, to| {
                to.add(row.blob.as_slice())?;
                to.add(row.task.as_slice())
            },
        )
        .await?;
    insert
        .rows(
            "INSERT INTO node (node, valid_until, standing) VALUES ",
            3,
            " ON CONFLICT (node) DO UPDATE SET valid_until = excluded.valid_until, standing = excluded.standing",
            &batch.nodes,
            |row, to| {
                to.add(row.node.as_slice())?;
                to.add(signed(row.valid_until))?;
                to.add(row.standing.as_slice())
            },
        )
        .await?;
    for (task, at) in &batch.ended {
        let query =
            sqlx::query("UPDATE task SET ended_at = $1 WHERE task = $2").bind(signed(*at)).bind(task.as_slice());
        query.execute(&mut *connection).await?;
    }
    for task in &batch.swept {
        sqlx::query("DELETE FROM blob_use WHERE task = $1").bind(task.as_slice()).execute(&mut *connection).await?;
        sqlx::query("UPDATE task SET swept = 1 WHERE task = $1")
            .bind(task.as_slice())
            .execute(&mut *connection)
            .await?;
    }
    drop_blobs(connection, &batch.dropped).await
}

async fn drop_blobs(connection: &mut SqliteConnection, blobs: &[Id32]) -> Result<Committed, sqlx::Error> {
    let mut committed = Committed::default();
    for blob in blobs {
        let row: Option<(Vec<u8>, i64)> = sqlx::query_as(
            "DELETE FROM blob WHERE id = $1 AND NOT EXISTS (SELECT 1 FROM blob_use WHERE blob_use.blob = blob.id) RETURNING owner, size_bytes",
        )
        .bind(blob.as_slice())
        .fetch_optional(&mut *connection)
        .await?;
        if let Some((owner, size_bytes)) = row
            && let Ok(owner) = Id32::try_from(owner)
        {
            committed.dropped.push((*blob, owner, u64::try_from(size_bytes).unwrap_or(0)));
        }
    }
    Ok(committed)
}

/// Inserts several rows a statement. A statement costs a hop to the database's thread, so that one a row would be most of a commit.
struct Inserter<'c> {
    connection: &'c mut SqliteConnection,
}

type BindResult = Result<(), Box<dyn std::error::Error + Send + Sync>>;

impl Inserter<'_> {
    /// Rows go in groups of powers of two, so that a table has few statement texts and all of them stay prepared.
    async fn rows<'q, T>(
        &mut self,
        head: &str,
        columns: usize,
        tail: &str,
        rows: &'q [T],
        bind: impl Fn(&'q T, &mut SqliteArguments<'q>) -> BindResult,
    ) -> Result<(), sqlx::Error> {
        const LARGEST_GROUP: usize = 32;
        let mut rest = rows;
        while !rest.is_empty() {
            let size = LARGEST_GROUP.min(1 << rest.len().ilog2());
            let (group, after) = rest.split_at(size);
            let mut arguments = SqliteArguments::default();
            for row in group {
                bind(row, &mut arguments).map_err(sqlx::Error::Encode)?;
            }
            let sql = format!("{head}{}{tail}", placeholders(size, columns));
            let query = sqlx::query_with::<Sqlite, _>(&sql, arguments);
            self.connection.execute(query).await?;
            rest = after;
        }
        Ok(())
    }
}

/// `($1, $2), ($3, $4)` for two rows of two columns.
fn placeholders(rows: usize, columns: usize) -> String {
    let row = |row: usize| {
        let numbers: Vec<String> = (1..=columns).map(|column| format!("${}", row * columns + column)).collect();
        format!("({})", numbers.join(", "))
    };
    (0..rows).map(row).collect::<Vec<_>>().join(", ")
}
