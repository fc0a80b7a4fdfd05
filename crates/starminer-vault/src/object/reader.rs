//! Random access to an object: each chunk is proven authentic before a byte of it is given out.

use std::sync::{Mutex, PoisonError};

use zeroize::Zeroizing;

use crate::at::ReadAt;
use crate::keys::TaskSecret;
use crate::object::ObjectContext;
use crate::object::cipher::ChunkCipher;
use crate::object::error::OpenError;
use crate::object::header::{HEADER_LEN, Header};
use crate::object::layout::Layout;

/// Decrypted chunks that a reader keeps unless told otherwise.
pub const CACHE_CHUNKS_DEFAULT: usize = 4;

/// An open object. Reads from several threads are served one at a time.
#[derive(Debug)]
pub struct ObjectReader<R> {
    cipher: ChunkCipher,
    layout: Layout,
    sealed: R,
    cache: Mutex<Cache>,
}

impl<R: ReadAt> ObjectReader<R> {
    /// Opens the object that is the first `sealed_len` bytes of `sealed`.
    ///
    /// Before it returns, the header's commitment has proven the key and the last chunk the length: an object that was
    /// cut or extended is known at once. The chunks between are proven when they are read.
    ///
    /// # Errors
    /// Every refusal of [`OpenError`] but [`OpenError::Chunk`], and [`OpenError::Source`].
    pub fn open(
        secret: &TaskSecret,
        context: &ObjectContext<'_>,
        sealed: R,
        sealed_len: u64,
    ) -> Result<Self, OpenError> {
        let (cipher, layout) = open_header(secret, context, &sealed, sealed_len)?;
        let reader = Self { cipher, layout, sealed, cache: Mutex::new(Cache::new(CACHE_CHUNKS_DEFAULT)) };
        reader.read_chunk(&mut reader.lock(), layout.chunks() - 1, |_| ())?;
        Ok(reader)
    }

    /// The same reader with room for `chunks` decrypted chunks (at least one).
    #[must_use]
    pub fn with_cache_chunks(self, chunks: usize) -> Self {
        Self { cache: Mutex::new(Cache::new(chunks)), ..self }
    }

    /// Length of the plaintext in bytes.
    pub fn len(&self) -> u64 {
        self.layout.plain_len()
    }

