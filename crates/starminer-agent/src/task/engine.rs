//! Running a workload in its engine, and naming what ran.

use std::sync::Arc;
use std::time::{Duration, Instant};

use starminer_receipt::{
    Determinism, EngineRecord, JobManifest, KemPrivateKey, Limits, OnnxManifest, SealedSecret, Signed, Signer as _,
    SigningKey, TaskSpec, WasmManifest,
};
use starminer_runtime::fs::TaskFs;
use starminer_runtime::onnx::{self, MAX_MODEL_BYTES, OnnxConfig, OnnxRequest};
use starminer_runtime::wasm::{
    self, ClockGrant, EngineError, EngineSettings, MAX_MODULE_BYTES, RandomGrant, RandomSeed, RunRequest, WasmEngine,
};
use starminer_runtime::{EngineBuild, StopSignal, engine_build};
use starminer_vault::{TaskSecret, commit};
use starminer_verify::{Digest, Party, Refusal, TaskId};
use zeroize::Zeroizing;

use super::compiled::{self, Loaded};
use super::files::{StorageFull, VaultInput};
use super::link::Link;
use super::objects::{OpenedObject, read_all};
use super::run::begin_guest;
use super::verdict::{Ending, Halt};

/// Most bytes kept of each of standard output and standard error. A program with more to say writes a file.
pub(crate) const MAX_LOG_BYTES: u64 = 8 << 20;
/// How much work between two commits an ONNX run may lose to a power cut.
const ONNX_COMMIT_EVERY: Duration = Duration::from_secs(1);
/// What a wasm program finds as its own name.
const PROGRAM_NAME: &str = "workload";
/// Instruction set that compiled wasm is limited to.
const WASM_CPU_TARGET: &str = "x86-64-v3";
/// A component with nothing in it: its header.
const EMPTY_COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";
/// tract chooses its kernels by what the processor has.
const ONNX_CPU_TARGET: &str = "x86-64 (kernels by processor)";

/// What no task can influence and every task needs, made before there is one.
pub(crate) struct Warm {
    native: Result<WasmEngine, EngineError>,
    runtime: Option<tokio::runtime::Runtime>,
    build: EngineBuild,
}

impl Warm {
    pub(crate) fn new() -> Self {
        let native = wasm_engine(Determinism::Native);
        ask_the_processor(native.as_ref().ok());
        Self {
            native,
            // One thread, and timers for programs that were granted a clock.
            runtime: tokio::runtime::Builder::new_current_thread().enable_time().build().ok(),
            build: engine_build(),
        }
    }

    fn engine(self, determinism: Determinism) -> Result<(WasmEngine, tokio::runtime::Runtime, EngineBuild), Ending> {
        let engine = match determinism {
            Determinism::Native => self.native,
            Determinism::Portable => wasm_engine(determinism),
        };
        let engine = engine.map_err(|error| Ending::of_engine_error(&error))?;
        Ok((engine, self.runtime.ok_or_else(no_runtime)?, self.build))
    }
}

/// Has every library ask once what this processor can do, and remember it: a virtual machine leaves the guest for each of these
/// questions, a task's process would ask forty of them, and the answers are the same for all. On fixed texts: no randomness is drawn.
fn ask_the_processor(engine: Option<&WasmEngine>) {
    let seed = Zeroizing::new([0; 32]);
    if let Ok(key) = KemPrivateKey::from_seed(&seed) {
        let sealed = SealedSecret::seal(key.public_key(), b"", b"", &[], &Zeroizing::new([0; 64]));
        let _ = sealed.and_then(|sealed| sealed.open(&key, b"", b""));
    }
    std::hint::black_box(SigningKey::from_seed(&seed).sign(b""));
    std::hint::black_box(commit(&TaskSecret::from_bytes(*seed), &[0; 16], "", &[0; 32]));
    if let Some(engine) = engine
        && let Ok(compiled) = engine.compile(EMPTY_COMPONENT)
        && let Ok(sealed) = starminer_sandbox::seal_compiled(&compiled.serialized)
    {
        let _ = starminer_sandbox::load_component(engine.wasmtime(), sealed);
    }
}

fn no_runtime() -> Ending {
    Ending::Refused(Refusal::new(
        Party::Node,
        "host.engine",
        "the engine's event loop could not be made",
        "nothing is wrong with the task: another node can run it",
    ))
}

fn wasm_engine(determinism: Determinism) -> Result<WasmEngine, EngineError> {
    let determinism = match determinism {
        Determinism::Native => wasm::Determinism::Native,
        Determinism::Portable => wasm::Determinism::Portable,
    };
    WasmEngine::new(EngineSettings { determinism }, starminer_sandbox::enable_cpu_flags)
}

