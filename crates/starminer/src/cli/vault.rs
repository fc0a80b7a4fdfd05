//! `starminer vault seal|open`: files and streams.

use std::fs::{self, File};
use std::io::{self, IsTerminal as _};
use std::num::NonZeroUsize;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::json;
use starminer_requester::random_bytes;
use starminer_vault::object::parallel::{self, Workers};
use starminer_vault::object::{
    ContentIdMode, Digests, ObjectContext, OpenError, SealError, SealOptions, SealedSummary, open_stream, seal_stream,
};
use starminer_vault::{Purpose, Salt, TaskSecret};

use super::args::VaultArgs;
use super::exit::{self, Failure};
use super::home::with_sources;
use super::key::load_secret;
use super::terminal::{Terminal, human_bytes};

/// Stand-alone files belong to no task.
const NO_TASK: [u8; 16] = [0; 16];

enum Direction {
    Seal,
    Open,
}

/// Seals a file.
pub fn seal(terminal: &Terminal, args: &VaultArgs) -> Result<u8, Failure> {
    convert(terminal, args, &Direction::Seal)
}

/// Opens a sealed file.
pub fn open(terminal: &Terminal, args: &VaultArgs) -> Result<u8, Failure> {
    convert(terminal, args, &Direction::Open)
}

fn convert(terminal: &Terminal, args: &VaultArgs, direction: &Direction) -> Result<u8, Failure> {
    let secret = load_secret(&args.key_file)?;
    let job = Job { terminal, args, direction, secret: &secret };
    let to_stdout = args.writes_stdout();
    let summary = if to_stdout || args.input == Path::new("-") || !is_regular(&args.input) {
        job.stream(to_stdout)?
    } else {
        job.file_to_file()?
    };
    let verb = match direction {
        Direction::Seal => "sealed",
        Direction::Open => "opened",
    };
    let content_id = summary.content_id.as_ref().map(|id| data_encoding::HEXLOWER.encode(&id.0));
    // A filter in a pipe says nothing unless it is asked.
    if !to_stdout {
        terminal.say(format!(
            "{verb} {} ({} sealed) to {}",
            human_bytes(summary.plain_len),
            human_bytes(summary.sealed_len),
            args.output.display()
        ));
    }
    if let Some(id) = &content_id {
        terminal.result(format!("content id {id}"));
    }
    terminal.document(&json!({
        "plain_bytes": summary.plain_len,
        "sealed_bytes": summary.sealed_len,
        "content_id": content_id,
    }));
    Ok(exit::OK)
}

fn is_regular(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file())
}

struct Job<'a> {
    terminal: &'a Terminal,
    args: &'a VaultArgs,
    direction: &'a Direction,
    secret: &'a TaskSecret,
}

