//! The supervisor's handle on a single-use task process.
//!
//! A task process starts as the copy of a zygote and, inside [`crate::Sealing::enter`], replaces itself once: entering a PID
//! namespace takes a fork. Copy and successor are made as our own children (`CLONE_PARENT`) and hand us a descriptor of
//! themselves, so the supervisor waits for, bills and kills the one process that runs the guest. [`crate::Zygote::copy`]
//! returns after the second hand-over, while the rest of the sealing goes on in the task process.
//!
//! Not here: what is sent over the channel, and whether what is in force suffices.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::channel::{Channel, ChannelError, Kind, Message};
use crate::spawn::{StartFailure, Started};
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
    /// The program ran, but did not call [`crate::Sealing::enter`] in time, or ended first.
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

impl SpawnError {
    /// The process itself said why it is not sealed.
    pub(crate) fn not_sealed(message: &Message) -> Self {
        Self::NotSealed(failure_text(&message.bytes))
    }

    /// It did not come as far as that, as its channel and its end show.
    pub(crate) fn never_entered(error: &ChannelError, ended: impl FnOnce() -> Option<Exit>) -> Self {
        let why = match error {
            ChannelError::Closed => match ended() {
                Some(exit) => format!("it ended first: {:?}", exit.status),
                None => "it closed its channel".into(),
            },
            ChannelError::TimedOut => "it kept silent".into(),
            other => other.to_string(),
        };
        Self::NeverEntered { why }
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

/// A process that runs but has not handed over its successor yet. Dropping it ends whatever it has become.
#[derive(Debug)]
pub(crate) struct Starting {
    /// The process that began; gone once it was reaped.
    first: Option<Started>,
}

impl Starting {
    /// Waits for the process at the other end of a channel to begin.
    ///
    /// # Errors
    /// It does not, in time.
    pub(crate) fn begin(channel: &mut Channel) -> Result<Self, ChannelError> {
        let mut begun = channel.recv_kind(Kind::Begun, Some(HAND_OVER_TIMEOUT))?;
        let first = begun.fds.pop().and_then(child_behind).ok_or(ChannelError::Malformed("it began as no child"))?;
        Ok(Self { first: Some(first) })
    }

    /// Waits for the hand-over.
    pub(crate) fn finish(self, channel: &mut Channel) -> Result<TaskProcess, SpawnError> {
        match channel.recv_kind(Kind::Adopt, Some(HAND_OVER_TIMEOUT)) {
            Ok(message) => self.adopt(message),
            Err(error) => Err(SpawnError::never_entered(&error, || ended_within(&self.first.as_ref()?.pidfd))),
        }
    }

    /// Takes over the process whose descriptor came with the hand-over.
    fn adopt(mut self, mut message: Message) -> Result<TaskProcess, SpawnError> {
        let Some(pidfd) = message.fds.pop() else {
            // The other answer that `recv_kind(Adopt)` lets through has no descriptor: the reason of a failure.
            return Err(SpawnError::not_sealed(&message));
        };
        let odd = |why: &str| SpawnError::NeverEntered { why: why.into() };
        let Started { pid, pidfd } =
            child_behind(pidfd).ok_or_else(|| odd("it handed over a process that is not ours"))?;
        // The first process exits right after it made the successor.
        let first = self.first.take().ok_or_else(|| odd("it handed over twice"))?;
        let first = wait_for(libc::P_PIDFD, first.pidfd.as_raw_fd(), 0).ok().flatten();
        let start_cpu = first.map_or_else(Default::default, |exit| (exit.cpu_user, exit.cpu_system));
        Ok(TaskProcess { pidfd, pid, exit: None, start_cpu })
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(first) = &self.first {
            end_group(first);
        }
    }
}

/// Ends and reaps a child and what has come of it, which is in the group that it leads: a successor cannot leave that.
pub(crate) fn end_group(leader: &Started) {
    // It may be about to lead a group, and make a successor in it. Once it is dead it does neither; and while it is not
    // reaped, the group's number cannot belong to anyone else.
    let _ = kill(&leader.pidfd);
    let _ = wait_for(libc::P_PIDFD, leader.pidfd.as_raw_fd(), libc::WNOWAIT);
    // SAFETY: kill touches no memory; the group is ours as said above.
    unsafe { libc::kill(-leader.pid, libc::SIGKILL) };
    while let Ok(Some(_)) = wait_for(libc::P_PGID, leader.pid, 0) {}
    // If it never led one.
    let _ = wait_for(libc::P_PIDFD, leader.pidfd.as_raw_fd(), 0);
}

/// How a child ended, if it has, without reaping it. Its channel closes a moment before that can be seen.
pub(crate) fn ended_within(pidfd: &OwnedFd) -> Option<Exit> {
    let _ = sys::retry(|| sys::poll(pidfd.as_fd(), libc::POLLIN, Some(ENDING_TIMEOUT)));
    wait_for(libc::P_PIDFD, pidfd.as_raw_fd(), libc::WNOHANG | libc::WNOWAIT).ok().flatten()
}

/// A process as its descriptor was handed to us. Only a child of ours can be waited for, so this refuses everyone else.
fn child_behind(pidfd: OwnedFd) -> Option<Started> {
    let pid = pid_behind(&pidfd)?;
    wait_for(libc::P_PIDFD, pidfd.as_raw_fd(), libc::WNOHANG | libc::WNOWAIT).ok()?;
    Some(Started { pid, pidfd })
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
