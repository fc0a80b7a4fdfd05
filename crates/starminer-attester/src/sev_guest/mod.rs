//! SEV-SNP reports through `/dev/sev-guest`, for kernels without configfs-tsm (before 6.7).
//!
//! Asks for the report and, with it, for the certificates that the host has. Firmware answers slowly on purpose where it is
//! asked often; the kernel waits up to a minute for it, and older ones hand the refusal on, which is asked again a
//! few times. A driver that failed once may have wiped the key that it talks to firmware with; then nothing helps but
//! a restart of the guest, and the error says so. Nothing here is verified.
//!
//! Source: `linux/sev-guest.h`, Documentation/virt/coco/sev-guest.rst, AMD 56860 table "MSG_REPORT_RSP".

mod derived;
mod ioctl;
mod status;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

pub use derived::{
    DERIVED_KEY_BYTES, DERIVED_RESPONSE_BYTES, DerivedKeyDevice, GUEST_FIELDS, derived_key, derived_key_device,
};
pub use ioctl::SevGuestFile;
pub use status::{ExitInfo, firmware_status};

use crate::certificate_table::{CertificateTableError, MAX_TABLE_BYTES, SnpCertificate, parse_certificate_table};
use crate::gate::{DeviceGate, Unanswered};
use crate::report_data::{self, REPORT_DATA_BYTES};

/// Length of the driver's response.
pub const RESPONSE_BYTES: usize = 4000;
/// Most times that a throttled request is made.
pub const MAX_THROTTLED_ATTEMPTS: u32 = 4;
/// How long a request may take, all attempts together. The driver alone waits for 60 s where firmware throttles.
pub const SEV_GUEST_PATIENCE: Duration = Duration::from_secs(90);

/// Length of an SEV-SNP report.
const REPORT_BYTES: usize = 1184;
/// Of the response, before the report: status, length, reserved.
const HEADER_BYTES: usize = 32;
/// Between the attempts of a throttled request, doubled each time: firmware allows about two requests a second.
const THROTTLE_PAUSE: Duration = Duration::from_millis(500);

/// What the driver answered.
#[derive(Debug)]
pub struct DeviceAnswer {
    /// The call's error, if it failed.
    pub error: Option<io::Error>,
    /// Status of firmware and hypervisor; see [`ExitInfo`].
    pub exitinfo2: u64,
}

/// The two requests to the driver: [`SevGuestFile`] on a machine, a stand-in elsewhere.
pub trait SnpDevice: Send + Sync + fmt::Debug {
    /// `SNP_GET_REPORT`.
    fn report(
        &self,
        user_data: &[u8; REPORT_DATA_BYTES],
        vmpl: u32,
        response: &mut [u8; RESPONSE_BYTES],
    ) -> DeviceAnswer;

    /// `SNP_GET_EXT_REPORT`. `certificates` has whole pages; `certificates_len` receives the length that the driver wants.
    fn extended_report(
        &self,
        user_data: &[u8; REPORT_DATA_BYTES],
        vmpl: u32,
        response: &mut [u8; RESPONSE_BYTES],
        certificates: &mut [u8],
        certificates_len: &mut u32,
    ) -> DeviceAnswer;
}

/// A report with what the host gave along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnpReport {
    /// The report, 1184 bytes.
    pub report: Vec<u8>,
    /// The host's certificates; often nothing.
    pub certificates: Vec<SnpCertificate>,
}

/// Whether to ask for the host's certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostCertificates {
    /// Ask for them.
    Wanted,
    /// The report alone.
    Unwanted,
}

/// No report was collected.
#[derive(Debug, Error)]
pub enum SevGuestError {
    /// There is no `/dev/sev-guest`.
    #[error("this machine has no /dev/sev-guest")]
    Missing,
    /// The device cannot be opened.
    #[error("/dev/sev-guest cannot be opened")]
    Open(#[source] io::Error),
    /// The driver, the hypervisor or firmware refused.
    #[error("/dev/sev-guest refused ({info})")]
    Refused {
        /// What the operating system said.
        source: io::Error,
        /// What hypervisor and firmware said.
        info: ExitInfo,
    },
    /// The driver has no key to firmware any more.
    #[error(
        "the driver has wiped its key to firmware after an earlier failure; only a restart of the guest brings it back"
    )]
    KeyWiped,
    /// Every attempt was throttled.
    #[error("firmware or hypervisor throttled all attempts")]
    Throttled,
    /// The driver passed a message on in which firmware refuses.
    #[error("firmware made no report (status {status:#x}: {})", firmware_status(*.status))]
    Status {
        /// Its status.
        status: u32,
    },
    /// The response is not of the documented form.
    #[error("the response of /dev/sev-guest is malformed")]
    Malformed,
    /// The report answers another request.
    #[error("the report is over other report data than was asked")]
    ReportData,
    /// The host's certificates are no table.
    #[error("certificates of the host")]
    Certificates(#[from] CertificateTableError),
    /// An earlier request has no answer yet.
    #[error("/dev/sev-guest is still busy with an earlier request")]
    Busy,
    /// No answer in time.
    #[error("/dev/sev-guest did not answer in time")]
    TimedOut,
    /// The thread that asks could not be started, or failed.
    #[error("the thread that asks /dev/sev-guest failed")]
    Thread,
}

