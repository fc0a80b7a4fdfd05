//! Garbage in place of endorsements that are to be kept: of every kind, one by one, and in bundles.

use std::cell::RefCell;
use std::rc::Rc;

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose};
use serde_json::Value;
use starminer_hardware::cert::Certificate;
use starminer_hardware::endorsements::{Bundle, Candidate, Marks, Object, Snapshot, Trust};

use super::garbage::{
    KIB, MIB, NOW_S, Parser, TURIN_CRL, armoured_lists, broken, content, deep_chain, filled, hex, pem, rebuilt,
};
use super::responder::{self, Answer, Party};
use super::samples::sample;

const SOURCE: &str = "https://endorsements.example";

/// Bytes as the endorsement of this key.
fn kept(name: &'static str, key: &str, chain: Option<Vec<u8>>, own: Vec<(&'static str, Vec<u8>)>) -> Parser {
    let key = key.parse().unwrap_or_else(|_| panic!("{key}"));
    let empty = Candidate { key, content: Vec::new(), chain, fetched_s: NOW_S, source: SOURCE.to_owned() };
    let candidate = Rc::new(RefCell::new(empty));
    let (taken, trust, snapshot) = (candidate.clone(), Trust::genuine(), Snapshot::default());
    let prepare = move |bytes: &[u8]| {
        let content = &mut taken.borrow_mut().content;
        content.clear();
        content.extend_from_slice(bytes);
    };
    let refuses = move |_: &[u8]| snapshot.verify(&candidate.borrow(), &trust, NOW_S).is_err();
    Parser { name, prepare: Some(Box::new(prepare)), refuses: Box::new(refuses), own }
}

/// A member of Intel's genuine endorsements.
fn intels(member: &str) -> Option<String> {
    let json: Value = serde_json::from_slice(&sample("tdx_quote_collateral.json")?).unwrap();
    Some(json[member].as_str().unwrap().to_owned())
}

