//! A file system written the plain way: a map from whole paths, nothing shared with the real one but the error type.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::fs::{FsError, OpenHow};

pub(super) type Contents = Rc<RefCell<Vec<u8>>>;

#[derive(Clone)]
pub(super) enum ModelNode {
    Directory,
    File(Contents),
}

/// Absolute paths, as lists of names below one root.
#[derive(Default)]
pub(super) struct Model {
    pub(super) nodes: BTreeMap<Vec<String>, ModelNode>,
}

pub(super) struct Resolved {
    pub(super) path: Vec<String>,
    /// The last step was a name, and a `/` followed it.
    slash: bool,
    /// The last step was `.` or `..`.
    dotted: bool,
}

impl Model {
    fn kind(&self, path: &[String]) -> Option<ModelNode> {
        if path.is_empty() { Some(ModelNode::Directory) } else { self.nodes.get(path).cloned() }
    }

    fn is_directory(&self, path: &[String]) -> bool {
        matches!(self.kind(path), Some(ModelNode::Directory))
    }

    pub(super) fn children(&self, path: &[String]) -> Vec<String> {
        let below = self.nodes.keys().filter(|key| key.len() == path.len() + 1 && key.starts_with(path));
        below.map(|key| key[path.len()].clone()).collect()
    }

    pub(super) fn resolve(&self, text: &str) -> Result<Resolved, FsError> {
        if text.is_empty() {
            return Err(FsError::NoEntry);
        }
        let names: Vec<&str> = text.split('/').filter(|name| !name.is_empty()).collect();
        let mut path: Vec<String> = Vec::new();
        let mut dotted = false;
        for (at, name) in names.iter().enumerate() {
            dotted = true;
            match *name {
                "." => {}
                ".." => {
                    path.pop().ok_or(FsError::NotPermitted)?;
                }
                name => {
                    dotted = false;
                    path.push(name.to_owned());
                    if at + 1 < names.len() {
                        match self.kind(&path) {
                            None => return Err(FsError::NoEntry),
                            Some(ModelNode::File(_)) => return Err(FsError::NotDirectory),
                            Some(ModelNode::Directory) => {}
                        }
                    }
                }
            }
        }
        Ok(Resolved { path, slash: text.ends_with('/') && !dotted, dotted })
    }

    /// The file opened, or `None` for a directory.
    pub(super) fn open(&mut self, text: &str, how: OpenHow) -> Result<Option<Contents>, FsError> {
        if how.create && how.directory {
            return Err(FsError::Invalid);
        }
        let at = self.resolve(text)?;
        match self.kind(&at.path) {
            Some(ModelNode::Directory) if how.create && how.exclusive => Err(FsError::Exists),
            Some(ModelNode::Directory) if how.create || how.write || how.truncate => Err(FsError::IsDirectory),
            Some(ModelNode::Directory) => Ok(None),
            Some(ModelNode::File(_)) if how.create && how.exclusive => Err(FsError::Exists),
            Some(ModelNode::File(_)) if how.directory || at.slash => Err(FsError::NotDirectory),
            Some(ModelNode::File(contents)) => {
                if how.truncate {
                    contents.borrow_mut().clear();
                }
                Ok(Some(contents))
            }
            None if !how.create => Err(FsError::NoEntry),
            None if at.slash => Err(FsError::IsDirectory),
            None => {
                let contents = Contents::default();
                self.nodes.insert(at.path, ModelNode::File(contents.clone()));
                Ok(Some(contents))
            }
        }
    }

    pub(super) fn mkdir(&mut self, text: &str) -> Result<(), FsError> {
        let at = self.resolve(text)?;
        if self.kind(&at.path).is_some() {
            return Err(FsError::Exists);
        }
        self.nodes.insert(at.path, ModelNode::Directory);
        Ok(())
    }

    pub(super) fn rmdir(&mut self, text: &str) -> Result<(), FsError> {
        let at = self.resolve(text)?;
        if at.dotted {
            return Err(FsError::Invalid);
        }
        match self.kind(&at.path) {
            None => Err(FsError::NoEntry),
            Some(ModelNode::File(_)) => Err(FsError::NotDirectory),
            Some(ModelNode::Directory) if !self.children(&at.path).is_empty() => Err(FsError::NotEmpty),
            Some(ModelNode::Directory) => {
                self.nodes.remove(&at.path);
                Ok(())
            }
        }
    }

    pub(super) fn unlink(&mut self, text: &str) -> Result<(), FsError> {
        let at = self.resolve(text)?;
        match self.kind(&at.path) {
            None => Err(FsError::NoEntry),
            Some(ModelNode::Directory) => Err(FsError::IsDirectory),
            Some(ModelNode::File(_)) if at.slash => Err(FsError::NotDirectory),
            Some(ModelNode::File(_)) => {
                self.nodes.remove(&at.path);
                Ok(())
            }
        }
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) -> Result<(), FsError> {
        let (from, to) = (self.resolve(from)?, self.resolve(to)?);
        if from.dotted || to.dotted {
            return Err(FsError::Invalid);
        }
        let source = self.kind(&from.path).ok_or(FsError::NoEntry)?;
        let directory = matches!(source, ModelNode::Directory);
        if !directory && (from.slash || to.slash) {
            return Err(FsError::NotDirectory);
        }
        if from.path == to.path {
            return Ok(());
        }
        if directory && to.path.starts_with(&from.path) {
            return Err(FsError::Invalid);
        }
        if let Some(target) = self.kind(&to.path) {
            match (directory, matches!(target, ModelNode::Directory)) {
                (true, false) => return Err(FsError::NotDirectory),
                (false, true) => return Err(FsError::IsDirectory),
                (true, true) if !self.children(&to.path).is_empty() => return Err(FsError::NotEmpty),
                _ => {}
            }
        }
        let moved: Vec<_> = self.nodes.keys().filter(|key| key.starts_with(&from.path)).cloned().collect();
        for key in moved {
            let node = self.nodes.remove(&key).unwrap();
            let mut new = to.path.clone();
            new.extend_from_slice(&key[from.path.len()..]);
            self.nodes.insert(new, node);
        }
        Ok(())
    }

    /// Size of the file, `None` for a directory.
    pub(super) fn stat(&self, text: &str) -> Result<Option<u64>, FsError> {
        let at = self.resolve(text)?;
        match self.kind(&at.path) {
            None => Err(FsError::NoEntry),
            Some(ModelNode::File(_)) if at.slash => Err(FsError::NotDirectory),
            Some(ModelNode::File(contents)) => Ok(Some(contents.borrow().len() as u64)),
            Some(ModelNode::Directory) => Ok(None),
        }
    }

    pub(super) fn list(&self, text: &str) -> Result<Vec<String>, FsError> {
        let at = self.resolve(text)?;
        if self.is_directory(&at.path) { Ok(self.children(&at.path)) } else { Err(FsError::NotDirectory) }
    }
}
