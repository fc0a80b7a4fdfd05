//! The file system of one task: a small POSIX-like tree in memory whose file contents live in the vault.
//!
//! Three directories are granted: `/in` (sealed inputs, read-only), `/out` (becomes the task's outputs) and `/scratch`
//! (thrown away), and a task that asked for it has `/state`, which is committed as a whole and found again after a restart. There is nothing above them, and no path leads from one to another except `rename` with a descriptor
//! of each. Directories list in byte order, timestamps are constant, and the answer to every call follows from the calls
//! before it, so that a run repeats bit for bit.
//!
//! It deliberately has no symbolic links, hard links, permissions, owners, locks or times, and it does not know WASI
//! (`wasm/host/filesystem.rs` does), keys, or where the vault keeps its bytes. Semantics: `specs/engines.md`.

mod backing;
mod data;
mod error;
pub(crate) mod fuzzing;
mod open;
mod outputs;
mod path;
mod state;
#[cfg(test)]
mod tests;
mod tree;
mod vault;

pub use backing::{InputError, InputFile, ScratchError, ScratchFiles, ScratchId, StateFiles};
pub use error::FsError;
pub use open::{Descriptor, Entry, FileKind, OpenHow, Stat};
pub use outputs::{Output, OutputReader};
pub use path::{MAX_NAME_BYTES, MAX_PATH_BYTES};
pub use state::{MAX_STATE_TREE_BYTES, StateError};

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
    /// `/state`: what was committed is found again by the next attempt on the same node.
    State,
}

impl Grant {
    /// The grants of every task, in the order in which a guest sees them. [`Grant::State`] comes after them where there is one.
    pub const ALWAYS: [Grant; 3] = [Grant::Inputs, Grant::Outputs, Grant::Scratch];

    /// Absolute path under which the guest finds the grant.
    pub fn path(self) -> &'static str {
        match self {
            Grant::Inputs => "/in",
            Grant::Outputs => "/out",
            Grant::Scratch => "/scratch",
            Grant::State => "/state",
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

/// Lengths of files that count together, holes included, and what their sum may grow to.
#[derive(Debug, Clone, Copy)]
struct Room {
    used_bytes: u64,
    quota_bytes: u64,
}

/// Where a file's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Store {
    /// `/out` and `/scratch`.
    Scratch,
    /// `/state`.
    State,
}

/// The file system of one task. One owner at a time; see `wasm` for how a guest's streams share it.
pub struct TaskFs {
    tree: Tree,
    grants: [NodeId; 3],
    inputs: Vec<Box<dyn InputFile>>,
    scratch: Box<dyn ScratchFiles>,
    /// What the living files in `/out` and `/scratch` may grow to together.
    room: Room,
    state: Option<state::State>,
    open_count: u32,
}

impl TaskFs {
    /// An empty file system over `scratch`. The lengths of all files in `/out` and `/scratch` together never exceed
    /// `quota_bytes`; holes count.
    pub fn new(scratch: impl ScratchFiles + 'static, quota_bytes: u64) -> Self {
        let mut tree = Tree::new();
        let grants = Grant::ALWAYS.map(|_| tree.add_root());
        TaskFs {
            tree,
            grants,
            inputs: Vec::new(),
            scratch: Box::new(scratch),
            room: Room { used_bytes: 0, quota_bytes },
            state: None,
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
        self.room.used_bytes
    }

    /// The grants that there are, in the order in which a guest sees them.
    pub fn grants(&self) -> impl Iterator<Item = Grant> {
        Grant::ALWAYS.into_iter().chain(self.state.as_ref().map(|_| Grant::State))
    }

    fn root(&self, grant: Grant) -> Result<NodeId, FsError> {
        match grant {
            Grant::Inputs | Grant::Outputs | Grant::Scratch => Ok(self.grants[grant as usize]),
            Grant::State => self.state.as_ref().map(|state| state.root).ok_or(FsError::NoEntry),
        }
    }

    /// The store of a file, and what the files in it may hold together.
    fn store(&mut self, store: Store) -> Result<(&mut dyn ScratchFiles, &mut Room), FsError> {
        match store {
            Store::Scratch => Ok((&mut *self.scratch, &mut self.room)),
            Store::State => {
                let state = self.state.as_mut().ok_or(FsError::Host(crate::HostFault::ENGINE))?;
                Ok((state.files.contents(), &mut state.room))
            }
        }
    }

    /// The store that everything below a directory is in.
    fn store_of(&self, directory: NodeId) -> Store {
        let root = self.tree.ancestors(directory).last();
        match &self.state {
            Some(state) if root == Some(state.root) => Store::State,
            _ => Store::Scratch,
        }
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
            .field("room", &self.room)
            .field("state", &self.state.is_some())
            .finish_non_exhaustive()
    }
}
