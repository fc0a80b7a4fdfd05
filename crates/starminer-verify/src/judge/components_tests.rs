#![allow(clippy::unwrap_used)]

use starminer_hardware::event_log::{EventLog, Registers, verify};

use super::*;
use crate::parts::boot_component;
use crate::reference::ReferenceValue;

const NO_ACTION: u32 = 3;
const IPL: u32 = 0xd;
const APPLICATION: u32 = 0x8000_0003;
const FIRMWARE: u32 = 0x8000_0008;

fn sha256(bytes: &[u8]) -> Vec<u8> {
    Bank::Sha256.hash(&[bytes]).as_bytes().to_vec()
}

/// A log with digests of SHA-256: register, kind, digest, data of each event.
fn log(events: &[(u32, u32, Vec<u8>, Vec<u8>)]) -> BootLog {
    let mut head = b"Spec ID Event03\0".to_vec();
    head.extend([0, 0, 0, 0, 0, 2, 0, 2]);
    head.extend(1_u32.to_le_bytes());
    head.extend([0x0b, 0, 32, 0, 0]);
    let mut bytes: Vec<u8> = [0_u32, NO_ACTION].into_iter().flat_map(u32::to_le_bytes).collect();
    bytes.extend([0; 20]);
    bytes.extend(u32::try_from(head.len()).unwrap().to_le_bytes());
    bytes.extend(head);
    for (register, kind, digest, data) in events {
        bytes.extend([*register, *kind, 1].into_iter().flat_map(u32::to_le_bytes));
        bytes.extend([0x0b, 0]);
        bytes.extend(digest);
        bytes.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
        bytes.extend(data);
    }
    let log = EventLog::parse(&bytes).unwrap();
    let verification = verify(&log, Registers::NotGiven);
    Box::new(verification.verified.unwrap_or_else(|| panic!("{:?}", verification.checks)))
}

/// A boot of an image with these sections, under this firmware.
fn boot(firmware: &[u8], program: &[u8], sections: &[(&str, &[u8])]) -> BootLog {
    let mut events = vec![
        (0, FIRMWARE, sha256(firmware), vec![0; 16]),
        (4, APPLICATION, sha256(program), vec![0; 32]),
        (9, IPL, sha256(b"whatever the host tells"), b"hint".to_vec()),
    ];
    for (name, contents) in sections {
        let wide: Vec<u8> = name.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
        events.push((11, IPL, sha256(&[name.as_bytes(), b"\0"].concat()), wide.clone()));
        events.push((11, IPL, sha256(contents), wide));
    }
    log(&events)
}

/// An image's name, the program that it is, and its sections.
type Image<'a> = (&'a str, &'a [u8], &'a [(&'a str, &'a [u8])]);

fn values(images: &[Image<'_>]) -> ReferenceValues {
    let mut all = Vec::new();
    for (image, program, sections) in images {
        let mut add = |register: u8, part: &str, contents: &[u8]| {
            let measurement = boot_component(register, &sha256(contents)).unwrap();
            all.push(ReferenceValue { kind: EvidenceKind::UefiLog, measurement, name: format!("{image}: {part}") });
        };
        add(4, "image", program);
        sections.iter().for_each(|(part, contents)| add(11, part, contents));
    }
    ReferenceValues::new(all).unwrap()
}

const SECTIONS_OF_ONE: [(&str, &[u8]); 3] =
    [(".linux", b"kernel 1"), (".cmdline", b"quiet 1"), (".initrd", b"files 1")];
const SECTIONS_OF_TWO: [(&str, &[u8]); 3] =
    [(".linux", b"kernel 2"), (".cmdline", b"quiet 2"), (".initrd", b"files 2")];

fn check(log: &BootLog, expected: Option<&str>) {
    let known = values(&[("one", b"image 1", &SECTIONS_OF_ONE), ("two", b"image 2", &SECTIONS_OF_TWO)]);
    assert_eq!(differences(log, &known).as_deref(), expected);
}

#[test]
fn what_differs_is_named_by_the_nearest_image() {
    check(&boot(b"any", b"image 1", &SECTIONS_OF_ONE), None);
    check(&boot(b"any", b"image 2", &SECTIONS_OF_TWO), None);
    let mut sections = SECTIONS_OF_TWO;
    sections[2].1 = b"files 3";
    check(
        &boot(b"any", b"image 3", &sections),
        Some("a boot program in register 4, the initial file system (.initrd) in register 11 are not as in two"),
    );
    sections[2].1 = SECTIONS_OF_ONE[2].1;
    check(
        &boot(b"any", b"image 2", &sections),
        Some("the initial file system (.initrd) in register 11 is not as in two"),
    );
}

#[test]
fn a_section_of_another_name_is_another_section() {
    let mut sections = SECTIONS_OF_ONE;
    (sections[1].1, sections[2].1) = (SECTIONS_OF_ONE[2].1, SECTIONS_OF_ONE[1].1);
    let named = "the command line (.cmdline) in register 11, the initial file system (.initrd) in register 11 are not as in one";
    check(&boot(b"any", b"image 1", &sections), Some(named));
}

#[test]
fn what_is_missing_and_what_is_more_is_named() {
    check(&boot(b"any", b"image 1", &SECTIONS_OF_ONE[..2]), Some(".initrd is not there"));
    let more = [&SECTIONS_OF_ONE[..], &[(".ucode", b"microcode")]].concat();
    check(&boot(b"any", b"image 1", &more), Some("the section .ucode in register 11 is not as in one"));
}

#[test]
fn nothing_is_said_without_values_of_components() {
    let log = boot(b"any", b"image 3", &SECTIONS_OF_ONE);
    assert_eq!(differences(&log, &ReferenceValues::unset()), None);
    let measurement = boot_component(4, &[1; 32]).unwrap();
    let unnamed = ReferenceValue { kind: EvidenceKind::UefiLog, measurement, name: "no component".into() };
    assert_eq!(differences(&log, &ReferenceValues::new(vec![unnamed]).unwrap()), None);
}
