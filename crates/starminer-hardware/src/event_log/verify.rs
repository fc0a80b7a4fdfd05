//! Holding a log against the registers that something signed.

use std::collections::BTreeMap;

use super::EventKind;
use super::bank::{Bank, Digest};
use super::coverage::Coverage;
use super::facts::{self, Facts, Layout};
use super::parse::{EventLog, Format};
use super::pcrs::PcrValues;
use super::replay::{self, Replay};
use crate::{Checks, Verdict, Weight};

/// What systemd extends into register 11 as it boots, in its order.
const BOOT_PHASES: [&str; 6] = ["enter-initrd", "leave-initrd", "sysinit", "ready", "shutdown", "final"];

/// What the log has to lead to.
#[derive(Debug, Clone, Copy)]
pub enum Registers<'r> {
    /// Nothing was given: what the log says is then its own word.
    NotGiven,
    /// Values of a TPM's registers, from a quote that was verified.
    Pcrs(&'r PcrValues),
    /// The run-time measurement registers of a confidential VM, from its quote.
    Rtmrs(&'r [[u8; 48]; 4]),
}

/// What verification came to.
#[derive(Debug, Clone)]
pub struct Verification {
    /// Every check, with its verdict.
    pub checks: Checks,
    /// What may be claimed, if every required check passed.
    pub verified: Option<Verified>,
}

/// A log that leads to the registers that were given, and what its events prove. Only [`verify`] makes one.
#[derive(Debug, Clone)]
pub struct Verified {
    pub(super) facts: Facts,
    pub(super) replayed: PcrValues,
    /// Register 0 with the startup locality, where `replayed` has it in the literal reading.
    pub(super) profile_register_0: PcrValues,
    pub(super) anchored: Option<BTreeMap<u32, Vec<Bank>>>,
    pub(super) layout: Layout,
    pub(super) format: Format,
    pub(super) startup_locality: Option<u8>,
    pub(super) boot_phases: Vec<&'static str>,
    pub(super) padding_bytes: usize,
}

/// Replays the log, compares it with the registers, and gathers what its events prove.
///
/// The registers are compared first, on digests alone; data is hashed only for a log that leads there.
#[must_use]
pub fn verify(log: &EventLog<'_>, registers: Registers<'_>) -> Verification {
    let mut checks = Checks::new();
    let replayed = replay::replay(log);
    checks.require("eventlog.format", Ok(describe(log)));
    let locality = match (replayed.locality_fault, replayed.startup_locality) {
        (Some(fault), _) => Err(fault.to_owned()),
        (None, Some(locality)) => Ok(format!("register 0 starts from locality {locality}")),
        (None, None) => Ok("no event names a startup locality: register 0 starts from 0".to_owned()),
    };
    checks.require("eventlog.startup-locality", locality);
    let complete = match replayed.incomplete.first() {
        None => Ok("every event has a digest of every bank".to_owned()),
        Some((bank, index)) => Err(format!("register {index} has events without a digest of {}", bank.name())),
    };
    // An incomplete bank is no contradiction: what was given of it counts as not replayed below.
    let (verdict, reason) = match complete {
        Ok(reason) => (Verdict::Pass, reason),
        Err(reason) => (Verdict::Fail, reason),
    };
    checks.push("eventlog.banks", verdict, Weight::Informative, reason);
    let mut boot_phases = Vec::new();
    let (layout, anchored) = match registers {
        Registers::NotGiven => {
            checks.not_checked("eventlog.registers", "no values of registers were given: the log is its own word");
            (Layout::Tpm, None)
        }
        Registers::Pcrs(values) => (Layout::Tpm, Some(compare_pcrs(&replayed, values, &mut checks, &mut boot_phases))),
        Registers::Rtmrs(values) => (Layout::ConfidentialVm, Some(compare_rtmrs(log, values, &mut checks))),
    };
    if checks.as_slice().iter().any(|check| check.weight == Weight::Required && check.verdict != Verdict::Pass) {
        return Verification { checks, verified: None };
    }
    let facts = facts::gather(log, layout, |register| match &anchored {
        None => log.banks().to_vec(),
        Some(anchored) => anchored.get(&register).cloned().unwrap_or_default(),
    });
    check_data(&facts, layout, &mut checks);
    let (values, profile_register_0) = readings(replayed.values, &replayed.literal_register_0, registers);
    let verified = checks.hold().then(|| Verified {
        facts,
        replayed: values,
        profile_register_0,
        anchored,
        layout,
        format: log.format(),
        startup_locality: replayed.startup_locality,
        boot_phases,
        padding_bytes: log.padding_bytes(),
    });
    Verification { checks, verified }
}

/// Which values of register 0 to claim, and in which reading: those that were given, or without them the ones of `tpm2_eventlog`, so that the
/// two tools agree on a log; the profile's are told beside them.
fn readings(values: PcrValues, literal: &PcrValues, registers: Registers<'_>) -> (PcrValues, PcrValues) {
    let mut claimed = PcrValues::new();
    let mut by_profile = PcrValues::new();
    for bank in values.banks() {
        for (index, value) in values.of_bank(bank) {
            let literal = literal.value(bank, index).filter(|literal| match registers {
                Registers::NotGiven => true,
                Registers::Pcrs(given) => given.value(bank, index) == Some(*literal),
                Registers::Rtmrs(_) => false,
            });
            claimed.insert(index, *literal.unwrap_or(value));
            if literal.is_some() {
                by_profile.insert(index, *value);
            }
        }
    }
    (claimed, by_profile)
}

fn describe(log: &EventLog<'_>) -> String {
    let banks: Vec<_> = log.banks().iter().map(|bank| bank.name()).collect();
    let format = match log.format() {
        Format::Legacy => "SHA-1 alone",
        Format::CryptoAgile => "crypto-agile",
    };
    format!("{} events, {format}: {}", log.len(), banks.join(", "))
}

/// Compares register by register; says which agree in which banks.
fn compare_pcrs(
    replayed: &Replay,
    given: &PcrValues,
    checks: &mut Checks,
    boot_phases: &mut Vec<&'static str>,
) -> BTreeMap<u32, Vec<Bank>> {
    let mut anchored: BTreeMap<u32, Vec<Bank>> = BTreeMap::new();
    for bank in given.banks() {
        let name = format!("eventlog.registers.{}", bank.name());
        if replayed.values.of_bank(bank).next().is_none() {
            checks.not_checked(name, "the log has no digests of this bank");
            continue;
        }
        let mut differing = Vec::new();
        let mut silent = Vec::new();
        let mut agreeing = 0;
        for (index, value) in given.of_bank(bank) {
            let expected = match replayed.values.value(bank, index) {
                Some(expected) => *expected,
                // Firmware that extends nothing leaves its registers as they were; of the others it says nothing.
                None if index < 8 && !replayed.incomplete.contains(&(bank, index)) => {
                    replay::start(bank, index, replayed.startup_locality)
                }
                None => {
                    silent.push(index.to_string());
                    continue;
                }
            };
            let literal = index == 0 && replayed.literal_register_0.value(bank, 0) == Some(value);
            let phases = match index {
                11 => phases_to(&expected, value),
                _ => (expected == *value || literal).then_some(0),
            };
            match phases {
                Some(phases) => {
                    if index == 11 {
                        *boot_phases = BOOT_PHASES[..phases].to_vec();
                    }
                    agreeing += 1;
                    anchored.entry(index).or_default().push(bank);
                }
                None => differing.push(index.to_string()),
            }
        }
        if !silent.is_empty() {
            checks.not_checked(
                format!("{name}.silent"),
                format!("the log has no events of registers {}", silent.join(", ")),
            );
        }
        let result = if differing.is_empty() {
            Ok(format!("{agreeing} registers agree"))
        } else {
            Err(format!("the log does not lead to the given value of register {}", differing.join(", ")))
        };
        checks.require(name, result);
    }
    let result = if anchored.is_empty() {
        Err("of what was given, the log leads to nothing")
    } else {
        Ok("the log leads to the registers that were given")
    };
    checks.require("eventlog.registers", result);
    anchored
}

/// How many boot phases systemd has extended after the log, if that explains the value.
fn phases_to(replayed: &Digest, value: &Digest) -> Option<usize> {
    let mut reached = *replayed;
    if reached == *value {
        return Some(0);
    }
    for (phases, phase) in (1..).zip(BOOT_PHASES) {
        reached = reached.extended(reached.bank().hash(&[phase.as_bytes()]).as_bytes());
        if reached == *value {
            return Some(phases);
        }
    }
    None
}

fn compare_rtmrs(log: &EventLog<'_>, given: &[[u8; 48]; 4], checks: &mut Checks) -> BTreeMap<u32, Vec<Bank>> {
    let mut anchored = BTreeMap::new();
    let result = match log.replay_rtmrs() {
        Err(event) => Err(format!("event {event} names no measurement register, or has no SHA-384 digest")),
        Ok(replayed) => {
            let mut differing = Vec::new();
            for (register, (replayed, given)) in (1..).zip(replayed.iter().zip(given)) {
                if replayed == given {
                    anchored.insert(register, vec![Bank::Sha384]);
                } else {
                    differing.push(format!("RTMR {}", register - 1));
                }
            }
            if differing.is_empty() {
                Ok("the log leads to all four registers".to_owned())
            } else {
                Err(format!("the log does not lead to {}", differing.join(", ")))
            }
        }
    };
    checks.require("eventlog.registers", result);
    anchored
}

/// Data that has to hash to its digest and does not is forged: for what claims are made from, that refuses the log.
fn check_data(facts: &Facts, layout: Layout, checks: &mut Checks) {
    let mismatches = || facts.events.iter().filter(|event| event.coverage == Coverage::Mismatch);
    let forged = mismatches().find(|event| {
        event.kind == EventKind::SEPARATOR
            || event.kind == EventKind::EFI_VARIABLE_DRIVER_CONFIG && event.register == layout.register(7)
    });
    let result = match forged {
        None => Ok("separators and variables of Secure Boot hash to their digests".to_owned()),
        Some(event) => Err(format!("the data of event {} ({}) is not what was measured", event.index, event.kind)),
    };
    checks.require("eventlog.data", result);
    let others: Vec<_> = mismatches().map(|event| event.index.to_string()).collect();
    let (verdict, reason) = if others.is_empty() {
        (Verdict::Pass, "all data that should hash to its digest does".to_owned())
    } else {
        (Verdict::Fail, format!("data that was not measured, and is not believed: events {}", others.join(", ")))
    };
    checks.push("eventlog.data.others", verdict, Weight::Informative, reason);
}
