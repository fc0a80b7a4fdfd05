//! What must not be believed, although nobody gave a policy.

use serde_json::json;
use starminer_hardware::inspect::{Authorities, Eventlog, Ima, Snp, TpmEk, eventlog, ima, snp, tpm, tpm_ek};
use starminer_hardware::snp::Product;

use crate::lab::{Lab, NOW, Vek, put};
use crate::{
    NOW_S, Quoted, at, dcap_with, file, kept, nvidia_with, refused, sample, shown, snp_with, tpm_ek_with, vector,
    vectors, verified,
};

/// What is to be judged and is not what it should be refuses: nobody but its maker is at fault.
#[test]
fn malformed_evidence_refuses_and_names_the_file() {
    let long = vec![0; 8 << 20];
    for bytes in [&b""[..], b"hello", &[0x30, 0x82], &long] {
        let given = file("given", bytes);
        refused(&snp_with(&given, &[], &at(NOW_S)), "snp.input", "given: ");
        refused(&dcap_with(&given, &[], &at(NOW_S)), "dcap.input", "[dcap.");
        refused(&nvidia_with(&given, &[], &at(NOW_S)), "nvidia.input", "[evidence-");
        refused(&tpm_ek_with(std::slice::from_ref(&given), &[], &at(NOW_S)), "tpm-ek.input", "[certificate.");
        refused(&eventlog(&Eventlog { log: &given, pcrs: None }, &at(NOW_S)), "eventlog.input", "given: ");
        refused(&ima(&Ima { log: &given, pcrs: None }, &at(NOW_S)), "ima.input", "given: ");
    }
    refused(&tpm_ek_with(&[], &[], &at(NOW_S)), "tpm-ek.input", "[tpm-ek.leaf]");
    let good = Quoted::load("rsassa-sha256");
    let wrong = file("wrong", "wrong");
    for part in 0..6 {
        let mut given = good.given();
        match part {
            0 => given.quote = &wrong,
            1 => given.signature = &wrong,
            2 => given.ak = &wrong,
            3 => given.pcrs = Some(&wrong),
            4 => given.eventlog = Some(&wrong),
            _ => given.ima = Some(&wrong),
        }
        let name = ["tpm.input", "tpm.input", "tpm.input", "tpm.input", "eventlog.input", "ima.input"][part];
        refused(&tpm(&given, &at(NOW_S)), name, "wrong: ");
    }
    let report = kept("tpm/data/ecdsa-sha256.msg");
    let crls = [file("list.crl", "no list")];
    let authorities = Authorities { crls: &crls, ..Authorities::default() };
    refused(&snp(&Snp { report: &report, authorities }, &at(NOW_S)), "snp.input", "list.crl: ");
    refused(&snp_with(&report, &[file("c", "-----BEGIN X-----\n")], &at(NOW_S)), "snp.input", "[certificate.pem]");
    let quote = file("quote", "");
    let json = file("endorsements", "[]");
    let parsed = sample("tdx_quote").map_or(quote, |(quote, ..)| quote);
    if !parsed.bytes.is_empty() {
        refused(&dcap_with(&parsed, &[json], &at(NOW_S)), "dcap.input", "[dcap.endorsements-json]");
    }
    let log = file("log", "10 x ima-ng y z\n");
    let pcrs = file("pcrs", "{\"sha256\": {\"10\": \"00\"}}");
    refused(&ima(&Ima { log: &log, pcrs: Some(&pcrs) }, &at(NOW_S)), "ima.input", "[pcrs.malformed]");
}

fn lab_files(lab: &Lab) -> [starminer_hardware::inspect::File; 2] {
    let certificates = lab.certificates(Vek::Chip);
    let der: Vec<u8> = certificates.iter().filter(|one| *one != lab.ark()).flat_map(|one| one.der().to_vec()).collect();
    [file("certificates", der), file("ark", lab.ark().der())]
}

#[test]
fn a_root_counts_where_the_caller_names_it_and_is_simulated() {
    for product in [Product::Milan, Product::Genoa, Product::Turin] {
        let lab = Lab::new(product);
        let [certificates, ark] = lab_files(&lab);
        let report = file("report", lab.report(|_| {}));
        let certificates = [certificates];
        let roots = std::slice::from_ref(&ark);
        let crls = [file("crl", lab.crl().der())];
        let with = |certificates, roots, crls| {
            snp(&Snp { report: &report, authorities: Authorities { certificates, roots, crls } }, &at(NOW))
        };
        let inspection = with(&certificates, roots, &crls);
        let claims = verified(&inspection);
        assert_eq!(claims["provenance"], "simulated");
        assert!(shown(&inspection, "snp.crl").starts_with("pass"));
        // With the evidence it is worth nothing.
        let all = [certificates[0].clone(), ark.clone()];
        refused(&with(&all, &[], &[]), "snp.chain", "");
        let revoking = [file("crl", lab.crl_revoking(&crate::lab::REVOKED_SERIAL).der())];
        let inspection = with(&certificates, roots, &revoking);
        refused(&inspection, "snp.crl", "revoked");
    }
}

