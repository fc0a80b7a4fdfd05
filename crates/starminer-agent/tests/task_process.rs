//! Task processes at work: every engine and every way to end, over the real channel, in the real sandbox.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use starminer_agent::testing::{FromTask, ToTask};
use starminer_receipt::{Determinism, Envelope, OnnxManifest, Outcome, OutputName, Report, WasmGrants};
use starminer_sandbox::ExitStatus;
use starminer_verify::Party;
use support::{
    Job, OpenedResult, Process, SealedJob, World, example, grant_in, lease_in, open_result, run, run_in, zygote,
};

fn completed(result: &OpenedResult) {
    assert_eq!(result.report.predicate.outcome, Outcome::Completed, "{:?}", result.details);
}

fn failed(result: &OpenedResult, party: Party, check: &str) {
    let Outcome::Failed { refusal } = &result.report.predicate.outcome else { panic!("completed: {check}") };
    assert_eq!((refusal.party(), refusal.check()), (party, check), "{refusal}");
    assert!(!refusal.remedy().is_empty());
}

#[test]
fn an_empty_program_completes_without_outputs() {
    let result = run(&World::new(), &Job::wasm(example("empty/empty.wasm")));
    completed(&result);
    assert!(result.outputs.is_empty());
    assert_eq!(result.details.exit_code, Some(0));
    assert!(result.details.fuel_used.unwrap() > 0);
}

#[test]
fn a_program_reads_inputs_and_writes_outputs() {
    let notes = example("wordcount/clinic-notes.txt");
    let job = Job::wasm(example("wordcount/wordcount.wasm")).input("clinic-notes.txt", notes);
    let result = run(&World::new(), &job);
    completed(&result);
    assert_eq!(result.file("report.csv"), example("wordcount/expected/report.csv"));
    assert_eq!(result.file("top-words.txt"), example("wordcount/expected/top-words.txt"));
    let files: Vec<_> = result
        .outputs
        .iter()
        .filter_map(|(name, _)| if let OutputName::File(name) = name { Some(name) } else { None })
        .collect();
    assert_eq!(files, ["report.csv", "top-words.txt"], "sorted");
    let said = &result.report.predicate;
    let engine = said.engine.as_ref().unwrap();
    assert_eq!(engine.kind, "wasm");
    let digests: Vec<_> = engine.digests.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(digests, ["module", "component", "adapter", "compiled"]);
    assert_eq!(said.inputs.len(), 1);
    assert!(said.workload.is_some());
}

#[test]
fn a_model_classifies_a_table() {
    let mut job = Job::wasm(example("diagnosis/model.onnx")).input("patients.csv", example("diagnosis/patients.csv"));
    job.wasm = None;
    job.onnx = Some(OnnxManifest {
        input: "patients.csv".into(),
        output: "predictions.csv".into(),
        id_column: Some("patient".into()),
        ignore_columns: Vec::new(),
    });
    let result = run(&World::new(), &job);
    completed(&result);
    let predicted = String::from_utf8(result.file("predictions.csv").to_vec()).unwrap();
    let truth = String::from_utf8(example("diagnosis/diagnosis.csv")).unwrap();
    let labels = |text: &str| {
        let mut lines = text.lines();
        let at = lines.next().unwrap().split(',').position(|name| name == "label").unwrap();
        lines.map(|line| line.split(',').nth(at).unwrap().to_owned()).collect::<Vec<_>>()
    };
    let (predicted, truth) = (labels(&predicted), labels(&truth));
    assert_eq!(predicted.len(), 569);
    let right = predicted.iter().zip(&truth).filter(|(a, b)| a == b).count();
    assert_eq!(right, 564, "as the example's README says");
    let engine = result.report.predicate.engine.unwrap();
    assert_eq!((engine.kind.as_str(), engine.digests[0].0.as_str()), ("onnx", "model"));
}

