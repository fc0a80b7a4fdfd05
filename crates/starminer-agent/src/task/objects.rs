//! Opening what the requester sealed: manifest, workload, inputs; each proven to be what the signed spec commits to.
//!
//! The vault proves that every chunk was sealed under the task's own secret, for this task and this name. The commitment
//! proves more: that the plaintext is the one that the spec was signed for, not another one that somebody with the secret
//! had sealed under the same name. Inputs are therefore read once in full before the run, whatever their size.

use std::fs::File;
use std::io;
use std::sync::Arc;

use aws_lc_rs::digest;
use starminer_receipt::{
    EngineKind, JobManifest, MANIFEST_OBJECT_NAME, MAX_MANIFEST_BYTES, ObjectRef, Signed, TaskSpec,
    WORKLOAD_OBJECT_NAME, input_object_name,
};
use starminer_runtime::StopSignal;
use starminer_vault::object::{Digests, ObjectContext, OpenError, open_bytes};
use starminer_vault::{ObjectReader, Purpose, TaskSecret, commit};
use starminer_verify::{Digest, Party, Refusal};
use zeroize::Zeroizing;

use super::verdict::Ending;

/// Bytes of plaintext that one step of a digest looks at.
const DIGEST_BYTES: usize = 512 * 1024;

/// An object that has been opened and is what the spec commits to.
pub(crate) struct OpenedObject {
    /// Reads it.
    pub reader: Arc<ObjectReader<File>>,
    /// SHA-256 of its plaintext. Private.
    pub sha256: [u8; 32],
}

/// Opens the sealed manifest and sees that it suits the spec. The plaintext is returned beside what was read from it.
pub(crate) fn open_manifest(
    spec: &Signed<TaskSpec>,
    secret: &TaskSecret,
) -> Result<(JobManifest, Zeroizing<Vec<u8>>), Ending> {
    let context = ObjectContext { task: spec.task.0, name: MANIFEST_OBJECT_NAME, purpose: Purpose::Input };
    let (plain, _) = open_bytes(secret, &context, Digests::default(), &spec.sealed_manifest.0)
        .map_err(|error| unopenable("job.manifest-unopenable", "the sealed manifest", &error))?;
    let plain = Zeroizing::new(plain);
    if plain.len() > MAX_MANIFEST_BYTES {
        return Err(requester(
            "job.manifest-too-large",
            "the manifest is longer than 32 KiB",
            "shorten names and arguments",
        ));
    }
    let manifest: JobManifest = serde_json::from_slice(&plain).map_err(|_| {
        requester(
            "job.manifest-malformed",
            "the manifest is not in the documented form",
            "seal the job with a current starminer",
        )
    })?;
    if manifest.inputs.len() != spec.inputs.len() {
        let reason = "manifest and spec have different numbers of inputs";
        return Err(requester("job.manifest-inputs", reason, "name every input of the spec, in its order"));
    }
    let suits = match spec.engine {
        EngineKind::Wasm => manifest.wasm.is_some() && manifest.onnx.is_none(),
        EngineKind::Onnx => manifest.onnx.is_some() && manifest.wasm.is_none(),
    };
    if !suits {
        let reason = "the manifest is for another engine than the spec";
        return Err(requester("job.manifest-engine", reason, "give the settings of the engine that the spec names"));
    }
    Ok((manifest, plain))
}

/// Opens the workload.
pub(crate) fn open_workload(
    spec: &Signed<TaskSpec>,
    secret: &TaskSecret,
    file: File,
    stop: &StopSignal,
) -> Result<OpenedObject, Ending> {
    open_object(spec, secret, WORKLOAD_OBJECT_NAME, &spec.workload, file, stop)
}

/// Opens input `index`.
pub(crate) fn open_input(
    spec: &Signed<TaskSpec>,
    secret: &TaskSecret,
    index: usize,
    file: File,
    stop: &StopSignal,
) -> Result<OpenedObject, Ending> {
    let object = spec.inputs.get(index).ok_or(Ending::Defect("an input beyond the spec's"))?;
    open_object(spec, secret, &input_object_name(index), object, file, stop)
}

