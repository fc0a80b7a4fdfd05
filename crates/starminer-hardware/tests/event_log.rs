//! UEFI event logs of real machines, and what a forged one may not get away with.
#![allow(clippy::unwrap_used)]

#[path = "event_log/builder.rs"]
mod builder;

use std::path::PathBuf;

use builder::{Builder, DB, machine};
use proptest::prelude::*;
use serde_json::{Value, json};
use starminer_hardware::event_log::{
    Bank, Digest, EventKind, EventLog, Guid, ParseError, PcrValues, Policy, Registers, SecureBootState, Variable,
    Verification, appraise, verify,
};
use starminer_hardware::{Checks, Verdict};

const LOGS: [&str; 6] = [
    "debian-10.bin",
    "keylime_secureboot_off.bin",
    "keylime_secureboot_on.bin",
    "rhel8-uefi.bin",
    "ubuntu-2104-no-secure-boot.bin",
    "ubuntu-2404-amd-sevsnp.bin",
];

fn vector(name: &str) -> Option<Vec<u8>> {
    let root = std::env::var_os("STARMINER_VECTORS")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors"), PathBuf::from);
    let path = root.join("eventlog").join(name);
    let bytes = std::fs::read(&path).ok();
    if bytes.is_none() {
        println!("skipped: no {}", path.display());
    }
    bytes
}

fn expected() -> Option<Value> {
    Some(serde_json::from_slice(&vector("expected.json")?).unwrap())
}

fn pcrs(value: &Value) -> PcrValues {
    serde_json::from_value(value.clone()).unwrap()
}

/// The first required check that fails.
fn refusal(checks: &Checks) -> Option<String> {
    checks
        .as_slice()
        .iter()
        .find(|check| check.verdict == Verdict::Fail && check.weight == starminer_hardware::Weight::Required)
        .map(|check| check.name.to_string())
}

/// Without what is told as a hint, and types, which nothing vouches for.
fn vouched_claims(verification: &Verification) -> Option<Value> {
    let mut claims = verification.verified.as_ref()?.to_json();
    for hint in ["events", "event_counts", "padding_bytes", "secure_boot_reason"] {
        claims.as_object_mut().unwrap().remove(hint);
    }
    strip(&mut claims);
    Some(claims)
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.remove("hint");
            if fields.contains_key("pcr") {
                fields.remove("type");
            }
            fields.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}

impl Builder {
    /// Verified with the registers that its own digests lead to: what a quote would say.
    fn quoted(&self) -> Verification {
        verify(&EventLog::parse(&self.bytes).unwrap(), Registers::Pcrs(&self.registers()))
    }

    fn registers(&self) -> PcrValues {
        let log = EventLog::parse(&self.bytes).unwrap();
        let alone = verify(&log, Registers::NotGiven);
        let claims = match alone.verified {
            Some(verified) => return without_literal(&verified.to_json()),
            None => alone.checks,
        };
        // A forged log is not verified; its digests lead somewhere all the same.
        let mut values = PcrValues::new();
        for bank in log.banks() {
            for register in 0..24 {
                let mut value = vec![0; bank.size_bytes()];
                let events: Vec<_> =
                    log.events().filter(|event| event.extends() && event.register == register).collect();
                for event in &events {
                    value = bank.hash(&[&value, event.digest(*bank).unwrap()]).as_bytes().to_vec();
                }
                if !events.is_empty() {
                    values.insert(register, Digest::new(*bank, &value).unwrap());
                }
            }
        }
        assert!(refusal(&claims).is_some());
        values
    }
}

/// Register 0 as a TPM has it.
fn without_literal(claims: &Value) -> PcrValues {
    let mut registers = claims["pcrs"].clone();
    for (bank, values) in claims["pcrs_with_startup_locality"].as_object().unwrap() {
        registers[bank]["0"] = values["0"].clone();
    }
    pcrs(&registers)
}

fn secure_boot(verification: &Verification) -> SecureBootState {
    verification.verified.as_ref().unwrap_or_else(|| panic!("{:#?}", verification.checks)).secure_boot().state
}

