//! The project's own recipes.
//!
//! * `cargo xtask check`: the quick loop: formatting, lints, unit tests, documentation.
//! * `cargo xtask test`: everything, from a fresh clone: installs what the tests need, then runs the lot. CI runs just this.
//!
//! One artefact tree: everything is built with the release profile, so that nothing large is compiled twice.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

/// A program that some test needs, the Debian package that has it, and why.
const TOOLS: &[(&str, &str, &str)] = &[
    (
        "clang",
        "clang",
        "builds the example programs to WebAssembly, to check that the committed ones are what their sources say",
    ),
    ("wasm-ld", "lld", "links them"),
    ("llvm-strip", "llvm", "strips them"),
    ("openssl", "openssl", "a TLS 1.2 client, to see it refused"),
    ("age", "age", "the rival that `vault seal` is measured against"),
    ("swtpm", "swtpm", "a TPM 2.0 in software, which quotes and activates credentials for real"),
    ("swtpm_setup", "swtpm-tools", "gives it a certificate of its endorsement key"),
    ("tpm2_quote", "tpm2-tools", "a second opinion on quotes, logs and credentials"),
];

/// Files that some test needs, likewise.
const FILES: &[(&str, &str, &str)] = &[
    ("/usr/include/wasm32-wasi/stdio.h", "wasi-libc", "the C library of the example programs"),
    (
        "/usr/lib/llvm-14/lib/clang/14.0.6/lib/wasi/libclang_rt.builtins-wasm32.a",
        "libclang-rt-14-dev-wasm32",
        "compiler support routines for them",
    ),
    ("/usr/share/ovmf/OVMF.fd", "ovmf", "firmware for confidential guests, whose launch is predicted"),
    ("/usr/share/doc/python3-venv", "python3-venv", "a place of its own for what comes from PyPI"),
];

/// A program from PyPI that a test is held against, and its version: `sev-snp-measure`, a second opinion on launch digests of SEV-SNP guests.
const SNP_MEASURE: &str = "sev-snp-measure==0.0.13";

const USAGE: &str = "usage: cargo xtask check|test

  check   the quick loop: formatting, lints, unit tests, documentation
  test    everything; installs what the tests need (apt-get, where there is one and the user may), then runs the lot";

fn main() -> ExitCode {
    let started = Instant::now();
    let recipe = env::args().nth(1);
    let result = match recipe.as_deref() {
        Some("check") => check(),
        Some("test") => test(),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => {
            eprintln!("xtask: all good in {:.0} s", started.elapsed().as_secs_f64());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn check() -> Result<()> {
    format_and_lints()?;
    cargo(&["test", "--release", "--workspace", "--lib", "--bins"])?;
    documentation()
}

fn test() -> Result<()> {
    install()?;
    install_snp_measure();
    format_and_lints()?;
    documentation()?;
    cargo(&["build", "--release", "--workspace", "--bins"])?;
    cargo(&["test", "--release", "--workspace"])?;
    examples()?;
    step("starminer demo");
    run(Command::new(target().join("release/starminer")).args(["demo", "--json"]))
}

fn format_and_lints() -> Result<()> {
    cargo(&["fmt", "--all", "--check"])?;
    cargo(&["clippy", "--release", "--workspace", "--all-targets", "--", "-D", "warnings"])
}

fn documentation() -> Result<()> {
    step("cargo doc");
    run(Command::new(cargo_program())
        .args(["doc", "--release", "--workspace", "--no-deps", "--quiet"])
        .env("RUSTDOCFLAGS", "-D warnings")
        .current_dir(root()))
}

/// The committed WebAssembly is what its sources say, where the compiler is the one that its recipe names.
fn examples() -> Result<()> {
    if !has_program("clang") || !Path::new(FILES[0].0).exists() {
        eprintln!("xtask: SKIPPED: clang or wasi-libc is missing, so the example programs are not rebuilt");
        return Ok(());
    }
    step("examples/build-wasm.sh --check");
    run(Command::new("sh").args(["examples/build-wasm.sh", "--check"]).current_dir(root()))
}

/// Installs what is missing. Without apt-get or the right to use it the tests that need it say so and are skipped.
fn install() -> Result<()> {
    let missing_tools = TOOLS.iter().filter(|(program, ..)| !has_program(program));
    let missing_files = FILES.iter().filter(|(file, ..)| !Path::new(file).exists());
    let missing: Vec<_> = missing_tools.chain(missing_files).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for (what, package, why) in &missing {
        eprintln!("xtask: needs {package} ({what}): {why}");
    }
    if !has_program("apt-get") {
        eprintln!("xtask: no apt-get here: install them yourself, or the tests that need them are skipped");
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|(_, package, _)| *package).collect();
    let apt = |args: &[&str]| {
        Command::new("apt-get").args(args).env("DEBIAN_FRONTEND", "noninteractive").stdout(Stdio::null()).status()
    };
    let installed = apt(&["update", "-qq"]).and_then(|_| {
        let mut args = vec!["install", "-y", "-qq", "--no-install-recommends"];
        args.extend(&packages);
        apt(&args)
    });
    if !installed.context("apt-get cannot be run")?.success() {
        eprintln!("xtask: apt-get could not install {}: the tests that need them are skipped", packages.join(", "));
    }
    Ok(())
}

/// Puts [`SNP_MEASURE`] where the tests look for it. Without Python or the registry the test that needs it says so and is skipped.
fn install_snp_measure() {
    let dir = target().join("tools/sev-snp-measure");
    if dir.join("bin/sev-snp-measure").exists() {
        return;
    }
    step(&format!("pip install {SNP_MEASURE}"));
    let made = run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&dir)).and_then(|()| {
        let pip = ["install", "--quiet", "--disable-pip-version-check", SNP_MEASURE];
        run(Command::new(dir.join("bin/pip")).args(pip))
    });
    if let Err(error) = made {
        eprintln!("xtask: SKIPPED: {error:#}: launch digests are not held against sev-snp-measure");
    }
}

fn cargo(args: &[&str]) -> Result<()> {
    step(&format!("cargo {}", args.join(" ")));
    run(Command::new(cargo_program()).args(args).current_dir(root()))
}

fn cargo_program() -> String {
    env::var("CARGO").unwrap_or_else(|_| "cargo".into())
}

fn step(what: &str) {
    eprintln!("xtask: {what}");
}

fn run(command: &mut Command) -> Result<()> {
    let shown = format!("{command:?}");
    let status = command.status().with_context(|| format!("{shown} cannot be run"))?;
    if !status.success() {
        bail!("{shown} failed: {status}");
    }
    Ok(())
}

fn has_program(name: &str) -> bool {
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|dir| dir.join(name).is_file()))
}

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}
