//! Joining the network, and staying in: evidence for the coordinator's routing. No key is released for it.

use std::sync::Arc;
use std::time::Duration;

use starminer_client::ClientError;
use starminer_receipt::Base64Bytes;
use starminer_verify::{Binding, Challenge, Digest, Purpose, UnixTime};
use starminer_wire::{AdmissionRequest, AdmissionResponse};
use tokio::sync::Notify;

use super::Shared;
use super::upstream::Upstream;
use crate::config::now;
use crate::posture::sandbox_items;

/// Pause after an admission that failed, at first and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// An admission is renewed after this share of its time, and never more often than once a second.
const RENEW_AFTER: u32 = 2;
const SHORTEST_RENEWAL: Duration = Duration::from_secs(1);

/// Why an admission failed, for the log.
#[derive(Debug, thiserror::Error)]
enum AdmissionError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("{0}")]
    Evidence(String),
}

/// Asks until the node is admitted; says until when.
pub(crate) async fn admit<U: Upstream>(shared: &Shared<U>) -> UnixTime {
    let mut pause = BACKOFF.0;
    loop {
        match try_admit(shared).await {
            Ok(admission) => {
                tracing::info!(tier = admission.tier, provenance = admission.provenance, "the node is admitted");
                return admission.valid_until;
            }
            Err(error) => tracing::warn!(%error, "the node was not admitted; it asks again"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(BACKOFF.1);
    }
}

async fn try_admit<U: Upstream>(shared: &Shared<U>) -> Result<AdmissionResponse, AdmissionError> {
    // A process that will serve nobody shows what every process of this node gets.
    let sample = shared.pool.take().await.map_err(|error| AdmissionError::Evidence(error.to_string()))?;
    let sandbox = sandbox_items(sample.in_force());
    drop(sample);
    let challenge = shared.upstream.admission_challenge().await?.challenge;
    let evidence = shared
        .evidences
        .make(binding(shared, challenge), sandbox)
        .await
        .map_err(|error| AdmissionError::Evidence(error.to_string()))?;
    Ok(shared
        .upstream
        .admit(AdmissionRequest { evidence: Base64Bytes(evidence), enrolments: Vec::new(), activation: None })
        .await?)
}

fn binding<U: Upstream>(shared: &Shared<U>, challenge: Challenge) -> Binding {
    Binding {
        network: shared.network,
        challenge,
        purpose: Purpose::Admission,
        spec: None,
        node: shared.node,
        attempt: None,
        boot: shared.boot,
        task_key: None,
        report_key: None,
        agent_key: shared.agent_key(),
        tls_key: shared.upstream.tls_key(),
        ak_name: None,
        posture: Digest([0; 32]),
        subject: None,
    }
}

/// Renews the admission in good time, and at once when `asked` says that it was lost.
pub(crate) async fn renew<U: Upstream>(shared: Arc<Shared<U>>, mut valid_until: UnixTime, asked: Arc<Notify>) {
    loop {
        let left = valid_until.since(now()).unwrap_or_default();
        let pause = (left / RENEW_AFTER).max(SHORTEST_RENEWAL);
        // A clock that jumps forward shows at the next poll, which is then refused and asks.
        let _ = tokio::time::timeout(pause, asked.notified()).await;
        valid_until = admit(&shared).await;
    }
}
