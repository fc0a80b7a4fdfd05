//! One attempt from lease to report, as a state machine without I/O or clock (`specs/node.md`, section "Attempt").
//!
//! Events say what happened, commands what is to be done; the driver ([`super::attempt`]) turns one into the other and
//! holds the bytes. Invariants: evidence is made once; a grant goes to the process only after its evidence was sent and
//! its objects were handed over; one report is published at most, by the process that ran or by the agent in its place;
//! after [`Command::Finish`] nothing more is asked for.

use std::time::Duration;

use starminer_sandbox::ExitStatus;
use starminer_verify::{Party, Refusal};

use crate::protocol::Phase;

/// How long a process may take for its keys.
pub(crate) const KEYS_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a process may take to judge a grant.
pub(crate) const GRANT_TIMEOUT: Duration = Duration::from_secs(10);
/// How much longer than its wall limit a run may take: the process ends itself at the limit and reports; this is for one
/// that cannot.
pub(crate) const WALL_GRACE: Duration = Duration::from_secs(2);
/// Processes that one attempt takes at most. One that dies before it has made keys has bound nothing, and leaves the attempt
/// to the next.
const MAX_PROCESSES: u32 = 3;
/// How long a process may take to end after its report.
pub(crate) const EXIT_TIMEOUT: Duration = Duration::from_secs(2);

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// A process is there and everything may begin.
    Begin,
    /// All objects are on the disk.
    ObjectsHere,
    /// The process made its keys.
    KeysMade,
    /// A valid challenge is there.
    Challenged,
    /// The device signed.
    EvidenceMade,
    /// A grant is there that the process has not seen yet.
    GrantHere,
    /// The process took the grant.
    GrantTaken,
    /// The process refused the grant.
    GrantRefused,
    /// The process reported.
    TaskReported,
    /// The outputs of its report are with the coordinator, and closing evidence was asked for.
    Delivered,
    /// The process is gone; how far it had come is `phase`.
    ProcessExited { status: ExitStatus, phase: Phase },
    /// Something went wrong that ends the attempt.
    Failed(Refusal),
    /// The time of the last [`Command::Timer`] is over.
    TimerFired,
    /// The coordinator wants nothing more of this attempt, or its lease is over.
    Fenced,
    /// The node stops and waits no longer.
    Stopping,
    /// The node gives up what runs.
    GivenUp(Refusal),
    /// The report was taken, or nobody will take it.
    Published,
}

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    /// Take another process from the pool.
    TakeProcess,
    /// Give the process its lease.
    SendLease,
    /// Fetch workload and inputs.
    FetchObjects,
    /// Hand the objects to the process.
    SendObjects,
    /// Have the device sign the binding.
    MakeEvidence,
    /// Send the evidence to the coordinator.
    SendEvidence,
    /// Hand the grant to the process.
    SendGrant,
    /// Ask for [`Event::TimerFired`] after that time; `None` takes the last one back. `WallLimit` adds the task's own.
    Timer(Timer),
    /// Kill the process.
    Kill,
    /// Upload the outputs that the report lists, and make closing evidence over it.
    Deliver,
    /// Publish the process's report.
    PublishTaskReport,
    /// Publish a report of the agent's own.
    PublishAgentReport(Refusal),
    /// Over.
    Finish,
}

/// A time to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Timer {
    /// None.
    Off,
    /// This long.
    After(Duration),
    /// The task's wall limit and this long.
    AfterWallLimit(Duration),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Preparing,
    Running,
    /// Reported; its process is ending and its outputs are on their way.
    Leaving {
        exited: bool,
        delivered: bool,
    },
    Publishing,
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Evidence {
    Wanted,
    Asked,
    Made,
}

