//! What a sealed task must be able to do: everything that engines, vault and channel need.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use starminer_sandbox::{
    Channel, ExitStatus, LockedBytes, Program, ResourceLimit, Stderr, Zygote, load_component, seal_compiled, tighten,
};
use tract_onnx::prelude::*;
use wasmtime::component::{Component, Linker};
use wasmtime::{Config, Engine, Store, StoreLimitsBuilder};

use crate::support::{PATIENCE, answer, outcome, sealed};
use crate::{TASK, Test};

pub const TESTS: &[Test] = &[
    ("compiles_and_runs_wasm_under_tokio", compiles_and_runs_wasm_under_tokio),
    ("traps_of_a_guest_are_caught", traps_of_a_guest_are_caught),
    ("compiled_code_travels_to_another_task", compiled_code_travels_to_another_task),
    ("reads_and_writes_descriptors_it_was_handed", reads_and_writes_descriptors_it_was_handed),
    ("the_channel_works_under_tokio_at_both_ends", the_channel_works_under_tokio_at_both_ends),
    ("runs_tract", runs_tract),
    ("engines_run_with_all_memory_locked", engines_run_with_all_memory_locked),
    ("keeps_secrets_and_draws_random_bytes", keeps_secrets_and_draws_random_bytes),
    ("starts_as_many_threads_as_allowed", starts_as_many_threads_as_allowed),
    ("ends_by_panic_and_abort_like_any_process", ends_by_panic_and_abort_like_any_process),
    ("big_messages_and_many_descriptors_pass", big_messages_and_many_descriptors_pass),
];

/// One exported function for each thing that a guest can do.
const GUEST: &str = r#"(component
    (core module $m
        (memory (export "memory") 1 100)
        (data (i32.const 0) "an image of a memory")
        (func (export "sum") (param $n i32) (result i32) (local $s i32)
            (loop $again
                (local.set $s (i32.add (local.get $s) (local.get $n)))
                (local.set $n (i32.sub (local.get $n) (i32.const 1)))
                (br_if $again (local.get $n)))
            (local.get $s))
        (func (export "grow") (param i32) (result i32)
            (drop (memory.grow (local.get 0)))
            (i32.store (i32.const 100000) (i32.const 7))
            (i32.load (i32.const 100000)))
        (func (export "unreachable") (param i32) (result i32) unreachable)
        (func (export "outside") (param i32) (result i32) (i32.load (i32.const 2000000000)))
        (func (export "divide") (param i32) (result i32) (i32.div_s (i32.const 1) (local.get 0)))
        (func $deep (export "deep") (param i32) (result i32)
            (i32.add (i32.const 1) (call $deep (local.get 0)))))
    (core instance $i (instantiate $m))
    (func (export "sum") (param "n" s32) (result s32) (canon lift (core func $i "sum")))
    (func (export "grow") (param "n" s32) (result s32) (canon lift (core func $i "grow")))
    (func (export "unreachable") (param "n" s32) (result s32) (canon lift (core func $i "unreachable")))
    (func (export "outside") (param "n" s32) (result s32) (canon lift (core func $i "outside")))
    (func (export "divide") (param "n" s32) (result s32) (canon lift (core func $i "divide")))
    (func (export "deep") (param "n" s32) (result s32) (canon lift (core func $i "deep"))))"#;

fn engine() -> Engine {
    let mut config = Config::new();
    config.consume_fuel(true);
    Engine::new(&config).unwrap()
}

fn compile(engine: &Engine) -> Component {
    Component::new(engine, wat::parse_str(GUEST).unwrap()).unwrap()
}

