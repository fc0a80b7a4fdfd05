//! One server over HTTP/2, mutual TLS and a small pool of connections: the only way out of this process.
//!
//! A [`Transport`] dials lazily, multiplexes requests over one connection (a few when that is full), dials again with
//! jittered backoff when a connection dies, and lets connections that are too old run dry. Requests that were not sent
//! are sent again; requests that may have been processed only if HTTP calls their method idempotent (RFC 9110, section
//! 9.2.2) and their body can be had again. Every request carries the connection's channel-binding proof.
//!
//! It deliberately knows nothing of the API, of status codes and of redirects, follows no proxy and reads no environment
//! variable. HTTP/2 is RFC 9113; TLS and the proof are `specs/tls.md`. A pool of our own, because the pooled clients of
//! others cannot give the TLS exporter of the connection that a request went over.

mod body;
mod error;
mod pool;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, Uri};
use serde::de::DeserializeOwned;
use starminer_tls::{
    Clock as _, Connector, IdentityKey, IssueError, PeerIdentity, RotatingCertificate, Rotation, Session, Side,
    SystemClock,
};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use body::{BodyFault, SendBody};
pub use body::{RequestBody, ResponseBody};
pub use error::{TransportError, error_chain};
use pool::{Flight, Pool};

/// The header that carries the connection's channel-binding proof (128 hexadecimal digits, `specs/tls.md`).
pub const CHANNEL_BINDING_HEADER: HeaderName = HeaderName::from_static("starminer-channel-binding");

/// Connections to one server that take new requests; those that run dry come on top.
pub const MAX_CONNECTIONS: usize = 4;
/// Requests under way on one connection before another is opened.
pub const MAX_STREAMS_PER_CONNECTION: usize = 64;
/// How long a request waits for a connection before the last reason for not getting one is its answer.
pub const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// How long a response body may make no progress.
pub const BODY_IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// How often one request is sent at most.
const MAX_SENDS: usize = 4;

/// The bounds of a transport.
#[derive(Clone, Copy, Debug)]
pub struct TransportLimits {
    /// Connections that take new requests.
    pub connections: usize,
    /// Requests under way on one of them.
    pub streams_per_connection: usize,
    /// How long a request waits for a connection.
    pub connect_patience: Duration,
    /// How long a response body may make no progress.
    pub body_idle: Duration,
}

impl Default for TransportLimits {
    fn default() -> Self {
        Self {
            connections: MAX_CONNECTIONS,
            streams_per_connection: MAX_STREAMS_PER_CONNECTION,
            connect_patience: CONNECT_PATIENCE,
            body_idle: BODY_IDLE_TIMEOUT,
        }
    }
}

