//! A coordinator in memory: leases, blobs and the relaying of statements, with the misfortunes that a test orders.
//!
//! It and the releaser are one here; there is no log. A node reaches it directly, or over a Unix socket where the node has
//! to be a process of its own.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use starminer_agent::NodeLimits;
use starminer_agent::testing::{Parts, Statements, Upstream};
use starminer_attester::HostTree;
use starminer_client::{ClientError, UploadSource};
use starminer_receipt::{
    AgentStatement, Base64Bytes, ChallengeStatement, DETAILS_INFO, Envelope, Lease, Outcome, Report, Resources, Signed,
    Signer,
};
use starminer_sandbox::Program;
use starminer_verify::{
    Attempt, Context, Digest, Endorsements, Enrolments, Evidence, Expect, Expected, ExpectedPurpose, HostMeasure,
    Party, Posture, PostureState, PublicKey, Refusal, TaskId, TrustAnchors, UnixTime, Verified, verify,
};
use starminer_wire::{
    Accepted, AdmissionChallenge, AdmissionRequest, AdmissionResponse, AttemptView, CheckpointRequest,
    EnrolmentChallenge, EnrolmentRequest, EvidenceRequest, FeedResponse, NodeFeedRequest, ReportRequest, TaskState,
};

use super::enroller::{Enroller, UNKNOWN_ENROLMENT};
use super::{Job, Keys, NOW, OpenedResult, SealedJob, World, open_result};

const WAIT: Duration = Duration::from_secs(60);

/// What goes wrong, and how often.
#[derive(Debug, Default)]
pub struct Misfortune {
    /// Calls of this kind that are answered with 503 first.
    pub evidence_unavailable: u32,
    pub report_unavailable: u32,
    /// Reports are refused for good.
    pub report_conflict: bool,
    /// Uploads are refused for good.
    pub upload_refused: bool,
    /// What is handed out for any blob.
    pub blob_instead: Option<Vec<u8>>,
}

#[derive(Default)]
struct State {
    epoch: u64,
    version: u64,
    entries: Vec<Entry>,
    blobs: HashMap<Digest, Vec<u8>>,
    uploads: HashMap<Digest, Vec<u8>>,
    misfortune: Misfortune,
    evidence_calls: u32,
    reports_refused: u32,
    admissions: u32,
    /// What the newest evidence for an admission states.
    posture: Option<Posture>,
    /// Places in the newest poll.
    offer: u32,
    /// Number of the newest poll: it takes the offers of those before it back.
    poll: u64,
}

struct Entry {
    job: Arc<SealedJob>,
    lease: Signed<Lease>,
    version: u64,
    leased: bool,
    state: TaskState,
    ended: bool,
    challenge: Option<Signed<ChallengeStatement>>,
    evidence: Option<Vec<u8>>,
    /// What came along with it.
    enrolments: Vec<Envelope>,
    grant: Option<Envelope>,
    /// What was said to be durable.
    checkpoints: Vec<Envelope>,
    report: Option<ReportRequest>,
    grants: Grants,
}

/// When the releaser grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grants {
    /// As soon as the evidence is there.
    AtOnce,
    /// When the test says so.
    ByHand,
}

pub struct Coordinator {
    pub world: World,
    /// Takes TPMs; then the node's boot is its own, and times are those of the TPM's certificates.
    pub enroller: Option<Enroller>,
    state: Mutex<State>,
    changed: Condvar,
}

/// One call of a node.
#[derive(Serialize, Deserialize)]
enum Call {
    Feed(NodeFeedRequest),
    Evidence(TaskId, Attempt, EvidenceRequest),
    Checkpoint(TaskId, Attempt, CheckpointRequest),
    Report(TaskId, Attempt, ReportRequest),
    Challenge,
    Enrol(EnrolmentRequest),
    Admit(AdmissionRequest),
    Upload(Digest, Base64Bytes),
    Download(Digest),
}

