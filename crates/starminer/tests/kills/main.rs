//! `kill -9` of coordinator, broker, node and client at every step of a task's life, then restart: the task completes or is
//! reported failed, exactly once.
//!
//! Hunted: lost tasks, tasks that end twice, receipts that do not verify, plaintext left behind. Not hunted here: power loss (a killed
//! process leaves the page cache; torn and lost writes are simulated in `starminer-store` and `starminer-vault`).

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod checkpoints;
#[path = "../support/mod.rs"]
mod support;

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use starminer_receipt::{EntryKind, LogEntry, Outcome, Overall, Receipt};
use starminer_requester::{Event, EventSink, Requester, TaskOutcome};
use starminer_verify::TaskId;
use starminer_wire::TaskState;
use support::guests::counts_then_writes;
use support::{Network, example, files_below, program, runtime, text};

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

/// Stages that no party announces, seen from outside.
#[derive(Debug, Clone, Copy)]
enum Stage {
    /// The guest runs.
    Running,
    /// Outputs are on their way to the coordinator.
    Uploading,
}

const STAGES: [Stage; 2] = [Stage::Running, Stage::Uploading];

impl Stage {
    /// A network whose nodes upload so slowly, and are missed so soon, that the stage can be met and got over.
    fn network(self) -> Network {
        let network = Network::with_limits(&[
            (&["identity", "blob_bytes_per_second"], 8 << 20),
            (&["waits", "node_silence_ms"], 10_000),
        ]);
        network.add_node("node1");
        network
    }

    /// A program that stays in the stage for a while.
    fn program(self) -> Vec<u8> {
        match self {
            Self::Running => counts_then_writes(800_000_000, 1),
            Self::Uploading => counts_then_writes(0, 16 * 16),
        }
    }

    fn output_bytes(self) -> u64 {
        match self {
            Self::Running => 1 << 16,
            Self::Uploading => 16 << 20,
        }
    }

    fn wait(self, network: &Network) {
        match self {
            Self::Running => network.wait_guest_runs("node1"),
            // What the requester uploads is small and never a partial file.
            Self::Uploading => network.wait_until("an upload", || {
                !files_below(&[network.path("coordinator").join("data/blobs/partial")]).is_empty()
            }),
        }
    }

    /// Runs a task, does something to the network while it is in this stage, and sees it complete once.
    fn survives(self, network: &Network, attempts: u32, deed: impl FnOnce(&Network)) {
        let what = format!("{self:?}");
        runtime().block_on(async {
            let requester = network.requester("requester");
            let task = requester.submit(&network.wasm_job(self.program(), &[]), None, None).await.unwrap();
            tokio::task::block_in_place(|| {
                self.wait(network);
                deed(network);
            });
            let view = requester.wait(&task).await.unwrap();
            assert_eq!(view.attempt.unwrap().0, attempts, "{what}");
            let out = network.path("requester").join("out");
            let outcome = requester.collect(view, &out).await.unwrap();
            check_ended(&outcome, &what);
            assert_eq!(outcome.outcome, Some(Outcome::Completed), "{what}");
            assert_eq!(std::fs::metadata(out.join("big.bin")).unwrap().len(), self.output_bytes(), "{what}");
        });
    }
}

#[test]
fn coordinator_while_a_task_runs_and_uploads() {
    for stage in STAGES {
        // The node has not lost anything: the attempt goes on.
        stage.survives(&stage.network(), 1, |network| network.restart("coordinator"));
    }
}

#[test]
fn node_while_a_task_runs_and_uploads() {
    for stage in STAGES {
        stage.survives(&stage.network(), 2, |network| network.restart("node1"));
    }
}

#[test]
fn node_that_never_returns_leaves_its_task_to_another() {
    for stage in STAGES {
        stage.survives(&stage.network(), 2, |network| {
            network.kill("node1");
            network.add_node("node2");
        });
    }
}

#[test]
fn client_while_a_task_runs_and_uploads() {
    for stage in STAGES {
        let network = stage.network();
        let home = network.path("requester");
        drop(network.home("requester"));
        let (wasm, out) = (home.join("guest.wasm"), home.join("out"));
        std::fs::write(&wasm, stage.program()).unwrap();
        let mut child = Command::new(program())
            .args(["run", "--wasm", &text(&wasm), "-o", &text(&out), "--accept-simulated", support::ROOT_NAME])
            .args(["--home", &text(&home)])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        stage.wait(&network);
        child.kill().unwrap();
        child.wait().unwrap();
        let status = support::must(["status", "--json", "--home", &text(&home)]);
        let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
        let task = status["tasks"][0]["task"].as_str().expect("the journal knows the task").to_owned();
        support::must(["result", &task, "--json", "--home", &text(&home)]);
        assert_eq!(std::fs::metadata(out.join("big.bin")).unwrap().len(), stage.output_bytes(), "{stage:?}");
        let receipt = out.join(format!("{task}.receipt"));
        support::must(["verify", &text(&receipt), "--network", &text(&home.join("network.toml"))]);
    }
}

