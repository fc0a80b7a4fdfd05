//! Namespaces of its own.
//!
//! A user namespace gives an unprivileged process the right to make the others. It is entered *after* the program was
//! executed, never at the clone: the kernel lets the owner of the user namespace in which a program was executed trace
//! it even when it is non-dumpable, and that owner would be every process of the supervisor's user.

use std::ffi::CStr;
use std::io;
use std::os::fd::AsRawFd;

use super::own_proc::{Identity, OwnProc};
use crate::in_force::Protection;
use crate::profile::Profile;
use crate::sys;

/// The user and group id that the process sees itself as.
const INNER_ID: u32 = 65534;

/// System V IPC and host names: no protection of their own name, but nothing to share with the host either.
const IPC_AND_NAMES: libc::c_int = libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;

/// Which namespaces the process is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Links {
    pub(super) user: Identity,
    pub(super) mount: Identity,
    pub(super) pid: Identity,
    pub(super) network: Option<Identity>,
}

impl Links {
    pub(super) fn read(own: &OwnProc) -> io::Result<Self> {
        Ok(Self {
            user: own.namespace(c"ns/user")?,
            mount: own.namespace(c"ns/mnt")?,
            pid: own.namespace(c"ns/pid")?,
            // A kernel can be built without networks to separate.
            network: own.namespace(c"ns/net").ok(),
        })
    }
}

/// Where a zygote stands, and with it every copy that it makes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Surroundings {
    /// The namespaces in which it was started.
    pub(super) host: Links,
    /// It has left the host's network, IPC and UTS namespaces, for itself and all its copies.
    network_left: bool,
}

impl Surroundings {
    /// Looks around, and leaves what copies can leave together: nothing in the system call filter's list reaches what these
    /// namespaces keep apart, and making a network namespace costs as much as all the rest of a copy.
    ///
    /// Takes `CAP_SYS_ADMIN`. Whoever lacks it leaves them with each copy's user namespace.
    pub(super) fn leave(profile: &Profile) -> io::Result<Self> {
        let host = Links::read(&OwnProc::open()?)?;
        let wanted = !profile.skipped.contains(Protection::NoNetwork);
        let network_left = wanted && unshare_flags(libc::CLONE_NEWNET | IPC_AND_NAMES).is_ok();
        Ok(Self { host, network_left })
    }
}

/// What came of asking for each namespace: made, or why not.
#[derive(Debug)]
pub(super) struct Unshared {
    pub(super) user: Result<(), String>,
    pub(super) mount: Result<(), String>,
    pub(super) pid: Result<(), String>,
    pub(super) network: Result<(), String>,
}

/// Leaves the host's namespaces, as far as the kernel lets it and the profile asks.
pub(super) fn unshare(profile: &Profile, surroundings: &Surroundings) -> Unshared {
    let asked = |protection, flag| (!profile.skipped.contains(protection)).then_some(flag);
    let user = asked(Protection::UserNamespace, libc::CLONE_NEWUSER);
    let mount = asked(Protection::MountNamespace, libc::CLONE_NEWNS);
    let pid = asked(Protection::PidNamespace, libc::CLONE_NEWPID);
    let (network, rest) = match surroundings.network_left {
        true => (None, 0),
        false => (asked(Protection::NoNetwork, libc::CLONE_NEWNET), IPC_AND_NAMES),
    };

    let all = [user, mount, pid, network].into_iter().flatten().fold(rest, |all, flag| all | flag);
    // Asked for now: inside a namespace without maps every id reads as 65534.
    // SAFETY: no preconditions.
    let (outer_user, outer_group) = unsafe { (libc::geteuid(), libc::getegid()) };
    let at_once = unshare_flags(all);
    // If not all at once then one by one, the user namespace first: root can do without it, others cannot.
    let one = |flag: Option<libc::c_int>| match (flag, &at_once) {
        (None, _) => Err("switched off by the profile".to_owned()),
        (Some(_), Ok(())) => Ok(()),
        (Some(flag), Err(_)) => unshare_flags(flag).map_err(|error| refused(flag, &error)),
    };
    let mut unshared = Unshared { user: one(user), mount: one(mount), pid: one(pid), network: one(network) };
    if surroundings.network_left {
        unshared.network = Ok(());
    }
    if at_once.is_err() {
        let _ = unshare_flags(rest);
    }
    if unshared.user.is_ok() {
        // Without maps the process could not own the files of a new mount. They can be written by a dumpable process alone.
        let dumpable = sys::prctl(libc::PR_SET_DUMPABLE, 1, 0);
        unshared.user = dumpable
            .and_then(|_| write_id_maps(outer_user, outer_group))
            .map_err(|error| format!("its id maps: {error}"));
    }
    unshared
}

fn unshare_flags(flags: libc::c_int) -> io::Result<()> {
    // SAFETY: no memory is passed, and the process has a single thread.
    sys::check(unsafe { libc::unshare(flags) })?;
    Ok(())
}

/// Why a namespace was refused, with the usual cause.
fn refused(flag: libc::c_int, error: &io::Error) -> String {
    match (flag, error.raw_os_error()) {
        (libc::CLONE_NEWUSER, Some(libc::EPERM | libc::EACCES)) => {
            "this host refuses user namespaces to unprivileged processes".into()
        }
        (libc::CLONE_NEWUSER, Some(libc::ENOSPC | libc::EUSERS)) => {
            "the host's user.max_user_namespaces is used up or zero".into()
        }
        (_, Some(libc::EPERM | libc::EACCES)) => "not permitted without a user namespace".into(),
        _ => format!("the kernel refused: {error}"),
    }
}

/// Maps one id of the new user namespace to the one that the process has outside.
fn write_id_maps(user: libc::uid_t, group: libc::gid_t) -> io::Result<()> {
    let own = OwnProc::open()?;
    // The kernel wants it given up before an unprivileged process may map a group.
    write_line(&own, c"setgroups", "deny")?;
    write_line(&own, c"uid_map", &format!("{INNER_ID} {user} 1"))?;
    write_line(&own, c"gid_map", &format!("{INNER_ID} {group} 1"))
}

/// Writes one of the process's own files in one piece, as the kernel demands of maps.
fn write_line(own: &OwnProc, path: &CStr, line: &str) -> io::Result<()> {
    let file = sys::open_at(own.directory(), path, libc::O_WRONLY)?;
    // SAFETY: `line` is valid for its length during the call.
    let written = unsafe { libc::write(file.as_raw_fd(), line.as_ptr().cast(), line.len()) };
    sys::check(written as i64)?;
    Ok(())
}
