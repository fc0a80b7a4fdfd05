//! The one fork of a task process: the caller ends, its copy goes on inside the new PID namespace.
//!
//! The copy is made a child of the supervisor rather than of the caller, and hands the supervisor a descriptor of
//! itself over the channel. It is made even where no PID namespace was to be had, so that there is one way only, and
//! because the copy's accounts start at zero: the caller's peak memory would include the supervisor's, on whose memory
//! it was born.

use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use super::{EnterError, Step};
use crate::channel::{CHANNEL_FD, Channel, Kind};
use crate::sys;

/// Ends the calling process and returns in its copy.
pub(crate) fn replace_this_process() -> Result<(), EnterError> {
    // SAFETY: like fork: the process has one thread, so the copy has every lock in a known state. No stack is given, so
    // the copy continues on its own copy of this one. Nothing needs the C library's fork handlers: no thread has
    // existed, and the cached thread id is only ever compared with itself.
    let pid = sys::check(unsafe { libc::syscall(libc::SYS_clone, libc::CLONE_PARENT | libc::SIGCHLD, 0, 0, 0, 0) })
        .step("make the process of the task")?;
    if pid != 0 {
        // SAFETY: ends this process without running what belongs to its copy now.
        unsafe { libc::_exit(0) };
    }
    // A fork forgets it. The supervisor's death also shows as the end of the channel, should it be dead already.
    sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as u64, 0).step("ask to die with the supervisor")?;
    hand_over(Kind::Adopt)
}

/// Sends the supervisor a descriptor of this process.
pub(crate) fn hand_over(kind: Kind) -> Result<(), EnterError> {
    // SAFETY: no preconditions; no memory is passed.
    let fd = sys::check(unsafe { libc::syscall(libc::SYS_pidfd_open, libc::getpid(), 0) })
        .step("open a descriptor of the own process")?;
    // SAFETY: the kernel just returned this descriptor, nobody else owns it.
    let myself = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    with_channel(|channel| channel.send_kind(kind, &[], &[myself.as_fd()])).map_err(|_| EnterError::SupervisorGone)?;
    Ok(())
}

/// Tells the supervisor why there will be no hand-over.
pub(crate) fn report_failure(error: &EnterError) {
    let mut text = format!("{} ({})", error, error.code());
    if let Some(source) = std::error::Error::source(error) {
        text = format!("{text}: {source}");
    }
    // If the supervisor is gone too there is nobody left to tell.
    let _ = with_channel(|channel| channel.send_kind(Kind::Failed, text.as_bytes(), &[]));
}

/// Uses the inherited socket without taking it from whoever takes it after `enter`.
fn with_channel<T>(use_it: impl FnOnce(&mut Channel) -> T) -> T {
    // SAFETY: `enter` saw a socket at this descriptor, and nothing closes it while we borrow it.
    let borrowed = unsafe { BorrowedFd::borrow_raw(CHANNEL_FD) };
    match borrowed.try_clone_to_owned() {
        Ok(own) => use_it(&mut Channel::over(own)),
        Err(_) => {
            // No descriptor left to duplicate into: use the original and give it back.
            // SAFETY: the wrapper is forgotten, so the descriptor is not closed.
            let mut channel = std::mem::ManuallyDrop::new(Channel::over(unsafe { OwnedFd::from_raw_fd(CHANNEL_FD) }));
            use_it(&mut channel)
        }
    }
}
