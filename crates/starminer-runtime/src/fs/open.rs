//! Opening, naming, renaming and removing: every operation that takes a path.

use super::tree::{Kind, NodeId, Parent, Place};
use super::{FsError, Grant, MAX_OPEN, TaskFs};

/// What kind of object a path or descriptor names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum FileKind {
    Directory,
    File,
}

/// Kind and size of an object. There are no times, owners or modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// File or directory.
    pub kind: FileKind,
    /// Bytes in the file; 0 for a directory.
    pub size_bytes: u64,
    /// Different for every object of the task, never used twice, and the same in every run of it.
    pub serial: u64,
}

/// How to open a path. WASI's open flags and the two rights that matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OpenHow {
    /// Make the file if it is not there.
    pub create: bool,
    /// With `create`: refuse a file that is there.
    pub exclusive: bool,
    /// Refuse anything but a directory.
    pub directory: bool,
    /// Cut the file to nothing.
    pub truncate: bool,
    /// Open for reading.
    pub read: bool,
    /// Open for writing.
    pub write: bool,
}

/// One entry of a directory listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Name within the directory.
    pub name: String,
    /// File or directory.
    pub kind: FileKind,
}

/// An open file or directory. It holds its object: what is unlinked lives until the last descriptor is closed with
/// [`TaskFs::close`]. Not `Clone`, so that every one is closed once; it belongs to the file system that made it.
#[derive(Debug, PartialEq, Eq)]
pub struct Descriptor {
    pub(super) node: NodeId,
    pub(super) read: bool,
    /// Files: may be written. Directories: entries may be made, renamed and removed.
    pub(super) write: bool,
}

impl Descriptor {
    /// Open for reading.
    pub fn is_readable(&self) -> bool {
        self.read
    }

    /// A file open for writing, or a directory whose entries may change.
    pub fn is_writable(&self) -> bool {
        self.write
    }

    /// The same object.
    pub fn is_same_object(&self, other: &Descriptor) -> bool {
        self.node == other.node
    }
}

impl TaskFs {
    /// Opens the root of a grant.
    pub fn open_grant(&mut self, grant: Grant) -> Result<Descriptor, FsError> {
        let node = self.root(grant)?;
        self.hold(node, true, grant != Grant::Inputs)
    }

    /// Opens `path` under the directory `base`. A directory inherits from `base` whether its entries may change.
    pub fn open_at(&mut self, base: &Descriptor, path: &str, how: OpenHow) -> Result<Descriptor, FsError> {
        if how.create && how.directory {
            return Err(FsError::Invalid);
        }
        let (parent, name, node, must_be_directory) = match self.tree.walk(base.node, path)? {
            Place::Directory(node) => return self.open_directory(base, node, how),
            Place::Entry { parent, name, node, must_be_directory } => (parent, name, node, must_be_directory),
        };
        match node {
            Some(node) if self.tree.is_directory(node) => self.open_directory(base, node, how),
            Some(_) if how.create && how.exclusive => Err(FsError::Exists),
            Some(_) if how.directory || must_be_directory => Err(FsError::NotDirectory),
            Some(node) => {
                if (how.write || how.truncate) && (!base.write || self.is_input(node)) {
                    return Err(FsError::ReadOnly);
                }
                let descriptor = self.hold(node, how.read, how.write)?;
                if how.truncate
                    && let Err(error) = self.resize(node, 0)
                {
                    self.close(descriptor)?;
                    return Err(error);
                }
                Ok(descriptor)
            }
            None if !how.create => Err(FsError::NoEntry),
            None if !base.write => Err(FsError::ReadOnly),
            None if must_be_directory => Err(FsError::IsDirectory),
            None => {
                self.check_open_room()?;
                self.tree.check_room(parent, 1)?;
                let store = self.store_of(parent);
                let file = self.store(store)?.0.create()?;
                match self.tree.add_entry(parent, name, Kind::Scratch { store, file, len: 0 }) {
                    Ok(node) => self.hold(node, how.read, how.write),
                    Err(error) => {
                        self.store(store)?.0.remove(file)?;
                        Err(error)
                    }
                }
            }
        }
    }

