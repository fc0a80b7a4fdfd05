//! Rates and quotas of identities: token buckets and stored bytes.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use starminer_verify::{Party, PublicKey};
use starminer_wire::ProblemStatus;

use crate::refused::Refused;

/// Most identities whose rate is remembered. One that is forgotten begins with a full bucket, which it had earned or nearly so.
const REMEMBERED: usize = 16_384;

/// Token buckets, one an identity.
#[derive(Debug)]
pub struct Buckets {
    per_second: u64,
    burst: u64,
    buckets: Mutex<HashMap<PublicKey, Bucket>>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// Thousandths of tokens. Negative where more was taken than there was, by those who wait for it.
    milli_tokens: i128,
    mono_ms: u64,
}

impl Buckets {
    /// Buckets that fill with `per_second` tokens up to `burst`.
    #[must_use]
    pub fn new(per_second: u64, burst: u64) -> Self {
        Self { per_second: per_second.max(1), burst: burst.max(1), buckets: Mutex::default() }
    }

    fn with<T>(&self, identity: PublicKey, now_ms: u64, take: impl FnOnce(&mut i128) -> T) -> T {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let full = i128::from(self.burst) * 1000;
        if buckets.len() >= REMEMBERED && !buckets.contains_key(&identity) {
            let idle = buckets.iter().min_by_key(|(_, bucket)| bucket.mono_ms).map(|(key, _)| *key);
            if let Some(idle) = idle {
                buckets.remove(&idle);
            }
        }
        let bucket = buckets.entry(identity).or_insert(Bucket { milli_tokens: full, mono_ms: now_ms });
        let earned = i128::from(now_ms.saturating_sub(bucket.mono_ms)) * i128::from(self.per_second);
        bucket.milli_tokens = (bucket.milli_tokens + earned).min(full);
        bucket.mono_ms = bucket.mono_ms.max(now_ms);
        take(&mut bucket.milli_tokens)
    }

    /// Takes one token.
    ///
    /// # Errors
    /// `rate.requests`, with the time after which there is one.
    pub fn take_one(&self, identity: PublicKey, now_ms: u64) -> Result<(), Refused> {
        let missing = self.with(identity, now_ms, |tokens| {
            if *tokens >= 1000 {
                *tokens -= 1000;
                None
            } else {
                Some(1000 - *tokens)
            }
        });
        let Some(missing) = missing else { return Ok(()) };
        let wait_ms = u64::try_from(missing / i128::from(self.per_second)).unwrap_or(1000).max(1);
        Err(Refused::of(
            ProblemStatus::TooMany,
            Party::Network,
            "rate.requests",
            "more requests than this identity may make in a second",
            "slow down",
        )
        .retry_after(wait_ms))
    }

    /// Takes `count` tokens and says how long to wait for them.
    #[must_use]
    pub fn take(&self, identity: PublicKey, count: u64, now_ms: u64) -> Duration {
        let debt = self.with(identity, now_ms, |tokens| {
            *tokens -= i128::from(count) * 1000;
            (-*tokens).max(0)
        });
        Duration::from_millis(u64::try_from(debt / i128::from(self.per_second)).unwrap_or(u64::MAX).min(60_000))
    }
}

/// Bytes that identities keep in complete blobs, and those that are on their way.
#[derive(Debug)]
pub struct Quotas {
    most: u64,
    used: Mutex<HashMap<[u8; 32], u64>>,
}

impl Quotas {
    /// Quotas of `most` bytes, with what is used already.
    #[must_use]
    pub fn new(most: u64, used: impl IntoIterator<Item = ([u8; 32], u64)>) -> Self {
        Self { most, used: Mutex::new(used.into_iter().collect()) }
    }

    /// Sets bytes aside; they count until they are given back.
    ///
    /// # Errors
    /// `blob.quota`.
    pub fn reserve(&self, owner: [u8; 32], bytes: u64) -> Result<Reservation<'_>, Refused> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let before = used.get(&owner).copied().unwrap_or(0);
        let after = before.saturating_add(bytes);
        if after > self.most {
            return Err(Refused::of(
                ProblemStatus::TooMany,
                Party::Requester,
                "blob.quota",
                "this identity keeps as many bytes in blobs as it may",
                "wait until older tasks' blobs expire",
            ));
        }
        used.insert(owner, after);
        Ok(Reservation { quotas: self, owner, bytes })
    }

    /// Bytes are not kept any more.
    pub fn give_back(&self, owner: [u8; 32], bytes: u64) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = used.get_mut(&owner) {
            *count = count.saturating_sub(bytes);
            if *count == 0 {
                used.remove(&owner);
            }
        }
    }
}

/// Bytes that are set aside; given back when dropped, unless they became a blob.
#[derive(Debug)]
pub struct Reservation<'q> {
    quotas: &'q Quotas,
    owner: [u8; 32],
    bytes: u64,
}

impl Reservation<'_> {
    /// The blob is there.
    pub fn keep(mut self) {
        self.bytes = 0;
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.quotas.give_back(self.owner, self.bytes);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const ME: PublicKey = PublicKey([1; 32]);
    const OTHER: PublicKey = PublicKey([2; 32]);

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate_to_each_identity_alone() {
        let buckets = Buckets::new(10, 3);
        for _ in 0..3 {
            buckets.take_one(ME, 0).unwrap();
        }
        let refused = buckets.take_one(ME, 0).unwrap_err();
        assert_eq!((refused.code(), refused.retry_after_ms), ("rate.requests", Some(100)));
        buckets.take_one(OTHER, 0).unwrap();
        assert_eq!(buckets.take_one(ME, 40).unwrap_err().retry_after_ms, Some(60));
        buckets.take_one(ME, 100).unwrap();
        assert!(buckets.take_one(ME, 100).is_err());
        // A pause fills it up to the burst and no further.
        for _ in 0..3 {
            buckets.take_one(ME, 1_000_000).unwrap();
        }
        assert!(buckets.take_one(ME, 1_000_000).is_err());
        // A clock that goes back earns nothing.
        assert!(buckets.take_one(ME, 0).is_err());
    }

    #[test]
    fn who_takes_more_than_there_is_waits_for_it() {
        let buckets = Buckets::new(1000, 1000);
        assert_eq!(buckets.take(ME, 1000, 0), Duration::ZERO);
        assert_eq!(buckets.take(ME, 500, 0), Duration::from_millis(500));
        assert_eq!(buckets.take(ME, 500, 500), Duration::from_millis(500));
        assert_eq!(buckets.take(ME, u64::MAX, 500), Duration::from_secs(60));
    }

    #[test]
    fn the_memory_of_buckets_is_bounded() {
        let buckets = Buckets::new(1, 1);
        for number in 0..REMEMBERED as u64 + 10 {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&number.to_be_bytes());
            buckets.take_one(PublicKey(key), number).unwrap();
        }
        assert_eq!(buckets.buckets.lock().unwrap().len(), REMEMBERED);
    }

    #[test]
    fn quotas_count_what_is_kept_and_what_is_on_its_way() {
        let quotas = Quotas::new(100, [([1; 32], 40)]);
        let first = quotas.reserve([1; 32], 50).unwrap();
        assert_eq!(quotas.reserve([1; 32], 20).unwrap_err().code(), "blob.quota");
        drop(first);
        quotas.reserve([1; 32], 60).unwrap().keep();
        assert!(quotas.reserve([1; 32], 1).is_err());
        quotas.give_back([1; 32], 100);
        quotas.reserve([1; 32], 100).unwrap().keep();
        assert!(quotas.reserve([2; 32], u64::MAX).is_err());
    }
}