#[test]
fn real_logs_replay_to_the_registers_and_prove_secure_boot() {
    let Some(expected) = expected() else { return };
    for name in LOGS {
        let bytes = vector(name).unwrap();
        let log = EventLog::parse(&bytes).unwrap();
        let alone = verify(&log, Registers::NotGiven);
        let claims = alone.verified.as_ref().unwrap_or_else(|| panic!("{name}: {:#?}", alone.checks)).to_json();
        assert_eq!(claims["pcrs"], expected[name]["pcrs"], "{name}");
        assert_eq!(claims["secure_boot"], expected[name]["secure_boot"], "{name}: {}", claims["secure_boot_reason"]);
        assert_eq!(claims["anchored"], Value::Null);
        assert_eq!(claims["event_counts"]["mismatch"], 0, "{name}");
        for given in [pcrs(&expected[name]["pcrs"]), without_literal(&claims)] {
            let anchored = verify(&log, Registers::Pcrs(&given));
            let verified = anchored.verified.as_ref().unwrap_or_else(|| panic!("{name}: {:#?}", anchored.checks));
            assert_eq!(verified.pcrs(), &given, "{name}");
            let claims = verified.to_json();
            assert_eq!(claims["secure_boot"], expected[name]["secure_boot"], "{name}");
            for database in ["PK", "KEK", "db", "dbx"] {
                assert!(!claims["databases"][database].as_array().unwrap().is_empty(), "{name} {database}");
            }
            assert!(verified.databases().dbx.signatures().len() > 70, "{name}");
            assert!(verified.boot_applications().len() >= 2, "{name}");
            assert_eq!(claims["separators"].as_object().unwrap().len(), 8, "{name}");
        }
    }
}

#[test]
fn the_startup_locality_of_a_real_log_decides_register_0() {
    let Some(bytes) = vector("keylime_secureboot_off.bin") else { return };
    let log = EventLog::parse(&bytes).unwrap();
    let claims = verify(&log, Registers::NotGiven).verified.unwrap().to_json();
    assert_eq!(claims["startup_locality"], 3);
    assert_eq!(
        claims["pcrs_with_startup_locality"]["sha256"]["0"],
        "0ee9a7feba8f4172f1a7451594aa5731665a4d353ac61814042ce107a00742f2"
    );
    assert_eq!(claims["option_roms"].as_array().unwrap().len(), 3);
}

#[test]
fn real_authorities_are_entries_of_the_real_db() {
    let Some(bytes) = vector("keylime_secureboot_on.bin") else { return };
    let claims = verify(&EventLog::parse(&bytes).unwrap(), Registers::NotGiven).verified.unwrap().to_json();
    let authorities = claims["authorities"].as_array().unwrap();
    let of = |name: &str| authorities.iter().find(|authority| authority["variable"] == name).unwrap();
    assert_eq!((&of("db")["in_db"], &of("db")["after_separator"]), (&json!(true), &json!(true)));
    assert_eq!(of("SbatLevel")["text"], "sbat,1,2023012900\nshim,2\ngrub,3\ngrub.debian,4");
    let lines = claims["command_lines"].as_array().unwrap();
    assert!(
        lines.iter().any(
            |line| line["hint"] == "kernel_cmdline" && line["text"].as_str().unwrap().contains("rhel_rhel--9-root")
        )
    );
    assert_eq!(claims["exit_boot_services"], json!({ "invocations": 1, "failures": 0, "successes": 1 }));
    assert!(
        claims["boot_applications"]
            .as_array()
            .unwrap()
            .iter()
            .any(|image| image["hint"] == "\\EFI\\redhat\\grubx64.efi")
    );
}

#[test]
fn no_flipped_byte_of_a_real_log_changes_what_is_vouched_for() {
    let Some(expected) = expected() else { return };
    for name in ["debian-10.bin", "keylime_secureboot_on.bin"] {
        let bytes = vector(name).unwrap();
        let given = pcrs(&expected[name]["pcrs"]);
        let genuine = vouched_claims(&verify(&EventLog::parse(&bytes).unwrap(), Registers::Pcrs(&given))).unwrap();
        // Inside the large databases every place is like every other.
        for at in (0..bytes.len()).step_by(211) {
            let mut forged = bytes.clone();
            forged[at] ^= 1 << (at % 8);
            let Ok(log) = EventLog::parse(&forged) else { continue };
            let Some(claims) = vouched_claims(&verify(&log, Registers::Pcrs(&given))) else { continue };
            assert!(!more_is_claimed(&claims, &genuine), "{name}: byte {at}");
        }
    }
}

/// Whether a claim says something that the genuine one does not: it may say less.
fn more_is_claimed(claims: &Value, genuine: &Value) -> bool {
    match (claims, genuine) {
        (Value::Null, _) => false,
        (Value::Object(claims), Value::Object(genuine)) => {
            claims.iter().any(|(key, value)| genuine.get(key).is_none_or(|genuine| more_is_claimed(value, genuine)))
        }
        // What could be an image may be counted as one: that denies, and allows nothing.
        (Value::Array(claims), Value::Array(genuine)) => claims.iter().any(|value| {
            value.get("digests").is_none() && !genuine.iter().any(|genuine| !more_is_claimed(value, genuine))
        }),
        _ => claims != genuine,
    }
}

