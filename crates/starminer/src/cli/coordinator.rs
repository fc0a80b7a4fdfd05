//! `starminer coordinator init|run`.
//!
//! ```text
//! DIR/coordinator.toml         address and limits
//! DIR/coordinator.key          identity
//! DIR/log.key                  signs checkpoints
//! DIR/network.toml             the trust file to hand out
//! DIR/software-tee-root.key    only with --software-tee: certifies simulated TEEs
//! DIR/data/                    state and blobs
//! DIR/log.begun                says that the log has a first entry: without its database the coordinator does not start again
//! ```

use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::json;
use starminer_attester::{SimulatedRoot, measure_executable};
use starminer_coordinator::{Coordinator, Fatal, ServeError};
use starminer_hardware::cert::{Certificate, MAX_CERTIFICATE_BYTES};
use starminer_log::{KeyName, LogSigner};
use starminer_receipt::{CoordinatorEntry, LogEntryKeys, NetworkTrust, SimulatedRootEntry};
use starminer_requester::{open_regular, random_secret};
use starminer_tls::IdentityKey;
use starminer_verify::{
    Digest, EvidenceKind, Measurement, NetworkId, PublicKey, ReferenceValue, ReferenceValues, SimulatedRootId,
};

use super::args::{CoordinatorInitArgs, ServiceRunArgs};
use super::exit::{self, Failure};
use super::home::{block_on, with_sources};
use super::key::load_identity;
use super::service::{self, new_dir};
use super::terminal::{Terminal, quoted};

/// Longest name of a network.
const MAX_NAME_BYTES: usize = 64;

/// The coordinator's settings.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    listen: std::net::SocketAddr,
    #[serde(default)]
    limits: starminer_coordinator::Config,
}

/// Name of a root of emulated TPMs in the trust file.
fn tpm_root_name(network: &str, number: usize) -> String {
    if number > 1 { format!("{network} emulated TPM {number}") } else { format!("{network} emulated TPM") }
}

/// The root in a certificate file.
fn tpm_root(path: &Path) -> Result<SimulatedRootId, Failure> {
    let unusable = |reason: &dyn std::fmt::Display| {
        let reason = format!("{}: {reason}", path.display());
        Failure::usage("tpm-root.unusable", reason, "give one root certificate in PEM or DER")
    };
    let mut bytes = Vec::new();
    open_regular(path)
        .and_then(|file| file.take(MAX_CERTIFICATE_BYTES as u64 * 2).read_to_end(&mut bytes))
        .map_err(|error| unusable(&error))?;
    let root = Certificate::read_one(&bytes).map_err(|error| unusable(&error))?;
    if root.subject() != root.issuer() {
        return Err(unusable(&"the certificate is not a root: another authority issued it"));
    }
    Ok(SimulatedRootId::Tpm(Digest(root.fingerprint())))
}

/// Creates a network.
pub fn init(terminal: &Terminal, args: &CoordinatorInitArgs) -> Result<u8, Failure> {
    let dir = &args.dir;
    let address = address(args)?;
    if args.name.trim().is_empty() || args.name.len() > MAX_NAME_BYTES || args.name.contains(char::is_control) {
        let reason = format!("{:?} is no name for people, of at most {MAX_NAME_BYTES} bytes", args.name);
        return Err(Failure::usage("network.bad-name", reason, "give another one with --name"));
    }
    // Before anything is made.
    let tpm_roots: Vec<SimulatedRootId> = args.tpm_root.iter().map(|path| tpm_root(path)).collect::<Result<_, _>>()?;
    new_dir(dir)?;
    let identity = IdentityKey::generate()
        .map_err(|error| Failure::local("key.not-generated", error, "check the system's random source"))?;
    let save = |key: &IdentityKey, name: &str| {
        key.save(&dir.join(name))
            .map_err(|error| Failure::local(error.code(), with_sources(&error), "check permissions"))
    };
    save(&identity, "coordinator.key")?;
    let log_key = IdentityKey::generate()
        .map_err(|error| Failure::local("key.not-generated", error, "check the system's random source"))?;
    save(&log_key, "log.key")?;

    let network = NetworkId(*random_secret());
    let origin = log_origin(&args.name, &network)?;
    let log_vkey = LogSigner::from_seed(origin, log_key.seed()).key().encode();

    let agent = match &args.agent {
        Some(path) => path.clone(),
        None => PathBuf::from("/proc/self/exe"),
    };
    let measurement = measure_executable(&agent).map_err(|error| {
        Failure::usage("agent.unreadable", with_sources(&error), "name the node's program with --agent")
    })?;
    let reference_values = ReferenceValues::new(vec![ReferenceValue {
        kind: EvidenceKind::SoftwareTee,
        measurement: Measurement::from_bytes(measurement.as_bytes())
            .ok_or_else(|| Failure::local("agent.measurement", "a digest is no measurement", "report this defect"))?,
        name: format!("starminer-agent {}", env!("CARGO_PKG_VERSION")),
    }])
    .map_err(|error| Failure::local("agent.measurement", error, "report this defect"))?;

    let mut simulated_roots = Vec::new();
    if args.software_tee {
        let root = SimulatedRoot::generate(&random_secret());
        root.save(&dir.join("software-tee-root.key"))
            .map_err(|error| Failure::local(error.code(), with_sources(&error), "check permissions"))?;
        simulated_roots.push(SimulatedRootEntry { name: format!("{} software TEE", args.name), root: root.id() });
    }
    for root in tpm_roots {
        if simulated_roots.iter().any(|entry| entry.root == root) {
            continue;
        }
        let number = simulated_roots.iter().filter(|entry| matches!(entry.root, SimulatedRootId::Tpm(_))).count() + 1;
        simulated_roots.push(SimulatedRootEntry { name: tpm_root_name(&args.name, number), root });
    }
    let coordinator = CoordinatorEntry { address, key: PublicKey(identity.public()) };
    let log = LogEntryKeys { key: log_vkey, witnesses: Vec::new(), witness_quorum: 0 };
    let enrollers = vec![coordinator.key];
    let trust = NetworkTrust::new(args.name.clone(), network, coordinator, log, simulated_roots, reference_values)
        .and_then(|trust| trust.with_enrollers(enrollers, Vec::new()))
        .map_err(|error| Failure::local("network.trust", with_sources(&error), "report this defect"))?;
    let text = trust.encode().map_err(|error| Failure::local("network.trust", error, "report this defect"))?;
    service::write_new(&dir.join("network.toml"), &text)?;
    let settings = Settings { listen: args.listen, limits: starminer_coordinator::Config::default() };
    let text = toml::to_string(&settings)
        .map_err(|error| Failure::local("coordinator.settings", error, "report this defect"))?;
    service::write_new(&dir.join("coordinator.toml"), &text)?;

    terminal.result(format!("network {:?} created in {}", args.name, dir.display()));
    terminal.result(format!("  run it         starminer coordinator run {}", quoted(dir.display())));
    terminal.result(format!("  hand out       {}", dir.join("network.toml").display()));
    for entry in trust.simulated_roots.iter().filter(|entry| matches!(entry.root, SimulatedRootId::Tpm(_))) {
        terminal.result(format!("  emulated TPM   SIMULATED; a policy has to name {:?}", entry.name));
    }
    if args.software_tee {
        terminal.result(format!(
            "  simulated TEE  {} (what it certifies is SIMULATED; a policy has to name {:?})",
            dir.join("software-tee-root.key").display(),
            trust.simulated_roots.first().map_or("", |root| root.name.as_str())
        ));
    }
    terminal.document(&json!({
        "dir": dir.display().to_string(),
        "network": network.to_string(),
        "coordinator": trust.coordinator.key.to_string(),
        "log": trust.log.key,
        "measurement": measurement.to_string(),
    }));
    Ok(exit::OK)
}

