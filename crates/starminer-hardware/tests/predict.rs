//! Predictions from files, held against other implementations of the same formats, real logs, and hostile files.
#![allow(clippy::unwrap_used)]

#[path = "predict/builder.rs"]
mod builder;

use std::path::{Path, PathBuf};
use std::process::Command;

use builder::{FirmwareBuilder, SEV_METADATA, guid, pe};
use data_encoding::HEXLOWER;
use proptest::prelude::*;
use starminer_hardware::event_log::{Bank, EventLog, PcrValues, Variable};
use starminer_hardware::predict::pcr::{
    CALLING_BOOT_OPTION, PHASES, SEPARATOR, SecureBootVariables, UkiError, boot_programs, extend_all, secure_boot,
    unified_kernel_image,
};
use starminer_hardware::predict::snp::{
    CpuSignature, DEFAULT_GUEST_FEATURES, Guest, KernelHashes, Launch, LaunchError, MAX_VCPUS, Vmm,
};
use starminer_hardware::predict::tdx::{PageOrder, mrtd, rtmr1_of_direct_boot, rtmr2_of_direct_boot};
use starminer_hardware::predict::{Firmware, FirmwareError, PeError, PeImage};

/// Debian's package `ovmf`.
const OVMF: &str = "/usr/share/ovmf/OVMF.fd";

const KERNEL: &[u8] = b"a kernel";
const INITRD: &[u8] = b"an initrd";
const COMMAND_LINE: &str = "console=ttyS0 root=/dev/vda1";

fn launch_digest(
    image: &[u8],
    vcpus: u32,
    model: &str,
    vmm: Vmm,
    features: u64,
    kernel: Option<KernelHashes>,
) -> String {
    let firmware = Firmware::parse(image).unwrap();
    let cpu = CpuSignature::of_model(model).unwrap();
    let guest = Guest { firmware: &firmware, cpu, vmm, guest_features: features, kernel };
    HEXLOWER.encode(&Launch::new(&guest).unwrap().digest(vcpus).unwrap())
}

/// `sev-snp-measure` from PyPI, where `cargo xtask test` has put it or `STARMINER_SNP_MEASURE` says.
fn snp_measure() -> Option<PathBuf> {
    let installed =
        || Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("tools/sev-snp-measure/bin/sev-snp-measure");
    let path = std::env::var_os("STARMINER_SNP_MEASURE").map_or_else(installed, PathBuf::from);
    if !path.exists() {
        println!("SKIPPED: no {}; `cargo xtask test` installs it", path.display());
        return None;
    }
    Some(path)
}

/// Debian's firmware with a page for kernel hashes, which its own build has no use for: a section of plain memory is made one.
fn ovmf_with_kernel_hashes(image: &[u8]) -> Vec<u8> {
    let mut image = image.to_vec();
    let table = image.len() - 4096;
    let find = |image: &[u8], what: &[u8]| table + image[table..].windows(what.len()).position(|w| w == what).unwrap();
    let pointer = find(&image, &guid(SEV_METADATA)) - 2 - 4;
    let distance = u32::from_le_bytes(image[pointer..pointer + 4].try_into().unwrap()) as usize;
    let second = image.len() - distance + 16 + 12;
    let address = u32::from_le_bytes(image[second..second + 4].try_into().unwrap());
    image[second + 4..second + 8].copy_from_slice(&0x1000_u32.to_le_bytes());
    image[second + 8..second + 12].copy_from_slice(&0x10_u32.to_le_bytes());
    let hash_table = find(&image, &guid(builder::SEV_HASH_TABLE)) - 2 - 8;
    image[hash_table..hash_table + 4].copy_from_slice(&(address + 0xc00).to_le_bytes());
    image
}

