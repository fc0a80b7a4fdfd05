//! `endorsements`: makers with test authorities of their own, played by a server on loopback (the very one of `starminer-endorsements`' tests), and
//! real runs of the program against it.

#[path = "../../../starminer-hardware/tests/snp/lab.rs"]
#[allow(dead_code)]
mod lab;
#[path = "../../../starminer-endorsements/tests/life/maker.rs"]
#[allow(dead_code)]
mod maker;
#[path = "../../../starminer-hardware/tests/dcap/pki.rs"]
#[allow(dead_code)]
mod pki;
#[path = "../../../starminer-endorsements/tests/life/server.rs"]
#[allow(dead_code)]
mod server;
#[path = "../../../starminer-endorsements/tests/life/time_and_chance.rs"]
#[allow(dead_code)]
mod time_and_chance;

use serde_json::Value;
use starminer_hardware::dcap::Tee;
use starminer_hardware::endorsements::Key;

use crate::{Cli, Said, exit, has_keys};
use maker::{Makers, NOW_S, ROOT_CRL};
use server::Reply;

const DAY_S: u64 = 86_400;

/// A machine with the program, and makers that it reaches.
struct Lab {
    cli: Cli,
    makers: Makers,
    // Keeps the makers' server running.
    _runtime: tokio::runtime::Runtime,
}

impl Lab {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let makers = runtime.block_on(Makers::start());
        let cli = Cli::new();
        cli.write(
            "config.toml",
            format!("[sources]\nintel_pcs = \"{}\"\n[politeness]\npause_ms = 0\n", makers.server.base()),
        );
        for (name, root) in [("intel.der", &makers.intel.root.certificate), ("amd.der", makers.amd.ark())] {
            cli.write(name, root.der());
        }
        Self { cli, makers, _runtime: runtime }
    }

    fn keys(&self) -> Vec<String> {
        self.makers.keys().iter().map(ToString::to_string).collect()
    }

    /// Calls with the test authorities, at this time.
    fn call(&self, command: &str, words: &[&str], at_s: u64) -> Said {
        let at = at_s.to_string();
        let trust = ["--ca", "intel.der", "amd.der", "--at", &at, "--json"];
        self.cli.run(["endorsements", command].iter().chain(words).chain(&trust))
    }

    fn fetch(&self, dir: &str, keys: &[String], at_s: u64) -> Said {
        let base = self.makers.server.base();
        let root_crl = format!("{base}{ROOT_CRL}");
        let mut words = vec![dir];
        words.extend(keys.iter().map(String::as_str));
        words.extend(["--config", "config.toml", "--amd-kds", &base, "--intel-root-crl", &root_crl]);
        self.call("fetch", &words, at_s)
    }
}

#[track_caller]
fn failed(document: &Value, key: &str, code: &str) {
    let all = document["failed"].as_array().or(document["refused"].as_array()).unwrap();
    let one = all.iter().find(|one| one["key"] == key).unwrap_or_else(|| panic!("{key} did not fail: {document:#}"));
    has_keys(one, &["code", "key", "reason", "remedy"]);
    assert_eq!(one["code"], code, "{one:#}");
    assert!(one["remedy"].as_str().unwrap().len() > 10, "{one:#}");
}

