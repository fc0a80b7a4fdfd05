//! Blobs: uploads that resume, downloads with ranges.
//!
//! Whoever knows a content id may read the blob: the id has 256 bits that only those have seen who may see the ciphertext, and the
//! ciphertext is sealed. Uploads belong to an identity until they are complete.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::StreamExt as _;
use serde::Deserialize;
use starminer_store::{BlobReadError, BlobRow, UploadEnd, UploadError};
use starminer_verify::{Digest, Party, PublicKey};
use starminer_wire::{BlobStatus, MAX_BLOB_BYTES, ProblemStatus};

use crate::log_reader::storage;
use crate::refused::Refused;
use crate::server::{Identity, Json, Params, Query, body_timeout, read_body};
use crate::shared::Shared;

/// Blobs up to this length are kept in the database: they share the disk wait of a group commit, where a file of their own needs two.
const INLINE_BYTES: u64 = 64 * 1024;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UploadQuery {
    offset: u64,
    total: u64,
}

pub(super) async fn upload(
    State(shared): State<Arc<Shared>>,
    Identity(peer): Identity,
    Params(id): Params<Digest>,
    Query(query): Query<UploadQuery>,
    body: Body,
) -> Result<Json<BlobStatus>, Refused> {
    let most = shared.config.identity.largest_blob_bytes.min(MAX_BLOB_BYTES);
    if query.total == 0 {
        return Err(Refused::malformed("blob.empty", "a sealed object is never empty"));
    }
    if query.total > most {
        return Err(Refused::of(
            ProblemStatus::TooLarge,
            Party::Requester,
            "blob.too-large",
            format!("a blob has at most {most} bytes here"),
            "split the input",
        ));
    }
    if let Some(stored_bytes) = shared.blob_size(&id).await? {
        return Ok(Json(BlobStatus { stored_bytes, complete: true }));
    }
    let _place = shared.transfers.try_acquire().map_err(|_| {
        Refused::unavailable("blob.busy-transfers", "as many transfers are under way as the coordinator takes", 500)
    })?;
    let reservation = shared.quotas.reserve(peer.0, query.total)?;
    let body_row = if query.total <= INLINE_BYTES {
        Some(small(&shared, peer, id, &query, body).await?)
    } else {
        match large(&shared, peer, id, &query, body).await? {
            UploadEnd::Complete => None,
            UploadEnd::Partial { stored_bytes } => return Ok(Json(BlobStatus { stored_bytes, complete: false })),
        }
    };
    let stored_at = shared.clock.now().wall.as_millis();
    shared.writer.blob(BlobRow { id: id.0, owner: peer.0, size_bytes: query.total, stored_at, body: body_row }).await?;
    reservation.keep();
    shared.known_blobs.add(id.0, query.total);
    Ok(Json(BlobStatus { stored_bytes: query.total, complete: true }))
}

/// Takes a small blob in one piece.
async fn small(
    shared: &Shared,
    peer: PublicKey,
    id: Digest,
    query: &UploadQuery,
    body: Body,
) -> Result<Vec<u8>, Refused> {
    if query.offset != 0 {
        return Err(wrong_offset(0));
    }
    let total = usize::try_from(query.total).map_err(|_| Refused::internal())?;
    let bytes = read_body(shared, body, total, Duration::from_millis(shared.config.waits.body_idle_ms)).await?;
    pace(shared, peer, bytes.len()).await;
    if bytes.len() < total {
        return Err(Refused::malformed("blob.too-short", "the body has fewer bytes than were announced").stored(0));
    }
    if blake3::hash(&bytes).as_bytes() != &id.0 {
        return Err(upload_refused(UploadError::WrongContent));
    }
    Ok(bytes.to_vec())
}

/// Appends to a partial file.
async fn large(
    shared: &Shared,
    peer: PublicKey,
    id: Digest,
    query: &UploadQuery,
    body: Body,
) -> Result<UploadEnd, Refused> {
    let now = shared.clock.now().wall.as_millis();
    let mut upload = shared.blobs.upload(peer.0, id.0, query.total, now).await.map_err(upload_refused)?;
    if upload.stored_bytes() != query.offset {
        return Err(wrong_offset(upload.stored_bytes()));
    }
    let idle = Duration::from_millis(shared.config.waits.body_idle_ms);
    let mut stream = body.into_data_stream();
    let mut stopping = shared.stopping.clone();
    loop {
        let next = tokio::select! {
            next = tokio::time::timeout(idle, stream.next()) => next,
            // What came so far is kept; the client goes on from there after the restart.
            _ = stopping.wait_for(|stopping| *stopping) => break,
        };
        let piece = match next {
            Ok(Some(Ok(piece))) => piece,
            Ok(None) => break,
            // The client went away or stalls: what came is made durable, so that it need not be sent again.
            Ok(Some(Err(_))) => {
                keep_partial(upload).await;
                return Err(Refused::malformed("body.broken", "the body ended before it was complete"));
            }
            Err(_) => {
                keep_partial(upload).await;
                return Err(body_timeout());
            }
        };
        pace(shared, peer, piece.len()).await;
        upload.append(piece).await.map_err(upload_refused)?;
    }
    upload.finish().await.map_err(upload_refused)
}

