//! A strict reader of DER, for the few structures that are read beyond what `x509-parser` offers.
//!
//! X.690: one-byte tags, definite and minimal lengths only. It allocates nothing, recurses nowhere and cannot panic.

/// Universal and context tags that are read.
pub(crate) mod tag {
    pub(crate) const BOOLEAN: u8 = 0x01;
    pub(crate) const INTEGER: u8 = 0x02;
    pub(crate) const BIT_STRING: u8 = 0x03;
    pub(crate) const OCTET_STRING: u8 = 0x04;
    pub(crate) const NULL: u8 = 0x05;
    pub(crate) const OID: u8 = 0x06;
    pub(crate) const SEQUENCE: u8 = 0x30;
    pub(crate) const UTC_TIME: u8 = 0x17;
    pub(crate) const GENERALIZED_TIME: u8 = 0x18;
    pub(crate) const CONTEXT_0: u8 = 0xa0;
    pub(crate) const CONTEXT_1: u8 = 0xa1;
    pub(crate) const CONTEXT_2: u8 = 0xa2;
    pub(crate) const CONTEXT_3: u8 = 0xa3;
}

/// The bytes are no DER, or not of the shape that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed DER")]
pub(crate) struct Malformed;

/// One element: tag, content, and both with the length as they stand.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Element<'a> {
    pub(crate) tag: u8,
    pub(crate) content: &'a [u8],
    pub(crate) raw: &'a [u8],
}

/// Reads elements one after the other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// The next element, whatever it is.
    pub(crate) fn any(&mut self) -> Result<Element<'a>, Malformed> {
        let (&tag, after) = self.0.split_first().ok_or(Malformed)?;
        // Multi-byte tags occur in nothing that is read here.
        if tag & 0x1f == 0x1f {
            return Err(Malformed);
        }
        let (&first, mut after) = after.split_first().ok_or(Malformed)?;
        let length = if first < 0x80 {
            usize::from(first)
        } else {
            let count = usize::from(first & 0x7f);
            if count == 0 || count > 4 {
                return Err(Malformed);
            }
            let (digits, rest) = after.split_at_checked(count).ok_or(Malformed)?;
            after = rest;
            let length = digits.iter().fold(0u64, |sum, &digit| (sum << 8) | u64::from(digit));
            if length < 0x80 || digits.first() == Some(&0) {
                return Err(Malformed);
            }
            usize::try_from(length).map_err(|_| Malformed)?
        };
        let (content, rest) = after.split_at_checked(length).ok_or(Malformed)?;
        let raw = self.0.get(..self.0.len() - rest.len()).ok_or(Malformed)?;
        self.0 = rest;
        Ok(Element { tag, content, raw })
    }

    /// The next element, which has this tag.
    pub(crate) fn element(&mut self, tag: u8) -> Result<Element<'a>, Malformed> {
        let element = self.any()?;
        if element.tag == tag { Ok(element) } else { Err(Malformed) }
    }

    /// The content of the next element, which has this tag.
    pub(crate) fn content(&mut self, tag: u8) -> Result<&'a [u8], Malformed> {
        self.element(tag).map(|element| element.content)
    }

    /// The content of the next element if it has this tag.
    pub(crate) fn optional(&mut self, tag: u8) -> Result<Option<&'a [u8]>, Malformed> {
        if self.0.first() == Some(&tag) { self.content(tag).map(Some) } else { Ok(None) }
    }

    /// A reader inside of the next element, which has this tag.
    pub(crate) fn inside(&mut self, tag: u8) -> Result<Self, Malformed> {
        self.content(tag).map(Self)
    }

    /// The bytes of a bit string of whole bytes.
    pub(crate) fn bit_string(&mut self) -> Result<&'a [u8], Malformed> {
        match self.content(tag::BIT_STRING)?.split_first() {
            Some((0, bytes)) => Ok(bytes),
            _ => Err(Malformed),
        }
    }

    /// The big-endian magnitude of a number that is not negative, without leading zeros; zero is one zero byte.
    pub(crate) fn unsigned(&mut self) -> Result<&'a [u8], Malformed> {
        match self.content(tag::INTEGER)? {
            [] => Err(Malformed),
            [0] => Ok(&[0]),
            [0, rest @ ..] if rest[0] >= 0x80 => Ok(rest),
            [0, ..] => Err(Malformed),
            [first, ..] if *first >= 0x80 => Err(Malformed),
            bytes => Ok(bytes),
        }
    }

    /// A small number that is not negative.
    pub(crate) fn small(&mut self) -> Result<u64, Malformed> {
        let bytes = self.unsigned()?;
        if bytes.len() > 8 {
            return Err(Malformed);
        }
        Ok(bytes.iter().fold(0, |sum, &digit| (sum << 8) | u64::from(digit)))
    }

    /// Nothing may follow.
    pub(crate) const fn finish(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed) }
    }
}

