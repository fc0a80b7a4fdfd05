//! Root searches the memory of the node's supervisor after a task for its plaintext and secrets: finds nothing. (Root may always read the
//! task process itself while it runs, unless hardware forbids it.)

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;

use starminer_receipt::Outcome;

use crate::support::{Network, example, runtime};

const CANARY: &[u8] = b"CANARY-memory-forty-two-otters";

/// Every readable private page of a process; `None` where this user may not read it.
fn memory_of(pid: u32) -> Option<Vec<u8>> {
    let memory = File::open(format!("/proc/{pid}/mem")).ok()?;
    let mut maps = String::new();
    File::open(format!("/proc/{pid}/maps")).ok()?.read_to_string(&mut maps).ok()?;
    let mut all = Vec::new();
    for line in maps.lines() {
        let mut fields = line.split_whitespace();
        let (range, rights) = (fields.next()?, fields.next()?);
        // Writable: heap, stacks, data. What is mapped from the program's own file holds no secret.
        if !rights.starts_with("rw") {
            continue;
        }
        let (from, to) = range.split_once('-')?;
        let (from, to) = (u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?);
        let mut part = vec![0; usize::try_from(to - from).ok()?];
        if memory.read_exact_at(&mut part, from).is_ok() {
            all.extend_from_slice(&part);
        }
    }
    Some(all)
}

#[test]
fn the_supervisor_never_held_it() {
    let network = Network::start(1);
    let pid = network.pid("node1");
    if memory_of(pid).is_none_or(|memory| memory.is_empty()) {
        eprintln!("SKIPPED: this user may not read another process's memory (which is as it should be)");
        return;
    }
    runtime().block_on(async {
        let requester = network.requester("requester");
        let notes = [CANARY, b" words\n"].concat().repeat(500);
        let job = network.wasm_job(example("wordcount/wordcount.wasm"), &[("notes.txt", notes)]);
        let task = requester.submit(&job, None, None).await.unwrap();
        let secrets = requester.secrets_to_search_for(&task);
        let view = requester.wait(&task).await.unwrap();
        let outcome = requester.collect(view, &network.path("requester").join("out")).await.unwrap();
        assert_eq!(outcome.outcome, Some(Outcome::Completed));

        let memory = memory_of(pid).unwrap();
        let found = |needle: &[u8]| memory.windows(needle.len()).any(|window| window == needle);
        let task_bytes = task.0;
        assert!(found(&task_bytes), "the control: the supervisor does know the task's id");
        assert!(!found(CANARY), "plaintext of the input");
        assert!(!found(&CANARY.to_ascii_lowercase()), "plaintext of the output");
        let module = example("wordcount/wordcount.wasm");
        assert!(!found(&module[module.len() / 2..module.len() / 2 + 48]), "the program");
        for secret in secrets {
            assert!(!found(&secret), "a secret of the task");
        }
    });
}
