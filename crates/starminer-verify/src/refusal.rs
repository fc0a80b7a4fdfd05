//! Refusal as data: what was refused, by a stable code; which party is at fault; why; and what to do about it.
//!
//! This is the one type that every part of StarMiner refuses with, from the verifier to the HTTP edge to a receipt. It
//! deliberately does not carry internal failures: a disk that fills or a bug is an error of its operation, never a
//! refusal. Strings are bounded and printable, because a refusal may quote what a stranger sent and ends on a terminal.
//! Source: `specs/policy.md`, section "Refusals".

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::types::{Digest, tagged_hash};

/// Longest stable code, in bytes.
pub const MAX_CHECK_BYTES: usize = 64;
/// Longest reason, in bytes of UTF-8.
pub const MAX_REASON_BYTES: usize = 512;
/// Longest remedy, in bytes of UTF-8.
pub const MAX_REMEDY_BYTES: usize = 512;

/// Who has to change something for the refused thing to be accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Party {
    /// Who ordered the task: its spec, its inputs, its policy.
    Requester,
    /// The program that ran as the task: it trapped, ran out of fuel or memory, or broke a rule of its sandbox.
    Workload,
    /// The machine that ran or offered to run the task.
    Node,
    /// Who routes tasks and keeps the log.
    Coordinator,
    /// Who was to release the task secret.
    Releaser,
    /// A broker, where it acts for a requester who is away.
    Broker,
    /// Who keeps ciphertext.
    Storage,
    /// The public log or its witnesses.
    Log,
    /// Whoever vouches for a device or publishes its endorsements.
    Endorser,
    /// The connection between the parties, or the network's own rules.
    Network,
    /// Who verifies: its trust file, its clock, its reference values.
    Verifier,
}

impl Party {
    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Requester => "requester",
            Self::Workload => "workload",
            Self::Node => "node",
            Self::Coordinator => "coordinator",
            Self::Releaser => "releaser",
            Self::Broker => "broker",
            Self::Storage => "storage",
            Self::Log => "log",
            Self::Endorser => "endorser",
            Self::Network => "network",
            Self::Verifier => "verifier",
        }
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Something was refused. JSON: `{"party","check","reason","remedy"}`, all present, nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "WireRefusal")]
pub struct Refusal {
    party: Party,
    check: Cow<'static, str>,
    reason: String,
    remedy: String,
}

impl Refusal {
    /// A refusal of `party` by the check with the stable code `check` (lowercase letters, digits, `.`, `-`, `_`).
    ///
    /// `reason` says what was found and what was expected; `remedy` tells the party what to do. Characters that are not
    /// printable become `?`, and what is longer than its bound is cut, so that this never fails and never lies
    /// about the code.
    pub fn new(
        party: Party,
        check: impl Into<Cow<'static, str>>,
        reason: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            party,
            check: code(check.into()),
            reason: printable(reason.into(), MAX_REASON_BYTES),
            remedy: printable(remedy.into(), MAX_REMEDY_BYTES),
        }
    }

    /// Whether a text can be the code of a refusal.
    pub fn is_code(text: &str) -> bool {
        is_code(text)
    }

    /// The tagged hash `"starminer/refusal/v1"` over party, code, reason and remedy: what the log commits to.
    pub fn digest(&self) -> Digest {
        let (check, reason, remedy) = (self.check.as_bytes(), self.reason.as_bytes(), self.remedy.as_bytes());
        tagged_hash("refusal", &[self.party.name().as_bytes(), check, reason, remedy])
    }

    /// The party at fault.
    pub const fn party(&self) -> Party {
        self.party
    }

    /// The stable code of the check that refused, such as `evidence.root-unknown`.
    pub fn check(&self) -> &str {
        &self.check
    }

    /// What was found and what was expected; one sentence without its full stop.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// What the party at fault can do; one sentence without its full stop.
    pub fn remedy(&self) -> &str {
        &self.remedy
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} (at fault: {}; remedy: {})", self.check, self.reason, self.party, self.remedy)
    }
}