#[test]
fn launch_digests_are_those_of_sev_snp_measure() {
    let Some(tool) = snp_measure() else { return };
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let (kernel, initrd) = (write("kernel", KERNEL), write("initrd", INITRD));
    let made = FirmwareBuilder::new().build();
    let mut images = vec![("made", made, true)];
    match std::fs::read(OVMF) {
        Ok(image) => {
            images.push(("debian with hashes", ovmf_with_kernel_hashes(&image), true));
            images.push(("debian", image, false));
        }
        Err(_) => println!("SKIPPED: no {OVMF}; `cargo xtask test` installs it"),
    }
    // vCPUs, model, hypervisor, features, and which of kernel, initrd and command line
    let cases = [
        (1, "EPYC-v4", Vmm::Qemu, 0x1, 0),
        (2, "EPYC-v4", Vmm::Qemu, 0x1, 0),
        (64, "EPYC-Milan", Vmm::Qemu, 0x1, 0),
        (3, "EPYC-Rome-v2", Vmm::Qemu, 0x21, 0),
        (4, "EPYC-Genoa-v1", Vmm::Ec2, 0x1, 0),
        (1, "EPYC-Turin", Vmm::Ec2, 0x1, 0),
        (2, "EPYC-IBPB", Vmm::Gce, 0x1, 0),
        (1, "EPYC", Vmm::Qemu, 0x1, 1),
        (4, "EPYC-Genoa", Vmm::Qemu, 0x1, 2),
        (8, "EPYC-Turin", Vmm::Qemu, 0x1, 3),
        (2, "EPYC-Milan-v2", Vmm::Gce, 0x1, 3),
    ];
    for (name, image, takes_hashes) in &images {
        let path = write("firmware", image);
        for (vcpus, model, vmm, features, parts) in cases {
            if parts > 0 && !takes_hashes {
                continue;
            }
            let mut command = Command::new(&tool);
            let vmm_type = if vmm == Vmm::Qemu { "QEMU" } else { vmm.name() };
            command.args(["--mode", "snp", "--vcpu-type", model, "--vmm-type", vmm_type]);
            command.arg(format!("--vcpus={vcpus}")).arg(format!("--guest-features={features:#x}"));
            command.arg("--ovmf").arg(&path);
            if parts > 0 {
                command.arg("--kernel").arg(&kernel);
            }
            if parts > 1 {
                command.arg("--initrd").arg(&initrd);
            }
            if parts > 2 {
                command.args(["--append", COMMAND_LINE]);
            }
            let output = command.output().unwrap();
            assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
            let theirs = String::from_utf8(output.stdout).unwrap();
            let command_line = if parts > 2 { COMMAND_LINE } else { "" };
            let hashes = (parts > 0).then(|| KernelHashes::of(KERNEL, (parts > 1).then_some(INITRD), command_line));
            let ours = launch_digest(image, vcpus, model, vmm, features, hashes);
            assert_eq!(ours, theirs.trim(), "{name}: {vcpus} {model} {vmm:?} {features:#x} {parts}");
        }
    }
}

/// What `sev-snp-measure` 0.0.13 says of the image that this file makes; so much is held also where the tool is not.
#[test]
fn a_launch_digest_that_does_not_change() {
    let image = FirmwareBuilder::new().build();
    let hashes = KernelHashes::of(KERNEL, Some(INITRD), COMMAND_LINE);
    assert_eq!(
        launch_digest(&image, 4, "EPYC-v4", Vmm::Qemu, DEFAULT_GUEST_FEATURES, Some(hashes)),
        "0847032326e88b6a88285ce76d7e538e1242259784de7d702312f1bddafbac771e88df2b4df7b99b901f07dc0ee0b1ee"
    );
}

#[test]
fn everything_that_a_launch_depends_on_shows_in_its_digest() {
    let image = FirmwareBuilder::new().build();
    let hashes = |kernel: &[u8], initrd, line| Some(KernelHashes::of(kernel, initrd, line));
    let usual = |image: &[u8]| launch_digest(image, 2, "EPYC-v4", Vmm::Qemu, 1, hashes(KERNEL, Some(INITRD), "a"));
    let mut all = vec![
        usual(&image),
        launch_digest(&image, 1, "EPYC-v4", Vmm::Qemu, 1, hashes(KERNEL, Some(INITRD), "a")),
        launch_digest(&image, 2, "EPYC-Milan", Vmm::Qemu, 1, hashes(KERNEL, Some(INITRD), "a")),
        launch_digest(&image, 2, "EPYC-v4", Vmm::Ec2, 1, hashes(KERNEL, Some(INITRD), "a")),
        launch_digest(&image, 2, "EPYC-v4", Vmm::Gce, 1, hashes(KERNEL, Some(INITRD), "a")),
        launch_digest(&image, 2, "EPYC-v4", Vmm::Qemu, 3, hashes(KERNEL, Some(INITRD), "a")),
        launch_digest(&image, 2, "EPYC-v4", Vmm::Qemu, 1, hashes(INITRD, Some(INITRD), "a")),
        launch_digest(&image, 2, "EPYC-v4", Vmm::Qemu, 1, hashes(KERNEL, None, "a")),
        launch_digest(&image, 2, "EPYC-v4", Vmm::Qemu, 1, hashes(KERNEL, Some(INITRD), "b")),
        launch_digest(&image, 2, "EPYC-v4", Vmm::Qemu, 1, None),
    ];
    for at in [0, 4095, 4096, image.len() - 1] {
        let mut changed = image.clone();
        changed[at] ^= 1;
        all.push(usual(&changed));
    }
    let mut other = FirmwareBuilder::new();
    other.reset = Some(0x0080_b008);
    all.push(usual(&other.build()));
    let different: std::collections::BTreeSet<_> = all.iter().collect();
    assert_eq!(different.len(), all.len());
}

