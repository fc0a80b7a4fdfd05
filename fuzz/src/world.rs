//! A whole network in memory with keys that everybody knows: a software TEE, a log with a witness, and four tasks that
//! ended in four ways.
//!
//! Targets compare with it: what verifies under these keys and was not made here is a forgery. Signatures, proofs and
//! sealed secrets are real; times, seeds and salts are fixed, so that every process builds the same bytes and the
//! corpus, made of them once, stays valid. Never use a key of this module for anything else.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::OnceLock;

use starminer_attester::{Attester as _, SimulatedRoot, SoftwareTee, SoftwareTeeSettings};
use starminer_broker::{Decision, Ledger, LedgerRecord, ReleaseContext, ReleaserTrust};
use starminer_log::{
    Checkpoint, Frontier, Hash, HashReader, KeyName, LogSigner, Remembered, SignedCheckpoint, VerifiedCheckpoint,
    WitnessSigner, prove_inclusion,
};
use starminer_receipt::*;
use starminer_vault::object::{SealOptions, seal_bytes};
use starminer_vault::{ObjectContext, Purpose as VaultPurpose, Salt, TaskSecret, commit};
use starminer_verify::software_tee::{ChipId, DebugMode, MemoryEncryption};
use starminer_verify::*;
use zeroize::Zeroizing;

/// The time at which everything here happens.
pub const NOW: UnixTime = UnixTime(1_800_000_000_000);
/// The network.
pub const NETWORK: NetworkId = NetworkId([1; 32]);
/// The agent's start that evidence names.
pub const BOOT: BootId = BootId([3; 16]);
/// The agent's measurement.
pub const MEASUREMENT: Digest = Digest([0x4d; 32]);
/// The secret of every task.
pub const TASK_SECRET: [u8; 32] = [0xA5; 32];
/// The secret that outputs of every task are sealed under.
pub const OUTPUT_SECRET: [u8; 32] = [0x5A; 32];
/// Seconds at which the witness cosigned.
const COSIGNED_SECONDS: u64 = NOW.0 / 1000;

/// Seeds of signing keys, each 32 times the byte.
mod seed {
    pub const REQUESTER: u8 = 10;
    pub const COORDINATOR: u8 = 11;
    pub const BROKER: u8 = 12;
    pub const REPORT: u8 = 32;
    pub const AGENT: u8 = 33;
    pub const ALL: [u8; 5] = [REQUESTER, COORDINATOR, BROKER, REPORT, AGENT];
}

/// The key of a seed byte.
#[must_use]
pub fn signing_key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&Zeroizing::new([seed; 32]))
}

/// The key pair of the suite for a seed byte.
#[must_use]
pub fn kem_key(seed: u8) -> KemPrivateKey {
    KemPrivateKey::from_seed(&Zeroizing::new([seed; 32])).expect("X-Wing takes every seed")
}

/// How a task of this world ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It ran to its end.
    Completed,
    /// It ran out of fuel.
    Failed,
    /// The releaser refused the evidence.
    Denied,
    /// The requester called it off before a node was found.
    Cancelled,
}

impl Ending {
    /// All of them; a task's id is its place in this list, from 1.
    pub const ALL: [Self; 4] = [Self::Completed, Self::Failed, Self::Denied, Self::Cancelled];

    fn task(self) -> TaskId {
        TaskId([self as u8 + 1; 16])
    }
}

/// A log with every hash in memory.
pub struct Log {
    frontier: Frontier,
    hashes: HashMap<u64, Hash>,
    /// The entries, in order.
    pub entries: Vec<Vec<u8>>,
}

struct Reader<'a>(&'a HashMap<u64, Hash>);

impl HashReader for Reader<'_> {
    type Error = Infallible;
    fn read(&self, indices: &[u64]) -> Result<Vec<Hash>, Infallible> {
        Ok(indices.iter().map(|index| self.0.get(index).copied().unwrap_or(Hash([0; 32]))).collect())
    }
}

