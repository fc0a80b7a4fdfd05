//! Task processes started ahead of time, so that starting, sealing and setting up the engine is nobody's waiting time.
//!
//! A process in the pool knows nothing of any task. It holds no key, and serves at most one lease.

use std::sync::Arc;
use std::time::Duration;

use starminer_sandbox::Program;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

use super::process::{StartError, TaskHandle};
use crate::task::ProcessLimits;

/// How many processes are being started at the same time.
const STARTERS: usize = 2;
/// How long a starter rests after a process could not be started, at first and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// The pool. Dropping it ends every process in it.
#[derive(Debug)]
pub(crate) struct Pool {
    ready: Mutex<mpsc::Receiver<Result<TaskHandle, StartError>>>,
    _starters: JoinSet<()>,
}

impl Pool {
    /// Keeps `warm` processes ready. Call within a tokio runtime.
    pub(crate) fn new(program: Program, limits: ProcessLimits, warm: usize) -> Arc<Self> {
        // Each starter holds one more that it could not put down yet.
        let (sender, ready) = mpsc::channel(warm.saturating_sub(STARTERS).max(1));
        let mut starters = JoinSet::new();
        for _ in 0..STARTERS.min(warm.max(1)) {
            starters.spawn(keep_starting(program.clone(), limits, sender.clone()));
        }
        Arc::new(Self { ready: Mutex::new(ready), _starters: starters })
    }

    /// Takes a process, waiting for one if none is ready.
    ///
    /// # Errors
    /// The last start failed: the node cannot run tasks at the moment.
    pub(crate) async fn take(&self) -> Result<TaskHandle, StartError> {
        let mut ready = self.ready.lock().await;
        loop {
            match ready.recv().await {
                Some(Ok(mut process)) => {
                    // Somebody may have killed it while it waited.
                    if !process.is_gone() {
                        return Ok(process);
                    }
                }
                Some(Err(error)) => return Err(error),
                None => return Err(StartError::NotReady("the node is stopping")),
            }
        }
    }
}

async fn keep_starting(program: Program, limits: ProcessLimits, ready: mpsc::Sender<Result<TaskHandle, StartError>>) {
    let mut backoff = BACKOFF.0;
    loop {
        let started = TaskHandle::start(program.clone(), limits).await;
        let failed = started.is_err();
        if let Err(error) = &started {
            tracing::error!(%error, "a task process could not be started");
        }
        if ready.send(started).await.is_err() {
            return;
        }
        if failed {
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF.1);
        } else {
            backoff = BACKOFF.0;
        }
    }
}
