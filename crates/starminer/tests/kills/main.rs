//! `kill -9` of coordinator, broker, node and client at every step of a task's life, then restart: the task completes or is
//! reported failed, exactly once.
//!
//! Hunted: lost tasks, tasks that end twice, receipts that do not verify, plaintext left behind. Not hunted here: power loss (a killed
//! process leaves the page cache; torn and lost writes are simulated in `starminer-store` and `starminer-vault`).

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use starminer_receipt::{EntryKind, LogEntry, Outcome, Overall, Receipt};
use starminer_requester::{Event, EventSink, TaskOutcome};
use support::{Network, example, program, runtime, text};

/// The steps of a task that a requester sees, and can kill at.
const STEPS: &[&str] = &["submitted", "challenged", "appraised", "release-logged", "granted"];

fn step(event: &Event) -> Option<&'static str> {
    Some(match event {
        Event::Submitted { .. } => "submitted",
        Event::Challenged { .. } => "challenged",
        Event::Appraised { .. } => "appraised",
        Event::ReleaseLogged { .. } => "release-logged",
        Event::Granted { .. } => "granted",
        _ => return None,
    })
}

/// Ended once, with a receipt that is not refuted, and completed or failed with a reason.
fn check_ended(outcome: &TaskOutcome, what: &str) {
    let receipt = Receipt::parse(&std::fs::read(&outcome.receipt_path).unwrap()).unwrap();
    let kinds: Vec<EntryKind> =
        receipt.entries.iter().map(|entry| LogEntry::parse(&entry.entry.0).unwrap().kind).collect();
    let reports = kinds.iter().filter(|kind| **kind == EntryKind::Reported).count();
    assert_eq!(reports, 1, "{what}: {kinds:?}");
    assert_eq!(outcome.verdict.overall(), Overall::Proven, "{what}: {:#?}", outcome.verdict.claims);
    match outcome.outcome.as_ref().expect("every task ends with a report") {
        Outcome::Completed => assert!(!outcome.outputs.is_empty(), "{what}"),
        Outcome::Failed { refusal } => assert!(!refusal.check().is_empty() && !refusal.remedy().is_empty(), "{what}"),
    }
}

/// Kills `victim` at each step of a task and starts it again at once.
fn kill_and_restart(victim: &'static str, nodes: usize, must_complete: bool) {
    let network = Arc::new(Network::start(nodes));
    for kill_at in STEPS {
        let what = format!("{victim} killed at {kill_at}");
        let handle: Arc<OnceLock<std::thread::JoinHandle<()>>> = Arc::default();
        let fired = Arc::new(AtomicBool::new(false));
        let events: EventSink = {
            let (network, fired) = (Arc::clone(&network), Arc::clone(&fired));
            Arc::new(move |event| {
                if step(&event) == Some(kill_at) && !fired.swap(true, Ordering::SeqCst) {
                    network.kill(victim);
                    let network = Arc::clone(&network);
                    let _ = handle.set(std::thread::spawn(move || network.start_process(victim)));
                }
            })
        };
        let outcome = runtime().block_on(async {
            let requester = network.requester_with("requester", events);
            let job = network
                .wasm_job(example("wordcount/wordcount.wasm"), &[("notes.txt", b"to be or not to be\n".repeat(100))]);
            let out = network.path("requester").join(kill_at);
            let task = match requester.submit(&job, None, None).await {
                Ok(task) => task,
                // The acknowledgement was lost with the process; the journal knows the task.
                Err(error) => requester.open_tasks().first().unwrap_or_else(|| panic!("{what}: {error}")).0,
            };
            let view = requester.wait(&task).await.unwrap();
            requester.collect(view, &out).await.unwrap()
        });
        assert!(fired.load(Ordering::SeqCst), "{what}: the step was never reached");
        check_ended(&outcome, &what);
        if must_complete {
            assert_eq!(outcome.outcome, Some(Outcome::Completed), "{what}");
        }
    }
}

#[test]
fn coordinator() {
    kill_and_restart("coordinator", 1, true);
}

#[test]
fn node() {
    kill_and_restart("node1", 1, true);
}

/// The client of the command line, killed when it has told a step; `result` finishes what it began.
#[test]
fn client() {
    let network = Network::start(1);
    let home = network.path("requester");
    drop(network.home("requester"));
    let input = network.path("requester").join("notes.txt");
    std::fs::write(&input, b"to be or not to be\n".repeat(100)).unwrap();
    let wasm = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/wordcount/wordcount.wasm");
    for kill_at in ["submitted", "leased", "proved", "logged", "released"] {
        let out = home.join(format!("out-{kill_at}"));
        let mut child = Command::new(program())
            .args([
                "run",
                "--wasm",
                &text(&wasm),
                "-i",
                &text(&input),
                "-o",
                &text(&out),
                "--accept-simulated",
                support::ROOT_NAME,
            ])
            .args(["--home", &text(&home)])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut told = false;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            if line.unwrap().trim_start().starts_with(kill_at) {
                told = true;
                child.kill().unwrap();
                break;
            }
        }
        child.wait().unwrap();
        assert!(told, "{kill_at} was never told");
        let status = support::must(["status", "--json", "--home", &text(&home)]);
        let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
        let tasks = status["tasks"].as_array().unwrap();
        if tasks.is_empty() {
            // It was quicker than the signal: the task is done and collected.
            assert!(out.join("report.csv").exists(), "{kill_at}");
            continue;
        }
        let task = tasks[0]["task"].as_str().unwrap();
        support::must(["result", task, "--json", "--home", &text(&home)]);
        assert!(out.join("report.csv").exists(), "{kill_at}: the result is where `run` was told to put it");
        let receipt = out.join(format!("{task}.receipt"));
        support::must(["verify", &text(&receipt), "--network", &text(&home.join("network.toml"))]);
    }
}

/// A broker that restarts has other keys: what was left with it ends as failed, once, and says so; a new task goes through.
#[test]
fn broker() {
    let network = Network::coordinator_only();
    network.add_broker();
    runtime().block_on(async {
        let requester = network.requester("requester");
        let broker = requester.client().network().await.unwrap().brokers[0];
        let job = network.wasm_job(example("wordcount/wordcount.wasm"), &[("notes.txt", b"words".to_vec())]);
        let task = requester.submit(&job, None, Some(broker)).await.unwrap();
        network.restart("broker");
        network.add_node("node1");
        let view = requester.wait(&task).await.unwrap();
        let outcome = requester.collect(view, &network.path("requester").join("out")).await.unwrap();
        check_ended(&outcome, "broker restarted");
        let Some(Outcome::Failed { refusal }) = &outcome.outcome else { panic!("it completed") };
        assert_eq!(refusal.check(), "broker.restarted");

        let again = requester.submit(&job, None, Some(broker)).await.unwrap();
        let view = requester.wait(&again).await.unwrap();
        let outcome = requester.collect(view, &network.path("requester").join("again")).await.unwrap();
        assert_eq!(outcome.outcome, Some(Outcome::Completed));
    });
}
