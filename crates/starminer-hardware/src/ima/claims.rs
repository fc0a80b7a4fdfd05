//! What a verified list proves, as JSON and one by one.

use serde_json::{Map, Value, json};

use super::parse::{Encoding, Entry};
use super::replay::Form;
use super::verify::{BootAggregate, Verified};
use crate::event_log::{Bank, Digest};

impl<'a> Verified<'a> {
    /// The entries that the register vouches for, oldest first.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'a>> + use<'a> {
        self.list.entries().take(self.vouched)
    }

    /// How many of them there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.vouched
    }

    /// Whether the register vouches for none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.vouched == 0
    }

    /// How many entries stand for files that changed while they were measured.
    #[must_use]
    pub const fn violations(&self) -> usize {
        self.violations
    }

    /// Whether a value of the register was given that the list leads to.
    #[must_use]
    pub const fn anchored(&self) -> bool {
        self.anchored
    }

    /// Values of register 10 by bank, in each form that is possible, or in the one that is right where a value was given.
    #[must_use]
    pub fn pcr10(&self) -> &[(Bank, Form, Digest)] {
        &self.readings
    }

    /// What the first entry says of the boot.
    #[must_use]
    pub const fn boot_aggregate(&self) -> BootAggregate {
        self.boot_aggregate
    }

    /// The claims in JSON; `specs/hardware.md` lists them.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let values = |form: Form| -> Map<String, Value> {
            let of_form = self.readings.iter().filter(|(_, other, _)| *other == form);
            of_form.map(|(bank, _, value)| (bank.name().to_owned(), value.to_hex().into())).collect()
        };
        json!({
            "encoding": match self.list.encoding() {
                Encoding::Ascii => "ascii",
                Encoding::LittleEndian => "binary",
                Encoding::BigEndian => "binary-big-endian",
            },
            "entries": self.vouched,
            "entries_not_vouched": self.list.len() - self.vouched,
            "entries_of_other_registers": self.other_registers,
            "violations": self.violations,
            "signed_entries": self.signed,
            "anchored": self.anchored,
            "pcr10": values(Form::Own),
            "pcr10_padded_sha1": values(Form::PaddedSha1),
            "boot_aggregate": match self.boot_aggregate {
                BootAggregate::Absent => "absent",
                BootAggregate::Empty => "empty",
                BootAggregate::NotChecked => "not-checked",
                BootAggregate::Agrees => "agrees",
            },
        })
    }
}
