//! The machine's data disk, as the command line names it.

use std::fs::{self, File};
use std::io::{self, Seek as _, SeekFrom};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use crate::cli::exit::Failure;
use crate::cli::terminal::human_bytes;

/// The data disk, made where it does not exist and a size was said; and what the user may have meant otherwise.
pub fn data_disk(text: &str, make: bool) -> Result<(PathBuf, Option<String>), Failure> {
    let failure = |reason: String| Failure::usage("host.disk", reason, "give FILE, or FILE:SIZE such as node1.raw:20G");
    let (path, size) = match text.rsplit_once(':') {
        Some((path, size)) if !path.is_empty() => {
            (Path::new(path), Some(size_bytes(size).ok_or_else(|| failure(format!("{size:?} is no size")))?))
        }
        _ => (Path::new(text), None),
    };
    let broken = |error: io::Error| failure(format!("{}: {error}", path.display()));
    if let Ok(found) = fs::metadata(path)
        && !(found.is_file() || found.file_type().is_block_device())
    {
        return Err(failure(format!("{}: neither a file nor a block device", path.display())));
    }
    match (path.exists(), size) {
        (true, size) => {
            let there = length(path).map_err(broken)?;
            let differs = size.filter(|size| *size != there).map(|_| {
                format!("{} is there already, with {}, and stays as it is", path.display(), human_bytes(there))
            });
            Ok((path.canonicalize().map_err(broken)?, differs))
        }
        (false, None) => Err(failure(format!("there is no {}", path.display()))),
        (false, Some(_)) if !make => Ok((std::path::absolute(path).map_err(broken)?, None)),
        (false, Some(size)) => {
            let file = File::create_new(path).map_err(broken)?;
            if let Err(error) = file.set_len(size) {
                // What is empty would be taken for a disk the next time.
                let _ = fs::remove_file(path);
                return Err(broken(error));
            }
            Ok((path.canonicalize().map_err(broken)?, None))
        }
    }
}

/// Of a file or a block device.
fn length(path: &Path) -> io::Result<u64> {
    File::open(path)?.seek(SeekFrom::End(0))
}

/// A number with M, G or T behind it.
fn size_bytes(text: &str) -> Option<u64> {
    let (number, shift) = match text.strip_suffix(['M', 'G', 'T']) {
        Some(number) => (
            number,
            if text.ends_with('M') {
                20
            } else if text.ends_with('G') {
                30
            } else {
                40
            },
        ),
        None => (text, 0),
    };
    let size = number.parse::<u64>().ok()?.checked_mul(1 << shift)?;
    (size > 0).then_some(size)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_disks() {
        for (text, size) in
            [("20G", Some(20 << 30)), ("512M", Some(512 << 20)), ("1T", Some(1 << 40)), ("4096", Some(4096))]
        {
            assert_eq!(size_bytes(text), size, "{text}");
        }
        for text in ["", "G", "0", "0G", "-1G", "1.5G", "99999999999T", "20g"] {
            assert_eq!(size_bytes(text), None, "{text}");
        }
    }

    #[test]
    fn a_disk_is_made_once_and_never_shortened() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("data.raw");
        let named = |size: &str| format!("{}{size}", place.display());
        assert!(data_disk(&named(""), true).is_err());
        for size in [":2M", ":1M", ""] {
            let (found, said) = data_disk(&named(size), true).unwrap();
            assert_eq!((found, said.is_some()), (place.canonicalize().unwrap(), size == ":1M"));
            assert_eq!(fs::metadata(&place).unwrap().len(), 2 << 20);
        }
        assert!(data_disk(&named(":x"), true).is_err());
        let other = dir.path().join("other.raw");
        assert!(data_disk(&format!("{}:8388607T", other.display()), true).is_err());
        assert!(!other.exists(), "nothing is left of a disk that cannot be made");
    }
}
