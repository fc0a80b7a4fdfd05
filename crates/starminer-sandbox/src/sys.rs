//! The system calls that several modules share, with errors as [`io::Error`].
//!
//! Not a general wrapper: each function exists because something here calls it.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// The result of a system call that reports failure as a negative number and `errno`.
pub(crate) fn check(returned: impl Into<i64>) -> io::Result<i64> {
    let returned = returned.into();
    if returned < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(returned)
}

/// Repeats `call` while a signal interrupts it.
pub(crate) fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// `prctl` for options whose arguments are plain numbers.
pub(crate) fn prctl(option: libc::c_int, arg2: u64, arg3: u64) -> io::Result<i64> {
    // SAFETY: only options that take numbers are passed by this crate, so the kernel dereferences nothing.
    check(unsafe { libc::prctl(option, arg2, arg3, 0u64, 0u64) })
}

/// A resource limit, soft and hard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    pub(crate) soft: u64,
    pub(crate) hard: u64,
}

/// Which limit; the type that `libc` wants differs between C libraries.
pub(crate) type LimitKind = libc::__rlimit_resource_t;

pub(crate) fn limit(kind: LimitKind) -> io::Result<Limit> {
    let mut raw = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `raw` is a valid, writable rlimit for the duration of the call.
    check(unsafe { libc::getrlimit(kind, &mut raw) })?;
    Ok(Limit { soft: raw.rlim_cur, hard: raw.rlim_max })
}

pub(crate) fn set_limit(kind: LimitKind, limit: Limit) -> io::Result<()> {
    let raw = libc::rlimit { rlim_cur: limit.soft, rlim_max: limit.hard };
    // SAFETY: `raw` is a valid rlimit for the duration of the call.
    check(unsafe { libc::setrlimit(kind, &raw) })?;
    Ok(())
}

/// Opens `path` relative to `directory`, close-on-exec.
pub(crate) fn open_at(directory: BorrowedFd<'_>, path: &CStr, flags: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: `path` is a C string that outlives the call.
    let fd = check(unsafe { libc::openat(directory.as_raw_fd(), path.as_ptr(), flags | libc::O_CLOEXEC) })?;
    // SAFETY: the kernel just returned this descriptor, nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Opens an absolute path, close-on-exec.
pub(crate) fn open(path: &CStr, flags: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: `path` is a C string that outlives the call.
    let fd = check(unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC) })?;
    // SAFETY: the kernel just returned this descriptor, nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Waits until `fd` shows one of `events`, hangs up, or `timeout` (none: for ever) has passed.
pub(crate) fn poll(fd: BorrowedFd<'_>, events: libc::c_short, timeout: Option<Duration>) -> io::Result<()> {
    let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
    // Rounded up, so that a wait of less than a millisecond does not spin.
    let milliseconds =
        timeout.map_or(-1, |timeout| i32::try_from(timeout.as_micros().div_ceil(1000)).unwrap_or(i32::MAX));
    // SAFETY: `entry` is one valid, writable pollfd for the duration of the call.
    check(unsafe { libc::poll(&mut entry, 1, milliseconds) })?;
    Ok(())
}

/// Size of a memory page in bytes.
pub(crate) fn page_bytes() -> usize {
    // SAFETY: sysconf reads a constant.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).unwrap_or(4096)
}
