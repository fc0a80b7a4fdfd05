//! `starminer run` and `starminer submit`.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use starminer_client::ClientError;
use starminer_receipt::{Outcome, OutputName, Overall, ReferenceStatement, Role};
use starminer_requester::{
    Event, EventSink, JobPlan, OpenedOutput, PublishedValues, Requester, RequesterError, TaskOutcome, join_pinned,
};
use starminer_verify::{Party, PolicyFields, PublicKey, Refusal, TaskId, Tier};
use starminer_wire::{NetworkInfo, NodeSummary, TaskView};

use super::args::{HomeArgs, RunArgs};
use super::collected::Collected;
use super::exit::{self, Failure};
use super::home::{self, block_on, requester_failure};
use super::interrupt::Interrupt;
use super::job::{self, Job};
use super::terminal::{Style, Terminal, human_bytes, printable, quoted, short};

/// How much of a failed program's standard error is shown.
const STDERR_LINES: usize = 5;
const STDERR_BYTES: u64 = 2000;

/// How long brokers are waited for after the coordinator's start, whatever it says.
const STARTING_PATIENCE: Duration = Duration::from_secs(120);

/// Seals, submits, releases, waits, opens, keeps the receipt.
pub fn run(terminal: &Terminal, args: RunArgs) -> Result<u8, Failure> {
    if args.detach {
        return submit(terminal, args);
    }
    let opened = home::open(terminal, &args.home)?;
    let mut job = job::plan(&args, &opened.network)?;
    let broker = args.broker.as_deref().map(parse_broker).transpose()?;
    prepare_output(&job.output_dir)?;
    let (events, collected) = (story(terminal), opened.collected.clone());
    block_on(async {
        let interrupt = Interrupt::listen()?;
        let roots: Vec<String> = opened.network.simulated_roots.iter().map(|root| root.name.clone()).collect();
        let requester = opened.start(events)?.stopping_when(interrupt.asked());
        let stopped = |signal| not_submitted(signal, &args.home);
        let submitted = async {
            reach(&requester).await?;
            join_published(terminal, &requester, &mut job.plan).await?;
            let output_dir = Some(absolute(&job.output_dir));
            let failed = |error| failed_unless_stopped(&error, &interrupt, stopped);
            if broker.is_some() {
                let submit = async || requester.submit(&job.plan, output_dir.clone(), broker).await;
                let task = once_started(terminal, submit).await.map_err(failed)?;
                warn_of_nodes(terminal, &requester, job.plan.policy.fields(), &roots).await;
                return Ok(task);
            }
            // A job that cannot be used is refused first, and who would wait in vain is told before everything is uploaded.
            let prepared = requester.prepare(&job.plan, None).map_err(failed)?;
            tell_of_nodes(terminal, &requester, job.plan.policy.fields(), &roots).await?;
            requester.submit_prepared(prepared, output_dir).await.map_err(failed)
        };
        let task = tokio::select! {
            task = submitted => task?,
            signal = interrupt.wait() => return Err(stopped(signal)),
        };
        tokio::select! {
            code = finish(terminal, &requester, &collected, &task, &job.output_dir) => {
                code.map_err(|error| failed_unless_stopped(&error, &interrupt, |signal| goes_on(signal, &task, &args.home)))
            }
            signal = interrupt.wait() => Err(goes_on(signal, &task, &args.home)),
        }
    })?
}

/// An error as a failure; that of having been asked to stop is the signal's.
pub fn failed_unless_stopped(
    error: &RequesterError,
    interrupt: &Interrupt,
    stopped: impl FnOnce(u8) -> Failure,
) -> Failure {
    match (error, interrupt.heard()) {
        (RequesterError::Stopped, Some(signal)) => stopped(signal),
        _ => requester_failure(error),
    }
}

fn not_submitted(signal: u8, home: &HomeArgs) -> Failure {
    let remedy = format!("`{}` shows whether the task was submitted", home::command(home, "status"));
    Failure::interrupted(signal, "asked to stop before the coordinator acknowledged the task", &remedy)
}

/// What became of a task that nobody waits for any more.
pub fn goes_on(signal: u8, task: &TaskId, home: &HomeArgs) -> Failure {
    let reason = format!("asked to stop; task {task} goes on");
    let result = home::command(home, &format!("result {}", short(task)));
    let cancel = home::command(home, &format!("cancel {}", short(task)));
    let remedy =
        format!("`{result}` waits for it, releases its key if that is still to do, and fetches it; `{cancel}` ends it");
    Failure::interrupted(signal, reason, &remedy)
}

/// The same for a task that is submitted: not to know the nodes changes nothing about it.
async fn warn_of_nodes(terminal: &Terminal, requester: &Requester, policy: &PolicyFields, roots: &[String]) {
    if let Err(error) = tell_of_nodes(terminal, requester, policy, roots).await {
        tracing::warn!(%error, "the nodes of the network are not known");
    }
}

