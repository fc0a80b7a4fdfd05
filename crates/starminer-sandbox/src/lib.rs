//! The operating system's side of a task: a process of its own, sealed before the first guest byte.
//!
//! The supervising side starts its program once more, as a [`Zygote`] that only copies itself ([`be_zygote`]), and has it make a
//! task process ([`TaskProcess`]) for each task, to which it talks over one socket ([`Channel`]). The task process calls
//! [`Sealing::enter`] first thing, and gets back what is *truly* in force ([`InForce`]), read back from the kernel and never assumed. Secrets of either side live in [`LockedBytes`]; a process that supervises
//! tasks or releases keys hardens itself with [`harden_supervisor`]. [`compiled`] is the only place where machine code
//! that wasmtime compiled earlier is loaded, and [`enable_cpu_flags`] the only one where the processor features that such
//! code may use are named.
//!
//! What is put in force, in which order, and what root on the host can still do is written down in
//! `specs/sandbox.md`.
//!
//! This crate does not decide which protections a task must have (the policy does, over the posture that the agent
//! makes of [`InForce`]), does not speak to hardware, and does not know what travels in a message. Linux on x86_64
//! only: the system call list is written for that architecture.

// The home of `unsafe`: processes, memory locking, file-descriptor passing, and wasmtime's trust in machine code and in the
// features named for it have no safe interface in Rust. Every block says why it is sound.
#![allow(unsafe_code)]

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
compile_error!("starminer-sandbox seals processes on Linux x86_64 only");

mod channel;
pub mod compiled;
mod cpu;
mod enter;
mod in_force;
mod memory_file;
mod process;
mod profile;
mod secrets;
mod spawn;
mod supervisor;
mod sys;
mod zygote;

pub use channel::{AsyncChannel, AsyncReceiver, AsyncSender};
pub use channel::{CHANNEL_FD, Channel, ChannelError, MAX_MESSAGE_BYTES, MAX_MESSAGE_FDS, Message};
pub use compiled::{CompiledError, load_component, seal_compiled};
pub use cpu::enable_cpu_flags;
pub use enter::{Born, EnterError, ResourceLimit, Sealing, tighten};
pub use in_force::{InForce, Protection, State, UnreadablePosture};
pub use memory_file::memory_file;
pub use process::{Exit, ExitStatus, SpawnError, TaskProcess};
pub use profile::{MemoryLocking, Profile, Threads};
pub use secrets::{Locked, LockedBytes, lock_pages, lock_process};
pub use spawn::{Program, Stderr};
pub use supervisor::{HardenError, Hardened, harden_supervisor};
pub use zygote::{Zygote, be_zygote};
