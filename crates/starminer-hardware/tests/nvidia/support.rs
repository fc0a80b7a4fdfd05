//! Where the data is, and how checks are looked at.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use data_encoding::BASE64;
use starminer_hardware::nvidia::{Claims, Endorsements, Evidence, Nonce, ParseError, Rim, Roots, Verification, verify};
use starminer_hardware::{Checks, Verdict};

/// A moment at which all of the vectors' certificates count: 2025-06-15.
pub const NOW_S: u64 = 1_750_000_000;

/// The shared vectors' folder, or `None`, which is said.
pub fn vectors() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let vectors = std::env::var_os("STARMINER_VECTORS").map_or_else(|| root.join("../shared/vectors"), PathBuf::from);
    let folder = vectors.join("nvidia");
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: no vectors at {}", folder.display());
    None
}

/// A file of `tests/data/nvidia`.
pub fn data(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/nvidia").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Evidence of one GPU in NVIDIA's JSON.
pub fn json(architecture: &str, certificates_pem: &[u8], report: &[u8]) -> serde_json::Value {
    serde_json::json!([entry(architecture, certificates_pem, report)])
}

/// One GPU of such evidence. The nonce is the request's own, where the report is long enough to have one.
pub fn entry(architecture: &str, certificates_pem: &[u8], report: &[u8]) -> serde_json::Value {
    let nonce = report.get(4..36).unwrap_or(&[0; 32]);
    serde_json::json!({
        "arch": architecture,
        "certificate": BASE64.encode(certificates_pem),
        "evidence": BASE64.encode(report),
        "nonce": data_encoding::HEXLOWER.encode(nonce),
    })
}

/// The Hopper whose evidence is in `tests/data`: chain and report.
pub fn second_hopper() -> (Vec<u8>, Vec<u8>) {
    let hex = String::from_utf8(data("hopper_report.hex")).unwrap();
    (data("hopper_chain.pem"), data_encoding::HEXLOWER.decode(hex.trim().as_bytes()).unwrap())
}

/// The real evidence of the vectors: chain in PEM and report.
pub fn first_hopper(folder: &Path) -> (Vec<u8>, Vec<u8>) {
    let json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("hopper_evidence.json")).unwrap()).unwrap();
    let member = |name: &str| BASE64.decode(json[0][name].as_str().unwrap().as_bytes()).unwrap();
    (member("certificate"), member("evidence"))
}

/// How a check came out, or `None` if it was not even listed.
pub fn verdict(checks: &Checks, name: &str) -> Option<Verdict> {
    let found: Vec<_> =
        checks.as_slice().iter().filter(|check| check.name == name).map(|check| check.verdict).collect();
    // Among several of a name, what did not pass is what is asked about.
    found.iter().copied().find(|&verdict| verdict != Verdict::Pass).or(found.first().copied())
}

/// All checks, for messages of tests.
pub fn list(checks: &Checks) -> String {
    checks
        .as_slice()
        .iter()
        .map(|check| format!("{} {} {:?}: {}\n", check.name, check.verdict.name(), check.weight, check.reason))
        .collect()
}

/// Verifies with NVIDIA's roots.
pub fn verify_genuine(json: &[u8], rims: &[Rim], now_s: u64) -> Result<Verification, ParseError> {
    let evidence = Evidence::parse(json)?;
    let endorsements = Endorsements { rims, ..Endorsements::default() };
    Ok(verify(&evidence, Nonce::Unknown, &endorsements, &Roots::compiled_in(), now_s))
}

/// The claims, if all of it is accepted.
pub fn accepted(json: &[u8]) -> Option<Claims> {
    verify_genuine(json, &[], NOW_S).ok()?.verified.map(|verified| verified.claims().clone())
}

/// Why a manifest is refused: the code of the parser, or the name of the first of its checks that failed. Not at all if it verifies.
pub fn rim_refusal(rim: &[u8], now_s: u64) -> Option<String> {
    let rim = match Rim::parse(rim) {
        Ok(rim) => rim,
        Err(error) => return Some(error.code().to_owned()),
    };
    static EVIDENCE: LazyLock<Evidence> = LazyLock::new(|| {
        let (chain, report) = second_hopper();
        Evidence::parse(&serde_json::to_vec(&json("HOPPER", &chain, &report)).unwrap()).unwrap()
    });
    let endorsements = Endorsements { rims: &[rim], ..Endorsements::default() };
    // Another nonce than the evidence's: its signatures are then left out, which the manifest's are not.
    let verification = verify(&EVIDENCE, Nonce::Expected([0; 32]), &endorsements, &Roots::compiled_in(), now_s);
    let mut checks = verification.checks.as_slice().iter().filter(|check| check.name.starts_with("nvidia.rim-"));
    let failed = checks.clone().find(|check| check.verdict == Verdict::Fail);
    if failed.is_none() {
        assert!(checks.any(|check| check.name == "nvidia.rim-chain" && check.verdict == Verdict::Pass));
    }
    failed.map(|check| check.name.to_string())
}