/// Says at once that no node of this network can take the task as things stand, and what would let one: the task then waits.
/// Routing alone: whether a node's evidence is good is found out before its key is released.
async fn tell_of_nodes(
    terminal: &Terminal,
    requester: &Requester,
    policy: &PolicyFields,
    roots: &[String],
) -> Result<(), Failure> {
    let nodes = requester.client().nodes().await.map_err(|error| requester_failure(&error.into()))?;
    let simulated = |node: &NodeSummary| node.provenance != "genuine";
    let reaches = |node: &NodeSummary| {
        serde_json::from_value::<Tier>(node.tier.as_str().into()).is_ok_and(|tier| tier >= policy.minimum_tier)
    };
    let may_simulate = !policy.accepted_simulated_roots.is_empty();
    if nodes.iter().any(|node| reaches(node) && (may_simulate || !simulated(node))) {
        return Ok(());
    }
    if nodes.is_empty() {
        terminal.note("note: no node is admitted in this network at present; the task waits for one");
        return Ok(());
    }
    terminal.note("note: no node of this network meets the policy; the task waits for one that does. There are");
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for node in &nodes {
        *kinds.entry(printable(format!("tier {}, {}", node.tier, node.provenance))).or_default() += 1;
    }
    for (kind, count) in kinds {
        terminal.note(format!("  {count} of {kind}"));
    }
    if !may_simulate && nodes.iter().any(simulated) {
        terminal.note(match roots {
            [] => "  do      nothing here accepts them: your network.toml names no simulated root".to_string(),
            names => {
                let options: Vec<String> =
                    names.iter().map(|name| format!("--accept-simulated {}", quoted(name))).collect();
                format!("  do      to accept a simulation, which is not for secrets: {}", options.join(" or "))
            }
        });
    }
    if !nodes.iter().any(reaches) {
        terminal.note(format!(
            "  do      the policy asks for tier {}; --operator-may-read-memory accepts `measured`, and with --minimum-tier identified any enrolled TPM: their operators can read memory",
            policy.minimum_tier
        ));
    }
    Ok(())
}

/// Leaves the task with a broker and returns.
pub fn submit(terminal: &Terminal, args: RunArgs) -> Result<u8, Failure> {
    if !args.detach {
        return Err(Failure::usage(
            "submit.not-detached",
            "`submit` leaves the task with a broker, and that has to be said",
            "say `starminer submit --detach …`; to release the key yourself use `starminer run`",
        ));
    }
    let opened = home::open(terminal, &args.home)?;
    let Job { mut plan, output_dir } = job::plan(&args, &opened.network)?;
    let broker = args.broker.as_deref().map(parse_broker).transpose()?;
    prepare_output(&output_dir)?;
    let events = story(terminal);
    let roots: Vec<String> = opened.network.simulated_roots.iter().map(|root| root.name.clone()).collect();
    block_on(async {
        let interrupt = Interrupt::listen()?;
        let requester = opened.start(events)?.stopping_when(interrupt.asked());
        let stopped = |signal| not_submitted(signal, &args.home);
        let submitted = async {
            join_published(terminal, &requester, &mut plan).await?;
            let brokers = match broker {
                Some(broker) => vec![broker],
                None => once_started(terminal, async || Ok(requester.client().brokers().await?))
                    .await
                    .map_err(|error| requester_failure(&error))?,
            };
            let mut last = Failure::unreachable(Refusal::new(
                Party::Broker,
                "broker.none",
                "no broker answers in this network",
                "ask its operator to start one, or release the key yourself with `starminer run`",
            ));
            for broker in brokers {
                let submitted = once_started(terminal, async || {
                    requester.submit(&plan, Some(absolute(&output_dir)), Some(broker)).await
                });
                match submitted.await {
                    Ok(task) => {
                        terminal.say(format!("  broker {} holds the key; this machine may go offline", short(&broker)));
                        let fetch = home::command(&args.home, &format!("result {}", short(&task)));
                        terminal.result(format!("task {task}\nfetch it with: {fetch}"));
                        warn_of_nodes(terminal, &requester, plan.policy.fields(), &roots).await;
                        terminal.document(&json!({ "task": task.to_string(), "broker": broker.to_string() }));
                        return Ok(exit::OK);
                    }
                    // Another broker might make it a second task.
                    Err(error @ (RequesterError::Unacknowledged { .. } | RequesterError::Stopped)) => {
                        return Err(failed_unless_stopped(&error, &interrupt, stopped));
                    }
                    Err(error) => last = requester_failure(&error),
                }
            }
            Err(last)
        };
        tokio::select! {
            code = submitted => code,
            signal = interrupt.wait() => Err(stopped(signal)),
        }
    })?
}

