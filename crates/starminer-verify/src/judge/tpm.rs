//! TPMs: alone, where `measured` is the most that they reach, or beside a CPU TEE, whose host they are in.

use starminer_hardware::{event_log, ima::BootAggregate, tpm};

use super::components::differences;
use super::{DeviceVerdicts, Judged, Question, take_rules, together};
use crate::appraise::check;
use crate::check::{Check, Verdict, Weight};
use crate::evidence::EvidenceKind;
use crate::hardware_policy::{HardwarePolicy, Requirement};
use crate::parts::{TpmClaims, pcr_measurement};
use crate::posture::{HostMeasure, PostureState};
use crate::refusal::Party;
use crate::tier::Tier;
use crate::trust::SimulatedRootId;
use crate::verify::DeviceClaims;

/// Where a TPM stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TpmPlace {
    /// It is all that there is.
    Alone,
    /// It is in the host of a CPU TEE.
    BesideTee,
}

/// What was found of a TPM.
pub(crate) struct JudgedTpm {
    pub(crate) root: Check,
    measurement: Option<Check>,
    pub(crate) checks: Vec<Check>,
    /// How the rules for TPMs came out, without what its logs and registers show.
    rules: Verdict,
    /// Whether its firmware is as the policy asks, if it asks.
    firmware: Verdict,
    pub(crate) standing: Tier,
}

/// Weight of what makes up the tier `measured`: of a TPM beside a TEE it counts for `hardened` alone.
fn weight(question: &Question<'_>, place: TpmPlace, asked: Requirement) -> Weight {
    match (place, asked) {
        (TpmPlace::Alone, Requirement::Required) => Weight::Required,
        (TpmPlace::Alone, Requirement::NotRequired) => question.required_from(Tier::Measured),
        (TpmPlace::BesideTee, _) => question.required_from(Tier::Hardened),
    }
}

pub(crate) fn judge_tpm(question: &Question<'_>, claims: &TpmClaims, place: TpmPlace) -> JudgedTpm {
    let rules = &question.hardware.tpm;
    let of_tpm = match place {
        TpmPlace::Alone => Weight::Required,
        TpmPlace::BesideTee => question.required_from(Tier::Hardened),
    };
    let root = question.root(
        match place {
            TpmPlace::Alone => "device.root",
            TpmPlace::BesideTee => "tpm.root",
        },
        &claims.provenance(),
    );
    let mut checks = Vec::new();
    let enrolled = enrolled_check(claims, of_tpm);
    let is_enrolled = enrolled.verdict;
    checks.push(enrolled);
    let key_policy = question.hardware.endorsement_key(&question.accepted(SimulatedRootId::Tpm));
    let of_key = take_rules(&mut checks, &tpm::ek::appraise(&claims.ek, &key_policy), of_tpm);
    let quote = tpm::appraise(&claims.quote, &question.hardware.tpm());
    let is_firmware = |name: &str| name == "tpm.policy.firmware";
    let firmware = quote.as_slice().iter().find(|one| is_firmware(&one.name));
    let firmware = firmware.map_or(Verdict::NotChecked, |one| crate::parts::verdict_of(one.verdict));
    take_rules(&mut checks, &quote, of_tpm);
    // A register that was not quoted is one that reference values cannot be over: it is not that the TPM would be another.
    let of_quote = together(quote.as_slice().iter().filter_map(|one| {
        let counts = one.weight == starminer_hardware::Weight::Required && one.name != "tpm.policy.pcr-selection";
        counts.then(|| crate::parts::verdict_of(one.verdict))
    }));

    let value = claims.quote.pcrs().and_then(|pcrs| pcr_measurement(pcrs, rules.pcr_bank, &rules.pcrs));
    let (name, measurement_weight) = match place {
        // What a TPM that stands alone runs is claimed from `measured` on.
        TpmPlace::Alone => ("device.measurement", question.required_from(Tier::Measured)),
        TpmPlace::BesideTee => ("tpm.measurement", question.required_from(Tier::Hardened)),
    };
    let value = value.as_ref().map(|digest| digest.as_bytes().as_slice());
    let mut measurement = question.measurement(name, EvidenceKind::Tpm, value, measurement_weight);
    if measurement.verdict == Verdict::Fail
        && let Some(log) = claims.boot_log()
        && let Some(why) = differences(log, question.reference_values)
    {
        let reason = format!("the agent matches no reference value: {why}");
        let remedy = (Party::Node, "start an image and firmware that reference values name");
        measurement = check(name, Verdict::Fail, measurement_weight, reason, remedy);
    }
    let boot = boot_checks(claims, weight(question, place, rules.secure_boot), &mut checks);
    let ima = ima_checks(question, claims, weight(question, place, rules.ima), &mut checks);
    let storage = storage_check(question, weight(question, place, Requirement::NotRequired));
    let of_rules = together([of_key, of_quote]);
    let measured = together([measurement.verdict, boot, ima, storage.verdict]);
    checks.push(storage);
    let standing = match (together([is_enrolled, of_rules]), measured) {
        (Verdict::Pass, Verdict::Pass) => Tier::Measured,
        (Verdict::Pass, Verdict::Fail | Verdict::NotChecked) => Tier::Identified,
        (Verdict::Fail | Verdict::NotChecked, _) => Tier::None,
    };
    let measurement = match place {
        TpmPlace::Alone => Some(measurement),
        TpmPlace::BesideTee => {
            checks.push(measurement);
            None
        }
    };
    JudgedTpm { root, measurement, checks, rules: of_rules, firmware, standing }
}

