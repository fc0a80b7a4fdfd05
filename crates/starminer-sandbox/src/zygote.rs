//! A program that is started once, makes ready what every task needs, and from then on only copies itself.
//!
//! Executing a large program and relocating it costs more than all the sealing. A zygote pays for that once; each task
//! process is a copy of it (`fork`), made before there is anything in its memory that belongs to a task: a zygote reads
//! nothing but requests to copy itself, which carry one descriptor and not one byte.
//!
//! What copies share is the layout of their addresses, the canary of their stacks, the keys of their hash maps, and, where the
//! zygote had the right to make one for all, a network namespace in which is nothing. A
//! supervisor bounds how many share them by starting a new zygote every so often; what a copy keeps secret has to come
//! from the operating system's randomness, after the copy.
//!
//! The copy is a child of the supervisor (`CLONE_PARENT`), as if the supervisor had started it: see [`crate::TaskProcess`].

use std::ffi::OsStr;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd as _, IntoRawFd as _, OwnedFd};

use crate::channel::{self, CHANNEL_FD, Channel, ChannelError, Kind};
use crate::enter::{Born, EnterError, Sealing, Step as _, own_threads, successor};
use crate::process::{SpawnError, Starting, TaskProcess, end_group, ended_within};
use crate::spawn::{Program, Start, Started, Stderr, duplicate_above};
use crate::sys::{self, Limit};

/// The supervisor's handle on a zygote. Dropping it ends the zygote; its copies live on.
#[derive(Debug)]
pub struct Zygote {
    channel: Channel,
    started: Started,
}

impl Zygote {
    /// Starts `program` with `arguments` (the first is its name) and a channel: about a millisecond, blocking the calling
    /// thread.
    ///
    /// The program has nothing but `/dev/null` at 0, 1 and 2 and the channel at [`crate::CHANNEL_FD`], an empty
    /// environment, default signals, and a session of its own. It is killed if the supervisor dies. It must call
    /// [`be_zygote`].
    ///
    /// # Errors
    /// If the operating system refuses.
    pub fn start(
        program: &Program,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
        stderr: Stderr,
    ) -> Result<Self, SpawnError> {
        let (channel, theirs) =
            Channel::pair().map_err(|source| SpawnError::Start { step: "make a channel", source })?;
        let start = Start::new(program, arguments, stderr, theirs.into_socket()).map_err(|_| SpawnError::Argument)?;
        Ok(Self { channel, started: start.start()? })
    }

    /// Has it copy itself, and waits until the copy has handed over its final process: about a millisecond, blocking the
    /// calling thread. The first call also waits for the program to become a zygote.
    ///
    /// The copy has a channel of its own at [`crate::CHANNEL_FD`], otherwise what the program was started with, and must
    /// call [`crate::Sealing::enter`] first thing.
    ///
    /// # Errors
    /// If the program is no zygote or the copy does not report back; the copy is then gone, and of the zygote nothing
    /// should be expected any more.
    pub fn copy(&mut self) -> Result<(TaskProcess, Channel), SpawnError> {
        let (mut channel, theirs) =
            Channel::pair().map_err(|source| SpawnError::Start { step: "make a channel", source })?;
        let theirs = theirs.into_socket();
        if let Err(error) = self.channel.send_kind(Kind::Copy, &[], &[theirs.as_fd()]) {
            return Err(self.explain(&error));
        }
        // From here on the zygote alone has it, so that its end shows.
        drop(theirs);
        match Starting::begin(&mut channel) {
            Ok(starting) => Ok((starting.finish(&mut channel)?, channel)),
            Err(error) => Err(self.explain(&error)),
        }
    }

    /// Its process id as this process sees it.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.started.pid.unsigned_abs()
    }

    /// Why there is no copy.
    fn explain(&mut self, error: &ChannelError) -> SpawnError {
        // It may have said so itself.
        match self.channel.recv_kind(Kind::Failed, Some(std::time::Duration::ZERO)) {
            Ok(message) => SpawnError::not_sealed(&message),
            // What it sent otherwise is the better explanation of why it is none.
            Err(bad @ ChannelError::Malformed(_)) => SpawnError::never_entered(&bad, || None),
            Err(_) => SpawnError::never_entered(error, || ended_within(&self.started.pidfd)),
        }
    }
}

