//! A channel under tokio.
//!
//! The same framing state as [`Channel`], woken by the runtime's readiness events. Nothing here reads or writes frames.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use tokio::io::unix::AsyncFd;

use super::frame::{Incoming, Kind, Outgoing};
use super::{Channel, ChannelError, Message, Wait};

/// One end of a channel, driven by tokio.
#[derive(Debug)]
pub struct AsyncChannel {
    sender: AsyncSender,
    receiver: AsyncReceiver,
}

/// The sending half of an [`AsyncChannel`].
#[derive(Debug)]
pub struct AsyncSender {
    socket: Arc<AsyncFd<OwnedFd>>,
    outgoing: Outgoing,
}

/// The receiving half of an [`AsyncChannel`].
#[derive(Debug)]
pub struct AsyncReceiver {
    socket: Arc<AsyncFd<OwnedFd>>,
    incoming: Incoming,
}

impl AsyncChannel {
    pub(super) fn new(channel: Channel) -> io::Result<Self> {
        let Channel { socket, incoming, outgoing } = channel;
        // SAFETY: the runtime owns the socket from here on, so the descriptor it watches stays open and the same.
        let socket = Arc::new(unsafe { AsyncFd::register(socket) }?);
        let sender = AsyncSender { socket: Arc::clone(&socket), outgoing };
        Ok(Self { sender, receiver: AsyncReceiver { socket, incoming } })
    }

    /// The next message. Cancelling it loses nothing.
    ///
    /// # Errors
    /// As [`Channel::recv`].
    pub async fn recv(&mut self) -> Result<Message, ChannelError> {
        self.receiver.recv().await
    }

    /// Sends a message.
    ///
    /// # Errors
    /// As [`Channel::send`].
    pub async fn send(&mut self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        self.sender.send(bytes, fds).await
    }

    /// Two halves that can be used at the same time.
    #[must_use]
    pub fn split(self) -> (AsyncSender, AsyncReceiver) {
        (self.sender, self.receiver)
    }
}

impl AsyncReceiver {
    /// The next message. Cancelling it loses nothing: what has arrived of a message is kept for the next call.
    ///
    /// # Errors
    /// As [`Channel::recv`].
    pub async fn recv(&mut self) -> Result<Message, ChannelError> {
        loop {
            let mut ready = self.socket.readable().await?;
            let fd = self.socket.get_ref().as_fd();
            if let Some(message) = self.incoming.receive(fd, Kind::Message, Wait::Never)? {
                return Ok(message);
            }
            // Clears only the event that was there before the attempt, so data that came meanwhile wakes us.
            ready.clear_ready();
        }
    }
}

impl AsyncSender {
    /// Sends a message. If cancelled after the message was taken, the next call sends the rest of it first; if
    /// cancelled before, nothing of it is sent.
    ///
    /// # Errors
    /// As [`Channel::send`].
    pub async fn send(&mut self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        let mut taken = false;
        loop {
            let mut ready = self.socket.writable().await?;
            let fd = self.socket.get_ref().as_fd();
            if !taken {
                taken = self.outgoing.begin(fd, Kind::Message, bytes, fds, Wait::Never)?;
            }
            if taken && self.outgoing.flush(fd, Wait::Never)? {
                return Ok(());
            }
            ready.clear_ready();
        }
    }
}
