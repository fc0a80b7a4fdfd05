//! A task's life by the commands of a requester, against a real network.

use std::io::{BufRead as _, BufReader};
use std::path::Path;

use serde_json::Value;

use crate::support::{Network, ROOT_NAME, text};
use crate::{Cli, Said, example_path, exit, has_keys, is_refusal};

const RUN_FIELDS: [&str; 10] =
    ["task", "state", "refusal", "outputs", "exit_code", "fuel_used", "receipt", "verdict", "simulated", "collected"];

/// A requester's home and working directory in a network.
struct User<'a> {
    cli: Cli,
    network: &'a Network,
    home: String,
}

impl<'a> User<'a> {
    fn of(network: &'a Network) -> Self {
        network.home("requester");
        Self { cli: Cli::new(), network, home: text(&network.path("requester")) }
    }

    fn run(&self, args: &[&str]) -> Said {
        let mut command = self.cli.command(args);
        Said::of(command.env("STARMINER_HOME", &self.home).output().unwrap())
    }

    fn json(&self, args: &[&str], code: i32) -> Value {
        self.run(&[args, &["--json"]].concat()).json(code)
    }

    /// Submits through the broker; the task's id.
    fn submit(&self, args: &[&str]) -> String {
        let submitted = self.json(&[&["submit", "--detach", "--accept-simulated", ROOT_NAME], args].concat(), exit::OK);
        has_keys(&submitted, &["task", "broker"]);
        submitted["task"].as_str().unwrap().to_string()
    }

    /// How many tasks are open.
    fn open(&self) -> usize {
        self.json(&["status"], exit::OK)["tasks"].as_array().unwrap().len()
    }
}

/// Writes two lines to standard error and ends with status 1.
const SAYS_WHY: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (memory (export "memory") 1)
    (data (i32.const 0) "\10\00\00\00\0f\00\00\00")
    (data (i32.const 16) "why\1b[2J\nsecond\n")
    (func (export "_start")
        (drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)))
        (call $exit (i32.const 1))))"#;

/// Everything in a job file, in the directory it is called from or not.
fn write_job(cli: &Cli, name: &str, rest: &str) {
    let wasm = example_path("wordcount/wordcount.wasm");
    let notes = example_path("wordcount/clinic-notes.txt");
    let policy = format!("[policy]\naccept_simulated = [\"{ROOT_NAME}\"]\n");
    cli.write(name, format!("wasm = \"{wasm}\"\ninputs = [\"{notes}\"]\n{rest}\n{policy}"));
}

