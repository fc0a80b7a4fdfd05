//! Drives one attempt: turns what happens into events of the [`Machine`], and its commands into deeds.
//!
//! Owns the task process of the attempt. Everything that takes time runs beside the loop, so that a fence, a deadline or
//! a stop is heard at once; whatever is still under way when the attempt is over is dropped with it.

use std::fs::File;
use std::future::Future;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use starminer_client::ClientError;
use starminer_receipt::{
    Base64Bytes, CHECKPOINT_CODES, ChallengeStatement, CheckpointStatement, Envelope, Lease, Outcome, Report, Signed,
    TaskSpec,
};
use starminer_sandbox::{Exit, memory_file};
use starminer_verify::{Binding, Digest, Party, PostureState, PublicKey, Purpose, Refusal, Suite, TaskKey};
use starminer_wire::{AttemptView, CheckpointRequest, EvidenceRequest, ReportRequest};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::blobs::{fetch_all, storage, upload_source};
use super::machine::{Command, Event, Machine, Timer, broken_protocol};
use super::process::{ProcessEvent, TaskHandle};
use super::reports::{self, Seen, Times};
use super::states::StateFile;
use super::upstream::Upstream;
use super::{Drain, Service, Shared};
use crate::config::now;
use crate::posture::sandbox_items;
use crate::protocol::{FromTask, MAX_OBJECTS_PER_MESSAGE, MAX_OUTPUTS, Phase, ToTask};
use crate::task::check_challenge;

/// Pause before a call is repeated, at first and at most.
const CALL_BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));
/// How long a report is tried beyond the end of the lease: the coordinator may take a late one while nobody else has the task.
const REPORT_GRACE: Duration = Duration::from_secs(30);
/// How long making evidence may take.
const EVIDENCE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long an attempt waits for the process of an earlier one to let go of the task's checkpoints.
const STATE_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after the first checkpoint that is passed on; each is twice as long as the one before, up to the share of the wall limit below.
const ANNOUNCE_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause is this part of the task's wall limit.
const ANNOUNCEMENTS_IN_WALL_LIMIT: u64 = 32;
/// Most checkpoints of one attempt that are passed on.
const MAX_ANNOUNCEMENTS: u32 = 64;

/// What the coordinator says of an attempt, as far as it changes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told {
    pub challenge: Option<Envelope>,
    pub grant: Option<Envelope>,
    pub ended: bool,
}

impl Told {
    pub(crate) fn of(view: &AttemptView) -> Self {
        Self {
            challenge: view.challenge.clone(),
            grant: view.grant.clone(),
            ended: view.ended || view.state.is_final(),
        }
    }
}

/// What is known once the process has made its keys and the device has signed.
#[derive(Clone)]
struct Bound {
    binding: Arc<Binding>,
    evidence: Arc<Vec<u8>>,
}

/// What ran beside the loop and has ended.
enum Done {
    Event(Event),
    Objects(Vec<File>),
    Evidence(Bound),
    /// The coordinator has it.
    EvidenceTaken,
    /// With closing evidence, where it could be had.
    Delivered(Option<Vec<u8>>),
    /// A checkpoint was passed on, or is not wanted.
    Announced(Result<(), String>),
    /// The report was taken, or nobody will take it; whether the task is over with it.
    Published {
        over: bool,
    },
}

/// Runs one attempt to its end.
pub(crate) async fn drive<U: Upstream>(
    shared: Arc<Shared<U>>,
    spec: Signed<TaskSpec>,
    lease: Signed<Lease>,
    told: watch::Receiver<Told>,
    drain: watch::Receiver<Drain>,
) {
    let span = tracing::info_span!("attempt", task = %spec.task, attempt = %lease.attempt);
    let length = lease.expires_at.since(lease.issued_at).unwrap_or_default();
    let ends = Instant::now() + length;
    let service = shared.service();
    let driver = Driver {
        shared,
        spec: Arc::new(spec),
        lease: Arc::new(lease),
        told,
        drain,
        service,
        machine: Machine::new(),
        process: None,
        beside: JoinSet::new(),
        timer: None,
        ends,
        challenge: None,
        keys: None,
        bound: None,
        evidence_taken: false,
        objects: Vec::new(),
        grant_tried: None,
        grant: None,
        owner_cache_open: true,
        scratch: None,
        state: None,
        state_unwanted: false,
        announce: None,
        announcing: false,
        announce_at: Instant::now(),
        announce_pause: ANNOUNCE_PAUSE,
        announcements_left: MAX_ANNOUNCEMENTS,
        outputs: Vec::new(),
        started: None,
        reported: None,
        closing: None,
        exit: None,
        killed: false,
        stopping: false,
        given_up: false,
    };
    tracing::Instrument::instrument(driver.run(), span).await;
}

