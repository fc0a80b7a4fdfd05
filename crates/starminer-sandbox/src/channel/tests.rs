//! Frames, bounds and descriptors of a channel within one process; across processes in `tests/sandbox.rs`.

#![allow(clippy::unwrap_used)]

use std::fs::{File, Metadata};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;

use super::*;

/// How many descriptors of this process lead to `file`, whoever holds them.
fn copies_of(file: &File) -> usize {
    let identity = |metadata: Metadata| (metadata.dev(), metadata.ino());
    let wanted = identity(file.metadata().unwrap());
    let fds = std::fs::read_dir("/proc/self/fd").unwrap();
    // Those that other tests close meanwhile have no metadata any more.
    let targets = fds.filter_map(|fd| std::fs::metadata(fd.ok()?.path()).ok());
    targets.filter(|target| identity(target.clone()) == wanted).count()
}

fn is_close_on_exec(fd: &impl AsRawFd) -> bool {
    // SAFETY: F_GETFD touches no memory.
    unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFD) & libc::FD_CLOEXEC != 0 }
}

/// A channel whose peer is a plain stream, to send it what no channel would send.
fn with_raw_peer() -> (Channel, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (Channel::over(ours.into()), theirs)
}

#[test]
fn carries_messages_in_order() {
    let (mut a, mut b) = Channel::pair().unwrap();
    let reader = std::thread::spawn(move || {
        for length in [0, 1, 8, 4096, MAX_MESSAGE_BYTES] {
            let message = b.recv().unwrap();
            assert_eq!(message.bytes, vec![length as u8; length]);
            assert!(message.fds.is_empty());
        }
        b.recv().unwrap_err().code()
    });
    for length in [0, 1, 8, 4096, MAX_MESSAGE_BYTES] {
        a.send(&vec![length as u8; length], &[]).unwrap();
    }
    drop(a);
    assert_eq!(reader.join().unwrap(), "channel.closed");
}

#[test]
fn carries_descriptors_with_their_message() {
    let (mut a, mut b) = Channel::pair().unwrap();
    let files: Vec<File> = (0..MAX_MESSAGE_FDS)
        .map(|index| {
            let mut file = tempfile::tempfile().unwrap();
            write!(file, "file {index}").unwrap();
            file
        })
        .collect();
    let borrowed: Vec<_> = files.iter().map(AsFd::as_fd).collect();
    a.send(b"first", &borrowed[..3]).unwrap();
    a.send(b"none", &[]).unwrap();
    a.send(b"second", &borrowed).unwrap();

    let first = b.recv().unwrap();
    assert_eq!((&first.bytes[..], first.fds.len()), (&b"first"[..], 3));
    assert_eq!(b.recv().unwrap().fds.len(), 0);
    let second = b.recv().unwrap();
    assert_eq!(second.fds.len(), MAX_MESSAGE_FDS);
    for (index, fd) in second.fds.into_iter().enumerate() {
        assert!(is_close_on_exec(&fd));
        let mut text = [0; 16];
        let count = std::os::unix::fs::FileExt::read_at(&File::from(fd), &mut text, 0).unwrap();
        assert_eq!(&text[..count], format!("file {index}").as_bytes());
    }
}

#[test]
fn refuses_to_send_beyond_its_bounds() {
    let (mut a, mut b) = Channel::pair().unwrap();
    let file = tempfile::tempfile().unwrap();
    let too_many = vec![file.as_fd(); MAX_MESSAGE_FDS + 1];
    assert_eq!(a.send(b"x", &too_many).unwrap_err().code(), "channel.too-large");
    assert_eq!(a.send(&vec![0; MAX_MESSAGE_BYTES + 1], &[]).unwrap_err().code(), "channel.too-large");
    a.send(b"still works", &[]).unwrap();
    assert_eq!(b.recv().unwrap().bytes, b"still works");
}

#[test]
fn polled_use_never_blocks_and_loses_nothing() {
    let (mut a, mut b) = Channel::pair().unwrap();
    assert!(b.try_recv().unwrap().is_none());
    let file = tempfile::tempfile().unwrap();
    let body = vec![9u8; MAX_MESSAGE_BYTES];
    // Fill the socket: at some point a message is not taken.
    let mut taken = 0;
    while a.try_send(&body, &[file.as_fd()]).unwrap() {
        taken += 1;
        assert!(taken < 1000, "the socket never fills");
    }
    let mut received = 0;
    while received < taken {
        a.try_flush().unwrap();
        while let Some(message) = b.try_recv().unwrap() {
            assert_eq!((message.bytes.len(), message.fds.len()), (MAX_MESSAGE_BYTES, 1));
            received += 1;
        }
    }
    assert!(a.try_flush().unwrap());
    assert!(b.try_recv().unwrap().is_none(), "more arrived than was taken");
}

#[test]
fn waits_no_longer_than_it_is_told() {
    let (mut a, mut b) = Channel::pair().unwrap();
    let timeout = Duration::from_millis(20);
    let start = Instant::now();
    assert_eq!(b.recv_timeout(timeout).unwrap_err().code(), "channel.timed-out");
    assert!(start.elapsed() >= timeout);
    a.send(b"late", &[]).unwrap();
    assert_eq!(b.recv_timeout(timeout).unwrap().bytes, b"late");
}

#[test]
fn a_partial_message_survives_a_time_out() {
    let (mut channel, mut raw) = with_raw_peer();
    raw.write_all(&[0, 0, 0, 4, 0, 0, 0]).unwrap();
    assert_eq!(channel.recv_timeout(Duration::from_millis(5)).unwrap_err().code(), "channel.timed-out");
    raw.write_all(&[0, b'a', b'b']).unwrap();
    assert_eq!(channel.recv_timeout(Duration::from_millis(5)).unwrap_err().code(), "channel.timed-out");
    raw.write_all(b"cd").unwrap();
    assert_eq!(channel.recv().unwrap().bytes, b"abcd");
}

