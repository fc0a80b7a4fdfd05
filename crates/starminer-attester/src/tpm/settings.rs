//! How a TPM is opened: where it is, which it has to be, what authorises its use, how long it may take.

use std::{fmt, time::Duration};

use zeroize::Zeroizing;

use super::{ek::EkKind, transport::TpmAddress};

/// The authorisation value of a hierarchy or index. Zeros at its end do not count (Part 1, 19.6.4.3). Wiped, and never
/// printed.
#[derive(Clone, Default)]
pub struct Authorization(Zeroizing<Vec<u8>>);

impl Authorization {
    /// From the value as it was set.
    #[must_use]
    pub fn new(value: &[u8]) -> Self {
        let end = value.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        Self(Zeroizing::new(value.get(..end).unwrap_or_default().to_vec()))
    }

    pub(super) fn value(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "Authorization(empty)" } else { "Authorization(…)" })
    }
}

/// Which endorsement key is expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KnownEk {
    /// Whatever the TPM shows: before it is enrolled. Whoever sits on the way can then show a key of its own, for which
    /// it has no maker's certificate: the enrolment shows it, and nothing secret should be sent to the TPM before.
    FirstUse,
    /// The key of this name, as it was enrolled. Nobody else can answer.
    Name(Vec<u8>),
}

/// How long commands may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// Of a command that makes a key: on a discrete TPM, RSA takes up to a minute and more.
    pub key: Duration,
    /// Of any other, retries included.
    pub other: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self { key: Duration::from_secs(300), other: Duration::from_secs(30) }
    }
}

/// How to open a TPM.
#[derive(Debug, Clone)]
pub struct TpmSettings {
    /// Where it is.
    pub address: TpmAddress,
    /// Which of its endorsement keys to use.
    pub ek: EkKind,
    /// Which it has to be.
    pub known_ek: KnownEk,
    /// Of the endorsement hierarchy. A value that can be guessed can be found out from the way, before a session is
    /// salted.
    pub endorsement: Authorization,
    /// Of the owner hierarchy.
    pub owner: Authorization,
    /// Bounds on time.
    pub deadlines: Deadlines,
}

impl TpmSettings {
    /// Empty authorisations, a P-256 endorsement key of whatever TPM is there, default deadlines.
    #[must_use]
    pub fn new(address: TpmAddress) -> Self {
        Self {
            address,
            ek: EkKind::P256,
            known_ek: KnownEk::FirstUse,
            endorsement: Authorization::default(),
            owner: Authorization::default(),
            deadlines: Deadlines::default(),
        }
    }
}
