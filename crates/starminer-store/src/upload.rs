//! Uploads that resume: ciphertext is appended to a partial file until it is all there and has the hash that it is named by.
//!
//! A partial file belongs to one identity and lies under its name, so that nobody continues or blocks another's upload; how many
//! and how large is bounded for each identity, and what nobody continues is removed. At most one request writes to one partial file
//! at a time. Memory is one buffer an upload, whatever the size.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use bytes::{Bytes, BytesMut};
use data_encoding::HEXLOWER;

use crate::disk::{Disk, create_directory_durably};
use crate::rows::Id32;

/// Bytes that are gathered before they are hashed and written: a hop to a blocking thread costs more than hashing a frame.
const WRITE_BYTES: usize = 256 * 1024;
/// After how many bytes the disk is waited for, so that the wait at the end stays short.
const SYNC_EVERY_BYTES: u64 = 64 << 20;

/// What one identity may have lying around incomplete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartialLimits {
    /// Most partial files of one identity.
    pub files: usize,
    /// Most bytes that its partial files would have when complete.
    pub bytes: u64,
}

/// Why an upload was refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// Another request of the same identity is uploading this blob now.
    #[error("another request is uploading this blob")]
    Busy,
    /// The identity has as many incomplete uploads as it may.
    #[error("too many incomplete uploads")]
    TooMany,
    /// More bytes than were announced.
    #[error("more bytes than were announced")]
    TooLong,
    /// All bytes are there and their hash is not the name. They were removed.
    #[error("content does not have the hash that it is named by; it was removed")]
    WrongContent,
    /// The disk is full. What was stored before stays.
    #[error("no space left for blobs")]
    Full,
    /// The disk failed.
    #[error("blob cannot be written")]
    Io(#[source] io::Error),
}

impl UploadError {
    /// A stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Busy => "blob.busy",
            Self::TooMany => "blob.too-many-partial",
            Self::TooLong => "blob.too-long",
            Self::WrongContent => "blob.wrong-content",
            Self::Full => "storage.full",
            Self::Io(_) => "storage.failed",
        }
    }
}

impl From<io::Error> for UploadError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Io(error),
        }
    }
}

/// How an upload request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadEnd {
    /// So many bytes are there, durably; more have to come.
    Partial {
        /// Bytes stored.
        stored_bytes: u64,
    },
    /// All is there, checked, durable, and under its final name.
    Complete,
}

/// Where incomplete uploads lie, and which there are.
#[derive(Debug)]
pub(crate) struct Partials {
    root: PathBuf,
    limits: PartialLimits,
    known: Mutex<HashMap<Id32, HashMap<Id32, Partial>>>,
}

#[derive(Debug, Clone, Copy)]
struct Partial {
    total: u64,
    stored: u64,
    active: bool,
    /// Milliseconds since 1970.
    touched_at: u64,
}

