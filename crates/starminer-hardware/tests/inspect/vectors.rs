//! Real evidence, as its README says what it must yield.

use serde_json::{Value, json};
use starminer_hardware::inspect::{
    Authorities, Dcap, Eventlog, Ima, Nvidia, Snp, Verdict, dcap, eventlog, ima, nvidia, parse_time, snp,
};

use crate::{
    NOW_S, Quoted, at, dcap_with, file, kept, nvidia_with, refused, sample, shown, snp_with, tpm_ek_with, vector,
    vectors, verified,
};

/// When swtpm's certificates count.
const SWTPM_S: u64 = 1_800_000_000;
const MEASUREMENT: &str =
    "5feee30d6d7e1a29f403d70a4198237ddfb13051a2d6976439487c609388ed7f98189887920ab2fa0096903a0c23fca1";

fn keys(document: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = document.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

#[test]
fn reports_of_milan_and_genoa_verify_with_their_own_certificates() {
    for (product, tcb) in [("milan", "04000000000018db"), ("genoa", "0a00000000001754")] {
        let names = ["report.bin", "vcek.pem", "ask.pem", "ark.pem"].map(|name| format!("snp/{product}_{name}"));
        let Some([report, vcek, ask, ark]) = vectors(names.each_ref().map(String::as_str)) else { return };
        let orders = [
            vec![vcek.clone(), ask.clone(), ark.clone()],
            vec![ark.clone(), vcek.clone(), ask.clone()],
            vec![file("all", [&ask.bytes[..], &ark.bytes, &vcek.bytes].concat())],
            vec![vcek.clone()],
        ];
        for certificates in orders {
            let inspection = snp_with(&report, &certificates, &at(NOW_S));
            let claims = verified(&inspection);
            assert_eq!(claims["measurement"], MEASUREMENT);
            assert_eq!((&claims["report_version"], &claims["policy"]), (&json!(3), &json!(0x3001f)));
            assert_eq!(claims["tcbs"]["reported"]["raw"], tcb);
            assert_eq!((&claims["product"], &claims["provenance"]), (&json!(product), &json!("genuine")));
            assert_eq!(claims["chip_id"].as_str().unwrap().len(), 128);
            assert_eq!(shown(&inspection, "snp.crl"), "not-checked: no revocation list of this root was given");
            assert_eq!(shown(&inspection, "snp.policy.measurement"), "not-checked: no policy was given");
            assert!(shown(&inspection, "snp.policy.guest.debug").starts_with("pass"));
            assert_eq!(keys(&inspection.to_json()), ["checks", "claims", "verdict"]);
            assert_eq!(keys(&inspection.to_json()["checks"][0]), ["name", "reason", "verdict"]);
        }
        let own =
            Authorities { certificates: std::slice::from_ref(&vcek), roots: std::slice::from_ref(&ark), crls: &[] };
        let inspection = snp(&Snp { report: &report, authorities: own }, &at(NOW_S));
        assert_eq!(verified(&inspection)["provenance"], "genuine", "a maker's root stays the maker's");
    }
    let Some([report, vcek, ask, ark]) =
        vectors(["snp/genoa_report.bin", "snp/milan_vcek.pem", "snp/milan_ask.pem", "snp/milan_ark.pem"])
    else {
        return;
    };
    let inspection = snp_with(&report, &[vcek, ask.clone(), ark.clone()], &at(NOW_S));
    refused(&inspection, "snp.product", "by CPUID");
    assert_eq!(inspection.claims(), &json!({}));
    refused(&snp_with(&report, &[ask, ark], &at(NOW_S)), "snp.certificates", "fetch it from AMD");
}

#[test]
fn dates_are_those_of_the_time_that_is_given() {
    let Some([report, vcek]) = vectors(["snp/milan_report.bin", "snp/milan_vcek.pem"]) else { return };
    let certificates = [vcek];
    for time in ["2000-01-01T00:00:00Z", "2100-01-01T00:00:00Z"] {
        let inspection = snp_with(&report, &certificates, &at(parse_time(time).unwrap()));
        refused(&inspection, "snp.chain", "valid");
    }
}

#[test]
fn a_quote_of_tdx_is_refused_by_date_or_platform() {
    let Some([quote, info, pck_crl, root_crl]) =
        vectors(["dcap/go_tdx_guest_spr_v4.dat", "dcap/gt_tcb.json", "dcap/gt_pck.crl", "dcap/gt_root.crl"])
    else {
        return;
    };
    // Without anything of Intel's: the quote's own signatures hold, and what is missing is named.
    let alone = dcap_with(&quote, &[], &at(NOW_S));
    assert!(shown(&alone, "dcap.quote-signature").starts_with("pass"));
    assert!(shown(&alone, "dcap.pck-chain").contains("(genuine)"));
    refused(&alone, "dcap.tcb-info-match", "fetch");
    // With Intel's answer as it is, and lists in files of their own.
    let crls = [pck_crl, root_crl];
    let with = |endorsements: &[starminer_hardware::inspect::File], now_s| {
        let authorities = Authorities { crls: &crls, ..Authorities::default() };
        dcap(&Dcap { quote: &quote, endorsements, authorities, eventlog: None }, &at(now_s))
    };
    let info = [info];
    let then = with(&info, parse_time("2023-06-20T00:00:00Z").unwrap());
    for name in ["dcap.root-ca-crl", "dcap.tcb-info-match", "dcap.tcb-info-dates"] {
        assert!(shown(&then, name).starts_with("pass"), "{name}: {:#}", then.to_json());
    }
    refused(&then, "dcap.tcb-info-chain", "TCB info");
    refused(&with(&info, NOW_S), "dcap.tcb-info-dates", "TCB info expired at 2023-07-18T08:42:58Z");
    refused(&with(&info, NOW_S), "dcap.root-ca-crl", "2024-04-02");
    let Some((_, json, now_s)) = sample("tdx_quote") else { return };
    let other = dcap_with(&quote, &[json], &at(now_s));
    refused(
        &other,
        "dcap.tcb-info-match",
        "FMSPC mismatch: TCB info is for b0c06f000000, the platform is 50806f000000",
    );
}

#[test]
fn quotes_of_sgx_and_tdx_verify_and_say_how_up_to_date_they_are() {
    if let Some((quote, json, now_s)) = sample("sgx_quote") {
        let inspection = dcap_with(&quote, &[json], &at(now_s));
        let claims = verified(&inspection);
        assert_eq!(claims["tcb_status"], "ConfigurationAndSWHardeningNeeded");
        assert_eq!(claims["advisories"].as_array().unwrap().len(), 2);
        assert_eq!((&claims["tee"], &claims["provenance"]), (&json!("sgx"), &json!("genuine")));
        assert!(claims["mrenclave"].is_string() && claims["attributes"]["debug"] == false);
        let said = shown(&inspection, "dcap.up-to-date");
        assert!(said.starts_with("not-checked: not required: TCB status ConfigurationAndSWHardeningNeeded"), "{said}");
    }
    for name in ["tdx_quote", "tdx_quote_td15ex"] {
        let Some((quote, json, now_s)) = sample(name) else { return };
        let inspection = dcap_with(&quote, std::slice::from_ref(&json), &at(now_s));
        let claims = verified(&inspection);
        assert_eq!((&claims["tee"], &claims["tcb_status"]), (&json!("tdx"), &json!("UpToDate")));
        assert_eq!(claims["rtmrs"].as_array().unwrap().len(), 4);
        assert!(shown(&inspection, "dcap.up-to-date").starts_with("pass"));
        let late = dcap_with(&quote, &[json], &at(now_s + 400 * 86_400));
        refused(&late, "dcap.tcb-info-dates", "expired");
    }
    let Some((quote, json, now_s)) = sample("tdx_quote_outdated") else { return };
    refused(&dcap_with(&quote, &[json], &at(now_s)), "dcap.tcb-level", "");
}

/// Parts of the endorsements in files of their own come to the same.
#[test]
fn endorsements_may_come_in_parts() {
    let Some((quote, json, now_s)) = sample("tdx_quote") else { return };
    let mut members: serde_json::Map<String, Value> = serde_json::from_slice(&json.bytes).unwrap();
    let mut take = |name: &str| members.remove(name).unwrap().as_str().unwrap().to_owned();
    let unhex = |hex: String| data_encoding::HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).unwrap();
    let crls = [file("root", unhex(take("root_ca_crl"))), file("pck", unhex(take("pck_crl")))];
    let certificates = [file("signer", take("tcb_info_issuer_chain")), file("ca", take("pck_crl_issuer_chain"))];
    take("qe_identity_issuer_chain");
    let answer = |member: &str, text: String, signature: String| {
        file(member, format!("{{ \"{member}\" : {text} ,\n \"signature\": \"{signature}\" }}\n"))
    };
    let answers = [
        answer("tcbInfo", take("tcb_info"), take("tcb_info_signature")),
        answer("enclaveIdentity", take("qe_identity"), take("qe_identity_signature")),
    ];
    let authorities = Authorities { certificates: &certificates, roots: &[], crls: &crls };
    let inspection = dcap(&Dcap { quote: &quote, endorsements: &answers, authorities, eventlog: None }, &at(now_s));
    assert_eq!(verified(&inspection)["tcb_status"], "UpToDate");
    let missing = Authorities { crls: &crls[1..], ..authorities };
    let inspection =
        dcap(&Dcap { quote: &quote, endorsements: &answers, authorities: missing, eventlog: None }, &at(now_s));
    refused(&inspection, "dcap.root-ca-crl", "fetch it");
}

