//! Where the chunks of an object lie: arithmetic only (`specs/vault.md`, section 3.3).

use crate::keys::TAG_LEN;
use crate::object::GROUP_BYTES;
use crate::object::header::HEADER_LEN;

/// Most chunks an object may have. With chunks of 1 MiB one key then encrypts at most 2^48 AES blocks, which keeps
/// GCM's distinguishing advantage below 2^-32.
pub const MAX_CHUNKS: u64 = 1 << 32;

/// Plaintext bytes of a chunk: a power of two from 4 KiB to 1 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChunkSize(u8);

impl ChunkSize {
    /// 4 KiB.
    pub const MIN: ChunkSize = ChunkSize(12);
    /// 64 KiB, the default.
    pub const DEFAULT: ChunkSize = ChunkSize(16);
    /// 1 MiB.
    pub const MAX: ChunkSize = ChunkSize(20);

    /// The size of 2^`log2` bytes; `None` outside 12 to 20.
    pub fn from_log2(log2: u8) -> Option<ChunkSize> {
        (Self::MIN.0..=Self::MAX.0).contains(&log2).then_some(ChunkSize(log2))
    }

    /// Its binary logarithm, as the header has it.
    pub fn log2(self) -> u8 {
        self.0
    }

    /// Plaintext bytes of a full chunk.
    pub fn bytes(self) -> usize {
        1 << self.0
    }

    /// Bytes of a full chunk with its tag.
    pub fn sealed_bytes(self) -> usize {
        self.bytes() + TAG_LEN
    }

    /// Chunks that are worked on together.
    pub(crate) fn per_group(self) -> usize {
        (GROUP_BYTES / self.bytes()).max(1)
    }
}

impl Default for ChunkSize {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Length of an object that seals `plain_len` bytes; `None` when that takes more than [`MAX_CHUNKS`].
pub fn sealed_len(plain_len: u64, chunk_size: ChunkSize) -> Option<u64> {
    Layout::for_plain(chunk_size, plain_len).map(|layout| layout.sealed_len())
}

/// The lengths and offsets of one object. Plaintext and sealed length determine each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    chunk_size: ChunkSize,
    chunks: u64,
    plain_len: u64,
}

impl Layout {
    /// The layout for `plain_len` bytes; `None` when they take more than [`MAX_CHUNKS`].
    pub fn for_plain(chunk_size: ChunkSize, plain_len: u64) -> Option<Layout> {
        // An empty object still has one chunk, so that its end is authenticated like any other.
        let chunks = plain_len.div_ceil(chunk_size.bytes() as u64).max(1);
        (chunks <= MAX_CHUNKS).then_some(Layout { chunk_size, chunks, plain_len })
    }

    /// The layout of an object that is `sealed_len` bytes long; `None` when no object has that length.
    pub fn for_sealed(chunk_size: ChunkSize, sealed_len: u64) -> Option<Layout> {
        let body = sealed_len.checked_sub(HEADER_LEN as u64)?;
        let chunks = body.div_ceil(chunk_size.sealed_bytes() as u64);
        let plain_len = body.checked_sub(chunks.checked_mul(TAG_LEN as u64)?)?;
        // The round trip refuses what is only nearly a length: a last chunk that is empty or less than a tag.
        Self::for_plain(chunk_size, plain_len).filter(|layout| layout.chunks == chunks)
    }

    /// The size of its chunks.
    pub fn chunk_size(&self) -> ChunkSize {
        self.chunk_size
    }

    /// How many chunks it has, 1 or more.
    pub fn chunks(&self) -> u64 {
        self.chunks
    }

    /// Length of the plaintext in bytes.
    pub fn plain_len(&self) -> u64 {
        self.plain_len
    }

    /// Length of the object in bytes.
    pub fn sealed_len(&self) -> u64 {
        HEADER_LEN as u64 + self.plain_len + self.chunks * TAG_LEN as u64
    }

    /// Where chunk `index` begins in the plaintext.
    pub fn plain_offset(&self, index: u64) -> u64 {
        index * self.chunk_size.bytes() as u64
    }

    /// Where chunk `index` begins in the object.
    pub fn sealed_offset(&self, index: u64) -> u64 {
        HEADER_LEN as u64 + index * self.chunk_size.sealed_bytes() as u64
    }

    /// Plaintext bytes of chunk `index`, which must exist.
    pub fn chunk_plain_len(&self, index: u64) -> usize {
        let rest = self.plain_len - self.plain_offset(index);
        usize::try_from(rest).map_or(self.chunk_size.bytes(), |rest| rest.min(self.chunk_size.bytes()))
    }

    /// Whether chunk `index` is the last one.
    pub(crate) fn position(&self, index: u64) -> Position {
        if index + 1 == self.chunks { Position::Last } else { Position::Inner }
    }

    /// Plaintext bytes of `count` chunks from `first` on, all of which must exist.
    pub(crate) fn range_plain_len(&self, first: u64, count: u64) -> usize {
        let end = self.plain_offset(first + count).min(self.plain_len);
        usize::try_from(end - self.plain_offset(first)).expect("ranges are bounded by a group")
    }
}

/// Whether a chunk ends its object. Part of its nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Position {
    Inner,
    Last,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_determine_each_other() {
        for log2 in [12, 16, 20] {
            let size = ChunkSize::from_log2(log2).expect("in range");
            let c = size.bytes() as u64;
            for plain in [0, 1, 15, 16, 17, c - 1, c, c + 1, 2 * c, 3 * c + 5, MAX_CHUNKS * c] {
                let layout = Layout::for_plain(size, plain).expect("within bounds");
                assert_eq!(Layout::for_sealed(size, layout.sealed_len()), Some(layout));
                let last = layout.chunks() - 1;
                assert_eq!(layout.plain_offset(last) + layout.chunk_plain_len(last) as u64, plain);
            }
            assert_eq!(Layout::for_plain(size, MAX_CHUNKS * c + 1), None);
            assert_eq!(Layout::for_plain(size, u64::MAX), None);
            assert_eq!(Layout::for_sealed(size, u64::MAX), None);
        }
    }

    #[test]
    fn exactly_the_lengths_of_objects_are_lengths() {
        let size = ChunkSize::MIN;
        let mut plain = 0;
        for sealed in 0..3 * 4096 + 200 {
            match Layout::for_sealed(size, sealed) {
                Some(layout) => {
                    assert_eq!((layout.plain_len(), layout.sealed_len()), (plain, sealed));
                    plain += 1;
                }
                None => assert!(sealed < 96 || (sealed - 80) % 4112 <= 16, "{sealed} is the length of an object"),
            }
        }
    }

    #[test]
    fn chunk_sizes_are_bounded() {
        for log2 in 0..=u8::MAX {
            assert_eq!(ChunkSize::from_log2(log2).is_some(), (12..=20).contains(&log2));
        }
    }
}
