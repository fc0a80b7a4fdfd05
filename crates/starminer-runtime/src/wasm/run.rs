//! Running one loaded component over one file system, within limits, to one of the ends that a report can name.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use wasmtime::component::{Component, Linker};
use wasmtime::{Store, Trap};
use zeroize::Zeroizing;

use super::WasmEngine;
use super::engine::YIELD_INTERVAL_FUEL;
use super::host::{self, Capture, ClockGrant, ExitRequested, RandomGrant, RandomStreams, Shared, TaskState, bindings};
use super::limiter::{MemoryLimitReached, MemoryLimiter};
use crate::fs::TaskFs;
use crate::{HostFault, Refusal, Stop, StopSignal};

/// Most bytes of arguments and environment together.
pub const MAX_ARGUMENT_BYTES: usize = 256 * 1024;
/// Most bytes that one host call may take from a guest: what the host allocates on a guest's behalf at a time.
const MAX_HOSTCALL_BYTES: usize = 16 << 20;

/// Bounds of a run. All are exact except the time, which the stop signal keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Units of work: about one per instruction, as wasmtime counts them.
    pub fuel: u64,
    /// Linear memory of all instances together.
    pub memory_bytes: u64,
    /// Kept of each of standard output and standard error; more is dropped and counted.
    pub output_stream_bytes: usize,
}

/// What a task may see of the world.
#[derive(Debug, Clone)]
pub struct Grants {
    /// Clocks.
    pub clock: ClockGrant,
    /// Random bytes.
    pub random: RandomGrant,
}

/// Everything about a run but the code.
#[derive(Debug)]
pub struct RunRequest {
    /// Arguments, the program's name first.
    pub arguments: Vec<String>,
    /// Environment variables.
    pub environment: Vec<(String, String)>,
    /// The task's files. They come back in the outcome.
    pub fs: TaskFs,
    /// Bounds.
    pub limits: Limits,
    /// Grants.
    pub grants: Grants,
    /// Asked at every yield whether to go on.
    pub stop: StopSignal,
}

/// Why a guest trapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum TrapKind {
    Unreachable,
    StackOverflow,
    MemoryOutOfBounds,
    TableOutOfBounds,
    IndirectCall,
    IntegerOverflow,
    IntegerDivisionByZero,
    FloatToInteger,
    /// It broke the rules of an interface: a handle that is not one, more handles than there are, a list too long.
    InterfaceMisuse,
    Other,
}

