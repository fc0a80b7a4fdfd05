//! Whole tasks over a whole network of processes on loopback, software TEE: latency, throughput, memory.
//!
//! `cargo bench -p starminer --bench tasks [-- latency|throughput|memory]`
//!
//! * latency: an empty wasm task, submit to verified receipt, one in flight, connections open, module compiled before.
//! * throughput: the same with 64 in flight for a while; CPU milliseconds a task by process; peak memory of the coordinator.
//! * memory: peak over idle to pass a 4 GiB input (`STARMINER_BENCH_INPUT_MIB`) through client, coordinator and wasm node.
//!
//! Beside each figure stands what the machine itself can do in the same run: a process started and ended, a durable write.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use starminer_receipt::{Limits, Outcome, Overall};
use starminer_requester::{InputSource, JobPlan, Requester};
use support::{Network, example};

const LATENCY_TASKS: usize = 200;
const IN_FLIGHT: usize = 64;
const THROUGHPUT_FOR: Duration = Duration::from_secs(20);
/// Tasks that the node takes at a time: half of those in flight run, the others wait.
const PLACES: i64 = 32;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let want = |name: &str| wanted.is_empty() || wanted.iter().any(|arg| arg == name);
    let runtime = support::runtime();
    if want("latency") {
        runtime.block_on(latency());
    }
    if want("throughput") {
        runtime.block_on(throughput());
    }
    if want("memory") {
        runtime.block_on(memory());
    }
}

fn empty_job(network: &Network) -> JobPlan {
    network.wasm_job(example("empty/empty.wasm"), &[])
}

async fn runs(requester: &Requester, job: &JobPlan, out: &Path) -> bool {
    match requester.run(job, out).await {
        Ok(outcome) => outcome.outcome == Some(Outcome::Completed) && outcome.verdict.overall() == Overall::Proven,
        Err(error) => {
            eprintln!("lost: {error}");
            false
        }
    }
}

async fn latency() {
    let network = Network::start(1);
    let requester = network.requester("requester");
    let (job, out) = (empty_job(&network), network.path("requester").join("out"));
    for _ in 0..20 {
        assert!(runs(&requester, &job, &out).await);
    }
    let mut times = Vec::with_capacity(LATENCY_TASKS);
    for _ in 0..LATENCY_TASKS {
        let started = Instant::now();
        assert!(runs(&requester, &job, &out).await);
        times.push(started.elapsed());
    }
    times.sort_unstable();
    println!(
        "latency: empty wasm task, submit to verified receipt: p50 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms (goal: p50 25 ms)",
        ms(times[times.len() / 2]),
        ms(times[times.len() * 9 / 10]),
        ms(times[times.len() * 99 / 100]),
    );
    println!(
        "  this machine: fork+exec+exit {:.2} ms, durable 4 KiB append {:.2} ms",
        ms(spawn_cost()),
        ms(fsync_cost())
    );
}

