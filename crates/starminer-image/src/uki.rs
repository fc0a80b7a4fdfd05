//! A unified kernel image: systemd's stub with more sections behind its own.
//!
//! Written here because a PE writer that adds sections and leaves the rest as it is does not exist as a library; what is needed is a few fields of the
//! headers. The stub finds the sections by name in its own image in memory. Source: Microsoft PE format; systemd-stub(7).

/// Where the number is that says where the PE header is.
const HEADER_AT: usize = 0x3c;
/// Bytes of signature and COFF header.
const COFF_BYTES: usize = 24;
const SECTION_BYTES: usize = 40;
/// Sections begin on pages of memory.
const PAGE_BYTES: u32 = 4096;
/// Most sections of a stub.
const MAX_SECTIONS: usize = 64;
/// Initialised data that is read and neither written nor executed.
const READ_ONLY_DATA: u32 = 0x4000_0040;
/// Magic number of the optional header of 64-bit images.
const PE32_PLUS: u16 = 0x20b;
const AMD64: u16 = 0x8664;

/// Why sections cannot be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StubError {
    /// Headers are missing, end too early, or say what cannot be.
    #[error("not a PE image for x86-64 that sections can be added to: {0}")]
    Malformed(&'static str),
    /// It has a signature, which would be void.
    #[error("the stub is signed: give one that is not")]
    Signed,
    /// There is a section of this name.
    #[error("the stub has a section {0} already")]
    Present(&'static str),
    /// No room for more entries in its headers.
    #[error("the stub's headers have no room for more sections")]
    NoRoom,
    /// More than 4 GiB.
    #[error("the image would be too large")]
    TooLarge,
}

/// Little-endian fields of a header.
struct Fields<'a>(&'a mut Vec<u8>);

impl Fields<'_> {
    fn u16(&self, at: usize) -> Result<u16, StubError> {
        let bytes = self.0.get(at..).and_then(<[u8]>::first_chunk);
        bytes.copied().map(u16::from_le_bytes).ok_or(StubError::Malformed("it ends within its headers"))
    }

    fn u32(&self, at: usize) -> Result<u32, StubError> {
        let bytes = self.0.get(at..).and_then(<[u8]>::first_chunk);
        bytes.copied().map(u32::from_le_bytes).ok_or(StubError::Malformed("it ends within its headers"))
    }

    fn set(&mut self, at: usize, value: &[u8]) -> Result<(), StubError> {
        let place = self.0.get_mut(at..at + value.len());
        place.ok_or(StubError::Malformed("it ends within its headers"))?.copy_from_slice(value);
        Ok(())
    }

    fn set_u32(&mut self, at: usize, value: u32) -> Result<(), StubError> {
        self.set(at, &value.to_le_bytes())
    }
}

/// The version of systemd that a stub says it is of.
pub fn stub_version(stub: &[u8]) -> Option<u32> {
    const MARK: &[u8] = b"LoaderInfo: systemd-stub ";
    let at = stub.windows(MARK.len()).position(|window| window == MARK)? + MARK.len();
    let digits: Vec<u8> = stub.get(at..)?.iter().copied().take_while(u8::is_ascii_digit).take(6).collect();
    std::str::from_utf8(&digits).ok()?.parse().ok()
}

