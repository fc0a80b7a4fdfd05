//! `node disk status`: what it says of files that are no disk. What it says of a node's disk is held where one is made (`tests/image`).

use std::process::{Command, Stdio};

use crate::{Cli, exit, has_keys};

#[test]
fn what_is_no_disk_is_told_with_a_code() {
    let cli = Cli::new();
    cli.write("empty", "");
    cli.write("text", "no disk at all\n".repeat(9_999));
    cli.write("damaged", [&b"LUKS\xba\xbe\x00\x02"[..], &[0; 65_536]].concat());
    for (name, code) in [("empty", "disk.no-luks2"), ("text", "disk.no-luks2"), ("damaged", "disk.header-damaged")] {
        cli.run(["node", "disk", "status", name]).fails(exit::UNUSABLE, code, "requester", name);
        cli.run(["node", "disk", "status", name, "--json"]).fails_in_json(exit::UNUSABLE, code, "requester", name);
    }
    cli.run(["node", "disk", "status", "none"]).fails(exit::LOCAL, "disk.io", "requester", "none");
}

#[test]
fn another_luks2_disk_is_told_as_it_is() {
    let cli = Cli::new();
    cli.write("disk", vec![0; 32 << 20]);
    let made = Command::new("/usr/sbin/cryptsetup")
        .args([
            "luksFormat",
            "--batch-mode",
            "--type",
            "luks2",
            "--pbkdf",
            "pbkdf2",
            "--pbkdf-force-iterations",
            "1000",
            "--key-file",
        ])
        .args([cli.path("disk"), cli.path("disk")])
        .args(["--keyfile-size", "64"])
        .stderr(Stdio::null())
        .status();
    if made.is_err() {
        println!("skipped: cryptsetup is not installed (Debian: cryptsetup-bin)");
        return;
    }
    assert!(made.unwrap().success());
    let told = cli.run(["node", "disk", "status", "disk"]);
    let told = told.exits(exit::OK);
    assert!(
        told.contains("no node's disk") && told.contains("aes-xts-plain64") && told.contains("not taken"),
        "{told}"
    );
    assert!(told.contains("1 passphrases or key files"), "{told}");
    let told = cli.run(["node", "disk", "status", "disk", "--json"]).json(exit::OK);
    has_keys(&told, &["label", "uuid", "kind", "not_taken", "segments", "key_slots", "unlocked_by"]);
    assert_eq!((told["kind"].as_str(), told["key_slots"].as_u64()), (Some("other"), Some(1)));
}
