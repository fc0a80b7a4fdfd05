//! A scratch at work: files, reads, writes, and the pages behind them. What makes it durable is in `checkpoint.rs`.

use std::collections::BTreeMap;
use std::fmt;

use zeroize::Zeroizing;

use crate::at::PageStore;
use crate::keys::{CommittedKey, NAME_BYTES_MAX, TaskSecret};
use crate::scratch::cache::{Cache, Freshness, PageKey};
use crate::scratch::directory::OpeningRecord;
use crate::scratch::error::ScratchError;
use crate::scratch::slots::Slots;
use crate::scratch::superblock::page_nonce;
use crate::scratch::table::{File, Page, PageRef};
use crate::scratch::{
    Checkpointed, FILE_BYTES_MAX, FILES_MAX, FileId, Opening, PAGE_BYTES, PAGES_MAX, ScratchContext, ScratchOptions,
    Sequence, WRITES_PER_KEY_MAX,
};

/// Files open for writing, encrypted in one store.
pub struct Scratch<S> {
    pub(super) store: S,
    pub(super) files: BTreeMap<FileId, File>,
    pub(super) next_file: u64,
    pub(super) slots: Slots,
    pub(super) cache: Cache,
    pub(super) sealing: Sealing,
    /// Pages that all files hold, in the store or in the cache.
    pub(super) held_pages: u64,
    pub(super) limit_bytes: u64,
    /// The sequence of the last checkpoint that was tried.
    pub(super) sequence: Sequence,
    /// The superblock that does not hold the last checkpoint: 0 or 1.
    pub(super) next_superblock: u32,
    /// The last checkpoint that is known to be durable.
    pub(super) checkpointed: Option<Checkpointed>,
}

impl<S: PageStore> Scratch<S> {
    /// Makes an empty scratch in `store`, whose content is thrown away. Nothing is durable before the first checkpoint.
    ///
    /// # Errors
    /// [`ScratchError::NameTooLong`], [`ScratchError::Store`].
    pub fn create(
        store: S,
        secret: &TaskSecret,
        context: &ScratchContext<'_>,
        opening: Opening,
        options: ScratchOptions,
    ) -> Result<Self, ScratchError> {
        let key = OpenedKey::derive(secret, context, FIRST_GENERATION, *opening.salt.as_bytes())?;
        store.set_len(0)?;
        Ok(Self {
            store,
            files: BTreeMap::new(),
            next_file: 1,
            slots: Slots::default(),
            cache: Cache::new(options.cache_pages),
            sealing: Sealing::new(vec![key], FIRST_GENERATION),
            held_pages: 0,
            limit_bytes: options.limit_bytes,
            sequence: Sequence::before_first(opening.attempt),
            next_superblock: 0,
            checkpointed: None,
        })
    }

    /// Makes an empty file.
    ///
    /// # Errors
    /// [`ScratchError::TooManyFiles`].
    pub fn create_file(&mut self) -> Result<FileId, ScratchError> {
        if self.files.len() >= FILES_MAX {
            return Err(ScratchError::TooManyFiles);
        }
        let id = FileId(self.next_file);
        self.next_file += 1;
        self.files.insert(id, File::default());
        Ok(id)
    }

    /// Removes a file and gives its pages back.
    ///
    /// # Errors
    /// [`ScratchError::NoSuchFile`].
    pub fn remove(&mut self, id: FileId) -> Result<(), ScratchError> {
        let mut file = self.files.remove(&id).ok_or(ScratchError::NoSuchFile(id))?;
        self.cache.forget(id, 0);
        self.held_pages -= file.table.cut(0, |slot| self.slots.release(slot));
        Ok(())
    }

    /// Length of a file in bytes.
    ///
    /// # Errors
    /// [`ScratchError::NoSuchFile`].
    pub fn len(&self, id: FileId) -> Result<u64, ScratchError> {
        self.file(id).map(|file| file.len)
    }

