//! The measurement report of a GPU: an SPDM 1.1 `GET_MEASUREMENTS` request and the signed `MEASUREMENTS` response to it, one after the other.
//!
//! Only what NVIDIA's driver asks for is read: all measurements, signed, slot 0. The signature covers both messages without itself, so nothing of them is
//! left unauthenticated. Spec: DMTF DSP0274 1.1.0, sections "`GET_MEASUREMENTS` request and `MEASUREMENTS` response messages".

use std::collections::BTreeMap;

use super::evidence::ParseError;
use super::opaque::Opaque;

/// Bytes of the request.
const REQUEST_LEN: usize = 37;
/// Bytes of an ECDSA P-384 signature, r and s.
pub(super) const SIGNATURE_LEN: usize = 96;
/// Bytes of a nonce.
pub const NONCE_LEN: usize = 32;
/// The longest report that is read. The real ones are between 4 and 5 KiB.
pub const MAX_REPORT_LEN: usize = 64 * 1024;
/// The longest value of one measurement: digests have 48 bytes, and what is not a digest is small.
pub const MAX_MEASUREMENT_LEN: usize = 1024;
/// The longest opaque data. The standard says 1024; NVIDIA's own come to about 600.
pub const MAX_OPAQUE_LEN: usize = 4096;

/// `SPDMVersion` 1.1.
const VERSION: u8 = 0x11;
/// `RequestResponseCode` of the request.
const GET_MEASUREMENTS: u8 = 0xe0;
/// `RequestResponseCode` of the response.
const MEASUREMENTS: u8 = 0x60;
/// `Param1` of the request: a signature is asked for.
const WITH_SIGNATURE: u8 = 0x01;
/// `Param2` of the request: all measurements.
const ALL_MEASUREMENTS: u8 = 0xff;
/// `MeasurementSpecification`: DMTF.
const DMTF: u8 = 0x01;

/// One measurement block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Measurement {
    /// `DMTFSpecMeasurementValueType`: bit 7 set means a raw bit stream, clear a digest; the rest says of what.
    pub kind: u8,
    /// The value.
    pub value: Vec<u8>,
}

/// A parsed report: nothing of it is believed yet.
#[derive(Debug, Clone)]
pub(super) struct Report {
    /// What the requester sent: the freshness of the report.
    pub request_nonce: [u8; NONCE_LEN],
    /// Measurements by SPDM index, which begins at 1.
    pub measurements: BTreeMap<u8, Measurement>,
    /// What NVIDIA states beside the measurements.
    pub opaque: Opaque,
    /// Both messages without the signature: what is signed.
    pub signed: Vec<u8>,
    /// r and s.
    pub signature: [u8; SIGNATURE_LEN],
}

impl Report {
    /// Reads a report, to its last byte.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        if bytes.len() > MAX_REPORT_LEN {
            return Err(ParseError::TooLarge { what: "report", limit: MAX_REPORT_LEN });
        }
        let mut reader = Reader(bytes);
        let request_nonce = request(&mut reader)?;
        let (measurements, opaque) = response(&mut reader)?;
        let signature = reader.array("signature")?;
        if !reader.0.is_empty() {
            return Err(ParseError::Report { field: "end", problem: "bytes follow the signature" });
        }
        let signed = bytes[..bytes.len() - SIGNATURE_LEN].to_vec();
        Ok(Self { request_nonce, measurements, opaque, signed, signature })
    }
}

fn request(reader: &mut Reader<'_>) -> Result<[u8; NONCE_LEN], ParseError> {
    if reader.0.len() < REQUEST_LEN {
        return Err(ParseError::Report { field: "request", problem: "it is cut off" });
    }
    reader.constant("request version", VERSION, "not SPDM 1.1")?;
    reader.constant("request code", GET_MEASUREMENTS, "not GET_MEASUREMENTS")?;
    reader.constant("request param1", WITH_SIGNATURE, "not exactly a signature was asked for")?;
    reader.constant("request param2", ALL_MEASUREMENTS, "not all measurements were asked for")?;
    let nonce = reader.array("request nonce")?;
    reader.constant("request slot", 0, "not slot 0, or reserved bits are set")?;
    Ok(nonce)
}

