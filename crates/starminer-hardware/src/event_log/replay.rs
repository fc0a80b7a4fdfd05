//! What the registers hold if the log tells the truth.

use super::bank::{Bank, Digest};
use super::parse::{Event, EventLog, REGISTERS};
use super::pcrs::PcrValues;

/// Measurement registers of a confidential VM's log: 0 is the launch measurement (`MRTD`), 1 to 4 are `RTMR` 0 to 3.
pub const MEASUREMENT_REGISTERS: u32 = 5;

/// The registers that a log leads to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Replay {
    /// Values of the registers that an event extends, where each of these has a digest of the bank.
    pub values: PcrValues,
    /// Registers that an event extends without a digest of a bank that the log lists.
    pub incomplete: Vec<(Bank, u32)>,
    /// What register 0 holds in the reading of `tpm2_eventlog` (tpm2-tools 5.4), where it is another one: that starts from zeroes whatever
    /// the locality, and extends the event that names it, which has a digest of zeroes.
    pub literal_register_0: PcrValues,
    /// The locality that register 0 starts from, where the log names one.
    pub startup_locality: Option<u8>,
    /// What is wrong with the events that name it.
    pub locality_fault: Option<&'static str>,
}

pub(super) fn replay(log: &EventLog<'_>) -> Replay {
    let mut replay = Replay::default();
    let mut extended = false;
    for event in log.events() {
        if let Some(locality) = event.startup_locality() {
            if replay.startup_locality.is_some() {
                replay.locality_fault = Some("two events name a startup locality");
            } else if extended {
                replay.locality_fault = Some("an event names the startup locality after register 0 was extended");
            } else if !matches!(locality, 0 | 3 | 4) {
                replay.locality_fault = Some("no TPM starts from the locality that an event names");
            } else {
                replay.startup_locality = Some(locality);
            }
        }
        extended |= event.extends() && event.register == 0;
    }
    for bank in log.banks().iter().copied() {
        if let Some(value) = literal_register_0(log, bank) {
            replay.literal_register_0.insert(0, value);
        }
        let mut values: [Option<Digest>; REGISTERS as usize] = [None; REGISTERS as usize];
        let mut incomplete = [false; REGISTERS as usize];
        for event in log.events().filter(Event::extends) {
            let register = event.register as usize;
            match event.digest(bank) {
                Some(digest) => {
                    let before =
                        values[register].unwrap_or_else(|| start(bank, event.register, replay.startup_locality));
                    values[register] = Some(before.extended(digest));
                }
                None => incomplete[register] = true,
            }
        }
        for (index, (value, incomplete)) in (0..).zip(values.into_iter().zip(incomplete)) {
            match value {
                Some(value) if !incomplete => drop(replay.values.insert(index, value)),
                _ if incomplete => replay.incomplete.push((bank, index)),
                _ => {}
            }
        }
    }
    replay
}

/// Register 0, if the event that names the startup locality is extended like any other. Its digest has to be zeroes: nothing else is of that
/// digest, so that an event cannot be kept from being seen by calling it one that is not extended.
fn literal_register_0(log: &EventLog<'_>, bank: Bank) -> Option<Digest> {
    let zeroes = Digest::filled(bank, 0);
    let mut value = zeroes;
    let mut named = false;
    for event in log.events().filter(|event| event.register == 0) {
        let naming = event.startup_locality().is_some();
        if !naming && !event.extends() {
            continue;
        }
        let digest = event.digest(bank)?;
        if naming && digest != zeroes.as_bytes() {
            return None;
        }
        named |= naming;
        value = value.extended(digest);
    }
    named.then_some(value)
}

/// What a register holds before anything is extended into it: zeroes, also in those that a dynamic launch resets before it measures.
pub(super) fn start(bank: Bank, index: u32, startup_locality: Option<u8>) -> Digest {
    let value = Digest::filled(bank, 0);
    match startup_locality {
        Some(locality) if index == 0 => value.with_last_byte(locality),
        _ => value,
    }
}

impl EventLog<'_> {
    /// What a confidential VM's log extends, in order: measurement register and SHA-384 digest. An event that names a register that is
    /// none, or that has no such digest, comes as an error with its number: then the log cannot be replayed.
    pub fn measurements(&self) -> impl Iterator<Item = Result<(u32, [u8; 48]), usize>> + '_ {
        self.events().filter(Event::extends).map(|event| {
            let digest = event.digest(Bank::Sha384).and_then(|digest| digest.try_into().ok()).ok_or(event.index)?;
            if event.register < MEASUREMENT_REGISTERS { Ok((event.register, digest)) } else { Err(event.index) }
        })
    }

    /// What the four run-time measurement registers hold if a confidential VM's log tells the truth, and the number of the first event that
    /// makes it unreadable otherwise. Events of register 0 are part of the launch measurement, which no log extends.
    pub fn replay_rtmrs(&self) -> Result<[[u8; 48]; 4], usize> {
        let mut registers = [Digest::filled(Bank::Sha384, 0); 4];
        for measurement in self.measurements() {
            let (index, digest) = measurement?;
            if let Some(register) = (index as usize).checked_sub(1).and_then(|index| registers.get_mut(index)) {
                *register = register.extended(&digest);
            }
        }
        Ok(registers.map(|register| {
            let mut bytes = [0; 48];
            bytes.copy_from_slice(register.as_bytes());
            bytes
        }))
    }
}
