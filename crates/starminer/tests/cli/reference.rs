//! `reference`: values from files, by real runs of the program; what is computed is tested in `starminer-hardware`, what counts in
//! `starminer-receipt`.

use std::path::Path;

use serde_json::{Value, json};
use starminer_log::{Checkpoint, Frontier, KeyName, LogSigner, prove_inclusion};
use starminer_receipt::{
    CoordinatorEntry, LogEntryKeys, LogPlace, NetworkTrust, ReferenceFile, ReferenceStatement, Role, Signer as _,
    SigningKey,
};
use starminer_verify::{NetworkId, ReferenceValues, UnixTime};
use zeroize::Zeroizing;

use crate::support::{Network, ROOT_NAME, SmallDisk, text};
use crate::{Cli, Said, example_path, exit, has_keys, is_refusal};

/// Debian's package `ovmf`.
const OVMF: &str = "/usr/share/ovmf/OVMF.fd";

fn firmware() -> Option<&'static str> {
    if Path::new(OVMF).exists() {
        return Some(OVMF);
    }
    println!("SKIPPED: no {OVMF}; `cargo xtask test` installs it");
    None
}

/// A value of its kind, by hand.
fn values(kind: &str, byte: &str, bytes: usize, name: &str) -> String {
    json!({ "version": 1, "values": [{ "kind": kind, "measurement": byte.repeat(bytes), "name": name }] }).to_string()
}

#[test]
fn what_is_written_on_a_full_disk_is_not_there_and_it_is_the_disk_that_is_named() {
    let cli = Cli::new();
    let Some(disk) = SmallDisk::over(&cli.path("disk"), 1) else { return };
    cli.write("v.json", values("tpm", "aa", 32, "one"));
    disk.fill();
    for (words, check) in [
        (&["reference", "merge", "v.json", "--out", "disk/o"][..], "reference.output"),
        (&["key", "new", "--secret", "disk/s"], "key.not-created"),
        (&["key", "new", "disk/k"], "key-file.io"),
    ] {
        let said = cli.run(words.iter().copied().chain(["--json"])).json(exit::LOCAL);
        assert_eq!(said["error"]["check"], check, "{said:#}");
    }
    let left: Vec<_> = std::fs::read_dir(cli.path("disk")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["ballast"]);
    disk.free();
    for words in [&["reference", "merge", "v.json", "--out", "disk/o"][..], &["key", "new", "--secret", "disk/s"]] {
        cli.run(words).exits(exit::OK);
        // Nothing is overwritten.
        cli.run(words).exits(exit::UNUSABLE);
    }
}

#[test]
fn launch_digests_of_real_firmware() {
    let (Some(ovmf), cli) = (firmware(), Cli::new()) else { return };
    let call = |cpu: &str, out: &str, more: &[&str]| {
        let mut words = vec!["reference", "snp", "--firmware", ovmf, "--cpu", cpu, "--out", out];
        words.extend(more);
        cli.run(words)
    };
    let document =
        call("EPYC-v4,EPYC-Milan", "a.json", &["--vcpus", "1,4-5", "--name", "test", "--json"]).json(exit::OK);
    has_keys(&document, &["digest", "file", "values"]);
    let listed = document["values"].as_array().unwrap();
    assert_eq!(listed.len(), 6);
    assert!(listed.iter().all(|value| value["kind"] == "sev-snp"), "{document:#}");
    assert!(listed.iter().any(|value| value["name"] == "test, EPYC-Milan, 4 vCPU"), "{document:#}");
    let written: Value = serde_json::from_slice(&cli.read("a.json")).unwrap();
    assert_eq!(written["values"], document["values"]);

    // The same by signature; and twice the same model is the same value once.
    call("0x800f12", "b.json", &["--vcpus", "4"]).exits(exit::OK);
    let by_signature: Value = serde_json::from_slice(&cli.read("b.json")).unwrap();
    let measurement = &by_signature["values"][0]["measurement"];
    assert!(
        listed.iter().any(|value| value["measurement"] == *measurement && value["name"] == "test, EPYC-v4, 4 vCPU")
    );
    let once = call("EPYC-v4,EPYC-v3", "c.json", &["--vcpus", "4", "--json"]).json(exit::OK);
    assert_eq!(once["values"].as_array().unwrap().len(), 1);

    call("EPYC-v4", "a.json", &["--vcpus", "1"]).fails(exit::UNUSABLE, "reference.output", "requester", "a.json");
    for (cpu, vcpus, reason) in [
        ("EPYC-v4", "0", "processors"),
        ("EPYC-v4", "4-1", "4-1"),
        ("EPYC-v4", "1,,2", "1,,2"),
        ("EPYC-v4", "5000", "5000"),
        ("Pentium", "1", "Pentium"),
        ("0xzz", "1", "0xzz"),
    ] {
        let said = call(cpu, "never.json", &["--vcpus", vcpus]);
        said.exits(exit::UNUSABLE);
        assert!(said.err.contains(reason), "{cpu} {vcpus}: {said:?}");
    }
    // Debian's build checks no kernel: what it would start is not measured.
    cli.write("kernel", "a kernel");
    call("EPYC-v4", "never.json", &["--vcpus", "1", "--kernel", "kernel"]).fails(
        exit::UNUSABLE,
        "launch.no-kernel-hashes",
        "requester",
        "not measured",
    );
    cli.write("image", [0; 4096]);
    let said =
        cli.run(["reference", "snp", "--firmware", "image", "--vcpus", "1", "--cpu", "EPYC", "--out", "never.json"]);
    said.fails(exit::UNUSABLE, "firmware.no-table", "requester", "image");
    assert_eq!(cli.names(), ["a.json", "b.json", "c.json", "image", "kernel"]);
}

