//! `starminer run` and `starminer submit`.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use starminer_receipt::{Outcome, Overall};
use starminer_requester::{Event, EventSink, OpenedOutput, Requester, RequesterError, TaskOutcome};
use starminer_verify::{Party, PublicKey, Refusal};
use starminer_wire::{NetworkInfo, TaskView};

use super::args::RunArgs;
use super::collected::Collected;
use super::exit::{self, Failure};
use super::home::{self, block_on, requester_failure};
use super::job::{self, Job};
use super::terminal::{Style, Terminal, human_bytes, short};

/// Seals, submits, releases, waits, opens, keeps the receipt.
pub fn run(terminal: &Terminal, args: RunArgs) -> Result<u8, Failure> {
    if args.detach {
        return submit(terminal, args);
    }
    let opened = home::open(terminal, &args.home)?;
    let job = job::plan(&args, &opened.network)?;
    let broker = args.broker.as_deref().map(parse_broker).transpose()?;
    prepare_output(&job.output_dir)?;
    let (events, collected) = (story(terminal), opened.collected.clone());
    block_on(async {
        let requester = opened.start(events)?;
        reach(&requester).await?;
        let task = requester
            .submit(&job.plan, Some(absolute(&job.output_dir)), broker)
            .await
            .map_err(|error| requester_failure(&error))?;
        finish(terminal, &requester, &collected, &task, &job.output_dir).await
    })?
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
    let Job { plan, output_dir } = job::plan(&args, &opened.network)?;
    let broker = args.broker.as_deref().map(parse_broker).transpose()?;
    prepare_output(&output_dir)?;
    let events = story(terminal);
    block_on(async {
        let requester = opened.start(events)?;
        let network = reach(&requester).await?;
        let brokers = broker.map_or(network.brokers, |broker| vec![broker]);
        let mut last = Failure::unreachable(Refusal::new(
            Party::Broker,
            "broker.none",
            "no broker answers in this network",
            "ask its operator to start one, or release the key yourself with `starminer run`",
        ));
        for broker in brokers {
            match requester.submit(&plan, Some(absolute(&output_dir)), Some(broker)).await {
                Ok(task) => {
                    terminal.say(format!("  broker {} holds the key; this machine may go offline", short(&broker)));
                    terminal.result(format!("task {task}\nfetch it with: starminer result {}", short(&task)));
                    terminal.document(&json!({ "task": task.to_string(), "broker": broker.to_string() }));
                    return Ok(exit::OK);
                }
                // Another broker might make it a second task.
                Err(error @ RequesterError::Unacknowledged { .. }) => return Err(requester_failure(&error)),
                Err(error) => last = requester_failure(&error),
            }
        }
        Err(last)
    })?
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

/// Waits for a task and collects it.
pub async fn finish(
    terminal: &Terminal,
    requester: &Requester,
    collected: &Collected,
    task: &starminer_verify::TaskId,
    output_dir: &Path,
) -> Result<u8, Failure> {
    let spinner = terminal.spinner("waiting");
    let outcome = async {
        let view = requester.wait(task).await?;
        collect(requester, collected, view, output_dir).await
    }
    .await;
    spinner.finish_and_clear();
    let outcome = outcome.map_err(|error: RequesterError| requester_failure(&error))?;
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
    let outcome = requester.collect(view, output_dir).await?;
    if let Err(error) = collected.remember(&outcome.task, &absolute(output_dir)) {
        // The result is there; what is lost is that `logs TASK` finds it.
        tracing::warn!(%error, "the place of the result is not remembered");
    }
    Ok(outcome)
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
        }
        None => terminal.result(format!("{} task {}", outcome.view.state.name(), outcome.task)),
    }
    for OpenedOutput { path, plain_bytes, .. } in &outcome.outputs {
        terminal.result(format!("  output  {} ({})", path.display(), human_bytes(*plain_bytes)));
    }
    let stamp = if outcome.verdict.is_simulated() { terminal.style(Style::Yellow, " SIMULATED") } else { "".into() };
    terminal.result(format!(
        "  receipt {} ({}){stamp}",
        outcome.receipt_path.display(),
        outcome.verdict.overall().name()
    ));
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
        Event::Sealed { name, plain_bytes, sealed_bytes } => {
            ("sealed", format!("{name}: {} → {} of ciphertext", human_bytes(*plain_bytes), human_bytes(*sealed_bytes)))
        }
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
