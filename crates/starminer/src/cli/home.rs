//! Where a requester's things are, and its connection to the network.

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use starminer_client::error_chain as with_sources;
use starminer_client::{ClientError, CoordinatorClient};
use starminer_receipt::NetworkTrust;
use starminer_requester::{EventSink, Home, HomeError, Requester, RequesterError};
use starminer_tls::IdentityKey;
use starminer_verify::Refusal;
use zeroize::Zeroizing;

use super::args::HomeArgs;
use super::collected::Collected;
use super::exit::Failure;
use super::key::load_identity;
use super::terminal::{Terminal, printable, quoted};
use super::verify::now;

/// A requester's home with what was read from it.
pub struct Opened {
    /// The directory.
    pub home: Home,
    /// What was collected there.
    pub collected: Collected,
    /// The network.
    pub network: NetworkTrust,
    /// The identity.
    pub identity: Arc<IdentityKey>,
}

/// Opens the home directory; makes an identity at first use.
pub fn open(terminal: &Terminal, args: &HomeArgs) -> Result<Opened, Failure> {
    let root = match &args.home {
        Some(root) => root.clone(),
        None => default_home()?,
    };
    let home = Home::open(&root).map_err(|error| home_failure(&error))?;
    let network_path = args.network.clone().unwrap_or_else(|| home.network_path());
    let network = Home::read_network(&network_path).map_err(|error| home_failure(&error))?;
    let identity_path = home.identity_path();
    if !identity_path.exists() {
        let key = IdentityKey::generate()
            .map_err(|error| Failure::local("key.not-generated", error, "check the system's random source"))?;
        match key.save(&identity_path) {
            Ok(()) => terminal.say(format!("made a new identity in {}", printable(identity_path.display()))),
            // Another process was first.
            Err(_) if identity_path.exists() => {}
            Err(error) => {
                return Err(Failure::local(error.code(), error, "check permissions of the home directory"));
            }
        }
    }
    let identity = Arc::new(load_identity(&identity_path)?);
    Ok(Opened { home, collected: Collected::of(&root), network, identity })
}

fn default_home() -> Result<PathBuf, Failure> {
    let base = std::env::var_os("HOME").filter(|home| !home.is_empty());
    base.map(|home| Path::new(&home).join(".starminer"))
        .ok_or_else(|| Failure::usage("home.unknown", "there is no home directory", "give one with --home DIR"))
}

impl Opened {
    /// A client that connects when it is first used.
    pub fn client(&self) -> Result<CoordinatorClient, Failure> {
        client(&self.network, &self.identity)
    }

    /// Starts the requester. It leaves the tasks of other processes that use this home alone.
    pub fn start(self, events: EventSink) -> Result<Requester, Failure> {
        let client = self.client()?;
        let seed = Zeroizing::new(*self.identity.seed());
        Requester::start(client, self.home, self.network, &seed, events, now).map_err(|error| requester_failure(&error))
    }
}

/// A command of this home as it can be pasted: with the options that say which home and network, where they are not the default.
pub fn command(args: &HomeArgs, command: &str) -> String {
    let mut line = format!("starminer {command}");
    let options = [("--home", &args.home), ("--network", &args.network)];
    for (option, path) in options {
        if let Some(path) = path {
            line.push_str(&format!(" {option} {}", quoted(path.display())));
        }
    }
    line
}

/// A client of a network's coordinator for an identity.
pub fn client(network: &NetworkTrust, identity: &Arc<IdentityKey>) -> Result<CoordinatorClient, Failure> {
    CoordinatorClient::connect_as(&network.coordinator.address, network.coordinator.key.0, identity)
        .map_err(|error| Failure::local("tls.setup", error, "report this defect"))
}

/// Runs a future on a runtime of two threads.
pub fn block_on<T>(future: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::local("runtime.start", error, "check the limits on threads and open files"))?;
    let result = runtime.block_on(future);
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
    Ok(result)
}

