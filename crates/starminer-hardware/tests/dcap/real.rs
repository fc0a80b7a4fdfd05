//! What real quotes yield.

use starminer_hardware::Verdict;
use starminer_hardware::cert::{Provenance, Roots};
use starminer_hardware::dcap::{
    Endorsements, Quote, TcbStatus, Tee, Trailing, Warm, intel_root, roots, second_opinion, verify, verify_warm,
};

use crate::samples::{Sample, fails, find, list, missing, passes, sample, vector};

fn accepted(name: &str, status: TcbStatus, advisories: &[&str]) -> Option<serde_json::Value> {
    let sample = Sample::read(name)?;
    let verification = sample.verify();
    let verified = verification.verified.unwrap_or_else(|| panic!("{name}:\n{}", list(&verification.checks)));
    assert_eq!(verified.provenance(), Provenance::Genuine);
    assert_eq!(verified.claims().tcb().status, status, "{name}");
    assert_eq!(verified.claims().tcb().advisories, advisories, "{name}");
    let endorsements = sample.endorsements();
    second_opinion(&sample.quote, &endorsements, &intel_root(), sample.now_s, &verified)
        .expect("dcap-qvl says the same");

    let warm = Warm::new(endorsements, roots(), sample.now_s);
    for now_s in [sample.now_s, sample.now_s + 86_400] {
        let again = verify_warm(&Quote::parse(&sample.quote).unwrap(), &warm, now_s);
        let again = again.verified.expect("the same with endorsements verified before");
        assert_eq!(again.claims().to_json(), verified.claims().to_json());
    }
    let end = verified.expiries()[0].clone();
    let quote = Quote::parse(&sample.quote).unwrap();
    assert!(verify_warm(&quote, &warm, end.at_s).verified.is_some(), "the last second counts");
    let late = verify_warm(&quote, &warm, end.at_s + 1);
    assert!(late.verified.is_none(), "{} ended", end.what);
    Some(verified.claims().to_json())
}

#[test]
fn sgx_version_3() {
    let advisories = ["INTEL-SA-00289", "INTEL-SA-00615"];
    let Some(claims) = accepted("sgx_quote", TcbStatus::ConfigurationAndSWHardeningNeeded, &advisories) else { return };
    assert_eq!(claims["tee"], "sgx");
    assert_eq!(claims["quote_version"], 3);
    assert_eq!(claims["fmspc"], "00a067110000");
    assert_eq!(claims["attributes"]["debug"], false);
    assert_eq!(claims["mrenclave"].as_str().unwrap().len(), 64);
}

#[test]
fn tdx_version_4() {
    let Some(claims) = accepted("tdx_quote", TcbStatus::UpToDate, &[]) else { return };
    assert_eq!(claims["tee"], "tdx");
    assert_eq!(claims["quote_version"], 4);
    assert_eq!(claims["fmspc"], "b0c06f000000");
    assert_eq!(claims["attributes"]["set"], serde_json::json!(["sept-ve-disable"]));
}

#[test]
fn tdx_version_5_with_an_extended_body() {
    let Some(claims) = accepted("tdx_quote_td15ex", TcbStatus::UpToDate, &[]) else { return };
    assert_eq!(claims["quote_version"], 5);
    assert!(claims["td15_extension"].is_object());
}

#[test]
fn an_outdated_platform_reaches_no_level() {
    let Some(sample) = Sample::read("tdx_quote_outdated") else { return };
    let verification = sample.verify();
    assert!(verification.verified.is_none());
    fails(&verification.checks, "dcap.tcb-level", "reaches no TCB level");
    for name in [
        "dcap.quote-signature",
        "dcap.tcb-info-signature",
        "dcap.pck-revocation",
        "dcap.tcb-info-match",
        "dcap.tdx-module",
    ] {
        passes(&verification.checks, name);
    }
}

