//! What a wasm guest can call: our own implementation of every interface in `wit/world.wit`, except `wasi:io`, whose
//! tables and polling are wasmtime's.
//!
//! One rule runs through all of it: an answer follows from the guest's own calls and its inputs, unless a clock or
//! randomness was granted. Errors that are the guest's to handle are WASI error codes; everything that has to end the
//! run (a stop from outside, a fault of the host) is a trap that carries a typed error.

mod cli;
mod clocks;
mod filesystem;
mod random;
mod streams;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wasmtime::component::{HasSelf, Linker, ResourceTable};
use wasmtime_wasi_io::IoView;

use crate::fs::TaskFs;
use crate::{Stop, StopSignal};

pub use clocks::ClockGrant;
pub use random::{RandomGrant, RandomSeed};

pub(super) use cli::{Capture, ExitRequested};
pub(super) use random::RandomStreams;

use super::limiter::MemoryLimiter;

/// Generated from `wit/`.
#[allow(missing_docs, clippy::all)]
pub(super) mod bindings {
    wasmtime::component::bindgen!({
        path: "wit",
        world: "starminer:host/task",
        imports: { default: trappable },
        exports: { default: async },
        require_store_data_send: true,
        trappable_error_type: { "wasi:filesystem/types.error-code" => super::filesystem::HostFsError },
        with: {
            "wasi:io": wasmtime_wasi_io::bindings::wasi::io,
            "wasi:cli/terminal-input.terminal-input": super::cli::Terminal,
            "wasi:cli/terminal-output.terminal-output": super::cli::Terminal,
            "wasi:filesystem/types.descriptor": super::filesystem::OpenObject,
            "wasi:filesystem/types.directory-entry-stream": super::filesystem::Listing,
        },
    });
}

/// Entries of a task's resource table: descriptors, streams, pollables, errors.
const MAX_RESOURCES: usize = 8 * 1024;
/// Largest piece that one call reads from or writes to a file or stream.
const MAX_TRANSFER_BYTES: usize = 256 * 1024;
/// Host calls between two questions whether to stop; [`MAX_TRANSFER_BYTES`] moved weigh as much as this many calls.
const CALLS_PER_QUESTION: u32 = 4096;

/// Everything behind the imports of one running guest.
pub(super) struct TaskState {
    pub(super) table: ResourceTable,
    pub(super) limiter: MemoryLimiter,
    pub(super) shared: Shared,
    pub(super) stdout: Capture,
    pub(super) stderr: Capture,
    pub(super) arguments: Vec<String>,
    pub(super) environment: Vec<(String, String)>,
    pub(super) clock: clocks::Clock,
    pub(super) random: RandomStreams,
}

impl TaskState {
    pub(super) fn table() -> ResourceTable {
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_RESOURCES);
        table
    }
}

impl IoView for TaskState {
    fn table(&mut self) -> &mut ResourceTable {
        &mut self.table
    }
}

/// What a guest's streams and descriptors share with its store. They live in the resource table and cannot borrow.
#[derive(Clone)]
pub(super) struct Shared {
    fs: Arc<Mutex<TaskFs>>,
    pace: Arc<Pace>,
}

/// Host calls move data without using fuel, so a guest that only copies files would seldom yield. They count here.
struct Pace {
    stop: StopSignal,
    calls: std::sync::atomic::AtomicU32,
}

impl Shared {
    pub(super) fn new(fs: TaskFs, stop: StopSignal) -> Self {
        Shared { fs: Arc::new(Mutex::new(fs)), pace: Arc::new(Pace { stop, calls: 0.into() }) }
    }

    fn fs(&self) -> MutexGuard<'_, TaskFs> {
        // A panic while the lock was held ends the run anyway.
        self.fs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call that moved `bytes`, and now and then asks whether to stop.
    fn pace(&self, bytes: usize) -> Result<(), Stop> {
        use std::sync::atomic::Ordering::Relaxed;
        let weight = 1 + (bytes / (MAX_TRANSFER_BYTES / CALLS_PER_QUESTION as usize)) as u32;
        let calls = self.pace.calls.load(Relaxed).saturating_add(weight);
        if calls < CALLS_PER_QUESTION {
            self.pace.calls.store(calls, Relaxed);
            return Ok(());
        }
        self.pace.calls.store(0, Relaxed);
        self.pace.stop.stop().map_or(Ok(()), Err)
    }

    /// The file system back, once everything of the guest is gone.
    pub(super) fn into_fs(self) -> Option<TaskFs> {
        let fs = Arc::into_inner(self.fs)?;
        Some(fs.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The clocks of a task.
pub(super) fn clock(grant: ClockGrant) -> clocks::Clock {
    clocks::Clock::new(grant)
}

/// Links every interface of `wit/world.wit`, one by one.
pub(super) fn add_to_linker(linker: &mut Linker<TaskState>) -> wasmtime::Result<()> {
    use bindings::wasi::{cli, clocks, filesystem, random};
    type Own = HasSelf<TaskState>;

    fn own(state: &mut TaskState) -> &mut TaskState {
        state
    }
    wasmtime_wasi_io::add_to_linker_async(linker)?;
    cli::environment::add_to_linker::<_, Own>(linker, own)?;
    cli::exit::add_to_linker::<_, Own>(linker, own)?;
    cli::stdin::add_to_linker::<_, Own>(linker, own)?;
    cli::stdout::add_to_linker::<_, Own>(linker, own)?;
    cli::stderr::add_to_linker::<_, Own>(linker, own)?;
    cli::terminal_input::add_to_linker::<_, Own>(linker, own)?;
    cli::terminal_output::add_to_linker::<_, Own>(linker, own)?;
    cli::terminal_stdin::add_to_linker::<_, Own>(linker, own)?;
    cli::terminal_stdout::add_to_linker::<_, Own>(linker, own)?;
    cli::terminal_stderr::add_to_linker::<_, Own>(linker, own)?;
    clocks::wall_clock::add_to_linker::<_, Own>(linker, own)?;
    clocks::monotonic_clock::add_to_linker::<_, Own>(linker, own)?;
    filesystem::types::add_to_linker::<_, Own>(linker, own)?;
    filesystem::preopens::add_to_linker::<_, Own>(linker, own)?;
    random::random::add_to_linker::<_, Own>(linker, own)?;
    random::insecure::add_to_linker::<_, Own>(linker, own)?;
    random::insecure_seed::add_to_linker::<_, Own>(linker, own)
}
