//! `starminer node disk …`: what a node's disk says of itself. Opening it is the image's first process's alone.

use starminer_disk::{DiskError, DiskKind, status};

use super::args::DiskCommand;
use super::exit::{self, Failure};
use super::home::with_sources;
use super::terminal::{Terminal, human_bytes};

/// Tells a disk.
pub fn disk(terminal: &Terminal, command: &DiskCommand) -> Result<u8, Failure> {
    let DiskCommand::Status(args) = command;
    let found = status(&args.device).map_err(|error| {
        let reason = format!("{}: {}", args.device.display(), with_sources(&error));
        match error {
            DiskError::Io { .. } => {
                Failure::local(error.code(), with_sources(&error), "name a device or a file that can be read")
            }
            _ => Failure::usage(error.code(), reason, "name a device or a file with a LUKS2 disk in it"),
        }
    })?;
    let kind = match found.kind {
        DiskKind::Node => "a node's disk",
        DiskKind::Unfinished => "a node's disk whose making was interrupted: the next start makes it anew",
        DiskKind::Other => "LUKS2, and no node's disk",
    };
    terminal.result(format!("disk       {kind} (UUID {})", found.uuid));
    for segment in &found.segments {
        terminal.result(format!(
            "encrypted  {}, a key of {} bits, sectors of {} bytes, from {} on",
            segment.encryption,
            segment.key_bits,
            segment.sector_bytes,
            human_bytes(segment.offset_bytes)
        ));
    }
    for by in &found.unlocked_by {
        terminal.result(format!("unlocked   by {by}"));
    }
    if let Some(reason) = &found.not_taken {
        terminal.result(format!("not taken  no node opens it: {reason}"));
    }
    terminal.document(&serde_json::json!(found));
    Ok(exit::OK)
}
