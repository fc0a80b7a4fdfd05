//! `node doctor`: stand-in trees with recorded logs and settings, and a real TPM emulator, by real runs of the program. What is made of each
//! fact is tested beside it, in `src/cli/doctor/tests.rs`.

#[path = "../../../starminer-attester/tests/tpm/emulator.rs"]
#[allow(dead_code)]
mod emulator;
#[path = "../../../starminer-hardware/tests/event_log/builder.rs"]
#[allow(dead_code)]
mod log_builder;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use starminer_hardware::event_log::{Bank, EventLog};

use crate::support::text;
use crate::{Cli, exit, has_keys};
use emulator::Swtpm;

const UEFI_LOG: &str = "sys/kernel/security/tpm0/binary_bios_measurements";

/// A stand-in tree in the working directory.
struct Tree(PathBuf);

impl Tree {
    fn new(cli: &Cli) -> Self {
        let tree = Self(cli.path("root"));
        fs::create_dir(&tree.0).unwrap();
        tree
    }

    fn file(&self, path: &str, contents: impl AsRef<[u8]>) -> &Self {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
        self
    }

    /// Job storage in memory that nothing swaps.
    fn with_job_storage(&self) -> &Self {
        fs::create_dir_all(self.0.join("jobs")).unwrap();
        let mounts = "29 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
                      30 29 0:40 / /jobs rw,nosuid,nodev,noexec,relatime shared:2 - tmpfs tmpfs rw\n";
        self.file("proc/self/mountinfo", mounts).file("proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n")
    }
}

fn doctor(cli: &Cli, words: &[&str]) -> crate::Said {
    cli.run(["node", "doctor", "--root", "root"].iter().chain(words))
}

/// The document, in its shape.
#[track_caller]
fn document(said: &crate::Said, code: i32) -> Value {
    let document = said.json(code);
    let keys =
        ["checks", "exit_code", "forecast", "measurements", "next", "policy", "provenance", "tier", "would_reach"];
    has_keys(&document, &keys);
    assert_eq!(document["exit_code"], code);
    for check in document["checks"].as_array().unwrap() {
        has_keys(check, &["fix", "group", "name", "reason", "verdict"]);
        let verdict = check["verdict"].as_str().unwrap();
        assert!(["pass", "missing", "not-checked"].contains(&verdict), "{check}");
        assert_eq!(check["fix"].is_null(), verdict == "pass", "whatever does not pass says what to do: {check}");
        let groups = ["tee", "tpm", "boot", "storage", "kernel", "cpu", "endorsements"];
        assert!(groups.contains(&check["group"].as_str().unwrap()), "{check}");
    }
    if !document["next"].is_null() {
        has_keys(&document["next"], &["missing", "tier"]);
    }
    has_keys(&document["forecast"], &["endings", "first", "first_for_provider"]);
    document
}

#[track_caller]
fn verdict<'a>(document: &'a Value, name: &str) -> (&'a str, &'a str) {
    let checks = document["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no check {name}"));
    (check["verdict"].as_str().unwrap(), check["reason"].as_str().unwrap())
}

#[test]
fn a_machine_with_nothing() {
    let cli = Cli::new();
    Tree::new(&cli);
    let document = document(&doctor(&cli, &["--json"]), exit::REFUSED);
    assert_eq!((&document["tier"], &document["provenance"]), (&"none".into(), &Value::Null));
    assert_eq!(document["next"]["tier"], "identified");
    assert_eq!(document["next"]["missing"], serde_json::json!(["tee.device", "tpm.device"]));
    for name in ["tee.device", "tpm.device", "boot.event-log", "boot.ima"] {
        assert_eq!(verdict(&document, name).0, "missing", "{name}: absent, never passed");
    }
    let passes = document["checks"].as_array().unwrap().iter().filter(|check| check["verdict"] == "pass");
    let passes: Vec<&Value> = passes.map(|check| &check["name"]).collect();
    assert_eq!(passes, ["endorsements.store"], "nothing is asked for");

    // For people, nothing is wider than a terminal, and each line that does not pass says what to do.
    let said = doctor(&cli, &[]);
    let out = said.exits(exit::REFUSED);
    assert!(out.lines().all(|line| line.chars().count() <= 100), "{out}");
    let (mut missing, mut remedies) = (0, 0);
    for line in out.lines() {
        missing += usize::from(line.starts_with("  missing ") || line.starts_with("  not checked "));
        remedies += usize::from(line.trim_start().starts_with("do: "));
    }
    assert_eq!(missing, remedies, "{out}");
    assert!(out.contains("tier reached: none") && out.contains("identified needs: tee.device, tpm.device"), "{out}");
    // Marks, names and reasons stand in columns.
    let columns: Vec<&str> = out.lines().filter(|line| line.starts_with("  missing ")).collect();
    assert!(columns.iter().all(|line| &line[13..15] == "  " && !line[15..16].starts_with(' ')), "{columns:#?}");
    assert_eq!(doctor(&cli, &["--quiet"]).exits(exit::REFUSED), "");
}

