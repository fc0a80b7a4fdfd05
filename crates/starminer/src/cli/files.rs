//! Files that commands write for their caller: whole or not at all, whatever disk or power do.

use std::fs::Permissions;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tempfile::NamedTempFile;

use super::exit::Failure;

/// For anybody to read, as far as the user's mask allows.
pub const PUBLIC: u32 = 0o666;
/// For its owner alone.
pub const SECRET: u32 = 0o600;

/// Writes a file that does not exist yet.
pub fn write_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    written(path, bytes, mode)?.persist_noclobber(path)?;
    Ok(())
}

/// Writes a file, in the place of another one where there is one.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    written(path, bytes, mode)?.persist(path)?;
    Ok(())
}

fn written(path: &Path, bytes: &[u8], mode: u32) -> io::Result<NamedTempFile> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().permissions(Permissions::from_mode(mode)).tempfile_in(dir)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    Ok(file)
}

/// A file that was not written: by the name that the caller gave, or by this machine.
pub fn not_written(check: &'static str, path: &Path, error: &io::Error, remedy: &str) -> Failure {
    use io::ErrorKind::{AlreadyExists, IsADirectory, NotADirectory, NotFound, PermissionDenied};
    let reason = format!("{}: {error}", path.display());
    match error.kind() {
        AlreadyExists | NotFound | NotADirectory | IsADirectory | PermissionDenied => {
            Failure::usage(check, reason, remedy)
        }
        _ => Failure::local(check, reason, "check free space and the file system"),
    }
}