#[test]
fn processors_have_signatures() {
    for (model, signature) in [
        ("EPYC-v4", Some(0x0080_0f12)),
        ("EPYC-Rome", Some(0x0083_0f10)),
        ("EPYC-Milan-v2", Some(0x00a0_0f11)),
        ("EPYC-Genoa-v1", Some(0x00a1_0f10)),
        ("EPYC-Turin", Some(0x00b0_0f00)),
        ("EPYC-", None),
        ("EPYC-v", None),
        ("EPYC-vx", None),
        ("epyc", None),
        ("Skylake-Server", None),
        ("", None),
    ] {
        assert_eq!(CpuSignature::of_model(model).map(|cpu| cpu.0), signature, "{model}");
    }
    assert!(CpuSignature::models().all(|model| CpuSignature::of_model(model).is_some()));
}

#[test]
fn launches_that_cannot_be_told() {
    let check = |change: &dyn Fn(&mut FirmwareBuilder), expected: LaunchError| {
        let mut builder = FirmwareBuilder::new();
        change(&mut builder);
        let image = builder.build();
        let firmware = Firmware::parse(&image).unwrap();
        let cpu = CpuSignature::of_model("EPYC-v4").unwrap();
        let kernel = Some(KernelHashes::of(KERNEL, None, ""));
        let guest = Guest { firmware: &firmware, cpu, vmm: Vmm::Qemu, guest_features: 1, kernel };
        assert_eq!(Launch::new(&guest).err(), Some(expected));
    };
    let malformed = LaunchError::Firmware(FirmwareError::Metadata("SEV"));
    let row = |row| move |builder: &mut FirmwareBuilder| builder.sev.as_mut().unwrap()[0] = row;
    check(&|b| b.reset = None, LaunchError::Firmware(FirmwareError::Missing("SEV-ES reset block")));
    check(&|b| b.sev = None, LaunchError::Firmware(FirmwareError::Missing("SEV metadata")));
    check(&|b| b.hash_table = None, LaunchError::NoKernelHashes);
    check(&|b| b.hash_table = Some(0), LaunchError::NoKernelHashes);
    check(&|b| b.sev.as_mut().unwrap().retain(|row| row.2 != 0x10), LaunchError::NoKernelHashes);
    // A table that would not end within its page.
    check(&|b| b.hash_table = Some(0x0081_0fa0), malformed);
    check(&row((0x80_0000, 0x9000, 5)), LaunchError::Firmware(FirmwareError::Section { which: "SEV", kind: 5 }));
    check(&row((0x80_0001, 0x9000, 1)), malformed);
    check(&row((0x80_0000, 0x9001, 1)), malformed);
    check(&row((0x80_0000, 0xffff_f000, 1)), malformed);
    check(&row((0x80_0000, 0x2000, 2)), malformed);
    check(&row((0x80_0000, 0, 3)), malformed);
    check(&row((0x80_0000, 0x2000, 0x10)), malformed);

    let image = FirmwareBuilder::new().build();
    let firmware = Firmware::parse(&image).unwrap();
    let cpu = CpuSignature(0);
    let launch =
        Launch::new(&Guest { firmware: &firmware, cpu, vmm: Vmm::Qemu, guest_features: 1, kernel: None }).unwrap();
    for vcpus in [0, MAX_VCPUS + 1, u32::MAX] {
        assert_eq!(launch.digest(vcpus), Err(LaunchError::Vcpus));
    }
    assert!(launch.digest(MAX_VCPUS).is_ok());
}

