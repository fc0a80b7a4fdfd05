//! From the command line and a job file to a plan.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use starminer_receipt::{
    Determinism, Limits, MAX_STATE_BYTES, NetworkTrust, OnnxManifest, Sensitivity, WasmGrants, WasmManifest,
    toml_reason,
};
use starminer_requester::{InputSource, JobPlan, open_regular};
use starminer_verify::{OperatorMayReadMemory, Policy, SimulatedRootId, Tier};

use super::args::{RunArgs, SensitivityArg, TierArg};
use super::exit::Failure;
use super::job_file::{JobFile, JobPolicy, MAX_JOB_BYTES};
use super::service::read_text;

/// How long after submission a key may be released.
const VALID_FOR_MS: u64 = 24 * 60 * 60 * 1000;
/// How often a task may be leased.
const MAX_ATTEMPTS: u32 = 3;
/// Most memory, output and scratch that can be asked for: a TiB. Nodes have bounds of their own.
const MAX_MIB: u64 = 1 << 20;
/// Longest run that a spec may ask for: a day.
const MAX_SECONDS: u64 = 24 * 60 * 60;

/// A plan and where its outputs go.
#[derive(Debug)]
pub struct Job {
    /// The plan.
    pub plan: JobPlan,
    /// Where outputs and the receipt go; the current directory's `out` if nobody said.
    pub output_dir: PathBuf,
}

/// Puts the plan together.
pub fn plan(args: &RunArgs, network: &NetworkTrust) -> Result<Job, Failure> {
    if let Some(path) = args.job.as_ref().filter(|path| path.extension().is_none_or(|extension| extension != "toml")) {
        let reason = format!("{} is given as the job file, and a job file's name ends in .toml", path.display());
        return Err(Failure::usage("job.not-toml", reason, "give inputs after -i, arguments of the program after --"));
    }
    let (file, base) = match &args.job {
        Some(path) => (read_job(path)?, path.parent().unwrap_or(Path::new("")).to_path_buf()),
        None => (JobFile::default(), PathBuf::new()),
    };
    let at_base = |path: &PathBuf| base.join(path);
    let named_on_line = args.wasm.is_some() || args.onnx.is_some();
    let wasm = args.wasm.clone().or_else(|| file.wasm.as_ref().filter(|_| !named_on_line).map(at_base));
    let onnx = args.onnx.clone().or_else(|| file.onnx.as_ref().filter(|_| !named_on_line).map(at_base));
    let paths: Vec<PathBuf> =
        if args.inputs.is_empty() { file.inputs.iter().map(at_base).collect() } else { args.inputs.clone() };
    let inputs = expand_inputs(&paths)?;

    let (workload, wasm, onnx) = match (wasm, onnx) {
        (Some(program), None) => {
            let mut env: Vec<(String, String)> = file.env.into_iter().collect();
            for pair in &args.env {
                let (name, value) = pair.split_once('=').ok_or_else(|| {
                    Failure::usage("job.bad-env", format!("{pair:?} is not NAME=VALUE"), "write --env NAME=VALUE")
                })?;
                env.push((name.into(), value.into()));
            }
            check_wasm(&program)?;
            let args = if args.args.is_empty() { file.args } else { args.args.clone() };
            (program, Some(WasmManifest { args, env }), None)
        }
        (None, Some(model)) => {
            let [(input, _)] = inputs.as_slice() else {
                let reason = format!("an ONNX job has one input, the table; {} were given", inputs.len());
                return Err(Failure::usage("job.onnx-inputs", reason, "give one CSV with -i"));
            };
            check_onnx(&model)?;
            let manifest = OnnxManifest {
                input: input.clone(),
                output: file.table.output.unwrap_or_else(|| "predictions.csv".into()),
                id_column: args.id_column.clone().or(file.table.id_column),
                ignore_columns: file.table.ignore_columns,
            };
            (model, None, Some(manifest))
        }
        _ => {
            let toml = args.inputs.iter().find(|path| path.extension().is_some_and(|extension| extension == "toml"));
            let taken = toml.map_or_else(String::new, |path| {
                format!("; {} stands behind -i and is an input: name a job file first", path.display())
            });
            let reason = format!("a job needs either a wasm program or an ONNX model{taken}");
            return Err(Failure::usage(
                "job.no-workload",
                reason,
                "give --wasm FILE or --onnx FILE, or a job file that names one",
            ));
        }
    };

    let default = Limits::default();
    let mib = |value: Option<u64>, default: u64, setting| {
        value.map_or(Ok(default), |mib| Ok(within(mib, MAX_MIB, setting, "MiB")? << 20))
    };
    let seconds = args.timeout.or(file.limits.timeout_seconds);
    let timeout = "--timeout (timeout_seconds)";
    let limits = Limits {
        fuel: args.fuel.or(file.limits.fuel).unwrap_or(default.fuel),
        memory_bytes: mib(args.memory.or(file.limits.memory_mib), default.memory_bytes, "--memory (memory_mib)")?,
        wall_limit_ms: seconds.map_or(Ok(default.wall_limit_ms), |seconds| {
            Ok(within(seconds, MAX_SECONDS, timeout, "seconds")? * 1000)
        })?,
        output_bytes: mib(file.limits.output_mib, default.output_bytes, "output_mib")?,
        scratch_bytes: mib(file.limits.scratch_mib, default.scratch_bytes, "scratch_mib")?,
        state_bytes: file
            .limits
            .state_mib
            .map_or(Ok(0), |mib| Ok::<_, Failure>(within(mib, MAX_STATE_BYTES >> 20, "state_mib", "MiB")? << 20))?,
    };
    let plan = JobPlan {
        workload: InputSource::File(workload),
        inputs,
        wasm,
        onnx,
        determinism: if args.portable || file.portable { Determinism::Portable } else { Determinism::Native },
        grants: WasmGrants {
            clock: args.grant_clock || file.grant_clock,
            random: args.grant_random || file.grant_random,
        },
        limits,
        sensitivity: args
            .sensitivity
            .map_or_else(|| file.sensitivity.unwrap_or(Sensitivity::Confidential), sensitivity),
        policy: policy(args, &file.policy, network)?,
        reference_values: network.reference_values.clone(),
        enrollers: network.enrollers.clone(),
        facilities: network.facilities.clone(),
        max_attempts: file.max_attempts.unwrap_or(MAX_ATTEMPTS),
        valid_for_ms: VALID_FOR_MS,
    };
    let output_dir =
        args.output.clone().or_else(|| file.output.as_ref().map(at_base)).unwrap_or_else(|| PathBuf::from("out"));
    Ok(Job { plan, output_dir })
}

