//! cryptsetup, mke2fs and e2fsck: the programs that this one leaves disks to.
//!
//! Keys go to them through a pipe: never in arguments, the environment or a file. They are found where Debian has them and started without an environment.

use std::io::{self, Read, Write as _};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use zeroize::Zeroizing;

use crate::device::LABEL;
use crate::error::DiskError;
use crate::header::{CIPHER, UNFINISHED};

const CRYPTSETUP: &str = "cryptsetup";
const MKE2FS: &str = "mke2fs";
const E2FSCK: &str = "e2fsck";
/// Debian's place for them.
const PROGRAMS: &str = "/usr/sbin";
/// Most that is repeated of what a program said, in bytes.
const MAX_SAID_BYTES: usize = 512;
/// The least that cryptsetup takes: what is stretched is random already, and as long as the key that it opens.
const ITERATIONS: &str = "1000";

/// How cryptsetup ends where no slot opens (cryptsetup(8), "RETURN CODES").
const NO_PERMISSION: i32 = 2;
/// How e2fsck ends where it mended all that was wrong (e2fsck(8), "EXIT CODE").
const MENDED: i32 = 1;
/// And where it could not begin, for want of a superblock.
const NO_BEGINNING: i32 = 8;
/// Where superblocks are: the first, and its first copy, of a file system with blocks of 4096 bytes.
const SUPERBLOCKS: [&[&str]; 2] = [&[], &["-b", "32768", "-B", "4096"]];

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
    // What is made at once is not found half made by a repair; with an inode for 64 KiB that is 1/256 of the disk.
    command.args(["-i", "65536", "-E", "nodiscard,lazy_itable_init=0"]);
    // Files without a name are listed in a file: a list that begins in the superblock is lost with it, and nothing would be mended without a loss.
    command.args(["-q", "-t", "ext4", "-b", "4096", "-m", "0", "-O", "orphan_file", "-L", LABEL]);
    run(MKE2FS, command.arg(device), &[])
}

/// Checks all of a file system and mends what loses nothing (`-p`). What is torn between sectors when power fails needs that: the kernel looks at the superblock's
/// checksum before it looks into the journal that would restore it. Anything else it leaves, and says so: whoever garbles the disk or its answers has nothing deleted.
pub(crate) fn repair_file_system(device: &Path) -> Result<(), DiskError> {
    let mut failed = DiskError::Program { program: E2FSCK, said: String::new() };
    for superblock in SUPERBLOCKS {
        let mut command = program(E2FSCK);
        // Its findings are not errors of its own.
        command.args(["-f", "-p"]).args(superblock).arg(device).stdout(Stdio::piped()).stderr(Stdio::null());
        let ended = end_of(E2FSCK, &mut command, &[])?;
        let code = ended.status.code();
        if matches!(code, Some(0 | MENDED)) {
            return Ok(());
        }
        failed = ended.into_error(E2FSCK);
        if code != Some(NO_BEGINNING) {
            break;
        }
    }
    Err(failed)
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
    let ended = end_of(name, command, input)?;
    match ended.status.code() {
        Some(0) if ended.took_input => Ok(()),
        Some(0) => Err(DiskError::Program { program: name, said: "it did not take what it was given".into() }),
        Some(NO_PERMISSION) if name == CRYPTSETUP => Err(DiskError::WrongKey),
        _ => Err(ended.into_error(name)),
    }
}

/// How a program ended.
struct End {
    status: ExitStatus,
    took_input: bool,
    said: Vec<u8>,
}

impl End {
    fn into_error(mut self, program: &'static str) -> DiskError {
        self.said.truncate(MAX_SAID_BYTES);
        DiskError::Program { program, said: format!("{}: {}", self.status, String::from_utf8_lossy(&self.said).trim()) }
    }
}

fn end_of(name: &'static str, command: &mut Command, input: &[u8]) -> Result<End, DiskError> {
    let failed = |error: io::Error| DiskError::Program { program: name, said: error.to_string() };
    let mut child = command.spawn().map_err(failed)?;
    // What it does not read, it ends without.
    let took_input = child.stdin.take().is_some_and(|mut pipe| pipe.write_all(input).is_ok());
    let mut said = Vec::new();
    let read = match (child.stdout.take(), child.stderr.take()) {
        (Some(pipe), _) => read_to_end(pipe, &mut said),
        (None, Some(pipe)) => read_to_end(pipe, &mut said),
        (None, None) => Ok(()),
    };
    let status = child.wait().map_err(failed)?;
    read.map_err(failed)?;
    Ok(End { status, took_input, said })
}

