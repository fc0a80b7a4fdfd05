//! A network in a directory with a coordinator that runs in a runtime of its own, so that it can be killed, and parties that sign real
//! statements. What is fabricated is the content of sealed things: the coordinator never opens one.
#![allow(dead_code)] // each test file uses its part
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::Method;
use starminer_attester::{Attester as _, SimulatedRoot, SoftwareTee, SoftwareTeeSettings};
use starminer_client::{ClientError, CoordinatorClient, RequestBody, UploadSource};
use starminer_coordinator::{Config, Coordinator, Environment, Options};
use starminer_log::{KeyName, LogSigner, Replay, SignedCheckpoint, VerifiedCheckpoint, bundles_between};
use starminer_receipt::{
    AgentStatement, Base64Bytes, CancelStatement, ChallengeStatement, CoordinatorEntry, DenyStatement, Determinism,
    EngineKind, Envelope, ExitStatus, Grant, Lease, Limits, LogEntry, LogEntryKeys, NetworkTrust, ObjectRef, Outcome,
    ReleaseStatement, Report, ReportAuthor, ReportPredicate, SealedSecret, Sensitivity, Signed, Signer as _,
    SigningKey, SimulatedRootEntry, TaskSpec, WasmGrants,
};
use starminer_tls::IdentityKey;
use starminer_verify::software_tee::{ChipId, DebugMode, MemoryEncryption};
use starminer_verify::{
    Attempt, Binding, BootId, Challenge, Digest, HostMeasure, NetworkId, NodeId, Policy, PolicyFields, Posture,
    PostureItem, PostureState, PublicKey, Purpose, ReferenceValue, ReferenceValues, Refusal, Suite, TaskId, TaskKey,
    UnixTime,
};
use starminer_wire::{
    AdmissionRequest, AttemptView, ChallengeRequest, EvidenceRequest, FeedRole, GrantRequest, NodeFeedRequest,
    ReleaseRequest, ReleaseResponse, ReportRequest, SubmitRequest, TaskView,
};
use zeroize::Zeroizing;

pub const NETWORK: NetworkId = NetworkId([0x4e; 32]);
/// Name of the coordinator's threads, by which a benchmark finds their CPU time.
pub const THREAD_NAME: &str = "coordinator";
const ORIGIN: &str = "log.test/starminer";
const MEASUREMENT: Digest = Digest([0x6d; 32]);

/// One party: the same key for TLS and for statements.
pub struct Party {
    pub identity: Arc<IdentityKey>,
    pub signer: SigningKey,
}

impl Party {
    pub fn new(seed: u8) -> Self {
        let seed = [seed; 32];
        Self {
            identity: Arc::new(IdentityKey::from_seed(&seed).unwrap()),
            signer: SigningKey::from_seed(&Zeroizing::new(seed)),
        }
    }

    pub fn key(&self) -> PublicKey {
        self.signer.public_key()
    }
}

pub fn now() -> UnixTime {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    UnixTime(u64::try_from(since.as_millis()).unwrap())
}

pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    bytes
}

/// The network: its directory outlives the coordinators that run on it.
pub struct World {
    pub dir: tempfile::TempDir,
    pub trust: NetworkTrust,
    root: SimulatedRoot,
    pub coordinator: Party,
    pub config: Config,
}

impl World {
    pub fn new(config: Config) -> Self {
        let root = SimulatedRoot::generate(&[0x11; 32]);
        let coordinator = Party::new(0xc0);
        let key = Self::log_signer().key().to_string();
        let trust = NetworkTrust::new(
            "test".into(),
            NETWORK,
            CoordinatorEntry { address: "127.0.0.1:0".into(), key: coordinator.key() },
            LogEntryKeys { key, witnesses: Vec::new(), witness_quorum: 0 },
            vec![SimulatedRootEntry { name: "test".into(), root: root.id() }],
            reference_values(),
        )
        .unwrap();
        Self { dir: tempfile::tempdir().unwrap(), trust, root, coordinator, config }
    }

