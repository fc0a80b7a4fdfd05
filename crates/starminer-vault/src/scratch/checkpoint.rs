//! Making a scratch durable, and finding it again (`specs/vault.md`, section 4.5).
//!
//! A checkpoint writes pages and directory into slots that no checkpoint on disk names, waits for them, then writes
//! the superblock that is not the newest, and waits again. The store therefore always has a complete checkpoint: the
//! last one until the superblock is down, the new one from then on.

use aws_lc_rs::digest;
use zeroize::{Zeroize, Zeroizing};

use crate::at::PageStore;
use crate::keys::TaskSecret;
use crate::scratch::cache::Cache;
use crate::scratch::directory::{self, Bounds, DirectorySink, DirectorySource, OpeningRecord};
use crate::scratch::error::ScratchError;
use crate::scratch::files::{OpenedKey, Scratch, Sealing, slot_offset};
use crate::scratch::slots::Slots;
use crate::scratch::superblock::{Root, Superblock};
use crate::scratch::table::PageRef;
use crate::scratch::{
    Checkpointed, DIRECTORY, OPENINGS_MAX, Opening, PAGE_BYTES, ScratchContext, ScratchOptions, Sequence,
};

impl<S: PageStore> Scratch<S> {
    /// Makes everything written so far durable, atomically, and returns the checkpoint's place in the order of all.
    /// Whoever wants a rollback refused remembers it where the store's owner cannot take it back.
    ///
    /// # Errors [`ScratchError::Store`], [`ScratchError::KeyExhausted`], [`ScratchError::SequenceExhausted`]. The
    /// last checkpoint then still stands or, if the failure came as the new one was published, the new one may; the
    /// scratch stays usable.
    pub fn checkpoint(&mut self) -> Result<Sequence, ScratchError> {
        for place in self.cache.dirty() {
            self.write_back(place)?;
        }
        // A sequence is tried once: a checkpoint that may have become durable never shares its number with a later one.
        if self.sequence.0 as u32 == u32::MAX {
            return Err(ScratchError::SequenceExhausted);
        }
        self.sequence = Sequence(self.sequence.0 + 1);
        let mut directory_pages = Vec::new();
        let published = self
            .write_directory(&mut directory_pages)
            .map_err(Unpublished::Before)
            .and_then(|root| self.publish(&root));
        match published {
            Ok(digest) => {
                self.slots.commit();
                self.next_superblock = 1 - self.next_superblock;
                self.checkpointed = Some(Checkpointed { sequence: self.sequence, digest });
            }
            Err(Unpublished::Perhaps(_)) => self.slots.commit_perhaps(),
            Err(Unpublished::Before(_)) => {}
        }
        // The directory is the checkpoint's alone: its slots are committed where the checkpoint is, and never live.
        for page in &directory_pages {
            self.slots.release(page.slot);
        }
        match published {
            Ok(_) => Ok(self.sequence),
            Err(Unpublished::Before(error) | Unpublished::Perhaps(error)) => Err(error),
        }
    }

    fn write_directory(&mut self, pages: &mut Vec<PageRef>) -> Result<Root, ScratchError> {
        let openings = self.openings_in_use();
        let mut writer = DirectoryWriter {
            store: &self.store,
            sealing: &mut self.sealing,
            slots: &mut self.slots,
            pages,
            page: Zeroizing::new(Vec::with_capacity(PAGE_BYTES)),
            len: 0,
        };
        directory::encode(&openings, self.next_file, &self.files, &mut writer)?;
        let directory_len = writer.finish()?;
        Ok(Root { directory_len, directory_pages: pages.clone() })
    }

    /// The openings that sealed a page which is still in use, and this one.
    fn openings_in_use(&self) -> Vec<OpeningRecord> {
        let keys = self.sealing.keys();
        let mut used = vec![false; keys.len()];
        for (_, page) in self.files.values().flat_map(|file| file.table.stored()) {
            let after = keys.partition_point(|k| k.record.first_generation <= page.generation);
            if let Some(used) = after.checked_sub(1).and_then(|at| used.get_mut(at)) {
                *used = true;
            }
        }
        if let Some(current) = used.last_mut() {
            *current = true;
        }
        keys.iter().zip(used).filter(|(_, used)| *used).map(|(key, _)| key.record.clone()).collect()
    }

    /// The digest of the superblock that is now durable.
    fn publish(&mut self, root: &Root) -> Result<[u8; 32], Unpublished> {
        let generation = self.sealing.generation().map_err(Unpublished::Before)?;
        let current = self.sealing.current();
        let block = root.seal(&current.key, &current.record.salt, self.sequence, generation);
        let before = |error: std::io::Error| Unpublished::Before(error.into());
        let perhaps = |error: std::io::Error| Unpublished::Perhaps(error.into());
        self.store.sync().map_err(before)?;
        self.store.write_all_at(&block, slot_offset(self.next_superblock)).map_err(perhaps)?;
        self.store.sync().map_err(perhaps)?;
        Ok(digest_of(&block))
    }

