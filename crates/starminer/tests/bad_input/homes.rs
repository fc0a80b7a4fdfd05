//! Homes and output directories: several processes in one, journals that are junk, tasks that were never taken, files in each other's way.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use starminer_receipt::{EntryKind, LogEntry, Receipt};
use starminer_requester::{Journal, JournalKey, TaskStart};
use starminer_verify::TaskId;

use crate::support::guests::counts_then_writes;
use crate::support::{self, Network, example, must, program, runtime, starminer, text};

/// A requester's home, as the commands use it.
pub struct User {
    pub home: PathBuf,
}

impl User {
    pub fn of(network: &Network) -> Self {
        drop(network.home("requester"));
        Self { home: network.path("requester") }
    }

    pub fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.home.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    pub fn run_args(&self, wasm: &Path, out: &Path) -> Vec<String> {
        let accepted = support::ROOT_NAME.to_owned();
        let mut args: Vec<String> = ["run", "--home"].map(Into::into).into();
        args.extend([text(&self.home), "--wasm".into(), text(wasm), "-o".into(), text(out)]);
        args.extend(["--accept-simulated".into(), accepted]);
        args
    }

    pub fn with_home(&self, args: &[&str]) -> Output {
        starminer(args.iter().copied().chain(["--json", "--home", &text(&self.home)]))
    }

    fn start(&self, args: &[String]) -> Child {
        Command::new(program())
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    pub fn tasks(&self) -> Vec<Value> {
        let status = self.with_home(&["status"]);
        assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stdout));
        json(&status)["tasks"].as_array().unwrap().clone()
    }
}

pub fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[track_caller]
pub fn refused(output: &Output, exit: i32, check: &str) -> String {
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(exit), "{said}");
    assert!(said.contains(check), "{said}");
    said
}

/// Every run completes at its first attempt: no process touches another one's task, and whoever only looks disturbs nobody.
#[test]
fn many_processes_use_one_home_at_once() {
    const SIDE_BY_SIDE: usize = 4;
    const EACH: usize = 2;
    let network = Network::start(2);
    let user = User::of(&network);
    let wasm = user.file("guest.wasm", &counts_then_writes(1_000_000, 1));
    let running = AtomicBool::new(true);
    let receipts: Vec<PathBuf> = std::thread::scope(|scope| {
        let looks = scope.spawn(|| {
            let mut looks = 0;
            while running.load(Ordering::SeqCst) {
                user.tasks();
                looks += 1;
            }
            looks
        });
        let runs: Vec<_> = (0..SIDE_BY_SIDE)
            .map(|side| {
                let (user, wasm) = (&user, &wasm);
                scope.spawn(move || {
                    let one = |round: usize| {
                        // Some have a place of their own, some all write to one.
                        let name = if round == 0 { format!("out-{side}") } else { "out".into() };
                        let out = user.home.join(name);
                        let said = must(user.run_args(wasm, &out).into_iter().chain(["--json".into()]));
                        PathBuf::from(json(&said)["receipt"].as_str().unwrap())
                    };
                    (0..EACH).map(one).collect::<Vec<_>>()
                })
            })
            .collect();
        let receipts = runs.into_iter().map(std::thread::ScopedJoinHandle::join).collect::<Vec<_>>();
        running.store(false, Ordering::SeqCst);
        assert!(looks.join().expect("status never fails") > 0);
        receipts.into_iter().flat_map(|receipts| receipts.expect("no run fails")).collect()
    });
    assert_eq!(receipts.len(), SIDE_BY_SIDE * EACH);
    let trust = user.home.join("network.toml");
    let mut last = 0;
    for path in &receipts {
        must(["verify", &text(path), "--network", &text(&trust)]);
        let receipt = Receipt::parse(&std::fs::read(path).unwrap()).unwrap();
        let entries = receipt.entries.iter().map(|logged| LogEntry::parse(&logged.entry.0).unwrap().kind);
        let kinds: Vec<EntryKind> = entries.collect();
        let times = |kind| kinds.iter().filter(|found| **found == kind).count();
        assert_eq!((times(EntryKind::Leased), times(EntryKind::Denied)), (1, 0), "{kinds:?}");
        last = last.max(receipt.entries.iter().map(|logged| logged.inclusion.index()).max().unwrap());
    }
    assert!(user.tasks().is_empty());
    // What is remembered is the largest checkpoint that any of them was shown: it covers the last release at least.
    let remembered = network.home("requester").0.remembered(&network.trust()).unwrap().unwrap();
    assert!(remembered.checkpoint().size() + 2 > last, "{} of {last}", remembered.checkpoint().size());
}

