//! A quote's bytes, taken apart: versions 3, 4 and 5, for SGX and TDX, told apart by the quote itself.
//!
//! Nothing is believed. Every length is bounded and has to come out exactly; what stands behind the quote is counted and is no part of it.

use super::body::{Body, SGX_REPORT_LEN, SgxReport, TD10_LEN, TD15_EXTENDED_LEN, TD15_LEN, TdLayout, TdReport, Tee};

/// Longest quote, with what stands behind it.
pub const MAX_QUOTE_LEN: usize = 32_768;
/// Longest authentication data of the quoting enclave.
pub const MAX_QE_AUTH_DATA_LEN: usize = 1_024;
/// Longest certification data: a chain of three certificates has less than 4 KiB.
pub const MAX_CERTIFICATION_DATA_LEN: usize = 16_384;

/// ECDSA over P-256 with SHA-256: the one kind of attestation key in use.
const ECDSA_P256: u16 = 2;
const TEE_SGX: u32 = 0;
const TEE_TDX: u32 = 0x81;
/// Intel's quoting enclaves.
const INTEL_VENDOR_ID: [u8; 16] =
    [0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07];
/// Certification data that holds a quoting enclave's report and, in turn, certification data.
const QE_REPORT_CERTIFICATION: u16 = 6;
/// Certification data that holds the PCK certificate's chain in PEM.
pub(super) const PCK_CHAIN: u16 = 5;

/// Why bytes are no quote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Longer than any quote.
    #[error("the quote is longer than {MAX_QUOTE_LEN} bytes")]
    TooLong,
    /// It ends too early.
    #[error("the quote ends before {what}")]
    Truncated {
        /// What is missing.
        what: &'static str,
    },
    /// A version that is not known.
    #[error("quote version {0} is not known: 3, 4 and 5 are")]
    Version(u16),
    /// An attestation key of another kind.
    #[error("attestation key of kind {0}: only ECDSA over P-256 (2) is known")]
    AttestationKey(u16),
    /// Neither SGX nor TDX.
    #[error("TEE type {0:#x} does not exist in this version: 0 is SGX, 0x81 is TDX")]
    Tee(u32),
    /// Another maker's quoting enclave.
    #[error("the quoting enclave is not Intel's")]
    Vendor,
    /// Body type or size of version 5.
    #[error("body type {kind} of {len} bytes does not exist for this TEE")]
    Body {
        /// Its type.
        kind: u16,
        /// Its length.
        len: u32,
    },
    /// Reserved bytes are not zero.
    #[error("reserved bytes are not zero")]
    Reserved,
    /// A length does not come out.
    #[error("{what} has a length that does not come out")]
    Length {
        /// Of what.
        what: &'static str,
    },
    /// Version 4 and 5 wrap the quoting enclave's report in certification data of type 6.
    #[error("certification data of type {0} where the quoting enclave's report (6) has to be")]
    Certification(u16),
}

impl ParseError {
    /// The stable code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::TooLong => "dcap.too-long",
            Self::Truncated { .. } => "dcap.truncated",
            Self::Version(_) => "dcap.version",
            Self::AttestationKey(_) => "dcap.attestation-key-kind",
            Self::Tee(_) => "dcap.tee",
            Self::Vendor => "dcap.vendor",
            Self::Body { .. } => "dcap.body",
            Self::Reserved => "dcap.reserved",
            Self::Length { .. } => "dcap.length",
            Self::Certification(_) => "dcap.certification",
        }
    }
}

/// Reads fields one after the other.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    const fn new(rest: &'a [u8], what: &'static str) -> Self {
        Self { rest, what }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], ParseError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(ParseError::Truncated { what: self.what })?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], ParseError> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(ParseError::Truncated { what: self.what })?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(super) fn u16(&mut self) -> Result<u16, ParseError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, ParseError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn zeros<const N: usize>(&mut self) -> Result<(), ParseError> {
        if self.array::<N>()? == [0; N] { Ok(()) } else { Err(ParseError::Reserved) }
    }

    /// Bytes of which a length of its own tells how many.
    fn counted(&mut self, len: usize, most: usize, what: &'static str) -> Result<&'a [u8], ParseError> {
        if len > most {
            return Err(ParseError::Length { what });
        }
        self.what = what;
        self.take(len)
    }

    fn finish(self) -> Result<(), ParseError> {
        if self.rest.is_empty() { Ok(()) } else { Err(ParseError::Length { what: self.what }) }
    }
}

/// What vouches for the quoting enclave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Certification {
    pub(super) kind: u16,
    pub(super) data: Vec<u8>,
}

/// What stands behind the quote in the same bytes. Nothing signs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trailing {
    /// Nothing.
    None,
    /// So many zeros: some platforms hand quotes out in larger buffers.
    Zeros(usize),
    /// So many other bytes.
    Other(usize),
}

