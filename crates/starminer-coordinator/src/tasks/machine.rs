//! All tasks together: commands in, events out, with the indexes that make both cheap, and an undo for batches that did not become
//! durable.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use starminer_receipt::{
    AgentStatement, CancelStatement, ChallengeStatement, CheckpointStatement, DenyStatement, EnrolmentStatement, Grant,
    ReferenceFile, ReleaseStatement, Report, Role, SeenReferences, Signed, Signer, TaskSpec,
};
use starminer_verify::{Attempt, Digest, NetworkId, NodeId, Party, PublicKey, Refusal, TaskId, UnixTime};
use starminer_wire::{Deposit, ProblemStatus, TaskState};

use super::event::{Event, EventBody, ReplayError};
use super::queue::{Offer, QueueKey, ROLLED_BACK, Standing};
use super::steps::{self, ReportParts};
use super::task::Task;
use crate::clock::Now;
use crate::refused::Refused;

/// How long each step is waited for, and how much may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waits {
    /// For the releaser: to challenge, to decide, to grant. Then the task fails.
    pub releaser_ms: u64,
    /// For the node: to answer the challenge. Then the attempt ends.
    pub node_ms: u64,
    /// For the report, beyond the wall limit of the spec. Then the attempt ends.
    pub report_margin_ms: u64,
    /// Most tasks of one requester that have not ended.
    pub open_tasks_per_requester: usize,
    /// Most tasks of all that have not ended.
    pub open_tasks: usize,
    /// For a node to come back that has a checkpoint of a task that waits. Then another one begins it anew.
    pub resume_ms: u64,
    /// Most admitted nodes.
    pub nodes: usize,
    /// How long an admission in which nothing changes stands in the log before it is written anew.
    pub unchanged_ms: u64,
}

/// What somebody wants. Signatures were verified and identities authenticated before.
#[derive(Debug, Clone)]
pub enum Command {
    /// The network begins.
    Genesis {
        /// Digest of its trust file.
        trust: Digest,
    },
    /// The coordinator's appraisal of a node.
    Admit {
        /// The node.
        node: NodeId,
        /// Digest of its evidence.
        evidence: Digest,
        /// What the appraisal reached.
        standing: Standing,
    },
    /// A node's TPM was enrolled.
    Enrol {
        /// The node.
        node: NodeId,
        /// The statement about it.
        statement: Arc<Signed<EnrolmentStatement>>,
    },
    /// A node is not what it was: its attempts end, and it gets no more until it is admitted again.
    Suspend {
        /// The node.
        node: NodeId,
        /// Why.
        refusal: Refusal,
    },
    /// The rules for hardware that count from now on.
    Rules {
        /// Digest of them.
        policy: Digest,
    },
    /// Reference values are published. Enough release keys signed them, and they are in force.
    Publish {
        /// The role that they are for.
        role: Role,
        /// Their version.
        seen: SeenReferences,
        /// The file, without a place in the log.
        file: Arc<ReferenceFile>,
    },
    /// A requester submits.
    Submit {
        /// The spec.
        spec: Arc<Signed<TaskSpec>>,
        /// For a broker.
        deposit: Option<Arc<Deposit>>,
    },
    /// A node waits for work.
    Offer {
        /// The node.
        node: NodeId,
        /// What it would take.
        offer: Offer,
        /// The last version of its feed that it saw: later leases fill places that it believes free.
        seen: u64,
    },
    /// A poll of a node broke off. Its attempts go on.
    Withdraw {
        /// The node.
        node: NodeId,
        /// The poll.
        poll: u64,
    },
    /// Nothing was heard of a node for too long.
    NodeLost {
        /// The node.
        node: NodeId,
    },
    /// A step of an attempt.
    Step {
        /// Who takes it.
        peer: PublicKey,
        /// The task.
        task: TaskId,
        /// The attempt.
        attempt: Attempt,
        /// The step.
        step: Step,
    },
    /// A requester cancels.
    Cancel {
        /// Who asks.
        peer: PublicKey,
        /// The task.
        task: TaskId,
        /// The statement.
        cancel: Arc<Signed<CancelStatement>>,
    },
    /// Time has passed.
    Tick,
}

