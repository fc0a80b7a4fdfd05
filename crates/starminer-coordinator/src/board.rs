//! What is published: tasks and feeds as of the last durable batch, and who waits for the next.
//!
//! The writer puts things up after they are durable; handlers only look. Feeds are level-triggered: an attempt appears in the feed
//! of its releaser and of its node with its whole state, each time something changed that they act upon, under the version of that
//! change (one more than the log index of the entry). Not here: decisions.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use starminer_receipt::Base64Bytes;
use starminer_verify::{Attempt, NodeId, PublicKey, TaskId};
use starminer_wire::{AttemptView, FeedRole, MAX_FEED_VIEWS, TaskState, TaskView};
use tokio::sync::Notify;

use crate::tasks::{AttemptRecord, Ending, Standing, Task};

/// A page of a feed ends with the view that passes this many bytes.
const PAGE_BYTES: usize = 4 << 20;

type FeedKey = (FeedRole, PublicKey);

/// See the module.
#[derive(Debug, Default)]
pub struct Board {
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    tasks: HashMap<TaskId, Posted>,
    feeds: HashMap<FeedKey, Feed>,
    nodes: HashMap<NodeId, Standing>,
    queue: BTreeSet<(std::cmp::Reverse<starminer_receipt::Sensitivity>, u64, TaskId)>,
    /// Version of the last change of all.
    version: u64,
    /// The latest version among feed items that were taken down; who has not seen that far has to begin anew.
    forgotten: u64,
}

#[derive(Debug)]
struct Posted {
    task: Arc<Task>,
    changed: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Feed {
    by_version: BTreeMap<u64, (TaskId, Attempt)>,
    /// Under which version an attempt is listed above.
    by_attempt: HashMap<(TaskId, Attempt), u64>,
    changed: Arc<Notify>,
}

impl Feed {
    fn list(&mut self, attempt: (TaskId, Attempt), version: u64) {
        self.unlist(attempt);
        self.by_version.insert(version, attempt);
        self.by_attempt.insert(attempt, version);
    }

    fn unlist(&mut self, attempt: (TaskId, Attempt)) {
        if let Some(version) = self.by_attempt.remove(&attempt) {
            self.by_version.remove(&version);
        }
    }
}

/// What changed in a feed.
#[derive(Debug)]
pub struct FeedPage {
    /// The attempts, oldest change first.
    pub attempts: Vec<AttemptView>,
    /// Version to go on from.
    pub version: u64,
}

impl Board {
    fn read(&self) -> std::sync::RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts up tasks and nodes as of a durable batch, and wakes who waits for them.
    pub fn publish(&self, tasks: &[Arc<Task>], nodes: &[(NodeId, Standing)], version: u64) {
        let mut state = self.write();
        state.version = version;
        for (node, standing) in nodes {
            state.nodes.insert(*node, standing.clone());
        }
        let mut wake = Vec::new();
        for task in tasks {
            state.post(task, &mut wake);
        }
        drop(state);
        for waiting in wake {
            waiting.notify_waiters();
        }
    }

    /// Takes down tasks that are no longer kept in memory.
    pub fn forget(&self, ids: &[TaskId]) {
        let mut state = self.write();
        for id in ids {
            if let Some(posted) = state.tasks.remove(id) {
                state.take_down(&posted.task);
            }
        }
        // Whoever waits holds the notifier too; a feed that nobody waits for and that is empty is not needed.
        state.feeds.retain(|_, feed| !feed.by_version.is_empty() || Arc::strong_count(&feed.changed) > 1);
    }

    /// A task.
    #[must_use]
    pub fn task(&self, id: &TaskId) -> Option<Arc<Task>> {
        self.read().tasks.get(id).map(|posted| posted.task.clone())
    }

    /// A task, and what tells when it changes next.
    #[must_use]
    pub fn watch(&self, id: &TaskId) -> Option<(Arc<Task>, Arc<Notify>)> {
        self.read().tasks.get(id).map(|posted| (posted.task.clone(), posted.changed.clone()))
    }