#[test]
fn no_firmware() {
    let image = FirmwareBuilder::new().build();
    let check = |bytes: &[u8], expected| assert_eq!(Firmware::parse(bytes).err(), Some(expected));
    check(&[], FirmwareError::Length);
    check(&image[1..], FirmwareError::Length);
    check(&vec![0; 64 << 20 | 4096], FirmwareError::Length);
    check(&vec![0; 4096], FirmwareError::NoTable);
    let table = image.len() - 32 - 18;
    for (at, bytes) in [(table, [17, 0]), (table, [0xff, 0xff]), (table - 18, [0xff, 0x7f]), (table - 18, [3, 0])] {
        let mut changed = image.clone();
        changed[at..at + 2].copy_from_slice(&bytes);
        check(&changed, FirmwareError::Table);
    }
    // One GUID twice: two readers could take two different entries.
    let mut twice = image.clone();
    let of_tdx = table - 16;
    let of_sev = of_tdx - 22;
    twice.copy_within(of_tdx..of_tdx + 16, of_sev);
    check(&twice, FirmwareError::Table);
}

/// Computed by an independent reading of Intel's specification, in Python.
#[test]
fn mrtd_of_an_image() {
    let check = |image: &[u8], order, expected: &str| {
        let firmware = Firmware::parse(image).unwrap();
        assert_eq!(HEXLOWER.encode(&mrtd(&firmware, order).unwrap()), expected);
    };
    let image = FirmwareBuilder::new().build();
    check(
        &image,
        PageOrder::PageByPage,
        "1dd2dabba84ed9e1ee52a2a64c075fefa25cee3f3035759a5e2ccf2c126cc4440730c0de52263bfc845888d57de8c02f",
    );
    check(
        &image,
        PageOrder::AddThenMeasure,
        "5bd07d6aa7a643af77c9d73ac0acbc001e12544f413e9f7f22835cf4ecad86e2f81b39ed1f309917568fa1865480b9f1",
    );
    // Variables are added, not measured; code is both.
    let mut variables = image.clone();
    variables[0] ^= 1;
    let of = |image: &[u8]| mrtd(&Firmware::parse(image).unwrap(), PageOrder::PageByPage).unwrap();
    assert_eq!(of(&variables), of(&image));
    let mut code = image.clone();
    code[0x1000] ^= 1;
    assert_ne!(of(&code), of(&image));
}

/// Likewise, of the firmware that Debian ships.
#[test]
fn mrtd_of_debian_s_firmware() {
    use aws_lc_rs::digest::{SHA256, digest};
    const MEASURED: &str = "7b456907dd0786d415999e801a1ac4637b8ed4d7cf5378cfc6edbe5e574dd773";
    let Ok(image) = std::fs::read(OVMF) else { return println!("SKIPPED: no {OVMF}") };
    let firmware = Firmware::parse(&image).unwrap();
    let names = firmware.tdx_sections().unwrap();
    assert!(names.iter().any(|section| section.measured), "{names:?}");
    let build = HEXLOWER.encode(digest(&SHA256, &image).as_ref());
    if build != MEASURED {
        return println!("SKIPPED: another build of {OVMF}: {build}");
    }
    let found = HEXLOWER.encode(&mrtd(&firmware, PageOrder::PageByPage).unwrap());
    assert_eq!(
        found,
        "4c7206f0f483c524f12c366c711e9049030a8d47c471ee5aa9c4999a08de4057fb887fed0744d5631a212967fb231c47"
    );
}

#[test]
fn tdx_metadata_that_is_refused() {
    let check = |row, expected| {
        let mut builder = FirmwareBuilder::new();
        builder.tdx.as_mut().unwrap()[0] = row;
        let image = builder.build();
        let firmware = Firmware::parse(&image).unwrap();
        assert_eq!(mrtd(&firmware, PageOrder::PageByPage).err(), Some(expected), "{row:?}");
    };
    let malformed = FirmwareError::Metadata("TDX");
    check((0x1000, 0x3000, 0xffff_d000, 0x3000, 7, 1), FirmwareError::Section { which: "TDX", kind: 7 });
    check((0x1000, 0x3000, 0xffff_d000, 0x3000, 0, 4), malformed); // an unknown attribute
    check((0x1000, 0x3000, 0xffff_d000, 0x3000, 0, 3), malformed); // measured, and not there
    check((0x1000, 0x2000, 0xffff_d000, 0x3000, 0, 1), malformed); // measured, and not all in the file
    check((0x2000, 0x3000, 0xffff_d000, 0x3000, 0, 1), malformed); // out of the file
    check((0xffff_ffff, 0x3000, 0xffff_d000, 0x3000, 0, 1), malformed);
    check((0x1000, 0x3000, 0xffff_d100, 0x3000, 0, 1), malformed);
    check((0, 0, 0x10_0000, 0x3001, 3, 0), malformed);
    check((0, 0, 0x10_0000, 1 << 40, 3, 0), malformed);
    check((0, 0, u64::MAX - 0xfff, 0x2000, 3, 0), malformed);
    let mut builder = FirmwareBuilder::new();
    builder.tdx = None;
    let image = builder.build();
    let found = mrtd(&Firmware::parse(&image).unwrap(), PageOrder::PageByPage);
    assert_eq!(found, Err(FirmwareError::Missing("TDX metadata")));
}

