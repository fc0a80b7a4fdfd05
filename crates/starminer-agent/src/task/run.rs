//! The life of a task process after it is sealed: lease, keys, grant, run, report.
//!
//! Each step is a type that holds what the next one needs, and each is left once. Nothing here reads the wall clock;
//! the deadline counts from the grant on the monotonic clock.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use starminer_receipt::{Lease, Outcome, Signed, SigningKey, TaskSpec};
use starminer_runtime::StopSignal;
use starminer_runtime::fs::TaskFs;
use starminer_sandbox::{ResourceLimit, tighten};
use starminer_vault::ReadAt;
use starminer_verify::{MAX_EVIDENCE_WITH_LOGS_BYTES, SandboxMeasure};
use zeroize::Zeroizing;

use super::Broken;
use super::engine::{self, Job, Produced, Warm};
use super::files::{StorageFull, WatchedFile, create_scratch};
use super::grant::{GrantContext, Opened, check_lease, open_grant};
use super::keys::TaskKeys;
use super::link::Link;
use super::objects::{open_input, open_manifest, open_workload};
use super::outputs::{self, Plain, Sealed};
use super::report::{self, Facts, OutputSecret};
use super::state::{self, Place};
use super::verdict::{Ending, Halt};
use crate::protocol::{FromTask, ToTask};

/// Private memory beyond the guest's while a task is opened and compiled: the compiler takes what the module asks for.
const PREPARING_BYTES: u64 = 1 << 30;
/// Private memory beyond the guest's once it runs: the program itself, caches, logs, outputs in sealing.
const RUNNING_BYTES: u64 = 256 << 20;

/// Says that guest code is next, after it has taken away the memory that only preparing needed.
pub(crate) fn begin_guest(link: &mut Link, spec: &TaskSpec) -> Result<(), Broken> {
    bound_memory(spec.limits.memory_bytes, RUNNING_BYTES);
    link.send(&FromTask::Started)
}

/// The backstop behind the engine's own bound. A limit that is lower already is as good.
fn bound_memory(guest_bytes: u64, beyond_bytes: u64) {
    let _ = tighten(ResourceLimit::DataBytes, guest_bytes.saturating_add(beyond_bytes));
}

/// A process with a lease, whose public keys the agent has.
pub(crate) struct Waiting {
    spec: Signed<TaskSpec>,
    lease: Signed<Lease>,
    keys: TaskKeys,
    scratch: File,
    state: Option<File>,
    objects: Objects,
    sandbox: Vec<SandboxMeasure>,
}

/// A process with a valid grant and all ciphertext. The key that opened the grant is gone.
pub(crate) struct Granted {
    spec: Signed<TaskSpec>,
    lease: Signed<Lease>,
    opened: Opened,
    report_key: SigningKey,
    scratch: File,
    state: Option<File>,
    objects: Vec<File>,
    started: Instant,
    sandbox: Vec<SandboxMeasure>,
}

/// Descriptors of ciphertext, as they come in.
struct Objects(Vec<Option<File>>);

impl Objects {
    fn expect(count: usize) -> Self {
        Self((0..count).map(|_| None).collect())
    }

    fn put(&mut self, first: u32, fds: Vec<OwnedFd>) -> Result<(), Broken> {
        for (place, fd) in (first as usize..).zip(fds) {
            match self.0.get_mut(place) {
                Some(empty @ None) => *empty = Some(File::from(fd)),
                _ => return Err(Broken),
            }
        }
        Ok(())
    }

    fn complete(&self) -> bool {
        self.0.iter().all(Option::is_some)
    }
}

impl Waiting {
    /// Waits for the lease, and makes the task's keys once it is there. `None`: the lease was refused, the agent knows.
    pub(crate) fn for_lease(link: &mut Link, sandbox: Vec<SandboxMeasure>) -> Result<Option<Self>, Broken> {
        let (ToTask::Lease { spec, lease }, fds) = link.receive()? else { return Err(Broken) };
        let mut files = fds.into_iter().map(File::from);
        let (Some(scratch), state, None) = (files.next(), files.next(), files.next()) else { return Err(Broken) };
        let (spec, lease) = match check_lease(spec, lease) {
            Ok(statements) => statements,
            Err(refusal) => {
                link.send(&FromTask::LeaseRefused { refusal })?;
                return Ok(None);
            }
        };
        if state.is_some() != (spec.limits.state_bytes > 0) {
            return Err(Broken);
        }
        bound_memory(spec.limits.memory_bytes, PREPARING_BYTES);
        let keys = TaskKeys::generate()?;
        link.send(&FromTask::Keys {
            task_key: keys.task_key().as_bytes().to_vec().into(),
            report_key: keys.report_key(),
        })?;
        let objects = Objects::expect(1 + spec.inputs.len());
        Ok(Some(Self { spec, lease, keys, scratch, state, objects, sandbox }))
    }

