//! Sealing what a run left: logs and the files below `/out`, each an object of its own under a fresh output secret.
//!
//! The agent hands in empty files as they are needed and takes the ciphertext from there; it never sees a name, for the
//! names are in the sealed details.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;

use starminer_receipt::{Limits, OutputManifest, OutputName, OutputObject, output_object_name};
use starminer_runtime::fs::{Output, TaskFs};
use starminer_vault::object::{
    ContentIdMode, Digests, ObjectContext, PlainDigestMode, SealError, SealOptions, SealedSummary, seal_bytes,
    seal_stream,
};
use starminer_vault::{Purpose, TaskSecret, commit};
use starminer_verify::{Digest, Party, Refusal, TaskId};
use zeroize::Zeroizing;

use super::Broken;
use super::files::is_storage_full;
use super::keys::salt;
use super::link::Link;
use super::verdict::{Ending, Halt, storage_is_full};
use crate::protocol::{FromTask, MAX_OBJECTS_PER_MESSAGE, MAX_OUTPUTS, ToTask};

/// Outputs up to this length are sealed in memory; longer ones are streamed.
const IN_MEMORY_BYTES: u64 = 256 * 1024;
/// Bytes of a report's envelope that outputs may fill. The rest is for everything else that a report says.
const ENVELOPE_BYTES_FOR_OUTPUTS: usize = starminer_receipt::MAX_ENVELOPE_BYTES - 16 * 1024;
/// What one output takes of the envelope at most, its name not counted: object, subject and manifest entry, the last of
/// them in base64 within base64.
const ENVELOPE_BYTES_PER_OUTPUT: usize = 1100;

const DIGESTS: Digests = Digests { content_id: ContentIdMode::Compute, plain_sha256: PlainDigestMode::Compute };

/// The plaintext that is to be sealed.
pub(crate) struct Plain<'a> {
    pub stdout: &'a [u8],
    pub stderr: &'a [u8],
    pub fs: Option<&'a mut TaskFs>,
}

/// What was sealed.
#[derive(Debug, Default)]
pub(crate) struct Sealed {
    /// As the report lists it.
    pub objects: Vec<OutputObject>,
    /// As the sealed details describe it, in the same order.
    pub manifest: Vec<OutputManifest>,
}

/// One output before it is sealed.
struct Item {
    name: OutputName,
    size_bytes: u64,
}

impl Plain<'_> {
    /// Logs that have something to say, then the files below `/out` in the order of their paths.
    fn items(&self) -> Vec<Item> {
        let logs = [(OutputName::Stdout, self.stdout.len()), (OutputName::Stderr, self.stderr.len())];
        let logs = logs.into_iter().filter(|(_, length)| *length > 0);
        let logs = logs.map(|(name, length)| Item { name, size_bytes: length as u64 });
        let files = self.fs.as_deref().map(TaskFs::outputs).unwrap_or_default();
        let files =
            files.into_iter().map(|Output { path, size_bytes }| Item { name: OutputName::File(path), size_bytes });
        logs.chain(files).collect()
    }

    /// Whether all of it may leave: the bound of the spec, and those of a report.
    pub(crate) fn check(&self, limits: &Limits) -> Result<(), Refusal> {
        let items = self.items();
        let total = items.iter().fold(0, |sum: u64, item| sum.saturating_add(item.size_bytes));
        if total > limits.output_bytes {
            return Err(Refusal::new(
                Party::Requester,
                "limits.output-size",
                format!("the outputs together are larger than the {} bytes that the spec allows", limits.output_bytes),
                "raise limits.output_bytes, or write less to /out",
            ));
        }
        let envelope_bytes = |item: &Item| {
            let name = match &item.name {
                OutputName::File(path) => path.len(),
                OutputName::Stdout | OutputName::Stderr => 0,
            };
            // A character of a name can take six in JSON, and base64 twice makes 16 of 9.
            ENVELOPE_BYTES_PER_OUTPUT + name * 6 * 16 / 9
        };
        if items.len() > MAX_OUTPUTS || items.iter().map(envelope_bytes).sum::<usize>() > ENVELOPE_BYTES_FOR_OUTPUTS {
            return Err(Refusal::new(
                Party::Requester,
                "limits.output-count",
                format!("{} outputs do not fit into one report", items.len()),
                "write fewer files to /out, for instance as one archive",
            ));
        }
        Ok(())
    }
}

