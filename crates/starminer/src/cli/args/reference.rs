//! Arguments of `reference …`.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};

use super::HomeArgs;

/// Heading of the options that say what is started.
const STARTED: &str = "What is started";
/// Heading of the options that say where values come from that no file tells.
const RECORDED: &str = "What no file tells";

/// `reference` commands.
#[derive(Debug, Subcommand)]
pub enum ReferenceCommand {
    /// Launch digests of an AMD SEV-SNP guest, from its firmware and what this starts.
    #[command(after_help = "\
Examples:
  starminer reference snp --firmware OVMF.fd --vcpus 1,2,4 --cpu EPYC-v4 --out values.json
  starminer reference snp --firmware OVMF.fd --vcpus 1-8 --cpu EPYC-Milan,EPYC-Genoa \\
      --kernel vmlinuz --initrd initrd.img --append 'console=ttyS0' --out values.json

One value for each number of processors and model. With --kernel the firmware has to be a build
that checks its hashes (OVMF for AmdSev, QEMU's kernel-hashes=on).")]
    Snp(ReferenceSnpArgs),
    /// MRTD and run-time registers of an Intel TDX guest.
    #[command(after_help = "\
Examples:
  starminer reference tdx --firmware OVMF.fd --eventlog ccel.bin --out values.json
  starminer reference tdx --firmware OVMF.fd --kernel vmlinuz --initrd initrd.img \\
      --append 'console=ttyS0' --rtmr 0=HEX --rtmr 3=zeroes --out values.json

MRTD follows from the firmware. RTMR 1 and 2 follow from --kernel, as QEMU and OVMF start it
directly. RTMR 0 is the machine's: take it from a log that you recorded where you trust it.")]
    Tdx(ReferenceTdxArgs),
    /// Registers of a TPM, from boot programs, a unified kernel image, Secure Boot's keys, and a log.
    #[command(after_help = "\
Examples:
  starminer reference pcrs --eventlog binary_bios_measurements --select 0,2,4,7 --out values.json
  starminer reference pcrs --pcrs pcrs.json --uki linux.efi --boot-program linux.efi --out v.json
  starminer reference pcrs --select 4,11 --boot-program systemd-bootx64.efi \\
      --boot-program linux.efi --uki linux.efi --out values.json

What follows from files wins over --pcrs, and --pcrs over --eventlog. --select and --bank have to
be those of the policy, because a value is one digest over all of them.")]
    Pcrs(ReferencePcrsArgs),
    /// The digest of a program: what a software TEE reports, or a kernel's list names.
    #[command(after_help = "\
Examples:
  starminer reference program --kind ima-log /usr/bin/starminer-agent --out values.json
  starminer reference program --kind software-tee target/release/starminer --out values.json")]
    Program(ReferenceProgramArgs),
    /// One file of values out of several.
    #[command(after_help = "\
Examples:
  starminer reference merge snp.json tdx.json pcrs.json --out values.json")]
    Merge(ReferenceMergeArgs),
    /// Make values of one role and version into a file to publish, and sign it with a release key.
    #[command(after_help = "\
Examples:
  starminer reference sign --key release1.key --network network.toml --role agent --version 5 \\
      --name 'agent 0.1' values.json --out agent.references
  starminer reference cosign --key release2.key agent.references
  starminer reference verify --network network.toml agent.references

It counts once as many release keys signed as network.toml asks for, and the log has it.")]
    Sign(ReferenceSignArgs),
    /// Add the signature of another release key. What is signed is shown first.
    #[command(after_help = "\
Examples:
  starminer reference show agent.references
  starminer reference cosign --key release2.key agent.references")]
    Cosign(ReferenceCosignArgs),
    /// Whether a published file counts: signatures, dates, version, place in the log.
    #[command(after_help = "\
Examples:
  starminer reference verify --network network.toml agent.references
  starminer reference verify --network network.toml --role broker broker.references --json
  starminer reference verify --network network.toml --memory seen.json agent.references

--memory keeps the newest version seen, so that an older one is refused.")]
    Verify(ReferenceVerifyArgs),
    /// Have the network's coordinator log a signed file, and verify that it did.
    #[command(after_help = "\
Examples:
  starminer reference publish agent.references
  starminer reference publish agent.references --home ~/.starminer --json

Your own network.toml has to name the release keys. The same file again changes nothing; an older
version than the newest is refused.")]
    Publish(ReferencePublishArgs),
    /// Fetch the newest file that was published for a role, and verify all of it.
    #[command(after_help = "\
Examples:
  starminer reference fetch --out agent.references
  starminer reference fetch --role broker --out broker.references --json

Verified by the home's network.toml, against the log and the newest version that this home has
seen. `run` and `submit` do the same on their own.")]
    Fetch(ReferenceFetchArgs),
    /// Show a file of values, signed or not. What it shows is not verified.
    #[command(after_help = "\
Examples:
  starminer reference show values.json
  starminer reference show agent.references --json")]
    Show(ReferenceShowArgs),
}

/// Where values go, and what they are called.
#[derive(Debug, clap::Args)]
pub struct ReferenceOutArgs {
    /// What the values are, for people; what tells them apart is added.
    #[arg(long, default_value = "image", value_name = "NAME")]
    pub name: String,
    /// Where to write them; must not exist.
    #[arg(long, short, value_name = "FILE")]
    pub out: PathBuf,
}

/// What a firmware starts directly.
#[derive(Debug, clap::Args)]
pub struct DirectBootArgs {
    /// The kernel that the firmware starts directly.
    #[arg(long, value_name = "FILE", help_heading = STARTED)]
    pub kernel: Option<PathBuf>,
    /// Its initrd.
    #[arg(long, value_name = "FILE", requires = "kernel", help_heading = STARTED)]
    pub initrd: Option<PathBuf>,
    /// Its command line.
    #[arg(long, value_name = "TEXT", requires = "kernel", help_heading = STARTED)]
    pub append: Option<String>,
}

/// Who starts the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum VmmArg {
    /// QEMU with KVM.
    Qemu,
    /// Amazon EC2.
    Ec2,
    /// Google Compute Engine.
    Gce,
}