#[test]
fn registers_of_a_trust_domain() {
    let (Some(ovmf), cli) = (firmware(), Cli::new()) else { return };
    let zero = |number: u32| format!("{number}=zeroes");
    let call = |rtmrs: &[String]| {
        let mut words: Vec<String> =
            ["reference", "tdx", "--firmware", ovmf, "--out", "v.json"].map(str::to_owned).to_vec();
        rtmrs.iter().for_each(|rtmr| words.extend(["--rtmr".to_owned(), rtmr.clone()]));
        cli.run(words)
    };
    call(&[zero(0), zero(1), zero(2)]).fails(exit::UNUSABLE, "reference.incomplete", "requester", "RTMR 3");
    for wrong in ["4=zeroes", "x=zeroes", "3", "3=00", "3=zz"] {
        call(&[wrong.to_owned()]).fails(exit::UNUSABLE, "call.unusable", "requester", wrong);
    }
    call(&[zero(0), format!("1={}", "ab".repeat(48)), zero(2), zero(3)]).exits(exit::OK);
    let written: Value = serde_json::from_slice(&cli.read("v.json")).unwrap();
    let measurement = written["values"][0]["measurement"].as_str().unwrap();
    assert_eq!(measurement.len(), 480);
    assert_eq!(&measurement[96..192], "00".repeat(48));
    assert_eq!(&measurement[192..288], "ab".repeat(48));
}

/// A log of a real machine gives a value; the same registers in a file of values give the same one.
#[test]
fn registers_of_a_real_machine() {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors");
    let folder = std::env::var_os("STARMINER_VECTORS").map_or(default, Into::into).join("eventlog");
    let Ok(expected) = std::fs::read(folder.join("expected.json")) else {
        return println!("skipped: no vectors at {}", folder.display());
    };
    let expected: Value = serde_json::from_slice(&expected).unwrap();
    let cli = Cli::new();
    let log = "ubuntu-2404-amd-sevsnp.bin";
    cli.write("pcrs.json", expected[log]["pcrs"].to_string());
    let log = text(&folder.join(log));
    let call = |source: &[&str], select: &str, out: &str| {
        let mut words = vec!["reference", "pcrs", "--select", select, "--out", out, "--json"];
        words.extend(source);
        cli.run(words)
    };
    let by_log = call(&["--eventlog", &log], "0,2,4,7", "a.json").json(exit::OK);
    let by_values = call(&["--pcrs", "pcrs.json"], "0,2,4,7", "b.json").json(exit::OK);
    assert_eq!(by_log["values"][0]["measurement"], by_values["values"][0]["measurement"]);
    assert_eq!(by_log["values"][0]["kind"], "tpm");
    // Another selection and another bank are another value.
    let fewer = call(&["--eventlog", &log], "0,2,4", "c.json").json(exit::OK);
    let longer = call(&["--eventlog", &log, "--bank", "sha384"], "0,2,4,7", "d.json").json(exit::OK);
    for other in [&fewer, &longer] {
        assert_ne!(by_log["values"][0]["measurement"], other["values"][0]["measurement"]);
    }
    let unknown = call(&["--eventlog", &log], "0,11", "never.json");
    unknown.fails_in_json(exit::UNUSABLE, "reference.incomplete", "requester", "register 11");
    cli.write("linux.efi", "MZ");
    for option in ["--uki", "--boot-program"] {
        let said = call(&[option, "linux.efi"], "4", "never.json");
        said.fails_in_json(exit::UNUSABLE, "pe.malformed", "requester", "linux.efi");
    }
    let said = call(&["--pcrs", "linux.efi"], "4", "never.json");
    said.fails_in_json(exit::UNUSABLE, "pcrs.malformed", "requester", "linux.efi");
}