impl Drop for Zygote {
    fn drop(&mut self) {
        // It leads a group, in which are also those copies that did not come as far as leaving it.
        end_group(&self.started);
    }
}

/// Turns the calling process, which [`Zygote::start`] must have started, into a zygote whose copies are sealed with `sealing`. Returns in
/// its copies only: the zygote itself ends within this call, when its supervisor lets go of it.
///
/// To be called before any thread is started and before anything of a task is in memory.
///
/// # Errors
/// In the zygote: it was not started as one, has threads, or the kernel refuses to protect it; the supervisor has been
/// told. In a copy: the kernel refuses a step, or the supervisor is gone. Either way the process must exit.
pub fn be_zygote(sealing: &Sealing) -> Result<Born, EnterError> {
    if !channel::inherited_socket_exists() {
        return Err(EnterError::NotATaskProcess);
    }
    let (supervisor, born) = protect()
        .and_then(|supervisor| Ok((supervisor, sealing.surroundings()?)))
        .inspect_err(successor::report_failure)?;
    let control = duplicate_above(CHANNEL_FD).step("duplicate the channel")?;
    // In a copy every descriptor is closed by its number; nothing of this may be dropped there.
    let mut control = ManuallyDrop::new(Channel::over(control));
    loop {
        let request = control.recv_kind(Kind::Copy, None);
        let Some(socket) = request.ok().and_then(|mut request| request.fds.pop()) else {
            // SAFETY: ends this process, which owns nothing that would have to be put in order.
            unsafe { libc::_exit(0) };
        };
        // SAFETY: like fork: the process has one thread, so the copy has every lock in a known state. No stack is given,
        // so the copy continues on its own copy of this one. Nothing needs the C library's fork handlers: no thread has
        // existed, and the cached thread id is only ever compared with itself.
        let pid = unsafe { libc::syscall(libc::SYS_clone, libc::CLONE_PARENT | libc::SIGCHLD, 0, 0, 0, 0) };
        if pid == 0 {
            return begin(socket, supervisor).map(|()| born());
        }
        // Where there was no room for a copy, the end of its channel tells the supervisor.
        drop(socket);
    }
}

/// Makes the zygote, which lives long, no easier to get into than its supervisor. Gives the supervisor's process id.
fn protect() -> Result<libc::pid_t, EnterError> {
    let threads = own_threads()?;
    if threads != 1 {
        return Err(EnterError::Threads(threads));
    }
    sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).step("set no-new-privileges")?;
    sys::set_limit(libc::RLIMIT_CORE, Limit { soft: 0, hard: 0 }).step("turn core dumps off")?;
    sys::prctl(libc::PR_SET_DUMPABLE, 0, 0).step("become non-dumpable")?;
    // SAFETY: no preconditions.
    Ok(unsafe { libc::getppid() })
}

/// In a copy: what [`crate::spawn`] does for a program, and word to the supervisor that it has a child.
fn begin(socket: OwnedFd, supervisor: libc::pid_t) -> Result<(), EnterError> {
    // A fork forgets it.
    sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as u64, 0).step("ask to die with the supervisor")?;
    // SAFETY: no preconditions.
    if unsafe { libc::getppid() } != supervisor {
        return Err(EnterError::SupervisorGone);
    }
    let socket = socket.into_raw_fd();
    // SAFETY: descriptors of this process alone; every owner of one that is closed here has given it up.
    sys::check(unsafe { libc::dup2(socket, CHANNEL_FD) }).step("place its channel")?;
    // SAFETY: as above.
    sys::check(unsafe { libc::syscall(libc::SYS_close_range, CHANNEL_FD + 1, u32::MAX, 0) })
        .step("close all other descriptors")?;
    // Before it leaves the zygote's group: until then the supervisor finds it there, from now on by this.
    successor::hand_over(Kind::Begun)?;
    // SAFETY: no memory is passed.
    sys::check(unsafe { libc::setsid() }).step("make a session of its own")?;
    Ok(())
}
