//! The one configuration of wasmtime that tasks run under.
//!
//! Everything that changes compiled code, or what it does, is set here explicitly, also where it is wasmtime's default
//! today: a result must not change because a default did. The list is repeated, with reasons, in `specs/engines.md`.

use wasmtime::{
    Config, Engine, Inlining, OptLevel, ProfilingStrategy, RegallocAlgorithm, Strategy, WasmBacktraceDetails,
};

/// Target of compiled code.
pub const TARGET: &str = "x86_64-unknown-linux-gnu";

/// CPU features that compiled code may use: x86-64-v3 as Cranelift names its parts. Cranelift's own preset of that name
/// leaves out `has_avx`, without which it emits no AVX at all, so the flags are listed.
pub const CPU_FLAGS: [&str; 12] = [
    "has_cmpxchg16b",
    "has_sse3",
    "has_ssse3",
    "has_sse41",
    "has_sse42",
    "has_popcnt",
    "has_avx",
    "has_avx2",
    "has_fma",
    "has_bmi1",
    "has_bmi2",
    "has_lzcnt",
];

/// Wasm stack of a task.
pub const STACK_BYTES: usize = 1024 * 1024;
/// Stack of the fiber a task runs on: the wasm stack and room for host functions.
const FIBER_STACK_BYTES: usize = STACK_BYTES + 1024 * 1024;
/// Address space reserved for each linear memory: all that 32-bit addresses reach, so that a memory never moves.
pub const MEMORY_RESERVATION_BYTES: u64 = 4 << 30;
/// Unmapped address space behind each linear memory, which makes bounds checks of small offsets unnecessary.
pub const MEMORY_GUARD_BYTES: u64 = 32 << 20;
/// Fuel between two yields of a running guest: a few milliseconds, the grain at which a deadline is kept.
pub const YIELD_INTERVAL_FUEL: u64 = 10_000_000;

/// How far results of a run agree with those of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Determinism {
    /// Same bits on every machine: NaNs are canonicalised, at a price in floating-point code.
    Portable,
    /// Same bits wherever the same compiled code runs; the sign and payload of a NaN are the CPU's.
    Native,
}

impl Determinism {
    /// Name in specifications and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Determinism::Portable => "portable",
            Determinism::Native => "native",
        }
    }
}

/// What a task may choose about the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EngineSettings {
    /// Whether NaNs are canonicalised.
    pub determinism: Determinism,
}

