//! Rotation under load: connections old and new carry on while both parties replace their leaves.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use starminer_tls::{Acceptor, AllowedPeers, Clock, Connection, Connector, RotatingCertificate, Rotation, Side};
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const ROTATIONS: u64 = 20;
const LONG_LIVED: usize = 8;
const CHURNING: usize = 4;

async fn echo_server(listener: TcpListener, acceptor: Arc<Acceptor>) {
    loop {
        let (tcp, _) = listener.accept().await.unwrap();
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            let mut connection = acceptor.accept(tcp).await.expect("a handshake failed during rotation");
            let mut buffer = [0; 256];
            while let Ok(read @ 1..) = connection.read(&mut buffer).await {
                connection.write_all(&buffer[..read]).await.unwrap();
                connection.flush().await.unwrap();
            }
        });
    }
}

async fn echo(connection: &mut Connection, number: usize) {
    let sent = number.to_be_bytes();
    connection.write_all(&sent).await.expect("a write failed during rotation");
    connection.flush().await.expect("a flush failed during rotation");
    let mut received = [0; 8];
    connection.read_exact(&mut received).await.expect("a read failed during rotation");
    assert_eq!(received, sent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotation_drops_nothing() {
    let clock = TestClock::at(START);
    let servers = certificate(1, Side::Server, START);
    let clients = certificate(2, Side::Client, START);
    let acceptor = Arc::new(Acceptor::new(servers.clone(), AllowedPeers::Any, clock.clone()).unwrap());
    let connector = Arc::new(Connector::new(clients.clone(), clock.clone()));
    let (listener, address) = listen().await;
    let server = tokio::spawn(echo_server(listener, acceptor.clone()));

    let stop = Arc::new(AtomicBool::new(false));
    let (echoes, connections) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut tasks = Vec::new();
    for kind in 0..LONG_LIVED + CHURNING {
        let (stop, echoes, connections) = (stop.clone(), echoes.clone(), connections.clone());
        let (connector, expected) = (connector.clone(), acceptor.identity());
        tasks.push(tokio::spawn(async move {
            let mut keys = BTreeSet::new();
            while !stop.load(Ordering::SeqCst) {
                let mut connection = connector.connect(address, expected).await.expect("no connection during rotation");
                connections.fetch_add(1, Ordering::SeqCst);
                keys.insert((connection.session().tls_key(), connection.session().local_tls_key()));
                let mut number = 0;
                while !stop.load(Ordering::SeqCst) && (kind < LONG_LIVED || number < 3) {
                    echo(&mut connection, number).await;
                    echoes.fetch_add(1, Ordering::SeqCst);
                    number += 1;
                }
            }
            keys
        }));
    }

    for rotation in 1..=ROTATIONS {
        // Waits for traffic on the present leaves, then the clock passes the hour and both parties rotate.
        let (before, opened) = (echoes.load(Ordering::SeqCst), connections.load(Ordering::SeqCst));
        while echoes.load(Ordering::SeqCst) < before + 100 || connections.load(Ordering::SeqCst) < opened + CHURNING * 2
        {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        clock.set(START + rotation * 3600);
        if rotation % 2 == 0 {
            servers.rotate(clock.unix_seconds()).unwrap();
            clients.rotate(clock.unix_seconds()).unwrap();
        } // else the next handshake finds the leaf due
    }
    stop.store(true, Ordering::SeqCst);

    let mut keys = BTreeSet::new();
    for (kind, task) in tasks.into_iter().enumerate() {
        let seen = task.await.expect("an echo failed during rotation");
        if kind < LONG_LIVED {
            assert_eq!(seen.len(), 1, "a long-lived connection was replaced");
        }
        keys.extend(seen);
    }
    let server_keys: BTreeSet<_> = keys.iter().map(|(server, _)| server).collect();
    let client_keys: BTreeSet<_> = keys.iter().map(|(_, client)| client).collect();
    assert!(server_keys.len() as u64 >= ROTATIONS, "{} server keys seen", server_keys.len());
    assert!(client_keys.len() as u64 >= ROTATIONS, "{} client keys seen", client_keys.len());
    server.abort();
}

/// The task replaces the leaf of an idle party, and stops with its handle.
#[tokio::test]
async fn the_task_rotates_and_stops() {
    let clock = TestClock::at(START);
    let second = Duration::from_secs(1);
    let rotation = Rotation::new(second, 3 * second, second).unwrap();
    let certificate = Arc::new(RotatingCertificate::new(identity(1), Side::Server, rotation, START).unwrap());
    let first = certificate.current().tls_key();
    let task = certificate.spawn_rotation(clock.clone());
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(certificate.current().tls_key(), first, "rotated though the clock stood still");
    clock.set(START + 10);
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let second_key = certificate.current().tls_key();
    assert_ne!(second_key, first);
    assert_eq!(certificate.current().validity(), (START + 10, START + 13));
    drop(task);
    clock.set(START + 20);
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(certificate.current().tls_key(), second_key, "rotated after its task was dropped");
}
