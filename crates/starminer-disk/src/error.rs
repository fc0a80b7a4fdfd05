//! Why a disk is not opened, in words that say which check failed and what to do.

use std::io;
use std::path::PathBuf;

use starminer_attester::tpm::TpmError;

use crate::header::HeaderError;

/// Why a disk is not opened. Nothing was changed on it, but for [`Self::Program`] and [`Self::FileSystem`] at the first start, and for what e2fsck mended.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The settings ask for a disk, and there is none.
    #[error("there is no disk: none has the serial number or the partition label starminer-data")]
    Absent,
    /// More than one.
    #[error("{} and {} both say that they are the node's disk", .0.display(), .1.display())]
    Ambiguous(PathBuf, PathBuf),
    /// The system does not let it be read or written.
    #[error("{}", path.display())]
    Io {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something is on it that is not ours.
    #[error("{} is neither blank nor a node's disk", .0.display())]
    NotBlank(PathBuf),
    /// Too small, or no whole number of sectors.
    #[error("{} has {size_bytes} bytes: a disk has 256 MiB or more, and a whole number of sectors of 4096 bytes", path.display())]
    Size {
        /// Which.
        path: PathBuf,
        /// Its size.
        size_bytes: u64,
    },
    /// Its header is not as this program makes it.
    #[error("the disk's header is not taken")]
    Header(#[from] HeaderError),
    /// Another TPM sealed its key.
    #[error("another TPM sealed the disk's key, or this one's owner was cleared since")]
    OtherTpm,
    /// Firmware, Secure Boot or image are not those that sealed it.
    #[error("registers {0} are not as when the disk's key was sealed: another firmware, Secure Boot or image")]
    Registers(String),
    /// Something else sealed its key, under the policy of a node's.
    #[error(
        "the disk's key was sealed while something else ran on this machine than its image, or one of the same maker: it is not the node's disk"
    )]
    Planted,
    /// A newer image has taken the disk over.
    #[error("the disk was taken over by an image of security version {disk}, and this one has {image}")]
    Version {
        /// What the disk asks for.
        disk: u32,
        /// What the image has.
        image: u32,
    },
    /// What the disk's header holds was closed by a newer image.
    #[error("this key was closed when a newer image took the disk over: the header is an old one")]
    Closed,
    /// The image names a maker, and the disk another or none.
    #[error("the disk was sealed by {0}")]
    Maker(&'static str),
    /// The chip derives no key.
    #[error("the chip gives no key for this guest: {0}")]
    Chip(String),
    /// The disk was sealed with a chip's key as well, or without, and this machine is otherwise.
    #[error("the disk was sealed with {disk}, and this machine has {machine}")]
    OtherMachine {
        /// What opens it.
        disk: String,
        /// What is here.
        machine: String,
    },
    /// The image's approval is not one of it.
    #[error("the image has no approval by its maker that fits what was measured of it")]
    NotApproved,
    /// A file of the image is not as it has to be.
    #[error("the image's policy of its disk cannot be read: {0}")]
    Policy(&'static str),
    /// What the file system says is older than what the TPM says.
    #[error("the disk is at start {disk} and the TPM at {tpm}: an old disk was put back")]
    OldDisk {
        /// Starts by the disk.
        disk: u64,
        /// Starts by the TPM.
        tpm: u64,
    },
    /// What the TPM says is older than what the file system says.
    #[error("the disk is at start {disk} and the TPM at {tpm}: an old state of the TPM was put back")]
    OldTpm {
        /// Starts by the disk.
        disk: u64,
        /// Starts by the TPM.
        tpm: u64,
    },
    /// The counter is gone, or another one.
    #[error("the TPM's counter of starts is gone, or is not the one that was made with this disk")]
    Counter,
    /// The count of starts on the disk is missing or damaged.
    #[error("the disk's count of starts cannot be read")]
    Count,
    /// The TPM failed.
    #[error("the TPM did not do what the disk needs")]
    Tpm(#[source] TpmError),
    /// The slot does not open.
    #[error("what was sealed does not open the disk: its slot was altered, or another chip or guest made it")]
    WrongKey,
    /// cryptsetup, mke2fs or e2fsck failed.
    #[error("{program} failed: {said}")]
    Program {
        /// Which.
        program: &'static str,
        /// What it said, cut.
        said: String,
    },
    /// The file system is not mounted or unmounted.
    #[error("the disk's file system is not mounted")]
    FileSystem(#[source] io::Error),
    /// The system gave no randomness.
    #[error("the system gave no randomness")]
    Randomness,
}

impl DiskError {
    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Absent => "disk.absent",
            Self::Ambiguous(..) => "disk.ambiguous",
            Self::Io { .. } => "disk.io",
            Self::NotBlank(_) => "disk.not-blank",
            Self::Size { .. } => "disk.size",
            Self::Header(error) => error.code(),
            Self::OtherTpm => "disk.other-tpm",
            Self::Registers(_) => "disk.registers",
            Self::Planted => "disk.planted",
            Self::Version { .. } => "disk.version",
            Self::Closed => "disk.closed",
            Self::Maker(_) => "disk.maker",
            Self::Chip(_) => "disk.chip",
            Self::OtherMachine { .. } => "disk.other-machine",
            Self::NotApproved => "disk.not-approved",
            Self::Policy(_) => "disk.policy",
            Self::OldDisk { .. } => "disk.old-disk",
            Self::OldTpm { .. } => "disk.old-tpm",
            Self::Counter => "disk.counter",
            Self::Count => "disk.count",
            Self::Tpm(_) => "disk.tpm",
            Self::WrongKey => "disk.wrong-key",
            Self::Program { .. } => "disk.program",
            Self::FileSystem(_) => "disk.file-system",
            Self::Randomness => "disk.randomness",
        }
    }

    /// What to do.
    #[must_use]
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::Absent => {
                "give the machine a disk with this serial number (virtio) or GPT partition label, or ask for memory in node.toml"
            }
            Self::Ambiguous(..) => "leave the machine one of them",
            Self::Io { .. } | Self::FileSystem(_) => "look at the disk's health",
            Self::NotBlank(_) => "give a disk of zeroes (blkdiscard -z), if nothing on this one is needed",
            Self::Size { .. } => "give a larger one",
            Self::Header(_) => "put the disk back as it was, or give a blank one: what was in it is lost to this node",
            Self::OtherTpm => "put the disk back into its machine, or give a blank one",
            Self::Registers(_) => {
                "start what was started before; after a wanted update without its maker's approval, give a blank disk"
            }
            Self::Version { .. } | Self::Closed => "start the newest image; give the disk as it is",
            Self::Planted => "find out who could start something else on this machine, and give a blank disk",
            Self::Maker(_) => "start an image of the same maker, or give a blank disk",
            Self::Chip(_) => "look at /dev/sev-guest and the host's firmware, and start the guest anew",
            Self::OtherMachine { .. } | Self::WrongKey => {
                "put the disk back into the guest that made it, or give a blank one"
            }
            Self::NotApproved | Self::Policy(_) => "build the image anew with `starminer image build --policy-key`",
            Self::OldDisk { .. } => "give the disk as the node left it, or a blank one",
            Self::OldTpm { .. } => "give the TPM's state as the node left it, or a blank disk",
            Self::Counter | Self::Count => "give a blank disk: whether this one is old cannot be told",
            Self::Tpm(_) => "look at the TPM (`starminer node doctor`)",
            Self::Program { .. } => {
                "look at the disk's health, or give a blank one; if it is sound, this is a defect of the image"
            }
            Self::Randomness => "start the machine anew",
        }
    }

    pub(crate) fn io(path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}
