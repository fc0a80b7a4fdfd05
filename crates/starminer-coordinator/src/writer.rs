//! The one writer: commands in order, committed in groups, answered after they are durable.
//!
//! It takes all commands that wait, carries them out in memory, appends their entries to the log, signs the checkpoint and writes state,
//! entries, hashes and checkpoint in one transaction. Then, and only then, it publishes and answers. While one group is on its way to
//! the disk, the next gathers; nothing is delayed on purpose. If the group cannot be written, everything in memory is as before
//! it and every caller is told. It owns the state machine and the log's frontier; nobody else has them.

use std::sync::Arc;
use std::time::Duration;

use starminer_store::{
    Batch, BlobRow, BlobUseRow, CheckpointRow, CommitError, Committed, Journal, NodeRow, OpenedTask,
};
use starminer_verify::NetworkId;
use tokio::sync::{mpsc, oneshot};

use crate::board::Board;
use crate::clock::{Clock, Now};
use crate::ledger::{Ledger, LedgerError, Prepared};
use crate::log_reader::LogReader;
use crate::pins::Pins;
use crate::presence::Presence;
use crate::published::Published;
use crate::refused::Refused;
use crate::tasks::{Answer, Command, Event, EventBody, Tasks, Touched};

/// Most commands in one group.
const GROUP_BOUND: usize = 256;
/// Most commands that wait for the next group.
pub const QUEUE_BOUND: usize = 1024;
/// How often overdue steps and silent nodes are looked for.
const TICK: Duration = Duration::from_millis(250);
/// How long an ended task stays in memory, so that those who follow it see its end.
const KEEP_ENDED_MS: u64 = 15_000;
/// How long storage is asked again at most before the next try, when it cannot be read.
const LONGEST_BACKOFF: Duration = Duration::from_secs(1);

/// Why the writer stopped. The coordinator cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// Another coordinator writes to the same database.
    #[error("another coordinator writes to this database")]
    Conflict,
    /// The log cannot be continued.
    #[error("the log cannot be continued")]
    Ledger(#[from] LedgerError),
    /// The writer panicked.
    #[error("the writer failed: {0}")]
    Panicked(String),
}

/// A job for the writer.
#[derive(Debug)]
pub enum Job {
    /// A command of the state machine, with complete blobs that become durable with it, or not at all.
    Command(Box<Command>, Vec<BlobRow>, oneshot::Sender<Result<Answer, Refused>>),
    /// A blob that is complete.
    Blob(BlobRow, oneshot::Sender<Result<(), Refused>>),
    /// Blobs that are not needed any more.
    Sweep {
        /// Ended tasks whose blobs go.
        tasks: Vec<[u8; 16]>,
        /// The blobs, and others that nothing uses.
        blobs: Vec<[u8; 32]>,
        /// What was dropped: id, owner, length.
        reply: oneshot::Sender<Result<Committed, Refused>>,
    },
}

/// How jobs reach the writer.
#[derive(Debug, Clone)]
pub struct WriterHandle {
    jobs: mpsc::Sender<Job>,
}

/// How long a caller waits for a place in the queue.
const QUEUE_WAIT: Duration = Duration::from_secs(5);

impl WriterHandle {
    /// Carries out a command, durably.
    ///
    /// # Errors
    /// The command's refusal; `storage.*` when it did not become durable; `coordinator.busy`.
    pub async fn execute(&self, command: Command) -> Result<Answer, Refused> {
        self.execute_with(command, Vec::new()).await
    }

    /// Carries out a command and keeps the blobs that came with it, durably; a refused command keeps none.
    ///
    /// # Errors
    /// As [`Self::execute`].
    pub async fn execute_with(&self, command: Command, blobs: Vec<BlobRow>) -> Result<Answer, Refused> {
        let (reply, answer) = oneshot::channel();
        self.send(Job::Command(Box::new(command), blobs, reply)).await?;
        answer.await.unwrap_or_else(|_| Err(stopping()))
    }

