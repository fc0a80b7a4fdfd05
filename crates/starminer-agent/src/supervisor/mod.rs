//! The agent's own work: leases in, task processes, evidence, reports out (`specs/node.md`, section "Agent").
//!
//! The agent sees statements, public keys, digests and ciphertext. Plaintext, task secrets and task keys are in task
//! processes only, and it never maps what they compiled. One loop ([`serve`]) talks to the coordinator's feed and hands what
//! it hears to one [`attempt`] for each lease.
//!
//! Not here: what a task process does ([`crate::task`]), and any decision about releasing keys.

mod admission;
mod attempt;
mod attest;
mod blobs;
mod compiled_cache;
mod machine;
mod pinned;
mod pool;
mod process;
mod reports;
mod states;
mod upstream;
mod watching;

use std::collections::{HashMap, HashSet, VecDeque};
use std::future::Future;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use starminer_attester::{Attester, HostTree};
use starminer_client::ClientError;
use starminer_receipt::{Lease, Signed, Signer as _, SigningKey, TaskSpec};
use starminer_sandbox::Program;
use starminer_verify::{BootId, HostMeasure, NetworkId, NodeId, PostureItem, PublicKey, Refusal, fallen_posture};
use starminer_wire::{AttemptRef, AttemptView, FeedResponse, NodeFeedRequest};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::config::NodeLimits;
use crate::enrolment::Statements;
use crate::error::AgentError;
use crate::task::ProcessLimits;
use attempt::Told;
use attest::Evidences;
pub(crate) use blobs::JobDir;
use compiled_cache::CompiledCache;
use pool::Pool;
use states::{RunningMark, StateDir};

pub(crate) use upstream::Coordinator;
pub use upstream::Upstream;

/// How long the coordinator may hold a poll.
const POLL_WAIT_MS: u64 = 20_000;
/// Pause after a poll that failed, at first and at most.
const POLL_BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(3));
/// How long reports of tasks that were given up may take when the node stops.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// Attempts that ended here and are remembered, so that none is begun again when the coordinator lists it again.
const MAX_ENDED: usize = 4096;
/// Private memory of a task process before it has a lease: enough for the program itself and its engine.
const PROCESS_DATA_BYTES: u64 = 2 << 30;

/// How far the node is in stopping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drain {
    /// It is not.
    No,
    /// Attempts give up.
    Now,
}

/// Everything that a supervisor is made of.
pub struct Parts<U> {
    /// The coordinator.
    pub upstream: U,
    /// The network.
    pub network: NetworkId,
    /// Whose leases count.
    pub coordinator: PublicKey,
    /// Who this node is: what it says before it has proven itself is signed with the key that its lease names.
    pub identity: SigningKey,
    /// What makes evidence; it fixes the boot.
    pub device: Arc<dyn Attester>,
    /// What speaks for the node beside its evidence.
    pub statements: Statements,
    /// Where posture is read, and watched.
    pub host: HostTree,
    /// What becomes a task process.
    pub program: Program,
    /// Where ciphertext of running tasks goes.
    pub data_dir: PathBuf,
    /// Tasks at a time.
    pub places: u32,
    /// Bounds of the node.
    pub limits: NodeLimits,
    /// Called once, when the coordinator has admitted the node: from then on leases come in.
    pub admitted: Box<dyn FnOnce() + Send>,
}

/// What all attempts share.
pub(crate) struct Shared<U> {
    pub upstream: U,
    pub network: NetworkId,
    pub node: NodeId,
    /// Signs what is said while no evidence binds the agent's key.
    pub identity: SigningKey,
    pub boot: BootId,
    /// Signs what the agent vouches for; made at this start, gone with it.
    pub agent: SigningKey,
    pub evidences: Evidences,
    /// What makes the evidence; its TPM is asked to be enrolled, on a thread that may block.
    pub device: Arc<dyn Attester>,
    pub statements: Arc<Statements>,
    pub pool: Arc<Pool>,
    pub jobs: JobDir,
    pub states: Arc<StateDir>,
    pub limits: NodeLimits,
    coordinator: PublicKey,
    compiled: Mutex<CompiledCache>,
    service: watch::Sender<Service>,
    /// Wakes whoever renews the admission.
    readmit: Notify,
}

/// Whether the node takes tasks.
#[derive(Debug)]
pub(crate) struct Service {
    /// An admission showed that the devices work, and nothing since that they do not.
    works: bool,
    /// What was in force around this agent and is not any more. It is mended or not, whatever anybody admits.
    fallen: Option<Refusal>,
}