struct Driver<U: Upstream> {
    shared: Arc<Shared<U>>,
    spec: Arc<Signed<TaskSpec>>,
    lease: Arc<Signed<Lease>>,
    told: watch::Receiver<Told>,
    drain: watch::Receiver<Drain>,
    service: watch::Receiver<Service>,
    machine: Machine,
    process: Option<TaskHandle>,
    beside: JoinSet<Done>,
    timer: Option<Instant>,
    /// When the lease is over, on the monotonic clock.
    ends: Instant,
    challenge: Option<Arc<Signed<ChallengeStatement>>>,
    keys: Option<(TaskKey, PublicKey)>,
    bound: Option<Bound>,
    /// The coordinator has the evidence: only then may a report name it.
    evidence_taken: bool,
    objects: Vec<File>,
    /// The grant that the process has seen or is to see.
    grant_tried: Option<Envelope>,
    /// The grant that the process took.
    grant: Option<Digest>,
    /// Compiled code is still taken from this process.
    owner_cache_open: bool,
    /// The store of the process's scratch.
    scratch: Option<File>,
    /// The store of the task's checkpoints.
    state: Option<StateFile>,
    /// Nobody will go on from the checkpoints.
    state_unwanted: bool,
    /// The newest checkpoint, if it was not passed on yet.
    announce: Option<Envelope>,
    /// One is on its way.
    announcing: bool,
    announce_at: Instant,
    announce_pause: Duration,
    announcements_left: u32,
    outputs: Vec<File>,
    started: Option<(Instant, starminer_verify::UnixTime)>,
    reported: Option<(Arc<Signed<Report>>, Times)>,
    /// Evidence over the process's report.
    closing: Option<Vec<u8>>,
    exit: Option<Exit>,
    killed: bool,
    stopping: bool,
    given_up: bool,
}

impl<U: Upstream> Driver<U> {
    async fn run(mut self) {
        match self.prepare().await {
            Ok(()) => self.on(Event::Begin).await,
            Err(refusal) => self.on(Event::Failed(refusal)).await,
        }
        // What was said before this attempt had ears.
        self.hear().await;
        while !self.machine.is_over() {
            self.step().await;
        }
        // The process may have it open for a moment longer: the lock on the file tells.
        if self.state.take().is_some() && self.state_unwanted {
            self.shared.states.forget(self.spec.task);
        }
    }

    /// Takes a process, if this node is one for the task at all.
    async fn prepare(&mut self) -> Result<(), Refusal> {
        let fallen = self.service.borrow().fallen().cloned();
        fallen.map_or(Ok(()), Err)?;
        self.fits()?;
        self.take_process().await
    }

    async fn take_process(&mut self) -> Result<(), Refusal> {
        let taken = tokio::time::timeout_at(self.ends, self.shared.pool.take()).await;
        match taken {
            Ok(Ok(process)) => {
                self.process = Some(process);
                Ok(())
            }
            Ok(Err(error)) => Err(node("node.no-task-process", error.to_string())),
            Err(_) => Err(node("node.no-task-process", "no task process was free before the lease was over".into())),
        }
    }

    fn fits(&self) -> Result<(), Refusal> {
        let (limits, wanted) = (&self.shared.limits, &self.spec.limits);
        let bounds = [
            ("memory", wanted.memory_bytes, limits.memory_bytes),
            ("scratch space", wanted.scratch_bytes, limits.scratch_bytes),
            ("room for its state", wanted.state_bytes, limits.state_bytes),
            ("room for outputs", wanted.output_bytes, limits.output_bytes),
            ("room for inputs", self.spec.sealed_bytes(), limits.input_bytes),
        ];
        match bounds.into_iter().find(|(_, wanted, has)| wanted > has) {
            None => Ok(()),
            Some((what, wanted, has)) => Err(Refusal::new(
                Party::Node,
                "node.too-small",
                format!("the task may use {wanted} bytes of {what}, and this node gives a task {has}"),
                "another node may have more; or lower the task's limits",
            )),
        }
    }