    /// Takes note of a complete blob, durably.
    ///
    /// # Errors
    /// As [`Self::execute`].
    pub async fn blob(&self, blob: BlobRow) -> Result<(), Refused> {
        let (reply, answer) = oneshot::channel();
        self.send(Job::Blob(blob, reply)).await?;
        answer.await.unwrap_or_else(|_| Err(stopping()))
    }

    /// Drops blobs, durably.
    ///
    /// # Errors
    /// As [`Self::execute`].
    pub async fn sweep(&self, tasks: Vec<[u8; 16]>, blobs: Vec<[u8; 32]>) -> Result<Committed, Refused> {
        let (reply, answer) = oneshot::channel();
        self.send(Job::Sweep { tasks, blobs, reply }).await?;
        answer.await.unwrap_or_else(|_| Err(stopping()))
    }

    async fn send(&self, job: Job) -> Result<(), Refused> {
        match tokio::time::timeout(QUEUE_WAIT, self.jobs.send(job)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(stopping()),
            Err(_) => Err(Refused::unavailable("coordinator.busy", "the coordinator has more to do than it can", 1000)),
        }
    }
}

fn stopping() -> Refused {
    Refused::unavailable("coordinator.stopping", "the coordinator is stopping", 1000)
}

/// What the writer works with.
pub struct Writer {
    /// The state.
    pub tasks: Tasks,
    /// The log.
    pub ledger: Ledger,
    /// Where batches become durable.
    pub journal: Arc<dyn Journal>,
    /// Where tasks are published.
    pub board: Arc<Board>,
    /// Where the log is published.
    pub log: Arc<LogReader>,
    /// Where published reference values are kept.
    pub published: Arc<Published>,
    /// Blobs that somebody is about to refer to.
    pub pins: Arc<Pins>,
    /// Who was heard of.
    pub presence: Arc<Presence>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The network.
    pub network: NetworkId,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Writer({:?})", self.tasks)
    }
}

/// What a command gets.
type CommandResult = Result<Answer, Refused>;

/// Who waits for a group, with what they get if it becomes durable.
#[derive(Default)]
struct Waiting {
    commands: Vec<(oneshot::Sender<CommandResult>, CommandResult)>,
    blobs: Vec<oneshot::Sender<Result<(), Refused>>>,
    sweeps: Vec<oneshot::Sender<Result<Committed, Refused>>>,
}

enum Outcome {
    Durable(Committed),
    NotDurable(Refused),
}

impl Writer {
    /// Starts the writer. It ends when every handle is gone and everything that waited is done, or when it cannot go on.
    #[must_use]
    pub fn start(self) -> (WriterHandle, tokio::task::JoinHandle<Result<(), Fatal>>) {
        let (jobs, queue) = mpsc::channel(QUEUE_BOUND);
        (WriterHandle { jobs }, tokio::spawn(self.run(queue)))
    }

    async fn run(mut self, mut queue: mpsc::Receiver<Job>) -> Result<(), Fatal> {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut group = Vec::with_capacity(GROUP_BOUND);
        loop {
            tokio::select! {
                received = queue.recv_many(&mut group, GROUP_BOUND) => {
                    if received == 0 {
                        return Ok(());
                    }
                    self.carry_out(&mut group, Tick::No).await?;
                }
                _ = ticks.tick() => {
                    self.carry_out(&mut group, Tick::Yes).await?;
                    let now = self.clock.now();
                    let forgotten = self.tasks.forget(now.mono_ms.saturating_sub(KEEP_ENDED_MS));
                    if !forgotten.is_empty() {
                        self.board.forget(&forgotten);
                    }
                }
            }
        }
    }

