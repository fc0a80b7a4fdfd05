//! `starminer appraise tpm`: a quote, and the logs that explain what it quotes.

use super::logs::{self, registers_of};
use super::{Fault, File, Inspection, Options, PolicyFile, ended, unappraised, unasked};
use crate::event_log::{self, Bank, EventLog, Registers};
use crate::ima::{self, Form, IMA_REGISTER, MeasurementList};
use crate::tpm::{
    AttestationKey, Context, HashAlg, Parent, PcrIndex, PcrValues, Policy, Quote, Signature, Verification, appraise,
    verify,
};
use crate::{Checks, Verdict, Weight};

/// Registers of a dynamic launch, which are ones until there was any (PC Client Platform TPM Profile 4.6.2).
const DYNAMIC_REGISTERS: std::ops::RangeInclusive<u8> = 17..=22;

/// Files of a call.
#[derive(Debug, Clone, Copy)]
pub struct Tpm<'a> {
    /// The attested structure.
    pub quote: &'a File,
    /// The signature over it.
    pub signature: &'a File,
    /// The attestation key: the TPM's public area of it, or the key alone.
    pub ak: &'a File,
    /// The nonce that was asked with.
    pub nonce: &'a [u8],
    /// Values of the registers that were quoted.
    pub pcrs: Option<&'a File>,
    /// The UEFI event log.
    pub eventlog: Option<&'a File>,
    /// The IMA list.
    pub ima: Option<&'a File>,
}

/// Judges a quote of a TPM.
#[must_use]
pub fn tpm(given: &Tpm<'_>, options: &Options<'_>) -> Inspection {
    ended(judge(given, options))
}

fn judge(given: &Tpm<'_>, options: &Options<'_>) -> Result<Inspection, Fault> {
    let policy = options.policy.map(PolicyFile::tpm).transpose()?;
    let log_policy = options.policy.filter(|_| given.eventlog.is_some()).map(PolicyFile::eventlog).transpose()?;
    let list_policy = options.policy.filter(|_| given.ima.is_some()).map(PolicyFile::ima).transpose()?;
    let malformed = |file: &File, error: crate::tpm::ParseError| Fault::malformed("tpm", file, error.code(), error);
    let ak = AttestationKey::parse(&given.ak.bytes).map_err(|error| malformed(given.ak, error))?;
    Signature::parse(&given.signature.bytes).map_err(|error| malformed(given.signature, error))?;
    let quote =
        Quote::parse(&given.quote.bytes, &given.signature.bytes).map_err(|error| malformed(given.quote, error))?;
    let pcrs = given
        .pcrs
        .map(|file| PcrValues::parse(&file.bytes, quote.selections()).map_err(|error| malformed(file, error)))
        .transpose()?;
    let log = given.eventlog.map(logs::parse_eventlog).transpose()?;
    let list = given.ima.map(logs::parse_ima).transpose()?;

    let against = |pcrs: Option<&PcrValues>| {
        verify(&quote, &Context { nonce: given.nonce, ak: &ak, parent: Parent::Unknown, pcrs, maker: None })
    };
    let explained = match (&pcrs, &log, &list) {
        (None, None, None) | (Some(_), ..) => None,
        _ => explain(&quote, log.as_ref(), list.as_ref(), |values| against(Some(values))),
    };
    let from_logs = explained.is_some();
    let verification = explained.unwrap_or_else(|| against(pcrs.as_ref()));
    let mut checks = verification.checks;
    let Some(verified) = verification.verified else {
        unappraised(&mut checks, "tpm", options);
        return Ok(Inspection::refused(checks));
    };
    if from_logs {
        let reason = "no values were given; those that the logs lead to are the quoted ones";
        checks.push("tpm.pcr-values", Verdict::Pass, Weight::Informative, reason);
    }
    match policy {
        Some(policy) => checks.extend(appraise(&verified, policy)),
        None => checks.extend(unasked(&appraise(&verified, &Policy::default()), &[])),
    }
    let mut claims = verified.claims().to_json();
    let quoted = verified.pcrs().map(registers_of);
    match (&log, &quoted) {
        (Some(log), Some(quoted)) => {
            claims["eventlog"] = logs::judge_eventlog(log, Registers::Pcrs(quoted), log_policy, &mut checks);
        }
        (Some(_), None) => unexplained(&mut checks, "tpm.eventlog", UNKNOWN_VALUES),
        (None, _) if options.policy.is_some_and(PolicyFile::has_eventlog) => {
            unexplained(&mut checks, "tpm.eventlog", "the policy has a section [eventlog], and no log was given");
        }
        (None, _) => checks.not_checked("tpm.eventlog", "no event log was given"),
    }
    match (&list, &quoted) {
        (Some(list), Some(quoted)) if quoted.banks().any(|bank| quoted.value(bank, IMA_REGISTER).is_some()) => {
            claims["ima"] = logs::judge_ima(list, Some(quoted), list_policy, &mut checks);
            // A register that is as after a reset agrees with the beginning of any list.
            if claims["ima"]["entries"] == 0 && !list.is_empty() {
                checks.require("tpm.ima", Err("the quote vouches for none of its entries"));
            }
        }
        (Some(_), Some(_)) => {
            unexplained(&mut checks, "tpm.ima", "register 10 is not quoted: nothing vouches for the list")
        }
        (Some(_), None) => unexplained(&mut checks, "tpm.ima", UNKNOWN_VALUES),
        (None, _) if options.policy.is_some_and(PolicyFile::has_ima) => {
            unexplained(&mut checks, "tpm.ima", "the policy has a section [ima], and no list was given");
        }
        (None, _) => checks.not_checked("tpm.ima", "no IMA list was given"),
    }
    Ok(Inspection::judged(checks, claims))
}

