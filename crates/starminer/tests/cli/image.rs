//! `image measure` and `host run` where something is missing or wrong. What they do is shown with real machines, in `tests/image`.

use serde_json::json;

use crate::{Cli, exit};

#[test]
fn what_is_no_image_is_not_measured() {
    let cli = Cli::new();
    let measure = |more: &[&str]| {
        cli.run([&["image", "measure", "image", "--firmware", "fw", "--out", "values.json"], more].concat())
    };
    measure(&[]).fails(exit::UNUSABLE, "file.unreadable", "node", "manifest.json");
    std::fs::create_dir(cli.path("image")).unwrap();
    for (manifest, reason) in [
        (json!({}), "missing field"),
        (json!({"format": "x", "builder": "0", "authenticode_sha256": "", "inputs": []}), "not of the format"),
    ] {
        cli.write("image/manifest.json", manifest.to_string());
        measure(&["--json"]).fails_in_json(exit::UNUSABLE, "image.manifest", "node", reason);
    }
    assert!(!cli.path("values.json").exists());
}

#[test]
fn a_tee_that_is_asked_for_is_not_replaced_by_something_else() {
    let cli = Cli::new();
    for (tee, reason) in [("snp", "no SEV-SNP guest can be run"), ("tdx", "no TDX guest can be run")] {
        let run = ["host", "run", "image", "--state", "state", "--credentials", "told", "--accel", "tcg", "--tee", tee];
        cli.run(run).fails(exit::LOCAL, "host.tee", "node", reason);
    }
    cli.run(["host", "run", "image", "--state", "state"]).exits(exit::UNUSABLE);
    // Nor is a disk sealed to a TPM that the host has as well.
    let run = ["host", "run", "image", "--state", "state", "--credentials", "told", "--accel", "tcg", "--tee", "none"];
    cli.run([&run[..], &["--tpm", "/dev/tpm0", "--disk", "disk.raw:64M"]].concat()).fails(
        exit::UNUSABLE,
        "host.disk",
        "node",
        "is not reset with a guest",
    );
    assert!(!cli.path("state").exists() && !cli.path("disk.raw").exists());
}

#[test]
fn what_no_node_could_read_is_not_told_to_one() {
    let cli = Cli::new();
    cli.run(["coordinator", "init", "net", "--name", "lab", "--listen", "127.0.0.1:7443", "--software-tee"])
        .exits(exit::OK);
    let trust = std::fs::read_to_string(cli.path("net/network.toml")).unwrap();
    cli.write("named.toml", trust.replace("127.0.0.1:7443", "coordinator.example:7443"));
    let run = |more: &[&str]| {
        let common = ["host", "run", "image", "--state", "state", "--tee", "none", "--accel", "tcg"];
        cli.run([&common, more].concat())
    };
    for address in ["10.0.2.15", "10.0.2.15/33", "node/24", "10.0.2.15/-1"] {
        run(&["--network", "net/network.toml", "--address", address]).exits(exit::UNUSABLE);
    }
    for (network, reason) in [("named.toml", "looks no names up"), ("net/coordinator.toml", "network.toml.cred: ")] {
        let told = ["--network", network, "--address", "10.0.2.15/24"];
        run(&told).fails(exit::UNUSABLE, "host.told", "node", reason);
    }
    let files = |node: &str| {
        cli.write("told/node.toml.cred", node);
        run(&["--credentials", "told"])
    };
    std::fs::create_dir(cli.path("told")).unwrap();
    files("address = \"10.0.2.15/24\"").fails(exit::UNUSABLE, "host.told", "node", "there is no network.toml.cred");
    cli.write("told/network.toml.cred", &trust);
    for (node, reason) in [
        ("", "missing field `address`"),
        ("address = \"10.0.2.15\"", "the length of its network's prefix"),
        ("address = ", "node.toml.cred: "),
    ] {
        files(node).fails(exit::UNUSABLE, "host.told", "node", reason);
    }
    // What a node could read is taken, and what is wrong then is that there is no image.
    files("address = \"fd00::2/64\"\nplaces = 2").fails(exit::UNUSABLE, "file.unreadable", "node", "manifest.json");
    for number in 0..64 {
        cli.write(&format!("told/{number}.cred"), "");
    }
    files("").fails(exit::UNUSABLE, "measure.credentials", "node", "more than 64 files");
    assert!(!cli.path("state").exists());
}
