//! A machine without silicon: keys, firmware's variables, a TPM, QEMU.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use starminer_host::command::{DISK_SERIAL, QEMU, SWTPM, arguments, tpm_arguments};
use starminer_host::{Accelerator, Boot, Tee, Tpm, TpmDevice};

use crate::emulator::Swtpm;
use crate::support::{must, program, text};

/// The firmware of all machines.
pub const FIRMWARE_CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";
const STUB: &str = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub";
/// Owner of the keys: any will do.
const OWNER: &str = "11111111-2222-3333-4444-123456789abc";
/// How long anything may take; a machine in software on a busy machine is slow.
const TIMEOUT: Duration = Duration::from_secs(300);

/// What the firmware does before it starts an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firmware {
    /// Secure Boot is on, with the key `db`.
    ChecksKeys,
    /// Secure Boot is off.
    ChecksNothing,
}

/// Where a node keeps what is of tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// In memory, gone with each start.
    Memory,
    /// On a disk of its own.
    Disk,
}

/// What outlives a boot.
#[derive(Debug, Clone, Copy)]
pub struct Data<'a> {
    /// The disk for the node's data.
    pub disk: &'a Path,
    /// The directory with the TPM's state.
    pub tpm: &'a Path,
    /// An empty file for what the disk is sent, if that is wanted ([`crate::power_loss`]).
    pub writes: Option<&'a Path>,
}

/// What machines of one test share.
pub struct Lab {
    tpm: Swtpm,
    tools: Tools,
}

struct Tools {
    kernel: PathBuf,
    virt_fw_vars: PathBuf,
    programs: PathBuf,
}

