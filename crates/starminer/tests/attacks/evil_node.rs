//! A node under the attacker's control: admitted, leased to and granted to like any other, with every key in the attacker's hands, as a
//! software TEE allows. It proves itself honestly, and lies where a test tells it to.

use std::collections::HashMap;
use std::sync::Arc;

use starminer_attester::{Attester as _, SimulatedRoot, SoftwareTee, SoftwareTeeSettings, measure_executable};
use starminer_client::{ClientError, CoordinatorClient, UploadSource};
use starminer_receipt::*;
use starminer_requester::random_secret;
use starminer_tls::IdentityKey;
use starminer_verify::software_tee::{ChipId, DebugMode, MemoryEncryption};
use starminer_verify::*;
use starminer_wire::*;
use tokio::sync::Mutex;

use crate::forged::{Granted, Produced};
use crate::support::{Network, now, program};
use crate::world::posture;

const BOOT: BootId = BootId([0xEE; 16]);
/// How long one poll waits for something new.
const POLL_MS: u64 = 2_000;
/// Polls that may bring nothing before a test gives up.
const MAX_POLLS: u32 = 20;

pub struct EvilNode {
    pub client: CoordinatorClient,
    /// The key that leases name.
    pub identity: SigningKey,
    network: NetworkId,
    tee: SoftwareTee,
    pub task_key: KemPrivateKey,
    pub report_key: SigningKey,
    pub agent_key: SigningKey,
    feed: Mutex<Feed>,
}

#[derive(Default)]
struct Feed {
    epoch: u64,
    version: u64,
    views: HashMap<TaskId, AttemptView>,
}

impl EvilNode {
    /// Joins a network, with a TEE that its root certified and the measurement of the real agent.
    pub async fn join(network: &Network) -> Self {
        let identity = Arc::new(IdentityKey::generate().unwrap());
        let root = SimulatedRoot::load(&network.path("coordinator").join("software-tee-root.key")).unwrap();
        let seed = random_secret();
        let request = SoftwareTee::request(&seed, ChipId([0xE1; 32]));
        let certificate = root.certify(&request, UnixTime(0), now().saturating_add_millis(1 << 40)).unwrap();
        let settings = SoftwareTeeSettings {
            boot: BOOT,
            measurement: measure_executable(program()).unwrap(),
            debug: DebugMode::Off,
            memory_encryption: MemoryEncryption::Claimed,
            tcb_version: 1,
        };
        let node = Self {
            client: network.client(&identity),
            identity: SigningKey::from_seed(&zeroize::Zeroizing::new(*identity.seed())),
            network: network.trust().network,
            tee: SoftwareTee::new(&seed, certificate, settings).unwrap(),
            task_key: KemPrivateKey::from_seed(&random_secret()).unwrap(),
            report_key: SigningKey::from_seed(&random_secret()),
            agent_key: SigningKey::from_seed(&random_secret()),
            feed: Mutex::default(),
        };
        let challenge = node.client.admission_challenge().await.unwrap().challenge;
        let evidence = node.attest(node.binding(Purpose::Admission, challenge));
        node.client
            .admit(&AdmissionRequest { evidence: evidence.into(), enrolments: Vec::new(), activation: None })
            .await
            .unwrap();
        node
    }

    fn binding(&self, purpose: Purpose, challenge: Challenge) -> Binding {
        Binding {
            network: self.network,
            challenge,
            purpose,
            spec: None,
            node: NodeId(self.identity.public_key()),
            attempt: None,
            boot: BOOT,
            task_key: None,
            report_key: None,
            agent_key: self.agent_key.public_key(),
            tls_key: self.identity.public_key(),
            ak_name: None,
            posture: posture(PostureState::InForce).digest(),
            subject: None,
        }
    }

    fn task_binding(&self, spec: &Signed<TaskSpec>, lease: &Lease, challenge: Challenge, purpose: Purpose) -> Binding {
        Binding {
            spec: Some(spec.digest()),
            attempt: Some(lease.attempt),
            task_key: TaskKey::from_bytes(Suite::XWingSha256Aes256Gcm, self.task_key.public_key()),
            report_key: Some(self.report_key.public_key()),
            ..self.binding(purpose, challenge)
        }
    }

    fn attest(&self, binding: Binding) -> Vec<u8> {
        self.tee.attest(&[binding], &posture(PostureState::InForce)).unwrap().remove(0)
    }

