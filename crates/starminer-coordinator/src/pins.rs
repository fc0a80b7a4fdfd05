//! Blobs that somebody is about to refer to.
//!
//! Between the look whether a blob is complete and the commit of the statement that refers to it, the blob must not be swept. A pin holds
//! it for that long; the writer looks here before it drops one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use starminer_verify::Digest;

/// See the module.
#[derive(Debug, Default)]
pub struct Pins {
    held: Mutex<HashMap<[u8; 32], usize>>,
}

/// Holds blobs until it is dropped.
#[derive(Debug)]
pub struct Pin {
    pins: Arc<Pins>,
    ids: Vec<[u8; 32]>,
}

impl Pins {
    /// Holds these blobs.
    pub fn hold(self: &Arc<Self>, ids: impl IntoIterator<Item = Digest>) -> Pin {
        let ids: Vec<[u8; 32]> = ids.into_iter().map(|id| id.0).collect();
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        for id in &ids {
            *held.entry(*id).or_insert(0) += 1;
        }
        Pin { pins: self.clone(), ids }
    }

    /// Whether somebody holds this blob.
    #[must_use]
    pub fn is_pinned(&self, id: &[u8; 32]) -> bool {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).contains_key(id)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut held = self.pins.held.lock().unwrap_or_else(PoisonError::into_inner);
        for id in &self.ids {
            if let Some(count) = held.get_mut(id) {
                *count -= 1;
                if *count == 0 {
                    held.remove(id);
                }
            }
        }
    }
}
