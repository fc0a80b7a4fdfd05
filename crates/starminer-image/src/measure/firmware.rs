//! Register 0: what OVMF measures of itself.
//!
//! That is its version, the volume of its first phase (PEI), the volume of its second (DXE), and the separator. Both volumes are in one compressed section of the image. The first
//! is measured where it lies in memory, after a module of it has written what it found of the machine into its own data, so that register 0 depends on the machine's memory and
//! processors, at a place that only the build knows. Builds that are known are listed here; of another one a log tells, recorded on a machine that one trusts.
//!
//! Source: UEFI PI 1.7, volume 3 (volumes, files, sections); `OvmfPkg/Sec/SecMain.c`, `OvmfPkg/Include/Library/PlatformInitLib.h` and `OvmfPkg/Library/PlatformInitLib` of edk2-stable202211.

use std::io::Read as _;

use lzma_rust2::LzmaReader;
use starminer_hardware::event_log::{Bank, Digest, Guid};
use starminer_hardware::predict::pcr::{SEPARATOR, extend_all};

use super::index;

/// Most memory that decompression may take, in KiB: what any build that is known needs, eight times.
const MAX_MEMORY_KIB: u32 = 256 << 10;
/// Most bytes of the two volumes together: four times what any build that is known has.
const MAX_VOLUMES_BYTES: u64 = 64 << 20;
/// Most volumes, files of a volume, and sections of a file that are looked at.
const MAX_ENTRIES: usize = 4096;

const FILE_SYSTEM_2: Guid = Guid::new(0x8c8c_e578, 0x8a3d, 0x4f1c, [0x99, 0x35, 0x89, 0x61, 0x85, 0xc3, 0x2d, 0xd3]);
const LZMA: Guid = Guid::new(0xee4e_5898, 0x3914, 0x4259, [0x9d, 0x6e, 0xdc, 0x7b, 0xd7, 0x94, 0x03, 0xcf]);
const VOLUME_SIGNATURE: &[u8] = b"_FVH";
/// Type of a file that holds volumes.
const VOLUME_FILE: u8 = 0x0b;
const GUID_DEFINED_SECTION: u8 = 0x02;
const VOLUME_SECTION: u8 = 0x17;
const FILE_HEADER_BYTES: usize = 24;

/// A build whose first volume is known.
struct Build {
    name: &'static str,
    /// SHA-256 of the first volume as it is in the file.
    pei: &'static str,
    /// Where in it the description of the machine lies.
    machine_at: usize,
}

const BUILDS: [Build; 1] = [Build {
    name: "Debian ovmf 2022.11-6+deb12u2, OVMF_CODE_4M.fd",
    pei: "471281a7d197d12ac61a810e5150b9b5ddc47be78ef0c24af7a8192c81b3a808",
    machine_at: 0xe0c0,
}];

/// Why register 0 is not predicted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FirmwareError {
    /// No volumes as OVMF has them.
    #[error("not an image of OVMF: {0}")]
    Malformed(&'static str),
    /// The compressed volumes cannot be read.
    #[error("the compressed volumes of the firmware cannot be read: {0}")]
    Compression(String),
    /// A build of which it is not known where it writes what it finds of the machine.
    #[error("a build of OVMF that is not known (its first volume has SHA-256 {pei}); known: {}", known())]
    Unknown {
        /// SHA-256 of the first volume, hex.
        pei: String,
    },
    /// A machine for which it is not known what the firmware finds.
    #[error("the firmware's description of a machine with {memory_mib} MiB and {vcpus} processors is not known")]
    Machine {
        /// Memory.
        memory_mib: u32,
        /// Processors.
        vcpus: u32,
    },
}

impl FirmwareError {
    /// A stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "ovmf.malformed",
            Self::Compression(_) => "ovmf.compression",
            Self::Unknown { .. } => "ovmf.unknown",
            Self::Machine { .. } => "ovmf.machine",
        }
    }

    /// What to do about it.
    #[must_use]
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::Malformed(_) | Self::Compression(_) => "give the code of OVMF as QEMU is given it (OVMF_CODE_4M.fd)",
            Self::Unknown { .. } => {
                "take register 0 from a log recorded where you trust the machine (--eventlog), or leave it out of --select"
            }
            Self::Machine { .. } => {
                "use 512 to 2048 or 2816 to 30720 MiB and 1 to 64 processors, take register 0 from a log (--eventlog), or leave it out of --select"
            }
        }
    }
}