/// What goes into the trust file: where others find the coordinator.
fn address(args: &CoordinatorInitArgs) -> Result<String, Failure> {
    let remedy = "say with --address under which name or address others reach it, such as lab.example.org:7443";
    let Some(address) = &args.address else {
        if args.listen.ip().is_unspecified() || args.listen.port() == 0 {
            let reason = format!("{} is not an address that others can go to", args.listen);
            return Err(Failure::usage("network.no-address", reason, remedy));
        }
        return Ok(args.listen.to_string());
    };
    let good = address.rsplit_once(':').is_some_and(|(host, port)| {
        let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let host = match bracketed {
            Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
            None => !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte)),
        };
        host && port.parse::<u16>().is_ok_and(|port| port != 0)
    });
    if good {
        Ok(address.clone())
    } else {
        Err(Failure::usage("network.bad-address", format!("{address:?} is not HOST:PORT"), remedy))
    }
}

/// The log's origin: the network's name, as far as a key name can carry it, and the beginning of its id.
fn log_origin(name: &str, network: &NetworkId) -> Result<KeyName, Failure> {
    let plain: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).take(40).collect();
    KeyName::parse(&format!("starminer/{plain}/{}", &network.to_hex()[..16]))
        .map_err(|error| Failure::usage("network.bad-name", error, "use letters and digits in --name"))
}

/// Runs the coordinator until it is asked to stop.
pub fn run(terminal: &Terminal, args: &ServiceRunArgs) -> Result<u8, Failure> {
    let dir = &args.dir;
    let settings: Settings = service::read_toml(&dir.join("coordinator.toml"))?;
    let trust = service::read_trust(&dir.join("network.toml"))?;
    let identity = load_identity(&dir.join("coordinator.key"))?;
    let log_key = load_identity(&dir.join("log.key"))?;
    let signer = LogSigner::from_seed(trust.log_key().name().clone(), log_key.seed());
    service::harden()?;
    let shutdown = service::shutdown_signal(args.until_stdin_ends);
    block_on(serve(terminal, dir, settings, trust, (identity, signer), shutdown))?
}

async fn serve(
    terminal: &Terminal,
    dir: &Path,
    settings: Settings,
    trust: NetworkTrust,
    (identity, signer): (IdentityKey, LogSigner),
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<u8, Failure> {
    let (data, marker) = (dir.join("data"), dir.join("log.begun"));
    let coordinator = Coordinator::open(&data, &marker, settings.limits, trust, identity, signer)
        .await
        .map_err(|error| Failure::local(error.code(), with_sources(&error), error.remedy()))?;
    let listener = tokio::net::TcpListener::bind(settings.listen).await.map_err(|error| {
        let remedy = "stop what listens there, or change `listen` in coordinator.toml and the address in network.toml";
        Failure::local("coordinator.address", format!("{}: {error}", settings.listen), remedy)
    })?;
    let address = listener.local_addr().unwrap_or(settings.listen);
    terminal.say(format!("coordinator listens on {address}"));
    service::ready(dir)?;
    coordinator.serve(listener, shutdown).await.map_err(|error| {
        let (check, remedy) = match &error {
            ServeError::Fatal(Fatal::Conflict) => (
                "coordinator.second-writer",
                "leave one coordinator to this database and start it again; nothing that this one acknowledged is lost",
            ),
            ServeError::Fatal(Fatal::Ledger(_)) => ("storage.damaged", "check the disk and the data directory"),
            ServeError::Fatal(Fatal::Panicked(_)) => ("coordinator.failed", "report this defect, and start it again"),
        };
        Failure::local(check, with_sources(&error), remedy)
    })?;
    Ok(exit::OK)
}
