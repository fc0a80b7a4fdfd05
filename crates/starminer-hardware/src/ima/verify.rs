//! Holding a list against the register that something signed.

use super::parse::{Encoding, Entry, MeasurementList};
use super::replay::{Form, Reading};
use crate::event_log::{Bank, Digest, PcrValues};
use crate::{Checks, Verdict, Weight};

/// The register that IMA extends.
pub const IMA_REGISTER: u32 = 10;
/// What the first entry is called: the hash of the registers that firmware and boot loader extended.
pub const BOOT_AGGREGATE: &[u8] = b"boot_aggregate";

/// What verification came to.
#[derive(Debug, Clone)]
pub struct Verification<'a> {
    /// Every check, with its verdict.
    pub checks: Checks,
    /// What may be claimed, if every required check passed.
    pub verified: Option<Verified<'a>>,
}

/// What the first entry says of the boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootAggregate {
    /// There is no such entry.
    Absent,
    /// The kernel found no TPM: zeroes.
    Empty,
    /// The registers that it is of were not given.
    NotChecked,
    /// It is of the registers that were given.
    Agrees,
}

/// A list that leads to the register that was given. Only [`verify`] makes one.
#[derive(Debug, Clone)]
pub struct Verified<'a> {
    pub(super) list: MeasurementList<'a>,
    /// How many entries, from the first, the register vouches for.
    pub(super) vouched: usize,
    pub(super) readings: Vec<(Bank, Form, Digest)>,
    pub(super) anchored: bool,
    pub(super) boot_aggregate: BootAggregate,
    pub(super) violations: usize,
    pub(super) signed: usize,
    pub(super) other_registers: usize,
}

/// Follows register 10 through the list, compares it, and counts.
///
/// `given` are registers from a quote that was verified: 10, and 0 to 9 for the boot aggregate. The kernel goes on measuring between quote and
/// list, so that a list may be longer than what the quote vouches for: entries behind that prove nothing.
#[must_use]
pub fn verify<'a>(list: &MeasurementList<'a>, given: Option<&PcrValues>) -> Verification<'a> {
    let mut checks = Checks::new();
    checks.require("ima.format", Ok(describe(list)));
    let given_banks: Vec<Bank> = given
        .into_iter()
        .flat_map(|given| given.banks().filter(|bank| given.value(*bank, IMA_REGISTER).is_some()))
        .collect();
    let value = |bank| given.and_then(|given| given.value(bank, IMA_REGISTER));
    let banks = if given_banks.is_empty() { vec![Bank::Sha1, Bank::Sha256] } else { given_banks.clone() };
    let mut readings: Vec<Reading> = banks.into_iter().flat_map(Reading::of).collect();
    let mut counts = Counts::default();
    let mut counts_at = Counts::default();
    let note = |readings: &mut [Reading], entries: usize| {
        let mut reached = false;
        for reading in readings {
            if value(reading.bank) == Some(&reading.value) {
                reading.reached_at = Some(entries);
                reached = true;
            }
        }
        reached
    };
    note(&mut readings, 0);
    for entry in list.entries() {
        counts.add(&entry);
        if entry.register == IMA_REGISTER {
            let sha1 = Bank::Sha1.hash(&[&entry.data]);
            counts.check(&entry, &sha1);
            readings.iter_mut().for_each(|reading| reading.extend(&entry, &sha1));
        }
        if note(&mut readings, entry.index + 1) {
            counts_at = counts;
        }
    }
    let result = match counts.inconsistent {
        None => Ok("every digest is of its entry's data".to_owned()),
        Some(index) => Err(format!("the digest of entry {index} is not of its data")),
    };
    checks.require("ima.template-digests", result);
    let vouched = if given_banks.is_empty() {
        checks.not_checked("ima.registers", "no value of register 10 was given: the list is its own word");
        counts_at = counts;
        list.len()
    } else {
        let vouched = compare(&given_banks, &readings, list.len(), &mut checks);
        readings.retain(|reading| reading.reached_at == Some(vouched));
        vouched
    };
    let boot_aggregate = check_boot_aggregate(list, vouched, given, &mut checks);
    let violations = counts_at.violations;
    checks.push(
        "ima.violations",
        if violations == 0 { Verdict::Pass } else { Verdict::Fail },
        Weight::Informative,
        format!("{violations} entries of files that changed while they were measured"),
    );
    let verified = checks.hold().then(|| Verified {
        list: list.clone(),
        vouched,
        readings: readings
            .iter()
            .map(|reading| {
                let claimed = if given_banks.is_empty() { None } else { value(reading.bank).copied() };
                (reading.bank, reading.form, claimed.unwrap_or(reading.value))
            })
            .collect(),
        anchored: !given_banks.is_empty(),
        boot_aggregate,
        violations,
        signed: counts_at.signed,
        other_registers: counts_at.other_registers,
    });
    Verification { checks, verified }
}

