//! The task spec: what a requester asks for, signed by the requester.
//!
//! Nothing in it tells a plaintext: names, arguments and engine settings are in the sealed manifest, plaintext digests are
//! commitments keyed from the task secret. It names the evidence policy, the reference values and the releaser, so that a
//! receipt can be judged by what the requester itself demanded. Specification: `specs/task.md`.

use serde::{Deserialize, Serialize};
use starminer_verify::{Digest, NetworkId, Policy, PublicKey, ReferenceValues, TaskId, UnixTime};

use crate::dsse::{Base64Bytes, Statement};
use crate::endorsement_set::Enrollers;
use crate::job::MAX_MANIFEST_BYTES;
use crate::seal::KEM_PUBLIC_KEY_BYTES;

/// Most inputs that one task may have, the workload not counted.
pub const MAX_INPUTS: usize = 256;
/// Most enrollers, and most facilities, that a spec may name.
pub(crate) const MAX_ENROLLERS: usize = 16;
/// Most attempts that a spec may allow.
const MAX_ATTEMPTS: u32 = 100;
/// Longest wall-clock limit: a day.
const MAX_WALL_LIMIT_MS: u64 = 24 * 60 * 60 * 1000;

/// Most that `/state` may hold: all of it is read before a task goes on from it.
pub const MAX_STATE_BYTES: u64 = 1 << 30;

/// Why a spec is not acceptable, as the fixed text that [`Statement::check`] gives.
pub type SpecError = &'static str;

/// Which engine runs the workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EngineKind {
    /// A WASI component or core preview-1 module.
    Wasm,
    /// An ONNX model over a CSV.
    Onnx,
}

impl EngineKind {
    /// The name in specs and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Wasm => "wasm",
            Self::Onnx => "onnx",
        }
    }
}

/// Whether results must be equal bit for bit on any machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Determinism {
    /// NaN bits may differ between processors; everything else is repeatable.
    #[default]
    Native,
    /// NaNs are made canonical too.
    Portable,
}

/// What a wasm workload is given of the outside world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub struct WasmGrants {
    /// The host's clock instead of a constant.
    pub clock: bool,
    /// The host's randomness instead of a stream that follows from the spec.
    pub random: bool,
}

/// How sensitive a task is; decides its place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sensitivity {
    /// Nothing to hide.
    Public,
    /// Should not leak.
    Sensitive,
    /// Must not leak.
    Confidential,
}

/// Bounds of a run. Each is enforced by the sandbox and ends the run with a report that names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Fuel units of the wasm engine; other engines ignore it.
    pub fuel: u64,
    /// Guest memory.
    pub memory_bytes: u64,
    /// Time from grant to report.
    pub wall_limit_ms: u64,
    /// All outputs together, logs included.
    pub output_bytes: u64,
    /// Encrypted scratch space, outputs in progress included.
    pub scratch_bytes: u64,
    /// What `/state` may hold (`specs/checkpoint.md`). 0: the task has none, and begins anew with each attempt.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub state_bytes: u64,
}

// By reference, as serde calls it.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            fuel: 20_000_000_000,
            memory_bytes: 512 << 20,
            wall_limit_ms: 10 * 60 * 1000,
            output_bytes: 1 << 30,
            scratch_bytes: 8 << 30,
            state_bytes: 0,
        }
    }
}

/// A sealed object, as those name it who cannot read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectRef {
    /// BLAKE3 of the ciphertext.
    pub content_id: Digest,
    /// Length of the ciphertext.
    pub sealed_bytes: u64,
    /// Commitment to the SHA-256 of the plaintext, keyed from the task secret (outputs: from the output secret).
    pub commitment: Digest,
}

/// What a requester asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskSpec {
    /// 1.
    pub version: u32,
    /// The network it is meant for.
    pub network: NetworkId,
    /// Random, chosen by the requester.
    pub task: TaskId,
    /// Who asks, and signs.
    pub requester: PublicKey,
    /// When, by the requester's clock.
    pub created_at: UnixTime,
    /// After this nothing is released for it.
    pub expires_at: UnixTime,
    /// The engine.
    pub engine: EngineKind,
    /// Repeatability asked of the engine.
    pub determinism: Determinism,
    /// What the workload is given of the outside world.
    pub grants: WasmGrants,
    /// Bounds of the run.
    pub limits: Limits,
    /// Place in the queue.
    pub sensitivity: Sensitivity,
    /// The manifest ([`crate::JobManifest`]) as a vault object under the task secret.
    pub sealed_manifest: Base64Bytes,
    /// The program or model.
    pub workload: ObjectRef,
    /// The inputs, in the order in which the manifest names them.
    pub inputs: Vec<ObjectRef>,
    /// What evidence must meet before the key is released.
    pub policy: Policy,
    /// What the agent's measurement must be.
    pub reference_values: ReferenceValues,
    /// Whose word counts that a TPM was enrolled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub enrollers: Vec<PublicKey>,
    /// Whose word counts that a chip stands in a facility.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub facilities: Vec<PublicKey>,
    /// Who may release the task secret: the requester itself, or a broker's signing key.
    pub releaser: PublicKey,
    /// X-Wing public key that results are sealed to.
    pub result_key: Base64Bytes,
    /// How often it may be leased.
    pub max_attempts: u32,
}

impl Statement for TaskSpec {
    const PAYLOAD_TYPE: &'static str = "application/vnd.starminer.task-spec.v1+json";

    fn signer(&self) -> PublicKey {
        self.requester
    }

    fn check(&self) -> Result<(), &'static str> {
        let rules: [(bool, &'static str); 12] = [
            (self.version == 1, "version is not 1"),
            (self.inputs.len() <= MAX_INPUTS, "more than 256 inputs"),
            (self.enrollers.len() <= MAX_ENROLLERS, "more than 16 enrollers"),
            (self.facilities.len() <= MAX_ENROLLERS, "more than 16 facilities"),
            (self.sealed_manifest.0.len() <= MAX_MANIFEST_BYTES + 1024, "sealed manifest is too large"),
            (self.result_key.0.len() == KEM_PUBLIC_KEY_BYTES, "result key is not an X-Wing public key"),
            ((1..=MAX_ATTEMPTS).contains(&self.max_attempts), "max_attempts is not between 1 and 100"),
            ((1..=MAX_WALL_LIMIT_MS).contains(&self.limits.wall_limit_ms), "wall limit is not between 1 ms and a day"),
            (self.limits.memory_bytes >= 1 << 20, "memory limit is under 1 MiB"),
            (self.expires_at > self.created_at, "expires before it is created"),
            (self.limits.state_bytes <= MAX_STATE_BYTES, "state limit is over 1 GiB"),
            (self.limits.output_bytes <= self.limits.scratch_bytes, "output limit is over the scratch limit"),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, reason)| Err(reason))
    }
}

impl TaskSpec {
    /// Whose statements about nodes count for this task.
    #[must_use]
    pub fn counts(&self) -> Enrollers<'_> {
        Enrollers { enrollers: &self.enrollers, facilities: &self.facilities }
    }

    /// The workload and the inputs: every blob that the node fetches.
    pub fn objects(&self) -> impl Iterator<Item = &ObjectRef> {
        std::iter::once(&self.workload).chain(&self.inputs)
    }

    /// Bytes of ciphertext of all objects together; saturates.
    #[must_use]
    pub fn sealed_bytes(&self) -> u64 {
        self.objects().fold(0, |sum, object| sum.saturating_add(object.sealed_bytes))
    }
}
