//! What surrounds the work of a wasm task: making an engine, compiling, loading, starting; and how fast files go through.
//!
//! `cargo bench -p starminer-runtime --bench tasks`. Each time is the median of many; a file of 256 MiB goes through once
//! a round, in and out of the vault (in memory here: disks are not this crate's).

#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::Instant;

use starminer_runtime::wasm::{Determinism, RunEnd};

const FILE_BYTES: usize = 256 << 20;

macro_rules! example {
    ($path:literal) => {
        include_bytes!(concat!("../../../examples/", $path)).as_slice()
    };
}

/// Median milliseconds of `work` over `rounds`.
fn median_ms(rounds: usize, mut work: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..rounds)
        .map(|_| {
            let started = Instant::now();
            work();
            started.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[rounds / 2]
}

fn main() {
    let line = |what: &str, ms: f64| println!("{what:<52} {ms:>9.3} ms");
    line("make an engine", median_ms(50, || drop(support::engine(Determinism::Native))));
    let engine = support::engine(Determinism::Native);
    for (name, module) in
        [("empty.wasm", example!("empty/empty.wasm")), ("wordcount.wasm", example!("wordcount/wordcount.wasm"))]
    {
        let compiled = engine.compile(module).unwrap();
        let component = support::load(&engine, &compiled);
        println!("{name}: {} KiB of wasm, {} KiB compiled", module.len() / 1024, compiled.serialized.len() / 1024);
        line("  adapt and compile", median_ms(11, || drop(engine.compile(module).unwrap())));
        line("  load", median_ms(50, || drop(support::load(&engine, &compiled))));
        let run = || {
            let outcome = support::block_on(engine.run(&component, support::request(&[]))).unwrap();
            assert!(matches!(outcome.end, RunEnd::Completed { .. }), "{:?}", outcome.end);
        };
        line("  run, without inputs", median_ms(50, run));
    }

    let throughput = |what: &str, ms: f64| {
        let rate = FILE_BYTES as f64 / (1 << 20) as f64 / (ms / 1e3);
        println!("{what:<52} {ms:>9.1} ms  {rate:>7.0} MiB/s");
    };
    let data = vec![0x5a; FILE_BYTES];
    let bigread = support::load(&engine, &engine.compile(example!("hostile/bigread.wasm")).unwrap());
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let mut request = support::request(&[("data.bin", &data)]);
        request.limits.fuel = u64::MAX;
        let started = Instant::now();
        let outcome = support::block_on(engine.run(&bigread, request)).unwrap();
        best = best.min(started.elapsed().as_secs_f64() * 1e3);
        assert_eq!(outcome.end, RunEnd::Completed { exit_code: 0 });
    }
    throughput("a guest reads and checksums 256 MiB from /in", best);

    let hugeout = support::load(&engine, &engine.compile(example!("hostile/hugeout.wasm")).unwrap());
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        let mut request = support::request(&[]);
        request.fs = support::task_fs(&[], FILE_BYTES as u64);
        request.limits.fuel = u64::MAX;
        let started = Instant::now();
        let outcome = support::block_on(engine.run(&hugeout, request)).unwrap();
        best = best.min(started.elapsed().as_secs_f64() * 1e3);
        assert!(outcome.fs.used_bytes() > FILE_BYTES as u64 - (1 << 20));
    }
    throughput("a guest fills a quota of 256 MiB in /out", best);
}