/// One misbehaviour each; what a good host makes of it is in `examples/hostile/README.md`.
#[test]
fn hostile_programs_end_as_they_should() {
    let world = World::new();
    let last_line = |result: &OpenedResult| result.stdout().lines().last().unwrap_or_default().to_owned();
    let small = |job: &mut Job| job.limits.scratch_bytes = 16 << 20;

    let check = |program: &str, adjust: &dyn Fn(&mut Job), party: Party, code: &str, says: Option<&str>| {
        let mut job = Job::wasm(example(program)).input("a.txt", b"x".to_vec());
        job.limits.fuel = 20_000_000_000;
        adjust(&mut job);
        let result = run(&world, &job);
        if code.is_empty() {
            completed(&result);
        } else {
            failed(&result, party, code);
        }
        if let Some(says) = says {
            assert_eq!(last_line(&result), says, "{program}");
        }
    };
    let as_is = |_: &mut Job| {};
    let starve = |job: &mut Job| job.limits.fuel = 50_000_000;
    check("hostile/trap.wasm", &as_is, Party::Workload, "engine.wasm.trap", None);
    check("hostile/stack.wasm", &as_is, Party::Workload, "engine.wasm.trap", None);
    check("runaway/runaway.wasm", &starve, Party::Requester, "engine.wasm.out-of-fuel", None);
    check("hostile/logflood.wasm", &starve, Party::Requester, "engine.wasm.out-of-fuel", None);
    check("hostile/oom.wasm", &as_is, Party::Workload, "workload.exit-nonzero", Some("exit: 7"));
    check("hostile/hugeout.wasm", &small, Party::Workload, "workload.exit-nonzero", Some("exit: 28"));
    check("hostile/manyfiles.wasm", &small, Party::Workload, "workload.exit-nonzero", Some("exit: 28"));
    check("hostile/fds.wasm", &as_is, Party::Workload, "workload.exit-nonzero", Some("exit: 24"));
    check("hostile/escape.wasm", &as_is, Party::Workload, "", Some("exit: 0"));
}

