//! The background task: what is wanted stays fresh, and what cannot be had is said, while the old one serves for as long as it may.

use std::{sync::Arc, time::Duration};

use starminer_endorsements::{Prefetcher, Store, Want, WantError};
use starminer_hardware::endorsements::{Absence, Key};
use tempfile::TempDir;

use super::{
    maker::{Makers, NOW_S, ROOT_CRL, TCB_INFO, ages, intel_wants},
    server::Reply,
    time_and_chance::TestClock,
};

const DAY: Duration = Duration::from_secs(86_400);

struct Running {
    makers: Makers,
    clock: Arc<TestClock>,
    store: Store,
    prefetcher: Prefetcher,
    _directory: TempDir,
}

impl Running {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let makers = Makers::start().await;
        let clock = TestClock::at(NOW_S);
        let (store, _) = Store::open(directory.path(), makers.trust(), NOW_S).unwrap();
        let prefetcher = Prefetcher::new(store.clone(), makers.fetcher(&clock), ages());
        Self { makers, clock, store, prefetcher, _directory: directory }
    }

    fn want_all(&self) {
        self.prefetcher.want(self.makers.keys().into_iter().map(Want::from)).unwrap();
    }

    fn now_s(&self) -> u64 {
        starminer_endorsements::Clock::now_s(&*self.clock)
    }

    fn why(&self, key: &Key) -> (String, String) {
        let state = self.prefetcher.states().into_iter().find(|state| state.key == *key).unwrap();
        state.last_failure.unwrap_or_default()
    }
}

fn tcb_info() -> Key {
    intel_wants().keys()[2].clone()
}

#[tokio::test]
async fn what_is_wanted_is_fetched_once_and_renewed_at_half_of_its_time() {
    let running = Running::start().await;
    running.want_all();
    running.want_all();
    let first = running.prefetcher.round().await;
    assert_eq!((first.fetched, first.failed), (7, 0), "{:?}", running.prefetcher.states());
    assert_eq!(running.makers.server.table.count(), 7);
    assert!(running.store.snapshot().missing(&running.makers.keys(), &ages(), running.now_s()).is_empty());

    let idle = running.prefetcher.round().await;
    assert_eq!((idle.fetched, idle.failed, running.makers.server.table.count()), (0, 0, 0));
    let next = idle.next_in.unwrap();
    // Lists, TCB info and identity may get seven days old.
    assert!(next <= 7 * DAY / 2 && next > 7 * DAY / 2 - Duration::from_secs(60), "{next:?}");
    running.clock.pass(7 * DAY / 2);
    let renewed = running.prefetcher.round().await;
    assert_eq!((renewed.fetched, renewed.failed), (5, 0));
    let snapshot = running.store.snapshot();
    for item in snapshot.items() {
        let renewed = item.fetched_s() > NOW_S + 86_400;
        assert_eq!(
            renewed,
            !item.key().to_string().starts_with("amd/vcek") && !item.key().to_string().starts_with("amd/chain")
        );
    }
}

#[tokio::test]
async fn while_a_maker_is_away_the_old_ones_serve_for_as_long_as_they_may() {
    let running = Running::start().await;
    running.want_all();
    running.prefetcher.round().await;
    running.makers.server.table.all(&Reply::status(503));
    running.clock.pass(4 * DAY);
    let round = running.prefetcher.round().await;
    assert_eq!((round.fetched, round.failed), (0, 5));
    // The first failure leaves the host alone: it was asked once.
    assert_eq!(running.makers.server.table.count(), 7 + 1);
    let keys = running.makers.keys();
    assert!(running.store.snapshot().missing(&keys, &ages(), running.now_s()).is_empty());
    running.clock.pass(3 * DAY + Duration::from_secs(60));
    let missing = running.store.snapshot().missing(&keys, &ages(), running.now_s());
    assert_eq!(missing.len(), 5);
    assert!(missing.iter().all(|one| matches!(one.why, Absence::TooOld { .. })), "{missing:?}");
    // It comes back, and so do they, without anybody asking.
    running.makers.publish_intel();
    running.makers.publish_amd();
    let round = running.prefetcher.round().await;
    assert_eq!((round.fetched, round.failed), (5, 0), "{:?}", running.prefetcher.states());
    assert!(running.store.snapshot().missing(&keys, &ages(), running.now_s()).is_empty());
}

