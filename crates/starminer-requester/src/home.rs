//! The requester's directory.
//!
//! ```text
//! identity.key    Ed25519 identity, readable by its owner alone
//! network.toml    the network's trust file
//! journal/        one sealed journal a task
//! staging/        ciphertext on its way up or down, a directory for each process that is at it
//! log.checkpoint  the largest checkpoint seen, so that a fork shows
//! references.*    the newest published reference values seen, a file for each role, so that older ones show
//! ```
//!
//! Any number of processes may use one home at once: a journal is locked by whoever works on its task, the checkpoint while it is replaced.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use starminer_log::Remembered;
use starminer_receipt::{NetworkTrust, NetworkTrustError, Role};
use starminer_verify::NetworkId;

use crate::files::open_regular;
use crate::references::ReferenceMemory;
use crate::staging;

/// How long nobody has touched a half-made journal that was left behind.
const LEFT_BEHIND: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Largest checkpoint file, in bytes: a signed note with all the cosignatures that it may have.
const MAX_REMEMBERED_BYTES: usize = 64 << 10;

/// Why a home directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// The file system refused.
    #[error("{path}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// This machine failed: the disk is full or broken, or something is not this user's to write.
    #[error("{path}")]
    Local {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The trust file is unusable.
    #[error("{path}")]
    Network {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: NetworkTrustError,
    },
    /// The remembered checkpoint is not of this network's log.
    #[error("{path} is not a checkpoint of this network's log")]
    Checkpoint {
        /// Which file.
        path: PathBuf,
    },
    /// The memory of published reference values is not of this network and role.
    #[error("{path} does not remember reference values of this network and role")]
    References {
        /// Which file.
        path: PathBuf,
    },
}

/// A requester's directory.
#[derive(Debug, Clone)]
pub struct Home {
    root: PathBuf,
}

impl Home {
    /// Opens the directory, and makes it and its parts where they are missing. Removes what processes that were killed left
    /// staged, and journals that they left half made, a week later.
    ///
    /// # Errors
    /// [`HomeError::Local`]; [`HomeError::Io`] where a file stands in the place of a directory.
    pub fn open(root: &Path) -> Result<Self, HomeError> {
        for dir in [root.to_path_buf(), root.join("journal"), root.join("staging")] {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(|source| match source.kind() {
                io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => HomeError::Io { path: dir, source },
                _ => HomeError::Local { path: dir, source },
            })?;
        }
        let home = Self { root: root.to_path_buf() };
        home.sweep(SystemTime::now());
        Ok(home)
    }

    /// Removes ciphertext of processes that are gone, and journals that never got their name and that nobody has touched for so long that
    /// nobody is at it any more. What cannot be removed stays: it is in nobody's way.
    fn sweep(&self, now: SystemTime) {
        let old = |entry: &fs::DirEntry| {
            let modified = entry.metadata().and_then(|meta| meta.modified());
            modified.is_ok_and(|modified| now.duration_since(modified).is_ok_and(|age| age > LEFT_BEHIND))
        };
        let unnamed = |entry: &fs::DirEntry| entry.path().extension().is_some_and(|extension| extension == "new");
        staging::sweep(&self.staging_dir());
        let journals = fs::read_dir(self.journal_dir()).into_iter().flatten().flatten().filter(unnamed);
        for entry in journals.filter(old) {
            let _ = fs::remove_file(entry.path());
        }
    }

    /// The identity key's file.
    #[must_use]
    pub fn identity_path(&self) -> PathBuf {
        self.root.join("identity.key")
    }

    /// The trust file.
    #[must_use]
    pub fn network_path(&self) -> PathBuf {
        self.root.join("network.toml")
    }

    /// The journals.
    #[must_use]
    pub fn journal_dir(&self) -> PathBuf {
        self.root.join("journal")
    }

    /// Ciphertext on its way up or down.
    #[must_use]
    pub fn staging_dir(&self) -> PathBuf {
        self.root.join("staging")
    }

    /// Reads a trust file.
    ///
    /// # Errors
    /// [`HomeError::Io`], [`HomeError::Network`].
    pub fn read_network(path: &Path) -> Result<NetworkTrust, HomeError> {
        let text = read_bounded(path, NetworkTrust::MAX_BYTES)
            .and_then(|bytes| String::from_utf8(bytes).map_err(|_| io::ErrorKind::InvalidData.into()))
            .map_err(|source| HomeError::Io { path: path.to_path_buf(), source })?;
        NetworkTrust::parse(&text).map_err(|source| HomeError::Network { path: path.to_path_buf(), source })
    }

    fn checkpoint_path(&self) -> PathBuf {
        self.root.join("log.checkpoint")
    }

    /// The last checkpoint that was seen, if any.
    ///
    /// # Errors
    /// [`HomeError::Io`], [`HomeError::Checkpoint`].
    pub fn remembered(&self, network: &NetworkTrust) -> Result<Option<Remembered>, HomeError> {
        let path = self.checkpoint_path();
        match read_bounded(&path, MAX_REMEMBERED_BYTES) {
            Ok(bytes) => {
                Remembered::parse(&bytes, network.log_key()).map(Some).map_err(|_| HomeError::Checkpoint { path })
            }
            Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(HomeError::Io { path, source }),
        }
    }

    /// Remembers a checkpoint, unless another process remembered as large a one already: written beside, synced, renamed.
    ///
    /// # Errors
    /// [`HomeError::Local`], [`HomeError::Io`], [`HomeError::Checkpoint`].
    pub fn remember(&self, network: &NetworkTrust, remembered: &Remembered) -> Result<(), HomeError> {
        let path = self.checkpoint_path();
        let _lock = self.lock("log.checkpoint.lock")?;
        if self.remembered(network)?.is_some_and(|kept| kept.checkpoint().size() >= remembered.checkpoint().size()) {
            return Ok(());
        }
        replace_file(&path, remembered.as_bytes(), OWNER).map_err(|source| HomeError::Local { path, source })
    }