/// Waits until a task has come at least as far as a state.
async fn reached(requester: &Requester, task: &TaskId, state: TaskState) -> TaskState {
    const ORDER: [TaskState; 6] = [
        TaskState::Queued,
        TaskState::Leased,
        TaskState::Challenged,
        TaskState::Attested,
        TaskState::Released,
        TaskState::Granted,
    ];
    let rank = |state| ORDER.iter().position(|known| *known == state).unwrap_or(ORDER.len());
    let mut version = 0;
    loop {
        let view = requester.client().task(task, version, 20_000).await.unwrap();
        if rank(view.state) >= rank(state) {
            return view.state;
        }
        version = view.version;
    }
}

/// A broker that restarts has other keys: what was left with it and not granted ends as failed, once, and says so; what was granted
/// completes; a new task goes through.
#[test]
fn broker() {
    let network = Network::coordinator_only();
    network.add_broker();
    runtime().block_on(async {
        let requester = network.requester("requester");
        let broker = network.broker(&requester).await;
        let job = |rounds| network.wasm_job(counts_then_writes(rounds, 1), &[]);
        let (job, long) = (job(300_000_000), job(2_000_000_000));
        let submit = async || requester.submit(&job, None, Some(broker)).await.unwrap();
        let end = async |task: TaskId, step: &str| {
            let view = requester.wait(&task).await.unwrap();
            let outcome = requester.collect(view, &network.path("requester").join(step)).await.unwrap();
            check_ended(&outcome, step);
            outcome.outcome.unwrap()
        };
        let restarted = |outcome: Outcome, step: &str| {
            let Outcome::Failed { refusal } = outcome else { panic!("{step}: it completed") };
            assert_eq!(refusal.check(), "broker.restarted", "{step}");
        };
        let wait = |work: &dyn Fn()| tokio::task::block_in_place(work);

        let task = submit().await;
        wait(&|| network.restart("broker"));
        wait(&|| network.add_node("node1"));
        restarted(end(task, "submitted").await, "submitted");

        // A paused node takes the lease that it has asked for, and does not answer the challenge. One that was paused between two questions
        // takes none; it is let go, and the next task tries again.
        let challenged = async || loop {
            network.pause("node1");
            let task = submit().await;
            let state = reached(&requester, &task, TaskState::Challenged);
            if let Ok(state) = tokio::time::timeout(Duration::from_secs(5), state).await {
                assert_eq!(state, TaskState::Challenged);
                return task;
            }
            network.resume("node1");
            end(task, "missed").await;
        };
        let task = challenged().await;
        wait(&|| network.restart("broker"));
        network.resume("node1");
        restarted(end(task, "challenged").await, "challenged");

        // A paused broker has challenged, and does not decide.
        let task = challenged().await;
        network.pause("broker");
        network.resume("node1");
        assert_eq!(reached(&requester, &task, TaskState::Attested).await, TaskState::Attested);
        wait(&|| network.restart("broker"));
        restarted(end(task, "attested").await, "attested");

        // Between the log and the grant there is no time to aim at: whichever comes first, the task ends once.
        let task = submit().await;
        reached(&requester, &task, TaskState::Released).await;
        wait(&|| network.restart("broker"));
        match end(task, "logged").await {
            Outcome::Completed => {}
            failed @ Outcome::Failed { .. } => restarted(failed, "logged"),
        }

        let task = requester.submit(&long, None, Some(broker)).await.unwrap();
        assert_eq!(reached(&requester, &task, TaskState::Granted).await, TaskState::Granted);
        wait(&|| network.wait_guest_runs("node1"));
        wait(&|| network.restart("broker"));
        assert_eq!(end(task, "granted").await, Outcome::Completed);

        let task = submit().await;
        assert_eq!(end(task, "again").await, Outcome::Completed);
    });
}

/// Whoever comes between the coordinator's start and its brokers' return waits for them, whichever broker it wants.
#[test]
fn coordinator_before_its_broker_is_back() {
    let network = Network::with_limits(&[(&["waits", "broker_return_ms"], 110_000)]);
    network.add_broker();
    let (home, wasm) = (network.path("requester"), network.path("requester").join("guest.wasm"));
    let broker = runtime().block_on(async { network.broker(&network.requester("requester")).await.to_string() });
    std::fs::write(&wasm, example("empty/empty.wasm")).unwrap();
    for options in [&[][..], &["--broker", broker.as_str()]] {
        network.pause("broker");
        network.restart("coordinator");
        let mut child = Command::new(program())
            .args(["submit", "--detach", "--wasm", &text(&wasm), "-o", &text(&home.join("out"))])
            .args(["--accept-simulated", support::ROOT_NAME, "--home", &text(&home)])
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let waits = lines.by_ref().any(|line| line.trim_start().starts_with("waiting"));
        network.resume("broker");
        let rest: Vec<String> = lines.collect();
        let ended = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(waits && ended.status.success(), "{options:?}: {rest:#?} {said}");
        assert!(rest.iter().any(|line| line.starts_with("task ")), "{options:?}: {rest:#?} {said}");
    }
}