    /// All files with their lengths in bytes, in the order they were created in.
    pub fn files(&self) -> impl Iterator<Item = (FileId, u64)> + '_ {
        self.files.iter().map(|(id, file)| (*id, file.len))
    }

    /// Bytes that all files hold, in whole pages: what the limit bounds.
    pub fn held_bytes(&self) -> u64 {
        self.held_pages * PAGE_BYTES as u64
    }

    /// Reads from `offset` on until `buf` is full or the file ends; returns how much it was. Holes read as zeros.
    ///
    /// # Errors [`ScratchError::Page`] or [`ScratchError::Truncated`] when the store does not have the page that was
    /// written last (no byte of it is then in `buf`), [`ScratchError::NoSuchFile`], [`ScratchError::Store`], and
    /// since a dirty page may have to make room, [`ScratchError::KeyExhausted`].
    pub fn read(&mut self, id: FileId, offset: u64, buf: &mut [u8]) -> Result<usize, ScratchError> {
        let available = self.len(id)?.saturating_sub(offset);
        let wanted = usize::try_from(available).map_or(buf.len(), |rest| rest.min(buf.len()));
        for (piece, part) in pieces(offset, wanted) {
            let out = &mut buf[part.clone()];
            let key = (id, piece.page);
            if let Some(place) = self.cache.find(key) {
                let plain = &self.cache.frame(place).plain;
                out.copy_from_slice(&plain[piece.start..piece.start + out.len()]);
                continue;
            }
            match self.file(id)?.table.page(piece.page) {
                Page::Absent => out.fill(0),
                // A whole page goes straight to the caller: a long read does not empty the cache.
                Page::Stored(page) if out.len() == PAGE_BYTES => {
                    self.sealing.open(&self.store, key, &page, out)?;
                }
                Page::Stored(_) | Page::Pending => {
                    let place = self.load(key, Fill::FromStore)?;
                    let plain = &self.cache.frame(place).plain;
                    out.copy_from_slice(&plain[piece.start..piece.start + out.len()]);
                }
            }
        }
        Ok(wanted)
    }

    /// Writes all of `data` at `offset`, extending the file where needed.
    ///
    /// # Errors
    /// [`ScratchError::Quota`], [`ScratchError::FileTooLong`] and [`ScratchError::NoSuchFile`] before anything is
    /// written; after a failure of the store or a refused page, some of the pages before it may be.
    pub fn write(&mut self, id: FileId, offset: u64, data: &[u8]) -> Result<(), ScratchError> {
        let file = self.file(id)?;
        offset.checked_add(data.len() as u64).filter(|end| *end <= FILE_BYTES_MAX).ok_or(ScratchError::FileTooLong)?;
        let absent =
            pieces(offset, data.len()).filter(|(piece, _)| file.table.page(piece.page) == Page::Absent).count() as u64;
        self.check_quota(absent)?;
        for (piece, part) in pieces(offset, data.len()) {
            let key = (id, piece.page);
            let fill = if part.len() == PAGE_BYTES { Fill::ByCaller } else { Fill::FromStore };
            let data = &data[part];
            let place = self.load(key, fill)?;
            let frame = self.cache.frame_mut(place);
            frame.plain[piece.start..piece.start + data.len()].copy_from_slice(data);
            frame.freshness = Freshness::Dirty;
            let end = piece.page * PAGE_BYTES as u64 + (piece.start + data.len()) as u64;
            let file = self.file_mut(id)?;
            file.len = file.len.max(end);
            if file.table.page(piece.page) == Page::Absent {
                file.table.put(piece.page, Page::Pending);
                self.held_pages += 1;
            }
        }
        Ok(())
    }

    /// Cuts a file to `len_bytes`, or extends it with a hole.
    ///
    /// # Errors
    /// [`ScratchError::NoSuchFile`], [`ScratchError::FileTooLong`]; when the page that is cut through cannot be read,
    /// what [`Scratch::read`] says, and the file is as before.
    pub fn set_len(&mut self, id: FileId, len_bytes: u64) -> Result<(), ScratchError> {
        if len_bytes > FILE_BYTES_MAX {
            return Err(ScratchError::FileTooLong);
        }
        let file = self.file(id)?;
        if len_bytes < file.len {
            let cut_page = len_bytes / PAGE_BYTES as u64;
            let cut_at = (len_bytes % PAGE_BYTES as u64) as usize;
            if cut_at > 0 && file.table.page(cut_page) != Page::Absent {
                let place = self.load((id, cut_page), Fill::FromStore)?;
                let frame = self.cache.frame_mut(place);
                frame.plain[cut_at..].fill(0);
                frame.freshness = Freshness::Dirty;
            }
            let kept = len_bytes.div_ceil(PAGE_BYTES as u64);
            self.cache.forget(id, kept);
            let slots = &mut self.slots;
            let file = self.files.get_mut(&id).ok_or(ScratchError::NoSuchFile(id))?;
            self.held_pages -= file.table.cut(kept, |slot| slots.release(slot));
        }
        self.file_mut(id)?.len = len_bytes;
        Ok(())
    }

    /// Gives the end of the store back that no page lies in. Worth calling after a checkpoint that freed much.
    ///
    /// # Errors
    /// [`ScratchError::Store`].
    pub fn trim(&mut self) -> Result<(), ScratchError> {
        let end = slot_offset(self.slots.end());
        if self.store.byte_len()? > end {
            self.store.set_len(end)?;
        }
        Ok(())
    }

    /// Sets what all files may hold together, as [`ScratchOptions::limit_bytes`]. What is held already stays.
    pub fn set_limit(&mut self, limit_bytes: u64) {
        self.limit_bytes = limit_bytes;
    }

    /// The last checkpoint that is durable: the one that was reopened, or that [`Scratch::checkpoint`] made since.
    pub fn checkpointed(&self) -> Option<Checkpointed> {
        self.checkpointed
    }

    /// Reads every page that the files hold. [`Scratch::reopen`] proves that all of them are there, and this that each is the one that was
    /// sealed: whoever must not begin on a damaged checkpoint calls it first.
    ///
    /// # Errors
    /// What [`Scratch::read`] says.
    pub fn read_through(&mut self) -> Result<(), ScratchError> {
        let mut plain = Zeroizing::new(vec![0; PAGE_BYTES]);
        for (id, file) in &self.files {
            for (page, stored) in file.table.stored() {
                self.sealing.open(&self.store, (*id, page), &stored, &mut plain)?;
            }
        }
        Ok(())
    }

    /// Ends the use of the scratch and gives its store back. What was not checkpointed is lost.
    pub fn into_store(self) -> S {
        self.store
    }

    fn file(&self, id: FileId) -> Result<&File, ScratchError> {
        self.files.get(&id).ok_or(ScratchError::NoSuchFile(id))
    }

    fn file_mut(&mut self, id: FileId) -> Result<&mut File, ScratchError> {
        self.files.get_mut(&id).ok_or(ScratchError::NoSuchFile(id))
    }

    fn check_quota(&self, more_pages: u64) -> Result<(), ScratchError> {
        let limit_pages = (self.limit_bytes / PAGE_BYTES as u64).min(PAGES_MAX);
        // What is held may exceed a limit that was lowered at reopening; nothing new is then admitted.
        if more_pages > 0 && self.held_pages + more_pages > limit_pages {
            return Err(ScratchError::Quota { limit_bytes: self.limit_bytes });
        }
        Ok(())
    }

    /// Brings a page into the cache and returns its place there.
    fn load(&mut self, key: PageKey, fill: Fill) -> Result<usize, ScratchError> {
        if let Some(place) = self.cache.find(key) {
            return Ok(place);
        }
        let place = self.cache.victim();
        if self.cache.frame(place).freshness == Freshness::Dirty {
            self.write_back(place)?;
        }
        self.cache.vacate(place);
        if fill == Fill::FromStore {
            let page = self.file(key.0)?.table.page(key.1);
            let plain = &mut self.cache.frame_mut(place).plain;
            match page {
                Page::Absent => plain.fill(0),
                Page::Pending => unreachable!("a pending page is in the cache"),
                Page::Stored(page) => {
                    let opened = self.sealing.open(&self.store, key, &page, plain);
                    if let Err(error) = opened {
                        self.cache.wipe(place);
                        return Err(error);
                    }
                }
            }
        }
        self.cache.occupy(place, key);
        Ok(place)
    }

    /// Seals a dirty frame into a slot of its own. On failure the frame stays dirty and the old page stays valid.
    pub(super) fn write_back(&mut self, place: usize) -> Result<(), ScratchError> {
        let frame = self.cache.frame(place);
        let Some(key) = frame.owner else {
            return Ok(());
        };
        let sealed = self.sealing.seal(&self.store, &mut self.slots, key, &frame.plain)?;
        self.cache.frame_mut(place).freshness = Freshness::Clean;
        if let Page::Stored(old) = self.file_mut(key.0)?.table.put(key.1, Page::Stored(sealed)) {
            self.slots.release(old.slot);
        }
        Ok(())
    }
}