#[test]
fn recorded_settings_and_logs() {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors");
    let folder = std::env::var_os("STARMINER_VECTORS").map_or(default, PathBuf::from);
    let cli = Cli::new();
    let tree = Tree::new(&cli);
    tree.file("proc/sys/kernel/yama/ptrace_scope", "1\n")
        .file("proc/sys/kernel/core_pattern", "|/bin/false\n")
        .file("sys/kernel/security/lockdown", "[none] integrity confidentiality\n")
        .with_job_storage();
    let words = ["--json", "--data-dir", "/jobs"];
    let found = document(&doctor(&cli, &words), exit::REFUSED);
    for (measure, wanted) in [
        ("ptrace_restricted", "pass"),
        ("core_pattern_contained", "pass"),
        ("swap_off", "pass"),
        ("job_storage_encrypted", "pass"),
        ("job_storage_locked", "pass"),
        ("kernel_lockdown", "missing"),
        ("iommu", "not-checked"),
    ] {
        assert_eq!(verdict(&found, &format!("posture.host.{measure}")).0, wanted, "{measure}");
    }
    if !folder.is_dir() {
        println!("skipped: no vectors at {}", folder.display());
        return;
    }
    for (log, secure_boot) in
        [("keylime_secureboot_on.bin", "Secure Boot on"), ("keylime_secureboot_off.bin", "Secure Boot off")]
    {
        tree.file(UEFI_LOG, fs::read(folder.join("eventlog").join(log)).unwrap());
        let found = document(&doctor(&cli, &words), exit::REFUSED);
        // Without a TPM, a real log is its own word.
        let (mark, reason) = verdict(&found, "boot.event-log");
        assert!(mark == "not-checked" && reason.contains(secure_boot), "{log}: {reason}");
    }
}

/// A TPM that booted what this log says.
fn booted(log: &[u8]) -> Option<Swtpm> {
    let tpm = Swtpm::start()?;
    let parsed = EventLog::parse(log).unwrap();
    for event in parsed.events().filter(|event| event.extends()) {
        let digest = data_encoding::HEXLOWER.encode(event.digest(Bank::Sha256).unwrap());
        tpm.run(&format!("tpm2_pcrextend {}:sha256={digest}", event.register));
    }
    Some(tpm)
}

