//! Appraisal: is what was verified good enough for this policy?
//!
//! [`appraise`] never fails and never stops early: it makes every check, gives each a verdict and a reason, and derives tier,
//! trustworthiness vector and decision from them. A check that could not be made says so and does not pass. No
//! clock: the time is the one that the evidence was verified at. Source: RFC 9334, section 8.4; `specs/policy.md`.

use std::borrow::Cow;

use crate::ar4si::{TrustClaim, TrustStatus, TrustVector};
use crate::binding::{Binding, Purpose};
use crate::check::{Check, Verdict, Weight};
use crate::evidence::EvidenceKind;
use crate::policy::Policy;
use crate::posture::{Measure, Posture, PostureItem, PostureState};
use crate::reference::ReferenceValues;
use crate::refusal::{Party, Refusal};
use crate::software_tee::{DebugMode, MemoryEncryption, SoftwareTeeClaims};
use crate::tier::Tier;
use crate::trust::Provenance;
use crate::types::{Digest, UnixTime};
use crate::verify::{DeviceClaims, Verified};

/// What is common to every CPU TEE, whatever its maker: what the tier `confidential` is made of.
struct CpuTee<'a> {
    kind: EvidenceKind,
    measurement: &'a [u8],
    debug: DebugMode,
    memory_encryption: MemoryEncryption,
    tcb_version: u64,
}

impl SoftwareTeeClaims {
    fn as_cpu_tee(&self) -> CpuTee<'_> {
        CpuTee {
            kind: EvidenceKind::SoftwareTee,
            measurement: self.measurement.as_bytes(),
            debug: self.debug,
            memory_encryption: self.memory_encryption,
            tcb_version: self.tcb_version,
        }
    }
}

/// What comes of a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Every required check passed.
    Meets,
    /// At least one did not; one refusal for each.
    Fails(Vec<Refusal>),
}

/// The outcome of an appraisal. Only [`appraise`] makes one, and only from [`Verified`] evidence.
#[derive(Debug, Clone)]
pub struct AttestationResult {
    binding: Binding,
    posture: Posture,
    evidence_digest: Digest,
    endorsements_digest: Digest,
    reference_values_digest: Digest,
    policy_digest: Digest,
    kind: EvidenceKind,
    tier: Tier,
    provenance: Provenance,
    vector: TrustVector,
    checks: Vec<Check>,
    appraised_at: UnixTime,
}

impl AttestationResult {
    /// The tier that was reached. Never to be shown without its provenance.
    pub const fn tier(&self) -> Tier {
        self.tier
    }

    /// What stands behind it.
    pub const fn provenance(&self) -> Provenance {
        self.provenance
    }

    /// The kind of device that made the evidence.
    pub const fn kind(&self) -> EvidenceKind {
        self.kind
    }

    /// Every check that was made and every one that was not, in the order in which they were made.
    pub fn checks(&self) -> &[Check] {
        &self.checks
    }

    /// The trustworthiness vector.
    pub const fn vector(&self) -> &TrustVector {
        &self.vector
    }

    /// The binding that was appraised: which task, attempt and keys this result is about.
    pub const fn binding(&self) -> &Binding {
        &self.binding
    }

    /// The posture that was appraised.
    pub const fn posture(&self) -> &Posture {
        &self.posture
    }

    /// Name of the evidence.
    pub const fn evidence_digest(&self) -> Digest {
        self.evidence_digest
    }

    /// Name of the endorsement snapshot that was used.
    pub const fn endorsements_digest(&self) -> Digest {
        self.endorsements_digest
    }

    /// Name of the reference values that were used.
    pub const fn reference_values_digest(&self) -> Digest {
        self.reference_values_digest
    }

    /// Name of the policy that was used.
    pub const fn policy_digest(&self) -> Digest {
        self.policy_digest
    }

    /// The time it was judged by.
    pub const fn appraised_at(&self) -> UnixTime {
        self.appraised_at
    }

    /// Whether the policy is met; else one refusal for each required check that did not pass.
    pub fn decision(&self) -> Decision {
        let refusals: Vec<Refusal> = self.checks.iter().filter_map(Check::refusal).collect();
        if refusals.is_empty() { Decision::Meets } else { Decision::Fails(refusals) }
    }

    /// The status of an EAR: no better than the worst aspect, `warning` at best where provenance is simulated, and
    /// `contraindicated` where the policy is not met.
    pub fn status(&self) -> TrustStatus {
        let ceiling = match (self.decision(), self.provenance) {
            (Decision::Fails(_), _) => TrustStatus::Contraindicated,
            (Decision::Meets, Provenance::Simulated { .. }) => TrustStatus::Warning,
            (Decision::Meets, Provenance::Genuine) => TrustStatus::None,
        };
        ceiling.max(self.vector.worst())
    }
}