fn describe(list: &MeasurementList<'_>) -> String {
    let encoding = match list.encoding() {
        Encoding::Ascii => "text",
        Encoding::LittleEndian => "binary",
        Encoding::BigEndian => "binary, big-endian",
    };
    format!("{} entries, {encoding}", list.len())
}

#[derive(Clone, Copy, Default)]
struct Counts {
    violations: usize,
    signed: usize,
    other_registers: usize,
    inconsistent: Option<usize>,
}

impl Counts {
    fn add(&mut self, entry: &Entry<'_>) {
        if entry.register != IMA_REGISTER {
            self.other_registers += 1;
            return;
        }
        self.violations += usize::from(entry.is_violation());
        self.signed += usize::from(entry.signature.is_some());
    }

    fn check(&mut self, entry: &Entry<'_>, sha1: &Digest) {
        let consistent = match entry.bank {
            _ if entry.is_violation() => true,
            Bank::Sha1 => sha1.as_bytes() == &*entry.template_digest,
            _ => entry.is_consistent(),
        };
        if !consistent {
            self.inconsistent = self.inconsistent.or(Some(entry.index));
        }
    }
}

/// Checks that every given bank is reached, by the same number of entries; says by how many.
fn compare(banks: &[Bank], readings: &[Reading], entries: usize, checks: &mut Checks) -> usize {
    let reached =
        |bank: Bank| readings.iter().filter(move |reading| reading.bank == bank).find(|r| r.reached_at.is_some());
    // The longest agreement in each bank; where two banks disagree, nothing is vouched for.
    let lengths: Vec<Option<usize>> = banks.iter().map(|bank| reached(*bank).and_then(|r| r.reached_at)).collect();
    for (bank, length) in banks.iter().zip(&lengths) {
        let result = match (length, reached(*bank)) {
            (Some(length), Some(reading)) => {
                let form = match reading.form {
                    Form::Own => "its own hash of each entry",
                    Form::PaddedSha1 => "the SHA-1 of each entry, padded",
                };
                Ok(format!("register 10 is reached after {length} of {entries} entries, extended with {form}"))
            }
            _ => Err("no part of the list leads to the given value of register 10".to_owned()),
        };
        checks.require(format!("ima.registers.{}", bank.name()), result);
    }
    let first = lengths.first().copied().flatten();
    let result = match first {
        Some(length) if lengths.iter().all(|other| *other == first) => {
            Ok(format!("the register vouches for {length} of {entries} entries"))
        }
        _ => Err("the banks do not agree on how far the list goes".to_owned()),
    };
    if checks.require("ima.registers", result) { first.unwrap_or(0) } else { 0 }
}

/// The first entry is a hash of registers 0 to 7, and since Linux 5.8 of 8 and 9 too where it is not SHA-1.
fn check_boot_aggregate(
    list: &MeasurementList<'_>,
    vouched: usize,
    given: Option<&PcrValues>,
    checks: &mut Checks,
) -> BootAggregate {
    let name = "ima.boot-aggregate";
    let first =
        list.entries().next().filter(|first| first.path.as_deref() == Some(BOOT_AGGREGATE) && !first.is_violation());
    let Some(digest) = first.as_ref().and_then(|first| first.file_digest.as_ref()).filter(|_| vouched > 0) else {
        checks.not_checked(name, "the list does not start with a boot aggregate");
        return BootAggregate::Absent;
    };
    if digest.digest.iter().all(|byte| *byte == 0) {
        checks.not_checked(name, "the boot aggregate is zero: the kernel had no TPM when it made it");
        return BootAggregate::Empty;
    }
    let Some((bank, given)) = Bank::from_name(digest.algorithm).zip(given) else {
        checks.not_checked(name, "no registers were given that it could be of");
        return BootAggregate::NotChecked;
    };
    let mut possible = false;
    // Kernels before 5.8 hashed the SHA-1 registers with another hash, where that was IMA's.
    for (registers_of, count) in [(bank, 10), (bank, 8), (Bank::Sha1, 8)] {
        if bank == Bank::Sha1 && count == 10 {
            continue;
        }
        let registers: Option<Vec<&[u8]>> =
            (0..count).map(|index| given.value(registers_of, index).map(Digest::as_bytes)).collect();
        let Some(registers) = registers else { continue };
        possible = true;
        if bank.hash(&registers).as_bytes() == &*digest.digest {
            let found = format!("the {} of registers 0 to {} of {}", bank.name(), count - 1, registers_of.name());
            checks.require(name, Ok(found));
            return BootAggregate::Agrees;
        }
    }
    if possible {
        checks.require(name, Err("the boot aggregate is not of the registers that were given"));
    } else {
        checks.not_checked(name, "not all registers were given that it could be of");
    }
    BootAggregate::NotChecked
}
