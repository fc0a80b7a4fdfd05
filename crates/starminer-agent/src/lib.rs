//! The node's agent.

#![allow(dead_code)]
mod posture;
mod protocol;
mod task;

pub use task::run_if_task_process;

/// For this crate's own integration tests: the channel's messages, so that a test can play the agent. No stable interface.
#[doc(hidden)]
pub mod testing {
    pub use crate::protocol::{CompiledRecord, FromTask, MAX_OBJECTS_PER_MESSAGE, Phase, ToTask};
    pub use crate::task::ProcessLimits;
}
