//! Bystanders: supervisors that die, hosts that refuse, onlookers that pry.

use std::io::{Read, Write};
use std::process::ExitCode;
use std::ptr;

use seccompiler::{SeccompAction, SeccompFilter, TargetArch};
use starminer_sandbox::{Profile, Sealing, be_zygote, harden_supervisor};

use crate::support::{PATIENCE, sealed, spawn, zygote};

pub fn run(arguments: &[String]) -> ExitCode {
    let (name, rest) = arguments.split_first().expect("a helper");
    let say = |text: &str| {
        println!("{text}");
        std::io::stdout().flush().unwrap();
    };
    match name.as_str() {
        "maps" => say(&std::fs::read_to_string("/proc/self/maps").unwrap()),
        "wait" => {
            say("waiting");
            until_told();
        }
        "harden" | "harden-traced" => {
            if name == "harden-traced" {
                // SAFETY: makes the parent the tracer; takes no memory.
                unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, ptr::null_mut::<u8>(), ptr::null_mut::<u8>()) };
            }
            match harden_supervisor() {
                Ok(_) => {
                    say("hardened");
                    until_told();
                }
                Err(error) => say(&format!("{}: {error}", error.code())),
            }
        }
        "enter-alone" => match be_zygote(&Sealing::new(Profile::default()).unwrap()) {
            Ok(_) => print!("sealed"),
            Err(error) => print!("{}", error.code()),
        },
        "supervise" => {
            let (process, channel, _) = sealed("idle", &[]);
            say(&process.pid().to_string());
            until_told();
            std::mem::forget((process, channel));
        }
        "supervise-zygote" => {
            let mut zygote = zygote("idle", &[]).unwrap();
            let (process, channel) = zygote.copy().unwrap();
            say(&format!("{} {}", zygote.pid(), process.pid()));
            until_told();
            std::mem::forget((zygote, process, channel));
        }
        "lock-all" => {
            print!("{}", crate::allowed::engines_with_all_memory_locked().unwrap_or("refused".into()));
        }
        "dump-core" => dump_core(),
        "host" => return host(rest),
        "onlook" => onlook(rest[0].parse().unwrap()),
        unknown => panic!("no such helper: {unknown}"),
    }
    ExitCode::SUCCESS
}

/// Waits for the end of the input.
fn until_told() {
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

fn dump_core() {
    // SAFETY: takes a valid limit; then ends this process.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        libc::getrlimit(libc::RLIMIT_CORE, &mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_CORE, &limit);
        libc::abort();
    }
}

/// Turns this process into a poorer host, starts a task on it and prints the task's posture.
fn host(lacks: &[String]) -> ExitCode {
    for lack in lacks {
        match lack.as_str() {
            "own-namespace" => enter_user_namespace(),
            "no-user-namespaces" => {
                enter_user_namespace();
                std::fs::write("/proc/sys/user/max_user_namespaces", "0").unwrap();
            }
            "no-capabilities" => drop_capabilities(),
            "no-locked-memory" => {
                let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
                // SAFETY: takes a valid limit.
                assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &none) }, 0);
            }
            "refuse-unshare" => refuse(&[libc::SYS_unshare], libc::EPERM),
            "refuse-landlock" => {
                let calls = [libc::SYS_landlock_create_ruleset, libc::SYS_landlock_restrict_self];
                refuse(&calls, libc::ENOSYS);
            }
            "harden" => {
                harden_supervisor().unwrap();
            }
            unknown => panic!("no such lack: {unknown}"),
        }
    }
    let (process, mut channel) = match spawn("idle", &[]) {
        Ok(spawned) => spawned,
        Err(error) => {
            println!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let posture = channel.recv_timeout(PATIENCE).unwrap().bytes;
    std::io::stdout().write_all(&posture).unwrap();
    drop(process);
    ExitCode::SUCCESS
}

/// Becomes root of a user namespace with one id.
fn enter_user_namespace() {
    // SAFETY: no preconditions; this process has one thread.
    let (user, group) = unsafe { (libc::geteuid(), libc::getegid()) };
    // SAFETY: as above.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWUSER) }, 0, "this test needs user namespaces");
    std::fs::write("/proc/self/setgroups", "deny").unwrap();
    std::fs::write("/proc/self/uid_map", format!("0 {user} 1")).unwrap();
    std::fs::write("/proc/self/gid_map", format!("0 {group} 1")).unwrap();
}

/// Gives up all capabilities of the namespace, for children too.
fn drop_capabilities() {
    // SAFETY: prctl with numbers; the structures are the kernel's version 3 of capset.
    unsafe {
        for capability in 0..64 {
            libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0);
        }
        let header: [u32; 2] = [0x2008_0522, 0];
        let none = [0u32; 6];
        assert_eq!(libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()), 0);
    }
}