#[test]
fn debugging_is_told_without_a_policy() {
    let lab = Lab::milan();
    let [certificates, ark] = lab_files(&lab);
    const POLICY: usize = 0x08;
    let report = lab.report(|_| {});
    let bits = u64::from_le_bytes(report[POLICY..POLICY + 8].try_into().unwrap()) | 1 << 19;
    let report = file("report", lab.report(|report| put(report, POLICY, &bits.to_le_bytes())));
    let authorities = Authorities { certificates: &[certificates], roots: &[ark], crls: &[] };
    let inspection = snp(&Snp { report: &report, authorities }, &at(NOW));
    assert_eq!(verified(&inspection)["policy_bits"]["debug"], true);
    let told = shown(&inspection, "snp.policy.guest.debug");
    assert!(told.starts_with("not-checked: not required: "), "{told}");
}

/// A certificate that was altered refuses even where it would not be needed: authorities are compiled in.
#[test]
fn no_bit_of_a_certificate_may_be_flipped() {
    let Some([report, vcek, ask, ark]) =
        vectors(["snp/milan_report.bin", "snp/milan_vcek.pem", "snp/milan_ask.pem", "snp/milan_ark.pem"])
    else {
        return;
    };
    let der = |file: &starminer_hardware::inspect::File| {
        starminer_hardware::cert::Certificate::read_one(&file.bytes).unwrap().der().to_vec()
    };
    let parts = [&vcek, &ask, &ark].map(der);
    let whole = |parts: &[Vec<u8>; 3]| parts.each_ref().map(|part| file("part", part.clone()));
    let claims = verified(&snp_with(&report, &whole(&parts), &at(NOW_S))).clone();
    for part in 0..3 {
        for at_bit in (0..parts[part].len() * 8).step_by(29) {
            let mut parts = parts.clone();
            parts[part][at_bit / 8] ^= 1 << (at_bit % 8);
            let inspection = snp_with(&report, &whole(&parts), &at(NOW_S));
            assert_eq!(inspection.verdict().name(), "refused", "part {part}, bit {at_bit}: {claims}");
        }
    }
    for at_bit in (0..report.bytes.len() * 8).step_by(13) {
        let mut report = report.clone();
        report.bytes[at_bit / 8] ^= 1 << (at_bit % 8);
        assert_eq!(snp_with(&report, &whole(&parts), &at(NOW_S)).verdict().name(), "refused", "bit {at_bit}");
    }
}

#[test]
fn no_bit_of_an_authority_of_a_tpm_may_be_flipped() {
    let Some([ek, ca]) = vectors(["tpm-ek/nuvoton_ek.pem", "tpm-ek/nuvoton_2110_ca.pem"]) else { return };
    let der = starminer_hardware::cert::Certificate::read_one(&ca.bytes).unwrap().der().to_vec();
    for at_bit in (0..der.len() * 8).step_by(7) {
        let mut der = der.clone();
        der[at_bit / 8] ^= 1 << (at_bit % 8);
        let beside = [ek.clone(), file("ca", der.clone())];
        assert_ne!(tpm_ek_with(&beside, &[], &at(NOW_S)).verdict().name(), "verified", "bit {at_bit}");
        let named = tpm_ek_with(&beside[..1], &beside[1..], &at(NOW_S));
        assert_ne!(named.verdict().name(), "verified", "bit {at_bit}");
    }
}

#[test]
fn two_keys_are_one_too_many() {
    let keys = [kept("tpm/data/nuvoton-ek-rsa.der"), kept("tpm/data/stmicro-ek-ecc.der")];
    let given = TpmEk { certificates: &keys, authorities: Authorities::default() };
    refused(&tpm_ek(&given, &at(NOW_S)), "tpm-ek.input", "more than one");
}

#[test]
fn quotes_over_another_nonce_key_or_values_are_refused() {
    let good = Quoted::load("ecdsa-sha256");
    let other = Quoted::load("rsassa-sha256");
    let mut given = good.given();
    given.nonce = &[0, 0x11, 0x22];
    refused(&tpm(&given, &at(NOW_S)), "tpm.nonce", "another challenge");
    let mut given = good.given();
    given.ak = &other.ak;
    refused(&tpm(&given, &at(NOW_S)), "tpm.ak-scheme", "");
    let pcrs = file("pcrs", json!({ "sha1": { "0": "11".repeat(20) } }).to_string());
    let mut given = good.given();
    given.pcrs = Some(&pcrs);
    refused(&tpm(&given, &at(NOW_S)), "tpm.pcr-digest", "");
}

/// A log beside a quote has to be one that the quote vouches for.
#[test]
fn logs_that_no_quote_vouches_for_refuse() {
    let quoted = Quoted::load("rsassa-sha256");
    if let Some(log) = vector("eventlog/ubuntu-2404-amd-sevsnp.bin") {
        let mut given = quoted.given();
        given.eventlog = Some(&log);
        refused(&tpm(&given, &at(NOW_S)), "eventlog.registers", "");
        given.pcrs = None;
        refused(&tpm(&given, &at(NOW_S)), "tpm.eventlog", "--pcrs");
    }
    if let Some(list) = vector("ima/ascii_runtime_measurements") {
        let mut given = quoted.given();
        given.ima = Some(&list);
        refused(&tpm(&given, &at(NOW_S)), "tpm.ima", "none of its entries");
        given.pcrs = None;
        refused(&tpm(&given, &at(NOW_S)), "tpm.ima", "--pcrs");
    }
}
