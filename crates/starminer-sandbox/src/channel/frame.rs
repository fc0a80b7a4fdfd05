//! One direction of a channel: parts of frames in, parts of frames out.
//!
//! Knows the socket calls and the bounds; does not wait on anything but the socket itself.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::{ChannelError, MAX_MESSAGE_BYTES, MAX_MESSAGE_FDS, Message, Wait};
use crate::sys;

const HEADER_BYTES: usize = 8;

/// Room for the descriptors of one message, in units that align a control message.
const CONTROL_WORDS: usize = {
    // SAFETY: CMSG_SPACE only computes a size.
    let bytes = unsafe { libc::CMSG_SPACE((MAX_MESSAGE_FDS * size_of::<RawFd>()) as u32) } as usize;
    bytes.div_ceil(size_of::<u64>())
};

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A message of the caller.
    Message = 0,
    /// The task process hands over the descriptor of its final process ([`crate::Sealing::enter`] to [`crate::TaskProcess`]).
    Adopt = 1,
    /// The process could not be sealed, or is no zygote; the body says why.
    Failed = 2,
    /// The supervisor asks a zygote for a copy of itself, with the channel that the copy is to have ([`crate::Zygote`]).
    Copy = 3,
    /// The copy of a zygote hands over a descriptor of itself, from which its final process will come.
    Begun = 4,
}

/// The frame that is being received.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    header: [u8; HEADER_BYTES],
    header_filled: usize,
    body: Vec<u8>,
    body_filled: usize,
    fds: Vec<OwnedFd>,
    /// Set once the framing is broken; holds what was wrong.
    broken: Option<&'static str>,
}

impl Incoming {
    /// The next frame of `kind`, or `None` if the socket has no more for now.
    pub(crate) fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        kind: Kind,
        wait: Wait,
    ) -> Result<Option<Message>, ChannelError> {
        if let Some(what) = self.broken {
            return Err(ChannelError::Malformed(what));
        }
        let result = self.advance(socket, kind, wait);
        if let Err(ChannelError::Malformed(what)) = result {
            self.broken = Some(what);
            // Descriptors of a bad frame are of no use to anyone: close them now.
            self.fds.clear();
            self.body = Vec::new();
        }
        result
    }

    fn advance(&mut self, socket: BorrowedFd<'_>, kind: Kind, wait: Wait) -> Result<Option<Message>, ChannelError> {
        while self.header_filled < HEADER_BYTES {
            let (header, fds) = (&mut self.header[self.header_filled..], &mut self.fds);
            match read_some(socket, header, fds, wait)? {
                Read::Some(count) => self.header_filled += count,
                Read::NothingYet => return Ok(None),
                Read::End if self.header_filled == 0 => return Err(ChannelError::Closed),
                Read::End => return Err(ChannelError::Malformed("it ended within a header")),
            }
            if self.header_filled == HEADER_BYTES {
                let length = self.checked_length(kind)?;
                self.body = vec![0; length];
                self.body_filled = 0;
            }
        }
        while self.body_filled < self.body.len() {
            let (body, fds) = (&mut self.body[self.body_filled..], &mut self.fds);
            match read_some(socket, body, fds, wait)? {
                Read::Some(count) => self.body_filled += count,
                Read::NothingYet => return Ok(None),
                Read::End => return Err(ChannelError::Malformed("it ended within a message")),
            }
        }
        if self.fds.len() != usize::from(self.header[5]) {
            return Err(ChannelError::Malformed("it came with other descriptors than it announced"));
        }
        self.header_filled = 0;
        Ok(Some(Message { bytes: std::mem::take(&mut self.body), fds: std::mem::take(&mut self.fds) }))
    }

    /// The body length that a complete header announces.
    fn checked_length(&self, expected: Kind) -> Result<usize, ChannelError> {
        let [a, b, c, d, kind, fds, reserved @ ..] = self.header;
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if reserved != [0, 0] {
            return Err(ChannelError::Malformed("reserved bytes are not zero"));
        }
        if kind != expected as u8 {
            // A supervisor that waits for the hand-over also has to hear that there will be none.
            let failed_instead = expected == Kind::Adopt && kind == Kind::Failed as u8;
            if !failed_instead {
                return Err(ChannelError::Malformed("it is of another kind than expected"));
            }
        }
        if length > MAX_MESSAGE_BYTES {
            return Err(ChannelError::Malformed("it is too long"));
        }
        if usize::from(fds) > MAX_MESSAGE_FDS {
            return Err(ChannelError::Malformed("it announces too many descriptors"));
        }
        Ok(length)
    }
}

/// What is left of frames that were taken for sending.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    rest: Vec<u8>,
    sent: usize,
}

