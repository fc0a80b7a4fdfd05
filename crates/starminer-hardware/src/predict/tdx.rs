//! Measurement registers of Intel TDX: MRTD from a firmware image, and two run-time registers of a direct boot.
//!
//! MRTD is one SHA-384 over a record for each page that the host adds (`TDH.MEM.PAGE.ADD`) and for each 256 bytes whose contents it has
//! measured (`TDH.MR.EXTEND`): Intel TDX Module Base Architecture Specification, "Measurement and Attestation". Which pages, says the firmware's
//! metadata (Intel TDX Virtual Firmware Design Guide). The order of the records within a section is the host's ([`PageOrder`]).
//!
//! RTMR 1 and 2 are predicted for one kind of boot alone: QEMU hands kernel, initrd and command line to OVMF, which starts the kernel's EFI stub.
//! Not predicted: RTMR 0, which has the memory map, ACPI tables, boot order and Secure Boot variables of the machine; any boot from a
//! disk, where RTMR 1 has its partition table; RTMR 3, which is the guest's own. Those come from a log ([`crate::event_log::EventLog::replay_rtmrs`]).

use aws_lc_rs::digest::{Context, SHA384};

use super::ovmf::{Firmware, FirmwareError};
use super::pcr::{CALLING_BOOT_OPTION, EXIT_BOOT_SERVICES, EXIT_BOOT_SERVICES_DONE, SEPARATOR};
use super::pe::PeImage;
use super::{PAGE_BYTES, sha384};
use crate::event_log::Bank;

/// Bytes that one `TDH.MR.EXTEND` covers.
const CHUNK_BYTES: usize = 256;

/// In which order a host adds and measures the pages of a section.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PageOrder {
    /// Each page is measured as soon as it is added: KVM since Linux 6.16.
    #[default]
    PageByPage,
    /// All pages of a section are added, then all are measured: KVM before, out of tree.
    AddThenMeasure,
}

/// MRTD of a guest that is launched with this firmware.
///
/// # Errors
/// Those of [`Firmware::tdx_sections`].
pub fn mrtd(firmware: &Firmware<'_>, order: PageOrder) -> Result<[u8; 48], FirmwareError> {
    let mut context = Context::new(&SHA384);
    for section in firmware.tdx_sections()?.iter().filter(|section| !section.accepted_later) {
        let addresses = (0..section.pages).map(|page| section.address + page * PAGE_BYTES as u64);
        // What is measured has contents up to its end, as the parser sees to.
        let measured = if section.measured { section.contents } else { &[] };
        let mut pages = measured.chunks_exact(PAGE_BYTES);
        if order == PageOrder::AddThenMeasure {
            addresses.clone().for_each(|address| context.update(&record(b"MEM.PAGE.ADD", address)));
        }
        for page_address in addresses {
            if order == PageOrder::PageByPage {
                context.update(&record(b"MEM.PAGE.ADD", page_address));
            }
            let chunks = pages.next().unwrap_or_default().chunks_exact(CHUNK_BYTES);
            for (address, chunk) in (page_address..).step_by(CHUNK_BYTES).zip(chunks) {
                context.update(&record(b"MR.EXTEND", address));
                context.update(chunk);
            }
        }
    }
    let mut out = [0; 48];
    out.copy_from_slice(context.finish().as_ref());
    Ok(out)
}

/// The 128 bytes that stand for one call: its name, and at 16 the guest physical address.
fn record(name: &[u8], address: u64) -> [u8; 128] {
    let mut record = [0; 128];
    record[..name.len()].copy_from_slice(name);
    record[16..24].copy_from_slice(&address.to_le_bytes());
    record
}

/// What a register holds once these digests are extended into it, in order.
pub fn extend_all<'a>(digests: impl IntoIterator<Item = &'a [u8; 48]>) -> [u8; 48] {
    digests.into_iter().fold([0; 48], |register, digest| sha384(&[register, *digest].concat()))
}

/// RTMR 1 of a direct boot: the kernel as a boot program, and the marks of OVMF around its start. The image is the file as it is: QEMU does not
/// write into the header of a kernel for a confidential guest.
#[must_use]
pub fn rtmr1_of_direct_boot(kernel: &PeImage<'_>) -> [u8; 48] {
    let mut image = [0; 48];
    image.copy_from_slice(kernel.authenticode(Bank::Sha384).as_bytes());
    let marks = [CALLING_BOOT_OPTION, SEPARATOR, EXIT_BOOT_SERVICES, EXIT_BOOT_SERVICES_DONE].map(sha384);
    extend_all(std::iter::once(&image).chain(&marks))
}

/// RTMR 2 of a direct boot: command line and initrd, as the kernel's EFI stub measures them. OVMF puts `initrd=initrd ` in front of
/// the command line where there is an initrd.
#[must_use]
pub fn rtmr2_of_direct_boot(command_line: &str, initrd: Option<&[u8]>) -> [u8; 48] {
    let prefix = if initrd.is_some() { "initrd=initrd " } else { "" };
    let units = prefix.encode_utf16().chain(command_line.encode_utf16()).chain([0]);
    let load_options: Vec<u8> = units.flat_map(u16::to_le_bytes).collect();
    let digests = std::iter::once(sha384(&load_options)).chain(initrd.map(sha384));
    extend_all(&digests.collect::<Vec<_>>())
}