impl Lab {
    /// `None`, and says so, where something is missing.
    pub fn new() -> Option<Self> {
        let profile = Path::new(program()).parent().unwrap();
        let target = profile.parent().unwrap();
        let missing = |what: &str| {
            eprintln!("skipped: {what} (cargo xtask test installs it)");
            None
        };
        let boot = fs::read_dir(target.join("tools/kernel/boot")).into_iter().flatten().flatten();
        let kernel = boot.map(|entry| entry.path()).find(|path| text(path).contains("/vmlinuz-"));
        let Some(kernel) = kernel else { return missing("there is no kernel in the target directory's tools/kernel") };
        let tools = Tools {
            kernel,
            virt_fw_vars: target.join("tools/virt-firmware/bin/virt-fw-vars"),
            programs: profile.join("image"),
        };
        for file in [
            Path::new(FIRMWARE_CODE),
            Path::new(VARIABLES),
            Path::new(STUB),
            &tools.virt_fw_vars,
            &tools.programs.join("starminer-init"),
            &tools.programs.join("starminer-agent"),
        ]
        .into_iter()
        .chain(starminer_image::DISK_PROGRAMS.map(Path::new))
        {
            if !file.exists() {
                return missing(&format!("{} is missing", file.display()));
            }
        }
        for tool in ["qemu-system-x86_64", "sbsign", "openssl"] {
            if Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
                return missing(&format!("{tool} is not installed"));
            }
        }
        // Of each bank that is there, firmware and stub make digests of the whole image, which takes its time in software.
        let mut tpm = Swtpm::start_with("sha256")?;
        // QEMU has one of its own from the same state.
        tpm.kill();
        let lab = Self { tpm, tools };
        for name in ["db", "other"] {
            let (key, certificate) = (text(&lab.path(&format!("{name}.key"))), text(&lab.path(&format!("{name}.crt"))));
            let subject = format!("/CN={name}");
            run(
                "openssl",
                &[
                    "req",
                    "-newkey",
                    "rsa:2048",
                    "-nodes",
                    "-x509",
                    "-sha256",
                    "-days",
                    "30",
                    "-subj",
                    &subject,
                    "-keyout",
                    &key,
                    "-out",
                    &certificate,
                ],
            );
        }
        let certificate = text(&lab.path("db.crt"));
        run(
            &text(&lab.tools.virt_fw_vars),
            &[
                "--input",
                VARIABLES,
                "--output",
                &text(&lab.path("vars.fd")),
                "--set-pk",
                OWNER,
                &certificate,
                "--add-kek",
                OWNER,
                &certificate,
                "--add-db",
                OWNER,
                &certificate,
                "--sb",
            ],
        );
        Some(lab)
    }

    /// A file of this lab's.
    pub fn path(&self, name: &str) -> PathBuf {
        self.tpm.dir.path().join(name)
    }

    /// A directory for a host's state, with this lab's TPM in it.
    pub fn tpm_state_in(&self, name: &str) -> PathBuf {
        let state = self.path(name);
        crate::support::copy_dir(&self.path("state"), &state.join("tpm"));
        state
    }

    /// The firmware's variables with the lab's keys, Secure Boot on.
    pub fn variables(&self) -> PathBuf {
        self.path("vars.fd")
    }

    /// How long the agent is.
    pub fn agent_bytes(&self) -> u64 {
        fs::metadata(self.tools.programs.join("starminer-agent")).unwrap().len()
    }

    /// The root of the TPM's maker.
    pub fn tpm_root(&self) -> PathBuf {
        self.path("ca/swtpm-localca-rootca-cert.pem")
    }

    /// Builds an image with these options, signed with one of the keys, and says where it is.
    pub fn build(&self, name: &str, key: &str, options: &[&str]) -> PathBuf {
        let out = self.path(name);
        let [key, certificate] = ["key", "crt"].map(|kind| text(&self.path(&format!("{key}.{kind}"))));
        let (place, kernel) = (text(&out), text(&self.tools.kernel));
        let build = ["image", "build", "--out", &place, "--sign", &key, "--cert", &certificate];
        let usual: &[&str] = if options.contains(&"--kernel") { &[] } else { &["--kernel", &kernel] };
        must(build.iter().chain(usual).chain(options));
        out
    }

    /// The kernel with one byte of its version's text changed.
    pub fn kernel_with_another_byte(&self) -> String {
        /// Where a kernel says where that text is, from the end of its first sector on.
        const VERSION_AT: usize = 0x20e;
        let mut kernel = fs::read(&self.tools.kernel).unwrap();
        let at = usize::from(u16::from_le_bytes([kernel[VERSION_AT], kernel[VERSION_AT + 1]])) + 0x200;
        assert!(kernel[at].is_ascii_digit(), "no version of a kernel");
        kernel[at] ^= 1;
        let place = self.path("vmlinuz-other");
        fs::write(&place, kernel).unwrap();
        text(&place)
    }

    /// The directory of the kernel's modules.
    pub fn modules(&self) -> String {
        let all = self.tools.kernel.parent().unwrap().join("../lib/modules");
        text(&fs::read_dir(all).unwrap().next().unwrap().unwrap().path())
    }

    /// The first process with one byte more behind its end, which changes nothing of what it does.
    pub fn init_with_another_byte(&self) -> String {
        let mut init = fs::read(self.tools.programs.join("starminer-init")).unwrap();
        init.push(0);
        let place = self.path("init");
        fs::write(&place, init).unwrap();
        text(&place)
    }

    /// What a node is told, in a directory of its own.
    pub fn credentials(&self, network: &str, storage: Storage) -> PathBuf {
        let dir = self.path("credentials");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("network.toml.cred"), network).unwrap();
        let storage = match storage {
            Storage::Memory => "",
            Storage::Disk => "storage = \"disk\"\n",
        };
        let node = format!("address = \"10.0.2.15/24\"\n{storage}places = 1\n[limits]\nmemory_bytes = 536870912\n");
        fs::write(dir.join("node.toml.cred"), node).unwrap();
        let certificates = [self.path("ca/issuer.pem"), self.tpm_root()].map(|file| fs::read(file).unwrap()).concat();
        fs::write(dir.join("tpm-certificates.pem.cred"), certificates).unwrap();
        dir
    }

    /// What a machine of this lab will measure that starts an image and is told this, as reference values: from files, before any has started.
    pub fn predict(&self, image: &Path, credentials: &Path) -> Vec<u8> {
        let out = self.path("values.json");
        let measure =
            ["image", "measure", &text(image), "--firmware", FIRMWARE_CODE, "--vars", &text(&self.path("vars.fd"))];
        let told = ["--credentials", &text(credentials), "--select", "0,2,4,7,9,11", "--out", &text(&out)];
        must(measure.iter().chain(&told));
        fs::read(out).unwrap()
    }

    /// Starts a machine from a disk with this image, and what a node is told where there is a network.
    pub fn boot(&self, image: &Path, firmware: Firmware, network: Option<&str>) -> Machine {
        self.boot_with(image, firmware, network, None)
    }

    /// The same, with a disk for the node's data.
    pub fn boot_with(
        &self,
        image: &Path,
        firmware: Firmware,
        network: Option<&str>,
        data: Option<Data<'_>>,
    ) -> Machine {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir_all(path("esp/EFI/BOOT")).unwrap();
        fs::copy(image, path("esp/EFI/BOOT/BOOTX64.EFI")).unwrap();
        if let Some(network) = network {
            let credentials = path("esp/loader/credentials");
            fs::create_dir_all(&credentials).unwrap();
            for told in
                fs::read_dir(self.credentials(network, data.map_or(Storage::Memory, |_| Storage::Disk))).unwrap()
            {
                let told = told.unwrap();
                fs::copy(told.path(), credentials.join(told.file_name())).unwrap();
            }
        }
        let variables = match firmware {
            Firmware::ChecksKeys => self.path("vars.fd"),
            Firmware::ChecksNothing => VARIABLES.into(),
        };
        fs::copy(variables, path("vars.fd")).unwrap();

        let tpm = Tpm {
            state: data.map_or_else(|| self.path("state"), |data| data.tpm.to_owned()),
            socket: path("tpm.sock"),
        };
        let composed = starminer_host::Machine {
            tee: Tee::None,
            accelerator: Accelerator::Tcg,
            memory_mib: 1024,
            vcpus: 2,
            boot: Boot::Partition { code: FIRMWARE_CODE.into(), variables: path("vars.fd"), partition: path("esp") },
            tpm: Some(TpmDevice::Emulated(tpm.socket.clone())),
            disk: data.filter(|data| data.writes.is_none()).map(|data| data.disk.to_owned()),
            orders: path("orders"),
        };
        let swtpm = Command::new(SWTPM)
            .args(tpm_arguments(&tpm))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let started = Instant::now();
        let mut machine = Machine { processes: vec![swtpm], console: path("console.txt"), started, _dir: dir };
        machine.wait_until("swtpm to listen", || tpm.socket.exists());
        let console = File::create(&machine.console).unwrap();
        let mut qemu = Command::new(QEMU);
        qemu.args(arguments(&composed));
        if let Some(Data { disk, writes: Some(log), .. }) = data {
            let drive = format!(
                "driver=blklogwrites,node-name=data,log-sector-size=512,file.driver=file,file.filename={},log.driver=file,log.filename={}",
                text(disk),
                text(log)
            );
            let device = format!("virtio-blk-pci,drive=data,serial={DISK_SERIAL}");
            qemu.args(["-blockdev", &drive, "-device", &device]);
        }
        let qemu = qemu.stdin(Stdio::null()).stdout(console.try_clone().unwrap()).stderr(console).spawn().unwrap();
        machine.processes.push(qemu);
        machine
    }
}

