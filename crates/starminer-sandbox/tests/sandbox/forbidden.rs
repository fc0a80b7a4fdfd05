//! What a sealed task must not get away with.

use std::ffi::CString;
use std::ptr;

use starminer_sandbox::ExitStatus;

use crate::Test;
use crate::support::{outcome, status_of};

pub const TESTS: &[Test] = &[
    ("every_forbidden_act_fails_or_kills", every_forbidden_act_fails_or_kills),
    ("with_threads_allowed_processes_still_are_not", with_threads_allowed_processes_still_are_not),
    ("memory_and_file_sizes_are_bounded", memory_and_file_sizes_are_bounded),
];

/// How the kernel must stop an act.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stop {
    /// The process dies of `SIGSYS`.
    Kill,
    /// The call fails with this error.
    Errno(i32),
}

use Stop::{Errno, Kill};

/// Every act by its name, with how it is stopped.
const ACTS: &[(&str, Stop)] = &[
    ("open-passwd", Errno(libc::ENOENT)),
    ("open-root", Errno(libc::ENOENT)),
    ("open-environ-of-init", Errno(libc::ENOENT)),
    ("open-own-memory", Errno(libc::ENOENT)),
    ("openat2", Errno(libc::ENOENT)),
    ("create-file", Errno(libc::ENOENT)),
    ("stat", Errno(libc::ENOENT)),
    ("statx", Errno(libc::ENOENT)),
    ("access", Errno(libc::ENOENT)),
    ("readlink", Errno(libc::ENOENT)),
    ("openat-relative", Errno(libc::ENOENT)),
    ("creat", Kill),
    ("mkdir", Kill),
    ("unlink", Kill),
    ("rename", Kill),
    ("symlink", Kill),
    ("chmod", Kill),
    ("chdir", Kill),
    ("getdents", Kill),
    ("open-by-handle", Kill),
    ("inotify", Kill),
    ("socket-inet", Kill),
    ("socket-inet6", Kill),
    ("socket-unix", Kill),
    ("socket-netlink", Kill),
    ("socket-packet", Kill),
    ("socketpair-inet", Kill),
    ("connect", Kill),
    ("bind", Kill),
    ("listen", Kill),
    ("accept", Kill),
    ("sendmsg-elsewhere", Kill),
    ("recvmsg-elsewhere", Kill),
    ("execve", Kill),
    ("execveat", Kill),
    ("fork", Kill),
    ("vfork", Kill),
    ("clone-process", Kill),
    ("clone-thread", Kill),
    ("clone3", Kill),
    ("ptrace-attach-supervisor", Kill),
    ("ptrace-traceme", Kill),
    ("process-vm-readv", Kill),
    ("process-vm-writev", Kill),
    ("pidfd-open-supervisor", Kill),
    ("pidfd-getfd", Kill),
    ("kill-supervisor", Kill),
    ("kill-everybody", Kill),
    ("tkill", Kill),
    ("tgkill-supervisor", Kill),
    ("sigqueue-supervisor", Kill),
    ("kcmp", Kill),
    ("mount", Kill),
    ("umount", Kill),
    ("fsopen", Kill),
    ("open-tree", Kill),
    ("pivot-root", Kill),
    ("chroot", Kill),
    ("unshare-user", Kill),
    ("setns", Kill),
    ("setuid-root", Kill),
    ("setgid-root", Kill),
    ("capset", Kill),
    ("personality", Kill),
    ("prctl-dumpable", Kill),
    ("prctl-ptracer", Kill),
    ("prctl-pdeathsig", Kill),
    ("prctl-seccomp", Kill),
    ("seccomp", Kill),
    ("landlock", Kill),
    ("raise-limit", Kill),
    ("set-limit-by-prlimit", Kill),
    ("prlimit-of-supervisor", Kill),
    ("keyctl", Kill),
    ("add-key", Kill),
    ("request-key", Kill),
    ("bpf", Kill),
    ("perf-event", Kill),
    ("io-uring", Kill),
    ("userfaultfd", Kill),
    ("shmget", Kill),
    ("msgget", Kill),
    ("mq-open", Kill),
    ("ioctl-tiocsti", Kill),
    ("ioctl-ifconf", Kill),
    ("fcntl-setown", Kill),
    ("fcntl-lock", Kill),
    ("mmap-executable", Kill),
    ("mprotect-write-and-execute", Kill),
    ("pkey-mprotect", Kill),
    ("memfd-secret", Kill),
    ("iopl", Kill),
    ("syslog", Kill),
    ("reboot", Kill),
    ("init-module", Kill),
    ("uname", Kill),
    ("getppid", Kill),
    ("x32-getpid", Kill),
    ("i386-getpid", Kill),
    ("sendfile", Kill),
    ("splice", Kill),
    ("timer-create", Kill),
];

