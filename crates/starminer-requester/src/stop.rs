//! Stopping in the middle of a long file.

use std::io::{self, Read};

use crate::requester::StopAsked;

/// A reader that fails once its owner has been asked to stop: what reads it does so a chunk at a time, and ends there.
pub(crate) struct Stoppable<'a, R> {
    inner: R,
    asked: &'a StopAsked,
}

impl<'a, R> Stoppable<'a, R> {
    pub(crate) fn new(inner: R, asked: &'a StopAsked) -> Self {
        Self { inner, asked }
    }
}

impl<R: Read> Read for Stoppable<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // Not of the kind `Interrupted`, which is tried again.
        if (self.asked)() { Err(io::Error::other("asked to stop")) } else { self.inner.read(buffer) }
    }
}
