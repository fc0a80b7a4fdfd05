//! Programs and models that are none, or that misbehave: each task ends with a receipt that names party, check and remedy.

use starminer_receipt::{Limits, OnnxManifest};
use starminer_requester::JobPlan;
use starminer_verify::Party;

use crate::support::{Network, example, must, runtime, text};
use crate::{completed, failed};

fn onnx(network: &Network, model: Vec<u8>, table: &str) -> JobPlan {
    let mut job = network.wasm_job(model, &[(table, b"a,b\n1,2\n".to_vec())]);
    job.wasm = None;
    job.onnx = Some(OnnxManifest {
        input: "table.csv".into(),
        output: "out.csv".into(),
        id_column: None,
        ignore_columns: Vec::new(),
    });
    job
}

#[test]
fn every_bad_program_ends_in_a_receipt() {
    let network = Network::start(1);
    let limits = |job: JobPlan, change: &dyn Fn(&mut Limits)| {
        let mut job = job;
        job.limits.memory_bytes = 64 << 20;
        change(&mut job.limits);
        job
    };
    let wasm = |program: &str, change: &dyn Fn(&mut Limits)| {
        let job = network.wasm_job(example(program), &[("a.txt", b"x".to_vec())]);
        limits(job, change)
    };
    let text_module = |module: &str| limits(network.wasm_job(wat::parse_str(module).unwrap(), &[]), &|_| {});
    let as_is = |_: &mut Limits| {};
    let little_fuel = |limits: &mut Limits| limits.fuel = 50_000_000;
    let little_time = |limits: &mut Limits| (limits.fuel, limits.wall_limit_ms) = (u64::MAX / 2, 300);
    let little_scratch = |limits: &mut Limits| (limits.scratch_bytes, limits.output_bytes) = (16 << 20, 16 << 20);
    let mut cut = example("wordcount/wordcount.wasm");
    cut.truncate(20_000);
    let greedy = r#"(module (memory (export "memory") 1)
        (func (export "_start") (loop (drop (memory.grow (i32.const 1))) (br 0))))"#;

    // Without a clock of its own a sleep is over at once.
    let mut sleeper = wasm("hostile/sleep.wasm", &little_time);
    sleeper.grants.clock = true;

    use Party::{Requester, Workload};
    let cases: Vec<(&str, JobPlan, Party, &str)> = vec![
        ("not wasm", network.wasm_job(b"MZ not wasm".to_vec(), &[]), Requester, "engine.wasm.not-wasm"),
        ("empty", network.wasm_job(Vec::new(), &[]), Requester, "engine.wasm.not-wasm"),
        ("cut off", network.wasm_job(cut, &[]), Requester, "engine.wasm.invalid"),
        ("no command", text_module("(module)"), Requester, "engine.wasm.not-a-command"),
        ("trap", wasm("hostile/trap.wasm", &as_is), Workload, "engine.wasm.trap"),
        ("stack", wasm("hostile/stack.wasm", &as_is), Workload, "engine.wasm.trap"),
        ("loop, fuel", wasm("runaway/runaway.wasm", &little_fuel), Requester, "engine.wasm.out-of-fuel"),
        ("loop, time", wasm("runaway/runaway.wasm", &little_time), Requester, "limits.wall-time"),
        ("sleep", sleeper, Requester, "limits.wall-time"),
        ("log without end", wasm("hostile/logflood.wasm", &little_fuel), Requester, "engine.wasm.out-of-fuel"),
        ("memory without end", text_module(greedy), Requester, "engine.wasm.memory-limit"),
        ("malloc without end", wasm("hostile/oom.wasm", &as_is), Workload, "workload.exit-nonzero"),
        ("files without end", wasm("hostile/manyfiles.wasm", &little_scratch), Workload, "workload.exit-nonzero"),
        ("output without end", wasm("hostile/hugeout.wasm", &little_scratch), Workload, "workload.exit-nonzero"),
        ("not a model", onnx(&network, b"not a model".to_vec(), "table.csv"), Requester, "engine.onnx.not-a-model"),
        (
            "wasm for a model",
            onnx(&network, example("empty/empty.wasm"), "table.csv"),
            Requester,
            "engine.onnx.not-a-model",
        ),
        (
            "wrong table",
            onnx(&network, example("diagnosis/model.onnx"), "table.csv"),
            Requester,
            "engine.onnx.feature-count",
        ),
        (
            "no table",
            onnx(&network, example("diagnosis/model.onnx"), "other.csv"),
            Requester,
            "engine.onnx.input-missing",
        ),
    ];
    runtime().block_on(async {
        let requester = network.requester("requester");
        let trust = network.path("coordinator").join("network.toml");
        for (index, (name, job, party, check)) in cases.into_iter().enumerate() {
            let out = network.path("requester").join(index.to_string());
            let outcome = requester.run(&job, &out).await.unwrap_or_else(|error| panic!("{name}: {error}"));
            eprintln!("{name}: {:?}", outcome.outcome);
            failed(&outcome, party, check);
            // Anybody can check the receipt of a failure offline.
            must(["verify", &text(&outcome.receipt_path), "--network", &text(&trust)]);
        }
        // Every path outside its grants is refused, as the program itself says.
        let out = network.path("requester").join("escape");
        let outcome = requester.run(&wasm("hostile/escape.wasm", &as_is), &out).await.unwrap();
        completed(&outcome);
        let said = std::fs::read_to_string(out.join("stdout.txt")).unwrap();
        assert_eq!(said.lines().last(), Some("exit: 0"), "{said}");
        // After all that, the node still works.
        let good = network.wasm_job(example("wordcount/wordcount.wasm"), &[("a.txt", b"some words".to_vec())]);
        completed(&requester.run(&good, &network.path("requester").join("good")).await.unwrap());
    });
}
