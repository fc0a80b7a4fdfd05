//! The directory of what outlives a machine: its TPM's state, its firmware's variables, what it is told.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use starminer_image::measure::credentials::Credentials;

use crate::cli::exit::Failure;

/// What outlives the machine; one at a time uses it.
pub struct State {
    /// Where it is.
    pub dir: PathBuf,
    lock: File,
}

impl State {
    /// Takes a directory, which is made where there is none.
    pub fn open(dir: &Path) -> Result<Self, Failure> {
        let failure = |error: &dyn std::fmt::Display| {
            Failure::usage("host.state", format!("{}: {error}", dir.display()), "give a directory where you may write")
        };
        // What the emulated TPM keeps is for nobody else.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| failure(&error))?;
        // Paths are handed to programs that take those with a dash for options.
        let dir = dir.canonicalize().map_err(|error| failure(&error))?;
        if dir.as_os_str().as_encoded_bytes().contains(&b':') {
            // QEMU reads what stands before it in a path as the name of a protocol.
            return Err(failure(&"QEMU takes no path with a colon"));
        }
        let place = dir.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(place)
            .map_err(|error| failure(&error))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { dir, lock }),
            Err(TryLockError::WouldBlock) => {
                let reason = format!("{}: a machine runs with this state", dir.display());
                let remedy =
                    "end it (`fuser` names the processes that have its file `lock` open), or give another directory";
                Err(Failure::usage("host.state-in-use", reason, remedy))
            }
            Err(TryLockError::Error(error)) => Err(failure(&error)),
        }
    }

    /// For a file in it.
    pub fn failure(&self, error: &io::Error) -> Failure {
        let reason = format!("{}: {error}", self.dir.display());
        Failure::local("host.state", reason, "check free space and permissions")
    }

    /// Writes a file into a directory of the state: what is there under its name is whole.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<PathBuf, Failure> {
        let place = self.dir.join(name);
        let made = place.parent().map_or(Ok(()), fs::create_dir_all);
        let new = place.with_extension("new");
        let write = || -> io::Result<()> {
            made?;
            let mut file = File::create(&new)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&new, &place)
        };
        write().map_err(|error| self.failure(&error))?;
        Ok(place)
    }

    /// What the node is told, and nothing that an earlier one was told.
    pub fn write_credentials(&self, told: &Credentials) -> Result<(), Failure> {
        let place = self.dir.join("credentials");
        // They may be the very files that these were read from: each is replaced whole, and what is no credential is somebody else's.
        let remove_others = || -> io::Result<()> {
            for entry in fs::read_dir(&place)? {
                let path = entry?.path();
                let name = path.file_name().and_then(|name| name.to_str());
                let is_told = name.is_some_and(|name| told.contains_key(name));
                if path.extension().is_some_and(|kind| kind == "cred") && !is_told {
                    fs::remove_file(&path)?;
                }
            }
            Ok(())
        };
        match remove_others() {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(self.failure(&error)),
            _ => {}
        }
        for (name, contents) in told {
            self.write(&format!("credentials/{name}"), contents)?;
        }
        Ok(())
    }

    /// The lock, for a program that has the state in use as long as it runs, whatever becomes of this one.
    pub fn lock(&self) -> Result<File, Failure> {
        self.lock.try_clone().map_err(|error| self.failure(&error))
    }
}
