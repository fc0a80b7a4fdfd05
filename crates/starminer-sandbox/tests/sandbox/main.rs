//! The sandbox, tried from inside and looked at from outside.
//!
//! A task process is this program again, so it has its own `main`: with `TASK` as its name it is a task (`roles.rs`),
//! with `HELPER` one of the bystanders that some tests need (`helpers.rs`), else the runner. Started by root, the
//! runner does everything twice, the second time as an unprivileged user, because the two take different paths through
//! the kernel's permission checks.
//!
//! Not covered: what root on the host can do (read the memory of every process), which no sandbox of this kind stops;
//! `specs/sandbox.md` says so.

#![allow(clippy::unwrap_used, unsafe_code)]

mod allowed;
mod forbidden;
mod helpers;
mod honesty;
mod lifecycle;
mod onlookers;
mod roles;
mod support;
mod zygotes;

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::Instant;

/// The name under which this program is a task process.
const TASK: &str = "starminer-task-under-test";
/// The name under which it is a bystander.
const HELPER: &str = "starminer-test-helper";
/// The user as whom the tests run a second time.
const NOBODY: u32 = 65534;

/// A test: its name and what it does. It fails by panicking.
type Test = (&'static str, fn());

fn main() -> ExitCode {
    let mut arguments = std::env::args();
    let name = arguments.next().unwrap_or_default();
    let arguments: Vec<String> = arguments.collect();
    match name.as_str() {
        TASK => return roles::run(&arguments),
        HELPER => return helpers::run(&arguments),
        _ => {}
    }
    let as_root = support::is_root();
    let passed = run_all(&arguments, if as_root { "as root" } else { "as an unprivileged user" });
    let passed_again = !as_root || run_again_as_nobody(&arguments);
    if passed && passed_again { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run_all(arguments: &[String], who: &str) -> bool {
    let filter = arguments.iter().find(|argument| !argument.starts_with('-'));
    let groups = [
        ("forbidden", forbidden::TESTS),
        ("allowed", allowed::TESTS),
        ("lifecycle", lifecycle::TESTS),
        ("honesty", honesty::TESTS),
        ("onlookers", onlookers::TESTS),
        ("zygotes", zygotes::TESTS),
    ];
    let mut failures = 0;
    for (group, tests) in groups {
        for (name, test) in tests {
            let name = format!("{group}::{name}");
            if filter.is_some_and(|filter| !name.contains(filter.as_str())) {
                continue;
            }
            let start = Instant::now();
            let passed = std::panic::catch_unwind(test).is_ok();
            failures += usize::from(!passed);
            let verdict = if passed { "ok" } else { "FAILED" };
            println!("test {name} ({who}) ... {verdict} ({} ms)", start.elapsed().as_millis());
        }
    }
    println!("\n{who}: {failures} failed\n");
    failures == 0
}

fn run_again_as_nobody(arguments: &[String]) -> bool {
    let status = Command::new("/proc/self/exe").args(arguments).uid(NOBODY).gid(NOBODY).status();
    status.is_ok_and(|status| status.success())
}
