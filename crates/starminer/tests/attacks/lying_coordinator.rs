//! A coordinator swaps evidence, node, key, agent or log entry: no key is released, and the refusal names what it did.

use std::time::Duration;

use crate::evil::{Evil, Lie};
use crate::support::runtime;

/// Runs a task against a coordinator that lies; tells whether the key went out, and what was refused.
async fn attempt(lie: Lie) -> (bool, Vec<String>) {
    let evil = Evil::start(lie).await;
    let dir = tempfile::tempdir().unwrap();
    let requester = evil.requester(dir.path());
    let task = requester.submit(&evil.job(), None, None).await.unwrap();
    for _ in 0..500 {
        tokio::select! {
            stopped = requester.wait(&task) => {
                let refusal = stopped.unwrap_err().to_string();
                return (evil.granted(&task), vec![refusal]);
            }
            () = tokio::time::sleep(Duration::from_millis(10)) => {}
        }
        if evil.granted(&task) || !evil.denied(&task).is_empty() {
            break;
        }
    }
    (evil.granted(&task), evil.denied(&task))
}

fn check(lie: Lie, expected: &str) {
    let (granted, refused) = runtime().block_on(attempt(lie));
    assert!(!granted, "{lie:?}: the key went out");
    assert!(refused.iter().any(|reason| reason.contains(expected)), "{lie:?}: {refused:?}");
}

#[test]
fn the_honest_control_gets_the_key() {
    let (granted, refused) = runtime().block_on(attempt(Lie::None));
    assert!(granted, "{refused:?}");
}

#[test]
fn evidence_under_its_own_root() {
    check(Lie::OwnRoot, "evidence.root-unknown");
}

#[test]
fn evidence_for_another_challenge() {
    check(Lie::OldChallenge, "evidence.challenge");
}

#[test]
fn evidence_of_another_node() {
    check(Lie::OtherNode, "evidence.node");
}

#[test]
fn evidence_for_another_spec() {
    check(Lie::OtherSpec, "evidence.spec");
}

#[test]
fn its_own_task_key_in_honest_evidence() {
    check(Lie::OwnTaskKey, "evidence.report-data");
}

#[test]
fn an_agent_that_nobody_knows() {
    check(Lie::OtherAgent, "device.measurement");
}

#[test]
fn a_release_that_is_not_in_the_log() {
    check(Lie::NotLogged, "release.not-logged");
}

#[test]
fn a_checkpoint_by_another_key() {
    check(Lie::ForgedCheckpoint, "log.checkpoint-unsigned");
}
