//! Admission of nodes: a challenge, evidence, and the coordinator's own appraisal.
//!
//! What it reaches decides routing and nothing else. No key is released for it: each releaser appraises evidence of its own for each
//! attempt.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use starminer_receipt::NetworkTrust;
use starminer_verify::{
    Challenge, Context, Digest, Endorsements, Enrolments, Evidence, Expect, Expected, ExpectedPurpose, MinimumPosture,
    MinimumTcb, NodeId, OperatorMayReadMemory, POLICY_VERSION, Party, Policy, PolicyFields, Provenance, PublicKey,
    Tier, TrustAnchors, UnixTime, appraise, verify,
};
use starminer_wire::{AdmissionChallenge, ProblemStatus};

use crate::refused::Refused;
use crate::tasks::Standing;

/// How long a challenge is taken.
const CHALLENGE_MS: u64 = 60_000;
/// Most challenges that wait at a time; the oldest give way.
const CHALLENGES_BOUND: usize = 4_096;

/// What admission trusts, and the challenges that wait.
#[derive(Debug)]
pub struct Admission {
    trust: NetworkTrust,
    anchors: TrustAnchors,
    policy: Policy,
    valid_ms: u64,
    waiting: Mutex<HashMap<PublicKey, AdmissionWait>>,
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
    /// Appraises by the network's own trust. Admissions count for `valid_ms`.
    ///
    /// # Errors
    /// [`AdmissionSetupError`].
    pub fn new(trust: NetworkTrust, valid_ms: u64) -> Result<Self, AdmissionSetupError> {
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
            hardware: None,
        })?;
        Ok(Self { trust, anchors, policy, valid_ms, waiting: Mutex::default() })
    }

    /// Issues a challenge; an earlier one of the same identity is void.
    pub fn challenge(&self, node: PublicKey, random: [u8; 32], now: UnixTime) -> AdmissionChallenge {
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

    /// Appraises the answer to the identity's challenge. The challenge is consumed.
    ///
    /// # Errors
    /// `admission.challenge`, or what verification refuses.
    pub fn appraise(&self, node: PublicKey, evidence: &[u8], now: UnixTime) -> Result<(Digest, Standing), Refused> {
        let wait = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&node);
        let wait = wait.filter(|wait| now < wait.issued_at.saturating_add_millis(CHALLENGE_MS)).ok_or_else(|| {
            Refused::of(
                ProblemStatus::Conflict,
                Party::Node,
                "admission.challenge",
                "no challenge of this identity is waiting, or it expired",
                "ask for a challenge and answer it at once",
            )
        })?;
        let refused = |refusal| Refused::new(ProblemStatus::Refused, refusal);
        let digest = Digest::of(evidence);
        let evidence = Evidence::parse(evidence).map_err(|error| refused(error.into()))?;
        let endorsements = Endorsements::none();
        let context = Context {
            expected: Expected {
                network: self.trust.network,
                challenge: wait.challenge,
                challenge_issued_at: wait.issued_at,
                purpose: ExpectedPurpose::Admission,
                node: NodeId(node),
                boot: Expect::Any,
                task_key: Expect::Any,
                report_key: Expect::Any,
                agent_key: Expect::Any,
                // The node may have reconnected between challenge and answer; its identity key is what admission is about.
                tls_key: Expect::Any,
                posture: Expect::Any,
            },
            endorsements: &endorsements,
            trust_anchors: &self.anchors,
            enrolments: &Enrolments::none(),
            now,
        };
        let verified = verify(evidence, &context).map_err(refused)?;
        let result = appraise(&verified, &self.trust.reference_values, &self.policy);
        let simulated_root = match result.provenance() {
            Provenance::Genuine => None,
            Provenance::Simulated { root } => Some(root),
        };
        Ok((
            digest,
            Standing { tier: result.tier(), simulated_root, valid_until: now.saturating_add_millis(self.valid_ms) },
        ))
    }
}
