//! What the node is told, looked at before a machine starts with it: a node that cannot read it ends, after half a minute, with a line on its console.

use serde::Deserialize;
use starminer_image::measure::credentials::Credentials;
use starminer_receipt::NetworkTrust;

use crate::cli::args::{HostRunArgs, PrefixedAddress};
use crate::cli::exit::Failure;
use crate::cli::home::with_sources;
use crate::cli::image::measure::{MAX_CREDENTIAL_BYTES, read_credentials};
use crate::cli::reference::read;

const NETWORK: &str = "network.toml.cred";
const NODE: &str = "node.toml.cred";
const CERTIFICATES: &str = "tpm-certificates.pem.cred";

/// Of `node.toml`, what no node starts without. The rest is the image's to judge, which may be newer than this program.
#[derive(Deserialize)]
struct Node {
    address: String,
}

/// What the node is told: files of a directory, or what options say.
pub fn told(args: &HostRunArgs) -> Result<Credentials, Failure> {
    let told = match &args.credentials {
        Some(dir) => read_credentials(dir)?,
        None => from_options(args)?,
    };
    check(&told)?;
    Ok(told)
}

fn from_options(args: &HostRunArgs) -> Result<Credentials, Failure> {
    let mut told = Credentials::new();
    if let Some(network) = &args.network {
        told.insert(NETWORK.into(), read(network, MAX_CREDENTIAL_BYTES)?);
    }
    let mut node = toml::Table::new();
    if let Some(address) = &args.address {
        node.insert("address".into(), address.to_string().into());
    }
    if let Some(gateway) = &args.gateway {
        node.insert("gateway".into(), gateway.to_string().into());
    }
    if args.disk.is_some() {
        node.insert("storage".into(), "disk".into());
    }
    told.insert(NODE.into(), node.to_string().into_bytes());
    if !args.tpm_certificate.is_empty() {
        let mut all = Vec::new();
        for path in &args.tpm_certificate {
            all.extend(read(path, MAX_CREDENTIAL_BYTES)?);
            all.push(b'\n');
        }
        if all.len() > MAX_CREDENTIAL_BYTES {
            let reason = format!("the certificates of the TPM are more than {MAX_CREDENTIAL_BYTES} bytes together");
            return Err(wrong(reason, "give only those that the TPM does not hold"));
        }
        told.insert(CERTIFICATES.into(), all);
    }
    Ok(told)
}

/// Whether a node can start with it.
fn check(told: &Credentials) -> Result<(), Failure> {
    let text = |name: &str, remedy: &str| {
        let found = told.get(name).ok_or_else(|| wrong(format!("there is no {name}"), remedy))?;
        std::str::from_utf8(found).map_err(|_| wrong(format!("{name}: no text"), remedy))
    };
    let remedy = "give the network.toml that the network's `coordinator init` wrote, with the coordinator's address as the machine reaches it";
    let network = NetworkTrust::parse(text(NETWORK, remedy)?)
        .map_err(|error| wrong(format!("{NETWORK}: {}", with_sources(&error)), remedy))?;
    let address = &network.coordinator.address;
    if address.parse::<std::net::SocketAddr>().is_err() {
        let reason = format!("{NETWORK}: the coordinator is at {address:?}, and a node's image looks no names up");
        return Err(wrong(reason, "write its IP address and port there"));
    }
    let remedy = "see specs/image.md for what stands there";
    let node: Node =
        toml::from_str(text(NODE, remedy)?).map_err(|error| wrong(format!("{NODE}: {}", error.message()), remedy))?;
    let address = node.address.parse::<PrefixedAddress>();
    address.map(drop).map_err(|reason| wrong(format!("{NODE}: {:?}: {reason}", node.address), remedy))
}

fn wrong(reason: String, remedy: &str) -> Failure {
    Failure::usage("host.told", reason, remedy)
}
