//! The processor: open vulnerabilities, shared cores, microcode.
//!
//! A guest sees what its hypervisor shows it. What therefore cannot be known in a guest is not checked there.
//!
//! Source: Documentation/ABI/testing/sysfs-devices-system-cpu, Documentation/admin-guide/hw-vuln.

use std::collections::HashSet;

use starminer_verify::{HostMeasure, PostureItem};

use super::{HostTree, absent, in_force, not_checked};
use crate::tree::name_of;

const VULNERABILITIES: &str = "sys/devices/system/cpu/vulnerabilities";
const MAX_VULNERABILITIES: usize = 256;
/// Of `/proc/cpuinfo`: the first processor's part has a few thousand bytes, and a large machine's whole file a million.
const CPUINFO_PREFIX_BYTES: usize = 32 * 1024;

/// What `/proc/cpuinfo` says of the first processor; all empty where it cannot be read.
#[derive(Debug, Default)]
pub(super) struct Processor {
    pub(super) vendor: String,
    pub(super) microcode: Option<String>,
    flags: Option<HashSet<String>>,
}

impl Processor {
    /// Whether it has this flag; `None` where its flags are not known.
    pub(super) fn has(&self, flag: &str) -> Option<bool> {
        self.flags.as_ref().map(|flags| flags.contains(flag))
    }
}

/// What one vulnerability's file says.
enum Vulnerability {
    Closed,
    Open,
    Unknown,
}

impl Vulnerability {
    fn of(text: &str) -> Self {
        let text = text.trim().to_ascii_lowercase();
        // Also within a mitigation that leaves something open: "Mitigation: Clear CPU buffers; SMT vulnerable".
        if text.contains("vulnerable") {
            return Self::Open;
        }
        if text.contains("unknown") {
            return Self::Unknown;
        }
        let closed = ["not affected", "mitigation: ", "kvm: mitigation: "].iter().any(|start| text.starts_with(start));
        if closed { Self::Closed } else { Self::Unknown }
    }
}

impl HostTree {
    pub(super) fn processor(&self) -> Processor {
        let Ok(bytes) = self.tree.prefix("proc/cpuinfo", CPUINFO_PREFIX_BYTES) else { return Processor::default() };
        let text = String::from_utf8_lossy(&bytes);
        // Without the blank line behind it, the part may have been cut.
        let Some((first, _)) = text.split_once("\n\n") else { return Processor::default() };
        let value = |key: &str| {
            let mut lines = first.lines().filter_map(|line| line.split_once(':'));
            lines.find(|(name, _)| name.trim() == key).map(|(_, value)| value.trim().to_owned())
        };
        Processor {
            vendor: value("vendor_id").unwrap_or_default(),
            microcode: value("microcode"),
            flags: value("flags").map(|flags| flags.split_ascii_whitespace().map(str::to_owned).collect()),
        }
    }

    /// One file for each vulnerability that the kernel knows. One that is open makes the measure absent.
    pub(super) fn vulnerabilities(&self) -> PostureItem<HostMeasure> {
        let name = HostMeasure::CpuMitigated;
        let Ok(files) = self.tree.names(VULNERABILITIES, MAX_VULNERABILITIES) else {
            return not_checked(name, "vulnerabilities cannot be listed");
        };
        let (mut open, mut unknown) = (Vec::new(), Vec::new());
        for file in &files {
            let text = self.text(std::path::Path::new(VULNERABILITIES).join(file)).unwrap_or_default();
            match Vulnerability::of(&text) {
                Vulnerability::Closed => {}
                Vulnerability::Open => open.push(name_of(file)),
                Vulnerability::Unknown => unknown.push(name_of(file)),
            }
        }
        match (files.len(), open.is_empty(), unknown.is_empty()) {
            (0, ..) => not_checked(name, "the kernel lists no vulnerabilities"),
            (_, false, _) => absent(name, &format!("open: {}", open.join(" "))),
            (_, true, false) => not_checked(name, &format!("not told: {}", unknown.join(" "))),
            (count, true, true) => in_force(name, &format!("{count} vulnerabilities, each mitigated or not there")),
        }
    }

    /// `smt/active`. Whether a guest's processors share cores with a stranger's is for its host to know.
    pub(super) fn smt(&self, processor: &Processor) -> PostureItem<HostMeasure> {
        let name = HostMeasure::SmtOff;
        let active = self.text("sys/devices/system/cpu/smt/active");
        let control = self.text("sys/devices/system/cpu/smt/control").unwrap_or_default();
        let control = control.trim();
        match (active.as_deref().map(str::trim), processor.has("hypervisor")) {
            (Some("1"), _) => absent(name, &format!("smt is active ({control})")),
            (Some("0"), Some(false)) => in_force(name, &format!("smt is not active ({control})")),
            (Some("0"), Some(true)) => not_checked(name, "a guest cannot see whether its host shares cores"),
            (Some("0"), None) => not_checked(name, "not active, and whether this is a guest cannot be told"),
            _ => not_checked(name, "smt/active cannot be read"),
        }
    }

    /// The kernel has a list of Intel's latest revisions (since 6.16), and none for other makers or for guests.
    pub(super) fn microcode(&self, processor: &Processor) -> PostureItem<HostMeasure> {
        let name = HostMeasure::MicrocodeCurrent;
        let revision = processor.microcode.as_deref().unwrap_or("unknown");
        let text = self.text(format!("{VULNERABILITIES}/old_microcode"));
        let known = text.as_deref().map(Vulnerability::of);
        match (known, processor.vendor.as_str(), processor.has("hypervisor")) {
            (Some(Vulnerability::Open), ..) => {
                absent(name, &format!("revision {revision}, the kernel knows a newer one"))
            }
            (Some(Vulnerability::Closed), "GenuineIntel", Some(false)) => {
                in_force(name, &format!("revision {revision}, the kernel knows no newer one"))
            }
            _ => not_checked(name, &format!("revision {revision}; the latest is not known here")),
        }
    }
}