    /// Waits for one thing to happen and deals with it.
    async fn step(&mut self) {
        let (timer, due) = (self.timer, self.announcement_due());
        let reporting = self.reported.is_some() || self.process.is_none();
        tokio::select! {
            biased;
            changed = self.told.changed() => match changed {
                Ok(()) => self.hear().await,
                // Whoever told is gone: so is the node.
                Err(_) => self.on(Event::Fenced).await,
            },
            refusal = fallen(&mut self.service), if !self.given_up => {
                self.given_up = true;
                self.on(Event::GivenUp(refusal)).await;
            }
            event = next_of(&mut self.process) => self.process_did(event).await,
            () = until(due) => self.announce_checkpoint(),
            Some(done) = self.beside.join_next() => self.done(done).await,
            () = until(timer) => {
                self.timer = None;
                self.on(Event::TimerFired).await;
            }
            () = tokio::time::sleep_until(self.ends + REPORT_GRACE) => self.on(Event::Fenced).await,
            () = lease_over(self.ends, reporting) => {
                tracing::warn!("the lease is over before the task");
                self.on(Event::Fenced).await;
            }
            () = told_to_stop(&mut self.drain), if !self.stopping => {
                self.stopping = true;
                self.on(Event::Stopping).await;
            }
        }
    }

    /// What the coordinator has said since.
    async fn hear(&mut self) {
        let told = self.told.borrow_and_update().clone();
        if told.ended {
            return self.on(Event::Fenced).await;
        }
        if let (None, Some(challenge)) = (&self.challenge, told.challenge) {
            match check_challenge(&self.spec, &self.lease, challenge) {
                Ok(challenge) => {
                    self.challenge = Some(Arc::new(challenge));
                    self.on(Event::Challenged).await;
                }
                // The true one may still come.
                Err(refusal) => tracing::warn!(check = refusal.check(), "a challenge was refused"),
            }
        }
        if let Some(grant) = told.grant
            && self.grant_tried.as_ref() != Some(&grant)
        {
            self.grant_tried = Some(grant);
            self.on(Event::GrantHere).await;
        }
    }

    async fn process_did(&mut self, event: ProcessEvent) {
        let phase = self.process.as_ref().map_or(Phase::Reported, TaskHandle::phase);
        match event {
            ProcessEvent::Message(message, fds) => {
                if let Err(what) = self.message(message, fds).await {
                    self.on(Event::Failed(broken_protocol(what, phase))).await;
                }
            }
            ProcessEvent::Broken(what) => self.on(Event::Failed(broken_protocol(what, phase))).await,
            ProcessEvent::Exited(exit) => {
                self.exit = Some(exit);
                // Nobody else has it open now.
                if let Some(scratch) = self.scratch.take() {
                    self.shared.jobs.give_back(&scratch);
                }
                self.on(Event::ProcessExited { status: exit.status, phase }).await;
            }
        }
    }

