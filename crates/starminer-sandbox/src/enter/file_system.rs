//! An empty file system, twice: a root with nothing in it, and Landlock refusing to open anything.
//!
//! The root protects against path names, Landlock also against descriptors of directories, and remains where mount
//! namespaces are refused. Descriptors that the process holds or is handed keep working: that is how data comes in.

use std::io;
use std::os::fd::AsRawFd;

use landlock::{ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetStatus, Scope};

use super::namespaces::Unshared;
use super::own_proc::OwnProc;
use crate::in_force::{Protection, State};
use crate::profile::Profile;
use crate::sys;

/// The newest Landlock version whose rights were considered here; older kernels enforce what they know.
const LANDLOCK_ABI: ABI = ABI::V7;

/// Makes an empty, read-only root the only mount of the own mount namespace.
pub(super) fn empty_root(profile: &Profile, unshared: &Unshared) -> Result<(), String> {
    if profile.skipped.contains(Protection::MountNamespace) {
        return Err("switched off by the profile".into());
    }
    unshared.mount.clone()?;
    replace_root().map_err(|error| format!("the root cannot be replaced: {error}"))?;
    // Under the new root: nothing may be there.
    match std::fs::read_dir("/").map(Iterator::count) {
        Ok(0) => Ok(()),
        Ok(entries) => Err(format!("the root still has {entries} entries")),
        Err(error) => Err(format!("the root cannot be looked at: {error}")),
    }
}

fn replace_root() -> io::Result<()> {
    // SAFETY: every string is NUL-terminated and static; null pointers stand where mount(2) ignores the
    // argument; the process has a single thread.
    unsafe {
        let null = std::ptr::null();
        // Nothing done here may travel back to the host, nor the host's mounts come in.
        sys::check(libc::mount(null, c"/".as_ptr(), null, libc::MS_REC | libc::MS_PRIVATE, null.cast()))?;
        // Mounted over /proc because that is a directory which every host has.
        sys::check(libc::mount(
            c"none".as_ptr(),
            c"/proc".as_ptr(),
            c"tmpfs".as_ptr(),
            libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC,
            c"size=4096,nr_inodes=1,mode=0555".as_ptr().cast(),
        ))?;
        sys::check(libc::chdir(c"/proc".as_ptr()))?;
        let here = c".".as_ptr();
        if libc::syscall(libc::SYS_pivot_root, here, here) == 0 {
            // The old root now lies over the new one; take the whole tree away.
            sys::check(libc::umount2(here, libc::MNT_DETACH))?;
        } else {
            // An initial RAM file system cannot be pivoted away from; cover it instead. Leaving a chroot takes a
            // capability, and those are dropped next.
            sys::check(libc::mount(here, c"/".as_ptr(), null, libc::MS_MOVE, null.cast()))?;
            sys::check(libc::chroot(here))?;
        }
        sys::check(libc::chdir(c"/".as_ptr()))?;
    }
    Ok(())
}

/// Has Landlock refuse every access to files, TCP ports, abstract sockets and foreign processes; then tries one.
pub(super) fn landlock(profile: &Profile, own: &OwnProc) -> State {
    if profile.skipped.contains(Protection::Landlock) {
        return State::Absent("switched off by the profile".into());
    }
    match restrict() {
        Ok(RulesetStatus::NotEnforced) => State::Absent("this kernel has no Landlock".into()),
        Ok(RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced) => {
            // A file that is there and readable by everyone, through a directory held from before.
            // SAFETY: the path is NUL-terminated and static.
            let opened = unsafe {
                libc::openat(own.directory().as_raw_fd(), c"status".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC)
            };
            match sys::check(opened) {
                Err(error) if error.raw_os_error() == Some(libc::EACCES) => State::InForce,
                Err(error) => State::Absent(format!("its refusal could not be seen: {error}")),
                Ok(fd) => {
                    // SAFETY: just opened, and not used by anyone else.
                    unsafe { libc::close(fd as i32) };
                    State::Absent("a file could be opened in spite of it".into())
                }
            }
        }
        Err(error) => State::Absent(format!("the kernel refused the rules: {error}")),
    }
}

/// Handles every right that the ABI knows and grants none.
fn restrict() -> Result<RulesetStatus, landlock::RulesetError> {
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(LANDLOCK_ABI))?
        .handle_access(AccessNet::from_all(LANDLOCK_ABI))?
        .scope(Scope::from_all(LANDLOCK_ABI))?
        .create()?
        .restrict_self()?;
    Ok(status.ruleset)
}
