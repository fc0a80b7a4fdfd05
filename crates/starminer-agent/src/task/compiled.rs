//! Compiled code: from the agent's cache if a task of the same owner left it there, else from the compiler.
//!
//! All of this happens before the first guest instruction, which is what makes code that this process hands over fit to be
//! loaded by another one (the argument is in [`starminer_sandbox::compiled`]).

use std::os::fd::OwnedFd;

use starminer_runtime::wasm::{AdapterUse, CompileError, WasmEngine};
use starminer_runtime::{EngineBuild, HostFault};
use starminer_sandbox::{CompiledError, load_component, seal_compiled};
use starminer_verify::{Digest, Party, Refusal, tagged_hash};
use wasmtime::component::Component;

use super::Broken;
use super::link::Link;
use super::verdict::{Ending, Halt};
use crate::protocol::{CompiledRecord, FromTask, ToTask};

/// Code that is ready to run.
pub(crate) struct Loaded {
    pub component: Component,
    pub record: CompiledRecord,
}

/// Loads the compiled code of `module`, or compiles it and leaves it with the agent.
pub(crate) fn load(
    link: &mut Link,
    engine: &WasmEngine,
    build: &EngineBuild,
    module: &[u8],
    module_sha256: [u8; 32],
) -> Result<Loaded, Halt> {
    let key = cache_key(build, engine, module_sha256);
    link.send(&FromTask::CompiledWanted { key })?;
    let (ToTask::Compiled { found }, fds) = link.receive()? else { return Err(Broken.into()) };
    if let (Some(record), Ok([fd])) = (found, <[OwnedFd; 1]>::try_from(fds)) {
        // Code of an engine that is not ours cannot be under this key; were it there, compiling anew is the answer.
        if let Ok(component) = load_component(engine.wasmtime(), &fd) {
            return Ok(Loaded { component, record });
        }
    }
    let compiled = engine.compile(module).map_err(|error| match error {
        CompileError::Refused(refusal) => Ending::of_engine_refusal(&refusal),
        // The compiler works in memory on the module alone: where it breaks, the module broke it, here and on any node.
        CompileError::Host(fault) if fault == HostFault::ENGINE => Ending::Refused(Refusal::new(
            Party::Requester,
            "engine.wasm.uncompilable",
            "the compiler could not cope with the module",
            "check the module with another tool; it may be cut short or damaged",
        )),
        CompileError::Host(fault) => Ending::of_host_fault(fault, false),
    })?;
    let fd = seal_compiled(&compiled.serialized).map_err(|error| cannot_keep(&error))?;
    let component = load_component(engine.wasmtime(), &fd).map_err(|error| cannot_keep(&error))?;
    let record = CompiledRecord {
        component: Digest(compiled.component_sha256),
        adapter: match compiled.adapter {
            AdapterUse::None => None,
            AdapterUse::Preview1(digest) => Some(Digest(digest)),
        },
        compiled: Digest(compiled.compiled_sha256),
    };
    link.send_with(&FromTask::CompiledMade { key, record }, &[&fd])?;
    Ok(Loaded { component, record })
}

/// Under what name compiled code is kept: everything that it follows from.
fn cache_key(build: &EngineBuild, engine: &WasmEngine, module_sha256: [u8; 32]) -> Digest {
    let determinism = engine.settings().determinism.as_str();
    tagged_hash("compiled-code", &[&module_sha256, &build.settings_sha256, determinism.as_bytes()])
}

fn cannot_keep(error: &CompiledError) -> Ending {
    let (party, remedy) = match error {
        CompiledError::Size(_) => (Party::Requester, "make the program smaller"),
        _ => (Party::Node, "nothing is wrong with the task: another node can run it"),
    };
    Ending::Refused(Refusal::new(party, error.code(), error.to_string(), remedy))
}
