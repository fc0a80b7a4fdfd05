//! The directory of a checkpoint as bytes: openings, files, and where their pages are (`specs/vault.md`, section 4.4).
//!
//! It is written and read page by page, never whole. What is read was authentic, and is checked all the same: an error
//! here is a fault of the writer, and must not become a second one.

use std::collections::BTreeMap;

use crate::keys::{SALT_LEN, TAG_LEN};
use crate::scratch::error::ScratchError;
use crate::scratch::slots::{FIRST_SLOT, Slots};
use crate::scratch::superblock::DIRECTORY_PAGES_MAX;
use crate::scratch::table::{File, Page, PageRef};
use crate::scratch::{FILE_BYTES_MAX, FILES_MAX, FileId, OPENINGS_MAX, PAGE_BYTES, PAGES_MAX};

/// Bytes of one page's entry: number, slot, generation, tag.
const PAGE_ENTRY_LEN: usize = 36;
const FILE_ENTRY_LEN: usize = 24;
const OPENING_ENTRY_LEN: usize = 40;

// Whatever the bounds admit fits into the pages that a root can list.
const _: () = assert!(
    4 + OPENINGS_MAX * OPENING_ENTRY_LEN + 12 + FILES_MAX * FILE_ENTRY_LEN + PAGES_MAX as usize * PAGE_ENTRY_LEN
        <= DIRECTORY_PAGES_MAX * PAGE_BYTES
);

/// An opening of which pages are in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OpeningRecord {
    /// Its pages have this generation or a later one, up to the next opening's.
    pub(crate) first_generation: u64,
    pub(crate) salt: [u8; SALT_LEN],
}

/// What a directory says.
#[derive(Debug)]
pub(crate) struct Directory {
    /// In the order of their generations; the last one made the checkpoint.
    pub(crate) openings: Vec<OpeningRecord>,
    pub(crate) next_file: u64,
    pub(crate) files: BTreeMap<FileId, File>,
}

/// Where directory bytes go to, in order.
pub(crate) trait DirectorySink {
    fn put(&mut self, bytes: &[u8]) -> Result<(), ScratchError>;
}

/// Where directory bytes come from, in order.
pub(crate) trait DirectorySource {
    /// Fills `buf` or fails; the directory ends when its length says so.
    fn exact(&mut self, buf: &mut [u8]) -> Result<(), ScratchError>;
}

/// Writes a directory whose pages are all stored.
pub(crate) fn encode(
    openings: &[OpeningRecord],
    next_file: u64,
    files: &BTreeMap<FileId, File>,
    sink: &mut impl DirectorySink,
) -> Result<(), ScratchError> {
    sink.put(&(openings.len() as u32).to_be_bytes())?;
    for opening in openings {
        sink.put(&opening.first_generation.to_be_bytes())?;
        sink.put(&opening.salt)?;
    }
    sink.put(&next_file.to_be_bytes())?;
    sink.put(&(files.len() as u32).to_be_bytes())?;
    for (id, file) in files {
        sink.put(&id.0.to_be_bytes())?;
        sink.put(&file.len.to_be_bytes())?;
        sink.put(&file.table.held().to_be_bytes())?;
        for (number, page) in file.table.stored() {
            let mut entry = [0; PAGE_ENTRY_LEN];
            entry[..8].copy_from_slice(&number.to_be_bytes());
            entry[8..12].copy_from_slice(&page.slot.to_be_bytes());
            entry[12..20].copy_from_slice(&page.generation.to_be_bytes());
            entry[20..].copy_from_slice(&page.tag);
            sink.put(&entry)?;
        }
    }
    Ok(())
}

/// What may be in a directory: slots below `slots_end`, and generations below `generation`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) slots_end: u64,
    pub(crate) generation: u64,
}