impl Coordinator {
    pub fn new() -> Arc<Self> {
        Self::with(World::new())
    }

    pub fn with(world: World) -> Arc<Self> {
        Arc::new(Self::over(world, None))
    }

    /// Takes TPMs under the root that the enroller knows.
    pub fn enrolling(enroller: Enroller) -> Arc<Self> {
        Arc::new(Self::over(World::new(), Some(enroller)))
    }

    fn over(world: World, enroller: Option<Enroller>) -> Self {
        let state = State { epoch: 1, ..State::default() };
        Self { world, enroller, state: Mutex::new(state), changed: Condvar::new() }
    }

    pub fn admissions(&self) -> u32 {
        self.lock().admissions
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn misfortune(&self, misfortune: Misfortune) {
        self.lock().misfortune = misfortune;
    }

    pub fn evidence_calls(&self) -> u32 {
        self.lock().evidence_calls
    }

    /// Starts anew, as far as a node can tell.
    pub fn restart(&self) {
        let mut state = self.lock();
        state.epoch += 1;
        state.version = 0;
        for entry in &mut state.entries {
            entry.version = 1;
        }
        state.version = 1;
        self.changed.notify_all();
    }

    pub fn submit(&self, job: &Job) -> (TaskId, Attempt) {
        self.lease(Arc::new(self.world.seal(job)), 1, Grants::AtOnce)
    }

    /// Has the job leased as that attempt to whatever node asks.
    pub fn lease(&self, job: Arc<SealedJob>, attempt: u32, grants: Grants) -> (TaskId, Attempt) {
        let lease = self.world.lease(&job.spec, attempt);
        let challenge = self.world.challenge(&lease);
        let mut state = self.lock();
        for blob in &job.blobs {
            state.blobs.insert(Digest(*blake3::hash(blob).as_bytes()), blob.clone());
        }
        let name = (lease.task, lease.attempt);
        state.entries.push(Entry {
            job,
            lease,
            version: 0,
            leased: false,
            state: TaskState::Challenged,
            ended: false,
            challenge: Some(challenge),
            evidence: None,
            enrolments: Vec::new(),
            grant: None,
            checkpoints: Vec::new(),
            report: None,
            grants,
        });
        self.changed.notify_all();
        name
    }

    pub fn forget_blobs(&self) {
        self.lock().blobs.clear();
    }

    fn change<T>(&self, name: (TaskId, Attempt), change: impl FnOnce(&mut Entry) -> T) -> T {
        let mut state = self.lock();
        state.version += 1;
        let version = state.version;
        let entry = state.entries.iter_mut().find(|entry| (entry.lease.task, entry.lease.attempt) == name).unwrap();
        entry.version = version;
        let result = change(entry);
        self.changed.notify_all();
        result
    }

    /// Ends an attempt, as a later one or a cancellation does.
    pub fn fence(&self, name: (TaskId, Attempt)) {
        self.change(name, |entry| entry.ended = true);
    }

    pub fn set_challenge(&self, name: (TaskId, Attempt), challenge: Option<Signed<ChallengeStatement>>) {
        self.change(name, |entry| entry.challenge = challenge);
    }

    pub fn set_grant(&self, name: (TaskId, Attempt), grant: Envelope) {
        self.change(name, |entry| entry.grant = Some(grant));
    }

    pub fn challenge_of(&self, name: (TaskId, Attempt)) -> Signed<ChallengeStatement> {
        self.change(name, |entry| entry.challenge.clone().unwrap())
    }

    pub fn lease_of(&self, name: (TaskId, Attempt)) -> Signed<Lease> {
        self.change(name, |entry| entry.lease.clone())
    }

    /// Waits until `wanted` holds for the attempt.
    fn wait(&self, name: (TaskId, Attempt), what: &str, wanted: impl Fn(&Entry) -> bool) {
        let until = Instant::now() + WAIT;
        let mut state = self.lock();
        loop {
            let entry = state.entries.iter().find(|entry| (entry.lease.task, entry.lease.attempt) == name).unwrap();
            if wanted(entry) {
                return;
            }
            let left = until.checked_duration_since(Instant::now()).unwrap_or_else(|| panic!("no {what} in time"));
            state = self.changed.wait_timeout(state, left).unwrap().0;
        }
    }

    /// Waits until a report was refused for good.
    pub fn wait_report_refused(&self) {
        let (_state, waited) =
            self.changed.wait_timeout_while(self.lock(), WAIT, |state| state.reports_refused == 0).unwrap();
        assert!(!waited.timed_out(), "no report in time");
    }

    pub fn wait_evidence(&self, name: (TaskId, Attempt)) -> Vec<u8> {
        self.wait(name, "evidence", |entry| entry.evidence.is_some());
        self.change(name, |entry| entry.evidence.clone().unwrap())
    }

    pub fn wait_report(&self, name: (TaskId, Attempt)) -> ReportRequest {
        self.wait(name, "report", |entry| entry.report.is_some());
        self.lock()
            .entries
            .iter()
            .find(|entry| (entry.lease.task, entry.lease.attempt) == name)
            .unwrap()
            .report
            .clone()
            .unwrap()
    }

    /// What came along with the evidence.
    pub fn enrolments_of(&self, name: (TaskId, Attempt)) -> Vec<Envelope> {
        self.change(name, |entry| entry.enrolments.clone())
    }

    /// Waits until a poll offers so many places.
    pub fn wait_offer(&self, places: u32) {
        let (_state, waited) =
            self.changed.wait_timeout_while(self.lock(), WAIT, |state| state.offer != places).unwrap();
        assert!(!waited.timed_out(), "no such poll in time");
    }

    /// Waits until the newest evidence for an admission states this.
    pub fn wait_posture(&self, measure: HostMeasure, wanted: PostureState) {
        let other =
            |state: &mut State| state.posture.as_ref().is_none_or(|posture| posture.host_state(measure) != wanted);
        let (_state, waited) = self.changed.wait_timeout_while(self.lock(), WAIT, other).unwrap();
        assert!(!waited.timed_out(), "no such evidence in time");
    }

    pub fn is_leased(&self, name: (TaskId, Attempt)) -> bool {
        let state = self.lock();
        state.entries.iter().any(|entry| (entry.lease.task, entry.lease.attempt) == name && entry.leased)
    }

    pub fn has_report(&self, name: (TaskId, Attempt)) -> bool {
        self.lock()
            .entries
            .iter()
            .any(|entry| (entry.lease.task, entry.lease.attempt) == name && entry.report.is_some())
    }

    /// The evidence that was sent, verified as a releaser does.
    pub fn verified(&self, name: (TaskId, Attempt)) -> Verified {
        let (challenge, lease, job) =
            self.change(name, |entry| (entry.challenge.clone().unwrap(), entry.lease.clone(), entry.job.clone()));
        let purpose = ExpectedPurpose::Task { spec: job.spec.digest(), attempt: lease.attempt };
        self.verify(&self.wait_evidence(name), &challenge, purpose)
    }

    fn verify(&self, evidence: &[u8], challenge: &ChallengeStatement, purpose: ExpectedPurpose) -> Verified {
        let expected = Expected {
            network: self.world.network,
            challenge: challenge.challenge,
            challenge_issued_at: challenge.issued_at,
            purpose,
            node: self.world.node,
            boot: if self.enroller.is_some() { Expect::Any } else { Expect::Exactly(super::BOOT) },
            task_key: Expect::Any,
            report_key: Expect::Any,
            agent_key: Expect::Any,
            tls_key: Expect::Any,
            posture: Expect::Any,
        };
        let roots = self.enroller.iter().map(Enroller::root).chain([self.world.root.id()]);
        let anchors = TrustAnchors::makers().with_simulated_roots(roots).unwrap();
        let endorsements = Endorsements::none();
        let enrolments = self.enroller.as_ref().map_or_else(Enrolments::none, Enroller::records);
        let context = Context {
            expected,
            endorsements: &endorsements,
            trust_anchors: &anchors,
            enrolments: &enrolments,
            now: self.enroller.as_ref().map_or(NOW, Enroller::now),
        };
        verify(Evidence::parse(evidence).unwrap(), &context).unwrap()
    }

    /// Everything that a requester and a verifier check of a task's own report.
    pub fn open(&self, name: (TaskId, Attempt)) -> OpenedResult {
        let request = self.wait_report(name);
        let verified = self.verified(name);
        let binding = verified.binding();
        let job = self.change(name, |entry| entry.job.clone());
        let report: Signed<Report> = request.report.clone().open().unwrap();
        let keys = Keys { task_key: binding.task_key.clone().unwrap(), report_key: binding.report_key.unwrap() };
        let sealed: Vec<Vec<u8>> = {
            let state = self.lock();
            report.predicate.outputs.iter().map(|output| state.uploads[&output.content_id].clone()).collect()
        };

        let statement: Signed<AgentStatement> = request.agent_statement.unwrap().open().unwrap();
        assert_eq!(statement.agent, binding.agent_key);
        assert_eq!(statement.report, report.digest());
        assert!(statement.ended_at >= statement.started_at);
        let resources = statement.resources.open(&job.result_key, DETAILS_INFO, statement.report.as_bytes()).unwrap();
        let resources: Resources = serde_json::from_slice(&resources).unwrap();
        assert!(resources.peak_resident_bytes > 1 << 20, "{resources:?}");

        let challenge = self.challenge_of(name);
        let purpose =
            ExpectedPurpose::ClosingTask { spec: job.spec.digest(), attempt: name.1, subject: report.digest() };
        let closing = self.verify(&request.closing_evidence.unwrap().0, &challenge, purpose);
        assert_eq!(closing.binding().posture, binding.posture);
        assert_eq!(closing.binding().report_key, binding.report_key);
        open_result(&job, &keys, &request.report, &sealed)
    }

    /// The agent's own report: what failed.
    pub fn refusal(&self, name: (TaskId, Attempt)) -> Refusal {
        let request = self.wait_report(name);
        let report: Signed<Report> = request.report.open().unwrap();
        assert_eq!(report.predicate.author, starminer_receipt::ReportAuthor::Agent);
        assert!(request.agent_statement.is_none());
        match report.predicate.outcome.clone() {
            Outcome::Failed { refusal } => refusal,
            Outcome::Completed => panic!("completed"),
        }
    }

    /// Grants what [`Grants::ByHand`] left open.
    pub fn grant(&self, name: (TaskId, Attempt)) {
        let evidence = self.wait_evidence(name);
        let grant = self.change(name, |entry| self.make_grant(&entry.job.clone(), &entry.lease, &evidence));
        self.set_grant(name, grant);
    }

    fn make_grant(&self, job: &SealedJob, lease: &Signed<Lease>, evidence: &[u8]) -> Envelope {
        // A releaser reads the key from verified evidence; `verified` does that for the tests that look.
        let json: serde_json::Value = serde_json::from_slice(evidence).unwrap();
        let key: Base64Bytes = serde_json::from_value(json["binding"]["task_key"]["public"].clone()).unwrap();
        let key = starminer_verify::TaskKey::from_bytes(starminer_verify::Suite::XWingSha256Aes256Gcm, &key.0).unwrap();
        let grant = self.world.grant(job, lease, evidence, &key, job.secret.expose());
        Envelope::sign(grant, &self.world.releaser).unwrap().into_envelope()
    }

    fn call(&self, call: Call) -> Result<Vec<u8>, u16> {
        let json = |value: &dyn erased::Json| Ok(value.json());
        match call {
            Call::Feed(request) => json(&self.feed(&request)),
            Call::Evidence(task, attempt, request) => {
                {
                    let mut state = self.lock();
                    state.evidence_calls += 1;
                    if state.misfortune.evidence_unavailable > 0 {
                        state.misfortune.evidence_unavailable -= 1;
                        return Err(503);
                    }
                }
                self.change((task, attempt), |entry| {
                    if entry.ended {
                        return Err(409_u16);
                    }
                    if entry.grants == Grants::AtOnce && entry.grant.is_none() {
                        entry.grant = Some(self.make_grant(&entry.job.clone(), &entry.lease, &request.evidence.0));
                    }
                    entry.enrolments = request.enrolments;
                    entry.evidence = Some(request.evidence.0);
                    entry.state = TaskState::Attested;
                    Ok(())
                })?;
                json(&Accepted { state: TaskState::Attested })
            }
            Call::Checkpoint(task, attempt, request) => {
                self.change((task, attempt), |entry| {
                    if entry.ended {
                        return Err(409_u16);
                    }
                    entry.checkpoints.push(request.checkpoint);
                    Ok(())
                })?;
                json(&Accepted { state: TaskState::Granted })
            }
            Call::Report(task, attempt, request) => {
                {
                    let mut state = self.lock();
                    if state.misfortune.report_unavailable > 0 {
                        state.misfortune.report_unavailable -= 1;
                        return Err(503);
                    }
                    if state.misfortune.report_conflict {
                        state.reports_refused += 1;
                        self.changed.notify_all();
                        return Err(409_u16);
                    }
                    let report: Signed<Report> = request.report.clone().open().unwrap();
                    for output in &report.predicate.outputs {
                        assert!(state.uploads.contains_key(&output.content_id), "reported before it was uploaded");
                    }
                }
                self.change((task, attempt), |entry| {
                    if entry.ended {
                        return Err(409_u16);
                    }
                    entry.report = Some(request);
                    entry.state = TaskState::Completed;
                    Ok(())
                })?;
                json(&Accepted { state: TaskState::Completed })
            }
            Call::Challenge => {
                let challenge = starminer_verify::Challenge([7; 32]);
                json(&AdmissionChallenge { challenge, expires_at: UnixTime(u64::MAX) })
            }
            Call::Enrol(request) => json(&self.enroller.as_ref().ok_or(404_u16)?.enrol(&request)?),
            Call::Admit(request) => {
                let challenge = ChallengeStatement {
                    challenge: starminer_verify::Challenge([7; 32]),
                    ..self
                        .world
                        .challenge(&self.world.lease(&self.world.seal(&Job::wasm(vec![])).spec, 1))
                        .statement()
                        .clone()
                };
                let verified = self.verify(&request.evidence.0, &challenge, ExpectedPurpose::Admission);
                let enrolment = match &self.enroller {
                    Some(enroller) => enroller.admit(&self.world, &verified, &request)?,
                    None => None,
                };
                let mut state = self.lock();
                state.admissions += 1;
                state.posture = Some(verified.posture().clone());
                self.changed.notify_all();
                drop(state);
                json(&AdmissionResponse {
                    tier: "confidential".into(),
                    provenance: "simulated".into(),
                    valid_until: UnixTime(u64::MAX),
                    renew_after_ms: 3_600_000,
                    enrolment,
                    forecast: None,
                    unmatched: None,
                })
            }
            Call::Upload(content_id, bytes) => {
                let mut state = self.lock();
                if state.misfortune.upload_refused || Digest(*blake3::hash(&bytes.0).as_bytes()) != content_id {
                    return Err(422);
                }
                state.uploads.insert(content_id, bytes.0);
                Ok(Vec::new())
            }
            Call::Download(content_id) => {
                let state = self.lock();
                match &state.misfortune.blob_instead {
                    Some(other) => Ok(other.clone()),
                    None => state.blobs.get(&content_id).cloned().ok_or(404),
                }
            }
        }
    }

    fn feed(&self, request: &NodeFeedRequest) -> FeedResponse {
        let until = Instant::now() + Duration::from_millis(request.wait_ms.min(2_000));
        let mut state = self.lock();
        state.offer = request.free_places;
        state.poll += 1;
        let poll = state.poll;
        self.changed.notify_all();
        loop {
            let mut free = if poll == state.poll { request.free_places } else { 0 };
            while free > 0 && state.entries.iter().any(|entry| !entry.leased) {
                state.version += 1;
                let version = state.version;
                let entry = state.entries.iter_mut().find(|entry| !entry.leased).unwrap();
                entry.leased = true;
                entry.version = version;
                free -= 1;
            }
            let after = if request.epoch == state.epoch { request.after } else { 0 };
            let changed = state.entries.iter().filter(|entry| entry.leased && entry.version > after);
            let attempts: Vec<AttemptView> = changed.map(Entry::view).collect();
            let left = until.checked_duration_since(Instant::now());
            if !attempts.is_empty() || left.is_none() {
                return FeedResponse { epoch: state.epoch, version: state.version, attempts, over: Vec::new() };
            }
            state = self.changed.wait_timeout(state, left.unwrap_or_default()).unwrap().0;
        }
    }

    /// Answers on a socket until the process ends.
    pub fn listen(self: &Arc<Self>, path: &Path) {
        let listener = UnixListener::bind(path).unwrap();
        let coordinator = Arc::clone(self);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, coordinator) = (stream.unwrap(), Arc::clone(&coordinator));
                std::thread::spawn(move || {
                    let mut request = Vec::new();
                    stream.read_to_end(&mut request).unwrap();
                    let answer = coordinator.call(serde_json::from_slice(&request).unwrap());
                    let (status, body) = answer.map_or_else(|status| (status, Vec::new()), |body| (200, body));
                    // The node may have given up on the answer.
                    let _ = stream.write_all(&status.to_be_bytes()).and_then(|()| stream.write_all(&body));
                });
            }
        });
    }
}

