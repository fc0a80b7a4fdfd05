//! Admission of nodes: a challenge, evidence, and the coordinator's own appraisal. It is asked for again and again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use starminer_receipt::{
    EndorsementSet, Enrollers, EnrolmentStatement, Envelope, FacilityStatement, NetworkTrust, Signed, Statement as _,
};
use starminer_verify::{
    Challenge, Check, Context, Digest, Evidence, Expect, Expected, ExpectedPurpose, HardwarePolicy, HostMeasure, Kept,
    MinimumPosture, MinimumTcb, NodeId, OperatorMayReadMemory, Outlook, POLICY_VERSION, Party, Policy, PolicyFields,
    Provenance, PublicKey, ReferenceValues, Refusal, Tier, TrustAnchors, UnixTime, Verdict, Verified, appraise,
    forecast, missing_posture, verify,
};
use starminer_wire::{
    AdmissionChallenge, AdmissionRequest, EnrolmentChallenge, EnrolmentRequest, MAX_ENROLMENTS, NodeForecast,
    ProblemStatus,
};

use super::endorsing::Endorsing;
use super::enrolment::{Credentials, NoCredential};
use super::watch::{NodeState, Watch};
use crate::clock::{Now, Randomness};
use crate::refused::Refused;
use crate::shared::IdentitySigner;
use crate::tasks::{Standing, TpmCounters};

/// How long a challenge is taken.
const CHALLENGE_MS: u64 = 60_000;
/// Most challenges that wait at a time; the oldest give way.
const CHALLENGES_BOUND: usize = 4_096;

/// What admission trusts, and the challenges that wait.
#[derive(Debug)]
pub(crate) struct Admission {
    trust: NetworkTrust,
    anchors: TrustAnchors,
    policy: Policy,
    required_posture: Vec<HostMeasure>,
    valid_ms: u64,
    signer: IdentitySigner,
    endorsing: Endorsing,
    waiting: Mutex<HashMap<PublicKey, AdmissionWait>>,
    credentials: Credentials,
    watch: Watch,
}

/// A node that was admitted, before anything of it is durable.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// SHA-256 of the evidence.
    pub(crate) evidence: Digest,
    /// What it reached.
    pub(crate) standing: Standing,
    /// What happened since the evidence before, where that ends the node's leases.
    pub(crate) change: Option<Refusal>,
    /// When this evidence will not be enough any more, for whoever provides the node.
    pub(crate) forecast: Option<NodeForecast>,
    /// Why it does not run what reference values name.
    pub(crate) unmatched: Option<String>,
    /// The enrolment that came of it.
    pub(crate) enrolment: Option<Signed<EnrolmentStatement>>,
    /// What the next evidence is compared with.
    pub(crate) state: NodeState,
}

#[derive(Debug, Clone, Copy)]
struct AdmissionWait {
    challenge: Challenge,
    issued_at: UnixTime,
}

/// Why the trust file cannot be used for admission.
#[derive(Debug, thiserror::Error)]
pub enum AdmissionSetupError {
    /// Too many simulated roots.
    #[error("the trust file names too many simulated roots")]
    TooManyRoots,
    /// The roots do not make a policy.
    #[error("the trust file's simulated roots do not make a policy")]
    Policy(#[from] starminer_verify::PolicyError),
}

impl Admission {
    /// Appraises by the network's own trust, and admits nobody without the posture that is asked for. Admissions count for `valid_ms`.
    ///
    /// # Errors
    /// [`AdmissionSetupError`].
    pub(crate) fn new(
        trust: NetworkTrust,
        hardware: Option<HardwarePolicy>,
        required_posture: Vec<HostMeasure>,
        valid_ms: u64,
        signer: IdentitySigner,
        endorsing: Endorsing,
    ) -> Result<Self, AdmissionSetupError> {
        let roots: Vec<_> = trust.simulated_roots.iter().map(|entry| entry.root).collect();
        let anchors = TrustAnchors::makers()
            .with_simulated_roots(roots.iter().copied())
            .map_err(|_| AdmissionSetupError::TooManyRoots)?;
        // Demands nothing: the tier that is reached is all that is asked for, and tasks bring their own policies.
        let policy = Policy::new(PolicyFields {
            version: POLICY_VERSION,
            minimum_tier: Tier::None,
            operator_may_read_memory: OperatorMayReadMemory::Yes,
            accepted_simulated_roots: roots,
            evidence_max_age_ms: CHALLENGE_MS,
            minimum_tcb: MinimumTcb { software_tee: 0 },
            minimum_posture: MinimumPosture::default(),
            hardware: hardware.map(Box::new),
        })?;
        Ok(Self {
            trust,
            anchors,
            policy,
            required_posture,
            valid_ms,
            signer,
            endorsing,
            waiting: Mutex::default(),
            credentials: Credentials::default(),
            watch: Watch::default(),
        })
    }