impl Service {
    fn takes(&self) -> bool {
        self.works && self.fallen.is_none()
    }

    /// Why what runs is given up.
    pub(crate) fn fallen(&self) -> Option<&Refusal> {
        self.fallen.as_ref()
    }
}

impl<U> Shared<U> {
    pub(crate) fn service(&self) -> watch::Receiver<Service> {
        self.service.subscribe()
    }

    pub(crate) fn agent_key(&self) -> PublicKey {
        self.agent.public_key()
    }

    /// The devices gave no evidence: whatever else this node could do, it runs no tasks until they do.
    pub(crate) fn out_of_service(&self, why: &str) {
        let fails = |service: &mut Service| std::mem::replace(&mut service.works, false);
        if self.service.send_if_modified(fails) {
            tracing::warn!(why, "the node asks for no more tasks until its devices work again");
        }
        self.readmit.notify_one();
    }

    /// An admission showed that the devices work.
    pub(crate) fn back_in_service(&self) {
        let works = |service: &mut Service| !std::mem::replace(&mut service.works, true);
        if self.service.send_if_modified(works) && self.service.borrow().takes() {
            tracing::info!("the node is in order again, and asks for tasks");
        }
    }

    /// The posture of the host changed; `lost` was in force and is not any more. Where it fell, the node takes no tasks and gives up those that it has,
    /// and where it was mended, it takes tasks once it is admitted anew. The coordinator is told of either at once, by fresh evidence.
    pub(crate) fn posture_changed(&self, lost: &[PostureItem<HostMeasure>]) {
        let fallen = fallen_posture(lost);
        match &fallen {
            Some(refusal) => tracing::warn!(
                check = refusal.check(),
                reason = refusal.reason(),
                remedy = refusal.remedy(),
                "the host's posture fell: the node gives its tasks up and asks for none"
            ),
            None => tracing::info!("nothing of the host's posture is missing any more"),
        }
        self.service.send_modify(|service| {
            if fallen.is_some() || service.fallen.is_some() {
                service.works = false;
            }
            service.fallen = fallen;
        });
        self.readmit.notify_one();
    }

