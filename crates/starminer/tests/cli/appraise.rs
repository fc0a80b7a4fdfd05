//! `appraise`: real evidence by real runs of the program; what decides is tested in `starminer-hardware`.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::text;
use crate::{Cli, exit, has_keys};

/// A time at which the certificates of all vectors count.
const AT: &str = "2026-05-28T00:00:00Z";

/// The shared vectors' folder, or `None`, which is said.
fn vectors() -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors");
    let folder = std::env::var_os("STARMINER_VECTORS").map_or(default, PathBuf::from);
    if folder.is_dir() {
        return Some(folder.canonicalize().unwrap());
    }
    println!("skipped: no vectors at {}", folder.display());
    None
}

/// A file beside the tests of `starminer-hardware`.
fn kept(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../starminer-hardware/tests").join(name);
    text(&path.canonicalize().unwrap())
}

/// Calls `appraise` with words, of which those that begin with `@` are vectors.
fn appraise(cli: &Cli, folder: &Path, call: &str) -> crate::Said {
    let words = call.split_whitespace().map(|word| match word.strip_prefix('@') {
        Some(name) => text(&folder.join(name)),
        None => word.to_owned(),
    });
    cli.run(["appraise".to_owned()].into_iter().chain(words))
}

/// The document of a verdict.
#[track_caller]
fn document(said: &crate::Said, code: i32, verdict: &str) -> Value {
    let document = said.json(code);
    has_keys(&document, &["checks", "claims", "verdict"]);
    assert_eq!(document["verdict"], verdict, "{document:#}");
    assert_eq!(said.err, "", "the document says it all");
    for check in document["checks"].as_array().unwrap() {
        has_keys(check, &["name", "reason", "verdict"]);
        assert!(["pass", "fail", "not-checked"].contains(&check["verdict"].as_str().unwrap()), "{check}");
        assert!(verdict != "verified" || check["verdict"] != "fail", "{check}");
    }
    document
}

#[test]
fn real_evidence_comes_to_what_it_must() {
    let (Some(folder), cli) = (vectors(), Cli::new()) else { return };
    let verified = |call: &str| document(&appraise(&cli, &folder, call), exit::OK, "verified")["claims"].clone();
    let refused = |call: &str| document(&appraise(&cli, &folder, call), exit::REFUSED, "refused");

    let claims = verified(&format!(
        "snp --report @snp/milan_report.bin --cert @snp/milan_ark.pem @snp/milan_vcek.pem --cert @snp/milan_ask.pem --at {AT} --json"
    ));
    assert!(claims["measurement"].as_str().unwrap().starts_with("5feee30d"));
    assert_eq!((&claims["report_version"], &claims["policy"]), (&json!(3), &json!(0x3001f)));
    verified("snp --report @snp/genoa_report.bin --cert @snp/genoa_vcek.pem --at 1780000000 --json");
    let document = refused(&format!(
        "snp --report @snp/genoa_report.bin --cert @snp/milan_vcek.pem @snp/milan_ask.pem @snp/milan_ark.pem --at {AT} --json"
    ));
    assert_eq!(document["claims"], json!({}));
    refused("snp --report @snp/milan_report.bin --cert @snp/milan_vcek.pem --at 2000-01-01T00:00:00Z --json");

    let document = refused(&format!(
        "dcap --quote @dcap/go_tdx_guest_spr_v4.dat --endorsements @dcap/gt_tcb.json --crl @dcap/gt_pck.crl @dcap/gt_root.crl --at {AT} --json"
    ));
    let reasons = document["checks"].to_string();
    assert!(reasons.contains("TCB info expired at 2023-07-18"), "{reasons}");

    verified(&format!("tpm-ek --cert @tpm-ek/nuvoton_ek.pem --ca @tpm-ek/nuvoton_2110_ca.pem --at {AT} --json"));

    let expected: Value =
        serde_json::from_slice(&std::fs::read(folder.join("eventlog/expected.json")).unwrap()).unwrap();
    for (name, expected) in expected.as_object().unwrap() {
        let claims = verified(&format!("eventlog --log @eventlog/{name} --json"));
        assert_eq!(claims["secure_boot"], expected["secure_boot"], "{name}");
        for (bank, values) in expected["pcrs"].as_object().unwrap() {
            for (index, value) in values.as_object().unwrap() {
                assert_eq!(&claims["pcrs"][bank][index], value, "{name} {bank} {index}");
            }
        }
    }
    assert_eq!(verified("ima --log @ima/ascii_runtime_measurements --json")["entries"], 826);
    let claims = verified(&format!(
        "nvidia --evidence @nvidia/hopper_evidence.json --rim @nvidia/NV_GPU_DRIVER_GH100_550.144.03.xml --at {AT} --json"
    ));
    assert_eq!(claims["provenance"], "genuine");
}

