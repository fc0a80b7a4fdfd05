//! One program that copies itself, task after task: the copies are as separate as if each had been started.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use starminer_sandbox::ExitStatus;

use crate::Test;
use crate::onlookers::{check_control, succeeds_with};
use crate::support::{
    PATIENCE, eventually, exists, has_children, helper, is_root, open_fds, ready, runs, status_of, zygote,
};

pub const TESTS: &[Test] = &[
    ("copies_end_alone", copies_end_alone),
    ("copies_see_no_network_of_the_host", copies_see_no_network_of_the_host),
    ("copies_outlive_it", copies_outlive_it),
    ("every_copy_begins_with_nothing_but_its_channel", every_copy_begins_with_nothing_but_its_channel),
    ("what_a_copy_changes_no_other_sees", what_a_copy_changes_no_other_sees),
    ("killed_it_is_missed_and_leaves_nothing", killed_it_is_missed_and_leaves_nothing),
    ("dies_with_its_supervisor", dies_with_its_supervisor),
    ("cannot_be_traced_or_read", cannot_be_traced_or_read),
];

fn copies_end_alone() {
    let before = open_fds();
    let mut zygote = zygote("idle", &[]).unwrap();
    let mut tasks: Vec<_> = (0..5).map(|_| ready(zygote.copy().unwrap())).collect();
    let mut pids: Vec<u32> = tasks.iter().map(|(process, ..)| process.pid()).collect();
    pids.push(zygote.pid());
    pids.sort_unstable();
    pids.dedup();
    assert_eq!(pids.len(), 6);
    if is_root() {
        let mut users: Vec<String> =
            tasks.iter().map(|(process, ..)| status_of(process.pid())["Uid"].clone()).collect();
        users.sort();
        users.dedup();
        assert_eq!(users.len(), 5, "tasks share a user: {users:?}");
    }
    let (mut first, channel, _) = tasks.remove(0);
    first.kill().unwrap();
    assert_eq!(first.wait().unwrap().status, ExitStatus::Signal(libc::SIGKILL));
    drop((first, channel));
    for (_, channel, _) in &mut tasks {
        channel.send(b"ping", &[]).unwrap();
        assert_eq!(channel.recv_timeout(PATIENCE).unwrap().bytes, b"ping");
    }
    drop(tasks);
    // It goes on after all that.
    drop(ready(zygote.copy().unwrap()));
    drop(zygote);
    assert!(!has_children());
    assert_eq!(open_fds(), before);
}

/// Of all that root alone could arrange for them together, and of all else.
fn copies_see_no_network_of_the_host() {
    let link = |pid: &str, name: &str| std::fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
    let mut zygote = zygote("idle", &[]).unwrap();
    let tasks: Vec<_> = (0..2).map(|_| ready(zygote.copy().unwrap())).collect();
    if !is_root() {
        // Their own user may not look: they are not dumpable.
        return;
    }
    for name in ["net", "ipc", "uts", "user", "mnt", "pid"] {
        let [first, second] = [&tasks[0], &tasks[1]].map(|(process, ..)| link(&process.pid().to_string(), name));
        let (own, of_zygote) = (link("self", name), link(&zygote.pid().to_string(), name));
        assert!(first != own && second != own, "{name} is the host's");
        let shared = ["net", "ipc", "uts"].contains(&name);
        assert_eq!((first == second, first == of_zygote), (shared, shared), "{name}");
    }
}

fn copies_outlive_it() {
    let mut zygote = zygote("idle", &[]).unwrap();
    let (mut process, mut channel, _) = ready(zygote.copy().unwrap());
    let pid = zygote.pid();
    drop(zygote);
    assert!(!exists(pid), "still there after its handle went");
    channel.send(b"ping", &[]).unwrap();
    assert_eq!(channel.recv_timeout(PATIENCE).unwrap().bytes, b"ping");
    channel.send(b"stop", &[]).unwrap();
    assert!(process.wait().unwrap().status.success());
}

fn every_copy_begins_with_nothing_but_its_channel() {
    let mut zygote = zygote("beginnings", &[]).unwrap();
    // One still lives, so that what the zygote might have kept of it would be seen.
    let mut texts = Vec::new();
    let mut alive = Vec::new();
    for _ in 0..3 {
        let (process, mut channel, _) = ready(zygote.copy().unwrap());
        texts.push(String::from_utf8(channel.recv_timeout(PATIENCE).unwrap().bytes).unwrap());
        alive.push((process, channel));
    }
    for text in texts {
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.contains(&"session leader true"), "{text}");
        assert_eq!(lines[lines.len() - 4..lines.len() - 1], ["0 /dev/null", "1 /dev/null", "2 /dev/null"], "{text}");
        assert!(lines[lines.len() - 1].starts_with("3 socket:["), "{text}");
    }
}

fn what_a_copy_changes_no_other_sees() {
    let mut zygote = zygote("count", &[]).unwrap();
    for _ in 0..3 {
        let (process, mut channel, _) = ready(zygote.copy().unwrap());
        assert_eq!(channel.recv_timeout(PATIENCE).unwrap().bytes, b"1");
        drop(process);
    }
}

fn killed_it_is_missed_and_leaves_nothing() {
    let before = open_fds();
    let mut zygote = zygote("idle", &[]).unwrap();
    let survivor = ready(zygote.copy().unwrap());
    // SAFETY: touches no memory; the process is a child that is not reaped, so the number is its own.
    unsafe { libc::kill(zygote.pid() as i32, libc::SIGKILL) };
    let error = zygote.copy().expect_err("nobody is there to be copied");
    assert_eq!(error.code(), "sandbox.never-entered");
    assert!(error.to_string().contains("Signal(9)"), "{error}");
    drop(zygote);
    assert!(runs(survivor.0.pid()));
    drop(survivor);
    assert!(!has_children());
    assert_eq!(open_fds(), before);
}

fn dies_with_its_supervisor() {
    let mut supervisor = helper(&["supervise-zygote"]).stdout(Stdio::piped()).stdin(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(supervisor.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let pids: Vec<u32> = line.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    assert!(pids.len() == 2 && pids.iter().all(|pid| runs(*pid)), "{line}");
    supervisor.kill().unwrap();
    supervisor.wait().unwrap();
    assert!(eventually(|| !pids.iter().any(|pid| runs(*pid))), "it or its copy outlived the supervisor");
}

fn cannot_be_traced_or_read() {
    if is_root() {
        // Its user is root then, whom nothing stops. The second run shows what holds for everybody else.
        return;
    }
    check_control(None);
    let mut zygote = zygote("idle", &[]).unwrap();
    // Before the first copy it may not have come as far as that.
    drop(zygote.copy().unwrap());
    assert_eq!(succeeds_with(None, zygote.pid()), [""; 0]);
}
