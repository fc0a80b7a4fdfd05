//! What register 10 holds if the list tells the truth.
//!
//! Since Linux 5.8 each bank is extended with its own hash of the template data; before that, every bank with the SHA-1 and zeroes behind it. Which
//! it was does not show in the list, so that both are followed. A violation is extended as ones.

use super::parse::Entry;
use crate::event_log::{Bank, Digest};

/// What a bank was extended with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Form {
    /// The bank's own hash of the data.
    Own,
    /// SHA-1 of the data, and zeroes: worth no more than SHA-1.
    PaddedSha1,
}

/// A register followed entry by entry in one bank and form.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    pub bank: Bank,
    pub form: Form,
    pub value: Digest,
    /// How many entries led to the value that was looked for.
    pub reached_at: Option<usize>,
}

impl Reading {
    pub fn new(bank: Bank, form: Form) -> Self {
        Self { bank, form, value: Digest::filled(bank, 0), reached_at: None }
    }

    /// Both forms of a bank; of SHA-1 there is one.
    pub fn of(bank: Bank) -> Vec<Self> {
        match bank {
            Bank::Sha1 => vec![Self::new(bank, Form::Own)],
            _ => vec![Self::new(bank, Form::Own), Self::new(bank, Form::PaddedSha1)],
        }
    }

    pub fn extend(&mut self, entry: &Entry<'_>, sha1: &Digest) {
        let measured = match (entry.is_violation(), self.form) {
            (true, Form::Own) => Digest::filled(self.bank, 0xff),
            (true, Form::PaddedSha1) => Digest::padded(self.bank, &[0xff; 20]),
            (false, Form::Own) if self.bank == Bank::Sha1 => *sha1,
            (false, Form::Own) => self.bank.hash(&[&entry.data]),
            (false, Form::PaddedSha1) => Digest::padded(self.bank, sha1.as_bytes()),
        };
        self.value = self.value.extended(measured.as_bytes());
    }
}