#[test]
fn programs_and_several_files() {
    let cli = Cli::new();
    cli.write("agent", "an agent");
    cli.run(["reference", "program", "--kind", "ima-log", "agent", "--name", "one", "--out", "a.json"]).exits(exit::OK);
    cli.write("b.json", values("sev-snp", "ab", 48, "two"));
    cli.write("c.json", values("sev-snp", "ab", 48, "three"));
    let document = cli.run(["reference", "merge", "a.json", "b.json", "c.json", "--out", "all.json", "--json"]);
    let document = document.json(exit::OK);
    let names: Vec<_> = document["values"].as_array().unwrap().iter().map(|value| value["name"].clone()).collect();
    assert_eq!(names, ["two", "one, agent"], "sorted by kind, each measurement once");
    cli.write("short.json", values("sev-snp", "ab", 47, "x"));
    let said = cli.run(["reference", "merge", "short.json", "--out", "never.json"]);
    said.fails(exit::UNUSABLE, "reference.values", "requester", "short.json");
    let shown = cli.run(["reference", "show", "all.json", "--json"]).json(exit::OK);
    assert_eq!(shown["values"], document["values"]);
    assert_eq!(shown["signed"], false);
}

/// Two release keys of three sign; without the log it does not count.
#[test]
fn a_file_is_signed_by_several_and_does_not_count_unlogged() {
    let cli = Cli::new();
    let network = cli.run(["coordinator", "init", "net", "--software-tee", "--json"]);
    network.exits(exit::OK);
    let public = |name: &str| {
        let document = cli.run(["key", "new", name, "--json"]).json(exit::OK);
        document["public"].as_str().unwrap().to_owned()
    };
    let keys = ["1.key", "2.key", "3.key"].map(public);
    let trust = String::from_utf8(cli.read("net/network.toml")).unwrap();
    cli.write("network.toml", format!("release_keys = {keys:?}\nrelease_threshold = 2\n{trust}"));
    cli.write("values.json", values("sev-snp", "ab", 48, "good"));
    let sign = |out: &str, more: &[&str]| {
        let mut words = vec!["reference", "sign", "--key", "1.key", "--network", "network.toml", "--role", "agent"];
        words.extend(["--name", "agent 0.1", "values.json", "--out", out]);
        words.extend(more);
        cli.run(words)
    };
    sign("zero.references", &["--version", "0"]).fails(exit::UNUSABLE, "reference.statement", "requester", "from 1");
    let signed =
        sign("agent.references", &["--version", "5", "--from", "2026-01-01T00:00:00Z", "--json"]).json(exit::OK);
    assert_eq!((&signed["version"], &signed["role"]), (&json!(5), &json!("agent")));
    assert_eq!(signed["not_after"].as_u64().unwrap() - signed["not_before"].as_u64().unwrap(), 90 * 86_400_000);

    let verify = |more: &[&str]| {
        let mut words = vec!["reference", "verify", "--network", "network.toml", "agent.references", "--json"];
        words.extend(more);
        cli.run(words)
    };
    let at = ["--at", "2026-02-01T00:00:00Z"];
    verify(&at).fails_in_json(exit::REFUSED, "reference.too-few-signatures", "network", "1 of the release keys");
    let cosign = |key: &str| cli.run(["reference", "cosign", "--key", key, "agent.references", "--json"]);
    cosign("1.key").fails_in_json(exit::UNUSABLE, "reference.signed-already", "requester", "signed already");
    // Nobody signs beside a signature that is not of this file.
    let whole = cli.read("agent.references");
    let mut altered: Value = serde_json::from_slice(&whole).unwrap();
    let signature = altered["envelope"]["signatures"][0]["sig"].as_str().unwrap().to_owned();
    let first = if signature.starts_with('A') { "B" } else { "A" };
    altered["envelope"]["signatures"][0]["sig"] = json!(format!("{first}{}", &signature[1..]));
    cli.write("agent.references", serde_json::to_vec(&altered).unwrap());
    cosign("3.key").fails_in_json(exit::UNUSABLE, "reference.bad-signature", "requester", "agent.references");
    cli.write("agent.references", whole);
    assert_eq!(cosign("3.key").json(exit::OK)["signatures"], 2);
    verify(&at).fails_in_json(exit::REFUSED, "reference.not-logged", "network", "not logged");
    verify(&["--at", "2027-01-01T00:00:00Z"]).fails_in_json(exit::REFUSED, "reference.expired", "network", "no longer");
    verify(&["--role", "broker"]).fails_in_json(exit::REFUSED, "reference.other-role", "network", "agent");

    let shown = cli.run(["reference", "show", "agent.references", "--json"]).json(exit::OK);
    assert_eq!(shown["claimed_signers"], json!([keys[0], keys[2]]));
    let said = cli.run(["reference", "show", "agent.references"]);
    assert!(said.exits(exit::OK).starts_with("NOT VERIFIED"), "{said:?}");
    // A trust file without release keys takes nobody's.
    let said = cli.run(["reference", "verify", "--network", "net/network.toml", "agent.references"]);
    said.fails(exit::REFUSED, "reference.no-release-keys", "network", "no release keys");
    cli.write("agent.references", "{}");
    verify(&[]).fails_in_json(exit::UNUSABLE, "reference.malformed", "requester", "agent.references");
}