    /// Locked for the length of one look.
    pub(crate) fn compiled(&self) -> MutexGuard<'_, CompiledCache> {
        self.compiled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs a node until `shutdown` is over and its tasks have ended or been given up.
///
/// # Errors
/// What keeps it from starting; nothing that happens later.
pub async fn serve<U: Upstream>(parts: Parts<U>, shutdown: impl Future<Output = ()>) -> Result<(), AgentError> {
    let Parts {
        upstream,
        network,
        coordinator,
        identity,
        device,
        statements,
        host,
        program,
        data_dir,
        places,
        limits,
        admitted,
    } = parts;
    let jobs = JobDir::take(&data_dir)?;
    let states = StateDir::open(&data_dir)?;
    let running = RunningMark::set(&data_dir)?;
    if running.unclean {
        tracing::warn!(checkpoints = states.held().len(), "the agent before this one crashed or lost its power");
    }
    let job_storage = data_dir.canonicalize().map_err(|source| AgentError::File { path: data_dir.clone(), source })?;
    let node = NodeId(identity.public_key());
    let seed = Zeroizing::new(crate::random::bytes::<32>()?);
    let process_limits = ProcessLimits {
        data_bytes: limits.memory_bytes.saturating_add(PROCESS_DATA_BYTES),
        // A scratch can take twice its limit between checkpoints, and its tables on top.
        file_bytes: limits
            .scratch_bytes
            .max(limits.output_bytes)
            .max(limits.state_bytes)
            .saturating_mul(2)
            .saturating_add(PROCESS_DATA_BYTES),
    };
    let warm = limits.warm_processes.min(places);
    let host = host.with_job_storage(job_storage);
    let shared = Arc::new(Shared {
        upstream,
        network,
        node,
        identity,
        boot: device.boot(),
        agent: SigningKey::from_seed(&seed),
        evidences: Evidences::new(Arc::clone(&device), host.clone()),
        device,
        statements: Arc::new(statements),
        pool: Pool::new(program, process_limits, warm as usize),
        jobs,
        states,
        limits,
        coordinator,
        compiled: Mutex::new(CompiledCache::new(limits.compiled_cache_bytes)),
        service: watch::channel(Service { works: true, fallen: None }).0,
        readmit: Notify::new(),
    });
    tracing::info!(node = %node, boot = %shared.boot, places, "the node starts");
    let watching = watching::start(&shared, host).await?;
    let mut shutdown = pin!(shutdown);
    let admission = {
        let admission = admission::admit(&shared);
        tokio::select! {
            () = &mut shutdown => None,
            admission = admission => Some(admission),
        }
    };
    if let Some(admission) = admission {
        admitted();
        let mut renewal = JoinSet::new();
        renewal.spawn(admission::renew(Arc::clone(&shared), admission));
        Feed::new(Arc::clone(&shared), places as usize, running.unclean).run(shutdown).await;
        renewal.shutdown().await;
    }
    watching.stop().await;
    // What does not end in time ends with this process.
    let _ = tokio::time::timeout(STOP_GRACE, shared.pool.close()).await;
    running.clear();
    Ok(())
}

/// The loop over the coordinator's feed. Owns the attempts.
struct Feed<U: Upstream> {
    shared: Arc<Shared<U>>,
    places: usize,
    attempts: HashMap<AttemptRef, watch::Sender<Told>>,
    running: JoinSet<()>,
    names: HashMap<tokio::task::Id, AttemptRef>,
    ended: Ended,
    drain: watch::Sender<Drain>,
    epoch: u64,
    after: u64,
    /// The agent before this one ended without a word.
    unclean: bool,
}

/// Attempts that ended here, the oldest forgotten first.
#[derive(Default)]
struct Ended {
    order: VecDeque<AttemptRef>,
    known: HashSet<AttemptRef>,
}

impl Ended {
    fn remember(&mut self, attempt: AttemptRef) {
        if self.known.insert(attempt) {
            self.order.push_back(attempt);
            if self.order.len() > MAX_ENDED
                && let Some(oldest) = self.order.pop_front()
            {
                self.known.remove(&oldest);
            }
        }
    }
}

/// Why a poll was left.
enum Polled {
    Answered(Result<FeedResponse, ClientError>),
    PlaceFree,
    Stop,
    StopNow,
    GiveUp,
}

impl<U: Upstream> Feed<U> {
    fn new(shared: Arc<Shared<U>>, places: usize, unclean: bool) -> Self {
        Self {
            shared,
            places,
            attempts: HashMap::new(),
            running: JoinSet::new(),
            names: HashMap::new(),
            ended: Ended::default(),
            drain: watch::channel(Drain::No).0,
            epoch: 0,
            after: 0,
            unclean,
        }
    }

    async fn run(mut self, mut shutdown: impl Future<Output = ()> + Unpin) {
        let mut stop_at: Option<(Instant, bool)> = None;
        let mut pause = POLL_BACKOFF.0;
        loop {
            if stop_at.is_some() && self.attempts.is_empty() {
                return;
            }
            match self.poll(&mut shutdown, stop_at).await {
                Polled::Answered(Ok(response)) => {
                    pause = POLL_BACKOFF.0;
                    self.take(response);
                }
                Polled::Answered(Err(error)) => {
                    tracing::warn!(%error, "the coordinator's feed");
                    if !error.is_transient() {
                        // Most likely this node is not (or no longer) admitted.
                        self.shared.readmit.notify_one();
                    }
                    self.rest(pause).await;
                    pause = (pause * 2).min(POLL_BACKOFF.1);
                }
                Polled::PlaceFree => {}
                Polled::Stop => {
                    tracing::info!(tasks = self.attempts.len(), "the node stops: no more leases");
                    let patience = Duration::from_millis(self.shared.limits.shutdown_ms);
                    stop_at = Some((Instant::now() + patience, false));
                }
                Polled::StopNow => {
                    tracing::warn!(tasks = self.attempts.len(), "the node gives its tasks up");
                    self.drain.send_replace(Drain::Now);
                    stop_at = Some((Instant::now() + STOP_GRACE, true));
                }
                Polled::GiveUp => return,
            }
        }
    }