/// A limit that can be meant.
fn within(value: u64, most: u64, setting: &str, unit: &str) -> Result<u64, Failure> {
    if (1..=most).contains(&value) {
        return Ok(value);
    }
    let reason = format!("{setting} is {value} {unit}, and 1 to {most} are possible");
    Err(Failure::usage("job.bad-limit", reason, "leave it out for the default; `starminer run --help` says which"))
}

/// What is no wasm would be sealed, sent and scheduled to be refused at the end of the way.
fn check_wasm(path: &Path) -> Result<(), Failure> {
    let remedy = "give a wasm binary: a component or a preview-1 module; text (.wat) has to be assembled first";
    check_beginning(path, "job.not-wasm", "wasm", remedy, |begin| *begin == *b"\0asm")
}

/// The same of what is no ONNX model: a message whose first field is one that `ModelProto` has (onnx.proto).
fn check_onnx(path: &Path) -> Result<(), Failure> {
    // Key bytes of its fields: number and wire type; those from 16 on take two.
    const FIELDS: [&[u8]; 12] = [
        &[0x08],
        &[0x12],
        &[0x1a],
        &[0x22],
        &[0x28],
        &[0x32],
        &[0x3a],
        &[0x42],
        &[0x72],
        &[0xa2, 1],
        &[0xca, 1],
        &[0xd2, 1],
    ];
    let remedy = "give a model in ONNX's binary form, as its exporters write it";
    check_beginning(path, "job.not-onnx", "an ONNX model", remedy, |begin| {
        FIELDS.iter().any(|field| begin.starts_with(field))
    })
}

/// Looks at the first four bytes. A file that cannot be read is refused where it is sealed.
fn check_beginning(
    path: &Path,
    code: &'static str,
    what: &str,
    remedy: &str,
    good: impl Fn(&[u8]) -> bool,
) -> Result<(), Failure> {
    let mut begin = Vec::new();
    let read = open_regular(path).and_then(|file| file.take(4).read_to_end(&mut begin));
    if read.is_err() || good(&begin) {
        return Ok(());
    }
    let why = if begin.is_empty() { "it is empty".into() } else { format!("it does not begin as {what} does") };
    Err(Failure::usage(code, format!("{}: {why}", path.display()), remedy))
}