    /// Waits for a valid grant and all ciphertext, in whatever order they come. A grant that is not valid is refused and
    /// changes nothing.
    pub(crate) fn for_grant(mut self, link: &mut Link) -> Result<Granted, Broken> {
        let mut opened: Option<(Opened, Instant)> = None;
        loop {
            match (opened, self.objects.complete()) {
                (Some((opened, started)), true) => return Ok(self.granted(opened, started)),
                (waiting, _) => opened = waiting,
            }
            match link.receive()? {
                (ToTask::Objects { first }, fds) => self.objects.put(first, fds)?,
                (ToTask::Grant { challenge, grant }, fds) if opened.is_none() => {
                    let [evidence] = <[OwnedFd; 1]>::try_from(fds).map_err(|_| Broken)?;
                    let evidence = read_evidence(&File::from(evidence))?;
                    let context = GrantContext {
                        spec: &self.spec,
                        lease: &self.lease,
                        task_key: self.keys.task_key(),
                        report_key: self.keys.report_key(),
                    };
                    match open_grant(&context, self.keys.kem(), challenge, &evidence, grant) {
                        Ok(valid) => {
                            opened = Some((valid, Instant::now()));
                            link.send(&FromTask::GrantTaken)?;
                        }
                        Err(refusal) => link.send(&FromTask::GrantRefused { refusal })?,
                    }
                }
                _ => return Err(Broken),
            }
        }
    }

    fn granted(self, opened: Opened, started: Instant) -> Granted {
        Granted {
            spec: self.spec,
            lease: self.lease,
            opened,
            report_key: self.keys.into_report_key(),
            scratch: self.scratch,
            state: self.state,
            objects: self.objects.0.into_iter().flatten().collect(),
            started,
            sandbox: self.sandbox,
        }
    }
}

/// What the agent put into the file, which the agent may still have open. Longer than any evidence: it is none.
fn read_evidence(file: &File) -> Result<Vec<u8>, Broken> {
    let mut evidence = vec![0; MAX_EVIDENCE_WITH_LOGS_BYTES + 1];
    let mut filled = 0;
    while let Some(rest) = evidence.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match ReadAt::read_at(file, rest, filled as u64) {
            Ok(0) => {
                evidence.truncate(filled);
                return Ok(evidence);
            }
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Err(Broken),
        }
    }
    Err(Broken)
}

impl Granted {
    /// Runs the task to its report, which also says what failed.
    pub(crate) fn run(self, link: &mut Link, warm: Warm) -> Result<(), Broken> {
        let Self { spec, lease, opened, report_key, scratch, state, objects, started, sandbox } = self;
        let report_key = Arc::new(report_key);
        let mut facts = Facts::new(opened.grant, opened.evidence, sandbox);
        let output_secret = match OutputSecret::make(&spec, &lease, &opened.evidence)? {
            Ok(secret) => secret,
            Err(refusal) => {
                let outcome = Outcome::Failed { refusal };
                let report = report::sign(&spec, &lease, &facts, outcome, None, Sealed::default(), &report_key)?;
                return link.send(&FromTask::Report { report });
            }
        };
        let stop = engine::deadline(started, &spec.limits);
        let full = StorageFull::default();
        let given =
            Given { scratch, state, objects, stop, storage_full: full.clone(), report_key: Arc::clone(&report_key) };
        let produced = open_and_run(&spec, &lease, &opened, given, link, warm, &mut facts);
        // The task secret is not needed any more.
        drop(opened);
        let mut produced = match produced {
            Ok(produced) => produced,
            Err(Halt::End(ending)) => Produced::nothing(ending),
            Err(Halt::Broken(broken)) => return Err(broken),
        };
        facts.exit_code = produced.exit_code;
        facts.fuel_used = produced.fuel_used;
        facts.peak_memory_bytes = produced.peak_memory_bytes;
        let ending = std::mem::replace(&mut produced.ending, Ending::Completed);
        let (outcome, sealed) = seal_outputs(&spec, ending, produced, &full, &output_secret, link)?;
        let report = report::sign(&spec, &lease, &facts, outcome, Some(&output_secret), sealed, &report_key)?;
        link.send(&FromTask::Report { report })
    }
}

