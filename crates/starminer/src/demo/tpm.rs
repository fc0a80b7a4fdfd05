//! An emulated TPM for the demonstration, where swtpm is installed: made, certified and run as any provider would for a try.
//!
//! Its certificate authority is made on the spot. Nobody trusts it but this demonstration's own network, whose trust file names its root, and
//! so what rests on it is SIMULATED.

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::cli::demo_support::Failure;

/// How long the emulator may take until it listens.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// Where distributions put the tool that certifies.
const CERTIFYING_TOOLS: [&str; 2] = ["/usr/bin/swtpm_localca", "/usr/share/swtpm/swtpm-localca"];

/// swtpm knows no end of its own: a shell ends it with its own standard input, or when it is asked to stop itself.
const WITH_LIFELINE: &str = r#"exec 3<&0
swtpm "$@" 3<&- </dev/null &
tpm=$!
trap 'kill $tpm' TERM
{ cat <&3 >/dev/null; kill $tpm 2>/dev/null; } &
watch=$!
exec 3<&-
wait $tpm
kill $watch 2>/dev/null"#;

/// A TPM that is made, and not running yet.
pub struct EmulatedTpm {
    dir: PathBuf,
}

/// Longest path of a directory whose sockets have names that the kernel takes (107 bytes, `sun_path`).
const MAX_DIR_BYTES: usize = 80;

/// Whether this machine has what it takes, and the directory a path that sockets can have.
pub fn is_possible(dir: &Path) -> bool {
    dir.as_os_str().len() <= MAX_DIR_BYTES && is_installed()
}

fn is_installed() -> bool {
    ["swtpm", "swtpm_setup"].into_iter().all(on_path) && CERTIFYING_TOOLS.iter().any(|tool| Path::new(tool).exists())
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

impl EmulatedTpm {
    /// Makes a TPM with an endorsement key and its certificate below `dir`.
    pub fn make(dir: &Path) -> Result<Self, Failure> {
        let tpm = Self { dir: dir.to_path_buf() };
        let path = |name: &str| dir.join(name).display().to_string();
        for name in ["", "state", "ca"] {
            fs::create_dir_all(dir.join(name)).map_err(|error| failed(&error))?;
        }
        let tool = CERTIFYING_TOOLS.into_iter().find(|tool| Path::new(tool).exists()).unwrap_or(CERTIFYING_TOOLS[0]);
        let files = [
            (
                "ca.conf",
                format!(
                    "statedir = {0}\nsigningkey = {0}/key.pem\nissuercert = {0}/issuer.pem\ncertserial = {0}/serial\n",
                    path("ca")
                ),
            ),
            (
                "ca.options",
                "--platform-manufacturer StarMiner\n--platform-version 1\n--platform-model Demonstration\n".to_owned(),
            ),
            (
                "setup.conf",
                format!(
                    "create_certs_tool = {tool}\ncreate_certs_tool_config = {}\ncreate_certs_tool_options = {}\nactive_pcr_banks = sha256\n",
                    path("ca.conf"),
                    path("ca.options")
                ),
            ),
        ];
        for (name, text) in files {
            fs::write(dir.join(name), text).map_err(|error| failed(&error))?;
        }
        let made = Command::new("swtpm_setup")
            .args(["--tpm2", "--create-ek-cert", "--tpmstate", &path("state"), "--config", &path("setup.conf")])
            .args(["--logfile", &path("setup.log")])
            .stdin(Stdio::null())
            .output()
            .map_err(|error| failed(&error))?;
        if made.status.success() {
            return Ok(tpm);
        }
        let log = fs::read_to_string(dir.join("setup.log")).unwrap_or_default();
        Err(failed(&format!("swtpm_setup failed: {}", log.lines().last().unwrap_or("it says nothing"))))
    }

    /// The root of its authority.
    pub fn root(&self) -> PathBuf {
        self.dir.join("ca").join("swtpm-localca-rootca-cert.pem")
    }

    /// What stands between its certificate and that root, and the root.
    pub fn authorities(&self) -> [PathBuf; 2] {
        [self.dir.join("ca").join("issuer.pem"), self.root()]
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("tpm.sock")
    }

    /// How a node finds it.
    pub fn address(&self) -> String {
        format!("unix:{}", self.socket().display())
    }

    /// Starts it, in a process group of its own; it is switched on when it listens. Unless it shall outlive this program, it ends when the
    /// child's standard input does.
    pub fn start(&self, outlives_demo: bool) -> Result<Child, Failure> {
        let socket = |path: PathBuf| format!("type=unixio,path={}", path.display());
        let log = File::create(self.dir.join("log.txt")).map_err(|error| failed(&error))?;
        let mut command = if outlives_demo {
            Command::new("swtpm")
        } else {
            let mut shell = Command::new("sh");
            shell.args(["-c", WITH_LIFELINE, "swtpm"]);
            shell
        };
        let mut child = command
            .args(["socket", "--tpm2", "--tpmstate", &format!("dir={}", self.dir.join("state").display())])
            .args(["--flags", "not-need-init,startup-clear"])
            .args(["--server", &socket(self.socket()), "--ctrl", &socket(self.dir.join("tpm.sock.ctrl"))])
            .stdin(if outlives_demo { Stdio::null() } else { Stdio::piped() })
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0)
            .spawn()
            .map_err(|error| failed(&error))?;
        let until = Instant::now() + START_TIMEOUT;
        // Both of its sockets: it opens one after the other.
        let listens = |name: &str| UnixStream::connect(self.dir.join(name)).is_ok();
        while !(listens("tpm.sock.ctrl") && listens("tpm.sock")) {
            let ended = child.try_wait().map_err(|error| failed(&error))?;
            if ended.is_some() || Instant::now() > until {
                // The shell's standard input ends with it, and swtpm with that.
                drop(child.stdin.take());
                let _ = child.kill();
                let _ = child.wait();
                return Err(failed(&"swtpm does not listen"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(child)
    }
}

fn failed(reason: &dyn std::fmt::Display) -> Failure {
    Failure::local(
        "demo.tpm",
        format!("the emulated TPM: {reason}"),
        "mend what it names, or remove swtpm to do without",
    )
}
