//! `starminer status|logs|result|cancel`: tasks of this home.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::json;
use starminer_client::ClientError;
use starminer_receipt::{NetworkTrust, Outcome, OutputName, Overall, verify_receipt};
use starminer_requester::{Cancelled, Requester, Results};
use starminer_verify::{Party, Refusal, TaskId};
use starminer_wire::TaskView;

use super::args::{ResultArgs, StatusArgs, TaskArgs};
use super::collected::Collected;
use super::exit::{self, Failure};
use super::home::{self, block_on, requester_failure};
use super::interrupt::Interrupt;
use super::terminal::{Style, Terminal, printable, short};
use super::verify::{now, read_receipt};
use super::{run, verify};

/// Where tasks stand.
pub fn status(terminal: &Terminal, args: &StatusArgs) -> Result<u8, Failure> {
    let opened = home::open(terminal, &args.home)?;
    let collected = opened.collected.clone();
    block_on(async {
        let requester = opened.start(std::sync::Arc::new(|_| {}))?;
        let tasks = match &args.task {
            Some(prefix) => vec![find(&requester, &collected, prefix)?],
            None => requester.open_tasks().into_iter().map(|(task, dir)| Found::Open(task, dir)).collect(),
        };
        // Their tasks may be well: it is this home that lost what it needs to open the results.
        let mut damaged: BTreeMap<_, _> = requester.damaged_tasks().into_iter().collect();
        damaged.retain(|task, _| tasks.iter().any(|found| found.task() == *task));
        let damage = |task: &TaskId| damaged.contains_key(task).then_some("journal.damaged");
        let mut rows = Vec::new();
        if tasks.is_empty() {
            terminal.result("no task is open in this home");
        } else {
            let head = format!("{:<10} {:<11} {:<8} {:<10} {}", "TASK", "STATE", "ATTEMPT", "NODE", "WHY");
            terminal.result(terminal.style(Style::Bold, head));
        }
        for found in tasks {
            let task = found.task();
            let place = match &found {
                Found::Collected(_, dir) => Some(dir.display().to_string()),
                Found::Open(..) => None,
            };
            let view = match requester.client().task(&task, 0, 0).await {
                Ok(view) => view,
                Err(ClientError::Refused { status: 404, .. }) => {
                    let (state, shown) =
                        if place.is_some() { ("collected", "collected") } else { ("not-taken", "not taken") };
                    let why = damage(&task).unwrap_or_default();
                    terminal
                        .result(format!("{:<10} {shown:<11} {:<8} {:<10} {why}", short(&task), "-", "-").trim_end());
                    rows.push(json!({
                        "task": task.to_string(), "state": state, "attempt": null, "node": null, "check": damage(&task), "collected": place,
                    }));
                    continue;
                }
                Err(error) => return Err(requester_failure(&error.into())),
            };
            let attempt = view.attempt.map_or_else(|| "-".into(), |attempt| attempt.to_string());
            let node = view.node.map_or_else(|| "-".into(), |node| short(&node));
            let check =
                damage(&task).map(str::to_owned).or(view.refusal.as_ref().map(|refusal| refusal.check().to_string()));
            let why = match (&check, view.queue_position, &place) {
                (Some(check), ..) => check.clone(),
                (None, Some(position), _) => format!("{position} before it in the queue"),
                (None, None, Some(place)) => format!("collected: {place}"),
                (None, None, None) => String::new(),
            };
            let line = format!("{:<10} {:<11} {attempt:<8} {node:<10} {why}", short(&task), view.state.name());
            terminal.result(line.trim_end());
            rows.push(json!({
                "task": task.to_string(),
                "state": view.state.name(),
                "attempt": view.attempt.map(|attempt| attempt.0),
                "node": view.node.map(|node| node.to_string()),
                "check": check,
                "collected": place,
            }));
        }
        terminal.document(&json!({ "tasks": rows }));
        for error in damaged.values() {
            terminal.result(format!("{}: {error}", terminal.style(Style::Red, "unreadable")));
        }
        Ok(if damaged.is_empty() { exit::OK } else { exit::LOCAL })
    })?
}

/// Fetches and opens the result; waits for it where the task still runs. Once collected, it says what the receipt says.
pub fn result(terminal: &Terminal, args: &ResultArgs) -> Result<u8, Failure> {
    let opened = home::open(terminal, &args.home)?;
    let (collected, network) = (opened.collected.clone(), opened.network.clone());
    block_on(async {
        let interrupt = Interrupt::listen()?;
        let requester = opened.start(run::story(terminal))?.stopping_when(interrupt.asked());
        match find(&requester, &collected, &args.task)? {
            Found::Open(task, remembered) => {
                requester.resume(&task).await.map_err(|error| requester_failure(&error))?;
                // Outages are waited out once the coordinator has answered: who begins with one is told.
                view(&requester, &task).await?;
                let output_dir = output_dir(args.output.clone(), remembered);
                tokio::select! {
                    code = run::finish(terminal, &requester, &collected, &task, &output_dir) => {
                        let stopped = |signal| run::goes_on(signal, &task, &args.home);
                        code.map_err(|error| run::failed_unless_stopped(&error, &interrupt, stopped))
                    }
                    signal = interrupt.wait() => Err(run::goes_on(signal, &task, &args.home)),
                }
            }
            Found::Collected(task, dir) => show_collected(terminal, &network, &task, &dir),
        }
    })?
}

