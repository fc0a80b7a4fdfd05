//! The demonstration's network: one coordinator, one broker, three nodes, each a process of its own; with swtpm a fourth node, and its TPM.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use starminer_requester::TaskOutcome;

use super::jobs::{NOTES, WORDCOUNT};
use super::tpm::{self, EmulatedTpm};
use crate::cli::demo_support::{Failure, Interrupt, Style, Terminal, quoted, short};

/// How long a process may take until it is ready.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a process may take to stop before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
const NAME: &str = "demo";
/// The emulated TPM, and the node that has it.
const TPM: &str = "tpm";
const TPM_NODE: &str = "node4";

/// The running network.
pub struct Network {
    dir: PathBuf,
    processes: Vec<Process>,
    interrupt: Interrupt,
    outlives_demo: bool,
    has_tpm: bool,
}

struct Process {
    name: &'static str,
    child: Child,
    /// Held, never written to: the process ends when it does, and it does with this program, even if that is killed.
    _lifeline: Option<ChildStdin>,
}

impl Drop for Network {
    fn drop(&mut self) {
        self.stop_all();
    }
}

impl Network {
    /// Creates and starts everything below `dir`. Unless it shall outlive the demonstration, every process ends with this one.
    pub fn start(terminal: &Terminal, dir: &Path, interrupt: &Interrupt, outlives_demo: bool) -> Result<Self, Failure> {
        let mut network = Self {
            dir: dir.to_path_buf(),
            processes: Vec::new(),
            interrupt: interrupt.clone(),
            outlives_demo,
            has_tpm: false,
        };
        let spinner = terminal.spinner("starting");
        let port = free_port()?;
        let coordinator = dir.join("coordinator");
        let listen = format!("127.0.0.1:{port}");
        let tpm = tpm::is_possible(dir).then(|| EmulatedTpm::make(&dir.join(TPM))).transpose()?;
        let coordinator_dir = text(&coordinator);
        let mut init =
            vec!["coordinator", "init", &coordinator_dir, "--name", NAME, "--listen", &listen, "--software-tee"];
        let tpm_root = tpm.as_ref().map(|tpm| text(&tpm.root()));
        if let Some(root) = &tpm_root {
            init.extend(["--tpm-root", root]);
        }
        starminer(&init)?;
        network.spawn("coordinator", &["coordinator", "run", &text(&coordinator)])?;
        network.wait_ready("coordinator")?;

        let trust = text(&coordinator.join("network.toml"));
        let root = text(&coordinator.join("software-tee-root.key"));
        for (name, kind) in [("broker", "broker"), ("node1", "node"), ("node2", "node"), ("node3", "node")] {
            let place = text(&dir.join(name));
            starminer(&[kind, "init", &place, "--network", &trust, "--software-tee-root", &root])?;
            network.spawn(name, &[kind, "run", &place])?;
        }
        if let Some(tpm) = &tpm {
            network.has_tpm = true;
            let mut child = tpm.start(outlives_demo)?;
            let lifeline = child.stdin.take();
            network.processes.push(Process { name: TPM, child, _lifeline: lifeline });
            let (place, address) = (text(&dir.join(TPM_NODE)), tpm.address());
            let [issuer, root] = tpm.authorities().map(|path| text(&path));
            starminer(&[
                "node",
                "init",
                &place,
                "--network",
                &trust,
                "--tpm",
                &address,
                "--tpm-certificate",
                &issuer,
                "--tpm-certificate",
                &root,
            ])?;
            network.spawn(TPM_NODE, &["node", "run", &place])?;
        }
        for name in ["broker", "node1", "node2", "node3"].into_iter().chain(tpm.is_some().then_some(TPM_NODE)) {
            network.wait_ready(name)?;
        }
        let home = network.requester_home();
        fs::create_dir_all(&home)
            .and_then(|()| fs::copy(coordinator.join("network.toml"), home.join("network.toml")).map(drop))
            .map_err(|error| local(&error))?;
        let identity = text(&home.join("identity.key"));
        starminer(&["key", "new", &identity])?;
        spinner.finish_and_clear();
        for process in &network.processes {
            let what = match process.name {
                "coordinator" => format!("leases, blobs, public log; {listen}"),
                TPM => "an emulated TPM 2.0, certified by an authority made on the spot; swtpm".into(),
                TPM_NODE => "runs tasks; shows what its TPM vouches for, and no more".into(),
                "broker" => "releases keys for requesters who are offline; simulated TEE".into(),
                _ => "runs tasks, each in a single-use process; simulated TEE".to_string(),
            };
            terminal.say(format!(
                "  {:<12} pid {:<8} {what}",
                terminal.style(Style::Cyan, format!("{:<12}", process.name)),
                process.child.id()
            ));
        }
        Ok(network)
    }

    fn spawn(&mut self, name: &'static str, args: &[&str]) -> Result<(), Failure> {
        let dir = self.dir.join(name);
        fs::create_dir_all(&dir).map_err(|error| local(&error))?;
        let log = File::create(dir.join("log.txt")).map_err(|error| local(&error))?;
        let err = log.try_clone().map_err(|error| local(&error))?;
        let mut command = Command::new(program()?);
        command.args(args).stdout(log).stderr(err);
        if self.outlives_demo {
            command.stdin(Stdio::null());
        } else {
            command.arg("--until-stdin-ends").stdin(Stdio::piped());
        }
        // A process group of its own: Ctrl-C at the terminal reaches the demonstration, which then stops the network in order.
        command.process_group(0);
        let mut child = command.spawn().map_err(|error| local(&error))?;
        let lifeline = child.stdin.take();
        self.processes.push(Process { name, child, _lifeline: lifeline });
        Ok(())
    }

