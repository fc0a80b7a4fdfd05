//! Where the bytes of a task may come to rest: job storage and swap.
//!
//! Source: proc_pid_mountinfo(5), proc_swaps(5), Documentation/filesystems/tmpfs.rst, `fs/btrfs/sysfs.c`.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use starminer_verify::{HostMeasure, PostureItem};

use super::mounts::{Mount, unescape};
use super::stack::Cover;
use super::{HostTree, absent, in_force, not_checked};
use crate::tree::name_of;

const LOCKED: [&str; 3] = ["nodev", "nosuid", "noexec"];
const BTRFS: &str = "/sys/fs/btrfs";
const MAX_BTRFS: usize = 256;
const MAX_SWAPS: usize = 64;

/// The folder of the jobs, and which one that was when it was named.
#[derive(Debug)]
pub(super) struct JobStorage {
    folder: PathBuf,
    standing: Option<Standing>,
}

/// What tells one folder from another at the same path. The agent has a file open in it, so that the number of its device is given to nothing else.
#[derive(Debug)]
struct Standing {
    device: u64,
    inode: u64,
    mount: Mount,
}

impl Standing {
    /// Whether this is the folder, and not another one, or the same one mounted from elsewhere. Mount ids do not tell: they are used again.
    fn is_at(&self, path: &Path, mount: &Mount) -> bool {
        let of = |mount: &Mount| (mount.major, mount.minor, mount.root.clone(), mount.point.clone());
        // Another file system is not asked: it may never answer.
        of(&self.mount) == of(mount)
            && fs::metadata(path).is_ok_and(|found| (found.dev(), found.ino()) == (self.device, self.inode))
    }
}

/// An active swap area.
struct Swap {
    path: PathBuf,
    kind: String,
}

