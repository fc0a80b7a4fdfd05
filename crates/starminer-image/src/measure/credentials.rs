//! What the host tells a node, as systemd's stub packs it: into register 12, and behind the initial file system that the kernel measures into register 9.
//!
//! Source: `src/boot/efi/cpio.c` and `stub.c` of systemd 252; `drivers/firmware/efi/libstub` of Linux 6.1 (`efi_measure_tagged_event`).

use std::collections::BTreeMap;

use starminer_hardware::event_log::{Bank, Digest};
use starminer_hardware::predict::pcr::extend_all;

/// Where firmware looks for them, on the partition that the image is started from.
pub const DIRECTORY: &str = "loader/credentials";
/// How the names of their files end.
pub const SUFFIX: &str = ".cred";
/// Where the stub puts them.
const PLACE: &str = ".extra/global_credentials";
const DIRECTORY_MODE: u32 = 0o40_000;
const FILE_MODE: u32 = 0o100_000;

/// Files by name. The stub takes those whose names are ASCII, do not begin with a dot and end with [`SUFFIX`].
pub type Credentials = BTreeMap<String, Vec<u8>>;

/// Whether the stub takes a file of this name.
#[must_use]
pub fn is_credential(name: &str) -> bool {
    let ends = name.len() >= SUFFIX.len() && name.is_ascii() && {
        name[name.len() - SUFFIX.len()..].eq_ignore_ascii_case(SUFFIX)
    };
    ends && !name.starts_with('.') && name.len() <= 255
}

/// The archive that the stub makes of them; nothing where there are none.
#[must_use]
pub fn archive(credentials: &Credentials) -> Option<Vec<u8>> {
    let mut taken = credentials.iter().filter(|(name, _)| is_credential(name)).peekable();
    taken.peek()?;
    let mut archive = Vec::new();
    let mut inode = 1..;
    let mut entry = |name: &str, mode: u32, contents: &[u8]| {
        let number = inode.next().unwrap_or(u32::MAX);
        header(&mut archive, number, mode, contents.len(), name);
        archive.extend(contents);
        pad(&mut archive);
    };
    entry(".extra", DIRECTORY_MODE | 0o555, &[]);
    entry(PLACE, DIRECTORY_MODE | 0o500, &[]);
    for (name, contents) in taken {
        entry(&format!("{PLACE}/{name}"), FILE_MODE | 0o400, contents);
    }
    let trailer = format!("070701{}{:08x}{}{:08X}{}", "0".repeat(32), 1, "0".repeat(48), 11, "0".repeat(8));
    archive.extend(trailer.as_bytes());
    archive.extend(b"TRAILER!!!\0\0\0\0");
    Some(archive)
}

fn header(archive: &mut Vec<u8>, inode: u32, mode: u32, size_bytes: usize, name: &str) {
    let fields = [inode as usize, mode as usize, 0, 0, 1, 0, size_bytes, 0, 0, 0, 0, name.len() + 1, 0];
    archive.extend(b"070701");
    for field in fields {
        archive.extend(format!("{field:08x}").as_bytes());
    }
    archive.extend(name.as_bytes());
    archive.push(0);
    pad(archive);
}

fn pad(archive: &mut Vec<u8>) {
    archive.resize(archive.len().next_multiple_of(4), 0);
}

/// The events of register 9: the options that the kernel was started with, and its initial file system, of the image and the host.
#[must_use]
pub fn kernel_events(command_line: &str, initrd: &[u8], credentials: &Credentials) -> [Digest; 2] {
    let units = command_line.encode_utf16().chain([0]);
    let options: Vec<u8> = units.flat_map(u16::to_le_bytes).collect();
    [Bank::Sha256.hash(&[&options]), Bank::Sha256.hash(&[&initial_file_system(initrd, credentials)])]
}

/// The initial file system that the kernel gets: the image's, and behind it the archive of what the host tells, where there is any.
#[must_use]
pub fn initial_file_system(initrd: &[u8], credentials: &Credentials) -> Vec<u8> {
    let mut all = initrd.to_vec();
    if let Some(archive) = archive(credentials) {
        pad(&mut all);
        all.extend(archive);
    }
    all
}

/// Register 12 in the bank of SHA-256: the archive of credentials, where there are any.
#[must_use]
pub fn register_12(credentials: &Credentials) -> Digest {
    let events: Vec<Digest> = archive(credentials).iter().map(|archive| Bank::Sha256.hash(&[archive])).collect();
    extend_all(Bank::Sha256, &events)
}

#[cfg(test)]
#[path = "credentials_tests.rs"]
mod tests;
