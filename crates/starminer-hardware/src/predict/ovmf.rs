//! What a firmware image says about its own launch: OVMF's table of GUIDed entries, and the SEV and TDX metadata that it points to.
//!
//! Sources: `OvmfPkg/ResetVector` of edk2 (`Ia16/ResetVectorVtf0.asm`, `X64/OvmfSevMetadata.asm`, `X64/IntelTdxMetadata.asm`); Intel TDX Virtual
//! Firmware Design Guide, section 11. Only addresses are read here; what a launch makes of them is in `snp` and `tdx`.

use super::{PAGE_BYTES, u16_at, u32_at, u64_at};
use crate::event_log::Guid;

/// Largest firmware image: four times what any that is known has.
pub const MAX_FIRMWARE_BYTES: usize = 64 << 20;
/// Most entries in the table.
const MAX_ENTRIES: usize = 64;
/// Most sections of metadata.
const MAX_SECTIONS: usize = 64;
/// Most pages that all sections together name: 256 MiB. A few bytes of metadata may otherwise ask for hours of hashing.
const MAX_SECTION_PAGES: u64 = 1 << 16;
/// The table ends this far before the end of the image: behind it stands the reset vector.
const RESET_VECTOR_BYTES: usize = 32;
/// Length and GUID of an entry.
const ENTRY_HEADER_BYTES: usize = 18;

const TABLE_FOOTER: Guid = Guid::new(0x96b5_82de, 0x1fb2, 0x45f7, [0xba, 0xea, 0xa3, 0x66, 0xc5, 0x5a, 0x08, 0x2d]);
const SEV_HASH_TABLE: Guid = Guid::new(0x7255_371f, 0x3a3b, 0x4b04, [0x92, 0x7b, 0x1d, 0xa6, 0xef, 0xa8, 0xd4, 0x54]);
const SEV_ES_RESET: Guid = Guid::new(0x00f7_71de, 0x1a7e, 0x4fcb, [0x89, 0x0e, 0x68, 0xc7, 0x7e, 0x2f, 0xb4, 0x4e]);
const SEV_METADATA: Guid = Guid::new(0xdc88_6566, 0x984a, 0x4798, [0xa7, 0x5e, 0x55, 0x85, 0xa7, 0xbf, 0x67, 0xcc]);
const TDX_METADATA: Guid = Guid::new(0xe47a_6535, 0x984a, 0x4798, [0x86, 0x5e, 0x46, 0x85, 0xa7, 0xbf, 0x8e, 0xc2]);

/// Why an image cannot be measured as it would be launched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FirmwareError {
    /// Empty, longer than [`MAX_FIRMWARE_BYTES`], or no whole number of pages.
    #[error("a firmware image is a whole number of 4096-byte pages, at most {} MiB", MAX_FIRMWARE_BYTES >> 20)]
    Length,
    /// Without the table at its end: no OVMF for confidential guests.
    #[error("the image does not end in OVMF's table of GUIDed entries")]
    NoTable,
    /// The table is malformed, or holds an entry twice.
    #[error("OVMF's table of GUIDed entries is malformed")]
    Table,
    /// No SEV metadata, or no reset block: SEV-SNP cannot launch it.
    #[error("the image has no {0}")]
    Missing(&'static str),
    /// Metadata is malformed: out of the image, of another version, unaligned, or asks for more than is measured here.
    #[error("the {0} metadata of the image is malformed, or asks for too much memory")]
    Metadata(&'static str),
    /// A section is of a kind that is not known, so that how it is measured is not known either.
    #[error("the {which} metadata has a section of the unknown kind {kind}")]
    Section {
        /// Whose metadata.
        which: &'static str,
        /// The kind.
        kind: u32,
    },
}

impl FirmwareError {
    /// A stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Length => "firmware.length",
            Self::NoTable => "firmware.no-table",
            Self::Table => "firmware.table",
            Self::Missing(_) => "firmware.missing",
            Self::Metadata(_) => "firmware.metadata",
            Self::Section { .. } => "firmware.section",
        }
    }
}

/// What a section of SEV metadata is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SevSectionKind {
    /// Memory that the firmware uses before it can accept any.
    Memory,
    /// The page for the platform's secrets.
    Secrets,
    /// The page for CPUID values.
    Cpuid,
    /// The calling area of an SVSM.
    SvsmCallingArea,
    /// The page for the hashes of kernel, initrd and command line.
    KernelHashes,
}

/// One section of SEV metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SevSection {
    /// What it is for.
    pub kind: SevSectionKind,
    /// Its guest physical address, of a page.
    pub address: u64,
    /// Its length, in whole pages.
    pub size_bytes: u64,
}

/// What a section of TDX metadata is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TdxSectionKind {
    /// Code of the firmware.
    BootVolume,
    /// Its variables.
    ConfigurationVolume,
    /// The list of memory that the host hands over.
    HandOffBlock,
    /// Stack and heap.
    TemporaryMemory,
    /// Memory that stays.
    PermanentMemory,
    /// A kernel in the image.
    Payload,
    /// Its parameters.
    PayloadParameters,
}

