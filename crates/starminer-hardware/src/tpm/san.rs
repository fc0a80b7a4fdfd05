//! What a certificate of an endorsement key says about its TPM (EK Credential Profile 3.2.9 and 3.2.10).

use crate::cert::der::{self, Malformed, Reader, tag};

/// 2.23.133.2.1 to 2.23.133.2.3: maker, model, version; 2.23.133.2.16: the specification.
const TPM_ATTRIBUTE: [u8; 4] = [0x67, 0x81, 0x05, 0x02];
const SPECIFICATION: &[u8] = &[0x67, 0x81, 0x05, 0x02, 0x10];

const SET: u8 = 0x31;
const UTF8_STRING: u8 = 0x0c;
const PRINTABLE_STRING: u8 = 0x13;
const IA5_STRING: u8 = 0x16;
/// `directoryName` of a `GeneralName`.
const DIRECTORY_NAME: u8 = 0xa4;
/// The longest value; `STRMAX` of the profile.
const VALUE_BYTES_MAX: usize = 256;

/// Which TPM a certificate is about, as its maker writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TpmIdentity {
    /// The id in the vendors' registry, without closing blanks: `NTC`.
    pub(super) maker: String,
    pub(super) model: String,
    /// As in the certificate: `id:00070002`.
    pub(super) version: String,
}

/// Reads the directory name of a `subjectAltName`.
pub(super) fn parse(value: &[u8]) -> Result<TpmIdentity, &'static str> {
    const MALFORMED: &str = "malformed";
    let mut names = der::only(value, tag::SEQUENCE).map_err(|Malformed| MALFORMED)?;
    let mut found: [Option<String>; 3] = [None, None, None];
    while !names.is_empty() {
        let name = names.any().map_err(|Malformed| MALFORMED)?;
        if name.tag == DIRECTORY_NAME {
            directory_name(name.content, &mut found).map_err(|Malformed| MALFORMED)?;
        }
    }
    let [Some(maker), Some(model), Some(version)] = found else { return Err("no maker, model or version") };
    Ok(TpmIdentity {
        maker: maker_id(&maker).ok_or("a maker of another form than id: and eight digits")?,
        model,
        version,
    })
}

fn directory_name(content: &[u8], found: &mut [Option<String>; 3]) -> Result<(), Malformed> {
    // Makers put the three into one set, or each into its own.
    let mut sets = der::only(content, tag::SEQUENCE)?;
    while !sets.is_empty() {
        let mut set = sets.inside(SET)?;
        while !set.is_empty() {
            let mut attribute = set.inside(tag::SEQUENCE)?;
            let oid = attribute.content(tag::OID)?;
            let value = attribute.any()?;
            attribute.finish()?;
            let slot = match oid.strip_prefix(&TPM_ATTRIBUTE) {
                Some([number @ 1..=3]) => found.get_mut(usize::from(*number) - 1),
                _ => None,
            };
            let Some(slot) = slot else { continue };
            if slot.is_some() {
                return Err(Malformed);
            }
            *slot = Some(text(value)?);
        }
    }
    Ok(())
}

fn text(value: der::Element<'_>) -> Result<String, Malformed> {
    if ![UTF8_STRING, PRINTABLE_STRING, IA5_STRING].contains(&value.tag) || value.content.len() > VALUE_BYTES_MAX {
        return Err(Malformed);
    }
    let text = str::from_utf8(value.content).map_err(|_| Malformed)?;
    if text.chars().any(char::is_control) { Err(Malformed) } else { Ok(text.to_owned()) }
}

/// `id:4E544300`: four characters in hexadecimal, closed by zeros or blanks.
fn maker_id(value: &str) -> Option<String> {
    let digits = value.strip_prefix("id:")?;
    let bytes: [u8; 4] = data_encoding::HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).ok()?.try_into().ok()?;
    let len = bytes.iter().rposition(|byte| !matches!(byte, 0 | b' ')).map_or(0, |last| last + 1);
    let trimmed = bytes.get(..len)?;
    if !trimmed.is_empty() && trimmed.iter().all(u8::is_ascii_graphic) {
        return str::from_utf8(trimmed).ok().map(str::to_owned);
    }
    // No text: swtpm names a number (00001014, IBM). Kept as it stands.
    Some(digits.to_ascii_lowercase())
}

/// The family of the specification in `subjectDirectoryAttributes`, where it is there and readable: `2.0`.
pub(super) fn family(value: &[u8]) -> Option<String> {
    let mut attributes = der::only(value, tag::SEQUENCE).ok()?;
    while !attributes.is_empty() {
        let mut attribute = attributes.inside(tag::SEQUENCE).ok()?;
        if attribute.content(tag::OID).ok()? == SPECIFICATION {
            let mut values = attribute.inside(SET).ok()?;
            return specification(&mut values).ok();
        }
    }
    None
}

fn specification(values: &mut Reader<'_>) -> Result<String, Malformed> {
    let mut fields = values.inside(tag::SEQUENCE)?;
    text(fields.any()?)
}