/// Signs the checkpoints of this world's log.
#[must_use]
pub fn log_signer() -> LogSigner {
    LogSigner::from_seed(KeyName::parse("fuzz.example/log").expect("a key name"), &[77; 32])
}

/// Cosigns them.
#[must_use]
pub fn witness_signer() -> WitnessSigner {
    WitnessSigner::from_seed(KeyName::parse("fuzz.example/witness").expect("a key name"), &[78; 32])
}

impl Log {
    /// A log of these entries; `None` where one of them is too long for any log.
    #[must_use]
    pub fn of(entries: Vec<Vec<u8>>) -> Option<Self> {
        let batch = Frontier::empty().append(&entries).ok()?;
        let hashes = batch.stored().collect();
        Some(Self { frontier: batch.into_frontier(), hashes, entries })
    }

    /// Number of entries.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// Root of the tree.
    #[must_use]
    pub fn root(&self) -> Hash {
        self.frontier.root()
    }

    /// The checkpoint of all entries, signed and cosigned.
    #[must_use]
    pub fn checkpoint(&self) -> VerifiedCheckpoint {
        signed_checkpoint(self.size(), self.root())
    }

    /// An entry with its proof.
    #[must_use]
    pub fn logged(&self, index: u64) -> Option<LoggedEntry> {
        let entry = self.entries.get(usize::try_from(index).ok()?)?.clone();
        let inclusion = prove_inclusion(self.size(), index, &Reader(&self.hashes)).ok()?;
        Some(LoggedEntry { entry: entry.into(), inclusion })
    }
}

/// A checkpoint of this size and root under the log's key and the witness's: whatever the log chose to say.
#[must_use]
pub fn signed_checkpoint(size: u64, root: Hash) -> VerifiedCheckpoint {
    let signer = log_signer();
    let root = if size == 0 { starminer_log::EMPTY_ROOT } else { root };
    let checkpoint =
        Checkpoint::new(signer.name().clone(), size.min(starminer_log::MAX_TREE_SIZE), root).expect("within bounds");
    let signed = checkpoint.sign(&signer).expect("its own name").verify(&signer.key()).expect("its own signature");
    let line = witness_signer().cosign(&Remembered::first(signed.clone()), COSIGNED_SECONDS).expect("a possible time");
    signed.with_cosignatures(line.as_bytes(), &[witness_signer().key()]).expect("its own cosignature")
}

/// Everything of one task.
pub struct Story {
    /// How it ended.
    pub ending: Ending,
    /// The signed spec.
    pub spec: Signed<TaskSpec>,
    /// The signed lease.
    pub lease: Signed<Lease>,
    /// What the releaser made durable, oldest first.
    pub records: Vec<LedgerRecord>,
    /// The receipt.
    pub receipt: Receipt,
}

/// Everything there is.
pub struct World {
    /// One task for each [`Ending`].
    pub stories: Vec<Story>,
    /// The log of all of them.
    pub log: Log,
    /// The verifier's trust: this log, its witness, this root.
    pub trust: NetworkTrust,
    /// Evidence of the broker, for [`BROKER_CHALLENGE`].
    pub broker_evidence: Vec<u8>,
    /// Evidence of the node for admission, for [`BROKER_CHALLENGE`].
    pub admission_evidence: Vec<u8>,
}

/// The challenge that the broker's evidence answers.
pub const BROKER_CHALLENGE: Challenge = Challenge([0xB0; 32]);

/// The world, built at the first call.
#[must_use]
pub fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(World::build)
}

/// The requester, which is its own releaser.
#[must_use]
pub fn requester() -> SigningKey {
    signing_key(seed::REQUESTER)
}

/// The requester's public key.
#[must_use]
pub fn requester_public() -> PublicKey {
    requester().public_key()
}

/// The coordinator.
#[must_use]
pub fn coordinator() -> SigningKey {
    signing_key(seed::COORDINATOR)
}

/// The broker.
#[must_use]
pub fn broker() -> SigningKey {
    signing_key(seed::BROKER)
}

