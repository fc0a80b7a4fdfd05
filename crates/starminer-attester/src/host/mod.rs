//! Posture of the host, read from its `/proc`, `/sys` and `/etc`.
//!
//! Each collector states what it saw. What cannot be read or understood is `not-checked`, never in force and never an
//! error: a node without Yama is a fact about the node. A device or file system is called absent only where the folder that
//! would hold it can be read. Paths start at a root, so that a test serves a tree of its own; nothing is read outside of it, and
//! every file and list has a bound. What surrounds a task's process is stated by the sandbox, not here.
//!
//! Sources are named beside each collector.

mod cpu;
mod devices;
mod kernel;
mod keys;
mod memory;
mod mounts;
mod poll;
mod process;
mod stack;
mod start;
mod storage;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;

use starminer_verify::{HostMeasure, PostureItem, PostureState};

use crate::tree::{ReadError, Tree};
use storage::JobStorage;

pub use watch::{PostureChange, PostureWatch, StopWatch};

/// Longest file that is read, in bytes, unless a collector says otherwise; the files in question are far shorter.
const MAX_FILE_BYTES: usize = 64 * 1024;

/// The tree to read from: `/` on a machine.
#[derive(Debug, Clone)]
pub struct HostTree {
    tree: Tree,
    job_storage: Option<Arc<JobStorage>>,
}

impl HostTree {
    /// The machine itself.
    pub fn machine() -> Self {
        Self::at("/")
    }

    /// A stand-in tree that holds `proc/…`, `sys/…`, `etc/…`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { tree: Tree::at(root), job_storage: None }
    }

    /// With the folder that holds what tasks leave on a disk, as a path of the machine (`/var/lib/…`). Which folder that is, and what it is
    /// mounted from, is kept from here on: whatever stands at the path later is compared with it. Without a folder the measures of job storage are
    /// not checked.
    #[must_use]
    pub fn with_job_storage(mut self, folder: impl Into<PathBuf>) -> Self {
        self.job_storage = Some(Arc::new(self.standing(folder.into())));
        self
    }

    /// Every host measure, each stated once.
    pub fn collect(&self) -> Vec<PostureItem<HostMeasure>> {
        let processor = self.processor();
        let mut items = self.collect_often();
        items.extend([
            self.ended_in_order(),
            self.secure_boot(),
            self.vulnerabilities(),
            self.smt(&processor),
            self.microcode(&processor),
            self.memory_encryption(&processor),
            self.iommu(),
            self.dma_protection(),
        ]);
        items
    }

    /// What an operator changes with one command, and what costs little to read. The rest changes with firmware or hardware, and firmware's
    /// variables are not to be asked for every second.
    fn collect_often(&self) -> Vec<PostureItem<HostMeasure>> {
        let [encrypted, locked, unshadowed] = self.job_storage();
        vec![
            self.core_pattern(),
            self.core_dumps(),
            self.swap_off(),
            self.ptrace_scope(),
            self.swap_encrypted(),
            encrypted,
            locked,
            unshadowed,
            self.lockdown(),
            self.modules_signed(),
            self.preloads(),
            self.not_traced(),
            self.disk_keys(),
        ]
    }

    /// `None` for anything but a short file of UTF-8.
    fn text(&self, path: impl AsRef<std::path::Path>) -> Option<String> {
        let bytes = self.tree.bytes(path, MAX_FILE_BYTES).ok()?;
        String::from_utf8(bytes).ok()
    }
}

fn in_force(name: HostMeasure, what: &str) -> PostureItem<HostMeasure> {
    PostureItem::new(name, PostureState::InForce, what)
}

fn absent(name: HostMeasure, what: &str) -> PostureItem<HostMeasure> {
    PostureItem::new(name, PostureState::Absent, what)
}

fn not_checked(name: HostMeasure, why: &str) -> PostureItem<HostMeasure> {
    PostureItem::new(name, PostureState::NotChecked, why)
}
