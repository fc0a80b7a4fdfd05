//! The launch digest of AMD SEV-SNP.
//!
//! Every page that the host adds before launch extends the digest with what it holds, where, and as what (SEV Secure Nested Paging Firmware ABI,
//! "Launch Digest" and `PAGE_INFO`): firmware, the sections of its metadata, and one state page (VMSA) for each processor. So the
//! digest depends on the number of processors, on their model (register `rdx` at reset), and on the hypervisor, whose registers at reset
//! differ. Cross-checked against `sev-snp-measure`.
//!
//! Not predicted: a launch with an SVSM in front of the firmware, or from an IGVM file.

use aws_lc_rs::digest::{SHA256, digest};

use super::ovmf::{Firmware, FirmwareError, SevSectionKind};
use super::{PAGE_BYTES, sha384};
use crate::event_log::Guid;

/// Most processors that a launch is predicted for.
pub const MAX_VCPUS: u32 = 4096;
/// SEV features of a guest that asks for SEV-SNP and nothing else.
pub const DEFAULT_GUEST_FEATURES: u64 = 1;

/// Where the first processor starts.
const RESET_VECTOR: u32 = 0xffff_fff0;
/// The address that the firmware records for state pages: all ones, without the bits that are no address.
const VMSA_ADDRESS: u64 = 0xffff_ffff_f000;

/// Why a launch digest cannot be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LaunchError {
    /// The firmware image does not say how it is launched.
    #[error(transparent)]
    Firmware(#[from] FirmwareError),
    /// A kernel is given, but the firmware image has no page for its hashes: it would start any.
    #[error("the firmware image takes no kernel hashes, so that a kernel given to it is not measured")]
    NoKernelHashes,
    /// No processor, or more than [`MAX_VCPUS`].
    #[error("a launch has 1 to {MAX_VCPUS} processors")]
    Vcpus,
}

impl LaunchError {
    /// A stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Firmware(error) => error.code(),
            Self::NoKernelHashes => "launch.no-kernel-hashes",
            Self::Vcpus => "launch.vcpus",
        }
    }
}

/// Who starts the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vmm {
    /// QEMU with KVM.
    Qemu,
    /// Amazon EC2.
    Ec2,
    /// Google Compute Engine.
    Gce,
}

impl Vmm {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Qemu, Self::Ec2, Self::Gce];

    /// The name on command lines.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Qemu => "qemu",
            Self::Ec2 => "ec2",
            Self::Gce => "gce",
        }
    }
}

/// CPUID function 1, `eax`: family, model and stepping, as the guest sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuSignature(pub u32);

/// QEMU's models and their family, model and stepping; a version (`-v1`) of a model has the same.
const MODELS: [(&str, u32, u32, u32); 6] = [
    ("EPYC", 23, 1, 2),
    ("EPYC-IBPB", 23, 1, 2),
    ("EPYC-Rome", 23, 49, 0),
    ("EPYC-Milan", 25, 1, 1),
    ("EPYC-Genoa", 25, 17, 0),
    ("EPYC-Turin", 26, 0, 0),
];

impl CpuSignature {
    /// From family, model and stepping (AMD CPUID Specification 25481).
    #[must_use]
    pub const fn new(family: u32, model: u32, stepping: u32) -> Self {
        let (low, high) = if family > 15 { (15, (family - 15) & 0xff) } else { (family, 0) };
        Self(high << 20 | (model >> 4 & 15) << 16 | low << 8 | (model & 15) << 4 | stepping & 15)
    }

    /// Of a model of QEMU, such as `EPYC-v4` or `EPYC-Milan`.
    #[must_use]
    pub fn of_model(name: &str) -> Option<Self> {
        let unversioned = match name.rsplit_once("-v") {
            Some((model, version)) if !version.is_empty() && version.bytes().all(|b| b.is_ascii_digit()) => model,
            _ => name,
        };
        let &(_, family, model, stepping) = MODELS.iter().find(|(model, ..)| *model == unversioned)?;
        Some(Self::new(family, model, stepping))
    }

    /// The models that have names.
    pub fn models() -> impl Iterator<Item = &'static str> {
        MODELS.iter().map(|(name, ..)| *name)
    }
}

/// SHA-256 of what a direct boot starts; the firmware refuses anything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelHashes {
    kernel: [u8; 32],
    initrd: [u8; 32],
    command_line: [u8; 32],
}

impl KernelHashes {
    /// Of the files and the command line, as QEMU's `kernel-hashes=on` takes them; without an initrd, of nothing.
    #[must_use]
    pub fn of(kernel: &[u8], initrd: Option<&[u8]>, command_line: &str) -> Self {
        let command_line = [command_line.as_bytes(), &[0]].concat();
        Self { kernel: sha256(kernel), initrd: sha256(initrd.unwrap_or_default()), command_line: sha256(&command_line) }
    }

