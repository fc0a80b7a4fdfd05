//! What a provider does about each check: firmware setting, kernel parameter, package, mount option, command.
//!
//! Posture is a closed set and has a text for each measure, which the compiler holds; checks of devices have theirs by name, or by the kind that
//! their names begin with. What has none here keeps the remedy of whoever made the check.

use starminer_verify::HostMeasure;

/// For a measure of the host.
pub const fn of_measure(measure: HostMeasure) -> &'static str {
    match measure {
        HostMeasure::CorePatternContained => {
            "sysctl -w kernel.core_pattern='|/bin/false', and the same line in /etc/sysctl.d/50-starminer.conf; \
             systemd-coredump and apport put their own there, so remove them or mask them"
        }
        HostMeasure::CoreDumpsOff => {
            "the node sets its limit to 0 by itself; where a service manager starts it: LimitCORE=0 in its unit, or \
             `ulimit -c 0` in the shell that starts it"
        }
        HostMeasure::SwapOff => {
            "swapoff -a, take the swap lines out of /etc/fstab, and `systemctl mask swap.target`; zram-generator: remove it"
        }
        HostMeasure::PtraceRestricted => {
            "sysctl -w kernel.yama.ptrace_scope=1 (2 or 3 is stricter), and the same line in \
             /etc/sysctl.d/50-starminer.conf; the kernel needs CONFIG_SECURITY_YAMA and yama among lsm="
        }
        HostMeasure::SwapEncrypted => {
            "have no swap, or put it on dm-crypt with a fresh key at each boot: in /etc/crypttab \
             `swap /dev/DISK /dev/urandom swap,cipher=aes-xts-plain64,size=512`, and /dev/mapper/swap in /etc/fstab"
        }
        HostMeasure::JobStorageEncrypted => {
            "name the node's directory with --data-dir, and put it on dm-crypt (cryptsetup luksFormat --type luks2 /dev/DISK, \
             cryptsetup open, mkfs, mount), or on a tmpfs without swap"
        }
        HostMeasure::JobStorageLocked => {
            "name the node's directory with --data-dir, and mount its file system with nodev,nosuid,noexec: in /etc/fstab, \
             then mount -o remount,nodev,nosuid,noexec DIR"
        }
        HostMeasure::JobStorageUnshadowed => {
            "name the node's directory with --data-dir, and unmount what is mounted beneath it or over it (findmnt -R DIR)"
        }
        HostMeasure::KernelLockdown => {
            "start the kernel with lockdown=integrity (GRUB_CMDLINE_LINUX in /etc/default/grub, then update-grub and reboot); \
             it needs CONFIG_SECURITY_LOCKDOWN_LSM and lockdown among lsm=. Secure Boot switches it on in most distributions"
        }
        HostMeasure::SecureBoot => {
            "in firmware setup: boot by UEFI (no CSM), restore the factory keys, switch Secure Boot on; \
             then mokutil --enable-validation if shim was told not to verify. mokutil --sb-state shows it"
        }
        HostMeasure::ModulesSigned => {
            "start the kernel with module.sig_enforce=1 and reboot, so that unsigned modules loaded before are gone; sign your \
             own (kmodsign, mokutil --import), or sysctl -w kernel.modules_disabled=1 once all are loaded"
        }
        HostMeasure::CpuMitigated => {
            "update kernel and microcode (packages linux-image, intel-microcode or amd64-microcode), remove mitigations=off from \
             the kernel's parameters, and add mitigations=auto,nosmt where SMT is what is vulnerable; \
             /sys/devices/system/cpu/vulnerabilities tells which"
        }
        HostMeasure::SmtOff => {
            "in firmware setup: switch SMT (Hyper-Threading) off; or start the kernel with nosmt. \
             In a guest it is the host's, and its evidence says so"
        }
        HostMeasure::MicrocodeCurrent => {
            "install intel-microcode (or amd64-microcode) or the newest firmware of the board, and reboot; \
             only kernels from 6.16 on know the latest revision, and only Intel's"
        }
        HostMeasure::MemoryEncrypted => {
            "in firmware setup: switch TSME (AMD: CBS, UMC, DDR security) or TME (Intel: processor settings) on; on AMD \
             mem_encrypt=on on the kernel's line does it too"
        }
        HostMeasure::Iommu => {
            "in firmware setup: switch VT-d (Intel) or IOMMU (AMD) on; start the kernel with intel_iommu=on or amd_iommu=on"
        }
        HostMeasure::DmaProtected => {
            "start the kernel with iommu=nopt iommu.passthrough=0 iommu.strict=1; in firmware setup switch kernel DMA \
             protection on, or Thunderbolt off"
        }
        HostMeasure::NoPreloads => {
            "empty /etc/ld.so.preload, and start the node without LD_PRELOAD and LD_AUDIT (Environment= in its unit)"
        }
        HostMeasure::NotTraced => {
            "end the debugger, tracer or profiler (gdb, strace) that is attached to the node: TracerPid in /proc/PID/status names it"
        }
        HostMeasure::DiskKeysGuarded => {
            "have a TPM or a person open the disk (systemd-cryptenroll --tpm2-device=auto /dev/DISK, and `-` for the key in /etc/crypttab), \
             then remove the key file, its slot (cryptsetup luksKillSlot), and rd.luks.key= from the kernel's parameters"
        }
        HostMeasure::EndedInOrder => {
            "only measured images with a disk state it: stop the node before its machine, and back its power up"
        }
    }
}

