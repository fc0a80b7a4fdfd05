//! What needs a look inside: wear of keys, hostile directories, and the wiping of pages.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Mutex;

use proptest::prelude::*;

use crate::at::{ReadAt, WriteAt};
use crate::keys::{Salt, TaskSecret};
use crate::scratch::cache::Freshness;
use crate::scratch::directory::{self, Bounds, DirectorySink, OpeningRecord};
use crate::scratch::slots::Slots;
use crate::scratch::superblock::HEADER_LEN;
use crate::scratch::table::{File, Page, PageRef, PageTable};
use crate::scratch::{
    FileId, Opening, PAGE_BYTES, Scratch, ScratchContext, ScratchError, ScratchOptions, Sequence, Superblock,
    WRITES_PER_KEY_MAX, parse_directory,
};

type Memory = Mutex<Vec<u8>>;

const CONTEXT: ScratchContext<'static> = ScratchContext { task: [7; 16], name: "work" };

fn secret() -> TaskSecret {
    TaskSecret::from_bytes([42; 32])
}

fn opening(attempt: u8) -> Opening {
    Opening { salt: Salt::from_random([attempt; 32]), attempt: attempt.into() }
}

fn create() -> Scratch<Memory> {
    let store = Memory::default();
    let options = ScratchOptions::default();
    Scratch::create(store, &secret(), &CONTEXT, opening(1), options).unwrap()
}

#[test]
fn a_key_is_refused_before_it_is_worn_out_and_reopening_gives_a_new_one() {
    let mut scratch = create();
    let file = scratch.create_file().unwrap();
    scratch.write(file, 0, b"kept").unwrap();
    scratch.checkpoint().unwrap();
    // Room for one page, its directory page and the root.
    scratch.sealing.skip_to(WRITES_PER_KEY_MAX - 2);
    scratch.write(file, 0, b"last").unwrap();
    scratch.checkpoint().unwrap();
    scratch.write(file, 0, b"more").unwrap();
    let worn = scratch.checkpoint().unwrap_err();
    assert_eq!(worn.code(), "vault.scratch.key-exhausted");
    let mut buf = [0; 4];
    scratch.read(file, 0, &mut buf).unwrap();
    assert_eq!(&buf, b"more");
    let mut scratch = Scratch::reopen(
        scratch.into_store(),
        &secret(),
        &CONTEXT,
        opening(2),
        Sequence::default(),
        ScratchOptions::default(),
    )
    .unwrap();
    scratch.read(file, 0, &mut buf).unwrap();
    assert_eq!(&buf, b"last");
    scratch.write(file, 0, b"anew").unwrap();
    scratch.checkpoint().unwrap();
}

#[test]
fn sequences_end_before_they_run_into_the_next_attempt() {
    let mut scratch = create();
    scratch.sequence = Sequence((1 << 32) + u64::from(u32::MAX) - 1);
    assert_eq!(scratch.checkpoint().unwrap().attempt(), 1);
    let ended = scratch.checkpoint().unwrap_err();
    assert_eq!(ended.code(), "vault.scratch.sequence-exhausted");
}

#[test]
fn pages_are_wiped_when_they_leave_the_cache_for_good() {
    let options = ScratchOptions { cache_pages: 3, ..ScratchOptions::default() };
    let store = Memory::default();
    let mut scratch = Scratch::create(store, &secret(), &CONTEXT, opening(1), options).unwrap();
    let file = scratch.create_file().unwrap();
    scratch.write(file, 0, &[0xaa; 3 * PAGE_BYTES]).unwrap();
    scratch.set_len(file, PAGE_BYTES as u64).unwrap();
    let plain = |scratch: &Scratch<Memory>| -> usize {
        (0..3)
            .map(|place| scratch.cache.frame(place).plain.as_slice())
            .map(|plain| plain.iter().filter(|byte| **byte == 0xaa).count())
            .sum()
    };
    assert_eq!(plain(&scratch), PAGE_BYTES);
    scratch.remove(file).unwrap();
    assert_eq!(plain(&scratch), 0);

    // A page that turns out not to be authentic is gone as well.
    let file = scratch.create_file().unwrap();
    scratch.write(file, 0, &[0xaa; PAGE_BYTES]).unwrap();
    scratch.checkpoint().unwrap();
    scratch.cache.forget(file, 0);
    let Page::Stored(page) = scratch.files[&file].table.page(0) else {
        panic!("a checkpoint stores every page");
    };
    let at = u64::from(page.slot) * PAGE_BYTES as u64;
    scratch.store.write_all_at(&[1], at + 9).unwrap();
    assert!(scratch.read(file, 3, &mut [0; 8]).is_err());
    assert_eq!(plain(&scratch), 0);
    assert!((0..3).all(|place| scratch.cache.frame(place).freshness == Freshness::Clean));
}