#[test]
fn event_logs_replay_as_expected() {
    let Some(expected) = vector("eventlog/expected.json") else { return };
    let expected: Value = serde_json::from_slice(&expected.bytes).unwrap();
    assert_eq!(expected.as_object().unwrap().len(), 6);
    for (name, expected) in expected.as_object().unwrap() {
        let log = vector(&format!("eventlog/{name}")).unwrap();
        let inspection = eventlog(&Eventlog { log: &log, pcrs: None }, &at(NOW_S));
        let claims = verified(&inspection);
        assert_eq!(claims["secure_boot"], expected["secure_boot"], "{name}");
        for (bank, values) in expected["pcrs"].as_object().unwrap() {
            for (index, value) in values.as_object().unwrap() {
                assert_eq!(&claims["pcrs"][bank][index], value, "{name} {bank} {index}");
            }
        }
        assert!(shown(&inspection, "eventlog.registers").starts_with("not-checked"));
        // The very values, given: the log leads to them. Others: it does not.
        let pcrs = file("pcrs", expected["pcrs"].to_string());
        let anchored = eventlog(&Eventlog { log: &log, pcrs: Some(&pcrs) }, &at(NOW_S));
        assert!(verified(&anchored)["anchored"].is_object(), "{name}");
        let mut other = expected["pcrs"].clone();
        let (name, bank) = other.as_object_mut().unwrap().iter_mut().next().unwrap();
        bank["4"] = "11".repeat(bank["4"].as_str().unwrap().len() / 2).into();
        let name = format!("eventlog.registers.{name}");
        let other = file("pcrs", other.to_string());
        refused(&eventlog(&Eventlog { log: &log, pcrs: Some(&other) }, &at(NOW_S)), &name, "register 4");
    }
}

