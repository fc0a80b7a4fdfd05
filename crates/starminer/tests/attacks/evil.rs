//! A coordinator under the attacker's control: it has the real identity and log key, speaks the protocol, and lies where it is told to.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use starminer_attester::{Attester as _, SimulatedRoot};
use starminer_receipt::*;
use starminer_requester::{Home, JobPlan, Requester};
use starminer_tls::{
    Acceptor, AllowedPeers, Clock as _, IdentityKey, RotatingCertificate, Rotation, Side, SystemClock,
};
use starminer_verify::*;
use starminer_wire::*;
use zeroize::Zeroizing;

use crate::forged::Granted;
use crate::support::{Network, now};
use crate::world::{Log, key, posture, reference_values, tee_under};

/// Where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// Nowhere: the control.
    None,
    /// The evidence is of a TEE that it certified itself.
    OwnRoot,
    /// The evidence answers a challenge of its own.
    OldChallenge,
    /// The evidence is of another node than the lease.
    OtherNode,
    /// The task key in the evidence is exchanged for its own, after the TEE signed.
    OwnTaskKey,
    /// The evidence is of an agent that nobody knows.
    OtherAgent,
    /// The evidence is for another spec.
    OtherSpec,
    /// The release is not in the log; the proof is another entry's.
    NotLogged,
    /// The checkpoint is signed with another key.
    ForgedCheckpoint,
    /// From the second task on, it shows a log that does not continue the first.
    Fork,
    /// Nowhere, to the end: the control of the lies about results, which begin with the second task.
    HonestEnd,
    /// The report, and what is signed over it, are those of the first task.
    OtherReport,
    /// Everything is that of the first task.
    OtherReceipt,
    /// The report is honest, and the bytes under its output's content id are those of the first task.
    OtherOutput,
    /// The log entry of the report is that of the first task.
    OtherEntry,
    /// The log entry of the report names another statement, under the proof of the true one.
    AlteredEntry,
    /// The log entry of the report is left out.
    NoEntry,
    /// The report is another one, made after the true one was logged.
    LaterReport,
    /// The checkpoint of the receipt is signed with another key.
    ForgedReceiptCheckpoint,
    /// The receipt is under another history of the log, rightly signed.
    ForkedReceipt,
}

impl Lie {
    /// Whether tasks come to an end.
    fn ends(self) -> bool {
        use Lie::*;
        matches!(
            self,
            HonestEnd
                | OtherReport
                | OtherReceipt
                | OtherOutput
                | OtherEntry
                | AlteredEntry
                | NoEntry
                | LaterReport
                | ForgedReceiptCheckpoint
                | ForkedReceipt
        )
    }
}

pub struct Evil {
    pub lie: Lie,
    identity: IdentityKey,
    signer: SigningKey,
    root: SimulatedRoot,
    network: NetworkId,
    address: String,
    state: Mutex<State>,
}

struct State {
    log: Log,
    tasks: HashMap<TaskId, Task>,
    /// Tasks in the order in which they came.
    order: Vec<TaskId>,
    blobs: HashMap<String, Vec<u8>>,
    version: u64,
}

struct Task {
    spec: Signed<TaskSpec>,
    lease: Signed<Lease>,
    challenge: Option<Signed<ChallengeStatement>>,
    evidence: Option<Vec<u8>>,
    release: Option<Envelope>,
    changed: u64,
    granted: bool,
    denied: Vec<String>,
    parts: Option<ReceiptParts>,
}

const MEASUREMENT: Digest = Digest([0x4d; 32]);

