//! Why an engine would not run a workload, or stopped for a reason of the host's.
//!
//! A [`Refusal`] is the workload's or the input's fault; a [`HostFault`] is this machine's. The two are different types so
//! that one is never reported as the other. Neither `Display` nor `Debug` shows anything that came from the workload or
//! its data: the detail is read by name, to be sealed to the requester.

use std::fmt;

/// Longest detail that a refusal carries, in bytes.
pub const MAX_DETAIL_BYTES: usize = 2048;

/// The workload or its data cannot be run. The requester is at fault.
#[derive(Clone, PartialEq, Eq)]
pub struct Refusal {
    code: &'static str,
    message: &'static str,
    detail: String,
}

impl Refusal {
    pub(crate) fn new(code: &'static str, message: &'static str) -> Self {
        Refusal { code, message, detail: String::new() }
    }

    /// Adds what may quote the workload (names of imports, shapes, row numbers), cut to [`MAX_DETAIL_BYTES`].
    pub(crate) fn with_detail(mut self, detail: impl fmt::Display) -> Self {
        let mut text = detail.to_string();
        if text.len() > MAX_DETAIL_BYTES {
            let cut = (0..=MAX_DETAIL_BYTES).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
            text.truncate(cut);
        }
        self.detail = text;
        self
    }

    /// Stable dotted code, such as `engine.onnx.not-a-model`. Safe to publish.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// One fixed sentence for the code. Safe to publish.
    pub fn message(&self) -> &'static str {
        self.message
    }

    /// What exactly was wrong. It may quote names out of the workload, never values out of its data; seal it to the
    /// requester, do not log it. Empty where the message says it all.
    pub fn detail(&self) -> &str {
        &self.detail
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refusal").field("code", &self.code).finish_non_exhaustive()
    }
}

impl std::error::Error for Refusal {}

/// This machine failed the task: storage gave wrong bytes, or the system had no memory. A run that ends so proves
/// nothing about the workload and is never compared with another run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct HostFault {
    code: &'static str,
    message: &'static str,
}

impl HostFault {
    /// Bytes of a sealed input are missing or do not authenticate.
    pub const INPUT: HostFault = HostFault {
        code: "host.input-unreadable",
        message: "a sealed input could not be read or did not authenticate",
    };
    /// The scratch store failed or gave back a page that does not authenticate.
    pub const SCRATCH: HostFault =
        HostFault { code: "host.scratch-failed", message: "the scratch store failed or did not authenticate" };
    /// The operating system refused memory within the task's limit.
    pub const MEMORY: HostFault =
        HostFault { code: "host.memory", message: "the system refused memory that is within the task's limit" };
    /// The operating system gave no random bytes.
    pub const RANDOM: HostFault = HostFault { code: "host.random", message: "the system's random generator failed" };
    /// The engine itself failed.
    pub const ENGINE: HostFault = HostFault { code: "host.engine", message: "the engine failed" };

    /// Stable dotted code.
    pub fn code(&self) -> &'static str {
        self.code
    }
}