    async fn carry_out(&mut self, group: &mut Vec<Job>, tick: Tick) -> Result<(), Fatal> {
        let now = self.clock.now();
        let mut waiting = Waiting::default();
        let mut batch = Batch::default();
        if tick == Tick::Yes {
            for node in self.presence.lost(self.tasks.expected_nodes().into_iter(), now) {
                self.run_internal(Command::NodeLost { node }, now);
            }
            self.run_internal(Command::Tick, now);
        }
        for job in group.drain(..) {
            match job {
                Job::Command(command, blobs, reply) => {
                    let result = self.tasks.execute(*command, now);
                    if result.is_ok() {
                        batch.blobs.extend(blobs);
                    }
                    waiting.commands.push((reply, result));
                }
                Job::Blob(row, reply) => {
                    batch.blobs.push(row);
                    waiting.blobs.push(reply);
                }
                Job::Sweep { tasks, blobs, reply } => {
                    batch.swept.extend(tasks);
                    batch.dropped.extend(blobs.into_iter().filter(|blob| !self.pins.is_pinned(blob)));
                    waiting.sweeps.push(reply);
                }
            }
        }
        self.tasks.assign(now);
        // A task that was submitted and leased in one group is seen leased.
        for answer in waiting.commands.iter_mut().filter_map(|(_, result)| result.as_mut().ok()) {
            if let Some(current) = answer.task.as_ref().and_then(|task| self.tasks.task(&task.id)) {
                answer.task = Some(current.clone());
            }
        }
        let touched = self.tasks.take_batch();
        let prepared = self.fill(&mut batch, &touched)?;
        let outcome =
            if batch.is_empty() { Outcome::Durable(Committed::default()) } else { self.commit(&batch).await? };
        match outcome {
            Outcome::Durable(committed) => {
                self.tasks.commit();
                if let Some(prepared) = prepared {
                    self.log.publish(&prepared);
                    // After the checkpoint under which they stand.
                    for (index, event) in (prepared.first_entry()..).zip(&touched.events) {
                        if let EventBody::Published { role, file } = &event.body {
                            self.published.keep(*role, file.clone(), index);
                        }
                    }
                    self.ledger.advance(prepared);
                }
                if !touched.tasks.is_empty() || !touched.nodes.is_empty() {
                    self.board.publish(&touched.tasks, &touched.nodes, self.ledger.size());
                }
                waiting.answer(&committed);
            }
            Outcome::NotDurable(refused) => {
                self.tasks.rollback();
                waiting.refuse(&refused);
            }
        }
        Ok(())
    }

    /// What time does, nobody waits for; a refusal has no addressee.
    fn run_internal(&mut self, command: Command, now: Now) {
        if let Err(refused) = self.tasks.execute(command, now) {
            tracing::warn!(code = refused.code(), "a command of the coordinator itself was refused");
        }
    }

    /// Turns what changed into rows.
    fn fill(&self, batch: &mut Batch, touched: &Touched) -> Result<Option<Prepared>, Fatal> {
        batch.nodes = touched
            .nodes
            .iter()
            .filter_map(|(node, standing)| {
                let standing_json = serde_json::to_vec(standing).ok()?;
                Some(NodeRow {
                    node: *node.as_bytes(),
                    valid_until: standing.valid_until.as_millis(),
                    standing: standing_json,
                })
            })
            .collect();
        if touched.events.is_empty() {
            return Ok(None);
        }
        let ended = |task: &&Arc<crate::tasks::Task>| task.ending.is_some();
        batch.ended = touched.tasks.iter().filter(ended).map(|task| (task.id.0, task.changed_at.as_millis())).collect();
        let entries: Vec<Vec<u8>> = touched.events.iter().map(|event| event.entry(&self.network).encode()).collect();
        for ((index, event), entry) in (self.tasks.batch_index()..).zip(&touched.events).zip(&entries) {
            batch.events.push(event.to_row(index, entry.clone()));
            rows_of(event, index, batch);
        }
        let prepared = self.ledger.prepare(entries)?;
        batch.checkpoint = Some(prepared.checkpoint.clone());
        batch.hashes.clone_from(&prepared.runs);
        Ok(Some(prepared))
    }

