//! PE images as firmware sees them: the Authenticode digest by which it measures a boot program, and sections by name.
//!
//! Source: Microsoft PE format; Windows Authenticode Portable Executable Signature Format, "Calculating the PE Image Hash"; where these leave room, as edk2's
//! `MeasurePeImageAndExtend` does it. Signatures are not verified here.

use super::{u16_at, u32_at};
use crate::event_log::{Bank, Digest};

/// Largest image that is read.
pub const MAX_IMAGE_BYTES: usize = 1 << 30;
/// Most sections: what Windows takes.
const MAX_SECTIONS: usize = 96;
const SECTION_HEADER_BYTES: usize = 40;
/// The data directory's entry for the table of certificates.
const CERTIFICATES: u32 = 4;

/// Why a file is no image that firmware would start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PeError {
    /// Longer than [`MAX_IMAGE_BYTES`].
    #[error("a PE image has at most {} MiB", MAX_IMAGE_BYTES >> 20)]
    TooLarge,
    /// No PE image: headers are missing or end too early.
    #[error("not a PE image: {0}")]
    Malformed(&'static str),
    /// Sections lie outside of the file or over each other.
    #[error("the sections of the PE image lie outside of the file, or over each other")]
    Sections,
    /// The table of certificates is not at the end of the file.
    #[error("the certificates of the PE image are not at the end of the file")]
    Certificates,
}

impl PeError {
    /// A stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLarge => "pe.too-large",
            Self::Malformed(_) => "pe.malformed",
            Self::Sections => "pe.sections",
            Self::Certificates => "pe.certificates",
        }
    }
}

/// One section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeSection<'a> {
    name: [u8; 8],
    /// Where it lies in the file.
    at: usize,
    /// What the file has of it.
    raw: &'a [u8],
    /// Its length in memory.
    virtual_bytes: usize,
}

impl<'a> PeSection<'a> {
    /// Its name, without the zeroes behind it.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        let length = self.name.iter().position(|b| *b == 0).unwrap_or(self.name.len());
        &self.name[..length]
    }

    /// What it holds in memory, as far as the file has it: the file's padding is left out, memory's zeroes are not put in.
    #[must_use]
    pub fn contents(&self) -> &'a [u8] {
        &self.raw[..self.raw.len().min(self.virtual_bytes)]
    }

    /// How many zeroes follow in memory.
    #[must_use]
    pub fn zeroes(&self) -> usize {
        self.virtual_bytes - self.contents().len()
    }
}

/// A PE image.
#[derive(Debug, Clone)]
pub struct PeImage<'a> {
    bytes: &'a [u8],
    header_bytes: usize,
    checksum_at: usize,
    /// Where the directory's entry for certificates is, if it has one.
    certificates_at: Option<usize>,
    certificates_bytes: usize,
    /// In the order of the section table.
    sections: Vec<PeSection<'a>>,
}

