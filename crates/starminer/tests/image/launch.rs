//! What a TEE will measure of an image's launch, told from the image; against what is told from its parts, which objcopy takes out of it.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::firmware::FirmwareBuilder;
use crate::machine::{Lab, Storage};
use crate::support::{must, text};

/// The one value in a file.
fn measurement(file: &Path) -> String {
    let values: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    let [value] = values["values"].as_array().unwrap().as_slice() else { panic!("{values}") };
    value["measurement"].as_str().unwrap().to_owned()
}

/// A log of a trust domain: one event of its first register.
fn log() -> Vec<u8> {
    let mut head = b"Spec ID Event03\0".to_vec();
    head.extend([0, 0, 0, 0, 0, 2, 0, 2, 1, 0, 0, 0, 0x0c, 0, 48, 0, 0]);
    let mut log: Vec<u8> = [1_u32, 3].into_iter().flat_map(u32::to_le_bytes).collect();
    log.extend([0; 20]);
    log.extend(u32::try_from(head.len()).unwrap().to_le_bytes());
    log.extend(head);
    log.extend([1_u32, 0x8000_000b, 1].into_iter().flat_map(u32::to_le_bytes));
    log.extend([0x0c, 0]);
    log.extend([7; 48]);
    log.extend([1, 0, 0, 0, 0]);
    log
}

#[test]
fn a_launch_is_told_from_the_image() {
    let Some(lab) = Lab::new() else { return };
    let image = lab.build("image", "db", &[]);
    let dir = tempfile::tempdir().unwrap();
    let place = |name: &str| text(&dir.path().join(name));
    fs::write(place("firmware"), FirmwareBuilder::new().build()).unwrap();
    fs::write(place("log"), log()).unwrap();
    for (section, name) in [(".linux", "kernel"), (".initrd", "initrd"), (".cmdline", "command-line")] {
        let run = Command::new("objcopy")
            .args([
                "-O",
                "binary",
                "--only-section",
                section,
                "--set-section-flags",
                &format!("{section}=alloc,load,contents"),
            ])
            .args([text(&image.join("starminer-node.efi")), place(name)])
            .output()
            .unwrap();
        assert!(run.status.success(), "{run:?}");
    }
    let command_line = fs::read_to_string(place("command-line")).unwrap();
    let parts = ["--kernel", &place("kernel"), "--initrd", &place("initrd"), "--append", &command_line];
    let (firmware, log) = (place("firmware"), place("log"));
    let cases: [(&str, &[&str], &[&str]); 2] = [
        ("snp", &["--vcpus", "4", "--cpu", "EPYC-Genoa"], &[]),
        ("tdx", &["--eventlog", &log], &["--rtmr", "3=zeroes"]),
    ];
    for (tee, options, more) in cases {
        let [told, of_parts, told_more] = ["told", "parts", "more"].map(|name| place(&format!("{tee}-{name}.json")));
        let measure = ["image", "measure", &text(&image), "--tee", tee, "--firmware", &firmware, "--out", &told];
        must(measure.iter().chain(options));
        let reference = ["reference", tee, "--firmware", &firmware, "--out", &of_parts];
        must(reference.iter().chain(options).chain(more).chain(&parts));
        assert_eq!(measurement(Path::new(&told)), measurement(Path::new(&of_parts)), "{tee}");
        // What the host tells the node is in what it launches.
        let credentials = text(&lab.credentials("a trust file", Storage::Memory));
        let measure = ["image", "measure", &text(&image), "--tee", tee, "--firmware", &firmware, "--out", &told_more];
        must(measure.iter().chain(options).chain(&["--credentials", &credentials]));
        assert_ne!(measurement(Path::new(&told_more)), measurement(Path::new(&told)), "{tee}");
    }
}
