//! A client that speaks no more than TLS 1.2, or presents no identity: refused by the coordinator in the handshake.

use std::process::{Command, Stdio};

use crate::support::Network;

fn s_client(address: &str, version: &str) -> Option<String> {
    let mut child = Command::new("openssl")
        .args(["s_client", "-connect", address, version, "-alpn", "h2"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    // Kept open: at the end of its input it would leave, perhaps before it has heard the server's refusal.
    let stdin = child.stdin.take();
    let output = child.wait_with_output().unwrap();
    drop(stdin);
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
    assert!(
        said.contains("certificate required") || said.contains("alert"),
        "without an identity it gets no further: {said}"
    );
}
