//! One request to a device at a time, each with a deadline.
//!
//! A read or ioctl on a device sleeps in the kernel, where nothing in this process can end it: firmware that hangs, or a
//! hypervisor that never answers, would take the caller along. So the request runs on a thread of its own, and the caller
//! waits for it as long as it has patience. A thread that is stuck stays so until the kernel lets it go; until then
//! the gate stays closed, so that one hanging device costs one thread and not one for each request.

use std::sync::{Arc, Condvar, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

/// A device gave no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unanswered {
    /// An earlier request is still under way.
    Busy,
    /// This request took longer than it may.
    TimedOut,
    /// No thread could be started, or it ended without an answer.
    Thread,
}

/// Lets one request at a time pass. Clones share the gate.
#[derive(Debug, Clone, Default)]
pub(crate) struct DeviceGate {
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    busy: Mutex<bool>,
    opened: Condvar,
}

/// Opens the gate again, also where the request panics.
struct Passing(Arc<State>);

impl Drop for Passing {
    fn drop(&mut self) {
        *self.0.busy.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.0.opened.notify_one();
    }
}

impl DeviceGate {
    /// Runs `request` on a thread of its own and waits for its answer for as long as `patience`, time at the gate included.
    pub(crate) fn pass<T: Send + 'static>(
        &self,
        patience: Duration,
        request: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Unanswered> {
        let start = Instant::now();
        let passing = self.enter(patience)?;
        let (answer, answered) = mpsc::sync_channel(1);
        std::thread::Builder::new()
            .name("device".into())
            .spawn(move || {
                let value = request();
                // The gate is open before the caller goes on, so that its next request does not wait.
                drop(passing);
                // A caller without patience is gone.
                let _ = answer.send(value);
            })
            .map_err(|_| Unanswered::Thread)?;
        match answered.recv_timeout(patience.saturating_sub(start.elapsed())) {
            Ok(value) => Ok(value),
            Err(mpsc::RecvTimeoutError::Timeout) => Err(Unanswered::TimedOut),
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(Unanswered::Thread),
        }
    }

    fn enter(&self, patience: Duration) -> Result<Passing, Unanswered> {
        let busy = self.state.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.state.opened.wait_timeout_while(busy, patience, |busy| *busy);
        let (mut busy, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if *busy {
            return Err(Unanswered::Busy);
        }
        *busy = true;
        Ok(Passing(Arc::clone(&self.state)))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(600);
    const SHORT: Duration = Duration::from_millis(1);

    #[test]
    fn a_stuck_request_keeps_the_gate_closed_until_it_ends() {
        let gate = DeviceGate::default();
        assert_eq!(gate.pass(LONG, || 1), Ok(1));
        let (release, stuck) = mpsc::channel::<()>();
        assert_eq!(gate.pass(SHORT, move || stuck.recv().unwrap()), Err(Unanswered::TimedOut));
        assert_eq!(gate.clone().pass(SHORT, || 2), Err(Unanswered::Busy));
        release.send(()).unwrap();
        assert_eq!(gate.pass(LONG, || 3), Ok(3));
    }

    #[test]
    fn a_panic_opens_the_gate() {
        let gate = DeviceGate::default();
        let answer = gate.pass(LONG, || -> u8 { std::panic::panic_any("a device that panics") });
        assert_eq!(answer, Err(Unanswered::Thread));
        assert_eq!(gate.pass(LONG, || 4), Ok(4));
    }
}