/// The only element of these bytes, opened.
pub(crate) fn only(bytes: &[u8], tag: u8) -> Result<Reader<'_>, Malformed> {
    let mut outer = Reader::new(bytes);
    let inner = outer.inside(tag)?;
    outer.finish()?;
    Ok(inner)
}

/// Encodes an element, of less than 64 KiB.
pub(crate) fn encode(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match u16::try_from(content.len()).expect("callers encode keys and signatures, of less than 64 KiB") {
        short @ 0..0x80 => out.push(short as u8),
        medium @ 0x80..0x100 => out.extend([0x81, medium as u8]),
        long => {
            out.push(0x82);
            out.extend(long.to_be_bytes());
        }
    }
    out.extend(content);
    out
}

/// Encodes a number given by its big-endian bytes.
pub(crate) fn encode_unsigned(magnitude: &[u8]) -> Vec<u8> {
    let first = magnitude.iter().position(|&byte| byte != 0).unwrap_or(magnitude.len());
    let mut digits = Vec::with_capacity(magnitude.len() + 1);
    match magnitude.get(first) {
        Some(&leading) if leading < 0x80 => {}
        _ => digits.push(0),
    }
    digits.extend(&magnitude[first..]);
    encode(tag::INTEGER, &digits)
}

/// The dotted form of an object identifier's content octets, for people.
pub(crate) fn dotted(oid: &[u8]) -> String {
    let mut out = String::new();
    let mut arc = 0u64;
    for &byte in oid.iter().take(64) {
        arc = (arc.wrapping_shl(7)) | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            if out.is_empty() {
                let first = (arc / 40).min(2);
                out = format!("{first}.{}", arc - first * 40);
            } else {
                out.push_str(&format!(".{arc}"));
            }
            arc = 0;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_minimal_and_definite() {
        for (bytes, good) in [
            (&[0x02, 0x01, 0x05][..], true),
            (&[0x02, 0x81, 0x01, 0x05], false),
            (&[0x02, 0x80, 0x05, 0, 0], false),
            (&[0x02, 0x02, 0x00, 0x05], false),
            (&[0x02, 0x02, 0x00, 0x85], true),
            (&[0x02, 0x01, 0x85], false),
            (&[0x02, 0x00], false),
            (&[0x02, 0x02, 0x05], false),
            (&[0x02, 0x84, 0xff, 0xff, 0xff, 0xff], false),
        ] {
            assert_eq!(Reader::new(bytes).unsigned().is_ok(), good, "{bytes:x?}");
        }
    }

    #[test]
    fn numbers_survive() {
        for magnitude in [&[0u8, 0, 1][..], &[0x80], &[0], &[], &[0xff; 66]] {
            let encoded = encode_unsigned(magnitude);
            let digits = Reader::new(&encoded).unsigned().expect("what was encoded");
            let trimmed: Vec<u8> = magnitude.iter().copied().skip_while(|&byte| byte == 0).collect();
            assert_eq!(digits, if trimmed.is_empty() { &[0][..] } else { &trimmed });
        }
        assert_eq!(dotted(&[0x2b, 6, 1, 4, 1, 0x9c, 0x78, 1, 1]), "1.3.6.1.4.1.3704.1.1");
        assert_eq!(dotted(&[0x55, 0x1d, 0x13]), "2.5.29.19");
    }
}
