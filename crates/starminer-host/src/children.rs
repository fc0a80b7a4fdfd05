//! QEMU and swtpm: started, listened to, asked to end, and ended with this.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::command::{Machine, QEMU, SWTPM, Tpm, arguments, tpm_arguments};

/// Ends what it starts with whoever started it.
const SETPRIV: &str = "setpriv";
const SWTPM_SETUP: &str = "swtpm_setup";
/// How long swtpm may take until it listens, and QEMU to answer an order.
const PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);
/// Longest line of the console that is handed on as one.
const MAX_LINE_BYTES: u64 = 4096;
/// How much of what QEMU complains about is kept.
const MAX_COMPLAINT_BYTES: u64 = 4096;
/// Longest answer of QEMU to an order.
const MAX_ANSWER_BYTES: u64 = 64 << 10;

/// Why a machine does not run.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// A program is not installed.
    #[error("{tool} is not installed")]
    NoTool {
        /// Which.
        tool: &'static str,
        /// Debian's package that has it.
        package: &'static str,
    },
    /// A program cannot be started.
    #[error("{tool} cannot be started")]
    Start {
        /// Which.
        tool: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The TPM ended, or never listened.
    #[error("the emulated TPM does not start: {0}")]
    Tpm(String),
    /// A file of the TPM cannot be made.
    #[error("{}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl HostError {
    /// A stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoTool { .. } => "host.no-tool",
            Self::Start { .. } => "host.start",
            Self::Tpm(_) => "host.tpm",
            Self::File { .. } => "host.file",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::NoTool { package, .. } => format!("install it (Debian: {package})"),
            Self::Start { .. } => "check limits on processes and memory".into(),
            Self::Tpm(_) => "end whatever else uses this state, or start with a new one".into(),
            Self::File { .. } => "give a directory where you may write".into(),
        }
    }
}

impl Tpm {
    /// Makes the TPM, with a certificate of its endorsement key, where there is none.
    ///
    /// # Errors
    /// [`HostError::NoTool`], [`HostError::Start`], [`HostError::Tpm`], [`HostError::File`].
    pub fn prepare(&self) -> Result<(), HostError> {
        if self.state.as_os_str().as_encoded_bytes().contains(&b',') {
            return Err(HostError::Tpm(format!("{}: {SWTPM} takes no path with a comma", self.state.display())));
        }
        let failed = |source| HostError::File { path: self.state.clone(), source };
        if self.state.exists() && fs::read_dir(&self.state).map_err(failed)?.next().is_some() {
            return Ok(());
        }
        // Under its name only when it is whole: one without a certificate would be one for good.
        let new = self.state.with_extension("new");
        match fs::remove_dir_all(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => fs::create_dir_all(&new).map_err(failed)?,
        }
        let run = Command::new(SWTPM_SETUP)
            .args(["--tpm2", "--create-ek-cert", "--ecc", "--tpmstate"])
            .arg(&new)
            .stdin(Stdio::null())
            .output();
        let output = run.map_err(|source| not_started(SWTPM_SETUP, "swtpm-tools", source))?;
        if output.status.success() {
            // In place of an empty directory, or of none.
            return fs::rename(&new, &self.state).map_err(failed);
        }
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        Err(HostError::Tpm(format!("{SWTPM_SETUP}: {}", said.lines().last().unwrap_or("it does not say why"))))
    }

    /// Starts it. It ends when the machine lets go of it.
    fn start(&self, lock: &File) -> Result<Ended, HostError> {
        let child = bound(SWTPM, "swtpm", tpm_arguments(self), lock)?
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|source| not_started(SETPRIV, "util-linux", source))?;
        let mut swtpm = Ended(child);
        let until = Instant::now() + PATIENCE;
        while !self.socket.exists() {
            if let Ok(Some(status)) = swtpm.0.try_wait() {
                return Err(HostError::Tpm(format!("{SWTPM} ended: {status}; is its state used by another one?")));
            }
            if Instant::now() > until {
                return Err(HostError::Tpm(format!("{SWTPM} does not listen")));
            }
            std::thread::sleep(POLL);
        }
        Ok(swtpm)
    }
}

/// A program that ends with this one, however that ends: nobody here may ask Linux for it (prctl(2), `PR_SET_PDEATHSIG`) but the program itself, so that setpriv asks and becomes it.
///
/// It reads nothing, and holds the lock of the state that it uses: should it run on all the same, the next one is told so. It has a group of its own: what a terminal sends to the one
/// in the foreground is for this program, which ends the machine in order.
fn bound(
    tool: &'static str,
    package: &'static str,
    arguments: Vec<OsString>,
    lock: &File,
) -> Result<Command, HostError> {
    let places = std::env::var_os("PATH").unwrap_or_default();
    if !std::env::split_paths(&places).any(|place| place.join(tool).is_file()) {
        return Err(HostError::NoTool { tool, package });
    }
    let lock = lock.try_clone().map_err(|source| HostError::Start { tool, source })?;
    let mut command = Command::new(SETPRIV);
    command.args(["--pdeathsig", "KILL", "--", tool]).args(arguments).process_group(0).stdin(lock);
    Ok(command)
}

fn not_started(tool: &'static str, package: &'static str, source: io::Error) -> HostError {
    match source.kind() {
        io::ErrorKind::NotFound => HostError::NoTool { tool, package },
        _ => HostError::Start { tool, source },
    }
}

/// A program that ends with this.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A machine that runs. It ends with this.
pub struct Running {
    // In the order in which they end: the machine before its TPM.
    qemu: Ended,
    _tpm: Option<Ended>,
    orders: PathBuf,
    listeners: Vec<JoinHandle<()>>,
    complaint: Arc<Mutex<String>>,
}

