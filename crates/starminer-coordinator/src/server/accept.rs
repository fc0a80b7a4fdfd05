//! Accepts connections, and lets them run dry when the coordinator stops or a certificate ages.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use starminer_tls::{Acceptor, Connection};
use starminer_verify::PublicKey;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use super::edge::{Peer, handle};
use crate::shared::Shared;
use crate::writer::Fatal;

/// Unread bytes of one stream's body that a peer may have under way.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// The same of one connection.
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// Largest frame: fewer of them make bulk transfers cheaper.
const FRAME_BYTES: u32 = 256 * 1024;
/// Bytes of answers that wait for a slow reader, for each stream.
const SEND_BUFFER_BYTES: usize = 512 * 1024;
/// All headers of a request together.
const HEADER_LIST_BYTES: u32 = 16 * 1024;
/// A silent connection is asked for a sign of life this often.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// And closed without one after this time.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Pause after accepting failed, e.g. because file descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why serving ended otherwise than by the caller's wish.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The writer cannot go on.
    #[error("the coordinator cannot go on")]
    Fatal(#[from] Fatal),
}

/// What the accept loop works with.
pub(crate) struct Serving {
    pub(crate) shared: Arc<Shared>,
    pub(crate) router: Router,
    pub(crate) acceptor: Arc<Acceptor>,
    pub(crate) stopping: watch::Receiver<bool>,
}

/// Open connections by identity.
#[derive(Debug, Default)]
struct Connections {
    by_identity: Mutex<HashMap<PublicKey, usize>>,
}

struct Counted {
    connections: Arc<Connections>,
    identity: PublicKey,
}

impl Connections {
    fn count(self: &Arc<Self>, identity: PublicKey, most: usize) -> Option<Counted> {
        let mut by_identity = self.by_identity.lock().unwrap_or_else(PoisonError::into_inner);
        let count = by_identity.entry(identity).or_insert(0);
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Counted { connections: self.clone(), identity })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut by_identity = self.connections.by_identity.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = by_identity.get_mut(&self.identity) {
            *count -= 1;
            if *count == 0 {
                by_identity.remove(&self.identity);
            }
        }
    }
}

/// Accepts until the coordinator stops; returns when every connection has ended or was given up.
pub(crate) async fn serve(serving: Serving, listener: TcpListener) {
    let Serving { shared, router, acceptor, mut stopping } = serving;
    let places = Arc::new(Semaphore::new(shared.config.total.connections));
    let connections = Arc::new(Connections::default());
    let mut tasks = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopping.wait_for(|stopping| *stopping) => break,
            Some(_) = tasks.join_next() => continue,
        };
        let tcp = match accepted {
            Ok((tcp, _)) => tcp,
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Without a place the connection is closed at once: waiting would let strangers queue.
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let connection = OneConnection {
            shared: shared.clone(),
            router: router.clone(),
            acceptor: acceptor.clone(),
            stopping: stopping.clone(),
            connections: connections.clone(),
            place,
        };
        tasks.spawn(connection.run(tcp));
    }
    drop(listener);
    let drain = Duration::from_millis(shared.config.waits.drain_ms);
    if tokio::time::timeout(drain, async { while tasks.join_next().await.is_some() {} }).await.is_err() {
        tracing::warn!("connections did not end in time and are closed");
        tasks.shutdown().await;
    }
}

struct OneConnection {
    shared: Arc<Shared>,
    router: Router,
    acceptor: Arc<Acceptor>,
    stopping: watch::Receiver<bool>,
    connections: Arc<Connections>,
    place: OwnedSemaphorePermit,
}

impl OneConnection {
    async fn run(self, tcp: TcpStream) {
        let connection = match self.acceptor.accept(tcp).await {
            Ok(connection) => connection,
            Err(error) => {
                tracing::debug!(%error, "handshake refused");
                return;
            }
        };
        let identity = PublicKey(connection.peer_identity().0);
        let Some(counted) = self.connections.count(identity, self.shared.config.identity.connections) else {
            tracing::debug!(%identity, "too many connections of one identity");
            return;
        };
        self.serve_http(connection, identity).await;
        drop(counted);
    }

    async fn serve_http(mut self, connection: Connection, identity: PublicKey) {
        let peer = Arc::new(Peer::new(identity, connection.session()));
        let (shared, router) = (self.shared.clone(), self.router.clone());
        let service = hyper::service::service_fn(move |request| {
            let (shared, router, peer) = (shared.clone(), router.clone(), peer.clone());
            async move { Ok::<_, std::convert::Infallible>(handle(&shared, router, &peer, request).await) }
        });
        let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.shared.config.total.streams_per_connection)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES)
            .max_send_buf_size(SEND_BUFFER_BYTES)
            .max_header_list_size(HEADER_LIST_BYTES)
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .serve_connection(TokioIo::new(connection), service);
        tokio::pin!(serving);
        let aged = tokio::time::sleep(self.acceptor.max_connection_age());
        tokio::pin!(aged);
        let mut draining = false;
        loop {
            tokio::select! {
                ended = &mut serving => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "connection ended");
                    }
                    break;
                }
                _ = self.stopping.wait_for(|stopping| *stopping), if !draining => {
                    draining = true;
                    serving.as_mut().graceful_shutdown();
                }
                () = &mut aged, if !draining => {
                    draining = true;
                    serving.as_mut().graceful_shutdown();
                }
            }
        }
        drop(self.place);
    }
}
