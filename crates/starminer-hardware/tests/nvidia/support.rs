//! Where the data is, and how checks are looked at.

use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use starminer_hardware::nvidia::{
    Claims, Endorsements, Evidence, Nonce, ParseError, Rim, RimError, Roots, Verification, verify,
};
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

/// Why a manifest is refused: the code of the parser, or the name of the check.
pub fn rim_refusal(json: &[u8], rim: &[u8], now_s: u64) -> Option<String> {
    let rim = match Rim::parse(rim) {
        Ok(rim) => rim,
        Err(error) => return Some(RimError::code(&error).to_owned()),
    };
    let verification = verify_genuine(json, &[rim], now_s).unwrap();
    if verification.verified.is_some() {
        return None;
    }
    let failed = verification.checks.as_slice().iter().find(|check| check.verdict == Verdict::Fail);
    Some(failed.expect("what is refused says why").name.to_string())
}
