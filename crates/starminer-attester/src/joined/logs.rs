//! The logs that go along with evidence.
//!
//! A log that cannot be read, does not lead to the registers that were signed, or does not fit into evidence is left out and noted: without it less
//! is shown, and with it nothing would be. Logs are read after the registers were signed, so that they have all that is in them.

use std::path::PathBuf;

use starminer_hardware::dcap::{Body, Quote};
use starminer_hardware::event_log::{self, Bank, EventLog, PcrValues as LogValues, Registers};
use starminer_hardware::ima::{self, IMA_REGISTER, MeasurementList};
use starminer_hardware::tpm::PcrValues;
use starminer_hardware::{Checks, Verdict, Weight};
use starminer_verify::{
    EvidenceKind, MAX_EVENT_LOG_BYTES, MAX_EVIDENCE_BYTES, MAX_EVIDENCE_WITH_LOGS_BYTES, MAX_IMA_LOG_BYTES,
};

use super::{Note, TpmLog};
use crate::logs::{LogError, Logs};

/// The code of a log that does not parse; the reason says where.
const MALFORMED: &str = "log.malformed";
/// What all logs together may take, in base64: the rest of evidence keeps the room that it has without logs.
const ROOM_BYTES: usize = MAX_EVIDENCE_WITH_LOGS_BYTES - MAX_EVIDENCE_BYTES;

/// The logs below `root`. Event logs are read in full, because what follows their last event goes; a list that evidence cannot hold is not read on.
pub(super) fn bounded(root: impl Into<PathBuf>) -> Logs {
    Logs::at(root).with_max_ima_bytes(MAX_IMA_LOG_BYTES)
}

/// A log's bytes, or why there are none.
pub(super) type Found = Result<(EvidenceKind, Vec<u8>), Note>;

/// Logs that were found, as far as there is room.
#[derive(Default)]
pub(super) struct LogParts {
    parts: Vec<(EvidenceKind, Vec<u8>)>,
    used_bytes: usize,
}

impl LogParts {
    /// Takes a log, or notes why not.
    pub(super) fn add(&mut self, found: Found, notes: &mut Vec<Note>) {
        let (kind, log) = match found {
            Ok(found) => found,
            Err(note) => return notes.push(note),
        };
        let needed_bytes = log.len().div_ceil(3) * 4;
        let longest = if kind == EvidenceKind::ImaLog { MAX_IMA_LOG_BYTES } else { MAX_EVENT_LOG_BYTES };
        if log.len() > longest || self.used_bytes + needed_bytes > ROOM_BYTES {
            let reason = format!("its {} bytes do not fit into evidence", log.len());
            return notes.push(Note { kind, code: "log.too-long", reason });
        }
        self.used_bytes += needed_bytes;
        self.parts.push((kind, log));
    }

    pub(super) fn into_parts(self) -> Vec<(EvidenceKind, Vec<u8>)> {
        self.parts
    }
}

/// A log of the machine whose TPM quoted these values.
pub(super) fn of_tpm(logs: &Logs, log: TpmLog, values: &PcrValues) -> Found {
    let values = log_values(values);
    match log {
        TpmLog::Uefi => {
            let kind = EvidenceKind::UefiLog;
            event_log(kind, logs.uefi(), Registers::Pcrs(&values))
        }
        TpmLog::Ima => {
            let kind = EvidenceKind::ImaLog;
            let bytes = logs.ima().map_err(|error| unread(kind, &error))?;
            let list = MeasurementList::parse(&bytes).map_err(|error| left_out(kind, MALFORMED, error.to_string()))?;
            if !values.banks().any(|bank| values.value(bank, IMA_REGISTER).is_some()) {
                return Err(left_out(kind, "log.registers", "PCR 10, which vouches for it, is not quoted".into()));
            }
            agrees(kind, &ima::verify(&list, Some(&values)).checks)?;
            Ok((kind, bytes))
        }
    }
}

