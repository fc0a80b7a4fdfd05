//! Quotes, PCRs, the clock, and what the TPM says about itself.

use starminer_hardware::tpm::{Clock, HashAlg, PcrIndex, PcrSelection, PcrValues};
use tpm2_protocol::data::{TpmCap, TpmCc};

use super::{
    Ak, Tpm,
    error::TpmError,
    frame::{Authority, Call},
    link::capability_header,
    settings::Authorization,
    wire::{Reader, Writer},
};

/// Longest qualifying data: a digest and its algorithm (Part 2, 10.4.3).
const QUALIFYING_BYTES_MAX: usize = 66;
/// Bytes of a selection: 24 PCRs, as PC platforms have.
const SELECT_BYTES: u8 = 3;
/// A selection has as many banks as `starminer-hardware` reads.
const SELECTIONS_MAX: usize = 8;
/// A TPM reads 8 values at once; 24 in each of 8 banks, and again where some changed meanwhile.
const READS_MAX: u32 = 96;

/// A quote as the TPM made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawQuote {
    /// `TPMS_ATTEST`, as it was signed.
    pub attest: Vec<u8>,
    /// `TPMT_SIGNATURE`.
    pub signature: Vec<u8>,
}

/// What the TPM's clock shows. Not authenticated: a quote has it signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockTime {
    /// Milliseconds since the last reset.
    pub time_ms: u64,
    /// Clock and counters.
    pub clock: Clock,
}

/// What a TPM says about itself. The session vouches for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Properties {
    /// The maker's id (`NTC`), as in certificates' `id:` in ASCII.
    pub maker: String,
    /// The maker's own words.
    pub vendor: String,
    /// As in quotes by keys in the endorsement hierarchy.
    pub firmware_version: u64,
    /// Revision of the specification, times 100.
    pub revision: u32,
    /// Banks with the PCRs that are in them; PCR n is bit n. Banks of other hashes than SHA-1 and SHA-2 are left out.
    pub pcr_banks: Vec<PcrSelection>,
    /// Whether the owner hierarchy has an authorisation.
    pub owner_authorization_set: bool,
    /// Whether the endorsement hierarchy has one.
    pub endorsement_authorization_set: bool,
    /// Whether it is locked for too many wrong authorisations.
    pub in_lockout: bool,
}

/// `TPM_PT`.
mod property {
    pub const FIXED: u32 = 0x100;
    pub const REVISION: u32 = 0x102;
    pub const MAKER: u32 = 0x105;
    pub const VENDOR: [u32; 4] = [0x106, 0x107, 0x108, 0x109];
    pub const FIRMWARE: [u32; 2] = [0x10b, 0x10c];
    pub const PERMANENT: u32 = 0x200;
}

pub(super) fn select(writer: Writer, selections: &[PcrSelection]) -> Writer {
    // At most `SELECTIONS_MAX`, which is checked.
    let count = u32::try_from(selections.len()).unwrap_or(u32::MAX);
    selections.iter().fold(writer.u32(count), |writer, selection| {
        let bits = selection.bits.to_le_bytes();
        let bits = bits.get(..SELECT_BYTES.into()).unwrap_or_default();
        writer.u16(selection.bank.id()).u8(SELECT_BYTES).bytes(bits)
    })
}

/// Reads a `TPML_PCR_SELECTION`. Banks that are not known are left out, if nothing is selected in them or `others` may
/// be.
pub(super) fn selected(reader: &mut Reader<'_>, others: bool) -> Option<Vec<PcrSelection>> {
    let count = reader.u32().filter(|count| *count <= 16)?;
    let mut selections = Vec::new();
    for _ in 0..count {
        let bank = HashAlg::from_id(reader.u16()?);
        let size = reader.u8().filter(|size| *size <= 4)?;
        let bits = reader.bytes(size.into())?.iter().rev().fold(0, |bits, byte| bits << 8 | u32::from(*byte));
        match bank {
            Some(bank) => selections.push(PcrSelection { bank, bits }),
            None if others || bits == 0 => {}
            None => return None,
        }
    }
    Some(selections)
}

pub(super) fn check_selections(selections: &[PcrSelection]) -> Result<(), TpmError> {
    let fits = selections.iter().all(|selection| selection.bits != 0 && selection.bits >> (8 * SELECT_BYTES) == 0);
    if selections.is_empty() || selections.len() > SELECTIONS_MAX || !fits {
        return Err(TpmError::Argument("a selection is of 1 to 8 banks, each with at least one of the PCRs 0 to 23"));
    }
    Ok(())
}

impl Tpm {
    /// Quotes PCRs over qualifying data.
    ///
    /// # Errors
    /// Where an argument is out of bounds, or the TPM does not quote.
    pub fn quote(&mut self, ak: &Ak, qualifying: &[u8], selections: &[PcrSelection]) -> Result<RawQuote, TpmError> {
        const ALG_NULL: u16 = 0x0010;
        check_selections(selections)?;
        if qualifying.len() > QUALIFYING_BYTES_MAX {
            return Err(TpmError::Argument("qualifying data of more than 66 bytes"));
        }
        let empty = Authorization::default();
        let call = Call::new(TpmCc::Quote)
            .authorized(ak.entity.clone(), Authority::Value(&empty))
            .with(|writer| select(writer.sized(qualifying).u16(ALG_NULL), selections))
            .sealed()
            .opened();
        self.link.run(call)?.read(TpmCc::Quote, |reader| {
            Some(RawQuote { attest: reader.sized()?.to_vec(), signature: reader.rest().to_vec() })
        })
    }

