//! Every way in which a run can end, and every kind of module that does not get as far. Programs in text, so that each
//! case shows what it does.

#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use starminer_runtime::wasm::*;
use starminer_runtime::{Stop, StopSignal};
use support::{engine, request, run};

/// A preview-1 command whose `_start` is `body`.
fn command(body: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
            (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
            (memory (export "memory") 1)
            (data (i32.const 8) "\10\00\00\00\06\00\00\00hello\n")
            (table 1 funcref)
            (func $deep (call $deep))
            (func (export "_start") {body}))"#
    );
    wat::parse_str(text).unwrap()
}

fn check_end(body: &str, expected: RunEnd) -> RunOutcome {
    let outcome = run(&engine(Determinism::Native), &command(body), request(&[]));
    assert_eq!(outcome.end, expected, "{body}");
    outcome
}

#[test]
fn ends_of_a_guest() {
    let trap = |kind| RunEnd::Trap { kind };
    for (body, expected) in [
        ("", RunEnd::Completed { exit_code: 0 }),
        ("(call $exit (i32.const 0))", RunEnd::Completed { exit_code: 0 }),
        ("unreachable", trap(TrapKind::Unreachable)),
        ("(call $deep)", trap(TrapKind::StackOverflow)),
        ("(drop (i32.load (i32.const 0x7fffffff)))", trap(TrapKind::MemoryOutOfBounds)),
        ("(drop (i32.load offset=0xffffffff (i32.const -1)))", trap(TrapKind::MemoryOutOfBounds)),
        ("(drop (i32.div_s (i32.const 1) (i32.const 0)))", trap(TrapKind::IntegerDivisionByZero)),
        ("(drop (i32.div_s (i32.const 0x80000000) (i32.const -1)))", trap(TrapKind::IntegerOverflow)),
        ("(drop (i32.trunc_f32_s (f32.const nan)))", trap(TrapKind::FloatToInteger)),
        ("(call_indirect (i32.const 0))", trap(TrapKind::IndirectCall)),
        ("(call_indirect (i32.const 9))", trap(TrapKind::TableOutOfBounds)),
        ("(loop (br 0))", RunEnd::OutOfFuel),
        // Asks for a page until there is none, then gives up like an allocator.
        ("(loop (br_if 0 (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable", RunEnd::MemoryLimit),
        // Never takes no for an answer.
        ("(loop (drop (memory.grow (i32.const 1))) (br 0))", RunEnd::MemoryLimit),
        ("(loop (drop (table.grow (ref.null func) (i32.const 100000))) (br 0))", RunEnd::MemoryLimit),
        // Goes on without.
        ("(drop (memory.grow (i32.const 60000)))", RunEnd::Completed { exit_code: 0 }),
        // More than the type of the memory allows is the module's own affair.
        ("(drop (memory.grow (i32.const 65536))) unreachable", trap(TrapKind::Unreachable)),
    ] {
        check_end(body, expected);
    }
}

#[test]
fn a_nonzero_exit_is_told() {
    let outcome = check_end("(call $exit (i32.const 3))", RunEnd::Completed { exit_code: 1 });
    assert_eq!(outcome.end.code(), "workload.exit-nonzero");
}

#[test]
fn fuel_is_counted_exactly_and_runs_out_exactly() {
    let engine = engine(Determinism::Native);
    let module = command(
        "(local i32) (loop (br_if 0 (i32.lt_u (local.tee 0 (i32.add (local.get 0) (i32.const 1))) (i32.const 1000))))",
    );
    let used = run(&engine, &module, request(&[])).fuel_used;
    assert!(used > 4_000, "{used}");
    for (fuel, expected) in
        [(used, RunEnd::Completed { exit_code: 0 }), (used - 100, RunEnd::OutOfFuel), (0, RunEnd::OutOfFuel)]
    {
        let mut request = request(&[]);
        request.limits.fuel = fuel;
        let outcome = run(&engine, &module, request);
        assert_eq!(outcome.end, expected, "with {fuel} of {used}");
        assert!(outcome.fuel_used <= fuel);
        assert!(outcome.end.is_comparable());
    }
}

