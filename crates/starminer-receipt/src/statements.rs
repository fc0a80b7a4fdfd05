//! The short statements between spec and report: lease, challenge, release, grant, denial, cancellation.

use serde::{Deserialize, Serialize};
use starminer_verify::{
    Attempt, Challenge, Digest, NetworkId, NodeId, PublicKey, Refusal, TaskId, UnixTime, tagged_hash,
};

use crate::dsse::Statement;
use crate::seal::SealedSecret;

/// A task given to a node for a while. Signed by the coordinator; a scheduling statement only, nobody releases a key for it alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// The network.
    pub network: NetworkId,
    /// The task.
    pub task: TaskId,
    /// Digest of its spec.
    pub spec: Digest,
    /// Who may run it.
    pub node: NodeId,
    /// The fencing token: a larger one ends this lease.
    pub attempt: Attempt,
    /// When it was given.
    pub issued_at: UnixTime,
    /// When it ends unless reported before.
    pub expires_at: UnixTime,
    /// Who gave it, and signs.
    pub coordinator: PublicKey,
}

impl Statement for Lease {
    const PAYLOAD_TYPE: &'static str = "application/vnd.starminer.lease.v1+json";
    fn signer(&self) -> PublicKey {
        self.coordinator
    }
    fn check(&self) -> Result<(), &'static str> {
        if self.attempt.0 == 0 { Err("attempts count from 1") } else { Ok(()) }
    }
}

/// A challenge for one attempt. Signed by the releaser; consumed by the grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChallengeStatement {
    /// The network.
    pub network: NetworkId,
    /// The task.
    pub task: TaskId,
    /// The attempt it is for.
    pub attempt: Attempt,
    /// Digest of the lease.
    pub lease: Digest,
    /// 32 random bytes.
    pub challenge: Challenge,
    /// When it was issued, by the releaser's clock.
    pub issued_at: UnixTime,
    /// Until when evidence for it is taken.
    pub expires_at: UnixTime,
    /// Who issued it, and signs.
    pub releaser: PublicKey,
}

impl Statement for ChallengeStatement {
    const PAYLOAD_TYPE: &'static str = "application/vnd.starminer.challenge.v1+json";
    fn signer(&self) -> PublicKey {
        self.releaser
    }
}

/// The releaser's word that it is about to release: it goes into the public log before the grant is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseStatement {
    /// The network.
    pub network: NetworkId,
    /// The task.
    pub task: TaskId,
    /// The attempt.
    pub attempt: Attempt,
    /// The node.
    pub node: NodeId,
    /// Digest of the spec.
    pub spec: Digest,
    /// Digest of the lease.
    pub lease: Digest,
    /// The challenge that the evidence answers.
    pub challenge: Challenge,
    /// When it was issued, by the releaser's clock.
    pub challenge_issued_at: UnixTime,
    /// Digest of the evidence.
    pub evidence: Digest,
    /// Digest of the policy.
    pub policy: Digest,
    /// Digest of the attestation result (EAR JSON bytes).
    pub attestation_result: Digest,
    /// SHA-256 of the task's public key that the secret will be sealed to.
    pub task_key: Digest,
    /// When it was decided, by the releaser's clock.
    pub decided_at: UnixTime,
    /// Who releases, and signs.
    pub releaser: PublicKey,
}

impl Statement for ReleaseStatement {
    const PAYLOAD_TYPE: &'static str = "application/vnd.starminer.release.v1+json";
    fn signer(&self) -> PublicKey {
        self.releaser
    }
}

/// What the codes begin with by which a task process refuses the checkpoint that its node has.
pub const CHECKPOINT_CODES: &str = "checkpoint.";

/// A checkpoint of a task's `/state`, as those name it who cannot open it (`specs/checkpoint.md`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointId {
    /// Its place in the order of all of its task's: the attempt in the upper 32 bits, its count in that attempt, from 1, in the lower.
    pub sequence: u64,
    /// SHA-256 of its superblock, which is ciphertext under a fresh key.
    pub digest: Digest,
}

impl CheckpointId {
    /// The attempt that made it.
    #[must_use]
    pub fn attempt(&self) -> Attempt {
        Attempt(u32::try_from(self.sequence >> 32).unwrap_or(u32::MAX))
    }

    /// Whether this one may stand where at least `least` is asked for: it is newer, or it is that very one.
    #[must_use]
    pub fn is_at_least(&self, least: &Self) -> bool {
        self.sequence > least.sequence || self == least
    }
}

