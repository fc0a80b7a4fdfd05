//! The releaser at work: follows the coordinator's feed, challenges nodes, decides, has the release logged, grants.
//!
//! The order of steps is the ledger's ([`starminer_broker::Ledger`]); here is what connects it to the network, to a durable journal and to
//! wherever secrets are kept ([`ReleaserHost`]). The feed is level-triggered, so that a lost connection or a restart loses nothing.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use starminer_broker::{Decision, Ledger, LedgerRecord, ReleaseContext, ReleaserTrust, TOO_MANY_TASKS};
use starminer_client::{ClientError, CoordinatorClient};
use starminer_log::VerifiedCheckpoint;
use starminer_receipt::{
    Base64Bytes, EnvelopeError, Lease, NetworkTrust, Signed, SigningKey, TaskSpec, VerifiedEnvelopes,
};
use starminer_vault::TaskSecret;
use starminer_verify::{Attempt, NetworkId, Party, Refusal, TaskId, UnixTime, Verdict};
use starminer_wire::{
    AttemptView, ChallengeRequest, DenyRequest, FeedRole, GrantRequest, MAX_POLL_WAIT_MS, ReleaseRequest, TaskState,
};

use crate::journal::Unsynced;
use crate::log_memory::{self, LogMemory};
use crate::progress::Event;
use crate::requester::RequesterError;
use crate::secrets::{random_bytes, random_secret};

/// First pause after a failed poll; doubles up to [`MAX_BACKOFF`].
const MIN_BACKOFF: Duration = Duration::from_millis(50);
/// Longest pause between polls of a coordinator that does not answer.
const MAX_BACKOFF: Duration = Duration::from_secs(5);
/// Most attempts that are worked on at once.
const MAX_WORKING: usize = 512;
/// Tasks whose verified statements are remembered.
const MAX_TASKS_VERIFIED: usize = 128;

/// How often checkpoints that concurrent answers brought are joined.
const JOIN_EVERY: Duration = Duration::from_secs(1);
/// How often tasks are forgotten whose specs have expired.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// With this many kept, a release waits until they are joined.
const JOIN_AT: usize = 64;

/// A task secret for one attempt.
pub type AttemptSecret = TaskSecret;

/// Why a releaser stops.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReleaserError {
    /// The coordinator was caught lying, or refuses this identity.
    #[error("{}: {}", .0.check(), .0.reason())]
    Refused(Refusal),
    /// A record could not be made durable.
    #[error("a record of the release ledger could not be made durable: {0}")]
    Journal(String),
}

/// What surrounds a releaser: where its secrets and records are.
pub trait ReleaserHost: Send + Sync + 'static {
    /// The secret of the task that an attempt is for.
    ///
    /// # Errors
    /// A refusal ends the attempt; the releaser denies it with this reason, without another try.
    fn secret(&self, view: &AttemptView, spec: &Signed<TaskSpec>) -> Result<AttemptSecret, Refusal>;

    /// Whether this releaser has anything to do with the task; others' attempts are left alone.
    fn knows(&self, task: &TaskId) -> bool;

    /// What the releaser trusts for this task.
    ///
    /// # Errors
    /// A refusal denies the attempt.
    fn trust(&self, spec: &TaskSpec) -> Result<ReleaserTrust, Refusal>;

    /// Keeps a record. What comes back, if anything, is to be made durable before the step that it records is taken.
    ///
    /// # Errors
    /// In words; the step is then not taken.
    fn record(&self, task: &TaskId, record: LedgerRecord) -> Result<Option<Unsynced>, String>;

    /// Hears what happens.
    fn event(&self, event: Event);

    /// The time.
    fn now(&self) -> UnixTime;
}

/// What an attempt wants of its releaser. One step goes from evidence to grant: a view that shows the release in the log while the step is
/// under way starts nothing new.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    Challenge,
    Decide,
}