/// The state of one attempt.
#[derive(Debug)]
pub(crate) struct Machine {
    stage: Stage,
    processes: u32,
    objects_here: bool,
    objects_sent: bool,
    keys_made: bool,
    challenged: bool,
    evidence: Evidence,
    /// A grant waits to be handed over.
    grant_waits: bool,
    /// A grant is with the process, which has not answered.
    grant_sent: bool,
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self {
            stage: Stage::Preparing,
            processes: 1,
            objects_here: false,
            objects_sent: false,
            keys_made: false,
            challenged: false,
            evidence: Evidence::Wanted,
            grant_waits: false,
            grant_sent: false,
        }
    }

    /// Whether the attempt is over.
    pub(crate) fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// What `event` leads to.
    pub(crate) fn on(&mut self, event: Event) -> Vec<Command> {
        match (self.stage, event) {
            (Stage::Over, _) => Vec::new(),
            (_, Event::Fenced) => {
                self.stage = Stage::Over;
                vec![Command::Kill, Command::Finish]
            }
            (Stage::Publishing, Event::Published) => {
                self.stage = Stage::Over;
                vec![Command::Finish]
            }
            // What else comes now belongs to a process that was given up or has said what it had to say.
            (Stage::Publishing, _) => Vec::new(),
            (Stage::Leaving { delivered, .. }, Event::ProcessExited { .. }) => self.leave(true, delivered),
            (Stage::Leaving { exited, .. }, Event::Delivered) => self.leave(exited, true),
            (Stage::Leaving { .. }, Event::TimerFired) => vec![Command::Kill],
            // What still can fail is the delivery.
            (Stage::Leaving { .. }, Event::Failed(refusal)) => self.fail(refusal),
            (Stage::Leaving { .. }, _) => Vec::new(),
            (Stage::Preparing | Stage::Running, Event::Failed(refusal) | Event::GivenUp(refusal)) => self.fail(refusal),
            (Stage::Preparing | Stage::Running, Event::Stopping) => self.fail(stopping()),
            (Stage::Preparing, Event::ProcessExited { .. }) if !self.keys_made && self.processes < MAX_PROCESSES => {
                self.processes += 1;
                vec![Command::TakeProcess, Command::SendLease, Command::Timer(Timer::After(KEYS_TIMEOUT))]
            }
            (Stage::Preparing | Stage::Running, Event::ProcessExited { status, phase }) => {
                self.fail(fault_of_exit(status, phase))
            }
            (Stage::Preparing | Stage::Running, Event::TaskReported) => {
                self.stage = Stage::Leaving { exited: false, delivered: false };
                vec![Command::Deliver, Command::Timer(Timer::After(EXIT_TIMEOUT))]
            }
            (Stage::Running, Event::TimerFired) => self.fail(wall_limit()),
            (Stage::Running, _) => Vec::new(),
            (Stage::Preparing, event) => self.prepare(event),
        }
    }

    fn prepare(&mut self, event: Event) -> Vec<Command> {
        match event {
            Event::Begin => {
                vec![Command::SendLease, Command::Timer(Timer::After(KEYS_TIMEOUT)), Command::FetchObjects]
            }
            Event::KeysMade => {
                self.keys_made = true;
                let mut commands = vec![Command::Timer(Timer::Off)];
                commands.extend(self.progress());
                commands
            }
            Event::ObjectsHere => {
                self.objects_here = true;
                self.progress()
            }
            Event::Challenged => {
                self.challenged = true;
                self.progress()
            }
            Event::EvidenceMade => {
                self.evidence = Evidence::Made;
                let mut commands = vec![Command::SendEvidence];
                commands.extend(self.progress());
                commands
            }
            Event::GrantHere => {
                self.grant_waits = true;
                self.progress()
            }
            Event::GrantRefused => {
                self.grant_sent = false;
                let mut commands = vec![Command::Timer(Timer::Off)];
                commands.extend(self.progress());
                commands
            }
            Event::GrantTaken => {
                self.stage = Stage::Running;
                vec![Command::Timer(Timer::AfterWallLimit(WALL_GRACE))]
            }
            Event::TimerFired => self.fail(silent()),
            _ => Vec::new(),
        }
    }

    /// Whatever has become possible.
    fn progress(&mut self) -> Vec<Command> {
        let mut commands = Vec::new();
        if self.keys_made && self.challenged && self.evidence == Evidence::Wanted {
            self.evidence = Evidence::Asked;
            commands.push(Command::MakeEvidence);
        }
        if self.keys_made && self.objects_here && !self.objects_sent {
            self.objects_sent = true;
            commands.push(Command::SendObjects);
        }
        if self.grant_waits && !self.grant_sent && self.objects_sent && self.evidence == Evidence::Made {
            self.grant_waits = false;
            self.grant_sent = true;
            commands.push(Command::SendGrant);
            commands.push(Command::Timer(Timer::After(GRANT_TIMEOUT)));
        }
        commands
    }

    fn leave(&mut self, exited: bool, delivered: bool) -> Vec<Command> {
        if exited && delivered {
            return self.publish(Command::PublishTaskReport);
        }
        self.stage = Stage::Leaving { exited, delivered };
        if exited { vec![Command::Timer(Timer::Off)] } else { Vec::new() }
    }

    fn fail(&mut self, refusal: Refusal) -> Vec<Command> {
        let mut commands = vec![Command::Kill];
        commands.extend(self.publish(Command::PublishAgentReport(refusal)));
        commands
    }

    fn publish(&mut self, report: Command) -> Vec<Command> {
        self.stage = Stage::Publishing;
        vec![Command::Timer(Timer::Off), report]
    }
}

