//! The engines that run a task's workload, and the file system each task sees.
//!
//! * [`fs`]: one in-memory directory tree per task. `/in` holds the sealed inputs, read-only; `/out` and `/scratch` hold
//!   files whose pages are encrypted by the vault before they leave memory.
//! * [`wasm`]: components and preview-1 modules in wasmtime, bounded in fuel, memory and time, repeatable bit for bit.
//! * [`onnx`]: batch inference over a CSV input with tract.
//!
//! The crate is meant for a single-use process that can open nothing: it never opens a file or a socket, starts no
//! thread, and reads the clock or the random generator of the machine only where a task was granted them. It does not
//! hold keys, seal outputs, or load compiled code from bytes (that is `unsafe`, and lives in `starminer-sandbox`).
//!
//! The rules that a guest can rely on are written down in `specs/engines.md`.

mod build;
pub mod fs;
#[doc(hidden)]
pub mod fuzzing;
pub mod onnx;
mod refusal;
mod stop;
pub mod wasm;

pub use build::{EngineBuild, engine_build};
pub use refusal::{HostFault, Refusal};
pub use stop::{Stop, StopSignal};
