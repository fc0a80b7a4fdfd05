//! Which task goes to which node: the order of the queue, what a node has shown, and what it offers.

use std::cmp::Reverse;

use serde::{Deserialize, Serialize};
use starminer_receipt::Sensitivity;
use starminer_verify::{BootId, Policy, Provenance, SimulatedRootId, TaskId, Tier, UnixTime};

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
    /// Until when it counts; 0 where it was ended.
    pub valid_until: UnixTime,
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

    /// Whether a task with this policy may be routed to such a node.
    #[must_use]
    pub fn suits(&self, policy: &Policy, now: UnixTime) -> bool {
        self.valid_until > now
            && self.tier >= policy.fields().minimum_tier
            && self.simulated_root.as_ref().is_none_or(|root| policy.accepts_simulated_root(root))
    }
}

/// A node that waits for work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// The agent's start.
    pub boot: BootId,
    /// Which poll it came with: the end of an older poll does not take a newer offer back.
    pub poll: u64,
    /// How many more tasks it would take.
    pub free_places: u32,
}
