//! What `/proc/self` says about this process, through descriptors that outlive the view of `/proc`.
//!
//! Reads only; the kernel evaluates these files at each read, so a descriptor opened early still tells the truth after
//! the file system is gone and Landlock refuses to open anything.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use crate::sys;

/// Most bytes of `/proc/self/status` that are read; the kernel writes about 1.5 KiB.
const MAX_STATUS_BYTES: usize = 16 << 10;

/// Open descriptors of `/proc/self`.
pub(super) struct OwnProc {
    directory: OwnedFd,
    status: OwnedFd,
}

/// The lines of `/proc/self/status` that matter here.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) threads: u64,
    pub(super) tracer_pid: u64,
    pub(super) no_new_privs: u64,
    /// 2 when a filter is installed.
    pub(super) seccomp: u64,
    /// Bounding set, and all the other capability sets together.
    pub(super) capabilities_bounding: u64,
    pub(super) capabilities_usable: u64,
    /// This process's id in each PID namespace from the one of `/proc` down to its own.
    pub(super) namespace_pids: Vec<u64>,
    pub(super) locked_bytes: u64,
}

/// A kernel object behind a path in `/proc`: device and inode.
pub(super) type Identity = (u64, u64);

impl OwnProc {
    pub(super) fn open() -> io::Result<Self> {
        let directory = sys::open(c"/proc/self", libc::O_PATH | libc::O_DIRECTORY)?;
        let status = sys::open_at(directory.as_fd(), c"status", libc::O_RDONLY)?;
        Ok(Self { directory, status })
    }

    pub(super) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    pub(super) fn status(&self) -> io::Result<Status> {
        let mut text = vec![0u8; MAX_STATUS_BYTES];
        let mut filled = 0;
        while filled < text.len() {
            let rest = &mut text[filled..];
            // SAFETY: `rest` is valid and writable for its length.
            let count = sys::check(unsafe {
                libc::pread(self.status.as_raw_fd(), rest.as_mut_ptr().cast(), rest.len(), filled as libc::off_t)
            } as i64)?;
            if count == 0 {
                break;
            }
            filled += count as usize;
        }
        Ok(Status::parse(&String::from_utf8_lossy(&text[..filled])))
    }

    /// Which namespace of the kind with this path (`ns/user`) the process is in.
    pub(super) fn namespace(&self, path: &CStr) -> io::Result<Identity> {
        // SAFETY: all zero bytes are a valid `stat`.
        let mut stat: libc::stat = unsafe { std::mem::zeroed() };
        // SAFETY: `path` is a C string and `stat` writable, both for the duration of the call.
        sys::check(unsafe { libc::fstatat(self.directory.as_raw_fd(), path.as_ptr(), &mut stat, 0) })?;
        Ok((stat.st_dev, stat.st_ino))
    }
}

impl Status {
    /// A line that is missing counts as the answer that protects least.
    fn parse(text: &str) -> Self {
        let mut status = Self { tracer_pid: u64::MAX, ..Self::default() };
        let mut sets_seen = 0;
        for line in text.lines() {
            let Some((key, value)) = line.split_once(':') else { continue };
            let value = value.trim();
            let number = || value.parse().unwrap_or(u64::MAX);
            let set = || u64::from_str_radix(value, 16).unwrap_or(u64::MAX);
            match key {
                "Threads" => status.threads = number(),
                "TracerPid" => status.tracer_pid = number(),
                "NoNewPrivs" => status.no_new_privs = number(),
                "Seccomp" => status.seccomp = number(),
                "CapInh" | "CapPrm" | "CapEff" | "CapAmb" => {
                    sets_seen += 1;
                    status.capabilities_usable |= set();
                }
                "CapBnd" => {
                    sets_seen += 1;
                    status.capabilities_bounding = set();
                }
                "NSpid" => {
                    status.namespace_pids = value.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
                }
                "VmLck" => {
                    let kib: u64 = value.trim_end_matches("kB").trim().parse().unwrap_or(0);
                    status.locked_bytes = kib.saturating_mul(1024);
                }
                _ => {}
            }
        }
        if sets_seen != 5 {
            status.capabilities_usable = u64::MAX;
        }
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_lines_that_matter() {
        let text = "Name:\tx\nTracerPid:\t7\nNSpid:\t1234\t1\nThreads:\t2\nVmLck:\t      12 kB\nCapInh:\t0000000000000001\n\
                    CapPrm:\t0000000000000002\nCapEff:\t0000000000000004\nCapBnd:\t000001ffffffffff\nCapAmb:\t0000000000000000\n\
                    NoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t3\n";
        assert_eq!(
            Status::parse(text),
            Status {
                threads: 2,
                tracer_pid: 7,
                no_new_privs: 1,
                seccomp: 2,
                capabilities_bounding: 0x1ff_ffff_ffff,
                capabilities_usable: 7,
                namespace_pids: vec![1234, 1],
                locked_bytes: 12 << 10,
            }
        );
    }

    #[test]
    fn a_missing_line_never_protects() {
        let status = Status::parse("");
        assert_ne!(status.tracer_pid, 0);
        assert_ne!(status.capabilities_usable, 0);
        assert_eq!((status.no_new_privs, status.seccomp, status.threads), (0, 0, 0));
    }

    #[test]
    fn reads_this_process() {
        let own = OwnProc::open().expect("/proc is there");
        let status = own.status().expect("readable");
        assert!(status.threads >= 1);
        assert_eq!(status.namespace_pids.last().copied(), Some(u64::from(std::process::id())));
        assert_eq!(own.namespace(c"ns/user").expect("readable"), own.namespace(c"ns/user").expect("readable"));
    }
}