#[test]
fn run_seals_waits_opens_and_keeps_a_receipt() {
    let network = Network::start(1);
    let user = User::of(&network);
    write_job(&user.cli, "job.toml", "output = \"from-the-file\"\n[limits]\nfuel = 1_000_000_000");
    let told = user.run(&["run", "job.toml", "-o", "out"]);
    let out = told.exits(exit::OK);
    for step in ["sealed ", "submitted ", "leased ", "proved ", "logged ", "released ", "completed task "] {
        assert!(out.contains(step), "{step:?} is missing: {out}");
    }
    assert!(out.contains("(proven) SIMULATED"), "{out}");
    assert!(user.cli.path("out/report.csv").exists() && !user.cli.path("from-the-file").exists(), "-o wins");
    let quiet = user.run(&["run", "job.toml", "--quiet"]);
    assert!(quiet.exits(exit::OK).starts_with("completed task "), "results alone: {quiet:?}");
    assert!(user.cli.path("from-the-file/report.csv").exists());

    let done = user.json(&["run", "job.toml", "-o", "out-2"], exit::OK);
    has_keys(&done, &RUN_FIELDS);
    assert_eq!(
        (&done["state"], &done["verdict"], &done["simulated"]),
        (&"completed".into(), &"proven".into(), &true.into())
    );
    assert_eq!((&done["refusal"], &done["exit_code"]), (&Value::Null, &0.into()));
    assert!(done["fuel_used"].as_u64().unwrap() > 1000);
    for output in done["outputs"].as_array().unwrap() {
        has_keys(output, &["path", "bytes", "name"]);
        let path = user.cli.path(output["path"].as_str().unwrap());
        assert_eq!(path.metadata().unwrap().len(), output["bytes"].as_u64().unwrap());
    }

    // Collected tasks are still known by their ids.
    let task = done["task"].as_str().unwrap();
    let logs = user.json(&["logs", task], exit::OK);
    has_keys(&logs, &["task", "stdout", "stderr"]);
    assert_eq!(logs["stdout"].as_str().unwrap().as_bytes(), user.cli.read("out-2/stdout.txt"));
    assert!(user.run(&["logs", &task[..8]]).exits(exit::OK).starts_with("--- stdout\n"));
    let again = user.json(&["result", task], exit::OK);
    has_keys(&again, &RUN_FIELDS);
    assert_eq!((&again["task"], &again["state"]), (&done["task"], &"completed".into()));
    assert_eq!(again["collected"], text(&user.cli.path("out-2")));
    let status = user.json(&["status", task], exit::OK);
    has_keys(&status["tasks"][0], &["task", "state", "attempt", "node", "check", "collected"]);
    assert_eq!(status["tasks"][0]["state"], "completed");
    assert!(user.run(&["status", task]).exits(exit::OK).contains("out-2"));
    user.run(&["cancel", task]).fails(exit::UNUSABLE, "task.ended", "requester", "has ended");
    assert_eq!(user.open(), 0);

    // Logs that a later task wrote over are not passed off as this one's.
    user.run(&["run", "job.toml", "-o", "out-2"]).exits(exit::OK);
    user.run(&["logs", task]).fails(exit::UNUSABLE, "logs.overwritten", "requester", "out-2");
    std::fs::remove_dir_all(user.cli.path("out-2")).unwrap();
    user.run(&["logs", task]).fails(exit::UNUSABLE, "result.moved", "requester", "out-2");
    user.run(&["result", task]).fails(exit::UNUSABLE, "result.moved", "requester", "out-2");

    // A program that writes nothing has no logs, whatever lies in the directory.
    user.cli.write("out/stdout.txt", "of another time");
    let empty = example_path("empty/empty.wasm");
    let args = ["run", "--wasm", &empty, "-o", "out", "--accept-simulated", ROOT_NAME];
    let task = user.json(&args, exit::OK)["task"].as_str().unwrap().to_string();
    let logs = user.json(&["logs", &task], exit::OK);
    assert_eq!((&logs["stdout"], &logs["stderr"]), (&Value::Null, &Value::Null));
}

#[test]
fn a_failed_task_exits_1_and_says_whose_fault() {
    let network = Network::start(1);
    let user = User::of(&network);
    let trap = example_path("hostile/trap.wasm");
    let args = ["run", "--wasm", &trap, "-o", "out", "--accept-simulated", ROOT_NAME];
    let failed = user.json(&args, exit::REFUSED);
    has_keys(&failed, &RUN_FIELDS);
    assert_eq!((&failed["state"], &failed["verdict"]), (&"failed".into(), &"proven".into()));
    is_refusal(&failed["refusal"], "engine.wasm.trap", "workload", "");
    let task = failed["task"].as_str().unwrap();
    is_refusal(&user.json(&["result", task], exit::REFUSED)["refusal"], "engine.wasm.trap", "workload", "");
    let told = user.run(&args);
    let out = told.exits(exit::REFUSED);
    for line in ["\n  check   engine.wasm.trap\n", "\n  fault   workload\n", "\n  do      "] {
        assert!(out.contains(line), "{line:?}: {out}");
    }
    // What a program says before it gives up is shown, and steers no terminal.
    user.cli.write("says-why.wasm", wat::parse_str(SAYS_WHY).unwrap());
    let told = user.run(&["run", "--wasm", "says-why.wasm", "-o", "why", "--accept-simulated", ROOT_NAME]);
    let out = told.exits(exit::REFUSED);
    assert!(out.contains("\n  stderr  why\\u{1b}[2J\n  stderr  second\n"), "{out}");
    let long = user.json(
        &[
            "run",
            "--wasm",
            &example_path("runaway/runaway.wasm"),
            "--fuel",
            "1000000",
            "-o",
            "out",
            "--accept-simulated",
            ROOT_NAME,
        ],
        exit::REFUSED,
    );
    is_refusal(&long["refusal"], "engine.wasm.out-of-fuel", "requester", "");
}

