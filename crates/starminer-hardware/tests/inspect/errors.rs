//! Calls that cannot be made.

use starminer_hardware::inspect::{
    Authorities, Eventlog, Ima, MAX_FILES, Nvidia, PolicyFile, Snp, Verdict, eventlog, ima, nvidia, parse_nonce,
    parse_time, snp,
};

use crate::{NOW_S, Quoted, at, dcap_with, error, file, kept, nvidia_with, policy, snp_with, tpm_ek_with, under};

#[test]
fn times_are_rfc_3339_or_seconds() {
    for (text, seconds) in [
        ("0", 0),
        ("1750000000", 1_750_000_000),
        ("2025-06-15T15:06:40Z", 1_750_000_000),
        ("2025-06-15T17:06:40.5+02:00", 1_750_000_000),
    ] {
        assert_eq!(parse_time(text), Ok(seconds), "{text}");
    }
    for text in ["", "-1", "now", "2025-06-15", "1969-12-31T23:59:59Z", "99999999999999999999", "1e9", " 5"] {
        let error = parse_time(text).unwrap_err();
        assert_eq!((error.code, error.input.as_deref()), ("call.time", Some("--at")), "{text}");
    }
}

#[test]
fn nonces_are_hexadecimal() {
    assert_eq!(parse_nonce("00fF"), Ok(vec![0, 255]));
    assert_eq!(parse_nonce("0x0a"), Ok(vec![10]));
    for text in ["", "0x", "f", "zz", "00 11", &"00".repeat(65)] {
        assert_eq!(parse_nonce(text).unwrap_err().code, "call.nonce", "{text}");
    }
    let evidence = file("gpu.json", "[]");
    let (authorities, rims) = (Authorities::default(), &[][..]);
    let given = Nvidia { evidence: &evidence, rims, nonce: Some(&[1; 31]), authorities, rim_roots: &[] };
    error(&nvidia(&given, &at(NOW_S)), "call.nonce", "--nonce");
}

#[test]
fn policies_are_typed() {
    for (text, reason) in [
        ("[snp", "line 1 ([snp): "),
        ("[sev]\n", "unknown field `sev`"),
        ("[snp]\nmeasurment = \"any\"\n", "unknown field `measurment`"),
        ("[snp]\nmeasurement = [\"00\"]\n", "line 2 (measurement = [\"00\"]): "),
        ("[dcap.tcb_status]\nrevoked = \"accept\"\n", "unknown field `revoked`"),
        ("[dcap.tdx]\nmrtd = \"whatever\"\n", "\"any\""),
        ("[tpm.pcr_selection]\nsha256 = [32]\n", "0 to 31"),
        ("[tpm_ek]\npurpose = true\n", "purpose"),
        ("[eventlog]\nsha1 = \"maybe\"\n", "sha1"),
        ("[ima]\nfiles = { \"/bin/sh\" = [\"sha256:00\"] }\n", "files"),
        ("[nvidia]\nminimum-driver = \"1\"\n", "unknown field `minimum-driver`"),
        ("snp = 3\n", "snp"),
    ] {
        let wrong = PolicyFile::parse(&file("p.toml", text)).unwrap_err();
        assert_eq!((wrong.code, wrong.input.as_deref()), ("policy.malformed", Some("p.toml")), "{text}");
        assert!(!wrong.reason.contains('\n'), "{}", wrong.reason);
        assert!(wrong.reason.contains(reason), "{text}: {}", wrong.reason);
    }
    assert_eq!(PolicyFile::parse(&file("p.toml", [0xff])).unwrap_err().code, "policy.malformed");
}

#[test]
fn a_policy_for_something_else_is_none() {
    let nothing = policy("");
    let (empty, quoted) = (file("f", ""), Quoted::load("ecdsa-sha256"));
    let options = under(&nothing, NOW_S);
    let authorities = Authorities::default();
    for inspection in [
        snp_with(&empty, &[], &options),
        dcap_with(&empty, &[], &options),
        quoted.judge(&options),
        tpm_ek_with(&[], &[], &options),
        eventlog(&Eventlog { log: &empty, pcrs: None }, &options),
        ima(&Ima { log: &empty, pcrs: None }, &options),
        nvidia(&Nvidia { evidence: &empty, rims: &[], nonce: None, authorities, rim_roots: &[] }, &options),
    ] {
        error(&inspection, "policy.section", "policy.toml");
        assert_eq!(inspection.verdict().exit_code(), 2);
    }
    // A log that comes with a quote needs a section of its own.
    let tpm_alone = policy("[tpm]\n");
    let mut given = quoted.given();
    given.eventlog = Some(&empty);
    error(&starminer_hardware::inspect::tpm(&given, &under(&tpm_alone, NOW_S)), "policy.section", "policy.toml");
}

#[test]
fn roots_of_the_callers_have_to_be_readable() {
    let report = file("r", "");
    let roots = [file("ca.pem", "no certificate")];
    let authorities = Authorities { roots: &roots, ..Authorities::default() };
    error(&snp(&Snp { report: &report, authorities }, &at(NOW_S)), "call.authority", "ca.pem");
    error(&tpm_ek_with(&[], &roots, &at(NOW_S)), "call.authority", "ca.pem");
    let evidence = file("e", "");
    let given =
        Nvidia { evidence: &evidence, rims: &[], nonce: None, authorities: Authorities::default(), rim_roots: &roots };
    error(&nvidia(&given, &at(NOW_S)), "call.authority", "ca.pem");
}

#[test]
fn so_many_files_are_no_call() {
    let many = vec![kept("tpm/data/swtpm-ca.pem"); MAX_FILES + 1];
    error(&snp_with(&file("r", ""), &many, &at(NOW_S)), "call.too-many-files", "--cert");
    error(&tpm_ek_with(&many, &[], &at(NOW_S)), "call.too-many-files", "--cert");
    error(&dcap_with(&file("q", ""), &many, &at(NOW_S)), "call.too-many-files", "--endorsements");
    error(&nvidia_with(&file("e", ""), &many, &at(NOW_S)), "call.too-many-files", "--rim");
}

#[test]
fn exit_codes_follow_verdicts() {
    let codes =
        [Verdict::Verified, Verdict::Refused, Verdict::Error].map(|verdict| (verdict.name(), verdict.exit_code()));
    assert_eq!(codes, [("verified", 0), ("refused", 1), ("error", 2)]);
}
