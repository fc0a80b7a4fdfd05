//! Root on a node's host mounts a folder over its job storage while a task runs, weakens mount options, attaches a debugger, or puts a copy over what the agent reads: out of routing at once, the
//! task completes elsewhere, the log says why (`node.posture-…`), and once that is mended the node takes tasks again.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use starminer_receipt::{EntryKind, LogEntry};
use starminer_wire::TaskState;

use crate::support::guests::counts_then_writes;
use crate::support::watching::{admitted, completed, log, suspensions};
use crate::support::{Network, example, runtime};

/// Something mounted, until it is dropped.
struct Mounted {
    on: PathBuf,
}

impl Mounted {
    /// `None`, said loudly, where that is not allowed.
    fn new(args: &[&str], on: &Path) -> Option<Self> {
        std::fs::create_dir_all(on).unwrap();
        if mount(args, on) {
            return Some(Self { on: on.into() });
        }
        eprintln!("SKIPPED: only root can mount anything over job storage");
        None
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.on).status();
    }
}

fn mount(args: &[&str], on: &Path) -> bool {
    Command::new("mount").args(args).arg(on).output().is_ok_and(|output| output.status.success())
}

/// A debugger at a process, until it is dropped.
struct Debugger(Child);

impl Debugger {
    fn attach(process: u32) -> Option<Self> {
        let strace =
            Command::new("strace").args(["-o", "/dev/null", "-p", &process.to_string()]).stderr(Stdio::null()).spawn();
        match strace {
            Ok(strace) => Some(Self(strace)),
            Err(_) => {
                eprintln!("SKIPPED: strace is not installed, and no debugger is attached");
                None
            }
        }
    }
}

impl Drop for Debugger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_folder_over_job_storage_ends_the_task_there_and_not_elsewhere() {
    let network = Network::start(1);
    network.init_node("node2");
    let (data, foreign) = (network.path("node1").join("data"), network.path("foreign"));
    std::fs::create_dir(&foreign).unwrap();
    runtime().block_on(async {
        let requester = network.requester("requester");
        let out = |name: &str| network.path("requester").join(name);
        let client = requester.client();
        let job = network.wasm_job(counts_then_writes(1_500_000_000, 1), &[]);
        let task = requester.submit(&job, None, None).await.unwrap();
        tokio::task::block_in_place(|| network.wait_guest_runs("node1"));

        let Some(over) = Mounted::new(&["--bind", foreign.to_str().unwrap()], &data) else { return };
        let took = admitted(client, 0).await;
        eprintln!("mounted over job storage while a task ran: out of routing after {} ms", took.as_millis());
        tokio::task::block_in_place(|| {
            network.wait_until("the end of the guest", || !network.guest_runs("node1"));
            network.start_process("node2");
        });
        let view = requester.wait(&task).await.unwrap();
        assert_eq!((view.state, view.attempt.unwrap().0), (TaskState::Completed, 2));
        completed(&requester.collect(view, &out("elsewhere")).await.unwrap());
        let entries = log(&network, client).await;
        assert_eq!(suspensions(&entries), ["node.posture-job_storage_unshadowed"]);
        let suspended = entries.iter().find(|entry| entry.kind == EntryKind::Suspended).unwrap();
        let ends = |entry: &&LogEntry| matches!(entry.kind, EntryKind::Expired | EntryKind::Reported);
        let ended: Vec<_> = entries.iter().filter(ends).filter(|entry| entry.task == Some(task)).collect();
        assert_eq!(ended.len(), 2, "{ended:?}");
        assert_eq!(ended[0].node, suspended.node);
        assert_ne!(ended[1].node, suspended.node);

        // Mended, and alone again, it takes the next task.
        drop(over);
        admitted(client, 2).await;
        network.kill("node2");
        let job = network.wasm_job(example("wordcount/wordcount.wasm"), &[("a.txt", b"words".to_vec())]);
        let next = requester.run(&job, &out("next")).await.unwrap();
        completed(&next);
        let pseudonym = next.verdict.node.map(|node| LogEntry::node_pseudonym(&network.trust().network, &node));
        assert_eq!(pseudonym, suspended.node);
    });
}

#[test]
fn weakened_mount_options_and_a_debugger_take_an_idle_node_out() {
    let network = Network::coordinator_only();
    network.init_node("node1");
    let data = network.path("node1").join("data");
    let tmpfs = ["-t", "tmpfs", "-o", "size=64m,mode=700,nodev,nosuid,noexec", "tmpfs"];
    let Some(_storage) = Mounted::new(&tmpfs, &data) else { return };
    network.start_process("node1");
    runtime().block_on(async {
        let requester = network.requester("requester");
        let client = requester.client();
        admitted(client, 1).await;
        assert!(mount(&["-o", "remount,bind,nodev,nosuid,exec"], &data));
        let took = admitted(client, 0).await;
        eprintln!("mount options weakened: out of routing after {} ms", took.as_millis());
        assert!(mount(&["-o", "remount,bind,nodev,nosuid,noexec"], &data));
        let took = admitted(client, 1).await;
        eprintln!("mended: back after {} ms", took.as_millis());

        let mut expected = vec!["node.posture-job_storage_locked".to_owned()];
        if let Some(debugger) = Debugger::attach(network.pid("node1")) {
            let took = admitted(client, 0).await;
            eprintln!("a debugger attached: out of routing after {} ms", took.as_millis());
            drop(debugger);
            admitted(client, 1).await;
            expected.push("node.posture-not_traced".into());
        }
        assert_eq!(suspensions(&log(&network, client).await), expected);

        // The agent's own view of what is mounted, in a copy that will not change any more.
        let seen = Path::new("/proc").join(network.pid("node1").to_string()).join("mountinfo");
        let copy = network.path("mountinfo");
        std::fs::write(&copy, std::fs::read(&seen).unwrap()).unwrap();
        assert!(mount(&["--bind", copy.to_str().unwrap()], &seen));
        let blinded = Mounted { on: seen };
        let took = admitted(client, 0).await;
        eprintln!("a copy over the list of mounts: out of routing after {} ms", took.as_millis());
        drop(blinded);
        admitted(client, 1).await;
        let why = suspensions(&log(&network, client).await);
        let why = why.strip_prefix(expected.as_slice()).unwrap_or_else(|| panic!("{why:?}"));
        assert!(why.len() == 1 && why[0].starts_with("node.posture-job_storage_"), "{why:?}");
        let job = network.wasm_job(example("wordcount/wordcount.wasm"), &[("a.txt", b"words".to_vec())]);
        completed(&requester.run(&job, &network.path("requester").join("out")).await.unwrap());
    });
}
