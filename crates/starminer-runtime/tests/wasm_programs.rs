//! Real programs, compiled from C (sources and recipe in `examples/`): one that does honest work, and those that misbehave
//! in one way each. And the promise that a run repeats bit for bit.

#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use starminer_runtime::wasm::*;
use starminer_runtime::{HostFault, Stop, StopSignal};
use support::{engine, outputs, request, run};

macro_rules! example {
    ($path:literal) => {
        include_bytes!(concat!("../../../examples/", $path)).as_slice()
    };
}

const EXITED: RunEnd = RunEnd::Completed { exit_code: 0 };

/// The last line of standard output: `exit: N`, by which these programs tell the code that the adapter swallows.
fn verdict(outcome: &RunOutcome) -> Option<i32> {
    let text = std::str::from_utf8(&outcome.stdout).ok()?;
    text.lines().last()?.strip_prefix("exit: ")?.parse().ok()
}

fn hostile(module: &[u8], adjust: impl FnOnce(&mut RunRequest)) -> RunOutcome {
    let mut request = request(&[("data.csv", b"a,b\n1,2\n")]);
    request.limits.fuel = 20_000_000_000;
    adjust(&mut request);
    run(&engine(Determinism::Native), module, request)
}

#[test]
fn word_count_gives_what_is_expected() {
    let notes = example!("wordcount/clinic-notes.txt");
    let request = request(&[("clinic-notes.txt", notes)]);
    let mut outcome = run(&engine(Determinism::Portable), example!("wordcount/wordcount.wasm"), request);
    assert_eq!(outcome.end, EXITED, "{}", String::from_utf8_lossy(&outcome.stderr));
    let expected = [
        ("report.csv".to_owned(), example!("wordcount/expected/report.csv").to_vec()),
        ("top-words.txt".to_owned(), example!("wordcount/expected/top-words.txt").to_vec()),
    ];
    assert_eq!(outputs(&mut outcome), expected);
    assert_eq!(outcome.fs.open_count(), 0, "everything the guest held is closed");
}

#[test]
fn traps_and_endless_work_end_by_name() {
    let trap = |kind| RunEnd::Trap { kind };
    for (module, expected) in [
        (example!("hostile/trap.wasm"), trap(TrapKind::Unreachable)),
        // Its stack lies at the bottom of its memory (--stack-first), so it falls out of the memory.
        (example!("hostile/stack.wasm"), trap(TrapKind::MemoryOutOfBounds)),
        (example!("runaway/runaway.wasm"), RunEnd::OutOfFuel),
        (example!("empty/empty.wasm"), EXITED),
    ] {
        assert_eq!(hostile(module, |request| request.limits.fuel = 100_000_000).end, expected);
    }
}

#[test]
fn memory_without_end_is_refused() {
    let outcome = hostile(example!("hostile/oom.wasm"), |_| {});
    assert_eq!(verdict(&outcome), Some(7));
    assert!(outcome.peak_memory_bytes <= 64 << 20);
}

#[test]
fn files_without_end_are_refused() {
    let outcome = hostile(example!("hostile/hugeout.wasm"), |_| {});
    assert_eq!(verdict(&outcome), Some(28), "{}", String::from_utf8_lossy(&outcome.stdout));
    assert!(outcome.fs.used_bytes() <= 16 << 20);
    let outcome = hostile(example!("hostile/manyfiles.wasm"), |_| {});
    assert_eq!(verdict(&outcome), Some(28), "{}", String::from_utf8_lossy(&outcome.stdout));
    let outcome = hostile(example!("hostile/fds.wasm"), |_| {});
    assert!(matches!(verdict(&outcome), Some(code) if code > 2), "{}", String::from_utf8_lossy(&outcome.stdout));
}

#[test]
fn no_path_leads_out() {
    let mut outcome = hostile(example!("hostile/escape.wasm"), |_| {});
    let text = String::from_utf8_lossy(&outcome.stdout).into_owned();
    assert_eq!(outcome.end, EXITED, "{text}");
    assert!(!text.lines().any(|line| line.starts_with("SUCCEEDED")), "{text}");
    assert_eq!(verdict(&outcome), Some(0), "{text}");
    let inputs = outcome.fs.open_grant(starminer_runtime::fs::Grant::Inputs).unwrap();
    assert_eq!(outcome.fs.stat_at(&inputs, "data.csv").unwrap().size_bytes, 8, "the input is as it was");
}

#[test]
fn sockets_are_not_there() {
    let outcome = hostile(example!("hostile/socket.wasm"), |_| {});
    assert!(
        matches!(outcome.end, RunEnd::Trap { .. }) || verdict(&outcome) == Some(0),
        "{:?} {}",
        outcome.end,
        String::from_utf8_lossy(&outcome.stdout)
    );
}

