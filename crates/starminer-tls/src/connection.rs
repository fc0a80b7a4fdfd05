//! Handshakes over TCP with bounded time and number, and the connections that come of them.
//!
//! It does not listen, retry, pool or speak HTTP: the coordinator and the client transport do. Spec: `specs/tls.md`.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rustls::pki_types::{DnsName, ServerName};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, CommonState, NamedGroup, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, ToSocketAddrs};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::binding::{CHANNEL_BINDING_LABEL, ChannelBinding, ChannelBindingProof, ProofError, Statement};
use crate::certificate::{Leaf, Side};
use crate::clock::Clock;
use crate::config::{ALPN_H2, AllowedPeers, client_config, server_config};
use crate::error::HandshakeError;
use crate::identity::{IdentityKey, PeerIdentity};
use crate::rotation::{RotatingCertificate, RotationTask};
use crate::verify::read_verified_chain;

/// How long a TCP connection may take to come about.
pub const TCP_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a handshake may take, from the first byte to the last. Generous, for slow links; the number of
/// handshakes is bounded too.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(8);
/// How many handshakes a server has under way at most. About 64 KiB each: rustls bounds a handshake message.
pub const MAX_CONCURRENT_HANDSHAKES: usize = 512;
/// How long a server waits for a refused peer to close, so that the peer learns of the refusal.
const LINGER: Duration = Duration::from_millis(500);
/// How many reads of 1 KiB of a refused peer's bytes it throws away at most.
const MAX_LINGER_READS: usize = 64;
/// rustls wants a server name; it is neither sent nor checked.
const NO_NAME: &str = "starminer.invalid";

/// The bounds of handshakes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For a TCP connection to come about (clients).
    pub tcp_connect: Duration,
    /// For a handshake to finish.
    pub handshake: Duration,
    /// Handshakes under way at a time (servers).
    pub concurrent_handshakes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            tcp_connect: TCP_CONNECT_TIMEOUT,
            handshake: HANDSHAKE_TIMEOUT,
            concurrent_handshakes: MAX_CONCURRENT_HANDSHAKES,
        }
    }
}

/// The server's end: turns accepted TCP streams into [`Connection`]s. Share it by `Arc`.
#[derive(Debug)]
pub struct Acceptor {
    config: ServerConfig,
    certificate: Arc<RotatingCertificate>,
    clock: Arc<dyn Clock>,
    limits: Limits,
    slots: Semaphore,
}

impl Acceptor {
    /// A server that presents `certificate` (of [`Side::Server`]) and completes handshakes with `clients`.
    pub fn new(
        certificate: Arc<RotatingCertificate>,
        clients: AllowedPeers,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, HandshakeError> {
        let config = server_config(certificate.clone(), clients, clock.clone())?;
        let limits = Limits::default();
        Ok(Self { config, certificate, clock, limits, slots: Semaphore::new(limits.concurrent_handshakes) })
    }

    /// With other bounds than the default ones.
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, slots: Semaphore::new(limits.concurrent_handshakes), ..self }
    }

    /// Performs the server's handshake. Call it in a task per stream, never in the accept loop: a peer may take all
    /// of [`Limits::handshake`]. When too many are under way, it fails at once.
    pub async fn accept(&self, tcp: TcpStream) -> Result<Connection, HandshakeError> {
        let _slot =
            self.slots.try_acquire().map_err(|_| HandshakeError::Overloaded(self.limits.concurrent_handshakes))?;
        tcp.set_nodelay(true).map_err(HandshakeError::Closed)?;
        let leaf = self.certificate.leaf(self.clock.unix_seconds()).map_err(HandshakeError::Issue)?;
        // Pinned to one leaf, so that the connection knows which TLS key it presented.
        let mut config = self.config.clone();
        config.cert_resolver = Arc::new(SingleCertAndKey::from(leaf.certified_key()));

        let handshake = TlsAcceptor::from(Arc::new(config)).accept(tcp).into_fallible();
        let handshaken = timeout(self.limits.handshake, handshake)
            .await
            .map_err(|_| HandshakeError::Timeout(self.limits.handshake))?;
        match handshaken {
            Ok(stream) => Connection::new(TlsStream::Server(stream), Side::Server, &self.certificate, &leaf),
            Err((error, tcp)) => {
                linger(tcp).await;
                Err(HandshakeError::from_io(error))
            }
        }
    }

    /// After this time the HTTP layer drains a connection gracefully.
    pub fn max_connection_age(&self) -> Duration {
        self.certificate.rotation().max_connection_age()
    }

    /// Starts the rotation of this end's leaf; it ends with the returned handle. Call within a tokio runtime.
    pub fn spawn_rotation(&self) -> RotationTask {
        self.certificate.spawn_rotation(self.clock.clone())
    }

    /// The identity that this server proves.
    pub fn identity(&self) -> PeerIdentity {
        self.certificate.identity().identity()
    }
}

