//! IMA measurement lists, as the kernel writes them: binary and text, entry by entry, none of it believed.
//!
//! Linux `security/integrity/ima/ima_fs.c` and `ima_template_lib.c`. An entry is a register, the digest of the template data, the template's
//! name and the data. The digest is of the data's bytes as they lie in the binary list (each field with its length before it), but for the old
//! template `ima`, whose digest is of the file's digest and of the name padded with zeroes to 256 bytes.

use std::borrow::Cow;

use super::ascii;
use crate::event_log::Bank;

/// The longest list that is read.
pub const MAX_LIST_BYTES: usize = 64 << 20;
/// The most entries that are read.
pub const MAX_ENTRIES: usize = 1 << 18;
/// The most bytes of data that one entry may carry.
pub const MAX_TEMPLATE_DATA_BYTES: usize = 256 << 10;
/// The longest line of text: what is data, mostly in hexadecimal, and what stands before it.
pub(super) const MAX_LINE_BYTES: usize = 3 * MAX_TEMPLATE_DATA_BYTES;
/// The longest template name, or format in its place.
pub const MAX_TEMPLATE_NAME_BYTES: usize = 64;
/// The most fields that an entry may have.
pub const MAX_FIELDS: usize = 16;
/// Names in the old template `ima` are hashed as this many bytes.
const OLD_NAME_BYTES: usize = 256;

/// Why bytes are not a measurement list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Longer than is read.
    #[error("the list has more than {MAX_LIST_BYTES} bytes")]
    TooLong,
    /// No entry at all.
    #[error("the list has no entry")]
    Empty,
    /// More entries than are read.
    #[error("the list has more than {MAX_ENTRIES} entries")]
    TooManyEntries,
    /// Neither in binary nor text.
    #[error("the bytes are no measurement list")]
    Format,
    /// Ends inside an entry.
    #[error("the list ends inside entry {0}")]
    Truncated(usize),
    /// A line of text that is no entry.
    #[error("line {0} is no entry")]
    Line(usize),
    /// A register that no TPM has.
    #[error("entry {0} names a register that no TPM has")]
    Register(usize),
    /// A template whose fields are not known.
    #[error("entry {0} has a template that is not known")]
    Template(usize),
    /// Data that is not what the template says, or too long.
    #[error("entry {0} has data that its template does not allow")]
    Data(usize),
}

impl ParseError {
    /// The stable code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::TooLong => "too-long",
            Self::Empty => "empty",
            Self::TooManyEntries => "too-many-entries",
            Self::Format => "format",
            Self::Truncated(_) => "truncated",
            Self::Line(_) => "line",
            Self::Register(_) => "register",
            Self::Template(_) => "template",
            Self::Data(_) => "data",
        }
    }
}

/// How a list is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// `ascii_runtime_measurements`.
    Ascii,
    /// `binary_runtime_measurements` of a little-endian machine, or in IMA's canonical format.
    LittleEndian,
    /// `binary_runtime_measurements` of a big-endian machine.
    BigEndian,
}

/// The hash of a file, or of what else was measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileDigest<'a> {
    /// The kernel's name of the algorithm: `sha1`, `sha256`, …
    pub algorithm: &'a str,
    /// Whether the digest is `fs-verity`'s and not of the file's bytes.
    pub verity: bool,
    /// The digest.
    pub digest: Cow<'a, [u8]>,
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its place in the list, from 0.
    pub index: usize,
    /// The register that it was extended into.
    pub register: u32,
    /// The digest of the data, as the list has it: zeroes for a violation.
    pub template_digest: Cow<'a, [u8]>,
    /// The bank of that digest.
    pub bank: Bank,
    /// The template's name.
    pub template: &'a str,
    /// What was hashed, as the list has it.
    pub data: Cow<'a, [u8]>,
    /// The hash of what was measured.
    pub file_digest: Option<FileDigest<'a>>,
    /// Its path, or the name of the event.
    pub path: Option<Cow<'a, [u8]>>,
    /// The signature in the file's `security.ima`.
    pub signature: Option<Cow<'a, [u8]>>,
}

impl Entry<'_> {
    /// Whether it stands for a file that changed while it was measured: nothing vouches for what such an entry says.
    #[must_use]
    pub fn is_violation(&self) -> bool {
        self.template_digest.iter().all(|byte| *byte == 0)
    }

    /// Whether the digest is of the data.
    #[must_use]
    pub fn is_consistent(&self) -> bool {
        self.bank.hash(&[&self.data]).as_bytes() == &*self.template_digest
    }
}

/// A list whose entries are well formed. It borrows the bytes; each entry is read anew when it is asked for.
#[derive(Debug, Clone)]
pub struct MeasurementList<'a> {
    bytes: &'a [u8],
    encoding: Encoding,
    bank: Bank,
    len: usize,
}