const ANOTHER_NODE: &str = "nothing is known to be wrong with the task: another node can run it";

fn silent() -> Refusal {
    Refusal::new(Party::Node, "node.task-process-silent", "the task process did not answer in time", ANOTHER_NODE)
}

fn stopping() -> Refusal {
    Refusal::new(Party::Node, "node.stopping", "the node was told to stop before the task had ended", ANOTHER_NODE)
}

fn wall_limit() -> Refusal {
    Refusal::new(
        Party::Requester,
        "limits.wall-time",
        "the task took longer than its wall limit and did not end by itself",
        "raise limits.wall_limit_ms, or give the program less to do",
    )
}

/// Whose fault it is that a process ended without a report. Before a guest ran, nobody but this node can be to blame.
pub(crate) fn fault_of_exit(status: ExitStatus, phase: Phase) -> Refusal {
    let guest = phase >= Phase::Running;
    let node = |check: &'static str, reason: String| Refusal::new(Party::Node, check, reason, ANOTHER_NODE);
    match status {
        ExitStatus::Signal(libc::SIGSYS) if guest => Refusal::new(
            Party::Workload,
            "task.forbidden-call",
            "the task process made a system call that no task may make, and was ended by the kernel",
            "remove what tries to break out of the sandbox; if nothing does, report this as a defect",
        ),
        ExitStatus::Signal(libc::SIGSYS) => {
            node("node.forbidden-call", "a system call that the sandbox forbids was made before the program ran".into())
        }
        // An abort shows as SIGSEGV too: process 1 of a namespace ignores the signal, and the C library then faults.
        ExitStatus::Signal(
            signal @ (libc::SIGABRT | libc::SIGSEGV | libc::SIGBUS | libc::SIGILL | libc::SIGFPE | libc::SIGTRAP),
        ) if guest => Refusal::new(
            Party::Workload,
            "task.crashed",
            format!(
                "the task process broke down while the program ran (signal {signal}), as it does when the memory that its \
                 limits leave it is used up"
            ),
            "raise limits.memory_bytes, or give the program less to do; if that changes nothing, report this as a defect",
        ),
        ExitStatus::Signal(libc::SIGKILL) => {
            node("node.killed", "the task process was killed from outside, as a system without memory does".into())
        }
        ExitStatus::Signal(signal) => node("node.task-crashed", format!("signal {signal} ended the task process")),
        ExitStatus::Code(code) => {
            node("node.task-ended-early", format!("the task process ended with status {code} and without a report"))
        }
    }
}

