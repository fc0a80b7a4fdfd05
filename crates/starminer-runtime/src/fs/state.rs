//! `/state`: a tree that is committed as a whole, and found again (`specs/checkpoint.md`, section 1).
//!
//! Contents are in [`StateFiles`], which makes all of them durable at once; here is what goes with them: names and directories, as one byte
//! string. What comes back is authentic and still not believed: a guest that broke into its process may have written it.

use std::collections::HashSet;

use super::backing::{ScratchId, StateFiles};
use super::tree::{Kind, NodeId};
use super::{Descriptor, FsError, MAX_NODES, Room, Store, TaskFs, path};
use crate::HostFault;

/// What a tree begins with: name and version.
const MAGIC: [u8; 8] = *b"SMSTATE1";
const DIRECTORY: u8 = 0;
const FILE: u8 = 1;
/// Bytes of an entry beside its name: parent, kind, length of the name, file.
const ENTRY_FIXED_BYTES: usize = 4 + 1 + 2 + 8;
/// Longest tree.
pub const MAX_STATE_TREE_BYTES: usize = MAGIC.len() + 4 + MAX_NODES * (ENTRY_FIXED_BYTES + path::MAX_NAME_BYTES);

/// Why a tree was not taken up. The state is the node's to have kept, or a process of this task was broken into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// It is no tree, or contradicts itself or the files that it is of.
    #[error("the tree of the committed state is malformed: {0}")]
    Malformed(&'static str),
    /// The files hold more than the task may.
    #[error("the committed state is larger than the task's limit")]
    TooLarge,
    /// The store failed.
    #[error("the store of the committed state failed")]
    Store,
}

pub(super) struct State {
    pub(super) root: NodeId,
    pub(super) files: Box<dyn StateFiles>,
    pub(super) room: Room,
}

/// One entry of a tree, in the order of the tree: a directory comes before what is in it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TreeEntry<'a> {
    /// 0 for the root, else the number of an earlier directory, counted among directories from 1.
    pub(crate) parent: u32,
    pub(crate) name: &'a str,
    /// `None` for a directory.
    pub(crate) file: Option<ScratchId>,
}

/// Reads a tree. Names are entry names, parents come before their children, and no file stands in it twice; whether names repeat is seen when
/// they are put into a directory.
pub(crate) fn parse(bytes: &[u8]) -> Result<Vec<TreeEntry<'_>>, StateError> {
    let malformed = StateError::Malformed;
    if bytes.len() > MAX_STATE_TREE_BYTES {
        return Err(malformed("it is too long"));
    }
    let rest = bytes.strip_prefix(&MAGIC).ok_or(malformed("it is none"))?;
    let (count, mut rest) = number::<4>(rest)?;
    let count = u32::from_be_bytes(count) as usize;
    if count > MAX_NODES {
        return Err(malformed("it has too many entries"));
    }
    let mut entries = Vec::with_capacity(count.min(rest.len() / ENTRY_FIXED_BYTES));
    let (mut directories, mut files) = (0u32, HashSet::new());
    for _ in 0..count {
        let (parent, after) = number::<4>(rest)?;
        let ([kind], after) = number::<1>(after)?;
        let (name_len, after) = number::<2>(after)?;
        let (file, after) = number::<8>(after)?;
        let name_len = usize::from(u16::from_be_bytes(name_len));
        let name = after.get(..name_len).ok_or(malformed("it ends early"))?;
        rest = after.get(name_len..).unwrap_or_default();
        let name = std::str::from_utf8(name).map_err(|_| malformed("a name is not UTF-8"))?;
        if !path::is_entry_name(name) {
            return Err(malformed("a name is none"));
        }
        let parent = u32::from_be_bytes(parent);
        if parent > directories {
            return Err(malformed("a directory comes after what is in it"));
        }
        let file = match (kind, u64::from_be_bytes(file)) {
            (DIRECTORY, 0) => {
                directories += 1;
                None
            }
            (FILE, file) => {
                if !files.insert(file) {
                    return Err(malformed("a file is in it twice"));
                }
                Some(ScratchId(file))
            }
            _ => return Err(malformed("an entry is neither file nor directory")),
        };
        entries.push(TreeEntry { parent, name, file });
    }
    if !rest.is_empty() {
        return Err(malformed("something follows it"));
    }
    Ok(entries)
}

fn number<const N: usize>(bytes: &[u8]) -> Result<([u8; N], &[u8]), StateError> {
    bytes.split_first_chunk().map(|(number, rest)| (*number, rest)).ok_or(StateError::Malformed("it ends early"))
}