#[test]
fn a_superblock_is_parsed_strictly() {
    let mut scratch = create();
    scratch.checkpoint().unwrap();
    let mut block = vec![0; PAGE_BYTES];
    scratch.store.read_full_at(&mut block, 0).unwrap();
    assert!(Superblock::parse(&block).is_ok());
    let check = |at: usize, value: u8, code: &str| {
        let mut altered = block.clone();
        altered[at] = value;
        assert_eq!(Superblock::parse(&altered).unwrap_err().code(), code, "byte {at}");
    };
    check(0, b'X', "vault.scratch.no-checkpoint");
    check(8, 1, "vault.scratch.version");
    check(10, 15, "vault.scratch.superblock");
    for reserved in 11..16 {
        check(reserved, 1, "vault.scratch.superblock");
    }
    check(96, 1, "vault.scratch.superblock");
    for len in 0..HEADER_LEN {
        let refused = Superblock::parse(&block[..len]).unwrap_err();
        assert_eq!(refused.code(), "vault.scratch.no-checkpoint");
    }
}

impl DirectorySink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), ScratchError> {
        self.extend_from_slice(bytes);
        Ok(())
    }
}

/// A directory of two openings and two files, with three pages in all.
fn directory() -> Vec<u8> {
    let page = |slot, generation| Page::Stored(PageRef { slot, generation, tag: [9; 16] });
    let mut files = BTreeMap::new();
    let mut first = File { len: 5 * PAGE_BYTES as u64, ..File::default() };
    first.table.put(0, page(2, 1));
    first.table.put(4, page(5, 7));
    let mut second = File { len: 1, ..File::default() };
    second.table.put(0, page(4, 5));
    files.insert(FileId(1), first);
    files.insert(FileId(3), second);
    let openings =
        [1, 6].map(|first_generation| OpeningRecord { first_generation, salt: [first_generation as u8; 32] });
    let mut bytes = Vec::new();
    directory::encode(&openings, 4, &files, &mut bytes).unwrap();
    bytes
}

#[test]
fn a_directory_survives_the_round_trip() {
    let bytes = directory();
    let bounds = Bounds { slots_end: 6, generation: 8 };
    let mut slots = Slots::default();
    let len = bytes.len() as u64;
    let parsed = directory::parse(&mut &bytes[..], len, bounds, &mut slots).unwrap();
    let mut again = Vec::new();
    directory::encode(&parsed.openings, parsed.next_file, &parsed.files, &mut again).unwrap();
    assert_eq!(again, bytes);
    assert_eq!(slots.end(), 6);
}

