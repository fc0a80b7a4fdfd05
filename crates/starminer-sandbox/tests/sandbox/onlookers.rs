//! Other processes of the same user against a task and against a hardened supervisor.
//!
//! Root can always read both; to show what holds for everybody else, root's run of these tests makes the onlooker a
//! process of the task's own user.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use crate::support::{helper, is_root, sealed, status_of};
use crate::{NOBODY, Test};

pub const TESTS: &[Test] = &[
    ("cannot_trace_or_read_a_task", cannot_trace_or_read_a_task),
    ("cannot_trace_or_read_a_hardened_supervisor", cannot_trace_or_read_a_hardened_supervisor),
    ("hardening_refuses_a_tracer_and_foreign_code", hardening_refuses_a_tracer_and_foreign_code),
];

/// What an onlooker tries, in the order in which the helper reports it.
const ATTEMPTS: [&str; 9] = [
    "ptrace-attach",
    "ptrace-seize",
    "process-vm-readv",
    "open-mem",
    "open-environ",
    "open-maps",
    "list-fds",
    "pidfd-getfd",
    "enter-root",
];

/// Runs the helper as `user`.
fn as_user(user: Option<u32>, command: &mut Command) -> &mut Command {
    match user {
        Some(user) => command.uid(user).gid(user),
        None => command,
    }
}

/// Which of the attempts a process of `user` succeeds with against `pid`.
pub fn succeeds_with(user: Option<u32>, pid: u32) -> Vec<String> {
    let output = as_user(user, &mut helper(&["onlook", &pid.to_string()])).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let results: Vec<_> = text.lines().filter_map(|line| line.split_once(' ')).collect();
    assert_eq!(results.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ATTEMPTS, "{text}");
    results.iter().filter(|(_, result)| *result == "ok").map(|(name, _)| (*name).to_owned()).collect()
}

/// A helper that has said its first line.
fn started(command: &mut Command) -> (Child, String) {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (child, line.trim().to_owned())
}

/// That the attempts would succeed against an ordinary process, so that failing means something.
pub fn check_control(user: Option<u32>) {
    let (mut victim, _) = started(as_user(user, &mut helper(&["wait"])));
    let succeeded = succeeds_with(user, victim.id());
    // With Yama, tracing is refused to everybody but ancestors; reading what needs no tracing still shows the point.
    let yama = std::path::Path::new("/proc/sys/kernel/yama/ptrace_scope").exists();
    if yama {
        assert!(succeeded.contains(&"open-environ".to_owned()), "{succeeded:?}");
    } else {
        assert_eq!(succeeded, ATTEMPTS, "the onlooker is too weak to prove anything");
    }
    drop(victim.stdin.take());
    victim.wait().unwrap();
}

fn cannot_trace_or_read_a_task() {
    let (process, _channel, _) = sealed("idle", &[]);
    let uid = status_of(process.pid())["Uid"].split_whitespace().next().unwrap().parse().unwrap();
    let user = is_root().then_some(uid);
    check_control(user);
    assert_eq!(succeeds_with(user, process.pid()), [""; 0]);
}

fn cannot_trace_or_read_a_hardened_supervisor() {
    let user = is_root().then_some(NOBODY);
    check_control(user);
    let (mut supervisor, line) = started(as_user(user, &mut helper(&["harden"])));
    assert_eq!(line, "hardened");
    assert_eq!(succeeds_with(user, supervisor.id()), [""; 0]);
    drop(supervisor.stdin.take());
    supervisor.wait().unwrap();
}

fn hardening_refuses_a_tracer_and_foreign_code() {
    let first_line = |command: &mut Command| {
        let output = command.output().unwrap();
        String::from_utf8(output.stdout).unwrap().lines().next().unwrap_or_default().to_owned()
    };
    for variable in ["LD_PRELOAD", "LD_AUDIT"] {
        // The variable alone is refused, whether or not the library exists.
        let mut command = helper(&["harden"]);
        let line = first_line(command.env(variable, "libBrokenLocale.so.1").stdin(Stdio::null()));
        assert!(line.starts_with("sandbox.injected") && line.contains(variable), "{line}");
    }
    let line = first_line(helper(&["harden-traced"]).stdin(Stdio::null()));
    assert!(line.starts_with("sandbox.traced"), "{line}");
    assert!(line.contains(&format!("process {} ", std::process::id())), "{line}");
}
