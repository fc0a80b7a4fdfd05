//! Resource limits of the profile.
//!
//! Not `RLIMIT_AS`: wasmtime reserves gigabytes of address space that it never touches. `RLIMIT_DATA` counts only
//! private memory that is writable, which is what a guest can make the process use.

use std::io;

use super::namespaces::Unshared;
use crate::profile::{Profile, Threads};
use crate::sys::{self, Limit, LimitKind};

/// Every limit that the profile sets, in the order in which they are set and read back.
fn wanted(profile: &Profile, unshared: &Unshared) -> Vec<(LimitKind, u64)> {
    let mut limits = vec![
        (libc::RLIMIT_CORE, 0),
        (libc::RLIMIT_DATA, profile.data_bytes),
        (libc::RLIMIT_FSIZE, profile.file_bytes),
        (libc::RLIMIT_NOFILE, profile.open_files),
        // Message queues are memory outside the process, and nothing here uses them.
        (libc::RLIMIT_MSGQUEUE, 0),
    ];
    match profile.threads {
        Threads::Refused => limits.push((libc::RLIMIT_NPROC, 0)),
        // Counted per user *and* user namespace: with one of its own the process counts alone, plus its first thread.
        Threads::UpTo(count) if unshared.user.is_ok() => {
            limits.push((libc::RLIMIT_NPROC, u64::from(count) + 1));
        }
        Threads::UpTo(_) => {}
    }
    limits
}

/// Allows as much locked memory as the process may allow itself: no bound for root, else the hard limit.
pub(super) fn raise_memory_lock() {
    let unlimited = Limit { soft: libc::RLIM_INFINITY, hard: libc::RLIM_INFINITY };
    if sys::set_limit(libc::RLIMIT_MEMLOCK, unlimited).is_err()
        && let Ok(limit) = sys::limit(libc::RLIMIT_MEMLOCK)
    {
        let _ = sys::set_limit(libc::RLIMIT_MEMLOCK, Limit { soft: limit.hard, ..limit });
    }
}

/// Sets the limits, soft and hard. A hard limit that is lower already stays.
pub(super) fn apply(profile: &Profile, unshared: &Unshared) -> io::Result<()> {
    for (kind, bound) in wanted(profile, unshared) {
        let bound = bound.min(sys::limit(kind)?.hard);
        sys::set_limit(kind, Limit { soft: bound, hard: bound })?;
    }
    Ok(())
}

/// A limit that a sealed task process can lower further, once it knows what its task was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResourceLimit {
    /// Private writable memory in bytes (`RLIMIT_DATA`).
    DataBytes,
    /// Size in bytes to which any file may be extended (`RLIMIT_FSIZE`).
    FileBytes,
}

/// Lowers a limit of the calling process for good.
///
/// For task processes that were started ahead of time: they are sealed with the limits of a [`Profile`] and lower them
/// when the task is known, before the first guest byte. In here rather than in the supervisor, because changing another
/// user's process takes a capability.
///
/// # Errors
/// If the limit in force is lower already: no limit is ever raised.
pub fn tighten(limit: ResourceLimit, bytes: u64) -> io::Result<()> {
    let kind = match limit {
        ResourceLimit::DataBytes => libc::RLIMIT_DATA,
        ResourceLimit::FileBytes => libc::RLIMIT_FSIZE,
    };
    if sys::limit(kind)?.hard < bytes {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    sys::set_limit(kind, Limit { soft: bytes, hard: bytes })
}

/// The first limit that does not hold, if any. Safe inside the system call filter.
pub(super) fn broken(profile: &Profile, unshared: &Unshared) -> Option<String> {
    wanted(profile, unshared).into_iter().find_map(|(kind, bound)| match sys::limit(kind) {
        Ok(limit) if limit.soft <= bound && limit.hard <= bound => None,
        Ok(limit) => Some(format!("limit {kind} is {}, not {bound}", limit.hard)),
        Err(error) => Some(format!("limit {kind} cannot be read: {error}")),
    })
}