/// Reads what a refused peer has sent already, so that closing does not reset the connection: a reset would make the
/// peer's system throw away the alert that says why.
async fn linger(mut tcp: TcpStream) {
    let drain = async {
        tcp.shutdown().await?;
        let mut discarded = [0; 1024];
        for _ in 0..MAX_LINGER_READS {
            if tcp.read(&mut discarded).await? == 0 {
                break;
            }
        }
        io::Result::Ok(())
    };
    // Whatever happens here, the refusal stands.
    let _ = timeout(LINGER, drain).await;
}

/// The client's end: dials servers whose identity is known beforehand. Share it by `Arc`.
#[derive(Debug)]
pub struct Connector {
    certificate: Arc<RotatingCertificate>,
    clock: Arc<dyn Clock>,
    limits: Limits,
}

impl Connector {
    /// A client that presents `certificate` (of [`Side::Client`]).
    pub fn new(certificate: Arc<RotatingCertificate>, clock: Arc<dyn Clock>) -> Self {
        Self { certificate, clock, limits: Limits::default() }
    }

    /// With other bounds than the default ones.
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Dials `address` and completes the handshake only with `expected`. A server that refuses *this* end says so
    /// after the client's handshake is over: that shows on the first read, see [`HandshakeError::from_io`].
    pub async fn connect(
        &self,
        address: impl ToSocketAddrs,
        expected: PeerIdentity,
    ) -> Result<Connection, HandshakeError> {
        let tcp = timeout(self.limits.tcp_connect, TcpStream::connect(address))
            .await
            .map_err(|_| HandshakeError::ConnectTimeout(self.limits.tcp_connect))?
            .map_err(HandshakeError::Connect)?;
        self.handshake(tcp, expected).await
    }

    /// Completes the handshake over a TCP stream that exists already.
    pub async fn handshake(&self, tcp: TcpStream, expected: PeerIdentity) -> Result<Connection, HandshakeError> {
        tcp.set_nodelay(true).map_err(HandshakeError::Closed)?;
        let leaf = self.certificate.leaf(self.clock.unix_seconds()).map_err(HandshakeError::Issue)?;
        let mut config: ClientConfig = client_config(self.certificate.clone(), expected, self.clock.clone())?;
        config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(leaf.certified_key()));
        let name = ServerName::DnsName(DnsName::try_from(NO_NAME).expect("the constant is a DNS name"));

        let handshake = TlsConnector::from(Arc::new(config)).connect(name, tcp);
        let stream = timeout(self.limits.handshake, handshake)
            .await
            .map_err(|_| HandshakeError::Timeout(self.limits.handshake))?
            .map_err(HandshakeError::from_io)?;
        Connection::new(TlsStream::Client(stream), Side::Client, &self.certificate, &leaf)
    }

    /// After this time the HTTP layer starts no more requests on a connection.
    pub fn max_connection_age(&self) -> Duration {
        self.certificate.rotation().max_connection_age()
    }

    /// Starts the rotation of this end's leaf; it ends with the returned handle. Call within a tokio runtime.
    pub fn spawn_rotation(&self) -> RotationTask {
        self.certificate.spawn_rotation(self.clock.clone())
    }

    /// The identity that this client proves.
    pub fn identity(&self) -> PeerIdentity {
        self.certificate.identity().identity()
    }

    /// The key behind that identity, for channel-binding proofs.
    pub fn identity_key(&self) -> &Arc<IdentityKey> {
        self.certificate.identity()
    }
}