    pub fn log_signer() -> LogSigner {
        LogSigner::from_seed(KeyName::parse(ORIGIN).unwrap(), &[0x22; 32])
    }

    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn marker(&self) -> PathBuf {
        self.dir.path().join("log.begun")
    }

    pub fn start(&self) -> Running {
        self.start_with(Environment::default())
    }

    pub fn start_with(&self, environment: Environment) -> Running {
        self.try_start(environment).unwrap()
    }

    pub fn try_start(&self, environment: Environment) -> Result<Running, starminer_coordinator::CoordinatorError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name(THREAD_NAME)
            .enable_all()
            .build()
            .unwrap();
        let options = Options {
            config: self.config.clone(),
            directory: self.data(),
            marker: self.marker(),
            trust: self.trust.clone(),
            identity: self.coordinator.identity.clone(),
            log: Self::log_signer(),
            rotation: starminer_tls::Rotation::default(),
            environment,
        };
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let opened = std::thread::scope(|scope| {
            let opening = scope.spawn(|| {
                runtime.block_on(async {
                    let coordinator = Coordinator::open_with(options).await?;
                    Ok::<_, starminer_coordinator::CoordinatorError>((
                        coordinator,
                        tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap(),
                    ))
                })
            });
            opening.join().unwrap()
        });
        let (coordinator, listener) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                runtime.shutdown_background();
                return Err(error);
            }
        };
        let address = listener.local_addr().unwrap();
        let serving = runtime.spawn(async move {
            coordinator
                .serve(listener, async {
                    let _ = stopped.await;
                })
                .await
                .map_err(|error| error.to_string())
        });
        let (data, server) = (self.data(), self.coordinator.key());
        Ok(Running { runtime: Some(runtime), address, stop: Some(stop), serving, server, data })
    }

    pub fn node(&self, seed: u8) -> Node {
        let boot = BootId(random());
        let settings = SoftwareTeeSettings {
            boot,
            measurement: MEASUREMENT,
            debug: DebugMode::Off,
            memory_encryption: MemoryEncryption::Claimed,
            tcb_version: 1,
        };
        let request = SoftwareTee::request(&[seed; 32], ChipId([seed; 32]));
        let certificate = self.root.certify(&request, UnixTime(0), now().saturating_add_millis(1 << 40)).unwrap();
        Node { party: Party::new(seed), tee: SoftwareTee::new(&[seed; 32], certificate, settings).unwrap(), boot }
    }

    /// A spec of `requester`, which releases itself.
    pub fn spec(&self, requester: &Party, blob: &ObjectRef) -> TaskSpec {
        let fields = PolicyFields {
            accepted_simulated_roots: vec![self.root.id()],
            minimum_posture: Default::default(),
            hardware: None,
            ..Policy::confidential().fields().clone()
        };
        TaskSpec {
            version: 1,
            network: NETWORK,
            task: TaskId(random()),
            requester: requester.key(),
            created_at: now(),
            expires_at: now().saturating_add_millis(3_600_000),
            engine: EngineKind::Wasm,
            determinism: Determinism::Native,
            grants: WasmGrants::default(),
            limits: Limits { wall_limit_ms: 60_000, ..Limits::default() },
            sensitivity: Sensitivity::Sensitive,
            sealed_manifest: Base64Bytes(vec![7; 200]),
            workload: *blob,
            inputs: Vec::new(),
            policy: Policy::new(fields).unwrap(),
            reference_values: reference_values(),
            enrollers: Vec::new(),
            facilities: Vec::new(),
            releaser: requester.key(),
            result_key: Base64Bytes(vec![9; 1216]),
            max_attempts: 3,
        }
    }
}

fn reference_values() -> ReferenceValues {
    ReferenceValues::new(vec![ReferenceValue {
        kind: starminer_verify::EvidenceKind::SoftwareTee,
        measurement: MEASUREMENT.into(),
        name: "agent".into(),
    }])
    .unwrap()
}

/// A coordinator that runs.
pub struct Running {
    runtime: Option<tokio::runtime::Runtime>,
    pub address: SocketAddr,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    serving: tokio::task::JoinHandle<Result<(), String>>,
    server: PublicKey,
    data: PathBuf,
}

