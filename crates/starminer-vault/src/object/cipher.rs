//! One object's key at work on single chunks (`specs/vault.md`, section 3.2): nonces, associated data, and nothing
//! else.

use crate::keys::{CommittedKey, NAME_BYTES_MAX, Salt, TAG_LEN, TaskSecret};
use crate::object::ObjectContext;
use crate::object::error::{OpenError, SealError};
use crate::object::header::{HEADER_LEN, Header, fixed};
use crate::object::layout::{ChunkSize, Position};

/// The key of one object with the header it commits to.
#[derive(Debug)]
pub(crate) struct ChunkCipher {
    key: CommittedKey,
    header: [u8; HEADER_LEN],
    chunk_size: ChunkSize,
}

impl ChunkCipher {
    pub(crate) fn for_sealing(
        secret: &TaskSecret,
        context: &ObjectContext<'_>,
        salt: Salt,
        chunk_size: ChunkSize,
    ) -> Result<Self, SealError> {
        let key = derive(secret, context, salt.as_bytes(), chunk_size).ok_or(SealError::NameTooLong)?;
        let header = Header { chunk_size, salt: *salt.as_bytes(), commitment: *key.commitment() };
        Ok(Self { key, header: header.encode(), chunk_size })
    }

    /// Refuses a header that does not commit to the key that secret and context derive.
    pub(crate) fn for_opening(
        secret: &TaskSecret,
        context: &ObjectContext<'_>,
        header: &Header,
    ) -> Result<Self, OpenError> {
        let key = derive(secret, context, &header.salt, header.chunk_size).ok_or(OpenError::NameTooLong)?;
        if !key.matches(&header.commitment) {
            return Err(OpenError::Key);
        }
        Ok(Self { key, header: header.encode(), chunk_size: header.chunk_size })
    }

    pub(crate) fn header(&self) -> &[u8; HEADER_LEN] {
        &self.header
    }

    pub(crate) fn chunk_size(&self) -> ChunkSize {
        self.chunk_size
    }

    /// Seals a chunk in place: `slot` is its plaintext and room for the tag behind it. Each index at most once.
    pub(crate) fn seal_in_place(&self, index: u64, position: Position, slot: &mut [u8]) {
        let (body, tag) = split_tag_mut(slot);
        tag.copy_from_slice(&self.key.seal_in_place(nonce(index, position), &self.header, body));
    }

    /// Seals a chunk from `plain` into `slot`, which is longer by a tag. Each index at most once.
    pub(crate) fn seal_to(&self, index: u64, position: Position, plain: &[u8], slot: &mut [u8]) {
        let (body, tag) = split_tag_mut(slot);
        tag.copy_from_slice(&self.key.seal_to(nonce(index, position), &self.header, plain, body));
    }

    /// Opens a chunk in place, leaving its plaintext in front of the tag; wipes it and refuses when it is not
    /// authentic.
    pub(crate) fn open_in_place(&self, index: u64, position: Position, slot: &mut [u8]) -> Result<(), OpenError> {
        let (body, tag) = split_tag_mut(slot);
        let opened = self.key.open_in_place(nonce(index, position), &self.header, tag, body);
        verdict(opened, index, position)
    }

    /// Opens a chunk from `slot` into `plain`, which is shorter by a tag; wipes `plain` and refuses when it is not
    /// authentic.
    pub(crate) fn open_to(
        &self,
        index: u64,
        position: Position,
        slot: &[u8],
        plain: &mut [u8],
    ) -> Result<(), OpenError> {
        let (body, tag) = slot.split_at(slot.len() - TAG_LEN);
        let opened = self.key.open_to(nonce(index, position), &self.header, tag, body, plain);
        verdict(opened, index, position)
    }
}

fn verdict(opened: bool, index: u64, position: Position) -> Result<(), OpenError> {
    match (opened, position) {
        (true, _) => Ok(()),
        (false, Position::Inner) => Err(OpenError::Chunk { index }),
        (false, Position::Last) => Err(OpenError::End),
    }
}

fn derive(
    secret: &TaskSecret,
    context: &ObjectContext<'_>,
    salt: &[u8; 32],
    chunk_size: ChunkSize,
) -> Option<CommittedKey> {
    (context.name.len() <= NAME_BYTES_MAX).then(|| {
        CommittedKey::for_object(secret, salt, &fixed(chunk_size), &context.task, context.purpose, context.name)
    })
}

/// Three zero bytes, the chunk's number in eight, and one that is 1 for the last chunk and 0 for the others.
fn nonce(index: u64, position: Position) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[3..11].copy_from_slice(&index.to_be_bytes());
    nonce[11] = match position {
        Position::Inner => 0,
        Position::Last => 1,
    };
    nonce
}

fn split_tag_mut(slot: &mut [u8]) -> (&mut [u8], &mut [u8]) {
    let tag_at = slot.len() - TAG_LEN;
    slot.split_at_mut(tag_at)
}
