//! Posture: what is in force on the node around a task, as its agent states it and its evidence signs it.
//!
//! Posture is known before the grant, so that a policy can name the minimum. A statement is worth what vouches for the agent
//! that makes it: where the agent's measurement matches a reference value, its word counts, else it is just a word. This
//! module states and names; it reads nothing from a machine. Names form closed sets and an unknown one is
//! refused, because a verifier that skips what it does not know would skip a warning too. Source: `specs/evidence.md`,
//! section "Posture".

use std::fmt;
use std::hash::Hash;
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::refusal::{Party, Refusal};
use crate::types::{Digest, tagged_hash};

/// Longest detail of one item, in bytes.
pub const MAX_DETAIL_BYTES: usize = 128;

/// A closed set of measures that a posture can speak of.
pub trait Measure: Copy + Ord + Hash + fmt::Debug + Serialize + DeserializeOwned + 'static {
    /// The set's own name: `sandbox` or `host`.
    const GROUP: &'static str;

    /// Stable name in JSON and in policies.
    fn name(self) -> &'static str;
}

macro_rules! measures {
    ($(#[$doc:meta])* $type:ident, $group:literal, [$($(#[$item_doc:meta])* $variant:ident => $name:literal,)+]) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $type {
            $($(#[$item_doc])* #[serde(rename = $name)] $variant,)+
        }

        impl $type {
            /// Every measure of the set, in the order in which they are written.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Stable name in JSON and in policies.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }
        }

        impl Measure for $type {
            const GROUP: &'static str = $group;

            fn name(self) -> &'static str {
                Self::name(self)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(Self::name(*self))
            }
        }

        impl FromStr for $type {
            type Err = UnknownMeasure;

            fn from_str(text: &str) -> Result<Self, UnknownMeasure> {
                Self::ALL.iter().copied().find(|m| m.name() == text).ok_or(UnknownMeasure { group: $group })
            }
        }
    };
}

/// A name that is not in the set. The name itself is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("no {group} measure has that name")]
pub struct UnknownMeasure {
    /// The set that was asked.
    pub group: &'static str,
}

measures! {
    /// What confines a task's process. Each is in force before any byte of the guest is loaded.
    SandboxMeasure, "sandbox", [
        /// The process can reach no network: no socket family, or a network namespace with nothing in it.
        NoNetwork => "no_network",
        /// `PR_SET_NO_NEW_PRIVS`: no program it starts gains privileges.
        NoNewPrivileges => "no_new_privileges",
        /// A seccomp filter admits only listed system calls.
        Seccomp => "seccomp",
        /// A user namespace of its own.
        UserNamespace => "user_namespace",
        /// A mount namespace of its own.
        MountNamespace => "mount_namespace",
        /// A process-id namespace of its own: it sees no other process.
        PidNamespace => "pid_namespace",
        /// A System V IPC namespace of its own.
        IpcNamespace => "ipc_namespace",
        /// A host-name namespace of its own.
        UtsNamespace => "uts_namespace",
        /// Landlock rules deny the host's files.
        Landlock => "landlock",
        /// Resource limits on processes, data, files and descriptors.
        ResourceLimits => "rlimits",
        /// A control group bounds memory and CPU.
        ControlGroup => "cgroup",
        /// All capability sets are empty.
        NoCapabilities => "no_capabilities",
        /// `PR_SET_DUMPABLE` is 0: no core, no ptrace by the same user.
        NonDumpable => "non_dumpable",
        /// Keys stand in memory that is locked against swapping.
        KeysLocked => "keys_locked",
        /// `RLIMIT_CORE` is 0.
        CoreDumpsOff => "core_dumps_off",
        /// The process refuses tracers.
        PtraceRefused => "ptrace_refused",
        /// The environment is empty but for what the agent sets.
        EnvironmentCleared => "environment_cleared",
        /// No descriptor is inherited but the agent's channel.
        DescriptorsClosed => "descriptors_closed",
        /// The process serves one task and dies with its memory.
        SingleUse => "single_use",
    ]
}

measures! {
    /// What the agent reads of its host (or guest) system.
    HostMeasure, "host", [
        /// `kernel.core_pattern` writes no core of a task to a disk.
        CorePatternContained => "core_pattern_contained",
        /// The agent's own hard limit on core size is 0.
        CoreDumpsOff => "core_dumps_off",
        /// No swap is active.
        SwapOff => "swap_off",
        /// Yama restricts ptrace (`kernel.yama.ptrace_scope` of 1 or more).
        PtraceRestricted => "ptrace_restricted",
        /// No swap is active, or all of it is encrypted or in memory.
        SwapEncrypted => "swap_encrypted",
        /// Job storage is in memory, or on dm-crypt through the whole stack of devices.
        JobStorageEncrypted => "job_storage_encrypted",
        /// Job storage is mounted `nodev`, `nosuid` and `noexec`.
        JobStorageLocked => "job_storage_locked",
        /// Job storage is the folder that it was when the agent started, and nothing is mounted over it or beneath it.
        JobStorageUnshadowed => "job_storage_unshadowed",
        /// The kernel is locked down against its own root user (integrity or confidentiality).
        KernelLockdown => "kernel_lockdown",
        /// UEFI Secure Boot is on, and shim verifies.
        SecureBoot => "secure_boot",
        /// The kernel loads signed modules alone, or none any more, and has loaded no unsigned one.
        ModulesSigned => "modules_signed",
        /// No vulnerability of the processor that the kernel knows is open.
        CpuMitigated => "cpu_mitigated",
        /// No two threads share a processor core.
        SmtOff => "smt_off",
        /// The kernel knows no newer microcode.
        MicrocodeCurrent => "microcode_current",
        /// Memory is encrypted (SME, TSME, a confidential VM).
        MemoryEncrypted => "memory_encrypted",
        /// An IOMMU is in use.
        Iommu => "iommu",
        /// No device reaches memory past the IOMMU.
        DmaProtected => "dma_protected",
        /// No library is preloaded into the agent.
        NoPreloads => "no_preloads",
        /// Nothing traces a thread of the agent, of its task processes, or of what else it started.
        NotTraced => "not_traced",
        /// No key of an encrypted disk lies in a file on storage that is not encrypted itself.
        DiskKeysGuarded => "disk_keys_guarded",
        /// The measured image's last start with its disk ended in order. The detail counts its starts.
        EndedInOrder => "ended_in_order",
    ]
}

/// What is known of one measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PostureState {
    /// In force.
    InForce,
    /// Looked for, and not in force.
    Absent,
    /// Not looked for, or could not be told. Never counts as in force.
    NotChecked,
}