impl TaskFs {
    /// Grants `/state` over `files`, as it was committed last: empty where nothing was. The lengths of all files below it together never exceed
    /// `quota_bytes`; holes count. Files that no directory names any more are removed.
    ///
    /// # Errors
    /// [`StateError`]; the file system is then not to be used.
    pub fn add_state(&mut self, files: impl StateFiles + 'static, quota_bytes: u64) -> Result<(), StateError> {
        let mut files: Box<dyn StateFiles> = Box::new(files);
        let tree = files.tree().map_err(|_| StateError::Store)?;
        let root = self.tree.add_root();
        let mut directories = vec![root];
        let (mut used_bytes, mut named) = (0u64, HashSet::new());
        for entry in tree.as_deref().map(parse).transpose()?.unwrap_or_default() {
            let parent = *directories.get(entry.parent as usize).ok_or(StateError::Malformed("no such directory"))?;
            if self.tree.lookup(parent, entry.name).is_some() {
                return Err(StateError::Malformed("a name is there twice"));
            }
            let kind = match entry.file {
                None => Kind::Directory { entries: Default::default() },
                Some(file) => {
                    let len = files.len(file).ok_or(StateError::Malformed("a file is missing"))?;
                    used_bytes = used_bytes.checked_add(len).ok_or(StateError::TooLarge)?;
                    named.insert(file);
                    Kind::Scratch { store: Store::State, file, len }
                }
            };
            let is_directory = entry.file.is_none();
            let node = self.tree.add_entry(parent, entry.name, kind).map_err(|_| StateError::Malformed("too much"))?;
            if is_directory {
                directories.push(node);
            }
        }
        if used_bytes > quota_bytes {
            return Err(StateError::TooLarge);
        }
        for file in files.files() {
            if !named.contains(&file) {
                files.contents().remove(file).map_err(|_| StateError::Store)?;
            }
        }
        self.state = Some(State { root, files, room: Room { used_bytes, quota_bytes } });
        Ok(())
    }

    /// What a guest's `sync` of a descriptor means. That of a file or directory of `/state` commits the whole of `/state`, and returns when it is durable.
    /// Nothing else outlives the task, so that any other has nothing to do.
    ///
    /// # Errors
    /// [`FsError::Host`]: it may or may not have been committed, and the run ends.
    pub fn sync(&mut self, descriptor: &Descriptor) -> Result<(), FsError> {
        if self.is_state(descriptor) { self.commit_state() } else { Ok(()) }
    }

    /// Whether the object is a file or directory of `/state`.
    pub fn is_state(&self, descriptor: &Descriptor) -> bool {
        match self.tree.node(descriptor.node).kind {
            Kind::Directory { .. } => self.store_of(descriptor.node) == Store::State,
            Kind::Input { .. } => false,
            Kind::Scratch { store, .. } => store == Store::State,
        }
    }

    /// Commits `/state`, where there is one.
    ///
    /// # Errors
    /// As [`Self::sync`].
    pub fn commit_state(&mut self) -> Result<(), FsError> {
        let Some(root) = self.state.as_ref().map(|state| state.root) else { return Ok(()) };
        let tree = self.encode_tree(root);
        let state = self.state.as_mut().ok_or(FsError::Host(HostFault::ENGINE))?;
        // What does not fit is no fault of the host, but commits bound the tree by its own limit: nothing a guest can do gets there.
        state.files.commit(&tree).map_err(|_| FsError::Host(HostFault::SCRATCH))
    }

    /// Bytes that a commit would have to make durable at most: what the files hold.
    pub fn state_bytes(&self) -> u64 {
        self.state.as_ref().map_or(0, |state| state.room.used_bytes)
    }

    fn encode_tree(&self, root: NodeId) -> Vec<u8> {
        let mut entries = Vec::new();
        let mut count = 0u32;
        let mut directories = 0u32;
        // Breadth first, so that every directory has its number before what is in it.
        let mut waiting = std::collections::VecDeque::from([(root, 0u32)]);
        while let Some((directory, number)) = waiting.pop_front() {
            let Ok(below) = self.tree.entries(directory) else { continue };
            for (name, &node) in below {
                let (kind, file) = match self.tree.node(node).kind {
                    Kind::Scratch { file, .. } => (FILE, file.0),
                    // No input is ever below `/state`.
                    Kind::Directory { .. } | Kind::Input { .. } => {
                        directories += 1;
                        waiting.push_back((node, directories));
                        (DIRECTORY, 0)
                    }
                };
                count += 1;
                entries.extend_from_slice(&number.to_be_bytes());
                entries.push(kind);
                entries.extend_from_slice(&(name.len() as u16).to_be_bytes());
                entries.extend_from_slice(&file.to_be_bytes());
                entries.extend_from_slice(name.as_bytes());
            }
        }
        let mut tree = Vec::with_capacity(MAGIC.len() + 4 + entries.len());
        tree.extend_from_slice(&MAGIC);
        tree.extend_from_slice(&count.to_be_bytes());
        tree.append(&mut entries);
        tree
    }
}
