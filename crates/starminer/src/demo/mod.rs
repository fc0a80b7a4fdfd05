//! `starminer demo`: a network of five processes, three real jobs, and the proof of what is claimed; where swtpm is installed, a node with an
//! emulated TPM and a job for it besides.
//!
//! The processes are those that an operator would start, by the same commands; the requester is this process, by the same code as
//! `starminer run`. Everything is on loopback, and every TEE is simulated, so every receipt is stamped SIMULATED.

mod jobs;
mod network;
mod proofs;
mod tpm;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};
use starminer_receipt::{Outcome, Overall};
use starminer_requester::{Event, EventSink, Requester, TaskOutcome};

use crate::cli::demo_support::{
    DemoArgs, Failure, HomeArgs, Interrupt, Style, Terminal, block_on, exit, human_bytes, open_home, requester_failure,
    short, show_verdict, tell,
};
use jobs::{DemoJob, Releases};
use network::{Network, interrupted};

/// Runs the demonstration.
pub fn run(terminal: &Terminal, args: &DemoArgs) -> Result<u8, Failure> {
    let started = Instant::now();
    // Heard before anything is made, so that nothing is left behind.
    let interrupt = Interrupt::listen()?;
    let dir = DemoDir::new(args)?;
    let stage = |title: &str| terminal.say(format!("\n{}", terminal.style(Style::Bold, title)));

    terminal.say(terminal.style(Style::Bold, "StarMiner: confidential computing on hardware that nobody has to trust"));
    terminal.say("Every TEE of this demonstration is simulated by software: its receipts are stamped SIMULATED and earn nothing.");

    stage("A network of processes, TLS 1.3 on loopback");
    let network = Network::start(terminal, dir.path(), &interrupt, args.keep)?;
    let home = HomeArgs { home: Some(network.requester_home()), network: None };

    let jobs = DemoJob::all(&network.root_name(), network.tpm_root_name().as_deref());
    let work = async {
        let opened = open_home(terminal, &home)?;
        let trust = opened.network.clone();
        let requester = opened.start(story(terminal))?;
        let mut outcomes = Vec::new();
        let mut secrets = Vec::new();
        for (number, job) in jobs.iter().enumerate() {
            stage(&format!("Job {}: {}", number + 1, job.title));
            terminal.say(format!("  {}", job.about));
            let output_dir = network.requester_home().join(format!("job{}", number + 1));
            let (outcome, job_secrets) = run_job(terminal, &requester, &trust, job, &output_dir).await?;
            job.tell(terminal, &outcome)?;
            secrets.extend(job_secrets);
            outcomes.push(outcome);
        }
        Ok::<_, Failure>((outcomes, secrets))
    };
    let (outcomes, secrets) = block_on(async {
        tokio::select! {
            outcome = work => outcome,
            signal = interrupt.wait() => Err(interrupted(signal)),
        }
    })??;

    stage("What the operators' disks hold of it");
    let canaries = proofs::canaries(&jobs, &secrets);
    let search = proofs::search(terminal, &network.operator_dirs(), &canaries)?;
    let style = if search.hits == 0 { Style::Green } else { Style::Red };
    terminal.say(format!(
        "  searched {} files, {} of coordinator, broker and nodes for {} canaries (lines of the inputs, the model, task secrets and result keys, raw and encoded)",
        search.files,
        human_bytes(search.bytes),
        canaries.len()
    ));
    terminal.say(format!("  found {}", terminal.style(style, search.hits.to_string())));

    stage("Receipts, verified offline by the requester's own trust file");
    let mut good = search.hits == 0;
    for (job, outcome) in jobs.iter().zip(&outcomes) {
        good &= job.went_as_expected(outcome);
        let verdict = &outcome.verdict;
        let proven = verdict.claims.iter().filter(|claim| claim.verdict.name() == "proven").count();
        let style = if verdict.overall() == Overall::Proven { Style::Green } else { Style::Red };
        let tier = verdict.tier.map_or_else(|| "none".to_owned(), |tier| tier.to_string());
        good &= tier == job.tier.to_string();
        terminal.say(format!(
            "  {} {} {}: {proven} claims proven; tier {tier}; {}",
            terminal.style(style, verdict.overall().name()),
            terminal.style(Style::Yellow, "SIMULATED"),
            outcome.receipt_path.file_name().unwrap_or_default().to_string_lossy(),
            ended(outcome)
        ));
        good &= verdict.overall() == Overall::Proven && verdict.is_simulated();
    }
    let flip = proofs::flip_one_bit(&outcomes[0].receipt_path, &network.trust_path())?;
    terminal.say(format!(
        "  flipped bit {} of byte {} of the first one: {}",
        flip.bit,
        flip.byte,
        terminal.style(if flip.refuted { Style::Green } else { Style::Red }, flip.verdict.as_str())
    ));
    good &= flip.refuted;
    if !terminal.is_json() && !good {
        show_verdict(terminal, &outcomes[0].receipt_path, &outcomes[0].verdict);
    }

    if let Some(signal) = interrupt.heard() {
        return Err(interrupted(signal));
    }
    let seconds = started.elapsed().as_secs_f64();
    terminal.say(format!("\n{} in {seconds:.1} s", if good { "All of it held" } else { "Something did not hold" }));
    let stays = args.keep || args.dir.is_some();
    terminal.document(&document(&outcomes, stays, &search, &flip, seconds, good));
    if args.keep {
        let kept = dir.keep();
        network.leave_running(terminal, &kept, &outcomes)?;
    } else {
        network.stop();
        if args.dir.is_some() {
            terminal.say(format!("The network's files are in {}; --keep leaves it running.", dir.path().display()));
        } else {
            terminal.say("The network's directory is removed; --keep leaves it running, --dir DIR leaves its files.");
        }
    }
    Ok(if good { exit::OK } else { exit::REFUSED })
}