/// A machine that runs; it ends with this.
pub struct Machine {
    /// The TPM, and then the machine.
    processes: Vec<Child>,
    console: PathBuf,
    started: Instant,
    _dir: tempfile::TempDir,
}

impl Machine {
    /// Whether these bytes are in its memory, as whoever runs it sees that.
    pub fn memory_has(&self, needle: &[u8]) -> bool {
        crate::tamper::memory_of_process_has(self.processes.last().unwrap().id(), needle)
    }

    /// Since it was switched on.
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// All that it said.
    pub fn console(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.console).unwrap_or_default()).into_owned()
    }

    /// Waits for a whole line with this in it.
    pub fn wait_for(&mut self, wanted: &str) -> String {
        let until = Instant::now() + TIMEOUT;
        loop {
            // Asked before the console is read: what a machine said before it ended is in there.
            let ended = self.processes.iter_mut().any(|process| process.try_wait().unwrap().is_some());
            let console = self.console();
            let mut whole = console.split_inclusive('\n').filter(|line| line.ends_with('\n'));
            if let Some(line) = whole.find(|line| line.contains(wanted)) {
                return line.to_owned();
            }
            assert!(!ended, "the machine ended and never said {wanted:?}");
            assert!(Instant::now() < until, "the machine never said {wanted:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn wait_until(&self, what: &str, holds: impl Fn() -> bool) {
        let until = Instant::now() + TIMEOUT;
        while !holds() {
            assert!(Instant::now() < until, "waited in vain for {what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for process in self.processes.iter_mut().rev() {
            let _ = process.kill();
            let _ = process.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- console\n{}", self.console());
        }
    }
}

fn run(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{program}: {output:?}");
    output
}