#[test]
fn every_bit_of_a_small_log_is_vouched_for_or_a_hint() {
    let machine = machine(&[1]);
    let given = machine.registers();
    let verification = machine.quoted();
    let genuine = vouched_claims(&verification).unwrap();
    assert_eq!(genuine["secure_boot"], true);
    assert_eq!(genuine["boot_applications"].as_array().unwrap().len(), 1);
    for bit in 0..machine.bytes.len() * 8 {
        let mut forged = machine.bytes.clone();
        forged[bit / 8] ^= 1 << (bit % 8);
        let Ok(log) = EventLog::parse(&forged) else { continue };
        let Some(claims) = vouched_claims(&verify(&log, Registers::Pcrs(&given))) else { continue };
        assert!(!more_is_claimed(&claims, &genuine), "bit {bit}");
        // Nothing that was started can be hidden.
        let applications = claims["boot_applications"].as_array().unwrap();
        let digest = &genuine["boot_applications"][0]["digests"];
        assert!(applications.iter().any(|application| &application["digests"] == digest), "bit {bit}");
    }
}

#[test]
fn a_shorter_or_longer_log_does_not_lead_to_the_registers() {
    let Some(expected) = expected() else { return };
    let bytes = vector("debian-10.bin").unwrap();
    let given = pcrs(&expected["debian-10.bin"]["pcrs"]);
    for size in 0..bytes.len() {
        if let Ok(log) = EventLog::parse(&bytes[..size]) {
            let verification = verify(&log, Registers::Pcrs(&given));
            assert!(verification.verified.is_none(), "{size} bytes");
            assert_eq!(refusal(&verification.checks).as_deref(), Some("eventlog.registers.sha1"), "{size} bytes");
        }
    }
    let genuine = vouched_claims(&verify(&EventLog::parse(&bytes).unwrap(), Registers::Pcrs(&given)));
    for padding in [vec![0; 1000], vec![0xff; 1000], vec![0; 3]] {
        let padded = [&bytes[..], &padding].concat();
        assert_eq!(vouched_claims(&verify(&EventLog::parse(&padded).unwrap(), Registers::Pcrs(&given))), genuine);
    }
    let longer = [&bytes[..], &bytes[..80]].concat();
    let verification = verify(&EventLog::parse(&longer).unwrap(), Registers::Pcrs(&given));
    assert_eq!(refusal(&verification.checks).as_deref(), Some("eventlog.registers.sha1"));
    for rest in [&[1_u8, 2, 3][..], &[0, 0, 0, 0, 0, 0, 0, 0, 1], &[0xff, 0xff, 0xff, 0xff, 0]] {
        assert!(EventLog::parse(&[&bytes[..], rest].concat()).is_err());
    }
}

#[test]
fn what_is_no_log_is_refused_by_its_shape() {
    let good = machine(&[1]).bytes;
    let with = |at: usize, bytes: &[u8]| {
        let mut forged = good.clone();
        forged[at..at + bytes.len()].copy_from_slice(bytes);
        forged
    };
    // The first event behind the Spec ID event starts at 65.
    for (what, bytes, error) in [
        ("nothing", vec![], ParseError::Empty),
        ("zeroes", vec![0; 4096], ParseError::Empty),
        ("ones", vec![0xff; 4096], ParseError::Empty),
        ("half a header", good[..30].to_vec(), ParseError::Truncated(0)),
        ("too long", vec![1; (4 << 20) + 1], ParseError::TooLong),
        ("no algorithm", with(56, &[0]), ParseError::SpecId),
        ("a digest of another length", with(62, &[31]), ParseError::SpecId),
        ("vendor information that is not there", with(64, &[9]), ParseError::SpecId),
        ("absurdly many algorithms", with(56, &[0xff; 4]), ParseError::SpecId),
        ("register 24", with(65, &[24]), ParseError::Register(1, 24)),
        ("an algorithm that is not listed", with(77, &[4]), ParseError::Algorithm(1, 4)),
        ("absurdly many digests", with(73, &[0xff; 4]), ParseError::Algorithm(1, 4)),
        ("absurdly much data", with(111, &[0xff; 4]), ParseError::EventTooLong(1)),
    ] {
        let found = EventLog::parse(&bytes).map(|log| log.len());
        match (what, found) {
            // The second digest starts in the data.
            ("absurdly many digests", Err(ParseError::Algorithm(1, _))) => {}
            (what, found) => assert_eq!(found, Err(error), "{what}"),
        }
        assert!(!error.code().is_empty());
    }
    let mut many = machine(&[1]);
    for _ in 0..5000 {
        many = many.separator(8);
    }
    assert_eq!(EventLog::parse(&many.bytes).map(|log| log.len()), Err(ParseError::TooManyEvents));
}