/// A TPM that is all there is.
pub(super) fn alone(question: &Question<'_>, claims: &TpmClaims) -> Judged {
    let judged = judge_tpm(question, claims, TpmPlace::Alone);
    let confidentiality = question.of_confidentiality();
    let remedy = (Party::Node, "use a node with a CPU TEE");
    let debug = "a TPM has no debug mode: it shows nothing of who looks into memory";
    let debug = check("device.debug-off", Verdict::NotChecked, confidentiality, debug, remedy);
    let memory = "a TPM encrypts no memory: the operator can read it";
    let memory = check("device.memory-encrypted", Verdict::Fail, confidentiality, memory, remedy);
    let asked = !question.hardware.tpm.firmware_version_min.is_empty();
    let (weight, reason) = if asked {
        (Weight::Required, "the TPM's firmware, by its maker's floor: see tpm.policy.firmware")
    } else {
        (Weight::Informative, "the policy has no floor for any maker's firmware")
    };
    let remedy = (Party::Node, "update the TPM's firmware");
    let tcb = check("device.tcb", judged.firmware, weight, reason, remedy);
    let nothing = || {
        let remedy = (Party::Verifier, "set reference values for this kind");
        check("device.measurement", Verdict::NotChecked, Weight::Required, "nothing was measured", remedy)
    };
    let measurement = judged.measurement.unwrap_or_else(nothing);
    Judged {
        verdicts: DeviceVerdicts {
            root: judged.root.verdict,
            debug: None,
            tcb: tcb.verdict,
            measurement: measurement.verdict,
            rules: judged.rules,
            memory_encryption: None,
        },
        root: judged.root,
        debug,
        memory,
        tcb,
        measurement,
        rules: judged.checks,
        standing: judged.standing,
        tpm: Some(judged.standing),
    }
}

fn enrolled_check(claims: &TpmClaims, weight: Weight) -> Check {
    let remedy = (Party::Node, "enrol the TPM: its maker's certificate, credential activation, the attestation key");
    match &claims.enrolment {
        Ok(enrolment) => {
            let reason = format!("key and TPM were enrolled at {} ms", enrolment.enrolled_at);
            check("tpm.enrolled", Verdict::Pass, weight, reason, remedy)
        }
        Err(reason) => check("tpm.enrolled", Verdict::NotChecked, weight, *reason, remedy),
    }
}

/// Secure Boot, by a log that leads to the quoted registers.
fn boot_checks(claims: &TpmClaims, weight: Weight, checks: &mut Vec<Check>) -> Verdict {
    match claims.boot_log() {
        Some(log) => take_rules(checks, &event_log::appraise(log, &HardwarePolicy::boot_log()), weight),
        None => {
            let remedy = (Party::Node, "send the firmware's event log");
            let reason = "no uefi-log was given: whether Secure Boot was on is not known";
            checks.push(check("eventlog.policy.secure-boot", Verdict::NotChecked, weight, reason, remedy));
            Verdict::NotChecked
        }
    }
}