fn tier(arg: TierArg) -> Tier {
    match arg {
        TierArg::None => Tier::None,
        TierArg::Identified => Tier::Identified,
        TierArg::Measured => Tier::Measured,
        TierArg::Confidential => Tier::Confidential,
        TierArg::Hardened => Tier::Hardened,
    }
}

fn sensitivity(arg: SensitivityArg) -> Sensitivity {
    match arg {
        SensitivityArg::Public => Sensitivity::Public,
        SensitivityArg::Sensitive => Sensitivity::Sensitive,
        SensitivityArg::Confidential => Sensitivity::Confidential,
    }
}

fn read_job(path: &Path) -> Result<JobFile, Failure> {
    let unusable = |reason: &dyn std::fmt::Display| {
        let remedy = "see `starminer run --help` and examples/*/job.toml";
        Failure::usage("job.unusable-file", format!("{}: {reason}", path.display()), remedy)
    };
    let text = read_text(path, MAX_JOB_BYTES).map_err(|error| unusable(&error))?;
    JobFile::parse(&text).map_err(|error| unusable(&toml_reason(&text, &error)))
}

/// Files as they are; of a directory every file in it, by name. Names of inputs have no folders, so a directory may have none.
fn expand_inputs(paths: &[PathBuf]) -> Result<Vec<(String, InputSource)>, Failure> {
    let unreadable = |path: &Path, reason: &dyn std::fmt::Display| {
        Failure::usage(
            "job.no-input",
            format!("{}: {reason}", path.display()),
            "name a file or directory that you can read",
        )
    };
    let mut inputs = Vec::new();
    for path in paths {
        let meta = std::fs::metadata(path).map_err(|error| unreadable(path, &error))?;
        let mut files = Vec::new();
        if meta.is_dir() {
            for entry in std::fs::read_dir(path).map_err(|error| unreadable(path, &error))? {
                let entry = entry.map_err(|error| unreadable(path, &error))?.path();
                if !entry.is_file() {
                    let what = if entry.is_dir() { "a folder" } else { "no file" };
                    return Err(Failure::usage(
                        "job.nested-input",
                        format!("{} is {what}; /in has files alone", entry.display()),
                        "give its files with -i as well, or pack everything into one file; or take it out of the directory",
                    ));
                }
                files.push(entry);
            }
            files.sort();
        } else if !meta.is_file() {
            return Err(unreadable(path, &"it is no regular file; what a pipe or a device gives has to be in one"));
        } else {
            files.push(path.clone());
        }
        for file in files {
            let name = file.file_name().and_then(|name| name.to_str()).map(str::to_owned);
            let name = name.ok_or_else(|| unreadable(&file, &"its name is not UTF-8"))?;
            inputs.push((name, InputSource::File(file)));
        }
    }
    Ok(inputs)
}

fn policy(args: &RunArgs, file: &JobPolicy, network: &NetworkTrust) -> Result<Policy, Failure> {
    let mut fields = Policy::confidential().fields().clone();
    let mut roots: Vec<SimulatedRootId> = Vec::new();
    for name in args.accept_simulated.iter().chain(&file.accept_simulated) {
        let entry = network.simulated_roots.iter().find(|entry| entry.name == *name).ok_or_else(|| {
            let known: Vec<&str> = network.simulated_roots.iter().map(|entry| entry.name.as_str()).collect();
            Failure::usage(
                "policy.unknown-root",
                format!("network.toml names no simulated root {name:?}; it names {known:?}"),
                "accept only roots that your own trust file names",
            )
        })?;
        if !roots.contains(&entry.root) {
            roots.push(entry.root);
        }
    }
    fields.accepted_simulated_roots = roots;
    if args.operator_may_read_memory || file.operator_may_read_memory {
        fields.operator_may_read_memory = OperatorMayReadMemory::Yes;
        fields.minimum_tier = Tier::Measured;
    }
    if let Some(tier) = args.minimum_tier.map(tier).or(file.minimum_tier) {
        fields.minimum_tier = tier;
    }
    Policy::new(fields).map_err(|error| {
        let remedy =
            "say --operator-may-read-memory, or operator_may_read_memory = true under [policy] in the job file";
        Failure::usage(error.code(), error, remedy)
    })
}
