//! Holds the arrows of ARCHITECTURE.md: who may depend on whom, and what no crate may link.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand};

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

fn direct() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = MetadataCommand::new().no_deps().exec().expect("cargo metadata runs");
    let packages = metadata.packages.iter();
    packages
        .map(|package| {
            let normal = package.dependencies.iter().filter(|dependency| dependency.kind == DependencyKind::Normal);
            (package.name.to_string(), normal.map(|dependency| dependency.name.clone()).collect())
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
    let metadata = MetadataCommand::new().exec().expect("cargo metadata runs");
    let resolve = metadata.resolve.expect("a dependency graph");
    let names: BTreeMap<_, _> =
        metadata.packages.iter().map(|package| (&package.id, package.name.to_string())).collect();
    let agent = metadata.packages.iter().filter(|package| package.name.as_str() == "starminer-agent");
    let mut open: Vec<_> = agent.map(|package| &package.id).collect();
    let mut seen = BTreeSet::new();
    while let Some(id) = open.pop() {
        if !seen.insert(id) {
            continue;
        }
        let node = resolve.nodes.iter().find(|node| node.id == *id).expect("every package is in the graph");
        let normal =
            node.deps.iter().filter(|dep| dep.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal));
        open.extend(normal.map(|dep| &dep.pkg));
    }
    let linked: BTreeSet<&str> = seen.iter().map(|id| names[*id].as_str()).collect();
    for forbidden in ["axum", "sqlx", "object_store", "starminer-coordinator", "starminer-store", "starminer-requester"]
    {
        assert!(!linked.contains(forbidden), "the agent must not link {forbidden}");
    }
}
