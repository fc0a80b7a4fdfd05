//! Real quotes: those of the crate `dcap-qvl`, each with its endorsements, and one of the shared vectors.

#[path = "../packages/mod.rs"]
mod packages;

use std::path::PathBuf;
use std::sync::LazyLock;

use serde_json::Value;
use starminer_hardware::Checks;
use starminer_hardware::Verdict;
use starminer_hardware::dcap::{Endorsements, Quote, Verification, roots, verify};

static SAMPLES: LazyLock<Option<PathBuf>> = LazyLock::new(packages::samples_of_dcap_qvl);

/// A file of the crate's samples; none where they are not on this machine, which is said.
pub fn sample(name: &str) -> Option<Vec<u8>> {
    let file = SAMPLES.as_ref().and_then(|samples| std::fs::read(samples.join(name)).ok());
    if file.is_none() {
        println!("skipped: no sample {name} of dcap-qvl on this machine");
    }
    file
}

/// A file of the shared vectors; none where they are not on this machine, which is said.
pub fn vector(name: &str) -> Option<Vec<u8>> {
    let vectors = std::env::var_os("STARMINER_VECTORS")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors"), PathBuf::from);
    let file = std::fs::read(vectors.join("dcap").join(name)).ok();
    if file.is_none() {
        println!("skipped: no shared vector dcap/{name} on this machine");
    }
    file
}

/// A quote with its endorsements, and a time two days after those were issued.
pub struct Sample {
    pub quote: Vec<u8>,
    pub json: Vec<u8>,
    pub now_s: u64,
}

impl Sample {
    pub fn read(name: &str) -> Option<Self> {
        let quote = sample(name)?;
        let json = sample(&format!("{name}_collateral.json"))?;
        let collateral: Value = serde_json::from_slice(&json).expect("JSON");
        let issued = |member: &str| {
            let inner: Value = serde_json::from_str(collateral[member].as_str().expect("text")).expect("JSON");
            let text = inner["issueDate"].as_str().expect("a date").to_owned();
            let date =
                time::OffsetDateTime::parse(&text, &time::format_description::well_known::Rfc3339).expect("RFC 3339");
            u64::try_from(date.unix_timestamp()).expect("after 1970")
        };
        let now_s = issued("tcb_info").max(issued("qe_identity")) + 2 * 86_400;
        Some(Self { quote, json, now_s })
    }

    pub fn endorsements(&self) -> Endorsements {
        Endorsements::parse(&self.json).expect("the sample's endorsements")
    }

    pub fn verify(&self) -> Verification {
        self.verify_quote(&self.quote)
    }

    pub fn verify_quote(&self, quote: &[u8]) -> Verification {
        verify(&Quote::parse(quote).expect("a quote"), &self.endorsements(), &roots(), self.now_s)
    }

    /// The endorsements with one member altered.
    pub fn altered(&self, alter: impl FnOnce(&mut Value)) -> Endorsements {
        let mut collateral: Value = serde_json::from_slice(&self.json).expect("JSON");
        alter(&mut collateral);
        Endorsements::parse(collateral.to_string().as_bytes()).expect("still of the form")
    }
}

/// Every check on a line, for a test that fails.
pub fn list(checks: &Checks) -> String {
    checks
        .as_slice()
        .iter()
        .map(|check| format!("{} {}: {}\n", check.name, check.verdict.name(), check.reason))
        .collect()
}

/// The only check of this name.
#[track_caller]
pub fn find<'a>(checks: &'a Checks, name: &str) -> (Verdict, &'a str) {
    let mut found = checks.as_slice().iter().filter(|check| check.name == name);
    let check = found.next().unwrap_or_else(|| panic!("no check {name} among\n{}", list(checks)));
    assert!(found.next().is_none(), "{name} twice");
    (check.verdict, &check.reason)
}

/// That a check fails, and says why.
#[track_caller]
pub fn fails(checks: &Checks, name: &str, reason: &str) {
    let (verdict, found) = find(checks, name);
    assert!(verdict == Verdict::Fail && found.contains(reason), "{name} {}: {found}\n{}", verdict.name(), list(checks));
    assert!(!checks.hold());
}

/// That a check was not made although it is required, and says what to do.
#[track_caller]
pub fn missing(checks: &Checks, name: &str, reason: &str) {
    let (verdict, found) = find(checks, name);
    assert!(verdict == Verdict::NotChecked && found.contains(reason), "{name} {}: {found}", verdict.name());
    assert!(!checks.hold());
}

#[track_caller]
pub fn passes(checks: &Checks, name: &str) {
    let (verdict, found) = find(checks, name);
    assert!(verdict == Verdict::Pass, "{name} {}: {found}", verdict.name());
}
