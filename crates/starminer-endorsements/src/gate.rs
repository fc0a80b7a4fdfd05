//! Politeness: one request at a time for each host, a pause between two, and longer ones after failures or when the host asks for them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use crate::clock::{Clock, Jitter};

/// How hosts are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Politeness {
    /// The pause between two requests to a host, in milliseconds. 1,000 by default.
    pub pause_ms: u64,
    /// The first wait after a failure, in seconds; it doubles with each. 5 by default.
    pub backoff_first_s: u64,
    /// The longest wait after failures, in seconds. An hour by default.
    pub backoff_most_s: u64,
    /// The longest wait that a host may ask for, in seconds. A day by default.
    pub retry_after_most_s: u64,
}

impl Default for Politeness {
    fn default() -> Self {
        Self { pause_ms: 1000, backoff_first_s: 5, backoff_most_s: 3600, retry_after_most_s: 86_400 }
    }
}

impl Politeness {
    /// The wait after so many failures in a row.
    pub(crate) fn backoff(&self, failures: u32, jitter: &Jitter) -> Duration {
        let doubled = self.backoff_first_s.saturating_mul(1 << failures.saturating_sub(1).min(20));
        let most_ms = doubled.min(self.backoff_most_s).saturating_mul(1000);
        // Between half of it and the whole.
        let shortened_ms = most_ms / 2 / 1000 * u64::from(jitter().min(999));
        Duration::from_millis(most_ms - shortened_ms)
    }
}

/// When a host may be asked again.
#[derive(Debug, Default)]
struct State {
    not_before_ms: u64,
    /// How long that wait was when it began: a clock that jumps back does not make it longer.
    wait_ms: u64,
    /// Whether it is a pause, or a wait after a failure.
    failures: u32,
}

/// Gates of hosts. There are as many as services are configured.
#[derive(Debug, Default)]
pub(crate) struct Gates(Mutex<BTreeMap<String, Arc<AsyncMutex<State>>>>);

/// The right to ask a host, for as long as it is held.
#[derive(Debug)]
pub(crate) struct Pass(OwnedMutexGuard<State>);

impl Gates {
    /// Waits for the host to be free and for the pause to end. After failures it does not wait: it says how long it would.
    pub(crate) async fn enter(&self, host: &str, clock: &dyn Clock) -> Result<Pass, Duration> {
        let gate = {
            let mut gates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            gates.entry(host.to_owned()).or_default().clone()
        };
        let state = gate.lock_owned().await;
        let left_ms = state.not_before_ms.saturating_sub(clock.now_ms());
        if left_ms > 0 && left_ms <= state.wait_ms {
            let left = Duration::from_millis(left_ms);
            if state.failures > 0 {
                return Err(left);
            }
            clock.sleep(left).await;
        }
        Ok(Pass(state))
    }
}

impl Pass {
    /// The host answered.
    pub(crate) fn served(mut self, politeness: &Politeness, clock: &dyn Clock) {
        self.0.failures = 0;
        self.wait(Duration::from_millis(politeness.pause_ms), clock);
    }

    /// It did not, or asked for patience. Gives how long it will be left alone.
    pub(crate) fn failed(
        mut self,
        asked: Option<Duration>,
        politeness: &Politeness,
        jitter: &Jitter,
        clock: &dyn Clock,
    ) -> Duration {
        self.0.failures = self.0.failures.saturating_add(1);
        let backoff = politeness.backoff(self.0.failures, jitter);
        let asked = asked.unwrap_or_default().min(Duration::from_secs(politeness.retry_after_most_s));
        let wait = backoff.max(asked);
        self.wait(wait, clock);
        wait
    }

    fn wait(&mut self, wait: Duration, clock: &dyn Clock) {
        self.0.wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        self.0.not_before_ms = clock.now_ms().saturating_add(self.0.wait_ms);
    }
}
