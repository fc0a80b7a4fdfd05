//! Honest hardware evidence: what the targets of `starminer-hardware` hold everything else against.
//!
//! Real evidence is read from that crate's own tests, and, where they are on this machine, from the shared vectors and from the crate `dcap-qvl`.
//! Intel's quotes and some endorsements come from `fuzz/data` too: made once by test authorities whose keys are gone (`examples/make_quotes.rs`). Logs are made here ([`logs`]).

pub mod endorsements;
#[path = "../../../crates/starminer-hardware/tests/predict/builder.rs"]
#[allow(missing_docs, clippy::unwrap_used, clippy::cast_possible_truncation, clippy::new_without_default)]
pub mod images;
pub mod logs;
#[path = "../../../crates/starminer-hardware/tests/packages/mod.rs"]
mod packages;

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use data_encoding::{BASE64, HEXLOWER, HEXLOWER_PERMISSIVE};
use serde_json::{Value, json};
use starminer_hardware::cert::{Certificate, Crl, Roots};
use starminer_hardware::{dcap, nvidia, snp, tpm};

/// A time at which certificates of makers count: June 2025.
pub const NOW_S: u64 = 1_750_000_000;
/// What the recorded quotes of TPMs are over.
pub const TPM_NONCE: [u8; 4] = [0x00, 0x11, 0x22, 0x33];

fn hardware_crate() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/starminer-hardware")
}

/// A file of `starminer-hardware`.
///
/// # Panics
/// Where it is not there: it is committed.
#[must_use]
pub fn own(name: &str) -> Vec<u8> {
    let path = hardware_crate().join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A file of `data/`.
fn made(name: &str, kind: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(format!("{name}.{kind}"));
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn own_hex(name: &str) -> Vec<u8> {
    let text: Vec<u8> = own(name).into_iter().filter(|byte| !byte.is_ascii_whitespace()).collect();
    HEXLOWER_PERMISSIVE.decode(&text).expect("hexadecimal")
}

/// A file of the shared vectors, where those are.
#[must_use]
pub fn vector(name: &str) -> Option<Vec<u8>> {
    let vectors = std::env::var_os("STARMINER_VECTORS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors"), PathBuf::from);
    fs::read(vectors.join(name)).ok()
}

/// A sample of the crate `dcap-qvl`, where cargo has unpacked it.
fn sample(name: &str) -> Option<Vec<u8>> {
    static SAMPLES: LazyLock<Option<PathBuf>> = LazyLock::new(packages::samples_of_dcap_qvl);
    fs::read(SAMPLES.as_ref()?.join(name)).ok()
}

/// All files beneath a folder.
fn files(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { files(&path, out) } else { out.push(path) }
    }
}

/// Certificates, by their fingerprints, and revocation lists that honest authorities made: every file of `starminer-hardware` and of the vectors that is one.
pub struct Signed {
    /// Certificates.
    pub certificates: Vec<Certificate>,
    /// Their fingerprints.
    pub fingerprints: HashSet<[u8; 32]>,
    /// Revocation lists.
    pub lists: Vec<Crl>,
}

/// See [`Signed`].
pub static SIGNED: LazyLock<Signed> = LazyLock::new(|| {
    let mut paths = Vec::new();
    files(&hardware_crate().join("roots"), &mut paths);
    files(&hardware_crate().join("tests"), &mut paths);
    // In one order everywhere.
    paths.sort();
    let mut all: Vec<Vec<u8>> = paths.iter().filter_map(|path| fs::read(path).ok()).collect();
    for name in ["milan_vcek.pem", "milan_ask.pem", "milan_ark.pem", "genoa_vcek.pem", "genoa_ask.pem", "genoa_ark.pem"]
    {
        all.extend(vector(&format!("snp/{name}")));
    }
    for name in [
        "tpm-ek/nuvoton_ek.pem",
        "tpm-ek/nuvoton_2110_ca.pem",
        "nvidia/rim_root.crt",
        "dcap/gt_pck.crl",
        "dcap/gt_root.crl",
    ] {
        all.extend(vector(name));
    }
    let mut certificates: Vec<Certificate> =
        all.iter().filter_map(|bytes| Certificate::read(bytes).ok()).flatten().collect();
    // As NV storage pads them.
    certificates.extend(all.iter().filter_map(|bytes| Some(Certificate::from_der_prefix(bytes).ok()?.0)));
    let lists = all.iter().filter_map(|bytes| Crl::read(bytes).ok()).flatten().collect();
    let fingerprints = certificates.iter().map(Certificate::fingerprint).collect();
    Signed { certificates, fingerprints, lists }
});

