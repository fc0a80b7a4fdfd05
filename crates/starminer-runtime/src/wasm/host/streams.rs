//! Files as `wasi:io` streams. A stream has a descriptor of its own, so it outlives the one it came from.

use bytes::Bytes;
use wasmtime_wasi_io::poll::Pollable;
use wasmtime_wasi_io::streams::{InputStream, OutputStream, StreamError, StreamResult};

use super::MAX_TRANSFER_BYTES;
use super::filesystem::{OpenObject, error_code};

/// Reads a file from an offset on.
pub(super) struct FileInput {
    pub(super) file: OpenObject,
    pub(super) offset: u64,
}

#[async_trait::async_trait]
impl Pollable for FileInput {
    async fn ready(&mut self) {}
}

impl InputStream for FileInput {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        if size == 0 {
            return Ok(Bytes::new());
        }
        let bytes = self.file.read(self.offset, size).map_err(stream_error)?;
        if bytes.is_empty() {
            return Err(StreamError::Closed);
        }
        self.offset += bytes.len() as u64;
        Ok(bytes.into())
    }

    /// Skipping moves the offset; nothing has to be decrypted for it.
    fn skip(&mut self, count: usize) -> StreamResult<usize> {
        let left = self.file.size_bytes().saturating_sub(self.offset);
        if left == 0 && count > 0 {
            return Err(StreamError::Closed);
        }
        let step = left.min(count as u64);
        self.offset += step;
        Ok(step as usize)
    }
}

/// Where the next write of a stream goes.
pub(super) enum WritePosition {
    At(u64),
    End,
}

/// Writes a file, from an offset on or always at its end.
pub(super) struct FileOutput {
    pub(super) file: OpenObject,
    pub(super) position: WritePosition,
}

#[async_trait::async_trait]
impl Pollable for FileOutput {
    async fn ready(&mut self) {}
}

impl OutputStream for FileOutput {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        match &mut self.position {
            WritePosition::At(offset) => {
                self.file.write(*offset, &bytes).map_err(stream_error)?;
                *offset += bytes.len() as u64;
            }
            WritePosition::End => self.file.append(&bytes).map_err(stream_error)?,
        }
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(()) // a write is in the file when it returns
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(MAX_TRANSFER_BYTES)
    }
}

/// The guest gets what is its own to handle; `filesystem-error-code` tells it the code. The rest ends the run.
fn stream_error(error: super::filesystem::HostFsError) -> StreamError {
    match error.0 {
        Ok(error) => match error_code(error) {
            Ok(code) => StreamError::LastOperationFailed(wasmtime::Error::new(code)),
            Err(fault) => StreamError::Trap(fault.into()),
        },
        Err(trap) => StreamError::Trap(trap),
    }
}
