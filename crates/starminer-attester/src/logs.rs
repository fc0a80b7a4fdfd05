//! The logs that belong to measurements: what firmware wrote (UEFI event log, CCEL) and what the kernel wrote (IMA).
//!
//! They are handed on as they are: a quote tells whether they are true. Read them **after** the quote was made: a log may
//! have more than the quote covers, and never less. Source: TCG PC Client Platform Firmware Profile 1.06 section 10, UEFI
//! 2.10 section 38 (CCEL), Documentation/security/IMA-templates.rst, `security/integrity/ima/ima_fs.c`.

use std::io;
use std::path::PathBuf;

use starminer_hardware::ima::{MAX_TEMPLATE_DATA_BYTES, MAX_TEMPLATE_NAME_BYTES};
use thiserror::Error;

use crate::tree::{ReadError, Tree};

/// Longest event log that is read: what verifiers read.
pub const MAX_EVENT_LOG_BYTES: usize = 4 << 20;
/// Longest IMA list that is read: what verifiers read.
pub const MAX_IMA_BYTES: usize = 64 << 20;

const UEFI: &str = "sys/kernel/security/tpm0/binary_bios_measurements";
const CCEL: &str = "sys/firmware/acpi/tables/data/CCEL";
const IMA: &str = "sys/kernel/security/ima/binary_runtime_measurements";

/// Lengths of template digests: SHA-1 as of old, and what a list of another bank has.
const DIGEST_BYTES: [usize; 4] = [20, 32, 48, 64];
/// Longest template name and longest template data of an entry, as verifiers read them.
const MAX_NAME_BYTES: usize = MAX_TEMPLATE_NAME_BYTES;
const MAX_DATA_BYTES: usize = MAX_TEMPLATE_DATA_BYTES;

/// A log was not read.
#[derive(Debug, Error)]
pub enum LogError {
    /// There is none: no such device, or its driver or file system is not there.
    #[error("this machine has no {0}")]
    Missing(&'static str),
    /// It cannot be read; most are for root alone.
    #[error("the {log} cannot be read")]
    Unreadable {
        /// Which one.
        log: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// Longer than is read. A part of it would match no quote.
    #[error("the {0} is longer than is read")]
    TooLong(&'static str),
    /// Not of the documented form.
    #[error("the {0} is malformed")]
    Malformed(&'static str),
}

impl LogError {
    /// Stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Missing(_) => "log.missing",
            Self::Unreadable { .. } => "log.unreadable",
            Self::TooLong(_) => "log.too-long",
            Self::Malformed(_) => "log.malformed",
        }
    }
}

/// The logs of a machine.
#[derive(Debug, Clone)]
pub struct Logs {
    tree: Tree,
    max_ima_bytes: usize,
}

impl Logs {
    /// The machine itself.
    pub fn machine() -> Self {
        Self::at("/")
    }

    /// A stand-in tree that holds `sys/…`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { tree: Tree::at(root), max_ima_bytes: MAX_IMA_BYTES }
    }

    /// Reads IMA lists of at most `bytes`, where whoever gets them takes no more.
    #[must_use]
    pub const fn with_max_ima_bytes(mut self, bytes: usize) -> Self {
        self.max_ima_bytes = bytes;
        self
    }

    /// The UEFI event log of the first TPM.
    pub fn uefi(&self) -> Result<Vec<u8>, LogError> {
        self.read(UEFI, "UEFI event log", MAX_EVENT_LOG_BYTES)
    }

    /// The event log of a confidential VM (RTMRs).
    pub fn ccel(&self) -> Result<Vec<u8>, LogError> {
        self.read(CCEL, "CCEL event log", MAX_EVENT_LOG_BYTES)
    }

    /// The IMA measurement list. It grows while it is read; what is returned are whole entries from the first one on.
    pub fn ima(&self) -> Result<Vec<u8>, LogError> {
        let name = "IMA list";
        let mut list = self.read(IMA, name, self.max_ima_bytes)?;
        let whole = whole_entries(&list).filter(|whole| *whole > 0).ok_or(LogError::Malformed(name))?;
        list.truncate(whole);
        Ok(list)
    }

    fn read(&self, path: &str, log: &'static str, max_bytes: usize) -> Result<Vec<u8>, LogError> {
        let bytes = self.tree.bytes(path, max_bytes).map_err(|error| match error {
            ReadError::Missing => LogError::Missing(log),
            ReadError::Unreadable(source) => LogError::Unreadable { log, source },
            ReadError::TooLong => LogError::TooLong(log),
        })?;
        // The file is there before anything is measured, and so says nothing by being there.
        if bytes.is_empty() { Err(LogError::Missing(log)) } else { Ok(bytes) }
    }
}

/// Length of the whole entries of an IMA list at its beginning; `None` where a length is absurd. An entry: register (4
/// bytes), template digest, length and name of the template, length and data. Template `ima` has no length before its
/// data: a digest (20 bytes), then length and name of the file. Lengths stand in the byte order of the machine, which
/// here is little-endian. How long digests are shows in where the first template's name lies.
fn whole_entries(list: &[u8]) -> Option<usize> {
    let mut whole = 0;
    let names_template = |digest_bytes: &usize| {
        let mut start = Reader { list, at: 4 + digest_bytes, digest_bytes: *digest_bytes };
        matches!(start.sized(MAX_NAME_BYTES), Step::Read(name) if !name.is_empty() && name.iter().all(u8::is_ascii_graphic))
    };
    let digest_bytes = DIGEST_BYTES.into_iter().find(names_template)?;
    loop {
        let mut rest = Reader { list, at: whole, digest_bytes };
        match rest.entry() {
            Step::Read(()) => whole = rest.at,
            Step::Ends => return Some(whole),
            Step::Absurd => return None,
        }
    }
}

struct Reader<'a> {
    list: &'a [u8],
    at: usize,
    digest_bytes: usize,
}

enum Step<T> {
    Read(T),
    /// The list ends before this does.
    Ends,
    /// A length that no entry has.
    Absurd,
}

impl<'a> Reader<'a> {
    fn entry(&mut self) -> Step<()> {
        let Some(_) = self.take(4 + self.digest_bytes) else { return Step::Ends };
        let name = match self.sized(MAX_NAME_BYTES) {
            Step::Read(name) => name,
            Step::Ends => return Step::Ends,
            Step::Absurd => return Step::Absurd,
        };
        if name == b"ima" && self.take(20).is_none() {
            return Step::Ends;
        }
        match self.sized(MAX_DATA_BYTES) {
            Step::Read(_) => Step::Read(()),
            Step::Ends => Step::Ends,
            Step::Absurd => Step::Absurd,
        }
    }

    fn sized(&mut self, max_bytes: usize) -> Step<&'a [u8]> {
        let Some(length) = self.take(4) else { return Step::Ends };
        let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize;
        if length > max_bytes {
            return Step::Absurd;
        }
        self.take(length).map_or(Step::Ends, Step::Read)
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.list.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }
}