/// Submits a job as its releaser has it, waits and collects; also gives the task's secrets, to search disks for.
async fn run_job(
    terminal: &Terminal,
    requester: &Requester,
    trust: &starminer_receipt::NetworkTrust,
    job: &DemoJob,
    output_dir: &Path,
) -> Result<(TaskOutcome, Vec<Vec<u8>>), Failure> {
    let plan = job.plan(trust)?;
    let broker = match job.releases {
        Releases::Requester => None,
        Releases::Broker => {
            let info = requester.client().network().await.map_err(|error| requester_failure(&error.into()))?;
            let broker = info.brokers.first().copied().ok_or_else(|| {
                Failure::local(
                    "demo.no-broker",
                    "the broker does not answer",
                    "see the broker's log in the demo's directory",
                )
            })?;
            terminal.say(format!(
                "  {} broker {} proved itself before anything was sealed to it; it releases the key, we may go offline",
                terminal.style(Style::Cyan, "verified "),
                short(&broker)
            ));
            Some(broker)
        }
    };
    let failed = |error| requester_failure(&error);
    let task = requester.submit(&plan, Some(output_dir.to_path_buf()), broker).await.map_err(failed)?;
    let secrets = requester.secrets_to_search_for(&task);
    let spinner = terminal.spinner("the node works");
    let view = requester.wait(&task).await;
    spinner.finish_and_clear();
    let outcome = requester.collect(view.map_err(failed)?, output_dir).await.map_err(failed)?;
    Ok((outcome, secrets))
}

fn ended(outcome: &TaskOutcome) -> String {
    match &outcome.outcome {
        Some(Outcome::Completed) => "completed".into(),
        Some(Outcome::Failed { refusal }) => format!("failed: {} (fault: {})", refusal.check(), refusal.party().name()),
        None => outcome.view.state.name().into(),
    }
}

/// The story, with a bar for what is uploaded.
fn story(terminal: &Terminal) -> EventSink {
    let terminal = terminal.clone();
    Arc::new(move |event: Event| {
        if let Some((label, text)) = tell(&event) {
            terminal.say(format!("  {} {text}", terminal.style(Style::Cyan, format!("{label:<9}"))));
        }
    })
}

/// For scripts. Receipts are named where they stay.
fn document(
    outcomes: &[TaskOutcome],
    stays: bool,
    search: &proofs::Search,
    flip: &proofs::Flip,
    seconds: f64,
    good: bool,
) -> Value {
    json!({
        "ok": good,
        "seconds": seconds,
        "jobs": outcomes.iter().map(|outcome| json!({
            "task": outcome.task.to_string(),
            "ended": ended(outcome),
            "receipt": stays.then(|| outcome.receipt_path.display().to_string()),
            "verdict": outcome.verdict.overall().name(),
            "tier": outcome.verdict.tier.map(|tier| tier.to_string()),
            "simulated": outcome.verdict.is_simulated(),
        })).collect::<Vec<_>>(),
        "search": { "files": search.files, "bytes": search.bytes, "hits": search.hits },
        "flipped_receipt": flip.verdict,
    })
}

/// The demonstration's directory: temporary and removed, or given and left.
enum DemoDir {
    Temporary(tempfile::TempDir),
    Given(PathBuf),
}

impl DemoDir {
    fn new(args: &DemoArgs) -> Result<Self, Failure> {
        let unusable = |reason: &dyn std::fmt::Display| {
            Failure::usage(
                "demo.directory",
                reason,
                "name an empty or absent directory with --dir, on a disk with 100 MiB free",
            )
        };
        match &args.dir {
            None => tempfile::Builder::new()
                .prefix("starminer-demo-")
                .tempdir()
                .map(Self::Temporary)
                .map_err(|error| unusable(&error)),
            Some(dir) => {
                std::fs::create_dir_all(dir).map_err(|error| unusable(&error))?;
                let dir = dir.canonicalize().map_err(|error| unusable(&error))?;
                if std::fs::read_dir(&dir).map_err(|error| unusable(&error))?.next().is_some() {
                    return Err(unusable(&format!("{} is not empty", dir.display())));
                }
                Ok(Self::Given(dir))
            }
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::Temporary(dir) => dir.path(),
            Self::Given(dir) => dir,
        }
    }

    fn keep(self) -> PathBuf {
        match self {
            Self::Temporary(dir) => dir.keep(),
            Self::Given(dir) => dir,
        }
    }
}