#[test]
fn memory_is_counted() {
    let page = 64 * 1024;
    let outcome = check_end("(drop (memory.grow (i32.const 9)))", RunEnd::Completed { exit_code: 0 });
    // The module's ten pages and the adapter's own.
    assert!((10 * page..20 * page).contains(&outcome.peak_memory_bytes), "{}", outcome.peak_memory_bytes);
    let mut request = request(&[]);
    request.limits.memory_bytes = page;
    let outcome = run(&engine(Determinism::Native), &command(""), request);
    assert_eq!(outcome.end, RunEnd::MemoryLimit, "a module whose first memory is too large does not start");
}

#[test]
fn a_stop_is_kept_in_a_loop_that_calls_nothing() {
    for stop in [Stop::Deadline, Stop::Cancelled] {
        let asked = Arc::new(AtomicU32::new(0));
        let count = asked.clone();
        let mut request = request(&[]);
        request.limits.fuel = u64::MAX;
        request.stop = StopSignal::new(move || (count.fetch_add(1, Ordering::Relaxed) >= 5).then_some(stop));
        let outcome = run(&engine(Determinism::Native), &command("(loop (br 0))"), request);
        assert_eq!(outcome.end, RunEnd::Stopped(stop));
        assert!(!outcome.end.is_comparable());
        assert_eq!(asked.load(Ordering::Relaxed), 6);
        assert!(outcome.fuel_used >= YIELD_INTERVAL_FUEL);
    }
}

#[test]
fn a_stop_is_kept_in_a_loop_of_host_calls() {
    let body = "(loop (drop (call $write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 0))) (br 0))";
    let asked = Arc::new(AtomicU32::new(0));
    let count = asked.clone();
    let mut request = request(&[]);
    request.limits.fuel = u64::MAX;
    request.stop = StopSignal::new(move || (count.fetch_add(1, Ordering::Relaxed) >= 20).then_some(Stop::Deadline));
    let outcome = run(&engine(Determinism::Native), &command(body), request);
    assert_eq!(outcome.end, RunEnd::Stopped(Stop::Deadline));
    // Asked more often than once in a yield's worth of fuel: moving data has its own count.
    assert!(outcome.fuel_used < 20 * YIELD_INTERVAL_FUEL, "{}", outcome.fuel_used);
}

#[test]
fn output_streams_are_kept_up_to_their_bound() {
    let body = "(local i32) (loop
        (drop (call $write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 0)))
        (drop (call $write (i32.const 2) (i32.const 8) (i32.const 1) (i32.const 0)))
        (br_if 0 (i32.lt_u (local.tee 0 (i32.add (local.get 0) (i32.const 1))) (i32.const 5))))";
    let mut request = request(&[]);
    request.limits.output_stream_bytes = 20;
    let outcome = run(&engine(Determinism::Native), &command(body), request);
    assert_eq!(outcome.end, RunEnd::Completed { exit_code: 0 });
    assert_eq!(outcome.stdout.as_slice(), b"hello\nhello\nhello\nhe");
    assert_eq!((outcome.stdout_dropped_bytes, outcome.stderr_dropped_bytes), (10, 10));
}

#[test]
fn random_bytes_follow_from_the_seed_unless_granted() {
    // Writes 16 random bytes to standard output.
    let body = "(drop (call $random (i32.const 64) (i32.const 16)))
        (i32.store (i32.const 8) (i32.const 64)) (i32.store (i32.const 12) (i32.const 16))
        (drop (call $write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 0)))";
    let engine = engine(Determinism::Native);
    let bytes = |random| {
        let mut request = request(&[]);
        request.grants.random = random;
        run(&engine, &command(body), request).stdout.to_vec()
    };
    let seeded = |seed| bytes(RandomGrant::Seeded(RandomSeed::new([seed; 32])));
    assert_eq!(seeded(1).len(), 16);
    assert_eq!(seeded(1), seeded(1));
    assert_ne!(seeded(1), seeded(2));
    assert_ne!(bytes(RandomGrant::Host), bytes(RandomGrant::Host));
}