/// A report of AMD's, with the certificates that it needs.
pub struct SnpReport {
    /// The report.
    pub report: Vec<u8>,
    /// The VCEK's certificate and those above it, as far as they were recorded.
    pub certificates: Vec<Certificate>,
    /// When they count.
    pub now_s: u64,
    /// The key, verified.
    pub key: snp::VerifiedKey,
}

/// Genuine reports.
pub static SNP: LazyLock<Vec<SnpReport>> = LazyLock::new(|| {
    let read = |report: Vec<u8>, certificates: Vec<Vec<u8>>, now_s: u64| {
        let certificates: Vec<Certificate> =
            certificates.iter().map(|bytes| Certificate::read_one(bytes).expect("a certificate")).collect();
        let key = snp::verify_key(&certificates, &[], &snp::roots(), now_s).key.expect("AMD's key");
        SnpReport { report, certificates, now_s, key }
    };
    let mut all = vec![read(
        own_hex("tests/data/amd/report_milan.hex"),
        vec![own("tests/data/amd/vcek_milan.der")],
        1_700_000_000,
    )];
    for product in ["milan", "genoa"] {
        let file = |name: &str| vector(&format!("snp/{product}_{name}"));
        if let (Some(report), Some(vcek), Some(ask)) = (file("report.bin"), file("vcek.pem"), file("ask.pem")) {
            all.push(read(report, vec![vcek, ask], 1_780_000_000));
        }
    }
    all
});

/// A quote of Intel's form, with endorsements that verify it.
pub struct DcapQuote {
    /// The quote.
    pub quote: Vec<u8>,
    /// Its endorsements.
    pub json: Vec<u8>,
    /// Intel's root, or a test authority's.
    pub roots: Roots,
    /// When the endorsements count.
    pub now_s: u64,
    /// The endorsements, verified.
    pub warm: dcap::Warm,
    /// What it claims.
    pub claims: Value,
}

/// Names of the quotes that a test authority made.
pub const MADE_QUOTES: [&str; 3] = ["sgx3", "td10v4", "td15v5"];

/// Quotes: the test authority's, and Intel's where they are.
pub static DCAP: LazyLock<Vec<DcapQuote>> = LazyLock::new(|| {
    let read = |quote: Vec<u8>, json: Vec<u8>, roots: Roots, now_s: u64| {
        let endorsements = dcap::Endorsements::parse(&json).expect("endorsements");
        let warm = dcap::Warm::new(endorsements, roots.clone(), now_s);
        let parsed = dcap::Quote::parse(&quote).expect("a quote");
        let verification = dcap::verify_warm(&parsed, &warm, now_s);
        let verified = verification.verified.unwrap_or_else(|| panic!("{:#?}", verification.checks));
        let claims = verified.claims().to_json();
        DcapQuote { quote, json, roots, now_s, warm, claims }
    };
    let mut all = Vec::new();
    for name in MADE_QUOTES {
        let file = |kind: &str| made(name, kind);
        let root = Certificate::from_der(&file("root")).expect("a certificate");
        all.push(read(file("quote"), file("json"), Roots::none().with(root), 1_780_000_000));
    }
    for name in ["sgx_quote", "tdx_quote", "tdx_quote_td15ex"] {
        let (Some(quote), Some(json)) = (sample(name), sample(&format!("{name}_collateral.json"))) else { continue };
        let parsed: Value = serde_json::from_slice(&json).expect("JSON");
        let issued = |member: &str| {
            let inner: Value = serde_json::from_str(parsed[member].as_str()?).ok()?;
            let date = time::OffsetDateTime::parse(
                inner["issueDate"].as_str()?,
                &time::format_description::well_known::Rfc3339,
            );
            u64::try_from(date.ok()?.unix_timestamp()).ok()
        };
        let now_s = issued("tcb_info").max(issued("qe_identity")).expect("dates") + 2 * 86_400;
        all.push(read(quote, json, dcap::roots(), now_s));
    }
    all
});

