//! Framed messages and file descriptors over the one socket between a supervisor and its task process.
//!
//! A frame is an 8-byte header (body length as u32 big-endian, kind, number of descriptors, two zero bytes) and the
//! body. It is a stream socket, because a packet socket takes no message above the host's `wmem_max`, which an
//! unprivileged process cannot raise. Descriptors ride on the first byte of their frame; Linux never lets one read
//! cross into the next sender's descriptors, so reading header and body apart keeps them with their frame.
//!
//! Bounded: [`MAX_MESSAGE_BYTES`] and [`MAX_MESSAGE_FDS`] a message; larger data travels as a descriptor. A peer that
//! breaks the framing ends the channel: nothing after that point could be trusted to be a frame, and every descriptor
//! received for the bad frame is closed.
//!
//! It does not authenticate (the socket pair is private to the two processes) and does not know what messages mean.
//! [`Channel`] works blocking (`recv`, `send`) and polled (`try_recv`, `try_send` with [`AsFd`]);
//! [`AsyncChannel`] drives the same state under tokio.

mod frame;
mod tokio_io;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::sys;
pub(crate) use frame::Kind;
use frame::{Incoming, Outgoing};
pub use tokio_io::{AsyncChannel, AsyncReceiver, AsyncSender};

/// Largest body of one message in bytes.
pub const MAX_MESSAGE_BYTES: usize = 1 << 20;
/// Most file descriptors in one message.
pub const MAX_MESSAGE_FDS: usize = 8;
/// The descriptor at which a task process finds its end of the channel.
pub const CHANNEL_FD: RawFd = 3;

/// A message as received.
#[derive(Debug, Default)]
pub struct Message {
    /// The body, at most [`MAX_MESSAGE_BYTES`].
    pub bytes: Vec<u8>,
    /// The descriptors that came with it, close-on-exec, at most [`MAX_MESSAGE_FDS`].
    pub fds: Vec<OwnedFd>,
}

/// Why a message could not be sent or received.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The peer is gone, or closed its end.
    #[error("the other end of the channel is closed")]
    Closed,
    /// The peer broke the framing; the channel is unusable from here on.
    #[error("the other end of the channel sent something that is not a message: {0}")]
    Malformed(&'static str),
    /// The caller's message exceeds [`MAX_MESSAGE_BYTES`] or [`MAX_MESSAGE_FDS`]; nothing was sent.
    #[error("a message of {bytes} bytes with {fds} descriptors exceeds the bounds of the channel")]
    TooLarge {
        /// Size of the refused body.
        bytes: usize,
        /// Number of descriptors with it.
        fds: usize,
    },
    /// Nothing arrived in the time that the caller allowed.
    #[error("no message arrived in time")]
    TimedOut,
    /// This process has no channel at [`CHANNEL_FD`], or has taken it already.
    #[error("this process was not started as a task process")]
    NotInherited,
    /// The socket failed.
    #[error("the channel's socket failed")]
    Socket(#[source] io::Error),
}

impl ChannelError {
    /// A stable code for logs and reports.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Closed => "channel.closed",
            Self::Malformed(_) => "channel.malformed",
            Self::TooLarge { .. } => "channel.too-large",
            Self::TimedOut => "channel.timed-out",
            Self::NotInherited => "channel.not-inherited",
            Self::Socket(_) => "channel.socket",
        }
    }
}

impl From<io::Error> for ChannelError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Self::Closed,
            _ => Self::Socket(error),
        }
    }
}

/// Whether a call may wait for the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    Forever,
    Never,
}

/// One end of the socket between a supervisor and a task process.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
    incoming: Incoming,
    outgoing: Outgoing,
}

