//! How a run ended, in the words of a report: which party, which check, what to do.
//!
//! Public words say nothing about the plaintext. What an engine quotes from the workload travels beside them as a private
//! note, which is sealed to the requester with the logs.

use starminer_receipt::{Limits, Outcome};
use starminer_runtime::wasm::{EngineError, RunEnd};
use starminer_runtime::{HostFault, Stop};
use starminer_verify::{Party, Refusal};

use super::Broken;

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    /// With status 0.
    Completed,
    /// Something was refused, or the workload or the machine failed.
    Refused(Refusal),
    /// Likewise, with a note for the requester alone.
    Noted(Refusal, String),
    /// From outside.
    Stopped(Stop),
    /// This program contradicted itself.
    Defect(&'static str),
}

/// Why the usual way through a task was left.
#[derive(Debug)]
pub(crate) enum Halt {
    /// With a report.
    End(Ending),
    /// Without one.
    Broken(Broken),
}

impl From<Ending> for Halt {
    fn from(ending: Ending) -> Self {
        Self::End(ending)
    }
}

impl From<Broken> for Halt {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

impl Ending {
    /// The public outcome, and the private note.
    pub(crate) fn into_outcome(self, limits: &Limits) -> (Outcome, Option<String>) {
        let (refusal, note) = match self {
            Self::Completed => return (Outcome::Completed, None),
            Self::Refused(refusal) => (refusal, None),
            Self::Noted(refusal, note) => (refusal, (!note.is_empty()).then_some(note)),
            Self::Stopped(stop) => (stopped(stop, limits), None),
            Self::Defect(what) => (
                Refusal::new(
                    Party::Node,
                    "node.defect",
                    format!("the agent contradicted itself: {what}"),
                    "report this defect",
                ),
                None,
            ),
        };
        (Outcome::Failed { refusal }, note)
    }

    /// What the end of an engine means. `storage_full`: the disk under the scratch had no room left.
    pub(crate) fn of_run(end: RunEnd, limits: &Limits, storage_full: bool) -> Self {
        let requester = |check: &'static str, reason: String, remedy: &'static str| {
            Self::Refused(Refusal::new(Party::Requester, check, reason, remedy))
        };
        let workload = |check: &'static str, reason: String, remedy: &'static str| {
            Self::Refused(Refusal::new(Party::Workload, check, reason, remedy))
        };
        match end {
            RunEnd::Completed { exit_code: 0 } => Self::Completed,
            RunEnd::Completed { .. } => workload(
                "workload.exit-nonzero",
                "the program ended with a status other than 0; the status is in the sealed details".into(),
                "read the program's own messages in its sealed standard error",
            ),
            RunEnd::OutOfFuel => requester(
                "engine.wasm.out-of-fuel",
                format!("the program used up its {} units of fuel", limits.fuel),
                "raise limits.fuel, or give the program less to do",
            ),
            RunEnd::MemoryLimit => requester(
                "engine.wasm.memory-limit",
                format!("the program needs more than its {} bytes of memory", limits.memory_bytes),
                "raise limits.memory_bytes, or give the program less to do",
            ),
            RunEnd::Trap { kind } => workload(
                "engine.wasm.trap",
                format!("the program broke: {}", kind.as_str()),
                "mend the program; the part of its output that came before is sealed to you",
            ),
            RunEnd::Refused(refusal) => Self::of_engine_refusal(&refusal),
            RunEnd::Stopped(stop) => Self::Stopped(stop),
            RunEnd::HostFault(fault) => Self::of_host_fault(fault, storage_full),
        }
    }

    /// What it means that an engine would not run the workload or read its data.
    pub(crate) fn of_engine_refusal(refusal: &starminer_runtime::Refusal) -> Self {
        let public = Refusal::new(
            Party::Requester,
            refusal.code(),
            refusal.message(),
            "see the sealed standard error for what exactly was refused",
        );
        Self::Noted(public, refusal.detail().to_owned())
    }

    /// What a failure of this machine means.
    pub(crate) fn of_host_fault(fault: HostFault, storage_full: bool) -> Self {
        if storage_full && fault == HostFault::SCRATCH {
            return storage_is_full("the scratch of the task");
        }
        Self::Refused(Refusal::new(
            Party::Node,
            fault.code(),
            fault.to_string(),
            "nothing is wrong with the task: another node can run it",
        ))
    }

    /// What it means that there is no engine on this machine.
    pub(crate) fn of_engine_error(error: &EngineError) -> Self {
        Self::Refused(Refusal::new(Party::Node, error.code(), error.to_string(), "run the task on another node"))
    }
}

/// The node's disk has no room.
pub(crate) fn storage_is_full(what: &str) -> Ending {
    Ending::Refused(Refusal::new(
        Party::Node,
        "node.storage-full",
        format!("the node's disk has no room for {what}"),
        "free space on the node, or lower the task's scratch and output limits; another node can run it",
    ))
}

fn stopped(stop: Stop, limits: &Limits) -> Refusal {
    match stop {
        Stop::Deadline => Refusal::new(
            Party::Requester,
            "limits.wall-time",
            format!("the task took longer than its {} ms", limits.wall_limit_ms),
            "raise limits.wall_limit_ms, or give the program less to do",
        ),
        Stop::Cancelled => Refusal::new(
            Party::Requester,
            "task.cancelled",
            "the task was called off",
            "submit it again if it is wanted",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use starminer_runtime::wasm::TrapKind;

    #[test]
    fn every_end_has_a_party_a_check_and_a_remedy() {
        let limits = Limits::default();
        let check = |end, storage_full, expect: Option<(Party, &str)>| {
            let (outcome, _) = Ending::of_run(end, &limits, storage_full).into_outcome(&limits);
            match (&outcome, expect) {
                (Outcome::Completed, None) => {}
                (Outcome::Failed { refusal }, Some((party, code))) => {
                    assert_eq!((refusal.party(), refusal.check()), (party, code));
                    assert!(!refusal.remedy().is_empty() && !refusal.reason().is_empty());
                }
                other => panic!("{other:?}"),
            }
        };
        check(RunEnd::Completed { exit_code: 0 }, false, None);
        check(RunEnd::Completed { exit_code: 7 }, false, Some((Party::Workload, "workload.exit-nonzero")));
        check(RunEnd::OutOfFuel, false, Some((Party::Requester, "engine.wasm.out-of-fuel")));
        check(RunEnd::MemoryLimit, false, Some((Party::Requester, "engine.wasm.memory-limit")));
        check(RunEnd::Trap { kind: TrapKind::StackOverflow }, false, Some((Party::Workload, "engine.wasm.trap")));
        check(RunEnd::Stopped(Stop::Deadline), false, Some((Party::Requester, "limits.wall-time")));
        check(RunEnd::Stopped(Stop::Cancelled), false, Some((Party::Requester, "task.cancelled")));
        check(RunEnd::HostFault(HostFault::SCRATCH), false, Some((Party::Node, "host.scratch-failed")));
        check(RunEnd::HostFault(HostFault::SCRATCH), true, Some((Party::Node, "node.storage-full")));
        check(RunEnd::HostFault(HostFault::INPUT), true, Some((Party::Node, "host.input-unreadable")));
    }
}