/// A recorded quote of a TPM.
pub struct TpmQuote {
    /// `TPMS_ATTEST`.
    pub attest: Vec<u8>,
    /// `TPMT_SIGNATURE`.
    pub signature: Vec<u8>,
    /// The key's public area.
    pub public: Vec<u8>,
    /// Values, in the form of tpm2-tools.
    pub pcrs: Vec<u8>,
}

/// Quotes of every scheme, by children of one endorsement key.
pub static TPM: LazyLock<Vec<TpmQuote>> = LazyLock::new(|| {
    ["rsassa-sha256", "rsapss-sha384", "ecdsa-sha256"]
        .into_iter()
        .map(|name| {
            let file = |kind: &str| own(&format!("tests/tpm/data/{name}.{kind}"));
            TpmQuote { attest: file("msg"), signature: file("sig"), public: file("pub"), pcrs: file("pcrs") }
        })
        .collect()
});

/// The endorsement key above the keys of those quotes.
pub static TPM_EK: LazyLock<tpm::Public> =
    LazyLock::new(|| tpm::Public::parse(&own("tests/tpm/data/ek-rsa2048.pub")).expect("a public area"));

/// Evidence of a GPU.
pub struct Gpu {
    /// The certificates, in PEM.
    pub chain: Vec<u8>,
    /// The report.
    pub report: Vec<u8>,
    /// What it claims.
    pub claims: nvidia::Claims,
}

impl Gpu {
    /// Evidence in NVIDIA's JSON, with any report.
    #[must_use]
    pub fn json(&self, report: &[u8]) -> Vec<u8> {
        let nonce = report.get(4..36).unwrap_or(&[0; 32]);
        json!([{
            "arch": "HOPPER",
            "certificate": BASE64.encode(&self.chain),
            "evidence": BASE64.encode(report),
            "nonce": HEXLOWER.encode(nonce),
        }])
        .to_string()
        .into_bytes()
    }
}

/// Genuine GPUs.
pub static GPUS: LazyLock<Vec<Gpu>> = LazyLock::new(|| {
    let mut all = vec![(own("tests/data/nvidia/hopper_chain.pem"), own_hex("tests/data/nvidia/hopper_report.hex"))];
    if let Some(json) = vector("nvidia/hopper_evidence.json") {
        let json: Value = serde_json::from_slice(&json).expect("JSON");
        let member = |name: &str| BASE64.decode(json[0][name].as_str().unwrap_or_default().as_bytes()).expect("base64");
        all.push((member("certificate"), member("evidence")));
    }
    all.into_iter()
        .map(|(chain, report)| {
            let mut gpu = Gpu { chain, report, claims: EMPTY_CLAIMS };
            let evidence = nvidia::Evidence::parse(&gpu.json(&gpu.report)).expect("evidence");
            gpu.claims = verify_gpu(&evidence, &[]).expect("it is genuine");
            gpu
        })
        .collect()
});

const EMPTY_CLAIMS: nvidia::Claims =
    nvidia::Claims { gpus: Vec::new(), rims: Vec::new(), provenance: starminer_hardware::cert::Provenance::Genuine };

/// What evidence and manifests claim, under NVIDIA's roots.
#[must_use]
pub fn verify_gpu(evidence: &nvidia::Evidence, rims: &[nvidia::Rim]) -> Option<nvidia::Claims> {
    let endorsements = nvidia::Endorsements { rims, ..nvidia::Endorsements::default() };
    let roots = nvidia::Roots::compiled_in();
    let verification = nvidia::verify(evidence, nvidia::Nonce::Unknown, &endorsements, &roots, NOW_S);
    check_reasons(&verification.checks);
    Some(verification.verified?.claims().clone())
}

/// NVIDIA's manifests.
pub static MANIFESTS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let mut all = vec![own("tests/data/nvidia/vbios_96.00.74.00.1C.swidtag")];
    all.extend(vector("nvidia/NV_GPU_DRIVER_GH100_550.144.03.xml"));
    all
});

/// Reasons are shown on terminals, and much of what they quote comes from strangers.
///
/// # Panics
/// Where one has a control character.
pub fn check_reasons(checks: &starminer_hardware::Checks) {
    for check in checks.as_slice() {
        let safe = |text: &str| !text.chars().any(char::is_control);
        assert!(safe(&check.reason) && safe(&check.name), "{check:?} is not safe to show");
    }
}