impl Evil {
    /// Listens on a free port.
    pub async fn start(lie: Lie) -> Arc<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let identity = IdentityKey::generate().unwrap();
        let evil = Arc::new(Self {
            lie,
            signer: SigningKey::from_seed(&Zeroizing::new(*identity.seed())),
            root: SimulatedRoot::generate(&[20; 32]),
            network: NetworkId([1; 32]),
            address: listener.local_addr().unwrap().to_string(),
            identity,
            state: Mutex::new(State {
                log: Log::new(),
                tasks: HashMap::new(),
                order: Vec::new(),
                blobs: HashMap::new(),
                version: 1,
            }),
        });
        let clock = Arc::new(SystemClock);
        let key = Arc::new(IdentityKey::from_seed(evil.identity.seed()).unwrap());
        let certificate =
            RotatingCertificate::new(key, Side::Server, Rotation::default(), clock.unix_seconds()).unwrap();
        let acceptor = Arc::new(Acceptor::new(Arc::new(certificate), AllowedPeers::Any, clock).unwrap());
        let served = Arc::clone(&evil);
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, served) = (Arc::clone(&acceptor), Arc::clone(&served));
                tokio::spawn(async move {
                    let Ok(connection) = acceptor.accept(tcp).await else { return };
                    let service = hyper::service::service_fn(move |request| {
                        let served = Arc::clone(&served);
                        async move { Ok::<_, Infallible>(served.answer(request).await) }
                    });
                    let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(connection), service)
                        .await;
                });
            }
        });
        evil
    }

    pub fn trust(&self) -> NetworkTrust {
        let log_key = self.state.lock().unwrap().log.signer.key().encode();
        NetworkTrust::new(
            "evil".into(),
            self.network,
            CoordinatorEntry { address: self.address.clone(), key: PublicKey(self.identity.public()) },
            LogEntryKeys { key: log_key, witnesses: Vec::new(), witness_quorum: 0 },
            vec![SimulatedRootEntry { name: "test root".into(), root: self.root.id() }],
            reference_values(MEASUREMENT),
        )
        .unwrap()
    }

    /// A requester of this coordinator.
    pub fn requester(&self, dir: &std::path::Path) -> Requester {
        let trust = self.trust();
        let home = Home::open(dir).unwrap();
        let identity = Arc::new(IdentityKey::load_or_create(&home.identity_path()).unwrap());
        let client =
            starminer_client::CoordinatorClient::connect_as(&self.address, trust.coordinator.key.0, &identity).unwrap();
        Requester::start(client, home, trust, &Zeroizing::new(*identity.seed()), Arc::new(|_| {}), now).unwrap()
    }

    /// A job whose policy names the test root.
    pub fn job(&self) -> JobPlan {
        let trust = self.trust();
        Network::wasm_job_for(&trust, b"\0asm\x01\0\0\0".to_vec(), &[("a", b"CANARY".to_vec())])
    }

    pub fn granted(&self, task: &TaskId) -> bool {
        self.state.lock().unwrap().tasks[task].granted
    }

    pub fn denied(&self, task: &TaskId) -> Vec<String> {
        self.state.lock().unwrap().tasks[task].denied.clone()
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path().to_string();
        let after = request
            .uri()
            .query()
            .and_then(|query| query.split('&').find_map(|pair| pair.strip_prefix("after=")?.parse().ok()));
        let remembered = request
            .uri()
            .query()
            .and_then(|query| query.split('&').find_map(|pair| pair.strip_prefix("remembered=")?.parse().ok()));
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let value = if let Some(blob) = self.blob(&path) {
            return Response::new(Full::new(blob.into()));
        } else if path.contains("/blobs/") {
            json!({ "stored_bytes": 0, "complete": true })
        } else if let Some(task) = path.strip_suffix("/receipt") {
            self.receipt(task.rsplit('/').next().unwrap().parse().unwrap(), remembered.unwrap_or(0))
        } else if path == paths::TASKS {
            self.submit(&serde_json::from_slice(&body).unwrap())
        } else if path == paths::FEED {
            let after: u64 = after.unwrap_or(0);
            if self.state.lock().unwrap().version <= after {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            self.feed(after)
        } else if path.ends_with("/challenge") {
            self.challenge(serde_json::from_slice(&body).unwrap())
        } else if path.ends_with("/release") {
            self.release(serde_json::from_slice(&body).unwrap())
        } else if path.ends_with("/grant") {
            let request: GrantRequest = serde_json::from_slice(&body).unwrap();
            let grant = request.grant.open::<Grant>().unwrap();
            if self.lie.ends() {
                self.run(grant.clone(), request.attestation_result);
            }
            self.with_task(grant.task, |task| task.granted = true)
        } else if path.ends_with("/deny") {
            let request: DenyRequest = serde_json::from_slice(&body).unwrap();
            let denial = request.denial.open::<DenyStatement>().unwrap();
            let reasons: Vec<String> = denial.reasons.iter().map(|reason| reason.check().to_string()).collect();
            self.with_task(denial.task, |task| task.denied = reasons)
        } else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let task = path.rsplit('/').next().unwrap().parse().unwrap();
            self.view(task)
        };
        Response::new(Full::new(value.to_string().into()))
    }

    fn view(&self, task: TaskId) -> serde_json::Value {
        let state = self.state.lock().unwrap();
        let known = &state.tasks[&task];
        serde_json::to_value(TaskView {
            task,
            spec: known.spec.digest(),
            state: if known.parts.is_some() { TaskState::Completed } else { TaskState::Leased },
            version: 1,
            attempt: Some(Attempt(1)),
            node: None,
            submitted_at: now(),
            changed_at: now(),
            refusal: None,
            queue_position: None,
        })
        .unwrap()
    }

    fn submit(&self, request: &SubmitRequest) -> serde_json::Value {
        let spec = request.spec.clone().open::<TaskSpec>().unwrap();
        let task = spec.task;
        let lease = Lease {
            network: self.network,
            task,
            spec: spec.digest(),
            node: NodeId(PublicKey([40; 32])),
            attempt: Attempt(1),
            issued_at: now(),
            expires_at: UnixTime(now().0 + 60_000),
            coordinator: self.signer.public_key(),
        };
        let lease = Envelope::sign(lease, &self.signer).unwrap();
        let mut state = self.state.lock().unwrap();
        if self.lie == Lie::Fork && !state.tasks.is_empty() {
            // Another history, longer than the one that was shown.
            state.log = Log::new();
            for n in 0..20 {
                state.log.append_at(EntryKind::Genesis, None, None, Digest([n; 32]), now());
            }
        }
        state.log.append_at(EntryKind::Submitted, Some(task), None, spec.digest(), now());
        state.log.append_at(EntryKind::Leased, Some(task), Some(Attempt(1)), lease.digest(), now());
        state.order.push(task);
        state.version += 1;
        let changed = state.version;
        let known = Task {
            spec,
            lease,
            challenge: None,
            evidence: None,
            release: None,
            changed,
            granted: false,
            denied: Vec::new(),
            parts: None,
        };
        state.tasks.insert(task, known);
        drop(state);
        self.view(task)
    }

    fn feed(&self, after: u64) -> serde_json::Value {
        let state = self.state.lock().unwrap();
        let changed =
            state.tasks.iter().filter(|(_, task)| task.changed > after && !task.granted && task.denied.is_empty());
        let attempts = changed.map(|(id, task)| AttemptView {
            endorsements: None,
            task: *id,
            attempt: Attempt(1),
            state: if task.evidence.is_some() { TaskState::Attested } else { TaskState::Leased },
            ended: false,
            spec: task.spec.envelope().clone(),
            lease: task.lease.envelope().clone(),
            challenge: task.challenge.as_ref().map(|challenge| challenge.envelope().clone()),
            evidence: task.evidence.clone().map(Base64Bytes),
            deposit: None,
            release: None,
            grant: None,
            checkpoint: None,
        });
        serde_json::to_value(FeedResponse {
            epoch: 1,
            version: state.version,
            attempts: attempts.collect(),
            over: Vec::new(),
        })
        .unwrap()
    }

    fn challenge(&self, request: ChallengeRequest) -> serde_json::Value {
        let challenge = request.challenge.open::<ChallengeStatement>().unwrap();
        let mut state = self.state.lock().unwrap();
        state.version += 1;
        let version = state.version;
        let State { log, tasks, .. } = &mut *state;
        let task = tasks.get_mut(&challenge.task).unwrap();
        let evidence = self.evidence(&task.spec, &task.lease, &challenge, None);
        log.append_at(EntryKind::Attested, Some(challenge.task), Some(Attempt(1)), Digest::of(&evidence), now());
        task.evidence = Some(evidence);
        task.challenge = Some(challenge);
        task.changed = version;
        json!({ "state": "challenged" })
    }

    /// Evidence of the node, which is honest where nothing else is said; with `subject`, closing evidence over that report.
    fn evidence(
        &self,
        spec: &Signed<TaskSpec>,
        lease: &Lease,
        challenge: &ChallengeStatement,
        subject: Option<Digest>,
    ) -> Vec<u8> {
        let posture = posture(PostureState::InForce);
        let honest = KemPrivateKey::from_seed(&Zeroizing::new([31; 32])).unwrap();
        let mut binding = Binding {
            network: self.network,
            challenge: challenge.challenge,
            purpose: if subject.is_some() { Purpose::ClosingTask } else { Purpose::Task },
            spec: Some(spec.digest()),
            node: lease.node,
            attempt: Some(Attempt(1)),
            boot: BootId([3; 16]),
            task_key: TaskKey::from_bytes(Suite::XWingSha256Aes256Gcm, honest.public_key()),
            report_key: Some(key(35).public_key()),
            agent_key: key(33).public_key(),
            tls_key: PublicKey([34; 32]),
            ak_name: None,
            posture: posture.digest(),
            subject,
        };
        let (mut root, mut measurement) = (&self.root, MEASUREMENT);
        let own_root = SimulatedRoot::generate(&[66; 32]);
        match self.lie {
            Lie::OwnRoot => root = &own_root,
            Lie::OldChallenge => binding.challenge = Challenge([1; 32]),
            Lie::OtherNode => binding.node = NodeId(PublicKey([41; 32])),
            Lie::OtherSpec => binding.spec = Some(Digest([1; 32])),
            Lie::OtherAgent => measurement = Digest([0x66; 32]),
            _ => {}
        }
        // The test TEE's certificate is of the world's time; this evidence is of now.
        let tee = tee_under_now(root, measurement);
        let evidence = tee.attest(&[binding], &posture).unwrap().remove(0);
        if self.lie == Lie::OwnTaskKey {
            let own = KemPrivateKey::from_seed(&Zeroizing::new([67; 32])).unwrap();
            let base64 = |key: &KemPrivateKey| data_encoding::BASE64.encode(key.public_key());
            let text = String::from_utf8(evidence).unwrap();
            let swapped = text.replace(&base64(&honest), &base64(&own));
            assert_ne!(swapped, text);
            return swapped.into_bytes();
        }
        evidence
    }

    fn release(&self, request: ReleaseRequest) -> serde_json::Value {
        let release = request.release.open::<ReleaseStatement>().unwrap();
        let mut state = self.state.lock().unwrap();
        let index = state.log.append_at(
            EntryKind::Released,
            Some(release.task),
            Some(release.attempt),
            release.digest(),
            now(),
        );
        state.tasks.get_mut(&release.task).unwrap().release = Some(release.envelope().clone());
        let mut logged = state.log.logged(index);
        let mut checkpoint = state.log.note();
        match self.lie {
            Lie::NotLogged => logged.inclusion = state.log.logged(index - 1).inclusion,
            Lie::ForgedCheckpoint => {
                let name = state.log.signer.name().clone();
                let other = starminer_log::LogSigner::from_seed(name, &[78; 32]);
                checkpoint = state.log.checkpoint().checkpoint().sign(&other).unwrap().as_str().to_string();
            }
            _ => {}
        }
        let consistency = Some(state.log.consistency_from(request.remembered_size));
        let proof = LogProof { checkpoint, entry: Some(logged.entry), inclusion: Some(logged.inclusion), consistency };
        serde_json::to_value(ReleaseResponse { proof }).unwrap()
    }

    /// What the node makes of a task: an honest report of an output that names the task, and everything that goes with it.
    fn run(&self, grant: Signed<Grant>, attestation_result: Base64Bytes) {
        let mut state = self.state.lock().unwrap();
        let State { log, tasks, blobs, .. } = &mut *state;
        let task = tasks.get_mut(&grant.task).unwrap();
        let granted = Granted {
            spec: task.spec.clone(),
            lease: task.lease.clone(),
            challenge: task.challenge.clone().unwrap(),
            evidence: task.evidence.clone().unwrap(),
            grant,
        };
        let id = granted.spec.task;
        let produced = granted.produce(&[("result.txt", format!("the result of {id}").as_bytes())]);
        blobs.insert(produced.objects[0].content_id.to_hex(), produced.blobs[0].clone());
        let honest = granted.predicate(&produced, key(35).public_key());
        let report = Envelope::sign(Report::new(honest.clone()), &key(35)).unwrap();
        log.append_at(EntryKind::Granted, Some(id), Some(Attempt(1)), granted.grant.digest(), now());
        let logged = report.digest();
        // A node that is in league with the coordinator signs whatever is wanted; the log has only the first.
        let report = match self.lie {
            Lie::LaterReport => {
                Envelope::sign(Report::new(ReportPredicate { outputs: Vec::new(), ..honest }), &key(35))
            }
            _ => Ok(report),
        }
        .unwrap();
        let statement = Envelope::sign(granted.agent_statement(report.digest(), &key(33)), &key(33)).unwrap();
        let closing = self.evidence(&task.spec, &task.lease, &granted.challenge, Some(report.digest()));
        let annex = LogEntry::annex_of(Some(statement.digest()), Some(Digest::of(&closing)));
        log.append_report(id, Attempt(1), logged, annex, now());
        task.parts = Some(ReceiptParts {
            endorsements: None,
            spec: granted.spec.envelope().clone(),
            lease: Some(granted.lease.into_envelope()),
            challenge: Some(granted.challenge.into_envelope()),
            evidence: Some(granted.evidence.into()),
            attestation_result: Some(attestation_result),
            release: task.release.clone(),
            grant: Some(granted.grant.into_envelope()),
            denial: None,
            cancel: None,
            report: Some(report.into_envelope()),
            agent_statement: Some(statement.into_envelope()),
            closing_evidence: Some(closing.into()),
            checkpoint: String::new(),
            consistency: None,
            entries: Vec::new(),
        });
    }

    fn first_and(&self, state: &State, task: TaskId) -> Option<ReceiptParts> {
        let first = *state.order.first().filter(|first| **first != task)?;
        self.honest_receipt(state, first)
    }

    fn honest_receipt(&self, state: &State, task: TaskId) -> Option<ReceiptParts> {
        let entries = state.log.of_task(task).into_iter();
        let entries =
            entries.map(|entry| LoggedEntryParts { entry: entry.entry, inclusion: entry.inclusion }).collect();
        Some(ReceiptParts { checkpoint: state.log.note(), entries, ..state.tasks[&task].parts.clone()? })
    }

    fn receipt(&self, task: TaskId, remembered: u64) -> serde_json::Value {
        let state = self.state.lock().unwrap();
        let mut parts = self.honest_receipt(&state, task).unwrap();
        parts.consistency = Some(state.log.consistency_from(remembered));
        // Lies begin with the second task: the first one is what they are made of.
        if let Some(first) = self.first_and(&state, task) {
            match self.lie {
                Lie::OtherReport => {
                    parts.report = first.report;
                    parts.agent_statement = first.agent_statement;
                    parts.closing_evidence = first.closing_evidence;
                }
                Lie::OtherReceipt => parts = first,
                Lie::OtherEntry => {
                    parts.entries.pop();
                    parts.entries.extend(first.entries.last().cloned());
                }
                Lie::AlteredEntry => {
                    let last = parts.entries.last_mut().unwrap();
                    let mut entry = LogEntry::parse(&last.entry.0).unwrap();
                    entry.statement = Digest([5; 32]);
                    last.entry = entry.encode().into();
                }
                Lie::ForkedReceipt => {
                    let mut other = Log::new();
                    for (index, entry) in state.log.entries.iter().enumerate() {
                        let statement = if index == 0 { Digest([6; 32]) } else { entry.statement };
                        other.push(LogEntry { statement, ..entry.clone() });
                    }
                    parts.checkpoint = other.note();
                    parts.consistency = Some(other.consistency_from(remembered));
                    let entries = other.of_task(task).into_iter();
                    parts.entries = entries
                        .map(|entry| LoggedEntryParts { entry: entry.entry, inclusion: entry.inclusion })
                        .collect();
                }
                Lie::NoEntry => drop(parts.entries.pop()),
                Lie::ForgedReceiptCheckpoint => {
                    let other = starminer_log::LogSigner::from_seed(state.log.signer.name().clone(), &[78; 32]);
                    parts.checkpoint = state.log.checkpoint().checkpoint().sign(&other).unwrap().as_str().to_string();
                }
                _ => {}
            }
        }
        serde_json::to_value(parts).unwrap()
    }

    /// A blob that the node made, or what this coordinator says is that blob.
    fn blob(&self, path: &str) -> Option<Vec<u8>> {
        let state = self.state.lock().unwrap();
        let blob = state.blobs.get(path.strip_prefix("/v1/blobs/")?)?;
        let first = state.tasks[state.order.first()?].parts.as_ref()?.report.clone()?.open::<Report>().unwrap();
        let swapped = (self.lie == Lie::OtherOutput).then(|| first.predicate.outputs[0].content_id.to_hex());
        swapped.map_or_else(|| Some(blob.clone()), |id| state.blobs.get(&id).cloned())
    }

    fn with_task(&self, task: TaskId, change: impl FnOnce(&mut Task)) -> serde_json::Value {
        change(self.state.lock().unwrap().tasks.get_mut(&task).unwrap());
        json!({ "state": "granted" })
    }
}

fn tee_under_now(root: &SimulatedRoot, measurement: Digest) -> starminer_attester::SoftwareTee {
    // `tee_under` certifies from the world's fixed time; move it to this machine's.
    tee_under(root, measurement, false, now())
}
