//! What this build of the engines is, for reports: two runs are comparable only between equal builds.

use aws_lc_rs::digest::{SHA256, digest};

use crate::wasm;

/// Version of wasmtime; the workspace pins the line, `Cargo.lock` the release (held by a test).
const WASMTIME: &str = "48.0.8";
/// Version of the preview-1 adapter.
const ADAPTER: &str = "48.0.8";
/// Version of tract.
const TRACT: &str = "0.23.9";

/// Names of what runs a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineBuild {
    /// Name and version of this crate: `starminer-runtime 0.1.0`.
    pub runtime: &'static str,
    /// Version of wasmtime.
    pub wasmtime: &'static str,
    /// Version of the preview-1 adapter.
    pub preview1_adapter: &'static str,
    /// Version of tract.
    pub tract: &'static str,
    /// Target of compiled wasm.
    pub target: &'static str,
    /// SHA-256 over the above, the adapter's bytes and every setting in `specs/engines.md` that has a number.
    pub settings_sha256: [u8; 32],
}

/// This build.
pub fn engine_build() -> EngineBuild {
    let runtime = concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION"));
    let cpu_flags = wasm::CPU_FLAGS.join(",");
    let numbers = [
        wasm::STACK_BYTES as u64,
        wasm::MEMORY_RESERVATION_BYTES,
        wasm::MEMORY_GUARD_BYTES,
        wasm::YIELD_INTERVAL_FUEL,
        crate::fs::MAX_NODES as u64,
        u64::from(crate::fs::MAX_OPEN),
        crate::fs::MAX_DEPTH as u64,
        crate::fs::MAX_FILE_BYTES,
    ]
    .map(|number| number.to_string())
    .join(",");
    let adapter = wasm::preview1_adapter_sha256();
    let mut hashed = b"starminer/engine-build/v1\0".to_vec();
    for field in [runtime, WASMTIME, ADAPTER, TRACT, wasm::TARGET, &cpu_flags, &numbers]
        .map(str::as_bytes)
        .iter()
        .chain([&&adapter[..]])
    {
        hashed.extend_from_slice(&(field.len() as u32).to_be_bytes());
        hashed.extend_from_slice(field);
    }
    EngineBuild {
        runtime,
        wasmtime: WASMTIME,
        preview1_adapter: ADAPTER,
        tract: TRACT,
        target: wasm::TARGET,
        settings_sha256: digest(&SHA256, &hashed).as_ref().try_into().expect("SHA-256 has 32 bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The versions in a report are those that were linked.
    #[test]
    fn versions_are_those_of_the_lock_file() {
        let lock = include_str!("../../../Cargo.lock");
        for (name, version) in
            [("wasmtime", WASMTIME), ("wasi-preview1-component-adapter-provider", ADAPTER), ("tract-onnx", TRACT)]
        {
            let entry = format!("name = \"{name}\"\nversion = \"{version}\"\n");
            assert!(lock.contains(&entry), "{name} {version} is not in Cargo.lock");
        }
    }
}
