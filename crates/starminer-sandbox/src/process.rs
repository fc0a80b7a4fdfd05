//! The supervisor's handle on a single-use task process.
//!
//! A task process starts as one program and, inside [`crate::enter`], replaces itself once: entering a PID namespace
//! takes a fork. The successor is made as our own child (`CLONE_PARENT`) and hands us a descriptor of itself, so the
//! supervisor waits for, bills and kills the one process that runs the guest. [`TaskProcess::spawn`] returns after that
//! hand-over, while the rest of the sealing goes on in the task process.
//!
//! Not here: what is sent over the channel, and whether what is in force suffices.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::channel::{Channel, ChannelError, Kind, Message};
use crate::spawn::{Program, Start, StartFailure, Started, Stderr};
use crate::sys;

/// How long a program may take from its start until it hands over its final process.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a process that closed its channel is given to end by itself, for a better error message.
const ENDING_TIMEOUT: Duration = Duration::from_millis(100);
/// Longest part of a failure text of the task process that is repeated, in bytes.
const MAX_FAILURE_BYTES: usize = 512;

/// A task process that could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The program path or an argument contains a NUL byte.
    #[error("the task program or one of its arguments contains a NUL byte")]
    Argument,
    /// The operating system refused a step before the program ran.
    #[error("starting a task process failed: could not {step}")]
    Start {
        /// What was tried.
        step: &'static str,
        /// Why the operating system refused.
        #[source]
        source: io::Error,
    },
    /// The program ran, but did not call [`crate::enter`] in time, or ended first.
    #[error("the task process never reported back ({why})")]
    NeverEntered {
        /// How it ended, or that it kept silent.
        why: String,
    },
    /// The task process could not seal itself.
    #[error("the task process could not seal itself: {0}")]
    NotSealed(String),
}

impl SpawnError {
    /// A stable code for logs and reports.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Argument => "sandbox.argument",
            Self::Start { .. } => "sandbox.start",
            Self::NeverEntered { .. } => "sandbox.never-entered",
            Self::NotSealed(_) => "sandbox.not-sealed",
        }
    }
}

impl From<StartFailure> for SpawnError {
    fn from(failure: StartFailure) -> Self {
        Self::Start { step: failure.step, source: failure.error }
    }
}

/// How a task process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// It exited by itself with this code.
    Code(i32),
    /// This signal ended it: `SIGKILL` from its supervisor or the kernel's memory killer, `SIGSYS` from the system
    /// call filter, others from a fault of its own.
    Signal(i32),
}

impl ExitStatus {
    /// Whether it exited with code 0.
    #[must_use]
    pub const fn success(self) -> bool {
        matches!(self, Self::Code(0))
    }

    /// Whether the system call filter ended it.
    #[must_use]
    pub const fn broke_out(self) -> bool {
        matches!(self, Self::Signal(libc::SIGSYS))
    }
}

/// A task process that has ended and was reaped, with what it used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// How it ended.
    pub status: ExitStatus,
    /// CPU time in user mode.
    pub cpu_user: Duration,
    /// CPU time in the kernel.
    pub cpu_system: Duration,
    /// The most memory that was resident at once, in bytes.
    pub peak_resident_bytes: u64,
}

/// A running task process. Dropping it kills and reaps it.
#[derive(Debug)]
pub struct TaskProcess {
    pidfd: OwnedFd,
    pid: libc::pid_t,
    exit: Option<Exit>,
    /// CPU time of the process that became this one; billed to it.
    start_cpu: (Duration, Duration),
}

impl TaskProcess {
    /// Starts `program` with `arguments` (the first is its name) and a channel, and waits until it has handed over its
    /// final process: milliseconds, blocking the calling thread.
    ///
    /// The program has nothing but `/dev/null` at 0, 1 and 2 and the channel at [`crate::CHANNEL_FD`], an empty
    /// environment, default signals, and a session of its own. It is killed if the supervisor dies. It must call
    /// [`crate::enter`] first thing.
    ///
    /// # Errors
    /// If the operating system refuses, or the program does not report back; it is then gone.
    pub fn spawn(
        program: &Program,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
        stderr: Stderr,
    ) -> Result<(Self, Channel), SpawnError> {
        let (mut channel, theirs) =
            Channel::pair().map_err(|source| SpawnError::Start { step: "make a channel", source })?;
        let start = Start::new(program, arguments, stderr, theirs.into_socket()).map_err(|_| SpawnError::Argument)?;
        let starting = Starting { first: Some(start.start()?) };
        match channel.recv_kind(Kind::Adopt, Some(HAND_OVER_TIMEOUT)) {
            Ok(message) => Ok((starting.adopt(message)?, channel)),
            Err(error) => Err(starting.explain(&error)),
        }
    }