/// One measure, its state, and what was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, bound = "N: Measure")]
pub struct PostureItem<N: Measure> {
    name: N,
    state: PostureState,
    detail: String,
}

impl<N: Measure> PostureItem<N> {
    /// States `state` of `name`. `detail` says what was seen, in printable ASCII without `"` and `\`, at most
    /// [`MAX_DETAIL_BYTES`]; other characters become `?` and the rest is cut.
    pub fn new(name: N, state: PostureState, detail: &str) -> Self {
        let detail = detail.chars().map(|c| if is_detail(c) { c } else { '?' }).take(MAX_DETAIL_BYTES).collect();
        Self { name, state, detail }
    }

    /// The measure.
    pub fn name(&self) -> N {
        self.name
    }

    /// Its state.
    pub fn state(&self) -> PostureState {
        self.state
    }

    /// What was seen.
    pub fn detail(&self) -> &str {
        &self.detail
    }
}

/// Printable ASCII that needs no escape in JSON, so that a posture has one spelling in bytes.
fn is_detail(c: char) -> bool {
    matches!(c, ' '..='~') && c != '"' && c != '\\'
}

/// All that is stated about a node at one time. Each measure is stated at most once; one that is not stated counts as
/// [`PostureState::NotChecked`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WirePosture")]
pub struct Posture {
    sandbox: Vec<PostureItem<SandboxMeasure>>,
    host: Vec<PostureItem<HostMeasure>>,
}

