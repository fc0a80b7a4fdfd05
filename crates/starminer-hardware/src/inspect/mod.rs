//! The commands `starminer appraise …`: files and options in, a verdict with every check and claim out.
//!
//! One function a command. What is to be judged (evidence, certificates, revocation lists, manifests) and is not what it should be *refuses*: whoever
//! made it is at fault. An *error* is a call that cannot be made: an option, a policy, or a root of the caller's that cannot be read.
//!
//! Without a policy, signatures, chains, dates, replays and consistency decide: that evidence is genuine, not that it is good enough. What only a policy
//! can judge is listed as not checked; an open debugger, which makes evidence worthless for most, is told all the same. With one, everything that it asks for has to be shown.
//!
//! Not here: reading files, the clock, and tables for people.

mod authorities;
mod dcap;
mod endorsements;
mod logs;
mod nvidia;
mod policy;
mod snp;
mod tpm;
mod tpm_ek;

use serde_json::{Value, json};

pub use authorities::Authorities;
pub use dcap::{Dcap, dcap};
pub use logs::{Eventlog, Ima, eventlog, ima};
pub use nvidia::{Nvidia, nvidia};
pub use policy::{MAX_POLICY_BYTES, PolicyFile};
pub use snp::{Snp, snp};
pub use tpm::{Tpm, tpm};
pub use tpm_ek::{TpmEk, tpm_ek};

use crate::{Check, Checks, Weight};

/// The longest report of SEV-SNP, quote of a TPM, its signature, key or register values that is looked at.
pub const MAX_SMALL_FILE_BYTES: usize = 128 * 1024;
/// The most files of one kind in a call.
pub const MAX_FILES: usize = 64;
/// The most bytes of a nonce.
pub const MAX_NONCE_BYTES: usize = 64;

/// The reason of checks that are for a policy to make, where there is none.
pub const NO_POLICY: &str = "no policy was given";

/// A file that was given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct File {
    /// As people know it: its path.
    pub name: String,
    /// What it holds.
    pub bytes: Vec<u8>,
}

/// What every command takes.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// Seconds since 1970 at which everything is judged.
    pub now_s: u64,
    /// What is asked for.
    pub policy: Option<&'a PolicyFile>,
}

/// How it came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Everything that was asked for holds.
    Verified,
    /// Something does not, or was not shown.
    Refused,
    /// The call could not be made.
    Error,
}

impl Verdict {
    /// The name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Refused => "refused",
            Self::Error => "error",
        }
    }

    /// The exit code of the command.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Verified => 0,
            Self::Refused => 1,
            Self::Error => 2,
        }
    }
}

/// Why a call cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{reason}", .input.as_ref().map_or_else(String::new, |input| format!("{input}: ")))]
pub struct InputError {
    /// Stable and dotted.
    pub code: &'static str,
    /// The file or option at fault.
    pub input: Option<String>,
    /// Why.
    pub reason: String,
    /// What to do.
    pub remedy: &'static str,
}

impl InputError {
    /// About a file or an option.
    #[must_use]
    pub fn new(
        code: &'static str,
        input: impl Into<String>,
        reason: impl std::fmt::Display,
        remedy: &'static str,
    ) -> Self {
        Self { code, input: Some(input.into()), reason: reason.to_string(), remedy }
    }
}

/// What a command came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    verdict: Verdict,
    checks: Checks,
    claims: Value,
    error: Option<InputError>,
}

impl From<InputError> for Inspection {
    fn from(error: InputError) -> Self {
        Self { verdict: Verdict::Error, checks: Checks::new(), claims: json!({}), error: Some(error) }
    }
}

impl Inspection {
    /// Evidence that verified, with what it says and every check made of it: these decide.
    fn judged(checks: Checks, claims: Value) -> Self {
        let verdict = if checks.hold() { Verdict::Verified } else { Verdict::Refused };
        Self { verdict, checks, claims, error: None }
    }

    /// Evidence that did not verify: nothing of it is claimed.
    fn refused(checks: Checks) -> Self {
        Self { verdict: Verdict::Refused, checks, claims: json!({}), error: None }
    }

    /// How it came out.
    #[must_use]
    pub const fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Every check, in the order in which they were made.
    #[must_use]
    pub const fn checks(&self) -> &Checks {
        &self.checks
    }

    /// What verified evidence says; an empty object of any other.
    #[must_use]
    pub const fn claims(&self) -> &Value {
        &self.claims
    }

    /// Why the call could not be made.
    #[must_use]
    pub const fn error(&self) -> Option<&InputError> {
        self.error.as_ref()
    }

