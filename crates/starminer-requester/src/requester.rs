//! A requester: submits tasks, releases their keys (or leaves them with a broker), collects results.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use starminer_broker::{Ledger, LedgerRecord, ReleaserTrust, seal_deposit, verify_broker_evidence};
use starminer_client::{ClientError, CoordinatorClient, UploadSource};
use starminer_receipt::{
    Base64Bytes, CancelStatement, Envelope, KemPrivateKey, NetworkTrust, Outcome, ReceiptVerdict, Report, RunDetails,
    Signed, Signer as _, SigningKey, TaskSpec, VerifiedEnvelopes,
};
use starminer_vault::TaskSecret;
use starminer_verify::{Challenge, Party, Policy, PublicKey, Refusal, SandboxMeasure, TaskId, UnixTime};
use starminer_wire::{
    AttemptView, BrokerEvidenceRequest, CancelRequest, Deposit, MAX_ATTACHED_BYTES, MAX_POLL_WAIT_MS, SubmitRequest,
    TaskView,
};
use zeroize::Zeroizing;

use crate::home::{ANYONE, Home, HomeError, replace_file};
use crate::journal::{Durability, Journal, JournalError, JournalKey, JournalRecord, TaskStart, Unsynced};
use crate::log_memory::{self, LogMemory};
use crate::outputs::{OpenedOutput, OpenedResult, OutputsError};
use crate::plan::{InputSource, JobPlan, Parties, PlanError, PreparedTask, SealedBlob};
use crate::progress::{Event, EventSink};
use crate::receipts::receipt_from_parts;
use crate::releaser::{Releaser, ReleaserError, ReleaserHost};
use crate::results::Staging;
use crate::secrets::{random_bytes, random_secret};
use crate::staging::StagingArea;
use crate::stop::Stoppable;

/// Whether somebody asked to stop.
pub type StopAsked = Arc<dyn Fn() -> bool + Send + Sync>;

