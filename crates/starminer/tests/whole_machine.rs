//! Root switches plain swap on, or has cores piped to a program, while a node runs: out of routing at once, and back when that is undone.
//!
//! Swap and the core pattern are the whole machine's: these tests are a program of their own, and run one after the other, since every agent on the machine sees them.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use starminer_wire::TaskState;

use support::guests::counts_then_writes;
use support::watching::{admitted, completed, log, suspensions};
use support::{Network, example, runtime};

/// One test at a time has the machine.
static MACHINE: Mutex<()> = Mutex::new(());
const CORE_PATTERN: &str = "/proc/sys/kernel/core_pattern";
const SWAP_BYTES: usize = 1 << 20;

/// A swap area in use, until it is dropped.
struct Swap(PathBuf);

impl Swap {
    /// Makes what is to be switched on.
    fn make(file: &Path) {
        // Without holes, which no swap area may have.
        fs::write(file, vec![0; SWAP_BYTES]).unwrap();
        assert!(is_done("mkswap", file));
    }

    /// `None`, said loudly, where that is not allowed or the file system takes none.
    fn on(file: PathBuf) -> Option<Self> {
        if is_done("swapon", &file) {
            return Some(Self(file));
        }
        eprintln!("skipped: no swap can be switched on here");
        None
    }
}

fn is_done(program: &str, file: &Path) -> bool {
    Command::new(program).arg(file).output().is_ok_and(|output| output.status.success())
}

impl Drop for Swap {
    fn drop(&mut self) {
        let _ = Command::new("swapoff").arg(&self.0).status();
    }
}

/// The machine's core pattern, put back when it is dropped.
struct CorePattern(String);

impl CorePattern {
    fn set(pattern: &str) -> Option<Self> {
        let before = fs::read_to_string(CORE_PATTERN).ok()?;
        if fs::write(CORE_PATTERN, pattern).is_err() {
            eprintln!("skipped: the core pattern cannot be set here");
            return None;
        }
        Some(Self(before))
    }
}

impl Drop for CorePattern {
    fn drop(&mut self) {
        let _ = fs::write(CORE_PATTERN, &self.0);
    }
}

fn no_swap_yet() -> bool {
    let none = fs::read_to_string("/proc/swaps").is_ok_and(|swaps| swaps.lines().count() == 1);
    if !none {
        eprintln!("skipped: this machine has swap switched on");
    }
    none
}

#[test]
fn plain_swap_ends_the_task_and_takes_an_idle_node_out() {
    let _turn = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    if !no_swap_yet() {
        return;
    }
    let network = Network::start(1);
    runtime().block_on(async {
        let requester = network.requester("requester");
        let client = requester.client();
        let job = network.wasm_job(counts_then_writes(2_000_000_000, 1), &[]);
        let file = network.path("node1").join("swap");
        Swap::make(&file);
        let task = requester.submit(&job, None, None).await.unwrap();
        tokio::task::block_in_place(|| network.wait_guest_runs("node1"));
        let Some(swap) = Swap::on(file.clone()) else { return };
        let took = admitted(client, 0).await;
        eprintln!("plain swap while a task ran: out of routing after {} ms", took.as_millis());
        tokio::task::block_in_place(|| network.wait_until("the end of the guest", || !network.guest_runs("node1")));
        drop(swap);
        let took = admitted(client, 1).await;
        eprintln!("mended: back after {} ms", took.as_millis());
        let view = requester.wait(&task).await.unwrap();
        assert_eq!((view.state, view.attempt.unwrap().0), (TaskState::Completed, 2));
        completed(&requester.collect(view, &network.path("requester").join("again")).await.unwrap());

        let swap = Swap::on(file).unwrap();
        let took = admitted(client, 0).await;
        eprintln!("plain swap while idle: out of routing after {} ms", took.as_millis());
        drop(swap);
        admitted(client, 1).await;
        assert_eq!(suspensions(&log(&network, client).await), ["node.posture-swap_off"; 2]);
    });
}

#[test]
fn a_core_pattern_that_pipes_takes_a_node_out() {
    let _turn = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    // Cores become nothing: what a node's host is asked for.
    let Some(_as_it_was) = CorePattern::set("/dev/null") else { return };
    let network = Network::start(1);
    runtime().block_on(async {
        let requester = network.requester("requester");
        let client = requester.client();
        let piped = CorePattern::set("|/usr/bin/cat").unwrap();
        let took = admitted(client, 0).await;
        eprintln!("cores piped to a program: out of routing after {} ms", took.as_millis());
        drop(piped);
        admitted(client, 1).await;
        assert_eq!(suspensions(&log(&network, client).await), ["node.posture-core_pattern_contained"]);
        let job = network.wasm_job(example("wordcount/wordcount.wasm"), &[("a.txt", b"words".to_vec())]);
        completed(&requester.run(&job, &network.path("requester").join("out")).await.unwrap());
    });
}