impl Job<'_> {
    fn context(&self) -> ObjectContext<'_> {
        ObjectContext { task: NO_TASK, name: &self.args.name, purpose: Purpose::File }
    }

    fn digests(&self) -> Digests {
        let content_id = if self.args.content_id { ContentIdMode::Compute } else { ContentIdMode::Skip };
        Digests { content_id, ..Digests::default() }
    }

    fn options(&self) -> SealOptions {
        SealOptions { digests: self.digests(), ..SealOptions::default() }
    }

    /// All processors, no pass over memory more than needed.
    fn file_to_file(&self) -> Result<SealedSummary, Failure> {
        let source = open_input(&self.args.input)?;
        let total = source.metadata().map_err(|error| io_failure(&self.args.input, &error))?.len();
        let target = Target::create(&self.args.output, self.args.force, mode(self.direction))?;
        let label = match self.direction {
            Direction::Seal => "sealing",
            Direction::Open => "opening",
        };
        let bar = self.terminal.bytes_bar(label, total);
        let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let workers = Workers { threads, progress: &|bytes| bar.inc(bytes) };
        let summary = match self.direction {
            Direction::Seal => parallel::seal(
                self.secret,
                &self.context(),
                Salt::from_random(random_bytes()),
                self.options(),
                workers,
                &source,
                &target.file,
            )
            .map_err(|error| self.seal_failure(&error)),
            Direction::Open => {
                parallel::open(self.secret, &self.context(), self.digests(), workers, &source, total, &target.file)
                    .map_err(|error| self.open_failure(&error))
            }
        };
        bar.finish_and_clear();
        let summary = summary?;
        target.commit()?;
        Ok(summary)
    }

    fn stream(&self, to_stdout: bool) -> Result<SealedSummary, Failure> {
        if to_stdout && matches!(self.direction, Direction::Seal) && io::stdout().is_terminal() {
            return Err(Failure::usage(
                "vault.terminal",
                "standard output is a terminal",
                "redirect it to a file or a pipe",
            ));
        }
        let input: Box<dyn io::Read> = if self.args.input == Path::new("-") {
            Box::new(io::stdin().lock())
        } else {
            Box::new(open_input(&self.args.input)?)
        };
        if to_stdout {
            let mut out = io::stdout().lock();
            return self.convert_stream(input, &mut out);
        }
        let target = Target::create(&self.args.output, self.args.force, mode(self.direction))?;
        let summary = self.convert_stream(input, &target.file)?;
        target.commit()?;
        Ok(summary)
    }

    fn convert_stream(&self, input: impl io::Read, output: impl io::Write) -> Result<SealedSummary, Failure> {
        match self.direction {
            Direction::Seal => {
                let salt = Salt::from_random(random_bytes());
                seal_stream(self.secret, &self.context(), salt, self.options(), input, output)
                    .map_err(|error| self.seal_failure(&error))
            }
            Direction::Open => open_stream(self.secret, &self.context(), self.digests(), input, output)
                .map_err(|error| self.open_failure(&error)),
        }
    }

    fn seal_failure(&self, error: &SealError) -> Failure {
        let reason = format!("{} cannot be sealed: {}", self.args.input.display(), with_sources(error));
        match error {
            SealError::Source(_) | SealError::Sink(_) => {
                Failure::local(error.code(), reason, "check free space and permissions")
            }
            _ => Failure::usage(error.code(), reason, "see `starminer vault seal --help` for the bounds"),
        }
    }

    fn open_failure(&self, error: &OpenError) -> Failure {
        let reason = format!("{} cannot be opened: {}", self.args.input.display(), with_sources(error));
        match error {
            OpenError::Source(_) | OpenError::Sink(_) => {
                Failure::local(error.code(), reason, "check free space and permissions")
            }
            _ => Failure::refused(starminer_verify::Refusal::new(
                starminer_verify::Party::Requester,
                error.code(),
                &reason,
                "check the key file and --name; if both are right, the file was altered: fetch it again",
            )),
        }
    }
}

/// Permissions of what is written: what was sealed is for whom the umask lets read it, what was opened for its owner alone.
fn mode(direction: &Direction) -> u32 {
    match direction {
        Direction::Seal => 0o666,
        Direction::Open => 0o600,
    }
}

/// An output file: written beside its place, and put there only when all of it is good.
struct Target {
    file: File,
    temporary: PathBuf,
    path: PathBuf,
    committed: bool,
}

impl Target {
    fn create(path: &Path, force: bool, mode: u32) -> Result<Self, Failure> {
        match fs::metadata(path) {
            Ok(meta) if !meta.is_file() => {
                let reason = format!("{} is not a file", path.display());
                let remedy = "name a file; for a pipe or a device write to standard output with -";
                return Err(Failure::usage("vault.not-a-file", reason, remedy));
            }
            Ok(_) if !force => {
                let reason = format!("{} exists", path.display());
                return Err(Failure::usage("vault.exists", reason, "name another file, or overwrite it with --force"));
            }
            _ => {}
        }
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".part-{}", std::process::id()));
        let temporary = PathBuf::from(name);
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&temporary)
            .map_err(|error| io_failure(path, &error))?;
        Ok(Self { file, temporary, path: path.to_path_buf(), committed: false })
    }

    fn commit(mut self) -> Result<(), Failure> {
        fs::rename(&self.temporary, &self.path).map_err(|error| io_failure(&self.path, &error))?;
        self.committed = true;
        Ok(())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if !self.committed {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

fn open_input(path: &Path) -> Result<File, Failure> {
    let unusable = |reason: &dyn std::fmt::Display, remedy: &str| {
        Failure::usage("vault.no-input", format!("{}: {reason}", path.display()), remedy)
    };
    let file = File::open(path).map_err(|error| unusable(&error, "name a file that you can read"))?;
    if file.metadata().is_ok_and(|meta| meta.is_dir()) {
        let remedy = "pack it: tar c DIR | starminer vault seal --key-file K - OUT";
        return Err(unusable(&"it is a directory", remedy));
    }
    Ok(file)
}

fn io_failure(path: &Path, error: &io::Error) -> Failure {
    let remedy = "name a file in a directory that exists, where you may write and where there is space";
    Failure::local("vault.io", format!("{} cannot be written: {error}", path.display()), remedy)
}