/// Outputs up to this length are opened in memory; longer ones go through a staging file, as ciphertext.
const IN_MEMORY_BYTES: u64 = 1 << 20;
/// How often the last checkpoint is kept.
const REMEMBER_EVERY: Duration = Duration::from_secs(1);
/// First and longest pause between tries while the coordinator cannot be reached.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// Why a requester's command failed.
#[derive(Debug, thiserror::Error)]
pub enum RequesterError {
    /// The coordinator could not be reached or refused.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The job cannot be prepared.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The journal cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The home directory cannot be used.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The result cannot be opened.
    #[error(transparent)]
    Outputs(#[from] OutputsError),
    /// Releasing keys had to stop.
    #[error(transparent)]
    Releaser(#[from] ReleaserError),
    /// Who asked for it asked to stop. Nothing is lost.
    #[error("asked to stop")]
    Stopped,
    /// Somebody refused, or cannot be trusted.
    #[error("{}: {}", .0.check(), .0.reason())]
    Refused(Refusal),
    /// The coordinator did not answer: whether it took the task is not known. The journal is kept.
    #[error("whether task {task} was taken is not known: {source}")]
    Unacknowledged {
        /// The task.
        task: TaskId,
        /// Why there is no answer.
        source: Box<ClientError>,
    },
    /// No such task in this home.
    #[error("no task {0} in this home")]
    UnknownTask(String),
    /// The receipt cannot be written.
    #[error("{path}")]
    Receipt {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// A task that has ended, with what came of it.
#[derive(Debug)]
pub struct TaskOutcome {
    /// The task.
    pub task: TaskId,
    /// Its last view.
    pub view: TaskView,
    /// How it ended by its report; absent when cancelled before a report.
    pub outcome: Option<Outcome>,
    /// Exact figures, where the result could be opened.
    pub details: Option<RunDetails>,
    /// The outputs on disk.
    pub outputs: Vec<OpenedOutput>,
    /// Where the receipt is.
    pub receipt_path: PathBuf,
    /// What verifying it with the own trust found.
    pub verdict: ReceiptVerdict,
}

/// What became of a task that was to be cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a task that was never taken has no receipt"]
pub enum Cancelled {
    /// The coordinator ends it; its receipt says so.
    Ending,
    /// The coordinator never took it. Its journal is removed, and nothing is left of it.
    NeverTaken,
}

struct Open {
    secret: Option<TaskSecret>,
    result_seed: Zeroizing<[u8; 32]>,
    /// The key that it is the seed of: expanding it costs as much as opening a result.
    result_key: Arc<KemPrivateKey>,
    spec: Signed<TaskSpec>,
    journal: Journal,
}

/// Secrets and journals of the tasks that are open in this process.
struct RequesterHost {
    open: Mutex<HashMap<TaskId, Open>>,
    trust: ReleaserTrust,
    events: EventSink,
    clock: fn() -> UnixTime,
}

impl RequesterHost {
    fn open(&self) -> std::sync::MutexGuard<'_, HashMap<TaskId, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ReleaserHost for RequesterHost {
    fn secret(&self, view: &AttemptView, spec: &Signed<TaskSpec>) -> Result<TaskSecret, Refusal> {
        let open = self.open();
        let unknown = |reason| {
            Refusal::new(
                Party::Releaser,
                "release.unknown-task",
                reason,
                "submit the task again from where its journal is",
            )
        };
        let task = open.get(&view.task).ok_or_else(|| unknown("this releaser has no such task"))?;
        if task.spec.digest() != spec.digest() {
            return Err(unknown("the spec shown is not the one that was submitted"));
        }
        let secret = task.secret.as_ref().ok_or_else(|| unknown("a broker releases this task"))?;
        Ok(TaskSecret::from_bytes(*secret.expose()))
    }

    fn knows(&self, task: &TaskId) -> bool {
        self.open().contains_key(task)
    }

    fn trust(&self, _: &TaskSpec) -> Result<ReleaserTrust, Refusal> {
        Ok(self.trust.clone())
    }

    fn record(&self, task: &TaskId, record: LedgerRecord) -> Result<Option<Unsynced>, String> {
        let mut open = self.open();
        let task = open.get_mut(task).ok_or("the task is not open")?;
        // An approval must never be forgotten: it is the one release of its attempt. A lost challenge leaves evidence unanswered; a lost
        // grant is sealed again, to the same key, for the same approval. A checkpoint that is forgotten may be rolled back behind.
        let durability = match &record {
            LedgerRecord::Approved { .. } | LedgerRecord::Checkpointed { .. } => Durability::Durable,
            LedgerRecord::Challenged { .. } | LedgerRecord::Granted { .. } | LedgerRecord::Denied { .. } => {
                Durability::Eventual
            }
        };
        task.journal.append(&JournalRecord::Ledger(record), durability).map_err(|error| error.to_string())
    }

    fn event(&self, event: Event) {
        (self.events)(event);
    }

    fn now(&self) -> UnixTime {
        (self.clock)()
    }
}

/// A requester that is connected to a network.
pub struct Requester {
    client: CoordinatorClient,
    home: Home,
    network: NetworkTrust,
    signer: SigningKey,
    journal_key: JournalKey,
    host: Arc<RequesterHost>,
    memory: Arc<LogMemory>,
    releaser: Arc<Releaser<RequesterHost>>,
    releasing: tokio::task::JoinHandle<()>,
    /// Told when there is a first task to release for.
    begin: Arc<tokio::sync::Notify>,
    stopped: tokio::sync::watch::Receiver<Option<ReleaserError>>,
    staging: StagingArea,
    stop: StopAsked,
    remembered_at: tokio::sync::Mutex<Option<Instant>>,
    resuming: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Requester {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Requester").field("identity", &self.signer).finish_non_exhaustive()
    }
}

impl Drop for Requester {
    fn drop(&mut self) {
        self.releasing.abort();
        // Journals are let go here, whatever step still runs: without its journal it comes to nothing.
        self.host.open().clear();
        if let Some(remembered) = self.memory.take_changed()
            && let Err(error) = self.home.remember(&self.network, &remembered)
        {
            tracing::warn!(%error, "the last checkpoint could not be remembered");
        }
    }
}

impl Requester {
    /// A requester that has no task open: it releases for those it submits, and for those it is told to [resume](Self::resume). Any number of
    /// processes may use one home, and each leaves the tasks of the others alone. `identity_seed` is that of the identity the client
    /// connects with.
    ///
    /// # Errors
    /// The remembered checkpoint is unusable.
    pub fn start(
        client: CoordinatorClient,
        home: Home,
        network: NetworkTrust,
        identity_seed: &Zeroizing<[u8; 32]>,
        events: EventSink,
        clock: fn() -> UnixTime,
    ) -> Result<Self, RequesterError> {
        let signer = SigningKey::from_seed(identity_seed);
        let journal_key = JournalKey::from_identity_seed(identity_seed);
        let remembered = home.remembered(&network)?;
        let memory = Arc::new(LogMemory::new(network.log_key().clone(), remembered));
        let trust = ReleaserTrust::from_network(&network).map_err(|error| {
            let remedy = "name fewer simulated roots in network.toml";
            RequesterError::Refused(Refusal::new(Party::Requester, "network.too-many-roots", error.to_string(), remedy))
        })?;
        let host = Arc::new(RequesterHost { open: Mutex::default(), trust, events, clock });
        let releaser = Arc::new(Releaser::new(
            client.clone(),
            SigningKey::from_seed(identity_seed),
            network.network,
            Arc::clone(&host),
            Ledger::default(),
            Arc::clone(&memory),
        ));
        let (stop, stopped) = tokio::sync::watch::channel(None);
        let begin = Arc::new(tokio::sync::Notify::new());
        let (running, begun) = (Arc::clone(&releaser), Arc::clone(&begin));
        let releasing = tokio::spawn(async move {
            begun.notified().await;
            let error = running.run().await;
            let _ = stop.send(Some(error));
        });
        let staging = StagingArea::below(home.staging_dir());
        Ok(Self {
            client,
            home,
            staging,
            stop: Arc::new(|| false),
            network,
            signer,
            journal_key,
            host,
            memory,
            releaser,
            releasing,
            begin,
            stopped,
            remembered_at: tokio::sync::Mutex::default(),
            resuming: tokio::sync::Mutex::default(),
        })
    }

    /// Ends what takes long and waits for nobody, sealing and opening, once this says so: [`RequesterError::Stopped`].
    #[must_use]
    pub fn stopping_when(mut self, asked: StopAsked) -> Self {
        self.stop = asked;
        self
    }

    /// Opens a task of this home, unless it is open here already, and releases for it from here on.
    ///
    /// # Errors
    /// [`RequesterError::UnknownTask`]; [`JournalError::Held`] where another process has it open; its journal is damaged.
    pub async fn resume(&self, task: &TaskId) -> Result<(), RequesterError> {
        // One at a time: this process would find its own lock.
        let _resuming = self.resuming.lock().await;
        if self.host.knows(task) {
            return Ok(());
        }
        let (journal_dir, key, task) = (self.home.journal_dir(), self.journal_key.clone(), *task);
        let (journal, records) = known(&task, blocking(move || Journal::open(&journal_dir, &key, task)).await)?;
        let (open, records) = reopen(task, journal, records)?;
        self.releaser.recall(records).map_err(|error| damaged(&task, &error.to_string()))?;
        self.host.open().insert(task, open);
        self.releaser.rewind();
        self.begin.notify_one();
        Ok(())
    }

    /// The connection to the coordinator.
    #[must_use]
    pub fn client(&self) -> &CoordinatorClient {
        &self.client
    }

    pub(crate) fn home(&self) -> &Home {
        &self.home
    }

    pub(crate) fn network(&self) -> &NetworkTrust {
        &self.network
    }

    pub(crate) fn now(&self) -> UnixTime {
        (self.host.clock)()
    }

    /// Takes in a checkpoint that came without a proof: that it continues the remembered log is asked for at once.
    pub(crate) async fn see_checkpoint(&self, checkpoint: &str) -> Result<(), RequesterError> {
        self.memory.take(None, checkpoint, None).map_err(RequesterError::Refused)?;
        self.releaser.join_at_once().await
    }

    /// Seals a job, uploads it and submits it. With `broker`, the secret is left with that broker, once it has proven itself.
    ///
    /// # Errors
    /// Every variant of [`RequesterError`] but those of results.
    pub async fn submit(
        &self,
        plan: &JobPlan,
        output_dir: Option<PathBuf>,
        broker: Option<PublicKey>,
    ) -> Result<TaskId, RequesterError> {
        let verified_broker = match broker {
            Some(broker) => Some(self.verify_broker(broker, plan).await?),
            None => None,
        };
        let prepared = self.prepare(plan, broker)?;
        let deposit = match &verified_broker {
            Some(verified) => Some(Deposit {
                broker_evidence: verified.evidence_digest(),
                secret: seal_deposit(verified, &prepared.spec.digest(), &prepared.secret, &random_secret()).map_err(
                    |error| refused(Party::Releaser, "broker.bad-key", &error.to_string(), "use another broker"),
                )?,
            }),
            None => None,
        };
        self.submit_sealed(prepared, deposit, output_dir).await
    }

    /// Seals a job under a fresh task secret and signs its spec, for this requester to release or, with `broker`, for that one. Nothing is
    /// sent yet.
    ///
    /// # Errors
    /// [`RequesterError::Plan`].
    pub fn prepare(&self, plan: &JobPlan, broker: Option<PublicKey>) -> Result<PreparedTask, RequesterError> {
        let releaser = broker.unwrap_or_else(|| self.signer.public_key());
        let parties = Parties { network: self.network.network, requester: &self.signer, releaser };
        let now = (self.host.clock)();
        let prepare = || plan.prepare(parties, &self.staging, &self.stop, now, &self.host.events);
        // Handing the thread's other work over costs more than sealing what is small.
        let prepared = if plan.is_small() { prepare() } else { tokio::task::block_in_place(prepare) };
        prepared.map_err(|error| match error {
            PlanError::Stopped => RequesterError::Stopped,
            error => error.into(),
        })
    }

    /// Uploads and submits what [`Self::prepare`] sealed for this requester to release.
    ///
    /// # Errors
    /// Every variant of [`RequesterError`] but those of results.
    pub async fn submit_prepared(
        &self,
        prepared: PreparedTask,
        output_dir: Option<PathBuf>,
    ) -> Result<TaskId, RequesterError> {
        self.submit_sealed(prepared, None, output_dir).await
    }

    async fn submit_sealed(
        &self,
        prepared: PreparedTask,
        deposit: Option<Deposit>,
        output_dir: Option<PathBuf>,
    ) -> Result<TaskId, RequesterError> {
        let PreparedTask { spec, secret, result_seed, result_key, blobs } = prepared;
        let task = spec.task;
        let start = TaskStart {
            spec: spec.envelope().clone(),
            secret: secret.expose().to_vec().into(),
            result_seed: result_seed.to_vec().into(),
            output_dir,
            detached: deposit.is_some(),
        };
        let (journal_dir, journal_key) = (self.home.journal_dir(), self.journal_key.clone());
        let journal = blocking(move || Journal::create(&journal_dir, &journal_key, task, start)).await?;
        let (attached, blobs) = attach(&spec, blobs);
        let request = SubmitRequest { spec: spec.envelope().clone(), deposit, objects: attached };
        let secret = request.deposit.is_none().then_some(secret);
        let mut verified = VerifiedEnvelopes::default();
        verified.add(&spec);
        self.releaser.keep_verified(task, verified);
        self.host.open().insert(task, Open { secret, result_seed, result_key, spec, journal });
        self.begin.notify_one();
        let uploaded = self.upload(&blobs).await;
        drop(blobs);
        if let Err(error) = uploaded {
            // The spec was not shown to anyone, and nothing is left to resume.
            self.finish(&task)?;
            return Err(error.into());
        }
        match self.client.submit(&request).await {
            Ok(_) => {}
            // A refusal is final, and to whom it should not go it was not sent: nothing was taken.
            Err(
                error @ (ClientError::Refused { .. } | ClientError::WrongPeer { .. } | ClientError::NotAdmitted { .. }),
            ) => {
                self.finish(&task)?;
                return Err(error.into());
            }
            Err(error) => return Err(RequesterError::Unacknowledged { task, source: Box::new(error) }),
        }
        (self.host.events)(Event::Submitted { task });
        Ok(task)
    }

    async fn upload(&self, blobs: &[SealedBlob]) -> Result<(), ClientError> {
        let total_bytes = blobs.iter().map(|blob| blob.sealed_bytes).sum();
        for blob in blobs {
            let source = match &blob.source {
                InputSource::Bytes(bytes) => UploadSource::Bytes(bytes.clone()),
                InputSource::File(path) => UploadSource::File(path.clone()),
            };
            let events = &self.host.events;
            self.client
                .upload(&blob.content_id, blob.sealed_bytes, source, |sealed_bytes| {
                    events(Event::Uploaded { sealed_bytes, total_bytes });
                })
                .await?;
        }
        Ok(())
    }

    /// Has a broker prove itself, and judges its evidence by the policy of the job.
    async fn verify_broker(
        &self,
        broker: PublicKey,
        plan: &JobPlan,
    ) -> Result<starminer_verify::Verified, RequesterError> {
        let challenge = Challenge(random_bytes());
        let issued_at = (self.host.clock)();
        let answer = self.client.broker_evidence(&BrokerEvidenceRequest { broker, challenge }).await?;
        let policy = broker_policy(&plan.policy)?;
        // The plan's are for agents: what is good for one role is not for the other.
        let reference_values = self.broker_values().await?;
        let (verified, result) = verify_broker_evidence(
            &answer.evidence.0,
            self.network.network,
            broker,
            (challenge, issued_at),
            &self.host.trust,
            &reference_values,
            &policy,
            (self.host.clock)(),
        )
        .map_err(|reasons| {
            reasons.into_iter().next().map_or_else(
                || {
                    refused(
                        Party::Releaser,
                        "broker.refused",
                        "the broker's evidence was refused",
                        "use another broker",
                    )
                },
                RequesterError::Refused,
            )
        })?;
        tracing::debug!(tier = %result.tier(), "broker verified");
        Ok(verified)
    }

    /// Waits until the task has ended, and releases for it meanwhile.
    ///
    /// # Errors
    /// As [`Self::resume`]; the coordinator refuses, or was caught lying; not being reachable is waited out.
    pub async fn wait(&self, task: &TaskId) -> Result<TaskView, RequesterError> {
        self.resume(task).await?;
        let mut backoff = BACKOFF.0;
        let mut stopped = self.stopped.clone();
        loop {
            if let Some(error) = stopped.borrow().clone() {
                let reason = match error {
                    // No fault of the coordinator's: this machine could not keep what it has to.
                    ReleaserError::Journal(_) => return Err(error.into()),
                    ReleaserError::Refused(_) => error.to_string(),
                };
                return Err(refused(
                    Party::Coordinator,
                    "release.stopped",
                    &reason,
                    "see the log for what the coordinator did",
                ));
            }
            let view = tokio::select! {
                view = self.client.task_end(task, MAX_POLL_WAIT_MS) => view,
                _ = stopped.changed() => continue,
            };
            match view {
                Ok(view) if view.state.is_final() => {
                    (self.host.events)(Event::Ended { task: *task, state: view.state.name() });
                    return Ok(view);
                }
                Ok(_) => backoff = BACKOFF.0,
                Err(error) if !error.is_transient() => return Err(error.into()),
                Err(error) => {
                    tracing::debug!(%error, "waiting for the coordinator");
                    tokio::time::sleep(backoff).await;
                    backoff = (backoff * 2).min(BACKOFF.1);
                }
            }
        }
    }

    /// Fetches what a task that has ended left: writes outputs and receipt below `output_dir`, and closes the journal. Outputs of the task that
    /// was collected there before are taken away; whatever else is there stays.
    ///
    /// # Errors
    /// Every variant of [`RequesterError`].
    pub async fn collect(&self, view: TaskView, output_dir: &Path) -> Result<TaskOutcome, RequesterError> {
        let task = view.task;
        self.resume(&task).await?;
        let (spec, result_key) = {
            let open = self.host.open();
            let open = open.get(&task).ok_or_else(|| RequesterError::UnknownTask(task.to_string()))?;
            (open.spec.clone(), Arc::clone(&open.result_key))
        };
        let remembered = self.memory.remembered();
        let size = remembered.as_ref().map_or(0, |remembered| remembered.checkpoint().size());
        let parts =
            self.client.receipt_continuing(&task, size).await.map_err(|error| {
                log_memory::rolled_back(&error).map_or_else(|| error.into(), RequesterError::Refused)
            })?;
        if parts.spec.digest() != spec.digest() {
            return Err(refused(
                Party::Coordinator,
                "result.other-task",
                "the coordinator answered with another task's statements",
                "do not use this coordinator",
            ));
        }
        let (checkpoint, consistency) = (parts.checkpoint.clone(), parts.consistency.clone());
        let mut verified = self.releaser.take_verified(&task);
        verified.add(&spec);
        let (receipt, verdict) = receipt_from_parts(parts, &self.network, (self.host.clock)(), &mut verified);
        if verdict.overall() != starminer_receipt::Overall::Refuted {
            // A receipt under another history of the log than this home has seen is no receipt: the two together prove the fork.
            self.memory
                .take(remembered.as_ref(), &checkpoint, consistency.as_ref())
                .map_err(RequesterError::Refused)?;
        }
        fs::create_dir_all(output_dir).map_err(|source| RequesterError::Receipt { path: output_dir.into(), source })?;
        let receipt_path = output_dir.join(format!("{task}.receipt"));
        let (path, bytes) = (receipt_path.clone(), receipt.encode());
        blocking(move || {
            replace_file(&path, &bytes, ANYONE).map_err(|source| RequesterError::Receipt { path: path.clone(), source })
        })
        .await?;

        let report = receipt.report.clone();
        let report = report.and_then(|report| report.open_remembering::<Report>(&mut verified).ok());
        let (mut staging, mut details) = (Staging::new(output_dir, task)?, None);
        let believed = verdict.overall() != starminer_receipt::Overall::Refuted;
        if let Some(report) = report.as_ref().filter(|report| believed && report.predicate.output_secret.is_some()) {
            let opened = OpenedResult::open(&spec, report, &result_key)?;
            for (index, place) in opened.places()?.into_iter().enumerate() {
                let plain_bytes = self.fetch_output(&opened, report, index, &staging.next()?).await?;
                staging.add(opened.details.outputs[index].name.clone(), place, plain_bytes);
            }
            details = Some(opened.details.clone());
        }
        // As long as its journal is there, what this machine failed to keep can be had again.
        self.remember_when_due().await?;
        let outputs = tokio::task::block_in_place(|| staging.place())?;
        self.finish(&task)?;
        if self.host.open().is_empty() {
            self.hear_others()?;
            self.releaser.settle().await?;
        }
        let outcome = report.map(|report| report.predicate.outcome.clone());
        Ok(TaskOutcome { task, view, outcome, details, outputs, receipt_path, verdict })
    }

    async fn fetch_output(
        &self,
        opened: &OpenedResult,
        report: &Report,
        index: usize,
        path: &Path,
    ) -> Result<u64, RequesterError> {
        let object = report.predicate.outputs.get(index).copied().ok_or(OutputsError::Absent)?;
        if object.sealed_bytes <= IN_MEMORY_BYTES {
            let mut sealed = Vec::new();
            self.client
                .download(&object.content_id, object.sealed_bytes, |bytes| {
                    sealed.extend_from_slice(bytes);
                    Ok(())
                })
                .await?;
            return Ok(tokio::task::block_in_place(|| opened.write(index, sealed.as_slice(), path))?);
        }
        let (staged, mut file) = self.staging.create()?;
        let io = |source| HomeError::Local { path: staged.path().into(), source };
        self.client
            .download(&object.content_id, object.sealed_bytes, |bytes| std::io::Write::write_all(&mut file, bytes))
            .await
            .map_err(|error| match error {
                ClientError::Local(source) => io(source).into(),
                error => RequesterError::from(error),
            })?;
        tokio::task::block_in_place(|| {
            let file = File::open(staged.path()).map_err(io)?;
            let sealed = Stoppable::new(file.take(object.sealed_bytes), &self.stop);
            match opened.write(index, sealed, path) {
                Err(OutputsError::Io { .. }) if (self.stop)() => Err(RequesterError::Stopped),
                written => Ok(written?),
            }
        })
    }

    /// Takes in what other processes of this home saw of the log: two views of one log that do not join are a fork.
    fn hear_others(&self) -> Result<(), RequesterError> {
        match tokio::task::block_in_place(|| self.home.remembered(&self.network))? {
            Some(remembered) => self.memory.hear(&remembered).map_err(RequesterError::Refused),
            None => Ok(()),
        }
    }

    /// Keeps the last checkpoint, at most once a second: one that a crash loses was seen by nobody else either.
    async fn remember_when_due(&self) -> Result<(), RequesterError> {
        // Whoever finds somebody else at it has nothing to add.
        let Ok(mut last) = self.remembered_at.try_lock() else { return Ok(()) };
        if last.is_some_and(|last| last.elapsed() < REMEMBER_EVERY) {
            return Ok(());
        }
        *last = Some(Instant::now());
        // Under the lock: two writers of one file would trip over each other.
        if let Some(remembered) = self.memory.take_changed() {
            let (home, network) = (self.home.clone(), self.network.clone());
            blocking(move || home.remember(&network, &remembered)).await?;
        }
        Ok(())
    }

    /// Submits, waits and collects.
    ///
    /// # Errors
    /// Every variant of [`RequesterError`].
    pub async fn run(&self, plan: &JobPlan, output_dir: &Path) -> Result<TaskOutcome, RequesterError> {
        let task = self.submit(plan, Some(output_dir.to_path_buf()), None).await?;
        let view = self.wait(&task).await?;
        self.collect(view, output_dir).await
    }

    /// Ends a task, whoever has it open. One that the coordinator never took is removed from this home.
    ///
    /// # Errors
    /// The coordinator refuses or cannot be reached; no such task; the journal of one that was never taken is held by another process.
    pub async fn cancel(&self, task: &TaskId) -> Result<Cancelled, RequesterError> {
        let open = self.host.open().get(task).map(|open| open.spec.clone());
        let spec = match open {
            Some(spec) => spec,
            None => {
                let (journal_dir, key, task) = (self.home.journal_dir(), self.journal_key.clone(), *task);
                let records = known(&task, blocking(move || Journal::look(&journal_dir, &key, task)).await)?;
                spec_of(&task, started(&task, &records)?)?
            }
        };
        let statement = CancelStatement {
            network: self.network.network,
            task: *task,
            spec: spec.digest(),
            cancelled_at: (self.host.clock)(),
            requester: self.signer.public_key(),
        };
        let cancel = Envelope::sign(statement, &self.signer)
            .map_err(|error| refused(Party::Requester, error.code(), &error.to_string(), "report this defect"))?;
        match self.client.cancel(task, &CancelRequest { cancel: cancel.into_envelope() }).await {
            Ok(_) => Ok(Cancelled::Ending),
            Err(ClientError::Refused { refusal, .. }) if refusal.check() == "task.unknown" => {
                // Nobody may be about to submit it: the lock says so.
                self.resume(task).await?;
                self.finish(task)?;
                Ok(Cancelled::NeverTaken)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The secrets of an open task, for one purpose: to search other parties' disks for them.
    #[must_use]
    pub fn secrets_to_search_for(&self, task: &TaskId) -> Vec<Vec<u8>> {
        let open = self.host.open();
        let Some(task) = open.get(task) else { return Vec::new() };
        let secret = task.secret.as_ref().map(|secret| secret.expose().to_vec());
        secret.into_iter().chain([task.result_seed.to_vec()]).collect()
    }

    /// The tasks of this home that are not collected yet, whoever works on them, with the directories their outputs shall go to. Those of a
    /// [damaged](Self::damaged_tasks) journal are among them.
    #[must_use]
    pub fn open_tasks(&self) -> Vec<(TaskId, Option<PathBuf>)> {
        let seen = self.look_at_all().into_iter();
        seen.map(|(task, found)| (task, found.ok().and_then(|start| start.output_dir.clone()))).collect()
    }

    /// The tasks of this home whose journals cannot be read, and why.
    #[must_use]
    pub fn damaged_tasks(&self) -> Vec<(TaskId, RequesterError)> {
        self.look_at_all().into_iter().filter_map(|(task, found)| found.err().map(|error| (task, error))).collect()
    }

    fn look_at_all(&self) -> Vec<(TaskId, Result<TaskStart, RequesterError>)> {
        let dir = self.home.journal_dir();
        let tasks = Journal::list(&dir).unwrap_or_else(|error| {
            tracing::warn!(error = &error as &dyn std::error::Error, "the journals of this home cannot be listed");
            Vec::new()
        });
        let look = |task: TaskId| {
            let found = known(&task, Journal::look(&dir, &self.journal_key, task).map_err(Into::into));
            let found = found.and_then(|records| started(&task, &records).cloned());
            // Collected meanwhile.
            if matches!(found, Err(RequesterError::UnknownTask(_))) { None } else { Some((task, found)) }
        };
        tasks.into_iter().filter_map(look).collect()
    }

    fn finish(&self, task: &TaskId) -> Result<(), RequesterError> {
        let open = self.host.open().remove(task);
        self.releaser.forget(task);
        Ok(open.map_or(Ok(()), |open| open.journal.remove())?)
    }
}

/// Does what waits for the disk where nobody else waits for the thread.
async fn blocking<T: Send + 'static, E: Into<RequesterError> + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, RequesterError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(Into::into),
        Err(error) => Err(refused(Party::Requester, "client.stopping", &error.to_string(), "try again")),
    }
}

/// Parts what is small enough to come along with the spec from what is uploaded before.
fn attach(spec: &TaskSpec, blobs: Vec<SealedBlob>) -> (Vec<Base64Bytes>, Vec<SealedBlob>) {
    let (mut attached, mut uploaded, mut room) = (Vec::new(), Vec::new(), MAX_ATTACHED_BYTES);
    for blob in blobs {
        match &blob.source {
            InputSource::Bytes(bytes)
                if bytes.len() <= room
                    && spec.objects().any(|object| {
                        (object.content_id, object.sealed_bytes) == (blob.content_id, blob.sealed_bytes)
                    }) =>
            {
                room -= bytes.len();
                attached.push(Base64Bytes(bytes.to_vec()));
            }
            _ => uploaded.push(blob),
        }
    }
    (attached, uploaded)
}

/// A journal that is not there is a task that is not.
fn known<T>(task: &TaskId, opened: Result<T, RequesterError>) -> Result<T, RequesterError> {
    opened.map_err(|error| match error {
        RequesterError::Journal(JournalError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            RequesterError::UnknownTask(task.to_string())
        }
        error => error,
    })
}

fn damaged(task: &TaskId, reason: &str) -> RequesterError {
    refused(Party::Requester, "journal.damaged", &format!("journal of {task}: {reason}"), "submit the task again")
}

fn started<'a>(task: &TaskId, records: &'a [JournalRecord]) -> Result<&'a TaskStart, RequesterError> {
    match records.first() {
        Some(JournalRecord::Start(start)) => Ok(start),
        _ => Err(damaged(task, "it does not begin with the task's start")),
    }
}

fn spec_of(task: &TaskId, start: &TaskStart) -> Result<Signed<TaskSpec>, RequesterError> {
    let spec = start.spec.clone().open::<TaskSpec>().map_err(|_| damaged(task, "its spec does not verify"))?;
    if spec.task == *task { Ok(spec) } else { Err(damaged(task, "its spec is another task's")) }
}

/// What a journal says of a task that is not finished.
fn reopen(
    task: TaskId,
    journal: Journal,
    records: Vec<JournalRecord>,
) -> Result<(Open, Vec<LedgerRecord>), RequesterError> {
    let start = started(&task, &records)?;
    let secret: [u8; 32] = start.secret.0.as_slice().try_into().map_err(|_| damaged(&task, "its secret is cut"))?;
    let seed: [u8; 32] =
        start.result_seed.0.as_slice().try_into().map_err(|_| damaged(&task, "its result key is cut"))?;
    let seed = Zeroizing::new(seed);
    let result_key = KemPrivateKey::from_seed(&seed).map_err(|_| damaged(&task, "its result key is none"))?;
    let open = Open {
        secret: (!start.detached).then(|| TaskSecret::from_bytes(secret)),
        result_seed: seed,
        result_key: Arc::new(result_key),
        spec: spec_of(&task, start)?,
        journal,
    };
    let ledger = records.into_iter().filter_map(|record| match record {
        JournalRecord::Start(_) => None,
        JournalRecord::Ledger(record) => Some(record),
    });
    Ok((open, ledger.collect()))
}

/// The job's policy as it applies to a broker: it runs no guest, so that of the measures around a task's process only those count
/// that keep its own memory closed.
fn broker_policy(policy: &Policy) -> Result<Policy, RequesterError> {
    let mut fields = policy.fields().clone();
    let own = [SandboxMeasure::NonDumpable, SandboxMeasure::CoreDumpsOff, SandboxMeasure::PtraceRefused];
    fields.minimum_posture.sandbox.retain(|measure| own.contains(measure));
    Policy::new(fields).map_err(|error| refused(Party::Requester, error.code(), &error.to_string(), "mend the policy"))
}

fn refused(party: Party, check: &'static str, reason: &str, remedy: &str) -> RequesterError {
    RequesterError::Refused(Refusal::new(party, check, reason, remedy))
}
