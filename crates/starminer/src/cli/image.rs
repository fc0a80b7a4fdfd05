//! `starminer image …`: builds the measured image of a node, and tells what a node measures that starts it. What it is made of is `starminer_image`'s; this file finds the
//! inputs and writes the results.

pub mod built;
pub mod measure;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use starminer_image::{Image, ImageError, Inputs, Policy};

use super::args::{ImageBuildArgs, ImageCommand};
use super::exit::{self, Failure};
use super::home::with_sources;
use super::service::new_dir;
use super::terminal::{Terminal, human_bytes};

/// The image, as it is built from its inputs.
const IMAGE: &str = "starminer-node.efi";
/// The same with a signature.
const SIGNED: &str = "starminer-node.signed.efi";
const MANIFEST: &str = "manifest.json";
/// Where programs for images are, beside this one.
const PROGRAMS: &str = "image";
/// What a kernel's file is called before its version.
const KERNEL_PREFIX: &str = "vmlinuz-";

/// Builds or measures an image.
pub fn image(terminal: &Terminal, command: &ImageCommand) -> Result<u8, Failure> {
    match command {
        ImageCommand::Build(args) => build(terminal, args),
        ImageCommand::Measure(args) => measure::measure(terminal, args),
    }
}

fn build(terminal: &Terminal, args: &ImageBuildArgs) -> Result<u8, Failure> {
    let kernel = args.kernel.clone().map_or_else(only_kernel, Ok)?;
    let modules_dir = args.modules.clone().map_or_else(|| modules_of(&kernel), Ok)?;
    let inputs = Inputs {
        stub: args.stub.clone(),
        modules: args.module.clone(),
        init: args.init.clone().map_or_else(|| program("starminer-init"), Ok)?,
        agent: args.agent.clone().map_or_else(|| program("starminer-agent"), Ok)?,
        disk_programs: args.disk_program.clone(),
        policy: args.policy_key.clone().map(|key| Policy { key, security_version: args.security_version }),
        os_release: os_release(),
        command_line: args.command_line.clone(),
        kernel,
        modules_dir,
    };
    let image = starminer_image::build(&inputs).map_err(|error| failed(&error))?;
    let was_there = args.out.exists();
    new_dir(&args.out)?;
    let place = |name: &str| args.out.join(name);
    write(args, &image).inspect_err(|_| {
        // Half of it would be in the way of the next try.
        for name in [IMAGE, SIGNED, MANIFEST] {
            let _ = fs::remove_file(place(name));
        }
        if !was_there {
            let _ = fs::remove_dir(&args.out);
        }
    })?;
    let size = human_bytes(image.bytes.len() as u64);
    terminal.result(format!("image    {} ({size}), SHA-256 {}", place(IMAGE).display(), image.manifest.sha256));
    terminal.result(format!("measured {} (Authenticode, SHA-256)", image.manifest.authenticode_sha256));
    terminal.result(format!(
        "manifest {}: {} inputs, named by their digests",
        place(MANIFEST).display(),
        image.manifest.inputs.len()
    ));
    let signed = args.sign.as_ref().map(|_| place(SIGNED).display().to_string());
    match &signed {
        Some(signed) => terminal.result(format!("signed   {signed}")),
        None => terminal.say("unsigned: firmware with Secure Boot refuses it (--sign, --cert)"),
    }
    terminal.document(&json!({
        "image": place(IMAGE).display().to_string(),
        "manifest": image.manifest,
        "signed": signed,
    }));
    Ok(exit::OK)
}

/// Writes image and manifest, and signs the image where that is asked for.
fn write(args: &ImageBuildArgs, image: &Image) -> Result<(), Failure> {
    let place = |name: &str| args.out.join(name);
    for (name, bytes) in [(IMAGE, image.bytes.as_slice()), (MANIFEST, image.manifest.encode().as_bytes())] {
        fs::write(place(name), bytes).map_err(|error| {
            let reason = format!("{}: {error}", place(name).display());
            Failure::local("image.output", reason, "check free space and permissions")
        })?;
    }
    if let (Some(key), Some(certificate)) = (&args.sign, &args.cert) {
        starminer_image::sign(&place(IMAGE), key, certificate, &place(SIGNED)).map_err(|error| failed(&error))?;
    }
    Ok(())
}

fn failed(error: &ImageError) -> Failure {
    Failure::usage(error.code(), with_sources(error), error.remedy())
}

/// What boot loaders show of the image.
fn os_release() -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!("ID=starminer\nNAME=\"StarMiner node\"\nPRETTY_NAME=\"StarMiner node {version}\"\nVERSION_ID={version}\n")
}

/// The kernel of this machine, where there is no choice.
fn only_kernel() -> Result<PathBuf, Failure> {
    let entries = fs::read_dir("/boot").into_iter().flatten().flatten();
    let mut kernels: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(KERNEL_PREFIX))
        .map(|entry| entry.path())
        .collect();
    match (kernels.pop(), kernels.len()) {
        (Some(kernel), 0) => Ok(kernel),
        (None, _) => Err(Failure::usage(
            "image.kernel",
            "there is no /boot/vmlinuz-*",
            "name a kernel with --kernel, for example that of Debian's linux-image-cloud-amd64, unpacked with `dpkg -x`",
        )),
        (Some(_), others) => Err(Failure::usage(
            "image.kernel",
            format!("there are {} kernels in /boot", others + 1),
            "say which with --kernel",
        )),
    }
}

/// Where packages put the modules of a kernel.
fn modules_of(kernel: &Path) -> Result<PathBuf, Failure> {
    let version = kernel.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix(KERNEL_PREFIX));
    let above = kernel.parent().map(|boot| boot.join(".."));
    match (above, version) {
        (Some(above), Some(version)) => Ok(above.join("lib/modules").join(version)),
        _ => Err(Failure::usage(
            "image.modules-dir",
            format!("{}: no vmlinuz-VERSION, so that its modules are not found", kernel.display()),
            "name their directory with --modules",
        )),
    }
}

/// A program that was built for images.
fn program(name: &str) -> Result<PathBuf, Failure> {
    let here = std::env::current_exe().map_err(|error| {
        Failure::local(
            "image.program",
            format!("where this program is cannot be told: {error}"),
            "name --init and --agent",
        )
    })?;
    let path = here.with_file_name(PROGRAMS).join(name);
    if path.exists() {
        return Ok(path);
    }
    Err(Failure::usage(
        "image.program",
        format!("there is no {}", path.display()),
        "build it with `cargo xtask image-programs`, or name --init and --agent",
    ))
}