impl Partials {
    /// Finds what earlier runs left.
    pub(crate) fn open(root: PathBuf, limits: PartialLimits) -> io::Result<Self> {
        create_directory_durably(&root)?;
        let mut known: HashMap<Id32, HashMap<Id32, Partial>> = HashMap::new();
        for directory in fs::read_dir(&root)? {
            let directory = directory?;
            let Some(owner) = directory.file_name().to_str().and_then(parse_id) else { continue };
            for file in fs::read_dir(directory.path())? {
                let file = file?;
                let Some((id, total)) = file.file_name().to_str().and_then(parse_name) else { continue };
                let metadata = file.metadata()?;
                let touched = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
                let touched_at = touched.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
                let partial = Partial { total, stored: metadata.len().min(total), active: false, touched_at };
                known.entry(owner).or_default().insert(id, partial);
            }
        }
        Ok(Self { root, limits, known: Mutex::new(known) })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Id32, HashMap<Id32, Partial>>> {
        // A panic while it was held leaves at worst a stale number in it.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn stored(&self, owner: &Id32, id: &Id32) -> u64 {
        self.lock().get(owner).and_then(|of_owner| of_owner.get(id)).map_or(0, |partial| partial.stored)
    }

    fn path(&self, owner: &Id32, id: &Id32, total: u64) -> PathBuf {
        self.root.join(HEXLOWER.encode(owner)).join(format!("{}.{total}", HEXLOWER.encode(id)))
    }

    /// Claims the one place for writing this partial file.
    fn claim(&self, owner: Id32, id: Id32, total: u64, now: u64) -> Result<(), UploadError> {
        let mut known = self.lock();
        let of_owner = known.entry(owner).or_default();
        let outcome = match of_owner.get(&id).copied() {
            Some(partial) if partial.active => Err(UploadError::Busy),
            existing => {
                let (mut files, mut bytes) = (1, total);
                for (other, partial) in of_owner.iter() {
                    if *other != id {
                        files += 1;
                        bytes = bytes.saturating_add(partial.total);
                    }
                }
                if files > self.limits.files || bytes > self.limits.bytes {
                    Err(UploadError::TooMany)
                } else {
                    let same = existing.filter(|partial| partial.total == total);
                    if let Some(other) = existing.filter(|partial| partial.total != total) {
                        // One of the two lengths is wrong, and the hash cannot tell which before the end: the later one counts.
                        let _ = fs::remove_file(self.path(&owner, &id, other.total));
                    }
                    let stored = same.map_or(0, |partial| partial.stored);
                    of_owner.insert(id, Partial { total, stored, active: true, touched_at: now });
                    Ok(())
                }
            }
        };
        if of_owner.is_empty() {
            known.remove(&owner);
        }
        outcome
    }

    /// Gives the place up; without `stored` the partial file is gone.
    fn release(&self, owner: &Id32, id: &Id32, stored: Option<u64>) {
        let mut known = self.lock();
        let Some(of_owner) = known.get_mut(owner) else { return };
        match (stored, of_owner.get_mut(id)) {
            (Some(stored), Some(partial)) => {
                partial.stored = stored;
                partial.active = false;
            }
            _ => {
                of_owner.remove(id);
            }
        }
        if of_owner.is_empty() {
            known.remove(owner);
        }
    }

    /// Removes partial files that nobody continued since `before` (milliseconds since 1970); returns how many.
    pub(crate) fn expire(&self, before: u64) -> usize {
        let mut known = self.lock();
        let mut removed = 0;
        for (owner, of_owner) in known.iter_mut() {
            of_owner.retain(|id, partial| {
                let keep = partial.active || partial.touched_at >= before;
                if !keep {
                    removed += 1;
                    let _ = fs::remove_file(self.path(owner, id, partial.total));
                }
                keep
            });
            if of_owner.is_empty() {
                let _ = fs::remove_dir(self.root.join(HEXLOWER.encode(owner)));
            }
        }
        known.retain(|_, of_owner| !of_owner.is_empty());
        removed
    }
}

fn parse_id(text: &str) -> Option<Id32> {
    HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok()
}

fn parse_name(name: &str) -> Option<(Id32, u64)> {
    let (id, total) = name.split_once('.')?;
    Some((parse_id(id)?, total.parse().ok()?))
}

/// One request that appends to a partial file. Dropped without [`Self::finish`], it leaves what reached the file.
#[derive(Debug)]
pub struct Upload {
    partials: Arc<Partials>,
    disk: Arc<dyn Disk>,
    owner: Id32,
    id: Id32,
    total: u64,
    final_path: PathBuf,
    buffer: BytesMut,
    /// Bytes in the file, `buffer` not counted.
    stored: u64,
    /// `None` while a blocking thread has it, and after a failure.
    part: Option<Part>,
    released: bool,
}

#[derive(Debug)]
struct Part {
    file: File,
    hasher: blake3::Hasher,
    since_sync: u64,
}

impl Upload {
    /// Opens or creates the partial file and hashes what it has.
    pub(crate) async fn begin(
        partials: Arc<Partials>,
        disk: Arc<dyn Disk>,
        (owner, id, total): (Id32, Id32, u64),
        final_path: PathBuf,
        now: u64,
    ) -> Result<Self, UploadError> {
        partials.claim(owner, id, total, now)?;
        let path = partials.path(&owner, &id, total);
        // From here on dropping gives the place up.
        let mut upload = Self {
            partials,
            disk,
            owner,
            id,
            total,
            final_path,
            buffer: BytesMut::new(),
            stored: 0,
            part: None,
            released: false,
        };
        let (part, stored) = blocking(move || open_and_hash(&path, total)).await?;
        upload.part = Some(part);
        upload.stored = stored;
        Ok(upload)
    }

