//! Key-release decisions: the one place from which a task secret leaves its holder.
//!
//! The same code serves a requester that releases its own task and a broker that holds secrets for requesters who went
//! offline. It is a state machine without I/O: statements, evidence, proofs, random bytes and the time come in; statements
//! come out. The types hold the order that DESIGN.md demands:
//!
//! ```text
//! Ledger::challenge → Ledger::decide → Approved ──(release entry proven in the log)──► Logged → Ledger::grant → Grant
//! ```
//!
//! [`Approved`] is made by an appraisal that meets the spec's policy and nothing else; [`Logged`] by an inclusion proof under a
//! verified checkpoint; a [`Grant`](starminer_receipt::Grant) by both and the ledger's word that this attempt was not granted
//! before. What must be durable before the next step is handed out as a [`LedgerRecord`]. Specification: `specs/release.md`.
//!
//! # No step can be skipped
//!
//! This takes every step and compiles:
//! ```
//! # use starminer_broker::*; use starminer_receipt::*; use starminer_verify::*; use starminer_log::*; use starminer_vault::TaskSecret; use zeroize::Zeroizing;
//! # struct Around<'a> { context: ReleaseContext<'a>, evidence: &'a [u8], trust: &'a ReleaserTrust, signer: &'a SigningKey, secret: &'a TaskSecret, random: &'a Zeroizing<[u8; 64]>, now: UnixTime }
//! fn release(
//!     ledger: &mut Ledger, a: Around<'_>, checkpoint: &VerifiedCheckpoint, entry: &[u8], proof: &InclusionProof,
//! ) -> Result<Signed<Grant>, Refusal> {
//!     let (decision, _) = ledger.decide(a.context, a.evidence, None, a.trust, a.signer, a.now)?;
//!     let starminer_broker::Decision::Release(approved) = decision else { panic!("denied") };
//!     let logged = approved.logged(checkpoint, entry, proof)?;
//!     let (grant, _) = ledger.grant(a.context, &logged, a.secret, a.signer, a.random, a.now)?;
//!     Ok(grant)
//! }
//! ```
//!
//! Each of these leaves one out, and does not. What was approved is not granted before it is in the log,
//! ```compile_fail,E0308
//! # use starminer_broker::*; use starminer_receipt::*; use starminer_verify::*; use starminer_log::*; use starminer_vault::TaskSecret; use zeroize::Zeroizing;
//! # struct Around<'a> { context: ReleaseContext<'a>, evidence: &'a [u8], trust: &'a ReleaserTrust, signer: &'a SigningKey, secret: &'a TaskSecret, random: &'a Zeroizing<[u8; 64]>, now: UnixTime }
//! fn release(ledger: &mut Ledger, a: Around<'_>, approved: Approved) -> Result<Signed<Grant>, Refusal> {
//!     Ok(ledger.grant(a.context, &approved, a.secret, a.signer, a.random, a.now)?.0)
//! }
//! ```
//! nor what an appraisal said by itself,
//! ```compile_fail,E0308
//! # use starminer_broker::*; use starminer_receipt::*; use starminer_verify::*; use starminer_log::*; use starminer_vault::TaskSecret; use zeroize::Zeroizing;
//! # struct Around<'a> { context: ReleaseContext<'a>, evidence: &'a [u8], trust: &'a ReleaserTrust, signer: &'a SigningKey, secret: &'a TaskSecret, random: &'a Zeroizing<[u8; 64]>, now: UnixTime }
//! fn release(ledger: &mut Ledger, a: Around<'_>, result: AttestationResult) -> Result<Signed<Grant>, Refusal> {
//!     Ok(ledger.grant(a.context, &result, a.secret, a.signer, a.random, a.now)?.0)
//! }
//! ```
//! nor a decision before it was looked at,
//! ```compile_fail,E0599
//! # use starminer_broker::*; use starminer_verify::*; use starminer_log::*;
//! fn release(decision: starminer_broker::Decision, checkpoint: &VerifiedCheckpoint, entry: &[u8], proof: &InclusionProof) -> Result<Logged, Refusal> {
//!     decision.logged(checkpoint, entry, proof)
//! }
//! ```
//! a checkpoint whose signature nobody verified proves nothing,
//! ```compile_fail,E0308
//! # use starminer_broker::*; use starminer_verify::*; use starminer_log::*;
//! fn release(approved: Approved, checkpoint: &SignedCheckpoint, entry: &[u8], proof: &InclusionProof) -> Result<Logged, Refusal> {
//!     approved.logged(checkpoint, entry, proof)
//! }
//! ```
//! and a release is logged once,
//! ```compile_fail,E0382
//! # use starminer_broker::*; use starminer_verify::*; use starminer_log::*;
//! fn release(approved: Approved, checkpoint: &VerifiedCheckpoint, entry: &[u8], proof: &InclusionProof) -> Result<[Logged; 2], Refusal> {
//!     Ok([approved.logged(checkpoint, entry, proof)?, approved.logged(checkpoint, entry, proof)?])
//! }
//! ```
//! A spec and a lease count signed, and not as envelopes that nobody opened:
//! ```compile_fail,E0308
//! # use starminer_broker::*; use starminer_receipt::*;
//! fn release<'a>(spec: &'a TaskSpec, lease: &'a Signed<Lease>) -> ReleaseContext<'a> { ReleaseContext { spec, lease } }
//! ```
//! ```compile_fail,E0308
//! # use starminer_broker::*; use starminer_receipt::*;
//! fn release<'a>(spec: &'a Signed<TaskSpec>, lease: &'a Envelope) -> ReleaseContext<'a> { ReleaseContext { spec, lease } }
//! ```
//! Nothing is sealed to a broker whose evidence was parsed and not verified:
//! ```compile_fail,E0308
//! # use starminer_broker::*; use starminer_receipt::*; use starminer_verify::*; use starminer_vault::TaskSecret; use zeroize::Zeroizing;
//! fn deposit(broker: &Evidence, spec: &Digest, secret: &TaskSecret, random: &Zeroizing<[u8; 64]>) -> Result<SealedSecret, SealError> {
//!     seal_deposit(broker, spec, secret, random)
//! }
//! ```
//! And what a step gives out can be made by that step alone:
//! ```compile_fail,E0451
//! # use starminer_broker::*; use starminer_receipt::*; use starminer_verify::*;
//! fn approve(release: Signed<ReleaseStatement>, result: AttestationResult, task_key: TaskKey) -> Approved {
//!     Approved { release, attestation_result: Vec::new(), result, task_key }
//! }
//! ```
//! ```compile_fail,E0451
//! # use starminer_broker::*; use starminer_log::*;
//! fn log(approved: Approved, included: Included) -> Logged { Logged { approved, included } }
//! ```
//! ```compile_fail,E0451
//! # use starminer_receipt::*; use starminer_verify::*;
//! fn sign(statement: Grant, envelope: Envelope, digest: Digest) -> Signed<Grant> { Signed { statement, envelope, digest } }
//! ```
//!
//! Not here: where secrets are kept, how records are stored, how anything is sent.

mod deposit;
mod ledger;
mod trust;

pub use deposit::{DepositError, open_deposit, seal_deposit, verify_broker_evidence};
pub use ledger::{
    Approved, Decision, Ledger, LedgerRecord, Logged, MAX_CHALLENGE_AGE_MS, ReleaseContext, TOO_MANY_TASKS,
};
pub use trust::ReleaserTrust;
