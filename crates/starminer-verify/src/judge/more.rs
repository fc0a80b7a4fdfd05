//! What is asked beside the device's own rules: which chip it is, where it stands, what else runs on it, and GPUs.

use starminer_hardware::nvidia;

use super::{Question, take_rules};
use crate::appraise::check;
use crate::check::{Check, Verdict, Weight};
use crate::enrolment::chip_digest;
use crate::evidence::EvidenceKind;
use crate::hardware_policy::Requirement;
use crate::posture::{HostMeasure, PostureState};
use crate::refusal::Party;
use crate::tier::Tier;
use crate::trust::SimulatedRootId;
use crate::verify::DeviceClaims;

pub(crate) struct More {
    pub(crate) roots: Vec<Check>,
    pub(crate) checks: Vec<Check>,
    /// The most that the device can reach.
    pub(crate) cap: Tier,
    pub(crate) facility: Verdict,
    pub(crate) side_channels: Verdict,
}

pub(crate) fn judge_more(question: &Question<'_>) -> More {
    let mut more = More {
        roots: Vec::new(),
        checks: Vec::new(),
        cap: Tier::Hardened,
        facility: Verdict::NotChecked,
        side_channels: Verdict::NotChecked,
    };
    if !question.is_plain() && !matches!(question.verified.device, DeviceClaims::Tpm(_)) {
        let chip = chip_check(question);
        if chip.verdict != Verdict::Pass {
            more.cap = Tier::Identified;
        }
        let facility = facility_check(question);
        let side_channels = side_channel_check(question);
        (more.facility, more.side_channels) = (facility.verdict, side_channels.verdict);
        more.checks.extend([chip, facility, side_channels]);
    }
    gpus(question, &mut more);
    more
}

/// The denylist, by digests of ids.
fn chip_check(question: &Question<'_>) -> Check {
    let denied = &question.hardware.chips.denied;
    let remedy = (Party::Node, "use another machine");
    let (verdict, reason) = match question.verified.device.chip() {
        Some(chip) if denied.binary_search(&chip).is_ok() => (Verdict::Fail, "the policy denies this chip"),
        Some(_) => (Verdict::Pass, "the policy does not deny this chip"),
        None if denied.is_empty() => (Verdict::Pass, "the policy denies no chip, and the key names none"),
        None => (Verdict::Fail, "the policy denies chips, and the key does not say which this is"),
    };
    check("device.chip", verdict, Weight::Required, reason, remedy)
}

fn facility_check(question: &Question<'_>) -> Check {
    let weight = match question.hardware.chips.facility {
        Requirement::Required => Weight::Required,
        Requirement::NotRequired => question.required_from(Tier::Hardened),
    };
    let remedy = (Party::Node, "have the facility that the machine stands in vouch for its chip");
    let (verdict, reason) = match &question.verified.facility {
        Some(_) => (Verdict::Pass, "a facility vouches for the chip"),
        None => (Verdict::NotChecked, "no credential of a facility names this chip"),
    };
    check("device.facility", verdict, weight, reason, remedy)
}

/// No neighbour on the same core, by the device's word; and no open vulnerability that the kernel knows, by the agent's.
fn side_channel_check(question: &Question<'_>) -> Check {
    let (alone, reason) = match &question.verified.device {
        DeviceClaims::SevSnp(claims) => {
            let said = claims.claims();
            (Some(!said.platform.smt() || !said.policy.smt()), "by the platform's word or the guest's policy")
        }
        DeviceClaims::Tdx(claims) => (claims.claims().platform().smt_enabled.map(|on| !on), "by the PCK certificate"),
        DeviceClaims::Sgx(claims) => (claims.claims().platform().smt_enabled.map(|on| !on), "by the PCK certificate"),
        DeviceClaims::SoftwareTee(_) | DeviceClaims::Tpm(_) => (None, "which this kind does not say"),
    };
    let mitigated = question.verified.posture.host_state(HostMeasure::CpuMitigated);
    let (verdict, reason) = match (alone, mitigated) {
        (Some(false), _) => (Verdict::Fail, format!("threads share a core, {reason}")),
        (_, PostureState::Absent) => (Verdict::Fail, "the kernel knows an open vulnerability of the processor".into()),
        (Some(true), PostureState::InForce) => (
            Verdict::Pass,
            format!("no threads share a core, {reason}; no vulnerability that the kernel knows is open"),
        ),
        (Some(true), PostureState::NotChecked) => {
            (Verdict::NotChecked, "the node does not state that the processor's vulnerabilities are mitigated".into())
        }
        (None, PostureState::InForce | PostureState::NotChecked) => {
            (Verdict::NotChecked, format!("whether threads share a core is not known, {reason}"))
        }
    };
    let remedy = (Party::Node, "switch SMT off and update kernel and microcode");
    check("device.side-channels", verdict, question.required_from(Tier::Hardened), reason, remedy)
}

fn gpus(question: &Question<'_>, more: &mut More) {
    let wanted = usize::from(question.hardware.gpu.count_min);
    let claims = question.verified.gpus();
    let found = claims.map_or(0, |claims| claims.claims().gpus.len());
    if found == 0 && wanted == 0 {
        return;
    }
    let verdict = if found >= wanted { Verdict::Pass } else { Verdict::Fail };
    let reason = format!("GPUs: {found}, at least {wanted} asked for");
    let remedy = (Party::Node, "use a node with confidential GPUs, and send the part of each");
    more.checks.push(check("gpu.count", verdict, Weight::Required, reason, remedy));
    let Some(claims) = claims else { return };
    more.roots.extend(claims.provenances().map(|provenance| question.root("gpu.root", &provenance)));
    let mut accepted = question.accepted(SimulatedRootId::Nvidia);
    accepted.extend(question.accepted(SimulatedRootId::NvidiaRim));
    let rules = nvidia::appraise(&claims.verified, &question.hardware.gpus(&accepted));
    take_rules(&mut more.checks, &rules, Weight::Required);
    let denied = claims.claims().gpus.iter().any(|gpu| {
        let chip = chip_digest(EvidenceKind::NvidiaGpu, gpu.device.as_bytes());
        question.hardware.chips.denied.binary_search(&chip).is_ok()
    });
    let (verdict, reason) = match denied {
        true => (Verdict::Fail, "the policy denies one of these GPUs"),
        false => (Verdict::Pass, "the policy denies none of these GPUs"),
    };
    more.checks.push(check("gpu.chip", verdict, Weight::Required, reason, (Party::Node, "use another GPU")));
}
