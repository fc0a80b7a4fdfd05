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
        Ok(ScratchId(self.create_file()?.0))
    }

    fn read(&mut self, file: ScratchId, offset: u64, buffer: &mut [u8]) -> Result<(), ScratchError> {
        match Scratch::read(self, FileId(file.0), offset, buffer) {
            Ok(count) if count == buffer.len() => Ok(()),
            Ok(_) => Err(ScratchError::Failed),
            Err(error) => Err(error.into()),
        }
    }

    fn write(&mut self, file: ScratchId, offset: u64, data: &[u8]) -> Result<(), ScratchError> {
        Ok(Scratch::write(self, FileId(file.0), offset, data)?)
    }

    fn set_len(&mut self, file: ScratchId, len: u64) -> Result<(), ScratchError> {
        Ok(Scratch::set_len(self, FileId(file.0), len)?)
    }

    fn remove(&mut self, file: ScratchId) -> Result<(), ScratchError> {
        Ok(Scratch::remove(self, FileId(file.0))?)
    }
}

/// What bounds the task's own use is the guest's to handle. A store that fails, a full disk among it, is the host's.
impl From<VaultError> for ScratchError {
    fn from(error: VaultError) -> Self {
        match error {
            VaultError::Quota { .. } | VaultError::TooManyFiles | VaultError::FileTooLong => Self::NoSpace,
            _ => Self::Failed,
        }
    }
}