    async fn commit(&self, batch: &Batch) -> Result<Outcome, Fatal> {
        match self.journal.commit(batch).await {
            Ok(committed) => Ok(Outcome::Durable(committed)),
            Err(CommitError::Full) => {
                tracing::error!("the disk is full: nothing is taken until there is space");
                Ok(Outcome::NotDurable(Refused::storage_full()))
            }
            Err(CommitError::Conflict { expected }) => {
                tracing::error!(expected, "another coordinator writes to this database");
                Err(Fatal::Conflict)
            }
            Err(CommitError::Failed(error)) => {
                tracing::error!(%error, "commit failed; asking storage whether it is durable");
                self.resolve(batch.checkpoint.as_ref()).await
            }
        }
    }

    /// A commit failed on its way: what is there decides. Asks until storage answers.
    async fn resolve(&self, expected: Option<&CheckpointRow>) -> Result<Outcome, Fatal> {
        let Some(expected) = expected else { return Ok(Outcome::NotDurable(Refused::storage_failed())) };
        let mut backoff = Duration::from_millis(10);
        loop {
            match self.journal.durable_checkpoint().await {
                Ok(Some(found)) if found == *expected => return Ok(Outcome::Durable(Committed::default())),
                Ok(found) if found.as_ref().map_or(0, |found| found.version) == self.ledger.version() => {
                    return Ok(Outcome::NotDurable(Refused::storage_failed()));
                }
                Ok(_) => return Err(Fatal::Conflict),
                Err(error) => {
                    tracing::error!(%error, "storage cannot be read; asking again");
                    tokio::time::sleep(backoff).await;
                    backoff = (backoff * 2).min(LONGEST_BACKOFF);
                }
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Tick {
    Yes,
    No,
}

impl Waiting {
    fn answer(self, committed: &Committed) {
        // A caller that went away is no concern: what it asked for is done.
        for (reply, result) in self.commands {
            let _ = reply.send(result);
        }
        for reply in self.blobs {
            let _ = reply.send(Ok(()));
        }
        for (position, reply) in self.sweeps.into_iter().enumerate() {
            // There is one sweeper; should there be more, the first is told of everything that was dropped.
            let _ = reply.send(Ok(if position == 0 { committed.clone() } else { Committed::default() }));
        }
    }

    fn refuse(self, refused: &Refused) {
        for (reply, result) in self.commands {
            // Its own refusal may rest on what was rolled back.
            let _ = reply.send(match result {
                Err(own) if !is_about_state(&own) => Err(own),
                _ => Err(refused.clone()),
            });
        }
        for reply in self.blobs {
            let _ = reply.send(Err(refused.clone()));
        }
        for reply in self.sweeps {
            let _ = reply.send(Err(refused.clone()));
        }
    }
}

/// Whether a refusal could be another one had the group before it not been carried out.
fn is_about_state(refused: &Refused) -> bool {
    !matches!(refused.status, starminer_wire::ProblemStatus::Forbidden | starminer_wire::ProblemStatus::BadRequest)
}

/// Rows that one event brings besides its own.
fn rows_of(event: &Event, index: u64, batch: &mut Batch) {
    let Some(task) = event.task else { return };
    match &event.body {
        EventBody::Submitted { spec, .. } => {
            batch.opened.push(OpenedTask { task: task.0, requester: spec.requester.0, submitted_index: index });
            batch.uses.extend(spec.objects().map(|object| BlobUseRow { blob: object.content_id.0, task: task.0 }));
        }
        EventBody::Reported { report, .. } => {
            let outputs = report.predicate.outputs.iter();
            batch.uses.extend(outputs.map(|object| BlobUseRow { blob: object.content_id.0, task: task.0 }));
        }
        _ => {}
    }
}
