//! What verifying hardware evidence costs: from bytes to appraisal, as a ratio to the raw signature verifications in it, measured in the same run; and what it
//! costs to refuse garbage, in time and memory. Prints one line of JSON at the end for whoever keeps the numbers.
//!
//! Real evidence is read in place: AMD's and NVIDIA's from this crate's tests, Intel's from the crate `dcap-qvl`, a driver's manifest from the shared
//! vectors. A TPM's is made here, by a key of this process. Times are of this thread on the CPU.

#![allow(clippy::unwrap_used)]

mod count;
mod garbage;
mod kept;
mod node;
#[path = "../../tests/endorsements/responder.rs"]
#[allow(dead_code)] // likewise
mod responder;
#[path = "../../tests/dcap/samples.rs"]
#[allow(dead_code)] // the tests use more of it
mod samples;

use std::hint::black_box;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, RSA_PSS_2048_8192_SHA384, UnparsedPublicKey,
};
use serde_json::{Value, json};
use starminer_hardware::cert::Certificate;
use starminer_hardware::{dcap, nvidia, snp};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use count::cpu_ns;
use node::{Node, hold};
use samples::{Sample, vector};

const ROUNDS: usize = 30;
/// Calls a round are as many as take about this long.
const ROUND_NS: f64 = 4e6;
/// Composite appraisals whose slowest hundredth is told.
const COMPOSITES: usize = 2_000;

/// Something to measure.
type Call<'a> = Box<dyn FnMut() + 'a>;

fn time(call: &mut Call<'_>, calls: usize) -> f64 {
    let start = cpu_ns();
    for _ in 0..calls {
        call();
    }
    (cpu_ns() - start) / calls as f64
}

/// Median nanoseconds of each call, over rounds that alternate between them.
fn medians(calls: &mut [Call<'_>]) -> Vec<f64> {
    let counts: Vec<usize> = calls
        .iter_mut()
        .map(|call| {
            time(call, 1);
            (ROUND_NS / time(call, 3)).clamp(1.0, 1000.0) as usize
        })
        .collect();
    let mut samples = vec![Vec::new(); calls.len()];
    for _ in 0..ROUNDS {
        for ((call, count), samples) in calls.iter_mut().zip(&counts).zip(&mut samples) {
            samples.push(time(call, *count));
        }
    }
    samples.into_iter().map(|samples| quantile(samples, 0.5)).collect()
}

fn quantile(mut samples: Vec<f64>, which: f64) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[((samples.len() - 1) as f64 * which).round() as usize]
}

/// Rows, told as they come and kept for the last line.
#[derive(Default)]
struct Table(Vec<Value>);

impl Table {
    /// A row: nanoseconds, and what they are held against.
    fn row(&mut self, name: &str, ns: f64, against: &str, bound_ns: f64) {
        let fits = if ns <= bound_ns { "fits" } else { "over" };
        println!("{name:<52} {:>9.1} µs   {fits}   {against}: {:.1} µs", ns / 1e3, bound_ns / 1e3);
        self.0.push(json!({"row": name, "ns": ns.round(), "bound": against, "bound_ns": bound_ns.round(), "fits": ns <= bound_ns}));
    }

    fn note(name: &str, ns: f64, against: &str, of_ns: f64) {
        println!("{name:<52} {:>9.1} µs   {:.2} x {against}", ns / 1e3, ns / of_ns);
    }
}

fn main() {
    // Words after `--` choose sections: `cargo bench -p starminer-hardware -- snp garbage`.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let chosen = |section: &str| words.is_empty() || words.iter().any(|word| word == section);
    let mut table = Table::default();
    let (snp, node) = (Snp::new(), Node::new());
    if chosen("snp") {
        snp.rows(&mut table);
    }
    for name in ["sgx_quote", "tdx_quote", "tdx_quote_td15ex"] {
        if chosen("dcap")
            && let Some(sample) = Sample::read(name)
        {
            dcap_rows(name, &sample, &mut table);
        }
    }
    if chosen("tpm") {
        tpm_rows(&node, &mut table);
    }
    if chosen("composite") {
        composite_rows(&node, &snp, &mut table);
    }
    let garbage = if chosen("garbage") { garbage::rows(&node) } else { Value::Null };
    println!("{}", json!({"bench": "hardware-appraise", "rows": table.0, "garbage": garbage}));
}

/// A report of a Milan, with its VCEK and AMD's authorities.
struct Snp {
    report: Vec<u8>,
    vcek: Vec<u8>,
    key: snp::VerifiedKey,
    policy: snp::Policy,
}

impl Snp {
    const NOW_S: u64 = 1_700_000_000;