/// The registers computed by hand, in Python, over what `pesign` hashes.
#[test]
fn registers_of_a_direct_boot() {
    let file = pe(&[(".text", &[7; 700], 700), (".linux", b"kernel", 6)], b"trailing", b"certs...");
    let kernel = PeImage::parse(&file).unwrap();
    // pesign 0.112: pesign -h -i FILE
    let digest = kernel.authenticode(Bank::Sha256).to_hex();
    assert_eq!(digest, "edfdd43ea033ef1b1efb4b87d9fb7aa52888eab90254413f80bbfefd342f0f8c");
    assert_eq!(
        HEXLOWER.encode(&rtmr1_of_direct_boot(&kernel)),
        "21fa0d45597677b992c31cf804beffa3f0d710c1696791cfd68ca70bd5148353d0fa547d78938f237fc99607c52ae5f5"
    );
    assert_eq!(
        HEXLOWER.encode(&rtmr2_of_direct_boot(COMMAND_LINE, Some(INITRD))),
        "45f317799a81a260b0c4995e4e3451d429f0d04608a690237d295096a42632ec4619ee8a1e662f7c3be1d262e41908a1"
    );
    assert_ne!(rtmr2_of_direct_boot(COMMAND_LINE, None), rtmr2_of_direct_boot(COMMAND_LINE, Some(b"")));
}

#[test]
fn an_image_is_measured_without_its_signatures() {
    let sections: &[(&str, &[u8], usize)] = &[(".text", &[7; 700], 700), (".data", &[8; 512], 4096)];
    let of = |bytes: &[u8]| PeImage::parse(bytes).unwrap().authenticode(Bank::Sha256);
    let plain = pe(sections, b"", b"");
    assert_eq!(of(&plain), of(&pe(sections, b"", b"certificates")));
    assert_ne!(of(&plain), of(&pe(sections, b"trailing", b"")));
    let checksum = 0x98 + 64;
    for at in 0x98..plain.len() {
        let mut changed = plain.clone();
        changed[at] ^= 1;
        let Ok(image) = PeImage::parse(&changed) else { continue };
        let counts = !(checksum..checksum + 4).contains(&at) && !(0x98 + 112 + 32..0x98 + 112 + 40).contains(&at);
        assert_eq!(image.authenticode(Bank::Sha256) != of(&plain), counts, "byte {at:#x}");
    }
}

type Is = fn(&PeError) -> bool;

#[test]
fn no_images() {
    let file = pe(&[(".text", &[7; 700], 700), (".data", &[8; 512], 4096)], b"", b"certificates");
    let check = |at: usize, bytes: &[u8], expected: fn(&PeError) -> bool| {
        let mut changed = file.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        let error = PeImage::parse(&changed).unwrap_err();
        assert!(expected(&error), "{at:#x} {bytes:x?}: {error:?}");
    };
    let (optional, first) = (0x98, 0x98 + 240);
    let (malformed, sections, certificates): (Is, Is, Is) = (
        |error| matches!(error, PeError::Malformed(_)),
        |error| *error == PeError::Sections,
        |error| *error == PeError::Certificates,
    );
    check(0, b"ZM", malformed);
    check(0x3c, &[0xff; 4], malformed);
    check(0x80, b"NE", malformed);
    check(0x86, &[97, 0], malformed); // sections
    check(0x94, &[0, 0], malformed); // no optional header
    check(optional, &[0x07, 0x01], malformed); // a ROM image
    check(optional + 60, &[0, 1, 0, 0], malformed); // headers end before their tables
    check(optional + 60, &[0xff; 4], malformed);
    check(first + 20, &[0, 0, 0, 0], sections); // within the headers
    check(first + 20, &[0xff; 4], sections);
    check(first + 16, &[0xff; 4], sections);
    check(first + 40 + 20, &[0, 6, 0, 0], sections); // over the first
    check(optional + 112 + 32, &[0, 0, 0, 0], certificates);
    check(optional + 112 + 36, &[0xff; 4], certificates);
    for length in 0..file.len() {
        assert!(PeImage::parse(&file[..length]).is_err(), "{length} bytes");
    }
}

