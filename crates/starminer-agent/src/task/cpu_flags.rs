//! The one call of wasmtime's configuration that is `unsafe`: naming the processor features that compiled code may use.
//!
//! [`starminer_runtime::wasm::WasmEngine::new`] checks the processor for every feature before it calls this, and checks
//! afterwards that exactly these were enabled.

// A home of its own for one block; `starminer-sandbox` is where it belongs once it offers this.
#![allow(unsafe_code)]

use wasmtime::Config;

/// Enables `flags` on the configuration.
pub(crate) fn enable(config: &mut Config, flags: &[&'static str]) {
    for flag in flags {
        // SAFETY: code compiled with a feature that the processor lacks would be undefined behaviour. The caller,
        // `WasmEngine::new`, has returned an error before this point unless the processor has every feature in the list.
        unsafe { config.cranelift_flag_enable(flag) };
    }
}