impl Step {
    fn wanted_by(view: &AttemptView) -> Option<Self> {
        match view.state {
            _ if view.ended => None,
            TaskState::Leased => Some(Self::Challenge),
            TaskState::Attested | TaskState::Released => Some(Self::Decide),
            _ => None,
        }
    }
}

/// A step that is under way.
type Work = (TaskId, Attempt, Step);

/// A releaser of any number of tasks.
pub struct Releaser<H> {
    client: CoordinatorClient,
    signer: SigningKey,
    network: NetworkId,
    host: Arc<H>,
    ledger: Mutex<Ledger>,
    memory: Arc<LogMemory>,
    working: Mutex<HashSet<Work>>,
    /// What was verified or signed for each task: every view of an attempt brings it again, and so does the receipt. Forgetting costs
    /// time and nothing else.
    verified: Mutex<HashMap<TaskId, VerifiedEnvelopes>>,
    joining: tokio::sync::Mutex<()>,
    rewound: tokio::sync::Notify,
}

impl<H> std::fmt::Debug for Releaser<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Releaser").field("signer", &self.signer).finish_non_exhaustive()
    }
}

impl<H: ReleaserHost> Releaser<H> {
    pub(crate) fn new(
        client: CoordinatorClient,
        signer: SigningKey,
        network: NetworkId,
        host: Arc<H>,
        ledger: Ledger,
        memory: Arc<LogMemory>,
    ) -> Self {
        Self {
            client,
            signer,
            network,
            host,
            ledger: Mutex::new(ledger),
            memory,
            working: Mutex::default(),
            verified: Mutex::default(),
            joining: tokio::sync::Mutex::default(),
            rewound: tokio::sync::Notify::new(),
        }
    }

    /// Takes in what was recorded of a task that this releaser takes up.
    pub(crate) fn recall(&self, records: Vec<LedgerRecord>) -> Result<(), EnvelopeError> {
        self.ledger().recall(records)
    }

    /// Reads the feed from its beginning again: it may have shown the attempt of a task while this releaser did not know the task.
    pub(crate) fn rewind(&self) {
        self.rewound.notify_one();
    }

    /// A releaser without memory of earlier starts, for a broker: its keys are as young as this process.
    #[must_use]
    pub fn for_broker(client: CoordinatorClient, signer: SigningKey, network: &NetworkTrust, host: Arc<H>) -> Self {
        let memory = Arc::new(LogMemory::new(network.log_key().clone(), None));
        Self::new(client, signer, network.network, host, Ledger::default(), memory)
    }

