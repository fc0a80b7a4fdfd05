//! The log's part of a receipt: the checkpoint, the entries under it, their order, and what of them the receipt has not.

use starminer_log::{SignedCheckpoint, VerifiedCheckpoint};
use starminer_verify::{Attempt, Digest, UnixTime};

use super::{ClaimVerdict, Verifier, Voucher};
use crate::dsse::Signed;
use crate::entry::{EntryKind, LogEntry};
use crate::spec::TaskSpec;

/// The log entries of the receipt, in the order of the log.
pub(super) struct Entries(pub(super) Vec<(u64, LogEntry)>);

impl Entries {
    pub(super) fn find(&self, kind: EntryKind, statement: Digest) -> Option<&(u64, LogEntry)> {
        self.0.iter().find(|(_, entry)| entry.kind == kind && entry.statement == statement)
    }

    /// The statement of the last checkpoint that was logged before this attempt.
    pub(super) fn newest_checkpoint_before(&self, attempt: Attempt) -> Option<Digest> {
        let before = |entry: &LogEntry| entry.attempt.is_some_and(|of| of < attempt);
        let mut newest = self.0.iter().rev().map(|(_, entry)| entry);
        newest.find(|entry| entry.kind == EntryKind::Checkpointed && before(entry)).map(|entry| entry.statement)
    }

    pub(super) fn has(&self, kind: EntryKind, attempt: Attempt) -> bool {
        self.0.iter().any(|(_, entry)| entry.kind == kind && entry.attempt == Some(attempt))
    }
}

