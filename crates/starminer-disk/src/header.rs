//! A LUKS2 header, read: what a disk says of itself, and whether it is what this program lets cryptsetup open.
//!
//! A header is not authenticated, and whoever has the disk writes it. One that names no encryption (`cipher_null`), or a slot for a key of the writer's, would be opened
//! as well as the node's own, and tasks' data written for the writer to read. So it is copied into memory, held against the one form that this
//! program makes ([`Header::layout`]), and the copy is what cryptsetup opens with. Source: LUKS2 On-Disk Format Specification 1.1.

use std::collections::BTreeMap;

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Bytes of the binary part, before the metadata in JSON.
const BINARY_BYTES: usize = 4096;
const MAGIC: [&[u8]; 2] = [b"LUKS\xba\xbe", b"SKUL\xba\xbe"];
const CHECKSUM_AT: usize = 448;
const CHECKSUM_BYTES: usize = 64;
/// Sizes that a header may have, and so places where the second one may be.
const SIZES: [usize; 9] = [0x4000, 0x8000, 0x10000, 0x20000, 0x40000, 0x80000, 0x10_0000, 0x20_0000, 0x40_0000];
/// What is read of a disk for its header: both copies of the largest.
pub const MAX_HEADER_BYTES: usize = 2 * 0x40_0000;

/// What a node's disk is encrypted with.
pub const CIPHER: &str = "aes-xts-plain64";
/// Bytes of its key: two of AES-256.
pub const KEY_BYTES: u32 = 64;
/// Where its data begins, in bytes.
pub const DATA_AT: u64 = 16 << 20;
/// The type of the token in which the sealed key lies.
pub const TOKEN: &str = "starminer-tpm2";
/// Its subsystem when it is being made, and when it is.
pub const UNFINISHED: &str = "unfinished";
/// See [`UNFINISHED`].
pub const FINISHED: &str = "job-storage";

/// Why a header is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// There is none.
    #[error("no LUKS2 header")]
    None,
    /// It is damaged.
    #[error("a damaged LUKS2 header: {0}")]
    Damaged(&'static str),
    /// It is one, and says something that this program never says.
    #[error("a LUKS2 header that this program did not make: {0}")]
    Foreign(String),
}

impl HeaderError {
    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::None => "disk.no-luks2",
            Self::Damaged(_) => "disk.header-damaged",
            Self::Foreign(_) => "disk.header-foreign",
        }
    }
}

/// A header whose checksum holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// Its label.
    pub label: String,
    /// Its subsystem.
    pub subsystem: String,
    /// The UUID, as text.
    pub uuid: String,
    /// Counts its changes.
    pub sequence: u64,
    /// Its metadata.
    pub metadata: Value,
    /// Where it was found.
    pub at: usize,
    /// Its length.
    pub len_bytes: usize,
}

impl Header {
    /// Reads the newer of both copies from the beginning of a disk, as cryptsetup does.
    ///
    /// # Errors
    /// [`HeaderError::None`] and [`HeaderError::Damaged`].
    pub fn parse(disk: &[u8]) -> Result<Self, HeaderError> {
        let first = copy(disk, 0, MAGIC[0]);
        let places = match &first {
            Ok(header) => vec![header.len_bytes],
            Err(_) => SIZES.to_vec(),
        };
        let second =
            places.into_iter().map(|at| copy(disk, at, MAGIC[1])).find(|found| *found != Err(HeaderError::None));
        match (first, second) {
            (Ok(first), Some(Ok(second))) if second.sequence > first.sequence => Ok(second),
            (Ok(first), _) => Ok(first),
            (Err(_), Some(Ok(second))) => Ok(second),
            (Err(HeaderError::None), Some(Err(error))) | (Err(error), _) => Err(error),
        }
    }

    /// Its metadata, if it is such as this program makes, to the last field.
    ///
    /// # Errors
    /// [`HeaderError::Foreign`].
    pub fn layout(&self) -> Result<Layout, HeaderError> {
        let foreign = |what: &str| HeaderError::Foreign(what.to_owned());
        let layout: Layout =
            serde_json::from_value(self.metadata.clone()).map_err(|error| HeaderError::Foreign(error.to_string()))?;
        let (Some(slot), 1) = (layout.keyslots.get("0"), layout.keyslots.len()) else {
            return Err(foreign("it has other slots for keys than one"));
        };
        let (Some(segment), 1) = (layout.segments.get("0"), layout.segments.len()) else {
            return Err(foreign("it has other segments than one"));
        };
        let (Some(digest), 1) = (layout.digests.get("0"), layout.digests.len()) else {
            return Err(foreign("it has other digests than one"));
        };
        let key = usize::try_from(KEY_BYTES).unwrap_or_default();
        let sealed = |ok: bool, what: &str| if ok { Ok(()) } else { Err(foreign(what)) };
        sealed(self.len_bytes == SIZES[0], "another length")?;
        sealed(slot.kind == "luks2" && slot.key_size == key, "another kind of slot")?;
        sealed(
            slot.area.kind == "raw" && slot.area.encryption == CIPHER && slot.area.key_size == key,
            "its slot is encrypted otherwise",
        )?;
        sealed(
            slot.af.kind == "luks1" && slot.af.stripes == 4000 && slot.af.hash == "sha256",
            "its slot is split otherwise",
        )?;
        sealed(slot.kdf.kind == "pbkdf2" && slot.kdf.hash == "sha256", "its slot's key is made otherwise")?;
        sealed(segment.kind == "crypt" && segment.encryption == CIPHER, "its data is encrypted otherwise")?;
        sealed(
            segment.offset == DATA_AT.to_string() && segment.size == "dynamic" && segment.iv_tweak == "0",
            "its data lies elsewhere",
        )?;
        sealed(segment.sector_size == 4096, "its data has other sectors")?;
        sealed(
            digest.kind == "pbkdf2" && digest.keyslots == ["0"] && digest.segments == ["0"],
            "its digest is another kind",
        )?;
        sealed(layout.tokens.len() <= 1, "it has other tokens")?;
        Ok(layout)
    }

