//! What the engine costs: compute-bound kernels under [`WasmEngine::run`] against plain wasmtime with the same settings
//! (goal: at most 1.05 times its time), and against wasmtime as it comes.
//!
//! `cargo bench -p starminer-runtime --bench kernels [-- KERNEL…]`. All variants of a kernel run in turn, round by round, so
//! that whatever else the machine does hits all of them; a time is the least of all rounds, a ratio that of two such times.

#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use starminer_runtime::wasm::{Determinism, RunEnd, WasmEngine, YIELD_INTERVAL_FUEL};
use wasmtime::component::Component;
use wasmtime::{Config, Engine, Instance, Module, Store};

const ROUNDS: usize = 15;
const GOAL: f64 = 1.05;
const KERNELS: [(&str, &str); 8] = [
    ("fibonacci", include_str!("kernels/fibonacci.wat")),
    ("mandelbrot", include_str!("kernels/mandelbrot.wat")),
    ("matmul", include_str!("kernels/matmul.wat")),
    ("mix", include_str!("kernels/mix.wat")),
    ("nbody", include_str!("kernels/nbody.wat")),
    ("sieve", include_str!("kernels/sieve.wat")),
    ("sort", include_str!("kernels/sort.wat")),
    ("vectors", include_str!("kernels/vectors.wat")),
];

/// One way to run a kernel once.
enum Variant<'e> {
    Ours { engine: &'e WasmEngine, component: Component },
    Plain { engine: &'e Engine, module: Module },
}

impl<'e> Variant<'e> {
    fn ours(engine: &'e WasmEngine, wasm: &[u8]) -> Self {
        Variant::Ours { engine, component: support::load(engine, &engine.compile(wasm).unwrap()) }
    }

    fn plain(engine: &'e Engine, wasm: &[u8]) -> Self {
        Variant::Plain { engine, module: Module::new(engine, wasm).unwrap() }
    }

    /// From a loaded module to the end of `_start`: making the store and instantiating included.
    fn time(&self) -> Duration {
        match self {
            Variant::Ours { engine, component } => {
                let mut request = support::request(&[]);
                request.limits.fuel = u64::MAX;
                let started = Instant::now();
                let outcome = support::block_on(engine.run(component, request)).unwrap();
                let elapsed = started.elapsed();
                assert_eq!(outcome.end, RunEnd::Completed { exit_code: 0 });
                elapsed
            }
            Variant::Plain { engine, module } => {
                let started = Instant::now();
                let mut store = Store::new(engine, ());
                if engine.get_consume_fuel() {
                    store.set_fuel(u64::MAX).unwrap();
                    store.fuel_async_yield_interval(Some(YIELD_INTERVAL_FUEL)).unwrap();
                }
                support::block_on(async {
                    let instance = Instance::new_async(&mut store, module, &[]).await.unwrap();
                    let start = instance.get_typed_func::<(), ()>(&mut store, "_start").unwrap();
                    start.call_async(&mut store, ()).await.unwrap();
                });
                started.elapsed()
            }
        }
    }
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let portable = support::engine(Determinism::Portable);
    let native = support::engine(Determinism::Native);
    let default = Engine::new(&Config::new()).unwrap();
    println!(
        "{:<11} {:>9} {:>22} {:>22} {:>16}",
        "", "default", "native, ours/plain", "portable, ours/plain", "ours/default"
    );
    println!("{:<11} {:>9} {:>22} {:>22} {:>16}", "kernel", "ms", "ms (ratio)", "ms (ratio)", "native portable");
    let mut worst: f64 = 0.0;
    for (name, text) in KERNELS {
        if !wanted.is_empty() && !wanted.iter().any(|wanted| name.contains(wanted.as_str())) {
            continue;
        }
        let wasm = wat::parse_str(text).unwrap();
        let variants = [
            Variant::plain(&default, &wasm),
            Variant::ours(&native, &wasm),
            Variant::plain(native.wasmtime(), &wasm),
            Variant::ours(&portable, &wasm),
            Variant::plain(portable.wasmtime(), &wasm),
        ];
        let mut best = [f64::INFINITY; 5];
        for _ in 0..ROUNDS {
            for (best, variant) in best.iter_mut().zip(&variants) {
                *best = best.min(variant.time().as_secs_f64() * 1e3);
            }
        }
        let [default, native, native_plain, portable, portable_plain] = best;
        let ratios = [native / native_plain, portable / portable_plain];
        worst = worst.max(ratios[0]).max(ratios[1]);
        println!(
            "{name:<11} {default:>9.2} {:>22} {:>22} {:>16}",
            format!("{native:.2} / {native_plain:.2} ({:.3})", ratios[0]),
            format!("{portable:.2} / {portable_plain:.2} ({:.3})", ratios[1]),
            format!("{:.2}     {:.2}", native / default, portable / default),
        );
    }
    let verdict = if worst <= GOAL { "met" } else { "missed" };
    println!("worst ratio to plain wasmtime with the same settings: {worst:.3} (goal {GOAL}: {verdict})");
}
