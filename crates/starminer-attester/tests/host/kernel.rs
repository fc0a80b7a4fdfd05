//! Lockdown, Secure Boot, module signing.

use super::tree::{StandIn, check_file};
use starminer_verify::HostMeasure::{KernelLockdown, ModulesSigned, SecureBoot};
use starminer_verify::PostureState::{Absent, InForce, NotChecked};

#[test]
fn lockdown() {
    let path = "sys/kernel/security/lockdown";
    for (contents, state) in [
        ("[none] integrity confidentiality\n", Absent),
        ("none [integrity] confidentiality\n", InForce),
        ("none integrity [confidentiality]\n", InForce),
        ("none integrity confidentiality\n", NotChecked),
        ("[none] [integrity] confidentiality\n", NotChecked),
        ("[integrity\n", NotChecked),
        ("", NotChecked),
        ("none [integrity] confidentiality\0", NotChecked),
        ("[integrity]\0", NotChecked),
    ] {
        check_file(&[KernelLockdown], path, contents.as_bytes(), state);
    }
    let without = StandIn::new().file("sys/kernel/security/lsm", "capability,yama");
    without.check(KernelLockdown, Absent, "capability,yama");
    // There is one, and it cannot be read: that the list of modules can be says nothing.
    StandIn::new().file("sys/kernel/security/lsm", "capability,yama").file(path, [b'x'; 70_000]).check(
        KernelLockdown,
        NotChecked,
        "",
    );
}

#[test]
fn secure_boot() {
    const VARIABLES: [&str; 3] = [
        "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c",
        "sys/firmware/efi/efivars/SetupMode-8be4df61-93ca-11d2-aa0d-00e098032b8c",
        "sys/firmware/efi/efivars/MokSBStateRT-605dab50-e046-4300-abb6-3dd810dd8b23",
    ];
    let one = b"\x06\0\0\0\x01".as_slice();
    let zero = b"\x06\0\0\0\0".as_slice();
    for (contents, state, says) in [
        ([Some(one), Some(zero), None], InForce, "SecureBoot = 1"),
        ([Some(one), Some(zero), Some(zero)], InForce, "SecureBoot = 1"),
        ([Some(zero), Some(zero), None], Absent, "SecureBoot = 0"),
        ([Some(zero), None, None], Absent, "SecureBoot = 0"),
        ([Some(one), Some(one), None], Absent, "SetupMode"),
        ([None, Some(one), None], Absent, "SetupMode"),
        ([Some(one), Some(zero), Some(one)], Absent, "shim"),
        ([Some(one), Some(zero), Some(b"\x06\0\0\0\x02")], Absent, "shim"),
        ([Some(one), Some(zero), Some(b"")], NotChecked, "MokSBState"),
        ([Some(one), None, None], NotChecked, ""),
        ([None, Some(zero), None], NotChecked, ""),
        ([Some(b"\x01"), Some(zero), None], NotChecked, ""),
        ([Some(b"\x06\0\0\0\x01\0"), Some(zero), None], NotChecked, ""),
        ([Some(b"\x06\0\0\0\x02"), Some(zero), None], NotChecked, ""),
        ([Some(one), Some(b"\x06\0\0\0\x02"), None], NotChecked, ""),
        ([Some(&[1; 100_000]), Some(zero), None], NotChecked, ""),
    ] {
        let mut tree = StandIn::new().folder("sys/firmware/efi/efivars");
        for (path, contents) in VARIABLES.iter().zip(contents) {
            if let Some(contents) = contents {
                tree = tree.file(path, contents);
            }
        }
        tree.check(SecureBoot, state, says);
    }
    StandIn::new().folder("sys/firmware/acpi").check(SecureBoot, Absent, "not started by UEFI");
    // efivarfs is not mounted.
    StandIn::new().folder("sys/firmware/efi/efivars").check(SecureBoot, NotChecked, "");
    StandIn::new().folder("sys").check(SecureBoot, NotChecked, "");
}

#[test]
fn modules() {
    let enforce = "sys/module/module/parameters/sig_enforce";
    let disabled = "proc/sys/kernel/modules_disabled";
    let tainted = "proc/sys/kernel/tainted";
    for (files, state, says) in [
        (&[(tainted, "0\n"), (enforce, "Y\n"), (disabled, "0\n")][..], InForce, "sig_enforce = Y"),
        (&[(tainted, "0\n"), (enforce, "Y\n")], InForce, ""),
        (&[(tainted, "4096\n"), (enforce, "Y\n")], InForce, ""),
        (&[(tainted, "0\n"), (enforce, "N\n"), (disabled, "1\n")], InForce, "modules_disabled"),
        (&[(tainted, "0\n"), (disabled, "1\n")], InForce, ""),
        (&[(tainted, "8192\n"), (enforce, "Y\n")], Absent, "tainted = 8192"),
        (&[(tainted, "12289\n"), (enforce, "N\n"), (disabled, "1\n")], Absent, "unsigned"),
        (&[(tainted, "0\n"), (enforce, "N\n"), (disabled, "0\n")], Absent, "sig_enforce = N"),
        (&[(tainted, "0\n"), (disabled, "0\n")], Absent, "no sig_enforce"),
        (&[(tainted, "0\n"), (enforce, "N\n")], NotChecked, ""),
        (&[(tainted, "0\n"), (enforce, "yes\n"), (disabled, "0\n")], NotChecked, ""),
        (&[(enforce, "Y\n"), (disabled, "1\n")], NotChecked, "tainted"),
        (&[(tainted, "-1\n"), (enforce, "Y\n")], NotChecked, "tainted"),
        (&[(tainted, "0\n")], NotChecked, ""),
    ] {
        StandIn::new().files(files).check(ModulesSigned, state, says);
    }
}
