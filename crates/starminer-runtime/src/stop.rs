//! How the supervisor of a task ends it from outside: a question that engines ask often and cheaply.
//!
//! The engines read no clock to find out whether they are late; whoever starts them says so.

use std::fmt;
use std::sync::Arc;

/// Why a run was ended from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// The task's time is over.
    #[error("the task's time is over")]
    Deadline,
    /// The requester or the coordinator called the task off.
    #[error("the task was called off")]
    Cancelled,
}

/// Asked at every yield of a wasm guest, between host calls that move data, and between ONNX batches. It must be quick
/// and must keep saying "stop" once it has said so.
#[derive(Clone)]
pub struct StopSignal(Arc<dyn Fn() -> Option<Stop> + Send + Sync>);

impl StopSignal {
    /// Asks `question`; `None` means go on.
    pub fn new(question: impl Fn() -> Option<Stop> + Send + Sync + 'static) -> Self {
        StopSignal(Arc::new(question))
    }

    /// Never stops: for tests and for workloads bounded by fuel alone.
    pub fn never() -> Self {
        StopSignal::new(|| None)
    }

    /// The answer of the moment.
    pub fn stop(&self) -> Option<Stop> {
        (self.0)()
    }
}

impl fmt::Debug for StopSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StopSignal")
    }
}
