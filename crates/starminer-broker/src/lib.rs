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
//! Not here: where secrets are kept, how records are stored, how anything is sent.

mod deposit;
mod ledger;
mod trust;

pub use deposit::{DepositError, open_deposit, seal_deposit, verify_broker_evidence};
pub use ledger::{Approved, Decision, Ledger, LedgerRecord, Logged, MAX_CHALLENGE_AGE_MS, ReleaseContext};
pub use trust::ReleaserTrust;