    /// The document for scripts.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let checks: Vec<Value> = self
            .checks
            .as_slice()
            .iter()
            .map(|check| {
                let (verdict, reason) = shown(check);
                json!({ "name": check.name, "verdict": verdict.name(), "reason": reason })
            })
            .collect();
        let mut document = json!({ "verdict": self.verdict.name(), "checks": checks, "claims": self.claims });
        if let Some(error) = &self.error {
            document["error"] = json!({
                "code": error.code, "input": error.input, "reason": error.reason, "remedy": error.remedy,
            });
        }
        document
    }
}

/// Verdict and reason as they are told. A check that is not required and does not hold decides nothing, so that it is not shown as a
/// failure: whoever reads `fail` reads the reason for a refusal.
#[must_use]
pub fn shown(check: &Check) -> (crate::Verdict, String) {
    match (check.verdict, check.weight) {
        (crate::Verdict::Fail, Weight::Informative) => {
            (crate::Verdict::NotChecked, format!("not required: {}", check.reason))
        }
        (verdict, _) => (verdict, check.reason.clone().into_owned()),
    }
}

/// Why a command ends before there is evidence to verify.
enum Fault {
    /// The call cannot be made.
    Input(InputError),
    /// What was given to be judged is not what it should be.
    Malformed(Checks),
}

impl From<InputError> for Fault {
    fn from(error: InputError) -> Self {
        Self::Input(error)
    }
}

impl Fault {
    /// A file to be judged that does not parse: the one place that decides that this refuses.
    fn malformed(kind: &str, file: &File, code: &str, reason: impl std::fmt::Display) -> Self {
        let mut checks = Checks::new();
        checks.require(format!("{kind}.input"), Err(format!("{}: {reason} [{code}]", file.name)));
        Self::Malformed(checks)
    }
}

impl From<Fault> for Inspection {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Input(error) => error.into(),
            Fault::Malformed(checks) => Self::refused(checks),
        }
    }
}

/// Makes an inspection of either way that it may end.
fn ended(result: Result<Inspection, Fault>) -> Inspection {
    result.unwrap_or_else(Inspection::from)
}

/// Checks of a policy's where there is none: what nobody asked for is not checked. Those that are named are told, and decide nothing.
fn unasked(appraised: &Checks, told: &[&str]) -> Checks {
    let mut checks = Checks::new();
    for check in appraised.as_slice() {
        if told.contains(&&*check.name) {
            checks.push(check.name.clone(), check.verdict, Weight::Informative, check.reason.clone());
        } else {
            checks.not_checked(check.name.clone(), NO_POLICY);
        }
    }
    checks
}

/// That nothing was appraised because it did not verify.
fn unappraised(checks: &mut Checks, kind: &str, options: &Options<'_>) {
    if options.policy.is_some() {
        let reason = "not appraised, since it does not verify";
        checks.push(format!("{kind}.policy"), crate::Verdict::NotChecked, Weight::Required, reason);
    }
}

/// A time: seconds since 1970, or RFC 3339.
///
/// # Errors
/// Where it is neither.
pub fn parse_time(text: &str) -> Result<u64, InputError> {
    let wrong = |reason: &str| {
        InputError::new(
            "call.time",
            "--at",
            format!("{text:?} {reason}"),
            "give a time such as 2026-01-31T12:00:00Z, or seconds since 1970",
        )
    };
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let seconds: Option<u64> = text.parse().ok().filter(|seconds| i64::try_from(*seconds).is_ok());
        return seconds.ok_or_else(|| wrong("is beyond any clock"));
    }
    let time = time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339)
        .map_err(|_| wrong("is neither RFC 3339 nor seconds since 1970"))?;
    u64::try_from(time.unix_timestamp()).map_err(|_| wrong("is before 1970"))
}

/// A nonce in hexadecimal.
///
/// # Errors
/// Where it is none, is empty, or longer than any.
pub fn parse_nonce(text: &str) -> Result<Vec<u8>, InputError> {
    let wrong = |reason: String| {
        InputError::new("call.nonce", "--nonce", reason, "give the nonce that was asked with, in hexadecimal")
    };
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let bytes = data_encoding::HEXLOWER_PERMISSIVE
        .decode(digits.as_bytes())
        .map_err(|_| wrong("it is no hexadecimal of whole bytes".to_owned()))?;
    match bytes.len() {
        0 => Err(wrong("it is empty".to_owned())),
        1..=MAX_NONCE_BYTES => Ok(bytes),
        more => Err(wrong(format!("it has {more} bytes, of at most {MAX_NONCE_BYTES}"))),
    }
}