    /// Reads PCRs. The session vouches for each answer; values that change in between may be of different times, which
    /// a quote shows.
    ///
    /// # Errors
    /// Where the TPM has no such PCRs.
    pub fn read_pcrs(&mut self, selections: &[PcrSelection]) -> Result<PcrValues, TpmError> {
        check_selections(selections)?;
        let mut values = PcrValues::default();
        let mut left = selections.to_vec();
        for _ in 0..READS_MAX {
            if left.is_empty() {
                return Ok(values);
            }
            let reply = self.link.run(Call::new(TpmCc::PcrRead).with(|writer| select(writer, &left)))?;
            let (given, digests) = reply.read(TpmCc::PcrRead, |reader| {
                let _update_counter = reader.u32()?;
                let given = selected(reader, false)?;
                let count = reader.u32().filter(|count| *count <= 8)?;
                let digests = (0..count).map(|_| reader.sized()).collect::<Option<Vec<_>>>()?;
                reader.end().map(|()| (given, digests))
            })?;
            let mut digests = digests.into_iter();
            for (bank, index) in given.iter().flat_map(|given| given.indices().map(|index| (given.bank, index))) {
                let (Some(digest), Some(pcr)) = (digests.next(), PcrIndex::new(index)) else {
                    return Err(TpmError::Argument("a PCR that the TPM does not have"));
                };
                values.insert(bank, pcr, digest.to_vec())?;
                left.iter_mut().filter(|left| left.bank == bank).for_each(|left| left.bits &= !(1 << index));
            }
            left.retain(|left| left.bits != 0);
            if given.iter().all(|given| given.bits == 0) {
                break;
            }
        }
        Err(TpmError::Argument("a PCR that the TPM does not have"))
    }

    /// Reads the clock.
    ///
    /// # Errors
    /// Where the connection broke.
    pub fn clock(&mut self) -> Result<ClockTime, TpmError> {
        // No session may accompany this command.
        self.link.run(Call::new(TpmCc::ReadClock).bare())?.read(TpmCc::ReadClock, |reader| {
            let time_ms = reader.u64()?;
            let (clock_ms, reset_count, restart_count) = (reader.u64()?, reader.u32()?, reader.u32()?);
            let safe = reader.u8()? != 0;
            reader.end().map(|()| ClockTime { time_ms, clock: Clock { clock_ms, reset_count, restart_count, safe } })
        })
    }

    /// Reads what the TPM says about itself.
    ///
    /// # Errors
    /// Where the connection broke.
    pub fn properties(&mut self) -> Result<Properties, TpmError> {
        let fixed = self.tagged(property::FIXED)?;
        let variable = self.tagged(property::PERMANENT)?;
        let value =
            |key: u32| fixed.iter().chain(&variable).find(|(tag, _)| *tag == key).map_or(0, |(_, value)| *value);
        // Four bytes of ASCII each, filled up with blanks or zeros.
        let text = |keys: &[u32]| {
            let bytes = keys.iter().flat_map(|key| value(*key).to_be_bytes());
            let text: String = bytes.filter(|byte| (0x20..0x7f).contains(byte)).map(char::from).collect();
            text.trim().to_owned()
        };
        let [high, low] = property::FIRMWARE;
        let permanent = value(property::PERMANENT);
        let reply = self.link.capability(TpmCap::Pcrs, 0, 1)?;
        let pcr_banks = reply.read(TpmCc::GetCapability, |reader| {
            capability_header(reader, TpmCap::Pcrs)?;
            selected(reader, true)
        })?;
        Ok(Properties {
            maker: text(&[property::MAKER]),
            vendor: text(&property::VENDOR),
            firmware_version: u64::from(value(high)) << 32 | u64::from(value(low)),
            revision: value(property::REVISION),
            pcr_banks: pcr_banks.into_iter().filter(|bank| bank.bits != 0).collect(),
            owner_authorization_set: permanent & 1 != 0,
            endorsement_authorization_set: permanent & 1 << 1 != 0,
            in_lockout: permanent & 1 << 9 != 0,
        })
    }

    fn tagged(&mut self, first: u32) -> Result<Vec<(u32, u32)>, TpmError> {
        const COUNT: u32 = 64;
        self.link.capability(TpmCap::TpmProperties, first, COUNT)?.read(TpmCc::GetCapability, |reader| {
            capability_header(reader, TpmCap::TpmProperties)?;
            let count = reader.u32().filter(|count| *count <= 2 * COUNT)?;
            (0..count).map(|_| Some((reader.u32()?, reader.u32()?))).collect()
        })
    }
}
