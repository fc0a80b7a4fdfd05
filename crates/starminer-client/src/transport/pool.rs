//! The connections to one server: dialled one at a time, shared by requests, retired by age, missed when they die.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::header::HeaderValue;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use starminer_tls::{Connection, Connector, HandshakeError, PeerIdentity, RotationTask, Session};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, timeout};

use super::TransportLimits;
use super::body::SendBody;
use super::error::{TransportError, is_transient};

/// Unread bytes of one response that the server may have under way: fills a gigabit line at 8 ms.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// Unread bytes of all responses of a connection together: the bound of what they hold in memory.
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// Largest DATA frame taken: fewer wake-ups for blobs than with the 16 KiB that HTTP/2 begins with.
const MAX_FRAME_BYTES: u32 = 64 << 10;
/// Unsent bytes of one request body that are buffered.
const SEND_BUFFER_BYTES: usize = 256 << 10;
/// Largest response head.
const MAX_HEAD_BYTES: u32 = 16 << 10;
/// While requests are under way the server is asked this often whether it is still there.
const PING_INTERVAL: Duration = Duration::from_secs(15);
/// And counts as gone when it has not said so after this time.
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// First and longest pause between two attempts to connect.
const BACKOFF_FIRST: Duration = Duration::from_millis(25);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// The connections to one server.
pub(super) struct Pool {
    address: Arc<str>,
    expected: PeerIdentity,
    connector: Arc<Connector>,
    limits: TransportLimits,
    // Held while dialling, so that a burst of requests makes one connection, not one each.
    dialling: tokio::sync::Mutex<()>,
    // Started with the first connection, since that needs a runtime.
    rotation: OnceLock<RotationTask>,
    // Never held across an await.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: Vec<Arc<Live>>,
    /// Attempts since the server last answered a request.
    failures: u32,
    not_before: Option<Instant>,
    last_failure: Option<Arc<HandshakeError>>,
}

/// A connection.
struct Live {
    sender: http2::SendRequest<SendBody>,
    session: Session,
    proof: HeaderValue,
    fault: Arc<OnceLock<Arc<HandshakeError>>>,
    answered: AtomicBool,
    in_flight: AtomicUsize,
}

impl Pool {
    pub(super) fn new(
        address: Arc<str>,
        expected: PeerIdentity,
        connector: Arc<Connector>,
        limits: TransportLimits,
    ) -> Arc<Self> {
        let (dialling, state) = (tokio::sync::Mutex::new(()), Mutex::new(State::default()));
        Arc::new(Self { address, expected, connector, limits, dialling, rotation: OnceLock::new(), state })
    }

    pub(super) fn address(&self) -> &Arc<str> {
        &self.address
    }

    pub(super) fn expected(&self) -> PeerIdentity {
        self.expected
    }

    pub(super) fn current_session(&self) -> Option<Session> {
        let state = self.state();
        state.open.iter().filter(|live| !live.is_dead()).min_by_key(|live| live.load()).map(|live| live.session)
    }

    /// Why there is no connection, when there is none.
    pub(super) fn last_dial_failure(&self) -> Option<TransportError> {
        let state = self.state();
        let failed = state.last_failure.clone().filter(|_| state.open.iter().all(|live| live.is_dead()));
        failed.map(|source| TransportError::Dial { address: self.address.clone(), source })
    }

