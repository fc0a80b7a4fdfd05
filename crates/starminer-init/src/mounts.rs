//! What is mounted, and how: nothing that can be written to can be executed.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;

use anyhow::{Context as _, Result};
use rustix::mount::{MountFlags, mount, mount_remount};

/// Where the node's files and the ciphertext of its tasks lie: in memory.
pub const STATE: &str = "/run/starminer";

/// Where the disk is mounted, if the node has one.
pub const DISK: &str = "/run/starminer/disk";

/// Mounts everything, in this order.
pub fn mount_all() -> Result<()> {
    let no_programs = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    for (kind, place, flags, options) in [
        ("proc", "/proc", no_programs, ""),
        ("sysfs", "/sys", no_programs, ""),
        ("devtmpfs", "/dev", MountFlags::NOSUID | MountFlags::NOEXEC, "mode=0755"),
        ("securityfs", "/sys/kernel/security", no_programs, ""),
        ("tmpfs", "/run", no_programs, "mode=0755"),
    ] {
        fs::create_dir_all(place).with_context(|| format!("{place} cannot be made"))?;
        let options = std::ffi::CString::new(options)?;
        // Some kernels mount devtmpfs themselves.
        match mount(kind, place, kind, flags, Some(options.as_c_str())) {
            Ok(()) | Err(rustix::io::Errno::BUSY) => {}
            Err(error) => return Err(error).with_context(|| format!("{kind} cannot be mounted on {place}")),
        }
    }
    Ok(())
}

/// Makes the directory of the node's files, and that of its disk in it.
pub fn make_state() -> Result<()> {
    for dir in [STATE, DISK] {
        DirBuilder::new().mode(0o700).create(dir).with_context(|| dir.to_owned())?;
    }
    Ok(())
}

/// Nothing is written to the root file system from here on.
pub fn seal_root() -> Result<()> {
    mount_remount("/", MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID, "")
        .context("the root file system cannot be made read-only")
}

/// The kernel's configuration file system, by which machines make TEE reports; only some kernels have it.
pub fn mount_configfs() -> Result<()> {
    let known = fs::read_to_string("/proc/filesystems").context("/proc/filesystems")?;
    if known.lines().any(|line| line.split_whitespace().next_back() == Some("configfs")) {
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("configfs", "/sys/kernel/config", "configfs", flags, None).context("configfs cannot be mounted")?;
    }
    Ok(())
}