/// What it means that a process broke the protocol.
pub(crate) fn broken_protocol(what: &'static str, phase: Phase) -> Refusal {
    let (party, check) =
        if phase >= Phase::Running { (Party::Workload, "task.protocol") } else { (Party::Node, "node.task-protocol") };
    Refusal::new(party, check, format!("the task process broke the agent's rules: {what}"), "report this as a defect")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A script of events, each with the commands that must follow, in short form.
    fn check(script: &[(Event, &str)]) {
        let mut machine = Machine::new();
        for (step, (event, wanted)) in script.iter().enumerate() {
            let found: Vec<String> = machine.on(event.clone()).iter().map(short).collect();
            assert_eq!(found.join(" "), *wanted, "step {step}: {event:?}");
        }
    }

    fn short(command: &Command) -> String {
        match command {
            Command::TakeProcess => "process".into(),
            Command::SendLease => "lease".into(),
            Command::FetchObjects => "fetch".into(),
            Command::SendObjects => "objects".into(),
            Command::MakeEvidence => "attest".into(),
            Command::SendEvidence => "evidence".into(),
            Command::SendGrant => "grant".into(),
            Command::Timer(Timer::Off) => "off".into(),
            Command::Timer(Timer::After(_)) => "timer".into(),
            Command::Timer(Timer::AfterWallLimit(_)) => "wall".into(),
            Command::Kill => "kill".into(),
            Command::Deliver => "deliver".into(),
            Command::PublishTaskReport => "task-report".into(),
            Command::PublishAgentReport(refusal) => format!("agent-report:{}", refusal.check()),
            Command::Finish => "finish".into(),
        }
    }

    fn exited(status: ExitStatus, phase: Phase) -> Event {
        Event::ProcessExited { status, phase }
    }

    const GOOD: ExitStatus = ExitStatus::Code(0);

    #[test]
    fn the_usual_way_and_its_orders() {
        use Event::*;
        check(&[
            (Begin, "lease timer fetch"),
            (KeysMade, "off"),
            (Challenged, "attest"),
            (ObjectsHere, "objects"),
            (EvidenceMade, "evidence"),
            (GrantHere, "grant timer"),
            (GrantTaken, "wall"),
            (TaskReported, "deliver timer"),
            (Delivered, ""),
            (exited(GOOD, Phase::Reported), "off task-report"),
            (Published, "finish"),
            (Fenced, ""),
        ]);
        // The process is gone before its outputs are delivered.
        check(&[
            (Begin, "lease timer fetch"),
            (TaskReported, "deliver timer"),
            (exited(GOOD, Phase::Reported), "off"),
            (Delivered, "off task-report"),
        ]);
        // The challenge is there before the keys, the grant before the objects.
        check(&[
            (Begin, "lease timer fetch"),
            (Challenged, ""),
            (KeysMade, "off attest"),
            (EvidenceMade, "evidence"),
            (GrantHere, ""),
            (ObjectsHere, "objects grant timer"),
        ]);
        // The objects before everything.
        check(&[
            (Begin, "lease timer fetch"),
            (ObjectsHere, ""),
            (Challenged, ""),
            (KeysMade, "off attest objects"),
            (GrantHere, ""),
            (EvidenceMade, "evidence grant timer"),
        ]);
    }

    #[test]
    fn evidence_is_made_once_and_a_refused_grant_leaves_the_attempt_open() {
        use Event::*;
        check(&[
            (Begin, "lease timer fetch"),
            (KeysMade, "off"),
            (Challenged, "attest"),
            (Challenged, ""),
            (ObjectsHere, "objects"),
            (EvidenceMade, "evidence"),
            (Challenged, ""),
            (GrantHere, "grant timer"),
            (GrantHere, ""),
            (GrantRefused, "off grant timer"),
            (GrantRefused, "off"),
            (GrantHere, "grant timer"),
            (GrantTaken, "wall"),
            (GrantHere, ""),
        ]);
    }

    #[test]
    fn every_failure_is_reported_once_by_the_agent() {
        use Event::*;
        let broken = || Failed(Refusal::new(Party::Node, "a.b", "c", "d"));
        check(&[(Begin, "lease timer fetch"), (TimerFired, "kill off agent-report:node.task-process-silent")]);
        check(&[
            (Begin, "lease timer fetch"),
            (broken(), "kill off agent-report:a.b"),
            (broken(), ""),
            (exited(ExitStatus::Signal(9), Phase::Keyed), ""),
            (Published, "finish"),
        ]);
        // What has reported is not given up.
        let given_up = || GivenUp(Refusal::new(Party::Node, "a.b", "c", "d"));
        check(&[(Begin, "lease timer fetch"), (given_up(), "kill off agent-report:a.b"), (given_up(), "")]);
        check(&[(Begin, "lease timer fetch"), (TaskReported, "deliver timer"), (given_up(), "")]);
        let running = |last: Event, wanted: &'static str| {
            check(&[
                (Begin, "lease timer fetch"),
                (KeysMade, "off"),
                (Challenged, "attest"),
                (ObjectsHere, "objects"),
                (EvidenceMade, "evidence"),
                (GrantHere, "grant timer"),
                (GrantTaken, "wall"),
                (last, wanted),
            ]);
        };
        running(TimerFired, "kill off agent-report:limits.wall-time");
        running(Stopping, "kill off agent-report:node.stopping");
        running(Fenced, "kill finish");
        running(broken(), "kill off agent-report:a.b");
        running(exited(ExitStatus::Signal(9), Phase::Running), "kill off agent-report:node.killed");
    }

    #[test]
    fn a_process_that_dies_before_it_has_keys_is_replaced_twice() {
        use Event::*;
        let died = || exited(ExitStatus::Signal(9), Phase::Leased);
        check(&[
            (Begin, "lease timer fetch"),
            (died(), "process lease timer"),
            (ObjectsHere, ""),
            (died(), "process lease timer"),
            (died(), "kill off agent-report:node.killed"),
        ]);
        check(&[
            (Begin, "lease timer fetch"),
            (KeysMade, "off"),
            (exited(ExitStatus::Signal(9), Phase::Keyed), "kill off agent-report:node.killed"),
        ]);
    }

    #[test]
    fn a_process_that_will_not_leave_is_made_to() {
        use Event::*;
        check(&[
            (Begin, "lease timer fetch"),
            (TaskReported, "deliver timer"),
            (Delivered, ""),
            (Stopping, ""),
            (TimerFired, "kill"),
            (exited(ExitStatus::Signal(9), Phase::Reported), "off task-report"),
            (TaskReported, ""),
            (Stopping, ""),
            (Published, "finish"),
        ]);
    }

    #[test]
    fn outputs_that_are_lost_take_their_report_with_them() {
        use Event::*;
        let lost = || Failed(Refusal::new(Party::Node, "node.outputs-lost", "c", "d"));
        check(&[
            (Begin, "lease timer fetch"),
            (TaskReported, "deliver timer"),
            (exited(GOOD, Phase::Reported), "off"),
            (lost(), "kill off agent-report:node.outputs-lost"),
            (Delivered, ""),
            (Published, "finish"),
        ]);
    }

    #[test]
    fn a_fenced_attempt_reports_nothing_whenever_it_comes() {
        use Event::*;
        let steps =
            [Begin, KeysMade, Challenged, ObjectsHere, EvidenceMade, GrantHere, GrantTaken, TaskReported, Delivered];
        for length in 0..=steps.len() {
            let mut machine = Machine::new();
            for event in &steps[..length] {
                machine.on(event.clone());
            }
            let commands = machine.on(Fenced);
            assert_eq!(commands, [Command::Kill, Command::Finish]);
            assert!(machine.is_over());
            for event in &steps {
                assert!(machine.on(event.clone()).is_empty());
            }
        }
    }

    #[test]
    fn who_is_to_blame_for_an_end_without_a_report() {
        let check = |status, phase, party, code| {
            let refusal = fault_of_exit(status, phase);
            assert_eq!((refusal.party(), refusal.check()), (party, code));
        };
        use ExitStatus::{Code, Signal};
        check(Signal(libc::SIGSYS), Phase::Running, Party::Workload, "task.forbidden-call");
        check(Signal(libc::SIGSYS), Phase::Opening, Party::Node, "node.forbidden-call");
        check(Signal(libc::SIGABRT), Phase::Running, Party::Workload, "task.crashed");
        check(Signal(libc::SIGABRT), Phase::Keyed, Party::Node, "node.task-crashed");
        check(Signal(libc::SIGKILL), Phase::Running, Party::Node, "node.killed");
        check(Signal(libc::SIGSEGV), Phase::Running, Party::Workload, "task.crashed");
        check(Signal(libc::SIGSEGV), Phase::Opening, Party::Node, "node.task-crashed");
        check(Signal(libc::SIGXFSZ), Phase::Running, Party::Node, "node.task-crashed");
        check(Code(71), Phase::Keyed, Party::Node, "node.task-ended-early");
    }
}
