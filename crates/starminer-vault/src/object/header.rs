//! The 80 bytes before an object's chunks (`specs/vault.md`, section 3.1). Parsing believes nothing: only the key
//! commitment, checked by whoever opens, says that a header is genuine.

use crate::keys::{KEY_LEN, SALT_LEN};
use crate::object::error::OpenError;
use crate::object::layout::ChunkSize;

/// Length of a header in bytes.
pub const HEADER_LEN: usize = 80;
/// The first eight bytes of every object.
pub const MAGIC: [u8; 8] = *b"SMOBJECT";
/// The version of the format that this crate reads and writes.
pub const VERSION: u16 = 1;

/// Length of the part before the salt, which goes into the key derivation.
pub(crate) const FIXED_LEN: usize = 16;

/// A parsed header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Plaintext bytes of a chunk.
    pub chunk_size: ChunkSize,
    /// The random salt of the object's keys.
    pub salt: [u8; SALT_LEN],
    /// The commitment to the key that the object opens under.
    pub commitment: [u8; KEY_LEN],
}

impl Header {
    /// Parses the first [`HEADER_LEN`] of `bytes`; what follows is not looked at.
    ///
    /// # Errors
    /// [`OpenError::Length`], [`OpenError::NotAnObject`], [`OpenError::Version`], [`OpenError::ChunkSize`] or
    /// [`OpenError::Reserved`].
    pub fn parse(bytes: &[u8]) -> Result<Header, OpenError> {
        let header: &[u8; HEADER_LEN] = bytes.first_chunk().ok_or(OpenError::Length)?;
        let (fixed, rest) = header.split_at(FIXED_LEN);
        let (salt, commitment) = rest.split_at(SALT_LEN);
        if fixed[..8] != MAGIC {
            return Err(OpenError::NotAnObject);
        }
        let version = u16::from_be_bytes([fixed[8], fixed[9]]);
        if version != VERSION {
            return Err(OpenError::Version { version });
        }
        let chunk_size = ChunkSize::from_log2(fixed[10]).ok_or(OpenError::ChunkSize { log2: fixed[10] })?;
        if fixed[11..] != [0; 5] {
            return Err(OpenError::Reserved);
        }
        let mut parsed = Header { chunk_size, salt: [0; SALT_LEN], commitment: [0; KEY_LEN] };
        parsed.salt.copy_from_slice(salt);
        parsed.commitment.copy_from_slice(commitment);
        Ok(parsed)
    }

    /// The bytes that [`Header::parse`] reads.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..FIXED_LEN].copy_from_slice(&fixed(self.chunk_size));
        bytes[FIXED_LEN..FIXED_LEN + SALT_LEN].copy_from_slice(&self.salt);
        bytes[FIXED_LEN + SALT_LEN..].copy_from_slice(&self.commitment);
        bytes
    }
}

/// The part of a header before its salt.
pub(crate) fn fixed(chunk_size: ChunkSize) -> [u8; FIXED_LEN] {
    let mut fixed = [0; FIXED_LEN];
    fixed[..8].copy_from_slice(&MAGIC);
    fixed[8..10].copy_from_slice(&VERSION.to_be_bytes());
    fixed[10] = chunk_size.log2();
    fixed
}
