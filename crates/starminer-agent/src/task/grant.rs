//! What has to hold before a task process opens anything (`specs/node.md`, section "Before anything is opened").
//!
//! Pure: statements in, a task secret or a refusal out; no clock (evidence is judged at the releaser's own time of the
//! grant) and nothing consumed by a refusal. The releaser has appraised the evidence already; this process makes sure that
//! it was *its* evidence, with *its* keys, that the grant was given for.

use starminer_receipt::{
    ChallengeStatement, Envelope, GRANT_INFO, Grant, KemPrivateKey, Lease, LeastCheckpoint, Signed, TaskSpec,
};
use starminer_vault::TaskSecret;
use starminer_verify::{
    Digest, Evidence, Expect, Expected, ExpectedPurpose, Party, PublicKey, Refusal, TaskKey, is_bound_to,
};
use zeroize::Zeroizing;

use super::keys::secret_of;

const REMEDY_COORDINATOR: &str = "relay the statements of this very attempt, unchanged";
const REMEDY_RELEASER: &str = "grant for the spec, lease, evidence and policy of this very attempt";

/// Opens spec and lease and sees that they belong together.
///
/// # Errors
/// A statement that is not signed by whom it names, or a lease of another spec.
pub(crate) fn check_lease(spec: Envelope, lease: Envelope) -> Result<(Signed<TaskSpec>, Signed<Lease>), Refusal> {
    let spec: Signed<TaskSpec> = spec
        .open()
        .map_err(|error| refuse(Party::Requester, "task.spec", error, "sign the spec with the requester's key"))?;
    let lease: Signed<Lease> =
        lease.open().map_err(|error| refuse(Party::Coordinator, "task.lease", error, REMEDY_COORDINATOR))?;
    let rules = [
        ("lease.network", lease.network == spec.network),
        ("lease.task", lease.task == spec.task),
        ("lease.spec", lease.spec == spec.digest()),
        ("lease.attempt", lease.attempt.0 <= spec.max_attempts),
    ];
    match rules.into_iter().find(|(_, holds)| !holds) {
        None => Ok((spec, lease)),
        Some((check, _)) => {
            Err(refuse(Party::Coordinator, check, "the lease is not one of this spec", REMEDY_COORDINATOR))
        }
    }
}

/// One attempt, and the keys that this process made for it.
pub(crate) struct GrantContext<'a> {
    pub spec: &'a Signed<TaskSpec>,
    pub lease: &'a Signed<Lease>,
    pub task_key: &'a TaskKey,
    pub report_key: PublicKey,
}

/// A grant that holds, and what it opened.
pub(crate) struct Opened {
    /// The task secret.
    pub secret: TaskSecret,
    /// Digest of the grant.
    pub grant: Digest,
    /// SHA-256 of the evidence.
    pub evidence: Digest,
    /// The least checkpoint that may be gone on from.
    pub resume: Option<LeastCheckpoint>,
}

