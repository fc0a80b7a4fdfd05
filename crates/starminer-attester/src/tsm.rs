//! Reports of a confidential VM through the kernel's configfs-tsm, for SEV-SNP and TDX alike.
//!
//! Each request makes an entry of random name, writes the report data, reads report and certificates, and removes
//! the entry, also where something fails. The kernel counts writes to an entry in `generation`: where the count is not
//! that of our own writes, somebody else wrote, and the answer may be to that. The device may take long (firmware that
//! throttles, a quoting service on the host) or forever, so that each request has a deadline.
//!
//! Nothing here is verified. Source: Documentation/ABI/testing/configfs-tsm-report.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use thiserror::Error;

use crate::certificate_table::{CertificateTableError, MAX_TABLE_BYTES, SnpCertificate, parse_certificate_table};
use crate::gate::{DeviceGate, Unanswered};
use crate::report_data::{self, REPORT_DATA_BYTES};

/// Longest report or manifest that is read: what the kernel allowed at first (`TSM_OUTBLOB_MAX`), and evidence allows.
pub const MAX_TSM_BLOB_BYTES: usize = 32 * 1024;
/// How long a request may take. The SEV driver alone waits for 60 s where firmware throttles.
pub const TSM_PATIENCE: Duration = Duration::from_secs(90);
/// Highest privilege level (VMPL) that a report can name.
pub const MAX_PRIVILEGE_LEVEL: u8 = 3;

const FOLDER: &str = "sys/kernel/config/tsm/report";
const MAX_ATTRIBUTE_BYTES: usize = 4096;

/// The entries of configfs-tsm: [`ConfigFs`] on a machine, a stand-in where there is no such kernel.
pub trait ReportTree: Send + Sync + fmt::Debug {
    /// Makes an entry. [`io::ErrorKind::NotFound`] where the kernel has no configfs-tsm.
    fn create(&self, entry: &str) -> io::Result<()>;

    /// Writes an attribute of an entry, all at once.
    fn write(&self, entry: &str, attribute: &str, bytes: &[u8]) -> io::Result<()>;

    /// Reads the first `max_bytes` of an attribute, or all of it.
    fn read(&self, entry: &str, attribute: &str, max_bytes: usize) -> io::Result<Vec<u8>>;

    /// Removes an entry.
    fn remove(&self, entry: &str) -> io::Result<()>;
}

/// configfs itself.
#[derive(Debug, Clone)]
pub struct ConfigFs {
    folder: PathBuf,
}

impl ConfigFs {
    /// `sys/kernel/config/tsm/report` below `root`, which is `/` on a machine.
    pub fn at(root: &Path) -> Self {
        Self { folder: root.join(FOLDER) }
    }

    /// The folder that holds the entries.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl ReportTree for ConfigFs {
    fn create(&self, entry: &str) -> io::Result<()> {
        fs::create_dir(self.folder.join(entry))
    }

    fn write(&self, entry: &str, attribute: &str, bytes: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).open(self.folder.join(entry).join(attribute))?;
        // The kernel takes each write as a value of its own.
        match file.write(bytes)? {
            written if written == bytes.len() => Ok(()), // closing it hands a binary value over
            _ => Err(io::ErrorKind::WriteZero.into()),
        }
    }

    fn read(&self, entry: &str, attribute: &str, max_bytes: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = File::open(self.folder.join(entry).join(attribute))?;
        file.take(max_bytes as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn remove(&self, entry: &str) -> io::Result<()> {
        fs::remove_dir(self.folder.join(entry))
    }
}

/// Who makes the reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TsmProvider {
    /// `sev_guest`: SEV-SNP reports.
    SevGuest,
    /// `tdx_guest`: TDX quotes.
    TdxGuest,
}

impl TsmProvider {
    /// The kernel's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SevGuest => "sev_guest",
            Self::TdxGuest => "tdx_guest",
        }
    }
}

/// What to ask an SVSM (a service module at VMPL0, which for example has the vTPM) for, instead of the plain report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SvsmService {
    /// The service; `None` for all of them.
    pub guid: Option<[u8; 16]>,
    /// Version of its manifest; `None` for its first.
    pub manifest_version: Option<u32>,
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TsmRequest {
    /// What the device signs.
    pub report_data: [u8; REPORT_DATA_BYTES],
    /// The privilege level (VMPL) that the report names; `None` leaves it to the kernel. SEV-SNP only.
    pub privilege_level: Option<u8>,
    /// Ask the SVSM. SEV-SNP with an SVSM only.
    pub svsm: Option<SvsmService>,
}

