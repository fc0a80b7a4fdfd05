//! Opening a result: the output secret, the details, the outputs.
//!
//! Everything the report claims is checked against what is opened: content ids, commitments, names, lengths. An output is written
//! beside its place and renamed once all of it has been authenticated.

use std::fs::{self, File};
use std::io;
use std::path::{Component, Path, PathBuf};

use starminer_receipt::{
    KemPrivateKey, OUTPUT_INFO, OutputManifest, OutputName, Report, RunDetails, SealError, Signed, TaskSpec,
    output_object_name,
};
use starminer_vault::object::{
    ContentIdMode, Digests, ObjectContext, OpenError, PlainDigestMode, open_bytes, open_stream,
};
use starminer_vault::{Purpose, TaskSecret, commit};
use starminer_verify::Digest;

/// Name of the detail record in the vault.
pub const DETAILS_OBJECT_NAME: &str = "details";

/// Why a result cannot be opened. Except for [`OutputsError::Io`], the node is at fault.
#[derive(Debug, thiserror::Error)]
pub enum OutputsError {
    /// The report has no output secret or details.
    #[error("the report brings no result")]
    Absent,
    /// The output secret does not open with the result key.
    #[error("the output secret does not open with this task's result key")]
    Secret(#[source] SealError),
    /// The details do not open.
    #[error("the details of the run do not open")]
    Details(#[source] OpenError),
    /// The details contradict the report.
    #[error("the details contradict the report: {0}")]
    Contradiction(&'static str),
    /// An output does not open.
    #[error("output {index} does not open")]
    Output {
        /// Which.
        index: usize,
        /// Why.
        #[source]
        source: OpenError,
    },
    /// An output has a name that must not be written.
    #[error("output {index} has a name that leads out of the output directory")]
    Name {
        /// Which.
        index: usize,
    },
    /// The file system refused.
    #[error("{path}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl OutputsError {
    /// A stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Absent => "result.absent",
            Self::Secret(_) => "result.secret",
            Self::Details(_) => "result.details",
            Self::Contradiction(_) => "result.contradiction",
            Self::Output { .. } => "result.output",
            Self::Name { .. } => "result.name",
            Self::Io { .. } => "result.io",
        }
    }
}

/// A result whose secret and details have been opened.
pub struct OpenedResult {
    secret: TaskSecret,
    task: [u8; 16],
    /// Exact figures of the run.
    pub details: RunDetails,
    report: Report,
}

impl std::fmt::Debug for OpenedResult {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenedResult").field("outputs", &self.details.outputs.len()).finish_non_exhaustive()
    }
}

/// An output on disk, in plaintext, at the requester.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenedOutput {
    /// What it is.
    pub name: OutputName,
    /// Where it is.
    pub path: PathBuf,
    /// Its length.
    pub plain_bytes: u64,
}

impl OpenedResult {
    /// Opens the output secret with the result key, and the details with it.
    ///
    /// # Errors
    /// [`OutputsError::Absent`], [`OutputsError::Secret`], [`OutputsError::Details`], [`OutputsError::Contradiction`].
    pub fn open(spec: &Signed<TaskSpec>, report: &Report, result_key: &KemPrivateKey) -> Result<Self, OutputsError> {
        let predicate = &report.predicate;
        let (Some(sealed), Some(sealed_details), Some(attempt), Some(evidence)) =
            (&predicate.output_secret, &predicate.sealed_details, predicate.attempt, predicate.evidence)
        else {
            return Err(OutputsError::Absent);
        };
        let aad = Report::output_aad(&spec.digest(), attempt, &evidence);
        let opened = sealed.open(result_key, OUTPUT_INFO, aad.as_bytes()).map_err(OutputsError::Secret)?;
        let bytes: [u8; 32] =
            opened.as_slice().try_into().map_err(|_| OutputsError::Contradiction("output secret is not 32 bytes"))?;
        let secret = TaskSecret::from_bytes(bytes);
        let context = ObjectContext { task: spec.task.0, name: DETAILS_OBJECT_NAME, purpose: Purpose::Output };
        let (details, _) =
            open_bytes(&secret, &context, Digests::default(), &sealed_details.0).map_err(OutputsError::Details)?;
        let details: RunDetails = serde_json::from_slice(&details)
            .map_err(|_| OutputsError::Contradiction("details are not a detail record"))?;
        if details.outputs.len() != predicate.outputs.len() {
            return Err(OutputsError::Contradiction("another number of outputs"));
        }
        for (index, (named, object)) in details.outputs.iter().zip(&predicate.outputs).enumerate() {
            let commitment = commit(&secret, &spec.task.0, &output_object_name(index), &named.sha256.0);
            if Digest(commitment) != object.commitment {
                return Err(OutputsError::Contradiction("an output's digest is not the one committed to"));
            }
        }
        Ok(Self { secret, task: spec.task.0, details, report: report.clone() })
    }

