//! `ioctl` on `/dev/sev-guest`: the kernel's structures and nothing more.
//!
//! Source: `linux/sev-guest.h`. Layouts are held by a test against what a C compiler makes of that header.

// The kernel offers these requests as ioctls over addresses, which have no safe interface in Rust.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use super::{DERIVED_RESPONSE_BYTES, DerivedKeyDevice, DeviceAnswer, RESPONSE_BYTES, SnpDevice};
use crate::report_data::REPORT_DATA_BYTES;

const MESSAGE_VERSION: u8 = 1;
/// What stands there until the driver writes something else, as in the driver itself.
const FIRMWARE_NOT_ASKED: u64 = 0xff;
/// `_IOWR('S', 0, struct snp_guest_request_ioctl)`
const SNP_GET_REPORT: libc::Ioctl = 0xc020_5300_u32 as libc::Ioctl;
/// `_IOWR('S', 1, struct snp_guest_request_ioctl)`
const SNP_GET_DERIVED_KEY: libc::Ioctl = 0xc020_5301_u32 as libc::Ioctl;
/// `_IOWR('S', 2, struct snp_guest_request_ioctl)`
const SNP_GET_EXT_REPORT: libc::Ioctl = 0xc020_5302_u32 as libc::Ioctl;

/// `struct snp_report_req`
#[repr(C)]
struct ReportRequest {
    user_data: [u8; REPORT_DATA_BYTES],
    vmpl: u32,
    reserved: [u8; 28],
}

/// `struct snp_ext_report_req`
#[repr(C)]
struct ExtendedRequest {
    data: ReportRequest,
    certs_address: u64,
    certs_len: u32,
}

/// `struct snp_derived_key_req`
#[repr(C)]
struct DerivedKeyRequest {
    root_key_select: u32,
    reserved: u32,
    guest_field_select: u64,
    vmpl: u32,
    guest_svn: u32,
    tcb_version: u64,
}

/// `struct snp_guest_request_ioctl`
#[repr(C)]
struct GuestRequest {
    msg_version: u8,
    req_data: u64,
    resp_data: u64,
    exitinfo2: u64,
}

/// The device of the kernel's `sev-guest` driver.
#[derive(Debug)]
pub struct SevGuestFile {
    file: File,
}

impl SevGuestFile {
    /// Opens `dev/sev-guest` below `root`, which is `/` on a machine.
    pub fn open(root: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(root.join("dev/sev-guest"))?;
        Ok(Self { file })
    }

    fn answer(result: libc::c_int, guest: &GuestRequest) -> DeviceAnswer {
        // The error has to be taken before anything else can change it.
        let error = (result != 0).then(io::Error::last_os_error);
        DeviceAnswer { error, exitinfo2: guest.exitinfo2 }
    }
}

impl SnpDevice for SevGuestFile {
    fn report(
        &self,
        user_data: &[u8; REPORT_DATA_BYTES],
        vmpl: u32,
        response: &mut [u8; RESPONSE_BYTES],
    ) -> DeviceAnswer {
        let mut request = ReportRequest { user_data: *user_data, vmpl, reserved: [0; 28] };
        let mut guest = GuestRequest {
            msg_version: MESSAGE_VERSION,
            req_data: (&raw mut request) as u64,
            resp_data: response.as_mut_ptr() as u64,
            exitinfo2: FIRMWARE_NOT_ASKED,
        };
        // SAFETY: `guest` is the structure that this request takes; its addresses are those of a request and of a response of
        // the sizes that the kernel reads and writes (96 and 4000 bytes), which live and are not used otherwise
        // until the call returns. A file that is not the device refuses the request number.
        let result = unsafe { libc::ioctl(self.file.as_raw_fd(), SNP_GET_REPORT, &raw mut guest) };
        Self::answer(result, &guest)
    }

    fn extended_report(
        &self,
        user_data: &[u8; REPORT_DATA_BYTES],
        vmpl: u32,
        response: &mut [u8; RESPONSE_BYTES],
        certificates: &mut [u8],
        certificates_len: &mut u32,
    ) -> DeviceAnswer {
        let mut request = ExtendedRequest {
            data: ReportRequest { user_data: *user_data, vmpl, reserved: [0; 28] },
            certs_address: certificates.as_mut_ptr() as u64,
            // What does not fit into 32 bits is refused by the kernel, which takes far less.
            certs_len: u32::try_from(certificates.len()).unwrap_or(u32::MAX),
        };
        let mut guest = GuestRequest {
            msg_version: MESSAGE_VERSION,
            req_data: (&raw mut request) as u64,
            resp_data: response.as_mut_ptr() as u64,
            exitinfo2: FIRMWARE_NOT_ASKED,
        };
        if certificates.len() > u32::MAX as usize {
            return DeviceAnswer { error: Some(io::ErrorKind::InvalidInput.into()), exitinfo2: FIRMWARE_NOT_ASKED };
        }
        // SAFETY: as for `report`, with a request of 112 bytes, whose address and length of certificates are those of
        // the slice that was given for them.
        let result = unsafe { libc::ioctl(self.file.as_raw_fd(), SNP_GET_EXT_REPORT, &raw mut guest) };
        // The kernel writes back what it would need.
        *certificates_len = request.certs_len;
        Self::answer(result, &guest)
    }
}