/// Calls one export, asynchronously, yielding as fuel burns, with bounded memory.
async fn call(engine: &Engine, component: &Component, export: &str, argument: i32) -> Result<i32, String> {
    let limits = StoreLimitsBuilder::new().memory_size(4 << 20).build();
    let mut store = Store::new(engine, limits);
    store.limiter(|limits| limits);
    store.set_fuel(50_000_000).unwrap();
    store.fuel_async_yield_interval(Some(100_000)).unwrap();
    let instance = Linker::new(engine).instantiate_async(&mut store, component).await.map_err(|e| format!("{e:#}"))?;
    let function = instance.get_typed_func::<(i32,), (i32,)>(&mut store, export).unwrap();
    let result = function.call_async(&mut store, (argument,)).await;
    result.map(|(value,)| value).map_err(|error| format!("{:#}", error.root_cause()))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Does what `role` says, in a sealed task.
pub fn act(role: &str, arguments: &[String], channel: &mut Channel) -> String {
    match role {
        "wasm" => {
            let engine = engine();
            let component = compile(&engine);
            runtime().block_on(async {
                // A timer beside it: the guest has to yield for it to fire.
                let ticks = tokio::spawn(async {
                    let start = Instant::now();
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    start.elapsed() >= Duration::from_millis(5)
                });
                let sum = call(&engine, &component, "sum", 1_000_000).await;
                let grown = call(&engine, &component, "grow", 10).await;
                format!("{sum:?} {grown:?} {}", ticks.await.unwrap())
            })
        }
        "traps" => {
            let engine = engine();
            let component = compile(&engine);
            let calls = [("unreachable", 0), ("outside", 0), ("divide", 0), ("deep", 0), ("sum", 0), ("sum", 10)];
            runtime().block_on(async {
                let mut lines = Vec::new();
                for (export, argument) in calls {
                    lines.push(format!("{:?}", call(&engine, &component, export, argument).await));
                }
                lines.join("\n")
            })
        }
        "compile" => {
            let fd = seal_compiled(&compile(&engine()).serialize().unwrap()).unwrap();
            channel.send(b"compiled", &[fd.as_fd()]).unwrap();
            "done".into()
        }
        "load" => {
            let message = channel.recv().unwrap();
            let engine = engine();
            let component = load_component(&engine, &message.fds[0]).unwrap();
            format!("{:?}", runtime().block_on(call(&engine, &component, "sum", 4)))
        }
        "files" => files(channel),
        "tract" => tract(),
        "secrets" => secrets(),
        "threads" => threads(arguments),
        "tighten" => {
            let bytes: u64 = arguments[0].parse().unwrap();
            let raised = tighten(ResourceLimit::DataBytes, u64::MAX).is_ok();
            if bytes != 0 {
                tighten(ResourceLimit::DataBytes, bytes).unwrap();
                tighten(ResourceLimit::FileBytes, bytes).unwrap();
            }
            let kept: Vec<_> = (0..256).map(|_| vec![1u8; 1 << 20]).collect();
            format!("raised {raised}, allocated {} MiB", kept.len())
        }
        "panic" => panic!("as a bug would"),
        "abort" => std::process::abort(),
        "exit" => std::process::exit(23),
        "burn" => {
            let start = Instant::now();
            let mut memory = vec![1u8; 64 << 20];
            while start.elapsed() < Duration::from_millis(60) {
                memory.iter_mut().step_by(4096).for_each(|byte| *byte = byte.wrapping_add(1));
            }
            format!("{}", memory[0])
        }
        unknown => panic!("no such role: {unknown}"),
    }
}

fn compiles_and_runs_wasm_under_tokio() {
    assert_eq!(answer("wasm", &[]), "Ok(1784293664) Ok(7) true");
}

fn traps_of_a_guest_are_caught() {
    let text = answer("traps", &[]);
    let lines: Vec<_> = text.lines().collect();
    let expected = ["unreachable", "out of bounds", "divide by zero", "stack", "fuel", "Ok(55)"];
    assert_eq!(lines.len(), expected.len(), "{text}");
    for (line, part) in lines.iter().zip(expected) {
        assert!(line.contains(part), "{line} does not say {part}");
    }
}

fn compiled_code_travels_to_another_task() {
    let (mut compiler, mut channel, _) = sealed("compile", &[]);
    let message = channel.recv_timeout(PATIENCE).unwrap();
    assert_eq!((&message.bytes[..], message.fds.len()), (&b"compiled"[..], 1));
    assert!(compiler.wait().unwrap().status.success());
    for _ in 0..2 {
        let (mut runner, mut channel, _) = sealed("load", &[]);
        channel.send(b"load", &[message.fds[0].as_fd()]).unwrap();
        assert_eq!(channel.recv_timeout(PATIENCE).unwrap().bytes, b"Ok(10)");
        assert!(runner.wait().unwrap().status.success());
    }
}

/// Echoes under tokio until told to stop.
pub fn async_idle(channel: Channel) {
    runtime().block_on(async {
        let mut channel = channel.into_async().unwrap();
        while let Ok(message) = channel.recv().await {
            if message.bytes == b"stop" {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
            channel.send(&message.bytes, &[]).await.unwrap();
        }
    });
}

/// Reads the first file, appends to the second, sends back a memory file.
fn files(channel: &mut Channel) -> String {
    let message = channel.recv().unwrap();
    let mut fds = message.fds.into_iter().map(File::from);
    let (input, output) = (fds.next().unwrap(), fds.next().unwrap());
    let length = input.metadata().unwrap().len();
    let mut bytes = vec![0; length as usize];
    input.read_exact_at(&mut bytes, 0).unwrap();
    bytes.reverse();
    output.set_len(0).unwrap();
    output.write_all_at(&bytes, 10).unwrap();
    output.sync_data().unwrap();
    let memory = seal_compiled(&bytes).unwrap();
    channel.send(b"memory", &[memory.as_fd()]).unwrap();
    format!("{length} bytes")
}

fn reads_and_writes_descriptors_it_was_handed() {
    let mut input = tempfile::tempfile().unwrap();
    input.write_all(b"sealed input").unwrap();
    let output = tempfile::tempfile().unwrap();
    let (mut process, mut channel, _) = sealed("files", &[]);
    channel.send(b"files", &[input.as_fd(), output.as_fd()]).unwrap();
    let memory = channel.recv_timeout(PATIENCE).unwrap().fds.pop().unwrap();
    assert_eq!(channel.recv_timeout(PATIENCE).unwrap().bytes, b"12 bytes");
    assert!(process.wait().unwrap().status.success());
    let mut written = [0; 22];
    output.read_exact_at(&mut written, 0).unwrap();
    assert_eq!(&written, b"\0\0\0\0\0\0\0\0\0\0tupni delaes");
    let mut sealed = [0; 12];
    File::from(memory).read_exact_at(&mut sealed, 0).unwrap();
    assert_eq!(&sealed, b"tupni delaes");
}

fn the_channel_works_under_tokio_at_both_ends() {
    runtime().block_on(async {
        let arguments = [TASK, "async-idle"];
        let (mut process, channel) = tokio::task::spawn_blocking(move || {
            Zygote::start(&Program::Itself, arguments, Stderr::Null).unwrap().copy().unwrap()
        })
        .await
        .unwrap();
        let mut channel = channel.into_async().unwrap();
        let _posture = channel.recv().await.unwrap();
        for length in [0usize, 3, 1 << 20] {
            channel.send(&vec![5; length], &[]).await.unwrap();
            assert_eq!(channel.recv().await.unwrap().bytes.len(), length);
        }
        channel.send(b"stop", &[]).await.unwrap();
        let exit = process.exited().await.unwrap();
        assert_eq!(exit.status, ExitStatus::Code(0));
        // Asking again gives the same answer.
        assert_eq!(process.exited().await.unwrap(), exit);
    });
}

/// `relu(x · w)` by tract, with a matrix large enough for its optimised kernels.
fn tract() -> String {
    let size = 64;
    let mut model = TypedModel::default();
    let x = model.add_source("x", f32::fact([size, size])).unwrap();
    let weights: Vec<f32> = (0..size * size).map(|index| (index % 7) as f32 - 3.0).collect();
    let weights = tract_ndarray::Array2::from_shape_vec((size, size), weights).unwrap();
    let w = model.add_const("w", Tensor::from(weights)).unwrap();
    let product = model
        .wire_node(
            "product",
            tract_onnx::tract_core::ops::einsum::EinSum::new("mk,kn->mn".parse().unwrap(), f32::datum_type()),
            &[x, w],
        )
        .unwrap();
    model.select_output_outlets(&product).unwrap();
    let model = model.into_optimized().unwrap().into_runnable().unwrap();
    let ones = tract_ndarray::Array2::<f32>::ones((size, size));
    let result = model.run(tvec!(Tensor::from(ones).into())).unwrap();
    let sum: f32 = result[0].to_plain_array_view::<f32>().unwrap().iter().sum();
    format!("{sum}")
}

fn runs_tract() {
    // 64 rows, each the sum over all weights: 4096 values that repeat -3..=3, one left over (-3).
    assert_eq!(answer("tract", &[]), format!("{}", 64.0 * -3.0));
}

/// Both engines in this process, with all memory locked as [`starminer_sandbox::lock_process`] does it.
///
/// `None` where the kernel does not let this process do so. The limit is not asked about, as `CAP_IPC_LOCK` overrides it.
pub fn engines_with_all_memory_locked() -> Option<String> {
    // SAFETY: changes no memory, only whether it may be swapped.
    let locked = unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT) } == 0;
    let engine = locked.then(engine)?;
    let component = compile(&engine);
    let lines = runtime().block_on(async {
        let mut lines = Vec::new();
        for (export, argument) in [("sum", 10), ("grow", 10), ("outside", 0), ("sum", 4)] {
            lines.push(call(&engine, &component, export, argument).await.unwrap_or(-1).to_string());
        }
        lines.join(" ")
    });
    Some(format!("{lines} {}", tract()))
}