/// Does what needs a broker, again for as long as the coordinator says that brokers may not have come back to it since it started. It
/// says so before anything is sealed or sent.
async fn once_started<T>(
    terminal: &Terminal,
    attempt: impl AsyncFn() -> Result<T, RequesterError>,
) -> Result<T, RequesterError> {
    let until = tokio::time::Instant::now() + STARTING_PATIENCE;
    let mut said = false;
    loop {
        let failed = match attempt().await {
            Err(RequesterError::Client(failed)) => failed,
            result => return result,
        };
        let ClientError::Refused { refusal, retry_after_ms: Some(pause_ms), .. } = &failed else {
            return Err(failed.into());
        };
        let pause = Duration::from_millis(*pause_ms);
        if refusal.check() != "coordinator.starting"
            || pause > until.saturating_duration_since(tokio::time::Instant::now())
        {
            return Err(failed.into());
        }
        if !std::mem::replace(&mut said, true) {
            terminal.say("  waiting  the coordinator started a moment ago; its brokers are about to come back");
        }
        tokio::time::sleep(pause).await;
    }
}

fn parse_broker(text: &str) -> Result<PublicKey, Failure> {
    text.parse().map_err(|error| {
        Failure::usage("broker.bad-key", error, "give the broker's signing key, 64 hexadecimal digits")
    })
}

/// A path that still means the same when `result` is called from elsewhere.
fn absolute(path: &Path) -> std::path::PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

/// Makes the output directory and tries to write there, before anything is sealed for a result that has no place.
fn prepare_output(dir: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(dir).and_then(|()| tempfile::tempfile_in(dir)).map(drop).map_err(|error| {
        let reason = format!("{}: {error}", dir.display());
        Failure::local("output.unwritable", reason, "name a directory with -o that you may write")
    })
}

/// Asks the coordinator for its view of the network, so that one who is away is found before a job is sealed and journalled.
async fn reach(requester: &Requester) -> Result<NetworkInfo, Failure> {
    requester.client().network().await.map_err(|error| requester_failure(&error.into()))
}

/// Lets the values count that the network has published for agents, beside those that the trust file pins.
async fn join_published(terminal: &Terminal, requester: &Requester, plan: &mut JobPlan) -> Result<(), Failure> {
    match requester.published(Role::Agent).await.map_err(|error| requester_failure(&error))? {
        PublishedValues::Count(values) => {
            plan.reference_values =
                join_pinned(&values, &plan.reference_values).map_err(|error| requester_failure(&error))?;
            let ReferenceStatement { name, version, .. } = values.statement();
            terminal.say(format!("  agents   as published: {} version {version}", printable(name)));
        }
        PublishedValues::NotAtThisTime(error) => {
            terminal.note(format!(
                "note: what was published for agents does not count: {error}; network.toml's own values do"
            ));
        }
        PublishedValues::Nothing => {}
    }
    Ok(())
}

/// Waits for a task and collects it.
pub async fn finish(
    terminal: &Terminal,
    requester: &Requester,
    collected: &Collected,
    task: &starminer_verify::TaskId,
    output_dir: &Path,
) -> Result<u8, RequesterError> {
    let spinner = terminal.spinner("waiting");
    let outcome = async {
        let view = requester.wait(task).await?;
        collect(requester, collected, view, output_dir).await
    }
    .await;
    spinner.finish_and_clear();
    let outcome = outcome?;
    show(terminal, &outcome);
    terminal.document(&document(&outcome, &absolute(output_dir)));
    Ok(exit_code(&outcome))
}

/// Collects a task that has ended, and remembers where.
pub async fn collect(
    requester: &Requester,
    collected: &Collected,
    view: TaskView,
    output_dir: &Path,
) -> Result<TaskOutcome, RequesterError> {
    // Before it is collected: a home without room for it keeps the task open. Until then an open task goes before where it was collected.
    collected.remember(&view.task, &absolute(output_dir))?;
    requester.collect(view, output_dir).await
}

/// 0 for a completed task with a receipt that is not refuted.
pub fn exit_code(outcome: &TaskOutcome) -> u8 {
    let completed = matches!(outcome.outcome, Some(Outcome::Completed));
    if completed && outcome.verdict.overall() != Overall::Refuted { exit::OK } else { exit::REFUSED }
}

