//! Holds the arrows of ARCHITECTURE.md: who may depend on whom, and what no crate may link.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Every crate with those of ours that it may depend on.
const ARROWS: &[(&str, &[&str])] = &[
    ("starminer-vault", &[]),
    ("starminer-log", &[]),
    ("starminer-hardware", &[]),
    ("starminer-endorsements", &["hardware"]),
    ("starminer-verify", &["hardware"]),
    ("starminer-host", &[]),
    ("starminer-image", &["hardware"]),
    ("starminer-disk", &["attester", "hardware"]),
    ("starminer-init", &["attester", "disk"]),
    ("starminer-tls", &[]),
    ("starminer-sandbox", &[]),
    ("starminer-receipt", &["log", "vault", "verify"]),
    ("starminer-broker", &["log", "receipt", "vault", "verify"]),
    ("starminer-wire", &["log", "receipt", "verify"]),
    ("starminer-attester", &["hardware", "verify"]),
    ("starminer-runtime", &["vault"]),
    ("starminer-store", &["log"]),
    ("starminer-client", &["log", "receipt", "tls", "verify", "wire"]),
    ("starminer-requester", &["broker", "client", "log", "receipt", "tls", "vault", "verify", "wire"]),
    ("starminer-coordinator", &["endorsements", "hardware", "log", "receipt", "store", "tls", "verify", "wire"]),
    (
        "starminer-agent",
        &["attester", "client", "log", "receipt", "runtime", "sandbox", "tls", "vault", "verify", "wire"],
    ),
];

/// Crates without sockets, clock, async runtime or randomness of their own among their direct dependencies.
const PURE: &[&str] = &[
    "starminer-vault",
    "starminer-log",
    "starminer-hardware",
    "starminer-verify",
    "starminer-receipt",
    "starminer-broker",
    "starminer-wire",
];
const IMPURE: &[&str] = &["tokio", "hyper", "axum", "sqlx", "object_store", "rustls", "libc", "getrandom", "rand"];

/// What cargo says.
fn cargo(arguments: &[&str]) -> String {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(program).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn metadata(more: &[&str]) -> Value {
    serde_json::from_str(&cargo(&[&["metadata", "--format-version", "1"], more].concat())).unwrap()
}

fn texts<'v>(list: &'v Value, name: &'v str) -> impl Iterator<Item = (&'v Value, &'v str)> {
    list.as_array().unwrap().iter().map(move |one| (one, one[name].as_str().unwrap()))
}

fn direct() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = metadata(&["--no-deps"]);
    texts(&metadata["packages"], "name")
        .map(|(package, name)| {
            // Of a dependency for running, the kind is null.
            let normal = texts(&package["dependencies"], "name").filter(|(dependency, _)| dependency["kind"].is_null());
            (name.to_owned(), normal.map(|(_, name)| name.to_owned()).collect())
        })
        .collect()
}

#[test]
fn arrows_are_those_of_the_architecture() {
    let direct = direct();
    for (name, allowed) in ARROWS {
        let ours = |other: &String| other.strip_prefix("starminer-").map(str::to_owned);
        let found: BTreeSet<String> = direct[*name].iter().filter_map(ours).collect();
        let allowed: BTreeSet<String> = allowed.iter().map(|other| (*other).to_owned()).collect();
        let extra: Vec<_> = found.difference(&allowed).collect();
        assert!(extra.is_empty(), "{name} depends on {extra:?}, which ARCHITECTURE.md does not allow");
    }
    let listed: BTreeSet<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    for name in direct.keys().filter(|name| name.starts_with("starminer-") && *name != "starminer-fuzz") {
        assert!(listed.contains(name.as_str()), "{name} is new: say in ARCHITECTURE.md and here what it may depend on");
    }
}

#[test]
fn pure_crates_are_pure() {
    let direct = direct();
    for name in PURE {
        for impure in IMPURE {
            assert!(!direct[*name].contains(*impure), "{name} is pure and must not depend on {impure}");
        }
    }
}

/// `unsafe` has its homes: the sandbox, the one file that calls a device's ioctls, and the one that polls. Everything else leaves the
/// workspace's lint in force.
#[test]
fn unsafe_stays_at_home() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    let mut homes = BTreeSet::new();
    let mut open = vec![root.join("fuzz/src"), root.join("xtask/src")];
    open.extend(std::fs::read_dir(root.join("crates")).unwrap().map(|entry| entry.unwrap().path().join("src")));
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if std::fs::read_to_string(&path).is_ok_and(|text| text.contains("allow(unsafe_code)")) {
                homes.insert(path.strip_prefix(&root).unwrap().display().to_string());
            }
        }
    }
    let allowed = [
        "crates/starminer-attester/src/host/poll.rs",
        "crates/starminer-attester/src/sev_guest/ioctl.rs",
        "crates/starminer-sandbox/src/lib.rs",
    ];
    assert_eq!(homes, BTreeSet::from(allowed.map(str::to_string)));
}

/// The enclave's program links no server, database or chain.
#[test]
fn the_agent_links_no_server() {
    let metadata = metadata(&[]);
    let names: BTreeMap<&str, &str> =
        texts(&metadata["packages"], "id").map(|(package, id)| (id, package["name"].as_str().unwrap())).collect();
    let nodes: BTreeMap<&str, &Value> =
        texts(&metadata["resolve"]["nodes"], "id").map(|(node, id)| (id, node)).collect();
    let mut open: Vec<&str> = names.iter().filter(|(_, name)| **name == "starminer-agent").map(|(id, _)| *id).collect();
    let mut seen = BTreeSet::new();
    while let Some(id) = open.pop() {
        if seen.insert(id) {
            let is_normal =
                |dep: &Value| dep["dep_kinds"].as_array().unwrap().iter().any(|kind| kind["kind"].is_null());
            open.extend(texts(&nodes[id]["deps"], "pkg").filter(|(dep, _)| is_normal(dep)).map(|(_, package)| package));
        }
    }
    let linked: BTreeSet<&str> = seen.iter().map(|id| names[id]).collect();
    assert!(linked.contains("wasmtime"), "{linked:?}");
    for forbidden in ["axum", "sqlx", "object_store", "starminer-coordinator", "starminer-store", "starminer-requester"]
    {
        assert!(!linked.contains(forbidden), "the agent must not link {forbidden}");
    }
}

/// The node's image has the agent built alone. Where that selects other features of what wasmtime and tract rest on than a build of everything does, a fresh clone compiles them twice.
#[test]
fn the_engines_are_the_same_for_the_agent_alone() {
    let tree = |selection: &[&str]| -> BTreeMap<String, BTreeSet<String>> {
        let form =
            ["--offline", "--quiet", "--prefix", "none", "--edges", "normal,no-proc-macro", "--format", "{p}|{f}"];
        let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        // Members of a workspace stand apart from each other.
        for line in cargo(&[&["tree"], selection, &form].concat()).lines().filter(|line| !line.is_empty()) {
            let (package, features) = line.trim_end_matches(" (*)").split_once('|').unwrap();
            all.entry(package.to_owned()).or_default().insert(features.to_owned());
        }
        all
    };
    let (agent, all) = (tree(&["--package", "starminer-agent"]), tree(&["--workspace"]));
    for engine in ["wasmtime", "tract-onnx"] {
        for package in tree(&["--package", engine]).keys().filter(|package| agent.contains_key(*package)) {
            assert_eq!(
                agent[package], all[package],
                "{package}, below {engine}: make its features the same (Cargo.toml of starminer-agent)"
            );
        }
    }
}