    /// Whether there is no plaintext.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads plaintext from `offset` on until `buf` is full or the object ends; returns how much it was, 0 at or past
    /// the end.
    ///
    /// # Errors [`OpenError::Chunk`] or [`OpenError::End`] when a chunk that is needed is not authentic (no byte of
    /// it is then in `buf`), [`OpenError::Source`] when it cannot be read.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize, OpenError> {
        let available = self.len().saturating_sub(offset);
        let wanted = usize::try_from(available).map_or(buf.len(), |rest| rest.min(buf.len()));
        let mut cache = self.lock();
        let mut filled = 0;
        while filled < wanted {
            let position = offset + filled as u64;
            let index = position >> self.layout.chunk_size().log2();
            let start = (position - self.layout.plain_offset(index)) as usize;
            let rest = &mut buf[filled..wanted];
            let chunk_len = self.layout.chunk_plain_len(index);
            filled += if start == 0 && rest.len() >= chunk_len && !cache.holds(index) {
                // A whole chunk goes straight to the caller: a long sequential read neither copies nor flushes the
                // cache.
                self.open_chunk(&mut cache.sealed, index, &mut rest[..chunk_len])?;
                chunk_len
            } else {
                let n = rest.len().min(chunk_len - start);
                self.read_chunk(&mut cache, index, |plain| {
                    rest[..n].copy_from_slice(&plain[start..start + n]);
                })?;
                n
            };
        }
        Ok(wanted)
    }

    /// Shows chunk `index` to `see`, from the cache or through it.
    fn read_chunk(&self, cache: &mut Cache, index: u64, see: impl FnOnce(&[u8])) -> Result<(), OpenError> {
        cache.clock += 1;
        let now = cache.clock;
        if let Some(frame) = cache.frames.iter_mut().find(|f| f.index == Some(index)) {
            frame.used = now;
            see(&frame.plain);
            return Ok(());
        }
        let mut frame = cache.vacate(self.layout.chunk_plain_len(0));
        frame.plain.resize(self.layout.chunk_plain_len(index), 0);
        // On failure the frame, wiped, is dropped.
        self.open_chunk(&mut cache.sealed, index, &mut frame.plain)?;
        frame.index = Some(index);
        frame.used = now;
        see(&frame.plain);
        cache.frames.push(frame);
        Ok(())
    }

    /// Opens chunk `index` into `plain`, which has its length; on failure `plain` is wiped.
    fn open_chunk(&self, buffer: &mut Vec<u8>, index: u64, plain: &mut [u8]) -> Result<(), OpenError> {
        let offset = self.layout.sealed_offset(index);
        let len = plain.len() + crate::keys::TAG_LEN;
        let position = self.layout.position(index);
        if let Some(slot) = self.sealed.borrow_at(offset, len) {
            return self.cipher.open_to(index, position, slot, plain);
        }
        buffer.resize(len, 0);
        let got = self.sealed.read_full_at(buffer, offset).map_err(OpenError::Source)?;
        if got < len {
            return Err(OpenError::End);
        }
        self.cipher.open_to(index, position, buffer, plain)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Cache> {
        // A panic inside leaves no half-made frame behind: a frame is in the cache only once it is complete.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads and proves the header of an object that is `sealed_len` long.
pub(crate) fn open_header(
    secret: &TaskSecret,
    context: &ObjectContext<'_>,
    sealed: &impl ReadAt,
    sealed_len: u64,
) -> Result<(ChunkCipher, Layout), OpenError> {
    let mut bytes = [0; HEADER_LEN];
    let within = usize::try_from(sealed_len).map_or(HEADER_LEN, |len| len.min(HEADER_LEN));
    let got = sealed.read_full_at(&mut bytes[..within], 0).map_err(OpenError::Source)?;
    let header = Header::parse(&bytes[..got])?;
    let cipher = ChunkCipher::for_opening(secret, context, &header)?;
    let layout = Layout::for_sealed(header.chunk_size, sealed_len).ok_or(OpenError::Length)?;
    Ok((cipher, layout))
}

/// The most recently used chunks, owned by the reader's lock.
struct Cache {
    frames: Vec<Frame>,
    most: usize,
    clock: u64,
    /// Where sealed chunks are read to. Holds no plaintext.
    sealed: Vec<u8>,
}

struct Frame {
    index: Option<u64>,
    used: u64,
    /// Wiped when dropped. A frame that is taken for another chunk is overwritten, and its unused tail with it.
    plain: Zeroizing<Vec<u8>>,
}

impl Cache {
    fn new(chunks: usize) -> Self {
        Self { frames: Vec::new(), most: chunks.max(1), clock: 0, sealed: Vec::new() }
    }

    fn holds(&self, index: u64) -> bool {
        self.frames.iter().any(|frame| frame.index == Some(index))
    }

    /// A frame to fill: a new one, or the least recently used one taken out of the cache.
    fn vacate(&mut self, chunk_len_max: usize) -> Frame {
        if self.frames.len() < self.most {
            return Frame::new(chunk_len_max);
        }
        let oldest = self.frames.iter().enumerate().min_by_key(|(_, frame)| frame.used).map(|(at, _)| at);
        oldest.map_or_else(|| Frame::new(chunk_len_max), |at| self.frames.swap_remove(at))
    }
}

impl Frame {
    /// With room for the longest chunk from the start: a buffer that grew would leave plaintext where it lay before.
    fn new(chunk_len_max: usize) -> Self {
        Self { index: None, used: 0, plain: Zeroizing::new(Vec::with_capacity(chunk_len_max)) }
    }
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cache({} of {} chunks)", self.frames.len(), self.most)
    }
}