/// Bytes that say that they are there for testing follow this quote.
#[test]
fn a_quote_without_endorsements_is_verified_as_far_as_it_goes() {
    let Some(bytes) = vector("go_tdx_guest_spr_v4.dat") else { return };
    let quote = Quote::parse(&bytes).expect("a quote");
    assert_eq!((quote.tee(), quote.version(), quote.trailing()), (Tee::Tdx, 4, Trailing::Other(39)));
    let verification = verify(&quote, &Endorsements::none(), &roots(), 1_690_000_000);
    for name in
        ["dcap.attestation-key", "dcap.qe-debug", "dcap.pck-chain", "dcap.qe-report-signature", "dcap.quote-signature"]
    {
        passes(&verification.checks, name);
    }
    missing(&verification.checks, "dcap.tcb-info-match", "TDX for FMSPC 50806f000000, PCK authority platform");
    missing(&verification.checks, "dcap.qe-identity-match", "fetch TD_QE");
    for name in
        ["dcap.root-ca-crl", "dcap.pck-crl", "dcap.tcb-info-signature", "dcap.qe-identity-signature", "dcap.tcb-level"]
    {
        missing(&verification.checks, name, "fetch");
    }
    missing(&verification.checks, "dcap.pck-revocation", "both revocation lists");
    assert!(verification.verified.is_none(), "nothing is known of its TCB");

    let early = verify(&quote, &Endorsements::none(), &roots(), 1_600_000_000);
    fails(&early.checks, "dcap.pck-chain", "not valid before");
    let late = verify(&quote, &Endorsements::none(), &roots(), 1_900_000_000);
    fails(&late.checks, "dcap.pck-chain", "valid until");
    let nobody = verify(&quote, &Endorsements::none(), &Roots::none(), 1_690_000_000);
    fails(&nobody.checks, "dcap.pck-chain", "neither a trusted root");
}

/// TCB info and revocation lists that were recorded beside it, with issuers' chains of today.
#[test]
fn old_endorsements_are_matched_or_refused_with_the_reason() {
    let (Some(bytes), Some(tcb), Some(pck_crl), Some(root_crl), Some(sample)) = (
        vector("go_tdx_guest_spr_v4.dat"),
        vector("gt_tcb.json"),
        vector("gt_pck.crl"),
        vector("gt_root.crl"),
        Sample::read("tdx_quote"),
    ) else {
        return;
    };
    let text = String::from_utf8(tcb).unwrap();
    let signature = serde_json::from_str::<serde_json::Value>(&text).unwrap()["signature"].clone();
    let inner = text.trim().strip_prefix("{\"tcbInfo\":").unwrap().split(",\"signature\"").next().unwrap().to_owned();
    let endorsements = sample.altered(|collateral| {
        collateral["root_ca_crl"] = data_encoding::HEXLOWER.encode(&root_crl).into();
        collateral["pck_crl"] = data_encoding::HEXLOWER.encode(&pck_crl).into();
        collateral["tcb_info"] = inner.into();
        collateral["tcb_info_signature"] = signature;
    });
    let quote = Quote::parse(&bytes).expect("a quote");
    // 2023-06-20: both lists are current, and the platform is not among the revoked.
    let then = verify(&quote, &endorsements, &roots(), 1_687_219_200).checks;
    for name in
        ["dcap.root-ca-crl", "dcap.pck-crl", "dcap.pck-revocation", "dcap.tcb-info-match", "dcap.tcb-info-dates"]
    {
        passes(&then, name);
    }
    fails(&then, "dcap.tcb-info-chain", "not valid before");
    fails(&then, "dcap.qe-identity-dates", "QE identity is issued at 2025-06-19T10:32:27Z, after now");
    // Two years later everything has expired, and each says when.
    let later = verify(&quote, &endorsements, &roots(), sample.now_s).checks;
    fails(&later, "dcap.tcb-info-dates", "TCB info expired at 2023-07-18T08:42:58Z");
    fails(&later, "dcap.pck-crl", "[2023-07-08T07:27:52Z]");
    fails(&later, "dcap.root-ca-crl", "[2024-04-02T10:22:51Z]");
    // With TCB info of another platform.
    let other = verify(&quote, &sample.endorsements(), &roots(), sample.now_s).checks;
    fails(&other, "dcap.tcb-info-match", "FMSPC mismatch: TCB info is for b0c06f000000, the platform is 50806f000000");
}

#[test]
fn endorsements_of_the_other_kind_are_refused() {
    let (Some(sgx), Some(tdx)) = (Sample::read("sgx_quote"), Sample::read("tdx_quote")) else { return };
    let quote = Quote::parse(&sgx.quote).unwrap();
    let checks = verify(&quote, &tdx.endorsements(), &roots(), tdx.now_s).checks;
    fails(&checks, "dcap.tcb-info-match", "TCB info is of TDX");
    fails(&checks, "dcap.qe-identity-match", "TD_QE");
    fails(&checks, "dcap.pck-revocation", "fetch that of authority processor");
    let checks = verify(&Quote::parse(&tdx.quote).unwrap(), &sgx.endorsements(), &roots(), sgx.now_s).checks;
    fails(&checks, "dcap.pck-revocation", "fetch that of authority platform");
}

