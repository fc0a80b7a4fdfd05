//! The coordinator's API as methods: one for each endpoint of `specs/api.md`.
//!
//! Answers are bounded while they are read. Uploads go on where the coordinator says they stopped; downloads check the content id while
//! they stream, so that a coordinator cannot hand out other bytes than were asked for.

use std::io::{self, Read as _, Seek as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use starminer_receipt::{MAX_REFERENCE_FILE_BYTES, Role};
use starminer_tls::{
    Clock as _, Connector, IdentityKey, IssueError, PeerIdentity, RotatingCertificate, Rotation, Side, SystemClock,
};
use starminer_verify::{Attempt, Digest, PublicKey, TaskId};
use starminer_wire::{
    Accepted, AdmissionChallenge, AdmissionRequest, AdmissionResponse, BlobStatus, BrokerEvidenceRequest,
    BrokerEvidenceView, CancelRequest, ChallengeRequest, CheckpointRequest, DenyRequest, EnrolmentChallenge,
    EnrolmentRequest, EvidenceRequest, FeedResponse, FeedRole, GrantRequest, LogChain, LogProof, NetworkInfo,
    NodeFeedRequest, NodeSummary, ReceiptParts, ReleaseRequest, ReleaseResponse, ReportRequest, SubmitRequest,
    TaskView, paths,
};

use crate::error::ClientError;
use crate::transport::{RequestBody, Transport};

/// How long an answer may take, the waiting of a long poll not counted.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// How long one part of a blob may take.
const BLOB_TIMEOUT: Duration = Duration::from_secs(600);
/// Largest JSON answer that is read: a receipt's parts with every entry.
const MAX_ANSWER_BYTES: usize = 8 << 20;
/// Largest feed that is read: many views, each with its statements.
const MAX_FEED_BYTES: usize = 64 << 20;
/// How often an upload is taken up again before it is given up.
const MAX_UPLOAD_TRIES: usize = 8;
/// Piece of a file that is read at a time.
const PIECE_BYTES: usize = 256 * 1024;

/// Where the bytes of an upload come from.
#[derive(Debug, Clone)]
pub enum UploadSource {
    /// Memory.
    Bytes(Bytes),
    /// A file, read as it is sent.
    File(PathBuf),
}

/// The coordinator, as everybody else sees it. Cheap to clone; all clones share the connection.
#[derive(Debug, Clone)]
pub struct CoordinatorClient {
    transport: Transport,
}

impl CoordinatorClient {
    /// A client of `address` that talks to nobody but the holder of `server`, as `identity`. It connects when it is first used.
    ///
    /// # Errors
    /// The identity's certificate cannot be issued.
    pub fn connect_as(address: &str, server: [u8; 32], identity: &Arc<IdentityKey>) -> Result<Self, IssueError> {
        let clock = Arc::new(SystemClock);
        let now = clock.unix_seconds();
        let certificate = RotatingCertificate::new(Arc::clone(identity), Side::Client, Rotation::default(), now)?;
        let connector = Connector::new(Arc::new(certificate), clock);
        Ok(Self::new(Transport::new(address, PeerIdentity(server), Arc::new(connector))))
    }

    /// Calls over a transport.
    #[must_use]
    pub fn new(transport: Transport) -> Self {
        Self { transport }
    }

    /// The transport.
    #[must_use]
    pub fn transport(&self) -> &Transport {
        &self.transport
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: RequestBody,
        timeout: Duration,
        max_answer_bytes: usize,
    ) -> Result<Bytes, ClientError> {
        let response = self.transport.request(method, path, &[], body, timeout).await?;
        let status = response.status();
        let body = self.transport.read_limited(response, max_answer_bytes, timeout).await?;
        if status.is_success() { Ok(body) } else { Err(ClientError::from_problem(status.as_u16(), &body)) }
    }

    fn unreachable(&self, reason: &str) -> ClientError {
        ClientError::Unreachable { address: self.transport.address().to_string(), reason: reason.to_string() }
    }

    fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(body).map_err(|error| ClientError::Protocol { reason: error.to_string() })
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, timeout: Duration) -> Result<T, ClientError> {
        let body = self.call(Method::GET, path, RequestBody::Empty, timeout, MAX_ANSWER_BYTES).await?;
        Self::parse(&body)
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        message: &impl Serialize,
        timeout: Duration,
    ) -> Result<T, ClientError> {
        let json = serde_json::to_vec(message).map_err(|error| ClientError::Protocol { reason: error.to_string() })?;
        let body = self.call(Method::POST, path, RequestBody::Json(json.into()), timeout, MAX_FEED_BYTES).await?;
        Self::parse(&body)
    }

    /// What the coordinator says of itself.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn network(&self) -> Result<NetworkInfo, ClientError> {
        self.get(paths::NETWORK, CALL_TIMEOUT).await
    }

    /// Submits a task; again is the same as once.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn submit(&self, request: &SubmitRequest) -> Result<TaskView, ClientError> {
        self.post(paths::TASKS, request, CALL_TIMEOUT).await
    }

    /// A task of one's own, once its version is past `after` or `wait_ms` have passed.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn task(&self, task: &TaskId, after: u64, wait_ms: u64) -> Result<TaskView, ClientError> {
        let path = format!("{}?after={after}&wait_ms={wait_ms}", paths::task(task));
        self.get(&path, CALL_TIMEOUT + Duration::from_millis(wait_ms)).await
    }

    /// A task of one's own, once it has ended or `wait_ms` have passed.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn task_end(&self, task: &TaskId, wait_ms: u64) -> Result<TaskView, ClientError> {
        let path = format!("{}?until=ended&wait_ms={wait_ms}", paths::task(task));
        self.get(&path, CALL_TIMEOUT + Duration::from_millis(wait_ms)).await
    }

    /// Ends a task of one's own.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn cancel(&self, task: &TaskId, request: &CancelRequest) -> Result<Accepted, ClientError> {
        self.post(&paths::task_cancel(task), request, CALL_TIMEOUT).await
    }

    /// What a receipt is made of.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn receipt(&self, task: &TaskId) -> Result<ReceiptParts, ClientError> {
        self.get(&paths::task_receipt(task), CALL_TIMEOUT).await
    }

    /// The same, with the proof that its checkpoint continues the log of `remembered_size`.
    ///
    /// # Errors
    /// [`ClientError`]; `log.size-unknown` where the log is smaller than that.
    pub async fn receipt_continuing(&self, task: &TaskId, remembered_size: u64) -> Result<ReceiptParts, ClientError> {
        self.get(&format!("{}?remembered={remembered_size}", paths::task_receipt(task)), CALL_TIMEOUT).await
    }

    /// Attempts that changed for this identity in a role.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn feed(
        &self,
        role: FeedRole,
        epoch: u64,
        after: u64,
        wait_ms: u64,
    ) -> Result<FeedResponse, ClientError> {
        let role = match role {
            FeedRole::Releaser => "releaser",
            FeedRole::Node => "node",
        };
        let path = format!("{}?role={role}&epoch={epoch}&after={after}&wait_ms={wait_ms}", paths::FEED);
        let timeout = CALL_TIMEOUT + Duration::from_millis(wait_ms);
        let body = self.call(Method::GET, &path, RequestBody::Empty, timeout, MAX_FEED_BYTES).await?;
        Self::parse(&body)
    }

    /// Attempts that changed for this node; takes leases.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn node_feed(&self, request: &NodeFeedRequest) -> Result<FeedResponse, ClientError> {
        self.post(paths::NODE_FEED, request, CALL_TIMEOUT + Duration::from_millis(request.wait_ms)).await
    }

    /// A challenge for admission.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn admission_challenge(&self) -> Result<AdmissionChallenge, ClientError> {
        let body =
            self.call(Method::POST, paths::NODE_CHALLENGE, RequestBody::Empty, CALL_TIMEOUT, MAX_ANSWER_BYTES).await?;
        Self::parse(&body)
    }

    /// Offers a TPM to be enrolled, and gets the credential that shows whether its keys are in one TPM.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn enrol(&self, request: &EnrolmentRequest) -> Result<EnrolmentChallenge, ClientError> {
        self.post(paths::NODE_ENROLMENT, request, CALL_TIMEOUT).await
    }

    /// Asks for admission.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn admit(&self, request: &AdmissionRequest) -> Result<AdmissionResponse, ClientError> {
        self.post(paths::NODE_ADMISSION, request, CALL_TIMEOUT).await
    }

    /// The admitted nodes.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn nodes(&self) -> Result<Vec<NodeSummary>, ClientError> {
        self.get(paths::NODES, CALL_TIMEOUT).await
    }

    /// Sends a challenge.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn challenge(
        &self,
        task: &TaskId,
        attempt: Attempt,
        request: &ChallengeRequest,
    ) -> Result<Accepted, ClientError> {
        self.post(&paths::attempt(task, attempt, "challenge"), request, CALL_TIMEOUT).await
    }

    /// Sends evidence.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn evidence(
        &self,
        task: &TaskId,
        attempt: Attempt,
        request: &EvidenceRequest,
    ) -> Result<Accepted, ClientError> {
        self.post(&paths::attempt(task, attempt, "evidence"), request, CALL_TIMEOUT).await
    }

    /// Says that a checkpoint is durable.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn checkpoint(
        &self,
        task: &TaskId,
        attempt: Attempt,
        request: &CheckpointRequest,
    ) -> Result<Accepted, ClientError> {
        self.post(&paths::attempt(task, attempt, "checkpoint"), request, CALL_TIMEOUT).await
    }

    /// Has a release logged.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn release(
        &self,
        task: &TaskId,
        attempt: Attempt,
        request: &ReleaseRequest,
    ) -> Result<ReleaseResponse, ClientError> {
        self.post(&paths::attempt(task, attempt, "release"), request, CALL_TIMEOUT).await
    }

    /// Sends a grant.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn grant(
        &self,
        task: &TaskId,
        attempt: Attempt,
        request: &GrantRequest,
    ) -> Result<Accepted, ClientError> {
        self.post(&paths::attempt(task, attempt, "grant"), request, CALL_TIMEOUT).await
    }

    /// Sends a denial.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn deny(&self, task: &TaskId, attempt: Attempt, request: &DenyRequest) -> Result<Accepted, ClientError> {
        self.post(&paths::attempt(task, attempt, "deny"), request, CALL_TIMEOUT).await
    }

    /// Sends a report.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn report(
        &self,
        task: &TaskId,
        attempt: Attempt,
        request: &ReportRequest,
    ) -> Result<Accepted, ClientError> {
        self.post(&paths::attempt(task, attempt, "report"), request, CALL_TIMEOUT).await
    }

    /// Brokers that answer at present, by signing key. For a while after the coordinator's start an empty answer is refused
    /// (`coordinator.starting`): brokers may come back.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn brokers(&self) -> Result<Vec<PublicKey>, ClientError> {
        self.get(paths::BROKERS, CALL_TIMEOUT).await
    }

    /// Has a broker prove itself.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn broker_evidence(&self, request: &BrokerEvidenceRequest) -> Result<BrokerEvidenceView, ClientError> {
        self.post(paths::BROKER_EVIDENCE, request, CALL_TIMEOUT + CALL_TIMEOUT).await
    }

    /// What this broker is asked to prove.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn broker_requests(&self, wait_ms: u64) -> Result<Vec<BrokerEvidenceRequest>, ClientError> {
        let path = format!("{}?wait_ms={wait_ms}", paths::BROKER_REQUESTS);
        self.get(&path, CALL_TIMEOUT + Duration::from_millis(wait_ms)).await
    }

    /// A broker's answer.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn broker_answer(&self, answer: &BrokerEvidenceView) -> Result<(), ClientError> {
        let json = serde_json::to_vec(answer).map_err(|error| ClientError::Protocol { reason: error.to_string() })?;
        self.call(Method::POST, paths::BROKER_ANSWERS, RequestBody::Json(json.into()), CALL_TIMEOUT, MAX_ANSWER_BYTES)
            .await?;
        Ok(())
    }

    /// A proof that the log's latest checkpoint continues the one of size `from`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn consistency(&self, from: u64) -> Result<LogProof, ClientError> {
        self.get(&format!("{}?from={from}", paths::LOG_CONSISTENCY), CALL_TIMEOUT).await
    }

    /// That the log only grew from each of these sizes to the next, and from the last to its latest checkpoint. `sizes` ascend; at most
    /// [`starminer_wire::MAX_CHAIN_SIZES`].
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn log_chain(&self, sizes: &[u64]) -> Result<LogChain, ClientError> {
        let sizes: Vec<String> = sizes.iter().map(u64::to_string).collect();
        self.get(&format!("{}?sizes={}", paths::LOG_CHAIN, sizes.join(",")), CALL_TIMEOUT).await
    }

    /// Publishes a file of reference values; again is the same as once. The answer is the newest file of its role as it stands in the log,
    /// to be verified.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn publish_references(&self, file: Bytes) -> Result<Bytes, ClientError> {
        let body = RequestBody::Json(file);
        self.call(Method::POST, paths::REFERENCES, body, CALL_TIMEOUT, MAX_REFERENCE_FILE_BYTES).await
    }

    /// The newest file of reference values for a role as it stands in the log, to be verified; `None` where none was published.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn references(&self, role: Role) -> Result<Option<Bytes>, ClientError> {
        let path = paths::references(role);
        match self.call(Method::GET, &path, RequestBody::Empty, CALL_TIMEOUT, MAX_REFERENCE_FILE_BYTES).await {
            Ok(file) => Ok(Some(file)),
            Err(ClientError::Refused { refusal, .. }) if refusal.check() == "reference.unknown" => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// How much of a blob the coordinator has.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn blob_status(&self, content_id: &Digest) -> Result<BlobStatus, ClientError> {
        self.get(&paths::blob_status(content_id), CALL_TIMEOUT).await
    }

    /// Uploads a blob, going on where an earlier upload stopped. `progress` hears of bytes that are on their way.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn upload(
        &self,
        content_id: &Digest,
        total_bytes: u64,
        source: UploadSource,
        progress: impl Fn(u64) + Send + Sync,
    ) -> Result<(), ClientError> {
        let mut offset = 0;
        let mut last = None;
        for attempt in 0..MAX_UPLOAD_TRIES {
            if attempt > 0 {
                tokio::time::sleep(Duration::from_millis(50 << attempt.min(6))).await;
                match self.blob_status(content_id).await {
                    Ok(status) if status.complete => return Ok(()),
                    Ok(status) => offset = status.stored_bytes,
                    Err(error) if error.is_transient() => {
                        last = Some(error);
                        continue;
                    }
                    Err(error) => return Err(error),
                }
            }
            let body = upload_body(&source, offset, total_bytes).map_err(ClientError::Local)?;
            let path = format!("{}?offset={offset}&total={total_bytes}", paths::blob(content_id));
            match self.call(Method::PUT, &path, body, BLOB_TIMEOUT, MAX_ANSWER_BYTES).await {
                Ok(_) => {
                    progress(total_bytes.saturating_sub(offset));
                    return Ok(());
                }
                Err(ClientError::Refused { stored_bytes: Some(stored), .. })
                    if stored != offset && attempt + 1 < MAX_UPLOAD_TRIES =>
                {
                    offset = stored;
                }
                Err(error) if error.is_transient() => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| ClientError::Protocol { reason: "an upload made no progress".into() }))
    }

    /// Downloads a blob and hands it to `sink` piece by piece. Only when this returns was its content id right.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::Protocol`] for other bytes than the content id names.
    pub async fn download(
        &self,
        content_id: &Digest,
        expected_bytes: u64,
        mut sink: impl FnMut(&[u8]) -> io::Result<()> + Send,
    ) -> Result<(), ClientError> {
        let response = self
            .transport
            .request(Method::GET, &paths::blob(content_id), &[], RequestBody::Empty, CALL_TIMEOUT)
            .await?;
        let status = response.status();
        if !status.is_success() {
            let body = self.transport.read_limited(response, MAX_ANSWER_BYTES, CALL_TIMEOUT).await?;
            return Err(ClientError::from_problem(status.as_u16(), &body));
        }
        let mut body = response.into_body();
        let mut hasher = blake3::Hasher::new();
        let mut received: u64 = 0;
        loop {
            let frame = tokio::time::timeout(CALL_TIMEOUT, body.frame())
                .await
                .map_err(|_| self.unreachable("a download stalled"))?;
            let Some(frame) = frame else { break };
            let frame = frame.map_err(ClientError::from)?;
            let Ok(data) = frame.into_data() else { continue };
            received = received.saturating_add(data.len() as u64);
            if received > expected_bytes {
                return Err(ClientError::Protocol { reason: "a blob is longer than it should be".into() });
            }
            hasher.update(&data);
            sink(&data).map_err(ClientError::Local)?;
        }
        if received != expected_bytes {
            return Err(self.unreachable("a download was cut short"));
        }
        if Digest(*hasher.finalize().as_bytes()) != *content_id {
            return Err(ClientError::Protocol { reason: "a blob is not the one that was asked for".into() });
        }
        Ok(())
    }
}

