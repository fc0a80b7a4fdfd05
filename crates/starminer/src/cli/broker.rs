//! `starminer broker init|run`.

use serde_json::json;

use super::args::{EnclaveInitArgs, ServiceRunArgs};
use super::exit::{self, Failure};
use super::home::{block_on, with_sources};
use super::node::load_root;
use super::service::{self, new_dir};
use super::terminal::{Terminal, quoted};
use crate::broker::{self, BrokerService};

/// Prepares a broker.
pub fn init(terminal: &Terminal, args: &EnclaveInitArgs) -> Result<u8, Failure> {
    let network = service::read_trust(&args.network)?;
    let root = load_root(args)?;
    new_dir(&args.dir)?;
    let broker = broker::init(&args.dir, &network, &root).map_err(|error| {
        Failure::local("broker.init", with_sources(error.as_ref()), "check free space and permissions")
    })?;
    terminal.result(format!("broker {broker} prepared in {}", args.dir.display()));
    terminal.result(format!("  run it  starminer broker run {}", quoted(args.dir.display())));
    terminal.document(&json!({ "dir": args.dir.display().to_string(), "broker": broker.to_string() }));
    Ok(exit::OK)
}

/// Runs a broker until it is asked to stop.
pub fn run(terminal: &Terminal, args: &ServiceRunArgs) -> Result<u8, Failure> {
    service::read_trust(&args.dir.join("network.toml"))?;
    // Two would answer for one identity with different keys, and what was left with one could not be opened by the other.
    let _lock = service::take(&args.dir, "broker.in-use")?;
    service::harden()?;
    let failed = |error: &anyhow::Error| {
        Failure::local("broker.failed", with_sources(error.as_ref()), "mend what it names and start again")
    };
    block_on(async {
        let service = BrokerService::start(&args.dir).map_err(|error| failed(&error))?;
        let (key, dir) = (service.key(), args.dir.clone());
        let known = move || {
            terminal.say(format!("broker {key} answers"));
            if let Err(failure) = service::ready(&dir) {
                tracing::warn!(%failure, "the broker is known and cannot say so");
            }
        };
        service.run(known, service::shutdown_signal(args.until_stdin_ends)).await.map_err(|error| failed(&error))?;
        Ok(exit::OK)
    })?
}
