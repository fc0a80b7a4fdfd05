//! The boot of a machine over an emulated TPM: registers extended, and logs laid out, as firmware and kernel do.

use std::fs;
use std::path::Path;

use starminer_hardware::event_log::{Bank, EventLog};
use starminer_verify::Digest;

use crate::emulator::Swtpm;
use crate::log_builder::{Builder, machine};

pub const UEFI: &str = "sys/kernel/security/tpm0/binary_bios_measurements";
pub const IMA: &str = "sys/kernel/security/ima/binary_runtime_measurements";
pub const CCEL: &str = "sys/firmware/acpi/tables/data/CCEL";

/// The agent's executable file, as the kernel measured it.
pub const AGENT_FILE: &[u8] = b"an agent's executable";

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

pub fn put(root: &Path, path: &str, bytes: &[u8]) {
    let file = root.join(path);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, bytes).unwrap();
}

/// Extends the registers of the SHA-256 bank with what a log says.
pub fn extend(tpm: &Swtpm, log: &[u8]) {
    let log = EventLog::parse(log).unwrap();
    let extends = log.events().filter(|event| event.extends());
    let words: Vec<String> = extends
        .map(|event| format!("{}:sha256={}", event.register, hex(event.digest(Bank::Sha256).unwrap())))
        .collect();
    tpm.run(&format!("tpm2_pcrextend {}", words.join(" ")));
}

/// An entry of the kernel's list (template `ima-ng`), and what it extends register 10 of the SHA-256 bank with.
pub fn ima_entry(path: &str, file: &[u8; 32]) -> (Vec<u8>, Digest) {
    let sized = |bytes: &[u8]| [&u32::try_from(bytes.len()).unwrap().to_le_bytes(), bytes].concat();
    let data = [sized(&[&b"sha256:\0"[..], file].concat()), sized(&[path.as_bytes(), &[0]].concat())].concat();
    let sha1 = Bank::Sha1.hash(&[&data]);
    let entry = [&10_u32.to_le_bytes()[..], sha1.as_bytes(), &sized(b"ima-ng"), &sized(&data)].concat();
    (entry, Digest::of(&data))
}

/// Firmware with Secure Boot on, and a kernel that measured the agent. Leaves both logs below `root`.
pub fn boot(tpm: &Swtpm, root: &Path) {
    let Builder { bytes, .. } = machine(&[1]);
    extend(tpm, &bytes);
    put(root, UEFI, &bytes);
    tpm.run("tpm2_pcrread -Q -o pcrs sha256:0,1,2,3,4,5,6,7,8,9");
    let aggregate = Digest::of(&tpm.file("pcrs"));
    let mut list = Vec::new();
    for (path, file) in [("boot_aggregate", aggregate), ("/usr/bin/starminer-agent", Digest::of(AGENT_FILE))] {
        list.extend(measure(tpm, path, file));
    }
    put(root, IMA, &list);
}

/// The kernel measures a file: register 10 changes, and the entry is returned.
pub fn measure(tpm: &Swtpm, path: &str, file: Digest) -> Vec<u8> {
    let (entry, extended) = ima_entry(path, file.as_bytes());
    tpm.run(&format!("tpm2_pcrextend 10:sha256={extended}"));
    entry
}
