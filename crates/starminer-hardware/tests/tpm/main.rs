//! TPM quotes, endorsement keys and credentials: recorded ones altered in every way, real makers' certificates, and a real (emulated) TPM.

#![allow(clippy::unwrap_used, missing_docs)]

mod certificates;
mod emulator;
mod live;
mod recorded;

use starminer_hardware::{Checks, Verdict};

fn data(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/tpm/data/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[track_caller]
fn verdict(checks: &Checks, name: &str) -> Verdict {
    let found = checks.as_slice().iter().find(|check| check.name == name);
    found.unwrap_or_else(|| panic!("no check {name} in {checks:#?}")).verdict
}

/// Names of the checks that failed.
fn failed(checks: &Checks) -> Vec<String> {
    checks
        .as_slice()
        .iter()
        .filter(|check| check.verdict == Verdict::Fail)
        .map(|check| check.name.to_string())
        .collect()
}
