//! The shape of an event log: headers, digests and data as they lie there, none of it believed.
//!
//! TCG PC Client Platform Firmware Profile 1.06, section 10 (`TCG_PCR_EVENT`, `TCG_PCR_EVENT2`, `TCG_EfiSpecIdEvent`).

use super::bank::{Bank, Digest, MAX_DIGEST_BYTES};

/// The longest log that is read.
pub const MAX_LOG_BYTES: usize = 4 << 20;
/// The most events that are read.
pub const MAX_EVENTS: usize = 4096;
/// The most data that one event may carry.
pub const MAX_EVENT_DATA_BYTES: usize = 1 << 20;
/// The most hash algorithms that a log may list.
pub const MAX_ALGORITHMS: usize = 8;
/// Registers of a TPM of the PC Client profile.
pub const REGISTERS: u32 = 24;

const SPEC_ID_EVENT_03: &[u8] = b"Spec ID Event03\0";
const STARTUP_LOCALITY: &[u8] = b"StartupLocality\0";

/// Why bytes are not an event log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Longer than is read.
    #[error("the log has more than {MAX_LOG_BYTES} bytes")]
    TooLong,
    /// No event at all.
    #[error("the log has no event")]
    Empty,
    /// More events than are read.
    #[error("the log has more than {MAX_EVENTS} events")]
    TooManyEvents,
    /// Ends inside an event.
    #[error("the log ends inside event {0}")]
    Truncated(usize),
    /// An event with more data than is read.
    #[error("event {0} has more than {MAX_EVENT_DATA_BYTES} bytes of data")]
    EventTooLong(usize),
    /// A register that no TPM has.
    #[error("event {0} names register {1}, and a TPM has {REGISTERS}")]
    Register(usize, u32),
    /// The Spec ID event is not well formed.
    #[error("the Spec ID event is not well formed")]
    SpecId,
    /// An algorithm that the Spec ID event does not list, or twice the same.
    #[error("event {0} has a digest of algorithm {1:#06x}, which is not listed, or there already")]
    Algorithm(usize, u16),
}

impl ParseError {
    /// The stable code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::TooLong => "too-long",
            Self::Empty => "empty",
            Self::TooManyEvents => "too-many-events",
            Self::Truncated(_) => "truncated",
            Self::EventTooLong(_) => "event-too-long",
            Self::Register(..) => "register",
            Self::SpecId => "spec-id",
            Self::Algorithm(..) => "algorithm",
        }
    }
}

/// How the events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// SHA-1 alone, as for a TPM 1.2.
    Legacy,
    /// Any algorithms, listed in the Spec ID event.
    CryptoAgile,
}

#[derive(Debug, Clone, Copy)]
struct Record {
    register: u32,
    kind: u32,
    /// Where each bank's digest starts; 0 where there is none, since no digest can start there.
    digests: [u32; Bank::ALL.len()],
    data_start: u32,
    data_end: u32,
}

/// A parsed log. It borrows the bytes: an event costs a few dozen bytes of memory, whatever it carries.
#[derive(Debug, Clone)]
pub struct EventLog<'a> {
    bytes: &'a [u8],
    format: Format,
    banks: Vec<Bank>,
    records: Vec<Record>,
    padding_bytes: usize,
}

/// One event, as the log has it.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    /// Its place in the log; the Spec ID event is number 0.
    pub index: usize,
    /// The register that it is said to have been extended into (a measurement register's index in a confidential VM's log).
    pub register: u32,
    /// What it is said to be: no digest covers this.
    pub kind: super::EventKind,
    /// What it is said to be about.
    pub data: &'a [u8],
    bytes: &'a [u8],
    digests: [u32; Bank::ALL.len()],
}