/// Makes the kernel answer `errno` to `calls`, for this process and its children.
fn refuse(calls: &[i64], errno: i32) {
    let rules = calls.iter().map(|call| (*call, Vec::new())).collect();
    let filter =
        SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno.unsigned_abs()), TargetArch::x86_64)
            .unwrap();
    let program: seccompiler::BpfProgram = filter.try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();
}

/// Tries everything that a process of the same user might, and prints what came of each.
fn onlook(pid: libc::pid_t) {
    let failed = |what: i64| if what == -1 { Err(std::io::Error::last_os_error()) } else { Ok(()) };
    let report = |name: &str, result: std::io::Result<()>| match result {
        Ok(()) => println!("{name} ok"),
        Err(error) => println!("{name} {error}"),
    };
    let null = ptr::null_mut::<u8>();
    // SAFETY: attaching and detaching take no memory of this process.
    unsafe {
        let attached = failed(libc::ptrace(libc::PTRACE_ATTACH, pid, null, null));
        if attached.is_ok() {
            libc::waitpid(pid, ptr::null_mut(), libc::__WALL);
            libc::ptrace(libc::PTRACE_DETACH, pid, null, null);
        }
        report("ptrace-attach", attached);
        let seized = failed(libc::ptrace(libc::PTRACE_SEIZE, pid, null, null));
        if seized.is_ok() {
            libc::ptrace(libc::PTRACE_INTERRUPT, pid, null, null);
            libc::waitpid(pid, ptr::null_mut(), libc::__WALL);
            libc::ptrace(libc::PTRACE_DETACH, pid, null, null);
        }
        report("ptrace-seize", seized);
    }
    let mut byte = 0u8;
    let local = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    // Where this program is mapped in an ordinary process of its own kind is found in its maps; a refusal comes first.
    let remote = std::fs::read_to_string(format!("/proc/{pid}/maps"))
        .ok()
        .and_then(|maps| usize::from_str_radix(maps.split('-').next()?, 16).ok())
        .unwrap_or(&raw const byte as usize);
    let remote = libc::iovec { iov_base: remote as *mut libc::c_void, iov_len: 1 };
    // SAFETY: the local part is one writable byte; the remote part is the kernel's to judge.
    let read = unsafe { libc::process_vm_readv(pid, &local, 1, &remote, 1, 0) };
    report("process-vm-readv", failed(read as i64));
    let open = |file: &str| std::fs::File::open(format!("/proc/{pid}/{file}"));
    report("open-mem", open("mem").map(drop));
    report("open-environ", open("environ").map(drop));
    report("open-maps", open("maps").map(drop));
    report("list-fds", std::fs::read_dir(format!("/proc/{pid}/fd")).map(drop));
    // SAFETY: numbers only; the descriptors end with this process.
    let stolen = unsafe {
        let pidfd = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        libc::syscall(libc::SYS_pidfd_getfd, pidfd, 0, 0)
    };
    report("pidfd-getfd", failed(stolen));
    report("enter-root", std::fs::read_dir(format!("/proc/{pid}/root/")).map(drop));
}