impl TsmRequest {
    /// A plain report.
    pub const fn new(report_data: [u8; REPORT_DATA_BYTES]) -> Self {
        Self { report_data, privilege_level: None, svsm: None }
    }
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TsmReport {
    /// Who made it.
    pub provider: TsmProvider,
    /// The report or quote.
    pub report: Vec<u8>,
    /// What the host gave along with an SEV-SNP report; often nothing.
    pub certificates: Vec<SnpCertificate>,
    /// The SVSM's manifest, where it was asked. The report data then is SHA-512 over ours and the manifest.
    pub manifest: Option<Vec<u8>>,
}

/// What was being done when the operating system said no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TsmStep {
    /// An entry is made.
    Create,
    /// An attribute is written.
    Write(&'static str),
    /// An attribute is read.
    Read(&'static str),
}

impl fmt::Display for TsmStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create => f.write_str("making an entry"),
            Self::Write(attribute) => write!(f, "writing {attribute}"),
            Self::Read(attribute) => write!(f, "reading {attribute}"),
        }
    }
}

/// No report was collected.
#[derive(Debug, Error)]
pub enum TsmError {
    /// The kernel has no configfs-tsm, configfs is not mounted, or no TEE offers reports.
    #[error("this machine offers no reports through configfs-tsm")]
    Missing,
    /// The operating system said no.
    #[error("configfs-tsm: {step}")]
    Io {
        /// While this was done.
        step: TsmStep,
        /// What it said.
        source: io::Error,
    },
    /// Reports of a kind that is not known here.
    #[error("configfs-tsm has a provider that is not known here")]
    Provider,
    /// An attribute is longer than is read, or not what it should be.
    #[error("configfs-tsm: {0} is too long, empty or malformed")]
    Malformed(&'static str),
    /// Somebody else wrote to our entry.
    #[error("somebody else wrote to our entry of configfs-tsm")]
    ConcurrentWriter,
    /// The report answers another request.
    #[error("the report is over other report data than was asked")]
    ReportData,
    /// The host's certificates are no table.
    #[error("certificates of the host")]
    Certificates(#[from] CertificateTableError),
    /// The request names a privilege level that there is not.
    #[error("privilege levels end at {MAX_PRIVILEGE_LEVEL}")]
    PrivilegeLevel,
    /// An earlier request has no answer yet.
    #[error("configfs-tsm is still busy with an earlier request")]
    Busy,
    /// No answer in time.
    #[error("configfs-tsm did not answer in time")]
    TimedOut,
    /// The thread that asks could not be started, or failed.
    #[error("the thread that asks configfs-tsm failed")]
    Thread,
}

impl TsmError {
    /// Stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Missing => "tsm.missing",
            Self::Io { .. } => "tsm.io",
            Self::Provider => "tsm.provider",
            Self::Malformed(_) => "tsm.malformed",
            Self::ConcurrentWriter => "tsm.concurrent-writer",
            Self::ReportData => "tsm.report-data",
            Self::Certificates(_) => "tsm.certificates",
            Self::PrivilegeLevel => "tsm.privilege-level",
            Self::Busy => "tsm.busy",
            Self::TimedOut => "tsm.timed-out",
            Self::Thread => "tsm.thread",
        }
    }
}

/// The kernel's report interface.
#[derive(Debug, Clone)]
pub struct Tsm {
    tree: Arc<dyn ReportTree>,
    gate: DeviceGate,
    patience: Duration,
}

impl Tsm {
    /// The machine itself.
    pub fn machine() -> Self {
        Self::over(Arc::new(ConfigFs::at(Path::new("/"))))
    }

    /// A stand-in.
    pub fn over(tree: Arc<dyn ReportTree>) -> Self {
        Self { tree, gate: DeviceGate::default(), patience: TSM_PATIENCE }
    }

    /// With another deadline than [`TSM_PATIENCE`].
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Who makes reports here.
    pub fn provider(&self) -> Result<TsmProvider, TsmError> {
        self.ask(|tree| Entry::create(tree)?.provider())
    }

    /// One report. Blocks; one request at a time, others wait until their deadline.
    pub fn report(&self, request: &TsmRequest) -> Result<TsmReport, TsmError> {
        if request.privilege_level.is_some_and(|level| level > MAX_PRIVILEGE_LEVEL) {
            return Err(TsmError::PrivilegeLevel);
        }
        let request = request.clone();
        self.ask(move |tree| Entry::create(tree)?.report(&request))
    }

    fn ask<T: Send + 'static>(
        &self,
        request: impl FnOnce(&dyn ReportTree) -> Result<T, TsmError> + Send + 'static,
    ) -> Result<T, TsmError> {
        let tree = Arc::clone(&self.tree);
        self.gate.pass(self.patience, move || request(tree.as_ref())).unwrap_or_else(|unanswered| {
            Err(match unanswered {
                Unanswered::Busy => TsmError::Busy,
                Unanswered::TimedOut => TsmError::TimedOut,
                Unanswered::Thread => TsmError::Thread,
            })
        })
    }
}

/// An entry of ours; removed on drop.
struct Entry<'a> {
    tree: &'a dyn ReportTree,
    name: String,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        // An entry that stays costs the kernel some memory and nothing else, and nobody could do more about it.
        let _ = self.tree.remove(&self.name);
    }
}

