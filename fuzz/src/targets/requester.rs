//! Targets of `starminer-requester`: its own journal after a crash, and what a node says of its outputs.

use std::cell::RefCell;
use std::fs;
use std::path::Component;
use std::sync::OnceLock;

use starminer_receipt::{Base64Bytes, Envelope, Outcome as Ended, Report, RunDetails, Signed, TaskSpec};
use starminer_requester::{Durability, Journal, JournalError, JournalKey, JournalRecord, OpenedResult, TaskStart};
use starminer_verify::TaskId;

use crate::Outcome;
use crate::seeds::Seed;
use crate::world::{self, Ending, Story, world};

const TASK: TaskId = TaskId([5; 16]);

fn story() -> &'static Story {
    world().story(Ending::Completed)
}

fn key() -> JournalKey {
    JournalKey::from_identity_seed(&[3; 32])
}

/// What stands in the journal of the corpus, record by record, as JSON.
fn known_records() -> &'static [String] {
    static RECORDS: OnceLock<Vec<String>> = OnceLock::new();
    RECORDS.get_or_init(|| records().iter().map(json).collect())
}

fn json(record: &JournalRecord) -> String {
    serde_json::to_string(record).expect("records are JSON")
}

fn records() -> Vec<JournalRecord> {
    let start = TaskStart {
        spec: story().receipt.lease.clone().expect("it completed"),
        secret: Base64Bytes(world::TASK_SECRET.to_vec()),
        result_seed: Base64Bytes(vec![30; 32]),
        output_dir: Some("out".into()),
        detached: false,
    };
    let ledger = story().records.iter().take(2).cloned().map(JournalRecord::Ledger);
    std::iter::once(JournalRecord::Start(start)).chain(ledger).collect()
}

pub fn journal(data: &[u8]) -> Outcome {
    thread_local! {
        static DIRECTORY: RefCell<Option<tempfile::TempDir>> = const { RefCell::new(None) };
    }
    DIRECTORY.with_borrow_mut(|directory| {
        let directory = directory.get_or_insert_with(super::scratch_directory).path();
        let file = directory.join(format!("{TASK}.journal"));
        fs::write(&file, data).expect("room for the input");
        let opened = Journal::open(directory, &key(), TASK);
        let records = match opened {
            Ok((journal, records)) => {
                // Whoever has it open holds it.
                assert!(matches!(Journal::open(directory, &key(), TASK), Err(JournalError::Held { .. })));
                drop(journal);
                records
            }
            Err(error) => {
                assert!(!matches!(error, JournalError::Io { .. }), "{error}");
                return Outcome::refused(match error {
                    JournalError::Damaged { index, .. } => (error.code(), index.min(4)),
                    _ => (error.code(), 0),
                });
            }
        };
        let found: Vec<String> = records.iter().map(json).collect();
        assert!(known_records().starts_with(&found), "a record that was never written");
        // What a crash tore off is gone for good: opened again it says the same.
        let kept = fs::read(&file).expect("it is there");
        assert!(data.starts_with(&kept));
        let (_, again) = Journal::open(directory, &key(), TASK).expect("it opened a moment ago");
        assert_eq!(again.iter().map(json).collect::<Vec<_>>(), found);
        assert_eq!(fs::read(&file).expect("it is there"), kept);
        if found.is_empty() {
            Outcome::refused("nothing")
        } else {
            Outcome::accepted((found.len(), kept.len() == data.len()))
        }
    })
}

/// A report as a hostile but attested task process could sign it, with these details.
fn report_with(details: &RunDetails) -> Option<Signed<Report>> {
    let receipt = &story().receipt;
    let known = receipt.report.clone()?.open::<Report>().ok()?;
    let (evidence, grant) = (known.predicate.evidence, known.predicate.grant);
    let predicate =
        world::report_predicate(&story().spec, Some(&story().lease), evidence, grant, Ended::Completed, details);
    let signer = world::key_of(&predicate.signer)?;
    Envelope::sign(Report::new(predicate), &signer).ok()
}

pub fn result(data: &[u8]) -> Outcome {
    let Some(details) = super::json_round_trip::<RunDetails>(data) else { return Outcome::refused("form") };
    let Some(report) = report_with(&details) else { return Outcome::refused("no report says this") };
    let spec: &Signed<TaskSpec> = &story().spec;
    let opened = match OpenedResult::open(spec, &report, world::result_key()) {
        Ok(opened) => opened,
        Err(error) => return Outcome::refused(error.code()),
    };
    assert_eq!(opened.details, details);
    let places = match opened.places() {
        Ok(places) => places,
        Err(error) => return Outcome::refused(error.code()),
    };
    assert_eq!(places.len(), opened.outputs().count());
    for (position, place) in places.iter().enumerate() {
        assert!(place.components().all(|part| matches!(part, Component::Normal(_))), "{place:?} climbs");
        assert!(place.components().next().is_some());
        assert!(places[..position].iter().all(|other| other != place), "{place:?} is of two outputs");
    }
    Outcome::accepted(places.len().min(3))
}

pub(crate) fn seeds() -> Vec<Seed> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut records = records().into_iter();
    let Some(JournalRecord::Start(start)) = records.next() else { unreachable!("it begins with its start") };
    let mut journal = Journal::create(directory.path(), &key(), TASK, start).expect("room for a journal");
    for record in records {
        journal.append(&record, Durability::Eventual).expect("room for a record");
    }
    let bytes = fs::read(directory.path().join(format!("{TASK}.journal"))).expect("it was just written");
    let cut = bytes[..bytes.len() - 5].to_vec();
    let details =
        |names: &str| format!(r#"{{"exit_code":0,"fuel_used":null,"peak_memory_bytes":1,"outputs":[{names}]}}"#);
    let output = |name: &str| format!(r#"{{"name":{name},"plain_bytes":3,"sha256":"{}"}}"#, "ab".repeat(32));
    let several = [r#""stdout""#, r#""stderr""#, r#"{"file":"maps/a.png"}"#].map(output).join(",");
    let climbing = [r#"{"file":"../a"}"#, r#"{"file":"/etc/a"}"#, r#"{"file":""}"#, r#"{"file":"a/../../b"}"#]
        .map(output)
        .join(",");
    vec![
        ("requester-journal", "whole".into(), bytes),
        ("requester-journal", "torn".into(), cut),
        ("requester-result", "one".into(), serde_json::to_vec(&world::run_details()).expect("names and numbers")),
        ("requester-result", "several".into(), details(&several).into_bytes()),
        ("requester-result", "climbing".into(), details(&climbing).into_bytes()),
    ]
}
