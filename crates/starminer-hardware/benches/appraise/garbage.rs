//! What refusing costs: bytes that nobody signed, of every shape that is known to be dear to somebody, given to every parser and, where they parse, to the
//! verifier behind it. For each parser the slowest and the largest of them is told.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use starminer_hardware::cert::{Certificate, Crl};
use starminer_hardware::{dcap, event_log, ima, nvidia, snp, tpm};

use super::count::{cpu_ns, most_held};
use super::node::Node;
use super::samples::{sample, vector};

pub const NOW_S: u64 = 1_750_000_000;
const MOST_NS: f64 = 1e6;
const MOST_BYTES: usize = 1 << 20;
/// Of so many runs the fastest counts: what the others took longer is not theirs.
const RUNS: usize = 5;
pub const KIB: usize = 1 << 10;
pub const MIB: usize = 1 << 20;

/// Parses and verifies; whether it was refused.
pub type Refuses = Box<dyn Fn(&[u8]) -> bool>;

/// Keeps a copy of the bytes for the call.
pub type Prepare = Box<dyn Fn(&[u8])>;

pub struct Parser {
    pub name: &'static str,
    /// Takes over the bytes before time and memory count, where the call takes them in a container of its own.
    pub prepare: Option<Prepare>,
    pub refuses: Refuses,
    /// Shapes of its own.
    pub own: Vec<(&'static str, Vec<u8>)>,
}

#[derive(Default)]
struct Worst {
    ns: f64,
    slowest: String,
    bytes: usize,
    largest: String,
}

impl Worst {
    fn note(&mut self, parser: &Parser, shape: &str, bytes: &[u8]) {
        let mut best = f64::INFINITY;
        for _ in 0..RUNS {
            if let Some(prepare) = &parser.prepare {
                prepare(bytes);
            }
            let start = cpu_ns();
            let (refused, held) = most_held(|| (parser.refuses)(bytes));
            let ns = cpu_ns() - start;
            assert!(refused, "{} takes {shape}", parser.name);
            best = best.min(ns);
            if held > self.bytes {
                (self.bytes, self.largest) = (held, shape.to_owned());
            }
            if ns > 50.0 * MOST_NS {
                break;
            }
        }
        if best > self.ns {
            (self.ns, self.slowest) = (best, shape.to_owned());
        }
    }
}

/// Bytes without any order, the same in every run.
pub fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend(state.to_le_bytes());
    }
    out.truncate(len);
    out
}

pub fn filled(piece: &[u8], len: usize) -> Vec<u8> {
    piece.iter().copied().cycle().take(len).collect()
}