/// Judges verified evidence by reference values and a policy.
pub fn appraise(verified: &Verified, reference_values: &ReferenceValues, policy: &Policy) -> AttestationResult {
    let DeviceClaims::SoftwareTee(claims) = &verified.device;
    let device = claims.as_cpu_tee();

    let mut checks = verified.checks.clone();
    let root = root_check(&verified.provenance, policy);
    let debug = debug_check(&device, policy);
    let memory = memory_check(&device, policy);
    let tcb = tcb_check(&device, policy);
    let measurement = measurement_check(&device, reference_values);

    let tier = tier_of(&root, [&debug, &memory, &tcb, &measurement]);
    let device_verdicts =
        DeviceVerdicts { root: root.verdict, debug: debug.verdict, tcb: tcb.verdict, measurement: measurement.verdict };
    checks.extend([root, debug, memory, tcb, measurement, tpm_check(policy), age_check(verified, policy)]);

    let minimum = &policy.fields().minimum_posture;
    let posture_from = checks.len();
    posture_checks(&mut checks, verified.posture.sandbox(), &minimum.sandbox);
    posture_checks(&mut checks, verified.posture.host(), &minimum.host);
    let vector = vector_of(&device, &device_verdicts, &verified.provenance, &checks[posture_from..]);
    checks.push(tier_check(tier, &verified.provenance, policy));

    AttestationResult {
        binding: verified.binding.clone(),
        posture: verified.posture.clone(),
        evidence_digest: verified.evidence_digest,
        endorsements_digest: verified.endorsements_digest,
        reference_values_digest: reference_values.digest(),
        policy_digest: policy.digest(),
        kind: device.kind,
        tier,
        provenance: verified.provenance,
        vector,
        checks,
        appraised_at: verified.verified_at,
    }
}

