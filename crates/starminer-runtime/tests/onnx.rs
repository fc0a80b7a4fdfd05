//! The ONNX engine over the real model and data of `examples/diagnosis`, and over what is wrong with a model or its data.

#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use starminer_runtime::onnx::*;
use starminer_runtime::wasm::RunEnd;
use starminer_runtime::{HostFault, Stop, StopSignal};
use support::{fs_outputs, task_fs};

const MODEL: &[u8] = include_bytes!("../../../examples/diagnosis/model.onnx");
const PATIENTS: &[u8] = include_bytes!("../../../examples/diagnosis/patients.csv");
const EXPECTED: &str = include_str!("../../../examples/diagnosis/expected.csv");

fn config() -> OnnxConfig {
    OnnxConfig {
        model: "model.onnx".into(),
        input: "patients.csv".into(),
        output: "predictions.csv".into(),
        id_column: Some("patient".into()),
        ignore_columns: vec![],
    }
}

fn request(model: &[u8], data: &[u8]) -> OnnxRequest {
    OnnxRequest {
        config: config(),
        fs: task_fs(&[("model.onnx", model), ("patients.csv", data)], 16 << 20),
        memory_bytes: 64 << 20,
        stop: StopSignal::never(),
        commit_every: std::time::Duration::ZERO,
    }
}

fn run(request: OnnxRequest) -> (OnnxOutcome, String) {
    let mut outcome = support::block_on(starminer_runtime::onnx::run(request));
    let text = fs_outputs(&mut outcome.fs).pop().map(|(_, bytes)| String::from_utf8(bytes).unwrap());
    (outcome, text.unwrap_or_default())
}

const COMPLETED: RunEnd = RunEnd::Completed { exit_code: 0 };

#[test]
fn the_diagnosis_agrees_with_onnxruntime() {
    let (outcome, predictions) = run(request(MODEL, PATIENTS));
    assert_eq!(outcome.end, COMPLETED);
    assert_eq!(outcome.rows, 569);
    assert_eq!(outcome.fs.open_count(), 0);
    let mut lines = predictions.lines();
    assert_eq!(lines.next(), Some("patient,label,probability_0,probability_1"));
    let mut compared = 0;
    for (line, expected) in lines.zip(EXPECTED.lines().skip(1)) {
        let (found, wanted): (Vec<&str>, Vec<&str>) = (line.split(',').collect(), expected.split(',').collect());
        assert_eq!((found[0], found[1]), (wanted[0], wanted[3]), "patient and label");
        for column in [0, 1] {
            let difference: f64 =
                found[2 + column].parse::<f64>().unwrap() - wanted[1 + column].parse::<f64>().unwrap();
            assert!(difference.abs() < 1e-5, "{line} against {expected}");
        }
        compared += 1;
    }
    assert_eq!(compared, 569);
}

#[test]
fn the_same_process_gives_the_same_bytes_whatever_the_batches() {
    let (_, all) = run(request(MODEL, PATIENTS));
    let (_, again) = run(request(MODEL, PATIENTS));
    assert_eq!(all, again);
    // The first 300 patients alone: a last batch of 44 instead of 256.
    let head: Vec<&str> = std::str::from_utf8(PATIENTS).unwrap().lines().take(301).collect();
    let (outcome, some) = run(request(MODEL, head.join("\r\n").as_bytes()));
    assert_eq!(outcome.rows, 300);
    let labels = |text: &str| -> Vec<String> {
        text.lines().take(301).map(|line| line.split(',').take(2).collect::<Vec<_>>().join(",")).collect()
    };
    assert_eq!(labels(&some), labels(&all));
}

#[test]
fn rows_are_numbered_where_there_is_no_id() {
    let mut request = request(MODEL, PATIENTS);
    request.config.id_column = None;
    request.config.ignore_columns = vec!["patient".into()];
    let (outcome, predictions) = run(request);
    assert_eq!(outcome.end, COMPLETED);
    assert!(predictions.starts_with("row,label,probability_0,probability_1\n1,1,"), "{}", &predictions[..80]);
}

fn check_refused(what: &str, adjust: impl FnOnce(&mut OnnxRequest), code: &str, detail: &str) {
    let mut request = request(MODEL, PATIENTS);
    adjust(&mut request);
    let (outcome, _) = run(request);
    match outcome.end {
        RunEnd::Refused(refusal) => {
            assert_eq!(refusal.code(), code, "{what}");
            assert!(refusal.detail().contains(detail), "{what}: {}", refusal.detail());
        }
        other => panic!("{what}: {other:?}"),
    }
}

fn with_data(text: &str) -> impl FnOnce(&mut OnnxRequest) {
    move |request| request.fs = task_fs(&[("model.onnx", MODEL), ("patients.csv", text.as_bytes())], 16 << 20)
}

fn with_model(model: &[u8]) -> impl FnOnce(&mut OnnxRequest) {
    move |request| request.fs = task_fs(&[("model.onnx", model), ("patients.csv", PATIENTS)], 16 << 20)
}

