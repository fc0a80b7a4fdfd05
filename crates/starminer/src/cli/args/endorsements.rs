//! Arguments of `endorsements …`.

use std::path::PathBuf;

use clap::Subcommand;
use starminer_endorsements::Base;
use starminer_hardware::endorsements::Key;

/// Heading of the options that say whom to ask.
const SERVICES: &str = "Services";

/// `endorsements` commands.
#[derive(Debug, Subcommand)]
pub enum EndorsementsCommand {
    /// Fetch what makers publish, verify it, and keep it in a directory.
    #[command(after_help = "\
Examples:
  starminer endorsements fetch store/ amd/crl/milan/vcek amd/chain/milan/vcek
  starminer endorsements fetch store/          renew what is there and due; --all renews everything
  starminer endorsements fetch store/ intel/root-crl intel/qe-identity/tdx \\
      --intel-pcs https://pccs.lab:8081 --server-ca pccs.pem

`starminer node doctor` names what a machine's evidence needs. Nothing is kept that does not verify
under its maker's root, or that is older than what was seen before. The services' addresses can also
stand in a file, --config:
  [sources]
  amd_kds = \"https://kdsintf.amd.com\"
  [sources.tpm]
  \"ftpm.amd.com\" = \"https://ftpm.amd.com\"
  [ages.amd_crl]
  fetched_hours = 48

Exit codes: 0 all were had, 1 one was refused, 4 one could not be had.")]
    Fetch(Box<FetchArgs>),
    /// Show what a directory or a bundle holds: age, next update, evaluation number.
    #[command(after_help = "\
Examples:
  starminer endorsements list store/
  starminer endorsements list bundle.json --json
  starminer endorsements list store/ --at 2027-01-01T00:00:00Z    what will still hold then

A directory may be in use meanwhile. Exit codes: 0 all of it can be used, 1 something cannot.")]
    List(ListArgs),
    /// Write all of a directory into one file, to carry to where there is no network.
    #[command(after_help = "\
Examples:
  starminer endorsements export store/ bundle.json
  starminer endorsements export store/ - | ssh offline starminer endorsements import store/ -")]
    Export(ExportArgs),
    /// Take a bundle into a directory: each item is verified anew, and nothing goes back.
    #[command(after_help = "\
Examples:
  starminer endorsements import store/ bundle.json
  starminer endorsements import store/ - --json < bundle.json

Exit codes: 0 all of it was taken, 1 something was refused.")]
    Import(ImportArgs),
}

/// By whose word and when.
#[derive(Debug, clap::Args)]
pub struct TrustArgs {
    /// A root besides the makers' own, of a test network: what it vouches for is SIMULATED. Repeatable.
    #[arg(long = "ca", value_name = "FILE", num_args = 1..)]
    pub roots: Vec<PathBuf>,
}

/// Arguments of `endorsements fetch`.
#[derive(Debug, clap::Args)]
pub struct FetchArgs {
    /// The directory; made where it is absent.
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// What to fetch, as specs/endorsements.md names it; else what is in DIR and due.
    #[arg(value_name = "KEY")]
    pub keys: Vec<Key>,
    /// Fetch all that is in DIR, due or not.
    #[arg(long, conflicts_with = "keys")]
    pub all: bool,
    /// By whose word.
    #[command(flatten)]
    pub trust: TrustArgs,
    /// The time to judge by, RFC 3339 or seconds since 1970; now otherwise.
    #[arg(long, value_name = "TIME")]
    pub at: Option<String>,
    /// Services, ages and politeness in TOML; options win over it.
    #[arg(long, value_name = "FILE", help_heading = SERVICES)]
    pub config: Option<PathBuf>,
    /// AMD's key distribution service, or a cache of it.
    #[arg(long, value_name = "URL", help_heading = SERVICES)]
    pub amd_kds: Option<Base>,
    /// Intel's provisioning certification service, or any PCCS.
    #[arg(long, value_name = "URL", help_heading = SERVICES)]
    pub intel_pcs: Option<Base>,
    /// The revocation list of Intel's root: the whole address.
    #[arg(long, value_name = "URL", help_heading = SERVICES)]
    pub intel_root_crl: Option<Base>,
    /// NVIDIA's service of manifests.
    #[arg(long, value_name = "URL", help_heading = SERVICES)]
    pub nvidia_rim: Option<Base>,
    /// NVIDIA's OCSP responder: the whole address.
    #[arg(long, value_name = "URL", help_heading = SERVICES)]
    pub nvidia_ocsp: Option<Base>,
    /// Where to ask a host that TPM certificates name. Repeatable.
    #[arg(long, value_name = "HOST=URL", value_parser = host, help_heading = SERVICES)]
    pub tpm_host: Vec<(String, Base)>,
    /// Authorities of the servers' TLS certificates, in the place of the web's. Repeatable.
    #[arg(long, value_name = "FILE", num_args = 1.., help_heading = SERVICES)]
    pub server_ca: Vec<PathBuf>,
}

fn host(text: &str) -> Result<(String, Base), String> {
    let (host, base) = text.split_once('=').ok_or("it is written as HOST=URL")?;
    let base = base.parse().map_err(|error: starminer_endorsements::NoBase| error.to_string())?;
    Ok((host.to_ascii_lowercase(), base))
}

/// Arguments of `endorsements list`.
#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// The directory, or a bundle; - is standard input.
    #[arg(value_name = "DIR|FILE")]
    pub from: PathBuf,
    /// By whose word.
    #[command(flatten)]
    pub trust: TrustArgs,
    /// Ages in TOML, as of `fetch`.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The time to judge by, RFC 3339 or seconds since 1970; now otherwise.
    #[arg(long, value_name = "TIME")]
    pub at: Option<String>,
}

/// Arguments of `endorsements export`.
#[derive(Debug, clap::Args)]
pub struct ExportArgs {
    /// The directory.
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// The bundle; - is standard output.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Overwrite FILE.
    #[arg(long, short)]
    pub force: bool,
    /// By whose word.
    #[command(flatten)]
    pub trust: TrustArgs,
    /// The time to judge by, RFC 3339 or seconds since 1970; now otherwise.
    #[arg(long, value_name = "TIME")]
    pub at: Option<String>,
}

/// Arguments of `endorsements import`.
#[derive(Debug, clap::Args)]
pub struct ImportArgs {
    /// The directory; made where it is absent.
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// The bundle; - is standard input.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// By whose word.
    #[command(flatten)]
    pub trust: TrustArgs,
    /// The time to judge by, RFC 3339 or seconds since 1970; now otherwise.
    #[arg(long, value_name = "TIME")]
    pub at: Option<String>,
}
