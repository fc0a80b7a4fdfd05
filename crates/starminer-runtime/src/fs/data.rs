//! Contents: reading, writing and resizing of open files.

use super::tree::{Kind, NodeId};
use super::{Descriptor, FsError, MAX_FILE_BYTES, Store, TaskFs};

impl TaskFs {
    /// Reads from `offset` into `buffer`: as many bytes as there are, 0 at and beyond the end.
    pub fn read(&mut self, file: &Descriptor, offset: u64, buffer: &mut [u8]) -> Result<usize, FsError> {
        if !self.tree.is_directory(file.node) && !file.read {
            return Err(FsError::BadDescriptor);
        }
        self.read_node(file.node, offset, buffer)
    }

    pub(super) fn read_node(&mut self, node: NodeId, offset: u64, buffer: &mut [u8]) -> Result<usize, FsError> {
        let within = |len: u64| len.saturating_sub(offset).min(buffer.len() as u64) as usize;
        match self.tree.node(node).kind {
            Kind::Directory { .. } => Err(FsError::IsDirectory),
            Kind::Input { index, len } => {
                let wanted = within(len);
                if wanted > 0 {
                    self.inputs[index].read_at(offset, &mut buffer[..wanted])?;
                }
                Ok(wanted)
            }
            Kind::Scratch { store, file, len } => {
                let wanted = within(len);
                if wanted > 0 {
                    self.store(store)?.0.read(file, offset, &mut buffer[..wanted])?;
                }
                Ok(wanted)
            }
        }
    }

    /// Writes all of `data` at `offset`, or nothing. A gap that arises reads as zeros.
    pub fn write(&mut self, file: &Descriptor, offset: u64, data: &[u8]) -> Result<(), FsError> {
        let (store, id, len) = self.writable(file)?;
        if data.is_empty() {
            return Ok(());
        }
        let end = offset.checked_add(data.len() as u64).ok_or(FsError::FileTooLarge)?;
        let new_len = end.max(len);
        self.check_growth(store, len, new_len)?;
        self.store(store)?.0.write(id, offset, data)?;
        self.note_len(file.node, store, len, new_len)
    }

    /// Writes all of `data` at the end of the file, or nothing.
    pub fn append(&mut self, file: &Descriptor, data: &[u8]) -> Result<(), FsError> {
        let (_, _, len) = self.writable(file)?;
        self.write(file, len, data)
    }

    /// Cuts the file to `len` bytes, or grows it with zeros.
    pub fn set_len(&mut self, file: &Descriptor, len: u64) -> Result<(), FsError> {
        self.writable(file)?;
        self.resize(file.node, len)
    }

    pub(super) fn resize(&mut self, node: NodeId, new_len: u64) -> Result<(), FsError> {
        let Kind::Scratch { store, file, len } = self.tree.node(node).kind else {
            return Err(FsError::ReadOnly);
        };
        if new_len == len {
            return Ok(());
        }
        self.check_growth(store, len, new_len)?;
        self.store(store)?.0.set_len(file, new_len)?;
        self.note_len(node, store, len, new_len)
    }

    fn writable(&self, file: &Descriptor) -> Result<(Store, super::ScratchId, u64), FsError> {
        match self.tree.node(file.node).kind {
            Kind::Directory { .. } => Err(FsError::IsDirectory),
            _ if !file.write => Err(FsError::BadDescriptor),
            Kind::Input { .. } => Err(FsError::ReadOnly),
            Kind::Scratch { store, file, len } => Ok((store, file, len)),
        }
    }

    fn check_growth(&mut self, store: Store, len: u64, new_len: u64) -> Result<(), FsError> {
        if new_len > MAX_FILE_BYTES {
            return Err(FsError::FileTooLarge);
        }
        let grows = new_len.saturating_sub(len);
        let (_, room) = self.store(store)?;
        if grows > room.quota_bytes.saturating_sub(room.used_bytes) {
            return Err(FsError::NoSpace);
        }
        Ok(())
    }

    fn note_len(&mut self, node: NodeId, store: Store, len: u64, new_len: u64) -> Result<(), FsError> {
        let (_, room) = self.store(store)?;
        room.used_bytes = room.used_bytes - len + new_len;
        if let Kind::Scratch { len, .. } = &mut self.tree.node_mut(node).kind {
            *len = new_len;
        }
        Ok(())
    }
}
