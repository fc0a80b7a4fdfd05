//! The kernel's settings, and what it measures.

use std::fs::{self, OpenOptions};
use std::io::Write as _;

use anyhow::{Context as _, Result};

/// Where the kernel takes its policy of measurement; once only, in kernels without `CONFIG_IMA_WRITE_POLICY`.
const POLICY: &str = "/sys/kernel/security/ima/policy";

/// What is measured into register 10. The built-in policy `tcb` passes over initial file systems, which is where everything is.
///
/// Of files that are mapped to be executed, those of the root file system are measured, which are libraries and their loader: by its kind, ramfs (the image's
/// command line asks for it). Compiled code of tasks is mapped from memory, which is tmpfs to the kernel, and its digests would tell the coordinator which
/// programs its requesters run.
const RULES: &str = "\
measure func=BPRM_CHECK
measure func=FILE_MMAP mask=MAY_EXEC fsmagic=0x858458f6
measure func=MODULE_CHECK
measure func=FIRMWARE_CHECK
measure func=KEXEC_KERNEL_CHECK
measure func=KEXEC_INITRAMFS_CHECK
measure func=POLICY_CHECK
";

/// Settings of the kernel, each of which only goes this way or is refused by nothing later.
const SETTINGS: &[(&str, &str)] = &[
    // No module after those of the image.
    ("kernel/modules_disabled", "1"),
    ("kernel/kexec_load_disabled", "1"),
    // No process looks into another one.
    ("kernel/yama/ptrace_scope", "3"),
    // The console is the host's: it gets no keys that command the kernel, and no addresses.
    ("kernel/sysrq", "0"),
    ("kernel/kptr_restrict", "2"),
    ("kernel/dmesg_restrict", "1"),
    ("kernel/unprivileged_bpf_disabled", "1"),
    ("kernel/perf_event_paranoid", "3"),
    // Memory of processes goes nowhere when they crash.
    ("kernel/core_pattern", "/dev/null"),
    ("fs/suid_dumpable", "0"),
];

/// Hands the kernel its policy.
pub fn load_measurement_policy() -> Result<()> {
    let mut policy = OpenOptions::new().write(true).open(POLICY).context(POLICY)?;
    // One write: it is in force when the file is closed, or was refused here.
    policy.write_all(RULES.as_bytes()).context("the kernel refuses the policy of measurement")
}

/// Makes [`SETTINGS`].
pub fn settle() -> Result<()> {
    for (name, value) in SETTINGS {
        let path = format!("/proc/sys/{name}");
        fs::write(&path, format!("{value}\n")).with_context(|| format!("{path} cannot be set to {value:?}"))?;
    }
    Ok(())
}
