//! Bytes of commands and responses: big-endian numbers, and byte strings behind a size of 16 bits.
//!
//! `tpm2-protocol` gives the numbers of commands, algorithms and codes, and `starminer-hardware` reads public areas and
//! quotes. Bodies are put together here, because a session encrypts and authenticates them as bytes, what a TPM signed
//! is kept as the very bytes it sent, and secrets in them have to be wiped: that crate's buffers are copied freely and
//! print themselves.

use zeroize::Zeroizing;

/// Longest command and response (Part 2, `MAX_COMMAND_SIZE` of every TPM that is known; the kernel's buffer as well).
pub(super) const FRAME_BYTES_MAX: usize = 4096;

/// A body in the making. Sized before it is filled ([`Writer::new`]), since growing would leave copies behind.
#[derive(Default)]
pub(super) struct Writer(Zeroizing<Vec<u8>>);

impl Writer {
    pub(super) fn new() -> Self {
        Self(Zeroizing::new(Vec::with_capacity(FRAME_BYTES_MAX)))
    }

    pub(super) fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    pub(super) fn u16(self, value: u16) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    pub(super) fn u32(self, value: u32) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    pub(super) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// A TPM2B. What does not fit its size does not fit a frame either, and is refused there.
    pub(super) fn sized(self, bytes: &[u8]) -> Self {
        self.u16(u16::try_from(bytes.len()).unwrap_or(u16::MAX)).bytes(bytes)
    }

    pub(super) fn finish(self) -> Zeroizing<Vec<u8>> {
        self.0
    }
}

/// What is left to read. `None` where there are too few bytes.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]: [u8; 1]| byte)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        self.0.split_off(..count)
    }

    /// What a TPM2B wraps.
    pub(super) fn sized(&mut self) -> Option<&'a [u8]> {
        let size = self.u16()?;
        self.bytes(size.into())
    }

    pub(super) fn rest(self) -> &'a [u8] {
        self.0
    }

    /// `Some` at the end.
    pub(super) fn end(self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}
