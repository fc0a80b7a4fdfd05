//! Being asked to stop, for commands that have something to say or to clean up first.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use starminer_requester::StopAsked;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::exit::Failure;

/// Hears SIGHUP, SIGINT and SIGTERM from when it was made. The first one counts: whoever asks ends in order.
#[derive(Debug, Clone)]
pub struct Interrupt {
    heard: watch::Receiver<Option<u8>>,
    again: Arc<AtomicBool>,
}

impl Interrupt {
    /// Begins to listen, on a thread of its own: commands wait outside of runtimes, too.
    pub fn listen() -> Result<Self, Failure> {
        let failed = |error: std::io::Error| {
            Failure::local("signals.unheard", error, "check the limits on threads and open files")
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(failed)?;
        let (sender, heard) = watch::channel(None);
        let entered = runtime.enter();
        let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        drop(entered);
        let again = Arc::new(AtomicBool::new(false));
        let said_again = again.clone();
        let listen = move || {
            let mut next = || {
                runtime.block_on(async {
                    tokio::select! {
                        _ = hangup.recv() => SignalKind::hangup(),
                        _ = interrupt.recv() => SignalKind::interrupt(),
                        _ = terminate.recv() => SignalKind::terminate(),
                    }
                })
            };
            sender.send_replace(u8::try_from(next().as_raw_value()).ok());
            next();
            said_again.store(true, Ordering::Relaxed);
        };
        std::thread::Builder::new().name("signals".into()).spawn(listen).map_err(failed)?;
        Ok(Self { heard, again })
    }

    /// The signal, if there was one.
    pub fn heard(&self) -> Option<u8> {
        *self.heard.borrow()
    }

    /// Whether there was a second one: whoever asks has no patience with the end in order.
    pub fn heard_again(&self) -> bool {
        self.again.load(Ordering::Relaxed)
    }

    /// Whether there was one, for whoever is busy with a long file.
    pub fn asked(&self) -> StopAsked {
        let heard = self.heard.clone();
        Arc::new(move || heard.borrow().is_some())
    }

    /// Resolves to the signal.
    pub async fn wait(&self) -> u8 {
        let mut heard = self.heard.clone();
        let heard = match heard.wait_for(Option::is_some).await {
            Ok(signal) => *signal,
            Err(_) => None,
        };
        match heard {
            Some(signal) => signal,
            // Nobody listens any more: no signal will come.
            None => std::future::pending().await,
        }
    }
}