/// What a finished handshake established. It outlives the stream, so that an HTTP layer may hand it to its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    side: Side,
    local: PeerIdentity,
    local_tls_key: [u8; 32],
    peer: PeerIdentity,
    peer_tls_key: [u8; 32],
    group: NamedGroup,
    binding: ChannelBinding,
    established: Instant,
}

impl Session {
    /// Which end this is.
    pub fn side(&self) -> Side {
        self.side
    }

    /// The identity proven by this end.
    pub fn local_identity(&self) -> PeerIdentity {
        self.local
    }

    /// The ephemeral TLS key (Ed25519, 32 bytes) that this end used.
    pub fn local_tls_key(&self) -> [u8; 32] {
        self.local_tls_key
    }

    /// The identity proven by the other end.
    pub fn peer_identity(&self) -> PeerIdentity {
        self.peer
    }

    /// The ephemeral TLS key (Ed25519, 32 bytes) that the other end used.
    pub fn tls_key(&self) -> [u8; 32] {
        self.peer_tls_key
    }

    /// The key exchange: [`NamedGroup::X25519MLKEM768`] unless the peer has none.
    pub fn group(&self) -> NamedGroup {
        self.group
    }

    /// `tls-exporter` of RFC 9266: the same at both ends, and on no other connection.
    pub fn channel_binding(&self) -> ChannelBinding {
        self.binding
    }

    /// How long ago the handshake finished (monotonic).
    pub fn age(&self) -> Duration {
        self.established.elapsed()
    }

    /// What `prover` signs to bind a session to this connection.
    pub fn statement(&self, prover: Side) -> Statement {
        let (client, server) = match self.side {
            Side::Client => (self.local, self.peer),
            Side::Server => (self.peer, self.local),
        };
        Statement { prover, client, server, binding: self.binding }
    }

    /// This end's proof, signed with its identity key.
    pub fn prove(&self, key: &IdentityKey) -> Result<ChannelBindingProof, ProofError> {
        ChannelBindingProof::prove(&self.statement(self.side), key)
    }

    /// Verifies the other end's proof.
    pub fn verify_peer(&self, proof: &ChannelBindingProof) -> Result<(), ProofError> {
        proof.verify(&self.statement(self.side.peer()))
    }
}

/// An encrypted stream between two proven identities.
pub struct Connection {
    stream: TlsStream<TcpStream>,
    session: Session,
}

impl Connection {
    fn new(
        stream: TlsStream<TcpStream>,
        side: Side,
        certificate: &RotatingCertificate,
        leaf: &Leaf,
    ) -> Result<Self, HandshakeError> {
        let state = stream.get_ref().1;
        if state.alpn_protocol() != Some(ALPN_H2) {
            return Err(HandshakeError::Alpn);
        }
        let chain = state.peer_certificates().ok_or(HandshakeError::NoCertificate)?;
        let (peer, peer_tls_key) = read_verified_chain(chain).map_err(HandshakeError::Refused)?;
        let session = Session {
            side,
            local: certificate.identity().identity(),
            local_tls_key: leaf.tls_key(),
            peer,
            peer_tls_key,
            group: group_of(state)?,
            binding: export_binding(&stream)?,
            established: Instant::now(),
        };
        Ok(Self { stream, session })
    }

    /// What the handshake established.
    pub fn session(&self) -> Session {
        self.session
    }

    /// The identity proven by the other end.
    pub fn peer_identity(&self) -> PeerIdentity {
        self.session.peer
    }

    /// The TCP stream under the encryption, for its addresses.
    pub fn tcp(&self) -> &TcpStream {
        self.stream.get_ref().0
    }
}

fn group_of(state: &CommonState) -> Result<NamedGroup, HandshakeError> {
    let group = state.negotiated_key_exchange_group().ok_or(rustls::Error::HandshakeNotComplete)?;
    Ok(group.name())
}

fn export_binding(stream: &TlsStream<TcpStream>) -> Result<ChannelBinding, HandshakeError> {
    let (output, context) = ([0; 32], Some(&[][..]));
    let exported = match stream {
        TlsStream::Client(client) => client.get_ref().1.export_keying_material(output, CHANNEL_BINDING_LABEL, context),
        TlsStream::Server(server) => server.get_ref().1.export_keying_material(output, CHANNEL_BINDING_LABEL, context),
    };
    Ok(ChannelBinding(exported?))
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connection").field(&self.session).finish()
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
