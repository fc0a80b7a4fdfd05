//! Posture of the host, read from its `/proc`.
//!
//! Each collector states what it saw. What cannot be read or understood is `not-checked`, never in force and never an
//! error: a node without Yama is a fact about the node. Paths start at a root, so that a test serves a tree of its
//! own. What surrounds a task's process is stated by the sandbox, not here. Source: proc(5), core(5),
//! Documentation/admin-guide/LSM/Yama.rst.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use starminer_verify::{HostMeasure, PostureItem, PostureState};

/// Longest file that is read, in bytes; the files in question are far shorter.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// The tree to read from: `/` on a machine.
#[derive(Debug, Clone)]
pub struct HostTree {
    root: PathBuf,
}

impl HostTree {
    /// The machine itself.
    pub fn machine() -> Self {
        Self { root: PathBuf::from("/") }
    }

    /// A stand-in tree that holds `proc/…`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Every host measure, each stated once.
    pub fn collect(&self) -> Vec<PostureItem<HostMeasure>> {
        vec![self.core_pattern(), self.core_dumps(), self.swap(), self.ptrace_scope()]
    }

    /// `kernel.core_pattern`: contained where a core becomes nothing. A pipe hands it to a program whose doings nobody sees.
    fn core_pattern(&self) -> PostureItem<HostMeasure> {
        let name = HostMeasure::CorePatternContained;
        let Some(text) = self.read("proc/sys/kernel/core_pattern") else {
            return not_checked(name, "core_pattern cannot be read");
        };
        let pattern = text.trim_end_matches('\n');
        let discards = pattern.is_empty()
            || pattern == "/dev/null"
            || pattern.strip_prefix('|').is_some_and(|program| {
                matches!(program.trim(), "/bin/false" | "/usr/bin/false" | "/bin/true" | "/usr/bin/true")
            });
        // An empty pattern still writes core.PID where core_uses_pid is set.
        let state = if discards && !pattern.is_empty() { PostureState::InForce } else { PostureState::Absent };
        PostureItem::new(name, state, &format!("core_pattern = {pattern}"))
    }

    /// The hard limit on the size of core files of this process: 0 cannot be raised again without privilege.
    fn core_dumps(&self) -> PostureItem<HostMeasure> {
        let name = HostMeasure::CoreDumpsOff;
        let Some(text) = self.read("proc/self/limits") else {
            return not_checked(name, "limits cannot be read");
        };
        let Some(line) = text.lines().find_map(|line| line.strip_prefix("Max core file size")) else {
            return not_checked(name, "limits name no core file size");
        };
        let mut columns = line.split_ascii_whitespace();
        match (columns.next(), columns.next()) {
            (Some("0"), Some("0")) => PostureItem::new(name, PostureState::InForce, "soft and hard limit 0"),
            (Some(soft), Some(hard)) => {
                PostureItem::new(name, PostureState::Absent, &format!("soft limit {soft}, hard limit {hard}"))
            }
            _ => not_checked(name, "limits are not understood"),
        }
    }

    /// `/proc/swaps` has a heading and one line for each active swap.
    fn swap(&self) -> PostureItem<HostMeasure> {
        let name = HostMeasure::SwapOff;
        let Some(text) = self.read("proc/swaps") else {
            return not_checked(name, "swaps cannot be read");
        };
        let mut lines = text.lines();
        if !lines.next().is_some_and(|heading| heading.starts_with("Filename")) {
            return not_checked(name, "swaps is not understood");
        }
        match lines.filter(|line| !line.trim().is_empty()).count() {
            0 => PostureItem::new(name, PostureState::InForce, "no swap is active"),
            count => PostureItem::new(name, PostureState::Absent, &format!("active swap areas: {count}")),
        }
    }

    /// `kernel.yama.ptrace_scope`: 0 lets a process trace others of its user; 1 to 3 restrict it more and more.
    fn ptrace_scope(&self) -> PostureItem<HostMeasure> {
        let name = HostMeasure::PtraceRestricted;
        let Some(text) = self.read("proc/sys/kernel/yama/ptrace_scope") else {
            return not_checked(name, "no ptrace_scope: Yama is not built in or cannot be read");
        };
        match text.trim() {
            scope @ ("1" | "2" | "3") => {
                PostureItem::new(name, PostureState::InForce, &format!("ptrace_scope = {scope}"))
            }
            "0" => PostureItem::new(name, PostureState::Absent, "ptrace_scope = 0"),
            _ => not_checked(name, "ptrace_scope is not understood"),
        }
    }

    /// `None` for anything but a short file of UTF-8.
    fn read(&self, path: &str) -> Option<String> {
        let path: &Path = path.as_ref();
        let file = File::open(self.root.join(path)).ok()?;
        let mut text = String::new();
        let read = file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).ok()?;
        (read as u64 <= MAX_FILE_BYTES).then_some(text)
    }
}

fn not_checked(name: HostMeasure, why: &str) -> PostureItem<HostMeasure> {
    PostureItem::new(name, PostureState::NotChecked, why)
}
