//! From a job as a person describes it to a signed spec and sealed blobs.

use std::io::{self, Read as _};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use starminer_receipt::{
    Base64Bytes, Determinism, EngineKind, Envelope, EnvelopeError, JobManifest, KemPrivateKey, Limits,
    MANIFEST_OBJECT_NAME, MAX_INPUTS, MAX_MANIFEST_BYTES, ObjectRef, OnnxManifest, Sensitivity, Signed, SigningKey,
    TaskSpec, WORKLOAD_OBJECT_NAME, WasmGrants, WasmManifest, input_object_name,
};
use starminer_vault::object::{
    ContentIdMode, Digests, ObjectContext, PlainDigestMode, SealError, SealOptions, SealedSummary, seal_bytes,
    seal_stream,
};
use starminer_vault::{Purpose, Salt, TaskSecret, commit};
use starminer_verify::{Digest, NetworkId, Policy, PublicKey, ReferenceValues, TaskId, UnixTime};
use zeroize::Zeroizing;

use crate::files::open_regular;
use crate::home::HomeError;
use crate::progress::{Event, EventSink};
use crate::requester::StopAsked;
use crate::secrets::{random_bytes, random_secret};
use crate::staging::{StagedFile, StagingArea};
use crate::stop::Stoppable;

/// Objects up to this length are sealed in memory; longer ones go through a staging file, as ciphertext.
const IN_MEMORY_BYTES: u64 = 1 << 20;

/// Where an input comes from.
#[derive(Clone)]
pub enum InputSource {
    /// A file.
    File(PathBuf),
    /// Bytes in memory.
    Bytes(Bytes),
}

impl std::fmt::Debug for InputSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Bytes(bytes) => write!(f, "Bytes({} bytes)", bytes.len()),
        }
    }
}

/// A job, not sealed yet.
#[derive(Debug, Clone)]
pub struct JobPlan {
    /// The program or model.
    pub workload: InputSource,
    /// Inputs by the names under which the workload sees them.
    pub inputs: Vec<(String, InputSource)>,
    /// Settings of a wasm run.
    pub wasm: Option<WasmManifest>,
    /// Settings of an ONNX run.
    pub onnx: Option<OnnxManifest>,
    /// Repeatability.
    pub determinism: Determinism,
    /// What a wasm workload gets of the outside world.
    pub grants: WasmGrants,
    /// Bounds.
    pub limits: Limits,
    /// Place in the queue.
    pub sensitivity: Sensitivity,
    /// What evidence must meet.
    pub policy: Policy,
    /// Measurements that count.
    pub reference_values: ReferenceValues,
    /// Whose word counts that a TPM was enrolled.
    pub enrollers: Vec<PublicKey>,
    /// Whose word counts that a chip stands in a facility.
    pub facilities: Vec<PublicKey>,
    /// How often it may be leased.
    pub max_attempts: u32,
    /// How long after submission keys may be released for it.
    pub valid_for_ms: u64,
}

/// Why a job cannot be prepared.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A file is none that can be read.
    #[error("{path}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file could not be read to its end: the disk it is on failed.
    #[error("{path} could not be read to its end")]
    Disk {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Ciphertext cannot be staged: this machine failed.
    #[error(transparent)]
    Staging(#[from] HomeError),
    /// Who asked for it asked to stop.
    #[error("asked to stop")]
    Stopped,
    /// A file cannot be sealed.
    #[error("{name} cannot be sealed")]
    Seal {
        /// Which object.
        name: String,
        /// Why.
        #[source]
        source: SealError,
    },
    /// More inputs than a task may have.
    #[error("{count} inputs, at most {MAX_INPUTS} are possible")]
    TooManyInputs {
        /// How many.
        count: usize,
    },
    /// Two inputs have the same name.
    #[error("two inputs are named {name}")]
    DuplicateInput {
        /// Which name.
        name: String,
    },
    /// A name that no path under `/in` can be.
    #[error("{name:?} is not a usable input name")]
    BadInputName {
        /// Which name.
        name: String,
    },
    /// Arguments, environment and names together are too long.
    #[error("arguments, environment and names take more than {MAX_MANIFEST_BYTES} bytes")]
    ManifestTooLarge,
    /// Neither wasm nor ONNX settings, or both.
    #[error("a job is either wasm or ONNX")]
    Engine,
    /// The spec breaks one of its own rules.
    #[error("the spec is not acceptable")]
    Spec(#[source] EnvelopeError),
    /// The result key could not be made.
    #[error("the result key could not be made")]
    ResultKey,
}

impl PlanError {
    /// A stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "job.unreadable",
            Self::Disk { .. } => "job.disk",
            Self::Staging(_) => "home.io",
            Self::Stopped => "command.interrupted",
            Self::Seal { .. } => "job.unsealable",
            Self::TooManyInputs { .. } => "job.too-many-inputs",
            Self::DuplicateInput { .. } => "job.duplicate-input",
            Self::BadInputName { .. } => "job.bad-input-name",
            Self::ManifestTooLarge => "job.manifest-too-large",
            Self::Engine => "job.engine",
            Self::Spec(_) => "job.bad-spec",
            Self::ResultKey => "job.result-key",
        }
    }
}

