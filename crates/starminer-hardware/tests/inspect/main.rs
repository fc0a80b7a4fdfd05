//! The `starminer appraise` commands without their command line: what real evidence comes to, what refuses, and what is an error of the call.

#![allow(clippy::unwrap_used, missing_docs)]

#[allow(dead_code, reason = "the tests of reports need more of it")]
#[path = "../snp/lab.rs"]
mod lab;

#[allow(dead_code, reason = "the tests of TPMs need more of it")]
#[path = "../tpm/emulator.rs"]
mod emulator;
mod errors;
mod live;
#[path = "../packages/mod.rs"]
mod packages;
mod policies;
mod random;
mod refusals;
mod vectors;

use std::path::{Path, PathBuf};

use starminer_hardware::inspect::{
    Authorities, Dcap, File, Inspection, Nvidia, Options, PolicyFile, Snp, Tpm, TpmEk, Verdict, dcap, nvidia, snp, tpm,
    tpm_ek,
};

/// 2026-05-28: the certificates of all vectors count.
pub const NOW_S: u64 = 1_780_000_000;

pub fn file(name: &str, bytes: impl Into<Vec<u8>>) -> File {
    File { name: name.to_owned(), bytes: bytes.into() }
}

/// A file of the shared vectors; none where they are not on this machine, which is said.
pub fn vector(name: &str) -> Option<File> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors");
    let root = std::env::var_os("STARMINER_VECTORS").map_or(default, PathBuf::from);
    if !root.is_dir() {
        println!("skipped: no vectors at {}", root.display());
        return None;
    }
    Some(file(name, std::fs::read(root.join(name)).unwrap()))
}

pub fn vectors<const N: usize>(names: [&str; N]) -> Option<[File; N]> {
    let files: Option<Vec<File>> = names.into_iter().map(vector).collect();
    files?.try_into().ok()
}

/// A file beside the other tests of this crate.
pub fn kept(name: &str) -> File {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name);
    file(name, std::fs::read(path).unwrap())
}

/// A sample of the crate `dcap-qvl`: quote, endorsements, and a time two days after they were issued.
pub fn sample(name: &str) -> Option<(File, File, u64)> {
    let folder = packages::samples_of_dcap_qvl()?;
    let read = |name: String| std::fs::read(folder.join(&name)).ok().map(|bytes| file(&name, bytes));
    let (Some(quote), Some(json)) = (read(name.to_owned()), read(format!("{name}_collateral.json"))) else {
        println!("skipped: no sample {name} of dcap-qvl on this machine");
        return None;
    };
    let members: serde_json::Value = serde_json::from_slice(&json.bytes).unwrap();
    let issued = ["tcb_info", "qe_identity"].map(|member| {
        let inner: serde_json::Value = serde_json::from_str(members[member].as_str().unwrap()).unwrap();
        starminer_hardware::inspect::parse_time(inner["issueDate"].as_str().unwrap()).unwrap()
    });
    Some((quote, json, issued[0].max(issued[1]) + 2 * 86_400))
}

pub fn at(now_s: u64) -> Options<'static> {
    Options { now_s, policy: None }
}

pub fn under(policy: &PolicyFile, now_s: u64) -> Options<'_> {
    Options { now_s, policy: Some(policy) }
}

pub fn policy(text: &str) -> PolicyFile {
    PolicyFile::parse(&file("policy.toml", text)).unwrap_or_else(|error| panic!("{error}"))
}

pub fn snp_with(report: &File, certificates: &[File], options: &Options<'_>) -> Inspection {
    snp(&Snp { report, authorities: Authorities { certificates, ..Authorities::default() } }, options)
}

pub fn dcap_with(quote: &File, endorsements: &[File], options: &Options<'_>) -> Inspection {
    dcap(&Dcap { quote, endorsements, authorities: Authorities::default(), eventlog: None }, options)
}

pub fn tpm_ek_with(certificates: &[File], roots: &[File], options: &Options<'_>) -> Inspection {
    tpm_ek(&TpmEk { certificates, authorities: Authorities { roots, ..Authorities::default() } }, options)
}

pub fn nvidia_with(evidence: &File, rims: &[File], options: &Options<'_>) -> Inspection {
    let authorities = Authorities::default();
    nvidia(&Nvidia { evidence, rims, nonce: None, authorities, rim_roots: &[] }, options)
}

/// The files of a recorded quote.
pub struct Quoted {
    pub quote: File,
    pub signature: File,
    pub ak: File,
    pub pcrs: File,
}

impl Quoted {
    pub fn load(name: &str) -> Self {
        let part = |kind: &str| kept(&format!("tpm/data/{name}.{kind}"));
        Self { quote: part("msg"), signature: part("sig"), ak: part("pub"), pcrs: part("pcrs") }
    }

    pub fn given(&self) -> Tpm<'_> {
        Tpm {
            quote: &self.quote,
            signature: &self.signature,
            ak: &self.ak,
            nonce: &[0x00, 0x11, 0x22, 0x33],
            pcrs: Some(&self.pcrs),
            eventlog: None,
            ima: None,
        }
    }

    pub fn judge(&self, options: &Options<'_>) -> Inspection {
        tpm(&self.given(), options)
    }
}

/// Everything verified, and nothing is shown as a failure.
#[track_caller]
pub fn verified(inspection: &Inspection) -> &serde_json::Value {
    assert_eq!(inspection.verdict(), Verdict::Verified, "{:#}", inspection.to_json());
    let document = inspection.to_json();
    let checks = document["checks"].as_array().unwrap();
    assert!(!checks.is_empty() && checks.iter().all(|check| check["verdict"] != "fail"), "{document:#}");
    inspection.claims()
}

/// Refused, and this check says why.
#[track_caller]
pub fn refused(inspection: &Inspection, name: &str, reason: &str) {
    assert_eq!(inspection.verdict(), Verdict::Refused, "{:#}", inspection.to_json());
    let document = inspection.to_json();
    let checks = document["checks"].as_array().unwrap();
    let why = checks.iter().filter(|check| check["name"] == name && check["verdict"] != "pass");
    let said: Vec<&str> = why.map(|check| check["reason"].as_str().unwrap()).collect();
    assert!(said.iter().any(|said| said.contains(reason)), "{name}: {reason:?} in {document:#}");
}

/// Not to be judged at all.
#[track_caller]
pub fn error(inspection: &Inspection, code: &str, input: &str) {
    assert_eq!(inspection.verdict(), Verdict::Error, "{:#}", inspection.to_json());
    let document = inspection.to_json();
    assert_eq!(document["error"]["code"], code, "{document:#}");
    assert_eq!(document["error"]["input"], input, "{document:#}");
    assert!(document["error"]["remedy"].as_str().unwrap().len() > 10, "{document:#}");
    assert_eq!((&document["checks"], &document["claims"]), (&serde_json::json!([]), &serde_json::json!({})));
}

/// How a check is shown.
#[track_caller]
pub fn shown(inspection: &Inspection, name: &str) -> String {
    let document = inspection.to_json();
    let checks = document["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("{name} in {document:#}"));
    format!("{}: {}", check["verdict"].as_str().unwrap(), check["reason"].as_str().unwrap())
}