    /// Bytes that are there: the next byte to send has this offset.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.stored + self.buffer.len() as u64
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`UploadError::TooLong`], [`UploadError::Full`], [`UploadError::Io`]; the upload cannot go on after one.
    pub async fn append(&mut self, bytes: Bytes) -> Result<(), UploadError> {
        if self.stored_bytes().saturating_add(bytes.len() as u64) > self.total {
            return Err(UploadError::TooLong);
        }
        self.buffer.extend_from_slice(&bytes);
        if self.buffer.len() >= WRITE_BYTES { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), UploadError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let Some(mut part) = self.part.take() else {
            return Err(UploadError::Io(io::Error::other("upload failed before")));
        };
        let mut buffer = std::mem::take(&mut self.buffer);
        let disk = self.disk.clone();
        let written = buffer.len() as u64;
        let (part, buffer) = blocking(move || {
            disk.append(&mut part.file, &buffer)?;
            part.hasher.update(&buffer);
            part.since_sync += written;
            if part.since_sync >= SYNC_EVERY_BYTES {
                disk.sync(&part.file)?;
                part.since_sync = 0;
            }
            buffer.clear();
            Ok((part, buffer))
        })
        .await?;
        self.part = Some(part);
        self.buffer = buffer;
        self.stored += written;
        Ok(())
    }

    /// Makes what came durable; if it is all there, checks the hash and gives the blob its name.
    ///
    /// # Errors
    /// [`UploadError::WrongContent`] (and the bytes are gone), [`UploadError::Full`], [`UploadError::Io`].
    pub async fn finish(mut self) -> Result<UploadEnd, UploadError> {
        self.flush().await?;
        let Some(part) = self.part.take() else {
            return Err(UploadError::Io(io::Error::other("upload failed before")));
        };
        let complete = self.stored == self.total;
        let path = self.partials.path(&self.owner, &self.id, self.total);
        if complete && part.hasher.finalize().as_bytes() != &self.id {
            drop(part);
            blocking(move || Ok(fs::remove_file(path)?)).await?;
            self.release(None);
            return Err(UploadError::WrongContent);
        }
        let (disk, final_path) = (self.disk.clone(), self.final_path.clone());
        blocking(move || {
            disk.sync(&part.file)?;
            if complete {
                disk.publish(&path, &final_path)?;
            }
            Ok(())
        })
        .await?;
        if complete {
            self.release(None);
            Ok(UploadEnd::Complete)
        } else {
            self.release(Some(self.stored));
            Ok(UploadEnd::Partial { stored_bytes: self.stored })
        }
    }

    fn release(&mut self, stored: Option<u64>) {
        if !self.released {
            self.released = true;
            self.partials.release(&self.owner, &self.id, stored);
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if self.released {
            return;
        }
        // A failed write may have left any number of bytes: the file says how many.
        let path = self.partials.path(&self.owner, &self.id, self.total);
        let stored = fs::metadata(path).ok().map(|metadata| metadata.len().min(self.total));
        self.release(stored);
    }
}

fn open_and_hash(path: &Path, total: u64) -> Result<(Part, u64), UploadError> {
    if let Some(directory) = path.parent() {
        create_directory_durably(directory)?;
    }
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    if file.metadata()?.len() > total {
        file.set_len(total)?;
    }
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; WRITE_BYTES];
    let mut stored = 0;
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        stored += count as u64;
    }
    file.seek(io::SeekFrom::End(0))?;
    Ok((Part { file, hasher, since_sync: 0 }, stored))
}

/// Runs file work off the asynchronous threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, UploadError> + Send + 'static,
) -> Result<T, UploadError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(UploadError::Io(io::Error::other(error))))
}
