//! From a stranger's bytes to compiled code, with a digest at each step.
//!
//! Nothing is executed and nothing is made executable here: the result is bytes.

use std::panic::{AssertUnwindSafe, catch_unwind};

use aws_lc_rs::digest::{SHA256, digest};
use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER,
};
use wasmtime::Module;
use wit_component::ComponentEncoder;

use super::WasmEngine;
use crate::{HostFault, Refusal};

/// Largest module or component, in bytes.
pub const MAX_MODULE_BYTES: usize = 64 * 1024 * 1024;

/// A SHA-256 digest.
pub type Sha256Digest = [u8; 32];

/// The first eight bytes of a core module: magic, version 1, layer 0 (WebAssembly core specification 5.5.16).
const CORE_HEADER: [u8; 8] = *b"\0asm\x01\x00\x00\x00";
/// The first eight bytes of a component: magic, version 13, layer 1 (component model, Binary.md).
const COMPONENT_HEADER: [u8; 8] = *b"\0asm\x0d\x00\x01\x00";

/// Whether the preview-1 adapter is part of what runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdapterUse {
    /// The workload was a component already.
    None,
    /// The workload was a preview-1 module; the digest is of the adapter it was joined with.
    Preview1(Sha256Digest),
}

/// Compiled code, and what it came from.
#[derive(Clone)]
pub struct CompiledWorkload {
    /// Compiled code in wasmtime's format. Load it only where it is known to come from here.
    pub serialized: Vec<u8>,
    /// Digest of the bytes that were given.
    pub module_sha256: Sha256Digest,
    /// Digest of the component: the same for a component, the adapted one for a module.
    pub component_sha256: Sha256Digest,
    /// Whether, and with which adapter, it was adapted.
    pub adapter: AdapterUse,
    /// Digest of `serialized`.
    pub compiled_sha256: Sha256Digest,
}

impl std::fmt::Debug for CompiledWorkload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CompiledWorkload").field("serialized_bytes", &self.serialized.len()).finish_non_exhaustive()
    }
}

/// Why there is no compiled code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// The bytes are not a workload this engine takes.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The compiler itself broke. It works in memory on the bytes alone, so they would break it anywhere.
    #[error(transparent)]
    Host(#[from] HostFault),
}

impl CompileError {
    /// Stable dotted code.
    pub fn code(&self) -> &'static str {
        match self {
            CompileError::Refused(refusal) => refusal.code(),
            CompileError::Host(fault) => fault.code(),
        }
    }
}

/// Digest of the preview-1 adapter that is built in.
pub fn preview1_adapter_sha256() -> Sha256Digest {
    sha256(WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER)
}

impl WasmEngine {
    /// Compiles a component, or a preview-1 module after adapting it. Takes as long as it takes: 0.1 s for an ordinary
    /// module; the caller's process has the deadline.
    pub fn compile(&self, bytes: &[u8]) -> Result<CompiledWorkload, CompileError> {
        if bytes.len() > MAX_MODULE_BYTES {
            return Err(Refusal::new("engine.wasm.too-large", "the module is larger than 64 MiB").into());
        }
        let module_sha256 = sha256(bytes);
        let (adapted, adapter) = match bytes.get(..8) {
            Some(header) if header == CORE_HEADER => {
                self.validate_module(bytes)?;
                (Some(adapt(bytes)?), AdapterUse::Preview1(preview1_adapter_sha256()))
            }
            Some(header) if header == COMPONENT_HEADER => (None, AdapterUse::None),
            Some(header) if header.starts_with(b"\0asm") => {
                return Err(Refusal::new(
                    "engine.wasm.unknown-version",
                    "the module's header names a version that is neither core wasm 1 nor a component",
                )
                .into());
            }
            _ => return Err(Refusal::new("engine.wasm.not-wasm", "the workload is not a WebAssembly binary").into()),
        };
        let component = adapted.as_deref().unwrap_or(bytes);
        let serialized =
            contained(|| self.wasmtime().precompile_component(component))?.map_err(|error| invalid(&error))?;
        Ok(CompiledWorkload {
            module_sha256,
            component_sha256: adapted.as_deref().map_or(module_sha256, sha256),
            adapter,
            compiled_sha256: sha256(&serialized),
            serialized,
        })
    }
}

impl WasmEngine {
    /// Checks a core module before `wit-component` sees it, which takes what it reads to be well-formed.
    fn validate_module(&self, module: &[u8]) -> Result<(), CompileError> {
        let valid = contained(|| Module::validate(self.wasmtime(), module))?;
        valid.map_err(|error| invalid(&error).into())
    }
}

fn invalid(error: &wasmtime::Error) -> Refusal {
    Refusal::new("engine.wasm.invalid", "the module does not validate or uses what this engine leaves out")
        .with_detail(format_args!("{error:#}"))
}

fn adapt(module: &[u8]) -> Result<Vec<u8>, CompileError> {
    let adapted = contained(|| {
        ComponentEncoder::default()
            .module(module)?
            .adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER)?
            .validate(true)
            .encode()
    })?;
    adapted.map_err(|error| {
        Refusal::new(
            "engine.wasm.not-a-command",
            "the module imports something other than WASI preview 1, or exports no _start or no memory",
        )
        .with_detail(format_args!("{error:#}"))
        .into()
    })
}

/// Runs compiler code that is not ours over bytes that are a stranger's: a panic in it is a fault, not our end.
fn contained<T>(work: impl FnOnce() -> T) -> Result<T, HostFault> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| HostFault::ENGINE)
}

fn sha256(bytes: &[u8]) -> Sha256Digest {
    digest(&SHA256, bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
}