fn tcb_info() -> Parser {
    let chain = intels("tcb_info_issuer_chain").map_or_else(|| pem(&deep_chain(2)), String::into_bytes);
    let answer =
        |text: &str, signature: &str| format!(r#"{{"tcbInfo":{text},"signature":"{signature}"}}"#).into_bytes();
    let level = r#"{"tcb":{"sgxtcbcomponents":[],"pcesvn":0},"tcbDate":"2024-01-01T00:00:00Z","tcbStatus":"UpToDate"}"#;
    let levels = |count: usize| {
        format!(
            r#"{{"id":"TDX","version":3,"issueDate":"2024-01-01T00:00:00Z","nextUpdate":"2034-01-01T00:00:00Z","fmspc":"","pceId":"","tcbType":0,"tcbEvaluationDataNumber":1,"tcbLevels":[{}]}}"#,
            vec![level; count].join(",")
        )
    };
    let zeros = "00".repeat(64);
    let own = vec![
        ("many levels", answer(&levels(9_000), &zeros)),
        ("as many levels as are read", answer(&levels(63 * KIB / (level.len() + 1)), &zeros)),
        ("a long signature", answer("{}", &"0".repeat(MIB - 64))),
        ("escapes", answer("{}", &r"\u0000".repeat(MIB / 6 - 64))),
        ("blanks", answer(&format!("{{{}}}", " ".repeat(MIB - 64)), &zeros)),
        ("texts", answer(&format!("[{}0]", r#""","#.repeat(MIB / 3 - 64)), &zeros)),
        ("nested", answer(&"[".repeat(120), &zeros)),
    ];
    kept("kept: TCB info", "intel/tcb-info/tdx/00806f050000", Some(chain), own)
}

/// Answers about a genuine GPU's certificate that nobody signed.
fn ocsp() -> Parser {
    let chain = Certificate::read(include_bytes!("../../tests/data/nvidia/hopper_chain.pem")).unwrap();
    let (device, issuer) = (&chain[0], &chain[1]);
    let key = format!("nvidia/ocsp/{}/{}", hex(&issuer.fingerprint()), hex(device.serial()));
    let above: Vec<u8> = chain[1..].iter().flat_map(|certificate| certificate.der().to_vec()).collect();
    let nobody = Party::root("nobody");
    let answer = |with: Vec<Certificate>| {
        Answer {
            about: (issuer, device.serial().to_vec()),
            status: vec![0x80, 0],
            days: (-1000, Some(1)),
            by: &nobody,
            with,
        }
        .encode()
    };
    // Responders that say that the issuer named them, each with another key.
    let named: Vec<Certificate> = (0..4)
        .map(|at| {
            let mut params = responder::params(&format!("responder {at}"), false);
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::OcspSigning];
            params.not_before = responder::day(-1000);
            let der = as_if_by(params, issuer);
            Certificate::from_der(&der).unwrap()
        })
        .collect();
    let own = vec![
        ("by nobody", answer(Vec::new())),
        ("by one responder", answer(named[..1].to_vec())),
        ("by four responders", answer(named)),
        ("by a stranger", answer(vec![nobody.certificate.clone()])),
    ];
    kept("kept: OCSP responses", &key, Some(above), own)
}

/// A certificate with the name of this issuer, whose signature is of somebody else.
fn as_if_by(params: CertificateParams, issuer: &Certificate) -> Vec<u8> {
    let made = Party::root("somebody").issue(params).certificate;
    rebuilt(made.der(), 3, content(issuer.subject()), 1)
}

/// A bundle with digests that fit.
fn bundle(items: &[(String, &[u8])]) -> Vec<u8> {
    let mut objects = serde_json::Map::new();
    let (mut entries, mut lines) = (Vec::new(), Vec::new());
    for (key, content) in items {
        let name = hex(Object::new(content).sha256());
        objects.insert(name.clone(), data_encoding::BASE64.encode(content).into());
        lines.push(format!("{key} {name} - 1 {SOURCE}\n"));
        entries.push(format!(r#"{{"key":"{key}","content":"{name}","fetched_s":1,"source":"{SOURCE}"}}"#));
    }
    lines.sort();
    let text = format!("starminer endorsement snapshot v1\n{}", lines.concat());
    let digest = hex(Object::new(text.as_bytes()).sha256());
    format!(r#"{{"version":1,"digest":"{digest}","items":[{}],"objects":{}}}"#, entries.join(","), Value::from(objects))
        .into_bytes()
}

fn bundles() -> Parser {
    let trust = Trust::genuine();
    let refuses = move |bytes: &[u8]| {
        let Ok(bundle) = Bundle::parse(bytes) else { return true };
        bundle.open(&Snapshot::default(), &mut Marks::none(), &trust, NOW_S).snapshot.is_empty()
    };
    let list = |number: usize| format!("amd/crl/turin/{}", ["vcek", "vlek"][number % 2]);
    let mut broken_list = TURIN_CRL.to_vec();
    let last = broken_list.len() - 1;
    broken_list[last] ^= 1;
    let long = |text: &str| format!(r#"{{"version":"{}"}}"#, text.repeat(MIB / text.len())).into_bytes();
    let digest = "0".repeat(64);
    let begun = |rest: String| format!(r#"{{"version":1,"digest":"{digest}","items":[{rest}"#).into_bytes();
    let entry = format!(r#"{{"key":"intel/root-crl","content":"{digest}","fetched_s":1,"source":""}},"#);
    let own = vec![
        ("a name without an end", begun(format!(r#"{{"key":"{}"#, "a".repeat(4 * MIB)))),
        ("the same item many times", begun(entry.repeat(100_000))),
        ("a list that nobody signed", bundle(&[(list(0), &broken_list)])),
        ("a version without an end", long("A")),
        ("a version of escapes", long(r"\u0041")),
        ("a digest without an end", format!(r#"{{"version":1,"digest":"{}"#, "0".repeat(64 * MIB)).into_bytes()),
        ("items without an end", format!(r#"{{"version":1,"digest":"","items":[{}"#, r"{},".repeat(MIB)).into_bytes()),
        ("objects without an end", filled(br#"{"objects":{"a":"AAAA","b":"AAAA","#, 4 * MIB)),
    ];
    Parser { name: "bundles", prepare: None, refuses: Box::new(refuses), own }
}

/// Parsers of endorsements that are to be kept.
pub fn parsers() -> Vec<Parser> {
    let pck_chain = intels("pck_crl_issuer_chain").map_or_else(|| pem(&deep_chain(2)), String::into_bytes);
    let vcek = include_bytes!("../../tests/data/amd/vcek_milan.der");
    let mut altered = TURIN_CRL.to_vec();
    let last = altered.len() - 1;
    altered[last] ^= 1;
    let in_hex = |bytes: &[u8]| hex(bytes).into_bytes();
    let lists = || {
        let mut all = armoured_lists();
        all.extend([
            ("a genuine list, altered", altered.clone()),
            ("the same in hexadecimal", in_hex(&altered)),
            ("1 MiB in hexadecimal", in_hex(&filled(b"\x30\x83\x07\xff\xfb", 512 * KIB))),
        ]);
        all
    };
    let chip = "00".repeat(64);
    let mut all = vec![
        kept(
            "kept: AMD's keys",
            &format!("amd/vcek/milan/{chip}/0000000000000000"),
            None,
            vec![("a genuine key, altered", broken(vcek, 1).remove(0))],
        ),
        kept("kept: AMD's chains", "amd/chain/milan/vcek", None, vec![("a deep chain", pem(&deep_chain(16)))]),
        kept("kept: AMD's lists", "amd/crl/turin/vcek", None, lists()),
        kept("kept: Intel's root list", "intel/root-crl", None, lists()),
        kept("kept: Intel's PCK list", "intel/pck-crl/platform", Some(pck_chain), lists()),
        kept("kept: TPM authorities", "tpm/authority/https://a/b", None, vec![("somebody's", deep_chain(1).remove(0))]),
        kept("kept: TPM makers' lists", "tpm/crl/https://a/b", None, lists()),
        kept("kept: manifests", "nvidia/rim/NV_GPU_DRIVER_GH100_550.144.03", None, Vec::new()),
    ];
    all.extend([tcb_info(), ocsp(), bundles()]);
    all
}