#[test]
fn what_a_broker_holds_can_be_asked_for_cancelled_and_fetched() {
    // None is expected back after the start.
    let network = Network::with_limits(&[(&["waits", "broker_return_ms"], 0)]);
    let user = User::of(&network);
    let wasm = example_path("empty/empty.wasm");
    let submit = ["submit", "--detach", "--wasm", &wasm, "--accept-simulated", ROOT_NAME];
    user.run(&submit).fails(exit::UNREACHABLE, "broker.none", "broker", "no broker");
    user.run(&["submit", "--wasm", &wasm]).fails(exit::UNUSABLE, "submit.not-detached", "requester", "broker");
    let bad_key = [&submit[..], &["--broker", "123"]].concat();
    user.run(&bad_key).fails(exit::UNUSABLE, "broker.bad-key", "requester", "");
    assert_eq!(user.run(&["status"]).exits(exit::OK), "no task is open in this home\n");
    network.add_broker();

    // No node yet: the task waits.
    let task = user.submit(&["--wasm", &wasm, "-o", "out"]);
    let status = user.json(&["status"], exit::OK);
    has_keys(&status, &["tasks"]);
    let row = &status["tasks"][0];
    has_keys(row, &["task", "state", "attempt", "node", "check", "collected"]);
    assert_eq!((&row["task"], &row["state"], &row["attempt"]), (&task.as_str().into(), &"queued".into(), &Value::Null));
    assert!(user.run(&["status", &task[..6]]).exits(exit::OK).contains("0 before it in the queue"));
    user.run(&["logs", &task]).fails(exit::UNUSABLE, "task.running", "requester", "queued");
    let other = user.submit(&["--wasm", &wasm, "-o", "out-2"]);
    assert_eq!(user.open(), 2);
    let unknown = if task.starts_with('0') || other.starts_with('0') { "zz" } else { "0" };
    for command in ["status", "logs", "result", "cancel"] {
        user.run(&[command, unknown]).fails(exit::UNUSABLE, "task.unknown", "requester", unknown);
        user.run(&[command, unknown, "--json"]).fails_in_json(exit::UNUSABLE, "task.unknown", "requester", unknown);
        user.run(&[command, ""]).fails(exit::UNUSABLE, "task.ambiguous", "requester", "several");
    }

    let cancelled = user.json(&["cancel", &task[..12]], exit::OK);
    has_keys(&cancelled, &["task", "state"]);
    assert_eq!((&cancelled["task"], &cancelled["state"]), (&task.as_str().into(), &"cancelled".into()));
    let result = user.json(&["result", &task], exit::REFUSED);
    has_keys(&result, &RUN_FIELDS);
    assert_eq!((&result["state"], &result["outputs"]), (&"cancelled".into(), &Value::Array(Vec::new())));
    assert_ne!(result["verdict"], "refuted");

    // A node comes; the other task is done by it while nobody is there, and fetched.
    network.add_node("node1");
    let result = user.json(&["result", &other], exit::OK);
    assert_eq!((&result["state"], &result["verdict"]), (&"completed".into(), &"proven".into()));
    assert!(
        Path::new(result["receipt"].as_str().unwrap()).starts_with(user.cli.path("out-2")),
        "where submit was told"
    );
    let third = user.run(&submit);
    assert!(third.exits(exit::OK).contains("fetch it with: starminer result "), "{third:?}");
    let task = third.out.lines().find_map(|line| line.strip_prefix("task ")).unwrap().to_string();
    let fetched = user.run(&["result", &task, "-o", "elsewhere"]);
    assert!(fetched.exits(exit::OK).contains("completed task "), "{fetched:?}");
    assert!(user.cli.path("elsewhere").join(format!("{task}.receipt")).exists());
    assert_eq!(user.open(), 0);
}