fn every_forbidden_act_fails_or_kills() {
    let marker = std::env::temp_dir().join(format!("starminer-escaped-{}", std::process::id()));
    let arguments = [std::process::id().to_string(), marker.display().to_string()];
    for (act, stop) in ACTS {
        check(act, &[&arguments[0], &arguments[1]], *stop);
    }
    assert!(!marker.exists(), "a file was written on the host");
    assert_eq!(status_of(std::process::id())["TracerPid"], "0");
}

fn with_threads_allowed_processes_still_are_not() {
    // As an older kernel would answer, so that the C library falls back to a call whose flags the filter sees.
    check("clone3", &["threads=2"], Errno(libc::ENOSYS));
    check("fork", &["threads=2"], Kill);
    check("vfork", &["threads=2"], Kill);
    check("clone-process", &["threads=2"], Kill);
    check("clone-with-namespace", &["threads=2"], Kill);
    check("execve", &["threads=2"], Kill);
}

fn check(act: &str, arguments: &[&str], stop: Stop) {
    let arguments: Vec<_> = [act].into_iter().chain(arguments.iter().copied()).collect();
    let (message, status) = outcome("forbidden", &arguments);
    let said = message.map(|message| String::from_utf8(message.bytes).unwrap());
    match stop {
        Kill => assert_eq!((said, status), (None, ExitStatus::Signal(libc::SIGSYS)), "{act} must kill the task"),
        Errno(errno) => {
            assert_eq!((said, status), (Some(format!("errno {errno}")), ExitStatus::Code(0)), "{act} must be refused")
        }
    }
}

fn memory_and_file_sizes_are_bounded() {
    let (_, status) = outcome("forbidden", &["allocate", "data=67108864"]);
    // The allocator gives up; Rust aborts.
    assert!(matches!(status, ExitStatus::Signal(libc::SIGABRT | libc::SIGSEGV)), "{status:?}");
    // Process 1 of a PID namespace does not die of the signal that comes with the error.
    let (message, status) = outcome("forbidden", &["extend-file", "file=1048576"]);
    match message {
        Some(message) => {
            let said = String::from_utf8(message.bytes).unwrap();
            assert!(said.starts_with("-1 File too large"), "{said}");
        }
        None => assert_eq!(status, ExitStatus::Signal(libc::SIGXFSZ)),
    }
}

/// Does the act named by the first argument, in a sealed task. Says how it failed, or that it did not.
pub fn act(arguments: &[String]) -> String {
    let (name, rest) = arguments.split_first().expect("an act");
    let supervisor: libc::pid_t = rest.first().and_then(|pid| pid.parse().ok()).unwrap_or(1);
    let marker = rest.get(1).map(String::as_str).unwrap_or("/tmp/starminer-escaped");
    let marker = CString::new(marker).unwrap();
    match name.as_str() {
        "allocate" => {
            let mut kept = Vec::new();
            for _ in 0..1024 {
                kept.push(vec![1u8; 1 << 20]);
            }
            return format!("allocated {} MiB", kept.len());
        }
        "extend-file" => {
            // SAFETY: the name is NUL-terminated; ftruncate touches no memory.
            let extended = unsafe {
                let fd = libc::memfd_create(c"test".as_ptr(), libc::MFD_CLOEXEC);
                libc::ftruncate(fd, 1 << 30)
            };
            let error = std::io::Error::last_os_error();
            return format!("{extended} {error}");
        }
        "i386-getpid" => return i386_getpid(),
        _ => {}
    }
    // SAFETY: the call either fails or kills this process, which has nothing to lose; pointers are valid where the
    // kernel would look at them.
    let returned = unsafe { attempt(name, supervisor, &marker) };
    if returned == -1 {
        return format!("errno {}", std::io::Error::last_os_error().raw_os_error().unwrap_or(0));
    }
    format!("{name} succeeded with {returned}")
}