impl<'a> Entry<'a> {
    fn create(tree: &'a dyn ReportTree) -> Result<Self, TsmError> {
        let mut random = [0; 16];
        aws_lc_rs::rand::fill(&mut random)
            .map_err(|_| TsmError::Io { step: TsmStep::Create, source: io::Error::other("no random name") })?;
        let name = format!("starminer-{}", HEXLOWER.encode(&random));
        tree.create(&name).map_err(|source| match source.raw_os_error() {
            // ENXIO: the module is there and no TEE has registered with it.
            Some(libc::ENOENT | libc::ENOTDIR | libc::ENXIO) => TsmError::Missing,
            _ => TsmError::Io { step: TsmStep::Create, source },
        })?;
        Ok(Self { tree, name })
    }

    fn report(&self, request: &TsmRequest) -> Result<TsmReport, TsmError> {
        let provider = self.provider()?;
        let before = self.generation()?;
        let writes = self.write_request(request)?;
        let report = self.read("outblob", MAX_TSM_BLOB_BYTES)?;
        let certificates = match provider {
            TsmProvider::SevGuest => self.read_if_there("auxblob", MAX_TABLE_BYTES)?.unwrap_or_default(),
            TsmProvider::TdxGuest => Vec::new(),
        };
        let manifest = match request.svsm {
            Some(_) => Some(self.read("manifestblob", MAX_TSM_BLOB_BYTES)?),
            None => None,
        };
        // Report, certificates and manifest belong together if nobody wrote until now.
        if self.generation()? != before.wrapping_add(writes) {
            return Err(TsmError::ConcurrentWriter);
        }
        if report.is_empty() {
            return Err(TsmError::Malformed("outblob"));
        }
        let signed = match provider {
            _ if request.svsm.is_some() => None,
            TsmProvider::SevGuest => Some(report_data::of_snp(&report).ok_or(TsmError::Malformed("outblob"))?),
            TsmProvider::TdxGuest => report_data::of_tdx(&report),
        };
        if signed.is_some_and(|signed| signed != request.report_data) {
            return Err(TsmError::ReportData);
        }
        Ok(TsmReport { provider, report, certificates: parse_certificate_table(&certificates)?, manifest })
    }

    /// Writes everything and says how many writes that were.
    fn write_request(&self, request: &TsmRequest) -> Result<u64, TsmError> {
        let mut writes = 1;
        self.write("inblob", &request.report_data)?;
        let mut option = |attribute, text: String| {
            writes += 1;
            self.write(attribute, text.as_bytes())
        };
        if let Some(level) = request.privilege_level {
            option("privlevel", level.to_string())?;
        }
        if let Some(SvsmService { guid, manifest_version }) = request.svsm {
            option("service_provider", "svsm".into())?;
            if let Some(guid) = guid {
                option("service_guid", guid_text(guid))?;
            }
            if let Some(version) = manifest_version {
                option("service_manifest_version", version.to_string())?;
            }
        }
        Ok(writes)
    }

    fn provider(&self) -> Result<TsmProvider, TsmError> {
        match self.read("provider", MAX_ATTRIBUTE_BYTES)?.trim_ascii_end() {
            b"sev_guest" => Ok(TsmProvider::SevGuest),
            b"tdx_guest" => Ok(TsmProvider::TdxGuest),
            _ => Err(TsmError::Provider),
        }
    }

    fn generation(&self) -> Result<u64, TsmError> {
        let text = self.read("generation", MAX_ATTRIBUTE_BYTES)?;
        let number = std::str::from_utf8(text.trim_ascii_end()).ok().and_then(|text| text.parse().ok());
        number.ok_or(TsmError::Malformed("generation"))
    }

    fn write(&self, attribute: &'static str, bytes: &[u8]) -> Result<(), TsmError> {
        let step = TsmStep::Write(attribute);
        self.tree.write(&self.name, attribute, bytes).map_err(|source| TsmError::Io { step, source })
    }

    fn read(&self, attribute: &'static str, max_bytes: usize) -> Result<Vec<u8>, TsmError> {
        let bytes = self.tree.read(&self.name, attribute, max_bytes + 1);
        let bytes = bytes.map_err(|source| TsmError::Io { step: TsmStep::Read(attribute), source })?;
        if bytes.len() > max_bytes { Err(TsmError::Malformed(attribute)) } else { Ok(bytes) }
    }

    fn read_if_there(&self, attribute: &'static str, max_bytes: usize) -> Result<Option<Vec<u8>>, TsmError> {
        match self.read(attribute, max_bytes) {
            Err(TsmError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map(Some),
        }
    }
}

/// Groups of 8, 4, 4, 4 and 12 digits.
fn guid_text(guid: [u8; 16]) -> String {
    let hex = HEXLOWER.encode(&guid);
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}
