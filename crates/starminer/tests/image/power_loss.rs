//! What a disk holds after a loss of power: all that was flushed, and of what came later any part.
//!
//! A machine that is killed leaves all its writes behind, since they are in this machine's memory; a plug that is pulled does not. So QEMU logs writes and flushes of the
//! disk while the machine runs (`blklogwrites`, in the format of Linux's device mapper target `log-writes`), and the disk after the loss is made from that before the start
//! and a part of the log.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::support::moments::Moments;

/// Begins a log ("log-writes" target, `struct log_write_super`).
const MAGIC: u64 = 0x006a_7366_7773_6872;
const VERSION: u64 = 1;
/// Sectors of disk and log, as QEMU was told.
const SECTOR_BYTES: u64 = 512;
/// Of an entry: everything before it is on the medium; it is on the medium itself; its sectors hold nothing any more.
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;
/// Writes are cut here at the most: no virtual disk is sent longer ones.
const MAX_WRITE_BYTES: u64 = 64 << 20;

struct Write {
    offset: u64,
    flags: u64,
    bytes: Vec<u8>,
}

/// What became of a log.
#[derive(Debug, PartialEq, Eq)]
pub struct Kept {
    /// Writes before the last flush, and later ones that asked to be on the medium: all are there.
    pub flushed: usize,
    /// Later writes: how many there were, and how many of them are there whole.
    pub later: usize,
    pub later_whole: usize,
}

/// Makes `disk`, as it was when the machine was switched on, what it is after the power was lost at the end of `log`. Writes after the last flush are there, missing, or torn between
/// sectors, as drawn.
pub fn lose_power(disk: &Path, log: &Path, moments: &mut Moments) -> Kept {
    let writes = read_log(log);
    let disk = OpenOptions::new().write(true).open(disk).unwrap();
    let flushed = writes.iter().rposition(|write| write.flags & FLUSH != 0).map_or(0, |last| last + 1);
    let mut kept = Kept { flushed: 0, later: 0, later_whole: 0 };
    for (place, write) in writes.iter().enumerate() {
        if write.flags & DISCARD != 0 || write.bytes.is_empty() {
            continue;
        }
        let sectors = write.bytes.len() as u64 / SECTOR_BYTES;
        let there = if place < flushed || write.flags & FUA != 0 {
            kept.flushed += 1;
            sectors
        } else {
            kept.later += 1;
            match moments.below(3) {
                0 => 0,
                1 => moments.below(sectors + 1),
                _ => sectors,
            }
        };
        kept.later_whole += usize::from(place >= flushed && write.flags & FUA == 0 && there == sectors);
        let there = usize::try_from(there * SECTOR_BYTES).unwrap();
        disk.write_all_at(&write.bytes[..there], write.offset).unwrap();
    }
    disk.sync_all().unwrap();
    kept
}

/// The entries of a log that was cut off anywhere: its heading counts them only from time to time, and a zero one is none.
fn read_log(path: &Path) -> Vec<Write> {
    let file = File::open(path).unwrap();
    let length = file.metadata().unwrap().len();
    let mut file = BufReader::new(file);
    let mut heading = [0; 28];
    file.read_exact(&mut heading).unwrap();
    let number = |bytes: &[u8], place: usize| u64::from_le_bytes(bytes[place..place + 8].try_into().unwrap());
    assert_eq!((number(&heading, 0), number(&heading, 8)), (MAGIC, VERSION));
    assert_eq!(u64::from(u32::from_le_bytes(heading[24..28].try_into().unwrap())), SECTOR_BYTES);
    let (mut writes, mut at) = (Vec::new(), SECTOR_BYTES);
    while at + SECTOR_BYTES <= length {
        file.seek(SeekFrom::Start(at)).unwrap();
        let mut entry = [0; 32];
        file.read_exact(&mut entry).unwrap();
        let (offset, sectors, flags) =
            (number(&entry, 0) * SECTOR_BYTES, number(&entry, 8) * SECTOR_BYTES, number(&entry, 16));
        if (offset, sectors, flags) == (0, 0, 0) {
            break;
        }
        at += SECTOR_BYTES;
        let data = if flags & DISCARD != 0 { 0 } else { sectors };
        assert!(data <= MAX_WRITE_BYTES);
        if at + data > length {
            // The last write was cut off on its way into the log.
            break;
        }
        let mut bytes = vec![0; usize::try_from(data).unwrap()];
        file.seek(SeekFrom::Start(at)).unwrap();
        file.read_exact(&mut bytes).unwrap();
        at += data;
        writes.push(Write { offset, flags, bytes });
    }
    writes
}

#[test]
fn what_was_flushed_is_there_and_of_the_rest_any_part() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, log) = (dir.path().join("disk"), dir.path().join("log"));
    let mut bytes = Vec::new();
    let sector = |bytes: &mut Vec<u8>, numbers: &[u64]| {
        let mut sector: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        sector.resize(512, 0);
        bytes.extend(sector);
    };
    sector(&mut bytes, &[MAGIC, VERSION, 0, 512]);
    for (first, sectors, flags, content) in
        [(0, 2, 0, 0xa1), (8, 1, 0, 0xa2), (0, 0, FLUSH, 0), (16, 4, 0, 0xb1), (32, 1, FUA, 0xb2)]
    {
        sector(&mut bytes, &[first, sectors, flags, 0]);
        bytes.extend(vec![content; usize::try_from(sectors).unwrap() * 512]);
    }
    // The next entry is cut off within its content.
    sector(&mut bytes, &[40, 8, 0, 0]);
    bytes.extend([0xc1; 512]);
    std::fs::write(&log, &bytes).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..64 {
        std::fs::write(&disk, vec![0; 64 * 512]).unwrap();
        let kept = lose_power(&disk, &log, &mut Moments(seed));
        assert_eq!((kept.flushed, kept.later), (3, 1));
        let after = std::fs::read(&disk).unwrap();
        let of = |sectors: std::ops::Range<usize>, content: u8| {
            after[sectors.start * 512..sectors.end * 512].iter().filter(|byte| **byte == content).count()
        };
        assert_eq!((of(0..2, 0xa1), of(8..9, 0xa2), of(32..33, 0xb2), of(40..48, 0)), (1024, 512, 512, 8 * 512));
        let torn = of(16..20, 0xb1);
        assert_eq!(torn + of(16..20, 0), 4 * 512);
        assert_eq!(kept.later_whole, usize::from(torn == 4 * 512));
        seen.insert(torn);
    }
    assert!(seen.contains(&0) && seen.contains(&2048) && seen.len() > 2, "{seen:?}");
}
