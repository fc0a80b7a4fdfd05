//! `starminer node doctor`: what this machine can prove, what it lacks and how to mend that, and until when it holds.
//!
//! [`mod@collect`] asks devices and reads logs and settings, [`mod@judge`] makes of it what a verifier would, and [`mod@show`] tells it. A device that is
//! not there is told as missing, and what cannot be read as not checked; neither counts. Checks, texts and exit codes: `specs/cli.md`.

mod collect;
mod fix;
mod judge;
mod show;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::time::Duration;

use starminer_agent::AgentConfig;
use starminer_hardware::cert::Certificate;
use starminer_receipt::toml_reason;
use starminer_requester::open_regular;
use starminer_verify::{
    Digest, HardwarePolicy, MAX_POLICY_BYTES, NetworkId, Policy, PolicyFields, ReferenceValues, SimulatedRootId,
    TrustAnchors, UnixTime,
};

use super::args::DoctorArgs;
use super::endorsements::{EndorsementsConfig, at_s, certificates, snapshot_of, trust};
use super::exit::{self, Failure};
use super::home::with_sources;
use super::service::{harden, read_text, read_trust};
use super::terminal::Terminal;
use collect::{Asked, Machine, collect, tpm_address};
use judge::{Standard, judge};

/// Looks at this machine.
pub fn doctor(terminal: &Terminal, args: &DoctorArgs) -> Result<u8, Failure> {
    let node = args.config.as_deref().map(read_config).transpose()?;
    let (standard, asked) = standard(args, node.as_ref())?;
    let machine = machine(args, node.as_ref())?;
    // As the node does at its start, so that what is read of this process is what holds for the node's.
    if let Err(failure) = harden() {
        tracing::debug!(%failure, "this process is looked into; the node would not start so");
    }
    let spinner = terminal.spinner("looking at the machine");
    let found = collect(&machine, &asked, |what| spinner.set_message(what));
    spinner.finish_and_clear();
    let diagnosis = judge(&found, &standard);
    let code = if diagnosis.is_enough() { exit::OK } else { exit::REFUSED };
    if !terminal.is_quiet() {
        show::people(terminal, &diagnosis);
    }
    terminal.document(&show::document(&diagnosis, code));
    Ok(code)
}

/// By what to judge, and what to ask the TPM for.
fn standard(args: &DoctorArgs, node: Option<&AgentConfig>) -> Result<(Standard, Asked), Failure> {
    let now = UnixTime(at_s(args.at.as_deref())?.saturating_mul(1000));
    let network = args.network.as_deref().or(node.map(|node| node.network.as_path())).map(read_trust).transpose()?;
    let policy = args.policy.as_deref().map(read_policy).transpose()?;
    let authorities = certificates(&args.authorities)?;
    let snapshot = match &args.endorsements {
        None => None,
        Some(from) => Some(snapshot_of(from, &trust(&args.authorities)?, now.as_seconds())?.0),
    };
    let named = network.iter().flat_map(|network| network.simulated_root_ids());
    let anchors = TrustAnchors::makers().with_simulated_roots(named.chain(roots_among(&authorities)));
    let anchors = anchors.map_err(|error| {
        Failure::usage("call.authority", error, "name fewer roots with --ca, or in the network's trust file")
    })?;
    // What the node sends along completes chains; nobody trusts it for that.
    let mut chains = authorities;
    if let Some(tpm) = node.and_then(|node| node.hardware.as_ref()?.tpm.as_ref()) {
        chains.extend(certificates(&tpm.certificates)?);
    }
    let hardware = policy.as_ref().map_or_else(HardwarePolicy::strict, |policy| policy.hardware().into_owned());
    let asked = Asked {
        network: network.as_ref().map_or(NetworkId([0; 32]), |network| network.network),
        pcrs: hardware.tpm.pcrs.clone(),
        bank: hardware.tpm.pcr_bank,
    };
    let standard = Standard {
        policy,
        anchors,
        reference_values: network.map_or_else(ReferenceValues::unset, |network| network.reference_values),
        snapshot,
        ages: EndorsementsConfig::default().ages,
        authorities: chains,
        now,
    };
    Ok((standard, asked))
}

