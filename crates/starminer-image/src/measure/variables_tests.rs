#![allow(clippy::unwrap_used)]

use super::*;

const OTHER: Guid = Guid::new(1, 2, 3, [4; 8]);

fn variable(vendor: Guid, name: &str, state: u8, data: &[u8]) -> Vec<u8> {
    let name: Vec<u8> = name.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
    let mut bytes = vec![0xaa, 0x55, state, 0];
    bytes.extend([0; 32]);
    bytes.extend(u32::try_from(name.len()).unwrap().to_le_bytes());
    bytes.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
    bytes.extend(vendor.0);
    bytes.extend(name);
    bytes.extend(data);
    bytes.resize(bytes.len().next_multiple_of(4), 0xff);
    bytes
}

fn store(variables: &[Vec<u8>]) -> Vec<u8> {
    let mut volume = vec![0; 72];
    volume[40..44].copy_from_slice(b"_FVH");
    volume[48] = 72;
    let body = variables.concat();
    let size = STORE_HEADER_BYTES + body.len() + 64;
    volume.extend(AUTHENTICATED.0);
    volume.extend(u32::try_from(size).unwrap().to_le_bytes());
    volume.extend([FORMATTED, HEALTHY, 0, 0, 0, 0, 0, 0]);
    volume.extend(body);
    volume.resize(72 + size, 0xff);
    volume
}

#[test]
fn variables_that_are_in_force_count() {
    let volume = store(&[
        variable(OTHER, "a", BEING_REPLACED, b"old"),
        variable(OTHER, "a", ADDED, b"new"),
        variable(OTHER, "b", BEING_REPLACED, b"left"),
        variable(OTHER, "c", 0x3c, b"deleted"),
        variable(Guid::GLOBAL_VARIABLE, "a", ADDED, b"another's"),
    ]);
    let variables = Variables::parse(&volume).unwrap();
    for (name, contents) in [("a", &b"new"[..]), ("b", b"left"), ("c", b""), ("d", b"")] {
        assert_eq!(variables.contents(OTHER, name), contents, "{name}");
    }
}

#[test]
fn without_keys_or_switched_off_it_is_off() {
    let pk = variable(Guid::GLOBAL_VARIABLE, "PK", ADDED, b"key");
    let on = variable(SECURE_BOOT_ENABLE, "SecureBootEnable", ADDED, &[1]);
    let off = variable(SECURE_BOOT_ENABLE, "SecureBootEnable", ADDED, &[0]);
    for variables in [vec![], vec![pk.clone()], vec![on.clone()], vec![pk.clone(), off]] {
        let variables = Variables::parse(&store(&variables)).unwrap();
        assert!(matches!(variables.secure_boot(), Err(VariablesError::Off)));
    }
    let variables = Variables::parse(&store(&[pk, on])).unwrap();
    assert_eq!(variables.secure_boot().unwrap().pk, b"key");
}

/// Every prefix of a store, and every one with a byte changed, is refused or read, and that is all.
#[test]
fn damaged_stores_are_read_without_harm() {
    let volume = store(&[variable(OTHER, "a", ADDED, b"new"), variable(OTHER, "b", ADDED, b"c")]);
    for length in 0..volume.len() {
        assert!(Variables::parse(&volume[..length]).is_err(), "{length} bytes of it");
    }
    for at in 0..volume.len() {
        for byte in [0, 0x7f, 0xff] {
            let mut damaged = volume.clone();
            damaged[at] = byte;
            let _ = Variables::parse(&damaged);
        }
    }
}
