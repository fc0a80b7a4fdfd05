//! PEM (RFC 7468), strictly: what stands between `BEGIN` and `END` is base64 in lines and nothing else.
//!
//! Text outside of the armour is passed over, as long as it has no armour in it: a damaged boundary is an error and not a missing block.

use super::CertificateError;

const BOUNDARY: &str = "-----";
/// The most lines: the longest list has 8,192 of 64 letters. Each costs more than its letters do.
const MAX_LINES: usize = 12_288;

/// Whether these bytes are meant as PEM: DER begins with a SEQUENCE.
pub(super) fn is_pem(bytes: &[u8]) -> bool {
    bytes.first() != Some(&super::der::tag::SEQUENCE)
}

/// The contents of all blocks, which have to have one of these labels.
pub(super) fn blocks(bytes: &[u8], labels: &[&str], most: usize) -> Result<Vec<Vec<u8>>, CertificateError> {
    let text = str::from_utf8(bytes).map_err(|_| CertificateError::Unreadable)?;
    let mut blocks = Vec::new();
    let mut open: Option<(&str, String)> = None;
    let mut read = 0;
    for (count, line) in text.split('\n').enumerate() {
        if count >= MAX_LINES {
            return Err(CertificateError::Pem("it has more lines than any"));
        }
        read += line.len() + 1;
        let line = line.strip_suffix('\r').unwrap_or(line);
        match &mut open {
            None if line.contains(BOUNDARY) => {
                let label = line
                    .strip_prefix("-----BEGIN ")
                    .and_then(|rest| rest.trim_end_matches([' ', '\t']).strip_suffix(BOUNDARY))
                    .ok_or(CertificateError::Pem("a boundary line is damaged"))?;
                if !labels.contains(&label) {
                    return Err(CertificateError::Pem("a block has another label"));
                }
                if blocks.len() >= most {
                    return Err(CertificateError::TooMany { most });
                }
                // Never more than is left, so that it need not grow.
                open = Some((label, String::with_capacity(text.len().saturating_sub(read))));
            }
            None => {}
            Some((label, base64)) if line.contains('-') => {
                let closes = line
                    .trim_end_matches([' ', '\t'])
                    .strip_prefix("-----END ")
                    .and_then(|rest| rest.strip_suffix(BOUNDARY));
                if closes != Some(*label) {
                    return Err(CertificateError::Pem("a boundary line is damaged"));
                }
                let der = data_encoding::BASE64
                    .decode(base64.as_bytes())
                    .map_err(|_| CertificateError::Pem("a block is no base64"))?;
                blocks.push(der);
                open = None;
            }
            Some((_, base64)) => base64.push_str(line.trim_end_matches([' ', '\t'])),
        }
    }
    if open.is_some() {
        return Err(CertificateError::Pem("a block has no end"));
    }
    if blocks.is_empty() {
        return Err(CertificateError::Unreadable);
    }
    Ok(blocks)
}
