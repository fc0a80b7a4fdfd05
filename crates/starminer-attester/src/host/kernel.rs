//! What the kernel lets even root do, and how it was started.
//!
//! Source: kernel_lockdown(7), Documentation/filesystems/efivarfs.rst, Documentation/admin-guide/module-signing.rst,
//! Documentation/admin-guide/tainted-kernels.rst.

use starminer_verify::{HostMeasure, PostureItem};

use super::{HostTree, ReadError, absent, in_force, not_checked};

/// EFI_GLOBAL_VARIABLE.
const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// SHIM_LOCK.
const SHIM: &str = "605dab50-e046-4300-abb6-3dd810dd8b23";
/// An unsigned module was loaded (`E`).
const TAINT_UNSIGNED_MODULE: u64 = 1 << 13;

/// A variable of one byte.
enum Variable {
    Is(u8),
    Missing,
    Unknown,
}

impl HostTree {
    /// `/sys/kernel/security/lockdown`: `none [integrity] confidentiality`, the chosen one in brackets.
    pub(super) fn lockdown(&self) -> PostureItem<HostMeasure> {
        let name = HostMeasure::KernelLockdown;
        let Some(text) = self.text("sys/kernel/security/lockdown") else {
            return match (self.tree.exists("sys/kernel/security/lockdown"), self.text("sys/kernel/security/lsm")) {
                (Some(false), Some(modules)) => absent(name, &format!("not among the security modules: {modules}")),
                _ => not_checked(name, "lockdown cannot be read"),
            };
        };
        match text.trim_end_matches('\n') {
            "[none] integrity confidentiality" => absent(name, "lockdown is none"),
            "none [integrity] confidentiality" => in_force(name, "lockdown is integrity"),
            "none integrity [confidentiality]" => in_force(name, "lockdown is confidentiality"),
            _ => not_checked(name, "lockdown is not understood"),
        }
    }

    /// `SecureBoot` is 1 and `SetupMode` is 0, and shim was not told to stop verifying.
    pub(super) fn secure_boot(&self) -> PostureItem<HostMeasure> {
        let name = HostMeasure::SecureBoot;
        if self.tree.exists("sys/firmware/efi") == Some(false) && self.tree.exists("sys/firmware") == Some(true) {
            return absent(name, "not started by UEFI");
        }
        match (self.variable("SecureBoot", GLOBAL), self.variable("SetupMode", GLOBAL)) {
            (Variable::Is(0), _) => absent(name, "SecureBoot = 0"),
            (_, Variable::Is(1)) => absent(name, "SetupMode = 1: no platform key is enrolled"),
            (Variable::Is(1), Variable::Is(0)) => match self.variable("MokSBStateRT", SHIM) {
                Variable::Missing | Variable::Is(0) => in_force(name, "SecureBoot = 1, SetupMode = 0"),
                Variable::Is(_) => absent(name, "shim was told not to verify (MokSBState)"),
                Variable::Unknown => not_checked(name, "MokSBState cannot be read"),
            },
            _ => not_checked(name, "SecureBoot or SetupMode cannot be read"),
        }
    }

    /// efivarfs puts four bytes of attributes before the value.
    fn variable(&self, name: &str, vendor: &str) -> Variable {
        match self.tree.bytes(format!("sys/firmware/efi/efivars/{name}-{vendor}"), 5).as_deref() {
            Ok([_, _, _, _, value]) => Variable::Is(*value),
            Err(ReadError::Missing) => Variable::Missing,
            _ => Variable::Unknown,
        }
    }

    /// Unsigned modules are refused (`module.sig_enforce`), or no module can be loaded any more
    /// (`kernel.modules_disabled`), and no unsigned one was loaded before.
    pub(super) fn modules_signed(&self) -> PostureItem<HostMeasure> {
        let name = HostMeasure::ModulesSigned;
        let Some(taint) = self.text("proc/sys/kernel/tainted").and_then(|text| text.trim().parse::<u64>().ok()) else {
            return not_checked(name, "tainted cannot be read");
        };
        if taint & TAINT_UNSIGNED_MODULE != 0 {
            return absent(name, &format!("an unsigned module was loaded (tainted = {taint})"));
        }
        let enforced = self.text("sys/module/module/parameters/sig_enforce");
        let disabled = self.text("proc/sys/kernel/modules_disabled");
        match (enforced.as_deref().map(str::trim), disabled.as_deref().map(str::trim)) {
            (Some("Y"), _) => in_force(name, "sig_enforce = Y"),
            (_, Some("1")) => in_force(name, "modules_disabled = 1"),
            (Some("N"), Some("0")) => absent(name, "sig_enforce = N, modules_disabled = 0"),
            (None, Some("0")) if self.tree.exists("sys/module/module/parameters/sig_enforce") == Some(false) => {
                absent(name, "no sig_enforce, modules_disabled = 0")
            }
            _ => not_checked(name, "sig_enforce cannot be read"),
        }
    }
}
