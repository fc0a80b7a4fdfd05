//! Evidence: parse, verify, appraise.
//!
//! A relying party goes one way, and the types allow no other:
//!
//! ```text
//! Evidence::parse(bytes)  →  verify(evidence, &context)  →  appraise(&verified, &reference_values, &policy)
//!        form                   signatures, binding                 claims against expectations
//! ```
//!
//! Each arrow takes what the one before it returns, and those types have no other constructor. Every expectation is
//! written out; a check that was not made says so in the result and never counts as a pass. Provenance (a maker's root, or
//! a simulated one that both the trust file and the policy name) goes with every tier.
//!
//! Pure: no clock, file, network or randomness; the time is an argument. No panic on any input; everything that a
//! stranger can grow has a named bound. The crate also holds the identifiers and the [`Refusal`] that all of
//! StarMiner shares. It does not collect evidence (`starminer-attester`) and does not release keys (`starminer-broker`).
//!
//! Formats: `specs/evidence.md`, `specs/policy.md`. Terms: RFC 9334.

#![forbid(unsafe_code)]

mod activation;
mod appraise;
mod ar4si;
mod batch;
mod binding;
mod check;
mod ear;
mod endorsements;
mod enrolment;
mod evidence;
mod forecast;
#[doc(hidden)]
pub mod fuzz;
mod hardware_policy;
mod judge;
mod jwt;
pub mod parts;
mod policy;
mod posture;
mod reference;
mod refusal;
mod selection;
pub mod software_tee;
mod tier;
mod trust;
mod types;
mod verify;

pub use activation::{
    ACTIVATION_SECRET_BYTES, Credential, CredentialRandomness, OfferedTpm, TpmOffer, is_activated, offer_credential,
};
pub use appraise::{AttestationResult, Decision, appraise};
pub use ar4si::{TrustClaim, TrustStatus, TrustVector};
pub use batch::{Batch, BatchError, MAX_BATCH_LEN, MAX_PATH_LEN, PathStep, Side, report_data_for};
pub use binding::{
    AkName, BINDING_VERSION, Binding, BindingShapeError, MAX_AK_NAME_LEN, Purpose, Suite, TaskKey,
    X_WING_PUBLIC_KEY_LEN,
};
pub use check::{Check, Verdict, Weight};
pub use ear::{APPRAISAL_PROFILE, EAR_PROFILE};
pub use endorsements::{EndorsementKind, Endorsements, EndorsementsError, MAX_ENDORSEMENTS, MAX_ENDORSEMENTS_BYTES};
pub use enrolment::{Enrolment, Enrolments, FacilityCredential, chip_digest};
pub use evidence::{
    BuildEvidenceError, EVIDENCE_VERSION, Evidence, EvidenceBuilder, EvidenceKind, MAX_EVENT_LOG_BYTES,
    MAX_EVIDENCE_BYTES, MAX_EVIDENCE_WITH_LOGS_BYTES, MAX_IMA_LOG_BYTES, MAX_PARTS, MAX_REPORT_BYTES,
    ParseEvidenceError,
};
pub use forecast::{Kept, Outlook, forecast};
pub use hardware_policy::{
    ChipRules, FacilityRule, GpuRules, HardwarePolicy, IntelRules, MAX_DENIED_CHIPS, Requirement, SevSnpRules,
    SgxRules, TdxRules, TpmRules,
};
pub use jwt::{ear_jwt, jwks, key_id};
pub use parts::{boot_component, pcr_measurement};
pub use policy::{
    MAX_EVIDENCE_AGE_MS, MAX_POLICY_BYTES, MinimumPosture, MinimumTcb, OperatorMayReadMemory, POLICY_VERSION, Policy,
    PolicyError, PolicyFields,
};
pub use posture::{
    HostMeasure, MAX_DETAIL_BYTES, Measure, Posture, PostureError, PostureItem, PostureState, SandboxMeasure,
    UnknownMeasure, fallen_posture, is_about_posture, missing_posture,
};
pub use reference::{
    MAX_REFERENCE_NAME_BYTES, MAX_REFERENCE_VALUES, MAX_REFERENCE_VALUES_BYTES, Measurement, REFERENCE_VALUES_VERSION,
    ReferenceValue, ReferenceValues, ReferenceValuesError,
};
pub use refusal::{MAX_CHECK_BYTES, MAX_REASON_BYTES, MAX_REMEDY_BYTES, Party, Refusal, RefusalFormError};
pub use selection::{Selection, select_for_tpm};
pub use tier::Tier;
pub use trust::{MAX_SIMULATED_ROOTS, ParseRootError, Provenance, SimulatedRootId, TooManyRoots, TrustAnchors};
pub use types::{
    Attempt, BootId, Challenge, Digest, NetworkId, NodeId, ParseIdError, PublicKey, TaggedHasher, TaskId, UnixTime,
    tagged_hash,
};
pub use verify::{
    CHANGING_REGISTERS, Context, DeviceClaims, Expect, Expected, ExpectedPurpose, Verified, is_bound_to, verify,
};
