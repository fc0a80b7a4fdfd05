#![allow(clippy::unwrap_used)]

use std::process::{Command, Stdio};

use super::*;

fn told() -> Credentials {
    [
        ("node.toml.cred", &b"places = 1\n"[..]),
        ("network.toml.cred", b"x"),
        (".hidden.cred", b"y"),
        ("readme.txt", b"z"),
    ]
    .into_iter()
    .map(|(name, contents)| (name.to_owned(), contents.to_vec()))
    .collect()
}

#[test]
fn files_are_taken_by_their_names() {
    for (name, taken) in [("a.cred", true), ("A.CRED", true), (".cred", false), ("cred", false), ("é.cred", false)] {
        assert_eq!(is_credential(name), taken, "{name}");
    }
    let hidden: Credentials = told().into_iter().filter(|(name, _)| !is_credential(name)).collect();
    assert_eq!(archive(&hidden), None);
    assert_eq!(register_12(&hidden).to_hex(), "0".repeat(64));
}

/// A second opinion on the archive.
#[test]
fn cpio_reads_the_archive() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("archive");
    std::fs::write(&place, archive(&told()).unwrap()).unwrap();
    let input = std::fs::File::open(place).unwrap();
    let run = Command::new("cpio").args(["-tv", "--quiet"]).stdin(input).stderr(Stdio::null()).output();
    let Ok(run) = run else {
        eprintln!("skipped: cpio is not installed");
        return;
    };
    let list = String::from_utf8(run.stdout).unwrap();
    let entries: Vec<(&str, &str)> = list
        .lines()
        .filter_map(|line| Some((line.split_whitespace().next()?, line.split_whitespace().last()?)))
        .collect();
    let expected = [
        ("dr-xr-xr-x", ".extra"),
        ("dr-x------", ".extra/global_credentials"),
        ("-r--------", ".extra/global_credentials/network.toml.cred"),
        ("-r--------", ".extra/global_credentials/node.toml.cred"),
    ];
    assert_eq!(entries, expected);
}

#[test]
fn the_initial_file_system_is_padded_only_before_an_archive() {
    let plain = |initrd: &[u8]| kernel_events("quiet", initrd, &Credentials::new())[1];
    assert_eq!(plain(b"12345"), Bank::Sha256.hash(&[b"12345"]));
    let archive = archive(&told()).unwrap();
    assert_eq!(kernel_events("quiet", b"12345", &told())[1], Bank::Sha256.hash(&[b"12345\0\0\0", &archive]));
    assert_eq!(kernel_events("q", b"", &told())[0], Bank::Sha256.hash(&[b"q\0\0\0"]));
}