const UNKNOWN_VALUES: &str =
    "the quoted values are not known, and the logs alone do not lead to them: give the values with --pcrs";

/// A log that the quote does not vouch for, or that is missing: nothing is claimed of it, and the whole is refused.
fn unexplained(checks: &mut Checks, name: &'static str, reason: &'static str) {
    checks.push(name, Verdict::NotChecked, Weight::Required, reason);
}

/// Verifies the quote with values that the logs lead to, where no values were given. Logs have two readings each at most; what they say nothing of
/// is as after a reset.
fn explain(
    quote: &Quote,
    log: Option<&EventLog<'_>>,
    list: Option<&MeasurementList<'_>>,
    verify: impl Fn(&PcrValues) -> Verification,
) -> Option<Verification> {
    let log = match log {
        Some(log) => Some(event_log::verify(log, Registers::NotGiven).verified?),
        None => None,
    };
    let list = match list {
        Some(list) => Some(ima::verify(list, None).verified?),
        None => None,
    };
    for with_locality in [true, false] {
        for form in [Form::Own, Form::PaddedSha1] {
            let value = |bank: HashAlg, index: u8| -> Option<Vec<u8>> {
                let log_bank = Bank::from_name(bank.name())?;
                let register = u32::from(index);
                if let Some(list) = list.as_ref().filter(|_| register == IMA_REGISTER) {
                    let mut readings = list.pcr10().iter();
                    return readings
                        .find(|(bank, found, _)| *bank == log_bank && *found == form)
                        .map(|(_, _, digest)| digest.as_bytes().to_vec());
                }
                let replayed = log.as_ref().and_then(|log| {
                    let located = log.pcrs_with_startup_locality().value(log_bank, register);
                    located.filter(|_| with_locality).or_else(|| log.pcrs().value(log_bank, register))
                });
                let reset = if DYNAMIC_REGISTERS.contains(&index) { 0xff } else { 0 };
                Some(replayed.map_or_else(|| vec![reset; bank.len_bytes()], |digest| digest.as_bytes().to_vec()))
            };
            let mut values = PcrValues::default();
            for selection in quote.selections() {
                for index in selection.indices() {
                    values.insert(selection.bank, PcrIndex::new(index)?, value(selection.bank, index)?).ok()?;
                }
            }
            let verification = verify(&values);
            if verification.verified.is_some() {
                return Some(verification);
            }
        }
    }
    None
}
