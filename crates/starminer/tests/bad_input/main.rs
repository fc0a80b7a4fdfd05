//! What bad input gets over a real network: a clear refusal with a stable code, and where a task was taken, a receipt that verifies;
//! nothing lost, nothing leaked, no panic.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;

mod bodies;
mod clocks;
mod homes;
mod leases;
mod programs;
mod statements;
mod storage;

use starminer_client::ClientError;
use starminer_receipt::{EntryKind, LogEntry, Outcome, Overall, Receipt};
use starminer_requester::TaskOutcome;
use starminer_verify::Party;

/// The code of a refusal by the coordinator.
#[track_caller]
fn code<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> String {
    match answer {
        Err(ClientError::Refused { refusal, .. }) => {
            assert!(!refusal.reason().is_empty() && !refusal.remedy().is_empty());
            refusal.check().to_owned()
        }
        other => panic!("not refused: {other:?}"),
    }
}

/// The task's entries of this kind in the log.
fn entries(outcome: &TaskOutcome, kind: EntryKind) -> Vec<LogEntry> {
    let receipt = Receipt::parse(&std::fs::read(&outcome.receipt_path).unwrap()).unwrap();
    let entries = receipt.entries.iter().map(|entry| LogEntry::parse(&entry.entry.0).unwrap());
    entries.filter(|entry| entry.kind == kind).collect()
}

#[track_caller]
fn proven(outcome: &TaskOutcome) {
    assert_eq!(outcome.verdict.overall(), Overall::Proven, "{:#?}", outcome.verdict.claims);
    // A node may have reported that it gave an earlier attempt up.
    let mut reports = entries(outcome, EntryKind::Reported);
    reports.retain(|report| report.attempt.is_none() || report.attempt == outcome.view.attempt);
    assert_eq!(reports.len(), 1, "it ended once: {reports:?}");
}

/// The task failed by this party and check, with a remedy, and its receipt verifies.
#[track_caller]
fn failed(outcome: &TaskOutcome, party: Party, check: &str) {
    let Some(Outcome::Failed { refusal }) = &outcome.outcome else { panic!("{:?}", outcome.outcome) };
    assert_eq!((refusal.party(), refusal.check()), (party, check), "{}", refusal.reason());
    assert!(!refusal.reason().is_empty() && !refusal.remedy().is_empty());
    proven(outcome);
}

/// The task completed, and its receipt verifies.
#[track_caller]
fn completed(outcome: &TaskOutcome) {
    assert_eq!(outcome.outcome, Some(Outcome::Completed));
    proven(outcome);
}
