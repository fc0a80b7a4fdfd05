//! Posture while the agent runs: what got worse, what better.
//!
//! The kernel tells of a change of the mount table and of swap areas: `/proc/self/mountinfo` and `/proc/swaps` can be polled. It tells of nothing else
//! that posture is read from (sysctls, device-mapper, tracers), so that this is looked at every second, and what changes with firmware or hardware
//! twice a minute. Source: proc_pid_mountinfo(5), `swaps_poll` in `mm/swapfile.c`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use starminer_verify::{HostMeasure, PostureItem, PostureState};

use super::HostTree;
use super::poll::poll;

/// Files that tell when they change.
const TELLING: [&str; 2] = ["/proc/self/mountinfo", "/proc/swaps"];
/// How often everything is looked at that does not tell.
const EVERY: Duration = Duration::from_secs(1);
/// How often what changes with firmware or hardware is looked at.
const SELDOM: Duration = Duration::from_secs(30);
/// Shortest time between two looks, however often the kernel tells of something.
const REST: Duration = Duration::from_millis(50);
/// What could not be told is looked at again after this time, before it counts: tables change while they are read.
const SECOND_LOOK: Duration = Duration::from_millis(100);

type Item = PostureItem<HostMeasure>;

/// Looks at the posture of a host until it is stopped. Its calls block: it wants a thread.
#[derive(Debug)]
pub struct PostureWatch {
    host: HostTree,
    telling: Vec<File>,
    stop: UnixStream,
    /// The last that was seen of each measure.
    seen: BTreeMap<HostMeasure, Watched>,
    looked_at: Instant,
    looked_at_all: Instant,
}

#[derive(Debug)]
struct Watched {
    item: Item,
    was_in_force: bool,
}

/// Stops its [`PostureWatch`] when it is dropped.
#[derive(Debug)]
pub struct StopWatch {
    _open: UnixStream,
}

/// What became of the posture. Measures that are in neither list are what they were: in force, or not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PostureChange {
    /// Not in force any more: absent, or not to be told.
    pub worse: Vec<PostureItem<HostMeasure>>,
    /// In force, and were not.
    pub better: Vec<PostureItem<HostMeasure>>,
}

impl PostureChange {
    fn is_empty(&self) -> bool {
        self.worse.is_empty() && self.better.is_empty()
    }
}

impl PostureWatch {
    /// Takes a first look, with which the next one is compared. A tree that is not the machine's does not tell, and is looked at every second.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub fn start(host: HostTree) -> io::Result<(Self, StopWatch)> {
        let (stop, open) = UnixStream::pair()?;
        // Opened before the first look, so that nothing falls between. One that cannot be opened is looked at every second, as the rest.
        let telling = if host.tree.is_machine() {
            TELLING.iter().filter_map(|path| File::open(path).ok()).collect()
        } else {
            Vec::new()
        };
        let now = Instant::now();
        let mut watch = Self { telling, stop, seen: BTreeMap::new(), looked_at: now, looked_at_all: now, host };
        for item in watch.host.collect() {
            let was_in_force = is_in_force(&item);
            watch.seen.insert(item.name(), Watched { item, was_in_force });
        }
        Ok((watch, StopWatch { _open: open }))
    }

    /// What was in force at any look and is not any more, as it was seen last, in the order of the measures.
    pub fn lost(&self) -> Vec<PostureItem<HostMeasure>> {
        let lost = self.seen.values().filter(|watched| watched.was_in_force && !is_in_force(&watched.item));
        lost.map(|watched| watched.item.clone()).collect()
    }

    /// Waits for the next change; `None` once it was stopped.
    pub fn next_change(&mut self) -> Option<PostureChange> {
        loop {
            let rest = REST.saturating_sub(self.looked_at.elapsed());
            if self.stopped_within(rest) || !self.wait() {
                return None;
            }
            let all = self.looked_at_all.elapsed() >= SELDOM;
            let mut items = self.look(all);
            let is_unclear = |item: &Item| {
                item.state() == PostureState::NotChecked
                    && self.seen.get(&item.name()).is_some_and(|watched| is_in_force(&watched.item))
            };
            if items.iter().any(is_unclear) {
                if self.stopped_within(SECOND_LOOK) {
                    return None;
                }
                items = self.look(all);
            }
            let change = self.take(items);
            if !change.is_empty() {
                return Some(change);
            }
        }
    }

    /// Waits until something was told or it is time to look; `false` once it was stopped.
    fn wait(&mut self) -> bool {
        loop {
            let left = EVERY.saturating_sub(self.looked_at.elapsed());
            if left.is_zero() {
                return !self.stopped_within(Duration::ZERO);
            }
            let stop = (self.stop.as_fd(), libc::POLLIN);
            let telling = self.telling.iter().map(|file| (file.as_fd(), libc::POLLPRI));
            let files: Vec<(BorrowedFd<'_>, libc::c_short)> = std::iter::once(stop).chain(telling).collect();
            let Ok(told) = poll(&files, left) else {
                // Without memory or with a broken list: nothing is told, and the time goes on.
                std::thread::sleep(left);
                continue;
            };
            if told[0] != 0 {
                return false;
            }
            // Asking takes the kernel's word back until the next change, so that this does not turn in circles.
            if told.iter().any(|events| *events != 0) {
                return true;
            }
        }
    }

    fn stopped_within(&self, patience: Duration) -> bool {
        match poll(&[(self.stop.as_fd(), libc::POLLIN)], patience) {
            Ok(told) => told[0] != 0,
            Err(_) => {
                std::thread::sleep(patience);
                false
            }
        }
    }

    fn look(&mut self, all: bool) -> Vec<Item> {
        let items = if all { self.host.collect() } else { self.host.collect_often() };
        self.looked_at = Instant::now();
        if all {
            self.looked_at_all = self.looked_at;
        }
        items
    }

    fn take(&mut self, items: Vec<Item>) -> PostureChange {
        let mut change = PostureChange::default();
        for item in items {
            let Some(watched) = self.seen.get_mut(&item.name()) else { continue };
            match (is_in_force(&watched.item), is_in_force(&item)) {
                (true, false) => change.worse.push(item.clone()),
                (false, true) => change.better.push(item.clone()),
                _ => {}
            }
            watched.was_in_force |= is_in_force(&item);
            watched.item = item;
        }
        change
    }
}

fn is_in_force(item: &Item) -> bool {
    item.state() == PostureState::InForce
}