fn known() -> String {
    BUILDS.map(|build| build.name).join("; ")
}

/// The machine that the firmware finds: QEMU's q35, and addresses of 40 bits, as processors have in software.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    /// Memory, in MiB.
    pub memory_mib: u32,
    /// Processors.
    pub vcpus: u32,
}

/// The volumes that OVMF measures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volumes {
    pei: Vec<u8>,
    dxe: Vec<u8>,
}

impl Volumes {
    /// Finds and unpacks them.
    ///
    /// # Errors
    /// [`FirmwareError::Malformed`], [`FirmwareError::Compression`].
    pub fn parse(image: &[u8]) -> Result<Self, FirmwareError> {
        let compressed =
            compressed(image).ok_or(FirmwareError::Malformed("it has no volume with a compressed section"))?;
        let failed = |error: &dyn std::fmt::Display| FirmwareError::Compression(error.to_string());
        let mut sections = Vec::new();
        LzmaReader::new_mem_limit(compressed, MAX_MEMORY_KIB, None)
            .map_err(|error| failed(&error))?
            .take(MAX_VOLUMES_BYTES + 1)
            .read_to_end(&mut sections)
            .map_err(|error| failed(&error))?;
        if sections.len() as u64 > MAX_VOLUMES_BYTES {
            return Err(failed(&"they are too large"));
        }
        let mut volumes = Sections(&sections).filter(|(kind, _)| *kind == VOLUME_SECTION).map(|(_, body)| volume(body));
        match (volumes.next().flatten(), volumes.next().flatten(), volumes.next()) {
            (Some(pei), Some(dxe), None) => Ok(Self { pei: pei.to_vec(), dxe: dxe.to_vec() }),
            _ => Err(FirmwareError::Malformed("there are not two volumes in its compressed section")),
        }
    }

    /// SHA-256 of the second volume, by which it is measured: the same on every machine.
    #[must_use]
    pub fn dxe(&self) -> Digest {
        Bank::Sha256.hash(&[&self.dxe])
    }

    /// The events of register 0 in their order.
    ///
    /// # Errors
    /// [`FirmwareError::Unknown`], [`FirmwareError::Machine`].
    pub fn events(&self, machine: Machine) -> Result<[Digest; 4], FirmwareError> {
        let digest = Bank::Sha256.hash(&[&self.pei]).to_hex();
        let build = BUILDS.iter().find(|build| build.pei == digest);
        let build = build.ok_or(FirmwareError::Unknown { pei: digest })?;
        let mut pei = self.pei.clone();
        let described = describe(machine)?;
        let place = pei.get_mut(build.machine_at..build.machine_at + described.len());
        place.ok_or(FirmwareError::Malformed("its first volume is too short"))?.copy_from_slice(&described);
        // Its version is text in UTF-16, and empty in every build that is known.
        let version = [0; 2];
        Ok([&version[..], &pei, &self.dxe, SEPARATOR].map(|part| Bank::Sha256.hash(&[part])))
    }

    /// Register 0 in the bank of SHA-256.
    ///
    /// # Errors
    /// Those of [`Self::events`].
    pub fn register_0(&self, machine: Machine) -> Result<Digest, FirmwareError> {
        Ok(extend_all(Bank::Sha256, &self.events(machine)?))
    }
}

