//! Beginning and end of a task process, and what it leaves behind: nothing.

use std::io::{BufRead, BufReader};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use starminer_sandbox::{ExitStatus, Program, Stderr, Zygote};

use crate::support::{
    PATIENCE, answer, eventually, exists, has_children, helper, open_fds, outcome, runs, sealed, spawn,
};
use crate::{TASK, Test};

pub const TESTS: &[Test] = &[
    ("starts_with_nothing_but_its_channel", starts_with_nothing_but_its_channel),
    ("tells_how_it_ended_and_what_it_used", tells_how_it_ended_and_what_it_used),
    ("killing_ends_it", killing_ends_it),
    ("dropping_kills_and_reaps_it", dropping_kills_and_reaps_it),
    ("dies_with_its_supervisor", dies_with_its_supervisor),
    ("outlives_the_thread_that_started_it", outlives_the_thread_that_started_it),
    ("programs_that_go_wrong_are_explained_and_reaped", programs_that_go_wrong_are_explained_and_reaped),
    ("a_silent_program_is_ended", a_silent_program_is_ended),
    ("its_limits_can_be_lowered_while_it_runs", its_limits_can_be_lowered_while_it_runs),
    ("no_core_dump_appears", no_core_dump_appears),
    ("many_at_once", many_at_once),
    ("two_hundred_leave_nothing_behind", two_hundred_leave_nothing_behind),
];

/// A library that comes with the C library and that nothing here links to.
const FOREIGN_LIBRARY: &str = "libBrokenLocale.so.1";

fn starts_with_nothing_but_its_channel() {
    // A descriptor that would survive an exec, ignored and blocked signals, a poisoned environment. Signal 33 is one that
    // the C library keeps to itself, and ignores in what it spawns.
    // SAFETY: duplicates and owns a descriptor; changes signals of this single-threaded moment of the runner.
    let leaky = unsafe {
        libc::signal(libc::SIGUSR2, libc::SIG_IGN);
        let ignore = [libc::SIG_IGN, 0, 0, 0];
        assert_eq!(libc::syscall(libc::SYS_rt_sigaction, 33, ignore.as_ptr(), std::ptr::null_mut::<u8>(), 8), 0);
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGUSR1);
        libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
        let fd = libc::fcntl(1, libc::F_DUPFD, 50);
        OwnedFd::from_raw_fd(fd)
    };
    // SAFETY: no other thread of the runner reads the environment.
    unsafe { std::env::set_var("LD_PRELOAD", FOREIGN_LIBRARY) };
    let control = helper(&["maps"]).output().unwrap();
    let text = answer("beginnings", &[]);
    // SAFETY: as above.
    unsafe { std::env::remove_var("LD_PRELOAD") };
    drop(leaky);

    let loaded = String::from_utf8_lossy(&control.stdout).contains(FOREIGN_LIBRARY);
    assert!(loaded, "the dynamic loader ignores LD_PRELOAD here, so this test shows nothing");
    let mut lines = text.lines();
    let mut next = || lines.next().unwrap_or_default();
    assert_eq!(next(), "variables 0");
    assert_eq!(next(), "preloaded false");
    assert_eq!(next(), "session leader true");
    assert_eq!(next(), "SigBlk:\t0000000000000000");
    // SIGPIPE alone: Rust's own start-up ignores it.
    assert_eq!(next(), "SigIgn:\t0000000000001000");
    assert_eq!((next(), next(), next()), ("0 /dev/null", "1 /dev/null", "2 /dev/null"));
    assert!(next().starts_with("3 socket:["), "{text}");
    assert_eq!(next(), "", "more descriptors than announced: {text}");
}

fn tells_how_it_ended_and_what_it_used() {
    let (mut process, mut channel, _) = sealed("burn", &[]);
    channel.recv_timeout(PATIENCE).unwrap();
    let exit = process.wait().unwrap();
    assert_eq!(exit.status, ExitStatus::Code(0));
    let cpu = exit.cpu_user + exit.cpu_system;
    assert!(cpu > Duration::from_millis(20) && cpu < Duration::from_secs(20), "{exit:?}");
    let peak_mib = exit.peak_resident_bytes >> 20;
    assert!((64..400).contains(&peak_mib), "{exit:?}");
    assert_eq!(process.try_wait().unwrap(), Some(exit), "asking again gives the same answer");
    assert!(process.kill().is_ok(), "killing what has ended is fine");
}

fn killing_ends_it() {
    let (mut process, _channel, _) = sealed("idle", &[]);
    assert_eq!(process.try_wait().unwrap(), None);
    process.kill().unwrap();
    assert_eq!(process.wait().unwrap().status, ExitStatus::Signal(libc::SIGKILL));
    assert!(!exists(process.pid()));
}

fn dropping_kills_and_reaps_it() {
    let before = open_fds();
    let (process, channel, _) = sealed("idle", &[]);
    let pid = process.pid();
    assert!(exists(pid));
    drop(process);
    assert!(!exists(pid), "still there after its handle went");
    assert!(!has_children());
    drop(channel);
    assert_eq!(open_fds(), before);
}