/// A task process's word that a checkpoint is durable on its node. Signed with the report key that its evidence binds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointStatement {
    /// The network.
    pub network: NetworkId,
    /// The task.
    pub task: TaskId,
    /// Digest of its spec.
    pub spec: Digest,
    /// The attempt that made it.
    pub attempt: Attempt,
    /// Digest of the lease.
    pub lease: Digest,
    /// The node whose disk it is on.
    pub node: NodeId,
    /// Which.
    pub checkpoint: CheckpointId,
    /// The report key of the attempt, which signs.
    pub signer: PublicKey,
}

impl Statement for CheckpointStatement {
    const PAYLOAD_TYPE: &'static str = "application/vnd.starminer.checkpoint.v1+json";
    fn signer(&self) -> PublicKey {
        self.signer
    }
    fn check(&self) -> Result<(), &'static str> {
        let counts = self.checkpoint.attempt() == self.attempt && self.checkpoint.sequence & 0xffff_ffff > 0;
        if counts { Ok(()) } else { Err("the checkpoint's number is not one of its attempt") }
    }
}

/// The newest checkpoint that a releaser knows of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeastCheckpoint {
    /// Which.
    pub checkpoint: CheckpointId,
    /// Digest of its statement, which is in the log.
    pub statement: Digest,
    /// The node that made it: that one has to have it, and any other begins anew.
    pub node: NodeId,
}

/// The key of one task for one attempt. Signed by the releaser that the spec names; opens for the attested task key alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// The network.
    pub network: NetworkId,
    /// The task.
    pub task: TaskId,
    /// The attempt.
    pub attempt: Attempt,
    /// Digest of the spec.
    pub spec: Digest,
    /// Digest of the lease.
    pub lease: Digest,
    /// Digest of the evidence.
    pub evidence: Digest,
    /// Digest of the policy.
    pub policy: Digest,
    /// Digest of the release statement.
    pub release: Digest,
    /// Index of the release entry in the log.
    pub release_index: u64,
    /// The task secret, sealed to the task key with [`Grant::aad`].
    pub secret: SealedSecret,
    /// The least checkpoint that may be gone on from; absent where the releaser knows of none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<LeastCheckpoint>,
    /// When it was made, by the releaser's clock.
    pub issued_at: UnixTime,
    /// Who grants, and signs.
    pub releaser: PublicKey,
}

impl Statement for Grant {
    const PAYLOAD_TYPE: &'static str = "application/vnd.starminer.grant.v1+json";
    fn signer(&self) -> PublicKey {
        self.releaser
    }
    fn check(&self) -> Result<(), &'static str> {
        if self.secret.is_well_formed() { Ok(()) } else { Err("sealed secret is malformed") }
    }
}

impl Grant {
    /// Associated data of the sealed task secret: spec, lease, attempt, evidence and policy, so that a secret moved into
    /// another grant does not open.
    #[must_use]
    pub fn aad(spec: &Digest, lease: &Digest, attempt: Attempt, evidence: &Digest, policy: &Digest) -> Digest {
        tagged_hash(
            "grant-aad",
            &[spec.as_bytes(), lease.as_bytes(), &attempt.0.to_be_bytes(), evidence.as_bytes(), policy.as_bytes()],
        )
    }
}

/// The releaser's refusal of one attempt's evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DenyStatement {
    /// The network.
    pub network: NetworkId,
    /// The task.
    pub task: TaskId,
    /// The attempt.
    pub attempt: Attempt,
    /// Digest of the evidence that was refused; absent where none was wanted any more.
    pub evidence: Option<Digest>,
    /// Every reason, at least one, at most [`MAX_REASONS`](Self::MAX_REASONS).
    pub reasons: Vec<Refusal>,
    /// Whether another node may try.
    pub retry: bool,
    /// When it was decided, by the releaser's clock.
    pub decided_at: UnixTime,
    /// Who denies, and signs.
    pub releaser: PublicKey,
}

impl DenyStatement {
    /// Most reasons in one denial.
    pub const MAX_REASONS: usize = 32;
}

impl Statement for DenyStatement {
    const PAYLOAD_TYPE: &'static str = "application/vnd.starminer.denial.v1+json";
    fn signer(&self) -> PublicKey {
        self.releaser
    }
    fn check(&self) -> Result<(), &'static str> {
        if (1..=Self::MAX_REASONS).contains(&self.reasons.len()) { Ok(()) } else { Err("not 1 to 32 reasons") }
    }
}

/// The requester's word that a task shall end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CancelStatement {
    /// The network.
    pub network: NetworkId,
    /// The task.
    pub task: TaskId,
    /// Digest of its spec.
    pub spec: Digest,
    /// When, by the requester's clock.
    pub cancelled_at: UnixTime,
    /// Who cancels, and signs.
    pub requester: PublicKey,
}

impl Statement for CancelStatement {
    const PAYLOAD_TYPE: &'static str = "application/vnd.starminer.cancel.v1+json";
    fn signer(&self) -> PublicKey {
        self.requester
    }
}
