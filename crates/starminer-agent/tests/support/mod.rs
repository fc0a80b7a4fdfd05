//! A requester, a releaser and a device for tests, and the agent's end of a task process.
//!
//! Everything is real but the network and the log: statements are signed, inputs sealed, evidence made by a software TEE,
//! the task process started and sealed as in a node.

#![allow(dead_code, clippy::unwrap_used)]

pub mod coordinator;
pub mod enroller;

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use starminer_agent::testing::{CompiledRecord, FromTask, MAX_OBJECTS_PER_MESSAGE, ProcessLimits, ToTask};
use starminer_attester::{Attester as _, SimulatedRoot, SoftwareTee, SoftwareTeeSettings};
use starminer_receipt::{
    Base64Bytes, ChallengeStatement, Determinism, EngineKind, Envelope, GRANT_INFO, Grant, JobManifest, KemPrivateKey,
    Lease, Limits, MANIFEST_OBJECT_NAME, OUTPUT_INFO, ObjectRef, OnnxManifest, OutputName, Report, RunDetails,
    SealedSecret, Sensitivity, Signed, Signer, SigningKey, TaskSpec, WORKLOAD_OBJECT_NAME, WasmGrants, WasmManifest,
    input_object_name, output_object_name,
};
use starminer_sandbox::{Channel, Exit, InForce, Program, Stderr, TaskProcess, Zygote, memory_file};
use starminer_vault::object::{
    ContentIdMode, Digests, ObjectContext, PlainDigestMode, SealOptions, open_bytes, seal_bytes,
};
use starminer_vault::{Purpose, Salt, TaskSecret, commit};
use starminer_verify::software_tee::{ChipId, DebugMode, MemoryEncryption};
use starminer_verify::{
    Attempt, Binding, BootId, Challenge, Digest, NetworkId, NodeId, Policy, Posture, PublicKey, ReferenceValues, Suite,
    TaskId, TaskKey, UnixTime,
};
use zeroize::Zeroizing;

/// The program whose task processes are tested.
pub const AGENT: &str = env!("CARGO_BIN_EXE_starminer-agent");
/// Time of every statement.
pub const NOW: UnixTime = UnixTime(1_800_000_000_000);
const WAIT: Duration = Duration::from_secs(60);
pub const BOOT: BootId = BootId([6; 16]);

pub fn key(byte: u8) -> SigningKey {
    SigningKey::from_seed(&Zeroizing::new([byte; 32]))
}

