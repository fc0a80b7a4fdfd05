//! `starminer image measure`: what a node measures that starts an image, as reference values. What registers hold is told by `starminer_image::measure` and
//! `starminer_hardware::predict`; this file reads files and puts the parts together.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use starminer_hardware::event_log::{self, Bank, Digest, MAX_LOG_BYTES, Registers};
use starminer_hardware::predict::snp::{DEFAULT_GUEST_FEATURES, Guest, KernelHashes, Launch, Vmm};
use starminer_hardware::predict::tdx::{self, PageOrder};
use starminer_hardware::predict::{Firmware, MAX_FIRMWARE_BYTES, PeImage};
use starminer_hardware::tpm::{HashAlg, PcrIndex, PcrValues};
use starminer_image::measure::credentials::{self, Credentials, is_credential};
use starminer_image::measure::firmware::{Machine, Volumes};
use starminer_image::measure::variables::{MAX_STORE_BYTES, Variables};
use starminer_image::measure::{Boot, Component, Expected, MeasureError, expect};
use starminer_receipt::Role;
use starminer_verify::{EvidenceKind, ReferenceValue, ReferenceValues, boot_component, pcr_measurement};

use super::built::Built;
use crate::cli::args::{ImageMeasureArgs, TeeArg};
use crate::cli::exit::Failure;
use crate::cli::reference::make::{
    call, cpu, firmware_failure, launch_failure, log_failure, numbers, parse_log, pe_failure, value,
};
use crate::cli::reference::{Release, read, values_failure, write_values};
use crate::cli::terminal::Terminal;
use crate::cli::verify::now;

/// Longest file that a host tells a node; `starminer-init` takes no longer one.
pub const MAX_CREDENTIAL_BYTES: usize = 256 * 1024;
/// Most such files.
const MAX_CREDENTIALS: usize = 64;
/// Longest name of an image: names of its parts are put behind it.
const MAX_NAME_BYTES: usize = 36;

pub fn measure(terminal: &Terminal, args: &ImageMeasureArgs) -> Result<u8, Failure> {
    let built = Built::read(&args.dir)?;
    let name = args.name.clone().unwrap_or_else(|| built.name());
    if name.len() > MAX_NAME_BYTES {
        return Err(call(format!("--name: more than {MAX_NAME_BYTES} bytes")));
    }
    let told = args.credentials.as_deref().map(read_credentials).transpose()?;
    let image = PeImage::parse(&built.bytes).map_err(|error| pe_failure(&built.path, &error))?;
    let values = match args.tee {
        TeeArg::None => plain(terminal, args, &built, &image, told.as_ref(), &name)?,
        TeeArg::Snp => vec![snp(args, &image, told.as_ref(), &name)?],
        TeeArg::Tdx => vec![tdx(args, &built, &image, told.as_ref(), &name)?],
    };
    let values = ReferenceValues::new(values).map_err(|error| values_failure(&error))?;
    match (&args.sign, &args.network, args.version) {
        (Some(key), Some(network), Some(version)) => {
            let release =
                Release { key, network, role: Role::Agent, name: &name, version, not_before: now(), days: args.days };
            release.write(terminal, values, &args.out)
        }
        _ => write_values(terminal, &args.out, &values),
    }
}

