//! Verification: is this evidence what was asked for, and did a device under a trusted root sign it?
//!
//! [`verify`] is the only way from [`Evidence`] to [`Verified`], and [`Verified`] the only way to a claim. It compares
//! every field of the binding with an expectation that the caller had to write down, checks the cheap things first and
//! the signatures last, and stops at the first that does not hold. It does not judge what was verified: that is
//! [`crate::appraise`]. No clock, no network, no file. Source: RFC 9334, section 8.1; `specs/evidence.md`, section
//! "Verification".

use std::borrow::Cow;
use std::fmt;

use starminer_hardware::tpm::clock::continuity;
use starminer_hardware::tpm::{HashAlg, PcrIndex};

use crate::batch::report_data_for;
use crate::binding::{Binding, Purpose, TaskKey};
use crate::check::{Check, Verdict, Weight};
use crate::endorsements::Endorsements;
use crate::enrolment::{Enrolments, FacilityCredential, chip_digest};
use crate::evidence::{Evidence, EvidenceKind};
use crate::parts::{Devices, GpuClaims, SevSnpClaims, SgxClaims, TdxClaims, TpmClaims, Window, verify_parts};
use crate::posture::Posture;
use crate::refusal::{Party, Refusal};
use crate::software_tee::SoftwareTeeClaims;
use crate::trust::{Provenance, SimulatedRootId, TrustAnchors};
use crate::types::{Attempt, BootId, Challenge, Digest, NetworkId, NodeId, PublicKey, UnixTime};

/// What a verifier expects of a field that it may not know beforehand. Leaving the field out is not possible, and `Any`
/// shows in the result as a check that was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect<T> {
    /// This value and no other.
    Exactly(T),
    /// Any value: the evidence is how the verifier learns it.
    Any,
}

/// What evidence is expected to be for, with the fields that the purpose brings along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpectedPurpose {
    /// A task that is about to run.
    Task {
        /// Digest of its spec.
        spec: Digest,
        /// Its attempt.
        attempt: Attempt,
    },
    /// A task that ran.
    ClosingTask {
        /// Digest of its spec.
        spec: Digest,
        /// Its attempt.
        attempt: Attempt,
        /// Digest of its report.
        subject: Digest,
    },
    /// A broker.
    Broker,
    /// A node that wants to join.
    Admission,
}

impl ExpectedPurpose {
    /// The purpose without its fields.
    pub const fn purpose(&self) -> Purpose {
        match self {
            Self::Task { .. } => Purpose::Task,
            Self::ClosingTask { .. } => Purpose::ClosingTask,
            Self::Broker => Purpose::Broker,
            Self::Admission => Purpose::Admission,
        }
    }

    const fn spec(&self) -> Option<Digest> {
        match self {
            Self::Task { spec, .. } | Self::ClosingTask { spec, .. } => Some(*spec),
            Self::Broker | Self::Admission => None,
        }
    }

    const fn attempt(&self) -> Option<Attempt> {
        match self {
            Self::Task { attempt, .. } | Self::ClosingTask { attempt, .. } => Some(*attempt),
            Self::Broker | Self::Admission => None,
        }
    }

    const fn subject(&self) -> Option<Digest> {
        match self {
            Self::ClosingTask { subject, .. } => Some(*subject),
            Self::Task { .. } | Self::Broker | Self::Admission => None,
        }
    }
}

/// Everything that a verifier expects of a binding. No field is optional and none has a default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// The verifier's network.
    pub network: NetworkId,
    /// The challenge it issued for this attempt.
    pub challenge: Challenge,
    /// When it issued that challenge; evidence cannot be older. For a receipt: as its grant entry says.
    pub challenge_issued_at: UnixTime,
    /// What the evidence is to be for.
    pub purpose: ExpectedPurpose,
    /// The node that was asked.
    pub node: NodeId,
    /// The start of the agent.
    pub boot: Expect<BootId>,
    /// The key to seal to.
    pub task_key: Expect<TaskKey>,
    /// The key that will sign the report.
    pub report_key: Expect<PublicKey>,
    /// The agent's countersigning key.
    pub agent_key: Expect<PublicKey>,
    /// The key of the TLS session, where there was one.
    pub tls_key: Expect<PublicKey>,
    /// Digest of the posture. The posture itself is always checked against the binding.
    pub posture: Expect<Digest>,
}

/// All that verification depends on besides the evidence.
#[derive(Debug, Clone)]
pub struct Context<'a> {
    /// What the evidence is expected to be.
    pub expected: Expected,
    /// What makers published.
    pub endorsements: &'a Endorsements,
    /// Where trust starts.
    pub trust_anchors: &'a TrustAnchors,
    /// What was found out about nodes when they joined, as the caller verified it.
    pub enrolments: &'a Enrolments,
    /// The time to judge by.
    pub now: UnixTime,
}