impl HostTree {
    /// `/proc/swaps` has a heading and one line for each active swap.
    fn swaps(&self) -> Result<Vec<Swap>, &'static str> {
        let text = self.text("proc/swaps").ok_or("swaps cannot be read")?;
        let mut lines = text.lines();
        if !lines.next().is_some_and(|heading| heading.starts_with("Filename")) {
            return Err("swaps is not understood");
        }
        let mut swaps = Vec::new();
        for line in lines.filter(|line| !line.trim().is_empty()) {
            let mut columns = line.split_ascii_whitespace();
            let (Some(path), Some(kind)) = (columns.next(), columns.next()) else {
                return Err("swaps is not understood");
            };
            if swaps.len() == MAX_SWAPS {
                return Err("there are more swap areas than are read");
            }
            let path = unescape(path.as_bytes());
            swaps.push(Swap { path: PathBuf::from(std::ffi::OsStr::from_bytes(&path)), kind: kind.to_owned() });
        }
        Ok(swaps)
    }

    pub(super) fn swap_off(&self) -> PostureItem<HostMeasure> {
        let name = HostMeasure::SwapOff;
        match self.swaps() {
            Err(why) => not_checked(name, why),
            Ok(swaps) if swaps.is_empty() => in_force(name, "no swap is active"),
            Ok(swaps) => absent(name, &format!("active swap areas: {}", swaps.len())),
        }
    }

    pub(super) fn swap_encrypted(&self) -> PostureItem<HostMeasure> {
        item(HostMeasure::SwapEncrypted, self.swap_cover())
    }

    fn swap_cover(&self) -> Cover {
        match self.swaps() {
            Err(why) => Cover::Unknown(why.into()),
            Ok(swaps) if swaps.is_empty() => Cover::Covered("no swap is active".into()),
            Ok(swaps) => Cover::all(swaps.iter().map(|swap| self.cover_of_swap(swap))),
        }
    }

    fn cover_of_swap(&self, swap: &Swap) -> Cover {
        // Older systems list a link of /dev/mapper.
        let path = self.tree.resolve(&swap.path).unwrap_or_else(|_| swap.path.clone());
        match (swap.kind.as_str(), path.strip_prefix("/dev").ok().and_then(Path::to_str)) {
            // The kernel writes `!` for `/` in the names of devices.
            ("partition", Some(device)) => self.named_device_cover(&device.replace('/', "!")),
            ("file", _) => match self.mounts().as_ref().zip(self.tree.resolve(&swap.path).ok()) {
                Some((mounts, path)) => match mounts.of(&path) {
                    // A swap file on tmpfs is not possible, and asking would lead back here.
                    Some(mount) if !is_memory(mount) => self.cover_of_mount(mount),
                    _ => Cover::Unknown("where a swap file lies is not clear".into()),
                },
                None => Cover::Unknown("a swap file cannot be found".into()),
            },
            _ => Cover::Unknown("a swap area is not understood".into()),
        }
    }

    /// The folder as it is now, to be compared with later.
    pub(super) fn standing(&self, folder: PathBuf) -> JobStorage {
        let resolved = self.tree.resolve(&folder).ok();
        let standing = resolved.and_then(|resolved| {
            let mount = self.mounts()?.of(&resolved)?.clone();
            let found = fs::metadata(self.tree.path(resolved)).ok()?;
            Some(Standing { device: found.dev(), inode: found.ino(), mount })
        });
        JobStorage { folder, standing }
    }

    /// Encrypted, locked, unshadowed.
    pub(super) fn job_storage(&self) -> [PostureItem<HostMeasure>; 3] {
        use HostMeasure::{JobStorageEncrypted, JobStorageLocked, JobStorageUnshadowed};
        let none = |why: &str| {
            [JobStorageEncrypted, JobStorageLocked, JobStorageUnshadowed].map(|name| not_checked(name, why))
        };
        let Some(job_storage) = &self.job_storage else { return none("no job storage is named") };
        let Ok(folder) = self.tree.resolve(&job_storage.folder) else {
            let [encrypted, locked, unshadowed] = none("job storage cannot be found");
            let gone = job_storage.standing.as_ref().map(|_| absent(JobStorageUnshadowed, "job storage is gone"));
            return [encrypted, locked, gone.unwrap_or(unshadowed)];
        };
        let Some(mounts) = self.mounts() else { return none("mountinfo cannot be read") };
        let Some(mount) = mounts.of(&folder) else { return none("which mount job storage lies on is not clear") };

        let missing: Vec<&str> =
            LOCKED.into_iter().filter(|option| !mount.options.iter().any(|other| other == option)).collect();
        let locked = match missing.as_slice() {
            [] => in_force(JobStorageLocked, &LOCKED.join(",")),
            missing => absent(JobStorageLocked, &format!("mounted without {}", missing.join(","))),
        };
        let over = mounts.over(&folder);
        let is_other = |standing: &Standing| !standing.is_at(&self.tree.path(&folder), mount);
        let unshadowed = match over.first() {
            Some(first) => {
                let first = String::from_utf8_lossy(first);
                absent(JobStorageUnshadowed, &format!("{} mounts over it, first {first}", over.len()))
            }
            None if job_storage.standing.as_ref().is_some_and(is_other) => {
                let (kind, source) = (&mount.kind, String::from_utf8_lossy(&mount.source));
                let what = format!("another folder than at the agent's start stands there: {kind} of {source}");
                absent(JobStorageUnshadowed, &what)
            }
            None => in_force(JobStorageUnshadowed, "nothing is mounted over it"),
        };
        let covers = self.cover_of_mount(mount);
        [item(JobStorageEncrypted, covers), locked, unshadowed]
    }

    /// What a file lies on.
    pub(super) fn cover_of_file(&self, path: &Path) -> Cover {
        let Ok(path) = self.tree.resolve(path) else { return Cover::Unknown("it cannot be found".into()) };
        match self.mounts().as_ref().and_then(|mounts| mounts.of(&path)) {
            Some(mount) => self.cover_of_mount(mount),
            None => Cover::Unknown("which mount it lies on is not clear".into()),
        }
    }

    fn cover_of_mount(&self, mount: &Mount) -> Cover {
        match (mount.kind.as_str(), mount.major) {
            ("ramfs", _) => Cover::Covered("ramfs, in memory".into()),
            // What lies in memory is swapped like any memory.
            _ if is_memory(mount) => match self.swap_cover() {
                Cover::Covered(swap) => Cover::Covered(format!("{}, in memory; {swap}", mount.kind)),
                Cover::Bare(why) => Cover::Bare(format!("{}, and swap: {why}", mount.kind)),
                Cover::Unknown(why) => Cover::Unknown(format!("{}, and swap: {why}", mount.kind)),
            },
            ("btrfs", _) => self.cover_of_btrfs(mount),
            // Overlays, network and user-space file systems have no device of their own, and where theirs ends up is not
            // visible here: an overlay's layers are paths of the namespace that made it.
            (kind, 0) => Cover::Unknown(format!("{kind} has no device of its own")),
            (kind, major) => match self.device_cover(major, mount.minor) {
                Cover::Covered(what) => Cover::Covered(format!("{kind} on {what}")),
                other => other,
            },
        }
    }

    /// btrfs spreads over devices and shows none of their numbers in the mount table; sysfs lists those of each file system.
    fn cover_of_btrfs(&self, mount: &Mount) -> Cover {
        let unknown = || Cover::Unknown("the devices of this btrfs are not clear".into());
        let source = Path::new(std::ffi::OsStr::from_bytes(&mount.source));
        let Ok(source) = self.tree.resolve(source) else { return unknown() };
        let Ok(systems) = self.tree.names(BTRFS, MAX_BTRFS) else { return unknown() };
        for system in systems {
            let folder = Path::new(BTRFS).join(system).join("devices");
            let Ok(devices) = self.tree.names(&folder, MAX_BTRFS) else { continue };
            let names: Vec<String> = devices.iter().map(|device| name_of(device)).collect();
            if names.contains(&name_of(&source)) {
                return Cover::all(names.iter().map(|name| self.named_device_cover(name)));
            }
        }
        unknown()
    }
}

fn is_memory(mount: &Mount) -> bool {
    matches!(mount.kind.as_str(), "tmpfs" | "rootfs")
}

fn item(name: HostMeasure, cover: Cover) -> PostureItem<HostMeasure> {
    match cover {
        Cover::Covered(what) => in_force(name, &what),
        Cover::Bare(what) => absent(name, &what),
        Cover::Unknown(why) => not_checked(name, &why),
    }
}
