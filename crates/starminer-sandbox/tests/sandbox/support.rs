//! Starting task processes of this program and asking the kernel about them.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use starminer_sandbox::{
    Channel, ExitStatus, InForce, Message, Program, SpawnError, State, Stderr, TaskProcess, Zygote,
};

use crate::{HELPER, TASK};

/// Longest that any answer of a task may take; generous, because machines under test are busy.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn is_root() -> bool {
    // SAFETY: no preconditions.
    unsafe { libc::geteuid() == 0 }
}

/// Starts this program as a zygote of tasks in `role`, with `arguments` for their profile and their role.
pub fn zygote(role: &str, arguments: &[&str]) -> Result<Zygote, SpawnError> {
    let all = [TASK, role].into_iter().chain(arguments.iter().copied());
    let stderr = if std::env::var_os("TASK_STDERR").is_some() { Stderr::Inherit } else { Stderr::Null };
    Zygote::start(&Program::Itself, all, stderr)
}

/// One task in `role`; its zygote goes.
pub fn spawn(role: &str, arguments: &[&str]) -> Result<(TaskProcess, Channel), SpawnError> {
    zygote(role, arguments)?.copy()
}

/// A sealed task and what it says is in force.
pub fn sealed(role: &str, arguments: &[&str]) -> (TaskProcess, Channel, InForce) {
    ready(spawn(role, arguments).unwrap())
}

/// A task that has sealed itself, and what it says is in force.
pub fn ready((process, mut channel): (TaskProcess, Channel)) -> (TaskProcess, Channel, InForce) {
    let posture = channel.recv_timeout(PATIENCE).unwrap().bytes;
    match InForce::decode(&posture) {
        Ok(in_force) => (process, channel, in_force),
        Err(_) => panic!("not sealed: {}", String::from_utf8_lossy(&posture)),
    }
}

/// What a task in `role` says after it was sealed, and how it ended.
pub fn outcome(role: &str, arguments: &[&str]) -> (Option<Message>, ExitStatus) {
    let (mut process, mut channel, _) = sealed(role, arguments);
    let message = channel.recv_timeout(PATIENCE).ok();
    (message, process.wait().unwrap().status)
}

/// The answer of a task in `role` that must end well.
pub fn answer(role: &str, arguments: &[&str]) -> String {
    let (message, status) = outcome(role, arguments);
    let text = message.map(|message| String::from_utf8(message.bytes).unwrap());
    assert!(status.success(), "{role} ended with {status:?} after saying {text:?}");
    text.unwrap()
}

/// A bystander of this program.
pub fn helper(arguments: &[&str]) -> Command {
    let mut command = Command::new("/proc/self/exe");
    std::os::unix::process::CommandExt::arg0(&mut command, HELPER);
    command.args(arguments);
    command
}

/// The lines of a process's `/proc/PID/status`, as this process may read them.
pub fn status_of(pid: u32) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
        .collect()
}

pub fn in_force(name: &str, posture: &InForce) -> bool {
    state(name, posture) == &State::InForce
}

pub fn state<'a>(name: &str, posture: &'a InForce) -> &'a State {
    posture.iter().find(|(given, _)| *given == name).unwrap().1
}

pub fn open_fds() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Whether this process has any child, running or zombie.
pub fn has_children() -> bool {
    // SAFETY: all zero bytes are a valid siginfo_t.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: `info` is valid and writable for the call.
    unsafe { libc::waitid(libc::P_ALL, 0, &mut info, flags) == 0 }
}

/// Whether a process with this id exists, zombies included.
pub fn exists(pid: u32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

/// Whether a process with this id runs. One that has ended but was not reaped by its new parent yet does not.
pub fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

/// Waits until `holds`; false if it never does.
pub fn eventually(mut holds: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if holds() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    false
}
