//! Arguments of `node doctor`.

use std::path::PathBuf;

/// Arguments of `node doctor`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sudo starminer node doctor      what this machine can prove, and how to make it prove more
  starminer node doctor --network net/coordinator/network.toml --data-dir net/node1
  starminer node doctor --endorsements store/ --policy policy.toml --json
  starminer node doctor --tpm /run/swtpm/socket --network network.toml

It reads devices, logs and settings, has the TPM and the TEE make evidence, and judges that as a
verifier would; it changes nothing. What only root may read is not checked without root, and what is
not checked counts for nothing. A TPM is enrolled on trial, here alone.

Exit codes: 0 the tier that was asked for is reached (`measured`, or all of --policy), 1 it is not.")]
pub struct DoctorArgs {
    /// A stand-in for the machine's root directory: devices and files are looked for below it [default: the settings' root, or /].
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// The TPM: a device, an emulator's socket, or ADDRESS:PORT [default: the settings' TPM, or dev/tpmrm0 below the root].
    #[arg(long, value_name = "ADDRESS")]
    pub tpm: Option<String>,
    /// The node's directory, below which tasks leave what they leave on a disk.
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    pub data_dir: Option<PathBuf>,
    /// The node's settings (agent.toml): its directory, its TPM, its network.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A policy to be met, in TOML or JSON; the strict rules of each tier otherwise.
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// The network's trust file: reference values, and the simulated roots that it names.
    #[arg(long, value_name = "FILE")]
    pub network: Option<PathBuf>,
    /// Endorsements: a directory of `starminer endorsements`, or a bundle.
    #[arg(long, value_name = "DIR|FILE")]
    pub endorsements: Option<PathBuf>,
    /// Certificates of a test network's makers, roots and others: what they vouch for is SIMULATED. Repeatable.
    #[arg(long = "ca", value_name = "FILE", num_args = 1..)]
    pub authorities: Vec<PathBuf>,
    /// The time to judge by, RFC 3339 or seconds since 1970; now otherwise.
    #[arg(long, value_name = "TIME")]
    pub at: Option<String>,
    /// Longest time for each device, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 90, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub patience: u64,
}
