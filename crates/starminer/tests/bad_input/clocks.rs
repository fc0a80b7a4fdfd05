//! Clocks that jump, the coordinator's and the requester's: tasks complete or are refused with a code, receipts verify, and no lease ends
//! early.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use starminer_coordinator::{Clock, Config, Coordinator, Environment, Now, Options, SystemClock};
use starminer_log::LogSigner;
use starminer_requester::{Event, EventSink, Requester};
use starminer_tls::IdentityKey;
use starminer_verify::{Party, UnixTime};
use zeroize::Zeroizing;

use crate::support::guests::counts_then_writes;
use crate::support::{Network, now, runtime};
use crate::{completed, failed};

const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;
const YEAR: i64 = 365 * 24 * 60 * MINUTE;

/// By how much the clocks of this process are wrong, in milliseconds. One test alone uses them.
static COORDINATOR: AtomicI64 = AtomicI64::new(0);
static REQUESTER: AtomicI64 = AtomicI64::new(0);

#[derive(Debug, Default)]
struct Jumping(SystemClock);

impl Clock for Jumping {
    fn now(&self) -> Now {
        let now = self.0.now();
        Now { wall: moved(now.wall, &COORDINATOR), mono_ms: now.mono_ms }
    }
}

fn moved(time: UnixTime, by: &AtomicI64) -> UnixTime {
    UnixTime(time.0.saturating_add_signed(by.load(Ordering::SeqCst)))
}

fn requesters_now() -> UnixTime {
    moved(now(), &REQUESTER)
}

/// The coordinator of a prepared network, in this process, with a clock that jumps.
async fn serve(network: &Network) {
    let place = network.path("coordinator");
    let key = |name: &str| IdentityKey::load(&place.join(name)).unwrap();
    let trust = network.trust();
    let signer = LogSigner::from_seed(trust.log_key().name().clone(), key("log.key").seed());
    let mut config = Config::default();
    config.waits.releaser_ms = 10_000;
    let options = Options {
        config,
        directory: place.join("data"),
        marker: place.join("log.begun"),
        trust,
        identity: Arc::new(key("coordinator.key")),
        log: signer,
        rotation: starminer_tls::Rotation::default(),
        environment: Environment { clock: Arc::new(Jumping::default()), ..Environment::default() },
    };
    let coordinator = Coordinator::open_with(options).await.unwrap();
    let listener = tokio::net::TcpListener::bind(&network.address).await.unwrap();
    tokio::spawn(coordinator.serve(listener, std::future::pending()));
}

fn requester(network: &Network, events: EventSink) -> Requester {
    let (home, identity) = network.home("requester");
    let seed = Zeroizing::new(*identity.seed());
    Requester::start(network.client(&identity), home, network.trust(), &seed, events, requesters_now).unwrap()
}

#[test]
fn clocks_jump_and_nothing_is_lost() {
    let network = Network::prepared();
    runtime().block_on(async {
        serve(&network).await;
        tokio::task::block_in_place(|| network.add_node("node1"));
        let job = network.wasm_job(counts_then_writes(100_000_000, 1), &[]);
        let out = |name: &str| network.path("requester").join(name);
        // Runs a task during which a clock jumps at some step, and then goes right again.
        let jumps = async |name: &str, clock: &'static AtomicI64, by: i64, at: fn(&Event) -> bool| {
            let events: EventSink = Arc::new(move |event| {
                if at(&event) {
                    clock.store(by, Ordering::SeqCst);
                }
            });
            let requester = requester(&network, events);
            let outcome = requester.run(&job, Path::new(&out(name))).await.unwrap();
            clock.store(0, Ordering::SeqCst);
            outcome
        };
        let never = |_: &Event| false;
        let granted = |event: &Event| matches!(event, Event::Granted { .. });
        let challenged = |event: &Event| matches!(event, Event::Challenged { .. });
        completed(&jumps("control", &COORDINATOR, 0, never).await);

        // While the guest runs: leases are measured on a clock that does not jump.
        completed(&jumps("ahead", &COORDINATOR, 30 * MINUTE, granted).await);
        completed(&jumps("behind", &COORDINATOR, -30 * MINUTE, granted).await);
        completed(&jumps("far-behind", &COORDINATOR, -YEAR, granted).await);
        // In the middle of release: the log's times never go back, whatever the clock does.
        completed(&jumps("behind-in-release", &COORDINATOR, -30 * MINUTE, challenged).await);
        completed(&jumps("after", &COORDINATOR, 0, never).await);

        // The requester's own clock, between challenge and decision: that evidence is too old or of the future, and the next is not.
        completed(&jumps("own-ahead", &REQUESTER, 90 * SECOND, challenged).await);
        completed(&jumps("own-behind", &REQUESTER, -30 * SECOND, challenged).await);
        // So far ahead that every lease is over for it: it releases nothing, and the task says who did not.
        let outcome = jumps("own-far-ahead", &REQUESTER, 30 * MINUTE, challenged).await;
        failed(&outcome, Party::Releaser, "releaser.silent");

        // A coordinator whose clock is years ahead takes nothing: every spec has expired for it, and it says so.
        COORDINATOR.store(2 * YEAR, Ordering::SeqCst);
        let refused = requester(&network, Arc::new(|_| {})).submit(&job, None, None).await.unwrap_err();
        assert!(refused.to_string().starts_with("spec.expired"), "{refused}");
        COORDINATOR.store(0, Ordering::SeqCst);
        completed(&jumps("right-again", &COORDINATOR, 0, never).await);
    });
}