mod erased {
    pub trait Json {
        fn json(&self) -> Vec<u8>;
    }
    impl<T: serde::Serialize> Json for T {
        fn json(&self) -> Vec<u8> {
            serde_json::to_vec(self).unwrap()
        }
    }
}

impl Entry {
    fn view(&self) -> AttemptView {
        AttemptView {
            endorsements: None,
            task: self.lease.task,
            attempt: self.lease.attempt,
            state: self.state,
            ended: self.ended,
            spec: self.job.spec.envelope().clone(),
            lease: self.lease.envelope().clone(),
            challenge: self.challenge.as_ref().map(|challenge| challenge.envelope().clone()),
            evidence: None,
            deposit: None,
            release: None,
            grant: self.grant.clone(),
            checkpoint: None,
        }
    }
}

/// The way to it.
#[derive(Clone)]
pub enum Line {
    Direct(Arc<Coordinator>),
    Socket(PathBuf),
}

impl Line {
    async fn call(&self, call: Call) -> Result<Vec<u8>, ClientError> {
        let line = self.clone();
        let answer = tokio::task::spawn_blocking(move || match line {
            Self::Direct(coordinator) => coordinator.call(call),
            Self::Socket(path) => {
                let mut stream = UnixStream::connect(path).map_err(|_| 503_u16)?;
                stream.write_all(&serde_json::to_vec(&call).unwrap()).unwrap();
                stream.shutdown(std::net::Shutdown::Write).unwrap();
                let mut answer = Vec::new();
                stream.read_to_end(&mut answer).map_err(|_| 503_u16)?;
                let (status, body) = answer.split_at_checked(2).ok_or(503_u16)?;
                match u16::from_be_bytes([status[0], status[1]]) {
                    200 => Ok(body.to_vec()),
                    status => Err(status),
                }
            }
        });
        answer.await.unwrap().map_err(|status| ClientError::Refused {
            status,
            refusal: Refusal::new(
                Party::Coordinator,
                if status == UNKNOWN_ENROLMENT { "enrolment.unknown" } else { "test.refused" },
                "as the test ordered",
                "nothing",
            ),
            retry_after_ms: None,
            stored_bytes: None,
        })
    }