    /// Opens the newest checkpoint in `store`, refusing one that is older than `at_least` (`Sequence::default()`
    /// accepts any) and one that this attempt or a later one has made.
    ///
    /// Superblocks, directory and the presence of every page are proven before it returns; the pages themselves when
    /// they are read. Nothing is written. An attempt that reopens must have a higher number than every one before.
    ///
    /// # Errors [`ScratchError`]; the store is as before.
    pub fn reopen(
        store: S,
        secret: &TaskSecret,
        context: &ScratchContext<'_>,
        opening: Opening,
        at_least: Sequence,
        options: ScratchOptions,
    ) -> Result<Self, ScratchError> {
        let found = Found::newest(&store, secret, context)?;
        let sequence = found.superblock.sequence;
        if sequence < at_least {
            return Err(ScratchError::RolledBack { found: sequence, at_least });
        }
        if sequence.attempt() >= opening.attempt {
            return Err(ScratchError::Attempt { found: sequence.attempt(), attempt: opening.attempt });
        }
        let next_superblock = 1 - found.place;
        let checkpointed = Some(Checkpointed { sequence, digest: found.digest });
        let (directory, slots, generation) = found.directory(&store)?;
        if directory.openings.len() >= OPENINGS_MAX {
            return Err(ScratchError::TooManyOpenings);
        }
        let salt = *opening.salt.as_bytes();
        if directory.openings.iter().any(|known| known.salt == salt) {
            return Err(ScratchError::SaltReused);
        }
        let mut keys = Vec::with_capacity(directory.openings.len() + 1);
        for known in &directory.openings {
            keys.push(OpenedKey::derive(secret, context, known.first_generation, known.salt)?);
        }
        keys.push(OpenedKey::derive(secret, context, generation, salt)?);
        Ok(Self {
            store,
            next_file: directory.next_file,
            held_pages: directory.files.values().map(|file| file.table.held()).sum(),
            files: directory.files,
            slots,
            cache: Cache::new(options.cache_pages),
            sealing: Sealing::new(keys, generation),
            limit_bytes: options.limit_bytes,
            sequence: Sequence::before_first(opening.attempt),
            next_superblock,
            checkpointed,
        })
    }
}

/// SHA-256 of a superblock's bytes. It is ciphertext under a fresh key with a header around it, so that its digest tells nothing; and it holds the
/// tags of the directory's pages, which hold those of all others.
fn digest_of(superblock: &[u8]) -> [u8; 32] {
    let mut digest = [0; 32];
    digest.copy_from_slice(digest::digest(&digest::SHA256, superblock).as_ref());
    digest
}

/// Why a checkpoint was not made, sorted by whether it may be on disk all the same.
enum Unpublished {
    Before(ScratchError),
    Perhaps(ScratchError),
}

/// The newest authentic superblock of a store.
struct Found {
    place: u32,
    superblock: Superblock,
    key: OpenedKey,
    root: Root,
    digest: [u8; 32],
}

impl Found {
    fn newest(
        store: &impl PageStore,
        secret: &TaskSecret,
        context: &ScratchContext<'_>,
    ) -> Result<Found, ScratchError> {
        let first = Self::read(store, secret, context, 0);
        let second = Self::read(store, secret, context, 1);
        match (first, second) {
            (Ok(first), Ok(second)) => {
                let newer = first.superblock.sequence >= second.superblock.sequence;
                Ok(if newer { first } else { second })
            }
            (Ok(found), Err(error)) | (Err(error), Ok(found)) => match error {
                // What could not be read may be the newer one; what is not authentic cannot be.
                ScratchError::Store(_) | ScratchError::NameTooLong => Err(error),
                _ => Ok(found),
            },
            (Err(first), Err(second)) => Err(graver(first, second)),
        }
    }

    fn read(
        store: &impl PageStore,
        secret: &TaskSecret,
        context: &ScratchContext<'_>,
        place: u32,
    ) -> Result<Found, ScratchError> {
        let mut block = vec![0; PAGE_BYTES];
        let got = store.read_full_at(&mut block, slot_offset(place))?;
        let superblock = Superblock::parse(&block[..got])?;
        // From generation 0 on: it opens the root and the directory, all of which this opening sealed.
        let key = OpenedKey::derive(secret, context, 0, superblock.salt)?;
        if !key.key.matches(&superblock.commitment) {
            return Err(ScratchError::Key);
        }
        let root = Root::open(&key.key, &superblock, &block[..got])?;
        let digest = digest_of(&block[..superblock.len().min(got)]);
        Ok(Found { place, superblock, key, root, digest })
    }

