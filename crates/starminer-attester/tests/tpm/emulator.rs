//! A TPM of a test's own: swtpm on a UNIX socket in a directory of its own, with certificates by its local authority.

use std::{
    fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// How long swtpm may take until it listens.
const START: Duration = Duration::from_secs(120);

pub struct Swtpm {
    pub dir: TempDir,
    child: Child,
}

impl Swtpm {
    /// `None`, and says so, where the programs are not installed.
    pub fn start() -> Option<Self> {
        Self::start_with("sha1,sha256,sha384")
    }

    /// The same with these banks of registers.
    pub fn start_with(banks: &str) -> Option<Self> {
        for program in ["swtpm", "swtpm_setup", "tpm2_checkquote"] {
            if Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
                eprintln!("skipped: {program} is not installed (Debian: swtpm, swtpm-tools, tpm2-tools)");
                return None;
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        fs::create_dir(path("state")).unwrap();
        fs::create_dir(path("ca")).unwrap();
        let authority = format!(
            "statedir = {0}\nsigningkey = {0}/key.pem\nissuercert = {0}/issuer.pem\ncertserial = {0}/serial\n",
            path("ca")
        );
        fs::write(path("ca.conf"), authority).unwrap();
        let options = "--platform-manufacturer Test\n--platform-version 1\n--platform-model Test\n";
        fs::write(path("ca.options"), options).unwrap();
        let tools = ["/usr/bin/swtpm_localca", "/usr/share/swtpm/swtpm-localca", "swtpm_localca"];
        let tool = tools.into_iter().find(|tool| Path::new(tool).exists()).unwrap_or("swtpm_localca");
        let setup = format!(
            "create_certs_tool = {tool}\ncreate_certs_tool_config = {}\ncreate_certs_tool_options = {}\nactive_pcr_banks = {banks}\n",
            path("ca.conf"),
            path("ca.options")
        );
        fs::write(path("setup.conf"), setup).unwrap();
        let made = Command::new("swtpm_setup")
            .args(["--tpm2", "--create-ek-cert", "--tpmstate", &path("state"), "--config", &path("setup.conf")])
            .args(["--logfile", &path("setup.log")])
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}\n{}", fs::read_to_string(path("setup.log")).unwrap_or_default());
        let child = spawn(dir.path());
        Some(Self { dir, child })
    }

    /// The process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("tpm.sock")
    }

    /// Power off, power on.
    pub fn reset(&mut self) {
        self.kill();
        self.child = spawn(self.dir.path());
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Runs a tool of tpm2-tools: words by blanks, files in the test's directory.
    pub fn try_run(&self, words: &str) -> Output {
        let mut words = words.split_whitespace();
        Command::new(words.next().unwrap())
            .args(words)
            .current_dir(self.dir.path())
            .env("TPM2TOOLS_TCTI", format!("swtpm:path={}", self.socket().display()))
            .output()
            .unwrap()
    }

    #[track_caller]
    pub fn run(&self, words: &str) -> String {
        let output = self.try_run(words);
        assert!(output.status.success(), "{words}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What is loaded: keys and sessions, as the tools tell it.
    pub fn left_behind(&self) -> String {
        ["handles-transient", "handles-loaded-session", "handles-saved-session"]
            .map(|kind| self.run(&format!("tpm2_getcap {kind}")))
            .concat()
    }

    pub fn file(&self, name: &str) -> Vec<u8> {
        fs::read(self.dir.path().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.dir.path().join(name), bytes).unwrap();
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(dir: &Path) -> Child {
    let socket = |name: &str| format!("type=unixio,path={}", dir.join(name).display());
    for name in ["tpm.sock", "tpm.sock.ctrl"] {
        let _ = fs::remove_file(dir.join(name));
    }
    let mut child = Command::new("swtpm")
        .args(["socket", "--tpm2", "--tpmstate", &format!("dir={}", dir.join("state").display())])
        .args(["--flags", "not-need-init,startup-clear"])
        .args(["--server", &socket("tpm.sock"), "--ctrl", &socket("tpm.sock.ctrl")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + START;
    // Both of its sockets: it opens one after the other.
    let listens = |name: &str| UnixStream::connect(dir.join(name)).is_ok();
    while !(listens("tpm.sock.ctrl") && listens("tpm.sock")) {
        assert!(child.try_wait().unwrap().is_none() && Instant::now() < deadline, "swtpm does not start");
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}