#[test]
fn clocks_stand_still_unless_granted() {
    // Exits with 1 if a clock shows anything but zero.
    let body = "(drop (call $clock (i32.const 0) (i64.const 1) (i32.const 64)))
        (drop (call $clock (i32.const 1) (i64.const 1) (i32.const 72)))
        (call $exit (i64.ne (i64.or (i64.load (i32.const 64)) (i64.load (i32.const 72))) (i64.const 0)))";
    check_end(body, RunEnd::Completed { exit_code: 0 });
    let mut request = request(&[]);
    request.grants.clock = ClockGrant::Host;
    let outcome = run(&engine(Determinism::Native), &command(body), request);
    assert_eq!(outcome.end, RunEnd::Completed { exit_code: 1 });
}

fn check_refused(bytes: &[u8], code: &str) {
    match engine(Determinism::Native).compile(bytes) {
        Err(CompileError::Refused(refusal)) => assert_eq!(refusal.code(), code, "{}", refusal.detail()),
        other => panic!("{code}: {other:?}"),
    }
}

#[test]
fn what_is_no_command_is_refused_with_its_code() {
    let module = |text: &str| wat::parse_str(text).unwrap();
    check_refused(b"", "engine.wasm.not-wasm");
    check_refused(b"(module)", "engine.wasm.not-wasm");
    check_refused(b"\x7fELF\x02\x01\x01\x00\x00", "engine.wasm.not-wasm");
    check_refused(b"\0asm\x02\0\0\0", "engine.wasm.unknown-version");
    check_refused(b"\0asm\x01\0\0\0\xff\xff", "engine.wasm.invalid");
    check_refused(b"\0asm\x0d\0\x01\0\xff\xff", "engine.wasm.invalid");
    check_refused(&vec![0; MAX_MODULE_BYTES + 1], "engine.wasm.too-large");
    check_refused(&module("(module)"), "engine.wasm.not-a-command");
    check_refused(
        &module(r#"(module (import "env" "evil" (func)) (func (export "_start")) (memory (export "memory") 1))"#),
        "engine.wasm.not-a-command",
    );
    // Threads and 64-bit memories are off.
    check_refused(
        &module(r#"(module (memory (export "memory") 1 1 shared) (func (export "_start")))"#),
        "engine.wasm.invalid",
    );
    check_refused(
        &module(r#"(component (core module $m (memory 1 1 shared)) (core instance (instantiate $m)))"#),
        "engine.wasm.invalid",
    );
    check_refused(
        &module(r#"(component (core module $m (memory i64 1)) (core instance (instantiate $m)))"#),
        "engine.wasm.invalid",
    );
}

#[test]
fn a_component_with_more_imports_than_a_task_is_given_does_not_start() {
    let engine = engine(Determinism::Native);
    for text in [
        r#"(component (import "wasi:sockets/instance-network@0.2.0" (instance (export "instance-network" (func (result u32))))))"#,
        r#"(component (import "wasi:http/outgoing-handler@0.2.0" (instance)))"#,
        "(component)",
    ] {
        let outcome = run(&engine, &wat::parse_str(text).unwrap(), request(&[]));
        match &outcome.end {
            RunEnd::Refused(refusal) => assert_eq!(refusal.code(), "engine.wasm.not-linkable"),
            other => panic!("{text}: {other:?}"),
        }
    }
}

#[test]
fn arguments_are_bounded() {
    let mut request = request(&[]);
    request.arguments.push("a".repeat(300 * 1024));
    let outcome = run(&engine(Determinism::Native), &command(""), request);
    assert_eq!(outcome.end.code(), "engine.wasm.bad-arguments");
}

#[test]
fn an_engine_needs_exactly_the_pinned_features() {
    let settings = EngineSettings { determinism: Determinism::Native };
    let none = WasmEngine::new(settings, |_, _| {});
    assert_eq!(none.unwrap_err().code(), "host.cpu-features-not-pinned");
    let more = WasmEngine::new(settings, |config, flags| {
        support::enable_cpu_flags(config, flags);
        support::enable_cpu_flags(config, &["has_avx512f"]);
    });
    assert_eq!(more.unwrap_err().code(), "host.cpu-features-not-pinned");
}