#[test]
fn from_makers_to_a_machine_without_a_network() {
    let lab = Lab::new();
    let keys = lab.keys();
    let fetched = lab.fetch("store", &keys, NOW_S).json(exit::OK);
    has_keys(&fetched, &["dir", "digest", "exit_code", "failed", "fetched", "items"]);
    assert_eq!(fetched["items"], keys.len());
    assert_eq!(fetched["fetched"].as_array().unwrap().len(), keys.len());

    let listed = lab.call("list", &["store"], NOW_S + DAY_S).json(exit::OK);
    has_keys(&listed, &["at_s", "damaged", "digest", "exit_code", "items", "refused"]);
    assert_eq!(listed["digest"], fetched["digest"]);
    let items = listed["items"].as_array().unwrap();
    let info = Key::IntelTcbInfo { tee: Tee::Sgx, fmspc: pki::FMSPC }.to_string();
    let item = items.iter().find(|item| item["key"] == info.as_str()).unwrap();
    assert_eq!((&item["state"], &item["provenance"]), (&"usable".into(), &"simulated".into()), "{item:#}");
    assert_eq!(item["number"], "20", "the evaluation number: {item:#}");
    let age_s = item["age_s"].as_u64().unwrap();
    assert!((DAY_S - 600..=DAY_S).contains(&age_s), "{age_s}");
    assert!(item["next_update_s"].as_u64() >= item["usable_until_s"].as_u64());
    assert!(item["renew_at_s"].as_u64() < item["usable_until_s"].as_u64());

    // For people: a line each, and the same digest.
    let said =
        lab.cli.run(["endorsements", "list", "store", "--ca", "intel.der", "amd.der", "--at", &NOW_S.to_string()]);
    let text = said.exits(exit::OK);
    assert_eq!(text.lines().count(), keys.len() + 2, "{text}");
    assert!(text.contains(fetched["digest"].as_str().unwrap()));
    let column = text.lines().next().unwrap().find("until").unwrap();
    for line in text.lines().skip(1).take(keys.len()) {
        let until: String = line.chars().skip(column).take(5).collect();
        assert!(until.starts_with("20") && until.ends_with('-'), "the columns line up: {until:?} in {line}");
    }

    let exported = lab.call("export", &["store", "bundle.json"], NOW_S).json(exit::OK);
    has_keys(&exported, &["bytes", "digest", "exit_code", "file", "items", "refused"]);
    let again = lab.call("export", &["store", "bundle.json"], NOW_S);
    again.fails_in_json(exit::UNUSABLE, "endorsements.exists", "requester", "exists");
    // Elsewhere, where nobody is reached.
    let imported = lab.call("import", &["offline", "bundle.json"], NOW_S).json(exit::OK);
    has_keys(&imported, &["bundle_digest", "digest", "dir", "exit_code", "items", "refused", "taken"]);
    assert_eq!((&imported["digest"], &imported["bundle_digest"]), (&fetched["digest"], &fetched["digest"]));
    for from in ["bundle.json", "offline"] {
        assert_eq!(lab.call("list", &[from], NOW_S).json(exit::OK)["digest"], fetched["digest"], "{from}");
    }
    // The bundle is standard output, and nothing else is.
    let at = NOW_S.to_string();
    let piped = ["endorsements", "export", "store", "-", "--ca", "intel.der", "amd.der", "--at", &at];
    assert_eq!(lab.cli.run(piped).exits(exit::OK).as_bytes(), lab.cli.read("bundle.json"));
}

#[test]
fn what_is_due_is_renewed_and_what_is_old_is_told() {
    let lab = Lab::new();
    lab.fetch("store", &lab.keys(), NOW_S).json(exit::OK);
    lab.makers.server.table.count();
    assert_eq!(lab.fetch("store", &[], NOW_S + 60).json(exit::OK)["fetched"], serde_json::json!([]));
    assert_eq!(lab.makers.server.table.count(), 0, "nobody is asked for what is not due");
    // Lists and TCB data are kept for a week, certificates for half a year.
    let later = NOW_S + 5 * DAY_S;
    let due = lab.call("list", &["store"], later).json(exit::OK);
    let due = due["items"].as_array().unwrap().iter().filter(|item| item["state"] == "due").count();
    assert_eq!(due, 5, "two lists of Intel's, its TCB info and identity, AMD's list");
    let renewed = lab.fetch("store", &[], later).json(exit::OK);
    assert_eq!(renewed["fetched"].as_array().unwrap().len(), due, "{renewed:#}");
    let old = lab.call("list", &["store"], later + 8 * DAY_S).json(exit::REFUSED);
    assert!(old["items"].as_array().unwrap().iter().any(|item| item["state"] == "too-old"), "{old:#}");
}

