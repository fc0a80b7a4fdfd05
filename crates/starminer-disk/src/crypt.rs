//! cryptsetup and mke2fs: the two programs that this one leaves disks to.
//!
//! Keys go to them through a pipe: never in arguments, the environment or a file. They are found where Debian has them and started without an environment.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use zeroize::Zeroizing;

use crate::device::LABEL;
use crate::error::DiskError;
use crate::header::{CIPHER, UNFINISHED};

const CRYPTSETUP: &str = "cryptsetup";
const MKE2FS: &str = "mke2fs";
/// Debian's place for both.
const PROGRAMS: &str = "/usr/sbin";
/// Most that is repeated of what a program said, in bytes.
const MAX_SAID_BYTES: usize = 512;
/// The least that cryptsetup takes: what is stretched is random already, and as long as the key that it opens.
const ITERATIONS: &str = "1000";

/// How cryptsetup ends where no slot opens (cryptsetup(8), "RETURN CODES").
const NO_PERMISSION: i32 = 2;

/// What opens the slot: random, and of 64 bytes.
pub(crate) type Secret = Zeroizing<[u8; 64]>;

/// Formats a disk as one that is not finished.
pub(crate) fn format(device: &Path, secret: &Secret) -> Result<(), DiskError> {
    let mut command = program(CRYPTSETUP);
    command.args(["luksFormat", "--batch-mode", "--type", "luks2", "--cipher", CIPHER, "--key-size", "512"]);
    command.args(["--hash", "sha256", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", ITERATIONS]);
    command.args(["--sector-size", "4096", "--luks2-metadata-size", "16k", "--offset", "32768"]);
    command.args(["--label", LABEL, "--subsystem", UNFINISHED]);
    run(CRYPTSETUP, command.args(key_from_pipe()).arg(device), &secret[..])
}

/// Opens a disk with this header, which was looked at, and not with what is on it.
pub(crate) fn open(device: &Path, header: &Path, secret: &Secret) -> Result<(), DiskError> {
    let mut command = program(CRYPTSETUP);
    command.args(["open", "--type", "luks2", "--key-slot", "0", "--header"]).arg(header);
    run(CRYPTSETUP, command.args(key_from_pipe()).arg(device).arg(LABEL), &secret[..])
}

/// Closes it.
pub(crate) fn close() -> Result<(), DiskError> {
    run(CRYPTSETUP, program(CRYPTSETUP).args(["close", LABEL]), &[])
}

/// Puts a token into a header, in place of the one that is there.
pub(crate) fn put_token(device: &Path, token: &[u8]) -> Result<(), DiskError> {
    let mut command = program(CRYPTSETUP);
    command.args(["token", "import", "--token-id", "0", "--token-replace", "--json-file", "-"]);
    run(CRYPTSETUP, command.arg(device), token)
}

/// Says what a disk is for.
pub(crate) fn set_subsystem(device: &Path, subsystem: &str) -> Result<(), DiskError> {
    let mut command = program(CRYPTSETUP);
    run(CRYPTSETUP, command.args(["config", "--label", LABEL, "--subsystem", subsystem]).arg(device), &[])
}

/// Makes a file system.
pub(crate) fn make_file_system(device: &Path) -> Result<(), DiskError> {
    let mut command = program(MKE2FS);
    // What is not used stays as it is: discarding would tell the host what is in use.
    command.args(["-q", "-t", "ext4", "-m", "0", "-E", "nodiscard", "-L", LABEL]);
    run(MKE2FS, command.arg(device), &[])
}

fn key_from_pipe() -> [&'static str; 4] {
    ["--key-file", "-", "--keyfile-size", "64"]
}

fn program(name: &str) -> Command {
    let mut command = Command::new(Path::new(PROGRAMS).join(name));
    command.env_clear().stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn run(name: &'static str, command: &mut Command, input: &[u8]) -> Result<(), DiskError> {
    let failed = |said: String| DiskError::Program { program: name, said };
    let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
    // What it does not read, it ends without.
    let written = child.stdin.take().map(|mut pipe| pipe.write_all(input));
    let mut said = Vec::new();
    let read = child.stderr.take().map(|pipe| pipe.take(64 * 1024).read_to_end(&mut said));
    let status = child.wait().map_err(|error| failed(error.to_string()))?;
    match (status.success(), written, read) {
        (true, Some(Ok(())), Some(Ok(_))) => Ok(()),
        (true, ..) => Err(failed("it did not take what it was given".into())),
        (false, ..) if name == CRYPTSETUP && status.code() == Some(NO_PERMISSION) => Err(DiskError::WrongKey),
        (false, ..) => {
            said.truncate(MAX_SAID_BYTES);
            Err(failed(format!("{status}: {}", String::from_utf8_lossy(&said).trim())))
        }
    }
}
