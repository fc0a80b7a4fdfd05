//! UEFI event logs of real machines, and what a forged one may not get away with.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use serde_json::Value;
use starminer_hardware::event_log::{EventLog, PcrValues, Registers, verify};

const LOGS: [&str; 6] = [
    "debian-10.bin",
    "keylime_secureboot_off.bin",
    "keylime_secureboot_on.bin",
    "rhel8-uefi.bin",
    "ubuntu-2104-no-secure-boot.bin",
    "ubuntu-2404-amd-sevsnp.bin",
];

fn vector(name: &str) -> Option<Vec<u8>> {
    let root = std::env::var_os("STARMINER_VECTORS")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors"), PathBuf::from);
    let path = root.join("eventlog").join(name);
    let bytes = std::fs::read(&path).ok();
    if bytes.is_none() {
        println!("skipped: no {}", path.display());
    }
    bytes
}

fn expected() -> Option<Value> {
    Some(serde_json::from_slice(&vector("expected.json")?).unwrap())
}

fn pcrs(expected: &Value, name: &str) -> PcrValues {
    serde_json::from_value(expected[name]["pcrs"].clone()).unwrap()
}

#[test]
fn real_logs_replay_to_the_registers_and_prove_secure_boot() {
    let Some(expected) = expected() else { return };
    for name in LOGS {
        let bytes = vector(name).unwrap();
        let log = EventLog::parse(&bytes).unwrap();
        let alone = verify(&log, Registers::NotGiven);
        let claims = alone.verified.as_ref().unwrap_or_else(|| panic!("{name}: {:#?}", alone.checks)).to_json();
        assert_eq!(claims["pcrs"], expected[name]["pcrs"], "{name}");
        assert_eq!(claims["secure_boot"], expected[name]["secure_boot"], "{name}: {}", claims["secure_boot_reason"]);
        assert_eq!(claims["anchored"], Value::Null);
        let given = pcrs(&expected, name);
        let anchored = verify(&log, Registers::Pcrs(&given));
        let claims = anchored.verified.as_ref().unwrap_or_else(|| panic!("{name}: {:#?}", anchored.checks)).to_json();
        assert_eq!(claims["secure_boot"], expected[name]["secure_boot"], "{name}");
        if std::env::var_os("SHOW").is_some() {
            println!("{name} {claims:#}");
        }
        println!(
            "{name}: {} {} {:?}",
            claims["event_counts"],
            claims["shim_insecure"],
            claims["events"].as_array().unwrap().iter().filter(|e| e["why"] == "mismatch").collect::<Vec<_>>()
        );
    }
}
