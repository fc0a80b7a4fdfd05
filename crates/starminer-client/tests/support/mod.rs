//! A small HTTP/2 server over our TLS that misbehaves by path, can be killed, drained, stopped and started again.

#![allow(dead_code, clippy::unwrap_used)]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use starminer_client::{RequestBody, ResponseBody, Transport, TransportError, TransportLimits};
use starminer_tls::{
    Acceptor, AllowedPeers, Clock, Connector, IdentityKey, PeerIdentity, RotatingCertificate, Rotation, Session, Side,
    SystemClock,
};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub fn identity(seed: u8) -> Arc<IdentityKey> {
    Arc::new(IdentityKey::from_seed(&[seed; 32]).unwrap())
}

pub fn any_port() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn certificate(seed: u8, side: Side, rotation: Rotation) -> Arc<RotatingCertificate> {
    Arc::new(RotatingCertificate::new(identity(seed), side, rotation, SystemClock.unix_seconds()).unwrap())
}

pub fn client_of(
    address: SocketAddr,
    server: u8,
    client: u8,
    rotation: Rotation,
    limits: TransportLimits,
) -> Transport {
    let expected = PeerIdentity(identity(server).public());
    let connector = Arc::new(Connector::new(certificate(client, Side::Client, rotation), Arc::new(SystemClock)));
    Transport::with_limits(address.to_string(), expected, connector, limits)
}

pub async fn get(transport: &Transport, path: &str) -> Result<Response<ResponseBody>, TransportError> {
    transport.request(Method::GET, path, &[], RequestBody::Empty, Duration::from_secs(20)).await
}

/// A request as the server saw it.
#[derive(Clone)]
pub struct Seen {
    pub path: String,
    pub authority: String,
    pub headers: HeaderMap,
    pub session: Session,
}

/// What can be done to the connections from outside.
#[derive(Clone, Copy, PartialEq)]
enum Order {
    Serve,
    Drain,
    Die,
}

pub struct Server {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    listening: JoinHandle<()>,
}

impl std::ops::Deref for Server {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}

pub struct Shared {
    seen: Mutex<Vec<Seen>>,
    accepted: AtomicUsize,
    open: AtomicUsize,
    pub at_once: AtomicUsize,
    pub most_at_once: AtomicUsize,
    pub produced: Arc<AtomicUsize>,
    orders: watch::Sender<(u64, Order)>,
}

impl Server {
    pub async fn start() -> Self {
        Self::at(any_port(), 1, AllowedPeers::Any, Rotation::default()).await
    }

    pub async fn at(address: SocketAddr, seed: u8, clients: AllowedPeers, rotation: Rotation) -> Self {
        let certificate = certificate(seed, Side::Server, rotation);
        let acceptor = Arc::new(Acceptor::new(certificate, clients, Arc::new(SystemClock)).unwrap());
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            seen: Mutex::default(),
            accepted: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            at_once: AtomicUsize::new(0),
            most_at_once: AtomicUsize::new(0),
            produced: Arc::new(AtomicUsize::new(0)),
            orders: watch::Sender::new((0, Order::Serve)),
        });
        let listening = tokio::spawn(listen(listener, acceptor, shared.clone()));
        Self { address, shared, listening }
    }

    /// Ends listener and connections as a `kill -9` would; the address is free again.
    pub async fn stop(self) -> SocketAddr {
        self.listening.abort();
        self.kill_connections();
        let _ = (&mut { self.listening }).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        self.address
    }

    pub fn client(&self, seed: u8) -> Transport {
        self.client_with(seed, TransportLimits::default())
    }

    pub fn client_with(&self, seed: u8, limits: TransportLimits) -> Transport {
        self.client_rotating(seed, Rotation::default(), limits)
    }

    pub fn client_rotating(&self, seed: u8, rotation: Rotation, limits: TransportLimits) -> Transport {
        client_of(self.address, 1, seed, rotation, limits)
    }
}