/// Why a transport could not be made: this machine issued no certificate for its own identity.
#[derive(Debug, thiserror::Error)]
#[error("no TLS certificate for the own identity")]
pub struct TransportSetupError(#[source] IssueError);

/// A client of one server. Cheap to clone; all clones share the connections, which close with the last clone and the
/// last response.
#[derive(Clone)]
pub struct Transport {
    pool: Arc<Pool>,
    // One permit a request until its response body ends: with a permit in hand there is room on some connection.
    slots: Arc<Semaphore>,
    limits: TransportLimits,
}

impl Transport {
    /// A client of the server `expected` at `address` (`host:port`). Dials with the first request.
    #[must_use]
    pub fn new(address: impl Into<Arc<str>>, expected: PeerIdentity, connector: Arc<Connector>) -> Self {
        Self::with_limits(address, expected, connector, TransportLimits::default())
    }

    /// The same with other bounds than the default ones.
    #[must_use]
    pub fn with_limits(
        address: impl Into<Arc<str>>,
        expected: PeerIdentity,
        connector: Arc<Connector>,
        limits: TransportLimits,
    ) -> Self {
        let slots = Arc::new(Semaphore::new(limits.connections * limits.streams_per_connection));
        Self { pool: Pool::new(address.into(), expected, connector, limits), slots, limits }
    }

    /// A client that proves `identity`, with the default rotation and the system's clock.
    ///
    /// # Errors
    /// [`TransportSetupError`], a failure of this machine.
    pub fn for_identity(
        address: &str,
        server_key: [u8; 32],
        identity: &Arc<IdentityKey>,
    ) -> Result<Self, TransportSetupError> {
        let now = SystemClock.unix_seconds();
        let certificate = RotatingCertificate::new(identity.clone(), Side::Client, Rotation::default(), now)
            .map_err(TransportSetupError)?;
        let connector = Connector::new(Arc::new(certificate), Arc::new(SystemClock));
        Ok(Self::new(address, PeerIdentity(server_key), Arc::new(connector)))
    }

    /// Where the server is.
    #[must_use]
    pub fn address(&self) -> &str {
        self.pool.address()
    }

    /// Who the server is.
    #[must_use]
    pub fn server(&self) -> PeerIdentity {
        self.pool.expected()
    }

    /// The connection that the next request would take, if one is open: its identities and its channel binding.
    #[must_use]
    pub fn current_session(&self) -> Option<Session> {
        self.pool.current_session()
    }

    /// As [`Self::current_session`], but opens a connection if there is none.
    ///
    /// # Errors
    /// [`TransportError::Dial`].
    pub async fn session(&self) -> Result<Session, TransportError> {
        Ok(self.pool.acquire().await?.session())
    }

    /// Sends a request and returns once the head of the response is there; `timeout` bounds that, waiting for a
    /// connection and sending the body included. `path` begins with `/` and may have a query. The connection that
    /// answered is in the response's extensions, as a [`Session`].
    ///
    /// # Errors
    /// [`TransportError`]; any status is a response, not an error. Dropping the future cancels the request.
    pub async fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(HeaderName, HeaderValue)],
        body: RequestBody,
        timeout: Duration,
    ) -> Result<Response<ResponseBody>, TransportError> {
        let call = Call { method, uri: self.uri(path)?, headers };
        let until = Instant::now() + timeout;
        match timeout_at(until, self.send(&call, body)).await {
            Ok(outcome) => outcome,
            // Whoever waited in vain for a connection wants to know why there is none.
            Err(_) => Err(self
                .pool
                .last_dial_failure()
                .unwrap_or(TransportError::Timeout { address: self.pool.address().clone(), after: timeout })),
        }
    }

    /// Reads a response body of `max_bytes` at most, for `timeout` at most.
    ///
    /// # Errors
    /// [`TransportError::BodyTooLarge`] as soon as more is declared or received, and whatever ends the body early.
    pub async fn read_limited(
        &self,
        response: Response<ResponseBody>,
        max_bytes: usize,
        timeout: Duration,
    ) -> Result<Bytes, TransportError> {
        timeout_at(Instant::now() + timeout, collect(response, max_bytes))
            .await
            .map_err(|_| TransportError::Timeout { address: self.pool.address().clone(), after: timeout })?
    }

    /// Reads a JSON response of `max_bytes` at most, for `timeout` at most.
    ///
    /// # Errors
    /// As [`Self::read_limited`], and [`TransportError::Json`].
    pub async fn read_json_limited<T: DeserializeOwned>(
        &self,
        response: Response<ResponseBody>,
        max_bytes: usize,
        timeout: Duration,
    ) -> Result<T, TransportError> {
        let body = self.read_limited(response, max_bytes, timeout).await?;
        serde_json::from_slice(&body).map_err(TransportError::Json)
    }

    async fn send(&self, call: &Call<'_>, mut body: RequestBody) -> Result<Response<ResponseBody>, TransportError> {
        let permit = self.slots.clone().acquire_owned().await.expect("the semaphore is never closed");
        let mut sends = 0;
        loop {
            sends += 1;
            let flight = self.pool.acquire().await?;
            let copy = body.copy();
            let fault = BodyFault::default();
            let request = call.to_request(SendBody::new(body, fault.clone()), &flight);
            let failed = match flight.send(request).await {
                Ok(response) => {
                    let session = flight.session();
                    let mut response = response.map(|incoming| {
                        ResponseBody::new(incoming, flight, permit, self.pool.address().clone(), self.limits.body_idle)
                    });
                    response.extensions_mut().insert(session);
                    return Ok(response);
                }
                Err(failed) => failed,
            };
            if let Some(error) = fault.take() {
                return Err(TransportError::Local(error));
            }
            let again = match failed.unsent {
                Some(request) => Some(request.into_body().into_inner()),
                None if call.method.is_idempotent() && flight.is_dead() => copy,
                None => None,
            };
            match again {
                Some(again) if failed.error.is_transient() && sends < MAX_SENDS => body = again,
                _ => return Err(failed.error),
            }
            tracing::debug!(address = self.address(), error = %failed.error, "request goes out again");
        }
    }

    /// The authority of HTTP/2 is the server's identity, which is its name.
    fn uri(&self, path: &str) -> Result<Uri, TransportError> {
        let invalid = || TransportError::InvalidPath { path: path.chars().take(200).collect() };
        if !path.starts_with('/') {
            return Err(invalid());
        }
        Uri::builder()
            .scheme("https")
            .authority(self.server().to_string())
            .path_and_query(path)
            .build()
            .map_err(|_| invalid())
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport")
            .field("address", &self.address())
            .field("server", &self.server())
            .finish_non_exhaustive()
    }
}

/// What a request is made of, but for its body: enough to make it again.
struct Call<'a> {
    method: Method,
    uri: Uri,
    headers: &'a [(HeaderName, HeaderValue)],
}

impl Call<'_> {
    fn to_request(&self, body: SendBody, flight: &Flight) -> Request<SendBody> {
        let content_type = body.content_type();
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        let headers = request.headers_mut();
        if let Some(content_type) = content_type {
            headers.insert(CONTENT_TYPE, content_type);
        }
        headers.extend(self.headers.iter().cloned());
        headers.insert(CHANNEL_BINDING_HEADER, flight.proof());
        request
    }
}

async fn collect(response: Response<ResponseBody>, max_bytes: usize) -> Result<Bytes, TransportError> {
    let declared = response.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let mut body = response.into_body();
    let expected = declared.unwrap_or(body.size_hint().lower());
    if expected > max_bytes as u64 {
        return Err(TransportError::BodyTooLarge { max_bytes });
    }
    let mut whole = BytesMut::with_capacity(expected as usize);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if data.len() > max_bytes - whole.len() {
            return Err(TransportError::BodyTooLarge { max_bytes });
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}
