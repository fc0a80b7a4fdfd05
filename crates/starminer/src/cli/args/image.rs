//! Arguments of `image …`.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};

/// Heading of the options that say what the image is made of.
const INPUTS: &str = "What it is made of";
/// Heading of the options that say which images follow one another.
const DISKS: &str = "Which images open a node's disk";
/// Heading of the options that say what starts it.
const MACHINE: &str = "What starts it";
/// Heading of the options by which values are signed.
const SIGNED: &str = "Signed at once";

/// `image` commands.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Build the image of a node, and sign it for Secure Boot.
    #[command(after_help = "\
Examples:
  starminer image build --out image
  starminer image build --out image --sign db.key --cert db.crt
  starminer image build --out image --policy-key policy.key --security-version 3
  starminer image build --out image --kernel k/boot/vmlinuz-6.1.0-56-cloud-amd64 \\
      --module virtio_pci --module virtio_net --module virtio_rng --json

The same inputs give the same starminer-node.efi; manifest.json names each with its digest. The
signature is put into a copy, starminer-node.signed.efi, by sbsign (Debian: sbsigntool); it holds
the time at which it was made. Init and agent have to be static programs:
`cargo xtask image-programs` builds them where this command looks for them.")]
    Build(ImageBuildArgs),
    /// Predict what a node measures that starts an image, and write it as reference values.
    #[command(after_help = "\
Examples:
  starminer image measure image --firmware OVMF_CODE_4M.fd --vars my_VARS.fd --out values.json
  starminer image measure image --firmware OVMF_CODE_4M.fd --vars my_VARS.fd --credentials node1 \\
      --memory 4096 --vcpus 4 --out node1.json
  starminer image measure image --tee snp --firmware OVMF.amdsev.fd --vcpus 4 --cpu EPYC-Genoa \\
      --credentials node1 --out values.json
  starminer image measure image --firmware OVMF_CODE_4M.fd --vars my_VARS.fd \\
      --out agent.references --sign release1.key --network network.toml --version 5

A plain machine: registers of its TPM (9 and 12 hold what the host tells the node as well, and need
--credentials); the agent, as the kernel's list names it; and each component, by which a mismatch is
explained. --select has to be that of the policy, --memory and --vcpus those of the machine. A TEE:
its launch with kernel, initial file system and command line given directly, and QEMU's
kernel-hashes on. Which firmware is understood: specs/image.md.")]
    Measure(ImageMeasureArgs),
}

/// What runs a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TeeArg {
    /// AMD SEV-SNP.
    Snp,
    /// Intel TDX.
    Tdx,
    /// A machine with a TPM alone.
    None,
}