    /// Issues a challenge; an earlier one of the same identity is void.
    pub(crate) fn challenge(&self, node: PublicKey, random: [u8; 32], now: UnixTime) -> AdmissionChallenge {
        let challenge = Challenge(random);
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= CHALLENGES_BOUND && !waiting.contains_key(&node) {
            let oldest = waiting.iter().min_by_key(|(_, wait)| wait.issued_at).map(|(key, _)| *key);
            if let Some(oldest) = oldest {
                waiting.remove(&oldest);
            }
        }
        waiting.insert(node, AdmissionWait { challenge, issued_at: now });
        AdmissionChallenge { challenge, expires_at: now.saturating_add_millis(CHALLENGE_MS) }
    }

    /// Takes a node's TPM into enrolment.
    ///
    /// # Errors
    /// The offer does not hold.
    pub(crate) fn enrol(
        &self,
        node: PublicKey,
        request: &EnrolmentRequest,
        randomness: &dyn Randomness,
        now: UnixTime,
    ) -> Result<EnrolmentChallenge, Refused> {
        // Authorities between the key and its maker's root come with the offer, or were fetched for evidence of such a TPM before.
        let endorsements = self.endorsing.of_tpm(&request.certificates, now).map_err(refused)?;
        let trusted = (&endorsements, &self.anchors);
        self.credentials.make(node, request, trusted, randomness, now).map_err(|error| match error {
            NoCredential::Refused(refusal) => refused(refusal),
            NoCredential::Randomness(error) => {
                tracing::error!(%error, "no credential can be made");
                Refused::internal()
            }
        })
    }

    /// The endorsements and enrolments for evidence of an attempt, to be handed on with it; read by nobody here.
    ///
    /// # Errors
    /// More endorsements than evidence can need.
    pub(crate) fn beside(
        &self,
        evidence: &Evidence,
        enrolments: Vec<Envelope>,
        now: UnixTime,
    ) -> Result<Option<Vec<u8>>, Refused> {
        let set = self.set(evidence, enrolments, now).map_err(refused)?;
        Ok(set.map(|set| set.encode()))
    }

    fn set(
        &self,
        evidence: &Evidence,
        statements: Vec<Envelope>,
        now: UnixTime,
    ) -> Result<Option<EndorsementSet>, Refusal> {
        if statements.len() > MAX_ENROLMENTS {
            let reason = format!("more than {MAX_ENROLMENTS} statements come with the evidence");
            return Err(Refusal::new(Party::Node, "enrolment.too-many", reason, "send those of this node alone"));
        }
        let (mut enrolments, mut facilities) = (Vec::new(), Vec::new());
        for statement in statements {
            match statement.payload_type() {
                EnrolmentStatement::PAYLOAD_TYPE => enrolments.push(statement),
                FacilityStatement::PAYLOAD_TYPE => facilities.push(statement),
                _ => {
                    let reason = "a statement beside the evidence is neither an enrolment nor a facility's";
                    return Err(Refusal::new(Party::Node, "enrolment.kind", reason, "send enrolments of this node"));
                }
            }
        }
        Ok(EndorsementSet::new(self.endorsing.select(evidence, now)?.files, enrolments, facilities))
    }

