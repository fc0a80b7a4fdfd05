//! `verify`: every exit code by a real receipt of a real task.

use std::path::PathBuf;

use data_encoding::BASE64URL_NOPAD;
use serde_json::Value;
use starminer_receipt::{NetworkTrust, Receipt};
use starminer_verify::{NetworkId, PublicKey};

use crate::support::{Network, ROOT_NAME, text};
use crate::{Cli, example_path, exit, has_keys, is_refusal};

/// Runs a wasm task of this network to its receipt.
pub fn receipt_of(cli: &Cli, network: &Network, wasm: &str, code: i32) -> PathBuf {
    let home = text(&network.path("requester"));
    network.home("requester");
    let wasm = example_path(wasm);
    let args = ["run", "--home", &home, "--wasm", &wasm, "-o", "out", "--accept-simulated", ROOT_NAME, "--json"];
    let document = cli.run(args).json(code);
    cli.path(document["receipt"].as_str().unwrap())
}

fn write_trust(cli: &Cli, name: &str, mut trust: NetworkTrust, change: impl FnOnce(&mut NetworkTrust)) {
    change(&mut trust);
    cli.write(name, trust.encode().unwrap());
}

fn verdicts(document: &Value) -> Vec<&str> {
    document["receipts"].as_array().unwrap().iter().map(|receipt| receipt["verdict"].as_str().unwrap()).collect()
}

#[test]
fn each_exit_code_says_what_a_receipt_is_worth() {
    let network = Network::start(1);
    let cli = Cli::new();
    std::fs::copy(receipt_of(&cli, &network, "empty/empty.wasm", exit::OK), cli.path("good")).unwrap();
    std::fs::copy(receipt_of(&cli, &network, "hostile/trap.wasm", exit::REFUSED), cli.path("failed")).unwrap();
    write_trust(&cli, "own.toml", network.trust(), |_| {});
    write_trust(&cli, "rootless.toml", network.trust(), |trust| trust.simulated_roots.clear());
    write_trust(&cli, "other.toml", network.trust(), |trust| trust.network = NetworkId([9; 32]));

    let mut receipt = Receipt::parse(&cli.read("good")).unwrap();
    receipt.stamp = Receipt::GENUINE.into();
    cli.write("restamped", receipt.encode());
    let mut receipt = Receipt::parse(&cli.read("good")).unwrap();
    receipt.report = Receipt::parse(&cli.read("failed")).unwrap().report;
    cli.write("swapped", receipt.encode());
    let good = cli.read("good");
    cli.write("truncated", &good[..good.len() / 2]);
    cli.write("not-a-receipt", "{}");

    // 0: proven, for a failed task, too.
    let said = cli.run(["verify", "good", "--network", "own.toml"]);
    let first = said.exits(exit::OK).lines().next().unwrap();
    assert_eq!(first, "PROVEN  good  SIMULATED", "the stamp is never left out");
    assert!(!said.out.contains("refuted") && !said.out.contains("unanchored"), "{}", said.out);
    assert_eq!(said.err, "");
    cli.run(["verify", "good", "failed", "--network", "own.toml"]).exits(exit::OK);

    // 3: without trust of one's own, without the root, for another network.
    for args in [&["verify", "good"][..], &["verify", "good", "--network", "rootless.toml"]] {
        let said = cli.run(args);
        assert_eq!(said.exits(exit::UNANCHORED).lines().next().unwrap(), "UNANCHORED  good  SIMULATED", "{args:?}");
    }
    cli.run(["verify", "good", "--network", "other.toml"]).exits(exit::UNANCHORED);

    // 1: whatever was altered.
    for name in ["restamped", "swapped"] {
        let said = cli.run(["verify", name, "--network", "own.toml"]);
        assert!(said.exits(exit::REFUSED).starts_with("REFUTED  "), "{}", said.out);
        assert!(said.out.contains("  refuted "), "it says which claim: {}", said.out);
        cli.run(["verify", name]).exits(exit::REFUSED);
    }

    // 2: no receipt at all, no trust file.
    for (name, check) in
        [("truncated", "receipt.malformed"), ("not-a-receipt", "receipt.malformed"), ("absent", "receipt.unreadable")]
    {
        let said = cli.run(["verify", name, "--network", "own.toml"]);
        assert!(said.exits(exit::UNUSABLE).starts_with(&format!("UNUSABLE  {name}\n")), "{}", said.out);
        assert!(said.out.contains(&format!("  check   {check}\n")) && said.out.contains("  do      "), "{}", said.out);
        let document = cli.run(["verify", name, "--json"]).json(exit::UNUSABLE);
        has_keys(&document["receipts"][0], &["file", "verdict", "error"]);
        is_refusal(&document["receipts"][0]["error"], check, "requester", "");
    }
    let absent = ["verify", "good", "--network", "absent.toml"];
    cli.run(absent).fails(exit::UNUSABLE, "network.unusable", "requester", "absent.toml");
    cli.run(absent.iter().chain(&["--json"])).fails_in_json(
        exit::UNUSABLE,
        "network.unusable",
        "requester",
        "absent.toml",
    );
    cli.write("bad.toml", String::from_utf8(cli.read("own.toml")).unwrap() + "\n[surprise]\n");
    let said = cli.run(["verify", "good", "--network", "bad.toml"]);
    said.fails(exit::UNUSABLE, "network.unusable", "requester", "surprise");

    // Of several the worst counts: refuted, unusable, unanchored, proven.
    let document = cli.run(["verify", "good", "absent", "--network", "own.toml", "--json"]).json(exit::UNUSABLE);
    assert_eq!((verdicts(&document), &document["exit_code"]), (vec!["proven", "unusable"], &2.into()));
    let document =
        cli.run(["verify", "absent", "swapped", "good", "--network", "own.toml", "--json"]).json(exit::REFUSED);
    assert_eq!(verdicts(&document), ["unusable", "refuted", "proven"]);
    let document = cli.run(["verify", "good", "absent", "--json"]).json(exit::UNUSABLE);
    assert_eq!(verdicts(&document), ["unanchored", "unusable"]);

    let document = cli.run(["verify", "failed", "--network", "own.toml", "--json"]).json(exit::OK);
    has_keys(&document, &["exit_code", "receipts"]);
    let receipt = &document["receipts"][0];
    let fields = "file,verdict,simulated,provenance,tier,spec,node,outcome,log_time_ms,valid_then,valid_now,claims";
    has_keys(receipt, &fields.split(',').collect::<Vec<_>>());
    assert_eq!(
        (&receipt["simulated"], &receipt["valid_then"], &receipt["valid_now"]),
        (&true.into(), &true.into(), &true.into())
    );
    has_keys(&receipt["outcome"], &["kind", "check", "party", "reason", "remedy"]);
    assert_eq!((&receipt["outcome"]["kind"], &receipt["outcome"]["party"]), (&"failed".into(), &"workload".into()));
    for claim in receipt["claims"].as_array().unwrap() {
        has_keys(claim, &["name", "verdict", "voucher", "statement"]);
    }
}