    /// A message that its phase allows. An error is the process's.
    async fn message(&mut self, message: FromTask, mut fds: Vec<OwnedFd>) -> Result<(), &'static str> {
        match message {
            FromTask::Ready { .. } => {}
            FromTask::Keys { task_key, report_key } => {
                let task_key =
                    TaskKey::from_bytes(Suite::XWingSha256Aes256Gcm, &task_key.0).ok_or("its key is no key")?;
                self.keys = Some((task_key, report_key));
                self.on(Event::KeysMade).await;
            }
            FromTask::LeaseRefused { refusal } => self.on(Event::Failed(refusal)).await,
            FromTask::GrantRefused { refusal } => {
                tracing::warn!(check = refusal.check(), "the task process refused a grant");
                self.on(Event::GrantRefused).await;
            }
            FromTask::GrantTaken => {
                self.started = Some((Instant::now(), now()));
                self.grant = self.grant_tried.as_ref().map(Envelope::digest);
                self.on(Event::GrantTaken).await;
            }
            FromTask::CompiledWanted { key } => {
                let found = self.shared.compiled().find(self.spec.requester, key);
                let (record, code) = found.unzip();
                let code: Vec<BorrowedFd<'_>> = code.iter().map(|code| code.as_fd()).collect();
                send_to(&mut self.process, &ToTask::Compiled { found: record }, &code).await;
            }
            FromTask::CompiledMade { key, record } => {
                // The phase has seen to it that no guest ran before this message.
                let code = fds.pop().ok_or("code without a descriptor")?;
                if self.owner_cache_open {
                    self.shared.compiled().keep(self.spec.requester, key, record, code);
                }
            }
            FromTask::Started => self.owner_cache_open = false,
            FromTask::OutputsWanted { count } => self.hand_out_files(count as usize).await?,
            FromTask::Checkpoint { statement } => self.checkpointed(statement)?,
            FromTask::Report { report } => self.take_report(report).await?,
        }
        Ok(())
    }

    async fn hand_out_files(&mut self, count: usize) -> Result<(), &'static str> {
        if !(1..=MAX_OBJECTS_PER_MESSAGE).contains(&count) || self.outputs.len() + count > MAX_OUTPUTS {
            return Err("it asked for more outputs than a task may have");
        }
        let first = self.outputs.len();
        for _ in 0..count {
            match self.shared.jobs.file() {
                Ok(file) => self.outputs.push(file),
                Err(error) => {
                    self.on(Event::Failed(storage(&error))).await;
                    return Ok(());
                }
            }
        }
        let fds: Vec<BorrowedFd<'_>> = self.outputs[first..].iter().map(|file| file.as_fd()).collect();
        let first = u32::try_from(first).unwrap_or(u32::MAX);
        send_to(&mut self.process, &ToTask::OutputFiles { first }, &fds).await;
        Ok(())
    }

    /// The report has to be the one of this very attempt, signed with the key that the evidence binds.
    async fn take_report(&mut self, report: Envelope) -> Result<(), &'static str> {
        let report: Signed<Report> = report.open().map_err(|_| "its report is not signed as it says")?;
        let said = &report.predicate;
        let (Some((_, report_key)), Some(bound), Some(started)) = (&self.keys, &self.bound, self.started) else {
            return Err("it reported before it had a grant");
        };
        let holds = said.signer == *report_key
            && said.spec == self.spec.digest()
            && said.lease == Some(self.lease.digest())
            && said.attempt == Some(self.lease.attempt)
            && said.node == Some(self.lease.node)
            && said.evidence == Some(Digest::of(&bound.evidence))
            && said.grant == self.grant
            && said.outputs.len() <= self.outputs.len();
        if !holds {
            return Err("its report is of something else than its task");
        }
        let times = Times {
            started_at: started.1,
            ended_at: now(),
            wall_ms: u64::try_from(started.0.elapsed().as_millis()).unwrap_or(u64::MAX),
        };
        // A checkpoint that its own task refuses is of no use to any attempt.
        self.state_unwanted |= matches!(&said.outcome, Outcome::Failed { refusal } if is_of_checkpoint(refusal));
        self.reported = Some((Arc::new(report), times));
        self.on(Event::TaskReported).await;
        Ok(())
    }

    async fn done(&mut self, done: Result<Done, tokio::task::JoinError>) {
        match done {
            Ok(Done::Event(event)) => self.on(event).await,
            Ok(Done::Objects(objects)) => {
                self.objects = objects;
                self.on(Event::ObjectsHere).await;
            }
            Ok(Done::Evidence(bound)) => {
                self.bound = Some(bound);
                self.on(Event::EvidenceMade).await;
            }
            // What follows comes through the feed.
            Ok(Done::EvidenceTaken) => self.evidence_taken = true,
            Ok(Done::Announced(sent)) => {
                self.announcing = false;
                if let Err(why) = sent {
                    // They are on the disk all the same, and what was acknowledged before still is.
                    tracing::warn!(why, "no more checkpoints of this attempt are passed on");
                    (self.announcements_left, self.announce) = (0, None);
                }
            }
            Ok(Done::Published { over }) => {
                self.state_unwanted |= over;
                self.on(Event::Published).await;
            }
            Ok(Done::Delivered(closing)) => {
                self.closing = closing;
                self.on(Event::Delivered).await;
            }
            Err(error) => {
                tracing::error!(%error, "a defect of this program");
                self.on(Event::Failed(node("node.defect", "a part of the agent failed".into()))).await;
                // Where publishing itself failed there is nothing left to try.
                self.on(Event::Published).await;
            }
        }
    }

    async fn on(&mut self, event: Event) {
        // A queue and not recursion: a command may end in another event.
        let mut commands = std::collections::VecDeque::from(self.machine.on(event));
        while let Some(command) = commands.pop_front() {
            if let Some(event) = self.execute(command).await {
                commands.extend(self.machine.on(event));
            }
        }
    }

    async fn execute(&mut self, command: Command) -> Option<Event> {
        match command {
            Command::TakeProcess => self.take_process().await.err().map(Event::Failed),
            Command::SendLease => self.send_lease().await,
            Command::FetchObjects => {
                let (shared, spec) = (Arc::clone(&self.shared), Arc::clone(&self.spec));
                self.beside.spawn(async move {
                    let objects: Vec<_> = spec.objects().copied().collect();
                    match fetch_all(&shared.upstream, &shared.jobs, &objects).await {
                        Ok(files) => Done::Objects(files),
                        Err(refusal) => Done::Event(Event::Failed(refusal)),
                    }
                });
                None
            }
            Command::SendObjects => {
                // The process has its own descriptors then; the agent needs none of them any more.
                let objects = std::mem::take(&mut self.objects);
                for (group, files) in objects.chunks(MAX_OBJECTS_PER_MESSAGE).enumerate() {
                    let first = u32::try_from(group * MAX_OBJECTS_PER_MESSAGE).unwrap_or(u32::MAX);
                    let fds: Vec<BorrowedFd<'_>> = files.iter().map(|file| file.as_fd()).collect();
                    send_to(&mut self.process, &ToTask::Objects { first }, &fds).await;
                }
                None
            }
            Command::MakeEvidence => self.make_evidence(),
            Command::SendEvidence => self.send_evidence(),
            Command::SendGrant => self.send_grant().await,
            Command::Timer(timer) => {
                let after = match timer {
                    Timer::Off => None,
                    Timer::After(after) => Some(after),
                    Timer::AfterWallLimit(grace) => {
                        Some(Duration::from_millis(self.spec.limits.wall_limit_ms).saturating_add(grace))
                    }
                };
                // A limit beyond what the clock can hold is no limit.
                self.timer = after.and_then(|after| Instant::now().checked_add(after));
                None
            }
            Command::Kill => {
                if let Some(process) = &self.process {
                    process.kill();
                    self.killed = true;
                }
                None
            }
            Command::Deliver => self.deliver(),
            Command::PublishTaskReport => self.publish_task_report(),
            Command::PublishAgentReport(refusal) => {
                tracing::warn!(check = refusal.check(), reason = refusal.reason(), "the agent reports a failure");
                let event = self.publish_agent_report(refusal);
                // Dropping it reaps it beside the runtime.
                self.process = None;
                event
            }
            Command::Finish => {
                self.process = None;
                self.beside.abort_all();
                None
            }
        }
    }

    async fn send_lease(&mut self) -> Option<Event> {
        if let Err(refusal) = self.take_state().await {
            return Some(Event::Failed(refusal));
        }
        let scratch = match self.shared.jobs.spare() {
            Ok(file) => file,
            Err(error) => return Some(Event::Failed(storage(&error))),
        };
        let message = ToTask::Lease { spec: self.spec.envelope().clone(), lease: self.lease.envelope().clone() };
        let process = self.process.as_mut()?;
        let stores: Vec<BorrowedFd<'_>> =
            std::iter::once(scratch.as_fd()).chain(self.state.as_ref().map(|state| state.file.as_fd())).collect();
        if let Err(error) = process.lease(&message, &stores).await {
            tracing::debug!(%error, "the lease did not reach the task process");
        }
        self.scratch = Some(scratch);
        None
    }

    /// The file of the task's checkpoints, where it keeps a state.
    async fn take_state(&mut self) -> Result<(), Refusal> {
        if self.spec.limits.state_bytes == 0 || self.state.is_some() {
            return Ok(());
        }
        match tokio::time::timeout(STATE_TIMEOUT, self.shared.states.take(self.spec.task)).await {
            Ok(Ok(state)) => {
                self.state = Some(state);
                Ok(())
            }
            Ok(Err(error)) => Err(storage(&error)),
            Err(_) => Err(node("node.state-in-use", "the process of an earlier attempt did not end".into())),
        }
    }

    /// A checkpoint is durable. Only the newest is passed on, at a bounded rate.
    fn checkpointed(&mut self, statement: Envelope) -> Result<(), &'static str> {
        if self.state.is_none() {
            return Err("it made a checkpoint of a task without a state");
        }
        if self.announcements_left > 0 {
            self.announce = Some(statement);
        }
        Ok(())
    }

    /// When the newest checkpoint may go out.
    fn announcement_due(&self) -> Option<Instant> {
        self.announce.as_ref().filter(|_| !self.announcing).map(|_| self.announce_at)
    }

    fn announce_checkpoint(&mut self) {
        let Some(statement) = self.announce.take() else { return };
        if let Err(what) = self.check_checkpoint(&statement) {
            tracing::warn!(what, "a checkpoint is not passed on");
            return;
        }
        self.announcing = true;
        self.announcements_left -= 1;
        let longest = Duration::from_millis(self.spec.limits.wall_limit_ms / ANNOUNCEMENTS_IN_WALL_LIMIT);
        self.announce_at = Instant::now() + self.announce_pause;
        self.announce_pause = (self.announce_pause * 2).min(longest.max(ANNOUNCE_PAUSE));
        let (shared, task, attempt) = (Arc::clone(&self.shared), self.spec.task, self.lease.attempt);
        let ends = self.ends;
        self.beside.spawn(async move {
            let request = CheckpointRequest { checkpoint: statement };
            let sent = repeat(ends, || shared.upstream.checkpoint(task, attempt, request.clone())).await;
            Done::Announced(sent.map(|_| ()).map_err(|error| error.to_string()))
        });
    }

    /// What the process says goes out in the node's name: it has to be of this very attempt.
    fn check_checkpoint(&self, statement: &Envelope) -> Result<(), &'static str> {
        let said: Signed<CheckpointStatement> =
            statement.clone().open().map_err(|_| "its statement is not signed as it says")?;
        let holds = self.keys.as_ref().is_some_and(|(_, report_key)| said.signer == *report_key)
            && said.spec == self.spec.digest()
            && said.lease == self.lease.digest()
            && said.attempt == self.lease.attempt
            && said.node == self.lease.node;
        if holds { Ok(()) } else { Err("its statement is of something else than its task") }
    }

    fn make_evidence(&mut self) -> Option<Event> {
        let (Some((task_key, report_key)), Some(challenge), Some(process)) =
            (&self.keys, &self.challenge, &self.process)
        else {
            return Some(Event::Failed(node("node.defect", "evidence was asked for too early".into())));
        };
        let shared = Arc::clone(&self.shared);
        let sandbox = sandbox_items(process.in_force());
        let binding = Binding {
            network: self.spec.network,
            challenge: challenge.challenge,
            purpose: Purpose::Task,
            spec: Some(self.spec.digest()),
            node: self.lease.node,
            attempt: Some(self.lease.attempt),
            boot: shared.boot,
            task_key: Some(task_key.clone()),
            report_key: Some(*report_key),
            agent_key: shared.agent_key(),
            tls_key: shared.upstream.tls_key(),
            // Both filled in where the evidence is made.
            ak_name: None,
            posture: Digest([0; 32]),
            subject: None,
        };
        self.beside.spawn(async move {
            let made = tokio::time::timeout(EVIDENCE_TIMEOUT, shared.evidences.make(binding.clone(), sandbox)).await;
            let why = match made {
                Ok(Ok(evidence)) => {
                    return Done::Evidence(Bound { binding: Arc::new(binding), evidence: Arc::new(evidence) });
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "the device did not sign in time".into(),
            };
            shared.out_of_service(&why);
            Done::Event(Event::Failed(node("node.no-evidence", why)))
        });
        None
    }

    fn send_evidence(&mut self) -> Option<Event> {
        let bound = self.bound.clone()?;
        let (shared, task, attempt) = (Arc::clone(&self.shared), self.spec.task, self.lease.attempt);
        let ends = self.ends;
        self.beside.spawn(async move {
            let evidence = Base64Bytes(bound.evidence.to_vec());
            let request = EvidenceRequest { evidence, enrolments: shared.statements.all() };
            let sent = repeat(ends, || shared.upstream.evidence(task, attempt, request.clone())).await;
            match sent {
                Ok(_) => Done::EvidenceTaken,
                Err(error) => {
                    tracing::warn!(%error, "the evidence was not taken");
                    Done::Event(Event::Fenced)
                }
            }
        });
        None
    }

    async fn send_grant(&mut self) -> Option<Event> {
        let (Some(grant), Some(bound), Some(challenge)) = (&self.grant_tried, &self.bound, &self.challenge) else {
            return Some(Event::Failed(node("node.defect", "a grant was handed over too early".into())));
        };
        let message = ToTask::Grant { challenge: challenge.envelope().clone(), grant: grant.clone() };
        let evidence = match file_with(&bound.evidence) {
            Ok(file) => file,
            Err(error) => return Some(Event::Failed(storage(&error))),
        };
        send_to(&mut self.process, &message, &[evidence.as_fd()]).await;
        None
    }

    /// Beside the process's own end, which takes about as long.
    fn deliver(&mut self) -> Option<Event> {
        let (report, _) = self.reported.clone()?;
        let (shared, closing) = (Arc::clone(&self.shared), self.closing());
        let outputs = std::mem::take(&mut self.outputs);
        self.beside.spawn(async move {
            let close = close(&shared, closing.as_ref(), report.digest());
            match tokio::join!(upload(&shared, &report, &outputs), close) {
                (Ok(()), closing) => Done::Delivered(closing),
                (Err(error), _) => {
                    tracing::warn!(%error, "an output was not uploaded");
                    let reason = "the outputs could not be delivered".into();
                    Done::Event(Event::Failed(node("node.outputs-lost", reason)))
                }
            }
        });
        None
    }

    fn publish_task_report(&mut self) -> Option<Event> {
        let (Some((report, times)), Some(exit)) = (self.reported.clone(), self.exit) else {
            return Some(Event::Published);
        };
        let seen = Seen { exit, killed: self.killed };
        let statement = reports::countersign(&self.spec, &self.lease, report.digest(), seen, times, &self.shared.agent);
        let closing = self.closing.take();
        self.publish(async move {
            ReportRequest {
                report: report.envelope().clone(),
                agent_statement: statement,
                closing_evidence: closing.map(Base64Bytes),
            }
        });
        None
    }

    fn publish_agent_report(&mut self, refusal: Refusal) -> Option<Event> {
        // A grant, too, shows that it has it, whatever became of the answer.
        let taken = self.evidence_taken || self.grant_tried.is_some();
        let evidence = self.bound.as_ref().filter(|_| taken).map(|bound| Digest::of(&bound.evidence));
        let sandbox = self.sandbox_names();
        // Without evidence nothing binds the agent's key, and the lease binds the node's.
        let key = if evidence.is_some() { &self.shared.agent } else { &self.shared.identity };
        let Some(report) = reports::failure(&self.spec, &self.lease, evidence, self.grant, sandbox, refusal, key)
        else {
            return Some(Event::Published);
        };
        let (shared, closing) = (Arc::clone(&self.shared), evidence.and_then(|_| self.closing()));
        self.publish(async move {
            let closing = close(&shared, closing.as_ref(), report.digest()).await;
            ReportRequest {
                report: report.into_envelope(),
                agent_statement: None,
                closing_evidence: closing.map(Base64Bytes),
            }
        });
        None
    }

    fn publish(&mut self, request: impl Future<Output = ReportRequest> + Send + 'static) {
        let (shared, task, attempt) = (Arc::clone(&self.shared), self.spec.task, self.lease.attempt);
        let until = self.ends + REPORT_GRACE;
        self.beside.spawn(async move {
            let request = request.await;
            let over = match repeat(until, || shared.upstream.report(task, attempt, request.clone())).await {
                Ok(accepted) => {
                    tracing::info!(state = accepted.state.name(), "the report was taken");
                    accepted.state.is_final()
                }
                // Fenced off, or refused for good: whoever has the task now reports it.
                Err(error) => {
                    tracing::warn!(%error, "the report was not taken");
                    false
                }
            };
            Done::Published { over }
        });
    }

    fn sandbox_names(&self) -> Vec<String> {
        let items = self.process.as_ref().map(|process| sandbox_items(process.in_force())).unwrap_or_default();
        let in_force = items.iter().filter(|item| item.state() == PostureState::InForce);
        in_force.map(|item| item.name().name().to_owned()).collect()
    }

    /// What closing evidence is made of: the same binding, over the report.
    fn closing(&self) -> Option<Closing> {
        let bound = self.bound.as_ref()?;
        let sandbox = self.process.as_ref().map(|process| sandbox_items(process.in_force()))?;
        Some(Closing { binding: Arc::clone(&bound.binding), sandbox })
    }
}

