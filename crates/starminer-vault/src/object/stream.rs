//! Objects as streams whose length is known only at their end, one group of chunks in memory at a time.

use std::io::{self, Read, Write};

use zeroize::Zeroizing;

use crate::keys::{Salt, TAG_LEN, TaskSecret};
use crate::object::cipher::ChunkCipher;
use crate::object::digests::{ContentHasher, Digests, PlainHasher, SealedSummary};
use crate::object::error::{OpenError, SealError};
use crate::object::header::{HEADER_LEN, Header};
use crate::object::layout::{Layout, MAX_CHUNKS, Position};
use crate::object::{ObjectContext, SealOptions};

/// Seals everything `source` gives into an object on `sink`.
///
/// # Errors
/// [`SealError`]; what the sink then has is not an object.
pub fn seal_stream(
    secret: &TaskSecret,
    context: &ObjectContext<'_>,
    salt: Salt,
    options: SealOptions,
    mut source: impl Read,
    mut sink: impl Write,
) -> Result<SealedSummary, SealError> {
    let cipher = ChunkCipher::for_sealing(secret, context, salt, options.chunk_size)?;
    let size = options.chunk_size;
    let mut content = ContentHasher::new(options.digests.content_id);
    let mut plain_digest = PlainHasher::new(options.digests.plain_sha256);
    content.update(cipher.header());
    sink.write_all(cipher.header()).map_err(SealError::Sink)?;

    let mut group = Zeroizing::new(vec![0; size.per_group() * size.sealed_bytes()]);
    let mut probe = Probe::default();
    let mut index = 0_u64;
    let mut plain_len = 0_u64;
    loop {
        let filled = fill_slots(&mut source, &mut group, size.bytes(), &mut probe).map_err(SealError::Source)?;
        if index + filled.chunks as u64 > MAX_CHUNKS {
            return Err(SealError::TooLong);
        }
        let sealed = &mut group[..filled.sealed_len];
        let mut slots = sealed.chunks_mut(size.sealed_bytes()).peekable();
        while let Some(slot) = slots.next() {
            let plain = &slot[..slot.len() - TAG_LEN];
            plain_digest.update(plain);
            plain_len += plain.len() as u64;
            let position = if slots.peek().is_none() { filled.end } else { Position::Inner };
            cipher.seal_in_place(index, position, slot);
            index += 1;
        }
        content.update(sealed);
        sink.write_all(sealed).map_err(SealError::Sink)?;
        if filled.end == Position::Last {
            break;
        }
    }
    sink.flush().map_err(SealError::Sink)?;
    let layout = Layout::for_plain(size, plain_len).ok_or(SealError::TooLong)?;
    Ok(SealedSummary::new(&layout, content, plain_digest))
}

/// Opens the object that is all of `source`, giving `sink` each chunk once it is proven authentic.
///
/// A stream's end is known only when it comes, so that chunks before a bad one have been given out: a caller that must
/// not act on part of an object waits for `Ok`.
///
/// # Errors
/// [`OpenError`]. An object with something behind its end is refused as [`OpenError::Chunk`] or [`OpenError::Length`].
pub fn open_stream(
    secret: &TaskSecret,
    context: &ObjectContext<'_>,
    digests: Digests,
    mut source: impl Read,
    mut sink: impl Write,
) -> Result<SealedSummary, OpenError> {
    let mut header = [0; HEADER_LEN];
    let got = read_full(&mut source, &mut header).map_err(OpenError::Source)?;
    let cipher = ChunkCipher::for_opening(secret, context, &Header::parse(&header[..got])?)?;
    let size = cipher.chunk_size();
    let mut content = ContentHasher::new(digests.content_id);
    let mut plain_digest = PlainHasher::new(digests.plain_sha256);
    content.update(&header);

    let mut group = Zeroizing::new(vec![0; size.per_group() * size.sealed_bytes()]);
    let mut probe = Probe::default();
    let mut index = 0_u64;
    let mut body_len = 0_u64;
    loop {
        let got = probe.fill(&mut source, &mut group).map_err(OpenError::Source)?;
        body_len += got as u64;
        let end = probe.end(&mut source, got < group.len()).map_err(OpenError::Source)?;
        let sealed = &mut group[..got];
        content.update(sealed);
        if sealed.is_empty() {
            return Err(OpenError::Length);
        }
        let mut slots = sealed.chunks_mut(size.sealed_bytes()).peekable();
        while let Some(slot) = slots.next() {
            let position = if slots.peek().is_none() { end } else { Position::Inner };
            // Only the last chunk can be short. Empty it may be only when it is the only one.
            let shortest = if index == 0 { TAG_LEN } else { TAG_LEN + 1 };
            if slot.len() < shortest {
                return Err(OpenError::Length);
            }
            if index == MAX_CHUNKS {
                return Err(OpenError::TooLong);
            }
            cipher.open_in_place(index, position, slot)?;
            let plain = &slot[..slot.len() - TAG_LEN];
            plain_digest.update(plain);
            sink.write_all(plain).map_err(OpenError::Sink)?;
            index += 1;
        }
        if end == Position::Last {
            break;
        }
    }
    sink.flush().map_err(OpenError::Sink)?;
    let layout = Layout::for_sealed(size, HEADER_LEN as u64 + body_len)
        .expect("a body whose every chunk was authentic has the length of an object");
    Ok(SealedSummary::new(&layout, content, plain_digest))
}

/// What one filling of the slots gave.
struct Filled {
    chunks: usize,
    sealed_len: usize,
    end: Position,
}

/// Reads plaintext into consecutive slots, each with room for a tag, until they are full or the source ends.
fn fill_slots(source: &mut impl Read, slots: &mut [u8], chunk_bytes: usize, probe: &mut Probe) -> io::Result<Filled> {
    let mut filled = Filled { chunks: 0, sealed_len: 0, end: Position::Inner };
    for slot in slots.chunks_exact_mut(chunk_bytes + TAG_LEN) {
        let got = probe.fill(source, &mut slot[..chunk_bytes])?;
        // An empty chunk exists only as the single one of an empty object: the probe has seen a byte of any later
        // group.
        if got > 0 || filled.chunks == 0 {
            filled.chunks += 1;
            filled.sealed_len += got + TAG_LEN;
        }
        if got < chunk_bytes {
            filled.end = Position::Last;
            return Ok(filled);
        }
    }
    filled.end = probe.end(source, false)?;
    Ok(filled)
}

/// One byte read ahead, which tells whether a full buffer was the last.
#[derive(Default)]
struct Probe(Option<Zeroizing<[u8; 1]>>);

impl Probe {
    /// Fills `buf` from the byte ahead and the source; returns how much there was.
    fn fill(&mut self, source: &mut impl Read, buf: &mut [u8]) -> io::Result<usize> {
        let ahead = match self.0.take() {
            Some(byte) => {
                buf[0] = byte[0];
                1
            }
            None => 0,
        };
        Ok(ahead + read_full(source, &mut buf[ahead..])?)
    }

    /// Whether the source has ended, given whether it already came up short.
    fn end(&mut self, source: &mut impl Read, short: bool) -> io::Result<Position> {
        let mut byte = Zeroizing::new([0]);
        if short || read_full(source, &mut *byte)? == 0 {
            return Ok(Position::Last);
        }
        self.0 = Some(byte);
        Ok(Position::Inner)
    }
}

fn read_full(source: &mut impl Read, buf: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buf.len() {
        match source.read(&mut buf[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