/// Checks of the doctor's own.
pub const OWN: &[(&str, &str)] = &[
    (
        "tee.device",
        "run the node in a confidential VM (AMD SEV-SNP or Intel TDX: switch SNP or TDX on in the host's firmware setup, and start the \
         guest with it), with a guest kernel from 6.7 on (CONFIG_TSM_REPORTS, modprobe sev-guest or tdx-guest, mount -t configfs configfs \
         /sys/kernel/config); or in SGX under Gramine with sgx.remote_attestation = \"dcap\"",
    ),
    (
        "tee.evidence",
        "fetch what it names with `starminer endorsements fetch DIR KEY` and give DIR with --endorsements; if all is there, update the machine's \
         firmware and try again",
    ),
    (
        "tpm.device",
        "in firmware setup: switch the TPM on (fTPM on AMD, PTT on Intel), version 2.0; load its driver (modprobe tpm_crb or tpm_tis) so that \
         /dev/tpmrm0 is there, and add the node's user to the group that owns it (usermod -aG tss USER). Another place: --tpm",
    ),
    (
        "tpm.bank",
        "in firmware setup: switch the TPM's SHA-256 PCR bank on (or tpm2_pcrallocate sha256:all), and reboot",
    ),
    (
        "tpm.certificate",
        "the TPM has no certificate of its maker in its storage: update the platform's firmware, which brings it on many machines, or have the \
         maker's service issue it (Intel PTT and AMD fTPM: tpm2_getekcertificate -o ek.der), and store it with tpm2_nvwrite 0x1c0000a",
    ),
    (
        "tpm.evidence",
        "fetch what it names with `starminer endorsements fetch DIR KEY` and give DIR with --endorsements; of a test network, name its \
         certificates with --ca and its root in network.toml",
    ),
    (
        "tpm.activation",
        "clear what holds its keys (tpm2_flushcontext -t) and try again; a TPM that still does not open the credential has another endorsement \
         key than its certificate says, and cannot be enrolled",
    ),
    (
        "boot.event-log",
        "boot by UEFI with the TPM on, and mount securityfs (mount -t securityfs none /sys/kernel/security): the log is \
         /sys/kernel/security/tpm0/binary_bios_measurements. A log that does not lead to the PCRs: reset the machine by its power",
    ),
    (
        "boot.cc-log",
        "update the guest's firmware (OVMF with TDX) so that it hands the CCEL table on, and the kernel to 6.2 or later",
    ),
    (
        "boot.ima",
        "start the kernel with ima_policy=tcb ima_hash=sha256 (GRUB_CMDLINE_LINUX, update-grub, reboot), and mount securityfs: the list is \
         /sys/kernel/security/ima/binary_runtime_measurements",
    ),
    (
        "endorsements.store",
        "make one: `starminer endorsements fetch DIR KEY…` with the keys that are named here as missing, and give it with --endorsements DIR",
    ),
    ("endorsements.missing", "fetch it: starminer endorsements fetch DIR KEY, and give DIR with --endorsements"),
    (
        "endorsements.usable",
        "renew them: starminer endorsements fetch DIR. On a machine without a network: export them elsewhere, and import the bundle here",
    ),
];

