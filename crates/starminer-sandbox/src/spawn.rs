//! Starting one program with one descriptor and nothing else.
//!
//! The child is made with `CLONE_VM | CLONE_VFORK`, as `posix_spawn` does it: the cost does not grow with the memory of
//! the supervisor, which copying page tables would. Until it executes the program the child runs on the supervisor's
//! memory while the starting thread sleeps, so it calls nothing but system calls, allocates nothing and cannot panic.
//!
//! All children are made by one thread that lives as long as the process, because Linux delivers `PR_SET_PDEATHSIG`
//! when the *thread* that made the child ends, and worker threads of a runtime come and go.
//!
//! This module does not wait for the program, nor speak to it: [`crate::TaskProcess`] does.

use std::ffi::{CString, OsStr, c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};

use crate::channel::CHANNEL_FD;
use crate::sys;

/// The program that becomes the task process.
#[derive(Clone, Debug, Default)]
pub enum Program {
    /// The program that is running now, byte for byte, even if its file was replaced since (`/proc/self/exe`).
    #[default]
    Itself,
    /// The program at this path.
    At(PathBuf),
}

/// Where the task process's standard error goes. Standard input and output are always `/dev/null`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stderr {
    /// Nowhere: what a task prints must not reach a log of the host.
    #[default]
    Null,
    /// To the supervisor's standard error, for debugging only.
    Inherit,
}

/// What to start, in the form in which the child needs it: nothing left to allocate.
pub(crate) struct Start {
    program: CString,
    arguments: Vec<CString>,
    stderr: Stderr,
    socket: OwnedFd,
}

/// A program that was started.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) pid: libc::pid_t,
    pub(crate) pidfd: OwnedFd,
}

/// A step of the child that failed, with its error.
#[derive(Debug)]
pub(crate) struct StartFailure {
    pub(crate) step: &'static str,
    pub(crate) error: io::Error,
}

impl Start {
    /// # Errors
    /// If a path or argument contains a NUL byte.
    pub(crate) fn new(
        program: &Program,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
        stderr: Stderr,
        socket: OwnedFd,
    ) -> Result<Self, std::ffi::NulError> {
        let path = match program {
            Program::Itself => OsStr::new("/proc/self/exe"),
            Program::At(path) => path.as_os_str(),
        };
        let arguments = arguments.into_iter().map(|argument| CString::new(argument.as_ref().as_bytes()));
        Ok(Self {
            program: CString::new(path.as_bytes())?,
            arguments: arguments.collect::<Result<_, _>>()?,
            stderr,
            socket,
        })
    }

    /// Starts the program from the thread that starts all of them. Returns once the program is executing.
    pub(crate) fn start(self) -> Result<Started, StartFailure> {
        static STARTER: Mutex<Option<mpsc::Sender<Job>>> = Mutex::new(None);
        let (reply, answer) = mpsc::channel();
        let mut job = Job { start: self, reply };
        let gone = |error: io::Error| StartFailure { step: "start the starting thread", error };
        {
            let mut starter = STARTER.lock().unwrap_or_else(PoisonError::into_inner);
            loop {
                let sender = match &*starter {
                    Some(sender) => sender,
                    None => starter.insert(starting_thread().map_err(gone)?),
                };
                match sender.send(job) {
                    Ok(()) => break,
                    // The thread ended (it never should): make another.
                    Err(mpsc::SendError(returned)) => job = returned,
                }
                *starter = None;
            }
        }
        answer.recv().map_err(|_| gone(io::ErrorKind::BrokenPipe.into()))?
    }
}

struct Job {
    start: Start,
    reply: mpsc::Sender<Result<Started, StartFailure>>,
}

/// Starts the thread that makes all children.
fn starting_thread() -> io::Result<mpsc::Sender<Job>> {
    let (sender, jobs) = mpsc::channel::<Job>();
    let stack = ChildStack::new()?;
    std::thread::Builder::new().name("task-starter".into()).spawn(move || {
        // A handler of the supervisor must never run in the child, on memory that both share.
        block_all_signals();
        for job in jobs {
            let started = start_on_this_thread(&job.start, &stack);
            // Close the child's end of the channel before the answer, so that the answer means "only the child has it".
            drop(job.start);
            // If the asker is gone the process dies with `Started`'s channel; nothing to do here.
            let _ = job.reply.send(started);
        }
    })?;
    Ok(sender)
}

