//! Exit codes and failures: whose fault, which check, what to do.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done; for `verify`: every claim proven; for `appraise`: verified |
//! | 1 | refused or failed: a task failed, a claim is refuted, evidence is refused |
//! | 2 | the call or a file is unusable |
//! | 3 | `verify`: something is unanchored |
//! | 4 | the other side could not be reached or did not answer |
//! | 5 | this machine failed: disk, memory, permissions |
//! | 128 + n | ended by signal n: 129 SIGHUP, 130 Ctrl-C, 143 SIGTERM |

use std::fmt;

use serde_json::{Value, json};
use starminer_verify::{Party, Refusal};

/// Done.
pub const OK: u8 = 0;
/// Refused or failed.
pub const REFUSED: u8 = 1;
/// The call or a file is unusable.
pub const UNUSABLE: u8 = 2;
/// Something is unanchored.
pub const UNANCHORED: u8 = 3;
/// The other side could not be reached.
pub const UNREACHABLE: u8 = 4;
/// This machine failed.
pub const LOCAL: u8 = 5;

/// Added to the number of the signal that ended the command.
pub const SIGNALLED: u8 = 128;

/// Why a command did not do what it was asked.
#[derive(Debug, Clone)]
pub struct Failure {
    refusal: Refusal,
    exit_code: u8,
}

impl Failure {
    /// The caller gave something unusable.
    pub fn usage(check: &'static str, reason: impl fmt::Display, remedy: &str) -> Self {
        Self { refusal: Refusal::new(Party::Requester, check, reason.to_string(), remedy), exit_code: UNUSABLE }
    }

    /// This machine failed.
    pub fn local(check: &'static str, reason: impl fmt::Display, remedy: &str) -> Self {
        Self { refusal: Refusal::new(Party::Requester, check, reason.to_string(), remedy), exit_code: LOCAL }
    }

    /// The same where the command was not a requester's: it is the party whose machine this is that has to change something.
    pub fn at(self, party: Party) -> Self {
        let Self { refusal, exit_code } = self;
        if refusal.party() != Party::Requester {
            return Self { refusal, exit_code };
        }
        let (check, reason, remedy) = (refusal.check().to_owned(), refusal.reason(), refusal.remedy());
        Self { refusal: Refusal::new(party, check, reason, remedy), exit_code }
    }

    /// Somebody refused.
    pub fn refused(refusal: Refusal) -> Self {
        Self { refusal, exit_code: REFUSED }
    }

    /// The other side did not answer.
    pub fn unreachable(refusal: Refusal) -> Self {
        Self { refusal, exit_code: UNREACHABLE }
    }

    /// A signal ended the command; its exit code is the one that shells use.
    pub fn interrupted(signal: u8, reason: impl fmt::Display, remedy: &str) -> Self {
        let refusal = Refusal::new(Party::Requester, "command.interrupted", reason.to_string(), remedy.to_string());
        Self { refusal, exit_code: SIGNALLED + signal }
    }

    /// The refusal as data.
    pub fn refusal(&self) -> &Refusal {
        &self.refusal
    }

    /// For people: reason, check, fault, what to do.
    pub fn lines(&self) -> [String; 4] {
        lines(&self.refusal)
    }

    /// For scripts.
    pub fn document(&self) -> Value {
        document(&self.refusal)
    }

    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        self.exit_code
    }
}

/// Fields of a spec as remedies name them, and what sets them here. The other side does not know from where a spec came.
const SET_BY: [(&str, &str); 8] = [
    ("limits.fuel", "--fuel (`fuel` under [limits] of a job file)"),
    ("limits.memory_bytes", "--memory (`memory_mib` under [limits] of a job file)"),
    ("limits.wall_limit_ms", "--timeout (`timeout_seconds` under [limits] of a job file)"),
    ("limits.output_bytes", "`output_mib` under [limits] of a job file"),
    ("limits.scratch_bytes", "`scratch_mib` under [limits] of a job file"),
    ("limits.state_bytes", "`state_mib` under [limits] of a job file"),
    ("under accepted_simulated_roots in the policy", "with --accept-simulated"),
    ("accepted_simulated_roots", "--accept-simulated"),
];

/// A remedy in words of this command line.
fn remedy(refusal: &Refusal) -> String {
    SET_BY.iter().fold(refusal.remedy().to_string(), |text, (field, option)| text.replace(field, option))
}

/// A refusal for people.
pub fn lines(refusal: &Refusal) -> [String; 4] {
    [
        format!("  reason  {}", refusal.reason()),
        format!("  check   {}", refusal.check()),
        format!("  fault   {}", refusal.party().name()),
        format!("  do      {}", remedy(refusal)),
    ]
}

/// A refusal for scripts.
pub fn document(refusal: &Refusal) -> Value {
    json!({
        "check": refusal.check(),
        "party": refusal.party().name(),
        "reason": refusal.reason(),
        "remedy": remedy(refusal),
    })
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.refusal.check(), self.refusal.reason())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remedies_name_options_not_fields() {
        let refusal = |remedy: &str| Refusal::new(Party::Requester, "limits.wall-time", "too long", remedy.to_string());
        let said = document(&refusal("raise limits.wall_limit_ms, or give the program less to do"));
        let wanted = "raise --timeout (`timeout_seconds` under [limits] of a job file), or give the program less to do";
        assert_eq!(said["remedy"], wanted);
        let [.., said] = lines(&refusal("name this root under accepted_simulated_roots in the policy"));
        assert_eq!(said, "  do      name this root with --accept-simulated");
    }
}