#[test]
fn the_ima_list_is_followed_to_its_end() {
    let Some(log) = vector("ima/ascii_runtime_measurements") else { return };
    let inspection = ima(&Ima { log: &log, pcrs: None }, &at(NOW_S));
    let claims = verified(&inspection);
    assert_eq!(claims["entries"], 826);
    let pcrs = file("pcrs", json!({ "sha256": { "10": claims["pcr10"]["sha256"] } }).to_string());
    assert_eq!(verified(&ima(&Ima { log: &log, pcrs: Some(&pcrs) }, &at(NOW_S)))["anchored"], true);
    let other = file("pcrs", json!({ "sha256": { "10": "22".repeat(32) } }).to_string());
    refused(&ima(&Ima { log: &log, pcrs: Some(&other) }, &at(NOW_S)), "ima.registers", "");
}

#[test]
fn a_hopper_verifies_with_and_without_its_manifest() {
    let Some([evidence, rim, root]) =
        vectors(["nvidia/hopper_evidence.json", "nvidia/NV_GPU_DRIVER_GH100_550.144.03.xml", "nvidia/rim_root.crt"])
    else {
        return;
    };
    for rims in [&[][..], std::slice::from_ref(&rim)] {
        let inspection = nvidia_with(&evidence, rims, &at(NOW_S));
        let claims = verified(&inspection);
        assert_eq!((&claims["gpus"][0]["arch"], &claims["provenance"]), (&json!("hopper"), &json!("genuine")));
        assert_eq!(claims["rims"].as_array().unwrap().len(), rims.len());
    }
    let given = |nonce: &[u8]| {
        let authorities = Authorities::default();
        let rims = std::slice::from_ref(&rim);
        let rim_roots = std::slice::from_ref(&root);
        nvidia(&Nvidia { evidence: &evidence, rims, nonce: Some(nonce), authorities, rim_roots }, &at(NOW_S))
    };
    let json: Value = serde_json::from_slice(&evidence.bytes).unwrap();
    let nonce = data_encoding::HEXLOWER_PERMISSIVE.decode(json[0]["nonce"].as_str().unwrap().as_bytes()).unwrap();
    let inspection = given(&nonce);
    assert_eq!(verified(&inspection)["provenance"], "genuine");
    assert!(shown(&inspection, "nvidia.nonce").starts_with("pass"));
    refused(&given(&[7; 32]), "nvidia.nonce", "another nonce");
    refused(&nvidia_with(&evidence, &[], &at(2_000_000_000_000)), "nvidia.certificate-chain", "valid");
}

