//! Policies decide: all that they ask for, and nothing silently.

use serde_json::json;
use starminer_hardware::inspect::{
    Authorities, Eventlog, Ima, Nvidia, PolicyFile, Snp, eventlog, ima, nvidia, snp, tpm,
};

use crate::{
    NOW_S, Quoted, dcap_with, file, kept, nvidia_with, policy, refused, sample, shown, snp_with, tpm_ek_with, under,
    vector, vectors, verified,
};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/policy/hardware.toml");

fn example() -> String {
    std::fs::read_to_string(EXAMPLE).unwrap()
}

#[test]
fn the_example_is_a_policy() {
    policy(&example());
}

/// Whatever a section can say stands in the example: what a parser would have expected in place of an unknown option.
#[test]
fn the_example_has_every_option() {
    let document: toml::Table = example().parse().unwrap();
    let sections = [
        "",
        "snp",
        "snp.guest",
        "snp.platform",
        "dcap",
        "dcap.tcb_status",
        "dcap.qe_tcb_status",
        "dcap.sgx",
        "dcap.tdx",
        "tpm",
        "tpm_ek",
        "eventlog",
        "ima",
        "nvidia",
    ];
    for section in sections {
        let text = if section.is_empty() { "x = 1".to_owned() } else { format!("[{section}]\nx = 1") };
        let said = PolicyFile::parse(&file("p", text)).unwrap_err().reason;
        let expected = said.split_once("expected").unwrap_or_else(|| panic!("{section}: {said}")).1;
        let options: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
        assert!(options.len() > 2, "{said}");
        let table = section
            .split('.')
            .filter(|part| !part.is_empty())
            .try_fold(&document, |table, part| table[part].as_table());
        for option in options {
            assert!(table.unwrap().contains_key(option), "[{section}] does not show {option}");
        }
    }
}

fn milan() -> Option<[starminer_hardware::inspect::File; 2]> {
    vectors(["snp/milan_report.bin", "snp/milan_vcek.pem"])
}

#[test]
fn reports_are_judged_by_the_policy_that_is_given() {
    let Some([report, vcek]) = milan() else { return };
    let judge = |text: &str| snp_with(&report, std::slice::from_ref(&vcek), &under(&policy(text), NOW_S));
    let strict = judge("[snp]\n");
    refused(&strict, "snp.policy.measurement", "no value is set");
    refused(&strict, "snp.policy.crl", "");
    refused(&strict, "snp.policy.tcb.reported", "no floor");
    assert_eq!(strict.claims()["product"], "milan", "it verified, and that is what it says");
    let floor = |snp: u8| {
        format!(
            "[snp]\ncrl = \"optional\"\nmeasurement = \"any\"\nreport_data = \"any\"\n[snp.tcb_floor]\n\
             milan = {{ bootloader = 4, tee = 0, snp = {snp}, microcode = 0 }}\n"
        )
    };
    let inspection = judge(&floor(24));
    verified(&inspection);
    assert!(shown(&inspection, "snp.policy.measurement").starts_with("not-checked: any value is accepted"));
    refused(&judge(&floor(25)), "snp.policy.tcb.reported", "below the floor");
    refused(&judge(&floor(24).replace("\"any\"", "[]")), "snp.policy.report-data", "no value is set");
    // What does not verify is not appraised, which refuses by itself.
    let other = vectors(["snp/genoa_vcek.pem"]).unwrap();
    let inspection = snp_with(&report, &other, &under(&policy(&floor(0)), NOW_S));
    refused(&inspection, "snp.policy", "not appraised");
}

#[test]
fn a_required_list_that_was_not_given_refuses() {
    let lab = crate::lab::Lab::genoa();
    let report = file("report", lab.report(|_| {}));
    let text = |crl: &str| {
        let root = data_encoding::HEXLOWER.encode(&lab.ark().fingerprint());
        policy(&format!(
            "[snp]\nsimulated_roots = [\"{root}\"]\ncrl = \"{crl}\"\nmeasurement = \"any\"\nreport_data = \"any\"\n\
             [snp.tcb_floor]\ngenoa = {{ bootloader = 0, tee = 0, snp = 0, microcode = 0 }}\n"
        ))
    };
    let certificates = [
        file("c", lab.certificates(crate::lab::Vek::Chip)[0].der()),
        file("ask", lab.certificates(crate::lab::Vek::Chip)[1].der()),
    ];
    let roots = [file("ark", lab.ark().der())];
    let lists = [file("crl", lab.crl().der())];
    let judge = |policy: &PolicyFile, crls| {
        let authorities = Authorities { certificates: &certificates, roots: &roots, crls };
        snp(&Snp { report: &report, authorities }, &under(policy, crate::lab::NOW))
    };
    refused(&judge(&text("required"), &[]), "snp.policy.crl", "");
    verified(&judge(&text("required"), &lists));
    verified(&judge(&text("optional"), &[]));
    let stranger = policy("[snp]\ncrl = \"optional\"\n");
    refused(&judge(&stranger, &lists), "snp.policy.root", "");
}