/// The key of this world with that public half.
#[must_use]
pub fn key_of(public: &PublicKey) -> Option<SigningKey> {
    seed::ALL.into_iter().map(signing_key).find(|key| key.public_key() == *public)
}

/// The key that results are sealed to.
#[must_use]
pub fn result_key() -> &'static KemPrivateKey {
    static KEY: OnceLock<KemPrivateKey> = OnceLock::new();
    KEY.get_or_init(|| kem_key(30))
}

/// The key that grants are sealed to.
#[must_use]
pub fn task_key() -> &'static KemPrivateKey {
    static KEY: OnceLock<KemPrivateKey> = OnceLock::new();
    KEY.get_or_init(|| kem_key(31))
}

/// The key that deposits are sealed to.
#[must_use]
pub fn broker_key() -> &'static KemPrivateKey {
    static KEY: OnceLock<KemPrivateKey> = OnceLock::new();
    KEY.get_or_init(|| kem_key(34))
}

/// The simulated root.
#[must_use]
pub fn root() -> SimulatedRoot {
    SimulatedRoot::generate(&[20; 32])
}

/// A device under the root.
#[must_use]
pub fn tee(debug: DebugMode, memory_encryption: MemoryEncryption, tcb_version: u64) -> SoftwareTee {
    let device = [21; 32];
    let request = SoftwareTee::request(&device, ChipId([9; 32]));
    let (from, to) = (UnixTime(NOW.0 - 1_000_000), UnixTime(NOW.0 + 1_000_000_000));
    let certificate = root().certify(&request, from, to).expect("dates in order");
    let settings = SoftwareTeeSettings { measurement: MEASUREMENT, boot: BOOT, debug, memory_encryption, tcb_version };
    SoftwareTee::new(&device, certificate, settings).expect("its own certificate")
}

/// A posture with every measure of the sandbox in this state.
#[must_use]
pub fn posture(state: PostureState) -> Posture {
    let sandbox = SandboxMeasure::ALL.iter().map(|measure| PostureItem::new(*measure, state, "")).collect();
    Posture::new(sandbox, Vec::new()).expect("each measure once")
}

/// What a node binds for an attempt.
#[must_use]
pub fn task_binding(spec: Digest, lease: &Lease, challenge: Challenge, posture: &Posture) -> Binding {
    Binding {
        network: lease.network,
        challenge,
        purpose: Purpose::Task,
        spec: Some(spec),
        node: lease.node,
        attempt: Some(lease.attempt),
        boot: BOOT,
        task_key: TaskKey::from_bytes(Suite::XWingSha256Aes256Gcm, task_key().public_key()),
        report_key: Some(signing_key(seed::REPORT).public_key()),
        agent_key: signing_key(seed::AGENT).public_key(),
        tls_key: PublicKey([34; 32]),
        ak_name: None,
        posture: posture.digest(),
        subject: None,
    }
}

/// Evidence of the device for one binding.
#[must_use]
pub fn attest(binding: Binding, posture: &Posture, debug: DebugMode) -> Option<Vec<u8>> {
    tee(debug, MemoryEncryption::Claimed, 1).attest(&[binding], posture).ok()?.pop()
}

/// Reference values that name the agent.
#[must_use]
pub fn reference_values() -> ReferenceValues {
    let measurement = Measurement::from_bytes(MEASUREMENT.as_bytes()).expect("32 bytes");
    let value = ReferenceValue { kind: EvidenceKind::SoftwareTee, measurement, name: "agent".into() };
    ReferenceValues::new(vec![value]).expect("one value")
}

/// The policy of every spec: confidential, and this root accepted by name.
#[must_use]
pub fn policy() -> Policy {
    let mut fields = Policy::confidential().fields().clone();
    fields.accepted_simulated_roots = vec![root().id()];
    Policy::new(fields).expect("one root")
}