/// A step of an attempt.
#[derive(Debug, Clone)]
pub enum Step {
    /// The releaser challenges.
    Challenge(Arc<Signed<ChallengeStatement>>),
    /// The node answers.
    Evidence {
        /// The evidence's bytes.
        evidence: Arc<Vec<u8>>,
        /// SHA-256 of it.
        digest: Digest,
        /// What it is verified with (`EndorsementSet`).
        endorsements: Option<Arc<Vec<u8>>>,
        /// The report key that it names: what signs the attempt's checkpoints.
        report_key: Option<PublicKey>,
    },
    /// The releaser is about to release.
    Release(Arc<Signed<ReleaseStatement>>),
    /// The releaser grants.
    Grant {
        /// The grant.
        grant: Arc<Signed<Grant>>,
        /// The attestation result that the release commits to.
        attestation_result: Arc<Vec<u8>>,
    },
    /// The node says that a checkpoint is durable.
    Checkpoint(Arc<Signed<CheckpointStatement>>),
    /// The releaser denies.
    Deny(Arc<Signed<DenyStatement>>),
    /// The node reports.
    Report {
        /// The report.
        report: Arc<Signed<Report>>,
        /// The agent's statement over it.
        agent_statement: Option<Arc<Signed<AgentStatement>>>,
        /// Evidence over it.
        closing_evidence: Option<Arc<Vec<u8>>>,
    },
}

/// What became of a command.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The task after it, where it was about one.
    pub task: Option<Arc<Task>>,
}

/// What a batch changed.
#[derive(Debug, Default)]
pub struct Touched {
    /// The events, in order; the first has the index that the batch began with.
    pub events: Vec<Event>,
    /// Tasks as they are after the batch.
    pub tasks: Vec<Arc<Task>>,
    /// Nodes that were admitted.
    pub nodes: Vec<(NodeId, Standing)>,
}

/// What a batch replaced, to be put back if it does not become durable.
#[derive(Debug, Default)]
struct Undo {
    tasks: HashMap<TaskId, Option<Arc<Task>>>,
    nodes: HashMap<NodeId, Option<Standing>>,
    offers: HashMap<NodeId, Option<Offer>>,
    published: HashMap<Role, Option<SeenReferences>>,
}

/// Every task that has not ended, and those that ended lately.
pub struct Tasks {
    pub(super) network: NetworkId,
    pub(super) signer: Arc<dyn Signer + Send + Sync>,
    pub(super) waits: Waits,
    pub(super) tasks: HashMap<TaskId, Arc<Task>>,
    pub(super) queue: BTreeSet<QueueKey>,
    /// When the step under way of an attempt is overdue, on the monotonic clock.
    pub(super) overdue: BTreeSet<(u64, TaskId)>,
    /// When the spec of a task that has no grant yet expires, on the wall clock.
    pub(super) expiring: BTreeSet<(UnixTime, TaskId)>,
    pub(super) by_node: HashMap<NodeId, BTreeSet<TaskId>>,
    open_by_requester: HashMap<PublicKey, usize>,
    open: usize,
    pub(super) nodes: HashMap<NodeId, Standing>,
    pub(super) offers: BTreeMap<NodeId, Offer>,
    /// The newest version of each role's reference values.
    published: HashMap<Role, SeenReferences>,
    /// Index that the next event gets.
    next_index: u64,
    /// When the last event happened; the next is never earlier.
    last_at: UnixTime,
    /// The same as of the last durable batch.
    durable_at: UnixTime,
    /// Events of the batch under way.
    events: Vec<Event>,
    undo: Undo,
}

impl std::fmt::Debug for Tasks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tasks({} known, {} queued, next event {})", self.tasks.len(), self.queue.len(), self.next_index)
    }
}

impl Tasks {
    /// No tasks. `next_index` and `last_at` say where the log stands.
    pub fn new(
        network: NetworkId,
        signer: Arc<dyn Signer + Send + Sync>,
        waits: Waits,
        next_index: u64,
        last_at: UnixTime,
    ) -> Self {
        Self {
            network,
            signer,
            waits,
            tasks: HashMap::new(),
            queue: BTreeSet::new(),
            overdue: BTreeSet::new(),
            expiring: BTreeSet::new(),
            by_node: HashMap::new(),
            open_by_requester: HashMap::new(),
            open: 0,
            nodes: HashMap::new(),
            offers: BTreeMap::new(),
            published: HashMap::new(),
            next_index,
            last_at,
            durable_at: last_at,
            events: Vec::new(),
            undo: Undo::default(),
        }
    }

