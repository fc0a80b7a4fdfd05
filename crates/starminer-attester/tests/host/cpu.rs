//! Vulnerabilities, shared cores, microcode, memory encryption.

use super::tree::StandIn;
use starminer_verify::HostMeasure::{CpuMitigated, MemoryEncrypted, MicrocodeCurrent, SmtOff};
use starminer_verify::PostureState::{Absent, InForce, NotChecked};

const FOLDER: &str = "sys/devices/system/cpu/vulnerabilities";

fn cpuinfo(vendor: &str, flags: &str) -> String {
    let one = |number| {
        format!(
            "processor\t: {number}\nvendor_id\t: {vendor}\nmodel name\t: X\nmicrocode\t: 0x2b000603\nflags\t\t: fpu {flags}\nbugs\t\t: \n\n"
        )
    };
    one(0) + &one(1)
}

#[test]
fn vulnerabilities() {
    for (files, state, says) in [
        (&[("meltdown", "Not affected\n")][..], InForce, "1 vulnerabilities"),
        (&[("mds", "Mitigation: Clear CPU buffers; SMT disabled\n"), ("l1tf", "Not affected\n")], InForce, "2 vuln"),
        (&[("itlb_multihit", "KVM: Mitigation: VMX disabled\n")], InForce, ""),
        (&[("mds", "Vulnerable\n"), ("l1tf", "Not affected\n")], Absent, "open: mds"),
        (&[("mds", "Vulnerable: Clear CPU buffers attempted, no microcode\n")], Absent, "mds"),
        (&[("mds", "Mitigation: Clear CPU buffers; SMT vulnerable\n")], Absent, "mds"),
        (&[("spectre_v2", "Mitigation: Enhanced IBRS; BHI: Vulnerable\n")], Absent, "spectre_v2"),
        (&[("itlb_multihit", "Processor vulnerable\n")], Absent, ""),
        (&[("mds", "Unknown: No mitigations\n"), ("l1tf", "Vulnerable\n")], Absent, "open: l1tf"),
        (&[("mds", "Mitigation: Clear CPU buffers; SMT Host state unknown\n")], NotChecked, "mds"),
        (&[("srbds", "Unknown: Dependent on hypervisor status\n")], NotChecked, "not told: srbds"),
        (&[("mds", "")], NotChecked, "mds"),
        (&[("mds", "\0\0\0")], NotChecked, "mds"),
        (&[("mds", "Fine, really\n")], NotChecked, "mds"),
    ] {
        let tree = files.iter().fold(StandIn::new(), |tree, (name, text)| tree.file(&format!("{FOLDER}/{name}"), text));
        tree.check(CpuMitigated, state, says);
    }
    StandIn::new().folder(FOLDER).check(CpuMitigated, NotChecked, "lists no");
    let file = |name: &str| format!("{FOLDER}/{name}");
    StandIn::new().file(&file("mds"), [0xff; 10]).check(CpuMitigated, NotChecked, "mds");
    StandIn::new().file(&file("mds"), [b'M'; 100_000]).check(CpuMitigated, NotChecked, "mds");
    StandIn::new().link(&file("mds"), "mds").check(CpuMitigated, NotChecked, "mds");
    StandIn::new().folder(&file("mds")).check(CpuMitigated, NotChecked, "mds");
    let many = (0..300).fold(StandIn::new(), |tree, at| tree.file(&file(&at.to_string()), "Not affected"));
    many.check(CpuMitigated, NotChecked, "cannot be listed");
}

#[test]
fn smt() {
    let (active, control) = ("sys/devices/system/cpu/smt/active", "sys/devices/system/cpu/smt/control");
    let (bare, guest) = (cpuinfo("AuthenticAMD", ""), cpuinfo("AuthenticAMD", "hypervisor"));
    for (files, state, says) in [
        (&[(active, "0\n"), (control, "off\n"), ("proc/cpuinfo", bare.as_str())][..], InForce, "(off)"),
        (&[(active, "1\n"), (control, "on\n"), ("proc/cpuinfo", &bare)], Absent, "(on)"),
        (&[(active, "1\n"), ("proc/cpuinfo", &guest)], Absent, ""),
        (&[(active, "0\n"), ("proc/cpuinfo", &guest)], NotChecked, "guest"),
        (&[(active, "0\n")], NotChecked, ""),
        (&[(active, "0\n"), ("proc/cpuinfo", "flags : fpu")], NotChecked, ""),
        (&[(active, "no\n"), ("proc/cpuinfo", &bare)], NotChecked, ""),
        (&[(control, "off\n"), ("proc/cpuinfo", &bare)], NotChecked, ""),
    ] {
        StandIn::new().files(files).check(SmtOff, state, says);
    }
}

