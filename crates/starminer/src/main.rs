//! `starminer`: one program for requesters, providers and operators.
//!
//! This file only chooses: every command is a module of [`cli`], the demonstration is [`demo`]. Exit codes are in
//! [`cli::exit`].

mod broker;
mod cli;
mod demo;

use std::process::ExitCode;

fn main() -> ExitCode {
    // A task process is this program again, before anything else of it runs: no command line, no configuration, no threads.
    if let Some(code) = starminer_agent::run_if_task_process() {
        return code;
    }
    match cli::parse() {
        Ok(args) => cli::dispatch(args),
        Err(code) => code,
    }
}