/// What a run needs and what is filled in on the way, for the report.
pub(crate) struct Job<'a> {
    pub spec: &'a Signed<TaskSpec>,
    pub secret: &'a TaskSecret,
    pub manifest: JobManifest,
    /// The manifest's bytes; private.
    pub manifest_plain: Zeroizing<Vec<u8>>,
    pub workload: OpenedObject,
    pub inputs: Vec<OpenedObject>,
    pub fs: TaskFs,
    pub storage_full: StorageFull,
    pub stop: StopSignal,
}

/// What a run left.
pub(crate) struct Produced {
    pub ending: Ending,
    pub exit_code: Option<i32>,
    pub fuel_used: Option<u64>,
    pub peak_memory_bytes: u64,
    pub stdout: Zeroizing<Vec<u8>>,
    pub stderr: Zeroizing<Vec<u8>>,
    /// The task's files; absent where the run lost them.
    pub fs: Option<TaskFs>,
}

/// Runs the job. `record` is filled as soon as it is known what will run, also where the run then fails.
pub(crate) fn run(
    job: Job<'_>,
    link: &mut Link,
    warm: Warm,
    record: &mut Option<EngineRecord>,
) -> Result<Produced, Halt> {
    match (job.manifest.wasm.clone(), job.manifest.onnx.clone()) {
        (Some(manifest), None) => run_wasm(job, manifest, link, warm, record),
        (None, Some(manifest)) => run_onnx(job, manifest, link, warm, record),
        _ => Err(Ending::Defect("a manifest for no engine or for two").into()),
    }
}

fn run_wasm(
    job: Job<'_>,
    manifest: WasmManifest,
    link: &mut Link,
    warm: Warm,
    record: &mut Option<EngineRecord>,
) -> Result<Produced, Halt> {
    let limits = job.spec.limits;
    let seed = guest_seed(&job);
    let Job { spec, secret, workload, mut fs, inputs, manifest: names, storage_full, stop, .. } = job;
    add_inputs(&mut fs, &names.inputs, &inputs)?;
    let (engine, runtime, build) = warm.engine(spec.determinism)?;
    let module = read_all(&workload, MAX_MODULE_BYTES)?;
    let Loaded { component, record: made } = compiled::load(link, &engine, &build, &module, workload.sha256)?;
    drop(module);

    let mut digests = vec![("module", Digest(workload.sha256)), ("component", made.component)];
    digests.extend(made.adapter.map(|adapter| ("adapter", adapter)));
    digests.push(("compiled", made.compiled));
    *record = Some(EngineRecord {
        kind: "wasm".into(),
        build: format!("{}, wasmtime {}, settings {}", build.runtime, build.wasmtime, Digest(build.settings_sha256)),
        cpu_target: WASM_CPU_TARGET.into(),
        digests: committed(secret, spec.task, digests),
    });

    let mut arguments = vec![PROGRAM_NAME.to_owned()];
    arguments.extend(manifest.args);
    let output_stream_bytes = usize::try_from(limits.output_bytes.min(MAX_LOG_BYTES)).unwrap_or(usize::MAX);
    let request = RunRequest {
        arguments,
        environment: manifest.env,
        fs,
        limits: wasm::Limits { fuel: limits.fuel, memory_bytes: limits.memory_bytes, output_stream_bytes },
        grants: wasm::Grants {
            clock: if spec.grants.clock { ClockGrant::Host } else { ClockGrant::Constant },
            random: if spec.grants.random { RandomGrant::Host } else { RandomGrant::Seeded(RandomSeed::new(seed.0)) },
        },
        stop,
    };
    begin_guest(link, spec)?;
    let outcome = runtime
        .block_on(engine.run(&component, request))
        .map_err(|fault| Ending::of_host_fault(fault, storage_full.is_set()))?;
    let exit_code = match &outcome.end {
        wasm::RunEnd::Completed { exit_code } => Some(i32::from(*exit_code)),
        _ => None,
    };
    let dropped = outcome.stdout_dropped_bytes > 0 || outcome.stderr_dropped_bytes > 0;
    let mut ending = Ending::of_run(outcome.end, &limits, storage_full.is_set());
    if dropped && ending == Ending::Completed {
        // A log that was cut is no complete result, and nobody must take it for one.
        ending = log_limit(output_stream_bytes);
    }
    Ok(Produced {
        ending,
        exit_code,
        fuel_used: Some(outcome.fuel_used),
        peak_memory_bytes: outcome.peak_memory_bytes,
        stdout: outcome.stdout,
        stderr: outcome.stderr,
        fs: Some(outcome.fs),
    })
}

fn log_limit(most_bytes: usize) -> Ending {
    Ending::Refused(Refusal::new(
        Party::Requester,
        "limits.log-size",
        format!("standard output or standard error is longer than the {most_bytes} bytes that are kept of each"),
        "write long results to files under /out, or raise limits.output_bytes where that is the bound",
    ))
}