    /// Its process id as this process sees it; meaningful until it is reaped.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.unsigned_abs()
    }

    /// Kills it with `SIGKILL`. Doing so twice, or after it ended, is fine. It still has to be waited for or dropped.
    ///
    /// # Errors
    /// If the signal cannot be delivered for any other reason than that it has ended.
    pub fn kill(&self) -> io::Result<()> {
        kill(&self.pidfd)
    }

    /// Its exit, if it has ended. Reaps it.
    ///
    /// # Errors
    /// If somebody else in this process reaped it (a `waitpid(-1)`).
    pub fn try_wait(&mut self) -> io::Result<Option<Exit>> {
        self.reap(libc::WNOHANG)
    }

    /// Waits for it to end, blocking. Reaps it.
    ///
    /// # Errors
    /// As [`TaskProcess::try_wait`].
    pub fn wait(&mut self) -> io::Result<Exit> {
        let exit = self.reap(0)?;
        exit.ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }

    /// Waits for it to end, under tokio. Reaps it. Cancelling it loses nothing.
    ///
    /// # Errors
    /// As [`TaskProcess::try_wait`].
    pub async fn exited(&mut self) -> io::Result<Exit> {
        loop {
            if let Some(exit) = self.try_wait()? {
                return Ok(exit);
            }
            // A duplicate, so that the runtime's watch depends on nothing that could be dropped under it.
            let pidfd = self.pidfd.try_clone()?;
            // SAFETY: the runtime owns the duplicate, so the descriptor it watches stays open and the same.
            let watched = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }?;
            let _ended = watched.readable().await?;
        }
    }

    fn reap(&mut self, flags: libc::c_int) -> io::Result<Option<Exit>> {
        if self.exit.is_none() {
            self.exit = wait_for(libc::P_PIDFD, self.pidfd.as_raw_fd(), flags)?.map(|mut exit| {
                exit.cpu_user += self.start_cpu.0;
                exit.cpu_system += self.start_cpu.1;
                exit
            });
        }
        Ok(self.exit)
    }
}

/// The pidfd: readable once the process has ended.
impl AsFd for TaskProcess {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Drop for TaskProcess {
    fn drop(&mut self) {
        if self.exit.is_none() && self.kill().is_ok() {
            // A killed process ends in bounded time; after this nothing of it is left, not even an entry in the
            // process table. An error means that it was reaped behind our back.
            let _ = self.wait();
        }
    }
}

/// A program that runs but has not handed over yet. Dropping it ends whatever it has become.
struct Starting {
    /// The process that was started; gone once it was reaped.
    first: Option<Started>,
}

impl Starting {
    /// Takes over the process whose descriptor came with the hand-over.
    fn adopt(mut self, mut message: Message) -> Result<TaskProcess, SpawnError> {
        let Some(pidfd) = message.fds.pop() else {
            // The other answer that `recv_kind(Adopt)` lets through has no descriptor: the reason of a failure.
            return Err(SpawnError::NotSealed(failure_text(&message.bytes)));
        };
        let odd = |why: &str| SpawnError::NeverEntered { why: why.into() };
        let pid = pid_behind(&pidfd).ok_or_else(|| odd("it handed over no process"))?;
        // Only a child of ours can be waited for, so this also refuses a descriptor of somebody else's process.
        wait_for(libc::P_PIDFD, pidfd.as_raw_fd(), libc::WNOHANG | libc::WNOWAIT)
            .map_err(|_| odd("it handed over a process that is not ours"))?;
        // The first process exits right after it made the successor.
        let first = self.first.take().ok_or_else(|| odd("it handed over twice"))?;
        let first = wait_for(libc::P_PIDFD, first.pidfd.as_raw_fd(), 0).ok().flatten();
        let start_cpu = first.map_or_else(Default::default, |exit| (exit.cpu_user, exit.cpu_system));
        Ok(TaskProcess { pidfd, pid, exit: None, start_cpu })
    }

