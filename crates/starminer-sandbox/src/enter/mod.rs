//! Sealing the calling process, before the first guest byte.
//!
//! The order is what makes it work, and each step says in its module why it stands where it does; the whole of it is
//! in `specs/sandbox.md`, section "Order". At the end every protection is read back from the kernel: [`InForce`] never
//! repeats what was intended.
//!
//! Not here: judging whether what is in force suffices, beyond what the caller's [`Profile`] demands.

mod capabilities;
mod file_system;
mod findings;
mod identity;
mod limits;
mod namespaces;
mod own_proc;
pub(crate) mod successor;
mod system_calls;

use std::io;

use crate::in_force::{InForce, Protection, State};
use crate::profile::{MemoryLocking, Profile};
use crate::secrets::{self, LockedBytes};
use crate::sys::{self, Limit};
use findings::Findings;
pub use limits::{ResourceLimit, tighten};
use namespaces::Surroundings;
use own_proc::{OwnProc, Status};

/// Why a process could not be sealed. It may be half sealed: the caller must report and exit.
#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    /// There is no channel at [`crate::CHANNEL_FD`].
    #[error("this process was not started as a task process")]
    NotATaskProcess,
    /// Sealing binds one thread; the others would stay outside.
    #[error("a process with {0} threads cannot be sealed: enter must come before the first thread is started")]
    Threads(u64),
    /// The supervisor is gone, and nobody would collect the result.
    #[error("the supervisor is gone")]
    SupervisorGone,
    /// The kernel refused a step that no task may run without.
    #[error("sealing failed: could not {step}")]
    Step {
        /// What was tried.
        step: &'static str,
        /// Why the kernel refused.
        #[source]
        source: io::Error,
    },
    /// The system call filter could not be built or installed.
    #[error("the system call filter could not be installed")]
    Filter(#[source] seccompiler::Error),
    /// A protection that the profile demands is not in force.
    #[error("the profile demands {protection}, which is absent: {reason}")]
    Missing {
        /// The protection.
        protection: Protection,
        /// Why it is absent.
        reason: String,
    },
}

impl EnterError {
    /// A stable code for logs and reports.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotATaskProcess => "sandbox.not-a-task-process",
            Self::Threads(_) => "sandbox.threads",
            Self::SupervisorGone => "sandbox.supervisor-gone",
            Self::Step { .. } => "sandbox.step",
            Self::Filter(_) => "sandbox.filter",
            Self::Missing { .. } => "sandbox.missing",
        }
    }
}

/// Names the step that failed.
pub(crate) trait Step<T> {
    fn step(self, step: &'static str) -> Result<T, EnterError>;
}

impl<T> Step<T> for io::Result<T> {
    fn step(self, step: &'static str) -> Result<T, EnterError> {
        self.map_err(|source| EnterError::Step { step, source })
    }
}

/// That the calling process is the copy of a zygote, and where the zygote stood. See [`crate::be_zygote`].
#[derive(Debug)]
#[must_use = "a copy has to be sealed before anything else"]
pub struct Born(Surroundings);

/// How a process is to be sealed, with all that can be made ready before there is one: a zygote makes it once for all its
/// copies.
#[derive(Debug)]
pub struct Sealing {
    profile: Profile,
    /// For the first process of a PID namespace.
    filters: system_calls::Filters,
}

impl Sealing {
    /// # Errors
    /// [`EnterError::Filter`]: the system call filter cannot be built.
    pub fn new(profile: Profile) -> Result<Self, EnterError> {
        let filters = system_calls::Filters::build(&profile, system_calls::FIRST_PROCESS)?;
        Ok(Self { profile, filters })
    }

    /// In a zygote, before its first copy: gives up what all its copies can do without. What each copy was born into.
    pub(crate) fn surroundings(&self) -> Result<impl Fn() -> Born + use<>, EnterError> {
        let surroundings = Surroundings::leave(&self.profile).step("read the host's namespaces")?;
        Ok(move || Born(surroundings))
    }

    /// Seals the calling process, which must be the copy of a zygote ([`crate::be_zygote`]), and says what is in force.
    ///
    /// To be called first thing in the copy, with what made it: before any thread, any [`crate::LockedBytes`] and any byte from a stranger.
    /// It returns in another process than it was called in: the caller's process has ended, and its copy goes on.
    ///
    /// # Errors
    /// If the kernel refuses a step that no task may run without, or the profile demands a protection that is absent.
    /// Protections that some kernels lack are otherwise reported absent. After an error the process must exit.
    pub fn enter(&self, born: Born) -> Result<InForce, EnterError> {
        let isolation = match prepare(&self.profile, born.0).and_then(|prepared| {
            successor::replace_this_process()?;
            Ok(prepared)
        }) {
            Ok(prepared) => prepared,
            Err(error) => {
                // The supervisor still waits for the hand-over and reads nothing else, so the reason has to go this way.
                successor::report_failure(&error);
                return Err(error);
            }
        };
        let in_force = self.seal(isolation)?;
        let missing = Protection::ALL.into_iter().filter(|wanted| self.profile.required.contains(*wanted));
        for protection in missing {
            if let State::Absent(reason) = in_force.state(protection) {
                return Err(EnterError::Missing { protection, reason: reason.clone() });
            }
        }
        Ok(in_force)
    }