/// Checks of devices that verification and appraisal make. A name that ends in a dot is of all that begin with it.
pub const OF_DEVICES: &[(&str, &str)] = &[
    (
        "device.root",
        "a root that is not the maker's vouches for nothing: use real hardware, or, on a test network, name the root in network.toml (--network)",
    ),
    (
        "device.debug-off",
        "start the guest or enclave with debugging off (QEMU: policy without bit 19; Gramine: sgx.debug = false)",
    ),
    ("device.memory-encrypted", "use a TEE that encrypts memory: SEV-SNP, TDX, or SGX"),
    (
        "device.tcb",
        "update the machine's firmware and microcode to the newest of its maker (BIOS, AGESA, SEV firmware, TDX module) and cold-boot it; \
         an SEV-SNP product needs a TCB floor in the network's policy, too: give that with --policy",
    ),
    (
        "device.measurement",
        "start the image that the network released, on its firmware; if this one is to count, have the network's release signers name its \
         measurement, which is shown below, and give their file with --network",
    ),
    ("device.chip", "this chip is on the network's list of denied chips: use another machine"),
    (
        "device.facility",
        "have the facility that the machine stands in vouch for its chip: the network's operators take its credential",
    ),
    (
        "device.side-channels",
        "switch SMT off in the host's firmware setup, and update microcode and kernel, so that evidence shows the mitigations",
    ),
    (
        "tpm.root",
        "its maker's root is not one that is known: use a TPM of a listed maker, or, on a test network, name its root (--network, --ca)",
    ),
    (
        "tpm.measurement",
        "boot the image that the network released; if this boot chain is to count, have the network's release signers name its measurement, \
         which is shown below, and give their file with --network",
    ),
    ("tpm.tcb", "update the TPM's firmware with its maker's tool, and enrol it again"),
    (
        "tpm.storage",
        "put the node's directory on dm-crypt, mounted nodev, nosuid and noexec, and name it with --data-dir",
    ),
    ("tpm.enrolled", "see tpm.certificate, tpm.evidence and tpm.activation: enrolment asks for these three"),
    (
        "tpm.co-enrolled",
        "enrol the host's TPM together with its TEE: `starminer node run` offers both when the node joins",
    ),
    ("tpm.policy.firmware", "update the TPM's firmware to the version that the policy asks for, and enrol it again"),
    ("tpm.policy.pcr-selection", "switch the PCR bank on that the policy names: firmware setup, or tpm2_pcrallocate"),
    (
        "tpm.policy.clock-safe",
        "the TPM's clock went back since its power was cut: leave the machine running for a day, so that it counts as safe again",
    ),
    ("tpm-ek.policy.revocation", "fetch the maker's revocation list: starminer endorsements fetch DIR tpm/crl/URL"),
    ("tpm-ek.", "the policy does not take this TPM: use one of a maker and model that it lists"),
    ("tpm.", "see the reason; a TPM that was cleared or updated has to be enrolled again"),
    (
        "eventlog.policy.secure-boot",
        "in firmware setup: restore the factory keys and switch Secure Boot on, with setup mode and audit mode off; mokutil \
         --enable-validation, if shim was told not to verify",
    ),
    (
        "eventlog.policy.registers",
        "switch the TPM's SHA-256 bank on in firmware setup, and reset the machine by its power",
    ),
    (
        "eventlog.policy.revoked",
        "update the boot loader (shim, grub) to one that is not revoked: apt-get install --only-upgrade shim-signed",
    ),
    ("eventlog.", "see the reason; reset the machine by its power, so that firmware writes its log anew"),
    (
        "ima.policy.registers",
        "start the kernel with ima_hash=sha256, and switch the TPM's SHA-256 bank on in firmware setup",
    ),
    ("ima.policy.violations", "a file was written while it was measured: stop what writes it, and reboot"),
    ("ima.policy.boot-aggregate", "start the kernel with ima_hash=sha256 and boot it by firmware, not by kexec"),
    (
        "ima.policy.agent",
        "install the agent that the network released, and boot with ima_policy=tcb so that it is measured",
    ),
    ("ima.", "start the kernel with ima_policy=tcb ima_hash=sha256, and reboot"),
    (
        "snp.policy.tcb.",
        "update SEV firmware and microcode (BIOS with the newest AGESA, amd-ucode), and commit it on the host: snphost commit",
    ),
    ("snp.policy.provisional-firmware", "commit the firmware that runs, on the host: snphost commit"),
    (
        "snp.policy.crl",
        "fetch AMD's list: starminer endorsements fetch DIR amd/crl/PRODUCT/vcek, and give DIR with --endorsements",
    ),
    (
        "snp.policy.masked-chip",
        "in the host's firmware settings: have reports name the chip (snphost config set, mask-chip-id 0)",
    ),
    ("snp.policy.names", "have the host sign by the chip's own key (VCEK), not by its cloud's"),
    (
        "snp.policy.guest.",
        "start the guest with the launch policy that the network asks for (QEMU: sev-snp-guest, policy=)",
    ),
    (
        "snp.policy.platform.",
        "in the host's firmware setup: set the platform up as the reason says (SMT, ECC, RAPL, ciphertext hiding)",
    ),
    (
        "snp.policy.measurement",
        "start the image and firmware that the network released, with as many processors as it has a value for",
    ),
    ("snp.", "see the reason; certificates come from AMD: starminer endorsements fetch DIR amd/vcek/…"),
    (
        "dcap.policy.tcb-status",
        "update BIOS, microcode and TDX module (or SGX software) as Intel's advisories say, and register the platform again",
    ),
    (
        "dcap.policy.qe-tcb-status",
        "update the quoting enclave (package libsgx-ae-qe3 or tdx-qgs), and restart its service",
    ),
    (
        "dcap.policy.advisories",
        "mitigate the advisories that are named: newer BIOS and microcode, or settings that Intel's text names",
    ),
    ("dcap.policy.endorsement-age", "fetch newer TCB data: starminer endorsements fetch DIR"),
    ("dcap.policy.smt", "in firmware setup: switch Hyper-Threading off"),
    (
        "dcap.policy.",
        "start the image, and set the platform up, as the network's policy asks: the reason says what differs",
    ),
    ("dcap.", "see the reason; TCB data come from Intel's service: starminer endorsements fetch DIR intel/tcb-info/…"),
    ("gpu.", "see the reason; manifests come from NVIDIA's service: starminer endorsements fetch DIR nvidia/rim/…"),
    ("nvidia.", "see the reason; update the GPU's driver and VBIOS, and fetch the manifests of the very versions"),
    ("tee.", "see the reason; update the machine's firmware, and start the guest again"),
];

