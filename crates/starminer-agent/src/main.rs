//! `starminer-agent`.
use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = starminer_agent::run_if_task_process() {
        return code;
    }
    ExitCode::from(2)
}
