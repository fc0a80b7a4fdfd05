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
use crate::judge::{DeviceVerdicts, Question, TpmPlace, co_enrolled_check, judge_device, judge_more, judge_tpm};
use crate::policy::Policy;
use crate::posture::{Measure, Posture, PostureItem, PostureState};
use crate::reference::ReferenceValues;
use crate::refusal::{Party, Refusal};
use crate::software_tee::MemoryEncryption;
use crate::tier::Tier;
use crate::trust::Provenance;
use crate::types::{Digest, UnixTime};
use crate::verify::Verified;

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
    let question = Question { verified, reference_values, policy, hardware: &policy.hardware() };
    let device = judge_device(&question);
    let beside = verified.tpm_beside.as_deref().map(|claims| judge_tpm(&question, claims, TpmPlace::BesideTee));
    let co_enrolled = co_enrolled_check(&question);
    let more = judge_more(&question);

    let mut roots = vec![device.root.verdict];
    let mut checks = verified.checks.clone();
    checks.extend([device.root, device.debug, device.memory, device.tcb, device.measurement]);
    checks.extend(device.rules);
    let tpm = device.tpm.or_else(|| beside.as_ref().map(|beside| beside.standing));
    if let Some(beside) = beside {
        roots.push(beside.root.verdict);
        checks.push(beside.root);
        checks.extend(beside.checks);
    }
    let joined = co_enrolled.verdict == Verdict::Pass;
    checks.push(co_enrolled);
    roots.extend(more.roots.iter().map(|root| root.verdict));
    checks.extend(more.roots);
    checks.extend(more.checks);
    let tier = tier_of(&TierGrounds {
        roots: &roots,
        device: device.standing.min(more.cap),
        tpm,
        joined,
        facility: more.facility,
        side_channels: more.side_channels,
    });
    checks.push(age_check(verified, policy));

    let minimum = &policy.fields().minimum_posture;
    let posture_from = checks.len();
    posture_checks(&mut checks, verified.posture.sandbox(), &minimum.sandbox);
    posture_checks(&mut checks, verified.posture.host(), &minimum.host);
    let vector = vector_of(&device.verdicts, &verified.provenance, &checks[posture_from..]);
    checks.push(tier_check(tier, &verified.provenance, policy));

    AttestationResult {
        binding: verified.binding.clone(),
        posture: verified.posture.clone(),
        evidence_digest: verified.evidence_digest,
        endorsements_digest: verified.endorsements_digest,
        reference_values_digest: reference_values.digest(),
        policy_digest: policy.digest(),
        kind: verified.device.kind(),
        tier,
        provenance: verified.provenance,
        vector,
        checks,
        appraised_at: verified.verified_at,
    }
}

/// A check that decides for itself how it came out.
pub(crate) fn check(
    name: &'static str,
    verdict: Verdict,
    weight: Weight,
    reason: impl Into<Cow<'static, str>>,
    (party, remedy): (Party, &'static str),
) -> Check {
    Check { name: name.into(), verdict, weight, reason: reason.into(), party, remedy: remedy.into() }
}

/// Simulated evidence counts only where the policy names the very root in which its chain ended.
pub(crate) fn root_check(name: &'static str, provenance: &Provenance, policy: &Policy) -> Check {
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
    check(name, verdict, Weight::Required, reason, (Party::Node, remedy))
}

/// What the tier `confidential` is made of refuses by itself only where that tier is asked for.
pub(crate) fn weight_of_confidentiality(policy: &Policy) -> Weight {
    if policy.fields().minimum_tier >= Tier::Confidential { Weight::Required } else { Weight::Informative }
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

/// What a tier follows from.
struct TierGrounds<'a> {
    /// Every root of every part.
    roots: &'a [Verdict],
    /// What the CPU TEE reaches by itself; of a TPM alone, what that reaches.
    device: Tier,
    /// What the TPM reaches, alone or beside a CPU TEE.
    tpm: Option<Tier>,
    /// Whether TPM and chip were enrolled together.
    joined: bool,
    facility: Verdict,
    side_channels: Verdict,
}

/// One root that is not accepted undoes all. A confidential device is hardened by a measured TPM that it was enrolled with, its side-channel
/// posture, and its facility.
fn tier_of(grounds: &TierGrounds<'_>) -> Tier {
    if grounds.roots.iter().any(|root| *root != Verdict::Pass) {
        return Tier::None;
    }
    let hardened = grounds.device == Tier::Hardened
        && grounds.tpm == Some(Tier::Measured)
        && grounds.joined
        && [grounds.facility, grounds.side_channels].iter().all(|verdict| *verdict == Verdict::Pass);
    if hardened { Tier::Hardened } else { grounds.device.min(Tier::Confidential) }
}

fn vector_of(device: &DeviceVerdicts, provenance: &Provenance, posture_checks: &[Check]) -> TrustVector {
    let required = || posture_checks.iter().filter(|check| check.weight == Weight::Required);
    let debug = device.debug.is_some_and(|debug| debug != Verdict::Pass);
    let unsafe_set_up = device.tcb == Verdict::Fail || device.rules == Verdict::Fail;
    let configuration = if debug {
        TrustClaim::CONFIGURATION_UNSUPPORTABLE
    } else if unsafe_set_up || required().any(|check| check.verdict == Verdict::Fail) {
        TrustClaim::CONFIGURATION_UNSAFE
    } else if device.rules == Verdict::NotChecked || required().any(|check| check.verdict == Verdict::NotChecked) {
        TrustClaim::CONFIGURATION_UNAVAILABLE
    } else {
        TrustClaim::CONFIGURATION_APPROVED
    };
    // A simulation says nothing about silicon or its memory, whatever its report claims.
    let (hardware, runtime_opaque) = match provenance {
        Provenance::Simulated { .. } if device.root == Verdict::Pass => (TrustClaim::NO_CLAIM, TrustClaim::NO_CLAIM),
        Provenance::Simulated { .. } => (TrustClaim::HARDWARE_UNRECOGNIZED, TrustClaim::NO_CLAIM),
        Provenance::Genuine => (
            if device.tcb == Verdict::Fail { TrustClaim::HARDWARE_UNSAFE } else { TrustClaim::HARDWARE_GENUINE },
            match device.memory_encryption {
                // A TPM shows nothing of the memory that its host works in.
                None => TrustClaim::NO_CLAIM,
                Some(MemoryEncryption::Claimed) if !debug => TrustClaim::RUNTIME_ENCRYPTED,
                Some(MemoryEncryption::Claimed | MemoryEncryption::NotClaimed) => TrustClaim::RUNTIME_VISIBLE,
            },
        ),
    };
    TrustVector {
        instance_identity: if device.root == Verdict::Pass {
            TrustClaim::INSTANCE_RECOGNIZED
        } else {
            TrustClaim::INSTANCE_UNRECOGNIZED
        },
        configuration,
        executables: match device.measurement {
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

    /// No test has a maker's key, so that this table stands in for genuine evidence: hardware and runtime-opaque by provenance.
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
            let device = DeviceVerdicts {
                root,
                debug: Some(debug),
                tcb,
                measurement: Pass,
                rules: Pass,
                memory_encryption: Some(memory_encryption),
            };
            let vector = vector_of(&device, &provenance, &[]);
            let found = [vector.hardware, vector.runtime_opaque, vector.configuration].map(TrustClaim::value);
            assert_eq!(found, [hardware, runtime_opaque, configuration], "{provenance} {root} {debug} {tcb}");
        }
    }
}
