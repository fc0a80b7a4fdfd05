//! What keeps devices from reading memory.
//!
//! Source: Documentation/ABI/testing/sysfs-class-iommu, -sysfs-kernel-iommu_groups, -sysfs-bus-thunderbolt.

use std::path::Path;

use starminer_verify::{HostMeasure, PostureItem};

use super::{HostTree, absent, in_force, not_checked};
use crate::tree::{ReadError, name_of};

const GROUPS: &str = "sys/kernel/iommu_groups";
const THUNDERBOLT: &str = "sys/bus/thunderbolt/devices";
const MAX_IOMMUS: usize = 1024;
const MAX_GROUPS: usize = 8192;
const MAX_THUNDERBOLT_DEVICES: usize = 1024;

impl HostTree {
    /// `/sys/class/iommu` lists one at least.
    pub(super) fn iommu(&self) -> PostureItem<HostMeasure> {
        let name = HostMeasure::Iommu;
        match self.tree.names("sys/class/iommu", MAX_IOMMUS) {
            Ok(units) if units.is_empty() => absent(name, "no IOMMU is in use"),
            Ok(units) => in_force(name, &format!("{} IOMMUs, {} the first", units.len(), name_of(&units[0]))),
            Err(_) => not_checked(name, "IOMMUs cannot be listed"),
        }
    }

    /// Every group of devices is translated (type `DMA` or `DMA-FQ`; `identity` reaches all of memory), and so is what is
    /// plugged into Thunderbolt, where there is any.
    pub(super) fn dma_protection(&self) -> PostureItem<HostMeasure> {
        let name = HostMeasure::DmaProtected;
        let Ok(groups) = self.tree.names(GROUPS, MAX_GROUPS) else {
            return not_checked(name, "groups of the IOMMU cannot be listed");
        };
        if groups.is_empty() {
            return absent(name, "no device is behind an IOMMU");
        }
        let mut unknown = 0;
        for group in &groups {
            match self.text(Path::new(GROUPS).join(group).join("type")).as_deref().map(str::trim) {
                Some("DMA" | "DMA-FQ") => {}
                Some("identity") => return absent(name, &format!("group {} reaches all memory", name_of(group))),
                // A blocked group, one of a virtual machine's devices, or nothing that is known here.
                _ => unknown += 1,
            }
        }
        if unknown > 0 {
            return not_checked(name, &format!("{unknown} of {} groups are not understood", groups.len()));
        }
        match self.thunderbolt() {
            Ok(()) => in_force(name, &format!("{} groups, all translated", groups.len())),
            Err((true, why)) => absent(name, &why),
            Err((false, why)) => not_checked(name, &why),
        }
    }

    /// Each Thunderbolt domain has `iommu_dma_protection` of 1. The error says whether one surely has not.
    fn thunderbolt(&self) -> Result<(), (bool, String)> {
        let devices = match self.tree.names(THUNDERBOLT, MAX_THUNDERBOLT_DEVICES) {
            Ok(devices) => devices,
            Err(ReadError::Missing) => return Ok(()),
            Err(_) => return Err((false, "Thunderbolt devices cannot be listed".into())),
        };
        for domain in devices.iter().filter(|device| name_of(device).starts_with("domain")) {
            let text = self.text(Path::new(THUNDERBOLT).join(domain).join("iommu_dma_protection"));
            match text.as_deref().map(str::trim) {
                Some("1") => {}
                Some("0") => return Err((true, format!("Thunderbolt {} is not protected", name_of(domain)))),
                _ => return Err((false, format!("Thunderbolt {} does not tell", name_of(domain)))),
            }
        }
        Ok(())
    }
}