    async fn json<T: serde::de::DeserializeOwned>(&self, call: Call) -> Result<T, ClientError> {
        Ok(serde_json::from_slice(&self.call(call).await?).unwrap())
    }
}

impl Upstream for Line {
    async fn node_feed(&self, request: NodeFeedRequest) -> Result<FeedResponse, ClientError> {
        self.json(Call::Feed(request)).await
    }

    async fn evidence(
        &self,
        task: TaskId,
        attempt: Attempt,
        request: EvidenceRequest,
    ) -> Result<Accepted, ClientError> {
        self.json(Call::Evidence(task, attempt, request)).await
    }

    async fn checkpoint(
        &self,
        task: TaskId,
        attempt: Attempt,
        request: CheckpointRequest,
    ) -> Result<Accepted, ClientError> {
        self.json(Call::Checkpoint(task, attempt, request)).await
    }

    async fn report(&self, task: TaskId, attempt: Attempt, request: ReportRequest) -> Result<Accepted, ClientError> {
        self.json(Call::Report(task, attempt, request)).await
    }

    async fn admission_challenge(&self) -> Result<AdmissionChallenge, ClientError> {
        self.json(Call::Challenge).await
    }

    async fn enrol(&self, request: EnrolmentRequest) -> Result<EnrolmentChallenge, ClientError> {
        self.json(Call::Enrol(request)).await
    }

