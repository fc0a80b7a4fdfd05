//! What a process of its own costs a task: copied from a zygote, sealed, ready, exit.
//!
//! Beside it, in the same run: `/bin/true` by plain fork and exec, and this program executed but not sealed, because a
//! large executable alone takes longer to start than a small one. Then the price of single protections (by leaving
//! them out), and the rate with several processes in flight. CPU time is that of the task process, from its supervisor's
//! accounts; on a busy machine it says more than the clock.

#![allow(clippy::unwrap_used)]

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use starminer_sandbox::{Channel, InForce, Profile, Program, Protection, Sealing, Stderr, Zygote, be_zygote};
use tract_onnx::prelude::{Framework, InferenceModelExt};

const TASK: &str = "starminer-task-under-measurement";
const BARE: &str = "starminer-bare-process";
/// Under this name it runs its engines. Nobody does; but with them linked in it is as large as a real agent.
const ENGINES: &str = "starminer-engines";
/// Spawns a measurement; enough for a p99 of two samples.
const ROUNDS: usize = 200;

fn main() -> ExitCode {
    let mut arguments = std::env::args();
    match arguments.next().as_deref() {
        Some(TASK) => return task(arguments.collect()),
        Some(BARE) => return ExitCode::SUCCESS,
        Some(ENGINES) => return engines(),
        _ => {}
    }
    let size = std::fs::metadata("/proc/self/exe").unwrap().len();
    println!("this program has {} MiB", size >> 20);
    println!("{:40} {:>9} {:>9} {:>12}", "", "p50", "p99", "cpu of task");
    report("/bin/true: fork, exec, exit", || (bare(&mut Command::new("/bin/true")), None));
    report("this program: fork, exec, exit", || (bare(Command::new("/proc/self/exe").arg0(BARE)), None));
    report("zygote started, first task over", || {
        let start = Instant::now();
        let (_, _, cpu) = cycle(&mut zygote(&[]));
        (start.elapsed(), Some(cpu))
    });
    let mut common = zygote(&[]);
    report("task: copied to sealed and ready", || {
        let (ready, _, cpu) = cycle(&mut common);
        (ready, Some(cpu))
    });
    report("task: copied, sealed, ready, exit, reaped", || {
        let (_, whole, cpu) = cycle(&mut common);
        (whole, Some(cpu))
    });
    for skipped in ["no-network", "user-namespace", "mount-namespace", "pid-namespace", "landlock"] {
        let mut zygote = zygote(&[skipped]);
        report(&format!("  ready, without {skipped}"), || {
            let (ready, _, cpu) = cycle(&mut zygote);
            (ready, Some(cpu))
        });
    }
    for lanes in [1, 2, 8] {
        println!("{:40} {:>9.0}/s", format!("whole cycles, {lanes} in flight"), rate(lanes));
    }
    ExitCode::SUCCESS
}

fn engines() -> ExitCode {
    let engine = wasmtime::Engine::default();
    let wasm = wasmtime::component::Component::new(&engine, b"").is_ok();
    let model =
        tract_onnx::onnx().model_for_read(&mut std::io::empty()).and_then(|model| model.into_optimized()).is_ok();
    ExitCode::from(u8::from(wasm || model))
}

/// In the task process: seal, say so, wait to be told to go.
fn task(skipped: Vec<String>) -> ExitCode {
    let mut profile = Profile::default();
    for name in skipped {
        profile = profile.skip(Protection::from_name(&name).unwrap());
    }
    let sealing = Sealing::new(profile).unwrap();
    let born = be_zygote(&sealing).unwrap();
    let in_force = sealing.enter(born).unwrap();
    let mut channel = Channel::inherited().unwrap();
    channel.send(&in_force.encode(), &[]).unwrap();
    let _ = channel.recv();
    ExitCode::SUCCESS
}

/// Makes task processes that skip these protections.
fn zygote(skipped: &[&str]) -> Zygote {
    let arguments = [TASK].into_iter().chain(skipped.iter().copied());
    Zygote::start(&Program::Itself, arguments, Stderr::Null).unwrap()
}

/// Time to ready, time until reaped, and CPU time of one task process.
fn cycle(zygote: &mut Zygote) -> (Duration, Duration, Duration) {
    let start = Instant::now();
    let (mut process, mut channel) = zygote.copy().unwrap();
    InForce::decode(&channel.recv().unwrap().bytes).unwrap();
    let ready = start.elapsed();
    drop(channel);
    let exit = process.wait().unwrap();
    assert!(exit.status.success(), "{exit:?}");
    (ready, start.elapsed(), exit.cpu_user + exit.cpu_system)
}

fn bare(command: &mut Command) -> Duration {
    let start = Instant::now();
    assert!(command.status().unwrap().success());
    start.elapsed()
}

fn report(name: &str, mut once: impl FnMut() -> (Duration, Option<Duration>)) {
    for _ in 0..10 {
        once();
    }
    let (mut times, cpu): (Vec<_>, Vec<_>) = (0..ROUNDS).map(|_| once()).unzip();
    times.sort();
    let cpu: Option<Duration> = cpu.into_iter().sum();
    let at = |percent: usize| milliseconds(times[times.len() * percent / 100]);
    let cpu = cpu.map_or(String::new(), |cpu| milliseconds(cpu / ROUNDS as u32));
    println!("{name:40} {:>9} {:>9} {cpu:>12}", at(50), at(99));
}

fn milliseconds(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}

/// Whole cycles a second with `lanes` threads, each running one after the other.
fn rate(lanes: usize) -> f64 {
    let start = Instant::now();
    let each = ROUNDS / lanes;
    std::thread::scope(|scope| {
        for _ in 0..lanes {
            scope.spawn(|| {
                let mut zygote = zygote(&[]);
                (0..each).for_each(|_| assert!(cycle(&mut zygote).0 > Duration::ZERO));
            });
        }
    });
    (each * lanes) as f64 / start.elapsed().as_secs_f64()
}
