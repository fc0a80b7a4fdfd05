//! A network with one node that has an emulated TPM, and takes its maker's root.

use crate::emulator::Swtpm;
use crate::support::{Network, must, text};

/// The coordinator runs; the node, called `node`, is set up.
pub fn network_with(tpm: &Swtpm) -> Network {
    let path = |name: &str| text(&tpm.dir.path().join(name));
    let (issuer, root) = (path("ca/issuer.pem"), path("ca/swtpm-localca-rootca-cert.pem"));
    let network = Network::prepared_with(&["--tpm-root", &root]);
    network.start_process("coordinator");
    let trust_file = text(&network.path("coordinator").join("network.toml"));
    let address = format!("unix:{}", text(&tpm.socket()));
    let init = ["node", "init", &text(&network.path("node")), "--network", &trust_file, "--tpm", &address];
    must(init.iter().chain(&["--tpm-certificate", &issuer, "--tpm-certificate", &root]));
    network
}