    /// A lock that is held until the file is dropped. A file of its own: the lock of one that is renamed away would be nobody's.
    fn lock(&self, name: &str) -> Result<fs::File, HomeError> {
        let path = self.root.join(name);
        fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .and_then(|file| file.lock().map(|()| file))
            .map_err(|source| HomeError::Local { path, source })
    }

    fn references_path(&self, role: Role) -> PathBuf {
        self.root.join(format!("references.{}", role.name()))
    }

    /// The newest published reference values of a role that were seen, if any.
    ///
    /// # Errors
    /// [`HomeError::Io`], [`HomeError::References`].
    pub fn seen_references(&self, network: NetworkId, role: Role) -> Result<Option<ReferenceMemory>, HomeError> {
        ReferenceMemory::read(&self.references_path(role), network, role)
    }

    /// Remembers reference values, unless another process remembered a later version already.
    ///
    /// # Errors
    /// [`HomeError::Local`], [`HomeError::Io`], [`HomeError::References`].
    pub fn remember_references(&self, memory: &ReferenceMemory) -> Result<(), HomeError> {
        let path = self.references_path(memory.role);
        let _lock = self.lock("references.lock")?;
        let kept = self.seen_references(memory.network, memory.role)?;
        if kept.is_some_and(|kept| kept.seen.version >= memory.seen.version) {
            return Ok(());
        }
        replace_file(&path, &memory.encode(), OWNER).map_err(|source| HomeError::Local { path, source })
    }
}

/// Mode of a file for its owner alone.
pub(crate) const OWNER: u32 = 0o600;
/// Mode of a file that is meant to be passed on.
pub(crate) const ANYONE: u32 = 0o644;

/// Reads a file, and at most one byte more than it may have: whoever parses it refuses what is too long.
pub(crate) fn read_bounded(path: &Path, most_bytes: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_regular(path)?.take(most_bytes as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Replaces a file so that a crash leaves the old one or the new one. One caller at a time for one path, in all processes: the checkpoint is
/// under a lock, and a receipt is written by the process that holds the task's journal.
pub(crate) fn replace_file(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    use std::io::Write as _;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
    // The content is durable before the name is: after a power failure there is the old file or the new one, never a torn one.
    let replaced = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&temporary, path));
    if replaced.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    replaced
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use starminer_log::{Checkpoint, Frontier, LogSigner};

    use super::*;

    fn network(signer: &LogSigner) -> NetworkTrust {
        let text = include_str!("../../../vectors/receipt/network.toml");
        let mut trust: toml::Table = text.parse().unwrap();
        trust["log"]["key"] = signer.key().encode().into();
        NetworkTrust::parse(&trust.to_string()).unwrap()
    }

    /// Each from a process of its own, as far as the file can tell: whatever the order, the largest stays.
    #[test]
    fn the_largest_checkpoint_stays() {
        let own = NetworkTrust::parse(include_str!("../../../vectors/receipt/network.toml")).unwrap();
        let signer = LogSigner::from_seed(own.log_key().name().clone(), &[7; 32]);
        let network = network(&signer);
        let entries: Vec<[u8; 1]> = (0..64).map(|entry| [entry]).collect();
        let checkpoint = |size: usize| {
            let root = Frontier::empty().append(&entries[..size]).unwrap().root();
            let checkpoint = Checkpoint::new(signer.name().clone(), size as u64, root).unwrap();
            Remembered::first(checkpoint.sign(&signer).unwrap().verify(&signer.key()).unwrap())
        };
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(dir.path()).unwrap();
        assert_eq!(home.remembered(&network).unwrap(), None);
        std::thread::scope(|scope| {
            for first in 0..4 {
                let (home, network, checkpoint) = (&home, &network, &checkpoint);
                scope.spawn(move || {
                    for round in 0..16 {
                        home.remember(network, &checkpoint(1 + (first + round * 29) % 64)).unwrap();
                        let kept = home.remembered(network).unwrap().unwrap();
                        assert!(kept.checkpoint().size() > ((first + round * 29) % 64) as u64);
                    }
                });
            }
        });
        home.remember(&network, &checkpoint(64)).unwrap();
        home.remember(&network, &checkpoint(63)).unwrap();
        assert_eq!(home.remembered(&network).unwrap(), Some(checkpoint(64)));
    }
    #[test]
    fn a_half_made_journal_goes_after_a_week() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(dir.path()).unwrap();
        let task = "05".repeat(16);
        let unnamed = home.journal_dir().join(format!("{task}.new"));
        let journal = home.journal_dir().join(format!("{task}.journal"));
        for path in [&unnamed, &journal] {
            fs::write(path, b"half done").unwrap();
        }
        let there = || [&unnamed, &journal].map(|path| path.exists());
        home.sweep(SystemTime::now() + LEFT_BEHIND / 2);
        assert_eq!(there(), [true, true]);
        home.sweep(SystemTime::now() + LEFT_BEHIND * 2);
        assert_eq!(there(), [false, true]);
    }

    #[test]
    fn a_file_without_end_is_refused() {
        assert!(matches!(Home::read_network(Path::new("/dev/zero")), Err(HomeError::Io { .. })));
        let dir = tempfile::tempdir().unwrap();
        let long = dir.path().join("long.toml");
        fs::write(&long, " ".repeat(NetworkTrust::MAX_BYTES + 1)).unwrap();
        assert!(matches!(Home::read_network(&long), Err(HomeError::Network { .. })));
    }
}
