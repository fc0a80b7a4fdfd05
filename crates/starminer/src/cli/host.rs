//! `starminer host …`: runs a node's image. What is run is composed by `starminer_host`; this file finds and lays out files, shows the console, and ends the machine when it is asked to.

mod disk;
mod state;
mod told;

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;
use starminer_hardware::predict::PeImage;
use starminer_host::command::{QEMU, SWTPM, arguments, tpm_arguments};
use starminer_host::found::Kind;
use starminer_host::{
    Accelerator, Boot, Choice, Found, HostError, Machine, Running, Tee, Tpm, TpmDevice, Wanted, choose,
};
use starminer_image::measure::credentials::{Credentials, DIRECTORY};

use super::args::{AccelArg, HostCommand, HostRunArgs, HostTeeArg};
use super::exit::{self, Failure};
use super::home::with_sources;
use super::image::built::Built;
use super::image::measure::Direct;
use super::interrupt::Interrupt;
use super::reference::make::pe_failure;
use super::reference::read;
use super::terminal::{Terminal, printable};
use disk::data_disk;
use state::State;

/// Debian's OVMF for a machine with a TPM, for SEV-SNP with kernel hashes, and for TDX.
const CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const SNP_FIRMWARE: &str = "/usr/share/ovmf/OVMF.amdsev.fd";
const TDX_FIRMWARE: &str = "/usr/share/ovmf/OVMF.inteltdx.fd";
/// How long a machine has after its power button was pressed: longer than its agent waits for tasks, unless that is told to wait longer.
const GRACE: Duration = Duration::from_secs(30);
/// The same where its processor is emulated.
const GRACE_IN_SOFTWARE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(50);
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
    if choice.kind != Kind::None && args.disk.is_some() && args.tpm.is_none() {
        let reason = "a disk's key is sealed to a TPM, and this guest gets none";
        let remedy = "leave --disk out: job storage is the guest's encrypted memory then; SEV-SNP takes the machine's TPM with --tpm";
        return Err(Failure::usage("host.disk", reason, remedy));
    }
    if args.disk.is_some() && args.tpm.is_some() && choice.kind != Kind::Snp {
        let reason = "the machine's own TPM is not reset with a guest, and the host has it as well: a disk that is sealed to it is closed at the next start, and open to the host";
        let remedy = "leave --tpm out, where there is an emulated one; or leave --disk out: job storage is memory then";
        return Err(Failure::usage("host.disk", reason, remedy));
    }
    let told = told::told(args)?;
    // From here on files are made that are to go with this process.
    let interrupt = Interrupt::listen()?;
    let built = Built::read(&args.dir)?;
    let state = State::open(&args.state)?;
    state.write_credentials(&told)?;
    // Paths of sockets have little room.
    let sockets = tempfile::Builder::new().prefix("starminer-host").tempdir().map_err(|error| state.failure(&error))?;
    let boot = boot(args, &choice, &built, &told, &state)?;
    let tpm = match (&choice.kind, &args.tpm) {
        (Kind::None, None) => Some(Tpm { state: state.dir.join("tpm"), socket: sockets.path().join("tpm") }),
        _ => None,
    };
    let disk = args.disk.as_deref().map(|disk| data_disk(disk, !args.dry_run)).transpose()?;
    if let Some((_, Some(differs))) = &disk {
        terminal.say(differs);
    }
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
        disk: disk.map(|(place, _)| place),
        orders: sockets.path().join("orders"),
    };
    let what = match choice.kind {
        Kind::Snp => "an SEV-SNP guest",
        Kind::Tdx => "a trust domain (TDX)",
        Kind::None => "a machine without a TEE",
    };
    terminal.say(format!("{what}: {}", choice.why));
    let command = words(QEMU, arguments(&machine));
    let tpm_command = tpm.as_ref().map(|tpm| words(SWTPM, tpm_arguments(tpm)));
    if args.dry_run {
        for command in tpm_command.iter().chain([&command]) {
            let shown = command.iter().map(|argument| shell_word(argument)).collect::<Vec<_>>().join(" ");
            terminal.result(printable(shown));
        }
        terminal.document(
            &json!({ "chosen": kind(choice.kind), "why": choice.why, "command": command, "tpm_command": tpm_command }),
        );
        return Ok(exit::OK);
    }
    if let Some(tpm) = &tpm {
        tpm.prepare().map_err(|error| failed(&error))?;
    }
    if let Some(signal) = interrupt.heard() {
        return Ok(exit::SIGNALLED + signal);
    }
    let quiet = terminal.is_json();
    let console = move |line: &str| {
        // A closed pipe does not end the node.
        let _ = if quiet { writeln!(io::stderr(), "{line}") } else { writeln!(io::stdout(), "{line}") };
    };
    let mut running =
        Running::start(&machine, tpm.as_ref(), &state.lock()?, console).map_err(|error| failed(&error))?;
    let lost = |error: io::Error| Failure::local("host.lost", error, "see whether QEMU still runs");
    let grace = if choice.accelerator == Accelerator::Tcg { GRACE_IN_SOFTWARE } else { GRACE };
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
            (_, Some((signal, at))) if interrupt.heard_again() || at.elapsed() >= grace => {
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

/// A program and its arguments, for people and scripts.
fn words(program: &str, arguments: Vec<OsString>) -> Vec<String> {
    let arguments = arguments.into_iter().map(|argument| argument.to_string_lossy().into_owned());
    std::iter::once(program.to_owned()).chain(arguments).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_a_shell() {
        for (text, word) in [("-m", "-m"), ("a b", "'a b'"), ("it's", r"'it'\''s'"), ("", "''")] {
            assert_eq!(shell_word(text), word);
        }
    }
}
