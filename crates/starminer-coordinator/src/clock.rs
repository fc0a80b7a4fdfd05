//! Time and randomness of the coordinator, as inputs.
//!
//! Two times: the wall clock, which statements and the log carry and which may jump; and a monotonic count of milliseconds since
//! start, by which waits are measured, so that a clock that jumps ends no lease.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use starminer_verify::UnixTime;

/// Both times of one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// The wall clock.
    pub wall: UnixTime,
    /// Milliseconds since this process started; never decreases.
    pub mono_ms: u64,
}

/// Gives the time.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// The time.
    fn now(&self) -> Now;
}

/// The operating system's clocks.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self { started: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let millis = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Now { wall: UnixTime(millis(wall)), mono_ms: millis(self.started.elapsed()) }
    }
}

/// The operating system gave no random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gave no random bytes")]
pub struct NoRandomness;

/// Gives random bytes.
pub trait Randomness: Send + Sync + std::fmt::Debug {
    /// 32 bytes that nobody can guess.
    ///
    /// # Errors
    /// [`NoRandomness`].
    fn draw(&self) -> Result<[u8; 32], NoRandomness>;
}

/// The operating system's generator.
#[derive(Debug, Default)]
pub struct SystemRandomness(SystemRandom);

impl Randomness for SystemRandomness {
    fn draw(&self) -> Result<[u8; 32], NoRandomness> {
        let mut bytes = [0; 32];
        self.0.fill(&mut bytes).map_err(|_| NoRandomness)?;
        Ok(bytes)
    }
}
