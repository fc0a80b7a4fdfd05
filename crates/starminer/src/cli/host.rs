//! `starminer host …`: runs a node's image. What is run is composed by `starminer_host`; this file finds and lays out files, shows the console, and ends the machine when it is asked to.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;
use starminer_hardware::predict::PeImage;
use starminer_host::command::arguments;
use starminer_host::found::Kind;
use starminer_host::{
    Accelerator, Boot, Choice, Found, HostError, Machine, Running, Tee, Tpm, TpmDevice, Wanted, choose,
};
use starminer_image::measure::credentials::{Credentials, DIRECTORY};

use super::args::{AccelArg, HostCommand, HostRunArgs, HostTeeArg};
use super::exit::{self, Failure};
use super::home::with_sources;
use super::image::built::Built;
use super::image::measure::{Direct, read_credentials};
use super::interrupt::Interrupt;
use super::reference::make::pe_failure;
use super::reference::read;
use super::terminal::{Terminal, printable};

/// Debian's OVMF for a machine with a TPM, for SEV-SNP with kernel hashes, and for TDX.
const CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const SNP_FIRMWARE: &str = "/usr/share/ovmf/OVMF.amdsev.fd";
const TDX_FIRMWARE: &str = "/usr/share/ovmf/OVMF.inteltdx.fd";
/// How long a machine has after its power button was pressed: longer than its agent waits for tasks, unless that is told to wait longer.
const GRACE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);
/// Longest trust file or certificate that a node is told.
const MAX_TOLD_BYTES: usize = 256 * 1024;
/// Longest store of the firmware's variables.
const MAX_VARIABLES_BYTES: usize = 16 << 20;

/// Runs a node.
pub fn host(terminal: &Terminal, command: &HostCommand) -> Result<u8, Failure> {
    match command {
        HostCommand::Run(args) => run(terminal, args),
    }
}

