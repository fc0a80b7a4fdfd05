//! Compiled programs of earlier tasks, for later tasks of the same owner.
//!
//! In memory alone and only since this boot: sealed memory files that task processes made before any guest code ran in
//! them. The agent holds descriptors and digests; it never maps the code. Bounded in bytes and in number, the least
//! recently used goes first.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use starminer_verify::{Digest, PublicKey};

use crate::protocol::CompiledRecord;

/// Most programs that are kept: each is an open descriptor.
const MAX_ENTRIES: usize = 128;

/// The cache. Whoever shares it locks it for the length of a look.
#[derive(Debug)]
pub(crate) struct CompiledCache {
    most_bytes: u64,
    bytes: u64,
    clock: u64,
    entries: HashMap<(PublicKey, Digest), Entry>,
}

#[derive(Debug)]
struct Entry {
    code: Arc<OwnedFd>,
    record: CompiledRecord,
    bytes: u64,
    used: u64,
}

impl CompiledCache {
    pub(crate) fn new(most_bytes: u64) -> Self {
        Self { most_bytes, bytes: 0, clock: 0, entries: HashMap::new() }
    }

    /// The code that a task of `owner` left under `key`.
    pub(crate) fn find(&mut self, owner: PublicKey, key: Digest) -> Option<(CompiledRecord, Arc<OwnedFd>)> {
        self.clock += 1;
        let entry = self.entries.get_mut(&(owner, key))?;
        entry.used = self.clock;
        Some((entry.record, Arc::clone(&entry.code)))
    }

    /// Keeps code for `owner`. One program that would take more than half of the room is not kept.
    pub(crate) fn keep(&mut self, owner: PublicKey, key: Digest, record: CompiledRecord, code: OwnedFd) {
        let file = File::from(code);
        let Ok(bytes) = file.metadata().map(|metadata| metadata.len()) else { return };
        if bytes > self.most_bytes / 2 || self.entries.contains_key(&(owner, key)) {
            return;
        }
        while self.bytes + bytes > self.most_bytes || self.entries.len() >= MAX_ENTRIES {
            if !self.drop_oldest() {
                return;
            }
        }
        self.clock += 1;
        self.bytes += bytes;
        let entry = Entry { code: Arc::new(file.into()), record, bytes, used: self.clock };
        self.entries.insert((owner, key), entry);
    }

    fn drop_oldest(&mut self) -> bool {
        let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used).map(|(key, _)| *key);
        match oldest.and_then(|key| self.entries.remove(&key)) {
            Some(entry) => {
                self.bytes -= entry.bytes;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn code(bytes: usize) -> OwnedFd {
        starminer_sandbox::seal_compiled(&vec![1; bytes]).unwrap()
    }

    #[test]
    fn owners_do_not_meet_and_the_oldest_goes() {
        let record = CompiledRecord { component: Digest([1; 32]), adapter: None, compiled: Digest([2; 32]) };
        let (alice, bob) = (PublicKey([1; 32]), PublicKey([2; 32]));
        let key = |byte| Digest([byte; 32]);
        let mut cache = CompiledCache::new(1000);
        cache.keep(alice, key(1), record, code(400));
        assert!(cache.find(alice, key(1)).is_some());
        assert!(cache.find(bob, key(1)).is_none(), "found another owner's code");
        assert!(cache.find(alice, key(2)).is_none());

        cache.keep(bob, key(1), record, code(400));
        assert!(cache.find(alice, key(1)).is_some(), "used last now");
        cache.keep(alice, key(3), record, code(400));
        assert!(cache.find(bob, key(1)).is_none(), "the oldest was kept");
        assert!(cache.find(alice, key(1)).is_some() && cache.find(alice, key(3)).is_some());

        cache.keep(alice, key(4), record, code(501));
        assert!(cache.find(alice, key(4)).is_none(), "more than half");
        for byte in 0..=255 {
            cache.keep(bob, key(byte), record, code(1));
        }
        assert!(cache.entries.len() <= MAX_ENTRIES);
        assert_eq!(cache.bytes, cache.entries.values().map(|entry| entry.bytes).sum::<u64>());
    }
}