#[test]
fn microcode() {
    let old = "sys/devices/system/cpu/vulnerabilities/old_microcode";
    let (intel, amd) = (cpuinfo("GenuineIntel", ""), cpuinfo("AuthenticAMD", ""));
    let guest = cpuinfo("GenuineIntel", "hypervisor");
    for (files, state, says) in [
        (&[(old, "Not affected\n"), ("proc/cpuinfo", intel.as_str())][..], InForce, "0x2b000603"),
        (&[(old, "Vulnerable\n"), ("proc/cpuinfo", &intel)], Absent, "0x2b000603"),
        (&[(old, "Not affected\n"), ("proc/cpuinfo", &amd)], NotChecked, "0x2b000603"),
        (&[(old, "Not affected\n"), ("proc/cpuinfo", &guest)], NotChecked, "0x2b000603"),
        (&[("proc/cpuinfo", &intel)], NotChecked, "0x2b000603"),
        (&[(old, "Not affected\n")], NotChecked, "unknown"),
        (&[(old, "\n"), ("proc/cpuinfo", &intel)], NotChecked, ""),
    ] {
        StandIn::new().files(files).check(MicrocodeCurrent, state, says);
    }
}

#[test]
fn memory_encryption() {
    let release = "proc/sys/kernel/osrelease";
    let tsme = "sys/bus/pci/drivers/ccp/0000:22:00.1/tsme_status";
    let other_tsme = "sys/bus/pci/drivers/ccp/0000:a2:00.1/tsme_status";
    let amd = cpuinfo("AuthenticAMD", "svm");
    let sme = cpuinfo("AuthenticAMD", "svm sme");
    let intel = cpuinfo("GenuineIntel", "vmx");
    let tme = cpuinfo("GenuineIntel", "vmx tme");
    let guest = cpuinfo("AuthenticAMD", "sme hypervisor");
    let td = cpuinfo("GenuineIntel", "hypervisor tdx_guest");
    let info = "proc/cpuinfo";
    for (files, state, says) in [
        (&[(info, sme.as_str()), (release, "6.8.0-45-generic\n")][..], InForce, "SME"),
        (&[(info, &sme), (release, "5.18.0\n")], InForce, "SME"),
        (&[(info, &sme), (release, "5.17.15\n")], NotChecked, "possible"),
        (&[(info, &sme), (release, "five\n")], NotChecked, "possible"),
        (&[(info, &sme)], NotChecked, "possible"),
        (&[(info, &amd), (tsme, "1\n")], InForce, "TSME"),
        (&[(info, &amd), (tsme, "1\n"), (other_tsme, "0\n")], Absent, ""),
        (&[(info, &amd), (tsme, "0\n")], Absent, "neither"),
        (&[(info, &amd), (tsme, "maybe\n")], NotChecked, "TSME"),
        (&[(info, &amd)], NotChecked, "TSME"),
        (&[(info, &tme), (release, "6.8.0\n")], NotChecked, "TME"),
        (&[(info, &intel)], Absent, "no TME"),
        (&[(info, &guest), (release, "6.8.0\n")], NotChecked, "guest"),
        (&[(info, &td)], InForce, "TDX guest"),
        (&[(info, &guest), ("sys/devices/system/cpu/sev/vmpl", "0\n")], InForce, "VMPL 0"),
        (&[(info, &cpuinfo("Acme", "svm sme tme")), (release, "6.8.0\n")], NotChecked, ""),
        (&[(tsme, "1\n")], NotChecked, "cpuinfo"),
    ] {
        StandIn::new().files(files).check(MemoryEncrypted, state, says);
    }
}

#[test]
fn hostile_cpuinfo() {
    let endless = [b"flags\t: ".as_slice(), &vec![b'x'; 1 << 20]].concat();
    let bytes = [b"vendor_id : \xff\0\xfe\nflags : \0\n\n".as_slice()].concat();
    for contents in [endless, bytes, b"\n\n\n".to_vec(), vec![0; 100_000]] {
        let tree = StandIn::new().file("proc/cpuinfo", contents).file("sys/devices/system/cpu/smt/active", "1");
        tree.check(MemoryEncrypted, NotChecked, "").check(SmtOff, Absent, "");
    }
}