fn block_all_signals() {
    // SAFETY: `set` is filled by sigfillset before it is read; both are valid for the calls.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut set);
        libc::pthread_sigmask(libc::SIG_BLOCK, &set, ptr::null_mut());
    }
}

/// The stack on which a child runs until it executes its program, with a guard page below.
struct ChildStack {
    base: *mut c_void,
}

// SAFETY: the mapping belongs to this value alone, and moves with it to the starting thread.
unsafe impl Send for ChildStack {}

impl ChildStack {
    const BYTES: usize = 64 << 10;

    fn new() -> io::Result<Self> {
        // SAFETY: a fresh anonymous mapping, no existing memory is touched.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                Self::BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let stack = Self { base };
        // SAFETY: the first page of the mapping just made; nothing lives there yet.
        sys::check(unsafe { libc::mprotect(base, sys::page_bytes(), libc::PROT_NONE) })?;
        Ok(stack)
    }

    fn top(&self) -> *mut c_void {
        // SAFETY: one past the end of the mapping, where a stack that grows down begins; page-aligned.
        unsafe { self.base.byte_add(Self::BYTES) }
    }
}

impl Drop for ChildStack {
    fn drop(&mut self) {
        // SAFETY: the mapping belongs to this value, and no child runs on it: the starter waits for each child to
        // execute or exit.
        unsafe { libc::munmap(self.base, Self::BYTES) };
    }
}

/// What the child reads, in the memory that it shares with the starter, and the one thing that it writes there.
struct Plan {
    program: *const libc::c_char,
    arguments: *const *const libc::c_char,
    environment: *const *const libc::c_char,
    supervisor: libc::pid_t,
    socket: RawFd,
    null: RawFd,
    stderr: RawFd,
    /// Index into [`STEPS`] of the step that failed; stays negative if none did.
    failed_step: AtomicI32,
    failed_errno: AtomicI32,
}

/// The steps of the child, in order, as they are named when they fail.
const STEPS: [&str; 6] = [
    "ask to die with the supervisor",
    "make a session of its own",
    "place its descriptors",
    "close all other descriptors",
    "reset its signals",
    "execute the program",
];

fn start_on_this_thread(start: &Start, stack: &ChildStack) -> Result<Started, StartFailure> {
    let parent_side = |error| StartFailure { step: "prepare", error };
    let null = sys::open(c"/dev/null", libc::O_RDWR).map_err(parent_side)?;
    // Clear of 0 to 3, so that placing one descriptor never overwrites another that is still needed.
    let socket = duplicate_above(start.socket.as_raw_fd()).map_err(parent_side)?;
    let null = duplicate_above(null.as_raw_fd()).map_err(parent_side)?;
    let stderr = match start.stderr {
        Stderr::Null => None,
        // A supervisor whose own standard error is closed has nothing to pass on.
        Stderr::Inherit => duplicate_above(libc::STDERR_FILENO).ok(),
    };

    let mut arguments: Vec<_> = start.arguments.iter().map(|argument| argument.as_ptr()).collect();
    arguments.push(ptr::null());
    let environment = [ptr::null()];
    let plan = Plan {
        program: start.program.as_ptr(),
        arguments: arguments.as_ptr(),
        environment: environment.as_ptr(),
        // SAFETY: getpid has no preconditions.
        supervisor: unsafe { libc::getpid() },
        socket: socket.as_raw_fd(),
        null: null.as_raw_fd(),
        stderr: stderr.as_ref().map_or(null.as_raw_fd(), AsRawFd::as_raw_fd),
        failed_step: AtomicI32::new(-1),
        failed_errno: AtomicI32::new(0),
    };
    let mut pidfd: RawFd = -1;
    // SAFETY: with CLONE_VFORK this thread sleeps until the child has executed its program or exited, so `plan` and the
    // stack outlive the child's use of them. `child` keeps to async-signal-safe calls, all signals are blocked in this
    // thread and so in the child, and the kernel writes one descriptor to `pidfd`.
    let pid = unsafe {
        libc::clone(
            child,
            stack.top(),
            libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD,
            (&raw const plan).cast_mut().cast(),
            &raw mut pidfd,
        )
    };
    let pid = sys::check(pid).map_err(|error| StartFailure { step: "make a process", error })? as libc::pid_t;
    // SAFETY: clone succeeded, so the kernel made this descriptor for us and nobody else owns it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };

    let failed = plan.failed_step.load(Ordering::Relaxed);
    match usize::try_from(failed).ok().and_then(|step| STEPS.get(step)) {
        None => Ok(Started { pid, pidfd }),
        Some(step) => {
            // It exited at once: reap it, nobody else knows of it.
            crate::process::reap_now(&pidfd);
            let error = io::Error::from_raw_os_error(plan.failed_errno.load(Ordering::Relaxed));
            Err(StartFailure { step, error })
        }
    }
}

