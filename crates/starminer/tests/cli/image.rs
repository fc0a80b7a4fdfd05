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
    assert!(!cli.path("state").exists());
}
