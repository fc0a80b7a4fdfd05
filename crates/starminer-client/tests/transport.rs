//! The transport against a real HTTP/2 server over our own TLS: pooling, dying and ageing connections, bounds.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{Method, StatusCode};
use starminer_client::{CHANNEL_BINDING_HEADER, ClientError, RequestBody, TransportError, TransportLimits};
use starminer_tls::{AllowedPeers, NamedGroup, Rotation, Session};
use starminer_verify::Party;
use support::*;
use tokio::sync::mpsc;

const SECOND: Duration = Duration::from_secs(1);
const PATIENT: Duration = Duration::from_secs(20);
const MIB: usize = 1 << 20;

#[tokio::test]
async fn requests_know_their_connection() {
    let server = Server::start().await;
    let transport = server.client(2);
    assert!(transport.current_session().is_none());
    let body = RequestBody::Json(Bytes::from_static(br#"{"hello":"there"}"#));
    let headers = [(hyper::header::ACCEPT, hyper::header::HeaderValue::from_static("application/json"))];
    let response = transport.request(Method::POST, "/echo?x=1", &headers, body, PATIENT).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "application/json");
    let session = *response.extensions().get::<Session>().unwrap();
    assert_eq!(Some(session), transport.current_session());
    assert_eq!(session.peer_identity(), transport.server());
    assert_eq!(session.group(), NamedGroup::X25519MLKEM768);
    let echoed: serde_json::Value = transport.read_json_limited(response, 1000, PATIENT).await.unwrap();
    assert_eq!(echoed, serde_json::json!({"hello": "there"}));

    let seen = server.seen();
    assert_eq!(seen[0].path, "/echo?x=1");
    assert_eq!(seen[0].authority, transport.server().to_string());
    assert_eq!(seen[0].session.channel_binding(), session.channel_binding());
    // The proof in the header holds for the server's own end of this very connection.
    let proof = seen[0].headers[CHANNEL_BINDING_HEADER].to_str().unwrap().parse().unwrap();
    assert_eq!(seen[0].session.verify_peer(&proof), Ok(()));
    assert_eq!(transport.session().await.unwrap().channel_binding(), session.channel_binding());
}

#[tokio::test]
async fn statuses_are_no_errors_and_odd_paths_are() {
    let server = Server::start().await;
    let transport = server.client(2);
    let response = transport.request(Method::GET, "/status/418", &[], RequestBody::Empty, PATIENT).await.unwrap();
    assert_eq!(response.status(), StatusCode::IM_A_TEAPOT);
    for path in ["", "status", "https://elsewhere/", "/a b", "/\n", "//\u{fffd} x"] {
        let error = transport.request(Method::GET, path, &[], RequestBody::Empty, PATIENT).await.unwrap_err();
        assert_eq!(error.code(), "transport.invalid-path", "{path:?}");
    }
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_shares_one_connection_and_a_flood_a_few() {
    let server = Server::start().await;
    let transport = server.client(2);
    let burst = (0..60).map(|_| get(&transport, "/after/1000"));
    for answer in futures_util::future::join_all(burst).await {
        answer.unwrap();
    }
    assert_eq!(server.connections(), 1);
    assert!(server.most_at_once() >= 50, "{} at once: not multiplexed", server.most_at_once());

    let limits = TransportLimits { connections: 3, streams_per_connection: 4, ..TransportLimits::default() };
    let narrow = server.client_with(3, limits);
    server.most_at_once.store(0, Ordering::SeqCst);
    let flood = (0..40).map(|_| get(&narrow, "/after/300"));
    for answer in futures_util::future::join_all(flood).await {
        answer.unwrap();
    }
    assert_eq!(server.connections(), 4, "one of before and three of now");
    assert_eq!(server.most_at_once(), 12, "three connections of four requests each");
}

#[tokio::test]
async fn a_dead_connection_is_replaced() {
    let server = Server::start().await;
    let transport = server.client(2);
    let mut bindings = BTreeSet::new();
    for _ in 0..5 {
        let answer = get(&transport, "/status/200").await.unwrap();
        assert!(bindings.insert(answer.extensions().get::<Session>().unwrap().channel_binding()));
        drop(answer);
        server.kill_connections();
    }
    assert_eq!(server.connections(), 5);
}

#[tokio::test]
async fn a_restart_is_bridged() {
    let server = Server::start().await;
    let transport = server.client(2);
    get(&transport, "/status/200").await.unwrap();
    let address = server.stop().await;
    let restart = async {
        tokio::time::sleep(SECOND).await;
        Server::at(address, 1, AllowedPeers::Any, Rotation::default()).await
    };
    let (answer, server) = tokio::join!(get(&transport, "/status/200"), restart);
    answer.unwrap();
    assert_eq!(server.seen().len(), 1);
}

/// What may have been processed is sent again only if HTTP says that twice is the same as once.
#[tokio::test]
async fn only_idempotent_requests_are_repeated() {
    let check = async |method: Method, body: RequestBody, sends: usize| {
        let server = Server::start().await;
        let transport = server.client(2);
        let kill = async {
            while server.seen().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            server.kill_connections();
        };
        // The server answers the first such request never, the second at once.
        let request = transport.request(method.clone(), "/first-hangs", &[], body, PATIENT);
        let (answer, ()) = tokio::join!(request, kill);
        assert_eq!(server.seen().len(), sends, "{method}");
        match sends {
            1 => assert_eq!(answer.unwrap_err().code(), "transport.broken", "{method}"),
            _ => assert_eq!(answer.unwrap().status(), StatusCode::OK, "{method}"),
        }
        // Either way the transport is usable.
        get(&transport, "/status/200").await.unwrap();
    };
    let bytes = || RequestBody::Bytes(Bytes::from_static(b"the same again"));
    check(Method::GET, RequestBody::Empty, 2).await;
    check(Method::PUT, bytes(), 2).await;
    check(Method::POST, bytes(), 1).await;
    let (sender, receiver) = mpsc::channel(1);
    check(Method::PUT, RequestBody::Stream(receiver), 1).await;
    drop(sender);
}

#[tokio::test]
async fn a_drain_by_the_server_loses_nothing() {
    let server = Server::start().await;
    let transport = server.client(2);
    let under_way = get(&transport, "/after/600");
    let drain = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        server.drain_connections();
        tokio::time::sleep(Duration::from_millis(100)).await;
        get(&transport, "/status/200").await.unwrap();
    };
    let (answer, ()) = tokio::join!(under_way, drain);
    assert_eq!(answer.unwrap().status(), StatusCode::OK);
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn old_connections_run_dry() {
    let server = Server::start().await;
    let rotation = Rotation::new(SECOND, 3 * SECOND, SECOND).unwrap();
    let transport = server.client_rotating(2, rotation, TransportLimits::default());
    // Thirty pieces, one each 100 ms: three times as long as a connection may take new requests.
    let slow = transport.request(Method::GET, "/pieces/30/100", &[], RequestBody::Empty, PATIENT).await.unwrap();
    let first = *slow.extensions().get::<Session>().unwrap();
    let body = tokio::spawn(async move { slow.into_body().collect().await.unwrap().to_bytes() });
    tokio::time::sleep(Duration::from_millis(1300)).await;
    let answer = get(&transport, "/status/200").await.unwrap();
    let second = *answer.extensions().get::<Session>().unwrap();
    assert_ne!(first.channel_binding(), second.channel_binding(), "an old connection took a new request");
    assert_ne!(first.local_tls_key(), second.local_tls_key(), "the new connection has the old leaf");
    assert_eq!(body.await.unwrap().len(), 30, "the old connection was cut");
    // Nobody uses the first one any more: it is closed, though the transport lives on.
    let began = Instant::now();
    while server.open() > 1 {
        assert!(began.elapsed() < PATIENT, "{} connections open", server.open());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_said_so_in_time() {
    let server = Server::start().await;
    let limits = TransportLimits { connect_patience: SECOND, ..TransportLimits::default() };
    let transport = server.client_with(2, limits);
    server.stop().await;
    let began = Instant::now();
    let error = get(&transport, "/status/200").await.unwrap_err();
    assert_eq!(error.code(), "tls.connect", "{error}");
    assert!(error.is_transient());
    assert!((900..3000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    // Also when the request's own time is shorter than the patience: the reason, not "no answer".
    let short = transport.request(Method::GET, "/", &[], RequestBody::Empty, SECOND / 4).await.unwrap_err();
    assert_eq!(short.code(), "tls.connect", "{short}");
}

/// A listener that hangs up at once: the attempts become rarer.
#[tokio::test]
async fn attempts_to_connect_back_off() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let limits = TransportLimits { connect_patience: 3 * SECOND, ..TransportLimits::default() };
    let transport = client_of(listener.local_addr().unwrap(), 1, 2, Rotation::default(), limits);
    let hang_up = async {
        let mut dials = 0;
        loop {
            drop(listener.accept().await.unwrap());
            dials += 1;
            if dials > 20 {
                return;
            }
        }
    };
    // Twenty requests at once wait for the same attempts.
    let requests = futures_util::future::join_all((0..20).map(|_| get(&transport, "/")));
    tokio::select! {
        answers = requests => for answer in answers {
            let error = answer.unwrap_err();
            assert!(error.is_transient() && error.code().starts_with("tls."), "{error}");
        },
        () = hang_up => panic!("the listener was hammered"),
    }
}

#[tokio::test]
async fn the_wrong_server_is_final() {
    let server = Server::start().await;
    let transport = client_of(server.address, 9, 2, Rotation::default(), TransportLimits::default());
    let began = Instant::now();
    let error = get(&transport, "/").await.unwrap_err();
    assert_eq!(error.code(), "tls.peer.wrong-identity");
    assert!(!error.is_transient());
    assert!(began.elapsed() < PATIENT / 2, "it was tried again");

    // What users of the API see: who answered, that nothing was sent, which lines of the trust file to compare.
    let error = ClientError::from(error);
    assert!(matches!(error, ClientError::WrongPeer { .. }) && !error.is_transient(), "{error:?}");
    let refusal = error.refusal();
    assert_eq!((refusal.check(), refusal.party()), ("tls.peer.wrong-identity", Party::Network));
    for part in [server.address.to_string(), identity(1).identity().to_string(), identity(9).identity().to_string()] {
        assert!(refusal.reason().contains(&part), "{part} is missing: {}", refusal.reason());
    }
    assert!(refusal.remedy().contains("coordinator.key of network.toml"));
}

#[tokio::test]
async fn a_server_that_does_not_admit_us_says_so() {
    let only = AllowedPeers::Only(Arc::new(BTreeSet::from([identity(3).identity()])));
    let server = Server::at(any_port(), 1, only, Rotation::default()).await;
    get(&server.client(3), "/status/200").await.unwrap();
    let began = Instant::now();
    let error = get(&server.client(2), "/status/200").await.unwrap_err();
    assert_eq!(error.code(), "tls.refused-by-peer", "{error:?}");
    assert!(!error.is_transient());
    assert!(began.elapsed() < PATIENT / 2, "it was tried again");

    let error = ClientError::from(error);
    assert!(matches!(error, ClientError::NotAdmitted { .. }) && !error.is_transient(), "{error:?}");
    let refusal = error.refusal();
    assert_eq!((refusal.check(), refusal.party()), ("tls.refused-by-peer", Party::Coordinator));
    assert!(refusal.reason().contains(&server.address.to_string()) && refusal.remedy().contains("clock"));
}

#[tokio::test]
async fn silence_is_bounded_and_costs_only_its_own_stream() {
    let server = Server::start().await;
    let limits = TransportLimits { body_idle: SECOND / 2, ..TransportLimits::default() };
    let transport = server.client_with(2, limits);
    let began = Instant::now();
    let error = transport.request(Method::POST, "/hangs", &[], RequestBody::Empty, SECOND / 2).await.unwrap_err();
    assert_eq!(error.code(), "transport.timeout");
    assert!(began.elapsed() < 2 * SECOND);

    let stalled = get(&transport, "/stalls").await.unwrap();
    let error = transport.read_limited(stalled, 100, PATIENT).await.unwrap_err();
    assert_eq!(error.code(), "transport.stalled", "{error}");
    let dribbling = get(&transport, "/pieces/100/100").await.unwrap();
    let error = transport.read_limited(dribbling, 100, SECOND).await.unwrap_err();
    assert_eq!(error.code(), "transport.timeout", "{error}");

    get(&transport, "/status/200").await.unwrap();
    assert_eq!(server.connections(), 1, "a slow stream cost the whole connection");
    // The server has been told: its handlers were dropped with their streams.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(server.at_once.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn responses_are_bounded() {
    let server = Server::start().await;
    let transport = server.client(2);
    let read = async |path: &str, max| transport.read_limited(get(&transport, path).await.unwrap(), max, PATIENT).await;
    assert_eq!(read("/bytes/1000", 1000).await.unwrap().len(), 1000);
    assert_eq!(read("/bytes/0", 0).await.unwrap().len(), 0);
    assert!(matches!(read("/bytes/1001", 1000).await, Err(TransportError::BodyTooLarge { max_bytes: 1000 })));
    // Without a declared length, and without an end.
    assert!(matches!(read("/endless", MIB).await, Err(TransportError::BodyTooLarge { .. })));
    let not_json = get(&transport, "/bytes/10").await.unwrap();
    let error = transport.read_json_limited::<serde_json::Value>(not_json, 1000, PATIENT).await.unwrap_err();
    assert_eq!(error.code(), "transport.json");
    get(&transport, "/status/200").await.unwrap();
    assert_eq!(server.connections(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blobs_stream_both_ways() {
    let server = Server::start().await;
    let transport = server.client(2);
    let (sender, receiver) = mpsc::channel(4);
    let total = 64 * MIB;
    let produce = async move {
        let piece = Bytes::from(vec![7; MIB / 4]);
        for _ in 0..total / piece.len() {
            sender.send(Ok(piece.clone())).await.unwrap();
        }
    };
    let upload = transport.request(Method::PUT, "/count", &[], RequestBody::Stream(receiver), PATIENT);
    let (answer, ()) = tokio::join!(upload, produce);
    let counted: usize = transport.read_json_limited(answer.unwrap(), 100, PATIENT).await.unwrap();
    assert_eq!(counted, total);

    let mut body = get(&transport, &format!("/bytes/{total}")).await.unwrap().into_body();
    let mut received = 0;
    while let Some(frame) = body.frame().await {
        received += frame.unwrap().into_data().unwrap().len();
    }
    assert_eq!(received, total);
}

/// A reader that does not read holds the server back after the windows are full; others on the connection go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_read_is_not_sent() {
    let server = Server::start().await;
    let transport = server.client(2);
    let unread = get(&transport, "/endless").await.unwrap();
    tokio::time::sleep(SECOND).await;
    let produced = server.produced.load(Ordering::SeqCst);
    assert!(produced >= MIB / 2, "{produced} bytes: the window is not open");
    assert!(produced <= 3 * MIB, "{produced} bytes were sent to somebody who does not read");
    get(&transport, "/status/200").await.unwrap();
    assert_eq!(server.connections(), 1);
    drop(unread);

    // The other way: a server that does not read holds the producer back.
    let (sender, receiver) = mpsc::channel(4);
    let mut sent = 0;
    let upload = transport.request(Method::PUT, "/never-reads", &[], RequestBody::Stream(receiver), 2 * SECOND);
    let produce = async {
        while sender.send(Ok(Bytes::from(vec![7; MIB / 4]))).await.is_ok() {
            sent += MIB / 4;
        }
    };
    let (answer, ()) = tokio::join!(upload, produce);
    assert_eq!(answer.unwrap_err().code(), "transport.timeout");
    assert!(sent <= 5 * MIB, "{sent} bytes were taken for a server that does not read");
}

#[tokio::test]
async fn a_body_that_fails_here_is_our_own_fault() {
    let server = Server::start().await;
    let transport = server.client(2);
    get(&transport, "/status/200").await.unwrap();
    let (sender, receiver) = mpsc::channel(4);
    sender.send(Ok(Bytes::from_static(b"first"))).await.unwrap();
    sender.send(Err(io::Error::new(io::ErrorKind::PermissionDenied, "no such luck"))).await.unwrap();
    let error =
        transport.request(Method::PUT, "/count", &[], RequestBody::Stream(receiver), PATIENT).await.unwrap_err();
    let TransportError::Local(source) = error else { panic!("{error:?}") };
    assert_eq!((source.kind(), source.to_string().as_str()), (io::ErrorKind::PermissionDenied, "no such luck"));
    get(&transport, "/status/200").await.unwrap();
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn the_last_clone_closes() {
    let server = Server::start().await;
    let transport = server.client(2);
    let clone = transport.clone();
    get(&transport, "/status/200").await.unwrap();
    drop(transport);
    get(&clone, "/status/200").await.unwrap();
    assert_eq!((server.connections(), server.open()), (1, 1));
    drop(clone);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(server.open(), 0);
}
