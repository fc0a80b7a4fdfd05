//! Links between certificates whose signatures this process has verified.
//!
//! Authorities come along with every piece of evidence, and verifying their signatures again says nothing new: it depends on the two certificates alone.
//! Dates, extensions and revocation are checked each time all the same. A link is remembered only if a chain from a root down to it held, so that what
//! nobody vouches for takes no room; leaves are not remembered, but for signers of manifests, of which there are few.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use super::chain::Link;

/// The most links that are remembered; the oldest is forgotten first.
const MAX_LINKS: usize = 256;

static LINKS: Mutex<VecDeque<Link>> = Mutex::new(VecDeque::new());

/// Whether this link was verified before.
pub(crate) fn knows(link: &Link) -> bool {
    LINKS.lock().unwrap_or_else(PoisonError::into_inner).contains(link)
}

/// Remembers a link that was verified.
pub(crate) fn remember(link: Link) {
    let mut links = LINKS.lock().unwrap_or_else(PoisonError::into_inner);
    if !links.contains(&link) {
        if links.len() == MAX_LINKS {
            links.pop_front();
        }
        links.push_back(link);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_first() {
        let link = |number: usize| {
            let mut first = [0xee; 32];
            first[..8].copy_from_slice(&number.to_le_bytes());
            (first, [0xdd; 32])
        };
        assert!(!knows(&link(0)));
        (0..MAX_LINKS).for_each(|number| remember(link(number)));
        assert!(knows(&link(MAX_LINKS - 1)) && !knows(&([0xee; 32], [0xdc; 32])));
        remember(link(MAX_LINKS));
        assert!(knows(&link(MAX_LINKS)) && !knows(&link(0)));
        assert!(LINKS.lock().unwrap_or_else(PoisonError::into_inner).len() <= MAX_LINKS);
    }
}
