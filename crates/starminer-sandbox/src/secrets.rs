//! Memory for secrets.
//!
//! [`LockedBytes`] holds one secret in pages of its own: locked against swapping, left out of core dumps, wiped in a
//! forked child, between two guard pages, overwritten when dropped. What the cryptography library derives from a secret
//! (an expanded AES key, say) lives in ordinary memory; [`lock_process`] covers that too, where the kernel permits.
//!
//! It cannot protect a secret from root on the host, nor from code in this process.

use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use zeroize::Zeroize;

use crate::sys;

/// A secret of fixed length in pages of its own.
///
/// Comparison takes the same time wherever two secrets of one length differ. `Debug` shows the length only.
pub struct LockedBytes {
    /// The whole mapping: guard page, data pages, guard page.
    mapping: NonNull<u8>,
    mapping_bytes: usize,
    length: usize,
    locked: bool,
}

// SAFETY: the mapping belongs to this value alone, and is only read through `&self` and written through `&mut self`.
unsafe impl Send for LockedBytes {}
// SAFETY: as above.
unsafe impl Sync for LockedBytes {}

impl LockedBytes {
    /// `length` bytes of zero.
    ///
    /// Memory that the kernel refuses to lock is used all the same, and [`LockedBytes::is_locked`] says so: whether
    /// that is good enough is the policy's decision, over the posture `keys-locked`.
    ///
    /// # Errors
    /// If there is no memory, or the kernel refuses to leave it out of dumps or forks.
    pub fn zeroed(length: usize) -> io::Result<Self> {
        let page = sys::page_bytes();
        let too_large = || io::Error::from(io::ErrorKind::OutOfMemory);
        let data_bytes = length.max(1).checked_next_multiple_of(page).ok_or_else(too_large)?;
        let mapping_bytes = data_bytes.checked_add(2 * page).ok_or_else(too_large)?;
        // SAFETY: a fresh anonymous mapping, no existing memory is touched.
        let mapping = unsafe {
            libc::mmap(ptr::null_mut(), mapping_bytes, libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
        };
        if mapping == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mapping = NonNull::new(mapping.cast()).ok_or_else(too_large)?;
        // From here on dropping `secret` unmaps.
        let mut secret = Self { mapping, mapping_bytes, length, locked: false };
        let data = secret.data().cast();
        // SAFETY: `data` and `data_bytes` are the pages between the guards, in the mapping just made.
        unsafe {
            sys::check(libc::mprotect(data, data_bytes, libc::PROT_READ | libc::PROT_WRITE))?;
            sys::check(libc::madvise(data, data_bytes, libc::MADV_DONTDUMP))?;
            sys::check(libc::madvise(data, data_bytes, libc::MADV_WIPEONFORK))?;
            secret.locked = libc::mlock(data, data_bytes) == 0;
        }
        Ok(secret)
    }

    /// A copy of `bytes`. The caller wipes the original.
    ///
    /// # Errors
    /// As [`LockedBytes::zeroed`].
    pub fn copy_of(bytes: &[u8]) -> io::Result<Self> {
        let mut secret = Self::zeroed(bytes.len())?;
        secret.copy_from_slice(bytes);
        Ok(secret)
    }

    /// Moves `bytes` here: copies and wipes them.
    ///
    /// # Errors
    /// As [`LockedBytes::zeroed`]; `bytes` are wiped all the same.
    pub fn take(bytes: &mut [u8]) -> io::Result<Self> {
        let secret = Self::copy_of(bytes);
        bytes.zeroize();
        secret
    }

    /// Whether its pages are locked against swapping.
    #[must_use]
    pub const fn is_locked(&self) -> bool {
        self.locked
    }

    fn data(&self) -> *mut u8 {
        // SAFETY: the mapping starts with one guard page and is longer than that.
        unsafe { self.mapping.as_ptr().add(sys::page_bytes()) }
    }
}

impl Deref for LockedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `length` bytes of the data pages are readable, initialised (zero or written since) and borrowed with
        // `self`.
        unsafe { std::slice::from_raw_parts(self.data(), self.length) }
    }
}

