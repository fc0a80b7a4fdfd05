//! Why there is no chain: which certificate, and what about it.

use super::{Certificate, MAX_DEPTH, SignatureError};

/// Where a certificate stands in its chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// First.
    Leaf,
    /// So many steps above the leaf.
    Intermediate(usize),
    /// Last.
    Root,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Leaf => f.write_str("leaf"),
            Self::Intermediate(steps) => write!(f, "intermediate {steps}"),
            Self::Root => f.write_str("root"),
        }
    }
}

/// Why there is no chain: which certificate, and what about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place} ({subject}): {fault}")]
pub struct ChainError {
    /// Where the certificate stands.
    pub place: Place,
    /// Its subject, for people.
    pub subject: String,
    /// What about it.
    pub fault: ChainFault,
}

/// What about a certificate breaks a chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainFault {
    /// Nobody has a certificate of its issuer.
    #[error("its issuer ({issuer}) is neither a trusted root nor among the certificates given")]
    NoIssuer {
        /// For people.
        issuer: String,
    },
    /// No root within reach.
    #[error("no root within {MAX_DEPTH} certificates")]
    TooDeep,
    /// It is a root, where a certificate below one was expected.
    #[error("it is itself a root")]
    LeafIsRoot,
    /// Too early.
    #[error("not valid before {not_before_s}, and it is {now_s}")]
    NotYetValid {
        /// Seconds since 1970.
        not_before_s: i64,
        /// Seconds since 1970.
        now_s: u64,
    },
    /// Too late.
    #[error("valid until {not_after_s}, and it is {now_s}")]
    Expired {
        /// Seconds since 1970.
        not_after_s: i64,
        /// Seconds since 1970.
        now_s: u64,
    },
    /// It issued another one without being an authority.
    #[error("it is no certificate authority")]
    NotAuthority,
    /// More authorities below it than it allows.
    #[error("more authorities below it than it allows")]
    PathLength,
    /// Its key usage leaves out what it did.
    #[error("its key usage does not include {0}")]
    KeyUsage(&'static str),
    /// It is an authority, and stands where none may.
    #[error("it says that it is a certificate authority")]
    LeafIsCa,
    /// It says something that has to be understood, and is not.
    #[error("critical extension {oid} is not understood")]
    CriticalExtension {
        /// Dotted.
        oid: String,
    },
    /// Its issuer did not sign it.
    #[error("its signature: {0}")]
    Signature(SignatureError),
}

impl ChainError {
    /// A stable name.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match &self.fault {
            ChainFault::NoIssuer { .. } => "chain.no-issuer",
            ChainFault::TooDeep => "chain.too-deep",
            ChainFault::LeafIsRoot => "chain.leaf-is-root",
            ChainFault::NotYetValid { .. } => "chain.not-yet-valid",
            ChainFault::Expired { .. } => "chain.expired",
            ChainFault::NotAuthority => "chain.not-authority",
            ChainFault::PathLength => "chain.path-length",
            ChainFault::KeyUsage(_) => "chain.key-usage",
            ChainFault::LeafIsCa => "chain.leaf-is-ca",
            ChainFault::CriticalExtension { .. } => "chain.critical-extension",
            ChainFault::Signature(_) => "chain.signature",
        }
    }

    pub(super) fn new(place: Place, certificate: &Certificate, fault: ChainFault) -> Self {
        Self { place, subject: certificate.subject_name(), fault }
    }
}