/// Seals `plain` as an object of a task under its secret or its output secret.
#[must_use]
pub fn seal(secret: [u8; 32], task: TaskId, name: &str, purpose: VaultPurpose, plain: &[u8]) -> Vec<u8> {
    let context = ObjectContext { task: task.0, name, purpose };
    let salt = Salt::from_random(Digest::of(name.as_bytes()).0);
    seal_bytes(&TaskSecret::from_bytes(secret), &context, salt, SealOptions::default(), plain).expect("short").0
}

/// The plaintext of the one output of every task that completed.
pub const OUTPUT: &[u8] = b"id,label\n1,0\n";

/// What the node says of its outputs.
#[must_use]
pub fn run_details() -> RunDetails {
    let output = OutputManifest {
        name: OutputName::File("predictions.csv".into()),
        plain_bytes: OUTPUT.len() as u64,
        sha256: Digest::of(OUTPUT),
    };
    RunDetails { exit_code: Some(0), fuel_used: Some(123_456), peak_memory_bytes: 1 << 20, outputs: vec![output] }
}

/// The first checkpoint of the attempt of a lease.
#[must_use]
pub fn state_checkpoint(spec: &Signed<TaskSpec>, lease: &Signed<Lease>) -> Envelope {
    let key = signing_key(seed::REPORT);
    let statement = CheckpointStatement {
        network: NETWORK,
        task: spec.task,
        spec: spec.digest(),
        attempt: lease.attempt,
        lease: lease.digest(),
        node: lease.node,
        checkpoint: CheckpointId { sequence: u64::from(lease.attempt.0) << 32 | 1, digest: Digest([6; 32]) },
        signer: key.public_key(),
    };
    Envelope::sign(statement, &key).expect("a checkpoint of its attempt").into_envelope()
}

/// The report's words for an outcome: `details` are the figures that are sealed into it.
#[must_use]
pub fn report_predicate(
    spec: &Signed<TaskSpec>,
    lease: Option<&Signed<Lease>>,
    evidence: Option<Digest>,
    grant: Option<Digest>,
    outcome: Outcome,
    details: &RunDetails,
) -> ReportPredicate {
    let (author, signer) = match (grant, lease) {
        (Some(_), _) => (ReportAuthor::Task, seed::REPORT),
        (None, Some(_)) => (ReportAuthor::Releaser, seed::REQUESTER),
        (None, None) => (ReportAuthor::Coordinator, seed::COORDINATOR),
    };
    let attempt = lease.map(|lease| lease.attempt);
    let mut predicate = ReportPredicate {
        author,
        signer: signing_key(signer).public_key(),
        network: NETWORK,
        task: spec.task,
        spec: spec.digest(),
        node: lease.map(|lease| lease.node),
        attempt,
        lease: lease.map(Signed::digest),
        evidence,
        grant,
        engine: None,
        workload: None,
        inputs: Vec::new(),
        outcome,
        output_secret: None,
        outputs: Vec::new(),
        sealed_details: None,
        sandbox: Vec::new(),
        resumed: None,
    };
    let (Some(_), Some(attempt), Some(evidence)) = (grant, attempt, evidence) else { return predicate };
    predicate.engine = Some(EngineRecord {
        kind: "wasm".into(),
        build: "wasmtime 48".into(),
        cpu_target: "x86-64-v3".into(),
        digests: vec![("module".into(), Digest([90; 32]))],
    });
    predicate.workload = Some(spec.workload.commitment);
    predicate.inputs = spec.inputs.iter().map(|input| input.commitment).collect();
    predicate.sandbox = vec!["seccomp".into()];
    let secret = TaskSecret::from_bytes(OUTPUT_SECRET);
    let aad = Report::output_aad(&spec.digest(), attempt, &evidence);
    let randomness = Zeroizing::new([0x77; 64]);
    let sealed =
        SealedSecret::seal(result_key().public_key(), OUTPUT_INFO, aad.as_bytes(), &OUTPUT_SECRET, &randomness);
    predicate.output_secret = sealed.ok();
    let json = serde_json::to_vec(details).expect("names and numbers");
    predicate.sealed_details = Some(seal(OUTPUT_SECRET, spec.task, "details", VaultPurpose::Output, &json).into());
    for (index, output) in details.outputs.iter().enumerate() {
        let name = output_object_name(index);
        predicate.outputs.push(ObjectRef {
            content_id: Digest([80; 32]),
            sealed_bytes: output.plain_bytes.saturating_add(96),
            commitment: Digest(commit(&secret, &spec.task.0, &name, &output.sha256.0)),
        });
    }
    predicate
}

