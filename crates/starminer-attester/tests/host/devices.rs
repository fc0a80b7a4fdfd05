//! IOMMU and what it translates.

use super::tree::StandIn;
use starminer_verify::HostMeasure::{DmaProtected, Iommu};
use starminer_verify::PostureState::{Absent, InForce, NotChecked};

#[test]
fn iommus() {
    StandIn::new().check(Iommu, NotChecked, "");
    StandIn::new().file("sys/class/iommu", "a file").check(Iommu, NotChecked, "");
    StandIn::new().folder("sys/class/iommu").check(Iommu, Absent, "no IOMMU");
    let tree = StandIn::new().folder("sys/class/iommu/dmar0").folder("sys/class/iommu/dmar1");
    tree.check(Iommu, InForce, "2 IOMMUs, dmar0 the first");
}

#[test]
fn groups_and_thunderbolt() {
    let group = |number: u32| format!("sys/kernel/iommu_groups/{number}/type");
    let domain = "sys/bus/thunderbolt/devices/domain0/iommu_dma_protection";
    let tree = || StandIn::new().file(&group(0), "DMA-FQ\n").file(&group(7), "DMA\n");
    tree().check(DmaProtected, InForce, "2 groups");
    tree().file(domain, "1\n").folder("sys/bus/thunderbolt/devices/0-0").check(DmaProtected, InForce, "2 groups");
    tree().file(domain, "0\n").check(DmaProtected, Absent, "domain0");
    tree().file(domain, "2\n").check(DmaProtected, NotChecked, "domain0");
    tree().folder("sys/bus/thunderbolt/devices/domain0").check(DmaProtected, NotChecked, "domain0");
    tree().file("sys/bus/thunderbolt/devices", "a file").check(DmaProtected, InForce, "");
    tree().link("sys/bus/thunderbolt/devices", "devices").check(DmaProtected, NotChecked, "");
    tree().file(&group(9), "identity\n").check(DmaProtected, Absent, "group 9");
    tree().file(&group(9), "blocked\n").check(DmaProtected, NotChecked, "1 of 3");
    tree().folder("sys/kernel/iommu_groups/9").check(DmaProtected, NotChecked, "1 of 3");
    tree().file(&group(9), "blocked\n").file(&group(10), "identity\n").check(DmaProtected, Absent, "group 10");
    tree().file(&group(9), [0; 70_000]).check(DmaProtected, NotChecked, "1 of 3");
    StandIn::new().folder("sys/kernel/iommu_groups").check(DmaProtected, Absent, "");
    StandIn::new().check(DmaProtected, NotChecked, "");
}