    /// The outputs with their content ids, in the order of the report.
    pub fn outputs(&self) -> impl Iterator<Item = (usize, &OutputManifest, &starminer_receipt::OutputObject)> {
        self.details.outputs.iter().zip(&self.report.predicate.outputs).enumerate().map(|(index, (a, b))| (index, a, b))
    }

    /// Where output `index` goes below `dir`.
    ///
    /// # Errors
    /// [`OutputsError::Name`] for a name that is absolute or climbs.
    pub fn path_of(&self, index: usize, dir: &Path) -> Result<PathBuf, OutputsError> {
        let refuse = || OutputsError::Name { index };
        match &self.details.outputs.get(index).ok_or_else(refuse)?.name {
            OutputName::Stdout => Ok(dir.join("stdout.txt")),
            OutputName::Stderr => Ok(dir.join("stderr.txt")),
            OutputName::File(name) => {
                let relative = Path::new(name);
                let plain = relative.components().all(|part| matches!(part, Component::Normal(_)));
                if name.is_empty() || !plain { Err(refuse()) } else { Ok(dir.join(relative)) }
            }
        }
    }

    /// Opens one output from its ciphertext and writes it below `dir`.
    ///
    /// # Errors
    /// [`OutputsError::Output`], [`OutputsError::Name`], [`OutputsError::Contradiction`], [`OutputsError::Io`].
    pub fn write(&self, index: usize, sealed: impl io::Read, dir: &Path) -> Result<OpenedOutput, OutputsError> {
        let path = self.path_of(index, dir)?;
        let io = |source| OutputsError::Io { path: path.clone(), source };
        let (named, object) =
            (&self.details.outputs[index], self.report.predicate.outputs.get(index).ok_or(OutputsError::Absent)?);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(io)?;
        }
        let mut temporary = path.clone().into_os_string();
        temporary.push(".part");
        let temporary = PathBuf::from(temporary);
        let written = self.write_to(index, sealed, &temporary).and_then(|summary| {
            let content = summary.content_id.as_ref().map(|id| Digest(id.0));
            if content != Some(object.content_id) {
                return Err(OutputsError::Contradiction("an output's ciphertext is not the one reported"));
            }
            if summary.plain_sha256 != Some(named.sha256.0) || summary.plain_len != named.plain_bytes {
                return Err(OutputsError::Contradiction("an output is not the one the details describe"));
            }
            fs::rename(&temporary, &path).map_err(io)?;
            Ok(OpenedOutput { name: named.name.clone(), path: path.clone(), plain_bytes: summary.plain_len })
        });
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    fn write_to(
        &self,
        index: usize,
        sealed: impl io::Read,
        path: &Path,
    ) -> Result<starminer_vault::object::SealedSummary, OutputsError> {
        let io = |source| OutputsError::Io { path: path.to_path_buf(), source };
        let name = output_object_name(index);
        let context = ObjectContext { task: self.task, name: &name, purpose: Purpose::Output };
        let digests = Digests { content_id: ContentIdMode::Compute, plain_sha256: PlainDigestMode::Compute };
        let file = File::create(path).map_err(io)?;
        let summary = open_stream(&self.secret, &context, digests, sealed, &file)
            .map_err(|source| OutputsError::Output { index, source })?;
        file.sync_all().map_err(io)?;
        Ok(summary)
    }
}