    /// A place on a connection, an open one or a new one.
    pub(super) async fn acquire(self: &Arc<Self>) -> Result<Flight, TransportError> {
        if let Some(flight) = self.board() {
            return Ok(flight);
        }
        let patience = self.limits.connect_patience;
        match timeout(patience, self.dial_until_connected()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self
                .last_dial_failure()
                .unwrap_or(TransportError::Timeout { address: self.address.clone(), after: patience })),
        }
    }

    /// A place on an open connection: the one with the fewest requests, if it has room or no further one may be opened.
    fn board(self: &Arc<Self>) -> Option<Flight> {
        let mut state = self.state();
        state.open.retain(|live| !live.is_dead());
        let full = state.open.len() >= self.limits.connections;
        let live = state.open.iter().min_by_key(|live| live.load())?;
        if live.load() >= self.limits.streams_per_connection && !full {
            return None;
        }
        live.in_flight.fetch_add(1, Ordering::SeqCst);
        Some(Flight { live: live.clone(), pool: self.clone() })
    }

    async fn dial_until_connected(self: &Arc<Self>) -> Result<Flight, TransportError> {
        let _dialling = self.dialling.lock().await;
        loop {
            if let Some(flight) = self.board() {
                return Ok(flight);
            }
            let not_before = self.state().not_before;
            if let Some(not_before) = not_before {
                tokio::time::sleep_until(not_before).await;
            }
            if let Err(error) = self.dial().await {
                let source = Arc::new(error);
                self.state().failed(source.clone());
                if !is_transient(&source) {
                    return Err(TransportError::Dial { address: self.address.clone(), source });
                }
            }
        }
    }

    async fn dial(self: &Arc<Self>) -> Result<(), HandshakeError> {
        self.rotation.get_or_init(|| self.connector.spawn_rotation());
        let connection = self.connector.connect(&*self.address, self.expected).await?;
        let session = connection.session();
        let fault = Arc::new(OnceLock::new());
        let proof = session
            .prove(self.connector.identity_key())
            .ok()
            .and_then(|proof| HeaderValue::from_str(&proof.to_string()).ok())
            .expect("the connector's key is the session's identity, and hexadecimal digits are a header value");

        let io = TokioIo::new(Watched { connection, fault: fault.clone() });
        let (sender, driver) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(MAX_FRAME_BYTES)
            .max_send_buf_size(SEND_BUFFER_BYTES)
            .max_header_list_size(MAX_HEAD_BYTES)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .handshake(io)
            .await
            .map_err(|error| HandshakeError::Closed(io::Error::other(error)))?;

        let live = Arc::new(Live {
            sender,
            session,
            proof,
            fault,
            answered: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
        });
        self.state().open.push(live.clone());
        tracing::debug!(address = %self.address, group = ?session.group(), "connected");
        let age = jittered(self.connector.max_connection_age());
        tokio::spawn(drive(driver, age, Arc::downgrade(&live), Arc::downgrade(self)));
        Ok(())
    }

    /// Takes a connection out of use; requests under way on it go on.
    fn retire(&self, live: &Weak<Live>) {
        self.state().open.retain(|open| !std::ptr::eq(Arc::as_ptr(open), live.as_ptr()));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Drives a connection to its end, and takes it out of use when it is old.
async fn drive(driver: impl Future<Output = hyper::Result<()>>, age: Duration, live: Weak<Live>, pool: Weak<Pool>) {
    let mut driver = std::pin::pin!(driver);
    tokio::select! {
        _ = &mut driver => {}
        () = tokio::time::sleep(age) => {
            if let Some(pool) = pool.upgrade() {
                tracing::debug!(address = %pool.address, "connection is old; it runs dry");
                pool.retire(&live);
            }
            let _ = driver.await;
            return;
        }
    }
    let Some(pool) = pool.upgrade() else { return };
    pool.retire(&live);
    // A connection that never answered is a failed attempt: a server that refuses us does so after our handshake.
    if let Some(live) = live.upgrade()
        && !live.answered.load(Ordering::SeqCst)
    {
        let source = live.fault.get().cloned().unwrap_or_else(|| {
            Arc::new(HandshakeError::Closed(io::Error::new(io::ErrorKind::UnexpectedEof, "closed without an answer")))
        });
        pool.state().failed(source);
    }
}

impl State {
    fn failed(&mut self, source: Arc<HandshakeError>) {
        let pause = BACKOFF_FIRST.saturating_mul(1 << self.failures.min(10)).min(BACKOFF_MAX);
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(Instant::now() + jittered(pause));
        self.last_failure = Some(source);
    }

    fn succeeded(&mut self) {
        self.failures = 0;
        self.not_before = None;
        self.last_failure = None;
    }
}

/// Between three quarters of a duration and all of it, so that clients of a server that restarted do not return as one.
fn jittered(whole: Duration) -> Duration {
    use std::hash::{BuildHasher, Hasher};
    // Each `RandomState` has other keys: random enough for this, without a generator of its own.
    let random = std::collections::hash_map::RandomState::new().build_hasher().finish() as u32;
    whole.mul_f64(0.75 + 0.25 * f64::from(random) / f64::from(u32::MAX))
}

impl Live {
    fn load(&self) -> usize {
        self.in_flight.load(Ordering::SeqCst)
    }

    fn is_dead(&self) -> bool {
        self.sender.is_closed() || self.fault.get().is_some()
    }
}

/// A request's place on a connection, given back when dropped.
pub(super) struct Flight {
    live: Arc<Live>,
    pool: Arc<Pool>,
}

/// A request that got no response, and the request itself if it was never sent.
pub(super) struct Failed {
    pub(super) unsent: Option<Request<SendBody>>,
    pub(super) error: TransportError,
}

impl Flight {
    pub(super) fn session(&self) -> Session {
        self.live.session
    }

    pub(super) fn proof(&self) -> HeaderValue {
        self.live.proof.clone()
    }

    pub(super) fn is_dead(&self) -> bool {
        self.live.is_dead()
    }

    pub(super) async fn send(&self, request: Request<SendBody>) -> Result<Response<Incoming>, Failed> {
        let mut sender = self.live.sender.clone();
        match sender.try_send_request(request).await {
            Ok(response) => {
                if !self.live.answered.swap(true, Ordering::SeqCst) {
                    self.pool.state().succeeded();
                }
                Ok(response)
            }
            Err(mut failed) => {
                let unsent = failed.take_message();
                if unsent.is_some() || self.is_dead() {
                    self.pool.retire(&Arc::downgrade(&self.live));
                }
                let address = self.pool.address.clone();
                let error = match self.live.fault.get() {
                    Some(source) if !is_transient(source) => {
                        TransportError::RefusedByServer { address, source: source.clone() }
                    }
                    _ => TransportError::broken(&address, failed.error()),
                };
                Err(Failed { unsent, error })
            }
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.live.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}

impl fmt::Debug for Flight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Flight").field(&self.live.session.channel_binding()).finish()
    }
}

/// The encrypted stream, with its first error or end kept: hyper hands on only the text of it.
struct Watched {
    connection: Connection,
    fault: Arc<OnceLock<Arc<HandshakeError>>>,
}

impl Watched {
    /// rustls errors cannot be copied out of an `io::Error`, so that the original stays here and a likeness goes on.
    fn note(&self, error: io::Error) -> io::Error {
        let likeness = io::Error::new(error.kind(), error.to_string());
        let _ = self.fault.set(Arc::new(HandshakeError::from_io(error)));
        likeness
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.connection).poll_read(cx, buf);
        match polled {
            Poll::Ready(Ok(())) if buf.filled().len() == before && buf.remaining() > 0 => {
                let _ = self.note(io::ErrorKind::UnexpectedEof.into());
                Poll::Ready(Ok(()))
            }
            polled => polled.map_err(|error| self.note(error)),
        }
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(cx)
    }
}
