//! What registers of a TPM hold after an image has started under QEMU, from the files alone.
//!
//! Registers 4, 7 and 11 follow from image and keys, as `starminer_hardware::predict::pcr` has it. Here is what else there is: the firmware's own register 0
//! ([`firmware`]), keys as they lie in the firmware's variable store ([`variables`]), and register 9 and 12, which have what the host tells the node
//! ([`credentials`]). Files may be hostile: everything is bounded, nothing panics.
//!
//! Which firmware, stub and kernel these predictions are known to hold for: `specs/image.md`, section "Predicted".

pub mod credentials;
mod expect;
pub mod firmware;
pub mod variables;

pub use expect::{Boot, Component, Expected, MeasureError, STUB_VERSION, expect};

/// The little-endian number at an offset, if it is there.
fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<u64> {
    let found: [u8; N] = *bytes.get(at..)?.first_chunk()?;
    let mut wide = [0; 8];
    wide.get_mut(..N)?.copy_from_slice(&found);
    Some(u64::from_le_bytes(wide))
}

/// Likewise, as an index.
fn index<const N: usize>(bytes: &[u8], at: usize) -> Option<usize> {
    number::<N>(bytes, at).and_then(|number| usize::try_from(number).ok())
}
