//! The two places of which one always holds the newest checkpoint (`specs/vault.md`, section 4.3): a header in clear,
//! and behind it the sealed root, which lists the pages of the directory.

use crate::keys::{CommittedKey, KEY_LEN, SALT_LEN, TAG_LEN};
use crate::scratch::error::ScratchError;
use crate::scratch::table::PageRef;
use crate::scratch::{PAGE_BYTES, PAGE_LOG2, Sequence};

/// The first eight bytes of a superblock.
pub(crate) const MAGIC: [u8; 8] = *b"SMSCRTCH";
/// The version of the format.
pub(crate) const VERSION: u16 = 1;
/// Length of the header in clear, in bytes.
pub(crate) const HEADER_LEN: usize = 100;
/// Bytes by which the root lists a directory page.
const ROOT_ENTRY_LEN: usize = 28;
/// Bytes of a root before its list.
const ROOT_FIXED_LEN: usize = 12;
/// Most pages a directory may have: what fits into a superblock.
pub(crate) const DIRECTORY_PAGES_MAX: usize = (PAGE_BYTES - HEADER_LEN - TAG_LEN - ROOT_FIXED_LEN) / ROOT_ENTRY_LEN;

/// The header of a superblock, parsed and not yet believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// The salt of the opening that made the checkpoint.
    pub salt: [u8; SALT_LEN],
    /// The commitment to the key of that opening.
    pub commitment: [u8; KEY_LEN],
    /// The checkpoint's place in the order of all.
    pub sequence: Sequence,
    /// The generation under which the root is sealed: the highest that the checkpoint knows.
    pub generation: u64,
    /// Length of the root in bytes, without its tag.
    pub root_len: u32,
}

impl Superblock {
    /// Parses the header at the start of `bytes`.
    ///
    /// # Errors
    /// [`ScratchError::NoCheckpoint`] when this is not a superblock, [`ScratchError::Version`], and
    /// [`ScratchError::Superblock`] when a field is out of bounds.
    pub fn parse(bytes: &[u8]) -> Result<Superblock, ScratchError> {
        let header: &[u8; HEADER_LEN] = bytes.first_chunk().ok_or(ScratchError::NoCheckpoint)?;
        let (magic, rest) = take::<8>(header);
        if magic != MAGIC {
            return Err(ScratchError::NoCheckpoint);
        }
        let (version, rest) = take::<2>(rest);
        let version = u16::from_be_bytes(version);
        if version != VERSION {
            return Err(ScratchError::Version { version });
        }
        let (page_and_reserved, rest) = take::<6>(rest);
        let (salt, rest) = take::<SALT_LEN>(rest);
        let (commitment, rest) = take::<KEY_LEN>(rest);
        let (sequence, rest) = take::<8>(rest);
        let (generation, rest) = take::<8>(rest);
        let (root_len, _) = take::<4>(rest);
        let superblock = Superblock {
            salt,
            commitment,
            sequence: Sequence(u64::from_be_bytes(sequence)),
            generation: u64::from_be_bytes(generation),
            root_len: u32::from_be_bytes(root_len),
        };
        let room = PAGE_BYTES - HEADER_LEN - TAG_LEN;
        if page_and_reserved != [PAGE_LOG2, 0, 0, 0, 0, 0] || superblock.root_len as usize > room {
            return Err(ScratchError::Superblock);
        }
        Ok(superblock)
    }

    /// Bytes of the superblock: header, root and tag. What follows in the slot means nothing.
    pub(crate) fn len(&self) -> usize {
        HEADER_LEN + self.root_len as usize + TAG_LEN
    }

    fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&VERSION.to_be_bytes());
        bytes[10] = PAGE_LOG2;
        bytes[16..48].copy_from_slice(&self.salt);
        bytes[48..80].copy_from_slice(&self.commitment);
        bytes[80..88].copy_from_slice(&self.sequence.0.to_be_bytes());
        bytes[88..96].copy_from_slice(&self.generation.to_be_bytes());
        bytes[96..].copy_from_slice(&self.root_len.to_be_bytes());
        bytes
    }
}