/// Seals all of it.
pub(crate) fn seal(link: &mut Link, secret: &TaskSecret, task: TaskId, mut plain: Plain<'_>) -> Result<Sealed, Halt> {
    let items = plain.items();
    let mut sealed = Sealed::default();
    for group in items.chunks(MAX_OBJECTS_PER_MESSAGE) {
        let files = files_from_agent(link, sealed.objects.len(), group.len())?;
        for (item, file) in group.iter().zip(files) {
            let index = sealed.objects.len();
            let name = output_object_name(index);
            let context = ObjectContext { task: task.0, name: &name, purpose: Purpose::Output };
            let summary = match &item.name {
                OutputName::Stdout => seal_memory(secret, &context, plain.stdout, &file)?,
                OutputName::Stderr => seal_memory(secret, &context, plain.stderr, &file)?,
                OutputName::File(path) => {
                    let fs = plain.fs.as_deref_mut().ok_or(Ending::Defect("an output file without a file system"))?;
                    seal_file(secret, &context, fs, path, item.size_bytes, &file)?
                }
            };
            let (Some(content_id), Some(sha256)) = (summary.content_id, summary.plain_sha256) else {
                return Err(Ending::Defect("a digest that was asked for is missing").into());
            };
            sealed.objects.push(OutputObject {
                content_id: Digest(content_id.0),
                sealed_bytes: summary.sealed_len,
                commitment: Digest(commit(secret, &task.0, &name, &sha256)),
            });
            sealed.manifest.push(OutputManifest {
                name: item.name.clone(),
                plain_bytes: summary.plain_len,
                sha256: Digest(sha256),
            });
        }
    }
    Ok(sealed)
}

fn files_from_agent(link: &mut Link, first: usize, count: usize) -> Result<Vec<File>, Broken> {
    link.send(&FromTask::OutputsWanted { count: u32::try_from(count).map_err(|_| Broken)? })?;
    match link.receive()? {
        (ToTask::OutputFiles { first: given }, fds) if given as usize == first && fds.len() == count => {
            Ok(fds.into_iter().map(|fd: OwnedFd| File::from(fd)).collect())
        }
        _ => Err(Broken),
    }
}

fn options() -> SealOptions {
    SealOptions { digests: DIGESTS, ..SealOptions::default() }
}

fn seal_memory(
    secret: &TaskSecret,
    context: &ObjectContext<'_>,
    plain: &[u8],
    mut file: &File,
) -> Result<SealedSummary, Halt> {
    let (sealed, summary) = seal_bytes(secret, context, salt()?, options(), plain).map_err(|error| ending(&error))?;
    file.write_all(&sealed).map_err(|error| ending(&SealError::Sink(error)))?;
    Ok(summary)
}

fn seal_file(
    secret: &TaskSecret,
    context: &ObjectContext<'_>,
    fs: &mut TaskFs,
    path: &str,
    size_bytes: u64,
    file: &File,
) -> Result<SealedSummary, Halt> {
    let mut source = fs.read_output(path).map_err(|error| ending(&SealError::Source(io::Error::other(error))))?;
    if size_bytes <= IN_MEMORY_BYTES {
        let mut plain = Zeroizing::new(Vec::with_capacity(usize::try_from(size_bytes).unwrap_or(0)));
        source.read_to_end(&mut plain).map_err(|error| ending(&SealError::Source(error)))?;
        return seal_memory(secret, context, &plain, file);
    }
    Ok(seal_stream(secret, context, salt()?, options(), source, file).map_err(|error| ending(&error))?)
}

/// Sealing fails only because this machine does.
fn ending(error: &SealError) -> Ending {
    match error {
        SealError::Sink(source) if is_storage_full(source) => storage_is_full("the sealed outputs"),
        _ => Ending::Refused(Refusal::new(
            Party::Node,
            "node.outputs-unsealed",
            format!("the outputs could not be sealed: {error}"),
            "check the node's disk; another node can run the task",
        )),
    }
}