#[test]
fn secure_boot_is_believed_from_the_first_measurement_before_the_separator_alone() {
    use SecureBootState::{Disabled, Enabled, Unknown};
    let on = Variable::encode(Guid::GLOBAL_VARIABLE, "SecureBoot", &[1]);
    let off = Variable::encode(Guid::GLOBAL_VARIABLE, "SecureBoot", &[0]);
    let config = EventKind::EFI_VARIABLE_DRIVER_CONFIG;
    let base = Builder::sha256;
    for (what, log, state) in [
        ("on", machine(&[1]), Enabled),
        ("off", machine(&[0]), Disabled),
        ("neither", machine(&[2]), Unknown),
        ("two bytes", machine(&[1, 1]), Unknown),
        ("nothing", base().separators(0..8), Unknown),
        ("after the separator", base().separator(7).plain(7, config, &on), Unknown),
        (
            "after a separator that is called something else",
            base().event(7, EventKind::IPL, &[0; 4], b"x").plain(7, config, &on),
            Unknown,
        ),
        (
            "after a separator of ones",
            base().event(7, EventKind::POST_CODE, &[0xff; 4], b"x").plain(7, config, &on),
            Unknown,
        ),
        ("no separator", base().plain(7, config, &on), Unknown),
        (
            "an error instead of a separator",
            base().plain(7, config, &on).plain(7, EventKind::SEPARATOR, &1_u32.to_le_bytes()),
            Unknown,
        ),
        ("in another register", base().plain(1, config, &on).separators(0..8), Unknown),
        ("not extended", base().plain(7, EventKind::NO_ACTION, &on).separators(0..8), Unknown),
        ("of another type", base().plain(7, EventKind::IPL, &on).separators(0..8), Unknown),
        (
            "of another vendor",
            base().plain(7, config, &Variable::encode(Guid::SHIM_LOCK, "SecureBoot", &[1])).separators(0..8),
            Unknown,
        ),
        ("off, then on", base().plain(7, config, &off).plain(7, config, &on).separators(0..8), Unknown),
        ("on, then off after the separator", machine(&[1]).plain(7, config, &off), Unknown),
        ("on, and again", machine(&[1]).plain(7, config, &on), Enabled),
        (
            "off, hidden, then on",
            base().event(7, EventKind::POST_CODE, &off, b"x").plain(7, config, &on).separators(0..8),
            Unknown,
        ),
        ("in audit mode", base().variable("SecureBoot", &[1]).variable("AuditMode", &[1]).separators(0..8), Unknown),
        ("in setup mode", base().variable("SecureBoot", &[1]).variable("SetupMode", &[1]).separators(0..8), Unknown),
        (
            "in deployed mode",
            base().variable("SecureBoot", &[1]).variable("DeployedMode", &[1]).separators(0..8),
            Enabled,
        ),
        ("without a platform key", base().variable("SecureBoot", &[1]).variable("PK", &[]).separators(0..8), Unknown),
    ] {
        assert_eq!(secure_boot(&log.quoted()), state, "{what}");
    }
}

#[test]
fn data_that_was_not_measured_refuses_or_is_not_believed() {
    let on = Variable::encode(Guid::GLOBAL_VARIABLE, "SecureBoot", &[1]);
    let off = Variable::encode(Guid::GLOBAL_VARIABLE, "SecureBoot", &[0]);
    let forged = Builder::sha256().event(7, EventKind::EFI_VARIABLE_DRIVER_CONFIG, &off, &on).separators(0..8);
    assert_eq!(refusal(&forged.quoted().checks).as_deref(), Some("eventlog.data"));
    let application = machine(&[1]).event(4, EventKind::SEPARATOR, b"an application", &[0; 4]);
    assert_eq!(refusal(&application.quoted().checks).as_deref(), Some("eventlog.data"));
    let authority = machine(&[1]).event(7, EventKind::EFI_VARIABLE_AUTHORITY, b"something", &on).quoted();
    let claims = authority.verified.unwrap().to_json();
    assert_eq!((&claims["authorities"], &claims["event_counts"]["mismatch"]), (&json!([]), &json!(1)));
}

