//! Giving up root.
//!
//! A task process that root starts becomes a user of its own: not root, not the supervisor's user, and no other task's
//! either, so that rules of the kind "same user may" reach nobody. Its capabilities stay until the namespaces are made
//! (`crate::enter::capabilities` drops them), because hosts that refuse user namespaces to unprivileged users grant
//! them to a process that still has `CAP_SYS_ADMIN`.
//!
//! For any other user there is nothing to give up, and this does nothing.

use std::io;

use super::capabilities;
use crate::sys;

/// Task processes started by root run as this user and group id plus their process id: in a range that no distribution
/// and no container tool hands out (systemd's "UIDs and GIDs" lists it as unused), and unique while they live.
const FIRST_TASK_USER: libc::uid_t = 0x7000_0000;
/// `nobody`, where the range above does not exist (a container that maps few ids).
const NOBODY: libc::uid_t = 65534;

/// Stops being root. `Some(reason)` if root's user id could not be left behind.
pub(super) fn give_up_root() -> io::Result<Option<String>> {
    // SAFETY: no preconditions.
    let (effective, pid) = unsafe { (libc::geteuid(), libc::getpid()) };
    if effective != 0 {
        return Ok(None);
    }
    sys::prctl(libc::PR_SET_KEEPCAPS, 1, 0)?;
    // Supplementary groups belong to the supervisor. May be refused inside a user namespace; the ids below decide.
    // SAFETY: a count of zero reads no memory.
    unsafe { libc::setgroups(0, std::ptr::null()) };
    let own = FIRST_TASK_USER.saturating_add(pid.unsigned_abs());
    let became = become_user(own).or_else(|_| become_user(NOBODY));
    capabilities::use_all_permitted()?;
    // It would change user anyway if the capability to do so is all that it lacks; whoever is root without it is root
    // of a small user namespace.
    Ok(became.err().map(|error| format!("the process is still user 0: {error}")))
}

fn become_user(id: libc::uid_t) -> io::Result<()> {
    // SAFETY: no memory is passed; the process has one thread, so the C library's broadcast to threads is empty.
    sys::check(unsafe { libc::setresgid(id, id, id) })?;
    // SAFETY: as above.
    sys::check(unsafe { libc::setresuid(id, id, id) })?;
    Ok(())
}
