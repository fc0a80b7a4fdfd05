//! What tests and benchmarks share: an engine, and task file systems in a real vault in memory.

// `Config::cranelift_flag_enable` is unsafe; agents call it in starminer-sandbox, on which this crate must not depend.
#![allow(unsafe_code, dead_code, missing_docs, clippy::unwrap_used)]

use std::sync::Mutex;

use starminer_runtime::StopSignal;
use starminer_runtime::fs::TaskFs;
use starminer_runtime::wasm::*;
use starminer_vault::object::{SealOptions, seal_bytes};
use starminer_vault::scratch::{Opening, Scratch, ScratchContext, ScratchOptions};
use starminer_vault::{ObjectContext, ObjectReader, Purpose, Salt, TaskSecret};
use wasmtime::component::Component;

pub const TASK: [u8; 16] = [7; 16];

pub fn engine(determinism: Determinism) -> WasmEngine {
    WasmEngine::new(EngineSettings { determinism }, enable_cpu_flags).unwrap()
}

pub fn enable_cpu_flags(config: &mut wasmtime::Config, flags: &[&'static str]) {
    for flag in flags {
        // SAFETY: the engine has checked that this CPU has the features, and the flags name nothing else.
        unsafe { config.cranelift_flag_enable(flag) };
    }
}

/// Loads compiled code that was made a moment ago, as an agent would.
pub fn load(engine: &WasmEngine, compiled: &CompiledWorkload) -> Component {
    // SAFETY: the bytes come from `WasmEngine::compile` in this process.
    unsafe { Component::deserialize(engine.wasmtime(), &compiled.serialized) }.unwrap()
}

fn secret() -> TaskSecret {
    TaskSecret::from_bytes([1; 32])
}

pub fn seal_input(plain: &[u8]) -> ObjectReader<Vec<u8>> {
    let context = ObjectContext { task: TASK, name: "input", purpose: Purpose::Input };
    let (sealed, _) =
        seal_bytes(&secret(), &context, Salt::from_random([2; 32]), SealOptions::default(), plain).unwrap();
    let len = sealed.len() as u64;
    ObjectReader::open(&secret(), &context, sealed, len).unwrap()
}

pub fn task_fs(inputs: &[(&str, &[u8])], quota_bytes: u64) -> TaskFs {
    let context = ScratchContext { task: TASK, name: "scratch" };
    let opening = Opening { salt: Salt::from_random([3; 32]), attempt: 1 };
    let scratch =
        Scratch::create(Mutex::new(Vec::new()), &secret(), &context, opening, ScratchOptions::default()).unwrap();
    let mut fs = TaskFs::new(scratch, quota_bytes);
    for (name, plain) in inputs {
        fs.add_input(name, seal_input(plain)).unwrap();
    }
    fs
}

pub fn limits() -> Limits {
    Limits { fuel: 1_000_000_000, memory_bytes: 64 << 20, output_stream_bytes: 64 * 1024 }
}

pub fn request(inputs: &[(&str, &[u8])]) -> RunRequest {
    RunRequest {
        arguments: vec!["app".into()],
        environment: vec![],
        fs: task_fs(inputs, 16 << 20),
        limits: limits(),
        grants: Grants { clock: ClockGrant::Constant, random: RandomGrant::Seeded(RandomSeed::new([9; 32])) },
        stop: StopSignal::never(),
    }
}

/// Runs on a runtime like an agent's.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

pub fn run(engine: &WasmEngine, module: &[u8], request: RunRequest) -> RunOutcome {
    let component = load(engine, &engine.compile(module).unwrap());
    block_on(engine.run(&component, request)).unwrap()
}

pub fn outputs(outcome: &mut RunOutcome) -> Vec<(String, Vec<u8>)> {
    fs_outputs(&mut outcome.fs)
}

pub fn fs_outputs(fs: &mut TaskFs) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for output in fs.outputs() {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut fs.read_output(&output.path).unwrap(), &mut bytes).unwrap();
        all.push((output.path, bytes));
    }
    all
}
