//! A whole network in memory: a software TEE, a log, a requester and releaser, a node. Real signatures, real proofs; time and
//! randomness are fixed, so that every run is the same.

use std::collections::HashMap;
use std::convert::Infallible;

use starminer_attester::{Attester as _, SimulatedRoot, SoftwareTee, SoftwareTeeSettings};
use starminer_broker::{Approved, Decision, Ledger, LedgerRecord, Logged, ReleaseContext, ReleaserTrust};
use starminer_log::{
    Checkpoint, ConsistencyProof, Frontier, Hash, HashReader, KeyName, LogSigner, VerifiedCheckpoint,
    prove_consistency, prove_inclusion,
};
use starminer_receipt::*;
use starminer_vault::TaskSecret;
use starminer_verify::software_tee::{DebugMode, MemoryEncryption};
use starminer_verify::*;
use zeroize::Zeroizing;

pub const NOW: UnixTime = UnixTime(1_800_000_000_000);

pub fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&Zeroizing::new([seed; 32]))
}

/// The public log, with every hash in memory.
pub struct Log {
    pub signer: LogSigner,
    frontier: Frontier,
    hashes: HashMap<u64, Hash>,
    pub entries: Vec<LogEntry>,
}

struct Reader<'a>(&'a HashMap<u64, Hash>);

impl HashReader for Reader<'_> {
    type Error = Infallible;
    fn read(&self, indices: &[u64]) -> Result<Vec<Hash>, Infallible> {
        Ok(indices.iter().map(|index| self.0[index]).collect())
    }
}

impl Log {
    pub fn new() -> Self {
        let name = KeyName::parse("starminer/test").unwrap();
        let signer = LogSigner::from_seed(name, &[77; 32]);
        Self { signer, frontier: Frontier::empty(), hashes: HashMap::new(), entries: Vec::new() }
    }

    pub fn append(
        &mut self,
        kind: EntryKind,
        task: Option<TaskId>,
        attempt: Option<Attempt>,
        statement: Digest,
    ) -> u64 {
        self.append_at(kind, task, attempt, statement, UnixTime(NOW.0 + self.entries.len() as u64))
    }

    /// Appends an entry of a time that the caller answers for: entries must not go back in time.
    pub fn append_at(
        &mut self,
        kind: EntryKind,
        task: Option<TaskId>,
        attempt: Option<Attempt>,
        statement: Digest,
        at: UnixTime,
    ) -> u64 {
        let step = self.next_step(task);
        // In these stories a report or a cancellation is the end.
        let ends = matches!(kind, EntryKind::Reported | EntryKind::Cancelled);
        self.push(LogEntry { v: 1, kind, at, task, step, attempt, node: None, statement, annex: None, why: None, ends })
    }

    /// Appends the report that ends a task, with what came with it.
    pub fn append_report(
        &mut self,
        task: TaskId,
        attempt: Attempt,
        report: Digest,
        annex: Option<Digest>,
        at: UnixTime,
    ) -> u64 {
        let (task, attempt) = (Some(task), Some(attempt));
        let (kind, step) = (EntryKind::Reported, self.next_step(task));
        self.push(LogEntry {
            v: 1,
            kind,
            at,
            task,
            step,
            attempt,
            node: None,
            statement: report,
            annex,
            why: None,
            ends: true,
        })
    }

    fn next_step(&self, task: Option<TaskId>) -> Option<u32> {
        task.map(|_| self.entries.iter().filter(|entry| entry.task == task).count() as u32)
    }

    /// Appends an entry as it is.
    pub fn push(&mut self, entry: LogEntry) -> u64 {
        let batch = self.frontier.append(&[entry.encode()]).unwrap();
        self.hashes.extend(batch.stored());
        self.frontier = batch.into_frontier();
        self.entries.push(entry);
        self.entries.len() as u64 - 1
    }

    pub fn note(&self) -> String {
        let checkpoint =
            Checkpoint::new(self.signer.name().clone(), self.frontier.size(), self.frontier.root()).unwrap();
        checkpoint.sign(&self.signer).unwrap().as_str().to_string()
    }

    pub fn checkpoint(&self) -> VerifiedCheckpoint {
        let note = self.note();
        starminer_log::SignedCheckpoint::parse(note.as_bytes()).unwrap().verify(&self.signer.key()).unwrap()
    }

    pub fn logged(&self, index: u64) -> LoggedEntry {
        let inclusion = prove_inclusion(self.frontier.size(), index, &Reader(&self.hashes)).unwrap();
        LoggedEntry { entry: self.entries[usize::try_from(index).unwrap()].encode().into(), inclusion }
    }