/// Reads all of an object into memory.
pub(crate) fn read_all(object: &OpenedObject, most_bytes: usize) -> Result<Zeroizing<Vec<u8>>, Ending> {
    let length = usize::try_from(object.reader.len()).ok().filter(|length| *length <= most_bytes).ok_or_else(|| {
        requester(
            "workload.too-large",
            "the workload is larger than its engine takes",
            "make the program or model smaller",
        )
    })?;
    let mut plain = Zeroizing::new(vec![0; length]);
    match object.reader.read_at(0, &mut plain) {
        Ok(count) if count == length => Ok(plain),
        Ok(_) => Err(unreadable(WORKLOAD_OBJECT_NAME)),
        Err(error) => Err(unopenable("workload.unopenable", "the workload", &error)),
    }
}

fn open_object(
    spec: &Signed<TaskSpec>,
    secret: &TaskSecret,
    name: &str,
    object: &ObjectRef,
    file: File,
    stop: &StopSignal,
) -> Result<OpenedObject, Ending> {
    let context = ObjectContext { task: spec.task.0, name, purpose: Purpose::Input };
    let refused = |error: &OpenError| unopenable("input.unopenable", &format!("object {name}"), error);
    let reader = ObjectReader::open(secret, &context, file, object.sealed_bytes).map_err(|error| refused(&error))?;
    let sha256 = plain_sha256(&reader, stop).map_err(|error| match error {
        DigestError::Open(error) => refused(&error),
        DigestError::Short => unreadable(name),
        DigestError::Stopped(stop) => Ending::Stopped(stop),
    })?;
    if Digest(commit(secret, &spec.task.0, name, &sha256)) != object.commitment {
        let reason = format!("the plaintext of object {name} is not the one that the spec commits to");
        return Err(requester("input.commitment", &reason, "seal the job again; nobody else has the secret to do so"));
    }
    Ok(OpenedObject { reader: Arc::new(reader), sha256 })
}

enum DigestError {
    Open(OpenError),
    Short,
    Stopped(starminer_runtime::Stop),
}

fn plain_sha256(reader: &ObjectReader<File>, stop: &StopSignal) -> Result<[u8; 32], DigestError> {
    let length = reader.len();
    let mut context = digest::Context::new(&digest::SHA256);
    // No larger than the object: most are small, and touching fresh pages costs.
    let room = usize::try_from(length).map_or(DIGEST_BYTES, |length| length.min(DIGEST_BYTES));
    let mut buffer = Zeroizing::new(vec![0; room]);
    let mut offset = 0;
    while offset < length {
        if let Some(stop) = stop.stop() {
            return Err(DigestError::Stopped(stop));
        }
        let count = reader.read_at(offset, &mut buffer).map_err(DigestError::Open)?;
        if count == 0 {
            return Err(DigestError::Short);
        }
        context.update(&buffer[..count]);
        offset += count as u64;
    }
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(context.finish().as_ref());
    Ok(sha256)
}

/// An object that does not open: the disk below it failed, or the requester sealed something else. The content id was
/// checked when it was downloaded, so altered ciphertext does not come this far.
fn unopenable(check: &'static str, what: &str, error: &OpenError) -> Ending {
    match error {
        OpenError::Source(source) if source.kind() != io::ErrorKind::UnexpectedEof => unreadable(what),
        _ => Ending::Refused(Refusal::new(
            Party::Requester,
            check,
            format!("{what} does not open under the task secret: {error}"),
            "seal the job again with the secret that is released",
        )),
    }
}

fn unreadable(what: &str) -> Ending {
    Ending::Refused(Refusal::new(
        Party::Node,
        "node.storage",
        format!("the node's disk did not give back {what}"),
        "check the node's disk; another node can run the task",
    ))
}

fn requester(check: &'static str, reason: &str, remedy: &str) -> Ending {
    Ending::Refused(Refusal::new(Party::Requester, check, reason, remedy))
}
