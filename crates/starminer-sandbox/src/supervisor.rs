//! Hardening of a process that supervises tasks or releases keys: agent, broker, command line.
//!
//! Against other processes of the same user, not against root. It does not restrict what the process itself can do;
//! that is for task processes ([`crate::Sealing::enter`]).

use std::io;

use crate::sys::{self, Limit};

/// Environment variables by which somebody else's code is loaded into a program before its `main`.
const INJECTING_VARIABLES: [&str; 2] = ["LD_PRELOAD", "LD_AUDIT"];

/// What a supervisor got, beyond what it demands (non-dumpable, core dumps off, no tracer, no injected code).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hardened {
    /// Whether the kernel's Yama module is there and now refuses every tracer of this process, by its own rule too.
    pub yama: bool,
}

/// Why a supervisor must not start.
#[derive(Debug, thiserror::Error)]
pub enum HardenError {
    /// Another process traces this one, and can read every key.
    #[error("process {tracer} is tracing this one and could read its keys; start it without a debugger or strace")]
    Traced {
        /// The tracer's process id.
        tracer: u64,
    },
    /// Code of somebody else was loaded into this process.
    #[error("{variable} is set, so foreign code runs in this process; unset it and start again")]
    Injected {
        /// The environment variable.
        variable: &'static str,
    },
    /// The kernel refused.
    #[error("could not {step}")]
    Step {
        /// What was tried.
        step: &'static str,
        /// Why the kernel refused.
        #[source]
        source: io::Error,
    },
}

impl HardenError {
    /// A stable code for logs and the command line.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Traced { .. } => "sandbox.traced",
            Self::Injected { .. } => "sandbox.injected",
            Self::Step { .. } => "sandbox.harden",
        }
    }
}

/// Hardens the calling process for the rest of its life. To be called at the start, before any key is read.
///
/// Core dumps go off, other processes of the user can no longer read its memory or attach a tracer.
///
/// # Errors
/// If it is traced already, was started with code injected by the dynamic loader, or the kernel refuses.
pub fn harden_supervisor() -> Result<Hardened, HardenError> {
    for variable in INJECTING_VARIABLES {
        if std::env::var_os(variable).is_some_and(|value| !value.is_empty()) {
            return Err(HardenError::Injected { variable });
        }
    }
    let step = |step| move |source| HardenError::Step { step, source };
    sys::set_limit(libc::RLIMIT_CORE, Limit { soft: 0, hard: 0 }).map_err(step("turn core dumps off"))?;
    sys::prctl(libc::PR_SET_DUMPABLE, 0, 0).map_err(step("become non-dumpable"))?;
    // No process is an exception to Yama's rule. Without Yama the kernel does not know the option.
    let yama = sys::prctl(libc::PR_SET_PTRACER, 0, 0).is_ok();
    // After becoming non-dumpable, so that a tracer cannot slip in behind the check.
    match tracer().map_err(step("read /proc/self/status"))? {
        0 => Ok(Hardened { yama }),
        tracer => Err(HardenError::Traced { tracer }),
    }
}

/// The process that traces this one; 0 if none. A status without that line counts as traced.
fn tracer() -> io::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
    Ok(line.and_then(|pid| pid.trim().parse().ok()).unwrap_or(u64::MAX))
}