    /// How many queued tasks stand before this one.
    #[must_use]
    pub fn queue_position(&self, task: &Task) -> Option<u64> {
        if !task.is_queued() {
            return None;
        }
        let key = queue_key(task);
        Some(self.read().queue.range(..key).count() as u64)
    }

    /// What tells when a feed changes next.
    #[must_use]
    pub fn feed_changed(&self, role: FeedRole, identity: PublicKey) -> Arc<Notify> {
        self.write().feeds.entry((role, identity)).or_default().changed.clone()
    }

    /// Whether somebody who saw everything up to `after` still finds all later changes here.
    #[must_use]
    pub fn reaches_back_to(&self, after: u64) -> bool {
        after >= self.read().forgotten
    }

    /// What changed in a feed after `after`. From 0: everything that is under way, and nothing that has ended.
    #[must_use]
    pub fn feed(&self, role: FeedRole, identity: PublicKey, after: u64) -> FeedPage {
        let state = self.read();
        let mut page = FeedPage { attempts: Vec::new(), version: state.version.max(after) };
        let Some(feed) = state.feeds.get(&(role, identity)) else { return page };
        let mut bytes = 0;
        for (version, (id, attempt)) in feed.by_version.range(after.saturating_add(1)..) {
            let Some(posted) = state.tasks.get(id) else { continue };
            let Some(record) = posted.task.attempt(*attempt) else { continue };
            if after == 0 && is_over(&posted.task, record) {
                continue;
            }
            page.attempts.push(attempt_view(&posted.task, record, role));
            bytes += view_bytes(&posted.task, record);
            if page.attempts.len() == MAX_FEED_VIEWS || bytes >= PAGE_BYTES {
                page.version = *version;
                break;
            }
        }
        page
    }

    /// A node's standing.
    #[must_use]
    pub fn standing(&self, node: &NodeId) -> Option<Standing> {
        self.read().nodes.get(node).cloned()
    }

    /// Every admitted node with the number of tasks that it holds.
    #[must_use]
    pub fn nodes(&self) -> Vec<(NodeId, Standing, u32)> {
        let state = self.read();
        let mut running: HashMap<NodeId, u32> = HashMap::new();
        for posted in state.tasks.values().filter(|posted| posted.task.ending.is_none()) {
            if let Some(live) = posted.task.live() {
                *running.entry(live.node).or_insert(0) += 1;
            }
        }
        let row =
            |(node, standing): (&NodeId, &Standing)| (*node, standing.clone(), running.get(node).copied().unwrap_or(0));
        state.nodes.iter().map(row).collect()
    }
}

impl State {
    fn post(&mut self, task: &Arc<Task>, wake: &mut Vec<Arc<Notify>>) {
        let old = self.tasks.get(&task.id).map(|posted| posted.task.clone());
        if let Some(old) = &old {
            self.queue.remove(&queue_key(old));
        }
        if task.is_queued() {
            self.queue.insert(queue_key(task));
        }
        for record in &task.attempts {
            let before = old.as_ref().and_then(|old| Some((&**old, old.attempt(record.attempt)?)));
            for key in feed_keys(task, record) {
                if before.is_some_and(|before| !concerns(key.0, before, (task, record))) {
                    continue;
                }
                let feed = self.feeds.entry(key).or_default();
                feed.list((task.id, record.attempt), record.version);
                wake.push(feed.changed.clone());
            }
        }
        match self.tasks.get_mut(&task.id) {
            Some(posted) => {
                posted.task = task.clone();
                wake.push(posted.changed.clone());
            }
            None => {
                self.tasks.insert(task.id, Posted { task: task.clone(), changed: Arc::default() });
            }
        }
    }