impl DerefMut for LockedBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, writable, and borrowed exclusively with `self`.
        unsafe { std::slice::from_raw_parts_mut(self.data(), self.length) }
    }
}

impl AsRef<[u8]> for LockedBytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl PartialEq for LockedBytes {
    fn eq(&self, other: &Self) -> bool {
        verify_slices_are_equal(self, other).is_ok()
    }
}

impl Eq for LockedBytes {}

impl fmt::Debug for LockedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LockedBytes({} bytes, redacted)", self.length)
    }
}

impl Drop for LockedBytes {
    fn drop(&mut self) {
        // Pages that were never made accessible hold nothing, and touching them would fault. `locked` alone does not
        // tell, so ask for access again; it costs one call and cannot harm.
        let page = sys::page_bytes();
        let data_bytes = self.mapping_bytes - 2 * page;
        // SAFETY: the data pages of the own mapping.
        let accessible =
            unsafe { libc::mprotect(self.data().cast(), data_bytes, libc::PROT_READ | libc::PROT_WRITE) } == 0;
        if accessible {
            self.zeroize();
        }
        // SAFETY: the mapping belongs to this value and nothing borrows it any more. Unmapping also unlocks.
        unsafe { libc::munmap(self.mapping.as_ptr().cast(), self.mapping_bytes) };
    }
}

/// Locks the pages under `bytes` against swapping and leaves them out of core dumps, for as long as they are mapped.
///
/// For secrets that a library keeps in memory of its own. The pages stay locked when the secret goes: neighbours on the
/// same page may need it. Wiping is up to the owner.
///
/// # Errors
/// If the kernel refuses, usually because `RLIMIT_MEMLOCK` is used up.
pub fn lock_pages(bytes: &[u8]) -> io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    let page = sys::page_bytes();
    let start = bytes.as_ptr() as usize & !(page - 1);
    let length = (bytes.as_ptr() as usize + bytes.len() - start).next_multiple_of(page);
    // SAFETY: locks and marks pages that `bytes` keeps mapped; neither call changes what is in them.
    unsafe {
        sys::check(libc::mlock(start as *const libc::c_void, length))?;
        sys::check(libc::madvise(start as *mut libc::c_void, length, libc::MADV_DONTDUMP))?;
    }
    Ok(())
}

/// Whether the memory of the whole process is locked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Locked {
    /// Every page, as it is touched, now and later.
    All,
    /// Only what asks for it ([`LockedBytes`], [`lock_pages`]), for this reason.
    None(String),
}

/// Locks all memory of the process against swapping, page by page as it is touched.
///
/// Only where no limit could bite later, because then an allocation would fail somewhere in the middle of a task: with
/// an unlimited `RLIMIT_MEMLOCK`, which a supervisor with `CAP_IPC_LOCK` or `CAP_SYS_RESOURCE` gives itself here.
#[must_use]
pub fn lock_process() -> Locked {
    let unlimited = sys::Limit { soft: libc::RLIM_INFINITY, hard: libc::RLIM_INFINITY };
    let _ = sys::set_limit(libc::RLIMIT_MEMLOCK, unlimited);
    match sys::limit(libc::RLIMIT_MEMLOCK) {
        Ok(limit) if limit.soft == libc::RLIM_INFINITY => {}
        Ok(limit) => return Locked::None(format!("RLIMIT_MEMLOCK is {} bytes", limit.soft)),
        Err(error) => return Locked::None(format!("RLIMIT_MEMLOCK cannot be read: {error}")),
    }
    let flags = libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT;
    // SAFETY: changes no memory, only whether it may be swapped.
    match sys::check(unsafe { libc::mlockall(flags) }) {
        Ok(_) => Locked::All,
        Err(error) => Locked::None(format!("the kernel refused: {error}")),
    }
}

#[cfg(test)]
mod tests;
