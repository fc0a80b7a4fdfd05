//! The image as other programs read it, and what is refused. That firmware starts it is tested where there is a machine: `starminer/tests/image`.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use data_encoding::BASE64;
use starminer_hardware::event_log::Bank;
use starminer_hardware::predict::{PeImage, pcr::unified_kernel_image};
use starminer_hardware::tpm::approval::{ApprovalSigner, Approvals, disk_reference, policy_of_register};
use starminer_image::uki::{StubError, assemble};
use starminer_image::{ImageError, Inputs, Policy, build};

const STUB: &str = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub";

/// systemd's stub, or `None`, said loudly.
fn stub() -> Option<Vec<u8>> {
    let stub = fs::read(STUB).ok();
    if stub.is_none() {
        println!("skipped: {STUB} is missing (Debian: systemd-boot-efi)");
    }
    stub
}

/// The header of a program for x86-64 that has nothing to load.
fn empty_program(kind: u8) -> Vec<u8> {
    let mut bytes = vec![0; 64];
    bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    (bytes[16], bytes[18], bytes[20], bytes[52], bytes[54], bytes[58]) = (kind, 62, 1, 64, 56, 64);
    bytes
}

/// Inputs in a directory; the kernel is any bytes, because nothing here starts it.
fn inputs(dir: &Path) -> Inputs {
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    Inputs {
        stub: PathBuf::from(STUB),
        kernel: write("vmlinuz", &[0x90; 70_001]),
        modules_dir: dir.into(),
        modules: Vec::new(),
        init: write("init", &empty_program(2)),
        agent: write("agent", &[empty_program(2), vec![0x61; 9_999]].concat()),
        disk_programs: Vec::new(),
        policy: None,
        os_release: "ID=starminer\n".into(),
        command_line: "quiet".into(),
    }
}