/// Certificates that issue themselves are roots, whatever they are the root of.
fn roots_among(authorities: &[Certificate]) -> Vec<SimulatedRootId> {
    let roots = authorities.iter().filter(|one| one.subject() == one.issuer()).map(|one| Digest(one.fingerprint()));
    roots
        .flat_map(|root| [SimulatedRootId::SevSnp(root), SimulatedRootId::Intel(root), SimulatedRootId::Tpm(root)])
        .collect()
}

/// A policy in TOML, or in JSON where it begins as such.
fn read_policy(path: &Path) -> Result<Policy, Failure> {
    let unusable = |check: &'static str, reason: &dyn std::fmt::Display| {
        Failure::usage(check, format!("{}: {reason}", path.display()), "write the policy as specs/policy.md says")
    };
    let text = read_text(path, MAX_POLICY_BYTES as u64).map_err(|error| unusable("policy.unreadable", &error))?;
    if text.trim_start().starts_with('{') {
        return Policy::parse(text.as_bytes()).map_err(|error| unusable(error.code(), &error));
    }
    let fields: PolicyFields =
        toml::from_str(&text).map_err(|error| unusable("policy.malformed", &toml_reason(&text, &error)))?;
    Policy::new(fields).map_err(|error| unusable(error.code(), &error))
}

fn read_config(path: &Path) -> Result<AgentConfig, Failure> {
    // A device in its place would be waited for.
    open_regular(path).map_err(|error| unusable_config(path, &error))?;
    AgentConfig::load(path).map_err(|error| unusable_config(path, &with_sources(&error)))
}

/// What to look at: what the command line says, or else the node's settings, or else this machine.
fn machine(args: &DoctorArgs, node: Option<&AgentConfig>) -> Result<Machine, Failure> {
    let hardware = node.and_then(|node| node.hardware.as_ref());
    let root = args.root.as_deref().or(hardware.and_then(|hardware| hardware.root.as_deref()));
    let root = root.unwrap_or(Path::new("/"));
    let data_dir = args.data_dir.as_deref().or(node.map(|node| node.data_dir.as_path()));
    // In a tree that stands in for the machine, the directory is where the tree says.
    let here = data_dir.filter(|_| root == Path::new("/"));
    for (option, dir) in [("--root", Some(root)), ("--data-dir", here)] {
        let Some(dir) = dir else { continue };
        let why = match std::fs::metadata(dir) {
            Ok(meta) if meta.is_dir() => continue,
            Ok(_) => "not a directory".to_owned(),
            Err(error) => error.to_string(),
        };
        let reason = format!("{option} {}: {why}", dir.display());
        return Err(Failure::usage("settings.unusable", reason, "name a directory that is there"));
    }
    // Mounts are told by absolute paths.
    let data_dir = data_dir.map(std::path::absolute).transpose();
    let data_dir = data_dir.map_err(|error| {
        Failure::usage("settings.unusable", error, "run this in a directory that is there, or name an absolute one")
    })?;
    let tpm = match (&args.tpm, hardware.and_then(|hardware| hardware.tpm.as_ref())) {
        (Some(address), _) => Some(tpm_address(address)),
        // A tree that stands in for the machine has a TPM of its own.
        (None, Some(tpm)) if args.root.is_none() => Some(tpm.address.clone()),
        (None, _) => None,
    };
    Ok(Machine::at(root, tpm, data_dir.as_deref(), Duration::from_secs(args.patience)))
}

fn unusable_config(path: &Path, reason: &dyn std::fmt::Display) -> Failure {
    Failure::usage(
        "settings.unusable",
        format!("{}: {reason}", path.display()),
        "give the node's agent.toml, or --data-dir",
    )
}