/// Arguments of `reference snp`.
#[derive(Debug, clap::Args)]
pub struct ReferenceSnpArgs {
    /// The firmware image, as the hypervisor is given it.
    #[arg(long, value_name = "FILE", help_heading = STARTED)]
    pub firmware: PathBuf,
    /// What it starts.
    #[command(flatten)]
    pub boot: DirectBootArgs,
    /// Numbers of processors: 1,2,4 or 1-8.
    #[arg(long, value_name = "LIST", help_heading = STARTED)]
    pub vcpus: String,
    /// Models of QEMU, or CPUID signatures as 0x00a00f11; separated by commas.
    #[arg(long, value_name = "LIST", value_delimiter = ',', required = true, help_heading = STARTED)]
    pub cpu: Vec<String>,
    /// Who starts it.
    #[arg(long, value_enum, default_value = "qemu", help_heading = STARTED)]
    pub vmm: VmmArg,
    /// SEV features in force, in hexadecimal.
    #[arg(long, default_value = "0x1", value_name = "HEX", help_heading = STARTED)]
    pub guest_features: String,
    /// Output.
    #[command(flatten)]
    pub out: ReferenceOutArgs,
}

/// In which order a host adds and measures pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PageOrderArg {
    /// Linux 6.16 and later.
    PageByPage,
    /// KVM before, out of tree.
    AddThenMeasure,
}

/// Arguments of `reference tdx`.
#[derive(Debug, clap::Args)]
pub struct ReferenceTdxArgs {
    /// The firmware image, as the hypervisor is given it.
    #[arg(long, value_name = "FILE", help_heading = STARTED)]
    pub firmware: PathBuf,
    /// What it starts.
    #[command(flatten)]
    pub boot: DirectBootArgs,
    /// In which order the host adds and measures pages.
    #[arg(long, value_enum, default_value = "page-by-page", help_heading = STARTED)]
    pub page_order: PageOrderArg,
    /// A log (CCEL) that a machine recorded which you trust; its registers are replayed.
    #[arg(long, value_name = "FILE", help_heading = RECORDED)]
    pub eventlog: Option<PathBuf>,
    /// A register: 0=HEX, or 3=zeroes. Wins over the log. Repeatable.
    #[arg(long, value_name = "NUMBER=VALUE", help_heading = RECORDED)]
    pub rtmr: Vec<String>,
    /// Output.
    #[command(flatten)]
    pub out: ReferenceOutArgs,
}

/// Arguments of `reference pcrs`.
#[derive(Debug, clap::Args)]
pub struct ReferencePcrsArgs {
    /// Boot programs in the order in which they are started: register 4. Repeatable.
    #[arg(long, value_name = "FILE", help_heading = STARTED)]
    pub boot_program: Vec<PathBuf>,
    /// A unified kernel image: register 11.
    #[arg(long, value_name = "FILE", help_heading = STARTED)]
    pub uki: Option<PathBuf>,
    /// Phases of the boot that are over when evidence is made.
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "enter-initrd,leave-initrd,sysinit,ready",
        help_heading = STARTED
    )]
    pub phases: Vec<String>,
    /// Secure Boot's variables as Linux shows them (/sys/firmware/efi/efivars): register 7.
    #[arg(long, value_name = "DIR", help_heading = STARTED)]
    pub efivars: Option<PathBuf>,
    /// What let a program start, in order: db=FILE, or a variable of shim. Repeatable.
    #[arg(long, value_name = "NAME=FILE", requires = "efivars", help_heading = STARTED)]
    pub authority: Vec<String>,
    /// A log that a machine recorded which you trust; its registers are replayed.
    #[arg(long, value_name = "FILE", help_heading = RECORDED)]
    pub eventlog: Option<PathBuf>,
    /// Values of registers: JSON, or what tpm2_quote -o writes.
    #[arg(long, value_name = "FILE", help_heading = RECORDED)]
    pub pcrs: Option<PathBuf>,
    /// Hash of the bank that is quoted.
    #[arg(long, default_value = "sha256", value_name = "NAME")]
    pub bank: String,
    /// The registers that the policy asks for.
    #[arg(long, default_value = "0,2,4,7,11", value_name = "LIST")]
    pub select: String,
    /// Output.
    #[command(flatten)]
    pub out: ReferenceOutArgs,
}

