//! A network of real processes for tests, started by the very commands that an operator uses, and a requester in this process.
//!
//! Each network has a temporary directory and free ports of its own; everything it started ends with it.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

pub mod guests;
pub mod moments;
pub mod primes;
pub mod watching;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::hash::{BuildHasher as _, RandomState};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use starminer_client::CoordinatorClient;
use starminer_receipt::{Determinism, Limits, NetworkTrust, OnnxManifest, Sensitivity, WasmGrants, WasmManifest};
use starminer_requester::{Event, EventSink, Home, InputSource, JobPlan, Requester};
use starminer_tls::IdentityKey;
use starminer_verify::{Policy, UnixTime};
use zeroize::Zeroizing;

/// Name of the simulated root of every test network.
pub const ROOT_NAME: &str = "test software TEE";
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// The built program.
pub fn program() -> &'static str {
    env!("CARGO_BIN_EXE_starminer")
}

/// Runs a command to its end.
pub fn starminer<I: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = I>) -> Output {
    Command::new(program()).args(args).stdin(Stdio::null()).output().expect("the program runs")
}

/// Runs a command that must succeed.
pub fn must<I: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = I>) -> Output {
    let output = starminer(args);
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// A file of `examples/`.
pub fn example(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// This machine's clock.
pub fn now() -> UnixTime {
    UnixTime(u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap())
}

/// A running network.
pub struct Network {
    dir: tempfile::TempDir,
    pub address: String,
    processes: Mutex<BTreeMap<String, Child>>,
}

impl Drop for Network {
    fn drop(&mut self) {
        for child in self.processes.get_mut().unwrap().values_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            for entry in fs::read_dir(self.dir.path()).into_iter().flatten().flatten() {
                if let Ok(log) = fs::read_to_string(entry.path().join("log.txt")) {
                    eprintln!("--- {}\n{log}", entry.path().display());
                }
            }
        }
    }
}

/// A port that nobody listens at, out of those that the system gives to nobody who asks for any: whoever asks for one here is its only user.
fn free_port() -> u16 {
    loop {
        let drawn = RandomState::new().hash_one(std::process::id()) % 20_000;
        let port = 12_000 + u16::try_from(drawn).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

impl Network {
    /// A coordinator and this many nodes.
    pub fn start(nodes: usize) -> Self {
        let network = Self::coordinator_only();
        for number in 1..=nodes {
            network.add_node(&format!("node{number}"));
        }
        network
    }

    /// A coordinator and nothing else.
    pub fn coordinator_only() -> Self {
        Self::with_limits(&[])
    }

    /// A coordinator whose `limits` have these settings, each given as the path to it and the number.
    pub fn with_limits(settings: &[(&[&str], i64)]) -> Self {
        let network = Self::prepared();
        let path = network.path("coordinator").join("coordinator.toml");
        let mut text: toml::Table = fs::read_to_string(&path).unwrap().parse().unwrap();
        for (setting, value) in settings {
            let (last, tables) = setting.split_last().unwrap();
            let mut table = text["limits"].as_table_mut().unwrap();
            for name in tables {
                table = table[*name].as_table_mut().unwrap();
            }
            assert!(table.insert((*last).into(), (*value).into()).is_some(), "{setting:?} is no setting");
        }
        fs::write(&path, text.to_string()).unwrap();
        network.start_process("coordinator");
        network
    }

    /// A network of which nothing runs yet.
    pub fn prepared() -> Self {
        Self::prepared_with(&[])
    }

    /// The same, with more options of `coordinator init`.
    pub fn prepared_with(options: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("starminer-test-").tempdir().unwrap();
        let port = free_port();
        let address = format!("127.0.0.1:{port}");
        let coordinator = dir.path().join("coordinator");
        let place = text(&coordinator);
        let init = ["coordinator", "init", &place, "--name", "test", "--listen", &address, "--software-tee"];
        must(init.iter().chain(options));
        Self { dir, address, processes: Mutex::default() }
    }

    /// Prepares a node and starts it.
    pub fn add_node(&self, name: &str) {
        self.init_enclave("node", name);
        self.start_process(name);
    }

    /// Prepares a broker and starts it.
    pub fn add_broker(&self) {
        self.init_enclave("broker", "broker");
        self.start_process("broker");
    }

    /// Prepares a node.
    pub fn init_node(&self, name: &str) {
        self.init_enclave("node", name);
    }

    fn init_enclave(&self, kind: &str, name: &str) {
        let coordinator = self.path("coordinator");
        must([
            kind,
            "init",
            &text(&self.path(name)),
            "--network",
            &text(&coordinator.join("network.toml")),
            "--software-tee-root",
            &text(&coordinator.join("software-tee-root.key")),
        ]);
    }

    /// Starts (again) a process whose directory is there, and waits until it is ready.
    pub fn start_process(&self, name: &str) {
        self.launch(name);
        self.wait_ready(name);
    }

    /// The same without waiting: a node is ready when it is admitted.
    pub fn launch(&self, name: &str) {
        let dir = self.path(name);
        let kind = if name == "coordinator" || name == "broker" { name } else { "node" };
        let _ = fs::remove_file(dir.join("ready"));
        let log = File::options().create(true).append(true).open(dir.join("log.txt")).unwrap();
        let child = Command::new(program())
            .args([kind, "run", &text(&dir), "--diagnostics", "info"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.processes.lock().unwrap().insert(name.into(), child);
    }

    fn wait_ready(&self, name: &str) {
        let until = Instant::now() + START_TIMEOUT;
        while !self.path(name).join("ready").exists() {
            let ended = self.processes.lock().unwrap().get_mut(name).and_then(|child| child.try_wait().unwrap());
            assert!(ended.is_none() && Instant::now() < until, "{name} did not start: {}", self.log(name));
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&self, name: &str) {
        let mut child = self.processes.lock().unwrap().remove(name).expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// `kill -9` and start again.
    pub fn restart(&self, name: &str) {
        self.kill(name);
        self.start_process(name);
    }

    /// Stops a process as `SIGSTOP` does: it goes on as if nothing had been when it is told to.
    pub fn pause(&self, name: &str) {
        self.signal(name, "STOP");
    }

    /// Lets a paused process go on.
    pub fn resume(&self, name: &str) {
        self.signal(name, "CONT");
    }

    fn signal(&self, name: &str, signal: &str) {
        // By the shell's own `kill`: these tests have no unsafe code.
        let command = format!("kill -{signal} {}", self.pid(name));
        assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success());
    }

    /// Waits until a guest runs on a node: one of its task processes has used this much time of a processor.
    pub fn wait_guest_runs(&self, node: &str) {
        self.wait_until("a guest that runs", || self.guest_runs(node));
    }

    /// Waits until something can be seen from outside.
    pub fn wait_until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let until = Instant::now() + START_TIMEOUT;
        while !holds() {
            assert!(Instant::now() < until, "waited in vain for {what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Whether a guest runs on a node.
    pub fn guest_runs(&self, node: &str) -> bool {
        descendants(self.pid(node)).into_iter().any(|id| cpu_ticks(id) >= GUEST_TICKS)
    }

    /// Process id.
    pub fn pid(&self, name: &str) -> u32 {
        self.processes.lock().unwrap()[name].id()
    }

    /// What it printed.
    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.path(name).join("log.txt")).unwrap_or_default()
    }

    /// Directory of a process.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Directories of everyone but requesters.
    pub fn operator_dirs(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.dir.path()).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| !path.file_name().unwrap().to_string_lossy().starts_with("requester")).collect()
    }

    /// The trust file.
    pub fn trust(&self) -> NetworkTrust {
        Home::read_network(&self.path("coordinator").join("network.toml")).unwrap()
    }

    /// A home directory named `requester…` with an identity and the trust file.
    pub fn home(&self, name: &str) -> (Home, Arc<IdentityKey>) {
        assert!(name.starts_with("requester"));
        let home = Home::open(&self.path(name)).unwrap();
        fs::copy(self.path("coordinator").join("network.toml"), home.network_path()).unwrap();
        let identity = IdentityKey::load_or_create(&home.identity_path()).unwrap();
        (home, Arc::new(identity))
    }

    /// A client with an identity.
    pub fn client(&self, identity: &Arc<IdentityKey>) -> CoordinatorClient {
        let trust = self.trust();
        CoordinatorClient::connect_as(&self.address, trust.coordinator.key.0, identity).unwrap()
    }

    /// A requester in this process; it must be called inside a multi-thread runtime. Called again it takes up what is open in
    /// that home once it is told to wait for it.
    pub fn requester(&self, name: &str) -> Requester {
        self.requester_with(name, Arc::new(|_: Event| {}))
    }

    /// The same, with someone who hears events.
    pub fn requester_with(&self, name: &str, events: EventSink) -> Requester {
        let (home, identity) = self.home(name);
        let seed = Zeroizing::new(*identity.seed());
        Requester::start(self.client(&identity), home, self.trust(), &seed, events, now).unwrap()
    }

    /// The broker of this network, as soon as the coordinator has heard of it.
    pub async fn broker(&self, requester: &Requester) -> starminer_verify::PublicKey {
        let until = Instant::now() + START_TIMEOUT;
        loop {
            if let Some(broker) = requester.client().network().await.unwrap().brokers.first() {
                return *broker;
            }
            assert!(Instant::now() < until, "the broker does not come: {}", self.log("broker"));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// A wasm job on this network's simulated TEEs.
    pub fn wasm_job(&self, workload: Vec<u8>, inputs: &[(&str, Vec<u8>)]) -> JobPlan {
        Self::wasm_job_for(&self.trust(), workload, inputs)
    }

    /// The same for any network.
    pub fn wasm_job_for(trust: &NetworkTrust, workload: Vec<u8>, inputs: &[(&str, Vec<u8>)]) -> JobPlan {
        let mut fields = Policy::confidential().fields().clone();
        fields.accepted_simulated_roots = trust.simulated_root_ids().collect();
        JobPlan {
            workload: InputSource::Bytes(workload.into()),
            inputs: inputs
                .iter()
                .map(|(name, bytes)| ((*name).to_string(), InputSource::Bytes(Bytes::from(bytes.clone()))))
                .collect(),
            wasm: Some(WasmManifest::default()),
            onnx: None,
            determinism: Determinism::Native,
            grants: WasmGrants::default(),
            limits: Limits { wall_limit_ms: 60_000, ..Limits::default() },
            sensitivity: Sensitivity::Confidential,
            policy: Policy::new(fields).unwrap(),
            reference_values: trust.reference_values.clone(),
            enrollers: trust.enrollers.clone(),
            facilities: trust.facilities.clone(),
            max_attempts: 5,
            valid_for_ms: 3_600_000,
        }
    }
}

impl Network {
    /// The private diagnosis of `examples/`.
    pub fn diagnosis_job(&self) -> JobPlan {
        let mut job =
            self.wasm_job(example("diagnosis/model.onnx"), &[("patients.csv", example("diagnosis/patients.csv"))]);
        job.wasm = None;
        job.onnx = Some(OnnxManifest {
            input: "patients.csv".into(),
            output: "predictions.csv".into(),
            id_column: Some("patient".into()),
            ignore_columns: Vec::new(),
        });
        job
    }
}

/// Predictions are those of the expected table: the same patients, and the same labels.
#[track_caller]
pub fn assert_diagnosis(predictions: &Path) {
    let labels = |table: &str| -> Vec<(String, String)> {
        let mut rows = table.lines().map(|row| row.split(',').map(str::to_owned).collect::<Vec<_>>());
        let label = rows.next().unwrap().iter().position(|name| name == "label").unwrap();
        rows.map(|row| (row[0].clone(), row[label].clone())).collect()
    };
    let expected = labels(&String::from_utf8(example("diagnosis/expected.csv")).unwrap());
    assert_eq!(labels(&fs::read_to_string(predictions).unwrap()), expected);
    assert_eq!(expected.len(), 569);
}

/// A small disk of its own over a directory; only root can have one.
pub struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// Mounts it; `None`, said loudly, where that is not allowed.
    pub fn over(path: &Path, mebibytes: u32) -> Option<Self> {
        fs::create_dir_all(path).unwrap();
        let options = format!("size={mebibytes}m,mode=700");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(path).output();
        if mount.is_ok_and(|output| output.status.success()) {
            return Some(Self { path: path.into() });
        }
        eprintln!("SKIPPED: only root can mount a small disk, and without one no disk is full");
        None
    }

    /// Writes until nothing more fits.
    pub fn fill(&self) {
        use std::io::Write as _;
        let mut file = File::create(self.path.join("ballast")).unwrap();
        let mut piece = vec![0xBA; 1 << 20];
        while !piece.is_empty() {
            match file.write(&piece) {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => {
                    let half = piece.len() / 2;
                    piece.truncate(half);
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Makes room again.
    pub fn free(&self) {
        fs::remove_file(self.path.join("ballast")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: processes may still have files on it.
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

/// Hundredths of a second that a task process has used once it is certain that its guest runs: before that it waits most of the time.
const GUEST_TICKS: u64 = 15;

/// Children of a process, their children, and so on.
fn descendants(id: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let mut open = vec![id];
    while let Some(id) = open.pop() {
        for thread in fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            let children: Vec<u32> = children.split_whitespace().map(|child| child.parse().unwrap()).collect();
            found.extend(&children);
            open.extend(&children);
        }
    }
    found
}

/// User time of a process; 0 where it is gone.
fn cpu_ticks(id: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    // After the name, which may hold anything, the 12th field is `utime`.
    stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(11)?.parse().ok()).unwrap_or(0)
}

/// A path as text.
/// Copies a directory with all that is below it.
pub fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let place = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &place);
        } else {
            fs::copy(entry.path(), place).unwrap();
        }
    }
}

pub fn text(path: &Path) -> String {
    path.display().to_string()
}

/// A runtime for a test.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Every file below these directories.
pub fn files_below(dirs: &[PathBuf]) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut open = dirs.to_vec();
    while let Some(dir) = open.pop() {
        // What a running process removes meanwhile is not there.
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => open.push(entry.path()),
                Ok(kind) if kind.is_file() => files.push(entry.path()),
                _ => {}
            }
        }
    }
    files
}

/// How often any of these is in a file below the directories, with the files.
pub fn search(dirs: &[PathBuf], needles: &[Vec<u8>]) -> Vec<(PathBuf, usize)> {
    let mut hits = Vec::new();
    for file in files_below(dirs) {
        let Ok(content) = fs::read(&file) else { continue };
        for (index, needle) in needles.iter().enumerate() {
            if content.windows(needle.len()).any(|window| window == needle) {
                hits.push((file.clone(), index));
            }
        }
    }
    hits
}
