//! The system calls that a task process may make, and why each.
//!
//! Everything that is not listed kills the process at once (`SECCOMP_RET_KILL_PROCESS`): there is no honest reason for
//! it, so it is a break-out attempt or a bug, and in both cases the task must not go on. Two short lists are refused
//! with an error instead, because libraries probe for them and take "no" for an answer.
//!
//! What the list rests on: wasmtime (compile, load, run), a `current_thread` tokio runtime, tract, the vault's
//! positioned reads and writes on descriptors that were handed in, and the channel. Not bound by it: processor time and
//! memory (the engine's fuel and limits, and the resource limits).

use seccompiler::{
    SeccompAction, SeccompCmpArgLen as Width, SeccompCmpOp as Is, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

use super::EnterError;
use crate::channel::CHANNEL_FD;
use crate::profile::{Profile, Threads};

type Rules = Vec<(i64, Vec<SeccompRule>)>;
type Built<T> = Result<T, seccompiler::BackendError>;

/// The process id of the first process of a PID namespace, as it sees itself: what a sealed process is, where it has one.
pub(super) const FIRST_PROCESS: u32 = 1;

/// The lists for one process, as the kernel takes them.
#[derive(Debug)]
pub(super) struct Filters(Vec<seccompiler::BpfProgram>);

impl Filters {
    /// For a process that sees itself as number `own_pid`.
    pub(super) fn build(profile: &Profile, own_pid: u32) -> Result<Self, EnterError> {
        let filters = [
            // The kernel asks every filter and takes the sternest answer; the allow-list therefore names these too.
            filter(no_such_file()?, SeccompAction::Allow, error(libc::ENOENT))?,
            filter(no_such_call(profile), SeccompAction::Allow, error(libc::ENOSYS))?,
            filter(allowed(profile, own_pid)?, SeccompAction::KillProcess, SeccompAction::Allow)?,
        ];
        Ok(Self(filters.into_iter().flatten().collect()))
    }

    /// Installs them. From here on the process can make no other calls, and cannot take this back.
    pub(super) fn install(&self) -> Result<(), EnterError> {
        self.0.iter().try_for_each(|filter| seccompiler::apply_filter(filter).map_err(EnterError::Filter))
    }
}

impl From<seccompiler::BackendError> for EnterError {
    fn from(error: seccompiler::BackendError) -> Self {
        Self::Filter(error.into())
    }
}

const fn error(errno: i32) -> SeccompAction {
    SeccompAction::Errno(errno.unsigned_abs())
}

fn filter(rules: Rules, otherwise: SeccompAction, listed: SeccompAction) -> Built<Option<seccompiler::BpfProgram>> {
    if rules.is_empty() {
        return Ok(None);
    }
    // Also kills calls by the 32-bit and x32 conventions, whose numbers mean other things.
    let rules = rules.into_iter().collect();
    Ok(Some(SeccompFilter::new(rules, otherwise, listed, TargetArch::x86_64)?.try_into()?))
}

/// Always.
fn any(call: i64) -> (i64, Vec<SeccompRule>) {
    (call, Vec::new())
}

/// If argument `index` is one of `values`.
fn one_of(call: i64, index: u8, values: &[u64]) -> Built<(i64, Vec<SeccompRule>)> {
    let rule = |value: &u64| SeccompRule::new(vec![SeccompCondition::new(index, Width::Dword, Is::Eq, *value)?]);
    Ok((call, values.iter().map(rule).collect::<Built<_>>()?))
}

/// If argument `index`, limited to the bits of `mask`, equals `bits`.
fn masked(call: i64, index: u8, mask: u64, bits: u64) -> Built<(i64, Vec<SeccompRule>)> {
    let condition = SeccompCondition::new(index, Width::Dword, Is::MaskedEq(mask), bits)?;
    Ok((call, vec![SeccompRule::new(vec![condition])?]))
}

/// Refused with `ENOENT`, which is what an empty file system would answer: libraries look for `/dev/sysgenid`,
/// processor topology or their own executable, and go on without.
fn no_such_file() -> Built<Rules> {
    let mut rules: Rules = [
        libc::SYS_open,
        libc::SYS_openat,
        libc::SYS_openat2,
        libc::SYS_stat,
        libc::SYS_lstat,
        libc::SYS_access,
        libc::SYS_faccessat,
        libc::SYS_faccessat2,
        libc::SYS_readlink,
        libc::SYS_readlinkat,
    ]
    .map(any)
    .into();
    // By path; by descriptor they are allowed below.
    let empty_path = libc::AT_EMPTY_PATH as u64;
    rules.push(masked(libc::SYS_newfstatat, 3, empty_path, 0)?);
    rules.push(masked(libc::SYS_statx, 2, empty_path, 0)?);
    Ok(rules)
}

/// Refused with `ENOSYS`, as an older kernel would: the C library then uses `clone`, whose flags a filter can see.
fn no_such_call(profile: &Profile) -> Rules {
    match profile.threads {
        Threads::Refused => Vec::new(),
        Threads::UpTo(_) => vec![any(libc::SYS_clone3)],
    }
}

/// The allow-list.
fn allowed(profile: &Profile, own_pid: u32) -> Built<Rules> {
    let mut rules = no_such_file()?.into_iter().map(|(call, _)| any(call)).collect::<Rules>();
    rules.extend(memory()?);
    rules.extend(descriptors()?);
    rules.extend(waiting()?);
    rules.extend(process(own_pid)?);
    if profile.threads != Threads::Refused {
        rules.extend(threads()?);
    }
    Ok(rules)
}

fn memory() -> Built<Rules> {
    let [none, read, write, execute] =
        [libc::PROT_NONE, libc::PROT_READ, libc::PROT_WRITE, libc::PROT_EXEC].map(|bits| bits as u64);
    Ok(vec![
        // The heap of the C library.
        any(libc::SYS_brk),
        // Heap, wasm memories and stacks, images of memories, compiled code: never executable from the start.
        masked(libc::SYS_mmap, 2, execute, 0)?,
        // Guard pages, growing wasm memories, and making compiled code executable once it is no longer writable: no
        // page is ever both.
        one_of(libc::SYS_mprotect, 2, &[none, read, read | write, read | execute])?,
        // Giving memory back.
        any(libc::SYS_munmap),
        // Growing large vectors without copying.
        any(libc::SYS_mremap),
        // Giving pages back, marking secrets; any advice concerns the own memory only.
        any(libc::SYS_madvise),
        // Pages of secrets.
        any(libc::SYS_mlock),
        any(libc::SYS_mlock2),
        any(libc::SYS_munlock),
    ])
}

fn descriptors() -> Built<Rules> {
    let channel = [u64::from(CHANNEL_FD.unsigned_abs())];
    Ok(vec![
        // Sealed inputs and spill files that were handed in: at positions, and in order.
        any(libc::SYS_pread64),
        any(libc::SYS_pwrite64),
        any(libc::SYS_preadv),
        any(libc::SYS_pwritev),
        any(libc::SYS_read),
        any(libc::SYS_write),
        any(libc::SYS_readv),
        any(libc::SYS_writev),
        any(libc::SYS_lseek),
        // The size of a spill file or memfd.
        any(libc::SYS_ftruncate),
        any(libc::SYS_fallocate),
        // A checkpoint of spilled state is durable before it counts.
        any(libc::SYS_fdatasync),
        any(libc::SYS_fsync),
        // How long a file is; by path refused above.
        any(libc::SYS_fstat),
        any(libc::SYS_newfstatat),
        any(libc::SYS_statx),
        any(libc::SYS_close),
        // Duplicating, close-on-exec, status flags, and the seals of memfds. Not locks, owners or signals.
        one_of(
            libc::SYS_fcntl,
            1,
            &[
                libc::F_DUPFD_CLOEXEC,
                libc::F_GETFD,
                libc::F_SETFD,
                libc::F_GETFL,
                libc::F_SETFL,
                libc::F_ADD_SEALS,
                libc::F_GET_SEALS,
            ]
            .map(|command| command as u64),
        )?,
        // Non-blocking mode is the only thing that is ever set this way.
        one_of(libc::SYS_ioctl, 1, &[libc::FIONBIO])?,
        // Images of wasm memories, compiled code for the supervisor to keep.
        any(libc::SYS_memfd_create),
        // The channel, and no other socket, because descriptors travel with these.
        one_of(libc::SYS_sendmsg, 0, &channel)?,
        one_of(libc::SYS_recvmsg, 0, &channel)?,
        // tokio makes an unconnected-to-anything pair at the start of a runtime, for signals that never come.
        one_of(libc::SYS_socketpair, 0, &[libc::AF_UNIX as u64])?,
    ])
}

fn waiting() -> Built<Rules> {
    Ok(vec![
        // tokio's driver and its wake-up.
        any(libc::SYS_epoll_create1),
        any(libc::SYS_epoll_ctl),
        any(libc::SYS_epoll_wait),
        any(libc::SYS_epoll_pwait),
        any(libc::SYS_eventfd2),
        // The channel with a time limit.
        any(libc::SYS_poll),
        any(libc::SYS_ppoll),
        // Locks and one-time initialisation.
        any(libc::SYS_futex),
        any(libc::SYS_sched_yield),
        // Sleeping, and resuming a sleep after a signal.
        any(libc::SYS_nanosleep),
        any(libc::SYS_clock_nanosleep),
        any(libc::SYS_restart_syscall),
        // Clocks, where the kernel cannot serve them without a call (some virtual machines).
        any(libc::SYS_clock_gettime),
        any(libc::SYS_clock_getres),
        any(libc::SYS_gettimeofday),
    ])
}

fn process(own_pid: u32) -> Built<Rules> {
    Ok(vec![
        // Keys and salts.
        any(libc::SYS_getrandom),
        // wasmtime catches the faults of guests, on stacks of their own.
        any(libc::SYS_rt_sigaction),
        any(libc::SYS_rt_sigprocmask),
        any(libc::SYS_rt_sigreturn),
        any(libc::SYS_sigaltstack),
        // `abort`: a signal to itself and to nobody else.
        any(libc::SYS_getpid),
        any(libc::SYS_gettid),
        one_of(libc::SYS_tgkill, 0, &[own_pid.into()])?,
        // How many processors there are: sizes of thread pools and caches.
        any(libc::SYS_sched_getaffinity),
        // Reading the own limits, and lowering two of them; raising takes a capability that is gone.
        (
            libc::SYS_prlimit64,
            vec![
                SeccompRule::new(vec![
                    SeccompCondition::new(0, Width::Dword, Is::Eq, 0)?,
                    SeccompCondition::new(2, Width::Qword, Is::Eq, 0)?,
                ])?,
                own_limit(libc::RLIMIT_DATA)?,
                own_limit(libc::RLIMIT_FSIZE)?,
            ],
        ),
        // Asking what is in force, and naming a thread. Nothing that changes what is in force.
        one_of(
            libc::SYS_prctl,
            0,
            &[libc::PR_GET_DUMPABLE, libc::PR_GET_NO_NEW_PRIVS, libc::PR_SET_NAME].map(|option| option as u64),
        )?,
        // The end.
        any(libc::SYS_exit),
        any(libc::SYS_exit_group),
    ])
}

/// Any use of `prlimit64` on one limit of the calling process.
fn own_limit(kind: crate::sys::LimitKind) -> Built<SeccompRule> {
    SeccompRule::new(vec![
        SeccompCondition::new(0, Width::Dword, Is::Eq, 0)?,
        SeccompCondition::new(1, Width::Dword, Is::Eq, u64::from(kind))?,
    ])
}

fn threads() -> Built<Rules> {
    // What every thread has and no process: the same memory, files, signal handlers, and thread group.
    let thread = libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_FILES | libc::CLONE_SIGHAND | libc::CLONE_THREAD;
    // And nothing that would give it a namespace.
    let namespaces = libc::CLONE_NEWUSER
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP;
    let mask = u64::from((thread | namespaces) as u32);
    Ok(vec![
        masked(libc::SYS_clone, 0, mask, u64::from(thread as u32))?,
        // Refused with ENOSYS above.
        any(libc::SYS_clone3),
        // The C library's bookkeeping of a new thread.
        any(libc::SYS_set_robust_list),
        any(libc::SYS_rseq),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_compile_and_name_no_call_twice() {
        for threads in [Threads::Refused, Threads::UpTo(4)] {
            let profile = Profile { threads, ..Profile::default() };
            let rules = allowed(&profile, FIRST_PROCESS).expect("valid rules");
            let mut calls: Vec<_> = rules.iter().map(|(call, _)| *call).collect();
            calls.sort_unstable();
            let count = calls.len();
            calls.dedup();
            // By-path and by-descriptor use of these two share an entry.
            assert_eq!(count - calls.len(), 2, "a later entry would silently replace an earlier one");
            filter(rules, SeccompAction::KillProcess, SeccompAction::Allow).expect("compiles");
        }
    }

    #[test]
    fn what_must_be_refused_is_not_on_the_list() {
        let profile = Profile { threads: Threads::UpTo(4), ..Profile::default() };
        let rules = allowed(&profile, FIRST_PROCESS).expect("valid rules");
        for call in [
            libc::SYS_socket,
            libc::SYS_connect,
            libc::SYS_bind,
            libc::SYS_accept4,
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_fork,
            libc::SYS_vfork,
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_keyctl,
            libc::SYS_add_key,
            libc::SYS_request_key,
            libc::SYS_bpf,
            libc::SYS_io_uring_setup,
            libc::SYS_userfaultfd,
            libc::SYS_kill,
            libc::SYS_tkill,
            libc::SYS_mount,
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_pidfd_getfd,
            libc::SYS_perf_event_open,
            libc::SYS_setrlimit,
            libc::SYS_chroot,
            libc::SYS_pkey_mprotect,
            libc::SYS_memfd_secret,
            libc::SYS_shmat,
            libc::SYS_msgget,
        ] {
            assert!(!rules.iter().any(|(listed, _)| *listed == call), "system call {call} is allowed");
        }
    }
}