/// What reports the digest of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProgramKind {
    /// A simulated TEE.
    SoftwareTee,
    /// The kernel's list of what it measured.
    ImaLog,
}

/// Arguments of `reference program`.
#[derive(Debug, clap::Args)]
pub struct ReferenceProgramArgs {
    /// What reports it.
    #[arg(long, value_enum)]
    pub kind: ProgramKind,
    /// Executable files.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Output.
    #[command(flatten)]
    pub out: ReferenceOutArgs,
}

/// Arguments of `reference merge`.
#[derive(Debug, clap::Args)]
pub struct ReferenceMergeArgs {
    /// Files of values; a value that several have is taken from the first.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Where to write them all; must not exist.
    #[arg(long, short, value_name = "FILE")]
    pub out: PathBuf,
}

/// The role of the programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RoleArg {
    /// Runs tasks.
    Agent,
    /// Releases keys.
    Broker,
}

/// Arguments of `reference sign`. Its `--version` is that of the values.
#[derive(Debug, clap::Args)]
#[command(
    disable_version_flag = true,
    override_usage = "starminer reference sign [OPTIONS] --key <FILE> --network <FILE> --role <ROLE>
                               --version <N> --name <NAME> --out <FILE> <VALUES>"
)]
pub struct ReferenceSignArgs {
    /// A release key (`starminer key new`).
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// The trust file of the network that they are for.
    #[arg(long, value_name = "FILE")]
    pub network: PathBuf,
    /// The role of the programs that they are good for.
    #[arg(long, value_enum)]
    pub role: RoleArg,
    /// Number of this version; a later one replaces an earlier one whole.
    #[arg(long, value_name = "N")]
    pub version: u64,
    /// What they are, for people.
    #[arg(long, value_name = "NAME")]
    pub name: String,
    /// In force from this time on [default: now].
    #[arg(long, value_name = "TIME")]
    pub from: Option<String>,
    /// For how many days.
    #[arg(long, default_value_t = 90, value_name = "DAYS", value_parser = clap::value_parser!(u64).range(1..=3650))]
    pub days: u64,
    /// The values.
    #[arg(value_name = "VALUES")]
    pub values: PathBuf,
    /// Where to write the signed file; must not exist.
    #[arg(long, short, value_name = "FILE")]
    pub out: PathBuf,
}

/// Arguments of `reference cosign`.
#[derive(Debug, clap::Args)]
pub struct ReferenceCosignArgs {
    /// A release key.
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// The file, which is replaced by one with a signature more.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// Arguments of `reference verify`.
#[derive(Debug, clap::Args)]
pub struct ReferenceVerifyArgs {
    /// Your own trust: release keys, log and witness keys.
    #[arg(long, value_name = "FILE")]
    pub network: PathBuf,
    /// The role that you ask about.
    #[arg(long, value_enum, default_value = "agent")]
    pub role: RoleArg,
    /// The time to judge by [default: now].
    #[arg(long, value_name = "TIME")]
    pub at: Option<String>,
    /// Where to remember the newest version seen; made where it does not exist.
    #[arg(long, value_name = "FILE")]
    pub memory: Option<PathBuf>,
    /// The file.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// Arguments of `reference publish`.
#[derive(Debug, clap::Args)]
pub struct ReferencePublishArgs {
    /// The signed file.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Home.
    #[command(flatten)]
    pub home: HomeArgs,
}

/// Arguments of `reference fetch`.
#[derive(Debug, clap::Args)]
pub struct ReferenceFetchArgs {
    /// The role that you ask about.
    #[arg(long, value_enum, default_value = "agent")]
    pub role: RoleArg,
    /// Where to write it; must not exist.
    #[arg(long, short, value_name = "FILE")]
    pub out: PathBuf,
    /// Home.
    #[command(flatten)]
    pub home: HomeArgs,
}

/// Arguments of `reference show`.
#[derive(Debug, clap::Args)]
pub struct ReferenceShowArgs {
    /// The file.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}
