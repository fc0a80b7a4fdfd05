//! CPU TEEs: what the tier `confidential` is made of, whatever the maker.

use starminer_hardware::snp::Names;
use starminer_hardware::{Checks, dcap, snp};

use super::{DeviceVerdicts, Judged, Question, take_rules, together};
use crate::appraise::check;
use crate::check::{Check, Verdict, Weight};
use crate::evidence::EvidenceKind;
use crate::parts::{SevSnpClaims, SgxClaims, TdxClaims};
use crate::refusal::Party;
use crate::software_tee::{DebugMode, MemoryEncryption, SoftwareTeeClaims};
use crate::tier::Tier;
use crate::trust::{Provenance, SimulatedRootId};

/// What is common to every CPU TEE.
struct CpuTee<'a> {
    kind: EvidenceKind,
    provenance: Provenance,
    measurement: &'a [u8],
    debug: DebugMode,
    memory_encryption: MemoryEncryption,
    tcb: Tcb<'a>,
    /// The most that it can reach.
    cap: Tier,
}

/// How old its trusted base is.
enum Tcb<'a> {
    /// By a number, which the policy has a floor for.
    Version { found: u64, floor: u64 },
    /// By rules of its kind, which these checks judged.
    Rules { checks: &'a Checks, is_tcb: fn(&str) -> bool },
}

pub(super) fn software_tee(question: &Question<'_>, claims: &SoftwareTeeClaims) -> Judged {
    let tee = CpuTee {
        kind: EvidenceKind::SoftwareTee,
        provenance: Provenance::Simulated { root: SimulatedRootId::SoftwareTee(claims.root) },
        measurement: claims.measurement.as_bytes(),
        debug: claims.debug,
        memory_encryption: claims.memory_encryption,
        tcb: Tcb::Version { found: claims.tcb_version, floor: question.policy.fields().minimum_tcb.software_tee },
        cap: Tier::Hardened,
    };
    judge(question, &tee, Vec::new(), Verdict::Pass)
}

pub(super) fn sev_snp(question: &Question<'_>, claims: &SevSnpClaims) -> Judged {
    let said = claims.claims();
    let given = question.given(EvidenceKind::SevSnp, SimulatedRootId::SevSnp, said.report_data);
    let found = snp::appraise(&claims.verified, &question.hardware.snp(&given));
    let is_tcb = |name: &str| {
        name.starts_with("snp.policy.tcb.")
            || matches!(name, "snp.policy.provisional-firmware" | "snp.policy.firmware" | "snp.policy.mitigations")
    };
    let tee = CpuTee {
        kind: EvidenceKind::SevSnp,
        provenance: claims.provenance(),
        measurement: &said.measurement,
        debug: if said.policy.debug() { DebugMode::On } else { DebugMode::Off },
        memory_encryption: MemoryEncryption::Claimed,
        tcb: Tcb::Rules { checks: &found, is_tcb },
        // A cloud's key is in all of its chips: which of them it was, nobody knows.
        cap: match said.names {
            Names::Chip => Tier::Hardened,
            Names::Cloud => Tier::Confidential,
        },
    };
    by_rules(question, &tee, &found)
}

pub(super) fn tdx(question: &Question<'_>, claims: &TdxClaims) -> Judged {
    let debug = claims.claims().tdx().is_none_or(|report| report.td_attributes & dcap::TdAttribute::Debug.bit() != 0);
    intel(question, EvidenceKind::Tdx, &claims.quote, claims.provenance(), &claims.measurement(), debug)
}

pub(super) fn sgx(question: &Question<'_>, claims: &SgxClaims) -> Judged {
    let debug = claims.claims().sgx().is_none_or(|report| report.flags() & dcap::SgxReport::DEBUG != 0);
    intel(question, EvidenceKind::Sgx, &claims.quote, claims.provenance(), &claims.measurement(), debug)
}

