//! Arguments of `node disk …`.

use std::path::PathBuf;

use clap::Subcommand;

/// `node disk` commands.
#[derive(Debug, Subcommand)]
pub enum DiskCommand {
    /// What is encrypted with what, and unlocked by what: read from the disk's header, which is its own word.
    #[command(after_help = "\
Examples:
  starminer node disk status /dev/disk/by-partlabel/starminer-data
  starminer node disk status disk.img --json

Nothing is opened or written. A disk that a node would not open says why (\"not taken\").")]
    Status(DiskStatusArgs),
}

/// Arguments of `node disk status`.
#[derive(Debug, clap::Args)]
pub struct DiskStatusArgs {
    /// A block device, or a file with a disk in it.
    #[arg(value_name = "DEVICE")]
    pub device: PathBuf,
}