impl<S> fmt::Debug for Scratch<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scratch")
            .field("files", &self.files.len())
            .field("held_pages", &self.held_pages)
            .field("sequence", &self.sequence)
            .finish_non_exhaustive()
    }
}

/// The generation of the first page ever sealed in a store.
const FIRST_GENERATION: u64 = 1;

/// Where a page's old content comes from when it is brought into the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fill {
    FromStore,
    /// The caller overwrites all of it before anything else happens.
    ByCaller,
}

/// The key of one opening.
pub(super) struct OpenedKey {
    pub(super) record: OpeningRecord,
    pub(super) key: CommittedKey,
}

impl OpenedKey {
    pub(super) fn derive(
        secret: &TaskSecret,
        context: &ScratchContext<'_>,
        first_generation: u64,
        salt: [u8; 32],
    ) -> Result<Self, ScratchError> {
        if context.name.len() > NAME_BYTES_MAX {
            return Err(ScratchError::NameTooLong);
        }
        Ok(Self {
            key: CommittedKey::for_scratch(secret, &salt, &context.task, context.name),
            record: OpeningRecord { first_generation, salt },
        })
    }
}

/// The keys and the counter that pages are sealed and opened with.
pub(super) struct Sealing {
    /// In the order of their generations; the last one is this opening's.
    keys: Vec<OpenedKey>,
    next_generation: u64,
    /// Where ciphertext passes through. Holds no plaintext.
    buffer: Vec<u8>,
}

