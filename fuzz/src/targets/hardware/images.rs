//! Files from which reference values are predicted: firmware and boot programs.

use starminer_hardware::event_log::Bank;
use starminer_hardware::predict::snp::{CpuSignature, DEFAULT_GUEST_FEATURES, Guest, KernelHashes, Launch, Vmm};
use starminer_hardware::predict::tdx::{PageOrder, mrtd};
use starminer_hardware::predict::{Firmware, PeImage, pcr};

use crate::Outcome;

/// Memory that one section may ask to be measured here; the product measures as much as firmware has.
const MAX_MEASURED_BYTES: u64 = 64 << 20;

/// Firmware: its table, both kinds of metadata, and what follows for SEV-SNP and TDX.
pub fn firmware(data: &[u8]) -> Outcome {
    let firmware = match Firmware::parse(data) {
        Ok(firmware) => firmware,
        Err(error) => return Outcome::refused(error.code()),
    };
    assert_eq!(firmware.bytes(), data);
    let (sev, tdx) = (firmware.sev_sections(), firmware.tdx_sections());
    let small = |bytes: u64| bytes <= MAX_MEASURED_BYTES;
    let launched = match &sev {
        Ok(sections) if small(sections.iter().fold(0, |sum, section| u64::saturating_add(sum, section.size_bytes))) => {
            let hashes = KernelHashes::of(b"kernel", None, "quiet");
            let guest = |kernel| Guest {
                firmware: &firmware,
                cpu: CpuSignature(0x0080_0f12),
                vmm: Vmm::Qemu,
                guest_features: DEFAULT_GUEST_FEATURES,
                kernel,
            };
            let plain = Launch::new(&guest(None)).and_then(|launch| launch.digest(2));
            let with_kernel = Launch::new(&guest(Some(hashes))).and_then(|launch| launch.digest(2));
            if let (Ok(plain), Ok(with_kernel)) = (&plain, &with_kernel) {
                assert_ne!(plain, with_kernel, "a kernel is in the digest or is refused");
            }
            plain.is_ok()
        }
        _ => false,
    };
    let measured = match &tdx {
        Ok(sections)
            if small(
                sections.iter().fold(0, |sum, section| u64::saturating_add(sum, section.pages.saturating_mul(4096))),
            ) =>
        {
            mrtd(&firmware, PageOrder::PageByPage).is_ok()
        }
        _ => false,
    };
    Outcome::accepted((sev.is_ok(), tdx.is_ok(), launched, measured))
}

/// A boot program: its sections, its Authenticode digest, and what a unified kernel image extends.
pub fn boot_program(data: &[u8]) -> Outcome {
    let image = match PeImage::parse(data) {
        Ok(image) => image,
        Err(error) => return Outcome::refused(error.code()),
    };
    let digest = image.authenticode(Bank::Sha256);
    assert_eq!(digest.as_bytes().len(), 32);
    assert_ne!(pcr::boot_programs(Bank::Sha256, &[&image]), pcr::boot_programs(Bank::Sha256, &[]));
    let contents: usize = image.sections().iter().map(|section| section.contents().len()).sum();
    assert!(contents <= data.len(), "sections overlap");
    let unified = pcr::unified_kernel_image(Bank::Sha256, &image, &["enter-initrd"]);
    Outcome::accepted((image.sections().len(), unified.is_ok()))
}
