//! Policy: what a requester demands of whoever is to see a task's secret.
//!
//! A policy is read strictly (every field written out, none unknown) and normalised, so that it has one digest. It
//! cannot ask for less than confidentiality without saying that the operator may read memory, and it accepts simulated
//! evidence only under roots that it names. It does not say how a check is made: that is [`crate::appraise`].
//! Source: `specs/policy.md`, section "Policy".

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::hardware_policy::{HardwarePolicy, MAX_DENIED_CHIPS, sorted};
use crate::posture::{HostMeasure, SandboxMeasure};
use crate::refusal::{Party, Refusal};
use crate::tier::Tier;
use crate::trust::{MAX_SIMULATED_ROOTS, SimulatedRootId};
use crate::types::{Digest, tagged_hash};

/// Version of the policy format.
pub const POLICY_VERSION: u32 = 1;
/// Longest policy in JSON or TOML, in bytes.
pub const MAX_POLICY_BYTES: usize = 16 * 1024;
/// Greatest age of evidence that a policy may allow, in milliseconds: one day.
pub const MAX_EVIDENCE_AGE_MS: u64 = 24 * 60 * 60 * 1000;

/// Consent, spelled out, that whoever runs the machine can read the task's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OperatorMayReadMemory {
    /// The tier must exclude it: `confidential` or `hardened`.
    No,
    /// The requester accepts it; the only way to a lower tier.
    Yes,
}

/// Posture that has to be in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MinimumPosture {
    /// Measures around the task's process.
    pub sandbox: Vec<SandboxMeasure>,
    /// Measures of the host.
    pub host: Vec<HostMeasure>,
}

/// Floors of the trusted base, one for each kind of evidence. Below it, evidence of that kind is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MinimumTcb {
    /// Least `tcb_version` of a software TEE.
    pub software_tee: u64,
}

/// The fields of a policy as they are written, before they are checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyFields {
    /// [`POLICY_VERSION`].
    pub version: u32,
    /// The least tier.
    pub minimum_tier: Tier,
    /// Consent to a tier below `confidential`.
    pub operator_may_read_memory: OperatorMayReadMemory,
    /// Simulated roots whose evidence is accepted; each has to be named by the verifier's trust file as well.
    pub accepted_simulated_roots: Vec<SimulatedRootId>,
    /// Greatest age of evidence, counted from its challenge, in milliseconds; 1 to [`MAX_EVIDENCE_AGE_MS`].
    pub evidence_max_age_ms: u64,
    /// Floors of the trusted base.
    pub minimum_tcb: MinimumTcb,
    /// Posture that has to be in force.
    pub minimum_posture: MinimumPosture,
    /// What is demanded of hardware; where it is left out, [`HardwarePolicy::strict`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hardware: Option<Box<HardwarePolicy>>,
}

/// A policy that is consistent and in its one form. Reads and writes as [`PolicyFields`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "PolicyFields", into = "PolicyFields")]
pub struct Policy(PolicyFields);

/// Why the fields are no policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PolicyError {
    /// Not JSON of the documented shape, or longer than [`MAX_POLICY_BYTES`].
    #[error("the policy is not in the documented form")]
    Malformed,
    /// Another version.
    #[error("a policy of another version; {POLICY_VERSION} is known")]
    Version,
    /// A tier below `confidential` without the consent it needs.
    #[error("a tier below confidential lets the operator read memory: say operator_may_read_memory = \"yes\"")]
    ConsentMissing,
    /// Consent that the tier makes void.
    #[error("operator_may_read_memory = \"yes\" has no meaning from tier confidential upwards")]
    ConsentVoid,
    /// No age or more than [`MAX_EVIDENCE_AGE_MS`].
    #[error("evidence_max_age_ms is 1 to {MAX_EVIDENCE_AGE_MS}")]
    Age,
    /// An entry is listed twice.
    #[error("{list} lists an entry twice")]
    Twice {
        /// The field.
        list: &'static str,
    },
    /// More than [`MAX_SIMULATED_ROOTS`] roots.
    #[error("at most {MAX_SIMULATED_ROOTS} simulated roots can be named")]
    TooManyRoots,
    /// More than [`MAX_DENIED_CHIPS`] chips.
    #[error("at most {MAX_DENIED_CHIPS} chips can be denied")]
    TooManyChips,
}

