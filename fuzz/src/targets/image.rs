//! Targets of `starminer-image`: files from which a node's registers are told.

use starminer_image::measure::firmware::{Machine, Volumes};
use starminer_image::measure::variables::Variables;

use crate::Outcome;
use crate::seeds::Seed;

/// The volumes that OVMF measures, out of its code.
pub fn firmware(data: &[u8]) -> Outcome {
    match Volumes::parse(data) {
        Ok(volumes) => {
            let events = volumes.events(Machine { memory_mib: 1024, vcpus: 2 });
            Outcome::accepted(events.is_ok())
        }
        Err(error) => Outcome::refused(error.code()),
    }
}

/// A store of variables.
pub fn variables(data: &[u8]) -> Outcome {
    match Variables::parse(data) {
        Ok(variables) => {
            let secure_boot = variables.secure_boot().map(|keys| (keys.pk.is_empty(), keys.db.is_empty()));
            assert!(!matches!(secure_boot, Ok((true, _))), "Secure Boot is on without a key");
            Outcome::accepted(secure_boot.is_ok())
        }
        Err(error) => Outcome::refused(error.code()),
    }
}

/// Seeds of these targets.
pub(crate) fn seeds() -> Vec<Seed> {
    // Two volumes of a few bytes, compressed as OVMF's are; there is no encoder here.
    let firmware = include_bytes!("../../data/ovmf.volumes").to_vec();
    vec![("image-firmware", "two-volumes".into(), firmware), ("image-variables", "three".into(), store())]
}

/// A store with a key, a database, and the switch that is on.
fn store() -> Vec<u8> {
    const GLOBAL: [u8; 16] = [0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0, 0xe0, 0x98, 3, 0x2b, 0x8c];
    const DATABASE: [u8; 16] =
        [0xcb, 0xb2, 0x19, 0xd7, 0x3a, 0x3d, 0x96, 0x45, 0xa3, 0xbc, 0xda, 0xd0, 0x0e, 0x67, 0x65, 0x6f];
    const SWITCH: [u8; 16] = [0xc7, 0x0b, 0xa3, 0xf0, 8, 0xaf, 0x56, 0x45, 0x99, 0xc4, 0, 0x10, 9, 0xc9, 0x3a, 0x44];
    const STORE: [u8; 16] =
        [0x78, 0x2c, 0xf3, 0xaa, 0x7b, 0x94, 0x9a, 0x43, 0xa1, 0x80, 0x2e, 0x14, 0x4e, 0xc3, 0x77, 0x92];
    let mut variables: Vec<u8> = Vec::new();
    for (vendor, name, contents) in
        [(GLOBAL, "PK", &b"key"[..]), (DATABASE, "db", b"list"), (SWITCH, "SecureBootEnable", &[1])]
    {
        let name: Vec<u8> = name.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
        variables.extend([0xaa, 0x55, 0x3f, 0]);
        variables.extend([0; 32]);
        variables.extend([name.len(), contents.len()].map(|length| [length as u8, 0, 0, 0]).concat());
        variables.extend(vendor);
        variables.extend(name);
        variables.extend(contents);
        variables.resize(variables.len().next_multiple_of(4), 0xff);
    }
    let mut volume = vec![0; 72];
    volume[40..44].copy_from_slice(b"_FVH");
    volume[48] = 72;
    volume.extend(STORE);
    volume.extend((28 + variables.len() as u32 + 4).to_le_bytes());
    volume.extend([0x5a, 0xfe, 0, 0, 0, 0, 0, 0]);
    volume.extend(variables);
    volume.extend([0xff; 4]);
    volume
}
