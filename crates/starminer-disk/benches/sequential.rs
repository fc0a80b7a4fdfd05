//! Encrypted job storage against the same device plain, sequentially: `cargo bench -p starminer-disk --bench sequential`, as root, on the machine that is to be a node.
//!
//! The device is a loop device over a file where cargo builds, or in `STARMINER_BENCH_DIR`; plain and encrypted rounds take turns on the same part of it, past the page cache. Needs
//! cryptsetup and losetup, and the kernel's loop devices and dm-crypt; it says so where one of them is missing.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../tests/words/mod.rs"]
mod words;

use std::env;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use rustix::fs::OFlags;

const ROUNDS: usize = 7;
const MEASURED_BYTES: usize = 512 << 20;
/// Where LUKS2 data begins, as nodes format it.
const DATA_OFFSET_BYTES: u64 = 16 << 20;
/// One request; more are not under way at a time, on either.
const REQUEST_BYTES: usize = 4 << 20;
const SECTOR_BYTES: usize = 4096;
const NAME: &str = "starminer-bench";
const KEY: [u8; 64] = [7; 64];

fn main() {
    match measure() {
        Ok(()) => {}
        Err(why) => println!("skipped: {why}"),
    }
}

fn measure() -> Result<(), String> {
    let dir = env::var_os("STARMINER_BENCH_DIR").map_or_else(|| env!("CARGO_TARGET_TMPDIR").into(), PathBuf::from);
    let backing =
        Backing::make(&dir.join("starminer-bench.raw")).map_err(|error| format!("{}: {error}", dir.display()))?;
    let device = Loop::attach(&backing.0)?;
    run("cryptsetup", words::FORMAT.split_whitespace().chain([device.0.as_str()]), &KEY)?;
    let _open = Mapping::open(&device.0)?;
    let mapped = format!("/dev/mapper/{NAME}");

    let mut buffer = vec![0; REQUEST_BYTES + SECTOR_BYTES];
    let start = buffer.as_ptr().align_offset(SECTOR_BYTES);
    let request = &mut buffer[start..start + REQUEST_BYTES];
    // What is all alike could be stored as nothing.
    let mut word = 0x9e37_79b9_7f4a_7c15_u64;
    for bytes in request.chunks_exact_mut(8) {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    // MB/s of plain write, encrypted write, plain read, encrypted read.
    let mut rates: [Vec<f64>; 4] = Default::default();
    for round in 0..=ROUNDS {
        for (at, path, offset) in [(0, device.0.as_str(), DATA_OFFSET_BYTES), (1, mapped.as_str(), 0)] {
            let (write, read) =
                round_trip(Path::new(path), offset, request).map_err(|error| format!("{path}: {error}"))?;
            // The first round is for warming up.
            if round > 0 {
                rates[at].push(write);
                rates[at + 2].push(read);
            }
        }
    }
    let [plain_write, write, plain_read, read] = rates.map(median);
    println!("sequential   plain MB/s   encrypted MB/s   ratio (0.8 is asked for)");
    for (what, plain, encrypted) in [("write", plain_write, write), ("read", plain_read, read)] {
        println!("{what:<10}   {plain:>10.0}   {encrypted:>14.0}   {:>5.2}", encrypted / plain);
    }
    Ok(())
}

/// Rates of writing and reading the measured part once.
fn round_trip(path: &Path, offset: u64, request: &mut [u8]) -> io::Result<(f64, f64)> {
    let direct = i32::try_from(OFlags::DIRECT.bits()).expect("a flag of open(2) is an int");
    let device = File::options().read(true).write(true).custom_flags(direct).open(path)?;
    let places = || (0..MEASURED_BYTES).step_by(REQUEST_BYTES).map(|at| offset + at as u64);
    let rate = |since: Instant| MEASURED_BYTES as f64 / 1e6 / since.elapsed().as_secs_f64();
    let began = Instant::now();
    for place in places() {
        device.write_all_at(request, place)?;
    }
    device.sync_all()?;
    let written = rate(began);
    let began = Instant::now();
    for place in places() {
        device.read_exact_at(request, place)?;
    }
    Ok((written, rate(began)))
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_unstable_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// The file behind the device, with all its blocks.
struct Backing(PathBuf);

impl Backing {
    fn make(path: &Path) -> io::Result<Self> {
        let mut file = File::create(path)?;
        let backing = Self(path.to_owned());
        let piece = vec![0x5a; REQUEST_BYTES];
        for _ in 0..(MEASURED_BYTES + DATA_OFFSET_BYTES as usize).div_ceil(REQUEST_BYTES) {
            file.write_all(&piece)?;
        }
        file.sync_all()?;
        Ok(backing)
    }
}

impl Drop for Backing {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

struct Loop(String);

impl Loop {
    fn attach(file: &Path) -> Result<Self, String> {
        let words = ["--find", "--show", "--direct-io=on"].map(str::to_owned);
        let said = run("losetup", words.into_iter().chain([file.display().to_string()]), &[])?;
        Ok(Self(said.trim().to_owned()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = run("losetup", ["--detach", self.0.as_str()], &[]);
    }
}

struct Mapping;

impl Mapping {
    fn open(device: &str) -> Result<Self, String> {
        let words = ["open", "--type", "luks2", "--key-file", "-", "--keyfile-size", "64", device, NAME];
        run("cryptsetup", words, &KEY).map(|_| Self)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let _ = run("cryptsetup", ["close", NAME], &[]);
    }
}

/// Runs a program, and gives what it says.
fn run(
    program: &str,
    words: impl IntoIterator<Item = impl AsRef<std::ffi::OsStr>>,
    input: &[u8],
) -> Result<String, String> {
    let failed = |error: io::Error| format!("{program}: {error}");
    let mut child = Command::new(Path::new("/usr/sbin").join(program))
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    child.stdin.take().map(|mut pipe| pipe.write_all(input)).transpose().map_err(failed)?;
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}
