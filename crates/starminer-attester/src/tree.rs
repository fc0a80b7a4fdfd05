//! Reading from a tree of files: `/` on a machine, a folder in a test. Bounded, and never out of the tree.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, StatxAttributes, StatxFlags};

/// A file was not read.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// There is no such file.
    Missing,
    /// There is one, and it cannot be read, or is no regular file, or lies outside of the tree.
    Unreadable(io::Error),
    /// It is longer than is read.
    TooLong,
}

/// The root of a tree.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    root: PathBuf,
}

impl Tree {
    pub(crate) fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    pub(crate) fn is_machine(&self) -> bool {
        self.root == Path::new("/")
    }

    /// `path` below the root, whatever it begins with.
    pub(crate) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// `path` without symbolic links, as a path of the tree (`/…`); an error where it is missing or leads out of the tree.
    pub(crate) fn resolve(&self, path: impl AsRef<Path>) -> io::Result<PathBuf> {
        let found = self.path(path).canonicalize()?;
        if self.is_machine() {
            return Ok(found);
        }
        let root = self.root.canonicalize()?;
        let inside = found.strip_prefix(root).map_err(|_| io::Error::other("leads out of the tree"))?;
        Ok(Path::new("/").join(inside))
    }

    fn open(&self, path: &Path) -> Result<File, ReadError> {
        let resolved = self.resolve(path).map_err(ReadError::from_io)?;
        // O_NONBLOCK: opening a pipe that somebody put there must not hang.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(self.path(&resolved))
            .map_err(ReadError::from_io)?;
        if self.is_machine() {
            is_the_kernel_s(&resolved, &file).map_err(ReadError::Unreadable)?;
        }
        if !file.metadata().map_err(ReadError::from_io)?.is_file() {
            return Err(ReadError::Unreadable(io::ErrorKind::InvalidInput.into()));
        }
        Ok(file)
    }

    /// A whole file of at most `max_bytes`.
    pub(crate) fn bytes(&self, path: impl AsRef<Path>, max_bytes: usize) -> Result<Vec<u8>, ReadError> {
        let bytes = self.prefix(path, max_bytes.saturating_add(1))?;
        if bytes.len() > max_bytes { Err(ReadError::TooLong) } else { Ok(bytes) }
    }

    /// The first `max_bytes` of a file, or all of it.
    pub(crate) fn prefix(&self, path: impl AsRef<Path>, max_bytes: usize) -> Result<Vec<u8>, ReadError> {
        let mut bytes = Vec::new();
        self.open(path.as_ref())?.take(max_bytes as u64).read_to_end(&mut bytes).map_err(ReadError::from_io)?;
        Ok(bytes)
    }

    /// Names in a folder, sorted; an error where they are more than `max_names`.
    pub(crate) fn names(&self, path: impl AsRef<Path>, max_names: usize) -> Result<Vec<PathBuf>, ReadError> {
        let folder = self.resolve(path).map_err(ReadError::from_io)?;
        if self.is_machine() {
            let opened = File::open(self.path(&folder)).map_err(ReadError::from_io)?;
            is_the_kernel_s(&folder, &opened).map_err(ReadError::Unreadable)?;
        }
        let mut names = Vec::new();
        for entry in fs::read_dir(self.path(folder)).map_err(ReadError::from_io)? {
            if names.len() == max_names {
                return Err(ReadError::TooLong);
            }
            names.push(PathBuf::from(entry.map_err(ReadError::from_io)?.file_name()));
        }
        names.sort();
        Ok(names)
    }

    /// Whether there is something at `path`; `None` where that cannot be told.
    pub(crate) fn exists(&self, path: impl AsRef<Path>) -> Option<bool> {
        match fs::symlink_metadata(self.path(path)) {
            Ok(_) => Some(true),
            Err(error) => matches!(ReadError::from_io(error), ReadError::Missing).then_some(false),
        }
    }
}

/// Where the kernel speaks of itself, with the file system that it does so in.
const SPOKEN: [(&str, u64); 2] = [("/proc", PROC_SUPER_MAGIC), ("/sys/kernel/security", SECURITYFS_MAGIC)];
const PROC_SUPER_MAGIC: u64 = 0x9fa0;
const SECURITYFS_MAGIC: u64 = 0x7363_6673;
const SYSFS_MAGIC: u64 = 0x6265_6572;
/// Below `/sys` other file systems of the kernel are mounted, which are told by what they are.
const BELOW_SYS: [u64; 4] = [SYSFS_MAGIC, SECURITYFS_MAGIC, 0xde5e_81e4, 0x6462_6720];

/// Whether a file or a folder of `/proc` or `/sys` is what the kernel says there, and nothing that somebody mounted over it: a copy, or the file of another process, which sees other mounts.
fn is_the_kernel_s(path: &Path, file: &File) -> io::Result<()> {
    let other = |what: &str| Err(io::Error::other(format!("{}: {what}", path.display())));
    let spoken = SPOKEN.iter().find(|(place, _)| path.starts_with(place)).map(|(_, magic)| *magic);
    let is_sys = path.starts_with("/sys");
    if spoken.is_none() && !is_sys {
        return Ok(());
    }
    // The type is of different widths on different machines, and never negative here.
    #[allow(clippy::cast_sign_loss, clippy::unnecessary_cast)]
    let found = rustix::fs::fstatfs(file)?.f_type as u64;
    if spoken.map_or_else(|| !BELOW_SYS.contains(&found), |magic| found != magic) {
        return other("another file system is mounted there");
    }
    let about =
        |file: &File| rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS | StatxFlags::MNT_ID);
    let this = about(file)?;
    if this.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
        return other("something is mounted over it");
    }
    // What is said of a process has to be said where all processes are. Containers mount parts of the rest once more, read-only.
    let is_of_process = path
        .strip_prefix("/proc")
        .ok()
        .and_then(|rest| rest.components().next())
        .is_some_and(|first| first.as_os_str().as_encoded_bytes().iter().all(u8::is_ascii_digit));
    if is_of_process && about(&File::open("/proc")?)?.stx_mnt_id != this.stx_mnt_id {
        return other("something is mounted over the process's folder");
    }
    Ok(())
}

impl ReadError {
    fn from_io(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Self::Missing,
            // The process that a file of `/proc` was about ended while it was read.
            _ if error.raw_os_error() == Some(libc::ESRCH) => Self::Missing,
            _ => Self::Unreadable(error),
        }
    }
}

/// The last part of a path, for people.
pub(crate) fn name_of(path: &Path) -> String {
    path.file_name().map(OsStr::to_string_lossy).unwrap_or_default().into_owned()
}
