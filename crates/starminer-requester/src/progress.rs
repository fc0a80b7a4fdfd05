//! What happens to a task, for those who watch.

use starminer_verify::{Attempt, Digest, NodeId, TaskId};

/// One step of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An object was sealed.
    Sealed {
        /// What it is: `workload`, or the input's name.
        name: String,
        /// Length of the plaintext.
        plain_bytes: u64,
        /// Length of the ciphertext.
        sealed_bytes: u64,
    },
    /// Ciphertext was uploaded.
    Uploaded {
        /// How much more.
        sealed_bytes: u64,
        /// How much there is altogether.
        total_bytes: u64,
    },
    /// The coordinator took the task, durably.
    Submitted {
        /// The task.
        task: TaskId,
    },
    /// A node holds the lease and was challenged.
    Challenged {
        /// The task.
        task: TaskId,
        /// The node.
        node: NodeId,
        /// The attempt.
        attempt: Attempt,
    },
    /// The node's evidence met the policy.
    Appraised {
        /// The task.
        task: TaskId,
        /// The node.
        node: NodeId,
        /// Tier, e.g. `confidential`.
        tier: String,
        /// `genuine` or `simulated`.
        provenance: String,
        /// How many checks passed.
        checks_passed: usize,
    },
    /// The node's evidence did not.
    Denied {
        /// The task.
        task: TaskId,
        /// The node.
        node: NodeId,
        /// The first reason.
        reason: String,
    },
    /// The release is in the public log.
    ReleaseLogged {
        /// The task.
        task: TaskId,
        /// Index of the entry.
        index: u64,
        /// Size of the log.
        log_size: u64,
    },
    /// The key was sealed to the attested task key and sent.
    Granted {
        /// The task.
        task: TaskId,
        /// The grant.
        grant: Digest,
    },
    /// The task ended.
    Ended {
        /// The task.
        task: TaskId,
        /// Its last state.
        state: &'static str,
    },
}

/// Hears events.
pub type EventSink = std::sync::Arc<dyn Fn(Event) + Send + Sync>;