/// systemd-measure 252: `systemd-measure calculate --linux=k --osrel=o --cmdline=c --initrd=i`.
#[test]
fn register_11_is_that_of_systemd_measure() {
    let sections: &[(&str, &[u8], usize)] = &[
        (".text", &[7; 700], 700),
        (".initrd", b"in", 2),
        (".osrel", b"osrel", 5),
        (".cmdline", b"a b", 3),
        (".pcrsig", b"not measured", 12),
        (".linux", b"kernel", 6),
    ];
    let file = pe(sections, b"", b"");
    let image = PeImage::parse(&file).unwrap();
    for (phases, expected) in [
        (1, "8887565df48e0e2c5d9e2f603b052cd711e9d4de174ab8bac1ad90c405bc8422"),
        (2, "ddc164d3bab9927bc9b18a50d1cc9fd42c669101fcdb60195167f310bdb2fd98"),
        (3, "73aaf94c1b55f05239e8c7c215b34c0b6dc046929584e5710d9667f605d163b2"),
        (4, "2bb5c20d9f3f6b703eedeba301f1804f48fff78de0d5d05271284ddf572f9005"),
    ] {
        assert_eq!(unified_kernel_image(Bank::Sha256, &image, &PHASES[..phases]).unwrap().to_hex(), expected);
    }
    assert_eq!(
        unified_kernel_image(Bank::Sha384, &image, &PHASES).unwrap().to_hex(),
        "bb54f500632ef218f0ff629d3276b959042837b71c90ceab9b149d33fbcdd65153f2fc838d22d82a43a877ecce393cd3"
    );
    // Zeroes that memory has behind a section are measured with it, the file's padding is not.
    let with = |contents: &[u8], memory_bytes| {
        let file = pe(&[(".linux", contents, memory_bytes)], b"", b"");
        unified_kernel_image(Bank::Sha256, &PeImage::parse(&file).unwrap(), &[])
    };
    assert_eq!(with(b"kernel", 4999), with(&[&b"kernel"[..], &[0; 4993]].concat(), 4999));
    assert_ne!(with(b"kernel", 6), with(b"kernel", 7));
    assert_eq!(with(b"kernel", u32::MAX as usize), Err(UkiError::TooLarge(".linux")));
    let of = |sections: &[(&str, &[u8], usize)]| {
        let file = pe(sections, b"", b"");
        unified_kernel_image(Bank::Sha256, &PeImage::parse(&file).unwrap(), &[]).unwrap_err()
    };
    assert_eq!(of(&[(".text", b"x", 1)]), UkiError::NoKernel);
    assert_eq!(of(&[(".linux", b"x", 1), (".linux", b"y", 1)]), UkiError::Twice(".linux"));
    assert_eq!(of(&[(".linux", b"x", 1), (".cmdline", b"x", 1), (".cmdline", b"y", 1)]), UkiError::Twice(".cmdline"));
    assert_eq!(of(&[(".linux", b"x", 1), (".profile", b"x", 1)]), UkiError::Chosen(".profile"));
}

/// Stubs before 254 carry `.sbat` and do not measure it; a machine started from Debian 12's shows it.
#[test]
fn an_older_stub_measures_fewer_sections() {
    let register = |magic: &[u8], more: &[(&str, &[u8], usize)]| {
        let magic = (".sdmagic", magic, magic.len());
        let file = pe(&[&[magic, (".linux", b"kernel", 6)], more].concat(), b"", b"");
        unified_kernel_image(Bank::Sha256, &PeImage::parse(&file).unwrap(), &[]).unwrap()
    };
    let more: &[(&str, &[u8], usize)] = &[(".sbat", b"sbat", 4), (".uname", b"6.1", 3)];
    let old = b"#### LoaderInfo: systemd-stub 252.39-1~deb12u2 ####\0";
    let new = b"#### LoaderInfo: systemd-stub 254 ####\0";
    assert_eq!(register(old, more), register(old, &[]));
    assert_eq!(register(old, &[]), register(new, &[]));
    assert_ne!(register(new, more), register(new, &[]));
    // What says no version is taken for recent.
    assert_eq!(register(b"#### LoaderInfo: systemd-stub ####", more), register(new, more));
}