#[tokio::test]
async fn a_maker_that_lies_changes_nothing_and_is_told() {
    let mut running = Running::start().await;
    running.want_all();
    running.prefetcher.round().await;
    let kept = running.store.snapshot().item(&tcb_info()).unwrap().content().clone();
    running.clock.pass(4 * DAY);

    // An older evaluation.
    running.makers.intel.tcb_info["tcbEvaluationDataNumber"] = 19.into();
    running.makers.publish_intel();
    let round = running.prefetcher.round().await;
    assert_eq!(round.failed, 1);
    let (code, reason) = running.why(&tcb_info());
    assert_eq!(code, "endorsement.rollback");
    assert!(reason.contains("from 20 to 19"), "{reason}");

    // A signature by somebody else.
    running.clock.pass(Duration::from_secs(60));
    let stranger = Makers::start().await;
    let reply = stranger.server.table.replies.lock().unwrap()[TCB_INFO].clone();
    running.makers.server.table.set(TCB_INFO, reply);
    running.prefetcher.round().await;
    assert_eq!(running.why(&tcb_info()).0, "endorsement.unverified");

    // Nothing that could be read.
    running.clock.pass(Duration::from_secs(60));
    running.makers.server.table.set(TCB_INFO, Reply::ok("[]"));
    running.prefetcher.round().await;
    assert_eq!(running.why(&tcb_info()).0, "fetch.answer");

    let snapshot = running.store.snapshot();
    assert_eq!(*snapshot.item(&tcb_info()).unwrap().content(), kept);
    assert!(snapshot.find(&tcb_info(), &ages(), running.now_s()).is_ok());
    let state = running.prefetcher.states().into_iter().find(|state| state.key == tcb_info()).unwrap();
    assert_eq!(state.failures, 3);
    assert!(state.next_s >= running.now_s() + 10);

    // The truth again.
    running.clock.pass(Duration::from_secs(60));
    running.makers.intel.tcb_info["tcbEvaluationDataNumber"] = 21.into();
    running.makers.publish_intel();
    assert_eq!(running.prefetcher.round().await.fetched, 1);
    assert_ne!(*running.store.snapshot().item(&tcb_info()).unwrap().content(), kept);
    assert_eq!(running.why(&tcb_info()).0, "");
}

#[tokio::test]
async fn what_nobody_publishes_is_tried_less_and_less() {
    let running = Running::start().await;
    let key: Key = "amd/vcek/turin/0102030405060708/0102030400000005".parse().unwrap();
    running.prefetcher.want([Want::from(key.clone())]).unwrap();
    let mut waits = Vec::new();
    for _ in 0..12 {
        let round = running.prefetcher.round().await;
        assert_eq!((round.fetched, round.failed), (0, 1));
        let wait = round.next_in.unwrap();
        waits.push(wait.as_secs());
        running.clock.pass(wait);
    }
    assert_eq!(waits, [5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600]);
    assert_eq!(running.makers.server.table.count(), 12);
    running.prefetcher.retain(|_| false);
    assert_eq!(running.prefetcher.round().await.next_in, None);
}

#[tokio::test]
async fn what_cannot_be_had_is_not_wanted() {
    let running = Running::start().await;
    for name in ["amd/vlek/milan/61/0000000000000000", "tpm/crl/https://other.example/x"] {
        let key: Key = name.parse().unwrap();
        assert_eq!(running.prefetcher.want([Want::from(key.clone())]), Err(WantError::NoPlace(key)));
    }
    assert!(running.prefetcher.states().is_empty());
}

#[tokio::test]
async fn the_task_wakes_for_what_is_wanted_and_for_what_gets_old() {
    let running = Running::start().await;
    running.clock.stand_still();
    let task = tokio::spawn(running.prefetcher.clone().run());
    running.prefetcher.want([Want::from(Key::IntelRootCrl)]).unwrap();
    // Nothing is waited for but what has to happen.
    let until = |fetched_s: u64| {
        let store = running.store.clone();
        async move {
            while store.snapshot().item(&Key::IntelRootCrl).is_none_or(|item| item.fetched_s() < fetched_s) {
                tokio::task::yield_now().await;
            }
        }
    };
    until(NOW_S).await;
    let mut passed = Duration::ZERO;
    while passed < 4 * DAY {
        running.clock.pass(Duration::from_secs(1800));
        passed += Duration::from_secs(1800);
        tokio::task::yield_now().await;
    }
    until(NOW_S + 3 * 86_400).await;
    assert!(running.makers.server.table.asked.lock().unwrap().iter().all(|(path, _)| path == ROOT_CRL));
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
}
