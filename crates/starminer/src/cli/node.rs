//! `starminer node init|run`.

use serde_json::json;
use starminer_attester::SimulatedRoot;

use super::args::{EnclaveInitArgs, NodeRunArgs};
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
            "give --software-tee-root FILE for a simulated one; hardware TEEs are not supported by this version",
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

/// Prepares a node.
pub fn init(terminal: &Terminal, args: &EnclaveInitArgs) -> Result<u8, Failure> {
    let network = service::read_trust(&args.network)?;
    let root = load_root(args)?;
    new_dir(&args.dir)?;
    let node = starminer_agent::init(&args.dir, &network, &root)
        .map_err(|error| Failure::local(error.code(), with_sources(&error), "check free space and permissions"))?;
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
    terminal.say(format!("node in {} takes {} tasks at a time", args.dir.display(), config.places));
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