    pub fn consistency_from(&self, size: u64) -> ConsistencyProof {
        if size > self.frontier.size() {
            return ConsistencyProof::empty();
        }
        prove_consistency(size, self.frontier.size(), &Reader(&self.hashes)).unwrap()
    }

    pub fn of_task(&self, task: TaskId) -> Vec<LoggedEntry> {
        let indices = 0..self.entries.len() as u64;
        indices
            .filter(|index| self.entries[usize::try_from(*index).unwrap()].task == Some(task))
            .map(|index| self.logged(index))
            .collect()
    }
}

/// Everybody and everything.
pub struct World {
    pub network: NetworkId,
    pub requester: SigningKey,
    pub coordinator: SigningKey,
    pub root: SimulatedRoot,
    pub measurement: Digest,
    pub tee: SoftwareTee,
    pub posture: Posture,
    pub log: Log,
    pub spec: Signed<TaskSpec>,
    pub lease: Signed<Lease>,
    pub ledger: Ledger,
    pub records: Vec<LedgerRecord>,
    pub task_key: KemPrivateKey,
    pub report_key: SigningKey,
    pub agent_key: SigningKey,
    /// What comes along with the evidence.
    pub endorsements: Option<Vec<u8>>,
    /// What the next report says that its attempt went on from.
    pub resumed: Option<CheckpointId>,
}

/// Who enrolls nodes, by the spec and by the trust file.
pub fn enroller() -> SigningKey {
    key(41)
}

pub const SECRET: [u8; 32] = [0xA5; 32];

pub fn posture(state: PostureState) -> Posture {
    let sandbox = SandboxMeasure::ALL.iter().map(|measure| PostureItem::new(*measure, state, "")).collect();
    Posture::new(sandbox, Vec::new()).unwrap()
}

pub fn tee_under(root: &SimulatedRoot, measurement: Digest, debug: bool, now: UnixTime) -> SoftwareTee {
    let seed = [21; 32];
    let request = SoftwareTee::request(&seed, starminer_verify::software_tee::ChipId([9; 32]));
    let certificate = root.certify(&request, UnixTime(now.0 - 1_000_000), UnixTime(now.0 + 1_000_000_000)).unwrap();
    let settings = SoftwareTeeSettings {
        measurement,
        boot: BootId([3; 16]),
        debug: if debug { DebugMode::On } else { DebugMode::Off },
        memory_encryption: MemoryEncryption::Claimed,
        tcb_version: 1,
    };
    SoftwareTee::new(&seed, certificate, settings).unwrap()
}

impl World {
    pub fn new() -> Self {
        Self::with_policy(|_| {})
    }

    pub fn with_policy(change: impl FnOnce(&mut PolicyFields)) -> Self {
        let network = NetworkId([1; 32]);
        let (requester, coordinator) = (key(10), key(11));
        let root = SimulatedRoot::generate(&[20; 32]);
        let measurement = Digest([0x4d; 32]);
        let mut fields = Policy::confidential().fields().clone();
        fields.accepted_simulated_roots = vec![root.id()];
        change(&mut fields);
        let object =
            |n: u8| ObjectRef { content_id: Digest([n; 32]), sealed_bytes: 100, commitment: Digest([n + 1; 32]) };
        let result_key = KemPrivateKey::from_seed(&Zeroizing::new([30; 32])).unwrap();
        let spec = TaskSpec {
            version: 1,
            network,
            task: TaskId([7; 16]),
            requester: requester.public_key(),
            created_at: NOW,
            expires_at: UnixTime(NOW.0 + 3_600_000),
            engine: EngineKind::Wasm,
            determinism: Determinism::Native,
            grants: WasmGrants::default(),
            limits: Limits::default(),
            sensitivity: Sensitivity::Confidential,
            sealed_manifest: vec![1; 200].into(),
            workload: object(50),
            inputs: vec![object(60), object(70)],
            policy: Policy::new(fields).unwrap(),
            reference_values: reference_values(measurement),
            enrollers: vec![enroller().public_key()],
            facilities: Vec::new(),
            releaser: requester.public_key(),
            result_key: result_key.public_key().to_vec().into(),
            max_attempts: 3,
        };
        let spec = Envelope::sign(spec, &requester).unwrap();
        let lease = lease_for(&spec, Attempt(1), &coordinator);
        let mut log = Log::new();
        log.append(EntryKind::Genesis, None, None, Digest([0; 32]));
        log.append(EntryKind::Submitted, Some(spec.task), None, spec.digest());
        log.append(EntryKind::Leased, Some(spec.task), Some(Attempt(1)), lease.digest());
        let tee = tee_under(&root, measurement, false, NOW);
        Self {
            network,
            requester,
            coordinator,
            tee,
            root,
            measurement,
            posture: posture(PostureState::InForce),
            log,
            spec,
            lease,
            ledger: Ledger::default(),
            records: Vec::new(),
            task_key: KemPrivateKey::from_seed(&Zeroizing::new([31; 32])).unwrap(),
            report_key: key(32),
            agent_key: key(33),
            endorsements: None,
            resumed: None,
        }
    }