fn response(reader: &mut Reader<'_>) -> Result<(BTreeMap<u8, Measurement>, Opaque), ParseError> {
    reader.constant("response version", VERSION, "not SPDM 1.1")?;
    reader.constant("response code", MEASUREMENTS, "not MEASUREMENTS")?;
    reader.constant("response param1", 0, "not zero")?;
    reader.constant("response param2", 0, "not slot 0, or reserved bits are set")?;
    let count = reader.u8("number of blocks")?;
    let len = reader.take("measurement record length", 3)?;
    let len = usize::from(len[0]) | usize::from(len[1]) << 8 | usize::from(len[2]) << 16;
    let measurements = blocks(count, reader.take("measurement record", len)?)?;
    // The GPU's own nonce may be anything: it is signed, and keeps two reports apart.
    reader.take("response nonce", NONCE_LEN)?;
    let len = usize::from(reader.u16("opaque length")?);
    if len > MAX_OPAQUE_LEN {
        return Err(ParseError::TooLarge { what: "opaque data", limit: MAX_OPAQUE_LEN });
    }
    let opaque = Opaque::parse(reader.take("opaque data", len)?)?;
    Ok((measurements, opaque))
}

fn blocks(count: u8, record: &[u8]) -> Result<BTreeMap<u8, Measurement>, ParseError> {
    const FIELD: &str = "measurement block";
    let mut reader = Reader(record);
    let mut measurements = BTreeMap::new();
    for _ in 0..count {
        let index = reader.u8(FIELD)?;
        reader.constant(FIELD, DMTF, "not by DMTF's measurement specification")?;
        let size = reader.u16(FIELD)?;
        let kind = reader.u8(FIELD)?;
        let value_size = reader.u16(FIELD)?;
        // Three bytes of type and size stand before the value, within the block's own size.
        if size.checked_sub(3) != Some(value_size) {
            return Err(ParseError::Report { field: FIELD, problem: "its two sizes disagree" });
        }
        let value_size = usize::from(value_size);
        if value_size == 0 || value_size > MAX_MEASUREMENT_LEN {
            return Err(ParseError::Report { field: FIELD, problem: "its value is empty or too long" });
        }
        let value = reader.take(FIELD, value_size)?.to_vec();
        if index == 0 || measurements.insert(index, Measurement { kind, value }).is_some() {
            return Err(ParseError::Report { field: FIELD, problem: "its index is 0 or stands twice" });
        }
    }
    if !reader.0.is_empty() {
        return Err(ParseError::Report { field: "measurement record", problem: "bytes follow the last block" });
    }
    if measurements.is_empty() {
        return Err(ParseError::Report { field: "number of blocks", problem: "there are no measurements" });
    }
    Ok(measurements)
}

/// Bytes not read yet.
pub(super) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn take(&mut self, field: &'static str, len: usize) -> Result<&'a [u8], ParseError> {
        let (head, tail) =
            self.0.split_at_checked(len).ok_or(ParseError::Report { field, problem: "it is cut off" })?;
        self.0 = tail;
        Ok(head)
    }

    pub fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], ParseError> {
        let (head, tail) = self.0.split_first_chunk().ok_or(ParseError::Report { field, problem: "it is cut off" })?;
        self.0 = tail;
        Ok(*head)
    }

    pub fn u8(&mut self, field: &'static str) -> Result<u8, ParseError> {
        self.array::<1>(field).map(|[byte]| byte)
    }

    pub fn u16(&mut self, field: &'static str) -> Result<u16, ParseError> {
        self.array(field).map(u16::from_le_bytes)
    }

    fn constant(&mut self, field: &'static str, value: u8, problem: &'static str) -> Result<(), ParseError> {
        if self.u8(field)? == value { Ok(()) } else { Err(ParseError::Report { field, problem }) }
    }
}