fn intel(
    question: &Question<'_>,
    kind: EvidenceKind,
    quote: &dcap::Verified,
    provenance: Provenance,
    measurement: &[u8],
    debug: bool,
) -> Judged {
    let given = question.given(kind, SimulatedRootId::Intel, *quote.claims().body().report_data());
    let found = dcap::appraise(quote, &question.hardware.dcap(&given));
    let is_tcb = |name: &str| {
        matches!(
            name,
            "dcap.policy.tcb-status"
                | "dcap.policy.current-tcb-status"
                | "dcap.policy.qe-tcb-status"
                | "dcap.policy.advisories"
                | "dcap.policy.evaluation-data-number"
                | "dcap.policy.endorsement-age"
                | "dcap.policy.tee-tcb-svn"
        )
    };
    let tee = CpuTee {
        kind,
        provenance,
        measurement,
        debug: if debug { DebugMode::On } else { DebugMode::Off },
        memory_encryption: MemoryEncryption::Claimed,
        tcb: Tcb::Rules { checks: &found, is_tcb },
        cap: Tier::Hardened,
    };
    by_rules(question, &tee, &found)
}

fn by_rules(question: &Question<'_>, tee: &CpuTee<'_>, found: &Checks) -> Judged {
    let mut rules = Vec::new();
    let verdict = take_rules(&mut rules, found, question.of_confidentiality());
    judge(question, tee, rules, verdict)
}

fn judge(question: &Question<'_>, tee: &CpuTee<'_>, rules: Vec<Check>, rules_verdict: Verdict) -> Judged {
    let root = question.root("device.root", &tee.provenance);
    let debug = debug_check(question, tee);
    let memory = memory_check(question, tee);
    let tcb = tcb_check(tee);
    let measurement = question.measurement("device.measurement", tee.kind, Some(tee.measurement), Weight::Required);
    let confidential = together([&debug, &memory, &tcb, &measurement].map(|check| check.verdict));
    let verdicts = DeviceVerdicts {
        root: root.verdict,
        debug: Some(debug.verdict),
        tcb: tcb.verdict,
        measurement: measurement.verdict,
        rules: rules_verdict,
        memory_encryption: Some(tee.memory_encryption),
    };
    let standing = if together([confidential, rules_verdict]) == Verdict::Pass { tee.cap } else { Tier::Identified };
    Judged { root, debug, memory, tcb, measurement, rules, verdicts, standing, tpm: None }
}

fn debug_check(question: &Question<'_>, tee: &CpuTee<'_>) -> Check {
    let (verdict, reason) = match tee.debug {
        DebugMode::Off => (Verdict::Pass, "debug is off"),
        DebugMode::On => (Verdict::Fail, "debug is on: the operator can look inside"),
    };
    let remedy = (Party::Node, "start the enclave with debug off");
    check("device.debug-off", verdict, question.of_confidentiality(), reason, remedy)
}

fn memory_check(question: &Question<'_>, tee: &CpuTee<'_>) -> Check {
    let (verdict, reason) = match tee.memory_encryption {
        MemoryEncryption::Claimed => (Verdict::Pass, "the device claims memory encryption"),
        MemoryEncryption::NotClaimed => (Verdict::Fail, "the device does not claim memory encryption"),
    };
    let remedy = (Party::Node, "use a TEE that encrypts memory");
    check("device.memory-encrypted", verdict, question.of_confidentiality(), reason, remedy)
}

fn tcb_check(tee: &CpuTee<'_>) -> Check {
    let remedy = (Party::Node, "update the device's firmware and have it certified again");
    let (verdict, reason) = match &tee.tcb {
        Tcb::Version { found, floor } => {
            let verdict = if found >= floor { Verdict::Pass } else { Verdict::Fail };
            (verdict, format!("trusted base version {found}, floor {floor}"))
        }
        Tcb::Rules { checks, is_tcb } => {
            use starminer_hardware::{Verdict as Found, Weight as Of};
            let mut of_tcb = checks.as_slice().iter().filter(|one| one.weight == Of::Required && is_tcb(&one.name));
            let (mut seen, mut first) = (false, None);
            for one in of_tcb.by_ref() {
                seen = true;
                if one.verdict != Found::Pass {
                    first = Some(one);
                    break;
                }
            }
            match first {
                Some(one) => (crate::parts::verdict_of(one.verdict), format!("{}: {}", one.name, one.reason)),
                None if seen => (Verdict::Pass, "the trusted base is as the policy asks".to_owned()),
                None => (Verdict::NotChecked, "nothing was asked of the trusted base".to_owned()),
            }
        }
    };
    check("device.tcb", verdict, Weight::Required, reason, remedy)
}
