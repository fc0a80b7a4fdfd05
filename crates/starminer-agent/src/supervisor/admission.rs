//! Joining the network, and staying in: evidence for the coordinator's routing, and the enrolment of the node's TPM. No key is released for either.
//!
//! A TPM that was never enrolled here is offered first: the coordinator answers with a credential that only the TPM with the certified endorsement key
//! can open, and only beside the attestation key that quotes. The secret in it goes back with the evidence, and the enrolment that comes of it is
//! kept ([`crate::enrolment`]). Specification: `specs/node.md`, section "Enrolment".

use std::sync::Arc;
use std::time::Duration;

use starminer_attester::tpm::TpmError;
use starminer_attester::{Attester, NodeTpm};
use starminer_client::ClientError;
use starminer_receipt::Base64Bytes;
use starminer_verify::{Binding, Challenge, Digest, Purpose, UnixTime};
use starminer_wire::{AdmissionRequest, AdmissionResponse, EnrolmentRequest, NodeForecast};

use super::Shared;
use super::upstream::Upstream;
use crate::config::now;
use crate::enrolment::KeepError;
use crate::error::with_causes;
use crate::posture::sandbox_items;

/// Pause after an admission that failed, at first and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// An admission is never renewed more often than this, whatever the coordinator asks for.
const SHORTEST_RENEWAL: Duration = Duration::from_secs(1);
/// A forecast that is further away is not worth a word.
const FORECAST_HORIZON: Duration = Duration::from_secs(30 * DAY_S);
/// How often a forecast is repeated.
const FORECAST_PAUSE: Duration = Duration::from_secs(DAY_S);
const DAY_S: u64 = 24 * 60 * 60;
/// What of a coordinator's words goes into the log, in characters.
const MAX_TOLD_CHARS: usize = 400;
/// The coordinator does not know, or no longer takes, an enrolment that came with the evidence.
const ENROLMENT_UNKNOWN: &str = "enrolment.unknown";

/// Why an admission failed, for the log.
#[derive(Debug, thiserror::Error)]
enum AdmissionError {
    #[error("the coordinator")]
    Client(#[from] ClientError),
    #[error("{0}")]
    Evidence(String),
    #[error("the TPM did not open the coordinator's credential: it was made for another TPM or another key")]
    Activation(#[source] TpmError),
    #[error("the coordinator gave no enrolment for the TPM's answer")]
    NoEnrolment,
    #[error("the coordinator's enrolment is of no use to this node")]
    Enrolment(#[from] KeepError),
    #[error("a defect of this program ended a call of the TPM")]
    Defect,
}

impl AdmissionError {
    fn is_unknown_enrolment(&self) -> bool {
        matches!(self, Self::Client(ClientError::Refused { refusal, .. }) if refusal.check() == ENROLMENT_UNKNOWN)
    }
}

/// Asks until the node is admitted.
pub(crate) async fn admit<U: Upstream>(shared: &Shared<U>) -> AdmissionResponse {
    let mut pause = BACKOFF.0;
    let mut service = shared.service();
    loop {
        service.mark_unchanged();
        match try_admit(shared).await {
            Ok(admission) => {
                tracing::info!(tier = admission.tier, provenance = admission.provenance, "the node is admitted");
                shared.back_in_service();
                return admission;
            }
            Err(error) => match &error {
                AdmissionError::Client(ClientError::Refused { refusal, .. }) => tracing::warn!(
                    check = refusal.check(),
                    reason = refusal.reason(),
                    fault = refusal.party().name(),
                    remedy = refusal.remedy(),
                    "the node was not admitted; it asks again"
                ),
                error => tracing::warn!(error = with_causes(error), "the node was not admitted; it asks again"),
            },
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(BACKOFF.1),
            // The posture fell or was mended: that is new evidence.
            Ok(()) = service.changed() => pause = BACKOFF.0,
        }
    }
}

async fn try_admit<U: Upstream>(shared: &Shared<U>) -> Result<AdmissionResponse, AdmissionError> {
    match ask(shared).await {
        Err(error) if error.is_unknown_enrolment() && shared.device.tpm().is_some() => {
            tracing::info!("the coordinator does not know this node's enrolment; the TPM is enrolled anew");
            shared.statements.forget();
            ask(shared).await
        }
        result => result,
    }
}

/// One conversation: the TPM's enrolment where there is none, evidence, the answer.
async fn ask<U: Upstream>(shared: &Shared<U>) -> Result<AdmissionResponse, AdmissionError> {
    let enrolled = shared.device.tpm().map(|tpm| shared.statements.is_enrolled(tpm, shared.network, shared.node));
    let activation = match enrolled {
        None | Some(true) => None,
        Some(false) => {
            // One that is kept may be of another key, and says nothing of this one.
            shared.statements.forget();
            Some(activate(shared).await?)
        }
    };
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
    let answered = activation.is_some();
    let request = AdmissionRequest { evidence: Base64Bytes(evidence), enrolments: shared.statements.all(), activation };
    let admission = shared.upstream.admit(request).await?;
    match (&admission.enrolment, shared.device.tpm()) {
        (Some(_), Some(_)) => keep(shared, &admission).await?,
        (None, _) if answered => return Err(AdmissionError::NoEnrolment),
        _ => {}
    }
    Ok(admission)
}

/// Has the TPM show that the certified key and the one that quotes are both in it.
async fn activate<U: Upstream>(shared: &Shared<U>) -> Result<Base64Bytes, AdmissionError> {
    let offer = with_tpm(shared, |tpm| EnrolmentRequest {
        certificates: tpm.certificates().iter().cloned().map(Base64Bytes).collect(),
        ek_public: Base64Bytes(tpm.ek_public().to_vec()),
        ak_public: Base64Bytes(tpm.ak_public().to_vec()),
    });
    let credential = shared.upstream.enrol(offer.await?).await?;
    let secret =
        with_tpm(shared, move |tpm| tpm.activate(&credential.credential_blob.0, &credential.encrypted_secret.0));
    let secret = secret.await?.map_err(AdmissionError::Activation)?;
    // It is worth one answer, which this is; what is left of it in memory opens nothing.
    Ok(Base64Bytes(secret.to_vec()))
}

/// Keeps the enrolment in the answer. Writing it is durable, and so not for this thread.
async fn keep<U: Upstream>(shared: &Shared<U>, admission: &AdmissionResponse) -> Result<(), AdmissionError> {
    let Some(enrolment) = admission.enrolment.clone() else { return Ok(()) };
    let (network, node, statements) = (shared.network, shared.node, Arc::clone(&shared.statements));
    with_tpm(shared, move |tpm| statements.keep(&enrolment, tpm, network, node)).await??;
    tracing::info!("the node's TPM is enrolled");
    Ok(())
}

/// Something with the TPM, which blocks. Called only where there is one.
async fn with_tpm<U: Upstream, T: Send + 'static>(
    shared: &Shared<U>,
    call: impl FnOnce(&NodeTpm) -> T + Send + 'static,
) -> Result<T, AdmissionError> {
    let device: Arc<dyn Attester> = Arc::clone(&shared.device);
    let called = tokio::task::spawn_blocking(move || device.tpm().map(call)).await;
    called.ok().flatten().ok_or(AdmissionError::Defect)
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
        // Both filled in where the evidence is made.
        ak_name: None,
        posture: Digest([0; 32]),
        subject: None,
    }
}

/// Renews the admission when the coordinator wants that, and at once when it was lost or the devices failed.
pub(crate) async fn renew<U: Upstream>(shared: Arc<Shared<U>>, mut admission: AdmissionResponse) {
    let mut told = Told::default();
    let mut unmatched = None;
    loop {
        if unmatched != admission.unmatched {
            if let Some(why) = &admission.unmatched {
                let why = legible(why);
                tracing::warn!(
                    tier = admission.tier,
                    why,
                    "what this node runs is not what the network's reference values name"
                );
            }
            unmatched.clone_from(&admission.unmatched);
        }
        if let Some(words) = admission.forecast.as_ref().and_then(|forecast| told.words(forecast, now())) {
            tracing::warn!("{words}");
        }
        // An admission that ends before that shows at the next poll, which is then refused and asks.
        let _ = tokio::time::timeout(pause(&admission), shared.readmit.notified()).await;
        admission = admit(&shared).await;
    }
}

fn pause(admission: &AdmissionResponse) -> Duration {
    Duration::from_millis(admission.renew_after_ms).max(SHORTEST_RENEWAL)
}

/// A coordinator's words, as far as they go into the log.
fn legible(words: &str) -> String {
    words.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_TOLD_CHARS).collect()
}

