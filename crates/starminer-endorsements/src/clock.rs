//! Time and chance, as inputs.

use std::{
    fmt::Debug,
    future::Future,
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// The time by which endorsements are judged and renewed, and by which requests are spaced. Timeouts of a request under way are tokio's.
pub trait Clock: Debug + Send + Sync {
    /// Milliseconds since 1970. It may jump in either direction.
    fn now_ms(&self) -> u64;

    /// Waits so long.
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;

    /// Seconds since 1970.
    fn now_s(&self) -> u64 {
        self.now_ms() / 1000
    }
}

/// The operating system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// Draws a number up to which a wait is shortened, in thousandths from 0 to 999, so that many who failed together do not come back together.
pub type Jitter = Arc<dyn Fn() -> u16 + Send + Sync>;

/// Draws from the system's random bytes.
#[must_use]
pub fn system_jitter() -> Jitter {
    Arc::new(|| {
        let mut bytes = [0; 2];
        // Without random bytes there is no jitter, which costs politeness and nothing else.
        let _ = aws_lc_rs::rand::fill(&mut bytes);
        u16::from_le_bytes(bytes) % 1000
    })
}
