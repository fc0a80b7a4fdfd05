//! The first process of the measured node image: it makes the machine ready for the agent, starts it, and switches the machine off when it ends.
//!
//! It is all of the image's user space besides the agent: no shell, no login, no service manager, nothing that listens. Whatever does not go as it should
//! ends in a machine that is off: a node whose first steps failed half-way would measure as a good one.
//!
//! What it deliberately does not do: judge its settings. They are the host's word, which a TPM measures (register 12) and which decide nothing but
//! where the node is reached and which network it asks for admission. Format and order: `specs/image.md`.

mod button;
mod disk;
mod harden;
mod modules;
mod mounts;
mod network;
mod settings;

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, WaitOptions, getpid, wait};
use rustix::system::{RebootCommand, reboot};

use settings::Settings;

/// The agent's place in the image.
const AGENT: &str = "/agent";

fn main() {
    if !getpid().is_init() {
        eprintln!("starminer-init is the first process of a node image, and nothing else");
        std::process::exit(2);
    }
    if let Err(error) = run() {
        say(&format!("{error:#}"));
    }
    rustix::fs::sync();
    if let Err(error) = reboot(RebootCommand::PowerOff) {
        say(&format!("the machine cannot be switched off: {error}"));
    }
    // The kernel panics when its first process ends, and its command line says that it starts anew then.
}

/// The console is the host's: nothing that is said here is secret.
fn say(what: &str) {
    println!("starminer-init: {what}");
}

fn run() -> Result<()> {
    mounts::mount_all()?;
    // Before anything is read that is not part of the image, and before any other program starts.
    harden::load_measurement_policy()?;
    modules::load_all()?;
    harden::settle()?;
    let settings = Settings::read()?;
    mounts::make_state()?;
    let disk = disk::unlock(&settings.node)?;
    network::set_up(&settings.node)?;
    let config = settings.write()?;
    mounts::seal_root()?;
    say("the agent starts");
    let mut agent = Command::new(AGENT);
    // A node that was enrolled keeps its key: that its disk opens and the key is gone is not to be passed over. Before that, power may have failed between a
    // disk that is made and the agent's first step.
    if !settings.node.enrolment().exists() {
        agent.arg("--new-identity");
    }
    let agent = agent
        .arg(config)
        .env_clear()
        // The console shows no colours.
        .env("NO_COLOR", "1")
        .current_dir("/")
        .stdin(Stdio::null())
        .spawn()
        .context("the agent cannot be started")?;
    if let Some(agent) = i32::try_from(agent.id()).ok().and_then(Pid::from_raw) {
        button::watch(agent);
    }
    let ended = wait_for(agent.id());
    // The agent and all that it started are gone: nothing uses the disk.
    disk.map(|disk| disk.close(ended.is_ok()).context("the disk cannot be closed")).transpose()?;
    ended
}

/// Waits for the agent. Orphans of its task processes end here as well.
fn wait_for(agent: u32) -> Result<()> {
    loop {
        let (pid, status) = match wait(WaitOptions::empty()) {
            Ok(Some(ended)) => ended,
            Ok(None) | Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error).context("waiting for the agent"),
        };
        if pid.as_raw_nonzero().get().unsigned_abs() == agent {
            match status.exit_status() {
                Some(0) => return Ok(()),
                _ => bail!("the agent ended: {status:?}"),
            }
        }
    }
}