/// Which forecast was told, and when.
#[derive(Debug, Default)]
struct Told(Option<(NodeForecast, UnixTime)>);

impl Told {
    /// What to tell whoever runs the node: once a day while it is the same, and at once when it becomes another.
    fn words(&mut self, forecast: &NodeForecast, now: UnixTime) -> Option<String> {
        let left = forecast.at.since(now).unwrap_or_default();
        if left >= FORECAST_HORIZON {
            return None;
        }
        if let Some((told, at)) = &self.0
            && told == forecast
            && now.since(*at).is_some_and(|since| since < FORECAST_PAUSE)
        {
            return None;
        }
        self.0 = Some((forecast.clone(), now));
        let when = match left.as_secs() / DAY_S {
            0 => "within a day".into(),
            1 => "in one day".into(),
            days => format!("in {days} days"),
        };
        let reason = legible(&forecast.reason);
        Some(format!("{when} this node's evidence will no longer be enough, and it will get no tasks: {reason}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(renew_after_ms: u64) -> AdmissionResponse {
        AdmissionResponse {
            tier: "measured".into(),
            provenance: "simulated".into(),
            valid_until: UnixTime(u64::MAX),
            renew_after_ms,
            enrolment: None,
            forecast: None,
            unmatched: None,
        }
    }

    #[test]
    fn the_coordinator_says_when_to_renew_and_cannot_make_it_a_rush() {
        assert_eq!(pause(&admission(90_000)), Duration::from_secs(90));
        assert_eq!(pause(&admission(0)), SHORTEST_RENEWAL);
        assert_eq!(pause(&admission(u64::MAX)), Duration::from_millis(u64::MAX));
    }

    #[test]
    fn a_forecast_is_told_in_time_and_once_a_day() {
        let day_ms = DAY_S * 1000;
        let at = |days: u64| UnixTime(100 * day_ms + days * day_ms);
        let forecast = |reason: &str| NodeForecast { at: at(40), reason: reason.into() };
        let mut told = Told::default();
        let first = forecast("the microcode\nis old");
        assert_eq!(told.words(&first, at(9)), None, "31 days away");
        let words = told.words(&first, at(11)).unwrap_or_default();
        assert!(
            words.starts_with("in 29 days this node's evidence") && words.ends_with("the microcode is old"),
            "{words}"
        );
        assert_eq!(told.words(&first, UnixTime(at(12).0 - 1)), None, "within a day");
        assert!(told.words(&first, at(12)).is_some(), "a day later");
        assert!(told.words(&forecast("a certificate ends"), at(12)).is_some(), "another reason");
        let late = |told: &mut Told, now| told.words(&first, now).unwrap_or_default();
        assert!(late(&mut told, UnixTime(at(40).0 - 1)).starts_with("within a day"));
        assert!(late(&mut told, at(50)).starts_with("within a day"), "it is over, and nothing was done");
    }
}
