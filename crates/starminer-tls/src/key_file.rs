//! Identity keys in files: one line of text, readable by the owner only.
//!
//! ```text
//! starminer-key-v1 ed25519 <64 lowercase hexadecimal digits of the seed>
//! ```
//!
//! It does not encrypt the file and asks for no passphrase: a server must start unattended. Spec: `specs/tls.md`,
//! section "Key file".

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use data_encoding::HEXLOWER;
use zeroize::{Zeroize, Zeroizing};

use crate::identity::{IdentityKey, KeyError};

/// What the line of a key file begins with.
pub const KEY_FILE_MAGIC: &str = "starminer-key-v1 ed25519 ";
/// No key file is longer; reading stops there.
pub const MAX_KEY_FILE_BYTES: u64 = 256;
/// Permission bits of group and world, none of which a key file may have.
const OTHERS: u32 = 0o077;

/// Why a key file was not read or written. None of them carries a byte of the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// The operating system refused.
    #[error("key file {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Others on the machine could read or write the file.
    #[error(
        "key file {path} is open to others (mode {mode:04o}): chmod 600 it, and replace the key if others were there"
    )]
    OpenToOthers {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A directory, device or pipe.
    #[error("key file {path} is not a regular file")]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// Not the one line that a key file is.
    #[error("key file {path} is not `{KEY_FILE_MAGIC}<64 hexadecimal digits>`")]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// The key itself could not be made.
    #[error("key file {path}")]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        source: KeyError,
    },
}

impl KeyFileError {
    /// A stable code for scripts.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "key-file.io",
            Self::OpenToOthers { .. } => "key-file.open-to-others",
            Self::NotAFile { .. } => "key-file.not-a-file",
            Self::Malformed { .. } => "key-file.malformed",
            Self::Key { .. } => "key-file.key",
        }
    }
}

impl IdentityKey {
    /// Reads a key file. It must be a regular file that group and world cannot touch.
    pub fn load(path: &Path) -> Result<Self, KeyFileError> {
        let io_error = |source| KeyFileError::Io { path: path.into(), source };
        // Opening a pipe would wait for its writer, so the kind is looked at before and, against a swap, after.
        if !fs::metadata(path).map_err(io_error)?.is_file() {
            return Err(KeyFileError::NotAFile { path: path.into() });
        }
        let file = File::open(path).map_err(io_error)?;
        let metadata = file.metadata().map_err(io_error)?;
        if !metadata.is_file() {
            return Err(KeyFileError::NotAFile { path: path.into() });
        }
        if metadata.mode() & OTHERS != 0 {
            return Err(KeyFileError::OpenToOthers { path: path.into(), mode: metadata.mode() & 0o7777 });
        }
        // Reserved in full, so that growing leaves no unwiped copies behind.
        let mut text = Zeroizing::new(Vec::with_capacity(MAX_KEY_FILE_BYTES as usize + 64));
        file.take(MAX_KEY_FILE_BYTES).read_to_end(&mut text).map_err(io_error)?;
        let seed = parse(&text).ok_or_else(|| KeyFileError::Malformed { path: path.into() })?;
        Self::from_seed(&seed).map_err(|source| KeyFileError::Key { path: path.into(), source })
    }

    /// Writes a key file with mode 0600, durable once this returns. An existing file is never replaced: that is an
    /// [`KeyFileError::Io`] of kind `AlreadyExists`.
    pub fn save(&self, path: &Path) -> Result<(), KeyFileError> {
        let io_error = |source| KeyFileError::Io { path: path.into(), source };
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let mut suffix = [0; 8];
        SystemRandom::new()
            .fill(&mut suffix)
            .map_err(|_| KeyFileError::Key { path: path.into(), source: KeyError::NoRandomness })?;
        let temporary = directory.join(format!(".key-{}.tmp", HEXLOWER.encode(&suffix)));
        // The name appears only once the bytes are on disk: a power cut leaves the whole key or none.
        let published = self
            .write_new(&temporary)
            .and_then(|()| fs::hard_link(&temporary, path))
            .and_then(|()| fs::remove_file(&temporary))
            .and_then(|()| File::open(directory)?.sync_all());
        if published.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        published.map_err(io_error)
    }