/// Who works on a task is named; the task can be looked at and cancelled from elsewhere all the same.
#[test]
fn a_task_is_worked_on_by_one_process() {
    let network = Network::start(1);
    let user = User::of(&network);
    // It counts until it is stopped.
    let wasm = user.file("guest.wasm", &counts_then_writes(1 << 60, 1));
    let mut args = user.run_args(&wasm, &user.home.join("out"));
    args.extend(["--fuel".into(), u64::MAX.to_string()]);
    let mut run = user.start(&args);
    network.wait_guest_runs("node1");
    let tasks = user.tasks();
    let task = tasks[0]["task"].as_str().unwrap();
    let said = refused(&user.with_home(&["result", task]), 2, "journal.held");
    assert!(said.contains(&format!("process {}", run.id())), "{said}");
    must(["cancel", task, "--home", &text(&user.home)]);
    assert_eq!(run.wait().unwrap().code(), Some(1), "the process that works on it hears of it");
    assert!(user.tasks().is_empty(), "and collects what is left");
    assert!(user.home.join("out").join(format!("{task}.receipt")).exists());
}

/// Says `said` to standard output and writes `file` to this file of `/out`.
fn says_and_writes(name: &str) -> Vec<u8> {
    let (length, text) = (
        name.len(),
        r#"(module
        (import "wasi_snapshot_preview1" "path_open"
            (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 64) "NAME")
        (data (i32.const 16) "\80\00\00\00\04\00\00\00\90\00\00\00\04\00\00\00")
        (data (i32.const 128) "said")
        (data (i32.const 144) "file")
        (func (export "_start")
            (if (call $write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 200)) (then unreachable))
            (if (call $open (i32.const 4) (i32.const 0) (i32.const 64) (i32.const LENGTH) (i32.const 9)
                    (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 208)) (then unreachable))
            (if (call $write (i32.load (i32.const 208)) (i32.const 24) (i32.const 1) (i32.const 200))
                (then unreachable))))"#,
    );
    wat::parse_str(text.replace("NAME", name).replace("LENGTH", &length.to_string())).unwrap()
}

