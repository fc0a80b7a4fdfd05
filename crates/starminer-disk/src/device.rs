//! Which disk is the node's, and whether it is blank.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::error::DiskError;
use crate::header::{DATA_AT, Header, HeaderError, UNFINISHED};

/// The serial number of a virtual disk, or the label of a GPT partition, by which a node knows its disk. Also the name of the mapping, and of the header.
pub const LABEL: &str = "starminer-data";
/// Most block devices that are looked at.
const MAX_DEVICES: usize = 4096;
/// How often it is looked for: drivers announce it nowhere that is cheaper to wait on than this is to read.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// What has to be zero at the beginning and at the end of a blank disk: where every file system, volume manager and table of partitions has its marks.
const BLANK_BYTES: u64 = 16 << 20;
/// The smallest disk: the header's 16 MiB, and so much that its file system has a copy of the superblock, which is at 128 MiB.
pub(crate) const MIN_BYTES: u64 = 256 << 20;
const SECTOR_BYTES: u64 = 4096;

/// The node's disk, looked for in `/sys/class/block` of this root directory until `within` is over.
///
/// # Errors
/// [`DiskError::Absent`], [`DiskError::Ambiguous`], [`DiskError::Io`].
pub fn find(root: &Path, within: Duration) -> Result<PathBuf, DiskError> {
    let until = Instant::now() + within;
    loop {
        let mut found = labelled(&root.join("sys/class/block"))?.into_iter();
        match (found.next(), found.next()) {
            (Some(one), None) => return Ok(root.join("dev").join(one)),
            (Some(one), Some(other)) => return Err(DiskError::Ambiguous(one, other)),
            (None, _) if Instant::now() >= until => return Err(DiskError::Absent),
            (None, _) => sleep(LOOK_EVERY),
        }
    }
}

/// Names of devices that say that they are it.
fn labelled(class: &Path) -> Result<Vec<PathBuf>, DiskError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(class).map_err(DiskError::io(class))?.take(MAX_DEVICES) {
        let entry = entry.map_err(DiskError::io(class))?;
        let read = |name: &str| fs::read_to_string(entry.path().join(name)).unwrap_or_default();
        let partition = read("uevent").lines().any(|line| line.strip_prefix("PARTNAME=") == Some(LABEL));
        // A partition has no serial number of its own.
        if partition || read("serial").trim() == LABEL {
            found.push(PathBuf::from(entry.file_name()));
        }
    }
    found.sort();
    Ok(found)
}

/// Refuses sizes that LUKS2 with sectors of 4096 bytes does not take.
pub(crate) fn check_size(device: &Path) -> Result<(), DiskError> {
    let size_bytes = size(device)?;
    if size_bytes < MIN_BYTES || size_bytes % SECTOR_BYTES != 0 {
        return Err(DiskError::Size { path: device.into(), size_bytes });
    }
    Ok(())
}

fn size(device: &Path) -> Result<u64, DiskError> {
    // A block device's length is where it ends; its metadata does not say.
    let end = File::open(device).and_then(|mut file| file.seek(SeekFrom::End(0)));
    end.map_err(DiskError::io(device))
}

/// Stands where the data will begin from before a disk is formatted until its file system is made, which overwrites it: what is between may be torn.
const BEING_FORMATTED: &[u8] = b"starminer-data: this disk is being formatted\n";

/// Notes that it is being formatted. Durable when this returns.
pub(crate) fn mark(device: &Path) -> Result<(), DiskError> {
    let mut sector = [0; 4096];
    sector[..BEING_FORMATTED.len()].copy_from_slice(BEING_FORMATTED);
    let write = || -> std::io::Result<()> {
        let mut file = File::options().write(true).open(device)?;
        file.seek(SeekFrom::Start(DATA_AT))?;
        file.write_all(&sector)?;
        file.sync_all()
    };
    write().map_err(DiskError::io(device))
}

fn is_marked(device: &Path) -> Result<bool, DiskError> {
    let mut found = [0; BEING_FORMATTED.len()];
    let mut file = File::open(device).map_err(DiskError::io(device))?;
    file.seek(SeekFrom::Start(DATA_AT)).and_then(|_| file.read_exact(&mut found)).map_err(DiskError::io(device))?;
    Ok(found == BEING_FORMATTED)
}

/// Whether a disk with this header is to be formatted: a blank one, and one on which that was begun and not finished.
pub(crate) fn is_new(device: &Path, header: &Result<Header, HeaderError>) -> Result<bool, DiskError> {
    match header {
        Ok(header) => Ok(header.label == LABEL && header.subsystem == UNFINISHED),
        Err(HeaderError::None) => Ok(is_marked(device)? || is_blank(device)?),
        Err(HeaderError::Damaged(_)) => is_marked(device),
        Err(HeaderError::Foreign(_)) => Ok(false),
    }
}

/// Whether there is nothing on it.
fn is_blank(device: &Path) -> Result<bool, DiskError> {
    let size = size(device)?;
    let zero = |from: u64| -> std::io::Result<bool> {
        let mut file = File::open(device)?;
        file.seek(SeekFrom::Start(from))?;
        let mut rest = file.take(BLANK_BYTES);
        let mut buffer = vec![0; 1 << 20];
        loop {
            match rest.read(&mut buffer)? {
                0 => return Ok(true),
                read if buffer[..read].iter().any(|byte| *byte != 0) => return Ok(false),
                _ => {}
            }
        }
    };
    let ends = zero(0).and_then(|begin| Ok(begin && zero(size.saturating_sub(BLANK_BYTES))?));
    ends.map_err(DiskError::io(device))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_whose_formatting_was_cut_short_is_formatted_again_and_another_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("disk");
        File::create(&disk).unwrap().set_len(MIN_BYTES).unwrap();
        let new = |header: HeaderError| is_new(&disk, &Err(header)).unwrap();
        let damaged = || HeaderError::Damaged("its checksum");
        assert!(new(HeaderError::None) && !new(damaged()));
        // The room of the slots is filled before there is a header.
        let mut file = File::options().write(true).open(&disk).unwrap();
        file.seek(SeekFrom::Start(0x8000)).unwrap();
        file.write_all(&[0x5a; 4096]).unwrap();
        assert!(!new(HeaderError::None) && !new(damaged()));
        mark(&disk).unwrap();
        assert!(new(HeaderError::None) && new(damaged()));
        assert!(!new(HeaderError::Foreign("another".into())));
        // Once data begin there, nothing is formatted.
        file.seek(SeekFrom::Start(DATA_AT)).unwrap();
        file.write_all(&[0x77; 4096]).unwrap();
        assert!(!new(HeaderError::None) && !new(damaged()));
    }
}