/// The agent's word on a report.
#[must_use]
pub fn agent_statement(lease: &Signed<Lease>, report: Digest) -> AgentStatement {
    let agent = signing_key(seed::AGENT);
    let resources = Resources { cpu_ms: 3, peak_resident_bytes: 1 << 24, wall_ms: 5 };
    let json = serde_json::to_vec(&resources).expect("numbers");
    let randomness = Zeroizing::new([0x66; 64]);
    AgentStatement {
        network: NETWORK,
        task: lease.task,
        attempt: lease.attempt,
        node: lease.node,
        report,
        exit: ExitStatus::Exited { code: 0 },
        started_at: NOW,
        ended_at: UnixTime(NOW.0 + 5),
        resources: SealedSecret::seal(result_key().public_key(), DETAILS_INFO, report.as_bytes(), &json, &randomness)
            .expect("a key of the suite"),
        agent: agent.public_key(),
    }
}

impl World {
    /// The story that ended so.
    #[must_use]
    pub fn story(&self, ending: Ending) -> &Story {
        &self.stories[ending as usize]
    }

    /// What a releaser trusts.
    #[must_use]
    pub fn releaser_trust(&self) -> ReleaserTrust {
        ReleaserTrust::from_network(&self.trust).expect("one root")
    }

    /// This world's trust without its witness.
    #[must_use]
    pub fn trust_without_witness() -> NetworkTrust {
        trust(LogEntryKeys { key: log_signer().key().encode(), witnesses: Vec::new(), witness_quorum: 0 })
    }

    fn build() -> Self {
        let witnessed = LogEntryKeys {
            key: log_signer().key().encode(),
            witnesses: vec![witness_signer().key().encode()],
            witness_quorum: 1,
        };
        let trust = trust(witnessed);
        let releaser_trust = ReleaserTrust::from_network(&trust).expect("one root");
        let mut entries = Vec::new();
        log(&mut entries, EntryKind::Genesis, None, None, Digest([0; 32]));
        // First the statements, then the log over all of them, then the proofs.
        let mut stories: Vec<Story> =
            Ending::ALL.into_iter().map(|ending| tell(ending, &mut entries, &releaser_trust)).collect();
        let full = Log::of(entries).expect("short entries");
        let note = full.checkpoint().signed().as_str().to_owned();
        for story in &mut stories {
            story.receipt.checkpoint = note.clone();
            let of_task = (0..full.size()).filter_map(|index| full.logged(index)).filter(|logged| {
                LogEntry::parse(&logged.entry.0).is_ok_and(|entry| entry.task == Some(story.spec.task))
            });
            story.receipt.entries = of_task.collect();
        }
        let node = NodeId(broker().public_key());
        let posture = posture(PostureState::InForce);
        let lease = stories[0].lease.statement().clone();
        let mut binding = task_binding(Digest([0; 32]), &lease, BROKER_CHALLENGE, &posture);
        (binding.spec, binding.attempt) = (None, None);
        let mut admission =
            Binding { purpose: Purpose::Admission, task_key: None, report_key: None, ..binding.clone() };
        admission.node = lease.node;
        binding.purpose = Purpose::Broker;
        binding.node = node;
        binding.report_key = Some(node.0);
        binding.task_key = TaskKey::from_bytes(Suite::XWingSha256Aes256Gcm, broker_key().public_key());
        Self {
            stories,
            log: full,
            trust,
            broker_evidence: attest(binding, &posture, DebugMode::Off).expect("a binding of its shape"),
            admission_evidence: attest(admission, &posture, DebugMode::Off).expect("a binding of its shape"),
        }
    }
}