/// `EFI_HOB_PLATFORM_INFO` and the two flags behind it, as PEI leaves them on QEMU's q35.
fn describe(machine: Machine) -> Result<Vec<u8>, FirmwareError> {
    const MIB: u32 = 1 << 20;
    /// q35 puts what is more above 4 GiB, once memory would reach into the space of its devices.
    const LOW_MEMORY_MIB: u32 = 2048;
    let Machine { memory_mib, vcpus } = machine;
    if !matches!(memory_mib, 512..=2048 | 2816..=30720) || !matches!(vcpus, 1..=64) {
        return Err(FirmwareError::Machine { memory_mib, vcpus });
    }
    let sleep_bytes = 0x8_0000 + 0x8000 * vcpus;
    let sleep_at = memory_mib.min(LOW_MEMORY_MIB) * MIB - sleep_bytes;
    let fields: [(u64, usize); 30] = [
        (0, 8), // the header of the block, which is filled in a copy
        (0, 8),
        (0, 8),
        (0x29c0, 2), // host bridge
        (0, 8),      // confidential computing
        (0, 1),      // SEV-ES
        (0, 4),      // boot mode
        (1, 1),      // it can sleep (S3)
        (0, 1),      // system management mode
        (0, 1),
        (0, 2),
        (64 << 30, 8), // first address that is not used
        (40, 1),       // width of addresses
        (0x8000_0000, 4),
        (0, 4),
        (0, 1),
        (0, 8),
        (0xe0_0000_0000, 8), // devices above 4 GiB
        (0x20_0000_0000, 8),
        (0xc000_0000, 4), // and below
        (0x3c00_0000, 4),
        (0x6000, 8), // ports
        (0xa000, 8),
        (0, 8),
        (vcpus.into(), 4), // processors at the start
        (vcpus.into(), 4), // and at most
        (64, 4),
        (sleep_at.into(), 4), // memory kept for sleep
        (sleep_bytes.into(), 4),
        (0x0101, 2), // QEMU's configuration device is there, and can DMA
    ];
    Ok(fields.iter().flat_map(|(value, length)| value.to_le_bytes().into_iter().take(*length)).collect())
}

/// The compressed section: in the first file of volumes, in the first volume that has one.
fn compressed(image: &[u8]) -> Option<&[u8]> {
    let mut rest = image;
    for _ in 0..MAX_ENTRIES {
        let found = volume(rest)?;
        if found.get(16..32)? == FILE_SYSTEM_2.0
            && let Some(file) = first_volume_file(found)
        {
            let (_, section) = Sections(file).find(|(kind, _)| *kind == GUID_DEFINED_SECTION)?;
            // GUID, place of what is in it (from the section's header on), attributes.
            let data_at = index::<2>(section, 16)?.checked_sub(4)?;
            return if section.get(..16)? == LZMA.0 { section.get(data_at..) } else { None };
        }
        rest = rest.get(found.len()..).filter(|rest| !rest.is_empty())?;
    }
    None
}

/// The volume that these bytes begin with.
fn volume(bytes: &[u8]) -> Option<&[u8]> {
    let signed = bytes.get(40..44)? == VOLUME_SIGNATURE;
    let length = index::<8>(bytes, 32).filter(|length| signed && *length > FILE_HEADER_BYTES)?;
    bytes.get(..length)
}

/// What is in the first file of volumes that a volume has.
fn first_volume_file(volume: &[u8]) -> Option<&[u8]> {
    let extended = index::<2>(volume, 52)?;
    let mut at = match extended {
        0 => index::<2>(volume, 48)?,
        header => header.checked_add(index::<4>(volume, header + 16)?)?,
    };
    for _ in 0..MAX_ENTRIES {
        at = at.checked_next_multiple_of(8)?;
        let header = volume.get(at..)?.first_chunk::<FILE_HEADER_BYTES>()?;
        let (kind, attributes, length) = (header[18], header[19], index::<3>(header, 20)?);
        // Files of 16 MiB and more have their length behind the header.
        if attributes & 1 != 0 || length < FILE_HEADER_BYTES {
            return None;
        }
        let file = volume.get(at..at.checked_add(length)?)?;
        if kind == VOLUME_FILE {
            return file.get(FILE_HEADER_BYTES..);
        }
        at += length;
    }
    None
}

/// Sections one behind the other: type and what is in it. Ends at the first one that is none.
struct Sections<'a>(&'a [u8]);

impl<'a> Iterator for Sections<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = self.0;
        let (length, header_bytes) = match index::<3>(bytes, 0)? {
            0xff_ffff => (index::<4>(bytes, 4)?, 8),
            length => (length, 4),
        };
        let section = bytes.get(..length).filter(|section| section.len() >= header_bytes)?;
        self.0 = bytes.get(length.checked_next_multiple_of(4)?..).unwrap_or_default();
        Some((section[3], &section[header_bytes..]))
    }
}

#[cfg(test)]
#[path = "firmware_tests.rs"]
mod tests;