/// Whether a task process refused the checkpoint that its node has.
fn is_of_checkpoint(refusal: &Refusal) -> bool {
    refusal.check().starts_with(CHECKPOINT_CODES)
}

/// A memory file with these bytes, whatever their length.
fn file_with(bytes: &[u8]) -> io::Result<File> {
    let mut file = memory_file()?;
    file.write_all(bytes)?;
    Ok(file)
}

struct Closing {
    binding: Arc<Binding>,
    sandbox: Vec<starminer_verify::PostureItem<starminer_verify::SandboxMeasure>>,
}

/// Uploads what the report lists. A report whose outputs are not all there must not go out.
async fn upload<U: Upstream>(shared: &Shared<U>, report: &Report, files: &[File]) -> Result<(), ClientError> {
    for (object, file) in report.predicate.outputs.iter().zip(files) {
        let source = upload_source(file, object.sealed_bytes).map_err(ClientError::Local)?;
        shared.upstream.upload(object.content_id, object.sealed_bytes, source).await?;
    }
    Ok(())
}

/// Evidence over a report: boot, keys and posture are what they were. Without it the receipt says so.
async fn close<U: Upstream>(shared: &Shared<U>, closing: Option<&Closing>, report: Digest) -> Option<Vec<u8>> {
    let closing = closing?;
    let binding = Binding {
        purpose: Purpose::ClosingTask,
        subject: Some(report),
        tls_key: shared.upstream.tls_key(),
        ..closing.binding.as_ref().clone()
    };
    let made = shared.evidences.make(binding, closing.sandbox.clone());
    let why = match tokio::time::timeout(EVIDENCE_TIMEOUT, made).await {
        Ok(Ok(evidence)) => return Some(evidence),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the device did not sign in time".into(),
    };
    tracing::warn!(why, "a run ends without closing evidence: its receipt will not be proven");
    shared.out_of_service(&why);
    None
}