    fn ledger(&self) -> std::sync::MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn working(&self) -> std::sync::MutexGuard<'_, HashSet<Work>> {
        self.working.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this releaser has verified or signed for a task; it forgets that.
    pub(crate) fn take_verified(&self, task: &TaskId) -> VerifiedEnvelopes {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner).remove(task).unwrap_or_default()
    }

    /// Takes in what was verified or signed for a task.
    pub(crate) fn keep_verified(&self, task: TaskId, verified: VerifiedEnvelopes) {
        let mut all = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MAX_TASKS_VERIFIED {
            all.clear();
        }
        all.entry(task).or_default().merge(verified);
    }

    fn signed<T>(&self, task: TaskId, statement: &Signed<T>) {
        let mut verified = VerifiedEnvelopes::default();
        verified.add(statement);
        self.keep_verified(task, verified);
    }

    /// Forgets a task that has ended, by the host's own knowledge.
    pub fn forget(&self, task: &TaskId) {
        self.ledger().forget(task);
    }

    /// Follows the feed until the coordinator is caught lying or a record cannot be kept. Cancel-safe: drop it to stop.
    ///
    /// # Errors
    /// [`ReleaserError`]; a coordinator that cannot be reached is no error but tried again.
    pub async fn run(self: &Arc<Self>) -> ReleaserError {
        let (mut epoch, mut after, mut backoff) = (0, 0, MIN_BACKOFF);
        let (failed, mut failures) = tokio::sync::mpsc::channel::<ReleaserError>(1);
        let mut joins = tokio::time::interval(JOIN_EVERY);
        joins.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut sweeps = tokio::time::interval(SWEEP_EVERY);
        sweeps.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let poll = self.client.feed(FeedRole::Releaser, epoch, after, MAX_POLL_WAIT_MS);
            tokio::pin!(poll);
            let feed = loop {
                tokio::select! {
                    feed = &mut poll => break Some(feed),
                    () = self.rewound.notified() => break None,
                    Some(error) = failures.recv() => return error,
                    _ = sweeps.tick() => self.ledger().forget_expired(self.host.now()),
                    // What could not be joined is tried again at the next tick, and before too many are kept.
                    _ = joins.tick() => if let Err(StepError::Stop(error)) = self.join_checkpoints().await {
                        return error;
                    },
                }
            };
            let feed = match feed {
                Some(Ok(feed)) => feed,
                None => {
                    (epoch, after) = (0, 0);
                    continue;
                }
                Some(Err(error)) => {
                    tracing::debug!(%error, "releaser feed");
                    tokio::time::sleep(backoff).await;
                    backoff = (backoff * 2).min(MAX_BACKOFF);
                    continue;
                }
            };
            backoff = MIN_BACKOFF;
            if feed.epoch != epoch {
                // A new start of the coordinator: what was under way with the old one is asked again.
                self.working().clear();
            }
            (epoch, after) = (feed.epoch, feed.version);
            for view in feed.attempts {
                if view.state.is_final() {
                    // The coordinator's word alone: whoever knows better forgets the task by himself.
                    self.ledger().close(&view.task);
                } else if let Some(error) = self.note_checkpoint(&view, &failed) {
                    return error;
                }
                let Some(step) = Step::wanted_by(&view).filter(|_| self.host.knows(&view.task)) else { continue };
                let key = (view.task, view.attempt, step);
                {
                    let mut working = self.working();
                    if working.len() >= MAX_WORKING || !working.insert(key) {
                        continue;
                    }
                }
                let (this, failed) = (Arc::clone(self), failed.clone());
                tokio::spawn(async move {
                    let result = this.handle_with_retries(&view).await;
                    this.working().remove(&key);
                    if let Err(error) = result {
                        let _ = failed.try_send(error);
                    }
                });
            }
        }
    }

    /// Takes note of the task's newest checkpoint before anything is granted. Its record stands before that of any grant that names it, so that it
    /// becomes durable at the latest with that one.
    fn note_checkpoint(
        self: &Arc<Self>,
        view: &AttemptView,
        failed: &tokio::sync::mpsc::Sender<ReleaserError>,
    ) -> Option<ReleaserError> {
        let checkpoint = view.checkpoint.clone().filter(|_| self.host.knows(&view.task))?;
        let record = match self.ledger().checkpointed(checkpoint) {
            Ok(record) => record?,
            Err(refusal) => {
                tracing::warn!(task = %view.task, check = refusal.check(), "a checkpoint that was shown does not count");
                return None;
            }
        };
        match self.host.record(&view.task, record) {
            Err(_) if !self.host.knows(&view.task) => {}
            Err(error) => return Some(ReleaserError::Journal(error)),
            Ok(None) => {}
            Ok(Some(unsynced)) => {
                let failed = failed.clone();
                tokio::task::spawn_blocking(move || {
                    if let Err(error) = unsynced.sync() {
                        let _ = failed.try_send(ReleaserError::Journal(error.to_string()));
                    }
                });
            }
        }
        None
    }

    /// Tries again while the coordinator cannot be reached; a refusal by it ends the step (a later view says what to do).
    async fn handle_with_retries(&self, view: &AttemptView) -> Result<(), ReleaserError> {
        let mut backoff = MIN_BACKOFF;
        loop {
            match self.handle(view).await {
                Ok(()) => return Ok(()),
                Err(StepError::Stop(error)) => return Err(error),
                Err(StepError::Client(ClientError::Refused { refusal, status, .. })) if !is_passing(status) => {
                    tracing::info!(task = %view.task, attempt = %view.attempt, check = refusal.check(), "the coordinator refused a step");
                    return Ok(());
                }
                Err(StepError::Client(error)) => {
                    tracing::debug!(%error, "releaser step");
                    if backoff >= MAX_BACKOFF {
                        // The feed shows the attempt again when the coordinator is back.
                        return Ok(());
                    }
                    tokio::time::sleep(backoff).await;
                    backoff *= 2;
                }
                Err(StepError::Refused(refusal)) => {
                    tracing::info!(task = %view.task, attempt = %view.attempt, check = refusal.check(), "step not taken");
                    return Ok(());
                }
            }
        }
    }

    async fn handle(&self, view: &AttemptView) -> Result<(), StepError> {
        let mut verified = self.take_verified(&view.task);
        let spec = view.spec.clone().open_remembering::<TaskSpec>(&mut verified).map_err(StepError::envelope)?;
        let lease = view.lease.clone().open_remembering::<Lease>(&mut verified).map_err(StepError::envelope)?;
        self.keep_verified(view.task, verified);
        if spec.network != self.network || spec.task != view.task || lease.attempt != view.attempt {
            return Err(StepError::Refused(Refusal::new(
                Party::Coordinator,
                "release.view-mismatch",
                "the coordinator showed statements of another task, attempt or network",
                "ignore it",
            )));
        }
        let context = ReleaseContext { spec: &spec, lease: &lease };
        match Step::wanted_by(view) {
            Some(Step::Challenge) => self.challenge(view, context).await,
            Some(Step::Decide) => self.decide(view, context).await,
            None => Ok(()),
        }
    }

    /// Keeps a record, and makes it durable where it has to be; when that fails, nothing more may be sent and the releaser stops.
    async fn record(&self, task: &TaskId, record: Option<LedgerRecord>) -> Result<(), StepError> {
        let Some(record) = record else { return Ok(()) };
        let stop = |error: String| StepError::Stop(ReleaserError::Journal(error));
        let kept = match self.host.record(task, record) {
            // Collected or given up while the step was under way: that ends the step, and no other task's.
            Err(_) if !self.host.knows(task) => {
                return Err(StepError::Refused(Refusal::new(
                    Party::Releaser,
                    "release.unknown-task",
                    "the task was closed meanwhile",
                    "nothing is left to do",
                )));
            }
            kept => kept.map_err(stop)?,
        };
        match kept {
            Some(unsynced) => tokio::task::spawn_blocking(move || unsynced.sync())
                .await
                .map_err(|error| stop(error.to_string()))?
                .map_err(|error| stop(error.to_string())),
            None => Ok(()),
        }
    }

    async fn challenge(&self, view: &AttemptView, context: ReleaseContext<'_>) -> Result<(), StepError> {
        // A secret that cannot be had is known before a node does any work.
        if let Err(refusal) = self.host.secret(view, context.spec) {
            return self.deny(context, refusal).await;
        }
        let challenged = {
            let now = self.host.now();
            self.ledger().challenge(context, &self.signer, random_bytes(), now)
        };
        let (challenge, record) = match challenged {
            Ok(challenged) => challenged,
            // Whoever waits is told.
            Err(refusal) if refusal.check() == TOO_MANY_TASKS => return self.deny(context, refusal).await,
            Err(refusal) => return Err(StepError::Refused(refusal)),
        };
        self.record(&view.task, record).await?;
        self.signed(view.task, &challenge);
        let request = ChallengeRequest { challenge: challenge.into_envelope() };
        self.client.challenge(&view.task, view.attempt, &request).await.map_err(StepError::Client)?;
        self.host.event(Event::Challenged { task: view.task, node: context.lease.node, attempt: view.attempt });
        Ok(())
    }

    async fn deny(&self, context: ReleaseContext<'_>, refusal: Refusal) -> Result<(), StepError> {
        let now = self.host.now();
        let (decision, record) =
            self.ledger().deny(context, None, vec![refusal], false, &self.signer, now).map_err(StepError::Refused)?;
        self.record(&context.spec.task, record).await?;
        self.send_denial(decision, context).await
    }

    async fn send_denial(&self, decision: Decision, context: ReleaseContext<'_>) -> Result<(), StepError> {
        let Decision::Deny(denial) = decision else { return Ok(()) };
        let reason = denial
            .reasons
            .first()
            .map_or_else(String::new, |reason| format!("{}: {}", reason.check(), reason.reason()));
        let request = DenyRequest { denial: denial.into_envelope() };
        self.client.deny(&context.spec.task, context.lease.attempt, &request).await.map_err(StepError::Client)?;
        self.host.event(Event::Denied { task: context.spec.task, node: context.lease.node, reason });
        Ok(())
    }

    async fn decide(&self, view: &AttemptView, context: ReleaseContext<'_>) -> Result<(), StepError> {
        let granted = self.ledger().granted(&view.task, view.attempt).cloned();
        let Some(Base64Bytes(evidence)) = &view.evidence else { return Ok(()) };
        let trust = match self.host.trust(context.spec) {
            Ok(trust) => trust,
            Err(refusal) => return self.deny(context, refusal).await,
        };
        if let Some(grant) = granted {
            // Granted before a crash and perhaps never sent: the same bytes again.
            let attestation_result = self.host_result(view)?;
            let request = GrantRequest { grant: grant.into_envelope(), attestation_result };
            self.client.grant(&view.task, view.attempt, &request).await.map_err(StepError::Client)?;
            return Ok(());
        }
        // A broker that restarted in the middle of an attempt has lost secret and challenge: it says so, instead of nothing.
        if let Err(refusal) = self.host.secret(view, context.spec) {
            return self.deny(context, refusal).await;
        }
        let endorsements = view.endorsements.as_ref().map(|bytes| bytes.0.as_slice());
        let (decision, record) = {
            let now = self.host.now();
            self.ledger()
                .decide(context, evidence, endorsements, &trust, &self.signer, now)
                .map_err(StepError::Refused)?
        };
        // The release may be announced while the approval is on its way to the disk: a release that is forgotten costs the attempt, since
        // the coordinator takes one for each. The grant may not go before both are done.
        let recorded = self.record(&view.task, record);
        let approved = match decision {
            Decision::Release(approved) => *approved,
            denial @ Decision::Deny(_) => {
                recorded.await?;
                return self.send_denial(denial, context).await;
            }
        };
        let result = approved.result();
        self.host.event(Event::Appraised {
            task: view.task,
            node: context.lease.node,
            tier: result.tier().to_string(),
            provenance: result.provenance().name().to_string(),
            checks_passed: result.checks().iter().filter(|check| check.verdict() == Verdict::Pass).count(),
        });

        while self.memory.unjoined() >= JOIN_AT {
            self.join_checkpoints().await?;
        }
        let remembered = self.memory.remembered();
        self.signed(view.task, approved.release());
        let request = ReleaseRequest {
            release: approved.release().envelope().clone(),
            remembered_size: remembered.as_ref().map_or(0, |remembered| remembered.checkpoint().size()),
        };
        let (recorded, response) = tokio::join!(recorded, self.client.release(&view.task, view.attempt, &request));
        recorded?;
        let response = response.map_err(StepError::of_log)?;
        let checkpoint = self
            .memory
            .take(remembered.as_ref(), &response.proof.checkpoint, response.proof.consistency.as_ref())
            .map_err(StepError::lying)?;
        let (Some(entry), Some(inclusion)) = (&response.proof.entry, &response.proof.inclusion) else {
            return Err(StepError::lying(Refusal::new(
                Party::Coordinator,
                "release.not-logged",
                "the answer to a release has no proof that it is in the log",
                "do not grant",
            )));
        };
        let attestation_result = Base64Bytes(approved.attestation_result().to_vec());
        let logged = approved.logged(&checkpoint, &entry.0, inclusion).map_err(StepError::lying)?;
        self.host.event(Event::ReleaseLogged {
            task: view.task,
            index: inclusion.index(),
            log_size: checkpoint.size(),
        });

        let secret = match self.host.secret(view, context.spec) {
            Ok(secret) => secret,
            Err(refusal) => return self.deny(context, refusal).await,
        };
        let (grant, record) = {
            let now = self.host.now();
            self.ledger()
                .grant(context, &logged, &secret, &self.signer, &random_secret(), now)
                .map_err(StepError::Refused)?
        };
        drop(secret);
        self.record(&view.task, record).await?;
        let digest = grant.digest();
        self.signed(view.task, &grant);
        let request = GrantRequest { grant: grant.into_envelope(), attestation_result };
        self.client.grant(&view.task, view.attempt, &request).await.map_err(StepError::Client)?;
        self.host.event(Event::Granted { task: view.task, grant: digest });
        Ok(())
    }

    /// The attestation result of a grant that was made before a crash: the ledger kept it with the release.
    fn host_result(&self, view: &AttemptView) -> Result<Base64Bytes, StepError> {
        self.ledger().attestation_result(&view.task, view.attempt).map(|bytes| Base64Bytes(bytes.to_vec())).ok_or_else(
            || {
                StepError::Refused(Refusal::new(
                    Party::Releaser,
                    "release.no-result",
                    "no attestation result is kept for this grant",
                    "wait for the next attempt",
                ))
            },
        )
    }

    /// Joins what is kept, when nothing is under way any more; a coordinator that cannot be asked leaves the memory as it is.
    ///
    /// # Errors
    /// The coordinator was caught lying.
    pub(crate) async fn settle(&self) -> Result<(), ReleaserError> {
        match self.join_checkpoints().await {
            Err(StepError::Stop(error)) => Err(error),
            Err(_) | Ok(()) => Ok(()),
        }
    }

    /// The same for whoever is not content before it is known.
    pub(crate) async fn join_at_once(&self) -> Result<(), RequesterError> {
        self.join_checkpoints().await.map_err(|error| match error {
            StepError::Stop(error) => error.into(),
            StepError::Client(error) => error.into(),
            StepError::Refused(refusal) => RequesterError::Refused(refusal),
        })
    }

    /// Joins checkpoints that concurrent answers brought: a fork shows here.
    async fn join_checkpoints(&self) -> Result<(), StepError> {
        // One at a time: who waits here finds them joined.
        let _joining = self.joining.lock().await;
        let wanted = self.memory.to_join();
        if self.memory.unjoined() == 0 {
            return Ok(());
        }
        let sizes: Vec<u64> = wanted.iter().map(VerifiedCheckpoint::size).collect();
        match self.client.log_chain(&sizes).await {
            Ok(chain) => self.memory.join(&wanted, &chain).map_err(StepError::lying),
            Err(error) => Err(StepError::of_log(error)),
        }
    }
}

/// Too many requests, or not now: the same step may be taken in a moment.
fn is_passing(status: u16) -> bool {
    matches!(status, 429 | 503 | 507)
}

enum StepError {
    /// The coordinator did not answer or refused.
    Client(ClientError),
    /// The step is not to be taken.
    Refused(Refusal),
    /// Nothing more is to be done at all.
    Stop(ReleaserError),
}

impl StepError {
    fn envelope(error: starminer_receipt::EnvelopeError) -> Self {
        Self::Refused(Refusal::new(Party::Coordinator, error.code(), error.to_string(), "ignore it"))
    }

    /// The coordinator was asked to go on from a checkpoint that it has signed.
    fn of_log(error: ClientError) -> Self {
        match log_memory::rolled_back(&error) {
            Some(refusal) => Self::lying(refusal),
            None => Self::Client(error),
        }
    }

    fn lying(refusal: Refusal) -> Self {
        Self::Stop(ReleaserError::Refused(refusal))
    }
}
