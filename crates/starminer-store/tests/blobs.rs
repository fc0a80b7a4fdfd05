//! Uploads that resume, reads by range, bounds of what lies around.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::StreamExt as _;
use starminer_store::fault::{Fault, FaultyDisk};
use starminer_store::{BlobReadError, Blobs, LocalDisk, PartialLimits, UploadEnd, UploadError};

const LIMITS: PartialLimits = PartialLimits { files: 2, bytes: 3_000_000 };
const ME: [u8; 32] = [1; 32];

fn open(root: &Path) -> Blobs {
    Blobs::open(root, LIMITS, Arc::new(LocalDisk)).unwrap()
}

fn content(length: usize) -> (Bytes, [u8; 32]) {
    let bytes: Vec<u8> = (0..length).map(|at| (at.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    let id = *blake3::hash(&bytes).as_bytes();
    (bytes.into(), id)
}

/// Appends `part` in pieces of 10,000 bytes.
async fn send(blobs: &Blobs, id: [u8; 32], total: usize, part: Bytes) -> Result<UploadEnd, UploadError> {
    let mut upload = blobs.upload(ME, id, total as u64, 5).await?;
    for piece in part.chunks(10_000) {
        upload.append(part.slice_ref(piece)).await?;
    }
    upload.finish().await
}

async fn read(blobs: &Blobs, id: [u8; 32], range: std::ops::Range<u64>) -> Vec<u8> {
    let mut stream = blobs.read(&id, range).await.unwrap();
    let mut whole = Vec::new();
    while let Some(piece) = stream.next().await {
        whole.extend_from_slice(&piece.unwrap());
    }
    whole
}

#[tokio::test]
async fn an_upload_in_parts_over_restarts_becomes_the_blob() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, id) = content(1_500_000);
    let cuts = [0, 1, 400_000, 400_000, 1_499_999, 1_500_000];
    for window in cuts.windows(2) {
        // Opened anew each time: what is known of partial files comes from the disk.
        let blobs = open(dir.path());
        assert_eq!(blobs.partial_bytes(&ME, &id), window[0] as u64);
        assert_eq!(blobs.partial_bytes(&[2; 32], &id), 0);
        let end = send(&blobs, id, bytes.len(), bytes.slice(window[0]..window[1])).await.unwrap();
        let expected = if window[1] == bytes.len() {
            UploadEnd::Complete
        } else {
            UploadEnd::Partial { stored_bytes: window[1] as u64 }
        };
        assert_eq!(end, expected);
    }
    let blobs = open(dir.path());
    assert_eq!(blobs.partial_bytes(&ME, &id), 0);
    assert_eq!(read(&blobs, id, 0..1_500_000).await, bytes);
    assert_eq!(read(&blobs, id, 777_777..777_780).await, bytes[777_777..777_780]);
    assert!(read(&blobs, id, 5..5).await.is_empty());
    assert_eq!(blobs.files_before(SystemTime::now() + Duration::from_secs(5)).await.unwrap(), [id]);
    assert!(blobs.files_before(SystemTime::UNIX_EPOCH).await.unwrap().is_empty());
    blobs.remove(&id).await.unwrap();
    blobs.remove(&id).await.unwrap();
    assert!(matches!(blobs.read(&id, 0..1).await.err(), Some(BlobReadError::NotFound)));
}

#[tokio::test]
async fn wrong_content_is_removed_and_the_right_one_is_taken_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = open(dir.path());
    let (bytes, id) = content(300_000);
    let mut bad = bytes.to_vec();
    bad[299_999] ^= 1;
    assert!(matches!(send(&blobs, id, bad.len(), bad.into()).await, Err(UploadError::WrongContent)));
    assert_eq!(blobs.partial_bytes(&ME, &id), 0);
    // Announced with a wrong length before: the later announcement counts.
    send(&blobs, id, 400_000, bytes.slice(..100)).await.unwrap();
    assert_eq!(send(&blobs, id, bytes.len(), bytes.clone()).await.unwrap(), UploadEnd::Complete);
    let mut upload = blobs.upload(ME, [9; 32], 10, 5).await.unwrap();
    assert!(matches!(upload.append(Bytes::from_static(&[0; 11])).await, Err(UploadError::TooLong)));
}

#[tokio::test]
async fn what_one_identity_leaves_lying_around_is_bounded_and_expires() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = open(dir.path());
    let part = Bytes::from_static(b"part");
    send(&blobs, [1; 32], 1_000_000, part.clone()).await.unwrap();
    assert!(matches!(send(&blobs, [2; 32], 2_000_001, part.clone()).await, Err(UploadError::TooMany)), "bytes");
    send(&blobs, [2; 32], 2_000_000, part.clone()).await.unwrap();
    assert!(matches!(send(&blobs, [3; 32], 1, part.clone()).await, Err(UploadError::TooMany)), "files");
    blobs.upload([7; 32], [3; 32], 1000, 5).await.unwrap();

    let active = blobs.upload(ME, [1; 32], 1_000_000, 100).await.unwrap();
    assert_eq!(active.stored_bytes(), 4);
    assert!(matches!(blobs.upload(ME, [1; 32], 1_000_000, 100).await, Err(UploadError::Busy)));
    assert_eq!(blobs.expire_partials(50).await, 2);
    assert_eq!((blobs.partial_bytes(&ME, &[1; 32]), blobs.partial_bytes(&ME, &[2; 32])), (4, 0));
    drop(active);
    assert_eq!(blobs.expire_partials(101).await, 1);
    assert_eq!(std::fs::read_dir(dir.path().join("partial")).unwrap().count(), 0);
}

/// Each write fails once, before and after it persists: trying again from what is stored gives the blob.
#[tokio::test]
async fn every_write_fails_once() {
    let (bytes, id) = content(700_000);
    for fault in [Fault::Full, Fault::Before, Fault::After] {
        let mut failures = 0;
        for at in 0..5 {
            let dir = tempfile::tempdir().unwrap();
            let disk = Arc::new(FaultyDisk::default());
            let blobs = Blobs::open(dir.path(), LIMITS, disk.clone()).unwrap();
            disk.writes.plan(std::iter::repeat_n(Fault::None, at).chain([fault]));
            let mut done = false;
            for _ in 0..2 {
                let from = usize::try_from(blobs.partial_bytes(&ME, &id)).unwrap();
                match send(&blobs, id, bytes.len(), bytes.slice(from..)).await {
                    Ok(UploadEnd::Complete) => {
                        done = true;
                        break;
                    }
                    Ok(UploadEnd::Partial { .. }) => panic!("all was sent"),
                    Err(error) => {
                        failures += 1;
                        assert_eq!(error.code(), if fault == Fault::Full { "storage.full" } else { "storage.failed" });
                    }
                }
            }
            assert!(done, "{fault:?} at write {at}");
            assert_eq!(read(&blobs, id, 0..700_000).await, bytes);
        }
        assert_eq!(failures, 5, "three pieces, one wait for the disk, one rename");
    }
}
