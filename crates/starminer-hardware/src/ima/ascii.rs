//! Lines of `ascii_runtime_measurements`. What was hashed is put together again from the text.

use std::borrow::Cow;

use super::parse::{Entry, Field, FileDigest, MAX_LINE_BYTES, ParseError, fields, template_name};
use crate::event_log::{Bank, Digest};

pub(super) fn entry(index: usize, line: &[u8]) -> Result<Entry<'_>, ParseError> {
    parse(index, line).ok_or(ParseError::Line(index + 1))?
}

fn word(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = line.iter().position(|byte| *byte == b' ')?;
    Some((&line[..space], &line[space + 1..]))
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

fn from_hex(bytes: &[u8]) -> Option<Vec<u8>> {
    data_encoding::HEXLOWER.decode(bytes).ok()
}

fn parse(index: usize, line: &[u8]) -> Option<Result<Entry<'_>, ParseError>> {
    if line.len() > MAX_LINE_BYTES {
        return None;
    }
    // The kernel pads the register to two places.
    let line = line.strip_prefix(b" ").unwrap_or(line);
    let (register, rest) = word(line)?;
    let register = text(register)?.parse().ok()?;
    let (digest, rest) = word(rest)?;
    let digest = from_hex(digest)?;
    let banks = [Bank::Sha1, Bank::Sha256, Bank::Sha384, Bank::Sha512];
    let bank = banks.into_iter().find(|bank| bank.size_bytes() == digest.len())?;
    let (template, rest) = word(rest)?;
    let template = template_name(template)?;
    let (file_digest, rest) = word(rest)?;
    let mut entry = Entry {
        index,
        register,
        template_digest: digest.into(),
        bank,
        template,
        data: Cow::Borrowed(&[]),
        file_digest: None,
        path: None,
        signature: None,
    };
    if template == "ima" {
        let digest = Digest::new(Bank::Sha1, &from_hex(file_digest)?)?;
        if rest.len() >= 256 || rest.contains(&0) {
            return None;
        }
        entry.old_template(digest.as_bytes().to_vec().into(), rest.into());
        return Some(Ok(entry));
    }
    let Some(fields) = fields(template) else { return Some(Err(ParseError::Template(index))) };
    // Text names what of the data is what for these alone, in this order.
    let [Field::Digest, Field::Name, others @ ..] = &fields[..] else {
        return Some(Err(ParseError::Template(index)));
    };
    if others.iter().any(|field| !matches!(field, Field::Signature | Field::Hex)) {
        return Some(Err(ParseError::Template(index)));
    }
    let (prefix, digest) = split_digest(file_digest)?;
    let digest = from_hex(digest)?;
    // Each field has a space before it, and an empty one nothing behind that. A path may have spaces of its own, and tools cut spaces off the
    // end of lines, so that both ways to read the rest are tried; the digest tells.
    let mut read = None;
    let ways: &[&[Field]] = if others.is_empty() { &[&[]] } else { &[others, &[]] };
    for others in ways {
        let missing = fields.len() - 2 - others.len();
        let Some((path, values)) = split_end(rest, others.len()) else { continue };
        let Some(values) = values.into_iter().map(from_hex).collect::<Option<Vec<_>>>() else { continue };
        let mut data = Vec::with_capacity(line.len());
        push(&mut data, &[prefix, b":\0", &digest]);
        push(&mut data, &[path, b"\0"]);
        values.iter().for_each(|value| push(&mut data, &[value]));
        (0..missing).for_each(|_| push(&mut data, &[]));
        let agrees = ways.len() == 1 || bank.hash(&[&data]).as_bytes() == &*entry.template_digest;
        if agrees || read.is_none() {
            read = Some((path, values, data));
        }
        if agrees {
            break;
        }
    }
    let (path, values, data) = read?;
    let algorithm = text(prefix)?;
    let (verity, algorithm) = match algorithm.split_once(':') {
        Some(("verity", algorithm)) => (true, algorithm),
        Some(("ima", algorithm)) => (false, algorithm),
        Some(_) => return None,
        None => (false, algorithm),
    };
    entry.file_digest = Some(FileDigest { algorithm, verity, digest: digest.into() });
    entry.path = Some(path.into());
    entry.signature = others
        .iter()
        .zip(values)
        .find(|(field, value)| **field == Field::Signature && !value.is_empty())
        .map(|(_, value)| value.into());
    entry.data = data.into();
    Some(Ok(entry))
}

/// `sha256:hex` or `verity:sha256:hex`: what is before the last colon, and behind it.
fn split_digest(token: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = token.iter().rposition(|byte| *byte == b':')?;
    Some((&token[..colon], &token[colon + 1..]))
}

/// Takes as many words off the end, each with the space before it.
fn split_end(mut rest: &[u8], count: usize) -> Option<(&[u8], Vec<&[u8]>)> {
    let mut words = Vec::new();
    for _ in 0..count {
        let space = rest.iter().rposition(|byte| *byte == b' ')?;
        words.push(&rest[space + 1..]);
        rest = &rest[..space];
    }
    words.reverse();
    Some((rest, words))
}

/// A field, with its length before it.
fn push(data: &mut Vec<u8>, parts: &[&[u8]]) {
    let size_bytes: usize = parts.iter().map(|part| part.len()).sum();
    // Lines are bounded far below this.
    data.extend(u32::try_from(size_bytes).unwrap_or(u32::MAX).to_le_bytes());
    parts.iter().for_each(|part| data.extend_from_slice(part));
}
