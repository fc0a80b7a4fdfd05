//! `starminer status|logs|result|cancel`: tasks of this home.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::json;
use starminer_client::ClientError;
use starminer_requester::{Cancelled, OpenedOutput, Requester};
use starminer_verify::TaskId;

use super::args::{ResultArgs, TaskArgs};
use super::exit::{self, Failure};
use super::home::{self, block_on, requester_failure};
use super::run;
use super::terminal::{Style, Terminal, short};

/// Where tasks stand.
pub fn status(terminal: &Terminal, args: &TaskArgs) -> Result<u8, Failure> {
    let opened = home::open(terminal, &args.home)?;
    block_on(async {
        let requester = opened.start(std::sync::Arc::new(|_| {}))?;
        let tasks = match &args.task {
            Some(prefix) => vec![find(&requester, prefix)?.0],
            None => requester.open_tasks().into_iter().map(|(task, _)| task).collect(),
        };
        // Their tasks may be well: it is this home that lost what it needs to open the results.
        let mut damaged: BTreeMap<_, _> = requester.damaged_tasks().into_iter().collect();
        damaged.retain(|task, _| tasks.contains(task));
        let journal = |task: &TaskId| if damaged.contains_key(task) { "damaged" } else { "good" };
        let mut rows = Vec::new();
        if tasks.is_empty() {
            terminal.result("no task is open in this home");
        } else {
            let head = format!("{:<10} {:<11} {:<8} {:<10} {}", "TASK", "STATE", "ATTEMPT", "NODE", "WHY");
            terminal.result(terminal.style(Style::Bold, head));
        }
        for task in tasks {
            let view = match requester.client().task(&task, 0, 0).await {
                Ok(view) => view,
                Err(ClientError::Refused { status: 404, .. }) => {
                    terminal.result(format!("{:<10} {:<11}", short(&task), "not taken"));
                    rows.push(json!({ "task": task.to_string(), "state": "not-taken", "journal": journal(&task) }));
                    continue;
                }
                Err(error) => return Err(requester_failure(&error.into())),
            };
            let attempt = view.attempt.map_or_else(|| "-".into(), |attempt| attempt.to_string());
            let node = view.node.map_or_else(|| "-".into(), |node| short(&node));
            let why = match (&view.refusal, view.queue_position) {
                (Some(refusal), _) => refusal.check().to_string(),
                (None, Some(position)) => format!("{position} before it in the queue"),
                _ => String::new(),
            };
            terminal.result(format!("{:<10} {:<11} {attempt:<8} {node:<10} {why}", short(&task), view.state.name()));
            rows.push(json!({
                "task": task.to_string(),
                "state": view.state.name(),
                "attempt": view.attempt.map(|attempt| attempt.0),
                "node": view.node.map(|node| node.to_string()),
                "check": view.refusal.as_ref().map(|refusal| refusal.check().to_string()),
                "journal": journal(&task),
            }));
        }
        terminal.document(&json!({ "tasks": rows }));
        for error in damaged.values() {
            terminal.result(format!("{}: {error}", terminal.style(Style::Red, "unreadable")));
        }
        Ok(if damaged.is_empty() { exit::OK } else { exit::LOCAL })
    })?
}

/// Fetches and opens the result; waits for it where the task still runs.
pub fn result(terminal: &Terminal, args: &ResultArgs) -> Result<u8, Failure> {
    let opened = home::open(terminal, &args.home)?;
    block_on(async {
        let requester = opened.start(run::story(terminal))?;
        let (task, remembered) = find(&requester, &args.task)?;
        let output_dir = args.output.clone().or(remembered).unwrap_or_else(|| PathBuf::from("out"));
        run::finish(terminal, &requester, &task, &output_dir).await
    })?
}

/// Standard output and error of a task that has ended.
pub fn logs(terminal: &Terminal, args: &TaskArgs) -> Result<u8, Failure> {
    let Some(prefix) = &args.task else {
        return Err(Failure::usage("task.not-named", "no task was named", "say `starminer logs TASK`"));
    };
    let opened = home::open(terminal, &args.home)?;
    block_on(async {
        let requester = opened.start(std::sync::Arc::new(|_| {}))?;
        let (task, remembered) = find(&requester, prefix)?;
        let view = requester.client().task(&task, 0, 0).await.map_err(|error| requester_failure(&error.into()))?;
        if !view.state.is_final() {
            let reason = format!("task {} is {}", short(&task), view.state.name());
            return Err(Failure::usage(
                "task.running",
                reason,
                "logs are sealed to you and come with the result; wait for it",
            ));
        }
        let output_dir = remembered.unwrap_or_else(|| PathBuf::from("out"));
        let outcome = requester.collect(view, &output_dir).await.map_err(|error| requester_failure(&error))?;
        let mut document = serde_json::Map::new();
        for OpenedOutput { name, path, .. } in &outcome.outputs {
            let label = match name {
                starminer_receipt::OutputName::Stdout => "stdout",
                starminer_receipt::OutputName::Stderr => "stderr",
                starminer_receipt::OutputName::File(_) => continue,
            };
            let text = read(path)?;
            terminal.result(format!("--- {label}\n{text}"));
            document.insert(label.into(), text.into());
        }
        terminal.say(format!("result and receipt are in {}", output_dir.display()));
        terminal.document(&document.into());
        Ok(exit::OK)
    })?
}

fn read(path: &Path) -> Result<String, Failure> {
    let bytes = std::fs::read(path).map_err(|error| {
        Failure::local("logs.unreadable", format!("{}: {error}", path.display()), "check permissions")
    })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Ends a task.
pub fn cancel(terminal: &Terminal, args: &TaskArgs) -> Result<u8, Failure> {
    let Some(prefix) = &args.task else {
        return Err(Failure::usage("task.not-named", "no task was named", "say `starminer cancel TASK`"));
    };
    let opened = home::open(terminal, &args.home)?;
    block_on(async {
        let requester = opened.start(std::sync::Arc::new(|_| {}))?;
        let (task, _) = find(&requester, prefix)?;
        let state = match requester.cancel(&task).await.map_err(|error| requester_failure(&error))? {
            Cancelled::Ending => {
                terminal.result(format!("cancelled task {task}; its receipt: starminer result {}", short(&task)));
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

/// The one open task whose id begins like this.
fn find(requester: &Requester, prefix: &str) -> Result<(TaskId, Option<PathBuf>), Failure> {
    let mut matching = requester.open_tasks().into_iter().filter(|(task, _)| task.to_string().starts_with(prefix));
    match (matching.next(), matching.next()) {
        (Some(found), None) => Ok(found),
        (Some(_), Some(_)) => Err(Failure::usage(
            "task.ambiguous",
            format!("several tasks begin with {prefix:?}"),
            "give more of the task's id",
        )),
        (None, _) => {
            let remedy = "`starminer status` lists the open tasks; a collected task's result and receipt are where it wrote them";
            Err(Failure::usage("task.unknown", format!("no open task begins with {prefix:?}"), remedy))
        }
    }
}
