//! Headers that cryptsetup writes, read; and headers that whoever has a disk might write, refused. Skipped, with a printed word, where cryptsetup is not installed.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod words;

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use aws_lc_rs::digest;
use serde_json::{Value, json};
use starminer_disk::header::{Header, HeaderError};
use starminer_disk::{DiskError, DiskKind, status};
use words::FORMAT;

const HEADER_BYTES: usize = 0x4000;

fn cryptsetup(words: &str, disk: &Path, input: &[u8]) -> Option<String> {
    let mut child = Command::new("/usr/sbin/cryptsetup")
        .args(words.split_whitespace())
        .arg(disk)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .inspect_err(|_| println!("skipped: cryptsetup is not installed"))
        .ok()?;
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{words}: {output:?}");
    Some(String::from_utf8(output.stdout).unwrap())
}

/// A disk, formatted with these words.
fn disk(words: &str) -> Option<(tempfile::TempDir, PathBuf)> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.img");
    File::create(&path).unwrap().set_len(64 << 20).unwrap();
    cryptsetup(words, &path, &[7; 64])?;
    Some((dir, path))
}

/// Both copies with other metadata, and checksums that hold.
fn rewritten(disk: &[u8], alter: impl Fn(&mut Value)) -> Vec<u8> {
    let mut disk = disk[..2 * HEADER_BYTES].to_vec();
    for copy in disk.chunks_mut(HEADER_BYTES) {
        let text = copy[4096..].split(|byte| *byte == 0).next().unwrap();
        let mut metadata = serde_json::from_slice(text).unwrap();
        alter(&mut metadata);
        let text = serde_json::to_vec(&metadata).unwrap();
        copy[4096..].fill(0);
        copy[4096..4096 + text.len()].copy_from_slice(&text);
        seal(copy);
    }
    disk
}

fn seal(copy: &mut [u8]) {
    copy[448..512].fill(0);
    let sum = digest::digest(&digest::SHA256, copy);
    copy[448..480].copy_from_slice(sum.as_ref());
}

#[test]
fn what_cryptsetup_writes_is_read_and_taken() {
    let Some((_dir, path)) = disk(FORMAT) else { return };
    let bytes = fs::read(&path).unwrap();
    let header = Header::parse(&bytes).unwrap();
    assert_eq!((header.label.as_str(), header.subsystem.as_str()), ("starminer-data", "job-storage"));
    let dumped = cryptsetup("luksDump --dump-json-metadata", &path, &[]).unwrap();
    assert_eq!(header.metadata, serde_json::from_str::<Value>(&dumped).unwrap());
    assert!(header.layout().is_ok());
    let found = status(&path).unwrap();
    let no_token = "it holds no key that a TPM sealed for a node";
    assert_eq!((found.kind, found.key_slots, found.not_taken.as_deref()), (DiskKind::Node, 1, Some(no_token)));
    assert_eq!(found.segments[0].encryption, "aes-xts-plain64");
    assert_eq!((found.segments[0].key_bits, found.segments[0].sector_bytes), (512, 4096));
    assert_eq!(found.unlocked_by, ["1 passphrases or key files"]);
    // What is handed to cryptsetup holds one copy, and opens all the same.
    let copy = path.with_extension("header");
    fs::write(&copy, header.alone(&bytes)).unwrap();
    cryptsetup("open --test-passphrase --type luks2 --key-slot 0 --key-file - --keyfile-size 64", &copy, &[7; 64])
        .unwrap();
    File::options().write(true).open(&path).unwrap().set_len(1 << 20).unwrap();
    let cut = status(&path).unwrap();
    assert!(cut.not_taken.unwrap().contains("cut off: it ends after 1048576 bytes"));
}

