//! Who was heard of: which nodes and brokers poll, and since when they do not.
//!
//! A node that waits in a poll is there. One that holds leases and was not heard of for the set time is lost. Kept in memory: after a start,
//! every node has the full time to come back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use starminer_verify::{NodeId, PublicKey, UnixTime};

use crate::clock::{Clock, Now};

/// Most identities that are remembered; those that were silent longest are forgotten first.
const REMEMBERED: usize = 16_384;

/// See the module.
#[derive(Debug)]
pub struct Presence {
    seen: Mutex<HashMap<PublicKey, Seen>>,
    silence_ms: u64,
    /// Whoever was never seen counts as seen at the start.
    started_ms: u64,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    polls: u32,
    mono_ms: u64,
    wall: UnixTime,
}

/// A poll under way.
#[derive(Debug)]
pub struct Poll {
    presence: Arc<Presence>,
    clock: Arc<dyn Clock>,
    identity: PublicKey,
}

impl Presence {
    /// Nobody was heard of yet. Nodes are lost after `silence_ms`.
    #[must_use]
    pub fn new(silence_ms: u64, now: Now) -> Self {
        Self { seen: Mutex::default(), silence_ms, started_ms: now.mono_ms }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<PublicKey, Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An identity polls; it is there until the poll is dropped, and for a while after.
    pub fn poll(self: &Arc<Self>, identity: PublicKey, clock: &Arc<dyn Clock>) -> Poll {
        let now = clock.now();
        let mut seen = self.lock();
        if seen.len() >= REMEMBERED && !seen.contains_key(&identity) {
            let silent = seen
                .iter()
                .filter(|(_, seen)| seen.polls == 0)
                .min_by_key(|(_, seen)| seen.mono_ms)
                .map(|(key, _)| *key);
            if let Some(silent) = silent {
                seen.remove(&silent);
            }
        }
        let entry = seen.entry(identity).or_insert(Seen { polls: 0, mono_ms: now.mono_ms, wall: now.wall });
        entry.polls += 1;
        (entry.mono_ms, entry.wall) = (now.mono_ms, now.wall);
        Poll { presence: self.clone(), clock: clock.clone(), identity }
    }

    /// Which of these nodes were silent for too long.
    pub fn lost(&self, nodes: impl Iterator<Item = NodeId>, now: Now) -> Vec<NodeId> {
        let seen = self.lock();
        nodes
            .filter(|node| {
                let (polls, last) = seen.get(&node.0).map_or((0, self.started_ms), |seen| (seen.polls, seen.mono_ms));
                polls == 0 && now.mono_ms.saturating_sub(last) >= self.silence_ms
            })
            .collect()
    }

    /// Whether an identity polls or did a moment ago.
    #[must_use]
    pub fn is_present(&self, identity: &PublicKey, now: Now) -> bool {
        self.lock()
            .get(identity)
            .is_some_and(|seen| seen.polls > 0 || now.mono_ms.saturating_sub(seen.mono_ms) < self.silence_ms)
    }

    /// Everybody who polls or did a moment ago, in order.
    #[must_use]
    pub fn present(&self, now: Now) -> Vec<PublicKey> {
        let is_present = |seen: &Seen| seen.polls > 0 || now.mono_ms.saturating_sub(seen.mono_ms) < self.silence_ms;
        let mut present: Vec<PublicKey> =
            self.lock().iter().filter(|(_, seen)| is_present(seen)).map(|(key, _)| *key).collect();
        present.sort_unstable();
        present
    }

    /// When an identity was last heard of.
    #[must_use]
    pub fn seen_at(&self, identity: &PublicKey, now: Now) -> Option<UnixTime> {
        self.lock().get(identity).map(|seen| if seen.polls > 0 { now.wall } else { seen.wall })
    }
}

impl Drop for Poll {
    fn drop(&mut self) {
        let now = self.clock.now();
        if let Some(seen) = self.presence.lock().get_mut(&self.identity) {
            seen.polls = seen.polls.saturating_sub(1);
            (seen.mono_ms, seen.wall) = (now.mono_ms, now.wall);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[derive(Debug, Default)]
    struct SetClock(AtomicU64);

    impl Clock for SetClock {
        fn now(&self) -> Now {
            let mono_ms = self.0.load(Ordering::Relaxed);
            Now { wall: UnixTime(1_000_000 + mono_ms), mono_ms }
        }
    }

    #[test]
    fn whoever_polls_is_there_and_is_lost_some_time_after() {
        let clock = Arc::new(SetClock::default());
        let as_clock: Arc<dyn Clock> = clock.clone();
        let presence = Arc::new(Presence::new(100, clock.now()));
        let node = NodeId(PublicKey([1; 32]));
        let at = |ms: u64| {
            clock.0.store(ms, Ordering::Relaxed);
            clock.now()
        };
        // Never seen: the time since the start counts.
        assert!(presence.lost([node].into_iter(), at(99)).is_empty());
        assert_eq!(presence.lost([node].into_iter(), at(100)), [node]);
        let (first, second) = (presence.poll(node.0, &as_clock), presence.poll(node.0, &as_clock));
        drop(first);
        assert!(presence.lost([node].into_iter(), at(5_000)).is_empty(), "one poll goes on");
        assert!(presence.is_present(&node.0, at(5_000)));
        drop(second);
        assert!(presence.lost([node].into_iter(), at(5_099)).is_empty());
        assert_eq!(presence.present(at(5_099)), [node.0]);
        assert_eq!(presence.lost([node].into_iter(), at(5_100)), [node]);
        assert!(presence.present(at(5_100)).is_empty());
        assert_eq!(presence.seen_at(&node.0, at(9_000)), Some(UnixTime(1_005_000)));
    }
}
