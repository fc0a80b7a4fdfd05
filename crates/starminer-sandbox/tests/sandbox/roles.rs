//! What this program does as a task process.
//!
//! First argument: the role. Arguments `skip=NAME`, `require=NAME`, `threads=N`, `data=BYTES`, `file=BYTES` shape the
//! profile, the rest belongs to the role. Once sealed, a task first sends what is in force.

use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};

use starminer_sandbox::{
    CHANNEL_FD, Channel, EnterError, MemoryLocking, Profile, Protection, Sealing, Threads, be_zygote,
};

use crate::{allowed, forbidden};

/// How often the role `count` was played in this memory.
static COUNT: AtomicU32 = AtomicU32::new(0);

pub fn run(arguments: &[String]) -> ExitCode {
    let (role, arguments) = arguments.split_first().expect("a role");
    // Roles of programs that go wrong before they are sealed.
    match role.as_str() {
        "never-enter" => loop {
            std::thread::sleep(std::time::Duration::from_secs(1));
        },
        "exit-first" => return ExitCode::from(17),
        "close-first" => {
            // SAFETY: nothing in this process owns the descriptor.
            unsafe { libc::close(CHANNEL_FD) };
            std::thread::sleep(std::time::Duration::from_secs(60));
        }
        "thread-first" => {
            std::thread::spawn(|| std::thread::sleep(std::time::Duration::from_secs(60)));
        }
        _ => {}
    }
    let sealing = Sealing::new(profile(arguments)).expect("filters");
    let born = match be_zygote(&sealing) {
        Ok(born) => born,
        Err(error) => return report(&error),
    };
    // Seen before sealing, while there is something to see.
    let beginnings = (role == "beginnings").then(beginnings);

    let in_force = match sealing.enter(born) {
        Ok(in_force) => in_force,
        Err(error) => return report(&error),
    };
    let mut channel = Channel::inherited().expect("started as a task process");
    channel.send(&in_force.encode(), &[]).expect("the test listens");

    if role == "async-idle" {
        allowed::async_idle(channel);
        return ExitCode::SUCCESS;
    }
    let answer = match role.as_str() {
        "idle" => idle(&mut channel),
        "beginnings" => beginnings.unwrap_or_default(),
        "count" => (COUNT.fetch_add(1, Ordering::SeqCst) + 1).to_string(),
        "forbidden" => forbidden::act(arguments),
        role => allowed::act(role, arguments, &mut channel),
    };
    channel.send(answer.as_bytes(), &[]).expect("the test listens");
    ExitCode::SUCCESS
}

/// After the hand-over the supervisor hears of a failure the same way as of everything else.
fn report(error: &EnterError) -> ExitCode {
    if let Ok(mut channel) = Channel::inherited() {
        let _ = channel.send(format!("{}: {error}", error.code()).as_bytes(), &[]);
    }
    ExitCode::from(99)
}

fn profile(arguments: &[String]) -> Profile {
    let mut profile = Profile::default();
    for argument in arguments {
        let Some((key, value)) = argument.split_once('=') else { continue };
        let number = || value.parse().expect("a number");
        let protection = || Protection::from_name(value).expect("a protection");
        match key {
            "skip" => profile = profile.skip(protection()),
            "require" => profile = profile.require(protection()),
            "threads" => profile.threads = Threads::UpTo(number() as u32),
            "data" => profile.data_bytes = number(),
            "file" => profile.file_bytes = number(),
            "lock" => profile.memory_locking = MemoryLocking::Secrets,
            _ => {}
        }
    }
    profile
}

/// Echoes until told to stop.
fn idle(channel: &mut Channel) -> String {
    while let Ok(message) = channel.recv() {
        if message.bytes == b"stop" {
            break;
        }
        let fds: Vec<_> = message.fds.iter().map(AsFd::as_fd).collect();
        channel.send(&message.bytes, &fds).expect("the test listens");
    }
    "stopped".into()
}

/// What a task process starts with.
fn beginnings() -> String {
    let mut fds: Vec<String> = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let target = std::fs::read_link(entry.path()).unwrap_or_default();
            format!("{} {}", entry.file_name().display(), target.display())
        })
        // The descriptor of this very listing.
        .filter(|line| !line.contains("/proc/"))
        .collect();
    fds.sort();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let signals: Vec<_> =
        status.lines().filter(|line| line.starts_with("SigBlk") || line.starts_with("SigIgn")).collect();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let preloaded = maps.contains("libBrokenLocale");
    // SAFETY: no preconditions.
    let leader = unsafe { libc::getsid(0) == libc::getpid() };
    format!(
        "variables {}\npreloaded {preloaded}\nsession leader {leader}\n{}\n{}",
        std::env::vars_os().count(),
        signals.join("\n"),
        fds.join("\n")
    )
}
