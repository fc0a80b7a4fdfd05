//! A key that a chip derives for one guest: the same after every start of the same guest on the same chip, and nobody else's.
//!
//! Which guest is the launch measurement's and the launch policy's to say, so that a guest that is allowed to be debugged, or another image, gets another key. What the
//! measurement does not cover the key does not either. Source: `linux/sev-guest.h`, AMD 56860 tables "MSG_KEY_REQ" and "MSG_KEY_RSP".

use std::fmt;
use std::path::Path;

use zeroize::Zeroizing;

use super::{DeviceAnswer, ExitInfo, MAX_THROTTLED_ATTEMPTS, SevGuestError, SevGuestFile, THROTTLE_PAUSE};

/// Length of the key.
pub const DERIVED_KEY_BYTES: usize = 32;
/// Length of the driver's response.
pub const DERIVED_RESPONSE_BYTES: usize = 64;
/// Of the response, before the key: status and reserved.
const HEADER_BYTES: usize = 32;

/// What the key is mixed from besides the chip's own secret, `GUEST_FIELD_SELECT`: launch policy and launch measurement. Versions of firmware are left out:
/// an update would end the key.
pub const GUEST_FIELDS: u64 = 1 | 1 << 3;

/// `SNP_GET_DERIVED_KEY`: [`SevGuestFile`] on a machine, a stand-in elsewhere.
pub trait DerivedKeyDevice: fmt::Debug {
    /// One request, by the chip's own key (VCEK), at privilege level 0.
    fn derived_key(&self, guest_fields: u64, response: &mut [u8; DERIVED_RESPONSE_BYTES]) -> DeviceAnswer;
}

/// Opens `dev/sev-guest` below `root`; `None` where there is none.
///
/// # Errors
/// Where it is there and cannot be opened.
pub fn derived_key_device(root: &Path) -> Result<Option<SevGuestFile>, SevGuestError> {
    match SevGuestFile::open(root) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(SevGuestError::Open(error)),
    }
}

/// The key. Blocks: the driver waits up to a minute where firmware throttles.
///
/// # Errors
/// What the driver or firmware refuses with.
pub fn derived_key(device: &dyn DerivedKeyDevice) -> Result<Zeroizing<[u8; DERIVED_KEY_BYTES]>, SevGuestError> {
    let mut pause = THROTTLE_PAUSE;
    for _ in 0..MAX_THROTTLED_ATTEMPTS {
        let mut response = Zeroizing::new([0; DERIVED_RESPONSE_BYTES]);
        let answer = device.derived_key(GUEST_FIELDS, &mut response);
        let info = ExitInfo(answer.exitinfo2);
        let Some(source) = answer.error else { return key_of(&response) };
        match source.raw_os_error() {
            Some(libc::ENOTTY) => return Err(SevGuestError::KeyWiped),
            Some(libc::EINTR) => {}
            _ if info.is_throttled() => {
                std::thread::sleep(pause);
                pause *= 2;
            }
            _ => return Err(SevGuestError::Refused { source, info }),
        }
    }
    Err(SevGuestError::Throttled)
}

fn key_of(response: &[u8; DERIVED_RESPONSE_BYTES]) -> Result<Zeroizing<[u8; DERIVED_KEY_BYTES]>, SevGuestError> {
    let (header, key) = response.split_at(HEADER_BYTES);
    let status = header.first_chunk().copied().map_or(u32::MAX, u32::from_le_bytes);
    if status != 0 {
        return Err(SevGuestError::Status { status });
    }
    let mut result = Zeroizing::new([0; DERIVED_KEY_BYTES]);
    result.copy_from_slice(key);
    // No chip derives it; a driver that wrote nothing leaves it.
    if *result == [0; DERIVED_KEY_BYTES] { Err(SevGuestError::Malformed) } else { Ok(result) }
}
