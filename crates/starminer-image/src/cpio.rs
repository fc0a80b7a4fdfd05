//! The archive that a kernel unpacks as its root: cpio in the "newc" form, the same bytes from the same contents.
//!
//! Written here because it is fifty lines, and because libraries for it take owners, times and numbers from the file system that they read, which is
//! what must not happen. Source: Linux, Documentation/driver-api/early-userspace/buffer-format.rst.

use crate::ImageError;

/// Every header and every file begins at a multiple of it.
const ALIGNMENT: usize = 4;
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
/// The mark, and thirteen numbers of eight digits.
const HEADER_BYTES: usize = 110;
const TRAILER: &str = "TRAILER!!!";

/// An archive that is being written. Everything in it is root's and from 1970; entries are numbered in their order.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a directory. Those above it come before it.
    pub fn directory(&mut self, path: &str) {
        self.header(path, DIRECTORY | 0o755, 2, 0);
    }

    /// Adds a file with these rights.
    ///
    /// # Errors
    /// [`ImageError::TooLarge`]: the form has 32 bits for a length.
    pub fn file(&mut self, path: &str, rights: u32, contents: &[u8]) -> Result<(), ImageError> {
        let length = u32::try_from(contents.len()).map_err(|_| ImageError::TooLarge(path.into()))?;
        self.header(path, REGULAR | rights, 1, length);
        self.bytes.extend_from_slice(contents);
        self.align();
        Ok(())
    }

    /// The archive.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.entries = u32::MAX;
        self.header(TRAILER, 0, 1, 0);
        self.bytes
    }

    fn header(&mut self, path: &str, mode: u32, links: u32, length: u32) {
        self.entries = self.entries.wrapping_add(1);
        let name_bytes = u32::try_from(path.len() + 1).expect("paths are ours and short");
        // inode, mode, uid, gid, links, time, length, device (2), special device (2), length of the name, checksum (unused)
        let fields = [self.entries, mode, 0, 0, links, 0, length, 0, 0, 0, 0, name_bytes, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
    }
}

/// A file of an archive: what a kernel would have under this name at the end, which is the last of it. `None` where there is none, or where this is no such archive.
pub fn file<'a>(archive: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let (mut rest, mut found) = (archive, None);
    loop {
        let header = rest.get(..HEADER_BYTES)?.strip_prefix(b"070701")?;
        let field = |number: usize| {
            let digits = std::str::from_utf8(header.get(number * 8..number * 8 + 8)?).ok()?;
            usize::try_from(u32::from_str_radix(digits, 16).ok()?).ok()
        };
        let (length, name_bytes) = (field(6)?, field(11)?);
        let path = rest.get(HEADER_BYTES..HEADER_BYTES.checked_add(name_bytes)?)?.strip_suffix(&[0])?;
        let contents = (HEADER_BYTES + name_bytes).next_multiple_of(ALIGNMENT);
        let end = contents.checked_add(length)?;
        if path == TRAILER.as_bytes() {
            return found;
        }
        let mut plain = path;
        while let Some(shorter) = plain.strip_prefix(b"./").or_else(|| plain.strip_prefix(b"/")) {
            plain = shorter;
        }
        if plain == name.as_bytes() {
            found = Some(rest.get(contents..end)?);
        }
        rest = rest.get(end.next_multiple_of(ALIGNMENT)..)?;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_file_is_found_as_a_kernel_would_have_it() {
        let mut archive = Archive::new();
        archive.directory("etc");
        archive.file("agent", 0o555, b"first").unwrap();
        archive.file("etc/agent", 0o444, b"another").unwrap();
        let mut twice = Archive { bytes: archive.bytes.clone(), entries: archive.entries };
        let archive = archive.finish();
        assert_eq!(file(&archive, "agent"), Some(&b"first"[..]));
        assert_eq!(file(&archive, "etc/agent"), Some(&b"another"[..]));
        assert_eq!(file(&archive, "init"), None);
        twice.file("./agent", 0o555, b"second").unwrap();
        assert_eq!(file(&twice.finish(), "agent"), Some(&b"second"[..]));
        for cut in 0..archive.len() {
            assert_eq!(file(&archive[..cut], "init"), None, "{cut}");
        }
    }

    /// What another reader of the form makes of it.
    #[test]
    fn cpio_reads_what_is_written() {
        if Command::new("cpio").arg("--version").stdout(Stdio::null()).status().is_err() {
            println!("skipped: cpio is not installed");
            return;
        }
        let mut archive = Archive::new();
        archive.directory("etc");
        archive.file("etc/odd", 0o444, b"seven b").unwrap();
        archive.file("init", 0o555, &[7; 4096]).unwrap();
        archive.file("none", 0o400, b"").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mut cpio = Command::new("cpio")
            .args(["--extract", "--quiet", "--no-preserve-owner"])
            .current_dir(dir.path())
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        cpio.stdin.take().unwrap().write_all(&archive.finish()).unwrap();
        assert!(cpio.wait().unwrap().success());
        for (name, contents, rights) in
            [("etc/odd", &b"seven b"[..], 0o444), ("init", &[7; 4096], 0o555), ("none", b"", 0o400)]
        {
            let path = dir.path().join(name);
            assert_eq!(std::fs::read(&path).unwrap(), contents, "{name}");
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, rights, "{name}");
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3);
    }
}