impl Shared {
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Connections since the start.
    pub fn connections(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    pub fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    pub fn most_at_once(&self) -> usize {
        self.most_at_once.load(Ordering::SeqCst)
    }

    /// Cuts the present connections without a word.
    pub fn kill_connections(&self) {
        self.order(Order::Die);
    }

    /// Asks the clients of the present connections to go, and lets requests under way end.
    pub fn drain_connections(&self) {
        self.order(Order::Drain);
    }

    fn order(&self, order: Order) {
        self.orders.send_modify(|current| *current = (current.0 + 1, order));
    }
}

async fn listen(listener: TcpListener, acceptor: Arc<Acceptor>, shared: Arc<Shared>) {
    loop {
        let (tcp, _) = listener.accept().await.unwrap();
        let (acceptor, shared, orders) = (acceptor.clone(), shared.clone(), shared.orders.subscribe());
        tokio::spawn(async move {
            let Ok(connection) = acceptor.accept(tcp).await else { return };
            shared.accepted.fetch_add(1, Ordering::SeqCst);
            shared.open.fetch_add(1, Ordering::SeqCst);
            serve(connection, shared.clone(), orders).await;
            shared.open.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

async fn serve(connection: starminer_tls::Connection, shared: Arc<Shared>, mut orders: watch::Receiver<(u64, Order)>) {
    let session = connection.session();
    let service = service_fn(move |request| answer(request, session, shared.clone()));
    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    builder.timer(TokioTimer::new()).initial_stream_window_size(1 << 20).initial_connection_window_size(4 << 20);
    let mut serving = std::pin::pin!(builder.serve_connection(TokioIo::new(connection), service));
    loop {
        tokio::select! {
            _ = serving.as_mut() => return,
            changed = orders.changed() => match changed.map(|()| orders.borrow().1) {
                Ok(Order::Drain) => serving.as_mut().graceful_shutdown(),
                Ok(Order::Serve) => {}
                Ok(Order::Die) | Err(_) => return,
            },
        }
    }
}

/// Counts requests under way, also of handlers that are dropped.
struct Handling(Arc<Shared>);

impl Handling {
    fn begin(shared: Arc<Shared>) -> Self {
        let now = shared.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        shared.most_at_once.fetch_max(now, Ordering::SeqCst);
        Self(shared)
    }
}

impl Drop for Handling {
    fn drop(&mut self) {
        self.0.at_once.fetch_sub(1, Ordering::SeqCst);
    }
}

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

async fn answer(request: Request<Incoming>, session: Session, shared: Arc<Shared>) -> Result<Answer, Infallible> {
    let handling = Handling::begin(shared.clone());
    let path = request.uri().path_and_query().unwrap().to_string();
    let nth = {
        let mut seen = shared.seen.lock().unwrap();
        seen.push(Seen {
            path: path.clone(),
            authority: request.uri().authority().unwrap().to_string(),
            headers: request.headers().clone(),
            session,
        });
        seen.iter().filter(|seen| seen.path == path).count()
    };
    let words: Vec<&str> = path.split(['/', '?']).skip(1).collect();
    let number = |at: usize| words[at].parse::<usize>().unwrap();
    let answer = match words[0] {
        "echo" => {
            let content_type = request.headers().get("content-type").cloned();
            let mut answer = Response::new(full(request.into_body().collect().await.unwrap().to_bytes()));
            answer.headers_mut().extend(content_type.map(|value| (hyper::header::CONTENT_TYPE, value)));
            answer
        }
        "status" => {
            let mut answer = Response::new(full(Bytes::new()));
            *answer.status_mut() = StatusCode::from_u16(number(1) as u16).unwrap();
            answer
        }
        "after" => {
            tokio::time::sleep(Duration::from_millis(number(1) as u64)).await;
            Response::new(full(Bytes::new()))
        }
        "first-hangs" if nth > 1 => Response::new(full(Bytes::new())),
        "hangs" | "first-hangs" => std::future::pending().await,
        "stalls" => Response::new(streamed(futures_util::stream::pending(), handling)),
        "pieces" => {
            let pause = Duration::from_millis(number(2) as u64);
            let pieces = futures_util::stream::iter(0..number(1)).then(move |_| async move {
                tokio::time::sleep(pause).await;
                Bytes::from_static(b".")
            });
            Response::new(streamed(pieces, handling))
        }
        "bytes" => Response::new(Zeros { left: number(1), produced: shared.produced.clone() }.boxed_unsync()),
        "endless" => {
            let produced = shared.produced.clone();
            let pieces = futures_util::stream::repeat_with(move || {
                produced.fetch_add(16384, Ordering::SeqCst);
                Bytes::from(vec![0; 16384])
            });
            Response::new(streamed(pieces, handling))
        }
        "count" => {
            let mut body = request.into_body();
            let mut count = 0;
            while let Some(Ok(frame)) = body.frame().await {
                count += frame.into_data().map_or(0, |data| data.len());
            }
            Response::new(full(count.to_string().into()))
        }
        "never-reads" => {
            let _unread = request.into_body();
            std::future::pending().await
        }
        other => panic!("no such test path: {other}"),
    };
    Ok(answer)
}

fn full(bytes: Bytes) -> UnsyncBoxBody<Bytes, Infallible> {
    Full::new(bytes).boxed_unsync()
}

fn streamed(
    pieces: impl futures_util::Stream<Item = Bytes> + Send + 'static,
    handling: Handling,
) -> UnsyncBoxBody<Bytes, Infallible> {
    let frames = pieces.map(move |piece| {
        let _while_streaming = &handling;
        Ok(Frame::data(piece))
    });
    StreamBody::new(frames).boxed_unsync()
}

/// A body of known length.
struct Zeros {
    left: usize,
    produced: Arc<AtomicUsize>,
}

impl Body for Zeros {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = self.left.min(65536);
        if piece == 0 {
            return Poll::Ready(None);
        }
        self.left -= piece;
        self.produced.fetch_add(piece, Ordering::SeqCst);
        Poll::Ready(Some(Ok(Frame::data(vec![0; piece].into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left as u64)
    }
}