fn run(terminal: &Terminal, args: &HostRunArgs) -> Result<u8, Failure> {
    let wanted = match args.tee {
        HostTeeArg::Auto => Wanted::Auto,
        HostTeeArg::Snp => Wanted::Snp,
        HostTeeArg::Tdx => Wanted::Tdx,
        HostTeeArg::None => Wanted::None,
    };
    let accelerator = match args.accel {
        AccelArg::Auto => None,
        AccelArg::Kvm => Some(Accelerator::Kvm),
        AccelArg::Tcg => Some(Accelerator::Tcg),
    };
    let choice = choose(wanted, accelerator, &Found::look(Path::new("/"))).map_err(|why| {
        let remedy = "switch it on in the firmware and the kernel (`starminer node doctor` says what is missing), or run with --tee none";
        Failure::local("host.tee", why, remedy)
    })?;
    let built = Built::read(&args.dir)?;
    let told = told(args)?;
    let state = State::open(&args.state)?;
    state.write_credentials(&told)?;
    // Paths of sockets have little room.
    let sockets = tempfile::Builder::new().prefix("starminer-host").tempdir().map_err(|error| state.failure(&error))?;
    let boot = boot(args, &choice, &built, &told, &state)?;
    let tpm = match (&choice.kind, &args.tpm) {
        (Kind::None, None) => Some(Tpm { state: state.dir.join("tpm"), socket: sockets.path().join("tpm") }),
        _ => None,
    };
    let machine = Machine {
        tee: match choice.kind {
            Kind::Snp => Tee::Snp { cpu: args.cpu.clone() },
            Kind::Tdx => Tee::Tdx,
            Kind::None => Tee::None,
        },
        accelerator: choice.accelerator,
        memory_mib: args.memory,
        vcpus: args.vcpus,
        boot,
        tpm: match (&tpm, &args.tpm) {
            (Some(tpm), _) => Some(TpmDevice::Emulated(tpm.socket.clone())),
            (None, device) => device.clone().map(TpmDevice::Passthrough),
        },
        disk: args.disk.as_deref().map(|disk| data_disk(disk, !args.dry_run)).transpose()?,
        orders: sockets.path().join("orders"),
    };
    let what = match choice.kind {
        Kind::Snp => "an SEV-SNP guest",
        Kind::Tdx => "a trust domain (TDX)",
        Kind::None => "a machine without a TEE",
    };
    terminal.say(format!("{what}: {}", choice.why));
    let command: Vec<String> = std::iter::once(starminer_host::children::QEMU.into())
        .chain(arguments(&machine))
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    if args.dry_run {
        let shown = command.iter().map(|argument| shell_word(argument)).collect::<Vec<_>>().join(" ");
        terminal.result(printable(shown));
        terminal.document(&json!({ "chosen": kind(choice.kind), "why": choice.why, "command": command }));
        return Ok(exit::OK);
    }
    if let Some(tpm) = &tpm {
        tpm.prepare().map_err(|error| failed(&error))?;
    }
    let interrupt = Interrupt::listen()?;
    let quiet = terminal.is_json();
    let console = move |line: &str| {
        // A closed pipe does not end the node.
        let _ = if quiet { writeln!(io::stderr(), "{line}") } else { writeln!(io::stdout(), "{line}") };
    };
    let mut running = Running::start(&machine, tpm.as_ref(), console).map_err(|error| failed(&error))?;
    let lost = |error: io::Error| Failure::local("host.lost", error, "see whether QEMU still runs");
    let mut asked: Option<(u8, Instant)> = None;
    let signal = loop {
        if let Some(status) = running.ended().map_err(lost)? {
            let complaint = running.complaint();
            if !status.success() {
                let why = if complaint.is_empty() { status.to_string() } else { complaint };
                let remedy =
                    "do what QEMU says; where KVM cannot run firmware: --accel tcg; SEV-SNP needs QEMU 9.1, TDX 10.1";
                return Err(Failure::local("host.qemu", why, remedy));
            }
            break asked.map(|(signal, _)| signal);
        }
        match (interrupt.heard(), asked) {
            (Some(signal), None) => {
                terminal.say("the machine is asked to stop; once more switches it off");
                // One that cannot be asked is switched off in the end.
                let _ = running.press_power_button();
                asked = Some((signal, Instant::now()));
            }
            (_, Some((signal, at))) if interrupt.heard_again() || at.elapsed() >= GRACE => {
                terminal.say("the machine is switched off");
                running.switch_off().map_err(lost)?;
                break Some(signal);
            }
            _ => {}
        }
        std::thread::sleep(POLL);
    };
    terminal.document(&json!({
        "chosen": kind(choice.kind), "why": choice.why, "command": command, "ended_by": if signal.is_some() { "host" } else { "machine" },
    }));
    match signal {
        Some(signal) => Ok(exit::SIGNALLED + signal),
        // A node runs until it is asked to stop: its image ends the machine where something is wrong.
        None => {
            let remedy = "the last lines of its console say why; codes of disks are in specs/disk.md";
            Err(Failure::local("host.ended", "the machine has switched itself off", remedy))
        }
    }
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Snp => "snp",
        Kind::Tdx => "tdx",
        Kind::None => "none",
    }
}

