//! Whole objects in memory.

use crate::keys::{Salt, TAG_LEN, TaskSecret};
use crate::object::cipher::ChunkCipher;
use crate::object::digests::{ContentHasher, Digests, PlainHasher, SealedSummary};
use crate::object::error::{OpenError, SealError};
use crate::object::header::{HEADER_LEN, Header};
use crate::object::layout::{Layout, sealed_len};
use crate::object::{ObjectContext, SealOptions};

/// Seals `plain` into a new object.
///
/// # Errors
/// [`SealError::NameTooLong`], [`SealError::TooLong`].
pub fn seal_bytes(
    secret: &TaskSecret,
    context: &ObjectContext<'_>,
    salt: Salt,
    options: SealOptions,
    plain: &[u8],
) -> Result<(Vec<u8>, SealedSummary), SealError> {
    let len = sealed_len(plain.len() as u64, options.chunk_size)
        .and_then(|len| usize::try_from(len).ok())
        .ok_or(SealError::TooLong)?;
    let mut sealed = vec![0; len];
    let summary = seal_into(secret, context, salt, options, plain, &mut sealed)?;
    Ok((sealed, summary))
}

/// Seals `plain` into `sealed`, whose length must be [`sealed_len`] of the plaintext's: it panics otherwise.
///
/// # Errors
/// [`SealError::NameTooLong`], [`SealError::TooLong`].
pub fn seal_into(
    secret: &TaskSecret,
    context: &ObjectContext<'_>,
    salt: Salt,
    options: SealOptions,
    plain: &[u8],
    sealed: &mut [u8],
) -> Result<SealedSummary, SealError> {
    let size = options.chunk_size;
    let layout = Layout::for_plain(size, plain.len() as u64).ok_or(SealError::TooLong)?;
    let cipher = ChunkCipher::for_sealing(secret, context, salt, size)?;
    assert_eq!(sealed.len() as u64, layout.sealed_len(), "room for the object");
    let mut content = ContentHasher::new(options.digests.content_id);
    let mut plain_digest = PlainHasher::new(options.digests.plain_sha256);
    let (header, sealed) = sealed.split_at_mut(HEADER_LEN);
    header.copy_from_slice(cipher.header());
    content.update(header);
    let mut plain = plain.chunks(size.bytes());
    let mut index = 0;
    for group in sealed.chunks_mut(size.per_group() * size.sealed_bytes()) {
        for slot in group.chunks_mut(size.sealed_bytes()) {
            // An empty object has one slot and no plaintext chunk.
            let plain = plain.next().unwrap_or_default();
            plain_digest.update(plain);
            cipher.seal_to(index, layout.position(index), plain, slot);
            index += 1;
        }
        content.update(group);
    }
    Ok(SealedSummary::new(&layout, content, plain_digest))
}

/// Opens a whole object. Nothing is given out unless all of it is authentic.
///
/// # Errors
/// Every refusal of [`OpenError`] but those of reading and writing.
pub fn open_bytes(
    secret: &TaskSecret,
    context: &ObjectContext<'_>,
    digests: Digests,
    sealed: &[u8],
) -> Result<(Vec<u8>, SealedSummary), OpenError> {
    let header = Header::parse(sealed)?;
    let layout = Layout::for_sealed(header.chunk_size, sealed.len() as u64).ok_or(OpenError::Length)?;
    // Not longer than `sealed`, which is in memory already.
    let mut plain = vec![0; sealed.len() - HEADER_LEN - layout.chunks() as usize * TAG_LEN];
    let summary = open_into(secret, context, digests, sealed, &mut plain)?;
    Ok((plain, summary))
}

/// Opens a whole object into `plain`, which is wiped again unless all of it is authentic.
///
/// # Errors
/// [`OpenError::BufferLength`] when `plain` is not as long as the plaintext, and every refusal but those of reading and
/// writing.
pub fn open_into(
    secret: &TaskSecret,
    context: &ObjectContext<'_>,
    digests: Digests,
    sealed: &[u8],
    plain: &mut [u8],
) -> Result<SealedSummary, OpenError> {
    let header = Header::parse(sealed)?;
    let cipher = ChunkCipher::for_opening(secret, context, &header)?;
    let layout = Layout::for_sealed(header.chunk_size, sealed.len() as u64).ok_or(OpenError::Length)?;
    if plain.len() as u64 != layout.plain_len() {
        return Err(OpenError::BufferLength);
    }
    let opened = open_chunks(&cipher, &layout, digests, sealed, plain);
    if opened.is_err() {
        plain.fill(0);
    }
    opened
}

fn open_chunks(
    cipher: &ChunkCipher,
    layout: &Layout,
    digests: Digests,
    sealed: &[u8],
    plain: &mut [u8],
) -> Result<SealedSummary, OpenError> {
    let size = layout.chunk_size();
    let mut content = ContentHasher::new(digests.content_id);
    let mut plain_digest = PlainHasher::new(digests.plain_sha256);
    let (header, sealed) = sealed.split_at(HEADER_LEN);
    content.update(header);
    let mut plain = plain.chunks_mut(size.bytes());
    let mut index = 0;
    for group in sealed.chunks(size.per_group() * size.sealed_bytes()) {
        for slot in group.chunks(size.sealed_bytes()) {
            let plain = plain.next().unwrap_or_default();
            cipher.open_to(index, layout.position(index), slot, plain)?;
            plain_digest.update(plain);
            index += 1;
        }
        // AES reads memory ahead better than BLAKE3 does, so it goes first and leaves the group in the cache.
        content.update(group);
    }
    Ok(SealedSummary::new(layout, content, plain_digest))
}