/// Shapes that every parser is given, at sizes just below the usual bounds and far above all of them.
const PIECES: [(&str, &[u8]); 21] = [
    ("zeros", b"\0"),
    ("ones", b"\xff"),
    ("opening brackets", b"["),
    ("opening braces", b"{\"a\":"),
    ("empty objects", b"[{},{},"),
    ("spaces", b" "),
    ("line breaks", b"\n"),
    ("digits", b"1"),
    ("letters", b"A"),
    ("lines of a letter", b"A\n"),
    ("dashes", b"----x"),
    ("single dashes", b"-x"),
    ("letters of two bytes", "\u{e9}".as_bytes()),
    ("quotes", b"\""),
    ("sequences without an end", b"\x30\x80"),
    ("nested sequences", b"\x30\x84\x00\x10\x00\x00"),
    ("nested sequences, short", b"\x30\x82\x3f\xfc"),
    ("boundaries of certificates", b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"),
    ("a certificate without an end", b"-----BEGIN CERTIFICATE-----\nAAAA\n"),
    ("elements", b"<a>"),
    ("attributes", b"<a b=\"c\" d=\"e\" xmlns:f=\"g\">"),
];

fn measure(parser: &Parser) -> Worst {
    let mut worst = Worst::default();
    let sizes = [
        ("1 MiB of ", MIB),
        ("64 MiB of ", 64 * MIB),
        ("500 KiB of ", 500 * KIB),
        ("250 KiB of ", 250 * KIB),
        ("125 KiB of ", 125 * KIB),
        ("60 KiB of ", 60 * KIB),
        ("20 KiB of ", 20 * KIB),
        ("16 KiB of ", 16 * KIB),
    ];
    for (size, len) in sizes {
        worst.note(parser, &format!("{size}noise"), &noise(len));
        for (shape, piece) in PIECES {
            worst.note(parser, &format!("{size}{shape}"), &filled(piece, len));
        }
    }
    for (shape, bytes) in &parser.own {
        worst.note(parser, shape, bytes);
    }
    worst
}

/// A list in which nothing is wrong but what it leads to costs its length, whoever made it. It is therefore read only once a quote has verified, and told
/// here so that the price is known.
fn well_formed() {
    let line = b"10 0000000000000000000000000000000000000000 ima-ng sha1:0000000000000000000000000000000000000000 /\n";
    let list = filled(line, line.len() * ima::MAX_ENTRIES);
    let start = cpu_ns();
    let (refused, held) = most_held(|| {
        let list = ima::MeasurementList::parse(&list).expect("its entries are well formed");
        ima::verify(&list, Some(&register_10())).verified.is_none()
    });
    let ns = cpu_ns() - start;
    assert!(refused, "nothing was extended");
    println!(
        "beside that: a well-formed list of {} entries, behind a quote {:.1} ms, {held} bytes",
        ima::MAX_ENTRIES,
        ns / 1e6
    );
}

fn register_10() -> event_log::PcrValues {
    let json = format!(r#"{{"sha256":{{"10":"{}"}}}}"#, "01".repeat(32));
    event_log::PcrValues::from_json(json.as_bytes()).unwrap()
}

/// A table of them, and what it says for the last line.
pub fn rows(node: &Node) -> Value {
    println!("refusing what nobody signed: the slowest and the largest shape for each parser (at most 1 ms and 1 MiB)");
    let mut told = Vec::new();
    let mut all = Worst::default();
    for parser in parsers(node) {
        let worst = measure(&parser);
        let fits = if worst.ns <= MOST_NS && worst.bytes <= MOST_BYTES { "fits" } else { "over" };
        println!(
            "{:<24} {:>9.1} µs {:>9.1} KiB   {fits}   {}; {}",
            parser.name,
            worst.ns / 1e3,
            worst.bytes as f64 / KIB as f64,
            worst.slowest,
            worst.largest,
        );
        told.push(json!({"parser": parser.name, "ns": worst.ns.round(), "slowest": worst.slowest, "bytes": worst.bytes, "largest": worst.largest}));
        all.ns = all.ns.max(worst.ns);
        all.bytes = all.bytes.max(worst.bytes);
    }
    println!("{:<24} {:>9.1} µs {:>9.1} KiB", "all", all.ns / 1e3, all.bytes as f64 / KIB as f64);
    well_formed();
    json!({"ns": all.ns.round(), "bytes": all.bytes, "parsers": told})
}

pub fn pem(certificates: &[Vec<u8>]) -> Vec<u8> {
    let block = |der: &Vec<u8>| {
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", data_encoding::BASE64.encode(der))
    };
    certificates.iter().map(block).collect::<String>().into_bytes()
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

/// A chain of as many certificates, each issued by the next, and the last by itself.
pub fn deep_chain(count: usize) -> Vec<Vec<u8>> {
    let key = KeyPair::generate().unwrap();
    (0..count)
        .map(|at| {
            let issuer = params(&format!("Authority {}", (at + 1).min(count - 1)));
            let issued = params(&format!("Authority {at}")).signed_by(&key, &Issuer::from_params(&issuer, &key));
            issued.unwrap().der().to_vec()
        })
        .collect()
}

/// Certificates that all name one issuer, so that every order of them is a path.
fn tangled(count: usize) -> Vec<Vec<u8>> {
    let key = KeyPair::generate().unwrap();
    let one = params("One");
    (0..count)
        .map(|_| {
            let other = params("Other");
            let (name, issuer) = (&one, &other);
            name.signed_by(&key, &Issuer::from_params(issuer, &key)).unwrap().der().to_vec()
        })
        .collect()
}

/// Copies of a genuine certificate, each with another broken signature: all of them hang on a root by name.
pub fn broken(der: &[u8], count: usize) -> Vec<Vec<u8>> {
    (0..count)
        .map(|at| {
            let mut copy = der.to_vec();
            let last = copy.len() - 1 - at;
            copy[last] ^= 1;
            copy
        })
        .collect()
}

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    let header = match length {
        [0, 0, 0, short @ 0..0x80] => vec![tag, short],
        [0, 0, 0, short] => vec![tag, 0x81, short],
        [0, 0, high, low] => vec![tag, 0x82, high, low],
        [0, a, b, c] => vec![tag, 0x83, a, b, c],
        [a, b, c, d] => vec![tag, 0x84, a, b, c, d],
    };
    [header.as_slice(), content].concat()
}

pub fn rebuilt(certificate: &[u8], field: usize, piece: &[u8], count: usize) -> Vec<u8> {
    let fields = |content: &[u8]| {
        let mut reader = content;
        let mut out = Vec::new();
        while !reader.is_empty() {
            let (element, rest) = element(reader);
            out.push(element.to_vec());
            reader = rest;
        }
        out
    };
    let mut outer = fields(content(certificate));
    let mut inner = fields(content(&outer[0]));
    let old = inner[field].clone();
    let filled = match old[0] {
        0xa3 => der(0xa3, &der(0x30, &filled(piece, piece.len() * count))),
        tag => der(tag, &filled(piece, piece.len() * count)),
    };
    inner[field] = filled;
    outer[0] = der(0x30, &inner.concat());
    der(0x30, &outer.concat())
}

/// The first element of some DER, and what follows it.
fn element(bytes: &[u8]) -> (&[u8], &[u8]) {
    let header = header(bytes);
    let len = match header {
        2 => usize::from(bytes[1]),
        more => bytes[2..more].iter().fold(0, |len, &byte| len << 8 | usize::from(byte)),
    };
    bytes.split_at(header + len)
}

fn header(bytes: &[u8]) -> usize {
    if bytes[1] < 0x80 { 2 } else { 2 + usize::from(bytes[1] & 0x7f) }
}

pub fn content(bytes: &[u8]) -> &[u8] {
    &element(bytes).0[header(bytes)..]
}

pub fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

const MILAN_ASK: &[u8] = include_bytes!("../../roots/amd/milan_ask.pem");
const VCEK: &[u8] = include_bytes!("../../tests/data/amd/vcek_milan.der");
pub const TURIN_CRL: &[u8] = include_bytes!("../../tests/data/amd/turin.crl");

fn report() -> Vec<u8> {
    let hex: String = include_str!("../../tests/data/amd/report_milan.hex").split_whitespace().collect();
    data_encoding::HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).unwrap()
}

fn parsers(node: &Node) -> Vec<Parser> {
    let mut all = vec![snp_report(), certificates(), revocation_list()];
    all.extend([quote(), endorsements()]);
    all.extend(tpm_parsers(node));
    all.extend([event_logs(node), signature_lists(), measurement_lists(node), gpu_evidence(), manifests()]);
    all.extend(super::kept::parsers());
    all
}

fn snp_report() -> Parser {
    let refuses = |bytes: &[u8]| {
        let Ok(report) = snp::Report::parse(bytes) else { return true };
        let certificates = [Certificate::from_der(VCEK).unwrap()];
        snp::verify(&report, &certificates, &[], &snp::roots(), NOW_S).verified.is_none()
    };
    let good = report();
    let with = |at: usize| {
        let mut report = good.clone();
        report[at] ^= 1;
        report
    };
    let own = vec![("another chip", with(0x1a0)), ("a genuine key's report, altered", with(0x90))];
    Parser { name: "SNP report", prepare: None, refuses: Box::new(refuses), own }
}

/// As certificates of a report, which is genuine, and of an endorsement key.
fn certificates() -> Parser {
    let genuine = snp::Report::parse(&report()).unwrap();
    let refuses = move |bytes: &[u8]| {
        let Ok(certificates) = Certificate::read(bytes) else { return true };
        let leaf = tpm::ek::EkCertificate::parse(certificates.first().map_or(&[], Certificate::der));
        let refused = leaf.is_ok_and(|leaf| {
            let context = tpm::ek::Context { authorities: &certificates, crls: &[], now_s: NOW_S };
            // An authority that names itself is a root of the caller's; here nobody named any.
            let verified = tpm::ek::verify(&leaf, &context).verified;
            verified.is_none_or(|verified| verified.claims().to_json()["provenance"] == "simulated")
        });
        refused && snp::verify(&genuine, &certificates, &[], &snp::roots(), NOW_S).verified.is_none()
    };
    let ask = Certificate::read_one(MILAN_ASK).unwrap();
    let small = deep_chain(1).remove(0);
    let names = |piece: &[u8]| {
        let subject = rebuilt(&small, 5, piece, 15 * KIB / piece.len());
        let issuer = rebuilt(&small, 3, piece, 15 * KIB / piece.len());
        pem(&[[subject.clone(), issuer.clone()].concat()]).truncate(0);
        (subject, issuer)
    };
    let (subject, issuer) = names(b"\x31\x09\x30\x07\x06\x03\x55\x04\x03\x0c\x00");
    let (one_set, _) = {
        let attributes = filled(b"\x30\x07\x06\x03\x55\x04\x03\x0c\x00", 9 * 1600);
        names(&der(0x31, &attributes))
    };
    let extensions = rebuilt(&small, 7, b"\x30\x07\x06\x01\x2a\x04\x02\x05\x00", 1700);
    let own = vec![
        ("a deep chain", pem(&deep_chain(16))),
        ("a deep chain in DER", deep_chain(16).concat()),
        ("a chain too long", pem(&deep_chain(64))),
        ("a tangle", pem(&tangled(16))),
        ("broken authorities", pem(&[broken(VCEK, 1), broken(ask.der(), 15)].concat())),
        ("a genuine key, broken authorities", pem(&[vec![VCEK.to_vec()], broken(ask.der(), 15)].concat())),
        ("broken keys", pem(&broken(VCEK, 16))),
        ("a name of many parts", subject),
        ("an issuer of many parts", issuer),
        ("a part of many attributes", one_set),
        ("the same extension many times", extensions.clone()),
        ("many extensions, many times", filled(&extensions, extensions.len() * 8)),
    ];
    Parser { name: "certificates", prepare: None, refuses: Box::new(refuses), own }
}

fn revocation_list() -> Parser {
    let refuses = |bytes: &[u8]| {
        let Ok(lists) = Crl::read(bytes) else { return true };
        let roots = snp::roots();
        lists.iter().all(|list| roots.iter().all(|(root, _)| list.verify(root, NOW_S).is_err()))
    };
    // The genuine list with entries that it does not have, of a serial number and a date each: as many as fit.
    let entry = b"\x30\x12\x02\x01\x07\x17\x0d260101000000Z";
    let entries = der(0x30, &filled(entry, entry.len() * 25_000));
    let (tbs, rest) = element(content(TURIN_CRL));
    let mut fields = Vec::new();
    let mut inner = content(tbs);
    while !inner.is_empty() {
        let (field, after) = element(inner);
        if field[0] == 0xa0 {
            fields.extend(&entries);
        }
        fields.extend(field);
        inner = after;
    }
    let whole = |fields: &[u8]| der(0x30, &[&der(0x30, fields), rest].concat());
    let long = whole(&fields);
    let mut at_the_end = long.clone();
    let last = at_the_end.len() - rest.len() - 60;
    at_the_end[last] ^= 0x40;
    let own = [vec![("many entries", long), ("many entries, broken", at_the_end)], armoured_lists()].concat();
    Parser { name: "revocation lists", prepare: None, refuses: Box::new(refuses), own }
}

/// Lists in PEM that have no end, or nothing in them.
pub fn armoured_lists() -> Vec<(&'static str, Vec<u8>)> {
    let armoured = |piece: &[u8], len: usize| {
        [b"-----BEGIN X509 CRL-----\n", &filled(piece, len)[..], b"\n-----END X509 CRL-----\n"].concat()
    };
    let line = [&[b'A'; 64][..], b"\n"].concat();
    vec![
        ("a block of letters", armoured(b"A", 500 * KIB)),
        ("a block of lines", armoured(&line, 500 * KIB)),
        ("a block of short lines", armoured(b"AAAA\n", 50 * KIB)),
        ("a block of blanks", armoured(b"A \n", 500 * KIB)),
        ("a block of one line of blanks", armoured(b" ", 500 * KIB)),
    ]
}

fn quote() -> Parser {
    let refuses = |bytes: &[u8]| {
        let Ok(quote) = dcap::Quote::parse(bytes) else { return true };
        dcap::verify(&quote, &dcap::Endorsements::none(), &dcap::roots(), NOW_S).verified.is_none()
    };
    let mut own = Vec::new();
    for name in ["sgx_quote", "tdx_quote"] {
        let Some(good) = sample(name) else { continue };
        let signature_data = if name == "sgx_quote" { 432 } else { 632 };
        let with = |at: usize, bytes: &[u8]| {
            let mut quote = good.clone();
            quote.resize(20 * KIB, 0xff);
            quote[at..at + bytes.len()].copy_from_slice(bytes);
            quote
        };
        own.push(("signature data without an end", with(signature_data, &[0xff; 4])));
        own.push(("signature data of all that is there", with(signature_data, &(20 * KIB as u32 - 636).to_le_bytes())));
        own.push(("authentication data without an end", with(signature_data + 4 + 128 + 6 + 384 + 64, &[0xff; 2])));
        own.push(("another body", with(100, &[1; 32])));
        own.push(("another key", with(signature_data + 4 + 64, &[1; 64])));
        let pem_at = good.windows(11).position(|window| window == b"-----BEGIN ").unwrap();
        own.push(("a chain of nonsense", with(pem_at + 40, &filled(b"AAAA", 512))));
        own.push((
            "boundaries alone",
            with(pem_at, &filled(b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", 3000)),
        ));
    }
    Parser { name: "Intel's quotes", prepare: None, refuses: Box::new(refuses), own }
}

fn endorsements() -> Parser {
    let refuses = |bytes: &[u8]| {
        let Ok(endorsements) = dcap::Endorsements::parse(bytes) else { return true };
        let Some(quote) = sample("tdx_quote") else { return true };
        let quote = dcap::Quote::parse(&quote).unwrap();
        dcap::verify(&quote, &endorsements, &dcap::roots(), NOW_S).verified.is_none()
    };
    let level = r#"{"tcb":{"sgxtcbcomponents":[],"pcesvn":0},"tcbDate":"2024-01-01T00:00:00Z","tcbStatus":"UpToDate"}"#;
    let levels = vec![level; 9_000].join(",");
    let info = format!(
        r#"{{"id":"TDX","version":3,"issueDate":"2024-01-01T00:00:00Z","nextUpdate":"2024-01-01T00:00:00Z","fmspc":"","pceId":"","tcbType":0,"tcbEvaluationDataNumber":1,"tcbLevels":[{levels}]}}"#
    );
    let advisories = info.replace(
        &info[info.find("[{").unwrap()..],
        &format!(
            r#"[{{"tcb":{{"sgxtcbcomponents":[],"pcesvn":0}},"tcbDate":"2024-01-01T00:00:00Z","tcbStatus":"UpToDate","advisoryIDs":[{}]}}]}}"#,
            vec![r#""""#; 8_100].join(",")
        ),
    );
    let chain = String::from_utf8(pem(&deep_chain(2))).unwrap();
    let full = |member: &str, text: &str| {
        let mut file = serde_json::Map::new();
        file.insert(format!("{member}_issuer_chain"), chain.clone().into());
        file.insert(member.to_owned(), text.into());
        file.insert(format!("{member}_signature"), "00".repeat(64).into());
        Value::from(file).to_string().into_bytes()
    };
    let cut = |bytes: Vec<u8>, len: usize| bytes.into_iter().take(len).collect::<Vec<_>>();
    let fitting = |size: usize| {
        let levels = vec![level; size / level.len()].join(",");
        full("tcb_info", &info.replace(&info[info.find("[{").unwrap()..], &format!("[{levels}]}}")))
    };
    let own = vec![
        ("many levels", full("tcb_info", &info)),
        ("many levels, 200 KiB", fitting(170 * KIB)),
        ("as many levels as are read", fitting(63 * KIB)),
        ("as many advisories as are read", full("tcb_info", &advisories)),
        ("many levels, cut", cut(full("tcb_info", &info), MIB - 1)),
        ("a text of 1 MiB", cut(full("tcb_info", &"x".repeat(2 * MIB)), MIB)),
        ("JSON in JSON, nested", full("qe_identity", &"[".repeat(100 * KIB))),
        ("a list of many entries", json!({"pck_crl": hex(&filled(b"\x30\x00", 120 * KIB))}).to_string().into_bytes()),
        ("members that nobody knows", format!("{{{}}}", vec![r#""a":[{}]"#; 50_000].join(",")).into_bytes()),
    ];
    Parser { name: "Intel's endorsements", prepare: None, refuses: Box::new(refuses), own }
}

fn tpm_parsers(node: &Node) -> Vec<Parser> {
    let (attest, signature, public) = (&node.quote.attest, &node.quote.signature, &node.key.public);
    let with = |bytes: &[u8], at: usize, change: &[u8]| {
        let mut bytes = bytes.to_vec();
        bytes[at..at + change.len()].copy_from_slice(change);
        bytes
    };
    let selections = attest.len() - 34 - 10;
    let key = tpm::AttestationKey::parse(public).unwrap();
    let verify = move |attest: &[u8], signature: &[u8]| {
        let Ok(quote) = tpm::Quote::parse(attest, signature) else { return true };
        let parent = tpm::Parent::Unknown;
        let context = tpm::Context { nonce: &[0x5a; 32], ak: &key, parent, pcrs: None, maker: None };
        tpm::verify(&quote, &context).verified.is_none()
    };
    let verify = std::rc::Rc::new(verify);
    let (by_attest, by_signature) = (verify.clone(), verify);
    let (good_attest, good_signature) = (attest.clone(), signature.clone());
    let json = |inner: String| format!(r#"{{"sha256":{{{inner}}}}}"#).into_bytes();
    let value = format!(r#""0":"{}""#, "00".repeat(32));
    let pcr_shapes = vec![
        ("a value without an end", json(format!(r#""0":"{}""#, "0".repeat(MIB)))),
        ("a value twice, many times", json(vec![value.as_str(); 10_000].join(","))),
        ("many banks", format!("{{{}}}", vec![r#""sm3_256":{}"#; 4_500].join(",")).into_bytes()),
        ("banks of many letters", format!(r#"{{"{}":{{}}}}"#, "a".repeat(60 * KIB)).into_bytes()),
    ];
    vec![
        Parser {
            name: "TPM attestation",
            prepare: None,
            refuses: Box::new(move |bytes| by_attest(bytes, &good_signature)),
            own: vec![
                ("selections without number", with(attest, selections, &[0xff; 4])),
                ("a digest without an end", with(attest, attest.len() - 34, &[0xff; 2])),
                ("a name without an end", with(attest, 6, &[0xff; 2])),
                ("another nonce", with(attest, 45, &[0; 8])),
                ("another digest", with(attest, attest.len() - 8, &[0; 8])),
            ],
        },
        Parser {
            name: "TPM signature",
            prepare: None,
            refuses: Box::new(move |bytes| by_signature(&good_attest, bytes)),
            own: vec![
                ("a number without an end", with(signature, 4, &[0xff; 2])),
                ("another number", with(signature, 10, &[0; 8])),
            ],
        },
        Parser {
            name: "TPM public area",
            prepare: None,
            refuses: Box::new(|bytes| tpm::AttestationKey::parse(bytes).is_err()),
            own: vec![
                ("a policy without an end", with(public, 8, &[0xff; 2])),
                ("a point without an end", with(public, 20, &[0xff; 2])),
            ],
        },
        Parser {
            name: "TPM's PCR values",
            prepare: None,
            refuses: Box::new(|bytes| tpm::PcrValues::parse(bytes, &[]).is_err()),
            own: pcr_shapes.clone(),
        },
        Parser {
            name: "a log's register values",
            prepare: None,
            refuses: Box::new(|bytes| event_log::PcrValues::from_json(bytes).is_err()),
            own: pcr_shapes,
        },
        Parser {
            name: "endorsement key",
            prepare: None,
            refuses: Box::new(|bytes| {
                let Ok(ek) = tpm::ek::EkCertificate::parse(bytes) else { return true };
                let context = tpm::ek::Context { authorities: &[], crls: &[], now_s: NOW_S };
                tpm::ek::verify(&ek, &context).verified.is_none()
            }),
            own: vec![
                ("a certificate of nobody's", deep_chain(1).remove(0)),
                ("a certificate and much padding", [deep_chain(1).remove(0), vec![0; 30 * KIB]].concat()),
            ],
        },
    ]
}

fn event_logs(node: &Node) -> Parser {
    let registers = event_log::PcrValues::from_json(
        br#"{"sha256":{"0":"0101010101010101010101010101010101010101010101010101010101010101"}}"#,
    );
    let registers = registers.unwrap();
    let refuses = move |bytes: &[u8]| {
        let Ok(log) = event_log::EventLog::parse(bytes) else { return true };
        event_log::verify(&log, event_log::Registers::Pcrs(&registers)).verified.is_none()
    };
    let header = &node.event_log[..32 + 37];
    let with = |count: [u8; 4]| [header, &[0, 0, 0, 0, 1, 0, 0, 0], &count, &[0x0b, 0]].concat();
    let mut algorithms = header.to_vec();
    algorithms[32 + 24..32 + 28].fill(0xff);
    let own = vec![
        ("algorithms without number", algorithms),
        ("digests without number", with([0xff; 4])),
        ("a log and a header cut", [&node.event_log, &node.event_log[69..90]].concat()),
        ("a log and zeros", [node.event_log.as_slice(), &vec![0; 4 * MIB - node.event_log.len()]].concat()),
        ("a log and zeros and a one", [node.event_log.as_slice(), &vec![0; 3 * MIB], &[1]].concat()),
        ("a log that leads elsewhere", node.event_log.clone()),
    ];
    Parser { name: "event logs", prepare: None, refuses: Box::new(refuses), own }
}

fn signature_lists() -> Parser {
    let list = |whole: u32, size: u32, len: usize| {
        let mut bytes =
            vec![0x26, 0x16, 0xc4, 0xc1, 0x4c, 0x50, 0x92, 0x40, 0xac, 0xa9, 0x41, 0xf9, 0x36, 0x93, 0x43, 0x28];
        bytes.extend(whole.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(size.to_le_bytes());
        bytes.resize(len, 7);
        bytes
    };
    let many = 28 + 48 * 20_000;
    Parser {
        name: "signature lists",
        prepare: None,
        refuses: Box::new(|bytes| event_log::parse_signature_lists(bytes).is_none()),
        own: vec![
            ("a list without an end", list(u32::MAX, 48, MIB)),
            ("entries of no length", list(1 << 20, 0, MIB)),
            ("entries of one byte", list(1 << 20, 1, MIB)),
            ("too many entries", list(many as u32, 48, many)),
            ("empty lists", filled(&list(28, 48, 28), MIB - MIB % 28 + 1)),
        ],
    }
}

fn measurement_lists(node: &Node) -> Parser {
    let registers = register_10();
    let refuses = move |bytes: &[u8]| {
        let Ok(list) = ima::MeasurementList::parse(bytes) else { return true };
        ima::verify(&list, Some(&registers)).verified.is_none()
    };
    let head = |rest: &[u8]| [&node.ima_list[..24], rest].concat();
    let own = vec![
        ("a template without an end", head(&[0xff; 4])),
        ("data without an end", head(b"\x06\0\0\0ima-ng\xff\xff\xff\xff")),
        ("a list and one byte", [node.ima_list.as_slice(), &[0]].concat()),
        ("a line without an end", [b"10 ".as_slice(), &vec![b'0'; 64 * MIB - 3]].concat()),
        ("a path without an end", [&node.ima_text[..120], &vec![b'a'; 64 * MIB - 120]].concat()),
    ];
    Parser { name: "measurement lists", prepare: None, refuses: Box::new(refuses), own }
}

fn gpu_evidence() -> Parser {
    let refuses = |bytes: &[u8]| {
        let Ok(evidence) = nvidia::Evidence::parse(bytes) else { return true };
        let endorsements = nvidia::Endorsements::default();
        let roots = nvidia::Roots::compiled_in();
        nvidia::verify(&evidence, nvidia::Nonce::Unknown, &endorsements, &roots, NOW_S).verified.is_none()
    };
    let entry = r#"{"arch":"HOPPER","certificate":"","evidence":"","nonce":""}"#;
    let report = hex_file(include_str!("../../tests/data/nvidia/hopper_report.hex"));
    let chain = include_bytes!("../../tests/data/nvidia/hopper_chain.pem").to_vec();
    let gpu = |chain: &[u8], report: &[u8]| {
        let base64 = |bytes: &[u8]| data_encoding::BASE64.encode(bytes);
        let nonce = hex(report.get(4..36).unwrap_or(&[0; 32]));
        json!({"arch": "HOPPER", "certificate": base64(chain), "evidence": base64(report), "nonce": nonce})
    };
    let one = |chain: &[u8], report: &[u8]| json!([gpu(chain, report)]).to_string().into_bytes();
    let with = |at: usize, change: &[u8]| {
        let mut report = report.clone();
        report[at..at + change.len()].copy_from_slice(change);
        report
    };
    let own = vec![
        ("many GPUs", format!("[{}]", vec![entry; 8_000].join(",")).into_bytes()),
        (
            "many GPUs in a request",
            format!(r#"{{"arch":"HOPPER","nonce":"","evidence_list":[{}]}}"#, vec![entry; 8_000].join(","))
                .into_bytes(),
        ),
        ("blocks without number", one(&chain, &with(42, &[0xff; 3]))),
        ("a report of 64 KiB", one(&chain, &[report.as_slice(), &vec![0; 60 * KIB]].concat())),
        (
            "a long text",
            json!([{"arch": "HOPPER", "certificate": "A".repeat(400 * KIB), "evidence": "AAAA", "nonce": "00"}])
                .to_string()
                .into_bytes(),
        ),
        ("a deep chain", one(&pem(&deep_chain(16)), &report)),
        ("a chain of eight", one(&pem(&deep_chain(8)), &report)),
        ("a genuine device's report, altered", one(&chain, &with(report.len() - 1, &[!report[report.len() - 1]]))),
        (
            "sixteen of those",
            Value::from(vec![gpu(&chain, &with(report.len() - 1, &[!report[report.len() - 1]])); 16])
                .to_string()
                .into_bytes(),
        ),
    ];
    Parser { name: "GPU evidence", prepare: None, refuses: Box::new(refuses), own }
}

pub fn hex_file(text: &str) -> Vec<u8> {
    data_encoding::HEXLOWER.decode(text.trim().as_bytes()).unwrap()
}

fn manifests() -> Parser {
    let report = hex_file(include_str!("../../tests/data/nvidia/hopper_report.hex"));
    let chain = include_bytes!("../../tests/data/nvidia/hopper_chain.pem");
    let evidence = json!([{
        "arch": "HOPPER",
        "certificate": data_encoding::BASE64.encode(chain),
        "evidence": data_encoding::BASE64.encode(&report),
        "nonce": hex(&report[4..36]),
    }]);
    let evidence = nvidia::Evidence::parse(evidence.to_string().as_bytes()).unwrap();
    let refuses = move |bytes: &[u8]| {
        let Ok(rim) = nvidia::Rim::parse(bytes) else { return true };
        let rims = [rim];
        let endorsements = nvidia::Endorsements { rims: &rims, ..nvidia::Endorsements::default() };
        // Another nonce than the evidence's, so that the evidence's own signatures are left out.
        let nonce = nvidia::Nonce::Expected([0; 32]);
        let roots = nvidia::Roots::compiled_in();
        nvidia::verify(&evidence, nonce, &endorsements, &roots, NOW_S).verified.is_none()
    };
    let good = include_str!("../../tests/data/nvidia/vbios_96.00.74.00.1C.swidtag");
    let bombs = "<!DOCTYPE a [<!ENTITY b \"cccccccccc\"><!ENTITY d \"&b;&b;&b;&b;\">]>";
    let many = |piece: &str, len: usize| piece.repeat(len / piece.len());
    let first_resource = good.find("<Resource").unwrap_or(good.len() / 2);
    let inserted = |piece: &str| [&good[..first_resource], piece, &good[first_resource..]].concat().into_bytes();
    let mut own = vec![
        ("entities", format!("{bombs}{good}").into_bytes()),
        ("deep elements", format!("{}{}", many("<a>", 55 * KIB), many("</a>", 70 * KIB)).into_bytes()),
        ("many elements", format!("<a>{}</a>", many("<a/>", 120 * KIB)).into_bytes()),
        (
            "many attributes",
            format!("<a {}/>", (0..20_000).map(|n| format!("a{n}=\"\" ")).collect::<String>()).into_bytes(),
        ),
        (
            "many attributes, in many elements",
            format!(
                "<a>{}</a>",
                many(&format!("<a {}/>", (0..60).map(|n| format!("a{n}=\"\" ")).collect::<String>()), 120 * KIB)
            )
            .into_bytes(),
        ),
        ("many namespaces", many("<a xmlns:b=\"c\">", 120 * KIB).into_bytes()),
        ("blanks", inserted(&" ".repeat(105 * KIB))),
        ("many resources", inserted(&many("<Resource/>", 100 * KIB))),
        ("another digest of a genuine manifest", good.replacen("Hash0=\"", "Hash0=\"0", 1).into_bytes()),
        ("another measurement of a genuine manifest", inserted("")),
    ];
    // The last one altered where nothing but the digest tells.
    let altered = own.last_mut().map(|(_, bytes)| bytes).unwrap();
    let at = first_resource + good[first_resource..].find("Hash0=\"").unwrap() + 10;
    altered[at] = if altered[at] == b'0' { b'1' } else { b'0' };
    if let Some(mut driver) = vector("../nvidia/NV_GPU_DRIVER_GH100_550.144.03.xml") {
        let at = driver.windows(16).position(|window| window.ends_with(b"SignatureValue>")).map_or(0, |at| at + 40);
        driver[at] = if driver[at] == b'A' { b'B' } else { b'A' };
        own.push(("another signature of a genuine manifest", driver));
    }
    Parser { name: "GPU manifests", prepare: None, refuses: Box::new(refuses), own }
}
