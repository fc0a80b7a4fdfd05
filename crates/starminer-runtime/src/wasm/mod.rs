//! The wasm engine: WASI 0.2 components, and preview-1 modules through the preview-1 adapter.
//!
//! [`WasmEngine`] fixes every setting that compiled code or its behaviour depends on. [`WasmEngine::compile`] turns a
//! stranger's bytes into compiled code and says by digest what it was made from; [`WasmEngine::run`] runs a loaded
//! component over a [`TaskFs`](crate::fs::TaskFs) within its limits.
//!
//! It does not load compiled code from bytes: that is `unsafe` and `starminer-sandbox`'s. It never links sockets.

mod compile;
mod engine;
mod host;
mod limiter;
mod run;

pub use compile::{
    AdapterUse, CompileError, CompiledWorkload, MAX_MODULE_BYTES, Sha256Digest, preview1_adapter_sha256,
};
pub use engine::{
    CPU_FLAGS, Determinism, EngineError, EngineSettings, MEMORY_GUARD_BYTES, MEMORY_RESERVATION_BYTES, STACK_BYTES,
    TARGET, WasmEngine, YIELD_INTERVAL_FUEL,
};
pub use host::{ClockGrant, RandomGrant, RandomSeed};
pub use run::{Grants, Limits, RunEnd, RunOutcome, RunRequest, TrapKind};