/// A posture contradicts itself or is not in its one form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PostureError {
    /// A measure is stated twice.
    #[error("the {group} measure {name} is stated twice")]
    Twice {
        /// `sandbox` or `host`.
        group: &'static str,
        /// The measure.
        name: &'static str,
    },
    /// Items that were read do not stand in the order of the sets.
    #[error("the {group} measures are not in their order")]
    Order {
        /// `sandbox` or `host`.
        group: &'static str,
    },
    /// A detail that was read is too long or holds other characters than it may.
    #[error("the detail of the {group} measure {name} is malformed")]
    Detail {
        /// `sandbox` or `host`.
        group: &'static str,
        /// The measure.
        name: &'static str,
    },
}

impl Posture {
    /// Puts the items in order.
    pub fn new(
        mut sandbox: Vec<PostureItem<SandboxMeasure>>,
        mut host: Vec<PostureItem<HostMeasure>>,
    ) -> Result<Self, PostureError> {
        sandbox.sort_by_key(|item| item.name);
        host.sort_by_key(|item| item.name);
        check_items(&sandbox)?;
        check_items(&host)?;
        Ok(Self { sandbox, host })
    }

    /// A posture that states nothing.
    pub const fn unstated() -> Self {
        Self { sandbox: Vec::new(), host: Vec::new() }
    }

    /// What confines the task's process.
    pub fn sandbox(&self) -> &[PostureItem<SandboxMeasure>] {
        &self.sandbox
    }

    /// What was read of the host.
    pub fn host(&self) -> &[PostureItem<HostMeasure>] {
        &self.host
    }

    /// State of a sandbox measure; not checked where it is not stated.
    pub fn sandbox_state(&self, name: SandboxMeasure) -> PostureState {
        state_of(&self.sandbox, name)
    }

    /// State of a host measure; not checked where it is not stated.
    pub fn host_state(&self, name: HostMeasure) -> PostureState {
        state_of(&self.host, name)
    }

    /// The one JSON form: no white space, items in the order of their sets.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("names and printable ASCII serialize")
    }

    /// The tagged hash `"starminer/posture/v1"` over the one JSON form.
    pub fn digest(&self) -> Digest {
        tagged_hash("posture", &[&self.to_json()])
    }
}

/// What the codes of all refusals for posture begin with; the name of the measure follows.
const POSTURE_CHECK: &str = "node.posture-";

/// The refusal of a node on which these measures were in force under this start of its agent, and are not any more; `None` where there are none.
/// The first gives it its code.
pub fn fallen_posture(lost: &[PostureItem<HostMeasure>]) -> Option<Refusal> {
    let remedy = "mend the host, and fresh evidence brings the node back; what is meant to stay as it is counts from the agent's next start";
    posture_refusal(lost, "not in force any more", remedy)
}

/// The refusal of a node on which these measures are not in force, though its network asks for them of every node; `None` where there are none.
pub fn missing_posture(missing: &[PostureItem<HostMeasure>]) -> Option<Refusal> {
    let remedy = "put it in force (`starminer node doctor` says how), and fresh evidence brings the node in";
    posture_refusal(missing, "this network asks for what is not in force", remedy)
}

/// Whether a refusal says that something is not in force around a node.
pub fn is_about_posture(refusal: &Refusal) -> bool {
    refusal.check().starts_with(POSTURE_CHECK)
}

fn posture_refusal(items: &[PostureItem<HostMeasure>], what: &str, remedy: &str) -> Option<Refusal> {
    let first = items.first()?;
    let each = items.iter().map(|item| match item.detail() {
        "" => item.name().to_string(),
        detail => format!("{} ({detail})", item.name()),
    });
    let reason = format!("{what}: {}", each.collect::<Vec<_>>().join(", "));
    Some(Refusal::new(Party::Node, format!("{POSTURE_CHECK}{}", first.name()), reason, remedy))
}

