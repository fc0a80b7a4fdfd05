//! The requester's journal: one append-only file a task, sealed under the identity key.
//!
//! It holds what a restart needs: the spec, the task secret, the result key's seed, and the ledger's records. Each record is a vault
//! object of its own, bound to the task and to its place in the file, written and synced before the step it records is shown to anyone.
//! A torn record at the end was never acknowledged and is cut off; a damaged one before it is an error.
//!
//! Any number of processes may share a directory of journals. Whoever opens one holds a lock on it for as long as it is open (`flock`,
//! which ends with the process); to look into it, without writing, needs none.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use starminer_broker::LedgerRecord;
use starminer_receipt::{Base64Bytes, Envelope};
use starminer_vault::object::{Digests, ObjectContext, SealOptions, open_bytes, seal_bytes};
use starminer_vault::{Purpose, Salt, TaskSecret};
use starminer_verify::TaskId;
use zeroize::{Zeroize, Zeroizing};

use crate::secrets::random_bytes;

/// Longest record, sealed.
const MAX_RECORD_BYTES: usize = 1 << 20;
/// Longest journal of one task.
const MAX_JOURNAL_BYTES: u64 = 64 << 20;

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file system refused.
    #[error("journal {path}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A record does not open: another identity's, or altered.
    #[error("journal {path}: record {index} does not open with this identity key")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Which record, from 0.
        index: usize,
    },
    /// Another process has it open.
    #[error("{holder} is working on this task; its journal {path} is locked")]
    Held {
        /// Which file.
        path: PathBuf,
        /// Who, as far as the system tells.
        holder: String,
    },
    /// Longer than any task needs.
    #[error("journal {path} is over its limit")]
    TooLong {
        /// Which file.
        path: PathBuf,
    },
}

impl JournalError {
    /// A stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "journal.io",
            Self::Damaged { .. } => "journal.damaged",
            Self::Held { .. } => "journal.held",
            Self::TooLong { .. } => "journal.too-long",
        }
    }
}

/// What a task began with.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskStart {
    /// The signed spec.
    pub spec: Envelope,
    /// The task secret.
    pub secret: Base64Bytes,
    /// Seed of the result key.
    pub result_seed: Base64Bytes,
    /// Where outputs shall go.
    pub output_dir: Option<PathBuf>,
    /// Whether a broker releases.
    pub detached: bool,
}

impl Drop for TaskStart {
    fn drop(&mut self) {
        self.secret.0.zeroize();
        self.result_seed.0.zeroize();
    }
}

impl std::fmt::Debug for TaskStart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TaskStart").field("detached", &self.detached).finish_non_exhaustive()
    }
}

/// One record.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", content = "value", rename_all = "kebab-case")]
pub enum JournalRecord {
    /// First of all: before the task is submitted.
    Start(TaskStart),
    /// A record of the release ledger.
    Ledger(LedgerRecord),
}

/// Whether a record has to be on the disk before the step it records is shown to anyone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It has.
    Durable,
    /// Written, and durable with the next one that has to be: losing it in a power failure costs an attempt, never a secret.
    Eventual,
}

/// A record that is written and not durable yet.
#[derive(Debug)]
#[must_use = "the record is not durable before it is synced"]
pub struct Unsynced {
    path: PathBuf,
    file: Arc<File>,
}

impl Unsynced {
    /// Waits until it is durable. Blocks for as long as the disk takes.
    ///
    /// # Errors
    /// [`JournalError::Io`]; whether the record is durable is then not known.
    pub fn sync(self) -> Result<(), JournalError> {
        self.file.sync_data().map_err(|source| JournalError::Io { path: self.path, source })
    }
}

/// The journal of one task.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: Arc<File>,
    key: JournalKey,
    task: TaskId,
    records: usize,
    bytes: u64,
}

/// The key that journals are sealed under: derived from the identity's seed for this use alone.
#[derive(Debug)]
pub struct JournalKey(TaskSecret);

impl JournalKey {
    /// Derives the key: HMAC-SHA256 under the seed of a fixed label.
    #[must_use]
    pub fn from_identity_seed(seed: &[u8; 32]) -> Self {
        let tag = aws_lc_rs::hmac::sign(
            &aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, seed),
            b"starminer/journal-key/v1",
        );
        let mut bytes = [0; 32];
        bytes.copy_from_slice(tag.as_ref());
        let key = Self(TaskSecret::from_bytes(bytes));
        bytes.zeroize();
        key
    }
}

impl Clone for JournalKey {
    fn clone(&self) -> Self {
        Self(TaskSecret::from_bytes(*self.0.expose()))
    }
}

impl Journal {
    fn file_path(dir: &Path, task: &TaskId) -> PathBuf {
        dir.join(format!("{task}.journal"))
    }