async fn view(requester: &Requester, task: &TaskId) -> Result<TaskView, Failure> {
    requester.client().task(task, 0, 0).await.map_err(|error| match error {
        ClientError::Refused { status: 404, refusal, .. } => Failure::refused(Refusal::new(
            Party::Coordinator,
            refusal.check().to_owned(),
            format!("the coordinator does not have task {task}"),
            "if it never took it, `starminer cancel TASK` removes it from this home",
        )),
        error => requester_failure(&error.into()),
    })
}

fn output_dir(named: Option<PathBuf>, remembered: Option<PathBuf>) -> PathBuf {
    named.or(remembered).unwrap_or_else(|| PathBuf::from("out"))
}

/// What is known of a collected task without its keys: its receipt.
fn show_collected(terminal: &Terminal, network: &NetworkTrust, task: &TaskId, dir: &Path) -> Result<u8, Failure> {
    let path = dir.join(format!("{task}.receipt"));
    let receipt = read_receipt(&path).map_err(|failure| {
        let reason = format!("{}: {}", path.display(), failure.refusal().reason());
        let remedy = "the task was collected there; look for its outputs and receipt where you moved them";
        Failure::usage("result.moved", reason, remedy)
    })?;
    let verdict = verify_receipt(&receipt, Some(network), now());
    terminal.say(format!("collected before: outputs and receipt are in {}", printable(dir.display())));
    verify::show(terminal, &path, &verdict);
    let refusal = match &verdict.outcome {
        Some(Outcome::Failed { refusal }) => Some(exit::document(refusal)),
        _ => None,
    };
    let completed = matches!(verdict.outcome, Some(Outcome::Completed));
    let state = match &verdict.outcome {
        Some(Outcome::Completed) => "completed",
        Some(Outcome::Failed { .. }) => "failed",
        None => "cancelled",
    };
    // The fields of a first collection; what only the task's keys could tell is in the files.
    terminal.document(&json!({
        "task": task.to_string(),
        "state": state,
        "refusal": refusal,
        "outputs": null,
        "exit_code": null,
        "fuel_used": null,
        "receipt": path.display().to_string(),
        "verdict": verdict.overall().name(),
        "simulated": verdict.is_simulated(),
        "collected": dir.display().to_string(),
    }));
    Ok(if completed && verdict.overall() != Overall::Refuted { exit::OK } else { exit::REFUSED })
}

/// Standard output and error of a task that has ended.
pub fn logs(terminal: &Terminal, args: &TaskArgs) -> Result<u8, Failure> {
    let opened = home::open(terminal, &args.home)?;
    let collected = opened.collected.clone();
    block_on(async {
        let requester = opened.start(std::sync::Arc::new(|_| {}))?;
        let (task, dir) = match find(&requester, &collected, &args.task)? {
            Found::Collected(task, dir) => (task, dir),
            Found::Open(task, remembered) => {
                let view = view(&requester, &task).await?;
                if !view.state.is_final() {
                    let reason = format!("task {} is {}", short(&task), view.state.name());
                    let remedy = "logs are sealed to you and come with the result; wait for it";
                    return Err(Failure::usage("task.running", reason, remedy));
                }
                let dir = output_dir(None, remembered);
                let outcome = run::collect(&requester, &collected, view, &dir).await;
                outcome.map_err(|error| requester_failure(&error))?;
                terminal.say(format!("result and receipt are in {}", printable(dir.display())));
                (task, dir)
            }
        };
        let since = collected_at(&task, &dir)?;
        let results = Results::read(&dir).filter(|results| results.task == task);
        let log = |name: OutputName, usual: &str| match &results {
            // Where the program has files of its own by the usual names, what it said is elsewhere.
            Some(results) => results.place(&name).map_or(Ok(None), |place| read(&dir.join(place), since)),
            None => read(&dir.join(usual), since),
        };
        let (stdout, stderr) = (log(OutputName::Stdout, "stdout.txt")?, log(OutputName::Stderr, "stderr.txt")?);
        for (label, text) in [("stdout", &stdout), ("stderr", &stderr)] {
            if let Some(text) = text {
                terminal.result(format!("--- {label}\n{}", text.trim_end_matches('\n')));
            }
        }
        if stdout.is_none() && stderr.is_none() {
            terminal.say("the program wrote nothing to standard output and error");
        }
        terminal.document(&json!({ "task": task.to_string(), "stdout": stdout, "stderr": stderr }));
        Ok(exit::OK)
    })?
}

