//! What registers will hold, from the files that will be started: the other half of appraisal.
//!
//! Makers' formats say how a launch is measured, so whoever has the image can tell the digest before any machine has made it. These
//! functions do that for the launch digest of AMD SEV-SNP ([`snp`]), MRTD and two run-time registers of Intel TDX ([`tdx`]), and the
//! registers of a TPM that depend on boot programs, a unified kernel image and Secure Boot alone ([`pcr`]). What depends on the
//! machine (ACPI tables, boot order, the memory map) is not predicted: it is taken from a log recorded on a machine that one trusts.
//!
//! A predicted value is no evidence and claims nothing. Files may be hostile: everything is bounded, nothing panics, and a file that two
//! readers could read differently is refused rather than measured.
//!
//! What is predicted and what is not: `specs/policy.md`, section "Making reference values".

mod ovmf;
pub mod pcr;
mod pe;
pub mod snp;
pub mod tdx;

pub use ovmf::{Firmware, FirmwareError, MAX_FIRMWARE_BYTES, SevSection, SevSectionKind, TdxSection, TdxSectionKind};
pub use pe::{MAX_IMAGE_BYTES, PeError, PeImage, PeSection};

/// Bytes of a page.
const PAGE_BYTES: usize = 4096;

use aws_lc_rs::digest::{SHA384, digest};

/// SHA-384.
fn sha384(bytes: &[u8]) -> [u8; 48] {
    let mut out = [0; 48];
    out.copy_from_slice(digest(&SHA384, bytes).as_ref());
    out
}

/// The little-endian number at an offset, if it is there.
fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_le_bytes)
}

/// Likewise.
fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_le_bytes)
}

/// Likewise.
fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().copied().map(u64::from_le_bytes)
}
