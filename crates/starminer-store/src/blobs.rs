//! Blobs: ciphertext under its BLAKE3 name, in files through `object_store`.
//!
//! Reading streams in pieces of [`BLOB_READ_BYTES`]. Which blobs are complete, whose they are and which tasks need them is in the
//! database; a file without a row there is one whose row was not reached before a crash, and [`Blobs::files_before`] finds it.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use data_encoding::HEXLOWER;
use futures_util::stream::{self, Stream, StreamExt as _};
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{GetOptions, GetRange, GetResultPayload, ObjectStore, ObjectStoreExt as _};

use crate::disk::{Disk, create_directory_durably};
use crate::rows::Id32;
use crate::upload::{PartialLimits, Partials, Upload, UploadError};

/// Bytes that a download holds in memory at a time.
pub const BLOB_READ_BYTES: usize = 256 * 1024;

/// The bytes of a blob, piece by piece.
pub type BlobStream = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// Why a blob could not be read.
#[derive(Debug, thiserror::Error)]
pub enum BlobReadError {
    /// There is no such file.
    #[error("blob is not there")]
    NotFound,
    /// The store failed.
    #[error("blob cannot be read")]
    Failed(#[source] object_store::Error),
}

impl BlobReadError {
    /// A stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound => "blob.not-found",
            Self::Failed(_) => "storage.failed",
        }
    }

    fn from_store(error: object_store::Error) -> Self {
        match error {
            object_store::Error::NotFound { .. } => Self::NotFound,
            other => Self::Failed(other),
        }
    }
}

/// The blobs of a coordinator.
#[derive(Debug)]
pub struct Blobs {
    root: PathBuf,
    store: Arc<dyn ObjectStore>,
    partials: Arc<Partials>,
    disk: Arc<dyn Disk>,
}

impl Blobs {
    /// Opens or creates the two directories `complete` and `partial` under `root`, and finds the uploads that earlier runs left.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn open(root: &Path, limits: PartialLimits, disk: Arc<dyn Disk>) -> io::Result<Self> {
        let complete = root.join("complete");
        create_directory_durably(&complete)?;
        let store = LocalFileSystem::new_with_prefix(&complete).map_err(io::Error::other)?.with_fsync(true);
        let partials = Arc::new(Partials::open(root.join("partial"), limits)?);
        Ok(Self { root: complete, store: Arc::new(store), partials, disk })
    }

    /// Starts or continues an upload of `total` bytes named `id` for `owner`. `now` is in milliseconds since 1970.
    ///
    /// # Errors
    /// [`UploadError::Busy`], [`UploadError::TooMany`], [`UploadError::Full`], [`UploadError::Io`].
    pub async fn upload(&self, owner: Id32, id: Id32, total: u64, now: u64) -> Result<Upload, UploadError> {
        let final_path = self.root.join(object_name(&id));
        Upload::begin(self.partials.clone(), self.disk.clone(), (owner, id, total), final_path, now).await
    }

    /// Bytes of an incomplete upload of `owner`; 0 where there is none.
    #[must_use]
    pub fn partial_bytes(&self, owner: &Id32, id: &Id32) -> u64 {
        self.partials.stored(owner, id)
    }

    /// Reads part of a blob. The caller knows its length.
    ///
    /// # Errors
    /// [`BlobReadError`] where the blob cannot be opened; later failures come through the stream.
    pub async fn read(&self, id: &Id32, range: Range<u64>) -> Result<BlobStream, BlobReadError> {
        if range.is_empty() {
            return Ok(Box::pin(stream::empty()));
        }
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        let found = self
            .store
            .get_opts(&ObjectPath::from(object_name(id)), options)
            .await
            .map_err(BlobReadError::from_store)?;
        let range = found.range.clone();
        Ok(match found.payload {
            GetResultPayload::File(file, _) => Box::pin(read_file(file, range)),
            GetResultPayload::Stream(stream) => Box::pin(stream.map(|piece| piece.map_err(io::Error::other))),
        })
    }

    /// Removes a complete blob's file; one that is not there counts as removed.
    ///
    /// # Errors
    /// [`BlobReadError::Failed`].
    pub async fn remove(&self, id: &Id32) -> Result<(), BlobReadError> {
        match self.store.delete(&ObjectPath::from(object_name(id))).await.map_err(BlobReadError::from_store) {
            Err(BlobReadError::NotFound) => Ok(()),
            other => other,
        }
    }

    /// Removes incomplete uploads that nobody continued since `before` (milliseconds since 1970); returns how many.
    pub async fn expire_partials(&self, before: u64) -> usize {
        let partials = self.partials.clone();
        tokio::task::spawn_blocking(move || partials.expire(before)).await.unwrap_or(0)
    }

    /// Names of complete files that were last changed before `before`; candidates for removal where no row names them.
    ///
    /// # Errors
    /// [`BlobReadError::Failed`].
    pub async fn files_before(&self, before: SystemTime) -> Result<Vec<Id32>, BlobReadError> {
        let mut names = Vec::new();
        let mut files = self.store.list(None);
        while let Some(file) = files.next().await {
            let file = file.map_err(BlobReadError::from_store)?;
            if SystemTime::from(file.last_modified) < before
                && let Some(id) = file.location.filename().and_then(|name| HEXLOWER.decode(name.as_bytes()).ok())
                && let Ok(id) = Id32::try_from(id)
            {
                names.push(id);
            }
        }
        Ok(names)
    }
}

/// `ab/abcd…`: 256 directories keep each small.
fn object_name(id: &Id32) -> String {
    let name = HEXLOWER.encode(id);
    format!("{}/{name}", &name[..2])
}

/// Reads in pieces on blocking threads, none of which waits for the receiver.
fn read_file(file: std::fs::File, range: Range<u64>) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let file = Arc::new(file);
    stream::unfold(Some(range), move |range| {
        let file = file.clone();
        async move {
            let range = range.filter(|range| !range.is_empty())?;
            let count = usize::try_from(range.end - range.start).unwrap_or(usize::MAX).min(BLOB_READ_BYTES);
            let read = tokio::task::spawn_blocking(move || {
                let mut buffer = BytesMut::zeroed(count);
                std::os::unix::fs::FileExt::read_exact_at(&*file, &mut buffer, range.start)?;
                Ok(buffer.freeze())
            })
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error)));
            let rest = read.is_ok().then(|| range.start + count as u64..range.end);
            Some((read, rest))
        }
    })
}
