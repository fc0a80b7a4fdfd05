//! Values from files: read, predicted, named, written.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use starminer_hardware::event_log::{self, Bank, Digest, EventLog, Guid, MAX_LOG_BYTES, Registers, Variable};
use starminer_hardware::inspect::MAX_SMALL_FILE_BYTES;
use starminer_hardware::predict::pcr::{self, PHASES, SecureBootVariables};
use starminer_hardware::predict::snp::{CpuSignature, Guest, KernelHashes, Launch, LaunchError, MAX_VCPUS, Vmm};
use starminer_hardware::predict::tdx::{self, PageOrder};
use starminer_hardware::predict::{Firmware, FirmwareError, MAX_FIRMWARE_BYTES, MAX_IMAGE_BYTES, PeError, PeImage};
use starminer_hardware::tpm::{HashAlg, PcrIndex, PcrValues};
use starminer_verify::{
    Digest as Sha256Digest, EvidenceKind, MAX_REFERENCE_VALUES, Measurement, ReferenceValue, ReferenceValues,
    pcr_measurement,
};

use super::{read, values_failure, write_values};
use crate::cli::args::{
    DirectBootArgs, PageOrderArg, ProgramKind, ReferenceOutArgs, ReferencePcrsArgs, ReferenceProgramArgs,
    ReferenceSnpArgs, ReferenceTdxArgs, VmmArg,
};
use crate::cli::exit::Failure;
use crate::cli::terminal::{Terminal, printable};

/// Longest kernel or initrd.
const MAX_BOOT_FILE_BYTES: usize = MAX_IMAGE_BYTES;
/// Longest program.
const MAX_PROGRAM_BYTES: usize = MAX_IMAGE_BYTES;
/// Longest variable of Secure Boot, with the four bytes that Linux puts in front.
const MAX_VARIABLE_BYTES: usize = 1 << 20;

pub fn snp(terminal: &Terminal, args: &ReferenceSnpArgs) -> Result<u8, Failure> {
    let image = read(&args.firmware, MAX_FIRMWARE_BYTES)?;
    let firmware = Firmware::parse(&image).map_err(|error| firmware_failure(&args.firmware, &error))?;
    let boot = Boot::read(&args.boot)?;
    let vmm = match args.vmm {
        VmmArg::Qemu => Vmm::Qemu,
        VmmArg::Ec2 => Vmm::Ec2,
        VmmArg::Gce => Vmm::Gce,
    };
    let hex = args.guest_features.strip_prefix("0x").unwrap_or(&args.guest_features);
    let guest_features = u64::from_str_radix(hex, 16)
        .map_err(|_| call(format!("--guest-features: {:?} is no hexadecimal number", args.guest_features)))?;
    let vcpus = numbers("--vcpus", &args.vcpus, MAX_VCPUS)?;
    let kernel = boot.as_ref().map(Boot::hashes);
    let mut values = Vec::new();
    for model in &args.cpu {
        let cpu = cpu(model)?;
        let launch = Launch::new(&Guest { firmware: &firmware, cpu, vmm, guest_features, kernel })
            .map_err(|error| launch_failure(&args.firmware, &error))?;
        for vcpus in &vcpus {
            let digest = launch.digest(*vcpus).map_err(|error| launch_failure(&args.firmware, &error))?;
            let name = format!("{}, {model}, {vcpus} vCPU", args.out.name);
            values.push(value(EvidenceKind::SevSnp, &digest, name)?);
        }
    }
    write(terminal, &args.out, values)
}