async fn keep_partial(upload: starminer_store::Upload) {
    if let Err(error) = upload.finish().await {
        tracing::debug!(code = error.code(), "an upload that broke off was not kept");
    }
}

/// Slows a transfer down to its identity's rate.
async fn pace(shared: &Shared, peer: PublicKey, bytes: usize) {
    let wait = shared.blob_bytes.take(peer, bytes as u64, shared.clock.now().mono_ms);
    if !wait.is_zero() {
        tokio::time::sleep(wait).await;
    }
}

fn wrong_offset(stored_bytes: u64) -> Refused {
    Refused::of(
        ProblemStatus::Conflict,
        Party::Network,
        "blob.wrong-offset",
        format!("the next byte to send is byte {stored_bytes}"),
        "go on from stored_bytes",
    )
    .stored(stored_bytes)
}

fn upload_refused(error: UploadError) -> Refused {
    let status = match &error {
        UploadError::Busy => ProblemStatus::Conflict,
        UploadError::TooMany => ProblemStatus::TooMany,
        UploadError::TooLong => ProblemStatus::TooLarge,
        UploadError::WrongContent => ProblemStatus::Refused,
        UploadError::Full => return Refused::storage_full(),
        UploadError::Io(source) => {
            tracing::error!(%source, "a blob cannot be written");
            return Refused::storage_failed();
        }
    };
    let remedy = match &error {
        UploadError::Busy => "wait for the other upload of this blob to end",
        UploadError::TooMany => "finish or abandon the uploads that are under way",
        _ => "send exactly the bytes that the content id is the BLAKE3 hash of",
    };
    Refused::of(status, Party::Network, error.code(), error.to_string(), remedy)
}

pub(super) async fn status(
    State(shared): State<Arc<Shared>>,
    Identity(peer): Identity,
    Params(id): Params<Digest>,
) -> Result<Json<BlobStatus>, Refused> {
    Ok(Json(match shared.blob_size(&id).await? {
        Some(stored_bytes) => BlobStatus { stored_bytes, complete: true },
        None => BlobStatus { stored_bytes: shared.blobs.partial_bytes(&peer.0, &id.0), complete: false },
    }))
}

pub(super) async fn download(
    State(shared): State<Arc<Shared>>,
    Identity(peer): Identity,
    Params(id): Params<Digest>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let unknown = || {
        Refused::of(
            ProblemStatus::NotFound,
            Party::Storage,
            "blob.not-found",
            "no complete blob has this content id",
            "check the id; blobs expire some time after their task",
        )
    };
    let row = shared.database.blob(&id.0).await.map_err(storage)?.ok_or_else(unknown)?;
    let (status, range) = match headers.get(header::RANGE) {
        None => (StatusCode::OK, 0..row.size_bytes),
        Some(value) => (StatusCode::PARTIAL_CONTENT, parse_range(value, row.size_bytes)?),
    };
    let length = range.end - range.start;
    let body = match row.body {
        Some(body) => {
            let from = usize::try_from(range.start).map_err(|_| Refused::internal())?;
            let to = usize::try_from(range.end).map_err(|_| Refused::internal())?;
            pace(&shared, peer, to - from).await;
            Body::from(Bytes::from(body).get(from..to).map(Bytes::copy_from_slice).ok_or_else(Refused::internal)?)
        }
        None => file_body(&shared, peer, id, range.clone()).await?,
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    if status == StatusCode::PARTIAL_CONTENT {
        let text = format!("bytes {}-{}/{}", range.start, range.end - 1, row.size_bytes);
        headers.insert(header::CONTENT_RANGE, HeaderValue::try_from(text).map_err(|_| Refused::internal())?);
    }
    Ok(response)
}

async fn file_body(shared: &Arc<Shared>, peer: PublicKey, id: Digest, range: Range<u64>) -> Result<Body, Refused> {
    let stream = shared.blobs.read(&id.0, range).await.map_err(|error| match error {
        // The row is there and the file is not: swept this moment, or lost.
        BlobReadError::NotFound => Refused::unavailable("storage.failed", "the blob cannot be read at present", 1000),
        BlobReadError::Failed(source) => {
            tracing::error!(%source, "a blob cannot be read");
            Refused::storage_failed()
        }
    })?;
    let shared = shared.clone();
    Ok(Body::from_stream(stream.then(move |piece| {
        let shared = shared.clone();
        async move {
            if let Ok(piece) = &piece {
                pace(&shared, peer, piece.len()).await;
            }
            piece
        }
    })))
}

/// One range of bytes (RFC 9110 section 14.1.2), `bytes=from-` or `bytes=from-to`; what else there is, is refused.
fn parse_range(value: &HeaderValue, size: u64) -> Result<Range<u64>, Refused> {
    let refused = || {
        Refused::malformed("blob.range", format!("the range is not bytes=from-to within the {size} bytes of the blob"))
    };
    let text = value.to_str().ok().and_then(|text| text.strip_prefix("bytes=")).ok_or_else(refused)?;
    let (from, to) = text.split_once('-').ok_or_else(refused)?;
    let from: u64 = from.parse().map_err(|_| refused())?;
    let end = match to {
        "" => size,
        to => to.parse::<u64>().ok().and_then(|to| to.checked_add(1)).ok_or_else(refused)?.min(size),
    };
    if from < end { Ok(from..end) } else { Err(refused()) }
}