/// The stub with these sections, each beginning on a page of its own, in their order. Names have at most 8 bytes.
///
/// The stub's symbols for debuggers are dropped: they stand where the sections go.
///
/// # Errors
/// Every variant of [`StubError`].
pub fn assemble(stub: &[u8], sections: &[(&'static str, &[u8])]) -> Result<Vec<u8>, StubError> {
    let mut image = stub.to_vec();
    let mut fields = Fields(&mut image);
    if fields.u16(0)? != u16::from_le_bytes(*b"MZ") {
        return Err(StubError::Malformed("no MZ header"));
    }
    let coff = fields.u32(HEADER_AT)? as usize;
    if coff > stub.len() || fields.u32(coff)? != u32::from_le_bytes(*b"PE\0\0") {
        return Err(StubError::Malformed("no PE header"));
    }
    let optional = coff + COFF_BYTES;
    if fields.u16(coff + 4)? != AMD64 || fields.u16(optional)? != PE32_PLUS {
        return Err(StubError::Malformed("another machine's"));
    }
    let count = usize::from(fields.u16(coff + 6)?);
    let table = optional + usize::from(fields.u16(coff + 20)?);
    let (section_align, file_align) = (fields.u32(optional + 32)?, fields.u32(optional + 36)?);
    let header_bytes = fields.u32(optional + 60)? as usize;
    if !section_align.is_power_of_two()
        || !file_align.is_power_of_two()
        || section_align > PAGE_BYTES
        || file_align > PAGE_BYTES
    {
        return Err(StubError::Malformed("alignments"));
    }
    // The table of certificates is the fifth of the data directories, if there are so many.
    if fields.u32(optional + 108)? > 4 && fields.u32(optional + 112 + 4 * 8 + 4)? != 0 {
        return Err(StubError::Signed);
    }
    if count > MAX_SECTIONS || table + (count + sections.len()) * SECTION_BYTES > header_bytes {
        return Err(StubError::NoRoom);
    }

    let (mut memory_end, mut file_end, mut first_raw) = (0_u64, header_bytes as u64, u64::MAX);
    for number in 0..count {
        let entry = table + number * SECTION_BYTES;
        let name = fields.0.get(entry..entry + 8).ok_or(StubError::Malformed("it ends within its headers"))?;
        for (wanted, _) in sections {
            if name.starts_with(wanted.as_bytes()) && name[wanted.len()..].iter().all(|byte| *byte == 0) {
                return Err(StubError::Present(wanted));
            }
        }
        if name[0] == b'/' {
            return Err(StubError::Malformed("a name of a section stands in the symbols, which are dropped"));
        }
        let field = |at: usize| fields.u32(entry + at).map(u64::from);
        let (virtual_bytes, address, raw_bytes, raw_at) = (field(8)?, field(12)?, field(16)?, field(20)?);
        memory_end = memory_end.max(address + virtual_bytes.max(raw_bytes));
        file_end = file_end.max(raw_at + raw_bytes);
        if raw_bytes != 0 {
            first_raw = first_raw.min(raw_at);
        }
    }
    if file_end > stub.len() as u64 || first_raw < header_bytes as u64 {
        return Err(StubError::Malformed("sections lie outside of the file, or over the headers"));
    }
    // Symbols, and with them what is behind the last section.
    fields.0.truncate(usize::try_from(file_end).map_err(|_| StubError::TooLarge)?);
    fields.set_u32(coff + 8, 0)?;
    fields.set_u32(coff + 12, 0)?;

    let number = u32::try_from(memory_end).map_err(|_| StubError::TooLarge)?;
    let mut address = number.checked_next_multiple_of(PAGE_BYTES).ok_or(StubError::TooLarge)?;
    let mut added = 0_u32;
    for (number, (name, contents)) in sections.iter().enumerate() {
        let length = u32::try_from(contents.len()).map_err(|_| StubError::TooLarge)?;
        let raw_bytes = length.checked_next_multiple_of(file_align).ok_or(StubError::TooLarge)?;
        let raw_at = fields.0.len().next_multiple_of(file_align as usize);
        fields.0.resize(raw_at, 0);
        fields.0.extend_from_slice(contents);
        fields.0.resize(raw_at + raw_bytes as usize, 0);
        let raw_at = u32::try_from(raw_at).map_err(|_| StubError::TooLarge)?;

        let entry = table + (count + number) * SECTION_BYTES;
        let mut long_name = [0; 8];
        long_name
            .get_mut(..name.len())
            .ok_or(StubError::Malformed("a name of more than 8 bytes"))?
            .copy_from_slice(name.as_bytes());
        fields.set(entry, &long_name)?;
        // Relocations and line numbers, between where it lies and what it is, are none.
        fields.set(entry + 8, &[0; 32])?;
        for (at, value) in [(8, length), (12, address), (16, raw_bytes), (20, raw_at), (36, READ_ONLY_DATA)] {
            fields.set_u32(entry + at, value)?;
        }
        let next = address.checked_add(length).and_then(|end| end.checked_next_multiple_of(PAGE_BYTES));
        address = next.ok_or(StubError::TooLarge)?;
        added = added.checked_add(raw_bytes).ok_or(StubError::TooLarge)?;
    }
    let total = u16::try_from(count + sections.len()).map_err(|_| StubError::NoRoom)?;
    fields.set(coff + 6, &total.to_le_bytes())?;
    let initialised = fields.u32(optional + 8)?.checked_add(added).ok_or(StubError::TooLarge)?;
    fields.set_u32(optional + 8, initialised)?;
    fields.set_u32(optional + 56, address)?;
    // No checksum: firmware looks at none, and signers put theirs in.
    fields.set_u32(optional + 64, 0)?;
    Ok(image)
}
