//! Why a TPM did not do what it was asked for, in words that say what to do.

use std::{fmt, io, time::Duration};

use starminer_hardware::tpm::{ParseError, credential::CredentialError};
use thiserror::Error;
use tpm2_protocol::data::{TpmCc, TpmRc, TpmRcBase};

/// What went wrong with a TPM.
#[derive(Debug, Error)]
pub enum TpmError {
    /// There is none.
    #[error(
        "there is no TPM at {address}: {reason}; switch it on in the firmware (TPM, fTPM or PTT), or load its driver"
    )]
    Absent {
        /// Where it was looked for.
        address: String,
        /// The system's word.
        reason: String,
    },
    /// It is there, and not for this user.
    #[error("no permission for the TPM at {address}: add the agent's user to the group that owns it (often tss)")]
    Denied {
        /// Where it is.
        address: String,
    },
    /// The connection broke.
    #[error("the connection to the TPM broke: open it anew")]
    Connection(#[source] io::Error),
    /// No answer in time.
    #[error(
        "no answer to {command} within {after:?}: the connection is given up; the TPM may serve somebody else, or hang"
    )]
    Deadline {
        /// The command.
        command: Command,
        /// The time it had.
        after: Duration,
    },
    /// Too many connections at once; those count that were given up while the kernel still waits for the TPM.
    #[error("too many connections to TPMs are open, or given up while the driver still waits: try again later")]
    Busy,
    /// The response has no form that the specification gives it.
    #[error("the response to {command} is malformed: {what}")]
    Malformed {
        /// The command.
        command: Command,
        /// In which way.
        what: &'static str,
    },
    /// The TPM said no.
    #[error("the TPM refused {command}: {code}")]
    Refused {
        /// The command.
        command: Command,
        /// Its reason.
        code: ResponseCode,
    },
    /// The response is not the TPM's own, or not to this command.
    #[error(
        "the response to {command} was altered on its way, or is not by this TPM: somebody sits between; the session is ended"
    )]
    Altered {
        /// The command.
        command: Command,
    },
    /// The endorsement key is not the one expected.
    #[error("the TPM has another endorsement key than expected: it is another TPM, or somebody sits between")]
    OtherEndorsementKey,
    /// The attestation key is not the one that was enrolled.
    #[error("the TPM makes another attestation key than before: its seeds were changed; enrol the node again")]
    OtherAttestationKey,
    /// A key is not of the form that was asked for.
    #[error("the TPM gave a key of another form than asked for")]
    KeyForm,
    /// What the TPM gave does not parse.
    #[error("the TPM gave something that cannot be read")]
    Parse(#[from] ParseError),
    /// No salt could be shared with the endorsement key.
    #[error("the endorsement key cannot be encrypted to")]
    Salt(#[from] CredentialError),
    /// The system gave no randomness.
    #[error("the system gave no randomness")]
    Randomness,
    /// The quote does not verify here: it would nowhere.
    #[error("the TPM's quote does not verify: {failed}")]
    Quote {
        /// Names of the checks that failed.
        failed: String,
    },
    /// PCRs changed under every attempt.
    #[error(
        "PCRs changed during each of {0} attempts to quote them: quote fewer, or wait until the system has started"
    )]
    Restless(u32),
    /// There is no such counter.
    #[error("there is no counter {0:#x} in the TPM: somebody took it away, or its owner was cleared")]
    NoCounter(u32),
    /// An argument that no TPM takes.
    #[error("{0}")]
    Argument(&'static str),
}

impl TpmError {
    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Absent { .. } => "tpm.device.absent",
            Self::Denied { .. } => "tpm.device.denied",
            Self::Connection(_) => "tpm.device.connection",
            Self::Deadline { .. } => "tpm.device.deadline",
            Self::Busy => "tpm.device.busy",
            Self::Malformed { .. } | Self::Parse(_) => "tpm.device.malformed",
            Self::Refused { .. } => "tpm.device.refused",
            Self::Altered { .. } => "tpm.device.altered",
            Self::OtherEndorsementKey => "tpm.device.other-endorsement-key",
            Self::OtherAttestationKey => "tpm.device.other-attestation-key",
            Self::KeyForm => "tpm.device.key-form",
            Self::Salt(_) => "tpm.device.salt",
            Self::Randomness => "tpm.device.randomness",
            Self::Quote { .. } => "tpm.device.quote",
            Self::Restless(_) => "tpm.device.restless",
            Self::NoCounter(_) => "tpm.device.no-counter",
            Self::Argument(_) => "tpm.device.argument",
        }
    }

    /// What the TPM itself said, if that is what went wrong.
    #[must_use]
    pub fn refusal(&self) -> Option<TpmRcBase> {
        if let Self::Refused { code, .. } = self { code.base() } else { None }
    }

    /// Whether a new connection with new sessions may do better: the old ones are gone, by a reset of the TPM, say. Or
    /// they are out of step: errors are not authenticated, and behind a forged one, the TPM's nonce has moved on, so
    /// that it refuses the next authorisation.
    pub(super) fn asks_for_a_new_start(&self) -> bool {
        match self {
            Self::Connection(_) => true,
            Self::Refused { code, .. } => matches!(
                code.base(),
                Some(
                    TpmRcBase::Handle
                        | TpmRcBase::Value
                        | TpmRcBase::AuthFail
                        | TpmRcBase::BadAuth
                        | TpmRcBase::AuthContext
                        | TpmRcBase::Initialize
                        | TpmRcBase::ReferenceH0
                        | TpmRcBase::ReferenceH1
                        | TpmRcBase::ReferenceS0
                        | TpmRcBase::ReferenceS1
                )
            ),
            _ => false,
        }
    }
}