#[test]
fn a_quote_of_a_tpm() {
    let cli = Cli::new();
    let part = |kind: &str| kept(&format!("tpm/data/ecdsa-sha256.{kind}"));
    let (quote, signature, ak, pcrs) = (part("msg"), part("sig"), part("pub"), part("pcrs"));
    let call = |nonce: &'static str| {
        ["appraise", "tpm", "--quote", &quote, "--signature", &signature, "--ak", &ak, "--pcrs", &pcrs, "--json"]
            .map(str::to_owned)
            .into_iter()
            .chain(["--nonce".to_owned(), nonce.to_owned()])
    };
    let claims = document(&cli.run(call("00112233")), exit::OK, "verified")["claims"].clone();
    assert_eq!(claims["nonce"], "00112233");
    document(&cli.run(call("00112234")), exit::REFUSED, "refused");
}

#[test]
fn people_see_the_verdict_and_why() {
    let (Some(folder), cli) = (vectors(), Cli::new()) else { return };
    let good = format!("snp --report @snp/milan_report.bin --cert @snp/milan_vcek.pem --at {AT}");
    let said = appraise(&cli, &folder, &good);
    let out = said.exits(exit::OK);
    assert_eq!(out.lines().next(), Some("VERIFIED  genuine hardware"));
    assert!(out.contains("  pass         snp.chain "), "{out}");
    assert!(out.contains("  not checked  snp.crl "), "{out}");
    assert!(out.contains(" more are for a policy to judge: --policy FILE\n"), "{out}");
    assert!(out.lines().any(|line| line.starts_with("  tcbs.reported.snp ") && line.ends_with("  24")), "{out}");
    let columns: Vec<usize> = out
        .lines()
        .filter(|line| line.starts_with("  pass ") || line.starts_with("  not checked "))
        .map(|line| {
            line[15..].find("  ").map_or(0, |at| line[15 + at..].len() - line[15 + at..].trim_start().len() + at)
        })
        .collect();
    assert!(columns.len() > 5 && columns.windows(2).all(|pair| pair[0] == pair[1]), "the table lines up: {out}");
    assert_eq!(said.err, "");
    assert_eq!(appraise(&cli, &folder, &format!("{good} --quiet")).exits(exit::OK), "");

    let said = appraise(&cli, &folder, "snp --report @snp/genoa_report.bin --cert @snp/milan_vcek.pem");
    let out = said.exits(exit::REFUSED);
    assert!(
        out.starts_with("REFUSED\n  because of snp.product, snp.chip-id, snp.tcb\n")
            && out.contains("  fail         snp.chip-id "),
        "{out}"
    );
}

