#![allow(clippy::unwrap_used)]

use std::fs;

use proptest::prelude::*;

use super::*;

/// Of Debian's package `ovmf`.
const OVMF: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
/// Its second volume, by the log of a machine that started with it.
const DXE: &str = "82a0445201cb49945461acc6ed78426700fb7e92819862edc55ba3ad4559b135";
/// Its first volume as machines had it in memory: mebibytes, processors, SHA-256.
const SEEN: [(u32, u32, &str); 4] = [
    (1024, 2, "1b5f687967cdecbff633092cc7a5987755197401d8978a9300802fa2bd36b2c3"),
    (2048, 1, "4c021933a6f530fb027434476cf80cddade4eb63f7334fa380baf53c4c25ca48"),
    (3072, 8, "909940fa767d736bc0a5d07fda6a8622cfa95ef215435a8e8c4ab2da24586ec8"),
    (4096, 4, "209a142d6b9fdfac60a61e23b52f872d35db6702bb7b428b1c1e665bd25bb3be"),
];

/// The firmware, where it is installed in the version that is known.
fn ovmf() -> Option<Volumes> {
    let found = fs::read(OVMF).ok().map(|image| Volumes::parse(&image).unwrap());
    let found = found.filter(|volumes| volumes.dxe().to_hex() == DXE);
    if found.is_none() {
        eprintln!("skipped: {OVMF} is not there, or of another version");
    }
    found
}

#[test]
fn volumes_are_measured_as_machines_had_them() {
    let Some(volumes) = ovmf() else { return };
    for (memory_mib, vcpus, pei) in SEEN {
        let events = volumes.events(Machine { memory_mib, vcpus }).unwrap();
        assert_eq!(events[1].to_hex(), pei, "{memory_mib} MiB, {vcpus} processors");
        assert_eq!(events[2].to_hex(), DXE);
    }
}

#[test]
fn machines_and_builds_that_are_not_known_are_not_told() {
    let Some(mut volumes) = ovmf() else { return };
    for (memory_mib, vcpus) in [(0, 1), (511, 1), (2049, 1), (2815, 1), (30721, 1), (1024, 0), (1024, 65)] {
        let told = volumes.events(Machine { memory_mib, vcpus });
        assert_eq!(told, Err(FirmwareError::Machine { memory_mib, vcpus }));
    }
    volumes.pei[4096] ^= 1;
    let told = volumes.events(Machine { memory_mib: 1024, vcpus: 2 });
    assert!(matches!(told, Err(FirmwareError::Unknown { .. })), "{told:?}");
}

#[test]
fn what_is_no_firmware_is_refused() {
    for image in [&b""[..], &[0; 64], &[0xff; 4096], b"_FVH"] {
        assert!(matches!(Volumes::parse(image), Err(FirmwareError::Malformed(_))));
    }
    let Ok(image) = fs::read(OVMF) else { return };
    for length in [64, 4096, image.len() / 4] {
        assert!(Volumes::parse(&image[..length]).is_err(), "{length} bytes of it");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Damage leads to an error or to other volumes, never further.
    #[test]
    fn damaged_headers_are_read_without_harm(at in 0_usize..256, byte: u8) {
        if let Ok(mut image) = fs::read(OVMF) {
            image[at] = byte;
            let _ = Volumes::parse(&image);
        }
    }
}