    /// In the successor: builds the cage around itself and reads back what holds.
    fn seal(&self, prepared: Prepared) -> Result<InForce, EnterError> {
        let profile = &self.profile;
        let Prepared { host, unshared, root_kept } = prepared;
        // For `ps` and the kernel's log; a zygote is called "exe" after the file that was executed.
        // SAFETY: the string is NUL-terminated and shorter than the kernel's 16 bytes.
        unsafe { libc::prctl(libc::PR_SET_NAME, c"starminer-task".as_ptr()) };
        // While /proc can still be reached; the descriptors keep working inside the empty root.
        let own = OwnProc::open().step("open /proc/self")?;
        let empty_root = file_system::empty_root(profile, &unshared);
        let namespaces = namespaces::Links::read(&own).step("read the own namespaces")?;
        capabilities::drop_all();
        limits::apply(profile, &unshared).step("set the resource limits")?;
        let landlock = file_system::landlock(profile, &own);
        let memory_lock = MemoryLock::ask(profile);
        match std::process::id() {
            system_calls::FIRST_PROCESS => self.filters.install()?,
            // Where the kernel gives no PID namespace.
            own => system_calls::Filters::build(profile, own)?.install()?,
        }
        // From here on only the allow-list is left, and everything below keeps to it.
        let status = own.status().step("read back /proc/self/status")?;
        let keys_locked = memory_lock.state(&status);
        let findings =
            Findings { profile, host, namespaces, unshared, root_kept, empty_root, landlock, keys_locked, status };
        Ok(InForce::new(|protection| findings.state(protection)))
    }
}

/// How many threads this process has.
pub(crate) fn own_threads() -> Result<u64, EnterError> {
    let own = OwnProc::open().step("open /proc/self")?;
    Ok(own.status().step("read /proc/self/status")?.threads)
}

/// What the first process found out and its successor needs.
struct Prepared {
    host: namespaces::Links,
    unshared: namespaces::Unshared,
    root_kept: Option<String>,
}

/// In the first process: gives up what it has, as far as that takes effect in its successor.
fn prepare(profile: &Profile, surroundings: Surroundings) -> Result<Prepared, EnterError> {
    let threads = own_threads()?;
    if threads != 1 {
        return Err(EnterError::Threads(threads));
    }
    // First, because it makes everything below irreversible: no program that this process could execute gets more
    // rights than it has, and Landlock and seccomp ask for it.
    sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).step("set no-new-privileges")?;
    sys::set_limit(libc::RLIMIT_CORE, Limit { soft: 0, hard: 0 }).step("turn core dumps off")?;
    limits::raise_memory_lock();
    let root_kept = identity::give_up_root().step("stop being root")?;
    let unshared = namespaces::unshare(profile, &surroundings);
    // Writing the id maps of the new user namespace made it dumpable. The flag outlives the fork below, so the successor
    // was never readable by other processes of the user.
    sys::prctl(libc::PR_SET_DUMPABLE, 0, 0).step("become non-dumpable")?;
    Ok(Prepared { host: surroundings.host, unshared, root_kept })
}

/// What came of asking for memory that is not swapped.
enum MemoryLock {
    Skipped,
    /// A trial secret; the kernel counts its pages while it lives.
    Trial(io::Result<LockedBytes>),
}

impl MemoryLock {
    /// Locks what the profile asks for, and makes a trial secret.
    fn ask(profile: &Profile) -> Self {
        if profile.skipped.contains(Protection::KeysLocked) {
            return Self::Skipped;
        }
        if profile.memory_locking == MemoryLocking::EverythingIfPermitted {
            // Where it is refused, the trial shows whether at least secrets are locked.
            let _ = secrets::lock_process();
        }
        Self::Trial(LockedBytes::zeroed(1))
    }

    /// Whether the kernel, not this process, counts locked memory. Nothing was locked before the trial.
    fn state(self, status: &Status) -> State {
        match self {
            Self::Skipped => State::Absent("switched off by the profile".into()),
            Self::Trial(Ok(trial)) if trial.is_locked() && status.locked_bytes > 0 => State::InForce,
            Self::Trial(Ok(_)) => State::Absent("the kernel refuses to lock memory (RLIMIT_MEMLOCK)".into()),
            Self::Trial(Err(error)) => State::Absent(format!("memory for secrets cannot be had: {error}")),
        }
    }
}
