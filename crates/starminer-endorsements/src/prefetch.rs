//! The background task that keeps wanted endorsements fresh. Whoever verifies evidence never waits for it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use starminer_hardware::endorsements::{Ages, Key};
use tokio::sync::Notify;

use crate::{
    fetch::{FetchError, Fetcher},
    store::{PutError, Store},
};

/// The most endorsements that are kept fresh.
pub const MAX_WANTED: usize = starminer_hardware::endorsements::MAX_ITEMS;
/// The shortest time between two fetches of the same endorsement, however close its end is.
const REFRESH_LEAST_S: u64 = 60;
/// The longest time for which nothing is looked at: clocks jump.
const LOOK_MOST: Duration = Duration::from_secs(3600);

/// An endorsement that is to be kept fresh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// Which.
    pub key: Key,
    /// For OCSP: certificates in DER one after the other, the issuer's first.
    pub issuers: Option<Vec<u8>>,
}

impl From<Key> for Want {
    fn from(key: Key) -> Self {
        Self { key, issuers: None }
    }
}

/// Why an endorsement is not kept fresh.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WantError {
    /// It is published at no host that is configured.
    #[error("{0} is published at no host that is configured")]
    NoPlace(Key),
    /// There are too many.
    #[error("{MAX_WANTED} endorsements are kept fresh already")]
    Full,
}

/// How it stands with a wanted endorsement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Which.
    pub key: Key,
    /// How often it could not be had since it last was.
    pub failures: u32,
    /// Why, the last time: a stable name and the reason.
    pub last_failure: Option<(String, String)>,
    /// When it is tried next, in seconds since 1970.
    pub next_s: u64,
}

/// What one round did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Round {
    /// Endorsements that were had.
    pub fetched: usize,
    /// Endorsements that were not.
    pub failed: usize,
    /// How long until the next one is due; none if nothing is wanted.
    pub next_in: Option<Duration>,
}

struct Wanted {
    want: Want,
    failures: u32,
    last_failure: Option<(String, String)>,
    /// Not before this time, whatever its age says.
    not_before_s: u64,
    /// The wait behind that, which a clock that jumps back does not make longer.
    wait_s: u64,
}

struct Shared {
    store: Store,
    fetcher: Fetcher,
    ages: Ages,
    // By the text form of keys. Never held across an await.
    wanted: Mutex<BTreeMap<String, Wanted>>,
    changed: Notify,
}

/// Keeps endorsements fresh. Cheap to clone; [`Self::run`] is spawned once.
#[derive(Clone)]
pub struct Prefetcher(Arc<Shared>);

impl std::fmt::Debug for Prefetcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prefetcher").field("wanted", &self.wanted().len()).finish_non_exhaustive()
    }
}

impl Prefetcher {
    /// One that wants nothing yet.
    #[must_use]
    pub fn new(store: Store, fetcher: Fetcher, ages: Ages) -> Self {
        Self(Arc::new(Shared { store, fetcher, ages, wanted: Mutex::default(), changed: Notify::new() }))
    }

    /// Keeps these fresh from now on.
    ///
    /// # Errors
    /// The first one that cannot be; those before it are.
    pub fn want(&self, wants: impl IntoIterator<Item = Want>) -> Result<(), WantError> {
        let mut wanted = self.wanted();
        for want in wants {
            if self.0.fetcher.host(&want.key).is_none() {
                return Err(WantError::NoPlace(want.key));
            }
            let name = want.key.to_string();
            if wanted.contains_key(&name) {
                continue;
            }
            if wanted.len() >= MAX_WANTED {
                return Err(WantError::Full);
            }
            wanted.insert(name, Wanted { want, failures: 0, last_failure: None, not_before_s: 0, wait_s: 0 });
            self.0.changed.notify_one();
        }
        Ok(())
    }

    /// Lets go of all but these.
    pub fn retain(&self, still: impl Fn(&Key) -> bool) {
        self.wanted().retain(|_, wanted| still(&wanted.want.key));
    }

    /// How it stands with each.
    #[must_use]
    pub fn states(&self) -> Vec<State> {
        let now_s = self.0.fetcher.clock().now_s();
        let wanted = self.wanted();
        let states = wanted.values().map(|one| State {
            key: one.want.key.clone(),
            failures: one.failures,
            last_failure: one.last_failure.clone(),
            next_s: self.due_s(one, now_s),
        });
        states.collect()
    }

    /// Fetches until it is dropped.
    pub async fn run(self) {
        loop {
            let round = self.round().await;
            let wait = round.next_in.unwrap_or(LOOK_MOST).min(LOOK_MOST);
            tokio::select! {
                () = self.0.fetcher.clock().sleep(wait) => {}
                () = self.0.changed.notified() => {}
            }
        }
    }