/// Values for a machine with a TPM.
fn plain(
    terminal: &Terminal,
    args: &ImageMeasureArgs,
    built: &Built,
    image: &PeImage<'_>,
    told: Option<&Credentials>,
    name: &str,
) -> Result<Vec<ReferenceValue>, Failure> {
    let selected: BTreeSet<PcrIndex> = numbers("--select", &args.select, 31)?
        .into_iter()
        .filter_map(|number| PcrIndex::new(u8::try_from(number).ok()?))
        .collect();
    let wanted = |register: u8| selected.iter().any(|index| index.get() == register);
    // Firmware that no register is asked of may be of any kind.
    let volumes = match wanted(0) {
        true => {
            let firmware = read(&args.firmware, MAX_FIRMWARE_BYTES)?;
            Some(Volumes::parse(&firmware).map_err(|error| failed(&error.into(), &args.firmware))?)
        }
        false => None,
    };
    let variables = match &args.vars {
        Some(path) => {
            Some(Variables::parse(&read(path, MAX_STORE_BYTES)?).map_err(|error| failed(&error.into(), path))?)
        }
        None => None,
    };
    let machine = Machine { memory_mib: args.memory, vcpus: args.vcpus };
    let boot = Boot {
        image,
        firmware: volumes.as_ref().filter(|_| args.eventlog.is_none()).map(|volumes| (volumes, machine)),
        variables: variables.as_ref().filter(|_| wanted(7)),
        credentials: told,
    };
    let mut expected = expect(&boot).map_err(|error| {
        let file = match &error {
            MeasureError::Firmware(_) => &args.firmware,
            MeasureError::Variables(_) => args.vars.as_ref().unwrap_or(&built.path),
            MeasureError::Image(_) => &built.path,
        };
        failed(&error, file)
    })?;
    if let (Some(path), Some(volumes)) = (&args.eventlog, &volumes) {
        recorded(path, volumes, &mut expected)?;
    }
    let mut known = PcrValues::default();
    for (register, digest) in &expected.registers {
        if let Some(index) = PcrIndex::new(*register) {
            // It is a digest of that bank, so it has the bank's length.
            let _ = known.insert(HashAlg::Sha256, index, digest.as_bytes().to_vec());
        }
    }
    if let Some(missing) = selected.iter().find(|index| known.value(HashAlg::Sha256, index.get()).is_none()) {
        let (number, remedy) = (
            missing.get(),
            match missing.get() {
                7 => "give --vars, or a smaller --select",
                9 | 12 => "give --credentials and an image with the stub of systemd 252, or a smaller --select",
                _ => "give a smaller --select",
            },
        );
        return Err(Failure::usage(
            "reference.incomplete",
            format!("nothing tells what register {number} holds"),
            remedy,
        ));
    }
    let digest =
        pcr_measurement(&known, HashAlg::Sha256, &selected).ok_or_else(|| call("--select: no register".into()))?;
    for index in &selected {
        let hex = data_encoding::HEXLOWER.encode(known.value(HashAlg::Sha256, index.get()).unwrap_or_default());
        terminal.result(format!("  sha256:{:<3} {hex}", index.get()));
    }
    let registers: Vec<String> = selected.iter().map(|index| index.get().to_string()).collect();
    let all = format!("{name}, sha256 {}", registers.join(" "));
    let mut values = vec![
        value(EvidenceKind::Tpm, digest.as_bytes(), all)?,
        value(EvidenceKind::ImaLog, &built.agent, format!("{name}, agent"))?,
    ];
    for Component { register, name: part, digest } in &expected.components {
        let component = boot_component(*register, digest.as_bytes());
        let component = component.ok_or_else(|| call("a component without a digest".into()))?;
        values.push(ReferenceValue {
            kind: EvidenceKind::UefiLog,
            measurement: component,
            name: format!("{name}: {part}"),
        });
    }
    // Parts of the same contents are one value: of the first name.
    let mut seen = BTreeSet::new();
    values.retain(|value| seen.insert((value.kind, value.measurement.clone())));
    Ok(values)
}

/// Register 0 from a log of a machine with this firmware.
fn recorded(path: &Path, volumes: &Volumes, expected: &mut Expected) -> Result<(), Failure> {
    let bytes = read(path, MAX_LOG_BYTES)?;
    let log = parse_log(path, &bytes)?;
    let verified = event_log::verify(&log, Registers::NotGiven)
        .verified
        .ok_or_else(|| log_failure(path, "it contradicts itself; `starminer appraise eventlog` says where"))?;
    let measured = || verified.firmware().iter().flat_map(|one| one.digests.iter().copied());
    // The second volume is the same on every machine, so that the log shows which firmware it is of.
    if !measured().any(|digest| digest == volumes.dxe()) {
        let reason = format!("{}: a log of another firmware: its second volume is not in it", path.display());
        return Err(Failure::usage("measure.other-firmware", reason, "record the log of a machine with this firmware"));
    }
    let values = verified.pcrs_with_startup_locality();
    let value = values.value(Bank::Sha256, 0).or_else(|| verified.pcrs().value(Bank::Sha256, 0));
    let value: Digest = *value.ok_or_else(|| log_failure(path, "it has no digests of SHA-256"))?;
    expected.registers.insert(0, value);
    let of_bank = measured().filter(|digest| digest.bank() == Bank::Sha256);
    expected.components.extend(of_bank.enumerate().map(|(number, digest)| Component {
        register: 0,
        name: format!("firmware, part {}", number + 1),
        digest,
    }));
    Ok(())
}

/// What a TEE's firmware is given directly.
pub struct Direct<'a> {
    /// The kernel.
    pub kernel: &'a [u8],
    /// The initial file system, with what the host tells the node.
    pub initrd: Vec<u8>,
    /// The kernel's command line.
    pub command_line: String,
}

