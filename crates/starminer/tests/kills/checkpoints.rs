//! The node, and the coordinator with it, killed at random moments of a task that keeps a state: it goes on from its last commit, and ends once.
//!
//! What `kill -9` leaves in the page cache a power cut would lose: that a commit reaches the disk before it returns is held in
//! `starminer-agent`'s `task::state::tests`, at every write.

use std::time::{Duration, Instant};

use starminer_receipt::{ClaimVerdict, EntryKind, LogEntry, Outcome, Overall, Receipt, Report};
use starminer_requester::TaskOutcome;

use crate::support::moments::Moments;
use crate::support::primes::{primes_job, primes_text};
use crate::support::{Network, runtime};

/// The number that `examples/primes` counts up to, and in steps of what it commits.
const LIMIT: u64 = 8_000_000;
const STEP: u64 = 20_000;
const KILLS: u32 = 5;

struct Ended {
    receipt: Receipt,
    report: Report,
    /// How often the program was entered, as it says itself.
    entries: u32,
}

/// Completed, once, with the right result and a receipt that proves from where.
fn check(outcome: &TaskOutcome, out: &std::path::Path) -> Ended {
    assert_eq!(outcome.outcome, Some(Outcome::Completed));
    assert_eq!(outcome.verdict.overall(), Overall::Proven, "{:#?}", outcome.verdict.claims);
    assert_eq!(std::fs::read_to_string(out.join("primes.txt")).unwrap(), primes_text(LIMIT));
    let entries = std::fs::read_to_string(out.join("entries.txt")).unwrap().trim().parse().unwrap();
    let receipt = Receipt::parse(&std::fs::read(&outcome.receipt_path).unwrap()).unwrap();
    let kinds = kinds(&receipt);
    assert_eq!(kinds.iter().filter(|kind| **kind == EntryKind::Reported).count(), 1, "{kinds:?}");
    let report = receipt.report.clone().unwrap().open::<Report>().unwrap().statement().clone();
    let resume = outcome.verdict.claims.iter().find(|claim| claim.name == "resume").unwrap();
    assert_eq!(resume.verdict, ClaimVerdict::Proven, "{}", resume.statement);
    eprintln!("entered {entries} times; {}", resume.statement);
    Ended { receipt, report, entries }
}

fn kinds(receipt: &Receipt) -> Vec<EntryKind> {
    receipt.entries.iter().map(|entry| LogEntry::parse(&entry.entry.0).unwrap().kind).collect()
}

/// Waits until the program's attempt has committed something.
fn wait_commits(network: &Network, node: &str) {
    let states = network.path(node).join("data/states");
    let image = || {
        let files = std::fs::read_dir(&states).into_iter().flatten().flatten();
        files.map(|file| std::fs::read(file.path()).unwrap_or_default()).find(|image| image.len() > 3 << 16)
    };
    network.wait_until("a commit", || image().is_some());
    // The superblocks: a change of them is a commit of this attempt.
    let before = image().unwrap()[..2 << 16].to_vec();
    network.wait_until("another commit", || image().is_some_and(|image| image[..2 << 16] != before));
}

fn survives(victims: impl Fn(&mut Moments) -> Vec<&'static str>) {
    let network = Network::start(1);
    let mut moments = Moments::new();
    runtime().block_on(async {
        let requester = network.requester("requester");
        let out = network.path("requester").join("out");
        let task = requester.submit(&primes_job(&network, LIMIT, STEP), None, None).await.unwrap();
        tokio::task::block_in_place(|| {
            for _ in 0..KILLS {
                wait_commits(&network, "node1");
                std::thread::sleep(Duration::from_millis(moments.below(300)));
                let victims = victims(&mut moments);
                victims.iter().for_each(|victim| network.kill(victim));
                // The coordinator first: a node that finds none is not admitted.
                victims.iter().rev().for_each(|victim| network.start_process(victim));
            }
        });
        let view = requester.wait(&task).await.unwrap();
        let attempts = view.attempt.unwrap().0;
        let outcome = requester.collect(view, &out).await.unwrap();
        let ended = check(&outcome, &out);
        assert!(ended.report.predicate.resumed.is_some(), "the last attempt began anew");
        assert!(attempts > 1 && ended.entries > 1 && ended.entries <= attempts, "{attempts} attempts");
        // An attempt goes on from what the one before it had: none of the later ones began anew.
        assert!(ended.entries > KILLS, "{} entries after {KILLS} kills", ended.entries);
        assert!(kinds(&ended.receipt).contains(&EntryKind::Checkpointed));
        // The node is told that the task is over, and keeps nothing of it.
        tokio::task::block_in_place(|| {
            let states = network.path("node1").join("data/states");
            network.wait_until("the end of the checkpoint", || std::fs::read_dir(&states).unwrap().count() == 0);
        });
        assert!(network.log("node1").contains("crashed or lost its power"));
    });
}

#[test]
fn a_node_killed_at_random_moments_goes_on_from_its_checkpoints() {
    survives(|_| vec!["node1"]);
}

#[test]
fn so_it_does_when_the_coordinator_is_killed_with_it() {
    survives(|moments| if moments.below(2) == 0 { vec!["node1"] } else { vec!["node1", "coordinator"] });
}

/// The node that has the checkpoint is waited for, for a while; then another begins the task anew, and says so.
#[test]
fn a_node_that_never_returns_leaves_a_task_that_begins_anew() {
    let network = Network::with_limits(&[(&["waits", "resume_ms"], 3_000), (&["waits", "node_silence_ms"], 2_000)]);
    network.add_node("node1");
    runtime().block_on(async {
        let requester = network.requester("requester");
        let out = network.path("requester").join("out");
        let task = requester.submit(&primes_job(&network, LIMIT, STEP), None, None).await.unwrap();
        tokio::task::block_in_place(|| {
            wait_commits(&network, "node1");
            network.kill("node1");
            network.add_node("node2");
        });
        let view = requester.wait(&task).await.unwrap();
        assert_eq!(view.attempt.unwrap().0, 2);
        let outcome = requester.collect(view, &out).await.unwrap();
        let ended = check(&outcome, &out);
        assert_eq!((ended.entries, ended.report.predicate.resumed), (1, None));
        // Who comes back later has something that nobody wants.
        tokio::task::block_in_place(|| {
            let states = network.path("node1").join("data/states");
            assert_eq!(std::fs::read_dir(&states).unwrap().count(), 1);
            network.start_process("node1");
            network.wait_until("the end of the checkpoint", || std::fs::read_dir(&states).unwrap().count() == 0);
        });
    });
}

/// A figure, not a bound: from the admission of a node that was killed to the first commit of the program that was entered again.
#[test]
#[ignore = "measures"]
fn how_long_it_takes_to_go_on() {
    let network = Network::start(1);
    runtime().block_on(async {
        let requester = network.requester("requester");
        let out = network.path("requester").join("out");
        let task = requester.submit(&primes_job(&network, LIMIT, STEP), None, None).await.unwrap();
        for _ in 0..3 {
            tokio::task::block_in_place(|| {
                wait_commits(&network, "node1");
                network.kill("node1");
                let started = Instant::now();
                network.start_process("node1");
                let admitted = started.elapsed();
                wait_commits(&network, "node1");
                let resumed = started.elapsed();
                eprintln!(
                    "start to admission {} ms, admission to the first commit of the next attempt {} ms",
                    admitted.as_millis(),
                    (resumed - admitted).as_millis()
                );
            });
        }
        let view = requester.wait(&task).await.unwrap();
        check(&requester.collect(view, &out).await.unwrap(), &out);
    });
}
