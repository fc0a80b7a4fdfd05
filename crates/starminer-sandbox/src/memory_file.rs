//! Files that are memory: no disk holds them, and nothing has to be cleaned up after them.

use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};

use crate::sys;

/// An empty memory file that can be sealed. Its pages may be swapped out: what it holds is ciphertext, or nobody's secret.
///
/// # Errors
/// The operating system has no memory or descriptor for it.
pub fn memory_file() -> io::Result<File> {
    let create = |flags: libc::c_uint| {
        // Its name is the same for everything, as names show in `/proc`.
        // SAFETY: the name is NUL-terminated and static.
        sys::check(unsafe { libc::memfd_create(c"starminer".as_ptr(), flags) })
    };
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // Never a program to execute; kernels before 6.3 do not know the flag.
    let fd = create(flags | libc::MFD_NOEXEC_SEAL).or_else(|_| create(flags))?;
    // SAFETY: the kernel just returned this descriptor, nobody else owns it.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
}