    fn take_down(&mut self, task: &Task) {
        self.queue.remove(&queue_key(task));
        for record in &task.attempts {
            self.forgotten = self.forgotten.max(record.version);
            for key in feed_keys(task, record) {
                if let Some(feed) = self.feeds.get_mut(&key) {
                    feed.unlist((task.id, record.attempt));
                }
            }
        }
    }
}

/// About as many bytes as a view has in JSON: its parts that a stranger can make large, in base64, and room for the others.
fn view_bytes(task: &Task, record: &AttemptRecord) -> usize {
    let evidence = record.evidence.as_ref().and_then(|kept| kept.body.as_ref()).map_or(0, |body| body.len());
    let endorsements = record.endorsements.as_ref().map_or(0, |body| body.len());
    8 * 1024 + 2 * (task.spec.sealed_manifest.0.len() + evidence + endorsements) + 512 * task.spec.inputs.len()
}

fn queue_key(task: &Task) -> (std::cmp::Reverse<starminer_receipt::Sensitivity>, u64, TaskId) {
    (std::cmp::Reverse(task.spec.sensitivity), task.submitted_index, task.id)
}

fn feed_keys(task: &Task, record: &AttemptRecord) -> [FeedKey; 2] {
    [(FeedRole::Releaser, task.spec.releaser), (FeedRole::Node, record.node.0)]
}

/// Whether a role acts upon what changed. A releaser answers leases and evidence, and remembers checkpoints; a node answers challenges and grants;
/// both, the end.
fn concerns(role: FeedRole, before: (&Task, &AttemptRecord), after: (&Task, &AttemptRecord)) -> bool {
    let seen = |(task, record): (&Task, &AttemptRecord)| match role {
        FeedRole::Releaser => {
            let newest = task.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.checkpoint.sequence);
            (is_over(task, record), record.evidence.is_some(), false, newest)
        }
        FeedRole::Node => (is_over(task, record), record.challenge.is_some(), record.grant.is_some(), 0),
    };
    seen(before) != seen(after)
}

fn is_over(task: &Task, record: &AttemptRecord) -> bool {
    record.ended || task.ending.is_some()
}

/// What the role needs to see of an attempt.
fn attempt_view(task: &Task, record: &AttemptRecord, role: FeedRole) -> AttemptView {
    let ended = is_over(task, record);
    let releaser = role == FeedRole::Releaser && !ended;
    let node = role == FeedRole::Node && !ended;
    // Who has granted has judged: what comes after that need not bring it all again.
    let judges = releaser && record.grant.is_none();
    AttemptView {
        task: task.id,
        attempt: record.attempt,
        state: task.state(),
        ended,
        spec: task.spec.envelope().clone(),
        lease: record.lease.envelope().clone(),
        challenge: record.challenge.as_ref().and_then(|kept| kept.body.as_ref()).map(|body| body.envelope().clone()),
        evidence: record
            .evidence
            .as_ref()
            .filter(|_| judges)
            .and_then(|kept| kept.body.as_ref())
            .map(|body| Base64Bytes(body.to_vec())),
        endorsements: record.endorsements.as_ref().filter(|_| judges).map(|body| Base64Bytes(body.to_vec())),
        deposit: task.deposit.as_deref().filter(|_| releaser).cloned(),
        release: record
            .release
            .as_ref()
            .filter(|_| releaser)
            .and_then(|kept| kept.body.as_ref())
            .map(|body| body.envelope().clone()),
        grant: record
            .grant
            .as_ref()
            .filter(|_| node)
            .and_then(|kept| kept.body.as_ref())
            .map(|body| body.envelope().clone()),
        checkpoint: task
            .checkpoint
            .as_ref()
            .filter(|_| role == FeedRole::Releaser)
            .map(|checkpoint| checkpoint.envelope().clone()),
    }
}

/// A task as its requester sees it.
#[must_use]
pub fn task_view(task: &Task, queue_position: Option<u64>) -> TaskView {
    let last = task.attempts.last();
    let refusal = match &task.ending {
        Some(Ending::Failed(refusal)) => Some(refusal.clone()),
        _ => None,
    };
    TaskView {
        task: task.id,
        spec: task.spec.digest(),
        state: task.state(),
        version: task.version,
        attempt: last.map(|last| last.attempt),
        node: last.map(|last| last.node),
        submitted_at: task.submitted_at,
        changed_at: task.changed_at,
        refusal,
        queue_position: if task.state() == TaskState::Queued { queue_position } else { None },
    }
}