    fn open_directory(&mut self, base: &Descriptor, node: NodeId, how: OpenHow) -> Result<Descriptor, FsError> {
        if how.create && how.exclusive {
            return Err(FsError::Exists);
        }
        if how.write || how.truncate || how.create {
            return Err(FsError::IsDirectory);
        }
        self.hold(node, true, base.write)
    }

    /// Another descriptor of the same object with the same rights, for a stream of its own.
    pub fn reopen(&mut self, descriptor: &Descriptor) -> Result<Descriptor, FsError> {
        self.hold(descriptor.node, descriptor.read, descriptor.write)
    }

    fn check_open_room(&self) -> Result<(), FsError> {
        if self.open_count < MAX_OPEN { Ok(()) } else { Err(FsError::TooManyOpen) }
    }

    fn hold(&mut self, node: NodeId, read: bool, write: bool) -> Result<Descriptor, FsError> {
        self.check_open_room()?;
        self.open_count += 1;
        self.tree.node_mut(node).holders += 1;
        Ok(Descriptor { node, read, write })
    }

    /// Closes a descriptor. What it was the last holder of, and is in no directory any more, gives its space back.
    pub fn close(&mut self, descriptor: Descriptor) -> Result<(), FsError> {
        self.open_count -= 1;
        self.tree.node_mut(descriptor.node).holders -= 1;
        self.drop_if_unused(descriptor.node)
    }

    fn drop_if_unused(&mut self, node: NodeId) -> Result<(), FsError> {
        if let Some(node) = self.tree.take_if_unused(node)
            && let Kind::Scratch { store, file, len } = node.kind
        {
            let (files, room) = self.store(store)?;
            room.used_bytes -= len;
            files.remove(file)?;
        }
        Ok(())
    }

    /// Kind and size of an open object.
    pub fn stat(&self, descriptor: &Descriptor) -> Stat {
        self.stat_node(descriptor.node)
    }

    /// Kind and size of what `path` names.
    pub fn stat_at(&self, base: &Descriptor, path: &str) -> Result<Stat, FsError> {
        let node = match self.tree.walk(base.node, path)? {
            Place::Directory(node) => node,
            Place::Entry { node, must_be_directory, .. } => {
                let node = node.ok_or(FsError::NoEntry)?;
                if must_be_directory && !self.tree.is_directory(node) {
                    return Err(FsError::NotDirectory);
                }
                node
            }
        };
        Ok(self.stat_node(node))
    }

    pub(super) fn stat_node(&self, node: NodeId) -> Stat {
        let node = self.tree.node(node);
        let (kind, size_bytes) = match node.kind {
            Kind::Directory { .. } => (FileKind::Directory, 0),
            Kind::Input { len, .. } | Kind::Scratch { len, .. } => (FileKind::File, len),
        };
        Stat { kind, size_bytes, serial: node.serial }
    }

    /// Setting times changes nothing, since they are constant; it is refused where changing anything is.
    pub fn set_times(&self, descriptor: &Descriptor) -> Result<(), FsError> {
        let refused = match self.tree.node(descriptor.node).kind {
            Kind::Directory { .. } => !descriptor.write,
            Kind::Input { .. } => true,
            Kind::Scratch { .. } => false,
        };
        if refused { Err(FsError::ReadOnly) } else { Ok(()) }
    }

    /// As [`TaskFs::set_times`], by path.
    pub fn set_times_at(&self, base: &Descriptor, path: &str) -> Result<(), FsError> {
        self.stat_at(base, path)?;
        if base.write { Ok(()) } else { Err(FsError::ReadOnly) }
    }

    fn is_input(&self, node: NodeId) -> bool {
        matches!(self.tree.node(node).kind, Kind::Input { .. })
    }

    /// The entry after `name` in byte order, the first for `None`. A listing that goes from name to name sees every
    /// entry that is there throughout, once.
    pub fn next_entry(&self, directory: &Descriptor, name: Option<&str>) -> Result<Option<Entry>, FsError> {
        let found = self.tree.entry_after(directory.node, name)?;
        Ok(found.map(|(name, node)| Entry { name: name.to_owned(), kind: self.stat_node(node).kind }))
    }