/// What the kernel measured, where its list is given or asked for.
fn ima_checks(question: &Question<'_>, claims: &TpmClaims, weight: Weight, checks: &mut Vec<Check>) -> Verdict {
    let kind = EvidenceKind::ImaLog;
    let asked = question.hardware.tpm.ima == Requirement::Required || question.reference_values.is_set_for(kind);
    let remedy = (Party::Node, "boot with IMA on and leave measured files alone, and send its list");
    let Some(list) = claims.ima() else {
        if !asked {
            return Verdict::Pass;
        }
        checks.push(check("ima.policy.registers", Verdict::NotChecked, weight, "no ima-log was given", remedy));
        return Verdict::NotChecked;
    };
    let pass_if = |holds: bool| if holds { Verdict::Pass } else { Verdict::Fail };
    let registers = match list.sha1_alone() {
        true => "only SHA-1 vouches for the list",
        false => "register 10 vouches for the list",
    };
    let aggregate = match list.boot_aggregate() {
        BootAggregate::Agrees => "the boot aggregate is of the registers that were quoted",
        BootAggregate::Absent => "there is no boot aggregate",
        BootAggregate::Empty => "the boot aggregate is zero",
        BootAggregate::NotChecked => "the boot aggregate was not checked: quote PCR 0 to 9 too",
    };
    let violations = format!("{} files changed while they were measured", list.violations());
    let mut found = vec![
        check("ima.policy.registers", pass_if(!list.sha1_alone()), weight, registers, remedy),
        check(
            "ima.policy.boot-aggregate",
            pass_if(list.boot_aggregate() == BootAggregate::Agrees),
            weight,
            aggregate,
            remedy,
        ),
        check("ima.policy.violations", pass_if(list.violations() == 0), weight, violations, remedy),
    ];
    let agent = question.reference_values.of_kind(kind).find(|agent| list.measured(agent));
    let agent = if asked {
        match agent.and_then(|agent| question.reference_values.find(kind, agent)) {
            Some(value) => (pass_if(true), weight, format!("the kernel measured {}", value.name)),
            None if question.reference_values.is_set_for(kind) => {
                (pass_if(false), weight, "the kernel measured no agent that reference values name".to_owned())
            }
            None => (Verdict::NotChecked, weight, format!("no reference value is set for {kind}")),
        }
    } else {
        let reason = "no reference value names an agent's file: the PCRs' has to cover it".to_owned();
        (Verdict::NotChecked, Weight::Informative, reason)
    };
    let counts = asked || agent.0 == Verdict::Pass;
    found.push(check("ima.policy.agent", agent.0, agent.1, agent.2, remedy));
    let verdict = together(found.iter().take(if counts { 4 } else { 3 }).map(|check| check.verdict));
    checks.extend(found);
    verdict
}

/// Job storage, by the agent's word, which its measurement backs.
fn storage_check(question: &Question<'_>, weight: Weight) -> Check {
    let posture = &question.verified.posture;
    let states = [HostMeasure::JobStorageEncrypted, HostMeasure::JobStorageLocked].map(|one| posture.host_state(one));
    let verdict = together(states.map(|state| match state {
        PostureState::InForce => Verdict::Pass,
        PostureState::Absent => Verdict::Fail,
        PostureState::NotChecked => Verdict::NotChecked,
    }));
    let reason = match verdict {
        Verdict::Pass => "job storage is encrypted and locked, by the agent's word",
        Verdict::Fail => "job storage is not encrypted, or not locked",
        Verdict::NotChecked => "the node does not state that job storage is encrypted and locked",
    };
    let remedy = (Party::Node, "put job storage on dm-crypt, mounted nodev, nosuid and noexec");
    check("device.storage", verdict, weight, reason, remedy)
}

/// Whether TPM and chip were enrolled together. That shows no more: the claim is not that they are one platform.
pub(crate) fn co_enrolled_check(question: &Question<'_>) -> Check {
    let weight = question.required_from(Tier::Hardened);
    let remedy = (Party::Node, "enrol the host's TPM together with its TEE");
    let not_checked = |reason| check("tpm.co-enrolled", Verdict::NotChecked, weight, reason, remedy);
    let claims = match (&question.verified.device, &question.verified.tpm_beside) {
        (DeviceClaims::Tpm(_), _) => return not_checked("there is no CPU TEE that it could be enrolled with"),
        (_, None) => return not_checked("no TPM evidence was given"),
        (_, Some(claims)) => claims,
    };
    let enrolment = match &claims.enrolment {
        Err(reason) => return not_checked(reason),
        Ok(enrolment) => enrolment,
    };
    match (enrolment.chip, question.verified.device.chip()) {
        (None, _) => not_checked("the TPM was enrolled without a chip"),
        (_, None) => not_checked("the TEE's key names no chip"),
        (Some(enrolled), Some(found)) if enrolled == found => {
            let reason = "co-enrolled: TPM and chip were enrolled together, which does not prove one platform";
            check("tpm.co-enrolled", Verdict::Pass, weight, reason, remedy)
        }
        (Some(_), Some(_)) => {
            let reason = "the TPM was enrolled together with another chip";
            check("tpm.co-enrolled", Verdict::Fail, Weight::Required, reason, remedy)
        }
    }
}