/// The rest of a source from `offset` on; a file is read by a thread of its own, a few pieces ahead.
fn upload_body(source: &UploadSource, offset: u64, total_bytes: u64) -> io::Result<RequestBody> {
    match source {
        UploadSource::Bytes(bytes) => {
            let start = usize::try_from(offset).map_or(bytes.len(), |offset| offset.min(bytes.len()));
            Ok(RequestBody::Bytes(bytes.slice(start..)))
        }
        UploadSource::File(path) => {
            let mut file = std::fs::File::open(path)?;
            file.seek(io::SeekFrom::Start(offset))?;
            let mut rest = file.take(total_bytes.saturating_sub(offset));
            let (pieces, receiver) = tokio::sync::mpsc::channel::<io::Result<Bytes>>(4);
            tokio::task::spawn_blocking(move || {
                loop {
                    let mut piece = vec![0; PIECE_BYTES];
                    let read = match rest.read(&mut piece) {
                        Ok(0) => break,
                        Ok(read) => read,
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                        Err(error) => {
                            let _ = pieces.blocking_send(Err(error));
                            break;
                        }
                    };
                    piece.truncate(read);
                    if pieces.blocking_send(Ok(piece.into())).is_err() {
                        break;
                    }
                }
            });
            Ok(RequestBody::Stream(receiver))
        }
    }
}
