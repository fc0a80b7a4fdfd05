//! Reports, quotes, endorsements and manifests.

use serde_json::Value;
use starminer_hardware::cert::{Certificate, Crl};
use starminer_hardware::{Checks, Verdict, dcap, nvidia, snp, tpm};
use zeroize::Zeroizing;

use super::members;
use crate::Outcome;
use crate::hardware::{DCAP, DcapQuote, GPUS, SNP, TPM, TPM_EK, TPM_NONCE, check_reasons, verify_gpu};

/// The check that decided, for a run to know new places by.
fn decided(checks: &Checks) -> Vec<String> {
    let failed = checks.as_slice().iter().filter(|check| check.verdict == Verdict::Fail);
    failed.map(|check| check.name.to_string()).collect()
}

fn outcome(checks: &Checks, verified: bool) -> Outcome {
    if verified { Outcome::accepted(decided(checks)) } else { Outcome::refused(decided(checks)) }
}

/// What holds for every report that verifies.
fn genuine_report(bytes: &[u8], verification: &snp::Verification) -> Outcome {
    check_reasons(&verification.checks);
    if let Some(verified) = &verification.verified {
        assert!(SNP.iter().any(|known| known.report == bytes), "a report that no chip signed");
        assert!(verified.claims().to_json().is_object());
        let checks = snp::appraise(verified, &snp::Policy::default());
        check_reasons(&checks);
        assert!(!checks.hold(), "nobody said which measurement is good");
    }
    outcome(&verification.checks, verification.verified.is_some())
}

pub fn snp_report(data: &[u8]) -> Outcome {
    let parsed = snp::Report::parse(data);
    let Ok(report) = &parsed else { return Outcome::of(&parsed, |error| error.code()) };
    SNP.iter()
        .map(|known| genuine_report(data, &snp::verify_with_key(report, &known.key, known.now_s)))
        .reduce(Outcome::and)
        .expect("there are known keys")
}

pub fn snp_evidence(data: &[u8]) -> Outcome {
    let Some([report, certificates, crls]) = members(data, ["report", "certificates", "crls"]) else {
        return Outcome::refused("form");
    };
    let parsed = snp::Report::parse(&report);
    let (Ok(parsed), Ok(certificates)) = (&parsed, Certificate::read(&certificates)) else {
        return Outcome::of(&parsed, |error| error.code());
    };
    let Ok(crls) = (if crls.is_empty() { Ok(Vec::new()) } else { Crl::read(&crls) }) else {
        return Outcome::refused("crls");
    };
    let times = [1_700_000_000, 1_780_000_000];
    let verify = |now_s| snp::verify(parsed, &certificates, &crls, &snp::roots(), now_s);
    times.into_iter().map(|now_s| genuine_report(&report, &verify(now_s))).reduce(Outcome::and).expect("two times")
}

pub fn dcap_quote(data: &[u8]) -> Outcome {
    let parsed = dcap::Quote::parse(data);
    let Ok(quote) = &parsed else { return Outcome::of(&parsed, |error| error.code()) };
    let mut all = Outcome::refused("none of this kind");
    for known in DCAP.iter().filter(|known| same_kind(known, quote)) {
        let verification = dcap::verify_warm(quote, &known.warm, known.now_s);
        check_reasons(&verification.checks);
        if let Some(verified) = &verification.verified {
            let claims = verified.claims().to_json();
            // Endorsements are of a platform, and two quotes may come from one.
            assert!(
                DCAP.iter().any(|known| signed_part(&known.claims) == signed_part(&claims)),
                "a quote that nobody signed"
            );
            let checks = dcap::appraise(verified, &dcap::Policy::default());
            check_reasons(&checks);
            assert!(!checks.hold(), "nobody said what is good");
        }
        all = all.and(outcome(&verification.checks, verification.verified.is_some()));
    }
    all
}

fn same_kind(known: &DcapQuote, quote: &dcap::Quote) -> bool {
    known.claims["quote_version"] == quote.version() && known.claims["tee"] == quote.tee().name()
}