impl<'a> Event<'a> {
    /// Its digest in that bank.
    #[must_use]
    pub fn digest(&self, bank: Bank) -> Option<&'a [u8]> {
        match self.digests[bank.slot()] as usize {
            0 => None,
            start => self.bytes.get(start..start + bank.size_bytes()),
        }
    }

    /// Its digest in that bank, by value.
    #[must_use]
    pub fn owned_digest(&self, bank: Bank) -> Option<Digest> {
        Digest::new(bank, self.digest(bank)?)
    }

    /// Whether it is said to have changed its register.
    #[must_use]
    pub fn extends(&self) -> bool {
        self.kind != super::EventKind::NO_ACTION
    }

    /// The locality that the firmware says it started the TPM from, if this is the event for that.
    #[must_use]
    pub fn startup_locality(&self) -> Option<u8> {
        match self.data.strip_prefix(STARTUP_LOCALITY)? {
            [locality] if !self.extends() => Some(*locality),
            _ => None,
        }
    }
}

impl<'a> EventLog<'a> {
    /// Reads a log: crypto-agile if its first event is a Spec ID event of version 03, else SHA-1 alone.
    ///
    /// Zeroes or ones (0xff) after the last event, as firmware leaves them in the rest of a buffer, are passed over.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        if bytes.len() > MAX_LOG_BYTES {
            return Err(ParseError::TooLong);
        }
        let mut reader = Reader { bytes, at: 0 };
        let mut log =
            Self { bytes, format: Format::Legacy, banks: vec![Bank::Sha1], records: Vec::new(), padding_bytes: 0 };
        let padding_start = padding_start(bytes);
        if padding_start == 0 {
            return Err(ParseError::Empty);
        }
        let first = reader.legacy_event(0)?;
        let data = &bytes[first.data_start as usize..first.data_end as usize];
        let mut algorithms = Vec::new();
        if first.kind == super::EventKind::NO_ACTION.0 && data.starts_with(SPEC_ID_EVENT_03) {
            log.format = Format::CryptoAgile;
            algorithms = spec_id_algorithms(data).ok_or(ParseError::SpecId)?;
            log.banks = algorithms.iter().filter_map(|(id, _)| Bank::from_algorithm_id(*id)).collect();
        }
        log.push(first)?;
        while reader.at < bytes.len() {
            if reader.at >= padding_start {
                log.padding_bytes = bytes.len() - reader.at;
                break;
            }
            let index = log.records.len();
            let record = match log.format {
                Format::Legacy => reader.legacy_event(index)?,
                Format::CryptoAgile => reader.agile_event(index, &algorithms)?,
            };
            log.push(record)?;
        }
        Ok(log)
    }

    fn push(&mut self, record: Record) -> Result<(), ParseError> {
        if self.records.len() == MAX_EVENTS {
            return Err(ParseError::TooManyEvents);
        }
        if record.register >= REGISTERS && record.kind != super::EventKind::NO_ACTION.0 {
            return Err(ParseError::Register(self.records.len(), record.register));
        }
        self.records.push(record);
        Ok(())
    }

    /// How the events are written.
    #[must_use]
    pub const fn format(&self) -> Format {
        self.format
    }

    /// The banks of which the log has digests, in its own order, without those of algorithms that are not known here.
    #[must_use]
    pub fn banks(&self) -> &[Bank] {
        &self.banks
    }

    /// The events, oldest first, the Spec ID event included.
    pub fn events(&self) -> impl Iterator<Item = Event<'a>> + '_ {
        self.records.iter().enumerate().map(|(index, record)| Event {
            index,
            register: record.register,
            kind: super::EventKind(record.kind),
            data: &self.bytes[record.data_start as usize..record.data_end as usize],
            bytes: self.bytes,
            digests: record.digests,
        })
    }

    /// How many events there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Never: a log has an event.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// How many bytes after the last event were passed over.
    #[must_use]
    pub const fn padding_bytes(&self) -> usize {
        self.padding_bytes
    }
}

/// From where on the bytes are all zeroes, or all 0xff.
fn padding_start(bytes: &[u8]) -> usize {
    let Some(&last) = bytes.last().filter(|last| matches!(last, 0 | 0xff)) else { return bytes.len() };
    // By blocks without a branch in them: buffers have megabytes of padding.
    let padding = |block: &&[u8]| block.iter().fold(0, |other, byte| other | (byte ^ last)) == 0;
    let blocks: usize = bytes.rchunks(1024).take_while(padding).map(<[u8]>::len).sum();
    let rest = &bytes[..bytes.len() - blocks];
    rest.iter().rposition(|&byte| byte != last).map_or(0, |before| before + 1)
}