/// A close-on-exec duplicate above the descriptors that the child places.
pub(crate) fn duplicate_above(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_DUPFD_CLOEXEC touches no memory.
    let fd = sys::check(unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, CHANNEL_FD + 1) })?;
    // SAFETY: the kernel just returned this descriptor, nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// The child, until it is the program.
extern "C" fn child(plan: *mut c_void) -> c_int {
    // SAFETY: the starter passes a `Plan` and sleeps while we use it.
    let plan = unsafe { &*plan.cast_const().cast::<Plan>() };
    // SAFETY: called in the child made by `start_on_this_thread`, before it executes anything else.
    let (step, errno) = unsafe { become_program(plan) };
    plan.failed_errno.store(errno, Ordering::Relaxed);
    plan.failed_step.store(step, Ordering::Relaxed);
    // SAFETY: ends this process without running anything of the supervisor's.
    unsafe { libc::_exit(127) }
}

/// The kernel's own form of what to do on a signal.
#[repr(C)]
#[derive(Default)]
struct KernelAction {
    handler: libc::sighandler_t,
    flags: libc::c_ulong,
    restorer: usize,
    mask: u64,
}

/// The last signal that the kernel knows.
const LAST_SIGNAL: libc::c_int = 64;

/// Turns the child into the program. Returns only on failure: the step and `errno`.
///
/// # Safety
/// Only in the child of `clone`, with `plan` as `start_on_this_thread` makes it.
unsafe fn become_program(plan: &Plan) -> (i32, i32) {
    // SAFETY: plain system calls on numbers and on the strings and arrays of `plan`, which are
    // NUL-terminated and alive; sigaction structures are local and initialised before they are read.
    unsafe {
        let errno = || *libc::__errno_location();

        if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
            return (0, errno());
        }
        // The supervisor may have died before that took effect.
        if libc::getppid() != plan.supervisor {
            return (0, libc::ESRCH);
        }
        if libc::setsid() < 0 {
            return (1, errno());
        }
        let places = [(plan.null, 0), (plan.null, 1), (plan.stderr, 2), (plan.socket, CHANNEL_FD)];
        for (fd, place) in places {
            if libc::dup2(fd, place) < 0 {
                return (2, errno());
            }
        }
        if libc::syscall(libc::SYS_close_range, CHANNEL_FD + 1, u32::MAX, 0) != 0 {
            return (3, errno());
        }
        // Handlers go away by themselves when the program is executed; ignored signals would stay ignored. By the raw
        // call, because the C library hides the two signals that it uses itself and leaves ignored when it spawns.
        for signal in 1..=LAST_SIGNAL {
            let mut action = KernelAction::default();
            let nothing = ptr::null_mut::<KernelAction>();
            let (call, mask) = (libc::SYS_rt_sigaction, size_of_val(&action.mask));
            let known = libc::syscall(call, signal, nothing, &raw mut action, mask) == 0;
            if known && action.handler == libc::SIG_IGN {
                action.handler = libc::SIG_DFL;
                libc::syscall(call, signal, &raw const action, nothing, mask);
            }
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        if libc::sigprocmask(libc::SIG_SETMASK, &none, ptr::null_mut()) != 0 {
            return (4, errno());
        }
        libc::execve(plan.program, plan.arguments, plan.environment);
        (5, errno())
    }
}