    /// Creates the journal of a new task with its first record, durably. Its name appears when all of that is there and locked: what
    /// others find under a journal's name is never half a record.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub fn create(dir: &Path, key: &JournalKey, task: TaskId, start: TaskStart) -> Result<Self, JournalError> {
        let path = Self::file_path(dir, &task);
        let unnamed = dir.join(format!("{task}.new"));
        let io = |source| JournalError::Io { path: path.clone(), source };
        let file =
            OpenOptions::new().create_new(true).read(true).append(true).mode(0o600).open(&unnamed).map_err(io)?;
        let file = Arc::new(file);
        let mut journal = Self { path: path.clone(), file, key: key.clone(), task, records: 0, bytes: 0 };
        let named = journal.begin(start, &unnamed, dir);
        if named.is_err() {
            let _ = std::fs::remove_file(&unnamed);
        }
        named.map(|()| journal)
    }

    fn begin(&mut self, start: TaskStart, unnamed: &Path, dir: &Path) -> Result<(), JournalError> {
        lock(&self.file, &self.path)?;
        if let Some(unsynced) = self.append(&JournalRecord::Start(start), Durability::Durable)? {
            unsynced.sync()?;
        }
        // A link, not a renaming: it never takes another journal's place.
        std::fs::hard_link(unnamed, &self.path)
            .and_then(|()| std::fs::remove_file(unnamed))
            .and_then(|()| File::open(dir)?.sync_all())
            .map_err(|source| JournalError::Io { path: self.path.clone(), source })
    }

    /// Opens a journal, locks it and gives its records, oldest first. A torn end is cut off.
    ///
    /// # Errors
    /// Every variant of [`JournalError`].
    pub fn open(dir: &Path, key: &JournalKey, task: TaskId) -> Result<(Self, Vec<JournalRecord>), JournalError> {
        let path = Self::file_path(dir, &task);
        let io = |source| JournalError::Io { path: path.clone(), source };
        let mut file = OpenOptions::new().read(true).append(true).open(&path).map_err(io)?;
        lock(&file, &path)?;
        let (records, whole, length) = read_records(&mut file, &path, key, task)?;
        if whole < length {
            file.set_len(whole).map_err(io)?;
            file.sync_all().map_err(io)?;
        }
        file.seek(io::SeekFrom::End(0)).map_err(io)?;
        let file = Arc::new(file);
        let journal = Self { path, file, key: key.clone(), task, records: records.len(), bytes: whole };
        Ok((journal, records))
    }

    /// Looks into a journal that may be open in another process: changes nothing, and overlooks a torn end.
    ///
    /// # Errors
    /// [`JournalError::Io`], [`JournalError::Damaged`], [`JournalError::TooLong`].
    pub fn look(dir: &Path, key: &JournalKey, task: TaskId) -> Result<Vec<JournalRecord>, JournalError> {
        let path = Self::file_path(dir, &task);
        let mut file = File::open(&path).map_err(|source| JournalError::Io { path: path.clone(), source })?;
        read_records(&mut file, &path, key, task).map(|(records, ..)| records)
    }

    /// The tasks that have a journal in `dir`.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub fn list(dir: &Path) -> Result<Vec<TaskId>, JournalError> {
        let io = |source| JournalError::Io { path: dir.to_path_buf(), source };
        let mut tasks = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(io)? {
            let name = entry.map_err(io)?.file_name();
            if let Some(task) =
                name.to_str().and_then(|name| name.strip_suffix(".journal")).and_then(|id| id.parse().ok())
            {
                tasks.push(task);
            }
        }
        tasks.sort_unstable();
        Ok(tasks)
    }

    /// Removes the journal of a finished task: its secrets are of no more use to anyone but a thief. A crash before this is
    /// durable leaves the task open, and collecting it again does the same again.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub fn remove(self) -> Result<(), JournalError> {
        let io = |source| JournalError::Io { path: self.path.clone(), source };
        std::fs::remove_file(&self.path).map_err(io)
    }

    /// Appends a record. One that has to be durable is so once what comes back is synced, and with it all before it.
    ///
    /// # Errors
    /// [`JournalError::Io`], [`JournalError::TooLong`]. What a failed write left behind is taken back, so that a later one is not lost behind it.
    pub fn append(&mut self, record: &JournalRecord, durability: Durability) -> Result<Option<Unsynced>, JournalError> {
        let plain = Zeroizing::new(
            serde_json::to_vec(record)
                .map_err(|error| JournalError::Io { path: self.path.clone(), source: io::Error::other(error) })?,
        );
        let name = record_name(self.records);
        let context = ObjectContext { task: self.task.0, name: &name, purpose: Purpose::File };
        let too_long = || JournalError::TooLong { path: self.path.clone() };
        let (sealed, _) =
            seal_bytes(&self.key.0, &context, Salt::from_random(random_bytes()), SealOptions::default(), &plain)
                .map_err(|_| too_long())?;
        let length = u32::try_from(sealed.len()).map_err(|_| too_long())?;
        if sealed.len() > MAX_RECORD_BYTES || self.bytes + u64::from(length) + 4 > MAX_JOURNAL_BYTES {
            return Err(too_long());
        }
        let mut framed = Vec::with_capacity(sealed.len() + 4);
        framed.extend_from_slice(&length.to_be_bytes());
        framed.extend_from_slice(&sealed);
        if let Err(source) = (&*self.file).write_all(&framed) {
            // Best effort: if this fails, too, the torn record is cut off when the journal is next opened.
            let _ = self.file.set_len(self.bytes);
            return Err(JournalError::Io { path: self.path.clone(), source });
        }
        self.bytes += framed.len() as u64;
        self.records += 1;
        Ok(match durability {
            Durability::Durable => Some(Unsynced { path: self.path.clone(), file: Arc::clone(&self.file) }),
            Durability::Eventual => None,
        })
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        // At once, and not when the last write that is still on its way to the disk lets go of the file.
        let _ = self.file.unlock();
    }
}