#[test]
fn a_tpm_from_identified_to_measured() {
    let log = log_builder::machine(&[1]).bytes;
    let Some(tpm) = booted(&log) else { return };
    let cli = Cli::new();
    let tree = Tree::new(&cli);
    let (socket, root, issuer) = (text(&tpm.socket()), "ca/swtpm-localca-rootca-cert.pem", "ca/issuer.pem");
    let [root, issuer] = [root, issuer].map(|name| text(&tpm.dir.path().join(name)));
    let words = ["--tpm", &socket, "--ca", &root, &issuer, "--data-dir", "/jobs", "--json"];

    // A TPM whose maker nobody knows is nobody's.
    let stranger = document(&doctor(&cli, &["--tpm", &socket, "--json"]), exit::REFUSED);
    assert_eq!((&stranger["tier"], verdict(&stranger, "tpm.evidence").0), (&"none".into(), "missing"));
    assert_eq!(verdict(&stranger, "tpm.activation").0, "pass");

    let identified = document(&doctor(&cli, &words), exit::REFUSED);
    assert_eq!(identified["tier"], "identified", "{identified:#}");
    assert!(identified["provenance"].as_str().unwrap().starts_with("simulated (tpm:"));
    for name in ["tpm.device", "tpm.certificate", "tpm.activation", "tpm.evidence", "tpm.enrolled", "tpm.root"] {
        assert_eq!(verdict(&identified, name).0, "pass", "{name}");
    }
    let next: Vec<&str> =
        identified["next"]["missing"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert_eq!(next, ["eventlog.policy.secure-boot", "tpm.measurement", "tpm.storage"]);
    assert_eq!(identified["would_reach"], "identified");

    tree.with_job_storage().file(UEFI_LOG, &log);
    let would = document(&doctor(&cli, &words), exit::REFUSED);
    assert_eq!((&would["tier"], &would["would_reach"]), (&"identified".into(), &"measured".into()), "{would:#}");
    assert_eq!(would["next"]["missing"], serde_json::json!(["tpm.measurement"]));
    assert_eq!(verdict(&would, "boot.event-log").0, "pass");
    let measurement = would["measurements"][0]["measurement"].as_str().unwrap();

    // The network names what runs here.
    cli.run(["coordinator", "init", "net", "--name", "lab"]).exits(exit::OK);
    let mut network: toml::Table = toml::from_str(&String::from_utf8(cli.read("net/network.toml")).unwrap()).unwrap();
    let value: toml::Table =
        toml::from_str(&format!("kind = \"tpm\"\nmeasurement = \"{measurement}\"\nname = \"this boot\"")).unwrap();
    network["reference_values"]["values"].as_array_mut().unwrap().push(value.into());
    cli.write("network.toml", toml::to_string(&network).unwrap());
    let named = words.iter().copied().chain(["--network", "network.toml"]).collect::<Vec<_>>();
    let measured = document(&doctor(&cli, &named), exit::OK);
    assert_eq!((&measured["tier"], &measured["next"]["tier"]), (&"measured".into(), &"confidential".into()));
    let first = &measured["forecast"]["first_for_provider"];
    has_keys(first, &["at_s", "cause", "day", "reason", "remedy", "renewed_by_fetching"]);
    assert_eq!(first["cause"], "certificate", "until the endorsement key's chain ends: {first:#}");

    // The default policy of a requester asks for a confidential node.
    let policy = starminer_verify::Policy::confidential();
    cli.write("policy.json", serde_json::to_vec(&policy).unwrap());
    let asked = named.iter().copied().chain(["--policy", "policy.json"]).collect::<Vec<_>>();
    let asked = document(&doctor(&cli, &asked), exit::REFUSED);
    assert_eq!(asked["policy"]["met"], false);
    // Another boot chain, the same log: it leads elsewhere, and the image is another one.
    tpm.run(&format!("tpm2_pcrextend 4:sha256={}", "11".repeat(32)));
    let other = document(&doctor(&cli, &named), exit::REFUSED);
    assert_eq!((&other["tier"], verdict(&other, "boot.event-log").0), (&"identified".into(), "missing"));
    assert_eq!(verdict(&other, "tpm.measurement").0, "missing");
}

#[test]
fn a_tpm_that_is_gone_or_hangs() {
    let cli = Cli::new();
    Tree::new(&cli);
    let gone = document(&doctor(&cli, &["--tpm", "nowhere", "--json"]), exit::REFUSED);
    assert_eq!(verdict(&gone, "tpm.device").0, "missing");
    // Somebody who takes what is sent and never answers.
    let listener = std::os::unix::net::UnixListener::bind(cli.path("silent.sock")).unwrap();
    let silent = document(&doctor(&cli, &["--tpm", "silent.sock", "--patience", "1", "--json"]), exit::REFUSED);
    let (mark, reason) = verdict(&silent, "tpm.device");
    assert!(mark == "missing" && reason.contains("no answer"), "{reason}");
    drop(listener);
}

#[test]
fn calls_that_cannot_be_made() {
    let cli = Cli::new();
    Tree::new(&cli);
    let refused = |words: &[&str], check: &str, reason: &str| {
        let words: Vec<&str> = words.iter().copied().chain(["--json"]).collect();
        doctor(&cli, &words).fails_in_json(exit::UNUSABLE, check, "node", reason);
    };
    refused(&["--at", "noon"], "call.time", "noon");
    refused(&["--policy", "none.toml"], "policy.unreadable", "none.toml");
    cli.write("policy.toml", "version = 1\nminimum_tier = \"best\"\n");
    refused(&["--policy", "policy.toml"], "policy.malformed", "policy.toml");
    refused(&["--network", "none.toml"], "network.unusable", "none.toml");
    refused(&["--config", "none.toml"], "settings.unusable", "none.toml");
    refused(&["--endorsements", "none"], "endorsements.unreadable", "none");
    for (words, reason) in [(["--root", "nowhere"], "nowhere"), (["--data-dir", "/nowhere"], "/nowhere")] {
        let said = cli.run(["node", "doctor", "--json"].iter().chain(&words));
        said.fails_in_json(exit::UNUSABLE, "settings.unusable", "node", reason);
    }
    cli.write("root.pem", "no certificate");
    refused(&["--ca", "root.pem"], "call.authority", "root.pem");
}

#[test]
fn a_nodes_own_settings_say_where_its_storage_is() {
    let cli = Cli::new();
    Tree::new(&cli).with_job_storage();
    cli.run(["coordinator", "init", "net", "--software-tee"]).exits(exit::OK);
    let (network, root) = ("net/network.toml", "net/software-tee-root.key");
    cli.run(["node", "init", "node", "--network", network, "--software-tee-root", root]).exits(exit::OK);
    let config = String::from_utf8(cli.read("node/agent.toml")).unwrap();
    cli.write("node/agent.toml", config.replace("data_dir = \"data\"", "data_dir = \"/jobs\""));
    let found = document(&doctor(&cli, &["--config", "node/agent.toml", "--json"]), exit::REFUSED);
    assert_eq!(verdict(&found, "posture.host.job_storage_encrypted").0, "pass");
}

#[test]
fn a_nodes_own_settings_say_what_its_devices_and_its_network_are() {
    let log = log_builder::machine(&[1]).bytes;
    let Some(tpm) = booted(&log) else { return };
    let cli = Cli::new();
    Tree::new(&cli).with_job_storage().file(UEFI_LOG, &log);
    let [root, issuer] =
        ["ca/swtpm-localca-rootca-cert.pem", "ca/issuer.pem"].map(|name| text(&tpm.dir.path().join(name)));
    cli.run(["coordinator", "init", "net", "--tpm-root", &root]).exits(exit::OK);
    let address = format!("unix:{}", text(&tpm.socket()));
    let init = ["node", "init", "node", "--network", "net/network.toml", "--tpm", &address];
    cli.run(init.iter().chain(&["--tpm-certificate", &issuer, "--tpm-certificate", &root])).exits(exit::OK);
    let config = String::from_utf8(cli.read("node/agent.toml")).unwrap();
    assert!(config.contains("[hardware]\n"), "{config}");
    let tree = format!("[hardware]\nroot = \"{}\"\n", text(&cli.path("root")));
    cli.write("node/agent.toml", config.replace("[hardware]\n", &tree));
    let words = ["node", "doctor", "--config", "node/agent.toml", "--json"];
    let found = document(&cli.run(words), exit::REFUSED);
    assert_eq!(found["tier"], "identified", "{found:#}");
    assert_eq!(verdict(&found, "boot.event-log").0, "pass", "the tree is the settings'");
    // What the node sends along is no reason to trust it: another network does not.
    cli.run(["coordinator", "init", "other"]).exits(exit::OK);
    let found = document(&cli.run(words.iter().chain(&["--network", "other/network.toml"])), exit::REFUSED);
    assert_eq!((&found["tier"], verdict(&found, "tpm.evidence").0), (&"none".into(), "missing"));
}