    /// Makes a directory. Its parent must exist.
    pub fn create_directory_at(&mut self, base: &Descriptor, path: &str) -> Result<(), FsError> {
        match self.tree.walk(base.node, path)? {
            Place::Directory(_) | Place::Entry { node: Some(_), .. } => Err(FsError::Exists),
            _ if !base.write => Err(FsError::ReadOnly),
            Place::Entry { parent, name, node: None, .. } => self.tree.add_directory(parent, name).map(|_| ()),
        }
    }

    /// Removes an empty directory.
    pub fn remove_directory_at(&mut self, base: &Descriptor, path: &str) -> Result<(), FsError> {
        let Place::Entry { parent, name, node, .. } = self.tree.walk(base.node, path)? else {
            return Err(FsError::Invalid); // a path ending in `.` or `..` (POSIX rmdir)
        };
        let node = node.ok_or(FsError::NoEntry)?;
        if !self.tree.entries(node)?.is_empty() {
            return Err(FsError::NotEmpty);
        }
        if !base.write {
            return Err(FsError::ReadOnly);
        }
        self.tree.unlink(parent, name)?;
        self.drop_if_unused(node)
    }

    /// Removes a file's name. Its contents live until the last descriptor is closed.
    pub fn unlink_file_at(&mut self, base: &Descriptor, path: &str) -> Result<(), FsError> {
        let Place::Entry { parent, name, node, must_be_directory } = self.tree.walk(base.node, path)? else {
            return Err(FsError::IsDirectory);
        };
        let node = node.ok_or(FsError::NoEntry)?;
        if self.tree.is_directory(node) {
            return Err(FsError::IsDirectory);
        }
        if must_be_directory {
            return Err(FsError::NotDirectory);
        }
        if !base.write {
            return Err(FsError::ReadOnly);
        }
        self.tree.unlink(parent, name)?;
        self.drop_if_unused(node)
    }

    /// Renames a file or directory, also from one grant to another, replacing a file, or an empty directory by a
    /// directory (POSIX rename). All or nothing. `/state` is a store of its own: nothing is renamed into or out of it.
    pub fn rename_at(&mut self, from: &Descriptor, path: &str, to: &Descriptor, new_path: &str) -> Result<(), FsError> {
        let (Place::Entry { parent, name, node, must_be_directory }, new) =
            (self.tree.walk(from.node, path)?, self.tree.walk(to.node, new_path)?)
        else {
            return Err(FsError::Invalid);
        };
        let Place::Entry { parent: new_parent, name: new_name, node: target, must_be_directory: new_must } = new else {
            return Err(FsError::Invalid);
        };
        let node = node.ok_or(FsError::NoEntry)?;
        if !from.write || !to.write {
            return Err(FsError::ReadOnly);
        }
        let directory = self.tree.is_directory(node);
        if !directory && (must_be_directory || new_must) {
            return Err(FsError::NotDirectory);
        }
        if target == Some(node) {
            return Ok(());
        }
        if self.store_of(parent) != self.store_of(new_parent) {
            return Err(FsError::CrossDevice);
        }
        if directory && self.tree.ancestors(new_parent).any(|above| above == node) {
            return Err(FsError::Invalid);
        }
        if let Some(target) = target {
            match (directory, self.tree.is_directory(target)) {
                (true, false) => return Err(FsError::NotDirectory),
                (false, true) => return Err(FsError::IsDirectory),
                (true, true) if !self.tree.entries(target)?.is_empty() => return Err(FsError::NotEmpty),
                _ => {}
            }
        }
        self.tree.check_room(new_parent, self.tree.height(node))?;
        if let Some(target) = target {
            self.tree.unlink(new_parent, new_name)?;
            self.drop_if_unused(target)?;
        }
        self.tree.unlink(parent, name)?;
        self.tree.link(node, new_parent, new_name)
    }

    /// Whether the object is in a directory, or is the root of a grant.
    pub fn is_linked(&self, descriptor: &Descriptor) -> bool {
        self.tree.node(descriptor.node).parent != Parent::None
    }
}