impl<'a> MeasurementList<'a> {
    /// Reads a list in binary or text, told apart by the first bytes.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        if bytes.len() > MAX_LIST_BYTES {
            return Err(ParseError::TooLong);
        }
        let Some(first) = bytes.first() else { return Err(ParseError::Empty) };
        let mut list = if first.is_ascii_digit() {
            Self { bytes, encoding: Encoding::Ascii, bank: Bank::Sha1, len: 0 }
        } else {
            Self::binary(bytes)?
        };
        let mut cursor = Cursor { list: list.clone(), at: 0, index: 0 };
        while let Some(entry) = cursor.read()? {
            if entry.index == MAX_ENTRIES {
                return Err(ParseError::TooManyEntries);
            }
            list.len = entry.index + 1;
        }
        Ok(list)
    }

    /// The byte order shows in the register, and the length of the digests in where the template's name lies.
    fn binary(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let register = *bytes.first_chunk::<4>().ok_or(ParseError::Truncated(0))?;
        let encoding = if u32::from_le_bytes(register) < crate::event_log::REGISTERS {
            Encoding::LittleEndian
        } else if u32::from_be_bytes(register) < crate::event_log::REGISTERS {
            Encoding::BigEndian
        } else {
            return Err(ParseError::Format);
        };
        let names_template = |bank: &Bank| {
            let name = || {
                let at = 4 + bank.size_bytes();
                let size_bytes = *bytes.get(at..)?.first_chunk::<4>()?;
                bytes.get(at + 4..)?.get(..encoding.u32(size_bytes) as usize)
            };
            name().is_some_and(|name| template_name(name).is_some())
        };
        let banks = [Bank::Sha1, Bank::Sha256, Bank::Sha384, Bank::Sha512];
        let bank = banks.into_iter().find(names_template).ok_or(ParseError::Format)?;
        Ok(Self { bytes, encoding, bank, len: 0 })
    }

    /// How it is written.
    #[must_use]
    pub const fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// How many entries there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Never: a list has an entry.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The entries, oldest first, each read as it is asked for.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'a>> + use<'a> {
        let mut cursor = Cursor { list: self.clone(), at: 0, index: 0 };
        std::iter::from_fn(move || cursor.read().ok().flatten())
    }
}

impl Encoding {
    pub(super) fn u32(self, bytes: [u8; 4]) -> u32 {
        match self {
            Self::BigEndian => u32::from_be_bytes(bytes),
            Self::Ascii | Self::LittleEndian => u32::from_le_bytes(bytes),
        }
    }
}

/// A template's name, or the format that stands in its place.
pub(super) fn template_name(bytes: &[u8]) -> Option<&str> {
    let graphic = !bytes.is_empty()
        && bytes.len() <= MAX_TEMPLATE_NAME_BYTES
        && bytes.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'|'));
    graphic.then(|| std::str::from_utf8(bytes).ok()).flatten()
}

/// A field of a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    /// `d-ng`: algorithm, colon, zero, digest; `d-ngv2` has a type before that.
    Digest,
    /// `n-ng`: a path and a zero.
    Name,
    /// `sig`.
    Signature,
    /// Others that text gives in hex: read over.
    Hex,
    /// Any other: read over.
    Bytes,
}

/// The fields of a template; `None` for the old `ima`, which has a form of its own, and for what is not known.
pub(super) fn fields(template: &str) -> Option<Vec<Field>> {
    let format = match template {
        "ima-ng" => "d-ng|n-ng",
        "ima-sig" => "d-ng|n-ng|sig",
        "ima-ngv2" => "d-ngv2|n-ng",
        "ima-sigv2" => "d-ngv2|n-ng|sig",
        "ima-buf" => "d-ng|n-ng|buf",
        "ima-modsig" => "d-ng|n-ng|sig|d-modsig|modsig",
        "evm-sig" => "d-ng|n-ng|evmsig|xattrnames|xattrlengths|xattrvalues|iuid|igid|imode",
        format if format.contains('|') => format,
        _ => return None,
    };
    let fields: Vec<_> = format
        .split('|')
        .map(|field| match field {
            "d-ng" | "d-ngv2" => Field::Digest,
            "n-ng" => Field::Name,
            "sig" => Field::Signature,
            "buf" | "modsig" | "d-modsig" | "evmsig" => Field::Hex,
            _ => Field::Bytes,
        })
        .collect();
    (fields.len() <= MAX_FIELDS).then_some(fields)
}

struct Cursor<'a> {
    list: MeasurementList<'a>,
    at: usize,
    index: usize,
}

