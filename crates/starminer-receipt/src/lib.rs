//! The statements of a task's life, and the receipt that keeps them.
//!
//! Every noun of the design is a type here: [`TaskSpec`], [`Lease`], [`ChallengeStatement`], [`ReleaseStatement`], [`Grant`],
//! [`Report`], [`AgentStatement`], [`LogEntry`] and [`Receipt`]. Each travels as a DSSE [`Envelope`] whose payload is signed
//! and hashed as the exact bytes. [`verify_receipt`] is pure: bytes, the verifier's own trust and a time in, claims out.
//!
//! What this crate deliberately does not do: it opens no file and no socket, reads no clock and draws no randomness, and
//! it decides no release of a key (`starminer-broker` does).

mod claims;
mod dsse;
mod endorsement_set;
mod entry;
mod job;
mod network;
mod receipt;
mod reference;
mod report;
mod seal;
mod spec;
mod statements;

pub use claims::{
    Claim, ClaimVerdict, Overall, ReceiptVerdict, Validity, Voucher, verify_receipt, verify_receipt_remembering,
};
pub use dsse::{
    Base64Bytes, Envelope, EnvelopeError, MAX_ENVELOPE_BYTES, Signed, Signer, SigningKey, Statement, VerifiedEnvelopes,
    pre_authentication_encoding, verify_ed25519,
};
pub use endorsement_set::{
    EndorsementSet, EndorsementSetError, Enrollers, EnrolmentStatement, FacilityStatement, MAX_ENDORSEMENT_SET_BYTES,
    OpenedSet,
};
pub use entry::{EntryKind, LogEntry, MAX_ENTRY_BYTES};
pub use job::{
    JobManifest, MANIFEST_OBJECT_NAME, MAX_MANIFEST_BYTES, OnnxManifest, OutputManifest, OutputName,
    WORKLOAD_OBJECT_NAME, WasmManifest, input_object_name, output_object_name,
};
pub use network::{
    CoordinatorEntry, LogEntryKeys, MAX_RELEASE_KEYS, NetworkTrust, NetworkTrustError, SimulatedRootEntry, toml_reason,
};
pub use receipt::{LoggedEntry, MAX_CHECKPOINTS_LOGGED, MAX_RECEIPT_BYTES, Receipt, ReceiptError};
pub use reference::{
    LogPlace, LoggedReferenceValues, MAX_REFERENCE_FILE_BYTES, Opening, ReferenceError, ReferenceFile,
    ReferenceStatement, Role, SeenReferences, SignedReferenceValues,
};
pub use report::{
    AgentStatement, EngineRecord, ExitStatus, IN_TOTO_STATEMENT_TYPE, Outcome, OutputObject, PREDICATE_TYPE, Report,
    ReportAuthor, ReportPredicate, ReportSubject, Resources, RunDetails,
};
pub use seal::{
    DEPOSIT_INFO, DETAILS_INFO, ENCAPSULATED_KEY_BYTES, GRANT_INFO, KEM_PUBLIC_KEY_BYTES, KEM_SUITE, KemPrivateKey,
    OUTPUT_INFO, SealError, SealedSecret,
};
pub use spec::{
    Determinism, EngineKind, Limits, MAX_INPUTS, MAX_STATE_BYTES, ObjectRef, Sensitivity, SpecError, TaskSpec,
    WasmGrants,
};
pub use statements::{
    CHECKPOINT_CODES, CancelStatement, ChallengeStatement, CheckpointId, CheckpointStatement, DenyStatement, Grant,
    Lease, LeastCheckpoint, ReleaseStatement,
};