    /// One poll, left early when a place becomes free that it does not count, or the node is to stop.
    async fn poll(
        &mut self,
        shutdown: &mut (impl Future<Output = ()> + Unpin),
        stop_at: Option<(Instant, bool)>,
    ) -> Polled {
        let mut service = self.shared.service();
        let takes = stop_at.is_none() && service.borrow_and_update().takes();
        let free = if takes { self.places.saturating_sub(self.attempts.len()) } else { 0 };
        let request = NodeFeedRequest {
            epoch: self.epoch,
            after: self.after,
            wait_ms: POLL_WAIT_MS,
            free_places: u32::try_from(free).unwrap_or(u32::MAX),
            boot: self.shared.boot,
            holds: self.shared.states.held(),
            unclean: self.unclean,
        };
        let shared = Arc::clone(&self.shared);
        let mut answer = pin!(shared.upstream.node_feed(request));
        loop {
            tokio::select! {
                answer = &mut answer => return Polled::Answered(answer),
                Some(ended) = self.running.join_next_with_id() => {
                    self.ended(ended);
                    if free == 0 || stop_at.is_some() {
                        return Polled::PlaceFree;
                    }
                }
                // What was offered is taken back, or offered again.
                Ok(()) = service.changed() => return Polled::PlaceFree,
                () = &mut *shutdown, if stop_at.is_none() => return Polled::Stop,
                last = reached(stop_at) => return if last { Polled::GiveUp } else { Polled::StopNow },
            }
        }
    }

    /// Waits before the next poll, and reaps meanwhile.
    async fn rest(&mut self, pause: Duration) {
        let until = Instant::now() + pause;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                Some(ended) = self.running.join_next_with_id() => self.ended(ended),
            }
        }
    }

    fn ended(&mut self, ended: Result<(tokio::task::Id, ()), tokio::task::JoinError>) {
        let id = match ended {
            Ok((id, ())) => id,
            Err(error) => {
                tracing::error!(%error, "a defect of this program ended an attempt");
                error.id()
            }
        };
        if let Some(name) = self.names.remove(&id) {
            self.attempts.remove(&name);
            self.ended.remember(name);
        }
    }

    fn take(&mut self, response: FeedResponse) {
        if response.epoch != self.epoch && self.after != 0 {
            // The coordinator started anew and counts anew: everything is told again, and nothing is lost by asking.
            (self.epoch, self.after) = (response.epoch, 0);
        } else {
            (self.epoch, self.after) = (response.epoch, response.version);
        }
        for view in response.attempts {
            self.see(&view);
        }
        for task in response.over {
            self.shared.states.forget(task);
        }
    }

    fn see(&mut self, view: &AttemptView) {
        let name = AttemptRef { task: view.task, attempt: view.attempt };
        if let Some(attempt) = self.attempts.get(&name) {
            attempt.send_replace(Told::of(view));
            return;
        }
        let told = Told::of(view);
        if told.ended || self.ended.known.contains(&name) {
            return;
        }
        // Twice the places: leases that were given while others ended.
        if self.attempts.len() >= self.places.saturating_mul(2) {
            tracing::warn!(task = %view.task, "more leases than were asked for");
            return;
        }
        match self.check(view) {
            Ok((spec, lease)) => {
                let (sender, receiver) = watch::channel(told);
                let drain = self.drain.subscribe();
                let run = attempt::drive(Arc::clone(&self.shared), spec, lease, receiver, drain);
                self.names.insert(self.running.spawn(run).id(), name);
                self.attempts.insert(name, sender);
            }
            Err(what) => {
                tracing::warn!(task = %view.task, attempt = %view.attempt, what, "a lease was refused");
                self.ended.remember(name);
            }
        }
    }

    /// A lease has to be the coordinator's, for this node, and of the spec that comes with it.
    fn check(&self, view: &AttemptView) -> Result<(Signed<TaskSpec>, Signed<Lease>), &'static str> {
        let spec: Signed<TaskSpec> = view.spec.clone().open().map_err(|_| "its spec is not signed as it says")?;
        let lease: Signed<Lease> = view.lease.clone().open().map_err(|_| "it is not signed as it says")?;
        let rules = [
            (lease.coordinator == self.shared.coordinator, "it is signed by another coordinator"),
            (lease.node == self.shared.node, "it is another node's"),
            (lease.network == self.shared.network && spec.network == self.shared.network, "it is of another network"),
            (lease.task == view.task && lease.attempt == view.attempt, "it is of another attempt than the view"),
            (lease.task == spec.task && lease.spec == spec.digest(), "it is of another spec"),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map_or(Ok((spec, lease)), |(_, what)| Err(what))
    }
}

/// Waits for the time to stop, and says whether it was the last one.
async fn reached(stop_at: Option<(Instant, bool)>) -> bool {
    match stop_at {
        Some((at, last)) => {
            tokio::time::sleep_until(at).await;
            last
        }
        None => std::future::pending().await,
    }
}
