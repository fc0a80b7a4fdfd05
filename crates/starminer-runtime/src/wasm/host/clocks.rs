//! `wasi:clocks`: constant unless granted.
//!
//! Without the grant it is 1970-01-01T00:00:00Z for ever, the monotonic clock stands at 0, and every sleep is over at
//! once: a program that waits between steps works, one that spins until a time comes runs out of fuel.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use wasmtime::Result;
use wasmtime::component::Resource;
use wasmtime_wasi_io::poll::{DynPollable, Pollable, subscribe};

use super::TaskState;
use super::bindings::wasi::clocks::{monotonic_clock, wall_clock};

/// Whether a task sees the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClockGrant {
    /// Constant clocks; a run repeats.
    #[default]
    Constant,
    /// The machine's clocks. Sleeping needs a tokio runtime with its time driver on.
    Host,
}

/// Longest sleep without a question whether to stop.
const SLEEP_SLICE: Duration = Duration::from_millis(20);

pub(crate) struct Clock {
    grant: ClockGrant,
    started: Option<Instant>,
}

impl Clock {
    pub(crate) fn new(grant: ClockGrant) -> Self {
        let started = match grant {
            ClockGrant::Constant => None,
            ClockGrant::Host => Some(Instant::now()),
        };
        Clock { grant, started }
    }

    fn monotonic_nanoseconds(&self) -> u64 {
        self.started.map_or(0, |started| u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}

impl wall_clock::Host for TaskState {
    fn now(&mut self) -> Result<wall_clock::Datetime> {
        let now = match self.clock.grant {
            ClockGrant::Constant => Duration::ZERO,
            ClockGrant::Host => SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
        };
        Ok(wall_clock::Datetime { seconds: now.as_secs(), nanoseconds: now.subsec_nanos() })
    }

    fn resolution(&mut self) -> Result<wall_clock::Datetime> {
        Ok(wall_clock::Datetime { seconds: 0, nanoseconds: 1 })
    }
}

impl monotonic_clock::Host for TaskState {
    fn now(&mut self) -> Result<u64> {
        self.shared.pace(0)?;
        Ok(self.clock.monotonic_nanoseconds())
    }

    fn resolution(&mut self) -> Result<u64> {
        Ok(1)
    }

    fn subscribe_instant(&mut self, when: u64) -> Result<Resource<DynPollable>> {
        self.subscribe_duration(when.saturating_sub(self.clock.monotonic_nanoseconds()))
    }

    fn subscribe_duration(&mut self, nanoseconds: u64) -> Result<Resource<DynPollable>> {
        self.shared.pace(0)?;
        let until = match self.clock.grant {
            ClockGrant::Constant => None,
            // A time that cannot be reached is a year: longer than any task.
            ClockGrant::Host => {
                Some(Instant::now() + Duration::from_nanos(nanoseconds).min(Duration::from_secs(31_536_000)))
            }
        };
        let alarm = self.table.push(Alarm { until })?;
        subscribe(&mut self.table, alarm)
    }
}

/// A time to wait for; `None` has come already.
struct Alarm {
    until: Option<Instant>,
}

#[async_trait::async_trait]
impl Pollable for Alarm {
    async fn ready(&mut self) {
        // In slices, since each time it wakes the run asks whether to stop.
        while let Some(left) = self.until.map(|until| until.saturating_duration_since(Instant::now()))
            && !left.is_zero()
        {
            tokio::time::sleep(left.min(SLEEP_SLICE)).await;
        }
    }
}
