//! Small logs with all that matters in them: of firmware, and of IMA.

use std::sync::LazyLock;

use data_encoding::HEXLOWER;
use starminer_hardware::event_log::{Bank, Digest, EventKind, EventLog, Guid, PcrValues, Registers, Variable};
use starminer_hardware::{event_log, ima};

use super::vector;

/// A log, the registers that it leads to, and what it claims under them.
pub struct KnownLog {
    /// The log.
    pub log: Vec<u8>,
    /// Every register of it that it leads to, of the strongest bank that it has.
    pub registers: PcrValues,
    /// What it then claims.
    pub claims: serde_json::Value,
}

fn event(banks: &[Bank], register: u8, kind: EventKind, measured: &[u8], data: &[u8]) -> Vec<u8> {
    let mut event = vec![register, 0, 0, 0];
    event.extend(kind.0.to_le_bytes());
    event.extend(u32::try_from(banks.len()).expect("a few").to_le_bytes());
    for bank in banks {
        event.extend(algorithm(*bank).to_le_bytes());
        event.extend(bank.hash(&[measured]).as_bytes());
    }
    event.extend(u32::try_from(data.len()).expect("short").to_le_bytes());
    event.extend(data);
    event
}

/// TPM's number of a bank's algorithm.
const fn algorithm(bank: Bank) -> u16 {
    match bank {
        Bank::Sha1 => 0x04,
        Bank::Sha256 => 0x0b,
        Bank::Sha384 => 0x0c,
        Bank::Sha512 => 0x0d,
        Bank::Sm3 => 0x12,
    }
}

fn spec_id(banks: &[Bank]) -> Vec<u8> {
    let mut data = b"Spec ID Event03\0\0\0\0\0\0\x02\0\x02".to_vec();
    data.extend(u32::try_from(banks.len()).expect("a few").to_le_bytes());
    for bank in banks {
        data.extend(algorithm(*bank).to_le_bytes());
        data.extend(u16::try_from(bank.size_bytes()).expect("short").to_le_bytes());
    }
    data.push(0);
    let mut event = vec![0, 0, 0, 0, 3, 0, 0, 0];
    event.extend([0; 20]);
    event.extend(u32::try_from(data.len()).expect("short").to_le_bytes());
    event.extend(data);
    event
}

fn locality() -> Vec<u8> {
    let mut event = vec![0, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0x0b, 0];
    event.extend([0; 32]);
    event.extend([17, 0, 0, 0]);
    event.extend(b"StartupLocality\0\x03");
    event
}

/// A list of signatures with entries of this size.
#[must_use]
pub fn signature_list(kind: Guid, entry_bytes: u32, entries: &[u8]) -> Vec<u8> {
    let whole = 28 + u32::try_from(entries.len()).expect("short");
    [&kind.0[..], &whole.to_le_bytes(), &[0; 4], &entry_bytes.to_le_bytes(), entries].concat()
}

/// Lists of two kinds: certificates and digests.
#[must_use]
pub fn signature_lists() -> Vec<u8> {
    let certificate = Guid::new(0xa5c0_59a1, 0x94e4, 0x4aa7, [0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72]);
    let digest = Guid::new(0xc1c4_1626, 0x504c, 0x4092, [0xac, 0xa9, 0x41, 0xf9, 0x36, 0x93, 0x43, 0x28]);
    [signature_list(certificate, 24, &[0x30; 24]), signature_list(digest, 48, &[7; 96])].concat()
}

fn made(banks: &[Bank], secure_boot: u8) -> Vec<u8> {
    let mut log = spec_id(banks);
    if banks == [Bank::Sha256] {
        log.extend(locality());
    }
    let mut add =
        |register, kind, measured: &[u8], data: &[u8]| log.extend(event(banks, register, kind, measured, data));
    add(0, EventKind::S_CRTM_VERSION, b"2\0.\x000\0", b"2\0.\x000\0");
    let lists = signature_lists();
    for (vendor, name, contents) in [
        (Guid::GLOBAL_VARIABLE, "SecureBoot", &[secure_boot][..]),
        (Guid::GLOBAL_VARIABLE, "PK", &lists),
        (Guid::GLOBAL_VARIABLE, "KEK", &lists),
        (Guid::IMAGE_SECURITY_DATABASE, "db", &lists),
        (Guid::IMAGE_SECURITY_DATABASE, "dbx", &lists),
    ] {
        let data = Variable::encode(vendor, name, contents);
        add(7, EventKind::EFI_VARIABLE_DRIVER_CONFIG, &data, &data);
    }
    for register in 0..8 {
        add(register, EventKind::SEPARATOR, &[0; 4], &[0; 4]);
    }
    for image in [b"MZ shim", b"MZ grub"] {
        add(4, EventKind::EFI_BOOT_SERVICES_APPLICATION, image, &[0x22; 40]);
    }
    add(2, EventKind::EFI_BOOT_SERVICES_DRIVER, b"\x55\xaa rom", &[0x33; 40]);
    add(5, EventKind(0x8000_0007), b"Exit Boot Services Invocation", b"Exit Boot Services Invocation");
    add(8, EventKind::IPL, b"linux /vmlinuz", b"grub_cmd: linux /vmlinuz\0");
    add(11, EventKind::IPL, b".linux\0", b".\0l\0i\0n\0u\0x\0\0\0");
    log
}

fn legacy() -> Vec<u8> {
    let mut log = Vec::new();
    for (register, kind, measured) in [(0, EventKind::S_CRTM_VERSION, &b"1"[..]), (7, EventKind::SEPARATOR, &[0; 4])] {
        log.extend([register, 0, 0, 0]);
        log.extend(kind.0.to_le_bytes());
        log.extend(Bank::Sha1.hash(&[measured]).as_bytes());
        log.extend(u32::try_from(measured.len()).expect("short").to_le_bytes());
        log.extend(measured);
    }
    log
}

