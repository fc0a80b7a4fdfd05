//! `TPMS_ATTEST` of type quote (Part 2, 10.12.12).

use tpm2_protocol::{
    constant::TPM_GENERATED_VALUE,
    data::{TpmsAttest, TpmuAttest},
};

use super::{HashAlg, ParseError, unmarshal, unwrap_2b};

/// Longer than any quote: name 66, qualifying data 66, eight selections of 7, digest 64, and 35 of fixed fields.
const ATTEST_BYTES_MAX: usize = 512;

/// The PCRs of one bank that a quote is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PcrSelection {
    /// The bank.
    pub bank: HashAlg,
    /// PCR n is bit n.
    pub bits: u32,
}

impl PcrSelection {
    /// The PCRs, ascending.
    pub fn indices(self) -> impl Iterator<Item = u8> {
        (0..32u8).filter(move |index| self.bits >> index & 1 == 1)
    }
}

/// `TPMS_CLOCK_INFO`: the TPM's own time and how often it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// Milliseconds powered since the owner was last cleared.
    pub clock_ms: u64,
    /// How often the TPM was reset (a boot).
    pub reset_count: u32,
    /// How often it was restarted or resumed since (hibernation, sleep).
    pub restart_count: u32,
    /// Whether the clock never showed a later time before: a loss of power may take it back by about an hour.
    pub safe: bool,
}

/// A quote's attested structure, as it was signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attest {
    pub(super) bytes: Vec<u8>,
    pub(super) qualified_signer: Vec<u8>,
    pub(super) extra_data: Vec<u8>,
    pub(super) clock: Clock,
    pub(super) firmware_version: u64,
    pub(super) selections: Vec<PcrSelection>,
    pub(super) pcr_digest: Vec<u8>,
}

impl Attest {
    /// Reads a `TPMS_ATTEST`, bare (as `tpm2_quote -m` writes it) or in a `TPM2B_ATTEST`.
    ///
    /// # Errors
    /// Where the bytes are no quote, made by a TPM (magic number), of banks that are known.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        const WHAT: &str = "the attestation";
        if bytes.len() > ATTEST_BYTES_MAX {
            return Err(ParseError::TooLong { what: WHAT, most: ATTEST_BYTES_MAX });
        }
        let bare = if bytes.starts_with(&TPM_GENERATED_VALUE.to_be_bytes()) {
            bytes
        } else {
            unwrap_2b(bytes).ok_or(ParseError::Malformed { what: WHAT, why: "no TPMS_ATTEST that a TPM generated" })?
        };
        let attest: TpmsAttest = unmarshal(WHAT, bare)?;
        let TpmuAttest::Quote(quote) = &attest.attested else { return Err(ParseError::NotAQuote) };
        let mut selections = Vec::with_capacity(quote.pcr_select.len());
        for selection in quote.pcr_select.iter() {
            let bits = selection.pcr_select.iter().rev().fold(0, |bits, &byte| bits << 8 | u32::from(byte));
            match HashAlg::from_tpm(selection.hash) {
                Some(bank) => selections.push(PcrSelection { bank, bits }),
                // Tools list every bank of a TPM; of this one nothing is quoted.
                None if bits == 0 => {}
                None => return Err(ParseError::Unsupported("a PCR bank of another hash than SHA-1 and SHA-2")),
            }
        }
        Ok(Self {
            bytes: bare.to_vec(),
            qualified_signer: attest.qualified_signer.to_vec(),
            extra_data: attest.extra_data.to_vec(),
            clock: Clock {
                clock_ms: attest.clock_info.clock.value(),
                reset_count: attest.clock_info.reset_count.value(),
                restart_count: attest.clock_info.restart_count.value(),
                safe: attest.clock_info.safe.into(),
            },
            firmware_version: attest.firmware_version.value(),
            selections,
            pcr_digest: quote.pcr_digest.to_vec(),
        })
    }
}