#[test]
fn a_directory_that_contradicts_itself_is_refused() {
    let bytes = directory();
    let openings = 4;
    let next_file = openings + 2 * 40;
    let first_file = next_file + 12;
    let first_page = first_file + 24;
    let second_page = first_page + 36;
    let check = |what: &str, at: usize, value: u8, code: &str| {
        let mut altered = bytes.clone();
        altered[at] = value;
        let bounds = Bounds { slots_end: 6, generation: 8 };
        let len = altered.len() as u64;
        let refused = directory::parse(&mut &altered[..], len, bounds, &mut Slots::default());
        assert_eq!(refused.unwrap_err().code(), code, "{what}");
    };
    let malformed = "vault.scratch.malformed";
    check("no openings", 3, 0, malformed);
    check("too many openings", 1, 1, malformed);
    check("openings out of order", openings + 40 + 7, 1, malformed);
    check("an opening of the future", openings + 40 + 7, 8, malformed);
    check("a file beyond the next", next_file + 7, 3, malformed);
    check("too many files", next_file + 8, 1, malformed);
    check("fewer files than follow", next_file + 11, 1, malformed);
    check("more files than follow", next_file + 11, 3, malformed);
    check("file number 0", first_file + 7, 0, malformed);
    check("files out of order", first_file + 7, 3, malformed);
    check("a file too long", first_file + 8, 1, malformed);
    check("a page behind the end", first_file + 13, 4, malformed);
    check("too many pages", first_file + 16, 1, malformed);
    check("pages out of order", first_page + 7, 4, malformed);
    check("a slot twice", second_page + 11, 2, malformed);
    check("a superblock's slot", first_page + 11, 1, malformed);
    check("a slot behind the store", first_page + 11, 6, "vault.scratch.truncated");
    check("a generation of the future", first_page + 19, 8, malformed);
    check("a generation before all openings", first_page + 19, 0, malformed);

    let mut same_salt = bytes.clone();
    same_salt.copy_within(openings + 8..openings + 40, openings + 48);
    assert_eq!(parse_directory(&same_salt).unwrap_err().code(), malformed);
    for len in 0..bytes.len() {
        assert_eq!(parse_directory(&bytes[..len]).unwrap_err().code(), malformed);
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert_eq!(parse_directory(&longer).unwrap_err().code(), malformed);
    assert_eq!(parse_directory(&bytes).unwrap(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// The table of a file against a map.
    #[test]
    fn a_table_is_a_map_of_pages(
        steps in prop::collection::vec((0_u8..4, 0_u64..100), 1..200),
    ) {
        let mut table = PageTable::default();
        let mut model: BTreeMap<u64, Page> = BTreeMap::new();
        let mut slot = 2;
        for (step, page) in steps {
            // A far page now and then: holes must cost nothing and lose nothing.
            let page = if page % 17 == 0 { page << 24 } else { page };
            match step {
                0 => {
                    let mut freed = Vec::new();
                    let cut = model.split_off(&page);
                    let count = table.cut(page, |slot| freed.push(slot));
                    prop_assert_eq!(count, cut.len() as u64);
                    let expected: Vec<u32> = cut
                        .values()
                        .filter_map(|page| match page {
                            Page::Stored(stored) => Some(stored.slot),
                            Page::Absent | Page::Pending => None,
                        })
                        .collect();
                    prop_assert_eq!(freed, expected);
                }
                1 => {
                    let old = model.entry(page).or_insert(Page::Pending);
                    if *old == Page::Pending {
                        table.put(page, Page::Pending);
                    }
                }
                _ => {
                    slot += 1;
                    let new = Page::Stored(PageRef { slot, generation: 1, tag: [0; 16] });
                    let old = model.insert(page, new).unwrap_or(Page::Absent);
                    prop_assert_eq!(table.put(page, new), old);
                }
            }
            prop_assert_eq!(table.held(), model.len() as u64);
            for (page, expected) in &model {
                prop_assert_eq!(table.page(*page), *expected);
            }
        }
        let stored: Vec<u64> = table.stored().map(|(page, _)| page).collect();
        let expected: Vec<u64> = model
            .iter()
            .filter(|(_, page)| matches!(page, Page::Stored(_)))
            .map(|(page, _)| *page)
            .collect();
        prop_assert_eq!(stored, expected);
    }

    /// Whatever the bytes, the parsers return.
    #[test]
    fn parsers_survive_noise(noise in prop::collection::vec(any::<u8>(), 0..400), at in 0..300_usize) {
        let _ = parse_directory(&noise);
        let _ = Superblock::parse(&noise);
        let mut spoilt = directory();
        let at = at % spoilt.len();
        let n = noise.len().min(spoilt.len() - at).min(12);
        spoilt[at..at + n].copy_from_slice(&noise[..n]);
        let _ = parse_directory(&spoilt);
    }
}
