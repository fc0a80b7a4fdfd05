//! A TPM of this test's own: swtpm with certificates by its local authority, and tpm2-tools to talk to it.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// How long swtpm may take until it listens.
const START: Duration = Duration::from_secs(120);

pub struct Tpm {
    pub dir: TempDir,
    child: Child,
    port: u16,
}

impl Tpm {
    /// `None`, and says so, where the programs are not installed.
    pub fn start() -> Option<Self> {
        for program in ["swtpm", "swtpm_setup", "tpm2_quote"] {
            if Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
                eprintln!("skipped: {program} is not installed (Debian: swtpm, swtpm-tools, tpm2-tools)");
                return None;
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        fs::create_dir(path("state")).unwrap();
        fs::create_dir(path("ca")).unwrap();
        fs::write(
            path("ca.conf"),
            format!(
                "statedir = {0}\nsigningkey = {0}/key.pem\nissuercert = {0}/issuer.pem\ncertserial = {0}/serial\n",
                path("ca")
            ),
        )
        .unwrap();
        fs::write(path("ca.options"), "--platform-manufacturer Test\n--platform-version 1\n--platform-model Test\n")
            .unwrap();
        let localca = ["/usr/bin/swtpm_localca", "/usr/share/swtpm/swtpm-localca", "swtpm_localca"];
        let localca = localca.into_iter().find(|program| PathBuf::from(program).exists()).unwrap_or("swtpm_localca");
        fs::write(
            path("setup.conf"),
            format!(
                "create_certs_tool = {localca}\ncreate_certs_tool_config = {}\ncreate_certs_tool_options = {}\nactive_pcr_banks = sha1,sha256,sha384\n",
                path("ca.conf"),
                path("ca.options")
            ),
        )
        .unwrap();
        let made = Command::new("swtpm_setup")
            .args(["--tpm2", "--create-ek-cert", "--tpmstate", &path("state"), "--config", &path("setup.conf")])
            .args(["--write-ek-cert-files", &path(""), "--logfile", &path("setup.log")])
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}\n{}", fs::read_to_string(path("setup.log")).unwrap_or_default());
        let (child, port) = spawn(&path("state"));
        Some(Self { dir, child, port })
    }

    /// Power off, power on.
    pub fn reset(&mut self) {
        self.stop();
        (self.child, self.port) = spawn(&self.dir.path().join("state").display().to_string());
    }

    fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Runs a tool of tpm2-tools: words by blanks, files in the test's directory.
    pub fn try_run(&self, words: &str) -> Output {
        let mut words = words.split_whitespace();
        Command::new(words.next().unwrap())
            .args(words)
            .current_dir(self.dir.path())
            .env("TPM2TOOLS_TCTI", format!("swtpm:host=127.0.0.1,port={}", self.port))
            .output()
            .unwrap()
    }

    #[track_caller]
    pub fn run(&self, words: &str) {
        let output = self.try_run(words);
        assert!(output.status.success(), "{words}: {output:?}");
    }

    pub fn file(&self, name: &str) -> Vec<u8> {
        fs::read(self.dir.path().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.dir.path().join(name), bytes).unwrap();
    }
}

impl Drop for Tpm {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Starts swtpm on two ports of its own, one after the other, as the tools expect them.
fn spawn(state: &str) -> (Child, u16) {
    let deadline = Instant::now() + START;
    loop {
        assert!(Instant::now() < deadline, "swtpm does not start");
        let Some(port) = free_ports() else { continue };
        let mut child = Command::new("swtpm")
            .args(["socket", "--tpm2", "--tpmstate", &format!("dir={state}"), "--flags", "not-need-init,startup-clear"])
            .args(["--server", &format!("type=tcp,bindaddr=127.0.0.1,port={port}")])
            .args(["--ctrl", &format!("type=tcp,bindaddr=127.0.0.1,port={}", port + 1)])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Until it listens, or has ended because another process took the port.
        while child.try_wait().unwrap().is_none() && Instant::now() < deadline {
            if TcpStream::connect(("127.0.0.1", port + 1)).is_ok() {
                return (child, port);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn free_ports() -> Option<u16> {
    let first = TcpListener::bind("127.0.0.1:0").ok()?;
    let port = first.local_addr().ok()?.port();
    TcpListener::bind(("127.0.0.1", port.checked_add(1)?)).ok()?;
    Some(port)
}