/// Reads a directory of `len` bytes, marking the slots of its pages.
pub(crate) fn parse(
    source: &mut impl DirectorySource,
    len: u64,
    bounds: Bounds,
    slots: &mut Slots,
) -> Result<Directory, ScratchError> {
    let mut reader = Reader { source, rest: len };
    let openings = reader.openings(bounds)?;
    let oldest = openings.first().map_or(0, |first| first.first_generation);
    let next_file = reader.u64()?;
    let files_count = reader.u32()? as usize;
    check(files_count <= FILES_MAX, "too many files")?;
    let mut files = BTreeMap::new();
    let mut pages_total = 0_u64;
    for _ in 0..files_count {
        let id = reader.u64()?;
        let after = files.last_key_value().map_or(0, |(last, _): (&FileId, _)| last.0);
        check(id > after && id < next_file, "the order of its files")?;
        let mut file = File { len: reader.u64()?, ..File::default() };
        check(file.len <= FILE_BYTES_MAX, "the length of a file")?;
        let pages = reader.u64()?;
        pages_total = pages_total.saturating_add(pages);
        check(pages_total <= PAGES_MAX, "too many pages")?;
        let mut next_page = 0;
        for _ in 0..pages {
            let (number, page) = reader.page()?;
            check(number >= next_page, "the order of a file's pages")?;
            check(number < file.len.div_ceil(PAGE_BYTES as u64), "a page behind the end of its file")?;
            check(page.generation >= oldest && page.generation < bounds.generation, "the generation of a page")?;
            claim(slots, page.slot, bounds)?;
            file.table.put(number, Page::Stored(page));
            next_page = number + 1;
        }
        files.insert(FileId(id), file);
    }
    check(reader.rest == 0, "bytes behind its end")?;
    Ok(Directory { openings, next_file, files })
}

/// Parses `bytes` as a directory of a store of a million slots, for fuzzing: it must refuse or accept and do nothing
/// else. Returns how many files there are.
///
/// # Errors [`ScratchError::Malformed`], [`ScratchError::Truncated`].
pub fn parse_directory(mut bytes: &[u8]) -> Result<usize, ScratchError> {
    let bounds = Bounds { slots_end: 1 << 20, generation: u64::MAX };
    let len = bytes.len() as u64;
    parse(&mut bytes, len, bounds, &mut Slots::default()).map(|directory| directory.files.len())
}

/// Marks the slot of a page that a checkpoint names.
pub(crate) fn claim(slots: &mut Slots, slot: u32, bounds: Bounds) -> Result<(), ScratchError> {
    if u64::from(slot) >= bounds.slots_end {
        return Err(ScratchError::Truncated);
    }
    check(slot >= FIRST_SLOT && slots.restore(slot), "a slot taken twice")
}

impl DirectorySource for &[u8] {
    fn exact(&mut self, buf: &mut [u8]) -> Result<(), ScratchError> {
        let what = "it ends early";
        let (head, rest) = self.split_at_checked(buf.len()).ok_or(ScratchError::Malformed { what })?;
        buf.copy_from_slice(head);
        *self = rest;
        Ok(())
    }
}

struct Reader<'a, S> {
    source: &'a mut S,
    rest: u64,
}

impl<S: DirectorySource> Reader<'_, S> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], ScratchError> {
        let what = "it ends early";
        self.rest = self.rest.checked_sub(N as u64).ok_or(ScratchError::Malformed { what })?;
        let mut bytes = [0; N];
        self.source.exact(&mut bytes)?;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, ScratchError> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, ScratchError> {
        self.array().map(u64::from_be_bytes)
    }

    fn openings(&mut self, bounds: Bounds) -> Result<Vec<OpeningRecord>, ScratchError> {
        let count = self.u32()? as usize;
        check((1..=OPENINGS_MAX).contains(&count), "the number of its openings")?;
        let mut openings: Vec<OpeningRecord> = Vec::with_capacity(count);
        for _ in 0..count {
            let opening = OpeningRecord { first_generation: self.u64()?, salt: self.array()? };
            let after = openings.last().map_or(0, |last| last.first_generation);
            check(
                opening.first_generation > after && opening.first_generation < bounds.generation,
                "the order of its openings",
            )?;
            check(openings.iter().all(|other| other.salt != opening.salt), "a salt used twice")?;
            openings.push(opening);
        }
        Ok(openings)
    }

    fn page(&mut self) -> Result<(u64, PageRef), ScratchError> {
        let number = self.u64()?;
        let page = PageRef { slot: self.u32()?, generation: self.u64()?, tag: self.array::<TAG_LEN>()? };
        Ok((number, page))
    }
}

fn check(holds: bool, what: &'static str) -> Result<(), ScratchError> {
    if holds { Ok(()) } else { Err(ScratchError::Malformed { what }) }
}
