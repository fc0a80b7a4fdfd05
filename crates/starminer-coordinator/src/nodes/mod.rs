//! What the coordinator finds out about nodes: that they are what they say, and that they stay so.
//!
//! ```text
//! enrolment ── once: whose attestation key is it, in which TPM
//! admission ── again and again: a challenge, evidence, the coordinator's own appraisal
//!     ├─ endorsing   with what makers published: fetched in the background, taken from memory
//!     └─ watch       compared with the evidence before
//! ```
//!
//! It decides routing and nothing else. No key is released for any of it: each releaser appraises evidence of its own for each attempt.

mod admission;
mod endorsing;
mod enrolment;
mod watch;

pub use admission::AdmissionSetupError;
pub(crate) use admission::{Admission, Outcome};
pub(crate) use endorsing::Endorsing;
pub use endorsing::{EndorsementConfig, EndorsingError};