impl<'a> Direct<'a> {
    /// From an image's sections.
    pub fn of(image: &PeImage<'a>, told: Option<&Credentials>) -> Result<Self, Failure> {
        let section = |name: &'static str| {
            let found = image.sections().iter().find(|section| section.name() == name.as_bytes());
            found.map(|section| section.contents()).ok_or_else(|| call(format!("the image has no section {name}")))
        };
        let nothing = Credentials::new();
        Ok(Self {
            kernel: section(".linux")?,
            initrd: credentials::initial_file_system(section(".initrd")?, told.unwrap_or(&nothing)),
            command_line: String::from_utf8_lossy(section(".cmdline")?).into_owned(),
        })
    }
}

/// The launch of an SEV-SNP guest.
fn snp(
    args: &ImageMeasureArgs,
    image: &PeImage<'_>,
    told: Option<&Credentials>,
    name: &str,
) -> Result<ReferenceValue, Failure> {
    let bytes = read(&args.firmware, MAX_FIRMWARE_BYTES)?;
    let firmware = Firmware::parse(&bytes).map_err(|error| firmware_failure(&args.firmware, &error))?;
    let model =
        args.cpu.as_deref().ok_or_else(|| call("--tee snp: the launch depends on the processor; give --cpu".into()))?;
    let direct = Direct::of(image, told)?;
    let kernel = Some(KernelHashes::of(direct.kernel, Some(&direct.initrd), &direct.command_line));
    let guest =
        Guest { firmware: &firmware, cpu: cpu(model)?, vmm: Vmm::Qemu, guest_features: DEFAULT_GUEST_FEATURES, kernel };
    let failed = |error| launch_failure(&args.firmware, &error);
    let digest = Launch::new(&guest).and_then(|launch| launch.digest(args.vcpus)).map_err(failed)?;
    value(EvidenceKind::SevSnp, &digest, format!("{name}, {model}, {} vCPU", args.vcpus))
}

/// The launch of a trust domain; RTMR 0 by a log, as it has the machine's memory map and tables.
fn tdx(
    args: &ImageMeasureArgs,
    built: &Built,
    image: &PeImage<'_>,
    told: Option<&Credentials>,
    name: &str,
) -> Result<ReferenceValue, Failure> {
    let bytes = read(&args.firmware, MAX_FIRMWARE_BYTES)?;
    let firmware = Firmware::parse(&bytes).map_err(|error| firmware_failure(&args.firmware, &error))?;
    let mrtd = tdx::mrtd(&firmware, PageOrder::default()).map_err(|error| firmware_failure(&args.firmware, &error))?;
    let path = args.eventlog.as_deref().ok_or_else(|| {
        let remedy = "give --eventlog: the CCEL of such a machine, recorded where you trust it";
        Failure::usage("reference.incomplete", "nothing tells what RTMR 0 holds", remedy)
    })?;
    let bytes = read(path, MAX_LOG_BYTES)?;
    let replayed = parse_log(path, &bytes)?
        .replay_rtmrs()
        .map_err(|event| log_failure(path, format!("event {event} names no register of a trust domain")))?;
    let direct = Direct::of(image, told)?;
    let kernel = PeImage::parse(direct.kernel).map_err(|error| pe_failure(&built.path, &error))?;
    let registers = [
        mrtd,
        replayed[0],
        tdx::rtmr1_of_direct_boot(&kernel),
        tdx::rtmr2_of_direct_boot(&direct.command_line, Some(&direct.initrd)),
        [0; 48],
    ];
    value(EvidenceKind::Tdx, &registers.concat(), name.to_owned())
}

/// Files that a host tells a node, from a directory.
pub fn read_credentials(dir: &Path) -> Result<Credentials, Failure> {
    let unreadable = |error: std::io::Error| {
        let reason = format!("{}: {error}", dir.display());
        Failure::usage("file.unreadable", reason, "give a directory that can be read")
    };
    let mut found = Credentials::new();
    for entry in fs::read_dir(dir).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        if let Some(name) = entry.file_name().to_str().filter(|name| is_credential(name)) {
            if found.len() == MAX_CREDENTIALS {
                let reason = format!("{}: more than {MAX_CREDENTIALS} files that end in .cred", dir.display());
                return Err(Failure::usage(
                    "measure.credentials",
                    reason,
                    "leave those that a node reads (specs/image.md)",
                ));
            }
            found.insert(name.to_owned(), read(&entry.path(), MAX_CREDENTIAL_BYTES)?);
        }
    }
    if found.is_empty() {
        let reason = format!("{}: there is no file that ends in .cred", dir.display());
        let remedy = "put network.toml.cred and node.toml.cred there (specs/image.md)";
        return Err(Failure::usage("measure.credentials", reason, remedy));
    }
    Ok(found)
}

fn failed(error: &MeasureError, file: &Path) -> Failure {
    Failure::usage(error.code(), format!("{}: {error}", file.display()), error.remedy())
}