fn run_onnx(
    job: Job<'_>,
    manifest: OnnxManifest,
    link: &mut Link,
    warm: Warm,
    record: &mut Option<EngineRecord>,
) -> Result<Produced, Halt> {
    let limits = job.spec.limits;
    let Job { spec, secret, workload, mut fs, inputs, manifest: names, storage_full, stop, .. } = job;
    let runtime = warm.runtime.ok_or_else(no_runtime)?;
    if workload.reader.len() > MAX_MODEL_BYTES {
        let refusal = Refusal::new(
            Party::Requester,
            "workload.too-large",
            "the model is larger than its engine takes",
            "make the model smaller",
        );
        return Err(Ending::Refused(refusal).into());
    }
    let model = model_name(&names.inputs);
    *record = Some(EngineRecord {
        kind: "onnx".into(),
        build: format!("{}, tract {}", warm.build.runtime, warm.build.tract),
        cpu_target: ONNX_CPU_TARGET.into(),
        digests: committed(secret, spec.task, vec![("model", Digest(workload.sha256))]),
    });
    add_inputs(&mut fs, &names.inputs, &inputs)?;
    add_input(&mut fs, &model, &workload)?;
    let request = OnnxRequest {
        config: OnnxConfig {
            model,
            input: manifest.input,
            output: manifest.output,
            id_column: manifest.id_column,
            ignore_columns: manifest.ignore_columns,
        },
        fs,
        memory_bytes: limits.memory_bytes,
        stop,
        commit_every: ONNX_COMMIT_EVERY,
    };
    // The model is the requester's and tract not written for strangers: from here on nothing this process says about
    // compiled code counts.
    begin_guest(link, spec)?;
    let outcome = runtime.block_on(onnx::run(request));
    let completed = matches!(outcome.end, wasm::RunEnd::Completed { exit_code: 0 });
    Ok(Produced {
        ending: Ending::of_run(outcome.end, &limits, storage_full.is_set()),
        exit_code: completed.then_some(0),
        fuel_used: None,
        peak_memory_bytes: 0,
        stdout: Zeroizing::default(),
        stderr: Zeroizing::default(),
        fs: Some(outcome.fs),
    })
}

/// A name under `/in` for the model that no input has.
fn model_name(inputs: &[String]) -> String {
    let mut name = String::from("model.onnx");
    while inputs.contains(&name) {
        name.insert(0, '_');
    }
    name
}

fn add_inputs(fs: &mut TaskFs, names: &[String], inputs: &[OpenedObject]) -> Result<(), Ending> {
    names.iter().zip(inputs).try_for_each(|(name, input)| add_input(fs, name, input))
}

fn add_input(fs: &mut TaskFs, name: &str, input: &OpenedObject) -> Result<(), Ending> {
    fs.add_input(name, VaultInput::new(Arc::clone(&input.reader))).map_err(|error| {
        Ending::Refused(Refusal::new(
            Party::Requester,
            error.code(),
            error.to_string(),
            "give every input a name of its own that is one path component",
        ))
    })
}

/// Seed of the guest's pseudo-random bytes: follows from what runs and nothing else, so that the same job on any node in
/// any attempt sees the same bytes. It is a hash of private plaintext, so that nobody else can foretell them.
fn guest_seed(job: &Job<'_>) -> Digest {
    let mut hash = starminer_verify::TaggedHasher::new("guest-seed");
    hash.field(&job.workload.sha256).field(&job.manifest_plain);
    for input in &job.inputs {
        hash.field(&input.sha256);
    }
    hash.finish()
}

/// Digests of private bytes, as commitments under the task secret.
fn committed(secret: &TaskSecret, task: TaskId, digests: Vec<(&str, Digest)>) -> Vec<(String, Digest)> {
    let commitment =
        |name: &str, digest: &Digest| Digest(commit(secret, &task.0, &format!("engine/{name}"), &digest.0));
    digests.iter().map(|(name, digest)| ((*name).to_owned(), commitment(name, digest))).collect()
}

/// The task's deadline as the engines ask for it.
pub(crate) fn deadline(started: Instant, limits: &Limits) -> StopSignal {
    let end = started.checked_add(std::time::Duration::from_millis(limits.wall_limit_ms));
    StopSignal::new(move || end.is_none_or(|end| Instant::now() >= end).then_some(starminer_runtime::Stop::Deadline))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_never_takes_the_name_of_an_input() {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(model_name(&names(&["patients.csv"])), "model.onnx");
        assert_eq!(model_name(&names(&["_model.onnx", "model.onnx"])), "__model.onnx");
    }

    #[test]
    fn a_deadline_comes_and_stays() {
        let limits = Limits { wall_limit_ms: 1, ..Limits::default() };
        let started = Instant::now();
        let stop = deadline(started, &limits);
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert!(stop.stop().is_some() && stop.stop().is_some());
        assert!(deadline(started, &Limits::default()).stop().is_none());
    }
}