    fn new() -> Self {
        let hex: String = include_str!("../../tests/data/amd/report_milan.hex").split_whitespace().collect();
        let report = data_encoding::HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).unwrap();
        let vcek = include_bytes!("../../tests/data/amd/vcek_milan.der").to_vec();
        let certificates = [Certificate::from_der(&vcek).unwrap()];
        let key = snp::verify_key(&certificates, &[], &snp::roots(), Self::NOW_S).key.expect("AMD's key");
        let parsed = snp::Report::parse(&report).unwrap();
        let verified = snp::verify_with_key(&parsed, &key, Self::NOW_S).verified.expect("a genuine report");
        let claims = verified.claims();
        let mut policy = snp::Policy {
            crl: snp::Crls::Optional,
            measurement: snp::Expect::OneOf(vec![snp::Hex(claims.measurement)]),
            report_data: snp::Expect::OneOf(vec![snp::Hex(claims.report_data)]),
            vmpl: snp::Expect::Any,
            ..snp::Policy::default()
        };
        policy.tcb_floor.insert(claims.product, claims.launch_tcb.components(claims.product));
        Self { report, vcek, key, policy }
    }

    fn with_cached_key(&self) {
        let report = snp::Report::parse(black_box(&self.report)).unwrap();
        let verified = snp::verify_with_key(&report, &self.key, Self::NOW_S).verified.unwrap();
        hold("SNP report", &snp::appraise(&verified, &self.policy));
    }

    fn with_new_key(&self) {
        let report = snp::Report::parse(black_box(&self.report)).unwrap();
        let certificates = Certificate::read(black_box(&self.vcek)).unwrap();
        let verified = snp::verify(&report, &certificates, &[], &snp::roots(), Self::NOW_S).verified.unwrap();
        hold("SNP report", &snp::appraise(&verified, &self.policy));
    }

    fn rows(&self, table: &mut Table) {
        let (_, vcek) = X509Certificate::from_der(&self.vcek).unwrap();
        let point = vcek.public_key().subject_public_key.data.to_vec();
        let half = |at: usize| self.report[at..at + 48].iter().rev().copied();
        let signature: Vec<u8> = half(0x2a0).chain(half(0x2e8)).collect();
        let ask = Certificate::read_one(include_bytes!("../../roots/amd/milan_ask.pem")).unwrap();
        let (_, ask) = X509Certificate::from_der(ask.der()).unwrap();
        let rsa = ask.public_key().subject_public_key.data.to_vec();
        let mut calls: [Call<'_>; 4] = [
            Box::new(|| {
                let key = UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, black_box(&point));
                key.verify(&self.report[..0x2a0], &signature).unwrap();
            }),
            Box::new(|| {
                let key = UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA384, black_box(&rsa));
                key.verify(vcek.tbs_certificate.as_ref(), &vcek.signature_value.data).unwrap();
            }),
            Box::new(|| self.with_cached_key()),
            Box::new(|| self.with_new_key()),
        ];
        let [p384, rsa4096, cached, new] = medians(&mut calls)[..] else { unreachable!("one for each call") };
        table.row("SNP report, its key cached", cached, "1.15 x P-384", 1.15 * p384);
        table.row("SNP report, its VCEK new", new, "1.15 x (P-384 + RSA-4096)", 1.15 * (p384 + rsa4096));
    }
}

/// A quote of Intel's, its endorsements verified before.
struct Dcap<'a> {
    sample: &'a Sample,
    warm: dcap::Warm,
    policy: dcap::Policy,
}

impl<'a> Dcap<'a> {
    fn new(sample: &'a Sample) -> Self {
        use dcap::{Body, Expect, Hex};
        let warm = dcap::Warm::new(sample.endorsements(), dcap::roots(), sample.now_s);
        let quote = dcap::Quote::parse(&sample.quote).unwrap();
        let verified = dcap::verify_warm(&quote, &warm, sample.now_s).verified.expect("a genuine quote");
        let claims = verified.claims();
        let mut policy = dcap::Policy { max_endorsement_age_days: 30, ..dcap::Policy::default() };
        policy.report_data = Expect::Any;
        match claims.body() {
            Body::Sgx(body) => {
                policy.sgx.mrenclave = Expect::exactly(Hex(body.mr_enclave));
                policy.sgx.mrsigner = Expect::Any;
            }
            Body::Tdx(body) => policy.tdx.mrtd = Expect::exactly(Hex(body.mr_td)),
        }
        Self { sample, warm, policy }
    }

    fn appraise(&self) -> dcap::Verified {
        let quote = dcap::Quote::parse(black_box(&self.sample.quote)).unwrap();
        let verified = dcap::verify_warm(&quote, &self.warm, self.sample.now_s).verified.unwrap();
        // What these quotes are of is nobody's release, so that a policy refuses them; it is asked all the same.
        assert!(!black_box(dcap::appraise(&verified, &self.policy)).as_slice().is_empty());
        verified
    }
}

