//! The agent's end of one task process: typed messages, and no message that the process's phase does not allow.
//!
//! What a process says is bounded, parsed strictly and checked against [`Phase`] before anyone looks at it. A process that
//! breaks a rule is not argued with.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use starminer_sandbox::{
    AsyncChannel, AsyncReceiver, AsyncSender, Channel, ChannelError, Exit, InForce, Program, SpawnError, Stderr,
    TaskProcess, Zygote,
};
use tokio::time::timeout;

use crate::protocol::{FromTask, Phase, ToTask};
use crate::task::ProcessLimits;

/// How long a process may take from its start until it is sealed and waits.
const READY_TIMEOUT: Duration = Duration::from_secs(10);

/// A task process that could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// It could not be started or sealed.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// The runtime cannot watch its channel.
    #[error("the channel of a task process cannot be watched")]
    Channel(#[source] io::Error),
    /// It did not say that it is ready.
    #[error("a task process did not become ready: {0}")]
    NotReady(&'static str),
}

/// What a task process did.
#[derive(Debug)]
pub(crate) enum ProcessEvent {
    /// It said something that its phase allows.
    Message(FromTask, Vec<OwnedFd>),
    /// It broke the protocol: whatever it is now, it is not our task process any more.
    Broken(&'static str),
    /// It is gone and was reaped.
    Exited(Exit),
}

/// How many processes are copies of one zygote. They share the layout of their addresses: what one that was broken into
/// learned of it is of use in the few that come after it, and starting a zygote costs as much as two or three copies.
const COPIES_OF_ONE: u32 = 64;

/// Makes task processes, one after the other.
#[derive(Debug)]
pub(crate) struct Maker {
    program: Program,
    limits: ProcessLimits,
    /// With how many copies it may still make.
    zygote: Option<(Zygote, u32)>,
}

impl Maker {
    pub(crate) fn new(program: Program, limits: ProcessLimits) -> Self {
        Self { program, limits, zygote: None }
    }

    /// Blocks for a few milliseconds. After a failure the next process is made by a new zygote.
    fn make(&mut self) -> Result<(TaskProcess, Channel), SpawnError> {
        let (mut zygote, left) = match self.zygote.take() {
            Some(ready) => ready,
            None => (Zygote::start(&self.program, self.limits.arguments(), Stderr::Null)?, COPIES_OF_ONE),
        };
        let made = zygote.copy()?;
        self.zygote = left.checked_sub(1).filter(|left| *left > 0).map(|left| (zygote, left));
        Ok(made)
    }
}

/// A running task process.
#[derive(Debug)]
pub(crate) struct TaskHandle {
    process: Option<TaskProcess>,
    sender: AsyncSender,
    receiver: AsyncReceiver,
    phase: Phase,
    in_force: InForce,
    /// Nothing more is read from it: it reported, closed its channel, or broke the protocol.
    silent: bool,
}

impl TaskHandle {
    /// Makes a process and waits until it is sealed and ready for a lease.
    pub(crate) async fn start(maker: &mut Maker) -> Result<Self, StartError> {
        let lost = || StartError::NotReady("it could not be started");
        // Lent to the thread that blocks; should it not come back, the next process is made by a new zygote.
        let mut lent = Maker { zygote: maker.zygote.take(), ..Maker::new(maker.program.clone(), maker.limits) };
        let (lent, made) = tokio::task::spawn_blocking(move || {
            let made = lent.make();
            (lent, made)
        })
        .await
        .map_err(|_| lost())?;
        maker.zygote = lent.zygote;
        let (process, channel) = made?;
        let channel: AsyncChannel = channel.into_async().map_err(StartError::Channel)?;
        let (sender, mut receiver) = channel.split();
        let ready =
            timeout(READY_TIMEOUT, receiver.recv()).await.map_err(|_| StartError::NotReady("it kept silent"))?;
        let message = ready.map_err(|_| StartError::NotReady("it ended"))?;
        let phase = Phase::Starting;
        let Ok(message @ FromTask::Ready { .. }) = serde_json::from_slice(&message.bytes) else {
            return Err(StartError::NotReady("it said something else"));
        };
        let phase = phase.after(&message).ok_or(StartError::NotReady("it said something else"))?;
        let FromTask::Ready { in_force } = message else { return Err(StartError::NotReady("it said something else")) };
        let in_force = InForce::decode(in_force.as_bytes())
            .map_err(|_| StartError::NotReady("what is in force around it cannot be read"))?;
        Ok(Self { process: Some(process), sender, receiver, phase, in_force, silent: false })
    }

    /// What is in force around this very process.
    pub(crate) fn in_force(&self) -> &InForce {
        &self.in_force
    }

    /// How far it has come.
    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether it ended while it waited for work.
    pub(crate) fn is_gone(&mut self) -> bool {
        self.process.as_mut().is_none_or(|process| !matches!(process.try_wait(), Ok(None)))
    }

    /// Gives it a lease: from here on it serves this task or none.
    pub(crate) async fn lease(&mut self, message: &ToTask, stores: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        self.phase = Phase::Leased;
        self.send(message, stores).await
    }

    /// Sends a message.
    pub(crate) async fn send(&mut self, message: &ToTask, fds: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        let bytes = serde_json::to_vec(message).map_err(|error| ChannelError::Socket(io::Error::other(error)))?;
        self.sender.send(&bytes, fds).await
    }

    /// The next thing that it does. Cancelling loses nothing. After [`ProcessEvent::Exited`] it waits for ever.
    pub(crate) async fn next(&mut self) -> ProcessEvent {
        while !self.silent {
            match self.receiver.recv().await {
                Ok(message) => return self.judge(&message.bytes, message.fds),
                Err(ChannelError::Malformed(what)) => return self.broken(what),
                // Closed or reset: it has ended, or is about to.
                Err(_) => self.silent = true,
            }
        }
        let Some(process) = &mut self.process else { return std::future::pending().await };
        match process.exited().await {
            Ok(exit) => {
                self.process = None;
                ProcessEvent::Exited(exit)
            }
            Err(_) => self.broken("it cannot be waited for"),
        }
    }

    fn judge(&mut self, bytes: &[u8], fds: Vec<OwnedFd>) -> ProcessEvent {
        let Ok(message) = serde_json::from_slice::<FromTask>(bytes) else {
            return self.broken("it sent something that is no message");
        };
        let Some(phase) = self.phase.after(&message) else {
            return self.broken("it sent a message that does not belong there");
        };
        let descriptors = usize::from(matches!(message, FromTask::CompiledMade { .. }));
        if fds.len() != descriptors {
            return self.broken("it sent descriptors that do not belong there");
        }
        self.phase = phase;
        if phase == Phase::Reported {
            self.silent = true;
        }
        ProcessEvent::Message(message, fds)
    }

    fn broken(&mut self, what: &'static str) -> ProcessEvent {
        self.silent = true;
        ProcessEvent::Broken(what)
    }

    /// Kills it. It still has to be waited for with [`TaskHandle::next`], or dropped.
    pub(crate) fn kill(&self) {
        if let Some(process) = &self.process {
            // It fails only where there is nothing left to kill.
            let _ = process.kill();
        }
    }
}

impl TaskHandle {
    /// Kills it and waits until it is gone.
    pub(crate) async fn end(mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            // It fails where somebody else has reaped it, and then it is gone as well.
            let _ = process.exited().await;
        }
    }
}

/// Killing and reaping a process with much memory takes a while: not on a thread of the runtime.
impl Drop for TaskHandle {
    fn drop(&mut self) {
        let Some(process) = self.process.take() else { return };
        let _ = process.kill();
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || drop(process))),
            Err(_) => drop(process),
        }
    }
}