fn engines_run_with_all_memory_locked() {
    // Root only: a limit on locked memory would make the engine's reservations fail.
    if !crate::support::is_root() {
        return;
    }
    let output = crate::support::helper(&["lock-all"]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said} {}", output.status);
    match said.as_str() {
        "refused" => println!("  (locking all memory is refused here even to root)"),
        said => assert_eq!(said, "55 7 -1 10 -192"),
    }
}

fn secrets() -> String {
    let mut random = [0u8; 32];
    aws_lc_rs::rand::fill(&mut random).unwrap();
    let secret = LockedBytes::take(&mut random).unwrap();
    let key = aws_lc_rs::signature::Ed25519KeyPair::from_seed_unchecked(&secret).unwrap();
    let signature = key.sign(b"report");
    format!(
        "locked {} random {} signed {}",
        secret.is_locked(),
        secret.iter().any(|byte| *byte != 0),
        signature.as_ref().len()
    )
}

fn keeps_secrets_and_draws_random_bytes() {
    assert_eq!(answer("secrets", &[]), "locked true random true signed 64");
    assert_eq!(answer("secrets", &["lock=secrets"]), "locked true random true signed 64");
}

/// Starts threads until it cannot.
fn threads(arguments: &[String]) -> String {
    let wanted: usize = arguments[0].parse().unwrap();
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    let receiver = std::sync::Arc::new(std::sync::Mutex::new(receiver));
    let mut running = Vec::new();
    for _ in 0..wanted {
        let receiver = std::sync::Arc::clone(&receiver);
        // Each waits until the sender goes.
        let thread = std::thread::Builder::new().stack_size(64 << 10).name("worker".into());
        match thread.spawn(move || receiver.lock().unwrap().recv().is_ok()) {
            Ok(thread) => running.push(thread),
            Err(_) => break,
        }
    }
    drop(sender);
    let count = running.len();
    for thread in running {
        thread.join().unwrap();
    }
    format!("{count}")
}