/// Logged files of one release key: they count, and the newest one that was seen keeps older ones out.
#[test]
fn a_logged_file_counts_and_is_remembered() {
    const NETWORK: NetworkId = NetworkId([7; 32]);
    const AT: u64 = 1_790_000_000;
    let cli = Cli::new();
    let key = SigningKey::from_seed(&Zeroizing::new([1; 32]));
    let signer = LogSigner::from_seed(KeyName::parse("test/log").unwrap(), &[2; 32]);
    let log = LogEntryKeys { key: signer.key().to_string(), witnesses: Vec::new(), witness_quorum: 0 };
    let coordinator = CoordinatorEntry { address: "127.0.0.1:1".into(), key: key.public_key() };
    let trust =
        NetworkTrust::new("test".into(), NETWORK, coordinator, log, Vec::new(), ReferenceValues::unset()).unwrap();
    let trust = trust.with_release_keys(vec![key.public_key()], 1).unwrap();
    cli.write("network.toml", trust.encode().unwrap());
    let write = |name: &str, version: u64, what: &str| {
        let statement = ReferenceStatement {
            v: 1,
            network: NETWORK,
            role: Role::Agent,
            name: what.into(),
            version,
            not_before: UnixTime::from_seconds(AT - 10),
            not_after: UnixTime::from_seconds(AT + 10),
            values: ReferenceValues::parse(values("sev-snp", "ab", 48, "good").as_bytes()).unwrap(),
        };
        let mut file = ReferenceFile::new(&statement).unwrap();
        file.sign(&key).unwrap();
        let entry = file.log_entry(UnixTime::from_seconds(AT - 5)).encode();
        let batch = Frontier::empty().append(&[b"genesis", entry.as_slice()]).unwrap();
        let checkpoint =
            Checkpoint::new(signer.name().clone(), batch.size(), batch.root()).unwrap().sign(&signer).unwrap();
        let checkpoint = String::from_utf8(checkpoint.as_bytes().to_vec()).unwrap();
        let inclusion = prove_inclusion(batch.size(), 1, &batch.hashes().to_vec()).unwrap();
        cli.write(name, file.with_place(LogPlace { entry: entry.into(), inclusion, checkpoint }).encode());
    };
    write("5.references", 5, "five");
    write("other.references", 5, "another five");
    write("6.references", 6, "six");
    let verify = |name: &str, more: &[&str]| {
        let at = AT.to_string();
        let mut words = vec!["reference", "verify", "--network", "network.toml", "--at", &at, name, "--json"];
        words.extend(more);
        cli.run(words)
    };
    let document = verify("5.references", &[]).json(exit::OK);
    assert_eq!((&document["verdict"], &document["log_index"]), (&json!("verified"), &json!(1)));
    assert_eq!(document["signers"], json!([key.public_key().to_string()]));
    let memory = ["--memory", "seen.json"];
    verify("5.references", &memory).json(exit::OK);
    verify("other.references", &memory).fails_in_json(exit::REFUSED, "reference.forked", "network", "other content");
    verify("6.references", &memory).json(exit::OK);
    verify("5.references", &memory).fails_in_json(exit::REFUSED, "reference.older", "network", "version 6");
    verify("5.references", &[]).json(exit::OK);
    // A memory that is damaged does not forget.
    cli.write("seen.json", "{}");
    verify("5.references", &memory).fails_in_json(exit::UNUSABLE, "reference.memory", "requester", "seen.json");
}

