//! Parties on loopback, with clocks that the tests move, and peers that do not play by the rules.

#![allow(dead_code, clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme};
use starminer_tls::{
    Acceptor, AllowedPeers, Clock, Connection, Connector, HandshakeError, IdentityKey, PeerIdentity,
    RotatingCertificate, Rotation, Side,
};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

pub const START: u64 = 1_800_000_000;

/// A clock that shows what the test says.
#[derive(Debug)]
pub struct TestClock(AtomicU64);

impl TestClock {
    pub fn at(unix_seconds: u64) -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(unix_seconds)))
    }

    pub fn set(&self, unix_seconds: u64) {
        self.0.store(unix_seconds, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn unix_seconds(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

pub fn identity(seed: u8) -> Arc<IdentityKey> {
    Arc::new(IdentityKey::from_seed(&[seed; 32]).unwrap())
}

pub fn certificate(seed: u8, side: Side, now: u64) -> Arc<RotatingCertificate> {
    Arc::new(RotatingCertificate::new(identity(seed), side, Rotation::default(), now).unwrap())
}

pub fn acceptor(seed: u8, clock: &Arc<TestClock>) -> Acceptor {
    acceptor_for(seed, AllowedPeers::Any, clock)
}

pub fn acceptor_for(seed: u8, clients: AllowedPeers, clock: &Arc<TestClock>) -> Acceptor {
    Acceptor::new(certificate(seed, Side::Server, clock.unix_seconds()), clients, clock.clone()).unwrap()
}

pub fn connector(seed: u8, clock: &Arc<TestClock>) -> Connector {
    Connector::new(certificate(seed, Side::Client, clock.unix_seconds()), clock.clone())
}

pub async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Both ends of one handshake: the server's result, the client's result.
pub async fn handshake(
    acceptor: &Acceptor,
    connector: &Connector,
    expected: PeerIdentity,
) -> (Result<Connection, HandshakeError>, Result<Connection, HandshakeError>) {
    let (listener, address) = listen().await;
    let server = async { acceptor.accept(listener.accept().await.unwrap().0).await };
    tokio::join!(server, connector.connect(address, expected))
}

/// As `handshake`, where both must succeed.
pub async fn connected(acceptor: &Acceptor, connector: &Connector) -> (Connection, Connection) {
    let (server, client) = handshake(acceptor, connector, acceptor.identity()).await;
    (server.unwrap(), client.unwrap())
}

/// The stable code of what a client sees when the server refuses it after the client's own handshake is over.
pub async fn late_refusal(client: Result<Connection, HandshakeError>) -> &'static str {
    match client {
        Ok(mut connection) => match connection.read_u8().await {
            Ok(_) => "no refusal",
            Err(error) => HandshakeError::from_io(error).code(),
        },
        Err(error) => error.code(),
    }
}

/// A client or server that the crate would never make.
pub struct Rogue {
    pub provider: CryptoProvider,
    pub alpn: Vec<Vec<u8>>,
}

impl Default for Rogue {
    fn default() -> Self {
        Self { provider: aws_lc_rs::default_provider(), alpn: vec![b"h2".to_vec()] }
    }
}

impl Rogue {
    /// A client that trusts everybody and presents `certified`, if any. Returns its end after the server judged it.
    pub fn client_config(self, certified: Option<Arc<CertifiedKey>>) -> ClientConfig {
        let verifier = Arc::new(TrustAnyone(self.provider.clone().into()));
        let builder = ClientConfig::builder_with_provider(self.provider.into())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match certified {
            Some(certified) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified))),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = self.alpn;
        config
    }

    /// A server that presents `certified` and asks for nothing.
    pub fn server_config(self, certified: Arc<CertifiedKey>) -> ServerConfig {
        let mut config = ServerConfig::builder_with_provider(self.provider.into())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.alpn_protocols = self.alpn;
        config
    }
}

/// What `acceptor` makes of a rogue client.
pub async fn accept_rogue(acceptor: &Acceptor, config: ClientConfig) -> Result<Connection, HandshakeError> {
    let (listener, address) = listen().await;
    let client = tokio::spawn(async move {
        let tcp = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("any.invalid").unwrap();
        if let Ok(mut stream) = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await {
            // Stays until the server has judged.
            let _ = stream.read_u8().await;
        }
    });
    let accepted = acceptor.accept(listener.accept().await.unwrap().0).await;
    if accepted.is_err() {
        client.await.unwrap();
    }
    accepted
}

/// What `connector` makes of a rogue server.
pub async fn connect_rogue(
    connector: &Connector,
    config: ServerConfig,
    expected: PeerIdentity,
) -> Result<Connection, HandshakeError> {
    let (listener, address) = listen().await;
    let server = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        tokio_rustls::TlsAcceptor::from(Arc::new(config)).accept(tcp).await.is_ok()
    });
    let connected = connector.connect(address, expected).await;
    server.await.unwrap();
    connected
}

/// The chain of a good certificate with another chain in its place: the key still fits the first certificate.
pub fn with_chain(certified: &CertifiedKey, chain: Vec<CertificateDer<'static>>) -> Arc<CertifiedKey> {
    Arc::new(CertifiedKey::new(chain, certified.key.clone()))
}

#[derive(Debug)]
struct TrustAnyone(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustAnyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