fn trust(log: LogEntryKeys) -> NetworkTrust {
    let coordinator = CoordinatorEntry { address: "127.0.0.1:1".into(), key: coordinator().public_key() };
    let simulated = vec![SimulatedRootEntry { name: "the root of the fuzz targets".into(), root: root().id() }];
    NetworkTrust::new("fuzz".into(), NETWORK, coordinator, log, simulated, reference_values()).expect("its own keys")
}

fn log(entries: &mut Vec<Vec<u8>>, kind: EntryKind, task: Option<TaskId>, attempt: Option<Attempt>, statement: Digest) {
    log_with(entries, kind, task, attempt, statement, None);
}

fn log_with(
    entries: &mut Vec<Vec<u8>>,
    kind: EntryKind,
    task: Option<TaskId>,
    attempt: Option<Attempt>,
    statement: Digest,
    annex: Option<Digest>,
) {
    let at = UnixTime(NOW.0 + entries.len() as u64);
    let of_task = |entry: &&Vec<u8>| LogEntry::parse(entry).is_ok_and(|entry| entry.task == task);
    let step = task.map(|_| entries.iter().filter(of_task).count() as u32);
    // In these stories a report or a cancellation is the end.
    let ends = matches!(kind, EntryKind::Reported | EntryKind::Cancelled);
    entries
        .push(LogEntry { v: 1, kind, at, task, step, attempt, node: None, statement, annex, why: None, ends }.encode());
}

fn spec_of(ending: Ending) -> TaskSpec {
    let task = ending.task();
    let secret = TaskSecret::from_bytes(TASK_SECRET);
    let object = |name: &str, byte: u8| ObjectRef {
        content_id: Digest([byte; 32]),
        sealed_bytes: 100,
        commitment: Digest(commit(&secret, &task.0, name, &[byte; 32])),
    };
    let manifest = JobManifest {
        inputs: vec!["a.csv".into(), "b.csv".into()],
        wasm: Some(WasmManifest { args: vec!["--fast".into()], env: vec![("LANG".into(), "C".into())] }),
        onnx: None,
    };
    let manifest = serde_json::to_vec(&manifest).expect("names");
    TaskSpec {
        version: 1,
        network: NETWORK,
        task,
        requester: requester().public_key(),
        created_at: NOW,
        expires_at: UnixTime(NOW.0 + 3_600_000),
        engine: EngineKind::Wasm,
        determinism: Determinism::Native,
        grants: WasmGrants::default(),
        limits: Limits::default(),
        sensitivity: Sensitivity::Confidential,
        sealed_manifest: seal(TASK_SECRET, task, MANIFEST_OBJECT_NAME, VaultPurpose::Input, &manifest).into(),
        workload: object(WORKLOAD_OBJECT_NAME, 50),
        inputs: vec![object(&input_object_name(0), 60), object(&input_object_name(1), 70)],
        policy: policy(),
        reference_values: reference_values(),
        enrollers: Vec::new(),
        facilities: Vec::new(),
        releaser: requester().public_key(),
        result_key: result_key().public_key().to_vec().into(),
        max_attempts: 3,
    }
}

fn lease_of(spec: &Signed<TaskSpec>) -> Lease {
    Lease {
        network: spec.network,
        task: spec.task,
        spec: spec.digest(),
        node: NodeId(PublicKey([40; 32])),
        attempt: Attempt(1),
        issued_at: NOW,
        expires_at: UnixTime(NOW.0 + 600_000),
        coordinator: coordinator().public_key(),
    }
}

