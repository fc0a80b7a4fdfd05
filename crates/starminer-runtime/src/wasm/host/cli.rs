//! `wasi:cli`: arguments, environment, exit, standard streams. There is never a terminal and never any standard input.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use wasmtime::Result;
use wasmtime::component::Resource;
use wasmtime_wasi_io::poll::Pollable;
use wasmtime_wasi_io::streams::{
    DynInputStream, DynOutputStream, InputStream, OutputStream, StreamError, StreamResult,
};
use zeroize::Zeroizing;

use super::bindings::wasi::cli::{
    environment, exit, stderr, stdin, stdout, terminal_input, terminal_output, terminal_stderr, terminal_stdin,
    terminal_stdout,
};
use super::{MAX_TRANSFER_BYTES, Shared, TaskState};

/// The guest ended itself.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the guest exited with code {0}")]
pub(crate) struct ExitRequested(pub(crate) u8);

impl environment::Host for TaskState {
    fn get_environment(&mut self) -> Result<Vec<(String, String)>> {
        Ok(self.environment.clone())
    }

    fn get_arguments(&mut self) -> Result<Vec<String>> {
        Ok(self.arguments.clone())
    }

    fn initial_cwd(&mut self) -> Result<Option<String>> {
        Ok(None)
    }
}

impl exit::Host for TaskState {
    fn exit(&mut self, status: std::result::Result<(), ()>) -> Result<()> {
        Err(ExitRequested(if status.is_ok() { 0 } else { 1 }).into())
    }

    fn exit_with_code(&mut self, status_code: u8) -> Result<()> {
        Err(ExitRequested(status_code).into())
    }
}

impl stdin::Host for TaskState {
    fn get_stdin(&mut self) -> Result<Resource<DynInputStream>> {
        Ok(self.table.push(Box::new(NoInput) as DynInputStream)?)
    }
}

impl stdout::Host for TaskState {
    fn get_stdout(&mut self) -> Result<Resource<DynOutputStream>> {
        let stream = CaptureStream { capture: self.stdout.clone(), shared: self.shared.clone() };
        Ok(self.table.push(Box::new(stream) as DynOutputStream)?)
    }
}

impl stderr::Host for TaskState {
    fn get_stderr(&mut self) -> Result<Resource<DynOutputStream>> {
        let stream = CaptureStream { capture: self.stderr.clone(), shared: self.shared.clone() };
        Ok(self.table.push(Box::new(stream) as DynOutputStream)?)
    }
}

/// A terminal, of which there is none: guests get the type, and never a value of it.
#[derive(Debug)]
pub enum Terminal {}

impl terminal_input::Host for TaskState {}
impl terminal_input::HostTerminalInput for TaskState {
    fn drop(&mut self, terminal: Resource<Terminal>) -> Result<()> {
        self.table.delete(terminal).map(|_| ()).map_err(Into::into)
    }
}
impl terminal_output::Host for TaskState {}
impl terminal_output::HostTerminalOutput for TaskState {
    fn drop(&mut self, terminal: Resource<Terminal>) -> Result<()> {
        self.table.delete(terminal).map(|_| ()).map_err(Into::into)
    }
}
impl terminal_stdin::Host for TaskState {
    fn get_terminal_stdin(&mut self) -> Result<Option<Resource<Terminal>>> {
        Ok(None)
    }
}
impl terminal_stdout::Host for TaskState {
    fn get_terminal_stdout(&mut self) -> Result<Option<Resource<Terminal>>> {
        Ok(None)
    }
}
impl terminal_stderr::Host for TaskState {
    fn get_terminal_stderr(&mut self) -> Result<Option<Resource<Terminal>>> {
        Ok(None)
    }
}

/// Standard input: at its end from the start.
struct NoInput;

#[async_trait::async_trait]
impl Pollable for NoInput {
    async fn ready(&mut self) {}
}

impl InputStream for NoInput {
    fn read(&mut self, _size: usize) -> StreamResult<Bytes> {
        Err(StreamError::Closed)
    }
}

/// Standard output or error, kept up to a bound. What is beyond it is counted and dropped: a chatty program is not a
/// failed one.
#[derive(Clone)]
pub(crate) struct Capture(Arc<Mutex<Captured>>);

struct Captured {
    bytes: Zeroizing<Vec<u8>>,
    limit: usize,
    dropped_bytes: u64,
}

impl Capture {
    pub(crate) fn new(limit: usize) -> Self {
        Capture(Arc::new(Mutex::new(Captured { bytes: Zeroizing::new(Vec::new()), limit, dropped_bytes: 0 })))
    }

    fn append(&self, data: &[u8]) {
        let mut captured = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = captured.limit - captured.bytes.len();
        let (kept, dropped) = data.split_at(room.min(data.len()));
        captured.bytes.extend_from_slice(kept);
        captured.dropped_bytes += dropped.len() as u64;
    }

    /// What was kept, and how many bytes were not.
    pub(crate) fn take(&self) -> (Zeroizing<Vec<u8>>, u64) {
        let mut captured = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (std::mem::take(&mut captured.bytes), captured.dropped_bytes)
    }
}

struct CaptureStream {
    capture: Capture,
    shared: Shared,
}

#[async_trait::async_trait]
impl Pollable for CaptureStream {
    async fn ready(&mut self) {}
}

impl OutputStream for CaptureStream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.shared.pace(bytes.len()).map_err(|stop| StreamError::Trap(stop.into()))?;
        self.capture.append(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(MAX_TRANSFER_BYTES)
    }
}