    /// Both copies as one that this very header alone is read from: the other copy is no header.
    #[must_use]
    pub fn alone(&self, disk: &[u8]) -> Vec<u8> {
        let mut copy = disk.get(..usize::try_from(DATA_AT).unwrap_or(usize::MAX)).unwrap_or(disk).to_vec();
        let other = if self.at == 0 { self.len_bytes } else { 0 };
        if let Some(other) = copy.get_mut(other..other + self.len_bytes) {
            other.fill(0);
        }
        copy
    }
}

/// One copy. `None` where there is nothing like it.
fn copy(disk: &[u8], at: usize, magic: &[u8]) -> Result<Header, HeaderError> {
    let damaged = |what| HeaderError::Damaged(what);
    let binary: &[u8; BINARY_BYTES] = disk.get(at..).and_then(<[u8]>::first_chunk).ok_or(HeaderError::None)?;
    if &binary[..6] != magic || binary[6..8] != [0, 2] {
        return Err(HeaderError::None);
    }
    let number = |at: usize| binary[at..].first_chunk().copied().map_or(0, u64::from_be_bytes);
    let len_bytes = usize::try_from(number(8)).ok().filter(|size| SIZES.contains(size)).ok_or(damaged("its length"))?;
    if number(256) != at as u64 {
        return Err(damaged("it stands elsewhere than it says"));
    }
    let whole = disk.get(at..at + len_bytes).ok_or(damaged("it is cut"))?;
    if text(&binary[72..104]) != Some("sha256") {
        return Err(damaged("a checksum of another kind"));
    }
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(&whole[..CHECKSUM_AT]);
    context.update(&[0; CHECKSUM_BYTES]);
    context.update(&whole[CHECKSUM_AT + CHECKSUM_BYTES..]);
    if !whole[CHECKSUM_AT..].starts_with(context.finish().as_ref()) {
        return Err(damaged("its checksum"));
    }
    let metadata = whole[BINARY_BYTES..].split(|byte| *byte == 0).next().unwrap_or_default();
    let words = |range: std::ops::Range<usize>| text(&binary[range]).map(str::to_owned).ok_or(damaged("no text"));
    Ok(Header {
        label: words(24..72)?,
        subsystem: words(208..256)?,
        uuid: words(168..208)?,
        sequence: number(16),
        metadata: serde_json::from_slice(metadata).map_err(|_| damaged("its metadata is no JSON"))?,
        at,
        len_bytes,
    })
}

/// Printable text before the first zero.
fn text(bytes: &[u8]) -> Option<&str> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    let text = std::str::from_utf8(&bytes[..end]).ok()?;
    text.chars().all(|character| matches!(character, ' '..='~')).then_some(text)
}

/// The metadata of a node's disk. Fields that it does not have are refused: each could be one that changes what is done.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    keyslots: BTreeMap<String, Keyslot>,
    segments: BTreeMap<String, Segment>,
    digests: BTreeMap<String, KeyDigest>,
    /// Tokens, by their numbers.
    pub tokens: BTreeMap<String, Value>,
    config: Config,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keyslot {
    #[serde(rename = "type")]
    kind: String,
    key_size: usize,
    af: AntiForensic,
    area: Area,
    kdf: Kdf,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct AntiForensic {
    #[serde(rename = "type")]
    kind: String,
    stripes: u32,
    hash: String,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Area {
    #[serde(rename = "type")]
    kind: String,
    offset: String,
    size: String,
    encryption: String,
    key_size: usize,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kdf {
    #[serde(rename = "type")]
    kind: String,
    hash: String,
    iterations: u32,
    salt: String,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Segment {
    #[serde(rename = "type")]
    kind: String,
    offset: String,
    size: String,
    iv_tweak: String,
    encryption: String,
    sector_size: u32,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyDigest {
    #[serde(rename = "type")]
    kind: String,
    keyslots: Vec<String>,
    segments: Vec<String>,
    hash: String,
    iterations: u32,
    salt: String,
    digest: String,
}

/// Without flags and requirements.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    json_size: String,
    keyslots_size: String,
}
