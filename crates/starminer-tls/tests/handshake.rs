//! What two well-behaved parties get: proven identities, the hybrid group, equal and unique channel bindings.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use starminer_tls::{AllowedPeers, NamedGroup, ProofError, Side};
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn both_ends_know_each_other_and_the_channel() {
    let clock = TestClock::at(START);
    let (server, client) = (acceptor(1, &clock), connector(2, &clock));
    let (mut at_server, mut at_client) = connected(&server, &client).await;
    let (server_session, client_session) = (at_server.session(), at_client.session());

    assert_eq!(at_server.peer_identity(), identity(2).identity());
    assert_eq!(at_client.peer_identity(), identity(1).identity());
    assert_eq!(server_session.local_identity(), client_session.peer_identity());
    assert_eq!(client_session.local_identity(), server_session.peer_identity());
    assert_eq!(server_session.tls_key(), client_session.local_tls_key());
    assert_eq!(client_session.tls_key(), server_session.local_tls_key());
    assert_ne!(server_session.tls_key(), identity(2).public(), "the identity key was used as TLS key");
    assert_eq!((server_session.side(), client_session.side()), (Side::Server, Side::Client));
    assert_eq!(server_session.group(), NamedGroup::X25519MLKEM768);
    assert_eq!(client_session.group(), NamedGroup::X25519MLKEM768);
    assert_eq!(server_session.channel_binding(), client_session.channel_binding());

    at_client.write_all(b"ping").await.unwrap();
    at_client.flush().await.unwrap();
    let mut read = [0; 4];
    at_server.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"ping");
    at_server.write_all(b"pong").await.unwrap();
    at_server.shutdown().await.unwrap();
    let mut rest = Vec::new();
    at_client.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"pong");
    assert!(at_client.tcp().nodelay().unwrap() && at_server.tcp().nodelay().unwrap());
}

#[tokio::test]
async fn no_two_connections_share_a_binding() {
    let clock = TestClock::at(START);
    let (server, client) = (acceptor(1, &clock), connector(2, &clock));
    let mut seen = BTreeSet::new();
    for _ in 0..20 {
        let (at_server, at_client) = connected(&server, &client).await;
        assert_eq!(at_server.session().channel_binding(), at_client.session().channel_binding());
        assert!(seen.insert(at_client.session().channel_binding()), "a channel binding came twice");
    }
}

#[tokio::test]
async fn a_proof_holds_on_its_own_connection_only() {
    let clock = TestClock::at(START);
    let (server, client, stranger) = (acceptor(1, &clock), connector(2, &clock), connector(3, &clock));
    let (at_server, at_client) = connected(&server, &client).await;
    let proof = at_client.session().prove(&identity(2)).unwrap();
    assert_eq!(at_server.session().verify_peer(&proof), Ok(()));
    assert_eq!(at_client.session().prove(&identity(3)), Err(ProofError::NotTheProver));
    // Reflected to the one who made it, as if it were the other end's.
    assert_eq!(at_client.session().verify_peer(&proof), Err(ProofError::Invalid));
    let servers = at_server.session().prove(&identity(1)).unwrap();
    assert_eq!(at_client.session().verify_peer(&servers), Ok(()));
    assert_eq!(at_server.session().verify_peer(&servers), Err(ProofError::Invalid));

    // Replayed by the same client on another connection, and by another client on its own.
    let (again, _client) = connected(&server, &client).await;
    assert_eq!(again.session().verify_peer(&proof), Err(ProofError::Invalid));
    let (strangers, _client) = connected(&server, &stranger).await;
    assert_eq!(strangers.session().verify_peer(&proof), Err(ProofError::Invalid));
}

#[tokio::test]
async fn a_list_admits_those_on_it() {
    let clock = TestClock::at(START);
    let only = AllowedPeers::Only(Arc::new(BTreeSet::from([identity(2).identity(), identity(4).identity()])));
    let server = acceptor_for(1, only, &clock);
    let (at_server, _client) = connected(&server, &connector(2, &clock)).await;
    assert_eq!(at_server.peer_identity(), identity(2).identity());
    let (refused, client) = handshake(&server, &connector(3, &clock), server.identity()).await;
    assert_eq!(refused.unwrap_err().code(), "tls.peer.not-admitted");
    assert_eq!(late_refusal(client).await, "tls.refused-by-peer");
}

#[tokio::test]
async fn a_classical_client_is_still_accepted() {
    let clock = TestClock::at(START);
    let server = acceptor(1, &clock);
    let mut rogue = Rogue::default();
    rogue.provider.kx_groups = vec![kx_group::X25519];
    let own = certificate(2, Side::Client, START).current().certified_key();
    let accepted = accept_rogue(&server, rogue.client_config(Some(own))).await.unwrap();
    assert_eq!(accepted.session().group(), NamedGroup::X25519);
    assert_eq!(accepted.peer_identity(), identity(2).identity());
}

#[tokio::test]
async fn anything_else_is_not_negotiated() {
    let clock = TestClock::at(START);
    let server = acceptor(1, &clock);
    let check = async |change: fn(&mut Rogue), code: &str| {
        let mut rogue = Rogue::default();
        change(&mut rogue);
        let own = certificate(2, Side::Client, START).current().certified_key();
        let error = accept_rogue(&server, rogue.client_config(Some(own))).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
    };
    check(|rogue| rogue.provider.kx_groups = vec![kx_group::SECP256R1, kx_group::SECP384R1], "tls.incompatible").await;
    check(
        |rogue| {
            rogue.provider.cipher_suites =
                vec![cipher_suite::TLS13_AES_128_GCM_SHA256, cipher_suite::TLS13_CHACHA20_POLY1305_SHA256];
        },
        "tls.incompatible",
    )
    .await;
    check(|rogue| rogue.alpn = vec![], "tls.alpn").await;
    check(|rogue| rogue.alpn = vec![b"http/1.1".to_vec()], "tls.alpn").await;
}

/// Nothing of a session is kept, so that a client that resumes wherever it can still never does.
#[tokio::test]
async fn nothing_is_resumed() {
    let clock = TestClock::at(START);
    let server = acceptor(1, &clock);
    let own = certificate(2, Side::Client, START).current().certified_key();
    let mut eager = Rogue { provider: aws_lc_rs::default_provider(), ..Rogue::default() }.client_config(Some(own));
    eager.enable_early_data = true;
    for _ in 0..3 {
        let (listener, address) = listen().await;
        let config = Arc::new(eager.clone());
        let client = async move {
            let tcp = tokio::net::TcpStream::connect(address).await.unwrap();
            let name = rustls::pki_types::ServerName::try_from("any.invalid").unwrap();
            let mut stream = tokio_rustls::TlsConnector::from(config).connect(name, tcp).await.unwrap();
            // Reads whatever the server sends after its handshake: a ticket would come here.
            assert_eq!(stream.read_u8().await.unwrap(), b'!');
            stream.get_ref().1.handshake_kind()
        };
        let server = async {
            let mut connection = server.accept(listener.accept().await.unwrap().0).await.unwrap();
            connection.write_all(b"!").await.unwrap();
            connection.flush().await.unwrap();
            connection
        };
        let (kind, _connection) = tokio::join!(client, server);
        assert_eq!(kind, Some(rustls::HandshakeKind::Full));
    }
}