/// Claims of one device, by kind.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum DeviceClaims {
    /// A software TEE.
    SoftwareTee(SoftwareTeeClaims),
    /// A guest of AMD SEV-SNP.
    SevSnp(SevSnpClaims),
    /// A trust domain of Intel TDX.
    Tdx(TdxClaims),
    /// An enclave of Intel SGX.
    Sgx(SgxClaims),
    /// A TPM without a CPU TEE beside it.
    Tpm(Box<TpmClaims>),
}

impl DeviceClaims {
    /// The kind of device.
    pub const fn kind(&self) -> EvidenceKind {
        match self {
            Self::SoftwareTee(_) => EvidenceKind::SoftwareTee,
            Self::SevSnp(_) => EvidenceKind::SevSnp,
            Self::Tdx(_) => EvidenceKind::Tdx,
            Self::Sgx(_) => EvidenceKind::Sgx,
            Self::Tpm(_) => EvidenceKind::Tpm,
        }
    }

    /// The chip, as [`chip_digest`] names it, where a chip's own key says so. A TPM is no chip that a task runs on.
    pub fn chip(&self) -> Option<Digest> {
        match self {
            Self::SoftwareTee(claims) => Some(chip_digest(EvidenceKind::SoftwareTee, &claims.chip_id.0)),
            Self::SevSnp(claims) => claims.chip(),
            Self::Tdx(claims) => Some(claims.chip()),
            Self::Sgx(claims) => Some(claims.chip()),
            Self::Tpm(_) => None,
        }
    }

    /// Follows from the root in which the chain ended.
    pub(crate) fn provenance(&self) -> Provenance {
        match self {
            Self::SoftwareTee(claims) => Provenance::Simulated { root: SimulatedRootId::SoftwareTee(claims.root) },
            Self::SevSnp(claims) => claims.provenance(),
            Self::Tdx(claims) => claims.provenance(),
            Self::Sgx(claims) => claims.provenance(),
            Self::Tpm(claims) => claims.provenance(),
        }
    }
}

/// Registers that change while a machine runs (TCG PC Client Platform Firmware Profile, 3.3.4): IMA's list (10), and what programs may extend or reset
/// (16 for debugging, 23 for applications). PCR 12 to 14 (command line, credentials, MOK) do not change after boot, and count.
pub const CHANGING_REGISTERS: [u8; 3] = [10, 16, 23];

/// Evidence whose signatures, chain, freshness and binding hold. What it claims can be read; whether that is good enough
/// is for [`crate::appraise`].
#[derive(Clone)]
pub struct Verified {
    pub(crate) evidence_digest: Digest,
    pub(crate) endorsements_digest: Digest,
    pub(crate) binding: Binding,
    pub(crate) posture: Posture,
    pub(crate) device: DeviceClaims,
    pub(crate) tpm_beside: Option<Box<TpmClaims>>,
    pub(crate) gpus: Option<Box<GpuClaims>>,
    pub(crate) facility: Option<FacilityCredential>,
    pub(crate) provenance: Provenance,
    pub(crate) windows: Vec<Window>,
    pub(crate) verified_at: UnixTime,
    pub(crate) challenge_issued_at: UnixTime,
    pub(crate) checks: Vec<Check>,
}

impl fmt::Debug for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verified({}, {})", self.evidence_digest, self.provenance)
    }
}

impl Verified {
    /// Name of the evidence.
    pub const fn evidence_digest(&self) -> Digest {
        self.evidence_digest
    }

    /// The binding that was signed.
    pub const fn binding(&self) -> &Binding {
        &self.binding
    }

    /// The posture that was signed.
    pub const fn posture(&self) -> &Posture {
        &self.posture
    }

    /// What the device claims: the CPU TEE, or the TPM where there is none.
    pub const fn device(&self) -> &DeviceClaims {
        &self.device
    }

    /// What the TPM claims, alone or beside a CPU TEE.
    pub fn tpm(&self) -> Option<&TpmClaims> {
        match &self.device {
            DeviceClaims::Tpm(claims) => Some(claims),
            DeviceClaims::SoftwareTee(_) | DeviceClaims::SevSnp(_) | DeviceClaims::Tdx(_) | DeviceClaims::Sgx(_) => {
                self.tpm_beside.as_deref()
            }
        }
    }

    /// What GPUs claim.
    pub fn gpus(&self) -> Option<&GpuClaims> {
        self.gpus.as_deref()
    }

