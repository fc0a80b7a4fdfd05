//! Programs that keep a state: stopped anywhere, they go on from their last commit and give what an undisturbed run gives.

#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use starminer_runtime::onnx::{OnnxConfig, OnnxRequest};
use starminer_runtime::wasm::*;
use starminer_runtime::{Stop, StopSignal};
use support::{State, engine, fs_outputs, load, outputs, request, task_fs};

type Store = Arc<Mutex<Vec<u8>>>;

const PRIMES: &[u8] = include_bytes!("../../../examples/primes/primes.wasm");
const MODEL: &[u8] = include_bytes!("../../../examples/diagnosis/model.onnx");
const PATIENTS: &[u8] = include_bytes!("../../../examples/diagnosis/patients.csv");
const COMPLETED: RunEnd = RunEnd::Completed { exit_code: 0 };

/// Says stop when it is asked for the `nth` time.
fn stops_at(nth: u32) -> StopSignal {
    let asked = AtomicU32::new(0);
    StopSignal::new(move || (asked.fetch_add(1, Ordering::Relaxed) + 1 >= nth).then_some(Stop::Cancelled))
}

#[test]
fn primes_go_on_where_they_were_and_come_out_the_same() {
    let engine = engine(Determinism::Native);
    let component = load(&engine, &engine.compile(PRIMES).unwrap());
    let store = Store::default();
    let mut commits = 0;
    for attempt in 1.. {
        let mut request = request(&[]);
        request.arguments = ["primes", "60000", "3000"].map(String::from).to_vec();
        request.limits.fuel = u64::MAX / 4;
        // Each attempt is given a little more time than the one before, so that one of them comes to the end.
        request.stop = stops_at(4 * attempt);
        let state = State::open(Arc::clone(&store), attempt);
        let counted = Arc::clone(&state.commits);
        request.fs.add_state(state, 1 << 20).unwrap();
        let mut outcome = support::block_on(engine.run(&component, request)).unwrap();
        commits += counted.load(Ordering::Relaxed);
        if outcome.end == RunEnd::Stopped(Stop::Cancelled) {
            continue;
        }
        assert_eq!(outcome.end, COMPLETED, "{}", String::from_utf8_lossy(&outcome.stderr));
        let found = outputs(&mut outcome);
        let [(entries_name, entries), (primes_name, primes)] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((entries_name.as_str(), primes_name.as_str()), ("entries.txt", "primes.txt"));
        assert_eq!(
            primes,
            b"6057 primes below 60000, sum 171848738\n".as_slice(),
            "{}",
            String::from_utf8_lossy(primes)
        );
        let entries: u32 = std::str::from_utf8(entries).unwrap().trim().parse().unwrap();
        assert!(entries > 1 && entries <= attempt, "{entries} entries in {attempt} attempts");
        // One for each entry, and one for each step, of which none was done twice after it was committed.
        assert!(commits >= entries + 20, "{commits} commits");
        return;
    }
}

#[test]
fn without_a_state_there_is_none_to_see() {
    let mut plain = request(&[]);
    plain.arguments = ["primes", "100"].map(String::from).to_vec();
    let outcome = support::run(&engine(Determinism::Native), PRIMES, plain);
    assert_eq!(outcome.end, RunEnd::Completed { exit_code: 1 });
    assert!(String::from_utf8_lossy(&outcome.stderr).contains("/state"), "{:?}", outcome.stderr);
}

fn onnx(store: &Store, attempt: u32, stop: StopSignal, quota: u64) -> (RunEnd, u64, u32, Option<Vec<u8>>) {
    let mut fs = task_fs(&[("model.onnx", MODEL), ("patients.csv", PATIENTS)], 16 << 20);
    let state = State::open(Arc::clone(store), attempt);
    let commits = Arc::clone(&state.commits);
    fs.add_state(state, quota).unwrap();
    let request = OnnxRequest {
        config: OnnxConfig {
            model: "model.onnx".into(),
            input: "patients.csv".into(),
            output: "predictions.csv".into(),
            id_column: Some("patient".into()),
            ignore_columns: vec![],
        },
        fs,
        memory_bytes: 64 << 20,
        stop,
        commit_every: std::time::Duration::ZERO,
    };
    let mut outcome = support::block_on(starminer_runtime::onnx::run(request));
    let text = fs_outputs(&mut outcome.fs).pop().map(|(_, bytes)| bytes);
    if outcome.end == COMPLETED {
        assert_eq!(outcome.fs.open_count(), 0);
    }
    (outcome.end, outcome.rows, commits.load(Ordering::Relaxed), text)
}

#[test]
fn a_model_goes_on_between_batches_and_predicts_the_same() {
    let (end, rows, commits, whole) = onnx(&Store::default(), 1, StopSignal::never(), 1 << 20);
    // 569 rows are three batches.
    assert_eq!((end, rows, commits), (COMPLETED, 569, 3));
    for stopped_after in 1..=3 {
        let store = Store::default();
        // Asked before and after reading the model, and after each batch.
        let (end, rows, _, _) = onnx(&store, 1, stops_at(2 + stopped_after), 1 << 20);
        assert_eq!((end, rows), (RunEnd::Stopped(Stop::Cancelled), u64::from(stopped_after * 256).min(569)));
        let (end, rows, commits, predictions) = onnx(&store, 2, StopSignal::never(), 1 << 20);
        assert_eq!((end, rows, commits), (COMPLETED, 569, 3 - stopped_after));
        assert!(predictions == whole, "stopped after batch {stopped_after}");
    }
}

#[test]
fn predictions_that_outgrow_the_state_are_made_all_the_same() {
    let (_, _, _, whole) = onnx(&Store::default(), 1, StopSignal::never(), 1 << 20);
    let store = Store::default();
    let (end, rows, commits, predictions) = onnx(&store, 1, StopSignal::never(), 12 << 10);
    assert_eq!((end, rows), (COMPLETED, 569));
    assert!((1..3).contains(&commits), "{commits}");
    assert!(predictions == whole);
}
