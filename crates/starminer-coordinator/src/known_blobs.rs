//! Blobs that became complete lately, with their lengths: what a spec or report refers to was mostly uploaded a moment before.
//!
//! A blob is taken out before it may be swept; see `pins.rs` for why that and a pin together are enough.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

/// Most blobs that are remembered: about 2 MiB.
const REMEMBERED: usize = 16_384;

/// See the module.
#[derive(Debug, Default)]
pub struct KnownBlobs {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    sizes: HashMap<[u8; 32], u64>,
    /// Oldest first. May name blobs that were taken out.
    order: VecDeque<[u8; 32]>,
}

impl KnownBlobs {
    /// A blob is complete and its row is durable.
    pub fn add(&self, id: [u8; 32], size_bytes: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.sizes.insert(id, size_bytes).is_none() {
            state.order.push_back(id);
        }
        while state.order.len() > REMEMBERED {
            if let Some(oldest) = state.order.pop_front() {
                state.sizes.remove(&oldest);
            }
        }
    }

    /// The length of a complete blob, where it is remembered.
    #[must_use]
    pub fn size(&self, id: &[u8; 32]) -> Option<u64> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).sizes.get(id).copied()
    }

    /// A blob may be swept.
    pub fn take_out(&self, id: &[u8; 32]) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).sizes.remove(id);
    }
}
