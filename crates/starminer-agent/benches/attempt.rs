//! What a node adds to a task: the time from lease to accepted report of an empty wasm program, against a coordinator in
//! memory. Evidence, grant, HPKE, sandbox and engine are real; network, log and the releaser's appraisal are not here.
//!
//! Prints one line for each measure; criterion would start the node anew for each.

#![allow(clippy::unwrap_used)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use starminer_agent::testing::serve;
use support::coordinator::{Coordinator, Line, parts};
use support::{Job, Process, example, grant_in, lease_in};

const ROUNDS: usize = 200;
const IN_FLIGHT: usize = 16;

fn main() {
    process();
    node();
}

fn show(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1000.0;
    println!("{what}: p50 {:.2} ms, p90 {:.2} ms, p99 {:.2} ms", at(50), at(90), at(99));
}

/// One task process, step by step.
fn process() {
    let world = support::World::new();
    let job = Job::wasm(example("empty/empty.wasm"));
    let (mut start, mut lease, mut run, mut cpu) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut cache = std::collections::HashMap::new();
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let mut process = Process::start();
        start.push(began.elapsed());
        process.cache = std::mem::take(&mut cache);
        let sealed = world.seal(&job);
        let began = Instant::now();
        let (signed, keys) = lease_in(&world, &sealed, &mut process, 1);
        lease.push(began.elapsed());
        let began = Instant::now();
        grant_in(&world, &sealed, &signed, &keys, &mut process);
        process.until_report();
        run.push(began.elapsed());
        cache = std::mem::take(&mut process.cache);
        let exit = process.exit();
        cpu.push(exit.cpu_user + exit.cpu_system);
    }
    let idle = (0..ROUNDS / 4).map(|_| {
        let exit = Process::start().leave();
        exit.cpu_user + exit.cpu_system
    });
    show("task process, processor time until ready", idle.collect());
    let keyed = (0..ROUNDS / 4).map(|_| {
        let mut process = Process::start();
        lease_in(&world, &world.seal(&job), &mut process, 1);
        let exit = process.leave();
        exit.cpu_user + exit.cpu_system
    });
    show("task process, processor time until keys", keyed.collect());
    show("task process, start until ready", start);
    show("task process, lease until keys", lease);
    show("task process, grant (with making evidence and grant) until report", run);
    show("task process, processor time of its life", cpu);
}

/// A whole node.
fn node() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let coordinator = Coordinator::new();
    let dir = tempfile::tempdir().unwrap();
    let mut parts = parts(&coordinator.world, Line::Direct(Arc::clone(&coordinator)), dir.path(), IN_FLIGHT as u32);
    parts.limits.warm_processes = 6;
    runtime.spawn(async move { serve(parts, std::future::pending()).await.unwrap() });
    let job = Job::wasm(example("empty/empty.wasm"));
    let seal = || Arc::new(coordinator.world.seal(&job));
    // Compiled once, the pool full.
    coordinator.wait_report(coordinator.lease(seal(), 1, support::coordinator::Grants::AtOnce));
    std::thread::sleep(Duration::from_millis(300));

    let sealed: Vec<_> = (0..ROUNDS).map(|_| seal()).collect();
    let mut times = Vec::new();
    for job in sealed {
        let began = Instant::now();
        let name = coordinator.lease(job, 1, support::coordinator::Grants::AtOnce);
        coordinator.wait_report(name);
        times.push(began.elapsed());
        // What a requester takes for its own part; the pool fills meanwhile.
        std::thread::sleep(Duration::from_millis(10));
    }
    show("node, one in flight, lease until report", times);

    let sealed: Vec<_> = (0..4 * ROUNDS).map(|_| seal()).collect();
    let began = Instant::now();
    let names: Vec<_> =
        sealed.into_iter().map(|job| coordinator.lease(job, 1, support::coordinator::Grants::AtOnce)).collect();
    for name in &names {
        coordinator.wait_report(*name);
    }
    let per_second = names.len() as f64 / began.elapsed().as_secs_f64();
    println!("node, {IN_FLIGHT} in flight: {per_second:.0} tasks/s, the coordinator and releaser of the test included");
}