/// One section of TDX metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TdxSection<'a> {
    /// What it is for.
    pub kind: TdxSectionKind,
    /// Its guest physical address, of a page.
    pub address: u64,
    /// How many pages it has.
    pub pages: u64,
    /// What it holds at first; zeroes follow up to its end.
    pub contents: &'a [u8],
    /// Whether its contents are measured (`MR.EXTEND`).
    pub measured: bool,
    /// Whether the guest takes it in later, so that its pages are not added before launch (`PAGE.AUG`).
    pub accepted_later: bool,
}

/// A firmware image with OVMF's table.
#[derive(Debug, Clone)]
pub struct Firmware<'a> {
    bytes: &'a [u8],
    entries: Vec<(Guid, &'a [u8])>,
}

impl<'a> Firmware<'a> {
    /// Reads the table at the end of the image.
    ///
    /// # Errors
    /// [`FirmwareError::Length`], [`FirmwareError::NoTable`], [`FirmwareError::Table`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, FirmwareError> {
        if bytes.is_empty() || bytes.len() > MAX_FIRMWARE_BYTES || !bytes.len().is_multiple_of(PAGE_BYTES) {
            return Err(FirmwareError::Length);
        }
        let table_end = bytes.len() - RESET_VECTOR_BYTES;
        let (table, guid, length) = split_entry_header(&bytes[..table_end]).ok_or(FirmwareError::NoTable)?;
        if guid != TABLE_FOOTER {
            return Err(FirmwareError::NoTable);
        }
        // The footer's length counts the whole table, its own header included.
        let table_bytes = length.checked_sub(ENTRY_HEADER_BYTES).ok_or(FirmwareError::Table)?;
        let mut rest = &table[table.len().checked_sub(table_bytes).ok_or(FirmwareError::Table)?..];
        let mut entries: Vec<(Guid, &[u8])> = Vec::new();
        while !rest.is_empty() {
            let (before, guid, length) = split_entry_header(rest).ok_or(FirmwareError::Table)?;
            let data_bytes = length.checked_sub(ENTRY_HEADER_BYTES).ok_or(FirmwareError::Table)?;
            let data_at = before.len().checked_sub(data_bytes).ok_or(FirmwareError::Table)?;
            if entries.len() == MAX_ENTRIES || entries.iter().any(|(other, _)| *other == guid) {
                return Err(FirmwareError::Table);
            }
            entries.push((guid, &before[data_at..]));
            rest = &before[..data_at];
        }
        Ok(Self { bytes, entries })
    }

    /// The image.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Where it lies in the guest: it ends at 4 GiB.
    #[must_use]
    pub fn address(&self) -> u64 {
        (1 << 32) - self.bytes.len() as u64
    }

    fn entry(&self, guid: Guid) -> Option<&'a [u8]> {
        self.entries.iter().find(|(other, _)| *other == guid).map(|(_, data)| *data)
    }

    /// Where processors other than the first start under SEV-ES and SEV-SNP.
    ///
    /// # Errors
    /// [`FirmwareError::Missing`].
    pub fn reset_address(&self) -> Result<u32, FirmwareError> {
        let missing = FirmwareError::Missing("SEV-ES reset block");
        self.entry(SEV_ES_RESET).and_then(|data| u32_at(data, 0)).ok_or(missing)
    }

    /// Where the table of kernel hashes goes in the guest; `None` where the image takes none.
    #[must_use]
    pub fn kernel_hashes_address(&self) -> Option<u32> {
        self.entry(SEV_HASH_TABLE).and_then(|data| u32_at(data, 0)).filter(|address| *address != 0)
    }

    /// The sections that SEV metadata names, in order.
    ///
    /// # Errors
    /// [`FirmwareError::Missing`], [`FirmwareError::Metadata`], [`FirmwareError::Section`].
    pub fn sev_sections(&self) -> Result<Vec<SevSection>, FirmwareError> {
        const HEADER_BYTES: usize = 16;
        const SECTION_BYTES: usize = 12;
        let malformed = FirmwareError::Metadata("SEV");
        let entry = self.entry(SEV_METADATA).ok_or(FirmwareError::Missing("SEV metadata"))?;
        let metadata = self.pointed_to(entry).ok_or(malformed)?;
        let (size, count) = metadata_header(metadata, *b"ASEV").ok_or(malformed)?;
        if size != HEADER_BYTES + count * SECTION_BYTES {
            return Err(malformed);
        }
        let mut pages = 0;
        let list = metadata.get(HEADER_BYTES..size).ok_or(malformed)?;
        list.chunks_exact(SECTION_BYTES)
            .map(|section| {
                let field = |at| u32_at(section, at).map(u64::from).ok_or(malformed);
                let (address, size_bytes, kind) = (field(0)?, field(4)?, u32_at(section, 8).ok_or(malformed)?);
                let kind = match kind {
                    1 => SevSectionKind::Memory,
                    2 => SevSectionKind::Secrets,
                    3 => SevSectionKind::Cpuid,
                    4 => SevSectionKind::SvsmCallingArea,
                    0x10 => SevSectionKind::KernelHashes,
                    kind => return Err(FirmwareError::Section { which: "SEV", kind }),
                };
                let one_page =
                    matches!(kind, SevSectionKind::Secrets | SevSectionKind::Cpuid | SevSectionKind::KernelHashes);
                if one_page && size_bytes != PAGE_BYTES as u64 {
                    return Err(malformed);
                }
                count_pages(&mut pages, address, size_bytes).ok_or(malformed)?;
                Ok(SevSection { kind, address, size_bytes })
            })
            .collect()
    }

    /// The sections that TDX metadata names, in order.
    ///
    /// # Errors
    /// [`FirmwareError::Missing`], [`FirmwareError::Metadata`], [`FirmwareError::Section`].
    pub fn tdx_sections(&self) -> Result<Vec<TdxSection<'a>>, FirmwareError> {
        const HEADER_BYTES: usize = 16;
        const SECTION_BYTES: usize = 32;
        const MEASURED: u32 = 1;
        const ACCEPTED_LATER: u32 = 2;
        let malformed = FirmwareError::Metadata("TDX");
        let entry = self.entry(TDX_METADATA).ok_or(FirmwareError::Missing("TDX metadata"))?;
        let metadata = self.pointed_to(entry).ok_or(malformed)?;
        let (size, count) = metadata_header(metadata, *b"TDVF").ok_or(malformed)?;
        if size != HEADER_BYTES + count * SECTION_BYTES {
            return Err(malformed);
        }
        let mut pages = 0;
        let list = metadata.get(HEADER_BYTES..size).ok_or(malformed)?;
        list.chunks_exact(SECTION_BYTES)
            .map(|section| {
                let word = |at| u32_at(section, at).ok_or(malformed);
                let long = |at| u64_at(section, at).ok_or(malformed);
                let (at, raw_bytes) = (word(0)? as usize, word(4)? as usize);
                let (address, size_bytes, kind, attributes) = (long(8)?, long(16)?, word(24)?, word(28)?);
                let kind = match kind {
                    0 => TdxSectionKind::BootVolume,
                    1 => TdxSectionKind::ConfigurationVolume,
                    2 => TdxSectionKind::HandOffBlock,
                    3 => TdxSectionKind::TemporaryMemory,
                    4 => TdxSectionKind::PermanentMemory,
                    5 => TdxSectionKind::Payload,
                    6 => TdxSectionKind::PayloadParameters,
                    kind => return Err(FirmwareError::Section { which: "TDX", kind }),
                };
                count_pages(&mut pages, address, size_bytes).ok_or(malformed)?;
                let contents = at.checked_add(raw_bytes).and_then(|end| self.bytes.get(at..end)).ok_or(malformed)?;
                let (measured, accepted_later) = (attributes & MEASURED != 0, attributes & ACCEPTED_LATER != 0);
                // What is measured has to be there, and memory that is not there yet cannot be.
                let contradicts = measured && (accepted_later || raw_bytes as u64 != size_bytes);
                if attributes & !(MEASURED | ACCEPTED_LATER) != 0 || raw_bytes as u64 > size_bytes || contradicts {
                    return Err(malformed);
                }
                let pages = size_bytes / PAGE_BYTES as u64;
                Ok(TdxSection { kind, address, pages, contents, measured, accepted_later })
            })
            .collect()
    }

    /// What lies as far before the end of the image as the entry says.
    fn pointed_to(&self, entry: &[u8]) -> Option<&'a [u8]> {
        let distance = usize::try_from(u32_at(entry, 0)?).ok()?;
        self.bytes.get(self.bytes.len().checked_sub(distance)?..)
    }
}