#[test]
fn logs_without_end_are_bounded_and_stopped() {
    let asked = Arc::new(AtomicU32::new(0));
    let outcome = hostile(example!("hostile/logflood.wasm"), |request| {
        request.limits.fuel = u64::MAX;
        request.stop = StopSignal::new(move || (asked.fetch_add(1, Ordering::Relaxed) > 50).then_some(Stop::Deadline));
    });
    assert_eq!(outcome.end, RunEnd::Stopped(Stop::Deadline));
    assert!(outcome.stdout.len() <= 64 * 1024 && outcome.stderr.len() <= 64 * 1024);
    assert!(outcome.stdout_dropped_bytes > 0);
}

#[test]
fn a_sleep_of_a_day_is_over_at_once_or_ends_at_the_deadline() {
    let constant = hostile(example!("hostile/sleep.wasm"), |_| {});
    assert!(matches!(constant.end, RunEnd::Completed { .. }), "{:?}", constant.end);
    let started = std::time::Instant::now();
    let granted = hostile(example!("hostile/sleep.wasm"), |request| {
        request.grants.clock = ClockGrant::Host;
        request.stop = StopSignal::new(move || {
            (started.elapsed() > std::time::Duration::from_millis(200)).then_some(Stop::Deadline)
        });
    });
    assert_eq!(granted.end, RunEnd::Stopped(Stop::Deadline));
    assert!(started.elapsed() < std::time::Duration::from_secs(10));
}

#[test]
fn impossible_host_calls_are_refused_or_trap() {
    for case in 0..=12 {
        let number = case.to_string();
        let mut request = request(&[("case", number.as_bytes())]);
        request.limits.fuel = 2_000_000_000;
        let outcome = run(&engine(Determinism::Native), example!("hostile/malformed.wasm"), request);
        let text = String::from_utf8_lossy(&outcome.stdout).into_owned();
        assert!(
            matches!(outcome.end, RunEnd::Completed { .. } | RunEnd::Trap { .. } | RunEnd::OutOfFuel),
            "case {case}: {:?} {text}",
            outcome.end
        );
    }
}

#[test]
fn a_component_runs_as_the_module_it_was_made_from() {
    let module = example!("wordcount/wordcount.wasm");
    let component = wit_component::ComponentEncoder::default()
        .module(module)
        .unwrap()
        .adapter(
            wasi_preview1_component_adapter_provider::WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME,
            wasi_preview1_component_adapter_provider::WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER,
        )
        .unwrap()
        .encode()
        .unwrap();
    let engine = engine(Determinism::Native);
    let [from_module, from_component] = [module, &component].map(|bytes| engine.compile(bytes).unwrap());
    assert_eq!(from_module.adapter, AdapterUse::Preview1(preview1_adapter_sha256()));
    assert_eq!(from_component.adapter, AdapterUse::None);
    assert_eq!(from_component.module_sha256, from_component.component_sha256);
    assert_eq!(from_module.component_sha256, from_component.component_sha256);
    assert_eq!(from_module.compiled_sha256, from_component.compiled_sha256);
    assert_ne!(from_module.module_sha256, from_component.module_sha256);
    let outcome = run(&engine, &component, request(&[("notes.txt", b"one two two")]));
    assert_eq!(outcome.end, EXITED);
}

#[test]
fn a_store_that_fails_ends_the_run_as_the_hosts_fault() {
    let fs = support::task_fs_over(support::FullDisk::new(2 << 20), 1 << 30);
    let outcome = hostile(example!("hostile/hugeout.wasm"), |request| request.fs = fs);
    assert_eq!(outcome.end, RunEnd::HostFault(HostFault::SCRATCH));
    assert!(!outcome.end.is_comparable());
}