#[test]
fn malformed_frames_end_the_channel_and_leak_nothing() {
    // Raw bytes that a peer sends with `fds` descriptors, and part of what the refusal says.
    fn check(bytes: &[u8], fds: usize, says: &str) {
        let (mut channel, raw) = with_raw_peer();
        let file = tempfile::tempfile().unwrap();
        send_raw(&raw, bytes, &vec![file.as_raw_fd(); fds]);
        drop(raw);
        for _ in 0..2 {
            let error = channel.recv().unwrap_err();
            assert_eq!(error.code(), "channel.malformed", "{says}: {error}");
            assert!(error.to_string().contains(says), "{error} does not say {says}");
        }
        assert_eq!(copies_of(&file), 1, "descriptors of the bad frame stay open ({says})");
    }
    check(&[0x00, 0x10, 0x00, 0x01, 0, 0, 0, 0], 0, "too long");
    check(&[0xff; 8], 1, "reserved");
    check(&[0, 0, 0, 0, 0, 0, 1, 0], 0, "reserved");
    check(&[0, 0, 0, 0, 1, 0, 0, 0], 0, "another kind");
    check(&[0, 0, 0, 0, 2, 0, 0, 0], 0, "another kind");
    check(&[0, 0, 0, 0, 77, 0, 0, 0], 3, "another kind");
    check(&[0, 0, 0, 0, 0, 9, 0, 0], 0, "too many");
    check(&[0, 0, 0, 0, 0, 2, 0, 0], 1, "other descriptors");
    check(&[0, 0, 0, 0, 0, 0, 0, 0], 1, "other descriptors");
    check(&[0, 0, 0, 1, 0, 8, 0, 0, 7], 9, "too many");
    check(&[0, 0, 0], 2, "within a header");
    check(&[0, 0, 0, 9, 0, 1, 0, 0, 1, 2], 1, "within a message");
}

/// Sends bytes with any number of descriptors, past the bounds of a channel.
fn send_raw(socket: &UnixStream, bytes: &[u8], fds: &[RawFd]) {
    let mut control = [0u64; 64];
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: the message points to `part` and `control`, both alive and large enough for `fds`.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &mut part;
        message.msg_iovlen = 1;
        if !fds.is_empty() {
            let data_bytes = size_of_val(fds) as u32;
            message.msg_control = control.as_mut_ptr().cast();
            message.msg_controllen = libc::CMSG_SPACE(data_bytes) as usize;
            let header = libc::CMSG_FIRSTHDR(&message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(data_bytes) as usize;
            for (index, fd) in fds.iter().enumerate() {
                libc::CMSG_DATA(header).cast::<RawFd>().add(index).write_unaligned(*fd);
            }
        }
        assert_eq!(libc::sendmsg(socket.as_raw_fd(), &message, 0), bytes.len() as isize);
    }
}

#[test]
fn any_bytes_end_in_a_message_or_a_refusal() {
    // A small generator with fixed seeds: reproducible, and no dependency.
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..2000 {
        let (mut channel, mut raw) = with_raw_peer();
        let length = (next() % 64) as usize;
        let mut bytes: Vec<u8> = (0..length).map(|_| next() as u8).collect();
        if next() % 2 == 0 && length >= 8 {
            // Half of them begin plausibly.
            bytes[..8].copy_from_slice(&[0, 0, 0, (next() % 16) as u8, 0, 0, 0, 0]);
        }
        raw.write_all(&bytes).unwrap();
        drop(raw);
        loop {
            match channel.recv() {
                Ok(message) => assert!(message.bytes.len() <= length),
                Err(ChannelError::Closed | ChannelError::Malformed(_)) => break,
                Err(other) => panic!("{other}"),
            }
        }
    }
}

#[test]
fn writing_to_a_closed_peer_is_an_error_not_a_signal() {
    let (mut a, b) = Channel::pair().unwrap();
    drop(b);
    assert_eq!(a.send(b"x", &[]).unwrap_err().code(), "channel.closed");
}

#[test]
fn only_a_task_process_has_one_at_the_agreed_place() {
    // In a test runner descriptor 3 may be anything, but it is not a Unix socket made for us.
    if !inherited_socket_exists() {
        assert_eq!(Channel::inherited().unwrap_err().code(), "channel.not-inherited");
    }
}

#[test]
fn runs_under_tokio_in_both_directions_at_once() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (a, b) = Channel::pair().unwrap();
        let (mut to_b, mut from_b) = a.into_async().unwrap().split();
        let mut b = b.into_async().unwrap();
        let echo = tokio::spawn(async move {
            for _ in 0..20 {
                let message = b.recv().await.unwrap();
                let fds: Vec<_> = message.fds.iter().map(AsFd::as_fd).collect();
                b.send(&message.bytes, &fds).await.unwrap();
            }
            b.recv().await.unwrap_err().code()
        });
        let reader = tokio::spawn(async move {
            for index in 0..20usize {
                let mut message = from_b.recv().await.unwrap();
                assert_eq!(message.bytes, vec![index as u8; index * 50_000]);
                let mut file = File::from(message.fds.pop().unwrap());
                std::io::Seek::rewind(&mut file).unwrap();
                let mut text = String::new();
                file.read_to_string(&mut text).unwrap();
                assert_eq!(text, "same file");
            }
        });
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"same file").unwrap();
        for index in 0..20usize {
            to_b.send(&vec![index as u8; index * 50_000], &[file.as_fd()]).await.unwrap();
        }
        reader.await.unwrap();
        drop(to_b);
        assert_eq!(echo.await.unwrap(), "channel.closed");
    });
}