/// When a task was collected into a directory: its receipt is written first, its outputs after it. A later task in the same
/// directory has replaced them.
fn collected_at(task: &TaskId, dir: &Path) -> Result<SystemTime, Failure> {
    let unreadable = |error: std::io::Error| {
        let reason = format!("{}: {error}", dir.display());
        Failure::usage("result.moved", reason, "the task was collected there; look where you moved its outputs")
    };
    let own = dir.join(format!("{task}.receipt"));
    let collected_at = std::fs::metadata(&own).and_then(|meta| meta.modified()).map_err(unreadable)?;
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        // What a program named so is put elsewhere when it is collected; other names that end like that are the program's own.
        let is_receipt = path.extension().is_some_and(|extension| extension == "receipt")
            && path.file_stem().and_then(|stem| stem.to_str()).is_some_and(|stem| stem.parse::<TaskId>().is_ok());
        let is_other = is_receipt && path != own;
        let modified = path.metadata().and_then(|meta| meta.modified());
        if is_other && modified.is_ok_and(|modified| modified >= collected_at) {
            let reason =
                format!("a later task was collected into {}, and its logs have these names, too", dir.display());
            return Err(Failure::usage("logs.overwritten", reason, "give each task a directory of its own with -o"));
        }
    }
    Ok(collected_at)
}

/// A log for people; absent where the program wrote none. What is older than the task's receipt is of another task.
fn read(path: &Path, since: SystemTime) -> Result<Option<String>, Failure> {
    let modified = std::fs::metadata(path).and_then(|meta| meta.modified());
    match modified.and_then(|modified| Ok((modified, std::fs::read(path)?))) {
        Ok((modified, _)) if modified < since => Ok(None),
        Ok((_, bytes)) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            Err(Failure::local("logs.unreadable", format!("{}: {error}", path.display()), "check permissions"))
        }
    }
}

/// Ends a task.
pub fn cancel(terminal: &Terminal, args: &TaskArgs) -> Result<u8, Failure> {
    let opened = home::open(terminal, &args.home)?;
    let collected = opened.collected.clone();
    block_on(async {
        let requester = opened.start(std::sync::Arc::new(|_| {}))?;
        let task = match find(&requester, &collected, &args.task)? {
            Found::Open(task, _) => task,
            Found::Collected(task, dir) => {
                let reason = format!("task {} has ended; its result is in {}", short(&task), dir.display());
                return Err(Failure::usage("task.ended", reason, "there is nothing left to cancel"));
            }
        };
        let state = match requester.cancel(&task).await.map_err(|error| requester_failure(&error))? {
            Cancelled::Ending => {
                let receipt = home::command(&args.home, &format!("result {}", short(&task)));
                terminal.result(format!("cancelled task {task}; its receipt: {receipt}"));
                "cancelled"
            }
            Cancelled::NeverTaken => {
                terminal.result(format!("the coordinator never took task {task}; it is removed from this home"));
                "not-taken"
            }
        };
        terminal.document(&json!({ "task": task.to_string(), "state": state }));
        Ok(exit::OK)
    })?
}

/// A task of this home.
enum Found {
    /// Its journal is open; where its outputs shall go.
    Open(TaskId, Option<PathBuf>),
    /// It was collected; where its outputs and receipt went.
    Collected(TaskId, PathBuf),
}

impl Found {
    fn task(&self) -> TaskId {
        match self {
            Self::Open(task, _) | Self::Collected(task, _) => *task,
        }
    }
}

/// The one task whose id begins like this.
fn find(requester: &Requester, collected: &Collected, prefix: &str) -> Result<Found, Failure> {
    let open = requester.open_tasks().into_iter().filter(|(task, _)| task.to_string().starts_with(prefix));
    let mut matching: Vec<Found> = open.map(|(task, dir)| Found::Open(task, dir)).collect();
    let links = collected
        .beginning_with(prefix)
        .map_err(|error| Failure::local("home.unusable", error, "check permissions of the home directory"))?;
    for (task, dir) in links {
        if !matching.iter().any(|found| found.task() == task) {
            matching.push(Found::Collected(task, dir));
        }
    }
    match (matching.pop(), matching.is_empty()) {
        (Some(found), true) => Ok(found),
        (Some(_), false) => Err(Failure::usage(
            "task.ambiguous",
            format!("several tasks begin with {prefix:?}"),
            "give more of the task's id",
        )),
        (None, _) => Err(Failure::usage(
            "task.unknown",
            format!("no task of this home begins with {prefix:?}"),
            "`starminer status` lists the open tasks; name the home it was submitted from with --home",
        )),
    }
}
