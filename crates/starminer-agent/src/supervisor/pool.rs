//! Task processes made ahead of time, so that making and sealing them is nobody's waiting time.
//!
//! A process in the pool knows nothing of any task. It holds no key, and serves at most one lease.

use std::sync::Arc;
use std::time::Duration;

use starminer_sandbox::Program;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

use super::process::{Maker, TaskHandle};
use crate::task::ProcessLimits;

/// How many processes are being started at the same time.
const STARTERS: usize = 2;
/// How long a starter rests after a process could not be started, at first and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// How long somebody waits for a process. One failed start is nobody's business; a node that cannot start any fails its
/// tasks, so that others get them.
const TAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// No task process can be had at the moment; the reasons are in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no task process became ready in {} s", TAKE_TIMEOUT.as_secs())]
pub(crate) struct NoProcess;

/// The pool. Dropping it ends every process in it.
#[derive(Debug)]
pub(crate) struct Pool {
    ready: Mutex<mpsc::Receiver<TaskHandle>>,
    starters: Mutex<JoinSet<()>>,
}

impl Pool {
    /// Keeps about `warm` processes ready. Call within a tokio runtime.
    pub(crate) fn new(program: Program, limits: ProcessLimits, warm: usize) -> Arc<Self> {
        // Each starter holds one more that it could not put down yet.
        let (sender, ready) = mpsc::channel(warm.saturating_sub(STARTERS).max(1));
        let mut starters = JoinSet::new();
        for _ in 0..STARTERS.min(warm.max(1)) {
            starters.spawn(keep_starting(Maker::new(program.clone(), limits), sender.clone()));
        }
        Arc::new(Self { ready: Mutex::new(ready), starters: Mutex::new(starters) })
    }

    /// Takes a process, waiting for one if none is ready.
    ///
    /// # Errors
    /// None came in time: the node cannot run tasks at the moment.
    pub(crate) async fn take(&self) -> Result<TaskHandle, NoProcess> {
        let take = async {
            let mut ready = self.ready.lock().await;
            loop {
                let mut process = ready.recv().await.ok_or(NoProcess)?;
                // Somebody may have killed it while it waited.
                if !process.is_gone() {
                    return Ok(process);
                }
            }
        };
        tokio::time::timeout(TAKE_TIMEOUT, take).await.unwrap_or(Err(NoProcess))
    }

    /// Starts no more processes, and waits until those that nobody took have ended.
    pub(crate) async fn close(&self) {
        let mut ready = self.ready.lock().await;
        ready.close();
        while let Some(process) = ready.recv().await {
            process.end().await;
        }
        let mut starters = self.starters.lock().await;
        while starters.join_next().await.is_some() {}
    }
}

async fn keep_starting(mut maker: Maker, ready: mpsc::Sender<TaskHandle>) {
    let mut backoff = BACKOFF.0;
    loop {
        match TaskHandle::start(&mut maker).await {
            Ok(process) => {
                backoff = BACKOFF.0;
                if let Err(mpsc::error::SendError(process)) = ready.send(process).await {
                    return process.end().await;
                }
            }
            Err(error) => {
                tracing::error!(%error, "a task process could not be started");
                tokio::select! {
                    () = tokio::time::sleep(backoff) => {}
                    () = ready.closed() => return,
                }
                backoff = (backoff * 2).min(BACKOFF.1);
            }
        }
    }
}