/// A home error as a failure.
pub fn home_failure(error: &HomeError) -> Failure {
    let reason = with_sources(error);
    match error {
        HomeError::Network { .. } | HomeError::Io { .. } => Failure::usage(
            "home.unusable",
            reason,
            "put the network's network.toml into the home directory, or give it with --network FILE",
        ),
        HomeError::Local { .. } => Failure::local(
            "home.io",
            reason,
            "make room there, or see to its permissions, and try again; a task that was submitted goes on, and `starminer result TASK` fetches it",
        ),
        HomeError::References { .. } => Failure::usage(
            "reference.memory",
            reason,
            "use a home directory of its own for each network; if the file is damaged, ask which version is the newest before you delete it",
        ),
        HomeError::Checkpoint { .. } => Failure::usage(
            "home.other-log",
            reason,
            "use a home directory of its own for each network; if the network is the same, its log was replaced: ask why",
        ),
    }
}

/// A requester's error as a failure.
pub fn requester_failure(error: &RequesterError) -> Failure {
    let local = |check: &'static str| {
        Failure::local(check, with_sources(error), "check free space and permissions, then try again")
    };
    match error {
        RequesterError::Client(error @ ClientError::Refused { .. }) => Failure::refused(error.refusal()),
        RequesterError::Client(error @ ClientError::Local(_)) => {
            Failure::local("client.local-io", with_sources(error), "check free space and permissions, then try again")
        }
        RequesterError::Client(error) => Failure::unreachable(error.refusal()),
        RequesterError::Refused(refusal) => Failure::refused(refusal.clone()),
        RequesterError::Releaser(starminer_requester::ReleaserError::Refused(refusal)) => {
            Failure::refused(refusal.clone())
        }
        RequesterError::Releaser(_) => Failure::local(
            "releaser.journal",
            with_sources(error),
            "make room in the home directory, or see to its permissions; the task goes on, and `starminer result TASK` releases its key and \
             fetches it",
        ),
        RequesterError::Plan(starminer_requester::PlanError::Staging(home)) => home_failure(home),
        RequesterError::Plan(plan @ starminer_requester::PlanError::Disk { .. }) => Failure::local(
            plan.code(),
            with_sources(error),
            "nothing was sent: see to the disk that it is on, and run it again",
        ),
        RequesterError::Stopped => Failure::local("command.interrupted", error, "call it again"),
        RequesterError::Plan(plan) => Failure::usage(
            plan.code(),
            with_sources(error),
            "see `starminer run --help`; mend the job and run it again",
        ),
        RequesterError::Journal(journal @ starminer_requester::JournalError::Held { .. }) => Failure::usage(
            journal.code(),
            error,
            "leave it to that process and wait for its end; or end it, and try again",
        ),
        RequesterError::Journal(journal @ starminer_requester::JournalError::Damaged { .. }) => Failure::local(
            journal.code(),
            error,
            "it was altered, or is another identity's: put the right file or identity.key back; or delete it and submit the task again",
        ),
        RequesterError::Journal(journal) => local(journal.code()),
        RequesterError::Unacknowledged { source, .. } => Failure::unreachable(Refusal::new(
            source.refusal().party(),
            source.refusal().check().to_owned(),
            error.to_string(),
            "once the coordinator answers, `starminer status` says whether it has the task: if so, `starminer result` fetches it; if not, \
             `starminer cancel` removes it",
        )),
        RequesterError::Home(home) => home_failure(home),
        RequesterError::Outputs(outputs @ starminer_requester::OutputsError::Io { .. }) => Failure::local(
            outputs.code(),
            with_sources(error),
            "nothing is lost: make room there and run `starminer result TASK`, or fetch to another place with `starminer result TASK -o DIR`",
        ),
        RequesterError::Outputs(outputs @ starminer_requester::OutputsError::Occupied { .. }) => Failure::local(
            outputs.code(),
            error,
            "nothing is lost: move it away, or fetch into another directory with `starminer result TASK -o DIR`",
        ),
        RequesterError::Outputs(outputs) => Failure::refused(Refusal::new(
            starminer_verify::Party::Node,
            outputs.code(),
            with_sources(error),
            "keep the receipt as proof and run the task again",
        )),
        RequesterError::UnknownTask(_) => {
            Failure::usage("task.unknown", error, "`starminer status` lists the tasks of this home")
        }
        RequesterError::Receipt { .. } => Failure::local(
            "receipt.unwritable",
            with_sources(error),
            "nothing is lost: `starminer result TASK -o DIR` writes it to another place",
        ),
    }
}