#[test]
fn an_application_shows_whatever_it_is_called() {
    let image = b"MZ, and then an application";
    let text = b"an application that claims to be a string";
    for (what, log, hidden) in [
        ("an application", machine(&[1]).event(4, EventKind::EFI_BOOT_SERVICES_APPLICATION, text, &[]), &text[..]),
        (
            "an action",
            machine(&[1]).event(4, EventKind::EFI_ACTION, text, b"Calling EFI Application from Boot Option"),
            text,
        ),
        ("a firmware blob", machine(&[1]).event(4, EventKind::POST_CODE, text, b"ACPI DATA"), text),
        ("its own bytes as an action", machine(&[1]).plain(4, EventKind::EFI_ACTION, image), image),
        (
            "its own bytes as a command",
            machine(&[1]).event(4, EventKind::IPL, image, b"grub_cmd: MZ, and then an application\0"),
            image,
        ),
        ("an unknown type", machine(&[1]).event(4, EventKind(0x1234_5678), text, &[]), text),
    ] {
        let verified = log.quoted().verified.unwrap_or_else(|| panic!("{what}"));
        let digest = Bank::Sha256.hash(&[hidden]);
        assert!(verified.boot_applications().iter().any(|image| image.digests == [digest]), "{what}");
        let policy = policy(&json!({ "boot_applications": [Bank::Sha256.hash(&[DB]).to_hex()] }));
        assert_eq!(
            verdict(&appraise(&verified, &policy), "eventlog.policy.boot-applications"),
            Verdict::Fail,
            "{what}"
        );
    }
    // Called one that is not extended, it leaves a hole in the register.
    let honest = machine(&[1]).event(4, EventKind::EFI_BOOT_SERVICES_APPLICATION, text, &[]);
    let hiding = machine(&[1]).event(4, EventKind::NO_ACTION, text, &[]);
    let log = EventLog::parse(&hiding.bytes).unwrap();
    assert!(verify(&log, Registers::Pcrs(&honest.registers())).verified.is_none());
}

#[test]
fn nothing_is_claimed_from_registers_or_banks_that_were_not_given() {
    let banks = [(0x4, Bank::Sha1), (0xb, Bank::Sha256)];
    let log = Builder::new(&banks).variable("SecureBoot", &[1]).separators(0..8).event(
        4,
        EventKind::EFI_BOOT_SERVICES_APPLICATION,
        DB,
        &[],
    );
    let all = log.registers();
    let parsed = EventLog::parse(&log.bytes).unwrap();
    let only = |bank: Bank, registers: &[u32]| {
        let mut values = PcrValues::new();
        for register in registers {
            values.insert(*register, *all.value(bank, *register).unwrap());
        }
        values
    };
    let without_7 = verify(&parsed, Registers::Pcrs(&only(Bank::Sha256, &[0, 4])));
    assert_eq!(secure_boot(&without_7), SecureBootState::Unknown);
    assert!(without_7.verified.as_ref().unwrap().to_json()["databases"]["db"].is_null());
    let without_4 = verify(&parsed, Registers::Pcrs(&only(Bank::Sha256, &[7]))).verified.unwrap();
    assert_eq!(without_4.to_json()["boot_applications"], json!([]));
    let listed = policy(&json!({ "boot_applications": [] }));
    assert_eq!(verdict(&appraise(&without_4, &listed), "eventlog.policy.boot-applications"), Verdict::Fail);
    // The SHA-1 of the application is the log's own word where only SHA-256 was given.
    let sha256 = verify(&parsed, Registers::Pcrs(&only(Bank::Sha256, &[0, 1, 2, 3, 4, 5, 6, 7]))).verified.unwrap();
    assert_eq!(sha256.boot_applications()[0].digests, [Bank::Sha256.hash(&[DB])]);
    // SHA-1 alone vouches, for those who take it.
    let sha1 = verify(&parsed, Registers::Pcrs(&only(Bank::Sha1, &[0, 1, 2, 3, 4, 5, 6, 7]))).verified.unwrap();
    assert_eq!(sha1.secure_boot().state, SecureBootState::Enabled);
    assert_eq!(verdict(&appraise(&sha1, &Policy::default()), "eventlog.policy.secure-boot"), Verdict::Fail);
    let taken = policy(&json!({ "sha1": "allowed" }));
    assert_eq!(verdict(&appraise(&sha1, &taken), "eventlog.policy.secure-boot"), Verdict::Pass);
    // A bank that the log does not have proves nothing.
    let mut other = PcrValues::new();
    other.insert(0, Digest::new(Bank::Sha384, &[0; 48]).unwrap());
    assert_eq!(refusal(&verify(&parsed, Registers::Pcrs(&other)).checks).as_deref(), Some("eventlog.registers"));
    assert!(verify(&parsed, Registers::Pcrs(&PcrValues::new())).verified.is_none());
    // Register 10 belongs to the kernel; register 3, which firmware left alone, to the log.
    let mut kernel = only(Bank::Sha256, &[7]);
    kernel.insert(10, Digest::new(Bank::Sha256, &[9; 32]).unwrap());
    assert!(verify(&parsed, Registers::Pcrs(&kernel)).verified.is_some());
    let bare = Builder::sha256().variable("SecureBoot", &[1]).separator(7);
    let mut touched = bare.registers();
    touched.insert(3, Digest::new(Bank::Sha256, &[9; 32]).unwrap());
    assert!(verify(&EventLog::parse(&bare.bytes).unwrap(), Registers::Pcrs(&touched)).verified.is_none());
}

