//! Keeping compiled wasm between tasks, and the only place where it is loaded.
//!
//! wasmtime trusts the bytes of compiled code: whoever can forge them runs machine code in the process that loads them.
//! The argument why [`load_component`] is sound, which its callers uphold by where they take descriptors from:
//!
//! 1. *Origin.* A descriptor reaches a task process only over its channel, from the agent that started it. The agent
//!    passes on only what one of its own task processes compiled since the agent's boot; nothing compiled is ever
//!    written to or read from a disk, the coordinator or another machine.
//! 2. *No guest had a say.* A task process seals and hands over compiled code before the first guest byte runs in it, so
//!    what it hands over is what wasmtime's compiler made of the (untrusted) module.
//! 3. *Only its owner's.* The agent keeps it per task owner, and so even a task process that was broken into through a
//!    flaw of the compiler can harm only tasks of the same owner.
//! 4. *Unchanged since.* The kernel's seals make the bytes immutable for everybody, also for the process that wrote
//!    them; `load_component` refuses a descriptor without them. It then works on a private copy.
//! 5. *Same engine.* wasmtime refuses code of another version, target, CPU feature set or setting.
//!
//! Not here: compiling, the cache, and the rule who owns what.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};

use wasmtime::Engine;
use wasmtime::component::Component;

use crate::memory_file::memory_file;
use crate::sys;

/// Largest compiled code that is sealed or loaded, in bytes.
pub const MAX_COMPILED_BYTES: usize = 256 << 20;

/// The seals without which compiled code is not loaded: nobody can write, shorten, extend, or lift the seals.
const SEALS: libc::c_int = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;

/// Why compiled code was not sealed or loaded.
#[derive(Debug, thiserror::Error)]
pub enum CompiledError {
    /// It is larger than [`MAX_COMPILED_BYTES`], or empty.
    #[error("compiled code of {0} bytes is outside the bounds")]
    Size(u64),
    /// The descriptor is not a sealed memory file: its bytes could change, or come from a disk.
    #[error("the descriptor is not a sealed memory file")]
    NotSealed,
    /// The operating system refused.
    #[error("compiled code could not be kept in memory")]
    System(#[from] io::Error),
    /// Compiled by another engine, or not compiled code at all.
    #[error("this engine cannot load the compiled code: {0:#}")]
    Engine(wasmtime::Error),
}

impl CompiledError {
    /// A stable code for logs and reports.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Size(_) => "compiled.size",
            Self::NotSealed => "compiled.not-sealed",
            Self::System(_) => "compiled.system",
            Self::Engine(_) => "compiled.engine",
        }
    }
}

/// Puts compiled code (from `Component::serialize`) into a memory file that nobody can change any more.
///
/// # Errors
/// If it is empty or too large, or the operating system refuses.
pub fn seal_compiled(bytes: &[u8]) -> Result<OwnedFd, CompiledError> {
    check_size(bytes.len() as u64)?;
    let fd = OwnedFd::from(memory_file()?);
    let mut rest = bytes;
    while !rest.is_empty() {
        // SAFETY: `rest` is valid for its length.
        let count =
            sys::retry(|| sys::check(unsafe { libc::write(fd.as_raw_fd(), rest.as_ptr().cast(), rest.len()) } as i64))?;
        rest = &rest[count as usize..];
    }
    // SAFETY: F_ADD_SEALS takes a number and touches no memory.
    sys::check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, SEALS) })?;
    Ok(fd)
}

/// Loads compiled code from a memory file made by [`seal_compiled`] in a task process of this agent.
///
/// The module's introduction says why this is sound and what callers uphold.
///
/// # Errors
/// If the descriptor is not a sealed memory file within the bounds, or the engine does not accept the code.
pub fn load_component(engine: &Engine, fd: impl AsFd) -> Result<Component, CompiledError> {
    let view = View::of(fd.as_fd())?;
    // SAFETY: by the argument in the module's introduction the bytes are what wasmtime's compiler made, and they cannot
    // change: the view checked the seals. wasmtime copies them before it uses them.
    unsafe { Component::deserialize(engine, view.bytes()) }.map_err(CompiledError::Engine)
}

fn check_size(bytes: u64) -> Result<NonZeroUsize, CompiledError> {
    usize::try_from(bytes)
        .ok()
        .filter(|bytes| *bytes <= MAX_COMPILED_BYTES)
        .and_then(NonZeroUsize::new)
        .ok_or(CompiledError::Size(bytes))
}

/// A read-only mapping of a whole sealed memory file.
struct View {
    start: NonNull<libc::c_void>,
    length: NonZeroUsize,
}

