//! Arguments of `host …`.

use std::fmt::{self, Display, Formatter};
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Subcommand, ValueEnum};

/// Heading of the options that say what the machine is.
const MACHINE: &str = "The machine";
/// Heading of the options that say what the node is told.
const TOLD: &str = "What the node is told";

/// `host` commands.
#[derive(Debug, Subcommand)]
pub enum HostCommand {
    /// Start a node's image under QEMU, and end it with Ctrl-C.
    #[command(after_help = "\
Examples:
  starminer host run image --state node1 --vars my_VARS.fd --network network.toml \\
      --address 10.0.2.15/24 --disk node1.raw:20G
  starminer host run image --state node1 --tee snp --firmware OVMF.amdsev.fd --cpu EPYC-Genoa \\
      --credentials node1/credentials
  starminer host run image --state node1 --credentials told --accel tcg --memory 2048
  starminer host run image --state node1 --credentials told --dry-run --json

The state directory keeps what outlives the machine: the TPM's state and the firmware's variables,
which are copied from --vars at the first start. What the node is told stands there in credentials/,
for `image measure --credentials`. The machine reaches this one's loopback as 10.0.2.2. This program
is trusted by nobody: what it does otherwise shows in what the node measures.")]
    Run(HostRunArgs),
}

/// What protects the machine's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum HostTeeArg {
    /// The best that this machine has.
    Auto,
    /// AMD SEV-SNP.
    Snp,
    /// Intel TDX.
    Tdx,
    /// Nothing: a machine with a TPM alone.
    None,
}

/// What runs the machine's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AccelArg {
    /// KVM where it can be used, else software.
    Auto,
    /// The processor.
    Kvm,
    /// QEMU, in software: slow.
    Tcg,
}

/// An address with the length of its network's prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrefixedAddress {
    ip: IpAddr,
    prefix_bits: u8,
}

impl FromStr for PrefixedAddress {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "write the address with the length of its network's prefix: 10.0.2.15/24";
        let (ip, bits) = text.split_once('/').ok_or(wrong)?;
        let ip: IpAddr = ip.parse().map_err(|_| wrong)?;
        let prefix_bits = bits.parse().map_err(|_| wrong)?;
        let most = if ip.is_ipv4() { 32 } else { 128 };
        if prefix_bits > most { Err(wrong) } else { Ok(Self { ip, prefix_bits }) }
    }
}

impl Display for PrefixedAddress {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix_bits)
    }
}

/// Arguments of `host run`.
#[derive(Debug, clap::Args)]
pub struct HostRunArgs {
    /// The image, as `image build` left it.
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// What outlives the machine: a directory, made at the first start.
    #[arg(long, value_name = "DIR")]
    pub state: PathBuf,
    /// Say what would be started, and start nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// What protects the machine's memory.
    #[arg(long, value_enum, default_value = "auto", help_heading = MACHINE)]
    pub tee: HostTeeArg,
    /// What runs it.
    #[arg(long, value_enum, default_value = "auto", help_heading = MACHINE)]
    pub accel: AccelArg,
    /// Memory in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 1024, help_heading = MACHINE, value_parser = clap::value_parser!(u32).range(256..))]
    pub memory: u32,
    /// Processors.
    #[arg(long, value_name = "N", default_value_t = 2, help_heading = MACHINE, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub vcpus: u32,
    /// QEMU's model of the processor, for SEV-SNP.
    #[arg(long, value_name = "MODEL", default_value = "EPYC-v4", help_heading = MACHINE)]
    pub cpu: String,
    /// The firmware [default: Debian's OVMF for what is started].
    #[arg(long, value_name = "FILE", help_heading = MACHINE)]
    pub firmware: Option<PathBuf>,
    /// The firmware's variables with the keys of Secure Boot, copied to the state at the first start.
    #[arg(long, value_name = "FILE", help_heading = MACHINE)]
    pub vars: Option<PathBuf>,
    /// This machine's TPM instead of an emulated one, such as /dev/tpm0: nobody else can use it meanwhile.
    #[arg(long, value_name = "DEVICE", help_heading = MACHINE)]
    pub tpm: Option<PathBuf>,
    /// A data disk in raw form; with a size, such as node1.raw:20G, it is made where it does not exist.
    #[arg(long, value_name = "FILE[:SIZE]", help_heading = MACHINE)]
    pub disk: Option<String>,
    /// All that the node is told: a directory with network.toml.cred and node.toml.cred.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["network", "address", "gateway", "tpm_certificate"], required_unless_present = "network", help_heading = TOLD)]
    pub credentials: Option<PathBuf>,
    /// The trust file of the network, with the coordinator's address as the machine reaches it.
    #[arg(long, value_name = "FILE", requires = "address", help_heading = TOLD)]
    pub network: Option<PathBuf>,
    /// The node's address with the length of its network's prefix: 10.0.2.15/24.
    #[arg(long, value_name = "ADDRESS", requires = "network", help_heading = TOLD)]
    pub address: Option<PrefixedAddress>,
    /// Who forwards to other networks.
    #[arg(long, value_name = "IP", requires = "network", help_heading = TOLD)]
    pub gateway: Option<IpAddr>,
    /// A certificate (PEM) that the TPM does not hold, such as its maker's. Repeatable.
    #[arg(long, value_name = "FILE", requires = "network", help_heading = TOLD)]
    pub tpm_certificate: Vec<PathBuf>,
}
