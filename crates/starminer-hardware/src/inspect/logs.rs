//! `starminer appraise eventlog` and `ima`, and the two logs as other evidence brings them.

use serde_json::{Value, json};

use super::{Fault, File, Inspection, MAX_SMALL_FILE_BYTES, Options, PolicyFile, ended, unasked};
use crate::event_log::{Bank, Digest, EventLog, PcrValues, Registers};
use crate::ima::MeasurementList;
use crate::{Checks, event_log, ima, tpm};

/// Files of a call about an event log.
#[derive(Debug, Clone, Copy)]
pub struct Eventlog<'a> {
    /// The log.
    pub log: &'a File,
    /// Values that it has to lead to.
    pub pcrs: Option<&'a File>,
}

/// Files of a call about an IMA list.
#[derive(Debug, Clone, Copy)]
pub struct Ima<'a> {
    /// The list.
    pub log: &'a File,
    /// Values that it has to lead to: register 10, and 0 to 9 for the boot aggregate.
    pub pcrs: Option<&'a File>,
}

/// Replays a UEFI event log.
#[must_use]
pub fn eventlog(given: &Eventlog<'_>, options: &Options<'_>) -> Inspection {
    let judge = || {
        let policy = options.policy.map(PolicyFile::eventlog).transpose()?;
        let pcrs = given.pcrs.map(|file| read_pcrs("eventlog", file)).transpose()?;
        let log = parse_eventlog(given.log)?;
        let mut checks = Checks::new();
        let registers = pcrs.as_ref().map_or(Registers::NotGiven, Registers::Pcrs);
        let claims = judge_eventlog(&log, registers, policy, &mut checks);
        Ok(Inspection::judged(checks, claims))
    };
    ended(judge())
}

/// Follows an IMA measurement list.
#[must_use]
pub fn ima(given: &Ima<'_>, options: &Options<'_>) -> Inspection {
    let judge = || {
        let policy = options.policy.map(PolicyFile::ima).transpose()?;
        let pcrs = given.pcrs.map(|file| read_pcrs("ima", file)).transpose()?;
        let list = parse_ima(given.log)?;
        let mut checks = Checks::new();
        let claims = judge_ima(&list, pcrs.as_ref(), policy, &mut checks);
        Ok(Inspection::judged(checks, claims))
    };
    ended(judge())
}

pub(super) fn parse_eventlog(file: &File) -> Result<EventLog<'_>, Fault> {
    EventLog::parse(&file.bytes).map_err(|error| Fault::malformed("eventlog", file, error.code(), error))
}

pub(super) fn parse_ima(file: &File) -> Result<MeasurementList<'_>, Fault> {
    MeasurementList::parse(&file.bytes).map_err(|error| Fault::malformed("ima", file, error.code(), error))
}

/// Adds the checks of a log; gives its claims, or an empty object where it does not lead to the registers.
pub(super) fn judge_eventlog(
    log: &EventLog<'_>,
    registers: Registers<'_>,
    policy: Option<&event_log::Policy>,
    checks: &mut Checks,
) -> Value {
    let verification = event_log::verify(log, registers);
    checks.extend(verification.checks);
    let Some(verified) = verification.verified else { return json!({}) };
    match policy {
        Some(policy) => checks.extend(event_log::appraise(&verified, policy)),
        None => checks.extend(unasked(&event_log::appraise(&verified, &event_log::Policy::default()), &[])),
    }
    verified.to_json()
}

/// The same of a list.
pub(super) fn judge_ima(
    list: &MeasurementList<'_>,
    registers: Option<&PcrValues>,
    policy: Option<&ima::Policy>,
    checks: &mut Checks,
) -> Value {
    let verification = ima::verify(list, registers);
    checks.extend(verification.checks);
    let Some(verified) = verification.verified else { return json!({}) };
    match policy {
        Some(policy) => checks.extend(ima::appraise(&verified, policy)),
        None => checks.extend(unasked(&ima::appraise(&verified, &ima::Policy::default()), &[])),
    }
    verified.to_json()
}

/// Reads register values: JSON, or what `tpm2_quote -o` writes.
fn read_pcrs(kind: &str, file: &File) -> Result<PcrValues, Fault> {
    const CODE: &str = "pcrs.malformed";
    if file.bytes.len() > MAX_SMALL_FILE_BYTES {
        return Err(Fault::malformed(kind, file, CODE, "longer than register values are"));
    }
    if file.bytes.trim_ascii_start().first() == Some(&b'{') {
        return PcrValues::from_json(&file.bytes).map_err(|error| Fault::malformed(kind, file, CODE, error));
    }
    tpm::PcrValues::parse(&file.bytes, &[])
        .map(|values| registers_of(&values))
        .map_err(|error| Fault::malformed(kind, file, CODE, error))
}

/// Values of a TPM's registers as logs take them.
pub(super) fn registers_of(values: &tpm::PcrValues) -> PcrValues {
    let mut registers = PcrValues::new();
    for (bank, index, value) in values.iter() {
        if let Some(digest) = Bank::from_name(bank.name()).and_then(|bank| Digest::new(bank, value)) {
            registers.insert(u32::from(index), digest);
        }
    }
    registers
}