/// Why there is no engine on this machine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The CPU lacks a feature of x86-64-v3.
    #[error("this CPU lacks {0}, which x86-64-v3 asks for")]
    Cpu(&'static str),
    /// The caller's pin did not set [`CPU_FLAGS`] and nothing else.
    #[error("the CPU features of compiled code are not the pinned ones")]
    Pin,
    /// wasmtime refused the configuration.
    #[error("wasmtime refused the engine's configuration")]
    Wasmtime(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl EngineError {
    /// Stable dotted code. All are the host's fault.
    pub fn code(&self) -> &'static str {
        match self {
            EngineError::Cpu(_) => "host.cpu-below-x86-64-v3",
            EngineError::Pin => "host.cpu-features-not-pinned",
            EngineError::Wasmtime(_) => "host.engine",
        }
    }
}

/// A wasmtime engine under the settings of this module.
#[derive(Clone)]
pub struct WasmEngine {
    engine: Engine,
    settings: EngineSettings,
}

impl WasmEngine {
    /// Makes the engine.
    ///
    /// `enable_cpu_flags` must enable exactly the flags it is given on the configuration, with
    /// `Config::cranelift_flag_enable`. That function is `unsafe` (a wrong flag breaks compiled code), and `unsafe` has
    /// its homes, of which this crate is none; so the caller brings it, and what it did is checked.
    pub fn new(
        settings: EngineSettings,
        enable_cpu_flags: impl FnOnce(&mut Config, &[&'static str]),
    ) -> Result<Self, EngineError> {
        check_cpu()?;
        let mut config = config(settings).map_err(wasmtime_error)?;
        enable_cpu_flags(&mut config, &CPU_FLAGS);
        let engine = Engine::new(&config).map_err(wasmtime_error)?;
        let mut enabled: Vec<&str> = engine.get_cranelift_flags_enabled().collect();
        let mut wanted = CPU_FLAGS.to_vec();
        enabled.sort_unstable();
        wanted.sort_unstable();
        if enabled != wanted || engine.get_cranelift_flags_set().next().is_some() {
            return Err(EngineError::Pin);
        }
        Ok(WasmEngine { engine, settings })
    }

    /// The wasmtime engine, to load compiled code into.
    pub fn wasmtime(&self) -> &Engine {
        &self.engine
    }

    /// What the engine was made with.
    pub fn settings(&self) -> EngineSettings {
        self.settings
    }
}

impl std::fmt::Debug for WasmEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WasmEngine").field("settings", &self.settings).finish_non_exhaustive()
    }
}

fn wasmtime_error(error: wasmtime::Error) -> EngineError {
    EngineError::Wasmtime(error.into())
}

fn config(settings: EngineSettings) -> wasmtime::Result<Config> {
    let mut config = Config::new();
    config
        // A target that is named gets no CPU features of the host.
        .target(TARGET)?
        .strategy(Strategy::Cranelift)
        .cranelift_opt_level(OptLevel::Speed)
        .cranelift_regalloc_algorithm(RegallocAlgorithm::Backtracking)
        .compiler_inlining(Inlining::No)
        .cranelift_nan_canonicalization(settings.determinism == Determinism::Portable)
        // Fuel bounds the work and is counted the same everywhere; epochs would cost and add nothing to it.
        .consume_fuel(true)
        .epoch_interruption(false)
        // Language. What is off is either not deterministic (threads, which is not even compiled in), not bounded by the
        // fixed memory layout (memory64), or not stable yet.
        .wasm_bulk_memory(true)
        .wasm_component_model(true)
        .wasm_custom_page_sizes(false)
        .wasm_extended_const(true)
        .wasm_memory64(false)
        .wasm_multi_memory(true)
        .wasm_multi_value(true)
        .wasm_relaxed_simd(true)
        .relaxed_simd_deterministic(true)
        .wasm_simd(true)
        .wasm_tail_call(true)
        .wasm_wide_arithmetic(false)
        .concurrency_support(false)
        // Fixed sizes: where a stack overflows and when a memory can grow is part of the result.
        .max_wasm_stack(STACK_BYTES)
        .async_stack_size(FIBER_STACK_BYTES)
        .async_stack_zeroing(false)
        .memory_reservation(MEMORY_RESERVATION_BYTES)
        .memory_reservation_for_growth(0)
        .memory_guard_size(MEMORY_GUARD_BYTES)
        .guard_before_linear_memory(true)
        .memory_may_move(false)
        .memory_init_cow(false)
        .table_lazy_init(true)
        .signals_based_traps(true)
        // Names and lines of a stranger's code are of no use to us, and would be plaintext in our hands.
        .wasm_backtrace_max_frames(None)
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .native_unwind_info(false)
        .generate_address_map(false)
        .debug_info(false)
        .profiler(ProfilingStrategy::None);
    Ok(config)
}

fn check_cpu() -> Result<(), EngineError> {
    #[cfg(target_arch = "x86_64")]
    {
        macro_rules! require {
            ($($feature:tt),*) => {$(
                if !std::arch::is_x86_feature_detected!($feature) {
                    return Err(EngineError::Cpu($feature));
                }
            )*};
        }
        require!(
            "cmpxchg16b",
            "sse3",
            "ssse3",
            "sse4.1",
            "sse4.2",
            "popcnt",
            "avx",
            "avx2",
            "fma",
            "bmi1",
            "bmi2",
            "lzcnt"
        );
        Ok(())
    }
    #[cfg(not(target_arch = "x86_64"))]
    Err(EngineError::Cpu("x86-64"))
}