pub fn example(path: &str) -> Vec<u8> {
    let path = format!("{}/../../examples/{path}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn device(root: &SimulatedRoot) -> SoftwareTee {
    let request = SoftwareTee::request(&[2; 32], ChipId([3; 32]));
    let certificate = root.certify(&request, UnixTime(0), UnixTime(u64::MAX)).unwrap();
    let settings = SoftwareTeeSettings {
        boot: BOOT,
        measurement: Digest([4; 32]),
        debug: DebugMode::Off,
        memory_encryption: MemoryEncryption::Claimed,
        tcb_version: 1,
    };
    SoftwareTee::new(&[2; 32], certificate, settings).unwrap()
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    bytes
}

/// The parties around a task process.
pub struct World {
    pub lease_ms: u64,
    pub network: NetworkId,
    pub requester: SigningKey,
    pub releaser: SigningKey,
    pub coordinator: SigningKey,
    pub agent: SigningKey,
    pub node: NodeId,
    pub root: SimulatedRoot,
    pub tee: SoftwareTee,
}

impl World {
    pub fn new() -> Self {
        let root = SimulatedRoot::generate(&[1; 32]);
        Self {
            lease_ms: 600_000,
            network: NetworkId([5; 32]),
            requester: key(10),
            releaser: key(11),
            coordinator: key(12),
            agent: key(13),
            node: NodeId(key(14).public_key()),
            tee: device(&root),
            root,
        }
    }

    /// The same device once more.
    pub fn device(&self) -> SoftwareTee {
        device(&self.root)
    }

    pub fn releaser_key(&self) -> PublicKey {
        self.releaser.public_key()
    }

    pub fn policy(&self) -> Policy {
        let mut fields = Policy::confidential().fields().clone();
        fields.accepted_simulated_roots = vec![self.root.id()];
        Policy::new(fields).unwrap()
    }

    /// Seals a job as a requester does.
    pub fn seal(&self, job: &Job) -> SealedJob {
        let secret = TaskSecret::from_bytes(random());
        let task = TaskId(random());
        let result_key = KemPrivateKey::from_seed(&Zeroizing::new(random())).unwrap();
        let manifest = JobManifest {
            inputs: job.inputs.iter().map(|(name, _)| (*name).to_owned()).collect(),
            wasm: job.wasm.clone(),
            onnx: job.onnx.clone(),
        };
        let manifest = job.raw_manifest.clone().unwrap_or_else(|| serde_json::to_vec(&manifest).unwrap());
        let sealed_manifest = seal_object(&secret, task, MANIFEST_OBJECT_NAME, &manifest).1;
        let (workload, blob) = seal_object(&secret, task, WORKLOAD_OBJECT_NAME, &job.workload);
        let mut blobs = vec![blob];
        let mut inputs = Vec::new();
        for (index, (_, bytes)) in job.inputs.iter().enumerate() {
            let (object, blob) = seal_object(&secret, task, &input_object_name(index), bytes);
            inputs.push(object);
            blobs.push(blob);
        }
        let spec = TaskSpec {
            version: 1,
            network: self.network,
            task,
            requester: self.requester.public_key(),
            created_at: NOW,
            expires_at: UnixTime(NOW.0 + 3_600_000),
            engine: if job.onnx.is_some() { EngineKind::Onnx } else { EngineKind::Wasm },
            determinism: job.determinism,
            grants: job.grants,
            limits: job.limits,
            sensitivity: Sensitivity::Confidential,
            sealed_manifest: Base64Bytes(sealed_manifest),
            workload,
            inputs,
            policy: self.policy(),
            reference_values: ReferenceValues::unset(),
            enrollers: Vec::new(),
            facilities: Vec::new(),
            releaser: self.releaser.public_key(),
            result_key: Base64Bytes(result_key.public_key().to_vec()),
            max_attempts: 3,
        };
        let spec = Envelope::sign(spec, &self.requester).unwrap();
        SealedJob { spec, secret, result_key, blobs }
    }

    pub fn lease(&self, spec: &Signed<TaskSpec>, attempt: u32) -> Signed<Lease> {
        let lease = Lease {
            network: self.network,
            task: spec.task,
            spec: spec.digest(),
            node: self.node,
            attempt: Attempt(attempt),
            issued_at: NOW,
            expires_at: UnixTime(NOW.0 + self.lease_ms),
            coordinator: self.coordinator.public_key(),
        };
        Envelope::sign(lease, &self.coordinator).unwrap()
    }

    pub fn challenge(&self, lease: &Signed<Lease>) -> Signed<ChallengeStatement> {
        let challenge = ChallengeStatement {
            network: self.network,
            task: lease.task,
            attempt: lease.attempt,
            lease: lease.digest(),
            challenge: Challenge(random()),
            issued_at: NOW,
            expires_at: UnixTime(NOW.0 + 60_000),
            releaser: self.releaser.public_key(),
        };
        Envelope::sign(challenge, &self.releaser).unwrap()
    }

    /// The binding that an agent makes for a task process.
    pub fn binding(
        &self,
        spec: &Signed<TaskSpec>,
        lease: &Signed<Lease>,
        challenge: &ChallengeStatement,
        keys: &Keys,
    ) -> Binding {
        Binding {
            network: self.network,
            challenge: challenge.challenge,
            purpose: starminer_verify::Purpose::Task,
            spec: Some(spec.digest()),
            node: self.node,
            attempt: Some(lease.attempt),
            boot: BOOT,
            task_key: Some(keys.task_key.clone()),
            report_key: Some(keys.report_key),
            agent_key: self.agent.public_key(),
            tls_key: PublicKey([9; 32]),
            ak_name: None,
            posture: Posture::unstated().digest(),
            subject: None,
        }
    }

    pub fn evidence(&self, binding: Binding) -> Vec<u8> {
        self.tee.attest(&[binding], &Posture::unstated()).unwrap().remove(0)
    }

    /// A valid grant statement, not signed yet, for a test to spoil.
    pub fn grant(
        &self,
        job: &SealedJob,
        lease: &Signed<Lease>,
        evidence: &[u8],
        task_key: &TaskKey,
        secret: &[u8],
    ) -> Grant {
        let (spec, policy) = (job.spec.digest(), job.spec.policy.digest());
        let evidence = Digest::of(evidence);
        let aad = Grant::aad(&spec, &lease.digest(), lease.attempt, &evidence, &policy);
        let randomness = Zeroizing::new(random());
        let sealed = SealedSecret::seal(task_key.as_bytes(), GRANT_INFO, aad.as_bytes(), secret, &randomness).unwrap();
        Grant {
            network: self.network,
            task: lease.task,
            attempt: lease.attempt,
            spec,
            lease: lease.digest(),
            evidence,
            policy,
            release: Digest([8; 32]),
            release_index: 7,
            secret: sealed,
            resume: None,
            issued_at: NOW,
            releaser: self.releaser.public_key(),
        }
    }
}

pub fn seal_object(secret: &TaskSecret, task: TaskId, name: &str, plain: &[u8]) -> (ObjectRef, Vec<u8>) {
    let context = ObjectContext { task: task.0, name, purpose: Purpose::Input };
    let digests = Digests { content_id: ContentIdMode::Compute, plain_sha256: PlainDigestMode::Compute };
    let options = SealOptions { digests, ..SealOptions::default() };
    let (sealed, summary) = seal_bytes(secret, &context, Salt::from_random(random()), options, plain).unwrap();
    let object = ObjectRef {
        content_id: Digest(summary.content_id.unwrap().0),
        sealed_bytes: summary.sealed_len,
        commitment: Digest(commit(secret, &task.0, name, &summary.plain_sha256.unwrap())),
    };
    (object, sealed)
}

/// A job in clear.
#[derive(Clone)]
pub struct Job {
    pub workload: Vec<u8>,
    pub inputs: Vec<(&'static str, Vec<u8>)>,
    pub wasm: Option<WasmManifest>,
    pub onnx: Option<OnnxManifest>,
    pub raw_manifest: Option<Vec<u8>>,
    pub limits: Limits,
    pub grants: WasmGrants,
    pub determinism: Determinism,
}

impl Job {
    pub fn wasm(workload: Vec<u8>) -> Self {
        let limits = Limits {
            fuel: 2_000_000_000,
            memory_bytes: 128 << 20,
            wall_limit_ms: 60_000,
            output_bytes: 16 << 20,
            scratch_bytes: 64 << 20,
            state_bytes: 0,
        };
        Self {
            workload,
            inputs: Vec::new(),
            wasm: Some(WasmManifest::default()),
            onnx: None,
            raw_manifest: None,
            limits,
            grants: WasmGrants::default(),
            determinism: Determinism::Native,
        }
    }

    pub fn input(mut self, name: &'static str, bytes: Vec<u8>) -> Self {
        self.inputs.push((name, bytes));
        self
    }
}

/// A job as the coordinator and the node have it, and what only the requester has.
pub struct SealedJob {
    pub spec: Signed<TaskSpec>,
    pub secret: TaskSecret,
    pub result_key: KemPrivateKey,
    pub blobs: Vec<Vec<u8>>,
}

/// Public keys of a task process.
pub struct Keys {
    pub task_key: TaskKey,
    pub report_key: PublicKey,
}

/// What task processes that may have this much memory are copies of.
pub fn zygote(data_bytes: u64) -> Zygote {
    let limits = ProcessLimits { data_bytes, file_bytes: 4 << 30 };
    Zygote::start(&Program::At(AGENT.into()), limits.arguments(), Stderr::Inherit).unwrap()
}

/// The agent's end of one task process.
pub struct Process {
    pub process: TaskProcess,
    channel: Channel,
    pub in_force: InForce,
    pub cache: HashMap<Digest, (CompiledRecord, OwnedFd)>,
    pub cache_hits: u32,
    outputs: Vec<File>,
    pub scratch: Option<File>,
}

impl Process {
    pub fn start() -> Self {
        Self::start_with(2 << 30)
    }

    pub fn start_with(data_bytes: u64) -> Self {
        Self::copy_of(&mut zygote(data_bytes))
    }

    pub fn copy_of(zygote: &mut Zygote) -> Self {
        let (process, channel) = zygote.copy().unwrap();
        let mut started = Self {
            process,
            channel,
            in_force: sample_in_force(),
            cache: HashMap::new(),
            cache_hits: 0,
            outputs: Vec::new(),
            scratch: None,
        };
        match started.receive() {
            (FromTask::Ready { in_force }, _) => started.in_force = InForce::decode(in_force.as_bytes()).unwrap(),
            other => panic!("{other:?}"),
        }
        started
    }

    pub fn send(&mut self, message: &ToTask, fds: &[&File]) {
        let fds: Vec<_> = fds.iter().map(|file| file.as_fd()).collect();
        self.channel.send(&serde_json::to_vec(message).unwrap(), &fds).unwrap();
    }

    pub fn try_receive(&mut self) -> Option<(FromTask, Vec<OwnedFd>)> {
        let message = self.channel.recv_timeout(WAIT).ok()?;
        Some((serde_json::from_slice(&message.bytes).unwrap(), message.fds))
    }

    pub fn receive(&mut self) -> (FromTask, Vec<OwnedFd>) {
        self.try_receive().unwrap_or_else(|| panic!("the task process ended: {:?}", self.process.wait()))
    }

    pub fn lease(&mut self, spec: &Envelope, lease: &Envelope) -> FromTask {
        let scratch = tempfile::tempfile().unwrap();
        self.send(&ToTask::Lease { spec: spec.clone(), lease: lease.clone() }, &[&scratch]);
        self.scratch = Some(scratch);
        self.receive().0
    }

    pub fn keys(&mut self, spec: &Signed<TaskSpec>, lease: &Signed<Lease>) -> Keys {
        match self.lease(spec.envelope(), lease.envelope()) {
            FromTask::Keys { task_key, report_key } => {
                Keys { task_key: TaskKey::from_bytes(Suite::XWingSha256Aes256Gcm, &task_key.0).unwrap(), report_key }
            }
            other => panic!("{other:?}"),
        }
    }

    pub fn objects(&mut self, blobs: &[Vec<u8>]) {
        let files: Vec<File> = blobs.iter().map(|blob| file_of(blob)).collect();
        for (group, files) in files.chunks(MAX_OBJECTS_PER_MESSAGE).enumerate() {
            let first = u32::try_from(group * MAX_OBJECTS_PER_MESSAGE).unwrap();
            self.send(&ToTask::Objects { first }, &files.iter().collect::<Vec<_>>());
        }
    }

    pub fn grant(&mut self, challenge: &Envelope, evidence: &[u8], grant: &Envelope) -> FromTask {
        let message = ToTask::Grant { challenge: challenge.clone(), grant: grant.clone() };
        let mut file = memory_file().unwrap();
        file.write_all(evidence).unwrap();
        self.send(&message, &[&file]);
        self.receive().0
    }

    /// Serves the process until it reports.
    pub fn until_report(&mut self) -> Envelope {
        loop {
            let (message, mut fds) = self.receive();
            match message {
                FromTask::CompiledWanted { key } => match self.cache.get(&key) {
                    Some((record, fd)) => {
                        let file = File::from(fd.try_clone().unwrap());
                        let found = Some(*record);
                        self.cache_hits += 1;
                        self.send(&ToTask::Compiled { found }, &[&file]);
                    }
                    None => self.send(&ToTask::Compiled { found: None }, &[]),
                },
                FromTask::CompiledMade { key, record } => {
                    self.cache.insert(key, (record, fds.pop().unwrap()));
                }
                FromTask::Started => {}
                FromTask::OutputsWanted { count } => {
                    let first = u32::try_from(self.outputs.len()).unwrap();
                    let files: Vec<File> = (0..count).map(|_| tempfile::tempfile().unwrap()).collect();
                    self.send(&ToTask::OutputFiles { first }, &files.iter().collect::<Vec<_>>());
                    self.outputs.extend(files);
                }
                FromTask::Report { report } => return report,
                other => panic!("{other:?}"),
            }
        }
    }

    pub fn exit(&mut self) -> Exit {
        self.process.wait().unwrap()
    }

    /// Closes the channel, whereupon the process ends.
    pub fn leave(self) -> Exit {
        let Self { mut process, channel, .. } = self;
        drop(channel);
        process.wait().unwrap()
    }

    /// Ciphertext of the outputs.
    pub fn sealed_outputs(&self) -> Vec<Vec<u8>> {
        self.outputs.iter().map(bytes_of).collect()
    }
}

fn sample_in_force() -> InForce {
    let text: String = starminer_sandbox::Protection::ALL.map(|protection| format!("{protection}\n")).concat();
    InForce::decode(text.as_bytes()).unwrap()
}

pub fn file_of(bytes: &[u8]) -> File {
    use std::io::Write;
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

pub fn bytes_of(file: &File) -> Vec<u8> {
    use std::io::{Seek, SeekFrom};
    let mut bytes = Vec::new();
    let mut file = file.try_clone().unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

/// What a requester makes of a report: outputs by name, after every check that a requester makes.
#[derive(Debug)]
pub struct OpenedResult {
    pub report: Report,
    pub details: RunDetails,
    pub outputs: Vec<(OutputName, Vec<u8>)>,
}

impl OpenedResult {
    pub fn output(&self, name: &OutputName) -> &[u8] {
        let found = self.outputs.iter().find(|(found, _)| found == name);
        &found.unwrap_or_else(|| panic!("no output {name:?} in {:?}", self.outputs)).1
    }

    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(self.output(&OutputName::Stdout)).into_owned()
    }

    pub fn file(&self, name: &str) -> &[u8] {
        self.output(&OutputName::File(name.into()))
    }
}

/// Opens a result as a requester does.
pub fn open_result(job: &SealedJob, keys: &Keys, report: &Envelope, sealed: &[Vec<u8>]) -> OpenedResult {
    let report: Signed<Report> = report.clone().open().unwrap();
    let said = &report.predicate;
    assert_eq!(said.signer, keys.report_key, "signed by another key than the evidence binds");
    let aad = Report::output_aad(&job.spec.digest(), said.attempt.unwrap(), &said.evidence.unwrap());
    let secret = said.output_secret.as_ref().unwrap().open(&job.result_key, OUTPUT_INFO, aad.as_bytes()).unwrap();
    let secret = TaskSecret::from_bytes(secret.as_slice().try_into().unwrap());
    let task = job.spec.task.0;
    let details_context = ObjectContext { task, name: "details", purpose: Purpose::Output };
    let digests = Digests { content_id: ContentIdMode::Compute, plain_sha256: PlainDigestMode::Compute };
    let details = open_bytes(&secret, &details_context, Digests::default(), &said.sealed_details.as_ref().unwrap().0);
    let details: RunDetails = serde_json::from_slice(&details.unwrap().0).unwrap();
    assert_eq!(details.outputs.len(), said.outputs.len());
    let mut outputs = Vec::new();
    for (index, (named, object)) in details.outputs.iter().zip(&said.outputs).enumerate() {
        let name = output_object_name(index);
        let context = ObjectContext { task, name: &name, purpose: Purpose::Output };
        let (plain, summary) = open_bytes(&secret, &context, digests, &sealed[index]).unwrap();
        assert_eq!(Digest(summary.content_id.unwrap().0), object.content_id);
        assert_eq!(Digest(commit(&secret, &job.spec.task.0, &name, &summary.plain_sha256.unwrap())), object.commitment);
        assert_eq!(Digest(summary.plain_sha256.unwrap()), named.sha256);
        assert_eq!(plain.len() as u64, named.plain_bytes);
        outputs.push((named.name.clone(), plain));
    }
    OpenedResult { report: report.statement().clone(), details, outputs }
}

/// Everything at once: seals, leases, challenges, attests, grants, runs and opens.
pub fn run(world: &World, job: &Job) -> OpenedResult {
    run_in(world, job, &mut Process::start())
}

pub fn run_in(world: &World, job: &Job, process: &mut Process) -> OpenedResult {
    let sealed = world.seal(job);
    let (lease, keys) = lease_in(world, &sealed, process, 1);
    grant_in(world, &sealed, &lease, &keys, process);
    let report = process.until_report();
    open_result(&sealed, &keys, &report, &process.sealed_outputs())
}

pub fn lease_in(world: &World, job: &SealedJob, process: &mut Process, attempt: u32) -> (Signed<Lease>, Keys) {
    let lease = world.lease(&job.spec, attempt);
    let keys = process.keys(&job.spec, &lease);
    (lease, keys)
}

pub fn grant_in(world: &World, job: &SealedJob, lease: &Signed<Lease>, keys: &Keys, process: &mut Process) {
    let challenge = world.challenge(lease);
    let evidence = world.evidence(world.binding(&job.spec, lease, &challenge, keys));
    let grant = world.grant(job, lease, &evidence, &keys.task_key, job.secret.expose());
    let grant = Envelope::sign(grant, &world.releaser).unwrap();
    process.objects(&job.blobs);
    let answer = process.grant(challenge.envelope(), &evidence, grant.envelope());
    assert_eq!(answer, FromTask::GrantTaken);
}