fn state_of<N: Measure>(items: &[PostureItem<N>], name: N) -> PostureState {
    match items.binary_search_by_key(&name, |item| item.name) {
        Ok(at) => items[at].state,
        Err(_) => PostureState::NotChecked,
    }
}

fn check_items<N: Measure>(items: &[PostureItem<N>]) -> Result<(), PostureError> {
    for pair in items.windows(2) {
        if pair[0].name == pair[1].name {
            return Err(PostureError::Twice { group: N::GROUP, name: pair[0].name.name() });
        }
        if pair[0].name > pair[1].name {
            return Err(PostureError::Order { group: N::GROUP });
        }
    }
    match items.iter().find(|i| i.detail.len() > MAX_DETAIL_BYTES || !i.detail.chars().all(is_detail)) {
        None => Ok(()),
        Some(item) => Err(PostureError::Detail { group: N::GROUP, name: item.name.name() }),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WirePosture {
    sandbox: Vec<PostureItem<SandboxMeasure>>,
    host: Vec<PostureItem<HostMeasure>>,
}

impl TryFrom<WirePosture> for Posture {
    type Error = PostureError;

    fn try_from(wire: WirePosture) -> Result<Self, PostureError> {
        // Order and uniqueness bound the lengths by the sizes of the closed sets.
        check_items(&wire.sandbox)?;
        check_items(&wire.host)?;
        Ok(Self { sandbox: wire.sandbox, host: wire.host })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn order_is_ours_when_made_and_demanded_when_read() {
        use PostureState::{Absent, InForce};
        let posture = Posture::new(
            vec![
                PostureItem::new(SandboxMeasure::Seccomp, InForce, "filter \"x\"\n"),
                PostureItem::new(SandboxMeasure::NoNetwork, Absent, ""),
            ],
            vec![],
        )
        .unwrap();
        let json = String::from_utf8(posture.to_json()).unwrap();
        assert_eq!(
            json,
            r#"{"sandbox":[{"name":"no_network","state":"absent","detail":""},{"name":"seccomp","state":"in-force","detail":"filter ?x??"}],"host":[]}"#
        );
        assert_eq!(serde_json::from_str::<Posture>(&json).unwrap(), posture);
        assert_eq!(posture.sandbox_state(SandboxMeasure::Seccomp), InForce);
        assert_eq!(posture.sandbox_state(SandboxMeasure::Landlock), PostureState::NotChecked);
        assert_eq!(posture.host_state(HostMeasure::SwapOff), PostureState::NotChecked);

        let item = |name: &str| format!(r#"{{"name":"{name}","state":"in-force","detail":""}}"#);
        for sandbox in [
            item("no_such_measure"),
            format!("{},{}", item("seccomp"), item("no_network")),
            format!("{},{}", item("seccomp"), item("seccomp")),
            item("seccomp").replace("\"\"", "\"\\u0007\""),
            item("seccomp").replace("\"\"", &format!("\"{}\"", "x".repeat(MAX_DETAIL_BYTES + 1))),
            item("seccomp").replace("in-force", "perhaps"),
        ] {
            let json = format!(r#"{{"sandbox":[{sandbox}],"host":[]}}"#);
            assert!(serde_json::from_str::<Posture>(&json).is_err(), "{json}");
        }
        let twice = vec![PostureItem::new(HostMeasure::SwapOff, Absent, ""); 2];
        assert!(matches!(Posture::new(vec![], twice), Err(PostureError::Twice { .. })));
    }

    #[test]
    fn every_name_reads_back() {
        for measure in SandboxMeasure::ALL {
            assert_eq!(measure.name().parse::<SandboxMeasure>().unwrap(), *measure);
        }
        for measure in HostMeasure::ALL {
            assert_eq!(measure.name().parse::<HostMeasure>().unwrap(), *measure);
        }
        assert!("".parse::<HostMeasure>().is_err());
    }
}