    fn wait_ready(&mut self, name: &'static str) -> Result<(), Failure> {
        let ready = self.dir.join(name).join("ready");
        let until = Instant::now() + START_TIMEOUT;
        let log = self.dir.join(name).join("log.txt");
        let Some(process) = self.processes.iter_mut().find(|process| process.name == name) else { return Ok(()) };
        while !ready.exists() {
            if let Some(signal) = self.interrupt.heard() {
                return Err(interrupted(signal));
            }
            let ended = process.child.try_wait().map_err(|error| local(&error))?;
            if ended.is_some() || Instant::now() > until {
                let said = fs::read_to_string(&log).unwrap_or_default();
                let reason = format!("{name} did not start: {}", said.trim());
                return Err(Failure::local("demo.start", reason, "mend what it names and try again"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// The requester's home.
    pub fn requester_home(&self) -> PathBuf {
        self.dir.join("requester")
    }

    /// The requester's own trust file.
    pub fn trust_path(&self) -> PathBuf {
        self.requester_home().join("network.toml")
    }

    /// Name of the simulated root in the trust file.
    pub fn root_name(&self) -> String {
        format!("{NAME} software TEE")
    }

    /// Name of the root of its emulated TPM in the trust file, where there is one.
    pub fn tpm_root_name(&self) -> Option<String> {
        self.has_tpm.then(|| format!("{NAME} emulated TPM"))
    }

    /// Directories of everyone but the requester.
    pub fn operator_dirs(&self) -> Vec<PathBuf> {
        self.processes.iter().map(|process| self.dir.join(process.name)).collect()
    }

    /// Stops every process.
    pub fn stop(mut self) {
        self.stop_all();
    }

    fn stop_all(&mut self) {
        // Nodes and broker first: they then do not see the coordinator go.
        for process in self.processes.iter().rev() {
            terminate(process.child.id());
        }
        let until = Instant::now() + STOP_TIMEOUT;
        for process in &mut self.processes {
            while Instant::now() < until && matches!(process.child.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(5));
            }
            // Both fail only when it has ended already.
            let _ = process.child.kill();
            let _ = process.child.wait();
        }
        self.processes.clear();
    }

    /// Leaves the network running and says what to try next.
    pub fn leave_running(mut self, terminal: &Terminal, dir: &Path, outcomes: &[TaskOutcome]) -> Result<(), Failure> {
        let pids: Vec<String> = self.processes.iter().map(|process| process.child.id().to_string()).collect();
        fs::write(dir.join("pids"), pids.join("\n")).map_err(|error| local(&error))?;
        // Forgotten, not stopped: the processes go on without this one.
        self.processes.clear();
        let files = dir.join("try");
        let (wasm, notes) = (files.join("wordcount.wasm"), files.join("clinic-notes.txt"));
        fs::create_dir_all(&files)
            .and_then(|()| fs::write(&wasm, WORDCOUNT))
            .and_then(|()| fs::write(&notes, NOTES))
            .map_err(|error| local(&error))?;
        let shown = |path: &Path| quoted(path.display());
        let program = shown(&program()?);
        terminal.result(format!("\nThe network goes on in {}. Try:", dir.display()));
        terminal.result(format!("  export STARMINER_HOME={}", shown(&self.requester_home())));
        terminal.result(format!(
            "  {program} run --wasm {} -i {} -o {} --accept-simulated {}",
            shown(&wasm),
            shown(&notes),
            shown(&files.join("out")),
            quoted(self.root_name())
        ));
        terminal.result(format!("  {program} status"));
        if let Some(outcome) = outcomes.first() {
            terminal.result(format!(
                "  {program} verify {} --network {}   # task {}",
                shown(&outcome.receipt_path),
                shown(&self.trust_path()),
                short(&outcome.task)
            ));
        }
        terminal.result(format!("  kill $(cat {})   # stops it", shown(&dir.join("pids"))));
        Ok(())
    }
}

/// The demonstration was asked to stop; everything that it started and made ends with the values that hold it.
pub fn interrupted(signal: u8) -> Failure {
    Failure::interrupted(
        signal,
        "the demonstration was asked to stop; its processes are ended",
        "start it again: nothing of it goes on",
    )
}

fn terminate(pid: u32) {
    // `kill` of procps and busybox alike; a process that is gone already is no error.
    let _ = Command::new("kill").arg("-TERM").arg(pid.to_string()).stderr(Stdio::null()).status();
}

fn program() -> Result<PathBuf, Failure> {
    std::env::current_exe().map_err(|error| local(&error))
}

/// Runs one of our own commands to its end.
fn starminer(args: &[&str]) -> Result<(), Failure> {
    let output = Command::new(program()?)
        .args(args)
        .arg("--quiet")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| local(&error))?;
    if output.status.success() {
        return Ok(());
    }
    let reason = format!("`starminer {}` failed: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    Err(Failure::local("demo.command", reason, "mend what it names and try again"))
}

fn free_port() -> Result<u16, Failure> {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|error| local(&error))
}

fn local(error: &std::io::Error) -> Failure {
    Failure::local("demo.io", error, "check free space, permissions and limits on processes")
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