#[test]
fn outputs_never_take_each_others_place_nor_that_of_a_users_file() {
    let network = Network::start(1);
    let user = User::of(&network);
    let out = user.home.join("out");
    let read = |name: &str| std::fs::read_to_string(out.join(name)).ok();
    let run = |wasm: &Path| starminer(user.run_args(wasm, &out).into_iter().chain(["--json".into()]));
    let says = user.file("says.wasm", &says_and_writes("stdout.txt"));

    // The program's own file has its name, and what it said is not lost.
    let first = json(&run(&says));
    let task = first["task"].as_str().unwrap();
    assert_eq!(first["outputs"].as_array().unwrap().len(), 2);
    assert_eq!((read("stdout.txt").as_deref(), read("stdout.captured.txt").as_deref()), (Some("file"), Some("said")));
    assert_eq!(json(&user.with_home(&["logs", task]))["stdout"], "said");

    // A failed run leaves nothing of the one before beside its receipt, but what is the user's own.
    std::fs::write(out.join("notes"), "of the user").unwrap();
    let traps = user.file("traps.wasm", &wat::parse_str(r#"(module (func (export "_start") unreachable))"#).unwrap());
    let failed = run(&traps);
    assert_eq!(failed.status.code(), Some(1));
    assert_eq!((read("stdout.txt"), read("stdout.captured.txt")), (None, None));
    assert_eq!(read("notes").as_deref(), Some("of the user"));
    assert!(out.join(format!("{task}.receipt")).exists(), "receipts are never taken away");

    // What is in the way and not of an earlier run is not written over; the result is fetched to another place.
    std::fs::write(out.join("stdout.txt"), "of the user").unwrap();
    let said = refused(&run(&says), 5, "result.occupied");
    assert!(said.contains("starminer result"), "{said}");
    assert_eq!(read("stdout.txt").as_deref(), Some("of the user"));
    let task = user.tasks()[0]["task"].as_str().unwrap().to_owned();
    let elsewhere = user.home.join("elsewhere");
    assert!(user.with_home(&["result", &task, "-o", &text(&elsewhere)]).status.success());
    assert_eq!(std::fs::read_to_string(elsewhere.join("stdout.captured.txt")).unwrap(), "said");
}

/// Names that the requester keeps for itself are a program's like all others: what it wrote under them is collected, beside them.
#[test]
fn no_name_that_a_program_chooses_keeps_its_result_from_being_collected() {
    let network = Network::start(1);
    let user = User::of(&network);
    let out = user.home.join("out");
    let made_up = format!("{}.receipt", TaskId([7; 16]));
    let names = [
        (".starminer-results", "renamed.starminer-results"),
        (".starminer-x", "renamed.starminer-x"),
        (made_up.as_str(), &format!("renamed.{made_up}")),
        ("own.receipt", "own.receipt"),
    ];
    for (name, place) in names {
        let wasm = user.file("guest.wasm", &says_and_writes(name));
        let done = json(&must(user.run_args(&wasm, &out).into_iter().chain(["--json".into()])));
        let outputs = done["outputs"].as_array().unwrap();
        let file = outputs.iter().find(|output| output["name"] == name).unwrap();
        assert_eq!(file["path"], text(&out.join(place)));
        assert_eq!(std::fs::read_to_string(out.join(place)).unwrap(), "file");
        // The list is the requester's own: it knows where the captured output went.
        assert_eq!(json(&user.with_home(&["logs", done["task"].as_str().unwrap()]))["stdout"], "said", "{name}");
    }
    let said = must(user.run_args(&user.file("guest.wasm", &says_and_writes(".starminer-x")), &out));
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(said.contains("renamed.starminer-x (4 B), which the program named .starminer-x"), "{said}");
    assert!(user.tasks().is_empty());
}

/// A journal whose task never reached the coordinator, as a crash or an outage leaves it.
fn never_submitted(network: &Network) -> TaskId {
    runtime().block_on(async {
        let (home, identity) = network.home("requester");
        let requester = network.requester("requester");
        let prepared = requester.prepare(&network.wasm_job(counts_then_writes(1, 1), &[]), None).unwrap();
        let start = TaskStart {
            spec: prepared.spec.envelope().clone(),
            secret: prepared.secret.expose().to_vec().into(),
            result_seed: prepared.result_seed.to_vec().into(),
            output_dir: None,
            detached: false,
        };
        let key = JournalKey::from_identity_seed(identity.seed());
        drop(Journal::create(&home.journal_dir(), &key, prepared.spec.task, start).unwrap());
        prepared.spec.task
    })
}

#[test]
fn a_task_that_was_never_taken_can_be_cleared() {
    let network = Network::coordinator_only();
    let user = User::of(&network);
    let task = never_submitted(&network).to_string();
    assert_eq!(user.tasks()[0]["state"], "not-taken");
    refused(&user.with_home(&["result", &task]), 1, "task.unknown");
    assert_eq!(user.tasks().len(), 1, "that it is unknown may be an error: it is kept until somebody says otherwise");
    let cancelled = user.with_home(&["cancel", &task]);
    assert!(cancelled.status.success());
    assert_eq!(json(&cancelled)["state"], "not-taken");
    assert!(user.tasks().is_empty());
}

#[test]
fn a_journal_that_is_junk_is_named() {
    let network = Network::coordinator_only();
    let user = User::of(&network);
    let (good, bad) = (never_submitted(&network).to_string(), never_submitted(&network).to_string());
    let journal = user.home.join("journal").join(format!("{bad}.journal"));
    std::fs::write(&journal, b"junk junk junk junk").unwrap();
    let status = user.with_home(&["status"]);
    assert_eq!(status.status.code(), Some(5));
    let rows = json(&status)["tasks"].as_array().unwrap().clone();
    for (task, check) in [(&good, Value::Null), (&bad, "journal.damaged".into())] {
        let row = rows.iter().find(|row| row["task"] == **task).unwrap();
        assert_eq!(row["check"], check);
    }
    let said = starminer(["status", "--home", &text(&user.home)]);
    assert!(String::from_utf8_lossy(&said.stdout).contains(&text(&journal)), "{said:?}");
    for command in ["result", "cancel"] {
        let said = refused(&user.with_home(&[command, &bad]), 5, "journal.damaged");
        assert!(said.contains(&text(&journal)), "{said}");
    }
    assert_eq!(std::fs::read(&journal).unwrap(), b"junk junk junk junk", "nobody writes to what is not understood");
    let one = starminer(["status", &good, "--home", &text(&user.home)]);
    assert!(one.status.success(), "a damaged neighbour harms nobody");
    std::fs::remove_file(&journal).unwrap();
    assert_eq!(user.tasks().len(), 1);
}

/// Runs the program with a bound on the length of every file that it writes: what would go on and on fails there.
fn bounded(mebibytes: u64, args: &[String]) -> Command {
    let mut command = Command::new("sh");
    // In blocks of 512 bytes; a shell that counts in others has a larger bound. Past it a write fails, and no signal ends the process.
    let script = format!("ulimit -f {}; trap '' XFSZ; exec \"$0\" \"$@\"", mebibytes * 2048);
    command.args(["-c", &script, program()]).args(args);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// What is staged goes with the process that staged it, however that ends; a signal ends it in the middle of sealing.
#[test]
fn nothing_stays_staged() {
    let network = Network::coordinator_only();
    let user = User::of(&network);
    network.add_broker();
    runtime().block_on(async { network.broker(&network.requester("requester")).await });
    let staged = || support::files_below(&[user.home.join("staging")]).len();
    let staging = || std::fs::read_dir(user.home.join("staging")).unwrap().count();
    let wasm = user.file("guest.wasm", &example("empty/empty.wasm"));
    // All of it would take longer than anyone waits, and no disk has the room.
    let endless = user.file("endless", b"");
    std::fs::File::options().write(true).open(&endless).unwrap().set_len(1 << 40).unwrap();
    let mut args = user.run_args(&wasm, &user.home.join("out"));
    args.extend(["-i".into(), text(&endless)]);

    let full = bounded(4, &args).stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
    let said = refused(&full, 5, "home.io");
    assert!(said.contains("fault   requester") && said.contains("staging"), "{said}");
    assert_eq!(staging(), 0, "a run that fails");

    let submit: Vec<String> =
        ["submit", "--detach"].map(String::from).into_iter().chain(args.iter().skip(1).cloned()).collect();
    let signals = [
        (&args, "INT", Some(130)),
        (&args, "TERM", Some(143)),
        (&args, "HUP", Some(129)),
        (&submit, "INT", Some(130)),
        (&args, "KILL", None),
    ];
    for (args, signal, code) in signals {
        let mut run = bounded(8 << 10, args).spawn().unwrap();
        network.wait_until("a staged file", || staged() == 1);
        user.tasks();
        assert_eq!(staged(), 1, "whoever opens the home leaves alone what somebody is at");
        let kill = format!("kill -{signal} {}", run.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        assert_eq!(run.wait().unwrap().code(), code, "{signal}");
        assert_eq!(staging(), usize::from(code.is_none()), "{signal}");
    }
    user.tasks();
    assert_eq!(staging(), 0, "what a killed process left is gone once the home is opened");
    assert!(user.tasks().is_empty());
}
