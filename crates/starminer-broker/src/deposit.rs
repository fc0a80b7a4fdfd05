//! Deposits: a task secret left with an attested broker, so that its owner may go offline.
//!
//! The requester verifies the broker's own evidence before it seals anything: purpose `broker`, its own fresh challenge, the
//! broker's sealing key as task key and its signing key as report key. A broker on a software TEE has new keys at every start, so what was
//! sealed to an earlier one does not open and ends as `broker.restarted`.

use starminer_receipt::{DEPOSIT_INFO, KemPrivateKey, SealError, SealedSecret, TaskSpec};
use starminer_vault::TaskSecret;
use starminer_verify::{
    AttestationResult, Challenge, Context, Decision as Appraised, Digest, Evidence, Expect, Expected, ExpectedPurpose,
    NetworkId, NodeId, Party, Policy, PublicKey, ReferenceValues, Refusal, UnixTime, Verified, appraise, verify,
};
use zeroize::Zeroizing;

use crate::trust::ReleaserTrust;

/// Why a deposit does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DepositError {
    /// It was sealed to keys that this broker no longer has.
    #[error("the deposit was sealed to the keys of an earlier start of this broker")]
    Restarted,
    /// It does not open for this spec.
    #[error("the deposit does not open for this spec")]
    DoesNotOpen(#[source] SealError),
}

impl DepositError {
    /// The refusal that the task ends with.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Restarted => Refusal::new(
                Party::Releaser,
                "broker.restarted",
                "the broker restarted and its keys are gone",
                "submit the task again: the secret is sealed to the broker's new keys",
            ),
            Self::DoesNotOpen(_) => Refusal::new(
                Party::Requester,
                "broker.deposit-unusable",
                "the deposited secret does not open for this spec",
                "submit the task again with a deposit sealed for its spec",
            ),
        }
    }
}

/// Verifies and appraises a broker's evidence: only its result gives the key to seal to.
///
/// # Errors
/// Every reason for which the broker is not to be trusted with a secret.
#[allow(clippy::too_many_arguments)] // each is a separate trust decision of the caller; a struct would only rename them
pub fn verify_broker_evidence(
    evidence: &[u8],
    network: NetworkId,
    broker: PublicKey,
    (challenge, challenge_issued_at): (Challenge, UnixTime),
    trust: &ReleaserTrust,
    reference_values: &ReferenceValues,
    policy: &Policy,
    now: UnixTime,
) -> Result<(Verified, AttestationResult), Vec<Refusal>> {
    let evidence = Evidence::parse(evidence).map_err(|error| vec![Refusal::from(error)])?;
    let expected = Expected {
        network,
        challenge,
        challenge_issued_at,
        purpose: ExpectedPurpose::Broker,
        node: NodeId(broker),
        boot: Expect::Any,
        task_key: Expect::Any,
        report_key: Expect::Exactly(broker),
        agent_key: Expect::Any,
        tls_key: Expect::Any,
        posture: Expect::Any,
    };
    let context = Context {
        expected,
        endorsements: &trust.endorsements,
        trust_anchors: &trust.anchors,
        enrolments: &trust.enrolments,
        now,
    };
    let verified = verify(evidence, &context).map_err(|refusal| vec![refusal])?;
    let result = appraise(&verified, reference_values, policy);
    match result.decision() {
        Appraised::Meets => Ok((verified, result)),
        Appraised::Fails(reasons) => Err(reasons),
    }
}

/// Seals a task secret to a broker whose evidence was verified. `randomness` must be fresh from a cryptographic source.
///
/// # Errors
/// The broker's key is not a key of the suite.
pub fn seal_deposit(
    broker: &Verified,
    spec: &Digest,
    secret: &TaskSecret,
    randomness: &Zeroizing<[u8; 64]>,
) -> Result<SealedSecret, SealError> {
    let key = broker.binding().task_key.as_ref().ok_or(SealError::BadRecipient)?;
    SealedSecret::seal(key.as_bytes(), DEPOSIT_INFO, spec.as_bytes(), secret.expose().as_slice(), randomness)
}

/// Opens a deposit inside the broker. `own_evidence` tells whether a digest is of evidence that this start of the broker gave.
///
/// # Errors
/// [`DepositError`].
pub fn open_deposit(
    sealed: &SealedSecret,
    broker_evidence: &Digest,
    own_evidence: impl Fn(&Digest) -> bool,
    spec: &starminer_receipt::Signed<TaskSpec>,
    key: &KemPrivateKey,
) -> Result<TaskSecret, DepositError> {
    if !own_evidence(broker_evidence) {
        return Err(DepositError::Restarted);
    }
    let opened = sealed.open(key, DEPOSIT_INFO, spec.digest().as_bytes()).map_err(DepositError::DoesNotOpen)?;
    let bytes: [u8; 32] = opened.as_slice().try_into().map_err(|_| DepositError::DoesNotOpen(SealError::Malformed))?;
    Ok(TaskSecret::from_bytes(bytes))
}