    /// The page that holds the table of hashes, which begins at `offset`.
    fn page(&self, offset: usize) -> Option<[u8; PAGE_BYTES]> {
        const TABLE: Guid = Guid::new(0x9438_d606, 0x4f22, 0x4cc9, [0xb4, 0x79, 0xa7, 0x93, 0xd4, 0x11, 0xfd, 0x21]);
        const KERNEL: Guid = Guid::new(0x4de7_9437, 0xabd2, 0x427f, [0xb8, 0x35, 0xd5, 0xb1, 0x72, 0xd2, 0x04, 0x5b]);
        const INITRD: Guid = Guid::new(0x44ba_f731, 0x3a2f, 0x4bd7, [0x9a, 0xf1, 0x41, 0xe2, 0x91, 0x69, 0x78, 0x1d]);
        const COMMAND_LINE: Guid =
            Guid::new(0x97d0_2dd8, 0xbd20, 0x4c94, [0xaa, 0x78, 0xe7, 0x71, 0x4d, 0x36, 0xab, 0x2a]);
        const ENTRY_BYTES: u16 = 16 + 2 + 32;
        const TABLE_BYTES: u16 = 16 + 2 + 3 * ENTRY_BYTES;
        let mut table = Vec::with_capacity(usize::from(TABLE_BYTES));
        table.extend(TABLE.0);
        table.extend(TABLE_BYTES.to_le_bytes());
        for (guid, hash) in [(COMMAND_LINE, &self.command_line), (INITRD, &self.initrd), (KERNEL, &self.kernel)] {
            table.extend(guid.0);
            table.extend(ENTRY_BYTES.to_le_bytes());
            table.extend(hash);
        }
        let mut page = [0; PAGE_BYTES];
        page.get_mut(offset..offset + table.len())?.copy_from_slice(&table);
        Some(page)
    }
}

/// What is launched, apart from the number of processors.
#[derive(Debug, Clone, Copy)]
pub struct Guest<'a> {
    /// The firmware.
    pub firmware: &'a Firmware<'a>,
    /// The processors' model.
    pub cpu: CpuSignature,
    /// Who starts it.
    pub vmm: Vmm,
    /// SEV features in force ([`DEFAULT_GUEST_FEATURES`]).
    pub guest_features: u64,
    /// Hashes of what the firmware starts directly; `None` for a boot from a disk.
    pub kernel: Option<KernelHashes>,
}

/// A launch up to its processors.
#[derive(Debug, Clone)]
pub struct Launch {
    before_vcpus: LaunchDigest,
    first: [u8; 48],
    others: [u8; 48],
}

impl Launch {
    /// Measures firmware, metadata and kernel hashes.
    ///
    /// # Errors
    /// [`LaunchError::Firmware`], [`LaunchError::NoKernelHashes`].
    pub fn new(guest: &Guest<'_>) -> Result<Self, LaunchError> {
        let mut digest = LaunchDigest([0; 48]);
        let sections = guest.firmware.sev_sections()?;
        let others = guest.firmware.reset_address()?;
        let mut address = guest.firmware.address();
        for page in guest.firmware.bytes().chunks_exact(PAGE_BYTES) {
            digest.extend(PageKind::Normal, address, &sha384(page));
            address += PAGE_BYTES as u64;
        }
        let hashes_page = match &guest.kernel {
            None => None,
            Some(hashes) => {
                let takes_hashes = sections.iter().any(|section| section.kind == SevSectionKind::KernelHashes);
                let address = guest.firmware.kernel_hashes_address().filter(|_| takes_hashes);
                let offset = address.ok_or(LaunchError::NoKernelHashes)? as usize % PAGE_BYTES;
                Some(hashes.page(offset).ok_or(FirmwareError::Metadata("SEV"))?)
            }
        };
        for section in &sections {
            let pages = (section.address..section.address + section.size_bytes).step_by(PAGE_BYTES);
            let memory = if guest.vmm == Vmm::Gce { PageKind::Unmeasured } else { PageKind::Zero };
            match (section.kind, &hashes_page) {
                (SevSectionKind::Memory, _) => pages.for_each(|page| digest.extend(memory, page, &[0; 48])),
                (SevSectionKind::KernelHashes, Some(page)) => {
                    digest.extend(PageKind::Normal, section.address, &sha384(page));
                }
                (SevSectionKind::KernelHashes | SevSectionKind::SvsmCallingArea, _) => {
                    pages.for_each(|page| digest.extend(PageKind::Zero, page, &[0; 48]));
                }
                (SevSectionKind::Secrets, _) => digest.extend(PageKind::Secrets, section.address, &[0; 48]),
                (SevSectionKind::Cpuid, _) if guest.vmm == Vmm::Ec2 => {}
                (SevSectionKind::Cpuid, _) => digest.extend(PageKind::Cpuid, section.address, &[0; 48]),
            }
        }
        if guest.vmm == Vmm::Ec2 {
            // EC2 adds the CPUID pages after all others.
            let cpuid = sections.iter().filter(|section| section.kind == SevSectionKind::Cpuid);
            cpuid.for_each(|section| digest.extend(PageKind::Cpuid, section.address, &[0; 48]));
        }
        let state = |start| sha384(&state_page(start, guest));
        Ok(Self { before_vcpus: digest, first: state(RESET_VECTOR), others: state(others) })
    }

