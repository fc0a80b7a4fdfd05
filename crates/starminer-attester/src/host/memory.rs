//! Memory encryption, as far as a system can know of it.
//!
//! Firmware switches it on, and mostly tells nobody. What a flag says has changed over the kernel's versions: `sme` has
//! meant "in use" since 5.18 and "possible" before; `tme` has meant either. A statement here is the kernel's word and helps to
//! find a node that is set up wrongly; what encrypts a confidential VM is proven by its evidence.
//!
//! Source: Documentation/arch/x86/amd-memory-encryption.rst, Documentation/ABI/testing/sysfs-driver-ccp,
//! Documentation/ABI/testing/sysfs-devices-system-cpu.

use starminer_verify::{HostMeasure, PostureItem};

use super::cpu::Processor;
use super::{HostTree, absent, in_force, not_checked};

const CCP: &str = "sys/bus/pci/drivers/ccp";
const MAX_DEVICES: usize = 256;
/// The first release in which the flag `sme` means that it is in use.
const SME_IN_USE: (u32, u32) = (5, 18);

impl HostTree {
    pub(super) fn memory_encryption(&self, processor: &Processor) -> PostureItem<HostMeasure> {
        let name = HostMeasure::MemoryEncrypted;
        // Only an SEV-SNP guest has this file.
        if let Some(level) = self.text("sys/devices/system/cpu/sev/vmpl") {
            return in_force(name, &format!("SEV-SNP guest at VMPL {}", level.trim()));
        }
        if processor.has("tdx_guest") == Some(true) {
            return in_force(name, "TDX guest");
        }
        match processor.has("hypervisor") {
            None => return not_checked(name, "cpuinfo cannot be read"),
            Some(true) => return not_checked(name, "a guest cannot see whether its host encrypts memory"),
            Some(false) => {}
        }
        let transparent = self.tsme();
        if transparent == Some(true) {
            return in_force(name, "TSME is active");
        }
        let sme = processor.has("sme") == Some(true);
        let tme = processor.has("tme") == Some(true);
        match (processor.vendor.as_str(), sme, tme) {
            ("AuthenticAMD", true, _) if self.release().is_some_and(|release| release >= SME_IN_USE) => {
                in_force(name, "SME is in use")
            }
            ("AuthenticAMD", true, _) => {
                not_checked(name, "SME is possible; this kernel does not tell whether it is in use")
            }
            ("AuthenticAMD", false, _) if transparent == Some(false) => absent(name, "neither SME nor TSME"),
            ("AuthenticAMD", false, _) => not_checked(name, "no SME; whether TSME is active is not told"),
            ("GenuineIntel", _, true) => not_checked(name, "TME is there; whether it is active is not told"),
            ("GenuineIntel", _, false) => absent(name, "no TME"),
            _ => not_checked(name, "not known for this processor"),
        }
    }

    /// What AMD's security processor says: active on every one of them, or not; `None` where none says anything.
    fn tsme(&self) -> Option<bool> {
        let devices = self.tree.names(CCP, MAX_DEVICES).ok()?;
        let said = devices.iter().filter_map(|device| {
            let text = self.text(std::path::Path::new(CCP).join(device).join("tsme_status"))?;
            match text.trim() {
                "1" => Some(true),
                "0" => Some(false),
                _ => None,
            }
        });
        said.reduce(|all, one| all && one)
    }

    /// The kernel's release: `6.8.0-45-generic` is (6, 8).
    fn release(&self) -> Option<(u32, u32)> {
        let text = self.text("proc/sys/kernel/osrelease")?;
        let mut numbers = text.trim().split(|c: char| !c.is_ascii_digit());
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    }
}
