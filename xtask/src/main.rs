//! The project's own recipes.
//!
//! * `cargo xtask check`: the quick loop: formatting, lints, unit tests, documentation.
//! * `cargo xtask test`: everything, from a fresh clone: installs what the tests need, then runs the lot. CI runs just this.
//! * `cargo xtask soak`: what takes too long for each run: twenty power cuts under a node at work.
//! * `cargo xtask image-programs`: the two static programs of a node's image, where `starminer image build` looks for them.
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
    ("strace", "strace", "a debugger that is attached to a node, to see it taken out"),
    ("qemu-system-x86_64", "qemu-system-x86", "a machine that starts the node's image"),
    ("cryptsetup", "cryptsetup-bin", "goes into the node's image, and opens its disk"),
    ("mke2fs", "e2fsprogs", "likewise: makes the disk's file system; and e2fsck mends it"),
    ("sbsign", "sbsigntool", "signs the image for Secure Boot"),
    ("objcopy", "binutils", "a second opinion on the image's sections"),
    ("cpio", "cpio", "a second opinion on its initial file system"),
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
    (
        "/usr/lib/systemd/boot/efi/linuxx64.efi.stub",
        "systemd-boot-efi",
        "the stub of the node's image, which measures what it starts",
    ),
    ("/usr/share/doc/python3-venv", "python3-venv", "a place of its own for what comes from PyPI"),
];

/// A program from PyPI, where it is put, its package and version, and what is lost without it.
struct FromPypi {
    program: &'static str,
    dir: &'static str,
    package: &'static str,
    without: &'static str,
}

const FROM_PYPI: [FromPypi; 2] = [
    // A second opinion on launch digests of SEV-SNP guests.
    FromPypi {
        program: "sev-snp-measure",
        dir: "tools/sev-snp-measure",
        package: "sev-snp-measure==0.0.13",
        without: "launch digests are not held against sev-snp-measure",
    },
    // Puts keys into the variables of a virtual machine's firmware.
    FromPypi {
        program: "virt-fw-vars",
        dir: "tools/virt-firmware",
        package: "virt-firmware==26.10",
        without: "the node's image is not started",
    },
];

/// Debian's package that depends on the kernel which the image is tested with.
const KERNEL: &str = "linux-image-cloud-amd64";
/// The static programs of a node's image: each a package with a program of its name.
const IMAGE_PROGRAMS: [&str; 2] = ["starminer-init", "starminer-agent"];

const USAGE: &str = "usage: cargo xtask check|test|soak|image-programs

  check            the quick loop: formatting, lints, unit tests, documentation
  test             everything; installs what the tests need (apt-get, where there is one and the user may), then runs the lot
  soak             what takes too long for each run: twenty power cuts under a node at work
  image-programs   the static programs of a node's image, where `starminer image build` looks for them";

fn main() -> ExitCode {
    let started = Instant::now();
    let recipe = env::args().nth(1);
    let result = match recipe.as_deref() {
        Some("check") => check(),
        Some("test") => test(),
        Some("soak") => soak(),
        Some("image-programs") => image_programs(),
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
    tools()?;
    format_and_lints()?;
    documentation()?;
    image_programs()?;
    cargo(&["build", "--release", "--workspace", "--bins"])?;
    cargo(&["test", "--release", "--workspace"])?;
    examples()?;
    step("starminer demo");
    run(Command::new(target().join("release/starminer")).args(["demo", "--json"]))
}

fn soak() -> Result<()> {
    tools()?;
    image_programs()?;
    cargo(&["build", "--release", "--workspace", "--bins"])?;
    cargo(&["test", "--release", "--package", "starminer", "--test", "image", "--", "--ignored", "--nocapture"])
}

/// Installs what the tests need.
fn tools() -> Result<()> {
    install()?;
    FROM_PYPI.iter().for_each(install_from_pypi);
    unpack_kernel();
    Ok(())
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

/// Puts a program where the tests look for it. Without Python or the registry the test that needs it says so and is skipped.
fn install_from_pypi(wanted: &FromPypi) {
    let dir = target().join(wanted.dir);
    if dir.join("bin").join(wanted.program).exists() {
        return;
    }
    step(&format!("pip install {}", wanted.package));
    let made = run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&dir)).and_then(|()| {
        let pip = ["install", "--quiet", "--disable-pip-version-check", wanted.package];
        run(Command::new(dir.join("bin/pip")).args(pip))
    });
    if let Err(error) = made {
        eprintln!("xtask: SKIPPED: {error:#}: {}", wanted.without);
    }
}

/// Unpacks Debian's kernel for virtual machines where the tests look for it. It is not installed: nothing here starts from it.
fn unpack_kernel() {
    let dir = target().join("tools/kernel");
    if dir.join("boot").exists() {
        return;
    }
    step(&format!("the kernel of {KERNEL}"));
    if let Err(error) = try_unpack_kernel(&dir) {
        eprintln!("xtask: SKIPPED: {error:#}: the node's image is not started");
    }
}

fn try_unpack_kernel(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    let asked = Command::new("apt-cache").args(["depends", KERNEL]).output().context("apt-cache cannot be run")?;
    let listed = String::from_utf8_lossy(&asked.stdout).into_owned();
    let package = listed
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: ").filter(|name| name.starts_with("linux-image-")))
        .with_context(|| format!("apt-cache knows no {KERNEL}"))?;
    run(Command::new("apt-get").args(["download", "-qq", package]).current_dir(dir))?;
    let entries = std::fs::read_dir(dir)?.flatten().map(|entry| entry.path());
    let file = entries.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "deb"));
    let file = file.context("apt-get downloaded nothing")?;
    run(Command::new("dpkg").arg("-x").arg(&file).arg(dir))?;
    Ok(std::fs::remove_file(file)?)
}

/// Builds the static programs of a node's image. Only the last step of linking differs from other builds, so that everything below is shared with them.
fn image_programs() -> Result<()> {
    let dir = target().join("release/image");
    std::fs::create_dir_all(&dir)?;
    for program in IMAGE_PROGRAMS {
        // A program that can lie anywhere in memory has a hundred thousand relocations, all alike: packed, the agent is 2.4 MiB smaller.
        let packed = "link-arg=-Wl,-z,pack-relative-relocs";
        let flags = ["-C", "target-feature=+crt-static", "-C", "strip=symbols", "-C", packed];
        cargo(&[&["rustc", "--release", "--package", program, "--bin", program, "--"][..], &flags[..]].concat())?;
        let size_bytes = std::fs::copy(target().join("release").join(program), dir.join(program))?;
        eprintln!("xtask: {program}: {size_bytes} bytes ({:.1} MiB)", size_bytes as f64 / f64::from(1 << 20));
    }
    Ok(())
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
