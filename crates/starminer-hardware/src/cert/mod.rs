//! X.509 (RFC 5280) as makers of hardware use it: certificates, chains up to pinned roots, and revocation lists.
//!
//! Parsing believes nothing and is bounded. Signatures are verified by aws-lc-rs, from the root downwards, so that a chain which does not hang on
//! a root costs one verification at most. Makers' certificates have quirks; each one that is tolerated is named by the caller ([`Quirk`]).
//!
//! Deliberately absent: name constraints and certificate policies (critical ones refuse, unless the caller says that it reads them itself),
//! indirect, partial and delta revocation lists, and fetching of anything.

mod certificate;
mod chain;
mod crl;
pub(crate) mod der;
mod fault;
mod key;
pub(crate) mod memo;
mod path;
mod pem;
mod roots;

pub use certificate::{
    Certificate, CertificateError, Extension, KeyUsage, MAX_BUNDLE_BYTES, MAX_CERTIFICATE_BYTES, MAX_CERTIFICATES,
};
pub use chain::{Chain, ChainOptions, LeafRole, MAX_DEPTH, Quirk, build_chain};
pub(crate) use chain::{Link, build_chain_over};
pub use crl::{Crl, CrlError, MAX_CRL_BYTES, VerifiedCrl};
pub use fault::{ChainError, ChainFault, Place};
pub use key::{Curve, Hash, PssSalt, PublicKey, SignatureAlgorithm, SignatureError};
pub use roots::{Provenance, Roots};