    /// What stands behind the chains: simulated if any of them is, with the first root in the order device, TPM, GPUs.
    pub const fn provenance(&self) -> Provenance {
        self.provenance
    }

    /// What stands behind each chain.
    pub(crate) fn provenances(&self) -> impl Iterator<Item = Provenance> {
        let beside = self.tpm_beside.iter().map(|claims| claims.provenance());
        let gpus = self.gpus.iter().flat_map(|claims| claims.provenances());
        [self.device.provenance()].into_iter().chain(beside).chain(gpus)
    }

    /// Whether nothing happened to the devices since `earlier` evidence of the same run: the same chip; and of a TPM the same key, no reset or
    /// restart, a clock that went on, no register changed but [`CHANGING_REGISTERS`], no further IMA violation. Keys, boot and posture are expectations of verification itself.
    ///
    /// # Errors
    /// The first that does not hold: `tpm.*` of `specs/hardware.md`, "Continuity"; `evidence.device`, `evidence.tpm-gone`, `ima.violations`.
    pub fn continues(&self, earlier: &Self) -> Result<(), Refusal> {
        let remedy = "run the task again on a machine that is left alone meanwhile";
        let refuse = |check: Cow<'static, str>, reason: &str| Err(Refusal::new(Party::Node, check, reason, remedy));
        if self.device.kind() != earlier.device.kind() || self.device.chip() != earlier.device.chip() {
            return refuse("evidence.device".into(), "another device signed than before the run");
        }
        let (Some(before), Some(after)) = (earlier.tpm(), self.tpm()) else {
            return match earlier.tpm() {
                None => Ok(()),
                Some(_) => refuse("evidence.tpm-gone".into(), "the TPM took no part any more after the run"),
            };
        };
        let banks = [HashAlg::Sha1, HashAlg::Sha256, HashAlg::Sha384, HashAlg::Sha512];
        let free: Vec<(HashAlg, PcrIndex)> = banks
            .into_iter()
            .flat_map(|bank| {
                CHANGING_REGISTERS.into_iter().filter_map(move |index| Some((bank, PcrIndex::new(index)?)))
            })
            .collect();
        let checks = continuity(before.quote(), after.quote(), &free);
        if let Some(broken) = checks.as_slice().iter().find(|check| check.verdict != starminer_hardware::Verdict::Pass)
        {
            return refuse(broken.name.clone(), &broken.reason);
        }
        let violations = |claims: &TpmClaims| claims.ima().map_or(0, crate::parts::ImaClaims::violations);
        if violations(after) > violations(before) {
            return refuse(
                "ima.violations".into(),
                "IMA saw a file change while it was measured or open, during the run",
            );
        }
        Ok(())
    }

    /// The `now` that it was verified at.
    pub const fn verified_at(&self) -> UnixTime {
        self.verified_at
    }

    /// When the challenge was issued that the verifier expected.
    pub const fn challenge_issued_at(&self) -> UnixTime {
        self.challenge_issued_at
    }

    /// Whether [`verify`] with the same expectations, anchors and endorsements would accept the same evidence at another time. Of all its
    /// checks only those of dates depend on the time (certificates, revocation lists, TCB data); signatures that were verified once are
    /// not verified again.
    pub fn check_at(&self, now: UnixTime) -> Result<(), Refusal> {
        if let DeviceClaims::SoftwareTee(claims) = &self.device {
            claims.check_dates(now)?;
        }
        self.windows.iter().try_for_each(|window| window.check(now))
    }
}

/// Whether evidence is bound to what is expected, and nothing more: no signature is looked at, and no claim can be read. For a task process,
/// which asks whether the evidence that its releaser verified names its own keys.
///
/// # Errors
/// The first field that is another one.
pub fn is_bound_to(evidence: &Evidence, expected: &Expected) -> Result<(), Refusal> {
    binding_checks(&evidence.binding, expected).map(drop)
}

const REMEDY_BINDING: &str = "make new evidence for this very network, challenge, task and attempt";