/// As a shell takes it for one word.
fn shell_word(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_=./:,".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

fn failed(error: &HostError) -> Failure {
    Failure::local(error.code(), with_sources(error), &error.remedy())
}

/// What outlives the machine; one at a time uses it.
struct State {
    dir: PathBuf,
    /// Locked for as long as this is.
    _lock: File,
}

impl State {
    fn open(dir: &Path) -> Result<Self, Failure> {
        let failure = |error: &dyn std::fmt::Display| {
            Failure::usage("host.state", format!("{}: {error}", dir.display()), "give a directory where you may write")
        };
        // What the emulated TPM keeps is for nobody else.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| failure(&error))?;
        // Paths are handed to programs that take those with a dash for options.
        let dir = dir.canonicalize().map_err(|error| failure(&error))?;
        let place = dir.join("lock");
        let lock =
            OpenOptions::new().create(true).truncate(false).write(true).open(place).map_err(|error| failure(&error))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { dir, _lock: lock }),
            Err(TryLockError::WouldBlock) => {
                let reason = format!("{}: a machine runs with this state", dir.display());
                Err(Failure::usage("host.state-in-use", reason, "end it, or give another directory"))
            }
            Err(TryLockError::Error(error)) => Err(failure(&error)),
        }
    }

    fn failure(&self, error: &io::Error) -> Failure {
        let reason = format!("{}: {error}", self.dir.display());
        Failure::local("host.state", reason, "check free space and permissions")
    }

    /// Writes a file into a directory of the state.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<PathBuf, Failure> {
        let place = self.dir.join(name);
        let made = place.parent().map_or(Ok(()), fs::create_dir_all);
        made.and_then(|()| fs::write(&place, bytes)).map_err(|error| self.failure(&error))?;
        Ok(place)
    }

    /// What the node is told, and nothing that an earlier one was told.
    fn write_credentials(&self, told: &Credentials) -> Result<(), Failure> {
        let place = self.dir.join("credentials");
        if place.exists() {
            fs::remove_dir_all(&place).map_err(|error| self.failure(&error))?;
        }
        for (name, contents) in told {
            self.write(&format!("credentials/{name}"), contents)?;
        }
        Ok(())
    }
}

/// What the node is told.
fn told(args: &HostRunArgs) -> Result<Credentials, Failure> {
    if let Some(dir) = &args.credentials {
        return read_credentials(dir);
    }
    let mut told = Credentials::new();
    if let Some(network) = &args.network {
        told.insert("network.toml.cred".into(), read(network, MAX_TOLD_BYTES)?);
    }
    let mut node = toml::Table::new();
    if let Some(address) = &args.address {
        node.insert("address".into(), address.clone().into());
    }
    if let Some(gateway) = &args.gateway {
        node.insert("gateway".into(), gateway.to_string().into());
    }
    if args.disk.is_some() {
        node.insert("storage".into(), "disk".into());
    }
    told.insert("node.toml.cred".into(), node.to_string().into_bytes());
    if !args.tpm_certificate.is_empty() {
        let mut all = Vec::new();
        for path in &args.tpm_certificate {
            all.extend(read(path, MAX_TOLD_BYTES)?);
            all.push(b'\n');
        }
        told.insert("tpm-certificates.pem.cred".into(), all);
    }
    Ok(told)
}

/// Lays out what the machine starts.
fn boot(
    args: &HostRunArgs,
    choice: &Choice,
    built: &Built,
    told: &Credentials,
    state: &State,
) -> Result<Boot, Failure> {
    let firmware = |default: &str, remedy: &str| -> Result<PathBuf, Failure> {
        let place = args.firmware.clone().unwrap_or_else(|| default.into());
        let found = place.canonicalize().ok().filter(|place| place.is_file());
        found.ok_or_else(|| Failure::usage("host.firmware", format!("there is no {}", place.display()), remedy))
    };
    if choice.kind == Kind::None {
        let code = firmware(CODE, "install it (Debian: ovmf), or name another with --firmware")?;
        let variables = state.dir.join("vars.fd");
        if !variables.exists() {
            let from = args.vars.as_ref().ok_or_else(|| {
                let reason = "the state has no variables of the firmware yet";
                Failure::usage("host.vars", reason, "give --vars: a copy of OVMF_VARS with your keys of Secure Boot")
            })?;
            state.write("vars.fd", &read(from, MAX_VARIABLES_BYTES)?)?;
        }
        let partition = state.dir.join("partition");
        if partition.exists() {
            fs::remove_dir_all(&partition).map_err(|error| state.failure(&error))?;
        }
        state.write("partition/EFI/BOOT/BOOTX64.EFI", &built.bytes)?;
        for (name, contents) in told {
            state.write(&format!("partition/{DIRECTORY}/{name}"), contents)?;
        }
        return Ok(Boot::Partition { code, variables, partition });
    }
    let firmware = match choice.kind {
        Kind::Tdx => firmware(TDX_FIRMWARE, "name OVMF for TDX with --firmware"),
        _ => firmware(SNP_FIRMWARE, "name OVMF for SEV with kernel hashes (OvmfPkg/AmdSev) with --firmware"),
    }?;
    let image = PeImage::parse(&built.bytes).map_err(|error| pe_failure(&built.path, &error))?;
    let direct = Direct::of(&image, Some(told))?;
    Ok(Boot::Direct {
        firmware,
        kernel: state.write("kernel", direct.kernel)?,
        initrd: state.write("initrd", &direct.initrd)?,
        command_line: direct.command_line,
    })
}