/// Checks a grant and opens the task secret with it. The cheap and the public come first; the secret is opened last.
///
/// # Errors
/// The first check that does not hold. Nothing has been consumed then.
pub(crate) fn open_grant(
    context: &GrantContext<'_>,
    kem: &KemPrivateKey,
    challenge: Envelope,
    evidence: &[u8],
    grant: Envelope,
) -> Result<Opened, Refusal> {
    let (spec, lease) = (context.spec, context.lease);
    let evidence_digest = Digest::of(evidence);
    let grant: Signed<Grant> =
        grant.open().map_err(|error| refuse(Party::Coordinator, "grant.envelope", error, REMEDY_COORDINATOR))?;
    if grant.releaser != spec.releaser {
        let reason = "signed by another key than the releaser that the spec names";
        return Err(refuse(Party::Coordinator, "grant.releaser", reason, REMEDY_COORDINATOR));
    }
    let rules = [
        ("grant.network", grant.network == spec.network),
        ("grant.task", grant.task == spec.task),
        ("grant.spec", grant.spec == spec.digest()),
        ("grant.lease", grant.lease == lease.digest()),
        ("grant.attempt", grant.attempt == lease.attempt),
        ("grant.policy", grant.policy == spec.policy.digest()),
        ("grant.evidence", grant.evidence == evidence_digest),
    ];
    if let Some((check, _)) = rules.into_iter().find(|(_, holds)| !holds) {
        return Err(refuse(
            Party::Releaser,
            check,
            "the grant is for something else than this attempt",
            REMEDY_RELEASER,
        ));
    }
    let challenge = check_challenge(spec, lease, challenge)?;
    check_evidence(context, &challenge, evidence)?;

    let aad = Grant::aad(&grant.spec, &grant.lease, grant.attempt, &grant.evidence, &grant.policy);
    let opened = grant.secret.open(kem, GRANT_INFO, aad.as_bytes()).map_err(|error| {
        refuse(Party::Releaser, "grant.secret", error, "seal the task secret to the attested task key")
    })?;
    let bytes: Zeroizing<[u8; 32]> = opened.as_slice().try_into().map(Zeroizing::new).map_err(|_| {
        refuse(
            Party::Releaser,
            "grant.secret-length",
            "the sealed secret is not 32 bytes",
            "seal the task secret itself",
        )
    })?;
    Ok(Opened { secret: secret_of(&bytes), grant: grant.digest(), evidence: evidence_digest, resume: grant.resume })
}

/// Opens a challenge and sees that it is the releaser's, for this attempt. The agent asks the same before it makes evidence.
///
/// # Errors
/// It is not.
pub(crate) fn check_challenge(
    spec: &Signed<TaskSpec>,
    lease: &Signed<Lease>,
    challenge: Envelope,
) -> Result<Signed<ChallengeStatement>, Refusal> {
    let challenge: Signed<ChallengeStatement> = challenge
        .open()
        .map_err(|error| refuse(Party::Coordinator, "challenge.envelope", error, REMEDY_COORDINATOR))?;
    let rules = [
        ("challenge.releaser", challenge.releaser == spec.releaser),
        ("challenge.network", challenge.network == spec.network),
        ("challenge.task", challenge.task == spec.task),
        ("challenge.attempt", challenge.attempt == lease.attempt),
        ("challenge.lease", challenge.lease == lease.digest()),
    ];
    match rules.into_iter().find(|(_, holds)| !holds) {
        None => Ok(challenge),
        Some((check, _)) => {
            let reason = "the challenge is not the releaser's for this attempt";
            Err(refuse(Party::Coordinator, check, reason, REMEDY_COORDINATOR))
        }
    }
}

/// The evidence that the grant names binds this attempt and the keys of this very process.
fn check_evidence(context: &GrantContext<'_>, challenge: &ChallengeStatement, evidence: &[u8]) -> Result<(), Refusal> {
    let (spec, lease) = (context.spec, context.lease);
    let evidence = Evidence::parse(evidence)?;
    let expected = Expected {
        network: spec.network,
        challenge: challenge.challenge,
        challenge_issued_at: challenge.issued_at,
        purpose: ExpectedPurpose::Task { spec: spec.digest(), attempt: lease.attempt },
        node: lease.node,
        boot: Expect::Any,
        task_key: Expect::Exactly(context.task_key.clone()),
        report_key: Expect::Exactly(context.report_key),
        agent_key: Expect::Any,
        tls_key: Expect::Any,
        posture: Expect::Any,
    };
    // Who signed it is the releaser's to judge, whose word on these very bytes the grant is: this process has neither a clock that anyone vouches
    // for, nor endorsements.
    is_bound_to(&evidence, &expected)
}

fn refuse(party: Party, check: &'static str, reason: impl ToString, remedy: &'static str) -> Refusal {
    Refusal::new(party, check, reason.to_string(), remedy)
}
