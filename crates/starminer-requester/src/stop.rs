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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn who_is_asked_reads_no_further() {
        let answers = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&answers);
        let asked: StopAsked = Arc::new(move || counted.fetch_add(1, Ordering::Relaxed) == 3);
        let mut read = Vec::new();
        // Without end, if nobody asked.
        let error = Stoppable::new(io::repeat(7), &asked).read_to_end(&mut read).unwrap_err();
        assert_eq!((error.kind(), answers.load(Ordering::Relaxed)), (io::ErrorKind::Other, 4));
        assert!(!read.is_empty());
    }
}