/// A check that decides for itself how it came out.
fn check(
    name: &'static str,
    verdict: Verdict,
    weight: Weight,
    reason: impl Into<Cow<'static, str>>,
    (party, remedy): (Party, &'static str),
) -> Check {
    Check { name: name.into(), verdict, weight, reason: reason.into(), party, remedy: remedy.into() }
}

/// Simulated evidence counts only where the policy names the very root in which its chain ended.
fn root_check(provenance: &Provenance, policy: &Policy) -> Check {
    let remedy = "use a node with hardware evidence; or name this root under accepted_simulated_roots in the policy, \
                  which accepts a simulation";
    let (verdict, reason) = match provenance {
        Provenance::Genuine => (Verdict::Pass, "the chain ends in a maker's root".to_owned()),
        Provenance::Simulated { root } if policy.accepts_simulated_root(root) => {
            (Verdict::Pass, format!("SIMULATED: the policy names {root}, which vouches for no silicon"))
        }
        Provenance::Simulated { root } => {
            (Verdict::Fail, format!("SIMULATED: the chain ends in {root}, which the policy does not name"))
        }
    };
    check("device.root", verdict, Weight::Required, reason, (Party::Node, remedy))
}

/// What the tier `confidential` is made of refuses by itself only where that tier is asked for.
fn weight_of_confidentiality(policy: &Policy) -> Weight {
    if policy.fields().minimum_tier >= Tier::Confidential { Weight::Required } else { Weight::Informative }
}

fn debug_check(device: &CpuTee<'_>, policy: &Policy) -> Check {
    let (verdict, reason) = match device.debug {
        DebugMode::Off => (Verdict::Pass, "debug is off"),
        DebugMode::On => (Verdict::Fail, "debug is on: the operator can look inside"),
    };
    let remedy = (Party::Node, "start the enclave with debug off");
    check("device.debug-off", verdict, weight_of_confidentiality(policy), reason, remedy)
}

fn memory_check(device: &CpuTee<'_>, policy: &Policy) -> Check {
    let (verdict, reason) = match device.memory_encryption {
        MemoryEncryption::Claimed => (Verdict::Pass, "the device claims memory encryption"),
        MemoryEncryption::NotClaimed => (Verdict::Fail, "the device does not claim memory encryption"),
    };
    let remedy = (Party::Node, "use a TEE that encrypts memory");
    check("device.memory-encrypted", verdict, weight_of_confidentiality(policy), reason, remedy)
}

fn tcb_check(device: &CpuTee<'_>, policy: &Policy) -> Check {
    let floor = policy.minimum_tcb(device.kind);
    let verdict = if device.tcb_version >= floor { Verdict::Pass } else { Verdict::Fail };
    let reason = format!("trusted base version {}, floor {floor}", device.tcb_version);
    let remedy = (Party::Node, "update the device's firmware and have it certified again");
    check("device.tcb", verdict, Weight::Required, reason, remedy)
}

fn measurement_check(device: &CpuTee<'_>, reference_values: &ReferenceValues) -> Check {
    let name = "device.measurement";
    let required = Weight::Required;
    if !reference_values.is_set_for(device.kind) {
        let reason = format!("no reference value is set for {}", device.kind);
        let remedy = (Party::Verifier, "set reference values for this kind; an unset one denies");
        return check(name, Verdict::NotChecked, required, reason, remedy);
    }
    let remedy = (Party::Node, "run a released agent, or have the verifier pin this one");
    match reference_values.find(device.kind, device.measurement) {
        Some(value) => check(name, Verdict::Pass, required, format!("the agent is {}", value.name), remedy),
        None => check(name, Verdict::Fail, required, "the agent matches no reference value", remedy),
    }
}

/// No TPM can take part yet; the tier `hardened` stays out of reach and the result says why.
fn tpm_check(policy: &Policy) -> Check {
    let weight = if policy.fields().minimum_tier >= Tier::Hardened { Weight::Required } else { Weight::Informative };
    let remedy = (Party::Node, "enrol the host's TPM together with its TEE");
    check("tpm.co-enrolled", Verdict::NotChecked, weight, "no TPM evidence was given", remedy)
}

/// Age counts from the challenge. Closing evidence has none to speak of: it is bound to its report, which names the grant and
/// so cannot be older than the attempt, and a long run is no fault.
fn age_check(verified: &Verified, policy: &Policy) -> Check {
    let name = "evidence.age";
    let max_age_ms = policy.fields().evidence_max_age_ms;
    let Some(age) = verified.verified_at.since(verified.challenge_issued_at) else {
        let reason = "the challenge was issued in the future of the time given";
        return check(name, Verdict::Fail, Weight::Required, reason, (Party::Verifier, "set the clock right"));
    };
    let remedy = (Party::Node, "answer a fresh challenge");
    if verified.binding.purpose == Purpose::ClosingTask {
        let reason = "closing evidence is as fresh as the report that it is bound to";
        return check(name, Verdict::NotChecked, Weight::Informative, reason, remedy);
    }
    let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    let verdict = if age_ms <= max_age_ms { Verdict::Pass } else { Verdict::Fail };
    let reason = format!("the challenge is {age_ms} ms old, allowed are {max_age_ms}");
    check(name, verdict, Weight::Required, reason, remedy)
}

fn posture_checks<N: Measure>(checks: &mut Vec<Check>, items: &[PostureItem<N>], minimum: &[N]) {
    let mut push = |name: N, state: PostureState, weight: Weight, detail: &str| {
        let (verdict, word) = match state {
            PostureState::InForce => (Verdict::Pass, "in force"),
            PostureState::Absent => (Verdict::Fail, "not in force"),
            PostureState::NotChecked => (Verdict::NotChecked, "not checked"),
        };
        let reason = if detail.is_empty() { Cow::Borrowed(word) } else { format!("{word}: {detail}").into() };
        checks.push(Check {
            name: format!("posture.{}.{}", N::GROUP, name.name()).into(),
            verdict,
            weight,
            reason,
            party: Party::Node,
            remedy: "put the measure in force on the node, or choose another node".into(),
        });
    };
    for item in items {
        let weight = if minimum.contains(&item.name()) { Weight::Required } else { Weight::Informative };
        push(item.name(), item.state(), weight, item.detail());
    }
    for name in minimum {
        if items.iter().all(|item| item.name() != *name) {
            push(*name, PostureState::NotChecked, Weight::Required, "the node states nothing about it");
        }
    }
}

fn tier_check(tier: Tier, provenance: &Provenance, policy: &Policy) -> Check {
    let minimum = policy.fields().minimum_tier;
    let verdict = if tier >= minimum { Verdict::Pass } else { Verdict::Fail };
    let reason = format!("tier {tier} ({}), at least {minimum} is asked for", provenance.name());
    let remedy = (Party::Node, "see the checks of the device that did not pass, or choose another node");
    check("policy.minimum-tier", verdict, Weight::Required, reason, remedy)
}

/// A chain under an accepted root identifies a device; everything else together makes it confidential. `measured` and
/// `hardened` need a TPM, which no evidence of today carries.
fn tier_of(root: &Check, of_confidentiality: [&Check; 4]) -> Tier {
    if root.verdict != Verdict::Pass {
        return Tier::None;
    }
    if of_confidentiality.iter().all(|check| check.verdict == Verdict::Pass) {
        Tier::Confidential
    } else {
        Tier::Identified
    }
}

struct DeviceVerdicts {
    root: Verdict,
    debug: Verdict,
    tcb: Verdict,
    measurement: Verdict,
}

fn vector_of(
    device: &CpuTee<'_>,
    verdicts: &DeviceVerdicts,
    provenance: &Provenance,
    posture_checks: &[Check],
) -> TrustVector {
    let required = || posture_checks.iter().filter(|check| check.weight == Weight::Required);
    let configuration = if verdicts.debug != Verdict::Pass {
        TrustClaim::CONFIGURATION_UNSUPPORTABLE
    } else if verdicts.tcb != Verdict::Pass || required().any(|check| check.verdict == Verdict::Fail) {
        TrustClaim::CONFIGURATION_UNSAFE
    } else if required().any(|check| check.verdict == Verdict::NotChecked) {
        TrustClaim::CONFIGURATION_UNAVAILABLE
    } else {
        TrustClaim::CONFIGURATION_APPROVED
    };
    // A simulation says nothing about silicon or its memory, whatever its report claims.
    let (hardware, runtime_opaque) = match provenance {
        Provenance::Simulated { .. } if verdicts.root == Verdict::Pass => (TrustClaim::NO_CLAIM, TrustClaim::NO_CLAIM),
        Provenance::Simulated { .. } => (TrustClaim::HARDWARE_UNRECOGNIZED, TrustClaim::NO_CLAIM),
        Provenance::Genuine => (
            if verdicts.tcb == Verdict::Pass { TrustClaim::HARDWARE_GENUINE } else { TrustClaim::HARDWARE_UNSAFE },
            if device.memory_encryption == MemoryEncryption::Claimed && verdicts.debug == Verdict::Pass {
                TrustClaim::RUNTIME_ENCRYPTED
            } else {
                TrustClaim::RUNTIME_VISIBLE
            },
        ),
    };
    TrustVector {
        instance_identity: if verdicts.root == Verdict::Pass {
            TrustClaim::INSTANCE_RECOGNIZED
        } else {
            TrustClaim::INSTANCE_UNRECOGNIZED
        },
        configuration,
        executables: match verdicts.measurement {
            Verdict::Pass => TrustClaim::EXECUTABLES_APPROVED_BOOT,
            Verdict::Fail => TrustClaim::EXECUTABLES_UNRECOGNIZED,
            Verdict::NotChecked => TrustClaim::NO_CLAIM,
        },
        file_system: TrustClaim::NO_CLAIM,
        hardware,
        runtime_opaque,
        storage_opaque: TrustClaim::NO_CLAIM,
        sourced_data: TrustClaim::NO_CLAIM,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::SimulatedRootId;
    use crate::types::PublicKey;

    /// No evidence of today is genuine, so this table stands in for it: hardware and runtime-opaque by provenance.
    #[test]
    fn only_a_makers_root_says_something_about_silicon() {
        use Verdict::{Fail, Pass};
        let simulated = Provenance::Simulated { root: SimulatedRootId::SoftwareTee(PublicKey([1; 32])) };
        let claimed = MemoryEncryption::Claimed;
        let cases = [
            // provenance, root, debug, tcb, memory encryption → hardware, runtime-opaque, configuration
            (Provenance::Genuine, Pass, Pass, Pass, claimed, 2, 2, 2),
            (Provenance::Genuine, Pass, Pass, Pass, MemoryEncryption::NotClaimed, 2, 96, 2),
            (Provenance::Genuine, Pass, Fail, Pass, claimed, 2, 96, 96),
            (Provenance::Genuine, Pass, Pass, Fail, claimed, 32, 2, 32),
            (simulated, Pass, Pass, Pass, claimed, 0, 0, 2),
            (simulated, Pass, Fail, Fail, claimed, 0, 0, 96),
            (simulated, Fail, Pass, Pass, claimed, 97, 0, 2),
        ];
        for (provenance, root, debug, tcb, memory_encryption, hardware, runtime_opaque, configuration) in cases {
            let device = CpuTee {
                kind: EvidenceKind::SoftwareTee,
                measurement: &[],
                debug: if debug == Pass { DebugMode::Off } else { DebugMode::On },
                memory_encryption,
                tcb_version: 1,
            };
            let verdicts = DeviceVerdicts { root, debug, tcb, measurement: Pass };
            let vector = vector_of(&device, &verdicts, &provenance, &[]);
            let found = [vector.hardware, vector.runtime_opaque, vector.configuration].map(TrustClaim::value);
            assert_eq!(found, [hardware, runtime_opaque, configuration], "{provenance} {root} {debug} {tcb}");
        }
    }
}