async fn throughput() {
    let network = Network::coordinator_only();
    network.init_node("node1");
    let path = network.path("node1").join("agent.toml");
    let mut config: toml::Table = fs::read_to_string(&path).unwrap().parse().unwrap();
    assert!(config.insert("places".into(), PLACES.into()).is_some());
    fs::write(&path, config.to_string()).unwrap();
    network.start_process("node1");
    let requester = Arc::new(network.requester("requester"));
    let (job, out) = (empty_job(&network), network.path("requester").join("out"));
    for _ in 0..20 {
        assert!(runs(&requester, &job, &out).await);
    }
    let job = Arc::new(job);
    let processes = ["coordinator", "node1"];
    let cpu = |name: &str| cpu_ms(network.pid(name));
    let before: BTreeMap<&str, f64> = processes.iter().map(|name| (*name, cpu(name))).collect();
    let own_before = cpu_ms(std::process::id());
    let (done, lost) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let next = Arc::new(AtomicUsize::new(0));
    let started = Instant::now();
    let workers: Vec<_> = (0..IN_FLIGHT)
        .map(|_| {
            let (requester, job, out) = (Arc::clone(&requester), Arc::clone(&job), out.clone());
            let (done, lost, next) = (Arc::clone(&done), Arc::clone(&lost), Arc::clone(&next));
            tokio::spawn(async move {
                while started.elapsed() < THROUGHPUT_FOR {
                    // Whoever runs many at a time gives each a place of its own.
                    let out = out.join(next.fetch_add(1, Ordering::Relaxed).to_string());
                    let counter = if runs(&requester, &job, &out).await { &done } else { &lost };
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
    let (seconds, tasks) = (started.elapsed().as_secs_f64(), done.load(Ordering::Relaxed));
    println!(
        "throughput: {IN_FLIGHT} in flight for {seconds:.1} s: {:.0} tasks/s, {} done, {} lost (goal: 150/s, none lost)",
        tasks as f64 / seconds,
        tasks,
        lost.load(Ordering::Relaxed)
    );
    for name in processes {
        println!("  CPU a task, {name:<12} {:6.2} ms", (cpu(name) - before[name]) / tasks as f64);
    }
    println!("  CPU a task, {:<12} {:6.2} ms", "requester", (cpu_ms(std::process::id()) - own_before) / tasks as f64);
    println!(
        "  this machine: fork+exec+exit {:.2} ms, durable 4 KiB append {:.2} ms",
        ms(spawn_cost()),
        ms(fsync_cost())
    );
    println!("  coordinator, peak resident {:.0} MiB (goal: 150 MiB)", peak_mib(network.pid("coordinator")));
}

async fn memory() {
    let mib: u64 = std::env::var("STARMINER_BENCH_INPUT_MIB").ok().and_then(|text| text.parse().ok()).unwrap_or(4096);
    let network = Network::start(1);
    let requester = network.requester("requester");
    let out = network.path("requester").join("out");
    assert!(runs(&requester, &empty_job(&network), &out).await);
    let input = network.path("requester").join("data.bin");
    let mut file = fs::File::create(&input).unwrap();
    let piece: Vec<u8> = (0..1 << 20).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for _ in 0..mib {
        file.write_all(&piece).unwrap();
    }
    drop(file);
    let processes =
        [("client", std::process::id()), ("coordinator", network.pid("coordinator")), ("node1", network.pid("node1"))];
    let idle: Vec<f64> = processes
        .iter()
        .map(|(_, pid)| {
            // Clears the high-water mark, where the kernel and the rights allow it.
            let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
            peak_mib(*pid)
        })
        .collect();
    let mut job = network.wasm_job(example("hostile/bigread.wasm"), &[]);
    job.inputs.push(("data.bin".into(), InputSource::File(input)));
    job.limits = Limits { fuel: u64::MAX / 4, wall_limit_ms: 1_800_000, ..Limits::default() };
    let started = Instant::now();
    let watching = Arc::new(AtomicBool::new(true));
    let watcher = {
        let (watching, node) = (Arc::clone(&watching), network.pid("node1"));
        std::thread::spawn(move || largest_child_mib(node, &watching))
    };
    let outcome = requester.run(&job, &out).await.unwrap();
    watching.store(false, Ordering::Relaxed);
    let task_process = watcher.join().unwrap();
    assert_eq!(outcome.outcome, Some(Outcome::Completed));
    println!(
        "memory: {mib} MiB through client, coordinator and wasm node in {:.0} s; peak over idle:",
        started.elapsed().as_secs_f64()
    );
    for ((name, pid), idle) in processes.iter().zip(idle) {
        println!("  {name:<12} {:6.0} MiB over {idle:.0} MiB (goal: 64 MiB)", peak_mib(*pid) - idle);
    }
    println!("  task process {task_process:6.0} MiB in all, its program's pages included");
    let details = outcome.details.unwrap();
    println!("  guest memory {:.1} MiB", details.peak_memory_bytes as f64 / f64::from(1 << 20));
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// User and system time of a process and of its ended children, in milliseconds.
fn cpu_ms(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after_name = stat.rsplit_once(')').unwrap().1;
    let fields: Vec<u64> = after_name.split_whitespace().skip(11).take(4).map(|field| field.parse().unwrap()).collect();
    // Clock ticks are 100 a second on every Linux that matters.
    fields.iter().sum::<u64>() as f64 * 10.0
}

/// Most resident memory that a process ever had.
fn peak_mib(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

/// Most resident memory that any child of a process had while it was watched.
fn largest_child_mib(pid: u32, watching: &AtomicBool) -> f64 {
    let mut largest = 0.0_f64;
    while watching.load(Ordering::Relaxed) {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
        for child in children.flat_map(|line| line.split_whitespace().map(String::from).collect::<Vec<_>>()) {
            let status = fs::read_to_string(format!("/proc/{child}/status")).unwrap_or_default();
            let peak = status
                .lines()
                .find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse::<f64>().ok());
            largest = largest.max(peak.unwrap_or(0.0) / 1024.0);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    largest
}

fn spawn_cost() -> Duration {
    let started = Instant::now();
    for _ in 0..50 {
        Command::new("true").stdin(Stdio::null()).status().unwrap();
    }
    started.elapsed() / 50
}

fn fsync_cost() -> Duration {
    let dir = tempfile::tempdir().unwrap();
    let mut file = fs::File::create(dir.path().join("f")).unwrap();
    let started = Instant::now();
    for _ in 0..100 {
        file.write_all(&[0; 4096]).unwrap();
        file.sync_data().unwrap();
    }
    started.elapsed() / 100
}
