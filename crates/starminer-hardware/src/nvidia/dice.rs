//! What the attestation certificate of a GPU says beyond X.509: the digest of the firmware that holds its key, and the name of the device.
//!
//! The certificate was issued inside of the GPU, by its boot ROM, to a key derived from that digest (DICE). Hopper writes the old form of TCG's extension
//! (`CompositeDeviceID`: issuer's key and one digest), Blackwell `DiceTcbInfo`. The device's name is DMTF's (DSP0274, "other name" of the subject).

use crate::cert::der::{Malformed, Reader, only, tag};

use super::opaque::FWID_LEN;

/// Extensions that hold the firmware id: 2.23.133.5.4.1, and 2.23.133.5.4.1.1 of some firmware.
pub(super) const FWID_OIDS: [&[u8]; 2] =
    [&[0x67, 0x81, 0x05, 0x05, 0x04, 0x01], &[0x67, 0x81, 0x05, 0x05, 0x04, 0x01, 0x01]];
/// The extension "subject alternative name": 2.5.29.17.
pub(super) const ALTERNATIVE_NAME_OID: &[u8] = &[0x55, 0x1d, 0x11];

/// DMTF's device name: 1.3.6.1.4.1.412.274.1.
const DEVICE_NAME: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0x1c, 0x82, 0x12, 0x01];
/// 2.16.840.1.101.3.4.2.2.
const SHA384: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02];
const UTF8_STRING: u8 = 0x0c;
/// `[6]`, the firmware ids of `DiceTcbInfo`.
const FWIDS: u8 = 0xa6;
/// `[7]`, its operational flags.
const FLAGS: u8 = 0x87;
/// The last field of `DiceTcbInfo` that there is: `[10]`.
const LAST_FIELD: u8 = 10;
/// The longest device name that is read.
const MAX_NAME_LEN: usize = 128;

/// What the firmware extension says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Firmware {
    /// SHA-384 of the firmware that the attestation key belongs to.
    pub fwid: [u8; FWID_LEN],
    /// The key of the layer beneath, which signed the certificate, as a `SubjectPublicKeyInfo`. Hopper only.
    pub issuer_key: Option<Vec<u8>>,
    /// What the firmware says of its own state. Blackwell only.
    pub flags: Option<Flags>,
}

/// Operational flags of `DiceTcbInfo`. (A fourth, *not configured*, is set on GPUs as they are delivered and says nothing.)
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Flags {
    /// *notSecure*.
    pub insecure: bool,
    /// *recovery*.
    pub recovery: bool,
    /// *debug*.
    pub debug: bool,
}

impl Firmware {
    /// Reads the content of the extension.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let fields = only(bytes, tag::SEQUENCE)?;
        if fields.rest().first() == Some(&tag::INTEGER) { composite(fields) } else { tcb_info(fields) }
    }
}

/// `SEQUENCE { version INTEGER, deviceID SubjectPublicKeyInfo, fwid FWID }`.
fn composite(mut fields: Reader<'_>) -> Result<Firmware, Malformed> {
    if fields.small()? != 1 {
        return Err(Malformed);
    }
    let issuer_key = Some(fields.element(tag::SEQUENCE)?.raw.to_vec());
    let fwid = fwid(&mut fields)?;
    fields.finish()?;
    Ok(Firmware { fwid, issuer_key, flags: None })
}

/// A sequence of optional fields, each with its own tag, in their order.
fn tcb_info(mut fields: Reader<'_>) -> Result<Firmware, Malformed> {
    let mut last = None;
    let (mut found, mut flags) = (None, None);
    while !fields.is_empty() {
        let field = fields.any()?;
        let number = field.tag & 0x1f;
        if field.tag & 0xc0 != 0x80 || number > LAST_FIELD || last.is_some_and(|last| number <= last) {
            return Err(Malformed);
        }
        last = Some(number);
        match field.tag {
            FWIDS => found = Some(first_fwid(Reader::new(field.content))?),
            FLAGS => flags = Some(operational_flags(field.content)?),
            _ => {}
        }
    }
    Ok(Firmware { fwid: found.ok_or(Malformed)?, issuer_key: None, flags })
}

/// The first of the firmware ids is the one that reports repeat.
fn first_fwid(mut list: Reader<'_>) -> Result<[u8; FWID_LEN], Malformed> {
    let first = fwid(&mut list)?;
    while !list.is_empty() {
        fwid(&mut list)?;
    }
    Ok(first)
}

