//! Peers that must not get through a handshake: no TLS, old TLS, wrong keys, wrong certificates, wrong clocks, silence.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::sign::CertifiedKey;
use starminer_tls::{AllowedPeers, Clock, HandshakeError, Leaf, Limits, PeerRefusal, Side, identity_certificate};
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What the server answers to raw bytes, and what it makes of them.
async fn send_raw(bytes: &'static [u8]) -> (Vec<u8>, HandshakeError) {
    let server = acceptor(1, &TestClock::at(START));
    let (listener, address) = listen().await;
    let client = async {
        let mut tcp = TcpStream::connect(address).await.unwrap();
        tcp.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        let _ = tcp.read_to_end(&mut answer).await;
        answer
    };
    let accepted = async { server.accept(listener.accept().await.unwrap().0).await };
    let (answer, accepted) = tokio::join!(client, accepted);
    (answer, accepted.unwrap_err())
}

/// A ClientHello as OpenSSL 1.0 sent it (RFC 5246): ECDHE with AES-GCM, no `supported_versions`.
const TLS_12_HELLO: &[u8] = b"\x16\x03\x01\x00\x5c\x01\x00\x00\x58\x03\x03\
    0123456789abcdef0123456789abcdef\x00\x00\x08\xc0\x2f\xc0\x30\xc0\x2b\xc0\x2c\x01\x00\x00\x27\
    \x00\x0a\x00\x06\x00\x04\x00\x1d\x00\x17\x00\x0b\x00\x02\x01\x00\
    \x00\x0d\x00\x0a\x00\x08\x04\x01\x04\x03\x08\x04\x08\x07\
    \xff\x01\x00\x01\x00\x00\x17\x00\x00";

#[tokio::test]
async fn a_tls_12_client_gets_a_protocol_version_alert() {
    let (answer, error) = send_raw(TLS_12_HELLO).await;
    assert_eq!(error.code(), "tls.version", "{error:?}");
    // One record: alert, two bytes, fatal (2), protocol_version (70). RFC 8446 section 6.2.
    assert_eq!((answer[0], &answer[3..]), (0x15, &[0, 2, 2, 70][..]), "{answer:02x?}");
}

#[tokio::test]
async fn plaintext_is_refused() {
    for bytes in [
        &b"GET / HTTP/1.1\r\nhost: coordinator\r\n\r\n"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        &[0xff; 64],
    ] {
        let (answer, error) = send_raw(bytes).await;
        assert_eq!(error.code(), "tls.not-tls", "{error:?}");
        assert!(answer.is_empty() || answer[0] == 0x15, "something other than an alert: {answer:02x?}");
    }
}

#[tokio::test]
async fn another_server_is_refused() {
    let clock = TestClock::at(START);
    let expected = identity(9).identity();
    let (server, client) = handshake(&acceptor(1, &clock), &connector(2, &clock), expected).await;
    let HandshakeError::Refused(refusal) = client.unwrap_err() else { panic!("not refused by identity") };
    assert_eq!(refusal, PeerRefusal::WrongIdentity { expected, found: identity(1).identity() });
    assert_eq!(server.unwrap_err().code(), "tls.refused-by-peer");
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let server = acceptor(1, &TestClock::at(START));
    let error = accept_rogue(&server, Rogue::default().client_config(None)).await.unwrap_err();
    assert_eq!(error.code(), "tls.peer.no-certificate", "{error:?}");
}