/// The life of one task: its statements, and its entries behind those that are there.
fn tell(ending: Ending, entries: &mut Vec<Vec<u8>>, trust: &ReleaserTrust) -> Story {
    let (task, attempt) = (Some(ending.task()), Some(Attempt(1)));
    let spec = Envelope::sign(spec_of(ending), &requester()).expect("a sound spec");
    log(entries, EntryKind::Submitted, task, None, spec.digest());
    let lease = Envelope::sign(lease_of(&spec), &coordinator()).expect("a sound lease");
    let mut receipt = Receipt {
        format: Receipt::FORMAT.into(),
        stamp: Receipt::SIMULATED.into(),
        spec: spec.envelope().clone(),
        lease: None,
        challenge: None,
        evidence: None,
        endorsements: None,
        attestation_result: None,
        release: None,
        grant: None,
        denial: None,
        cancel: None,
        report: None,
        agent_statement: None,
        closing_evidence: None,
        checkpoint: String::new(),
        entries: Vec::new(),
    };
    if ending == Ending::Cancelled {
        let statement = CancelStatement {
            network: NETWORK,
            task: spec.task,
            spec: spec.digest(),
            cancelled_at: NOW,
            requester: requester().public_key(),
        };
        let cancel = Envelope::sign(statement, &requester()).expect("a sound cancellation");
        log(entries, EntryKind::Cancelled, task, None, cancel.digest());
        receipt.cancel = Some(cancel.into_envelope());
        return Story { ending, spec, lease, records: Vec::new(), receipt };
    }
    receipt.lease = Some(lease.envelope().clone());
    log(entries, EntryKind::Leased, task, attempt, lease.digest());

    let (mut ledger, mut records) = (Ledger::default(), Vec::new());
    let context = ReleaseContext { spec: &spec, lease: &lease };
    let random = [0xC0 + ending as u8; 32];
    let (challenge, record) = ledger.challenge(context, &requester(), random, NOW).expect("a fresh attempt");
    records.extend(record);
    log(entries, EntryKind::Challenged, task, attempt, challenge.digest());

    let in_force = posture(PostureState::InForce);
    let debug = if ending == Ending::Denied { DebugMode::On } else { DebugMode::Off };
    let binding = task_binding(spec.digest(), &lease, challenge.challenge, &in_force);
    let evidence = attest(binding.clone(), &in_force, debug).expect("a binding of its shape");
    let evidence_digest = Digest::of(&evidence);
    log(entries, EntryKind::Attested, task, attempt, evidence_digest);
    receipt.challenge = Some(challenge.envelope().clone());
    receipt.evidence = Some(evidence.clone().into());

    let (decision, record) =
        ledger.decide(context, &evidence, None, trust, &requester(), NOW).expect("an open attempt");
    records.extend(record);
    let grant = match decision {
        Decision::Deny(denial) => {
            assert_eq!(ending, Ending::Denied, "honest evidence: {:?}", denial.reasons);
            log(entries, EntryKind::Denied, task, attempt, denial.digest());
            receipt.denial = Some(denial.into_envelope());
            None
        }
        Decision::Release(approved) => {
            let release = approved.release().clone();
            log(entries, EntryKind::Released, task, attempt, release.digest());
            receipt.attestation_result = Some(approved.attestation_result().to_vec().into());
            let so_far = Log::of(entries.clone()).expect("short entries");
            let logged = so_far.logged(so_far.size() - 1).expect("the last entry");
            let logged = approved
                .logged(&so_far.checkpoint(), &logged.entry.0, &logged.inclusion)
                .expect("the entry of this release");
            let secret = TaskSecret::from_bytes(TASK_SECRET);
            let randomness = Zeroizing::new([0x99; 64]);
            let (grant, record) =
                ledger.grant(context, &logged, &secret, &requester(), &randomness, NOW).expect("an approved attempt");
            records.extend(record);
            log(entries, EntryKind::Granted, task, attempt, grant.digest());
            receipt.release = Some(release.into_envelope());
            receipt.grant = Some(grant.envelope().clone());
            Some(grant.digest())
        }
    };
    let outcome = match ending {
        Ending::Completed => Outcome::Completed,
        Ending::Failed => Outcome::Failed {
            refusal: Refusal::new(Party::Requester, "engine.wasm.out-of-fuel", "out of fuel", "raise limits.fuel"),
        },
        _ => Outcome::Failed {
            refusal: Refusal::new(Party::Node, "release.denied", "the evidence was refused", "use another node"),
        },
    };
    let predicate = report_predicate(&spec, Some(&lease), Some(evidence_digest), grant, outcome, &run_details());
    let signer = key_of(&predicate.signer).expect("a key of this world");
    let report = Envelope::sign(Report::new(predicate), &signer).expect("a sound report");
    if grant.is_some() {
        let statement = agent_statement(&lease, report.digest());
        let statement = Envelope::sign(statement, &signing_key(seed::AGENT)).expect("a sound statement");
        receipt.agent_statement = Some(statement.into_envelope());
        let mut closing = binding;
        closing.purpose = Purpose::ClosingTask;
        closing.subject = Some(report.digest());
        receipt.closing_evidence = attest(closing, &in_force, debug).map(Into::into);
    }
    let annex = LogEntry::annex_of(
        receipt.agent_statement.as_ref().map(Envelope::digest),
        receipt.closing_evidence.as_ref().map(|evidence| Digest::of(&evidence.0)),
    );
    log_with(entries, EntryKind::Reported, task, attempt, report.digest(), annex);
    receipt.report = Some(report.into_envelope());
    Story { ending, spec, lease, records, receipt }
}