/// What stands before an entry's header at the end of `bytes`, its GUID, and its length.
fn split_entry_header(bytes: &[u8]) -> Option<(&[u8], Guid, usize)> {
    let (before, header) = bytes.split_last_chunk::<ENTRY_HEADER_BYTES>()?;
    let guid = Guid(*header.last_chunk()?);
    Some((before, guid, usize::from(u16_at(header, 0)?)))
}

/// Length and number of sections; both kinds of metadata begin alike: signature, length, version, number.
fn metadata_header(metadata: &[u8], signature: [u8; 4]) -> Option<(usize, usize)> {
    let size = usize::try_from(u32_at(metadata, 4)?).ok()?;
    let count = usize::try_from(u32_at(metadata, 12)?).ok()?;
    let known = metadata.starts_with(&signature) && u32_at(metadata, 8)? == 1 && count <= MAX_SECTIONS;
    known.then_some((size, count))
}

/// Adds a section's pages to those before; `None` where it is not of whole pages, or too much.
fn count_pages(pages: &mut u64, address: u64, size_bytes: u64) -> Option<()> {
    let page = PAGE_BYTES as u64;
    if !address.is_multiple_of(page) || !size_bytes.is_multiple_of(page) || address.checked_add(size_bytes).is_none() {
        return None;
    }
    *pages = pages.checked_add(size_bytes / page).filter(|pages| *pages <= MAX_SECTION_PAGES)?;
    Some(())
}