    /// Appraises the answer to the identity's challenge by these values, and compares it with the evidence before. The challenge is
    /// consumed.
    ///
    /// # Errors
    /// `admission.challenge`, or what verification refuses.
    pub(crate) fn appraise(
        &self,
        node: PublicKey,
        request: AdmissionRequest,
        reference_values: &ReferenceValues,
        now: Now,
    ) -> Result<Outcome, Refused> {
        let wait = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&node);
        let wait =
            wait.filter(|wait| now.wall < wait.issued_at.saturating_add_millis(CHALLENGE_MS)).ok_or_else(|| {
                Refused::of(
                    ProblemStatus::Conflict,
                    Party::Node,
                    "admission.challenge",
                    "no challenge of this identity is waiting, or it expired",
                    "ask for a challenge and answer it at once",
                )
            })?;
        self.judge(NodeId(node), wait, request, reference_values, now).map_err(refused)
    }

    fn judge(
        &self,
        node: NodeId,
        wait: AdmissionWait,
        request: AdmissionRequest,
        reference_values: &ReferenceValues,
        now: Now,
    ) -> Result<Outcome, Refusal> {
        let bytes = request.evidence.0;
        let digest = Digest::of(&bytes);
        let AdmissionRequest { enrolments, activation, .. } =
            AdmissionRequest { evidence: Vec::new().into(), ..request };
        let evidence = Evidence::parse(&bytes)?;
        let mut statements = enrolments;
        let mut verified = self.verify(&evidence, node, wait, statements.clone(), now.wall)?;
        let mut enrolment = None;
        if let Some(answer) = activation {
            let activated = self.credentials.take(node.0, &answer.0, now.wall)?;
            let statement =
                activated.statement(self.trust.network, node, &verified, self.trust.coordinator.key, now.wall)?;
            let signed = Envelope::sign(statement, &self.signer).map_err(|error| internal(&error))?;
            statements.push(signed.envelope().clone());
            verified = self.verify(&evidence, node, wait, statements, now.wall)?;
            enrolment = Some(signed);
        } else if verified.tpm().is_some_and(|tpm| tpm.enrolment().is_none()) {
            return Err(Refusal::new(
                Party::Node,
                "enrolment.unknown",
                "no enrolment that counts in this network names the TPM's key",
                "offer the TPM at /v1/node/enrolment, and answer its credential with the next evidence",
            ));
        }
        let result = appraise(&verified, reference_values, &self.policy);
        if let Some(check) = result.checks().iter().find(|check| ALWAYS.contains(&check.name()) && is_broken(check)) {
            return Err(Refusal::new(
                Party::Node,
                check.name().to_owned(),
                check.reason(),
                "run the node on another chip",
            ));
        }
        // Otherwise nobody would be told why a node reaches less than its operator thinks: its policy demands nothing.
        let broken = result.checks().iter().find(|check| check.name() == MEASUREMENT && is_broken(check));
        let unmatched = broken.map(|check| check.reason().to_owned());
        if let Some(why) = &unmatched {
            tracing::info!(%node, tier = result.tier().name(), "{why}");
        }
        let state = NodeState::of(&verified);
        if let Some(rolled_back) = self.watch.rolled_back(&node, &state) {
            return Err(rolled_back);
        }
        if let Some(fallen) = self.watch.fallen(&node, &state) {
            return Err(fallen);
        }
        if let Some(missing) = missing_posture(&state.not_in_force(self.required_posture.iter().copied())) {
            return Err(missing);
        }
        let simulated_root = match result.provenance() {
            Provenance::Genuine => None,
            Provenance::Simulated { root } => Some(root),
        };
        Ok(Outcome {
            evidence: digest,
            standing: Standing {
                tier: result.tier(),
                simulated_root,
                admitted_at: now.wall,
                valid_until: now.wall.saturating_add_millis(self.valid_ms),
                valid_until_ms: now.mono_ms.saturating_add(self.valid_ms),
                tpm: self.watch.counters(&node, &state),
                rollback_said: false,
            },
            forecast: self.forecast(&evidence, &verified, reference_values, now.wall)?,
            unmatched,
            change: self.watch.change(&node, &state),
            enrolment,
            state,
        })
    }

