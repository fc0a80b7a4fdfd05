//! A coordinator swaps evidence, node, key, agent or log entry: no key is released, and the refusal names what it did. It swaps the
//! result or its log entry: refuted or refused, and nothing of it is written.

use std::time::Duration;

use starminer_receipt::{ClaimVerdict, Overall};
use starminer_requester::TaskOutcome;

use crate::evil::{Evil, Lie};
use crate::support::{files_below, runtime, text};

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

/// Runs two tasks; what the requester makes of the second, and the files of it besides the receipt.
fn second_result(lie: Lie) -> (Result<TaskOutcome, String>, Vec<String>) {
    runtime().block_on(async {
        let evil = Evil::start(lie).await;
        let dir = tempfile::tempdir().unwrap();
        let requester = evil.requester(dir.path());
        let (first, second) = (dir.path().join("first"), dir.path().join("second"));
        let outcome = requester.run(&evil.job(), &first).await;
        if lie != Lie::LaterReport {
            assert_eq!(outcome.unwrap().verdict.overall(), Overall::Proven, "{lie:?}: the first task is told honestly");
        }
        let outcome = requester.run(&evil.job(), &second).await.map_err(|error| error.to_string());
        // The receipt, and the list of what was placed, are no outputs.
        let is_output = |file: &String| !file.ends_with(".receipt") && !file.ends_with("/.starminer-results");
        let written = files_below(&[second]).into_iter().map(|file| text(&file)).filter(is_output);
        (outcome, written.collect())
    })
}

fn refuted(lie: Lie, claim: &str) {
    let (outcome, written) = second_result(lie);
    let claims = outcome.unwrap().verdict.claims;
    let refuted = claims.iter().any(|found| found.name == claim && found.verdict == ClaimVerdict::Refuted);
    assert!(refuted, "{lie:?}: {claims:#?}");
    assert!(written.is_empty(), "{lie:?}: {written:?}");
}

fn not_taken(lie: Lie, expected: &str) {
    let (outcome, written) = second_result(lie);
    let refusal = outcome.unwrap_err();
    assert!(refusal.contains(expected), "{lie:?}: {refusal}");
    assert!(written.is_empty(), "{lie:?}: {written:?}");
}

#[test]
fn the_honest_control_brings_the_result() {
    let (outcome, written) = second_result(Lie::HonestEnd);
    let outcome = outcome.unwrap();
    assert_eq!(outcome.verdict.overall(), Overall::Proven, "{:#?}", outcome.verdict.claims);
    assert_eq!(written.len(), 1, "{written:?}");
}

#[test]
fn the_report_of_another_task() {
    refuted(Lie::OtherReport, "report");
}

#[test]
fn everything_of_another_task() {
    not_taken(Lie::OtherReceipt, "result.other-task");
}

#[test]
fn the_output_of_another_task() {
    not_taken(Lie::OtherOutput, "not the one");
}

#[test]
fn the_log_entry_of_another_task() {
    refuted(Lie::OtherEntry, "log");
}

#[test]
fn a_log_entry_of_another_statement() {
    refuted(Lie::AlteredEntry, "log");
}

#[test]
fn a_result_whose_entry_is_left_out() {
    refuted(Lie::NoEntry, "report-logged");
}

#[test]
fn a_result_that_was_exchanged_after_it_was_logged() {
    refuted(Lie::LaterReport, "report-logged");
}

#[test]
fn a_receipt_under_a_checkpoint_by_another_key() {
    refuted(Lie::ForgedReceiptCheckpoint, "log");
}