#[test]
fn what_is_wrong_is_said_with_its_place_and_without_its_value() {
    let header = std::str::from_utf8(PATIENTS).unwrap().lines().next().unwrap();
    let row = |value: &str| format!("{header}\n1{}\n2{}{value}", ",1".repeat(30), ",1".repeat(29));
    check_refused("no model", |r| r.config.model = "other".into(), "engine.onnx.input-missing", "other");
    check_refused("no data", |r| r.config.input = "../in/x".into(), "engine.onnx.input-missing", "");
    check_refused("bad output", |r| r.config.output = "a/b".into(), "engine.onnx.bad-output-name", "a/b");
    check_refused("not a model", with_model(PATIENTS), "engine.onnx.not-a-model", "");
    check_refused("an empty model", with_model(b""), "engine.onnx.not-a-model", "");
    check_refused("half a model", with_model(&MODEL[..MODEL.len() / 2]), "engine.onnx.not-a-model", "");
    check_refused("no header", with_data(""), "engine.onnx.csv-malformed", "row 1, column 0");
    check_refused("no id", |r| r.config.id_column = Some("who".into()), "engine.onnx.column-missing", "who");
    check_refused("nothing ignored", |r| r.config.ignore_columns = vec!["x".into()], "engine.onnx.column-missing", "x");
    check_refused(
        "a feature more",
        |r| r.config.id_column = None,
        "engine.onnx.feature-count",
        "the model takes 30, the input has 31",
    );
    let secret = "SECRET77";
    check_refused(
        "text",
        with_data(&row(&format!(",{secret}"))),
        "engine.onnx.csv-malformed",
        "row 3, column 31: not a",
    );
    check_refused("a gap", with_data(&row(",")), "engine.onnx.csv-malformed", "row 3, column 31");
    check_refused("infinity", with_data(&row(",inf")), "engine.onnx.csv-malformed", "row 3, column 31");
    check_refused(
        "a short row",
        with_data(&row("")),
        "engine.onnx.csv-malformed",
        "30 columns where the header has 31",
    );
    check_refused("no memory", |r| r.memory_bytes = 10_000, "engine.onnx.memory-limit", "");
    check_refused(
        "no quota",
        |r| r.fs = task_fs(&[("model.onnx", MODEL), ("patients.csv", PATIENTS)], 1000),
        "engine.onnx.output-quota",
        "",
    );
    let (outcome, _) = run(request(MODEL, row(&format!(",{secret}")).as_bytes()));
    let RunEnd::Refused(refusal) = outcome.end else { panic!("not refused") };
    assert!(!format!("{refusal} {refusal:?} {}", refusal.detail()).contains(secret));
}

#[test]
fn a_model_can_be_checked_without_data() {
    assert_eq!(check_model(MODEL, 1 << 20), Ok(30));
    assert_eq!(check_model(b"no", 1 << 20).unwrap_err().code(), "engine.onnx.not-a-model");
    assert_eq!(check_model(MODEL, 100).unwrap_err().code(), "engine.onnx.memory-limit");
}

#[test]
fn a_data_file_of_a_header_alone_has_no_predictions() {
    let header = std::str::from_utf8(PATIENTS).unwrap().lines().next().unwrap();
    let (outcome, predictions) = run(request(MODEL, header.as_bytes()));
    assert_eq!((outcome.end, outcome.rows, predictions.as_str()), (COMPLETED, 0, ""));
}

#[test]
fn a_stop_is_kept_between_batches() {
    let asked = Arc::new(AtomicU32::new(0));
    let count = asked.clone();
    let mut request = request(MODEL, PATIENTS);
    request.stop = StopSignal::new(move || (count.fetch_add(1, Ordering::Relaxed) >= 3).then_some(Stop::Deadline));
    let (outcome, _) = run(request);
    assert_eq!(outcome.end, RunEnd::Stopped(Stop::Deadline));
    assert_eq!(outcome.rows, 512);
}

#[test]
fn damaged_storage_is_not_the_models_fault() {
    struct Broken;
    impl starminer_runtime::fs::InputFile for Broken {
        fn len(&self) -> u64 {
            1000
        }
        fn read_at(&mut self, _: u64, _: &mut [u8]) -> Result<(), starminer_runtime::fs::InputError> {
            Err(starminer_runtime::fs::InputError)
        }
    }
    let mut request = request(MODEL, PATIENTS);
    request.fs = task_fs(&[("patients.csv", PATIENTS)], 1 << 20);
    request.fs.add_input("model.onnx", Broken).unwrap();
    assert_eq!(run(request).0.end, RunEnd::HostFault(HostFault::INPUT));
}

/// One changed byte in a model: it is refused or it runs, and the process lives.
#[test]
fn altered_models_never_end_the_process() {
    let head: Vec<&str> = std::str::from_utf8(PATIENTS).unwrap().lines().take(4).collect();
    let head = head.join("\n");
    let mut state = 1_u64;
    for _ in 0..400 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut model = MODEL.to_vec();
        let at = (state >> 33) as usize % model.len();
        model[at] ^= 1 << (state >> 60 & 7);
        let (outcome, _) = run(request(&model, head.as_bytes()));
        assert!(matches!(outcome.end, RunEnd::Completed { .. } | RunEnd::Refused(_)), "{at}: {:?}", outcome.end);
    }
}
