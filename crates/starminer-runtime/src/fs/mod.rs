//! The file system of one task: a small POSIX-like tree in memory whose file contents live in the vault.
//!
//! Three directories are granted: `/in` (sealed inputs, read-only), `/out` (becomes the task's outputs) and `/scratch`
//! (thrown away). There is nothing above them, and no path leads from one to another except `rename` with a descriptor
//! of each. Directories list in byte order, timestamps are constant, and the answer to every call follows from the calls
//! before it, so that a run repeats bit for bit.
//!
//! It deliberately has no symbolic links, hard links, permissions, owners, locks or times, and it does not know WASI
//! (`wasm/host/filesystem.rs` does), keys, or where the vault keeps its bytes. Semantics: `specs/engines.md`.

mod backing;
mod data;
mod error;
mod open;
mod outputs;
mod path;
#[cfg(test)]
mod tests;
mod tree;
mod vault;

pub use backing::{InputError, InputFile, ScratchError, ScratchFiles, ScratchId};
pub use error::FsError;
pub use open::{Descriptor, Entry, FileKind, OpenHow, Stat};
pub use outputs::{Output, OutputReader};
pub use path::{MAX_NAME_BYTES, MAX_PATH_BYTES};

use tree::{NodeId, Tree};

/// Files and directories that a task can have at once, the granted ones and the inputs included.
pub const MAX_NODES: usize = 16 * 1024;
/// Descriptors and streams that a task can have open at once.
pub const MAX_OPEN: u32 = 1024;
/// Levels from the root of a grant down to an entry, both counted.
pub const MAX_DEPTH: usize = 64;
/// Inputs that a task can have. Each keeps a few decrypted chunks.
pub const MAX_INPUTS: usize = 256;
/// Largest file, in bytes: an offset beyond it cannot come from an honest program.
pub const MAX_FILE_BYTES: u64 = 1 << 42;

/// What a task was granted of the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grant {
    /// `/in`: sealed inputs, read-only.
    Inputs,
    /// `/out`: what is there at the end is sealed to the requester.
    Outputs,
    /// `/scratch`: gone with the task.
    Scratch,
}

impl Grant {
    /// All grants, in the order in which a guest sees them.
    pub const ALL: [Grant; 3] = [Grant::Inputs, Grant::Outputs, Grant::Scratch];

    /// Absolute path under which the guest finds the grant.
    pub fn path(self) -> &'static str {
        match self {
            Grant::Inputs => "/in",
            Grant::Outputs => "/out",
            Grant::Scratch => "/scratch",
        }
    }
}

/// Why an input could not be placed under `/in`. The task specification is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddInputError {
    /// Empty, too long, `.`, `..`, or with a `/` or NUL in it.
    #[error("an input's name must be one path component of at most 255 bytes")]
    BadName,
    /// Two inputs have the same name.
    #[error("two inputs have the same name")]
    Duplicate,
    /// More than [`MAX_INPUTS`].
    #[error("too many inputs")]
    TooMany,
}

impl AddInputError {
    /// Stable dotted code.
    pub fn code(self) -> &'static str {
        match self {
            AddInputError::BadName => "engine.input.bad-name",
            AddInputError::Duplicate => "engine.input.duplicate-name",
            AddInputError::TooMany => "engine.input.too-many",
        }
    }
}

/// The file system of one task. One owner at a time; see `wasm` for how a guest's streams share it.
pub struct TaskFs {
    tree: Tree,
    grants: [NodeId; 3],
    inputs: Vec<Box<dyn InputFile>>,
    scratch: Box<dyn ScratchFiles>,
    /// Sum of the lengths of all living scratch files, and what it may grow to.
    used_bytes: u64,
    quota_bytes: u64,
    open_count: u32,
}

impl TaskFs {
    /// An empty file system over `scratch`. The lengths of all files in `/out` and `/scratch` together never exceed
    /// `quota_bytes`; holes count.
    pub fn new(scratch: impl ScratchFiles + 'static, quota_bytes: u64) -> Self {
        let mut tree = Tree::new();
        let grants = Grant::ALL.map(|_| tree.add_root());
        TaskFs {
            tree,
            grants,
            inputs: Vec::new(),
            scratch: Box::new(scratch),
            used_bytes: 0,
            quota_bytes,
            open_count: 0,
        }
    }

    /// Places a sealed input at `/in/<name>`.
    pub fn add_input(&mut self, name: &str, file: impl InputFile + 'static) -> Result<(), AddInputError> {
        if !path::is_entry_name(name) {
            return Err(AddInputError::BadName);
        }
        if self.inputs.len() >= MAX_INPUTS {
            return Err(AddInputError::TooMany);
        }
        let directory = self.grants[Grant::Inputs as usize];
        if self.tree.lookup(directory, name).is_some() {
            return Err(AddInputError::Duplicate);
        }
        let len = file.len();
        self.tree
            .add_entry(directory, name, tree::Kind::Input { index: self.inputs.len(), len })
            .map_err(|_| AddInputError::TooMany)?;
        self.inputs.push(Box::new(file));
        Ok(())
    }

    /// Bytes of scratch and outputs in use: what the quota is compared with.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    /// Descriptors and streams that are open.
    pub fn open_count(&self) -> u32 {
        self.open_count
    }
}

impl std::fmt::Debug for TaskFs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TaskFs")
            .field("inputs", &self.inputs.len())
            .field("used_bytes", &self.used_bytes)
            .field("quota_bytes", &self.quota_bytes)
            .finish_non_exhaustive()
    }
}