#[test]
fn a_job_that_cannot_be_used_is_refused_before_anything_is_sent() {
    let network = Network::coordinator_only();
    let user = User::of(&network);
    let wasm = example_path("empty/empty.wasm");
    write_job(&user.cli, "good.toml", "");
    write_job(&user.cli, "unknown-field.toml", "[limits]\nfuell = 3");
    write_job(&user.cli, "wrong-type.toml", "[limits]\nfuel = \"much\"");
    user.cli.write("not.toml", "wasm = ");
    user.cli.write("long.toml", format!("wasm = \"{wasm}\"\n{}", "# more than is read\n".repeat(20_000)));
    user.cli.write("empty-file.wasm", "");
    std::fs::create_dir_all(user.cli.path("folder/inner")).unwrap();
    user.cli.write("no-program.toml", "inputs = []");
    user.cli.write("absent-program.toml", "wasm = \"absent.wasm\"");
    user.cli.write("absent-input.toml", format!("wasm = \"{wasm}\"\ninputs = [\"absent.csv\"]"));
    user.cli.write("tier.toml", format!("wasm = \"{wasm}\"\n[policy]\nminimum_tier = \"measured\""));
    let refused: &[(&[&str], &str, &str)] = &[
        (&["absent.toml"], "job.unusable-file", "absent.toml: No such file"),
        (&["unknown-field.toml"], "job.unusable-file", "unknown-field.toml: line 4, column 1: unknown field `fuell`"),
        (&["wrong-type.toml"], "job.unusable-file", "wrong-type.toml: line 4, column 8: invalid type"),
        (&["long.toml"], "job.unusable-file", "long.toml: more than 262144 bytes"),
        (&["not.toml"], "job.unusable-file", "not.toml: line 1, column"),
        (&["no-program.toml"], "job.no-workload", "wasm program or an ONNX model"),
        (&[], "job.no-workload", "wasm program or an ONNX model"),
        (&["b.csv"], "job.not-toml", "b.csv is given as the job file"),
        (&["-i", "good.toml"], "job.no-workload", "good.toml stands behind -i"),
        (&["good.toml", "-i", "folder"], "job.nested-input", "folder/inner is a folder"),
        (&["--wasm", "empty-file.wasm"], "job.not-wasm", "empty-file.wasm: it is empty"),
        (&["--wasm", "good.toml"], "job.not-wasm", "good.toml: it does not begin as wasm does"),
        (&["--onnx", "empty-file.wasm", "-i", "good.toml"], "job.not-onnx", "empty-file.wasm: it is empty"),
        (&["--onnx", &wasm, "-i", "good.toml"], "job.not-onnx", "it does not begin as an ONNX model does"),
        (
            &["good.toml", "--memory", "99999999999999999"],
            "job.bad-limit",
            "--memory (memory_mib) is 99999999999999999",
        ),
        (&["good.toml", "--memory", "0"], "job.bad-limit", "1 to 1048576 are possible"),
        (&["good.toml", "--timeout", "86401"], "job.bad-limit", "--timeout (timeout_seconds) is 86401 seconds"),
        (&["absent-program.toml"], "job.unreadable", "absent.wasm"),
        (&["absent-input.toml"], "job.no-input", "absent.csv"),
        (&["tier.toml"], "policy.consent-missing", ""),
        (&["good.toml", "--env", "NAME"], "job.bad-env", "NAME=VALUE"),
        (&["good.toml", "--accept-simulated", "nobody"], "policy.unknown-root", "nobody"),
        (&["--onnx", "m.onnx", "-i", "good.toml", "-i", "not.toml"], "job.onnx-inputs", "2 were given"),
    ];
    for (args, check, reason) in refused {
        let args = [&["run"], *args].concat();
        let said = user.run(&args);
        said.fails(exit::UNUSABLE, check, "requester", reason);
        assert!(!said.err.contains('?'), "no mangled characters: {}", said.err);
        user.run(&[&args[..], &["--json"]].concat()).fails_in_json(exit::UNUSABLE, check, "requester", reason);
    }
    // An output directory that cannot be: found before the job is sealed, not after it ran.
    user.cli.write("file", "");
    let said = user.run(&["run", "good.toml", "-o", "file/out"]);
    said.fails(exit::LOCAL, "output.unwritable", "requester", "file/out");
    assert_eq!(user.open(), 0, "nothing was sent");
}