/// Ciphertext that has to be at the coordinator before the task.
#[derive(Debug, Clone)]
pub struct SealedBlob {
    /// BLAKE3 of the ciphertext.
    pub content_id: Digest,
    /// Its length.
    pub sealed_bytes: u64,
    /// Where it is.
    pub source: InputSource,
    /// Holds the file that [`Self::source`] names.
    _staged: Option<Arc<StagedFile>>,
}

/// A task that is ready to be submitted.
pub struct PreparedTask {
    /// The signed spec.
    pub spec: Signed<TaskSpec>,
    /// The task secret.
    pub secret: TaskSecret,
    /// Seed of the result key.
    pub result_seed: Zeroizing<[u8; 32]>,
    /// The key that it is the seed of.
    pub result_key: Arc<KemPrivateKey>,
    /// Ciphertext to upload.
    pub blobs: Vec<SealedBlob>,
}

impl std::fmt::Debug for PreparedTask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PreparedTask").field("task", &self.spec.task).finish_non_exhaustive()
    }
}

/// Whose task it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parties<'a> {
    pub network: NetworkId,
    pub requester: &'a SigningKey,
    pub releaser: PublicKey,
}

impl JobPlan {
    /// Whether sealing it takes less than a moment: little, and all of it in memory.
    pub(crate) fn is_small(&self) -> bool {
        const MOST: usize = 256 * 1024;
        let sources = self.inputs.iter().map(|(_, source)| source).chain([&self.workload]);
        let lengths = sources.map(|source| match source {
            InputSource::Bytes(bytes) => bytes.len(),
            InputSource::File(_) => MOST,
        });
        lengths.fold(0, usize::saturating_add) < MOST
    }

    fn check(&self) -> Result<EngineKind, PlanError> {
        if self.inputs.len() > MAX_INPUTS {
            return Err(PlanError::TooManyInputs { count: self.inputs.len() });
        }
        let mut names: Vec<&str> = self.inputs.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(PlanError::DuplicateInput { name: pair[0].into() });
        }
        if let Some(name) = names.iter().find(|name| {
            name.is_empty() || name.len() > 255 || matches!(**name, "." | "..") || name.contains(['/', '\0'])
        }) {
            return Err(PlanError::BadInputName { name: (*name).into() });
        }
        match (&self.wasm, &self.onnx) {
            (Some(_), None) => Ok(EngineKind::Wasm),
            (None, Some(_)) => Ok(EngineKind::Onnx),
            _ => Err(PlanError::Engine),
        }
    }

    /// Seals everything under a fresh task secret and signs the spec. Long objects are staged as ciphertext for as long as their blobs are
    /// there. Stops between two chunks when it is asked to.
    pub(crate) fn prepare(
        &self,
        parties: Parties<'_>,
        staging: &StagingArea,
        stop: &StopAsked,
        now: UnixTime,
        events: &EventSink,
    ) -> Result<PreparedTask, PlanError> {
        let engine = self.check()?;
        let task = TaskId(random_bytes());
        let secret = TaskSecret::from_bytes(*random_secret());
        let result_seed = random_secret();
        let result_key = KemPrivateKey::from_seed(&result_seed).map_err(|_| PlanError::ResultKey)?;

        let manifest = JobManifest {
            inputs: self.inputs.iter().map(|(name, _)| name.clone()).collect(),
            wasm: self.wasm.clone(),
            onnx: self.onnx.clone(),
        };
        let manifest = serde_json::to_vec(&manifest).map_err(|_| PlanError::ManifestTooLarge)?;
        if manifest.len() > MAX_MANIFEST_BYTES {
            return Err(PlanError::ManifestTooLarge);
        }
        let context = ObjectContext { task: task.0, name: MANIFEST_OBJECT_NAME, purpose: Purpose::Input };
        let (sealed_manifest, _) =
            seal_bytes(&secret, &context, Salt::from_random(random_bytes()), SealOptions::default(), &manifest)
                .map_err(|source| PlanError::Seal { name: MANIFEST_OBJECT_NAME.into(), source })?;

        let mut blobs = Vec::with_capacity(self.inputs.len() + 1);
        let mut seal = |object_name: &str, shown: &str, source: &InputSource| {
            let (object, blob, plain_bytes) = seal_object(&secret, task, object_name, source, staging, stop)?;
            events(Event::Sealed { name: shown.into(), plain_bytes, sealed_bytes: object.sealed_bytes });
            blobs.push(blob);
            Ok::<_, PlanError>(object)
        };
        let workload = seal(WORKLOAD_OBJECT_NAME, "workload", &self.workload)?;
        let mut inputs = Vec::with_capacity(self.inputs.len());
        for (index, (name, source)) in self.inputs.iter().enumerate() {
            inputs.push(seal(&input_object_name(index), name, source)?);
        }

        let spec = TaskSpec {
            version: 1,
            network: parties.network,
            task,
            requester: starminer_receipt::Signer::public_key(parties.requester),
            created_at: now,
            expires_at: now.saturating_add_millis(self.valid_for_ms),
            engine,
            determinism: self.determinism,
            grants: self.grants,
            limits: self.limits,
            sensitivity: self.sensitivity,
            sealed_manifest: Base64Bytes(sealed_manifest),
            workload,
            inputs,
            policy: self.policy.clone(),
            reference_values: self.reference_values.clone(),
            enrollers: self.enrollers.clone(),
            facilities: self.facilities.clone(),
            releaser: parties.releaser,
            result_key: Base64Bytes(result_key.public_key().to_vec()),
            max_attempts: self.max_attempts,
        };
        let spec = Envelope::sign(spec, parties.requester).map_err(PlanError::Spec)?;
        Ok(PreparedTask { spec, secret, result_seed, result_key: Arc::new(result_key), blobs })
    }
}