#[test]
fn a_deadline_ends_a_run_with_a_report() {
    let mut job = Job::wasm(example("runaway/runaway.wasm"));
    job.limits.fuel = u64::MAX / 2;
    job.limits.wall_limit_ms = 150;
    let started = Instant::now();
    let result = run(&World::new(), &job);
    failed(&result, Party::Requester, "limits.wall-time");
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn bad_workloads_and_inputs_are_the_requesters() {
    let world = World::new();
    let check = |job: &Job, code: &str| {
        let result = run(&world, job);
        failed(&result, Party::Requester, code);
        result
    };
    check(&Job::wasm(b"not wasm at all".to_vec()), "engine.wasm.not-wasm");
    check(&Job::wasm(Vec::new()), "engine.wasm.not-wasm");
    let mut truncated = example("wordcount/wordcount.wasm");
    truncated.truncate(20_000);
    check(&Job::wasm(truncated), "engine.wasm.invalid");
    let no_command = br#"(module (import "env" "f" (func)))"#;
    let result = check(&Job::wasm(wat::parse_bytes(no_command).unwrap().into_owned()), "engine.wasm.not-a-command");
    assert!(!result.output(&OutputName::Stderr).is_empty(), "what exactly was wrong is sealed to the requester");

    let twice = Job::wasm(example("empty/empty.wasm")).input("a", vec![1]).input("a", vec![2]);
    check(&twice, "engine.input.duplicate-name");
    check(&Job::wasm(example("empty/empty.wasm")).input("../a", vec![1]), "engine.input.bad-name");

    let mut onnx = Job::wasm(b"not a model".to_vec()).input("t.csv", b"a\n1\n".to_vec());
    onnx.wasm = None;
    let manifest = |input: &str| OnnxManifest {
        input: input.into(),
        output: "o.csv".into(),
        id_column: None,
        ignore_columns: Vec::new(),
    };
    onnx.onnx = Some(manifest("t.csv"));
    check(&onnx, "engine.onnx.not-a-model");
    onnx.workload = example("diagnosis/model.onnx");
    check(&onnx, "engine.onnx.feature-count");
    onnx.onnx = Some(manifest("missing.csv"));
    check(&onnx, "engine.onnx.input-missing");

    let mut job = Job::wasm(example("empty/empty.wasm"));
    for (manifest, code) in [
        (&b"{"[..], "job.manifest-malformed"),
        (br#"{"inputs":[],"wasm":{"args":[],"env":[]},"more":1}"#, "job.manifest-malformed"),
        (br#"{"inputs":["a"],"wasm":{"args":[],"env":[]}}"#, "job.manifest-inputs"),
        (br#"{"inputs":[]}"#, "job.manifest-engine"),
        (br#"{"inputs":[],"onnx":{"input":"a","output":"b"}}"#, "job.manifest-engine"),
    ] {
        job.raw_manifest = Some(manifest.to_vec());
        check(&job, code);
    }
}

#[test]
fn limits_on_outputs_hold_and_logs_still_come_back() {
    let world = World::new();
    let notes = example("wordcount/clinic-notes.txt");
    let mut job = Job::wasm(example("wordcount/wordcount.wasm")).input("n.txt", notes);
    job.limits.output_bytes = 100;
    let result = run(&world, &job);
    failed(&result, Party::Requester, "limits.output-size");
    assert!(result.outputs.iter().all(|(name, _)| !matches!(name, OutputName::File(_))));

    let mut job = Job::wasm(example("hostile/logflood.wasm"));
    job.limits.fuel = 20_000_000;
    job.limits.output_bytes = 64 * 1024;
    let result = run(&world, &job);
    failed(&result, Party::Requester, "engine.wasm.out-of-fuel");
}

/// What is swapped or altered on the node's disk is refused before the program sees it, and says whose fault it is.
#[test]
fn altered_ciphertext_never_reaches_a_program() {
    let world = World::new();
    let job = Job::wasm(example("wordcount/wordcount.wasm"))
        .input("a.txt", vec![b'a'; 200_000])
        .input("b.txt", vec![b'b'; 200_000]);
    let check = |spoil: &dyn Fn(&mut SealedJob), party: Party, code: &str| {
        let mut sealed = world.seal(&job);
        spoil(&mut sealed);
        let mut process = Process::start();
        let (lease, keys) = lease_in(&world, &sealed, &mut process, 1);
        grant_in(&world, &sealed, &lease, &keys, &mut process);
        let report = process.until_report();
        let result = open_result(&sealed, &keys, &report, &process.sealed_outputs());
        failed(&result, party, code);
        assert!(result.outputs.is_empty());
    };
    check(&|sealed| sealed.blobs.swap(1, 2), Party::Requester, "input.unopenable");
    check(&|sealed| sealed.blobs[1][150_000] ^= 1, Party::Requester, "input.unopenable");
    check(&|sealed| sealed.blobs[0][100] ^= 1, Party::Requester, "input.unopenable");
    check(&|sealed| sealed.blobs[2].truncate(100_000), Party::Requester, "input.unopenable");
    check(&|sealed| sealed.blobs[2].clear(), Party::Requester, "input.unopenable");
    // Sealed under the right secret and name, but not what the spec was signed for.
    check(
        &|sealed| {
            let mut other = job.clone();
            other.inputs[1].1 = vec![b'c'; 200_000];
            let (_, blob) = support::seal_object(&sealed.secret, sealed.spec.task, "input/1", &other.inputs[1].1);
            sealed.blobs[2] = blob;
        },
        Party::Requester,
        "input.commitment",
    );
}

#[test]
fn the_same_job_gives_the_same_bytes() {
    let world = World::new();
    let job = Job::wasm(example("hostile/clock.wasm"));
    let (one, two) = (run(&world, &job), run(&world, &job));
    completed(&one);
    assert_eq!(one.file("env.txt"), two.file("env.txt"));
    assert_eq!(one.details.fuel_used, two.details.fuel_used);

    let mut granted = job.clone();
    granted.grants = WasmGrants { clock: true, random: true };
    assert_ne!(run(&world, &granted).file("env.txt"), one.file("env.txt"));

    let mut portable = job;
    portable.determinism = Determinism::Portable;
    completed(&run(&world, &portable));
}

#[test]
fn compiled_code_is_used_again_and_says_so() {
    let world = World::new();
    let job = Job::wasm(example("wordcount/wordcount.wasm")).input("a.txt", b"one two".to_vec());
    let mut first = Process::start();
    let one = run_in(&world, &job, &mut first);
    assert_eq!((first.cache.len(), first.cache_hits), (1, 0));
    let mut second = Process::start();
    second.cache = std::mem::take(&mut first.cache);
    let two = run_in(&world, &job, &mut second);
    assert_eq!((second.cache.len(), second.cache_hits), (1, 1));
    assert_eq!(one.file("report.csv"), two.file("report.csv"));
    assert_eq!(one.details.fuel_used, two.details.fuel_used);

    // Another setting is another key: nothing of the first is found.
    let mut portable = job;
    portable.determinism = Determinism::Portable;
    let mut third = Process::start();
    third.cache = std::mem::take(&mut second.cache);
    completed(&run_in(&world, &portable, &mut third));
    assert_eq!((third.cache.len(), third.cache_hits), (2, 0));
}

/// Nothing that comes out of the process or lies in its files has a byte run of what must stay secret.
#[test]
fn no_plaintext_and_no_secret_leaves_the_process() {
    let world = World::new();
    let canary = b"CANARY-5ec4e7-of-the-input";
    let mut text = Vec::new();
    while text.len() < 12 << 20 {
        text.extend_from_slice(canary);
        text.extend_from_slice(format!(" {}\n", text.len()).as_bytes());
    }
    let mut job = Job::wasm(example("wordcount/wordcount.wasm")).input("secret-name.txt", text);
    job.limits.fuel = 200_000_000_000;
    let sealed = world.seal(&job);
    let mut process = Process::start();
    let (lease, keys) = lease_in(&world, &sealed, &mut process, 1);
    grant_in(&world, &sealed, &lease, &keys, &mut process);
    let report = process.until_report();
    completed(&open_result(&sealed, &keys, &report, &process.sealed_outputs()));

    let mut seen = process.sealed_outputs();
    seen.push(support::bytes_of(process.scratch.as_ref().unwrap()));
    assert!(seen.last().unwrap().len() > 1 << 20, "the scratch was spilled to");
    seen.push(report.encode());
    let report: starminer_receipt::Signed<starminer_receipt::Report> = report.open().unwrap();
    seen.push(serde_json::to_vec(report.statement()).unwrap());
    let module = &job.workload[1000..1040];
    let needles: [&[u8]; 5] = [canary, sealed.secret.expose(), module, b"secret-name", b"top-words"];
    for (place, bytes) in seen.iter().enumerate() {
        for needle in needles {
            assert!(!bytes.windows(needle.len()).any(|window| window == needle), "found in place {place}");
        }
    }
}

#[test]
fn a_task_process_serves_one_task_and_ends() {
    let world = World::new();
    let mut process = Process::start();
    completed(&run_in(&world, &Job::wasm(example("empty/empty.wasm")), &mut process));
    let exit = process.exit();
    assert!(exit.status.success(), "{exit:?}");
    assert!(process.try_receive().is_none());
}

#[test]
fn a_result_key_that_is_none_is_reported() {
    let world = World::new();
    let mut sealed = world.seal(&Job::wasm(example("empty/empty.wasm")));
    let mut spec = sealed.spec.statement().clone();
    // All-ones coefficients are out of range for ML-KEM (FIPS 203, section 7.2, modulus check).
    spec.result_key.0 = vec![0xff; spec.result_key.0.len()];
    sealed.spec = Envelope::sign(spec, &world.requester).unwrap();
    let mut process = Process::start();
    let (lease, keys) = lease_in(&world, &sealed, &mut process, 1);
    grant_in(&world, &sealed, &lease, &keys, &mut process);
    let report: starminer_receipt::Signed<starminer_receipt::Report> = process.until_report().open().unwrap();
    let Outcome::Failed { refusal } = &report.predicate.outcome else { panic!("completed") };
    assert_eq!((refusal.party(), refusal.check()), (Party::Requester, "task.result-key"));
    assert!(report.predicate.output_secret.is_none() && report.predicate.outputs.is_empty());
}

/// A process without memory for its own work ends by a fault and reports nothing; the agent then does
/// (`supervisor::machine::fault_of_exit`).
#[test]
fn a_process_without_memory_ends_by_a_fault() {
    let world = World::new();
    let sealed = world.seal(&Job::wasm(example("wordcount/wordcount.wasm")));
    let mut process = Process::start_with(8 << 20);
    let (lease, keys) = lease_in(&world, &sealed, &mut process, 1);
    grant_in(&world, &sealed, &lease, &keys, &mut process);
    loop {
        match process.try_receive() {
            Some((FromTask::CompiledWanted { .. }, _)) => process.send(&ToTask::Compiled { found: None }, &[]),
            Some((FromTask::Report { report }, _)) => panic!("it had enough: {:?}", report.open::<Report>()),
            // Whoever asks for files to put outputs into has run the program.
            Some((FromTask::OutputsWanted { .. }, _)) => panic!("it had enough to run"),
            Some(_) => {}
            None => break,
        }
    }
    let status = process.exit().status;
    assert!(matches!(status, ExitStatus::Signal(libc::SIGSEGV | libc::SIGABRT)), "{status:?}");
}

/// Copies of one zygote start from the same memory: what they keep secret must not come from it.
#[test]
fn copies_of_one_zygote_share_no_key() {
    let world = World::new();
    let sealed = world.seal(&Job::wasm(example("empty/empty.wasm")));
    let mut zygote = zygote(2 << 30);
    let mut keys = std::collections::BTreeSet::new();
    for _ in 0..3 {
        let mut process = Process::copy_of(&mut zygote);
        let (_, made) = lease_in(&world, &sealed, &mut process, 1);
        keys.insert(made.task_key.as_bytes().to_vec());
        keys.insert(made.report_key.0.to_vec());
    }
    assert_eq!(keys.len(), 6);
}
