//! Programs that skip a step of the evidence spine do not compile.
//!
//! Each file of `compile_fail/` is such a program; its first line names the error codes that the compiler must give,
//! exactly those. `control.rs` takes every step and must compile, so that no program fails for want of a
//! library. The compiler is called directly on the library that this test is linked with: nothing is built
//! twice. Messages are not compared, because they change from one release of the compiler to the next; codes do not.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

/// The newest build of this crate's library beside the running test.
fn library(dependencies: &Path) -> PathBuf {
    fs::read_dir(dependencies)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            name.starts_with("libstarminer_verify-") && name.ends_with(".rlib")
        })
        .max_by_key(|path| fs::metadata(path).and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH))
        .expect("cargo builds the library before its tests")
}

/// Codes of the errors in a program, without those that only sum up; the raw messages beside them.
fn compile(program: &Path, library: &Path, dependencies: &Path, out: &Path) -> (BTreeSet<String>, bool, String) {
    let output = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(["--edition=2024", "--crate-type=bin", "--emit=metadata", "--error-format=short"])
        .arg("--out-dir")
        .arg(out)
        .arg("--extern")
        .arg(format!("starminer_verify={}", library.display()))
        .arg("-L")
        .arg(format!("dependency={}", dependencies.display()))
        .arg(program)
        .output()
        .unwrap();
    let messages = String::from_utf8_lossy(&output.stderr).into_owned();
    let codes = messages
        .match_indices("error[")
        .filter_map(|(at, _)| messages[at + 6..].split_once(']').map(|(code, _)| code.to_owned()))
        .collect();
    (codes, output.status.success(), messages)
}

#[test]
fn no_step_can_be_skipped() {
    let dependencies = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let library = library(&dependencies);
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compile_fail");
    let out = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("compile_fail");
    fs::create_dir_all(&out).unwrap();

    let mut failing = 0;
    let mut paths: Vec<_> = fs::read_dir(programs).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let (codes, compiled, messages) = compile(&path, &library, &dependencies, &out);
        if name == "control" {
            assert!(compiled, "the control must compile:\n{messages}");
            continue;
        }
        let source = fs::read_to_string(&path).unwrap();
        let first = source.lines().next().unwrap();
        let expected: BTreeSet<String> = first
            .strip_prefix("// expect: ")
            .unwrap_or_else(|| panic!("{name}: the first line names the expected codes"))
            .split_ascii_whitespace()
            .map(str::to_owned)
            .collect();
        assert!(!compiled, "{name} compiled");
        assert_eq!(codes, expected, "{name}:\n{messages}");
        failing += 1;
    }
    assert!(failing >= 15, "only {failing} programs were tried");
}