impl TrapKind {
    /// Stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            TrapKind::Unreachable => "unreachable",
            TrapKind::StackOverflow => "stack-overflow",
            TrapKind::MemoryOutOfBounds => "memory-out-of-bounds",
            TrapKind::TableOutOfBounds => "table-out-of-bounds",
            TrapKind::IndirectCall => "indirect-call",
            TrapKind::IntegerOverflow => "integer-overflow",
            TrapKind::IntegerDivisionByZero => "integer-division-by-zero",
            TrapKind::FloatToInteger => "float-to-integer",
            TrapKind::InterfaceMisuse => "interface-misuse",
            TrapKind::Other => "other",
        }
    }

    fn of(trap: Trap) -> Self {
        match trap {
            Trap::UnreachableCodeReached => TrapKind::Unreachable,
            Trap::StackOverflow => TrapKind::StackOverflow,
            Trap::MemoryOutOfBounds => TrapKind::MemoryOutOfBounds,
            Trap::TableOutOfBounds => TrapKind::TableOutOfBounds,
            Trap::IndirectCallToNull | Trap::BadSignature => TrapKind::IndirectCall,
            Trap::IntegerOverflow => TrapKind::IntegerOverflow,
            Trap::IntegerDivisionByZero => TrapKind::IntegerDivisionByZero,
            Trap::BadConversionToInteger => TrapKind::FloatToInteger,
            _ => TrapKind::Other,
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunEnd {
    /// The program ran to its end. A code other than 0 is the program's own verdict on itself.
    Completed {
        /// What it exited with.
        exit_code: u8,
    },
    /// It used up its fuel.
    OutOfFuel,
    /// It needed more memory than its limit: it gave up after a refusal, or would not stop asking.
    MemoryLimit,
    /// It broke.
    Trap {
        /// How.
        kind: TrapKind,
    },
    /// It cannot be run at all: it imports something that no task is given, or exports no `wasi:cli/run`.
    Refused(Refusal),
    /// It was ended from outside.
    Stopped(Stop),
    /// This machine failed it.
    HostFault(HostFault),
}

impl RunEnd {
    /// Stable dotted code.
    pub fn code(&self) -> &'static str {
        match self {
            RunEnd::Completed { exit_code: 0 } => "run.completed",
            RunEnd::Completed { .. } => "workload.exit-nonzero",
            RunEnd::OutOfFuel => "engine.wasm.out-of-fuel",
            RunEnd::MemoryLimit => "engine.wasm.memory-limit",
            RunEnd::Trap { .. } => "engine.wasm.trap",
            RunEnd::Refused(refusal) => refusal.code(),
            RunEnd::Stopped(Stop::Deadline) => "limits.wall-time",
            RunEnd::Stopped(Stop::Cancelled) => "task.cancelled",
            RunEnd::HostFault(fault) => fault.code(),
        }
    }

    /// Whether the end, the fuel and the outputs follow from workload and inputs alone, so that another node's run can be
    /// compared with it. A stop caused by the host never is.
    pub fn is_comparable(&self) -> bool {
        !matches!(self, RunEnd::Stopped(_) | RunEnd::HostFault(_))
    }
}

/// What a run left.
#[derive(Debug)]
pub struct RunOutcome {
    /// How it ended.
    pub end: RunEnd,
    /// Fuel used; with [`RunEnd::OutOfFuel`], all of it.
    pub fuel_used: u64,
    /// Most linear memory held at once.
    pub peak_memory_bytes: u64,
    /// Start of standard output, up to the limit.
    pub stdout: Zeroizing<Vec<u8>>,
    /// Bytes of standard output beyond that.
    pub stdout_dropped_bytes: u64,
    /// Start of standard error, up to the limit.
    pub stderr: Zeroizing<Vec<u8>>,
    /// Bytes of standard error beyond that.
    pub stderr_dropped_bytes: u64,
    /// The task's files, to read the outputs from.
    pub fs: TaskFs,
}

impl WasmEngine {
    /// Runs a component that was loaded into this engine. Dropping the future ends the run and loses the file system.
    ///
    /// Errors are for the host alone: a file system that is gone. Everything else is a [`RunEnd`].
    pub async fn run(&self, component: &Component, request: RunRequest) -> Result<RunOutcome, HostFault> {
        let RunRequest { arguments, environment, fs, limits, grants, stop } = request;
        let shared = Shared::new(fs, stop.clone());
        let (stdout, stderr) = (Capture::new(limits.output_stream_bytes), Capture::new(limits.output_stream_bytes));
        let refused = check_arguments(&arguments, &environment).err();
        let state = TaskState {
            table: TaskState::table(),
            limiter: MemoryLimiter::new(limits.memory_bytes),
            shared: shared.clone(),
            stdout: stdout.clone(),
            stderr: stderr.clone(),
            arguments,
            environment,
            clock: host::clock(grants.clock),
            random: RandomStreams::new(&grants.random),
        };
        let mut store = Store::new(self.wasmtime(), state);
        let end = match refused {
            Some(refusal) => RunEnd::Refused(refusal),
            None => self.drive(component, &mut store, &limits, &stop).await,
        };
        let fuel_used = match end {
            RunEnd::OutOfFuel => limits.fuel,
            _ => limits.fuel.saturating_sub(store.get_fuel().unwrap_or(0)),
        };
        let peak_memory_bytes = store.data().limiter.peak_bytes();
        drop(store);
        let fs = shared.into_fs().ok_or(HostFault::ENGINE)?;
        let (stdout, stdout_dropped_bytes) = stdout.take();
        let (stderr, stderr_dropped_bytes) = stderr.take();
        Ok(RunOutcome {
            end,
            fuel_used,
            peak_memory_bytes,
            stdout,
            stdout_dropped_bytes,
            stderr,
            stderr_dropped_bytes,
            fs,
        })
    }

    async fn drive(
        &self,
        component: &Component,
        store: &mut Store<TaskState>,
        limits: &Limits,
        stop: &StopSignal,
    ) -> RunEnd {
        store.limiter(|state| &mut state.limiter);
        store.set_hostcall_fuel(MAX_HOSTCALL_BYTES);
        let ready =
            store.set_fuel(limits.fuel).and_then(|()| store.fuel_async_yield_interval(Some(YIELD_INTERVAL_FUEL)));
        if ready.is_err() {
            return RunEnd::HostFault(HostFault::ENGINE);
        }
        let command = match self.link(component) {
            Ok(command) => command,
            Err(refusal) => return RunEnd::Refused(refusal),
        };
        let result = {
            let guest = async {
                let command = command.instantiate_async(&mut *store).await?;
                command.wasi_cli_run().call_run(&mut *store).await
            };
            until_stopped(guest, stop).await
        };
        match result {
            Err(stop) => RunEnd::Stopped(stop),
            Ok(Ok(Ok(()))) => RunEnd::Completed { exit_code: 0 },
            Ok(Ok(Err(()))) => RunEnd::Completed { exit_code: 1 },
            Ok(Err(error)) => end_of(&error, store.data().limiter.has_denied()),
        }
    }

    fn link(&self, component: &Component) -> Result<bindings::TaskPre<TaskState>, Refusal> {
        let refuse = |error: wasmtime::Error| {
            Refusal::new(
                "engine.wasm.not-linkable",
                "the component imports what no task is given, or is not a wasi:cli command",
            )
            .with_detail(format_args!("{error:#}"))
        };
        let mut linker = Linker::new(self.wasmtime());
        host::add_to_linker(&mut linker).map_err(refuse)?;
        bindings::TaskPre::new(linker.instantiate_pre(component).map_err(refuse)?).map_err(refuse)
    }
}

fn check_arguments(arguments: &[String], environment: &[(String, String)]) -> Result<(), Refusal> {
    let bytes = arguments.iter().map(String::len).sum::<usize>()
        + environment.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
    let has_nul = arguments
        .iter()
        .chain(environment.iter().flat_map(|(name, value)| [name, value]))
        .any(|text| text.contains('\0'));
    if bytes > MAX_ARGUMENT_BYTES || has_nul {
        return Err(Refusal::new(
            "engine.wasm.bad-arguments",
            "arguments and environment exceed 256 KiB or contain a NUL",
        ));
    }
    Ok(())
}

/// Polls `guest`, asking before each time. A guest yields every [`YIELD_INTERVAL_FUEL`].
async fn until_stopped<T>(guest: impl Future<Output = T>, stop: &StopSignal) -> Result<T, Stop> {
    let mut guest = pin!(guest);
    poll_fn(|context| match stop.stop() {
        Some(stop) => Poll::Ready(Err(stop)),
        None => guest.as_mut().poll(context).map(Ok),
    })
    .await
}

/// What an error out of a guest means. Typed errors of ours come first: they travel as the cause of a trap.
fn end_of(error: &wasmtime::Error, memory_was_denied: bool) -> RunEnd {
    if let Some(&ExitRequested(exit_code)) = error.downcast_ref() {
        return RunEnd::Completed { exit_code };
    }
    if let Some(&stop) = error.downcast_ref::<Stop>() {
        return RunEnd::Stopped(stop);
    }
    if let Some(&fault) = error.downcast_ref::<HostFault>() {
        return RunEnd::HostFault(fault);
    }
    if error.is::<MemoryLimitReached>() {
        return RunEnd::MemoryLimit;
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => RunEnd::OutOfFuel,
        // How allocators of C, Rust and Go give up when there is no more.
        Some(Trap::UnreachableCodeReached) if memory_was_denied => RunEnd::MemoryLimit,
        Some(&trap) => RunEnd::Trap { kind: TrapKind::of(trap) },
        // A module whose first memory is larger than its limit does not start.
        None if memory_was_denied => RunEnd::MemoryLimit,
        None if error.is::<std::io::Error>() || error.is::<wasmtime::OutOfMemory>() => {
            RunEnd::HostFault(HostFault::MEMORY)
        }
        None => RunEnd::Trap { kind: TrapKind::InterfaceMisuse },
    }
}