/// Reads all, so that whoever writes comes to an end, and keeps the beginning.
fn read_to_end(mut pipe: impl Read, said: &mut Vec<u8>) -> io::Result<()> {
    pipe.by_ref().take(64 * 1024).read_to_end(said)?;
    io::copy(&mut pipe, &mut io::sink()).map(|_| ())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::FileExt as _;
    use std::path::PathBuf;

    use rustix::fs::{Mode, OFlags, open};

    use super::*;
    use crate::device::MIN_BYTES;
    use crate::header::DATA_AT;

    /// Of the smallest disk, what is encrypted.
    const LEAST: u64 = MIN_BYTES - DATA_AT;

    fn made(dir: &Path) -> PathBuf {
        let path = dir.join("made");
        File::create(&path).unwrap().set_len(LEAST).unwrap();
        make_file_system(&path).unwrap();
        path
    }

    fn garble(path: &Path, offset: u64, length: usize) {
        File::options().write(true).open(path).unwrap().write_all_at(&vec![0xa5; length], offset).unwrap();
    }

    fn is_sound(path: &Path) -> bool {
        program(E2FSCK).args(["-f", "-n"]).arg(path).stdout(Stdio::null()).status().unwrap().success()
    }

    /// Tears it between the sectors of a disk of 512-byte sectors.
    fn tear_superblock(path: &Path) {
        garble(path, 1024 + 512, 512);
    }

    /// What is mounted here until this is dropped.
    struct Mounted(PathBuf);

    impl Drop for Mounted {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg(&self.0).status();
        }
    }

    #[test]
    fn unnamed_files_of_the_moment_when_power_failed_are_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let (path, place, after) = (made(dir.path()), dir.path().join("place"), dir.path().join("after"));
        fs::create_dir(&place).unwrap();
        let mut mount = Command::new("mount");
        if !mount.args(["-t", "ext4", "-o", "loop"]).args([&path, &place]).status().unwrap().success() {
            eprintln!("skipped: this machine mounts no file system out of a file");
            return;
        }
        let mounted = Mounted(place.clone());
        // As tasks hold them, several at once: each would be an entry of the list that begins in the superblock.
        let unnamed: Vec<File> = (0..4)
            .map(|_| open(&place, OFlags::TMPFILE | OFlags::RDWR, Mode::RUSR | Mode::WUSR).unwrap().into())
            .collect();
        for mut file in &unnamed {
            file.write_all(&[0x5a; 100_000]).unwrap();
            file.sync_all().unwrap();
        }
        let mut kept = File::create(place.join("kept")).unwrap();
        kept.write_all(b"acknowledged").unwrap();
        kept.sync_all().unwrap();
        File::open(&place).unwrap().sync_all().unwrap();
        // All that was written has gone to the file; the journal was not written back.
        fs::copy(&path, &after).unwrap();
        drop((unnamed, kept, mounted));
        tear_superblock(&after);
        repair_file_system(&after).unwrap();
        assert!(is_sound(&after));
        let mut cat = program("debugfs");
        let output = cat.args(["-R", "cat kept"]).arg(&after).stdout(Stdio::piped()).output().unwrap();
        assert_eq!(output.stdout, b"acknowledged");
    }

    #[test]
    fn a_torn_superblock_is_mended_and_what_would_lose_something_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = made(dir.path());
        assert!(is_sound(&path));
        let destroy = |path: &Path| garble(path, 1024, 1024);
        for damage in [&tear_superblock as &dyn Fn(&Path), &destroy] {
            damage(&path);
            assert!(!is_sound(&path));
            repair_file_system(&path).unwrap();
            assert!(is_sound(&path));
        }
        let mut command = program("debugfs");
        let output = command.args(["-R", "blocks <2>"]).arg(&path).stdout(Stdio::piped()).output().unwrap();
        let root: u64 = String::from_utf8(output.stdout).unwrap().split_whitespace().next().unwrap().parse().unwrap();
        garble(&path, root * 4096, 16);
        let refused = repair_file_system(&path).unwrap_err();
        assert_eq!(refused.code(), "disk.program");
        assert!(refused.to_string().contains("directory corrupted"), "{refused}");
        assert!(!is_sound(&path));
        // Without any superblock it is not even begun.
        let path = dir.path().join("nothing");
        File::create(&path).unwrap().set_len(LEAST).unwrap();
        assert_eq!(repair_file_system(&path).unwrap_err().code(), "disk.program");
    }
}