impl<'a> PeImage<'a> {
    /// Reads headers and section table.
    ///
    /// # Errors
    /// Every variant of [`PeError`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, PeError> {
        if bytes.len() > MAX_IMAGE_BYTES {
            return Err(PeError::TooLarge);
        }
        let ends = PeError::Malformed("it ends within its headers");
        let word = |at: usize| u32_at(bytes, at).map(|value| value as usize).ok_or(ends);
        let half = |at: usize| u16_at(bytes, at).map(usize::from).ok_or(ends);
        if !bytes.starts_with(b"MZ") {
            return Err(PeError::Malformed("it does not begin with MZ"));
        }
        let coff = word(0x3c)?;
        if bytes.get(coff..).is_none_or(|rest| !rest.starts_with(b"PE\0\0")) {
            return Err(PeError::Malformed("it has no PE header"));
        }
        // Offsets are below 2^33 from here on, and `usize` has 64 bits on every target.
        let (section_count, optional_bytes, optional) = (half(coff + 6)?, half(coff + 20)?, coff + 24);
        let directory = match half(optional)? {
            0x10b => optional + 96,
            0x20b => optional + 112,
            _ => return Err(PeError::Malformed("its optional header is of an unknown kind")),
        };
        let (header_bytes, checksum_at) = (word(optional + 60)?, optional + 64);
        let directories = word(directory - 4)?;
        let section_table = optional + optional_bytes;
        let table_end = section_table + section_count * SECTION_HEADER_BYTES;
        let entry = directory + CERTIFICATES as usize * 8;
        let certificates_at = (directories > CERTIFICATES as usize).then_some(entry);
        let directory_end = certificates_at.map_or(directory, |at| at + 8);
        if section_count > MAX_SECTIONS {
            return Err(PeError::Malformed("it has more than 96 sections"));
        }
        if directory_end > section_table || table_end > header_bytes || header_bytes > bytes.len() {
            return Err(PeError::Malformed("its headers contradict each other"));
        }
        let (certificates_offset, certificates_bytes) = match certificates_at {
            Some(at) => (word(at)?, word(at + 4)?),
            None => (0, 0),
        };
        if certificates_bytes > 0 && certificates_offset.checked_add(certificates_bytes) != Some(bytes.len()) {
            return Err(PeError::Certificates);
        }
        let mut sections = Vec::with_capacity(section_count);
        for header in bytes[section_table..table_end].chunks_exact(SECTION_HEADER_BYTES) {
            let field = |at: usize| u32_at(header, at).map(|value| value as usize).ok_or(ends);
            let (virtual_bytes, raw_bytes, at) = (field(8)?, field(16)?, field(20)?);
            let raw = if raw_bytes == 0 { Some(&[][..]) } else { bytes.get(at..at + raw_bytes) };
            let name = *header.first_chunk().ok_or(ends)?;
            sections.push(PeSection { name, at, raw: raw.ok_or(PeError::Sections)?, virtual_bytes });
        }
        let image = Self { bytes, header_bytes, checksum_at, certificates_at, certificates_bytes, sections };
        // Overlaps would be measured twice, and read as two things: nobody has a use for that but an attacker.
        let mut end = header_bytes;
        for section in image.in_file_order() {
            if section.at < end {
                return Err(PeError::Sections);
            }
            end = section.at + section.raw.len();
        }
        if end > bytes.len() - certificates_bytes {
            return Err(PeError::Certificates);
        }
        Ok(image)
    }

    /// The sections that the file has anything of, by their place in it.
    fn in_file_order(&self) -> Vec<&PeSection<'a>> {
        let mut sections: Vec<_> = self.sections.iter().filter(|section| !section.raw.is_empty()).collect();
        sections.sort_by_key(|section| section.at);
        sections
    }

    /// The sections, in the order of their table.
    #[must_use]
    pub fn sections(&self) -> &[PeSection<'a>] {
        &self.sections
    }

    /// The table of certificates, which holds the signatures; empty where the image is not signed.
    #[must_use]
    pub fn certificates(&self) -> &'a [u8] {
        &self.bytes[self.bytes.len() - self.certificates_bytes..]
    }

    /// The digest by which firmware measures the image: all of it but its checksum, the place of its certificates, and these.
    #[must_use]
    pub fn authenticode(&self, bank: Bank) -> Digest {
        let after_checksum = self.checksum_at + 4;
        let headers = self.bytes;
        let mut parts: Vec<&[u8]> = vec![&headers[..self.checksum_at]];
        match self.certificates_at {
            Some(at) => parts.extend([&headers[after_checksum..at], &headers[at + 8..self.header_bytes]]),
            None => parts.push(&headers[after_checksum..self.header_bytes]),
        }
        let mut hashed = self.header_bytes;
        for section in self.in_file_order() {
            parts.push(section.raw);
            hashed += section.raw.len();
        }
        // Firmware goes on from as many bytes as it has hashed, which is not the end of the last section where there are gaps.
        parts.extend(self.bytes.get(hashed..self.bytes.len() - self.certificates_bytes));
        bank.hash(&parts)
    }
}