    async fn admit(&self, request: AdmissionRequest) -> Result<AdmissionResponse, ClientError> {
        self.json(Call::Admit(request)).await
    }

    async fn upload(&self, content_id: Digest, total_bytes: u64, source: UploadSource) -> Result<(), ClientError> {
        let bytes = match source {
            UploadSource::Bytes(bytes) => bytes.to_vec(),
            UploadSource::File(path) => std::fs::read(path).map_err(ClientError::Local)?,
        };
        assert_eq!(bytes.len() as u64, total_bytes);
        self.call(Call::Upload(content_id, Base64Bytes(bytes))).await.map(|_| ())
    }

    async fn download(
        &self,
        content_id: Digest,
        expected_bytes: u64,
        mut sink: impl FnMut(&[u8]) -> io::Result<()> + Send,
    ) -> Result<(), ClientError> {
        let bytes = self.call(Call::Download(content_id)).await?;
        for piece in bytes.chunks(64 * 1024) {
            sink(piece).map_err(ClientError::Local)?;
        }
        if bytes.len() as u64 != expected_bytes || Digest(*blake3::hash(&bytes).as_bytes()) != content_id {
            return Err(ClientError::Protocol { reason: "a blob is not the one that was asked for".into() });
        }
        Ok(())
    }

    fn tls_key(&self) -> PublicKey {
        PublicKey([9; 32])
    }
}

/// What a node for tests is made of.
pub fn parts(world: &World, line: Line, data_dir: &Path, places: u32) -> Parts<Line> {
    Parts {
        upstream: line,
        network: world.network,
        coordinator: world.coordinator.public_key(),
        identity: super::key(14),
        device: Arc::new(world.device()),
        statements: Statements::default(),
        host: HostTree::machine(),
        program: Program::At(super::AGENT.into()),
        data_dir: data_dir.into(),
        places,
        admitted: Box::new(|| {}),
        limits: NodeLimits { memory_bytes: 1 << 30, shutdown_ms: 500, warm_processes: 2, ..NodeLimits::default() },
    }
}
