//! The task process's end of the channel, as messages.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use starminer_sandbox::Channel;

use super::Broken;
use crate::protocol::{FromTask, ToTask};

/// A channel to the agent. Every failure of it ends the process: without an agent there is nothing to do. Clones are of the same channel: what
/// a guest commits is announced while it runs.
#[derive(Clone)]
pub(crate) struct Link {
    channel: Arc<Mutex<Channel>>,
}

impl Link {
    /// The channel that the agent left for this process.
    pub(crate) fn inherited() -> Result<Self, Broken> {
        Channel::inherited().map(|channel| Self { channel: Arc::new(Mutex::new(channel)) }).map_err(|_| Broken)
    }

    /// One thread has it, and nothing panics under it.
    fn channel(&self) -> MutexGuard<'_, Channel> {
        self.channel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a message.
    pub(crate) fn send(&mut self, message: &FromTask) -> Result<(), Broken> {
        self.send_with(message, &[])
    }

    /// Sends a message with descriptors.
    pub(crate) fn send_with(&mut self, message: &FromTask, fds: &[&OwnedFd]) -> Result<(), Broken> {
        let bytes = serde_json::to_vec(message).map_err(|_| Broken)?;
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(|fd| fd.as_fd()).collect();
        self.channel().send(&bytes, &fds).map_err(|_| Broken)
    }

    /// Waits for the agent. How long it waits is the agent's to bound: it kills what it has no more use for.
    pub(crate) fn receive(&mut self) -> Result<(ToTask, Vec<OwnedFd>), Broken> {
        let message = self.channel().recv().map_err(|_| Broken)?;
        let parsed = serde_json::from_slice(&message.bytes).map_err(|_| Broken)?;
        Ok((parsed, message.fds))
    }
}
