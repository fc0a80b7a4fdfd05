//! `runtime-onnx-model` under libFuzzer.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(
    // The engine catches panics of the compilers it is made of; libFuzzer's own hook would abort on those as well. One
    // that is not caught still ends the run.
    init: std::panic::set_hook(Box::new(|info| eprintln!("{info}"))),
    |data: &[u8]| starminer_fuzz::run("runtime-onnx-model", data)
);
