//! The database: opening it and reading from it. Writing is in `commit.rs`.
//!
//! SQLite, embedded: write-ahead log, `synchronous = FULL` (every commit waits for the disk), foreign keys on. One connection writes;
//! readers have their own and see the last commit. Results that a stranger can grow are bounded by arguments.

use std::borrow::Cow;
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, Connection as _, Row as _};
use tokio::sync::Mutex;

use crate::rows::{BlobRow, CheckpointRow, EntryRow, EventRow, HashRun, Id16, Id32, NodeRow, UnsweptTask};

/// Connections that read. Each keeps a page cache of about 2 MiB.
const READERS: u32 = 4;
/// How long a statement waits for another process (a backup, say) that holds the database.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Prepared statements that a connection keeps.
const STATEMENT_CACHE: usize = 256;

const MIGRATIONS: [(i64, &str, &str); 2] = [
    (1, "state", include_str!("../migrations/sqlite/0001_state.sql")),
    (2, "events by kind", include_str!("../migrations/sqlite/0002_events_by_kind.sql")),
];

/// Why the database could not be opened. Always this machine's fault or its administrator's.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It cannot be opened or read.
    #[error("database cannot be opened")]
    Open(#[source] sqlx::Error),
    /// The schema cannot be brought up to date: the file is damaged, or was written by a newer version.
    #[error("database schema cannot be brought up to date")]
    Migrate(#[source] MigrateError),
}

impl OpenError {
    /// A stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Open(_) => "storage.open",
            Self::Migrate(_) => "storage.schema",
        }
    }
}

/// Why something could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The database failed.
    #[error("database cannot be read")]
    Database(#[from] sqlx::Error),
    /// A row does not have the shape that was written.
    #[error("damaged row in table {table}")]
    Damaged {
        /// The table.
        table: &'static str,
    },
}

impl ReadError {
    /// A stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Database(_) => "storage.failed",
            Self::Damaged { .. } => "storage.damaged",
        }
    }
}

/// The coordinator's database.
#[derive(Debug)]
pub struct Database {
    /// Held for the length of a commit.
    pub(crate) writer: Mutex<SqliteConnection>,
    readers: SqlitePool,
}