/// The log of a trust domain's registers, which the quote has signed.
pub(super) fn cc(logs: &Logs, quote: &[u8]) -> Found {
    let kind = EvidenceKind::CcLog;
    let registers = match Quote::parse(quote) {
        Ok(quote) => match quote.unverified_body() {
            Body::Tdx(report) => report.rtmrs,
            Body::Sgx(_) => return Err(left_out(kind, "log.registers", "the quote is an enclave's".into())),
        },
        Err(error) => return Err(left_out(kind, "log.registers", format!("the quote cannot be read: {error}"))),
    };
    event_log(kind, logs.ccel(), Registers::Rtmrs(&registers))
}

/// Without what follows the last event: firmware reserves more than it uses.
fn event_log(kind: EvidenceKind, read: Result<Vec<u8>, LogError>, registers: Registers<'_>) -> Found {
    let mut bytes = read.map_err(|error| unread(kind, &error))?;
    let log = EventLog::parse(&bytes).map_err(|error| left_out(kind, MALFORMED, error.to_string()))?;
    agrees(kind, &event_log::verify(&log, registers).checks)?;
    let used_bytes = bytes.len() - log.padding_bytes();
    bytes.truncate(used_bytes);
    Ok((kind, bytes))
}

/// What a verifier will ask: everything that is required.
fn agrees(kind: EvidenceKind, checks: &Checks) -> Result<(), Note> {
    let failed =
        |check: &&starminer_hardware::Check| check.weight == Weight::Required && check.verdict != Verdict::Pass;
    match checks.as_slice().iter().find(failed) {
        None => Ok(()),
        Some(check) => Err(left_out(
            kind,
            "log.registers",
            format!("it does not lead to what was signed: {} ({})", check.reason, check.name),
        )),
    }
}

fn unread(kind: EvidenceKind, error: &LogError) -> Note {
    let reason = match error {
        LogError::Unreadable { source, .. } => format!("{error}: {source}; most logs are for root alone"),
        LogError::Missing(_) | LogError::TooLong(_) | LogError::Malformed(_) => error.to_string(),
    };
    left_out(kind, error.code(), reason)
}

fn left_out(kind: EvidenceKind, code: &'static str, reason: String) -> Note {
    Note { kind, code, reason }
}

fn log_values(values: &PcrValues) -> LogValues {
    let mut out = LogValues::new();
    for (bank, index, value) in values.iter() {
        if let Some(digest) = Bank::from_name(bank.name()).and_then(|bank| event_log::Digest::new(bank, value)) {
            out.insert(u32::from(index), digest);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_take_the_room_that_evidence_has_and_no_more() {
        use EvidenceKind::{CcLog, ImaLog, UefiLog};
        let check = |logs: &[(EvidenceKind, usize)], taken: &[EvidenceKind]| {
            let (mut found, mut notes) = (LogParts::default(), Vec::new());
            for (kind, bytes) in logs {
                found.add(Ok((*kind, vec![0; *bytes])), &mut notes);
            }
            let parts: Vec<_> = found.into_parts().iter().map(|(kind, _)| *kind).collect();
            assert_eq!(parts, taken, "{logs:?}");
            assert_eq!(notes.len(), logs.len() - taken.len());
            assert!(notes.iter().all(|note| note.code == "log.too-long"));
        };
        let (event, ima) = (MAX_EVENT_LOG_BYTES, MAX_IMA_LOG_BYTES);
        check(&[(UefiLog, event), (ImaLog, ima)], &[UefiLog, ImaLog]);
        check(&[(UefiLog, event + 1), (ImaLog, ima)], &[ImaLog]);
        check(&[(UefiLog, event), (ImaLog, ima + 1)], &[UefiLog]);
        // All three at their longest are more than evidence holds: the last one goes.
        check(&[(CcLog, event), (UefiLog, event), (ImaLog, ima)], &[CcLog, UefiLog]);
        check(&[(CcLog, event), (UefiLog, event), (ImaLog, ima - 50_000)], &[CcLog, UefiLog, ImaLog]);
    }
}