fn dies_with_its_supervisor() {
    for end in ["killed", "exits"] {
        let mut supervisor = helper(&["supervise", end]).stdout(Stdio::piped()).stdin(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(supervisor.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let task: u32 = line.trim().parse().unwrap();
        assert!(runs(task));
        match end {
            "killed" => supervisor.kill().unwrap(),
            // The helper waits for the end of its input, then exits without dropping anything.
            _ => drop(supervisor.stdin.take()),
        }
        supervisor.wait().unwrap();
        assert!(eventually(|| !runs(task)), "the task outlived its supervisor ({end})");
    }
}

fn outlives_the_thread_that_started_it() {
    // The kernel would kill it with the thread if the thread itself had made it.
    let (process, mut channel, _) = std::thread::spawn(|| sealed("idle", &[])).join().unwrap();
    std::thread::sleep(Duration::from_millis(20));
    channel.send(b"ping", &[]).unwrap();
    assert_eq!(channel.recv_timeout(PATIENCE).unwrap().bytes, b"ping");
    drop(process);
}

fn programs_that_go_wrong_are_explained_and_reaped() {
    fn check(program: Program, arguments: &[&str], code: &str, says: &str) {
        let before = open_fds();
        let start = Instant::now();
        let error =
            Zygote::start(&program, arguments, Stderr::Null).and_then(|mut zygote| zygote.copy()).expect_err(says);
        let text = format!("{error} {:?}", std::error::Error::source(&error));
        assert_eq!(error.code(), code, "{text}");
        assert!(text.contains(says), "{text} does not say {says}");
        assert!(start.elapsed() < Duration::from_secs(5), "{text}");
        assert!(!has_children(), "left behind: {text}");
        assert_eq!(open_fds(), before, "{text}");
    }
    // Once, so that the starting thread's own descriptors do not count.
    drop(spawn("idle", &[]));
    let itself = || Program::Itself;
    check(itself(), &[TASK, "exit-first"], "sandbox.never-entered", "Code(17)");
    check(itself(), &[TASK, "close-first"], "sandbox.never-entered", "closed its channel");
    check(itself(), &[TASK, "thread-first"], "sandbox.not-sealed", "2 threads");
    check(itself(), &["with a NUL\0"], "sandbox.argument", "NUL");
    let at = |path: &str| Program::At(PathBuf::from(path));
    check(at("/nowhere/at/all"), &["x"], "sandbox.start", "execute the program");
    check(at("/etc/passwd"), &["x"], "sandbox.start", "Permission denied");
    check(at("/bin/true"), &["true"], "sandbox.never-entered", "Code(0)");
    // A program that speaks over the channel but is no task: the shell writes to descriptor 3.
    let shout = ["sh", "-c", "printf garbage-garbage >&3"];
    check(at("/bin/sh"), &shout, "sandbox.never-entered", "not a message");

    let output = helper(&["enter-alone"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "sandbox.not-a-task-process");
}

fn a_silent_program_is_ended() {
    let error = spawn("never-enter", &[]).expect_err("it never entered");
    assert!(error.to_string().contains("kept silent"), "{error}");
    assert!(!has_children());
}

fn its_limits_can_be_lowered_while_it_runs() {
    assert_eq!(answer("tighten", &["0"]), "raised false, allocated 256 MiB");
    // The allocator gives up, Rust aborts.
    assert!(!outcome("tighten", &["67108864"]).1.success());
}

/// The kernel's word on how a child ended, without reaping it.
fn dumped_core(pidfd: i32) -> bool {
    // SAFETY: all zero bytes are a valid siginfo_t, which is valid and writable for the call.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let flags = libc::WEXITED | libc::WNOWAIT;
        assert_eq!(libc::waitid(libc::P_PIDFD, pidfd.unsigned_abs(), &mut info, flags), 0);
        info.si_code == libc::CLD_DUMPED
    }
}

fn no_core_dump_appears() {
    let directory = tempfile::tempdir().unwrap();
    // A plain process that dies the same way, with dumps on: where even that leaves none, the task proves nothing new.
    let control = helper(&["dump-core"]).current_dir(directory.path()).status().unwrap();
    let dumps_here = std::os::unix::process::ExitStatusExt::core_dumped(&control);
    let (mut process, channel, posture) = sealed("abort", &[]);
    assert!(crate::support::in_force("core-dumps-off", &posture));
    assert!(!dumped_core(std::os::fd::AsFd::as_fd(&process).as_raw_fd()));
    assert!(!process.wait().unwrap().status.success());
    drop(channel);
    println!("  (a plain process dumps core here: {dumps_here})");
}

fn many_at_once() {
    let workers: Vec<_> = (0..8)
        .map(|_| {
            std::thread::spawn(|| {
                for _ in 0..5 {
                    let (message, status) = outcome("secrets", &[]);
                    assert!(message.is_some() && status.success());
                }
            })
        })
        .collect();
    for worker in workers {
        worker.join().unwrap();
    }
    assert!(!has_children());
}

fn two_hundred_leave_nothing_behind() {
    drop(sealed("idle", &[]));
    let before = open_fds();
    let mut latencies = Vec::new();
    for index in 0..200 {
        let start = Instant::now();
        let (mut process, mut channel, _) = sealed("idle", &[]);
        latencies.push(start.elapsed());
        // Every way of ending: told, killed, dropped.
        match index % 3 {
            0 => {
                channel.send(b"stop", &[]).unwrap();
                assert!(process.wait().unwrap().status.success());
            }
            1 => {
                process.kill().unwrap();
                process.wait().unwrap();
            }
            _ => drop(process),
        }
    }
    assert_eq!(open_fds(), before, "descriptors leak");
    assert!(!has_children(), "zombies");
    latencies.sort();
    let at = |percent: usize| latencies[latencies.len() * percent / 100];
    println!("  (spawn to sealed and ready: p50 {:?}, p99 {:?})", at(50), at(99));
}