/// Checks evidence against what is expected of it, down to a trusted root. The first thing that does not hold refuses.
pub fn verify(evidence: Evidence, context: &Context<'_>) -> Result<Verified, Refusal> {
    let mut checks = binding_checks(&evidence.binding, &context.expected)?;

    if evidence.posture.digest() != evidence.binding.posture {
        return Err(Refusal::new(
            Party::Node,
            "evidence.posture",
            "the posture is not the one that the binding names",
            "send the posture that was signed",
        ));
    }
    checks.push(Check::pass("evidence.posture", "the posture is the one that was signed"));

    // A TPM's key has no business in a binding that no TPM vouches for, and a TPM none in evidence that does not name its key.
    let has_tpm = evidence.parts.iter().any(|part| part.kind == EvidenceKind::Tpm);
    let ak_name = match (evidence.binding.ak_name.is_some(), has_tpm) {
        (true, false) => Some((
            "the binding names a TPM key and no TPM takes part",
            "send the TPM's part too, or leave its key out of the binding",
        )),
        (false, true) => Some((
            "a TPM takes part and the binding does not name its key",
            "name the key that quotes in the binding, or leave the TPM's part out",
        )),
        (true, true) | (false, false) => None,
    };
    if let Some((reason, remedy)) = ak_name {
        return Err(Refusal::new(Party::Node, "evidence.ak-name", reason, remedy));
    }

    let report_data = report_data_for(&evidence.binding.digest(), &evidence.path).ok_or_else(|| {
        Refusal::new(Party::Node, "evidence.path-too-long", "the batch path is too long", "sign smaller batches")
    })?;
    let Devices { device, tpm, gpus, windows } =
        verify_parts(&evidence.parts, &report_data, &evidence.binding, context, &mut checks)?;
    let facility = facility_of(&device, &evidence.binding, context);

    let mut verified = Verified {
        evidence_digest: evidence.digest(),
        endorsements_digest: context.endorsements.digest(),
        provenance: device.provenance(),
        binding: evidence.binding,
        posture: evidence.posture,
        device,
        tpm_beside: tpm,
        gpus,
        facility,
        windows,
        verified_at: context.now,
        challenge_issued_at: context.expected.challenge_issued_at,
        checks,
    };
    let simulated = verified.provenances().find(|provenance| matches!(provenance, Provenance::Simulated { .. }));
    verified.provenance = simulated.unwrap_or(Provenance::Genuine);
    Ok(verified)
}

/// The credential of the facility that the chip stands in, if the caller gave one that counts.
fn facility_of(device: &DeviceClaims, binding: &Binding, context: &Context<'_>) -> Option<FacilityCredential> {
    let chip = device.chip()?;
    let counts = |one: &&FacilityCredential| {
        one.network == binding.network
            && one.chip == chip
            && one.not_before <= context.now
            && context.now < one.not_after
    };
    context.enrolments.facilities.iter().find(counts).cloned()
}

fn binding_checks(binding: &Binding, expected: &Expected) -> Result<Vec<Check>, Refusal> {
    let purpose = &expected.purpose;
    let exact = [
        ("evidence.network", binding.network == expected.network),
        ("evidence.purpose", binding.purpose == purpose.purpose()),
        ("evidence.challenge", binding.challenge == expected.challenge),
        ("evidence.spec", binding.spec == purpose.spec()),
        ("evidence.node", binding.node == expected.node),
        ("evidence.attempt", binding.attempt == purpose.attempt()),
        ("evidence.subject", binding.subject == purpose.subject()),
    ];
    let mut checks = Vec::with_capacity(24);
    for (name, holds) in exact {
        if !holds {
            return Err(not_as_expected(name));
        }
        checks.push(Check::pass(name, "as expected"));
    }
    checks.push(expect("evidence.boot", Some(&binding.boot), &expected.boot)?);
    checks.push(expect("evidence.task-key", binding.task_key.as_ref(), &expected.task_key)?);
    checks.push(expect("evidence.report-key", binding.report_key.as_ref(), &expected.report_key)?);
    checks.push(expect("evidence.agent-key", Some(&binding.agent_key), &expected.agent_key)?);
    checks.push(expect("evidence.tls-key", Some(&binding.tls_key), &expected.tls_key)?);
    checks.push(expect("evidence.posture-digest", Some(&binding.posture), &expected.posture)?);
    Ok(checks)
}

fn expect<T: PartialEq>(name: &'static str, found: Option<&T>, expected: &Expect<T>) -> Result<Check, Refusal> {
    match expected {
        Expect::Exactly(wanted) if found == Some(wanted) => Ok(Check::pass(name, "as expected")),
        Expect::Exactly(_) => Err(not_as_expected(name)),
        Expect::Any => Ok(Check {
            name: name.into(),
            verdict: Verdict::NotChecked,
            weight: Weight::Informative,
            reason: "any value was accepted: the verifier could not know it beforehand".into(),
            party: Party::Verifier,
            remedy: "expect an exact value".into(),
        }),
    }
}

fn not_as_expected(name: &'static str) -> Refusal {
    let field = name.trim_start_matches("evidence.");
    Refusal::new(
        Party::Node,
        name,
        format!("the evidence is bound to another {field} than the one expected"),
        REMEDY_BINDING,
    )
}
