//! What firmware and hypervisor answer, in words.
//!
//! Source: AMD 56860 section 3.3 (status codes), AMD 56421 (GHCB) section 4.1.7, `linux/sev-guest.h`.

use std::fmt;

/// `exitinfo2` of a guest request: the firmware's status in the lower half, the hypervisor's in the upper.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ExitInfo(pub u64);

/// The hypervisor needs more room for certificates than was given.
const VMM_INVALID_LENGTH: u32 = 1;
/// The hypervisor throttles; the same request may be made again.
const VMM_BUSY: u32 = 2;
/// What the driver puts there before firmware is asked.
const NOT_ASKED: [u32; 2] = [0xff, u32::MAX];

impl ExitInfo {
    /// The firmware's status.
    pub const fn firmware(self) -> u32 {
        self.0 as u32
    }

    /// The hypervisor's status.
    pub const fn hypervisor(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Whether the buffer for certificates was too small.
    pub const fn wants_room(self) -> bool {
        self.hypervisor() == VMM_INVALID_LENGTH
    }

    /// Whether the request was throttled.
    pub const fn is_throttled(self) -> bool {
        self.hypervisor() == VMM_BUSY
    }
}

impl fmt::Display for ExitInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.hypervisor() {
            0 => {}
            VMM_INVALID_LENGTH => return f.write_str("the hypervisor wants more room for certificates"),
            VMM_BUSY => return f.write_str("the hypervisor throttles requests"),
            other => return write!(f, "hypervisor error {other:#x}"),
        }
        match self.firmware() {
            code if NOT_ASKED.contains(&code) => f.write_str("firmware was not asked"),
            code => write!(f, "firmware status {code:#x}: {}", firmware_status(code)),
        }
    }
}

impl fmt::Debug for ExitInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ExitInfo({:#x}: {self})", self.0)
    }
}

/// A status code of SEV firmware in words.
pub const fn firmware_status(code: u32) -> &'static str {
    match code {
        0x00 => "success",
        0x01 => "invalid platform state",
        0x02 => "invalid guest state",
        0x03 => "invalid platform configuration",
        0x04 => "buffer too small",
        0x05 => "platform is owned already",
        0x06 => "invalid certificate",
        0x07 => "not allowed by the guest's policy",
        0x08 => "guest is not active",
        0x09 => "invalid address",
        0x0a => "bad signature",
        0x0b => "bad measurement",
        0x0c => "address space id is in use",
        0x0d => "invalid address space id",
        0x0e => "WBINVD is required",
        0x0f => "DF_FLUSH is required",
        0x10 => "invalid guest handle",
        0x11 => "invalid command",
        0x12 => "guest is active",
        0x13 => "hardware error, operation can go on",
        0x14 => "hardware error, operation cannot go on",
        0x15 => "not supported",
        0x16 => "invalid parameter",
        0x17 => "out of resources",
        0x18 => "integrity check failed",
        0x19 => "invalid page size",
        0x1a => "invalid page state",
        0x1b => "invalid metadata entry",
        0x1c => "invalid page owner",
        0x1d => "message counter would overflow",
        0x1f => "firmware left the ring buffer mode",
        0x20 => "the reverse map table must be initialised",
        0x21 => "security version below the committed one",
        0x22 => "firmware rollback refused",
        0x23 => "shutdown is required",
        0x24 => "update failed",
        0x25 => "restore of the committed firmware is required",
        0x26 => "initialisation of the reverse map table failed",
        0x27 => "key is not available, or not selectable",
        _ => "unknown status",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_and_words() {
        for (value, text, wants_room, throttled) in [
            (0x0000_0001_0000_0000, "the hypervisor wants more room for certificates", true, false),
            (0x0000_0002_0000_0000, "the hypervisor throttles requests", false, true),
            (0x0000_0003_0000_0000, "hypervisor error 0x3", false, false),
            (0x0000_0000_0000_00ff, "firmware was not asked", false, false),
            (0x0000_0000_ffff_ffff, "firmware was not asked", false, false),
            (0x0000_0000_0000_0016, "firmware status 0x16: invalid parameter", false, false),
            (0x0000_0000_0000_1234, "firmware status 0x1234: unknown status", false, false),
        ] {
            let info = ExitInfo(value);
            assert_eq!(
                (info.to_string().as_str(), info.wants_room(), info.is_throttled()),
                (text, wants_room, throttled)
            );
        }
    }
}