impl View {
    fn of(fd: BorrowedFd<'_>) -> Result<Self, CompiledError> {
        // Seals first: only a memory file has any, and with them its size cannot change after it was read.
        // SAFETY: F_GET_SEALS touches no memory.
        let seals = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GET_SEALS) };
        if seals < 0 || seals & SEALS != SEALS {
            return Err(CompiledError::NotSealed);
        }
        // SAFETY: all zero bytes are a valid `stat`.
        let mut stat: libc::stat = unsafe { std::mem::zeroed() };
        // SAFETY: `stat` is valid and writable for the call.
        sys::check(unsafe { libc::fstat(fd.as_raw_fd(), &mut stat) })?;
        let length = check_size(u64::try_from(stat.st_size).unwrap_or(u64::MAX))?;
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let start =
            unsafe { libc::mmap(ptr::null_mut(), length.get(), libc::PROT_READ, libc::MAP_PRIVATE, fd.as_raw_fd(), 0) };
        match NonNull::new(start) {
            Some(start) if start.as_ptr() != libc::MAP_FAILED => Ok(Self { start, length }),
            _ => Err(io::Error::last_os_error().into()),
        }
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping covers `length` bytes, lives as long as `self`, and its bytes cannot change: the file is
        // sealed against writing and shrinking.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.length.get()) }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // SAFETY: the mapping belongs to this value, and nothing borrows it any more.
        unsafe { libc::munmap(self.start.as_ptr(), self.length.get()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const SOURCE: &str = r#"(component
        (core module $m (func (export "f") (result i32) i32.const 42))
        (core instance $i (instantiate $m))
        (func (export "f") (result s32) (canon lift (core func $i "f"))))"#;

    fn serialized(engine: &Engine) -> Vec<u8> {
        let wasm = wat::parse_str(SOURCE).expect("valid text");
        Component::new(engine, wasm).and_then(|component| component.serialize()).expect("compiles")
    }

    #[test]
    fn loads_what_was_sealed() {
        let engine = Engine::default();
        let fd = seal_compiled(&serialized(&engine)).expect("seals");
        let component = load_component(&engine, &fd).expect("loads");
        let mut store = wasmtime::Store::new(&engine, ());
        let linker = wasmtime::component::Linker::new(&engine);
        let instance = linker.instantiate(&mut store, &component).expect("instantiates");
        let f = instance.get_typed_func::<(), (i32,)>(&mut store, "f").expect("exported");
        assert_eq!(f.call(&mut store, ()).expect("runs"), (42,));
    }

    #[test]
    fn nobody_can_change_what_was_sealed() {
        let fd = seal_compiled(b"anything").expect("seals");
        let mut file = std::fs::File::from(fd);
        assert!(file.write_all(b"x").is_err(), "written");
        assert!(file.set_len(1).is_err(), "shortened");
        assert!(file.set_len(100).is_err(), "extended");
        // SAFETY: F_ADD_SEALS touches no memory.
        let resealed = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, libc::F_SEAL_WRITE) };
        assert_eq!(resealed, -1, "seals changed");
    }

    #[test]
    fn refuses_what_was_not_sealed_here() {
        let engine = Engine::default();
        let code = |fd: BorrowedFd<'_>| load_component(&engine, fd).expect_err("loaded").code();

        let mut file = tempfile::tempfile().expect("temporary file");
        file.write_all(&serialized(&engine)).expect("written");
        assert_eq!(code(file.as_fd()), "compiled.not-sealed", "a file on a disk");

        for seals in [0, libc::F_SEAL_WRITE, SEALS & !libc::F_SEAL_SEAL, SEALS & !libc::F_SEAL_WRITE] {
            let memory = memory_file().expect("memory file");
            let mut file = memory.try_clone().expect("duplicates");
            file.write_all(&serialized(&engine)).expect("written");
            // SAFETY: F_ADD_SEALS touches no memory.
            unsafe { libc::fcntl(memory.as_raw_fd(), libc::F_ADD_SEALS, seals) };
            assert_eq!(code(memory.as_fd()), "compiled.not-sealed", "seals {seals}");
        }

        let fd = seal_compiled(b"not compiled code").expect("seals");
        assert_eq!(code(fd.as_fd()), "compiled.engine");

        let empty = memory_file().expect("memory file");
        // SAFETY: F_ADD_SEALS touches no memory.
        unsafe { libc::fcntl(empty.as_raw_fd(), libc::F_ADD_SEALS, SEALS) };
        assert_eq!(code(empty.as_fd()), "compiled.size");

        let huge = memory_file().expect("memory file");
        huge.try_clone().expect("duplicates").set_len(MAX_COMPILED_BYTES as u64 + 1).expect("sparse");
        // SAFETY: F_ADD_SEALS touches no memory.
        unsafe { libc::fcntl(huge.as_raw_fd(), libc::F_ADD_SEALS, SEALS) };
        assert_eq!(code(huge.as_fd()), "compiled.size");
    }

    #[test]
    fn refuses_code_of_another_engine() {
        let mut config = wasmtime::Config::new();
        config.consume_fuel(true);
        let metered = Engine::new(&config).expect("engine");
        let fd = seal_compiled(&serialized(&metered)).expect("seals");
        assert_eq!(load_component(&Engine::default(), &fd).expect_err("loaded").code(), "compiled.engine");
        load_component(&metered, &fd).expect("its own engine loads it");
    }

    #[test]
    fn bounds_what_it_seals() {
        assert_eq!(seal_compiled(b"").expect_err("sealed").code(), "compiled.size");
    }
}