/// What to do about a check, if there is a text for it.
pub fn of(name: &str) -> Option<&'static str> {
    if let Some(measure) = name.strip_prefix("posture.host.") {
        return measure.parse().ok().map(of_measure);
    }
    let own = OWN.iter().find(|(own, _)| *own == name);
    let exact = || OF_DEVICES.iter().find(|(known, _)| *known == name);
    // The longest that fits says most.
    let begins = || {
        let fitting = OF_DEVICES.iter().filter(|(known, _)| known.ends_with('.') && name.starts_with(known));
        fitting.max_by_key(|(known, _)| known.len())
    };
    own.or_else(exact).or_else(begins).map(|(_, fix)| *fix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_measure_of_the_host_has_a_text_of_its_own() {
        let mut seen = std::collections::BTreeSet::new();
        for measure in HostMeasure::ALL {
            let fix = of(&format!("posture.host.{measure}")).unwrap_or_else(|| panic!("{measure} has none"));
            assert!(fix.len() > 40, "{measure}: {fix}");
            assert!(seen.insert(fix), "{measure} has the text of another: {fix}");
        }
    }

    #[test]
    fn texts_are_whole_and_names_are_known_once() {
        let mut names = std::collections::BTreeSet::new();
        for (name, fix) in OWN.iter().chain(OF_DEVICES) {
            assert!(names.insert(name), "{name} stands twice");
            assert!(fix.len() > 40 && !fix.contains("  ") && !fix.ends_with('.'), "{name}: {fix}");
            assert!(of(name).is_some(), "{name}");
        }
        assert_eq!(of("snp.policy.tcb.reported"), of("snp.policy.tcb.launch"));
        assert_ne!(of("snp.policy.tcb.reported"), of("snp.policy.vmpl"));
        assert_eq!(of("evidence.network"), None);
    }
}
