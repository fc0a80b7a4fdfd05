//! What tests and benchmarks share: an engine, and task file systems in a real vault in memory.

// `Config::cranelift_flag_enable` is unsafe; agents call it in starminer-sandbox, on which this crate must not depend.
#![allow(unsafe_code, dead_code, missing_docs, clippy::unwrap_used)]

use std::io;
use std::sync::Mutex;

use starminer_runtime::StopSignal;
use starminer_runtime::fs::{ScratchError, ScratchFiles, ScratchId, StateFiles, TaskFs};
use starminer_runtime::wasm::*;
use starminer_vault::object::{SealOptions, seal_bytes};
use starminer_vault::scratch::{Opening, Scratch, ScratchContext, ScratchOptions};
use starminer_vault::{FileId, ObjectContext, ObjectReader, PageStore, Purpose, ReadAt, Salt, TaskSecret, WriteAt};
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
    let mut fs = task_fs_over(Mutex::new(Vec::new()), quota_bytes);
    for (name, plain) in inputs {
        fs.add_input(name, seal_input(plain)).unwrap();
    }
    fs
}

pub fn task_fs_over(store: impl PageStore + Send + 'static, quota_bytes: u64) -> TaskFs {
    let context = ScratchContext { task: TASK, name: "scratch" };
    let opening = Opening { salt: Salt::from_random([3; 32]), attempt: 1 };
    let scratch = Scratch::create(store, &secret(), &context, opening, ScratchOptions::default()).unwrap();
    TaskFs::new(scratch, quota_bytes)
}

/// A store on a disk that has `room` bytes.
pub struct FullDisk {
    bytes: Mutex<Vec<u8>>,
    room: u64,
}

impl FullDisk {
    pub fn new(room: u64) -> Self {
        FullDisk { bytes: Mutex::new(Vec::new()), room }
    }
}

impl ReadAt for FullDisk {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.bytes.read_at(buf, offset)
    }

    fn byte_len(&self) -> io::Result<u64> {
        self.bytes.byte_len()
    }
}

impl WriteAt for FullDisk {
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        if offset + buf.len() as u64 > self.room {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.bytes.write_all_at(buf, offset)
    }
}

impl PageStore for FullDisk {
    fn set_len(&self, len_bytes: u64) -> io::Result<()> {
        self.bytes.set_len(len_bytes)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
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

/// A committed state over a store, as an agent's task process has it: names in the first file, everything else behind it.
pub struct State<S> {
    scratch: Scratch<S>,
    /// Checkpoints made.
    pub commits: std::sync::Arc<std::sync::atomic::AtomicU32>,
}

const TREE: FileId = FileId(1);

impl<S: PageStore + Send> State<S> {
    /// The state as attempt `attempt` finds it.
    pub fn open(store: S, attempt: u32) -> Self {
        let context = ScratchContext { task: TASK, name: "state" };
        let opening = Opening { salt: Salt::from_random([u8::try_from(attempt).unwrap(); 32]), attempt };
        let options = ScratchOptions::default();
        let scratch = if store.byte_len().unwrap() == 0 {
            let mut scratch = Scratch::create(store, &secret(), &context, opening, options).unwrap();
            scratch.create_file().unwrap();
            scratch
        } else {
            Scratch::reopen(store, &secret(), &context, opening, Default::default(), options).unwrap()
        };
        Self { scratch, commits: Default::default() }
    }
}

impl<S: PageStore + Send> StateFiles for State<S> {
    fn contents(&mut self) -> &mut dyn ScratchFiles {
        &mut self.scratch
    }
    fn len(&self, file: ScratchId) -> Option<u64> {
        self.scratch.len(FileId(file.0)).ok()
    }
    fn files(&self) -> Vec<ScratchId> {
        self.scratch.files().filter(|(file, _)| *file != TREE).map(|(file, _)| ScratchId(file.0)).collect()
    }
    fn tree(&mut self) -> Result<Option<Vec<u8>>, ScratchError> {
        if self.scratch.checkpointed().is_none() {
            return Ok(None);
        }
        let mut tree = vec![0; usize::try_from(self.scratch.len(TREE).unwrap()).unwrap()];
        self.scratch.read(TREE, 0, &mut tree)?;
        Ok(Some(tree))
    }
    fn commit(&mut self, tree: &[u8]) -> Result<(), ScratchError> {
        self.scratch.write(TREE, 0, tree)?;
        self.scratch.set_len(TREE, tree.len() as u64)?;
        self.scratch.checkpoint()?;
        self.commits.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    }
}
