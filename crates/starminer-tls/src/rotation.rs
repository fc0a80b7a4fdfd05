//! Re-issues the leaf on a schedule. Connections keep the keys they began with; new ones get the new leaf.
//!
//! It never rotates the identity key: that is a new party. Spec: `specs/tls.md`, section "Rotation".

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::certificate::{IssueError, Leaf, Side};
use crate::clock::Clock;
use crate::identity::IdentityKey;
use crate::verify::MAX_LEAF_LIFETIME;

/// The rotation task looks at the clock at least this often, so that a jump is noticed soon.
const CLOCK_CHECK_INTERVAL: Duration = Duration::from_secs(30);

/// Why a schedule was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScheduleError {
    /// Certificates count whole seconds.
    #[error("leaves cannot rotate more often than once a second")]
    TooOften,
    /// A connection could outlive the leaf that it began with.
    #[error("the validity of a leaf must cover the rotation interval and the age of a connection together")]
    ValidityTooShort,
    /// Peers refuse leaves that live longer than [`MAX_LEAF_LIFETIME`].
    #[error("a leaf may live {} h at most", MAX_LEAF_LIFETIME.as_secs() / 3600)]
    ValidityTooLong,
}

/// A schedule. Its invariant: `every + max_connection_age <= validity`, so that a connection never outlives the leaf
/// it began with, as long as the HTTP layers drain it in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    every: Duration,
    validity: Duration,
    max_connection_age: Duration,
}

impl Rotation {
    /// A schedule of one's own.
    pub fn new(every: Duration, validity: Duration, max_connection_age: Duration) -> Result<Self, ScheduleError> {
        if every < Duration::from_secs(1) {
            return Err(ScheduleError::TooOften);
        }
        if every.saturating_add(max_connection_age) > validity {
            return Err(ScheduleError::ValidityTooShort);
        }
        if validity > MAX_LEAF_LIFETIME {
            return Err(ScheduleError::ValidityTooLong);
        }
        Ok(Self { every, validity, max_connection_age })
    }

    /// How long a leaf is presented to new peers.
    pub fn every(&self) -> Duration {
        self.every
    }

    /// How long a leaf is valid.
    pub fn validity(&self) -> Duration {
        self.validity
    }

    /// After this time the HTTP layers stop starting requests on a connection and let it run dry.
    pub fn max_connection_age(&self) -> Duration {
        self.max_connection_age
    }
}

impl Default for Rotation {
    /// A new leaf each hour, valid for three, connections drained after one and a half.
    fn default() -> Self {
        Self {
            every: Duration::from_secs(3600),
            validity: Duration::from_secs(3 * 3600),
            max_connection_age: Duration::from_secs(90 * 60),
        }
    }
}

/// A party's current leaf for one [`Side`], replaced on schedule.
#[derive(Debug)]
pub struct RotatingCertificate {
    identity: Arc<IdentityKey>,
    side: Side,
    rotation: Rotation,
    // Held for the length of a pointer copy; issuing happens outside.
    current: RwLock<Arc<Leaf>>,
}

impl RotatingCertificate {
    /// Issues the first leaf, at `now` (seconds since 1970).
    pub fn new(identity: Arc<IdentityKey>, side: Side, rotation: Rotation, now: u64) -> Result<Self, IssueError> {
        let leaf = Leaf::issue(&identity, side, now, rotation.validity)?;
        Ok(Self { identity, side, rotation, current: RwLock::new(Arc::new(leaf)) })
    }