#[test]
fn each_member_is_needed() {
    let Some(sample) = Sample::read("tdx_quote") else { return };
    let quote = Quote::parse(&sample.quote).unwrap();
    for (member, name) in [
        ("pck_crl_issuer_chain", "dcap.pck-crl"),
        ("root_ca_crl", "dcap.root-ca-crl"),
        ("pck_crl", "dcap.pck-crl"),
        ("tcb_info_issuer_chain", "dcap.tcb-info-chain"),
        ("tcb_info", "dcap.tcb-info-signature"),
        ("tcb_info_signature", "dcap.tcb-info-signature"),
        ("qe_identity_issuer_chain", "dcap.qe-identity-chain"),
        ("qe_identity", "dcap.qe-identity-signature"),
        ("qe_identity_signature", "dcap.qe-identity-signature"),
    ] {
        let endorsements = sample.altered(|collateral| {
            collateral.as_object_mut().unwrap().remove(member).unwrap();
        });
        let verification = verify(&quote, &endorsements, &roots(), sample.now_s);
        missing(&verification.checks, name, "fetch");
        assert!(verification.verified.is_none());
    }
}

#[test]
fn dates_are_compared_with_the_time_given() {
    let Some(sample) = Sample::read("tdx_quote") else { return };
    let quote = Quote::parse(&sample.quote).unwrap();
    let at = |now_s| verify(&quote, &sample.endorsements(), &roots(), now_s);
    let early = at(sample.now_s - 3 * 86_400);
    fails(&early.checks, "dcap.tcb-info-dates", "after now");
    fails(&early.checks, "dcap.qe-identity-dates", "after now");
    let late = at(sample.now_s + 40 * 86_400);
    fails(&late.checks, "dcap.tcb-info-dates", "expired at 2025-07-19T10:16:03Z");
    fails(&late.checks, "dcap.qe-identity-dates", "expired at 2025-07-19T10:32:27Z");
    fails(&late.checks, "dcap.pck-crl", "fetch a newer one");
    assert!(early.verified.is_none() && late.verified.is_none());
}

#[test]
fn the_root_is_the_one_that_is_documented() {
    let digest = data_encoding::HEXLOWER.encode(&intel_root().fingerprint());
    assert!(include_str!("../../roots/intel/README.md").contains(&digest), "{digest}");
    let Some(sample) = Sample::read("sgx_quote") else { return };
    let collateral: serde_json::Value = serde_json::from_slice(&sample.json).unwrap();
    let chain = collateral["tcb_info_issuer_chain"].as_str().unwrap();
    let chain = starminer_hardware::cert::Certificate::read(chain.as_bytes()).unwrap();
    assert_eq!(chain.last(), Some(&intel_root()));
}

#[test]
fn what_follows_a_quote_is_no_part_of_it() {
    let Some(sample) = Sample::read("tdx_quote") else { return };
    let quote = Quote::parse(&sample.quote).unwrap();
    assert_eq!(quote.trailing(), Trailing::Zeros(70));
    let claims = |bytes: &[u8]| sample.verify_quote(bytes).verified.expect("accepted").claims().to_json();
    let cut = &sample.quote[..quote.len()];
    assert_eq!(Quote::parse(cut).unwrap().trailing(), Trailing::None);
    assert_eq!(claims(cut), claims(&sample.quote));
    let longer = [cut, b"anything"].concat();
    assert_eq!(claims(&longer), claims(&sample.quote));
    assert_eq!(find(&sample.verify_quote(&longer).checks, "dcap.trailing-bytes").0, Verdict::Fail);
    let endless = [cut, &vec![0; 32_768]].concat();
    assert_eq!(Quote::parse(&endless).unwrap_err().code(), "dcap.too-long");
}

#[test]
fn older_samples_parse() {
    for name in ["tdx-quote.hex", "quote-from-tappd.hex"] {
        let Some(text) = sample(name) else { continue };
        let text = String::from_utf8(text).unwrap();
        let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.trim().trim_start_matches("0x").as_bytes()).unwrap();
        let verification = verify(&Quote::parse(&bytes).unwrap(), &Endorsements::none(), &roots(), 1_750_000_000);
        passes(&verification.checks, "dcap.quote-signature");
    }
}