/// A quote that was taken apart and not believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quote {
    pub(super) version: u16,
    /// QE's and PCE's security versions in version 3, reserved in 4 and 5.
    pub(super) header_svns: (u16, u16),
    pub(super) user_data: [u8; 20],
    pub(super) body: Body,
    /// Header and body as the attestation key signs them.
    pub(super) signed: Vec<u8>,
    pub(super) signature: [u8; 64],
    pub(super) attestation_key: [u8; 64],
    pub(super) qe_report: SgxReport,
    pub(super) qe_report_bytes: [u8; SGX_REPORT_LEN],
    pub(super) qe_report_signature: [u8; 64],
    pub(super) qe_auth_data: Vec<u8>,
    pub(super) certification: Certification,
    pub(super) trailing: Trailing,
    pub(super) len: usize,
}

impl Quote {
    /// Takes a quote apart.
    ///
    /// # Errors
    /// The bytes are no quote of a known form.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        if bytes.len() > MAX_QUOTE_LEN {
            return Err(ParseError::TooLong);
        }
        let mut reader = Reader::new(bytes, "the header's end");
        let version = reader.u16()?;
        if !(3..=5).contains(&version) {
            return Err(ParseError::Version(version));
        }
        let key = reader.u16()?;
        if key != ECDSA_P256 {
            return Err(ParseError::AttestationKey(key));
        }
        // Version 3 has two reserved bytes and two of flags here, all zero: the same as SGX.
        let tee = match (reader.u32()?, version) {
            (TEE_SGX, _) => Tee::Sgx,
            (TEE_TDX, 4 | 5) => Tee::Tdx,
            (other, _) => return Err(ParseError::Tee(other)),
        };
        let header_svns = (reader.u16()?, reader.u16()?);
        if reader.array()? != INTEL_VENDOR_ID {
            return Err(ParseError::Vendor);
        }
        let user_data = reader.array()?;
        reader.what = "the body's end";
        let layout = if version == 5 { body_layout(&mut reader, tee)? } else { TdLayout::Td10 };
        let body = match tee {
            Tee::Sgx => Body::Sgx(Box::new(SgxReport::read(&mut reader)?)),
            Tee::Tdx => Body::Tdx(Box::new(TdReport::read(&mut reader, layout)?)),
        };
        let signed = bytes[..bytes.len() - reader.rest.len()].to_vec();

        reader.what = "the signature data";
        let len = reader.u32()? as usize;
        let signature_data = reader.counted(len, MAX_QUOTE_LEN, "the signature data's end")?;
        let trailing = match reader.rest {
            [] => Trailing::None,
            rest if rest.iter().all(|&byte| byte == 0) => Trailing::Zeros(rest.len()),
            rest => Trailing::Other(rest.len()),
        };
        let len = bytes.len() - reader.rest.len();

        let mut reader = Reader::new(signature_data, "the signatures' end");
        let signature = reader.array()?;
        let attestation_key = reader.array()?;
        if version > 3 {
            let kind = reader.u16()?;
            if kind != QE_REPORT_CERTIFICATION {
                return Err(ParseError::Certification(kind));
            }
            // The rest of the signature data, to the byte.
            if reader.u32()? as usize != reader.rest.len() {
                return Err(ParseError::Length { what: "the quoting enclave's certification data" });
            }
        }
        let qe_report_bytes: [u8; SGX_REPORT_LEN] = reader.array()?;
        let qe_report = SgxReport::read(&mut Reader::new(&qe_report_bytes, "the quoting enclave's report"))?;
        let qe_report_signature = reader.array()?;
        let qe_auth_data_len = reader.u16()?;
        let qe_auth_data = reader
            .counted(qe_auth_data_len.into(), MAX_QE_AUTH_DATA_LEN, "the quoting enclave's authentication data")?
            .to_vec();
        let kind = reader.u16()?;
        let data_len = reader.u32()? as usize;
        let data = reader.counted(data_len, MAX_CERTIFICATION_DATA_LEN, "the certification data")?.to_vec();
        reader.finish()?;
        Ok(Self {
            version,
            header_svns,
            user_data,
            body,
            signed,
            signature,
            attestation_key,
            qe_report,
            qe_report_bytes,
            qe_report_signature,
            qe_auth_data,
            certification: Certification { kind, data },
            trailing,
            len,
        })
    }

    /// The kind of trusted execution environment that the quote says it is of.
    #[must_use]
    pub const fn tee(&self) -> Tee {
        self.body.tee()
    }

    /// The quote's version: 3, 4 or 5.
    #[must_use]
    pub const fn version(&self) -> u16 {
        self.version
    }

    /// How many bytes are the quote; what stands behind them is not.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "there is no empty quote")]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// What stands behind the quote.
    #[must_use]
    pub const fn trailing(&self) -> Trailing {
        self.trailing
    }
}

/// Body type and size of version 5.
fn body_layout(reader: &mut Reader<'_>, tee: Tee) -> Result<TdLayout, ParseError> {
    let (kind, len) = (reader.u16()?, reader.u32()?);
    match (kind, len as usize, tee) {
        (1, SGX_REPORT_LEN, Tee::Sgx) | (2, TD10_LEN, Tee::Tdx) => Ok(TdLayout::Td10),
        (3, TD15_LEN, Tee::Tdx) => Ok(TdLayout::Td15),
        (4, TD15_EXTENDED_LEN, Tee::Tdx) => Ok(TdLayout::Td15Extended),
        _ => Err(ParseError::Body { kind, len }),
    }
}
