//! SGX quotes of a process that runs in Gramine, through its `/dev/attestation`.
//!
//! The enclave is the process: its identity (MRENCLAVE) covers the program that was started and nothing that it starts
//! later, and there is one `/dev/attestation` for all its threads. So an SGX node runs **one task at a time**: a quote
//! vouches for the process as a whole, and two tasks in one enclave could not be told apart. Report data is written and
//! the quote read under one lock, and the quote has to be over that report data and of this enclave.
//!
//! Nothing here is verified. Source: Gramine's documentation, "Attestation and Secret Provisioning".

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::gate::{DeviceGate, Unanswered};
use crate::report_data::{self, REPORT_DATA_BYTES};

/// Longest quote that is read: what evidence can carry.
pub const MAX_QUOTE_BYTES: usize = 32 * 1024;
/// How long a quote may take: the quoting enclave may have to be started.
pub const GRAMINE_PATIENCE: Duration = Duration::from_secs(60);

const FOLDER: &str = "dev/attestation";
const MAX_TYPE_BYTES: usize = 32;
/// `sgx_target_info_t`; it begins with MRENCLAVE.
const TARGET_INFO_BYTES: usize = 512;

/// How Gramine was told to attest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GramineAttestation {
    /// ECDSA quotes (DCAP).
    Dcap,
    /// EPID, which Intel has ended.
    Epid,
    /// None: there are no quotes.
    None,
}

/// A quote and the enclave that it is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GramineQuote {
    /// The quote.
    pub quote: Vec<u8>,
    /// MRENCLAVE, as Gramine reports it for this process.
    pub enclave: [u8; 32],
}

/// No quote was collected.
#[derive(Debug, Error)]
pub enum GramineError {
    /// This process does not run in Gramine, or Gramine has no attestation.
    #[error("there is no /dev/attestation: this process does not run in Gramine's SGX")]
    Missing,
    /// Gramine said no.
    #[error("/dev/attestation/{file}")]
    Io {
        /// The file.
        file: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// A file is too long or malformed.
    #[error("/dev/attestation/{0} is too long or malformed")]
    Malformed(&'static str),
    /// Remote attestation is not configured, or is EPID.
    #[error("Gramine is not configured for DCAP attestation (sgx.remote_attestation = \"dcap\")")]
    NotDcap,
    /// The quote answers another request.
    #[error("the quote is over other report data than was asked")]
    ReportData,
    /// The quote is of another enclave.
    #[error("the quote is not of this enclave")]
    OtherEnclave,
    /// An earlier request has no answer yet.
    #[error("/dev/attestation is still busy with an earlier request")]
    Busy,
    /// No answer in time.
    #[error("/dev/attestation did not answer in time")]
    TimedOut,
    /// The thread that asks could not be started, or failed.
    #[error("the thread that asks /dev/attestation failed")]
    Thread,
}

impl GramineError {
    /// Stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Missing => "gramine.missing",
            Self::Io { .. } => "gramine.io",
            Self::Malformed(_) => "gramine.malformed",
            Self::NotDcap => "gramine.not-dcap",
            Self::ReportData => "gramine.report-data",
            Self::OtherEnclave => "gramine.other-enclave",
            Self::Busy => "gramine.busy",
            Self::TimedOut => "gramine.timed-out",
            Self::Thread => "gramine.thread",
        }
    }
}

/// Gramine's attestation files. A process needs one of these: clones share its lock, a second one would have its own.
#[derive(Debug, Clone)]
pub struct Gramine {
    folder: Arc<PathBuf>,
    gate: DeviceGate,
    patience: Duration,
}

impl Gramine {
    /// The machine itself, as Gramine shows it.
    pub fn machine() -> Self {
        Self::at(Path::new("/"))
    }

    /// A stand-in tree with `dev/attestation/…`.
    pub fn at(root: &Path) -> Self {
        Self { folder: Arc::new(root.join(FOLDER)), gate: DeviceGate::default(), patience: GRAMINE_PATIENCE }
    }

    /// With another deadline than [`GRAMINE_PATIENCE`].
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// How Gramine attests.
    pub fn attestation(&self) -> Result<GramineAttestation, GramineError> {
        self.ask(attestation)
    }

    /// One quote over `report_data`. Blocks; one request at a time, others wait until their deadline.
    pub fn quote(&self, report_data: [u8; REPORT_DATA_BYTES]) -> Result<GramineQuote, GramineError> {
        self.ask(move |folder| quote(folder, &report_data))
    }

    fn ask<T: Send + 'static>(
        &self,
        request: impl FnOnce(&Path) -> Result<T, GramineError> + Send + 'static,
    ) -> Result<T, GramineError> {
        let folder = Arc::clone(&self.folder);
        self.gate.pass(self.patience, move || request(&folder)).unwrap_or_else(|unanswered| {
            Err(match unanswered {
                Unanswered::Busy => GramineError::Busy,
                Unanswered::TimedOut => GramineError::TimedOut,
                Unanswered::Thread => GramineError::Thread,
            })
        })
    }
}

fn attestation(folder: &Path) -> Result<GramineAttestation, GramineError> {
    let text = match read(folder, "attestation_type", MAX_TYPE_BYTES) {
        // Gramine without SGX has no such folder; an old one has no such file.
        Err(GramineError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Err(GramineError::Missing);
        }
        other => other?,
    };
    match text.trim_ascii_end() {
        b"dcap" => Ok(GramineAttestation::Dcap),
        b"epid" => Ok(GramineAttestation::Epid),
        b"none" => Ok(GramineAttestation::None),
        _ => Err(GramineError::Malformed("attestation_type")),
    }
}

fn quote(folder: &Path, report_data: &[u8; REPORT_DATA_BYTES]) -> Result<GramineQuote, GramineError> {
    if attestation(folder)? != GramineAttestation::Dcap {
        return Err(GramineError::NotDcap);
    }
    let target = read(folder, "my_target_info", TARGET_INFO_BYTES)?;
    let enclave: [u8; 32] = match target.first_chunk() {
        Some(enclave) if target.len() == TARGET_INFO_BYTES => *enclave,
        _ => return Err(GramineError::Malformed("my_target_info")),
    };
    write(folder, "user_report_data", report_data)?;
    let quote = read(folder, "quote", MAX_QUOTE_BYTES)?;
    let malformed = GramineError::Malformed("quote");
    if report_data::of_sgx(&quote).ok_or(malformed)? != report_data {
        return Err(GramineError::ReportData);
    }
    if report_data::enclave_of_sgx(&quote) != Some(&enclave) {
        return Err(GramineError::OtherEnclave);
    }
    Ok(GramineQuote { quote, enclave })
}

fn write(folder: &Path, file: &'static str, bytes: &[u8]) -> Result<(), GramineError> {
    let written = OpenOptions::new().write(true).truncate(true).open(folder.join(file)).and_then(|mut file| {
        file.write_all(bytes)?;
        file.flush()
    });
    written.map_err(|source| GramineError::Io { file, source })
}

fn read(folder: &Path, file: &'static str, max_bytes: usize) -> Result<Vec<u8>, GramineError> {
    let mut bytes = Vec::new();
    File::open(folder.join(file))
        .and_then(|opened| opened.take(max_bytes as u64 + 1).read_to_end(&mut bytes))
        .map_err(|source| GramineError::Io { file, source })?;
    if bytes.len() > max_bytes { Err(GramineError::Malformed(file)) } else { Ok(bytes) }
}