/// A command, for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Command(pub(super) TpmCc);

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// `TPM_RC`: why a TPM refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseCode(u32);

impl ResponseCode {
    pub(super) const fn new(code: u32) -> Self {
        Self(code)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The code without the place that it is about; `None` for codes of the maker's own and of layers above the TPM.
    #[must_use]
    pub fn base(self) -> Option<TpmRcBase> {
        TpmRc::try_from(self.0).ok().map(|code| code.base())
    }

    /// Whether the TPM asks for the same command again.
    pub(super) fn asks_to_retry(self) -> bool {
        matches!(self.base(), Some(TpmRcBase::Retry | TpmRcBase::Yielded | TpmRcBase::Testing | TpmRcBase::NvRate))
    }

    fn advice(self) -> &'static str {
        match self.base() {
            Some(TpmRcBase::Lockout) => {
                "too many wrong authorisations: it locks itself for hours; wait, or clear the lockout with its owner's authorisation (tpm2_dictionarylockout -c)"
            }
            Some(TpmRcBase::AuthFail | TpmRcBase::BadAuth) => {
                "the authorisation is wrong: give that of the hierarchy or index; each attempt counts towards a lockout"
            }
            Some(TpmRcBase::Retry | TpmRcBase::Yielded | TpmRcBase::Testing | TpmRcBase::NvRate) => {
                "it was busy over every attempt: try later"
            }
            Some(TpmRcBase::Initialize) => "it was not started: start it with TPM2_Startup, which firmware does",
            Some(TpmRcBase::Failure | TpmRcBase::NeedsTest) => "it is in failure mode: power the machine off and on",
            Some(TpmRcBase::Upgrade) => "its firmware is being updated: finish that first",
            Some(TpmRcBase::Reboot) => "it needs a reboot of the machine",
            Some(TpmRcBase::Disabled | TpmRcBase::Hierarchy) => {
                "the hierarchy is switched off: switch it on in the firmware"
            }
            Some(TpmRcBase::ObjectMemory | TpmRcBase::ObjectHandles | TpmRcBase::Memory) => {
                "no room for keys: others left some; use /dev/tpmrm0, or flush them (tpm2_flushcontext -t)"
            }
            Some(TpmRcBase::SessionMemory | TpmRcBase::SessionHandles | TpmRcBase::ContextGap) => {
                "no room for sessions: others left some; flush them (tpm2_flushcontext -l)"
            }
            Some(TpmRcBase::NvSpace) => "no room in its storage: remove indices that nobody uses",
            Some(TpmRcBase::NvDefined) => "the index exists",
            Some(TpmRcBase::NvUninitialized) => "the index was never written",
            Some(TpmRcBase::NvLocked) => "the index is locked",
            Some(TpmRcBase::Integrity) => "it was made for another TPM or another key, or altered",
            Some(TpmRcBase::Handle) => "there is no such key, session or index",
            Some(TpmRcBase::CommandCode) => "it does not know this command",
            Some(
                TpmRcBase::Curve | TpmRcBase::KeySize | TpmRcBase::Scheme | TpmRcBase::Hash | TpmRcBase::Asymmetric,
            ) => "it does not know this kind of key: ask for another",
            Some(_) => "see TCG TPM 2.0 Library, Part 2, 6.6",
            None => "a code of its maker's, or of a layer above it",
        }
    }
}

impl fmt::Display for ResponseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match TpmRc::try_from(self.0) {
            Ok(code) => write!(f, "{code} ({:#05x})", self.0)?,
            Err(_) => write!(f, "{:#x}", self.0)?,
        }
        write!(f, ": {}", self.advice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_say_what_to_do() {
        let said = |code| ResponseCode::new(code).to_string();
        assert!(said(0x921).starts_with("TPM_RC_LOCKOUT (0x921): too many wrong"), "{}", said(0x921));
        assert!(
            said(0x98e).starts_with("[TPM_RC_AUTH_FAIL, session[1]] (0x98e): the authorisation"),
            "{}",
            said(0x98e)
        );
        assert!(said(0x8001_0001).starts_with("0x80010001: a code of its maker"), "{}", said(0x8001_0001));
        for code in [0x922, 0x908, 0x90a, 0x920] {
            assert!(ResponseCode::new(code).asks_to_retry(), "{code:#x}");
        }
        for code in [0x921, 0x98e, 0x101, 0] {
            assert!(!ResponseCode::new(code).asks_to_retry(), "{code:#x}");
        }
    }
}
