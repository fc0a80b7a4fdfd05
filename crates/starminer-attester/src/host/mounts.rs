//! The mount table, and which mount a path leads to.
//!
//! Source: proc_pid_mountinfo(5).

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::HostTree;

/// Longest mount table that is read.
const MAX_TABLE_BYTES: usize = 8 << 20;

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    id: u64,
    parent: u64,
    pub(super) major: u32,
    pub(super) minor: u32,
    /// The folder of its file system that is mounted: of a bind mount, any.
    pub(super) root: Vec<u8>,
    pub(super) point: Vec<u8>,
    /// Options of this mount, not of its file system.
    pub(super) options: Vec<String>,
    pub(super) kind: String,
    pub(super) source: Vec<u8>,
}

/// The mounts that this process sees.
#[derive(Debug)]
pub(super) struct Mounts {
    mounts: Vec<Mount>,
}

impl HostTree {
    /// `None` where the table cannot be read or has a line that is not understood: that line could be the one that counts.
    pub(super) fn mounts(&self) -> Option<Mounts> {
        let table = self.tree.bytes("proc/self/mountinfo", MAX_TABLE_BYTES).ok()?;
        let lines = table.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        Some(Mounts { mounts: lines.map(Mount::of_line).collect::<Option<_>>()? })
    }
}

impl Mount {
    /// `36 35 98:0 /root /point rw,noatime shared:1 - ext4 /dev/root rw`
    fn of_line(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b' ');
        let mut text = || std::str::from_utf8(fields.next()?).ok();
        let (id, parent) = (text()?.parse().ok()?, text()?.parse().ok()?);
        let (major, minor) = text()?.split_once(':')?;
        let (major, minor) = (major.parse().ok()?, minor.parse().ok()?);
        let (root, point) = (unescape(fields.next()?), unescape(fields.next()?));
        let options = std::str::from_utf8(fields.next()?).ok()?.split(',').map(str::to_owned).collect();
        fields.find(|field| *field == b"-")?;
        let kind = std::str::from_utf8(fields.next()?).ok()?.to_owned();
        let source = unescape(fields.next()?);
        point.starts_with(b"/").then_some(Self { id, parent, major, minor, root, point, options, kind, source })
    }
}

/// The kernel writes space, tab, newline, backslash and `#` as a backslash and three octal digits.
pub(super) fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut at = 0;
    while at < field.len() {
        let digits = field.get(at + 1..at + 4).filter(|digits| digits.iter().all(|d| matches!(d, b'0'..=b'7')));
        match (field[at], digits) {
            (b'\\', Some(digits)) if digits[0] <= b'3' => {
                plain.push(digits.iter().fold(0, |value, digit| value << 3 | (digit - b'0')));
                at += 4;
            }
            (byte, _) => {
                plain.push(byte);
                at += 1;
            }
        }
    }
    plain
}

/// Whether `path` is `folder` or lies in it.
fn lies_in(path: &[u8], folder: &[u8]) -> bool {
    match path.strip_prefix(folder) {
        Some(rest) => rest.is_empty() || rest.starts_with(b"/") || folder == b"/",
        None => false,
    }
}

impl Mounts {
    /// The mount that `path` (without symbolic links) lies on, as the kernel walks there: from the root's mount down,
    /// at each point onto what is mounted there. A table in which that is not clear has no answer.
    pub(super) fn of(&self, path: &Path) -> Option<&Mount> {
        let path = path.as_os_str().as_bytes();
        let known = |id: u64| self.mounts.iter().any(|mount| mount.id == id);
        let is_root = |mount: &&Mount| mount.point == b"/" && (mount.parent == mount.id || !known(mount.parent));
        let mut roots = self.mounts.iter().filter(is_root);
        let (mut current, None) = (roots.next()?, roots.next()) else { return None };
        // Each step goes to a child, so that more steps than mounts are a circle.
        for _ in 0..self.mounts.len() {
            let is_child = |mount: &&Mount| {
                mount.parent == current.id
                    && mount.id != current.id
                    && lies_in(path, &mount.point)
                    && lies_in(&mount.point, &current.point)
            };
            let children: Vec<&Mount> = self.mounts.iter().filter(is_child).collect();
            // The walk meets the one with the shortest point first.
            let Some(shortest) = children.iter().map(|mount| mount.point.len()).min() else { return Some(current) };
            let mut nearest = children.into_iter().filter(|mount| mount.point.len() == shortest);
            let (next, None) = (nearest.next()?, nearest.next()) else { return None };
            current = next;
        }
        None
    }

    /// Points of mounts on `path` beyond the first, and of mounts beneath it.
    pub(super) fn over(&self, path: &Path) -> Vec<&[u8]> {
        let path = path.as_os_str().as_bytes();
        let beneath = self.mounts.iter().filter(|mount| mount.point != path && lies_in(&mount.point, path));
        let stacked = self.mounts.iter().filter(|mount| mount.point == path).skip(1);
        beneath.chain(stacked).map(|mount| mount.point.as_slice()).collect()
    }
}
