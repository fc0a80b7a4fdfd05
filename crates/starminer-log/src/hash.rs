//! Node hashes of the tree: RFC 6962 section 2.1 over SHA-256.
//!
//! Leaves hash as `SHA-256(0x00 || entry)`, inner nodes as `SHA-256(0x01 || left || right)`, the empty tree as the hash
//! of nothing. Which hashes make a tree is not decided here.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE64, HEXLOWER};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The longest entry in bytes: an entry bundle prefixes each entry with a 16-bit length (C2SP tlog-tiles, "Log entries").
pub const MAX_ENTRY_LEN: usize = 65_535;

/// The root of the empty tree: the SHA-256 of the empty string (RFC 6962 section 2.1).
pub const EMPTY_ROOT: Hash = Hash(tlog_tiles::EMPTY_HASH.0);

/// A SHA-256 node hash: of a leaf, of an inner node, or the root of a tree. 64 lowercase hex digits in JSON; base64 only
/// inside notes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// The standard base64 form that notes carry (C2SP tlog-checkpoint, third line).
    pub(crate) fn to_base64(self) -> String {
        BASE64.encode(&self.0)
    }

    /// Parses the form of [`Hash::to_base64`]; padding and unused bits must be canonical.
    pub(crate) fn from_base64(text: &str) -> Option<Self> {
        Some(Hash(BASE64.decode(text.as_bytes()).ok()?.try_into().ok()?))
    }

    pub(crate) fn to_tlog(self) -> tlog_tiles::Hash {
        tlog_tiles::Hash(self.0)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash({self})")
    }
}

/// A text that is not 64 lowercase hex digits. Code `log.hash`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a hash is 64 lowercase hex digits")]
pub struct HashError;

impl HashError {
    /// The stable code of this refusal.
    pub fn code(&self) -> &'static str {
        "log.hash"
    }
}

impl FromStr for Hash {
    type Err = HashError;

    fn from_str(text: &str) -> Result<Self, HashError> {
        let bytes: [u8; 64] = text.as_bytes().try_into().map_err(|_| HashError)?;
        let mut hash = [0; 32];
        HEXLOWER.decode_mut(&bytes, &mut hash).map_err(|_| HashError)?;
        Ok(Hash(hash))
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct HexVisitor;
        impl de::Visitor<'_> for HexVisitor {
            type Value = Hash;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("64 lowercase hex digits")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Hash, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(HexVisitor)
    }
}

/// The leaf hash of an entry's bytes: `SHA-256(0x00 || entry)` (RFC 6962 section 2.1). The cap of [`MAX_ENTRY_LEN`] is
/// enforced where entries enter a tree or a proof, not here.
pub fn leaf_hash(entry: &[u8]) -> Hash {
    Hash(tlog_tiles::record_hash(entry).0)
}

/// The hash of an inner node: `SHA-256(0x01 || left || right)` (RFC 6962 section 2.1).
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Hash(tlog_tiles::node_hash(left.to_tlog(), right.to_tlog()).0)
}