/// What other tools do with a token: split, look the key up, verify, read.
fn open_token(token: &str, keys: &Value) -> Option<Value> {
    let (signed, signature) = token.rsplit_once('.')?;
    let (header, payload) = signed.split_once('.')?;
    let decode = |text: &str| BASE64URL_NOPAD.decode(text.as_bytes()).ok();
    let header: Value = serde_json::from_slice(&decode(header)?).ok()?;
    let key = keys["keys"].as_array()?.iter().find(|key| key["kid"] == header["kid"] && header["alg"] == "EdDSA")?;
    let key = PublicKey::from_slice(&decode(key["x"].as_str()?)?)?;
    let holds = starminer_receipt::verify_ed25519(&key, signed.as_bytes(), &decode(signature)?);
    holds.then(|| serde_json::from_slice(&decode(payload)?).ok())?
}

/// It needs no network: everything that could answer is gone.
#[test]
fn verification_is_offline() {
    let cli = Cli::new();
    let receipt = {
        let network = Network::start(1);
        write_trust(&cli, "own.toml", network.trust(), |_| {});
        receipt_of(&cli, &network, "empty/empty.wasm", exit::OK)
    };
    cli.run(["verify", &text(&receipt), "--network", "own.toml"]).exits(exit::OK);

    // A token for tools that know EARs, by the verifier's own key; of what is not proven, none.
    let receipt_path = text(&receipt);
    for key in ["me.key", "other.key"] {
        cli.run(["key", "new", key]).exits(exit::OK);
    }
    let args = ["verify", &receipt_path, "--network", "own.toml", "--token", "a.jwt", "--key", "me.key"];
    cli.run(args).exits(exit::OK);
    let token = String::from_utf8(cli.read("a.jwt")).unwrap();
    let key_set =
        |key: &str| -> Value { serde_json::from_str(cli.run(["key", "show", "--jwks", key]).exits(exit::OK)).unwrap() };
    let ear = open_token(&token, &key_set("me.key")).unwrap();
    assert_eq!(ear["eat_profile"], "tag:ietf.org,2026:rats/ear#04");
    assert_eq!(ear["submods"]["software-tee"]["ear_starminer_tier"], "confidential");
    assert_eq!(open_token(&token, &key_set("other.key")), None);
    assert_eq!(open_token(&token.replacen("eyJ", "eyK", 2), &key_set("me.key")), None);
    cli.run(["verify", &receipt_path, "--token", "b.jwt", "--key", "me.key"]).exits(exit::UNANCHORED);
    assert!(!cli.path("b.jwt").exists());

    // From standard input, and by the exit code alone.
    let bytes = std::fs::read(&receipt).unwrap();
    let (code, out, err) = cli.pipe(&["verify", "-", "--network", "own.toml"], &bytes);
    assert_eq!((code, err.as_str()), (exit::OK, ""));
    assert!(String::from_utf8(out).unwrap().starts_with("PROVEN  -  "));
    for (input, network, expected) in [
        (&bytes[..], &["--network", "own.toml"][..], exit::OK),
        (&bytes, &[], exit::UNANCHORED),
        (b"no receipt", &[], exit::UNUSABLE),
    ] {
        let (code, out, err) = cli.pipe(&[&["verify", "-q", "-"], network].concat(), input);
        assert_eq!((code, out, err.as_str()), (expected, Vec::new(), ""));
    }
}
