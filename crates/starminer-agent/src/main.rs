//! `starminer-agent`: the node's agent alone, as it runs in a measured image. Same code as `starminer node run`.
//!
//! Usage: `starminer-agent [--new-identity] AGENT.TOML`; with the option it makes the node's key where there is none, for images whose storage ends with
//! the boot. Log level from `STARMINER_LOG` (default `info`). Exit codes: 0 stopped as told,
//! 1 did not start, 2 wrong usage.

use std::path::PathBuf;
use std::process::ExitCode;

use starminer_agent::AgentConfig;

/// Threads of the agent: it moves ciphertext and statements, the work is in task processes.
const WORKER_THREADS: usize = 2;

fn main() -> ExitCode {
    // Before anything else: a task process is this program again.
    if let Some(code) = starminer_agent::run_if_task_process() {
        return code;
    }
    let mut arguments = std::env::args_os().skip(1).peekable();
    let new_identity = arguments.next_if(|first| first == "--new-identity").is_some();
    let (Some(path), None) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: starminer-agent [--new-identity] AGENT.TOML");
        return ExitCode::from(2);
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("STARMINER_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match run(&PathBuf::from(path), new_identity) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("starminer-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(path: &std::path::Path, new_identity: bool) -> anyhow::Result<()> {
    let config = AgentConfig::load(path)?;
    if new_identity {
        starminer_tls::IdentityKey::load_or_create(&config.identity)?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKER_THREADS).enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        let shutdown = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        };
        Ok(starminer_agent::run(config, || {}, shutdown).await?)
    })
}