/// What a checkpoint's directory is and where it lies.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Root {
    pub(crate) directory_len: u64,
    pub(crate) directory_pages: Vec<PageRef>,
}

impl Root {
    /// Seals the root behind a header that binds it.
    pub(crate) fn seal(
        &self,
        key: &CommittedKey,
        salt: &[u8; SALT_LEN],
        sequence: Sequence,
        generation: u64,
    ) -> Vec<u8> {
        let mut root = Vec::with_capacity(PAGE_BYTES);
        root.extend_from_slice(&self.directory_len.to_be_bytes());
        root.extend_from_slice(&(self.directory_pages.len() as u32).to_be_bytes());
        for page in &self.directory_pages {
            root.extend_from_slice(&page.slot.to_be_bytes());
            root.extend_from_slice(&page.generation.to_be_bytes());
            root.extend_from_slice(&page.tag);
        }
        let header = Superblock {
            salt: *salt,
            commitment: *key.commitment(),
            sequence,
            generation,
            root_len: root.len() as u32,
        }
        .encode();
        let tag = key.seal_in_place(page_nonce(generation), &header, &mut root);
        let mut block = Vec::with_capacity(PAGE_BYTES);
        block.extend_from_slice(&header);
        block.append(&mut root);
        block.extend_from_slice(&tag);
        block
    }

    /// Opens the root behind `superblock`, which was parsed from the start of `block`, under the key it commits to.
    pub(crate) fn open(key: &CommittedKey, superblock: &Superblock, block: &[u8]) -> Result<Root, ScratchError> {
        let sealed_end = HEADER_LEN + superblock.root_len as usize;
        let sealed = block.get(HEADER_LEN..sealed_end);
        let tag = block.get(sealed_end..sealed_end + TAG_LEN);
        let (Some(sealed), Some(tag)) = (sealed, tag) else {
            return Err(ScratchError::Superblock);
        };
        let mut root = vec![0; sealed.len()];
        let nonce = page_nonce(superblock.generation);
        if !key.open_to(nonce, &superblock.encode(), tag, sealed, &mut root) {
            return Err(ScratchError::Superblock);
        }
        Self::parse(&root)
    }

    fn parse(root: &[u8]) -> Result<Root, ScratchError> {
        let what = "its root";
        let fixed: &[u8; ROOT_FIXED_LEN] = root.first_chunk().ok_or(ScratchError::Malformed { what })?;
        let (directory_len, rest) = take::<8>(fixed);
        let (count, _) = take::<4>(rest);
        let directory_len = u64::from_be_bytes(directory_len);
        let (entries, rest) = root[ROOT_FIXED_LEN..].as_chunks::<ROOT_ENTRY_LEN>();
        let pages = directory_len.div_ceil(PAGE_BYTES as u64);
        let count = u64::from(u32::from_be_bytes(count));
        if !rest.is_empty() || count != entries.len() as u64 || count != pages {
            return Err(ScratchError::Malformed { what });
        }
        let entry = |entry: &[u8; ROOT_ENTRY_LEN]| {
            let (slot, rest) = take::<4>(entry);
            let (generation, rest) = take::<8>(rest);
            let (tag, _) = take::<TAG_LEN>(rest);
            PageRef { slot: u32::from_be_bytes(slot), generation: u64::from_be_bytes(generation), tag }
        };
        Ok(Root { directory_len, directory_pages: entries.iter().map(entry).collect() })
    }
}

/// The nonce of whatever is sealed under `generation`: a counter of 96 bits, of which the upper 32 stay zero.
pub(crate) fn page_nonce(generation: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&generation.to_be_bytes());
    nonce
}

/// Splits `N` bytes off. Callers hold slices of known length.
fn take<const N: usize>(bytes: &[u8]) -> ([u8; N], &[u8]) {
    let (head, rest) = bytes.split_at(N);
    let mut taken = [0; N];
    taken.copy_from_slice(head);
    (taken, rest)
}