#[test]
fn makers_that_lie_or_are_gone() {
    let lab = Lab::new();
    let keys = lab.keys();
    let root_crl = Key::IntelRootCrl.to_string();
    lab.fetch("store", &keys, NOW_S).json(exit::OK);
    let before = lab.call("list", &["store"], NOW_S).json(exit::OK)["digest"].clone();

    // A list that nobody signed.
    lab.makers.server.table.set(ROOT_CRL, Reply::ok(b"nonsense".to_vec()));
    let said = lab.fetch("store", std::slice::from_ref(&root_crl), NOW_S + 60).json(exit::REFUSED);
    failed(&said, &root_crl, "endorsement.malformed");
    // No such thing, and nobody there.
    lab.makers.server.table.set(ROOT_CRL, Reply::status(404));
    failed(
        &lab.fetch("store", std::slice::from_ref(&root_crl), NOW_S + 60).json(exit::UNREACHABLE),
        &root_crl,
        "fetch.status",
    );
    lab.makers.server.table.set(ROOT_CRL, Reply::Close);
    failed(
        &lab.fetch("store", std::slice::from_ref(&root_crl), NOW_S + 60).json(exit::UNREACHABLE),
        &root_crl,
        "fetch.http",
    );
    let cloud = "amd/vlek/genoa/61/0000000000000000".to_owned();
    failed(&lab.fetch("store", std::slice::from_ref(&cloud), NOW_S).json(exit::UNREACHABLE), &cloud, "fetch.no-place");
    assert_eq!(lab.call("list", &["store"], NOW_S).json(exit::OK)["digest"], before, "what was there still is");

    // Without their roots, these makers are nobody.
    let at = NOW_S.to_string();
    let nobody = lab.cli.run(["endorsements", "list", "store", "--at", &at, "--json"]).json(exit::REFUSED);
    assert_eq!(nobody["items"], serde_json::json!([]));
    failed(&nobody, &root_crl, "endorsement.unverified");
    lab.call("export", &["store", "bundle.json"], NOW_S).json(exit::OK);
    let nobody =
        lab.cli.run(["endorsements", "import", "other", "bundle.json", "--at", &at, "--json"]).json(exit::REFUSED);
    assert_eq!((&nobody["taken"], nobody["refused"].as_array().unwrap().len()), (&0.into(), keys.len()));

    // One byte of a bundle.
    let mut bundle = lab.cli.read("bundle.json");
    let at = bundle.len() / 2;
    bundle[at] ^= 1;
    lab.cli.write("altered.json", bundle);
    lab.call("import", &["other", "altered.json"], NOW_S).exits(exit::UNUSABLE);
}

#[test]
fn calls_that_cannot_be_made() {
    let cli = Cli::new();
    let refused = |words: &[&str], check: &str, reason: &str| {
        let said = cli.run(["endorsements"].iter().chain(words).chain(&["--json"]));
        said.fails_in_json(exit::UNUSABLE, check, "requester", reason);
    };
    refused(&["list", "nowhere"], "endorsements.unreadable", "nowhere");
    refused(&["export", "nowhere", "out.json"], "endorsements.no-store", "nowhere");
    refused(&["list", ".", "--at", "noon"], "call.time", "noon");
    refused(&["fetch", "store", "amd/nothing"], "call.unusable", "amd/nothing");
    refused(&["fetch", "store", "--amd-kds", "http://example.org"], "call.unusable", "loopback");
    refused(&["fetch", "store", "--all", "intel/root-crl"], "call.unusable", "--all");
    cli.write("config.toml", "[sources]\namd_kdz = \"https://example.org\"\n");
    refused(&["fetch", "store", "--config", "config.toml"], "settings.unusable", "amd_kdz");
    cli.write("root.pem", "no certificate");
    refused(&["fetch", "store", "--ca", "root.pem"], "call.authority", "root.pem");
    assert_eq!(cli.names(), ["config.toml", "root.pem"], "nothing was made");
}
