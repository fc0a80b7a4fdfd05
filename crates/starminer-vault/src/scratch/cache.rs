//! Plaintext pages in memory, a bounded number of them, replaced by the clock algorithm. The cache neither reads nor
//! writes the store: its owner fills frames and empties dirty ones.

use std::collections::HashMap;

use zeroize::{Zeroize, Zeroizing};

use crate::scratch::{FileId, PAGE_BYTES};

/// A page of a file.
pub(crate) type PageKey = (FileId, u64);

/// Whether a frame holds what the store does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freshness {
    Clean,
    Dirty,
}

/// Room for one page. Wiped when it is vacated without being filled again, and when dropped.
pub(crate) struct Frame {
    pub(crate) owner: Option<PageKey>,
    pub(crate) freshness: Freshness,
    pub(crate) plain: Zeroizing<Vec<u8>>,
    used: bool,
}

/// The frames and which page is in which.
pub(crate) struct Cache {
    frames: Vec<Frame>,
    places: HashMap<PageKey, usize>,
    most: usize,
    hand: usize,
}

impl Cache {
    pub(crate) fn new(pages: usize) -> Self {
        Self { frames: Vec::new(), places: HashMap::new(), most: pages.max(1), hand: 0 }
    }

    /// The frame of a page, if it is in the cache.
    pub(crate) fn find(&mut self, key: PageKey) -> Option<usize> {
        let place = *self.places.get(&key)?;
        self.frames[place].used = true;
        Some(place)
    }

    pub(crate) fn frame(&self, place: usize) -> &Frame {
        &self.frames[place]
    }

    pub(crate) fn frame_mut(&mut self, place: usize) -> &mut Frame {
        &mut self.frames[place]
    }

    /// The frame to use for the next page. If it is dirty, it has to be written before [`Cache::vacate`].
    pub(crate) fn victim(&mut self) -> usize {
        if self.frames.len() < self.most {
            self.frames.push(Frame {
                owner: None,
                freshness: Freshness::Clean,
                plain: Zeroizing::new(vec![0; PAGE_BYTES]),
                used: false,
            });
            return self.frames.len() - 1;
        }
        // Two rounds at most: the first clears every mark.
        loop {
            let place = self.hand;
            self.hand = (self.hand + 1) % self.frames.len();
            if !std::mem::take(&mut self.frames[place].used) {
                return place;
            }
        }
    }

    /// Takes a frame from its page. The caller overwrites all of it or calls [`Cache::wipe`].
    pub(crate) fn vacate(&mut self, place: usize) {
        let frame = &mut self.frames[place];
        frame.freshness = Freshness::Clean;
        if let Some(owner) = frame.owner.take() {
            self.places.remove(&owner);
        }
    }

    /// Takes a frame from its page and wipes it.
    pub(crate) fn wipe(&mut self, place: usize) {
        self.vacate(place);
        let frame = &mut self.frames[place];
        frame.used = false;
        // The slice, not the vector: a vector would also lose its length.
        frame.plain.as_mut_slice().zeroize();
    }

    /// Gives a frame, filled with its page, to it.
    pub(crate) fn occupy(&mut self, place: usize, key: PageKey) {
        let frame = &mut self.frames[place];
        frame.owner = Some(key);
        frame.used = true;
        self.places.insert(key, place);
    }

    /// Wipes the pages of `file` from page `from` on.
    pub(crate) fn forget(&mut self, file: FileId, from: u64) {
        for place in 0..self.frames.len() {
            if self.frames[place].owner.is_some_and(|(owner, page)| owner == file && page >= from) {
                self.wipe(place);
            }
        }
    }

    /// The dirty frames, in the order of their pages.
    pub(crate) fn dirty(&self) -> Vec<usize> {
        let mut dirty: Vec<usize> =
            (0..self.frames.len()).filter(|place| self.frames[*place].freshness == Freshness::Dirty).collect();
        dirty.sort_unstable_by_key(|place| self.frames[*place].owner);
        dirty
    }
}