    /// Reads the key file, or makes a new key and writes it when there is none.
    pub fn load_or_create(path: &Path) -> Result<Self, KeyFileError> {
        match Self::load(path) {
            Err(KeyFileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            loaded => return loaded,
        }
        let key = Self::generate().map_err(|source| KeyFileError::Key { path: path.into(), source })?;
        match key.save(path) {
            Ok(()) => Ok(key),
            // Another process was quicker; its key counts.
            Err(KeyFileError::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => Self::load(path),
            Err(error) => Err(error),
        }
    }

    fn write_new(&self, path: &Path) -> io::Result<()> {
        let mut text = Zeroizing::new(String::with_capacity(MAX_KEY_FILE_BYTES as usize));
        text.push_str(KEY_FILE_MAGIC);
        HEXLOWER.encode_append(self.seed(), &mut text);
        text.push('\n');
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    }
}

fn parse(text: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    let line = text.strip_suffix(b"\n").unwrap_or(text);
    let digits = line.strip_prefix(KEY_FILE_MAGIC.as_bytes())?;
    if digits.len() != 64 {
        return None;
    }
    let mut seed = Zeroizing::new([0; 32]);
    if HEXLOWER.decode_mut(digits, seed.as_mut()).is_err() {
        seed.zeroize();
        return None;
    }
    Some(seed)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn written(text: &[u8], mode: u32) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (directory, path)
    }

    #[test]
    fn round_trip_is_private_and_never_overwrites() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("identity.key");
        let key = IdentityKey::generate().unwrap();
        key.save(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(IdentityKey::load(&path).unwrap().public(), key.public());
        assert_eq!(IdentityKey::load_or_create(&path).unwrap().public(), key.public());

        let other = IdentityKey::generate().unwrap();
        let KeyFileError::Io { source, .. } = other.save(&path).unwrap_err() else { panic!("not refused as I/O") };
        assert_eq!(source.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(IdentityKey::load(&path).unwrap().public(), key.public());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "a temporary file was left behind");

        let fresh = directory.path().join("fresh.key");
        let made = IdentityKey::load_or_create(&fresh).unwrap();
        assert_eq!(IdentityKey::load(&fresh).unwrap().public(), made.public());
    }

    #[test]
    fn open_permissions_are_refused() {
        let line = format!("{KEY_FILE_MAGIC}{}\n", "07".repeat(32));
        for mode in [0o640, 0o604, 0o620, 0o602, 0o610, 0o644, 0o666] {
            let (_directory, path) = written(line.as_bytes(), mode);
            assert_eq!(IdentityKey::load(&path).unwrap_err().code(), "key-file.open-to-others", "{mode:o}");
        }
        let (_directory, path) = written(line.as_bytes(), 0o400);
        assert_eq!(IdentityKey::load(&path).unwrap().seed(), &[7; 32]);
    }

    #[test]
    fn other_text_is_refused() {
        let digits = "07".repeat(32);
        let check = |text: String, code: &str| {
            let (_directory, path) = written(text.as_bytes(), 0o600);
            let error = IdentityKey::load(&path).unwrap_err();
            assert_eq!(error.code(), code, "{text:?}");
            assert!(!error.to_string().contains("0707"), "the error shows the key: {error}");
        };
        check(String::new(), "key-file.malformed");
        check(digits.clone(), "key-file.malformed");
        check(format!("starminer-key-v2 ed25519 {digits}\n"), "key-file.malformed");
        check(format!("starminer-key-v1 x25519 {digits}\n"), "key-file.malformed");
        check(format!("{KEY_FILE_MAGIC}{}\n", &digits[2..]), "key-file.malformed");
        check(format!("{KEY_FILE_MAGIC}{digits}00\n"), "key-file.malformed");
        check(format!("{KEY_FILE_MAGIC}{digits}\n\n"), "key-file.malformed");
        check(format!("{KEY_FILE_MAGIC}{}\n", "0G".repeat(32)), "key-file.malformed");
        check(format!("{KEY_FILE_MAGIC}{digits}\n{}", "x".repeat(10_000)), "key-file.malformed");

        let directory = tempfile::tempdir().unwrap();
        assert_eq!(IdentityKey::load(directory.path()).unwrap_err().code(), "key-file.not-a-file");
        assert_eq!(IdentityKey::load(&directory.path().join("none")).unwrap_err().code(), "key-file.io");
    }
}