const BOTH_DIGESTS: Digests = Digests { content_id: ContentIdMode::Compute, plain_sha256: PlainDigestMode::Compute };

fn seal_object(
    secret: &TaskSecret,
    task: TaskId,
    name: &str,
    source: &InputSource,
    staging: &StagingArea,
    stop: &StopAsked,
) -> Result<(ObjectRef, SealedBlob, u64), PlanError> {
    let context = ObjectContext { task: task.0, name, purpose: Purpose::Input };
    let options = SealOptions { digests: BOTH_DIGESTS, ..SealOptions::default() };
    let salt = Salt::from_random(random_bytes());
    let seal_error = |source| PlanError::Seal { name: name.into(), source };
    let in_memory = |salt, plain: &[u8]| {
        let (sealed, summary) = seal_bytes(secret, &context, salt, options, plain).map_err(seal_error)?;
        Ok::<_, PlanError>((summary, InputSource::Bytes(sealed.into()), None))
    };
    let (summary, sealed, staged) = match source {
        InputSource::Bytes(bytes) => in_memory(salt, bytes)?,
        InputSource::File(path) => {
            let mut file = open_regular(path).map_err(|source| PlanError::Io { path: path.clone(), source })?;
            let disk = |source| PlanError::Disk { path: path.clone(), source };
            // As long as it turns out to be, whatever length it is said to have: not every file tells.
            let mut begin = Zeroizing::new(Vec::with_capacity(8 << 10));
            file.by_ref().take(IN_MEMORY_BYTES + 1).read_to_end(&mut begin).map_err(disk)?;
            if begin.len() as u64 <= IN_MEMORY_BYTES {
                in_memory(salt, &begin)?
            } else {
                let (staged, sink) = staging.create()?;
                let plain = Stoppable::new(begin.as_slice().chain(file), stop);
                let summary =
                    seal_stream(secret, &context, salt, options, plain, &sink).map_err(|error| match error {
                        SealError::Source(_) if stop() => PlanError::Stopped,
                        SealError::Source(source) => disk(source),
                        SealError::Sink(source) => HomeError::Local { path: staged.path().into(), source }.into(),
                        error => seal_error(error),
                    })?;
                (summary, InputSource::File(staged.path().into()), Some(Arc::new(staged)))
            }
        }
    };
    let (object, plain_bytes) = describe(secret, task, name, &summary)
        .ok_or_else(|| PlanError::Seal { name: name.into(), source: SealError::TooLong })?;
    let blob = SealedBlob {
        content_id: object.content_id,
        sealed_bytes: object.sealed_bytes,
        source: sealed,
        _staged: staged,
    };
    Ok((object, blob, plain_bytes))
}

/// What the spec says of an object; `None` if a digest was not computed, which [`BOTH_DIGESTS`] rules out.
fn describe(secret: &TaskSecret, task: TaskId, name: &str, summary: &SealedSummary) -> Option<(ObjectRef, u64)> {
    let commitment = commit(secret, &task.0, name, &summary.plain_sha256?);
    let object = ObjectRef {
        content_id: Digest(summary.content_id.as_ref()?.0),
        sealed_bytes: summary.sealed_len,
        commitment: Digest(commitment),
    };
    Some((object, summary.plain_len))
}
