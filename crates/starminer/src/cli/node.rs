//! `starminer node init|run`.

use std::path::PathBuf;

use serde_json::json;
use starminer_agent::{AgentError, HardwareConfig, TpmConfig};
use starminer_attester::SimulatedRoot;

use super::args::{EnclaveInitArgs, NodeInitArgs, NodeRunArgs};
use super::exit::{self, Failure};
use super::home::{block_on, with_sources};
use super::service::{self, new_dir};
use super::terminal::{Terminal, quoted};

/// Loads the root that certifies a simulated TEE; without one there is nothing to attest with yet.
pub fn load_root(args: &EnclaveInitArgs) -> Result<SimulatedRoot, Failure> {
    let Some(path) = &args.software_tee_root else {
        return Err(Failure::usage(
            "node.no-tee",
            "no TEE was named",
            "give --software-tee-root FILE for a simulated one, or --tpm ADDRESS; hardware TEEs are named in agent.toml (specs/node.md)",
        ));
    };
    SimulatedRoot::load(path).map_err(|error| {
        Failure::usage(
            error.code(),
            format!("{}: {}", path.display(), with_sources(&error)),
            "give the file that `coordinator init --software-tee` made",
        )
    })
}

/// The machine's TEE, if it has one, and this TPM.
fn with_tpm(address: &str, certificates: &[PathBuf]) -> Result<HardwareConfig, Failure> {
    let usable = |error: &dyn std::fmt::Display| {
        Failure::usage("node.tpm", error, "give a device, or a socket as unix:/PATH or tcp:ADDRESS:PORT")
    };
    let address = address.parse().map_err(|error| usable(&error))?;
    // Written down as they are from everywhere.
    let everywhere = |path: &PathBuf| {
        std::fs::canonicalize(path).map_err(|error| {
            let reason = format!("{}: {error}", path.display());
            Failure::usage("node.tpm-certificate", reason, "give files of certificates with --tpm-certificate")
        })
    };
    let certificates = certificates.iter().map(everywhere).collect::<Result<Vec<_>, _>>()?;
    let tpm = TpmConfig { address, certificates, ..TpmConfig::default() };
    Ok(HardwareConfig { tpm: Some(tpm), ..HardwareConfig::default() })
}

/// Prepares a node.
pub fn init(terminal: &Terminal, node_args: &NodeInitArgs) -> Result<u8, Failure> {
    let args = &node_args.enclave;
    let network = service::read_trust(&args.network)?;
    let root = match (&args.software_tee_root, &node_args.tpm) {
        (None, Some(_)) => None,
        _ => Some(load_root(args)?),
    };
    let hardware = node_args.tpm.as_ref().map(|address| with_tpm(address, &node_args.tpm_certificate)).transpose()?;
    new_dir(&args.dir)?;
    let node = starminer_agent::init(&args.dir, &network, root.as_ref(), hardware).map_err(|error| {
        // A directory that was made for nothing is in the way of the next try; one with anything in it stays.
        let _ = std::fs::remove_dir(&args.dir);
        match error {
            AgentError::Config { .. } => {
                Failure::usage(error.code(), with_sources(&error), "give other files and start again")
            }
            _ => Failure::local(error.code(), with_sources(&error), "check free space and permissions"),
        }
    })?;
    terminal.result(format!("node {node} prepared in {}", args.dir.display()));
    terminal.result(format!("  run it  starminer node run {}", quoted(args.dir.display())));
    terminal.document(&json!({ "dir": args.dir.display().to_string(), "node": node.to_string() }));
    Ok(exit::OK)
}

/// Runs a node until it is asked to stop.
pub fn run(terminal: &Terminal, args: &NodeRunArgs) -> Result<u8, Failure> {
    let mut config =
        starminer_agent::AgentConfig::load(&args.dir.join(starminer_agent::CONFIG_FILE)).map_err(|error| {
            Failure::usage(error.code(), with_sources(&error), "give the directory that `node init` made")
        })?;
    if let Some(places) = args.places {
        config.places = places;
    }
    terminal.say(format!("node in {} starts, for {} tasks at a time", args.dir.display(), config.places));
    let dir = args.dir.clone();
    let admitted = move || {
        if let Err(failure) = service::ready(&dir) {
            tracing::warn!(%failure, "the node is admitted and cannot say so");
        }
    };
    block_on(starminer_agent::run(config, admitted, service::shutdown_signal(args.until_stdin_ends)))?
        .map_err(|error| Failure::local(error.code(), with_sources(&error), "mend what it names and start again"))?;
    Ok(exit::OK)
}
