//! Whole objects in memory.

use crate::keys::{Salt, TAG_LEN, TaskSecret};
use crate::object::cipher::ChunkCipher;
use crate::object::digests::{ContentHasher, Digests, PlainHasher, SealedSummary};
use crate::object::error::{OpenError, SealError};
use crate::object::header::{HEADER_LEN, Header};
use crate::object::layout::{Layout, sealed_len};
use crate::object::sealer::ObjectSealer;
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
    let sealer = ObjectSealer::new(
        secret,
        context,
        salt,
        options.chunk_size,
        plain.len() as u64,
    )?;
    let layout = *sealer.layout();
    assert_eq!(
        sealed.len() as u64,
        layout.sealed_len(),
        "room for the object"
    );
    let mut content = ContentHasher::new(options.digests.content_id);
    let mut plain_digest = PlainHasher::new(options.digests.plain_sha256);
    let (header, mut sealed_rest) = sealed.split_at_mut(HEADER_LEN);
    header.copy_from_slice(sealer.header());
    content.update(header);
    let mut plain_rest = plain;
    while let Some(range) = sealer.claim() {
        let (plain, rest) = plain_rest.split_at(range.plain_len());
        plain_rest = rest;
        let (sealed, rest) =
            std::mem::take(&mut sealed_rest).split_at_mut(range.sealed_len());
        sealed_rest = rest;
        plain_digest.update(plain);
        range.seal_to(plain, sealed);
        content.update(sealed);
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
    let layout = Layout::for_sealed(header.chunk_size, sealed.len() as u64)
        .ok_or(OpenError::Length)?;
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
    let layout = Layout::for_sealed(header.chunk_size, sealed.len() as u64)
        .ok_or(OpenError::Length)?;
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
    let groups = sealed.chunks(size.per_group() * size.sealed_bytes());
    let mut index = 0;
    for group in groups {
        content.update(group);
        for slot in group.chunks(size.sealed_bytes()) {
            let plain = plain.next().unwrap_or_default();
            cipher.open_to(index, layout.position(index), slot, plain)?;
            plain_digest.update(plain);
            index += 1;
        }
    }
    Ok(SealedSummary::new(layout, content, plain_digest))
}
