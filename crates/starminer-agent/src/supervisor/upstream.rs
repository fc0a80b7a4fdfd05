//! What the agent needs of its coordinator, and nothing more: the only way out of the node.
//!
//! [`Coordinator`] is the real one, over mutual TLS. The trait is there so that the supervisor can be tested against a
//! coordinator in memory that does at a chosen moment what a real one does rarely.

use std::future::Future;
use std::io;
use std::sync::Arc;

use starminer_client::{ClientError, CoordinatorClient, UploadSource};
use starminer_tls::RotatingCertificate;
use starminer_verify::{Attempt, Digest, PublicKey, TaskId};
use starminer_wire::{
    Accepted, AdmissionChallenge, AdmissionRequest, AdmissionResponse, CheckpointRequest, EnrolmentChallenge,
    EnrolmentRequest, EvidenceRequest, FeedResponse, NodeFeedRequest, ReportRequest,
};

/// The coordinator as a node sees it. Every call may fail, and every call may be repeated.
pub trait Upstream: Clone + Send + Sync + 'static {
    /// Waits for attempts that changed, and takes leases.
    fn node_feed(&self, request: NodeFeedRequest) -> impl Future<Output = Result<FeedResponse, ClientError>> + Send;

    /// Sends evidence for an attempt.
    fn evidence(
        &self,
        task: TaskId,
        attempt: Attempt,
        request: EvidenceRequest,
    ) -> impl Future<Output = Result<Accepted, ClientError>> + Send;

    /// Says that a checkpoint is durable.
    fn checkpoint(
        &self,
        task: TaskId,
        attempt: Attempt,
        request: CheckpointRequest,
    ) -> impl Future<Output = Result<Accepted, ClientError>> + Send;

    /// Sends the report of an attempt.
    fn report(
        &self,
        task: TaskId,
        attempt: Attempt,
        request: ReportRequest,
    ) -> impl Future<Output = Result<Accepted, ClientError>> + Send;

    /// Asks for a challenge for admission.
    fn admission_challenge(&self) -> impl Future<Output = Result<AdmissionChallenge, ClientError>> + Send;

    /// Offers a TPM to be enrolled.
    fn enrol(&self, request: EnrolmentRequest) -> impl Future<Output = Result<EnrolmentChallenge, ClientError>> + Send;

    /// Asks for admission.
    fn admit(&self, request: AdmissionRequest) -> impl Future<Output = Result<AdmissionResponse, ClientError>> + Send;

    /// Uploads ciphertext.
    fn upload(
        &self,
        content_id: Digest,
        total_bytes: u64,
        source: UploadSource,
    ) -> impl Future<Output = Result<(), ClientError>> + Send;

    /// Downloads ciphertext and hands it to `sink` piece by piece. Only when it returns was its content id right.
    fn download(
        &self,
        content_id: Digest,
        expected_bytes: u64,
        sink: impl FnMut(&[u8]) -> io::Result<()> + Send,
    ) -> impl Future<Output = Result<(), ClientError>> + Send;

    /// The key of the TLS certificate in use, for bindings.
    fn tls_key(&self) -> PublicKey;
}

/// The coordinator over mutual TLS.
#[derive(Debug, Clone)]
pub(crate) struct Coordinator {
    pub client: CoordinatorClient,
    pub certificate: Arc<RotatingCertificate>,
}

impl Upstream for Coordinator {
    async fn node_feed(&self, request: NodeFeedRequest) -> Result<FeedResponse, ClientError> {
        self.client.node_feed(&request).await
    }

    async fn evidence(
        &self,
        task: TaskId,
        attempt: Attempt,
        request: EvidenceRequest,
    ) -> Result<Accepted, ClientError> {
        self.client.evidence(&task, attempt, &request).await
    }

    async fn checkpoint(
        &self,
        task: TaskId,
        attempt: Attempt,
        request: CheckpointRequest,
    ) -> Result<Accepted, ClientError> {
        self.client.checkpoint(&task, attempt, &request).await
    }

    async fn report(&self, task: TaskId, attempt: Attempt, request: ReportRequest) -> Result<Accepted, ClientError> {
        self.client.report(&task, attempt, &request).await
    }

    async fn admission_challenge(&self) -> Result<AdmissionChallenge, ClientError> {
        self.client.admission_challenge().await
    }

    async fn enrol(&self, request: EnrolmentRequest) -> Result<EnrolmentChallenge, ClientError> {
        self.client.enrol(&request).await
    }

    async fn admit(&self, request: AdmissionRequest) -> Result<AdmissionResponse, ClientError> {
        self.client.admit(&request).await
    }

    async fn upload(&self, content_id: Digest, total_bytes: u64, source: UploadSource) -> Result<(), ClientError> {
        self.client.upload(&content_id, total_bytes, source, |_| {}).await
    }

    async fn download(
        &self,
        content_id: Digest,
        expected_bytes: u64,
        sink: impl FnMut(&[u8]) -> io::Result<()> + Send,
    ) -> Result<(), ClientError> {
        self.client.download(&content_id, expected_bytes, sink).await
    }

    fn tls_key(&self) -> PublicKey {
        let session = self.client.transport().current_session();
        PublicKey(session.map_or_else(|| self.certificate.current().tls_key(), |session| session.local_tls_key()))
    }
}
