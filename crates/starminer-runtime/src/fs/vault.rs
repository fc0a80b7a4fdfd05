//! The vault's objects and scratch as the file system's stores.

use starminer_vault::scratch::{FileId, Scratch, ScratchError as VaultError};
use starminer_vault::{ObjectReader, PageStore, ReadAt};

use super::{InputError, InputFile, ScratchError, ScratchFiles, ScratchId};

impl<R: ReadAt + Send> InputFile for ObjectReader<R> {
    fn len(&self) -> u64 {
        ObjectReader::len(self)
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), InputError> {
        match ObjectReader::read_at(self, offset, buffer) {
            Ok(count) if count == buffer.len() => Ok(()),
            Ok(_) | Err(_) => Err(InputError),
        }
    }
}

impl<S: PageStore + Send> ScratchFiles for Scratch<S> {
    fn create(&mut self) -> Result<ScratchId, ScratchError> {
        Ok(ScratchId(self.create_file().map_err(scratch_error)?.0))
    }

    fn read(&mut self, file: ScratchId, offset: u64, buffer: &mut [u8]) -> Result<(), ScratchError> {
        match Scratch::read(self, FileId(file.0), offset, buffer) {
            Ok(count) if count == buffer.len() => Ok(()),
            Ok(_) => Err(ScratchError::Failed),
            Err(error) => Err(scratch_error(error)),
        }
    }

    fn write(&mut self, file: ScratchId, offset: u64, data: &[u8]) -> Result<(), ScratchError> {
        Scratch::write(self, FileId(file.0), offset, data).map_err(scratch_error)
    }

    fn set_len(&mut self, file: ScratchId, len: u64) -> Result<(), ScratchError> {
        Scratch::set_len(self, FileId(file.0), len).map_err(scratch_error)
    }

    fn remove(&mut self, file: ScratchId) -> Result<(), ScratchError> {
        Scratch::remove(self, FileId(file.0)).map_err(scratch_error)
    }
}

/// What bounds the task's own use is the guest's to handle. A store that fails, a full disk among it, is the host's.
fn scratch_error(error: VaultError) -> ScratchError {
    match error {
        VaultError::Quota { .. } | VaultError::TooManyFiles => ScratchError::NoSpace,
        _ => ScratchError::Failed,
    }
}
