//! Naming the processor features that compiled code may use.
//!
//! wasmtime takes a feature on its caller's word: code compiled for one that the processor lacks would be undefined
//! behaviour. Here the processor is asked about each first.

use wasmtime::Config;

/// Enables those of `flags` (Cranelift's names) that this processor has. One that it lacks, or whose name is not known
/// here, stays off; `starminer_runtime::wasm::WasmEngine::new`, which takes this function, refuses an engine in which any
/// of the flags it asked for is off.
pub fn enable_cpu_flags(config: &mut Config, flags: &[&'static str]) {
    for flag in flags.iter().filter(|flag| processor_has(flag)) {
        // SAFETY: the processor has the feature that the flag names.
        unsafe { config.cranelift_flag_enable(flag) };
    }
}

/// The features of x86-64-v3, by the names that Cranelift has for them.
fn processor_has(flag: &str) -> bool {
    match flag {
        "has_cmpxchg16b" => is_x86_feature_detected!("cmpxchg16b"),
        "has_sse3" => is_x86_feature_detected!("sse3"),
        "has_ssse3" => is_x86_feature_detected!("ssse3"),
        "has_sse41" => is_x86_feature_detected!("sse4.1"),
        "has_sse42" => is_x86_feature_detected!("sse4.2"),
        "has_popcnt" => is_x86_feature_detected!("popcnt"),
        "has_avx" => is_x86_feature_detected!("avx"),
        "has_avx2" => is_x86_feature_detected!("avx2"),
        "has_fma" => is_x86_feature_detected!("fma"),
        "has_bmi1" => is_x86_feature_detected!("bmi1"),
        "has_bmi2" => is_x86_feature_detected!("bmi2"),
        "has_lzcnt" => is_x86_feature_detected!("lzcnt"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use wasmtime::{Config, Engine};

    use super::*;

    fn enabled(flags: &[&'static str]) -> Vec<String> {
        let mut config = Config::new();
        // A target that is named gets no features of the host by itself.
        config.target("x86_64-unknown-linux-gnu").unwrap();
        enable_cpu_flags(&mut config, flags);
        let engine = Engine::new(&config).unwrap();
        let mut enabled: Vec<String> = engine.get_cranelift_flags_enabled().map(str::to_owned).collect();
        enabled.sort_unstable();
        enabled
    }

    #[test]
    fn only_what_was_asked_for_and_is_there_is_enabled() {
        assert_eq!(enabled(&[]), Vec::<String>::new());
        // This processor has them, as every one that this project runs on.
        assert_eq!(enabled(&["has_sse42", "has_avx2"]), ["has_avx2", "has_sse42"]);
        assert_eq!(enabled(&["has_sse3", "has_no_such_feature"]), ["has_sse3"]);
        // A feature of the host that is outside of x86-64-v3 is not named here, and so never on.
        assert_eq!(enabled(&["has_avx512f", "has_avx512vl"]), Vec::<String>::new());
    }
}
