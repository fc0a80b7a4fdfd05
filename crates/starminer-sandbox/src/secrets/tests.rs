//! What holds of memory for secrets, asked of the kernel where it can be asked.

#![allow(clippy::unwrap_used)]

use super::*;

/// The block of `/proc/self/smaps` for the mapping that contains `address`.
fn mapping_of(address: usize) -> Option<String> {
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut block: Option<String> = None;
    for line in smaps.lines() {
        let range = line.split_once(' ').and_then(|(range, _)| range.split_once('-'));
        let bounds = range.and_then(|(start, end)| {
            Some((usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?))
        });
        match (bounds, &mut block) {
            (Some(_), Some(_)) => return block,
            (Some((start, end)), None) if (start..end).contains(&address) => {
                block = Some(format!("{line}\n"));
            }
            (None, Some(block)) => {
                block.push_str(line);
                block.push('\n');
            }
            _ => {}
        }
    }
    block
}

#[test]
fn holds_what_it_is_given() {
    for length in [0, 1, 32, 4095, 4096, 4097, 70_000] {
        let bytes: Vec<u8> = (0..length).map(|index| index as u8).collect();
        let secret = LockedBytes::copy_of(&bytes).unwrap();
        assert_eq!(&secret[..], &bytes[..], "length {length}");
    }
}

#[test]
fn the_kernel_confirms_lock_dump_and_fork_flags() {
    let secret = LockedBytes::copy_of(&[7; 32]).unwrap();
    assert!(secret.is_locked(), "RLIMIT_MEMLOCK is too low for this test");
    let block = mapping_of(secret.as_ptr() as usize).unwrap();
    let flags = block.lines().find(|line| line.starts_with("VmFlags:")).unwrap();
    for flag in ["lo", "dd", "wf"] {
        assert!(flags.split_whitespace().any(|given| given == flag), "{flag} is missing: {flags}");
    }
    assert!(block.lines().any(|line| line == "Locked:                4 kB"), "{block}");
}

#[test]
fn guard_pages_surround_it() {
    let secret = LockedBytes::copy_of(&[7; 4096]).unwrap();
    let start = secret.as_ptr() as usize;
    for outside in [start - 1, start + 4096] {
        let block = mapping_of(outside).unwrap();
        assert!(block.lines().next().unwrap().contains("---p"), "{block}");
    }
}

#[test]
fn taking_wipes_the_original() {
    let mut original = *b"a key of some length";
    let secret = LockedBytes::take(&mut original).unwrap();
    assert_eq!(&secret[..], b"a key of some length");
    assert_eq!(original, [0; 20]);
}

#[test]
fn compares_by_content_and_shows_nothing() {
    let one = LockedBytes::copy_of(b"secret").unwrap();
    assert_eq!(one, LockedBytes::copy_of(b"secret").unwrap());
    assert_ne!(one, LockedBytes::copy_of(b"secreT").unwrap());
    assert_ne!(one, LockedBytes::copy_of(b"secret ").unwrap());
    assert_eq!(format!("{one:?}"), "LockedBytes(6 bytes, redacted)");
}

#[test]
fn a_forked_child_sees_zeroes() {
    let secret = LockedBytes::copy_of(&[0xa5; 64]).unwrap();
    // SAFETY: the child only reads memory and exits, both fine after a fork of a process with threads.
    let status = unsafe {
        let pid = libc::fork();
        if pid == 0 {
            libc::_exit(i32::from(secret.iter().any(|byte| *byte != 0)));
        }
        let mut status = -1;
        assert_eq!(libc::waitpid(pid, &mut status, 0), pid);
        status
    };
    assert!(libc::WIFEXITED(status), "{status}");
    assert_eq!(libc::WEXITSTATUS(status), 0, "the child saw the secret");
    assert!(secret.iter().all(|byte| *byte == 0xa5), "the parent lost it");
}

#[test]
fn dropping_unmaps() {
    let secret = LockedBytes::zeroed(10 << 20);
    // Ten MiB exceed the usual limit: usable, and honest about the lock.
    let secret = secret.unwrap();
    let address = secret.as_ptr() as usize;
    if !secret.is_locked() {
        assert!(!mapping_of(address).unwrap().contains(" lo "), "the kernel says it is locked");
    }
    drop(secret);
    let still_there = mapping_of(address).is_some_and(|block| block.contains(" dd "));
    assert!(!still_there, "still mapped");
}

#[test]
fn locks_pages_of_others() {
    let buffer = vec![1u8; 3 * 4096];
    let inner = &buffer[4096..4196];
    lock_pages(inner).unwrap();
    lock_pages(&[]).unwrap();
    let block = mapping_of(inner.as_ptr() as usize).unwrap();
    let flags = block.lines().find(|line| line.starts_with("VmFlags:")).unwrap();
    assert!(flags.contains(" lo") && flags.contains(" dd"), "{flags}");
}
