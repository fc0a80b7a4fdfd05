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

use std::path::{Path, PathBuf};
use std::time::Duration;

use starminer_agent::AgentConfig;
use starminer_hardware::cert::Certificate;
use starminer_requester::open_regular;
use starminer_verify::{
    Digest, HardwarePolicy, MAX_POLICY_BYTES, NetworkId, Policy, PolicyFields, ReferenceValues, SimulatedRootId,
    TrustAnchors, UnixTime,
};

use super::args::DoctorArgs;
use super::endorsements::{EndorsementsConfig, at_s, certificates, snapshot_of, trust};
use super::exit::{self, Failure};
use super::home::with_sources;
use super::service::{harden, read_text, read_trust, toml_reason};
use super::terminal::Terminal;
use collect::{Asked, Machine, collect};
use judge::{Standard, judge};

/// Looks at this machine.
pub fn doctor(terminal: &Terminal, args: &DoctorArgs) -> Result<u8, Failure> {
    let (standard, asked) = standard(args)?;
    let data_dir = data_dir(args)?;
    let patience = Duration::from_secs(args.patience);
    let machine = Machine::at(&args.root, args.tpm.as_deref(), data_dir.as_deref(), patience);
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
fn standard(args: &DoctorArgs) -> Result<(Standard, Asked), Failure> {
    let now = UnixTime(at_s(args.at.as_deref())?.saturating_mul(1000));
    let network = args.network.as_deref().map(read_trust).transpose()?;
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
        authorities,
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

/// Where tasks leave what they leave on a disk, as an absolute path.
fn data_dir(args: &DoctorArgs) -> Result<Option<PathBuf>, Failure> {
    let dir = match (&args.data_dir, &args.config) {
        (Some(dir), _) => dir.clone(),
        (None, Some(config)) => {
            // A device in its place would be waited for.
            open_regular(config).map_err(|error| unusable_config(config, &error))?;
            AgentConfig::load(config).map_err(|error| unusable_config(config, &with_sources(&error)))?.data_dir
        }
        (None, None) => return Ok(None),
    };
    std::path::absolute(&dir).map(Some).map_err(|error| unusable_config(&dir, &error))
}

fn unusable_config(path: &Path, reason: &dyn std::fmt::Display) -> Failure {
    Failure::usage(
        "settings.unusable",
        format!("{}: {reason}", path.display()),
        "give the node's agent.toml, or --data-dir",
    )
}
