//! Directories and their entries: a slab of nodes, and how paths are walked over it. Knows nothing of contents.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::path::{RelativePath, Step};
use super::{FsError, MAX_DEPTH, MAX_NODES, ScratchId, Store};

/// Place of a node in the slab. Valid while the node is in a directory or held open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct NodeId(usize);

pub(super) enum Kind {
    /// Entries in byte order of their names.
    Directory {
        entries: BTreeMap<Box<str>, NodeId>,
    },
    /// `index` into the task's inputs.
    Input {
        index: usize,
        len: u64,
    },
    Scratch {
        store: Store,
        file: ScratchId,
        len: u64,
    },
}

/// Where a node hangs. There are no hard links, so it is one place at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parent {
    /// The root of a grant.
    Root,
    Directory(NodeId),
    /// Removed; it lives until its last holder lets go.
    None,
}

pub(super) struct Node {
    /// Counts nodes from the task's start, so that it is the same in every run and never used twice.
    pub(super) serial: u64,
    pub(super) kind: Kind,
    pub(super) parent: Parent,
    pub(super) holders: u32,
}

/// Where a path leads.
pub(super) enum Place<'p> {
    /// To a directory that was not named by its last step: `.`, `a/..`.
    Directory(NodeId),
    /// To the entry `name` of `parent`, which may or may not exist.
    Entry { parent: NodeId, name: &'p str, node: Option<NodeId>, must_be_directory: bool },
}

pub(super) struct Tree {
    nodes: Vec<Option<Node>>,
    free: Vec<usize>,
    next_serial: u64,
}

impl Tree {
    pub(super) fn new() -> Self {
        Tree { nodes: Vec::new(), free: Vec::new(), next_serial: 0 }
    }

    pub(super) fn add_root(&mut self) -> NodeId {
        self.insert(Kind::Directory { entries: BTreeMap::new() }, Parent::Root)
    }

    fn insert(&mut self, kind: Kind, parent: Parent) -> NodeId {
        let node = Node { serial: self.next_serial, kind, parent, holders: 0 };
        self.next_serial += 1;
        match self.free.pop() {
            Some(at) => {
                self.nodes[at] = Some(node);
                NodeId(at)
            }
            None => {
                self.nodes.push(Some(node));
                NodeId(self.nodes.len() - 1)
            }
        }
    }

    pub(super) fn node(&self, id: NodeId) -> &Node {
        self.nodes[id.0].as_ref().expect("an id is kept only while its node is linked or held")
    }

    pub(super) fn node_mut(&mut self, id: NodeId) -> &mut Node {
        self.nodes[id.0].as_mut().expect("an id is kept only while its node is linked or held")
    }

    pub(super) fn is_directory(&self, id: NodeId) -> bool {
        matches!(self.node(id).kind, Kind::Directory { .. })
    }

    pub(super) fn entries(&self, id: NodeId) -> Result<&BTreeMap<Box<str>, NodeId>, FsError> {
        match &self.node(id).kind {
            Kind::Directory { entries } => Ok(entries),
            _ => Err(FsError::NotDirectory),
        }
    }

    fn entries_mut(&mut self, id: NodeId) -> Result<&mut BTreeMap<Box<str>, NodeId>, FsError> {
        match &mut self.node_mut(id).kind {
            Kind::Directory { entries } => Ok(entries),
            _ => Err(FsError::NotDirectory),
        }
    }

    pub(super) fn lookup(&self, directory: NodeId, name: &str) -> Option<NodeId> {
        self.entries(directory).ok()?.get(name).copied()
    }

    /// The first entry whose name sorts after `name`; the first of all for `None`.
    pub(super) fn entry_after(&self, directory: NodeId, name: Option<&str>) -> Result<Option<(&str, NodeId)>, FsError> {
        let from = name.map_or(Bound::Unbounded, Bound::Excluded);
        let mut after = self.entries(directory)?.range::<str, _>((from, Bound::Unbounded));
        Ok(after.next().map(|(name, &node)| (&**name, node)))
    }