/// What a quote's own signature covers, of its claims.
fn signed_part(claims: &Value) -> Vec<&Value> {
    [
        "quote_version",
        "report_data",
        "attributes",
        "mrtd",
        "rtmrs",
        "mrenclave",
        "mrsigner",
        "isv_svn",
        "qe",
        "fmspc",
        "ppid",
    ]
    .into_iter()
    .map(|name| &claims[name])
    .collect()
}

pub fn dcap_endorsements(data: &[u8]) -> Outcome {
    let parsed = dcap::Endorsements::parse(data);
    let Ok(endorsements) = parsed else { return Outcome::of(&parsed, |error| error.code()) };
    let mut all = Outcome::accepted("read");
    for known in DCAP.iter() {
        let quote = dcap::Quote::parse(&known.quote).expect("it was read before");
        let verification = dcap::verify(&quote, &endorsements, &known.roots, known.now_s);
        check_reasons(&verification.checks);
        if let Some(verified) = &verification.verified {
            let claims = verified.claims().to_json();
            assert_eq!(signed_part(&claims), signed_part(&known.claims));
            let issued = |claims: &Value| {
                ["tcb_info_issued", "qe_identity_issued", "tcb_evaluation_data_number"]
                    .map(|name| claims["endorsements"][name].clone())
            };
            // Each is of some file that Intel signed, though not all of one file.
            for (at, value) in issued(&claims).iter().enumerate() {
                assert!(
                    DCAP.iter().any(|known| issued(&known.claims)[at] == *value),
                    "endorsements that nobody signed"
                );
            }
            if issued(&claims) == issued(&known.claims) {
                assert_eq!(claims["tcb_status"], known.claims["tcb_status"]);
                assert_eq!(claims["advisories"], known.claims["advisories"]);
            }
        }
        all = all.and(outcome(&verification.checks, verification.verified.is_some()));
    }
    all
}

pub fn tpm_quote(data: &[u8]) -> Outcome {
    let Some([attest, signature, key, pcrs]) = members(data, ["attest", "signature", "key", "pcrs"]) else {
        return Outcome::refused("form");
    };
    let (ak, quote) = (tpm::AttestationKey::parse(&key), tpm::Quote::parse(&attest, &signature));
    let (Ok(ak), Ok(quote)) = (&ak, &quote) else {
        return Outcome::of(&ak, |error| error.code()).and(Outcome::of(&quote, |error| error.code()));
    };
    let pcrs = tpm::PcrValues::parse(&pcrs, quote.selections()).ok();
    let parent = tpm::Parent::Key(&TPM_EK, tpm::Hierarchy::Endorsement);
    let context = tpm::Context { nonce: &TPM_NONCE, ak, parent, pcrs: pcrs.as_ref(), maker: None };
    let verification = tpm::verify(quote, &context);
    check_reasons(&verification.checks);
    if let Some(verified) = &verification.verified {
        // The whole attested structure, in a TPM2B or not, by the very key.
        let known = TPM.iter().find(|known| attest.ends_with(&known.attest));
        let known = known.expect("a quote that no TPM signed");
        assert!(attest.len() <= known.attest.len() + 2);
        if let tpm::AttestationKey::Tpm(public) = ak {
            assert_eq!(**public, tpm::Public::parse(&known.public).expect("it was read before"), "another key");
        }
        let values = tpm::PcrValues::parse(&known.pcrs, quote.selections()).expect("they were read before");
        if let Some(found) = verified.pcrs() {
            assert!(found.iter().all(|(bank, index, value)| values.value(bank, index) == Some(value)), "other values");
        }
        assert!(verified.claims().to_json().is_object());
        let checks = tpm::appraise(verified, &tpm::Policy::default());
        check_reasons(&checks);
        assert!(!checks.hold(), "nobody said which values are good");
    }
    outcome(&verification.checks, verification.verified.is_some())
}