#[test]
fn standard_input_is_a_file_once() {
    let (Some(folder), cli) = (vectors(), Cli::new()) else { return };
    let report = std::fs::read(folder.join("snp/milan_report.bin")).unwrap();
    let vcek = text(&folder.join("snp/milan_vcek.pem"));
    let args = ["appraise", "snp", "--report", "-", "--cert", &vcek, "--at", AT, "--json"];
    let (code, out, _) = cli.pipe(&args, &report);
    assert_eq!(code, exit::OK, "{}", String::from_utf8_lossy(&out));
    let args = ["appraise", "snp", "--report", "-", "--cert", "-", "--json"];
    let (code, out, _) = cli.pipe(&args, &report);
    let document: Value = serde_json::from_slice(&out).unwrap();
    assert_eq!((code, &document["error"]["code"]), (exit::UNUSABLE, &json!("file.unreadable")));
}

#[test]
fn a_policy_decides() {
    let (Some(folder), cli) = (vectors(), Cli::new()) else { return };
    let call =
        format!("snp --report @snp/milan_report.bin --cert @snp/milan_vcek.pem --at {AT} --json --policy p.toml");
    cli.write("p.toml", "[snp]\n");
    let strict = document(&appraise(&cli, &folder, &call), exit::REFUSED, "refused");
    assert_eq!(strict["claims"]["product"], "milan", "it verified, and that is what it says");
    cli.write(
        "p.toml",
        "[snp]\ncrl = \"optional\"\nmeasurement = \"any\"\nreport_data = \"any\"\n\
         [snp.tcb_floor]\nmilan = { bootloader = 4, tee = 0, snp = 24, microcode = 0 }\n",
    );
    document(&appraise(&cli, &folder, &call), exit::OK, "verified");
    std::fs::copy(crate::example_path("policy/hardware.toml"), cli.path("p.toml")).unwrap();
    document(&appraise(&cli, &folder, &call), exit::REFUSED, "refused");
}

#[test]
fn calls_that_cannot_be_made_are_errors() {
    let cli = Cli::new();
    cli.write("report", [0; 1184]);
    cli.write("bad.toml", "[snp]\nmeasurment = \"any\"\n");
    cli.write("empty.toml", "");
    for (call, code, reason) in [
        ("snp --report absent", "file.unreadable", "absent: "),
        ("snp --report .", "file.unreadable", "directory"),
        ("snp --report report --at yesterday", "call.time", "yesterday"),
        ("snp --report report --policy absent.toml", "file.unreadable", "absent.toml: "),
        ("snp --report report --policy bad.toml", "policy.malformed", "measurment"),
        ("snp --report report --policy empty.toml", "policy.section", "[snp]"),
        ("snp --report report --ca report", "call.authority", "report: "),
        ("tpm --quote report --signature report --ak report --nonce xyz", "call.nonce", "--nonce: "),
        ("nvidia --evidence report --nonce 00", "call.nonce", "32 bytes"),
    ] {
        let words = || ["appraise"].into_iter().chain(call.split_whitespace());
        cli.run(words()).fails(exit::UNUSABLE, code, "requester", reason);
        let said = cli.run(words().chain(["--json"]));
        let document = said.json(exit::UNUSABLE);
        has_keys(&document, &["checks", "claims", "error", "verdict"]);
        has_keys(&document["error"], &["code", "input", "reason", "remedy"]);
        assert_eq!((&document["verdict"], &document["error"]["code"]), (&json!("error"), &json!(code)), "{call}");
        assert_eq!((&document["checks"], &document["claims"]), (&json!([]), &json!({})), "{call}");
    }
    // What is missing of the call itself is said as of any command.
    cli.run(["appraise", "snp", "--json"]).fails_in_json(exit::UNUSABLE, "call.unusable", "requester", "--report");
    // Evidence that is none is refused: whoever made it is at fault.
    cli.write("junk", "junk");
    let document = document(&cli.run(["appraise", "snp", "--report", "junk", "--json"]), exit::REFUSED, "refused");
    assert_eq!(document["checks"][0]["name"], "snp.input");
    assert!(document["checks"][0]["reason"].as_str().unwrap().starts_with("junk: "), "{document:#}");
}
