//! Writes `corpus/`: the seeds of this world, and of the vectors those that lead a target somewhere else.
//!
//! `cargo run --release -p starminer-fuzz --example make_corpus`, after a format has changed. Files of a target are replaced
//! as a whole, except those whose name begins with `kept-`: inputs that once found a defect.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::Value;
use starminer_fuzz::seeds::{Seed, seeds};
use starminer_fuzz::{Target, campaign};

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut by_target: BTreeMap<&str, Vec<(String, Vec<u8>)>> = BTreeMap::new();
    for (target, name, bytes) in seeds().into_iter().chain(vectors(&root.join("../vectors"))) {
        by_target.entry(target).or_default().push((name, bytes));
    }
    let mut total = 0;
    for (name, candidates) in by_target {
        let target = Target::find(name).unwrap_or_else(|| panic!("no target {name}"));
        let directory = root.join("corpus").join(name);
        fs::create_dir_all(&directory).unwrap();
        for entry in fs::read_dir(&directory).unwrap() {
            let entry = entry.unwrap();
            if !entry.file_name().to_string_lossy().starts_with("kept-") {
                fs::remove_file(entry.path()).unwrap();
            }
        }
        let (mut reached, mut kept) = (BTreeSet::new(), 0);
        for (file, bytes) in &candidates {
            let (outcome, _) = campaign::run_once(target, bytes).unwrap_or_else(|failure| panic!("{failure}"));
            // Honest seeds are all kept; a vector must show something new.
            if reached.insert(outcome.reached) || !file.starts_with("vector-") {
                fs::write(directory.join(file), bytes).unwrap();
                kept += 1;
                total += bytes.len();
            }
        }
        println!("{name}: {kept} of {}", candidates.len());
    }
    println!("{total} bytes");
}

/// The inputs that the committed vectors have for parsers that are targets.
fn vectors(root: &Path) -> Vec<Seed> {
    let mut all = Vec::new();
    let mut add = |target, name: &Value, bytes: Option<Vec<u8>>| {
        let name = name.as_str().unwrap_or("unnamed").replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        all.extend(bytes.map(|bytes| (target, format!("vector-{name}"), bytes)));
    };
    let text = |value: &Value| value.as_str().map(|text| text.as_bytes().to_vec());
    let json = |value: &Value| (!value.is_null()).then(|| value.to_string().into_bytes());
    for (file, target, field) in [
        ("keys", "log-keys", "vkey"),
        ("checkpoints", "log-checkpoint", "note"),
        ("tiles", "log-tile", "path"),
        ("forks", "log-fork", "proof"),
    ] {
        let read: Value = serde_json::from_slice(&fs::read(root.join(format!("log/{file}.json"))).unwrap()).unwrap();
        for case in read["cases"].as_array().unwrap() {
            let value = &case[field];
            add(target, &case["name"], if field == "proof" { json(value) } else { text(value) });
        }
    }
    let mut files: Vec<_> = fs::read_dir(root.join("evidence")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for file in files {
        let case: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        let name = Value::from(file.file_stem().unwrap().to_string_lossy().as_ref());
        add("verify-evidence", &name, text(&case["evidence"]));
        add("verify-policy", &name, text(&case["policy"]).or_else(|| json(&case["policy"])));
        add(
            "verify-reference-values",
            &name,
            text(&case["reference_values"]).or_else(|| json(&case["reference_values"])),
        );
    }
    all
}