impl Database {
    /// Opens or creates the database file, for this user alone, and brings its schema up to date. The directory must exist.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(path: &Path) -> Result<Self, OpenError> {
        // SQLite takes an empty file as a new database, and gives the files beside it the same mode. A file that is there is not opened:
        // to close it would drop the locks that this process may have on it.
        match File::options().create_new(true).write(true).mode(0o600).open(path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(OpenError::Open(sqlx::Error::Io(error)));
            }
            _ => {}
        }
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT)
            .statement_cache_capacity(STATEMENT_CACHE)
            .disable_statement_logging();
        let mut writer = options.connect().await.map_err(OpenError::Open)?;
        migrator().run_direct(&mut writer).await.map_err(OpenError::Migrate)?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            // A connection within this process does not break; asking before each use would double the cost of a read.
            .test_before_acquire(false)
            .connect_with(options)
            .await
            .map_err(OpenError::Open)?;
        Ok(Self { writer: Mutex::new(writer), readers })
    }

    /// Bounds the file to so many pages, which is how a test fills the disk: writing beyond gives SQLite's own error of a full disk.
    #[doc(hidden)]
    pub async fn limit_pages_for_tests(&self, pages: u32) {
        let sql = format!("PRAGMA max_page_count = {pages}");
        let mut writer = self.writer.lock().await;
        if let Err(error) = sqlx::query(&sql).execute(&mut *writer).await {
            tracing::error!(%error, "the number of pages was not bounded");
        }
    }

    /// Waits for statements under way and closes the file.
    pub async fn close(self) {
        self.readers.close().await;
        if let Err(error) = self.writer.into_inner().close().await {
            tracing::warn!(%error, "database did not close cleanly; its write-ahead log will be read at the next start");
        }
    }

    /// The latest checkpoint; `None` before the first commit.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn checkpoint(&self) -> Result<Option<CheckpointRow>, ReadError> {
        let row = sqlx::query("SELECT version, size, note, hashes FROM checkpoint WHERE id = 1")
            .fetch_optional(&self.readers)
            .await?;
        row.map(|row| {
            Ok(CheckpointRow {
                version: unsigned(row.try_get(0)?, "checkpoint")?,
                size: unsigned(row.try_get(1)?, "checkpoint")?,
                note: row.try_get(2)?,
                open_run: row.try_get(3)?,
            })
        })
        .transpose()
    }

    /// When the last event happened, in milliseconds since 1970.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn last_event_at(&self) -> Result<Option<u64>, ReadError> {
        let row = sqlx::query("SELECT at FROM event ORDER BY idx DESC LIMIT 1").fetch_optional(&self.readers).await?;
        row.map(|row| unsigned(row.try_get(0)?, "event")).transpose()
    }

    /// Log entries from index `from` on, at most `count`.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn entries(&self, from: u64, count: u32) -> Result<Vec<EntryRow>, ReadError> {
        let rows = sqlx::query("SELECT idx, entry FROM event WHERE idx >= $1 ORDER BY idx LIMIT $2")
            .bind(signed(from))
            .bind(i64::from(count))
            .fetch_all(&self.readers)
            .await?;
        let entry = |row: sqlx::sqlite::SqliteRow| {
            Ok(EntryRow { index: unsigned(row.try_get(0)?, "event")?, entry: row.try_get(1)? })
        };
        rows.into_iter().map(entry).collect()
    }

    /// One run of hashes; `None` where it is not full yet.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn hash_run(&self, run: u64) -> Result<Option<HashRun>, ReadError> {
        let row = sqlx::query("SELECT hashes FROM log_hashes WHERE run = $1")
            .bind(signed(run))
            .fetch_optional(&self.readers)
            .await?;
        row.map(|row| {
            let hashes: Vec<u8> = row.try_get(0)?;
            if hashes.len().is_multiple_of(32) {
                Ok(HashRun { run, hashes })
            } else {
                Err(ReadError::Damaged { table: "log_hashes" })
            }
        })
        .transpose()
    }

    /// The events of a task, oldest first; empty where there is no such task.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn task_events(&self, task: &Id16) -> Result<Vec<EventRow>, ReadError> {
        let rows =
            sqlx::query("SELECT idx, task, kind, at, entry, statement, extra FROM event WHERE task = $1 ORDER BY idx")
                .bind(task.as_slice())
                .fetch_all(&self.readers)
                .await?;
        rows.iter().map(event_row).collect()
    }

    /// The newest event of no task with this kind whose index is below `below`.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn newest_event(&self, kind: i16, below: u64) -> Result<Option<EventRow>, ReadError> {
        let row = sqlx::query(
            "SELECT idx, task, kind, at, entry, statement, extra FROM event WHERE task IS NULL AND kind = $1 AND idx < $2 ORDER BY idx DESC LIMIT 1",
        )
        .bind(kind)
        .bind(signed(below))
        .fetch_optional(&self.readers)
        .await?;
        row.as_ref().map(event_row).transpose()
    }

    /// The tasks that have not ended, oldest first.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn open_tasks(&self) -> Result<Vec<Id16>, ReadError> {
        let rows = sqlx::query("SELECT task FROM task WHERE ended_at IS NULL ORDER BY submitted_idx")
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(|row| id(row.try_get(0)?, "task")).collect()
    }

    /// At most `count` tasks that ended before `before` (milliseconds since 1970) and whose blobs are still kept.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn unswept_tasks(&self, before: u64, count: u32) -> Result<Vec<UnsweptTask>, ReadError> {
        let rows = sqlx::query("SELECT task FROM task WHERE ended_at IS NOT NULL AND swept = 0 AND ended_at < $1 ORDER BY ended_at LIMIT $2")
            .bind(signed(before))
            .bind(i64::from(count))
            .fetch_all(&self.readers)
            .await?;
        let mut tasks = Vec::with_capacity(rows.len());
        for row in rows {
            let task: Id16 = id(row.try_get(0)?, "task")?;
            let uses = sqlx::query("SELECT blob FROM blob_use WHERE task = $1")
                .bind(task.as_slice())
                .fetch_all(&self.readers)
                .await?;
            let blobs = uses.iter().map(|row| id(row.try_get(0)?, "blob_use")).collect::<Result<_, ReadError>>()?;
            tasks.push(UnsweptTask { task, blobs });
        }
        Ok(tasks)
    }

    /// A complete blob; its body comes with it where it is kept here.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn blob(&self, blob: &Id32) -> Result<Option<BlobRow>, ReadError> {
        let row = sqlx::query("SELECT owner, size_bytes, stored_at, body FROM blob WHERE id = $1")
            .bind(blob.as_slice())
            .fetch_optional(&self.readers)
            .await?;
        row.map(|row| {
            Ok(BlobRow {
                id: *blob,
                owner: id(row.try_get(0)?, "blob")?,
                size_bytes: unsigned(row.try_get(1)?, "blob")?,
                stored_at: unsigned(row.try_get(2)?, "blob")?,
                body: row.try_get(3)?,
            })
        })
        .transpose()
    }

    /// The length of a complete blob; `None` where it is not complete.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn blob_size(&self, blob: &Id32) -> Result<Option<u64>, ReadError> {
        let row = sqlx::query("SELECT size_bytes FROM blob WHERE id = $1")
            .bind(blob.as_slice())
            .fetch_optional(&self.readers)
            .await?;
        row.map(|row| unsigned(row.try_get(0)?, "blob")).transpose()
    }

    /// At most `count` blobs that became complete before `before` and that no task uses.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn unused_blobs(&self, before: u64, count: u32) -> Result<Vec<Id32>, ReadError> {
        let rows = sqlx::query(
            "SELECT id FROM blob WHERE stored_at < $1 AND NOT EXISTS (SELECT 1 FROM blob_use WHERE blob_use.blob = blob.id) ORDER BY stored_at LIMIT $2",
        )
        .bind(signed(before))
        .bind(i64::from(count))
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(|row| id(row.try_get(0)?, "blob")).collect()
    }

    /// Bytes that each owner keeps in complete blobs.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn bytes_by_owner(&self) -> Result<Vec<(Id32, u64)>, ReadError> {
        let rows = sqlx::query("SELECT owner, CAST(SUM(size_bytes) AS BIGINT) FROM blob GROUP BY owner")
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(|row| Ok((id(row.try_get(0)?, "blob")?, unsigned(row.try_get(1)?, "blob")?))).collect()
    }

    /// The nodes that were ever admitted, those whose admission counts longest first, `most` of them.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn nodes(&self, most: usize) -> Result<Vec<NodeRow>, ReadError> {
        let most = u64::try_from(most).unwrap_or(u64::MAX);
        let rows = sqlx::query("SELECT node, valid_until, standing FROM node ORDER BY valid_until DESC LIMIT $1")
            .bind(signed(most))
            .fetch_all(&self.readers)
            .await?;
        let node = |row: &sqlx::sqlite::SqliteRow| {
            Ok(NodeRow {
                node: id(row.try_get(0)?, "node")?,
                valid_until: unsigned(row.try_get(1)?, "node")?,
                standing: row.try_get(2)?,
            })
        };
        rows.iter().map(node).collect()
    }
}

