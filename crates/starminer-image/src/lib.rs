//! Builds the measured node image: one unified kernel image that firmware starts, and a manifest of what went into it.
//!
//! The image is systemd's stub with the kernel, its command line, an initial file system of a first process, an agent and a few modules, and nothing else
//! ([`uki`], [`cpio`]). The same inputs give the same bytes, so that anybody who has them can tell whether an image is what it is said to be.
//!
//! What it deliberately does not do: fetch anything, trust anything, or sign by itself. Authenticode signatures are `sbsign`'s ([`sign()`]), because they
//! are CMS with Microsoft's own contents, for which there is no maintained library. Format: `specs/image.md`.

pub mod cpio;
mod error;
mod manifest;
pub mod measure;
mod policy;
mod programs;
mod sign;
pub mod uki;

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

pub use error::ImageError;
pub use manifest::{Input, MANIFEST_FORMAT, Manifest, Section};
use programs::{Module, Placed};
pub use sign::sign;
use starminer_hardware::event_log::Bank;
use starminer_hardware::tpm::approval::DiskPolicy;

/// The kernel's command line unless another one is given: what this kernel has of self-protection, and the serial console.
pub const COMMAND_LINE: &str = "console=ttyS0 quiet rootfstype=ramfs lockdown=confidentiality module.sig_enforce=1 init_on_alloc=1 init_on_free=1 slab_nomerge \
     page_alloc.shuffle=1 randomize_kstack_offset=on vsyscall=none debugfs=off ima_hash=sha256 panic=-1";
/// Unless others are named: a virtual machine's network and disk, and its power button.
///
/// `ecb` is what `xts` is made of where the processor has no instructions for it.
pub const MODULES: [&str; 9] =
    ["virtio_pci", "virtio_net", "virtio_blk", "aesni_intel", "ecb", "xts", "dm_crypt", "button", "evdev"];
/// Programs for the disk unless others are named: Debian's.
pub const DISK_PROGRAMS: [&str; 3] = ["/usr/sbin/cryptsetup", "/usr/sbin/mke2fs", "/usr/sbin/e2fsck"];
/// Versions of systemd whose stub is taken. From 254 on, it appends what the host gives in SMBIOS tables to the command line, Secure Boot or not, and neither register 4, 7 nor 11 says so.
const STUBS: std::ops::RangeInclusive<u32> = 252..=253;
/// Where an image has its maker's policy of disks.
const DISK_POLICY: &str = "etc/disk-policy.json";
/// Largest input, in bytes.
pub const MAX_INPUT_BYTES: u64 = 512 << 20;
/// How much the initial file system is compressed: what is above gains little and takes long.
const COMPRESSION_LEVEL: i32 = 9;

/// Where everything comes from.
#[derive(Debug, Clone)]
pub struct Inputs {
    /// systemd's stub.
    pub stub: PathBuf,
    /// The kernel (bzImage).
    pub kernel: PathBuf,
    /// Its modules: a directory that is searched.
    pub modules_dir: PathBuf,
    /// Names of modules, which are loaded in this order with those that they need before them.
    pub modules: Vec<String>,
    /// The first process, a static program.
    pub init: PathBuf,
    /// The agent, a static program.
    pub agent: PathBuf,
    /// Programs for the disk, with the libraries that they need beside them.
    pub disk_programs: Vec<PathBuf>,
    /// Whose approval lets successors open disks that the image sealed, if anybody's.
    pub policy: Option<Policy>,
    /// Description of the system, which the stub shows to boot loaders.
    pub os_release: String,
    /// The kernel's command line.
    pub command_line: String,
}

/// How an image approves itself for disks of its predecessors.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The private key on P-256, PEM (PKCS #8).
    pub key: PathBuf,
    /// Holes that were closed before it.
    pub security_version: u32,
}

/// An image that is built, and not signed.
#[derive(Debug)]
pub struct Image {
    /// The unified kernel image.
    pub bytes: Vec<u8>,
    /// What is in it.
    pub manifest: Manifest,
}