impl Produced {
    /// What is left when nothing ran.
    fn nothing(ending: Ending) -> Self {
        Self {
            ending,
            exit_code: None,
            fuel_used: None,
            peak_memory_bytes: 0,
            stdout: Zeroizing::default(),
            stderr: Zeroizing::default(),
            fs: None,
        }
    }
}

/// What a run works with besides its statements.
struct Given {
    scratch: File,
    /// The store of the task's checkpoints, where it keeps a state.
    state: Option<File>,
    objects: Vec<File>,
    stop: StopSignal,
    storage_full: StorageFull,
    /// Signs what is announced of checkpoints.
    report_key: Arc<SigningKey>,
}

/// Opens everything that was sealed and runs it. What is known on the way goes into `facts`, also where it then fails.
fn open_and_run(
    spec: &Signed<TaskSpec>,
    lease: &Signed<Lease>,
    opened: &Opened,
    given: Given,
    link: &mut Link,
    warm: Warm,
    facts: &mut Facts,
) -> Result<Produced, Halt> {
    let Given { scratch, state, objects, stop, storage_full, report_key } = given;
    let secret = &opened.secret;
    let (manifest, manifest_plain) = open_manifest(spec, secret)?;
    let mut files = objects.into_iter();
    let workload = files.next().ok_or(Ending::Defect("a task without a workload"))?;
    let workload = open_workload(spec, secret, workload, &stop)?;
    facts.workload = Some(spec.workload.commitment);
    let mut inputs = Vec::with_capacity(spec.inputs.len());
    for (index, (file, object)) in files.zip(&spec.inputs).enumerate() {
        inputs.push(open_input(spec, secret, index, file, &stop)?);
        facts.inputs.push(object.commitment);
    }
    let limit_bytes = spec.limits.scratch_bytes;
    let scratch = create_scratch(scratch, secret, spec.task, lease.attempt, limit_bytes, storage_full.clone())?
        .map_err(|_| Ending::of_host_fault(starminer_runtime::HostFault::SCRATCH, storage_full.is_set()))?;
    let mut fs = TaskFs::new(scratch, limit_bytes);
    if let Some(file) = state {
        let announce = state::announcer(link.clone(), report_key, spec, lease);
        let store = Arc::new(WatchedFile { file, full: storage_full.clone() });
        let state_bytes = spec.limits.state_bytes;
        let place = Place { task: spec.task, attempt: lease.attempt, node: lease.node, state_bytes };
        let least = opened.resume.as_ref();
        facts.resumed = state::open(&mut fs, (store, &storage_full), secret, place, least, announce)?;
    }
    let job = Job { spec, secret, manifest, manifest_plain, workload, inputs, fs, storage_full, stop };
    engine::run(job, link, warm, &mut facts.engine)
}

/// Seals what the run left, as far as it may leave.
fn seal_outputs(
    spec: &TaskSpec,
    ending: Ending,
    mut produced: Produced,
    storage_full: &StorageFull,
    output_secret: &OutputSecret,
    link: &mut Link,
) -> Result<(Outcome, Sealed), Broken> {
    if storage_full.is_set() {
        // Pages that found no room are stuck in memory, and what was written cannot be read back through them.
        produced.fs = None;
    }
    let (mut outcome, note) = ending.into_outcome(&spec.limits);
    if let Some(note) = note {
        // Engines that refuse a workload have not let it print: the note has standard error to itself.
        produced.stderr.extend_from_slice(note.as_bytes());
        produced.stderr.push(b'\n');
    }
    let mut plain = Plain { stdout: &produced.stdout, stderr: &produced.stderr, fs: produced.fs.as_mut() };
    if let Err(refusal) = plain.check(&spec.limits) {
        outcome = failed_first(outcome, Outcome::Failed { refusal });
        // Of too many or too large files none leaves; the logs, which are bounded, do if they fit.
        plain.fs = None;
        if plain.check(&spec.limits).is_err() {
            return Ok((outcome, Sealed::default()));
        }
    }
    match outputs::seal(link, &output_secret.secret, spec.task, plain) {
        Ok(sealed) => Ok((outcome, sealed)),
        Err(Halt::Broken(broken)) => Err(broken),
        Err(Halt::End(ending)) => {
            let (failed, _) = ending.into_outcome(&spec.limits);
            Ok((failed_first(outcome, failed), Sealed::default()))
        }
    }
}

/// The failure that came first is the one to report.
fn failed_first(first: Outcome, then: Outcome) -> Outcome {
    match first {
        Outcome::Completed => then,
        Outcome::Failed { .. } => first,
    }
}
