//! Judging devices: what each kind claims, against the rules for its kind, and what it reaches by that.
//!
//! The checks `device.*` mean the same of every kind; those with a kind's name before them are `starminer-hardware`'s and are taken over one by one.
//! A rule of hardware refuses by itself where the policy asks for the tier that it makes up, and is told below that. Chip ids
//! are in no reason. Source: `specs/policy.md`, sections "Hardware", "Tiers" and "Checks".

mod components;
mod more;
mod tee;
mod tpm;

pub(crate) use more::judge_more;
pub(crate) use tpm::{TpmPlace, co_enrolled_check, judge_tpm};

use starminer_hardware::Checks;

use crate::appraise::{check, root_check, weight_of_confidentiality};
use crate::check::{Check, Verdict, Weight};
use crate::evidence::EvidenceKind;
use crate::hardware_policy::{Given, HardwarePolicy};
use crate::parts::adopt;
use crate::policy::Policy;
use crate::reference::ReferenceValues;
use crate::refusal::Party;
use crate::software_tee::MemoryEncryption;
use crate::tier::Tier;
use crate::trust::{Provenance, SimulatedRootId};
use crate::types::Digest;
use crate::verify::{DeviceClaims, Verified};

/// What is to be judged, and by what.
pub(crate) struct Question<'a> {
    pub(crate) verified: &'a Verified,
    pub(crate) reference_values: &'a ReferenceValues,
    pub(crate) policy: &'a Policy,
    pub(crate) hardware: &'a HardwarePolicy,
}

/// Verdicts that the trustworthiness vector is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DeviceVerdicts {
    pub(crate) root: Verdict,
    /// `None` where the kind has no such mode.
    pub(crate) debug: Option<Verdict>,
    pub(crate) tcb: Verdict,
    pub(crate) measurement: Verdict,
    pub(crate) rules: Verdict,
    /// `None` where the kind has no memory.
    pub(crate) memory_encryption: Option<MemoryEncryption>,
}

/// What was found of the device that the evidence is of.
pub(crate) struct Judged {
    pub(crate) root: Check,
    pub(crate) debug: Check,
    pub(crate) memory: Check,
    pub(crate) tcb: Check,
    pub(crate) measurement: Check,
    /// The rules for its kind.
    pub(crate) rules: Vec<Check>,
    pub(crate) verdicts: DeviceVerdicts,
    /// What it reaches by itself; `Hardened` is what others may let it reach.
    pub(crate) standing: Tier,
    /// What it reaches as a TPM.
    pub(crate) tpm: Option<Tier>,
}

/// Judges the CPU TEE, or the TPM where there is none.
pub(crate) fn judge_device(question: &Question<'_>) -> Judged {
    match &question.verified.device {
        DeviceClaims::SoftwareTee(claims) => tee::software_tee(question, claims),
        DeviceClaims::SevSnp(claims) => tee::sev_snp(question, claims),
        DeviceClaims::Tdx(claims) => tee::tdx(question, claims),
        DeviceClaims::Sgx(claims) => tee::sgx(question, claims),
        DeviceClaims::Tpm(claims) => tpm::alone(question, claims),
    }
}

impl Question<'_> {
    /// Whether nothing here is about hardware: a software TEE under a policy that says nothing of it.
    fn is_plain(&self) -> bool {
        matches!(self.verified.device, DeviceClaims::SoftwareTee(_)) && self.policy.fields().hardware.is_none()
    }

    fn root(&self, name: &'static str, provenance: &Provenance) -> Check {
        root_check(name, provenance, self.policy)
    }

    /// SHA-256 of the accepted simulated roots of a sort.
    fn accepted(&self, sort: fn(Digest) -> SimulatedRootId) -> Vec<[u8; 32]> {
        let of_sort = |root: &SimulatedRootId| match *root {
            SimulatedRootId::SoftwareTee(_) => None,
            SimulatedRootId::SevSnp(digest)
            | SimulatedRootId::Intel(digest)
            | SimulatedRootId::Tpm(digest)
            | SimulatedRootId::Nvidia(digest)
            | SimulatedRootId::NvidiaRim(digest) => (sort(digest) == *root).then_some(digest.0),
        };
        self.policy.fields().accepted_simulated_roots.iter().filter_map(of_sort).collect()
    }

    pub(crate) fn given(
        &self,
        kind: EvidenceKind,
        sort: fn(Digest) -> SimulatedRootId,
        report_data: [u8; 64],
    ) -> Given<'_> {
        Given {
            simulated_roots: self.accepted(sort),
            report_data,
            measurements: self.reference_values.of_kind(kind).collect(),
        }
    }

    /// Whether the measurement of a kind is among the reference values, of which unset ones deny.
    fn measurement(&self, name: &'static str, kind: EvidenceKind, measurement: Option<&[u8]>, weight: Weight) -> Check {
        let remedy = (Party::Node, "run a released agent, or have the verifier pin this one");
        if !self.reference_values.is_set_for(kind) {
            let reason = format!("no reference value is set for {kind}");
            let remedy = (Party::Verifier, "set reference values for this kind; an unset one denies");
            return check(name, Verdict::NotChecked, weight, reason, remedy);
        }
        match measurement.map(|measurement| self.reference_values.find(kind, measurement)) {
            Some(Some(value)) => check(name, Verdict::Pass, weight, format!("the agent is {}", value.name), remedy),
            Some(None) => check(name, Verdict::Fail, weight, "the agent matches no reference value", remedy),
            None => check(name, Verdict::NotChecked, weight, "what reference values are over was not measured", remedy),
        }
    }

    /// Weight of what makes up the tier `confidential`.
    fn of_confidentiality(&self) -> Weight {
        weight_of_confidentiality(self.policy)
    }

    fn required_from(&self, tier: Tier) -> Weight {
        if self.policy.fields().minimum_tier >= tier { Weight::Required } else { Weight::Informative }
    }
}

/// Names of checks whose reasons spell out a chip's id. What they check, `device.chip` and `gpu.chip` check by its digest.
const NAMING_CHIPS: [&str; 3] = ["snp.policy.chip", "snp.policy.denied-chip", "nvidia.policy.device"];

/// Takes rules over, in the weight that they have here; how all that are required came out together.
fn take_rules(checks: &mut Vec<Check>, found: &Checks, weight: Weight) -> Verdict {
    let mut taken = Vec::new();
    adopt(&mut taken, found, weight);
    checks.extend(taken.into_iter().filter(|check| !NAMING_CHIPS.contains(&check.name())));
    let required = found.as_slice().iter().filter(|check| check.weight == starminer_hardware::Weight::Required);
    together(required.map(|check| crate::parts::verdict_of(check.verdict)))
}

/// A failure if there is one, else whether anything was left unchecked.
fn together(verdicts: impl IntoIterator<Item = Verdict>) -> Verdict {
    let mut all = Verdict::Pass;
    for verdict in verdicts {
        match verdict {
            Verdict::Fail => return Verdict::Fail,
            Verdict::NotChecked => all = Verdict::NotChecked,
            Verdict::Pass => {}
        }
    }
    all
}
