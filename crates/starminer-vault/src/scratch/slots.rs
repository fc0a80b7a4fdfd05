//! Which slots of the store are taken.
//!
//! A slot is taken while the current table names it (*live*) or while a checkpoint that may be the one on disk does
//! (*committed*). Slots that only an old checkpoint names become free when the next is durable, never earlier: that is
//! what keeps the last checkpoint readable through any crash.

/// Slots 0 and 1 hold the superblocks.
pub(crate) const FIRST_SLOT: u32 = 2;

/// The slots of one store.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    live: Bits,
    committed: Bits,
    /// Every slot below is taken.
    low: u32,
}

impl Slots {
    /// Takes the lowest free slot for the current table; `None` when there is none left to number.
    pub(crate) fn take(&mut self) -> Option<u32> {
        let mut word = self.low.max(FIRST_SLOT) / 64;
        loop {
            let mut taken = self.live.word(word) | self.committed.word(word);
            if word == 0 {
                taken |= (1 << FIRST_SLOT) - 1;
            }
            if taken != u64::MAX {
                let slot = word.checked_mul(64)?.checked_add(taken.trailing_ones())?;
                self.live.set(slot);
                self.low = slot;
                return Some(slot);
            }
            word = word.checked_add(1)?;
        }
    }

    /// Marks a slot of a checkpoint that is being restored as live; false when it was already.
    pub(crate) fn restore(&mut self, slot: u32) -> bool {
        let fresh = !self.live.has(slot);
        self.live.set(slot);
        fresh
    }

    /// Gives a slot up for the current table.
    pub(crate) fn release(&mut self, slot: u32) {
        self.live.clear(slot);
        if !self.committed.has(slot) {
            self.low = self.low.min(slot);
        }
    }

    /// A checkpoint naming every live slot is durable, and no other can be on disk.
    pub(crate) fn commit(&mut self) {
        self.committed.clone_from(&self.live);
        self.low = 0;
    }

    /// A checkpoint naming every live slot may or may not be durable: the slots of both are kept.
    pub(crate) fn commit_perhaps(&mut self) {
        self.committed.unite(&self.live);
    }

    /// One more than the highest slot taken.
    pub(crate) fn end(&self) -> u32 {
        self.live.end().max(self.committed.end()).max(FIRST_SLOT)
    }
}

#[derive(Clone, Debug, Default)]
struct Bits(Vec<u64>);

impl Bits {
    fn word(&self, word: u32) -> u64 {
        self.0.get(word as usize).copied().unwrap_or(0)
    }

    fn has(&self, bit: u32) -> bool {
        self.word(bit / 64) >> (bit % 64) & 1 == 1
    }

    fn set(&mut self, bit: u32) {
        let word = (bit / 64) as usize;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (bit % 64);
    }

    fn clear(&mut self, bit: u32) {
        if let Some(word) = self.0.get_mut((bit / 64) as usize) {
            *word &= !(1 << (bit % 64));
        }
    }

    fn unite(&mut self, other: &Bits) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (word, other) in self.0.iter_mut().zip(&other.0) {
            *word |= other;
        }
    }

    fn end(&self) -> u32 {
        let last = self.0.iter().rposition(|word| *word != 0);
        last.map_or(0, |word| word as u32 * 64 + (64 - self.0[word].leading_zeros()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_committed_slot_is_free_only_after_the_next_commit() {
        let mut slots = Slots::default();
        let first = slots.take().expect("a slot");
        assert_eq!(first, FIRST_SLOT);
        slots.commit();
        slots.release(first);
        let second = slots.take().expect("a slot");
        assert_ne!(second, first);
        slots.commit_perhaps();
        slots.release(second);
        let third = slots.take().expect("a slot");
        assert_eq!(third, 4);
        slots.commit();
        assert_eq!(slots.take(), Some(first));
        assert_eq!(slots.take(), Some(second));
        assert_eq!(slots.take(), Some(5));
        assert_eq!(slots.end(), 6);
    }

    #[test]
    fn an_uncommitted_slot_is_free_at_once() {
        let mut slots = Slots::default();
        let taken: Vec<_> = (0..200).map(|_| slots.take().expect("a slot")).collect();
        slots.release(taken[100]);
        assert_eq!(slots.take(), Some(taken[100]));
        assert_eq!(slots.take(), Some(202));
        assert!(!slots.restore(taken[3]));
        assert!(slots.restore(500));
        assert_eq!(slots.end(), 501);
    }
}
