//! Which task goes to which node: the order of the queue, what a node has shown, and what it offers.

use std::cmp::Reverse;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use starminer_receipt::Sensitivity;
use starminer_verify::{BootId, Digest, Policy, Provenance, SimulatedRootId, TaskId, Tier, UnixTime};

use crate::clock::Now;

/// Place in the queue: the most sensitive first, then the oldest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct QueueKey {
    pub(crate) sensitivity: Reverse<Sensitivity>,
    pub(crate) submitted_index: u64,
    pub(crate) task: TaskId,
}

/// What a node showed when it was admitted. Decides routing alone: whoever releases a key appraises evidence of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Standing {
    /// The tier that the coordinator's appraisal reached.
    pub tier: Tier,
    /// The simulated root that its evidence ended in; absent for genuine evidence.
    pub simulated_root: Option<SimulatedRootId>,
    /// When the admission went into the log.
    #[serde(default = "never")]
    pub admitted_at: UnixTime,
    /// Until when it counts, as it is told; 0 where it was ended.
    pub valid_until: UnixTime,
    /// The same on the monotonic clock of this process: this is what ends it, so that a clock that jumps takes no node out.
    #[serde(skip)]
    pub valid_until_ms: u64,
    /// How far the counters of its TPM were, under each of the last keys that quoted them. They are kept beyond the admission: what is behind them is an old state that was put back.
    #[serde(default)]
    pub tpm: Vec<TpmCounters>,
    /// Whether the log says that the node came with an old state since it was admitted. Said once.
    #[serde(default)]
    pub rollback_said: bool,
}

/// Check of a TPM whose counters went back.
pub(crate) const ROLLED_BACK: &str = "node.rolled-back";

/// Counters of a TPM, which never go back (TPM 2.0 Library, Part 1, "Timing components").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TpmCounters {
    /// SHA-256 of the name of the key that quoted them: under another key they begin anew.
    pub ak_name: Digest,
    /// Starts of the TPM.
    pub reset_count: u32,
    /// Times that it was suspended since.
    pub restart_count: u32,
    /// Milliseconds that it was powered.
    pub clock_ms: u64,
}

impl TpmCounters {
    /// Whether a TPM that was here before is now behind.
    #[must_use]
    pub fn are_before(&self, other: &Self) -> bool {
        let order = |counters: &Self| (counters.reset_count, counters.restart_count);
        self.ak_name == other.ak_name
            // Within a start the clock runs; at the next one it may begin again a little before the last value seen.
            && (order(self) < order(other) || (order(self) == order(other) && self.clock_ms < other.clock_ms))
    }
}

const fn never() -> UnixTime {
    UnixTime(0)
}

impl Standing {
    /// The provenance behind the tier.
    #[must_use]
    pub fn provenance(&self) -> Provenance {
        self.simulated_root.map_or(Provenance::Genuine, |root| Provenance::Simulated { root })
    }

    /// Whether it was not ended; time may still have.
    #[must_use]
    pub fn counts(&self) -> bool {
        self.valid_until > UnixTime(0)
    }

    /// Whether it was neither ended nor is over.
    #[must_use]
    pub fn counts_at(&self, now: Now) -> bool {
        self.counts() && self.valid_until_ms > now.mono_ms
    }

    /// Whether a task with this policy may be routed to such a node.
    #[must_use]
    pub fn suits(&self, policy: &Policy, now: Now) -> bool {
        self.counts_at(now)
            && self.tier >= policy.fields().minimum_tier
            && self.simulated_root.as_ref().is_none_or(|root| policy.accepts_simulated_root(root))
    }
}

/// A node that waits for work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The agent's start.
    pub boot: BootId,
    /// Which poll it came with: the end of an older poll does not take a newer offer back.
    pub poll: u64,
    /// How many more tasks it would take.
    pub free_places: u32,
    /// Tasks of which it says that it holds checkpoints, in order.
    pub holds: Arc<[TaskId]>,
    /// The start of the agent before this one ended without a word.
    pub unclean: bool,
}
