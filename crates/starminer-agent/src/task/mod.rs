//! A task process: one task, one process, one life (`specs/node.md`, section "Task process").
//!
//! The agent starts its program once more as a zygote, which makes ready what every task needs and none can influence, and
//! then only copies itself. A copy is made ahead of time, seals itself before anything else, and waits. With a lease it makes
//! its two keys and hands over their public halves; with a valid grant it opens the task, runs it, seals what came out, signs the
//! report and ends. What it holds in memory ends with it. Everything that it reads and writes comes and goes through
//! descriptors that the agent hands in, and all of it is ciphertext.
//!
//! Deliberately not here: any decision about leases, evidence or time outside the run; any file, socket, thread, or log
//! line. A task process prints nothing.

mod compiled;
mod engine;
mod files;
mod grant;
mod keys;
mod link;
mod objects;
mod outputs;
mod report;
mod run;
mod state;
mod verdict;

use std::ffi::OsStr;
use std::process::ExitCode;

use starminer_sandbox::{MemoryLocking, Profile, Sealing, Threads, be_zygote};

use crate::protocol::{FromTask, TASK_ARGUMENT, TASK_PROGRAM_NAME};
pub(crate) use grant::check_challenge;
use link::Link;

/// Descriptors a task process may have open: its objects, a few outputs at a time, memory files of the engine.
const OPEN_FILES: u64 = 512;

/// What a task process has to know before it seals itself. Travels as arguments of its zygote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessLimits {
    /// Private writable memory; lowered to what the task's spec allows once there is one.
    pub data_bytes: u64,
    /// Largest size of a scratch store or sealed output.
    pub file_bytes: u64,
}

impl ProcessLimits {
    /// The whole argument vector of a zygote of task processes, its name first.
    pub fn arguments(self) -> [String; 4] {
        [TASK_PROGRAM_NAME.into(), TASK_ARGUMENT.into(), self.data_bytes.to_string(), self.file_bytes.to_string()]
    }

    fn parse<'a>(mut arguments: impl Iterator<Item = &'a OsStr>) -> Option<Self> {
        let mut number = || arguments.next()?.to_str()?.parse().ok();
        let limits = Self { data_bytes: number()?, file_bytes: number()? };
        arguments.next().is_none().then_some(limits)
    }

    fn profile(self) -> Profile {
        let mut profile = Profile::default();
        profile.data_bytes = self.data_bytes;
        profile.file_bytes = self.file_bytes;
        profile.open_files = OPEN_FILES;
        profile.threads = Threads::Refused;
        profile.memory_locking = MemoryLocking::EverythingIfPermitted;
        profile
    }
}

/// Becomes the zygote of task processes if this program was started as one, and returns a task's exit code when it is over; `None`: this is
/// an ordinary start.
///
/// To be called first thing in `main` of every program whose node runs tasks, before any thread, argument parser or log:
/// a process with threads cannot be sealed.
#[must_use]
pub fn run_if_task_process() -> Option<ExitCode> {
    let arguments: Vec<_> = std::env::args_os().take(8).collect();
    let mut arguments = arguments.iter().map(std::ffi::OsString::as_os_str);
    if arguments.next()? != TASK_PROGRAM_NAME || arguments.next()? != TASK_ARGUMENT {
        return None;
    }
    Some(match ProcessLimits::parse(arguments) {
        Some(limits) => process_main(limits),
        None => ExitCode::from(EXIT_USAGE),
    })
}

/// Started by something that is not our agent.
const EXIT_USAGE: u8 = 64;
/// Could not be sealed; the agent has been told where that was possible.
const EXIT_NOT_SEALED: u8 = 70;
/// The channel broke, or the system gave no randomness: there is nobody to tell or nothing to say.
const EXIT_BROKEN: u8 = 71;

fn process_main(limits: ProcessLimits) -> ExitCode {
    let Ok(sealing) = Sealing::new(limits.profile()) else { return ExitCode::from(EXIT_NOT_SEALED) };
    let warm = engine::Warm::new();
    // From here on in a copy. What it keeps secret is made of randomness that it asks the system for.
    let Ok(born) = be_zygote(&sealing) else { return ExitCode::from(EXIT_NOT_SEALED) };
    let Ok(in_force) = sealing.enter(born) else { return ExitCode::from(EXIT_NOT_SEALED) };
    let Ok(link) = Link::inherited() else { return ExitCode::from(EXIT_BROKEN) };
    match serve(link, warm, &in_force) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Broken) => ExitCode::from(EXIT_BROKEN),
    }
}

/// The process cannot go on and nobody can be told: the agent sees it end and reports in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Broken;

fn serve(mut link: Link, warm: engine::Warm, in_force: &starminer_sandbox::InForce) -> Result<(), Broken> {
    let in_force_text = String::from_utf8(in_force.encode()).map_err(|_| Broken)?;
    link.send(&FromTask::Ready { in_force: in_force_text })?;
    let sandbox = crate::posture::names_in_force(in_force);
    let Some(waiting) = run::Waiting::for_lease(&mut link, sandbox)? else { return Ok(()) };
    let granted = waiting.for_grant(&mut link)?;
    granted.run(&mut link, warm)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_travel_as_arguments() {
        let check = |arguments: &[&str], expect| {
            assert_eq!(ProcessLimits::parse(arguments.iter().map(OsStr::new)), expect, "{arguments:?}");
        };
        let limits = ProcessLimits { data_bytes: 7, file_bytes: 9 };
        let arguments = limits.arguments();
        assert_eq!(arguments[..2], [TASK_PROGRAM_NAME, TASK_ARGUMENT]);
        check(&[&arguments[2], &arguments[3]], Some(limits));
        check(&["7"], None);
        check(&["7", "9", "1"], None);
        check(&["7", "-9"], None);
        check(&["7", ""], None);
    }

    #[test]
    fn an_ordinary_start_is_no_task_process() {
        assert!(run_if_task_process().is_none());
    }
}
