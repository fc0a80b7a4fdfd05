//! Sealing by the chunk, in any order and from several threads, with each chunk number handed out once.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::keys::{Salt, TAG_LEN, TaskSecret};
use crate::object::ObjectContext;
use crate::object::cipher::ChunkCipher;
use crate::object::error::SealError;
use crate::object::header::HEADER_LEN;
use crate::object::layout::{ChunkSize, Layout};

/// Seals the chunks of one object whose plaintext length is known.
///
/// A chunk number sealed twice with different bytes would betray both, so the numbers come only from
/// [`ObjectSealer::claim`], each once, as ranges that sealing consumes.
#[derive(Debug)]
pub struct ObjectSealer {
    cipher: ChunkCipher,
    layout: Layout,
    next: AtomicU64,
}

impl ObjectSealer {
    /// A sealer for `plain_len` bytes under the keys that `secret`, `context` and the fresh `salt` derive.
    ///
    /// # Errors
    /// [`SealError::NameTooLong`], [`SealError::TooLong`].
    pub fn new(
        secret: &TaskSecret,
        context: &ObjectContext<'_>,
        salt: Salt,
        chunk_size: ChunkSize,
        plain_len: u64,
    ) -> Result<Self, SealError> {
        let layout = Layout::for_plain(chunk_size, plain_len).ok_or(SealError::TooLong)?;
        Ok(Self {
            cipher: ChunkCipher::for_sealing(secret, context, salt, chunk_size)?,
            layout,
            next: AtomicU64::new(0),
        })
    }

    /// The object's first bytes.
    pub fn header(&self) -> &[u8; HEADER_LEN] {
        self.cipher.header()
    }

    /// The object's lengths and offsets.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Hands out the next chunks, up to as many as are worked on together; `None` when all were handed out. Ranges come
    /// in order and cover the object without gap.
    pub fn claim(&self) -> Option<ChunkRange<'_>> {
        let most = self.layout.chunk_size().per_group() as u64;
        let first = self.next.fetch_add(most, Ordering::Relaxed);
        let count = self.layout.chunks().checked_sub(first)?.min(most);
        (count > 0).then_some(ChunkRange { sealer: self, first, count })
    }
}

/// Some consecutive chunks that nobody else will seal.
#[derive(Debug)]
pub struct ChunkRange<'a> {
    sealer: &'a ObjectSealer,
    first: u64,
    count: u64,
}

impl ChunkRange<'_> {
    /// Where the range begins in the plaintext.
    pub fn plain_offset(&self) -> u64 {
        self.sealer.layout.plain_offset(self.first)
    }

    /// Plaintext bytes of the range.
    pub fn plain_len(&self) -> usize {
        self.sealer.layout.range_plain_len(self.first, self.count)
    }

    /// Where the range begins in the object.
    pub fn sealed_offset(&self) -> u64 {
        self.sealer.layout.sealed_offset(self.first)
    }

    /// Bytes of the range in the object.
    pub fn sealed_len(&self) -> usize {
        self.plain_len() + self.count as usize * TAG_LEN
    }

    /// Which group of the object this is, from 0.
    pub(crate) fn turn(&self) -> u64 {
        self.first / self.sealer.layout.chunk_size().per_group() as u64
    }

    /// Seals `plain` into `sealed`. Panics when the lengths are not those of the range.
    pub fn seal_to(self, plain: &[u8], sealed: &mut [u8]) {
        assert_eq!(plain.len(), self.plain_len(), "plaintext of the range");
        assert_eq!(sealed.len(), self.sealed_len(), "room for the range");
        let size = self.sealer.layout.chunk_size();
        let mut plain = plain.chunks(size.bytes());
        let slots = sealed.chunks_mut(size.sealed_bytes());
        for (index, slot) in (self.first..).zip(slots) {
            let position = self.sealer.layout.position(index);
            // An empty object has one slot and no plaintext chunk.
            let plain = plain.next().unwrap_or_default();
            self.sealer.cipher.seal_to(index, position, plain, slot);
        }
    }

    /// Seals in place. `slots` is laid out as the sealed range: the plaintext of each chunk with room for its tag
    /// behind it. Panics when its length is not [`ChunkRange::sealed_len`].
    pub fn seal_in_place(self, slots: &mut [u8]) {
        assert_eq!(slots.len(), self.sealed_len(), "room for the range");
        let size = self.sealer.layout.chunk_size();
        for (index, slot) in (self.first..).zip(slots.chunks_mut(size.sealed_bytes())) {
            let position = self.sealer.layout.position(index);
            self.sealer.cipher.seal_in_place(index, position, slot);
        }
    }
}