    pub fn trust(&self) -> NetworkTrust {
        NetworkTrust::new(
            "test".into(),
            self.network,
            CoordinatorEntry { address: "127.0.0.1:1".into(), key: self.coordinator.public_key() },
            LogEntryKeys { key: self.log.signer.key().encode(), witnesses: Vec::new(), witness_quorum: 0 },
            vec![SimulatedRootEntry { name: "test root".into(), root: self.root.id() }],
            reference_values(self.measurement),
        )
        .and_then(|trust| trust.with_enrollers(vec![enroller().public_key()], Vec::new()))
        .unwrap()
    }

    pub fn releaser_trust(&self) -> ReleaserTrust {
        ReleaserTrust::from_network(&self.trust()).unwrap()
    }

    pub fn challenge(&mut self) -> Signed<ChallengeStatement> {
        let (spec, lease) = (self.spec.clone(), self.lease.clone());
        let context = ReleaseContext { spec: &spec, lease: &lease };
        let (challenge, record) = self.ledger.challenge(context, &self.requester, [0xC0; 32], NOW).unwrap();
        self.records.extend(record);
        self.log.append(EntryKind::Challenged, Some(spec.task), Some(lease.attempt), challenge.digest());
        challenge
    }

    pub fn binding(&self, challenge: &ChallengeStatement, purpose: Purpose) -> Binding {
        Binding {
            network: self.network,
            challenge: challenge.challenge,
            purpose,
            spec: Some(self.spec.digest()),
            node: self.lease.node,
            attempt: Some(self.lease.attempt),
            boot: BootId([3; 16]),
            task_key: TaskKey::from_bytes(Suite::XWingSha256Aes256Gcm, self.task_key.public_key()),
            report_key: Some(self.report_key.public_key()),
            agent_key: self.agent_key.public_key(),
            tls_key: PublicKey([34; 32]),
            ak_name: None,
            posture: self.posture.digest(),
            subject: None,
        }
    }

    pub fn attest(&self, binding: Binding) -> Vec<u8> {
        self.tee.attest(&[binding], &self.posture).unwrap().remove(0)
    }

    pub fn evidence(&mut self, challenge: &ChallengeStatement) -> Vec<u8> {
        let evidence = self.attest(self.binding(challenge, Purpose::Task));
        self.log.append(EntryKind::Attested, Some(self.spec.task), Some(self.lease.attempt), Digest::of(&evidence));
        evidence
    }

    pub fn decide(&mut self, evidence: &[u8]) -> Result<Decision, Refusal> {
        let (spec, lease, trust) = (self.spec.clone(), self.lease.clone(), self.releaser_trust());
        let context = ReleaseContext { spec: &spec, lease: &lease };
        let endorsements = self.endorsements.clone();
        let (decision, record) =
            self.ledger.decide(context, evidence, endorsements.as_deref(), &trust, &self.requester, NOW)?;
        self.records.extend(record);
        Ok(decision)
    }

    pub fn approve(&mut self, evidence: &[u8]) -> Approved {
        match self.decide(evidence).unwrap() {
            Decision::Release(approved) => *approved,
            Decision::Deny(denial) => panic!("denied: {:?}", denial.reasons),
        }
    }

    pub fn log_release(&mut self, approved: &Approved) -> u64 {
        let release = approved.release();
        self.log.append(EntryKind::Released, Some(release.task), Some(release.attempt), release.digest())
    }

    pub fn logged(&self, approved: Approved, index: u64) -> Result<Logged, Refusal> {
        let entry = self.log.logged(index);
        approved.logged(&self.log.checkpoint(), &entry.entry.0, &entry.inclusion)
    }

    pub fn grant(&mut self, logged: &Logged) -> Result<Signed<Grant>, Refusal> {
        let (spec, lease) = (self.spec.clone(), self.lease.clone());
        let context = ReleaseContext { spec: &spec, lease: &lease };
        let secret = TaskSecret::from_bytes(SECRET);
        let (grant, record) =
            self.ledger.grant(context, logged, &secret, &self.requester, &Zeroizing::new([0x99; 64]), NOW)?;
        self.records.extend(record);
        Ok(grant)
    }

