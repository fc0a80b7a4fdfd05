//! The operator of a node puts an older checkpoint, or another task's, or nothing in the place of the one that the node has acknowledged: the task process refuses
//! it (`checkpoint.rolled-back`, `.key`, `.missing`), the log says so of that node, and another one begins the task anew.

use std::path::{Path, PathBuf};
use std::time::Duration;

use starminer_client::CoordinatorClient;
use starminer_receipt::{EntryKind, LogEntry, Outcome, Overall};
use starminer_requester::JobPlan;
use starminer_verify::TaskId;

use crate::support::primes::primes_job;
use crate::support::watching::log;
use crate::support::{Network, runtime};

const PATIENCE: Duration = Duration::from_secs(60);
/// Many commits, and long enough for two lives of a node.
const LIMIT: u64 = 6_000_000;
const STEP: u64 = 10_000;

fn job(network: &Network) -> JobPlan {
    let mut job = primes_job(network, LIMIT, STEP);
    // The node that refuses it gets it again at once, until another one is there.
    job.max_attempts = 100;
    job
}

/// The entries of a task.
async fn entries(network: &Network, client: &CoordinatorClient, task: TaskId) -> Vec<LogEntry> {
    let mut entries = log(network, client).await;
    entries.retain(|entry| entry.task == Some(task));
    entries
}

/// Waits until an attempt has had so many checkpoints acknowledged.
async fn acknowledged(network: &Network, client: &CoordinatorClient, task: TaskId, attempt: u32, count: usize) {
    let until = std::time::Instant::now() + PATIENCE;
    loop {
        let entries = entries(network, client, task).await;
        let of_attempt = |entry: &&LogEntry| entry.attempt.is_some_and(|found| found.0 == attempt);
        let found = entries.iter().filter(|entry| entry.kind == EntryKind::Checkpointed).filter(of_attempt).count();
        if found >= count {
            return;
        }
        assert!(
            std::time::Instant::now() < until,
            "waited in vain for checkpoint {count} of attempt {attempt}: {entries:?}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn state_of(network: &Network, task: TaskId) -> PathBuf {
    network.path("node1").join("data/states").join(format!("{task}.state"))
}

/// Has a task of `node1` acknowledge checkpoints, does something to the disk of the node while it is off, and sees that refused and the task done elsewhere.
/// Where nobody else is there, the node that has lost a checkpoint is asked all the same.
fn refused(code: &str, alone: bool, deed: impl Fn(&Path, &[u8], &Path)) {
    let network = Network::start(1);
    network.init_node("node2");
    runtime().block_on(async {
        let requester = network.requester("requester");
        let client = requester.client();
        let [task, other] =
            [requester.submit(&job(&network), None, None).await, requester.submit(&job(&network), None, None).await]
                .map(Result::unwrap);
        acknowledged(&network, client, task, 1, 1).await;
        acknowledged(&network, client, other, 1, 1).await;
        network.kill("node1");
        let old = std::fs::read(state_of(&network, task)).unwrap();
        tokio::task::block_in_place(|| network.start_process("node1"));
        acknowledged(&network, client, task, 2, 1).await;
        network.kill("node1");
        deed(&state_of(&network, task), &old, &state_of(&network, other));
        if alone {
            tokio::task::block_in_place(|| network.start_process("node1"));
            let until = std::time::Instant::now() + PATIENCE;
            while !entries(&network, client, task).await.iter().any(|entry| entry.kind == EntryKind::Reported) {
                assert!(std::time::Instant::now() < until, "waited in vain for a refusal");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            tokio::task::block_in_place(|| network.start_process("node2"));
        } else {
            tokio::task::block_in_place(|| {
                network.start_process("node2");
                network.start_process("node1");
            });
        }

        let view = requester.wait(&task).await.unwrap();
        let out = network.path("requester").join("out");
        let outcome = requester.collect(view, &out).await.unwrap();
        assert_eq!(outcome.outcome, Some(Outcome::Completed));
        assert_eq!(outcome.verdict.overall(), Overall::Proven, "{:#?}", outcome.verdict.claims);
        let resume = outcome.verdict.claims.iter().find(|claim| claim.name == "resume").unwrap();
        assert!(resume.statement.contains("began anew"), "{}", resume.statement);
        assert_eq!(std::fs::read_to_string(out.join("entries.txt")).unwrap().trim(), "1");

        let entries = entries(&network, client, task).await;
        let node1 = entries.iter().find(|entry| entry.kind == EntryKind::Leased).unwrap().node;
        let refusals: Vec<_> =
            entries.iter().filter(|entry| entry.kind == EntryKind::Reported && !entry.ends).collect();
        assert!(refusals.len() == 1 || alone && refusals.len() > 1, "{refusals:?}");
        for refusal in refusals {
            assert_eq!((refusal.why.as_deref(), refusal.node), (Some(code), node1));
        }
        let end = entries.last().unwrap();
        assert!(end.kind == EntryKind::Reported && end.why.is_none() && end.node != node1, "{end:?}");
    });
}

#[test]
fn an_older_checkpoint_put_back_is_refused_and_logged() {
    refused("checkpoint.rolled-back", false, |place, old, _| std::fs::write(place, old).unwrap());
}

#[test]
fn another_tasks_checkpoint_is_refused_and_logged() {
    refused("checkpoint.key", false, |place, _, other| {
        std::fs::copy(other, place).unwrap();
    });
}

#[test]
fn a_checkpoint_that_is_gone_is_missed_and_logged() {
    refused("checkpoint.missing", true, |place, _, _| std::fs::remove_file(place).unwrap());
}

#[test]
fn a_damaged_checkpoint_is_refused_and_logged() {
    refused("checkpoint.damaged", false, |place, _, _| {
        let mut bytes = std::fs::read(place).unwrap();
        // Behind the superblocks, so that what is damaged is what they vouch for.
        bytes[2 << 16..].iter_mut().for_each(|byte| *byte ^= 1);
        std::fs::write(place, bytes).unwrap();
    });
}