    fn forecast(
        &self,
        evidence: &Evidence,
        verified: &Verified,
        reference_values: &ReferenceValues,
        now: UnixTime,
    ) -> Result<Option<NodeForecast>, Refusal> {
        let (selection, snapshot) = self.endorsing.kept(evidence, now)?;
        let outlook = Outlook {
            reference_values,
            policy: &self.policy,
            announced: &[],
            kept: Some(Kept { selection: &selection, snapshot: &snapshot, ages: self.endorsing.ages() }),
        };
        let forecast = forecast(verified, &outlook);
        Ok(forecast.first_for_provider().map(|ending| NodeForecast {
            at: UnixTime(ending.at_s.saturating_mul(1000)),
            reason: format!("{}; {}", ending.reason, ending.remedy),
        }))
    }

    fn verify(
        &self,
        evidence: &Evidence,
        node: NodeId,
        wait: AdmissionWait,
        statements: Vec<Envelope>,
        now: UnixTime,
    ) -> Result<Verified, Refusal> {
        let opened = match self.set(evidence, statements, now)? {
            None => starminer_receipt::OpenedSet::empty(),
            Some(set) => {
                let counts = Enrollers { enrollers: &self.trust.enrollers, facilities: &self.trust.facilities };
                set.open(self.trust.network, counts)?
            }
        };
        let context = Context {
            expected: Expected {
                network: self.trust.network,
                challenge: wait.challenge,
                challenge_issued_at: wait.issued_at,
                purpose: ExpectedPurpose::Admission,
                node,
                boot: Expect::Any,
                task_key: Expect::Any,
                report_key: Expect::Any,
                agent_key: Expect::Any,
                // The node may have reconnected between challenge and answer; its identity key is what admission is about.
                tls_key: Expect::Any,
                posture: Expect::Any,
            },
            endorsements: &opened.endorsements,
            trust_anchors: &self.anchors,
            enrolments: &opened.enrolments,
            now,
        };
        verify(evidence.clone(), &context)
    }

    /// Takes up how far the TPM of a node was when an earlier start of the coordinator saw it.
    pub(crate) fn restore(&self, node: NodeId, counters: Vec<TpmCounters>) {
        self.watch.restore(node, counters);
    }

    /// What the next evidence of this node is compared with, once this one was acted upon.
    pub(crate) fn keep(&self, node: NodeId, state: NodeState) {
        if self.watch.keep(node, state) {
            tracing::warn!(%node, "two processes run with this node's identity, and take turns in being admitted: stop one of them");
        }
    }

    /// What fetches endorsements, to be run beside.
    pub(crate) fn prefetcher(&self) -> Option<starminer_endorsements::Prefetcher> {
        self.endorsing.prefetcher()
    }
}

/// Checks that refuse a node whatever tier it reaches.
const ALWAYS: [&str; 2] = ["device.chip", "gpu.chip"];
/// The check of what the node runs.
const MEASUREMENT: &str = "device.measurement";

fn is_broken(check: &Check) -> bool {
    check.verdict() == Verdict::Fail
}

fn refused(refusal: Refusal) -> Refused {
    Refused::new(ProblemStatus::Refused, refusal)
}

fn internal(error: &dyn std::error::Error) -> Refusal {
    tracing::error!(%error, "an enrolment cannot be signed");
    Refusal::new(Party::Coordinator, "coordinator.failed", "an enrolment cannot be signed", "tell its operator")
}