/// Arguments of `image measure`. Its `--version` is that of the values.
#[derive(Debug, clap::Args)]
#[command(
    disable_version_flag = true,
    override_usage = "starminer image measure [OPTIONS] --firmware <FILE> --out <FILE> <DIR>"
)]
pub struct ImageMeasureArgs {
    /// The image, as `image build` left it.
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// What runs the node.
    #[arg(long, value_enum, default_value = "none", help_heading = MACHINE)]
    pub tee: TeeArg,
    /// The firmware, as QEMU is given it.
    #[arg(long, value_name = "FILE", help_heading = MACHINE)]
    pub firmware: PathBuf,
    /// The firmware's variables with the keys of Secure Boot (a copy of OVMF_VARS): register 7.
    #[arg(long, value_name = "FILE", help_heading = MACHINE)]
    pub vars: Option<PathBuf>,
    /// Memory in MiB: register 0.
    #[arg(long, value_name = "MIB", default_value_t = 1024, help_heading = MACHINE)]
    pub memory: u32,
    /// Processors.
    #[arg(long, value_name = "N", default_value_t = 2, help_heading = MACHINE)]
    pub vcpus: u32,
    /// QEMU's model of the processor, for --tee snp: EPYC-Milan, EPYC-Genoa, or a CPUID signature.
    #[arg(long, value_name = "MODEL", help_heading = MACHINE)]
    pub cpu: Option<String>,
    /// What the host tells the node: a directory with network.toml.cred and node.toml.cred.
    #[arg(long, value_name = "DIR", help_heading = MACHINE)]
    pub credentials: Option<PathBuf>,
    /// A log that such a machine recorded which you trust: register 0 of other firmware; with --tee tdx (CCEL), RTMR 0.
    #[arg(long, value_name = "FILE", help_heading = MACHINE)]
    pub eventlog: Option<PathBuf>,
    /// The registers that the policy asks for; 9 and 12 are one node's, by what it is told (--credentials).
    #[arg(long, value_name = "LIST", default_value = "0,2,4,7,11")]
    pub select: String,
    /// What the values are, for people [default: the name and version of the image].
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Where to write them; must not exist.
    #[arg(long, short, value_name = "FILE")]
    pub out: PathBuf,
    /// Make a file to publish of them, signed with this release key.
    #[arg(long, value_name = "KEY", requires = "network", requires = "version", help_heading = SIGNED)]
    pub sign: Option<PathBuf>,
    /// The trust file of the network that they are for.
    #[arg(long, value_name = "FILE", requires = "sign", help_heading = SIGNED)]
    pub network: Option<PathBuf>,
    /// Number of this version; a later one replaces an earlier one whole.
    #[arg(long, value_name = "N", requires = "sign", help_heading = SIGNED)]
    pub version: Option<u64>,
    /// For how many days.
    #[arg(long, default_value_t = 90, value_name = "DAYS", help_heading = SIGNED, value_parser = clap::value_parser!(u64).range(1..=3650))]
    pub days: u64,
}

/// Arguments of `image build`.
#[derive(Debug, clap::Args)]
pub struct ImageBuildArgs {
    /// Where the image goes: a directory that is empty or absent.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Key that firmware trusts by its certificate (PEM).
    #[arg(long, value_name = "KEY", requires = "cert")]
    pub sign: Option<PathBuf>,
    /// Its certificate (PEM).
    #[arg(long, value_name = "CERT", requires = "sign")]
    pub cert: Option<PathBuf>,
    /// The kernel [default: the only /boot/vmlinuz-*].
    #[arg(long, value_name = "FILE", help_heading = INPUTS)]
    pub kernel: Option<PathBuf>,
    /// Directory of the kernel's modules [default: lib/modules/VERSION beside the kernel's directory].
    #[arg(long, value_name = "DIR", help_heading = INPUTS)]
    pub modules: Option<PathBuf>,
    /// A module that is loaded, after those that it needs; naming any replaces the whole list. Repeatable.
    #[arg(long, value_name = "NAME", default_values = starminer_image::MODULES, help_heading = INPUTS)]
    pub module: Vec<String>,
    /// A program for the node's disk, which goes into the image with the libraries that it needs. Repeatable.
    #[arg(long, value_name = "FILE", default_values = starminer_image::DISK_PROGRAMS, help_heading = INPUTS)]
    pub disk_program: Vec<PathBuf>,
    /// Private key (P-256, PEM) whose approval lets later images open what this one sealed: the same for all of them.
    #[arg(long, value_name = "KEY", help_heading = DISKS)]
    pub policy_key: Option<PathBuf>,
    /// Closed holes up to this image: once it has opened a disk, images with a lower number do not.
    #[arg(long, value_name = "N", default_value_t = 0, requires = "policy_key", help_heading = DISKS)]
    pub security_version: u32,
    /// systemd's stub.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub",
        help_heading = INPUTS
    )]
    pub stub: PathBuf,
    /// The first process [default: image/starminer-init beside this program].
    #[arg(long, value_name = "FILE", help_heading = INPUTS)]
    pub init: Option<PathBuf>,
    /// The agent [default: image/starminer-agent beside this program].
    #[arg(long, value_name = "FILE", help_heading = INPUTS)]
    pub agent: Option<PathBuf>,
    /// The kernel's command line.
    #[arg(long, value_name = "TEXT", default_value = starminer_image::COMMAND_LINE, help_heading = INPUTS)]
    pub command_line: String,
}
