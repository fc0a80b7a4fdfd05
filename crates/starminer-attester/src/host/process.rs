//! What a process could leave behind or have put into it: cores, tracers, preloaded libraries.
//!
//! Source: proc(5), core(5), ld.so(8), Documentation/admin-guide/LSM/Yama.rst.

use std::os::unix::ffi::{OsStrExt, OsStringExt};

use std::path::PathBuf;

use starminer_verify::{HostMeasure, PostureItem};

use super::{HostTree, MAX_FILE_BYTES, ReadError, absent, in_force, not_checked};

/// Longest environment that is read: what the kernel lets a program be started with.
const MAX_ENVIRONMENT_BYTES: usize = 6 << 20;

/// Most processes that are looked at for tracers: the agent and what it started.
const MAX_PROCESSES: usize = 4096;
/// Most threads of one process.
const MAX_THREADS: usize = 8192;

/// Variables that make the loader run code of somebody's choice in this process.
const PRELOADING: [&str; 2] = ["LD_PRELOAD", "LD_AUDIT"];

impl HostTree {
    /// `kernel.core_pattern`: contained where a core becomes nothing. A pipe hands it to a program whose doings nobody sees.
    pub(super) fn core_pattern(&self) -> PostureItem<HostMeasure> {
        let name = HostMeasure::CorePatternContained;
        let Some(text) = self.text("proc/sys/kernel/core_pattern") else {
            return not_checked(name, "core_pattern cannot be read");
        };
        let pattern = text.trim_end_matches('\n');
        let discards = pattern == "/dev/null"
            || pattern.strip_prefix('|').is_some_and(|program| {
                matches!(program.trim(), "/bin/false" | "/usr/bin/false" | "/bin/true" | "/usr/bin/true")
            });
        // An empty pattern discards nothing: it still writes core.PID where core_uses_pid is set.
        let detail = format!("core_pattern = {pattern}");
        if discards { in_force(name, &detail) } else { absent(name, &detail) }
    }

    /// The hard limit on the size of core files of this process: 0 cannot be raised again without privilege.
    pub(super) fn core_dumps(&self) -> PostureItem<HostMeasure> {
        let name = HostMeasure::CoreDumpsOff;
        let Some(text) = self.text("proc/self/limits") else {
            return not_checked(name, "limits cannot be read");
        };
        let Some(line) = text.lines().find_map(|line| line.strip_prefix("Max core file size")) else {
            return not_checked(name, "limits name no core file size");
        };
        let mut columns = line.split_ascii_whitespace();
        match (columns.next(), columns.next()) {
            (Some("0"), Some("0")) => in_force(name, "soft and hard limit 0"),
            (Some(soft), Some(hard)) => absent(name, &format!("soft limit {soft}, hard limit {hard}")),
            _ => not_checked(name, "limits are not understood"),
        }
    }

    /// `kernel.yama.ptrace_scope`: 0 lets a process trace others of its user; 1 to 3 restrict it more and more.
    pub(super) fn ptrace_scope(&self) -> PostureItem<HostMeasure> {
        let name = HostMeasure::PtraceRestricted;
        let Some(text) = self.text("proc/sys/kernel/yama/ptrace_scope") else {
            return not_checked(name, "no ptrace_scope: Yama is not built in or cannot be read");
        };
        match text.trim() {
            scope @ ("1" | "2" | "3") => in_force(name, &format!("ptrace_scope = {scope}")),
            "0" => absent(name, "ptrace_scope = 0"),
            _ => not_checked(name, "ptrace_scope is not understood"),
        }
    }