/// Repeats a call until it is answered with yes or no, or the time is over.
async fn repeat<T, F: Future<Output = Result<T, ClientError>>>(
    until: Instant,
    mut call: impl FnMut() -> F,
) -> Result<T, ClientError> {
    let mut pause = CALL_BACKOFF.0;
    loop {
        match call().await {
            Err(error) if error.is_transient() && Instant::now() + pause < until => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(CALL_BACKOFF.1);
            }
            result => return result,
        }
    }
}

fn node(check: &'static str, reason: String) -> Refusal {
    Refusal::new(Party::Node, check, reason, "nothing is known to be wrong with the task: another node can run it")
}

/// A channel that fails shows as the end of its process; there is nothing to do about it here.
async fn send_to(process: &mut Option<TaskHandle>, message: &ToTask, fds: &[BorrowedFd<'_>]) {
    if let Some(process) = process
        && let Err(error) = process.send(message, fds).await
    {
        tracing::debug!(%error, "a message did not reach the task process");
    }
}

async fn next_of(process: &mut Option<TaskHandle>) -> ProcessEvent {
    match process {
        Some(process) => process.next().await,
        None => std::future::pending().await,
    }
}

/// Waits until the node waits no longer; a node that is gone waits no longer either.
async fn told_to_stop(drain: &mut watch::Receiver<Drain>) {
    let _ = drain.wait_for(|drain| *drain == Drain::Now).await;
}

/// Waits until the host is not what it was.
async fn fallen(service: &mut watch::Receiver<Service>) -> Refusal {
    let fallen = service.wait_for(|service| service.fallen().is_some()).await;
    match fallen.ok().and_then(|service| service.fallen().cloned()) {
        Some(refusal) => refusal,
        None => std::future::pending().await,
    }
}

async fn until(timer: Option<Instant>) {
    match timer {
        Some(timer) => tokio::time::sleep_until(timer).await,
        None => std::future::pending().await,
    }
}

/// A run must not outlive its lease; a report may be on its way a little longer.
async fn lease_over(ends: Instant, reporting: bool) {
    if reporting { std::future::pending().await } else { tokio::time::sleep_until(ends).await }
}
