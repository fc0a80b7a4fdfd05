//! What a task process asks of the kernel before it runs a guest.
//!
//! Only the wish: what came of it is [`crate::InForce`].

use crate::in_force::{Protection, ProtectionSet};

/// Whether the task process may start threads. Neither choice ever lets it start a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// `clone` kills the process. The wasm engine and a `current_thread` tokio runtime need no more.
    Refused,
    /// At most this many threads besides the first. The number is enforced only where the `user-namespace` protection
    /// is in force, because elsewhere Linux counts all processes of the user together.
    UpTo(u32),
}

/// How much of the memory is kept out of swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryLocking {
    /// Pages of [`crate::LockedBytes`] only.
    Secrets,
    /// Every page of the process as it is touched, where the kernel permits it (unlimited `RLIMIT_MEMLOCK`), else
    /// [`MemoryLocking::Secrets`].
    EverythingIfPermitted,
}

/// The limits and protections for one task process.
///
/// [`Profile::default`] asks for everything and demands nothing that some kernels lack; a caller that would rather
/// not run than run without a protection adds [`Profile::require`].
#[derive(Clone, Debug)]
pub struct Profile {
    /// Private writable memory in bytes (`RLIMIT_DATA`): the backstop behind the engine's own memory bound.
    /// `RLIMIT_AS` is left alone, because wasmtime reserves far more address space than it ever touches.
    pub data_bytes: u64,
    /// Largest size in bytes to which the process may extend a file it was handed, memfds included (`RLIMIT_FSIZE`).
    pub file_bytes: u64,
    /// Descriptors that may be open at once (`RLIMIT_NOFILE`).
    pub open_files: u64,
    /// Whether threads may be started.
    pub threads: Threads,
    /// How much of the memory is kept out of swap.
    pub memory_locking: MemoryLocking,
    pub(crate) required: ProtectionSet,
    pub(crate) skipped: ProtectionSet,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            data_bytes: 8 << 30,
            file_bytes: 256 << 30,
            open_files: 128,
            threads: Threads::Refused,
            memory_locking: MemoryLocking::EverythingIfPermitted,
            required: ProtectionSet::EMPTY,
            skipped: ProtectionSet::EMPTY,
        }
    }
}

impl Profile {
    /// Makes [`crate::Sealing::enter`] fail unless `protection` is in force.
    #[must_use]
    pub fn require(mut self, protection: Protection) -> Self {
        self.required.insert(protection);
        self
    }

    /// Does not ask the kernel for `protection`, which is then reported absent.
    ///
    /// For hosts where asking is known to hurt, and for tests of honest reporting. Has an effect only on the
    /// namespaces, on Landlock and on memory locking: everything else is always put in force.
    #[must_use]
    pub fn skip(mut self, protection: Protection) -> Self {
        self.skipped.insert(protection);
        self
    }
}