/// The checkpoint of the world's log, parsed and verified anew.
#[must_use]
pub fn checkpoint() -> &'static VerifiedCheckpoint {
    static CHECKPOINT: OnceLock<VerifiedCheckpoint> = OnceLock::new();
    CHECKPOINT.get_or_init(|| {
        let note = &world().stories[0].receipt.checkpoint;
        let signed = SignedCheckpoint::parse(note.as_bytes()).expect("its own note");
        signed.verify(&log_signer().key()).expect("its own signature")
    })
}

/// What the requester, as an enroller, says of the node's TPM.
pub fn enrolment() -> EnrolmentStatement {
    EnrolmentStatement {
        network: NETWORK,
        node: NodeId(PublicKey([40; 32])),
        ak_name: Base64Bytes(vec![0, 11, 7, 7]),
        ek_certificate: Digest([6; 32]),
        simulated_root: None,
        chip: Some(Digest([5; 32])),
        enrolled_at: NOW,
        enroller: requester().public_key(),
    }
}

/// Endorsements with a file of no use, that enrolment, and a facility's word that does not count.
pub fn endorsement_set() -> EndorsementSet {
    let facility = FacilityStatement {
        network: NETWORK,
        chip: Digest([5; 32]),
        not_before: UnixTime(1),
        not_after: UnixTime(2),
        facility: broker().public_key(),
    };
    let enrolment = Envelope::sign(enrolment(), &requester()).expect("its own statement");
    let facility = Envelope::sign(facility, &broker()).expect("its own statement");
    let files = [(EndorsementKind::NvidiaRevoked, vec![9; 32])];
    EndorsementSet::new(files, vec![enrolment.into_envelope()], vec![facility.into_envelope()]).expect("not empty")
}

/// The trust file with the requester and the broker as release keys, both of which have to sign.
pub fn releasing_trust() -> NetworkTrust {
    let keys = vec![requester_public(), broker().public_key()];
    world().trust.clone().with_release_keys(keys, 2).expect("two keys, two of them")
}

/// Reference values that both signed.
pub fn reference_file() -> ReferenceFile {
    let statement = ReferenceStatement {
        v: 1,
        network: NETWORK,
        role: Role::Agent,
        name: "agent".into(),
        version: 3,
        not_before: UnixTime(1),
        not_after: UnixTime(u64::MAX),
        values: reference_values(),
    };
    let mut file = ReferenceFile::new(&statement).expect("its own values");
    for key in [requester(), broker()] {
        file.sign(&key).expect("each signs once");
    }
    file
}
