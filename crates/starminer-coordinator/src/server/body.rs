//! Bodies, paths and queries: read strictly and within bounds.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Path};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Request, header};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use starminer_verify::Party;
use starminer_wire::{MAX_EVIDENCE_BODY_BYTES, MAX_JSON_BODY_BYTES, ProblemStatus};

use crate::refused::Refused;
use crate::shared::Shared;

/// The whole of a JSON body must be there within this time.
const JSON_BODY_TIMEOUT: Duration = Duration::from_secs(15);

/// A JSON body, in and out.
#[derive(Debug)]
pub(crate) struct Json<T>(pub(crate) T);

/// A JSON body with evidence in it.
#[derive(Debug)]
pub(crate) struct JsonWithEvidence<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<Arc<Shared>> for Json<T> {
    type Rejection = Refused;

    async fn from_request(request: Request<Body>, shared: &Arc<Shared>) -> Result<Self, Refused> {
        read_json(request, shared, MAX_JSON_BODY_BYTES).await.map(Self)
    }
}

impl<T: DeserializeOwned> FromRequest<Arc<Shared>> for JsonWithEvidence<T> {
    type Rejection = Refused;

    async fn from_request(request: Request<Body>, shared: &Arc<Shared>) -> Result<Self, Refused> {
        read_json(request, shared, MAX_EVIDENCE_BODY_BYTES).await.map(Self)
    }
}

/// A body of at most so many bytes, as it came.
#[derive(Debug)]
pub(crate) struct Whole<const MOST: usize>(pub(crate) Bytes);

impl<const MOST: usize> FromRequest<Arc<Shared>> for Whole<MOST> {
    type Rejection = Refused;

    async fn from_request(request: Request<Body>, shared: &Arc<Shared>) -> Result<Self, Refused> {
        read_body(shared, request.into_body(), MOST, JSON_BODY_TIMEOUT).await.map(Self)
    }
}

async fn read_json<T: DeserializeOwned>(request: Request<Body>, shared: &Shared, most: usize) -> Result<T, Refused> {
    let bytes = read_body(shared, request.into_body(), most, JSON_BODY_TIMEOUT).await?;
    serde_json::from_slice(&bytes).map_err(|error| {
        // Only where it breaks: serde's own text may quote what was sent.
        let reason =
            format!("not the JSON that this endpoint takes, at line {} column {}", error.line(), error.column());
        Refused::malformed("body.malformed", reason)
    })
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(body) => {
                let mut response = Response::new(Body::from(body));
                response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
                response
            }
            Err(error) => {
                tracing::error!(%error, "an answer cannot be written");
                Refused::internal().into_response()
            }
        }
    }
}

/// Bytes that are counted while they are being read.
struct Reading<'s> {
    shared: &'s Shared,
    bytes: usize,
}

impl Reading<'_> {
    fn add(&mut self, bytes: usize) -> Result<(), Refused> {
        self.bytes += bytes;
        let together = self.shared.body_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if together > self.shared.config.total.body_bytes {
            return Err(Refused::unavailable("coordinator.busy", "too many requests are being read", 1000));
        }
        Ok(())
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.shared.body_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Reads a body of at most `most` bytes within `timeout`.
///
/// # Errors
/// `body.too-large`, `body.timeout`, `body.broken`, `coordinator.busy`.
pub(crate) async fn read_body(shared: &Shared, body: Body, most: usize, timeout: Duration) -> Result<Bytes, Refused> {
    let too_large = || {
        Refused::of(
            ProblemStatus::TooLarge,
            Party::Network,
            "body.too-large",
            format!("the body is over {most} bytes"),
            "send less; inputs and outputs go to /v1/blobs",
        )
    };
    if hyper::body::Body::size_hint(&body).lower() > most as u64 {
        return Err(too_large());
    }
    let read = async {
        let mut stream = body.into_data_stream();
        let mut whole = BytesMut::new();
        let mut reading = Reading { shared, bytes: 0 };
        while let Some(piece) = stream.next().await {
            let piece =
                piece.map_err(|_| Refused::malformed("body.broken", "the body ended before it was complete"))?;
            if whole.len() + piece.len() > most {
                return Err(too_large());
            }
            reading.add(piece.len())?;
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    };
    tokio::time::timeout(timeout, read).await.unwrap_or_else(|_| Err(body_timeout()))
}

/// The next bytes of a body did not come in time.
pub(crate) fn body_timeout() -> Refused {
    Refused::malformed("body.timeout", "the body did not come in time")
}

/// Parts of the path, all of which must parse.
#[derive(Debug)]
pub(crate) struct Params<T>(pub(crate) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(value)) => Ok(Self(value)),
            Err(_) => Err(Refused::malformed(
                "path.malformed",
                "a part of the path is not an id or number of the kind it stands for",
            )),
        }
    }
}

/// The query, with unknown names refused by its type.
#[derive(Debug)]
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        match axum::extract::Query::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(value)) => Ok(Self(value)),
            Err(_) => Err(Refused::malformed(
                "query.malformed",
                "the query does not have exactly the parameters of this endpoint",
            )),
        }
    }
}