impl Verifier<'_> {
    /// Verifies the checkpoint and every entry under it.
    pub(super) fn log(&mut self, spec: &Signed<TaskSpec>) -> (Option<VerifiedCheckpoint>, Entries) {
        let empty = || Entries(Vec::new());
        let signed = match SignedCheckpoint::parse(self.receipt.checkpoint.as_bytes()) {
            Ok(signed) => signed,
            Err(error) => {
                self.claim("log", ClaimVerdict::Refuted, Voucher::Log, error);
                return (None, empty());
            }
        };
        let Some(trust) = self.trust else {
            self.claim("log", ClaimVerdict::Unanchored, Voucher::Log, "no trust file of this network names a log key");
            // Entries still have to be entries of this task, so that nothing nonsensical is shown as merely unanchored.
            return (None, self.parse_entries(spec).unwrap_or_else(empty));
        };
        if signed.claimed_origin() != trust.log_key().name() {
            self.claim(
                "log",
                ClaimVerdict::Unanchored,
                Voucher::Log,
                "the checkpoint is of a log that your trust file does not name",
            );
            return (None, self.parse_entries(spec).unwrap_or_else(empty));
        }
        let checkpoint = match signed.verify(trust.log_key()) {
            Ok(checkpoint) => checkpoint,
            Err(error) => {
                self.claim("log", ClaimVerdict::Refuted, Voucher::Log, error);
                return (None, empty());
            }
        };
        let Some(entries) = self.parse_entries(spec) else { return (Some(checkpoint), empty()) };
        for logged in &self.receipt.entries {
            if let Err(error) = checkpoint.verify_inclusion(&logged.entry.0, &logged.inclusion) {
                self.claim(
                    "log",
                    ClaimVerdict::Refuted,
                    Voucher::Log,
                    format!("entry {}: {error}", logged.inclusion.index()),
                );
                return (Some(checkpoint), empty());
            }
        }
        let statement = format!(
            "all {} entries of this task are in the log of {} entries, checkpoint signed by {}",
            entries.0.len(),
            checkpoint.size(),
            trust.log_key().name().as_str()
        );
        self.claim("log", ClaimVerdict::Proven, Voucher::Log, statement);
        (Some(checkpoint), entries)
    }

    fn parse_entries(&mut self, spec: &Signed<TaskSpec>) -> Option<Entries> {
        let mut entries: Vec<(u64, LogEntry)> = Vec::with_capacity(self.receipt.entries.len());
        for logged in &self.receipt.entries {
            let index = logged.inclusion.index();
            let entry = match LogEntry::parse(&logged.entry.0) {
                Ok(entry) if entry.task == Some(spec.task) => entry,
                Ok(_) => {
                    self.claim("log", ClaimVerdict::Refuted, Voucher::Log, format!("entry {index} is of another task"));
                    return None;
                }
                Err(reason) => {
                    self.claim("log", ClaimVerdict::Refuted, Voucher::Log, format!("entry {index}: {reason}"));
                    return None;
                }
            };
            if entries.last().is_some_and(|(last, before)| *last >= index || before.at > entry.at) {
                self.claim("log", ClaimVerdict::Refuted, Voucher::Log, "entries are not in the order of the log");
                return None;
            }
            let expected = entries.len();
            if entry.step.is_none_or(|step| step as usize != expected) {
                let statement = format!("entry {index} is not number {expected} of this task: others are missing");
                self.claim("log", ClaimVerdict::Refuted, Voucher::Log, statement);
                return None;
            }
            if entries.last().is_some_and(|(_, before)| before.ends) {
                let statement = format!("entry {index} comes after the one that ended the task");
                self.claim("log", ClaimVerdict::Refuted, Voucher::Log, statement);
                return None;
            }
            entries.push((index, entry));
        }
        if entries.last().is_none_or(|(_, last)| !last.ends) {
            self.claim("log", ClaimVerdict::Refuted, Voucher::Log, "the entry that ended this task is missing");
            return None;
        }
        Some(Entries(entries))
    }

    /// Whether a statement is in the log, as far as the log is anchored.
    pub(super) fn logged(&mut self, name: &'static str, entries: &Entries, kind: EntryKind, statement: Digest) {
        let anchored = self.log_anchored();
        match entries.find(kind, statement) {
            Some((index, entry)) => {
                let verdict = if anchored { ClaimVerdict::Proven } else { ClaimVerdict::Unanchored };
                self.claim(name, verdict, Voucher::Log, format!("entry {index}, {}", at(entry.at)));
            }
            None => self.claim(name, ClaimVerdict::Refuted, Voucher::Log, "the log has no such entry"),
        }
    }

    fn log_anchored(&self) -> bool {
        self.verdict.claims.iter().any(|claim| claim.name == "log" && claim.verdict == ClaimVerdict::Proven)
    }

    /// What the log has of the last attempt and of the task's end, and this receipt has not: it cannot be told what it said.
    pub(super) fn left_out(&mut self, entries: &Entries) {
        let receipt = self.receipt;
        let last = entries.0.iter().filter_map(|(_, entry)| entry.attempt).max();
        let of_end = entries.0.iter().filter(|(_, entry)| entry.attempt == last || entry.ends);
        let missing: Vec<&'static str> = of_end
            .filter_map(|(_, entry)| {
                let (name, present) = match entry.kind {
                    EntryKind::Leased => ("lease", receipt.lease.is_some()),
                    EntryKind::Challenged => ("challenge", receipt.challenge.is_some()),
                    EntryKind::Attested => ("evidence", receipt.evidence.is_some()),
                    EntryKind::Released => ("release", receipt.release.is_some()),
                    EntryKind::Granted => ("grant", receipt.grant.is_some()),
                    EntryKind::Denied => ("denial", receipt.denial.is_some()),
                    EntryKind::Reported => ("report", receipt.report.is_some()),
                    EntryKind::Cancelled => ("cancellation", receipt.cancel.is_some()),
                    EntryKind::Genesis
                    | EntryKind::Admitted
                    | EntryKind::Enrolled
                    | EntryKind::Suspended
                    | EntryKind::Rules
                    | EntryKind::Published
                    | EntryKind::Checkpointed
                    | EntryKind::Submitted
                    | EntryKind::Expired => {
                        return None;
                    }
                };
                (!present).then_some(name)
            })
            .collect();
        for name in missing {
            let statement = "the log has it, and this receipt has not: what it said cannot be told";
            match self.verdict.claims.iter_mut().find(|claim| claim.name == name) {
                Some(claim) => {
                    claim.verdict = claim.verdict.max(ClaimVerdict::Unanchored);
                    claim.voucher = Voucher::Nobody;
                    claim.statement = statement.into();
                }
                None => self.claim(name, ClaimVerdict::Unanchored, Voucher::Nobody, statement),
            }
        }
    }

    pub(super) fn order(&mut self, entries: &Entries) {
        let last = entries.0.iter().filter_map(|(_, entry)| entry.attempt).max();
        let step = |kind: EntryKind| match kind {
            EntryKind::Leased => Some((1, "lease")),
            EntryKind::Challenged => Some((2, "challenge")),
            EntryKind::Attested => Some((3, "evidence")),
            EntryKind::Released => Some((4, "release")),
            EntryKind::Granted => Some((5, "grant")),
            EntryKind::Reported => Some((6, "report")),
            _ => None,
        };
        let steps: Vec<(u8, &str)> = entries
            .0
            .iter()
            .filter(|(_, entry)| entry.attempt == last)
            .filter_map(|(_, entry)| step(entry.kind))
            .collect();
        let names = steps.iter().map(|(_, name)| *name).collect::<Vec<_>>().join(", ");
        let (verdict, statement) = if steps.is_empty() {
            (ClaimVerdict::NotClaimed, "this receipt has no step of an attempt".into())
        } else if !steps.windows(2).all(|pair| pair[0].0 < pair[1].0) {
            (
                ClaimVerdict::Refuted,
                format!("the log has the steps of the last attempt in an impossible order: {names}"),
            )
        } else if self.log_anchored() {
            (ClaimVerdict::Proven, format!("the steps of the last attempt stand in the log in their order: {names}"))
        } else {
            (ClaimVerdict::Unanchored, "the order is that of a log your trust does not name".into())
        };
        self.claim("order", verdict, Voucher::Log, statement);
    }

    pub(super) fn witnesses(&mut self, checkpoint: Option<&VerifiedCheckpoint>) {
        let Some(trust) = self.trust.filter(|trust| trust.log.witness_quorum > 0) else {
            let statement = "no witness is named: time and order are the coordinator's word";
            self.claim("witnesses", ClaimVerdict::NotClaimed, Voucher::Coordinator, statement);
            return;
        };
        let Some(checkpoint) = checkpoint else {
            self.claim("witnesses", ClaimVerdict::Unanchored, Voucher::Nobody, "no verified checkpoint to cosign");
            return;
        };
        match checkpoint.verify_witnesses(trust.witness_keys(), trust.log.witness_quorum) {
            Ok(cosignatures) => {
                let statement = format!("{} witnesses cosigned the checkpoint", cosignatures.len());
                self.claim("witnesses", ClaimVerdict::Proven, Voucher::Witnesses, statement);
            }
            Err(error) => self.claim("witnesses", ClaimVerdict::Unanchored, Voucher::Coordinator, error),
        }
    }
}

/// A log time for people.
pub(super) fn at(time: UnixTime) -> String {
    let nanos = i128::from(time.as_millis()) * 1_000_000;
    time::OffsetDateTime::from_unix_timestamp_nanos(nanos)
        .ok()
        .and_then(|time| time.format(&time::format_description::well_known::Rfc3339).ok())
        .unwrap_or_else(|| format!("{time} ms"))
}