fn dcap_rows(name: &str, sample: &Sample, table: &mut Table) {
    let dcap = Dcap::new(sample);
    let verified = dcap.appraise();
    let (endorsements, root) = (sample.endorsements(), dcap::intel_root());
    let key = node::Key::new();
    let message = &sample.quote[..sample.quote.len().min(632)];
    let signature = key.sign(message);
    let mut calls: [Call<'_>; 3] = [
        Box::new(|| {
            let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, black_box(key.point()));
            key.verify(message, &signature).unwrap();
        }),
        Box::new(|| drop(dcap.appraise())),
        // With aws-lc-rs beneath, as here; it verifies endorsements anew each time, which is what it is for.
        Box::new(|| {
            dcap::second_opinion(black_box(&sample.quote), &endorsements, &root, sample.now_s, &verified).unwrap();
        }),
    ];
    let [p256, ours, theirs] = medians(&mut calls)[..] else { unreachable!("one for each call") };
    let bound = f64::max(0.5e6, 1.1 * theirs);
    table.row(&format!("DCAP {name}, endorsements warm"), ours, "0.5 ms or 1.1 x dcap-qvl", bound);
    Table::note("  beside four P-256 verifications", ours, "those", 4.0 * p256);
    Table::note("  beside dcap-qvl alone", ours, "dcap-qvl", theirs);
}

fn tpm_rows(node: &Node, table: &mut Table) {
    let message = &node.quote.attest;
    let signature = node.key.sign(message);
    let mut calls: [Call<'_>; 5] = [
        Box::new(|| {
            let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, black_box(node.key.point()));
            key.verify(message, &signature).unwrap();
        }),
        Box::new(|| node.appraise(&node.ima_list)),
        Box::new(|| node.appraise(&node.ima_text)),
        Box::new(|| node.appraise_log()),
        Box::new(|| node.appraise_list(&node.ima_list)),
    ];
    let [p256, binary, text, log, list] = medians(&mut calls)[..] else { unreachable!("one for each call") };
    let what = format!("TPM quote, {}-event log, {}-entry IMA list", node::EVENTS, node::ENTRIES);
    table.row(&what, binary, "3 ms", 3e6);
    table.row("  the same with the list in text", text, "3 ms", 3e6);
    Table::note("  beside one P-256 verification", binary, "that", p256);
    Table::note("  of it the event log", log, "P-256", p256);
    Table::note("  of it the list", list, "P-256", p256);
}

/// A Hopper with NVIDIA's evidence, and the manifests that there are: endorsements, which are read beforehand.
struct Gpu {
    evidence: Vec<u8>,
    rims: Vec<nvidia::Rim>,
}

impl Gpu {
    /// When the certificates of the manifests count.
    const NOW_S: u64 = 1_750_000_000;

    fn new() -> Self {
        let chain = include_bytes!("../../tests/data/nvidia/hopper_chain.pem");
        let hex = include_str!("../../tests/data/nvidia/hopper_report.hex").trim();
        let report = data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap();
        let evidence = json!([{
            "arch": "HOPPER",
            "certificate": data_encoding::BASE64.encode(chain),
            "evidence": data_encoding::BASE64.encode(&report),
            "nonce": data_encoding::HEXLOWER.encode(&report[4..36]),
        }]);
        let mut rims = vec![include_bytes!("../../tests/data/nvidia/vbios_96.00.74.00.1C.swidtag").to_vec()];
        rims.extend(vector("../nvidia/NV_GPU_DRIVER_GH100_550.144.03.xml"));
        let rims = rims.iter().map(|rim| nvidia::Rim::parse(rim).unwrap()).collect();
        Self { evidence: evidence.to_string().into_bytes(), rims }
    }

    fn appraise(&self) {
        let evidence = nvidia::Evidence::parse(black_box(&self.evidence)).unwrap();
        let endorsements = nvidia::Endorsements { rims: &self.rims, ..nvidia::Endorsements::default() };
        let roots = nvidia::Roots::compiled_in();
        let verification = nvidia::verify(&evidence, nvidia::Nonce::Unknown, &endorsements, &roots, Self::NOW_S);
        hold("GPU", &nvidia::appraise(&verification.verified.unwrap(), &nvidia::Policy::consistency()));
    }
}

/// One node's evidence of every kind that it can have at once, one after the other on one core.
fn composite_rows(node: &Node, snp: &Snp, table: &mut Table) {
    let gpu = Gpu::new();
    let tdx = Sample::read("tdx_quote_td15ex");
    let tdx = tdx.as_ref().map(Dcap::new);
    let mut composites: Vec<(&str, Call<'_>)> = vec![(
        "composite: SNP, TPM, logs, GPU with manifests",
        Box::new(|| {
            snp.with_new_key();
            node.appraise(&node.ima_list);
            gpu.appraise();
        }),
    )];
    if let Some(tdx) = &tdx {
        let call = || {
            tdx.appraise();
            node.appraise(&node.ima_list);
            gpu.appraise();
        };
        composites.push(("composite: TDX, TPM, logs, GPU with manifests", Box::new(call)));
    }
    for (name, mut call) in composites {
        let samples: Vec<f64> = (0..COMPOSITES).map(|_| time(&mut call, 1)).collect();
        table.row(&format!("{name}, p99"), quantile(samples.clone(), 0.99), "5 ms", 5e6);
        Table::note("  its median", quantile(samples, 0.5), "5 ms", 5e6);
    }
    let mut call: Call<'_> = Box::new(|| gpu.appraise());
    let ns = medians(std::slice::from_mut(&mut call))[0];
    Table::note(&format!("  of it the GPU with {} manifests", gpu.rims.len()), ns, "5 ms", 5e6);
}