impl std::error::Error for Refusal {}

fn is_code_byte(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_')
}

fn is_code(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_CHECK_BYTES && text.bytes().all(is_code_byte)
}

fn code(check: Cow<'static, str>) -> Cow<'static, str> {
    if is_code(&check) {
        return check;
    }
    let kept: String =
        check.bytes().map(|b| if is_code_byte(b) { char::from(b) } else { '-' }).take(MAX_CHECK_BYTES).collect();
    Cow::Owned(if kept.is_empty() { "unnamed".to_owned() } else { kept })
}

/// Neither control characters nor the invisible and direction-changing ones that make a terminal lie.
fn is_printable(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

fn printable(text: String, max_bytes: usize) -> String {
    if text.len() <= max_bytes && text.chars().all(is_printable) {
        return text;
    }
    let mut kept = String::with_capacity(text.len().min(max_bytes));
    for c in text.chars() {
        let c = if is_printable(c) { c } else { '?' };
        if kept.len() + c.len_utf8() > max_bytes {
            break;
        }
        kept.push(c);
    }
    kept
}

/// The form on the wire; nothing enters [`Refusal`] without passing its bounds.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireRefusal {
    party: Party,
    check: String,
    reason: String,
    remedy: String,
}

/// Why a foreign refusal is not one. Refusals that we make are cut to size; foreign ones are not trusted to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RefusalFormError {
    /// The code is not 1 to [`MAX_CHECK_BYTES`] of `[a-z0-9._-]`.
    #[error("the code of a refusal is malformed")]
    Check,
    /// Reason or remedy is longer than its bound or holds characters that do not print.
    #[error("the text of a refusal is too long or not printable")]
    Text,
}

impl TryFrom<WireRefusal> for Refusal {
    type Error = RefusalFormError;

    fn try_from(wire: WireRefusal) -> Result<Self, RefusalFormError> {
        if !is_code(&wire.check) {
            return Err(RefusalFormError::Check);
        }
        let fits = |text: &str, max: usize| text.len() <= max && text.chars().all(is_printable);
        if !fits(&wire.reason, MAX_REASON_BYTES) || !fits(&wire.remedy, MAX_REMEDY_BYTES) {
            return Err(RefusalFormError::Text);
        }
        Ok(Self { party: wire.party, check: Cow::Owned(wire.check), reason: wire.reason, remedy: wire.remedy })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_or_unprintable_is_cut_when_made_and_refused_when_read() {
        let made = Refusal::new(Party::Node, "a.b-c", "é".repeat(400), "bell \u{7} and \u{202e}turn");
        assert!(made.reason().len() <= MAX_REASON_BYTES && made.reason().starts_with('é'));
        assert_eq!(made.remedy(), "bell ? and ?turn");
        let json = serde_json::to_string(&made).unwrap();
        assert_eq!(serde_json::from_str::<Refusal>(&json).unwrap(), made);

        let long =
            format!(r#"{{"party":"node","check":"a","reason":"{}","remedy":""}}"#, "x".repeat(MAX_REASON_BYTES + 1));
        for bad in [
            long.as_str(),
            r#"{"party":"node","check":"A","reason":"","remedy":""}"#,
            r#"{"party":"node","check":"","reason":"","remedy":""}"#,
            r#"{"party":"god","check":"a","reason":"","remedy":""}"#,
            r#"{"party":"node","check":"a","reason":"\u0007","remedy":""}"#,
            r#"{"party":"node","check":"a","reason":""}"#,
            r#"{"party":"node","check":"a","reason":"","remedy":"","extra":1}"#,
            r#"{"party":"node","party":"log","check":"a","reason":"","remedy":""}"#,
        ] {
            assert!(serde_json::from_str::<Refusal>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_party_is_called_as_in_json() {
        for party in [Party::Requester, Party::Workload, Party::Endorser, Party::Log] {
            assert_eq!(serde_json::to_string(&party).unwrap(), format!("\"{party}\""));
        }
    }
}
