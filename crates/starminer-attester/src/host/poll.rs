//! `poll(2)`: waits for what the kernel tells of a file. The only thing here.

// The call takes the address of a list, which has no safe interface in the standard library.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// What of each file came true, in their order: nothing of any once `patience` is over, or when a signal came.
pub(super) fn poll(files: &[(BorrowedFd<'_>, libc::c_short)], patience: Duration) -> io::Result<Vec<libc::c_short>> {
    let mut list: Vec<libc::pollfd> =
        files.iter().map(|(file, events)| libc::pollfd { fd: file.as_raw_fd(), events: *events, revents: 0 }).collect();
    // Rounded up, so that the rest of a millisecond is no loop.
    let patience_ms = i32::try_from(patience.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
    let count = libc::nfds_t::try_from(list.len()).map_err(io::Error::other)?;
    // SAFETY: `list` has `count` entries, lives until the call returns, and nobody else refers to it. Its descriptors are open: `files` borrows them.
    let told = unsafe { libc::poll(list.as_mut_ptr(), count, patience_ms) };
    if told < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    Ok(list.iter().map(|entry| if told > 0 { entry.revents } else { 0 }).collect())
}