/// The data disk, made where it does not exist and a size was said.
fn data_disk(text: &str, make: bool) -> Result<PathBuf, Failure> {
    let failure = |reason: String| Failure::usage("host.disk", reason, "give FILE, or FILE:SIZE such as node1.raw:20G");
    let (path, size) = match text.rsplit_once(':') {
        Some((path, size)) if !path.is_empty() => {
            (Path::new(path), Some(size_bytes(size).ok_or_else(|| failure(format!("{size:?} is no size")))?))
        }
        _ => (Path::new(text), None),
    };
    let broken = |error: io::Error| failure(format!("{}: {error}", path.display()));
    if let Ok(found) = fs::metadata(path)
        && !(found.is_file() || found.file_type().is_block_device())
    {
        return Err(failure(format!("{}: neither a file nor a block device", path.display())));
    }
    match (path.exists(), size) {
        (true, _) => path.canonicalize().map_err(broken),
        (false, None) => Err(failure(format!("there is no {}", path.display()))),
        (false, Some(_)) if !make => std::path::absolute(path).map_err(broken),
        (false, Some(size)) => {
            File::create_new(path).and_then(|file| file.set_len(size)).map_err(broken)?;
            path.canonicalize().map_err(broken)
        }
    }
}

/// A number with M, G or T behind it.
fn size_bytes(text: &str) -> Option<u64> {
    let (number, shift) = match text.strip_suffix(['M', 'G', 'T']) {
        Some(number) => (
            number,
            if text.ends_with('M') {
                20
            } else if text.ends_with('G') {
                30
            } else {
                40
            },
        ),
        None => (text, 0),
    };
    let size = number.parse::<u64>().ok()?.checked_mul(1 << shift)?;
    (size > 0).then_some(size)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_disks() {
        for (text, size) in
            [("20G", Some(20 << 30)), ("512M", Some(512 << 20)), ("1T", Some(1 << 40)), ("4096", Some(4096))]
        {
            assert_eq!(size_bytes(text), size, "{text}");
        }
        for text in ["", "G", "0", "0G", "-1G", "1.5G", "99999999999T", "20g"] {
            assert_eq!(size_bytes(text), None, "{text}");
        }
    }

    #[test]
    fn a_disk_is_made_once_and_never_shortened() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("data.raw");
        let named = |size: &str| format!("{}{size}", place.display());
        assert!(data_disk(&named(""), true).is_err());
        for size in [":2M", ":1M", ""] {
            assert_eq!(data_disk(&named(size), true).unwrap(), place.canonicalize().unwrap());
            assert_eq!(fs::metadata(&place).unwrap().len(), 2 << 20);
        }
        assert!(data_disk(&named(":x"), true).is_err());
    }

    #[test]
    fn words_for_a_shell() {
        for (text, word) in [("-m", "-m"), ("a b", "'a b'"), ("it's", r"'it'\''s'"), ("", "''")] {
            assert_eq!(shell_word(text), word);
        }
    }
}