/// Chains around a true key that are wrong in one respect each, presented by a client and by a server.
#[tokio::test]
async fn wrong_chains_are_refused_at_both_ends() {
    let clock = TestClock::at(START);
    let (server, client) = (acceptor(1, &clock), connector(2, &clock));
    let hour = Duration::from_secs(3600);
    let issued = |seed, side, now| Leaf::issue(&identity(seed), side, now, hour).unwrap().certified_key();
    let check = async |present: &dyn Fn(Side) -> Arc<CertifiedKey>, code: &str| {
        let config = Rogue::default().client_config(Some(present(Side::Client)));
        let error = accept_rogue(&server, config).await.unwrap_err();
        assert_eq!(error.code(), code, "as client: {error:?}");
        let config = Rogue::default().server_config(present(Side::Server));
        let error = connect_rogue(&client, config, identity(5).identity()).await.unwrap_err();
        assert_eq!(error.code(), code, "as server: {error:?}");
    };

    // The leaf alone, without the identity that issued it.
    check(
        &|side| {
            let good = issued(5, side, START);
            with_chain(&good, good.cert[..1].to_vec())
        },
        "tls.peer.chain-length",
    )
    .await;
    // A self-signed certificate of an ephemeral key, as ordinary tools make it, alone and beside a true identity.
    let self_signed = |chain: fn(rustls::pki_types::CertificateDer<'static>) -> Vec<_>| {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let leaf = rcgen::CertificateParams::new(vec!["any.invalid".into()]).unwrap().self_signed(&key).unwrap();
        let signer = rustls::crypto::aws_lc_rs::sign::any_eddsa_type(&key.serialize_der().into()).unwrap();
        Arc::new(CertifiedKey::new(chain(leaf.into()), signer))
    };
    check(&|_| self_signed(|leaf| vec![leaf]), "tls.peer.chain-length").await;
    // rcgen's default validity runs to the year 4096, which is looked at before the signature.
    check(&|_| self_signed(|leaf| vec![leaf, identity_certificate(&identity(5))]), "tls.peer.leaf-too-long").await;
    // The leaf of identity 6 beside the identity certificate of 5: possession of a key of one's own proves nothing.
    check(
        &|side| {
            let theirs = issued(6, side, START);
            with_chain(&theirs, vec![theirs.cert[0].clone(), identity_certificate(&identity(5))])
        },
        "tls.peer.leaf-issuer",
    )
    .await;
    // The right leaf for the wrong end.
    check(&|side| issued(5, side.peer(), START), "tls.peer.leaf-usage").await;
    // An old leaf, and one from the future.
    check(&|side| issued(5, side, START - 3 * 3600), "tls.peer.leaf-expired").await;
    check(&|side| issued(5, side, START + 3600), "tls.peer.leaf-not-yet-valid").await;
}

/// A stolen chain without its key: the certificates are true, the signature over the handshake is not.
#[tokio::test]
async fn a_copied_chain_is_worthless() {
    let clock = TestClock::at(START);
    let theirs = certificate(5, Side::Client, START).current().certified_key();
    let own = certificate(6, Side::Client, START).current().certified_key();
    let stolen = with_chain(&own, theirs.cert.clone());
    let error = accept_rogue(&acceptor(1, &clock), Rogue::default().client_config(Some(stolen))).await.unwrap_err();
    assert_eq!(error.code(), "tls.protocol", "{error:?}");
    assert!(matches!(
        error,
        HandshakeError::Tls(rustls::Error::InvalidCertificate(rustls::CertificateError::BadSignature))
    ));
}

/// A party re-issues by its own clock before it dials or accepts, so that a jump shows only in the distance between
/// two clocks.
#[tokio::test]
async fn clock_jumps() {
    let day = 24 * 3600;
    let (server_clock, client_clock) = (TestClock::at(START), TestClock::at(START));
    let (server, client) = (acceptor(1, &server_clock), connector(2, &client_clock));
    for both in [START + 10 * day, START - 10 * day, START] {
        server_clock.set(both);
        client_clock.set(both);
        let (at_server, _client) = connected(&server, &client).await;
        assert_eq!(at_server.peer_identity(), identity(2).identity());
    }
    for apart in [299, 300] {
        client_clock.set(START + apart);
        connected(&server, &client).await;
        client_clock.set(START - apart);
        connected(&server, &client).await;
    }
    // The client judges first, so that it is the one that refuses.
    for (client_time, code) in [
        (START - 302, "tls.peer.leaf-not-yet-valid"),
        (START + day, "tls.peer.leaf-expired"),
        (0, "tls.peer.leaf-not-yet-valid"),
    ] {
        client_clock.set(client_time);
        let (at_server, at_client) = handshake(&server, &client, server.identity()).await;
        assert_eq!(at_client.unwrap_err().code(), code, "{client_time}");
        assert_eq!(at_server.unwrap_err().code(), "tls.refused-by-peer");
    }
    client_clock.set(u64::MAX);
    let (listener, address) = listen().await;
    let error = client.connect(address, server.identity()).await.unwrap_err();
    assert_eq!(error.code(), "tls.issue", "a clock that no certificate can hold is our own failure");
    drop(listener);
}

