//! Task processes that die at every step: the agent says so in their place, and the next attempt completes.
//!
//! One test, in a program of its own: it kills every task process that it can find among its children.

#![allow(clippy::unwrap_used)]

mod support;

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use starminer_agent::testing::serve;
use starminer_receipt::Outcome;
use starminer_verify::Party;
use support::coordinator::{Coordinator, Grants, Line, parts};
use support::{Job, example};

/// Process ids of this process's task processes.
fn task_processes() -> Vec<u32> {
    let own = std::process::id().to_string();
    let stat_of = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let pids = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid| {
        let stat = stat_of(*pid);
        let Some((before, after)) = stat.rsplit_once(") ") else { return false };
        let mut fields = after.split(' ');
        let alive = fields.next() != Some("Z");
        alive && before.ends_with("(starminer-task") && fields.next() == Some(&own)
    })
    .collect()
}

fn kill_all() {
    let found = task_processes();
    assert!(!found.is_empty(), "there are no task processes");
    for pid in found {
        // It may have ended by itself since.
        let _ = Command::new("kill").arg("-KILL").arg(pid.to_string()).output();
    }
}

/// A moment in the life of a task at which its process is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// It has no task yet.
    Waiting,
    /// Its keys are attested, and it waits for the grant.
    Keyed,
    /// The guest runs.
    Running,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_is_reported_and_the_next_attempt_completes() {
    let coordinator = Coordinator::new();
    let dir = tempfile::tempdir().unwrap();
    let parts = parts(&coordinator.world, Line::Direct(Arc::clone(&coordinator)), dir.path(), 2);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let node = tokio::spawn(async move {
        serve(parts, async {
            let _ = stopped.await;
        })
        .await
        .unwrap();
    });

    let cases = [
        (Moment::Waiting, None),
        (Moment::Keyed, Some((Party::Node, "node.killed"))),
        (Moment::Running, Some((Party::Node, "node.killed"))),
    ];
    for (moment, expect) in cases {
        let coordinator = Arc::clone(&coordinator);
        let case = move || {
            if moment == Moment::Waiting {
                let until = Instant::now() + Duration::from_secs(20);
                while task_processes().is_empty() && Instant::now() < until {
                    std::thread::sleep(Duration::from_millis(20));
                }
                kill_all();
            }
            let mut endless = Job::wasm(example("runaway/runaway.wasm"));
            endless.limits.fuel = u64::MAX / 2;
            // The second attempt of the very same task ends by its wall limit, with the process's own report.
            endless.limits.wall_limit_ms = 2_000;
            let job = Arc::new(coordinator.world.seal(&endless));
            let first = coordinator.lease(Arc::clone(&job), 1, Grants::ByHand);
            coordinator.wait_evidence(first);
            if moment == Moment::Keyed {
                kill_all();
            } else {
                coordinator.grant(first);
            }
            if moment == Moment::Running {
                std::thread::sleep(Duration::from_millis(600));
                kill_all();
            }
            match expect {
                Some((party, check)) => {
                    let refusal = coordinator.refusal(first);
                    assert_eq!((refusal.party(), refusal.check()), (party, check), "{moment:?}");
                    let second = coordinator.lease(job, 2, Grants::AtOnce);
                    let result = coordinator.open(second);
                    let Outcome::Failed { refusal } = result.report.predicate.outcome else { panic!("completed") };
                    assert_eq!(refusal.check(), "limits.wall-time");
                }
                None => {
                    coordinator.open(first);
                }
            }
        };
        tokio::task::spawn_blocking(case).await.unwrap();
    }
    assert_eq!(std::fs::read_dir(dir.path().join("jobs")).unwrap().count(), 0, "something was left on the disk");
    let _ = stop.send(());
    node.await.unwrap();
    // Those that nobody took are gone when the node says so; of a task that was given up it may take a moment longer.
    let until = Instant::now() + Duration::from_secs(2);
    while !task_processes().is_empty() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(task_processes().is_empty(), "task processes outlived their node");
}
