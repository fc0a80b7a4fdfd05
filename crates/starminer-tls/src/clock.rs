//! The time that certificates are judged and issued by, as an input.
//!
//! It does not measure durations: timeouts and connection ages are monotonic and belong to tokio.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::UnixTime;

/// A source of wall-clock time. It may jump in either direction; nothing here assumes that it is monotonic.
pub trait Clock: Debug + Send + Sync {
    /// Whole seconds since 1970-01-01T00:00:00Z.
    fn unix_seconds(&self) -> u64;
}

/// The operating system's clock. A time before 1970 reads as 0, at which no certificate is valid.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn unix_seconds(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
    }
}

/// Hands our clock to rustls, which passes its reading on to the certificate verifiers.
#[derive(Debug)]
pub(crate) struct RustlsTime(pub(crate) Arc<dyn Clock>);

impl rustls::time_provider::TimeProvider for RustlsTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(unix_time(self.0.unix_seconds()))
    }
}

/// Seconds since 1970 as the type that rustls and webpki take.
pub(crate) fn unix_time(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}