#[test]
fn a_startup_locality_is_told_once_and_first() {
    let locality = |value: u8| [&b"StartupLocality\0"[..], &[value]].concat();
    let no_action = EventKind::NO_ACTION;
    for value in [0, 3, 4] {
        let log = Builder::sha256().plain(0, no_action, &locality(value)).separators(0..8);
        let start = [vec![0; 31], vec![value]].concat();
        let zero = Bank::Sha256.hash(&[&[0; 4]]);
        let expected = Bank::Sha256.hash(&[&start, zero.as_bytes()]);
        assert_eq!(log.registers().value(Bank::Sha256, 0), Some(&expected));
        assert!(log.quoted().verified.is_some());
    }
    for log in [
        Builder::sha256().separator(0).plain(0, no_action, &locality(3)),
        Builder::sha256().plain(0, no_action, &locality(3)).plain(0, no_action, &locality(3)).separator(0),
        Builder::sha256().plain(0, no_action, &locality(2)).separator(0),
    ] {
        let alone = verify(&EventLog::parse(&log.bytes).unwrap(), Registers::NotGiven);
        assert_eq!(refusal(&alone.checks).as_deref(), Some("eventlog.startup-locality"));
    }
}

#[test]
fn a_unified_kernel_image_and_the_phases_of_its_boot() {
    let wide = |text: &str| text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect::<Vec<_>>();
    let mut log = machine(&[1]);
    for (name, contents) in [(".linux", "a kernel"), (".cmdline", "quiet"), (".initrd", "an initrd")] {
        let named = format!("{name}\0");
        log = log.event(11, EventKind::IPL, named.as_bytes(), &wide(name)).event(
            11,
            EventKind::IPL,
            contents.as_bytes(),
            &wide(name),
        );
    }
    log = log.plain(12, EventKind::IPL, &wide("root=/dev/vda quiet"));
    let mut given = log.registers();
    let mut value = *given.value(Bank::Sha256, 11).unwrap();
    let parsed = EventLog::parse(&log.bytes).unwrap();
    for phase in ["enter-initrd", "leave-initrd", "sysinit"] {
        value = Bank::Sha256.hash(&[value.as_bytes(), Bank::Sha256.hash(&[phase.as_bytes()]).as_bytes()]);
    }
    let mut booted = PcrValues::new();
    for (index, value) in given.of_bank(Bank::Sha256).filter(|(index, _)| *index != 11) {
        booted.insert(index, *value);
    }
    booted.insert(11, value);
    given = booted;
    let claims = verify(&parsed, Registers::Pcrs(&given)).verified.unwrap().to_json();
    assert_eq!(claims["boot_phases"], json!(["enter-initrd", "leave-initrd", "sysinit"]));
    let sections = claims["kernel_image_sections"].as_array().unwrap();
    assert_eq!(sections.len(), 3);
    assert_eq!(sections[0]["name"], ".linux");
    assert_eq!(sections[0]["digests"]["sha256"], Bank::Sha256.hash(&[b"a kernel"]).to_hex());
    assert_eq!(claims["command_lines"][0]["text"], "root=/dev/vda quiet");
}

#[test]
fn banks_of_every_algorithm() {
    let banks = [(0x4, Bank::Sha1), (0xb, Bank::Sha256), (0xc, Bank::Sha384), (0xd, Bank::Sha512), (0x12, Bank::Sm3)];
    let log = Builder::new(&banks).variable("SecureBoot", &[1]).separators(0..8);
    let verified = log.quoted().verified.unwrap();
    assert_eq!(verified.secure_boot().state, SecureBootState::Enabled);
    assert_eq!(verified.pcrs().banks().count(), 5);
    assert_eq!(PcrValues::from_json(verified.pcrs().to_json().to_string().as_bytes()).unwrap(), *verified.pcrs());
    // The data has to hash to each of the digests that were given.
    let sha1 = Bank::Sha1.hash(&[&[0; 4]]);
    let at = log.bytes.windows(20).position(|window| window == sha1.as_bytes()).unwrap();
    let mut forged = log;
    forged.bytes[at] ^= 1;
    assert_eq!(refusal(&forged.quoted().checks).as_deref(), Some("eventlog.data"));
}