    /// Fetches everything that is due, hosts side by side, each one thing at a time.
    pub async fn round(&self) -> Round {
        let now_s = self.0.fetcher.clock().now_s();
        let mut by_host: BTreeMap<String, Vec<Want>> = BTreeMap::new();
        {
            let wanted = self.wanted();
            let mut due: Vec<&Wanted> = wanted.values().filter(|one| self.due_s(one, now_s) <= now_s).collect();
            due.sort_by_key(|one| order(&one.want.key));
            for one in due {
                let host = self.0.fetcher.host(&one.want.key).unwrap_or_default();
                by_host.entry(host).or_default().push(one.want.clone());
            }
        }
        let done = join_all(by_host.into_values().map(|wants| self.host(wants))).await;
        let mut round = Round::default();
        for (fetched, failed) in done {
            round.fetched += fetched;
            round.failed += failed;
        }
        let now_s = self.0.fetcher.clock().now_s();
        let next_s = self.wanted().values().map(|one| self.due_s(one, now_s)).min();
        round.next_in = next_s.map(|next_s| Duration::from_secs(next_s.saturating_sub(now_s).max(1)));
        round
    }

    /// Fetches from one host, one after the other.
    async fn host(&self, wants: Vec<Want>) -> (usize, usize) {
        let (mut fetched, mut failed) = (0, 0);
        for want in wants {
            match self.one(&want).await {
                Ok(()) => {
                    fetched += 1;
                    self.done(&want.key);
                }
                Err(failure) => {
                    failed += 1;
                    self.failed(&want.key, failure);
                }
            }
        }
        (fetched, failed)
    }

    async fn one(&self, want: &Want) -> Result<(), Failure> {
        let fetcher = &self.0.fetcher;
        let candidate = fetcher.fetch(&want.key, want.issuers.as_deref()).await.map_err(Failure::Fetch)?;
        let (store, now_s) = (self.0.store.clone(), fetcher.clock().now_s());
        let put = tokio::task::spawn_blocking(move || store.put(&candidate, now_s)).await;
        match put {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Failure::Put(error)),
            Err(_) => Err(Failure::Stopped),
        }
    }

    fn done(&self, key: &Key) {
        let now_s = self.0.fetcher.clock().now_s();
        if let Some(one) = self.wanted().get_mut(&key.to_string()) {
            (one.failures, one.last_failure) = (0, None);
            (one.not_before_s, one.wait_s) = (now_s + REFRESH_LEAST_S, REFRESH_LEAST_S);
        }
        tracing::debug!(%key, "endorsement fetched");
    }

    fn failed(&self, key: &Key, failure: Failure) {
        let now_s = self.0.fetcher.clock().now_s();
        if let Some(one) = self.wanted().get_mut(&key.to_string()) {
            // A host that is left alone is no failure of what was to be had from it.
            one.wait_s = match &failure {
                Failure::Fetch(FetchError::Postponed { left, .. }) => left.as_secs() + 1,
                _ => {
                    one.failures = one.failures.saturating_add(1);
                    let (code, reason) = failure.told();
                    tracing::warn!(%key, code, reason, failures = one.failures, "endorsement not had");
                    one.last_failure = Some((code, reason));
                    self.0.fetcher.backoff(one.failures).as_secs().max(1)
                }
            };
            one.not_before_s = now_s + one.wait_s;
        }
    }

    /// When an endorsement is due: at a part of the time for which it can be used, and not before a wait has passed.
    fn due_s(&self, one: &Wanted, now_s: u64) -> u64 {
        let snapshot = self.0.store.snapshot();
        let by_age_s = snapshot.item(&one.want.key).map_or(0, |item| item.refresh_at_s(&self.0.ages));
        let waits = one.not_before_s > now_s && one.not_before_s - now_s <= one.wait_s;
        if waits { by_age_s.max(one.not_before_s) } else { by_age_s }
    }

    fn wanted(&self) -> MutexGuard<'_, BTreeMap<String, Wanted>> {
        self.0.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What others rest on is fetched first.
const fn order(key: &Key) -> u8 {
    match key {
        Key::IntelRootCrl | Key::AmdChain { .. } => 0,
        Key::TpmAuthority { .. } => 1,
        _ => 2,
    }
}

#[derive(Debug)]
enum Failure {
    Fetch(FetchError),
    Put(PutError),
    Stopped,
}

impl Failure {
    /// A stable name, and the reason with what it stems from.
    fn told(&self) -> (String, String) {
        let (code, error): (&str, &dyn std::error::Error) = match self {
            Self::Fetch(error) => (error.code(), error),
            Self::Put(PutError::Refused(refusal)) => (refusal.code(), refusal),
            Self::Put(error) => ("store.write", error),
            Self::Stopped => return ("store.stopped".to_owned(), "verification was stopped".to_owned()),
        };
        let mut reason = error.to_string();
        let mut source = error.source();
        while let Some(inner) = source {
            reason = format!("{reason}: {inner}");
            source = inner.source();
        }
        (code.to_owned(), reason)
    }
}
