//! Why a boot is another one than reference values are over: which component differs, by the log behind the registers.
//!
//! This explains and decides nothing: a boot counts by its registers. The log was held against these, so that its digests are what was measured; which component of which image they
//! would have to be is told by reference values of the kind `uefi-log`, whose names are `IMAGE: COMPONENT`.

use std::collections::{BTreeMap, BTreeSet};

use starminer_hardware::event_log::{Bank, Measured};

use crate::evidence::EvidenceKind;
use crate::parts::BootLog;
use crate::reference::ReferenceValues;

/// Most components that are named.
const MAX_NAMED: usize = 4;
/// The register of an image's sections.
const SECTIONS: u8 = 11;

/// A component as the log has it.
struct Found {
    register: u8,
    /// The name of a section, which is vouched for; else what the register is for.
    part: String,
    sha256: Vec<u8>,
}

impl Found {
    /// For people.
    fn words(&self) -> String {
        let what = match (self.register, self.part.as_str()) {
            (0, _) => "a volume of the firmware",
            (4, _) => "a boot program",
            (_, ".linux") => "the kernel (.linux)",
            (_, ".initrd") => "the initial file system (.initrd)",
            (_, ".cmdline") => "the command line (.cmdline)",
            (_, part) => return format!("the section {part} in register {}", self.register),
        };
        format!("{what} in register {}", self.register)
    }
}

/// A component as a reference value has it: its name, its register, its digest.
type Part<'a> = (&'a str, u8, &'a [u8]);

/// Which components of this boot are of no image that reference values name, and which of the nearest image's are not there; `None` where no such values are set or nothing differs.
pub(super) fn differences(log: &BootLog, values: &ReferenceValues) -> Option<String> {
    let kind = EvidenceKind::UefiLog;
    // Component and register of each value, by the image that it is of.
    let mut images: BTreeMap<&str, Vec<Part<'_>>> = BTreeMap::new();
    for value in values.values().iter().filter(|value| value.kind == kind) {
        let parts = (value.name.split_once(": "), value.measurement.as_bytes().split_first());
        if let (Some((image, part)), Some((register, digest))) = parts {
            images.entry(image).or_default().push((part, *register, digest));
        }
    }
    let found = components(log);
    let has = |register: u8, digest: &[u8]| found.iter().any(|one| one.register == register && one.sha256 == digest);
    let matches = |parts: &Vec<Part<'_>>| parts.iter().filter(|(_, register, digest)| has(*register, digest)).count();
    let (image, parts) = images.iter().max_by_key(|(_, parts)| matches(parts))?;
    let covered: BTreeSet<u8> = parts.iter().map(|(_, register, _)| *register).collect();
    let is_known = |one: &Found| {
        parts.iter().any(|(part, register, digest)| {
            // A section has to be the one of that name.
            *register == one.register && *digest == one.sha256 && (one.register != SECTIONS || *part == one.part)
        })
    };
    let mut other: Vec<String> =
        found.iter().filter(|one| covered.contains(&one.register) && !is_known(one)).map(Found::words).collect();
    let missing = parts.iter().filter(|(part, register, digest)| {
        // What another one stands in for is named already.
        let replaced =
            found.iter().any(|one| one.register == *register && (*register != SECTIONS || one.part == *part));
        !has(*register, digest) && !replaced
    });
    let missing: Vec<String> = missing.map(|(part, ..)| format!("{part} is not there")).collect();
    let more = other.len().saturating_sub(MAX_NAMED);
    other.truncate(MAX_NAMED);
    let mut said = Vec::new();
    if !other.is_empty() {
        let and_more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let verb = if other.len() == 1 { "is" } else { "are" };
        said.push(format!("{}{and_more} {verb} not as in {image}", other.join(", ")));
    }
    said.extend(missing.into_iter().take(MAX_NAMED));
    (!said.is_empty()).then(|| said.join("; "))
}

/// What is behind registers 0, 4 and 11. What the kernel measures into register 9 is the last one's again, and what the host tells, which is not judged.
fn components(log: &BootLog) -> Vec<Found> {
    let firmware = log.firmware().iter().map(|one| (0, "firmware", one));
    let programs = log.boot_applications().iter().map(|one| (4, "image", one));
    let sections = log.sections().iter().map(|section| (SECTIONS, section.name.as_str(), &section.contents));
    let found = firmware.chain(programs).chain(sections);
    found
        .filter_map(|(register, part, measured): (u8, &str, &Measured)| {
            let digest = measured.digests.iter().find(|digest| digest.bank() == Bank::Sha256)?;
            Some(Found { register, part: part.to_owned(), sha256: digest.as_bytes().to_vec() })
        })
        .collect()
}

#[cfg(test)]
#[path = "components_tests.rs"]
mod tests;
