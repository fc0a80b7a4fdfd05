//! Policies, in TOML and in JSON.

use serde::Serialize;
use serde::de::DeserializeOwned;
use starminer_hardware::event_log::Registers;
use starminer_hardware::{dcap, event_log as uefi, ima, nvidia, snp, tpm};

use crate::Outcome;
use crate::hardware::logs::{EVENT_LOGS, LISTS};
use crate::hardware::{SNP, check_reasons};

/// One policy of each kind, with what is most often written.
pub const SEEDS: [(&str, &str); 8] = [
    ("empty.toml", ""),
    (
        "snp.toml",
        "crl = \"optional\"\nproducts = [\"milan\"]\nvmpl = [0, 1]\nmeasurement = \"any\"\nreport_data = \"any\"\n[tcb_floor.milan]\nbootloader = 3\ntee = 0\nsnp = 8\nmicrocode = 115\n[guest]\ndebug = \"no\"\nabi_floor = [1, 51]\n",
    ),
    (
        "dcap.toml",
        "advisories_allowed = [\"INTEL-SA-00615\"]\nreport_data = \"any\"\nsmt_enabled = \"off\"\n[tcb_status]\nsw_hardening_needed = \"accept\"\n[tdx]\nmrtd = \"any\"\nrtmr3 = \"any\"\n[sgx]\nmrsigner = \"any\"\nisv_prod_id = [1, 2]\n",
    ),
    (
        "tpm.toml",
        "qualified_signer = \"required\"\nrsa_bits_min = 3072\npcr_values_unset = \"not-checked\"\n[pcr_selection]\nsha256 = [0, 7, 10]\n[pcr_values.sha256]\n7 = [\"0000000000000000000000000000000000000000000000000000000000000000\"]\n[firmware_version_min]\nNTC = 7\n",
    ),
    (
        "event-log.toml",
        "sha1 = \"allowed\"\nsecure_boot = \"any\"\nboot_applications = \"any\"\nrevoked = [\"0707070707070707070707070707070707070707070707070707070707070707\"]\n[pcrs.sha256]\n7 = \"0000000000000000000000000000000000000000000000000000000000000000\"\n",
    ),
    (
        "ima.toml",
        "violations = \"allowed\"\nboot_aggregate = \"any\"\n[files]\n\"/usr/bin/init\" = [\"sha256:0000000000000000000000000000000000000000000000000000000000000000\"]\n\"*\" = []\n",
    ),
    ("gpu.json", r#"{"gpus":8,"modes":["protected-pcie"],"nonce":"where-possible","revocation":"where-possible"}"#),
    ("ek.toml", "makers = [\"IFX\"]\nrevocation = \"required\"\nrsa_bits_min = 2048\n"),
];

fn read<T: DeserializeOwned>(data: &[u8]) -> Option<T> {
    let text = std::str::from_utf8(data).ok()?;
    toml::from_str(text).ok().or_else(|| serde_json::from_str(text).ok())
}

/// Reads a policy, and asserts that what was read writes and reads back as itself.
fn round_trip<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(data: &[u8]) -> Option<T> {
    let policy: T = read(data)?;
    // TOML has no numbers above 2^63, and JSON has.
    let text = serde_json::to_string(&policy).expect("what was read can be written");
    assert_eq!(serde_json::from_str::<T>(&text).ok().as_ref(), Some(&policy), "{text}");
    Some(policy)
}

pub fn policies(data: &[u8]) -> Outcome {
    let mut taken = Vec::new();
    if let Some(policy) = round_trip::<snp::Policy>(data) {
        let known = &SNP[0];
        let report = snp::Report::parse(&known.report).expect("it was read before");
        let verified = snp::verify_with_key(&report, &known.key, known.now_s).verified.expect("it is genuine");
        let checks = snp::appraise(&verified, &policy);
        check_reasons(&checks);
        let unset =
            |expected: &snp::Expect<snp::Hex<48>>| matches!(expected, snp::Expect::OneOf(all) if all.is_empty());
        assert!(!(checks.hold() && unset(&policy.measurement)), "a reference value that nobody set");
        taken.push(("snp", checks.hold()));
    }
    if let Some(policy) = round_trip::<dcap::Policy>(data) {
        let known = &crate::hardware::DCAP[0];
        let quote = dcap::Quote::parse(&known.quote).expect("it was read before");
        let verified = dcap::verify_warm(&quote, &known.warm, known.now_s).verified.expect("it holds");
        let checks = dcap::appraise(&verified, &policy);
        check_reasons(&checks);
        assert!(!(checks.hold() && policy.report_data == dcap::Expect::Unset), "a reference value that nobody set");
        assert!(!(checks.hold() && policy.simulated_roots.is_empty()), "a root that nobody named");
        let _ = dcap::forecast(&verified, &policy);
        taken.push(("dcap", checks.hold()));
    }
    taken.extend(round_trip::<tpm::Policy>(data).map(|_| ("tpm", true)));
    taken.extend(round_trip::<tpm::ek::Policy>(data).map(|_| ("tpm-ek", true)));
    taken.extend(round_trip::<nvidia::Policy>(data).map(|_| ("nvidia", true)));
    if let Some(policy) = read::<uefi::Policy>(data) {
        let known = &EVENT_LOGS[0];
        let log = uefi::EventLog::parse(&known.log).expect("it was read before");
        let verified = uefi::verify(&log, Registers::Pcrs(&known.registers)).verified.expect("it leads there");
        let checks = uefi::appraise(&verified, &policy);
        check_reasons(&checks);
        assert!(!(checks.hold() && policy.pcrs == uefi::Expected::Unset), "a reference value that nobody set");
        taken.push(("event-log", checks.hold()));
    }
    if let Some(policy) = read::<ima::Policy>(data) {
        let known = &LISTS[0];
        let list = ima::MeasurementList::parse(&known.list).expect("it was read before");
        let verified = ima::verify(&list, Some(&known.registers)).verified.expect("it leads there");
        let checks = ima::appraise(&verified, &policy);
        check_reasons(&checks);
        let unset = policy.files == ima_unset() && policy.signers.is_empty();
        assert!(!(checks.hold() && unset), "files that nobody listed");
        taken.push(("ima", checks.hold()));
    }
    if taken.is_empty() { Outcome::refused("none") } else { Outcome::accepted(taken) }
}

fn ima_unset() -> uefi::Expected<ima::AllowList> {
    uefi::Expected::Unset
}