impl SevGuestError {
    /// Stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Missing => "sev-guest.missing",
            Self::Open(_) => "sev-guest.open",
            Self::Refused { .. } => "sev-guest.refused",
            Self::KeyWiped => "sev-guest.key-wiped",
            Self::Throttled => "sev-guest.throttled",
            Self::Status { .. } => "sev-guest.status",
            Self::Malformed => "sev-guest.malformed",
            Self::ReportData => "sev-guest.report-data",
            Self::Certificates(_) => "sev-guest.certificates",
            Self::Busy => "sev-guest.busy",
            Self::TimedOut => "sev-guest.timed-out",
            Self::Thread => "sev-guest.thread",
        }
    }
}

/// The SEV guest driver.
#[derive(Debug, Clone)]
pub struct SevGuest {
    device: Arc<dyn SnpDevice>,
    gate: DeviceGate,
    patience: Duration,
    pause: Duration,
}

impl SevGuest {
    /// Opens the machine's device.
    pub fn machine() -> Result<Self, SevGuestError> {
        Self::open(PathBuf::from("/").as_path())
    }

    /// Opens `dev/sev-guest` below `root`.
    pub fn open(root: &Path) -> Result<Self, SevGuestError> {
        match SevGuestFile::open(root) {
            Ok(file) => Ok(Self::over(Arc::new(file))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(SevGuestError::Missing),
            Err(error) => Err(SevGuestError::Open(error)),
        }
    }

    /// A stand-in.
    pub fn over(device: Arc<dyn SnpDevice>) -> Self {
        Self { device, gate: DeviceGate::default(), patience: SEV_GUEST_PATIENCE, pause: THROTTLE_PAUSE }
    }

    /// With another deadline than [`SEV_GUEST_PATIENCE`].
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// With another first pause between the attempts of a throttled request.
    #[must_use]
    pub fn with_pause(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    /// One report over `report_data` that names privilege level `vmpl`. Blocks; one request at a time, others wait
    /// until their deadline.
    pub fn report(
        &self,
        report_data: [u8; REPORT_DATA_BYTES],
        vmpl: u32,
        certificates: HostCertificates,
    ) -> Result<SnpReport, SevGuestError> {
        let (device, pause) = (Arc::clone(&self.device), self.pause);
        let request = move || collect(device.as_ref(), &report_data, vmpl, certificates, pause);
        self.gate.pass(self.patience, request).unwrap_or_else(|unanswered| {
            Err(match unanswered {
                Unanswered::Busy => SevGuestError::Busy,
                Unanswered::TimedOut => SevGuestError::TimedOut,
                Unanswered::Thread => SevGuestError::Thread,
            })
        })
    }
}

fn collect(
    device: &dyn SnpDevice,
    report_data: &[u8; REPORT_DATA_BYTES],
    vmpl: u32,
    certificates: HostCertificates,
    pause: Duration,
) -> Result<SnpReport, SevGuestError> {
    let mut table = match certificates {
        // The kernel takes no more, so that asking for less first would only cost a second request.
        HostCertificates::Wanted => vec![0; MAX_TABLE_BYTES],
        HostCertificates::Unwanted => Vec::new(),
    };
    let mut pause = pause;
    for attempt in 1..=MAX_THROTTLED_ATTEMPTS {
        let mut response = [0; RESPONSE_BYTES];
        let mut table_len = 0;
        let answer = match certificates {
            HostCertificates::Unwanted => device.report(report_data, vmpl, &mut response),
            HostCertificates::Wanted => {
                device.extended_report(report_data, vmpl, &mut response, &mut table, &mut table_len)
            }
        };
        let info = ExitInfo(answer.exitinfo2);
        let Some(source) = answer.error else {
            let report = report_of(&response, report_data)?;
            return Ok(SnpReport { report, certificates: parse_certificate_table(&table)? });
        };
        match source.raw_os_error() {
            Some(libc::ENOTTY) => return Err(SevGuestError::KeyWiped),
            Some(libc::EINTR) => {}
            // ETIMEDOUT ends a request that the driver itself made again and again; it has wiped its key by then.
            Some(libc::ETIMEDOUT) => return Err(SevGuestError::Refused { source, info }),
            // More than the kernel takes: the report without certificates is worth more than nothing.
            _ if info.wants_room() && certificates == HostCertificates::Wanted => {
                return collect(device, report_data, vmpl, HostCertificates::Unwanted, pause);
            }
            _ if info.is_throttled() => {
                if attempt < MAX_THROTTLED_ATTEMPTS {
                    std::thread::sleep(pause);
                    pause *= 2;
                }
            }
            _ => return Err(SevGuestError::Refused { source, info }),
        }
    }
    Err(SevGuestError::Throttled)
}

/// The report in a response: status (4 bytes), length (4), 24 reserved, report.
fn report_of(response: &[u8; RESPONSE_BYTES], asked: &[u8; REPORT_DATA_BYTES]) -> Result<Vec<u8>, SevGuestError> {
    let word = |at: usize| u32::from_le_bytes([response[at], response[at + 1], response[at + 2], response[at + 3]]);
    let (status, length) = (word(0), word(4));
    if status != 0 {
        return Err(SevGuestError::Status { status });
    }
    if length as usize != REPORT_BYTES {
        return Err(SevGuestError::Malformed);
    }
    let report = &response[HEADER_BYTES..HEADER_BYTES + REPORT_BYTES];
    if report_data::of_snp(report) != Some(asked.as_slice()) {
        return Err(SevGuestError::ReportData);
    }
    Ok(report.to_vec())
}
