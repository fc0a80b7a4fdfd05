//! Capabilities of the calling thread: all of those permitted while sealing, none afterwards.

use std::io;

use crate::sys;

/// Version 3 of the interface: two 32-bit words per set.
const VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

fn set(sets: &[Sets; 2]) -> io::Result<()> {
    let header = Header { version: VERSION_3, pid: 0 };
    // SAFETY: both structures are laid out as the kernel's version 3 and valid for the call.
    sys::check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) })?;
    Ok(())
}

/// Makes every permitted capability effective: a change of user clears that set even when it keeps the other.
pub(super) fn use_all_permitted() -> io::Result<()> {
    let mut header = Header { version: VERSION_3, pid: 0 };
    let mut sets = [Sets::default(); 2];
    // SAFETY: both structures are laid out as the kernel's version 3, valid and writable for the call.
    sys::check(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, sets.as_mut_ptr()) })?;
    for set in &mut sets {
        set.effective = set.permitted;
    }
    set(&sets)
}

/// Drops every capability, and the ways to get one back. What came of it is read from `/proc/self/status`.
pub(super) fn drop_all() {
    // Later capabilities than this kernel knows are refused, which ends the loop.
    for capability in 0..64 {
        if sys::prctl(libc::PR_CAPBSET_DROP, capability, 0).is_err() {
            break;
        }
    }
    let _ = sys::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as u64, 0);
    // Being user 0 of a namespace shall mean nothing, and stay that way. Each bit with its lock.
    let secure_bits = libc::SECBIT_NOROOT
        | libc::SECBIT_NOROOT_LOCKED
        | libc::SECBIT_NO_SETUID_FIXUP
        | libc::SECBIT_NO_SETUID_FIXUP_LOCKED
        | libc::SECBIT_KEEP_CAPS_LOCKED
        | libc::SECBIT_NO_CAP_AMBIENT_RAISE
        | libc::SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;
    // Both need CAP_SETPCAP, which an unprivileged process without a user namespace lacks; there, no-new-privileges
    // stands in for them.
    let _ = sys::prctl(libc::PR_SET_SECUREBITS, secure_bits as u64, 0);
    let _ = set(&[Sets::default(); 2]);
}
