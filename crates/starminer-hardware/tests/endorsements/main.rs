//! The life of endorsements: what is taken and what is refused, what never goes back, bundles, lookups, forecasts. Real ones of AMD, Intel and NVIDIA
//! where there are any on this machine; ones by test authorities for everything else.

#![allow(clippy::unwrap_used, missing_docs, dead_code)]

mod bundles;
mod forecasts;
#[path = "../snp/lab.rs"]
mod lab;
mod makers;
#[path = "../dcap/pki.rs"]
mod pki;
mod real;
mod responder;
mod rises;
#[path = "../dcap/samples.rs"]
mod samples;

use serde_json::Value;
use starminer_hardware::{
    cert::Roots,
    endorsements::{Candidate, Key, Marks, Refusal, Snapshot, Trust},
    nvidia,
};

pub const SOURCE: &str = "https://endorsements.example";

pub fn candidate(key: &str, content: impl Into<Vec<u8>>, chain: Option<Vec<u8>>, fetched_s: u64) -> Candidate {
    let key: Key = key.parse().unwrap();
    Candidate { key, content: content.into(), chain, fetched_s, source: SOURCE.to_owned() }
}

/// Nobody is trusted.
pub fn nobody() -> Trust {
    Trust { amd: Roots::none(), intel: Roots::none(), nvidia: nvidia::Roots::none(), tpm: Roots::none() }
}

/// Verifies and adds.
pub fn add(
    snapshot: &mut Snapshot,
    marks: &mut Marks,
    trust: &Trust,
    now_s: u64,
    candidate: &Candidate,
) -> Result<(), Refusal> {
    let item = snapshot.verify(candidate, trust, now_s)?;
    *snapshot = snapshot.with(item, marks)?;
    Ok(())
}

/// A file of `dcap-qvl`'s as its parts would come from Intel.
pub fn intel(json: &[u8], fetched_s: u64) -> Vec<Candidate> {
    let file: Value = serde_json::from_slice(json).unwrap();
    let text = |name: &str| file[name].as_str().unwrap().to_owned();
    let unhex = |name: &str| data_encoding::HEXLOWER_PERMISSIVE.decode(text(name).as_bytes()).unwrap();
    let info: Value = serde_json::from_str(&text("tcb_info")).unwrap();
    let identity: Value = serde_json::from_str(&text("qe_identity")).unwrap();
    let tee = if info["id"] == "SGX" { "sgx" } else { "tdx" };
    let fmspc = info["fmspc"].as_str().unwrap().to_ascii_lowercase();
    assert_eq!(identity["id"] == "QE", tee == "sgx");
    let authority = starminer_hardware::cert::Certificate::read(text("pck_crl_issuer_chain").as_bytes()).unwrap();
    let ca = if authority[0].common_name().unwrap().contains("Platform") { "platform" } else { "processor" };
    let answer = |member: &str, text: String, signature: String| {
        format!("{{\"{member}\":{text},\"signature\":\"{signature}\"}}")
    };
    vec![
        candidate("intel/root-crl", text("root_ca_crl"), None, fetched_s),
        candidate(
            &format!("intel/pck-crl/{ca}"),
            unhex("pck_crl"),
            Some(text("pck_crl_issuer_chain").into_bytes()),
            fetched_s,
        ),
        candidate(
            &format!("intel/tcb-info/{tee}/{fmspc}"),
            answer("tcbInfo", text("tcb_info"), text("tcb_info_signature")),
            Some(text("tcb_info_issuer_chain").into_bytes()),
            fetched_s,
        ),
        candidate(
            &format!("intel/qe-identity/{tee}"),
            answer("enclaveIdentity", text("qe_identity"), text("qe_identity_signature")),
            Some(text("qe_identity_issuer_chain").into_bytes()),
            fetched_s,
        ),
    ]
}

/// The candidate whose key begins so.
pub fn one(candidates: &[Candidate], prefix: &str) -> Candidate {
    candidates.iter().find(|candidate| candidate.key.to_string().starts_with(prefix)).unwrap().clone()
}