/// Shows how a task ended.
pub fn show(terminal: &Terminal, outcome: &TaskOutcome) {
    match &outcome.outcome {
        Some(Outcome::Completed) => {
            terminal.result(format!("{} task {}", terminal.style(Style::Green, "completed"), outcome.task));
        }
        Some(Outcome::Failed { refusal }) => {
            terminal.result(format!("{} task {}", terminal.style(Style::Red, "failed"), outcome.task));
            for line in exit::lines(refusal) {
                terminal.result(line);
            }
            for line in first_of_stderr(outcome) {
                terminal.result(format!("  stderr  {line}"));
            }
        }
        None => terminal.result(format!("{} task {}", outcome.view.state.name(), outcome.task)),
    }
    for output in &outcome.outputs {
        let renamed = named_otherwise(outcome, output)
            .map_or_else(String::new, |name| format!(", which the program named {}", printable(quoted(name))));
        let size = human_bytes(output.plain_bytes);
        terminal.result(format!("  output  {} ({size}){renamed}", printable(output.path.display())));
    }
    let stamp = if outcome.verdict.is_simulated() { terminal.style(Style::Yellow, " SIMULATED") } else { "".into() };
    terminal.result(format!(
        "  receipt {} ({}){stamp}",
        printable(outcome.receipt_path.display()),
        outcome.verdict.overall().name()
    ));
}

/// What the program named a file that has another name here.
fn named_otherwise<'a>(outcome: &TaskOutcome, output: &'a OpenedOutput) -> Option<&'a str> {
    let OutputName::File(name) = &output.name else { return None };
    let dir = outcome.receipt_path.parent().unwrap_or(Path::new(""));
    (output.path != dir.join(name)).then_some(name)
}

/// How a program that failed begins to say why: the first lines of its standard error, without control characters.
fn first_of_stderr(outcome: &TaskOutcome) -> Vec<String> {
    let Some(stderr) = outcome.outputs.iter().find(|output| output.name == OutputName::Stderr) else {
        return Vec::new();
    };
    let mut begin = Vec::new();
    let read = std::fs::File::open(&stderr.path).and_then(|file| file.take(STDERR_BYTES).read_to_end(&mut begin));
    if let Err(error) = read {
        tracing::warn!(%error, "the opened standard error cannot be read");
    }
    String::from_utf8_lossy(&begin).lines().take(STDERR_LINES).map(printable).collect()
}

/// How a task ended, for scripts.
pub fn document(outcome: &TaskOutcome, collected: &Path) -> Value {
    let refusal = match &outcome.outcome {
        Some(Outcome::Failed { refusal }) => Some(exit::document(refusal)),
        _ => None,
    };
    json!({
        "task": outcome.task.to_string(),
        "state": outcome.view.state.name(),
        "refusal": refusal,
        "outputs": outcome.outputs.iter().map(|output| json!({
            "path": output.path.display().to_string(),
            "bytes": output.plain_bytes,
            "name": match &output.name {
                OutputName::File(name) => Some(name),
                OutputName::Stdout | OutputName::Stderr => None,
            },
        })).collect::<Vec<_>>(),
        "exit_code": outcome.details.as_ref().and_then(|details| details.exit_code),
        "fuel_used": outcome.details.as_ref().and_then(|details| details.fuel_used),
        "receipt": outcome.receipt_path.display().to_string(),
        "verdict": outcome.verdict.overall().name(),
        "simulated": outcome.verdict.is_simulated(),
        "collected": collected.display().to_string(),
    })
}

/// Tells the story of a task as it happens.
pub fn story(terminal: &Terminal) -> EventSink {
    let terminal = terminal.clone();
    Arc::new(move |event| {
        if let Some((label, text)) = tell(&event) {
            terminal.say(format!("  {} {text}", terminal.style(Style::Cyan, format!("{label:<9}"))));
        }
    })
}

/// An event as a label and a sentence.
pub fn tell(event: &Event) -> Option<(&'static str, String)> {
    Some(match event {
        Event::Sealed { name, plain_bytes, sealed_bytes } => (
            "sealed",
            format!(
                "{}: {} → {} of ciphertext",
                printable(name),
                human_bytes(*plain_bytes),
                human_bytes(*sealed_bytes)
            ),
        ),
        Event::Uploaded { .. } | Event::Ended { .. } => return None,
        Event::Submitted { task } => ("submitted", format!("task {} is durable at the coordinator", short(task))),
        Event::Challenged { node, attempt, .. } => {
            ("leased", format!("node {} has attempt {attempt}; challenged it to prove itself", short(node)))
        }
        Event::Appraised { node, tier, provenance, checks_passed, .. } => (
            "proved",
            format!(
                "node {}: tier {tier} ({provenance}), {checks_passed} checks passed, for this task alone",
                short(node)
            ),
        ),
        Event::Denied { node, reason, .. } => ("denied", format!("node {}: {reason}", short(node))),
        Event::ReleaseLogged { index, log_size, .. } => {
            ("logged", format!("the release is entry {index} of the public log ({log_size} entries)"))
        }
        Event::Granted { .. } => ("released", "the key went out, sealed to the enclave's task key".to_string()),
    })
}