#[test]
fn objcopy_finds_what_was_put_in() {
    let Some(stub) = stub() else { return };
    if Command::new("objcopy").arg("--version").stdout(Stdio::null()).status().is_err() {
        println!("skipped: objcopy is not installed (Debian: binutils)");
        return;
    }
    let contents =
        [(".osrel", vec![1; 1]), (".cmdline", vec![2; 512]), (".initrd", vec![3; 100_000]), (".linux", vec![4; 4_097])];
    let sections: Vec<(&'static str, &[u8])> = contents.iter().map(|(name, held)| (*name, held.as_slice())).collect();
    let image = assemble(&stub, &sections).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image.efi");
    fs::write(&path, &image).unwrap();
    for (name, held) in &contents {
        let out = dir.path().join("section");
        let done = Command::new("objcopy")
            .args(["-O", "binary", "--only-section", name, "--set-section-flags"])
            .arg(format!("{name}=alloc,load,contents"))
            .args([&path, &out])
            .output()
            .unwrap();
        assert!(done.status.success(), "{done:?}");
        assert!(fs::read(&out).unwrap() == *held, "{name} differs");
    }
    // The stub's own sections are as they were.
    let (before, after) = (PeImage::parse(&stub).unwrap(), PeImage::parse(&image).unwrap());
    for (old, new) in before.sections().iter().zip(after.sections()) {
        assert_eq!((old.name(), old.contents()), (new.name(), new.contents()));
    }
    assert_eq!(after.sections().len(), before.sections().len() + 4);
}

#[test]
fn no_stub_is_taken_that_the_sections_would_break() {
    let Some(stub) = stub() else { return };
    let sections: [(&'static str, &[u8]); 1] = [(".linux", b"kernel")];
    let check = |what: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let mut changed = stub.clone();
        change(&mut changed);
        let refused = assemble(&changed, &sections);
        assert!(refused.is_err(), "{what}");
        refused.unwrap_err()
    };
    let header = usize::try_from(u32::from_le_bytes(*stub[0x3c..].first_chunk().unwrap())).unwrap();
    check("empty", &Vec::clear);
    check("cut", &|bytes| bytes.truncate(header + 60));
    check("sections cut off", &|bytes| bytes.truncate(4096));
    check("no MZ", &|bytes| bytes[0] = 0);
    check("header beyond the end", &|bytes| bytes[0x3f] = 0xff);
    check("another machine", &|bytes| bytes[header + 4] ^= 1);
    check("alignment of 3", &|bytes| bytes[header + 24 + 32] = 3);
    let signed = check("signed", &|bytes| bytes[header + 24 + 112 + 4 * 8 + 4] = 8);
    assert_eq!(signed, StubError::Signed);
    let no_room = check("headers end at once", &|bytes| bytes[header + 24 + 60..][..4].copy_from_slice(&[0, 2, 0, 0]));
    assert_eq!(no_room, StubError::NoRoom);
    let once = assemble(&stub, &sections).unwrap();
    assert_eq!(assemble(&once, &sections), Err(StubError::Present(".linux")));
}

#[test]
fn the_same_inputs_give_the_same_image_and_others_another() {
    if stub().is_none() {
        return;
    }
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [first, second] = dirs.each_ref().map(|dir| build(&inputs(dir.path())).unwrap());
    assert!(first.bytes == second.bytes);
    assert_eq!(first.manifest, second.manifest);
    let section = |image: &starminer_image::Image, name: &str| {
        image.manifest.sections.iter().find(|section| section.name == name).unwrap().sha256.clone()
    };
    let inputs = inputs(dirs[0].path());
    for (path, changed_section) in [(&inputs.kernel, ".linux"), (&inputs.init, ".initrd"), (&inputs.agent, ".initrd")] {
        let original = fs::read(path).unwrap();
        // The last byte: of a program, behind its headers.
        let mut changed = original.clone();
        changed.push(1);
        fs::write(path, &changed).unwrap();
        let other = build(&inputs).unwrap();
        fs::write(path, &original).unwrap();
        assert_ne!(other.manifest.authenticode_sha256, first.manifest.authenticode_sha256, "{changed_section}");
        for name in [".osrel", ".cmdline", ".initrd", ".linux"] {
            assert_eq!(section(&other, name) != section(&first, name), name == changed_section, "{name}");
        }
    }
}

#[test]
fn what_would_not_start_is_not_built() {
    if stub().is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let good = inputs(dir.path());
    build(&good).unwrap();
    let code = |change: &dyn Fn(&mut Inputs)| {
        let mut inputs = good.clone();
        change(&mut inputs);
        build(&inputs).unwrap_err().code()
    };
    // This test is a dynamic program, as programs are unless somebody takes care.
    assert_eq!(code(&|inputs| inputs.agent = std::env::current_exe().unwrap()), "image.program");
    assert_eq!(code(&|inputs| inputs.init = inputs.kernel.clone()), "image.program");
    fs::write(dir.path().join("object"), empty_program(1)).unwrap();
    assert_eq!(code(&|inputs| inputs.init = dir.path().join("object")), "image.program");
    assert_eq!(code(&|inputs| inputs.kernel = dir.path().join("none")), "image.file");
    assert_eq!(code(&|inputs| inputs.stub = inputs.kernel.clone()), "image.stub-version");
    fs::write(dir.path().join("stub"), "#### LoaderInfo: systemd-stub 252.39 ####").unwrap();
    assert_eq!(code(&|inputs| inputs.stub = dir.path().join("stub")), "image.stub");
    assert_eq!(code(&|inputs| inputs.modules = vec!["virtio_net".into()]), "image.no-module");
    assert_eq!(code(&|inputs| inputs.disk_programs = vec![dir.path().join("none")]), "image.file");
    assert_eq!(code(&|inputs| inputs.disk_programs = vec![inputs.kernel.clone()]), "image.program");
    let policy = |key: &str, security_version| Some(Policy { key: dir.path().join(key), security_version });
    fs::write(dir.path().join("no.key"), "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").unwrap();
    assert_eq!(code(&|inputs| inputs.policy = policy("no.key", 0)), "image.policy-key");
    assert_eq!(code(&|inputs| inputs.policy = policy("vmlinuz", 0)), "image.policy-key");
    assert_eq!(code(&|inputs| inputs.policy = policy("none", 0)), "image.file");
    assert_eq!(code(&|inputs| inputs.policy = policy("no.key", 256)), "image.policy-key");
    fs::write(dir.path().join("broken.ko"), b"no module").unwrap();
    assert_eq!(code(&|inputs| inputs.modules = vec!["broken".into()]), "image.module");
    assert_eq!(code(&|inputs| inputs.command_line = "quiet\ninit=/bin/sh".into()), "image.command-line");
}

/// A program with whatever it needs, and no library twice.
#[test]
fn linked_programs_come_with_their_libraries() {
    if stub().is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut inputs = inputs(dir.path());
    // This test is one.
    let this = std::env::current_exe().unwrap();
    inputs.disk_programs = vec![this.clone(), this];
    let manifest = build(&inputs).unwrap().manifest;
    let files = |role: &str| -> Vec<String> {
        manifest.inputs.iter().filter(|input| input.role == role).map(|input| input.file.clone()).collect()
    };
    assert_eq!(files("disk-program").len(), 1);
    let mut libraries = files("library");
    libraries.sort();
    let listed = Command::new("ldd").arg(std::env::current_exe().unwrap()).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let mut wanted: Vec<String> = listed
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(|path| path.rsplit('/').next().unwrap().to_owned())
        .collect();
    wanted.sort();
    assert_eq!(libraries, wanted, "{listed}");
}

#[test]
fn an_approval_is_over_what_is_measured_and_is_not_measured() {
    if stub().is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap().to_pkcs8v1().unwrap();
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", BASE64.encode(key.as_ref()));
    fs::write(dir.path().join("policy.key"), pem).unwrap();
    let mut inputs = inputs(dir.path());
    let plain = build(&inputs).unwrap();
    assert!(plain.manifest.sections.iter().all(|section| section.name != ".pcrsig"));
    inputs.policy = Some(Policy { key: dir.path().join("policy.key"), security_version: 2 });
    let [first, second] = [0, 1].map(|_| build(&inputs).unwrap());
    let register = |image: &starminer_image::Image| -> [u8; 32] {
        let image = PeImage::parse(&image.bytes).unwrap();
        unified_kernel_image(Bank::Sha256, &image, &[]).unwrap().as_bytes().try_into().unwrap()
    };
    // The key is in the image, and is measured; the approvals are not.
    assert_ne!(register(&plain), register(&first));
    assert_eq!(register(&first), register(&second));
    for (one, other) in first.manifest.sections.iter().zip(&second.manifest.sections) {
        assert_eq!(one == other, one.name != ".pcrsig", "{}", one.name);
    }
    let signer = ApprovalSigner::from_pkcs8(key.as_ref()).unwrap();
    let image = PeImage::parse(&first.bytes).unwrap();
    let section = image.sections().iter().find(|section| section.name() == b".pcrsig").unwrap();
    let approvals = Approvals::parse(section.contents()).unwrap();
    let policy = policy_of_register(11, &register(&first));
    for version in 0..=2 {
        assert!(signer.key().approves(&policy, &disk_reference(version), approvals.of(version).unwrap()));
        assert!(!signer.key().approves(&policy, &disk_reference(version + 1), approvals.of(version).unwrap()));
    }
    assert!(approvals.of(3).is_none());
    assert_eq!(first.manifest.security_version, Some(2));
}

#[test]
fn signing_says_what_is_wrong() {
    if Command::new("sbsign").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        println!("skipped: sbsign is not installed (Debian: sbsigntool)");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("image"), b"no image").unwrap();
    let error = starminer_image::sign(&path("image"), &path("key"), &path("certificate"), &path("out")).unwrap_err();
    assert!(matches!(error, ImageError::NotSigned(_)), "{error}");
}