pub fn tdx(terminal: &Terminal, args: &ReferenceTdxArgs) -> Result<u8, Failure> {
    let image = read(&args.firmware, MAX_FIRMWARE_BYTES)?;
    let firmware = Firmware::parse(&image).map_err(|error| firmware_failure(&args.firmware, &error))?;
    let order = match args.page_order {
        PageOrderArg::PageByPage => PageOrder::PageByPage,
        PageOrderArg::AddThenMeasure => PageOrder::AddThenMeasure,
    };
    let mrtd = tdx::mrtd(&firmware, order).map_err(|error| firmware_failure(&args.firmware, &error))?;
    let mut registers: [Option<[u8; 48]>; 4] = [None; 4];
    if let Some(path) = &args.eventlog {
        let bytes = read(path, MAX_LOG_BYTES)?;
        let log = parse_log(path, &bytes)?;
        let replayed = log
            .replay_rtmrs()
            .map_err(|event| log_failure(path, format!("event {event} names no register of a trust domain")))?;
        registers = replayed.map(Some);
    }
    for given in &args.rtmr {
        let wrong = || call(format!("--rtmr: {given:?} is no NUMBER=HEX of 48 bytes, or NUMBER=zeroes"));
        let (number, held) = given.split_once('=').ok_or_else(wrong)?;
        let register = number.parse::<usize>().ok().and_then(|number| registers.get_mut(number)).ok_or_else(wrong)?;
        let bytes = match held {
            "zeroes" => Some(vec![0; 48]),
            hex => data_encoding::HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok(),
        };
        *register = Some(bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(wrong)?);
    }
    if let Some(boot) = Boot::read(&args.boot)? {
        let kernel = PeImage::parse(&boot.kernel).map_err(|error| pe_failure(&boot.kernel_path, &error))?;
        registers[1] = Some(tdx::rtmr1_of_direct_boot(&kernel));
        registers[2] = Some(tdx::rtmr2_of_direct_boot(&boot.command_line, boot.initrd.as_deref()));
    }
    let mut measurement = mrtd.to_vec();
    for (number, register) in registers.into_iter().enumerate() {
        let register = register.ok_or_else(|| {
            let reason = format!("nothing tells what RTMR {number} holds");
            Failure::usage("reference.incomplete", reason, "give --eventlog, or --rtmr for each one that is missing")
        })?;
        measurement.extend(register);
    }
    write(terminal, &args.out, vec![value(EvidenceKind::Tdx, &measurement, args.out.name.clone())?])
}

pub fn pcrs(terminal: &Terminal, args: &ReferencePcrsArgs) -> Result<u8, Failure> {
    let (bank, alg) = [
        (Bank::Sha1, HashAlg::Sha1),
        (Bank::Sha256, HashAlg::Sha256),
        (Bank::Sha384, HashAlg::Sha384),
        (Bank::Sha512, HashAlg::Sha512),
    ]
    .into_iter()
    .find(|(bank, _)| bank.name() == args.bank)
    .ok_or_else(|| call(format!("--bank: {:?} is none of sha1, sha256, sha384, sha512", args.bank)))?;
    let selected: BTreeSet<PcrIndex> = numbers("--select", &args.select, 31)?
        .into_iter()
        .filter_map(|n| PcrIndex::new(u8::try_from(n).ok()?))
        .collect();
    let mut known = PcrValues::default();
    let mut learn = |index: u32, digest: &Digest| {
        if let Some(index) = u8::try_from(index).ok().and_then(PcrIndex::new) {
            // It is a digest of that bank, so it has the bank's length.
            let _ = known.insert(alg, index, digest.as_bytes().to_vec());
        }
    };
    if let Some(path) = &args.eventlog {
        let bytes = read(path, MAX_LOG_BYTES)?;
        let log = parse_log(path, &bytes)?;
        let verified = event_log::verify(&log, Registers::NotGiven)
            .verified
            .ok_or_else(|| log_failure(path, "it contradicts itself; `starminer appraise eventlog` says where"))?;
        for values in [verified.pcrs(), verified.pcrs_with_startup_locality()] {
            values.of_bank(bank).for_each(|(index, digest)| learn(index, digest));
        }
    }
    if let Some(path) = &args.pcrs {
        let values = PcrValues::parse(&read(path, MAX_SMALL_FILE_BYTES)?, &[]).map_err(|error| {
            let reason = format!("{}: {error}", path.display());
            Failure::usage("pcrs.malformed", reason, "give JSON, or what `tpm2_quote -o` writes")
        })?;
        for (_, index, held) in values.iter().filter(|(of, ..)| *of == alg) {
            if let Some(digest) = Digest::new(bank, held) {
                learn(u32::from(index), &digest);
            }
        }
    }
    if !args.boot_program.is_empty() {
        let files = args.boot_program.iter().map(|path| read(path, MAX_IMAGE_BYTES)).collect::<Result<Vec<_>, _>>()?;
        let images = files.iter().zip(&args.boot_program);
        let images = images.map(|(file, path)| PeImage::parse(file).map_err(|error| pe_failure(path, &error)));
        let images = images.collect::<Result<Vec<_>, _>>()?;
        learn(4, &pcr::boot_programs(bank, &images.iter().collect::<Vec<_>>()));
    }
    if let Some(dir) = &args.efivars {
        learn(7, &secure_boot(bank, dir, &args.authority)?);
    }
    if let Some(path) = &args.uki {
        let phases: Vec<&str> = args.phases.iter().map(String::as_str).filter(|phase| !phase.is_empty()).collect();
        if let Some(unknown) = phases.iter().find(|phase| !PHASES.contains(phase)) {
            return Err(call(format!("--phases: {unknown:?} is none of {}", PHASES.join(", "))));
        }
        let file = read(path, MAX_IMAGE_BYTES)?;
        let image = PeImage::parse(&file).map_err(|error| pe_failure(path, &error))?;
        let held = pcr::unified_kernel_image(bank, &image, &phases).map_err(|error| {
            let reason = format!("{}: {error}", path.display());
            Failure::usage(error.code(), reason, "give an image that ukify made, of one kernel")
        })?;
        learn(11, &held);
    }
    if let Some(missing) = selected.iter().find(|index| known.value(alg, index.get()).is_none()) {
        let reason = format!("nothing tells what register {} of {} holds", missing.get(), bank.name());
        return Err(Failure::usage("reference.incomplete", reason, "give --eventlog, --pcrs, or a smaller --select"));
    }
    let digest = pcr_measurement(&known, alg, &selected).ok_or_else(|| call("--select: no register".into()))?;
    for index in &selected {
        let held = known.value(alg, index.get()).unwrap_or_default();
        let hex = data_encoding::HEXLOWER.encode(held);
        terminal.result(format!("  {}:{:<3} {hex}", bank.name(), index.get()));
    }
    let registers: Vec<String> = selected.iter().map(|index| index.get().to_string()).collect();
    let name = format!("{}, {} {}", args.out.name, bank.name(), registers.join(" "));
    write(terminal, &args.out, vec![value(EvidenceKind::Tpm, digest.as_bytes(), name)?])
}