    /// The launch digest with that many processors.
    ///
    /// # Errors
    /// [`LaunchError::Vcpus`].
    pub fn digest(&self, vcpus: u32) -> Result<[u8; 48], LaunchError> {
        if !(1..=MAX_VCPUS).contains(&vcpus) {
            return Err(LaunchError::Vcpus);
        }
        let mut digest = self.before_vcpus.clone();
        for number in 0..vcpus {
            digest.extend(PageKind::State, VMSA_ADDRESS, if number == 0 { &self.first } else { &self.others });
        }
        Ok(digest.0)
    }
}

/// What a page is added as (`PAGE_TYPE`).
#[derive(Debug, Clone, Copy)]
enum PageKind {
    Normal = 1,
    State = 2,
    Zero = 3,
    Unmeasured = 4,
    Secrets = 5,
    Cpuid = 6,
}

#[derive(Debug, Clone)]
struct LaunchDigest([u8; 48]);

impl LaunchDigest {
    /// Adds a page: its kind, its address, and the digest of its contents where they count.
    fn extend(&mut self, kind: PageKind, address: u64, contents: &[u8; 48]) {
        const PAGE_INFO_BYTES: u8 = 0x70;
        let mut info = [0; PAGE_INFO_BYTES as usize];
        info[..48].copy_from_slice(&self.0);
        info[48..96].copy_from_slice(contents);
        info[96] = PAGE_INFO_BYTES; // its length, two bytes
        info[98] = kind as u8;
        // 99: no initial migration image; 100 to 103: no permissions of lower privilege levels
        info[104..].copy_from_slice(&address.to_le_bytes());
        self.0 = sha384(&info);
    }
}

/// A processor's state at its start (VMSA; AMD APM volume 2, table B-4). What is not set is zero.
fn state_page(start: u32, guest: &Guest<'_>) -> [u8; PAGE_BYTES] {
    const PAT_AT_RESET: u64 = 0x0007_0406_0007_0406;
    const PAT_OF_GCE: u64 = 0x0007_0106;
    let from_reset_vector = start == RESET_VECTOR;
    let (code, stack, task) = match guest.vmm {
        Vmm::Qemu | Vmm::Gce => (0x9b, 0x93, 0x8b),
        Vmm::Ec2 => (if from_reset_vector { 0x9a } else { 0x9b }, 0x92, 0x83),
    };
    let (rdx, mxcsr, x87_control) = match guest.vmm {
        Vmm::Qemu => (u64::from(guest.cpu.0), 0x1f80_u32, 0x37f_u16),
        Vmm::Ec2 | Vmm::Gce => (0x600, 0, 0),
    };
    let pat = if guest.vmm == Vmm::Gce { PAT_OF_GCE } else { PAT_AT_RESET };
    let mut page = [0; PAGE_BYTES];
    let mut put = |at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);
    let segments: [(usize, u16, u16, u32, u64); 10] = [
        (0x00, 0, 0x93, 0xffff, 0),                                   // es
        (0x10, 0xf000, code, 0xffff, u64::from(start & 0xffff_0000)), // cs
        (0x20, 0, stack, 0xffff, 0),                                  // ss
        (0x30, 0, 0x93, 0xffff, 0),                                   // ds
        (0x40, 0, 0x93, 0xffff, 0),                                   // fs
        (0x50, 0, 0x93, 0xffff, 0),                                   // gs
        (0x60, 0, 0, 0xffff, 0),                                      // gdtr
        (0x70, 0, 0x82, 0xffff, 0),                                   // ldtr
        (0x80, 0, 0, 0xffff, 0),                                      // idtr
        (0x90, 0, task, 0xffff, 0),                                   // tr
    ];
    for (at, selector, attributes, limit, base) in segments {
        put(at, &selector.to_le_bytes());
        put(at + 2, &attributes.to_le_bytes());
        put(at + 4, &limit.to_le_bytes());
        put(at + 8, &base.to_le_bytes());
    }
    let registers: [(usize, u64); 11] = [
        (0x0d0, 0x1000),                    // efer: SVME, which KVM sets
        (0x148, 0x40),                      // cr4: MCE, likewise
        (0x158, 0x10),                      // cr0
        (0x160, 0x400),                     // dr7
        (0x168, 0xffff_0ff0),               // dr6
        (0x170, 0x2),                       // rflags
        (0x178, u64::from(start & 0xffff)), // rip
        (0x268, pat),                       // g_pat
        (0x310, rdx),                       // rdx
        (0x3b0, guest.guest_features),      // sev_features
        (0x3e8, 1),                         // xcr0
    ];
    for (at, value) in registers {
        put(at, &value.to_le_bytes());
    }
    put(0x408, &mxcsr.to_le_bytes());
    put(0x410, &x87_control.to_le_bytes());
    page
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}
