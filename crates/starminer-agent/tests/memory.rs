//! What is in the agent's memory: searched by its parent, while a task runs and after tasks have ended.
//!
//! The node is a process of its own, so that the requester's plaintext, which this program has, is not found in it. Started
//! with `--node` the program is that node. Nothing that must stay secret may be found; what the agent does know has to
//! be found, or the search would be blind.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;

use data_encoding::{BASE64, HEXLOWER};
use starminer_agent::testing::serve;
use starminer_receipt::Outcome;
use support::coordinator::{Coordinator, Grants, Line, parts};
use support::{Job, World, example};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("--node") => node(Path::new(&arguments[2]), Path::new(&arguments[3])),
        // What test runners ask.
        Some("--list") => {}
        _ => {
            the_agent_never_holds_plaintext_or_keys();
            println!("test the_agent_never_holds_plaintext_or_keys ... ok");
        }
    }
    ExitCode::SUCCESS
}

fn node(socket: &Path, data_dir: &Path) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let parts = parts(&World::new(), Line::Socket(socket.into()), data_dir, 2);
    // Until it is killed.
    runtime.block_on(serve(parts, std::future::pending())).unwrap();
}

struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn the_agent_never_holds_plaintext_or_keys() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("coordinator");
    let data_dir = dir.path().join("data");
    std::fs::create_dir(&data_dir).unwrap();
    let coordinator = Coordinator::new();
    coordinator.listen(&socket);
    let program = std::env::current_exe().unwrap();
    let node = Killed(Command::new(program).arg("--node").arg(&socket).arg(&data_dir).spawn().unwrap());
    let memory = || Memory::of(node.0.id());

    let canary = "CANARY-7b1d5e-of-an-input";
    let text = format!("{canary} and more words\n").repeat(3000);
    let wordcount = Job::wasm(example("wordcount/wordcount.wasm")).input("secret-name-4411.txt", text.into_bytes());
    let job = Arc::new(coordinator.world.seal(&wordcount));
    let name = coordinator.lease(Arc::clone(&job), 1, Grants::AtOnce);
    let result = coordinator.open(name);
    assert_eq!(result.report.predicate.outcome, Outcome::Completed);
    let output = String::from_utf8(result.file("top-words.txt").to_vec()).unwrap();
    let module = &wordcount.workload[20_000..20_048];

    // A second task, whose process is alive while the memory is searched.
    let mut endless = Job::wasm(example("runaway/runaway.wasm"));
    endless.limits.fuel = u64::MAX / 2;
    endless.limits.wall_limit_ms = 4_000;
    let running = Arc::new(coordinator.world.seal(&endless));
    let running_name = coordinator.lease(Arc::clone(&running), 1, Grants::AtOnce);
    coordinator.wait_evidence(running_name);
    std::thread::sleep(std::time::Duration::from_millis(500));

    let mut secrets: Vec<(String, Vec<u8>)> = vec![
        ("the input".into(), canary.into()),
        ("the name of an input".into(), b"secret-name-4411".to_vec()),
        ("the output".into(), output.lines().nth(1).unwrap().into()),
        ("the name of an output".into(), b"top-words.txt".to_vec()),
        ("the module".into(), module.to_vec()),
        ("the running module".into(), endless.workload[300..340].to_vec()),
    ];
    for (what, secret) in
        [("the task secret", job.secret.expose()), ("the running task's secret", running.secret.expose())]
    {
        secrets.push((what.into(), secret.to_vec()));
        secrets.push((format!("{what} in hexadecimal"), HEXLOWER.encode(secret).into_bytes()));
        secrets.push((format!("{what} in base64"), BASE64.encode(secret).into_bytes()));
    }
    let known = format!("{}", coordinator.world.node);
    for round in ["while a task runs", "after the tasks"] {
        let memory = memory();
        assert!(memory.holds(known.as_bytes()), "the search is blind: the node's own name was not found");
        for (what, secret) in &secrets {
            assert!(!memory.holds(secret), "{what} is in the agent's memory {round}");
        }
        if round == "while a task runs" {
            coordinator.open(running_name);
        }
    }
    for entry in walk(&data_dir) {
        let bytes = std::fs::read(&entry).unwrap();
        for (what, secret) in &secrets {
            assert!(!contains(&bytes, secret), "{what} is in {}", entry.display());
        }
    }
}

fn walk(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(walk(&path)) } else { found.push(path) }
    }
    found
}

/// Every readable and writable page of a process.
struct Memory(Vec<Vec<u8>>);

impl Memory {
    fn of(pid: u32) -> Self {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        let mut memory = std::fs::File::open(format!("/proc/{pid}/mem")).unwrap();
        let mut regions = Vec::new();
        for line in maps.lines() {
            let mut columns = line.split_ascii_whitespace();
            let (Some(range), Some(rights)) = (columns.next(), columns.next()) else { continue };
            // What was only mapped from the program's file was there before any task.
            if !rights.starts_with("rw") {
                continue;
            }
            let (start, end) = range.split_once('-').unwrap();
            let (start, end) = (u64::from_str_radix(start, 16).unwrap(), u64::from_str_radix(end, 16).unwrap());
            let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
            let read = memory.seek(SeekFrom::Start(start)).and_then(|_| memory.read_exact(&mut bytes));
            if read.is_ok() {
                regions.push(bytes);
            }
        }
        assert!(regions.iter().map(Vec::len).sum::<usize>() > 1 << 20, "hardly any memory could be read");
        Self(regions)
    }

    fn holds(&self, needle: &[u8]) -> bool {
        self.0.iter().any(|region| contains(region, needle))
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    let first = needle[0];
    let last = haystack.len().saturating_sub(needle.len() - 1);
    haystack[..last].iter().enumerate().any(|(at, byte)| *byte == first && haystack[at..at + needle.len()] == *needle)
}
