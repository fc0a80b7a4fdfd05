//! Intel SGX and TDX: quotes of version 3, 4 and 5, verified with what Intel publishes about platforms and quoting enclaves.
//!
//! ```text
//! Quote::parse ─► verify (Endorsements, roots, time) ─► Verified ─► appraise (Policy)
//! ```
//!
//! Which kind a quote is of is told by the quote itself. TCB info, identities and PCK certificates are read, and levels compared and merged, by
//! `dcap-qvl`; signatures, chains, revocation and dates are checked here, so that each has a verdict and a reason of its own and endorsements are
//! verified once for many quotes. `dcap-qvl`'s own verifier is the [`second_opinion`].
//!
//! Deliberately absent: fetching, a clock, attestation keys other than ECDSA over P-256, TCB info before version 3, and EPID.

mod appraise;
mod backend;
mod body;
mod claims;
pub(crate) mod endorsements;
pub(crate) mod judge;
mod parse;
mod pck;
mod policy;
mod rtmr;
mod tcb;
pub(crate) mod time;
mod unverified;
mod verify;

pub use appraise::{appraise, forecast};
pub use backend::second_opinion;
pub use body::{Body, SgxReport, Td15, Td15Extension, TdReport, Tee};
pub use claims::{Claims, PlatformTcb, Snapshot};
pub use dcap_qvl::TcbStatus;
pub use endorsements::{Endorsements, EndorsementsError, MAX_ENDORSEMENTS_LEN};
pub use judge::Expiry;
pub use parse::{MAX_CERTIFICATION_DATA_LEN, MAX_QE_AUTH_DATA_LEN, MAX_QUOTE_LEN, ParseError, Quote, Trailing};
pub use pck::{Platform, SgxType};
pub use policy::{
    Expect, FlagRule, Hex, Policy, SgxAttribute, SgxPolicy, StatusRule, StatusTable, TdAttribute, TdxPolicy,
    TrailingRule,
};
pub use rtmr::{Rtmr, check_rtmrs, rtmr_replay};
pub use tcb::Level;
pub use verify::{Verification, Verified, Warm, intel_root, roots, verify, verify_warm};