/// What two release keys signed is published, fetched, and used: nothing else in this network names the agent.
#[test]
fn what_is_published_is_fetched_and_used() {
    let (network, cli) = (Network::prepared(), Cli::new());
    let public = |name: &str| {
        let document = cli.run(["key", "new", name, "--json"]).json(exit::OK);
        document["public"].as_str().unwrap().to_owned()
    };
    let keys = ["1.key", "2.key", "3.key"].map(public);
    let trust_file = network.path("coordinator").join("network.toml");
    let mut trust = network.trust().with_release_keys(keys.map(|key| key.parse().unwrap()).into(), 2).unwrap();
    cli.write("agent.json", trust.reference_values.to_json());
    cli.write("other.json", values("sev-snp", "ab", 48, "other"));
    trust.reference_values = ReferenceValues::unset();
    std::fs::write(&trust_file, trust.encode().unwrap()).unwrap();
    network.start_process("coordinator");
    network.home("requester");
    let (home, trust_file) = (text(&network.path("requester")), text(&trust_file));
    let run = |args: &[&str]| Said::of(cli.command(args).env("STARMINER_HOME", &home).output().unwrap());
    let json = |args: &[&str]| run(&[args, &["--json"]].concat());
    let sign = |role: &str, values: &str, version: &str, out: &str| {
        let mut words = vec!["reference", "sign", "--key", "1.key", "--network", &trust_file, "--role", role];
        words.extend(["--name", "test", "--version", version, values, "--out", out]);
        cli.run(words).exits(exit::OK);
    };
    let cosign = |file: &str| {
        cli.run(["reference", "cosign", "--key", "2.key", file]).exits(exit::OK);
    };
    let publish = |file: &str| json(&["reference", "publish", file]);
    let fetch = |out: &str| json(&["reference", "fetch", "--out", out]);
    let remembered = || std::fs::read(network.path("requester").join("references.agent")).ok();

    fetch("never").fails_in_json(exit::REFUSED, "reference.unknown", "network", "for agents");
    sign("agent", "agent.json", "2", "2.references");
    publish("2.references").fails_in_json(exit::REFUSED, "reference.too-few-signatures", "network", "1 of the release");
    cosign("2.references");
    let published = publish("2.references").json(exit::OK);
    assert_eq!((&published["version"], &published["verdict"]), (&json!(2), &json!("verified")));
    assert_eq!(
        publish("2.references").json(exit::OK)["log_index"],
        published["log_index"],
        "again is the same as once"
    );
    assert!(remembered().is_some());
    // Of brokers' values none were published. A home that has seen some is not told so.
    let seen = String::from_utf8(remembered().unwrap()).unwrap().replace("agent", "broker");
    let of_brokers = network.path("requester").join("references.broker");
    std::fs::write(&of_brokers, seen).unwrap();
    let withheld = json(&["reference", "fetch", "--role", "broker", "--out", "never"]);
    withheld.fails_in_json(exit::REFUSED, "reference.withheld", "coordinator", "version 2");
    std::fs::remove_file(&of_brokers).unwrap();
    let told = run(&["reference", "publish", "2.references"]);
    assert!(told.exits(exit::OK).starts_with("PUBLISHED"), "{told:?}");

    let fetched = fetch("fetched").json(exit::OK);
    has_keys(
        &fetched,
        &[
            "digest",
            "file",
            "log_index",
            "logged_at",
            "name",
            "network",
            "not_after",
            "not_before",
            "role",
            "signers",
            "values",
            "verdict",
            "version",
        ],
    );
    assert_eq!(fetched["log_index"], published["log_index"]);
    let verify = |file: &str| json(&["reference", "verify", "--network", &trust_file, file]);
    verify("fetched").json(exit::OK);
    // Another payload under the same signatures; the same one at another place of the log.
    let document: Value = serde_json::from_slice(&cli.read("fetched")).unwrap();
    sign("agent", "other.json", "9", "9.references");
    let other: Value = serde_json::from_slice(&cli.read("9.references")).unwrap();
    let mut tampered = document.clone();
    tampered["envelope"]["payload"] = other["envelope"]["payload"].clone();
    cli.write("tampered", tampered.to_string());
    verify("tampered").fails_in_json(exit::REFUSED, "reference.bad-signature", "network", "does not verify");
    publish("tampered").fails_in_json(exit::REFUSED, "reference.bad-signature", "network", "does not verify");
    let mut moved = document;
    moved["logged"]["inclusion"]["index"] = json!(0);
    cli.write("moved", moved.to_string());
    verify("moved").fails_in_json(exit::REFUSED, "reference.inclusion", "network", "not in the log");

    // The network admits the node, and the job's spec names its program, by what was published alone.
    network.add_node("node1");
    let wasm = example_path("empty/empty.wasm");
    let job = |out: &str| json(&["run", "--wasm", &wasm, "-o", out, "--accept-simulated", ROOT_NAME]);
    let done = job("out").json(exit::OK);
    assert_eq!((&done["state"], &done["verdict"]), (&json!("completed"), &json!("unanchored")));
    let receipt = done["receipt"].as_str().unwrap();
    json(&["verify", receipt, "--network", &trust_file]).json(exit::UNANCHORED);
    json(&["verify", receipt, "--network", &trust_file, "--references", "fetched"]).json(exit::OK);
    let verdict = json(&["verify", receipt, "--network", &trust_file, "--references", "2.references"]);
    is_refusal(
        &verdict.json(exit::UNUSABLE)["receipts"][0]["error"],
        "reference.not-logged",
        "network",
        "2.references",
    );

    // The broker is of the very same program. What is good for agents says nothing of brokers.
    network.add_broker();
    let detached =
        |out: &str| json(&["submit", "--detach", "--wasm", &wasm, "-o", out, "--accept-simulated", ROOT_NAME]);
    detached("never-run").fails_in_json(exit::REFUSED, "device.measurement", "verifier", "no reference value");
    sign("broker", "agent.json", "1", "broker.references");
    cosign("broker.references");
    assert_eq!(publish("broker.references").json(exit::OK)["role"], "broker");
    let task = detached("later").json(exit::OK)["task"].as_str().unwrap().to_owned();
    assert_eq!(json(&["result", &task]).json(exit::OK)["state"], "completed");

    // A later version replaces it, and an older one does not come back: not to the coordinator, and not to this home.
    sign("agent", "other.json", "3", "3.references");
    cosign("3.references");
    assert_eq!(publish("3.references").json(exit::OK)["version"], 3);
    publish("2.references").fails_in_json(exit::REFUSED, "reference.older", "network", "version 3");
    let memory = String::from_utf8(remembered().unwrap()).unwrap();
    std::fs::write(
        network.path("requester").join("references.agent"),
        memory.replace("\"version\":3", "\"version\":4"),
    )
    .unwrap();
    fetch("never").fails_in_json(exit::REFUSED, "reference.older", "network", "version 4");
    job("never-run").fails_in_json(exit::REFUSED, "reference.older", "network", "version 4");
    std::fs::write(network.path("requester").join("references.agent"), "{}").unwrap();
    fetch("never").fails_in_json(exit::UNUSABLE, "reference.memory", "requester", "references.agent");
    assert!(!cli.path("never").exists());
}
