//! What a disk says of itself: what is encrypted with what, and unlocked by what. Its header's word, which nobody signed.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use crate::device::LABEL;
use crate::error::DiskError;
use crate::header::{FINISHED, Header, MAX_HEADER_BYTES, UNFINISHED};
use crate::token::{SealedTo, Token};

/// What a LUKS2 header says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DiskStatus {
    /// Its label.
    pub label: String,
    /// Its UUID.
    pub uuid: String,
    /// What it is to a node.
    pub kind: DiskKind,
    /// Why a node would not open it, whoever seals its key.
    pub not_taken: Option<String>,
    /// Its parts, as they are encrypted.
    pub segments: Vec<SegmentStatus>,
    /// Slots for keys.
    pub key_slots: usize,
    /// What unlocks it, in words.
    pub unlocked_by: Vec<String>,
}

/// What a disk is to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskKind {
    /// A node's disk.
    Node,
    /// One whose making was interrupted: the next start makes it anew.
    Unfinished,
    /// Another LUKS2 disk: no node touches it.
    Other,
}

/// A part of a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SegmentStatus {
    /// As dm-crypt names it: `aes-xts-plain64`.
    pub encryption: String,
    /// Bits of the key; of XTS both halves. 0 where the header does not say.
    pub key_bits: u64,
    /// Bytes of a sector.
    pub sector_bytes: u64,
    /// Where it begins, in bytes.
    pub offset_bytes: u64,
}

/// Reads the header of a device, or of a file with a disk in it. Nothing is opened or written.
///
/// # Errors
/// [`DiskError::Io`], [`DiskError::Header`].
pub fn status(path: &Path) -> Result<DiskStatus, DiskError> {
    let mut beginning = Vec::new();
    let found = std::fs::metadata(path).map_err(DiskError::io(path))?;
    if !(found.is_file() || found.file_type().is_block_device()) {
        // A pipe would be waited for.
        return Err(DiskError::io(path)(std::io::Error::other("neither a file nor a block device")));
    }
    let mut file = File::open(path).map_err(DiskError::io(path))?;
    let length_bytes = file.seek(SeekFrom::End(0)).map_err(DiskError::io(path))?;
    file.rewind().map_err(DiskError::io(path))?;
    file.take(MAX_HEADER_BYTES as u64).read_to_end(&mut beginning).map_err(DiskError::io(path))?;
    let mut status = of_header(&Header::parse(&beginning)?);
    // How long it was is said nowhere but in the file system, which is encrypted.
    let is_cut = |segment: &SegmentStatus| segment.offset_bytes >= length_bytes;
    if status.kind == DiskKind::Node && status.segments.iter().any(is_cut) {
        status.not_taken =
            Some(format!("it was cut off: it ends after {length_bytes} bytes, before what is encrypted"));
    }
    Ok(status)
}

impl DiskStatus {
    /// What this header says.
    #[must_use]
    pub fn of(header: &Header) -> Self {
        of_header(header)
    }
}

fn of_header(header: &Header) -> DiskStatus {
    let kind = match (header.label.as_str(), header.subsystem.as_str()) {
        (LABEL, FINISHED) => DiskKind::Node,
        (LABEL, UNFINISHED) => DiskKind::Unfinished,
        _ => DiskKind::Other,
    };
    let metadata = &header.metadata;
    let slots = objects(&metadata["keyslots"]);
    let key_bytes = slots.first().and_then(|slot| slot["key_size"].as_u64()).unwrap_or(0);
    let number = |value: &Value| match value {
        Value::String(text) => text.parse().unwrap_or(0),
        other => other.as_u64().unwrap_or(0),
    };
    let segments = objects(&metadata["segments"]).into_iter().map(|segment| SegmentStatus {
        encryption: segment["encryption"].as_str().unwrap_or("nothing").to_owned(),
        key_bits: key_bytes.saturating_mul(8),
        sector_bytes: number(&segment["sector_size"]),
        offset_bytes: number(&segment["offset"]),
    });
    DiskStatus {
        label: header.label.clone(),
        uuid: header.uuid.clone(),
        kind,
        not_taken: not_taken(header, kind),
        segments: segments.collect(),
        key_slots: slots.len(),
        unlocked_by: unlocked_by(metadata, slots.len()),
    }
}

/// Why a node would not open it, as far as the header tells.
fn not_taken(header: &Header, kind: DiskKind) -> Option<String> {
    match (header.layout(), kind) {
        (Err(error), _) => Some(error.to_string()),
        (_, DiskKind::Other) => Some("it is not labelled as a node's".into()),
        (Ok(layout), DiskKind::Node) if layout.tokens.get("0").and_then(Token::parse).is_none() => {
            Some("it holds no key that a TPM sealed for a node".into())
        }
        _ => None,
    }
}

fn unlocked_by(metadata: &Value, slots: usize) -> Vec<String> {
    let mut by = Vec::new();
    let tokens = objects(&metadata["tokens"]);
    for token in &tokens {
        match Token::parse(token) {
            Some(token) => by.extend(token.seals.iter().map(|seal| match &seal.to {
                SealedTo::Image {} => "a TPM, while registers 0, 7 and 11 are as they were: one image, one firmware".to_owned(),
                SealedTo::Maker { key, security_version, .. } => format!(
                    "a TPM, while registers 0 and 7 are as they were, and images approved for security version {security_version} by the key {key}"
                ),
            }).chain(token.mixed.map(|chip| format!("and, with each of these, the key that {chip} derives for the guest"))).collect::<Vec<_>>()),
            None => by.push(format!("a token of type {}", token["type"].as_str().unwrap_or("?"))),
        }
    }
    let with_token = |slot: &str| {
        tokens.iter().any(|token| token["keyslots"].as_array().is_some_and(|slots| slots.iter().any(|it| it == slot)))
    };
    let bare = metadata["keyslots"].as_object().into_iter().flat_map(|slots| slots.keys());
    let bare = bare.filter(|slot| !with_token(slot)).count();
    if bare != 0 || slots == 0 {
        by.push(format!("{bare} passphrases or key files"));
    }
    by
}

fn objects(value: &Value) -> Vec<&Value> {
    value.as_object().into_iter().flat_map(|object| object.values()).collect()
}