    /// Evidence over a report.
    pub fn closing(&self, granted: &Granted, report: Digest) -> Vec<u8> {
        let purpose = Purpose::ClosingTask;
        let binding = self.task_binding(&granted.spec, &granted.lease, granted.challenge.challenge, purpose);
        self.attest(Binding { subject: Some(report), ..binding })
    }

    /// Polls until the task's attempt here has what is looked for.
    async fn until<T>(&self, task: TaskId, found: impl Fn(&AttemptView) -> Option<T>) -> T {
        let mut feed = self.feed.lock().await;
        for _ in 0..MAX_POLLS {
            if let Some(found) = feed.views.get(&task).and_then(&found) {
                return found;
            }
            let request = NodeFeedRequest {
                epoch: feed.epoch,
                after: feed.version,
                wait_ms: POLL_MS,
                free_places: 1,
                boot: BOOT,
                holds: Vec::new(),
                unclean: false,
            };
            let answer = self.client.node_feed(&request).await.unwrap();
            if answer.epoch != feed.epoch {
                feed.views.clear();
            }
            (feed.epoch, feed.version) = (answer.epoch, answer.version);
            feed.views.extend(answer.attempts.into_iter().map(|view| (view.task, view)));
        }
        panic!("nothing more came of task {task}: {:?}", feed.views.get(&task).map(|view| view.state));
    }

    /// Takes a task up to its evidence, for which no grant has to come.
    pub async fn prove(&self, task: TaskId) -> (Signed<TaskSpec>, Signed<Lease>, Signed<ChallengeStatement>, Vec<u8>) {
        let (spec, lease) = self.until(task, |view| Some((view.spec.clone(), view.lease.clone()))).await;
        let (spec, lease) = (spec.open::<TaskSpec>().unwrap(), lease.open::<Lease>().unwrap());
        let challenge = self.until(task, |view| view.challenge.clone()).await.open::<ChallengeStatement>().unwrap();
        let evidence = self.attest(self.task_binding(&spec, &lease, challenge.challenge, Purpose::Task));
        let request = EvidenceRequest { evidence: evidence.clone().into(), enrolments: Vec::new() };
        self.client.evidence(&task, lease.attempt, &request).await.unwrap();
        (spec, lease, challenge, evidence)
    }

    /// Takes a task up to its grant.
    pub async fn take(&self, task: TaskId) -> Granted {
        let (spec, lease, challenge, evidence) = self.prove(task).await;
        let grant = self.until(task, |view| view.grant.clone()).await.open::<Grant>().unwrap();
        Granted { spec, lease, challenge, evidence, grant }
    }

    /// Uploads ciphertext under its true content id.
    pub async fn upload(&self, blob: &[u8]) {
        let id = Digest(*blake3::hash(blob).as_bytes());
        let source = UploadSource::Bytes(blob.to_vec().into());
        self.client.upload(&id, blob.len() as u64, source, |_| {}).await.unwrap();
    }

    /// The honest report of what was produced, and everything that goes with it.
    pub fn request(&self, granted: &Granted, produced: &Produced) -> ReportRequest {
        self.request_of(granted, granted.predicate(produced, self.report_key.public_key()), &self.report_key)
    }

    /// Any report, with an honest agent's word over it.
    pub fn request_of(&self, granted: &Granted, predicate: ReportPredicate, key: &SigningKey) -> ReportRequest {
        let report = Envelope::sign(Report::new(predicate), key).unwrap();
        let statement = granted.agent_statement(report.digest(), &self.agent_key);
        ReportRequest {
            agent_statement: Some(Envelope::sign(statement, &self.agent_key).unwrap().into_envelope()),
            closing_evidence: Some(self.closing(granted, report.digest()).into()),
            report: report.into_envelope(),
        }
    }

    /// Sends a report for an attempt; the code where it was refused.
    pub async fn report(&self, granted: &Granted, request: &ReportRequest) -> Result<TaskState, String> {
        match self.client.report(&granted.spec.task, granted.lease.attempt, request).await {
            Ok(accepted) => Ok(accepted.state),
            Err(ClientError::Refused { refusal, .. }) => Err(refusal.check().to_owned()),
            Err(other) => panic!("{other}"),
        }
    }
}