/// `SEQUENCE { hashAlg OBJECT IDENTIFIER, digest OCTET STRING }`.
fn fwid(reader: &mut Reader<'_>) -> Result<[u8; FWID_LEN], Malformed> {
    let mut fwid = reader.inside(tag::SEQUENCE)?;
    if fwid.content(tag::OID)? != SHA384 {
        return Err(Malformed);
    }
    let digest = fwid.content(tag::OCTET_STRING)?;
    fwid.finish()?;
    digest.try_into().map_err(|_| Malformed)
}

/// A bit string without its tag: unused bits of the last byte, then the bits, the first flag highest.
fn operational_flags(content: &[u8]) -> Result<Flags, Malformed> {
    let (&unused, bits) = content.split_first().ok_or(Malformed)?;
    let valid = bits.len() <= 4 && unused < 8 && (unused == 0 || !bits.is_empty());
    if !valid {
        return Err(Malformed);
    }
    let first = bits.first().copied().unwrap_or_default();
    Ok(Flags { insecure: first & 0x40 != 0, recovery: first & 0x20 != 0, debug: first & 0x10 != 0 })
}

/// The name of a device: maker, chip, and what tells it from others of its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DeviceName {
    /// `GH100`.
    pub chip: String,
    /// `48B02DF44660DA06`.
    pub serial: String,
}

impl DeviceName {
    /// Reads the content of a subject alternative name: `NVIDIA:GH100:48B02DF44660DA06`.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut names = only(bytes, tag::SEQUENCE)?;
        let mut name = names.inside(tag::CONTEXT_0)?;
        names.finish()?;
        if name.content(tag::OID)? != DEVICE_NAME {
            return Err(Malformed);
        }
        let mut value = name.inside(tag::CONTEXT_0)?;
        name.finish()?;
        let text = value.content(UTF8_STRING)?;
        value.finish()?;
        let text = std::str::from_utf8(text).map_err(|_| Malformed)?;
        let plain = text.len() <= MAX_NAME_LEN && text.bytes().all(|byte| byte.is_ascii_graphic());
        let mut parts = text.split(':');
        match (plain, parts.next(), parts.next(), parts.next(), parts.next()) {
            (true, Some("NVIDIA"), Some(chip), Some(serial), None) if !chip.is_empty() && !serial.is_empty() => {
                Ok(Self { chip: chip.to_owned(), serial: serial.to_owned() })
            }
            _ => Err(Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cert::der::encode;

    fn fwid_der(byte: u8) -> Vec<u8> {
        encode(tag::SEQUENCE, &[encode(tag::OID, SHA384), encode(tag::OCTET_STRING, &[byte; FWID_LEN])].concat())
    }

    #[test]
    fn the_newer_form_gives_its_first_firmware_and_its_flags() {
        let fields = [
            encode(0x80, b"NVIDIA"),
            encode(0x81, b"GB100 A01 GSP"),
            encode(0x83, &[1]),
            encode(FWIDS, &[fwid_der(1), fwid_der(2)].concat()),
            encode(FLAGS, &[0, 0x90]),
        ];
        let parsed = Firmware::parse(&encode(tag::SEQUENCE, &fields.concat())).expect("it has the form");
        assert_eq!(parsed.fwid, [1; FWID_LEN]);
        assert_eq!(parsed.flags, Some(Flags { insecure: false, recovery: false, debug: true }));
        assert_eq!(parsed.issuer_key, None);
    }

    #[test]
    fn what_is_not_of_the_form_is_refused() {
        for (fields, why) in [
            (vec![encode(FLAGS, &[0, 0])], "no firmware id"),
            (vec![encode(FWIDS, &fwid_der(1)), encode(0x83, &[1])], "fields out of order"),
            (vec![encode(FWIDS, &fwid_der(1)), encode(FWIDS, &fwid_der(1))], "a field twice"),
            (vec![encode(FWIDS, &[])], "an empty list"),
            (vec![encode(FWIDS, &fwid_der(1)), encode(0x8b, &[1])], "a field beyond the last"),
            (vec![encode(FWIDS, &fwid_der(1)), encode(FLAGS, &[])], "flags without bits"),
        ] {
            assert!(Firmware::parse(&encode(tag::SEQUENCE, &fields.concat())).is_err(), "{why}");
        }
    }
}