fn migrator() -> Migrator {
    let migrations = MIGRATIONS
        .iter()
        .map(|(version, description, sql)| {
            Migration::new(*version, Cow::Borrowed(description), MigrationType::Simple, Cow::Borrowed(sql), false)
        })
        .collect();
    Migrator { migrations: Cow::Owned(migrations), ..Migrator::DEFAULT }
}

fn event_row(row: &sqlx::sqlite::SqliteRow) -> Result<EventRow, ReadError> {
    let task: Option<Vec<u8>> = row.try_get(1)?;
    Ok(EventRow {
        index: unsigned(row.try_get(0)?, "event")?,
        task: task.map(|task| id(task, "event")).transpose()?,
        kind: row.try_get(2)?,
        at: unsigned(row.try_get(3)?, "event")?,
        entry: row.try_get(4)?,
        statement: row.try_get(5)?,
        extra: row.try_get(6)?,
    })
}

fn id<const N: usize>(bytes: Vec<u8>, table: &'static str) -> Result<[u8; N], ReadError> {
    bytes.try_into().map_err(|_| ReadError::Damaged { table })
}

fn unsigned(value: i64, table: &'static str) -> Result<u64, ReadError> {
    u64::try_from(value).map_err(|_| ReadError::Damaged { table })
}

/// SQL has no unsigned numbers. Whatever is larger than half the range is not a time, size or index of ours: the largest stands for it.
pub(crate) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