#[test]
fn certificates_of_endorsement_keys_chain_to_makers() {
    if let Some([ek, ca]) = vectors(["tpm-ek/nuvoton_ek.pem", "tpm-ek/nuvoton_2110_ca.pem"]) {
        let ek = [ek];
        for roots in [&[][..], std::slice::from_ref(&ca)] {
            let inspection = tpm_ek_with(&ek, roots, &at(NOW_S));
            let claims = verified(&inspection);
            assert_eq!(claims["provenance"], "genuine");
            assert!(claims["root"]["subject"].as_str().unwrap().contains("Nuvoton TPM Root CA 2110"));
            // What the README calls an endorsement key's certificate is the maker's own: it chains, and this is told.
            assert_eq!(claims["kind"], "certificate-authority");
        }
        let both = [ca.clone(), ek[0].clone()];
        assert_eq!(verified(&tpm_ek_with(&both, &[], &at(NOW_S)))["provenance"], "genuine", "once is enough");
        refused(&tpm_ek_with(&ek, &[], &at(1)), "tpm-ek.chain", "valid");
    }
    for name in ["nuvoton-ek-rsa.der", "stmicro-ek-rsa-padded.der", "stmicro-ek-ecc.der"] {
        let inspection = tpm_ek_with(&[kept(&format!("tpm/data/{name}"))], &[], &at(NOW_S));
        println!("{name}: {}", inspection.verdict().name());
        if inspection.verdict() == Verdict::Verified {
            assert_eq!(inspection.claims()["kind"], "endorsement-key");
        } else {
            refused(&inspection, "tpm-ek.chain", "");
        }
    }
}

#[test]
fn roots_of_the_callers_make_a_simulated_provenance() {
    let (ek, ca, root) =
        (kept("tpm/data/swtpm-ek.der"), kept("tpm/data/swtpm-ca.pem"), kept("tpm/data/swtpm-root.pem"));
    let named = [ca.clone(), root.clone()];
    let inspection = tpm_ek_with(std::slice::from_ref(&ek), &named, &at(SWTPM_S));
    assert_eq!(verified(&inspection)["provenance"], "simulated");
    // The authority in the middle may come with the certificate; the root may not.
    let beside = [ca.clone(), ek.clone()];
    let inspection = tpm_ek_with(&beside, std::slice::from_ref(&root), &at(SWTPM_S));
    assert_eq!(verified(&inspection)["provenance"], "simulated");
    refused(&tpm_ek_with(&[ca, ek, root], &[], &at(SWTPM_S)), "tpm-ek.chain", "");
}

#[test]
fn recorded_quotes_verify() {
    for name in ["rsassa-sha256", "rsapss-sha384", "ecdsa-sha256"] {
        let quoted = Quoted::load(name);
        let inspection = quoted.judge(&at(NOW_S));
        let claims = verified(&inspection);
        assert_eq!((&claims["nonce"], &claims["ak"]["scheme"]), (&json!("00112233"), &json!(name)));
        assert_eq!(shown(&inspection, "tpm.eventlog"), "not-checked: no event log was given");
        let mut without = quoted.given();
        without.pcrs = None;
        assert!(
            shown(&starminer_hardware::inspect::tpm(&without, &at(NOW_S)), "tpm.pcr-digest").starts_with("not-checked")
        );
    }
}