impl PolicyError {
    /// Stable code, as in a [`Refusal`].
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Malformed => "policy.malformed",
            Self::Version => "policy.version",
            Self::ConsentMissing => "policy.consent-missing",
            Self::ConsentVoid => "policy.consent-void",
            Self::Age => "policy.age",
            Self::Twice { .. } => "policy.twice",
            Self::TooManyRoots => "policy.too-many-roots",
            Self::TooManyChips => "policy.too-many-chips",
        }
    }
}

impl From<PolicyError> for Refusal {
    fn from(error: PolicyError) -> Self {
        Self::new(Party::Requester, error.code(), error.to_string(), "write the policy as specs/policy.md says")
    }
}

impl Policy {
    /// Checks the fields and puts lists in order.
    pub fn new(mut fields: PolicyFields) -> Result<Self, PolicyError> {
        if fields.version != POLICY_VERSION {
            return Err(PolicyError::Version);
        }
        match (fields.minimum_tier >= Tier::Confidential, fields.operator_may_read_memory) {
            (true, OperatorMayReadMemory::No) | (false, OperatorMayReadMemory::Yes) => {}
            (false, OperatorMayReadMemory::No) => return Err(PolicyError::ConsentMissing),
            (true, OperatorMayReadMemory::Yes) => return Err(PolicyError::ConsentVoid),
        }
        if fields.evidence_max_age_ms == 0 || fields.evidence_max_age_ms > MAX_EVIDENCE_AGE_MS {
            return Err(PolicyError::Age);
        }
        if fields.accepted_simulated_roots.len() > MAX_SIMULATED_ROOTS {
            return Err(PolicyError::TooManyRoots);
        }
        sorted(&mut fields.accepted_simulated_roots, "accepted_simulated_roots")?;
        sorted(&mut fields.minimum_posture.sandbox, "minimum_posture.sandbox")?;
        sorted(&mut fields.minimum_posture.host, "minimum_posture.host")?;
        if let Some(hardware) = &mut fields.hardware {
            hardware.normalise()?;
        }
        Ok(Self(fields))
    }

    /// Reads a policy from JSON, at most [`MAX_POLICY_BYTES`].
    pub fn parse(json: &[u8]) -> Result<Self, PolicyError> {
        if json.len() > MAX_POLICY_BYTES {
            return Err(PolicyError::Malformed);
        }
        let fields: PolicyFields = serde_json::from_slice(json).map_err(|_| PolicyError::Malformed)?;
        Self::new(fields)
    }

    /// The default: tier `confidential`, makers' roots only, evidence of at most one minute, and a sandbox without network,
    /// privileges or a way for keys to reach a disk.
    pub fn confidential() -> Self {
        Self(PolicyFields {
            version: POLICY_VERSION,
            minimum_tier: Tier::Confidential,
            operator_may_read_memory: OperatorMayReadMemory::No,
            accepted_simulated_roots: Vec::new(),
            evidence_max_age_ms: 60_000,
            minimum_tcb: MinimumTcb { software_tee: 1 },
            minimum_posture: MinimumPosture {
                sandbox: vec![
                    SandboxMeasure::NoNetwork,
                    SandboxMeasure::NoNewPrivileges,
                    SandboxMeasure::Seccomp,
                    SandboxMeasure::ResourceLimits,
                    SandboxMeasure::NonDumpable,
                    SandboxMeasure::KeysLocked,
                    SandboxMeasure::CoreDumpsOff,
                ],
                host: Vec::new(),
            },
            hardware: None,
        })
    }

    /// The fields, lists in order.
    pub const fn fields(&self) -> &PolicyFields {
        &self.0
    }

    /// The one JSON form: fields in the order of the struct, lists in order, no white space.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(&self.0).expect("a policy has names and numbers only")
    }

    /// The tagged hash `"starminer/policy/v1"` over the one JSON form.
    pub fn digest(&self) -> Digest {
        tagged_hash("policy", &[&self.to_json()])
    }

    /// What is demanded of hardware, written or by default.
    pub fn hardware(&self) -> Cow<'_, HardwarePolicy> {
        match &self.0.hardware {
            Some(written) => Cow::Borrowed(written.as_ref()),
            None => Cow::Owned(HardwarePolicy::strict()),
        }
    }

    /// Whether this very root is named.
    pub fn accepts_simulated_root(&self, root: &SimulatedRootId) -> bool {
        self.0.accepted_simulated_roots.binary_search(root).is_ok()
    }
}

impl TryFrom<PolicyFields> for Policy {
    type Error = PolicyError;

    fn try_from(fields: PolicyFields) -> Result<Self, PolicyError> {
        Self::new(fields)
    }
}

impl From<Policy> for PolicyFields {
    fn from(policy: Policy) -> Self {
        policy.0
    }
}