impl Channel {
    /// Two connected ends in this process.
    ///
    /// # Errors
    /// If no socket can be made.
    pub fn pair() -> io::Result<(Self, Self)> {
        let mut fds = [-1; 2];
        // SAFETY: `fds` has room for the two descriptors that the kernel writes.
        sys::check(unsafe {
            libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0, fds.as_mut_ptr())
        })?;
        // SAFETY: the kernel just returned both descriptors, nobody else owns them.
        let [ours, theirs] = fds.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
        Ok((Self::over(ours), Self::over(theirs)))
    }

    /// The task process's end, inherited at [`CHANNEL_FD`]. Can be taken once.
    ///
    /// # Errors
    /// [`ChannelError::NotInherited`] if there is no socket at that descriptor or it was taken before.
    pub fn inherited() -> Result<Self, ChannelError> {
        static TAKEN: AtomicBool = AtomicBool::new(false);
        if !inherited_socket_exists() || TAKEN.swap(true, Ordering::SeqCst) {
            return Err(ChannelError::NotInherited);
        }
        // SAFETY: the process that started us put the socket there for us, the check above saw it, and the flag makes
        // this the only owner.
        Ok(Self::over(unsafe { OwnedFd::from_raw_fd(CHANNEL_FD) }))
    }

    pub(crate) fn over(socket: OwnedFd) -> Self {
        Self { socket, incoming: Incoming::default(), outgoing: Outgoing::default() }
    }

    /// Waits for the next message.
    ///
    /// # Errors
    /// [`ChannelError::Closed`] once the peer is gone; [`ChannelError::Malformed`] if it broke the framing.
    pub fn recv(&mut self) -> Result<Message, ChannelError> {
        match self.incoming.receive(self.socket.as_fd(), Kind::Message, Wait::Forever)? {
            Some(message) => Ok(message),
            // A blocking read came back empty-handed: somebody made the socket non-blocking.
            None => self.recv_kind(Kind::Message, None),
        }
    }

    /// Waits at most `timeout` for the next message. What had arrived of an incomplete one is kept.
    ///
    /// # Errors
    /// As [`Channel::recv`], and [`ChannelError::TimedOut`].
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Message, ChannelError> {
        self.recv_kind(Kind::Message, Some(timeout))
    }

    pub(crate) fn recv_kind(&mut self, kind: Kind, timeout: Option<Duration>) -> Result<Message, ChannelError> {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        loop {
            if let Some(message) = self.incoming.receive(self.socket.as_fd(), kind, Wait::Never)? {
                return Ok(message);
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(ChannelError::TimedOut);
            }
            sys::retry(|| sys::poll(self.socket.as_fd(), libc::POLLIN, left))?;
        }
    }

    /// The next message if it is complete already.
    ///
    /// # Errors
    /// As [`Channel::recv`].
    pub fn try_recv(&mut self) -> Result<Option<Message>, ChannelError> {
        self.incoming.receive(self.socket.as_fd(), Kind::Message, Wait::Never)
    }

    /// Sends a message, waiting until the socket has taken all of it. The descriptors are duplicated to the peer.
    ///
    /// # Errors
    /// [`ChannelError::TooLarge`] before anything is sent; [`ChannelError::Closed`] if the peer is gone.
    pub fn send(&mut self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        self.send_kind(Kind::Message, bytes, fds)
    }

    pub(crate) fn send_kind(&mut self, kind: Kind, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        while !self.outgoing.begin(self.socket.as_fd(), kind, bytes, fds, Wait::Forever)? {
            sys::retry(|| sys::poll(self.socket.as_fd(), libc::POLLOUT, None))?;
        }
        while !self.outgoing.flush(self.socket.as_fd(), Wait::Forever)? {
            sys::retry(|| sys::poll(self.socket.as_fd(), libc::POLLOUT, None))?;
        }
        Ok(())
    }

    /// Offers a message without waiting. `false`: the socket is full, nothing was taken, offer it again when the
    /// channel is writable. `true`: the message is taken; what the socket had no room for waits inside, and
    /// [`Channel::try_flush`] (or the next send) moves it on.
    ///
    /// # Errors
    /// As [`Channel::send`].
    pub fn try_send(&mut self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<bool, ChannelError> {
        self.outgoing.begin(self.socket.as_fd(), Kind::Message, bytes, fds, Wait::Never)
    }

    /// Moves what waits inside to the socket without waiting. `true` once nothing is left.
    ///
    /// # Errors
    /// [`ChannelError::Closed`] if the peer is gone.
    pub fn try_flush(&mut self) -> Result<bool, ChannelError> {
        self.outgoing.flush(self.socket.as_fd(), Wait::Never)
    }

    /// The same channel, driven by the tokio runtime of the caller.
    ///
    /// # Errors
    /// If the runtime cannot watch the socket.
    pub fn into_async(self) -> io::Result<AsyncChannel> {
        AsyncChannel::new(self)
    }

    /// Takes the socket itself, for the child's side of a spawn.
    pub(crate) fn into_socket(self) -> OwnedFd {
        self.socket
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Whether a socket sits at [`CHANNEL_FD`]. Asked in a way that a sealed process may ask.
pub(crate) fn inherited_socket_exists() -> bool {
    // SAFETY: all zero bytes are a valid `stat`, which is writable for the call.
    unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        libc::fstat(CHANNEL_FD, &mut stat) == 0 && stat.st_mode & libc::S_IFMT == libc::S_IFSOCK
    }
}

#[cfg(test)]
mod tests;
