//! A client that speaks no more than TLS 1.2, or presents no identity: refused by the coordinator in the handshake.

use std::process::{Command, Stdio};

use crate::support::Network;

/// What openssl says until the server hangs up. Its input is kept open: it would leave at the end of it, perhaps before the server's alert.
fn s_client(address: &str, version: &str) -> Option<String> {
    let mut client = Command::new("openssl")
        .args(["s_client", "-connect", address, version, "-alpn", "h2"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    let input = client.stdin.take();
    let output = client.wait_with_output().ok()?;
    drop(input);
    Some(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

#[test]
fn tls_1_2_is_refused() {
    let network = Network::coordinator_only();
    let Some(said) = s_client(&network.address, "-tls1_2") else {
        eprintln!("SKIPPED: openssl is not installed");
        return;
    };
    assert!(said.contains("alert protocol version"), "{said}");
    let said = s_client(&network.address, "-tls1_3").unwrap();
    assert!(said.contains("TLSv1.3"), "the control does speak: {said}");
    assert!(said.contains("alert certificate required"), "without an identity it gets no further: {said}");
}