    /// Reads the directory; returns it with the slots that are taken and the first generation that is free.
    fn directory(self, store: &impl PageStore) -> Result<(directory::Directory, Slots, u64), ScratchError> {
        let bounds =
            Bounds { slots_end: store.byte_len()? / PAGE_BYTES as u64, generation: self.superblock.generation };
        let mut slots = Slots::default();
        for page in &self.root.directory_pages {
            directory::claim(&mut slots, page.slot, bounds)?;
        }
        let mut reader = DirectoryReader {
            store,
            sealing: Sealing::new(vec![self.key], 0),
            pages: self.root.directory_pages.iter().enumerate(),
            page: Zeroizing::new(vec![0; PAGE_BYTES]),
            read: PAGE_BYTES,
        };
        let len = self.root.directory_len;
        let parsed = directory::parse(&mut reader, len, bounds, &mut slots)?;
        let last = parsed.openings.last().map(|opening| opening.salt);
        if last != Some(self.superblock.salt) {
            let what = "its last opening is not the one that sealed it";
            return Err(ScratchError::Malformed { what });
        }
        let next = bounds.generation.checked_add(1);
        let next = next.ok_or(ScratchError::KeyExhausted)?;
        slots.commit();
        for page in &self.root.directory_pages {
            slots.release(page.slot);
        }
        Ok((parsed, slots, next))
    }
}

/// Of two reasons why there is no checkpoint, the one that tells more.
fn graver(first: ScratchError, second: ScratchError) -> ScratchError {
    let rank = |error: &ScratchError| match error {
        ScratchError::NoCheckpoint => 0,
        ScratchError::Version { .. } => 1,
        ScratchError::Key => 2,
        ScratchError::Superblock => 3,
        _ => 4,
    };
    if rank(&second) > rank(&first) { second } else { first }
}

/// Cuts directory bytes into pages and seals them.
struct DirectoryWriter<'a, S> {
    store: &'a S,
    sealing: &'a mut Sealing,
    slots: &'a mut Slots,
    pages: &'a mut Vec<PageRef>,
    page: Zeroizing<Vec<u8>>,
    len: u64,
}

impl<S: PageStore> DirectoryWriter<'_, S> {
    fn seal_page(&mut self) -> Result<(), ScratchError> {
        self.page.resize(PAGE_BYTES, 0);
        let key = (DIRECTORY, self.pages.len() as u64);
        let page = self.sealing.seal(self.store, self.slots, key, &self.page)?;
        self.pages.push(page);
        self.page.clear();
        Ok(())
    }

    /// Seals what is left and returns the directory's length.
    fn finish(mut self) -> Result<u64, ScratchError> {
        if !self.page.is_empty() {
            self.seal_page()?;
        }
        Ok(self.len)
    }
}

impl<S: PageStore> DirectorySink for DirectoryWriter<'_, S> {
    fn put(&mut self, mut bytes: &[u8]) -> Result<(), ScratchError> {
        self.len += bytes.len() as u64;
        while !bytes.is_empty() {
            let room = PAGE_BYTES - self.page.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.page.extend_from_slice(now);
            bytes = later;
            if self.page.len() == PAGE_BYTES {
                self.seal_page()?;
            }
        }
        Ok(())
    }
}

/// Opens the pages of a directory one after the other.
struct DirectoryReader<'a, S> {
    store: &'a S,
    sealing: Sealing,
    pages: std::iter::Enumerate<std::slice::Iter<'a, PageRef>>,
    page: Zeroizing<Vec<u8>>,
    read: usize,
}

impl<S: PageStore> DirectorySource for DirectoryReader<'_, S> {
    fn exact(&mut self, mut buf: &mut [u8]) -> Result<(), ScratchError> {
        while !buf.is_empty() {
            if self.read == PAGE_BYTES {
                let what = "it ends early";
                let (number, page) = self.pages.next().ok_or(ScratchError::Malformed { what })?;
                let key = (DIRECTORY, number as u64);
                self.page.as_mut_slice().zeroize();
                self.sealing.open(self.store, key, page, &mut self.page).map_err(|error| match error {
                    ScratchError::Page { .. } => ScratchError::Directory,
                    other => other,
                })?;
                self.read = 0;
            }
            let n = buf.len().min(PAGE_BYTES - self.read);
            let (now, later) = buf.split_at_mut(n);
            now.copy_from_slice(&self.page[self.read..self.read + n]);
            self.read += n;
            buf = later;
        }
        Ok(())
    }
}
