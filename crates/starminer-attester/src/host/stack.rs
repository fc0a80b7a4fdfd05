//! Block devices and what they stand on, down to the disks: is there dm-crypt on every way?
//!
//! `/sys/dev/block/MAJOR:MINOR` leads to a device, its `slaves` to those beneath it, `dm/uuid` says who made a mapping:
//! cryptsetup names its own `CRYPT-LUKS2-…`. That name is the kernel's and root's word: it says how the storage was set up, not
//! who has the key. Source: Documentation/ABI/testing/sysfs-block, -sysfs-block-dm, cryptsetup's `DM_UUID_PREFIX`.

use std::path::{Path, PathBuf};

use super::HostTree;
use crate::tree::{ReadError, name_of};

/// Deepest stack that is walked.
const MAX_DEPTH: u32 = 8;
/// Most devices that are looked at for one answer. A circle of devices ends here or at the depth.
const MAX_DEVICES: u32 = 64;
/// Most devices right beneath one.
const MAX_SLAVES: usize = 64;

/// Mappings that encrypt. Others of cryptsetup (verity, integrity) do not.
const ENCRYPTING: [(&str, &str); 3] =
    [("CRYPT-LUKS2-", "LUKS2"), ("CRYPT-LUKS1-", "LUKS1"), ("CRYPT-PLAIN-", "plain dm-crypt")];

/// How storage is covered, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cover {
    /// In memory or encrypted, on every way down.
    Covered(String),
    /// Bare on one way at least.
    Bare(String),
    /// Cannot be told.
    Unknown(String),
}

impl Cover {
    /// All of them have to be covered; a bare one counts before one that is not known.
    pub(super) fn all(covers: impl IntoIterator<Item = Self>) -> Self {
        let mut result = None;
        for cover in covers {
            match (&result, &cover) {
                (_, Self::Bare(_)) => return cover,
                (Some(Self::Unknown(_)), _) => {}
                (_, Self::Unknown(_)) | (None, _) => result = Some(cover),
                _ => {}
            }
        }
        result.unwrap_or_else(|| Self::Unknown("no device".into()))
    }
}

impl HostTree {
    /// The device with this number.
    pub(super) fn device_cover(&self, major: u32, minor: u32) -> Cover {
        self.cover_at(PathBuf::from(format!("/sys/dev/block/{major}:{minor}")))
    }

    /// The device with this name (`dm-0`, `nvme0n1p3`).
    pub(super) fn named_device_cover(&self, name: &str) -> Cover {
        self.cover_at(Path::new("/sys/class/block").join(name))
    }

    fn cover_at(&self, path: PathBuf) -> Cover {
        let mut left = MAX_DEVICES;
        self.walk(&path, 0, &mut left)
    }

    fn walk(&self, path: &Path, depth: u32, left: &mut u32) -> Cover {
        if depth == MAX_DEPTH || *left == 0 {
            return Cover::Unknown("the stack of devices is too deep, or a circle".into());
        }
        *left -= 1;
        let Ok(device) = self.tree.resolve(path) else {
            return Cover::Unknown(format!("device {} cannot be found", name_of(path)));
        };
        let name = name_of(&device);
        if let Some(uuid) = self.text(device.join("dm/uuid"))
            && let Some((_, kind)) = ENCRYPTING.iter().find(|(prefix, _)| uuid.starts_with(prefix))
        {
            let label = self.text(device.join("dm/name")).unwrap_or_default();
            return Cover::Covered(format!("{kind} ({})", label.trim()));
        }
        if name.starts_with("zram") {
            return match self.text(device.join("backing_dev")).as_deref().map(str::trim) {
                Some("none") => Cover::Covered(format!("{name}, in memory")),
                None if self.tree.exists(device.join("backing_dev")) == Some(false) => {
                    Cover::Covered(format!("{name}, in memory"))
                }
                _ => Cover::Unknown(format!("{name} may write back to a device")),
            };
        }
        if self.tree.exists(device.join("loop/backing_file")) != Some(false) {
            return Cover::Unknown(format!("{name} is a file elsewhere"));
        }
        match self.tree.names(device.join("slaves"), MAX_SLAVES) {
            Ok(slaves) if !slaves.is_empty() => {
                let slaves = slaves.iter().map(|slave| device.join("slaves").join(slave));
                return Cover::all(slaves.map(|slave| self.walk(&slave, depth + 1, left)).collect::<Vec<_>>());
            }
            Ok(_) | Err(ReadError::Missing) => {}
            Err(_) => return Cover::Unknown(format!("what {name} stands on cannot be listed")),
        }
        // A partition stands on the device that its folder lies in.
        match (self.tree.exists(device.join("partition")), device.parent()) {
            (Some(true), Some(whole)) => self.walk(whole, depth + 1, left),
            (Some(false), _) => Cover::Bare(format!("{name} is not encrypted")),
            _ => Cover::Unknown(format!("{name} cannot be read")),
        }
    }
}
