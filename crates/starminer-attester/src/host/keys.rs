//! Where the keys of encrypted disks lie. A key in a file on bare storage opens the disk for whoever has the machine, so that its encryption protects
//! nothing once the plug is out. Keys that a TPM, a token or a person gives are in no file.
//!
//! Source: crypttab(5), systemd-cryptsetup-generator(8), mkinitcpio's `encrypt` hook. What stands in an initramfs is not seen, unless the kernel's
//! parameters speak of it.

use std::path::{Path, PathBuf};

use starminer_verify::{HostMeasure, PostureItem};

use super::stack::Cover;
use super::{HostTree, MAX_FILE_BYTES, ReadError, absent, in_force, not_checked};

const CRYPTTAB: &str = "etc/crypttab";
/// Where systemd looks for `NAME.key` if crypttab names no key.
const KEY_FOLDER: &str = "etc/cryptsetup-keys.d";
const MAX_KEYS: usize = 256;
/// Parameters that name a key file for the initramfs.
const PARAMETERS: [&str; 3] = ["rd.luks.key=", "luks.key=", "cryptkey="];
/// Keys that nobody has: made anew at each start.
const RANDOM: [&str; 3] = ["/dev/urandom", "/dev/random", "/dev/hwrng"];

impl HostTree {
    pub(super) fn disk_keys(&self) -> PostureItem<HostMeasure> {
        let name = HostMeasure::DiskKeysGuarded;
        let Some(parameters) = self.text("proc/cmdline") else {
            return not_checked(name, "the kernel's parameters cannot be read");
        };
        let names_a_key =
            |word: &str| PARAMETERS.iter().any(|key| word.strip_prefix(key).is_some_and(|file| !file.is_empty()));
        if parameters.split_ascii_whitespace().any(names_a_key) {
            return absent(name, "the kernel's parameters name a key file");
        }
        let files = match self.key_files() {
            Ok(files) => files,
            Err(why) => return not_checked(name, why),
        };
        if files.is_empty() {
            return in_force(name, "no key file is named");
        }
        match Cover::all(files.iter().map(|file| self.cover_of_file(file))) {
            Cover::Covered(what) => in_force(name, &format!("key files lie on {what}")),
            Cover::Bare(why) => absent(name, &format!("a key file lies on bare storage: {why}")),
            Cover::Unknown(why) => not_checked(name, &format!("what a key file lies on is not known: {why}")),
        }
    }

    /// Files that hold keys of disks.
    fn key_files(&self) -> Result<Vec<PathBuf>, &'static str> {
        if self.tree.exists("etc") != Some(true) {
            return Err("/etc cannot be read");
        }
        let mut files = match self.tree.bytes(CRYPTTAB, MAX_FILE_BYTES) {
            Ok(table) => of_table(std::str::from_utf8(&table).map_err(|_| "crypttab is not understood")?)?,
            Err(ReadError::Missing) => Vec::new(),
            Err(_) => return Err("crypttab cannot be read"),
        };
        match self.tree.names(KEY_FOLDER, MAX_KEYS) {
            Ok(names) => {
                let keys = names.iter().filter(|name| name.extension().is_some_and(|end| end == "key"));
                files.extend(keys.map(|name| Path::new("/").join(KEY_FOLDER).join(name)));
            }
            Err(ReadError::Missing) => {}
            Err(_) => return Err("cryptsetup-keys.d cannot be read"),
        }
        Ok(files)
    }
}

/// `NAME DEVICE KEY OPTIONS`
fn of_table(table: &str) -> Result<Vec<PathBuf>, &'static str> {
    let mut files = Vec::new();
    for line in table.lines().filter(|line| !line.trim_start().starts_with('#')) {
        let mut fields = line.split_ascii_whitespace().skip(2);
        let (key, options) = (fields.next().unwrap_or("-"), fields.next().unwrap_or_default());
        if options.split(',').any(|option| option.starts_with("keyscript=")) {
            return Err("crypttab has a program give a key");
        }
        match key {
            "-" | "none" => {}
            key if RANDOM.contains(&key) => {}
            // `FILE:DEVICE` is a file elsewhere, and what is in /dev no file.
            key if key.starts_with('/') && !key.starts_with("/dev/") && !key.contains(':') => files.push(key.into()),
            _ => return Err("crypttab names a key that is not understood"),
        }
        if files.len() > MAX_KEYS {
            return Err("crypttab names more keys than are read");
        }
    }
    Ok(files)
}