    /// Replaces the leaf now, whether due or not. On an error the old one stays.
    pub fn rotate(&self, now: u64) -> Result<Arc<Leaf>, IssueError> {
        let leaf = Arc::new(Leaf::issue(&self.identity, self.side, now, self.rotation.validity)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = leaf.clone();
        Ok(leaf)
    }

    /// Whether the leaf is older than the schedule allows, or from the future because the clock was set back.
    pub fn is_due(&self, now: u64) -> bool {
        let (not_before, _) = self.current().validity();
        now < not_before || now - not_before >= self.rotation.every.as_secs()
    }

    /// The leaf for a connection that begins at `now`, replaced first if it is due: a clock that jumped between two
    /// runs of the task never shows in a handshake.
    pub fn leaf(&self, now: u64) -> Result<Arc<Leaf>, IssueError> {
        if self.is_due(now) { self.rotate(now) } else { Ok(self.current()) }
    }

    /// The leaf as it is.
    pub fn current(&self) -> Arc<Leaf> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The identity that issues the leaves.
    pub fn identity(&self) -> &Arc<IdentityKey> {
        &self.identity
    }

    /// The end of a connection that the leaves are for.
    pub fn side(&self) -> Side {
        self.side
    }

    /// The schedule.
    pub fn rotation(&self) -> Rotation {
        self.rotation
    }

    /// Starts the task that rotates on schedule, so that an idle party does not keep an old key in memory. It ends
    /// when the returned handle is dropped. Call within a tokio runtime.
    pub fn spawn_rotation(self: &Arc<Self>, clock: Arc<dyn Clock>) -> RotationTask {
        let certificate = self.clone();
        let interval = certificate.rotation.every.min(CLOCK_CHECK_INTERVAL);
        RotationTask(tokio::spawn(async move {
            loop {
                tokio::time::sleep(interval).await;
                let now = clock.unix_seconds();
                if !certificate.is_due(now) {
                    continue;
                }
                match certificate.rotate(now) {
                    Ok(leaf) => tracing::debug!(?leaf, side = ?certificate.side, "tls leaf rotated"),
                    Err(error) => tracing::error!(%error, "tls leaf not rotated; the old one stays, next try soon"),
                }
            }
        }))
    }
}

impl ResolvesServerCert for RotatingCertificate {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        (self.side == Side::Server).then(|| self.current().certified_key())
    }
}

impl ResolvesClientCert for RotatingCertificate {
    fn resolve(&self, _root_hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        (self.side == Side::Client).then(|| self.current().certified_key())
    }

    fn has_certs(&self) -> bool {
        self.side == Side::Client
    }
}

/// The running rotation; dropping it stops it.
#[derive(Debug)]
pub struct RotationTask(tokio::task::JoinHandle<()>);

impl Drop for RotationTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn schedules_keep_their_invariant() {
        let default = Rotation::default();
        assert_eq!(Rotation::new(default.every, default.validity, default.max_connection_age), Ok(default));
        let check = |every, validity, age, expect| assert_eq!(Rotation::new(every, validity, age), Err(expect));
        check(Duration::from_millis(999), HOUR, HOUR / 2, ScheduleError::TooOften);
        check(HOUR, 2 * HOUR, HOUR + Duration::from_secs(1), ScheduleError::ValidityTooShort);
        check(HOUR, 2 * HOUR, Duration::MAX, ScheduleError::ValidityTooShort);
        check(HOUR, 25 * HOUR, HOUR, ScheduleError::ValidityTooLong);
    }

    #[test]
    fn leaves_follow_the_clock_both_ways() {
        let identity = Arc::new(IdentityKey::generate().unwrap());
        let start = 1_000_000;
        let certificate = RotatingCertificate::new(identity, Side::Server, Rotation::default(), start).unwrap();
        let first = certificate.current().tls_key();
        assert_eq!(certificate.leaf(start + 3599).unwrap().tls_key(), first);
        let second = certificate.leaf(start + 3600).unwrap();
        assert_ne!(second.tls_key(), first);
        let jumped_back = certificate.leaf(start).unwrap();
        assert_ne!(jumped_back.tls_key(), second.tls_key());
        assert_eq!(jumped_back.validity(), (start, start + 3 * 3600));
        assert_eq!(certificate.current().tls_key(), jumped_back.tls_key());
        // A clock that no certificate can hold: an error, and the old leaf stays.
        assert!(certificate.leaf(u64::MAX).is_err());
        assert_eq!(certificate.current().tls_key(), jumped_back.tls_key());
    }
}
