//! Keys of encrypted disks: in files, and what those lie on.

use super::tree::StandIn;
use starminer_verify::HostMeasure::DiskKeysGuarded;
use starminer_verify::PostureState::{self, Absent, InForce, NotChecked};

/// The root on a bare disk, /safe on one that is encrypted, /run in memory.
fn machine() -> StandIn {
    let table = "29 1 8:0 / / rw - ext4 /dev/sda rw\n\
                 30 29 253:0 / /safe rw - ext4 /dev/mapper/safe rw\n\
                 31 29 0:22 / /run rw - ramfs none rw\n\
                 32 29 0:60 / /net rw - nfs4 host:/x rw\n";
    StandIn::new()
        .file("proc/self/mountinfo", table)
        .file("proc/cmdline", "root=/dev/sda quiet\n")
        .folder("etc")
        .file("sys/devices/virtual/block/sda/size", "1")
        .link("sys/dev/block/8:0", "../../devices/virtual/block/sda")
        .file("sys/devices/virtual/block/dm-0/dm/uuid", "CRYPT-LUKS2-1-safe\n")
        .link("sys/dev/block/253:0", "../../devices/virtual/block/dm-0")
        .files(&[("root/key", "k"), ("safe/key", "k"), ("run/key", "k"), ("net/key", "k")])
}

#[test]
fn a_key_in_a_file_is_worth_what_the_file_lies_on() {
    for (table, state, says) in [
        ("", InForce, "no key file is named"),
        ("# jobs /dev/sdb /root/key\n\n  # x\n", InForce, "no key file"),
        ("jobs /dev/sdb\n", InForce, "no key file"),
        ("jobs /dev/sdb none luks\nswap /dev/sdc /dev/urandom swap\n", InForce, "no key file"),
        ("jobs /dev/sdb - tpm2-device=auto\n", InForce, "no key file"),
        ("jobs /dev/sdb /root/key luks\n", Absent, "a key file lies on bare storage: sda is not encrypted"),
        ("jobs /dev/sdb /safe/key luks\n", InForce, "key files lie on ext4 on LUKS2"),
        ("jobs /dev/sdb /run/key luks\n", InForce, "in memory"),
        ("a /dev/sdb /safe/key\nb /dev/sdc /root/key\n", Absent, "sda"),
        ("jobs /dev/sdb /net/key luks\n", NotChecked, "nfs4"),
        ("jobs /dev/sdb /root/gone luks\n", NotChecked, "cannot be found"),
        ("jobs /dev/sdb /key:LABEL=stick luks\n", NotChecked, "not understood"),
        ("jobs /dev/sdb /dev/sdd luks\n", NotChecked, "not understood"),
        ("jobs /dev/sdb key luks\n", NotChecked, "not understood"),
        ("jobs /dev/sdb x luks,keyscript=/lib/give\n", NotChecked, "program"),
    ] {
        machine().file("etc/crypttab", table).check(DiskKeysGuarded, state, says);
    }
    let check = |tree: StandIn, state: PostureState, says: &str| {
        tree.check(DiskKeysGuarded, state, says);
    };
    check(machine(), InForce, "no key file");
    check(machine().file("etc/cryptsetup-keys.d/jobs.key", "k"), Absent, "sda");
    check(machine().file("etc/cryptsetup-keys.d/README", "k"), InForce, "no key file");
    for parameters in ["a rd.luks.key=/key b", "luks.key=1234=/key", "cryptkey=rootfs:/key"] {
        check(machine().file("proc/cmdline", parameters), Absent, "parameters");
    }
    check(machine().file("proc/cmdline", "rd.luks.key= xrd.luks.key=/key"), InForce, "");
    check(machine().file("etc/crypttab", [0xff]), NotChecked, "not understood");
    check(machine().file("etc/crypttab", [b' '; 70_000]), NotChecked, "cannot be read");
    check(machine().file("etc/crypttab", "x y /root/key\n".repeat(300)), NotChecked, "more keys");
    check(StandIn::new().file("proc/cmdline", ""), NotChecked, "/etc");
    check(StandIn::new().folder("etc"), NotChecked, "parameters");
}