#[test]
fn a_coordinator_that_is_away_or_another_is_named() {
    let network = Network::coordinator_only();
    let user = User::of(&network);
    network.add_broker();
    let wasm = example_path("empty/empty.wasm");
    let task = user.submit(&["--wasm", &wasm, "-o", "out"]);

    // Another key at the address: whoever answers is not who the trust file names.
    let mut trust = network.trust();
    trust.coordinator.key = starminer_verify::PublicKey([7; 32]);
    user.cli.write("other.toml", trust.encode().unwrap());
    let run = ["run", "--wasm", &wasm, "--accept-simulated", ROOT_NAME, "-o", "out"];
    let other = [&run[..], &["--network", "other.toml"]].concat();
    user.run(&other).fails(exit::UNREACHABLE, "tls.peer.wrong-identity", "network", &network.address);

    user.network.kill("coordinator");
    for args in [&run[..], &["status"], &["result", &task], &["cancel", &task]] {
        let said = user.run(args);
        said.fails(exit::UNREACHABLE, "coordinator.unreachable", "coordinator", &network.address);
    }
    let said = user.run(&["result", &task, "--json"]);
    said.fails_in_json(exit::UNREACHABLE, "coordinator.unreachable", "coordinator", &network.address);
    network.start_process("coordinator");
    assert_eq!(user.open(), 1, "a task that could not be sent left nothing behind");
    assert_eq!(user.json(&["status", &task], exit::OK)["tasks"][0]["state"], "queued", "nothing was lost");
}

#[test]
fn who_waits_is_told_why_and_may_stop_waiting() {
    let network = Network::start(1);
    let user = User::of(&network);
    let wasm = example_path("empty/empty.wasm");
    let mut command = user.cli.command(["run", "--wasm", &wasm, "-o", "out"]);
    let mut child = command.env("STARMINER_HOME", &user.home).spawn().unwrap();
    // Its first lines come before it waits, without end, for a node that its policy accepts.
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let note: Vec<String> = lines.by_ref().take(3).collect();
    assert!(note[0].starts_with("note: no node of this network meets the policy"), "{note:?}");
    assert_eq!(note[1], "  1 of tier confidential, simulated");
    assert!(
        note[2].starts_with("  do ") && note[2].ends_with(&format!("--accept-simulated '{ROOT_NAME}'")),
        "{note:?}"
    );
    // Not before the coordinator's answer is here, and not only its task there.
    let mut story = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(story.any(|line| line.trim_start().starts_with("submitted")));
    assert_eq!(user.open(), 1);
    let kill = format!("kill -INT {}", child.id());
    assert!(std::process::Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let said: Vec<String> = lines.collect();
    assert!(said[0].starts_with("error: asked to stop"), "{said:?}");
    // What it tells to do works when it is pasted.
    let (_, told) = said.last().unwrap().rsplit_once("; `").unwrap();
    let cancel = told.split_once('`').unwrap().0.strip_prefix("starminer ").unwrap();
    let script = format!("\"$0\" {cancel}");
    let mut shell = std::process::Command::new("sh");
    let output = shell.args(["-c", &script, crate::support::program()]).output().unwrap();
    assert!(output.status.success(), "{cancel}: {output:?}");
}

#[test]
fn several_inputs_after_one_option_are_all_inputs() {
    let network = Network::start(1);
    let user = User::of(&network);
    user.cli.write("a.txt", "one two");
    user.cli.write("b\x1b[2J.txt", "three");
    let wasm = example_path("wordcount/wordcount.wasm");
    let args = ["run", "--wasm", &wasm, "-i", "a.txt", "b\x1b[2J.txt", "-o", "out", "--accept-simulated", ROOT_NAME];
    let told = user.run(&args);
    let out = told.exits(exit::OK);
    assert!(out.contains("a.txt: 7 B") && out.contains("b\\u{1b}[2J.txt: 5 B"), "{out}");
}