#[test]
fn a_confidential_vms_log_leads_to_its_registers() {
    let log = Builder::new(&[(0xc, Bank::Sha384)])
        .plain(1, EventKind::EFI_VARIABLE_DRIVER_CONFIG, &Variable::encode(Guid::GLOBAL_VARIABLE, "SecureBoot", &[1]))
        .separator(1)
        .separator(2)
        .event(2, EventKind::EFI_BOOT_SERVICES_APPLICATION, DB, &[])
        .plain(3, EventKind::IPL, b"a command line\0");
    let parsed = EventLog::parse(&log.bytes).unwrap();
    assert_eq!(parsed.measurements().map(Result::unwrap).map(|(index, _)| index).collect::<Vec<_>>(), [1, 1, 2, 2, 3]);
    let mut registers = parsed.replay_rtmrs().unwrap();
    let verified = verify(&parsed, Registers::Rtmrs(&registers)).verified.unwrap();
    assert_eq!(verified.secure_boot().state, SecureBootState::Enabled);
    assert_eq!(verified.boot_applications()[0].digests, [Bank::Sha384.hash(&[DB])]);
    registers[3][0] = 1;
    assert_eq!(refusal(&verify(&parsed, Registers::Rtmrs(&registers)).checks).as_deref(), Some("eventlog.registers"));
    // A firmware volume measured first could be a SecureBoot that was off.
    let hidden = Builder::new(&[(0xc, Bank::Sha384)])
        .event(1, EventKind::EFI_PLATFORM_FIRMWARE_BLOB2, b"a volume", b"a volume's name")
        .plain(1, EventKind::EFI_VARIABLE_DRIVER_CONFIG, &Variable::encode(Guid::GLOBAL_VARIABLE, "SecureBoot", &[1]))
        .separator(1);
    let parsed = EventLog::parse(&hidden.bytes).unwrap();
    let registers = parsed.replay_rtmrs().unwrap();
    assert_eq!(secure_boot(&verify(&parsed, Registers::Rtmrs(&registers))), SecureBootState::Unknown);
    assert_eq!(EventLog::parse(&machine(&[1]).bytes).unwrap().replay_rtmrs(), Err(1));
}

fn policy(value: &Value) -> Policy {
    serde_json::from_value(value.clone()).unwrap()
}

fn verdict(checks: &Checks, name: &str) -> Verdict {
    checks.as_slice().iter().find(|check| check.name == name).unwrap_or_else(|| panic!("{name}: {checks:#?}")).verdict
}

