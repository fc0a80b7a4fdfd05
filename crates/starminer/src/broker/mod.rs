//! The broker: the release decision in an enclave of its own, for requesters who went offline.
//!
//! It only dials out. It answers requesters' challenges with evidence that binds its sealing key and its signing key, and releases the tasks
//! whose specs name it, by the very code that a requester runs ([`Releaser`]). Its sealing key is made at every start and never
//! leaves memory: after a restart old deposits do not open, their tasks end as `broker.restarted`, and there is nothing on a disk
//! that a rollback could bring back. What it trusts is what each spec's signed policy names.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use starminer_agent::software_tee_settings;
use starminer_attester::{Attester as _, HostTree, SimulatedRoot, SoftwareTee, measure_executable};
use starminer_broker::{DepositError, LedgerRecord, ReleaserTrust, open_deposit};
use starminer_client::CoordinatorClient;
use starminer_receipt::{KemPrivateKey, NetworkTrust, Signed, SigningKey, TaskSpec};
use starminer_requester::{Event, Home, Releaser, ReleaserHost, Unsynced, random_bytes, random_secret};
use starminer_sandbox::Locked;
use starminer_tls::IdentityKey;
use starminer_vault::TaskSecret;
use starminer_verify::{
    Binding, BootId, Digest, NodeId, Posture, PostureItem, PostureState, PublicKey, Purpose, Refusal, SandboxMeasure,
    Suite, TaskId, TaskKey, UnixTime,
};
use starminer_wire::{AttemptView, BrokerEvidenceRequest, BrokerEvidenceView, MAX_POLL_WAIT_MS};
use zeroize::Zeroizing;

use crate::cli::clock_now as now;

/// Evidence that this start gave and that deposits may refer to; older ones are forgotten and their deposits refused.
const MAX_OWN_EVIDENCE: usize = 65_536;
/// Pause after a poll that failed.
const BACKOFF: Duration = Duration::from_millis(500);

/// Makes identity, TEE device and a copy of the trust file.
pub fn init(dir: &Path, network: &NetworkTrust, root: &SimulatedRoot) -> anyhow::Result<PublicKey> {
    let identity = IdentityKey::generate()?;
    identity.save(&dir.join("broker.key"))?;
    starminer_agent::new_software_tee(root)?.save(&dir.join("software-tee.key"))?;
    std::fs::write(dir.join("network.toml"), network.encode()?)?;
    Ok(PublicKey(identity.public()))
}

/// What is in force around this process, as far as the sandbox crate vouches for it: it hardens, or says why not.
fn own_posture() -> anyhow::Result<Vec<PostureItem<SandboxMeasure>>> {
    starminer_sandbox::harden_supervisor()?;
    let in_force = |measure| PostureItem::new(measure, PostureState::InForce, "read back after hardening");
    let mut items = vec![
        in_force(SandboxMeasure::NonDumpable),
        in_force(SandboxMeasure::CoreDumpsOff),
        in_force(SandboxMeasure::PtraceRefused),
    ];
    items.push(match starminer_sandbox::lock_process() {
        Locked::All => PostureItem::new(SandboxMeasure::KeysLocked, PostureState::InForce, "all memory is locked"),
        Locked::None(reason) => PostureItem::new(SandboxMeasure::KeysLocked, PostureState::Absent, &reason),
    });
    Ok(items)
}

/// A broker that runs.
pub struct BrokerService {
    client: CoordinatorClient,
    identity: Arc<IdentityKey>,
    network: NetworkTrust,
    host: Arc<BrokerHost>,
    tee: SoftwareTee,
    posture: Posture,
}

struct BrokerHost {
    key: KemPrivateKey,
    own_evidence: Mutex<VecDeque<Digest>>,
}

impl ReleaserHost for BrokerHost {
    fn secret(&self, view: &AttemptView, spec: &Signed<TaskSpec>) -> Result<TaskSecret, Refusal> {
        let deposit = view.deposit.as_ref().ok_or_else(|| DepositError::Restarted.refusal())?;
        let own = |digest: &Digest| self.own_evidence.lock().unwrap_or_else(PoisonError::into_inner).contains(digest);
        open_deposit(&deposit.secret, &deposit.broker_evidence, own, spec, &self.key).map_err(|error| error.refusal())
    }

    fn knows(&self, _: &TaskId) -> bool {
        true
    }