impl Sealing {
    /// `keys` is not empty.
    pub(super) fn new(keys: Vec<OpenedKey>, next_generation: u64) -> Self {
        Self { keys, next_generation, buffer: vec![0; PAGE_BYTES] }
    }

    pub(super) fn current(&self) -> &OpenedKey {
        self.keys.last().expect("a scratch has a key of its own")
    }

    pub(super) fn keys(&self) -> &[OpenedKey] {
        &self.keys
    }

    /// The next generation: each is given out once, whatever becomes of the write.
    pub(super) fn generation(&mut self) -> Result<u64, ScratchError> {
        let generation = self.next_generation;
        if generation - self.current().record.first_generation >= WRITES_PER_KEY_MAX {
            return Err(ScratchError::KeyExhausted);
        }
        self.next_generation += 1;
        Ok(generation)
    }

    #[cfg(test)]
    pub(super) fn skip_to(&mut self, generation: u64) {
        self.next_generation = generation;
    }

    /// Seals a page into a free slot.
    pub(super) fn seal(
        &mut self,
        store: &impl PageStore,
        slots: &mut Slots,
        key: PageKey,
        plain: &[u8],
    ) -> Result<PageRef, ScratchError> {
        let generation = self.generation()?;
        let slot = slots.take().ok_or(ScratchError::Quota { limit_bytes: u64::from(u32::MAX) * PAGE_BYTES as u64 })?;
        let aad = page_aad(key, generation);
        let mut buffer = std::mem::take(&mut self.buffer);
        let nonce = page_nonce(generation);
        let tag = self.current().key.seal_to(nonce, &aad, plain, &mut buffer);
        let written = store.write_all_at(&buffer, slot_offset(slot));
        self.buffer = buffer;
        if let Err(error) = written {
            slots.release(slot);
            return Err(error.into());
        }
        Ok(PageRef { slot, generation, tag })
    }

    /// Opens a page into `plain`; what is not the page that the table names is refused, and `plain` then holds none
    /// of it.
    pub(super) fn open(
        &mut self,
        store: &impl PageStore,
        key: PageKey,
        page: &PageRef,
        plain: &mut [u8],
    ) -> Result<(), ScratchError> {
        let opening = self.keys.partition_point(|opened| opened.record.first_generation <= page.generation);
        let opened = opening.checked_sub(1).and_then(|at| self.keys.get(at));
        let refused = ScratchError::Page { file: key.0, page: key.1 };
        let Some(opened) = opened else {
            return Err(refused);
        };
        let got = store.read_full_at(&mut self.buffer, slot_offset(page.slot))?;
        if got < self.buffer.len() {
            return Err(ScratchError::Truncated);
        }
        let nonce = page_nonce(page.generation);
        let aad = page_aad(key, page.generation);
        if !opened.key.open_to(nonce, &aad, &page.tag, &self.buffer, plain) {
            return Err(refused);
        }
        Ok(())
    }
}

/// File, page and generation, eight bytes each.
fn page_aad(key: PageKey, generation: u64) -> [u8; 24] {
    let mut aad = [0; 24];
    aad[..8].copy_from_slice(&key.0.0.to_be_bytes());
    aad[8..16].copy_from_slice(&key.1.to_be_bytes());
    aad[16..].copy_from_slice(&generation.to_be_bytes());
    aad
}

pub(super) fn slot_offset(slot: u32) -> u64 {
    u64::from(slot) * PAGE_BYTES as u64
}

/// The part of one page that a read or write touches.
struct Piece {
    page: u64,
    start: usize,
}

/// Cuts `len` bytes at `offset` at the page borders: each piece with its range of the caller's buffer.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (Piece, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let position = offset + done as u64;
        let piece = Piece { page: position / PAGE_BYTES as u64, start: (position % PAGE_BYTES as u64) as usize };
        let end = len.min(done + PAGE_BYTES - piece.start);
        let part = done..end;
        done = end;
        Some((piece, part))
    })
}