/// One input as every structure of a TPM's.
pub fn tpm_forms(data: &[u8]) -> Outcome {
    let wrapped = || Some([&u16::try_from(data.len()).ok()?.to_be_bytes(), data].concat());
    let attest = tpm::Attest::parse(data);
    if let (Ok(attest), Some(wrapped)) = (&attest, wrapped()) {
        // A structure and the same in a TPM2B are one; what is in a TPM2B is in none of another.
        if let Ok(again) = tpm::Attest::parse(&wrapped) {
            assert_eq!(again, *attest);
        }
    }
    let signature = tpm::Signature::parse(data);
    let ak = tpm::AttestationKey::parse(data);
    let public = tpm::Public::parse(data);
    if let Ok(public) = &public {
        assert!(matches!(public.name().len(), 34 | 50 | 66), "a name is of SHA-2");
        assert!(matches!(&ak, Ok(tpm::AttestationKey::Tpm(same)) if **same == *public));
        let _ = (public.public_key(), tpm::Template::of(public), public.attributes().names());
        let randomness =
            tpm::credential::Randomness { seed: Zeroizing::new([0x5a; 64]), ephemeral: Zeroizing::new([0x5a; 64]) };
        if let Ok(credential) = tpm::credential::make_credential(public, &public.name(), b"secret", randomness) {
            assert!(!credential.to_tpm2_tools().is_empty());
        }
    }
    let pcrs = tpm::PcrValues::parse(data, &[]);
    if let Ok(values) = &pcrs {
        let json = values.to_json().to_string();
        assert_eq!(tpm::PcrValues::parse(json.as_bytes(), &[]).as_ref(), Ok(values), "what was written reads the same");
    }
    Outcome::of(&attest, |error| error.code())
        .and(Outcome::of(&signature, |error| error.code()))
        .and(Outcome::of(&ak, |error| error.code()))
        .and(Outcome::of(&public, |error| error.code()))
        .and(Outcome::of(&pcrs, |error| error.code()))
}

/// Claims of a GPU that verifies are those of one that is known.
fn known_gpus(claims: &nvidia::Claims) {
    for gpu in &claims.gpus {
        assert!(GPUS.iter().any(|known| known.claims.gpus.contains(gpu)), "a report that no GPU signed");
    }
    assert!(claims.to_json().is_object());
}

pub fn gpu_evidence(data: &[u8]) -> Outcome {
    let parsed = nvidia::Evidence::parse(data);
    let Ok(evidence) = &parsed else { return Outcome::of(&parsed, |error| error.code()) };
    assert!((1..=nvidia::MAX_GPUS).contains(&evidence.len()));
    match verify_gpu(evidence, &[]) {
        Some(claims) => {
            assert_eq!(claims.gpus.len(), evidence.len());
            known_gpus(&claims);
            Outcome::accepted(claims.gpus.len())
        }
        None => Outcome::refused("not genuine"),
    }
}

/// A report alone, in each chain that is known.
pub fn gpu_report(data: &[u8]) -> Outcome {
    GPUS.iter().map(|known| gpu_evidence(&known.json(data))).reduce(Outcome::and).expect("there are known chains")
}

pub fn gpu_manifest(data: &[u8]) -> Outcome {
    let parsed = nvidia::Rim::parse(data);
    let Ok(rim) = parsed else { return Outcome::of(&parsed, |error| error.code()) };
    let gpu = &GPUS[0];
    let evidence = nvidia::Evidence::parse(&gpu.json(&gpu.report)).expect("it was read before");
    let rims = [rim];
    match verify_gpu(&evidence, &rims) {
        Some(claims) => {
            known_gpus(&claims);
            let known = KNOWN_TAGS.with(|known| known.contains(&claims.rims));
            assert!(known, "a manifest that NVIDIA did not sign: {:?}", claims.rims);
            Outcome::accepted("verified")
        }
        None => Outcome::refused("not genuine"),
    }
}

thread_local! {
    /// What the known manifests are about.
    static KNOWN_TAGS: Vec<Vec<nvidia::RimClaims>> = {
        let gpu = &GPUS[0];
        let evidence = nvidia::Evidence::parse(&gpu.json(&gpu.report)).expect("it was read before");
        crate::hardware::MANIFESTS
            .iter()
            .map(|rim| {
                let rims = [nvidia::Rim::parse(rim).expect("a manifest")];
                verify_gpu(&evidence, &rims).expect("NVIDIA's manifest").rims
            })
            .collect()
    };
}