fn starts_as_many_threads_as_allowed() {
    assert_eq!(answer("threads", &["3", "threads=3"]), "3");
    assert_eq!(answer("threads", &["8", "threads=3"]), "3");
    let (message, status) = outcome("threads", &["1"]);
    assert!(message.is_none());
    assert!(status.broke_out(), "{status:?}");
}

fn ends_by_panic_and_abort_like_any_process() {
    assert_eq!(outcome("panic", &[]).1, ExitStatus::Code(101));
    assert_eq!(outcome("exit", &[]).1, ExitStatus::Code(23));
    let aborted = outcome("abort", &[]).1;
    // Process 1 of a PID namespace ignores its own SIGABRT; the C library then ends it by a fault.
    assert!(matches!(aborted, ExitStatus::Signal(libc::SIGABRT | libc::SIGSEGV)), "{aborted:?}");
}

fn big_messages_and_many_descriptors_pass() {
    let (mut process, mut channel, _) = sealed("idle", &[]);
    let file = tempfile::tempfile().unwrap();
    let fds = vec![file.as_fd(); starminer_sandbox::MAX_MESSAGE_FDS];
    for _ in 0..20 {
        channel.send(&vec![3; starminer_sandbox::MAX_MESSAGE_BYTES], &fds).unwrap();
        let echoed = channel.recv_timeout(PATIENCE).unwrap();
        assert_eq!((echoed.bytes.len(), echoed.fds.len()), (starminer_sandbox::MAX_MESSAGE_BYTES, 8));
    }
    channel.send(b"stop", &[]).unwrap();
    assert!(process.wait().unwrap().status.success());
}