/// A log of a real machine, and the values that it leads to.
fn real_log(name: &str) -> Option<(Vec<u8>, PcrValues)> {
    let root = std::env::var_os("STARMINER_VECTORS")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors"), PathBuf::from);
    let read = |name: &str| std::fs::read(root.join("eventlog").join(name));
    let (Ok(log), Ok(expected)) = (read(name), read("expected.json")) else {
        println!("skipped: no vectors at {}", root.display());
        return None;
    };
    let expected: serde_json::Value = serde_json::from_slice(&expected).unwrap();
    Some((log, serde_json::from_value(expected[name]["pcrs"].clone()).unwrap()))
}

/// Firmware of real machines puts into register 4 what is put there here, and register 7 follows from the variables that its log shows.
#[test]
fn registers_4_and_7_of_real_machines() {
    for name in [
        "debian-10.bin",
        "keylime_secureboot_on.bin",
        "rhel8-uefi.bin",
        "ubuntu-2104-no-secure-boot.bin",
        "ubuntu-2404-amd-sevsnp.bin",
    ] {
        let Some((bytes, expected)) = real_log(name) else { return };
        let log = EventLog::parse(&bytes).unwrap();
        for bank in log.banks().iter().copied() {
            let of = |register| log.events().filter(move |event| event.register == register && event.extends());
            let marks = [CALLING_BOOT_OPTION, SEPARATOR].map(|mark| bank.hash(&[mark]));
            let programs = of(4).skip(2).map(|event| event.owned_digest(bank).unwrap());
            let four = extend_all(bank, &marks.into_iter().chain(programs).collect::<Vec<_>>());
            assert_eq!(Some(&four), expected.value(bank, 4), "{name} {bank:?}");

            let held: Vec<_> = of(7).filter_map(|event| Variable::parse(event.data)).collect();
            let contents = |name: &str| held.iter().find(|variable| variable.name == name).unwrap().contents;
            let variables = SecureBootVariables {
                secure_boot: contents("SecureBoot"),
                pk: contents("PK"),
                kek: contents("KEK"),
                db: contents("db"),
                dbx: contents("dbx"),
            };
            if name == "debian-10.bin" {
                // Its shim logs an authority with bytes behind it, and measures neither with nor without them.
                continue;
            }
            let seven = secure_boot(bank, &variables, &held[5..]);
            assert_eq!(Some(&seven), expected.value(bank, 7), "{name} {bank:?}");
            assert_ne!(Some(&secure_boot(bank, &variables, &[])), expected.value(bank, 7), "{name} {bank:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever a file says of itself, it is measured or refused.
    #[test]
    fn hostile_files_do_no_harm(seed in any::<u64>(), changes in prop::collection::vec((any::<u16>(), any::<u8>()), 1..12)) {
        let firmware = FirmwareBuilder::new().build();
        let image = pe(&[(".text", &[7; 700], 700), (".linux", b"kernel", 6), (".osrel", b"o", 1)], b"x", b"certs");
        let mut changed_firmware = firmware.clone();
        let mut changed_image = image.clone();
        for (at, value) in &changes {
            // Metadata and table stand in the last half page of the image; headers in the first half page of a program.
            let at = usize::from(*at);
            changed_firmware[firmware.len() - 1 - at % 2048] = *value;
            let place = if seed % 2 == 0 { at % 0x300 } else { at % image.len() };
            changed_image[place] = *value;
        }
        if let Ok(firmware) = Firmware::parse(&changed_firmware) {
            let kernel = Some(KernelHashes::of(KERNEL, None, ""));
            let guest =
                Guest { firmware: &firmware, cpu: CpuSignature(0), vmm: Vmm::Qemu, guest_features: 1, kernel };
            let _ = Launch::new(&guest).map(|launch| launch.digest(1));
            let _ = mrtd(&firmware, PageOrder::AddThenMeasure);
        }
        if let Ok(image) = PeImage::parse(&changed_image) {
            let _ = boot_programs(Bank::Sha256, &[&image]);
            let _ = unified_kernel_image(Bank::Sha256, &image, &PHASES);
        }
    }
}
