//! Attacks, one file each; the first line of a file says what is tried and how it ends. SECURITY.md lists the folder.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[path = "../../../starminer-attester/tests/tpm/emulator.rs"]
#[allow(dead_code)]
mod emulator;
#[path = "../support/mod.rs"]
mod support;
#[path = "../../../starminer-broker/tests/release/world.rs"]
#[allow(dead_code)]
mod world;

mod altered_output;
mod another_vault;
mod canary_search;
mod evil;
mod evil_node;
mod forged;
mod forked_log;
mod late_report;
mod lying_coordinator;
mod lying_node;
mod replay;
mod reset_tpm;
mod rolled_back;
mod rolled_back_tpm;
mod supervisor_memory;
mod tampered_host;
mod tls_1_2;
mod truncated_vault;
mod with_tpm;

/// Nobody has to look here to know what is tested.
#[test]
fn security_md_lists_every_attack() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let listed = std::fs::read_to_string(root.join("../../SECURITY.md")).unwrap();
    let helpers = ["main.rs", "evil.rs", "evil_node.rs", "forged.rs", "with_tpm.rs"];
    for entry in std::fs::read_dir(root.join("tests/attacks")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(helpers.contains(&name.as_str()) || listed.contains(&format!("| `{name}` |")), "{name} is not listed");
    }
}