    /// Why there was no hand-over.
    fn explain(self, error: &ChannelError) -> SpawnError {
        let why = match error {
            ChannelError::Closed => match self.peek() {
                Some(exit) => format!("it ended first: {:?}", exit.status),
                None => "it closed its channel".into(),
            },
            ChannelError::TimedOut => "it kept silent".into(),
            other => other.to_string(),
        };
        SpawnError::NeverEntered { why }
    }

    /// How the first process ended, if it did, without reaping it. The channel closes a moment before that can be seen.
    fn peek(&self) -> Option<Exit> {
        let pidfd = &self.first.as_ref()?.pidfd;
        let _ = sys::retry(|| sys::poll(pidfd.as_fd(), libc::POLLIN, Some(ENDING_TIMEOUT)));
        wait_for(libc::P_PIDFD, pidfd.as_raw_fd(), libc::WNOHANG | libc::WNOWAIT).ok().flatten()
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        // The first process leads a group that its successor cannot leave, and while the first is not reaped the
        // group's number cannot belong to anyone else: so end and reap the whole group.
        let Some(first) = &self.first else { return };
        let group = first.pid;
        // SAFETY: kill touches no memory; the group is ours as said above.
        unsafe { libc::kill(-group, libc::SIGKILL) };
        while let Ok(Some(_)) = wait_for(libc::P_PGID, group, 0) {}
    }
}

fn failure_text(bytes: &[u8]) -> String {
    let bytes = &bytes[..bytes.len().min(MAX_FAILURE_BYTES)];
    String::from_utf8_lossy(bytes).chars().filter(|c| !c.is_control()).collect()
}

fn kill(pidfd: &OwnedFd) -> io::Result<()> {
    // SAFETY: no siginfo is passed, so the kernel dereferences nothing.
    let returned = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            libc::SIGKILL,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    match sys::check(returned) {
        Err(error) if error.raw_os_error() != Some(libc::ESRCH) => Err(error),
        _ => Ok(()),
    }
}

/// Reaps a process that is known to be ending.
pub(crate) fn reap_now(pidfd: &OwnedFd) {
    // Nothing to learn from it, and if it cannot be waited for it is not there.
    let _ = wait_for(libc::P_PIDFD, pidfd.as_raw_fd(), 0);
}

/// Waits for children as `kind` and `id` say. `None`: none has ended yet (only with `WNOHANG`).
fn wait_for(kind: libc::idtype_t, id: i32, flags: libc::c_int) -> io::Result<Option<Exit>> {
    // SAFETY: both are plain data for which all zero bytes are valid.
    let (mut info, mut usage): (libc::siginfo_t, libc::rusage) = unsafe { std::mem::zeroed() };
    sys::retry(|| {
        // SAFETY: `info` and `usage` are valid and writable; the raw call is needed because only it returns the usage.
        sys::check(unsafe {
            libc::syscall(libc::SYS_waitid, kind, id, &raw mut info, libc::WEXITED | flags, &raw mut usage)
        })
    })?;
    // SAFETY: waitid filled in the fields of a child's change of state, or left zeroes if there was none.
    let (pid, value) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 {
        return Ok(None);
    }
    let status = if info.si_code == libc::CLD_EXITED { ExitStatus::Code(value) } else { ExitStatus::Signal(value) };
    Ok(Some(Exit {
        status,
        cpu_user: duration(usage.ru_utime),
        cpu_system: duration(usage.ru_stime),
        // Linux counts it in KiB.
        peak_resident_bytes: u64::try_from(usage.ru_maxrss).unwrap_or(0).saturating_mul(1024),
    }))
}

fn duration(time: libc::timeval) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_micros(u64::try_from(time.tv_usec).unwrap_or(0))
}

/// The process id behind a pidfd, in this process's PID namespace.
fn pid_behind(pidfd: &OwnedFd) -> Option<libc::pid_t> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()?;
    (pid > 0).then_some(pid)
}