impl Running {
    /// Starts a machine, and its TPM where that is emulated. `lock` is an empty file that is locked for as long as any of them runs. `console` gets what the machine says,
    /// line by line, without control characters.
    ///
    /// They end with the thread that calls this.
    ///
    /// # Errors
    /// [`HostError::NoTool`], [`HostError::Start`], [`HostError::Tpm`].
    pub fn start(
        machine: &Machine,
        tpm: Option<&Tpm>,
        lock: &File,
        mut console: impl FnMut(&str) + Send + 'static,
    ) -> Result<Self, HostError> {
        let tpm = tpm.map(|tpm| tpm.start(lock)).transpose()?;
        let mut child = bound(QEMU, "qemu-system-x86", arguments(machine), lock)?
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| not_started(SETPRIV, "util-linux", source))?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let qemu = Ended(child);
        let complaint = Arc::new(Mutex::new(String::new()));
        let mut listeners = Vec::new();
        let mut listen = |name: &str, work: Box<dyn FnOnce() + Send>| {
            let started = std::thread::Builder::new().name(name.into()).spawn(work);
            started.map(|handle| listeners.push(handle)).map_err(|source| HostError::Start { tool: QEMU, source })
        };
        if let Some(stdout) = stdout {
            listen("console", Box::new(move || lines(stdout, &mut console)))?;
        }
        if let Some(stderr) = stderr {
            let kept = Arc::clone(&complaint);
            listen("complaints", Box::new(move || keep(stderr, &kept)))?;
        }
        Ok(Self { qemu, _tpm: tpm, orders: machine.orders.clone(), listeners, complaint })
    }

    /// Whether the machine has ended, and how. What it said has been handed on by then.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        let ended = self.qemu.0.try_wait()?;
        if ended.is_some() {
            for listener in self.listeners.drain(..) {
                // One that panicked has nothing more to say.
                let _ = listener.join();
            }
        }
        Ok(ended)
    }

    /// What QEMU complained about.
    #[must_use]
    pub fn complaint(&self) -> String {
        self.complaint.lock().unwrap_or_else(PoisonError::into_inner).trim().to_owned()
    }

    /// Presses the machine's power button. One that does not hear it runs on.
    pub fn press_power_button(&self) -> io::Result<()> {
        order(&self.orders, "system_powerdown")
    }

    /// Switches the machine off. Nothing is lost that it has acknowledged: it has to stand a power cut at any time.
    pub fn switch_off(&mut self) -> io::Result<()> {
        if self.ended()?.is_none() {
            // One that cannot be asked is ended below.
            let _ = order(&self.orders, "quit");
            let until = Instant::now() + PATIENCE;
            while self.ended()?.is_none() && Instant::now() < until {
                std::thread::sleep(POLL);
            }
        }
        if self.ended()?.is_none() {
            self.qemu.0.kill()?;
            self.qemu.0.wait()?;
        }
        Ok(())
    }
}

/// Has QEMU do something, by its protocol QMP: a greeting, its acknowledgement, the order.
fn order(socket: &Path, what: &str) -> io::Result<()> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut answers = BufReader::new(stream.try_clone()?.take(MAX_ANSWER_BYTES));
    let mut orders = stream;
    let mut line = String::new();
    answers.read_line(&mut line)?;
    for command in ["qmp_capabilities", what] {
        writeln!(orders, "{}", serde_json::json!({ "execute": command }))?;
        line.clear();
        answers.read_line(&mut line)?;
    }
    Ok(())
}

/// Hands on lines, and pieces of those that are too long.
fn lines(from: impl Read, to: &mut impl FnMut(&str)) {
    let mut reader = BufReader::new(from);
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => to(&legible(&line)),
        }
    }
}

/// Text without what terminals obey: escape sequences of firmware, and whatever else.
fn legible(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::new();
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        if character == '\u{1b}' && characters.next_if_eq(&'[').is_some() {
            // Parameters, up to the letter that ends them.
            while characters.next().is_some_and(|next| !('@'..='~').contains(&next)) {}
        } else if character == '\t' || !character.is_control() {
            out.push(character);
        }
    }
    out
}

fn keep(from: impl Read, to: &Mutex<String>) {
    let mut reader = BufReader::new(from);
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.by_ref().take(MAX_COMPLAINT_BYTES).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                let mut kept = to.lock().unwrap_or_else(PoisonError::into_inner);
                // The first complaint is what it is about.
                if kept.len() < MAX_COMPLAINT_BYTES as usize {
                    *kept += &legible(&line);
                    kept.push('\n');
                }
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_console_s_lines_are_legible() {
        let mut seen = Vec::new();
        lines(&b"\x1b[2J\x1b[01;01Hone\r\n\xfftwo\x07\n\nlast"[..], &mut |line: &str| seen.push(line.to_owned()));
        assert_eq!(seen, ["one", "\u{fffd}two", "", "last"]);
        let long = vec![b'x'; 3 * 4096];
        let mut pieces = 0;
        lines(long.as_slice(), &mut |line: &str| pieces += usize::from(line.len() == 4096));
        assert_eq!(pieces, 3);
    }

    #[test]
    fn complaints_are_kept_up_to_a_bound() {
        let kept = Mutex::new(String::new());
        keep("no such device\n".repeat(10_000).as_bytes(), &kept);
        let kept = kept.into_inner().unwrap();
        assert!(kept.starts_with("no such device\n") && kept.len() < 2 * MAX_COMPLAINT_BYTES as usize);
    }
}