/// How long threads of a coordinator that was ended may take to let go of its files.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(60);

impl Running {
    pub fn client(&self, party: &Party) -> CoordinatorClient {
        CoordinatorClient::connect_as(&self.address.to_string(), self.server.0, &party.identity).unwrap()
    }

    /// Stops it as an operator would.
    pub async fn stop(mut self) -> Result<(), String> {
        let _ = self.stop.take().unwrap().send(());
        let ended = (&mut self.serving).await.unwrap();
        self.runtime.take().unwrap().shutdown_background();
        ended
    }

    /// Ends it in the middle of whatever it does. A killed process is gone as a whole before anything else opens its files; here
    /// the database's own threads may still be in the middle of a commit, so this waits until they have let go.
    pub fn kill(mut self) {
        self.runtime.take().unwrap().shutdown_background();
        let until = Instant::now() + RELEASE_TIMEOUT;
        while self.holds_files() {
            assert!(Instant::now() < until, "a thread keeps files of {} open", self.data.display());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Whether this process still has files of its data directory open.
    fn holds_files(&self) -> bool {
        let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        open.filter_map(|fd| std::fs::read_link(fd.path()).ok()).any(|path| path.starts_with(&self.data))
    }

    /// Waits until it ends by itself.
    pub async fn ended(mut self) -> Result<(), String> {
        let ended = (&mut self.serving).await.unwrap();
        self.runtime.take().unwrap().shutdown_background();
        ended
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

pub struct Node {
    pub party: Party,
    tee: SoftwareTee,
    pub boot: BootId,
}

impl Node {
    pub fn id(&self) -> NodeId {
        NodeId(self.party.key())
    }

    fn binding(&self, purpose: Purpose, challenge: Challenge, posture: &Posture) -> Binding {
        Binding {
            network: NETWORK,
            challenge,
            purpose,
            spec: None,
            node: self.id(),
            attempt: None,
            boot: self.boot,
            task_key: None,
            report_key: None,
            agent_key: self.party.key(),
            tls_key: self.party.key(),
            ak_name: None,
            posture: posture.digest(),
            subject: None,
        }
    }

    pub async fn admit(&self, client: &CoordinatorClient) {
        let challenge = client.admission_challenge().await.unwrap().challenge;
        let evidence = self.admission_evidence(challenge);
        let response = client
            .admit(&AdmissionRequest { evidence: Base64Bytes(evidence), enrolments: Vec::new(), activation: None })
            .await
            .unwrap();
        assert_eq!((response.tier.as_str(), response.provenance.as_str()), ("confidential", "simulated"));
    }

    pub fn admission_evidence(&self, challenge: Challenge) -> Vec<u8> {
        self.admission_evidence_of(challenge, &[])
    }

    /// Evidence that states these measures of the host.
    pub fn admission_evidence_of(&self, challenge: Challenge, host: &[(HostMeasure, PostureState)]) -> Vec<u8> {
        let host = host.iter().map(|(name, state)| PostureItem::new(*name, *state, "")).collect();
        let posture = Posture::new(Vec::new(), host).unwrap();
        let binding = self.binding(Purpose::Admission, challenge, &posture);
        self.tee.attest(&[binding], &posture).unwrap().remove(0)
    }

    pub fn evidence(&self, spec: Digest, attempt: Attempt, challenge: Challenge) -> Vec<u8> {
        let posture = Posture::new(Vec::new(), Vec::new()).unwrap();
        let binding = Binding {
            spec: Some(spec),
            attempt: Some(attempt),
            task_key: TaskKey::from_bytes(Suite::XWingSha256Aes256Gcm, &[5; 1216]),
            report_key: Some(self.party.key()),
            ..self.binding(Purpose::Task, challenge, &posture)
        };
        self.tee.attest(&[binding], &posture).unwrap().remove(0)
    }

    /// One poll that offers `free_places`, from the beginning.
    pub async fn poll(&self, client: &CoordinatorClient, free_places: u32, wait_ms: u64) -> Vec<AttemptView> {
        self.poll_after(client, (0, 0), free_places, wait_ms).await.unwrap().attempts
    }

    pub async fn poll_after(
        &self,
        client: &CoordinatorClient,
        (epoch, after): (u64, u64),
        free_places: u32,
        wait_ms: u64,
    ) -> Result<starminer_wire::FeedResponse, ClientError> {
        client
            .node_feed(&NodeFeedRequest {
                epoch,
                after,
                wait_ms,
                free_places,
                boot: self.boot,
                holds: Vec::new(),
                unclean: false,
            })
            .await
    }
}

/// Uploads random bytes and names them.
pub async fn upload(client: &CoordinatorClient, length: usize) -> ObjectRef {
    let mut bytes = vec![0; length];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    let id = Digest(*blake3::hash(&bytes).as_bytes());
    client.upload(&id, length as u64, UploadSource::Bytes(bytes.into()), |_| {}).await.unwrap();
    ObjectRef { content_id: id, sealed_bytes: length as u64, commitment: Digest([3; 32]) }
}

pub fn sign<T: starminer_receipt::Statement>(statement: T, party: &Party) -> Signed<T> {
    Envelope::sign(statement, &party.signer).unwrap()
}

pub async fn submit(client: &CoordinatorClient, spec: TaskSpec, requester: &Party) -> (Signed<TaskSpec>, TaskView) {
    let signed = sign(spec, requester);
    let view = client
        .submit(&SubmitRequest { spec: signed.envelope().clone(), deposit: None, objects: Vec::new() })
        .await
        .unwrap();
    (signed, view)
}

/// One attempt as its parties know it; each step makes and sends the next statement.
pub struct Life<'w> {
    pub spec: Signed<TaskSpec>,
    pub lease: Signed<Lease>,
    pub releaser: &'w Party,
    pub node: &'w Node,
    pub challenge: Option<Signed<ChallengeStatement>>,
    pub evidence: Vec<u8>,
    pub release: Option<Signed<ReleaseStatement>>,
    pub release_index: u64,
    pub grant: Option<Signed<Grant>>,
    pub result: Vec<u8>,
}

impl<'w> Life<'w> {
    pub fn begin(spec: &Signed<TaskSpec>, view: &AttemptView, releaser: &'w Party, node: &'w Node) -> Self {
        assert_eq!(view.spec.digest(), spec.digest());
        Self {
            spec: spec.clone(),
            lease: view.lease.clone().open().unwrap(),
            releaser,
            node,
            challenge: None,
            evidence: Vec::new(),
            release: None,
            release_index: 0,
            grant: None,
            result: br#"{"an":"attestation result"}"#.to_vec(),
        }
    }

    pub fn task(&self) -> TaskId {
        self.spec.task
    }

    pub fn attempt(&self) -> Attempt {
        self.lease.attempt
    }

    pub fn make_challenge(&mut self) -> Signed<ChallengeStatement> {
        let statement = ChallengeStatement {
            network: NETWORK,
            task: self.task(),
            attempt: self.attempt(),
            lease: self.lease.digest(),
            challenge: Challenge(random()),
            issued_at: now(),
            expires_at: now().saturating_add_millis(60_000),
            releaser: self.releaser.key(),
        };
        self.challenge.insert(sign(statement, self.releaser)).clone()
    }

    pub async fn challenge(&mut self, client: &CoordinatorClient) -> Result<(), ClientError> {
        let challenge = match &self.challenge {
            Some(challenge) => challenge.clone(),
            None => self.make_challenge(),
        };
        let request = ChallengeRequest { challenge: challenge.into_envelope() };
        client.challenge(&self.task(), self.attempt(), &request).await.map(|_| ())
    }

    pub async fn attest(&mut self, client: &CoordinatorClient) -> Result<(), ClientError> {
        if self.evidence.is_empty() {
            let challenge = self.challenge.as_ref().unwrap().challenge;
            self.evidence = self.node.evidence(self.spec.digest(), self.attempt(), challenge);
        }
        let request = EvidenceRequest { evidence: Base64Bytes(self.evidence.clone()), enrolments: Vec::new() };
        client.evidence(&self.task(), self.attempt(), &request).await.map(|_| ())
    }

    pub fn make_release(&mut self) -> Signed<ReleaseStatement> {
        let statement = ReleaseStatement {
            network: NETWORK,
            task: self.task(),
            attempt: self.attempt(),
            node: self.node.id(),
            spec: self.spec.digest(),
            lease: self.lease.digest(),
            challenge: self.challenge.as_ref().unwrap().challenge,
            challenge_issued_at: self.challenge.as_ref().unwrap().issued_at,
            evidence: Digest::of(&self.evidence),
            policy: self.spec.policy.digest(),
            attestation_result: Digest::of(&self.result),
            task_key: Digest([5; 32]),
            decided_at: now(),
            releaser: self.releaser.key(),
        };
        self.release.insert(sign(statement, self.releaser)).clone()
    }

    pub async fn release(
        &mut self,
        client: &CoordinatorClient,
        remembered_size: u64,
    ) -> Result<ReleaseResponse, ClientError> {
        let release = match &self.release {
            Some(release) => release.clone(),
            None => self.make_release(),
        };
        let request = ReleaseRequest { release: release.into_envelope(), remembered_size };
        let response = client.release(&self.task(), self.attempt(), &request).await?;
        self.release_index = response.proof.inclusion.as_ref().unwrap().index();
        Ok(response)
    }

    pub fn make_grant(&mut self) -> Signed<Grant> {
        let release = self.release.as_ref().unwrap();
        let statement = Grant {
            network: NETWORK,
            task: self.task(),
            attempt: self.attempt(),
            spec: self.spec.digest(),
            lease: self.lease.digest(),
            evidence: release.evidence,
            policy: release.policy,
            release: release.digest(),
            release_index: self.release_index,
            secret: sealed_secret(),
            resume: None,
            issued_at: now(),
            releaser: self.releaser.key(),
        };
        self.grant.insert(sign(statement, self.releaser)).clone()
    }

    pub async fn grant(&mut self, client: &CoordinatorClient) -> Result<(), ClientError> {
        let grant = match &self.grant {
            Some(grant) => grant.clone(),
            None => self.make_grant(),
        };
        let request =
            GrantRequest { grant: grant.into_envelope(), attestation_result: Base64Bytes(self.result.clone()) };
        client.grant(&self.task(), self.attempt(), &request).await.map(|_| ())
    }

    pub fn predicate(&self, author: ReportAuthor, outcome: Outcome) -> ReportPredicate {
        ReportPredicate {
            author,
            signer: self.node.party.key(),
            network: NETWORK,
            task: self.task(),
            spec: self.spec.digest(),
            node: Some(self.node.id()),
            attempt: Some(self.attempt()),
            lease: Some(self.lease.digest()),
            evidence: (!self.evidence.is_empty()).then(|| Digest::of(&self.evidence)),
            grant: self.grant.as_ref().map(Signed::digest),
            engine: None,
            workload: None,
            inputs: Vec::new(),
            outcome,
            output_secret: None,
            outputs: Vec::new(),
            sealed_details: None,
            sandbox: Vec::new(),
            resumed: None,
        }
    }

    pub fn report_request(&self, predicate: ReportPredicate) -> ReportRequest {
        let by_task = predicate.author == ReportAuthor::Task;
        let report = sign(Report::new(predicate), &self.node.party);
        let statement = AgentStatement {
            network: NETWORK,
            task: self.task(),
            attempt: self.attempt(),
            node: self.node.id(),
            report: report.digest(),
            exit: ExitStatus::Exited { code: 0 },
            started_at: now(),
            ended_at: now(),
            resources: sealed_secret(),
            agent: self.node.party.key(),
        };
        ReportRequest {
            report: report.into_envelope(),
            agent_statement: by_task.then(|| sign(statement, &self.node.party).into_envelope()),
            closing_evidence: by_task.then(|| Base64Bytes(self.evidence.clone())),
        }
    }

    pub async fn report(
        &self,
        client: &CoordinatorClient,
        request: &ReportRequest,
    ) -> Result<starminer_wire::Accepted, ClientError> {
        client.report(&self.task(), self.attempt(), request).await
    }

    pub async fn complete(&self, client: &CoordinatorClient) -> Result<starminer_wire::Accepted, ClientError> {
        self.report(client, &self.report_request(self.predicate(ReportAuthor::Task, Outcome::Completed))).await
    }

    /// Every step but the report.
    pub async fn until_granted(&mut self, releaser: &CoordinatorClient, node: &CoordinatorClient) {
        self.challenge(releaser).await.unwrap();
        self.attest(node).await.unwrap();
        self.release(releaser, 0).await.unwrap();
        self.grant(releaser).await.unwrap();
    }

    pub fn denial(&self, retry: bool, code: &'static str) -> starminer_wire::DenyRequest {
        let denial = DenyStatement {
            network: NETWORK,
            task: self.task(),
            attempt: self.attempt(),
            evidence: None,
            reasons: vec![Refusal::new(starminer_verify::Party::Broker, code, "test", "test")],
            retry,
            decided_at: now(),
            releaser: self.releaser.key(),
        };
        starminer_wire::DenyRequest { denial: sign(denial, self.releaser).into_envelope() }
    }
}

pub fn sealed_secret() -> SealedSecret {
    SealedSecret { encapsulated_key: Base64Bytes(vec![1; 1120]), ciphertext: Base64Bytes(vec![2; 48]) }
}

pub fn cancel(spec: &Signed<TaskSpec>, requester: &Party) -> starminer_wire::CancelRequest {
    let statement = CancelStatement {
        network: NETWORK,
        task: spec.task,
        spec: spec.digest(),
        cancelled_at: now(),
        requester: requester.key(),
    };
    starminer_wire::CancelRequest { cancel: sign(statement, requester).into_envelope() }
}

/// The code of a refusal.
#[track_caller]
pub fn code<T: std::fmt::Debug>(result: Result<T, ClientError>) -> String {
    match result {
        Err(ClientError::Refused { refusal, .. }) => refusal.check().to_owned(),
        other => panic!("not refused: {other:?}"),
    }
}

pub async fn releaser_feed(client: &CoordinatorClient, wait_ms: u64) -> Vec<AttemptView> {
    client.feed(FeedRole::Releaser, 0, 0, wait_ms).await.unwrap().attempts
}

/// What lies below the log's address.
pub async fn fetch(client: &CoordinatorClient, path: &str) -> Vec<u8> {
    let path = format!("/v1/log/{path}");
    let response =
        client.transport().request(Method::GET, &path, &[], RequestBody::Empty, Duration::from_secs(5)).await.unwrap();
    assert_eq!(response.status().as_u16(), 200, "{path}");
    client.transport().read_limited(response, 32 << 20, Duration::from_secs(5)).await.unwrap().to_vec()
}

/// The latest checkpoint, verified.
pub async fn checkpoint(client: &CoordinatorClient, world: &World) -> VerifiedCheckpoint {
    SignedCheckpoint::parse(&fetch(client, "checkpoint").await).unwrap().verify(world.trust.log_key()).unwrap()
}

/// Reads the whole log and returns its entries.
pub async fn audit(client: &CoordinatorClient, world: &World) -> Vec<LogEntry> {
    let signed = checkpoint(client, world).await;
    let mut replay = Replay::start();
    let mut entries = Vec::new();
    for bundle in bundles_between(0, signed.size()).unwrap() {
        let content = fetch(client, &bundle.path()).await;
        let parsed = bundle.parse(&content).unwrap();
        let new = replay.push(&parsed).unwrap();
        entries.extend(parsed.entries()[new].iter().map(|entry| LogEntry::parse(entry).unwrap()));
    }
    assert_eq!(replay.verify(&signed).unwrap().size(), entries.len() as u64);
    entries
}