impl DerivedKeyDevice for SevGuestFile {
    fn derived_key(&self, guest_fields: u64, response: &mut [u8; DERIVED_RESPONSE_BYTES]) -> DeviceAnswer {
        let mut request = DerivedKeyRequest {
            root_key_select: 0,
            reserved: 0,
            guest_field_select: guest_fields,
            vmpl: 0,
            guest_svn: 0,
            tcb_version: 0,
        };
        let mut guest = GuestRequest {
            msg_version: MESSAGE_VERSION,
            req_data: (&raw mut request) as u64,
            resp_data: response.as_mut_ptr() as u64,
            exitinfo2: FIRMWARE_NOT_ASKED,
        };
        // SAFETY: as for `report`, with a request of 32 bytes and a response of 64.
        let result = unsafe { libc::ioctl(self.file.as_raw_fd(), SNP_GET_DERIVED_KEY, &raw mut guest) };
        Self::answer(result, &guest)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::mem::{offset_of, size_of};

    /// The numbers on the right come from a C program over `linux/sev-guest.h` on x86_64.
    #[test]
    fn layouts_are_the_kernels() {
        assert_eq!((SNP_GET_REPORT as u32, SNP_GET_EXT_REPORT as u32), (0xc0205300, 0xc0205302));
        assert_eq!(size_of::<ReportRequest>(), 96);
        assert_eq!((offset_of!(ReportRequest, vmpl), offset_of!(ReportRequest, reserved)), (64, 68));
        assert_eq!(size_of::<ExtendedRequest>(), 112);
        assert_eq!(offset_of!(ExtendedRequest, certs_address), 96);
        assert_eq!(offset_of!(ExtendedRequest, certs_len), 104);
        assert_eq!(size_of::<GuestRequest>(), 32);
        assert_eq!(size_of::<DerivedKeyRequest>(), 32);
        let derived = [
            offset_of!(DerivedKeyRequest, guest_field_select),
            offset_of!(DerivedKeyRequest, vmpl),
            offset_of!(DerivedKeyRequest, guest_svn),
            offset_of!(DerivedKeyRequest, tcb_version),
        ];
        assert_eq!(derived, [8, 16, 20, 24]);
        assert_eq!(DERIVED_RESPONSE_BYTES, 64);
        let offsets = [
            offset_of!(GuestRequest, msg_version),
            offset_of!(GuestRequest, req_data),
            offset_of!(GuestRequest, resp_data),
            offset_of!(GuestRequest, exitinfo2),
        ];
        assert_eq!(offsets, [0, 8, 16, 24]);
        assert_eq!(RESPONSE_BYTES, 4000);
        let number = |nr: u32| (3 << 30) | ((size_of::<GuestRequest>() as u32) << 16) | (u32::from(b'S') << 8) | nr;
        assert_eq!((number(0), number(2)), (SNP_GET_REPORT as u32, SNP_GET_EXT_REPORT as u32));
        assert_eq!(number(1), SNP_GET_DERIVED_KEY as u32);
    }

    /// The real call, on a file that is no such device.
    #[test]
    fn another_file_refuses() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("dev")).unwrap();
        assert_eq!(SevGuestFile::open(root.path()).unwrap_err().kind(), io::ErrorKind::NotFound);
        std::fs::write(root.path().join("dev/sev-guest"), "no device").unwrap();
        let device = SevGuestFile::open(root.path()).unwrap();
        let mut response = [7; RESPONSE_BYTES];
        let answer = device.report(&[1; 64], 0, &mut response);
        assert_eq!(answer.error.unwrap().raw_os_error(), Some(libc::ENOTTY));
        assert_eq!(answer.exitinfo2, FIRMWARE_NOT_ASKED);
        let mut needed = 0;
        let answer = device.extended_report(&[1; 64], 0, &mut response, &mut [0; 4096], &mut needed);
        assert_eq!(answer.error.unwrap().raw_os_error(), Some(libc::ENOTTY));
        assert_eq!(needed, 4096);
        assert_eq!(response, [7; RESPONSE_BYTES]);
        let mut key = [7; DERIVED_RESPONSE_BYTES];
        assert_eq!(device.derived_key(9, &mut key).error.unwrap().raw_os_error(), Some(libc::ENOTTY));
        assert_eq!(key, [7; DERIVED_RESPONSE_BYTES]);
    }
}
