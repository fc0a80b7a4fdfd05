//! Full mutual handshakes a second beside plain rustls (same suite and group, one self-signed certificate each, pinned
//! whole) in the same run: what the chain, its verification and rotation cost over the least that TLS can do.
//!
//! The first two are in memory on one core; the last goes over loopback with [`Acceptor`] and [`Connector`].

#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, DistinguishedName, NamedGroup, ServerConfig,
    ServerConnection, SignatureScheme,
};
use starminer_tls::{
    Acceptor, AllowedPeers, Clock, Connector, IdentityKey, RotatingCertificate, Rotation, Side, SystemClock,
    client_config, server_config,
};

/// Interleaved, so that both see the same machine; the best round of each counts.
const ROUNDS: usize = 8;

fn main() {
    // `cargo test --benches` only wants to know that it runs.
    let per_round = if std::env::args().any(|argument| argument == "--test") { 2 } else { 200 };
    let now = SystemClock.unix_seconds();
    let identity = || Arc::new(IdentityKey::generate().unwrap());
    let certificate = |side| Arc::new(RotatingCertificate::new(identity(), side, Rotation::default(), now).unwrap());
    let (servers, clients) = (certificate(Side::Server), certificate(Side::Client));
    let expected = servers.identity().identity();

    let ours_server = Arc::new(server_config(servers.clone(), AllowedPeers::Any, Arc::new(SystemClock)).unwrap());
    let ours_client = Arc::new(client_config(clients.clone(), expected, Arc::new(SystemClock)).unwrap());
    let (plain_server, plain_client) = plain_rustls();

    let (mut ours, mut plain) = (Duration::MAX, Duration::MAX);
    for _ in 0..ROUNDS {
        plain = plain.min(time(per_round, || in_memory(&plain_client, &plain_server)));
        ours = ours.min(time(per_round, || in_memory(&ours_client, &ours_server)));
    }
    let over_tcp = over_loopback(servers, clients, per_round * 2);

    println!("mutual TLS 1.3 handshake, X25519MLKEM768, Ed25519, AES-256-GCM");
    row("plain rustls, one pinned certificate each, in memory", plain);
    row("identity chain verified at both ends, in memory", ours);
    row("the same with Acceptor and Connector over loopback TCP", over_tcp);
    println!("ratio of time, chain to plain: {:.2}", ours.as_secs_f64() / plain.as_secs_f64());
}

fn row(what: &str, each: Duration) {
    println!("{what:<56} {:>8.1} us {:>8.0}/s", each.as_secs_f64() * 1e6, 1.0 / each.as_secs_f64());
}

fn time(count: usize, mut run: impl FnMut()) -> Duration {
    let began = Instant::now();
    (0..count).for_each(|_| run());
    began.elapsed() / count as u32
}

fn in_memory(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) {
    let name = ServerName::try_from("any.invalid").unwrap();
    let mut client = ClientConnection::new(client.clone(), name).unwrap();
    let mut server = ServerConnection::new(server.clone()).unwrap();
    let mut wire = Vec::with_capacity(1 << 14);
    while client.is_handshaking() || server.is_handshaking() {
        wire.clear();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut rest = &wire[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets().unwrap();
        }
        wire.clear();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut rest = &wire[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets().unwrap();
        }
    }
    assert_eq!(server.negotiated_key_exchange_group().unwrap().name(), NamedGroup::X25519MLKEM768);
    assert!(server.peer_certificates().is_some());
}

fn over_loopback(servers: Arc<RotatingCertificate>, clients: Arc<RotatingCertificate>, count: usize) -> Duration {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let acceptor = Arc::new(Acceptor::new(servers, AllowedPeers::Any, Arc::new(SystemClock)).unwrap());
        let connector = Connector::new(clients, Arc::new(SystemClock));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, expected) = (listener.local_addr().unwrap(), acceptor.identity());
        let server = tokio::spawn(async move {
            for _ in 0..count {
                let (tcp, _) = listener.accept().await.unwrap();
                acceptor.accept(tcp).await.unwrap();
            }
        });
        let began = Instant::now();
        for _ in 0..count {
            connector.connect(address, expected).await.unwrap();
        }
        server.await.unwrap();
        began.elapsed() / count as u32
    })
}

fn plain_rustls() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let provider = Arc::new(CryptoProvider {
        kx_groups: vec![kx_group::X25519MLKEM768, kx_group::X25519],
        cipher_suites: vec![cipher_suite::TLS13_AES_256_GCM_SHA384],
        ..aws_lc_rs::default_provider()
    });
    let (server_cert, server_key) = self_signed();
    let (client_cert, client_key) = self_signed();
    let pin = |cert: &CertificateDer<'static>| Arc::new(Pin(cert.clone(), provider.clone()));
    let mut server = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(pin(&client_cert))
        .with_single_cert(vec![server_cert.clone()], server_key)
        .unwrap();
    server.send_tls13_tickets = 0;
    let mut client = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(pin(&server_cert))
        .with_client_auth_cert(vec![client_cert], client_key)
        .unwrap();
    client.resumption = rustls::client::Resumption::disabled();
    (Arc::new(server), Arc::new(client))
}

fn self_signed() -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let params = rcgen::CertificateParams::new(vec!["any.invalid".into()]).unwrap();
    (params.self_signed(&key).unwrap().into(), PrivateKeyDer::Pkcs8(key.serialize_der().into()))
}

/// Accepts exactly one certificate, byte for byte.
#[derive(Debug)]
struct Pin(CertificateDer<'static>, Arc<CryptoProvider>);

impl Pin {
    fn compare(&self, cert: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        if *cert == self.0 { Ok(()) } else { Err(rustls::CertificateError::ApplicationVerificationFailure.into()) }
    }

    fn verify(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.1.signature_verification_algorithms)
    }
}

impl ServerCertVerifier for Pin {
    fn verify_server_cert(
        &self,
        cert: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.compare(cert).map(|()| ServerCertVerified::assertion())
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
        self.verify(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

impl ClientCertVerifier for Pin {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        cert: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.compare(cert).map(|()| ClientCertVerified::assertion())
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
        self.verify(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}