#[test]
fn policies_deny_what_they_do_not_name() {
    let application = Bank::Sha256.hash(&[DB]).to_hex();
    let complete = json!({
        "pcrs": { "sha256": { "7": machine(&[1]).registers().value(Bank::Sha256, 7).unwrap().to_hex() } },
        "boot_applications": [application],
        "revoked": ["bb".repeat(32)],
        "exit_boot_services": "required",
    });
    let verified = machine(&[1]).quoted().verified.unwrap();
    let checks = appraise(&verified, &policy(&complete));
    assert!(checks.hold(), "{checks:#?}");
    let default = appraise(&verified, &Policy::default());
    assert!(!default.hold());
    for name in ["pcrs", "boot-applications", "revoked"] {
        assert_eq!(verdict(&default, &format!("eventlog.policy.{name}")), Verdict::NotChecked);
    }
    let with = |field: &str, value: Value| {
        let mut policy = complete.clone();
        policy[field] = value;
        self::policy(&policy)
    };
    let rom = || machine(&[1]).event(2, EventKind::EFI_BOOT_SERVICES_DRIVER, b"a driver", &[]);
    let action = |log: Builder, text: &str| log.plain(7, EventKind::EFI_ACTION, text.as_bytes());
    let insecure = Variable::encode(Guid::SHIM_LOCK, "MokSBState", &[1]);
    for (name, log, policy) in [
        ("secure-boot", machine(&[0]), with("pcrs", json!("any"))),
        ("option-roms", rom(), self::policy(&complete)),
        ("boot-applications", machine(&[1]), with("boot_applications", json!(["00".repeat(32)]))),
        ("revoked", machine(&[1]), with("revoked", json!(["bb".repeat(32), "cc".repeat(32)]))),
        ("pcrs", machine(&[1]), with("pcrs", json!({ "sha256": { "7": "00".repeat(32) } }))),
        ("pcrs", machine(&[1]), with("pcrs", json!({ "sha384": { "7": "00".repeat(48) } }))),
        ("pcrs", machine(&[1]), with("pcrs", json!({}))),
        ("firmware-debugger", action(machine(&[1]), "UEFI Debug Mode"), with("pcrs", json!("any"))),
        ("dma", action(machine(&[1]), "DMA Protection Disabled"), with("pcrs", json!("any"))),
        ("shim", machine(&[1]).plain(7, EventKind::EFI_VARIABLE_AUTHORITY, &insecure), with("pcrs", json!("any"))),
        ("shim", machine(&[1]).event(7, EventKind::POST_CODE, &insecure, b"?"), with("pcrs", json!("any"))),
        ("separators", Builder::sha256().variable("SecureBoot", &[1]).separators(1..8), with("pcrs", json!("any"))),
        (
            "exit-boot-services",
            Builder::sha256().variable("SecureBoot", &[1]).separators(0..8),
            with("pcrs", json!("any")),
        ),
    ] {
        let verified = log.quoted().verified.unwrap();
        let checks = appraise(&verified, &policy);
        assert_eq!(verdict(&checks, &format!("eventlog.policy.{name}")), Verdict::Fail, "{name}");
        assert!(!checks.hold());
    }
    let allowed = appraise(&rom().quoted().verified.unwrap(), &with("option_roms", json!("any")));
    assert!(allowed.hold(), "{allowed:#?}");
    // The log's own word is not enough, unless the policy says so.
    let log = machine(&[1]);
    let alone = verify(&EventLog::parse(&log.bytes).unwrap(), Registers::NotGiven).verified.unwrap();
    let checks = appraise(&alone, &self::policy(&complete));
    assert_eq!(verdict(&checks, "eventlog.policy.registers"), Verdict::Fail);
    assert_eq!(verdict(&checks, "eventlog.policy.secure-boot"), Verdict::Fail);
    assert!(appraise(&alone, &with("registers", json!("any"))).hold());
    for wrong in [
        json!({ "secureboot": "required" }),
        json!({ "secure_boot": true }),
        json!({ "pcrs": { "sha257": {} } }),
        json!({ "pcrs": { "sha256": { "24": "00".repeat(32) } } }),
        json!({ "pcrs": { "sha256": { "07": "00".repeat(32) } } }),
        json!({ "pcrs": { "sha256": { "7": "00" } } }),
        json!({ "boot_applications": ["zz"] }),
        json!({ "boot_applications": "some" }),
    ] {
        assert!(serde_json::from_value::<Policy>(wrong.clone()).is_err(), "{wrong}");
    }
    assert!(PcrValues::from_json(br#"{"sha1": {}, "sha1": {}}"#).is_err());
}

#[test]
fn tpm2_tools_replay_to_the_same_registers() {
    let log = machine(&[1]).event(9, EventKind::IPL, b"a file", b"(hd0,gpt1)/file\0");
    let path = std::env::temp_dir().join(format!("starminer-event-log-{}", std::process::id()));
    std::fs::write(&path, &log.bytes).unwrap();
    let output = std::process::Command::new("tpm2_eventlog").arg(&path).output();
    std::fs::remove_file(&path).unwrap();
    let Ok(output) = output else { return println!("skipped: tpm2_eventlog is not installed") };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let values = text.split_once("\npcrs:").unwrap().1;
    let registers = log.registers();
    assert_eq!(registers.of_bank(Bank::Sha256).count(), 9);
    for (index, value) in registers.of_bank(Bank::Sha256) {
        let line = values.lines().find(|line| line.trim().starts_with(&format!("{index} "))).unwrap();
        assert!(line.ends_with(&value.to_hex()), "{line}");
    }
}

proptest! {
    #[test]
    fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..600), agile in any::<bool>()) {
        let mut log = if agile { Builder::sha256().bytes } else { Vec::new() };
        log.extend(bytes);
        if let Ok(log) = EventLog::parse(&log) {
            let _ = verify(&log, Registers::NotGiven).verified.map(|verified| verified.to_json());
            let _ = log.replay_rtmrs();
        }
    }

    #[test]
    fn nothing_panics_close_to_a_log(flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12)) {
        let mut bytes = machine(&[1])
            .event(11, EventKind::IPL, b".linux\0", b".\0l\0i\0n\0u\0x\0\0\0")
            .plain(7, EventKind::EFI_VARIABLE_AUTHORITY, &Variable::encode(Guid::SHIM_LOCK, "Shim", &[3; 40]))
            .bytes;
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(log) = EventLog::parse(&bytes) {
            let verification = verify(&log, Registers::NotGiven);
            if let Some(verified) = verification.verified {
                let _ = (verified.to_json(), appraise(&verified, &Policy::default()));
            }
        }
    }
}