#[tokio::test]
async fn silent_and_dribbling_peers_are_cut_off() {
    let limits = Limits { handshake: Duration::from_millis(300), ..Limits::default() };
    let clock = TestClock::at(START);
    let server = acceptor(1, &clock).with_limits(limits);
    let (listener, address) = listen().await;

    let silent = TcpStream::connect(address).await.unwrap();
    let began = Instant::now();
    let error = server.accept(listener.accept().await.unwrap().0).await.unwrap_err();
    assert_eq!(error.code(), "tls.handshake-timeout");
    assert!((300..2000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    drop(silent);

    let mut dribbling = TcpStream::connect(address).await.unwrap();
    let dribble = async {
        for byte in TLS_12_HELLO {
            if dribbling.write_u8(*byte).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let accept = async { server.accept(listener.accept().await.unwrap().0).await.unwrap_err() };
    let error = tokio::select! { error = accept => error, () = dribble => panic!("the server waited for all of it") };
    assert_eq!(error.code(), "tls.handshake-timeout");

    let client = connector(2, &clock).with_limits(limits);
    let (client, _silent_server) = tokio::join!(client.connect(address, server.identity()), listener.accept());
    assert_eq!(client.unwrap_err().code(), "tls.handshake-timeout");
}

#[tokio::test]
async fn handshakes_under_way_are_bounded() {
    let clock = TestClock::at(START);
    let limits = Limits { concurrent_handshakes: 2, handshake: Duration::from_millis(500), ..Limits::default() };
    let server = Arc::new(acceptor(1, &clock).with_limits(limits));
    let (listener, address) = listen().await;
    let mut silent = Vec::new();
    let mut waiting = Vec::new();
    for _ in 0..2 {
        silent.push(TcpStream::connect(address).await.unwrap());
        let (server, tcp) = (server.clone(), listener.accept().await.unwrap().0);
        waiting.push(tokio::spawn(async move { server.accept(tcp).await.unwrap_err().code() }));
    }
    tokio::task::yield_now().await;
    silent.push(TcpStream::connect(address).await.unwrap());
    let began = Instant::now();
    let error = server.accept(listener.accept().await.unwrap().0).await.unwrap_err();
    assert_eq!(error.code(), "tls.overloaded");
    assert!(began.elapsed() < Duration::from_millis(400), "it waited for a place");
    for task in waiting {
        assert_eq!(task.await.unwrap(), "tls.handshake-timeout");
    }
    // The places are free again.
    connected(&server, &connector(2, &clock)).await;
}

#[tokio::test]
async fn nobody_at_the_address() {
    let (listener, address) = listen().await;
    drop(listener);
    let clock = TestClock::at(START);
    let error = connector(2, &clock).connect(address, identity(1).identity()).await.unwrap_err();
    assert_eq!(error.code(), "tls.connect");
}

/// What an observer and the peer may learn of a refusal: an alert number, never the reason.
#[tokio::test]
async fn refusals_keep_their_reason() {
    let clock = TestClock::at(START);
    let only = AllowedPeers::Only(Arc::new([identity(3).identity()].into()));
    let server = acceptor_for(1, only, &clock);
    assert_eq!(clock.unix_seconds(), START);
    let (refused, client) = handshake(&server, &connector(2, &clock), server.identity()).await;
    assert!(matches!(refused.unwrap_err(), HandshakeError::Refused(PeerRefusal::NotAdmitted { .. })));
    let error = HandshakeError::from_io(client.unwrap().read_u8().await.unwrap_err());
    assert!(
        matches!(error, HandshakeError::Alert(rustls::AlertDescription::CertificateUnknown)),
        "the alert tells more than it should: {error:?}"
    );
}
