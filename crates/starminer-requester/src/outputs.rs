//! Opening a result: the output secret, the details, the outputs.
//!
//! Everything the report claims is checked against what is opened: content ids, commitments, names, lengths. Outputs are placed once all
//! of them have been authenticated.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
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

use crate::home::OWNER;
use crate::results::RESERVED;

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
    /// Something that is no output of an earlier task is where an output has to go.
    #[error("{path} stands where an output of this task has to go, and is not of an earlier run")]
    Occupied {
        /// What is there.
        path: PathBuf,
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
            Self::Occupied { .. } => "result.occupied",
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

    /// Where each output goes below the output directory: a file by its name, what the program wrote to standard output and error to
    /// `stdout.txt` and `stderr.txt`, or where the program has files of these names, to the first of `stdout.captured.txt`,
    /// `stdout.captured-2.txt`, … that it has not. What begins with a name that is kept for the requester's own files begins
    /// with another one, and so does a path that is too long, by the rule of `kept_aside`: no name that a program chooses keeps its result from being collected.
    ///
    /// # Errors
    /// [`OutputsError::Name`] for a name that is absolute or climbs; [`OutputsError::Contradiction`] for names that cannot be side by side.
    pub fn places(&self) -> Result<Vec<PathBuf>, OutputsError> {
        let mut taken: Vec<PathBuf> = Vec::new();
        for (index, output) in self.details.outputs.iter().enumerate() {
            let OutputName::File(name) = &output.name else { continue };
            let path = Path::new(name);
            let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
            if name.is_empty() || !plain {
                return Err(OutputsError::Name { index });
            }
            taken.push(path.components().collect());
        }
        taken.sort_unstable();
        // In this order whatever is below a path comes right after it.
        if taken.windows(2).any(|pair| pair[1].starts_with(&pair[0])) {
            return Err(OutputsError::Contradiction("two outputs in one place"));
        }
        let aside = kept_aside(&taken);
        taken.extend(aside.values().map(PathBuf::from));
        let mut place = |output: &OutputManifest| {
            let stream = match &output.name {
                OutputName::File(name) => {
                    let path = Path::new(name);
                    let path: PathBuf = path.components().collect();
                    let below_first = || aside.get(Path::new(&first_of(&path))).map(|instead| (instead, 1));
                    return match aside.get(&path).map(|instead| (instead, usize::MAX)).or_else(below_first) {
                        Some((instead, skipped)) => {
                            Path::new(instead).components().chain(path.components().skip(skipped)).collect()
                        }
                        None => path,
                    };
                }
                OutputName::Stdout => "stdout",
                OutputName::Stderr => "stderr",
            };
            let names = ["", ".captured"].into_iter().map(String::from).chain((2..).map(|n| format!(".captured-{n}")));
            let names = names.map(|middle| PathBuf::from(format!("{stream}{middle}.txt")));
            // There are finitely many outputs, and ever more names.
            let free = names.into_iter().find(|name| taken.iter().all(|taken| !taken.starts_with(name)));
            let free = free.unwrap_or_default();
            taken.push(free.clone());
            free
        };
        Ok(self.details.outputs.iter().map(&mut place).collect())
    }

    /// Opens one output from its ciphertext into a new file, and gives its length. What does not verify leaves no file.
    ///
    /// # Errors
    /// [`OutputsError::Output`], [`OutputsError::Contradiction`], [`OutputsError::Io`].
    pub fn write(&self, index: usize, sealed: impl io::Read, path: &Path) -> Result<u64, OutputsError> {
        let named = self.details.outputs.get(index).ok_or(OutputsError::Absent)?;
        let object = self.report.predicate.outputs.get(index).ok_or(OutputsError::Absent)?;
        let written = self.write_to(index, sealed, path).and_then(|summary| {
            let content = summary.content_id.as_ref().map(|id| Digest(id.0));
            if content != Some(object.content_id) {
                return Err(OutputsError::Contradiction("an output's ciphertext is not the one reported"));
            }
            if summary.plain_sha256 != Some(named.sha256.0) || summary.plain_len != named.plain_bytes {
                return Err(OutputsError::Contradiction("an output is not the one the details describe"));
            }
            Ok(summary.plain_len)
        });
        if written.is_err() {
            let _ = fs::remove_file(path);
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
        // What was confidential on its way stays its owner's.
        let mut options = fs::OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(OWNER).open(path).map_err(io)?;
        let summary = open_stream(&self.secret, &context, digests, sealed, &file).map_err(|source| match source {
            // Of this machine's disk, not of what the node sent.
            OpenError::Sink(source) | OpenError::Source(source) => io(source),
            source => OutputsError::Output { index, source },
        })?;
        file.sync_all().map_err(io)?;
        Ok(summary)
    }
}

/// Longest name that is kept of one that another takes the place of: with what stands before it, it is a name on every file system.
const KEPT_NAME_BYTES: usize = 200;

/// Longest path of an output below the output directory, which has to have room before it in the 4096 bytes that systems take.
const PLACE_BYTES: usize = 1024;

fn first_of(path: &Path) -> String {
    path.components().next().map(|first| first.as_os_str().to_string_lossy().into_owned()).unwrap_or_default()
}

/// Whether a name in an output directory is for the requester's own files: its list, what it opens on the way, receipts of any task.
fn is_kept(name: &str) -> bool {
    let receipt = |name: &str| {
        let (task, rest) = name.split_once('.')?;
        (task.parse::<starminer_verify::TaskId>().is_ok() && rest.starts_with("receipt")).then_some(())
    };
    name.starts_with(RESERVED) || receipt(name).is_some()
}

/// What stands in the place of names that are kept, and of whole paths that are too long to have a directory before them: `renamed.` and
/// the name without a dot at its beginning, or where the program has that, too, the first of `renamed-2.`, `renamed-3.`, … that it has not.
fn kept_aside(taken: &[PathBuf]) -> BTreeMap<PathBuf, String> {
    let firsts: BTreeSet<String> = taken.iter().map(|path| first_of(path)).collect();
    let mut aside: BTreeMap<PathBuf, String> = BTreeMap::new();
    for path in taken {
        let first = first_of(path);
        let moved = match () {
            () if path.as_os_str().len() > PLACE_BYTES => path.clone(),
            () if is_kept(&first) => PathBuf::from(first),
            () => continue,
        };
        if aside.contains_key(&moved) {
            continue;
        }
        let name = moved.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        let name = cut(name.trim_start_matches('.'), KEPT_NAME_BYTES);
        let names = std::iter::once(format!("renamed.{name}")).chain((2..).map(|n| format!("renamed-{n}.{name}")));
        // There are finitely many outputs, and ever more names.
        let free = names.into_iter().find(|free| !firsts.contains(free) && aside.values().all(|other| other != free));
        let free = free.unwrap_or_default();
        aside.insert(moved, free);
    }
    aside
}

/// At most this many bytes of a text, in whole characters.
fn cut(text: &str, most_bytes: usize) -> &str {
    let end = (0..=most_bytes.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or_default()]
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use starminer_receipt::{Outcome, ReportAuthor, ReportPredicate};
    use starminer_verify::{NetworkId, PublicKey, TaskId};

    use super::*;

    fn places(names: &[&str]) -> Result<Vec<String>, OutputsError> {
        let predicate = ReportPredicate {
            author: ReportAuthor::Task,
            signer: PublicKey([0; 32]),
            network: NetworkId([0; 32]),
            task: TaskId([0xab; 16]),
            spec: Digest([0; 32]),
            node: None,
            attempt: None,
            lease: None,
            evidence: None,
            grant: None,
            engine: None,
            workload: None,
            inputs: Vec::new(),
            outcome: Outcome::Completed,
            output_secret: None,
            outputs: Vec::new(),
            sealed_details: None,
            sandbox: Vec::new(),
            resumed: None,
        };
        let name = |name: &&str| match *name {
            "<stdout>" => OutputName::Stdout,
            "<stderr>" => OutputName::Stderr,
            name => OutputName::File(name.into()),
        };
        let output = |name| OutputManifest { name, plain_bytes: 0, sha256: Digest([0; 32]) };
        let opened = OpenedResult {
            secret: TaskSecret::from_bytes([0; 32]),
            task: [0xab; 16],
            details: RunDetails {
                exit_code: None,
                fuel_used: None,
                peak_memory_bytes: 0,
                outputs: names.iter().map(name).map(output).collect(),
            },
            report: Report::new(predicate),
        };
        Ok(opened.places()?.into_iter().map(|place| place.display().to_string()).collect())
    }

    #[test]
    fn every_output_has_a_place_of_its_own() {
        let same = |names: &[&str], expected: &[&str]| assert_eq!(places(names).unwrap(), expected, "{names:?}");
        same(&["<stdout>", "<stderr>", "a", "b/c"], &["stdout.txt", "stderr.txt", "a", "b/c"]);
        same(&["a", "a-b", "a.part"], &["a", "a-b", "a.part"]);
        // Whoever comes first in the list, files have their own names.
        same(&["<stdout>", "stdout.txt"], &["stdout.captured.txt", "stdout.txt"]);
        same(&["stdout.txt/deep", "<stdout>"], &["stdout.txt/deep", "stdout.captured.txt"]);
        same(
            &["<stderr>", "stderr.txt", "stderr.captured.txt", "<stdout>"],
            &["stderr.captured-2.txt", "stderr.txt", "stderr.captured.txt", "stdout.txt"],
        );
        let receipt = format!("{}.receipt", TaskId([0xab; 16]));
        let long = format!(".starminer-{}", "\u{e9}".repeat(122));
        assert_eq!(long.len(), 255);
        same(
            &[
                ".starminer-results",
                ".starminer-results.new",
                ".starminer-x/y",
                ".starminer-x/z/.starminer-",
                "a/.starminer-",
            ],
            &[
                "renamed.starminer-results",
                "renamed.starminer-results.new",
                "renamed.starminer-x/y",
                "renamed.starminer-x/z/.starminer-",
                "a/.starminer-",
            ],
        );
        same(
            &["renamed.starminer-a/b", ".starminer-a", "renamed-2.starminer-a", &receipt, "notes.receipt"],
            &[
                "renamed.starminer-a/b",
                "renamed-3.starminer-a",
                "renamed-2.starminer-a",
                &format!("renamed.{receipt}"),
                "notes.receipt",
            ],
        );
        // Receipts of other tasks are nobody's to make up, and what is too long for a longer name is cut.
        let other = format!("{}.receipt.new", TaskId([7; 16]));
        same(&[&other, "b"], &[&format!("renamed.{other}"), "b"]);
        let cut = places(&[&long]).unwrap();
        assert!(cut[0].starts_with("renamed.starminer-\u{e9}") && cut[0].len() <= 255, "{cut:?}");
        let alike = [long.clone(), format!("{}x", &long[..253])];
        let apart = places(&[&alike[0], &alike[1]]).unwrap();
        assert!(apart[0] != apart[1] && apart.iter().all(|place| place.len() <= 255), "{apart:?}");
        // A guest's path may be as long as any of this system's, and leaves no room for the directory before it.
        let deep = "d/".repeat(2047);
        let (deep, other) = (format!("{deep}f"), format!("{deep}g/.f"));
        same(&["d/f", &deep, &other, "renamed.f"], &["d/f", "renamed-2.f", "renamed-3.f", "renamed.f"]);
        let bad = ["", "/etc/passwd", "../up", "a/../../up", "./a"];
        for name in bad {
            assert!(matches!(places(&["ok", name]), Err(OutputsError::Name { index: 1 })), "{name:?}");
        }
        for pair in [["a", "a"], ["a", "a/b"], ["a/b", "a"], ["a//b", "a/b"], ["<stdout>", "<stdout>"]] {
            let found = places(&pair);
            let apart = pair[0] == "<stdout>" && found.as_ref().is_ok_and(|places| places[0] != places[1]);
            assert!(apart || matches!(found, Err(OutputsError::Contradiction(_))), "{pair:?}");
        }
    }
}