pub fn program(terminal: &Terminal, args: &ReferenceProgramArgs) -> Result<u8, Failure> {
    let kind = match args.kind {
        ProgramKind::SoftwareTee => EvidenceKind::SoftwareTee,
        ProgramKind::ImaLog => EvidenceKind::ImaLog,
    };
    let mut values = Vec::new();
    for path in &args.files {
        let digest = Sha256Digest::of(&read(path, MAX_PROGRAM_BYTES)?);
        let file = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        values.push(value(kind, digest.as_bytes(), format!("{}, {file}", args.out.name))?);
    }
    write(terminal, &args.out, values)
}

/// What a firmware starts directly, read.
struct Boot {
    kernel_path: PathBuf,
    kernel: Vec<u8>,
    initrd: Option<Vec<u8>>,
    command_line: String,
}

impl Boot {
    fn read(args: &DirectBootArgs) -> Result<Option<Self>, Failure> {
        let Some(path) = &args.kernel else { return Ok(None) };
        let kernel = read(path, MAX_BOOT_FILE_BYTES)?;
        let initrd = args.initrd.as_deref().map(|path| read(path, MAX_BOOT_FILE_BYTES)).transpose()?;
        let command_line = args.append.clone().unwrap_or_default();
        Ok(Some(Self { kernel_path: path.clone(), kernel, initrd, command_line }))
    }

    fn hashes(&self) -> KernelHashes {
        KernelHashes::of(&self.kernel, self.initrd.as_deref(), &self.command_line)
    }
}

/// Register 7 of the variables in a directory as Linux shows it.
fn secure_boot(bank: Bank, dir: &Path, authorities: &[String]) -> Result<Digest, Failure> {
    /// Attributes, which Linux puts in front of a variable's contents and firmware does not measure.
    const ATTRIBUTES_BYTES: usize = 4;
    let variable = |name: &str, vendor: Guid| -> Result<Vec<u8>, Failure> {
        let path = dir.join(format!("{name}-{vendor}"));
        if !path.exists() {
            // Firmware measures a variable that is not set as an empty one.
            return Ok(Vec::new());
        }
        let bytes = read(&path, MAX_VARIABLE_BYTES)?;
        let contents = bytes.get(ATTRIBUTES_BYTES..).map(<[u8]>::to_vec);
        contents.ok_or_else(|| call(format!("{}: no variable as Linux shows it", path.display())))
    };
    let [secure_boot, pk, kek] = ["SecureBoot", "PK", "KEK"].map(|name| variable(name, Guid::GLOBAL_VARIABLE));
    let [db, dbx] = ["db", "dbx"].map(|name| variable(name, Guid::IMAGE_SECURITY_DATABASE));
    let (secure_boot, pk, kek, db, dbx) = (secure_boot?, pk?, kek?, db?, dbx?);
    if secure_boot.is_empty() {
        return Err(call(format!("{}: no variable SecureBoot there", dir.display())));
    }
    let mut entries = Vec::new();
    for given in authorities {
        let (name, path) = given
            .split_once('=')
            .filter(|(name, path)| !name.is_empty() && !path.is_empty())
            .ok_or_else(|| call(format!("--authority: {given:?} is no NAME=FILE")))?;
        entries.push((name, read(Path::new(path), MAX_VARIABLE_BYTES)?));
    }
    let authorities: Vec<Variable<'_>> = entries
        .iter()
        .map(|(name, contents)| {
            let of_firmware = ["db", "dbt", "dbr"].contains(name);
            let vendor = if of_firmware { Guid::IMAGE_SECURITY_DATABASE } else { Guid::SHIM_LOCK };
            Variable { vendor, name: (*name).to_owned(), contents }
        })
        .collect();
    let variables = SecureBootVariables { secure_boot: &secure_boot, pk: &pk, kek: &kek, db: &db, dbx: &dbx };
    Ok(pcr::secure_boot(bank, &variables, &authorities))
}