/// Logs that are made here, by name.
#[must_use]
pub fn made_event_logs() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("sha256", made(&[Bank::Sha256], 1)),
        ("sha1-sha384", made(&[Bank::Sha1, Bank::Sha384], 1)),
        ("insecure", made(&[Bank::Sha256], 0)),
        ("legacy", legacy()),
    ]
}

/// Names of the vectors' logs.
pub const VECTOR_LOGS: [&str; 6] = [
    "debian-10.bin",
    "keylime_secureboot_off.bin",
    "keylime_secureboot_on.bin",
    "rhel8-uefi.bin",
    "ubuntu-2104-no-secure-boot.bin",
    "ubuntu-2404-amd-sevsnp.bin",
];

/// Logs with the registers that they lead to.
pub static EVENT_LOGS: LazyLock<Vec<KnownLog>> = LazyLock::new(|| {
    let made = made_event_logs().into_iter().map(|(_, log)| log);
    let vectors = VECTOR_LOGS.iter().filter_map(|name| vector(&format!("eventlog/{name}")));
    made.chain(vectors)
        .filter_map(|log| {
            let parsed = EventLog::parse(&log).expect("a log");
            let alone = event_log::verify(&parsed, Registers::NotGiven).verified?;
            let replayed = alone.pcrs();
            let bank = replayed.banks().filter(|bank| *bank != Bank::Sm3).last()?;
            let mut registers = PcrValues::new();
            for (index, value) in replayed.of_bank(bank) {
                registers.insert(index, *value);
            }
            let claims = event_log::verify(&parsed, Registers::Pcrs(&registers)).verified?.to_json();
            Some(KnownLog { log, registers, claims })
        })
        .collect()
});

/// A measurement list and the register that it leads to.
pub struct KnownList {
    /// The list.
    pub list: Vec<u8>,
    /// Register 10, by SHA-256.
    pub registers: PcrValues,
    /// What each entry names.
    pub files: Vec<File>,
}

/// Binary or text, of a few entries, one of them a violation.
fn made_list(text: bool, signed: bool) -> Vec<u8> {
    let mut list = Vec::new();
    for (number, path) in ["boot_aggregate", "/usr/bin/init", "/usr/lib/a file.so", "/etc/changed", "/usr/bin/agent"]
        .into_iter()
        .enumerate()
    {
        let digest = Bank::Sha256.hash(&[path.as_bytes()]);
        let mut fields = vec![[b"sha256:\0", digest.as_bytes()].concat(), format!("{path}\0").into_bytes()];
        let signature = if number == 4 { vec![3, 2, 4, 1, 2, 3, 4, 0, 2, 9, 9] } else { Vec::new() };
        if signed {
            fields.push(signature.clone());
        }
        let mut data = Vec::new();
        for field in fields {
            data.extend(u32::try_from(field.len()).expect("short").to_le_bytes());
            data.extend(field);
        }
        let violation = number == 3;
        let template =
            if violation { Digest::new(Bank::Sha1, &[0; 20]).expect("20 bytes") } else { Bank::Sha1.hash(&[&data]) };
        let name = if signed { "ima-sig" } else { "ima-ng" };
        if text {
            let end = if signed { format!(" {}", HEXLOWER.encode(&signature)) } else { String::new() };
            let line = format!("10 {} {name} sha256:{} {path}{end}\n", template.to_hex(), digest.to_hex());
            list.extend(line.into_bytes());
        } else {
            list.extend([10, 0, 0, 0]);
            list.extend(template.as_bytes());
            list.extend(u32::try_from(name.len()).expect("short").to_le_bytes());
            list.extend(name.as_bytes());
            list.extend(u32::try_from(data.len()).expect("short").to_le_bytes());
            list.extend(data);
        }
    }
    list
}

/// Lists that are made here, by name.
#[must_use]
pub fn made_lists() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("binary-ng", made_list(false, false)),
        ("binary-sig", made_list(false, true)),
        ("text-ng", made_list(true, false)),
        ("text-sig", made_list(true, true)),
    ]
}

/// What an entry names.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct File {
    /// Its path.
    pub path: Option<Vec<u8>>,
    /// Its digest.
    pub digest: Option<Vec<u8>>,
}

/// What an entry names: nothing, where it is a violation, since nothing vouches for what that says.
#[must_use]
pub fn file_of(entry: &ima::Entry<'_>) -> File {
    if entry.is_violation() {
        return File::default();
    }
    let digest = entry.file_digest.as_ref().map(|file| file.digest.to_vec());
    File { path: entry.path.as_deref().map(<[u8]>::to_vec), digest }
}

/// Lists with the register that they lead to.
pub static LISTS: LazyLock<Vec<KnownList>> = LazyLock::new(|| {
    let made = made_lists().into_iter().map(|(_, list)| list);
    let vector = vector("ima/ascii_runtime_measurements").map(|text| {
        // Its first entries: each run hashes all of them.
        let end =
            text.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(15).map_or(text.len(), |(at, _)| at + 1);
        text[..end].to_vec()
    });
    made.chain(vector)
        .map(|list| {
            let parsed = ima::MeasurementList::parse(&list).expect("a list");
            let verified = ima::verify(&parsed, None).verified.expect("it is consistent");
            let own = |(bank, form, _): &&(Bank, ima::Form, Digest)| (*bank, *form) == (Bank::Sha256, ima::Form::Own);
            let value = verified.pcr10().iter().find(own).expect("both banks are followed").2;
            let mut registers = PcrValues::new();
            registers.insert(10, value);
            let files = verified.entries().map(|entry| file_of(&entry)).collect();
            KnownList { list, registers, files }
        })
        .collect()
});
