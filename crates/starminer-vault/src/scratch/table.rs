//! Where the pages of one file are: the generation table (`specs/vault.md`, section 4.2).

use std::collections::BTreeMap;

use crate::keys::TAG_LEN;

/// Where a sealed page lies and what proves that it is the newest. 32 bytes for 64 KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PageRef {
    pub(crate) slot: u32,
    pub(crate) generation: u64,
    pub(crate) tag: [u8; TAG_LEN],
}

/// Slots 0 and 1 are superblocks, so that their numbers are free to mean something else in a table.
const ABSENT: u32 = 0;
const PENDING: u32 = 1;

/// What a file has at a page's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Page {
    /// Nothing was ever written: it reads as zeros.
    Absent,
    /// It was written and is in the cache only.
    Pending,
    /// It is in the store. A newer version may be in the cache.
    Stored(PageRef),
}

/// Pages of one leaf: small enough that a lone page costs half a kilobyte.
const LEAF_PAGES: u64 = 16;

/// The table of one file: leaves of consecutive pages, so that holes cost nothing.
#[derive(Debug, Default)]
pub(crate) struct PageTable {
    leaves: BTreeMap<u64, Box<[PageRef; LEAF_PAGES as usize]>>,
    held: u64,
}

impl PageTable {
    /// How many pages are not absent.
    pub(crate) fn held(&self) -> u64 {
        self.held
    }

    pub(crate) fn page(&self, page: u64) -> Page {
        self.leaves
            .get(&(page / LEAF_PAGES))
            .map_or(Page::Absent, |leaf| from_entry(leaf[(page % LEAF_PAGES) as usize]))
    }

    /// Puts a page in place and returns what was there. Never `Absent`: pages go by [`PageTable::cut`].
    pub(crate) fn put(&mut self, page: u64, new: Page) -> Page {
        let leaf = self.leaves.entry(page / LEAF_PAGES).or_default();
        let entry = &mut leaf[(page % LEAF_PAGES) as usize];
        let old = from_entry(*entry);
        *entry = match new {
            Page::Stored(stored) => stored,
            Page::Pending | Page::Absent => PageRef { slot: PENDING, ..PageRef::default() },
        };
        if old == Page::Absent {
            self.held += 1;
        }
        old
    }

    /// Removes all pages from `from` on, showing `freed` the slot of each that was stored. Returns how many were held.
    pub(crate) fn cut(&mut self, from: u64, mut freed: impl FnMut(u32)) -> u64 {
        let before = self.held;
        let mut leaves = self.leaves.split_off(&(from / LEAF_PAGES));
        if let Some((number, mut leaf)) = leaves.pop_first() {
            let kept = from.saturating_sub(number * LEAF_PAGES).min(LEAF_PAGES);
            for entry in &mut leaf[kept as usize..] {
                self.held -= free(std::mem::take(entry), &mut freed);
            }
            if leaf.iter().any(|entry| entry.slot != ABSENT) {
                self.leaves.insert(number, leaf);
            }
        }
        for entry in leaves.values().flat_map(|leaf| leaf.iter()) {
            self.held -= free(*entry, &mut freed);
        }
        before - self.held
    }

    /// All stored pages in order.
    pub(crate) fn stored(&self) -> impl Iterator<Item = (u64, PageRef)> + '_ {
        self.leaves.iter().flat_map(|(number, leaf)| {
            (number * LEAF_PAGES..).zip(leaf.iter().copied()).filter(|(_, entry)| entry.slot > PENDING)
        })
    }
}

fn from_entry(entry: PageRef) -> Page {
    match entry.slot {
        ABSENT => Page::Absent,
        PENDING => Page::Pending,
        _ => Page::Stored(entry),
    }
}

fn free(entry: PageRef, freed: &mut impl FnMut(u32)) -> u64 {
    if entry.slot > PENDING {
        freed(entry.slot);
    }
    u64::from(entry.slot != ABSENT)
}

/// One file: how long it is and where its pages are. Beyond `len` its last page holds zeros.
#[derive(Debug, Default)]
pub(crate) struct File {
    pub(crate) len: u64,
    pub(crate) table: PageTable,
}
