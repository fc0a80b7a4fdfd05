//! Watches the host's posture for as long as the node runs, on a thread of its own: looking blocks.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use starminer_attester::{HostTree, PostureWatch, StopWatch};

use super::Shared;
use super::upstream::Upstream;
use crate::error::AgentError;

/// The watch. Dropping it ends it soon; whoever wants to know that it ended, stops it.
#[derive(Debug)]
pub(crate) struct Watching {
    stop: StopWatch,
    thread: JoinHandle<()>,
}

/// Takes a first look at the host, and tells of every change from then on.
///
/// # Errors
/// [`AgentError::File`] where there is no descriptor or thread left.
pub(crate) async fn start<U: Upstream>(shared: &Arc<Shared<U>>, host: HostTree) -> Result<Watching, AgentError> {
    let failed = |source| AgentError::File { path: PathBuf::from("/proc/self/mountinfo"), source };
    let started = tokio::task::spawn_blocking(move || PostureWatch::start(host)).await;
    let (mut watch, stop) =
        started.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic())).map_err(failed)?;
    let shared = Arc::clone(shared);
    let work = move || {
        while let Some(change) = watch.next_change() {
            for item in &change.better {
                tracing::info!(
                    measure = item.name().name(),
                    seen = item.detail(),
                    "in force around the node again, or for the first time"
                );
            }
            for item in &change.worse {
                tracing::warn!(
                    measure = item.name().name(),
                    seen = item.detail(),
                    "not in force around the node any more"
                );
            }
            shared.posture_changed(&watch.lost());
        }
    };
    let thread = Builder::new().name("posture".into()).spawn(work).map_err(failed)?;
    Ok(Watching { stop, thread })
}

impl Watching {
    /// Ends it, and waits until it has.
    pub(crate) async fn stop(self) {
        drop(self.stop);
        let thread = self.thread;
        if let Ok(Err(_)) = tokio::task::spawn_blocking(move || thread.join()).await {
            tracing::error!("a defect of this program ended the watch over the host's posture");
        }
    }
}