/// The algorithms of a `TCG_EfiSpecIdEvent`, each with the length of its digests. Vendor information behind them is passed over.
fn spec_id_algorithms(data: &[u8]) -> Option<Vec<(u16, usize)>> {
    // Signature 16, platform class 4, version 2, errata 1, size of UINTN 1.
    let rest = data.get(24..)?;
    let (count, mut rest) = rest.split_first_chunk::<4>()?;
    let count = u32::from_le_bytes(*count) as usize;
    if count == 0 || count > MAX_ALGORITHMS {
        return None;
    }
    let mut algorithms = Vec::with_capacity(count);
    for _ in 0..count {
        let (entry, after) = rest.split_first_chunk::<4>()?;
        rest = after;
        let id = u16::from_le_bytes([entry[0], entry[1]]);
        let size_bytes = usize::from(u16::from_le_bytes([entry[2], entry[3]]));
        let expected = Bank::from_algorithm_id(id).map(Bank::size_bytes);
        if size_bytes == 0 || size_bytes > MAX_DIGEST_BYTES || expected.is_some_and(|expected| expected != size_bytes) {
            return None;
        }
        if algorithms.iter().any(|(other, _)| *other == id) {
            return None;
        }
        algorithms.push((id, size_bytes));
    }
    // The length of the vendor information has to be there and to fit.
    let (vendor, rest) = rest.split_first()?;
    (rest.len() >= usize::from(*vendor)).then_some(algorithms)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn array<const N: usize>(&mut self, event: usize) -> Result<[u8; N], ParseError> {
        let chunk = self.bytes.get(self.at..).and_then(<[u8]>::first_chunk::<N>).ok_or(ParseError::Truncated(event))?;
        self.at += N;
        Ok(*chunk)
    }

    fn u32(&mut self, event: usize) -> Result<u32, ParseError> {
        self.array(event).map(u32::from_le_bytes)
    }

    /// Passes over as many bytes; says where they start. The log is shorter than 4 GiB, so that this fits.
    fn skip(&mut self, event: usize, size_bytes: usize) -> Result<u32, ParseError> {
        let start = self.at;
        if self.bytes.len() - start < size_bytes {
            return Err(ParseError::Truncated(event));
        }
        self.at = start + size_bytes;
        u32::try_from(start).map_err(|_| ParseError::TooLong)
    }

    fn data(&mut self, event: usize, record: &mut Record) -> Result<(), ParseError> {
        let size_bytes = self.u32(event)? as usize;
        if size_bytes > MAX_EVENT_DATA_BYTES {
            return Err(ParseError::EventTooLong(event));
        }
        record.data_start = self.skip(event, size_bytes)?;
        record.data_end = u32::try_from(self.at).map_err(|_| ParseError::TooLong)?;
        Ok(())
    }

    fn header(&mut self, event: usize) -> Result<Record, ParseError> {
        let register = self.u32(event)?;
        let kind = self.u32(event)?;
        Ok(Record { register, kind, digests: [0; Bank::ALL.len()], data_start: 0, data_end: 0 })
    }

    fn legacy_event(&mut self, event: usize) -> Result<Record, ParseError> {
        let mut record = self.header(event)?;
        record.digests[Bank::Sha1.slot()] = self.skip(event, Bank::Sha1.size_bytes())?;
        self.data(event, &mut record)?;
        Ok(record)
    }

    fn agile_event(&mut self, event: usize, algorithms: &[(u16, usize)]) -> Result<Record, ParseError> {
        let mut record = self.header(event)?;
        let count = self.u32(event)? as usize;
        let mut seen = [false; MAX_ALGORITHMS];
        for _ in 0..count {
            let id = u16::from_le_bytes(self.array(event)?);
            let place = algorithms.iter().position(|(listed, _)| *listed == id);
            let Some(place) = place.filter(|place| !seen[*place]) else {
                return Err(ParseError::Algorithm(event, id));
            };
            seen[place] = true;
            let start = self.skip(event, algorithms[place].1)?;
            if let Some(bank) = Bank::from_algorithm_id(id) {
                record.digests[bank.slot()] = start;
            }
        }
        self.data(event, &mut record)?;
        Ok(record)
    }
}