#[test]
fn quotes_of_intel_are_judged_by_status() {
    let Some((quote, json, now_s)) = sample("sgx_quote") else { return };
    let judge = |text: &str| dcap_with(&quote, std::slice::from_ref(&json), &under(&policy(text), now_s));
    refused(&judge("[dcap]\n"), "dcap.policy.tcb-status", "the policy refuses");
    refused(&judge("[dcap]\n"), "dcap.policy.mrenclave", "");
    let lenient = "[dcap]\nreport_data = \"any\"\nadvisories_allowed = ADVISORIES\n[dcap.tcb_status]\n\
                   configuration_and_sw_hardening_needed = \"accept\"\n[dcap.sgx]\nmrenclave = [\"MRENCLAVE\"]\n\
                   mrsigner = \"any\"\nisv_prod_id = \"any\"\n";
    let claims = crate::dcap_with(&quote, std::slice::from_ref(&json), &crate::at(now_s)).claims().clone();
    let lenient = lenient
        .replace("ADVISORIES", &claims["advisories"].to_string())
        .replace("MRENCLAVE", claims["mrenclave"].as_str().unwrap());
    let inspection = judge(&lenient);
    let wrong: Vec<_> = inspection.to_json()["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|check| check["verdict"] == "fail")
        .map(|check| check["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(wrong, Vec::<String>::new(), "{:#}", inspection.to_json());
    verified(&inspection);
}

#[test]
fn quotes_of_tpms_and_their_logs_are_judged_by_sections_of_their_own() {
    let quoted = Quoted::load("rsassa-sha256");
    refused(&quoted.judge(&under(&policy("[tpm]\n"), NOW_S)), "tpm.policy.pcr-selection", "");
    let values = format!("[tpm.pcr_selection]\nsha256 = [7]\n[tpm.pcr_values.sha256]\n7 = [\"{}\"]\n", "00".repeat(32));
    verified(&quoted.judge(&under(&policy(&values), NOW_S)));
    let logs = policy(&format!("{values}[eventlog]\n[ima]\n"));
    refused(&quoted.judge(&under(&logs, NOW_S)), "tpm.eventlog", "no log was given");
    refused(&quoted.judge(&under(&logs, NOW_S)), "tpm.ima", "no list was given");
    let mut given = quoted.given();
    given.nonce = &[1];
    refused(&tpm(&given, &under(&logs, NOW_S)), "tpm.policy", "not appraised");
}

#[test]
fn certificates_of_endorsement_keys_are_judged() {
    let Some([ek]) = vectors(["tpm-ek/nuvoton_ek.pem"]) else { return };
    let ek = [ek];
    let judge = |text: &str| tpm_ek_with(&ek, &[], &under(&policy(text), NOW_S));
    refused(&judge("[tpm_ek]\nmakers = [\"IFX\"]\n"), "tpm-ek.policy.root", "not among the makers");
    refused(&judge("[tpm_ek]\nrevocation = \"required\"\n"), "tpm-ek.policy.revocation", "");
    let simulated = [kept("tpm/data/swtpm-ek.der")];
    let named = [kept("tpm/data/swtpm-ca.pem"), kept("tpm/data/swtpm-root.pem")];
    let inspection = tpm_ek_with(&simulated, &named, &under(&policy("[tpm_ek]\n"), 1_800_000_000));
    refused(&inspection, "tpm-ek.policy.root", "simulated");
}

#[test]
fn logs_are_judged() {
    if let Some(log) = vector("eventlog/keylime_secureboot_on.bin") {
        let judge = |text: &str| eventlog(&Eventlog { log: &log, pcrs: None }, &under(&policy(text), NOW_S));
        refused(&judge("[eventlog]\n"), "eventlog.policy.registers", "");
    }
    let Some(list) = vector("ima/ascii_runtime_measurements") else { return };
    let judge = |text: &str, pcrs: Option<&starminer_hardware::inspect::File>| {
        ima(&Ima { log: &list, pcrs }, &under(&policy(text), NOW_S))
    };
    refused(&judge("[ima]\n", None), "ima.policy.files", "names neither files nor signers");
    let lenient = "[ima]\nfiles = \"any\"\nboot_aggregate = \"any\"\nviolations = \"allowed\"\n";
    refused(&judge(lenient, None), "ima.policy.registers", "");
    let value = ima(&Ima { log: &list, pcrs: None }, &crate::at(NOW_S)).claims()["pcr10"]["sha256"].clone();
    let pcrs = file("pcrs", json!({ "sha256": { "10": value } }).to_string());
    verified(&judge(lenient, Some(&pcrs)));
}

#[test]
fn gpus_are_judged() {
    let Some([evidence]) = vectors(["nvidia/hopper_evidence.json"]) else { return };
    let strict = policy("[nvidia]\n");
    let inspection = nvidia_with(&evidence, &[], &under(&strict, NOW_S));
    refused(&inspection, "nvidia.policy.nonce", "");
    refused(&inspection, "nvidia.driver-measurements", "no manifest");
    let lenient = policy(
        "[nvidia]\nnonce = \"where-possible\"\nfirmware_id = \"where-possible\"\nrevocation = \"where-possible\"\n\
         driver_measurements = \"where-possible\"\nvbios_measurements = \"where-possible\"\ngpus = 1\n",
    );
    verified(&nvidia_with(&evidence, &[], &under(&lenient, NOW_S)));
    let device = nvidia_with(&evidence, &[], &crate::at(NOW_S)).claims()["gpus"][0]["device"].clone();
    let denied = policy(&format!("[nvidia]\ndenied_devices = [{device}]\n"));
    let authorities = Authorities::default();
    let given = Nvidia { evidence: &evidence, rims: &[], nonce: None, authorities, rim_roots: &[] };
    refused(&nvidia(&given, &under(&denied, NOW_S)), "nvidia.policy.device", "is denied");
}