#[test]
fn headers_that_this_program_never_writes_are_not_taken() {
    let Some((_dir, path)) = disk(FORMAT) else { return };
    let bytes = fs::read(&path).unwrap();
    let alterations: [(&str, &str, Value); 17] = [
        ("data that is not encrypted", "/segments/0/encryption", json!("cipher_null-ecb")),
        ("data without encryption", "/segments/0/type", json!("linear")),
        ("another cipher", "/segments/0/encryption", json!("aes-cbc-plain")),
        ("data elsewhere", "/segments/0/offset", json!("33554432")),
        ("some of the data", "/segments/0/size", json!("4096")),
        ("another tweak", "/segments/0/iv_tweak", json!("8")),
        ("other sectors", "/segments/0/sector_size", json!(512)),
        ("a key that anybody opens", "/keyslots/0/area/encryption", json!("cipher_null-ecb")),
        ("a shorter key", "/keyslots/0/key_size", json!(32)),
        ("a slot of re-encryption", "/keyslots/0/type", json!("reencrypt")),
        ("a short split", "/keyslots/0/af/stripes", json!(1)),
        ("a key derived otherwise", "/keyslots/0/kdf/type", json!("argon2id")),
        ("a digest of another slot", "/digests/0/keyslots", json!(["1"])),
        ("a second slot", "/keyslots/1", json!({})),
        ("a second segment", "/segments/1", json!({})),
        ("flags", "/config/flags", json!(["allow-discards"])),
        ("requirements", "/config/requirements", json!({"mandatory": ["online-reencrypt"]})),
    ];
    for (what, place, value) in alterations {
        let altered = rewritten(&bytes, |metadata| {
            let (parent, field) = place.rsplit_once('/').unwrap();
            metadata.pointer_mut(parent).unwrap()[field] = value.clone();
        });
        let header = Header::parse(&altered).unwrap_or_else(|error| panic!("{what}: {error}"));
        let refused = header.layout().unwrap_err();
        assert!(matches!(refused, HeaderError::Foreign(_)), "{what}: {refused}");
        assert_eq!(refused.code(), "disk.header-foreign");
    }
    assert!(Header::parse(&rewritten(&bytes, |_| ())).unwrap().layout().is_ok());
    // Another way of making LUKS2 disks, by the same program.
    let words = FORMAT.replace("--sector-size 4096", "--sector-size 512").replace("starminer-data", "other");
    let (_dir, other) = disk(&words).unwrap();
    let found = status(&other).unwrap();
    assert!(found.kind == DiskKind::Other && found.not_taken.is_some(), "{found:?}");
}

#[test]
fn damaged_headers_are_told_and_the_other_copy_counts() {
    let Some((_dir, path)) = disk(FORMAT) else { return };
    let bytes = fs::read(&path).unwrap()[..2 * HEADER_BYTES].to_vec();
    let whole = Header::parse(&bytes).unwrap();
    // All but what stands behind the checksum, which is shorter than its field.
    for at in (0..HEADER_BYTES).step_by(37).filter(|at| !(480..512).contains(at)) {
        let mut altered = bytes.clone();
        altered[at] ^= 1;
        // The second copy is as good.
        assert_eq!(Header::parse(&altered).unwrap().metadata, whole.metadata, "byte {at}");
        altered[HEADER_BYTES + at] ^= 1;
        assert!(Header::parse(&altered).is_err(), "byte {at} of both");
    }
    for length in (0..bytes.len()).step_by(509) {
        let cut = Header::parse(&bytes[..length]);
        assert!(cut.is_err() || length >= HEADER_BYTES, "{length} bytes");
    }
    // The newer copy counts, wherever it stands.
    let mut newer = rewritten(&bytes, |_| ());
    newer[HEADER_BYTES + 23] += 1;
    seal(&mut newer[HEADER_BYTES..]);
    let header = Header::parse(&newer).unwrap();
    assert_eq!((header.at, header.sequence), (HEADER_BYTES, whole.sequence + 1));
    let alone = header.alone(&newer);
    assert!(alone[..HEADER_BYTES].iter().all(|byte| *byte == 0) && Header::parse(&alone).unwrap() == header);
}

#[test]
fn what_is_no_disk_has_a_code() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let code = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        status(&path).unwrap_err().code()
    };
    assert_eq!(code(b""), "disk.no-luks2");
    assert_eq!(code(&[0; 65536]), "disk.no-luks2");
    let mut luks = b"LUKS\xba\xbe\x00\x02".to_vec();
    luks.resize(65536, 0);
    assert_eq!(code(&luks), "disk.header-damaged");
    let missing = status(&dir.path().join("none")).unwrap_err();
    assert!(matches!(missing, DiskError::Io { .. }) && missing.code() == "disk.io", "{missing}");
}