    /// Walks `path` from `base`. A path that would step above `base` is refused before anything is looked up there.
    pub(super) fn walk<'p>(&self, base: NodeId, path: &'p str) -> Result<Place<'p>, FsError> {
        let path = RelativePath::parse(path)?;
        self.entries(base)?;
        let mut way = vec![base];
        let mut at = base;
        let (last, before) = path.steps.split_last().ok_or(FsError::NoEntry)?;
        for step in before {
            at = match *step {
                Step::Here => at,
                Step::Up => up(&mut way)?,
                Step::Into(name) => {
                    let next = *self.entries(at)?.get(name).ok_or(FsError::NoEntry)?;
                    self.entries(next)?;
                    way.push(next);
                    next
                }
            };
        }
        Ok(match *last {
            Step::Here => Place::Directory(at),
            Step::Up => Place::Directory(up(&mut way)?),
            Step::Into(name) => Place::Entry {
                parent: at,
                name,
                node: self.lookup(at, name),
                must_be_directory: path.must_be_directory,
            },
        })
    }

    /// Adds a node under a name that is free.
    pub(super) fn add_entry(&mut self, directory: NodeId, name: &str, kind: Kind) -> Result<NodeId, FsError> {
        self.check_room(directory, 1)?;
        if self.nodes.len() - self.free.len() >= MAX_NODES {
            return Err(FsError::NoSpace);
        }
        let node = self.insert(kind, Parent::Directory(directory));
        self.entries_mut(directory)?.insert(name.into(), node);
        Ok(node)
    }

    pub(super) fn add_directory(&mut self, directory: NodeId, name: &str) -> Result<NodeId, FsError> {
        self.add_entry(directory, name, Kind::Directory { entries: BTreeMap::new() })
    }

    /// Takes `name` out of `directory`. The node stays until it is released.
    pub(super) fn unlink(&mut self, directory: NodeId, name: &str) -> Result<NodeId, FsError> {
        let node = self.entries_mut(directory)?.remove(name).ok_or(FsError::NoEntry)?;
        self.node_mut(node).parent = Parent::None;
        Ok(node)
    }

    /// Puts an unlinked node under a free name.
    pub(super) fn link(&mut self, node: NodeId, directory: NodeId, name: &str) -> Result<(), FsError> {
        self.entries_mut(directory)?.insert(name.into(), node);
        self.node_mut(node).parent = Parent::Directory(directory);
        Ok(())
    }

    /// Refuses a directory that was itself removed, and nesting beyond [`MAX_DEPTH`] with `levels` more below it.
    pub(super) fn check_room(&self, directory: NodeId, levels: usize) -> Result<(), FsError> {
        if self.node(directory).parent == Parent::None {
            return Err(FsError::NoEntry);
        }
        if self.ancestors(directory).count() + levels > MAX_DEPTH {
            return Err(FsError::NameTooLong);
        }
        Ok(())
    }

    /// `node` and every directory above it, up to the root of its grant.
    pub(super) fn ancestors(&self, node: NodeId) -> impl Iterator<Item = NodeId> {
        std::iter::successors(Some(node), |&at| match self.node(at).parent {
            Parent::Directory(above) => Some(above),
            Parent::Root | Parent::None => None,
        })
    }

    /// Levels that `node` and all below it take: 1 for a file or an empty directory.
    pub(super) fn height(&self, node: NodeId) -> usize {
        match &self.node(node).kind {
            Kind::Directory { entries } => 1 + entries.values().map(|&below| self.height(below)).max().unwrap_or(0),
            _ => 1,
        }
    }

    /// Drops a node that nothing links or holds, and returns it so that its contents can go too.
    pub(super) fn take_if_unused(&mut self, id: NodeId) -> Option<Node> {
        let node = self.node(id);
        if node.parent != Parent::None || node.holders > 0 {
            return None;
        }
        self.free.push(id.0);
        self.nodes[id.0].take()
    }
}

fn up(way: &mut Vec<NodeId>) -> Result<NodeId, FsError> {
    way.pop();
    way.last().copied().ok_or(FsError::NotPermitted)
}