/// The whole records of a file, how many bytes they take, and how long the file was. The first record is always whole: a journal has no
/// name before.
fn read_records(
    file: &mut File,
    path: &Path,
    key: &JournalKey,
    task: TaskId,
) -> Result<(Vec<JournalRecord>, u64, u64), JournalError> {
    let io = |source| JournalError::Io { path: path.to_path_buf(), source };
    if file.metadata().map_err(io)?.len() > MAX_JOURNAL_BYTES {
        return Err(JournalError::TooLong { path: path.to_path_buf() });
    }
    let mut all = Vec::new();
    file.take(MAX_JOURNAL_BYTES + 1).read_to_end(&mut all).map_err(io)?;
    let mut records = Vec::new();
    let mut offset = 0;
    loop {
        let damaged = || JournalError::Damaged { path: path.to_path_buf(), index: records.len() };
        let length = match all.get(offset..offset + 4) {
            Some(header) => u32::from_be_bytes([header[0], header[1], header[2], header[3]]) as usize,
            None if records.is_empty() => return Err(damaged()),
            None => break,
        };
        if length > MAX_RECORD_BYTES {
            return Err(damaged());
        }
        let Some(sealed) = all.get(offset + 4..offset + 4 + length) else {
            if records.is_empty() {
                return Err(damaged());
            }
            break;
        };
        let name = record_name(records.len());
        let context = ObjectContext { task: task.0, name: &name, purpose: Purpose::File };
        let (plain, _) = open_bytes(&key.0, &context, Digests::default(), sealed).map_err(|_| damaged())?;
        let plain = Zeroizing::new(plain);
        let record = serde_json::from_slice(&plain).map_err(|_| damaged())?;
        records.push(record);
        offset += 4 + length;
    }
    Ok((records, offset as u64, all.len() as u64))
}

/// Locks a journal for as long as the file is open.
fn lock(file: &File, path: &Path) -> Result<(), JournalError> {
    let io = |source| JournalError::Io { path: path.to_path_buf(), source };
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(JournalError::Held { path: path.to_path_buf(), holder: holder_of(file) });
        }
        Err(TryLockError::Error(source)) => return Err(io(source)),
    }
    // Whoever had it before may have removed it: what was opened is then no journal any more.
    if file.metadata().map_err(io)?.nlink() == 0 {
        return Err(io(io::ErrorKind::NotFound.into()));
    }
    Ok(())
}

/// Who has a file locked, by the kernel's table of locks.
fn holder_of(file: &File) -> String {
    let found = file.metadata().ok().and_then(|meta| {
        let device = meta.dev();
        let (major, minor) = ((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xfff00));
        let place = format!("{major:02x}:{minor:02x}:{}", meta.ino());
        let locks = std::fs::read_to_string("/proc/locks").ok()?;
        // `1: FLOCK  ADVISORY  WRITE 4711 08:02:1234 0 EOF`
        locks.lines().find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let id = fields.get(4)?.parse::<u32>().ok()?;
            (fields.get(1) == Some(&"FLOCK") && fields.get(5) == Some(&place.as_str()) && id > 0).then_some(id)
        })
    });
    found.map_or_else(|| "another process".into(), |id| format!("process {id}"))
}

