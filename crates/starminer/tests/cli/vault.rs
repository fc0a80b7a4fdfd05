//! `vault seal` and `vault open`: files, pipes, and everything that goes wrong with them.

use std::fs::File;

use crate::{Cli, exit, has_keys};

const KEY: [&str; 2] = ["--key-file", "vault.key"];

/// A working directory with a key and three chunks of plaintext, sealed.
fn sealed() -> (Cli, Vec<u8>) {
    let cli = Cli::new();
    cli.run(["key", "new", "--secret", "vault.key"]).exits(exit::OK);
    let plain: Vec<u8> = (0..150_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    cli.write("plain", &plain);
    let said = cli.run(vault("seal", &["plain", "sealed"]));
    assert!(said.exits(exit::OK).starts_with("sealed 146.5 KiB"), "{said:?}");
    (cli, plain)
}

fn vault<'a>(direction: &'a str, rest: &[&'a str]) -> Vec<&'a str> {
    ["vault", direction].iter().chain(&KEY).chain(rest).copied().collect()
}

#[test]
fn files_and_pipes_are_the_same_format() {
    let (cli, plain) = sealed();
    assert!(!cli.read("sealed").windows(32).any(|window| window == &plain[1000..1032]));
    cli.run(vault("open", &["sealed", "opened"])).exits(exit::OK);
    assert_eq!(cli.read("opened"), plain);

    let (code, streamed, err) = cli.pipe(&vault("seal", &["-", "-"]), &plain);
    assert_eq!((code, err.as_str()), (0, ""), "a filter says nothing");
    cli.write("streamed", &streamed);
    cli.run(vault("open", &["streamed", "opened-2"])).exits(exit::OK);
    assert_eq!(cli.read("opened-2"), plain);
    let (code, opened, err) = cli.pipe(&vault("open", &["-", "-"]), &cli.read("sealed"));
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(opened, plain);
    // Half a pipe on either side.
    let (code, opened, _) = cli.pipe(&vault("open", &["sealed", "-"]), b"");
    assert_eq!((code, opened), (0, plain.clone()));
    let (code, _, _) = cli.pipe(&vault("open", &["-", "opened-3"]), &streamed);
    assert_eq!((code, cli.read("opened-3")), (0, plain));

    let (code, empty, _) = cli.pipe(&vault("seal", &["-", "-"]), b"");
    assert_eq!(code, 0);
    let (code, opened, _) = cli.pipe(&vault("open", &["-", "-"]), &empty);
    assert_eq!((code, opened), (0, Vec::new()));
}

#[test]
fn json_tells_lengths_and_the_content_id_and_keeps_out_of_the_data() {
    let (cli, plain) = sealed();
    let document = cli.run(vault("seal", &["plain", "s", "--json", "--content-id"])).json(exit::OK);
    has_keys(&document, &["content_id", "plain_bytes", "sealed_bytes"]);
    assert_eq!(document["plain_bytes"], plain.len());
    assert_eq!(document["sealed_bytes"], cli.read("s").len());
    assert_eq!(document["content_id"], blake3::hash(&cli.read("s")).to_hex().as_str());
    let opened = cli.run(vault("open", &["s", "o", "--json"])).json(exit::OK);
    assert!(opened["content_id"].is_null());

    let (code, sealed, err) = cli.pipe(&vault("seal", &["-", "-", "--json", "--content-id"]), &plain);
    assert_eq!(code, 0);
    let document: serde_json::Value = serde_json::from_str(&err).unwrap();
    assert_eq!(document["content_id"], blake3::hash(&sealed).to_hex().as_str(), "the document went beside the data");
    let (code, out, err) = cli.pipe(&vault("open", &["-", "-", "--json", "--name", "x"]), &sealed);
    assert_eq!((code, out.len()), (1, 0));
    let document: serde_json::Value = serde_json::from_str(&err).unwrap();
    assert_eq!(document["error"]["check"], "vault.object.key");
}

#[test]
fn the_name_is_bound() {
    let (cli, plain) = sealed();
    cli.run(vault("seal", &["plain", "named", "--name", "data.csv"])).exits(exit::OK);
    cli.run(vault("open", &["named", "o"])).fails(exit::REFUSED, "vault.object.key", "requester", "name");
    cli.run(vault("open", &["named", "o", "--name", "data.csv"])).exits(exit::OK);
    assert_eq!(cli.read("o"), plain);
}

#[test]
fn what_is_damaged_or_under_another_key_leaves_no_output() {
    let (cli, plain) = sealed();
    cli.run(["key", "new", "--secret", "other.key"]).exits(exit::OK);
    let before = cli.names();
    let wrong_key = ["vault", "open", "--key-file", "other.key", "sealed", "out"];
    cli.run(wrong_key).fails(exit::REFUSED, "vault.object.key", "requester", "secret");
    cli.run(wrong_key.iter().chain(&["--json"])).fails_in_json(
        exit::REFUSED,
        "vault.object.key",
        "requester",
        "sealed",
    );
    let (code, out, _) = cli.pipe(&["vault", "open", "--key-file", "other.key", "-", "-"], &cli.read("sealed"));
    assert_eq!((code, out.len()), (exit::REFUSED, 0));
    assert_eq!(cli.names(), before, "no output and nothing half-written");

    let sealed = cli.read("sealed");
    for (name, damaged, check) in [
        ("cut", sealed[..100_000].to_vec(), "vault.object.end"),
        ("cut in the header", sealed[..20].to_vec(), "vault.object.length"),
        ("empty", Vec::new(), "vault.object.length"),
        ("extended", [&sealed[..], b"x"].concat(), "vault.object.end"),
        ("not sealed", plain.clone(), "vault.object.not-an-object"),
        ("a bit", flipped(&sealed, 70_000), "vault.object.chunk"),
    ] {
        cli.write("damaged", &damaged);
        let before = cli.names();
        let said = cli.run(vault("open", &["damaged", "out"]));
        said.fails(exit::REFUSED, check, "requester", "damaged cannot be opened");
        assert_eq!(cli.names(), before, "{name}");
        let (code, out, err) = cli.pipe(&vault("open", &["-", "-"]), &damaged);
        assert_eq!(code, exit::REFUSED, "{name}: {err}");
        assert!(out.len() < plain.len() && plain.starts_with(&out), "{name}: only good chunks come out");
    }
}

fn flipped(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 1;
    bytes
}

#[test]
fn an_output_that_exists_is_kept_unless_forced() {
    let (cli, plain) = sealed();
    cli.write("kept", "old");
    cli.run(vault("open", &["sealed", "kept"])).fails(exit::UNUSABLE, "vault.exists", "requester", "kept exists");
    cli.run(vault("open", &["sealed", "kept", "--json"])).fails_in_json(
        exit::UNUSABLE,
        "vault.exists",
        "requester",
        "",
    );
    assert_eq!(cli.read("kept"), b"old");
    cli.run(vault("open", &["sealed", "kept", "--force"])).exits(exit::OK);
    assert_eq!(cli.read("kept"), plain);
    cli.write("damaged", flipped(&cli.read("sealed"), 70_000));
    cli.run(vault("open", &["damaged", "kept", "--force"])).exits(exit::REFUSED);
    assert_eq!(cli.read("kept"), plain, "a damaged file replaces nothing");
}

#[test]
fn places_that_cannot_be_read_or_written() {
    let (cli, plain) = sealed();
    let before = cli.names();
    for out in ["no/such/dir/out", "plain/out"] {
        cli.run(vault("open", &["sealed", out])).fails(exit::LOCAL, "vault.io", "requester", out);
    }
    cli.run(vault("seal", &["absent", "out"])).fails(exit::UNUSABLE, "vault.no-input", "requester", "absent");
    cli.run(vault("seal", &[".", "out"])).fails(exit::UNUSABLE, "vault.no-input", "requester", "directory");
    cli.run(vault("seal", &[".", "-"])).fails(exit::UNUSABLE, "vault.no-input", "requester", "directory");
    for not_a_file in [".", "/dev/null"] {
        let said = cli.run(vault("open", &["sealed", not_a_file, "--force"]));
        said.fails(exit::UNUSABLE, "vault.not-a-file", "requester", not_a_file);
    }
    let said = cli.run(["vault", "seal", "--key-file", "absent", "plain", "out"]);
    said.fails(exit::UNUSABLE, "key.unusable", "requester", "absent");
    cli.write("identity.txt", "starminer-key-v1 ed25519 00");
    let said = cli.run(["vault", "seal", "--key-file", "plain", "plain", "out"]);
    said.exits(exit::UNUSABLE);
    assert_eq!(cli.names().len(), before.len() + 1, "nothing but the file written here: {:?}", cli.names());

    // A full disk at the end of a pipe.
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = cli.command(vault("open", &["sealed", "-"])).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(exit::LOCAL), "{output:?}");
    assert!(String::from_utf8(output.stderr).unwrap().contains("No space left"));
    assert_eq!(cli.read("plain"), plain);
}