/// One raw system call by its name.
unsafe fn attempt(name: &str, supervisor: libc::pid_t, marker: &CString) -> i64 {
    let null = ptr::null_mut::<libc::c_void>();
    let here = libc::AT_FDCWD;
    let marker = marker.as_ptr();
    let mut buffer = [0u64; 64];
    let buffer = buffer.as_mut_ptr();
    let how: [u64; 3] = [0; 3];
    let text = c"x".as_ptr();
    let passwd = c"/etc/passwd".as_ptr();
    macro_rules! call {
        ($number:ident $(, $argument:expr)*) => {
            // SAFETY: by the contract of this function.
            unsafe { libc::syscall(libc::$number $(, $argument)*) }
        };
    }
    match name {
        "open-passwd" => call!(SYS_open, passwd, libc::O_RDONLY),
        "open-root" => call!(SYS_openat, here, c"/".as_ptr(), libc::O_RDONLY | libc::O_DIRECTORY),
        "open-environ-of-init" => call!(SYS_openat, here, c"/proc/1/environ".as_ptr(), libc::O_RDONLY),
        "open-own-memory" => call!(SYS_openat, here, c"/proc/self/mem".as_ptr(), libc::O_RDWR),
        "openat2" => call!(SYS_openat2, here, passwd, how.as_ptr(), size_of_val(&how)),
        "create-file" => call!(SYS_openat, here, marker, libc::O_CREAT | libc::O_WRONLY, 0o600),
        "stat" => call!(SYS_newfstatat, here, passwd, buffer, 0),
        "statx" => call!(SYS_statx, here, passwd, 0, libc::STATX_ALL, buffer),
        "access" => call!(SYS_access, passwd, libc::R_OK),
        "readlink" => call!(SYS_readlink, c"/proc/self/exe".as_ptr(), buffer, 64),
        "openat-relative" => call!(SYS_openat, 3, c"..".as_ptr(), libc::O_RDONLY),
        "creat" => call!(SYS_creat, marker, 0o600),
        "mkdir" => call!(SYS_mkdir, marker, 0o700),
        "unlink" => call!(SYS_unlink, marker),
        "rename" => call!(SYS_rename, passwd, marker),
        "symlink" => call!(SYS_symlink, passwd, marker),
        "chmod" => call!(SYS_chmod, passwd, 0o777),
        "chdir" => call!(SYS_chdir, c"/".as_ptr()),
        "getdents" => call!(SYS_getdents64, 3, buffer, 64),
        "open-by-handle" => call!(SYS_open_by_handle_at, 3, buffer, 0),
        "inotify" => call!(SYS_inotify_init1, 0),
        "socket-inet" => call!(SYS_socket, libc::AF_INET, libc::SOCK_STREAM, 0),
        "socket-inet6" => call!(SYS_socket, libc::AF_INET6, libc::SOCK_DGRAM, 0),
        "socket-unix" => call!(SYS_socket, libc::AF_UNIX, libc::SOCK_STREAM, 0),
        "socket-netlink" => call!(SYS_socket, libc::AF_NETLINK, libc::SOCK_RAW, 0),
        "socket-packet" => call!(SYS_socket, libc::AF_PACKET, libc::SOCK_RAW, 0),
        "socketpair-inet" => call!(SYS_socketpair, libc::AF_INET, libc::SOCK_STREAM, 0, buffer),
        "connect" => call!(SYS_connect, 3, buffer, 16),
        "bind" => call!(SYS_bind, 3, buffer, 16),
        "listen" => call!(SYS_listen, 3, 1),
        "accept" => call!(SYS_accept4, 3, null, null, 0),
        "sendmsg-elsewhere" => call!(SYS_sendmsg, 4, buffer, 0),
        "recvmsg-elsewhere" => call!(SYS_recvmsg, 4, buffer, 0),
        "execve" => call!(SYS_execve, c"/bin/true".as_ptr(), null, null),
        "execveat" => call!(SYS_execveat, 3, c"".as_ptr(), null, null, libc::AT_EMPTY_PATH),
        "fork" => call!(SYS_fork),
        "vfork" => call!(SYS_vfork),
        "clone-process" => call!(SYS_clone, libc::SIGCHLD, null, null, null, null),
        "clone-with-namespace" => {
            let thread = libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_FILES | libc::CLONE_SIGHAND | libc::CLONE_THREAD;
            call!(SYS_clone, thread | libc::CLONE_NEWNET, null, null, null, null)
        }
        "clone-thread" => {
            let _ = std::thread::Builder::new().spawn(|| ());
            0
        }
        "clone3" => call!(SYS_clone3, buffer, 64),
        "ptrace-attach-supervisor" => call!(SYS_ptrace, libc::PTRACE_ATTACH, supervisor, null, null),
        "ptrace-traceme" => call!(SYS_ptrace, libc::PTRACE_TRACEME, 0, null, null),
        "process-vm-readv" => call!(SYS_process_vm_readv, supervisor, buffer, 1, buffer, 1, 0),
        "process-vm-writev" => call!(SYS_process_vm_writev, supervisor, buffer, 1, buffer, 1, 0),
        "pidfd-open-supervisor" => call!(SYS_pidfd_open, supervisor, 0),
        "pidfd-getfd" => call!(SYS_pidfd_getfd, 3, 0, 0),
        "kill-supervisor" => call!(SYS_kill, supervisor, 0),
        "kill-everybody" => call!(SYS_kill, -1, 0),
        "tkill" => call!(SYS_tkill, supervisor, 0),
        "tgkill-supervisor" => call!(SYS_tgkill, supervisor, supervisor, 0),
        "sigqueue-supervisor" => call!(SYS_rt_sigqueueinfo, supervisor, 0, buffer),
        "kcmp" => call!(SYS_kcmp, supervisor, supervisor, 0, 0, 0),
        "mount" => call!(SYS_mount, text, c"/".as_ptr(), c"tmpfs".as_ptr(), 0, null),
        "umount" => call!(SYS_umount2, c"/".as_ptr(), libc::MNT_DETACH),
        "fsopen" => call!(SYS_fsopen, c"tmpfs".as_ptr(), 0),
        "open-tree" => call!(SYS_open_tree, here, c"/".as_ptr(), 0),
        "pivot-root" => call!(SYS_pivot_root, c".".as_ptr(), c".".as_ptr()),
        "chroot" => call!(SYS_chroot, c".".as_ptr()),
        "unshare-user" => call!(SYS_unshare, libc::CLONE_NEWUSER),
        "setns" => call!(SYS_setns, 3, 0),
        "setuid-root" => call!(SYS_setuid, 0),
        "setgid-root" => call!(SYS_setgid, 0),
        "capset" => call!(SYS_capset, buffer, buffer),
        "personality" => call!(SYS_personality, libc::ADDR_NO_RANDOMIZE),
        "prctl-dumpable" => call!(SYS_prctl, libc::PR_SET_DUMPABLE, 1, 0, 0, 0),
        "prctl-ptracer" => call!(SYS_prctl, libc::PR_SET_PTRACER, -1i64, 0, 0, 0),
        "prctl-pdeathsig" => call!(SYS_prctl, libc::PR_SET_PDEATHSIG, 0, 0, 0, 0),
        "prctl-seccomp" => call!(SYS_prctl, libc::PR_SET_SECCOMP, 2, buffer, 0, 0),
        "seccomp" => call!(SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, buffer),
        "landlock" => call!(SYS_landlock_create_ruleset, null, 0, 1),
        "raise-limit" => call!(SYS_setrlimit, libc::RLIMIT_CORE, buffer),
        "set-limit-by-prlimit" => call!(SYS_prlimit64, 0, libc::RLIMIT_CORE, buffer, null),
        "prlimit-of-supervisor" => call!(SYS_prlimit64, supervisor, libc::RLIMIT_CORE, null, buffer),
        "keyctl" => call!(SYS_keyctl, 0, -3, 0),
        "add-key" => call!(SYS_add_key, c"user".as_ptr(), text, text, 1, -3),
        "request-key" => call!(SYS_request_key, c"user".as_ptr(), text, null, -3),
        "bpf" => call!(SYS_bpf, 0, buffer, 64),
        "perf-event" => call!(SYS_perf_event_open, buffer, 0, -1, -1, 0),
        "io-uring" => call!(SYS_io_uring_setup, 1, buffer),
        "userfaultfd" => call!(SYS_userfaultfd, 0),
        "shmget" => call!(SYS_shmget, 1, 4096, libc::IPC_CREAT | 0o600),
        "msgget" => call!(SYS_msgget, 1, libc::IPC_CREAT | 0o600),
        "mq-open" => call!(SYS_mq_open, text, libc::O_CREAT, 0o600, null),
        "ioctl-tiocsti" => call!(SYS_ioctl, 0, libc::TIOCSTI, buffer),
        "ioctl-ifconf" => call!(SYS_ioctl, 3, libc::SIOCGIFCONF, buffer),
        "fcntl-setown" => call!(SYS_fcntl, 3, libc::F_SETOWN, supervisor),
        "fcntl-lock" => call!(SYS_fcntl, 3, libc::F_SETLK, buffer),
        "mmap-executable" => call!(
            SYS_mmap,
            null,
            4096,
            libc::PROT_READ | libc::PROT_EXEC,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0
        ),
        "mprotect-write-and-execute" => {
            call!(SYS_mprotect, buffer as usize & !4095, 4096, libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC)
        }
        "pkey-mprotect" => call!(SYS_pkey_mprotect, buffer as usize & !4095, 4096, 7, -1),
        "memfd-secret" => call!(SYS_memfd_secret, 0),
        "iopl" => call!(SYS_iopl, 3),
        "syslog" => call!(SYS_syslog, 3, buffer, 64),
        "reboot" => call!(SYS_reboot, 0, 0, 0, null),
        "init-module" => call!(SYS_init_module, buffer, 64, text),
        "uname" => call!(SYS_uname, buffer),
        "getppid" => call!(SYS_getppid),
        "x32-getpid" => {
            // SAFETY: by the contract of this function; the number with bit 30 set is the other convention's.
            unsafe { libc::syscall(libc::SYS_getpid | 0x4000_0000) }
        }
        "sendfile" => call!(SYS_sendfile, 3, 0, null, 1),
        "splice" => call!(SYS_splice, 0, null, 1, null, 1, 0),
        "timer-create" => call!(SYS_timer_create, 0, null, buffer),
        unknown => panic!("no such act: {unknown}"),
    }
}

/// `getpid` by the 32-bit convention, under which numbers mean other calls.
fn i386_getpid() -> String {
    let returned: i64;
    // SAFETY: call 20 of the 32-bit convention takes no arguments and touches no memory; it clobbers r8 to r11 at most.
    unsafe {
        std::arch::asm!("int 0x80", inlateout("rax") 20i64 => returned, out("r8") _, out("r9") _, out("r10") _, out("r11") _);
    }
    format!("got {returned}")
}