fn record_name(index: usize) -> String {
    format!("journal/{index}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn records(dir: &Path, key: &JournalKey, task: TaskId) -> Vec<JournalRecord> {
        Journal::open(dir, key, task).unwrap().1
    }

    #[test]
    fn survives_torn_writes_and_refuses_damage() {
        let dir = tempfile::tempdir().unwrap();
        let (key, task) = (JournalKey::from_identity_seed(&[3; 32]), TaskId([5; 16]));
        let spec = Envelope::parse(br#"{"payloadType":"t","payload":"","signatures":[]}"#).unwrap();
        let start = TaskStart {
            spec,
            secret: Base64Bytes(b"CANARY-secret".to_vec()),
            result_seed: Base64Bytes(vec![2; 32]),
            output_dir: None,
            detached: false,
        };
        let mut journal = Journal::create(dir.path(), &key, task, start.clone()).unwrap();
        let challenge = Envelope::parse(br#"{"payloadType":"c","payload":"","signatures":[]}"#).unwrap();
        journal.append(&JournalRecord::Ledger(LedgerRecord::Challenged { challenge }), Durability::Eventual).unwrap();
        assert_eq!(Journal::look(dir.path(), &key, task).unwrap().len(), 2);
        assert_eq!(Journal::list(dir.path()).unwrap(), [task]);
        assert!(Journal::create(dir.path(), &key, task, start).is_err(), "never in another one's place");
        drop(journal);
        assert_eq!(records(dir.path(), &key, task).len(), 2);
        let path = Journal::file_path(dir.path(), &task);
        let whole = std::fs::read(&path).unwrap();
        assert!(!whole.windows(6).any(|window| window == b"CANARY"), "no plaintext on disk");
        let first = 4 + u32::from_be_bytes(whole[..4].try_into().unwrap()) as usize;
        for cut in first..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert_eq!(Journal::look(dir.path(), &key, task).unwrap().len(), 1, "cut at {cut}");
            assert_eq!(std::fs::metadata(&path).unwrap().len(), cut as u64, "who only looks changes nothing");
            assert_eq!(records(dir.path(), &key, task).len(), 1, "cut at {cut}");
            assert_eq!(std::fs::metadata(&path).unwrap().len(), first as u64);
        }
        std::fs::write(&path, &whole).unwrap();
        let other = JournalKey::from_identity_seed(&[4; 32]);
        assert!(matches!(Journal::open(dir.path(), &other, task), Err(JournalError::Damaged { index: 0, .. })));
        let mut bad = whole.clone();
        *bad.last_mut().unwrap() ^= 1;
        std::fs::write(&path, &bad).unwrap();
        assert!(matches!(Journal::open(dir.path(), &key, task), Err(JournalError::Damaged { index: 1, .. })));
    }
    #[test]
    fn one_holder_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let (key, task) = (JournalKey::from_identity_seed(&[3; 32]), TaskId([5; 16]));
        let spec = Envelope::parse(br#"{"payloadType":"t","payload":"","signatures":[]}"#).unwrap();
        let (secret, result_seed) = (Base64Bytes(vec![1; 32]), Base64Bytes(vec![2; 32]));
        let start = TaskStart { spec, secret, result_seed, output_dir: None, detached: false };
        let created = Journal::create(dir.path(), &key, task, start).unwrap();
        let held = |what: &str| {
            let Err(JournalError::Held { holder, .. }) = Journal::open(dir.path(), &key, task) else {
                panic!("{what}: not held")
            };
            assert!(holder == "another process" || holder == format!("process {}", std::process::id()), "{holder}");
        };
        held("while it is created");
        assert_eq!(Journal::look(dir.path(), &key, task).unwrap().len(), 1);
        drop(created);
        let (opened, _) = Journal::open(dir.path(), &key, task).unwrap();
        held("while it is open");
        // One who opened the file before its holder removed it finds nothing, and revives nothing.
        let late = File::open(Journal::file_path(dir.path(), &task)).unwrap();
        opened.remove().unwrap();
        assert!(
            matches!(lock(&late, dir.path()), Err(JournalError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound)
        );
        assert!(Journal::list(dir.path()).unwrap().is_empty());
    }

    #[test]
    fn junk_is_no_journal() {
        let dir = tempfile::tempdir().unwrap();
        let (key, task) = (JournalKey::from_identity_seed(&[3; 32]), TaskId([5; 16]));
        for junk in [&b""[..], b"abc", b"\0\0\0\x01", b"junk junk junk", &[0xff; 100], &[0; 100]] {
            std::fs::write(Journal::file_path(dir.path(), &task), junk).unwrap();
            assert!(matches!(Journal::open(dir.path(), &key, task), Err(JournalError::Damaged { index: 0, .. })));
            assert!(matches!(Journal::look(dir.path(), &key, task), Err(JournalError::Damaged { index: 0, .. })));
        }
    }
}