impl<'a> Cursor<'a> {
    fn read(&mut self) -> Result<Option<Entry<'a>>, ParseError> {
        if self.at == self.list.bytes.len() {
            return Ok(None);
        }
        let entry = match self.list.encoding {
            Encoding::Ascii => {
                let rest = &self.list.bytes[self.at..];
                // Tools that carry text cut the end of its last line off.
                let within = &rest[..rest.len().min(MAX_LINE_BYTES + 1)];
                let end = within.iter().position(|byte| *byte == b'\n').unwrap_or(within.len());
                self.at += rest.len().min(end + 1);
                ascii::entry(self.index, &rest[..end])?
            }
            Encoding::LittleEndian | Encoding::BigEndian => self.binary()?,
        };
        if entry.register >= crate::event_log::REGISTERS {
            return Err(ParseError::Register(self.index));
        }
        self.index += 1;
        Ok(Some(entry))
    }

    fn take(&mut self, size_bytes: usize) -> Result<&'a [u8], ParseError> {
        let taken = self.list.bytes.get(self.at..).and_then(|rest| rest.get(..size_bytes));
        let taken = taken.ok_or(ParseError::Truncated(self.index))?;
        self.at += size_bytes;
        Ok(taken)
    }

    fn u32(&mut self) -> Result<u32, ParseError> {
        let bytes = self.take(4)?.first_chunk::<4>().ok_or(ParseError::Truncated(self.index))?;
        Ok(self.list.encoding.u32(*bytes))
    }

    fn binary(&mut self) -> Result<Entry<'a>, ParseError> {
        let index = self.index;
        let register = self.u32()?;
        let template_digest = self.take(self.list.bank.size_bytes())?;
        let name_bytes = self.u32()? as usize;
        if name_bytes > MAX_TEMPLATE_NAME_BYTES {
            return Err(ParseError::Template(index));
        }
        let template = template_name(self.take(name_bytes)?).ok_or(ParseError::Template(index))?;
        let mut entry = Entry {
            index,
            register,
            template_digest: template_digest.into(),
            bank: self.list.bank,
            template,
            data: Cow::Borrowed(&[]),
            file_digest: None,
            path: None,
            signature: None,
        };
        if template == "ima" {
            let digest = self.take(20)?;
            let name_bytes = self.u32()? as usize;
            if name_bytes >= OLD_NAME_BYTES {
                return Err(ParseError::Data(index));
            }
            let path = self.take(name_bytes)?;
            entry.old_template(digest.into(), path.into());
            return Ok(entry);
        }
        let data_bytes = self.u32()? as usize;
        if data_bytes > MAX_TEMPLATE_DATA_BYTES {
            return Err(ParseError::Data(index));
        }
        let data = self.take(data_bytes)?;
        entry.data = data.into();
        let mut rest = data;
        for field in fields(template).ok_or(ParseError::Template(index))? {
            let (size_bytes, after) = rest.split_first_chunk::<4>().ok_or(ParseError::Data(index))?;
            let size_bytes = self.list.encoding.u32(*size_bytes) as usize;
            let (contents, after) = after.split_at_checked(size_bytes).ok_or(ParseError::Data(index))?;
            rest = after;
            entry.set(field, contents).ok_or(ParseError::Data(index))?;
        }
        if rest.is_empty() { Ok(entry) } else { Err(ParseError::Data(index)) }
    }
}

impl<'a> Entry<'a> {
    /// The template `ima`: SHA-1 and a name, hashed without lengths.
    pub(super) fn old_template(&mut self, digest: Cow<'a, [u8]>, path: Cow<'a, [u8]>) {
        let mut data = digest.to_vec();
        data.extend_from_slice(&path);
        data.resize(digest.len() + OLD_NAME_BYTES, 0);
        self.data = data.into();
        self.file_digest = Some(FileDigest { algorithm: "sha1", verity: false, digest });
        self.path = Some(path);
    }

    fn set(&mut self, field: Field, contents: &'a [u8]) -> Option<()> {
        match field {
            Field::Digest => self.file_digest = Some(file_digest(contents)?),
            Field::Name => {
                let path = contents.strip_suffix(b"\0")?;
                if path.contains(&0) {
                    return None;
                }
                self.path = Some(path.into());
            }
            Field::Signature if !contents.is_empty() => self.signature = Some(contents.into()),
            Field::Signature | Field::Hex | Field::Bytes => {}
        }
        Some(())
    }
}

/// `sha256:` and a zero and the digest, with `ima:` or `verity:` before it in the second version.
fn file_digest(contents: &[u8]) -> Option<FileDigest<'_>> {
    let colon = contents.windows(2).take(32).position(|pair| pair == b":\0")?;
    let algorithm = std::str::from_utf8(&contents[..colon]).ok()?;
    let digest = &contents[colon + 2..];
    let (verity, algorithm) = match algorithm.split_once(':') {
        Some(("verity", algorithm)) => (true, algorithm),
        Some(("ima", algorithm)) => (false, algorithm),
        Some(_) => return None,
        None => (false, algorithm),
    };
    let known = Bank::from_name(algorithm).is_none_or(|bank| bank.size_bytes() == digest.len());
    (known && digest.len() <= crate::event_log::MAX_DIGEST_BYTES).then(|| FileDigest {
        algorithm,
        verity,
        digest: digest.into(),
    })
}
