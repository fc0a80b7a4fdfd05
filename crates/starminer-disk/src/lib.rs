//! A node's disk: LUKS2 (AES-256-XTS), formatted at the first start, with a key that was made in the machine and is sealed to its TPM.
//!
//! [`unlock`] takes a device to a mounted file system, or says why not ([`DiskError`]); [`status`] tells what a device is from its header alone. LUKS is
//! cryptsetup's and the encryption dm-crypt's: what is here is who gets the key, which header is taken ([`header`]), and whether an old disk or an old TPM was put
//! back ([`boots`]). Format and reasons: `specs/disk.md`.
//!
//! What it deliberately does not do: repair. A disk that does not open is left as it is.

pub mod boots;
mod crypt;
mod device;
mod error;
pub mod header;
mod machine;
mod seal;
mod status;
mod token;
mod unlock;

#[cfg(test)]
#[path = "../../starminer-attester/tests/tpm/emulator.rs"]
#[allow(dead_code, missing_docs, clippy::unwrap_used)]
mod emulator;

pub use device::{LABEL, find};
pub use error::DiskError;
pub use machine::MachineKey;
pub use seal::{BOOT_COUNTER, EPOCH_COUNTER};
pub use status::{DiskKind, DiskStatus, SegmentStatus, status};
pub use unlock::{Settings, Unlocked, unlock};

/// Most bytes that are read of a file of settings.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// A whole file, bounded.
fn read_bounded(path: &std::path::Path, most: u64) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(std::io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}