pub(in crate::cli) fn value(kind: EvidenceKind, measurement: &[u8], name: String) -> Result<ReferenceValue, Failure> {
    let measurement =
        Measurement::from_bytes(measurement).ok_or_else(|| call("a measurement of no length, or too long".into()))?;
    Ok(ReferenceValue { kind, measurement, name })
}

/// Writes values; two of one measurement are one.
fn write(terminal: &Terminal, out: &ReferenceOutArgs, mut values: Vec<ReferenceValue>) -> Result<u8, Failure> {
    let mut seen = BTreeSet::new();
    values.retain(|value| seen.insert((value.kind, value.measurement.clone())));
    let values = ReferenceValues::new(values).map_err(|error| values_failure(&error))?;
    write_values(terminal, &out.out, &values)
}

/// A list such as `1,2,8-16`.
pub(in crate::cli) fn numbers(option: &str, list: &str, most: u32) -> Result<BTreeSet<u32>, Failure> {
    let wrong = || call(format!("{option}: {list:?} is no list such as 1,2,8-16 with numbers up to {most}"));
    let mut all = BTreeSet::new();
    for part in list.split(',') {
        let number = |text: &str| text.trim().parse::<u32>().ok().filter(|number| *number <= most).ok_or_else(wrong);
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(part)?, number(part)?),
        };
        if first > last || (last - first) as usize >= MAX_REFERENCE_VALUES {
            return Err(wrong());
        }
        all.extend(first..=last);
    }
    Ok(all)
}

pub(in crate::cli) fn cpu(model: &str) -> Result<CpuSignature, Failure> {
    let found = match model.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok().map(CpuSignature),
        None => CpuSignature::of_model(model),
    };
    found.ok_or_else(|| {
        let models: Vec<&str> = CpuSignature::models().collect();
        call(format!("--cpu: {model:?} is none of {}, with or without a version, nor a signature", models.join(", ")))
    })
}

pub(in crate::cli) fn parse_log<'a>(path: &Path, bytes: &'a [u8]) -> Result<EventLog<'a>, Failure> {
    EventLog::parse(bytes).map_err(|error| log_failure(path, error))
}

pub(in crate::cli) fn log_failure(path: &Path, reason: impl std::fmt::Display) -> Failure {
    let reason = format!("{}: {reason}", path.display());
    Failure::usage("eventlog.unusable", reason, "give the log as the machine has it, in binary")
}

pub(in crate::cli) fn firmware_failure(path: &Path, error: &FirmwareError) -> Failure {
    let reason = format!("{}: {error}", path.display());
    Failure::usage(error.code(), reason, "give the image that the hypervisor is given, such as OVMF.fd")
}

pub(in crate::cli) fn launch_failure(path: &Path, error: &LaunchError) -> Failure {
    let remedy = match error {
        LaunchError::Vcpus => "give numbers of processors that a guest can have",
        LaunchError::NoKernelHashes => "give a firmware that checks kernels (OVMF for AmdSev), or leave --kernel out",
        LaunchError::Firmware(error) => return firmware_failure(path, error),
    };
    Failure::usage(error.code(), format!("{}: {error}", path.display()), remedy)
}

pub(in crate::cli) fn pe_failure(path: &Path, error: &PeError) -> Failure {
    let reason = format!("{}: {error}", printable(path.display()));
    Failure::usage(
        error.code(),
        reason,
        "give a program that firmware starts: a .efi file, or a kernel with an EFI stub",
    )
}

pub(in crate::cli) fn call(reason: String) -> Failure {
    Failure::usage("call.unusable", reason, "see the command's --help; it has examples")
}
