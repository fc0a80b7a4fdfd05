//! From what is in force around a task process to the posture that evidence signs.
//!
//! What the kernel said when it was asked ([`InForce`]) is restated item by item; a few items hold by the way every task
//! process is made, and say so. Nothing is added that was not looked at.

use starminer_sandbox::{InForce, Protection, State};
use starminer_verify::{PostureItem, PostureState, SandboxMeasure};

/// What the policy calls a protection.
const fn measure(protection: Protection) -> SandboxMeasure {
    match protection {
        Protection::NoNetwork => SandboxMeasure::NoNetwork,
        Protection::NoNewPrivileges => SandboxMeasure::NoNewPrivileges,
        Protection::Seccomp => SandboxMeasure::Seccomp,
        Protection::UserNamespace => SandboxMeasure::UserNamespace,
        Protection::MountNamespace => SandboxMeasure::MountNamespace,
        Protection::PidNamespace => SandboxMeasure::PidNamespace,
        Protection::Landlock => SandboxMeasure::Landlock,
        Protection::Rlimits => SandboxMeasure::ResourceLimits,
        Protection::NonDumpable => SandboxMeasure::NonDumpable,
        Protection::CoreDumpsOff => SandboxMeasure::CoreDumpsOff,
        Protection::KeysLocked => SandboxMeasure::KeysLocked,
        Protection::CapabilitiesDropped => SandboxMeasure::NoCapabilities,
        Protection::PtraceRefused => SandboxMeasure::PtraceRefused,
    }
}

/// What holds for every task process because of how [`starminer_sandbox::Zygote`] makes it and
/// [`crate::run_if_task_process`] ends it; a start that fails to do so is no start.
const BY_CONSTRUCTION: [(SandboxMeasure, &str); 3] = [
    (SandboxMeasure::EnvironmentCleared, "started with an empty environment"),
    (SandboxMeasure::DescriptorsClosed, "started with its channel and no other descriptor"),
    (SandboxMeasure::SingleUse, "serves one lease and ends"),
];

/// Every sandbox measure that can be stated of a task process.
pub(crate) fn sandbox_items(in_force: &InForce) -> Vec<PostureItem<SandboxMeasure>> {
    let read_back = Protection::ALL.into_iter().map(|protection| {
        let (state, detail) = match in_force.state(protection) {
            State::InForce => (PostureState::InForce, ""),
            State::Absent(reason) => (PostureState::Absent, reason.as_str()),
        };
        PostureItem::new(measure(protection), state, detail)
    });
    let by_construction =
        BY_CONSTRUCTION.into_iter().map(|(name, detail)| PostureItem::new(name, PostureState::InForce, detail));
    read_back.chain(by_construction).collect()
}

/// The measures that are in force, for a report.
pub(crate) fn names_in_force(in_force: &InForce) -> Vec<SandboxMeasure> {
    let mut names: Vec<SandboxMeasure> = sandbox_items(in_force)
        .into_iter()
        .filter(|item| item.state() == PostureState::InForce)
        .map(|item| item.name())
        .collect();
    names.sort_unstable();
    names
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn absent_stays_absent_and_each_measure_is_stated_once() {
        let text: String = Protection::ALL
            .map(|protection| match protection {
                Protection::Landlock => "landlock\tnot in this kernel\n".to_owned(),
                other => format!("{}\n", other.name()),
            })
            .concat();
        let in_force = InForce::decode(text.as_bytes()).unwrap();
        let posture = starminer_verify::Posture::new(sandbox_items(&in_force), vec![]).unwrap();
        assert_eq!(posture.sandbox_state(SandboxMeasure::Landlock), PostureState::Absent);
        assert_eq!(posture.sandbox_state(SandboxMeasure::Seccomp), PostureState::InForce);
        assert_eq!(posture.sandbox_state(SandboxMeasure::SingleUse), PostureState::InForce);
        assert_eq!(posture.sandbox_state(SandboxMeasure::ControlGroup), PostureState::NotChecked);
        let names = names_in_force(&in_force);
        assert!(!names.contains(&SandboxMeasure::Landlock) && names.contains(&SandboxMeasure::NoNetwork));
        assert_eq!(names.len(), Protection::ALL.len() - 1 + BY_CONSTRUCTION.len());
    }
}