    /// Folds a task's events, as they were read back.
    ///
    /// # Errors
    /// [`ReplayError`].
    pub fn replay(events: &[(u64, Event)], now: Now) -> Result<Option<Task>, ReplayError> {
        let Some(((index, first), rest)) = events.split_first() else { return Ok(None) };
        let mut task = Task::begin(first, *index)?;
        for (index, event) in rest {
            task.apply(event, *index, now)?;
        }
        Ok(Some(task))
    }

    /// Takes up a task that was read back.
    pub fn restore_task(&mut self, task: Task) {
        let id = task.id;
        self.replace(id, Some(Arc::new(task)));
    }

    /// Takes up a node that was read back.
    pub fn restore_node(&mut self, node: NodeId, standing: Standing) {
        self.nodes.insert(node, standing);
    }

    /// Takes up the newest version of a role's reference values, which was read back.
    pub fn restore_published(&mut self, role: Role, seen: SeenReferences) {
        self.published.insert(role, seen);
    }

    /// Carries out a command. A refused one changes nothing.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn execute(&mut self, command: Command, now: Now) -> Result<Answer, Refused> {
        match command {
            Command::Genesis { trust } => {
                self.record(None, None, None, EventBody::Genesis { trust }, now);
                Ok(Answer { task: None })
            }
            Command::Admit { node, evidence, standing } => self.admit(node, evidence, standing, now),
            Command::Enrol { node, statement } => {
                self.record(None, None, Some(node), EventBody::Enrolled(statement), now);
                Ok(Answer { task: None })
            }
            Command::Suspend { node, refusal } => {
                self.suspend(node, refusal, now);
                Ok(Answer { task: None })
            }
            Command::Rules { policy } => {
                self.record(None, None, None, EventBody::Rules { policy }, now);
                Ok(Answer { task: None })
            }
            Command::Publish { role, seen, file } => self.publish(role, seen, file, now),
            Command::Submit { spec, deposit } => self.submit(spec, deposit, now),
            Command::Offer { node, offer, seen } => {
                self.take_offer(node, offer, seen, now);
                Ok(Answer { task: None })
            }
            Command::Withdraw { node, poll } => {
                if self.offers.get(&node).is_some_and(|offer| offer.poll == poll) {
                    self.set_offer(node, None);
                }
                Ok(Answer { task: None })
            }
            Command::NodeLost { node } => {
                self.set_offer(node, None);
                self.end_attempts_of(node, None, &steps::because::node_lost(), now);
                Ok(Answer { task: None })
            }
            Command::Step { peer, task, attempt, step } => {
                let id = task;
                let task = self.tasks.get(&id).cloned().ok_or_else(Refused::task_unknown)?;
                let left = self.attempts_left(&task, now);
                match Self::decide(&task, peer, attempt, step, now, left)? {
                    None => Ok(Answer { task: Some(task) }),
                    Some(body) => {
                        self.take_step(&task, attempt, body, now);
                        Ok(Answer { task: self.tasks.get(&id).cloned() })
                    }
                }
            }
            Command::Cancel { peer, task, cancel } => {
                let id = task;
                let task = self.tasks.get(&id).cloned().ok_or_else(Refused::task_unknown)?;
                if let Some(body) = Self::decide_cancel(&task, peer, cancel)? {
                    self.record(
                        Some(id),
                        task.live().map(|live| live.attempt),
                        task.live().map(|live| live.node),
                        body,
                        now,
                    );
                }
                Ok(Answer { task: self.tasks.get(&id).cloned() })
            }
            Command::Tick => {
                self.tick(now);
                Ok(Answer { task: None })
            }
        }
    }

    /// What a step means for a task: an event, nothing new (a replay), or a refusal. For a task that has ended it is never an event,
    /// so that one read back from the database can be asked without being taken up.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn decide(
        task: &Task,
        peer: PublicKey,
        attempt: Attempt,
        step: Step,
        now: Now,
        attempts_left: bool,
    ) -> Result<Option<EventBody>, Refused> {
        let record = steps::record_of(task, attempt)?;
        match &step {
            Step::Evidence { .. } | Step::Checkpoint(_) | Step::Report { .. } => steps::node(record, peer)?,
            Step::Challenge(_) | Step::Release(_) | Step::Grant { .. } | Step::Deny(_) => steps::releaser(task, peer)?,
        }
        let event = match step {
            Step::Challenge(challenge) => steps::challenge(task, record, challenge)?,
            Step::Evidence { evidence, digest, endorsements, report_key } => {
                let answer = EventBody::Attested { evidence, digest, endorsements, report_key };
                steps::evidence(task, record, digest, answer)?
            }
            Step::Release(release) => {
                let event = steps::release(task, record, release)?;
                if event.is_some() && now.wall >= task.spec.expires_at {
                    return Err(Refused::new(ProblemStatus::Conflict, steps::because::spec_expired()));
                }
                event
            }
            Step::Grant { grant, attestation_result } => steps::grant(task, record, grant, attestation_result)?,
            Step::Checkpoint(checkpoint) => steps::checkpoint(task, record, checkpoint)?,
            Step::Deny(denial) => steps::deny(task, record, denial)?,
            Step::Report { report, agent_statement, closing_evidence } => {
                steps::report(task, record, ReportParts { report, agent_statement, closing_evidence }, attempts_left)?
            }
        };
        Ok(event)
    }

    /// What a cancellation means for a task; see [`Self::decide`].
    ///
    /// # Errors
    /// Why it is refused.
    pub fn decide_cancel(
        task: &Task,
        peer: PublicKey,
        cancel: Arc<Signed<CancelStatement>>,
    ) -> Result<Option<EventBody>, Refused> {
        if peer != task.requester() {
            return Err(Refused::task_unknown());
        }
        steps::cancel(task, cancel)
    }

    fn admit(&mut self, node: NodeId, evidence: Digest, standing: Standing, now: Now) -> Result<Answer, Refused> {
        if !self.nodes.contains_key(&node) && self.nodes.len() >= self.waits.nodes {
            let undo = &mut self.undo.nodes;
            self.nodes.retain(|node, standing| {
                let counts = standing.counts_at(now);
                if !counts {
                    undo.entry(*node).or_insert_with(|| Some(standing.clone()));
                }
                counts
            });
            if self.nodes.len() >= self.waits.nodes {
                return Err(Refused::unavailable(
                    "node.too-many",
                    "as many nodes are admitted as this coordinator takes",
                    60_000,
                ));
            }
        }
        let unchanged = self.nodes.get(&node).filter(|before| {
            before.counts_at(now)
                && (before.tier, before.simulated_root) == (standing.tier, standing.simulated_root)
                // A clock that was ahead is no reason to say nothing until then.
                && before.admitted_at <= now.wall
                && now.wall < before.admitted_at.saturating_add_millis(self.waits.unchanged_ms)
        });
        // The log says what changed; that a node goes on proving the same is no news.
        let standing = match unchanged.map(|before| before.admitted_at) {
            Some(admitted_at) => Standing { admitted_at, ..standing },
            None => {
                let standing = Standing { admitted_at: now.wall, ..standing };
                let body = EventBody::Admitted { evidence, standing: standing.clone() };
                self.record(None, None, Some(node), body, now);
                standing
            }
        };
        self.set_standing(node, standing.clone());
        self.end_unsuited_attempts(node, &standing, now);
        Ok(Answer { task: None })
    }

    /// A version that is there already stays as it was, without another word in the log.
    fn publish(
        &mut self,
        role: Role,
        seen: SeenReferences,
        file: Arc<ReferenceFile>,
        now: Now,
    ) -> Result<Answer, Refused> {
        let newest = self.published.get(&role).copied();
        seen.may_follow(newest)?;
        if newest != Some(seen) {
            let before = self.published.insert(role, seen);
            self.undo.published.entry(role).or_insert(before);
            self.record(None, None, None, EventBody::Published { role, file }, now);
        }
        Ok(Answer { task: None })
    }

    fn set_standing(&mut self, node: NodeId, standing: Standing) {
        let before = self.nodes.insert(node, standing);
        self.undo.nodes.entry(node).or_insert(before);
    }

    /// Takes a node out. What is out already stays so, without another word in the log; but that an old state was put back under it is said, once.
    pub(super) fn suspend(&mut self, node: NodeId, refusal: Refusal, now: Now) {
        let Some(standing) = self.nodes.get(&node).cloned() else { return };
        let is_rollback = refusal.check() == ROLLED_BACK;
        if !standing.counts() && (!is_rollback || standing.rollback_said) {
            return;
        }
        tracing::info!(%node, check = refusal.check(), reason = refusal.reason(), "the node is taken out");
        let rollback_said = standing.rollback_said || is_rollback;
        self.set_standing(node, Standing { valid_until: UnixTime(0), rollback_said, ..standing });
        self.set_offer(node, None);
        self.record(None, None, Some(node), EventBody::Suspended { refusal: refusal.clone() }, now);
        self.end_attempts_of(node, None, &refusal, now);
    }

    fn submit(
        &mut self,
        spec: Arc<Signed<TaskSpec>>,
        deposit: Option<Arc<Deposit>>,
        now: Now,
    ) -> Result<Answer, Refused> {
        let id = spec.task;
        if let Some(task) = self.tasks.get(&id) {
            return Self::resubmit(task, &spec).map(|()| Answer { task: Some(task.clone()) });
        }
        if now.wall >= spec.expires_at {
            return Err(Refused::new(ProblemStatus::Refused, steps::because::spec_expired()));
        }
        if self.open_by_requester.get(&spec.requester).copied().unwrap_or(0) >= self.waits.open_tasks_per_requester {
            return Err(Refused::of(
                ProblemStatus::TooMany,
                Party::Requester,
                "task.too-many-open",
                "this identity has as many open tasks as it may",
                "wait until some of them have ended, or cancel some",
            )
            .retry_after(1000));
        }
        if self.open >= self.waits.open_tasks {
            return Err(Refused::unavailable("queue.full", "the coordinator has as many open tasks as it takes", 1000));
        }
        self.record(Some(id), None, None, EventBody::Submitted { spec, deposit }, now);
        Ok(Answer { task: self.tasks.get(&id).cloned() })
    }

    /// Whether a spec that names a known task is that task's spec.
    ///
    /// # Errors
    /// It is another one.
    pub fn resubmit(task: &Task, spec: &Signed<TaskSpec>) -> Result<(), Refused> {
        if task.spec.digest() == spec.digest() {
            return Ok(());
        }
        Err(Refused::of(
            ProblemStatus::Conflict,
            Party::Requester,
            "task.conflict",
            "another spec was taken for this task id",
            "draw a new random task id for each spec",
        ))
    }

    /// Appends an event to the batch and folds it.
    pub(super) fn record(
        &mut self,
        task: Option<TaskId>,
        attempt: Option<Attempt>,
        node: Option<NodeId>,
        body: EventBody,
        now: Now,
    ) {
        let at = self.last_at.max(now.wall);
        let index = self.next_index;
        let step = task.map(|id| self.tasks.get(&id).map_or(0, |task| task.steps));
        let event = Event { at, task, step, attempt, node, body };
        if let Some(id) = task {
            let next = match self.tasks.get(&id) {
                None => Task::begin(&event, index).map(Arc::new),
                Some(task) => {
                    let mut next = Task::clone(task);
                    next.apply(&event, index, now).map(|()| Arc::new(next))
                }
            };
            // Every caller decided on this very state that the event can follow.
            let next = next.expect("an event that was decided on follows on the state that it was decided on");
            self.replace(id, Some(next));
        }
        self.last_at = at;
        self.next_index += 1;
        self.events.push(event);
    }

    /// Puts a task into its new state, with everything that is indexed by it.
    fn replace(&mut self, id: TaskId, next: Option<Arc<Task>>) {
        let old = match &next {
            Some(next) => self.tasks.insert(id, next.clone()),
            None => self.tasks.remove(&id),
        };
        if let Some(old) = &old {
            self.index(old, Indexing::Remove);
        }
        if let Some(next) = &next {
            self.index(next, Indexing::Add);
        }
        self.undo.tasks.entry(id).or_insert(old);
    }

    fn index(&mut self, task: &Task, indexing: Indexing) {
        let requester = task.requester();
        if task.ending.is_none() {
            let count = self.open_by_requester.entry(requester).or_insert(0);
            match indexing {
                Indexing::Add => {
                    *count += 1;
                    self.open += 1;
                }
                Indexing::Remove => {
                    *count = count.saturating_sub(1);
                    self.open = self.open.saturating_sub(1);
                    if *count == 0 {
                        self.open_by_requester.remove(&requester);
                    }
                }
            }
        }
        if task.is_queued() {
            indexing.apply(&mut self.queue, queue_key(task));
        }
        if task.ending.is_none() && task.live().is_none_or(|live| live.grant.is_none()) {
            indexing.apply(&mut self.expiring, (task.spec.expires_at, task.id));
        }
        if let Some(live) = task.live().filter(|_| task.ending.is_none()) {
            let overdue = live.since_ms.saturating_add(self.waits.of(task, live.state()));
            indexing.apply(&mut self.overdue, (overdue, task.id));
            let of_node = self.by_node.entry(live.node).or_default();
            indexing.apply(of_node, task.id);
            if of_node.is_empty() {
                self.by_node.remove(&live.node);
            }
        }
    }

    pub(super) fn set_offer(&mut self, node: NodeId, offer: Option<Offer>) {
        let old = match offer {
            Some(offer) => self.offers.insert(node, offer),
            None => self.offers.remove(&node),
        };
        self.undo.offers.entry(node).or_insert(old);
    }

    /// How many places remain of what a node offers: leases that it had not seen when it asked fill some.
    fn take_offer(&mut self, node: NodeId, offer: Offer, seen: u64, now: Now) {
        let ended = if offer.unclean { steps::because::node_crashed() } else { steps::because::node_restarted() };
        self.end_attempts_of(node, Some(offer.boot), &ended, now);
        let unseen = self.by_node.get(&node).map_or(0, |tasks| {
            let is_unseen = |id: &&TaskId| {
                self.tasks.get(id).and_then(|task| task.live()).is_some_and(|live| live.leased_version > seen)
            };
            tasks.iter().filter(is_unseen).count()
        });
        let free_places = offer.free_places.saturating_sub(u32::try_from(unseen).unwrap_or(u32::MAX));
        self.set_offer(node, (free_places > 0).then_some(Offer { free_places, ..offer }));
    }

    /// Index that the batch under way began with.
    #[must_use]
    pub fn batch_index(&self) -> u64 {
        self.next_index - self.events.len() as u64
    }

    /// Ends the batch and tells what it changed; it can be undone until [`Self::commit`].
    pub fn take_batch(&mut self) -> Touched {
        let tasks = self.undo.tasks.keys().filter_map(|id| self.tasks.get(id).cloned()).collect();
        let nodes = self.undo.nodes.keys().filter_map(|node| Some((*node, self.nodes.get(node)?.clone()))).collect();
        Touched { events: self.events.clone(), tasks, nodes }
    }

    /// The batch is durable.
    pub fn commit(&mut self) {
        self.durable_at = self.last_at;
        self.events.clear();
        self.undo = Undo::default();
    }

    /// The batch is not durable: everything is as it was before it.
    pub fn rollback(&mut self) {
        let undo = std::mem::take(&mut self.undo);
        for (id, old) in undo.tasks {
            self.replace(id, old);
        }
        for (node, old) in undo.nodes {
            match old {
                Some(standing) => self.nodes.insert(node, standing),
                None => self.nodes.remove(&node),
            };
        }
        for (node, old) in undo.offers {
            match old {
                Some(offer) => self.offers.insert(node, offer),
                None => self.offers.remove(&node),
            };
        }
        for (role, old) in undo.published {
            match old {
                Some(seen) => self.published.insert(role, seen),
                None => self.published.remove(&role),
            };
        }
        self.undo = Undo::default();
        self.next_index -= self.events.len() as u64;
        self.last_at = self.durable_at;
        self.events.clear();
    }

    /// Forgets tasks that ended before `before_ms` on the monotonic clock; the database has them. Returns their ids.
    pub fn forget(&mut self, before_ms: u64) -> Vec<TaskId> {
        let old = |task: &&Arc<Task>| task.ending.is_some() && task.ended_ms < before_ms;
        let ids: Vec<TaskId> = self.tasks.values().filter(old).map(|task| task.id).collect();
        let touched: HashSet<TaskId> = self.undo.tasks.keys().copied().collect();
        for id in &ids {
            self.replace(*id, None);
            if !touched.contains(id) {
                self.undo.tasks.remove(id);
            }
        }
        ids
    }

    /// A task that is known here.
    #[must_use]
    pub fn task(&self, id: &TaskId) -> Option<&Arc<Task>> {
        self.tasks.get(id)
    }

    /// All tasks that are known here.
    pub fn known(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks.values()
    }

    /// The tasks in the order of the queue.
    pub fn queued(&self) -> impl Iterator<Item = TaskId> + '_ {
        self.queue.iter().map(|key| key.task)
    }

    /// When the last event happened.
    #[must_use]
    pub fn last_at(&self) -> UnixTime {
        self.last_at
    }

    /// Nodes that hold leases or offer places: those that are missed when they are silent.
    #[must_use]
    pub fn expected_nodes(&self) -> BTreeSet<NodeId> {
        self.by_node.keys().chain(self.offers.keys()).copied().collect()
    }

    /// Admitted nodes.
    pub fn nodes(&self) -> impl Iterator<Item = (&NodeId, &Standing)> {
        self.nodes.iter()
    }

    pub(super) fn attempts_left(&self, task: &Task, now: Now) -> bool {
        task.attempts.len() < task.spec.max_attempts as usize && now.wall < task.spec.expires_at
    }

    fn take_step(&mut self, task: &Task, attempt: Attempt, body: EventBody, now: Now) {
        let node = task.attempt(attempt).map(|record| record.node);
        let final_refusal = match &body {
            EventBody::Denied(denial) if !denial.retry || !self.attempts_left(task, now) => {
                denial.reasons.first().cloned()
            }
            _ => None,
        };
        let fallen = steps::fallen_posture(&body).cloned();
        self.record(Some(task.id), Some(attempt), node, body, now);
        if let Some(refusal) = final_refusal {
            self.fail(task.id, refusal, now);
        }
        // Before the task is given away again: the node still offers its places.
        if let (Some(refusal), Some(node)) = (fallen, node) {
            self.suspend(node, refusal, now);
        }
    }

    #[cfg(test)]
    pub(super) fn next_index_for_tests(&self) -> u64 {
        self.next_index
    }

    /// The indexes are what the tasks say.
    #[cfg(test)]
    pub(super) fn check_indexes(&self) {
        let mut fresh = Self::new(self.network, self.signer.clone(), self.waits, self.next_index, self.last_at);
        for task in self.tasks.values() {
            fresh.replace(task.id, Some(task.clone()));
        }
        assert_eq!(fresh.queue, self.queue);
        assert_eq!(fresh.overdue, self.overdue);
        assert_eq!(fresh.expiring, self.expiring);
        assert_eq!(fresh.by_node, self.by_node);
        assert_eq!(fresh.open_by_requester, self.open_by_requester);
        assert_eq!(fresh.open, self.open);
    }
}

#[derive(Clone, Copy)]
enum Indexing {
    Add,
    Remove,
}

impl Indexing {
    fn apply<K: Ord>(self, index: &mut BTreeSet<K>, key: K) {
        match self {
            Self::Add => index.insert(key),
            Self::Remove => index.remove(&key),
        };
    }
}

pub(super) fn queue_key(task: &Task) -> QueueKey {
    QueueKey { sensitivity: Reverse(task.spec.sensitivity), submitted_index: task.submitted_index, task: task.id }
}

impl Waits {
    /// How long the step after `state` is waited for.
    fn of(&self, task: &Task, state: TaskState) -> u64 {
        match state {
            TaskState::Challenged => self.node_ms,
            TaskState::Granted => task.spec.limits.wall_limit_ms.saturating_add(self.report_margin_ms),
            _ => self.releaser_ms,
        }
    }

    /// The longest that an attempt may take, all steps together: the length of a lease.
    pub(super) fn lease_ms(&self, spec: &TaskSpec) -> u64 {
        let releaser = self.releaser_ms.saturating_mul(3);
        releaser
            .saturating_add(self.node_ms)
            .saturating_add(spec.limits.wall_limit_ms)
            .saturating_add(self.report_margin_ms)
    }
}