/// Builds an image.
///
/// # Errors
/// Every variant of [`ImageError`] but those of signing.
pub fn build(inputs: &Inputs) -> Result<Image, ImageError> {
    if inputs.command_line.contains(['\0', '\n']) || !inputs.command_line.is_ascii() {
        return Err(ImageError::CommandLine);
    }
    let stub = read(&inputs.stub)?;
    let version = uki::stub_version(&stub);
    if !version.is_some_and(|version| STUBS.contains(&version)) {
        return Err(ImageError::StubVersion { path: inputs.stub.clone(), version });
    }
    let kernel = read(&inputs.kernel)?;
    let init = programs::static_program(&inputs.init)?;
    let agent = programs::static_program(&inputs.agent)?;
    let modules = programs::modules(&inputs.modules_dir, &inputs.modules)?;
    let programs = programs::linked_programs(&inputs.disk_programs)?;
    let signer = inputs.policy.as_ref().map(policy::signer).transpose()?;
    let policy = signer
        .as_ref()
        .zip(inputs.policy.as_ref())
        .map(|(signer, policy)| DiskPolicy { key: signer.key(), security_version: policy.security_version });
    let initrd = initial_file_system(&init, &agent, &modules, &programs, policy.as_ref())?;

    let mut sections = vec![
        (".osrel", inputs.os_release.as_bytes()),
        (".cmdline", inputs.command_line.as_bytes()),
        (".initrd", initrd.as_slice()),
        (".linux", kernel.as_slice()),
    ];
    let assemble = |sections: &[(&'static str, &[u8])]| {
        uki::assemble(&stub, sections).map_err(|source| ImageError::Stub { path: inputs.stub.clone(), source })
    };
    let mut bytes = assemble(&sections)?;
    // What it approves is what the stub measures, so that the stub measures all but this section.
    let approvals = match (&signer, &inputs.policy) {
        (Some(signer), Some(wanted)) => Some(policy::approve(signer, wanted, &bytes)?),
        _ => None,
    };
    if let Some(approvals) = &approvals {
        sections.push((".pcrsig", approvals));
        bytes = assemble(&sections)?;
    }

    let mut named = vec![
        Input::new("stub", &inputs.stub, &stub),
        Input::new("kernel", &inputs.kernel, &kernel),
        Input::new("init", &inputs.init, &init),
        Input::new("agent", &inputs.agent, &agent),
    ];
    named.extend(programs.iter().map(|file| Input::new(file.role(), &file.path, &file.bytes)));
    named.extend(modules.iter().map(|module| Input::new("module", &module.path, &module.bytes)));
    let manifest = Manifest::new(&bytes, &sections, named, &inputs.command_line, policy.as_ref())?;
    Ok(Image { bytes, manifest })
}

/// The compressed archive that the kernel unpacks as its root.
/// SHA-256 of the agent in the section `.initrd` of an image. `None` where there is none in it.
#[must_use]
pub fn agent_digest(initrd: &[u8]) -> Option<[u8; 32]> {
    let mut archive = Vec::new();
    let decoder = zstd::stream::read::Decoder::new(initrd).ok()?;
    decoder.take(MAX_INPUT_BYTES).read_to_end(&mut archive).ok()?;
    let digest = Bank::Sha256.hash(&[cpio::file(&archive, "agent")?]);
    digest.as_bytes().try_into().ok()
}

fn initial_file_system(
    init: &[u8],
    agent: &[u8],
    modules: &[Module],
    programs: &[Placed],
    policy: Option<&DiskPolicy>,
) -> Result<Vec<u8>, ImageError> {
    let mut archive = cpio::Archive::new();
    for dir in ["dev", "etc", "lib", "lib/modules", "lib64", "proc", "run", "sys", "usr", "usr/sbin"] {
        archive.directory(dir);
    }
    archive.file("init", 0o555, init)?;
    archive.file("agent", 0o555, agent)?;
    let mut list = String::new();
    for module in modules {
        let place = format!("lib/modules/{}.ko", module.name);
        archive.file(&place, 0o444, &module.bytes)?;
        list += &format!("/{place}\n");
    }
    for program in programs {
        archive.file(&program.place, 0o555, &program.bytes)?;
    }
    if let Some(policy) = policy {
        archive.file(DISK_POLICY, 0o444, &policy.encode())?;
    }
    archive.file("etc/modules", 0o444, list.as_bytes())?;
    zstd::bulk::compress(&archive.finish(), COMPRESSION_LEVEL).map_err(ImageError::Compression)
}

/// A whole file, bounded.
fn read(path: &Path) -> Result<Vec<u8>, ImageError> {
    let error = |source| ImageError::File { path: path.into(), source };
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_INPUT_BYTES + 1).read_to_end(&mut bytes)).map_err(error)?;
    if bytes.len() as u64 > MAX_INPUT_BYTES {
        return Err(error(std::io::ErrorKind::FileTooLarge.into()));
    }
    Ok(bytes)
}
