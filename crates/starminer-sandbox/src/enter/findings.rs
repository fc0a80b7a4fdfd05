//! From what the kernel answered to the state of each protection.
//!
//! One function, one rule a protection: the meaning of the posture names. `specs/sandbox.md`, section "Protections",
//! repeats them for people. Runs inside the system call filter, so it asks the kernel only `prctl` and `prlimit64`.

use super::limits;
use super::namespaces::{Links, Unshared};
use super::own_proc::Status;
use crate::in_force::{Protection, State};
use crate::profile::Profile;
use crate::sys;

/// Everything that was found out.
pub(super) struct Findings<'a> {
    pub(super) profile: &'a Profile,
    pub(super) host: Links,
    pub(super) namespaces: Links,
    pub(super) unshared: Unshared,
    /// Why user 0 could not be left behind, if so.
    pub(super) root_kept: Option<String>,
    pub(super) empty_root: Result<(), String>,
    pub(super) landlock: State,
    pub(super) keys_locked: State,
    /// Read after everything was put in force.
    pub(super) status: Status,
}

impl Findings<'_> {
    pub(super) fn state(&self, protection: Protection) -> State {
        match protection {
            Protection::NoNetwork => self.no_network(),
            Protection::NoNewPrivileges => {
                State::from(self.status.no_new_privs == 1, || "the kernel says it is not set".into())
            }
            Protection::Seccomp => self.seccomp(),
            Protection::UserNamespace => made(&self.unshared.user, self.namespaces.user != self.host.user),
            Protection::MountNamespace => made(&self.empty_root, self.namespaces.mount != self.host.mount),
            Protection::PidNamespace => {
                // Its id reads 1 at the end of a list that starts with the id outside.
                let first = matches!(self.status.namespace_pids[..], [_, .., 1]);
                made(&self.unshared.pid, first && self.namespaces.pid != self.host.pid)
            }
            Protection::Landlock => self.landlock.clone(),
            Protection::Rlimits => match limits::broken(self.profile, &self.unshared) {
                None => State::InForce,
                Some(reason) => State::Absent(reason),
            },
            Protection::NonDumpable => State::from(not_dumpable(), || "the kernel says it is dumpable".into()),
            Protection::CoreDumpsOff => self.core_dumps_off(),
            Protection::KeysLocked => self.keys_locked.clone(),
            Protection::CapabilitiesDropped => self.capabilities_dropped(),
            Protection::PtraceRefused => self.ptrace_refused(),
        }
    }

    fn seccomp(&self) -> State {
        State::from(self.status.seccomp == 2, || format!("the kernel reports mode {}", self.status.seccomp))
    }

    /// Without a filter that refuses `socket` an empty namespace alone would do, and the other way round.
    fn no_network(&self) -> State {
        let separate = self.unshared.network.is_ok()
            && self.namespaces.network.is_some()
            && self.namespaces.network != self.host.network;
        State::from(separate || self.seccomp().is_in_force(), || {
            "neither a network namespace nor the system call filter is in force".into()
        })
    }

    /// The limit alone does not stop a dump that is piped to a handler; being non-dumpable does.
    fn core_dumps_off(&self) -> State {
        let no_size = sys::limit(libc::RLIMIT_CORE).is_ok_and(|limit| limit.hard == 0);
        State::from(no_size && not_dumpable(), || "the core size limit or the dumpable flag does not hold".into())
    }

    /// The bounding set can only be emptied with a capability; where that lacked, no-new-privileges makes it void.
    fn capabilities_dropped(&self) -> State {
        if let Some(reason) = &self.root_kept {
            return State::Absent(reason.clone());
        }
        let status = &self.status;
        let none = status.capabilities_usable == 0 && (status.capabilities_bounding == 0 || status.no_new_privs == 1);
        State::from(none, || {
            format!("usable {:x}, bounding {:x}", status.capabilities_usable, status.capabilities_bounding)
        })
    }

    fn ptrace_refused(&self) -> State {
        let seccomp = self.seccomp();
        if self.status.tracer_pid != 0 {
            return State::Absent("a tracer is attached".into());
        }
        State::from(not_dumpable() && seccomp.is_in_force(), || "it is dumpable, or may trace others".into())
    }
}

/// Made, and seen to differ from the host's.
fn made(attempt: &Result<(), String>, differs: bool) -> State {
    match attempt {
        Err(reason) => State::Absent(reason.clone()),
        Ok(()) => State::from(differs, || "it is the host's".into()),
    }
}

fn not_dumpable() -> bool {
    sys::prctl(libc::PR_GET_DUMPABLE, 0, 0).is_ok_and(|dumpable| dumpable == 0)
}