    /// A task's whole life, to its receipt.
    pub fn receipt(&mut self, outcome: Outcome) -> Receipt {
        let challenge = self.challenge();
        let evidence = self.evidence(&challenge);
        let approved = self.approve(&evidence);
        let attestation_result = approved.attestation_result().to_vec();
        let release = approved.release().clone();
        let index = self.log_release(&approved);
        let logged = self.logged(approved, index).unwrap();
        let grant = self.grant(&logged).unwrap();
        self.log.append(EntryKind::Granted, Some(self.spec.task), Some(self.lease.attempt), grant.digest());
        let report = self.report(&evidence, &grant, outcome, ReportAuthor::Task, &self.report_key);
        let agent_statement = self.agent_statement(&report, &self.agent_key);
        let mut closing = self.binding(&challenge, Purpose::ClosingTask);
        closing.subject = Some(report.digest());
        let closing_evidence = self.attest(closing);
        let annex = LogEntry::annex_of(Some(agent_statement.digest()), Some(Digest::of(&closing_evidence)));
        let at = UnixTime(NOW.0 + self.log.entries.len() as u64);
        self.log.append_report(self.spec.task, self.lease.attempt, report.digest(), annex, at);
        Receipt {
            format: Receipt::FORMAT.into(),
            stamp: Receipt::SIMULATED.into(),
            spec: self.spec.envelope().clone(),
            lease: Some(self.lease.envelope().clone()),
            challenge: Some(challenge.envelope().clone()),
            evidence: Some(evidence.into()),
            endorsements: self.endorsements.clone().map(Into::into),
            attestation_result: Some(attestation_result.into()),
            release: Some(release.into_envelope()),
            grant: Some(grant.into_envelope()),
            denial: None,
            cancel: None,
            report: Some(report.into_envelope()),
            agent_statement: Some(agent_statement.into_envelope()),
            closing_evidence: Some(closing_evidence.into()),
            checkpoint: self.log.note(),
            entries: self.log.of_task(self.spec.task),
        }
    }

    pub fn report(
        &self,
        evidence: &[u8],
        grant: &Signed<Grant>,
        outcome: Outcome,
        author: ReportAuthor,
        signer: &SigningKey,
    ) -> Signed<Report> {
        let predicate = ReportPredicate {
            author,
            signer: signer.public_key(),
            network: self.network,
            task: self.spec.task,
            spec: self.spec.digest(),
            node: Some(self.lease.node),
            attempt: Some(self.lease.attempt),
            lease: Some(self.lease.digest()),
            evidence: Some(Digest::of(evidence)),
            grant: Some(grant.digest()),
            engine: None,
            workload: Some(self.spec.workload.commitment),
            inputs: self.spec.inputs.iter().map(|input| input.commitment).collect(),
            outcome,
            output_secret: None,
            outputs: vec![ObjectRef { content_id: Digest([80; 32]), sealed_bytes: 9, commitment: Digest([81; 32]) }],
            sealed_details: None,
            sandbox: vec!["seccomp".into()],
            resumed: self.resumed,
        };
        Envelope::sign(Report::new(predicate), signer).unwrap()
    }

    pub fn agent_statement(&self, report: &Signed<Report>, signer: &SigningKey) -> Signed<AgentStatement> {
        let resources = SealedSecret::seal(
            &self.spec.result_key.0,
            DETAILS_INFO,
            report.digest().as_bytes(),
            b"{}",
            &Zeroizing::new([1; 64]),
        )
        .unwrap();
        let statement = AgentStatement {
            network: self.network,
            task: self.spec.task,
            attempt: self.lease.attempt,
            node: self.lease.node,
            report: report.digest(),
            exit: ExitStatus::Exited { code: 0 },
            started_at: NOW,
            ended_at: UnixTime(NOW.0 + 5),
            resources,
            agent: signer.public_key(),
        };
        Envelope::sign(statement, signer).unwrap()
    }
}

pub fn reference_values(measurement: Digest) -> ReferenceValues {
    ReferenceValues::new(vec![ReferenceValue {
        kind: EvidenceKind::SoftwareTee,
        measurement: Measurement::from_bytes(measurement.as_bytes()).unwrap(),
        name: "agent".into(),
    }])
    .unwrap()
}

pub fn lease_for(spec: &Signed<TaskSpec>, attempt: Attempt, coordinator: &SigningKey) -> Signed<Lease> {
    let lease = Lease {
        network: spec.network,
        task: spec.task,
        spec: spec.digest(),
        node: NodeId(PublicKey([40; 32])),
        attempt,
        issued_at: NOW,
        expires_at: UnixTime(NOW.0 + 600_000),
        coordinator: coordinator.public_key(),
    };
    Envelope::sign(lease, coordinator).unwrap()
}