impl Outgoing {
    /// Takes a frame, if nothing waits before it. `false`: not taken, the socket is full.
    pub(crate) fn begin(
        &mut self,
        socket: BorrowedFd<'_>,
        kind: Kind,
        bytes: &[u8],
        fds: &[BorrowedFd<'_>],
        wait: Wait,
    ) -> Result<bool, ChannelError> {
        if bytes.len() > MAX_MESSAGE_BYTES || fds.len() > MAX_MESSAGE_FDS {
            return Err(ChannelError::TooLarge { bytes: bytes.len(), fds: fds.len() });
        }
        if !self.flush(socket, wait)? {
            return Ok(false);
        }
        let header = header(kind, bytes.len(), fds.len());
        // The descriptors go with the first part; what the socket does not take now follows from `rest`.
        let Some(count) = write_some(socket, &header, bytes, fds, wait)? else {
            return Ok(false);
        };
        self.rest.extend(header.iter().chain(bytes).skip(count));
        Ok(true)
    }

    /// Sends what waits. `false`: the socket is full.
    pub(crate) fn flush(&mut self, socket: BorrowedFd<'_>, wait: Wait) -> Result<bool, ChannelError> {
        while self.sent < self.rest.len() {
            match write_some(socket, &self.rest[self.sent..], &[], &[], wait)? {
                Some(count) => self.sent += count,
                None => return Ok(false),
            }
        }
        self.rest.clear();
        self.sent = 0;
        Ok(true)
    }
}

/// The header of a frame whose sizes were checked against the bounds.
fn header(kind: Kind, bytes: usize, fds: usize) -> [u8; HEADER_BYTES] {
    let [a, b, c, d] = u32::try_from(bytes).expect("checked against MAX_MESSAGE_BYTES").to_be_bytes();
    let fds = u8::try_from(fds).expect("checked against MAX_MESSAGE_FDS");
    [a, b, c, d, kind as u8, fds, 0, 0]
}

enum Read {
    Some(usize),
    NothingYet,
    End,
}

fn flags(wait: Wait) -> libc::c_int {
    match wait {
        Wait::Forever => 0,
        Wait::Never => libc::MSG_DONTWAIT,
    }
}

/// Receives up to `buffer.len()` bytes (not zero) and appends descriptors that came with them to `fds`.
fn read_some(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    fds: &mut Vec<OwnedFd>,
    wait: Wait,
) -> Result<Read, ChannelError> {
    let mut control = [MaybeUninit::<u64>::uninit(); CONTROL_WORDS];
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: an all-zero msghdr is valid: no address, no parts, no control data.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    let received = sys::retry(|| {
        // SAFETY: `message` points to `part` and `control`, both alive, writable and of the sizes given.
        let count = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut message, libc::MSG_CMSG_CLOEXEC | flags(wait)) };
        sys::check(count as i64)
    });
    let count = match received {
        Ok(count) => count as usize,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Read::NothingYet),
        Err(error) => return Err(error.into()),
    };
    // First of all take ownership of what was received, so that no path below can leak it.
    // SAFETY: `recvmsg` succeeded and filled `message`, whose control buffer is still alive.
    unsafe { take_fds(&message, fds) };
    if message.msg_flags & libc::MSG_CTRUNC != 0 || fds.len() > MAX_MESSAGE_FDS {
        return Err(ChannelError::Malformed("it came with too many descriptors"));
    }
    Ok(if count == 0 { Read::End } else { Read::Some(count) })
}

/// Moves the descriptors in the control data of a received message into `fds`.
///
/// # Safety
/// `message` must have been filled by a successful `recvmsg`, its control buffer alive, and this called once for it.
unsafe fn take_fds(message: &libc::msghdr, fds: &mut Vec<OwnedFd>) {
    // SAFETY: the kernel wrote `msg_controllen` bytes of well-formed control messages; the macros stay within them.
    let mut current = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !current.is_null() {
        // SAFETY: non-null, so it points to a whole control header within the buffer.
        let header = unsafe { &*current };
        if header.cmsg_level == libc::SOL_SOCKET && header.cmsg_type == libc::SCM_RIGHTS {
            // SAFETY: CMSG_LEN only computes a size.
            let data_bytes = header.cmsg_len - unsafe { libc::CMSG_LEN(0) } as usize;
            // SAFETY: the data of this control message starts there and holds `data_bytes` bytes of descriptors.
            let data = unsafe { libc::CMSG_DATA(current) }.cast::<RawFd>();
            for index in 0..data_bytes / size_of::<RawFd>() {
                // SAFETY: in bounds by the loop; unaligned reads are allowed for; the kernel made this descriptor for
                // us just now, so nobody else owns it.
                fds.push(unsafe { OwnedFd::from_raw_fd(data.add(index).read_unaligned()) });
            }
        }
        // SAFETY: as for CMSG_FIRSTHDR, with `current` inside the buffer.
        current = unsafe { libc::CMSG_NXTHDR(message, current) };
    }
}

/// Sends a first part of `head` and `tail`, with `fds`. `None`: the socket is full, nothing was sent.
fn write_some(
    socket: BorrowedFd<'_>,
    head: &[u8],
    tail: &[u8],
    fds: &[BorrowedFd<'_>],
    wait: Wait,
) -> Result<Option<usize>, ChannelError> {
    let mut control = [0u64; CONTROL_WORDS];
    let mut parts =
        [head, tail].map(|part| libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() });
    // SAFETY: an all-zero msghdr is valid: no address, no parts, no control data.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = parts.as_mut_ptr();
    message.msg_iovlen = parts.len();
    if !fds.is_empty() {
        // At most MAX_MESSAGE_FDS descriptors: far below u32.
        let data_bytes = size_of_val(fds) as u32;
        message.msg_control = control.as_mut_ptr().cast();
        // SAFETY: CMSG_SPACE only computes a size; `control` has room for MAX_MESSAGE_FDS descriptors, checked by the
        // callers.
        message.msg_controllen = unsafe { libc::CMSG_SPACE(data_bytes) } as usize;
        // SAFETY: `control` is aligned for and large enough to hold one control message with `fds`, and BorrowedFd has
        // the representation of a raw descriptor.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(&message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(data_bytes) as usize;
            let data = libc::CMSG_DATA(header).cast::<RawFd>();
            for (index, fd) in fds.iter().enumerate() {
                data.add(index).write_unaligned(fd.as_raw_fd());
            }
        }
    }
    let sent = sys::retry(|| {
        // SAFETY: `message` points to `parts` and `control`, both alive and of the sizes given; sendmsg only reads.
        let count = unsafe { libc::sendmsg(socket.as_raw_fd(), &message, libc::MSG_NOSIGNAL | flags(wait)) };
        sys::check(count as i64)
    });
    match sent {
        Ok(count) => Ok(Some(count as usize)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error.into()),
    }
}
