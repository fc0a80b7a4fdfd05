//! Logs of firmware and kernel from stand-in trees, with recorded contents.

#![allow(clippy::unwrap_used)]

mod recorded;

use std::fs;
use std::path::Path;

use recorded::vector;
use starminer_attester::{LogError, Logs, MAX_EVENT_LOG_BYTES, MAX_IMA_BYTES};
use starminer_hardware::{event_log, ima};

const UEFI: &str = "sys/kernel/security/tpm0/binary_bios_measurements";
const CCEL: &str = "sys/firmware/acpi/tables/data/CCEL";
const IMA: &str = "sys/kernel/security/ima/binary_runtime_measurements";

fn tree(path: &str, contents: &[u8]) -> (tempfile::TempDir, Logs) {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join(path);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, contents).unwrap();
    let logs = Logs::at(root.path());
    (root, logs)
}

#[test]
fn recorded_event_logs() {
    let Some(log) = vector("eventlog/ubuntu-2404-amd-sevsnp.bin") else { return };
    assert_eq!(tree(UEFI, &log).1.uefi().unwrap(), log);
    assert_eq!(tree(CCEL, &log).1.ccel().unwrap(), log);
    // The firmware's table is as long as it reserved; the verifier passes over what was not used.
    let table = [log.as_slice(), &[0xff; 30_000]].concat();
    let read = tree(CCEL, &table).1.ccel().unwrap();
    assert_eq!(event_log::EventLog::parse(&read).unwrap().padding_bytes(), 30_000);
}

/// Which of the logs to read.
type Read = fn(&Logs) -> Result<Vec<u8>, LogError>;

#[test]
fn missing_unreadable_and_endless() {
    let readers: [(&str, Read, usize); 3] = [
        (UEFI, Logs::uefi, MAX_EVENT_LOG_BYTES),
        (CCEL, Logs::ccel, MAX_EVENT_LOG_BYTES),
        (IMA, Logs::ima, MAX_IMA_BYTES),
    ];
    for (path, read, max_bytes) in readers {
        assert_eq!(read(&tree("sys/other", b"").1).unwrap_err().code(), "log.missing", "{path}");
        assert_eq!(read(&tree(path, b"").1).unwrap_err().code(), "log.missing", "{path}");
        assert_eq!(read(&tree(&format!("{path}/folder"), b"").1).unwrap_err().code(), "log.unreadable", "{path}");
        let (root, logs) = tree(path, b"");
        // Holes: only what is read costs anything.
        fs::File::options().write(true).open(root.path().join(path)).unwrap().set_len(max_bytes as u64 + 1).unwrap();
        assert_eq!(read(&logs).unwrap_err().code(), "log.too-long", "{path}");
        let (root, logs) = tree(path, b"");
        fs::remove_file(root.path().join(path)).unwrap();
        std::os::unix::fs::symlink(Path::new("/etc/passwd"), root.path().join(path)).unwrap();
        assert_eq!(read(&logs).unwrap_err().code(), "log.unreadable", "{path} leads out of the tree");
    }
}

fn entry(template: &[u8], data: &[u8]) -> Vec<u8> {
    let word = |bytes: &[u8]| (bytes.len() as u32).to_le_bytes();
    let head = [&10u32.to_le_bytes()[..], &[1; 20], &word(template), template].concat();
    match template {
        b"ima" => [&head[..], &[2; 20], &word(data), data].concat(),
        _ => [&head[..], &word(data), data].concat(),
    }
}

/// `d-ng|n-ng` fields: a SHA-256 and a path.
fn ima_ng(path: &[u8]) -> Vec<u8> {
    let digest = [b"sha256:\0".as_slice(), &[3; 32]].concat();
    let path = [path, b"\0"].concat();
    let field = |bytes: &[u8]| [&(bytes.len() as u32).to_le_bytes()[..], bytes].concat();
    entry(b"ima-ng", &[field(&digest), field(&path)].concat())
}

#[test]
fn ima_is_cut_after_its_last_whole_entry() {
    let entries = [ima_ng(b"boot_aggregate"), entry(b"ima", b"/init"), ima_ng(b"/bin/sh")];
    let ends: Vec<usize> = (1..=entries.len()).map(|count| entries[..count].concat().len()).collect();
    let list = entries.concat();
    for length in 0..=list.len() {
        let (_root, logs) = tree(IMA, &list[..length]);
        let read = logs.ima();
        match ends.iter().rev().find(|end| **end <= length) {
            Some(end) => {
                let read = read.unwrap();
                assert_eq!(read, list[..*end], "of {length} bytes");
                // The verifier's own parser agrees that these are whole entries.
                let count = ends.iter().position(|other| other == end).unwrap() + 1;
                assert_eq!(ima::MeasurementList::parse(&read).unwrap().len(), count);
            }
            None if length == 0 => assert_eq!(read.unwrap_err().code(), "log.missing"),
            None => assert_eq!(read.unwrap_err().code(), "log.malformed"),
        }
    }
}

#[test]
fn digests_of_every_bank() {
    for digest_bytes in [20, 32, 48, 64] {
        let [good, next] = [&b"boot_aggregate"[..], b"/bin/sh"].map(|path| {
            let entry = ima_ng(path);
            [&entry[..4], &vec![1; digest_bytes], &entry[24..]].concat()
        });
        let list = [&good[..], &next[..next.len() - 1]].concat();
        assert_eq!(tree(IMA, &list).1.ima().unwrap(), good, "digests of {digest_bytes} bytes");
    }
}

#[test]
fn absurd_ima_lists() {
    let good = ima_ng(b"boot_aggregate");
    let long_name = [&10u32.to_le_bytes()[..], &[0; 20], &65u32.to_le_bytes(), &[b'x'; 65]].concat();
    let long_data =
        [&10u32.to_le_bytes()[..], &[0; 20], &6u32.to_le_bytes(), b"ima-ng", &u32::MAX.to_le_bytes()].concat();
    for absurd in [long_name, long_data, vec![0xff; 200]] {
        assert_eq!(tree(IMA, &absurd).1.ima().unwrap_err().code(), "log.malformed");
        assert_eq!(tree(IMA, &[good.clone(), absurd].concat()).1.ima().unwrap_err().code(), "log.malformed");
    }
}
