//! A client that speaks no more than TLS 1.2, or presents no identity: refused by the coordinator in the handshake.

use std::process::{Command, Stdio};

use crate::support::Network;

fn s_client(address: &str, version: &str) -> Option<String> {
    let output = Command::new("openssl")
        .args(["s_client", "-connect", address, version, "-alpn", "h2"])
        .stdin(Stdio::null())
        .output()
        .ok()?;
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
