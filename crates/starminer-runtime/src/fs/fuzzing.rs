//! Stores for fuzz targets: of files with one byte each, and of none.

use super::{MAX_STATE_TREE_BYTES, ScratchError, ScratchFiles, ScratchId, StateFiles};

/// Has no files and makes none.
pub(crate) struct Nothing;

impl ScratchFiles for Nothing {
    fn create(&mut self) -> Result<ScratchId, ScratchError> {
        Err(ScratchError::NoSpace)
    }
    fn read(&mut self, _: ScratchId, _: u64, _: &mut [u8]) -> Result<(), ScratchError> {
        Err(ScratchError::Failed)
    }
    fn write(&mut self, _: ScratchId, _: u64, _: &[u8]) -> Result<(), ScratchError> {
        Err(ScratchError::Failed)
    }
    fn set_len(&mut self, _: ScratchId, _: u64) -> Result<(), ScratchError> {
        Err(ScratchError::Failed)
    }
    fn remove(&mut self, _: ScratchId) -> Result<(), ScratchError> {
        Ok(())
    }
}

/// Committed files 1, 2, 3, … of one byte each, with any tree over them.
pub(crate) struct AnyState {
    pub(crate) tree: Vec<u8>,
    pub(crate) files: u64,
}

impl ScratchFiles for AnyState {
    fn create(&mut self) -> Result<ScratchId, ScratchError> {
        Err(ScratchError::NoSpace)
    }
    fn read(&mut self, _: ScratchId, _: u64, buffer: &mut [u8]) -> Result<(), ScratchError> {
        buffer.fill(7);
        Ok(())
    }
    fn write(&mut self, _: ScratchId, _: u64, _: &[u8]) -> Result<(), ScratchError> {
        Err(ScratchError::NoSpace)
    }
    fn set_len(&mut self, _: ScratchId, _: u64) -> Result<(), ScratchError> {
        Err(ScratchError::NoSpace)
    }
    fn remove(&mut self, file: ScratchId) -> Result<(), ScratchError> {
        self.len(file).map(|_| ()).ok_or(ScratchError::Failed)
    }
}

impl StateFiles for AnyState {
    fn contents(&mut self) -> &mut dyn ScratchFiles {
        self
    }
    fn len(&self, file: ScratchId) -> Option<u64> {
        (1..=self.files).contains(&file.0).then_some(1)
    }
    fn files(&self) -> Vec<ScratchId> {
        (1..=self.files).map(ScratchId).collect()
    }
    fn tree(&mut self) -> Result<Option<Vec<u8>>, ScratchError> {
        Ok(Some(self.tree.clone()))
    }
    fn commit(&mut self, tree: &[u8]) -> Result<(), ScratchError> {
        assert!(tree.len() <= MAX_STATE_TREE_BYTES, "a tree that its reader would not take");
        Ok(())
    }
}