    fn trust(&self, spec: &TaskSpec) -> Result<ReleaserTrust, Refusal> {
        ReleaserTrust::from_spec(spec).map_err(|error| {
            let remedy = "name fewer simulated roots in the policy";
            Refusal::new(starminer_verify::Party::Requester, "policy.too-many-roots", error.to_string(), remedy)
        })
    }

    /// Nothing to keep: the key that a restarted broker would need to release again is gone with this process.
    fn record(&self, _: &TaskId, _: LedgerRecord) -> Result<Option<Unsynced>, String> {
        Ok(None)
    }

    fn event(&self, event: Event) {
        tracing::info!(?event, "broker");
    }

    fn now(&self) -> UnixTime {
        now()
    }
}

impl BrokerService {
    /// Loads what `init` made and makes this start's keys.
    pub fn start(dir: &Path) -> anyhow::Result<Self> {
        let network = Home::read_network(&dir.join("network.toml"))?;
        let identity = Arc::new(IdentityKey::load(&dir.join("broker.key"))?);
        let settings = software_tee_settings(BootId(random_bytes()), measure_executable("/proc/self/exe")?);
        let tee = SoftwareTee::load(&dir.join("software-tee.key"), settings).context("the TEE's device key")?;
        let posture = Posture::new(own_posture()?, HostTree::machine().collect())?;
        let client = CoordinatorClient::connect_as(&network.coordinator.address, network.coordinator.key.0, &identity)?;
        let host = BrokerHost { key: KemPrivateKey::from_seed(&random_secret())?, own_evidence: Mutex::default() };
        Ok(Self { client, identity, network, host: Arc::new(host), tee, posture })
    }

    /// Its signing key, which specs name.
    pub fn key(&self) -> PublicKey {
        PublicKey(self.identity.public())
    }

    /// Answers and releases until `shutdown`; says when the coordinator knows it.
    pub async fn run(self, known: impl FnOnce(), shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        let seed = Zeroizing::new(*self.identity.seed());
        let releaser = Arc::new(Releaser::for_broker(
            self.client.clone(),
            SigningKey::from_seed(&seed),
            &self.network,
            Arc::clone(&self.host),
        ));
        tokio::select! {
            error = releaser.run() => Err(error.into()),
            () = self.answer_challenges(known) => Ok(()),
            () = shutdown => Ok(()),
        }
    }

    async fn answer_challenges(&self, known: impl FnOnce()) {
        let mut known = Some(known);
        loop {
            // The first question is answered at once, and makes this broker known.
            let wait_ms = if known.is_some() { 0 } else { MAX_POLL_WAIT_MS };
            let requests = match self.client.broker_requests(wait_ms).await {
                Ok(requests) => {
                    if let Some(known) = known.take() {
                        known();
                    }
                    requests
                }
                Err(error) => {
                    tracing::debug!(%error, "broker requests");
                    tokio::time::sleep(BACKOFF).await;
                    continue;
                }
            };
            for request in requests {
                let answered = match self.evidence(&request) {
                    Ok(answer) => self.client.broker_answer(&answer).await.map_err(anyhow::Error::from),
                    Err(error) => Err(error),
                };
                if let Err(error) = answered {
                    tracing::warn!(%error, "a challenge could not be answered");
                }
            }
        }
    }

    fn evidence(&self, request: &BrokerEvidenceRequest) -> anyhow::Result<BrokerEvidenceView> {
        let key = self.key();
        let binding = Binding {
            network: self.network.network,
            challenge: request.challenge,
            purpose: Purpose::Broker,
            spec: None,
            node: NodeId(key),
            attempt: None,
            boot: self.tee.boot(),
            task_key: TaskKey::from_bytes(Suite::XWingSha256Aes256Gcm, self.host.key.public_key()),
            report_key: Some(key),
            agent_key: key,
            tls_key: key,
            ak_name: None,
            posture: self.posture.digest(),
            subject: None,
        };
        let evidence =
            self.tee.attest(&[binding], &self.posture)?.into_iter().next().context("one binding, one evidence")?;
        let mut own = self.host.own_evidence.lock().unwrap_or_else(PoisonError::into_inner);
        if own.len() >= MAX_OWN_EVIDENCE {
            own.pop_front();
        }
        own.push_back(Digest::of(&evidence));
        drop(own);
        Ok(BrokerEvidenceView { challenge: request.challenge, evidence: evidence.into() })
    }
}