    /// `/etc/ld.so.preload` names nothing, and nothing was named in the environment that this process was started with.
    pub(super) fn preloads(&self) -> PostureItem<HostMeasure> {
        let name = HostMeasure::NoPreloads;
        let Some(environment) = self.environment() else {
            return not_checked(name, "the environment cannot be read");
        };
        let variables: Vec<&[u8]> = environment.split(|byte| *byte == 0).collect();
        for preloading in PRELOADING {
            // An empty value names nothing. The loader of a shell-less agent sees what the kernel was given, as we do.
            let set = |variable: &&[u8]| {
                variable.strip_prefix(preloading.as_bytes()).is_some_and(|rest| rest.len() > 1 && rest[0] == b'=')
            };
            if variables.iter().any(set) {
                return absent(name, &format!("{preloading} is set"));
            }
        }
        match self.tree.bytes("etc/ld.so.preload", MAX_FILE_BYTES) {
            Err(ReadError::Missing) if self.tree.exists("etc") == Some(true) => in_force(name, "no /etc/ld.so.preload"),
            Err(_) => not_checked(name, "/etc/ld.so.preload cannot be read"),
            Ok(bytes) if names_nothing(&bytes) => in_force(name, "/etc/ld.so.preload names nothing"),
            Ok(_) => absent(name, "/etc/ld.so.preload names libraries"),
        }
    }

    /// `TracerPid` of every thread of this process and of all that descend from it: task processes, and what copies them.
    pub(super) fn not_traced(&self) -> PostureItem<HostMeasure> {
        let name = HostMeasure::NotTraced;
        let mut open = vec![PathBuf::from("proc/self")];
        for _ in 0..MAX_PROCESSES {
            let Some(process) = open.pop() else { return in_force(name, "no thread is traced") };
            let is_self = process.ends_with("self");
            let threads = match self.tree.names(process.join("task"), MAX_THREADS) {
                Ok(threads) => threads,
                // It has ended.
                Err(ReadError::Missing) if !is_self => continue,
                Err(_) => return not_checked(name, "threads cannot be listed"),
            };
            for thread in threads {
                let thread = process.join("task").join(thread);
                let status = match self.tree.bytes(thread.join("status"), MAX_FILE_BYTES) {
                    Ok(status) => status,
                    Err(ReadError::Missing) => continue,
                    Err(_) => return not_checked(name, "the status of a thread cannot be read"),
                };
                let tracer = status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"TracerPid:"));
                match tracer.map(<[u8]>::trim_ascii) {
                    Some(b"0") => {}
                    Some(tracer) if !tracer.is_empty() && tracer.iter().all(u8::is_ascii_digit) => {
                        let whose = if is_self { "the agent" } else { "a process of the agent" };
                        return absent(name, &format!("{whose} is traced"));
                    }
                    _ => return not_checked(name, "the status of a thread is not understood"),
                }
                match self.tree.bytes(thread.join("children"), MAX_FILE_BYTES) {
                    Ok(children) => match std::str::from_utf8(&children) {
                        Ok(ids) => open.extend(ids.split_ascii_whitespace().map(|id| PathBuf::from("proc").join(id))),
                        Err(_) => return not_checked(name, "children are not understood"),
                    },
                    Err(ReadError::Missing) if self.tree.exists(&thread) == Some(false) => {}
                    Err(_) => return not_checked(name, "the processes of the agent cannot be listed"),
                }
            }
        }
        not_checked(name, "there are more processes than are looked at")
    }

    /// `NAME=value`, ended by NULs. A process that refuses tracers cannot open its own `/proc/self/environ` unless it is
    /// root, so that on the machine itself the environment is asked of the standard library.
    fn environment(&self) -> Option<Vec<u8>> {
        if !self.tree.is_machine() {
            return self.tree.bytes("proc/self/environ", MAX_ENVIRONMENT_BYTES).ok();
        }
        let mut bytes = Vec::new();
        for (name, value) in std::env::vars_os() {
            bytes.extend(name.into_vec());
            bytes.push(b'=');
            bytes.extend(value.as_bytes());
            bytes.push(0);
        }
        Some(bytes)
    }
}

/// White space, colons and comments, as the loader skips them.
fn names_nothing(bytes: &[u8]) -> bool {
    bytes.split(|byte| *byte == b'\n').all(|line| {
        let line = line.split(|byte| *byte == b'#').next().unwrap_or_default();
        line.iter().all(|byte| byte.is_ascii_whitespace() || *byte == b':')
    })
}
