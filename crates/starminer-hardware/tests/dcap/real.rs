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
    println!("{claims:#}");
}

#[test]
fn tdx_version_4() {
    let Some(claims) = accepted("tdx_quote", TcbStatus::UpToDate, &[]) else { return };
    assert_eq!(claims["tee"], "tdx");
    assert_eq!(claims["quote_version"], 4);
    assert_eq!(claims["fmspc"], "b0c06f000000");
    assert_eq!(claims["attributes"]["set"], serde_json::json!(["sept-ve-disable"]));
    println!("{claims:#}");
}

#[test]
fn tdx_version_5_with_an_extended_body() {
    let Some(claims) = accepted("tdx_quote_td15ex", TcbStatus::UpToDate, &[]) else { return };
    assert_eq!(claims["quote_version"], 5);
    assert!(claims["td15_extension"].is_object());
    println!("{claims:#}");
}
