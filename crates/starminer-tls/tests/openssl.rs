//! A second implementation looks at ours: OpenSSL refuses nothing that it should accept, and gets nothing it should not.
//!
//! Needs the `openssl` program (Debian package `openssl`).

#![allow(clippy::unwrap_used)]

mod support;

use std::process::{Output, Stdio};
use std::time::Duration;

use starminer_tls::{HandshakeError, identity_certificate};
use support::*;
use tokio::process::Command;

/// Runs `openssl s_client` against a server of ours; its output and what the server made of it.
async fn s_client(arguments: &[&str]) -> (String, Result<starminer_tls::Connection, HandshakeError>) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let server = acceptor(1, &TestClock::at(now));
    let (listener, address) = listen().await;
    let client = Command::new("openssl")
        .args(["s_client", "-connect", &address.to_string()])
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let accept = async { server.accept(listener.accept().await.unwrap().0).await };
    let both = async { tokio::join!(client, accept) };
    let (output, accepted) = tokio::time::timeout(Duration::from_secs(20), both).await.unwrap();
    (text(&output.expect("the program `openssl` is needed by this test")), accepted)
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test]
async fn tls_12_is_refused() {
    let (output, accepted) = s_client(&["-tls1_2"]).await;
    assert_eq!(accepted.unwrap_err().code(), "tls.version");
    assert!(output.contains("alert protocol version") || output.contains("alert number 70"), "{output}");
    assert!(output.contains("Cipher is (NONE)"), "{output}");
}

#[tokio::test]
async fn openssl_verifies_our_chain_and_is_refused_without_one() {
    let directory = tempfile::tempdir().unwrap();
    let anchor = directory.path().join("identity.pem");
    let der = identity_certificate(&identity(1));
    let body = data_encoding::BASE64.encode(&der);
    std::fs::write(&anchor, format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")).unwrap();

    let arguments = ["-tls1_3", "-alpn", "h2", "-verify", "3", "-x509_strict", "-CAfile", anchor.to_str().unwrap()];
    let (output, accepted) = s_client(&arguments).await;
    assert_eq!(accepted.unwrap_err().code(), "tls.peer.no-certificate", "{output}");
    assert!(output.contains("Verify return code: 0 (ok)"), "{output}");
    assert!(output.contains("TLS_AES_256_GCM_SHA384"), "{output}");
    assert!(output.contains(&identity(1).identity().to_string()), "{output}");
}