/// `bigread`'s checksum, computed again.
fn checksum(data: &[u8]) -> u64 {
    let mut sum = 0xcbf2_9ce4_8422_2325_u64;
    for word in data.chunks(8) {
        let mut bytes = [0; 8];
        bytes[..word.len()].copy_from_slice(word);
        sum = (sum ^ u64::from_le_bytes(bytes)).rotate_left(29).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    sum ^ data.len() as u64
}

#[test]
fn a_large_input_streams_through() {
    let data: Vec<u8> = (0..5_000_003_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut request = request(&[("data.bin", &data)]);
    request.limits.memory_bytes = 2 << 20;
    let mut outcome = run(&engine(Determinism::Native), example!("hostile/bigread.wasm"), request);
    assert_eq!(outcome.end, EXITED);
    let expected = format!("{:016x} {}\n", checksum(&data), data.len());
    assert_eq!(outputs(&mut outcome), [("sum.txt".to_owned(), expected.into_bytes())]);
}

/// Everything of a run that another node's run is compared with.
#[derive(Debug, PartialEq)]
struct Fingerprint {
    compiled_sha256: Sha256Digest,
    component_sha256: Sha256Digest,
    end: RunEnd,
    fuel_used: u64,
    peak_memory_bytes: u64,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    outputs: Vec<(String, Vec<u8>)>,
}

fn fingerprint(determinism: Determinism, module: &[u8], inputs: &[(&str, &[u8])]) -> Fingerprint {
    // An engine of its own each time: nothing may hang on what another compiled before.
    let engine = engine(determinism);
    let compiled = engine.compile(module).unwrap();
    let component = support::load(&engine, &compiled);
    let mut request = request(inputs);
    request.limits.fuel = 3_000_000_000;
    let mut outcome = support::block_on(engine.run(&component, request)).unwrap();
    Fingerprint {
        compiled_sha256: compiled.compiled_sha256,
        component_sha256: compiled.component_sha256,
        end: outcome.end.clone(),
        fuel_used: outcome.fuel_used,
        peak_memory_bytes: outcome.peak_memory_bytes,
        stdout: outcome.stdout.to_vec(),
        stderr: outcome.stderr.to_vec(),
        outputs: outputs(&mut outcome),
    }
}

#[test]
fn a_run_repeats_bit_for_bit() {
    let notes = example!("wordcount/clinic-notes.txt");
    for (module, inputs) in [
        (example!("hostile/clock.wasm"), &[("a", b"1".as_slice()), ("b", b"2")][..]),
        (example!("wordcount/wordcount.wasm"), &[("notes.txt", notes)][..]),
        (example!("hostile/hugeout.wasm"), &[][..]),
        (example!("hostile/oom.wasm"), &[][..]),
        (example!("hostile/stack.wasm"), &[][..]),
        (example!("runaway/runaway.wasm"), &[][..]),
    ] {
        for determinism in [Determinism::Portable, Determinism::Native] {
            let first = fingerprint(determinism, module, inputs);
            assert_eq!(first, fingerprint(determinism, module, inputs));
            assert!(first.fuel_used > 0);
        }
    }
    let [portable, native] =
        [Determinism::Portable, Determinism::Native].map(|d| fingerprint(d, example!("hostile/clock.wasm"), &[]));
    assert_ne!(portable.compiled_sha256, native.compiled_sha256, "the two settings give different code");
    assert_eq!(portable.component_sha256, native.component_sha256);
}

/// Not a test of its own: what `compiled_code_is_the_same_in_another_process` starts.
#[test]
#[ignore = "started by another test"]
fn print_compiled_digest() {
    let compiled = engine(Determinism::Portable).compile(example!("wordcount/wordcount.wasm")).unwrap();
    println!("compiled {:?} component {:?}", compiled.compiled_sha256, compiled.component_sha256);
}

/// Within one process, address space and hash seeds are the same: another one must agree too.
#[test]
fn compiled_code_is_the_same_in_another_process() {
    let digests = || {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "print_compiled_digest", "--include-ignored", "--nocapture"])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().find_map(|line| line.find("compiled [").map(|at| line[at..].to_owned())).unwrap()
    };
    assert_eq!(digests(), digests());
}

/// One changed bit in a module: it is refused or it runs to some end, and the process lives.
#[test]
fn altered_modules_never_end_the_process() {
    let engine = engine(Determinism::Native);
    let mut state = 1_u64;
    for module in [example!("hostile/logflood.wasm"), example!("hostile/trap.wasm"), example!("runaway/runaway.wasm")] {
        for _ in 0..60 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let mut altered = module.to_vec();
            let at = (state >> 33) as usize % altered.len();
            altered[at] ^= 1 << (state >> 60 & 7);
            match engine.compile(&altered) {
                Err(CompileError::Refused(_)) => {}
                Err(CompileError::Host(fault)) => panic!("{fault} at byte {at}"),
                Ok(compiled) => {
                    let component = support::load(&engine, &compiled);
                    let mut request = request(&[]);
                    request.limits.fuel = 1_000_000;
                    let outcome = support::block_on(engine.run(&component, request)).unwrap();
                    assert!(!matches!(outcome.end, RunEnd::HostFault(_)), "byte {at}: {:?}", outcome.end);
                }
            }
        }
    }
}

#[test]
fn not_a_number_has_one_spelling_where_the_specification_asks_for_it() {
    let mut outcome = run(&engine(Determinism::Portable), example!("hostile/clock.wasm"), request(&[]));
    let env = outputs(&mut outcome).remove(0).1;
    let env = String::from_utf8(env).unwrap();
    for name in ["0/0", "inf-inf", "sqrt(-1)"] {
        assert!(env.contains(&format!("{name}=7ff8000000000000\n")), "{name}: {env}");
    }
}
