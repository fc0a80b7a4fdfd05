//! A clock that stands still until somebody moves it, or that jumps to the end of each wait.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use starminer_endorsements::{Clock, Jitter};
use tokio::sync::watch;

#[derive(Debug)]
pub struct TestClock {
    now_ms: watch::Sender<u64>,
    /// Whether waiting moves the clock.
    jumps: AtomicBool,
    slept: Mutex<Vec<Duration>>,
}

impl TestClock {
    pub fn at(now_s: u64) -> Arc<Self> {
        let jumps = AtomicBool::new(true);
        Arc::new(Self { now_ms: watch::Sender::new(now_s * 1000), jumps, slept: Mutex::default() })
    }

    pub fn stand_still(&self) {
        self.jumps.store(false, Ordering::SeqCst);
    }

    pub fn pass(&self, duration: Duration) {
        self.now_ms.send_modify(|now_ms| *now_ms += duration.as_millis() as u64);
    }

    pub fn go_back(&self, duration: Duration) {
        self.now_ms.send_modify(|now_ms| *now_ms -= duration.as_millis() as u64);
    }

    /// What was waited for since the last time it was asked.
    pub fn slept(&self) -> Vec<Duration> {
        std::mem::take(&mut self.slept.lock().unwrap())
    }
}

impl Clock for TestClock {
    fn now_ms(&self) -> u64 {
        *self.now_ms.borrow()
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        self.slept.lock().unwrap().push(duration);
        if self.jumps.load(Ordering::SeqCst) {
            self.pass(duration);
            return Box::pin(std::future::ready(()));
        }
        let end_ms = self.now_ms() + duration.as_millis() as u64;
        let mut now_ms = self.now_ms.subscribe();
        Box::pin(async move {
            let _ = now_ms.wait_for(|now_ms| *now_ms >= end_ms).await;
        })
    }
}

/// No chance at all.
pub fn no_jitter() -> Jitter {
    Arc::new(|| 0)
}
